//! The typed configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use zk_proto::membership::Listener;

use crate::ensemble::EnsembleConfig;
use crate::settings::Sources;

/// Text that never shows in logs: `Debug` and `Display` print stars.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Every four-letter word of ZooKeeper, sorted (`FourLetterCommands`).
pub const FOUR_LETTER_WORDS: [&str; 18] = [
    "conf", "cons", "crst", "dirs", "dump", "envi", "gtmk", "hash", "isro", "mntr", "ruok", "srst",
    "srvr", "stat", "stmk", "wchc", "wchp", "wchs",
];

/// Words of Paddock's own. They are on the list unless there is one that names other words.
pub const PADDOCK_WORDS: [&str; 1] = ["quor"];

/// The four-letter words that are answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FourLetterWhitelist {
    words: BTreeSet<&'static str>,
}

impl FourLetterWhitelist {
    pub(crate) fn new(words: BTreeSet<&'static str>) -> Self {
        Self { words }
    }

    /// Whether `word` may be executed. `srvr` always may, because `zkServer.sh status` depends on
    /// it.
    pub fn allows(&self, word: &str) -> bool {
        self.words.contains(word)
    }

    /// The allowed words, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &'static str> {
        self.words.iter().copied()
    }
}

/// A running server's configuration. Times carry their unit in the name; `None` stands for "off" or
/// "no limit" where ZooKeeper uses 0 or -1.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerConfig {
    /// Folder of the data.
    pub data_dir: PathBuf,
    /// Folder of the transaction log; equals `data_dir` unless set.
    pub data_log_dir: PathBuf,
    /// Create the folders when they are missing.
    pub data_dir_autocreate: bool,
    /// The id in `dataDir/myid`.
    pub my_id: Option<u64>,
    /// Where plain clients connect.
    pub client_listener: Option<Listener>,
    /// Where TLS clients connect.
    pub secure_client_listener: Option<Listener>,
    /// Length of the queue of connections not yet accepted; none leaves it to the system.
    pub client_port_listen_backlog: Option<u32>,
    /// SO_KEEPALIVE on client connections.
    pub client_tcp_keep_alive: bool,
    /// How long a connection may stay without a session.
    pub sessionless_timeout_ms: u32,
    /// Length of a tick.
    pub tick_time_ms: u32,
    /// Shortest session timeout.
    pub min_session_timeout_ms: u32,
    /// Longest session timeout; never below `min_session_timeout_ms`.
    pub max_session_timeout_ms: u32,
    /// Which four-letter words are answered.
    pub four_letter_words: FourLetterWhitelist,
    /// Limits and load control.
    pub limits: Limits,
    /// The store.
    pub storage: StorageConfig,
    /// What the tree allows.
    pub tree: TreeConfig,
    /// Who may do what.
    pub auth: AuthConfig,
    /// The metrics endpoint.
    pub metrics: MetricsConfig,
    /// Membership and what belongs to it.
    pub ensemble: EnsembleConfig,
    /// TLS of the client port and between members.
    pub tls: TlsConfig,
    /// SASL of clients.
    pub sasl: SaslConfig,
    /// The AdminServer.
    pub admin: AdminConfig,
    /// Write the audit log.
    pub audit_enabled: bool,
    /// Serve read-only clients without a quorum.
    pub read_only_mode_enabled: bool,
    /// What the importer of ZooKeeper data accepts.
    pub import: ImportConfig,
    /// The `zoo.cfg` that was read, as it was named; none where settings came from elsewhere.
    pub config_file: Option<PathBuf>,
    /// The text of `zoo.cfg` as read; empty without a file.
    pub initial_config: Secret,
    /// Every key that is set, as written, secrets masked. For the log and the AdminServer.
    pub effective: BTreeMap<String, String>,
}

/// Limits and load control (facts 2.10).
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Connections from one address; none for no limit.
    pub max_client_cnxns: Option<u32>,
    /// Connections in all; none for no limit.
    pub max_cnxns: Option<u32>,
    /// Largest request.
    pub jute_max_buffer_bytes: u32,
    /// Requests in flight at which reading from busy connections pauses.
    pub global_outstanding_limit: u32,
    /// Bytes of large requests in flight.
    pub large_request_max_bytes: u32,
    /// Size from which a request is large; none for never.
    pub large_request_threshold_bytes: Option<u32>,
    /// The token bucket for connections; none when off.
    pub connection_throttle: Option<ConnectionThrottle>,
}

