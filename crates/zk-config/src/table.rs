//! The table of every known key.
//!
//! One row says how a key is written, what it holds, its default, what it does and whether Paddock
//! acts on it. The parser, the checks, the suggestions and the table in the documentation all read
//! these rows, so a key is described once.

use crate::key::Kind::{
    self, Bool, Class, Group, Host, Interval, List, Member, OneOf, Path, Secret, Text, YesNo,
};
use crate::key::Origin::{self, Bare, File, Property, PropertyOrBare};
use crate::key::Status::{self, Honoured, Later, NoEffect};
use crate::key::{Feature, I32_MAX, I32_MIN, KeyInfo};

const fn at_least(min: i64) -> Kind {
    Kind::Int { min, max: I32_MAX }
}
const fn long_at_least(min: i64) -> Kind {
    Kind::Int { min, max: i64::MAX }
}
const INT: Kind = Kind::Int { min: I32_MIN, max: I32_MAX };
const LONG: Kind = Kind::Int { min: i64::MIN, max: i64::MAX };
const PORT: Kind = Kind::Int { min: 0, max: 65_535 };
const OPTIONAL_PORT: Kind = Kind::Int { min: -1, max: 65_535 };
const RATIO: Kind = Kind::Float { min: 0.0, max: 1.0 };

const fn row(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    origin: Origin,
    status: Status,
    doc: &'static str,
) -> KeyInfo {
    KeyInfo {
        name,
        kind,
        default,
        origin,
        status,
        doc,
        restricts: false,
        aside: false,
        between_members: false,
    }
}
const fn aside(
    name: &'static str,
    kind: Kind,
    origin: Origin,
    status: Status,
    doc: &'static str,
) -> KeyInfo {
    let mut info = row(name, kind, "", origin, status, doc);
    info.aside = true;
    info
}
const fn restricting(mut info: KeyInfo) -> KeyInfo {
    info.restricts = true;
    info
}

const fn between(mut info: KeyInfo) -> KeyInfo {
    info.between_members = true;
    info
}

const THREADS: Status =
    NoEffect("it sizes a thread pool or buffer of the Java server; Paddock has its own");
const NETTY: Status = NoEffect("Paddock has one connection layer for plain and TLS clients");
const PAUSE: Status = NoEffect("there is no Java virtual machine that could pause");
const CACHE: Status = NoEffect("replies are built from memory fast enough without a cache");
const WATCHES: Status = NoEffect("Paddock has one watch table, compact by design");
const LOGGING: Status = NoEffect("it belongs to Java logging");
const JMX: Status = NoEffect("it belongs to the Java platform (JMX)");
const JVM: Status = NoEffect("it belongs to the Java virtual machine");
const CLIENT: Status = NoEffect("it is a setting of Java clients, not of a server");
const TEST: Status = NoEffect("it is a hook for ZooKeeper's own tests");
const FOLKLORE: Status = NoEffect("ZooKeeper does not read it either, so it protects nothing");
const TRACKER: Status =
    NoEffect("Paddock keeps no ring of recent packets; its logs show them at DEBUG");
const PATH_STATS: Status = NoEffect("Paddock keeps no statistics per path");
const METRICS_QUEUE: Status = NoEffect("metrics are recorded without a queue");
const THROTTLER: Status = NoEffect(
    "no queue of requests can grow: a client whose requests wait is not read (globalOutstandingLimit)",
);
const COMMIT: Status =
    NoEffect("a sync takes every request that waits; nothing is delayed to fill a batch");
const QUORUM_SECURITY: Status = Later(Feature::QuorumSecurity);
const OBSERVER_RING: Status = NoEffect(
    "a follower buffers nothing for observers: it feeds them from the log as a leader does",
);
const ORACLE: Status = Later(Feature::Oracle);
const OBSERVER_DISK: Status = NoEffect("an observer keeps its data on disk as every member does");
const DIFF_SYNCS: Status =
    NoEffect("differences come from memory or straight from the log, for any number of learners");
const EPOCH_WAIT: Status = NoEffect("a leader waits initLimit for a quorum to follow it");
const TLS: Status = Later(Feature::Tls);
const SASL: Status = Later(Feature::Sasl);
const ADMIN: Status = Later(Feature::AdminServer);

const STORES: &[&str] = &["JKS", "PEM", "PKCS12", "BCFKS"];
const CLIENT_AUTH: &[&str] = &["none", "want", "need"];

