//! A histogram of durations with fixed buckets: four per power of two from 64 µs up, so that any quantile is told
//! within 19 %.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets; the last takes everything longer than about 8 minutes.
pub const BUCKETS: usize = 92;
/// Upper bound of the first bucket, microseconds.
const FIRST_US: u64 = 64;

/// Counts per bucket, as a plain value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts {
    /// Observations per bucket.
    pub buckets: [u64; BUCKETS],
    /// Sum of all observations, microseconds.
    pub sum_us: u64,
}

impl Default for Counts {
    fn default() -> Self {
        Self { buckets: [0; BUCKETS], sum_us: 0 }
    }
}

/// Counts per bucket, shared.
#[derive(Debug)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: std::array::from_fn(|_| AtomicU64::new(0)), sum_us: AtomicU64::new(0) }
    }
}

/// The bucket of a duration.
fn bucket(us: u64) -> usize {
    if us <= FIRST_US {
        return 0;
    }
    let us = us - 1;
    let power = us.ilog2();
    // Two bits below the highest choose one of four parts.
    let part = (us >> (power - 2)) & 3;
    let index = (u64::from(power) - 6) * 4 + part + 1;
    usize::try_from(index).unwrap_or(BUCKETS - 1).min(BUCKETS - 1)
}

/// Upper bound of a bucket, microseconds.
#[must_use]
pub fn upper_bound_us(bucket: usize) -> u64 {
    if bucket == 0 {
        return FIRST_US;
    }
    let (power, part) = ((bucket - 1) / 4 + 6, (bucket - 1) % 4);
    (1_u64 << power) + ((part as u64 + 1) << (power - 2))
}

impl Histogram {
    /// Counts one observation.
    pub fn observe(&self, span: Duration) {
        let us = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket(us)].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// Adds what was counted so far to `into`.
    pub fn add_to(&self, into: &mut Counts) {
        for (sum, bucket) in into.buckets.iter_mut().zip(&self.buckets) {
            *sum += bucket.load(Ordering::Relaxed);
        }
        into.sum_us += self.sum_us.load(Ordering::Relaxed);
    }
}

impl Counts {
    /// How many observations.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// What was counted here and not yet in `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            buckets: std::array::from_fn(|at| self.buckets[at].saturating_sub(earlier.buckets[at])),
            sum_us: self.sum_us.saturating_sub(earlier.sum_us),
        }
    }

    /// Adds another count.
    pub fn add(&mut self, other: &Self) {
        for (sum, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *sum += more;
        }
        self.sum_us += other.sum_us;
    }

    /// The upper bound of the bucket that holds the quantile, microseconds; `None` without observations.
    /// `per_cent` is 0 to 100.
    #[must_use]
    pub fn quantile_us(&self, per_cent: u64) -> Option<u64> {
        let total = self.total();
        if total == 0 {
            return None;
        }
        let rank = (total * per_cent.min(100)).div_ceil(100).max(1);
        let mut seen = 0;
        for (at, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Some(upper_bound_us(at));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_duration_lies_within_its_bucket(us in 0_u64..400_000_000) {
            let at = bucket(us);
            prop_assert!(us <= upper_bound_us(at));
            if at > 0 {
                prop_assert!(us > upper_bound_us(at - 1));
            }
        }
    }

    #[test]
    fn quantiles_are_within_a_bucket_of_the_truth() {
        let histogram = Histogram::default();
        for ms in 1..=100 {
            histogram.observe(Duration::from_millis(ms));
        }
        let mut counts = Counts::default();
        histogram.add_to(&mut counts);
        for (per_cent, truth) in [(50, 50_000.0), (95, 95_000.0), (99, 99_000.0)] {
            #[expect(clippy::cast_precision_loss, reason = "a few microseconds more or less")]
            let told = counts.quantile_us(per_cent).expect("some") as f64;
            assert!((truth..=truth * 1.26).contains(&told), "p{per_cent}: {told}");
        }
        assert_eq!(Counts::default().quantile_us(50), None);
    }
}
