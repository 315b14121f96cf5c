//! Random records: what is encoded comes back, whatever is cut off is missed.

use std::fmt::Debug;

use bytes::{Bytes, BytesMut};
use zk_proto::acl::{Acl, Id, Perms};
use zk_proto::connect::{ConnectRequest, ConnectResponse};
use zk_proto::create_mode::{CreateMode, ExtendedTypes, OwnerKind, TTL_MAX_MS};
use zk_proto::data::{ClientInfo, Stat, StatPersisted};
use zk_proto::multi::{
    MultiHeader, MultiOp, MultiReadOp, MultiRequest, MultiResponse, MultiResult,
};
use zk_proto::persistence::*;
use zk_proto::proto::*;
use zk_proto::quorum::*;
use zk_proto::txn::*;
use zk_proto::{
    Buffer, DecodeErrorKind, Epoch, ErrorCode, Field, OpCode, Reader, Record, Request, ServerId,
    SessionId, Xid, Zxid, path,
};
use zk_testkit::{Prng, property};

/// Something of this type.
trait Any: Sized {
    fn any(prng: &mut Prng) -> Self;
}

macro_rules! any {
    ($($type:ty: |$prng:ident| $value:expr;)*) => {$(
        impl Any for $type {
            fn any($prng: &mut Prng) -> Self {
                $value
            }
        }
    )*};
}

any! {
    i32: |p| p.edgy_i32();
    i64: |p| p.edgy_i64();
    bool: |p| p.chance(50);
    String: |p| p.string(12);
    Bytes: |p| { let len = p.index(20); p.bytes(len).into() };
    Perms: |p| Perms(p.edgy_i32());
    Xid: |p| Xid(p.edgy_i32());
    Zxid: |p| Zxid(p.edgy_i64());
    SessionId: |p| SessionId(p.edgy_i64());
    ServerId: |p| ServerId(p.edgy_i64());
    OpCode: |p| OpCode(p.edgy_i32());
    ErrorCode: |p| ErrorCode(p.edgy_i32());
    PacketType: |p| PacketType(p.edgy_i32());
    MultiOp: |p| match p.below(5) {
        // Only what a header can say: the flag decides which of the creates it is.
        0 => {
            let (op, flags) = *p.pick(&[
                (OpCode::CREATE, 0), (OpCode::CREATE, 1), (OpCode::CREATE2, 2), (OpCode::CREATE2, 3),
                (OpCode::CREATE_CONTAINER, 4),
            ]);
            MultiOp::Create { op, request: CreateRequest { flags, ..Any::any(p) } }
        }
        1 => MultiOp::CreateTtl(CreateTtlRequest { flags: *p.pick(&[5, 6]), ..Any::any(p) }),
        2 => MultiOp::Delete(Any::any(p)),
        3 => MultiOp::SetData(Any::any(p)),
        _ => MultiOp::Check(Any::any(p)),
    };
    MultiReadOp: |p| if p.chance(50) {
        MultiReadOp::GetData(Any::any(p))
    } else {
        MultiReadOp::GetChildren(Any::any(p))
    };
    MultiRequest: |p| if p.chance(70) {
        MultiRequest::Write(Any::any(p))
    } else {
        let mut reads: Vec<MultiReadOp> = Any::any(p);
        reads.push(Any::any(p)); // no reads at all are no writes
        MultiRequest::Read(reads)
    };
    MultiResult: |p| match p.below(8) {
        0 => MultiResult::Create(Any::any(p)),
        1 => MultiResult::Create2(Any::any(p), Any::any(p)),
        2 => MultiResult::Delete,
        3 => MultiResult::Check,
        4 => MultiResult::SetData(Any::any(p)),
        5 => MultiResult::GetData(Any::any(p), Any::any(p)),
        6 => MultiResult::GetChildren(Any::any(p)),
        _ => MultiResult::Error(Any::any(p)),
    };
    MultiResponse: |p| MultiResponse(Any::any(p));
}

impl<T: Any> Any for Vec<T> {
    fn any(prng: &mut Prng) -> Self {
        (0..prng.index(4)).map(|_| T::any(prng)).collect()
    }
}

