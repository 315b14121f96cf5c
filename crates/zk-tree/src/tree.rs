//! The tree of znodes and what is known about them beside their paths.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use zk_proto::acl::Acl;
use zk_proto::create_mode::{CONTAINER_OWNER, ExtendedTypes, OwnerKind};
use zk_proto::data::{Stat, StatPersisted};
use zk_proto::path;
use zk_proto::{ErrorCode, SessionId, Zxid};

use crate::acl_table::AclTable;
use crate::checkpoint::Changes;
use crate::digest::{DigestLog, ZxidDigest, node_digest32};
use crate::hash::hash_bytes;
use crate::index::Index;
use crate::slab::Slab;
use crate::znode::{NO_PARENT, Name, Stamp, Znode};

/// How a tree behaves; the same on every server of an ensemble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeConfig {
    /// How owner fields are read.
    pub extended_types: ExtendedTypes,
    /// Whether [`DataTree::digest`] is kept; 0 otherwise.
    pub digest_enabled: bool,
}

impl Default for TreeConfig {
    fn default() -> Self {
        Self { extended_types: ExtendedTypes::default(), digest_enabled: true }
    }
}

pub(crate) const ROOT: u32 = 0;

/// Znodes that cannot be deleted.
const SPECIAL: [&str; 4] = ["/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config"];

/// All znodes, found by path, and the sessions.
///
/// The root has two names, `/` and the empty one, as in upstream's node map.
#[derive(Debug)]
pub struct DataTree {
    config: TreeConfig,
    seed: u64,
    pub(crate) nodes: Slab<Znode>,
    index: Index,
    pub(crate) acls: AclTable,
    ephemerals: BTreeMap<SessionId, BTreeSet<u32>>,
    ephemerals_count: usize,
    containers: BTreeSet<u32>,
    ttls: BTreeSet<u32>,
    pub(crate) quotas: BTreeSet<Box<str>>,
    sessions: BTreeMap<SessionId, i32>,
    digest: u64,
    digest_log: DigestLog,
    /// Paths and data, in bytes.
    data_size: u64,
    last_zxid: Zxid,
    pub(crate) changes: Changes,
}

/// Where a new znode goes.
pub(crate) struct NewZnode<'a> {
    pub(crate) parent: u32,
    pub(crate) path: &'a str,
    pub(crate) hash: u64,
    pub(crate) data: Option<&'a [u8]>,
    /// Already counted as used.
    pub(crate) acl: u32,
    pub(crate) stat: StatPersisted,
    /// Storage has it already: not a change.
    pub(crate) loaded: bool,
}

/// What a create transaction says.
pub(crate) struct CreateArgs<'a> {
    pub(crate) path: &'a str,
    pub(crate) data: Option<&'a [u8]>,
    pub(crate) acl: &'a [Acl],
    pub(crate) owner: i64,
    /// The parent's new one; −1 means one more than now.
    pub(crate) parent_cversion: i32,
    pub(crate) zxid: Zxid,
    /// In ms.
    pub(crate) time: i64,
}

/// A znode that was created, and its parent.
pub(crate) struct Created {
    pub(crate) id: u32,
    pub(crate) parent: u32,
    pub(crate) stat: Stat,
}

/// A znode that was deleted. Its ACL stays in use until it is released.
pub(crate) struct Deleted {
    pub(crate) acl: u32,
    pub(crate) parent_acl: u32,
}

impl DataTree {
    /// The tree of a new database: the root, `/zookeeper`, `/zookeeper/quota` and
    /// `/zookeeper/config` (facts, section 1.17).
    #[must_use]
    pub fn new(config: TreeConfig) -> Self {
        Self::with_seed(config, 0)
    }

