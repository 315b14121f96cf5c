//! create, create2, createContainer, createTTL.

use zk_proto::acl::{Acl, Perms};
use zk_proto::create_mode::{CONTAINER_OWNER, CreateMode, ExtendedTypes, OwnerKind};
use zk_proto::proto::{CreateRequest, CreateTtlRequest};
use zk_proto::txn::{CreateContainerTxn, CreateTtlTxn, CreateTxn, Txn};
use zk_proto::{Buffer, ErrorCode, path};

use super::{data_len, parent_of, validate};
use crate::outstanding::ChangedNode;
use crate::prep::Prep;

/// Which transaction it becomes: that depends on the operation, not on the flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// create, create2
    Plain,
    /// createContainer
    Container,
    /// createTTL
    Ttl,
}

/// A create request of any kind.
pub(crate) struct Create {
    kind: Kind,
    path: String,
    data: Buffer,
    acl: Vec<Acl>,
    flags: i32,
    ttl: i64,
}

impl Kind {
    pub(crate) fn of(self, request: CreateRequest) -> Create {
        let CreateRequest { path, data, acl, flags } = request;
        Create { kind: self, path, data, acl, flags, ttl: -1 }
    }
}

impl Create {
    pub(crate) fn ttl(request: CreateTtlRequest) -> Self {
        let CreateTtlRequest { path, data, acl, flags, ttl } = request;
        Self { kind: Kind::Ttl, path, data, acl, flags, ttl }
    }
}

pub(crate) fn prepare(prep: &mut Prep<'_>, request: Create) -> Result<Txn, ErrorCode> {
    let Create { kind, mut path, data, acl, flags, ttl } = request;
    let mode = CreateMode::from_flag(flags).ok_or(ErrorCode::BAD_ARGUMENTS)?;
    let owner = owner(prep, kind, mode, ttl)?;
    if mode.is_ephemeral() {
        prep.check_global_session()?;
    } else {
        prep.check_session()?;
    }
    let parent_path = parent_of(&path)?;
    let acl = prep.config.auth.fixup(acl, prep.auth)?;
    let parent = prep.find(parent_path)?;
    prep.check_acl(parent.acl(), Perms::CREATE)?;
    let parent_stat = parent.stat();
    if mode.is_sequential() {
        path.push_str(&sequence(parent_stat.cversion));
    }
    validate(&path)?;
    if prep.find(&path).is_ok() {
        return Err(ErrorCode::NODE_EXISTS);
    }
    if let OwnerKind::Session(_) = prep.config.extended_types.kind(parent_stat.ephemeral_owner) {
        return Err(ErrorCode::NO_CHILDREN_FOR_EPHEMERALS);
    }
    prep.check_quota(&path, 1, data_len(data.as_deref()))?;

    let zxid = prep.zxid.0;
    let parent_cversion = parent_stat.cversion.wrapping_add(1);
    // The suffix has no slash in it: the parent is the same.
    prep.change(path::parent(&path), |parent| {
        parent.num_children += 1;
        // Only upwards, as the tree will do it: it takes both from transactions in any order.
        if parent_cversion > parent.stat.cversion {
            parent.stat.cversion = parent_cversion;
            parent.stat.pzxid = zxid;
        }
    });
    let stat = prep.new_stat(owner);
    prep.put(&path, ChangedNode::new(stat, &acl, data.clone()));
    Ok(match kind {
        Kind::Plain => {
            let ephemeral = mode.is_ephemeral();
            Txn::Create(CreateTxn { path, data, acl, ephemeral, parent_cversion })
        }
        Kind::Container => {
            Txn::CreateContainer(CreateContainerTxn { path, data, acl, parent_cversion })
        }
        Kind::Ttl => Txn::CreateTtl(CreateTtlTxn { path, data, acl, parent_cversion, ttl }),
    })
}

/// The owner field of the znode, which depends on the operation before the flags. Beyond upstream's
/// checks, a createTTL whose flags have no TTL is refused: its transaction could not be applied.
fn owner(prep: &Prep<'_>, kind: Kind, mode: CreateMode, ttl: i64) -> Result<i64, ErrorCode> {
    if mode.is_ttl() && !prep.config.extended_types.allows_ttl() {
        return Err(ErrorCode::UNIMPLEMENTED);
    }
    match (kind, mode.is_ttl()) {
        // In the new layout also where the old one is read (`EphemeralType.TTL.toEphemeralOwner`).
        (Kind::Ttl, true) => ExtendedTypes::Enabled.ttl_owner(ttl).ok_or(ErrorCode::BAD_ARGUMENTS),
        (Kind::Ttl, false) | (Kind::Plain | Kind::Container, true) => Err(ErrorCode::BAD_ARGUMENTS),
        (Kind::Container, false) => Ok(CONTAINER_OWNER),
        (Kind::Plain, false) if mode.is_ephemeral() => Ok(prep.session.0),
        (Kind::Plain, false) => Ok(0),
    }
}

/// Ten digits; after 2³¹ creates the number is negative, and the minus sign is one of the ten
/// characters.
fn sequence(cversion: i32) -> String {
    format!("{cversion:010}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_have_ten_characters() {
        assert_eq!(sequence(0), "0000000000");
        assert_eq!(sequence(42), "0000000042");
        assert_eq!(sequence(i32::MAX), "2147483647");
        assert_eq!(sequence(-5), "-000000005");
    }
}
