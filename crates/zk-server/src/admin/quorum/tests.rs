use std::collections::BTreeSet;

use super::*;
use crate::admin::metrics::{collect_as, render_families, render_mntr};
use crate::admin::testing::{context, member, standing};

/// What Apache ZooKeeper shows and we do not, in whole or in part: nothing here measures it, and 0
/// would mean that it did not happen. Of watch events (`node_*_watch_count`) the sums are shown.
const NOT_SHOWN: &[&str] = &[
    "close_session_prep_time",
    "commit_process_time",
    "commit_propagation_latency",
    "diff_count",
    "inflight_diff_count",
    "inflight_snap_count",
    "learner_handler_qp_size",
    "learner_handler_qp_time_ms",
    "learner_request_processor_queue_size",
    "local_write_committed_time_ms",
    "node_changed_watch_count",
    "node_children_watch_count",
    "node_created_watch_count",
    "node_deleted_watch_count",
    "outstanding_changes_queued",
    "outstanding_changes_removed",
    "pending_syncs",
    "prep_process_time",
    "prep_processor_queue_size",
    "prep_processor_queue_time_ms",
    "prep_processor_request_queued",
    "propagation_latency",
    "proposal_ack_creation_latency",
    "proposal_latency",
    "proposal_process_time",
    "quorum_ack_latency",
    "read_final_proc_time_ms",
    "request_commit_queued",
    "server_write_committed_time_ms",
    "snap_count",
    "socket_closing_time",
    "sync_process_time",
    "sync_processor_queue_and_flush_time_ms",
    "sync_processor_queue_size",
    "sync_processor_queue_time_ms",
    "synced_observers", // of followers: those have observers behind them only as observer masters
    "watch_bytes",
    "write_final_proc_time_ms",
    "write_per_namespace",
];

/// Keys that upstream's default provider had in `mntr`, and families of its Prometheus provider.
const RECORDED: [(PeerState, &str, &str); 3] = [
    (
        PeerState::Leading,
        include_str!("../testdata/mntr-leader.txt"),
        include_str!("../testdata/metrics-leader.txt"),
    ),
    (
        PeerState::Following,
        include_str!("../testdata/mntr-follower.txt"),
        include_str!("../testdata/metrics-follower.txt"),
    ),
    (
        PeerState::Observing,
        include_str!("../testdata/mntr-observer.txt"),
        include_str!("../testdata/metrics-observer.txt"),
    ),
];

fn lines(recorded: &str) -> impl Iterator<Item = &str> {
    recorded.lines().filter(|line| !line.starts_with('#'))
}

/// `zk_avg_1_learner_handler_qp_size` is of the metric `learner_handler_qp_size`.
fn metric_of(key: &str) -> &str {
    let name = key.strip_prefix("zk_").unwrap_or(key);
    let prefixes = ["avg_", "min_", "max_", "cnt_", "sum_", "p50_", "p95_", "p99_", "p999_"];
    let summary = prefixes.iter().find_map(|prefix| {
        let rest = name.strip_prefix(prefix)?;
        let gauge = ["latency", "client_response_size", "proposal_size", "file_descriptor_count"];
        (!gauge.contains(&rest)).then_some(rest)
    });
    summary.unwrap_or(name).trim_start_matches(|c: char| c.is_ascii_digit() || c == '_')
}

#[test]
fn members_show_what_zookeeper_shows() {
    let mut missing = BTreeSet::new();
    for (state, mntr, families) in RECORDED {
        let standing = standing(state);
        let context = member("4lw.commands.whitelist=*\n", standing.id.0.unsigned_abs());
        let metrics = collect_as(&context, Some(&standing));
        let mut text = String::new();
        render_mntr(&metrics, &mut text);
        let ours: BTreeSet<&str> =
            text.lines().filter_map(|line| line.split('\t').next()).collect();
        // What `mntr` says before the metrics is not among them.
        let states = ["zk_version", "zk_server_state", "zk_peer_state", "zk_observer_master_id"];
        let theirs: BTreeSet<&str> = lines(mntr).filter(|key| !states.contains(key)).collect();
        for key in &theirs {
            if !ours.contains(key) {
                missing.insert(metric_of(key).to_owned());
            }
        }
        for key in &ours {
            let own =
                key.starts_with("zk_paddock_") || key.ends_with("fsync_threshold_exceed_count");
            assert!(own || theirs.contains(key), "{state:?}: {key} is not ZooKeeper's");
        }
        let text = render_families(&metrics);
        let ours: BTreeSet<String> = text
            .lines()
            .filter_map(|line| Some(line.strip_prefix("# TYPE ")?.to_owned()))
            .collect();
        for family in lines(families) {
            let (name, _) = family.split_once(' ').unwrap();
            if !ours.contains(family) {
                assert!(
                    !ours.iter().any(|our| our.split(' ').next() == Some(name)),
                    "{state:?}: {family} is of another type"
                );
                missing.insert(name.to_owned());
            }
        }
    }
    let missing: Vec<&str> = missing.iter().map(String::as_str).collect();
    assert_eq!(missing, NOT_SHOWN);
}

#[test]
fn gauges_of_serving_are_gone_while_nobody_is_served() {
    let context = member("", 2);
    let text = render_families(&collect_as(&context, Some(&standing(PeerState::Looking))));
    for gone in ["znode_count", "quorum_size", "avg_latency", "uptime"] {
        assert!(!text.contains(&format!("\n{gone} ")), "{gone}");
    }
    for there in ["commit_count 0", "paddock_serving 0", "paddock_leader_id -1", "paddock_epoch 1"]
    {
        assert!(text.contains(&format!("\n{there}\n")), "{there}: {text}");
    }
}

