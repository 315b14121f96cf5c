//! One server without its sockets, disk and clock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::{Bytes, BytesMut};
use hashbrown::HashMap;
use zk_proto::create_mode::{ExtendedTypes, OwnerKind};
use zk_proto::quorum::{Notification, QuorumPacket};
use zk_proto::txn::LoggedTxn;
use zk_proto::{ServerId, SessionId, Zxid};
use zk_session::{LocalSessionMode, LocalSessions, SessionTracker};
use zk_tree::{Checkpoint, Database, WatcherId};
use zk_zab::{
    Durable, History, LearnerPort, LinkId, Members, NoHistory, Peer, PeerConfig, PeerStatus, Token,
    Write,
};

use crate::client::{Client, Outbox, Phase};
use crate::outstanding::OutstandingChanges;
use crate::reaper::Reaper;
use crate::role::{Role, ServerRole};
use crate::stats::Stats;
use crate::{NodeConfig, Now};

/// What the shell has to do. It is called for each under the writer's lock, and their order is the
/// protocol's: queue it, and do it afterwards.
#[derive(Debug)]
pub enum Action {
    /// Put `write` behind the writes before it, make it durable, then call [`Node::on_persisted`].
    Persist {
        /// The write's name.
        token: Token,
        /// The write.
        write: Write,
    },
    /// Send an election message, or drop it. One to the same server that is still unsent may be
    /// replaced.
    Notify {
        /// To whom.
        to: ServerId,
        /// The message.
        notification: Notification,
    },
    /// Dial a member, then call [`Node::on_link_up`] or [`Node::on_link_down`].
    Connect {
        /// The link's name.
        link: LinkId,
        /// Whom to dial.
        server: ServerId,
        /// At which of its ports.
        port: LearnerPort,
    },
    /// Hang up, without sending what is still queued. Nothing of this link need be told any more.
    Close {
        /// The link.
        link: LinkId,
    },
    /// Put a packet behind everything else on the link.
    Send {
        /// The link.
        link: LinkId,
        /// The packet.
        packet: QuorumPacket,
    },
    /// In the link's order: every transaction above `after` up to `to` from the log, each as
    /// `PROPOSAL` and `COMMIT`. If it cannot be done the link goes down.
    SendHistory {
        /// The link.
        link: LinkId,
        /// Up to here the learner has it.
        after: Zxid,
        /// The last one.
        to: Zxid,
    },
    /// In the link's order: `SNAP` with the newest stored state, then what is behind it in the log up
    /// to `to` as in [`Action::SendHistory`].
    SendSnapshot {
        /// The link.
        link: LinkId,
        /// The last transaction.
        to: Zxid,
    },
    /// These members may be the ensemble, now or soon: those that come are reached at these addresses too.
    /// Another such action takes the place of this one, and so does the next [`Action::Activate`].
    Propose {
        /// The members.
        members: Members,
    },
    /// The ensemble is another one from now on: these members are reached at other addresses, this
    /// server may have to listen elsewhere, and the next start should find them.
    Activate {
        /// The members.
        members: Members,
    },
    /// Stop the server: nothing that it could do is safe.
    Halt {
        /// What happened, and what the operator has to do.
        why: String,
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
    /// What it does for its clients.
    pub role: ServerRole,
    /// The last transaction that was applied.
    pub zxid: Zxid,
    /// Znodes, as upstream counts them.
    pub node_count: usize,
    /// Connections.
    pub connections: usize,
    /// Requests on their way.
    pub outstanding: usize,
    /// Sessions that all servers know.
    pub sessions: usize,
    /// Sessions that only this server knows.
    pub local_sessions: usize,
    /// Paths with a change on its way.
    pub outstanding_changes: usize,
    /// Learners' syncs that wait for a commit; a leader's.
    pub pending_syncs: usize,
}

/// The sessions that a server knows.
#[derive(Debug, Clone)]
pub struct KnownSessions {
    /// Those that nobody else knows, by the tick at which they expire; `None` where there can be none.
    pub local: Option<BTreeMap<i64, Vec<SessionId>>>,
    /// Those that all servers know.
    pub global: GlobalSessions,
}

/// Sessions that all servers know.
#[derive(Debug, Clone)]
pub enum GlobalSessions {
    /// By the tick at which they expire: one who leads knows that.
    ByExpiry(BTreeMap<i64, Vec<SessionId>>),
    /// With their timeouts in ms: others know that.
    Timeouts(BTreeMap<SessionId, i32>),
}

/// What is on its way to the tree of one who leads, in the order in which it takes effect.
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
    /// The same for a connection at a learner.
    Revalidate {
        link: LinkId,
        id: SessionId,
    },
}

