//! Who wants to hear of what (facts, sections 1.14 and 2.6).
//!
//! Two tables, as upstream: one for znodes and their data, where exists watches are too, and one for
//! lists of children. A connection has at most one entry per table and path, with a set of modes.

use std::sync::{Mutex, MutexGuard, PoisonError};

use zk_proto::watch::{EventType, WatcherType};

use crate::hash::{for_each_prefix, hash_path, hash_u64};
use crate::index::Index;
use crate::slab::Slab;

/// A connection that watches. Ids are never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatcherId(pub u64);

/// How something is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WatchKind {
    /// Once: the znode comes, goes, or its data is set. Set by getData and exists.
    Data,
    /// Once: the list of children changes, or the znode goes. Set by getChildren.
    Child,
    /// Both of these, until removed.
    Persistent,
    /// The znode and all below it come, go, or have their data set, until removed.
    PersistentRecursive,
}

/// Sizes of the data table, which is what upstream reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchesSummary {
    /// Connections that watch, or did before their watches were triggered.
    pub connections: usize,
    /// Paths that are watched.
    pub paths: usize,
    /// Pairs of both.
    pub watches: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table {
    Data,
    Child,
}

/// The modes of one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Modes(u8);

impl Modes {
    const STANDARD: Self = Self(1);
    const PERSISTENT: Self = Self(2);
    const RECURSIVE: Self = Self(4);
    const ANY: Self = Self(7);

    fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// The watches of one server's connections.
///
/// A mutex of its own lets readers set watches while they share the tree; whoever applies
/// transactions has the whole database and does not lock.
#[derive(Debug)]
pub struct WatchManager {
    tables: Mutex<Tables>,
}

#[derive(Debug)]
struct Tables {
    data: WatchTable,
    child: WatchTable,
}

impl Default for WatchManager {
    fn default() -> Self {
        Self::new()
    }
}

impl WatchManager {
    /// No watches.
    #[must_use]
    pub fn new() -> Self {
        Self::with_seed(0)
    }

