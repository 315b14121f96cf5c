//! One file for each operation that changes something: its checks in upstream's order (facts, section
//! 1.11), the transaction, and what it does to prep's view.

pub(crate) mod check;
pub(crate) mod close_session;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod multi;
pub(crate) mod reconfig;
pub(crate) mod set_acl;
pub(crate) mod set_data;

use zk_proto::acl::{Id, Perms};
use zk_proto::{ErrorCode, Request, path};
use zk_tree::DataTree;

use crate::auth::Authenticator;

/// What an ACL in the tree has to say of a write, whatever else may be wrong with it. Upstream looks at
/// these operations only (`effectiveACLPath`).
///
/// # Errors
/// `NO_AUTH`, `INVALID_ACL`.
pub(crate) fn check_acl(
    auth: &Authenticator,
    tree: &DataTree,
    request: &Request,
    ids: &[Id],
) -> Result<(), ErrorCode> {
    let (path, perms, acl) = match request {
        Request::Create(request) | Request::Create2(request) => {
            (parent_of(&request.path), Perms::CREATE, Some(&request.acl))
        }
        Request::Delete(request) => {
            (delete::parent_of_deletable(&request.path), Perms::DELETE, None)
        }
        Request::SetData(request) => (Ok(request.path.as_str()), Perms::WRITE, None),
        Request::SetAcl(request) => (Ok(request.path.as_str()), Perms::ADMIN, Some(&request.acl)),
        _ => return Ok(()), // the leader's to judge
    };
    let Ok(path) = path else { return Ok(()) };
    if let Some(acl) = acl {
        auth.fixup(acl.clone(), ids)?;
    }
    let Some(node) = tree.find(path) else { return Ok(()) };
    auth.check(node.acl(), perms, ids)
}

/// A path's parent, checked as far as upstream checks before it looks at anything else.
fn parent_of(path: &str) -> Result<&str, ErrorCode> {
    if !path.contains('/') || path.contains('\0') {
        return Err(ErrorCode::BAD_ARGUMENTS);
    }
    Ok(path::parent(path))
}

fn data_len(data: Option<&[u8]>) -> i64 {
    data.map_or(0, |data| i64::try_from(data.len()).unwrap_or(i64::MAX))
}

fn validate(path: &str) -> Result<(), ErrorCode> {
    if path::is_valid(path) { Ok(()) } else { Err(ErrorCode::BAD_ARGUMENTS) }
}
