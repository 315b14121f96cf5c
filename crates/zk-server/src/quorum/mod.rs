//! The ports between members of an ensemble: elections, and links between a leader and its learners.
//!
//! Everything that comes in may be hostile: whoever connects has a moment and a few bytes to say who it
//! is, what it sends has limits, and a rule that is broken costs its connection and a line in the log.

mod acceptor;
mod address;
mod election_link;
mod hello;
mod learner_link;
mod link_outbox;
mod listen;
mod observer_master;
mod packets;
pub(crate) mod snapshot;
mod tasks;
mod unknown;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use zk_config::ServerConfig;
use zk_proto::ServerId;
use zk_proto::quorum::Notification;
use zk_zab::LearnerPort;

use self::election_link::{ElectionConfig, Elections, Voter};
use self::learner_link::{LinkConfig, Links};
use self::tasks::Tasks;
use crate::actions::Batch;
use crate::client::flush_touched;
use crate::context::Context;
use crate::membership::Membership;

pub(crate) use self::address::HostPort;
pub(crate) use self::link_outbox::LinkOutbox;
pub(crate) use self::listen::{Port, wildcard};
pub(crate) use self::snapshot::Snapshots;
use self::snapshot::StagedSnapshots;

/// The shortest limit for the data of a packet: a transaction may be larger than the request that asked
/// for it, and one that closes a session names every ephemeral znode.
const DATA_MAX: usize = 64 << 20;

/// So many times `jute.maxbuffer`, if that is more.
const DATA_MAX_REQUESTS: usize = 4;

/// What a member of an ensemble has beside a standalone server.
pub struct Quorum {
    elections: Arc<Elections>,
    pub(crate) links: Links,
    pub(crate) staged: StagedSnapshots,
    pub(crate) snapshots: Snapshots,
    pub(crate) tasks: Tasks,
}

impl fmt::Debug for Quorum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quorum").field("connected", &self.connected()).finish_non_exhaustive()
    }
}

impl Quorum {
    /// Within a runtime; nothing is dialled or listened to yet.
    pub(crate) fn new(
        id: ServerId,
        config: &ServerConfig,
        membership: &Membership,
        snapshots: Snapshots,
    ) -> Self {
        let ensemble = &config.ensemble;
        let tick = Duration::from_millis(config.tick_time_ms.into());
        let handshake_timeout = match ensemble.quorum_cnxn_timeout_ms {
            Some(ms) => Duration::from_millis(ms.into()),
            None => tick * ensemble.sync_limit_ticks,
        };
        let connect_timeout = Duration::from_millis(ensemble.cnx_timeout_ms.into());
        let keep_alive = ensemble.tcp_keep_alive;
        let tasks = Tasks::here();
        let elections = ElectionConfig {
            id,
            multi_address: ensemble.multi_address_enabled,
            connect_timeout,
            handshake_timeout,
            keep_alive,
            silence_max: (ensemble.multi_address_enabled
                && ensemble.multi_address_reachability_check_enabled)
                .then(|| {
                    let ms = ensemble.multi_address_reachability_check_timeout_ms;
                    Duration::from_millis(ms.into())
                }),
        };
        let links = LinkConfig {
            observer_master_port: ensemble.observer_master_port,
            connect_timeout,
            handshake_timeout,
            keep_alive,
            data_max: DATA_MAX
                .max(DATA_MAX_REQUESTS * config.limits.jute_max_buffer_bytes as usize),
        };
        Self {
            elections: Elections::new(
                elections,
                membership.addresses(Port::Election),
                tasks.clone(),
            ),
            links: Links::new(links, tasks.clone()),
            staged: StagedSnapshots::default(),
            snapshots,
            tasks,
        }
    }

    /// Which members an election connection stands with.
    #[must_use]
    pub fn connected(&self) -> Vec<ServerId> {
        self.elections.connected()
    }

    /// Hangs up on everybody.
    pub(crate) async fn stop(&self) {
        self.tasks.stop().await;
    }

    pub(crate) fn notify(&self, context: &Arc<Context>, to: ServerId, vote: &Notification) {
        let voter: Arc<dyn Voter> = Arc::clone(context) as _;
        self.elections.notify(&voter, to, vote);
    }

    /// The members are others: votes go to them, where they are now. Called under the core's lock.
    pub(crate) fn activate(&self, membership: &Membership) {
        self.elections.activate(membership.addresses(Port::Election));
    }

    /// Listens on both ports of this member, wherever they are.
    pub(crate) fn listen(&self, context: &Arc<Context>, id: ServerId, tasks: &mut JoinSet<()>) {
        let (elections, all) = (Arc::clone(&self.elections), Arc::clone(context));
        tasks.spawn(listen::run(Arc::clone(context), id, Port::Election, move |socket| {
            let voter: Arc<dyn Voter> = Arc::clone(&all) as _;
            Arc::clone(&elections).listen(voter, socket)
        }));
        let all = Arc::clone(context);
        tasks.spawn(listen::run(Arc::clone(context), id, Port::Quorum, move |socket| {
            acceptor::listen(Arc::clone(&all), socket, LearnerPort::Quorum)
        }));
        if let Some(port) = context.config.ensemble.observer_master_port {
            tasks.spawn(observer_master::run(Arc::clone(context), id, port));
        }
    }
}

/// The id of a `server.N` line.
pub(crate) fn server_id(id: u64) -> ServerId {
    ServerId(i64::try_from(id).unwrap_or(i64::MAX)) // the configuration allows no greater ones
}

impl Voter for Context {
    fn on_notification(self: Arc<Self>, from: ServerId, notification: Notification) {
        let mut batch = Batch::new(&self);
        let now = self.clock.now();
        self.node.on_notification(from, notification, now, &mut |action| batch.push(action));
        drop(batch);
        flush_touched(&self);
    }

    fn on_reachable(self: Arc<Self>, server: ServerId, reachable: bool) {
        let mut batch = Batch::new(&self);
        let now = self.clock.now();
        self.node.on_reachable(server, reachable, now, &mut |action| batch.push(action));
        drop(batch);
        flush_touched(&self);
    }
}