/// The token bucket for connections (`BlueThrottle`).
#[derive(Debug, Clone, PartialEq)]
pub struct ConnectionThrottle {
    /// Size of the bucket.
    pub tokens: u32,
    /// Time between refills.
    pub fill_time_ms: u32,
    /// Tokens of a refill, already multiplied by the weight of a new session when weights are on.
    pub fill_count: u32,
    /// Time between changes of the drop probability; none for no random dropping.
    pub freeze_time_ms: Option<u32>,
    /// Growth of the drop probability.
    pub drop_increase: f64,
    /// Fall of the drop probability.
    pub drop_decrease: f64,
    /// Share of a full bucket from which the drop probability falls.
    pub decrease_ratio: f64,
    /// Tokens of a new session: 1 without weights.
    pub global_session_weight: u32,
    /// Tokens of a new local session: 1 without weights.
    pub local_session_weight: u32,
    /// Tokens of a renewed session: 1 without weights.
    pub renew_session_weight: u32,
}

/// The store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageConfig {
    /// Transactions between checkpoints.
    pub snap_count: u32,
    /// Log bytes between checkpoints; none for no limit.
    pub snap_size_limit_bytes: Option<u64>,
    /// Size of a preallocated piece of log; 0 leaves the choice to the store.
    pub pre_alloc_size_bytes: u64,
    /// Sync before a write is acknowledged. Off loses acknowledged writes in a crash.
    pub force_sync: bool,
    /// Syncs slower than this are logged.
    pub fsync_warning_threshold_ms: u64,
    /// Keep and compare digests of the tree.
    pub digest_enabled: bool,
    /// Time between purges; none for never.
    pub purge_interval_ms: Option<u64>,
}

/// What the tree allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeConfig {
    /// TTL nodes are allowed.
    pub extended_types_enabled: bool,
    /// Hard quotas are enforced.
    pub enforce_quota: bool,
    /// A member refuses what ACLs forbid before it asks the leader.
    pub eager_acl_check: bool,
    /// Time between searches for dead containers and TTL nodes.
    pub container_check_interval_ms: u32,
    /// Containers and TTL nodes deleted in a minute at most.
    pub container_max_per_minute: u32,
    /// Age at which a container that never had a child is deleted; none for never.
    pub container_max_never_used_interval_ms: Option<u64>,
}

/// A class named by `authProvider.X`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthProvider {
    /// The X.
    pub name: String,
    /// The Java class.
    pub class_name: String,
}

/// Who may do what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthConfig {
    /// No ACL is checked.
    pub skip_acl: bool,
    /// The digest id with all rights, `user:base64(sha1(user:password))`.
    pub super_digest: Option<Secret>,
    /// The digest scheme is offered.
    pub digest_enabled: bool,
    /// How it hashes passwords: SHA1, SHA-1, SHA-256 or SHA3-256.
    pub digest_algorithm: String,
    /// Further schemes.
    pub providers: Vec<AuthProvider>,
    /// Unauthenticated sessions are refused.
    pub enforce_enabled: bool,
    /// Schemes of which one is required.
    pub enforce_schemes: Vec<String>,
    /// Names by which clients may address this ensemble.
    pub ensemble_auth_names: Vec<String>,
}

/// Which metrics provider is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricsProvider {
    /// Metrics feed the four-letter words alone.
    Default,
    /// Metrics are also served over HTTP.
    Prometheus,
    /// No metrics.
    Null,
}

/// The metrics endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricsConfig {
    /// The provider.
    pub provider: MetricsProvider,
    /// Where Prometheus scrapes `/metrics`; none when it does not.
    pub http: Option<Listener>,
    /// TLS port of that endpoint.
    pub https_port: Option<u16>,
    /// Its certificates.
    pub tls: TlsStores,
    /// Demand a certificate of scrapers.
    pub need_client_auth: bool,
    /// Ask scrapers for a certificate.
    pub want_client_auth: bool,
}

/// A file of keys or certificates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreFile {
    /// The file.
    pub location: Option<PathBuf>,
    /// Its password.
    pub password: Option<Secret>,
    /// A file with its password; goes before `password`.
    pub password_path: Option<PathBuf>,
    /// JKS, PEM, PKCS12 or BCFKS; none to go by the file's ending.
    pub store_type: Option<String>,
}

/// Certificates and protocols of one TLS endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsStores {
    /// Own key and certificates.
    pub key_store: StoreFile,
    /// Trusted certificates.
    pub trust_store: StoreFile,
    /// The single protocol of `protocol`.
    pub protocol: Option<String>,
    /// Allowed protocols.
    pub enabled_protocols: Vec<String>,
    /// Allowed cipher suites.
    pub cipher_suites: Vec<String>,
}

