//! delete, and the internal deleteContainer.

use zk_proto::ErrorCode;
use zk_proto::acl::Perms;
use zk_proto::proto::DeleteRequest;
use zk_proto::txn::{DeleteTxn, Txn};

use super::parent_of;
use crate::prep::{Prep, next_version};
use crate::reaper;

/// What no one may delete.
const SPECIAL_PATHS: [&str; 4] = ["/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config"];

pub(crate) fn prepare(prep: &mut Prep<'_>, request: DeleteRequest) -> Result<Txn, ErrorCode> {
    prep.check_session()?;
    let DeleteRequest { path, version } = request;
    let parent = parent_of_deletable(&path)?;
    prep.check_acl(prep.find(parent)?.acl(), Perms::DELETE)?;
    let view = prep.find(&path)?;
    next_version(view.stat().version, version)?;
    if view.num_children() > 0 {
        return Err(ErrorCode::NOT_EMPTY);
    }
    prep.delete(&path);
    Ok(Txn::Delete(DeleteTxn { path }))
}

/// An empty container or an expired TTL znode goes: nobody asked, so no ACL is checked, but between
/// the decision and now it may have changed.
pub(crate) fn prepare_container(prep: &mut Prep<'_>, path: String) -> Result<Txn, ErrorCode> {
    parent_of_deletable(&path)?;
    let view = prep.find(&path)?;
    if view.num_children() > 0 {
        return Err(ErrorCode::NOT_EMPTY);
    }
    if !reaper::is_due(prep.config, &view.stat(), prep.wall_ms) {
        return Err(ErrorCode::BAD_VERSION);
    }
    prep.delete(&path);
    Ok(Txn::Delete(DeleteTxn { path }))
}

pub(super) fn parent_of_deletable(path: &str) -> Result<&str, ErrorCode> {
    if SPECIAL_PATHS.contains(&path) {
        return Err(ErrorCode::BAD_ARGUMENTS);
    }
    parent_of(path)
}
