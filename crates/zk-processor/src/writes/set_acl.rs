//! setACL.

use zk_proto::ErrorCode;
use zk_proto::acl::Perms;
use zk_proto::proto::SetAclRequest;
use zk_proto::txn::{SetAclTxn, Txn};

use super::validate;
use crate::prep::{Prep, next_version};

pub(crate) fn prepare(prep: &mut Prep<'_>, request: SetAclRequest) -> Result<Txn, ErrorCode> {
    prep.check_session()?;
    let SetAclRequest { path, acl, version } = request;
    validate(&path)?;
    let acl = prep.config.auth.fixup(acl, prep.auth)?;
    let view = prep.find(&path)?;
    prep.check_acl(view.acl(), Perms::ADMIN)?;
    let version = next_version(view.stat().aversion, version)?;
    let mut node = prep.to_changed(&path, view);
    node.stat.aversion = version;
    node.acl = Some(acl.as_slice().into());
    prep.put(&path, node);
    Ok(Txn::SetAcl(SetAclTxn { path, acl, version }))
}
