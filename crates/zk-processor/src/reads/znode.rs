//! exists, getData, getACL, getChildren, getChildren2, getAllChildrenNumber.

use bytes::BytesMut;
use zk_jute::put_int;
use zk_proto::acl::Perms;
use zk_proto::proto::{
    ExistsRequest, GetAclRequest, GetAclResponse, GetAllChildrenNumberRequest, GetDataRequest,
};
use zk_proto::{ErrorCode, OpCode, Record};
use zk_tree::WatchKind;

use super::Read;
use crate::{auth, reply};

/// The only read that checks its path at all, and the only one that watches what is not there.
pub(super) fn exists(
    read: &Read<'_>,
    request: &ExistsRequest,
    body: &mut BytesMut,
) -> Result<(), ErrorCode> {
    if request.path.contains('\0') {
        return Err(ErrorCode::BAD_ARGUMENTS);
    }
    let found = read.db.tree.find(&request.path);
    if let Some(znode) = found {
        read.auth.check(znode.acl(), Perms::READ, read.ids)?;
    }
    if request.watch {
        read.watch(&request.path, WatchKind::Data);
    }
    reply::put_stat(body, &found.ok_or(ErrorCode::NO_NODE)?.stat());
    Ok(())
}

pub(super) fn data(
    read: &Read<'_>,
    request: &GetDataRequest,
    body: &mut BytesMut,
) -> Result<(), ErrorCode> {
    let znode = read.find_readable(&request.path)?;
    if request.watch {
        read.watch(&request.path, WatchKind::Data);
    }
    reply::data_and_stat(body, znode.data(), &znode.stat());
    Ok(())
}

/// Who may administer the ACL sees it; who may only read the znode sees it without the hashes.
pub(super) fn acl(
    read: &Read<'_>,
    request: &GetAclRequest,
    body: &mut BytesMut,
) -> Result<(), ErrorCode> {
    let znode = read.find(&request.path)?;
    read.auth.check(znode.acl(), Perms::READ.or(Perms::ADMIN), read.ids)?;
    let acl = match read.auth.check(znode.acl(), Perms::ADMIN, read.ids) {
        Ok(()) => znode.acl().to_vec(),
        Err(_) => auth::redact(znode.acl()),
    };
    GetAclResponse { acl, stat: znode.stat() }.encode(body);
    Ok(())
}

pub(super) fn children(
    read: &Read<'_>,
    path: &str,
    watch: bool,
    op: OpCode,
    body: &mut BytesMut,
) -> Result<(), ErrorCode> {
    let znode = read.find_readable(path)?;
    if watch {
        read.watch(path, WatchKind::Child);
    }
    reply::names(body, znode.children())?;
    if op == OpCode::GET_CHILDREN2 {
        reply::put_stat(body, &znode.stat());
    }
    Ok(())
}

pub(super) fn all_children_number(
    read: &Read<'_>,
    request: &GetAllChildrenNumberRequest,
    body: &mut BytesMut,
) -> Result<(), ErrorCode> {
    read.find_readable(&request.path)?;
    put_int(body, read.db.tree.all_children_number(&request.path).unwrap_or_default());
    Ok(())
}
