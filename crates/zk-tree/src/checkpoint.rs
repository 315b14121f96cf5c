//! What changed since storage last asked, and a steady picture of it.
//!
//! Time is counted in epochs; a checkpoint begins by ending one. A znode's stamp names the epoch it
//! last changed in, so beginning costs nothing: the list of the changed is handed over, and every
//! znode whose stamp names the ended epoch belongs to the checkpoint. When such a znode changes
//! again before the checkpoint has ended, its image is saved first.

use std::collections::{BTreeMap, btree_map};
use std::ops::Bound;
use std::sync::Arc;

use zk_proto::acl::Acl;
use zk_proto::data::StatPersisted;
use zk_proto::{SessionId, Zxid};

use crate::database::Database;
use crate::tree::DataTree;
use crate::znode::Stamp;

/// Data in one portion, in bytes, after which it ends early.
const PORTION_BYTES_MAX: usize = 1 << 20;

/// What a changed znode or session takes in storage beside path and data, in bytes: an estimate.
const ITEM_OVERHEAD: usize = 100;

/// One change for storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckpointItem {
    /// A znode is new or changed.
    PutZnode {
        /// Its path.
        path: String,
        /// Its data; null and empty differ.
        data: Option<Box<[u8]>>,
        /// Its ACL.
        acl: Arc<[Acl]>,
        /// Its stat.
        stat: StatPersisted,
    },
    /// A znode is gone. It may never have been stored.
    DeleteZnode {
        /// Its path.
        path: String,
    },
    /// A session is new or its timeout, in ms, changed.
    PutSession(SessionId, i32),
    /// A session is gone. It may never have been stored.
    DeleteSession(SessionId),
}

/// The state of a znode at a checkpoint that it has since left.
#[derive(Debug)]
struct Image {
    path: Box<str>,
    data: Option<Box<[u8]>>,
    acl: Arc<[Acl]>,
    stat: StatPersisted,
}

#[derive(Debug)]
struct Running {
    epoch: u32,
    images: BTreeMap<u32, Image>,
}

/// The tree's side: what changed in this epoch, and what the running checkpoint needs saved.
#[derive(Debug)]
pub(crate) struct Changes {
    pub(crate) epoch: u32,
    /// Places of znodes that changed. A place may since have become empty or another znode's.
    znodes: Vec<u32>,
    deleted: Vec<Box<str>>,
    sessions: BTreeMap<SessionId, Option<i32>>,
    bytes: usize,
    running: Option<Running>,
}

impl Changes {
    pub(crate) fn new() -> Self {
        Self {
            epoch: 1,
            znodes: Vec::new(),
            deleted: Vec::new(),
            sessions: BTreeMap::new(),
            bytes: 0,
            running: None,
        }
    }

    /// Puts a place on the list; its stamp keeps it from being listed twice.
    pub(crate) fn note(&mut self, id: u32, bytes: usize) {
        self.znodes.push(id);
        self.add_bytes(bytes);
    }

    pub(crate) fn add_bytes(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes + ITEM_OVERHEAD);
    }

    pub(crate) fn note_deleted(&mut self, path: &str) {
        self.deleted.push(path.into());
        self.add_bytes(path.len());
    }

    pub(crate) fn note_session(&mut self, session: SessionId, timeout_ms: Option<i32>) {
        self.sessions.insert(session, timeout_ms);
        self.add_bytes(0);
    }

    /// Whether a znode with this stamp belongs to the running checkpoint and has not changed since.
    pub(crate) fn is_taken(&self, stamp: Stamp) -> bool {
        self.running.as_ref().is_some_and(|running| running.epoch == stamp.epoch())
    }

    /// Saves the image of a znode that [`Self::is_taken`].
    pub(crate) fn save(
        &mut self,
        id: u32,
        path: &str,
        data: Option<Box<[u8]>>,
        acl: Arc<[Acl]>,
        stat: StatPersisted,
    ) {
        let running = self.running.as_mut().expect("only the running checkpoint takes znodes");
        let earlier = running.images.insert(id, Image { path: path.into(), data, acl, stat });
        assert!(earlier.is_none(), "a znode leaves a checkpoint once");
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Collect,
    Sort,
    Znodes,
    Sessions,
    Done,
}

