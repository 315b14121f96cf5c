//! The state: znodes and sessions as of an applied zxid, in RocksDB.
//!
//! A checkpoint writes only what changed since the one before. It is built as sorted table files
//! outside of the database and taken in at once: no memtable is filled, and after a crash either
//! all of it is there, its [`Meta`] included, or nothing.
//!
//! A snapshot from a leader takes the place of everything. It is staged as another **generation**, a
//! column family beside the current one, in the background and for as long as it takes. The log then
//! says that it counts, and [`State::install`] writes down that it is the current one: after a crash in
//! between [`open`](crate::open) does it. What is no longer current, or never was, goes.
//!
//! # Invariants
//!
//! - The state is always exactly what some checkpoint or snapshot wrote: as of the zxid in its meta.
//! - The applied zxid never goes back within a generation.
//! - A generation becomes the current one only after the log said so, durably.

mod generation;
mod staging;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use rocksdb::{
    BlockBasedOptions, BoundColumnFamily, Cache, ColumnFamilyDescriptor, DBCompactionStyle,
    DBCompressionType, DBRawIteratorWithThreadMode, DBWithThreadMode, Env, InfoLogger,
    IngestExternalFileOptions, LogLevel, MultiThreaded, Options, ReadOptions,
    SnapshotWithThreadMode, SstFileWriter, UniversalCompactOptions, WriteOptions,
};
use zk_proto::{SessionId, Zxid};

use crate::error::StorageError;
use crate::identity::{FolderLock, StoreId};
use crate::key::{
    KeyType, META_KEY, ZnodeValue, encode_meta, encode_znode, parse_meta, parse_session,
    parse_session_key, parse_znode, parse_znode_key, session_key, znode_key,
};
use crate::txn_log::Install;
use generation::Generation;
pub use staging::{StagedId, StagedState, StagingWriter};

type Db = DBWithThreadMode<MultiThreaded>;

/// Blocks of tables in memory. The state is read from end to end, so a cache gains nothing.
const BLOCK_CACHE_BYTES: usize = 4 << 20;
const BLOCK_BYTES: usize = 16 << 10;
const READAHEAD_BYTES: usize = 2 << 20;
/// A checkpoint goes on in another file, and so is synced, after so many bytes: the log's own syncs
/// must not wait for a huge one.
const FILE_BYTES: u64 = 8 << 20;
/// Merging of older checkpoints takes this much of the disk a second, and leaves the rest to the log.
const COMPACTION_BYTES_PER_SECOND: i64 = 48 << 20;
/// So many checkpoints, or larger runs merged from them, lie beside each other before they are merged.
const RUNS: i32 = 8;
/// How long RocksDB may read its list of files, which takes milliseconds.
const MANIFEST_PATIENCE: Duration = Duration::from_secs(30);

/// What a state is as of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// Every transaction up to this one is in the state, and none after it.
    pub applied: Zxid,
    /// The tree's digest there.
    pub digest: u64,
    /// When the checkpoint was made, in ms since 1970.
    pub time_ms: i64,
}

/// One entry of the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateItem<'a> {
    /// A znode. They come in the order of their paths' bytes: a parent before its children.
    Znode {
        /// Its path.
        path: &'a str,
        /// Its content.
        value: ZnodeValue<'a>,
    },
    /// A session; all of them come after the znodes, in the order of their ids.
    Session {
        /// Its id.
        id: SessionId,
        /// Its negotiated timeout.
        timeout_ms: i32,
    },
}

/// The state on disk. Reading, staging and one checkpoint at a time may go on side by side.
pub struct State {
    db: Db,
    table_options: Options,
    store: StoreId,
    lock: FolderLock,
    current: Mutex<Current>,
    in_checkpoint: AtomicBool,
    applied: Arc<AtomicI64>,
    bytes: Arc<AtomicU64>,
}

#[derive(Debug, Clone, Copy)]
struct Current {
    generation: Generation,
    meta: Option<Meta>,
}

