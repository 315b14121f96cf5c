//! Servers of one ensemble, and their clients.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use zk_processor::{NodeConfig, ServerRole};
use zk_proto::create_mode::ExtendedTypes;
use zk_proto::proto::WatcherEvent;
use zk_proto::quorum::{ForwardedRequest, PacketType, QuorumPacket, SessionTimeout};
use zk_proto::txn::{LoggedTxn, Txn};
use zk_proto::{ErrorCode, OpCode, Record, Request, SessionId, Xid, Zxid};
use zk_session::LocalSessionMode;

use crate::ensemble::Ensemble;
use crate::harness::{Message, config, connect_request};
use crate::script::request;

fn ok(ensemble: &mut Ensemble, name: &str, text: &str) -> Bytes {
    let (header, body) = ensemble.ask(name, &request(text));
    assert_eq!(header.err, ErrorCode::OK, "{text} at {name}");
    body
}

fn err(ensemble: &mut Ensemble, name: &str, text: &str) -> ErrorCode {
    ensemble.ask(name, &request(text)).0.err
}

fn requests(texts: &[&str]) -> Vec<Request> {
    texts.iter().map(|text| request(text)).collect()
}

/// The operations that were answered, with their errors; nothing else may have come.
fn replies(ensemble: &mut Ensemble, name: &str) -> Vec<(OpCode, i32)> {
    ensemble
        .take(name)
        .iter()
        .map(|message| match message {
            Message::Reply { op, header, .. } => (*op, header.err.0),
            other => panic!("{other:?} at {name}"),
        })
        .collect()
}

fn events(ensemble: &mut Ensemble, name: &str) -> Vec<(i32, String)> {
    ensemble
        .take(name)
        .into_iter()
        .map(|message| match message {
            Message::Event { event: WatcherEvent { event_type, path, .. }, .. } => {
                (event_type, path)
            }
            other => panic!("{other:?} at {name}"),
        })
        .collect()
}

fn exists(ensemble: &Ensemble, server: i64, path: &str) -> bool {
    ensemble.node(server).read(|db| db.tree.find(path).is_some())
}

#[test]
fn a_write_through_any_server_is_seen_at_once_there_and_soon_everywhere() {
    let mut ensemble = Ensemble::new(3, 1);
    let observer = 4;
    assert_eq!(ensemble.role(observer), ServerRole::Observer);
    assert_eq!(ensemble.role(ensemble.follower()), ServerRole::Follower);
    for server in 1..=4 {
        let name = format!("c{server}");
        ensemble.connect(&name, server);
        // Together: the read waits for the write before it.
        let path = format!("/{name}");
        let texts =
            [format!("create {path} old"), format!("set {path} new"), format!("get {path}")];
        ensemble.send_all(&name, &requests(&texts.each_ref().map(String::as_str)));
        match &ensemble.take(&name)[..] {
            [
                Message::Reply { .. },
                Message::Reply { header, .. },
                Message::Reply { header: read, body, .. },
            ] => {
                assert!(header.zxid > Zxid(1 << 32) && read.zxid >= header.zxid);
                assert!(body.starts_with(b"\0\0\0\x03new"));
            }
            other => panic!("{other:?}"),
        }
        assert!((1..=4).all(|server| exists(&ensemble, server, &path)));
    }
    assert_eq!(ensemble.node(1).stats().requests_forwarded.load(Ordering::Relaxed), 2);
    ensemble.check();
}

#[test]
fn a_server_alone_in_its_ensemble_leads_itself() {
    let mut ensemble = Ensemble::new(1, 0);
    assert_eq!(ensemble.role(1), ServerRole::Leader);
    ensemble.connect("a", 1);
    ok(&mut ensemble, "a", "create /x");
    ok(&mut ensemble, "a", "sync /");
    ensemble.check();
    assert_eq!(ensemble.log(1).last().unwrap().header.zxid, Zxid((1 << 32) + 2));
}

/// What was committed before a sync was asked for is seen behind it, however slow the link is.
#[test]
fn a_sync_waits_for_what_was_committed_before_it() {
    let mut ensemble = Ensemble::new(3, 0);
    let (leader, follower) = (ensemble.leader(), ensemble.follower());
    ensemble.connect("w", leader);
    ensemble.connect("r", follower);
    ok(&mut ensemble, "w", "create /x old");
    ensemble.hold(leader, follower);
    ok(&mut ensemble, "w", "set /x new");
    assert!(ok(&mut ensemble, "r", "get /x").starts_with(b"\0\0\0\x03old"), "it lags");
    ensemble.send_all("r", &requests(&["sync /x", "get /x"]));
    assert!(ensemble.take("r").is_empty());
    ensemble.release(leader, follower);
    match &ensemble.take("r")[..] {
        [Message::Reply { op: OpCode::SYNC, body: path, .. }, Message::Reply { body, .. }] => {
            assert_eq!(path, &b"\0\0\0\x02/x"[..]);
            assert!(body.starts_with(b"\0\0\0\x03new"));
        }
        other => panic!("{other:?}"),
    }
    ok(&mut ensemble, "w", "sync /");
    ensemble.check();
}

