//! A member's disk: a durable stream with group commit, and a stored tree that it is purged behind.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::{Bytes, BytesMut};
use zk_proto::acl::Acl;
use zk_proto::data::StatPersisted;
use zk_proto::snapshot::{SnapshotAcls, SnapshotDecoder, SnapshotEncoder, SnapshotItem};
use zk_proto::{Epoch, SessionId, Zxid};
use zk_tree::{CheckpointItem, Database, TreeConfig};
use zk_zab::bugs::{Bug, seeded};
use zk_zab::{Durable, History, Token, Write};

/// A stored znode.
#[derive(Debug, Clone)]
pub struct StoredZnode {
    data: Option<Box<[u8]>>,
    acl: Arc<[Acl]>,
    stat: StatPersisted,
}

/// A stored tree.
#[derive(Debug, Clone, Default)]
pub struct Image {
    /// The last transaction in it.
    pub zxid: Zxid,
    /// The digest that it had in memory; 0 if that is not known.
    pub digest: u64,
    /// By path.
    pub znodes: BTreeMap<String, StoredZnode>,
    /// Timeouts in ms.
    pub sessions: BTreeMap<SessionId, i32>,
}

impl Image {
    /// The tree of a server that is new.
    #[must_use]
    pub fn initial(config: TreeConfig) -> Self {
        let mut db = Database::new(config);
        let mut checkpoint = db.begin_checkpoint();
        let mut image = Self { digest: checkpoint.digest(), ..Self::default() };
        let mut items = Vec::new();
        while db.checkpoint_chunk(&mut checkpoint, 64, &mut items) {
            items.drain(..).for_each(|item| image.put(item));
        }
        drop(db.end_checkpoint(checkpoint, true));
        image
    }

    /// Applies one change of a checkpoint.
    pub fn put(&mut self, item: CheckpointItem) {
        match item {
            CheckpointItem::PutZnode { path, data, acl, stat } => {
                self.znodes.insert(path, StoredZnode { data, acl, stat });
            }
            CheckpointItem::DeleteZnode { path } => {
                self.znodes.remove(&path);
            }
            CheckpointItem::PutSession(id, timeout_ms) => {
                self.sessions.insert(id, timeout_ms);
            }
            CheckpointItem::DeleteSession(id) => {
                self.sessions.remove(&id);
            }
        }
    }

    /// A database with this content.
    ///
    /// # Errors
    /// It is no tree, or not the one whose digest was noted.
    pub fn load(&self, config: TreeConfig) -> Result<Database, String> {
        let mut db = Database::new(config);
        for (path, znode) in &self.znodes {
            db.load_znode(path, znode.data.as_deref(), &znode.acl, &znode.stat);
        }
        for (id, timeout_ms) in &self.sessions {
            db.load_session(*id, *timeout_ms);
        }
        db.finish_load(self.zxid).map_err(|error| error.to_string())?;
        if self.digest != 0 && db.tree.digest() != self.digest {
            return Err(format!(
                "the stored tree at {} has digest {:x}, and {:x} when it was taken",
                self.zxid,
                db.tree.digest(),
                self.digest
            ));
        }
        Ok(db)
    }

    /// As it travels behind a `SNAP` packet.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut acls = SnapshotAcls::default();
        let keys: Vec<i64> = self.znodes.values().map(|znode| acls.insert(&znode.acl)).collect();
        let mut out = BytesMut::new();
        let mut encoder = SnapshotEncoder::new(self.sessions.len(), &acls, &mut out);
        for (id, timeout_ms) in &self.sessions {
            encoder.session(*id, *timeout_ms, &mut out);
        }
        for ((path, znode), key) in self.znodes.iter().zip(keys) {
            encoder.znode(path, znode.data.as_deref(), key, &znode.stat, &mut out);
        }
        encoder.finish(&mut out);
        out.freeze()
    }

    /// The same, received.
    ///
    /// # Errors
    /// It is not one.
    pub fn decode(zxid: Zxid, bytes: &Bytes) -> Result<Self, String> {
        let mut decoder = SnapshotDecoder::new(1 << 24);
        let mut input = BytesMut::from(bytes.as_ref());
        let mut image = Self { zxid, ..Self::default() };
        loop {
            match decoder.decode(&mut input).map_err(|error| error.to_string())? {
                Some(SnapshotItem::Session(session)) => {
                    image.sessions.insert(session.session_id, session.timeout_ms);
                }
                Some(SnapshotItem::Znode(znode)) => {
                    let data = znode.data.as_deref().map(Into::into);
                    let stored = StoredZnode { data, acl: znode.acl, stat: znode.stat };
                    image.znodes.insert(znode.path, stored);
                }
                Some(SnapshotItem::End) => return Ok(image),
                None => return Err("the snapshot ends early".to_owned()),
            }
        }
    }
}

