//! What real clients and servers said, decoded and encoded again. The files in `testdata` are written
//! by `conformance/record`, whose own reader supplies the expected values.

use std::collections::BTreeSet;
use std::fmt::Debug;

use bytes::{Bytes, BytesMut};
use zk_proto::connect::{ConnectRequest, ConnectResponse};
use zk_proto::multi::{MultiRequest, MultiResponse};
use zk_proto::persistence::{
    ADLER32_START, FileHeader, Seal, SnapshotAcl, SnapshotDigest, SnapshotNode, SnapshotSession,
    adler32,
};
use zk_proto::proto::*;
use zk_proto::quorum::{
    AckEpoch, DesignatedLeader, ElectionHello, ForwardedRequest, LeaderInfo, LearnerInfo,
    Notification, PacketType, QuorumPacket, SNAPSHOT_SIGNATURE, SessionTimeout, SessionValid,
    decode_touched_sessions,
};
use zk_proto::txn::{LoggedTxn, Txn};
use zk_proto::{DecodeErrorKind, OpCode, Reader, Record, Request, RequestError};
use zk_testkit::vectors::{self, Vector};

fn read(file: &str) -> Vec<Vector> {
    vectors::read(format!("{}/testdata/{file}.txt", env!("CARGO_MANIFEST_DIR")))
}

fn at(vector: &Vector) -> String {
    format!("{}: {} (line {})", vector.kind, vector.name, vector.line)
}

/// Encodes with a function that appends.
fn encoded(encode: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::new();
    encode(&mut out);
    out.freeze()
}

/// The record fills the bytes, has the fields, and becomes the same bytes again.
fn check<T: Record + Debug>(vector: &Vector) {
    let record = T::decode(&vector.bytes).unwrap_or_else(|error| panic!("{}: {error}", at(vector)));
    vector.check_fields(&format!("{record:?}"));
    assert_eq!(record.to_bytes(), vector.bytes, "{}", at(vector));
}

/// The same, behind a reply's header.
fn check_reply<T: Record + Debug>(vector: &Vector) {
    let mut reader = Reader::new(&vector.bytes);
    let header = ReplyHeader::parse(&mut reader).unwrap();
    let body =
        T::decode(&reader.take_rest()).unwrap_or_else(|error| panic!("{}: {error}", at(vector)));
    vector.check_fields(&format!("{header:?} {body:?}"));
    let again = encoded(|out| {
        header.encode(out);
        body.encode(out);
    });
    assert_eq!(again, vector.bytes, "{}", at(vector));
}

fn split_request(vector: &Vector) -> (RequestHeader, Bytes) {
    let mut reader = Reader::new(&vector.bytes);
    let header = RequestHeader::parse(&mut reader).unwrap();
    (header, reader.take_rest())
}

fn check_request(vector: &Vector) -> OpCode {
    let (header, body) = split_request(vector);
    let request = Request::decode(header.op, &body)
        .unwrap_or_else(|error| panic!("{}: {error:?}", at(vector)));
    vector.check_fields(&format!("{header:?} {request:?}"));
    assert_eq!(request.op(), header.op, "{}", at(vector));
    let again = encoded(|out| {
        header.encode(out);
        request.encode(out);
    });
    assert_eq!(again, vector.bytes, "{}", at(vector));
    header.op
}

fn check_any_reply(vector: &Vector) {
    match vector.kind.as_str() {
        "ReplyHeader" => check::<ReplyHeader>(vector),
        "CreateResponse" => check_reply::<CreateResponse>(vector),
        "Create2Response" => check_reply::<Create2Response>(vector),
        "ExistsResponse" => check_reply::<ExistsResponse>(vector),
        "GetDataResponse" => check_reply::<GetDataResponse>(vector),
        "SetDataResponse" => check_reply::<SetDataResponse>(vector),
        "GetAclResponse" => check_reply::<GetAclResponse>(vector),
        "SetAclResponse" => check_reply::<SetAclResponse>(vector),
        "GetChildrenResponse" => check_reply::<GetChildrenResponse>(vector),
        "GetChildren2Response" => check_reply::<GetChildren2Response>(vector),
        "SyncResponse" => check_reply::<SyncResponse>(vector),
        "ErrorResponse" => check_reply::<ErrorResponse>(vector),
        "GetEphemeralsResponse" => check_reply::<GetEphemeralsResponse>(vector),
        "GetAllChildrenNumberResponse" => check_reply::<GetAllChildrenNumberResponse>(vector),
        "WhoAmIResponse" => check_reply::<WhoAmIResponse>(vector),
        "SetSaslResponse" => check_reply::<SetSaslResponse>(vector),
        "WatcherEvent" => check_reply::<WatcherEvent>(vector),
        "MultiResponse" => check_reply::<MultiResponse>(vector),
        _ => panic!("{}: no such reply", at(vector)),
    }
}

