use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::*;

mod ensemble;
mod reconfig;

fn sources(text: &str) -> Sources {
    Sources::new().file("zoo.cfg", text)
}

/// A file with what is required, and `text`, which begins on line 3.
fn with(text: &str) -> Sources {
    sources(&format!("dataDir=/d\nclientPort=2181\n{text}"))
}

fn config(sources: &Sources) -> ServerConfig {
    let loaded = sources.load();
    assert_eq!(loaded.diagnostics.count(Severity::Error), 0, "{}", loaded.diagnostics.render());
    loaded.config.unwrap()
}

/// Messages without the summary.
fn said(sources: &Sources) -> Vec<String> {
    sources.load().diagnostics.iter().map(ToString::to_string).collect()
}

fn listener(host: Option<&str>, port: u16) -> Option<Listener> {
    Some(Listener { host: host.map(str::to_owned), port })
}

mod table {
    use super::*;
    use crate::value::{Checked, parse_value};

    #[test]
    fn names_are_unique_and_found() {
        let mut seen = BTreeSet::new();
        for info in KEYS {
            assert!(seen.insert(info.name), "{} twice", info.name);
            let example = info.name.replace('*', "7");
            assert_eq!(find_key(&example), Some(info), "{example}");
            assert!(info.doc.ends_with('.') && !info.doc.contains('\n'), "{}", info.name);
        }
        assert_eq!(find_key("server."), None);
        assert_eq!(find_key("server.principal").unwrap().name, "server.principal");
        assert_eq!(find_key("nonsense"), None);
    }

    #[test]
    fn defaults_fit_their_kind() {
        for info in KEYS.iter().filter(|info| !info.default.is_empty()) {
            for lenient in [false, true] {
                let checked = parse_value(info.kind, info.default, info.default, lenient);
                assert!(matches!(checked, Checked::Good(_)), "{}: {checked:?}", info.name);
            }
        }
    }

    /// A key that is honoured or kept for later is read by the builder, and the builder reads
    /// nothing else: neither a misspelt key nor one declared without effect.
    #[test]
    fn the_table_and_the_builder_agree() {
        let sources = Sources::embedded(None);
        let mut diagnostics = Diagnostics::new();
        let settings = sources.settle(&mut diagnostics);
        build::build(&settings, &sources, &mut diagnostics).unwrap();
        let used = settings.used();
        for info in KEYS {
            let acted_on = !matches!(info.status, Status::NoEffect(_));
            assert_eq!(used.contains(info.name), acted_on, "{}", info.name);
        }
        for name in used {
            assert!(KEYS.iter().any(|info| info.name == name), "{name} is not in the table");
        }
    }

    #[test]
    fn every_property_of_zookeeper_is_known() {
        let list = include_str!("../testdata/upstream-properties.txt");
        let mut count = 0;
        for name in list.lines().filter(|line| !line.starts_with('#')) {
            let key = name.strip_prefix("zookeeper.").unwrap_or(name);
            assert!(find_key(key).is_some(), "{name}");
            count += 1;
        }
        assert!(count > 150, "{count}");
        // Keys that QuorumPeerConfig parses by name, and the TLS keys that are put together at run
        // time.
        for key in "dataDir dataLogDir clientPort localSessionsEnabled localSessionsUpgradingEnabled clientPortAddress \
                    secureClientPort secureClientPortAddress observerMasterPort clientPortListenBacklog tickTime \
                    maxClientCnxns minSessionTimeout maxSessionTimeout initLimit syncLimit connectToLearnerMasterLimit \
                    electionAlg quorumListenOnAllIPs peerType syncEnabled dynamicConfigFile autopurge.snapRetainCount \
                    autopurge.purgeInterval standaloneEnabled reconfigEnabled sslQuorum portUnification \
                    sslQuorumReloadCertFiles quorum.auth.enableSasl quorum.auth.serverRequireSasl \
                    quorum.auth.learnerRequireSasl quorum.auth.learner.saslLoginContext \
                    quorum.auth.server.saslLoginContext quorum.auth.kerberos.servicePrincipal quorum.cnxn.threads.size \
                    jvm.pause.monitor jvm.pause.sleep.time.ms jvm.pause.warn-threshold.ms jvm.pause.info-threshold.ms \
                    metricsProvider.className metricsProvider.httpPort multiAddress.enabled oraclePath server.1 group.1 \
                    weight.1 authProvider.sasl superUser.2"
            .split_whitespace()
        {
            assert!(find_key(key).is_some(), "{key}");
        }
        for prefix in ["ssl.", "ssl.quorum."] {
            for key in "keyStore.location keyStore.password keyStore.passwordPath keyStore.type trustStore.location \
                        trustStore.password trustStore.passwordPath trustStore.type protocol enabledProtocols \
                        ciphersuites clientAuth hostnameVerification clientHostnameVerification allowReverseDnsLookup \
                        crl ocsp context.supplier.class handshakeDetectionTimeoutMillis"
                .split_whitespace()
            {
                assert!(find_key(&format!("{prefix}{key}")).is_some(), "{prefix}{key}");
            }
        }
    }
}

mod defaults {
    use super::*;

    #[test]
    fn embedded() {
        let config = ServerConfig::embedded_default(None);
        assert_eq!(config.data_dir, Path::new("./data"));
        assert_eq!(config.client_listener, listener(None, 2181));
        assert_eq!(config.tick_time_ms, 2000);
        assert_eq!((config.min_session_timeout_ms, config.max_session_timeout_ms), (4000, 40_000));
        assert_eq!(config.four_letter_words.iter().collect::<Vec<_>>(), ["quor", "srvr"]);
        assert_eq!(ServerConfig::embedded_default(Some("/x")).data_log_dir, Path::new("/x"));
        assert!(Sources::embedded(None).load().diagnostics.is_empty());
        let loaded =
            Sources::embedded(None).set("clientPort", "0").define("-Dzookeeper.maxCnxns=5").load();
        assert!(loaded.diagnostics.is_empty());
        let (config, _) = loaded.accept(true).unwrap();
        assert_eq!((config.client_listener, config.limits.max_cnxns), (listener(None, 0), Some(5)));
    }

