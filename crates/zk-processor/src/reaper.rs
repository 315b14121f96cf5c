//! Containers that lost their last child and TTL znodes whose time is over (`ContainerManager`).

use std::collections::VecDeque;

use zk_proto::create_mode::OwnerKind;
use zk_tree::DataTree;

use crate::{NodeConfig, Now};

/// Finds what is to go at every interval, and hands it out no faster than allowed.
#[derive(Debug)]
pub(crate) struct Reaper {
    next_check_ms: i64,
    next_delete_ms: i64,
    candidates: VecDeque<String>,
}

impl Reaper {
    pub(crate) fn new(config: &NodeConfig, now: Now) -> Self {
        Self {
            next_check_ms: now.mono_ms() + config.containers.check_interval_ms,
            next_delete_ms: 0,
            candidates: VecDeque::new(),
        }
    }

    /// The znodes to delete now.
    pub(crate) fn due(&mut self, config: &NodeConfig, tree: &DataTree, now: Now) -> Vec<String> {
        let now_ms = now.mono_ms();
        if now_ms >= self.next_check_ms {
            self.next_check_ms = now_ms + config.containers.check_interval_ms;
            self.candidates = candidates(config, tree, now.wall_ms);
            self.next_delete_ms = now_ms;
        }
        let spacing_us = 60_000_000 / i64::from(config.containers.max_per_minute.max(1));
        let mut due = Vec::new();
        let mut at_us = self.next_delete_ms * 1000;
        while at_us <= now.mono_us {
            let Some(path) = self.candidates.pop_front() else { break };
            due.push(path);
            at_us += spacing_us;
        }
        self.next_delete_ms = at_us / 1000;
        due
    }
}

fn candidates(config: &NodeConfig, tree: &DataTree, wall_ms: i64) -> VecDeque<String> {
    let max_never_used = config.containers.max_never_used_ms;
    let containers = tree.containers().filter(|path| {
        tree.find(path).is_some_and(|znode| {
            let stat = znode.stat_persisted();
            let never_used = max_never_used > 0 && wall_ms - stat.mtime > max_never_used;
            znode.num_children() == 0 && (stat.cversion > 0 || never_used)
        })
    });
    let ttls = tree.ttls().filter(|path| {
        tree.find(path).is_some_and(|znode| match znode.owner_kind() {
            OwnerKind::Ttl(ttl_ms) => {
                znode.num_children() == 0 && wall_ms - znode.stat_persisted().mtime > ttl_ms
            }
            OwnerKind::Void | OwnerKind::Session(_) | OwnerKind::Container => false,
        })
    });
    containers.chain(ttls).map(|path| path.to_string()).collect()
}
