//! From what is on disk to a database.

use std::time::Instant;

use zk_proto::Zxid;
use zk_proto::txn::LoggedTxn;
use zk_storage::{Log, Meta, State, StateItem, StorageConfig, StorageError};
use zk_tree::{Database, TreeConfig};

/// Why a server cannot start from its data.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The store cannot be opened or read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// What it holds is no tree.
    #[error("the state as of zxid {applied} is no tree: {reason}. Restore dataDir and dataLogDir from a backup")]
    Tree {
        /// The state's zxid.
        applied: Zxid,
        /// What does not fit.
        reason: String,
    },
    /// A transaction that was logged cannot be read.
    #[error("the transaction {zxid} in the log cannot be decoded: {reason}. It was written by a newer release, or its memory was damaged before it was written")]
    Txn {
        /// Its zxid.
        zxid: Zxid,
        /// What does not fit.
        reason: String,
    },
}

/// A database that is as far as its log.
pub struct Recovered {
    /// The tree and its sessions.
    pub db: Database,
    /// The log, ready for appends.
    pub log: Log,
    /// The state, for checkpoints.
    pub state: State,
    /// How long loading the state took, in µs.
    pub load_us: u64,
    /// How long the replay took, in µs.
    pub replay_us: u64,
    /// Transactions replayed.
    pub replayed: u64,
}

/// Loads the state and replays the log behind it.
///
/// # Errors
/// Anything that would make the server start with less than it acknowledged.
pub fn recover(config: &StorageConfig, tree: TreeConfig) -> Result<Recovered, RecoveryError> {
    let begun = Instant::now();
    let opened = zk_storage::open(config)?;
    let mut db = Database::new(tree);
    if let Some(meta) = opened.state.meta() {
        load(&mut db, &opened.state, meta, tree.digest_enabled)?;
    }
    let load_us = elapsed_us(begun);
    let begun = Instant::now();
    let mut replayed = 0;
    for entry in opened.replay {
        let (zxid, payload) = entry.map_err(StorageError::from)?;
        let txn = LoggedTxn::decode(&payload)
            .map_err(|error| RecoveryError::Txn { zxid, reason: error.to_string() })?;
        db.apply(&txn, &mut |_, _| {});
        replayed += 1;
    }
    Ok(Recovered {
        db,
        log: opened.log,
        state: opened.state,
        load_us,
        replay_us: elapsed_us(begun),
        replayed,
    })
}

/// Fills the database with the state, which must have the digest that it was written with.
fn load(db: &mut Database, state: &State, meta: Meta, digest_enabled: bool) -> Result<(), RecoveryError> {
    let applied = meta.applied;
    let bad = |reason: String| RecoveryError::Tree { applied, reason };
    state.snapshot().scan(|item| {
        match item {
            StateItem::Znode { path, value } => {
                let acl = super::acl::decode(value.acl)
                    .map_err(|error| bad(format!("the ACL of {path}: {error}")))?;
                db.load_znode(path, value.data, &acl, &value.stat);
            }
            StateItem::Session { id, timeout_ms } => db.load_session(id, timeout_ms),
        }
        Ok::<_, RecoveryError>(())
    })?;
    db.finish_load(applied).map_err(|error| bad(error.to_string()))?;
    let digest = db.tree.digest();
    if digest_enabled && meta.digest != 0 && digest != meta.digest {
        return Err(bad(format!("its digest is {digest:x}, and {:x} was written down", meta.digest)));
    }
    Ok(())
}

fn elapsed_us(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX)
}
