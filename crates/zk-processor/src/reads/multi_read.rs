//! multiRead: each operation has a result or an error of its own.

use bytes::{Bytes, BytesMut};
use zk_proto::multi::{MultiReadOp, MultiRequest, MultiResponse, MultiResult};
use zk_proto::{ErrorCode, Record};

use super::Read;

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
    let one = |op: &MultiReadOp| match op {
        MultiReadOp::GetData(request) => read.find_readable(&request.path).map(|znode| {
            MultiResult::GetData(znode.data().map(Bytes::copy_from_slice), znode.stat())
        }),
        MultiReadOp::GetChildren(request) => read
            .find_readable(&request.path)
            .map(|znode| MultiResult::GetChildren(znode.children().map(str::to_owned).collect())),
    };
    let results = ops.iter().map(|op| one(op).unwrap_or_else(MultiResult::Error)).collect();
    MultiResponse(results).encode(body);
    Ok(())
}
