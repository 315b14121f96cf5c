//! Where the imported data goes.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use zk_proto::Zxid;

use crate::disk::sync_folder;
use crate::error::StorageError;
use crate::identity::{self, FolderLock, StoreId};
use crate::recover::{StorageConfig, folders};
use crate::state::{StagedState, State};
use crate::txn_log::{Epochs, Log, LogConfig, Write};

/// In both folders while an import goes on: what is in them counts for nothing.
const MARKER: &str = "importing";
const LOCK: &str = "lock";

/// So many bytes of transactions are one append, and so one sync.
const BATCH_BYTES: usize = 1 << 20;

/// A store in the making. Dropped unfinished, or after a crash, it counts for nothing.
///
/// First [`Self::begin_from`] a snapshot, if there is one; then come the transactions behind it, in
/// order, and checkpoints of the state that they lead to.
pub struct Importer {
    log: Log,
    state: State,
    store: StoreId,
    log_folder: PathBuf,
    state_folder: PathBuf,
    batch: Vec<Write>,
    batch_bytes: usize,
}

impl Importer {
    /// Makes the two folders and locks them.
    ///
    /// # Errors
    /// There is a store already, another process is at it, or the disk.
    pub fn new(config: &StorageConfig) -> Result<Self, StorageError> {
        let (log_folder, state_folder) = folders(config);
        let log_lock = identity::lock(&log_folder)?;
        let state_lock = identity::lock(&state_folder)?;
        for folder in [&log_folder, &state_folder] {
            if identity::read(folder)?.is_some() {
                return Err(StorageError::InUse {
                    path: folder.clone(),
                    pid: "unknown".to_owned(),
                });
            }
        }
        for lock in [&log_lock, &state_lock] {
            settle(lock, false)?;
            let left = entries(lock.folder())?;
            if let Some(path) =
                left.into_iter().find(|path| path.file_name() != Some(LOCK.as_ref()))
            {
                // Somebody's data without the file that says whose.
                return Err(StorageError::Identity { path });
            }
        }
        for lock in [&log_lock, &state_lock] {
            mark(lock.folder())?;
        }
        let random = Path::new("/dev/urandom");
        let store = StoreId::random().map_err(StorageError::io("read", random))?;
        // Once, and for good: this is no place to spare syncs.
        let log = Log::open(log_lock, store, LogConfig { force_sync: true, ..config.log })?;
        let state = State::open(state_lock, store, None)?;
        let (batch, batch_bytes) = (Vec::new(), 0);
        Ok(Self { log, state, store, log_folder, state_folder, batch, batch_bytes })
    }

    /// To stage the snapshot with, and to take checkpoints.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The log goes on from this snapshot, which is the state from now on.
    ///
    /// # Errors
    /// The disk.
    pub fn begin_from(&mut self, staged: StagedState) -> Result<(), StorageError> {
        let zxid = staged.meta().applied;
        // An epoch has to stand behind it; the true one is known when the log is read.
        let none = Epochs::default().current;
        let install = Write::InstallSnapshot { zxid, staged: staged.id() };
        self.log.append(&[install, Write::CurrentEpoch(none)])?;
        self.state.install(staged)
    }

    /// The next transaction.
    ///
    /// # Errors
    /// The disk.
    pub fn append(&mut self, zxid: Zxid, payload: Bytes) -> Result<(), StorageError> {
        self.batch_bytes += payload.len();
        self.batch.push(Write::Txn { zxid, payload });
        if self.batch_bytes >= BATCH_BYTES { self.flush() } else { Ok(()) }
    }

    /// Makes durable what was appended: before a checkpoint that has it.
    ///
    /// # Errors
    /// The disk.
    pub fn flush(&mut self) -> Result<(), StorageError> {
        self.log.append(&self.batch)?;
        self.batch.clear();
        self.batch_bytes = 0;
        if self.log.needs_next() {
            self.log.handle().prepare_next()?;
        }
        Ok(())
    }

    /// All of it is there: from here on it counts.
    ///
    /// # Errors
    /// The disk.
    pub fn finish(mut self, epochs: Epochs) -> Result<(), StorageError> {
        self.flush()?;
        let Epochs { accepted, current } = epochs;
        self.log.append(&[Write::AcceptedEpoch(accepted), Write::CurrentEpoch(current)])?;
        self.log.note_watermark()?;
        // With the first of these it is done; the next start writes the other, where it is missing.
        identity::write(&self.log_folder, self.store)?;
        identity::write(&self.state_folder, self.store)?;
        unmark(&self.log_folder)?;
        unmark(&self.state_folder)
    }
}

/// Clears up behind an import that did not come to its end, or only forgot to take its marker away
/// (`is_whole`).
pub(crate) fn settle(lock: &FolderLock, is_whole: bool) -> Result<(), StorageError> {
    let folder = lock.folder();
    let marker = folder.join(MARKER);
    if !marker.exists() {
        return Ok(());
    }
    if !is_whole {
        tracing::info!(folder = %folder.display(), "removing what an unfinished import has left");
        for path in entries(folder)? {
            if path != marker && path.file_name() != Some(LOCK.as_ref()) {
                let removed =
                    if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                removed.map_err(StorageError::io("remove", &path))?;
            }
        }
        sync_folder(folder).map_err(StorageError::io("sync", folder))?;
    }
    unmark(folder)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, StorageError> {
    let listed = fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect());
    listed.map_err(StorageError::io("list", folder))
}

fn mark(folder: &Path) -> Result<(), StorageError> {
    let path = folder.join(MARKER);
    let written = File::create(&path)
        .and_then(|mut file| {
            file.write_all(
                b"Apache ZooKeeper's data is being imported; nothing here counts yet.\n",
            )?;
            file.sync_all()
        })
        .and_then(|()| sync_folder(folder));
    written.map_err(StorageError::io("write", &path))
}

fn unmark(folder: &Path) -> Result<(), StorageError> {
    let path = folder.join(MARKER);
    match fs::remove_file(&path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => {
            return Err(StorageError::io("remove", &path)(err));
        }
        Ok(()) | Err(_) => {}
    }
    sync_folder(folder).map_err(StorageError::io("sync", folder))
}
