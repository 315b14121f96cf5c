//! A server that finds Apache ZooKeeper's data, and none of ours, takes it over.
//!
//! The newest snapshot that is whole is loaded, and the transactions behind it are applied. Upstream
//! writes snapshots while transactions go on, so one holds parts of what came after its zxid: applying
//! those again sets it right. The state that is stored is that of the first moment at which nothing is
//! mixed any more; all that comes behind the snapshot is in the log, so that an ensemble may still take
//! back what it never committed.
//!
//! # Invariants
//!
//! - A member's state holds no transaction that the snapshot had no part of: what is only in the log may
//!   not be committed. (Upstream has it all in its tree, and reloads that to truncate.) A standalone
//!   server has no such doubts, and its state has everything.
//! - Every digest that upstream wrote down for what is no mixture any more is compared.
//!
//! # Caveats
//!
//! - Logs older than the snapshot are not taken over: a learner that is further behind gets a snapshot.
//! - Upstream's leader writes a snapshot when it is elected, of transactions that may never be committed.
//!   If another leader truncates below it, the member halts and says so: it is to be started empty.
//! - Java's server locks nothing. That it still runs is noticed by its client port and by changes of its
//!   files, not when it is idle and listens elsewhere.

mod report;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use zk_proto::create_mode::{ExtendedTypes, OwnerKind};
use zk_proto::path::CONFIG;
use zk_proto::snapshot::SnapshotItem;
use zk_proto::txn::{LoggedTxn, TxnDigest};
use zk_proto::{Epoch, Zxid};
use zk_storage::import::{
    ApacheFiles, ImportError, Importer, LogFileRead, SnapshotFile, SnapshotProblem, SnapshotRead,
};
use zk_storage::{Epochs, Meta, StagedState, State, StorageConfig, StorageError, ZnodeValue};
use zk_tree::{Database, TreeConfig};

use super::checkpoint::write_item;

pub use report::{Report, check};

/// How often to say how far it is.
const PROGRESS: Duration = Duration::from_secs(2);

/// Znodes written in a row.
const CHUNK: usize = 4096;

/// What was imported, or would be.
#[derive(Debug)]
pub struct Imported {
    /// Where it began; `None`: with nothing, and the log's first transaction.
    pub snapshot: Option<SnapshotFile>,
    /// Newer snapshots, and why they cannot be used.
    pub skipped: Vec<SnapshotProblem>,
    /// Up to here the snapshot has parts of transactions.
    pub mixed_up_to: Zxid,
    /// The log files that were needed.
    pub logs: Vec<LogFileRead>,
    /// Transactions behind the snapshot.
    pub txns: u64,
    /// What the stored state is as of.
    pub applied: Zxid,
    /// The last transaction.
    pub last: Zxid,
    /// Znodes after the last transaction.
    pub znodes: usize,
    /// Those of them that are ephemeral.
    pub ephemerals: usize,
    /// Sessions after the last transaction.
    pub sessions: usize,
    /// Sessions that own ephemeral znodes and are not known: they expire at once.
    pub unknown_sessions: usize,
    /// Znodes with a TTL, on a server that does not know of TTLs.
    pub unknown_ttls: usize,
    /// The epochs.
    pub epochs: Epochs,
    /// What the comparison of digests said.
    pub digests: Digests,
    /// Bytes of the files that were read.
    pub bytes: u64,
}

/// Digests that upstream wrote down, compared with those of the imported tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Digests {
    /// How many were compared.
    pub compared: u64,
    /// How many differed.
    pub differ: u64,
    /// The first of those.
    pub first: Option<Mismatch>,
}

/// A digest that differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mismatch {
    /// After which transaction.
    pub zxid: Zxid,
    /// What upstream wrote down.
    pub written: u64,
    /// The tree's.
    pub computed: u64,
}

impl Digests {
    fn compare(&mut self, zxid: Zxid, written: i64, db: &Database) {
        let (written, computed) = (written.cast_unsigned(), db.tree.digest());
        self.compared += 1;
        if written != computed {
            self.differ += 1;
            self.first.get_or_insert(Mismatch { zxid, written, computed });
        }
    }
}

