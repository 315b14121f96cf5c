//! One server without its sockets, disk and clock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::BytesMut;
use hashbrown::HashMap;
use zk_proto::create_mode::{ExtendedTypes, OwnerKind};
use zk_proto::txn::LoggedTxn;
use zk_proto::{SessionId, Zxid};
use zk_session::SessionTracker;
use zk_tree::{Checkpoint, Database, WatcherId};
use zk_zab::{Peer, Token, Write};

use crate::client::{Client, Outbox, Phase};
use crate::outstanding::OutstandingChanges;
use crate::reaper::Reaper;
use crate::stats::Stats;
use crate::{NodeConfig, Now};

/// What the shell has to do.
#[derive(Debug)]
pub enum Action {
    /// Put `write` behind the writes before it, make it durable, then call [`Node::on_persisted`].
    Persist {
        /// The write's name.
        token: Token,
        /// The write.
        write: Write,
    },
}

/// Whether a connection is to be read further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Read on.
    Continue,
    /// Keep what has been read, and read no further until [`Outbox::resume`] (or the end).
    Wait,
    /// Close the connection at once; `0` says why.
    Close(&'static str),
}

/// What became of a batch of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    /// Whether to read on.
    pub flow: Flow,
    /// How many reads were answered at once, for the latency that only the shell can measure.
    pub reads: u64,
}

/// A server at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Status {
    /// The last transaction that was applied.
    pub zxid: Zxid,
    /// Znodes, as upstream counts them.
    pub node_count: usize,
    /// Connections.
    pub connections: usize,
    /// Requests on their way.
    pub outstanding: usize,
    /// Sessions.
    pub sessions: usize,
    /// Paths with a change on its way.
    pub outstanding_changes: usize,
}

/// What is on its way to the tree, in the order in which it takes effect.
#[derive(Debug)]
pub(crate) enum InFlight {
    Txn {
        txn: LoggedTxn,
        origin: Option<Arc<Client>>,
    },
    /// Not a transaction, but in their order.
    Sync {
        path: Option<String>,
        origin: Arc<Client>,
    },
    /// A session's next connection begins behind what its last one asked for: a client that lost its
    /// connection looks whether its write was done, and "not yet" would be a wrong answer.
    Reattach {
        id: SessionId,
        origin: Arc<Client>,
    },
}

/// What only one thread at a time may touch: everything that writes depend on (R4).
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) peer: Peer,
    pub(crate) sessions: SessionTracker,
    pub(crate) changes: OutstandingChanges,
    pub(crate) in_flight: VecDeque<InFlight>,
    pub(crate) clients: HashMap<WatcherId, Arc<Client>>,
    pub(crate) by_session: HashMap<SessionId, Arc<Client>>,
    /// Transactions are encoded here; what has been proposed is split off.
    pub(crate) buffer: BytesMut,
}

/// A server: processors, sessions, tree and Zab peer. See the crate's documentation.
#[derive(Debug)]
pub struct Node {
    pub(crate) config: NodeConfig,
    db: RwLock<Database>,
    writer: Mutex<Writer>,
    /// Before all other locks.
    reaper: Mutex<Reaper>,
    pub(crate) stats: Stats,
    next_client: AtomicU64,
    /// The length of `Writer::in_flight`, for those who do not hold the lock.
    outstanding: AtomicUsize,
    accepts_writes: AtomicBool,
}

const NOT_POISONED: &str = "no holder of this lock panics: a panic ends the process";

/// The sessions to follow from the start, with their timeouts in ms: those that the tree knows, and
/// the owners of ephemeral znodes that it does not know. Upstream kills the latter when it loads; here
/// they expire at the first tick, as a transaction like any other.
fn sessions_of(db: &Database) -> impl Iterator<Item = (SessionId, i32)> {
    let known = db.tree.sessions();
    // A TTL znode while TTLs are disabled looks like an ephemeral one. It is spared: the setting may
    // be turned on again.
    let is_ttl = |id: &SessionId| matches!(ExtendedTypes::Enabled.kind(id.0), OwnerKind::Ttl(_));
    let unknown: BTreeSet<SessionId> =
        db.tree.ephemeral_sessions().filter(|id| !known.contains_key(id) && !is_ttl(id)).collect();
    known
        .iter()
        .map(|(id, timeout_ms)| (*id, *timeout_ms))
        .chain(unknown.into_iter().map(|id| (id, 0)))
}

