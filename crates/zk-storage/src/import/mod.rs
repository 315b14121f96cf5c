//! The data of Apache ZooKeeper, from its files into a store of ours.
//!
//! [`ApacheFiles`] finds the files in dataDir and dataLogDir and reads them: [`ApacheFiles::read_snapshot`]
//! a tree as of a zxid, or about as of it, and [`ApacheFiles::read_log`] the transactions after a zxid.
//! [`Importer`] takes in what the caller made of that. What a transaction does to a tree is not known
//! here.
//!
//! # Invariants
//!
//! - Upstream's files are only read.
//! - An import counts as a whole or not at all: until [`Importer::finish`] has written down whose the
//!   folders are, the next start throws away what is in them and begins again.
//! - No transaction is left out between the snapshot and the end of the log: where one is missing, the
//!   log cannot be read ([`ImportError::Hole`]).

mod epochs;
mod error;
mod files;
mod log;
mod snappy;
mod snapshot;
mod store;

#[cfg(test)]
mod tests;

pub use error::{ImportError, SnapshotProblem};
pub use files::{ApacheFiles, LogFile, SnapshotFile};
pub use log::{ApacheLog, ApacheTxn, LogFileRead};
pub use snapshot::SnapshotRead;
pub use store::Importer;
pub(crate) use store::settle;

/// More than any path, data or transaction takes: upstream's default limit is 1 MB, and whoever raises it
/// further than to this has other troubles.
const FIELD_LEN_MAX: usize = 256 << 20;

/// How much is read at a time.
const CHUNK: usize = 1 << 20;
