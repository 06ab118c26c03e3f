//! The settings of the store, filled in by `config`.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rocksdb::Cache;

const MEBIBYTE: usize = 1024 * 1024;

/// Settings of [`crate::store::rocks::RocksStore`].
#[derive(Debug, Clone)]
pub struct StoreSettings {
    /// The broker's data directory, which contains the database in `store`.
    pub(crate) data_dir: PathBuf,
    /// Memory for blocks, indexes and filters read from disk.
    pub(crate) block_cache_bytes: usize,
    /// That memory.
    pub(crate) block_cache: BlockCache,
    /// Memory for recent writes that are not yet in sorted files. It also bounds the log that is replayed at opening.
    pub(crate) write_buffer_bytes: usize,
    /// Most files held open.
    pub(crate) max_open_files: i32,
    /// Disk space that must stay free: below it nothing becomes durable until there is more.
    pub min_free_bytes: u64,
    /// The longest downtime that counts for expiry, see [`crate::store::clock`].
    pub(crate) max_downtime: Duration,
}

impl StoreSettings {
    /// The defaults, for a data directory.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            block_cache_bytes: 32 * MEBIBYTE,
            block_cache: BlockCache::default(),
            write_buffer_bytes: 64 * MEBIBYTE,
            max_open_files: 512,
            min_free_bytes: 64 * MEBIBYTE as u64,
            max_downtime: Duration::from_hours(30 * 24),
        }
    }

    /// Where the database is.
    #[must_use]
    pub(crate) fn database(&self) -> PathBuf {
        database(&self.data_dir)
    }
}

/// The block cache: created when the database is opened first, and kept when it is reopened.
#[derive(Clone, Default)]
pub(crate) struct BlockCache(Arc<OnceLock<Cache>>);

impl BlockCache {
    /// The cache, of this size when it is created.
    pub(crate) fn open(&self, bytes: usize) -> &Cache {
        self.0.get_or_init(|| Cache::new_lru_cache(bytes))
    }

    /// Bytes in it.
    pub(crate) fn used_bytes(&self) -> usize {
        self.0.get().map_or(0, Cache::get_usage)
    }

    /// Drops its contents; `bytes` is its size.
    pub(crate) fn clear(&self, bytes: usize) {
        if let Some(mut cache) = self.0.get().cloned() {
            cache.set_capacity(0);
            cache.set_capacity(bytes);
        }
    }
}

impl fmt::Debug for BlockCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockCache").field("used_bytes", &self.used_bytes()).finish()
    }
}

/// Where the database of a data directory is.
#[must_use]
pub(crate) fn database(data_dir: &std::path::Path) -> PathBuf {
    data_dir.join("store")
}
