//! The stream behind `SNAP`: as Apache's leader wrote it, as we write it, and what is no such stream.

use std::sync::Arc;

use bytes::{Buf as _, Bytes, BytesMut};
use zk_proto::acl::{Acl, Id, Perms};
use zk_proto::data::StatPersisted;
use zk_proto::persistence::{SnapshotAcl, SnapshotNode, SnapshotSession};
use zk_proto::snapshot::{
    FileTrailer, OPEN_ACL_KEY, SnapshotAcls, SnapshotDecoder, SnapshotEncoder, SnapshotError,
    SnapshotItem, SnapshotZnode,
};
use zk_proto::{DecodeError, DecodeErrorKind, Reader, Record, SessionId};
use zk_testkit::{Prng, property, vectors};

const LEN_MAX: usize = 1 << 20;

/// Everything up to the end, fed in pieces whose lengths `piece` says, and what is left over.
fn decode(
    stream: &[u8],
    mut piece: impl FnMut() -> usize,
) -> Result<(Vec<SnapshotItem>, Bytes), SnapshotError> {
    let mut decoder = SnapshotDecoder::new(LEN_MAX);
    let (mut items, mut input, mut rest) = (Vec::new(), BytesMut::new(), stream);
    loop {
        match decoder.decode(&mut input)? {
            Some(SnapshotItem::End) => {
                input.extend_from_slice(rest);
                return Ok((items, input.freeze()));
            }
            Some(item) => items.push(item),
            None => {
                assert!(!rest.is_empty(), "the stream should be whole");
                let (next, later) = rest.split_at(piece().min(rest.len()));
                input.extend_from_slice(next);
                rest = later;
            }
        }
    }
}

fn encode(items: &[SnapshotItem]) -> Bytes {
    let mut acls = SnapshotAcls::default();
    let mut sessions = 0;
    for item in items {
        match item {
            SnapshotItem::Session(_) => sessions += 1,
            SnapshotItem::Znode(znode) => {
                acls.insert(&znode.acl);
            }
            SnapshotItem::End => panic!("the end is not an item to write"),
        }
    }
    let lookup = acls.clone();
    let mut out = BytesMut::new();
    let mut encoder = SnapshotEncoder::new(sessions, &acls, &mut out);
    for item in items {
        match item {
            SnapshotItem::Session(SnapshotSession { session_id, timeout_ms }) => {
                encoder.session(*session_id, *timeout_ms, &mut out);
            }
            SnapshotItem::Znode(SnapshotZnode { path, data, acl, stat }) => {
                let key = lookup.clone().insert(acl);
                encoder.znode(path, data.as_deref(), key, stat, &mut out);
            }
            SnapshotItem::End => {}
        }
    }
    encoder.finish(&mut out);
    out.freeze()
}

/// What stands in the stream, read by the records alone.
fn expected(stream: &Bytes) -> Vec<SnapshotItem> {
    let mut reader = Reader::new(stream);
    let sessions: Vec<SnapshotSession> = reader.vector("sessions").unwrap().unwrap();
    let mut items: Vec<_> = sessions.into_iter().map(SnapshotItem::Session).collect();
    let acls: Vec<SnapshotAcl> = reader.vector("acls").unwrap().unwrap();
    while reader.remaining() > 19 {
        let SnapshotNode { path, data, acl_key, stat } = SnapshotNode::parse(&mut reader).unwrap();
        let path = if path.is_empty() { "/".to_owned() } else { path };
        let found = acls.iter().find(|entry| entry.key == acl_key);
        let acl = if acl_key == -1 { Acl::open() } else { found.unwrap().acl.clone() };
        items.push(SnapshotItem::Znode(SnapshotZnode { path, data, acl: acl.into(), stat }));
    }
    items
}