/// Upstream's learners match what comes back by its order: `SYNC` comes right behind the commit that
/// it waits for, also when more is committed at once.
#[test]
fn a_sync_keeps_its_place_between_commits() {
    let mut ensemble = Ensemble::new(3, 1);
    let leader = ensemble.leader();
    let followers = ensemble.learners();
    for (name, server) in [("f", followers[0]), ("o", 4)] {
        ensemble.connect(name, server);
        ok(&mut ensemble, name, &format!("create /{name}"));
    }
    for follower in &followers[..2] {
        ensemble.hold_disk(*follower, true);
    }
    ensemble.sent.clear();
    for name in ["f", "o"] {
        let path = format!("/{name}");
        let texts =
            [format!("set {path} 1"), "sync /".into(), format!("set {path} 2"), "ping".into()];
        ensemble.send_all(name, &requests(&texts.each_ref().map(String::as_str)));
        assert!(ensemble.take(name).is_empty());
    }
    assert_eq!(ensemble.node(leader).status().pending_syncs, 2);
    // A quorum has all four proposals at once.
    ensemble.hold_disk(followers[1], false);
    let packets = |to: i64| -> Vec<PacketType> {
        let ours = ensemble.sent.iter().filter(|(from, own, _)| (*from, *own) == (leader, to));
        let kinds = ours.map(|(_, _, packet)| packet.packet_type);
        kinds.filter(|kind| *kind != PacketType::PROPOSAL).collect()
    };
    let (commit, inform, sync) = (PacketType::COMMIT, PacketType::INFORM, PacketType::SYNC);
    assert_eq!(packets(followers[0]), [commit, sync, commit, commit, commit]);
    assert_eq!(packets(4), [inform, inform, inform, sync, inform]);
    let expected =
        [(OpCode::SET_DATA, 0), (OpCode::SYNC, 0), (OpCode::SET_DATA, 0), (OpCode::PING, 0)];
    assert_eq!(replies(&mut ensemble, "o"), expected);
    // The follower's own disk is the last to have them: everything is delivered together, and `SYNC`
    // has been there for long.
    assert!(ensemble.take("f").is_empty());
    ensemble.hold_disk(followers[0], false);
    assert_eq!(replies(&mut ensemble, "f"), expected);
    ok(&mut ensemble, "f", "sync /");
    ensemble.check();
}

#[test]
fn sessions_and_their_ephemerals_are_the_same_everywhere() {
    let mut ensemble = Ensemble::new(3, 1);
    let leader = ensemble.leader();
    let followers = ensemble.learners();
    let session = ensemble.connect("a", followers[0]);
    assert_eq!(session.0 >> 56, followers[0], "the top byte is the server");
    ok(&mut ensemble, "a", "create /e eph");
    for (name, server) in [("l", leader), ("f", followers[1]), ("o", 4)] {
        ensemble.connect(name, server);
        ok(&mut ensemble, name, "exists /e w");
        ok(&mut ensemble, name, "ls / w");
    }
    assert!((1..=4).all(|id| ensemble.node(id).read(|db| db.tree.sessions().len()) == 4));
    ensemble.send_all("a", &[Request::CloseSession]);
    assert!(matches!(
        &ensemble.take("a")[..],
        [Message::Reply { op: OpCode::CLOSE_SESSION, .. }, Message::Closed]
    ));
    for (name, server) in [("l", leader), ("f", followers[1]), ("o", 4)] {
        assert!(!exists(&ensemble, server, "/e"));
        assert_eq!(events(&mut ensemble, name), [(2, "/e".into()), (4, "/".into())]);
    }
    ensemble.reconnect("a", followers[1], session);
    assert!(matches!(&ensemble.take("a")[..], [Message::Expired(_), Message::Closed]));
    ensemble.check();
}

#[test]
fn events_come_before_the_replies_that_show_the_change() {
    let mut ensemble = Ensemble::new(3, 0);
    let followers = ensemble.learners();
    ensemble.connect("w", followers[0]);
    ensemble.connect("r", followers[1]);
    ok(&mut ensemble, "w", "create /x");
    ok(&mut ensemble, "r", "addwatch / recursive");
    ok(&mut ensemble, "w", "get /x w");
    // The writer's own watch, too.
    ensemble.send_all("w", &requests(&["set /x 1"]));
    assert!(matches!(&ensemble.take("w")[..], [Message::Event { .. }, Message::Reply { .. }]));
    ensemble.send_all("r", &requests(&["create /y"]));
    match &ensemble.take("r")[..] {
        [
            Message::Event { event: first, .. },
            Message::Event { zxid, event: second },
            Message::Reply { header, .. },
        ] => {
            assert_eq!((&*first.path, first.event_type), ("/x", 3));
            assert_eq!((&*second.path, second.event_type), ("/y", 1));
            assert_eq!(*zxid, header.zxid);
        }
        other => panic!("{other:?}"),
    }
    ensemble.check();
}

#[test]
fn a_session_moves_with_its_client() {
    let mut ensemble = Ensemble::new(3, 1);
    let leader = ensemble.leader();
    let followers = ensemble.learners();
    let session = ensemble.connect("first", followers[0]);
    ok(&mut ensemble, "first", "create /e eph");
    for (old, new, server) in
        [("first", "second", followers[1]), ("second", "third", 4), ("third", "fourth", leader)]
    {
        ensemble.reconnect(new, server, session);
        match &ensemble.take(new)[..] {
            [Message::Connected(response)] => assert_eq!(response.session_id, session),
            other => panic!("{other:?}"),
        }
        ok(&mut ensemble, new, "set /e mine");
        // The connection that it left is told nothing: the client must not take it for an answer.
        ensemble.send_all(old, &requests(&["set /e stale", "get /e"]));
        assert_eq!(ensemble.take(old), [Message::Closed]);
        assert!(ok(&mut ensemble, new, "get /e").starts_with(b"\0\0\0\x04mine"));
    }
    let txns = ensemble.log(leader);
    let moved = |txn: &&LoggedTxn| matches!(txn.txn, Txn::Error(error) if error.err == ErrorCode::SESSION_MOVED);
    assert_eq!(txns.iter().filter(moved).count(), 3);
    // From the leader to a follower: the leader knows at once.
    ensemble.reconnect("fifth", followers[0], session);
    assert!(matches!(&ensemble.take("fifth")[..], [Message::Connected(_)]));
    assert_eq!(ensemble.take("fourth"), [Message::Closed]);
    ok(&mut ensemble, "fifth", "multi set /e 1 | set /e 2");
    // And back, with a multi from the connection that was left.
    ensemble.reconnect("sixth", leader, session);
    ensemble.take("sixth");
    ensemble.send_all("fifth", &requests(&["multi set /e stale | create /z"]));
    assert_eq!(ensemble.take("fifth"), [Message::Closed]);
    assert!(!exists(&ensemble, leader, "/z"));
    ensemble.check();
}

