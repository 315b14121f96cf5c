//! The frame of prep: one write request in, one transaction out, or the error that it fails with.

use zk_proto::acl::{Acl, Id, Perms};
use zk_proto::data::StatPersisted;
use zk_proto::txn::Txn;
use zk_proto::{ErrorCode, Request, SessionId, Zxid, path};
use zk_session::{LocalSessions, Owner, SessionTracker};
use zk_tree::DataTree;
use zk_zab::Peer;

use crate::NodeConfig;
use crate::outstanding::{ChangedNode, OutstandingChanges, View};
use crate::stats::Stats;
use crate::writes;

/// What the preparation of one write looks at. Everything is checked before anything is changed, so an
/// error leaves no trace.
pub(crate) struct Prep<'a> {
    pub(crate) config: &'a NodeConfig,
    pub(crate) tree: &'a DataTree,
    pub(crate) peer: &'a Peer,
    pub(crate) changes: &'a mut OutstandingChanges,
    pub(crate) sessions: &'a mut SessionTracker,
    pub(crate) local: &'a LocalSessions,
    pub(crate) session: SessionId,
    /// Through whom it came.
    pub(crate) from: Owner,
    /// Whether the server belongs to an ensemble.
    pub(crate) is_member: bool,
    pub(crate) auth: &'a [Id],
    pub(crate) zxid: Zxid,
    pub(crate) wall_ms: i64,
    pub(crate) stats: &'a Stats,
}

impl Prep<'_> {
    /// Prepares a client's write.
    ///
    /// # Errors
    /// What the client is told; it becomes an error transaction.
    pub(crate) fn request(&mut self, request: Request) -> Result<Txn, ErrorCode> {
        match request {
            Request::Create(request) | Request::Create2(request) => {
                writes::create::prepare(self, writes::create::Kind::Plain.of(request))
            }
            Request::CreateContainer(request) => {
                writes::create::prepare(self, writes::create::Kind::Container.of(request))
            }
            Request::CreateTtl(request) => {
                writes::create::prepare(self, writes::create::Create::ttl(request))
            }
            Request::Delete(request) => writes::delete::prepare(self, request),
            Request::SetData(request) => writes::set_data::prepare(self, request),
            Request::SetAcl(request) => writes::set_acl::prepare(self, request),
            Request::Multi(request) => writes::multi::prepare(self, request),
            Request::Reconfig(request) => writes::reconfig::prepare(self, &request),
            Request::CloseSession => Ok(writes::close_session::prepare(self)),
            Request::Exists(_)
            | Request::GetData(_)
            | Request::GetAcl(_)
            | Request::GetChildren(_)
            | Request::GetChildren2(_)
            | Request::Sync(_)
            | Request::Ping
            | Request::MultiRead(_)
            | Request::CheckWatches(_)
            | Request::RemoveWatches(_)
            | Request::SetWatches(_)
            | Request::SetWatches2(_)
            | Request::AddWatch(_)
            | Request::GetEphemerals(_)
            | Request::GetAllChildrenNumber(_)
            | Request::WhoAmI
            | Request::Auth(_)
            | Request::Sasl(_) => unreachable!("{} is no write", request.op()),
        }
    }

    /// `LeaderSessionTracker.checkSession` in an ensemble: there a session may be a local one, of this
    /// server or of another one, and what cannot be has expired.
    pub(crate) fn check_session(&mut self) -> Result<(), ErrorCode> {
        if self.local.contains(self.session) {
            let is_own = self.from == Owner::LOCAL;
            return if is_own { Ok(()) } else { Err(ErrorCode::SESSION_MOVED) };
        }
        match self.sessions.check(self.session, self.from) {
            Err(ErrorCode::UNKNOWN_SESSION) if self.is_member => {
                if self.local.may_be_elsewhere(self.session) {
                    Ok(())
                } else {
                    Err(ErrorCode::SESSION_EXPIRED)
                }
            }
            result => result,
        }
    }

    pub(crate) fn check_global_session(&mut self) -> Result<(), ErrorCode> {
        self.sessions.check_global(self.session, self.from)
    }

    pub(crate) fn find(&self, path: &str) -> Result<View<'_>, ErrorCode> {
        self.changes.find(self.tree, path).ok_or(ErrorCode::NO_NODE)
    }

    pub(crate) fn check_acl(&self, acl: &[Acl], perms: Perms) -> Result<(), ErrorCode> {
        self.config.auth.check(acl, perms, self.auth)
    }

    /// A znode that was found, to be changed and put back.
    pub(crate) fn to_changed(&self, path: &str, view: View<'_>) -> ChangedNode {
        self.changes.to_changed(path, view)
    }

    /// A znode that is there changes.
    pub(crate) fn change(&mut self, path: &str, change: impl FnOnce(&mut ChangedNode)) {
        let Some(view) = self.changes.find(self.tree, path) else { return };
        let mut node = self.to_changed(path, view);
        change(&mut node);
        self.put(path, node);
    }

    /// A znode comes, or becomes something else.
    pub(crate) fn put(&mut self, path: &str, node: ChangedNode) {
        self.changes.put(self.tree, self.zxid, path, node);
    }

    /// A znode goes, and its parent changes with that.
    pub(crate) fn delete(&mut self, path: &str) {
        let zxid = self.zxid.0;
        self.change(path::parent(path), |parent| {
            parent.stat.pzxid = zxid;
            parent.num_children -= 1;
        });
        self.changes.delete(self.tree, self.zxid, path);
    }

    /// The stat of a znode that this transaction creates.
    pub(crate) fn new_stat(&self, owner: i64) -> StatPersisted {
        StatPersisted {
            czxid: self.zxid.0,
            mzxid: self.zxid.0,
            ctime: self.wall_ms,
            mtime: self.wall_ms,
            version: 0,
            cversion: 0,
            aversion: 0,
            ephemeral_owner: owner,
            pzxid: self.zxid.0,
        }
    }

    /// Whether a hard quota has no room for `count` more znodes and `bytes` more bytes at `path`.
    pub(crate) fn check_quota(&self, path: &str, count: i64, bytes: i64) -> Result<(), ErrorCode> {
        if !self.config.enforce_quota {
            return Ok(());
        }
        let Some(quota) = self.tree.quota_for(path) else { return Ok(()) };
        // What is used is what a znode says, and any client may have written that.
        let exceeded = |limit: i64, used: i64, more: i64| {
            more != 0 && limit > -1 && used.saturating_add(more) > limit
        };
        if exceeded(quota.limits.count_hard_limit(), quota.usage.count, count)
            || exceeded(quota.limits.byte_hard_limit(), quota.usage.bytes, bytes)
        {
            self.stats.quota_exceeded(path);
            return Err(ErrorCode::QUOTA_EXCEEDED);
        }
        Ok(())
    }
}

/// Whether `expected` allows a change of what has `current`, and what it has afterwards: −1 expects
/// nothing, and is skipped when the version counts on (ZOOKEEPER-4743).
pub(crate) fn next_version(current: i32, expected: i32) -> Result<i32, ErrorCode> {
    if expected != -1 && expected != current {
        return Err(ErrorCode::BAD_VERSION);
    }
    Ok(match current.wrapping_add(1) {
        -1 => 0,
        next => next,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_skip_the_wildcard() {
        assert_eq!(next_version(3, 3), Ok(4));
        assert_eq!(next_version(3, -1), Ok(4));
        assert_eq!(next_version(3, 2), Err(ErrorCode::BAD_VERSION));
        assert_eq!(next_version(-2, -2), Ok(0));
        assert_eq!(next_version(i32::MAX, -1), Ok(i32::MIN));
    }
}