/// What is in the log, durable.
#[derive(Debug, Default)]
pub struct Log {
    begins: Zxid,
    entries: VecDeque<(Zxid, Bytes)>,
    snapshot_bytes: u64,
}

impl Log {
    /// The index of the first entry above `zxid`.
    fn above(&self, zxid: Zxid) -> usize {
        self.entries.partition_point(|(entry, _)| *entry <= zxid)
    }

    /// The last transaction that the log knows of.
    #[must_use]
    pub fn last(&self) -> Zxid {
        self.entries.back().map_or(self.begins, |(zxid, _)| *zxid)
    }

    /// Every transaction above `after`, up to `to`.
    pub fn range(&self, after: Zxid, to: Zxid) -> impl Iterator<Item = &(Zxid, Bytes)> {
        self.entries.range(self.above(after)..self.above(to))
    }
}

/// The log as the peer sees it.
#[derive(Debug, Clone)]
pub struct SharedLog(Arc<Mutex<Log>>);

impl SharedLog {
    /// Looks at it.
    ///
    /// # Panics
    /// Never: nobody panics while holding it.
    pub fn lock(&self) -> MutexGuard<'_, Log> {
        self.0.lock().expect("nobody panics while holding it")
    }
}

impl History for SharedLog {
    fn begins(&self) -> Zxid {
        self.lock().begins
    }

    fn floor(&self, zxid: Zxid) -> Option<Zxid> {
        let log = self.lock();
        match log.above(zxid) {
            0 => (zxid >= log.begins).then_some(log.begins),
            above => Some(log.entries[above - 1].0),
        }
    }

    fn bytes_after(&self, after: Zxid) -> u64 {
        let log = self.lock();
        log.entries.range(log.above(after)..).map(|(_, txn)| txn.len() as u64 + 20).sum()
    }

    fn snapshot_bytes(&self) -> u64 {
        self.lock().snapshot_bytes
    }
}

#[derive(Debug)]
struct Queued {
    token: Token,
    write: Write,
    /// For an installation: what is installed.
    staged: Option<Arc<Image>>,
}

/// What made a difference, of what a sync brought to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Landed {
    /// A transaction, and behind what the log has it.
    Append(Zxid, Zxid),
    /// A promise.
    AcceptedEpoch(Epoch),
    /// A history.
    CurrentEpoch(Epoch),
    /// The end of the log went back to here, from there.
    Truncate(Zxid, Zxid),
    /// A snapshot, and what was written behind it, took the place of everything: the snapshot's zxid,
    /// where the log ends now, where it had ended.
    Install(Zxid, Zxid, Zxid),
}

/// A snapshot on the disk that is not yet the state: it becomes it, with what is behind it, at the
/// next [`Write::CurrentEpoch`]. A restart before that discards it.
#[derive(Debug)]
struct Staging {
    image: Arc<Image>,
    entries: VecDeque<(Zxid, Bytes)>,
}

/// One member's disk.
#[derive(Debug)]
pub struct Disk {
    /// The durable log.
    pub log: SharedLog,
    /// Durable.
    pub accepted_epoch: Epoch,
    /// Durable.
    pub current_epoch: Epoch,
    /// The stored tree, durable.
    pub image: Arc<Image>,
    /// See [`Durable::initialized`].
    pub initialized: bool,
    staging: Option<Staging>,
    /// [`Bug::OutlivingWrites`]: what an earlier role asked for.
    late: Vec<Queued>,
    queue: VecDeque<Queued>,
    /// So many of the queue are being synced.
    in_flight: usize,
    /// Where the log will end when the queue is written.
    end: Zxid,
    /// No sync comes to an end.
    pub wedged: bool,
    /// A sync came to its end while it was wedged.
    pub overdue: bool,
    /// The next sync fails.
    pub fails: bool,
    /// Nothing can be appended.
    pub full: bool,
    /// Little room is left: what is appended has its own, as in a file that was allocated before.
    pub low: bool,
    /// Since when the oldest write waits, in µs.
    pub waiting_since_us: Option<i64>,
}