#[test]
fn who_comes_back_must_know_the_password_of_a_session_that_is_there() {
    let mut ensemble = Ensemble::new(3, 0);
    let followers = ensemble.learners();
    let session = ensemble.connect("a", followers[0]);
    let mut wrong = connect_request(session);
    wrong.password = Some(Bytes::from_static(&[7; 16]));
    ensemble.sent.clear();
    ensemble.try_connect("thief", followers[1], &wrong);
    assert!(matches!(&ensemble.take("thief")[..], [Message::Expired(_), Message::Closed]));
    let asked =
        |(_, _, packet): &(i64, i64, QuorumPacket)| packet.packet_type == PacketType::REVALIDATE;
    assert!(!ensemble.sent.iter().any(asked), "the leader was asked for a wrong password");
    ok(&mut ensemble, "a", "create /x");
    ensemble.reconnect("ghost", followers[1], SessionId(session.0 + 77));
    assert!(matches!(&ensemble.take("ghost")[..], [Message::Expired(_), Message::Closed]));
    assert!(ensemble.sent.iter().any(asked));
    let leader = ensemble.leader();
    let stats = ensemble.node(leader).stats();
    assert_eq!(stats.learner_revalidations.load(Ordering::Relaxed), 1);
    ensemble.check();
}

/// A client that lost its connection and comes to another server looks whether its write was done:
/// "not yet" would be a wrong answer.
#[test]
fn a_client_that_moved_sees_what_it_had_asked_for() {
    let mut ensemble = Ensemble::new(3, 0);
    let followers = ensemble.learners();
    let session = ensemble.connect("a", followers[0]);
    for follower in &followers {
        ensemble.hold_disk(*follower, true);
    }
    ensemble.send_all("a", &requests(&["create /x"]));
    ensemble.lose("a");
    ensemble.reconnect("b", followers[1], session);
    ensemble.send_all("b", &requests(&["exists /x"]));
    assert!(ensemble.take("b").is_empty(), "it must wait");
    ensemble.hold_disk(followers[0], false);
    // Committed; but the disk of the server that is asked does not have it yet.
    assert!(exists(&ensemble, followers[0], "/x") && !exists(&ensemble, followers[1], "/x"));
    assert!(ensemble.take("b").is_empty(), "it must wait for its own server too");
    ensemble.hold_disk(followers[1], false);
    match &ensemble.take("b")[..] {
        [Message::Connected(_), Message::Reply { header, .. }] => {
            assert_eq!(header.err, ErrorCode::OK);
        }
        other => panic!("{other:?}"),
    }
    ensemble.check();
}

/// The same at one server, whose client numbers its requests from 1 again.
#[test]
fn answers_to_an_old_connection_are_not_given_to_the_next_one() {
    let mut ensemble = Ensemble::new(3, 0);
    let followers = ensemble.learners();
    let session = ensemble.connect("a", followers[0]);
    for follower in &followers {
        ensemble.hold_disk(*follower, true);
    }
    ensemble.send_all("a", &requests(&["create /x", "create /x"]));
    ensemble.lose("a");
    ensemble.reconnect("b", followers[0], session);
    ensemble.send_all("b", &requests(&["create /y", "sync /", "create /y"]));
    for follower in &followers {
        ensemble.hold_disk(*follower, false);
    }
    let errors: Vec<_> = ensemble
        .take("b")
        .iter()
        .map(|message| match message {
            Message::Reply { header, .. } => Some(header.err),
            Message::Connected(_) => None,
            other => panic!("{other:?}"),
        })
        .collect();
    let exists = ErrorCode::NODE_EXISTS;
    assert_eq!(errors, [None, Some(ErrorCode::OK), Some(ErrorCode::OK), Some(exists)]);
    ensemble.check();
}

#[test]
fn a_silent_session_expires_and_one_that_is_heard_of_does_not() {
    let mut ensemble = Ensemble::new(3, 1);
    let followers = ensemble.learners();
    ensemble.connect("silent", followers[0]);
    ensemble.connect("alive", followers[0]);
    ensemble.connect("seen", 4);
    for name in ["silent", "alive", "seen"] {
        ok(&mut ensemble, name, &format!("create /{name} eph"));
    }
    // Timeouts are 10 s.
    for second in 0..30 {
        ensemble.pass(1000);
        for name in ["alive", "seen"] {
            ensemble.send_all(name, &[Request::Ping]);
            assert_eq!(replies(&mut ensemble, name), [(OpCode::PING, 0)], "{second}");
        }
        if second < 8 {
            assert!(!ensemble.is_closed("silent"), "{second}");
        }
    }
    assert_eq!(ensemble.take("silent"), [Message::Closed]);
    for server in 1..=4 {
        assert!(!exists(&ensemble, server, "/silent"));
        assert!(exists(&ensemble, server, "/alive") && exists(&ensemble, server, "/seen"));
    }
    let leader = ensemble.leader();
    for server in 1..=4 {
        let expired = ensemble.node(server).stats().sessions_expired.load(Ordering::Relaxed);
        assert_eq!(expired, u64::from(server == leader), "server {server}");
    }
    ensemble.check();
}

#[test]
fn a_new_leader_gives_every_session_its_full_timeout() {
    let mut ensemble = Ensemble::new(3, 0);
    let (leader, follower) = (ensemble.leader(), ensemble.follower());
    let session = ensemble.connect("a", follower);
    ok(&mut ensemble, "a", "create /e eph");
    ensemble.pass(9000);
    ensemble.kill(leader);
    assert_eq!(ensemble.take("a"), [Message::Closed], "nobody serves without a leader");
    ensemble.establish();
    ensemble.pass(8000);
    let survivor = ensemble.follower();
    ensemble.reconnect("b", survivor, session);
    assert!(matches!(&ensemble.take("b")[..], [Message::Connected(_)]));
    ok(&mut ensemble, "b", "set /e still");
    ensemble.lose("b");
    ensemble.pass(13_000);
    assert!(!exists(&ensemble, survivor, "/e"));
    ensemble.check();
}

