//! Prep's view ahead of the tree: what will be when everything on its way is applied.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use hashbrown::HashMap;
use hashbrown::hash_map::{Entry, EntryRef};
use zk_proto::acl::Acl;
use zk_proto::data::StatPersisted;
use zk_proto::{Buffer, SessionId, Zxid};
use zk_tree::{DataTree, ZnodeRef, node_digest};

/// Room that is kept while nothing is on its way.
const IDLE_CAPACITY_MAX: usize = 8192;

/// A znode as it will be.
#[derive(Debug, Clone)]
pub(crate) struct ChangedNode {
    pub(crate) stat: StatPersisted,
    pub(crate) num_children: i32,
    /// `None`: the tree's.
    pub(crate) acl: Option<Arc<[Acl]>>,
    /// `None`: the tree's.
    pub(crate) data: Option<Buffer>,
    /// Its part in the tree's digest; before it is put back, what that was until now.
    digest: u64,
}

impl ChangedNode {
    pub(crate) fn new(stat: StatPersisted, acl: &[Acl], data: Buffer) -> Self {
        Self { stat, num_children: 0, acl: Some(acl.into()), data: Some(data), digest: 0 }
    }
}

/// The last change of a path that is on its way.
#[derive(Debug, Clone)]
struct ChangeRecord {
    zxid: Zxid,
    /// `None`: deleted.
    node: Option<ChangedNode>,
}

/// The changes that are on their way (`outstandingChanges`).
#[derive(Debug, Default)]
pub(crate) struct OutstandingChanges {
    by_path: HashMap<Arc<str>, ChangeRecord>,
    /// The changed znodes that have an owner, so that the end of one session costs what it owns,
    /// however many end at once.
    owned: BTreeSet<(i64, Arc<str>)>,
    /// In zxid order: which paths to look at when a transaction has been applied.
    order: VecDeque<(Zxid, Arc<str>)>,
    /// While a multi is prepared: what it replaced, to take it back.
    undo: Option<Undo>,
    /// The digest of the tree with all of them applied; meaningless while digests are off.
    digest: u64,
    digest_enabled: bool,
}

#[derive(Debug)]
struct Undo {
    replaced: Vec<(Arc<str>, Option<ChangeRecord>)>,
    digest: u64,
    order_len: usize,
}

/// The owner field, if there is something in it.
fn owner(node: Option<&ChangedNode>) -> Option<i64> {
    node.map(|node| node.stat.ephemeral_owner).filter(|owner| *owner != 0)
}

/// A znode as prep sees it.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    changed: Option<&'a ChangedNode>,
    tree: Option<ZnodeRef<'a>>,
}

impl<'a> View<'a> {
    pub(crate) fn stat(&self) -> StatPersisted {
        match (self.changed, self.tree) {
            (Some(changed), _) => changed.stat,
            (None, Some(znode)) => znode.stat_persisted(),
            (None, None) => unreachable!("a view is of a znode"),
        }
    }

    pub(crate) fn num_children(&self) -> i32 {
        match (self.changed, self.tree) {
            (Some(changed), _) => changed.num_children,
            (None, Some(znode)) => i32::try_from(znode.num_children()).unwrap_or(i32::MAX),
            (None, None) => unreachable!("a view is of a znode"),
        }
    }

    pub(crate) fn acl(&self) -> &'a [Acl] {
        match (self.changed.and_then(|changed| changed.acl.as_deref()), self.tree) {
            (Some(acl), _) => acl,
            (None, Some(znode)) => znode.acl(),
            (None, None) => unreachable!("a new znode has its own ACL"),
        }
    }

    pub(crate) fn data(&self) -> Option<&'a [u8]> {
        match (self.changed.and_then(|changed| changed.data.as_ref()), self.tree) {
            (Some(data), _) => data.as_deref(),
            (None, Some(znode)) => znode.data(),
            (None, None) => unreachable!("a new znode has its own data"),
        }
    }
}

impl OutstandingChanges {
    /// Nothing on its way; the tree has `digest`.
    pub(crate) fn new(digest: Option<u64>) -> Self {
        Self {
            digest: digest.unwrap_or_default(),
            digest_enabled: digest.is_some(),
            ..Self::default()
        }
    }

    /// The znode at `path`, if it will exist.
    pub(crate) fn find<'a>(&'a self, tree: &'a DataTree, path: &str) -> Option<View<'a>> {
        match self.by_path.get(path) {
            Some(record) => record.node.as_ref().map(|changed| View {
                changed: Some(changed),
                tree: if changed.acl.is_some() && changed.data.is_some() {
                    None
                } else {
                    tree.find(path)
                },
            }),
            None => tree.find(path).map(|znode| View { changed: None, tree: Some(znode) }),
        }
    }

    /// The znode at `path` as a change of it starts from.
    pub(crate) fn to_changed(&self, path: &str, view: View<'_>) -> ChangedNode {
        match (view.changed, view.tree) {
            (Some(changed), _) => changed.clone(),
            (None, Some(znode)) => {
                let stat = znode.stat_persisted();
                let digest =
                    if self.digest_enabled { node_digest(path, znode.data(), &stat) } else { 0 };
                let num_children = view.num_children();
                ChangedNode { stat, num_children, acl: None, data: None, digest }
            }
            (None, None) => unreachable!("a view is of a znode"),
        }
    }

