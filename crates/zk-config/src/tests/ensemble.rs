//! Configurations of several servers.

use super::*;

const THREE: &str = "server.1=a:2888:3888\nserver.2=b:2888:3888\nserver.3=c:2888:3888\n";

/// A file of server 1 with limits, and `text` from line 5 on.
fn of(text: &str) -> Sources {
    with(&format!("initLimit=10\nsyncLimit=5\n{text}")).my_id("/d/myid", "1\n")
}

/// Findings of a severity.
fn found(sources: &Sources, severity: Severity) -> Vec<String> {
    let diagnostics = sources.load().diagnostics;
    diagnostics.iter().filter(|d| d.severity == severity).map(ToString::to_string).collect()
}

fn errors(text: &str) -> Vec<String> {
    found(&of(text), Severity::Error)
}

fn warnings(text: &str) -> Vec<String> {
    assert_eq!(errors(text), Vec::<String>::new());
    found(&of(text), Severity::Warning)
}

#[test]
fn three_servers_are_an_ensemble() {
    let sources = of(THREE);
    let config = config(&sources);
    assert_eq!(config.member_id(), Some(1));
    assert_eq!(config.client_listener, listener(None, 2181));
    let ensemble = &config.ensemble;
    assert!(ensemble.is_distributed() && ensemble.has_peers());
    assert_eq!(ensemble.voters().count(), 3);
    assert_eq!(
        ensemble.members[&2].address(),
        &MemberAddress { host: "b".into(), quorum_port: 2888, election_port: 3888 }
    );
    assert_eq!(
        said(&sources),
        ["zoo.cfg: note: an ensemble of 3 participants, of which 1 participant may fail; \
             this is server.1, a participant"]
    );
    let five: String = (1..=5).map(|n| format!("server.{n}=h{n}:1:2\n")).collect();
    let five = of(&format!(
        "{five}server.6=h6:1:2:observer\nserver.7=h7:1:2:observer\npeerType=observer\n"
    ))
    .my_id("/d/myid", "7\n");
    assert_eq!(
        said(&five),
        ["zoo.cfg: note: an ensemble of 5 participants and 2 observers, of which 2 participants \
             may fail; this is server.7, an observer"]
    );
}

#[test]
fn keys_between_members_have_their_effect() {
    let sources = of(&format!(
        "{THREE}connectToLearnerMasterLimit=7\nleaderServes=no\nelectionAlg=3\ncnxTimeout=700\n\
         electionPortBindRetry=0\nquorumListenOnAllIPs=true\nleaderConnectDelayDuringRetryMs=50\n\
         fastleader.minNotificationInterval=20\nfastleader.maxNotificationInterval=300\n\
         commitLogCount=600\nsnapshotSizeFactor=-1\nforceSnapshotSync=true\n\
         leader.maxConcurrentSnapSyncs=3\ntcpKeepAlive=true\n\
         quorumCnxnTimeoutMs=900\npeerType=participant\n"
    ));
    assert_eq!(found(&sources, Severity::Warning), Vec::<String>::new());
    let ensemble = config(&sources).ensemble;
    assert_eq!(
        (
            ensemble.init_limit_ticks,
            ensemble.sync_limit_ticks,
            ensemble.connect_to_learner_master_limit_ticks
        ),
        (10, 5, 7)
    );
    assert!(
        !ensemble.leader_serves && ensemble.quorum_listen_on_all_ips && ensemble.tcp_keep_alive
    );
    assert_eq!((ensemble.cnx_timeout_ms, ensemble.quorum_cnxn_timeout_ms), (700, Some(900)));
    assert_eq!(ensemble.election_port_bind_retry, None);
    assert_eq!(ensemble.leader_connect_delay_during_retry_ms, 50);
    assert_eq!(
        (ensemble.min_notification_interval_ms, ensemble.max_notification_interval_ms),
        (20, 300)
    );
    assert_eq!(ensemble.commit_log_count, 600);
    assert!(ensemble.snapshot_size_factor < 0.0 && ensemble.force_snapshot_sync);
    assert_eq!(ensemble.leader_max_concurrent_snap_syncs, 3);
    let defaults = config(&of(THREE)).ensemble;
    assert_eq!(defaults.connect_to_learner_master_limit_ticks, 10);
    assert!(defaults.leader_serves && defaults.db_autocreate && !defaults.force_snapshot_sync);
    assert_eq!(defaults.election_port_bind_retry, Some(3));
    assert_eq!(defaults.quorum_cnxn_timeout_ms, None);
}