#[test]
fn without_a_quorum_nobody_is_served() {
    let mut ensemble = Ensemble::new(3, 0);
    let leader = ensemble.leader();
    let followers = ensemble.learners();
    for server in 1..=3 {
        ensemble.connect(&format!("c{server}"), server);
    }
    let waits = format!("c{}", followers[0]);
    // On its way when everything ends.
    ensemble.hold_disk(leader, true);
    ensemble.hold_disk(followers[1], true);
    ensemble.send_all(&waits, &requests(&["create /lost", "get /lost", "sync /"]));
    ensemble.kill(leader);
    ensemble.kill(followers[1]);
    let left = followers[0];
    assert_eq!(ensemble.take(&waits), [Message::Closed]);
    assert!(!ensemble.node(left).is_serving());
    let status = ensemble.node(left).status();
    assert_eq!(
        (status.role, status.outstanding, status.connections),
        (ServerRole::NotServing, 0, 0)
    );
    ensemble.pass(3000);
    ensemble.try_connect("late", left, &connect_request(SessionId(0)));
    assert!(matches!(&ensemble.take("late")[..], [Message::Closed]));
    assert_eq!(ensemble.node(left).read(|db| db.watches.count()), 0);
}

/// What was under way when the leader died has either happened or not, the same everywhere; whoever
/// was told that it has is right.
#[test]
fn requests_under_way_end_with_their_leader() {
    let mut ensemble = Ensemble::new(3, 0);
    let leader = ensemble.leader();
    let followers = ensemble.learners();
    let session = ensemble.connect("a", followers[0]);
    ok(&mut ensemble, "a", "create /told");
    // The followers have it, which the leader does not know.
    ensemble.connect("x", leader);
    ensemble.hold(followers[0], leader);
    ensemble.hold(followers[1], leader);
    ensemble.send_all("x", &requests(&["create /untold"]));
    ensemble.pass(20);
    assert!(ensemble.take("x").is_empty());
    ensemble.kill(leader);
    assert!(ensemble.is_closed("a"));
    ensemble.release(followers[0], leader);
    ensemble.release(followers[1], leader);
    ensemble.establish();
    let at = ensemble.leader();
    assert_ne!(at, leader);
    ensemble.reconnect("b", followers[0], session);
    assert!(matches!(&ensemble.take("b")[..], [Message::Connected(_)]));
    ok(&mut ensemble, "b", "exists /told");
    ok(&mut ensemble, "b", "create /after");
    ensemble.restart(leader);
    ensemble.establish();
    for path in ["/told", "/untold", "/after"] {
        assert!((1..=3).all(|id| exists(&ensemble, id, path)), "{path}");
    }
    assert_eq!(ensemble.role(leader), ServerRole::Follower);
    ensemble.connect("c", leader);
    ok(&mut ensemble, "c", "create /through-the-old-leader");
    ensemble.check();
}

#[test]
fn a_follower_that_lost_its_link_comes_back() {
    let mut ensemble = Ensemble::new(3, 1);
    let followers = ensemble.learners();
    for server in [followers[0], 4] {
        let name = format!("c{server}");
        let session = ensemble.connect(&name, server);
        ensemble.cut(server);
        assert_eq!(ensemble.take(&name), [Message::Closed]);
        ensemble.establish();
        ensemble.reconnect(&name, server, session);
        assert!(matches!(&ensemble.take(&name)[..], [Message::Connected(_)]));
        ok(&mut ensemble, &name, &format!("create /{name}"));
    }
    ensemble.check();
}

#[test]
fn rights_are_the_clients_wherever_it_is_connected() {
    let mut config = config();
    config.auth.super_digest = Some("super:gG7s8t3oDEtIqF6DM9LlI/R+9Ss=".into());
    let mut ensemble = Ensemble::with(3, 0, config, |_| {});
    let followers = ensemble.learners();
    for name in ["owner", "other", "root"] {
        ensemble.connect(name, followers[0]);
    }
    ok(&mut ensemble, "owner", "auth digest me:secret");
    ok(&mut ensemble, "owner", "create /mine v acl=cdrwa,auth:");
    assert_eq!(err(&mut ensemble, "other", "set /mine stolen"), ErrorCode::NO_AUTH);
    assert_eq!(err(&mut ensemble, "other", "get /mine"), ErrorCode::NO_AUTH);
    assert_eq!(err(&mut ensemble, "other", "setacl /mine acl=open"), ErrorCode::NO_AUTH);
    ok(&mut ensemble, "owner", "set /mine kept");
    ok(&mut ensemble, "root", "auth digest super:super");
    ok(&mut ensemble, "root", "set /mine taken");
    // What a connection was when it asked counts, not what it becomes afterwards.
    ensemble.send_all(
        "other",
        &requests(&["set /mine early", "auth digest me:secret", "set /mine late"]),
    );
    let told: Vec<i32> = ensemble
        .take("other")
        .iter()
        .filter_map(|message| match message {
            Message::Reply { op: OpCode::SET_DATA, header, .. } => Some(header.err.0),
            _ => None, // the answer to auth comes out of turn
        })
        .collect();
    assert_eq!(told, [ErrorCode::NO_AUTH.0, 0]);
    ensemble.check();
}

/// Whether a refused write leaves a trace in the log, at each kind of member.
fn refusals_with(eager_acl_check: bool) -> Vec<(ErrorCode, bool)> {
    let mut ensemble = Ensemble::with(3, 1, NodeConfig { eager_acl_check, ..config() }, |_| {});
    let mut seen = Vec::new();
    for server in [ensemble.leader(), ensemble.follower(), 4] {
        let (owner, other, path) =
            (format!("owner{server}"), format!("other{server}"), format!("/mine{server}"));
        ensemble.connect(&owner, server);
        ensemble.connect(&other, server);
        ok(&mut ensemble, &owner, "auth digest me:secret");
        ok(&mut ensemble, &owner, &format!("create {path} v acl=cdrwa,auth:"));
        ok(&mut ensemble, &owner, &format!("create {path}/x"));
        for text in [
            format!("create {path}/y"),
            format!("create2 {path}/y"),
            format!("delete {path}/x"),
            format!("set {path} stolen"),
            format!("setacl {path} acl=open"),
            format!("create /free{server} v acl=cdrwa,auth:"),
        ] {
            let before = ensemble.log(server).len();
            let err = err(&mut ensemble, &other, &text);
            seen.push((err, ensemble.log(server).len() > before));
        }
        // What is not there, or is no path, the leader judges.
        assert_eq!(err(&mut ensemble, &other, "set /none v"), ErrorCode::NO_NODE);
        assert_eq!(err(&mut ensemble, &other, "create none"), ErrorCode::BAD_ARGUMENTS);
        // What a client asked for before counts, though this member has not seen it yet.
        let half = format!("/half{server}");
        ok(&mut ensemble, &owner, &format!("create {half} v acl=ra,auth:"));
        let texts = [format!("setacl {half} acl=open"), format!("set {half} v")];
        ensemble.send_all(&owner, &requests(&texts.each_ref().map(String::as_str)));
        assert_eq!(replies(&mut ensemble, &owner), [(OpCode::SET_ACL, 0), (OpCode::SET_DATA, 0)]);
    }
    ensemble.check();
    seen
}

