use std::fmt::{self, Write as _};
use std::io;
use std::path::PathBuf;

use zk_proto::log_file::LogFileError;
use zk_proto::{Epoch, Zxid};

use crate::error::StorageError;

/// Why a snapshot cannot be used. An older one may do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} cannot be used: {reason}", path.display())]
pub struct SnapshotProblem {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

/// What to do about files of Apache ZooKeeper's that cannot be imported.
const REMEDY: &str = "Restore the files from a backup, or go on with Apache ZooKeeper; on a member of \
    an ensemble whose other members have their data, move version-2 aside and start it empty, so that \
    it fetches everything from the leader";

/// Why the data of Apache ZooKeeper cannot be imported. Nothing of it was changed.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A file cannot be read.
    #[error("cannot {op} {}: {source}", path.display())]
    Io {
        /// The verb.
        op: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// dataDir and dataLogDir are not what they were.
    #[error(
        "{} lies in {folder}, which is another folder than {right}: Apache ZooKeeper was configured with \
         other folders. Set dataDir to where the snapshots are and dataLogDir to where the logs are",
        path.display()
    )]
    Misplaced {
        /// The file.
        path: PathBuf,
        /// The folder that it is in.
        folder: &'static str,
        /// The one that it would belong to.
        right: &'static str,
    },
    /// Every snapshot is damaged.
    #[error("no snapshot of Apache ZooKeeper's can be used:{}. {REMEDY}", listed(.0))]
    NoSnapshot(Vec<SnapshotProblem>),
    /// Transactions are missing.
    #[error(
        "transactions are missing: {} goes on with zxid {next}, and what comes before it ends with zxid \
         {after}{}. {REMEDY}", next_file.display(), named(after_file.as_ref(), skipped)
    )]
    Hole {
        /// The last one before the hole.
        after: Zxid,
        /// Where that is; `None`: there is nothing before.
        after_file: Option<PathBuf>,
        /// The first one after it.
        next: Zxid,
        /// Where that is.
        next_file: PathBuf,
        /// Newer snapshots that could have bridged the hole; whoever tried to read them fills it in.
        skipped: Vec<SnapshotProblem>,
    },
    /// A log file is damaged, not just torn at its end.
    #[error(
        "{} is damaged behind zxid {after}: {problem}. Apache ZooKeeper does not start with it either. \
         {REMEDY}", path.display()
    )]
    Log {
        /// The file.
        path: PathBuf,
        /// The last transaction before the damage.
        after: Zxid,
        /// What it is.
        problem: LogFileError,
    },
    /// A transaction cannot be understood.
    #[error("the transaction {zxid} in {} cannot be decoded: {reason}. {REMEDY}", path.display())]
    Txn {
        /// The file.
        path: PathBuf,
        /// Its zxid.
        zxid: Zxid,
        /// What does not fit.
        reason: String,
    },
    /// The same zxid stands twice in the logs, for different transactions.
    #[error(
        "{} has zxid {zxid} behind {last}, and it is not the transaction that had that zxid before: two \
         histories are mixed. {REMEDY}", path.display()
    )]
    Order {
        /// The file.
        path: PathBuf,
        /// The zxid.
        zxid: Zxid,
        /// The one before it in the files.
        last: Zxid,
    },
    /// An epoch's file holds no epoch.
    #[error("{} holds {text:?}, which is no epoch. {REMEDY}", path.display())]
    Epoch {
        /// The file.
        path: PathBuf,
        /// What it holds.
        text: String,
    },
    /// The history is of a later epoch than it says.
    #[error(
        "the current epoch in {} is {current}, and the last transaction is {last}, of a later one; Apache \
         ZooKeeper does not start with that either. {REMEDY}", path.display()
    )]
    EpochBehind {
        /// Where the epoch is from.
        path: PathBuf,
        /// It.
        current: Epoch,
        /// The last transaction.
        last: Zxid,
    },
    /// Less was promised than followed.
    #[error(
        "the accepted epoch in {} is {accepted}, and the current one is {current}; Apache ZooKeeper does \
         not start with that either. {REMEDY}", path.display()
    )]
    AcceptedBehind {
        /// Where the accepted epoch is from.
        path: PathBuf,
        /// It.
        accepted: Epoch,
        /// The current one.
        current: Epoch,
    },
    /// Somebody writes to the files while they are read.
    #[error(
        "the files of Apache ZooKeeper in {} changed while they were read: its server still runs. Stop it \
         first", dir.display()
    )]
    Changed {
        /// dataDir.
        dir: PathBuf,
    },
    /// Our own store.
    #[error(transparent)]
    Store(#[from] StorageError),
}

impl ImportError {
    pub(super) fn io(op: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { op, path: path.to_owned(), source }
    }

    /// As [`StorageError::exit_code`].
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Io { .. } | Self::Misplaced { .. } | Self::Changed { .. } => 3,
            Self::Store(error) => error.exit_code(),
            Self::NoSnapshot(_)
            | Self::Hole { .. }
            | Self::Log { .. }
            | Self::Txn { .. }
            | Self::Order { .. }
            | Self::Epoch { .. }
            | Self::EpochBehind { .. }
            | Self::AcceptedBehind { .. } => 1,
        }
    }
}

fn listed(problems: &[SnapshotProblem]) -> impl fmt::Display {
    let mut text = String::new();
    for (number, problem) in problems.iter().enumerate() {
        let separator = if number == 0 { " " } else { "; " };
        write!(text, "{separator}{problem}").expect("a string takes everything");
    }
    text
}

fn named(after: Option<&PathBuf>, skipped: &[SnapshotProblem]) -> impl fmt::Display {
    let mut text = match after {
        Some(path) => format!(", in {}", path.display()),
        None => ", since there is no snapshot".to_owned(),
    };
    if !skipped.is_empty() {
        write!(text, "; a snapshot that could help is damaged:{}", listed(skipped))
            .expect("a string takes everything");
    }
    text
}