/// Whether the other side must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// It is not asked.
    None,
    /// It is asked and may decline.
    Want,
    /// It must.
    Need,
}

/// One TLS endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsEndpoint {
    /// Certificates and protocols.
    pub stores: TlsStores,
    /// Certificates of the other side.
    pub client_auth: ClientAuth,
    /// Compare names in certificates with hosts.
    pub hostname_verification: bool,
    /// The same for the connecting side.
    pub client_hostname_verification: bool,
    /// Resolve addresses to names for that.
    pub allow_reverse_dns_lookup: bool,
    /// Check revocation lists.
    pub crl: bool,
    /// Check revocation by OCSP.
    pub ocsp: bool,
    /// Time to recognise TLS on a unified port.
    pub handshake_detection_timeout_ms: u32,
}

/// TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// The client port.
    pub client: TlsEndpoint,
    /// Between members.
    pub quorum: TlsEndpoint,
    /// TLS and plain clients on one port.
    pub client_port_unification: bool,
    /// Reload certificates when they change.
    pub client_cert_reload: bool,
    /// Scheme that takes identities from certificates.
    pub auth_provider: String,
    /// Certificate subject with all rights.
    pub x509_super_user: Option<String>,
    /// Only mechanisms allowed by FIPS.
    pub fips_mode: bool,
    /// TLS handshakes at once; none for no limit.
    pub outstanding_handshake_limit: Option<u32>,
    /// Refuse TLS connections while not serving.
    pub early_drop_handshakes: bool,
}

/// SASL of clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaslConfig {
    /// Refuse sessions without SASL.
    pub required: bool,
    /// Keep a connection after failed SASL.
    pub allow_failed_clients: bool,
    /// Users with all rights.
    pub super_users: Vec<String>,
    /// A SASL id that every SASL user matches.
    pub let_any_user_do: Option<String>,
    /// Password of the user `super`.
    pub super_password: Option<Secret>,
    /// JAAS file.
    pub jaas_file: Option<PathBuf>,
    /// JAAS section of the server.
    pub server_section: String,
    /// Kerberos configuration file.
    pub krb5_conf: Option<PathBuf>,
    /// Fail without a Kerberos configuration.
    pub require_kerberos_config: bool,
    /// Drop the host from Kerberos identities.
    pub remove_host_from_principal: bool,
    /// Drop the realm from Kerberos identities.
    pub remove_realm_from_principal: bool,
    /// Use canonical host names between servers.
    pub canonicalize_host_names: bool,
    /// Time between Kerberos logins.
    pub min_relogin_time_ms: u64,
    /// The kinit command.
    pub kinit: String,
    /// Rules from Kerberos principals to short names.
    pub auth_to_local: String,
}

/// The AdminServer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminConfig {
    /// Start it.
    pub enabled: bool,
    /// Its address.
    pub listener: Listener,
    /// How long an idle connection is kept.
    pub idle_timeout_ms: u32,
    /// Path of the commands.
    pub command_url: String,
    /// HTTP and HTTPS on one port.
    pub port_unification: bool,
    /// Only HTTPS.
    pub force_https: bool,
    /// Demand certificates.
    pub need_client_auth: bool,
    /// Offer the snapshot command.
    pub snapshot_enabled: bool,
    /// Offer the restore command.
    pub restore_enabled: bool,
    /// Time between snapshots or restores.
    pub rate_limiter_interval_ms: u64,
    /// Take the address of a client from X-Forwarded-For.
    pub use_x_forwarded_for: bool,
}

/// What the importer of ZooKeeper data accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportConfig {
    /// TTL nodes as ZooKeeper 3.5.3 wrote them.
    pub emulate_353_ttl_nodes: bool,
}

/// The class that switches the metrics endpoint on.
pub const PROMETHEUS_PROVIDER: &str =
    "org.apache.zookeeper.metrics.prometheus.PrometheusMetricsProvider";

impl ServerConfig {
    /// Which member of the ensemble this is; none for a standalone server. The line of that id is in
    /// `ensemble.members`: a configuration without it is refused.
    pub fn member_id(&self) -> Option<u64> {
        self.my_id
            .filter(|id| self.ensemble.is_distributed() && self.ensemble.members.contains_key(id))
    }

    /// The configuration of a start without a file: see [`Sources::embedded`].
    pub fn embedded_default(data_dir: Option<&str>) -> Self {
        let config = Sources::embedded(data_dir).load().config;
        config.expect(
            "the embedded default names a dataDir and a clientPort; a test holds it to that",
        )
    }
}
