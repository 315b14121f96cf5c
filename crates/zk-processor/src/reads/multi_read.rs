//! multiRead: each operation has a result or an error of its own.

use bytes::BytesMut;
use zk_proto::multi::{MultiHeader, MultiReadOp, MultiRequest, MultiResponse, MultiResult};
use zk_proto::{ErrorCode, OpCode, Record};

use super::Read;
use crate::reply;

pub(super) fn run(
    read: &Read<'_>,
    request: &MultiRequest,
    body: &mut BytesMut,
) -> Result<(), ErrorCode> {
    let ops = match request {
        MultiRequest::Read(ops) => ops.as_slice(),
        MultiRequest::Write(ops) if ops.is_empty() => &[],
        MultiRequest::Write(_) => return Err(ErrorCode::MARSHALLING_ERROR),
    };
    let start = body.len();
    // The end of the list, and an error's result, are what the record makes of them.
    let end = MultiResponse(Vec::new()).to_bytes();
    for op in ops {
        let before = body.len();
        if let Err(err) = one(read, op, body) {
            body.truncate(before);
            let result = MultiResponse(vec![MultiResult::Error(err)]).to_bytes();
            body.extend_from_slice(&result[..result.len() - end.len()]);
        }
        // A request of a MiB can ask for the same MiB seventy thousand times.
        if body.len() - start > reply::LIST_MAX {
            return Err(ErrorCode::MARSHALLING_ERROR);
        }
    }
    body.extend_from_slice(&end);
    Ok(())
}

fn one(read: &Read<'_>, op: &MultiReadOp, body: &mut BytesMut) -> Result<(), ErrorCode> {
    let header = |op| MultiHeader { op, done: false, err: ErrorCode::OK };
    match op {
        MultiReadOp::GetData(request) => {
            let znode = read.find_readable(&request.path)?;
            header(OpCode::GET_DATA).encode(body);
            reply::data_and_stat(body, znode.data(), &znode.stat());
        }
        MultiReadOp::GetChildren(request) => {
            let znode = read.find_readable(&request.path)?;
            header(OpCode::GET_CHILDREN).encode(body);
            reply::names(body, znode.children())?;
        }
    }
    Ok(())
}