#[test]
fn what_acls_forbid_is_refused_before_the_leader_is_asked() {
    let refused = |logged| {
        let mut of_a_server = vec![(ErrorCode::NO_AUTH, logged); 5];
        of_a_server.push((ErrorCode::INVALID_ACL, logged));
        of_a_server.repeat(3)
    };
    assert_eq!(refusals_with(false), refused(true));
    assert_eq!(refusals_with(true), refused(false));
}

/// What a script asks for, one connection after the other, without what only makes sense alone.
fn asked() -> Vec<String> {
    const SCRIPTS: &[&str] = &[
        include_str!("../../testdata/create.txt"),
        include_str!("../../testdata/delete.txt"),
        include_str!("../../testdata/set_data.txt"),
        include_str!("../../testdata/set_acl.txt"),
        include_str!("../../testdata/multi.txt"),
        include_str!("../../testdata/quota.txt"),
        include_str!("../../testdata/reads.txt"),
        include_str!("../../testdata/errors.txt"),
    ];
    const ASKED: &[&str] = &[
        "create",
        "create2",
        "createContainer",
        "createTTL",
        "delete",
        "set",
        "setacl",
        "multi",
        "sync",
        "get",
        "exists",
        "ls",
        "ls2",
        "getacl",
        "count",
        "ephemerals",
        "multiread",
        "reconfig",
    ];
    let lines = SCRIPTS.iter().flat_map(|script| script.lines());
    let texts = lines.filter_map(|line| line.strip_prefix("a ").or(line.strip_prefix("> a ")));
    texts
        .flat_map(|text| text.split(" ; "))
        .map(str::trim)
        .filter(|text| ASKED.contains(&text.split(' ').next().unwrap_or_default()))
        // What cannot be read is not forwarded, so it has no zxid there.
        .filter(|text| {
            let (request, mut body) = (request(text), BytesMut::new());
            request.encode(&mut body);
            Request::decode(request.op(), &body.freeze()).is_ok()
        })
        .map(str::to_owned)
        .collect()
}

/// What one server says to everything that the scripts ask for, without the session's number.
fn answers(server: impl Fn(&Ensemble) -> i64) -> Vec<(String, Vec<Message>)> {
    let mut config = config();
    config.extended_types = ExtendedTypes::Enabled;
    config.enforce_quota = true;
    let mut ensemble = Ensemble::with(3, 1, config, |_| {});
    let server = server(&ensemble);
    let session = ensemble.connect("a", server).0.to_be_bytes();
    let all = asked();
    assert!(all.len() > 200, "{} requests", all.len());
    let answers = all
        .into_iter()
        .map(|text| {
            ensemble.send_all("a", &[request(&text)]);
            let mut messages = ensemble.take("a");
            for message in &mut messages {
                let Message::Reply { body, .. } = message else { continue };
                let mut masked = BytesMut::from(&**body);
                for at in 0..masked.len().saturating_sub(7) {
                    if masked[at..at + 8] == session {
                        masked[at..at + 8].fill(0);
                    }
                }
                *body = masked.freeze();
            }
            (text, messages)
        })
        .collect();
    ensemble.check();
    answers
}

#[test]
fn replies_are_the_same_at_every_server() {
    let at_leader = answers(Ensemble::leader);
    let failed =
        |message: &Message| matches!(message, Message::Reply { header, .. } if header.err.0 != 0);
    assert!(at_leader.iter().filter(|(_, said)| said.iter().any(failed)).count() > 50);
    for server in [Ensemble::follower, |_: &Ensemble| 4] {
        for (own, expected) in answers(server).iter().zip(&at_leader) {
            assert_eq!(own, expected);
        }
    }
}

/// What cannot be read is answered where it came in: upstream's leaders give such a request a zxid that
/// is taken.
#[test]
fn what_cannot_be_read_is_not_forwarded() {
    let mut ensemble = Ensemble::new(3, 0);
    let follower = ensemble.follower();
    ensemble.connect("a", follower);
    ensemble.sent.clear();
    for op in [OpCode::CREATE, OpCode::SET_DATA, OpCode::MULTI, OpCode::SYNC] {
        ensemble.send_raw("a", op, &[0xff, 0, 0]);
        assert_eq!(replies(&mut ensemble, "a"), [(op, ErrorCode::MARSHALLING_ERROR.0)]);
    }
    assert!(ensemble.sent.iter().all(|(_, _, packet)| packet.packet_type != PacketType::REQUEST));
    ok(&mut ensemble, "a", "create /x");
    ensemble.send_raw("a", OpCode::CHECK, &[]);
    assert!(matches!(
        &ensemble.take("a")[..],
        [Message::Reply { header, .. }, Message::Closed] if header.err == ErrorCode::UNIMPLEMENTED
    ));
    ensemble.check();
}

fn forwarded(session: SessionId, cxid: i32, op: OpCode, body: &'static [u8]) -> QuorumPacket {
    let body = Bytes::from_static(body);
    let request = ForwardedRequest { session_id: session, cxid: Xid(cxid), op, body };
    QuorumPacket {
        packet_type: PacketType::REQUEST,
        zxid: Zxid(-1),
        data: Some(request.to_bytes()),
        authinfo: Some(Vec::new()),
    }
}

