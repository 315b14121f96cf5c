//! Bad input and bad clients: each gets the answer that ZooKeeper's protocol has for it, the server
//! stays up, and other clients do not notice.

mod common;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use common::{Options, PATIENCE, Scene, create, eventually, get_data, ok, set_data};
use zk_proto::acl::Acl;
use zk_proto::connect::{ConnectRequest, ConnectResponse, PASSWORD_LEN};
use zk_proto::multi::{MultiHeader, MultiOp, MultiReadOp, MultiRequest};
use zk_proto::proto::{
    AddWatchRequest, AuthPacket, CheckWatchesRequest, CreateTtlRequest, DeleteRequest,
    ExistsRequest, GetAclRequest, GetAllChildrenNumberRequest, GetChildrenRequest, GetDataResponse,
    GetEphemeralsRequest, GetEphemeralsResponse, GetSaslRequest, ReconfigRequest,
    RemoveWatchesRequest, RequestHeader, SetAclRequest, SetSaslResponse, SetWatches, SetWatches2,
    SyncRequest, WatcherEvent,
};
use zk_proto::watch::EventType;
use zk_proto::{ErrorCode, OpCode, Record, SessionId, Xid, Zxid};
use zk_testkit::{Prng, RawClient};

/// `jute.maxbuffer` unless configured.
const FRAME_MAX: usize = 0xf_ffff;

const EPHEMERAL: i32 = 1;

/// A persistent, recursive watch.
const RECURSIVE: i32 = 1;

fn connect_request(session: SessionId, password: &[u8], timeout_ms: i32) -> ConnectRequest {
    ConnectRequest {
        protocol_version: 0,
        last_zxid_seen: Zxid::ZERO,
        timeout_ms,
        session_id: session,
        password: Some(Bytes::copy_from_slice(password)),
        read_only: Some(false),
    }
}

fn new_session() -> ConnectRequest {
    connect_request(SessionId(0), &[0; PASSWORD_LEN], 60_000)
}

fn again(session: &ConnectResponse) -> ConnectRequest {
    let password = session.password.clone().unwrap();
    connect_request(session.session_id, &password, session.timeout_ms)
}

fn framed(payload: &[u8]) -> Vec<u8> {
    let mut frame = i32::try_from(payload.len()).unwrap().to_be_bytes().to_vec();
    frame.extend_from_slice(payload);
    frame
}

fn request(xid: i32, op: OpCode, body: &[u8]) -> Vec<u8> {
    let mut payload = BytesMut::new();
    RequestHeader { xid: Xid(xid), op }.encode(&mut payload);
    payload.extend_from_slice(body);
    framed(&payload)
}

/// Sends a body as it is and gives the error that answers it; events may come before.
fn error_of(client: &mut RawClient, op: OpCode, body: &[u8]) -> ErrorCode {
    client.send_as(Xid(77), op, body).unwrap();
    loop {
        let reply = client.read_reply().unwrap();
        if reply.header.xid != Xid::NOTIFICATION {
            assert_eq!(reply.header.xid, Xid(77));
            return reply.header.err;
        }
    }
}

/// A body of each operation that has one, well formed.
fn bodies() -> Vec<(OpCode, Bytes)> {
    let path = || "/witness".to_owned();
    let list = || vec!["/a".to_owned(), "/b".to_owned()];
    let write = MultiOp::SetData(set_data("/none", b"x"));
    let check = MultiOp::Check(zk_proto::proto::CheckVersionRequest { path: path(), version: -7 });
    let read = MultiReadOp::GetData(get_data("/witness"));
    vec![
        (OpCode::CREATE, create("/new", b"x", 0).to_bytes()),
        (OpCode::CREATE2, create("/new", b"x", 0).to_bytes()),
        (OpCode::CREATE_CONTAINER, create("/new", b"x", 4).to_bytes()),
        (
            OpCode::CREATE_TTL,
            CreateTtlRequest {
                path: "/new".into(),
                data: None,
                acl: Acl::open(),
                flags: 5,
                ttl: 9,
            }
            .to_bytes(),
        ),
        (OpCode::DELETE, DeleteRequest { path: "/none".into(), version: -1 }.to_bytes()),
        (OpCode::EXISTS, ExistsRequest { path: path(), watch: false }.to_bytes()),
        (OpCode::GET_DATA, get_data("/witness").to_bytes()),
        (OpCode::SET_DATA, set_data("/none", b"x").to_bytes()),
        (OpCode::GET_ACL, GetAclRequest { path: path() }.to_bytes()),
        (
            OpCode::SET_ACL,
            SetAclRequest { path: "/none".into(), acl: Acl::open(), version: -1 }.to_bytes(),
        ),
        (OpCode::GET_CHILDREN, GetChildrenRequest { path: path(), watch: false }.to_bytes()),
        (OpCode::GET_CHILDREN2, GetChildrenRequest { path: path(), watch: false }.to_bytes()),
        (OpCode::SYNC, SyncRequest { path: Some(path()) }.to_bytes()),
        (OpCode::MULTI, MultiRequest::Write(vec![check, write]).to_bytes()),
        (OpCode::MULTI_READ, MultiRequest::Read(vec![read]).to_bytes()),
        (
            OpCode::RECONFIG,
            ReconfigRequest {
                joining_servers: None,
                leaving_servers: Some("1".into()),
                new_members: None,
                cur_config_id: -1,
            }
            .to_bytes(),
        ),
        (OpCode::CHECK_WATCHES, CheckWatchesRequest { path: path(), watcher_type: 1 }.to_bytes()),
        (OpCode::REMOVE_WATCHES, RemoveWatchesRequest { path: path(), watcher_type: 1 }.to_bytes()),
        (
            OpCode::SET_WATCHES,
            SetWatches {
                relative_zxid: Zxid(i64::MAX),
                data_watches: list(),
                exist_watches: list(),
                child_watches: list(),
            }
            .to_bytes(),
        ),
        (
            OpCode::SET_WATCHES2,
            SetWatches2 {
                relative_zxid: Zxid(i64::MAX),
                data_watches: list(),
                exist_watches: list(),
                child_watches: list(),
                persistent_watches: list(),
                persistent_recursive_watches: list(),
            }
            .to_bytes(),
        ),
        (OpCode::ADD_WATCH, AddWatchRequest { path: "/none".into(), mode: 0 }.to_bytes()),
        (OpCode::GET_EPHEMERALS, GetEphemeralsRequest { prefix_path: Some(path()) }.to_bytes()),
        (OpCode::GET_ALL_CHILDREN_NUMBER, GetAllChildrenNumberRequest { path: path() }.to_bytes()),
    ]
}

