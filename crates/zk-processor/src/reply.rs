//! Frames to clients: a length, a reply header, and a body where there is one.

use bytes::{BufMut, BytesMut};
use zk_jute::{put_buffer, put_count, put_int, put_string};
use zk_proto::connect::ConnectResponse;
use zk_proto::data::Stat;
use zk_proto::proto::{ReplyHeader, WatcherEvent};
use zk_proto::multi::{MultiResponse, MultiResult};
use zk_proto::txn::Txn;
use zk_proto::watch::SYNC_CONNECTED;
use zk_proto::{ErrorCode, OpCode, Record, Xid, Zxid};
use zk_tree::{Outcome, WatchEvent};

/// Appends one frame: the length is filled in when `body` is done.
pub(crate) fn frame(out: &mut BytesMut, body: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_i32(0);
    body(out);
    let len = out.len() - start - 4;
    let len = i32::try_from(len).expect("a reply is built from one bounded request").to_be_bytes();
    if let Some(place) = out.get_mut(start..start + 4) {
        place.copy_from_slice(&len);
    }
}

pub(crate) fn header(out: &mut BytesMut, xid: Xid, zxid: Zxid, err: ErrorCode) {
    ReplyHeader { xid, zxid, err }.encode(out);
}

/// A reply without a body.
pub(crate) fn empty(out: &mut BytesMut, xid: Xid, zxid: Zxid, err: ErrorCode) {
    frame(out, |out| header(out, xid, zxid, err));
}

/// The answer to a connect request.
pub(crate) fn connect(out: &mut BytesMut, response: &ConnectResponse) {
    frame(out, |out| response.encode(out));
}

/// A watch event. Events that setWatches catches up with have no zxid of their own.
pub(crate) fn event(out: &mut BytesMut, event: &WatchEvent<'_>) {
    frame(out, |out| {
        header(out, Xid::NOTIFICATION, event.zxid, ErrorCode::OK);
        WatcherEvent {
            event_type: event.event_type.code(),
            state: SYNC_CONNECTED,
            path: event.path.to_owned(),
        }
        .encode(out);
    });
}

/// The reply to a write that has been applied.
pub(crate) fn write(
    out: &mut BytesMut,
    xid: Xid,
    zxid: Zxid,
    op: OpCode,
    txn: &Txn,
    outcome: &Outcome,
) -> ErrorCode {
    let err = match (outcome, txn) {
        // A multi that failed says so in its results.
        (Outcome::Error(_), Txn::Multi(_)) => ErrorCode::OK,
        (Outcome::Error(err), _) => *err,
        (Outcome::Done | Outcome::Stat(_) | Outcome::Multi(_), _) => ErrorCode::OK,
    };
    frame(out, |out| {
        header(out, xid, zxid, err);
        match outcome {
            Outcome::Done | Outcome::Error(_) => {}
            Outcome::Stat(stat) => match (op, created_path(txn)) {
                (OpCode::CREATE, Some(path)) => put_string(out, path),
                (_, Some(path)) => {
                    put_string(out, path);
                    stat.encode(out);
                }
                (_, None) => stat.encode(out),
            },
            Outcome::Multi(outcomes) => multi(txn, outcomes).encode(out),
        }
    });
    err
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

/// Data and stat, without a copy on the way.
pub(crate) fn data_and_stat(out: &mut BytesMut, data: Option<&[u8]>, stat: &Stat) {
    out.reserve(data.map_or(0, <[u8]>::len) + 72);
    put_buffer(out, data);
    stat.encode(out);
}

/// A list of names.
pub(crate) fn names<'a>(out: &mut BytesMut, count: usize, names: impl Iterator<Item = &'a str>) {
    put_count(out, count);
    for name in names {
        put_string(out, name);
    }
}

/// The code in the body of addWatch's reply.
pub(crate) fn error_body(out: &mut BytesMut, err: ErrorCode) {
    put_int(out, err.0);
}