/// Upstream's learners let more through than ours, and wait for an answer to some of it.
#[test]
fn a_leader_answers_what_upstreams_learners_wait_for() {
    let mut ensemble = Ensemble::new(3, 0);
    let (leader, follower) = (ensemble.leader(), ensemble.follower());
    let session = ensemble.connect("a", follower);
    let before = ensemble.log(leader).len();
    for (cxid, op, err) in [
        (11, OpCode::CREATE, ErrorCode::MARSHALLING_ERROR),
        (12, OpCode::CHECK, ErrorCode::UNIMPLEMENTED),
        (13, OpCode::DELETE_CONTAINER, ErrorCode::UNIMPLEMENTED),
        (14, OpCode::CREATE_SESSION, ErrorCode::MARSHALLING_ERROR),
    ] {
        ensemble.inject(follower, leader, [forwarded(session, cxid, op, b"?")]);
        let txns = ensemble.log(leader);
        let last = txns.last().unwrap();
        assert_eq!((last.header.client_id, last.header.cxid), (session, Xid(cxid)));
        assert!(matches!(last.txn, Txn::Error(error) if error.err == err), "{last:?}");
    }
    assert_eq!(ensemble.log(leader).len(), before + 4);
    for op in [OpCode(77), OpCode::GET_DATA, OpCode::PING, OpCode::AUTH] {
        ensemble.inject(follower, leader, [forwarded(session, 15, op, b"")]);
    }
    assert_eq!(ensemble.log(leader).len(), before + 4, "nobody waits for these");
    ok(&mut ensemble, "a", "create /x");
    ensemble.check();
}

#[test]
fn who_sends_what_cannot_be_read_is_not_listened_to() {
    let mut ensemble = Ensemble::new(3, 0);
    let (leader, follower) = (ensemble.leader(), ensemble.follower());
    for (from, to, packet_type) in [
        (follower, leader, PacketType::REQUEST),
        (follower, leader, PacketType::REVALIDATE),
        (follower, leader, PacketType::PING),
        (leader, follower, PacketType::REVALIDATE),
    ] {
        ensemble.connect("a", follower);
        let data = Some(Bytes::from_static(b"123"));
        let packet = QuorumPacket { packet_type, zxid: Zxid(0), data, authinfo: None };
        ensemble.inject(from, to, [packet]);
        assert!(ensemble.is_closed("a"), "{packet_type}");
        assert!(ensemble.node(leader).is_serving());
        ensemble.establish();
        assert_eq!(ensemble.leader(), leader);
    }
    ensemble.check();
}

#[test]
fn a_committed_transaction_that_nobody_can_read_stops_the_server() {
    let mut ensemble = Ensemble::new(3, 0);
    let (leader, follower) = (ensemble.leader(), ensemble.follower());
    ensemble.connect("a", follower);
    let zxid = Zxid(ensemble.node(follower).status().zxid.0 + 1);
    let kinds =
        [(PacketType::PROPOSAL, Some(Bytes::from_static(b"??"))), (PacketType::COMMIT, None)];
    let packet = |(packet_type, data)| QuorumPacket { packet_type, zxid, data, authinfo: None };
    ensemble.inject(leader, follower, kinds.map(packet));
    let why = ensemble.halted(follower).expect("it goes on");
    assert!(why.contains(&format!("transaction {zxid} cannot be decoded")), "{why}");
    assert!(ensemble.node(follower).status().zxid < zxid);
}

#[test]
fn a_full_disk_of_the_leader_refuses_what_grows_from_everybody() {
    let mut ensemble = Ensemble::new(3, 0);
    let (leader, follower) = (ensemble.leader(), ensemble.follower());
    ensemble.connect("a", follower);
    ok(&mut ensemble, "a", "create /x");
    ensemble.node(leader).accept_writes(false);
    assert_eq!(err(&mut ensemble, "a", "create /y"), ErrorCode::SYSTEM_ERROR);
    ok(&mut ensemble, "a", "delete /x");
    ensemble.node(leader).accept_writes(true);
    ensemble.node(follower).accept_writes(false);
    assert_eq!(err(&mut ensemble, "a", "create /y"), ErrorCode::SYSTEM_ERROR);
    ensemble.node(follower).accept_writes(true);
    ok(&mut ensemble, "a", "create /y");
    ensemble.check();
}

#[test]
fn only_the_leader_looks_for_containers() {
    let mut config = config();
    config.containers.check_interval_ms = 1000;
    let mut ensemble = Ensemble::with(3, 0, config, |_| {});
    let leader = ensemble.leader();
    ensemble.connect("a", ensemble.follower());
    ok(&mut ensemble, "a", "createContainer /c");
    ok(&mut ensemble, "a", "create /c/x");
    ok(&mut ensemble, "a", "delete /c/x");
    ensemble.pass(2000);
    for server in 1..=3 {
        assert!(!exists(&ensemble, server, "/c"));
        let deleted = ensemble.node(server).stats().containers_deleted.load(Ordering::Relaxed);
        assert_eq!(deleted, u64::from(server == leader));
    }
    ensemble.check();
}

/// The zxid that an epoch begins with stands for no transaction, and some leaders show it.
#[test]
fn a_client_that_has_seen_only_the_beginning_of_the_epoch_is_let_in() {
    let mut ensemble = Ensemble::new(3, 0);
    let follower = ensemble.follower();
    let mut request = connect_request(SessionId(0));
    request.last_zxid_seen = Zxid(1 << 32);
    ensemble.try_connect("a", follower, &request);
    assert!(matches!(&ensemble.take("a")[..], [Message::Connected(_)]));
    for seen in [(1 << 32) + 2, 2 << 32] {
        request.last_zxid_seen = Zxid(seen);
        ensemble.try_connect("b", follower, &request);
        assert!(matches!(&ensemble.take("b")[..], [Message::Refused(_)]), "{seen:x}");
    }
    ensemble.check();
}

