//! check, which is only within a multi.

use zk_proto::ErrorCode;
use zk_proto::acl::Perms;
use zk_proto::proto::CheckVersionRequest;
use zk_proto::txn::{CheckVersionTxn, Txn};

use super::validate;
use crate::prep::{Prep, next_version};

pub(crate) fn prepare(prep: &mut Prep<'_>, request: CheckVersionRequest) -> Result<Txn, ErrorCode> {
    prep.check_session()?;
    let CheckVersionRequest { path, version } = request;
    validate(&path)?;
    let view = prep.find(&path)?;
    prep.check_acl(view.acl(), Perms::READ)?;
    let version = next_version(view.stat().version, version)?;
    Ok(Txn::Check(CheckVersionTxn { path, version }))
}
