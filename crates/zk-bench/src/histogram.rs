/// Latencies in ns, in buckets that are at most 0.8 % wide.
#[derive(Debug, Clone)]
pub(crate) struct Histogram {
    counts: Box<[u64]>,
    count: u64,
    sum: u64,
    max: u64,
}

const SUB_BITS: u32 = 7;
const SUB: u64 = 1 << SUB_BITS;
/// Values of more bits (about 18 minutes) share the last bucket.
const MAX_BITS: u32 = 40;
/// The first two groups of `SUB` are exact, hence one group more than there are shifts.
const BUCKETS: usize = ((MAX_BITS - SUB_BITS + 1) as usize) << SUB_BITS;

fn bucket(value: u64) -> usize {
    let value = value.min((1 << MAX_BITS) - 1);
    let shift = (63 - (value | SUB).leading_zeros()) - SUB_BITS;
    ((shift as usize) << SUB_BITS) + usize::try_from(value >> shift).expect("below 2 * SUB")
}

/// The middle of a bucket.
fn value(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < 2 * SUB {
        return bucket;
    }
    let shift = (bucket >> SUB_BITS) - 1;
    let low = (SUB + (bucket & (SUB - 1))) << shift;
    low + (1 << shift) / 2
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { counts: vec![0; BUCKETS].into(), count: 0, sum: 0, max: 0 }
    }

    pub(crate) fn record(&mut self, value: u64) {
        self.counts[bucket(value)] += 1;
        self.count += 1;
        self.sum += value;
        self.max = self.max.max(value);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.count += other.count;
        self.sum += other.sum;
        self.max = self.max.max(other.max);
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn max(&self) -> u64 {
        self.max
    }

    pub(crate) fn mean(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum as f64 / self.count as f64 }
    }

    /// The value that `quantile` (0 to 1) of all values do not exceed.
    pub(crate) fn quantile(&self, quantile: f64) -> u64 {
        let rank = ((self.count as f64 * quantile).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return value(bucket).min(self.max);
            }
        }
        self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_within_a_percent_of_its_bucket() {
        let mut previous = 0;
        for exponent in 0..39 {
            for step in 0..1000u64 {
                let v = (1u64 << exponent) + (step << exponent) / 1000;
                let b = bucket(v);
                assert!(b >= previous, "buckets rise");
                previous = b;
                let back = value(b);
                assert!(back.abs_diff(v) as f64 <= v as f64 * 0.008, "{v} became {back}");
            }
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_of_a_known_distribution() {
        let mut histogram = Histogram::new();
        for v in 1..=100_000u64 {
            histogram.record(v);
        }
        for (quantile, expected) in
            [(0.5, 50_000u64), (0.9, 90_000), (0.99, 99_000), (0.999, 99_900)]
        {
            let got = histogram.quantile(quantile);
            assert!(got.abs_diff(expected) as f64 <= expected as f64 * 0.01, "{quantile}: {got}");
        }
        assert_eq!(
            (histogram.max(), histogram.count(), histogram.quantile(1.0)),
            (100_000, 100_000, 100_000)
        );
        let mut twice = histogram.clone();
        twice.merge(&histogram);
        assert_eq!(twice.quantile(0.5), histogram.quantile(0.5));
        assert_eq!(twice.count(), 200_000);
    }
}