impl State {
    /// Opens the state in a folder, or makes an empty one. `install` is the last snapshot that the log
    /// goes on from: if it is not the state yet, it becomes so now.
    pub(crate) fn open(
        lock: FolderLock,
        store: StoreId,
        install: Option<Install>,
    ) -> Result<Self, StorageError> {
        let tables = Self::tables(&lock);
        match fs::remove_dir_all(&tables) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => {
                return Err(StorageError::io("remove", &tables)(err));
            }
            Ok(()) | Err(_) => {}
        }
        fs::create_dir(&tables).map_err(StorageError::io("create", &tables))?;
        let mut generation = generation::read(lock.folder())?;
        let path = lock.folder().join("db");
        let failed = |source| StorageError::RocksDb { path: path.clone(), source };
        let table_options = options().map_err(failed)?;
        // The first generation's family is there in any case.
        let mut names = BTreeSet::from([Generation::FIRST.name()]);
        if path.join("CURRENT").exists() {
            names.extend(families(&table_options, &path, MANIFEST_PATIENCE)?);
        }
        let families: Vec<_> = names
            .iter()
            .map(|name| ColumnFamilyDescriptor::new(name, table_options.clone()))
            .collect();
        let db = Db::open_cf_descriptors(&table_options, &path, families).map_err(failed)?;
        let bad = |what: &str| StorageError::BadState { path: path.clone(), what: what.to_owned() };
        let read_meta = |generation: Generation| -> Result<Option<Meta>, StorageError> {
            let Some(family) = db.cf_handle(&generation.name()) else { return Ok(None) };
            let Some(value) = db.get_cf(&family, META_KEY).map_err(failed)? else {
                return Ok(None);
            };
            let (found, meta) = parse_meta(&value).ok_or_else(|| bad("meta"))?;
            if found != store {
                return Err(StorageError::Foreign { path: path.clone(), expected: store, found });
            }
            Ok(Some(meta))
        };
        if let Some(Install { zxid, staged, .. }) = install
            && Generation::of(staged) != generation
        {
            let staged = Generation::of(staged);
            if read_meta(staged)?.is_none_or(|meta| meta.applied != zxid) {
                let state = lock.folder().to_owned();
                return Err(StorageError::MissingSnapshot { state, zxid });
            }
            generation::write(lock.folder(), staged)?;
            generation = staged;
            tracing::info!(%zxid, "the state is a snapshot that had been received before the last stop");
        }
        let name = generation.name();
        if !names.contains(&name) {
            return Err(bad("list of generations: the current one is not there"));
        }
        for other in names.iter().filter(|other| **other != name) {
            if *other != Generation::FIRST.name() {
                db.drop_cf(other).map_err(failed)?;
            }
        }
        let meta = read_meta(generation)?;
        let applied = meta.map_or(0, |meta| meta.applied.0);
        let state = Self {
            db,
            table_options,
            store,
            lock,
            current: Mutex::new(Current { generation, meta }),
            in_checkpoint: AtomicBool::new(false),
            applied: Arc::new(AtomicI64::new(applied)),
            bytes: Arc::default(),
        };
        state.measure(generation);
        Ok(state)
    }

    /// What the state is as of; `None` before the first checkpoint.
    #[must_use]
    pub fn meta(&self) -> Option<Meta> {
        self.current().meta
    }

    /// Starts a checkpoint.
    ///
    /// # Panics
    /// While another checkpoint goes on.
    #[must_use]
    pub fn begin_checkpoint(&self) -> CheckpointWriter<'_> {
        let other = self.in_checkpoint.swap(true, Ordering::Acquire);
        assert!(!other, "one checkpoint at a time");
        CheckpointWriter {
            state: self,
            generation: self.current().generation,
            tables: Tables::new(self, "checkpoint"),
            key: Vec::new(),
            value: Vec::new(),
        }
    }

    /// The state as it is now, untouched by later checkpoints and installations.
    #[must_use]
    pub fn snapshot(&self) -> StateSnapshot<'_> {
        // Under the lock, so that no checkpoint falls between the two.
        let current = self.current();
        StateSnapshot {
            state: self,
            family: self.family(current.generation),
            snapshot: self.db.snapshot(),
            meta: current.meta,
        }
    }

    /// Frees the space of a state that an installed snapshot replaced, where that takes time. Cheap
    /// when there is nothing to do; for a background thread, now and then.
    ///
    /// # Errors
    /// As RocksDB says. Nothing that counts is touched.
    pub fn reclaim(&self) -> Result<(), StorageError> {
        // Every other generation's family went as a whole.
        let first = self.family(Generation::FIRST);
        if self.current().generation == Generation::FIRST || self.size(&first) == 0 {
            return Ok(());
        }
        let mut write = WriteOptions::default();
        write.disable_wal(true);
        let deleted = self.db.delete_range_cf_opt(&first, &[0][..], &[u8::MAX][..], &write);
        deleted.and_then(|()| self.db.flush_cf(&first)).map_err(|source| self.failed(source))?;
        self.db.compact_range_cf(&first, None::<&[u8]>, None::<&[u8]>);
        Ok(())
    }

    /// The applied zxid, kept up to date: as of a checkpoint before that is durable, as of an
    /// installed snapshot after.
    pub(crate) fn applied_cell(&self) -> Arc<AtomicI64> {
        Arc::clone(&self.applied)
    }

    /// About how many bytes the state takes, kept up to date.
    pub(crate) fn bytes_cell(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.bytes)
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn family(&self, generation: Generation) -> Arc<BoundColumnFamily<'_>> {
        let family = self.db.cf_handle(&generation.name());
        family.expect("the first generation and the current one are there")
    }

    fn size(&self, family: &Arc<BoundColumnFamily<'_>>) -> u64 {
        let size = self.db.property_int_value_cf(family, "rocksdb.live-sst-files-size");
        size.ok().flatten().unwrap_or_default()
    }

    fn measure(&self, generation: Generation) {
        self.bytes.store(self.size(&self.family(generation)), Ordering::Relaxed);
    }

    fn tables(lock: &FolderLock) -> PathBuf {
        lock.folder().join("checkpoint")
    }

    fn failed(&self, source: rocksdb::Error) -> StorageError {
        StorageError::RocksDb { path: self.db.path().to_owned(), source }
    }
}

