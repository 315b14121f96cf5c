//! The tree and the watches on it, together.

use zk_proto::path::CONFIG;

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
    /// How many databases stood in this one's place before: a checkpoint of one of them is void here.
    pub(crate) generation: u64,
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
            generation: 0,
        }
    }

    /// Puts `new` in the place of this database, which is returned. A checkpoint that was begun before
    /// is void from now on.
    #[must_use = "drop it after the lock is released"]
    pub fn replace(&mut self, mut new: Self) -> Self {
        new.generation = self.generation + 1;
        std::mem::replace(self, new)
    }

    /// The ensemble's configuration as `/zookeeper/config` has it.
    #[must_use]
    pub fn config(&self) -> Option<&str> {
        let data = self.tree.nodes[self.tree.id(CONFIG)?].data.as_deref()?;
        std::str::from_utf8(data).ok()
    }

    /// The ensemble's configuration becomes the data of `/zookeeper/config`, without a transaction: no
    /// log has the first one (`ZKDatabase.initConfigInZKDatabase`). The digest leaves it out.
    /// Nobody is notified: it is for when nobody is served.
    pub fn set_config(&mut self, text: &str, version: i64, wall_ms: i64) {
        let Some(id) = self.tree.id(CONFIG) else { return };
        if self.tree.nodes[id].data.as_deref() == Some(text.as_bytes()) {
            return;
        }
        let grown = self.tree.replace_data(id, CONFIG, Some(text.as_bytes()), |node| {
            node.mzxid = version;
            node.mtime = wall_ms;
            node.version = -1;
        });
        self.tree.add_usage(CONFIG, grown, 0);
    }
}
