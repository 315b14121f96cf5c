//! From what is on disk to a database.

use std::sync::mpsc::sync_channel;
use std::time::Instant;

use zk_proto::acl::Acl;
use zk_proto::data::StatPersisted;
use zk_proto::txn::LoggedTxn;
use zk_proto::{SessionId, Zxid};
use zk_storage::import::ImportError;
use zk_storage::{Before, Log, Meta, Opened, State, StateItem, StorageConfig, StorageError};
use zk_tree::{Database, TreeConfig};
use zk_zab::{Durable, History};

use super::import;

/// Why a server cannot start from its data.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The store cannot be opened or read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The data of Apache ZooKeeper cannot be imported.
    #[error("the data of Apache ZooKeeper cannot be imported: {0}")]
    Import(#[from] ImportError),
    /// What it holds is no tree.
    #[error(
        "the state as of zxid {applied} is no tree: {reason}. Restore dataDir and dataLogDir from a backup"
    )]
    Tree {
        /// The state's zxid.
        applied: Zxid,
        /// What does not fit.
        reason: String,
    },
    /// A transaction that was logged cannot be read.
    #[error(
        "the transaction {zxid} in the log cannot be decoded: {reason}. It was written by a newer release, or its memory was damaged before it was written"
    )]
    Txn {
        /// Its zxid.
        zxid: Zxid,
        /// What does not fit.
        reason: String,
    },
}

/// What a server starts from.
pub struct Recovered {
    /// The tree and its sessions: as far as the log, or for a member as far as the stored state.
    pub db: Database,
    /// What a member has beside it; `None` for a standalone server.
    pub member: Option<RecoveredMember>,
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

/// What a member's peer starts from.
pub struct RecoveredMember {
    /// What is on disk, and not in the tree.
    pub durable: Durable,
    /// What the peer plans with.
    pub history: Box<dyn History>,
}

impl Recovered {
    /// The last transaction in the log.
    #[must_use]
    pub fn last_logged(&self) -> Zxid {
        match &self.member {
            Some(member) => member.durable.last_logged(),
            None => self.db.tree.last_zxid(),
        }
    }
}

/// Loads the state and replays the log behind it.
///
/// # Errors
/// Anything that would make the server start with less than it acknowledged.
pub fn recover(config: &StorageConfig, tree: TreeConfig) -> Result<Recovered, RecoveryError> {
    let (mut opened, mut db, load_us) = open(config, tree, false)?;
    let begun = Instant::now();
    let mut replayed = 0;
    for entry in &mut opened.replay {
        let (zxid, payload) = entry.map_err(StorageError::from)?;
        let txn = LoggedTxn::decode(&payload)
            .map_err(|error| RecoveryError::Txn { zxid, reason: error.to_string() })?;
        db.apply(&txn, &mut |_, _| {});
        replayed += 1;
    }
    let replay_us = elapsed_us(begun);
    let Opened { log, state, .. } = opened;
    Ok(Recovered { db, member: None, log, state, load_us, replay_us, replayed })
}

/// Loads the state, and leaves the log behind it to the peer: what of it is committed is for the
/// ensemble to say.
///
/// # Errors
/// As for [`recover`].
pub fn recover_member(
    config: &StorageConfig,
    tree: TreeConfig,
) -> Result<Recovered, RecoveryError> {
    let (mut opened, db, load_us) = open(config, tree, true)?;
    let begun = Instant::now();
    let durable = opened.take_durable()?;
    let history = Box::new(opened.history());
    let replay_us = elapsed_us(begun);
    let Opened { log, state, .. } = opened;
    let member = Some(RecoveredMember { durable, history });
    Ok(Recovered { db, member, log, state, load_us, replay_us, replayed: 0 })
}

/// Opens what is stored, after importing it where it is Apache ZooKeeper's, and loads the state; how
/// long that took, in µs.
fn open(
    config: &StorageConfig,
    tree: TreeConfig,
    is_member: bool,
) -> Result<(Opened, Database, u64), RecoveryError> {
    let before = zk_storage::look(config)?;
    if let Before::Apache(files) = &before {
        import::import(files, config, tree, is_member)?;
    }
    let begun = Instant::now();
    let opened = zk_storage::open(config)?;
    if let Before::Ours(Some(made)) = before {
        let accepted = opened.log.epochs().accepted;
        import::warn_of_newer(config, opened.log.last(), accepted, made);
    }
    let mut db = Database::new(tree);
    if let Some(meta) = opened.state.meta() {
        load(&mut db, &opened.state, meta, tree.digest_enabled)?;
    }
    Ok((opened, db, elapsed_us(begun)))
}

/// Znodes handed from the thread that reads to the one that builds, at a time.
const CHUNK: usize = 4096;

/// Chunks read ahead.
const CHUNKS_AHEAD: usize = 4;

/// Entries of the state, packed: one allocation for all their bytes.
#[derive(Default)]
struct Chunk {
    bytes: Vec<u8>,
    znodes: Vec<PackedZnode>,
    sessions: Vec<(SessionId, i32)>,
}

/// A znode in a chunk: the lengths of its path, ACL and data, which stand in this order.
struct PackedZnode {
    path_len: usize,
    acl_len: usize,
    data_len: Option<usize>,
    stat: StatPersisted,
}

impl Chunk {
    fn pack(&mut self, item: StateItem<'_>) {
        match item {
            StateItem::Znode { path, value } => {
                self.bytes.extend_from_slice(path.as_bytes());
                self.bytes.extend_from_slice(value.acl);
                self.bytes.extend_from_slice(value.data.unwrap_or_default());
                self.znodes.push(PackedZnode {
                    path_len: path.len(),
                    acl_len: value.acl.len(),
                    data_len: value.data.map(<[u8]>::len),
                    stat: value.stat,
                });
            }
            StateItem::Session { id, timeout_ms } => self.sessions.push((id, timeout_ms)),
        }
    }