impl Disk {
    /// An empty one.
    #[must_use]
    pub fn new(initialized: bool) -> Self {
        Self {
            log: SharedLog(Arc::new(Mutex::new(Log::default()))),
            accepted_epoch: Epoch(0),
            current_epoch: Epoch(0),
            image: Arc::new(Image::initial(TreeConfig::default())),
            initialized,
            staging: None,
            late: Vec::new(),
            queue: VecDeque::new(),
            in_flight: 0,
            end: Zxid::ZERO,
            wedged: false,
            overdue: false,
            fails: false,
            full: false,
            low: false,
            waiting_since_us: None,
        }
    }

    /// What the peer is told at its start.
    #[must_use]
    pub fn durable(&self) -> Durable {
        let log = self.log.lock();
        Durable {
            accepted_epoch: self.accepted_epoch,
            current_epoch: self.current_epoch,
            applied: self.image.zxid,
            tail: log.entries.range(log.above(self.image.zxid)..).cloned().collect(),
            initialized: self.initialized,
        }
    }

    /// Where the log will end when everything asked for is written.
    #[must_use]
    pub fn end(&self) -> Zxid {
        self.end
    }

    /// Where the durable log ends.
    #[must_use]
    pub fn durable_end(&self) -> Zxid {
        self.log.lock().last().max(self.image.zxid)
    }

    /// Whether the transaction is durable; of what is older than the log, that it was is known.
    #[must_use]
    pub fn has(&self, zxid: Zxid) -> bool {
        let log = self.log.lock();
        zxid <= log.begins
            || zxid <= self.image.zxid
            || log.entries.binary_search_by_key(&zxid, |(entry, _)| *entry).is_ok()
    }

    /// Takes a write.
    pub fn submit(&mut self, token: Token, write: Write, staged: Option<Arc<Image>>, now_us: i64) {
        match &write {
            Write::Append { zxid, .. } => self.end = *zxid,
            Write::Truncate(zxid) => self.end = *zxid,
            Write::InstallSnapshot { zxid, .. } => self.end = *zxid,
            Write::AcceptedEpoch(_) | Write::CurrentEpoch(_) => {}
        }
        if seeded(Bug::OutlivingWrites) && matches!(write, Write::AcceptedEpoch(_)) {
            let waiting = self.queue.split_off(self.in_flight);
            let (late, rest): (Vec<_>, Vec<_>) = waiting
                .into_iter()
                .partition(|queued| matches!(queued.write, Write::Append { .. }));
            self.late.extend(late);
            self.queue.extend(rest);
        }
        self.waiting_since_us.get_or_insert(now_us);
        self.queue.push_back(Queued { token, write, staged });
    }

    /// Begins to sync all that is asked for, at most `max` writes; whether there is anything, and
    /// nothing being synced.
    pub fn begin_sync(&mut self, max: usize) -> bool {
        if self.in_flight > 0 || self.queue.is_empty() {
            return false;
        }
        self.in_flight = self.queue.len().min(max);
        true
    }

    /// Whether transactions are among what is being synced.
    #[must_use]
    pub fn is_appending(&self) -> bool {
        let mut flying = self.queue.iter().take(self.in_flight);
        flying.any(|queued| matches!(queued.write, Write::Append { .. }))
    }

    /// How many writes are being synced.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// The sync is done.
    pub fn end_sync(&mut self, now_us: i64, landed: &mut Vec<Landed>) -> Option<Token> {
        let mut last = None;
        for _ in 0..std::mem::take(&mut self.in_flight) {
            if let Some(queued) = self.queue.pop_front() {
                last = Some(queued.token);
                let newer = matches!(queued.write, Write::Append { .. })
                    && self.late.last().is_some_and(|late| late.token < queued.token);
                self.land(queued, landed);
                if newer {
                    for late in std::mem::take(&mut self.late) {
                        self.land(late, landed);
                    }
                }
            }
        }
        self.waiting_since_us = (!self.queue.is_empty()).then_some(now_us);
        last
    }

