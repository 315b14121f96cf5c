//! Starting, serving, stopping.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use zk_config::ServerConfig;
use zk_processor::{
    Authenticator, ContainerConfig, DigestAlgorithm, Node, NodeConfig, ReadOnlyMode, ReconfigConfig,
};
use zk_proto::create_mode::ExtendedTypes;
use zk_proto::{ServerId, SessionId};
use zk_session::{LocalSessionMode, SessionConfig, first_id};
use zk_storage::{Before, LogConfig, StorageConfig};
use zk_tree::{Database, TreeConfig};
use zk_zab::{Members, PeerConfig};

use crate::actions::Batch;
use crate::client::{Listener, flush_touched};
use crate::context::{Clock, Context, Counters, Ending};
use crate::membership::{self, InForce, Membership};
use crate::quorum::{self, Quorum, Snapshots};
use crate::storage::{self, StoreQueue};
use crate::{Exit, admin};

/// How often the core is told the time, at least: sessions expire to within a tick of it.
const TICK_MAX: Duration = Duration::from_millis(100);

/// More often than this no session's expiry needs it.
const TICK_MIN: Duration = Duration::from_millis(5);

/// How often the core of a member is told the time: an election ends at one.
const TICK_MEMBER: Duration = Duration::from_millis(10);

/// The timers' resolution: `znode.container.checkIntervalMs` cannot ask for more.
const REAPING_MIN: Duration = Duration::from_millis(1);

/// The id that a standalone server puts into its sessions' ids, as upstream does.
const STANDALONE_ID: ServerId = ServerId(1);

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data.
    #[error(transparent)]
    Data(#[from] storage::RecoveryError),
    /// A folder that is not there, and must not be made.
    #[error("the folder {} does not exist, and datadir.autocreate is false: create it", .0.display())]
    NoFolder(PathBuf),
    /// A port.
    #[error("cannot listen for clients on {address}: {source}; is another server running?")]
    Bind {
        /// Where.
        address: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The metrics endpoint.
    #[error(
        "cannot serve metrics on {address}: {source}; set metricsProvider.httpPort to a free port"
    )]
    Metrics {
        /// Where.
        address: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The system refuses threads or signals.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
    /// The configuration asks for what is not there.
    #[error("{0}")]
    Config(String),
    /// It had started, and had to stop; this is why.
    #[error("{1}")]
    Ended(Exit, String),
}

impl StartError {
    /// The exit code that upstream has for it.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            // A folder that cannot be used; what is damaged or missing in it is another matter.
            Self::Data(storage::RecoveryError::Storage(error)) if error.exit_code() == 3 => {
                Exit::DataDir
            }
            Self::Data(storage::RecoveryError::Import(error)) if error.exit_code() == 3 => {
                Exit::DataDir
            }
            Self::Data(_) => Exit::Unexpected,
            Self::NoFolder(_) => Exit::DataDir,
            Self::Config(_) => Exit::Invocation,
            Self::Metrics { .. } => Exit::Admin,
            Self::Bind { .. } | Self::System(_) => Exit::Unexpected,
            Self::Ended(exit, _) => *exit,
        }
    }
}

/// A server that serves.
#[derive(Debug)]
pub struct Running {
    context: Arc<Context>,
    tasks: JoinSet<()>,
    store: JoinHandle<()>,
    checkpoints: JoinHandle<()>,
    stop_checkpoints: SyncSender<()>,
}

impl Running {
    /// Where clients connect.
    ///
    /// # Panics
    /// Never: a server that runs listens for clients.
    #[must_use]
    pub fn client_address(&self) -> SocketAddr {
        self.context.client_address().expect("it was set at the start")
    }

    /// What its tasks share.
    #[must_use]
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// Waits until the server has to stop by itself: with which exit code, and why.
    pub async fn ended(&self) -> (Exit, String) {
        self.context.ended().await
    }

    /// Stops: no new connections or requests, what was accepted gets durable, then everything ends.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
        // One that came into force a moment ago.
        let context = Arc::clone(&self.context);
        if tokio::task::spawn_blocking(move || context.membership.write_files()).await.is_err() {
            tracing::error!("the configuration in force was not written");
        }
        if let Some(quorum) = &self.context.quorum {
            quorum.stop().await;
        }
        if self.stop_checkpoints.try_send(()).is_err() {
            tracing::debug!("the checkpoint thread has ended already");
        }
        drop(self.stop_checkpoints);
        self.context.queue.stop();
        let threads = [self.store, self.checkpoints];
        let joined = tokio::task::spawn_blocking(move || threads.map(JoinHandle::join)).await;
        if joined.is_err() {
            tracing::error!("a thread ended badly");
        }
    }
}