/// The id of an entry that deletes.
const DELETE: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Entry {
    path: PathRef,
    /// The place of the znode to put, or [`DELETE`].
    id: u32,
}

#[derive(Debug, Clone, Copy)]
struct PathRef {
    block: u32,
    start: u32,
    len: u32,
}

/// Paths one after another, in blocks, so that growth never moves what is there.
#[derive(Debug, Default)]
struct Paths {
    blocks: Vec<Vec<u8>>,
}

/// A block's length in bytes; a longer path has a block of its own.
const BLOCK_LEN: usize = 1 << 16;

/// How long a path is likely to be at most, in bytes.
const USUAL_PATH_LEN: usize = 128;

impl Paths {
    /// Keeps what `write` appends.
    fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> PathRef {
        let len32 = |len| u32::try_from(len).expect("a path fits into a frame");
        // A path that is longer than usual may make its block grow a little.
        if self.blocks.last().is_none_or(|block| block.len() + USUAL_PATH_LEN > BLOCK_LEN) {
            self.blocks.push(Vec::with_capacity(BLOCK_LEN));
        }
        let block = self.blocks.len() - 1;
        let bytes = &mut self.blocks[block];
        let start = bytes.len();
        write(bytes);
        PathRef { block: len32(block), start: len32(start), len: len32(bytes.len() - start) }
    }

    fn get(&self, path: PathRef) -> &[u8] {
        let PathRef { block, start, len } = path;
        &self.blocks[block as usize][start as usize..][..len as usize]
    }
}

/// A picture of everything that changed up to one zxid.
///
/// Made by [`Database::begin_checkpoint`], read with [`Database::checkpoint_chunk`], given back with
/// [`Database::end_checkpoint`].
#[derive(Debug)]
pub struct Checkpoint {
    generation: u64,
    zxid: Zxid,
    digest: u64,
    epoch: u32,
    /// As the tree listed them.
    znodes: Vec<u32>,
    deleted: Vec<Box<str>>,
    sessions: BTreeMap<SessionId, Option<i32>>,
    bytes: usize,
    phase: Phase,
    /// In `znodes`, then in `entries`.
    at: usize,
    last_session: Option<SessionId>,
    paths: Paths,
    entries: Vec<Entry>,
    sort_was_offered: bool,
}

/// What is left of a checkpoint. Dropping it may take a while, so that is best done without a lock.
#[derive(Debug)]
#[must_use = "drop it after the lock is released"]
pub struct SpentCheckpoint {
    _checkpoint: Checkpoint,
    _running: Option<Running>,
}

impl Checkpoint {
    /// The last transaction in the picture.
    #[must_use]
    pub fn zxid(&self) -> Zxid {
        self.zxid
    }

    /// The digest of the tree at that moment.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// At most how many items there will be.
    #[must_use]
    pub fn len_max(&self) -> usize {
        self.znodes.len() + self.deleted.len() + self.sessions.len()
    }

    /// Does what is due and needs no lock: call it between two portions. (If it is not called, the
    /// work is done under the lock.)
    pub fn run_unlocked(&mut self) {
        if self.phase == Phase::Sort {
            self.sort();
        }
    }

    fn path(&self, entry: Entry) -> &[u8] {
        self.paths.get(entry.path)
    }

    fn sort(&mut self) {
        for path in &self.deleted {
            let path = self.paths.push(|out| out.extend_from_slice(path.as_bytes()));
            self.entries.push(Entry { path, id: DELETE });
        }
        let mut entries = std::mem::take(&mut self.entries);
        // A path that was deleted and is there again is put.
        entries.sort_unstable_by(|a, b| {
            let kinds = (a.id == DELETE).cmp(&(b.id == DELETE));
            self.path(*a).cmp(self.path(*b)).then(kinds)
        });
        entries.dedup_by(|later, earlier| self.path(*later) == self.path(*earlier));
        self.entries = entries;
        self.phase = Phase::Znodes;
        self.at = 0;
    }
}