    pub(crate) fn with_seed(seed: u64) -> Self {
        Self {
            tables: Mutex::new(Tables {
                data: WatchTable::new(seed),
                child: WatchTable::new(seed),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        // Only a broken invariant panics in here, and that stops the server.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets a watch. Any string may be watched.
    pub fn add(&self, path: &str, watcher: WatcherId, kind: WatchKind) {
        let mut tables = self.lock();
        match kind {
            WatchKind::Data => tables.data.add(path, watcher, Modes::STANDARD),
            WatchKind::Child => tables.child.add(path, watcher, Modes::STANDARD),
            WatchKind::Persistent => {
                tables.data.add(path, watcher, Modes::PERSISTENT);
                tables.child.add(path, watcher, Modes::PERSISTENT);
            }
            WatchKind::PersistentRecursive => tables.data.add(path, watcher, Modes::RECURSIVE),
        }
    }

    /// Removes what `watcher_type` means; whether there was any.
    pub fn remove(&self, path: &str, watcher: WatcherId, watcher_type: WatcherType) -> bool {
        let mut tables = self.lock();
        let (data, child) = modes_of(watcher_type);
        // Both, whatever the first one says.
        tables.child.remove(path, watcher, child) | tables.data.remove(path, watcher, data)
    }

    /// Whether there is a watch of this type.
    #[must_use]
    pub fn contains(&self, path: &str, watcher: WatcherId, watcher_type: WatcherType) -> bool {
        let tables = self.lock();
        let (data, child) = match watcher_type {
            // Upstream looks into one table only, and both have it or none.
            WatcherType::Persistent => (Modes::PERSISTENT, Modes::default()),
            WatcherType::Children
            | WatcherType::Data
            | WatcherType::Any
            | WatcherType::PersistentRecursive => modes_of(watcher_type),
        };
        tables.data.modes(path, watcher).has(data) || tables.child.modes(path, watcher).has(child)
    }

    /// Forgets a connection, at the cost of what it had set.
    pub fn remove_watcher(&self, watcher: WatcherId) {
        let mut tables = self.lock();
        tables.data.remove_watcher(watcher);
        tables.child.remove_watcher(watcher);
    }

    /// How many watches there are in both tables (`watch_count`).
    #[must_use]
    pub fn count(&self) -> usize {
        let tables = self.lock();
        tables.data.watches.len() + tables.child.watches.len()
    }

    /// How many watches a connection has in both tables.
    #[must_use]
    pub fn count_of(&self, watcher: WatcherId) -> usize {
        let tables = self.lock();
        tables.data.count_of(watcher) + tables.child.count_of(watcher)
    }

    /// What `wchs` tells.
    #[must_use]
    pub fn summary(&self) -> WatchesSummary {
        let tables = self.lock();
        WatchesSummary {
            connections: tables.data.watchers.len(),
            paths: tables.data.paths.len(),
            watches: tables.data.watches.len(),
        }
    }

    /// The data table by connection, in order (`wchc`).
    #[must_use]
    pub fn by_watcher(&self) -> Vec<(WatcherId, Vec<String>)> {
        self.lock().data.by_watcher()
    }

    /// The data table by path, in order (`wchp`).
    #[must_use]
    pub fn by_path(&self) -> Vec<(String, Vec<WatcherId>)> {
        self.lock().data.by_path()
    }

    /// Fills `notified` with everyone who hears of this event, each once; watches that are for once
    /// are gone afterwards.
    pub(crate) fn trigger(
        &mut self,
        table: Table,
        event_type: EventType,
        path: &str,
        notified: &mut Vec<WatcherId>,
    ) {
        notified.clear();
        let tables = self.tables.get_mut().unwrap_or_else(PoisonError::into_inner);
        let table = match table {
            Table::Data => &mut tables.data,
            Table::Child => &mut tables.child,
        };
        if table.watches.len() == 0 {
            return;
        }
        // Nobody watches the children of everything below a znode: upstream has no such events.
        if table.recursive == 0 || event_type == EventType::NodeChildrenChanged {
            table.trigger_path(path, notified);
        } else {
            table.trigger_with_ancestors(path, notified);
        }
    }
}

/// The modes in the data and in the child table.
fn modes_of(watcher_type: WatcherType) -> (Modes, Modes) {
    match watcher_type {
        WatcherType::Children => (Modes::default(), Modes::STANDARD),
        WatcherType::Data => (Modes::STANDARD, Modes::default()),
        WatcherType::Any => (Modes::ANY, Modes::ANY),
        WatcherType::Persistent => (Modes::PERSISTENT, Modes::PERSISTENT),
        WatcherType::PersistentRecursive => (Modes::RECURSIVE, Modes::default()),
    }
}

#[derive(Debug, Default)]
struct WatchedPath {
    path: Box<str>,
    watches: Vec<u32>,
}

#[derive(Debug, Default)]
struct Watcher {
    id: Option<WatcherId>,
    watches: Vec<u32>,
}

/// One connection on one path, listed by both.
#[derive(Debug, Clone, Copy, Default)]
struct Watch {
    path: u32,
    watcher: u32,
    /// Its place in the path's list.
    at_path: u32,
    /// Its place in the watcher's list.
    at_watcher: u32,
    modes: Modes,
}

/// Every operation costs what it touches, however many watch one path or one connection watches.
#[derive(Debug)]
struct WatchTable {
    seed: u64,
    paths: Slab<WatchedPath>,
    watchers: Slab<Watcher>,
    watches: Slab<Watch>,
    path_index: Index,
    watcher_index: Index,
    /// By path and watcher.
    watch_index: Index,
    /// How many entries have the recursive mode.
    recursive: usize,
}

fn place(list: &[u32]) -> u32 {
    u32::try_from(list.len()).expect("ids are of 32 bits")
}

impl WatchTable {
    fn new(seed: u64) -> Self {
        Self {
            seed,
            paths: Slab::new(),
            watchers: Slab::new(),
            watches: Slab::new(),
            path_index: Index::new(),
            watcher_index: Index::new(),
            watch_index: Index::new(),
            recursive: 0,
        }
    }

    fn path_id_hashed(&self, path: &str, hash: u64) -> Option<u32> {
        self.path_index.find(hash, |id| *self.paths[id].path == *path)
    }

    fn watcher_id(&self, watcher: WatcherId) -> Option<u32> {
        let hash = hash_u64(self.seed, watcher.0);
        self.watcher_index.find(hash, |id| self.watchers[id].id == Some(watcher))
    }

    fn watch_hash(&self, path: u32, watcher: u32) -> u64 {
        hash_u64(self.seed, (u64::from(path) << 32) | u64::from(watcher))
    }

    fn watch_of(&self, path: u32, watcher: u32) -> Option<u32> {
        self.watch_index.find(self.watch_hash(path, watcher), |id| {
            let watch = &self.watches[id];
            (watch.path, watch.watcher) == (path, watcher)
        })
    }

    fn watch_id(&self, path: &str, watcher: WatcherId) -> Option<u32> {
        let path = self.path_id_hashed(path, hash_path(self.seed, path))?;
        self.watch_of(path, self.watcher_id(watcher)?)
    }

    fn modes(&self, path: &str, watcher: WatcherId) -> Modes {
        self.watch_id(path, watcher).map_or_else(Modes::default, |id| self.watches[id].modes)
    }

    fn count_of(&self, watcher: WatcherId) -> usize {
        self.watcher_id(watcher).map_or(0, |id| self.watchers[id].watches.len())
    }

    fn add(&mut self, path: &str, watcher: WatcherId, modes: Modes) {
        let hash = hash_path(self.seed, path);
        let path = self.path_id_hashed(path, hash).unwrap_or_else(|| {
            let id = self.paths.insert(WatchedPath { path: path.into(), watches: Vec::new() });
            self.path_index.insert(hash, id);
            id
        });
        let watcher = self.watcher_id(watcher).unwrap_or_else(|| {
            let id = self.watchers.insert(Watcher { id: Some(watcher), watches: Vec::new() });
            self.watcher_index.insert(hash_u64(self.seed, watcher.0), id);
            id
        });
        let id = self.watch_of(path, watcher).unwrap_or_else(|| {
            let id = self.watches.insert(Watch {
                path,
                watcher,
                at_path: place(&self.paths[path].watches),
                at_watcher: place(&self.watchers[watcher].watches),
                modes: Modes::default(),
            });
            self.paths[path].watches.push(id);
            self.watchers[watcher].watches.push(id);
            self.watch_index.insert(self.watch_hash(path, watcher), id);
            id
        });
        self.set_modes(id, self.watches[id].modes.with(modes));
    }

    fn set_modes(&mut self, id: u32, modes: Modes) {
        let watch = &mut self.watches[id];
        self.recursive -= usize::from(watch.modes.has(Modes::RECURSIVE));
        self.recursive += usize::from(modes.has(Modes::RECURSIVE));
        watch.modes = modes;
    }

    /// Whether anything was removed. As upstream, a connection that removes its last watch is
    /// forgotten, while one whose last watch was triggered stays known until it ends.
    fn remove(&mut self, path: &str, watcher: WatcherId, modes: Modes) -> bool {
        let Some(id) = self.watch_id(path, watcher) else { return false };
        let (before, after) = (self.watches[id].modes, self.watches[id].modes.without(modes));
        self.set_modes(id, after);
        if after.is_empty() {
            let Watch { path, watcher, .. } = self.watches[id];
            self.unlink_from_path(id);
            self.unlink_from_watcher(id);
            self.drop_path_if_unwatched(path);
            if self.watchers[watcher].watches.is_empty() {
                self.drop_watcher(watcher);
            }
        }
        before != after
    }

    fn remove_watcher(&mut self, watcher: WatcherId) {
        let Some(watcher) = self.watcher_id(watcher) else { return };
        for id in std::mem::take(&mut self.watchers[watcher].watches) {
            let path = self.watches[id].path;
            self.set_modes(id, Modes::default());
            self.unlink_from_path(id);
            self.drop_watch(id);
            self.drop_path_if_unwatched(path);
        }
        self.drop_watcher(watcher);
    }

    fn unlink_from_path(&mut self, id: u32) {
        let Watch { path, at_path, .. } = self.watches[id];
        let list = &mut self.paths[path].watches;
        list.swap_remove(at_path as usize);
        if let Some(&moved) = list.get(at_path as usize) {
            self.watches[moved].at_path = at_path;
        }
    }

    /// Takes the watch out of its watcher's list, and drops it.
    fn unlink_from_watcher(&mut self, id: u32) {
        let Watch { watcher, at_watcher, .. } = self.watches[id];
        let list = &mut self.watchers[watcher].watches;
        list.swap_remove(at_watcher as usize);
        if let Some(&moved) = list.get(at_watcher as usize) {
            self.watches[moved].at_watcher = at_watcher;
        }
        self.drop_watch(id);
    }

    fn drop_watch(&mut self, id: u32) {
        let Watch { path, watcher, .. } = self.watches[id];
        self.watch_index.remove(self.watch_hash(path, watcher), id);
        self.watches.remove(id);
    }

    fn drop_path_if_unwatched(&mut self, id: u32) {
        if self.paths[id].watches.is_empty() {
            let path = self.paths.remove(id).path;
            self.path_index.remove(hash_path(self.seed, &path), id);
        }
    }

    fn drop_watcher(&mut self, id: u32) {
        let watcher = self.watchers.remove(id).id.expect("a listed watcher has an id");
        self.watcher_index.remove(hash_u64(self.seed, watcher.0), id);
    }

    fn trigger_path(&mut self, path: &str, notified: &mut Vec<WatcherId>) {
        if let Some(id) = self.path_id_hashed(path, hash_path(self.seed, path)) {
            self.trigger_id(id, notified);
        }
    }

    /// Everyone on the path itself, in whatever mode.
    fn trigger_id(&mut self, path: u32, notified: &mut Vec<WatcherId>) {
        let mut watches = std::mem::take(&mut self.paths[path].watches);
        watches.retain(|&id| {
            let Watch { watcher, modes, .. } = self.watches[id];
            notified.push(self.watchers[watcher].id.expect("a listed watcher has an id"));
            let rest = modes.without(Modes::STANDARD);
            self.set_modes(id, rest);
            if rest.is_empty() {
                self.unlink_from_watcher(id);
            }
            !rest.is_empty()
        });
        for (at, &id) in (0..).zip(&watches) {
            self.watches[id].at_path = at;
        }
        self.paths[path].watches = watches;
        self.drop_path_if_unwatched(path);
    }

    /// Also those who watch everything below one of the path's ancestors.
    fn trigger_with_ancestors(&mut self, path: &str, notified: &mut Vec<WatcherId>) {
        let mut own = None;
        for_each_prefix(self.seed, path, |hash, prefix| {
            let Some(id) = self.path_id_hashed(prefix, hash) else { return };
            if prefix.len() == path.len() {
                own = Some(id);
                return;
            }
            for &watch in &self.paths[id].watches {
                let Watch { watcher, modes, .. } = self.watches[watch];
                if modes.has(Modes::RECURSIVE) {
                    notified.push(self.watchers[watcher].id.expect("a listed watcher has an id"));
                }
            }
        });
        let from_above = !notified.is_empty();
        if let Some(id) = own {
            self.trigger_id(id, notified);
        }
        if from_above {
            notified.sort_unstable();
            notified.dedup();
        }
    }

    fn by_watcher(&self) -> Vec<(WatcherId, Vec<String>)> {
        let mut report: Vec<_> = self
            .watchers
            .iter()
            .filter_map(|watcher| {
                let paths = watcher.watches.iter();
                let paths = paths.map(|&id| self.paths[self.watches[id].path].path.to_string());
                let mut paths: Vec<String> = paths.collect();
                paths.sort_unstable();
                Some((watcher.id?, paths))
            })
            .collect();
        report.sort_unstable_by_key(|(id, _)| *id);
        report
    }

    fn by_path(&self) -> Vec<(String, Vec<WatcherId>)> {
        let mut report: Vec<_> = self
            .paths
            .iter()
            .filter(|path| !path.watches.is_empty())
            .map(|path| {
                let ids = path.watches.iter();
                let ids = ids.filter_map(|&id| self.watchers[self.watches[id].watcher].id);
                let mut ids: Vec<WatcherId> = ids.collect();
                ids.sort_unstable();
                (path.path.to_string(), ids)
            })
            .collect();
        report.sort_unstable();
        report
    }
}