/// A snapshot from the leader, loaded.
#[derive(Debug)]
pub(crate) struct Staged {
    pub(crate) link: LinkId,
    pub(crate) db: Database,
    /// It was asked to be made the state on disk: then it will be the tree, whatever happens to the
    /// link.
    pub(crate) installing: bool,
}

/// What only one thread at a time may touch: everything that writes depend on (R4).
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) peer: Peer,
    pub(crate) history: Box<dyn History>,
    pub(crate) role: Role,
    /// How often the role has changed.
    pub(crate) reign: u64,
    /// Where the served epoch begins: nothing that a client can have seen lies between the last
    /// transaction before it and this.
    pub(crate) epoch_start: Zxid,
    /// Of one who leads: all but those that are local to some server.
    pub(crate) sessions: SessionTracker,
    /// In every role but a standalone server's.
    pub(crate) local: LocalSessions,
    pub(crate) changes: OutstandingChanges,
    /// Of one who leads.
    pub(crate) in_flight: VecDeque<InFlight>,
    /// Committed and to be applied.
    pub(crate) due: VecDeque<(Zxid, Bytes)>,
    pub(crate) clients: HashMap<WatcherId, Arc<Client>>,
    pub(crate) by_session: HashMap<SessionId, Arc<Client>>,
    /// Transactions are encoded here; what has been proposed is split off.
    pub(crate) buffer: BytesMut,
    pub(crate) staged: Vec<Staged>,
    /// The tree came with a snapshot, and what follows may be in there: upstream sends the tree while it is
    /// written to. Until the synchronization ends no digest can be compared.
    pub(crate) is_fuzzy: bool,
    /// To be dropped when no lock is held: they may be large.
    pub(crate) retired: Vec<Database>,
    /// [`Action::Halt`] was given: nothing is applied any more.
    pub(crate) halted: bool,
}

/// A server: processors, sessions, tree and Zab peer. See the crate's documentation.
#[derive(Debug)]
pub struct Node {
    pub(crate) config: NodeConfig,
    /// Of an ensemble.
    pub(crate) is_member: bool,
    db: RwLock<Database>,
    writer: Mutex<Writer>,
    /// Before all other locks.
    reaper: Mutex<Reaper>,
    pub(crate) stats: Stats,
    next_client: AtomicU64,
    /// How many requests are on their way, for those who do not hold the lock.
    outstanding: AtomicUsize,
    outstanding_limit: usize,
    accepts_writes: AtomicBool,
    pub(crate) serving: AtomicBool,
    /// When the last role ended that served clients, in ms; [`NEVER`].
    pub(crate) unserved_since_ms: AtomicI64,
    pub(crate) read_only: AtomicBool,
    /// Snapshots that are being made the state on disk.
    pub(crate) installing: AtomicUsize,
}

/// No role has served clients yet.
const NEVER: i64 = i64::MIN;

/// How long after a role has ended the next one is expected, in ms. Most changes of leaders take less.
const HANDOVER_MS: i64 = 500;

const NOT_POISONED: &str = "no holder of this lock panics: a panic ends the process";