    fn unpack(self, db: &mut Database) -> Result<(), String> {
        let open = Acl::open();
        let mut rest = self.bytes.as_slice();
        let mut take = |len: usize| {
            let (taken, left) = rest.split_at(len);
            rest = left;
            taken
        };
        for znode in &self.znodes {
            let path =
                std::str::from_utf8(take(znode.path_len)).map_err(|error| error.to_string())?;
            let stored_acl = take(znode.acl_len);
            let data = znode.data_len.map(&mut take);
            if stored_acl.is_empty() {
                db.load_znode(path, data, &open, &znode.stat);
            } else {
                let acl = super::acl::decode(stored_acl)
                    .map_err(|error| format!("the ACL of {path}: {error}"))?;
                db.load_znode(path, data, &acl, &znode.stat);
            }
        }
        for (id, timeout_ms) in self.sessions {
            db.load_session(id, timeout_ms);
        }
        Ok(())
    }
}

/// Fills the database with the state, which must have the digest that it was written with. One thread
/// reads, this one builds: a large tree is mostly memory to be filled.
fn load(
    db: &mut Database,
    state: &State,
    meta: Meta,
    digest_enabled: bool,
) -> Result<(), RecoveryError> {
    let applied = meta.applied;
    let bad = |reason: String| RecoveryError::Tree { applied, reason };
    let (chunks, received) = sync_channel::<Chunk>(CHUNKS_AHEAD);
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let mut chunk = Chunk::default();
            state.snapshot().scan(|item| {
                chunk.pack(item);
                if chunk.znodes.len() + chunk.sessions.len() >= CHUNK {
                    // Nobody receives any more: the builder has found an error, which it reports.
                    drop(chunks.send(std::mem::take(&mut chunk)));
                }
                Ok::<_, StorageError>(())
            })?;
            drop(chunks.send(chunk));
            Ok::<_, StorageError>(())
        });
        for chunk in received {
            chunk.unpack(db).map_err(bad)?;
        }
        reader.join().expect("a panic ends the process")?;
        Ok::<_, RecoveryError>(())
    })?;
    db.finish_load(applied).map_err(|error| bad(error.to_string()))?;
    let digest = db.tree.digest();
    if digest_enabled && meta.digest != 0 && digest != meta.digest {
        return Err(bad(format!(
            "its digest is {digest:x}, and {:x} was written down",
            meta.digest
        )));
    }
    Ok(())
}

fn elapsed_us(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX)
}
