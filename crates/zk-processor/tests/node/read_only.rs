//! Members without a quorum that serve reads.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use zk_processor::{NodeConfig, ReadOnlyMode, ServerRole};
use zk_proto::connect::ConnectRequest;
use zk_proto::{ErrorCode, OpCode, Request, SessionId, Zxid};

use crate::ensemble::Ensemble;
use crate::harness::{Message, config, connect_request};
use crate::script::request;

/// How long a member looks for a leader before it serves reads, in ms: a tick of these tests, and the least.
const GRACE_MS: i64 = 2000;

fn read_only_config() -> NodeConfig {
    NodeConfig { read_only_mode: ReadOnlyMode::Enabled, ..config() }
}

/// What a client sends that is content with reads.
fn content(session: SessionId) -> ConnectRequest {
    ConnectRequest { read_only: Some(true), ..connect_request(session) }
}

fn ok(ensemble: &mut Ensemble, name: &str, text: &str) -> Bytes {
    let (header, body) = ensemble.ask(name, &request(text));
    assert_eq!(header.err, ErrorCode::OK, "{text} at {name}");
    body
}

fn data(ensemble: &mut Ensemble, name: &str, path: &str) -> String {
    let body = ok(ensemble, name, &format!("get {path}"));
    let len = usize::from(body[3]);
    String::from_utf8(body[4..4 + len].to_vec()).unwrap()
}

/// Three members, of which two are gone for as long as it takes; the one that is left.
fn one_left(config: NodeConfig) -> (Ensemble, i64, Vec<i64>) {
    let mut ensemble = Ensemble::with(3, 0, config, |_| {});
    let (leader, followers) = (ensemble.leader(), ensemble.learners());
    ensemble.connect("w", followers[0]);
    ok(&mut ensemble, "w", "create /x old");
    ok(&mut ensemble, "w", "create /e eph");
    ok(&mut ensemble, "w", "set /x new");
    ensemble.kill(leader);
    ensemble.kill(followers[1]);
    (ensemble, followers[0], vec![leader, followers[1]])
}

fn begin(ensemble: &mut Ensemble, name: &str, server: i64) -> SessionId {
    ensemble.try_connect(name, server, &content(SessionId(0)));
    match &ensemble.take(name)[..] {
        [Message::Connected(response)] => {
            assert_eq!(response.read_only, Some(true));
            response.session_id
        }
        other => panic!("{other:?}"),
    }
}

