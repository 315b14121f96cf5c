//! The state: znodes and sessions as of an applied zxid, in RocksDB.
//!
//! A checkpoint writes only what changed since the one before. It is built as sorted table files
//! outside of the database and taken in at once: no memtable is filled, and after a crash either
//! all of it is there, its [`Meta`] included, or nothing.
//!
//! # Invariants
//!
//! - The state is always exactly what some checkpoint wrote: as of the zxid in its meta.
//! - The applied zxid never goes back.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompactionStyle, DBCompressionType, DBRawIterator, Env,
    InfoLogger, IngestExternalFileOptions, LogLevel, Options, ReadOptions, SstFileWriter,
    UniversalCompactOptions,
};
use zk_proto::{SessionId, Zxid};

use crate::error::StorageError;
use crate::identity::{FolderLock, StoreId};
use crate::key::{
    KeyType, META_KEY, ZnodeValue, encode_meta, encode_znode, parse_meta, parse_session,
    parse_session_key, parse_znode, parse_znode_key, session_key, znode_key,
};

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

/// The state on disk. Reading and one checkpoint at a time may go on side by side.
pub struct State {
    db: DB,
    table_options: Options,
    store: StoreId,
    lock: FolderLock,
    meta: Mutex<Option<Meta>>,
    in_checkpoint: AtomicBool,
}

impl State {
    /// Opens the state in a folder, or makes an empty one.
    pub(crate) fn open(lock: FolderLock, store: StoreId) -> Result<Self, StorageError> {
        let tables = Self::tables(&lock);
        match fs::remove_dir_all(&tables) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => {
                return Err(StorageError::io("remove", &tables)(err));
            }
            Ok(()) | Err(_) => {}
        }
        fs::create_dir(&tables).map_err(StorageError::io("create", &tables))?;
        let path = lock.folder().join("db");
        let failed = |source| StorageError::RocksDb { path: path.clone(), source };
        let table_options = options().map_err(failed)?;
        let db = DB::open(&table_options, &path).map_err(failed)?;
        let meta = match db.get(META_KEY).map_err(failed)? {
            None => None,
            Some(value) => {
                let bad = || StorageError::BadState { path: path.clone(), what: "meta".to_owned() };
                let (found, meta) = parse_meta(&value).ok_or_else(bad)?;
                if found != store {
                    return Err(StorageError::Foreign { path, expected: store, found });
                }
                Some(meta)
            }
        };
        Ok(Self {
            db,
            table_options,
            store,
            lock,
            meta: Mutex::new(meta),
            in_checkpoint: AtomicBool::new(false),
        })
    }

    /// What the state is as of; `None` before the first checkpoint.
    #[must_use]
    pub fn meta(&self) -> Option<Meta> {
        *self.meta.lock().unwrap_or_else(PoisonError::into_inner)
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
            open: None,
            files: Vec::new(),
            key: Vec::new(),
            value: Vec::new(),
        }
    }

    /// The state as it is now, untouched by later checkpoints.
    #[must_use]
    pub fn snapshot(&self) -> StateSnapshot<'_> {
        // Under the lock, so that no checkpoint falls between the two.
        let meta = self.meta.lock().unwrap_or_else(PoisonError::into_inner);
        StateSnapshot { state: self, snapshot: self.db.snapshot(), meta: *meta }
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
    snapshot: rocksdb::Snapshot<'a>,
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
        mut take: impl FnMut(StateItem<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut options = ReadOptions::default();
        options.set_readahead_size(READAHEAD_BYTES);
        options.fill_cache(false);
        let mut iterator: DBRawIterator<'_> = self.snapshot.raw_iterator_opt(options);
        iterator.seek_to_first();
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
    open: Option<SstFileWriter<'a>>,
    files: Vec<PathBuf>,
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
        self.put()
    }

    /// The znode was deleted. It may have come and gone since the last checkpoint.
    ///
    /// # Errors
    /// As for [`Self::put_znode`].
    pub fn delete_znode(&mut self, path: &str) -> Result<(), StorageError> {
        znode_key(path, &mut self.key);
        self.delete()
    }

    /// The session was opened.
    ///
    /// # Errors
    /// As for [`Self::put_znode`].
    pub fn put_session(&mut self, id: SessionId, timeout_ms: i32) -> Result<(), StorageError> {
        self.key.splice(.., session_key(id));
        self.value.splice(.., timeout_ms.to_le_bytes());
        self.put()
    }

    /// The session was closed. It may have come and gone since the last checkpoint.
    ///
    /// # Errors
    /// As for [`Self::put_znode`].
    pub fn delete_session(&mut self, id: SessionId) -> Result<(), StorageError> {
        self.key.splice(.., session_key(id));
        self.delete()
    }

    /// Makes the checkpoint the state, durably: all of it or, after a crash, nothing.
    ///
    /// # Errors
    /// As for [`Self::put_znode`].
    ///
    /// # Panics
    /// When the applied zxid goes back.
    pub fn finish(mut self, meta: Meta) -> Result<(), StorageError> {
        if let Some(before) = self.state.meta() {
            let (from, to) = (before.applied, meta.applied);
            assert!(from <= to, "the applied zxid went back from {from} to {to}");
        }
        self.key.splice(.., META_KEY);
        self.value = encode_meta(self.state.store, &meta);
        self.put()?;
        self.close_file()?;
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        // With the meta locked: a snapshot sees either both or none.
        let mut current = self.state.meta.lock().unwrap_or_else(PoisonError::into_inner);
        let files = self.files.clone();
        let ingested = self.state.db.ingest_external_file_opts(&options, files);
        ingested.map_err(|source| self.state.failed(source))?;
        *current = Some(meta);
        Ok(())
    }

    fn put(&mut self) -> Result<(), StorageError> {
        self.make_file()?;
        let writer = self.open.as_mut().expect("made above");
        let put = writer.put(&self.key, &self.value);
        put.map_err(|source| self.state.failed(source))
    }

    fn delete(&mut self) -> Result<(), StorageError> {
        self.make_file()?;
        let writer = self.open.as_mut().expect("made above");
        let deleted = writer.delete(&self.key);
        deleted.map_err(|source| self.state.failed(source))
    }

    /// Has a file open that is not full.
    fn make_file(&mut self) -> Result<(), StorageError> {
        if self.open.as_ref().is_some_and(|writer| writer.file_size() >= FILE_BYTES) {
            self.close_file()?;
        }
        if self.open.is_none() {
            let name = format!("{:06}.sst", self.files.len());
            let path = State::tables(&self.state.lock).join(name);
            let writer = SstFileWriter::create(&self.state.table_options);
            writer.open(&path).map_err(|source| self.state.failed(source))?;
            self.open = Some(writer);
            self.files.push(path);
        }
        Ok(())
    }

    fn close_file(&mut self) -> Result<(), StorageError> {
        let Some(mut writer) = self.open.take() else { return Ok(()) };
        writer.finish().map_err(|source| self.state.failed(source))
    }
}