/// Makes a store of ours from the files.
///
/// # Errors
/// Then there is no store, and the next attempt begins anew.
pub(super) fn import(
    files: &ApacheFiles,
    config: &StorageConfig,
    tree: TreeConfig,
    is_member: bool,
) -> Result<(), ImportError> {
    tracing::info!(
        dir = %config.data_dir.display(), snapshots = files.snapshots.len(), logs = files.logs.len(),
        "importing the data of Apache ZooKeeper; its files are not changed"
    );
    let begun = Instant::now();
    let importer = Importer::new(config)?;
    let mut import = Import::new(tree, is_member, Some(importer));
    let imported = import.run(files)?;
    if ApacheFiles::find(config)?.as_ref() != Some(files) {
        return Err(ImportError::Changed { dir: config.data_dir.clone() });
    }
    import.importer.expect("it was given one").finish(imported.epochs)?;
    for warning in imported.warnings() {
        tracing::warn!("{warning}");
    }
    if let Some(mismatch) = imported.mismatch() {
        tracing::error!("{mismatch}");
    }
    tracing::info!(
        zxid = %imported.last, applied = %imported.applied, znodes = imported.znodes,
        sessions = imported.sessions, txns = imported.txns, bytes = imported.bytes,
        accepted_epoch = imported.epochs.accepted.0, current_epoch = imported.epochs.current.0,
        digests = imported.digests.compared, took_ms = begun.elapsed().as_millis(),
        "imported the data of Apache ZooKeeper. The files in version-2 stay as they are, and get stale from \
         now on: Apache ZooKeeper can be started on them again, without what is written from here on"
    );
    Ok(())
}

/// Says so when upstream went on with the files that ours were made from.
pub(super) fn warn_of_newer(config: &StorageConfig, last: Zxid, accepted: Epoch, made: SystemTime) {
    let Ok(Some(files)) = ApacheFiles::find(config) else { return };
    let newer = files.newer_than(last, made);
    let promised = files.epochs(Zxid::ZERO, true).map(|epochs| epochs.accepted).ok();
    let promised = promised.filter(|promised| *promised > accepted);
    if newer.is_some() || promised.is_some() {
        tracing::warn!(
            newest = newer.map(tracing::field::display), epoch = promised.map(|epoch| epoch.0),
            own_zxid = %last, own_epoch = accepted.0,
            "version-2 holds newer data of Apache ZooKeeper's, which is ignored: this server has its own, in \
             paddock-log and paddock-state. To import that of Apache ZooKeeper instead, stop and move these \
             two folders aside"
        );
    }
}

/// Why a snapshot is not loaded.
enum Unread {
    /// An older one may do.
    Problem(SnapshotProblem),
    Store(StorageError),
}

impl From<SnapshotProblem> for Unread {
    fn from(problem: SnapshotProblem) -> Self {
        Self::Problem(problem)
    }
}

impl From<StorageError> for Unread {
    fn from(error: StorageError) -> Self {
        Self::Store(error)
    }
}

struct Loaded {
    db: Database,
    staged: Option<StagedState>,
    read: SnapshotRead,
    /// Up to here it may have parts of transactions.
    mixed_up_to: Zxid,
}

/// One import going on.
struct Import {
    tree: TreeConfig,
    is_member: bool,
    /// `None` for a dry run.
    importer: Option<Importer>,
    told: Instant,
}

impl Import {
    fn new(tree: TreeConfig, is_member: bool, importer: Option<Importer>) -> Self {
        // Digests are compared whether or not the server computes them.
        let tree = TreeConfig { digest_enabled: true, ..tree };
        Self { tree, is_member, importer, told: Instant::now() }
    }

