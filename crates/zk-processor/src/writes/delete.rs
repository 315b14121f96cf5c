//! delete, and the internal deleteContainer.

use zk_proto::ErrorCode;
use zk_proto::acl::Perms;
use zk_proto::create_mode::OwnerKind;
use zk_proto::proto::DeleteRequest;
use zk_proto::txn::{DeleteTxn, Txn};

use super::parent_of;
use crate::prep::{Prep, next_version};

/// What no one may delete.
const SPECIAL_PATHS: [&str; 4] = ["/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config"];

pub(crate) fn prepare(prep: &mut Prep<'_>, request: &DeleteRequest) -> Result<Txn, ErrorCode> {
    prep.check_session()?;
    let parent = parent_of_deletable(&request.path)?;
    prep.check_acl(prep.find(parent)?.acl(), Perms::DELETE)?;
    let view = prep.find(&request.path)?;
    next_version(view.stat().version, request.version)?;
    if view.num_children() > 0 {
        return Err(ErrorCode::NOT_EMPTY);
    }
    Ok(delete(prep, parent, &request.path))
}

/// An empty container or an expired TTL znode goes: nobody asked, so no ACL is checked, but between
/// the decision and now it may have changed.
pub(crate) fn prepare_container(prep: &mut Prep<'_>, path: &str) -> Result<Txn, ErrorCode> {
    let parent = parent_of_deletable(path)?;
    let view = prep.find(path)?;
    if view.num_children() > 0 {
        return Err(ErrorCode::NOT_EMPTY);
    }
    match prep.config.extended_types.kind(view.stat().ephemeral_owner) {
        OwnerKind::Session(_) => return Err(ErrorCode::BAD_VERSION),
        OwnerKind::Void | OwnerKind::Container | OwnerKind::Ttl(_) => {}
    }
    Ok(delete(prep, parent, path))
}

fn parent_of_deletable(path: &str) -> Result<&str, ErrorCode> {
    if SPECIAL_PATHS.contains(&path) {
        return Err(ErrorCode::BAD_ARGUMENTS);
    }
    parent_of(path)
}

fn delete(prep: &mut Prep<'_>, parent: &str, path: &str) -> Txn {
    prep.put_parent(parent, |parent| parent.num_children -= 1);
    prep.put(path, None);
    Txn::Delete(DeleteTxn { path: path.to_owned() })
}