#[test]
fn handshakes() {
    let mut old_clients = 0;
    for vector in read("connect") {
        match vector.kind.as_str() {
            "ConnectRequest" => check::<ConnectRequest>(&vector),
            "ConnectResponse" => check::<ConnectResponse>(&vector),
            _ => panic!("{}", at(&vector)),
        }
        old_clients += usize::from(vector.fields.contains(&("read_only".into(), "None".into())));
    }
    assert!(old_clients >= 2, "a request and a response without the last field");
    let refused = ConnectResponse::expired(Some(false)).to_bytes();
    let recorded = read("connect");
    assert!(recorded.iter().any(|vector| vector.bytes == refused), "expired() is what Java says");
}

#[test]
fn requests() {
    let mut seen = BTreeSet::new();
    for vector in read("requests").iter().chain(&read("multi")) {
        match vector.kind.as_str() {
            "Request" => drop(seen.insert(check_request(vector))),
            "MalformedRequest" => {
                let (header, body) = split_request(vector);
                vector.check_fields(&format!("{header:?} "));
                let error = Request::decode(header.op, &body).unwrap_err();
                assert!(matches!(error, RequestError::Body(_)), "{}: {error:?}", at(vector));
            }
            "UnknownRequest" => {
                let (header, body) = split_request(vector);
                let error = Request::decode(header.op, &body);
                assert_eq!(error, Err(RequestError::UnknownOp(header.op)), "{}", at(vector));
            }
            "MultiResponse" => check_any_reply(vector),
            _ => panic!("{}", at(vector)),
        }
    }
    // Everything that a client may ask for is there.
    for code in -20..200 {
        let known = !matches!(
            Request::decode(OpCode(code), &Bytes::new()),
            Err(RequestError::UnknownOp(_))
        );
        assert_eq!(seen.contains(&OpCode(code)), known, "{}", OpCode(code));
    }
}

#[test]
fn replies_and_events() {
    for vector in read("replies").iter().chain(&read("events")) {
        check_any_reply(vector);
    }
}

#[test]
fn a_multi_is_refused_at_every_truncation() {
    for vector in read("multi").iter().filter(|vector| vector.kind == "Request") {
        let (_, body) = split_request(vector);
        for len in 0..body.len() {
            assert!(MultiRequest::decode(&body.slice(..len)).is_err(), "{}: {len}", at(vector));
        }
    }
}

fn check_entry(entry: &Bytes) -> LoggedTxn {
    let logged = LoggedTxn::decode(entry).unwrap();
    assert_eq!(encoded(|out| logged.encode(out)), entry);
    logged
}

#[test]
fn logged_transactions() {
    let mut seen = BTreeSet::new();
    let mut bodiless = 0;
    for vector in read("txn") {
        match vector.kind.as_str() {
            "FileHeader" => {
                assert_eq!(FileHeader::decode(&vector.bytes), Ok(FileHeader::LOG));
                check::<FileHeader>(&vector);
            }
            "LoggedTxn" => {
                let logged = check_entry(&vector.bytes);
                vector.check_fields(&format!("{logged:?}"));
                seen.insert(logged.header.op);
                bodiless += usize::from(logged.txn == Txn::CloseSession(None));
            }
            "LogRecord" => {
                let mut reader = Reader::new(&vector.bytes);
                let checksum = reader.long("checksum").unwrap();
                let entry = reader.buffer("entry").unwrap().unwrap();
                assert_eq!(i64::from(adler32(ADLER32_START, &entry)), checksum, "{}", at(&vector));
                assert_eq!(reader.take_rest(), &b"B"[..], "{}", at(&vector));
                check_entry(&entry);
            }
            _ => panic!("{}", at(&vector)),
        }
    }
    let types = [
        OpCode::CREATE_SESSION,
        OpCode::CLOSE_SESSION,
        OpCode::ERROR,
        OpCode::CREATE,
        OpCode::CREATE2,
        OpCode::CREATE_CONTAINER,
        OpCode::CREATE_TTL,
        OpCode::DELETE,
        OpCode::DELETE_CONTAINER,
        OpCode::SET_DATA,
        OpCode::SET_ACL,
        OpCode::MULTI,
    ];
    for op in types {
        assert!(seen.contains(&op), "no {op}");
    }
    assert_eq!(bodiless, 2, "closeSession without its list, with a digest and without");
}