#[test]
fn the_text_is_what_zookeeper_writes() {
    let ensemble = config(&of(
        "server.10=h:1:2:OBSERVER;2191\nserver.1=127.0.0.1:2888:3888;127.0.0.1:2181\n\
         server.2=[2001:db8::1]:2888:3888:participant;[::1]:2181\nserver.3=zk3.example.com:2888:3888\n",
    ))
    .ensemble;
    assert_eq!(
        ensemble.text(),
        "server.1=127.0.0.1:2888:3888:participant;127.0.0.1:2181\n\
         server.2=[2001:db8:0:0:0:0:0:1]:2888:3888:participant;[0:0:0:0:0:0:0:1]:2181\n\
         server.3=zk3.example.com:2888:3888:participant\n\
         server.10=h:1:2:observer;0.0.0.0:2191\n"
    );
    // What is written is read back as the same.
    for (id, member) in &ensemble.members {
        let again = Member::parse(*id, &member.to_string(), false).unwrap();
        assert_eq!(again.to_string(), member.to_string());
        assert_eq!((again.role, again.addresses.len()), (member.role, member.addresses.len()));
    }
    let secure = |text| Member::parse(1, text, true).unwrap().to_string();
    assert_eq!(secure("h:1:2;;2281"), "h:1:2:participant;;0.0.0.0:2281");
    assert_eq!(secure("h:1:2;1;2"), "h:1:2:participant;0.0.0.0:1;0.0.0.0:2");
    assert_eq!(secure("b:1:2|a:3:4:observer"), "a:3:4|b:1:2:observer");
}

#[test]
fn the_limits_are_required() {
    let sources = with(THREE).my_id("m", "1");
    assert_eq!(
        found(&sources, Severity::Error),
        [
            "zoo.cfg: error: initLimit: not set; an ensemble needs it",
            "zoo.cfg: error: syncLimit: not set; an ensemble needs it",
        ]
    );
    assert_eq!(
        errors(&format!("{THREE}fastleader.maxNotificationInterval=100\n")),
        ["zoo.cfg: error: fastleader.minNotificationInterval: 200 ms exceeds \
             fastleader.maxNotificationInterval, 100 ms"]
    );
}

#[test]
fn a_member_must_know_which_one_it_is() {
    let with_id = |text: &str| of(THREE).my_id("/d/myid", text);
    let missing = with(&format!("initLimit=10\nsyncLimit=5\n{THREE}"));
    assert_eq!(
        found(&missing, Severity::Error),
        [
            "/d/myid: error: the file is missing; write the number N of this machine's server.N line \
             into it"
        ]
    );
    assert_eq!(missing.load().diagnostics.exit_code(false), 2);
    for (text, message) in [
        ("", "/d/myid:1: error: the myid file is empty"),
        ("one\n", "/d/myid:1: error: the myid file says `one`; it must be one whole number"),
        ("-1\n", "/d/myid:1: error: the myid file says -1, which is no server id"),
        (
            "7\n",
            "/d/myid:1: error: it says 7, but there is no line server.7; there are server.1, \
             server.2, server.3",
        ),
    ] {
        let errors = found(&with_id(text), Severity::Error);
        assert!(errors.len() == 1 && errors[0].starts_with(message), "{text}: {errors:?}");
        assert_eq!(with_id(text).load().config.and_then(|config| config.member_id()), None);
    }
    // Alone nobody asks.
    let alone = with("server.1=a:1:2\n");
    assert_eq!(found(&alone, Severity::Error), Vec::<String>::new());
    assert_eq!(config(&alone).member_id(), None);
}

#[test]
fn one_server_may_be_an_ensemble() {
    let sources = of("standaloneEnabled=false\nserver.1=a:1:2\n");
    let config = config(&sources);
    assert_eq!(config.member_id(), Some(1));
    assert!(config.ensemble.is_distributed() && !config.ensemble.has_peers());
    assert_eq!(
        said(&sources),
        [
            "zoo.cfg: note: an ensemble of 1 participant, of which none may fail; this is server.1, a \
             participant"
        ]
    );
}