impl DataTree {
    /// How many changes wait for a checkpoint.
    #[must_use]
    pub fn dirty_count(&self) -> usize {
        self.changes.znodes.len() + self.changes.deleted.len() + self.changes.sessions.len()
    }

    /// About how many bytes they will take.
    #[must_use]
    pub fn dirty_bytes(&self) -> usize {
        self.changes.bytes
    }

    fn image(&self, checkpoint: &Checkpoint, id: u32) -> Option<&Image> {
        let running = self.changes.running.as_ref();
        running.filter(|running| running.epoch == checkpoint.epoch)?.images.get(&id)
    }

    fn is_unchanged(&self, checkpoint: &Checkpoint, id: u32) -> bool {
        self.is_live(id) && self.nodes[id].stamp.epoch() == checkpoint.epoch
    }

    fn collect(&self, checkpoint: &mut Checkpoint, max: usize) {
        let from = checkpoint.at;
        if from == 0 {
            // At once, because growing would move what is there.
            checkpoint.entries.reserve_exact(checkpoint.znodes.len() + checkpoint.deleted.len());
        }
        let to = checkpoint.znodes.len().min(from.saturating_add(max));
        for at in from..to {
            let id = checkpoint.znodes[at];
            let path = if self.is_unchanged(checkpoint, id) {
                checkpoint.paths.push(|out| self.push_path_of(id, out))
            } else if let Some(image) = self.image(checkpoint, id) {
                checkpoint.paths.push(|out| out.extend_from_slice(image.path.as_bytes()))
            } else {
                continue; // the place was empty when the checkpoint began
            };
            checkpoint.entries.push(Entry { path, id });
        }
        checkpoint.at = to;
        if to == checkpoint.znodes.len() {
            checkpoint.phase = Phase::Sort;
        }
    }

    fn put_znodes(&self, checkpoint: &mut Checkpoint, max: usize, out: &mut Vec<CheckpointItem>) {
        let mut bytes = 0;
        for _ in 0..max {
            let Some(&entry) = checkpoint.entries.get(checkpoint.at) else { break };
            if bytes > PORTION_BYTES_MAX {
                return;
            }
            let path =
                String::from_utf8(checkpoint.path(entry).to_vec()).expect("copied from paths");
            checkpoint.at += 1;
            bytes += path.len();
            let id = entry.id;
            if id == DELETE {
                out.push(CheckpointItem::DeleteZnode { path });
                continue;
            }
            let (data, acl, stat) = if self.is_unchanged(checkpoint, id) {
                let node = &self.nodes[id];
                (node.data.clone(), Arc::clone(self.acls.get(node.acl)), node.stat())
            } else {
                let image = self.image(checkpoint, id).expect("what a checkpoint needs is saved");
                (image.data.clone(), Arc::clone(&image.acl), image.stat)
            };
            bytes += data.as_ref().map_or(0, |data| data.len());
            out.push(CheckpointItem::PutZnode { path, data, acl, stat });
        }
        if checkpoint.at == checkpoint.entries.len() {
            checkpoint.phase = Phase::Sessions;
        }
    }
}

fn put_sessions(checkpoint: &mut Checkpoint, max: usize, out: &mut Vec<CheckpointItem>) {
    let from = checkpoint.last_session.map_or(Bound::Unbounded, Bound::Excluded);
    let mut last = None;
    for (&session, timeout_ms) in checkpoint.sessions.range((from, Bound::Unbounded)).take(max) {
        last = Some(session);
        out.push(match timeout_ms {
            Some(timeout_ms) => CheckpointItem::PutSession(session, *timeout_ms),
            None => CheckpointItem::DeleteSession(session),
        });
    }
    match last {
        Some(session) => checkpoint.last_session = Some(session),
        None => checkpoint.phase = Phase::Done,
    }
}

