//! Containers that lost their last child and TTL znodes whose time is over (`ContainerManager`).

use std::collections::VecDeque;

use zk_proto::create_mode::OwnerKind;
use zk_proto::data::StatPersisted;
use zk_tree::DataTree;

use crate::{NodeConfig, Now};

/// Finds what is to go at every interval, and hands it out no faster than allowed.
#[derive(Debug)]
pub(crate) struct Reaper {
    next_check_ms: i64,
    next_delete_us: i64,
    candidates: VecDeque<String>,
}

impl Reaper {
    pub(crate) fn new(config: &NodeConfig, now: Now) -> Self {
        Self {
            next_check_ms: now.mono_ms() + config.containers.check_interval_ms,
            next_delete_us: now.mono_us,
            candidates: VecDeque::new(),
        }
    }

    /// The znodes to delete now. `look` finds candidates; it is called when the interval is over.
    pub(crate) fn due(
        &mut self,
        config: &NodeConfig,
        now: Now,
        look: impl FnOnce() -> VecDeque<String>,
    ) -> Vec<String> {
        if now.mono_ms() >= self.next_check_ms {
            self.next_check_ms = now.mono_ms() + config.containers.check_interval_ms;
            self.candidates = look();
            self.next_delete_us = self.next_delete_us.max(now.mono_us);
        }
        let spacing_us = 60_000_000 / i64::from(config.containers.max_per_minute.max(1));
        let mut due = Vec::new();
        while self.next_delete_us <= now.mono_us {
            let Some(path) = self.candidates.pop_front() else { break };
            due.push(path);
            self.next_delete_us += spacing_us;
        }
        due
    }
}

/// What could go now.
pub(crate) fn candidates(config: &NodeConfig, tree: &DataTree, wall_ms: i64) -> VecDeque<String> {
    let paths = tree.containers().chain(tree.ttls());
    paths
        .filter(|path| {
            tree.find(path).is_some_and(|znode| {
                znode.num_children() == 0 && is_due(config, &znode.stat_persisted(), wall_ms)
            })
        })
        .collect()
}

/// Whether the time of a znode without children is over. Looked at again when it is deleted: it may
/// have been written to, or be another one. (Upstream deletes whatever has no session then.)
pub(crate) fn is_due(config: &NodeConfig, stat: &StatPersisted, wall_ms: i64) -> bool {
    let age_ms = wall_ms.saturating_sub(stat.mtime);
    match config.extended_types.kind(stat.ephemeral_owner) {
        OwnerKind::Container => {
            let max_never_used = config.containers.max_never_used_ms;
            stat.cversion != 0 || (max_never_used > 0 && age_ms > max_never_used)
        }
        OwnerKind::Ttl(ttl_ms) => ttl_ms > 0 && age_ms > ttl_ms,
        OwnerKind::Void | OwnerKind::Session(_) => false,
    }
}