/// The recorded stream, and the recorded snapshots made into streams.
fn recorded() -> Vec<Bytes> {
    let read = |file| {
        vectors::read(format!("{}/testdata/{file}.txt", env!("CARGO_MANIFEST_DIR"))).into_iter()
    };
    let signature = b"\0\0\0\x0aBenWasHere";
    let streams = read("quorum").filter(|vector| vector.kind == "SnapshotStream").map(|vector| {
        // The recording ends before the signature.
        [&vector.bytes[..], signature].concat().into()
    });
    let files = read("snapshot").map(|vector| {
        let end = vector.bytes.windows(5).position(|bytes| bytes == b"\0\0\0\x01/").unwrap() + 5;
        [&vector.bytes[16..end], signature].concat().into()
    });
    streams.chain(files).collect()
}

#[test]
fn apaches_stream_reads_the_same_in_any_pieces_and_ours_says_the_same() {
    let recorded = recorded();
    assert!(recorded.len() >= 3);
    for stream in recorded {
        let expected = expected(&stream);
        assert!(expected.len() > 3);
        let with_packet = [&stream[..], b"packet"].concat();
        for piece in [1, 2, 3, 7, 64, 1000, usize::MAX] {
            let (items, left) = decode(&with_packet, || piece).unwrap();
            assert_eq!(items, expected, "in pieces of {piece}");
            assert_eq!(left, b"packet"[..]);
        }
        let ours = encode(&expected);
        assert_eq!(decode(&ours, || 50).unwrap().0, expected);
        // As short as theirs, or shorter by an entry that nobody needs.
        assert!(ours.len() <= stream.len());
    }
}

fn random_items(prng: &mut Prng) -> Vec<SnapshotItem> {
    let mut items = Vec::new();
    for _ in 0..prng.index(20) {
        let (session_id, timeout_ms) = (SessionId(prng.edgy_i64()), prng.edgy_i32());
        items.push(SnapshotItem::Session(SnapshotSession { session_id, timeout_ms }));
    }
    let acls: Vec<Arc<[Acl]>> = (0..5)
        .map(|_| {
            let entry = |prng: &mut Prng| Acl {
                perms: Perms(prng.edgy_i32()),
                id: Id { scheme: prng.string(8), id: prng.string(40) },
            };
            (0..prng.index(4)).map(|_| entry(prng)).collect()
        })
        .chain([Acl::open().into()])
        .collect();
    for index in 0..=prng.index(50) {
        let path = if index == 0 { "/".to_owned() } else { format!("/{}", prng.string(20)) };
        let data = prng.chance(80).then(|| {
            let len = prng.index(2000);
            prng.bytes(len).into()
        });
        let stat = StatPersisted {
            czxid: prng.edgy_i64(),
            version: prng.edgy_i32(),
            pzxid: prng.next_i64(),
            ..StatPersisted::default()
        };
        // The path "/" is the root's alone.
        if path != "/" || index == 0 {
            let acl = Arc::clone(prng.pick(&acls));
            items.push(SnapshotItem::Znode(SnapshotZnode { path, data, acl, stat }));
        }
    }
    items
}

#[test]
fn what_is_written_is_read_and_every_truncation_waits_for_more() {
    property("snapshot streams", |prng| {
        let items = random_items(prng);
        let stream = encode(&items);
        let with_more = [&stream[..], &[1, 2, 3]].concat();
        let max = 1 + prng.index(3000);
        let (found, left) = decode(&with_more, || 1 + prng.index(max)).unwrap();
        assert_eq!(found, items);
        assert_eq!(left, [1, 2, 3][..]);

        let cut = prng.index(stream.len());
        let mut decoder = SnapshotDecoder::new(LEN_MAX);
        let mut input = BytesMut::from(&stream[..cut]);
        let mut count = 0;
        while let Some(item) = decoder.decode(&mut input).unwrap() {
            assert_eq!(item, items[count]);
            count += 1;
        }
        // And goes on from there.
        input.extend_from_slice(&stream[cut..]);
        while let Some(item) = decoder.decode(&mut input).unwrap() {
            if item == SnapshotItem::End {
                break;
            }
            assert_eq!(item, items[count]);
            count += 1;
        }
        assert_eq!((count, input.len()), (items.len(), 0));
    });
}