/// A point in time of the state.
pub struct StateSnapshot<'a> {
    state: &'a State,
    family: Arc<BoundColumnFamily<'a>>,
    snapshot: SnapshotWithThreadMode<'a, Db>,
    meta: Option<Meta>,
}

impl StateSnapshot<'_> {
    /// What it is as of; `None` when it is empty.
    #[must_use]
    pub fn meta(&self) -> Option<Meta> {
        self.meta
    }

    /// Hands every entry to `take`, in order, until it fails.
    ///
    /// # Errors
    /// The first error of `take`, or that the state cannot be read: a block with a wrong checksum, or
    /// an entry that makes no sense.
    pub fn scan<E: From<StorageError>>(
        &self,
        take: impl FnMut(StateItem<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.scan_from(KeyType::Znode, KeyType::Meta, take)
    }

    /// Hands every znode to `take`, as [`Self::scan`] does.
    ///
    /// # Errors
    /// As for [`Self::scan`].
    pub fn scan_znodes<E: From<StorageError>>(
        &self,
        mut take: impl FnMut(&str, ZnodeValue<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.scan_from(KeyType::Znode, KeyType::Session, |item| match item {
            StateItem::Znode { path, value } => take(path, value),
            StateItem::Session { .. } => Ok(()),
        })
    }

    /// Hands every session to `take`, as [`Self::scan`] does.
    ///
    /// # Errors
    /// As for [`Self::scan`].
    pub fn scan_sessions<E: From<StorageError>>(
        &self,
        mut take: impl FnMut(SessionId, i32) -> Result<(), E>,
    ) -> Result<(), E> {
        self.scan_from(KeyType::Session, KeyType::Meta, |item| match item {
            StateItem::Session { id, timeout_ms } => take(id, timeout_ms),
            StateItem::Znode { .. } => Ok(()),
        })
    }

    fn scan_from<E: From<StorageError>>(
        &self,
        from: KeyType,
        to: KeyType,
        mut take: impl FnMut(StateItem<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut options = ReadOptions::default();
        options.set_readahead_size(READAHEAD_BYTES);
        options.fill_cache(false);
        options.set_iterate_upper_bound(vec![to as u8]);
        let mut iterator: DBRawIteratorWithThreadMode<'_, Db> =
            self.snapshot.raw_iterator_cf_opt(&self.family, options);
        iterator.seek([from as u8]);
        while let Some((key, value)) = iterator.item() {
            let bad = || StorageError::BadState {
                path: self.state.db.path().to_owned(),
                what: format!("entry with key {}", key.escape_ascii()),
            };
            match KeyType::of(key).ok_or_else(bad)? {
                KeyType::Znode => {
                    let path = parse_znode_key(key).ok_or_else(bad)?;
                    let value = parse_znode(value).ok_or_else(bad)?;
                    take(StateItem::Znode { path, value })?;
                }
                KeyType::Session => {
                    let id = parse_session_key(key).ok_or_else(bad)?;
                    let timeout_ms = parse_session(value).ok_or_else(bad)?;
                    take(StateItem::Session { id, timeout_ms })?;
                }
                KeyType::Meta => {}
            }
            iterator.next();
        }
        Ok(iterator.status().map_err(|source| self.state.failed(source))?)
    }
}

/// Gathers what changed since the last checkpoint. Entries come in order: znodes by the bytes of
/// their paths, then sessions by their ids. Dropped unfinished, it leaves the state as it was.
pub struct CheckpointWriter<'a> {
    state: &'a State,
    generation: Generation,
    tables: Tables<'a>,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl CheckpointWriter<'_> {
    /// The znode was created or changed.
    ///
    /// # Errors
    /// As RocksDB says: the disk, or an entry out of order.
    pub fn put_znode(&mut self, path: &str, value: &ZnodeValue<'_>) -> Result<(), StorageError> {
        znode_key(path, &mut self.key);
        encode_znode(value, &mut self.value);
        self.tables.put(&self.key, &self.value)
    }

    /// The znode was deleted. It may have come and gone since the last checkpoint.
    ///
    /// # Errors
    /// As for [`Self::put_znode`].
    pub fn delete_znode(&mut self, path: &str) -> Result<(), StorageError> {
        znode_key(path, &mut self.key);
        self.tables.delete(&self.key)
    }

    /// The session was opened.
    ///
    /// # Errors
    /// As for [`Self::put_znode`].
    pub fn put_session(&mut self, id: SessionId, timeout_ms: i32) -> Result<(), StorageError> {
        self.tables.put(&session_key(id), &timeout_ms.to_le_bytes())
    }

    /// The session was closed. It may have come and gone since the last checkpoint.
    ///
    /// # Errors
    /// As for [`Self::put_znode`].
    pub fn delete_session(&mut self, id: SessionId) -> Result<(), StorageError> {
        self.tables.delete(&session_key(id))
    }

    /// Makes the checkpoint the state, durably: all of it or, after a crash, nothing.
    ///
    /// # Errors
    /// As for [`Self::put_znode`]. [`StorageError::Superseded`] when a snapshot was installed since it
    /// began: it says nothing about that one.
    ///
    /// # Panics
    /// When the applied zxid goes back.
    pub fn finish(mut self, meta: Meta) -> Result<(), StorageError> {
        self.tables.put(&META_KEY, &encode_meta(self.state.store, &meta))?;
        self.tables.close()?;
        // With the current generation and its meta locked: a snapshot sees either both or none.
        let mut current = self.state.current();
        if current.generation != self.generation {
            return Err(StorageError::Superseded);
        }
        if let Some(before) = current.meta {
            let (from, to) = (before.applied, meta.applied);
            assert!(from <= to, "the applied zxid went back from {from} to {to}");
        }
        // Before it is there: a truncation beside this must not slip in below it.
        self.state.applied.store(meta.applied.0, Ordering::Release);
        self.tables.ingest(self.generation)?;
        current.meta = Some(meta);
        drop(current);
        self.state.measure(self.generation);
        Ok(())
    }
}

impl Drop for CheckpointWriter<'_> {
    fn drop(&mut self) {
        self.tables.remove();
        self.state.in_checkpoint.store(false, Ordering::Release);
    }
}

/// Sorted table files outside of the database, to be taken in at once.
struct Tables<'a> {
    state: &'a State,
    prefix: String,
    open: Option<SstFileWriter<'a>>,
    files: Vec<PathBuf>,
}