    /// Reads and stores everything; that it counts is for the caller to say.
    fn run(&mut self, files: &ApacheFiles) -> Result<Imported, ImportError> {
        let (snapshot, loaded, skipped) = self.load_newest(files)?;
        let mut digests = Digests::default();
        let (mut db, base, mixed_up_to, snapshot_digest) = match loaded {
            None => (Database::new(self.tree), Zxid::ZERO, Zxid::ZERO, None),
            Some(Loaded { db, staged, read, mixed_up_to }) => {
                if let (Some(importer), Some(staged)) = (&mut self.importer, staged) {
                    importer.begin_from(staged)?;
                }
                let base = db.tree.last_zxid();
                // It is about the znodes only if nothing newer got into them.
                let digest = read.trailer.digest.filter(|digest| {
                    digest.version == TxnDigest::VERSION && digest.zxid == mixed_up_to
                });
                (db, base, mixed_up_to, digest)
            }
        };
        let snapshot_digest = |digests: &mut Digests, db: &Database| {
            if let Some(digest) = snapshot_digest.filter(|d| d.zxid == db.tree.last_zxid()) {
                digests.compare(digest.zxid, digest.digest, db);
            }
        };
        snapshot_digest(&mut digests, &db);

        let snapshot_path = snapshot.as_ref().map(|file| file.path.clone());
        let mut log = files.read_log(base, snapshot_path);
        let snapshot_bytes = snapshot.as_ref().map_or(0, |file| file.len);
        let (mut txns, mut applied) = (0, None);
        loop {
            let next = log.next_txn().map_err(|error| match error {
                ImportError::Hole { after, after_file, next, next_file, .. } => {
                    let skipped = skipped.clone();
                    ImportError::Hole { after, after_file, next, next_file, skipped }
                }
                other => other, // nothing to add to it
            })?;
            let Some(txn) = next else { break };
            if self.is_member && applied.is_none() && txn.zxid > mixed_up_to {
                applied = Some(self.checkpoint(&mut db, base)?);
            }
            let logged = LoggedTxn::decode(&txn.entry).map_err(|error| {
                let path = log.files().last().map(|file| file.path.clone()).unwrap_or_default();
                ImportError::Txn { path, zxid: txn.zxid, reason: error.to_string() }
            })?;
            if let Some(importer) = &mut self.importer {
                importer.append(txn.zxid, txn.entry)?;
            }
            db.apply(&logged, &mut |_, _| {});
            txns += 1;
            snapshot_digest(&mut digests, &db);
            if let Some(digest) = logged.digest
                && digest.version == TxnDigest::VERSION
                && txn.zxid >= mixed_up_to
            {
                digests.compare(txn.zxid, digest.tree_digest, &db);
            }
            self.tell("applying the transaction logs", || {
                (snapshot_bytes + log.bytes_read(), db.tree.node_count(), txns)
            });
        }
        let applied = match applied {
            Some(applied) => applied,
            None => self.checkpoint(&mut db, base)?,
        };
        let last = db.tree.last_zxid();
        let epochs = files.epochs(last, self.is_member)?;
        let known = db.tree.sessions();
        let (unknown_ttls, unknown_sessions): (Vec<_>, Vec<_>) = db
            .tree
            .ephemeral_sessions()
            .filter(|id| !known.contains_key(id))
            .partition(|id| matches!(ExtendedTypes::Enabled.kind(id.0), OwnerKind::Ttl(_)));
        Ok(Imported {
            bytes: snapshot_bytes + log.bytes_read(),
            snapshot,
            skipped,
            mixed_up_to,
            logs: log.files().to_vec(),
            txns,
            applied,
            last,
            znodes: db.tree.node_count(),
            ephemerals: db.tree.ephemerals_count(),
            sessions: known.len(),
            unknown_sessions: unknown_sessions.len(),
            unknown_ttls: unknown_ttls.iter().map(|id| db.tree.ephemerals(*id).count()).sum(),
            epochs,
            digests,
        })
    }

    /// The newest snapshot that is whole, and what is wrong with newer ones.
    #[allow(clippy::type_complexity, reason = "taken apart at once")]
    fn load_newest(
        &mut self,
        files: &ApacheFiles,
    ) -> Result<(Option<SnapshotFile>, Option<Loaded>, Vec<SnapshotProblem>), ImportError> {
        let mut skipped = Vec::new();
        for file in &files.snapshots {
            match self.load(files, file) {
                Ok(loaded) => return Ok((Some(file.clone()), Some(loaded), skipped)),
                Err(Unread::Store(error)) => return Err(error.into()),
                Err(Unread::Problem(problem)) => {
                    tracing::warn!(
                        "{problem}; the next older snapshot is tried, with the transaction logs behind it"
                    );
                    skipped.push(problem);
                }
            }
        }
        // A log that begins at the beginning needs no snapshot; if it does not, reading it tells.
        if files.logs.is_empty() && !skipped.is_empty() {
            return Err(ImportError::NoSnapshot(skipped));
        }
        Ok((None, None, skipped))
    }

