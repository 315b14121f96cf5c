//! What the fuzzer runs, and what `fuzz_smoke.rs` runs on mutated packets in the normal tests: each
//! function takes bytes from a stranger, and panics only if the codec is wrong.

#![allow(unreachable_pub, reason = "shared with the fuzz crate")]

use bytes::{Bytes, BytesMut};
use zk_proto::connect::{ConnectRequest, ConnectResponse};
use zk_proto::log_file::{LogDecoder, LogEnd, LogFileError, LogItem};
use zk_proto::multi::{MultiRequest, MultiResponse};
use zk_proto::persistence::{FileHeader, SnapshotAcl, SnapshotNode};
use zk_proto::proto::{ReplyHeader, RequestHeader};
use zk_proto::quorum::{
    ElectionHello, ForwardedRequest, LearnerInfo, Notification, QuorumPacket,
    decode_touched_sessions,
};
use zk_proto::snapshot::{FileTrailer, SnapshotDecoder, SnapshotError, SnapshotItem};
use zk_proto::txn::{LoggedTxn, Txn};
use zk_proto::{Reader, Record, Request, path};

/// No field of a stream takes more.
const LEN_MAX: usize = 10_000;

/// A target's name and function.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const ALL: &[Target] = &[
    ("connect", connect),
    ("request", request),
    ("multi", multi),
    ("txn", txn),
    ("quorum", quorum),
    ("election", election),
    ("snapshot", snapshot),
    ("log_file", log_file),
    ("path", path_rules),
];

/// What was decoded must survive its own encoding: the first decoding may normalise (null vectors,
/// booleans, malformed UTF-8), the second must not.
fn survives<T: Record + PartialEq + std::fmt::Debug>(frame: &Bytes) {
    let mut reader = Reader::new(frame);
    if let Ok(record) = T::parse(&mut reader) {
        let again = record.to_bytes();
        assert_eq!(T::decode(&again).as_ref(), Ok(&record), "{} is not what it was", T::NAME);
    }
}

/// Both sides of the handshake.
pub fn connect(data: &[u8]) {
    let frame = Bytes::copy_from_slice(data);
    survives::<ConnectRequest>(&frame);
    survives::<ConnectResponse>(&frame);
}

/// A request behind its header.
pub fn request(data: &[u8]) {
    let frame = Bytes::copy_from_slice(data);
    let mut reader = Reader::new(&frame);
    let Ok(header) = RequestHeader::parse(&mut reader) else { return };
    let Ok(request) = Request::decode(header.op, &reader.take_rest()) else { return };
    assert_eq!(request.op(), header.op);
    let mut again = BytesMut::new();
    request.encode(&mut again);
    assert_eq!(Request::decode(header.op, &again.freeze()).as_ref(), Ok(&request));
}

/// multi's lists, of requests and of results, with their headers.
pub fn multi(data: &[u8]) {
    let frame = Bytes::copy_from_slice(data);
    for header_len in [0, 8, 16] {
        if header_len <= frame.len() {
            survives::<MultiRequest>(&frame.slice(header_len..));
            survives::<MultiResponse>(&frame.slice(header_len..));
        }
    }
    survives::<ReplyHeader>(&frame);
}

/// An entry of the log.
pub fn txn(data: &[u8]) {
    let frame = Bytes::copy_from_slice(data);
    if let Ok(entry) = LoggedTxn::decode(&frame) {
        // Two empty paths look like a digest; no session owns such znodes.
        if let Txn::CloseSession(Some(close)) = &entry.txn
            && close.paths_to_delete.iter().any(String::is_empty)
        {
            return;
        }
        let mut again = BytesMut::new();
        entry.encode(&mut again);
        assert_eq!(LoggedTxn::decode(&again.freeze()).as_ref(), Ok(&entry));
    }
}

