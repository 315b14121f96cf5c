//! Filling a new database from storage.

use std::fmt;

use zk_proto::acl::Acl;
use zk_proto::data::StatPersisted;
use zk_proto::{SessionId, Zxid};

use crate::database::Database;
use crate::tree::LoadProblem;

/// What is in storage is no tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadError {
    /// This is no path that a znode can have.
    BadPath(String),
    /// This znode's parent does not exist, or came after it.
    NoParent(String),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadPath(path) => write!(f, "stored znode {path:?} has an impossible path"),
            Self::NoParent(path) => write!(f, "stored znode {path:?} has no parent before it"),
        }
    }
}

impl std::error::Error for LoadError {}

impl Database {
    /// Puts a stored znode into a new database, in place of the initial one where that exists.
    /// Parents come before their children, as they do in the order of paths.
    ///
    /// What cannot be is reported by [`Self::finish_load`].
    pub fn load_znode(
        &mut self,
        path: &str,
        data: Option<&[u8]>,
        acl: &[Acl],
        stat: &StatPersisted,
    ) {
        if let Err(problem) = self.tree.load(path, data, acl, stat) {
            self.load_error.get_or_insert_with(|| match problem {
                LoadProblem::Path => LoadError::BadPath(path.to_owned()),
                LoadProblem::Parent => LoadError::NoParent(path.to_owned()),
            });
        }
    }

    /// Puts a stored session into a new database; the timeout in ms.
    pub fn load_session(&mut self, session: SessionId, timeout_ms: i32) {
        self.tree.load_session(session, timeout_ms);
    }

    /// Ends the loading of a picture as of `zxid`: finds the quotas and counts their usage. A usage
    /// node that said otherwise counts as changed, and so do initial znodes that were not stored.
    ///
    /// # Errors
    /// The first znode that could not be put anywhere.
    pub fn finish_load(&mut self, zxid: Zxid) -> Result<(), LoadError> {
        if let Some(error) = self.load_error.take() {
            return Err(error);
        }
        self.tree.rebuild_quotas();
        self.tree.advance(zxid);
        Ok(())
    }
}
