//! A snapshot from a leader, on its way to becoming the state.

use std::path::Path;
use std::sync::atomic::Ordering;

use zk_proto::SessionId;

use super::{Generation, Meta, State, Tables, generation};
use crate::error::StorageError;
use crate::identity::random_u64;
use crate::key::{META_KEY, ZnodeValue, encode_meta, encode_znode, session_key, znode_key};

/// So many bytes of entries are sorted in memory; each such run becomes a piece of the database, which
/// merges them. Tests have small snapshots.
const RUN_BYTES: usize = if cfg!(test) { 64 << 10 } else { 16 << 20 };

/// Names a staged snapshot; drawn at random, and never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StagedId(pub(crate) u64);

impl StagedId {
    pub(crate) const LEN: usize = 8;

    pub(crate) fn to_bytes(self) -> [u8; Self::LEN] {
        self.0.to_le_bytes()
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let id = u64::from_le_bytes(bytes.try_into().ok()?);
        // The first generation was never staged.
        (id != 0).then_some(Self(id))
    }
}

/// A whole snapshot on disk, durable, which counts for nothing yet.
///
/// Append the batch of [`Write::InstallSnapshot`](crate::Write::InstallSnapshot) to the log, then
/// [`State::install`] it; or [`State::discard`] it. One that is lost is discarded by the next start.
#[derive(Debug, PartialEq, Eq)]
pub struct StagedState {
    id: StagedId,
    meta: Meta,
}

impl StagedState {
    /// Its name, for the log.
    #[must_use]
    pub fn id(&self) -> StagedId {
        self.id
    }

    /// What it is as of.
    #[must_use]
    pub fn meta(&self) -> Meta {
        self.meta
    }
}

impl State {
    /// Begins to stage a snapshot. Several may be staged at a time; none touches the state.
    ///
    /// # Errors
    /// As RocksDB says.
    pub fn stage(&self) -> Result<StagingWriter<'_>, StorageError> {
        let random = random_u64().map_err(StorageError::io("read", Path::new("/dev/urandom")))?;
        let id = StagedId(random.max(1));
        let name = Generation::of(id).name();
        let created = self.db.create_cf(&name, &self.table_options);
        created.map_err(|source| self.failed(source))?;
        Ok(StagingWriter {
            state: self,
            id,
            is_whole: false,
            bytes: Vec::new(),
            entries: Vec::new(),
            key: Vec::new(),
            value: Vec::new(),
        })
    }

    /// Makes the staged snapshot the state, durably. The log must say so already: call it as soon as
    /// the append of its [`Write::InstallSnapshot`](crate::Write::InstallSnapshot) has returned.
    ///
    /// No checkpoint may be begun between that append and the moment when the tree in memory is the
    /// snapshot's, and none that was begun before may be finished after it
    /// ([`StorageError::Superseded`]). Snapshots that are being read stay what they are.
    ///
    /// # Errors
    /// When that cannot be written down: the log and the state differ, so the process must end. The
    /// next start installs it.
    pub fn install(&self, staged: StagedState) -> Result<(), StorageError> {
        let StagedState { id, meta } = staged;
        let generation = Generation::of(id);
        generation::write(self.lock.folder(), generation)?;
        let replaced = {
            let mut current = self.current();
            let replaced = current.generation;
            (current.generation, current.meta) = (generation, Some(meta));
            self.applied.store(meta.applied.0, Ordering::Release);
            replaced
        };
        self.measure(generation);
        tracing::info!(zxid = %meta.applied, "a snapshot took the place of the state");
        self.drop_generation(replaced);
        Ok(())
    }

    /// Gives up a staged snapshot.
    pub fn discard(&self, staged: StagedState) {
        self.drop_generation(Generation::of(staged.id));
    }

    fn drop_generation(&self, generation: Generation) {
        if generation == Generation::FIRST {
            return; // see `reclaim`
        }
        if let Err(err) = self.db.drop_cf(&generation.name()) {
            tracing::warn!(%err, "a state that is not needed stays until the next start");
        }
    }
}

/// Gathers a snapshot, in any order. Dropped unfinished, it leaves nothing.
///
/// Takes some 20 MB of memory, however large the snapshot is.
pub struct StagingWriter<'a> {
    state: &'a State,
    id: StagedId,
    is_whole: bool,
    /// Keys and values of this run, one after the other.
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    key: Vec<u8>,
    value: Vec<u8>,
}

/// Where an entry stands in the bytes of its run.
#[derive(Debug, Clone, Copy)]
struct Entry {
    at: usize,
    key_len: usize,
    value_len: usize,
}

impl Entry {
    fn key(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.at..][..self.key_len]
    }

    fn value(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.at + self.key_len..][..self.value_len]
    }
}

impl StagingWriter<'_> {
    /// A znode; one that was there before is replaced.
    ///
    /// # Errors
    /// As RocksDB says: the disk.
    pub fn put_znode(&mut self, path: &str, value: &ZnodeValue<'_>) -> Result<(), StorageError> {
        let (mut key, mut encoded) =
            (std::mem::take(&mut self.key), std::mem::take(&mut self.value));
        znode_key(path, &mut key);
        encode_znode(value, &mut encoded);
        self.put(&key, &encoded);
        (self.key, self.value) = (key, encoded);
        self.flush_if_full()
    }

    /// A session; one that was there before is replaced.
    ///
    /// # Errors
    /// As for [`Self::put_znode`].
    pub fn put_session(&mut self, id: SessionId, timeout_ms: i32) -> Result<(), StorageError> {
        self.put(&session_key(id), &timeout_ms.to_le_bytes());
        self.flush_if_full()
    }

    /// The snapshot is whole, and durable when this returns.
    ///
    /// # Errors
    /// As for [`Self::put_znode`].
    pub fn finish(mut self, meta: Meta) -> Result<StagedState, StorageError> {
        self.put(&META_KEY, &encode_meta(self.state.store, &meta));
        self.flush()?;
        self.is_whole = true;
        Ok(StagedState { id: self.id, meta })
    }

    fn put(&mut self, key: &[u8], value: &[u8]) {
        let (at, key_len, value_len) = (self.bytes.len(), key.len(), value.len());
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
        self.entries.push(Entry { at, key_len, value_len });
    }

    fn flush_if_full(&mut self) -> Result<(), StorageError> {
        let taken = self.bytes.len() + self.entries.len() * size_of::<Entry>();
        if taken >= RUN_BYTES { self.flush() } else { Ok(()) }
    }

    /// Puts the run into the database.
    fn flush(&mut self) -> Result<(), StorageError> {
        let bytes = &self.bytes;
        // Of entries with the same key the last one put counts.
        self.entries.sort_unstable_by(|a, b| a.key(bytes).cmp(b.key(bytes)).then(b.at.cmp(&a.at)));
        self.entries.dedup_by(|later, earlier| later.key(bytes) == earlier.key(bytes));
        let generation = Generation::of(self.id);
        let mut tables = Tables::new(self.state, &format!("staged-{}", generation.name()));
        let mut put = || {
            for entry in &self.entries {
                tables.put(entry.key(bytes), entry.value(bytes))?;
            }
            tables.close()?;
            tables.ingest(generation)
        };
        let result = put();
        tables.remove();
        self.bytes.clear();
        self.entries.clear();
        result
    }
}

impl Drop for StagingWriter<'_> {
    fn drop(&mut self) {
        if !self.is_whole {
            self.state.drop_generation(Generation::of(self.id));
        }
    }
}
