//! The replicated state: the tree of znodes with its sessions, and the watches set on it.
//!
//! [`Database::apply`] is the only way in: it takes one committed transaction, changes the
//! [`DataTree`], reports the watch events in ZooKeeper's order and says what came of it. What the
//! tree must not know: requests, clients' rights, time, disks, networks. Whether a request may
//! happen was decided before it became a transaction; here it happens.
//!
//! Storage asks for what changed with a [`Checkpoint`]: an exact picture of all changes up to one
//! zxid, handed out in small portions while transactions go on.
//!
//! # Invariants
//!
//! - The same transactions from the same start give the same tree, the same outcomes and the same
//!   events in the same order, everywhere.
//! - No transaction that can be decoded makes [`Database::apply`] panic. One that cannot be applied
//!   leaves the tree as upstream would leave it, and the tree is consistent: every znode's parent
//!   exists and lists it once; every index names exactly the znodes it should.
//! - A multi that contains a failed operation changes nothing.
//! - [`DataTree::digest`] is the sum of the digests of all znodes, at every moment.
//! - [`DataTree::digest_log`] holds digests after whole transactions alone, never from the middle of a multi.
//! - Applying does not depend on the number of znodes: no index is rebuilt, grown or sorted at once.
//!   Exceptions, as upstream: the subtree is counted when a quota is set, and closing a session
//!   costs what the session owned.
//!
//! # Caveats
//!
//! - Usage nodes of quotas are rewritten locally, without a transaction (facts, section 1.16).
//! - Deleting a znode that has children deletes them too. Prep never proposes that; it occurs when a
//!   log is replayed over a later picture of the tree, and then the children are of the future and
//!   will be created again. (Upstream leaves orphans behind.)

mod acl_table;
mod apply;
mod checkpoint;
mod database;
mod digest;
mod hash;
mod index;
mod load;
mod quota;
mod slab;
mod tree;
mod watch;
mod znode;

pub use apply::{Outcome, WatchEvent};
pub use checkpoint::{Checkpoint, CheckpointItem, SpentCheckpoint};
pub use database::Database;
pub use digest::{DIGEST_LOG_INTERVAL, DIGEST_LOG_LIMIT, DIGEST_VERSION, ZxidDigest, node_digest};
pub use load::LoadError;
pub use quota::{QuotaStatus, StatsTrack};
pub use tree::{DataTree, TreeConfig, ZnodeRef};
pub use watch::{WatchKind, WatchManager, WatcherId, WatchesSummary};