    #[test]
    fn of_a_minimal_file() {
        let loaded = with("").load();
        assert!(loaded.diagnostics.is_empty(), "{}", loaded.diagnostics.render());
        let config = loaded.config.unwrap();
        assert_eq!(config.tick_time_ms, 3000);
        assert_eq!((config.min_session_timeout_ms, config.max_session_timeout_ms), (6000, 60_000));
        assert_eq!(config.data_log_dir, PathBuf::from("/d"));
        assert_eq!(config.client_port_listen_backlog, None);
        assert_eq!(config.sessionless_timeout_ms, 10_000);
        assert_eq!(
            config.limits,
            Limits {
                max_client_cnxns: Some(60),
                max_cnxns: None,
                jute_max_buffer_bytes: 0xf_ffff,
                global_outstanding_limit: 1000,
                large_request_max_bytes: 104_857_600,
                large_request_threshold_bytes: None,
                connection_throttle: None,
            }
        );
        assert_eq!(
            config.storage,
            StorageConfig {
                snap_count: 100_000,
                snap_size_limit_bytes: Some(4 << 30),
                pre_alloc_size_bytes: 64 << 20,
                force_sync: true,
                fsync_warning_threshold_ms: 1000,
                digest_enabled: true,
                purge_interval_ms: Some(3_600_000),
            }
        );
        assert_eq!(
            config.tree,
            TreeConfig {
                extended_types_enabled: false,
                enforce_quota: false,
                eager_acl_check: false,
                container_check_interval_ms: 60_000,
                container_max_per_minute: 10_000,
                container_max_never_used_interval_ms: None,
            }
        );
        assert!(
            !config.auth.skip_acl
                && config.auth.digest_enabled
                && config.auth.super_digest.is_none()
        );
        assert_eq!(
            (config.metrics.provider, &config.metrics.http),
            (MetricsProvider::Default, &None)
        );
        assert!(config.ensemble.standalone_enabled && !config.ensemble.is_distributed());
        assert!(!config.admin.enabled && !config.audit_enabled && !config.read_only_mode_enabled);
        assert_eq!(config.tls.client.client_auth, ClientAuth::Need);
        assert_eq!(config.initial_config.reveal(), "dataDir=/d\nclientPort=2181\n");
        assert_eq!(config.effective.len(), 2);
    }

    #[test]
    fn arguments_instead_of_a_file() {
        let config = config(&Sources::positional(&["2182", "/data", "1000", "7"]).unwrap());
        assert_eq!(config.client_listener, listener(None, 2182));
        assert_eq!((config.tick_time_ms, config.limits.max_client_cnxns), (1000, Some(7)));
        assert_eq!(config.data_dir, Path::new("/data"));
        assert!(Sources::positional(&["2182", "/data"]).unwrap().load().diagnostics.is_empty());
        assert!(Sources::positional(&["zoo.cfg"]).is_none());
        assert!(Sources::positional(&["1", "2", "3", "4", "5"]).is_none());
        let bad = Sources::positional(&["port", "/data"]).unwrap();
        assert_eq!(
            said(&bad).join("|"),
            "command line: error: clientPort: `port` is not a whole number; allowed: 0 to 65535"
        );
    }
}

mod values {
    use super::*;

    #[test]
    fn honoured_keys_reach_their_fields() {
        let config = config(
            &with(
                "dataLogDir=/log\nclientPortAddress=127.0.0.1\nclientPortListenBacklog=128\nclientTcpKeepAlive=true\n\
                 nio.sessionlessCnxnTimeout=500\ntickTime=1000\nminSessionTimeout=500\nmaxSessionTimeout=90000\n\
                 maxClientCnxns=-1\nmaxCnxns=9\nglobalOutstandingLimit=77\nlargeRequestMaxBytes=2000\n\
                 largeRequestThreshold=1000\nconnection_throttle_tokens=8\n\
                 connection_throttle_fill_count=2\nconnection_throttle_weight_enabled=true\n\
                 connection_throttle_freeze_time=6\nconnection_throttle_drop_increase=0.5\nsnapCount=10\n\
                 snapSizeLimitInKb=-1\npreAllocSize=64\nfsync.warningthresholdms=20\ndigest.enabled=false\n\
                 datadir.autocreate=false\nautopurge.purgeInterval=90m\n\
                 extendedTypesEnabled=true\nenforceQuota=true\nenableEagerACLCheck=true\n4lw.commands.whitelist=ruok , mntr,\n\
                 DigestAuthenticationProvider.superDigest=super:D/InIHSb7yEEbrWz8b9l71RjZJU=\n\
                 DigestAuthenticationProvider.enabled=false\n",
            )
            .define("-Djute.maxbuffer=0x400000")
            .define("-Dznode.container.checkIntervalMs=100")
            .define("-Dznode.container.maxPerMinute=600")
            .define("-Dznode.container.maxNeverUsedIntervalMs=200"),
        );
        assert_eq!(config.data_log_dir, Path::new("/log"));
        assert!(!config.data_dir_autocreate && config.client_tcp_keep_alive);
        assert_eq!(config.client_listener, listener(Some("127.0.0.1"), 2181));
        assert_eq!(
            (config.client_port_listen_backlog, config.sessionless_timeout_ms),
            (Some(128), 500)
        );
        assert_eq!((config.min_session_timeout_ms, config.max_session_timeout_ms), (500, 90_000));
        assert_eq!(
            config.limits,
            Limits {
                max_client_cnxns: None,
                max_cnxns: Some(9),
                jute_max_buffer_bytes: 4 << 20,
                global_outstanding_limit: 77,
                large_request_max_bytes: 2000,
                large_request_threshold_bytes: Some(1000),
                connection_throttle: Some(ConnectionThrottle {
                    tokens: 8,
                    fill_time_ms: 1,
                    fill_count: 6,
                    freeze_time_ms: Some(6),
                    drop_increase: 0.5,
                    drop_decrease: 0.002,
                    decrease_ratio: 0.0,
                    global_session_weight: 3,
                    local_session_weight: 1,
                    renew_session_weight: 2,
                }),
            }
        );
        assert_eq!(
            config.storage,
            StorageConfig {
                snap_count: 10,
                snap_size_limit_bytes: None,
                pre_alloc_size_bytes: 65_536,
                force_sync: true,
                fsync_warning_threshold_ms: 20,
                digest_enabled: false,
                purge_interval_ms: Some(5_400_000),
            }
        );
        assert_eq!(
            config.tree,
            TreeConfig {
                extended_types_enabled: true,
                enforce_quota: true,
                eager_acl_check: true,
                container_check_interval_ms: 100,
                container_max_per_minute: 600,
                container_max_never_used_interval_ms: Some(200),
            }
        );
        assert_eq!(config.four_letter_words.iter().collect::<Vec<_>>(), ["mntr", "ruok", "srvr"]);
        assert!(!config.auth.digest_enabled);
        assert_eq!(
            config.auth.super_digest.as_ref().unwrap().reveal(),
            "super:D/InIHSb7yEEbrWz8b9l71RjZJU="
        );
    }

