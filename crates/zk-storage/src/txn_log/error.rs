use std::io;
use std::path::{Path, PathBuf};

use zk_proto::Zxid;

use crate::identity::StoreId;

/// Why the log could not be opened, read, or written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A system call failed. After this from [`Log::append`](super::Log::append) nobody knows what
    /// is on disk, and the process must end (invariant D3).
    #[error("cannot {op} {}: {source}", path.display())]
    Io {
        /// The verb.
        op: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// There is no room for another segment. Nothing was written; the log stays usable.
    #[error("the disk of {} is full: no room for the next {bytes} bytes of transaction log", path.display())]
    DiskFull {
        /// The log's folder.
        path: PathBuf,
        /// Size of the segment that found no room.
        bytes: u64,
    },
    /// Acknowledged data is damaged (invariant D4).
    #[error(
        "the transaction log is damaged: {} at byte {offset}, in the record after zxid {after}: {problem}. \
         The data there was acknowledged, so the server does not start without it. \
         Restore dataDir and dataLogDir from a backup; or, on a member of an ensemble, move both \
         aside so that it fetches everything from the leader", path.display()
    )]
    Corrupt {
        /// The segment.
        path: PathBuf,
        /// Where the bad record starts.
        offset: u64,
        /// The last good transaction before it.
        after: Zxid,
        /// What is wrong there.
        problem: Problem,
    },
    /// A file between two others, or the last, is gone.
    #[error(
        "the transaction log is incomplete: {} is missing. \
         Put it back, or restore dataDir and dataLogDir from a backup; or, on a member of an \
         ensemble, move both aside so that it fetches everything from the leader", path.display()
    )]
    MissingSegment {
        /// The file.
        path: PathBuf,
    },
    /// The file belongs to another server's data.
    #[error("{} belongs to store {found}, this is store {expected}: the files of two servers were mixed up", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The store of its folder.
        expected: StoreId,
        /// The store that it names.
        found: StoreId,
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
    /// Transactions were to be voided that the state holds, so that they cannot be taken back.
    #[error(
        "the transaction log in {} was to be cut behind zxid {zxid}, but the state holds everything up to \
         zxid {applied}: committed transactions are missing in the ensemble. Nothing was changed. To \
         accept that, move dataDir and dataLogDir aside, so that this server fetches everything from the \
         leader", path.display()
    )]
    BelowState {
        /// The log's folder.
        path: PathBuf,
        /// What was to be the last zxid.
        zxid: Zxid,
        /// What the state is as of, or what the log holds nothing below of.
        applied: Zxid,
    },
    /// A reader asked for what is purged already.
    #[error("transactions after zxid {asked} were asked for; the log begins after zxid {begins}")]
    Purged {
        /// Where the reader wanted to begin.
        asked: Zxid,
        /// The log holds what comes after this.
        begins: Zxid,
    },
}

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Its checksum.
    #[error("expected checksum {expected:08x}, found {found:08x}")]
    Checksum {
        /// Computed from what stands there.
        expected: u32,
        /// Stored with it.
        found: u32,
    },
    /// Its first bytes, or a length that leads out of the segment.
    #[error("there is no record where one was written")]
    NoRecord,
    /// The segment's first page.
    #[error("the segment's header is unreadable")]
    SegmentHeader,
    /// A record that is whole but does not continue the one before it.
    #[error("the record there does not continue the one before it")]
    Unconnected,
}

impl LogError {
    pub(crate) fn io(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { op, path: path.to_owned(), source }
    }

    /// Whether [`Log::append`](super::Log::append) left the log in doubt, so that the process must
    /// end. A full disk is the one answer after which the log goes on.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        !matches!(self, Self::DiskFull { .. })
    }
}