    /// The same, with a secret `seed` that keeps clients from choosing paths whose hashes collide.
    /// Nothing that can be observed depends on it.
    #[must_use]
    pub fn with_seed(config: TreeConfig, seed: u64) -> Self {
        let mut tree = Self {
            config,
            seed,
            nodes: Slab::new(),
            index: Index::new(),
            acls: AclTable::new(seed),
            ephemerals: BTreeMap::new(),
            ephemerals_count: 0,
            containers: BTreeSet::new(),
            ttls: BTreeSet::new(),
            quotas: BTreeSet::new(),
            sessions: BTreeMap::new(),
            digest: 0,
            digest_log: DigestLog::default(),
            data_size: 0,
            last_zxid: Zxid::ZERO,
            changes: Changes::new(),
        };
        for path in SPECIAL {
            // Upstream sets the ACL of the config znode with version −1.
            let (acl, aversion) = match path {
                "/zookeeper/config" => (tree.acls.intern(&Acl::read_only()), -1),
                _ => (tree.acls.intern(&Acl::open()), 0), // not an enum of ours
            };
            let parent = if path == "/" {
                NO_PARENT
            } else {
                tree.id(path::parent(path)).expect("in order")
            };
            let hash = tree.hash(path);
            tree.insert(NewZnode {
                parent,
                path,
                hash,
                data: Some(&[]),
                acl,
                stat: StatPersisted { aversion, ..StatPersisted::default() },
                loaded: false,
            });
        }
        tree
    }

    /// What the tree was made with.
    #[must_use]
    pub fn config(&self) -> TreeConfig {
        self.config
    }

