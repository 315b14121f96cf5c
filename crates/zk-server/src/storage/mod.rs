//! The threads that write: the store thread, which makes transactions durable, and the checkpoint
//! thread, which brings the state in RocksDB up to date. Before them: what a server starts from.

mod acl;
mod checkpoint;
mod held;
pub mod import;
mod queue;
mod recovery;
mod store_thread;

pub(crate) use acl::encode as encode_acl;
pub use checkpoint::run as run_checkpoints;
pub use queue::{StoreQueue, Work};
pub use recovery::{Recovered, RecoveryError, recover, recover_member};
pub use store_thread::run as run_store;
