//! How it is sent and read: byte by byte, all at once, slowly, never.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::common::{Options, PATIENCE, Scene, create, eventually, get_data, ok, set_data};
use crate::{EPHEMERAL, connect_request, error_of, framed, new_session, request};
use bytes::Bytes;
use zk_proto::connect::{ConnectResponse, PASSWORD_LEN};
use zk_proto::multi::{MultiReadOp, MultiRequest};
use zk_proto::proto::{AuthPacket, GetDataResponse, SetWatches, SyncRequest};
use zk_proto::{ErrorCode, OpCode, Record, SessionId, Xid, Zxid};
use zk_testkit::RawClient;

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