    /// The znode at `path` becomes `node`, which was made by [`Self::to_changed`] or is new.
    pub(crate) fn put(&mut self, tree: &DataTree, zxid: Zxid, path: &str, mut node: ChangedNode) {
        if self.digest_enabled {
            let data = match &node.data {
                Some(data) => data.as_deref(),
                None => tree.find(path).and_then(|znode| znode.data()),
            };
            let digest = node_digest(path, data, &node.stat);
            self.digest = self.digest.wrapping_sub(node.digest).wrapping_add(digest);
            node.digest = digest;
        }
        self.record(zxid, path, Some(node));
    }

    /// The znode at `path` is deleted.
    pub(crate) fn delete(&mut self, tree: &DataTree, zxid: Zxid, path: &str) {
        if self.digest_enabled
            && let Some(view) = self.find(tree, path)
        {
            let digest = self.to_changed(path, view).digest;
            self.digest = self.digest.wrapping_sub(digest);
        }
        self.record(zxid, path, None);
    }

    fn record(&mut self, zxid: Zxid, path: &str, node: Option<ChangedNode>) {
        let owner = owner(node.as_ref());
        let record = ChangeRecord { zxid, node };
        let (path, replaced) = match self.by_path.entry_ref(path) {
            EntryRef::Occupied(mut entry) => {
                let replaced = entry.insert(record);
                (Arc::clone(entry.key()), Some(replaced))
            }
            EntryRef::Vacant(entry) => {
                let entry = entry.insert_entry(record);
                (Arc::clone(entry.key()), None)
            }
        };
        let owner_before = replaced.as_ref().and_then(|record| self::owner(record.node.as_ref()));
        self.change_owner(&path, owner_before, owner);
        if let Some(undo) = &mut self.undo {
            undo.replaced.push((Arc::clone(&path), replaced));
        }
        self.order.push_back((zxid, path));
    }

    fn change_owner(&mut self, path: &Arc<str>, before: Option<i64>, after: Option<i64>) {
        if before == after {
            return;
        }
        if let Some(before) = before {
            self.owned.remove(&(before, Arc::clone(path)));
        }
        if let Some(after) = after {
            self.owned.insert((after, Arc::clone(path)));
        }
    }

    /// From here on changes can be taken back.
    pub(crate) fn begin_multi(&mut self) {
        self.undo =
            Some(Undo { replaced: Vec::new(), digest: self.digest, order_len: self.order.len() });
    }

    /// Keeps the changes since [`Self::begin_multi`], or takes them back.
    pub(crate) fn end_multi(&mut self, keep: bool) {
        let Some(undo) = self.undo.take() else { return };
        if keep {
            return;
        }
        self.digest = undo.digest;
        self.order.truncate(undo.order_len);
        for (path, record) in undo.replaced.into_iter().rev() {
            let after = record.as_ref().and_then(|record| owner(record.node.as_ref()));
            let undone = match record {
                Some(record) => self.by_path.insert(Arc::clone(&path), record),
                None => self.by_path.remove(&path),
            };
            let before = undone.and_then(|record| owner(record.node.as_ref()));
            self.change_owner(&path, before, after);
        }
    }

    /// Everything up to `zxid` is in the tree now.
    pub(crate) fn applied(&mut self, zxid: Zxid) {
        while self.order.front().is_some_and(|(own, _)| *own <= zxid) {
            let Some((_, path)) = self.order.pop_front() else { break };
            if let Entry::Occupied(entry) = self.by_path.entry(path)
                && entry.get().zxid <= zxid
            {
                if let Some(owner) = owner(entry.get().node.as_ref()) {
                    self.owned.remove(&(owner, Arc::clone(entry.key())));
                }
                entry.remove();
            }
        }
        if self.by_path.is_empty() && self.by_path.capacity() > IDLE_CAPACITY_MAX {
            self.by_path.shrink_to(IDLE_CAPACITY_MAX / 2);
            self.order.shrink_to(IDLE_CAPACITY_MAX / 2);
        }
    }

    /// The session's ephemeral znodes with everything on its way applied.
    pub(crate) fn ephemerals(&self, tree: &DataTree, session: SessionId) -> BTreeSet<String> {
        let is_left = |path: &String| match self.by_path.get(&**path) {
            None => true,
            Some(record) => owner(record.node.as_ref()) == Some(session.0),
        };
        let mut paths: BTreeSet<String> = tree.ephemerals(session).filter(is_left).collect();
        let from = (session.0, Arc::from(""));
        let coming = self.owned.range(from..).take_while(|(owner, _)| *owner == session.0);
        paths.extend(coming.map(|(_, path)| path.to_string()));
        paths
    }

    /// The digest of the tree with everything on its way applied; `None` while digests are off.
    pub(crate) fn digest(&self) -> Option<u64> {
        self.digest_enabled.then_some(self.digest)
    }

    /// The tree turned out to have another digest with everything applied: start over from it.
    pub(crate) fn reset_digest(&mut self, digest: u64) {
        self.digest = digest;
    }

    /// How many paths have a change on its way.
    pub(crate) fn len(&self) -> usize {
        self.by_path.len()
    }
}