impl<T: Any> Any for Option<T> {
    fn any(prng: &mut Prng) -> Self {
        prng.chance(75).then(|| T::any(prng))
    }
}

macro_rules! any_record {
    ($($name:ident { $($field:ident),* })*) => {
        $(impl Any for $name {
            fn any(prng: &mut Prng) -> Self {
                Self { $($field: Any::any(prng)),* }
            }
        })*

        #[test]
        fn every_record_survives_a_round_trip_and_no_truncation() {
            property("records", |prng| {
                $(check::<$name>(prng);)*
            });
        }
    };
}

/// Round trip, the lower bound of its length, and every truncation.
fn check<T: Any + Record + Field + PartialEq + Debug>(prng: &mut Prng) {
    let record = T::any(prng);
    let bytes = record.to_bytes();
    assert_eq!(T::decode(&bytes).as_ref(), Ok(&record));
    assert!(bytes.len() >= T::MIN_LEN, "{} can be shorter than its MIN_LEN", T::NAME);
    let mut as_field = BytesMut::new();
    record.encode_field(&mut as_field);
    assert_eq!(as_field, bytes);
    for len in 0..bytes.len() {
        assert!(T::decode(&bytes.slice(..len)).is_err(), "{}: {len} of {record:?}", T::NAME);
    }
    let mut longer = BytesMut::from(&bytes[..]);
    longer.extend_from_slice(b"\0");
    let error = T::decode(&longer.freeze()).unwrap_err();
    assert_eq!(error.kind, DecodeErrorKind::Trailing(1), "{}", T::NAME);
}

any_record! {
    Id { scheme, id }
    Acl { perms, id }
    Stat { czxid, mzxid, ctime, mtime, version, cversion, aversion, ephemeral_owner, data_length, num_children, pzxid }
    StatPersisted { czxid, mzxid, ctime, mtime, version, cversion, aversion, ephemeral_owner, pzxid }
    ClientInfo { auth_scheme, user }
    RequestHeader { xid, op }
    ReplyHeader { xid, zxid, err }
    CreateRequest { path, data, acl, flags }
    CreateTtlRequest { path, data, acl, flags, ttl }
    CreateResponse { path }
    Create2Response { path, stat }
    DeleteRequest { path, version }
    DeleteContainerRequest { path }
    ExistsRequest { path, watch }
    ExistsResponse { stat }
    GetDataRequest { path, watch }
    GetDataResponse { data, stat }
    SetDataRequest { path, data, version }
    SetDataResponse { stat }
    GetAclRequest { path }
    GetAclResponse { acl, stat }
    SetAclRequest { path, acl, version }
    SetAclResponse { stat }
    GetChildrenRequest { path, watch }
    GetChildrenResponse { children }
    GetChildren2Request { path, watch }
    GetChildren2Response { children, stat }
    SyncRequest { path }
    SyncResponse { path }
    CheckVersionRequest { path, version }
    ReconfigRequest { joining_servers, leaving_servers, new_members, cur_config_id }
    CheckWatchesRequest { path, watcher_type }
    RemoveWatchesRequest { path, watcher_type }
    AddWatchRequest { path, mode }
    ErrorResponse { err }
    SetWatches { relative_zxid, data_watches, exist_watches, child_watches }
    SetWatches2 { relative_zxid, data_watches, exist_watches, child_watches, persistent_watches, persistent_recursive_watches }
    GetEphemeralsRequest { prefix_path }
    GetEphemeralsResponse { ephemerals }
    GetAllChildrenNumberRequest { path }
    GetAllChildrenNumberResponse { total_number }
    WhoAmIResponse { client_info }
    AuthPacket { auth_type, scheme, auth }
    GetSaslRequest { token }
    SetSaslResponse { token }
    WatcherEvent { event_type, state, path }
    MultiHeader { op, done, err }
    TxnHeader { client_id, cxid, zxid, time, op }
    TxnDigest { version, tree_digest }
    CreateSessionTxn { timeout_ms }
    CloseSessionTxn { paths_to_delete }
    ErrorTxn { err }
    CreateTxn { path, data, acl, ephemeral, parent_cversion }
    CreateTxnV0 { path, data, acl, ephemeral }
    CreateContainerTxn { path, data, acl, parent_cversion }
    CreateTtlTxn { path, data, acl, parent_cversion, ttl }
    DeleteTxn { path }
    SetDataTxn { path, data, version }
    SetAclTxn { path, acl, version }
    CheckVersionTxn { path, version }
    SubTxn { op, body }
    MultiTxnRecord { txns }
    QuorumPacket { packet_type, zxid, data, authinfo }
    LearnerInfo { server_id, protocol_version, config_version }
    LeaderInfo { protocol_version }
    AckEpoch { current_epoch }
    SessionTimeout { session_id, timeout_ms }
    SessionValid { session_id, valid }
    DesignatedLeader { designated_leader }
    FileHeader { magic, version, dbid }
    SnapshotSession { session_id, timeout_ms }
    SnapshotAcl { key, acl }
    SnapshotNode { path, data, acl_key, stat }
    SnapshotDigest { zxid, version, digest }
    Seal { checksum, end }
}