    #[test]
    fn without_weights_each_session_costs_one_token() {
        let config =
            config(&with("connection_throttle_tokens=8\nconnection_throttle_fill_count=2\n"));
        let throttle = config.limits.connection_throttle.unwrap();
        assert_eq!(
            (throttle.fill_count, throttle.global_session_weight, throttle.renew_session_weight),
            (2, 1, 1)
        );
    }

    #[test]
    fn secrets_stay_out_of_sight() {
        let hash = "super:D/InIHSb7yEEbrWz8b9l71RjZJU=";
        let config = config(&with(&format!(
            "DigestAuthenticationProvider.superDigest={hash}\nssl.keyStore.password=hidden\n"
        )));
        let seen = format!("{config:?}");
        assert!(!seen.contains("D/InIHSb") && !seen.contains("hidden"), "{seen}");
        assert_eq!(config.effective["ssl.keyStore.password"], "***");
        assert_eq!(config.auth.super_digest.unwrap().to_string(), "***");
        assert_eq!(config.tls.client.stores.key_store.password.unwrap().reveal(), "hidden");
    }

    #[test]
    fn errors_name_file_line_key_value_and_what_is_allowed() {
        for (line, message) in [
            ("tickTime=2s", "tickTime: `2s` is not a whole number; allowed: 1 or more"),
            ("tickTime=0", "tickTime: `0` is out of range; allowed: 1 or more"),
            (
                "tickTime=2000 # ms",
                "tickTime: `2000 # ms` is not a whole number; allowed: 1 or more",
            ),
            (
                "connectToLearnerMasterLimit=-1",
                "connectToLearnerMasterLimit: `-1` is out of range; allowed: 0 or more",
            ),
            (
                "secureClientPort=99999",
                "secureClientPort: `99999` is out of range; allowed: 0 to 65535",
            ),
            (
                "standaloneEnabled=ture",
                "standaloneEnabled: `ture` is neither `true` nor `false` - did you mean `true`?",
            ),
            ("electionAlg=0", "electionAlg: `0` is out of range; allowed: 3 to 3"),
            (
                "peerType=observr",
                "peerType: `observr` is unknown; allowed: participant, observer - did you mean `observer`?",
            ),
            ("snapCount=1e5", "snapCount: `1e5` is not a whole number; allowed: a whole number"),
            (
                "autopurge.purgeInterval=1w",
                "autopurge.purgeInterval: `1w` is not an interval; allowed: a number of hours, or a number with ms, s, m, h or d",
            ),
            ("dataLogDir=", "dataLogDir: the value is empty"),
            ("dataDir=", "dataDir: the value is empty"),
            ("clientPort=x", "clientPort: `x` is not a whole number; allowed: 0 to 65535"),
            (
                "DigestAuthenticationProvider.digestAlg=SHA-999",
                "DigestAuthenticationProvider.digestAlg: `SHA-999` is unknown; allowed: SHA1, SHA-1, SHA-256, SHA3-256",
            ),
        ] {
            let required = ["dataDir=/d", "clientPort=2181"].map(|other| {
                let same = other.split('=').next() == line.split('=').next();
                if same { "" } else { other }
            });
            let loaded = sources(&format!("{}\n{line}", required.join("\n"))).load();
            let all: Vec<String> = loaded.diagnostics.iter().map(ToString::to_string).collect();
            assert_eq!(all, [format!("zoo.cfg:3: error: {message}")]);
            assert_eq!(loaded.diagnostics.exit_code(false), 2);
            assert!(loaded.accept(false).is_err());
        }
    }

    #[test]
    fn odd_values_mean_what_they_mean_in_zookeeper() {
        let sources =
            with("extendedTypesEnabled=yes\nskipACL=true\nforceSync=false\nsnapCount=1\n");
        let config = config(&sources);
        assert!(
            !config.tree.extended_types_enabled
                && !config.auth.skip_acl
                && config.storage.force_sync
        );
        assert_eq!(config.storage.snap_count, 2);
        assert_eq!(
            said(&sources),
            [
                "zoo.cfg:3: warning: extendedTypesEnabled: `yes` counts as false; only `true` switches it on",
                "zoo.cfg:4: warning: skipACL: `true` counts as `no`; write `yes` or `no`",
                "zoo.cfg:5: warning: forceSync: `false` counts as `yes`; write `yes` or `no`",
                "zoo.cfg:6: warning: snapCount: counts as 2, the least allowed",
            ]
        );
    }

    #[test]
    fn dangerous_values_are_pointed_out() {
        let sources = with(
            "skipACL=yes\nforceSync=no\nautopurge.purgeInterval=0\nDigestAuthenticationProvider.superDigest=super:secret\n",
        );
        let config = config(&sources);
        assert!(
            config.auth.skip_acl
                && !config.storage.force_sync
                && config.storage.purge_interval_ms.is_none()
        );
        assert_eq!(
            said(&sources),
            [
                "zoo.cfg:3: warning: skipACL: every client may do everything",
                "zoo.cfg:4: warning: forceSync: replies leave before data is on disk: a crash can lose acknowledged writes",
                "zoo.cfg:5: note: autopurge.purgeInterval: purging is off: the transaction log grows until the disk is full",
                "zoo.cfg:6: warning: DigestAuthenticationProvider.superDigest: not of the form \
             user:base64(sha1(user:password)), so no password matches it",
            ]
        );
    }