#[test]
fn a_leader_without_zxids_makes_way() {
    let mut ensemble = Ensemble::with(3, 0, config(), |peer| peer.counter_limit = 20);
    let (leader, follower) = (ensemble.leader(), ensemble.follower());
    ensemble.connect("l", leader);
    ensemble.connect("f", follower);
    for i in 0..18 {
        let name = if i % 2 == 0 { "l" } else { "f" };
        ok(&mut ensemble, name, &format!("create /{i}"));
    }
    // Nothing is left for these.
    ensemble.send_all("l", &requests(&["create /more"]));
    ensemble.send_all("f", &requests(&["create /more"]));
    assert!(matches!(&ensemble.take("l")[..], [Message::Refused(_)]));
    ensemble.pass(2000);
    assert_eq!(ensemble.take("f"), [Message::Closed]);
    ensemble.establish();
    ensemble.connect("n", follower);
    ok(&mut ensemble, "n", "create /more");
    assert_eq!(ensemble.log(follower).last().unwrap().header.zxid.epoch().0, 2);
    ensemble.check();
}

/// A learner that gets a snapshot lives on with the tree that is in it.
#[test]
fn a_snapshot_takes_the_trees_place() {
    let mut ensemble = Ensemble::with(3, 1, config(), |peer| peer.force_snapshot_sync = true);
    let leader = ensemble.leader();
    let followers = ensemble.learners();
    ensemble.connect("a", followers[0]);
    for i in 0..10 {
        ok(&mut ensemble, "a", &format!("create /{i}"));
    }
    ok(&mut ensemble, "a", "create /e eph");
    for server in [followers[1], 4] {
        ensemble.kill(server);
        ok(&mut ensemble, "a", &format!("create /behind-{server}"));
        ensemble.start_empty(server);
        ensemble.establish();
        assert!(exists(&ensemble, server, &format!("/behind-{server}")));
        let name = format!("c{server}");
        ensemble.connect(&name, server);
        ok(&mut ensemble, &name, "get /3 w");
        ok(&mut ensemble, "a", "set /3 changed");
        assert_eq!(events(&mut ensemble, &name), [(3, "/3".into())]);
    }
    // In the place of a tree that has served, and while it is written down.
    let server = followers[1];
    let name = format!("c{server}");
    ok(&mut ensemble, &name, "get /5 w");
    let checkpoint = ensemble.node(server).begin_checkpoint().expect("nothing is installed");
    ensemble.hold(leader, server);
    ensemble.pass(12_000);
    assert_eq!(ensemble.take(&name), [Message::Closed]);
    // Its session has expired meanwhile, and what it owned is in the old tree.
    ensemble.connect("a", followers[0]);
    assert!(exists(&ensemble, server, "/e") && !exists(&ensemble, leader, "/e"));
    ok(&mut ensemble, "a", "delete /5");
    ok(&mut ensemble, "a", "create /last");
    ensemble.hold_installs(server, true);
    ensemble.release(leader, server);
    ensemble.pass(1000);
    assert!(exists(&ensemble, server, "/5") && !ensemble.node(server).is_serving());
    assert!(ensemble.node(server).begin_checkpoint().is_none(), "it would be of the old tree");
    ensemble.hold_installs(server, false);
    ensemble.establish();
    assert!(!exists(&ensemble, server, "/5"));
    assert!(!ensemble.node(server).read(|db| db.has_begun(&checkpoint)));
    ensemble.node(server).end_checkpoint(checkpoint, false);
    let checkpoint = ensemble.node(server).begin_checkpoint().expect("it is installed");
    ensemble.node(server).end_checkpoint(checkpoint, true);
    ensemble.check();
}

#[test]
fn the_configuration_is_a_znode() {
    let mut ensemble = Ensemble::new(2, 1);
    for server in 1..=3 {
        let name = format!("c{server}");
        ensemble.connect(&name, server);
        let body = ok(&mut ensemble, &name, "get /zookeeper/config");
        let text = String::from_utf8_lossy(&body);
        assert!(text.contains("server.1=h1:2888:3888:participant\n"), "{text}");
        assert!(text.contains("server.3=h3:2888:3888:observer\nversion="), "{text}");
    }
    ensemble.check();
}

#[test]
fn crowds_wait_at_learners_too() {
    let mut config = config();
    config.global_outstanding_limit = 10;
    let mut ensemble = Ensemble::with(3, 0, config, |_| {});
    let followers = ensemble.learners();
    ensemble.connect("a", followers[0]);
    for follower in &followers {
        ensemble.hold_disk(*follower, true);
    }
    // Two of three share the limit.
    for _ in 0..8 {
        ensemble.send_all("a", &requests(&["sync /"; 2]));
    }
    let waiting = ensemble.node(followers[0]).status().outstanding;
    assert!(waiting == 0, "syncs with nothing before them do not wait: {waiting}");
    assert_eq!(replies(&mut ensemble, "a").len(), 16);
    for i in 0..8 {
        let texts = [format!("create /{i}"), format!("create /{i}")];
        ensemble.send_all("a", &requests(&texts.each_ref().map(String::as_str)));
    }
    let waiting = ensemble.node(followers[0]).status().outstanding;
    assert!((6..=8).contains(&waiting), "{waiting} are on their way");
    for follower in &followers {
        ensemble.hold_disk(*follower, false);
    }
    assert_eq!(replies(&mut ensemble, "a").len(), 16);
    ensemble.check();
}

/// A learner tells its leader of the sessions that it heard from, and of no others.
#[test]
fn touches_are_told_with_pings() {
    let mut ensemble = Ensemble::new(3, 0);
    let (leader, follower) = (ensemble.leader(), ensemble.follower());
    let session = ensemble.connect("a", follower);
    ensemble.connect("b", follower);
    ensemble.pass(2000);
    ensemble.sent.clear();
    ensemble.pass(2000);
    let told = |ensemble: &Ensemble| -> Vec<SessionTimeout> {
        let pings = ensemble.sent.iter().filter(|(from, to, packet)| {
            (*from, *to, packet.packet_type) == (follower, leader, PacketType::PING)
        });
        pings
            .flat_map(|(_, _, packet)| {
                let data = packet.data.as_ref().expect("upstream needs it, also when empty");
                zk_proto::quorum::decode_touched_sessions(data).unwrap()
            })
            .collect()
    };
    assert_eq!(told(&ensemble), []);
    ensemble.send_all("a", &[Request::Ping]);
    ensemble.pass(10);
    ensemble.lose("a");
    ensemble.pass(2000);
    assert_eq!(told(&ensemble), [SessionTimeout { session_id: session, timeout_ms: 10_000 }]);
}

