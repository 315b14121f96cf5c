use zk_proto::create_mode::ExtendedTypes;
use zk_session::{LocalSessionMode, SessionConfig};

use crate::auth::Authenticator;

/// A moment, told by the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Of a clock that never goes back, in µs.
    pub mono_us: i64,
    /// The wall clock, in ms since 1970: what znodes' ctime and mtime are made of.
    pub wall_ms: i64,
}

impl Now {
    /// The clock that never goes back, in ms.
    #[must_use]
    pub fn mono_ms(self) -> i64 {
        self.mono_us / 1000
    }
}

/// When containers and TTL znodes are looked for (`znode.container.*`).
#[derive(Debug, Clone, Copy)]
pub struct ContainerConfig {
    /// How often, in ms.
    pub check_interval_ms: i64,
    /// How many may be deleted in a minute.
    pub max_per_minute: u32,
    /// How long a container that never had a child is kept, in ms; 0: for ever.
    pub max_never_used_ms: i64,
}

impl Default for ContainerConfig {
    fn default() -> Self {
        Self { check_interval_ms: 60_000, max_per_minute: 10_000, max_never_used_ms: 0 }
    }
}

/// Whether a member without a quorum serves reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadOnlyMode {
    /// It serves nobody.
    Disabled,
    /// It would, but sessions are the ensemble's, so nobody gets one or comes back to one
    /// (`readonlymode.enabled` without `localSessionsEnabled`).
    WithoutSessions,
    /// It serves clients that want no more, with sessions of its own.
    Enabled,
}

impl ReadOnlyMode {
    /// What `readonlymode.enabled` and `localSessionsEnabled` say together.
    #[must_use]
    pub fn from_config(enabled: bool, local_sessions: bool) -> Self {
        match (enabled, local_sessions) {
            (false, _) => Self::Disabled,
            (true, false) => Self::WithoutSessions,
            (true, true) => Self::Enabled,
        }
    }
}

/// What reconfigurations may be asked for. The default is none.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReconfigConfig {
    /// `reconfigEnabled`.
    pub enabled: bool,
    /// `standaloneEnabled`: an ensemble of one is none.
    pub standalone_enabled: bool,
    /// `multiAddress.enabled`: a server may have several addresses.
    pub multi_address: bool,
}

/// What an operator can set of the processors.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Sessions' limits.
    pub session: SessionConfig,
    /// What becomes of new sessions; in an ensemble only.
    pub local_sessions: LocalSessionMode,
    /// Authentication schemes and their secrets.
    pub auth: Authenticator,
    /// Schemes of which a connection must have shown one before it may ask for anything but
    /// authentication (`enforce.auth.schemes`); empty: none is asked for.
    pub enforce_auth_schemes: Vec<String>,
    /// `zookeeper.extendedTypesEnabled` and its kin.
    pub extended_types: ExtendedTypes,
    /// Whether transactions carry the tree's digest.
    pub digest_enabled: bool,
    /// Whether hard quotas refuse writes.
    pub enforce_quota: bool,
    /// Whether a member refuses what ACLs forbid before it asks the leader (`enableEagerACLCheck`).
    pub eager_acl_check: bool,
    /// What reconfigurations may be asked for.
    pub reconfig: ReconfigConfig,
    /// What a member without a quorum does.
    pub read_only_mode: ReadOnlyMode,
    /// Containers and TTL znodes.
    pub containers: ContainerConfig,
    /// How many requests may be on their way in all before connections with one of them are not read.
    pub global_outstanding_limit: usize,
}

impl NodeConfig {
    /// Upstream's defaults.
    #[must_use]
    pub fn new(session: SessionConfig) -> Self {
        Self {
            session,
            local_sessions: LocalSessionMode::Disabled,
            auth: Authenticator::default(),
            enforce_auth_schemes: Vec::new(),
            extended_types: ExtendedTypes::Disabled,
            digest_enabled: true,
            enforce_quota: false,
            eager_acl_check: false,
            reconfig: ReconfigConfig::default(),
            read_only_mode: ReadOnlyMode::Disabled,
            containers: ContainerConfig::default(),
            global_outstanding_limit: 1000,
        }
    }
}