impl Database {
    /// Takes everything that changed since the last checkpoint, as of now. The cost does not depend
    /// on how much that is.
    ///
    /// # Panics
    /// The last checkpoint has not ended.
    pub fn begin_checkpoint(&mut self) -> Checkpoint {
        let changes = &mut self.tree.changes;
        assert!(changes.running.is_none(), "one checkpoint at a time");
        let epoch = changes.epoch;
        changes.epoch += 1;
        assert!(changes.epoch < 1 << 31, "a checkpoint each second lasts for 68 years");
        changes.running = Some(Running { epoch, images: BTreeMap::new() });
        Checkpoint {
            generation: self.generation,
            znodes: std::mem::take(&mut changes.znodes),
            deleted: std::mem::take(&mut changes.deleted),
            sessions: std::mem::take(&mut changes.sessions),
            bytes: std::mem::take(&mut changes.bytes),
            zxid: self.tree.last_zxid(),
            digest: self.tree.digest(),
            epoch,
            phase: Phase::Collect,
            at: 0,
            last_session: None,
            paths: Paths::default(),
            entries: Vec::new(),
            sort_was_offered: false,
        }
    }

    /// Appends the next portion, at most `max` items, to `out`: first znodes, ascending by the bytes
    /// of their paths and each path once, then sessions, ascending. Returns whether there is more;
    /// a portion may be empty and yet not the last. The work of one call is bounded by `max`.
    ///
    /// Between two calls, without a lock, call [`Checkpoint::run_unlocked`].
    ///
    /// Once the database has been replaced there is nothing more, and what there was means nothing:
    /// see [`Self::has_begun`].
    #[must_use = "it says whether there is more"]
    pub fn checkpoint_chunk(
        &self,
        checkpoint: &mut Checkpoint,
        max: usize,
        out: &mut Vec<CheckpointItem>,
    ) -> bool {
        if !self.has_begun(checkpoint) {
            return false;
        }
        let max = max.max(1);
        match checkpoint.phase {
            Phase::Collect => self.tree.collect(checkpoint, max),
            Phase::Sort if !checkpoint.sort_was_offered => checkpoint.sort_was_offered = true,
            Phase::Sort => checkpoint.sort(),
            Phase::Znodes => self.tree.put_znodes(checkpoint, max, out),
            Phase::Sessions => put_sessions(checkpoint, max, out),
            Phase::Done => {}
        }
        checkpoint.phase != Phase::Done
    }

    /// Ends the checkpoint. If what it gave out did not reach storage (`!ok`), all of it counts as
    /// changed again; that costs as much as there was.
    pub fn end_checkpoint(&mut self, mut checkpoint: Checkpoint, ok: bool) -> SpentCheckpoint {
        if !self.has_begun(&checkpoint) {
            return SpentCheckpoint { _checkpoint: checkpoint, _running: None };
        }
        let running = self.tree.changes.running.take();
        assert!(
            running.as_ref().is_some_and(|running| running.epoch == checkpoint.epoch),
            "a checkpoint ends where it began"
        );
        if !ok {
            self.take_back(&mut checkpoint);
        }
        SpentCheckpoint { _checkpoint: checkpoint, _running: running }
    }

    /// Whether `checkpoint` was begun here, and not in a database that this one has replaced.
    #[must_use]
    pub fn has_begun(&self, checkpoint: &Checkpoint) -> bool {
        self.generation == checkpoint.generation
    }

    fn take_back(&mut self, checkpoint: &mut Checkpoint) {
        let tree = &mut self.tree;
        for &id in &checkpoint.znodes {
            // What changed since is on the list; what was deleted since is among the deleted.
            if tree.is_unchanged(checkpoint, id) {
                tree.nodes[id].stamp = Stamp::changed(tree.changes.epoch);
                tree.changes.znodes.push(id);
            }
        }
        let changes = &mut tree.changes;
        changes.deleted.append(&mut checkpoint.deleted);
        for (session, timeout_ms) in std::mem::take(&mut checkpoint.sessions) {
            match changes.sessions.entry(session) {
                btree_map::Entry::Vacant(entry) => {
                    entry.insert(timeout_ms);
                }
                btree_map::Entry::Occupied(_) => {} // changed since
            }
        }
        changes.bytes = changes.bytes.saturating_add(checkpoint.bytes);
    }
}
