//! What a server stores, and the only crate that knows files and RocksDB.
//!
//! Two things, in two folders. The **transaction log** (`<dataLogDir>/paddock-log`) is the one durable
//! stream: transactions, epochs and truncations, appended in batches with one sync each. The
//! **state** (`<dataDir>/paddock-state`) holds znodes and sessions as of an applied zxid; a
//! checkpoint adds what changed. [`open`] gives the state and the transactions after it; applied in
//! order they are the tree before the last stop or crash.
//!
//! A snapshot from a leader replaces both: it is staged beside the state ([`State::stage`]), the log
//! says that it counts from here on ([`Write::InstallSnapshot`], in one batch with the transactions
//! behind it and the epoch that they are the history of), and then it is the state
//! ([`State::install`]).
//!
//! Everything here blocks; threads are the caller's. A server has one that owns the [`Log`], and one
//! in the background for [`LogHandle::prepare_next`], checkpoints and [`LogHandle::purge`].
//!
//! It must not know what a transaction means, nor ACLs, nor who leads. It answers what the quorum
//! engine asks about stored transactions ([`StoredHistory`]).
//!
//! # Invariants
//!
//! - An acknowledged write survives any crash, or the server does not start and says what is
//!   damaged, where, and what to do (D1, D4). Only a torn write that was never acknowledged is cut.
//! - After a failed write or sync nothing more is appended: the process ends (D3).
//! - Transactions, epochs, truncations and installed snapshots keep their order, since they are one
//!   stream (D2, D6).
//! - The state is the snapshot that the log last went on from, or what grew from it: after a crash at
//!   any point both are from before its installation, or both from after.
//! - The state never holds what is not in the log: applied <= last logged (D5).
//! - Data of another server or of a later format is refused, untouched. That of Apache ZooKeeper is never
//!   changed: [`import`] makes a store from it.
//!
//! # Caveats
//!
//! Two assumptions about disks: what a sync reported as written stays, and a cut of power spoils no
//! sector but those being written, and those only as a whole (the end of a batch and the beginning of
//! the next share one).

mod disk;
mod error;
mod history;
mod identity;
pub mod import;
mod key;
mod recover;
mod state;
mod txn_log;

pub use disk::free_bytes;
pub use error::StorageError;
pub use history::StoredHistory;
pub use identity::StoreId;
pub use key::ZnodeValue;
pub use recover::{Before, Opened, StorageConfig, look, open};
pub use state::{
    CheckpointWriter, Meta, StagedId, StagedState, StagingWriter, State, StateItem, StateSnapshot,
};
pub use txn_log::{Epochs, Log, LogConfig, LogError, LogHandle, Problem, Reader, Write};
