//! A histogram of durations with fixed buckets, cheap enough to record every commit of the store.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets in microseconds; what is longer falls into `+Inf` only.
pub const BOUNDS_MICROS: [u64; 16] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 10_000_000,
];

/// Durations counted by bucket.
#[derive(Debug, Default)]
pub struct Histogram {
    /// One more than there are bounds: the last is for what exceeds them all.
    buckets: [AtomicU64; BOUNDS_MICROS.len() + 1],
    sum_micros: AtomicU64,
}

/// The state of a [`Histogram`] at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HistogramSample {
    /// Observations per bucket, not cumulated; the last is above all bounds.
    pub buckets: [u64; BOUNDS_MICROS.len() + 1],
    /// Sum of all observations in microseconds.
    pub sum_micros: u64,
}

impl Histogram {
    /// Records one duration.
    pub fn observe(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let index = BOUNDS_MICROS.partition_point(|bound| *bound < micros);
        self.buckets[index].fetch_add(1, Ordering::Relaxed);
        self.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// Reads all buckets. Observations made meanwhile may be in it or not.
    #[must_use]
    pub fn sample(&self) -> HistogramSample {
        HistogramSample {
            buckets: std::array::from_fn(|index| self.buckets[index].load(Ordering::Relaxed)),
            sum_micros: self.sum_micros.load(Ordering::Relaxed),
        }
    }
}

impl HistogramSample {
    /// Observations that were recorded in microseconds elsewhere.
    #[must_use]
    pub fn from_microseconds(histogram: &hdrhistogram::Histogram<u64>) -> Self {
        let mut sample = Self::default();
        for step in histogram.iter_recorded() {
            let micros = step.value_iterated_to();
            let index = BOUNDS_MICROS.partition_point(|bound| *bound < micros);
            let count = step.count_at_value();
            if let Some(bucket) = sample.buckets.get_mut(index) {
                *bucket += count;
            }
            sample.sum_micros = sample.sum_micros.saturating_add(micros.saturating_mul(count));
        }
        sample
    }

    /// Number of observations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_inclusive_and_rising() {
        assert!(BOUNDS_MICROS.is_sorted());
        let histogram = Histogram::default();
        histogram.observe(Duration::from_micros(50));
        histogram.observe(Duration::from_micros(51));
        histogram.observe(Duration::from_hours(1));
        let sample = histogram.sample();
        assert_eq!(sample.buckets[0], 1);
        assert_eq!(sample.buckets[1], 1);
        assert_eq!(sample.buckets[BOUNDS_MICROS.len()], 1);
        assert_eq!(sample.count(), 3);
        assert_eq!(sample.sum_micros, 50 + 51 + 3_600_000_000);
    }
}
