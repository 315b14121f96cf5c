use super::*;
use crate::admin::testing::{
    FIRST_SESSION, connect, context, create, establish, member, read_only_member, standing, watch,
};
use zk_config::FOUR_LETTER_WORDS;

const ALL: &str = "4lw.commands.whitelist=*\n";

fn detected(bytes: &[u8]) -> (Detected, Vec<u8>) {
    let mut unread = BytesMut::from(bytes);
    let detected = detect(&mut unread, &context(ALL).config.four_letter_words);
    (detected, unread.to_vec())
}

fn word(text: &str) -> Word {
    match detected(text.as_bytes()) {
        (Detected::Word(word), _) => word,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn every_word_is_detected() {
    for name in FOUR_LETTER_WORDS {
        let mut bytes = name.as_bytes().to_vec();
        if name == "stmk" {
            bytes.extend_from_slice(&7i64.to_be_bytes());
        }
        for end in ["", "\n", "\r\n"] {
            let bytes = [&bytes, end.as_bytes()].concat();
            let (Detected::Word(word), rest) = detected(&bytes) else { panic!("{name}") };
            assert_eq!((word.name(), rest), (name, vec![]), "{end:?}");
        }
    }
    assert_eq!(detected(&TELNET_CLOSE).0, Detected::Word(Word::TelnetClose));
}

#[test]
fn only_one_line_end_is_taken() {
    assert_eq!(detected(b"ruok\n\nx").1, b"\nx");
    assert_eq!(detected(b"ruok\r").1, b"\r");
    assert_eq!(detected(b"ruok!\n").1, b"!\n");
}

#[test]
fn what_is_no_word_is_left_alone() {
    let frame = [0, 0, 0, 45, 0, 0, 0, 0];
    assert_eq!(detected(&frame), (Detected::No, frame.to_vec()));
    assert_eq!(detected(b"RUOK"), (Detected::No, b"RUOK".to_vec()));
    assert_eq!(detected(b"lead\n"), (Detected::No, b"lead\n".to_vec()));
    for bytes in [&b""[..], b"r", b"ruo", &[0, 0, 0]] {
        assert_eq!(detected(bytes), (Detected::Incomplete, bytes.to_vec()));
    }
}

#[test]
fn stmk_is_refused_without_its_mask() {
    let mut unread = BytesMut::from(&b"stmk"[..]);
    let whitelist = context("4lw.commands.whitelist=ruok\n").config.four_letter_words.clone();
    assert_eq!(detect(&mut unread, &whitelist), Detected::Word(Word::Stmk(0)));
}

#[test]
fn stmk_waits_for_its_mask() {
    let mask = (-2i64).to_be_bytes();
    for len in 0..8 {
        let bytes = [b"stmk", &mask[..len]].concat();
        assert_eq!(detected(&bytes), (Detected::Incomplete, bytes), "{len}");
    }
    // The mask may look like a line end, and still be one.
    let mut bytes = [&b"stmk"[..], &0x0d0a_0a0a_0a0a_0a0ai64.to_be_bytes()].concat();
    bytes.extend_from_slice(b"\r\nrest");
    assert_eq!(
        detected(&bytes),
        (Detected::Word(Word::Stmk(0x0d0a_0a0a_0a0a_0a0a)), b"rest".to_vec())
    );
}

#[test]
fn what_is_not_on_the_list_is_refused() {
    let context = context("");
    for name in FOUR_LETTER_WORDS.iter().filter(|name| **name != "srvr") {
        let word = if *name == "stmk" { Word::Stmk(1) } else { word(name) };
        let text = answer(&context, &word);
        assert_eq!(text, format!("{name} is not executed because it is not in the whitelist.\n"));
    }
    assert!(answer(&context, &Word::Srvr).starts_with("Zookeeper version: 3.9."));
    assert_eq!(
        answer(&context, &Word::TelnetClose),
        "telnet close is not executed because it is not in the whitelist.\n"
    );
    assert_eq!(context.counters.trace_mask.0.load(Ordering::Relaxed), 306, "nothing was set");
    let context = self::context("4lw.commands.whitelist=ruok, mntr\n");
    assert_eq!(answer(&context, &Word::Ruok), "imok");
    assert!(answer(&context, &Word::Mntr).starts_with("zk_version\t"));
    assert!(answer(&context, &Word::Stat).contains("not in the whitelist"));
}

#[test]
fn short_answers() {
    let context = context(ALL);
    assert_eq!(answer(&context, &Word::Ruok), "imok");
    assert_eq!(answer(&context, &Word::Isro), "rw");
    assert_eq!(answer(&context, &Word::Gtmk), "306");
    assert_eq!(answer(&context, &Word::Stmk(-1)), "-1");
    assert_eq!(answer(&context, &Word::Gtmk), "-1");
}

#[test]
fn an_empty_server() {
    let context = context(ALL);
    let expected = format!(
        "Zookeeper version: {BANNER}\nLatency min/avg/max: 0/0.0/0\nReceived: 0\nSent: 0\n\
         Connections: 0\nOutstanding: 0\nZxid: 0x0\nMode: standalone\nNode count: 5\n"
    );
    assert_eq!(answer(&context, &Word::Srvr), expected);
    assert_eq!(answer(&context, &Word::Cons), "\n");
    assert_eq!(answer(&context, &Word::Wchs), "0 connections watching 0 paths\nTotal watches:0\n");
    assert_eq!(answer(&context, &Word::Wchc), "\n");
    assert_eq!(answer(&context, &Word::Wchp), "\n");
    assert_eq!(
        answer(&context, &Word::Dump),
        "SessionTracker dump:\nSession Sets (0)/(0):\nephemeral nodes dump:\n\
         Sessions with Ephemerals (0):\nConnections dump:\nConnections Sets (0)/(0):\n"
    );
}

/// `LeaderSessionTracker.dumpSessions` and `LearnerSessionTracker.dumpSessions`, without and with local
/// sessions.
#[test]
fn sessions_in_a_dump_of_each_role() {
    let none = Vec::new();
    let local = vec![(1_700_000_000_000, vec!["0x2".to_owned()])];
    let leads = text::Global::ByExpiry(Vec::new());
    let follows = text::Global::Timeouts([(SessionId(0x1f), 4000)].into());
    let sessions = |local, global| {
        let text = text::dump(local, global, &[], &none);
        let (_, text) = text.split_once("SessionTracker dump:\n").unwrap();
        text.split_once("ephemeral nodes dump:\n").unwrap().0.to_owned()
    };
    assert_eq!(sessions(None, &leads), "Session Sets (0)/(0):\n");
    assert_eq!(sessions(None, &follows), "Global Sessions(1):\n0x1f\t4000ms\n");
    let both = sessions(Some(&local), &leads);
    assert!(both.starts_with("Local Session Sets (1)/(1):\n1 expire at "), "{both}");
    assert!(both.ends_with(":\n\t0x2\nGlobal Session Sets (0)/(0):\n"), "{both}");
    let both = sessions(Some(&local), &follows);
    assert!(both.starts_with("Local Session Sets (1)/(1):\n1 expire at "), "{both}");
    assert!(both.ends_with(":\n\t0x2\nGlobal Sessions(1):\n0x1f\t4000ms\n"), "{both}");
}

#[test]
fn sessions_ephemerals_and_watches() {
    let context = context(ALL);
    let client = connect(&context, "10.0.0.7:4000");
    establish(&context, &client);
    create(&context, &client, "/e", "12345", true);
    watch(&context, &client, "/e");
    watch(&context, &client, "/zookeeper");
    let asking = connect(&context, "127.0.0.1:5000");

    let id = format!("0x{:x}", client.info().session.0);
    assert_eq!(client.info().session, FIRST_SESSION);
    assert_eq!(answer(&context, &Word::Wchs), "1 connections watching 2 paths\nTotal watches:2\n");
    assert_eq!(answer(&context, &Word::Wchc), format!("{id}\n\t/e\n\t/zookeeper\n\n"));
    assert_eq!(answer(&context, &Word::Wchp), format!("/e\n\t{id}\n/zookeeper\n\t{id}\n\n"));

    let dump = answer(&context, &Word::Dump);
    assert!(
        dump.starts_with("SessionTracker dump:\nSession Sets (1)/(1):\n1 expire at "),
        "{dump}"
    );
    assert!(dump.contains(&format!(":\n\t{id}\nephemeral nodes dump:\n")), "{dump}");
    assert!(dump.contains(&format!("Sessions with Ephemerals (1):\n{id}:\n\t/e\n")), "{dump}");
    assert!(dump.contains("Connections dump:\nConnections Sets (2)/(2):\n1 expire at "), "{dump}");
    assert!(dump.contains(&format!("\tip: /10.0.0.7:4000 sessionId: {id}\n")), "{dump}");
    assert!(dump.contains("\tip: /127.0.0.1:5000 sessionId: 0x0\n"), "{dump}");

    let cons = answer(&context, &Word::Cons);
    let start = format!(" /10.0.0.7:4000[1](queued=0,recved=4,sent=4,sid={id},lop=GETD,est=");
    assert!(cons.starts_with(&start), "{cons}");
    assert!(cons.contains(",to=10000,lcxid=0x2,lzxid=0x2,lresp="), "{cons}");
    assert!(cons.ends_with(")\n /127.0.0.1:5000[0](queued=0,recved=0,sent=0)\n\n"), "{cons}");

    let stat = answer(&context, &Word::Stat);
    let clients = "\nClients:\n /10.0.0.7:4000[1](queued=0,recved=4,sent=4)\n \
                   /127.0.0.1:5000[0](queued=0,recved=0,sent=0)\n\nLatency min/avg/max: ";
    assert!(stat.contains(clients), "{stat}");
    assert!(
        stat.contains("\nConnections: 2\nOutstanding: 0\nZxid: 0x2\nMode: standalone\n"),
        "{stat}"
    );

    context.node.on_closed(&asking);
    assert_eq!(answer(&context, &Word::Crst), "Connection stats reset.\n");
    let cons = answer(&context, &Word::Cons);
    let reset = format!("recved=0,sent=0,sid={id},lop=NA,est=");
    assert!(
        cons.contains(&reset) && cons.contains(",to=10000,lzxid=0xffffffffffffffff,"),
        "{cons}"
    );
    assert_eq!(answer(&context, &Word::Srst), "Server stats reset.\n");
    let srvr = answer(&context, &Word::Srvr);
    assert!(srvr.contains("0/0.0/0\nReceived: 0\nSent: 0\nConnections: 1\n"), "{srvr}");
}

#[test]
fn folders_and_configuration() {
    let folders = tempfile::tempdir().unwrap();
    let [data, log] = ["data", "log"].map(|name| folders.path().join(name));
    std::fs::create_dir(&data).unwrap();
    std::fs::create_dir(&log).unwrap();
    std::fs::write(data.join("a"), [0; 100]).unwrap();
    std::fs::write(log.join("b"), [0; 200]).unwrap();
    let context = context(ALL);
    let mut context = Arc::into_inner(context).unwrap();
    context.config.data_dir.clone_from(&data);
    context.config.data_log_dir.clone_from(&log);
    assert_eq!(answer(&context, &Word::Dirs), "datadir_size: 100\nlogdir_size: 200\n");
    assert_eq!(
        answer(&context, &Word::Conf),
        format!(
            "clientPort=2181\nsecureClientPort=-1\ndataDir={}\ndataDirSize=100\ndataLogDir={}\n\
             dataLogSize=200\ntickTime=3000\nmaxClientCnxns=60\nminSessionTimeout=6000\n\
             maxSessionTimeout=60000\nclientPortListenBacklog=-1\nserverId=0\n",
            data.display(),
            log.display()
        )
    );
}

#[test]
fn the_environment_has_upstream_s_keys() {
    let text = answer(&context(ALL), &Word::Envi);
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("Environment:"));
    let keys: Vec<_> = lines.map(|line| line.split_once('=').unwrap().0).collect();
    let expected = [
        "zookeeper.version",
        "host.name",
        "java.version",
        "java.vendor",
        "java.home",
        "java.class.path",
        "java.library.path",
        "java.io.tmpdir",
        "java.compiler",
        "os.name",
        "os.arch",
        "os.version",
        "user.name",
        "user.home",
        "user.dir",
        "os.memory.free",
        "os.memory.max",
        "os.memory.total",
    ];
    assert_eq!(keys, expected);
    assert!(text.contains("\nos.name=Linux\n") && text.ends_with("MB\n"), "{text}");
}

#[test]
fn digests_of_every_128th_transaction() {
    let context = context(ALL);
    let client = connect(&context, "127.0.0.1:4000");
    establish(&context, &client);
    let mut digests = Vec::new();
    for zxid in 2..=300 {
        create(&context, &client, &format!("/n{zxid}"), "x", false);
        let now = context.node.read(|db| (db.tree.last_zxid().0, db.tree.digest().cast_signed()));
        assert_eq!(now.0, zxid);
        digests.push(now);
    }
    let at = |zxid: i64| digests.iter().find(|(at, _)| *at == zxid).unwrap().1;
    let expected = format!("80: {}\n100: {}\n", at(128), at(256));
    assert_eq!(answer(&context, &Word::Hash), expected);
}

/// Telegraf's pattern, with nothing behind it: `^zk_(\w+)\s+([\w\.\-]+)$`. Only a znode's own name may
/// bring a dash into a key, as it does with upstream.
fn is_word(text: &str, also: &str) -> bool {
    !text.is_empty()
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || also.contains(c))
}

