//! Clock, histograms and the difference between two measurements.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use parking_lot::{Mutex, MutexGuard};

use crate::bench::error::BenchError;

/// Nanoseconds since the generator started: what stamps carry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock(Instant);

impl Clock {
    /// Starts at zero.
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    /// Nanoseconds since the start.
    #[inline]
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Latencies in nanoseconds, written by the clients of one thread, so that the lock is free nearly always.
#[derive(Debug, Clone)]
pub(super) struct SharedHistogram(Arc<Mutex<Histogram<u64>>>);

impl SharedHistogram {
    /// From a microsecond to a minute, three significant digits.
    pub(super) fn new() -> Result<Self, BenchError> {
        Ok(Self(Arc::new(Mutex::new(empty_histogram()?))))
    }

    /// For recording.
    #[inline]
    pub(super) fn lock(&self) -> Guard<'_> {
        Guard(self.0.lock())
    }
}

/// Access to a histogram.
pub(super) struct Guard<'a>(MutexGuard<'a, Histogram<u64>>);

impl Guard<'_> {
    /// Records a latency in nanoseconds.
    #[inline]
    pub(super) fn saturating_record(&mut self, nanos: u64) {
        self.0.saturating_record(nanos);
    }
}

fn empty_histogram() -> Result<Histogram<u64>, BenchError> {
    Histogram::new_with_bounds(1_000, 60_000_000_000, 3)
        .map_err(|error| BenchError::Histogram(error.to_string()))
}

/// One histogram for each thread of the generator.
#[derive(Debug, Clone)]
pub(super) struct Histograms(Vec<SharedHistogram>);

impl Histograms {
    /// As many as there are threads.
    pub(super) fn new(threads: usize) -> Result<Self, BenchError> {
        (0..threads).map(|_| SharedHistogram::new()).collect::<Result<_, _>>().map(Self)
    }

    /// That of the thread which the client with this index runs on.
    pub(super) fn of_client(&self, index: usize) -> SharedHistogram {
        // There is at least one thread.
        self.0[index % self.0.len()].clone()
    }

    /// Forgets what was recorded (at the end of warming up).
    pub(super) fn reset(&self) {
        for histogram in &self.0 {
            histogram.0.lock().reset();
        }
    }

    /// All together.
    pub(super) fn merged(&self) -> Result<Histogram<u64>, BenchError> {
        let mut merged = empty_histogram()?;
        for histogram in &self.0 {
            let histogram = histogram.0.lock();
            merged.add(&*histogram).map_err(|error| BenchError::Histogram(error.to_string()))?;
        }
        Ok(merged)
    }
}

/// `count` per second of `time`.
pub(super) fn per_second(count: u64, time: Duration) -> f64 {
    as_f64(count) / time.as_secs_f64().max(1e-9)
}

/// `total` for each of `count`; zero for none.
pub(super) fn ratio(total: f64, count: u64) -> f64 {
    if count == 0 { 0.0 } else { total / as_f64(count) }
}

/// For figures that are shown, not counted with.
#[expect(clippy::cast_precision_loss, reason = "figures are rounded for display anyway")]
pub(super) fn as_f64(count: u64) -> f64 {
    count as f64
}
