//! Typing the checked values, and the checks across keys.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use zk_proto::membership::{Listener, Member, Role};

use crate::diagnostic::{Diagnostic, Diagnostics, Severity};
use crate::ensemble::{EnsembleConfig, QuorumSaslConfig, dynamic_file_version, parse_group};
use crate::key::{Feature, Status};
use crate::my_id::{MAX_EXTENDED_SERVER_ID, MyIdError, parse_my_id};
use crate::server_config::{
    AdminConfig, AuthConfig, AuthProvider, ClientAuth, ConnectionThrottle, FOUR_LETTER_WORDS,
    FourLetterWhitelist, ImportConfig, Limits, MetricsConfig, MetricsProvider, PADDOCK_WORDS,
    PROMETHEUS_PROVIDER, SaslConfig, Secret, ServerConfig, StorageConfig, StoreFile, TlsConfig,
    TlsEndpoint, TlsStores, TreeConfig,
};
use crate::settings::{NamedText, Settings, Source, Sources};
use crate::suggest::nearest;

const DEFAULT_PROVIDER: &str = "org.apache.zookeeper.metrics.impl.DefaultMetricsProvider";
const NULL_PROVIDER: &str = "org.apache.zookeeper.metrics.impl.NullMetricsProvider";

/// Builds the configuration out of checked values. None when something without a default is
/// missing.
pub(crate) fn build(
    settings: &Settings,
    sources: &Sources,
    diagnostics: &mut Diagnostics,
) -> Option<ServerConfig> {
    let mut builder = Builder { settings, diagnostics };
    let data_dir = settings.text("dataDir").map(PathBuf::from);
    if data_dir.is_none() && !settings.is_set("dataDir") {
        builder.error("dataDir", "not set; it names the folder of the data");
    }
    let ensemble = builder.ensemble(sources);
    let my_id = sources.my_id.as_ref().and_then(|file| builder.my_id(file, &ensemble));
    builder.membership(&ensemble, my_id, sources);
    let (client_listener, secure_client_listener) = builder.listeners(&ensemble, my_id);
    let (min_session_timeout_ms, max_session_timeout_ms) = builder.session_timeouts();
    let metrics = builder.metrics();
    builder.same_port(client_listener.as_ref(), &metrics);
    let effective = settings.iter().map(|(key, setting)| {
        let shown = if setting.info.is_secret() { "***" } else { setting.raw.as_str() };
        (key.to_owned(), shown.to_owned())
    });
    let data_log_dir = settings.text("dataLogDir").map(PathBuf::from);
    Some(ServerConfig {
        data_log_dir: data_log_dir.or_else(|| data_dir.clone())?,
        data_dir: data_dir?,
        data_dir_autocreate: settings.bool("datadir.autocreate"),
        my_id,
        client_listener,
        secure_client_listener,
        client_port_listen_backlog: settings.optional_u32("clientPortListenBacklog"),
        client_tcp_keep_alive: settings.bool("clientTcpKeepAlive"),
        sessionless_timeout_ms: settings.u32("nio.sessionlessCnxnTimeout"),
        tick_time_ms: settings.u32("tickTime"),
        min_session_timeout_ms,
        max_session_timeout_ms,
        four_letter_words: builder.four_letter_words(),
        limits: builder.limits(),
        storage: builder.storage(),
        tree: tree(settings),
        auth: builder.auth(),
        metrics,
        ensemble,
        tls: tls(settings),
        sasl: sasl(settings),
        admin: admin(settings),
        audit_enabled: settings.bool("audit.enable"),
        read_only_mode_enabled: settings.bool("readonlymode.enabled"),
        import: ImportConfig { emulate_353_ttl_nodes: settings.bool("emulate353TTLNodes") },
        config_file: sources.path.clone(),
        initial_config: Secret::new(sources.file.as_ref().map_or("", |file| file.text.as_str())),
        effective: effective.collect(),
    })
}

struct Builder<'a> {
    settings: &'a Settings,
    diagnostics: &'a mut Diagnostics,
}