#[test]
fn multis_survive_a_round_trip_and_no_truncation() {
    fn check<T: Any + Record + PartialEq + Debug>(prng: &mut Prng) {
        let record = T::any(prng);
        let bytes = record.to_bytes();
        assert_eq!(T::decode(&bytes).as_ref(), Ok(&record));
        for len in 0..bytes.len() {
            assert!(T::decode(&bytes.slice(..len)).is_err(), "{len} of {record:?}");
        }
    }
    property("multis", |prng| {
        check::<MultiRequest>(prng);
        check::<MultiResponse>(prng);
    });
}

#[test]
fn a_multi_does_not_mix_reads_and_writes() {
    property("mixed multis", |prng| {
        let (mut write, read) =
            (BytesMut::new(), MultiRequest::Read(vec![Any::any(prng)]).to_bytes());
        MultiRequest::Write(vec![Any::any(prng)]).encode(&mut write);
        let header_len = 9;
        write.truncate(write.len() - header_len); // without its end
        write.extend_from_slice(&read);
        assert!(MultiRequest::decode(&write.freeze()).is_err());
    });
}

#[test]
fn creates_in_a_multi_are_what_their_flag_says() {
    for code in -1..9 {
        for op in [OpCode::CREATE, OpCode::CREATE2, OpCode::CREATE_CONTAINER] {
            let request =
                CreateRequest { path: "/a".into(), data: None, acl: Acl::open(), flags: code };
            let bytes = MultiRequest::Write(vec![MultiOp::Create { op, request }]).to_bytes();
            let decoded = MultiRequest::decode(&bytes);
            let Some(mode) = CreateMode::from_flag(code) else {
                assert_eq!(decoded.unwrap_err().kind, DecodeErrorKind::Unknown(code));
                continue;
            };
            if mode.is_ttl() {
                assert_eq!(decoded.unwrap_err().kind, DecodeErrorKind::Unknown(code), "no TTL");
                continue;
            }
            let Ok(MultiRequest::Write(ops)) = decoded else { panic!("{decoded:?}") };
            let [decoded] = &ops[..] else { panic!("{ops:?}") };
            let expected =
                if mode == CreateMode::Container { OpCode::CREATE_CONTAINER } else { op };
            assert_eq!(decoded.op(), expected, "{op} with {mode:?}");
        }
    }
}

#[test]
fn handshakes_survive_a_round_trip_with_and_without_their_last_field() {
    property("handshakes", |prng| {
        let request = ConnectRequest {
            protocol_version: Any::any(prng),
            last_zxid_seen: Any::any(prng),
            timeout_ms: Any::any(prng),
            session_id: Any::any(prng),
            password: Any::any(prng),
            read_only: Any::any(prng),
        };
        let bytes = request.to_bytes();
        assert_eq!(ConnectRequest::decode(&bytes).as_ref(), Ok(&request));
        // Cut off the last field and it is an old client's; cut off more and it is none.
        let old_len = bytes.len() - usize::from(request.read_only.is_some());
        let old = ConnectRequest::decode(&bytes.slice(..old_len)).unwrap();
        assert_eq!(old, ConnectRequest { read_only: None, ..request });
        for len in 0..old_len {
            assert!(ConnectRequest::decode(&bytes.slice(..len)).is_err());
        }
        let response = ConnectResponse {
            protocol_version: Any::any(prng),
            timeout_ms: Any::any(prng),
            session_id: Any::any(prng),
            password: Any::any(prng),
            read_only: Any::any(prng),
        };
        assert_eq!(ConnectResponse::decode(&response.to_bytes()), Ok(response));
    });
}