#[test]
fn mntr_keeps_to_the_form_that_monitors_parse() {
    let context = context(ALL);
    let client = connect(&context, "127.0.0.1:4000");
    establish(&context, &client);
    create(&context, &client, "/zookeeper/quota/a-b c", "", false);
    create(&context, &client, "/zookeeper/quota/a-b c/zookeeper_limits", "count=5,bytes=-1", false);
    create(&context, &client, "/zookeeper/quota/a-b c/zookeeper_stats", "count=1,bytes=0", false);
    let text = answer(&context, &Word::Mntr);
    let mut keys = std::collections::BTreeSet::new();
    for line in text.lines().skip(1) {
        let (key, value) = line.split_once('\t').unwrap();
        let named = if key.ends_with("_per_namespace") { "-" } else { "" };
        assert!(key.starts_with("zk_") && is_word(key, named) && is_word(value, ".-"), "{line}");
        assert!(value == "standalone" || value.parse::<f64>().unwrap().is_finite(), "{line}");
        assert!(keys.insert(key.to_owned()), "twice: {key}");
    }
    assert!(text.contains("\nzk_a-b_c_quota_count_limit_per_namespace\t5\n"), "{text}");
    let classic = [
        "zk_version",
        "zk_server_state",
        "zk_avg_latency",
        "zk_max_latency",
        "zk_min_latency",
        "zk_packets_received",
        "zk_packets_sent",
        "zk_num_alive_connections",
        "zk_outstanding_requests",
        "zk_znode_count",
        "zk_watch_count",
        "zk_ephemerals_count",
        "zk_approximate_data_size",
        "zk_open_file_descriptor_count",
        "zk_max_file_descriptor_count",
        "zk_fsync_threshold_exceed_count",
        "zk_uptime",
    ];
    let first: Vec<_> =
        text.lines().take(classic.len()).map(|line| line.split('\t').next().unwrap()).collect();
    assert_eq!(first, classic);
    let avg = text.lines().find_map(|line| line.strip_prefix("zk_avg_latency\t")).unwrap();
    assert!(avg.contains('.'), "a float: {avg}");
    assert!(text.contains("\nzk_server_state\tstandalone\n"));
    assert!(text.contains("\nzk_global_sessions\t1\n"), "{text}");
}