/// Every known key, in the order of the documentation.
#[rustfmt::skip]
pub const KEYS: &[KeyInfo] = &[
    // Where and how the server listens.
    row("clientPort", PORT, "", File, Honoured, "Port for clients; 0 takes a free one."),
    row("clientPortAddress", Host, "", File, Honoured, "Address to listen on for clients; all addresses when absent."),
    row("clientPortListenBacklog", at_least(-1), "-1", File, Honoured, "Length of the queue of connections not yet accepted; -1 leaves it to the system."),
    row("secureClientPort", PORT, "", File, TLS, "Port for clients that speak TLS."),
    row("secureClientPortAddress", Host, "", File, TLS, "Address to listen on for clients that speak TLS."),
    row("client.portUnification", Bool, "false", Property, TLS, "Serve TLS and plain clients on one port."),
    row("clientTcpKeepAlive", Bool, "false", Property, Honoured, "Set SO_KEEPALIVE on client connections."),
    row("nio.sessionlessCnxnTimeout", at_least(1), "10000", Property, Honoured, "Milliseconds a connection may stay without a session."),
    row("maxClientCnxns", INT, "60", File, Honoured, "Connections allowed from one address; 0 or less for no limit."),
    row("maxCnxns", INT, "0", Property, Honoured, "Connections allowed in all; 0 for no limit."),
    row("4lw.commands.whitelist", List, "", Property, Honoured, "Four-letter words that are answered, or `*`; `srvr` always is, and `quor` while nothing is named."),

    // Time.
    row("tickTime", at_least(1), "3000", File, Honoured, "Milliseconds of a tick, the unit of timeouts."),
    row("minSessionTimeout", at_least(-1), "-1", File, Honoured, "Shortest session timeout in milliseconds; -1 for 2 ticks."),
    row("maxSessionTimeout", at_least(-1), "-1", File, Honoured, "Longest session timeout in milliseconds; -1 for 20 ticks."),

    // Storage.
    row("dataDir", Path, "", File, Honoured, "Folder of the data; required."),
    row("dataLogDir", Path, "", File, Honoured, "Folder of the transaction log; dataDir when absent."),
    row("autopurge.snapRetainCount", INT, "3", File, NoEffect("there is one checkpoint, brought up to date in place; enough log is kept behind it"), "Checkpoints whose transaction log is kept; at least 3."),
    row("autopurge.purgeInterval", Interval, "1", File, Honoured, "0 keeps the transaction log for ever; anything else purges it after checkpoints. Hours, or with ms, s, m, h or d; ZooKeeper's default is 0."),
    row("snapCount", INT, "100000", Property, Honoured, "Transactions between checkpoints; at least 2."),
    row("snapSizeLimitInKb", LONG, "4194304", Property, Honoured, "Kilobytes of log between checkpoints; 0 or less for no limit."),
    row("preAllocSize", long_at_least(0), "65536", Property, Honoured, "Kilobytes of a preallocated piece of the transaction log."),
    row("txnLogSizeLimitInKb", LONG, "-1", Property, NoEffect("the log consists of preallocated segments; preAllocSize sets their size"), "Kilobytes at which the log is rolled."),
    row("forceSync", YesNo, "yes", Property, Honoured, "`no` replies before data is on disk: acknowledged writes can be lost."),
    row("fsync.warningthresholdms", long_at_least(0), "1000", PropertyOrBare, Honoured, "Milliseconds after which a slow sync is logged."),
    row("digest.enabled", Bool, "true", Property, Honoured, "Keep a digest of the tree and compare it."),
    row("datadir.autocreate", Bool, "true", Property, Honoured, "Create the folders when they are missing."),
    between(row("db.autocreate", Bool, "true", Property, Honoured, "`false`: a member that is empty does not vote unless a file `initialize` is in dataDir.")),
    row("flushDelay", long_at_least(0), "0", Property, COMMIT, "Milliseconds a sync may be delayed to gather requests."),
    row("maxWriteQueuePollTime", LONG, "", Property, COMMIT, "Milliseconds to wait for more requests before a sync."),
    row("maxBatchSize", INT, "1000", Property, COMMIT, "Requests after which a sync is due."),
    row("snapshot.compression.method", OneOf(&["", "gz", "snappy"]), "", Property, NoEffect("checkpoints are compressed by the store itself"), "Compression of snapshots."),
    row("snapshot.trust.empty", Bool, "false", Property, NoEffect("logs without a snapshot are imported if they begin with the first transaction, and refused if they do not"), "Accept transaction logs without a snapshot."),
    row("serializeLastProcessedZxid.enabled", Bool, "true", Property, NoEffect("a checkpoint always records the zxid it stands for"), "Write the last zxid into snapshots."),
    row("closeSessionTxn.enabled", Bool, "true", Property, NoEffect("a closeSession transaction always lists the ephemeral nodes it deletes"), "List the deleted nodes in closeSession transactions."),

    // Limits and load control.
    row("jute.maxbuffer", at_least(1), "1048575", Bare, Honoured, "Largest request in bytes; set clients to the same."),
    row("jute.maxbuffer.extrasize", at_least(0), "", Property, NoEffect("what Paddock wrote itself is read back without this limit"), "Bytes allowed above jute.maxbuffer for records written by a server."),
    row("globalOutstandingLimit", at_least(1), "1000", Property, Honoured, "Requests in flight at which reading from busy connections pauses."),
    row("request_throttle_max_requests", INT, "0", Property, THROTTLER, "Requests in the pipeline before new ones stall; 0 for no limit."),
    row("request_throttle_stall_time", at_least(0), "100", Property, THROTTLER, "Longest stall of a request in milliseconds."),
    row("request_throttle_drop_stale", Bool, "true", Property, THROTTLER, "Drop stale requests instead of executing them."),
    row("request_stale_connection_check", Bool, "true", Property, THROTTLER, "A request of a closed connection is stale."),
    row("request_stale_latency_check", Bool, "false", Property, THROTTLER, "A request older than its session's timeout is stale."),
    row("request_throttler.shutdownTimeout", at_least(0), "10000", Property, THROTTLER, "Milliseconds to drain the throttler on shutdown."),
    row("throttled_op_wait_time", INT, "0", Property, THROTTLER, "Milliseconds after which a waiting request fails as throttled; 0 for never."),
    row("largeRequestMaxBytes", at_least(1), "104857600", Property, Honoured, "Bytes of large requests allowed in flight."),
    row("largeRequestThreshold", INT, "-1", Property, Honoured, "Bytes from which a request is large; -1 for none."),
    row("connection_throttle_tokens", at_least(0), "0", Property, Honoured, "Connection tokens in the bucket; 0 for no throttling."),
    row("connection_throttle_fill_time", at_least(1), "1", Property, Honoured, "Milliseconds between refills."),
    row("connection_throttle_fill_count", at_least(1), "1", Property, Honoured, "Tokens of a refill."),
    row("connection_throttle_freeze_time", INT, "-1", Property, Honoured, "Milliseconds between changes of the drop probability; -1 for no dropping."),
    row("connection_throttle_drop_increase", RATIO, "0.02", Property, Honoured, "Growth of the drop probability when the bucket is empty."),
    row("connection_throttle_drop_decrease", RATIO, "0.002", Property, Honoured, "Fall of the drop probability when the bucket is full."),
    row("connection_throttle_decrease_ratio", RATIO, "0", Property, Honoured, "Share of a full bucket from which the drop probability falls."),
    row("connection_throttle_weight_enabled", Bool, "false", Property, Honoured, "Charge new, local and renewed sessions differently."),
    row("connection_throttle_global_session_weight", at_least(1), "3", Property, Honoured, "Tokens of a new session."),
    between(row("connection_throttle_local_session_weight", at_least(1), "1", Property, Honoured, "Tokens of a new local session.")),
    row("connection_throttle_renew_session_weight", at_least(1), "2", Property, Honoured, "Tokens of a renewed session."),

    // The tree.
    row("extendedTypesEnabled", Bool, "false", Property, Honoured, "Allow TTL nodes."),
    row("emulate353TTLNodes", Bool, "false", Property, Later(Feature::Ttl353), "Read TTL nodes written by ZooKeeper 3.5.3."),
    row("enforceQuota", Bool, "false", Property, Honoured, "Refuse what exceeds a hard quota."),
    row("znode.container.checkIntervalMs", at_least(1), "60000", Bare, Honoured, "Milliseconds between searches for dead containers and TTL nodes."),
    row("znode.container.maxPerMinute", at_least(1), "10000", Bare, Honoured, "Containers and TTL nodes deleted in a minute at most."),
    row("znode.container.maxNeverUsedIntervalMs", long_at_least(0), "0", Bare, Honoured, "Milliseconds after which a container that never had a child is deleted; 0 for never."),

    // Access.
    row("skipACL", YesNo, "no", Property, Honoured, "`yes` switches all ACL checks off."),
    row("DigestAuthenticationProvider.superDigest", Secret, "", Property, Honoured, "`user:base64(sha1(user:password))` of the superuser."),
    row("DigestAuthenticationProvider.enabled", Bool, "true", Property, Honoured, "Offer the digest scheme."),
    row("DigestAuthenticationProvider.digestAlg", OneOf(&["SHA1", "SHA-1", "SHA-256", "SHA3-256"]), "SHA1", Property, Honoured, "Hash of the digest scheme."),
    row("authProvider.*", Class, "", Property, Honoured, "Class of a further authentication scheme."),
    between(row("enableEagerACLCheck", Bool, "false", Property, Honoured, "Refuse what ACLs forbid before the leader is asked.")),
    row("enforce.auth.enabled", Bool, "false", Property, Honoured, "Refuse sessions that are not authenticated."),
    row("enforce.auth.schemes", List, "", Property, Honoured, "Schemes of which one is required."),
    restricting(row("sessionRequireClientSASLAuth", Bool, "false", Property, SASL, "Refuse sessions without SASL.")),
    row("ensembleAuthName", List, "", Property, Honoured, "Names by which clients may address this ensemble."),
    row("superUser", Text, "", Property, SASL, "SASL user with all rights; `superUser.N` for more."),
    row("superUser.*", Text, "", Property, SASL, "A further SASL user with all rights."),
    row("X509AuthenticationProvider.superUser", Text, "", Property, TLS, "Certificate subject with all rights."),
    row("allowSaslFailedClients", Bool, "false", Property, SASL, "Keep a connection after failed SASL."),
    row("sasl.serverconfig", Text, "Server", Property, SASL, "JAAS section of the server."),
    row("kerberos.removeHostFromPrincipal", Bool, "false", Property, SASL, "Drop the host from Kerberos identities."),
    row("kerberos.removeRealmFromPrincipal", Bool, "false", Property, SASL, "Drop the realm from Kerberos identities."),
    row("kerberos.canonicalizeHostNames", Bool, "false", Property, SASL, "Use canonical host names between servers."),
    row("kerberos.minReLoginTimeMs", LONG, "60000", Property, SASL, "Milliseconds between Kerberos logins."),
    row("kinit", Path, "/usr/bin/kinit", Property, SASL, "The kinit command."),
    row("security.auth_to_local", Text, "DEFAULT", Property, SASL, "Rules from Kerberos principals to short names."),
    row("letAnySaslUserDoX", Text, "", Property, SASL, "A SASL id that every SASL user matches."),
    row("requireKerberosConfig", Bool, "false", Property, SASL, "Fail without a Kerberos configuration."),
    row("SASLAuthenticationProvider.superPassword", Secret, "", Property, SASL, "Password of the SASL user `super`."),
    row("java.security.auth.login.config", Path, "", Bare, SASL, "JAAS file."),
    row("java.security.krb5.conf", Path, "", Bare, SASL, "Kerberos configuration."),
    row("requireClientAuthScheme", Text, "", Property, FOLKLORE, "Found in many files; not a ZooKeeper key."),
    row("jaasLoginRenew", Text, "", Property, FOLKLORE, "Found in many files; not a ZooKeeper key."),

    // Metrics.
    row("metricsProvider.className", Class, "org.apache.zookeeper.metrics.impl.DefaultMetricsProvider", File, Honoured, "`org.apache.zookeeper.metrics.prometheus.PrometheusMetricsProvider` offers metrics over HTTP."),
    row("metricsProvider.httpHost", Host, "0.0.0.0", File, Honoured, "Address of the Prometheus endpoint."),
    row("metricsProvider.httpPort", OPTIONAL_PORT, "7000", File, Honoured, "Port of the Prometheus endpoint; alone it switches the endpoint on. -1 for none."),
    row("metricsProvider.exportJvmInfo", Bool, "true", File, NoEffect("process figures stand in for those of a Java virtual machine"), "Export figures of the virtual machine."),
    row("metricsProvider.httpsPort", OPTIONAL_PORT, "-1", File, TLS, "TLS port of the Prometheus endpoint."),
    row("metricsProvider.numWorkerThreads", INT, "", File, METRICS_QUEUE, "Threads that record metrics."),
    row("metricsProvider.maxQueueSize", INT, "", File, METRICS_QUEUE, "Queue of metrics."),
    row("metricsProvider.workerShutdownTimeoutMs", LONG, "1000", File, METRICS_QUEUE, "Milliseconds to stop the metric threads."),
    row("metricsProvider.prometheusMetricsSummaryRotateIntervalSeconds", at_least(1), "60", File, NoEffect("quantiles are current at every scrape"), "Seconds between rotations of summaries."),
    row("metricsProvider.httpVersion", INT, "11", File, NoEffect("metrics are served over HTTP/1.1"), "HTTP version of the endpoint."),
    row("metricsProvider.ssl.keyStore.location", Path, "", File, TLS, "Key store of the metrics endpoint."),
    row("metricsProvider.ssl.keyStore.password", Secret, "", File, TLS, "Password of that key store."),
    row("metricsProvider.ssl.keyStore.type", OneOf(STORES), "", File, TLS, "Type of that key store."),
    row("metricsProvider.ssl.trustStore.location", Path, "", File, TLS, "Trust store of the metrics endpoint."),
    row("metricsProvider.ssl.trustStore.password", Secret, "", File, TLS, "Password of that trust store."),
    row("metricsProvider.ssl.trustStore.type", OneOf(STORES), "", File, TLS, "Type of that trust store."),
    row("metricsProvider.ssl.need.client.auth", Bool, "true", File, TLS, "Demand a certificate of scrapers."),
    row("metricsProvider.ssl.want.client.auth", Bool, "true", File, TLS, "Ask scrapers for a certificate."),
    row("metricsProvider.ssl.enabledProtocols", List, "", File, TLS, "TLS versions of the metrics endpoint."),
    row("metricsProvider.ssl.ciphersuites", List, "", File, TLS, "Cipher suites of the metrics endpoint."),

    // The ensemble.
    between(row("server.*", Member, "", File, Honoured, "`server.N=host:quorumPort:electionPort[:role][;[host:]clientPort]`, a member of the ensemble.")),
    between(row("group.*", Group, "", File, Honoured, "`group.N=id:id:...`, a group of hierarchical quorums: those decide that have more than half of the weight in more than half of the groups.")),
    between(row("weight.*", long_at_least(0), "", File, Honoured, "`weight.N=w`, what member N weighs in its group, 1 when absent; 0 for one that never counts and is never elected.")),
    between(row("dynamicConfigFile", Path, "", File, Honoured, "File with the server, group and weight lines.")),
    between(row("standaloneEnabled", Bool, "true", File, Honoured, "`false` runs even a single member as an ensemble.")),
    between(row("reconfigEnabled", Bool, "false", File, Honoured, "Allow dynamic reconfiguration.")),
    between(row("initLimit", at_least(0), "0", File, Honoured, "Ticks a member may take to connect and catch up.")),
    between(row("syncLimit", at_least(0), "0", File, Honoured, "Ticks a member may lag.")),
    between(row("connectToLearnerMasterLimit", at_least(0), "0", File, Honoured, "Ticks to connect to the leader; 0 for initLimit.")),
    between(row("electionAlg", Kind::Int { min: 3, max: 3 }, "3", File, Honoured, "Election algorithm; only 3 exists.")),
    between(row("quorumListenOnAllIPs", Bool, "false", File, Honoured, "Listen for members on all addresses.")),
    between(row("peerType", OneOf(&["participant", "observer"]), "participant", File, Honoured, "Role of this member; the server line decides.")),
    between(row("syncEnabled", Bool, "true", File, OBSERVER_DISK, "Observers keep their data on disk.")),
    between(row("observerMasterPort", INT, "0", File, Honoured, "Port on which followers feed observers, the same on all members; 0 for none.")),
    between(row("localSessionsEnabled", Bool, "false", File, Honoured, "New sessions are known to the member that they came to, and to no other.")),
    between(row("localSessionsUpgradingEnabled", Bool, "false", File, Honoured, "Such a session becomes known to all when it creates an ephemeral znode; otherwise that fails.")),
    between(row("oraclePath", Path, "", File, ORACLE, "File of the oracle that decides between two members.")),
    between(row("multiAddress.enabled", Bool, "false", Property, Honoured, "Allow several addresses for a member, `server.N=host:port:port|host:port:port`.")),
    between(row("multiAddress.reachabilityCheckEnabled", Bool, "true", Property, Honoured, "Give up an election connection to a member with several addresses when what was sent is not acknowledged, and take another address.")),
    between(row("multiAddress.reachabilityCheckTimeoutMs", at_least(0), "1000", Property, Honoured, "After how many milliseconds.")),
    between(restricting(row("sslQuorum", Bool, "false", File, QUORUM_SECURITY, "TLS between members."))),
    between(row("portUnification", Bool, "false", File, QUORUM_SECURITY, "Accept plain and TLS connections of members.")),
    between(row("sslQuorumReloadCertFiles", Bool, "false", File, QUORUM_SECURITY, "Reload the certificates of sslQuorum when they change.")),
    between(restricting(row("quorum.auth.enableSasl", Bool, "false", File, QUORUM_SECURITY, "SASL between members."))),
    between(restricting(row("quorum.auth.serverRequireSasl", Bool, "false", File, QUORUM_SECURITY, "Refuse members without SASL."))),
    between(restricting(row("quorum.auth.learnerRequireSasl", Bool, "false", File, QUORUM_SECURITY, "Demand SASL of the leader."))),
    between(row("quorum.auth.learner.saslLoginContext", Text, "QuorumLearner", File, QUORUM_SECURITY, "JAAS section of the connecting side.")),
    between(row("quorum.auth.server.saslLoginContext", Text, "QuorumServer", File, QUORUM_SECURITY, "JAAS section of the accepting side.")),
    between(row("quorum.auth.kerberos.servicePrincipal", Text, "zkquorum/localhost", File, QUORUM_SECURITY, "Kerberos principal of members.")),
    row("quorum.cnxn.threads.size", INT, "20", File, THREADS, "Threads for SASL between members."),
    between(row("cnxTimeout", at_least(1), "5000", Property, Honoured, "Milliseconds to connect for an election.")),
    between(row("quorumCnxnTimeoutMs", at_least(-1), "-1", Property, Honoured, "Milliseconds of silence allowed on an election connection; -1 for tickTime x syncLimit.")),
    between(row("electionPortBindRetry", at_least(0), "3", Property, Honoured, "Attempts to bind the election port; 0 for no end.")),
    between(row("tcpKeepAlive", Bool, "false", Property, Honoured, "Set SO_KEEPALIVE between members.")),
    between(row("fastleader.minNotificationInterval", at_least(1), "200", Property, Honoured, "Shortest milliseconds between votes.")),
    between(row("fastleader.maxNotificationInterval", at_least(1), "2000", Property, Honoured, "Longest milliseconds between votes (60000 upstream, which is how long an election may take after a silent partition).")),
    between(row("leaderServes", YesNo, "yes", Property, Honoured, "`no`: the leader accepts no clients.")),
    between(row("leader.maxTimeToWaitForEpoch", INT, "-1", Property, EPOCH_WAIT, "Milliseconds a leader waits for followers; -1 for no limit.")),
    between(row("leader.maxConcurrentSnapSyncs", at_least(1), "10", Property, Honoured, "Followers fed a snapshot at once.")),
    between(row("leader.maxConcurrentDiffSyncs", at_least(1), "100", Property, DIFF_SYNCS, "Followers fed a difference at once.")),
    row("leader.ackLoggingFrequency", INT, "1000", Property, NoEffect("it spaces out log lines of the Java leader"), "Acknowledgements between log lines."),
    row("leader.closeSocketAsync", Bool, "false", Property, NoEffect("closing a connection never blocks"), "Close follower connections on another thread."),
    row("learner.closeSocketAsync", Bool, "false", Property, NoEffect("closing a connection never blocks"), "Close the leader connection on another thread."),
    row("learner.asyncSending", Bool, "false", Property, NoEffect("sending never blocks"), "Send to the leader from another thread."),
    between(row("leaderConnectDelayDuringRetryMs", at_least(0), "100", Property, Honoured, "Milliseconds between attempts to reach the leader.")),
    between(row("observer.reconnectDelayMs", long_at_least(0), "0", Property, Honoured, "Longest random milliseconds before an observer reconnects; with observer masters, before it begins with the first of them again.")),
    between(row("observer.election.DelayMs", long_at_least(0), "0", Property, Honoured, "Longest random milliseconds before an observer that has lost its leader asks who leads (200 upstream).")),
    between(row("observer.syncEnabled", Bool, "true", Property, OBSERVER_DISK, "Observers keep their data on disk.")),
    between(row("observerMaster.sizeLimit", at_least(1), "33554432", Property, OBSERVER_RING, "Bytes a follower buffers for observers.")),
    between(row("commitLogCount", INT, "500", Property, Honoured, "Recent transactions kept for members that lag; at least 500.")),
    between(row("snapshotSizeFactor", Kind::Float { min: f64::MIN, max: f64::MAX }, "0.33", Property, Honoured, "Share of the tree's size up to which a lagging member is fed from the log; below 0 never.")),
    between(row("forceSnapshotSync", Bool, "false", Property, Honoured, "Always feed a whole snapshot.")),
    row("forward_learner_requests_to_commit_processor_disabled", Bool, "false", Property, NoEffect("the leader does not queue requests of other members"), "Keep requests of other members out of the leader's queue."),
    row("follower.skipLearnerRequestToNextProcessor", Bool, "false", Property, NoEffect("a follower does not queue requests of observers"), "Keep requests of observers out of a follower's queue."),
    between(row("readonlymode.enabled", Bool, "false", Bare, Honoured, "Serve read-only clients without a quorum; their sessions are local ones (localSessionsEnabled).")),
    row("leader.nodelay", Bool, "true", Bare, NoEffect("connections between members always send at once"), "TCP_NODELAY on the leader."),
    row("follower.nodelay", Bool, "true", Bare, NoEffect("connections between members always send at once"), "TCP_NODELAY on followers."),

    // TLS.
    row("ssl.keyStore.location", Path, "", Property, TLS, "Key store of the client port."),
    row("ssl.keyStore.password", Secret, "", Property, TLS, "Password of that key store."),
    row("ssl.keyStore.passwordPath", Path, "", Property, TLS, "File with that password."),
    row("ssl.keyStore.type", OneOf(STORES), "", Property, TLS, "Type of that key store."),
    row("ssl.trustStore.location", Path, "", Property, TLS, "Trust store of the client port."),
    row("ssl.trustStore.password", Secret, "", Property, TLS, "Password of that trust store."),
    row("ssl.trustStore.passwordPath", Path, "", Property, TLS, "File with that password."),
    row("ssl.trustStore.type", OneOf(STORES), "", Property, TLS, "Type of that trust store."),
    row("ssl.protocol", List, "", Property, TLS, "TLS version of the client port."),
    row("ssl.enabledProtocols", List, "", Property, TLS, "TLS versions of the client port."),
    row("ssl.ciphersuites", List, "", Property, TLS, "Cipher suites of the client port."),
    row("ssl.clientAuth", OneOf(CLIENT_AUTH), "need", Property, TLS, "Whether clients must show a certificate."),
    row("ssl.hostnameVerification", Bool, "true", Property, TLS, "Compare names in certificates with hosts."),
    row("ssl.clientHostnameVerification", Bool, "false", Property, TLS, "Compare names in client certificates with hosts."),
    row("ssl.allowReverseDnsLookup", Bool, "false", Property, TLS, "Resolve addresses to names for that comparison."),
    row("ssl.crl", Bool, "false", Property, TLS, "Check revocation lists."),
    row("ssl.ocsp", Bool, "false", Property, TLS, "Check revocation by OCSP."),
    row("ssl.context.supplier.class", Class, "", Property, NoEffect("it names a Java class"), "Supplier of TLS contexts."),
    row("ssl.handshakeDetectionTimeoutMillis", at_least(1), "5000", Property, TLS, "Milliseconds to recognise TLS on a unified port."),
    row("ssl.sslProvider", Text, "JDK", Property, NoEffect("Paddock has one TLS implementation"), "TLS implementation."),
    row("ssl.authProvider", Text, "x509", Property, TLS, "Scheme that takes identities from certificates."),
    between(row("ssl.quorum.keyStore.location", Path, "", Property, QUORUM_SECURITY, "Key store between members.")),
    between(row("ssl.quorum.keyStore.password", Secret, "", Property, QUORUM_SECURITY, "Password of that key store.")),
    between(row("ssl.quorum.keyStore.passwordPath", Path, "", Property, QUORUM_SECURITY, "File with that password.")),
    between(row("ssl.quorum.keyStore.type", OneOf(STORES), "", Property, QUORUM_SECURITY, "Type of that key store.")),
    between(row("ssl.quorum.trustStore.location", Path, "", Property, QUORUM_SECURITY, "Trust store between members.")),
    between(row("ssl.quorum.trustStore.password", Secret, "", Property, QUORUM_SECURITY, "Password of that trust store.")),
    between(row("ssl.quorum.trustStore.passwordPath", Path, "", Property, QUORUM_SECURITY, "File with that password.")),
    between(row("ssl.quorum.trustStore.type", OneOf(STORES), "", Property, QUORUM_SECURITY, "Type of that trust store.")),
    between(row("ssl.quorum.protocol", List, "", Property, QUORUM_SECURITY, "TLS version between members.")),
    between(row("ssl.quorum.enabledProtocols", List, "", Property, QUORUM_SECURITY, "TLS versions between members.")),
    between(row("ssl.quorum.ciphersuites", List, "", Property, QUORUM_SECURITY, "Cipher suites between members.")),
    between(row("ssl.quorum.clientAuth", OneOf(CLIENT_AUTH), "need", Property, QUORUM_SECURITY, "Whether members must show a certificate.")),
    between(row("ssl.quorum.hostnameVerification", Bool, "true", Property, QUORUM_SECURITY, "Compare names in certificates of members with hosts.")),
    between(row("ssl.quorum.clientHostnameVerification", Bool, "true", Property, QUORUM_SECURITY, "Compare names in certificates of connecting members with hosts.")),
    between(row("ssl.quorum.allowReverseDnsLookup", Bool, "false", Property, QUORUM_SECURITY, "Resolve addresses to names for that comparison.")),
    between(row("ssl.quorum.crl", Bool, "false", Property, QUORUM_SECURITY, "Check revocation lists of members.")),
    between(row("ssl.quorum.ocsp", Bool, "false", Property, QUORUM_SECURITY, "Check revocation of members by OCSP.")),
    row("ssl.quorum.context.supplier.class", Class, "", Property, NoEffect("it names a Java class"), "Supplier of TLS contexts."),
    between(row("ssl.quorum.handshakeDetectionTimeoutMillis", at_least(1), "5000", Property, QUORUM_SECURITY, "Milliseconds to recognise TLS of a member.")),
    row("client.certReload", Bool, "false", Property, TLS, "Reload certificates of the client port when they change."),
    row("fips-mode", Bool, "true", Property, TLS, "Only mechanisms allowed by FIPS."),
    row("netty.server.outstandingHandshake.limit", INT, "-1", Property, TLS, "TLS handshakes at once; -1 for no limit."),
    row("netty.server.earlyDropSecureConnectionHandshakes", Bool, "false", Property, TLS, "Refuse TLS connections before the handshake while not serving."),

    // Administration.
    row("admin.enableServer", Bool, "false", Property, ADMIN, "Start the AdminServer; on by default in ZooKeeper 3.5 to 3.9."),
    row("admin.serverAddress", Host, "0.0.0.0", Property, ADMIN, "Address of the AdminServer."),
    row("admin.serverPort", PORT, "8080", Property, ADMIN, "Port of the AdminServer."),
    row("admin.idleTimeout", at_least(0), "30000", Property, ADMIN, "Milliseconds an idle connection is kept."),
    row("admin.commandURL", Text, "/commands", Property, ADMIN, "Path of the commands."),
    row("admin.httpVersion", INT, "11", Property, NoEffect("HTTP/1.1 is spoken"), "HTTP version."),
    row("admin.portUnification", Bool, "false", Property, ADMIN, "HTTP and HTTPS on one port."),
    row("admin.forceHttps", Bool, "false", Property, ADMIN, "Only HTTPS."),
    row("admin.needClientAuth", Bool, "false", Property, ADMIN, "Demand certificates."),
    row("admin.snapshot.enabled", Bool, "true", Property, ADMIN, "Offer the snapshot command."),
    row("admin.restore.enabled", Bool, "true", Property, ADMIN, "Offer the restore command."),
    row("admin.rateLimiterIntervalInMS", long_at_least(0), "300000", Property, ADMIN, "Milliseconds between snapshots or restores."),
    row("IPAuthenticationProvider.usexforwardedfor", Bool, "false", Property, ADMIN, "Take the address from X-Forwarded-For."),
    row("audit.enable", Bool, "false", Property, Later(Feature::Audit), "Write the audit log."),
    row("audit.impl.class", Class, "", Property, NoEffect("it names a Java class"), "Writer of the audit log."),

    // Parts of the Java server that do not exist here.
    row("serverCnxnFactory", Class, "", Property, NETTY, "Connection layer, NIO or Netty."),
    row("nio.numSelectorThreads", INT, "", Property, THREADS, "Selector threads."),
    row("nio.numWorkerThreads", INT, "", Property, THREADS, "Worker threads."),
    row("nio.directBufferBytes", INT, "65536", Property, THREADS, "Size of direct buffers."),
    row("nio.shutdownTimeout", LONG, "5000", Property, THREADS, "Milliseconds to stop worker threads."),
    row("netty.advancedFlowControl.enabled", Bool, "false", Property, NETTY, "Flow control of Netty; Paddock always applies back-pressure."),
    row("commitProcessor.numWorkerThreads", INT, "", Property, THREADS, "Commit processor threads."),
    row("commitProcessor.maxReadBatchSize", INT, "-1", Property, THREADS, "Reads between commits."),
    row("commitProcessor.maxCommitBatchSize", INT, "1", Property, THREADS, "Commits between reads."),
    row("commitProcessor.shutdownTimeout", LONG, "5000", Property, THREADS, "Milliseconds to stop those threads."),
    row("intBufferStartingSizeBytes", at_least(32), "1024", Property, THREADS, "First size of request buffers."),
    row("maxResponseCacheSize", INT, "400", Property, CACHE, "Cached getData replies."),
    row("maxGetChildrenResponseCacheSize", INT, "400", Property, CACHE, "Cached getChildren replies."),
    row("watchManagerName", Class, "", Property, WATCHES, "Watch table."),
    row("watcherCleanThreadsNum", INT, "2", Property, WATCHES, "Threads that clean dead watchers."),
    row("watcherCleanThreshold", INT, "1000", Property, WATCHES, "Dead watchers before cleaning."),
    row("watcherCleanIntervalInSeconds", INT, "600", Property, WATCHES, "Seconds between cleanings."),
    row("maxInProcessingDeadWatchers", INT, "-1", Property, WATCHES, "Dead watchers before closing connections wait."),
    row("bitHashCacheSize", INT, "10", Property, WATCHES, "Cache of a watch table."),
    row("messageTracker.Enabled", Bool, "false", Property, TRACKER, "Remember packets between members."),
    row("messageTracker.BufferSize", INT, "10", Property, TRACKER, "Packets remembered."),
    row("pathStats.enabled", Bool, "false", Property, PATH_STATS, "Statistics per path."),
    row("pathStats.slotCapacity", INT, "60", Property, PATH_STATS, "Time slots kept."),
    row("pathStats.slotDuration", INT, "15", Property, PATH_STATS, "Seconds of a slot."),
    row("pathStats.maxDepth", INT, "6", Property, PATH_STATS, "Depth of paths."),
    row("pathStats.initialDelay", LONG, "5", Property, PATH_STATS, "Minutes before the first output."),
    row("pathStats.delay", LONG, "5", Property, PATH_STATS, "Minutes between outputs."),
    row("pathStats.topPathMax", INT, "20", Property, PATH_STATS, "Paths shown."),
    row("pathStats.sampleRate", RATIO, "0.1", Property, PATH_STATS, "Share of requests counted."),
    row("jvm.pause.monitor", Bool, "false", File, PAUSE, "Watch for pauses of the virtual machine."),
    row("jvm.pause.sleep.time.ms", long_at_least(0), "500", File, PAUSE, "Milliseconds between looks."),
    row("jvm.pause.warn-threshold.ms", long_at_least(0), "10000", File, PAUSE, "Milliseconds of a pause worth a warning."),
    row("jvm.pause.info-threshold.ms", long_at_least(0), "1000", File, PAUSE, "Milliseconds of a pause worth a line."),
    aside("jmx.log4j.disable", Text, Property, JMX, "Register no logging beans."),
    aside("jmx.log4j.mbean", Text, Property, JMX, "Name of the logging bean."),
    aside("log.dir", Path, Property, LOGGING, "Folder of log files."),
    aside("log.file", Text, Property, LOGGING, "Log file."),
    aside("log.threshold", Text, Property, LOGGING, "Log level."),
    aside("root.logger", Text, Property, LOGGING, "Log level and appenders."),
    aside("console.threshold", Text, Property, LOGGING, "Log level of the console."),
    aside("tracelog.dir", Path, Property, LOGGING, "Folder of trace logs."),
    aside("tracelog.file", Text, Property, LOGGING, "Trace log."),
    aside("sun.security.jgss.native", Bool, Bare, JVM, "Native Kerberos of the virtual machine."),
    aside("jdk.tls.rejectClientInitiatedRenegotiation", Bool, Bare, JVM, "TLS renegotiation of the virtual machine."),

    // Settings of Java clients that files and flags often carry along.
    aside("client.secure", Bool, Property, CLIENT, "Connect with TLS."),
    aside("clientCnxnSocket", Class, Property, CLIENT, "Connection layer of clients."),
    aside("sasl.client", Text, Property, CLIENT, "Use SASL."),
    aside("sasl.clientconfig", Text, Property, CLIENT, "JAAS section of clients."),
    aside("sasl.client.username", Text, Property, CLIENT, "Service name of the server."),
    aside("sasl.client.canonicalize.hostname", Text, Property, CLIENT, "Use canonical host names."),
    aside("sasl.client.allowReverseDnsLookup", Text, Property, CLIENT, "Resolve addresses to names."),
    aside("server.principal", Text, Property, CLIENT, "Principal of the server."),
    aside("server.realm", Text, Property, CLIENT, "Realm of the server."),
    aside("disableAutoWatchReset", Text, Property, CLIENT, "Do not set watches again."),
    aside("request.timeout", Text, Property, CLIENT, "Milliseconds to wait for a reply."),
    aside("shuffleDnsResponse", Text, Property, CLIENT, "Order of addresses."),
    aside("hostProvider.dnsSrvRefreshIntervalSeconds", Text, Property, CLIENT, "Seconds between DNS queries."),

    // Hooks of ZooKeeper's own tests.
    row("testingonly.initialZxid", Text, "", Property, TEST, "First zxid."),
    row("test.allowDiscontinuousProposals", Text, "", Property, TEST, "Allow gaps between proposals."),
    row("controllerPort", INT, "", Property, TEST, "Port of the test controller."),
];