    #[test]
    fn the_whitelist() {
        let all = config(&with("4lw.commands.whitelist=ruok,*\n"));
        assert!(FOUR_LETTER_WORDS.iter().all(|word| all.four_letter_words.allows(word)));
        assert!(!all.four_letter_words.allows("lead"));
        assert!(PADDOCK_WORDS.iter().all(|word| all.four_letter_words.allows(word)));
        // Who names words means these and no others.
        let none = config(&with("4lw.commands.whitelist=\n"));
        assert_eq!(none.four_letter_words.iter().collect::<Vec<_>>(), ["srvr"]);
        let one = config(&with("4lw.commands.whitelist=srvr\n"));
        assert_eq!(one.four_letter_words.iter().collect::<Vec<_>>(), ["srvr"]);
        let read_only = config(&with("").define("readonlymode.enabled=true"));
        assert!(read_only.four_letter_words.allows("isro"));
        let typo = with("4lw.commands.whitelist=mtnr,stat\n");
        assert!(config(&typo).four_letter_words.allows("stat"));
        let all = said(&typo);
        assert!(
            all[0].starts_with("zoo.cfg:3: warning: 4lw.commands.whitelist: `mtnr` is no four-letter word; known: conf, ")
                && all[0].ends_with("did you mean `mntr`?"),
            "{all:?}"
        );
        let mut sorted = FOUR_LETTER_WORDS;
        sorted.sort_unstable();
        assert_eq!(sorted, FOUR_LETTER_WORDS);
    }

    #[test]
    fn metrics() {
        let class = format!("metricsProvider.className={PROMETHEUS_PROVIDER}\n");
        let at = |text: &str| config(&with(text)).metrics;
        assert_eq!(at(&class).http, listener(Some("0.0.0.0"), 7000));
        let full =
            at(&format!("{class}metricsProvider.httpHost=::1\nmetricsProvider.httpPort=7070\n"));
        assert_eq!(
            (full.provider, full.http),
            (MetricsProvider::Prometheus, listener(Some("::1"), 7070))
        );
        let alone = at("metricsProvider.httpPort=7070\n");
        assert_eq!(
            (alone.provider, alone.http),
            (MetricsProvider::Prometheus, listener(Some("0.0.0.0"), 7070))
        );
        assert_eq!(at(&format!("{class}metricsProvider.httpPort=-1\n")).http, None);
        let off = with(
            "metricsProvider.className=org.apache.zookeeper.metrics.impl.NullMetricsProvider\nmetricsProvider.httpPort=1\n",
        );
        assert_eq!(
            (config(&off).metrics.provider, config(&off).metrics.http),
            (MetricsProvider::Null, None)
        );
        assert!(
            said(&off)[0].starts_with("zoo.cfg:4: warning: metricsProvider.httpPort: no effect")
        );
        let typo = with(
            "metricsProvider.className=org.apache.zookeeper.metrics.prometheus.PrometheusMetricProvider\n",
        );
        assert!(
            said(&typo)[0].ends_with(&format!("did you mean `{PROMETHEUS_PROVIDER}`?")),
            "{:?}",
            said(&typo)
        );
        let clash = with(&format!("{class}metricsProvider.httpPort=2181\n"));
        assert_eq!(
            said(&clash),
            ["zoo.cfg:4: error: metricsProvider.httpPort: port 2181 is the client port too"]
        );
    }
}

mod keys {
    use super::*;

    #[test]
    fn unknown_keys_are_reported_with_line_and_suggestion() {
        for (line, key, suggestion) in [
            ("tickTme=1", "tickTme", Some("tickTime")),
            ("ticktime=1", "ticktime", Some("tickTime")),
            ("maxClientCnxn=1", "maxClientCnxn", Some("maxClientCnxns")),
            ("snapRetainCount=3", "snapRetainCount", Some("autopurge.snapRetainCount")),
            ("autopurge.purgInterval=3", "autopurge.purgInterval", Some("autopurge.purgeInterval")),
            ("4lw.command.whitelist=*", "4lw.command.whitelist", Some("4lw.commands.whitelist")),
            ("sever.1=a:1:2", "sever.1", Some("server.1")),
            ("authprovider.1=x", "authprovider.1", Some("authProvider.1")),
            ("traceFile=x", "traceFile", None),
            ("frobnicate=1", "frobnicate", None),
        ] {
            let found = with(line).load().diagnostics;
            let only: Vec<&Diagnostic> = found.iter().collect();
            assert_eq!(only.len(), 1, "{}", found.render());
            let expected = Diagnostic {
                severity: Severity::Warning,
                file: "zoo.cfg".into(),
                line: Some(3),
                key: Some(key.into()),
                message: "unknown key, it has no effect".into(),
                suggestion: suggestion.map(str::to_owned),
            };
            assert_eq!(*only[0], expected);
            assert_eq!((found.exit_code(false), found.exit_code(true)), (0, 2));
        }
    }

    #[test]
    fn the_prefix_does_not_belong_into_the_file() {
        let sources = with("zookeeper.skipACL=yes\n");
        assert!(!config(&sources).auth.skip_acl);
        assert!(said(&sources)[0].ends_with("did you mean `skipACL`?"));
    }

    #[test]
    fn keys_without_effect_say_why_unless_they_ask_for_nothing() {
        let sources = with(
            "serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory\nnio.numWorkerThreads=4\n\
             jvm.pause.monitor=true\nwatchManagerName=x\nmaxResponseCacheSize=0\ncommitProcessor.numWorkerThreads=1\n\
             requireClientAuthScheme=sasl\n",
        );
        let all = said(&sources);
        assert_eq!(all.len(), 7, "{all:?}");
        for (index, line) in all.iter().enumerate() {
            assert!(line.starts_with(&format!("zoo.cfg:{}: warning: ", index + 3)), "{line}");
            assert!(line.contains(": no effect in Paddock: "), "{line}");
        }
        config(&sources);
        let quiet = with(
            "jvm.pause.monitor=false\nmaxResponseCacheSize=400\nadmin.enableServer=FALSE\nserializeLastProcessedZxid.enabled=true\n\
             metricsProvider.exportJvmInfo=true\nssl.clientAuth=NEED\nfips-mode=true\naudit.enable=false\ndb.autocreate=true\n",
        );
        assert_eq!(said(&quiet), Vec::<String>::new());
    }