impl Drop for CheckpointWriter<'_> {
    fn drop(&mut self) {
        self.open = None;
        for path in &self.files {
            // Files that were taken in are gone already.
            if let Err(err) = fs::remove_file(path)
                && err.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(file = %path.display(), %err, "cannot remove");
            }
        }
        self.state.in_checkpoint.store(false, Ordering::Release);
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
            LogLevel::Debug | LogLevel::Info | LogLevel::Header => tracing::debug!(message),
            LogLevel::Warn => tracing::warn!(message),
            LogLevel::Error | LogLevel::Fatal => tracing::error!(message),
        }
    }));
    Ok(options)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use zk_proto::data::StatPersisted;

    use super::*;
    use crate::identity::lock;

    const STORE: StoreId = StoreId(0x5702e);

    fn open(folder: &Path) -> State {
        State::open(lock(folder).unwrap(), STORE).unwrap()
    }

    fn meta(applied: i64) -> Meta {
        Meta { applied: Zxid(applied), digest: applied.cast_unsigned() * 3, time_ms: applied * 5 }
    }

    fn znode(data: &[u8], czxid: i64) -> ZnodeValue<'_> {
        ZnodeValue {
            data: (!data.is_empty()).then_some(data),
            acl: b"",
            stat: StatPersisted { czxid, ..StatPersisted::default() },
        }
    }

    /// Znodes' data and czxid, and sessions.
    type Content = (BTreeMap<String, (Vec<u8>, i64)>, BTreeMap<i64, i32>);

    fn content(snapshot: &StateSnapshot<'_>) -> Content {
        let mut content = Content::default();
        let mut paths = Vec::new();
        snapshot
            .scan(|item| {
                match item {
                    StateItem::Znode { path, value } => {
                        assert!(content.1.is_empty(), "znodes come first");
                        paths.push(path.to_owned());
                        let data = value.data.unwrap_or_default().to_vec();
                        content.0.insert(path.to_owned(), (data, value.stat.czxid));
                    }
                    StateItem::Session { id, timeout_ms } => {
                        content.1.insert(id.0, timeout_ms);
                    }
                }
                Ok::<(), StorageError>(())
            })
            .unwrap();
        assert!(paths.is_sorted());
        content
    }

    #[test]
    fn checkpoints_add_up_and_a_snapshot_stays_what_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = open(folder.path());
        assert_eq!((state.meta(), content(&state.snapshot())), (None, Content::default()));
        let mut model = Content::default();
        let mut random = 1_u64;
        let mut draw = |limit: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % limit
        };
        // More than enough for merges of older checkpoints to go on beside.
        for checkpoint in 1..=60 {
            let before = model.clone();
            let mut changed: BTreeMap<String, Option<(Vec<u8>, i64)>> = BTreeMap::new();
            for _ in 0..200 {
                let path = format!("/{}/{}", draw(10), draw(100));
                let data = vec![b'x'; usize::try_from(draw(300)).unwrap()];
                changed.insert(path, (draw(4) > 0).then_some((data, checkpoint)));
            }
            let snapshot = state.snapshot();
            let mut writer = state.begin_checkpoint();
            for (path, change) in &changed {
                match change {
                    Some((data, czxid)) => {
                        writer.put_znode(path, &znode(data, *czxid)).unwrap();
                        model.0.insert(path.clone(), (data.clone(), *czxid));
                    }
                    None => {
                        writer.delete_znode(path).unwrap();
                        model.0.remove(path);
                    }
                }
            }
            let (closed, opened) = (checkpoint - 7, checkpoint);
            writer.delete_session(SessionId(closed)).unwrap();
            writer.put_session(SessionId(opened), 4000).unwrap();
            model.1.remove(&closed);
            model.1.insert(opened, 4000);
            writer.finish(meta(checkpoint)).unwrap();
            assert_eq!(state.meta(), Some(meta(checkpoint)));
            assert_eq!(content(&snapshot), before);
            assert_eq!(snapshot.meta().map(|meta| meta.applied.0).unwrap_or(0), checkpoint - 1);
            drop(snapshot);
            if checkpoint % 9 == 0 {
                drop(state);
                state = open(folder.path());
            }
            assert_eq!(state.meta(), Some(meta(checkpoint)));
            assert_eq!(content(&state.snapshot()), model, "checkpoint {checkpoint}");
        }
    }

    #[test]
    fn a_checkpoint_of_many_files_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let state = open(folder.path());
        let data = vec![7; 1 << 20];
        for round in 1..=2 {
            let mut writer = state.begin_checkpoint();
            for name in 10..40 {
                writer.put_znode(&format!("/{name}"), &znode(&data, round)).unwrap();
            }
            assert!(writer.files.len() > 2);
            writer.finish(meta(round)).unwrap();
        }
        let (znodes, _) = content(&state.snapshot());
        assert_eq!(znodes.len(), 30);
        assert!(znodes.values().all(|(found, czxid)| *found == data && *czxid == 2));
    }

    #[test]
    fn an_unfinished_checkpoint_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let state = open(folder.path());
        let mut writer = state.begin_checkpoint();
        writer.put_znode("/a", &znode(b"x", 1)).unwrap();
        drop(writer);
        assert_eq!(content(&state.snapshot()), Content::default());
        state.begin_checkpoint().finish(meta(4)).unwrap();
        assert_eq!(state.meta(), Some(meta(4)));
        let left = fs::read_dir(State::tables(&state.lock)).unwrap().count();
        assert_eq!(left, 0);
    }

    #[test]
    fn entries_out_of_order_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let state = open(folder.path());
        let mut writer = state.begin_checkpoint();
        writer.put_znode("/b", &znode(b"x", 1)).unwrap();
        assert!(writer.put_znode("/a", &znode(b"x", 1)).is_err());
        assert!(writer.delete_znode("/b").is_err());
    }

    #[test]
    #[should_panic(expected = "the applied zxid went back")]
    fn an_applied_zxid_that_goes_back_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let state = open(folder.path());
        state.begin_checkpoint().finish(meta(4)).unwrap();
        drop(state.begin_checkpoint().finish(meta(3)));
    }

    #[test]
    fn a_flipped_bit_in_a_table_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let state = open(folder.path());
        let mut writer = state.begin_checkpoint();
        for name in 1000..2000 {
            writer.put_znode(&format!("/{name}"), &znode(&[7; 100], 1)).unwrap();
        }
        writer.finish(meta(1)).unwrap();
        let size = content(&state.snapshot()).0.len();
        assert_eq!(size, 1000);
        drop(state);
        let tables: Vec<_> = fs::read_dir(folder.path().join("db"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "sst"))
            .collect();
        let [table] = &tables[..] else { panic!("{tables:?}") };
        let mut bytes = fs::read(table).unwrap();
        bytes[50_000] ^= 1;
        fs::write(table, bytes).unwrap();
        let state = open(folder.path());
        let err = state.snapshot().scan(|_| Ok::<(), StorageError>(())).unwrap_err();
        assert!(matches!(&err, StorageError::RocksDb { .. }), "{err}");
        assert!(err.to_string().contains("Corruption"), "{err}");
    }
}
