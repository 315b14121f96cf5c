//! Local sessions, alone and on their way to become global.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use bytes::{Buf, Bytes};
use zk_processor::{NodeConfig, ServerRole};
use zk_proto::multi::{MultiResponse, MultiResult};
use zk_proto::quorum::{ForwardedRequest, PacketType, QuorumPacket};
use zk_proto::txn::Txn;
use zk_proto::{ErrorCode, OpCode, Record, Request, SessionId, Xid, Zxid};
use zk_session::LocalSessionMode;

use crate::ensemble::Ensemble;
use crate::harness::{Message, TICK_MS, World, config, connect_request};
use crate::script::request;

fn with_mode(mode: LocalSessionMode) -> NodeConfig {
    NodeConfig { local_sessions: mode, ..config() }
}

fn ensemble(mode: LocalSessionMode) -> Ensemble {
    Ensemble::with(3, 1, with_mode(mode), |_| {})
}

/// A server of each role.
fn roles(ensemble: &Ensemble) -> [i64; 3] {
    let servers = [ensemble.leader(), ensemble.follower(), 4];
    let roles = servers.map(|server| ensemble.role(server));
    assert_eq!(roles, [ServerRole::Leader, ServerRole::Follower, ServerRole::Observer]);
    servers
}

fn ok(ensemble: &mut Ensemble, name: &str, text: &str) {
    let (header, _) = ensemble.ask(name, &request(text));
    assert_eq!(header.err, ErrorCode::OK, "{text} at {name}");
}

fn requests(texts: &[&str]) -> Vec<Request> {
    texts.iter().map(|text| request(text)).collect()
}

fn is_known(ensemble: &Ensemble, server: i64, session: SessionId) -> bool {
    ensemble.node(server).read(|db| db.tree.sessions().contains_key(&session))
}

fn exists(ensemble: &Ensemble, server: i64, path: &str) -> bool {
    ensemble.node(server).read(|db| db.tree.find(path).is_some())
}

/// The sessions that live on a server alone.
fn local(ensemble: &Ensemble, server: i64) -> usize {
    ensemble.node(server).status().local_sessions
}

/// What was logged since there were `before` transactions, as session, number and operation.
fn logged(ensemble: &Ensemble, before: usize) -> Vec<(SessionId, i32, OpCode)> {
    let log = ensemble.log(ensemble.leader());
    log[before..]
        .iter()
        .map(|txn| (txn.header.client_id, txn.header.cxid.0, txn.header.op))
        .collect()
}

fn log_len(ensemble: &Ensemble) -> usize {
    ensemble.log(ensemble.leader()).len()
}

/// What a server has sent of a kind, as bytes.
fn sent(ensemble: &Ensemble, from: i64, kind: PacketType) -> Vec<Bytes> {
    let of_kind = ensemble
        .sent
        .iter()
        .filter(|(sender, _, packet)| *sender == from && packet.packet_type == kind);
    of_kind.map(|(_, _, packet)| packet.to_bytes()).collect()
}

/// The sessions in the PINGs that a learner answered.
fn touched(ensemble: &Ensemble, from: i64) -> BTreeSet<i64> {
    let pings: Vec<_> = sent(ensemble, from, PacketType::PING);
    assert!(!pings.is_empty());
    let mut ids = BTreeSet::new();
    for ping in pings {
        let mut data = QuorumPacket::decode(&ping).unwrap().data.unwrap_or_default();
        while !data.is_empty() {
            ids.insert(data.get_i64());
            data.advance(4);
        }
    }
    ids
}

fn is_refused(messages: &[Message]) -> bool {
    matches!(messages, [Message::Expired(_), Message::Closed])
}