    #[test]
    fn bad_values_of_keys_without_effect_are_only_warned_about() {
        let sources = with("nio.numWorkerThreads=many\njvm.pause.monitor=perhaps\n");
        config(&sources);
        assert_eq!(sources.load().diagnostics.count(Severity::Warning), 2);
    }

    #[test]
    fn features_to_come() {
        let sources = with(
            "audit.enable=true\nadmin.enableServer=true\nssl.keyStore.location=/k\nsuperUser=bob\nsuperUser.1=eve\n",
        );
        let config = config(&sources);
        assert!(config.audit_enabled && config.admin.enabled);
        assert_eq!(config.tls.client.stores.key_store.location.as_deref(), Some(Path::new("/k")));
        assert_eq!(config.sasl.super_users, ["bob", "eve"]);
        assert_eq!(
            said(&sources),
            [
                "zoo.cfg:3: warning: audit.enable: no effect yet, it comes with the audit log",
                "zoo.cfg:4: warning: admin.enableServer: no effect yet, it comes with the AdminServer",
                "zoo.cfg:5: warning: ssl.keyStore.location: no effect yet, it comes with TLS",
                "zoo.cfg:6: warning: superUser: no effect yet, it comes with SASL authentication",
                "zoo.cfg:7: warning: superUser.1: no effect yet, it comes with SASL authentication",
            ]
        );
    }

    #[test]
    fn what_keeps_somebody_out_is_never_ignored() {
        let nobody = with("enforce.auth.enabled=true\n").load().diagnostics;
        assert_eq!(nobody.count(Severity::Error), 1, "{}", nobody.render());
        let some = with("enforce.auth.enabled=true\nenforce.auth.schemes=digest\n").load();
        assert!(some.diagnostics.is_empty(), "{}", some.diagnostics.render());
        let key = "sessionRequireClientSASLAuth";
        let found = with(&format!("{key}=true\n")).load().diagnostics;
        assert_eq!(found.count(Severity::Error), 1, "{}", found.render());
        assert!(found.render().contains("would admit clients that it keeps out"));
        assert!(with(&format!("{key}=false\n")).load().diagnostics.is_empty());
        assert!(with("").define(&format!("zookeeper.{key}=true")).load().accept(false).is_err());
    }

    #[test]
    fn auth_providers() {
        let sources = with(
            "authProvider.1=org.apache.zookeeper.server.auth.SASLAuthenticationProvider\n\
             authProvider.x509=org.apache.zookeeper.server.auth.X509AuthenticationProvider\n\
             authProvider.digest=org.apache.zookeeper.server.auth.DigestAuthenticationProvider\n\
             authProvider.own=com.example.Own\n",
        );
        assert_eq!(config(&sources).auth.providers.len(), 4);
        let all = said(&sources);
        assert_eq!(all.len(), 3);
        assert!(
            all[0].ends_with("comes with SASL authentication")
                && all[1].ends_with("comes with TLS")
        );
        assert!(all[2].starts_with("zoo.cfg:6: warning: authProvider.own: no effect in Paddock"));
    }

    #[test]
    fn syntax_problems_have_lines() {
        let sources = with("tickTime=1\n=3\ntickTime=2\nmaxCnxns\n");
        assert_eq!(
            said(&sources),
            [
                "zoo.cfg:4: warning: this line has no key; it is ignored",
                "zoo.cfg:5: warning: tickTime: set again here; this value wins over the one on line 3",
                "zoo.cfg:6: error: maxCnxns: `` is not a whole number; allowed: a whole number",
                "zoo.cfg:6: warning: maxCnxns: no value; write `maxCnxns=value`",
            ]
        );
        assert_eq!(sources.load().config.unwrap().tick_time_ms, 2);
        assert_eq!(with("x=\\u00g0\n").load().diagnostics.exit_code(false), 2);
    }
}

mod precedence {
    use super::*;

    #[test]
    fn the_file_goes_before_prefixed_properties() {
        let sources = with("snapCount=7\n")
            .jvm_flags("SERVER_JVMFLAGS", "-Dzookeeper.snapCount=5 -Dzookeeper.maxCnxns=6")
            .jvm_flags("JVMFLAGS", "-Dzookeeper.maxCnxns=8");
        let config = config(&sources);
        assert_eq!((config.storage.snap_count, config.limits.max_cnxns), (7, Some(8)));
        assert_eq!(
            said(&sources),
            ["SERVER_JVMFLAGS: note: snapCount: zoo.cfg:3 sets this too and goes before it"]
        );
        // The same value twice is not worth a word.
        assert!(
            with("snapCount=7\n").define("zookeeper.snapCount=7").load().diagnostics.is_empty()
        );
    }

    #[test]
    fn properties_without_prefix_go_before_the_file() {
        let in_file = with("jute.maxbuffer=2000000\n");
        assert_eq!(config(&in_file).limits.jute_max_buffer_bytes, 2_000_000);
        assert_eq!(
            said(&in_file),
            [
                "zoo.cfg:3: note: jute.maxbuffer: ZooKeeper itself reads this only as -Djute.maxbuffer=...; Paddock takes it from here too"
            ]
        );
        let both = in_file.define("-Djute.maxbuffer=3000000");
        assert_eq!(config(&both).limits.jute_max_buffer_bytes, 3_000_000);
        let last = both.define("-Djute.maxbuffer=4000000").set("jute.maxbuffer", "5000000");
        assert_eq!(config(&last).limits.jute_max_buffer_bytes, 5_000_000);
    }

    #[test]
    fn the_fsync_threshold_has_two_names() {
        let ms = |sources: &Sources| config(sources).storage.fsync_warning_threshold_ms;
        let bare = with("").define("fsync.warningthresholdms=5");
        assert_eq!(ms(&bare), 5);
        let prefixed = bare
            .define("zookeeper.fsync.warningthresholdms=6")
            .define("fsync.warningthresholdms=7");
        assert_eq!(ms(&prefixed), 6);
        assert_eq!(
            ms(&with("fsync.warningthresholdms=8\n")
                .define("zookeeper.fsync.warningthresholdms=6")),
            8
        );
    }

