//! Reclaims what RocksDB keeps after a storm: the disk space of removed messages, and memory.
//!
//! RocksDB merges files as new ones are written, so a drained backlog would stay on disk until enough new messages
//! follow. If the files of the queues are much larger than the contents of the queues, a separate thread merges them
//! completely. The result is smaller than the threshold, so the cost is in proportion to the removals.
//!
//! Write buffers become files when they are full, and the block cache keeps what was read until something else is. Once
//! hardly anything is written, the memory of the last storm would be kept for ever: then the separate thread writes the
//! buffers to files and clears the cache. Only [`WORTHWHILE_BYTES_OF_MEMORY`] or more are worth it, so the files do not
//! become small.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rocksdb::{CompactOptions, DB};

use crate::store::commit_group::handle;
use crate::store::family::Family;
use crate::store::settings::StoreSettings;

/// Files smaller than this in total are left alone.
const WORTHWHILE_BYTES: u64 = 32 * 1024 * 1024;

/// Write buffers and a block cache smaller than this in total are left alone.
const WORTHWHILE_BYTES_OF_MEMORY: u64 = 4 * 1024 * 1024;

/// Fewer bytes written than this in an interval count as nothing.
const RESTING_BYTES: u64 = 1024 * 1024;

/// Decides when to reclaim, and runs one job at a time.
#[derive(Debug, Default)]
pub(crate) struct Reclaimer {
    running: Arc<AtomicBool>,
    /// Bytes written in total when write buffers were considered last.
    written_bytes: u64,
}

impl Reclaimer {
    /// Merges the files of the queues if most of their data was removed. `live_bytes`, the contents of the queues, is
    /// called only if the files are large at all.
    pub(crate) fn consider(&self, db: &Arc<DB>, live_bytes: impl FnOnce() -> u64) {
        let file_bytes = file_bytes(db, Family::Queue) + file_bytes(db, Family::Bodies);
        if !self.is_running() && is_worthwhile(file_bytes, live_bytes) {
            self.start(db, reclaim_disk);
        }
    }

    /// Reclaims memory if hardly anything is written. Called at regular intervals; `written_bytes` is the total so far.
    pub(crate) fn consider_memory(
        &mut self,
        db: &Arc<DB>,
        settings: &StoreSettings,
        written_bytes: u64,
    ) {
        let before = std::mem::replace(&mut self.written_bytes, written_bytes);
        let recent_bytes = written_bytes.saturating_sub(before);
        let held_bytes = buffer_bytes(db) + settings.block_cache.used_bytes() as u64;
        if !self.is_running() && is_at_rest(held_bytes, recent_bytes) {
            let (cache, cache_bytes) = (settings.block_cache.clone(), settings.block_cache_bytes);
            self.start(db, move |db| {
                write_buffers_out(db);
                cache.clear(cache_bytes);
            });
        }
    }

    fn is_running(&self) -> bool {
        self.running.load(Ordering::Acquire)
    }

    fn start(&self, db: &Arc<DB>, job: impl FnOnce(&DB) + Send + 'static) {
        self.running.store(true, Ordering::Release);
        let (db, running) = (Arc::clone(db), Arc::clone(&self.running));
        let started = std::thread::Builder::new().name("petrel-reclaim".into()).spawn(move || {
            job(&db);
            drop(db);
            running.store(false, Ordering::Release);
        });
        if let Err(error) = started {
            self.running.store(false, Ordering::Release);
            tracing::warn!(%error, "cannot reclaim disk space and memory at present");
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

/// Whether memory of a storm is held that is over.
fn is_at_rest(held_bytes: u64, recent_bytes: u64) -> bool {
    held_bytes > WORTHWHILE_BYTES_OF_MEMORY && recent_bytes < RESTING_BYTES
}

fn buffer_bytes(db: &DB) -> u64 {
    let bytes_of = |family| {
        let handle = handle(db, family).ok()?;
        let property = rocksdb::properties::CUR_SIZE_ALL_MEM_TABLES;
        db.property_int_value_cf(handle, property).ok().flatten()
    };
    Family::ALL.into_iter().filter_map(bytes_of).sum()
}

fn write_buffers_out(db: &DB) {
    let before = buffer_bytes(db);
    for family in Family::ALL {
        let Ok(handle) = handle(db, family) else { continue };
        if let Err(error) = db.flush_cf(handle) {
            // The next write meets the same error, and the writer handles it.
            tracing::debug!(%error, "cannot write a buffer to a file");
            return;
        }
    }
    tracing::debug!(before, after = buffer_bytes(db), "reclaimed the memory of write buffers");
}

fn reclaim_disk(db: &DB) {
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

    #[test]
    fn memory_is_reclaimed_when_little_is_written() {
        assert!(is_at_rest(64 << 20, 10_000));
        assert!(!is_at_rest(64 << 20, 2 << 20), "it is in use");
        assert!(!is_at_rest(2 << 20, 0), "a little is left alone");
    }
}