    /// The znode at `path`. Any string may be asked for.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<ZnodeRef<'_>> {
        self.id(path).map(|id| self.znode(id))
    }

    /// Every znode with its path; parents before children, otherwise in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (String, ZnodeRef<'_>)> {
        let mut stack = vec![ROOT];
        std::iter::from_fn(move || {
            let id = stack.pop()?;
            stack.extend_from_slice(self.nodes[id].children());
            Some((self.path_of(id), self.znode(id)))
        })
    }

    /// How many znodes there are, the root counted twice as upstream does.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.nodes.len() + 1
    }

    /// The bytes of all paths and data.
    #[must_use]
    pub fn approximate_data_size(&self) -> u64 {
        self.data_size
    }

    /// The sum of all znodes' digests, modulo 2^64 (facts, section 4.5).
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// What [`Self::digest`] was after every [`DIGEST_LOG_INTERVAL`](crate::DIGEST_LOG_INTERVAL)th
    /// transaction that was applied here, oldest first; at most
    /// [`DIGEST_LOG_LIMIT`](crate::DIGEST_LOG_LIMIT) of them. A tree that was loaded begins with none.
    pub fn digest_log(&self) -> impl ExactSizeIterator<Item = ZxidDigest> {
        self.digest_log.iter()
    }

    /// The last transaction applied.
    #[must_use]
    pub fn last_zxid(&self) -> Zxid {
        self.last_zxid
    }

    /// How many different ACLs are in use.
    #[must_use]
    pub fn acl_count(&self) -> usize {
        self.acls.len()
    }

    /// The live sessions and their timeouts in ms.
    #[must_use]
    pub fn sessions(&self) -> &BTreeMap<SessionId, i32> {
        &self.sessions
    }

    /// The paths of a session's ephemeral znodes, sorted.
    pub fn ephemerals(&self, session: SessionId) -> impl Iterator<Item = String> {
        let ids = self.ephemerals.get(&session).into_iter().flatten();
        let mut paths: Vec<String> = ids.map(|&id| self.path_of(id)).collect();
        paths.sort_unstable();
        paths.into_iter()
    }

    /// The sessions that own ephemeral znodes, in order.
    pub fn ephemeral_sessions(&self) -> impl Iterator<Item = SessionId> {
        self.ephemerals.keys().copied()
    }

    /// How many ephemeral znodes there are.
    #[must_use]
    pub fn ephemerals_count(&self) -> usize {
        self.ephemerals_count
    }

    /// The paths of the containers, in no particular order.
    pub fn containers(&self) -> impl Iterator<Item = String> {
        self.containers.iter().map(|&id| self.path_of(id))
    }

    /// The paths of the znodes with a time to live, in no particular order.
    pub fn ttls(&self) -> impl Iterator<Item = String> {
        self.ttls.iter().map(|&id| self.path_of(id))
    }

    /// How many znodes are below `path`; `None` if it does not exist. For the empty path upstream
    /// counts the root among its own children.
    #[must_use]
    pub fn all_children_number(&self, path: &str) -> Option<i32> {
        let id = self.id(path)?;
        let count = match path {
            "" => self.nodes.len(),
            "/" => self.nodes.len() - 1,
            _ => self.subtree(id).len() - 1, // any other path
        };
        Some(i32::try_from(count).unwrap_or(i32::MAX))
    }

    fn znode(&self, id: u32) -> ZnodeRef<'_> {
        ZnodeRef { tree: self, node: &self.nodes[id] }
    }

    pub(crate) fn hash(&self, path: &str) -> u64 {
        hash_bytes(self.seed, path.as_bytes())
    }

    pub(crate) fn id(&self, path: &str) -> Option<u32> {
        if path.len() <= 1 {
            return matches!(path, "" | "/").then_some(ROOT);
        }
        self.id_hashed(path, self.hash(path))
    }

    pub(crate) fn id_hashed(&self, path: &str, hash: u64) -> Option<u32> {
        self.index.find(hash, |id| self.is_path_of(path.as_bytes(), id))
    }

    fn is_path_of(&self, mut rest: &[u8], mut id: u32) -> bool {
        while id != ROOT {
            let node = &self.nodes[id];
            let before = rest.strip_suffix(node.name.as_bytes());
            let Some(before) = before.and_then(|before| before.strip_suffix(b"/")) else {
                return false;
            };
            rest = before;
            id = node.parent;
        }
        rest.is_empty()
    }

    pub(crate) fn path_of(&self, id: u32) -> String {
        let mut path = Vec::new();
        self.push_path_of(id, &mut path);
        String::from_utf8(path).expect("names are made from strings")
    }

    /// Appends the path of `id`.
    pub(crate) fn push_path_of(&self, id: u32, out: &mut Vec<u8>) {
        if id == ROOT {
            out.push(b'/');
            return;
        }
        let ancestors = || {
            let mut id = id;
            std::iter::from_fn(move || {
                (id != ROOT).then(|| {
                    let node = &self.nodes[id];
                    id = node.parent;
                    node.name.as_bytes()
                })
            })
        };
        let start = out.len();
        let mut end = start + ancestors().map(|name| name.len() + 1).sum::<usize>();
        out.resize(end, b'/');
        for name in ancestors() {
            out[end - name.len()..end].copy_from_slice(name);
            end -= name.len() + 1;
        }
    }

    pub(crate) fn is_live(&self, id: u32) -> bool {
        id == ROOT || self.nodes[id].parent != NO_PARENT
    }

    /// `id` and everything below it, parents first.
    pub(crate) fn subtree(&self, id: u32) -> Vec<u32> {
        let mut ids = vec![id];
        let mut at = 0;
        while let Some(&id) = ids.get(at) {
            ids.extend_from_slice(self.nodes[id].children());
            at += 1;
        }
        ids
    }

    /// Adds a znode; its parent's own fields stay as they are.
    pub(crate) fn insert(&mut self, new: NewZnode<'_>) -> u32 {
        let NewZnode { parent, path, hash, data, acl, stat, loaded } = new;
        let id = self.nodes.reserve();
        let at_parent = if parent == NO_PARENT {
            assert_eq!(id, ROOT, "the root is the first znode and the only one without a parent");
            0
        } else {
            self.index.insert(hash, id);
            let siblings = self.nodes[parent].children.get_or_insert_default();
            siblings.push(id);
            u32::try_from(siblings.len() - 1).expect("ids are of 32 bits")
        };
        let node = &mut self.nodes[id];
        node.set_stat(&stat);
        node.name = Name::new(path::name(path));
        node.data = data.map(Box::from);
        node.parent = parent;
        node.at_parent = at_parent;
        node.acl = acl;
        let size = path.len() + data.map_or(0, <[u8]>::len);
        self.data_size += size as u64;
        let epoch = self.changes.epoch;
        if loaded {
            node.stamp = Stamp::default();
        } else if node.stamp.epoch() == epoch {
            // The place was noted for a znode that was here before.
            node.stamp = Stamp::born(epoch);
            self.changes.add_bytes(size);
        } else {
            node.stamp = Stamp::born(epoch);
            self.changes.note(id, size);
        }
        self.add_owner(id, stat.ephemeral_owner);
        self.update_digest(id, path);
        id
    }

    fn add_owner(&mut self, id: u32, owner: i64) {
        match self.config.extended_types.kind(owner) {
            OwnerKind::Void => {}
            OwnerKind::Session(session) => {
                self.ephemerals.entry(SessionId(session)).or_default().insert(id);
                self.ephemerals_count += 1;
            }
            OwnerKind::Container => {
                self.containers.insert(id);
            }
            OwnerKind::Ttl(_) => {
                self.ttls.insert(id);
            }
        }
    }

    fn remove_owner(&mut self, id: u32, owner: i64) {
        match self.config.extended_types.kind(owner) {
            OwnerKind::Void => {}
            OwnerKind::Session(session) => {
                let session = SessionId(session);
                let owned = self.ephemerals.get_mut(&session).expect("every owner is indexed");
                owned.remove(&id);
                if owned.is_empty() {
                    self.ephemerals.remove(&session);
                }
                self.ephemerals_count -= 1;
            }
            OwnerKind::Container => {
                self.containers.remove(&id);
            }
            OwnerKind::Ttl(_) => {
                self.ttls.remove(&id);
            }
        }
    }

    /// Recomputes the znode's part in the digest.
    fn update_digest(&mut self, id: u32, path: &str) {
        if !self.config.digest_enabled {
            return;
        }
        let node = &mut self.nodes[id];
        let digest = node_digest32(path, node.data.as_deref(), &node.stat());
        self.digest =
            self.digest.wrapping_sub(u64::from(node.digest)).wrapping_add(u64::from(digest));
        node.digest = digest;
    }

    /// Changes a znode's own fields; the checkpoint and the digest are told.
    pub(crate) fn alter(&mut self, id: u32, path: &str, change: impl FnOnce(&mut Znode)) {
        self.touch(id, path);
        change(&mut self.nodes[id]);
        self.update_digest(id, path);
    }

    /// Notes that a znode is about to change, and saves what a running checkpoint still needs.
    fn touch(&mut self, id: u32, path: &str) {
        let node = &mut self.nodes[id];
        if node.stamp.epoch() == self.changes.epoch {
            return;
        }
        if self.changes.is_taken(node.stamp) {
            let acl = Arc::clone(self.acls.get(node.acl));
            self.changes.save(id, path, node.data.clone(), acl, node.stat());
        }
        node.stamp = Stamp::changed(self.changes.epoch);
        self.changes.note(id, path.len() + node.data_len());
    }

    /// Replaces a znode's data, and calls `change` for the rest. The old data is moved, not copied,
    /// where a checkpoint needs it. Returns by how many bytes the data grew.
    pub(crate) fn replace_data(
        &mut self,
        id: u32,
        path: &str,
        data: Option<&[u8]>,
        change: impl FnOnce(&mut Znode),
    ) -> i64 {
        let node = &mut self.nodes[id];
        let old_len = node.data_len();
        let new_len = data.map_or(0, <[u8]>::len);
        let old = std::mem::replace(&mut node.data, data.map(Box::from));
        if node.stamp.epoch() != self.changes.epoch {
            if self.changes.is_taken(node.stamp) {
                let acl = Arc::clone(self.acls.get(node.acl));
                self.changes.save(id, path, old, acl, node.stat());
            }
            node.stamp = Stamp::changed(self.changes.epoch);
            self.changes.note(id, path.len() + new_len);
        } else {
            self.changes.add_bytes(new_len);
        }
        change(&mut self.nodes[id]);
        self.update_digest(id, path);
        self.data_size = self.data_size - old_len as u64 + new_len as u64;
        new_len as i64 - old_len as i64
    }

    /// `DataTree.createNode`.
    pub(crate) fn create(&mut self, args: &CreateArgs<'_>) -> Result<Created, ErrorCode> {
        let &CreateArgs { path, data, acl, owner, parent_cversion, zxid, time } = args;
        let (parent_path, name) = split(path).ok_or(ErrorCode::BAD_ARGUMENTS)?;
        let parent = self.id(parent_path).ok_or(ErrorCode::NO_NODE)?;
        if name.is_empty() {
            // The root, or a slash at the end, which prep refuses.
            return Err(if path == "/" {
                ErrorCode::NODE_EXISTS
            } else {
                ErrorCode::BAD_ARGUMENTS
            });
        }
        let hash = self.hash(path);
        if let Some(existing) = self.id_hashed(path, hash) {
            // A replay over a later picture: upstream takes the ACL and reports the failure.
            self.set_acl_of(existing, path, acl, |_| {});
            return Err(ErrorCode::NODE_EXISTS);
        }
        self.raise_cversion(parent, parent_path, parent_cversion, zxid);
        let stat = StatPersisted {
            czxid: zxid.0,
            mzxid: zxid.0,
            ctime: time,
            mtime: time,
            version: 0,
            cversion: 0,
            aversion: 0,
            ephemeral_owner: owner,
            pzxid: zxid.0,
        };
        let acl = self.acls.intern(acl);
        let id = self.insert(NewZnode { parent, path, hash, data, acl, stat, loaded: false });
        let stat = visible_stat(&self.nodes[id], self.config.extended_types);
        self.quota_after_create(path);
        self.add_usage(path, data.map_or(0, <[u8]>::len) as i64, 1);
        Ok(Created { id, parent, stat })
    }

    /// `setCversionPzxid`: only upwards, so that a replay does not undo what came later.
    pub(crate) fn raise_cversion(&mut self, id: u32, path: &str, cversion: i32, zxid: Zxid) {
        let current = self.nodes[id].cversion;
        let cversion = if cversion == -1 { current.wrapping_add(1) } else { cversion };
        if cversion > current {
            self.alter(id, path, |node| {
                node.cversion = cversion;
                node.pzxid = zxid.0;
            });
        }
    }

    /// `DataTree.deleteNode` of a znode that [`can_be_deleted`] and has no children.
    pub(crate) fn delete(&mut self, path: &str, zxid: Zxid) -> Result<Deleted, ErrorCode> {
        let parent_path = path::parent(path);
        let parent = self.id(parent_path).ok_or(ErrorCode::NO_NODE)?;
        // Even where the znode is missing: it may have gone before the picture was taken.
        if zxid.0 > self.nodes[parent].pzxid {
            self.alter(parent, parent_path, |node| node.pzxid = zxid.0);
        }
        let hash = self.hash(path);
        let id = self.id_hashed(path, hash).ok_or(ErrorCode::NO_NODE)?;
        let (acl, data_len) = self.remove(id, path, hash);
        self.quota_after_delete(path);
        self.add_usage(path, -(data_len as i64), -1);
        Ok(Deleted { acl, parent_acl: self.nodes[parent].acl })
    }

    /// Takes out a znode without children. Its ACL, which is returned with the data's length, stays
    /// in use.
    fn remove(&mut self, id: u32, path: &str, hash: u64) -> (u32, usize) {
        assert!(self.nodes[id].children().is_empty(), "znodes are removed from the leaves up");
        self.index.remove(hash, id);
        let node = self.nodes.remove(id);
        let siblings =
            self.nodes[node.parent].children.as_mut().expect("a parent lists its children");
        siblings.swap_remove(node.at_parent as usize);
        let moved = siblings.get(node.at_parent as usize).copied();
        if siblings.is_empty() {
            self.nodes[node.parent].children = None;
        }
        if let Some(moved) = moved {
            self.nodes[moved].at_parent = node.at_parent;
        }
        self.remove_owner(id, node.owner);
        self.digest = self.digest.wrapping_sub(u64::from(node.digest));
        let data_len = node.data_len();
        self.data_size -= (path.len() + data_len) as u64;
        let epoch = self.changes.epoch;
        if node.stamp.epoch() != epoch || node.stamp.is_persisted() {
            self.changes.note_deleted(path);
        }
        if node.stamp.epoch() == epoch {
            // The place stays in the list of the changed.
            self.nodes[id].stamp = node.stamp;
        }
        if self.changes.is_taken(node.stamp) {
            let stat = node.stat();
            self.changes.save(id, path, node.data, Arc::clone(self.acls.get(node.acl)), stat);
        }
        (node.acl, data_len)
    }

    /// `DataTree.setACL`, with what else changes.
    pub(crate) fn set_acl_of(
        &mut self,
        id: u32,
        path: &str,
        acl: &[Acl],
        change: impl FnOnce(&mut Znode),
    ) {
        let acl = self.acls.intern(acl);
        let old = self.nodes[id].acl;
        self.alter(id, path, |node| {
            node.acl = acl;
            change(node);
        });
        self.acls.release(old);
    }

    /// A session begins, or its timeout changes.
    pub(crate) fn put_session(&mut self, session: SessionId, timeout_ms: i32) {
        self.sessions.insert(session, timeout_ms);
        self.changes.note_session(session, Some(timeout_ms));
    }

    pub(crate) fn remove_session(&mut self, session: SessionId) {
        if self.sessions.remove(&session).is_some() {
            self.changes.note_session(session, None);
        }
    }

    pub(crate) fn advance(&mut self, zxid: Zxid) {
        self.last_zxid = self.last_zxid.max(zxid);
    }

    /// A transaction is applied as a whole.
    pub(crate) fn applied(&mut self, zxid: Zxid) {
        self.advance(zxid);
        self.digest_log.note(zxid, self.digest);
    }

    /// Puts a znode there as storage knows it; not noted as changed.
    pub(crate) fn load(
        &mut self,
        path: &str,
        data: Option<&[u8]>,
        acl: &[Acl],
        stat: &StatPersisted,
    ) -> Result<(), LoadProblem> {
        let acl = self.acls.intern(acl);
        let hash = self.hash(path);
        let existing = if path == "/" { Some(ROOT) } else { self.id_hashed(path, hash) };
        if let Some(id) = existing {
            let node = &mut self.nodes[id];
            let (old_acl, old_owner, old_len) = (node.acl, node.owner, node.data_len());
            node.set_stat(stat);
            node.data = data.map(Box::from);
            node.acl = acl;
            node.stamp = Stamp::default();
            self.data_size = self.data_size - old_len as u64 + data.map_or(0, <[u8]>::len) as u64;
            self.remove_owner(id, old_owner);
            self.add_owner(id, stat.ephemeral_owner);
            self.update_digest(id, path);
            self.acls.release(old_acl);
            return Ok(());
        }
        let target = match split(path) {
            Some((parent, name)) if !name.is_empty() => self.id(parent).ok_or(LoadProblem::Parent),
            Some(_) | None => Err(LoadProblem::Path),
        };
        match target {
            Ok(parent) => {
                self.insert(NewZnode { parent, path, hash, data, acl, stat: *stat, loaded: true });
                Ok(())
            }
            Err(problem) => {
                self.acls.release(acl);
                Err(problem)
            }
        }
    }

    pub(crate) fn load_session(&mut self, session: SessionId, timeout_ms: i32) {
        self.sessions.insert(session, timeout_ms);
    }
}