    #[test]
    fn properties_that_zookeeper_would_not_read_are_flagged() {
        for (define, message) in [
            (
                "zookeeper.tickTime=5",
                "-Dzookeeper.tickTime: ignored: ZooKeeper takes this key from zoo.cfg only",
            ),
            (
                "standaloneEnabled=false",
                "-DstandaloneEnabled: ignored: ZooKeeper takes this key from zoo.cfg only",
            ),
            (
                "zookeeper.jute.maxbuffer=5",
                "-Dzookeeper.jute.maxbuffer: ignored: ZooKeeper reads this property under another name - did you mean \
                 `-Djute.maxbuffer`?",
            ),
            (
                "snapCount=5",
                "-DsnapCount: ignored: ZooKeeper reads this property under another name - did you mean \
                 `-Dzookeeper.snapCount`?",
            ),
            (
                "zookeeper.snapCnt=5",
                "-Dzookeeper.snapCnt: unknown property, it has no effect - did you mean `-Dzookeeper.snapCount`?",
            ),
            (
                "jute.maxbufer=5",
                "-Djute.maxbufer: unknown property, it has no effect - did you mean `-Djute.maxbuffer`?",
            ),
            (
                "zookeper.skipACL=yes",
                "-Dzookeper.skipACL: unknown property, it has no effect - did you mean `-Dzookeeper.skipACL`?",
            ),
            (
                "zookeeper.frobnicate=1",
                "-Dzookeeper.frobnicate: unknown property, it has no effect",
            ),
        ] {
            let sources = with("").define(define);
            assert_eq!(said(&sources), [format!("command line: warning: {message}")]);
            let config = config(&sources);
            assert_eq!((config.tick_time_ms, config.storage.snap_count), (3000, 100_000));
            assert!(!config.auth.skip_acl);
        }
    }

    #[test]
    fn foreign_flags_are_notes() {
        let sources = with("").jvm_flags(
            "SERVER_JVMFLAGS",
            "-Xmx1g -Dcom.sun.management.jmxremote -Dlogback.configurationFile=x -Dzookeeper.log.dir=/l 'unclosed",
        );
        let loaded = sources.load();
        assert_eq!(
            said(&sources),
            [
                "SERVER_JVMFLAGS: warning: a quote is opened and never closed",
                "SERVER_JVMFLAGS: note: options of the Java virtual machine have no effect: -Xmx1g unclosed",
                "SERVER_JVMFLAGS: note: properties of Java or its libraries have no effect: \
                 -Dcom.sun.management.jmxremote -Dlogback.configurationFile",
                "SERVER_JVMFLAGS: note: log.dir: no effect: it belongs to Java logging",
            ]
        );
        assert_eq!(loaded.diagnostics.count(Severity::Error), 0);
    }
}

mod cross_checks {
    use super::*;

    #[test]
    fn what_is_required() {
        assert_eq!(
            said(&sources("clientPort=1\n")),
            ["zoo.cfg: error: dataDir: not set; it names the folder of the data"]
        );
        assert!(sources("clientPort=1\n").load().config.is_none());
        assert_eq!(
            said(&sources("dataDir=/d\n")),
            ["zoo.cfg: error: clientPort: not set; no client could connect"]
        );
        assert_eq!(
            said(&sources("dataDir=/d\nclientPortAddress=h\n")),
            ["zoo.cfg:2: error: clientPortAddress: set, but clientPort is not"]
        );
        let secure = said(&sources("dataDir=/d\nsecureClientPort=2281\n"));
        assert_eq!(secure.len(), 2);
        assert!(secure[1].starts_with(
            "zoo.cfg: error: clientPort: clients could connect only at 0.0.0.0:2281 with TLS"
        ));
        let address = said(&with("secureClientPortAddress=h\n"));
        assert!(
            address.contains(
                &"zoo.cfg:3: error: secureClientPortAddress: set, but secureClientPort is not"
                    .to_owned()
            )
        );
        assert!(
            said(&with("secureClientPort=2181\n"))
                .iter()
                .any(|line| line.ends_with("are the same"))
        );
        assert_eq!(said(&Sources::new()).len(), 2);
    }

    #[test]
    fn session_timeouts() {
        let bounds = |text: &str| {
            let config = config(&with(text));
            (config.min_session_timeout_ms, config.max_session_timeout_ms)
        };
        assert_eq!(
            bounds("tickTime=100\nminSessionTimeout=-1\nmaxSessionTimeout=-1\n"),
            (200, 2000)
        );
        assert_eq!(bounds("minSessionTimeout=60000\n"), (60_000, 60_000));
        assert_eq!(bounds("tickTime=2147483647\n").1, 2_147_483_647);
        assert_eq!(
            said(&with("maxSessionTimeout=5000\n")),
            [
                "zoo.cfg:3: error: maxSessionTimeout: the shortest session timeout, 6000 ms, exceeds the longest, 5000 ms"
            ]
        );
        assert_eq!(
            said(&with("maxSessionTimeout=5000\nminSessionTimeout=5001\n")),
            [
                "zoo.cfg:4: error: minSessionTimeout: the shortest session timeout, 5001 ms, exceeds the longest, 5000 ms"
            ]
        );
    }

    #[test]
    fn my_id() {
        let id = |text: &str| with("extendedTypesEnabled=true\n").my_id("/d/myid", text);
        assert_eq!(config(&id("254\n")).my_id, Some(254));
        assert_eq!(
            said(&id("255\n")),
            [
                "/d/myid:1: error: with extendedTypesEnabled the server id must not exceed 254, but it is 255"
            ]
        );
        assert!(said(&id("one\n"))[0].starts_with("/d/myid:1: error: the myid file says `one`"));
        assert_eq!(config(&with("").my_id("m", "4000")).my_id, Some(4000));
        // A server that is alone needs none, and starts with what an ensemble's member does not.
        let unset = "the myid file says -1, which is no server id; write the number N of this machine's server.N line into it";
        assert_eq!(said(&with("").my_id("m", "-1")), [format!("m:1: warning: {unset}")]);
        let member = "server.1=a:2888:3888\nserver.2=b:2888:3888\nserver.3=c:2888:3888\ninitLimit=5\nsyncLimit=5\n";
        assert_eq!(said(&with(member).my_id("m", "-1")), [format!("m:1: error: {unset}")]);
    }

