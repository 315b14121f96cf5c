//! Counts of what the processors did. They are read by the shell, which names and exports them.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::Now;

/// Latencies in µs, in buckets that grow by a quarter: a quantile is off by at most that.
#[derive(Debug)]
pub struct Histogram {
    buckets: [AtomicU64; Self::BUCKETS],
    sum: AtomicU64,
    max: AtomicU64,
    min: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
            sum: AtomicU64::new(0),
            max: AtomicU64::new(0),
            min: AtomicU64::new(u64::MAX),
        }
    }
}

/// A histogram at one moment.
#[derive(Debug, Clone)]
pub struct HistogramSnapshot {
    buckets: Vec<u64>,
    /// How many values.
    pub count: u64,
    /// Their sum, in µs.
    pub sum: u64,
    /// The largest, in µs.
    pub max: u64,
    /// The smallest, in µs; 0 if there is none.
    pub min: u64,
}

impl Histogram {
    const BUCKETS: usize = 160;

    fn bucket(value: u64) -> usize {
        if value < 4 {
            return usize::try_from(value).unwrap_or_default();
        }
        let log = 63 - value.leading_zeros();
        let quarter = (value >> (log - 2)) & 3;
        let index = u64::from(log) * 4 + quarter - 4;
        usize::try_from(index).map_or(Self::BUCKETS - 1, |index| index.min(Self::BUCKETS - 1))
    }

    fn upper_bound(bucket: usize) -> u64 {
        let bucket = bucket as u64;
        if bucket < 4 { bucket } else { ((bucket % 4 + 5) << (bucket / 4 - 1)) - 1 }
    }

    /// Counts one value, in µs.
    pub fn record(&self, value: u64) {
        self.record_many(value, 1);
    }

    /// Counts `count` equal values, in µs.
    pub fn record_many(&self, value: u64, count: u64) {
        if let Some(bucket) = self.buckets.get(Self::bucket(value)) {
            bucket.fetch_add(count, Ordering::Relaxed);
        }
        self.sum.fetch_add(value.saturating_mul(count), Ordering::Relaxed);
        // Looking first spares the write that most values do not need.
        if value > self.max.load(Ordering::Relaxed) {
            self.max.fetch_max(value, Ordering::Relaxed);
        }
        if value < self.min.load(Ordering::Relaxed) {
            self.min.fetch_min(value, Ordering::Relaxed);
        }
    }

    /// What has been counted so far.
    #[must_use]
    pub fn snapshot(&self) -> HistogramSnapshot {
        let buckets: Vec<u64> = self.buckets.iter().map(|b| b.load(Ordering::Relaxed)).collect();
        let count = buckets.iter().sum();
        HistogramSnapshot {
            count,
            sum: self.sum.load(Ordering::Relaxed),
            max: self.max.load(Ordering::Relaxed),
            min: if count == 0 { 0 } else { self.min.load(Ordering::Relaxed) },
            buckets,
        }
    }

    /// Forgets everything.
    pub fn reset(&self) {
        for bucket in &self.buckets {
            bucket.store(0, Ordering::Relaxed);
        }
        self.sum.store(0, Ordering::Relaxed);
        self.max.store(0, Ordering::Relaxed);
        self.min.store(u64::MAX, Ordering::Relaxed);
    }
}

impl HistogramSnapshot {
    /// The value that a share `q` of all values does not exceed, in µs.
    #[must_use]
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub fn quantile(&self, q: f64) -> u64 {
        let wanted = (self.count as f64 * q).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted && seen > 0 {
                return Histogram::upper_bound(bucket).min(self.max);
            }
        }
        self.max
    }

    /// The mean, in µs.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "a mean")]
    pub fn mean(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum as f64 / self.count as f64 }
    }
}

/// The last, least and greatest of some sizes, in bytes; all 0 before the first.
#[derive(Debug, Default)]
pub struct Sizes {
    last: AtomicUsize,
    min: AtomicUsize,
    max: AtomicUsize,
}

impl Sizes {
    /// Only one thread at a time records.
    pub(crate) fn record(&self, size: usize) {
        let first = self.last.swap(size, Ordering::Relaxed) == 0;
        if first || size < self.min.load(Ordering::Relaxed) {
            self.min.store(size, Ordering::Relaxed);
        }
        if size > self.max.load(Ordering::Relaxed) {
            self.max.store(size, Ordering::Relaxed);
        }
    }

