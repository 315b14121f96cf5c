//! What is sent: lengths, frames, requests and bodies that are none.

use crate::common::{Scene, create, eventually, get_data, ok, set_data};
use crate::{EPHEMERAL, FRAME_MAX, bodies, error_of, framed, new_session, request};
use bytes::{BufMut, Bytes, BytesMut};
use zk_proto::connect::{ConnectRequest, ConnectResponse, PASSWORD_LEN};
use zk_proto::multi::MultiHeader;
use zk_proto::proto::{
    AddWatchRequest, AuthPacket, CheckWatchesRequest, DeleteRequest, GetDataResponse,
    GetEphemeralsRequest, GetEphemeralsResponse, GetSaslRequest, SetSaslResponse,
};
use zk_proto::{ErrorCode, OpCode, Record, Xid, Zxid};
use zk_testkit::Prng;

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