#[test]
fn learners_are_counted_as_upstream_counts_them() {
    let in_force = member("", 3).membership.current();
    let mut learners = standing(PeerState::Leading).learners;
    let count = |learners: &[LearnerStatus]| Learners::count(learners, &in_force);
    let whole = Learners { all: 3, synced_followers: 2, synced_non_voting: 0, synced_observers: 1 };
    assert_eq!(count(&learners), whole);
    learners[0].phase = LearnerPhase::Synchronization;
    learners[2].phase = LearnerPhase::Discovery;
    assert_eq!(count(&learners), Learners { synced_followers: 1, synced_observers: 0, ..whole });
    // One that is in no configuration follows without a vote.
    learners[1].id = ServerId(9);
    learners[1].voter = false;
    assert_eq!(
        count(&learners),
        Learners { synced_followers: 1, synced_non_voting: 1, synced_observers: 0, ..whole }
    );
    assert_eq!(count(&[]), Learners::default());
}

fn sum_ms(histogram: &Histogram) -> (u64, u64) {
    let snapshot = histogram.snapshot();
    (snapshot.count, snapshot.sum / 1000)
}

#[test]
fn what_happened_is_learned_by_looking() {
    let counters = QuorumCounters::default();
    let looking = standing(PeerState::Looking);
    let following = standing(PeerState::Following);
    let catching_up = PeerStatus { serving: false, ..following.clone() };
    let leading = standing(PeerState::Leading);
    let not_yet = PeerStatus { serving: false, ..leading.clone() };
    for (at_ms, status) in [
        (0, &looking),
        (100, &looking),
        (300, &catching_up),
        (400, &following),
        (1000, &following),
        (2000, &looking),
        (2500, &not_yet),
        (2700, &leading),
        (3000, &leading),
    ] {
        counters.look(status, at_ms);
    }
    assert_eq!(counters.looked(), 2);
    assert_eq!(sum_ms(&counters.election), (2, 2 * 344));
    assert_eq!(sum_ms(&counters.follower_sync), (1, 21));
    assert_eq!(sum_ms(&counters.observer_sync), (0, 0));
    assert_eq!(sum_ms(&counters.unavailable), (2, 400 + 700));
    assert_eq!(sum_ms(&counters.leader_unavailable), (1, 700));
    assert_eq!(counters.leading_since_ms(), Some(2700));
    counters.look(&looking, 4000);
    assert_eq!(counters.leading_since_ms(), None);
    // One between two looks is known by its round.
    counters.look(&leading, 4100);
    counters.look(&PeerStatus { round: 2, ..leading.clone() }, 4120);
    assert_eq!((counters.looked(), counters.leading_since_ms()), (4, Some(4120)));
    assert_eq!((sum_ms(&counters.election).0, sum_ms(&counters.leader_unavailable).0), (4, 3));
    // An election that was over before the first look counts too.
    let quick = QuorumCounters::default();
    quick.look(&standing(PeerState::Observing), 5);
    assert_eq!((quick.looked(), sum_ms(&quick.election).0), (1, 1));
    assert_eq!(sum_ms(&quick.observer_sync), (1, 21));
}

#[test]
fn quor_tells_the_whole_story() {
    let context = member("", 3);
    let json = |standing: Option<&PeerStatus>| -> Json {
        serde_json::from_str(&quor(&context, standing)).unwrap()
    };
    let leader = json(Some(&standing(PeerState::Leading)));
    assert_eq!((&leader["mode"], &leader["serving"]), (&json!("leader"), &json!(true)));
    assert_eq!((&leader["id"], &leader["leader"]), (&json!(3), &json!(3)));
    assert_eq!(leader["committed"], "0x100000009");
    assert_eq!((&leader["current_epoch"], &leader["quorum_size"]), (&json!(1), &json!(3)));
    assert!(leader["membership"].as_str().unwrap().starts_with("server.1=127.0.0.1:27011:27021:"));
    assert!(leader["membership"].as_str().unwrap().ends_with("\nversion=0"));
    let learner = &leader["learners"][2];
    assert_eq!(
        (&learner["id"], &learner["voter"], &learner["phase"]),
        (&json!(4), &json!(false), &json!("broadcast"))
    );
    let looking = json(Some(&standing(PeerState::Looking)));
    assert_eq!((&looking["mode"], &looking["state"]), (&json!("not serving"), &json!("looking")));
    assert_eq!((&looking["leader"], &looking["serving"]), (&Json::Null, &json!(false)));
    assert!(quor(&context, None).ends_with("}\n"));
    // Alone there is no ensemble to tell of.
    let alone: Json = serde_json::from_str(&quor(&self::context(""), None)).unwrap();
    assert_eq!((&alone["mode"], &alone["delivered"]), (&json!("standalone"), &json!("0x0")));
    let digest = context.node.read(|db| db.tree.digest()).cast_signed();
    assert_eq!(
        (&alone["digest"], &alone["digest_zxid"]),
        (&json!(digest.to_string()), &json!("0x0"))
    );
    let without: Json =
        serde_json::from_str(&quor(&self::context("digest.enabled=false\n"), None)).unwrap();
    assert_eq!(without["digest"], Json::Null);
}

#[test]
fn states_are_upstreams() {
    let name = |state, serving| peer_state(&PeerStatus { serving, ..standing(state) });
    assert_eq!(name(PeerState::Looking, false), "looking");
    assert_eq!(name(PeerState::Leading, true), "leading - broadcast");
    assert_eq!(name(PeerState::Following, false), "following - synchronization");
    assert_eq!(mode(None, false), "standalone");
}