    fn land(&mut self, queued: Queued, landed: &mut Vec<Landed>) {
        let before = self.durable_end();
        match queued.write {
            Write::Append { zxid, txn } => {
                if let Some(staging) = &mut self.staging {
                    staging.entries.push_back((zxid, txn));
                } else {
                    self.log.lock().entries.push_back((zxid, txn));
                    landed.push(Landed::Append(zxid, before));
                }
            }
            Write::AcceptedEpoch(epoch) => {
                self.accepted_epoch = epoch;
                if seeded(Bug::SnapshotInMemory) {
                    self.staging = None;
                }
                landed.push(Landed::AcceptedEpoch(epoch));
            }
            Write::CurrentEpoch(epoch) => {
                if let Some(Staging { image, entries }) = self.staging.take() {
                    let mut log = self.log.lock();
                    let kept = log.above(image.zxid);
                    let gap = seeded(Bug::GapInLog).then(|| log.entries.drain(..kept).collect());
                    if gap.is_none() {
                        log.begins = image.zxid;
                    }
                    log.snapshot_bytes = image.znodes.len() as u64 * 100;
                    log.entries = gap.unwrap_or_default();
                    log.entries.extend(entries);
                    landed.push(Landed::Install(image.zxid, log.last(), before));
                    drop(log);
                    self.image = image;
                }
                self.current_epoch = epoch;
                landed.push(Landed::CurrentEpoch(epoch));
            }
            Write::Truncate(zxid) => {
                if let Some(staging) = &mut self.staging {
                    let keep = staging.entries.partition_point(|(entry, _)| *entry <= zxid);
                    staging.entries.truncate(keep);
                } else {
                    let mut log = self.log.lock();
                    let keep = if seeded(Bug::TruncateTooFar) {
                        log.above(zxid).saturating_sub(1)
                    } else if seeded(Bug::FailedTruncate) && self.low {
                        log.entries.len()
                    } else {
                        log.above(zxid)
                    };
                    log.entries.truncate(keep);
                    let end = log.last().max(self.image.zxid);
                    drop(log);
                    landed.push(Landed::Truncate(end, before));
                }
            }
            Write::InstallSnapshot { .. } => {
                let image = queued.staged.expect("what is installed was staged");
                if seeded(Bug::HalfSnapshot) {
                    self.log.lock().entries.clear();
                    landed.push(Landed::Truncate(self.image.zxid, before));
                }
                self.staging = Some(Staging { image, entries: VecDeque::new() });
            }
        }
    }

    /// Whether a snapshot is on the disk and not the state yet.
    #[must_use]
    pub fn is_staging(&self) -> bool {
        self.staging.is_some()
    }

    /// The process is gone. Of what was being synced the first `keep` writes are found on the disk
    /// afterwards: the log is a chain, so a record behind one that is missing is void.
    pub fn crash(&mut self, keep: usize, landed: &mut Vec<Landed>) {
        for _ in 0..keep.min(self.in_flight) {
            if let Some(queued) = self.queue.pop_front() {
                self.land(queued, landed);
            }
        }
        self.queue.clear();
        self.late.clear();
        self.staging = None;
        self.in_flight = 0;
        self.overdue = false;
        self.fails = false;
        self.waiting_since_us = None;
        self.end = self.durable_end();
    }

    /// Everything is gone.
    pub fn lose(&mut self) {
        *self = Self::new(false);
    }

    /// A checkpoint is on the disk; the log behind it goes, but for `keep` transactions. Whether any did.
    pub fn store(&mut self, image: Image, keep: usize) -> bool {
        let mut log = self.log.lock();
        let purge = log.above(image.zxid).saturating_sub(keep);
        if let Some(last) = purge.checked_sub(1) {
            log.begins = log.entries[last].0;
            log.entries.drain(..purge);
        }
        log.snapshot_bytes = image.znodes.len() as u64 * 100;
        drop(log);
        self.image = Arc::new(image);
        purge > 0
    }
}