/// The connection was closed at once, with a reason that has this in it.
fn refused(ensemble: &mut Ensemble, name: &str, server: i64, request: &ConnectRequest, why: &str) {
    ensemble.try_connect(name, server, request);
    match &ensemble.take(name)[..] {
        [Message::Refused(said)] if said.contains(why) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn reads_are_served_and_writes_refused() {
    let (mut ensemble, left, _) = one_left(read_only_config());
    let logged = ensemble.log(left).len();
    ensemble.pass(GRACE_MS - 200);
    ensemble.try_connect("early", left, &content(SessionId(0)));
    assert_eq!(ensemble.take("early"), [Message::Closed]);
    ensemble.pass(400);
    let node = ensemble.node(left);
    assert!(node.is_read_only() && !node.is_serving());
    assert_eq!(node.status().role, ServerRole::ReadOnly);
    begin(&mut ensemble, "r", left);
    assert_eq!(data(&mut ensemble, "r", "/x"), "new");
    let last = ensemble.node(left).status().zxid;
    for text in [
        "create /y",
        "create2 /y",
        "createContainer /c",
        "delete /x",
        "set /x mine",
        "setacl /x",
        "sync /",
        "multi check /x",
    ] {
        let (header, body) = ensemble.ask("r", &request(text));
        assert_eq!((header.err, header.zxid), (ErrorCode::NOT_READ_ONLY, last), "{text}");
        assert!(body.is_empty());
    }
    // Also what cannot be read: nobody tries to.
    ensemble.send_raw("r", OpCode::SET_DATA, b"\0");
    let reply = |message: &Message| match message {
        Message::Reply { op, header, .. } => (*op, header.err),
        other => panic!("{other:?}"),
    };
    let nonsense: Vec<_> = ensemble.take("r").iter().map(reply).collect();
    assert_eq!(nonsense, [(OpCode::SET_DATA, ErrorCode::NOT_READ_ONLY)]);
    // In their order.
    let requests: Vec<Request> =
        ["exists /x", "set /x mine", "ping", "ls /", "multiread get /x", "whoami"]
            .map(request)
            .into();
    ensemble.send_all("r", &requests);
    let replies: Vec<_> = ensemble.take("r").iter().map(reply).collect();
    assert_eq!(
        replies,
        [
            (OpCode::EXISTS, ErrorCode::OK),
            (OpCode::SET_DATA, ErrorCode::NOT_READ_ONLY),
            (OpCode::PING, ErrorCode::OK),
            (OpCode::GET_CHILDREN, ErrorCode::OK),
            (OpCode::MULTI_READ, ErrorCode::OK),
            (OpCode::WHO_AM_I, ErrorCode::OK),
        ]
    );
    // The disk has nothing to do with it.
    ensemble.node(left).accept_writes(false);
    assert_eq!(ensemble.ask("r", &request("create /y")).0.err, ErrorCode::NOT_READ_ONLY);
    assert_eq!(data(&mut ensemble, "r", "/x"), "new");
    assert_eq!(ensemble.log(left).len(), logged);
}

#[test]
fn only_clients_that_are_content_with_reads_are_served() {
    let (mut ensemble, left, _) = one_left(read_only_config());
    let theirs = ensemble.session("w").unwrap();
    ensemble.pass(GRACE_MS + 200);
    let new = || connect_request(SessionId(0));
    refused(&mut ensemble, "a", left, &new(), "wants one that can write");
    let old = ConnectRequest { read_only: None, ..new() };
    refused(&mut ensemble, "a", left, &old, "wants one that can write");
    let ahead = ConnectRequest { last_zxid_seen: Zxid(9 << 32), ..content(SessionId(0)) };
    refused(&mut ensemble, "a", left, &ahead, "has seen a zxid");
    // Whether a session of the ensemble lives is not known here.
    refused(&mut ensemble, "a", left, &content(theirs), "the session is the ensemble's");
    assert_eq!(ensemble.node(left).status().connections, 0);
}

#[test]
fn sessions_are_the_servers_own() {
    let (mut ensemble, left, _) = one_left(read_only_config());
    ensemble.pass(GRACE_MS + 200);
    let first = begin(&mut ensemble, "r", left);
    let second = begin(&mut ensemble, "s", left);
    assert_ne!(first, second);
    assert_eq!(ensemble.node(left).status().local_sessions, 2);
    ok(&mut ensemble, "r", "get /x w");
    // It comes back, before the old connection is gone.
    ensemble.try_connect("again", left, &content(first));
    assert_eq!(ensemble.take("r"), [Message::Closed]);
    match &ensemble.take("again")[..] {
        [Message::Connected(response)] => {
            assert_eq!((response.session_id, response.read_only), (first, Some(true)));
        }
        other => panic!("{other:?}"),
    }
    let wrong = ConnectRequest { password: Some(Bytes::from_static(&[7; 16])), ..content(first) };
    let unknown = content(SessionId(first.0 + 1000));
    for request in [wrong, unknown] {
        ensemble.try_connect("x", left, &request);
        match &ensemble.take("x")[..] {
            [Message::Expired(response), Message::Closed] => {
                assert_eq!(response.read_only, Some(true));
            }
            other => panic!("{other:?}"),
        }
    }
    // The wrong password has cost it its connection, and no more.
    assert_eq!(ensemble.take("again"), [Message::Closed]);
    ensemble.try_connect("r", left, &content(first));
    assert!(matches!(&ensemble.take("r")[..], [Message::Connected(_)]));
    ok(&mut ensemble, "r", "get /x w");
    ok(&mut ensemble, "s", "get /x w");
    // One ends it, the other is not heard of.
    ok(&mut ensemble, "s", "ping");
    ensemble.send_all("s", &[request("close"), request("get /x")]);
    match &ensemble.take("s")[..] {
        [Message::Reply { op: OpCode::CLOSE_SESSION, header, .. }, Message::Closed] => {
            assert_eq!(header.err, ErrorCode::OK);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(ensemble.node(left).read(|db| db.watches.count()), 1);
    for _ in 0..4 {
        ensemble.pass(5000);
        ok(&mut ensemble, "r", "ping");
    }
    ensemble.pass(13_000);
    assert_eq!(ensemble.take("r"), [Message::Closed]);
    let status = ensemble.node(left).status();
    assert_eq!((status.local_sessions, status.connections), (0, 0));
    assert_eq!(ensemble.node(left).read(|db| db.watches.count()), 0);
    assert_eq!(ensemble.node(left).stats().sessions_expired.load(Ordering::Relaxed), 1);
    ensemble.try_connect("r", left, &content(first));
    assert!(matches!(&ensemble.take("r")[..], [Message::Expired(_), Message::Closed]));
}

#[test]
fn it_ends_with_the_election() {
    let (mut ensemble, left, gone) = one_left(read_only_config());
    ensemble.pass(GRACE_MS + 200);
    let own = begin(&mut ensemble, "r", left);
    ok(&mut ensemble, "r", "get /x w");
    ensemble.restart(gone[0]);
    ensemble.establish();
    assert_eq!(ensemble.take("r"), [Message::Closed]);
    let node = ensemble.node(left);
    assert!(node.is_serving() && !node.is_read_only());
    // Nobody knows its session now. Who has one may come back to it.
    ensemble.try_connect("r", left, &content(own));
    match &ensemble.take("r")[..] {
        [Message::Expired(response), Message::Closed] => {
            assert_eq!(response.read_only, Some(false))
        }
        other => panic!("{other:?}"),
    }
    ensemble.try_connect("n", left, &content(SessionId(0)));
    match &ensemble.take("n")[..] {
        [Message::Connected(response)] => {
            assert_eq!(response.read_only, Some(false));
            assert_ne!(response.session_id, own);
        }
        other => panic!("{other:?}"),
    }
    ok(&mut ensemble, "n", "set /x newer");
    ensemble.restart(gone[1]);
    ensemble.establish();
    let logged = ensemble.log(left);
    assert!(logged.iter().all(|txn| txn.header.client_id != own), "it was never an ensemble's");
    ensemble.check();
}

#[test]
fn an_election_that_comes_to_nothing_interrupts_it() {
    let (mut ensemble, left, gone) = one_left(read_only_config());
    ensemble.pass(GRACE_MS + 200);
    begin(&mut ensemble, "r", left);
    // They agree on a leader, and nothing can be written down.
    ensemble.restart(gone[0]);
    ensemble.hold_disk(gone[0], true);
    ensemble.pass(1000);
    assert_eq!(ensemble.take("r"), [Message::Closed]);
    assert_eq!(ensemble.role(left), ServerRole::NotServing);
    ensemble.pass(GRACE_MS);
    assert_eq!(ensemble.role(left), ServerRole::NotServing, "it has a leader, or is one");
    ensemble.kill(gone[0]);
    ensemble.pass(1000);
    assert_eq!(ensemble.role(left), ServerRole::NotServing);
    // A leader waits for a follower for a while before it looks for another leader.
    ensemble.pass(GRACE_MS + 25_000);
    assert_eq!(ensemble.role(left), ServerRole::ReadOnly);
    begin(&mut ensemble, "again", left);
    assert_eq!(data(&mut ensemble, "again", "/x"), "new");
}

/// It is asked for by itself.
#[test]
fn nobody_is_served_unless_it_is_wanted() {
    let (mut ensemble, left, _) = one_left(config());
    ensemble.pass(GRACE_MS + 2000);
    ensemble.try_connect("r", left, &content(SessionId(0)));
    assert_eq!(ensemble.take("r"), [Message::Closed]);
    assert!(!ensemble.node(left).is_read_only());
}

/// A session of the ensemble is a write, and cannot begin or go on here.
#[test]
fn without_local_sessions_there_are_none() {
    let (mut ensemble, left, _) =
        one_left(NodeConfig { read_only_mode: ReadOnlyMode::WithoutSessions, ..config() });
    let theirs = ensemble.session("w").unwrap();
    ensemble.pass(GRACE_MS + 200);
    assert_eq!(ensemble.role(left), ServerRole::ReadOnly);
    ensemble.try_connect("r", left, &content(SessionId(0)));
    let last = ensemble.node(left).status().zxid;
    match &ensemble.take("r")[..] {
        [Message::Reply { header, .. }, Message::Closed] => {
            assert_eq!((header.xid.0, header.zxid), (0, last));
            assert_eq!(header.err, ErrorCode::NOT_READ_ONLY);
        }
        other => panic!("{other:?}"),
    }
    for session in [theirs, SessionId(theirs.0 + 1000)] {
        refused(&mut ensemble, "r", left, &content(session), "the session is the ensemble's");
    }
    assert_eq!(ensemble.node(left).status().local_sessions, 0);
}

/// What a leader sent before it was gone is written down meanwhile.
#[test]
fn a_snapshot_takes_the_place_of_what_is_read() {
    let mut ensemble =
        Ensemble::with(3, 0, read_only_config(), |peer| peer.force_snapshot_sync = true);
    let (leader, followers) = (ensemble.leader(), ensemble.learners());
    ensemble.connect("a", followers[0]);
    for i in 0..10 {
        ok(&mut ensemble, "a", &format!("create /{i}"));
    }
    let late = followers[1];
    ensemble.kill(late);
    ok(&mut ensemble, "a", "create /behind");
    ensemble.start_empty(late);
    ensemble.hold_installs(late, true);
    ensemble.pass(3000);
    ensemble.kill(leader);
    ensemble.kill(followers[0]);
    ensemble.pass(GRACE_MS + 200);
    begin(&mut ensemble, "r", late);
    assert_eq!(ensemble.ask("r", &request("exists /behind w")).0.err, ErrorCode::NO_NODE);
    ensemble.hold_installs(late, false);
    assert_eq!(ensemble.take("r"), [Message::Closed]);
    ensemble.pass(20);
    assert_eq!(ensemble.node(late).read(|db| db.watches.count()), 0);
    begin(&mut ensemble, "r", late);
    ok(&mut ensemble, "r", "exists /9");
}