#[test]
fn a_length_that_is_none_closes_without_an_answer() {
    let mut scene = Scene::new(&[]);
    let too_long = i32::try_from(FRAME_MAX).unwrap() + 1;
    for len in [-1, i32::MIN, too_long, i32::MAX] {
        for mut client in [scene.stranger(), scene.client()] {
            client.send_bytes(&len.to_be_bytes()).unwrap();
            assert!(client.is_closed().unwrap(), "a frame of {len} bytes");
        }
        scene.check();
    }
    // What came before it is answered.
    let mut client = scene.client();
    let mut bytes = request(1, OpCode::GET_DATA, &get_data("/witness").to_bytes());
    bytes.extend_from_slice(&(-5i32).to_be_bytes());
    client.send_bytes(&bytes).unwrap();
    assert_eq!(ok(client.read_reply()).header.xid, Xid(1));
    assert!(client.is_closed().unwrap());
    scene.check();
}

#[test]
fn frames_up_to_jute_maxbuffer_are_served() {
    let mut scene = Scene::new(&[]);
    let mut client = scene.client();
    let overhead = 8 + set_data("/witness", b"").to_bytes().len();
    let data = vec![b'd'; FRAME_MAX - overhead];
    ok(client.request(OpCode::SET_DATA, &set_data("/witness", &data)));
    let reply = ok(client.request(OpCode::GET_DATA, &get_data("/witness")));
    assert_eq!(reply.body_as::<GetDataResponse>().data.unwrap(), data);
    // One byte more is not read: nothing of it is stored.
    let over = set_data("/witness", &[&data[..], b"!"].concat()).to_bytes();
    drop(client.send_as(Xid(9), OpCode::SET_DATA, &over));
    assert!(client.is_closed().unwrap());
    let mut other = scene.client();
    let reply = ok(other.request(OpCode::GET_DATA, &get_data("/witness")));
    assert_eq!(reply.body_as::<GetDataResponse>().data.unwrap().len(), data.len());
    scene.check();
}

#[test]
fn a_claimed_length_costs_nothing() {
    let mut scene = Scene::new(&["jute.maxbuffer=2147483647"]);
    let before = scene.server.resident_bytes();
    let claims: Vec<_> = (0..200)
        .map(|n| {
            let mut client = if n % 2 == 0 { scene.stranger() } else { scene.client() };
            client.send_bytes(&i32::MAX.to_be_bytes()).unwrap();
            client.send_bytes(b"and a little of it").unwrap();
            client
        })
        .collect();
    scene.check();
    let grown = scene.server.resident_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "200 claims of 2 GB took {grown} bytes");
    drop(claims);
    scene.check();
}

#[test]
fn a_first_frame_that_is_no_connect_request_closes() {
    let mut scene = Scene::new(&[]);
    let whole = new_session().to_bytes();
    let without_read_only = whole.len() - 1;
    for len in 0..without_read_only {
        let mut client = scene.stranger();
        client.send_frame(&whole[..len]).unwrap();
        assert!(client.is_closed().unwrap(), "a connect request cut to {len} bytes");
    }
    // An old client, which does not know the last field, is not told it either.
    let mut client = scene.stranger();
    client.send_frame(&whole[..without_read_only]).unwrap();
    let response = client.read_frame().unwrap();
    assert_eq!(response.len(), 4 + 4 + 8 + 4 + PASSWORD_LEN);
    assert_eq!(ConnectResponse::decode(&response).unwrap().read_only, None);
    // A password of a length that is none.
    for len in [-2, i32::MIN, i32::MAX, 17] {
        let mut client = scene.stranger();
        let mut frame = whole[..24].to_vec();
        frame.extend_from_slice(&i32::to_be_bytes(len));
        frame.extend_from_slice(&[0; 3]);
        client.send_frame(&frame).unwrap();
        assert!(client.is_closed().unwrap(), "a password of {len} bytes");
    }
    // A zxid that this server has not seen: the client's place is elsewhere.
    let mut client = scene.stranger();
    let ahead = ConnectRequest { last_zxid_seen: Zxid(1 << 40), ..new_session() };
    client.send_frame(&ahead.to_bytes()).unwrap();
    assert!(client.is_closed().unwrap());
    scene.check();
}

#[test]
fn a_frame_without_a_request_header_closes() {
    let mut scene = Scene::new(&[]);
    for len in 0..8 {
        let mut client = scene.client();
        let mut bytes = request(1, OpCode::GET_DATA, &get_data("/witness").to_bytes());
        bytes.extend_from_slice(&framed(&vec![0; len]));
        client.send_bytes(&bytes).unwrap();
        assert_eq!(ok(client.read_reply()).header.xid, Xid(1));
        assert!(client.is_closed().unwrap(), "a frame of {len} bytes");
    }
    scene.check();
}