impl Builder<'_> {
    fn report(
        &mut self,
        severity: Severity,
        source: Source,
        key: Option<&str>,
        message: impl Into<String>,
    ) {
        self.diagnostics.push(Diagnostic {
            severity,
            file: source.file,
            line: source.line,
            key: key.map(str::to_owned),
            message: message.into(),
            suggestion: None,
        });
    }

    fn error(&mut self, key: &str, message: impl Into<String>) {
        self.report(Severity::Error, self.settings.source(key), Some(key), message);
    }

    fn warning(&mut self, key: &str, message: impl Into<String>) {
        self.report(Severity::Warning, self.settings.source(key), Some(key), message);
    }

    fn my_id(&mut self, file: &NamedText, ensemble: &EnsembleConfig) -> Option<u64> {
        match parse_my_id(&file.text) {
            Ok(id) => {
                let extended = self.settings.bool("extendedTypesEnabled");
                if extended && id > MAX_EXTENDED_SERVER_ID {
                    let message = format!(
                        "with extendedTypesEnabled the server id must not exceed {MAX_EXTENDED_SERVER_ID}, but it is {id}"
                    );
                    self.report(
                        Severity::Error,
                        Source { file: file.name.clone(), line: Some(1) },
                        None,
                        message,
                    );
                }
                Some(id)
            }
            Err(error) => {
                let unused =
                    matches!(error, MyIdError::Negative { .. }) && !ensemble.is_distributed();
                let severity = if unused { Severity::Warning } else { Severity::Error };
                let source = Source { file: file.name.clone(), line: Some(1) };
                self.report(severity, source, None, error.to_string());
                None
            }
        }
    }

    /// 2 and 20 ticks unless set; the shorter must not be the longer.
    fn session_timeouts(&mut self) -> (u32, u32) {
        let settings = self.settings;
        let tick = settings.u32("tickTime");
        let limit = u32::MAX >> 1; // Timeouts are 32-bit signed numbers on the wire.
        let min = settings
            .optional_u32("minSessionTimeout")
            .unwrap_or_else(|| tick.saturating_mul(2).min(limit));
        let max = settings
            .optional_u32("maxSessionTimeout")
            .unwrap_or_else(|| tick.saturating_mul(20).min(limit));
        if min > max {
            let key = if settings.is_set("minSessionTimeout") {
                "minSessionTimeout"
            } else {
                "maxSessionTimeout"
            };
            self.error(
                key,
                format!("the shortest session timeout, {min} ms, exceeds the longest, {max} ms"),
            );
        }
        (min, max.max(min))
    }

    /// The client ports: those of this member's server line, else those of the file.
    fn listeners(
        &mut self,
        ensemble: &EnsembleConfig,
        my_id: Option<u64>,
    ) -> (Option<Listener>, Option<Listener>) {
        let settings = self.settings;
        // A file with one server line is about this machine even when nobody wrote a myid file.
        let only = Some(&ensemble.members)
            .filter(|members| members.len() == 1)
            .and_then(|all| all.values().next());
        let own = match my_id {
            Some(id) => ensemble.members.get(&id),
            None => only,
        };
        let plain = self.listener("clientPort", "clientPortAddress");
        let plain = self.reconcile("clientPort", plain, own, |member| member.client.as_ref());
        let secure = self.listener("secureClientPort", "secureClientPortAddress");
        let secure =
            self.reconcile("secureClientPort", secure, own, |member| member.secure_client.as_ref());
        if let Some(secure) = &secure
            && plain.is_none()
            && !settings.is_set("clientPort")
        {
            self.error(
                "clientPort",
                format!("clients could connect only at {secure} with TLS, which is not supported yet; set clientPort"),
            );
        } else if plain.is_none()
            && !settings.is_set("clientPort")
            && !settings.is_set("clientPortAddress")
        {
            self.error("clientPort", "not set; no client could connect");
        }
        if let (Some(plain), Some(secure)) = (&plain, &secure)
            && plain.port == secure.port
            && plain.port != 0
        {
            self.error("secureClientPort", "clientPort and secureClientPort are the same");
        }
        (plain, secure)
    }

    fn listener(&mut self, port_key: &'static str, address_key: &'static str) -> Option<Listener> {
        let host = self.settings.text(address_key);
        match self.settings.port(port_key) {
            Some(port) => Some(Listener { host, port }),
            None => {
                // A port that is set and wrong is reported already.
                if host.is_some() && !self.settings.is_set(port_key) {
                    self.error(address_key, format!("set, but {port_key} is not"));
                }
                None
            }
        }
    }

    /// `QuorumPeerConfig.setupClientPort`: a server line goes before the file and must not
    /// contradict it.
    fn reconcile(
        &mut self,
        key: &str,
        from_file: Option<Listener>,
        own: Option<&Member>,
        of_member: fn(&Member) -> Option<&Listener>,
    ) -> Option<Listener> {
        let Some((member, of_line)) = own.and_then(|member| Some((member, of_member(member)?)))
        else {
            return from_file;
        };
        if let Some(of_file) = &from_file {
            let differs = of_file.port != of_line.port
                || (!of_file.is_any_address() && of_file.host != of_line.host);
            if differs {
                let message =
                    format!("says {of_file}, but the line of server.{} says {of_line}", member.id);
                self.error(key, message);
            }
        }
        Some(of_line.clone())
    }

    fn same_port(&mut self, client: Option<&Listener>, metrics: &MetricsConfig) {
        if let (Some(client), Some(http)) = (client, &metrics.http)
            && client.port == http.port
            && client.port != 0
            && (client.is_any_address() || http.is_any_address() || client.host == http.host)
        {
            let message = format!("port {} is the client port too", http.port);
            self.error("metricsProvider.httpPort", message);
        }
    }

    fn four_letter_words(&mut self) -> FourLetterWhitelist {
        const KEY: &str = "4lw.commands.whitelist";
        let mut words = BTreeSet::from(["srvr"]);
        let listed = self.settings.list(KEY);
        if !self.settings.is_set(KEY) {
            words.extend(PADDOCK_WORDS);
        }
        let known = || FOUR_LETTER_WORDS.iter().chain(&PADDOCK_WORDS);
        // Upstream, and only upstream's clients in read-only mode need it.
        if self.settings.bool("readonlymode.enabled") {
            words.insert("isro");
        }
        for word in listed {
            if word == "*" {
                words.extend(known());
            } else if let Some(known) = known().find(|known| **known == word) {
                words.insert(known);
            } else {
                let source = self.settings.source(KEY);
                self.diagnostics.push(Diagnostic {
                    severity: Severity::Warning,
                    file: source.file,
                    line: source.line,
                    key: Some(KEY.to_owned()),
                    message: format!(
                        "`{word}` is no four-letter word; known: {}",
                        known().copied().collect::<Vec<_>>().join(", ")
                    ),
                    suggestion: nearest(&word, known().copied()).map(str::to_owned),
                });
            }
        }
        FourLetterWhitelist::new(words)
    }

    fn limits(&self) -> Limits {
        let settings = self.settings;
        let nonzero = |key| settings.optional_u32(key).filter(|number| *number > 0);
        let weighted = settings.bool("connection_throttle_weight_enabled");
        let weight = |key| {
            let tokens = settings.u32(key);
            if weighted { tokens } else { 1 }
        };
        let global_session_weight = weight("connection_throttle_global_session_weight");
        let throttle = ConnectionThrottle {
            tokens: settings.u32("connection_throttle_tokens"),
            fill_time_ms: settings.u32("connection_throttle_fill_time"),
            fill_count: settings
                .u32("connection_throttle_fill_count")
                .saturating_mul(global_session_weight),
            freeze_time_ms: settings.optional_u32("connection_throttle_freeze_time"),
            drop_increase: settings.float("connection_throttle_drop_increase"),
            drop_decrease: settings.float("connection_throttle_drop_decrease"),
            decrease_ratio: settings.float("connection_throttle_decrease_ratio"),
            global_session_weight,
            local_session_weight: weight("connection_throttle_local_session_weight"),
            renew_session_weight: weight("connection_throttle_renew_session_weight"),
        };
        Limits {
            max_client_cnxns: nonzero("maxClientCnxns"),
            max_cnxns: nonzero("maxCnxns"),
            jute_max_buffer_bytes: settings.u32("jute.maxbuffer"),
            global_outstanding_limit: settings.u32("globalOutstandingLimit"),
            large_request_max_bytes: settings.u32("largeRequestMaxBytes"),
            large_request_threshold_bytes: nonzero("largeRequestThreshold"),
            connection_throttle: Some(throttle).filter(|throttle| throttle.tokens > 0),
        }
    }

    /// A number that ZooKeeper raises to the least it can work with.
    fn raised(&mut self, key: &'static str, least: u32) -> u32 {
        let number = self.settings.u32(key);
        if self.settings.int(key).is_some_and(|number| number < i64::from(least)) {
            self.warning(key, format!("counts as {least}, the least allowed"));
        }
        number.max(least)
    }

    fn storage(&mut self) -> StorageConfig {
        let settings = self.settings;
        let force_sync = settings.bool("forceSync");
        if !force_sync {
            self.warning(
                "forceSync",
                "replies leave before data is on disk: a crash can lose acknowledged writes",
            );
        }
        let purge_interval_ms = Some(settings.u64("autopurge.purgeInterval")).filter(|ms| *ms > 0);
        if purge_interval_ms.is_none() && settings.is_set("autopurge.purgeInterval") {
            let message = "purging is off: the transaction log grows until the disk is full";
            let source = settings.source("autopurge.purgeInterval");
            self.report(Severity::Note, source, Some("autopurge.purgeInterval"), message);
        }
        StorageConfig {
            snap_count: self.raised("snapCount", 2),
            snap_size_limit_bytes: Some(settings.u64("snapSizeLimitInKb"))
                .filter(|kb| *kb > 0)
                .map(|kb| kb.saturating_mul(1024)),
            pre_alloc_size_bytes: settings.u64("preAllocSize").saturating_mul(1024),
            force_sync,
            fsync_warning_threshold_ms: settings.u64("fsync.warningthresholdms"),
            digest_enabled: settings.bool("digest.enabled"),
            purge_interval_ms,
        }
    }

    fn auth(&mut self) -> AuthConfig {
        let settings = self.settings;
        let mut providers = Vec::new();
        for (key, name, setting) in settings.under("authProvider.*") {
            let class_name = setting.raw.clone();
            let builtin = class_name.strip_prefix("org.apache.zookeeper.server.auth.");
            let message = match builtin {
                Some(
                    "DigestAuthenticationProvider"
                    | "IPAuthenticationProvider"
                    | "EnsembleAuthenticationProvider"
                    | "KeyAuthenticationProvider",
                ) => None,
                Some("SASLAuthenticationProvider") => Some(later(Feature::Sasl)),
                Some("X509AuthenticationProvider") => Some(later(Feature::Tls)),
                Some(_) | None => Some(
                    "no effect in Paddock: it names a Java class that cannot be loaded".to_owned(),
                ),
            };
            if let Some(message) = message {
                self.report(Severity::Warning, setting.source.clone(), Some(key), message);
            }
            providers.push(AuthProvider { name: name.to_owned(), class_name });
        }
        let super_digest = settings.text("DigestAuthenticationProvider.superDigest");
        if super_digest.as_deref().is_some_and(|digest| !is_digest_id(digest)) {
            let message =
                "not of the form user:base64(sha1(user:password)), so no password matches it";
            self.warning("DigestAuthenticationProvider.superDigest", message);
        }
        let enforce_enabled = settings.bool("enforce.auth.enabled");
        let enforce_schemes = settings.list("enforce.auth.schemes");
        if enforce_enabled && enforce_schemes.is_empty() {
            let message = "no client could get in: name the schemes in enforce.auth.schemes";
            self.error("enforce.auth.enabled", message);
        }
        let skip_acl = settings.bool("skipACL");
        if skip_acl {
            self.warning("skipACL", "every client may do everything");
        }
        AuthConfig {
            skip_acl,
            super_digest: super_digest.map(Secret::new),
            digest_enabled: settings.bool("DigestAuthenticationProvider.enabled"),
            digest_algorithm: settings
                .text("DigestAuthenticationProvider.digestAlg")
                .unwrap_or_else(|| "SHA1".to_owned()),
            providers,
            enforce_enabled,
            enforce_schemes,
            ensemble_auth_names: settings.list("ensembleAuthName"),
        }
    }

    fn metrics(&mut self) -> MetricsConfig {
        const CLASS: &str = "metricsProvider.className";
        const PORT: &str = "metricsProvider.httpPort";
        let settings = self.settings;
        let named = settings.is_set(CLASS);
        let class_name = settings.text(CLASS).unwrap_or_default();
        let provider = match class_name.as_str() {
            PROMETHEUS_PROVIDER => MetricsProvider::Prometheus,
            NULL_PROVIDER => MetricsProvider::Null,
            DEFAULT_PROVIDER if !named && settings.is_set(PORT) => MetricsProvider::Prometheus,
            DEFAULT_PROVIDER => MetricsProvider::Default,
            _ => {
                let known = [PROMETHEUS_PROVIDER, DEFAULT_PROVIDER, NULL_PROVIDER];
                let source = settings.source(CLASS);
                self.diagnostics.push(Diagnostic {
                    severity: Severity::Warning,
                    file: source.file,
                    line: source.line,
                    key: Some(CLASS.to_owned()),
                    message: format!(
                        "no effect in Paddock: a Java class cannot be loaded; known: {}",
                        known.join(", ")
                    ),
                    suggestion: nearest(&class_name, known).map(str::to_owned),
                });
                MetricsProvider::Default
            }
        };
        let http_host = settings.text("metricsProvider.httpHost");
        let http = settings.port(PORT).map(|port| Listener { host: http_host, port });
        let prometheus = provider == MetricsProvider::Prometheus;
        if !prometheus && settings.is_set(PORT) {
            self.warning(PORT, format!("no effect: metricsProvider.className is {class_name}"));
        }
        MetricsConfig {
            provider,
            http: http.filter(|_| prometheus),
            https_port: settings.port("metricsProvider.httpsPort"),
            tls: TlsStores {
                key_store: StoreFile {
                    location: settings
                        .text("metricsProvider.ssl.keyStore.location")
                        .map(PathBuf::from),
                    password: settings
                        .text("metricsProvider.ssl.keyStore.password")
                        .map(Secret::new),
                    password_path: None,
                    store_type: settings.text("metricsProvider.ssl.keyStore.type"),
                },
                trust_store: StoreFile {
                    location: settings
                        .text("metricsProvider.ssl.trustStore.location")
                        .map(PathBuf::from),
                    password: settings
                        .text("metricsProvider.ssl.trustStore.password")
                        .map(Secret::new),
                    password_path: None,
                    store_type: settings.text("metricsProvider.ssl.trustStore.type"),
                },
                protocol: None,
                enabled_protocols: settings.list("metricsProvider.ssl.enabledProtocols"),
                cipher_suites: settings.list("metricsProvider.ssl.ciphersuites"),
            },
            need_client_auth: settings.bool("metricsProvider.ssl.need.client.auth"),
            want_client_auth: settings.bool("metricsProvider.ssl.want.client.auth"),
        }
    }

    /// Reads the membership lines and everything that belongs to them.
    fn ensemble(&mut self, sources: &Sources) -> EnsembleConfig {
        let settings = self.settings;
        let multi_address_enabled = settings.bool("multiAddress.enabled");
        let mut members = BTreeMap::new();
        for (key, id, setting) in settings.under("server.*") {
            let Some(id) = self.line_number(key, id, &setting.source) else { continue };
            match Member::parse(id, &setting.raw, multi_address_enabled) {
                Ok(member) => {
                    if members.insert(id, member).is_some() {
                        self.report(
                            Severity::Error,
                            setting.source.clone(),
                            Some(key),
                            "this member is listed twice",
                        );
                    }
                }
                Err(error) => self.report(
                    Severity::Error,
                    setting.source.clone(),
                    Some(key),
                    error.to_string(),
                ),
            }
        }
        let mut groups: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
        for (key, id, setting) in settings.under("group.*") {
            let Some(id) = self.line_number(key, id, &setting.source) else { continue };
            let Some(ids) = parse_group(&setting.raw) else {
                let message =
                    format!("`{}` is not a list of server ids such as 1:2:3", setting.raw);
                self.report(Severity::Error, setting.source.clone(), Some(key), message);
                continue;
            };
            let mut group = BTreeSet::new();
            for server in ids {
                let message = if groups.values().any(|other| other.contains(&server)) {
                    format!("server {server} is in two groups")
                } else if !group.insert(server) {
                    format!("server {server} is in the group twice")
                } else {
                    continue;
                };
                self.report(Severity::Error, setting.source.clone(), Some(key), message);
            }
            if groups.contains_key(&id) {
                let message = "this group is listed twice";
                self.report(Severity::Error, setting.source.clone(), Some(key), message);
            }
            groups.entry(id).or_default().extend(group);
        }
        let mut weights = BTreeMap::new();
        for (key, id, setting) in settings.under("weight.*") {
            let Some(id) = self.line_number(key, id, &setting.source) else { continue };
            if let Ok(weight) = setting.raw.parse() {
                weights.insert(id, weight);
            }
        }
        let dynamic = settings.text("dynamicConfigFile");
        let version_name =
            sources.dynamic_file.as_ref().map(|file| file.name.clone()).or_else(|| dynamic.clone());
        let init_limit_ticks = settings.u32("initLimit");
        let connect_limit = settings.u32("connectToLearnerMasterLimit");
        let sasl = QuorumSaslConfig {
            enabled: settings.bool("quorum.auth.enableSasl"),
            server_required: settings.bool("quorum.auth.serverRequireSasl"),
            learner_required: settings.bool("quorum.auth.learnerRequireSasl"),
            learner_login_context: settings
                .text("quorum.auth.learner.saslLoginContext")
                .unwrap_or_default(),
            server_login_context: settings
                .text("quorum.auth.server.saslLoginContext")
                .unwrap_or_default(),
            service_principal: settings
                .text("quorum.auth.kerberos.servicePrincipal")
                .unwrap_or_default(),
        };
        if sasl.server_required && !sasl.enabled {
            self.error("quorum.auth.serverRequireSasl", "needs quorum.auth.enableSasl=true");
        }
        if sasl.learner_required && !sasl.enabled {
            self.error("quorum.auth.learnerRequireSasl", "needs quorum.auth.enableSasl=true");
        }
        if sasl.server_required && !sasl.learner_required {
            self.error(
                "quorum.auth.serverRequireSasl",
                "needs quorum.auth.learnerRequireSasl=true",
            );
        }
        let mut snapshot_size_factor = settings.float("snapshotSizeFactor");
        if snapshot_size_factor > 1.0 {
            self.warning("snapshotSizeFactor", "counts as 0.33, the default: it must not exceed 1");
            snapshot_size_factor = 0.33;
        }
        // Read for its check alone: there is only one algorithm.
        settings.int("electionAlg");
        let observer = |text: Option<String>| match text.as_deref() {
            Some("observer") => Role::Observer,
            Some(_) | None => Role::Participant,
        };
        EnsembleConfig {
            members,
            groups,
            weights,
            version: version_name.as_deref().and_then(dynamic_file_version).unwrap_or(0),
            dynamic_config_file: dynamic.map(PathBuf::from),
            proposed: None, // a file of its own
            standalone_enabled: settings.bool("standaloneEnabled"),
            reconfig_enabled: settings.bool("reconfigEnabled"),
            init_limit_ticks,
            sync_limit_ticks: settings.u32("syncLimit"),
            connect_to_learner_master_limit_ticks: if connect_limit == 0 {
                init_limit_ticks
            } else {
                connect_limit
            },
            quorum_listen_on_all_ips: settings.bool("quorumListenOnAllIPs"),
            peer_type: observer(settings.text("peerType")),
            observer_master_port: settings.port("observerMasterPort").filter(|port| *port > 0),
            observer_reconnect_delay_ms: settings.u64("observer.reconnectDelayMs"),
            observer_election_delay_ms: settings.u64("observer.election.DelayMs"),
            local_sessions_enabled: settings.bool("localSessionsEnabled"),
            local_sessions_upgrading_enabled: settings.bool("localSessionsUpgradingEnabled"),
            oracle_path: settings.text("oraclePath").map(PathBuf::from),
            multi_address_enabled,
            multi_address_reachability_check_enabled: settings
                .bool("multiAddress.reachabilityCheckEnabled"),
            multi_address_reachability_check_timeout_ms: settings
                .u32("multiAddress.reachabilityCheckTimeoutMs"),
            ssl_quorum: settings.bool("sslQuorum"),
            port_unification: settings.bool("portUnification"),
            ssl_quorum_reload_cert_files: settings.bool("sslQuorumReloadCertFiles"),
            quorum_sasl: sasl,
            cnx_timeout_ms: settings.u32("cnxTimeout"),
            quorum_cnxn_timeout_ms: settings.optional_u32("quorumCnxnTimeoutMs"),
            election_port_bind_retry: settings
                .optional_u32("electionPortBindRetry")
                .filter(|attempts| *attempts > 0),
            tcp_keep_alive: settings.bool("tcpKeepAlive"),
            min_notification_interval_ms: settings.u32("fastleader.minNotificationInterval"),
            max_notification_interval_ms: settings.u32("fastleader.maxNotificationInterval"),
            leader_serves: settings.bool("leaderServes"),
            leader_max_concurrent_snap_syncs: settings.u32("leader.maxConcurrentSnapSyncs"),
            leader_connect_delay_during_retry_ms: settings.u32("leaderConnectDelayDuringRetryMs"),
            commit_log_count: self.raised("commitLogCount", 500),
            snapshot_size_factor,
            force_snapshot_sync: settings.bool("forceSnapshotSync"),
            db_autocreate: settings.bool("db.autocreate"),
        }
    }

    /// The N of `server.N`.
    fn line_number(&mut self, key: &str, text: &str, source: &Source) -> Option<u64> {
        let id = text.parse::<u64>().ok().filter(|id| i64::try_from(*id).is_ok());
        if id.is_none() {
            let message = format!("`{text}` is not a whole number; allowed: 0 or more");
            self.report(Severity::Error, source.clone(), Some(key), message);
        }
        id
    }

    /// The checks of `QuorumPeerConfig.parseDynamicConfig` and `checkValidity`, and what this
    /// version cannot do yet.
    fn membership(&mut self, ensemble: &EnsembleConfig, my_id: Option<u64>, sources: &Sources) {
        let voters: Vec<&Member> = ensemble.voters().collect();
        let observers = ensemble.members.len() - voters.len();
        let first = ensemble.members.values().next().map_or_else(String::new, Member::key);
        if voters.is_empty() && observers > 0 {
            self.error(&first, "there are observers but no participants");
        } else if voters.is_empty() && !ensemble.standalone_enabled {
            self.error(
                "standaloneEnabled",
                "with standaloneEnabled=false at least one server line is needed",
            );
        } else if voters.len() == 1 && ensemble.standalone_enabled && observers > 0 {
            self.error(&first, "one participant with observers needs standaloneEnabled=false");
        } else if ensemble.is_hierarchical() {
            self.groups(ensemble);
        } else if voters.len() == 2 {
            self.warning(
                &first,
                "with two participants no failure is tolerated; three are needed for that",
            );
        } else if voters.len() > 2 && voters.len().is_multiple_of(2) {
            let message = format!(
                "{} participants tolerate no more failures than {}",
                voters.len(),
                voters.len() - 1
            );
            self.warning(&first, message);
        }
        if ensemble.is_distributed() {
            self.limits_between_members(ensemble);
            self.identities(ensemble);
            self.addresses(ensemble);
            self.keys_between_members(ensemble);
            self.own_membership(ensemble, my_id, sources);
        } else {
            if let (Some(id), Some(only)) = (my_id, ensemble.members.keys().next())
                && *only != id
            {
                self.warning(
                    &first,
                    format!("the only server line, while the myid file says {id}"),
                );
            }
            self.unused_ensemble_keys();
        }
    }

    /// The checks of `QuorumHierarchical`, and of what it would fail over without a word.
    fn groups(&mut self, ensemble: &EnsembleConfig) {
        let in_group = |id| ensemble.groups.values().any(|group| group.contains(&id));
        let role = |id| ensemble.members.get(&id).map(|member| member.role);
        let stranger = |id| match role(id) {
            Some(Role::Participant) => None,
            Some(Role::Observer) => Some(format!("server {id} is an observer")),
            None => Some(format!("there is no line server.{id}")),
        };
        let mut sound = true;
        for member in ensemble.voters().filter(|member| !in_group(member.id)) {
            let message = "with groups or weights every participant must be in a group";
            self.error(&member.key(), message);
            sound = false;
        }
        for (group, ids) in &ensemble.groups {
            let key = format!("group.{group}");
            for id in ids {
                let Some(who) = stranger(*id) else { continue };
                if ensemble.weights.contains_key(id) {
                    let message =
                        format!("{who}: its weight is missing in every quorum; take it out");
                    self.warning(&key, message);
                } else {
                    self.error(&key, format!("{who}; only participants belong into groups"));
                    sound = false;
                }
            }
            let total: u128 =
                ids.iter().map(|id| u128::from(ensemble.weight(*id).unwrap_or(0))).sum();
            if i64::try_from(total).is_err() {
                self.error(&key, format!("its members weigh {total}; allowed: {}", i64::MAX));
                sound = false;
            }
        }
        for id in ensemble.weights.keys().filter(|id| !in_group(**id)) {
            if let Some(who) = stranger(*id) {
                self.warning(&format!("weight.{id}"), format!("no effect: {who}"));
            }
        }
        if !sound {
            return;
        }
        // Where there is no group every participant has been reported.
        let Some(first) = ensemble.groups.keys().next().map(|group| format!("group.{group}"))
        else {
            return;
        };
        match ensemble.tolerated_failures() {
            None => self.error(
                &first,
                "no quorum is possible: more than half of the groups need participants with more \
                 than half of their weight, which must not be 0",
            ),
            Some(0) => self.warning(
                &first,
                "no failure is tolerated: without one of the participants there is no quorum",
            ),
            Some(_) => {}
        }
    }

    fn limits_between_members(&mut self, ensemble: &EnsembleConfig) {
        for (key, value) in
            [("initLimit", ensemble.init_limit_ticks), ("syncLimit", ensemble.sync_limit_ticks)]
        {
            if value == 0 {
                self.error(key, "not set; an ensemble needs it");
            }
        }
        let (min, max) =
            (ensemble.min_notification_interval_ms, ensemble.max_notification_interval_ms);
        if min > max {
            self.error(
                "fastleader.minNotificationInterval",
                format!("{min} ms exceeds fastleader.maxNotificationInterval, {max} ms"),
            );
        }
        const READ_ONLY: &str = "readonlymode.enabled";
        if self.settings.bool(READ_ONLY) && !ensemble.local_sessions_enabled {
            let message =
                "without localSessionsEnabled=true no client gets a session in read-only mode";
            self.warning(READ_ONLY, message);
        }
        if !ensemble.db_autocreate {
            self.warning(
                "db.autocreate",
                "an empty member without the file `initialize` in dataDir refrains from voting only \
                 once another member shows data",
            );
        }
    }

    /// Ids end up in the first byte of session ids: two members with the same byte would give the
    /// same ids to their sessions.
    fn identities(&mut self, ensemble: &EnsembleConfig) {
        let mut bytes: BTreeMap<u64, u64> = BTreeMap::new();
        for member in ensemble.members.values() {
            if let Some(other) = bytes.insert(member.id & 0xff, member.id) {
                let message = format!(
                    "its sessions would have the ids of those of server.{other}: use ids from 1 to 255"
                );
                self.error(&member.key(), message);
            } else if member.id > 255 {
                self.warning(&member.key(), "the id is not between 1 and 255");
            }
        }
    }

    /// Every port of every member is its own.
    fn addresses(&mut self, ensemble: &EnsembleConfig) {
        let mut taken: BTreeMap<(String, u16), String> = BTreeMap::new();
        for member in ensemble.members.values() {
            let mut ports = Vec::new();
            for address in &member.addresses {
                ports.push((&address.host, address.quorum_port, "quorum port"));
                ports.push((&address.host, address.election_port, "election port"));
            }
            if let Some(first) = member.addresses.first() {
                let mut client = |listener: Option<&Listener>, what| {
                    // A client address of its own says nothing about which machine it is on.
                    let here = listener.filter(|client| {
                        client.is_any_address() || client.host.as_ref() == Some(&first.host)
                    });
                    ports.extend(here.map(|client| (&first.host, client.port, what)));
                };
                client(member.client.as_ref(), "client port");
                client(member.secure_client.as_ref(), "secure client port");
            }
            for (host, port, what) in ports {
                let owner = format!("the {what} of {}", member.key());
                let place = (host.to_ascii_lowercase(), port);
                if let Some(other) = taken.insert(place, owner.clone()) {
                    let message = format!("{host}:{port} is {other} and {owner}");
                    self.error(&member.key(), message);
                }
            }
        }
    }

    /// What is not there yet, or not needed: the graver, the louder.
    fn keys_between_members(&mut self, ensemble: &EnsembleConfig) {
        let mut waiting: BTreeMap<(bool, Feature), Vec<(&str, &Source)>> = BTreeMap::new();
        let settings = self.settings;
        for (key, setting) in settings.asking_between_members() {
            match setting.info.status {
                Status::Honoured => {}
                Status::NoEffect(reason) => {
                    let message = format!("no effect in Paddock: {reason}");
                    self.report(Severity::Warning, setting.source.clone(), Some(key), message);
                }
                Status::Later(feature) => {
                    let refused = setting.info.restricts && ensemble.has_peers();
                    waiting.entry((refused, feature)).or_default().push((key, &setting.source));
                }
            }
        }
        for ((refused, feature), keys) in waiting {
            let mut keys = keys.into_iter();
            let Some((first, source)) = keys.next() else { continue };
            let mut message = if refused {
                format!(
                    "not supported yet, it comes with {}; starting without it would trust everybody \
                     who reaches the quorum ports",
                    feature.comes_with()
                )
            } else {
                later(feature)
            };
            let others: Vec<&str> = keys.map(|(key, _)| key).collect();
            if !others.is_empty() {
                message.push_str(&format!(" (and with it {})", others.join(", ")));
            }
            let severity = if refused { Severity::Error } else { Severity::Warning };
            self.report(severity, source.clone(), Some(first), message);
        }
    }

    /// Which of the members this is.
    fn own_membership(&mut self, ensemble: &EnsembleConfig, my_id: Option<u64>, sources: &Sources) {
        let place = |line| Source { file: sources.my_id_name(), line };
        let Some(id) = my_id else {
            // A file that is there and wrong, or that cannot be read, is reported already.
            if sources.my_id.is_none() && !sources.my_id_unreadable {
                let message = "the file is missing; write the number N of this machine's server.N line into it";
                self.report(Severity::Error, place(None), None, message);
            }
            return;
        };
        let Some(member) = ensemble.members.get(&id) else {
            let lines: Vec<String> = ensemble.members.values().map(Member::key).collect();
            let mut message = format!(
                "it says {id}, but there is no line server.{id}; there are {}",
                lines.join(", ")
            );
            if let Some(dynamic) = &sources.dynamic_file {
                message.push_str(&format!(
                    ". If a reconfiguration has removed this server and it is to join again, add its line to {}",
                    dynamic.name
                ));
            }
            self.report(Severity::Error, place(Some(1)), None, message);
            return;
        };
        if member.role != ensemble.peer_type {
            let (is, says) = (member.role.as_str(), ensemble.peer_type.as_str());
            if self.settings.is_set("peerType") {
                let message =
                    format!("says {says}, but the line of server.{id} says {is}: the line counts");
                self.warning("peerType", message);
            } else {
                let message = format!("ZooKeeper wants peerType={is} beside this line");
                self.report(
                    Severity::Note,
                    self.settings.source(&member.key()),
                    Some(&member.key()),
                    message,
                );
            }
        }
        let voters = ensemble.voters().count();
        let observers = ensemble.members.len() - voters;
        let count = |number: usize, what: &str| match number {
            1 => format!("1 {what}"),
            _ => format!("{number} {what}s"), // the plural
        };
        let mut message = format!("an ensemble of {}", count(voters, "participant"));
        if ensemble.is_hierarchical() {
            message.push_str(&format!(" in {}", count(ensemble.groups.len(), "group")));
        }
        if observers > 0 {
            message.push_str(&format!(" and {}", count(observers, "observer")));
        }
        message.push_str(&format!(
            ", of which {} may fail; this is server.{id}, {}",
            match ensemble.tolerated_failures().unwrap_or(0) {
                0 => "none".to_owned(),
                spare => count(spare, "participant"),
            },
            match member.role {
                Role::Participant if ensemble.weight(member.id) == Some(0) => {
                    "a participant without weight, which is never elected"
                }
                Role::Participant => "a participant",
                Role::Observer => "an observer",
            }
        ));
        self.report(Severity::Note, self.settings.source(""), None, message);
    }

    /// One note for all keys that matter between members, as ZooKeeper ignores them silently when
    /// alone.
    fn unused_ensemble_keys(&mut self) {
        let unused: Vec<&str> = self
            .settings
            .asking_between_members()
            .filter(|(_, setting)| !matches!(setting.info.name, "server.*" | "dynamicConfigFile"))
            .map(|(key, _)| key)
            .collect();
        if !unused.is_empty() {
            let message = format!("used only in an ensemble: {}", unused.join(", "));
            self.report(Severity::Note, self.settings.source(""), None, message);
        }
    }
}

