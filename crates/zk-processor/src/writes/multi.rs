//! multi: all or nothing, each operation seeing what the ones before it do.

use zk_proto::multi::{MultiOp, MultiRequest};
use zk_proto::txn::{ErrorTxn, Txn};
use zk_proto::{ErrorCode, OpCode};

use super::{check, create, delete, set_data};
use crate::prep::Prep;

pub(crate) fn prepare(prep: &mut Prep<'_>, request: MultiRequest) -> Result<Txn, ErrorCode> {
    let MultiRequest::Write(ops) = request else { return Err(ErrorCode::MARSHALLING_ERROR) };
    prep.changes.begin_multi();
    let mut txns = Vec::with_capacity(ops.len());
    let mut failed = false;
    for request in ops {
        let op = request.op();
        let prepared =
            if failed { Err(ErrorCode::RUNTIME_INCONSISTENCY) } else { prepare_one(prep, request) };
        txns.push(match prepared {
            Ok(txn) => (op, txn),
            Err(err) => {
                failed = true;
                (OpCode::ERROR, Txn::Error(ErrorTxn { err }))
            }
        });
    }
    prep.changes.end_multi(!failed);
    Ok(Txn::Multi(txns))
}

fn prepare_one(prep: &mut Prep<'_>, op: MultiOp) -> Result<Txn, ErrorCode> {
    match op {
        MultiOp::Create { op: OpCode::CREATE_CONTAINER, request } => {
            create::prepare(prep, create::Kind::Container.of(request))
        }
        MultiOp::Create { request, .. } => create::prepare(prep, create::Kind::Plain.of(request)),
        MultiOp::CreateTtl(request) => create::prepare(prep, create::Create::ttl(request)),
        MultiOp::Delete(request) => delete::prepare(prep, request),
        MultiOp::SetData(request) => set_data::prepare(prep, request),
        MultiOp::Check(request) => check::prepare(prep, request),
    }
}
