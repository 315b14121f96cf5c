//! Frames to clients: a length, a reply header, and a body where there is one.

use bytes::{BufMut, BytesMut};
use zk_jute::{put_buffer, put_count, put_int, put_string};
use zk_proto::connect::ConnectResponse;
use zk_proto::data::Stat;
use zk_proto::multi::{MultiResponse, MultiResult};
use zk_proto::txn::Txn;
use zk_proto::watch::SYNC_CONNECTED;
use zk_proto::{ErrorCode, OpCode, Record, Xid, Zxid};
use zk_tree::{Outcome, WatchEvent};

/// Length, xid, zxid, error.
const HEAD_LEN: usize = 4 + HEADER_LEN;
const HEADER_LEN: usize = 16;

fn header(xid: Xid, zxid: Zxid, err: ErrorCode) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    let (xid_part, rest) = header.split_at_mut(4);
    let (zxid_part, err_part) = rest.split_at_mut(8);
    xid_part.copy_from_slice(&xid.0.to_be_bytes());
    zxid_part.copy_from_slice(&zxid.0.to_be_bytes());
    err_part.copy_from_slice(&err.0.to_be_bytes());
    header
}

/// Fills in the length of the frame that begins at `start` and has come to its end.
fn patch_len(out: &mut BytesMut, start: usize) {
    let len = i32::try_from(out.len() - start - 4).expect("replies are far below 2 GiB");
    if let Some(place) = out.get_mut(start..start + 4) {
        place.copy_from_slice(&len.to_be_bytes());
    }
}

/// Appends one frame.
pub(crate) fn frame(
    out: &mut BytesMut,
    xid: Xid,
    zxid: Zxid,
    err: ErrorCode,
    body: impl FnOnce(&mut BytesMut),
) {
    let start = out.len();
    let mut head = [0; HEAD_LEN];
    head[4..].copy_from_slice(&header(xid, zxid, err));
    out.extend_from_slice(&head);
    body(out);
    patch_len(out, start);
}

/// A reply without a body.
pub(crate) fn empty(out: &mut BytesMut, xid: Xid, zxid: Zxid, err: ErrorCode) {
    frame(out, xid, zxid, err, |_| {});
}

/// The reply to a read: with an error, what `body` has appended goes again.
pub(crate) fn read(
    out: &mut BytesMut,
    xid: Xid,
    zxid: Zxid,
    body: impl FnOnce(&mut BytesMut) -> Result<(), ErrorCode>,
) {
    let start = out.len();
    let mut result = Ok(());
    frame(out, xid, zxid, ErrorCode::OK, |out| result = body(out));
    if let Err(err) = result {
        out.truncate(start);
        empty(out, xid, zxid, err);
    }
}

/// The answer to a connect request.
pub(crate) fn connect(out: &mut BytesMut, response: &ConnectResponse) {
    let start = out.len();
    out.put_i32(0);
    response.encode(out);
    patch_len(out, start);
}

/// A watch event. Events that setWatches catches up with have no zxid of their own.
pub(crate) fn event(out: &mut BytesMut, event: &WatchEvent<'_>) {
    // A `WatcherEvent`, without a copy of the path.
    frame(out, Xid::NOTIFICATION, event.zxid, ErrorCode::OK, |out| {
        put_int(out, event.event_type.code());
        put_int(out, SYNC_CONNECTED);
        put_string(out, event.path);
    });
}

/// The reply to a write that has been applied. A multi that failed says so in its results, behind a
/// header without an error.
pub(crate) fn write(
    out: &mut BytesMut,
    xid: Xid,
    zxid: Zxid,
    op: OpCode,
    txn: &Txn,
    outcome: &Outcome,
) {
    let err = match outcome {
        Outcome::Error(err) => *err,
        Outcome::Done | Outcome::Stat(_) | Outcome::Multi(_) => ErrorCode::OK,
    };
    frame(out, xid, zxid, err, |out| match outcome {
        Outcome::Done | Outcome::Error(_) => {}
        Outcome::Stat(stat) => match (op, created_path(txn)) {
            (OpCode::CREATE, Some(path)) => put_string(out, path),
            (_, Some(path)) => {
                put_string(out, path);
                put_stat(out, stat);
            }
            (OpCode::RECONFIG, None) => data_and_stat(out, data_set(txn), stat),
            (_, None) => put_stat(out, stat),
        },
        Outcome::Multi(outcomes) => multi(txn, outcomes).encode(out),
    });
}

/// The path of what a transaction created.
fn created_path(txn: &Txn) -> Option<&str> {
    match txn {
        Txn::Create(txn) => Some(&txn.path),
        Txn::CreateContainer(txn) => Some(&txn.path),
        Txn::CreateTtl(txn) => Some(&txn.path),
        Txn::CreateSession(_)
        | Txn::CloseSession(_)
        | Txn::Error(_)
        | Txn::Delete(_)
        | Txn::SetData(_)
        | Txn::SetAcl(_)
        | Txn::Check(_)
        | Txn::Multi(_) => None,
    }
}

/// The data that a transaction sets.
fn data_set(txn: &Txn) -> Option<&[u8]> {
    match txn {
        Txn::SetData(txn) => txn.data.as_deref(),
        Txn::CreateSession(_)
        | Txn::CloseSession(_)
        | Txn::Error(_)
        | Txn::Create(_)
        | Txn::CreateContainer(_)
        | Txn::CreateTtl(_)
        | Txn::Delete(_)
        | Txn::SetAcl(_)
        | Txn::Check(_)
        | Txn::Multi(_) => None,
    }
}