/// Whether `path` is absolute and not one of ZooKeeper's own.
pub(crate) fn can_be_deleted(path: &str) -> bool {
    path.starts_with('/') && !SPECIAL.contains(&path)
}

/// The parent's path and the name; `None` if `path` is not the two put together.
fn split(path: &str) -> Option<(&str, &str)> {
    let (parent, name) = (path::parent(path), path::name(path));
    let prefix_len = if parent == "/" { 1 } else { parent.len() + 1 };
    (path.starts_with('/') && path.len() == prefix_len + name.len()).then_some((parent, name))
}

/// Why a znode cannot be loaded.
pub(crate) enum LoadProblem {
    Path,
    Parent,
}

/// A znode as it is now.
#[derive(Clone, Copy)]
pub struct ZnodeRef<'a> {
    tree: &'a DataTree,
    node: &'a Znode,
}

impl<'a> ZnodeRef<'a> {
    /// The data; null and empty differ.
    #[must_use]
    pub fn data(self) -> Option<&'a [u8]> {
        self.node.data.as_deref()
    }

    /// What clients are told (facts, section 1.6).
    #[must_use]
    pub fn stat(self) -> Stat {
        visible_stat(self.node, self.tree.config.extended_types)
    }

    /// What is persisted, logged and digested.
    #[must_use]
    pub fn stat_persisted(self) -> StatPersisted {
        self.node.stat()
    }

    /// Who may do what with it.
    #[must_use]
    pub fn acl(self) -> &'a [Acl] {
        self.tree.acls.get(self.node.acl)
    }

    /// The same, shared.
    #[must_use]
    pub fn acl_shared(self) -> Arc<[Acl]> {
        Arc::clone(self.tree.acls.get(self.node.acl))
    }

    /// The children's names, in no particular order.
    pub fn children(self) -> impl ExactSizeIterator<Item = &'a str> {
        self.node.children().iter().map(move |&id| self.tree.nodes[id].name.as_str())
    }

    /// How many children it has.
    #[must_use]
    pub fn num_children(self) -> usize {
        self.node.children().len()
    }

    /// What its owner field says.
    #[must_use]
    pub fn owner_kind(self) -> OwnerKind {
        self.tree.config.extended_types.kind(self.node.owner)
    }
}

