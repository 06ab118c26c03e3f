//! A histogram of durations with fixed buckets, as Prometheus reads it.

/// Upper bounds of the buckets in microseconds; what is longer falls into `+Inf` only.
pub(crate) const BOUNDS_MICROS: [u64; 16] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 10_000_000,
];

/// Durations counted by bucket.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct HistogramSample {
    /// Observations per bucket, not cumulated; the last is above all bounds.
    pub(crate) buckets: [u64; BOUNDS_MICROS.len() + 1],
    /// Sum of all observations in microseconds.
    pub(crate) sum_micros: u64,
}

impl HistogramSample {
    /// Observations that were recorded in microseconds elsewhere.
    #[must_use]
    pub(crate) fn from_microseconds(histogram: &hdrhistogram::Histogram<u64>) -> Self {
        let mut sample = Self::default();
        for step in histogram.iter_recorded() {
            sample.observe(step.value_iterated_to(), step.count_at_value());
        }
        sample
    }

    /// Adds `count` durations of so many microseconds.
    pub(crate) fn observe(&mut self, micros: u64, count: u64) {
        let index = BOUNDS_MICROS.partition_point(|bound| *bound < micros);
        if let Some(bucket) = self.buckets.get_mut(index) {
            *bucket += count;
        }
        self.sum_micros = self.sum_micros.saturating_add(micros.saturating_mul(count));
    }

    /// Number of observations.
    #[must_use]
    pub(crate) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_inclusive_and_rising() {
        assert!(BOUNDS_MICROS.is_sorted());
        let mut sample = HistogramSample::default();
        for micros in [50, 51, 3_600_000_000] {
            sample.observe(micros, 1);
        }
        assert_eq!(sample.buckets[0], 1);
        assert_eq!(sample.buckets[1], 1);
        assert_eq!(sample.buckets[BOUNDS_MICROS.len()], 1);
        assert_eq!(sample.count(), 3);
        assert_eq!(sample.sum_micros, 50 + 51 + 3_600_000_000);
    }
}