#[test]
fn an_operation_that_is_none_is_answered_then_closed() {
    let mut scene = Scene::new(&[]);
    let before = scene.server.metric("zk_num_alive_connections");
    for op in [0, 10, 13, 20, 23, 99, 108, -1, -2, -10, -12, i32::MAX, i32::MIN] {
        let mut client = scene.client();
        // A write is on its way before it, and a read waits behind: the first is answered.
        let mut bytes = request(1, OpCode::SET_DATA, &set_data("/witness", b"x").to_bytes());
        bytes.extend_from_slice(&request(2, OpCode(op), &[0; 40]));
        bytes.extend_from_slice(&request(
            3,
            OpCode::DELETE,
            &DeleteRequest { path: "/witness".into(), version: -1 }.to_bytes(),
        ));
        client.send_bytes(&bytes).unwrap();
        assert_eq!(ok(client.read_reply()).header.xid, Xid(1), "operation {op}");
        let reply = client.read_reply().unwrap();
        assert_eq!(
            (reply.header.xid, reply.header.err),
            (Xid(2), ErrorCode::UNIMPLEMENTED),
            "{op}"
        );
        assert!(reply.body.is_empty());
        assert!(client.is_closed().unwrap(), "operation {op}");
        // With nothing before it, and from a client that waits for the answer.
        let mut client = scene.client();
        assert_eq!(error_of(&mut client, OpCode(op), b""), ErrorCode::UNIMPLEMENTED);
        assert!(client.is_closed().unwrap(), "operation {op}");
    }
    scene.check();
    eventually("the connections are gone", || {
        (scene.server.metric("zk_num_alive_connections") <= before).then_some(())
    });
}

#[test]
fn a_second_connect_request_is_an_unknown_operation() {
    let mut scene = Scene::new(&[]);
    let mut client = scene.client();
    client.send_frame(&new_session().to_bytes()).unwrap();
    let reply = client.read_reply().unwrap();
    assert_eq!((reply.header.xid, reply.header.err), (Xid(0), ErrorCode::UNIMPLEMENTED));
    assert!(client.is_closed().unwrap());
    scene.check();
}

#[test]
fn bodies_cut_short_are_answered_and_the_connection_is_kept() {
    let mut scene = Scene::new(&["zookeeper.extendedTypesEnabled=true"]);
    let mut client = scene.client();
    for (op, body) in bodies() {
        for len in 0..body.len() {
            let err = error_of(&mut client, op, &body[..len]);
            assert_eq!(
                err,
                ErrorCode::MARSHALLING_ERROR,
                "{op} cut to {len} of {} bytes",
                body.len()
            );
        }
        // The whole is understood, with what later versions may append.
        for tail in [&b""[..], b"\0\0\0\x01"] {
            let err = error_of(&mut client, op, &[&body, tail].concat());
            assert_ne!(err, ErrorCode::MARSHALLING_ERROR, "{op}");
            let delete = DeleteRequest { path: "/new".into(), version: -1 }.to_bytes();
            error_of(&mut client, OpCode::DELETE, &delete);
        }
        scene.check();
    }
    assert_eq!(ok(client.ping()).header.xid, Xid::PING);
}

#[test]
fn lengths_and_counts_inside_a_body_are_not_believed() {
    let mut scene = Scene::new(&[]);
    let mut client = scene.client();
    let before = scene.server.resident_bytes();
    // Every body begins with a string, or with a header before one.
    for (op, body) in bodies() {
        let at = match op {
            OpCode::SET_WATCHES | OpCode::SET_WATCHES2 => 8,
            OpCode::MULTI | OpCode::MULTI_READ => 9,
            _ => 0, // a string
        };
        for len in [i32::MAX, i32::MAX - 4, 0x10_0000, 1 << 24, -2, i32::MIN] {
            let is_vector = at == 8;
            if is_vector && len < 0 {
                continue; // an empty one: see below
            }
            let mut bytes = BytesMut::from(&body[..at]);
            bytes.put_i32(len);
            bytes.extend_from_slice(&body[at + 4..]);
            let err = error_of(&mut client, op, &bytes);
            assert_eq!(err, ErrorCode::MARSHALLING_ERROR, "{op} with a length of {len}");
        }
    }
    let grown = scene.server.resident_bytes().saturating_sub(before);
    assert!(grown < 16 << 20, "claimed lengths took {grown} bytes");
    scene.check();
}

#[test]
fn negative_counts_are_empty_lists() {
    let mut scene = Scene::new(&[]);
    let mut client = scene.client();
    for count in [-1, -2, i32::MIN] {
        // A create's ACL: an empty one is not valid.
        let mut body = BytesMut::from(&create("/negative", b"", 0).to_bytes()[..]);
        body.truncate(4 + "/negative".len() + 4);
        body.put_i32(count);
        body.put_i32(0);
        assert_eq!(error_of(&mut client, OpCode::CREATE, &body), ErrorCode::INVALID_ACL, "{count}");
        // Watches: none are set.
        let mut body = BytesMut::new();
        body.put_i64(0);
        (0..5).for_each(|_| body.put_i32(count));
        assert_eq!(error_of(&mut client, OpCode::SET_WATCHES, &body[..20]), ErrorCode::OK);
        assert_eq!(error_of(&mut client, OpCode::SET_WATCHES2, &body), ErrorCode::OK);
    }
    scene.check();
}

#[test]
fn null_paths_are_answered_and_the_connection_is_kept() {
    let mut scene = Scene::new(&[]);
    let mut client = scene.client();
    let null = (-1i32).to_be_bytes();
    for (op, body) in bodies() {
        let at = match op {
            OpCode::SET_WATCHES | OpCode::SET_WATCHES2 => 12,
            OpCode::MULTI | OpCode::MULTI_READ => 9,
            // Null means nothing, or everything: that is said elsewhere.
            OpCode::SYNC | OpCode::GET_EPHEMERALS | OpCode::RECONFIG => continue,
            _ => 0, // the path is the first field
        };
        let len = usize::try_from(i32::from_be_bytes(*body[at..].first_chunk().unwrap())).unwrap();
        let nulled = [&body[..at], &null, &body[at + 4 + len..]].concat();
        // What Apache's server says to the same bytes.
        let expected = match op {
            OpCode::SET_DATA | OpCode::SET_ACL => ErrorCode::BAD_ARGUMENTS,
            OpCode::CHECK_WATCHES | OpCode::REMOVE_WATCHES => ErrorCode::NO_WATCHER,
            _ => ErrorCode::MARSHALLING_ERROR, // the body as such cannot be read
        };
        assert_eq!(error_of(&mut client, op, &nulled), expected, "{op}");
    }
    assert_eq!(error_of(&mut client, OpCode::SYNC, &null), ErrorCode::OK);
    ok(client.request(OpCode::CREATE, &create("/mine", b"", EPHEMERAL)));
    let reply =
        ok(client.request(OpCode::GET_EPHEMERALS, &GetEphemeralsRequest { prefix_path: None }));
    assert_eq!(reply.body_as::<GetEphemeralsResponse>().ephemerals, ["/mine"]);
    scene.check();
}