impl std::fmt::Debug for ZnodeRef<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ZnodeRef")
            .field("data", &self.data())
            .field("acl", &self.acl())
            .field("stat", &self.stat())
            .finish_non_exhaustive()
    }
}

pub(crate) fn visible_stat(node: &Znode, types: ExtendedTypes) -> Stat {
    let num_children = i32::try_from(node.children().len()).unwrap_or(i32::MAX);
    Stat {
        czxid: node.czxid,
        mzxid: node.mzxid,
        ctime: node.ctime,
        mtime: node.mtime,
        version: node.version,
        // Every create but those of the children present had its delete.
        cversion: node.cversion.wrapping_mul(2).wrapping_sub(num_children),
        aversion: node.aversion,
        ephemeral_owner: match types.kind(node.owner) {
            OwnerKind::Session(session) => session,
            OwnerKind::Void | OwnerKind::Container | OwnerKind::Ttl(_) => 0,
        },
        data_length: i32::try_from(node.data_len()).unwrap_or(i32::MAX),
        num_children,
        pzxid: node.pzxid,
    }
}

/// The owner field that a create transaction asks for.
pub(crate) fn owner_of(ephemeral: bool, session: SessionId) -> i64 {
    if ephemeral { session.0 } else { 0 }
}

/// The owner field of a container.
pub(crate) const fn container_owner() -> i64 {
    CONTAINER_OWNER
}

/// Upstream writes TTLs in the new layout whatever its settings are.
pub(crate) fn ttl_owner(ttl_ms: i64) -> Option<i64> {
    ExtendedTypes::Enabled.ttl_owner(ttl_ms)
}