#[test]
fn members_tell_their_role() {
    for (state, mode) in [
        (PeerState::Leading, "leader"),
        (PeerState::Following, "follower"),
        (PeerState::Observing, "observer"),
    ] {
        let standing = standing(state);
        let context = member(ALL, standing.id.0.unsigned_abs());
        let ask = |word| answer_as(&context, &word, Some(&standing));
        let srvr = ask(Word::Srvr);
        assert!(srvr.contains(&format!("\nMode: {mode}\nNode count: 5\n")), "{srvr}");
        let leads = state == PeerState::Leading;
        assert_eq!(srvr.ends_with("\nProposal sizes last/min/max: -1/-1/-1\n"), leads, "{srvr}");
        assert_eq!(srvr.contains("Proposal"), leads);
        assert!(ask(Word::Stat).contains("\nClients:\n"));
        assert_eq!(ask(Word::Isro), "rw");
        let mntr = ask(Word::Mntr);
        let state = mntr.lines().skip(1).take(3).collect::<Vec<_>>().join("|");
        let expected = match mode {
            "leader" => {
                "zk_server_state\tleader|zk_peer_state\tleading - broadcast|zk_avg_latency\t0.0"
            }
            "follower" => {
                "zk_server_state\tfollower|zk_peer_state\tfollowing - broadcast|zk_avg_latency\t0.0"
            }
            _ => {
                "zk_server_state\tobserver|zk_peer_state\tobserving - broadcast|zk_observer_master_id\t3"
            }
        };
        assert_eq!(state, expected);
        assert!(mntr.contains("\nzk_quorum_size\t3\n"), "{mntr}");
        // Monitors of old look for these three, within what collectd reads.
        let first = &mntr[..mntr.len().min(4096)];
        for line in ["zk_learners\t3", "zk_synced_followers\t2", "zk_synced_observers\t1"] {
            assert_eq!(first.contains(&format!("\n{line}\n")), leads, "{line}: {first}");
        }
        assert_eq!(ask(Word::Srst), "Server stats reset.\n");
    }
}