fn any_txn(prng: &mut Prng, nested: bool) -> (OpCode, Txn) {
    match prng.below(if nested { 10 } else { 11 }) {
        0 => (OpCode::CREATE_SESSION, Txn::CreateSession(Any::any(prng))),
        1 => (OpCode::CLOSE_SESSION, Txn::CloseSession(Any::any(prng))),
        2 => (OpCode::ERROR, Txn::Error(Any::any(prng))),
        3 => (*prng.pick(&[OpCode::CREATE, OpCode::CREATE2]), Txn::Create(Any::any(prng))),
        4 => (OpCode::CREATE_CONTAINER, Txn::CreateContainer(Any::any(prng))),
        5 => (OpCode::CREATE_TTL, Txn::CreateTtl(Any::any(prng))),
        6 => (*prng.pick(&[OpCode::DELETE, OpCode::DELETE_CONTAINER]), Txn::Delete(Any::any(prng))),
        7 => (*prng.pick(&[OpCode::SET_DATA, OpCode::RECONFIG]), Txn::SetData(Any::any(prng))),
        8 => (OpCode::SET_ACL, Txn::SetAcl(Any::any(prng))),
        9 => (OpCode::CHECK, Txn::Check(Any::any(prng))),
        _ => (OpCode::MULTI, Txn::Multi((0..prng.index(5)).map(|_| any_txn(prng, true)).collect())),
    }
}

#[test]
fn logged_transactions_survive_a_round_trip() {
    property("transactions", |prng| {
        for _ in 0..20 {
            let (op, txn) = any_txn(prng, false);
            let digest: Option<i64> = Any::any(prng);
            let digest =
                digest.map(|tree_digest| TxnDigest { version: TxnDigest::VERSION, tree_digest });
            let entry = LoggedTxn { header: TxnHeader { op, ..Any::any(prng) }, txn, digest };
            let mut out = BytesMut::new();
            entry.encode(&mut out);
            assert_eq!(LoggedTxn::decode(&out.freeze()), Ok(entry));
        }
    });
}

#[test]
fn a_create_of_before_3_3_has_no_parent_cversion() {
    let old = CreateTxnV0 {
        path: "/a".into(),
        data: Some(Bytes::from_static(b"x")),
        acl: Acl::open(),
        ephemeral: true,
    };
    let mut out = BytesMut::new();
    let header = TxnHeader {
        client_id: SessionId(1),
        cxid: Xid(2),
        zxid: Zxid(3),
        time: 4,
        op: OpCode::CREATE,
    };
    header.encode(&mut out);
    old.encode(&mut out);
    let entry = LoggedTxn::decode(&out.freeze()).unwrap();
    let Txn::Create(create) = entry.txn else { panic!("{entry:?}") };
    assert_eq!((create.parent_cversion, create.ephemeral), (-1, true));
    assert_eq!(entry.digest, None);
}

#[test]
fn a_multi_in_a_multi_is_refused() {
    let mut out = BytesMut::new();
    Txn::Multi(vec![(OpCode::MULTI, Txn::Multi(Vec::new()))]).encode(&mut out);
    let body = out.freeze();
    let error = Txn::parse(OpCode::MULTI, &mut Reader::new(&body)).unwrap_err();
    assert_eq!(error.kind, DecodeErrorKind::Unknown(OpCode::MULTI.0));
}