impl Node {
    /// A standalone server whose tree and log end with the same transaction.
    #[must_use]
    pub fn standalone(config: NodeConfig, db: Database, now: Now) -> Self {
        let mut sessions = SessionTracker::new(config.session);
        for (id, timeout_ms) in sessions_of(&db) {
            sessions.track(id, timeout_ms, now.mono_ms());
        }
        let writer = Writer {
            peer: Peer::recover_standalone(db.tree.last_zxid()),
            sessions,
            changes: OutstandingChanges::new(config.digest_enabled.then(|| db.tree.digest())),
            in_flight: VecDeque::new(),
            clients: HashMap::new(),
            by_session: HashMap::new(),
            buffer: BytesMut::new(),
        };
        Self {
            reaper: Mutex::new(Reaper::new(&config, now)),
            config,
            db: RwLock::new(db),
            writer: Mutex::new(writer),
            stats: Stats::default(),
            next_client: AtomicU64::new(1),
            outstanding: AtomicUsize::new(0),
            accepts_writes: AtomicBool::new(true),
        }
    }

    pub(crate) fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().expect(NOT_POISONED)
    }

    pub(crate) fn reaper(&self) -> MutexGuard<'_, Reaper> {
        self.reaper.lock().expect(NOT_POISONED)
    }

    pub(crate) fn db(&self) -> RwLockReadGuard<'_, Database> {
        self.db.read().expect(NOT_POISONED)
    }

    pub(crate) fn db_mut(&self) -> RwLockWriteGuard<'_, Database> {
        self.db.write().expect(NOT_POISONED)
    }

    /// To be called whenever `Writer::in_flight` has changed, before its lock is released.
    pub(crate) fn note_outstanding(&self, writer: &Writer) {
        self.outstanding.store(writer.in_flight.len(), Ordering::Relaxed);
    }

    /// Whether so much is on its way that connections with a part in it are not read.
    pub(crate) fn is_crowded(&self) -> bool {
        self.outstanding.load(Ordering::Relaxed) > self.config.global_outstanding_limit
    }

    pub(crate) fn accepts_writes(&self) -> bool {
        self.accepts_writes.load(Ordering::Relaxed)
    }

    /// What has been counted.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Looks at the tree and the watches. Writes wait meanwhile: keep it short. `look` must not call
    /// any other function of the node.
    pub fn read<T>(&self, look: impl FnOnce(&Database) -> T) -> T {
        look(&self.db())
    }

    /// The server at this moment.
    #[must_use]
    pub fn status(&self) -> Status {
        let writer = self.writer();
        let db = self.db();
        Status {
            zxid: db.tree.last_zxid(),
            node_count: db.tree.node_count(),
            connections: writer.clients.len(),
            outstanding: writer.in_flight.len(),
            sessions: writer.sessions.len(),
            outstanding_changes: writer.changes.len(),
        }
    }

    /// The connections, by number.
    #[must_use]
    pub fn clients(&self) -> Vec<Arc<Client>> {
        let mut clients: Vec<_> = self.writer().clients.values().cloned().collect();
        clients.sort_by_key(|client| client.id);
        clients
    }

    /// The sessions by the tick at which they expire, for `dump`.
    #[must_use]
    pub fn sessions_by_expiry(&self) -> BTreeMap<i64, Vec<SessionId>> {
        self.writer().sessions.by_expiry()
    }

    /// Refuses writes that make the log grow, or accepts them again: the shell watches the disk.
    pub fn accept_writes(&self, accept: bool) {
        self.accepts_writes.store(accept, Ordering::Relaxed);
    }

    /// Begins to take down what changed since the last checkpoint, as of this moment.
    pub fn begin_checkpoint(&self) -> Checkpoint {
        self.db_mut().begin_checkpoint()
    }

    /// Ends a checkpoint; if it is not safe on disk, what it took counts as changed again.
    pub fn end_checkpoint(&self, checkpoint: Checkpoint, safe: bool) {
        let spent = self.db_mut().end_checkpoint(checkpoint, safe);
        drop(spent); // outside the lock: it may be large
    }

    /// A client connected from `address`.
    pub fn open(&self, address: String, outbox: Box<dyn Outbox>, now: Now) -> Arc<Client> {
        let id = WatcherId(self.next_client.fetch_add(1, Ordering::Relaxed));
        let client = Arc::new(Client::new(id, address, outbox, now));
        self.writer().clients.insert(id, Arc::clone(&client));
        client
    }

    /// The connection is gone. Its session lives on until it expires.
    pub fn on_closed(&self, client: &Arc<Client>) {
        let mut writer = self.writer();
        writer.clients.remove(&client.id);
        let db = self.db();
        let mut state = client.state();
        state.phase = Phase::Closing;
        // Under the tree's lock: no read of this connection can set a watch after this.
        state.pending.clear();
        db.watches.remove_watcher(client.id);
        let session = state.session;
        if writer.by_session.get(&session).is_some_and(|owner| owner.id == client.id) {
            writer.by_session.remove(&session);
        }
    }
}