    #[test]
    fn the_server_line_gives_the_client_port() {
        let text = "dataDir=/d\nserver.1=localhost:2888:3888;2181\n";
        for sources in [sources(text), sources(text).my_id("m", "1")] {
            assert_eq!(config(&sources).client_listener, listener(None, 2181));
        }
        let other = sources(text).my_id("m", "2");
        assert_eq!(
            said(&other),
            [
                "zoo.cfg:2: warning: server.1: the only server line, while the myid file says 2",
                "zoo.cfg: error: clientPort: not set; no client could connect",
            ]
        );
        let agree =
            sources("dataDir=/d\nclientPort=2181\nserver.1=h:1:2;127.0.0.1:2181\n").my_id("m", "1");
        assert_eq!(config(&agree).client_listener, listener(Some("127.0.0.1"), 2181));
        for line in ["clientPort=2182\n", "clientPort=2181\nclientPortAddress=10.0.0.1\n"] {
            let found = sources(&format!("dataDir=/d\nserver.1=h:1:2;127.0.0.1:2181\n{line}"))
                .load()
                .diagnostics;
            assert_eq!(found.count(Severity::Error), 1, "{}", found.render());
            assert!(
                found.render().contains("but the line of server.1 says 127.0.0.1:2181"),
                "{}",
                found.render()
            );
        }
    }

    #[test]
    fn membership() {
        let errors = |text: &str| -> Vec<String> {
            let loaded = with(text).load();
            loaded
                .diagnostics
                .iter()
                .filter(|d| d.severity == Severity::Error)
                .map(ToString::to_string)
                .collect()
        };
        for (text, message) in [
            (
                "server.x=a:1:2\n",
                "zoo.cfg:3: error: server.x: `x` is not a whole number; allowed: 0 or more",
            ),
            (
                "server.1=a:1\n",
                "zoo.cfg:3: error: server.1: `a:1` does not have the form host:quorumPort:electionPort",
            ),
            (
                "server.1=a:1:2:observer\n",
                "zoo.cfg:3: error: server.1: there are observers but no participants",
            ),
            (
                "standaloneEnabled=false\n",
                "zoo.cfg:3: error: standaloneEnabled: with standaloneEnabled=false at least one",
            ),
            (
                "server.1=a:1:2|b:1:2\n",
                "zoo.cfg:3: error: server.1: several addresses need multiAddress.enabled=true",
            ),
            (
                "server.1=a:1:2\nserver.01=a:1:2\n",
                "zoo.cfg:3: error: server.1: this member is listed twice",
            ),
            (
                "group.1=1:x\n",
                "zoo.cfg:3: error: group.1: `1:x` is not a list of server ids such as 1:2:3",
            ),
            ("group.1=1:2\ngroup.2=2:3\n", "zoo.cfg:4: error: group.2: server 2 is in two groups"),
            (
                "weight.1=-1\n",
                "zoo.cfg:3: error: weight.1: `-1` is out of range; allowed: 0 or more",
            ),
            (
                "server.1=a:1:2\nweight.1=1\n",
                "zoo.cfg:3: error: server.1: with groups or weights every participant must be",
            ),
            (
                "quorum.auth.serverRequireSasl=true\n",
                "zoo.cfg:3: error: quorum.auth.serverRequireSasl: needs quorum.auth.enableSasl=true",
            ),
            (
                "server.1=a:1:2\nserver.2=b:1:2:observer\n",
                "zoo.cfg:3: error: server.1: one participant with observers needs standaloneEnabled=false",
            ),
            (
                "standaloneEnabled=false\nserver.1=a:1:2\nsyncLimit=5\n",
                "zoo.cfg: error: initLimit: not set; an ensemble needs it",
            ),
        ] {
            let all = errors(text);
            assert!(all.iter().any(|line| line.starts_with(message)), "{text}: {all:?}");
        }
        assert_eq!(
            errors("multiAddress.enabled=true\nserver.1=a:1:2|b:1:2\n"),
            Vec::<String>::new()
        );
    }

    #[test]
    fn ensemble_keys_are_kept_and_mentioned_once() {
        let sources = with(
            "initLimit=10\nsyncLimit=5\nsslQuorum=true\ncommitLogCount=1\nlocalSessionsEnabled=false\n",
        );
        let ensemble = config(&sources).ensemble;
        assert_eq!(
            (ensemble.init_limit_ticks, ensemble.connect_to_learner_master_limit_ticks),
            (10, 10)
        );
        assert_eq!((ensemble.sync_limit_ticks, ensemble.commit_log_count), (5, 500));
        assert_eq!(
            said(&sources),
            [
                "zoo.cfg:6: warning: commitLogCount: counts as 500, the least allowed",
                "zoo.cfg: note: used only in an ensemble: commitLogCount, initLimit, sslQuorum, syncLimit",
            ]
        );
    }

    #[test]
    fn dynamic_files() {
        let start = with("dynamicConfigFile=/c/zoo.cfg.dynamic.1f\n");
        let good = start
            .clone()
            .dynamic_file("/c/zoo.cfg.dynamic.1f", "server.1=a:1:2:participant;2181\n");
        let ensemble = config(&good).ensemble;
        assert_eq!((ensemble.members.len(), ensemble.version), (1, 0x1f));
        let bad = start.dynamic_file("/c/z", "server.1=a:1:2;2181\nversion=5\ntickTime=3\n");
        assert_eq!(
            said(&bad)[..2],
            [
                "/c/z:2: error: version: the version stands in the name of a dynamic file, not inside",
                "/c/z:3: error: tickTime: a dynamic file holds only server., group. and weight. lines",
            ]
        );
        let both = with("dynamicConfigFile=/c/z\nserver.1=a:1:2\n");
        assert_eq!(
            said(&both)[0],
            "zoo.cfg:4: error: server.1: this line belongs into the file that dynamicConfigFile names"
        );
    }
}

mod corpus {
    use super::*;

    fn parse(text: &str) -> (ServerConfig, Vec<String>) {
        let sources = sources(text).my_id("myid", "1\n");
        (config(&sources), said(&sources))
    }