/// Starts a server; within a tokio runtime.
///
/// # Errors
/// See [`StartError`].
pub fn start(config: ServerConfig) -> Result<Running, StartError> {
    let clock = Clock::start();
    let now = clock.now();
    let address = client_address(&config)?;
    let extended_types = extended_types(&config);
    if !config.data_dir_autocreate {
        let folders = [&config.data_dir, &config.data_log_dir];
        if let Some(missing) = folders.into_iter().find(|folder| !folder.exists()) {
            return Err(StartError::NoFolder(missing.clone()));
        }
    }
    let member = config.member_id().map(quorum::server_id);
    let tree = TreeConfig { extended_types, digest_enabled: config.storage.digest_enabled };
    if let Ok(Before::Apache(_)) = zk_storage::look(&storage_config(&config)) {
        // Apache's server may still run, and write: its data would be taken over too early, for good.
        drop(bind(&config, address)?);
    }
    let recovered = match member {
        None => storage::recover(&storage_config(&config), tree)?,
        Some(_) => storage::recover_member(&storage_config(&config), tree)?,
    };
    tracing::info!(
        zxid = %recovered.last_logged(), znodes = recovered.db.tree.node_count(),
        sessions = recovered.db.tree.sessions().len(), replayed = recovered.replayed,
        load_ms = recovered.load_us / 1000, replay_ms = recovered.replay_us / 1000, "data loaded"
    );
    // Listening before anything is started: a port that is taken leaves nothing behind.
    let listener = bind(&config, address)?;
    let client_address = listener.local_addr()?;
    let metrics = metrics_listener(&config)?;

    let counters = Counters {
        load_state_us: AtomicU64::new(recovered.load_us),
        replay_us: AtomicU64::new(recovered.replay_us),
        replayed: AtomicU64::new(recovered.replayed),
        ..Counters::default()
    };
    let log_handle = recovered.log.handle();
    let state = Arc::new(recovered.state);
    let id = member.unwrap_or(STANDALONE_ID);
    let started_wall_ms = now.wall_ms;
    // Loading may have taken a while, which is nobody's delay.
    let now = clock.now();
    let node_config = node_config(&config, extended_types, first_id(id, started_wall_ms));
    membership::back_up(&config);
    let membership = Membership::new(&config);
    let in_force = membership.current();
    warn_of_older_files(&config, &in_force, &recovered.db);
    let (node, quorum) = match (member, recovered.member) {
        (Some(id), Some(member)) => {
            let peer = peer_config(&config, id, in_force.members.clone());
            let snapshots = Snapshots {
                log: log_handle.clone(),
                state: Arc::clone(&state),
                tree,
                sending: Arc::new(Semaphore::new(
                    config.ensemble.leader_max_concurrent_snap_syncs.max(1) as usize,
                )),
            };
            let quorum = Quorum::new(id, &config, &membership, snapshots);
            let node =
                Node::member(node_config, peer, member.durable, recovered.db, member.history, now);
            (node, Some(quorum))
        }
        (_, _) => (Node::standalone(node_config, recovered.db, now), None), // no member
    };
    let context = Arc::new(Context {
        node,
        clock,
        started_wall_ms,
        counters,
        queue: StoreQueue::default(),
        disk_low: AtomicBool::new(false),
        membership,
        client_address: Mutex::new(Some(client_address)),
        quorum,
        ending: Ending::default(),
        config,
    });
    let store = {
        let (context, log, state) = (Arc::clone(&context), recovered.log, Arc::clone(&state));
        Builder::new()
            .name("store".into())
            .spawn(move || storage::run_store(&context, log, &state))?
    };
    let (stop_checkpoints, stop) = sync_channel(1);
    let checkpoints = {
        let context = Arc::clone(&context);
        Builder::new()
            .name("checkpoint".into())
            .spawn(move || storage::run_checkpoints(&context, &state, &log_handle, &stop))?
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(ticks(Arc::clone(&context)));
    tasks.spawn(listener.run(Arc::clone(&context)));
    if let Some(listener) = metrics {
        tracing::info!(address = %listener.local_addr()?, "serving metrics");
        tasks.spawn(admin::metrics::serve(Arc::clone(&context), listener, std::future::pending()));
    }
    if let (Some(quorum), Some(id)) = (&context.quorum, member) {
        quorum.listen(&context, id, &mut tasks);
        tasks.spawn(admin::quorum::run(Arc::clone(&context)));
        tasks.spawn(membership::keep_written(Arc::clone(&context)));
        tracing::info!(%id, address = %client_address, "member of an ensemble; clients are served once there is a leader");
    } else {
        tracing::info!(address = %client_address, "serving clients");
    }
    Ok(Running { context, tasks, store, checkpoints, stop_checkpoints })
}

fn bind(config: &ServerConfig, address: SocketAddr) -> Result<Listener, StartError> {
    Listener::bind(address, config.client_port_listen_backlog)
        .map_err(|source| StartError::Bind { address: address.to_string(), source })
}

/// Starts a server and serves until SIGTERM or SIGINT.
///
/// # Errors
/// See [`StartError`].
pub fn run(config: ServerConfig) -> Result<(), StartError> {
    exit_on_panic();
    raise_file_limit();
    keep_memory_small();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let running = start(config)?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            (exit, why) = running.ended() => return Err(StartError::Ended(exit, why)),
        }
        tracing::info!("stopping");
        running.stop().await;
        tracing::info!("stopped");
        Ok(())
    })
}