#[test]
fn what_stands_behind_a_request_is_ignored() {
    property("longer requests", |prng| {
        let body: ExistsRequest = Any::any(prng);
        let mut out = BytesMut::from(&body.to_bytes()[..]);
        out.extend(prng.bytes(5));
        assert_eq!(Request::decode(OpCode::EXISTS, &out.freeze()), Ok(Request::Exists(body)));
    });
}

#[test]
fn null_strings_and_vectors_are_empty_where_that_is_said() {
    let null = Bytes::from_static(&[0xff; 8]);
    assert_eq!(Id::decode(&null), Ok(Id::new("", "")));
    let children = GetChildrenResponse::decode(&null.slice(..4)).unwrap().children;
    assert!(children.is_empty());
    let path = GetAclRequest::decode(&null.slice(..4)).unwrap_err();
    assert_eq!(path.kind, DecodeErrorKind::Null);
    assert_eq!(SyncRequest::decode(&null.slice(..4)), Ok(SyncRequest { path: None }));
    assert_eq!(
        GetSaslRequest::decode(&null.slice(..4)),
        Ok(GetSaslRequest { token: Buffer::None })
    );
}

#[test]
fn zxids_are_ordered_by_epoch_then_counter() {
    property("zxids", |prng| {
        let mut draw = || {
            let epoch = Epoch(prng.edgy_i32() & i32::MAX);
            (epoch, if prng.chance(50) { prng.next_u32() } else { u32::MAX - 1 })
        };
        let (a, b) = (draw(), draw());
        let (x, y) = (Zxid::new(a.0, a.1), Zxid::new(b.0, b.1));
        assert_eq!((x.epoch(), x.counter()), a);
        assert_eq!(x.cmp(&y), a.cmp(&b));
        if a.1 != u32::MAX {
            assert_eq!(x.next(), Zxid::new(a.0, a.1 + 1));
        }
    });
}

#[test]
fn owner_fields_are_read_as_they_were_made() {
    property("owners", |prng| {
        for types in [ExtendedTypes::Disabled, ExtendedTypes::Enabled, ExtendedTypes::Emulate353] {
            let ttl = 1 + prng.next_i64().rem_euclid(TTL_MAX_MS);
            match types.ttl_owner(ttl) {
                None => assert_eq!(types, ExtendedTypes::Disabled),
                Some(owner) => assert_eq!(types.kind(owner), OwnerKind::Ttl(ttl)),
            }
            // A session of a server below 255, in its first half of a century.
            let session = (1 << 56) | (prng.next_i64() & ((1 << 55) - 1));
            assert_eq!(types.kind(session), OwnerKind::Session(session));
        }
    });
}

/// `PathUtils.validatePath`, in its own way: over UTF-16 units, one at a time.
fn is_valid_by_units(path: &str) -> bool {
    let units: Vec<u16> = path.encode_utf16().collect();
    let slash = u16::from(b'/');
    if units.first() != Some(&slash) {
        return false;
    }
    if units.len() == 1 {
        return true;
    }
    if units.last() == Some(&slash) {
        return false;
    }
    let segments_are_named = units[1..].split(|&unit| unit == slash).all(|segment| {
        let text = String::from_utf16_lossy(segment);
        !matches!(text.as_str(), "" | "." | "..")
    });
    let units_are_allowed = units
        .iter()
        .all(|unit| !matches!(unit, 0..=0x1f | 0x7f..=0x9f | 0xd800..=0xf8ff | 0xfff0..=0xffff));
    segments_are_named && units_are_allowed
}

#[test]
fn paths_are_judged_as_upstream_judges_them() {
    property("paths", |prng| {
        for _ in 0..200 {
            let mut text =
                if prng.chance(50) { prng.path(4) } else { format!("/{}", prng.string(8)) };
            if prng.chance(50) {
                let c = char::from_u32(prng.next_u32() % 0x1_1000).unwrap_or('.');
                text.push(c);
            }
            assert_eq!(path::is_valid(&text), is_valid_by_units(&text), "{text:?}");
        }
    });
    for code in 0..0x11_0000 {
        if let Some(c) = char::from_u32(code) {
            let text = format!("/a{c}b");
            assert_eq!(path::is_valid(&text), is_valid_by_units(&text), "{text:?}");
        }
    }
}
