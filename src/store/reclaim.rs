//! Reclaims the disk space of removed messages.
//!
//! RocksDB merges files as new ones are written, so a drained backlog would stay on disk until enough new messages
//! follow. If the files of the queues are much larger than the contents of the queues, a separate thread merges them
//! completely. The result is smaller than the threshold, so the cost is in proportion to the removals.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rocksdb::{CompactOptions, DB};

use crate::store::commit_group::handle;
use crate::store::family::Family;

/// Files smaller than this in total are left alone.
const WORTHWHILE_BYTES: u64 = 32 * 1024 * 1024;

/// Decides when to merge, and runs one merge at a time.
#[derive(Debug, Default)]
pub(crate) struct Reclaimer {
    running: Arc<AtomicBool>,
}

impl Reclaimer {
    /// Merges the files of the queues if most of their data was removed. `live_bytes`, the contents of the queues, is
    /// called only if the files are large at all.
    pub(crate) fn consider(&self, db: &Arc<DB>, live_bytes: impl FnOnce() -> u64) {
        let file_bytes = file_bytes(db, Family::Queue) + file_bytes(db, Family::Bodies);
        if self.running.load(Ordering::Acquire) || !is_worthwhile(file_bytes, live_bytes) {
            return;
        }
        self.running.store(true, Ordering::Release);
        let (db, running) = (Arc::clone(db), Arc::clone(&self.running));
        let started = std::thread::Builder::new().name("petrel-reclaim".into()).spawn(move || {
            reclaim(&db);
            drop(db);
            running.store(false, Ordering::Release);
        });
        if let Err(error) = started {
            self.running.store(false, Ordering::Release);
            tracing::warn!(%error, "cannot reclaim disk space at present");
        }
    }
}

fn is_worthwhile(file_bytes: u64, live_bytes: impl FnOnce() -> u64) -> bool {
    // Files are compressed and the live bytes are not, so if the files are twice as large, most of it is garbage.
    file_bytes > WORTHWHILE_BYTES && file_bytes / 2 > live_bytes()
}

fn file_bytes(db: &DB, family: Family) -> u64 {
    let Ok(handle) = handle(db, family) else { return 0 };
    let size = db.property_int_value_cf(handle, rocksdb::properties::LIVE_SST_FILES_SIZE);
    size.ok().flatten().unwrap_or(0)
}

fn reclaim(db: &DB) {
    let before = file_bytes(db, Family::Queue) + file_bytes(db, Family::Bodies);
    let mut options = CompactOptions::default();
    options.set_exclusive_manual_compaction(false);
    for family in [Family::Queue, Family::Bodies] {
        if let Ok(handle) = handle(db, family) {
            db.compact_range_cf_opt(handle, None::<&[u8]>, None::<&[u8]>, &options);
        }
    }
    let after = file_bytes(db, Family::Queue) + file_bytes(db, Family::Bodies);
    tracing::debug!(before, after, "reclaimed the disk space of removed messages");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_merged_when_most_of_them_was_removed() {
        assert!(is_worthwhile(100 << 20, || 40 << 20));
        assert!(!is_worthwhile(100 << 20, || 60 << 20));
        assert!(!is_worthwhile(20 << 20, || panic!("small files are left alone")));
    }
}