/// A stream: no sessions, no ACLs, then this.
fn with_tail(tail: &[u8]) -> Vec<u8> {
    [&[0; 8], tail].concat()
}

fn node(path: &str, acl_key: i64) -> Bytes {
    let stat = StatPersisted::default();
    SnapshotNode { path: path.into(), data: None, acl_key, stat }.to_bytes()
}

fn error(stream: &[u8]) -> SnapshotError {
    decode(stream, || 1).unwrap_err()
}

fn field(field: &'static str, kind: DecodeErrorKind) -> SnapshotError {
    SnapshotError::Field(DecodeError::new(field, kind))
}

#[test]
fn what_is_no_snapshot_is_refused() {
    use DecodeErrorKind::{Count, Length, Null};
    let int = |value: i32| value.to_be_bytes();
    assert_eq!(error(&int(-2)), field("sessions", Count(-2)));
    assert_eq!(error(&[int(0), int(-1)].concat()), field("acls", Count(-1)));
    assert_eq!(error(&with_tail(&int(-1))), field("path", Null));
    assert_eq!(error(&with_tail(&int(i32::MIN))), field("path", Length(i32::MIN)));
    // Refused before any of it has come.
    assert_eq!(error(&with_tail(&int(1 << 21))), field("path", Length(1 << 21)));
    let long_data = [&int(0)[..], &int(i32::MAX)].concat();
    assert_eq!(error(&with_tail(&long_data)), field("data", Length(i32::MAX)));

    let end = b"\0\0\0\x01/";
    assert_eq!(error(&with_tail(end)), SnapshotError::Empty);
    assert_eq!(error(&with_tail(&node("/a", -1))), SnapshotError::Path("/a".into()));
    let root = node("", -1);
    assert_eq!(error(&with_tail(&[&root[..], &root].concat())), SnapshotError::Path(String::new()));
    for path in ["a", "x/y"] {
        let stream = with_tail(&[&root[..], &node(path, -1)].concat());
        assert_eq!(error(&stream), SnapshotError::Path(path.into()));
    }
    let stream = with_tail(&[&root[..], end, b"\0\0\0\x0aBenWasGone"].concat());
    assert_eq!(error(&stream), SnapshotError::Signature("BenWasGone".into()));
    let stream = with_tail(&[&root[..], end, &int(-1)].concat());
    assert_eq!(error(&stream), field("signature", Null));
}

#[test]
fn an_acl_is_limited_as_a_whole() {
    let key = 1_i64.to_be_bytes();
    let begin =
        |entries: i32| [&[0; 4][..], &1_i32.to_be_bytes(), &key, &entries.to_be_bytes()].concat();
    assert_eq!(error(&begin(-1)), field("acl", DecodeErrorKind::Count(-1)));
    let entry = Acl { perms: Perms::ALL, id: Id::new("digest", &"x".repeat(1000)) }.to_bytes();
    let mut stream = begin(i32::MAX);
    while stream.len() < 2 * LEN_MAX {
        stream.extend_from_slice(&entry);
    }
    let mut decoder = SnapshotDecoder::new(LEN_MAX);
    let (mut input, mut fed) = (BytesMut::new(), 0);
    let refused = loop {
        match decoder.decode(&mut input) {
            Ok(_) => {
                input.extend_from_slice(&stream[fed..fed + 100]);
                fed += 100;
            }
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, SnapshotError::Field(DecodeError { field: "acl", .. })));
    assert!(fed < LEN_MAX + 2000, "{fed} bytes were taken in");
}