#[test]
fn bad_multis_are_answered_as_a_whole() {
    let mut scene = Scene::new(&[]);
    let mut client = scene.client();
    let header = |op, out: &mut BytesMut| {
        MultiHeader { op, done: false, err: ErrorCode(-1) }.encode(out);
    };
    let end = |out: &mut BytesMut| {
        MultiHeader { op: OpCode::ERROR, done: true, err: ErrorCode(-1) }.encode(out);
    };
    for bad in [0, 3, 6, 7, 9, 11, 14, 16, 20, 22, 100, -1, -10, -11, 999] {
        let mut body = BytesMut::new();
        header(OpCode::CREATE, &mut body);
        create("/multi", b"", 0).encode(&mut body);
        header(OpCode(bad), &mut body);
        get_data("/witness").encode(&mut body);
        end(&mut body);
        let err = error_of(&mut client, OpCode::MULTI, &body);
        assert_eq!(err, ErrorCode::MARSHALLING_ERROR, "operation {bad} in a multi");
    }
    let mut mixed = BytesMut::new();
    header(OpCode::CREATE, &mut mixed);
    create("/multi", b"", 0).encode(&mut mixed);
    header(OpCode::GET_DATA, &mut mixed);
    get_data("/witness").encode(&mut mixed);
    end(&mut mixed);
    let mut endless = BytesMut::new();
    header(OpCode::CREATE, &mut endless);
    create("/multi", b"", 0).encode(&mut endless);
    let mut flagged = BytesMut::new();
    header(OpCode::CREATE, &mut flagged);
    create("/multi", b"", 1234).encode(&mut flagged);
    end(&mut flagged);
    for (what, body) in [("mixed", mixed), ("endless", endless), ("with a bad flag", flagged)] {
        for op in [OpCode::MULTI, OpCode::MULTI_READ] {
            let err = error_of(&mut client, op, &body);
            assert_eq!(err, ErrorCode::MARSHALLING_ERROR, "{what}, as {op}");
        }
    }
    // Nothing of them was done.
    assert_eq!(
        error_of(&mut client, OpCode::GET_DATA, &get_data("/multi").to_bytes()),
        ErrorCode::NO_NODE
    );
    let mut empty = BytesMut::new();
    end(&mut empty);
    assert_eq!(error_of(&mut client, OpCode::MULTI, &empty), ErrorCode::OK);
    scene.check();
}

#[test]
fn bad_paths_and_numbers_are_answered_and_the_connection_is_kept() {
    let mut scene = Scene::new(&[]);
    let mut client = scene.client();
    // Their parents exist: a create looks for the parent first.
    let bad_paths = [
        "",
        "relative",
        "//",
        "/witness/",
        "/witness/.",
        "/witness/..",
        "/.",
        "/..",
        "/a\0b",
        "/\u{1}",
        "/\u{7f}",
        "/\u{85}",
        "/\u{e000}",
        "/\u{f8ff}",
        "/\u{fff0}",
        "/\u{ffff}",
    ];
    for path in bad_paths {
        let err = error_of(&mut client, OpCode::CREATE, &create(path, b"", 0).to_bytes());
        assert_eq!(err, ErrorCode::BAD_ARGUMENTS, "create {path:?}");
        let err = error_of(&mut client, OpCode::SET_DATA, &set_data(path, b"").to_bytes());
        assert_eq!(err, ErrorCode::BAD_ARGUMENTS, "setData {path:?}");
    }
    // Bytes that are no text are a path that does not exist, or none.
    let mut body = BytesMut::new();
    body.put_i32(5);
    body.extend_from_slice(b"/\xff\xfe\xc0\x80");
    body.put_u8(0);
    assert_eq!(error_of(&mut client, OpCode::GET_DATA, &body), ErrorCode::NO_NODE);
    for flags in [-1, 7, 99, i32::MIN] {
        let err = error_of(&mut client, OpCode::CREATE, &create("/flags", b"", flags).to_bytes());
        assert_eq!(err, ErrorCode::BAD_ARGUMENTS, "create with the flags {flags}");
    }
    for mode in [-1, 2, i32::MAX] {
        let body = AddWatchRequest { path: "/witness".into(), mode }.to_bytes();
        let err = error_of(&mut client, OpCode::ADD_WATCH, &body);
        assert_eq!(err, ErrorCode::MARSHALLING_ERROR, "addWatch with the mode {mode}");
    }
    for watcher_type in [-1, 0, 6, i32::MAX] {
        let body = CheckWatchesRequest { path: "/witness".into(), watcher_type }.to_bytes();
        for op in [OpCode::CHECK_WATCHES, OpCode::REMOVE_WATCHES] {
            let err = error_of(&mut client, op, &body);
            assert_eq!(err, ErrorCode::MARSHALLING_ERROR, "{op} with the type {watcher_type}");
        }
    }
    scene.check();
}