#[test]
fn a_member_without_a_quorum_says_so() {
    let context = member(ALL, 2);
    let standing = standing(PeerState::Looking);
    let ask = |word| answer_as(&context, &word, Some(&standing));
    for name in FOUR_LETTER_WORDS {
        let asked = if name == "stmk" { Word::Stmk(5) } else { word(name) };
        let text = ask(asked);
        let refused = "This ZooKeeper instance is not currently serving requests";
        match name {
            "isro" => assert_eq!(text, "null"),
            "ruok" => assert_eq!(text, "imok"),
            "hash" => assert_eq!(text, refused),
            "envi" => assert!(text.starts_with("Environment:\n")),
            "gtmk" | "stmk" => assert!(text.parse::<i64>().is_ok(), "{text}"),
            _ => assert_eq!(text, format!("{refused}\n"), "{name}"),
        }
    }
    // The list goes before the state.
    let closed = member("4lw.commands.whitelist=ruok\n", 2);
    assert!(answer_as(&closed, &Word::Mntr, Some(&standing)).contains("not in the whitelist"));
}

#[test]
fn a_read_only_member_says_so() {
    let context = read_only_member(ALL, 2);
    let client = connect(&context, "127.0.0.1:4000");
    establish(&context, &client);
    let ask = |word: &str| answer(&context, &self::word(word));
    assert_eq!(ask("isro"), "ro");
    let warning = "\nREAD-ONLY mode; serving only read-only clients\n";
    let stat = ask("stat");
    assert!(stat.contains(&format!("{warning}Clients:\n /127.0.0.1:4000[1](")), "{stat}");
    let srvr = ask("srvr");
    assert!(srvr.contains(&format!("{warning}Latency")), "{srvr}");
    assert!(srvr.ends_with("\nMode: read-only\nNode count: 5\n"), "{srvr}");
    let mntr = ask("mntr");
    for line in ["zk_server_state\tread-only", "zk_local_sessions\t1", "zk_global_sessions\t0"] {
        assert!(mntr.contains(&format!("\n{line}\n")), "{line}: {mntr}");
    }
    // It is no server of a quorum.
    assert!(!mntr.contains("zk_peer_state") && !mntr.contains("zk_quorum_size"), "{mntr}");
    assert!(ask("conf").ends_with("\nquorumPort=27012\npeerType=0\n"), "{}", ask("conf"));
    let quor = ask("quor");
    assert!(
        quor.contains("\"mode\":\"read-only\"") && quor.contains("\"serving\":false"),
        "{quor}"
    );
}