fn later(feature: Feature) -> String {
    format!("no effect yet, it comes with {}", feature.comes_with())
}

/// `user:` and the 28 characters of a base64 SHA-1.
fn is_digest_id(text: &str) -> bool {
    text.split_once(':').is_some_and(|(_, hash)| {
        let body = hash.strip_suffix('=').unwrap_or(hash);
        hash.len() == 28
            && body.len() == 27
            && body.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/')
    })
}

fn tree(settings: &Settings) -> TreeConfig {
    TreeConfig {
        extended_types_enabled: settings.bool("extendedTypesEnabled"),
        enforce_quota: settings.bool("enforceQuota"),
        eager_acl_check: settings.bool("enableEagerACLCheck"),
        container_check_interval_ms: settings.u32("znode.container.checkIntervalMs"),
        container_max_per_minute: settings.u32("znode.container.maxPerMinute"),
        container_max_never_used_interval_ms: Some(
            settings.u64("znode.container.maxNeverUsedIntervalMs"),
        )
        .filter(|ms| *ms > 0),
    }
}

/// The keys of one TLS endpoint, spelled out because each must be findable in this file.
struct TlsKeys {
    key_store: [&'static str; 4],
    trust_store: [&'static str; 4],
    protocol: &'static str,
    enabled_protocols: &'static str,
    cipher_suites: &'static str,
    client_auth: &'static str,
    hostname_verification: &'static str,
    client_hostname_verification: &'static str,
    allow_reverse_dns_lookup: &'static str,
    crl: &'static str,
    ocsp: &'static str,
    handshake_detection_timeout: &'static str,
}

const CLIENT_TLS: TlsKeys = TlsKeys {
    key_store: [
        "ssl.keyStore.location",
        "ssl.keyStore.password",
        "ssl.keyStore.passwordPath",
        "ssl.keyStore.type",
    ],
    trust_store: [
        "ssl.trustStore.location",
        "ssl.trustStore.password",
        "ssl.trustStore.passwordPath",
        "ssl.trustStore.type",
    ],
    protocol: "ssl.protocol",
    enabled_protocols: "ssl.enabledProtocols",
    cipher_suites: "ssl.ciphersuites",
    client_auth: "ssl.clientAuth",
    hostname_verification: "ssl.hostnameVerification",
    client_hostname_verification: "ssl.clientHostnameVerification",
    allow_reverse_dns_lookup: "ssl.allowReverseDnsLookup",
    crl: "ssl.crl",
    ocsp: "ssl.ocsp",
    handshake_detection_timeout: "ssl.handshakeDetectionTimeoutMillis",
};

const QUORUM_TLS: TlsKeys = TlsKeys {
    key_store: [
        "ssl.quorum.keyStore.location",
        "ssl.quorum.keyStore.password",
        "ssl.quorum.keyStore.passwordPath",
        "ssl.quorum.keyStore.type",
    ],
    trust_store: [
        "ssl.quorum.trustStore.location",
        "ssl.quorum.trustStore.password",
        "ssl.quorum.trustStore.passwordPath",
        "ssl.quorum.trustStore.type",
    ],
    protocol: "ssl.quorum.protocol",
    enabled_protocols: "ssl.quorum.enabledProtocols",
    cipher_suites: "ssl.quorum.ciphersuites",
    client_auth: "ssl.quorum.clientAuth",
    hostname_verification: "ssl.quorum.hostnameVerification",
    client_hostname_verification: "ssl.quorum.clientHostnameVerification",
    allow_reverse_dns_lookup: "ssl.quorum.allowReverseDnsLookup",
    crl: "ssl.quorum.crl",
    ocsp: "ssl.quorum.ocsp",
    handshake_detection_timeout: "ssl.quorum.handshakeDetectionTimeoutMillis",
};

fn tls_endpoint(settings: &Settings, keys: &TlsKeys) -> TlsEndpoint {
    let store = |[location, password, password_path, store_type]: [&'static str; 4]| StoreFile {
        location: settings.text(location).map(PathBuf::from),
        password: settings.text(password).map(Secret::new),
        password_path: settings.text(password_path).map(PathBuf::from),
        store_type: settings.text(store_type),
    };
    TlsEndpoint {
        stores: TlsStores {
            key_store: store(keys.key_store),
            trust_store: store(keys.trust_store),
            protocol: settings.text(keys.protocol),
            enabled_protocols: settings.list(keys.enabled_protocols),
            cipher_suites: settings.list(keys.cipher_suites),
        },
        client_auth: match settings.text(keys.client_auth).as_deref() {
            Some("none") => ClientAuth::None,
            Some("want") => ClientAuth::Want,
            Some(_) | None => ClientAuth::Need,
        },
        hostname_verification: settings.bool(keys.hostname_verification),
        client_hostname_verification: settings.bool(keys.client_hostname_verification),
        allow_reverse_dns_lookup: settings.bool(keys.allow_reverse_dns_lookup),
        crl: settings.bool(keys.crl),
        ocsp: settings.bool(keys.ocsp),
        handshake_detection_timeout_ms: settings.u32(keys.handshake_detection_timeout),
    }
}

fn tls(settings: &Settings) -> TlsConfig {
    TlsConfig {
        client: tls_endpoint(settings, &CLIENT_TLS),
        quorum: tls_endpoint(settings, &QUORUM_TLS),
        client_port_unification: settings.bool("client.portUnification"),
        client_cert_reload: settings.bool("client.certReload"),
        auth_provider: settings.text("ssl.authProvider").unwrap_or_default(),
        x509_super_user: settings.text("X509AuthenticationProvider.superUser"),
        fips_mode: settings.bool("fips-mode"),
        outstanding_handshake_limit: settings
            .optional_u32("netty.server.outstandingHandshake.limit"),
        early_drop_handshakes: settings.bool("netty.server.earlyDropSecureConnectionHandshakes"),
    }
}

fn sasl(settings: &Settings) -> SaslConfig {
    let further = settings.under("superUser.*").map(|(_, _, setting)| setting.raw.clone());
    SaslConfig {
        required: settings.bool("sessionRequireClientSASLAuth"),
        allow_failed_clients: settings.bool("allowSaslFailedClients"),
        super_users: settings.text("superUser").into_iter().chain(further).collect(),
        let_any_user_do: settings.text("letAnySaslUserDoX"),
        super_password: settings.text("SASLAuthenticationProvider.superPassword").map(Secret::new),
        jaas_file: settings.text("java.security.auth.login.config").map(PathBuf::from),
        server_section: settings.text("sasl.serverconfig").unwrap_or_default(),
        krb5_conf: settings.text("java.security.krb5.conf").map(PathBuf::from),
        require_kerberos_config: settings.bool("requireKerberosConfig"),
        remove_host_from_principal: settings.bool("kerberos.removeHostFromPrincipal"),
        remove_realm_from_principal: settings.bool("kerberos.removeRealmFromPrincipal"),
        canonicalize_host_names: settings.bool("kerberos.canonicalizeHostNames"),
        min_relogin_time_ms: settings.u64("kerberos.minReLoginTimeMs"),
        kinit: settings.text("kinit").unwrap_or_default(),
        auth_to_local: settings.text("security.auth_to_local").unwrap_or_default(),
    }
}

fn admin(settings: &Settings) -> AdminConfig {
    AdminConfig {
        enabled: settings.bool("admin.enableServer"),
        listener: Listener {
            host: settings.text("admin.serverAddress"),
            port: settings.port("admin.serverPort").unwrap_or_default(),
        },
        idle_timeout_ms: settings.u32("admin.idleTimeout"),
        command_url: settings.text("admin.commandURL").unwrap_or_default(),
        port_unification: settings.bool("admin.portUnification"),
        force_https: settings.bool("admin.forceHttps"),
        need_client_auth: settings.bool("admin.needClientAuth"),
        snapshot_enabled: settings.bool("admin.snapshot.enabled"),
        restore_enabled: settings.bool("admin.restore.enabled"),
        rate_limiter_interval_ms: settings.u64("admin.rateLimiterIntervalInMS"),
        use_x_forwarded_for: settings.bool("IPAuthenticationProvider.usexforwardedfor"),
    }
}
