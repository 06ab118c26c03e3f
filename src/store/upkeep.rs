//! Operations on a store for the operator, beyond the port of the core: statistics, backup, closing.

use std::path::Path;

use crate::store::backup::BackupReport;
use crate::store::error::StoreError;
use crate::store::statistics::StatisticsSnapshot;

/// A persistent store, as the operator sees it.
pub(crate) trait Upkeep: Send + Sync {
    /// Its state, sizes and counters. Queries the file system, so it is not for the message path.
    fn statistics(&self) -> StatisticsSnapshot;

    /// Copies the store into an empty or missing directory while it runs. Blocks for as long as copying takes. `progress`
    /// receives bytes done and total bytes.
    ///
    /// # Errors
    /// [`StoreError`] when the directory is not empty or copying fails.
    fn back_up(
        &self,
        directory: &Path,
        progress: &dyn Fn(u64, u64),
    ) -> Result<BackupReport, StoreError>;

    /// Writes pending batches and closes the store. Calling it again does nothing.
    fn close(&self);
}