    #[test]
    fn sample_debian_kafka() {
        let (config, said) = parse(include_str!("../testdata/sample.cfg"));
        assert_eq!((config.tick_time_ms, config.client_listener), (2000, listener(None, 2181)));
        assert_eq!(said, ["zoo.cfg: note: used only in an ensemble: initLimit, syncLimit"]);
        let (config, said) = parse(include_str!("../testdata/debian.cfg"));
        assert_eq!(config.data_dir, Path::new("/var/lib/zookeeper"));
        assert_eq!(said.len(), 1);
        let (config, said) = parse(include_str!("../testdata/kafka.properties"));
        assert_eq!((config.limits.max_client_cnxns, config.tick_time_ms), (None, 3000));
        assert_eq!(said, Vec::<String>::new());
    }

    #[test]
    fn docker_official() {
        let (config, said) = parse(include_str!("../testdata/docker-official.cfg"));
        assert_eq!(config.client_listener, listener(None, 2181));
        assert_eq!((config.my_id, config.data_log_dir), (Some(1), PathBuf::from("/datalog")));
        assert_eq!(config.storage.purge_interval_ms, None);
        assert!(config.four_letter_words.allows("ruok") && config.four_letter_words.allows("mntr"));
        assert!(!config.ensemble.is_distributed() && !config.ensemble.has_peers());
        assert_eq!(
            said,
            [
                "zoo.cfg:7: note: autopurge.purgeInterval: purging is off: the transaction log grows until the disk is full",
                "zoo.cfg:10: warning: admin.enableServer: no effect yet, it comes with the AdminServer",
                "zoo.cfg: note: used only in an ensemble: initLimit, syncLimit",
            ]
        );
    }

    #[test]
    fn bitnami() {
        let (config, said) = parse(include_str!("../testdata/bitnami.cfg"));
        assert_eq!(config.metrics.http, listener(Some("0.0.0.0"), 9141));
        assert_eq!(config.secure_client_listener, listener(None, 3181));
        assert_eq!(config.max_session_timeout_ms, 40_000);
        assert!(
            said.iter().any(|line| line.contains("requireClientAuthScheme: no effect in Paddock")),
            "{said:?}"
        );
        assert!(!said.iter().any(|line| line.contains("unknown key")), "{said:?}");
    }

    #[test]
    fn strimzi() {
        let (config, said) = parse(include_str!("../testdata/strimzi-single.cfg"));
        assert_eq!(config.client_listener, listener(Some("127.0.0.1"), 12181));
        assert_eq!(config.secure_client_listener, listener(None, 2181));
        assert!(config.ensemble.is_distributed() && !config.ensemble.has_peers());
        assert!(config.ensemble.ssl_quorum && config.ensemble.reconfig_enabled);
        assert_eq!(config.tls.quorum.stores.key_store.store_type.as_deref(), Some("PKCS12"));
        assert!(!said.iter().any(|line| line.contains("unknown key")), "{said:?}");
    }

    #[test]
    fn hbase() {
        let sources = sources(include_str!("../testdata/hbase.cfg")).my_id("myid", "0\n");
        let config = config(&sources);
        assert_eq!(config.client_listener, listener(None, 2181));
        assert_eq!(config.ensemble.members.keys().copied().collect::<Vec<_>>(), [0]);
        assert_eq!((config.tick_time_ms, config.limits.max_client_cnxns), (6000, Some(300)));
    }

    #[test]
    fn replicated() {
        let sources = sources(include_str!("../testdata/replicated.cfg")).my_id("myid", "2\n");
        let config = config(&sources);
        assert_eq!(config.member_id(), Some(2));
        let ensemble = &config.ensemble;
        assert_eq!((ensemble.members.len(), ensemble.voters().count()), (3, 2));
        assert_eq!(ensemble.members[&3].role, Role::Observer);
        assert_eq!((ensemble.init_limit_ticks, ensemble.sync_limit_ticks), (5, 2));
        assert!(ensemble.is_distributed() && ensemble.has_peers());
    }
}

mod files {
    use std::fs;

    use super::*;

    /// A folder of its own for one test, removed when it passes.
    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("zk-config-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the files are what is tested")]
    fn a_file_leads_to_the_dynamic_file_and_to_myid() {
        let folder = folder("all");
        let path = |name: &str| folder.join(name);
        fs::create_dir_all(path("data")).unwrap();
        fs::write(path("data/myid"), "3\n").unwrap();
        fs::write(path("zoo.cfg.dynamic.a"), "server.3=h:1:2;2191\n").unwrap();
        let text = format!(
            "dataDir={}\ndynamicConfigFile={}\n",
            path("data").display(),
            path("zoo.cfg.dynamic.a").display()
        );
        fs::write(path("zoo.cfg"), &text).unwrap();
        let config = Sources::new().load_file(&path("zoo.cfg")).accept(true).unwrap().0;
        assert_eq!((config.my_id, config.ensemble.version), (Some(3), 10));
        assert_eq!(config.client_listener, listener(None, 2191));
        assert_eq!(config.initial_config.reveal(), text);
        assert_eq!(check(&path("zoo.cfg")).exit_code(true), 0);
        fs::remove_file(path("zoo.cfg.dynamic.a")).unwrap();
        assert!(
            check(&path("zoo.cfg")).render().contains("zoo.cfg.dynamic.a: error: cannot be read")
        );
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the files are what is tested")]
    fn text_that_is_not_utf8_is_latin1() {
        let folder = folder("latin1");
        let file = folder.join("zoo.cfg");
        fs::write(&file, b"dataDir=/d\xe9\nclientPort=1\n").unwrap();
        let config = Sources::new().load_file(&file).accept(true).unwrap().0;
        assert_eq!(config.data_dir, Path::new("/d\u{e9}"));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_missing_file_is_an_error() {
        let found = check(Path::new("/nonexistent/zoo.cfg"));
        assert_eq!(found.exit_code(false), 2);
        assert!(
            found.render().starts_with("/nonexistent/zoo.cfg: error: cannot be read: "),
            "{}",
            found.render()
        );
        let found = check(&std::env::temp_dir());
        assert_eq!(found.exit_code(false), 2);
    }
}