/// The sessions to follow from the start, with their timeouts in ms: those that the tree knows, and
/// the owners of ephemeral znodes that it does not know. Upstream kills the latter when it loads; here
/// they expire at the first tick, as a transaction like any other.
pub(crate) fn sessions_of(db: &Database) -> impl Iterator<Item = (SessionId, i32)> {
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
        let peer = Peer::recover_standalone(db.tree.last_zxid());
        let node = Self::new(config, None, peer, Box::new(NoHistory), db, now);
        node.begin_leading(&mut node.writer(), now);
        node
    }

    /// A member of an ensemble: `peer` and `durable` as in [`Peer::member`], `db` the tree as of
    /// `durable.applied`. It serves nobody until it is part of a quorum.
    #[must_use]
    pub fn member(
        config: NodeConfig,
        peer: PeerConfig,
        durable: Durable,
        db: Database,
        history: Box<dyn History>,
        now: Now,
    ) -> Self {
        let voters = peer.members.voters.len();
        let peer = Peer::member(peer, durable, now.mono_ms());
        Self::new(config, Some(voters), peer, history, db, now)
    }

    fn new(
        config: NodeConfig,
        voters: Option<usize>,
        peer: Peer,
        history: Box<dyn History>,
        db: Database,
        now: Now,
    ) -> Self {
        // All servers together let as much through as one would (`getGlobalOutstandingLimit`).
        let share = voters.filter(|voters| *voters > 2).map_or(1, |voters| voters - 1);
        // Nobody else could tell the difference, and upstream does not look at the setting either.
        let local_sessions =
            if voters.is_some() { config.local_sessions } else { LocalSessionMode::Disabled };
        let writer = Writer {
            peer,
            history,
            role: Role::Idle,
            reign: 0,
            epoch_start: Zxid::ZERO,
            sessions: SessionTracker::new(config.session),
            local: LocalSessions::new(config.session, local_sessions),
            changes: OutstandingChanges::new(None),
            in_flight: VecDeque::new(),
            is_fuzzy: false,
            due: VecDeque::new(),
            clients: HashMap::new(),
            by_session: HashMap::new(),
            buffer: BytesMut::new(),
            staged: Vec::new(),
            retired: Vec::new(),
            halted: false,
        };
        Self {
            reaper: Mutex::new(Reaper::new(&config, now)),
            outstanding_limit: config.global_outstanding_limit / share,
            config,
            is_member: voters.is_some(),
            db: RwLock::new(db),
            writer: Mutex::new(writer),
            stats: Stats::default(),
            next_client: AtomicU64::new(1),
            outstanding: AtomicUsize::new(0),
            accepts_writes: AtomicBool::new(true),
            serving: AtomicBool::new(false),
            unserved_since_ms: AtomicI64::new(NEVER),
            read_only: AtomicBool::new(false),
            installing: AtomicUsize::new(0),
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

    /// To be called whenever what is on its way has changed, before the writer's lock is released.
    pub(crate) fn note_outstanding(&self, writer: &Writer) {
        self.outstanding.store(writer.outstanding(), Ordering::Relaxed);
    }

    /// Whether so much is on its way that connections with a part in it are not read.
    pub(crate) fn is_crowded(&self) -> bool {
        self.outstanding.load(Ordering::Relaxed) > self.outstanding_limit
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
        let (sessions, pending_syncs) = match &writer.role {
            Role::Leader(leading) => {
                (writer.sessions.len(), leading.syncs.values().map(VecDeque::len).sum())
            }
            Role::Learner(_) | Role::ReadOnly(_) | Role::Idle => (db.tree.sessions().len(), 0),
        };
        Status {
            role: self.role(&writer),
            zxid: db.tree.last_zxid(),
            node_count: db.tree.node_count(),
            connections: writer.clients.len(),
            outstanding: writer.outstanding(),
            sessions,
            local_sessions: match &writer.role {
                Role::ReadOnly(_) => writer.sessions.len(),
                Role::Leader(_) | Role::Learner(_) | Role::Idle => writer.local.len(),
            },
            outstanding_changes: writer.changes.len(),
            pending_syncs,
        }
    }

    fn role(&self, writer: &Writer) -> ServerRole {
        match &writer.role {
            Role::Idle => ServerRole::NotServing,
            Role::ReadOnly(_) => ServerRole::ReadOnly,
            Role::Leader(_) if !self.is_member => ServerRole::Standalone,
            Role::Leader(_) => ServerRole::Leader,
            Role::Learner(learning) if learning.observer => ServerRole::Observer,
            Role::Learner(_) => ServerRole::Follower,
        }
    }

    /// Whether clients are served by a quorum. It needs no lock.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.serving.load(Ordering::Relaxed)
    }

    /// Whether it serves as a follower.
    #[must_use]
    pub fn follows(&self) -> bool {
        self.is_serving()
            && matches!(&self.writer().role, Role::Learner(learning) if !learning.observer)
    }

    /// Whether clients were served a moment ago, and may be again in a moment: a client that comes now had better wait.
    /// One that is refused goes to the next server at once, and some give their requests up when all servers have
    /// refused them. It needs no lock.
    #[must_use]
    pub fn expects_leader(&self, now: Now) -> bool {
        let since_ms = self.unserved_since_ms.load(Ordering::Relaxed);
        !self.is_serving() && now.mono_ms().saturating_sub(since_ms) < HANDOVER_MS
    }

    /// Whether reads are served without a quorum, to clients that want no more. It needs no lock.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.read_only.load(Ordering::Relaxed)
    }

    /// Whether new sessions are local.
    #[must_use]
    pub fn makes_local_sessions(&self) -> bool {
        self.is_member && self.config.local_sessions != LocalSessionMode::Disabled
    }

    /// The Zab peer at this moment.
    #[must_use]
    pub fn quorum_status(&self) -> PeerStatus {
        self.writer().peer.status()
    }

    /// The connections, by number.
    #[must_use]
    pub fn clients(&self) -> Vec<Arc<Client>> {
        let mut clients: Vec<_> = self.writer().clients.values().cloned().collect();
        clients.sort_by_key(|client| client.id);
        clients
    }

    /// The sessions, for `dump`.
    #[must_use]
    pub fn known_sessions(&self) -> KnownSessions {
        let writer = self.writer();
        KnownSessions {
            local: match &writer.role {
                Role::ReadOnly(_) => Some(writer.sessions.by_expiry()),
                Role::Leader(_) | Role::Learner(_) | Role::Idle => {
                    self.makes_local_sessions().then(|| writer.local.by_expiry())
                }
            },
            global: match &writer.role {
                Role::Leader(_) => GlobalSessions::ByExpiry(writer.sessions.by_expiry()),
                Role::Learner(_) | Role::ReadOnly(_) | Role::Idle => {
                    let db = self.db();
                    let sessions = db.tree.sessions().iter();
                    GlobalSessions::Timeouts(sessions.map(|(id, ms)| (*id, *ms)).collect())
                }
            },
        }
    }

    /// Refuses writes that make the log grow, or accepts them again: the shell watches the disk. A
    /// leader that refuses them leaves its place to a follower.
    pub fn accept_writes(&self, accept: bool) {
        self.accepts_writes.store(accept, Ordering::Relaxed);
        self.writer().peer.set_reluctant(!accept);
    }

    /// Begins to take down what changed since the last checkpoint, as of this moment. `None` while a
    /// snapshot from the leader is on its way to be the state: from its
    /// [`Write::InstallSnapshot`] on, until it is the tree.
    ///
    /// A checkpoint that is running then must not reach the disk behind the snapshot.
    /// [`Database::has_begun`] says whether it is still one of this tree.
    pub fn begin_checkpoint(&self) -> Option<Checkpoint> {
        let mut db = self.db_mut();
        // Under the lock: a snapshot becomes the tree under it, and has been counted before.
        let installing = self.installing.load(Ordering::SeqCst) > 0;
        if installing { None } else { Some(db.begin_checkpoint()) }
    }

    /// Ends a checkpoint; if it is not safe on disk, what it took counts as changed again.
    pub fn end_checkpoint(&self, checkpoint: Checkpoint, safe: bool) {
        let spent = self.db_mut().end_checkpoint(checkpoint, safe);
        drop(spent); // outside the lock: it may be large
    }

    /// A client connected from `address`. It is turned away at once when nobody is served.
    pub fn open(&self, address: String, outbox: Box<dyn Outbox>, now: Now) -> Arc<Client> {
        let id = WatcherId(self.next_client.fetch_add(1, Ordering::Relaxed));
        let client = Arc::new(Client::new(id, address, outbox, now));
        let mut writer = self.writer();
        if matches!(writer.role, Role::Idle) {
            client.hang_up();
        }
        writer.clients.insert(id, Arc::clone(&client));
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
            if let Role::Learner(learning) = &mut writer.role {
                learning.touches.detach(session);
            }
        }
    }
}

impl Writer {
    /// How many requests are on their way.
    pub(crate) fn outstanding(&self) -> usize {
        match &self.role {
            Role::Learner(learning) => learning.forwarded.len(),
            Role::Leader(_) | Role::ReadOnly(_) | Role::Idle => self.in_flight.len(),
        }
    }
}
