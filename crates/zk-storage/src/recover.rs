//! Opening everything that a server stored, and checking that it belongs together.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use zk_zab::Durable;

use crate::error::StorageError;
use crate::history::StoredHistory;
use crate::identity::{self, StoreId};
use crate::import::{self, ApacheFiles, ImportError};
use crate::state::State;
use crate::txn_log::{Log, LogConfig, Reader, remove_initialize};

/// The log's folder within dataLogDir.
const LOG_FOLDER: &str = "paddock-log";
/// The state's folder within dataDir.
const STATE_FOLDER: &str = "paddock-state";
/// In dataDir: the operator's word that a server without data is new, and has not lost it.
const INITIALIZE_FILE: &str = "initialize";

/// Where the data is, and how the log is kept.
#[derive(Debug, Clone)]
pub struct StorageConfig {
    /// `dataDir`; made where it is missing.
    pub data_dir: PathBuf,
    /// `dataLogDir`, which may be the same.
    pub data_log_dir: PathBuf,
    /// The log.
    pub log: LogConfig,
}

/// What a server starts from: the state, and the transactions to apply on top of it.
pub struct Opened {
    /// To write to. It knows the last zxid and the epochs.
    pub log: Log,
    /// As of [`Meta::applied`](crate::Meta::applied), or empty.
    pub state: State,
    /// The transactions above the applied zxid, in order.
    pub replay: Reader,
    /// Nothing was ever stored here, not even an epoch.
    pub is_new: bool,
    /// There is nothing yet, and dataDir holds upstream's file `initialize`. The first append removes
    /// it.
    pub initialized: bool,
}

impl Opened {
    /// What a member of an ensemble starts from, the transactions above the applied zxid in memory:
    /// they are what [`Self::replay`] would have given.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn take_durable(&mut self) -> Result<Durable, StorageError> {
        let epochs = self.log.epochs();
        Ok(Durable {
            accepted_epoch: epochs.accepted,
            current_epoch: epochs.current,
            applied: self.state.meta().map(|meta| meta.applied).unwrap_or_default(),
            tail: self.replay.by_ref().collect::<Result<_, _>>()?,
            initialized: self.initialized,
        })
    }

    /// The log and the state as those see them who plan what a learner is sent.
    #[must_use]
    pub fn history(&self) -> StoredHistory {
        StoredHistory { log: self.log.handle(), state_bytes: self.state.bytes_cell() }
    }
}

/// The log's folder and the state's.
pub(crate) fn folders(config: &StorageConfig) -> (PathBuf, PathBuf) {
    (config.data_log_dir.join(LOG_FOLDER), config.data_dir.join(STATE_FOLDER))
}

/// What stands before the data of a server is opened.
#[derive(Debug)]
pub enum Before {
    /// A store of ours, or nothing at all; to [`open`]. It was made at this time, where it is there.
    Ours(Option<SystemTime>),
    /// Only files of Apache ZooKeeper's: to be imported.
    Apache(ApacheFiles),
}

/// Looks whose data there is.
///
/// # Errors
/// What cannot be read, or makes no sense.
pub fn look(config: &StorageConfig) -> Result<Before, ImportError> {
    let (log_folder, state_folder) = folders(config);
    if identity::read(&log_folder)?.is_none()
        && identity::read(&state_folder)?.is_none()
        && let Some(files) = ApacheFiles::find(config)?
    {
        return Ok(Before::Apache(files));
    }
    Ok(Before::Ours(identity::made(&log_folder)))
}

/// Opens the data of one server, or makes it where there is none.
///
/// # Errors
/// See [`StorageError`]: whatever is missing, damaged or somebody else's is named, and left as it is.
pub fn open(config: &StorageConfig) -> Result<Opened, StorageError> {
    let (log_folder, state_folder) = folders(config);
    if identity::read(&log_folder)?.is_none() && identity::read(&state_folder)?.is_none() {
        // Whoever has such data imports it first.
        refuse_apache_data(&config.data_dir, "snapshot.")?;
        refuse_apache_data(&config.data_log_dir, "log.")?;
    }
    let log_lock = identity::lock(&log_folder)?;
    let state_lock = identity::lock(&state_folder)?;
    let identities = (identity::read(&log_folder)?, identity::read(&state_folder)?);
    for lock in [&log_lock, &state_lock] {
        import::settle(lock, identities != (None, None))?;
    }
    let store = match identities {
        (Some(log_store), Some(state_store)) if log_store == state_store => log_store,
        (Some(log_store), Some(state_store)) => {
            let (log, state) = (log_folder, state_folder);
            return Err(StorageError::Mismatch { log, log_store, state, state_store });
        }
        // A state can be made again from a log that begins at the beginning, which is checked below.
        (Some(store), None) => {
            identity::write(&state_folder, store)?;
            store
        }
        (None, Some(_)) => {
            return Err(StorageError::MissingLog { state: state_folder, log: log_folder });
        }
        (None, None) => {
            let random = Path::new("/dev/urandom");
            let store = StoreId::random().map_err(StorageError::io("read", random))?;
            // The log first: see above.
            identity::write(&log_folder, store)?;
            identity::write(&state_folder, store)?;
            store
        }
    };

    let mut log = Log::open(log_lock, store, config.log)?;
    let state = State::open(state_lock, store, log.handle().install())?;
    let applied = state.meta().map(|meta| meta.applied).unwrap_or_default();
    let (begins, last) = log.handle().bounds();
    if applied < begins || applied > last {
        let (log, state) = (log_folder, state_folder);
        return Err(StorageError::MissingTxns { state, log, applied, begins, last });
    }
    let replay = log.handle().read_after(applied)?;
    let is_new = log.handle().is_new() && state.meta().is_none();
    let initialize = config.data_dir.join(INITIALIZE_FILE);
    let initialized = is_new && initialize.exists();
    if !is_new {
        remove_initialize(&initialize);
    }
    log.attach(state.applied_cell(), is_new.then_some(initialize));
    Ok(Opened { log, state, replay, is_new, initialized })
}

/// Fails when Apache ZooKeeper has left such a file in the folder.
fn refuse_apache_data(folder: &Path, prefix: &str) -> Result<(), StorageError> {
    let version_2 = folder.join("version-2");
    let entries = match fs::read_dir(&version_2) {
        Ok(entries) => entries,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(err) => return Err(StorageError::io("list", &version_2)(err)),
    };
    for entry in entries {
        let path = entry.map_err(StorageError::io("list", &version_2))?.path();
        let name = path.file_name().unwrap_or_default();
        if name.to_string_lossy().starts_with(prefix) {
            return Err(StorageError::ApacheData { path });
        }
    }
    Ok(())
}