#[test]
fn a_znode_without_its_acl_is_closed_until_transactions_say_more() {
    let end = b"\0\0\0\x01/\0\0\0\x0aBenWasHere";
    let stream = with_tail(&[&node("", -1)[..], &node("/a", 7), end].concat());
    let mut decoder = SnapshotDecoder::new(LEN_MAX);
    let mut input = BytesMut::from(&stream[..]);
    let mut next = || decoder.decode(&mut input).unwrap().unwrap();
    let SnapshotItem::Znode(root) = next() else { panic!() };
    assert_eq!(root.acl[..], Acl::open());
    let SnapshotItem::Znode(znode) = next() else { panic!() };
    assert!(znode.acl.iter().all(|entry| entry.perms == Perms(0)) && !znode.acl.is_empty());
    assert_eq!(next(), SnapshotItem::End);
    assert_eq!((decoder.missing_acls(), input.remaining()), (1, 0));
}

#[test]
fn acls_get_keys_once() {
    let mut acls = SnapshotAcls::default();
    assert_eq!(acls.insert(&Acl::open()), OPEN_ACL_KEY);
    assert_eq!(acls.insert_encoded(b""), OPEN_ACL_KEY);
    assert!(acls.is_empty());
    assert_eq!((acls.insert(&Acl::read_only()), acls.insert(&Acl::creator_all())), (1, 2));
    let mut encoded = BytesMut::new();
    zk_proto::Field::encode_field(&Acl::read_only(), &mut encoded);
    assert_eq!(acls.insert_encoded(&encoded), 1);
    assert_eq!(acls.key_of_encoded(&encoded), Some(1));
    assert_eq!((acls.key_of_encoded(b"x"), acls.key_of_encoded(b"")), (None, Some(OPEN_ACL_KEY)));
    assert_eq!(acls.len(), 2);
}

/// A file's items, what stands behind them, and the checksum.
fn decode_file(file: &[u8], piece: usize) -> Result<(usize, FileTrailer), String> {
    let mut decoder = SnapshotDecoder::in_file(LEN_MAX);
    let (mut input, mut items) = (BytesMut::new(), 0);
    let mut pieces = file.chunks(piece);
    loop {
        match decoder.decode(&mut input).map_err(|error| error.to_string())? {
            Some(SnapshotItem::End) => break,
            Some(_) => items += 1,
            None => input.extend_from_slice(pieces.next().ok_or("it is not whole")?),
        }
    }
    pieces.for_each(|piece| input.extend_from_slice(piece));
    let trailer = FileTrailer::parse(decoder.checksum(), &input.freeze());
    trailer.map(|trailer| (items, trailer)).map_err(|error| error.to_string())
}

#[test]
fn apaches_files_read_with_what_their_trailers_have() {
    let files = vectors::read(format!("{}/testdata/snapshot.txt", env!("CARGO_MANIFEST_DIR")));
    let mut kinds = std::collections::BTreeSet::new();
    for vector in files.iter().filter(|vector| vector.kind == "Snapshot") {
        let (items, trailer) = decode_file(&vector.bytes, usize::MAX).unwrap();
        assert!(items > 3);
        kinds.insert((trailer.digest.is_some(), trailer.last_zxid.is_some()));
        for piece in [1, 5, 64] {
            assert_eq!(decode_file(&vector.bytes, piece), Ok((items, trailer)));
        }
        for cut in 0..vector.bytes.len() {
            // Where a seal ends, a file may end, too: it is an older release's.
            if let Ok((_, shorter)) = decode_file(&vector.bytes[..cut], usize::MAX) {
                assert!(shorter.last_zxid.is_none() && trailer != shorter, "cut at {cut}");
            }
        }
        for at in 0..vector.bytes.len() {
            let mut damaged = vector.bytes.to_vec();
            damaged[at] ^= 4;
            if let Ok((_, found)) = decode_file(&damaged, usize::MAX) {
                // Of a seal, only the string behind it: nobody reads that.
                assert_eq!((found, vector.bytes[at]), (trailer, b'/'), "byte {at}");
            }
        }
    }
    assert!(kinds.contains(&(true, true)), "{kinds:?}");
}