/// What stands behind SNAP on the wire, and behind the header of a file; returns the number of znodes.
fn check_snapshot_body(reader: &mut Reader<'_>, again: &mut BytesMut) -> usize {
    let sessions: Vec<SnapshotSession> = reader.vector("sessions").unwrap().unwrap();
    zk_jute::Field::encode_field(&sessions, again);
    let acls: Vec<SnapshotAcl> = reader.vector("acls").unwrap().unwrap();
    zk_jute::Field::encode_field(&acls, again);
    let mut nodes = 0;
    loop {
        let before = reader.remaining();
        let mut probe = again.clone();
        let Ok(node) = SnapshotNode::parse(reader) else {
            panic!("no node at {before} bytes before the end")
        };
        node.encode(&mut probe);
        *again = probe;
        nodes += 1;
        assert!(acls.iter().any(|acl| acl.key == node.acl_key) || node.acl_key == -1);
        if reader.peek_int() == Some(1) {
            // A path of one byte: the end.
            let end = reader.string("path").unwrap().unwrap();
            assert_eq!(end, "/");
            zk_jute::put_string(again, &end);
            return nodes;
        }
    }
}

#[test]
fn snapshots() {
    let mut sections = BTreeSet::new();
    for vector in read("snapshot") {
        assert_eq!(vector.kind, "Snapshot");
        let total = vector.bytes.len();
        let mut reader = Reader::new(&vector.bytes);
        let mut again = BytesMut::new();
        let header = FileHeader::parse(&mut reader).unwrap();
        assert_eq!(header, FileHeader::SNAPSHOT);
        header.encode(&mut again);
        let nodes = check_snapshot_body(&mut reader, &mut again);
        assert!(nodes > 3, "{nodes} znodes");

        let seal = |reader: &mut Reader<'_>, again: &mut BytesMut| {
            let sum = adler32(ADLER32_START, &vector.bytes[..total - reader.remaining()]);
            let seal = Seal::parse(reader).unwrap();
            assert_eq!(seal, Seal { checksum: i64::from(sum), end: "/".into() }, "{}", at(&vector));
            seal.encode(again);
        };
        seal(&mut reader, &mut again);
        let left = reader.remaining();
        sections.insert(left);
        if left == 33 || left == 54 {
            let digest = SnapshotDigest::parse(&mut reader).unwrap();
            assert_eq!(digest.version, 2);
            digest.encode(&mut again);
            seal(&mut reader, &mut again);
        }
        if left == 21 || left == 54 {
            let last = reader.long("lastZxid").unwrap();
            assert_eq!(format!("\"snapshot.{last:x}\""), format!("\"{}\"", vector.fields[0].1));
            zk_jute::put_long(&mut again, last);
            seal(&mut reader, &mut again);
        }
        reader.finish("snapshot").unwrap();
        assert_eq!(again, vector.bytes);
    }
    assert_eq!(sections, BTreeSet::from([0, 33, 54]), "with and without the optional sections");
}

fn decode_as<T: Record + Debug>(data: &Bytes) -> String {
    let record = T::decode(data).unwrap();
    assert_eq!(record.to_bytes(), data);
    format!("{record:?}")
}

