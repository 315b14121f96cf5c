//! What no client would send. Nothing of it may stop a server.

use bytes::{BufMut, Bytes, BytesMut};
use zk_proto::connect::ConnectRequest;
use zk_proto::proto::{ExistsRequest, RequestHeader};
use zk_proto::{ErrorCode, OpCode, Record, Request, SessionId, Xid};
use zk_testkit::{Prng, property_of};

use crate::harness::{World, config, connect_request};
use crate::script::{body_of, request};

const SAMPLES: &[&str] = &[
    "create /a x acl=r,world:anyone+w,digest:u:h",
    "create2 /a/s x ephseq",
    "createContainer /c",
    "createTTL /t x ttl=5",
    "delete /a v=1",
    "set /a x v=1",
    "setacl /a acl=r,ip:1.2.3.4/8",
    "exists /a w",
    "get /a w",
    "getacl /a",
    "ls /a w",
    "ls2 / w",
    "count /",
    "sync /a",
    "ping",
    "whoami",
    "ephemerals /a",
    "auth digest u:p",
    "sasl token",
    "addwatch /a recursive",
    "checkwatch /a any",
    "rmwatch /a any",
    "setwatches zxid=1 data=/a,/b exist=/c child=/a",
    "setwatches zxid=1 data=/a persistent=/a recursive=/",
    "multi create /a x | set /a y v=0 | check /a v=1 | delete /a | createTTL /t ttl=1 | createContainer /c",
    "multiread get /a | ls /",
    "reconfig",
];

fn frame(xid: i32, op: OpCode, body: &[u8]) -> BytesMut {
    let mut frame = BytesMut::new();
    RequestHeader { xid: Xid(xid), op }.encode(&mut frame);
    frame.put_slice(body);
    frame
}

/// A good frame with something wrong in it: bits turned over, cut short, made longer, or not.
fn damaged(prng: &mut Prng, mut frame: BytesMut) -> Bytes {
    // What is xid and operation stays: other tests are about that, and the answers are read back.
    let start = 8;
    for _ in 0..prng.index(4) {
        if frame.len() > start {
            let at = start + prng.index(frame.len() - start);
            frame[at] =
                *prng.pick(&[0, 1, 0x7f, 0x80, 0xff, frame[at] ^ 1, frame[at].wrapping_add(1)]);
        }
    }
    if prng.chance(20) && frame.len() > start {
        frame.truncate(start + prng.index(frame.len() - start));
    }
    if prng.chance(20) {
        let len = prng.index(20);
        frame.put_slice(&prng.bytes(len));
    }
    frame.freeze()
}

fn is_alive(world: &mut World) {
    world.connect("alive");
    world.persist_all();
    world.take("alive");
    let exists = Request::Exists(ExistsRequest { path: "/".into(), watch: false });
    assert_eq!(world.ask_err("alive", &exists), ErrorCode::OK);
    world.lose("alive");
}

#[test]
fn damaged_requests_never_stop_a_server() {
    property_of("damaged requests", 400, |prng| {
        let mut world = World::new(config());
        for round in 0..8 {
            let name = format!("n{round}");
            world.connect(&name);
            world.persist_all();
            for _ in 0..30 {
                if world.connection(&name).closed {
                    break;
                }
                let sample = request(SAMPLES[prng.index(SAMPLES.len())]);
                let good = frame(0, sample.op(), &body_of(&sample));
                let body = damaged(prng, good).slice(8..);
                world.send_raw(&name, sample.op(), &body);
                if prng.chance(40) {
                    world.persist(1 + prng.index(3));
                }
            }
        }
        world.persist_all();
        is_alive(&mut world);
        world.persist_all();
        world.check();
    });
}

#[test]
fn random_bytes_never_stop_a_server() {
    property_of("random bytes", 400, |prng| {
        let mut world = World::new(config());
        for round in 0..20 {
            let name = format!("n{round}");
            world.open(&name, "not an address");
            // As a first frame, and behind a good one.
            if prng.chance(60) {
                world.send_frame(&name, connect_request(SessionId(0)).to_bytes());
                world.persist_all();
            } else if prng.chance(50) {
                let mut bytes = BytesMut::from(&connect_request(SessionId(0)).to_bytes()[..]);
                let at = prng.index(bytes.len());
                bytes[at] ^= 1 << prng.below(8);
                bytes.truncate(prng.index(bytes.len() + 1));
                world.send_frame(&name, bytes.freeze());
                world.persist_all();
            }
            world.deafen(&name);
            for _ in 0..10 {
                let len = prng.index(60);
                let mut bytes = prng.bytes(len);
                if prng.chance(50) && len >= 8 {
                    // An operation that there is.
                    let op = prng.below(22) + if prng.chance(30) { 100 } else { 0 };
                    bytes[4..8].copy_from_slice(&u32::try_from(op).unwrap().to_be_bytes());
                }
                if !world.connection(&name).closed {
                    world.send_frame(&name, bytes.into());
                }
            }
            if prng.chance(50) {
                world.persist_all();
            }
        }
        world.persist_all();
        is_alive(&mut world);
        world.persist_all();
        world.check();
    });
}

/// Any id, password, timeout and zxid.
#[test]
fn random_connect_requests_never_stop_a_server() {
    property_of("random connect requests", 100, |prng| {
        let mut world = World::new(config());
        for round in 0..20 {
            let name = format!("n{round}");
            world.open(&name, "::1");
            let session = SessionId(prng.edgy_i64());
            let request = ConnectRequest {
                protocol_version: prng.edgy_i32(),
                last_zxid_seen: zk_proto::Zxid(prng.edgy_i64().min(5)),
                timeout_ms: prng.edgy_i32(),
                session_id: session,
                read_only: prng.chance(50).then_some(true),
                ..connect_request(session)
            };
            world.send_frame(&name, request.to_bytes());
            if prng.chance(50) {
                world.persist(1);
            }
            if prng.chance(50) {
                world.pass(1000);
            }
        }
        world.persist_all();
        is_alive(&mut world);
        world.persist_all();
        world.check();
    });
}