#[test]
fn bad_authentication_ends_the_connection() {
    let mut scene = Scene::new(&[]);
    let packet = |scheme: &str, auth: Option<&'static [u8]>| AuthPacket {
        auth_type: 0,
        scheme: scheme.into(),
        auth: auth.map(Bytes::from_static),
    };
    // Answered, then closed: nothing behind it is done.
    let null_scheme = [&[0; 4], &(-1i32).to_be_bytes()[..], &[0; 4]].concat();
    let unknown = [packet("kerberos", Some(b"x")), packet("", None), packet("digest", None)];
    for bad in unknown.iter().map(|bad| bad.to_bytes()).chain([null_scheme.into()]) {
        let mut client = scene.client();
        let mut bytes = request(Xid::AUTH.0, OpCode::AUTH, &bad);
        bytes.extend_from_slice(&request(1, OpCode::CREATE, &create("/auth", b"", 0).to_bytes()));
        client.send_bytes(&bytes).unwrap();
        let reply = client.read_reply().unwrap();
        assert_eq!(
            (reply.header.xid, reply.header.err),
            (Xid::AUTH, ErrorCode::AUTH_FAILED),
            "{bad:?}"
        );
        assert_eq!(reply.header.zxid, Zxid::ZERO);
        assert!(client.is_closed().unwrap(), "{bad:?}");
    }
    // Not even answered.
    let whole = packet("digest", Some(b"a:b")).to_bytes();
    for body in (0..whole.len()).map(|len| whole[..len].to_vec()) {
        let mut client = scene.client();
        client.send_as(Xid::AUTH, OpCode::AUTH, &body).unwrap();
        assert!(client.is_closed().unwrap(), "{body:?}");
    }
    for body in [&(-1i32).to_be_bytes()[..], &i32::MAX.to_be_bytes(), b"", b"\0\0"] {
        let mut client = scene.client();
        client.send_as(Xid(5), OpCode::SASL, body).unwrap();
        assert!(client.is_closed().unwrap(), "{body:?}");
    }
    // Without a SASL configuration there is nothing to negotiate.
    let mut client = scene.client();
    let token = GetSaslRequest { token: Some(Bytes::from_static(b"token")) };
    let reply = ok(client.request(OpCode::SASL, &token));
    assert_eq!(reply.body_as::<SetSaslResponse>().token, None);
    ok(client.request(OpCode::GET_DATA, &get_data("/witness")));
    let err = error_of(&mut client, OpCode::GET_DATA, &get_data("/auth").to_bytes());
    assert_eq!(err, ErrorCode::NO_NODE);
    scene.check();
}

#[test]
fn garbage_hurts_nobody() {
    let mut scene = Scene::new(&[]);
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let mut prng = Prng::new(seed);
    for round in 0..300 {
        let mut client = if prng.chance(40) { scene.stranger() } else { scene.client() };
        let bytes = match prng.below(4) {
            0 => {
                let len = prng.index(4096);
                prng.bytes(len)
            }
            1 => {
                let len = prng.index(300);
                framed(&prng.bytes(len))
            }
            2 => {
                // An operation that exists, with garbage for its body.
                let (op, _) = prng.pick(&bodies()).clone();
                let len = prng.index(200);
                request(prng.next_i32(), op, &prng.bytes(len))
            }
            _ => {
                // A good request with some bytes changed.
                let (op, body) = prng.pick(&bodies()).clone();
                let mut bytes = request(1, op, &body);
                for _ in 0..1 + prng.index(4) {
                    let at = prng.index(bytes.len());
                    bytes[at] = prng.bytes(1)[0];
                }
                bytes
            }
        };
        // The server may be done with it before everything is sent.
        drop(client.send_bytes(&bytes));
        drop(client.shutdown_write());
        drop(client.read_to_end());
        if round % 50 == 0 {
            scene.check();
        }
    }
    scene.check();
}

#[test]
fn a_client_that_sends_byte_by_byte_is_served() {
    let mut scene = Scene::new(&[]);
    let mut client = scene.stranger();
    let drip = |client: &mut RawClient, bytes: &[u8]| {
        bytes.iter().for_each(|byte| client.send_bytes(&[*byte]).unwrap());
    };
    drip(&mut client, &framed(&new_session().to_bytes()));
    let response = ConnectResponse::decode(&client.read_frame().unwrap()).unwrap();
    assert_ne!(response.session_id, SessionId(0));
    for xid in 1..20 {
        let body = create(&format!("/drip{xid}"), b"data", 0).to_bytes();
        drip(&mut client, &request(xid, OpCode::CREATE, &body));
        if xid % 5 == 0 {
            scene.check();
        }
    }
    for xid in 1..20 {
        assert_eq!(ok(client.read_reply()).header.xid, Xid(xid));
    }
    scene.check();
}

#[test]
fn frames_behind_the_connect_request_are_answered_in_order() {
    let mut scene = Scene::new(&[]);
    let auth = AuthPacket {
        auth_type: 0,
        scheme: "digest".into(),
        auth: Some(Bytes::from_static(b"a:b")),
    };
    let watches = SetWatches {
        relative_zxid: Zxid(0),
        data_watches: vec!["/early".into()],
        exist_watches: Vec::new(),
        child_watches: Vec::new(),
    };
    let mut bytes = framed(&new_session().to_bytes());
    bytes.extend_from_slice(&request(Xid::AUTH.0, OpCode::AUTH, &auth.to_bytes()));
    bytes.extend_from_slice(&request(Xid::SET_WATCHES.0, OpCode::SET_WATCHES, &watches.to_bytes()));
    bytes.extend_from_slice(&request(1, OpCode::CREATE, &create("/early", b"1", 0).to_bytes()));
    bytes.extend_from_slice(&request(2, OpCode::GET_DATA, &get_data("/early").to_bytes()));
    bytes.extend_from_slice(&request(
        3,
        OpCode::SYNC,
        &SyncRequest { path: Some("/early".into()) }.to_bytes(),
    ));
    bytes.extend_from_slice(&request(4, OpCode::CLOSE_SESSION, b""));
    // In one piece, and cut in two at every place.
    for cut in 0..bytes.len() {
        let mut client = scene.stranger();
        client.send_bytes(&bytes[..cut]).unwrap();
        client.send_bytes(&bytes[cut..]).unwrap();
        let response = ConnectResponse::decode(&client.read_frame().unwrap()).unwrap();
        assert_eq!(response.timeout_ms, 60_000);
        let mut xids = Vec::new();
        while let Ok(reply) = client.read_reply() {
            if reply.header.xid == Xid(2) && cut == 0 {
                assert_eq!(reply.body_as::<GetDataResponse>().data.as_deref(), Some(&b"1"[..]));
            }
            // The watch on a znode that is not there fires at once: it was deleted.
            xids.push(reply.header.xid.0);
        }
        xids.retain(|xid| *xid != Xid::NOTIFICATION.0);
        assert_eq!(xids, [-4, -8, 1, 2, 3, 4], "cut at {cut}");
    }
    scene.check();
}