/// The data of a packet, as `Debug` shows it.
fn packet_data(packet: &QuorumPacket, from_leader: bool) -> String {
    let Some(data) = &packet.data else { return String::new() };
    match packet.packet_type {
        PacketType::FOLLOWER_INFO | PacketType::OBSERVER_INFO => decode_as::<LearnerInfo>(data),
        PacketType::LEADER_INFO => decode_as::<LeaderInfo>(data),
        PacketType::ACK_EPOCH => decode_as::<AckEpoch>(data),
        PacketType::PROPOSAL | PacketType::INFORM => format!("{:?}", check_entry(data)),
        PacketType::COMMIT_AND_ACTIVATE => decode_as::<DesignatedLeader>(data),
        PacketType::INFORM_AND_ACTIVATE => {
            let mut reader = Reader::new(data);
            let leader = DesignatedLeader::parse(&mut reader).unwrap();
            format!("{leader:?} {:?}", check_entry(&reader.take_rest()))
        }
        PacketType::REQUEST => decode_as::<ForwardedRequest>(data),
        PacketType::PING => {
            let sessions = decode_touched_sessions(data).unwrap();
            let again: Vec<u8> = sessions.iter().flat_map(|session| session.to_bytes()).collect();
            assert_eq!(again, data[..]);
            format!("{sessions:?}")
        }
        PacketType::REVALIDATE if from_leader => decode_as::<SessionValid>(data),
        PacketType::REVALIDATE => decode_as::<SessionTimeout>(data),
        PacketType::NEW_LEADER => {
            let config = String::from_utf8(data.to_vec()).unwrap();
            assert!(config.contains("server.1=") && config.contains("version="), "{config}");
            String::new()
        }
        other => panic!("{other} with data"),
    }
}

#[test]
fn quorum_packets() {
    let mut seen = BTreeSet::new();
    for vector in read("quorum") {
        if vector.kind == "SnapshotStream" {
            let mut reader = Reader::new(&vector.bytes);
            let mut again = BytesMut::new();
            check_snapshot_body(&mut reader, &mut again);
            reader.finish("snapshot").unwrap();
            assert_eq!(again, vector.bytes);
            continue;
        }
        let packet = QuorumPacket::decode(&vector.bytes)
            .unwrap_or_else(|error| panic!("{}: {error}", at(&vector)));
        let data = packet_data(&packet, vector.name.contains("leader to learner"));
        vector.check_fields(&format!("{packet:?} {data}"));
        assert_eq!(packet.to_bytes(), vector.bytes, "{}", at(&vector));
        if packet.packet_type == PacketType::REQUEST {
            let forwarded = ForwardedRequest::decode(&packet.data.unwrap()).unwrap();
            let decodes = Request::decode(forwarded.op, &forwarded.body);
            assert_eq!(decodes.is_err(), forwarded.op == OpCode::CREATE_SESSION, "{}", at(&vector));
        }
        seen.insert(packet.packet_type);
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), PacketType::ALL, "every type once");
    assert_eq!(SNAPSHOT_SIGNATURE.len(), 10);
}

#[test]
fn elections() {
    let mut states = BTreeSet::new();
    for vector in read("election") {
        match vector.kind.as_str() {
            "ElectionHello" => check::<ElectionHello>(&vector),
            "Notification" => {
                let notification = Notification::decode(&vector.bytes).unwrap();
                vector.check_fields(&format!("{notification:?}"));
                assert_eq!(encoded(|out| notification.encode(out)), vector.bytes);
                states.insert(notification.state);
            }
            _ => panic!("{}", at(&vector)),
        }
    }
    assert_eq!(states.len(), 4, "every state: {states:?}");
}

#[test]
fn a_client_cannot_send_what_is_internal() {
    for op in
        [OpCode::CREATE_SESSION, OpCode::DELETE_CONTAINER, OpCode::ERROR, OpCode::NOTIFICATION]
    {
        let error = Request::decode(op, &Bytes::from_static(&[0; 64]));
        assert_eq!(error, Err(RequestError::UnknownOp(op)));
    }
}

#[test]
fn a_truncated_request_names_its_field() {
    let vector = read("requests").into_iter().find(|vector| vector.kind == "Request").unwrap();
    let (header, body) = split_request(&vector);
    let error = Request::decode(header.op, &body.slice(..2)).unwrap_err();
    let RequestError::Body(error) = error else { panic!("{error:?}") };
    assert_eq!((error.field, error.kind), ("path", DecodeErrorKind::Truncated));
}