/// Tells the core the time.
async fn ticks(context: Arc<Context>) {
    let tick = Duration::from_millis(context.config.tick_time_ms.into());
    let reaping = Duration::from_millis(context.config.tree.container_check_interval_ms.into());
    let mut period = (tick / 4).max(TICK_MIN).min(TICK_MAX).min(reaping.max(REAPING_MIN));
    if context.quorum.is_some() {
        period = period.min(TICK_MEMBER);
    }
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        interval.tick().await;
        let mut batch = Batch::new(&context);
        context.node.on_tick(context.clock.now(), &mut |action| batch.push(action));
        drop(batch);
        flush_touched(&context);
    }
}

/// A server that has lost a thread must not go on answering (R10).
fn exit_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        crate::abort();
    }));
}

/// Half-used huge pages would cost a large tree a sixth of its memory.
fn keep_memory_small() {
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "transparent huge pages stay on");
    }
}

/// As many connections as the system allows without asking.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
}

fn client_address(config: &ServerConfig) -> Result<SocketAddr, StartError> {
    let Some(listener) = &config.client_listener else {
        return Err(StartError::Config("clientPort is not set: no client could connect".into()));
    };
    resolve(listener.host.as_deref(), listener.port)
}

/// Without a host: every address of the machine, of both families where it has both.
fn resolve(host: Option<&str>, port: u16) -> Result<SocketAddr, StartError> {
    let Some(host) = host.filter(|host| !matches!(*host, "" | "0.0.0.0" | "::" | "*")) else {
        return Ok(quorum::wildcard(port));
    };
    let no_address = || StartError::Config(format!("{host} has no address"));
    (host, port).to_socket_addrs().map_err(|_| no_address())?.next().ok_or_else(no_address)
}

fn metrics_listener(config: &ServerConfig) -> Result<Option<TcpListener>, StartError> {
    let Some(http) = &config.metrics.http else { return Ok(None) };
    let address = resolve(http.host.as_deref(), http.port)?;
    let bind = || {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    };
    bind().map(Some).map_err(|source| StartError::Metrics { address: address.to_string(), source })
}

pub(crate) fn extended_types(config: &ServerConfig) -> ExtendedTypes {
    if config.tree.extended_types_enabled {
        ExtendedTypes::Enabled
    } else {
        ExtendedTypes::Disabled
    }
}

pub(crate) fn storage_config(config: &ServerConfig) -> StorageConfig {
    let defaults = LogConfig::default();
    let segment_bytes = match config.storage.pre_alloc_size_bytes {
        0 => defaults.segment_bytes,
        bytes => bytes,
    };
    let log = LogConfig { segment_bytes, force_sync: config.storage.force_sync };
    StorageConfig {
        data_dir: config.data_dir.clone(),
        data_log_dir: config.data_log_dir.clone(),
        log,
    }
}

/// Says so when the data know a later configuration than the files: they could not be written, or an
/// operator has put older ones into their place.
fn warn_of_older_files(config: &ServerConfig, in_force: &InForce, db: &Database) {
    let Some(zoo_cfg) = config.config_file.as_ref().filter(|_| config.ensemble.reconfig_enabled)
    else {
        return;
    };
    let Some(known) = db.config().map(Members::from_text) else { return };
    if known.version > in_force.members.version && !known.agrees(&in_force.members) {
        tracing::warn!(
            file = %zoo_cfg.display(), version = format_args!("{:x}", in_force.members.version),
            data_version = format_args!("{:x}", known.version), data_members = %known.text,
            "the data know a later configuration than the files, which count: the server begins with theirs until it meets one with a later. If nobody has put older files into their place, stop it and write the later members into them"
        );
    }
}