#[test]
fn a_hundred_thousand_pipelined_requests_are_answered_in_order() {
    const REQUESTS: i32 = 100_000;
    let mut scene = Scene::new(&[]);
    let mut stream = TcpStream::connect(scene.server.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&framed(&new_session().to_bytes())).unwrap();
    let mut sender = stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        let mut bytes = request(1, OpCode::CREATE, &create("/pipe", b"1", 0).to_bytes());
        for xid in 2..=REQUESTS {
            let frame = match xid % 10 {
                0 => request(
                    xid,
                    OpCode::SET_DATA,
                    &set_data("/pipe", xid.to_string().as_bytes()).to_bytes(),
                ),
                _ => request(xid, OpCode::GET_DATA, &get_data("/pipe").to_bytes()),
            };
            bytes.extend_from_slice(&frame);
        }
        sender.write_all(&bytes).unwrap();
    });
    let mut reader = std::io::BufReader::with_capacity(1 << 16, stream);
    let mut read_frame = || {
        let mut len = [0; 4];
        reader.read_exact(&mut len).unwrap();
        let mut payload = vec![0; usize::try_from(i32::from_be_bytes(len)).unwrap()];
        reader.read_exact(&mut payload).unwrap();
        Bytes::from(payload)
    };
    read_frame();
    let mut last_written = String::from("1");
    for xid in 1..=REQUESTS {
        let frame = read_frame();
        assert_eq!(frame[..4], xid.to_be_bytes(), "out of order");
        assert_eq!(frame[12..16], [0; 4], "the request {xid} failed");
        if xid > 1 && xid % 10 == 0 {
            last_written = xid.to_string();
        } else if xid > 1 {
            let response = GetDataResponse::decode(&frame.slice(16..)).unwrap();
            assert_eq!(response.data.unwrap(), last_written, "the read {xid}");
        }
        if xid % 25_000 == 0 {
            scene.check();
        }
    }
    sending.join().unwrap();
    scene.check();
}

#[test]
fn large_replies_to_pipelined_requests_all_arrive() {
    const READS: i32 = 150;
    let mut scene = Scene::new(&[]);
    let data = vec![7; 1_000_000];
    let mut client = scene.client();
    ok(client.request(OpCode::CREATE, &create("/large", &data, 0)));
    let before = scene.server.resident_bytes();
    let mut bytes = Vec::new();
    for xid in 1..=READS {
        bytes.extend_from_slice(&request(xid, OpCode::GET_DATA, &get_data("/large").to_bytes()));
    }
    client.send_bytes(&bytes).unwrap();
    let mut peak = 0;
    for xid in 1..=READS {
        let reply = ok(client.read_reply());
        assert_eq!(reply.header.xid, Xid(xid));
        assert!(reply.body.len() > data.len());
        if xid % 25 == 1 {
            peak = peak.max(scene.server.resident_bytes());
            scene.check();
        }
    }
    let grown = peak.saturating_sub(before);
    assert!(grown < 48 << 20, "replies that wait took {grown} bytes");
}

#[test]
fn a_client_that_never_reads_is_held_back() {
    const DATA_LEN: usize = 500_000;
    let mut scene = Scene::new(&[]);
    let mut client = scene.client();
    ok(client.request(OpCode::CREATE, &create("/big", &vec![1; DATA_LEN], 0)));
    let before = scene.server.resident_bytes();
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let mut stream = TcpStream::connect(scene.server.address).unwrap();
            stream.write_all(&framed(&new_session().to_bytes())).unwrap();
            stream.set_nonblocking(true).unwrap();
            stream
        })
        .collect();
    let reads: Vec<u8> = (1..=1000)
        .flat_map(|xid| request(xid, OpCode::GET_DATA, &get_data("/big").to_bytes()))
        .collect();
    // Sends until nothing is taken any more: the server stopped reading.
    let mut sent = vec![0usize; readers.len()];
    for (mut stream, sent) in readers.iter().zip(&mut sent) {
        let mut quiet = 0;
        while quiet < 20 && *sent < 64 << 20 {
            match stream.write(&reads[*sent % reads.len()..]) {
                Ok(len) => {
                    *sent += len;
                    quiet = 0;
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    quiet += 1;
                    scene.check(); // takes a moment, in which others are served
                }
                Err(error) => panic!("the connection was closed: {error}"),
            }
        }
        assert!(*sent < 64 << 20, "the server reads on and on");
    }
    let grown = scene.server.resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "four clients that do not read took {grown} bytes");
    // One that reads after all gets everything.
    let mut stream = &readers[0];
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut reader = std::io::BufReader::new(&mut stream);
    let mut frame = vec![0; 41];
    reader.read_exact(&mut frame).unwrap();
    for xid in 1..=100i32 {
        let mut head = [0; 20];
        reader.read_exact(&mut head).unwrap();
        assert_eq!(head[4..8], xid.to_be_bytes());
        let len = usize::try_from(i32::from_be_bytes(*head.first_chunk().unwrap())).unwrap();
        let mut rest = vec![0; len - 16];
        reader.read_exact(&mut rest).unwrap();
        assert!(rest.len() > DATA_LEN);
    }
    scene.check();
    // And those that never do go with their sessions, not before the server ends.
    drop(readers);
    eventually("their connections are gone", || {
        (scene.server.metric("zk_num_alive_connections") <= 3.0).then_some(())
    });
}