#[test]
fn ids_that_would_give_sessions_the_same_ids_are_refused() {
    let two = "server.1=a:1:2\nserver.2=b:1:2\n";
    assert_eq!(
        errors(&format!("{two}server.257=c:1:2\n")),
        [
            "zoo.cfg:7: error: server.257: its sessions would have the ids of those of server.1: use \
             ids from 1 to 255"
        ]
    );
    assert_eq!(
        warnings(&format!("{two}server.300=c:1:2\n")),
        ["zoo.cfg:7: warning: server.300: the id is not between 1 and 255"]
    );
    // As HBase numbers them.
    let zero = of("server.0=a:1:2\nserver.1=b:1:2\nserver.2=c:1:2\n").my_id("m", "0");
    assert_eq!(config(&zero).member_id(), Some(0));
}

#[test]
fn wrong_server_lists() {
    let duplicate = format!("{THREE}server.2=d:2888:3888\n");
    assert_eq!(
        errors(&duplicate),
        ["zoo.cfg:8: error: server.2: set again here; this value wins over the one on line 6"]
    );
    for (lines, message) in [
        (
            "server.1=a:1:2\nserver.2=A:1:3\nserver.3=c:1:2\n",
            "zoo.cfg:6: error: server.2: A:1 is the quorum port of server.1 and the quorum port of \
             server.2",
        ),
        (
            "server.1=a:1:2\nserver.2=a:2:3\nserver.3=c:1:2\n",
            "zoo.cfg:6: error: server.2: a:2 is the election port of server.1 and the quorum port of \
             server.2",
        ),
        (
            "server.1=a:1:2;2181\nserver.2=a:3:4;2181\nserver.3=c:1:2;2181\n",
            "zoo.cfg:6: error: server.2: a:2181 is the client port of server.1 and the client port of \
             server.2",
        ),
        (
            "server.1=a:1:2181;2181\nserver.2=b:3:4\nserver.3=c:1:2\n",
            "zoo.cfg:5: error: server.1: a:2181 is the election port of server.1 and the client port \
             of server.1",
        ),
    ] {
        assert_eq!(errors(lines), [message], "{lines}");
    }
    // Each on its own machine.
    let local = "server.1=a:1:2;127.0.0.1:2181\nserver.2=b:1:2;127.0.0.1:2181\n\
                 server.3=c:1:2;127.0.0.1:2181\n";
    assert_eq!(errors(local), Vec::<String>::new());
    assert!(
        errors("server.1=a:1:2:observer\nserver.2=b:1:2:observer\n")
            .iter()
            .any(|line| line.ends_with("there are observers but no participants"))
    );
    assert_eq!(
        warnings("server.1=a:1:2\nserver.2=b:1:2\n"),
        ["zoo.cfg:5: warning: server.1: with two participants no failure is tolerated; three are \
             needed for that"]
    );
    let four: String = (1..=4).map(|n| format!("server.{n}=h{n}:1:2\n")).collect();
    assert_eq!(
        warnings(&four),
        ["zoo.cfg:5: warning: server.1: 4 participants tolerate no more failures than 3"]
    );
    assert_eq!(warnings(&format!("{four}server.5=h5:1:2:observer\n")).len(), 1);
}

#[test]
fn the_server_line_goes_before_peer_type() {
    let observer = "server.1=a:1:2:observer\nserver.2=b:1:2\nserver.3=c:1:2\nserver.4=d:1:2\n";
    assert_eq!(warnings(&format!("{observer}peerType=observer\n")), Vec::<String>::new());
    assert_eq!(
        said(&of(observer))[0],
        "zoo.cfg:5: note: server.1: ZooKeeper wants peerType=observer beside this line"
    );
    let contradiction = format!("{THREE}peerType=observer\n");
    assert_eq!(
        warnings(&contradiction),
        [
            "zoo.cfg:8: warning: peerType: says observer, but the line of server.1 says participant: \
             the line counts"
        ]
    );
    assert_eq!(config(&of(&contradiction)).ensemble.members[&1].role, Role::Participant);
}

/// Nine servers, on lines 5 to 13.
fn nine() -> String {
    (1..=9).map(|n| format!("server.{n}=h{n}:1:2\n")).collect()
}