#[test]
fn a_session_begins_and_ends_without_a_transaction() {
    let mut ensemble = ensemble(LocalSessionMode::Upgrading);
    for server in roles(&ensemble) {
        let name = format!("c{server}");
        let before = log_len(&ensemble);
        ensemble.sent.clear();
        let session = ensemble.connect(&name, server);
        assert_eq!(session.0 >> 56, server, "the top byte is the server");
        assert_eq!(local(&ensemble, server), 1);
        // Reads, watches and writes are like any other.
        let path = format!("/{name}");
        let texts = [format!("create {path} old"), format!("get {path} w")];
        ensemble.send_all(&name, &requests(&texts.each_ref().map(String::as_str)));
        assert!(matches!(
            &ensemble.take(&name)[..],
            [Message::Reply { .. }, Message::Reply { header, body, .. }]
                if header.err == ErrorCode::OK && body.starts_with(b"\0\0\0\x03old")
        ));
        ensemble.send_all(&name, &requests(&[&format!("set {path} new")]));
        assert!(matches!(
            &ensemble.take(&name)[..],
            [Message::Event { .. }, Message::Reply { .. }]
        ));
        ok(&mut ensemble, &name, "sync /");
        // The end is answered behind what was asked for before it.
        let delete = format!("delete {path}");
        ensemble.send_all(&name, &requests(&[&delete, "close", "ping"]));
        match &ensemble.take(&name)[..] {
            [
                Message::Reply { op: OpCode::DELETE, .. },
                Message::Reply { op: OpCode::CLOSE_SESSION, header, body },
                Message::Closed,
            ] => {
                assert_eq!((header.err, body.len()), (ErrorCode::OK, 0));
                assert_eq!(header.zxid, ensemble.node(server).status().zxid);
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(local(&ensemble, server), 0);
        assert_eq!(
            logged(&ensemble, before),
            [
                (session, 1, OpCode::CREATE),
                (session, 3, OpCode::SET_DATA),
                (session, 5, OpCode::DELETE)
            ]
        );
        assert!(sent(&ensemble, server, PacketType::REVALIDATE).is_empty());
        ensemble.reconnect("ghost", server, session);
        assert!(is_refused(&ensemble.take("ghost")));
    }
    assert!((1..=4).all(|id| ensemble.node(id).read(|db| db.tree.sessions().is_empty())));
    ensemble.check();
}

#[test]
fn a_standalone_server_has_no_local_sessions() {
    let mut world = World::new(with_mode(LocalSessionMode::Upgrading));
    world.connect("a");
    world.persist_all();
    assert_eq!(world.node.status().local_sessions, 0);
    assert_eq!(world.node.read(|db| db.tree.sessions().len()), 1);
}

/// The expected bytes are written out: one of upstream's followers sends the same.
#[test]
fn an_ephemeral_znode_makes_a_session_global_first() {
    let mut ensemble = ensemble(LocalSessionMode::Upgrading);
    for server in roles(&ensemble) {
        let name = format!("c{server}");
        let session = ensemble.connect(&name, server);
        ok(&mut ensemble, &name, &format!("create /{name}"));
        let before = log_len(&ensemble);
        ensemble.sent.clear();
        ok(&mut ensemble, &name, &format!("create /{name}/e data eph"));
        if ensemble.role(server) != ServerRole::Leader {
            let mut packet = b"\0\0\0\x01".to_vec(); // REQUEST
            packet.extend((-1_i64).to_be_bytes()); // no zxid
            packet.extend(20_i32.to_be_bytes());
            packet.extend(session.0.to_be_bytes());
            packet.extend(0_i32.to_be_bytes()); // not a request of the client's
            packet.extend((-10_i32).to_be_bytes()); // createSession
            packet.extend(10_000_i32.to_be_bytes()); // its timeout
            packet.extend((-1_i32).to_be_bytes()); // no ids
            let requests = sent(&ensemble, server, PacketType::REQUEST);
            assert_eq!(requests.len(), 2);
            assert_eq!(requests[0], packet);
            let create = QuorumPacket::decode(&requests[1]).unwrap();
            assert!(create.authinfo.is_some_and(|ids| !ids.is_empty()));
        }
        assert_eq!(
            logged(&ensemble, before),
            [(session, 0, OpCode::CREATE_SESSION), (session, 2, OpCode::CREATE)]
        );
        assert!((1..=4).all(|id| is_known(&ensemble, id, session)));
        assert_eq!(local(&ensemble, server), 0);
        // Once and for good.
        ok(&mut ensemble, &name, &format!("create /{name}/f data eph"));
        assert_eq!(logged(&ensemble, before).len(), 3);
        assert_eq!(ensemble.node(server).stats().sessions_upgraded.load(Ordering::Relaxed), 1);
        // Now it can move, and ends everywhere.
        let other = if server == 4 { 1 } else { 4 };
        ensemble.reconnect("moved", other, session);
        assert!(matches!(&ensemble.take("moved")[..], [Message::Connected(_)]));
        ok(&mut ensemble, "moved", &format!("set /{name}/e mine"));
        ensemble.send_all("moved", &[Request::CloseSession]);
        ensemble.take("moved");
        assert!((1..=4).all(|id| !exists(&ensemble, id, &format!("/{name}/e"))));
        assert!((1..=4).all(|id| !is_known(&ensemble, id, session)));
    }
    ensemble.check();
}

#[test]
fn a_multi_makes_a_session_global_if_it_creates_an_ephemeral_znode() {
    let mut ensemble = ensemble(LocalSessionMode::Upgrading);
    for server in roles(&ensemble) {
        let name = format!("c{server}");
        let session = ensemble.connect(&name, server);
        ok(&mut ensemble, &name, &format!("multi create /{name} | create /{name}/a"));
        assert_eq!(local(&ensemble, server), 1);
        let before = log_len(&ensemble);
        ok(&mut ensemble, &name, &format!("multi set /{name} 1 | create /{name}/e 2 eph"));
        assert_eq!(
            logged(&ensemble, before),
            [(session, 0, OpCode::CREATE_SESSION), (session, 2, OpCode::MULTI)]
        );
        assert!(exists(&ensemble, server, &format!("/{name}/e")) && local(&ensemble, server) == 0);
    }
    ensemble.check();
}

/// Together: one createSession, and everything in the order in which it was asked for.
#[test]
fn requests_keep_their_order_around_an_upgrade() {
    let mut ensemble = ensemble(LocalSessionMode::Upgrading);
    for server in roles(&ensemble) {
        let name = format!("c{server}");
        let session = ensemble.connect(&name, server);
        let before = log_len(&ensemble);
        let texts = [
            format!("create /{name}"),
            format!("create /{name}/e 1 eph"),
            format!("get /{name}/e"),
            format!("create /{name}/f 1 eph"),
            format!("set /{name} 1"),
            "close".to_owned(),
        ];
        ensemble.send_all(&name, &requests(&texts.each_ref().map(String::as_str)));
        let messages = ensemble.take(&name);
        assert_eq!(messages.len(), 7, "{messages:?}");
        assert!(messages[..6].iter().all(
            |message| matches!(message, Message::Reply { header, .. } if header.err == ErrorCode::OK)
        ));
        assert_eq!(messages[6], Message::Closed);
        let create = OpCode::CREATE;
        assert_eq!(
            logged(&ensemble, before),
            [
                (session, 1, create),
                (session, 0, OpCode::CREATE_SESSION),
                (session, 2, create),
                (session, 4, create),
                (session, 5, OpCode::SET_DATA),
                (session, 6, OpCode::CLOSE_SESSION)
            ]
        );
        assert!(!exists(&ensemble, server, &format!("/{name}/e")));
    }
    ensemble.check();
}

#[test]
fn without_upgrading_an_ephemeral_znode_is_refused() {
    let mut ensemble = ensemble(LocalSessionMode::Enabled);
    for server in roles(&ensemble) {
        let name = format!("c{server}");
        let session = ensemble.connect(&name, server);
        ok(&mut ensemble, &name, &format!("create /{name}"));
        for text in ["create /e 1 eph", "create2 /e 1 ephseq", "create /missing/e 1 eph"] {
            let (header, _) = ensemble.ask(&name, &request(text));
            assert_eq!(header.err, ErrorCode::EPHEMERAL_ON_LOCAL_SESSION, "{text} at {server}");
        }
        let multi = format!("multi set /{name} 1 | create /e 1 eph | set /{name} 2");
        let (header, body) = ensemble.ask(&name, &request(&multi));
        assert_eq!(header.err, ErrorCode::OK);
        let errors = [
            ErrorCode::OK,
            ErrorCode::EPHEMERAL_ON_LOCAL_SESSION,
            ErrorCode::RUNTIME_INCONSISTENCY,
        ];
        let MultiResponse(results) = MultiResponse::decode(&body).unwrap();
        assert_eq!(results, errors.map(MultiResult::Error));
        // What fails for another reason says so, and the session is as good as before.
        let (header, _) = ensemble.ask(&name, &request("create /missing/x"));
        assert_eq!(header.err, ErrorCode::NO_NODE);
        ok(&mut ensemble, &name, &format!("multi set /{name} 1 | create /{name}/x"));
        assert_eq!(local(&ensemble, server), 1);
        assert!(!is_known(&ensemble, server, session));
    }
    ensemble.check();
}

#[test]
fn a_session_lives_where_it_began() {
    let mut ensemble = ensemble(LocalSessionMode::Upgrading);
    for server in roles(&ensemble) {
        let name = format!("c{server}");
        let session = ensemble.connect(&name, server);
        for other in (1..=4).filter(|other| *other != server) {
            ensemble.reconnect("lost", other, session);
            assert!(is_refused(&ensemble.take("lost")), "from {server} to {other}");
        }
        let mut wrong = connect_request(session);
        wrong.password = Some(Bytes::from_static(&[7; 16]));
        ensemble.try_connect("thief", server, &wrong);
        assert!(is_refused(&ensemble.take("thief")));
        // The attempt has closed the connection, as upstream has it.
        assert_eq!(ensemble.take(&name), [Message::Closed]);
        ensemble.sent.clear();
        ensemble.reconnect(&name, server, session);
        match &ensemble.take(&name)[..] {
            [Message::Connected(response)] => assert_eq!(response.session_id, session),
            other => panic!("{other:?}"),
        }
        assert!(sent(&ensemble, server, PacketType::REVALIDATE).is_empty());
        ok(&mut ensemble, &name, &format!("create /{name}"));
        ensemble.reconnect("again", server, session);
        assert_eq!(ensemble.take(&name), [Message::Closed]);
        ensemble.take("again");
        ok(&mut ensemble, "again", &format!("create /{name}/e 1 eph"));
        ensemble.lose("again");
    }
    ensemble.check();
}

/// As with global sessions: a client that comes back looks whether its write was done.
#[test]
fn a_client_that_comes_back_sees_what_it_had_asked_for() {
    let mut ensemble = ensemble(LocalSessionMode::Upgrading);
    for server in roles(&ensemble) {
        let name = format!("c{server}");
        let session = ensemble.connect(&name, server);
        for id in 1..=3 {
            ensemble.hold_disk(id, true);
        }
        ensemble.send_all(&name, &requests(&[&format!("create /{name}")]));
        ensemble.lose(&name);
        ensemble.reconnect(&name, server, session);
        ensemble.send_all(&name, &requests(&[&format!("exists /{name}")]));
        assert!(ensemble.take(&name).is_empty(), "it must wait");
        for id in 1..=3 {
            ensemble.hold_disk(id, false);
        }
        match &ensemble.take(&name)[..] {
            [Message::Connected(_), Message::Reply { header, .. }] => {
                assert_eq!(header.err, ErrorCode::OK);
            }
            other => panic!("{other:?}"),
        }
    }
    ensemble.check();
}

#[test]
fn a_session_expires_on_its_server_and_the_leader_hears_nothing_of_it() {
    let mut ensemble = ensemble(LocalSessionMode::Upgrading);
    let servers = roles(&ensemble);
    let before = log_len(&ensemble);
    let mut sessions = Vec::new();
    for server in servers {
        sessions.push(ensemble.connect(&format!("alive{server}"), server));
        sessions.push(ensemble.connect(&format!("gone{server}"), server));
        ensemble.lose(&format!("gone{server}"));
        sessions.push(ensemble.connect(&format!("silent{server}"), server));
    }
    ensemble.sent.clear();
    // The timeout is 10 s.
    for _ in 0..12 {
        ensemble.pass(1000);
        for server in servers {
            ok(&mut ensemble, &format!("alive{server}"), "ping");
        }
        if ensemble.now.mono_us < 5_000_000 + 9_000_000 {
            assert!(servers.iter().all(|server| local(&ensemble, *server) == 3));
        }
    }
    ensemble.pass(TICK_MS);
    for (server, sessions) in servers.into_iter().zip(sessions.chunks(3)) {
        assert_eq!(local(&ensemble, server), 1);
        assert_eq!(ensemble.take(&format!("silent{server}")), [Message::Closed]);
        for (index, session) in sessions.iter().enumerate().skip(1) {
            let name = format!("back{server}{index}");
            ensemble.reconnect(&name, server, *session);
            assert!(is_refused(&ensemble.take(&name)));
        }
        if server != servers[0] {
            assert!(touched(&ensemble, server).is_empty(), "a PING carries a local session");
        }
    }
    assert_eq!(logged(&ensemble, before), []);
    // A global one is the leader's to expire.
    ok(&mut ensemble, &format!("alive{}", servers[1]), "create /e 1 eph");
    ensemble.pass(TICK_MS);
    assert_eq!(touched(&ensemble, servers[1]), BTreeSet::from([sessions[3].0]));
    ensemble.pass(14_000);
    assert!(!exists(&ensemble, servers[1], "/e"));
    assert_eq!(logged(&ensemble, before).last().unwrap().2, OpCode::CLOSE_SESSION);
    ensemble.check();
}

/// The createSession and the create are on their way when the client loses its connection.
#[test]
fn a_client_comes_back_while_its_session_becomes_global() {
    let mut ensemble = ensemble(LocalSessionMode::Upgrading);
    let (leader, follower) = (ensemble.leader(), ensemble.follower());
    let session = ensemble.connect("a", follower);
    ensemble.hold(follower, leader);
    ensemble.send_all("a", &requests(&["create /e 1 eph"]));
    ensemble.lose("a");
    ensemble.sent.clear();
    ensemble.reconnect("a", follower, session);
    ensemble.send_all("a", &requests(&["exists /e", "create /f 1 eph"]));
    assert!(ensemble.take("a").is_empty(), "it must wait");
    // Elsewhere it is not known yet.
    ensemble.reconnect("b", 4, session);
    assert!(is_refused(&ensemble.take("b")));
    ensemble.release(follower, leader);
    match &ensemble.take("a")[..] {
        [
            Message::Connected(response),
            Message::Reply { header: exists, .. },
            Message::Reply { header: create, .. },
        ] => {
            assert_eq!(response.session_id, session);
            assert_eq!((exists.err, create.err), (ErrorCode::OK, ErrorCode::OK));
        }
        other => panic!("{other:?}"),
    }
    // The leader need not be asked: one of upstream's might not know it yet.
    assert!(sent(&ensemble, follower, PacketType::REVALIDATE).is_empty());
    // It is heard of, and lives.
    for _ in 0..20 {
        ensemble.pass(1000);
        ok(&mut ensemble, "a", "ping");
    }
    assert!(exists(&ensemble, leader, "/e") && exists(&ensemble, leader, "/f"));
    ensemble.check();
}

/// The same, and the last thing that was asked for was the end.
#[test]
fn a_session_that_was_closed_while_it_became_global_does_not_come_back() {
    let mut ensemble = ensemble(LocalSessionMode::Upgrading);
    let (leader, follower) = (ensemble.leader(), ensemble.follower());
    let session = ensemble.connect("a", follower);
    ensemble.hold(follower, leader);
    ensemble.send_all("a", &requests(&["create /e 1 eph", "close"]));
    ensemble.lose("a");
    ensemble.reconnect("a", follower, session);
    assert!(ensemble.take("a").is_empty());
    ensemble.release(follower, leader);
    assert!(matches!(
        &ensemble.take("a")[..],
        [Message::Closed] | [Message::Expired(_), Message::Closed]
    ));
    assert!(!exists(&ensemble, leader, "/e") && !is_known(&ensemble, leader, session));
    ensemble.check();
}

#[test]
fn a_server_that_fails_during_an_upgrade_leaves_a_session_that_expires() {
    let mut ensemble = ensemble(LocalSessionMode::Upgrading);
    let (leader, follower) = (ensemble.leader(), ensemble.follower());
    let session = ensemble.connect("a", follower);
    ensemble.hold(leader, follower);
    ensemble.send_all("a", &requests(&["create /e 1 eph"]));
    ensemble.kill(follower);
    assert!(exists(&ensemble, leader, "/e"));
    // The client goes elsewhere in time, and has its znode.
    ensemble.reconnect("b", 4, session);
    assert!(matches!(&ensemble.take("b")[..], [Message::Connected(_)]));
    ok(&mut ensemble, "b", "set /e 2");
    ensemble.lose("b");
    ensemble.pass(14_000);
    assert!(!exists(&ensemble, leader, "/e") && !is_known(&ensemble, leader, session));
    ensemble.check();
}

/// The leader is gone before it has the createSession: the session is neither here nor there, and its
/// client is told so. Other local sessions go with the role, as upstream has it.
#[test]
fn local_sessions_do_not_outlive_the_role_of_their_server() {
    let mut ensemble = ensemble(LocalSessionMode::Upgrading);
    let (leader, follower) = (ensemble.leader(), ensemble.follower());
    let upgraded = ensemble.connect("a", follower);
    let stays = ensemble.connect("b", follower);
    ensemble.hold(follower, leader);
    ensemble.send_all("a", &requests(&["create /e 1 eph"]));
    ensemble.kill(leader);
    ensemble.establish();
    assert_eq!([ensemble.take("a"), ensemble.take("b")], [[Message::Closed], [Message::Closed]]);
    for (name, session) in [("a", upgraded), ("b", stays)] {
        ensemble.reconnect(name, follower, session);
        assert!(is_refused(&ensemble.take(name)));
    }
    assert_eq!(local(&ensemble, follower), 0);
    let next = ensemble.connect("a", follower);
    assert!(next > stays, "ids go on");
    ok(&mut ensemble, "a", "create /e 1 eph");
    ensemble.check();
}

fn forwarded(session: SessionId, cxid: i32, op: OpCode, body: Bytes) -> QuorumPacket {
    let request = ForwardedRequest { session_id: session, cxid: Xid(cxid), op, body };
    QuorumPacket {
        packet_type: PacketType::REQUEST,
        zxid: Zxid(-1),
        data: Some(request.to_bytes()),
        authinfo: Some(Vec::new()),
    }
}

fn set_root(session: SessionId, cxid: i32) -> QuorumPacket {
    let mut body = bytes::BytesMut::new();
    request("set / 1").encode(&mut body);
    forwarded(session, cxid, OpCode::SET_DATA, body.freeze())
}

fn last_error(ensemble: &Ensemble) -> Option<ErrorCode> {
    match ensemble.log(ensemble.leader()).last().unwrap().txn {
        Txn::Error(error) => Some(error.err),
        _ => None, // it was done
    }
}

#[test]
fn a_leader_lets_a_write_pass_whose_session_may_be_anothers_local_one() {
    let timeout = Bytes::from_static(&[0, 0, 0x27, 0x10]);
    for mode in [LocalSessionMode::Disabled, LocalSessionMode::Enabled, LocalSessionMode::Upgrading]
    {
        let mut ensemble = ensemble(mode);
        let (leader, follower) = (ensemble.leader(), ensemble.follower());
        let expired = Some(ErrorCode::SESSION_EXPIRED);
        let unknown = SessionId((follower << 56) + 7);
        ensemble.inject(follower, leader, [set_root(unknown, 5)]);
        let passes = if mode == LocalSessionMode::Disabled { expired } else { None };
        assert_eq!(last_error(&ensemble), passes, "{mode:?}");
        // It would be here.
        ensemble.inject(follower, leader, [set_root(SessionId((leader << 56) + 7), 6)]);
        assert_eq!(last_error(&ensemble), expired);
        // This one is: somebody else speaks for it.
        let own = ensemble.connect("own", leader);
        ensemble.inject(follower, leader, [set_root(own, 7)]);
        assert_eq!(last_error(&ensemble), Some(ErrorCode::SESSION_MOVED));
        // A global one that has ended is not taken for a local one, whatever its learner still sends.
        let ended = SessionId((follower << 56) + 8);
        let create = || forwarded(ended, 0, OpCode::CREATE_SESSION, timeout.clone());
        let close = forwarded(ended, 1, OpCode::CLOSE_SESSION, Bytes::new());
        ensemble.inject(follower, leader, [create(), close, set_root(ended, 2)]);
        assert_eq!(last_error(&ensemble), expired);
        ensemble.inject(follower, leader, [set_root(ended, 3)]);
        assert_eq!(last_error(&ensemble), expired);
        if mode != LocalSessionMode::Disabled {
            ensemble.inject(follower, leader, [create()]);
            assert_eq!(last_error(&ensemble), expired, "a session that has ended begins again");
            assert!(!is_known(&ensemble, leader, ended));
        }
        ensemble.check();
    }
}

/// What one of upstream's learners may ask for: a session begins again behind its end. Nothing would end
/// it once more.
#[test]
fn a_session_does_not_begin_behind_its_end() {
    for mode in [LocalSessionMode::Disabled, LocalSessionMode::Upgrading] {
        let mut ensemble = ensemble(mode);
        let (leader, follower) = (ensemble.leader(), ensemble.follower());
        let id = SessionId((follower << 56) + 8);
        let timeout = Bytes::from_static(&[0, 0, 0x27, 0x10]);
        let create = || forwarded(id, 0, OpCode::CREATE_SESSION, timeout.clone());
        let close = forwarded(id, 1, OpCode::CLOSE_SESSION, Bytes::new());
        ensemble.inject(follower, leader, [create(), close, create()]);
        assert_eq!(last_error(&ensemble), Some(ErrorCode::SESSION_EXPIRED));
        assert!((1..=4).all(|server| !is_known(&ensemble, server, id)));
        ensemble.check();
    }
}

/// The leader knows better: the session that wants to become global has had its time. Its client is
/// told nothing, and its connection is closed.
#[test]
fn an_upgrade_that_the_leader_refuses_ends_the_connection() {
    let mut ensemble = ensemble(LocalSessionMode::Upgrading);
    let (leader, follower) = (ensemble.leader(), ensemble.follower());
    let session = ensemble.connect("a", follower);
    ensemble.hold(leader, follower);
    let timeout = Bytes::from_static(&[0, 0, 0x27, 0x10]);
    let create = forwarded(session, 77, OpCode::CREATE_SESSION, timeout);
    let close = forwarded(session, 78, OpCode::CLOSE_SESSION, Bytes::new());
    ensemble.inject(follower, leader, [create, close]);
    ensemble.send_all("a", &requests(&["create /e 1 eph", "set / 1"]));
    assert_eq!(last_error(&ensemble), Some(ErrorCode::SESSION_EXPIRED));
    ensemble.release(leader, follower);
    assert_eq!(ensemble.take("a"), [Message::Closed]);
    assert!(!exists(&ensemble, follower, "/e") && !is_known(&ensemble, follower, session));
    ensemble.check();
}
