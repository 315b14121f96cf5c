//! Observers behind followers, and their clients.

use zk_proto::quorum::{PacketType, QuorumPacket};
use zk_proto::txn::{LoggedTxn, Txn};
use zk_proto::{ErrorCode, OpCode, Request, SessionId};

use crate::ensemble::Ensemble;
use crate::harness::{Message, config};
use crate::script::request;

fn ok(ensemble: &mut Ensemble, name: &str, text: &str) {
    let (header, _) = ensemble.ask(name, &request(text));
    assert_eq!(header.err, ErrorCode::OK, "{text} at {name}");
}

fn requests(texts: &[&str]) -> Vec<Request> {
    texts.iter().map(|text| request(text)).collect()
}

fn started(voters: i64, observers: i64) -> Ensemble {
    Ensemble::with(voters, observers, config(), |peer| peer.observer_masters = true)
}

/// Who feeds an observer.
fn master(ensemble: &Ensemble, observer: i64) -> i64 {
    ensemble.node(observer).quorum_status().learner_master.expect("it observes").0
}

fn data(ensemble: &mut Ensemble, name: &str, path: &str) -> String {
    let (_, body) = ensemble.ask(name, &request(&format!("get {path}")));
    let len = i32::from_be_bytes(body[..4].try_into().expect("a length"));
    let len = usize::try_from(len).expect("there is data");
    String::from_utf8(body[4..4 + len].to_vec()).expect("it is text")
}

fn exists(ensemble: &Ensemble, server: i64, path: &str) -> bool {
    ensemble.node(server).read(|db| db.tree.find(path).is_some())
}

fn came_back(ensemble: &mut Ensemble, name: &str, server: i64, session: SessionId) {
    ensemble.reconnect(name, server, session);
    match &ensemble.take(name)[..] {
        [Message::Connected(response)] => assert_eq!(response.session_id, session, "{name}"),
        other => panic!("{other:?} at {name}"),
    }
}

#[test]
fn clients_of_observers_get_everything_by_way_of_a_follower() {
    let mut ensemble = started(3, 2);
    let leader = ensemble.leader();
    for observer in [4, 5] {
        let follower = master(&ensemble, observer);
        assert!(follower != leader && follower <= 3, "{observer} is behind {follower}");
        ensemble.sent.clear();
        let name = format!("c{observer}");
        ensemble.connect(&name, observer);
        let path = format!("/{name}");
        // Together: each waits for the ones before it.
        let texts = [
            format!("create {path} old"),
            format!("set {path} new"),
            "sync /".to_owned(),
            format!("set {path} newer"),
            format!("get {path}"),
            "sync /".to_owned(),
        ];
        ensemble.send_all(&name, &requests(&texts.each_ref().map(String::as_str)));
        let ops: Vec<OpCode> = ensemble
            .take(&name)
            .iter()
            .map(|message| match message {
                Message::Reply { op, header, .. } => {
                    assert_eq!(header.err, ErrorCode::OK);
                    *op
                }
                other => panic!("{other:?}"),
            })
            .collect();
        let (create, set, sync, get) =
            (OpCode::CREATE, OpCode::SET_DATA, OpCode::SYNC, OpCode::GET_DATA);
        assert_eq!(ops, [create, set, sync, set, get, sync]);
        assert_eq!(data(&mut ensemble, &name, &path), "newer");
        assert!((1..=5).all(|server| exists(&ensemble, server, &path)));
        // Nothing of this went between the observer and the leader.
        let direct = |(from, to, _): &&(i64, i64, QuorumPacket)| {
            [(observer, leader), (leader, observer)].contains(&(*from, *to))
        };
        assert_eq!(ensemble.sent.iter().find(direct), None);
        ensemble.send_all(&name, &[Request::CloseSession]);
    }
    ensemble.check();
}

/// The order of the leader's answers is the order of the requests, with what is committed in between.
#[test]
fn a_sync_keeps_its_place_between_the_commits_on_the_way_to_an_observer() {
    let mut ensemble = started(3, 1);
    let follower = master(&ensemble, 4);
    let leader = ensemble.leader();
    ensemble.connect("c", 4);
    ensemble.hold(leader, follower);
    ensemble.send_all("c", &requests(&["create /a", "sync /", "create /b"]));
    ensemble.sent.clear();
    ensemble.hold_disk(follower, true);
    ensemble.release(leader, follower);
    assert!(
        !ensemble.sent.iter().any(|(_, to, _)| *to == 4),
        "before it is on the follower's disk"
    );
    ensemble.hold_disk(follower, false);
    let told: Vec<PacketType> = (ensemble.sent.iter())
        .filter(|(from, to, _)| (*from, *to) == (follower, 4))
        .map(|(_, _, packet)| packet.packet_type)
        .collect();
    assert_eq!(told, [PacketType::INFORM, PacketType::SYNC, PacketType::INFORM]);
    ensemble.check();
}