#[test]
fn groups_and_weights_count_quorums() {
    let groups = "group.1=1:2:3\ngroup.2=4:5:6:\ngroup.3=9:8:7\nweight.9=0\nweight.4=2\n";
    let sources = of(&format!("{}{groups}", nine()));
    assert_eq!(
        said(&sources),
        [
            "zoo.cfg: note: an ensemble of 9 participants in 3 groups, of which 1 participant may fail; \
             this is server.1, a participant"
        ]
    );
    let ensemble = config(&sources).ensemble;
    assert!(ensemble.is_hierarchical());
    assert_eq!(ensemble.groups[&3], [7, 8, 9].into());
    assert_eq!([1, 4, 9, 10].map(|id| ensemble.weight(id)), [Some(1), Some(2), Some(0), None]);
    let text = ensemble.text();
    let (members, hierarchy) = text.split_once("group.").unwrap();
    assert_eq!(members.lines().count(), 9);
    // Every participant's weight is written, as ZooKeeper does.
    assert_eq!(
        hierarchy,
        "1=1:2:3\ngroup.2=4:5:6\ngroup.3=7:8:9\nweight.1=1\nweight.2=1\nweight.3=1\nweight.4=2\n\
         weight.5=1\nweight.6=1\nweight.7=1\nweight.8=1\nweight.9=0\n"
    );
    let weightless = sources.my_id("m", "9");
    assert!(said(&weightless)[0].ends_with("a participant without weight, which is never elected"));
    // In a file of its own.
    let dynamic = sources_with_dynamic_file(&format!("{}{groups}", nine()));
    assert_eq!(config(&dynamic).ensemble.text(), text);
}

/// What Apache ZooKeeper 3.9.5 has in `/zookeeper/config` for the same lines.
#[test]
fn the_text_of_groups_and_weights_is_what_zookeeper_writes() {
    let lines = "server.1=127.0.0.1:14281:14282\nserver.2=127.0.0.1:15054:15055\n\
                 server.3=127.0.0.1:13604:13605\nserver.12=127.0.0.1:13607:13606\n\
                 server.5=127.0.0.1:2999:3999:observer\ngroup.7=12:3:2:\ngroup.1=1\nweight.2=0\n\
                 weight.3=0\nweight.12=0\nweight.1=3\nweight.5=4\n";
    let recorded = "server.1=127.0.0.1:14281:14282:participant\n\
                    server.2=127.0.0.1:15054:15055:participant\n\
                    server.3=127.0.0.1:13604:13605:participant\n\
                    server.5=127.0.0.1:2999:3999:observer\n\
                    server.12=127.0.0.1:13607:13606:participant\n\
                    group.1=1\ngroup.7=2:3:12\nweight.1=3\nweight.2=0\nweight.3=0\nweight.5=4\n\
                    weight.12=0\n";
    assert_eq!(config(&of(lines)).ensemble.text(), recorded);
}

fn sources_with_dynamic_file(text: &str) -> Sources {
    sources("dataDir=/d\nclientPort=2181\ninitLimit=10\nsyncLimit=5\ndynamicConfigFile=/c/z.0\n")
        .dynamic_file("/c/z.0", text)
        .my_id("m", "1")
}

