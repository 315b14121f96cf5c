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

use zk_proto::{ErrorCode, path};

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