#[test]
fn a_session_moves_between_observers_and_their_follower() {
    let mut ensemble = started(2, 2);
    let leader = ensemble.leader();
    let follower = ensemble.follower();
    assert_eq!([master(&ensemble, 4), master(&ensemble, 3)], [follower; 2], "there is one only");
    let session = ensemble.connect("c0", 3);
    ok(&mut ensemble, "c0", "create /e eph");
    let stops = [(4, false), (follower, true), (3, false), (leader, false), (4, false)];
    let mut stale = 0;
    for (number, (server, leaves)) in stops.into_iter().enumerate() {
        let (old, new) = (format!("c{number}"), format!("c{}", number + 1));
        came_back(&mut ensemble, &new, server, session);
        ok(&mut ensemble, &new, "set /e mine");
        if !ensemble.is_closed(&old) {
            // What comes late from where the session was has no effect.
            ensemble.send_all(&old, &requests(&["set /e stale", "create /stale"]));
            stale += 1;
        }
        assert_eq!(data(&mut ensemble, &new, "/e"), "mine");
        assert!(!exists(&ensemble, leader, "/stale"));
        if leaves {
            ensemble.lose(&new);
        }
    }
    assert!(stale >= 3, "{stale}");
    // The last one closes it, as its owner may.
    ensemble.send_all("c5", &[Request::CloseSession]);
    assert!((1..=4).all(|server| !exists(&ensemble, server, "/e")));
    ensemble.check();
}

/// "Not yet" would be a wrong answer to who looks whether its write was done.
#[test]
fn who_comes_to_an_observer_sees_what_it_had_asked_for() {
    let mut ensemble = started(3, 1);
    let follower = master(&ensemble, 4);
    let leader = ensemble.leader();
    let session = ensemble.connect("a", leader);
    ok(&mut ensemble, "a", "create /before");
    ensemble.hold_disk(follower, true);
    ok(&mut ensemble, "a", "create /x");
    ensemble.lose("a");
    ensemble.reconnect("b", 4, session);
    ensemble.send_all("b", &requests(&["exists /x"]));
    assert!(ensemble.take("b").is_empty(), "it must wait");
    ensemble.hold_disk(follower, false);
    match &ensemble.take("b")[..] {
        [Message::Connected(_), Message::Reply { header, .. }] => {
            assert_eq!(header.err, ErrorCode::OK);
        }
        other => panic!("{other:?}"),
    }
    ensemble.check();
}

#[test]
fn sessions_at_observers_live_while_they_are_heard_of_and_no_longer() {
    let mut ensemble = started(3, 1);
    let leader = ensemble.leader();
    ensemble.connect("alive", 4);
    let silent = ensemble.connect("silent", 4);
    for _ in 0..200 {
        ensemble.pass(200);
        ok(&mut ensemble, "alive", "exists /");
    }
    let closed: Vec<SessionId> = (ensemble.log(leader).iter())
        .filter(|txn: &&LoggedTxn| matches!(txn.txn, Txn::CloseSession(_)))
        .map(|txn| txn.header.client_id)
        .collect();
    assert_eq!(closed, [silent]);
    ensemble.check();
}

#[test]
fn an_observer_finds_another_follower_and_its_clients_come_back() {
    let mut ensemble = started(3, 1);
    let (leader, first) = (ensemble.leader(), master(&ensemble, 4));
    let session = ensemble.connect("a", 4);
    ok(&mut ensemble, "a", "create /e eph");
    ensemble.kill(first);
    ensemble.establish();
    let second = master(&ensemble, 4);
    assert!(second != first && second != leader, "{second}");
    assert!(ensemble.is_closed("a"));
    came_back(&mut ensemble, "b", 4, session);
    ok(&mut ensemble, "b", "set /e 2");
    ensemble.restart(first);
    ensemble.establish();
    assert_eq!(master(&ensemble, 4), second, "it stays");
    ensemble.check();
}