#[test]
fn how_many_may_fail_depends_on_groups_and_weights() {
    for (groups, expected) in [
        ("group.1=1:2:3:4:5:6:7:8:9", Some(4)),
        ("group.1=1:2:3\ngroup.2=4:5:6\ngroup.3=7:8:9", Some(3)),
        // One that has most of its group, and the two of another.
        ("group.1=1:2:3\ngroup.2=4:5:6\ngroup.3=7:8:9\nweight.1=5", Some(2)),
        ("group.1=1:2:3\ngroup.2=4:5:6\ngroup.3=7:8:9\nweight.1=5\nweight.4=3", Some(1)),
        // Of two groups both are needed.
        ("group.1=1:2:3:4:5\ngroup.2=6:7:8:9", Some(1)),
        (
            "group.1=1:2:3:4:5\ngroup.2=6:7:8:9\nweight.6=0\nweight.7=0\nweight.8=0\nweight.9=0",
            Some(2),
        ),
        ("group.1=1:2:3:4:5:6:7\ngroup.2=8\ngroup.3=9", Some(1)),
        ("group.1=1:2:3:4:5:6:7:8\ngroup.2=9", Some(0)),
    ] {
        let lines = format!("{}{groups}\n", nine());
        let ensemble = config(&of(&lines)).ensemble;
        assert_eq!(ensemble.tolerated_failures(), expected, "{groups}");
        // By trying: any so many may fail, and some one more may not.
        let weight = |id: u64| ensemble.weight(id).unwrap();
        let is_quorum = |up: u32| {
            let up = |id: &u64| up >> id & 1 == 1;
            let sum = |ids: &mut dyn Iterator<Item = u64>| ids.map(weight).sum::<u64>();
            let counting: Vec<(u64, u64)> = (ensemble.groups.values())
                .map(|ids| {
                    (sum(&mut ids.iter().copied()), sum(&mut ids.iter().copied().filter(up)))
                })
                .filter(|(total, _)| *total > 0)
                .collect();
            counting.iter().filter(|(total, up)| up * 2 > *total).count() * 2 > counting.len()
        };
        let fatal = (0..1024_u32).filter(|down| down & 1 == 0).filter(|down| !is_quorum(!down));
        let fewest = fatal.map(u32::count_ones).min().unwrap();
        assert_eq!(expected.map(|failures| failures + 1), usize::try_from(fewest).ok(), "{groups}");
        assert_eq!(warnings(&lines).len(), usize::from(expected == Some(0)), "{groups}");
    }
    assert_eq!(config(&of(&nine())).ensemble.tolerated_failures(), Some(4));
}

#[test]
fn groups_that_do_not_fit_are_refused() {
    let six: String = (1..=6).map(|n| format!("server.{n}=h{n}:1:2\n")).collect();
    for (lines, messages) in [
        (
            "group.1=1:2:3\ngroup.2=4:5\n",
            &[
                "zoo.cfg:10: error: server.6: with groups or weights every participant must be in a group",
            ][..],
        ),
        (
            "group.1=1:2:3\ngroup.2=3:4:5:6\n",
            &["zoo.cfg:12: error: group.2: server 3 is in two groups"],
        ),
        (
            "group.1=1:2:3:2\ngroup.2=4:5:6\n",
            &["zoo.cfg:11: error: group.1: server 2 is in the group twice"],
        ),
        (
            "group.1=1:2:3\ngroup.01=4:5:6\n",
            &["zoo.cfg:11: error: group.1: this group is listed twice"],
        ),
        (
            "group.1=1:2:3\ngroup.2=4:5:6:7\n",
            &[
                "zoo.cfg:12: error: group.2: there is no line server.7; only participants belong into groups",
            ],
        ),
        (
            "group.1=1:2:3\ngroup.2=4:5:6:8\nserver.8=h8:1:2:observer\n",
            &[
                "zoo.cfg:12: error: group.2: server 8 is an observer; only participants belong into groups",
            ],
        ),
        (
            "group.1=1:2:3\ngroup.2=4:5:6\nweight.2=-1\n",
            &["zoo.cfg:13: error: weight.2: `-1` is out of range; allowed: 0 or more"],
        ),
        (
            "group.1=1:2:3:4:5:6\nweight.1=9223372036854775807\n",
            &["zoo.cfg:11: error: group.1: its members weigh 9223372036854775812; allowed: \
               9223372036854775807"],
        ),
        (
            "group.1=1:2\ngroup.2=3:4:5:6\nweight.1=0\nweight.2=0\nweight.3=0\nweight.4=0\n\
             weight.5=0\nweight.6=0\n",
            &[
                "zoo.cfg:11: error: group.1: no quorum is possible: more than half of the groups need \
               participants with more than half of their weight, which must not be 0",
            ],
        ),
        // An observer that outweighs them.
        (
            "group.1=1:2:3:4:5:6:8\nserver.8=h8:1:2:observer\nweight.8=6\n",
            &[
                "zoo.cfg:11: error: group.1: no quorum is possible: more than half of the groups need \
               participants with more than half of their weight, which must not be 0",
            ],
        ),
    ] {
        let found = errors(&format!("{six}{lines}"));
        assert!(found.iter().map(String::as_str).eq(messages.iter().copied()), "{found:#?}");
    }
    assert_eq!(
        warnings(&format!(
            "{six}group.1=1:2:3\ngroup.2=4:5:6:7\ngroup.3=8\nserver.8=h8:1:2:observer\nweight.7=1\n\
             weight.8=1\nweight.9=4\n"
        )),
        [
            "zoo.cfg:11: warning: group.1: no failure is tolerated: without one of the participants \
             there is no quorum",
            "zoo.cfg:12: warning: group.2: there is no line server.7: its weight is missing in every \
             quorum; take it out",
            "zoo.cfg:13: warning: group.3: server 8 is an observer: its weight is missing in every \
             quorum; take it out",
            "zoo.cfg:17: warning: weight.9: no effect: there is no line server.9",
        ]
    );
}

