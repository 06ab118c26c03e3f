//! Counters of the store, for metrics, health and `$SYS`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use parking_lot::Mutex;

use crate::durable::StoreState;

/// Counters of a running store; they only rise.
#[derive(Debug)]
pub(crate) struct Statistics {
    /// Groups written with a sync.
    pub(crate) syncs: AtomicU64,
    /// Batches made durable.
    pub(crate) batches: AtomicU64,
    /// Bytes handed to the log.
    pub(crate) written_bytes: AtomicU64,
    /// Writes and syncs that failed.
    pub(crate) failures: AtomicU64,
    /// Entries removed from queues.
    pub(crate) removals: AtomicU64,
    /// Values that could not be decoded.
    pub(crate) unreadable_values: AtomicU64,
    latency_microseconds: Mutex<Histogram<u64>>,
}

/// A copy of the counters.
#[derive(Debug, Clone)]
pub struct StatisticsSnapshot {
    /// Whether batches become durable at present.
    pub(crate) state: StoreState,
    /// Groups written with a sync.
    pub syncs: u64,
    /// Batches made durable.
    pub(crate) batches: u64,
    /// Bytes handed to the log.
    pub written_bytes: u64,
    /// Writes and syncs that failed.
    pub failures: u64,
    /// Values that could not be decoded.
    pub(crate) unreadable_values: u64,
    /// Bytes of waiting batches.
    pub(crate) pending_bytes: usize,
    /// Bytes of the database on disk.
    pub disk_bytes: u64,
    /// Bytes of memory that RocksDB holds: write buffers, block cache, table readers.
    pub memory_bytes: u64,
    /// Time from taking a group to its durability, in microseconds.
    pub latency_microseconds: Histogram<u64>,
}

impl Default for Statistics {
    fn default() -> Self {
        Self {
            syncs: AtomicU64::new(0),
            batches: AtomicU64::new(0),
            written_bytes: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            removals: AtomicU64::new(0),
            unreadable_values: AtomicU64::new(0),
            latency_microseconds: Mutex::new(empty_histogram()),
        }
    }
}

impl Statistics {
    /// Counts a group that became durable.
    pub(crate) fn record_commit(&self, latency: Duration) {
        let microseconds = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.latency_microseconds.lock().saturating_record(microseconds);
    }

    /// Counts a failure.
    pub(crate) fn record_failure(&self) {
        add(&self.failures, 1);
    }

    /// Latencies so far.
    #[must_use]
    pub(crate) fn latency_microseconds(&self) -> Histogram<u64> {
        self.latency_microseconds.lock().clone()
    }
}

/// Adds to a counter.
pub(crate) fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

/// Reads a counter.
#[must_use]
pub(crate) fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn empty_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000, 2).expect("the bounds are valid constants")
}
