//! create, create2, createContainer, createTTL.

use zk_proto::acl::{Acl, Perms};
use zk_proto::create_mode::{CONTAINER_OWNER, CreateMode, OwnerKind};
use zk_proto::proto::{CreateRequest, CreateTtlRequest};
use zk_proto::txn::{CreateContainerTxn, CreateTtlTxn, CreateTxn, Txn};
use zk_proto::{Buffer, ErrorCode};

use super::{parent_of, validate};
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
pub(crate) struct Create<'a> {
    kind: Kind,
    path: &'a str,
    data: &'a Buffer,
    acl: &'a [Acl],
    flags: i32,
    ttl: i64,
}

impl Kind {
    pub(crate) fn of(self, request: &CreateRequest) -> Create<'_> {
        let CreateRequest { path, data, acl, flags } = request;
        Create { kind: self, path, data, acl, flags: *flags, ttl: -1 }
    }
}

impl<'a> Create<'a> {
    pub(crate) fn ttl(request: &'a CreateTtlRequest) -> Self {
        let CreateTtlRequest { path, data, acl, flags, ttl } = request;
        Create { kind: Kind::Ttl, path, data, acl, flags: *flags, ttl: *ttl }
    }
}

pub(crate) fn prepare(prep: &mut Prep<'_>, request: &Create<'_>) -> Result<Txn, ErrorCode> {
    let mode = CreateMode::from_flag(request.flags).ok_or(ErrorCode::BAD_ARGUMENTS)?;
    let ttl_owner = ttl_owner(prep, request, mode)?;
    if mode.is_ephemeral() {
        prep.sessions.check_global(prep.session)?;
    } else {
        prep.check_session()?;
    }
    let parent_path = parent_of(request.path)?;
    let acl = prep.config.auth.fixup(request.acl, prep.auth)?;
    let parent = prep.find(parent_path)?;
    prep.check_acl(parent.acl(), Perms::CREATE)?;
    let parent_stat = parent.stat();
    let path = if mode.is_sequential() {
        format!("{}{}", request.path, sequence(parent_stat.cversion))
    } else {
        request.path.to_owned()
    };
    validate(&path)?;
    if prep.find(&path).is_ok() {
        return Err(ErrorCode::NODE_EXISTS);
    }
    if let OwnerKind::Session(_) = prep.config.extended_types.kind(parent_stat.ephemeral_owner) {
        return Err(ErrorCode::NO_CHILDREN_FOR_EPHEMERALS);
    }
    let bytes = request.data.as_ref().map_or(0, |data| i64::try_from(data.len()).unwrap_or(i64::MAX));
    prep.check_quota(&path, 1, bytes)?;

    let parent_cversion = parent_stat.cversion.wrapping_add(1);
    let data = request.data.clone();
    let (owner, txn_acl) = (
        match (request.kind, mode) {
            (Kind::Container, _) => CONTAINER_OWNER,
            (Kind::Ttl, _) => ttl_owner,
            (Kind::Plain, mode) if mode.is_ephemeral() => prep.session.0,
            (Kind::Plain, _) => 0,
        },
        acl.clone(),
    );
    prep.put_parent(parent_path, |parent| {
        parent.stat.cversion = parent_cversion;
        parent.num_children += 1;
    });
    let stat = prep.new_stat(owner);
    prep.put(&path, Some(ChangedNode::new(stat, &acl, data.clone())));
    Ok(match request.kind {
        Kind::Plain => Txn::Create(CreateTxn {
            path,
            data,
            acl: txn_acl,
            ephemeral: mode.is_ephemeral(),
            parent_cversion,
        }),
        Kind::Container => {
            Txn::CreateContainer(CreateContainerTxn { path, data, acl: txn_acl, parent_cversion })
        }
        Kind::Ttl => Txn::CreateTtl(CreateTtlTxn {
            path,
            data,
            acl: txn_acl,
            parent_cversion,
            ttl: request.ttl,
        }),
    })
}

/// The owner field of a TTL znode, 0 for others. Beyond upstream's checks, a createTTL whose flags
/// have no TTL is refused: its transaction could not be applied.
fn ttl_owner(prep: &Prep<'_>, request: &Create<'_>, mode: CreateMode) -> Result<i64, ErrorCode> {
    let types = prep.config.extended_types;
    if mode.is_ttl() && !types.allows_ttl() {
        return Err(ErrorCode::UNIMPLEMENTED);
    }
    match (mode.is_ttl(), request.kind) {
        (true, Kind::Ttl) => types.ttl_owner(request.ttl).ok_or(ErrorCode::BAD_ARGUMENTS),
        (true, Kind::Plain | Kind::Container) | (false, Kind::Ttl) => Err(ErrorCode::BAD_ARGUMENTS),
        (false, Kind::Plain | Kind::Container) => Ok(0),
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
