//! The settings of the store, filled in by `config`.

use std::path::PathBuf;
use std::time::Duration;

const MEBIBYTE: usize = 1024 * 1024;

/// Settings of [`crate::store::rocks::RocksStore`].
#[derive(Debug, Clone)]
pub struct StoreSettings {
    /// The broker's data directory, which contains the database in `store`.
    pub(crate) data_dir: PathBuf,
    /// Memory for blocks, indexes and filters read from disk.
    pub(crate) block_cache_bytes: usize,
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

/// Where the database of a data directory is.
#[must_use]
pub(crate) fn database(data_dir: &std::path::Path) -> PathBuf {
    data_dir.join("store")
}