#[test]
fn a_client_that_does_not_read_goes_with_its_session() {
    let mut scene = Scene::with(&Options { tick_ms: 100, ..Options::default() });
    let mut stream = TcpStream::connect(scene.server.address).unwrap();
    stream.write_all(&framed(&connect_request(SessionId(0), &[0; 16], 400).to_bytes())).unwrap();
    let mut bytes = request(1, OpCode::CREATE, &create("/gone", b"", EPHEMERAL).to_bytes());
    bytes.extend(request(2, OpCode::CREATE, &create("/bulk", &vec![1; 900_000], 0).to_bytes()));
    for xid in 3..100 {
        bytes.extend(request(xid, OpCode::GET_DATA, &get_data("/bulk").to_bytes()));
    }
    stream.write_all(&bytes).unwrap();
    eventually("its znode was there", || {
        let body = get_data("/bulk").to_bytes();
        (error_of(&mut scene.witness, OpCode::GET_DATA, &body) == ErrorCode::OK).then_some(())
    });
    eventually("its znode is gone", || {
        let body = get_data("/gone").to_bytes();
        (error_of(&mut scene.witness, OpCode::GET_DATA, &body) == ErrorCode::NO_NODE).then_some(())
    });
    // It still has not read a byte, and keeps its end open.
    eventually("its connection is gone", || {
        scene.check();
        (scene.server.metric("zk_num_alive_connections") <= 2.0).then_some(())
    });
    drop(stream);
}

#[test]
fn connections_without_a_session_are_closed_in_time() {
    let timeout = Duration::from_millis(400);
    let mut scene = Scene::new(&["zookeeper.nio.sessionlessCnxnTimeout=400"]);
    let begun = Instant::now();
    let whole = framed(&new_session().to_bytes());
    let mut idle: Vec<_> = [0, 1, 3, 4, 20, whole.len() - 1]
        .map(|len| {
            let mut client = scene.stranger();
            client.send_bytes(&whole[..len]).unwrap();
            client
        })
        .into();
    let mut kept = scene.client();
    for client in &mut idle {
        assert!(client.is_closed().unwrap());
        assert!(begun.elapsed() >= timeout - Duration::from_millis(20), "closed early");
    }
    assert!(begun.elapsed() < timeout * 10, "closed late: {:?}", begun.elapsed());
    eventually("they are counted", || {
        (scene.server.metric("zk_sessionless_connections_expired") >= 6.0).then_some(())
    });
    ok(kept.request(OpCode::GET_DATA, &get_data("/witness")));
    scene.check();
}

#[test]
fn half_closed_and_silent_sockets_cost_nobody() {
    let mut scene = Scene::with(&Options { tick_ms: 100, ..Options::default() });
    let before = scene.server.metric("zk_num_alive_connections");
    // The client's end is closed in the middle of something.
    let whole = request(1, OpCode::GET_DATA, &get_data("/witness").to_bytes());
    for len in [0, 2, 4, 9, whole.len() - 1] {
        let mut client = scene.client();
        client.send_bytes(&whole[..len]).unwrap();
        client.shutdown_write().unwrap();
        assert!(client.is_closed().unwrap(), "half closed after {len} bytes");
    }
    // The client has vanished without a word: its session ends, and so does its connection.
    let (mut silent, session) = RawClient::with_session(scene.server.address, 300).unwrap();
    let begun = Instant::now();
    assert!(silent.is_closed().unwrap());
    let timeout = Duration::from_millis(u64::try_from(session.timeout_ms).unwrap());
    assert!(begun.elapsed() >= timeout - Duration::from_millis(50), "{:?}", begun.elapsed());
    eventually("their connections are gone", || {
        ok(scene.witness.ping());
        (scene.server.metric("zk_num_alive_connections") <= before).then_some(())
    });
    scene.check();
}

/// Opens sessions until one is refused.
fn sessions_until_full(scene: &Scene, most: usize) -> Vec<RawClient> {
    let mut clients = Vec::new();
    while clients.len() <= most {
        let Ok((client, _)) = RawClient::with_session(scene.server.address, 60_000) else { break };
        clients.push(client);
    }
    clients
}

#[test]
fn connections_are_limited_for_each_address_and_in_all() {
    let each = Options { tick_ms: 3000, client_cnxns_max: 5, properties: &[] };
    let all = Options { client_cnxns_max: 0, properties: &["zookeeper.maxCnxns=5"], ..each };
    for (what, options) in [("each", each), ("all", all)] {
        let mut scene = Scene::with(&options);
        // Probes of the test itself end a moment later.
        let mut clients = eventually("four more fit in", || {
            let clients = sessions_until_full(&scene, 8);
            (clients.len() == 4).then_some(clients)
        });
        let mut refused = scene.stranger();
        drop(refused.send_bytes(b"ruok"));
        assert!(refused.is_closed().unwrap(), "limit for {what}");
        // Those who are in are served, and a place that is given up can be taken.
        ok(scene.witness.request(OpCode::GET_DATA, &get_data("/witness")));
        for client in &mut clients {
            ok(client.request(OpCode::GET_DATA, &get_data("/witness")));
        }
        ok(clients.pop().unwrap().close_session());
        let last = eventually("a place is free", || {
            RawClient::with_session(scene.server.address, 60_000).ok()
        });
        drop(last);
        drop(clients);
        eventually("words are answered again", || {
            let answer = common::ask(scene.server.address, b"ruok").unwrap_or_default();
            (answer == b"imok").then_some(())
        });
        assert!(scene.server.metric("zk_connection_rejected") >= 1.0);
        scene.check();
    }
}

