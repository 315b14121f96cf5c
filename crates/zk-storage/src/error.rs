use std::io;
use std::path::{Path, PathBuf};

use zk_proto::Zxid;

use crate::identity::StoreId;
use crate::txn_log::LogError;

/// Why the stored data cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// A folder or file cannot be reached: missing rights, a read-only disk, a path that is no
    /// folder.
    #[error("cannot {op} {}: {source}", path.display())]
    Io {
        /// The verb.
        op: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Another process has the folder.
    #[error("{} is in use by another server (process {pid}): two servers cannot share a data folder", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
        /// As the other server wrote it down, or "unknown".
        pid: String,
    },
    /// Only Apache ZooKeeper's data is there.
    #[error(
        "{} was written by Apache ZooKeeper and is not imported; nothing was changed. To start a new and \
         empty server, point dataDir (and dataLogDir) to an empty folder", path.display()
    )]
    ApacheData {
        /// One of its files.
        path: PathBuf,
    },
    /// A folder's identity file cannot be understood.
    #[error("{} is damaged: it names no format and store. Restore dataDir and dataLogDir from a backup", path.display())]
    Identity {
        /// The file.
        path: PathBuf,
    },
    /// Written by a later release.
    #[error("{} has format {found}, this release reads format {known}: start a newer release", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format known here.
        known: u32,
    },
    /// dataDir and dataLogDir belong to two different servers.
    #[error(
        "{} belongs to store {log_store} and {} to store {state_store}: dataLogDir and dataDir of \
         two servers were mixed up", log.display(), state.display()
    )]
    Mismatch {
        /// The log's folder.
        log: PathBuf,
        /// Its store.
        log_store: StoreId,
        /// The state's folder.
        state: PathBuf,
        /// Its store.
        state_store: StoreId,
    },
    /// The state names another store than its folder.
    #[error("{} belongs to store {found}, its folder to {expected}: the files of two servers were mixed up", path.display())]
    Foreign {
        /// The state.
        path: PathBuf,
        /// The store of its folder.
        expected: StoreId,
        /// The store that it names.
        found: StoreId,
    },
    /// There is a state, and no log at all.
    #[error(
        "{} holds the state of a server whose transaction log is not in {}: put the log back, set \
         dataLogDir to where it is, or restore both from a backup; or, on a member of an ensemble, \
         move both aside so that it fetches everything from the leader", state.display(), log.display()
    )]
    MissingLog {
        /// The state's folder.
        state: PathBuf,
        /// Where the log should be.
        log: PathBuf,
    },
    /// Transactions between the state and the log, or at the log's end, are gone.
    #[error(
        "transactions are missing: the state in {} reaches zxid {applied}, the transaction log in {} \
         goes from after zxid {begins} to zxid {last}. Restore dataDir and dataLogDir from a backup; \
         or, on a member of an ensemble, move both aside so that it fetches everything from the leader",
        state.display(), log.display()
    )]
    MissingTxns {
        /// The state's folder.
        state: PathBuf,
        /// The log's folder.
        log: PathBuf,
        /// The state is as of this zxid.
        applied: Zxid,
        /// The log holds what comes after this.
        begins: Zxid,
        /// The log's last zxid.
        last: Zxid,
    },
    /// The log goes on from a snapshot that the state neither is nor has ready.
    #[error(
        "the transaction log goes on from a snapshot as of zxid {zxid} that is not in {}: dataDir and \
         dataLogDir are of different times. Restore both from one backup; or, on a member of an \
         ensemble, move both aside so that it fetches everything from the leader", state.display()
    )]
    MissingSnapshot {
        /// The state's folder.
        state: PathBuf,
        /// What the snapshot is as of.
        zxid: Zxid,
    },
    /// A snapshot was installed while the checkpoint was written. Nothing is lost: what the checkpoint
    /// would have said was about the state before.
    #[error("the checkpoint is about a state that a received snapshot has replaced")]
    Superseded,
    /// RocksDB reads a damaged list of its files for ever.
    #[error(
        "RocksDB was still reading {}/MANIFEST-* after {seconds} s: it is damaged. Restore dataDir and dataLogDir \
         from a backup; or, on a member of an ensemble, move both aside so that it fetches everything from the leader",
        path.display()
    )]
    EndlessManifest {
        /// The folder.
        path: PathBuf,
        /// How long it was waited for.
        seconds: u64,
    },
    /// A stored value cannot be understood, though its checksum is right.
    #[error("the state in {} has an unreadable {what}", path.display())]
    BadState {
        /// The state's folder.
        path: PathBuf,
        /// Which entry.
        what: String,
    },
    /// The transaction log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// RocksDB, which holds the state.
    #[error("the state in {}: {source}", path.display())]
    RocksDb {
        /// The state's folder.
        path: PathBuf,
        /// What RocksDB said.
        source: rocksdb::Error,
    },
}

impl StorageError {
    pub(crate) fn io(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { op, path: path.to_owned(), source }
    }

    /// The exit code of a server that cannot start because of this, as ZooKeeper has them: 3 when
    /// the folders cannot be used as they are, 1 when something is wrong with the data itself.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Io { .. }
            | Self::InUse { .. }
            | Self::ApacheData { .. }
            | Self::Format { .. }
            | Self::Log(
                LogError::Io { .. } | LogError::DiskFull { .. } | LogError::Format { .. },
            ) => 3,
            Self::Identity { .. }
            | Self::Mismatch { .. }
            | Self::Foreign { .. }
            | Self::MissingLog { .. }
            | Self::MissingTxns { .. }
            | Self::MissingSnapshot { .. }
            | Self::Superseded
            | Self::EndlessManifest { .. }
            | Self::BadState { .. }
            | Self::RocksDb { .. }
            | Self::Log(
                LogError::Corrupt { .. }
                | LogError::MissingSegment { .. }
                | LogError::Foreign { .. }
                | LogError::BelowState { .. }
                | LogError::Purged { .. },
            ) => 1,
        }
    }
}
