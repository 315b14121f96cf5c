//! Sessions whose connections come and go.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use crate::common::{Options, PATIENCE, Scene, create, get_data, ok};
use crate::{EPHEMERAL, RECURSIVE, again, connect_request, error_of, framed, new_session, request};
use bytes::Bytes;
use zk_proto::connect::{ConnectResponse, PASSWORD_LEN};
use zk_proto::proto::{AddWatchRequest, GetEphemeralsRequest, GetEphemeralsResponse, WatcherEvent};
use zk_proto::watch::EventType;
use zk_proto::{ErrorCode, OpCode, Record, Xid};
use zk_testkit::RawClient;

#[test]
fn a_session_moves_to_its_new_connection() {
    let mut scene = Scene::new(&[]);
    let (mut first, session) = RawClient::with_session(scene.server.address, 60_000).unwrap();
    ok(first.request(OpCode::CREATE, &create("/kept", b"", EPHEMERAL)));
    let mut second = scene.stranger();
    let taken_up = second.handshake(&again(&session)).unwrap();
    assert_eq!(
        (taken_up.session_id, taken_up.timeout_ms),
        (session.session_id, session.timeout_ms)
    );
    assert_eq!(taken_up.password, session.password);
    assert!(first.is_closed().unwrap(), "the first connection");
    ok(second.request(OpCode::GET_DATA, &get_data("/kept")));
    // A wrong password: refused, and the session lives, though its connection was closed before.
    for password in [&[0; PASSWORD_LEN][..], b"short", b""] {
        let mut thief = scene.stranger();
        let refused =
            thief.handshake(&connect_request(session.session_id, password, 60_000)).unwrap();
        assert_eq!(refused, ConnectResponse::expired(Some(false)));
        assert!(thief.is_closed().unwrap(), "the thief's connection");
    }
    assert!(second.is_closed().unwrap());
    let mut third = scene.stranger();
    assert_eq!(third.handshake(&again(&session)).unwrap().session_id, session.session_id);
    ok(third.request(OpCode::GET_DATA, &get_data("/kept")));
    // Its end ends it: nobody can take it up again.
    ok(third.close_session());
    assert!(third.is_closed().unwrap());
    let mut fourth = scene.stranger();
    assert_eq!(fourth.handshake(&again(&session)).unwrap(), ConnectResponse::expired(Some(false)));
    assert!(fourth.is_closed().unwrap());
    assert_eq!(
        error_of(&mut scene.witness, OpCode::GET_DATA, &get_data("/kept").to_bytes()),
        ErrorCode::NO_NODE
    );
    scene.check();
}

#[test]
fn sessions_expire_in_time_and_their_znodes_go_once() {
    const SESSIONS: usize = 20;
    const TICK: Duration = Duration::from_millis(200);
    let mut scene = Scene::with(&Options { tick_ms: 200, ..Options::default() });
    let mut watcher = RawClient::with_session(scene.server.address, 4000).unwrap().0;
    ok(watcher.request(OpCode::ADD_WATCH, &AddWatchRequest { path: "/".into(), mode: RECURSIVE }));
    let timeout = Duration::from_millis(600);
    let mut sessions = Vec::new();
    for n in 0..SESSIONS {
        let (mut client, session) = RawClient::with_session(scene.server.address, 600).unwrap();
        assert_eq!(session.timeout_ms, 600);
        let last_heard = Instant::now();
        ok(client.request(OpCode::CREATE, &create(&format!("/e{n}"), b"", EPHEMERAL)));
        sessions.push((client, session, last_heard));
    }
    // What the first half says keeps it alive beyond its timeout.
    let kept_until = Instant::now() + timeout * 2;
    while Instant::now() < kept_until {
        for (client, _, last_heard) in &mut sessions[..SESSIONS / 2] {
            *last_heard = Instant::now();
            ok(client.ping());
        }
        ok(scene.witness.ping());
    }
    let mut events: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    watcher.set_read_timeout(Duration::from_millis(50)).unwrap();
    let mut deleted = 0;
    let deadline = Instant::now() + PATIENCE;
    while deleted < SESSIONS {
        assert!(Instant::now() < deadline, "{events:?}");
        watcher.send_as(Xid::PING, OpCode::PING, b"").unwrap();
        ok(scene.witness.ping());
        let Ok(reply) = watcher.read_reply() else { continue };
        if reply.header.xid != Xid::NOTIFICATION {
            continue;
        }
        let event = reply.body_as::<WatcherEvent>();
        let Some(n) = event.path.strip_prefix("/e").and_then(|n| n.parse::<usize>().ok()) else {
            continue;
        };
        if event.event_type == EventType::NodeDeleted.code() {
            deleted += 1;
            if n < SESSIONS / 2 {
                let age = sessions[n].2.elapsed();
                assert!(age >= timeout, "{} went after {age:?}", event.path);
                let late = timeout + TICK + Duration::from_millis(1500);
                assert!(age < late, "{} went after {age:?}", event.path);
            }
        }
        events.entry(event.path).or_default().push(event.event_type);
    }
    for (path, events) in &events {
        let [created, gone] = [EventType::NodeCreated, EventType::NodeDeleted].map(EventType::code);
        assert_eq!(*events, [created, gone], "{path}");
    }
    // The connections went with them, and nobody can come back.
    for (mut client, session, _) in sessions {
        while client.read_reply().is_ok() {}
        assert!(client.is_closed().unwrap());
        let mut back = scene.stranger();
        let refused = back.handshake(&again(&session)).unwrap();
        assert_eq!(refused, ConnectResponse::expired(Some(false)));
        assert!(back.is_closed().unwrap());
    }
    scene.check();
}

#[test]
fn a_connection_that_is_cut_leaves_its_session() {
    let mut scene = Scene::new(&[]);
    let mut stream = TcpStream::connect(scene.server.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&framed(&new_session().to_bytes())).unwrap();
    let mut head = [0; 41];
    stream.read_exact(&mut head).unwrap();
    let session = ConnectResponse::decode(&Bytes::copy_from_slice(&head[4..])).unwrap();
    // The last write is on its way when the connection goes.
    let mut bytes = Vec::new();
    for xid in 1..200 {
        let body = create(&format!("/cut{xid}"), b"", EPHEMERAL).to_bytes();
        bytes.extend(request(xid, OpCode::CREATE, &body));
    }
    stream.write_all(&bytes).unwrap();
    stream.shutdown(Shutdown::Both).unwrap();
    drop(stream);
    let mut back = scene.stranger();
    assert_eq!(back.handshake(&again(&session)).unwrap().session_id, session.session_id);
    let all = |client: &mut RawClient| {
        let request = GetEphemeralsRequest { prefix_path: None };
        let reply = ok(client.request(OpCode::GET_EPHEMERALS, &request));
        reply.body_as::<GetEphemeralsResponse>().ephemerals.len()
    };
    // What was read of them is done, and done before the session is taken up.
    let there = all(&mut back);
    assert_eq!(all(&mut back), there);
    ok(back.close_session());
    scene.check();
}