#[test]
fn what_would_be_unsafe_without_is_refused() {
    for (lines, message) in [
        (
            "sslQuorum=true\nssl.quorum.clientAuth=want\n",
            "zoo.cfg:8: error: sslQuorum: not supported yet, it comes with TLS and SASL between \
             members; starting without it would trust everybody who reaches the quorum ports",
        ),
        (
            "quorum.auth.enableSasl=true\nquorum.auth.learnerRequireSasl=true\n\
             quorum.auth.serverRequireSasl=true\n",
            "zoo.cfg:8: error: quorum.auth.enableSasl: not supported yet, it comes with TLS and SASL \
             between members; starting without it would trust everybody who reaches the quorum ports \
             (and with it quorum.auth.learnerRequireSasl, quorum.auth.serverRequireSasl)",
        ),
        ("electionAlg=2\n", "zoo.cfg:8: error: electionAlg: `2` is out of range; allowed: 3 to 3"),
    ] {
        assert_eq!(errors(&format!("{THREE}{lines}")), [message], "{lines}");
    }
    assert_eq!(
        errors(
            "multiAddress.enabled=true\nserver.1=a:1:2|aa:1:2\nserver.2=b:1:2\nserver.3=AA:1:3\n"
        ),
        [
            "zoo.cfg:8: error: server.3: AA:1 is the quorum port of server.1 and the quorum port of server.3"
        ]
    );
}

#[test]
fn local_sessions_are_an_ensembles() {
    let text = format!("{THREE}localSessionsEnabled=true\nlocalSessionsUpgradingEnabled=true\n");
    assert_eq!(warnings(&text), Vec::<String>::new());
    let ensemble = config(&of(&text)).ensemble;
    assert!(ensemble.local_sessions_enabled && ensemble.local_sessions_upgrading_enabled);
    let ensemble = config(&of(THREE)).ensemble;
    assert!(!ensemble.local_sessions_enabled && !ensemble.local_sessions_upgrading_enabled);
}

#[test]
fn members_may_come_and_go() {
    assert_eq!(warnings(&format!("{THREE}reconfigEnabled=true\n")), Vec::<String>::new());
    assert!(config(&of(&format!("{THREE}reconfigEnabled=true\n"))).ensemble.reconfig_enabled);
}

#[test]
fn what_is_merely_missing_is_a_warning() {
    for (lines, message) in [
        (
            "observerMasterPort=2191\nobserverMaster.sizeLimit=1000\n",
            "observerMaster.sizeLimit: no effect in Paddock: a follower buffers nothing for \
             observers: it feeds them from the log as a leader does",
        ),
        (
            "portUnification=true\n",
            "portUnification: no effect yet, it comes with TLS and SASL between members",
        ),
        ("oraclePath=/o\n", "oraclePath: no effect yet, it comes with the oracle for two members"),
        (
            "syncEnabled=false\n",
            "syncEnabled: no effect in Paddock: an observer keeps its data on disk as every member does",
        ),
        (
            "leader.maxConcurrentDiffSyncs=1\n",
            "leader.maxConcurrentDiffSyncs: no effect in Paddock: differences come from memory or \
             straight from the log, for any number of learners",
        ),
        (
            "db.autocreate=false\n",
            "db.autocreate: an empty member without the file `initialize` in dataDir refrains from \
             voting only once another member shows data",
        ),
        ("commitLogCount=1\n", "commitLogCount: counts as 500, the least allowed"),
        (
            "snapshotSizeFactor=2\n",
            "snapshotSizeFactor: counts as 0.33, the default: it must not exceed 1",
        ),
    ] {
        let all = warnings(&format!("{THREE}{lines}"));
        assert_eq!(all.len(), 1, "{all:?}");
        let (_, said) = all[0].split_once(": warning: ").unwrap();
        assert_eq!(said, message);
        // Alone they are one note together.
        assert_eq!(found(&with(lines), Severity::Error), Vec::<String>::new());
    }
    let read_only = of(THREE).define("readonlymode.enabled=true");
    assert_eq!(
        found(&read_only, Severity::Warning),
        [
            "command line: warning: readonlymode.enabled: without localSessionsEnabled=true no client gets a session in \
             read-only mode"
        ]
    );
    let local =
        of(&format!("{THREE}localSessionsEnabled=true\n")).define("readonlymode.enabled=true");
    let said = found(&local, Severity::Warning);
    assert!(said.iter().all(|line| !line.contains("readonlymode")), "{said:?}");
    assert!(
        config(&local).read_only_mode_enabled && config(&local).ensemble.local_sessions_enabled
    );
}