impl<'a> Tables<'a> {
    fn new(state: &'a State, prefix: &str) -> Self {
        Self { state, prefix: prefix.to_owned(), open: None, files: Vec::new() }
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
        let state = self.state;
        let put = self.writer()?.put(key, value);
        put.map_err(|source| state.failed(source))
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), StorageError> {
        let state = self.state;
        let deleted = self.writer()?.delete(key);
        deleted.map_err(|source| state.failed(source))
    }

    /// An open file that is not full.
    fn writer(&mut self) -> Result<&mut SstFileWriter<'a>, StorageError> {
        if self.open.as_ref().is_some_and(|writer| writer.file_size() >= FILE_BYTES) {
            self.close()?;
        }
        if self.open.is_none() {
            let name = format!("{}-{:06}.sst", self.prefix, self.files.len());
            let path = State::tables(&self.state.lock).join(name);
            let writer = SstFileWriter::create(&self.state.table_options);
            writer.open(&path).map_err(|source| self.state.failed(source))?;
            self.open = Some(writer);
            self.files.push(path);
        }
        Ok(self.open.as_mut().expect("made above"))
    }

    fn close(&mut self) -> Result<(), StorageError> {
        let Some(mut writer) = self.open.take() else { return Ok(()) };
        writer.finish().map_err(|source| self.state.failed(source))
    }

    /// Moves the closed files into the database, all of them or none.
    fn ingest(&mut self, generation: Generation) -> Result<(), StorageError> {
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        let family = self.state.family(generation);
        let files = self.files.clone();
        let ingested = self.state.db.ingest_external_file_cf_opts(&family, &options, files);
        ingested.map_err(|source| self.state.failed(source))
    }

    /// Forgets the files, and removes those that were not taken in.
    fn remove(&mut self) {
        self.open = None;
        for path in self.files.drain(..) {
            if let Err(err) = fs::remove_file(&path)
                && err.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(file = %path.display(), %err, "cannot remove");
            }
        }
    }
}

