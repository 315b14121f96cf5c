//! setACL.

use zk_proto::ErrorCode;
use zk_proto::acl::Perms;
use zk_proto::proto::SetAclRequest;
use zk_proto::txn::{SetAclTxn, Txn};

use super::validate;
use crate::prep::{Prep, next_version};

pub(crate) fn prepare(prep: &mut Prep<'_>, request: &SetAclRequest) -> Result<Txn, ErrorCode> {
    prep.check_session()?;
    validate(&request.path)?;
    let acl = prep.config.auth.fixup(&request.acl, prep.auth)?;
    let view = prep.find(&request.path)?;
    prep.check_acl(view.acl(), Perms::ADMIN)?;
    let version = next_version(view.stat().aversion, request.version)?;
    let mut node = view.to_changed();
    node.stat.aversion = version;
    node.acl = Some(acl.as_slice().into());
    prep.put(&request.path, Some(node));
    Ok(Txn::SetAcl(SetAclTxn { path: request.path.clone(), acl, version }))
}