#[test]
fn a_dynamic_file_gives_the_members() {
    let text = "initLimit=10\nsyncLimit=5\ndynamicConfigFile=/c/zoo.cfg.dynamic.100000000\n";
    let lines = "server.1=a:1:2:participant;0.0.0.0:2181\nserver.2=b:1:2:participant;0.0.0.0:2181\n\
                 server.3=c:1:2:participant;0.0.0.0:2181\n";
    let sources = sources(&format!("dataDir=/d\n{text}"))
        .dynamic_file("/c/zoo.cfg.dynamic.100000000", lines)
        .my_id("m", "3");
    let config = config(&sources);
    assert_eq!((config.member_id(), config.ensemble.version), (Some(3), 0x1_0000_0000));
    assert_eq!(config.client_listener, listener(Some("0.0.0.0"), 2181));
    assert_eq!(config.ensemble.text(), lines);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the files are what is tested")]
fn myid_beside_the_data_is_found() {
    let folder = std::env::temp_dir().join(format!("zk-config-{}-member", std::process::id()));
    std::fs::create_dir_all(folder.join("data")).unwrap();
    let file = folder.join("zoo.cfg");
    let data = folder.join("data");
    let text =
        format!("dataDir={}\nclientPort=2181\ninitLimit=1\nsyncLimit=1\n{THREE}", data.display());
    std::fs::write(&file, text).unwrap();
    let found = check(&file);
    assert_eq!(found.exit_code(false), 2);
    let missing = format!("{}: error: the file is missing", data.join("myid").display());
    assert!(found.render().starts_with(&missing), "{}", found.render());
    // A folder of that name cannot be read.
    std::fs::create_dir(data.join("myid")).unwrap();
    let found = check(&file);
    assert_eq!(
        (found.exit_code(false), found.count(Severity::Error)),
        (2, 1),
        "{}",
        found.render()
    );
    std::fs::remove_dir(data.join("myid")).unwrap();
    std::fs::write(data.join("myid"), "2\n").unwrap();
    let config = Sources::new().load_file(&file).accept(true).unwrap().0;
    assert_eq!(config.member_id(), Some(2));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn members_may_have_several_addresses_and_feed_observers() {
    let text = "multiAddress.enabled=true\nmultiAddress.reachabilityCheckTimeoutMs=700\n\
                observerMasterPort=2191\nobserver.reconnectDelayMs=30\n\
                observer.election.DelayMs=40\n";
    let servers = "server.1=b:1:2|a:3:4\nserver.2=c:1:2|[::1]:1:2\nserver.3=d:1:2\n";
    assert_eq!(warnings(&format!("{text}{servers}")), Vec::<String>::new());
    let ensemble = config(&of(&format!("{text}{servers}"))).ensemble;
    assert!(ensemble.multi_address_enabled && ensemble.multi_address_reachability_check_enabled);
    assert_eq!(ensemble.multi_address_reachability_check_timeout_ms, 700);
    assert_eq!(ensemble.observer_master_port, Some(2191));
    assert_eq!(ensemble.observer_reconnect_delay_ms, 30);
    assert_eq!(ensemble.observer_election_delay_ms, 40);
    // Sorted by host, as every member has to write it.
    assert!(ensemble.text().starts_with("server.1=a:3:4|b:1:2:participant\n"), "{ensemble:?}");
}
