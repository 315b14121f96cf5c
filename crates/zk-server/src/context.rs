//! What every task of the shell shares.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;
use zk_config::ServerConfig;
use zk_processor::{Histogram, Node, Now};
use zk_tree::WatcherId;
use zk_zab::Members;

use crate::Exit;
use crate::admin::four_letter::TraceMask;
use crate::admin::quorum::QuorumCounters;
use crate::membership::Membership;
use crate::quorum::Quorum;
use crate::storage::StoreQueue;

/// The two clocks that the core is told.
#[derive(Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that counts from now.
    #[must_use]
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// This moment.
    #[must_use]
    pub fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            mono_us: i64::try_from(self.start.elapsed().as_micros()).unwrap_or(i64::MAX),
            wall_ms: i64::try_from(wall.as_millis()).unwrap_or(i64::MAX),
        }
    }
}

/// What the shell itself counts; the core counts the rest ([`zk_processor::Stats`]).
#[derive(Debug, Default)]
pub struct Counters {
    /// Bytes read from clients.
    pub bytes_received: AtomicU64,
    /// Bytes written to clients.
    pub response_bytes: AtomicU64,
    /// Connections closed at once, because there were too many.
    pub connection_rejected: AtomicU64,
    /// Connections that ended.
    pub connection_drops: AtomicU64,
    /// Connections closed because no session came.
    pub sessionless_expired: AtomicU64,
    /// Requests refused because too many bytes of large ones were in flight.
    pub large_requests_rejected: AtomicU64,
    /// Bytes of large requests in flight.
    pub large_request_bytes: AtomicI64,
    /// How long the log's syncs took, in µs.
    pub fsync: Histogram,
    /// Syncs that took longer than `fsync.warningthresholdms`.
    pub fsync_threshold_exceeded: AtomicU64,
    /// Transactions in each sync.
    pub batch_size: Histogram,
    /// How long checkpoints took, in µs.
    pub checkpoint: Histogram,
    /// Checkpoints that failed.
    pub checkpoint_errors: AtomicU64,
    /// Loading the state at the start, in µs.
    pub load_state_us: AtomicU64,
    /// Replaying the log at the start, in µs.
    pub replay_us: AtomicU64,
    /// Transactions replayed at the start.
    pub replayed: AtomicU64,
    /// Length of the last response, of the shortest (0: none yet) and the longest, in bytes.
    pub last_response_bytes: AtomicU64,
    /// The shortest.
    pub min_response_bytes: AtomicU64,
    /// The longest.
    pub max_response_bytes: AtomicU64,
    /// Where the connections come from.
    pub peers: Peers,
    /// What `stmk` sets.
    pub trace_mask: TraceMask,
    /// What happened between members.
    pub quorum: QuorumCounters,
}

/// The other ends of the connections: the core knows their addresses, but not their ports.
#[derive(Debug, Default)]
pub struct Peers(Mutex<BTreeMap<WatcherId, SocketAddr>>);

impl Peers {
    fn peers(&self) -> MutexGuard<'_, BTreeMap<WatcherId, SocketAddr>> {
        self.0.lock().expect("no holder of this lock panics: a panic ends the process")
    }

    /// A connection was made.
    pub fn insert(&self, id: WatcherId, peer: SocketAddr) {
        self.peers().insert(id, peer);
    }

    /// A connection is gone.
    pub fn remove(&self, id: WatcherId) {
        self.peers().remove(&id);
    }

    /// Where a connection comes from.
    #[must_use]
    pub fn get(&self, id: WatcherId) -> Option<SocketAddr> {
        self.peers().get(&id).copied()
    }
}

impl Counters {
    /// Adds to a counter.
    pub fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }
}

/// Why the server has to stop, once it has to.
#[derive(Debug, Default)]
pub struct Ending {
    reason: OnceLock<(Exit, String)>,
    notify: Notify,
}

/// One running server.
#[derive(Debug)]
pub struct Context {
    /// The core.
    pub node: Node,
    /// How it was configured.
    pub config: ServerConfig,
    /// Its clocks.
    pub clock: Clock,
    /// When it started, in ms of the wall clock.
    pub started_wall_ms: i64,
    /// The shell's counts.
    pub counters: Counters,
    /// Where writes wait for the store thread.
    pub queue: StoreQueue,
    /// Whether the disk is nearly full.
    pub disk_low: AtomicBool,
    /// Who is in the ensemble.
    pub membership: Membership,
    /// Where clients are served; none before that.
    pub(crate) client_address: Mutex<Option<SocketAddr>>,
    /// What only a member of an ensemble has.
    pub quorum: Option<Quorum>,
    /// Why it has to stop.
    pub ending: Ending,
}

impl Context {
    /// What a member of an ensemble has.
    ///
    /// # Panics
    /// On a standalone server, whose core asks for nothing that needs it.
    pub(crate) fn quorum(&self) -> &Quorum {
        self.quorum.as_ref().expect("only a member of an ensemble has links and votes")
    }

    /// Clients are served here from now on.
    pub(crate) fn serves_clients_at(&self, address: SocketAddr) {
        let mut current = self
            .client_address
            .lock()
            .expect("no holder of this lock panics: a panic ends the process");
        *current = Some(address);
    }

    /// Where clients are served; none before that.
    pub(crate) fn client_address(&self) -> Option<SocketAddr> {
        *self
            .client_address
            .lock()
            .expect("no holder of this lock panics: a panic ends the process")
    }

    /// Other members are in force. Called under the core's lock: whoever listens or writes follows.
    pub(crate) fn activate(&self, members: Members) {
        self.membership.activate(members, self.node.is_serving());
        if let Some(quorum) = &self.quorum {
            quorum.activate(&self.membership);
        }
    }

    /// These members may be in force soon: they are reached from now on. Called under the core's lock.
    pub(crate) fn propose(&self, members: Members) {
        self.membership.propose(members);
        if let Some(quorum) = &self.quorum {
            quorum.activate(&self.membership);
        }
    }

    /// The server has to stop, with this exit code.
    pub(crate) fn end(&self, exit: Exit, why: String) {
        tracing::error!("the server stops: {why}");
        drop(self.ending.reason.set((exit, why))); // the first reason is the one that counts
        self.ending.notify.notify_one();
    }

    /// Waits until the server has to stop, and says why.
    pub(crate) async fn ended(&self) -> (Exit, String) {
        loop {
            if let Some(reason) = self.ending.reason.get() {
                return reason.clone();
            }
            self.ending.notify.notified().await;
        }
    }
}
