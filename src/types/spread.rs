//! [`Spread`]: how measured values lie, for measurements and comparisons.

use serde::{Deserialize, Serialize};

/// How values lie. Percentiles are values that were measured (nearest rank), never interpolated.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Spread {
    /// The least.
    pub least: f64,
    /// Their mean.
    pub mean: f64,
    /// Half of them are at most this.
    pub p50: f64,
    /// 95 % of them are at most this.
    pub p95: f64,
    /// 99 % of them are at most this.
    pub p99: f64,
    /// The most.
    pub most: f64,
}

impl Spread {
    /// How the values lie; `None` when there is none. What is no number is left out.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a mean of fewer than 2^52 values")]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let rank = |percent: usize| values.get((values.len() * percent).div_ceil(100).saturating_sub(1)).copied();
        Some(Self {
            least: *values.first()?,
            mean: values.iter().sum::<f64>() / values.len() as f64,
            p50: rank(50)?,
            p95: rank(95)?,
            p99: rank(99)?,
            most: *values.last()?,
        })
    }
}

/// The value in the middle; the mean of both middle ones for an even number. `None` when there is none.
#[must_use]
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    Some(if values.len() % 2 == 1 { upper } else { f64::midpoint(values[middle - 1], upper) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_measured_values() {
        let spread = Spread::of((1..=200).map(f64::from)).expect("values");
        assert_eq!((spread.least, spread.p50, spread.p95, spread.p99, spread.most), (1.0, 100.0, 190.0, 198.0, 200.0));
        assert!((spread.mean - 100.5).abs() < 1e-9);
        let one = Spread::of([7.0, f64::NAN]).expect("a value");
        assert_eq!((one.least, one.p50, one.p99, one.most), (7.0, 7.0, 7.0, 7.0));
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median([]), None);
    }
}