/// A packet on the quorum port, and its data read as everything that it could be.
pub fn quorum(data: &[u8]) {
    let frame = Bytes::copy_from_slice(data);
    survives::<QuorumPacket>(&frame);
    let Ok(packet) = QuorumPacket::parse(&mut Reader::new(&frame)) else { return };
    let Some(data) = packet.data else { return };
    survives::<LearnerInfo>(&data);
    survives::<ForwardedRequest>(&data);
    let _ = LearnerInfo::decode_tolerantly(&data);
    if let Ok(sessions) = decode_touched_sessions(&data) {
        let again: Vec<u8> = sessions.iter().flat_map(|session| session.to_bytes()).collect();
        assert_eq!(again, data);
    }
    txn(&data);
}

/// Both kinds of message on the election port.
pub fn election(data: &[u8]) {
    let frame = Bytes::copy_from_slice(data);
    survives::<ElectionHello>(&frame);
    if let Ok(mut notification) = Notification::decode(&frame) {
        let mut again = BytesMut::new();
        notification.encode(&mut again);
        // Older formats come out as the current one.
        notification.version = Notification::VERSION;
        notification.config.get_or_insert_default();
        assert_eq!(Notification::decode(&again.freeze()).as_ref(), Ok(&notification));
    }
}

/// Parts of a snapshot, and the whole stream: it reads the same in pieces of any length.
pub fn snapshot(data: &[u8]) {
    for new in [SnapshotDecoder::new, SnapshotDecoder::in_file] {
        let whole = read_stream(new(LEN_MAX), data, data.len().max(1));
        assert_eq!(read_stream(new(LEN_MAX), data, 1 + data.len() % 23), whole);
        drop(FileTrailer::parse(1, &whole.2.into()));
    }
    let frame = Bytes::copy_from_slice(data);
    survives::<FileHeader>(&frame);
    survives::<SnapshotAcl>(&frame);
    survives::<SnapshotNode>(&frame);
}

/// The items of a stream, why it is none, and what is left over.
fn read_stream(
    mut decoder: SnapshotDecoder,
    data: &[u8],
    piece: usize,
) -> (Vec<SnapshotItem>, Option<SnapshotError>, Vec<u8>) {
    let (mut input, mut items) = (BytesMut::new(), Vec::new());
    let mut pieces = data.chunks(piece);
    loop {
        match decoder.decode(&mut input) {
            Ok(Some(item)) => {
                items.push(item);
                if items.last() == Some(&SnapshotItem::End) {
                    return (
                        items,
                        None,
                        [&input[..], &pieces.collect::<Vec<_>>().concat()].concat(),
                    );
                }
            }
            Ok(None) => match pieces.next() {
                Some(piece) => input.extend_from_slice(piece),
                None => return (items, None, input.to_vec()),
            },
            Err(error) => return (items, Some(error), Vec::new()),
        }
    }
}

/// A transaction log, which reads the same in pieces of any length: with the header that it should have,
/// and with what is there.
pub fn log_file(data: &[u8]) {
    let mut file = BytesMut::new();
    FileHeader::LOG.encode(&mut file);
    file.extend_from_slice(data);
    for file in [data, &file] {
        let whole = read_log(file, file.len().max(1));
        assert_eq!(read_log(file, 1 + file.len() % 17), whole);
    }
}

fn read_log(file: &[u8], piece: usize) -> (Vec<LogItem>, Result<LogEnd, LogFileError>) {
    let mut decoder = LogDecoder::new(LEN_MAX);
    let (mut input, mut items) = (BytesMut::new(), Vec::new());
    let mut pieces = file.chunks(piece);
    loop {
        match decoder.decode(&mut input) {
            Ok(Some(LogItem::End(end))) => return (items, Ok(end)),
            Ok(Some(item)) => items.push(item),
            Ok(None) => match pieces.next() {
                Some(piece) => input.extend_from_slice(piece),
                None => return (items, Ok(decoder.end(&input))),
            },
            Err(error) => return (items, Err(error)),
        }
    }
}

/// A path, its parent and its name.
pub fn path_rules(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (parent, name) = (path::parent(&text), path::name(&text));
    if path::is_valid(&text) {
        assert!(path::is_valid(parent), "{text:?} has no valid parent");
        assert!(parent.len() < text.len() || text == "/");
        if text != "/" {
            assert!(!name.is_empty() && !name.contains('/'));
            assert_eq!(path::join(parent, name), text);
        }
    }
}