#[test]
fn a_member_tells_its_configuration() {
    let observer = answer_as(&member(ALL, 4), &Word::Conf, Some(&standing(PeerState::Observing)));
    let end = "serverId=4\ninitLimit=10\nsyncLimit=5\nelectionAlg=3\nelectionPort=27024\n\
               quorumPort=27014\npeerType=1\nmembership: \n\
               server.1=127.0.0.1:27011:27021:participant;127.0.0.1:27001\n\
               server.2=127.0.0.1:27012:27022:participant\n\
               server.3=127.0.0.1:27013:27023:participant\n\
               server.4=127.0.0.1:27014:27024:observer\nversion=0";
    assert!(observer.ends_with(end), "{observer}");
    let voter = answer_as(&member(ALL, 1), &Word::Conf, Some(&standing(PeerState::Following)));
    assert!(voter.contains("\nserverId=1\n") && voter.contains("\npeerType=0\n"), "{voter}");
    assert!(voter.starts_with("clientPort=27001\n"), "{voter}");
}

#[test]
fn quor_is_answered_unless_other_words_are_named() {
    let ask = |list: &str| answer(&context(list), &word("quor"));
    assert!(ask("").starts_with("{\"mode\":\"standalone\",\"serving\":true,"));
    assert!(ask("4lw.commands.whitelist=*\n").starts_with('{'));
    assert!(ask("4lw.commands.whitelist=quor\n").starts_with('{'));
    assert_eq!(
        ask("4lw.commands.whitelist=mntr\n"),
        "quor is not executed because it is not in the whitelist.\n"
    );
}