#[test]
#[cfg(target_os = "linux")]
fn connections_are_probed_if_asked_for() {
    // A socket's line in /proc/net/tcp: its own address, ..., the timer that runs; 02 is keepalive's.
    let timer = |server: &common::Server| {
        let local = format!("0100007F:{:04X}", server.address.port());
        let tables = ["/proc/net/tcp", "/proc/net/tcp6"]
            .map(|path| std::fs::read_to_string(path).unwrap_or_default());
        let line = tables.iter().flat_map(|table| table.lines()).find_map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let own = fields.get(1).is_some_and(|address| address.ends_with(&local[8..]));
            (own && fields[3] == "01").then(|| fields[5][..2].to_owned())
        });
        line.unwrap()
    };
    let scene = Scene::new(&["zookeeper.clientTcpKeepAlive=true"]);
    eventually("the keepalive timer runs", || (timer(&scene.server) == "02").then_some(()));
    let scene = Scene::new(&[]);
    eventually("no timer runs", || (timer(&scene.server) == "00").then_some(()));
}

#[test]
fn sessions_begin_at_a_limited_rate() {
    let properties = [
        "zookeeper.connection_throttle_tokens=4",
        "zookeeper.connection_throttle_fill_time=3600000",
    ];
    // The witness has taken one.
    let mut scene = Scene::new(&properties);
    let mut clients = sessions_until_full(&scene, 8);
    assert_eq!(clients.len(), 3);
    for client in &mut clients {
        ok(client.request(OpCode::GET_DATA, &get_data("/witness")));
    }
    let mut refused = scene.stranger();
    refused.send_frame(&new_session().to_bytes()).unwrap();
    assert!(refused.is_closed().unwrap());
    assert_eq!(scene.server.metric("zk_connection_rejected"), 2.0);
    scene.check();
}

#[test]
fn large_requests_in_flight_are_limited() {
    let mut scene = Scene::new(&[
        "zookeeper.largeRequestThreshold=1000",
        "zookeeper.largeRequestMaxBytes=50000",
    ]);
    // One after another they never are too many.
    for _ in 0..100 {
        ok(scene.witness.request(OpCode::SET_DATA, &set_data("/witness", &[1; 20_000])));
    }
    // One that is too large for itself is refused before it has come.
    let mut client = scene.client();
    let bytes = request(1, OpCode::SET_DATA, &set_data("/witness", &[2; 60_000]).to_bytes());
    client.send_bytes(&bytes[..4]).unwrap();
    assert!(client.is_closed().unwrap());
    assert_eq!(scene.server.metric("zk_large_requests_rejected"), 1.0);
    // What came before it is answered.
    let mut client = scene.client();
    let mut bytes = request(1, OpCode::GET_DATA, &get_data("/witness").to_bytes());
    bytes.extend(request(2, OpCode::SET_DATA, &set_data("/witness", &[2; 60_000]).to_bytes()));
    drop(client.send_bytes(&bytes));
    assert_eq!(ok(client.read_reply()).body_as::<GetDataResponse>().data.unwrap(), [1; 20_000][..]);
    assert!(client.is_closed().unwrap());
    scene.check();
}

#[test]
fn replies_are_measured() {
    let mut scene = Scene::new(&[]);
    scene.server.word("srst");
    let data = vec![1; 10_000];
    ok(scene.witness.request(OpCode::SET_DATA, &set_data("/witness", &data)));
    let reply = ok(scene.witness.request(OpCode::GET_DATA, &get_data("/witness")));
    let len = (16 + reply.body.len()) as f64;
    assert_eq!(scene.server.metric("zk_max_client_response_size"), len);
    assert_eq!(scene.server.metric("zk_last_client_response_size"), len);
    ok(scene.witness.ping());
    assert_eq!(scene.server.metric("zk_min_client_response_size"), 16.0);
    assert_eq!(scene.server.metric("zk_last_client_response_size"), 16.0);
    assert_eq!(scene.server.metric("zk_max_client_response_size"), len);
}

#[test]
fn a_client_that_reads_slowly_keeps_its_session() {
    const PARTS: usize = 45;
    const PART_LEN: usize = 900_000;
    let mut scene = Scene::with(&Options { tick_ms: 100, ..Options::default() });
    ok(scene.witness.request(OpCode::CREATE, &create("/slow", &vec![1; PART_LEN], 0)));
    let mut stream = TcpStream::connect(scene.server.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let hello = connect_request(SessionId(0), &[0; PASSWORD_LEN], 1000);
    stream.write_all(&framed(&hello.to_bytes())).unwrap();
    let mut frame = [0; 41];
    stream.read_exact(&mut frame).unwrap();
    let parts = (0..PARTS).map(|_| MultiReadOp::GetData(get_data("/slow"))).collect();
    let body = MultiRequest::Read(parts).to_bytes();
    stream.write_all(&request(1, OpCode::MULTI_READ, &body)).unwrap();
    // One long reply, of which it takes a piece now and then. It pings in time, but the server does
    // not read that while there is something to be sent.
    let begun = Instant::now();
    let mut head = [0; 20];
    stream.read_exact(&mut head).unwrap();
    let len = usize::try_from(i32::from_be_bytes(*head.first_chunk().unwrap())).unwrap();
    assert!(len > PARTS * PART_LEN);
    let (mut left, mut piece) = (len - 16, vec![0; 700_000]);
    let mut pings = 0;
    while left > 0 {
        let wanted = left.min(piece.len());
        stream.read_exact(&mut piece[..wanted]).unwrap();
        left -= wanted;
        stream.write_all(&request(Xid::PING.0, OpCode::PING, b"")).unwrap();
        pings += 1;
        ok(scene.witness.ping());
        std::thread::sleep(Duration::from_millis(60));
    }
    assert!(begun.elapsed() > Duration::from_secs(3), "it was not slow at all");
    for _ in 0..pings {
        stream.read_exact(&mut head).unwrap();
        assert_eq!(head[4..8], Xid::PING.0.to_be_bytes());
    }
    scene.check();
}

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