/// Anything may happen, in any order: links and servers fail and come back, disks and links are slow,
/// clients come and go. Replies are in order (the connections look at that), and in the end everything
/// is the same everywhere and nothing is left over.
fn whatever_happens(name: &str, local_sessions: LocalSessionMode) {
    zk_testkit::property(name, |prng| {
        let config = NodeConfig { local_sessions, ..config() };
        // Some leaders send snapshots, some do not.
        let mut ensemble = Ensemble::with(3, 1, config, |peer| {
            peer.force_snapshot_sync = peer.id.0 % 2 == 0;
        });
        let mut sessions = Vec::new();
        let (mut down, mut slow, mut held) = (None, None, BTreeSet::new());
        let mut next = 0;
        let servers = [1, 2, 3, 4];
        let pick = |prng: &mut zk_testkit::Prng| servers[usize::try_from(prng.below(4)).unwrap()];
        for _ in 0..60 {
            let server = pick(prng);
            match prng.below(12) {
                0 => {
                    let other = pick(prng);
                    if held.insert((server, other)) {
                        ensemble.hold(server, other);
                    }
                }
                1 => {
                    if let Some((from, to)) = held.pop_first() {
                        ensemble.release(from, to);
                    }
                }
                9 if down != Some(server) => slow = Some(server),
                10 => slow = None,
                2 if down.is_none() && prng.chance(30) => {
                    ensemble.kill(server);
                    down = Some(server);
                }
                3 | 4 => {
                    if let Some(server) = down.take() {
                        ensemble.restart(server);
                    }
                }
                5 => ensemble.cut(server),
                6 => ensemble.pass(i64::try_from(prng.below(300)).unwrap() * 10),
                7 | 8 if down != Some(server) && ensemble.node(server).is_serving() => {
                    next += 1;
                    let name = format!("c{next}");
                    let session = match sessions.last() {
                        Some(session) if prng.chance(40) => *session,
                        _ => SessionId(0), // a new one
                    };
                    ensemble.try_connect(&name, server, &connect_request(session));
                    sessions.extend(ensemble.session(&name));
                }
                _ => {} // requests, below
            }
            for server in servers.into_iter().filter(|server| down != Some(*server)) {
                ensemble.hold_disk(server, slow == Some(server));
            }
            for name in ensemble.open_connections() {
                let texts = [
                    "create /x eph",
                    "delete /x",
                    "set /x 1",
                    "get /x w",
                    "sync /",
                    "ls / w",
                    "create /s eph seq",
                    "multi create /m 1 | delete /m",
                    "ping",
                    "create /y",
                    "delete /y",
                    "multi delete /y | create /y eph",
                ];
                let asked: Vec<&str> = (0..prng.below(5))
                    .map(|_| texts[usize::try_from(prng.below(12)).unwrap()])
                    .collect();
                ensemble.send_all(&name, &requests(&asked));
                ensemble.take(&name);
            }
        }
        for (from, to) in held {
            ensemble.release(from, to);
        }
        if let Some(server) = down {
            ensemble.restart(server);
        }
        for server in servers {
            ensemble.hold_disk(server, false);
        }
        ensemble.establish();
        ensemble.connect("end", 1);
        ok(&mut ensemble, "end", "sync /");
        ensemble.check();
        // Every session that nobody speaks for ends, with what it owned.
        for name in ensemble.open_connections() {
            ensemble.lose(&name);
        }
        ensemble.pass(20_000);
        ensemble.check();
        ensemble.node(1).read(|db| {
            assert_eq!(db.tree.sessions().len(), 0);
            assert_eq!(db.tree.ephemerals_count(), 0);
        });
        assert!(servers.iter().all(|server| ensemble.node(*server).status().local_sessions == 0));
    });
}

#[test]
fn whatever_happens_all_agree_in_the_end() {
    whatever_happens("ensemble", LocalSessionMode::Disabled);
}

#[test]
fn whatever_happens_to_local_sessions_all_agree_in_the_end() {
    whatever_happens("ensemble with local sessions", LocalSessionMode::Upgrading);
    whatever_happens("ensemble with only local sessions", LocalSessionMode::Enabled);
}

/// An epoch without a transaction is no reason to take followers for slow.
#[test]
fn an_idle_ensemble_stays_together() {
    let mut ensemble = Ensemble::new(3, 1);
    ensemble.connect("a", ensemble.follower());
    ensemble.send_all("a", &[Request::CloseSession]);
    let leader = ensemble.leader();
    ensemble.kill(leader);
    ensemble.establish();
    ensemble.restart(leader);
    ensemble.establish();
    let epoch = ensemble.node(leader).quorum_status().current_epoch;
    // Much more than syncLimit.
    ensemble.pass(60_000);
    assert_eq!(ensemble.node(leader).quorum_status().current_epoch, epoch);
    assert_eq!(ensemble.node(leader).status().zxid.epoch().0, epoch.0 - 1, "it is not idle");
}

/// Who comes in that moment had better wait; later, and before anybody was served, it had better go elsewhere.
#[test]
fn a_leader_is_expected_for_a_moment_after_the_last_one() {
    let mut ensemble = Ensemble::new(3, 0);
    let left = ensemble.follower();
    let expects = |ensemble: &Ensemble| ensemble.node(left).expects_leader(ensemble.now);
    assert!(!expects(&ensemble), "it is there");
    for other in (1..=3).filter(|id| *id != left) {
        ensemble.kill(other);
    }
    ensemble.pass(400);
    assert_eq!(ensemble.role(left), ServerRole::NotServing);
    assert!(expects(&ensemble));
    ensemble.pass(200);
    assert!(!expects(&ensemble));
    ensemble.kill(left);
    ensemble.restart(left);
    assert!(!expects(&ensemble), "this one has served nobody yet");
}
