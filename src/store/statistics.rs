//! Counters of the store, for metrics, health and `$SYS`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use parking_lot::Mutex;

use crate::durable::StoreState;

/// Counters of a running store; they only rise.
#[derive(Debug)]
pub struct Statistics {
    /// Groups written.
    pub commits: AtomicU64,
    /// Groups written with a sync.
    pub syncs: AtomicU64,
    /// Batches made durable.
    pub batches: AtomicU64,
    /// Changes in them.
    pub changes: AtomicU64,
    /// Bytes handed to the log.
    pub written_bytes: AtomicU64,
    /// Writes and syncs that failed.
    pub failures: AtomicU64,
    /// Entries removed from queues.
    pub removals: AtomicU64,
    /// Values that could not be decoded.
    pub unreadable_values: AtomicU64,
    latency_microseconds: Mutex<Histogram<u64>>,
    last_error: Mutex<Option<String>>,
}

/// A copy of the counters.
#[derive(Debug, Clone)]
pub struct StatisticsSnapshot {
    /// Whether batches become durable at present.
    pub state: StoreState,
    /// Groups written.
    pub commits: u64,
    /// Groups written with a sync.
    pub syncs: u64,
    /// Batches made durable.
    pub batches: u64,
    /// Changes in them.
    pub changes: u64,
    /// Bytes handed to the log.
    pub written_bytes: u64,
    /// Writes and syncs that failed.
    pub failures: u64,
    /// Values that could not be decoded.
    pub unreadable_values: u64,
    /// Bytes of waiting batches.
    pub pending_bytes: usize,
    /// Bytes of the database on disk.
    pub disk_bytes: u64,
    /// Bytes of memory that RocksDB holds: write buffers, block cache, table readers.
    pub memory_bytes: u64,
    /// The last failure.
    pub last_error: Option<String>,
    /// Time from taking a group to its durability, in microseconds.
    pub latency_microseconds: Histogram<u64>,
}

impl Default for Statistics {
    fn default() -> Self {
        Self {
            commits: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            batches: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            written_bytes: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            removals: AtomicU64::new(0),
            unreadable_values: AtomicU64::new(0),
            latency_microseconds: Mutex::new(empty_histogram()),
            last_error: Mutex::new(None),
        }
    }
}

impl Statistics {
    /// Counts a group that became durable.
    pub fn record_commit(&self, latency: Duration) {
        add(&self.commits, 1);
        let microseconds = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.latency_microseconds.lock().saturating_record(microseconds);
    }

    /// Counts a failure and keeps its message.
    pub fn record_failure(&self, error: &str) {
        add(&self.failures, 1);
        *self.last_error.lock() = Some(error.to_owned());
    }

    /// Latencies so far.
    #[must_use]
    pub fn latency_microseconds(&self) -> Histogram<u64> {
        self.latency_microseconds.lock().clone()
    }

    /// The last failure.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        self.last_error.lock().clone()
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
