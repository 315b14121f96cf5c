//! Counts of what the processors did. They are read by the shell, which names and exports them.

use std::sync::atomic::{AtomicU64, Ordering};

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
    /// Connections whose session was established or taken up again.
    connection_requests,
    /// Sessions taken up again.
    revalidations,
    /// Requests refused for a hard quota.
    quota_exceeded,
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
}

impl Stats {
    /// Adds to a counter.
    pub(crate) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
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