fn peer_config(config: &ServerConfig, id: ServerId, members: Members) -> PeerConfig {
    let ensemble = &config.ensemble;
    let ms = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
    PeerConfig {
        tick_ms: config.tick_time_ms.into(),
        init_limit_ticks: ensemble.init_limit_ticks.into(),
        sync_limit_ticks: ensemble.sync_limit_ticks.into(),
        connect_limit_ticks: ensemble.connect_to_learner_master_limit_ticks.into(),
        connect_retry_ms: ensemble.leader_connect_delay_during_retry_ms.into(),
        notification_interval_min_ms: ensemble.min_notification_interval_ms.into(),
        notification_interval_max_ms: ensemble.max_notification_interval_ms.into(),
        commit_log_count: ensemble.commit_log_count as usize,
        snapshot_size_factor: ensemble.snapshot_size_factor,
        force_snapshot_sync: ensemble.force_snapshot_sync,
        early_commits: false,
        observer_masters: ensemble.observer_master_port.is_some(),
        reconnect_delay_ms: ms(ensemble.observer_reconnect_delay_ms),
        election_delay_ms: ms(ensemble.observer_election_delay_ms),
        reconfig_enabled: config.ensemble.reconfig_enabled,
        proposed: membership::proposed(config),
        ..PeerConfig::new(id, members)
    }
}

fn node_config(
    config: &ServerConfig,
    extended_types: ExtendedTypes,
    first_id: SessionId,
) -> NodeConfig {
    let ms = |ms: u32| i32::try_from(ms).unwrap_or(i32::MAX);
    let session = SessionConfig {
        tick_ms: config.tick_time_ms.into(),
        min_timeout_ms: ms(config.min_session_timeout_ms),
        max_timeout_ms: ms(config.max_session_timeout_ms),
        first_id,
    };
    let auth = &config.auth;
    let has_provider = |class: &str| {
        let full = format!("org.apache.zookeeper.server.auth.{class}");
        auth.providers.iter().any(|provider| provider.class_name == full)
    };
    NodeConfig {
        local_sessions: LocalSessionMode::from_config(
            config.ensemble.local_sessions_enabled,
            config.ensemble.local_sessions_upgrading_enabled,
        ),
        auth: Authenticator {
            skip_acl: auth.skip_acl,
            digest_enabled: auth.digest_enabled,
            digest_algorithm: match auth.digest_algorithm.as_str() {
                "SHA-256" => DigestAlgorithm::Sha256,
                "SHA3-256" => DigestAlgorithm::Sha3,
                _ => DigestAlgorithm::Sha1, // the configuration allows no others
            },
            super_digest: auth.super_digest.as_ref().map(|secret| secret.reveal().to_owned()),
            ensemble_names: has_provider("EnsembleAuthenticationProvider")
                .then(|| auth.ensemble_auth_names.clone()),
            key_enabled: has_provider("KeyAuthenticationProvider"),
        },
        enforce_auth_schemes: if auth.enforce_enabled {
            auth.enforce_schemes.clone()
        } else {
            Vec::new()
        },
        extended_types,
        digest_enabled: config.storage.digest_enabled,
        enforce_quota: config.tree.enforce_quota,
        eager_acl_check: config.tree.eager_acl_check,
        reconfig: ReconfigConfig {
            enabled: config.ensemble.reconfig_enabled,
            standalone_enabled: config.ensemble.standalone_enabled,
            multi_address: config.ensemble.multi_address_enabled,
        },
        read_only_mode: ReadOnlyMode::from_config(
            config.read_only_mode_enabled,
            config.ensemble.local_sessions_enabled,
        ),
        containers: ContainerConfig {
            check_interval_ms: config.tree.container_check_interval_ms.into(),
            max_per_minute: config.tree.container_max_per_minute,
            max_never_used_ms: config
                .tree
                .container_max_never_used_interval_ms
                .map_or(0, |ms| i64::try_from(ms).unwrap_or(i64::MAX)),
        },
        global_outstanding_limit: config.limits.global_outstanding_limit as usize,
        ..NodeConfig::new(session)
    }
}
