//! The tree and the watches on it, together.

use crate::load::LoadError;
use crate::tree::{DataTree, TreeConfig};
use crate::watch::{WatchManager, WatcherId};

/// A server's state. Readers share it; whoever applies transactions has it alone, so that no change
/// falls between a read and the watch that it sets.
#[derive(Debug)]
pub struct Database {
    /// The znodes and sessions.
    pub tree: DataTree,
    /// The watches of this server's connections.
    pub watches: WatchManager,
    pub(crate) load_error: Option<LoadError>,
    /// Who was notified, kept to spare allocations.
    pub(crate) notified: Vec<WatcherId>,
    pub(crate) notified_again: Vec<WatcherId>,
}

impl Database {
    /// A new database.
    #[must_use]
    pub fn new(config: TreeConfig) -> Self {
        Self::with_seed(config, 0)
    }

    /// A new database whose hash tables are keyed with a secret `seed`; nothing that can be observed
    /// depends on it.
    #[must_use]
    pub fn with_seed(config: TreeConfig, seed: u64) -> Self {
        Self {
            tree: DataTree::with_seed(config, seed),
            watches: WatchManager::with_seed(seed),
            load_error: None,
            notified: Vec::new(),
            notified_again: Vec::new(),
        }
    }
}
