//! Metrics under ZooKeeper's names: gathered once, rendered for `mntr` and for Prometheus.
//!
//! Everything is read from counters that the server keeps anyway, at the moment of asking: no request
//! pays for a metric but the counter itself.
//!
//! Gauges and counters go through a recorder of `metrics-exporter-prometheus`. Summaries do not: a
//! recorder makes them out of single observations, which would cost every request; ours are snapshots
//! of histograms, and are written here in the text format.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics_exporter_prometheus::PrometheusBuilder;
use zk_processor::Histogram;
use zk_proto::quorum::PeerState;
use zk_zab::PeerStatus;

pub use super::http::serve;

use super::four_letter::Double;
use super::process::Process;
use super::quorum;
use crate::context::Context;

/// µs in a ms: upstream's times are in ms.
const US_PER_MS: f64 = 1000.0;

/// Quantiles that upstream shows of an advanced summary in `mntr`, and how it calls them.
const MNTR_QUANTILES: [(&str, f64); 4] =
    [("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("p999", 0.999)];

/// A metric.
#[derive(Debug, Clone)]
pub(crate) struct Metric {
    name: &'static str,
    help: &'static str,
    value: Value,
}

/// What a metric is.
#[derive(Debug, Clone)]
enum Value {
    /// A whole number that goes up and down.
    Gauge(i64),
    /// Any number that does.
    FloatGauge(f64),
    /// One for each top-level znode.
    GaugeSet(Vec<(String, i64)>),
    /// A number that goes up.
    Counter(u64),
    /// Observations, in brief.
    Basic(Summary),
    /// Observations, with quantiles.
    Advanced(Box<Summary>),
    /// The sum of observations that nobody counted.
    Sum(u64),
}

/// Observations, in the unit in which they are shown.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Summary {
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
    /// In the order of [`QUANTILES`].
    quantiles: [f64; QUANTILES.len()],
}

/// Every quantile that is shown somewhere.
const QUANTILES: [f64; 5] = [0.5, 0.9, 0.95, 0.99, 0.999];

impl Summary {
    /// Times, kept in µs and shown in ms.
    pub(crate) fn of_times(histogram: &Histogram) -> Self {
        Self::scaled(histogram, US_PER_MS)
    }

    /// Numbers of things.
    fn of_numbers(histogram: &Histogram) -> Self {
        Self::scaled(histogram, 1.0)
    }

    /// One time, in µs.
    fn of_time(us: u64) -> Self {
        let histogram = Histogram::default();
        histogram.record(us);
        Self::of_times(&histogram)
    }

    /// One number.
    fn of_number(number: u64) -> Self {
        let histogram = Histogram::default();
        histogram.record(number);
        Self::of_numbers(&histogram)
    }

    #[allow(clippy::cast_precision_loss, reason = "a figure to look at")]
    fn scaled(histogram: &Histogram, unit: f64) -> Self {
        let snapshot = histogram.snapshot();
        if snapshot.count == 0 {
            return Self::default();
        }
        Self {
            count: snapshot.count,
            sum: snapshot.sum as f64 / unit,
            min: snapshot.min as f64 / unit,
            max: snapshot.max as f64 / unit,
            quantiles: QUANTILES.map(|q| snapshot.quantile(q) as f64 / unit),
        }
    }

    /// The mean, to four digits as upstream rounds it.
    #[allow(clippy::cast_precision_loss, reason = "a figure to look at")]
    pub(crate) fn avg(&self) -> f64 {
        if self.count == 0 { 0.0 } else { (self.sum / self.count as f64 * 1e4).round() / 1e4 }
    }

    /// The least, as a whole number.
    pub(crate) fn min_whole(&self) -> u64 {
        whole(self.min)
    }

    /// The most, as a whole number.
    pub(crate) fn max_whole(&self) -> u64 {
        whole(self.max)
    }

    fn quantile(&self, wanted: f64) -> f64 {
        let found = QUANTILES.iter().zip(self.quantiles).find(|(q, _)| **q >= wanted);
        found.map_or(self.max, |(_, value)| value)
    }
}

/// Upstream's times are whole ms, cut off.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "cut off")]
fn whole(number: f64) -> u64 {
    number as u64
}

/// Counters of what does not happen in Paddock. Upstream has them all, so dashboards look for them.
const NEVER: &[&str] = &[
    "add_dead_watcher_stall_time",
    "dead_watchers_cleared",
    "dead_watchers_queued",
    "insecure_admin_count",
    "quit_leading_due_to_disloyal_voter",
    "request_throttle_wait_count",
    "requests_not_forwarded_to_commit_processor",
    "response_packet_cache_hits",
    "response_packet_cache_misses",
    "response_packet_get_children_cache_hits",
    "response_packet_get_children_cache_misses",
    "restore_error_count",
    "restore_rate_limited_count",
    "skip_learner_request_to_next_processor_count",
    "snapshot_rate_limited_count",
    "stale_replies",
    "stale_requests",
    "stale_requests_dropped",
    "throttled_ops",
    "tls_handshake_exceeded",
    "unrecoverable_error_count",
    "unsuccessful_handshake",
];

/// Likewise, basic summaries.
const NEVER_BASIC: &[&str] = &[
    "commit_commit_proc_req_queued",
    "concurrent_request_processing_in_commit_processor",
    "connection_token_deficit",
    "netty_queued_buffer_capacity",
    "pending_session_queue_size",
    "read_commit_proc_issued",
    "read_commit_proc_req_queued",
    "reads_after_write_in_session_queue",
    "reads_issued_from_session_queue",
    "requests_in_session_queue",
    "restore_time",
    "session_queues_drained",
    "time_waiting_empty_pool_in_commit_processor_read_ms",
    "write_batch_time_in_commit_processor",
    "write_commit_proc_issued",
    "write_commit_proc_req_queued",
];

/// Likewise, advanced summaries.
const NEVER_ADVANCED: &[&str] = &[
    "dead_watchers_cleaner_latency",
    "jvm_pause_time_ms",
    "om_commit_process_time_ms",
    "om_proposal_process_time_ms",
    "read_commitproc_time_ms",
    "request_throttle_queue_time_ms",
    "write_commitproc_time_ms",
];

const NEVER_HELP: &str = "Does not happen in Paddock.";

/// Counters of what happens between members alone. A standalone server shows that it did not happen; a
/// member shows what it measures.
const ALONE: &[&str] = &[
    "cnxn_closed_without_zk_server_running",
    "diff_count",
    "learner_commit_received_count",
    "learner_proposal_received_count",
    "looking_count",
    "request_commit_queued",
    "revalidate_count",
    "snap_count",
];

/// Likewise, basic summaries.
const ALONE_BASIC: &[&str] = &[
    "commit_process_time",
    "election_time",
    "follower_sync_time",
    "inflight_diff_count",
    "inflight_snap_count",
    "leader_unavailable_time",
    "learner_request_processor_queue_size",
    "observer_sync_time",
    "proposal_process_time",
    "unavailable_time",
];

/// Likewise, advanced summaries.
const ALONE_ADVANCED: &[&str] = &[
    "commit_propagation_latency",
    "local_write_committed_time_ms",
    "propagation_latency",
    "proposal_ack_creation_latency",
    "proposal_latency",
    "quorum_ack_latency",
    "server_write_committed_time_ms",
];

const ALONE_HELP: &str = "Does not happen in a standalone server.";

/// Metrics as they are gathered.
#[derive(Debug, Default)]
struct Gathered(Vec<Metric>);

impl Gathered {
    fn push(&mut self, name: &'static str, help: &'static str, value: Value) {
        self.0.push(Metric { name, help, value });
    }

    /// Anything beyond an i64 is shown as the most that one holds.
    fn gauge(&mut self, name: &'static str, help: &'static str, value: impl TryInto<i64>) {
        self.push(name, help, Value::Gauge(value.try_into().unwrap_or(i64::MAX)));
    }

    fn counter(&mut self, name: &'static str, help: &'static str, counter: &AtomicU64) {
        self.push(name, help, Value::Counter(counter.load(Ordering::Relaxed)));
    }

    fn basic(&mut self, name: &'static str, help: &'static str, summary: Summary) {
        self.push(name, help, Value::Basic(summary));
    }

    fn advanced(&mut self, name: &'static str, help: &'static str, summary: Summary) {
        self.push(name, help, Value::Advanced(Box::new(summary)));
    }
}

/// Every metric, now. Gauges come first, and first of all those that `mntr` has had for ages. What is
/// about serving is left out while nobody is served, as upstream does.
pub(crate) fn collect(context: &Context) -> Vec<Metric> {
    collect_as(context, quorum::standing(context).as_ref())
}

/// As [`collect`], of a member that stands like this.
pub(super) fn collect_as(context: &Context, standing: Option<&PeerStatus>) -> Vec<Metric> {
    let mut all = Gathered::default();
    if quorum::is_read_only(context, standing) {
        gauges(&mut all, context, None);
    } else if quorum::is_serving(standing) {
        gauges(&mut all, context, standing);
    }
    own_gauges(&mut all, context, standing);
    counters(&mut all, context);
    summaries(&mut all, context);
    if standing.is_some() {
        between_members(&mut all, context);
    } else {
        zeros(&mut all, ALONE_HELP, ALONE, ALONE_BASIC, ALONE_ADVANCED);
    }
    zeros(&mut all, NEVER_HELP, NEVER, NEVER_BASIC, NEVER_ADVANCED);
    all.0
}

/// What is there to be seen, and never counts.
fn zeros(
    all: &mut Gathered,
    help: &'static str,
    counters: &[&'static str],
    basic: &[&'static str],
    advanced: &[&'static str],
) {
    for name in counters {
        all.push(name, help, Value::Counter(0));
    }
    for name in basic {
        all.basic(name, help, Summary::default());
    }
    for name in advanced {
        all.advanced(name, help, Summary::default());
    }
}

/// What a member measures of what happens between members.
fn between_members(all: &mut Gathered, context: &Context) {
    let stats = context.node.stats();
    let quorum = &context.counters.quorum;
    let received = &stats.learner_proposals_received;
    all.counter("learner_proposal_received_count", "Proposals from the leader.", received);
    let received = &stats.learner_commits_received;
    all.counter("learner_commit_received_count", "Commits from the leader.", received);
    let help = "Sessions that learners asked this leader about.";
    all.counter("revalidate_count", help, &stats.learner_revalidations);
    let help = "Clients turned away because nobody is served.";
    all.counter("cnxn_closed_without_zk_server_running", help, &stats.closed_not_serving);
    let help = "Requests that learners forwarded to this leader.";
    all.counter("paddock_learner_requests_total", help, &stats.learner_requests);
    let help = "Requests that this learner forwarded.";
    all.counter("paddock_requests_forwarded_total", help, &stats.requests_forwarded);
    let help = "Connections closed because their client had gone on to another server.";
    all.counter("paddock_sessions_moved_total", help, &stats.sessions_moved);
    let help = "Local sessions that became global for an ephemeral znode.";
    all.counter("paddock_sessions_upgraded_total", help, &stats.sessions_upgraded);
    let help = "Times that this member began to look for a leader.";
    all.push("looking_count", help, Value::Counter(quorum.looked()));
    let times = [
        ("election_time", "Elections, in ms.", &quorum.election),
        ("follower_sync_time", "Catching up with the leader, in ms.", &quorum.follower_sync),
        ("observer_sync_time", "The same as an observer, in ms.", &quorum.observer_sync),
        ("unavailable_time", "Times without service, in ms.", &quorum.unavailable),
        (
            "leader_unavailable_time",
            "Those of them that ended in leading, in ms.",
            &quorum.leader_unavailable,
        ),
    ];
    for (name, help, times) in times {
        all.basic(name, help, Summary::of_times(times));
    }
}

/// What members have and a standalone server has not (`QuorumZooKeeperServer` and
/// `LeaderZooKeeperServer`, `registerMetrics`).
fn quorum_gauges(all: &mut Gathered, context: &Context, status: &PeerStatus) {
    let in_force = context.membership.current();
    if status.state == PeerState::Leading {
        let quorum = &context.counters.quorum;
        let learners = quorum::Learners::count(&status.learners, &in_force);
        all.gauge("learners", "Followers and observers.", learners.all);
        let help = "Followers that take part.";
        all.gauge("synced_followers", help, learners.synced_followers);
        let help = "Those of them without a vote.";
        all.gauge("synced_non_voting_followers", help, learners.synced_non_voting);
        all.gauge("synced_observers", "Observers that take part.", learners.synced_observers);
        let now_ms = context.clock.now().mono_ms();
        let uptime_ms = quorum.leading_since_ms().map_or(0, |since_ms| now_ms - since_ms);
        all.gauge("leader_uptime", "Time since this leader serves, in ms.", uptime_ms);
        let [last, min, max] = quorum::proposal_sizes(context);
        all.gauge("last_proposal_size", "Bytes of the last proposal; -1: none so far.", last);
        all.gauge("max_proposal_size", "Bytes of the longest proposal.", max);
        all.gauge("min_proposal_size", "Bytes of the shortest proposal.", min);
    }
    if status.state == PeerState::Following
        && context.config.ensemble.observer_master_port.is_some()
    {
        let observers = quorum::Learners::count(&status.learners, &in_force).synced_observers;
        all.gauge("synced_observers", "Observers behind this follower that take part.", observers);
    }
    all.gauge("quorum_size", "Members that vote.", in_force.members.voters.len());
}

/// What upstream has no name for.
fn own_gauges(all: &mut Gathered, context: &Context, standing: Option<&PeerStatus>) {
    let status = context.node.status();
    let help = "Paths with a change on its way.";
    all.gauge("paddock_outstanding_changes", help, status.outstanding_changes);
    let help = "1 while writes are refused because the disk is nearly full.";
    all.gauge("paddock_disk_low", help, i64::from(context.disk_low.load(Ordering::Relaxed)));
    let help = "1 while clients are served by a quorum.";
    all.gauge("paddock_serving", help, i64::from(quorum::is_serving(standing)));
    let help = "1 while reads are served without a quorum.";
    all.gauge("paddock_read_only", help, i64::from(quorum::is_read_only(context, standing)));
    if let Some(status) = standing {
        let help = "The epoch of this member's history.";
        all.gauge("paddock_epoch", help, status.current_epoch.0);
        let help = "The last transaction in this member's log.";
        all.gauge("paddock_last_logged_zxid", help, status.last_logged.0);
        let help = "The last transaction that it knows to be committed.";
        all.gauge("paddock_last_committed_zxid", help, status.committed.0);
        let help = "The last transaction that it has applied.";
        all.gauge("paddock_last_applied_zxid", help, status.delivered.0);
        let help = "The server that it follows, or itself; -1: none.";
        all.gauge("paddock_leader_id", help, status.leader.map_or(-1, |leader| leader.0));
        if status.state == PeerState::Leading {
            let help = "Proposals that are not committed.";
            all.gauge("paddock_outstanding_proposals", help, status.outstanding);
        }
    }
}

fn gauges(all: &mut Gathered, context: &Context, standing: Option<&PeerStatus>) {
    let stats = context.node.stats();
    let counters = &context.counters;
    let status = context.node.status();
    let process = Process::now();
    let latency = Summary::of_times(&stats.latency);
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (watches, ephemerals, data_size, sessions, quotas) = context.node.read(|db| {
        let tree = &db.tree;
        let quotas: Vec<_> = tree.quotas().collect();
        let ephemerals = tree.ephemerals_count();
        let sessions = tree.sessions().len();
        (db.watches.count(), ephemerals, tree.approximate_data_size(), sessions, quotas)
    });

    let help = "Mean time from a request's arrival to its reply, in ms.";
    all.push("avg_latency", help, Value::FloatGauge(latency.avg()));
    all.gauge("max_latency", "The longest of these times, in ms.", latency.max_whole());
    all.gauge("min_latency", "The shortest of these times, in ms.", latency.min_whole());
    all.gauge("packets_received", "Frames from clients.", load(&stats.packets_received));
    all.gauge("packets_sent", "Frames to clients.", load(&stats.packets_sent));
    all.gauge("num_alive_connections", "Connections of clients.", status.connections);
    all.gauge("outstanding_requests", "Requests without a reply so far.", status.outstanding);
    all.gauge("znode_count", "Znodes.", status.node_count);
    all.gauge("watch_count", "Watches.", watches);
    all.gauge("ephemerals_count", "Ephemeral znodes.", ephemerals);
    all.gauge("approximate_data_size", "Bytes of all paths and data.", data_size);
    all.gauge("open_file_descriptor_count", "Open file descriptors.", process.open_fds);
    all.gauge("max_file_descriptor_count", "How many may be open.", process.max_fds);
    if let Some(status) = standing {
        quorum_gauges(all, context, status);
    }
    let slow = load(&counters.fsync_threshold_exceeded);
    let help = "Syncs of the log that took longer than fsync.warningthresholdms.";
    all.gauge("fsync_threshold_exceed_count", help, slow);
    let uptime_ms = context.clock.now().mono_ms();
    all.gauge("uptime", "Time since the server started, in ms.", uptime_ms);
    all.gauge("global_sessions", "Sessions that all servers know.", sessions);
    let help = "Sessions that only this server knows.";
    all.gauge("local_sessions", help, status.local_sessions);
    let help = "Share of new connections that are dropped: they are not throttled.";
    all.push("connection_drop_probability", help, Value::FloatGauge(0.0));

    // Upstream says -1 before the first response.
    let size = |counter| i64::try_from(load(counter)).ok().filter(|bytes| *bytes > 0).unwrap_or(-1);
    let help = "Bytes of the last response; -1: none so far.";
    all.gauge("last_client_response_size", help, size(&counters.last_response_bytes));
    let help = "Bytes of the longest response.";
    all.gauge("max_client_response_size", help, size(&counters.max_response_bytes));
    let help = "Bytes of the shortest response.";
    all.gauge("min_client_response_size", help, size(&counters.min_response_bytes));
    all.gauge("outstanding_tls_handshake", "TLS handshakes under way.", 0);
    let failures = load(&stats.auth_failures);
    all.gauge("auth_failed_count", "Clients whose credentials were refused.", failures);
    all.gauge("non_mtls_remote_conn_count", "TLS connections without a certificate.", 0);
    all.gauge("non_mtls_local_conn_count", "The same, from this machine.", 0);

    let mut sets = QuotaSets::default();
    for quota in &quotas {
        let hard_or_soft = |hard: i64, soft: i64| if hard > -1 { hard } else { soft };
        let (limits, usage) = (&quota.limits, &quota.usage);
        let values = [
            hard_or_soft(limits.count_hard_limit(), limits.count),
            hard_or_soft(limits.byte_hard_limit(), limits.bytes),
            usage.count,
            usage.bytes,
        ];
        sets.add(&quota.quota_path, values);
    }
    let names: [(&str, &str); 4] = [
        ("quota_count_limit_per_namespace", "Znodes allowed, by top-level znode."),
        ("quota_bytes_limit_per_namespace", "Bytes allowed, by top-level znode."),
        ("quota_count_usage_per_namespace", "Znodes under a quota, by top-level znode."),
        ("quota_bytes_usage_per_namespace", "Bytes under a quota, by top-level znode."),
    ];
    for ((name, help), values) in names.into_iter().zip(sets.0) {
        all.push(name, help, Value::GaugeSet(values.into_iter().collect()));
    }
}

/// Limits and usages, added up for each top-level znode.
#[derive(Debug, Default)]
struct QuotaSets([std::collections::BTreeMap<String, i64>; 4]);

impl QuotaSets {
    fn add(&mut self, path: &str, values: [i64; 4]) {
        let namespace = path.split('/').nth(1).unwrap_or_default();
        for (set, value) in self.0.iter_mut().zip(values) {
            let sum = set.entry(namespace.to_owned()).or_default();
            *sum = sum.saturating_add(value);
        }
    }
}

fn counters(all: &mut Gathered, context: &Context) {
    let stats = context.node.stats();
    let counters = &context.counters;
    all.counter("bytes_received_count", "Bytes from clients.", &counters.bytes_received);
    all.counter("response_bytes", "Bytes to clients.", &counters.response_bytes);
    all.counter("commit_count", "Transactions applied.", &stats.commits);
    all.counter("proposal_count", "Transactions proposed.", &stats.proposals);
    let help = "Writes queued for the log.";
    all.counter("sync_processor_request_queued", help, &stats.proposals);
    all.counter("connection_drop_count", "Connections that ended.", &counters.connection_drops);
    let help = "Connections refused because there were too many.";
    all.counter("connection_rejected", help, &counters.connection_rejected);
    let help = "Connections that asked for a session.";
    all.counter("connection_request_count", help, &stats.connection_requests);
    let help = "Sessions taken up again.";
    all.counter("connection_revalidate_count", help, &stats.revalidations);
    let help = "Connections closed because no session came in time.";
    all.counter("sessionless_connections_expired", help, &counters.sessionless_expired);
    all.counter("stale_sessions_expired", "Sessions that expired.", &stats.sessions_expired);
    let help = "Digests of the tree that were not the predicted ones.";
    all.counter("digest_mismatches_count", help, &stats.digest_mismatches);
    let help = "Clients that named the right ensemble.";
    all.counter("ensemble_auth_success", help, &stats.ensemble_auth_success);
    let help = "Clients that named another ensemble.";
    all.counter("ensemble_auth_fail", help, &stats.ensemble_auth_fail);
    let help = "Clients that named an ensemble where nobody checks.";
    all.counter("ensemble_auth_skip", help, &stats.ensemble_auth_skip);
    let help = "Requests refused because too many bytes of large ones were in flight.";
    all.counter("large_requests_rejected", help, &counters.large_requests_rejected);
    all.counter("snapshot_error_count", "Checkpoints that failed.", &counters.checkpoint_errors);
    let exceeded = stats.quota_exceeded_by_namespace();
    let values =
        exceeded.into_iter().map(|(key, count)| (key, i64::try_from(count).unwrap_or(i64::MAX)));
    let help = "Writes refused for a hard quota, by top-level znode.";
    all.push("quota_exceeded_error_per_namespace", help, Value::GaugeSet(values.collect()));
    let help = "Containers and TTL znodes removed.";
    all.counter("paddock_containers_deleted_total", help, &stats.containers_deleted);
    all.counter("paddock_watch_events_total", "Watch events sent.", &stats.watch_events);
}

fn summaries(all: &mut Gathered, context: &Context) {
    let stats = context.node.stats();
    let counters = &context.counters;
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let help = "From a read's arrival to its reply, in ms.";
    all.advanced("readlatency", help, Summary::of_times(&stats.read_latency));
    let help = "From a write's arrival to its reply, in ms.";
    all.advanced("updatelatency", help, Summary::of_times(&stats.update_latency));
    let fsync = Summary::of_times(&counters.fsync);
    all.basic("fsynctime", "Writing and syncing the log, in ms.", fsync);
    let help = "The same: the store thread does nothing else.";
    all.advanced("sync_processor_queue_flush_time_ms", help, fsync);
    let help = "Transactions in each sync.";
    all.basic("sync_processor_batch_size", help, Summary::of_numbers(&counters.batch_size));
    let help = "Bringing the stored state up to date, in ms.";
    all.basic("snapshottime", help, Summary::of_times(&counters.checkpoint));
    let (load_us, replay_us) = (load(&counters.load_state_us), load(&counters.replay_us));
    let help = "Loading the data at the start, in ms.";
    all.basic("dbinittime", help, Summary::of_time(load_us + replay_us));
    let help = "The part of it that the stored state took, in ms.";
    all.basic("startup_snap_load_time", help, Summary::of_time(load_us));
    let help = "The part of it that the log behind it took, in ms.";
    all.basic("startup_txns_load_time", help, Summary::of_time(replay_us));
    let help = "Transactions of the log replayed at the start.";
    all.basic("startup_txns_loaded", help, Summary::of_number(load(&counters.replayed)));
    let events = [
        ("node_created_watch_count", &stats.node_created_watches),
        ("node_deleted_watch_count", &stats.node_deleted_watches),
        ("node_changed_watch_count", &stats.node_changed_watches),
        ("node_children_watch_count", &stats.node_children_watches),
    ];
    for (name, counter) in events {
        all.push(name, "Watch events of this kind.", Value::Sum(load(counter)));
    }
}

/// The lines of `mntr`, as upstream's default provider has them.
pub(crate) fn render_mntr(metrics: &[Metric], text: &mut String) {
    for Metric { name, value, .. } in metrics {
        let mut line = |key: &dyn std::fmt::Display, value: &dyn std::fmt::Display| {
            // Writing into memory cannot fail.
            let _written = writeln!(text, "zk_{key}\t{value}");
        };
        match value {
            Value::Gauge(value) => line(name, value),
            Value::FloatGauge(value) => line(name, &Double(*value)),
            Value::Counter(value) => line(name, value),
            Value::GaugeSet(values) => {
                for (key, value) in values {
                    line(&format_args!("{}_{name}", key_characters(key)), value);
                }
            }
            Value::Sum(sum) => line(&format_args!("sum_{name}"), sum),
            Value::Basic(summary) => render_mntr_summary(name, summary, &mut line),
            Value::Advanced(summary) => {
                render_mntr_summary(name, summary, &mut line);
                for (prefix, q) in MNTR_QUANTILES {
                    line(&format_args!("{prefix}_{name}"), &whole(summary.quantile(q).round()));
                }
            }
        }
    }
}

fn render_mntr_summary(
    name: &str,
    summary: &Summary,
    line: &mut dyn FnMut(&dyn std::fmt::Display, &dyn std::fmt::Display),
) {
    line(&format_args!("avg_{name}"), &Double(summary.avg()));
    line(&format_args!("min_{name}"), &summary.min_whole());
    line(&format_args!("max_{name}"), &summary.max_whole());
    line(&format_args!("cnt_{name}"), &summary.count);
    line(&format_args!("sum_{name}"), &whole(summary.sum.round()));
}

/// A znode's name as a part of a key: as it is, like upstream's, but for what would break the line.
/// (Telegraf gives up at a dash; with upstream it does too, and only znodes under a quota are named.)
fn key_characters(name: &str) -> String {
    let key = |c: char| if c.is_whitespace() || c.is_control() || c == '/' { '_' } else { c };
    name.chars().map(key).collect()
}

/// What Prometheus scrapes.
pub(crate) fn render_prometheus(context: &Context) -> String {
    let mut text = render_families(&collect(context));
    render_process(context, &Process::now(), &mut text);
    text
}

/// Metrics in Prometheus' text format.
#[allow(clippy::cast_precision_loss, reason = "the format knows floating point only")]
pub(super) fn render_families(metrics: &[Metric]) -> String {
    // A recorder for each scrape: what is gone from the tree is gone from the answer.
    let recorder = PrometheusBuilder::new().build_recorder();
    let mut summaries = String::new();
    metrics::with_local_recorder(&recorder, || {
        for Metric { name, help, value } in metrics {
            match value {
                Value::Gauge(value) => {
                    metrics::describe_gauge!(*name, *help);
                    metrics::gauge!(*name).set(*value as f64);
                }
                Value::FloatGauge(value) => {
                    metrics::describe_gauge!(*name, *help);
                    metrics::gauge!(*name).set(*value);
                }
                Value::GaugeSet(values) => {
                    metrics::describe_gauge!(*name, *help);
                    for (key, value) in values {
                        metrics::gauge!(*name, "key" => key.clone()).set(*value as f64);
                    }
                }
                Value::Counter(value) => {
                    metrics::describe_counter!(*name, *help);
                    metrics::counter!(*name).absolute(*value);
                }
                Value::Basic(summary) => {
                    render_summary(name, help, summary, &[0.5], &mut summaries)
                }
                Value::Advanced(summary) => {
                    render_summary(name, help, summary, &[0.5, 0.9, 0.99], &mut summaries);
                }
                Value::Sum(sum) => {
                    head(name, help, "summary", &mut summaries);
                    let _written = writeln!(summaries, "{name}_sum {sum}");
                }
            }
        }
    });
    recorder.handle().render() + &summaries
}

fn head(name: &str, help: &str, kind: &str, text: &mut String) {
    let _written = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// A summary with the quantiles that upstream's provider has. Without observations there is none.
fn render_summary(name: &str, help: &str, summary: &Summary, quantiles: &[f64], text: &mut String) {
    head(name, help, "summary", text);
    for q in quantiles {
        let value = if summary.count == 0 { f64::NAN } else { summary.quantile(*q) };
        let _written = writeln!(text, "{name}{{quantile=\"{q}\"}} {value}");
    }
    let _written = writeln!(text, "{name}_count {}\n{name}_sum {}", summary.count, summary.sum);
}

/// What Java's client library tells about its process, and what stands in for its `jvm_*`: the memory
/// of the process for the heap, the machine's for the heap's limit.
fn render_process(context: &Context, process: &Process, text: &mut String) {
    let mut one =
        |name: &str, help: &str, kind: &str, labels: &str, value: &dyn std::fmt::Display| {
            head(name, help, kind, text);
            let _written = writeln!(text, "{name}{labels} {value}");
        };
    let help = "Time spent on processors, in s.";
    one("process_cpu_seconds_total", help, "counter", "", &process.cpu_seconds);
    let started = f64::from(u32::try_from(context.started_wall_ms / 1000).unwrap_or(u32::MAX));
    let help = "When the server started, in s since 1970.";
    one("process_start_time_seconds", help, "gauge", "", &started);
    one("process_open_fds", "Open file descriptors.", "gauge", "", &process.open_fds);
    one("process_max_fds", "How many may be open.", "gauge", "", &process.max_fds);
    let help = "Memory in use, in bytes.";
    one("process_resident_memory_bytes", help, "gauge", "", &process.resident_bytes);
    let help = "Address space, in bytes.";
    one("process_virtual_memory_bytes", help, "gauge", "", &process.virtual_bytes);
    let heap = "{area=\"heap\"}";
    let help = "The process's memory, in bytes: there is no JVM.";
    one("jvm_memory_bytes_used", help, "gauge", heap, &process.resident_bytes);
    one("jvm_memory_bytes_committed", help, "gauge", heap, &process.resident_bytes);
    let help = "The machine's memory, in bytes: there is no JVM.";
    one("jvm_memory_bytes_max", help, "gauge", heap, &process.memory_total_bytes);
    let help = "The process's threads: there is no JVM.";
    one("jvm_threads_current", help, "gauge", "", &process.threads);
}

#[cfg(test)]
mod tests;