    fn load(&mut self, files: &ApacheFiles, file: &SnapshotFile) -> Result<Loaded, Unread> {
        let mut db = Database::new(self.tree);
        let importer = self.importer.take();
        let result = self.load_into(&mut db, files, file, importer.as_ref().map(Importer::state));
        self.importer = importer;
        let (staged, read, mixed_up_to) = result?;
        Ok(Loaded { db, staged, read, mixed_up_to })
    }

    fn load_into(
        &mut self,
        db: &mut Database,
        files: &ApacheFiles,
        file: &SnapshotFile,
        state: Option<&State>,
    ) -> Result<(Option<StagedState>, SnapshotRead, Zxid), Unread> {
        let mut staging = state.map(State::stage).transpose()?;
        let mut mixed_up_to = file.zxid;
        let read = files.read_snapshot::<Unread>(file, |item, bytes| {
            match item {
                SnapshotItem::Session(session) => {
                    db.load_session(session.session_id, session.timeout_ms);
                    if let Some(staging) = &mut staging {
                        staging.put_session(session.session_id, session.timeout_ms)?;
                    }
                }
                SnapshotItem::Znode(znode) => {
                    let data = znode.data.as_deref();
                    db.load_znode(&znode.path, data, &znode.acl, &znode.stat);
                    // Servers change it on their own when they start, with a zxid from their configuration.
                    if znode.path != CONFIG {
                        let stat = &znode.stat;
                        let newest = stat.czxid.max(stat.mzxid).max(stat.pzxid);
                        mixed_up_to = mixed_up_to.max(Zxid(newest));
                    }
                    if let Some(staging) = &mut staging {
                        let acl = super::acl::encode(&znode.acl);
                        let value = ZnodeValue { data, acl: &acl, stat: znode.stat };
                        staging.put_znode(&znode.path, &value)?;
                    }
                }
                SnapshotItem::End => {}
            }
            self.tell("reading the snapshot", || (bytes, db.tree.node_count(), 0));
            Ok(())
        })?;
        let problem = |reason: String| SnapshotProblem { path: file.path.clone(), reason };
        db.finish_load(file.zxid).map_err(|error| problem(error.to_string()))?;
        if let Some(digest) = read.trailer.digest {
            mixed_up_to = mixed_up_to.max(digest.zxid);
        }
        let meta = Meta { applied: file.zxid, digest: db.tree.digest(), time_ms: wall_ms() };
        let staged = staging.map(|staging| staging.finish(meta)).transpose()?;
        Ok((staged, read, mixed_up_to))
    }

    /// Stores the state as it is now; what it is as of. Not if it is the snapshot's.
    fn checkpoint(&mut self, db: &mut Database, base: Zxid) -> Result<Zxid, StorageError> {
        let applied = db.tree.last_zxid();
        let Some(importer) = self.importer.as_mut().filter(|_| applied != base) else {
            return Ok(applied);
        };
        importer.flush()?;
        let meta = Meta { applied, digest: db.tree.digest(), time_ms: wall_ms() };
        let mut writer = importer.state().begin_checkpoint();
        let mut checkpoint = db.begin_checkpoint();
        let mut items = Vec::with_capacity(CHUNK);
        loop {
            items.clear();
            checkpoint.run_unlocked();
            let more = db.checkpoint_chunk(&mut checkpoint, CHUNK, &mut items);
            for item in &items {
                write_item(&mut writer, item)?;
            }
            if !more {
                break;
            }
        }
        writer.finish(meta)?;
        drop(db.end_checkpoint(checkpoint, true));
        Ok(applied)
    }

    /// Says now and then how far it is: bytes, znodes and transactions.
    fn tell(&mut self, what: &str, progress: impl FnOnce() -> (u64, usize, u64)) {
        if self.told.elapsed() >= PROGRESS {
            self.told = Instant::now();
            let (bytes, znodes, txns) = progress();
            tracing::info!(bytes, znodes, txns, "{what}");
        }
    }
}

fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