fn multi(txn: &Txn, outcomes: &[Outcome]) -> MultiResponse {
    let Txn::Multi(txns) = txn else { return MultiResponse(Vec::new()) };
    let results = txns.iter().zip(outcomes).map(|((op, txn), outcome)| match outcome {
        Outcome::Error(err) => MultiResult::Error(*err),
        Outcome::Stat(stat) => match (*op, created_path(txn)) {
            (OpCode::CREATE, Some(path)) => MultiResult::Create(path.to_owned()),
            (_, Some(path)) => MultiResult::Create2(path.to_owned(), stat.clone()),
            (_, None) => MultiResult::SetData(stat.clone()),
        },
        Outcome::Done | Outcome::Multi(_) => match txn {
            Txn::Check(_) => MultiResult::Check,
            Txn::Error(error) => MultiResult::Error(error.err),
            Txn::Delete(_)
            | Txn::CreateSession(_)
            | Txn::CloseSession(_)
            | Txn::Create(_)
            | Txn::CreateContainer(_)
            | Txn::CreateTtl(_)
            | Txn::SetData(_)
            | Txn::SetAcl(_)
            | Txn::Multi(_) => MultiResult::Delete,
        },
    });
    MultiResponse(results.collect())
}

const STAT_LEN: usize = 68;

/// A stat, put together before the buffer is asked for room.
pub(crate) fn put_stat(out: &mut BytesMut, stat: &Stat) {
    let mut bytes = [0; STAT_LEN];
    let mut rest = &mut bytes[..];
    rest.put_i64(stat.czxid);
    rest.put_i64(stat.mzxid);
    rest.put_i64(stat.ctime);
    rest.put_i64(stat.mtime);
    rest.put_i32(stat.version);
    rest.put_i32(stat.cversion);
    rest.put_i32(stat.aversion);
    rest.put_i64(stat.ephemeral_owner);
    rest.put_i32(stat.data_length);
    rest.put_i32(stat.num_children);
    rest.put_i64(stat.pzxid);
    out.extend_from_slice(&bytes);
}

/// Data and stat, without a copy on the way.
pub(crate) fn data_and_stat(out: &mut BytesMut, data: Option<&[u8]>, stat: &Stat) {
    out.reserve(data.map_or(0, <[u8]>::len) + 4 + STAT_LEN);
    put_buffer(out, data);
    put_stat(out, stat);
}

/// The longest list in a reply, in bytes, as a short request can ask for any length: far more than a
/// client takes, and less than a connection may have unsent.
pub(crate) const LIST_MAX: usize = 64 << 20;

/// A list of names.
///
/// # Errors
/// `MARSHALLING_ERROR` when it is longer than [`LIST_MAX`].
pub(crate) fn names(
    out: &mut BytesMut,
    names: impl Iterator<Item = impl AsRef<str>>,
) -> Result<(), ErrorCode> {
    let start = out.len();
    put_count(out, 0);
    let mut count: i32 = 0;
    for name in names {
        put_string(out, name.as_ref());
        count += 1;
        if out.len() - start > LIST_MAX {
            return Err(ErrorCode::MARSHALLING_ERROR);
        }
    }
    if let Some(place) = out.get_mut(start..start + 4) {
        place.copy_from_slice(&count.to_be_bytes());
    }
    Ok(())
}

/// The code in the body of addWatch's reply.
pub(crate) fn error_body(out: &mut BytesMut, err: ErrorCode) {
    put_int(out, err.0);
}

#[cfg(test)]
mod tests {
    use zk_proto::Reader;
    use zk_proto::proto::{ReplyHeader, WatcherEvent};
    use zk_proto::watch::EventType;

    use super::*;

    /// Written by hand here, from field lists in `zk_proto`: they must agree.
    #[test]
    fn what_is_put_together_by_hand_is_what_the_records_are() {
        let stat = Stat {
            czxid: 1,
            mzxid: 2,
            ctime: 3,
            mtime: 4,
            version: 5,
            cversion: 6,
            aversion: 7,
            ephemeral_owner: 8,
            data_length: 9,
            num_children: 10,
            pzxid: 11,
        };
        let mut out = BytesMut::new();
        put_stat(&mut out, &stat);
        assert_eq!(Stat::decode(&out.freeze()), Ok(stat));

        let mut out = BytesMut::new();
        let zxid = Zxid(0x1_0000_0002);
        let watched = WatchEvent { event_type: EventType::NodeDeleted, path: "/a", zxid, acl: &[] };
        event(&mut out, &watched);
        let bytes = out.freeze();
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.int("length"), Ok(i32::try_from(bytes.len() - 4).unwrap()));
        let expected = ReplyHeader { xid: Xid(-1), zxid, err: ErrorCode::OK };
        assert_eq!(ReplyHeader::parse(&mut reader), Ok(expected));
        let expected = WatcherEvent { event_type: 2, state: 3, path: "/a".into() };
        assert_eq!(WatcherEvent::decode(&reader.take_rest()), Ok(expected));
    }

    #[test]
    fn a_read_that_fails_late_leaves_nothing_behind() {
        let (mut failed, mut expected) = (BytesMut::from("x"), BytesMut::from("x"));
        read(&mut failed, Xid(1), Zxid(2), |out| {
            out.extend_from_slice(b"half a body");
            Err(ErrorCode::NO_NODE)
        });
        empty(&mut expected, Xid(1), Zxid(2), ErrorCode::NO_NODE);
        assert_eq!(failed, expected);
    }
}