/// The column families there are. RocksDB reads some damaged manifests for ever: that would look like a
/// start which never ends, so it is waited for in a thread of its own, which ends with the process.
fn families(
    options: &Options,
    path: &Path,
    patience: Duration,
) -> Result<Vec<String>, StorageError> {
    let (tell, told) = mpsc::channel();
    let (own_options, own_path) = (options.clone(), path.to_owned());
    thread::spawn(move || tell.send(Db::list_cf(&own_options, &own_path)));
    match told.recv_timeout(patience) {
        Ok(listed) => {
            listed.map_err(|source| StorageError::RocksDb { path: path.to_owned(), source })
        }
        Err(_) => Err(StorageError::EndlessManifest {
            path: path.to_owned(),
            seconds: patience.as_secs(),
        }),
    }
}

fn options() -> Result<Options, rocksdb::Error> {
    // Merging is in no hurry, and whoever serves clients is.
    let mut env = Env::new()?;
    env.lower_thread_pool_cpu_priority();
    env.lower_thread_pool_io_priority();

    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(BLOCK_CACHE_BYTES));
    table.set_block_size(BLOCK_BYTES);
    let mut universal = UniversalCompactOptions::default();
    // At most twice the live data on disk.
    universal.set_max_size_amplification_percent(100);

    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_env(&env);
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::None);
    // Runs of similar size are merged: each entry is rewritten a logarithmic number of times, where
    // levels would rewrite ten neighbours of every changed entry.
    options.set_compaction_style(DBCompactionStyle::Universal);
    options.set_universal_compaction_options(&universal);
    options.set_level_zero_file_num_compaction_trigger(RUNS);
    options.set_ratelimiter(COMPACTION_BYTES_PER_SECOND, 100_000, 10);
    options.set_bytes_per_sync(1 << 20);
    options.set_target_file_size_base(32 << 20);
    options.set_max_open_files(256);
    // Nothing is ever written but through table files.
    options.set_write_buffer_size(64 << 10);
    options.set_max_manifest_file_size(4 << 20);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_info_logger(InfoLogger::new_callback_logger(LogLevel::Warn, |level, message| {
        let message = message.trim_end();
        match level {
            // Its warnings are about its own tuning, at each table file that is taken in: nothing that
            // an operator could act on. What fails is returned, and reported where it is.
            LogLevel::Debug | LogLevel::Info | LogLevel::Header | LogLevel::Warn => {
                tracing::debug!(message);
            }
            LogLevel::Error | LogLevel::Fatal => tracing::error!(message),
        }
    }));
    Ok(options)
}