    /// The last one.
    #[must_use]
    pub fn last(&self) -> usize {
        self.last.load(Ordering::Relaxed)
    }

    /// The least.
    #[must_use]
    pub fn min(&self) -> usize {
        self.min.load(Ordering::Relaxed)
    }

    /// The greatest.
    #[must_use]
    pub fn max(&self) -> usize {
        self.max.load(Ordering::Relaxed)
    }
}

macro_rules! stats {
    ($($(#[$meta:meta])* $name:ident,)*) => {
        /// Counters since the start of the server (or the last reset of those that `srst` resets).
        #[derive(Debug, Default)]
        pub struct Stats {
            $($(#[$meta])* pub $name: AtomicU64,)*
            /// From a read's arrival to its reply.
            pub read_latency: Histogram,
            /// From a write's arrival to its reply.
            pub update_latency: Histogram,
            /// All requests: what `srvr` shows as latency.
            pub latency: Histogram,
            /// Proposals of a leader, in bytes.
            pub proposal_size: Sizes,
            /// Writes refused for a hard quota, by the top-level znode that they were below.
            quota_exceeded_by_namespace: Mutex<BTreeMap<String, u64>>,
        }
    };
}

stats! {
    /// Frames from clients.
    packets_received,
    /// Frames to clients.
    packets_sent,
    /// Transactions that were applied.
    commits,
    /// Transactions that were proposed.
    proposals,
    /// Sessions that expired.
    sessions_expired,
    /// Connect requests.
    connection_requests,
    /// Connect requests for a session that exists, or did.
    revalidations,
    /// Digests that were not the predicted ones.
    digest_mismatches,
    /// Auth packets that failed.
    auth_failures,
    /// The `ensemble` scheme accepted a name.
    ensemble_auth_success,
    /// The `ensemble` scheme refused a name.
    ensemble_auth_fail,
    /// The `ensemble` scheme was shown no name, or has none.
    ensemble_auth_skip,
    /// Watch events queued.
    watch_events,
    /// Events of znodes created.
    node_created_watches,
    /// Events of znodes deleted.
    node_deleted_watches,
    /// Events of data changed.
    node_changed_watches,
    /// Events of children changed.
    node_children_watches,
    /// Containers and TTL znodes removed.
    containers_deleted,
    /// Requests that learners forwarded to this leader.
    learner_requests,
    /// Sessions that learners asked this leader about.
    learner_revalidations,
    /// Proposals that this learner received.
    learner_proposals_received,
    /// Commits that this learner received.
    learner_commits_received,
    /// Requests that this learner forwarded.
    requests_forwarded,
    /// Connections closed because their client had gone on to another server.
    sessions_moved,
    /// Local sessions that became global for an ephemeral znode.
    sessions_upgraded,
    /// Clients turned away because nobody is served.
    closed_not_serving,
}

/// A latency seen several times in a row: what is delivered together was mostly asked for together.
#[derive(Debug, Default)]
struct Run {
    value: u64,
    count: u64,
}

/// What one batch adds to the counters, so that they are touched once and not for each request.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) commits: u64,
    /// Bytes of replies to reads.
    pub(crate) reply_bytes: usize,
    packets_sent: u64,
    reads: Run,
    updates: Run,
    /// Runs that are over: reads (`true`) and updates.
    runs: Vec<(bool, Run)>,
}

impl Tally {
    pub(crate) fn sent(&mut self, frames: u64, reply_bytes: usize) {
        self.packets_sent += frames;
        self.reply_bytes += reply_bytes;
    }

    pub(crate) fn read(&mut self, since: Now, now: Now) {
        Self::add(&mut self.reads, &mut self.runs, true, since, now);
    }

    pub(crate) fn update(&mut self, since: Now, now: Now) {
        Self::add(&mut self.updates, &mut self.runs, false, since, now);
    }

    fn add(run: &mut Run, runs: &mut Vec<(bool, Run)>, read: bool, since: Now, now: Now) {
        let value = u64::try_from(now.mono_us - since.mono_us).unwrap_or_default();
        if run.value == value {
            run.count += 1;
        } else {
            runs.push((read, std::mem::replace(run, Run { value, count: 1 })));
        }
    }

    pub(crate) fn flush(self, stats: &Stats) {
        let Self { commits, reply_bytes: _, packets_sent, reads, updates, runs } = self;
        for (counter, count) in [(&stats.commits, commits), (&stats.packets_sent, packets_sent)] {
            if count > 0 {
                Stats::add(counter, count);
            }
        }
        for (read, Run { value, count }) in
            runs.into_iter().chain([(true, reads), (false, updates)])
        {
            if count > 0 {
                let histogram = if read { &stats.read_latency } else { &stats.update_latency };
                histogram.record_many(value, count);
                stats.latency.record_many(value, count);
            }
        }
    }
}

impl Stats {
    /// Adds to a counter.
    pub(crate) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }

    /// A hard quota refused a write at `path`.
    pub(crate) fn quota_exceeded(&self, path: &str) {
        let namespace = path.split('/').nth(1).unwrap_or_default();
        let mut counts = self.quota_exceeded_by_namespace.lock().expect("no holder panics");
        *counts.entry(namespace.to_owned()).or_default() += 1;
    }

    /// Writes refused for a hard quota, by the top-level znode that they were below.
    ///
    /// # Panics
    /// Never: no holder of the lock panics.
    #[must_use]
    pub fn quota_exceeded_by_namespace(&self) -> Vec<(String, u64)> {
        let counts = self.quota_exceeded_by_namespace.lock().expect("no holder panics");
        counts.iter().map(|(namespace, count)| (namespace.clone(), *count)).collect()
    }

    /// What `srst` resets.
    pub fn reset(&self) {
        self.packets_received.store(0, Ordering::Relaxed);
        self.packets_sent.store(0, Ordering::Relaxed);
        self.latency.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_a_quarter() {
        let histogram = Histogram::default();
        for value in 1..=10_000 {
            histogram.record(value);
        }
        let snapshot = histogram.snapshot();
        assert_eq!((snapshot.count, snapshot.min, snapshot.max), (10_000, 1, 10_000));
        for (q, exact) in [(0.5, 5000.0), (0.99, 9900.0), (1.0, 10_000.0)] {
            let got = snapshot.quantile(q) as f64;
            assert!(got >= exact * 0.999 && got <= exact * 1.25, "{q}: {got}");
        }
    }

    #[test]
    fn a_tally_counts_what_was_counted_one_by_one() {
        let at = |mono_us| Now { mono_us, wall_ms: 0 };
        let (tallied, counted) = (Stats::default(), Stats::default());
        let mut tally = Tally::default();
        for (read, since) in
            [(true, 3), (true, 3), (false, 9), (false, 1), (true, 4), (false, 9), (true, 9)]
        {
            let value = u64::try_from(9 - since).unwrap();
            let histogram = if read { &counted.read_latency } else { &counted.update_latency };
            histogram.record(value);
            counted.latency.record(value);
            if read { tally.read(at(since), at(9)) } else { tally.update(at(since), at(9)) }
        }
        tally.sent(5, 0);
        tally.flush(&tallied);
        assert_eq!(tallied.packets_sent.load(Ordering::Relaxed), 5);
        for (one, other) in [
            (&tallied.read_latency, &counted.read_latency),
            (&tallied.update_latency, &counted.update_latency),
            (&tallied.latency, &counted.latency),
        ] {
            let (one, other) = (one.snapshot(), other.snapshot());
            assert_eq!(
                (one.count, one.sum, one.min, one.max),
                (other.count, other.sum, other.min, other.max)
            );
            assert_eq!(one.buckets, other.buckets);
        }
    }

    #[test]
    fn every_value_is_within_its_bucket() {
        for value in (0..5000).chain([u64::MAX / 2, u64::from(u32::MAX)]) {
            let bucket = Histogram::bucket(value);
            if bucket < Histogram::BUCKETS - 1 {
                assert!(value <= Histogram::upper_bound(bucket), "{value}");
                assert!(bucket == 0 || value > Histogram::upper_bound(bucket - 1), "{value}");
            }
        }
    }
}
