//! What the operator's side asks of a store, besides what the core does with it: figures, backups, an orderly end.

use std::path::Path;

use crate::store::backup::BackupReport;
use crate::store::error::StoreError;
use crate::store::statistics::StatisticsSnapshot;

/// A store that outlives the process, seen by whoever runs the broker.
pub trait Upkeep: Send + Sync {
    /// Its state, its sizes and its counters. Asks the file system: not for the message path.
    fn statistics(&self) -> StatisticsSnapshot;

    /// Copies the store into an empty or missing directory while it runs. Blocks for as long as copying takes. `progress`
    /// is told bytes done and in all.
    ///
    /// # Errors
    /// [`StoreError`] when the directory is not empty or copying fails.
    fn back_up(
        &self,
        directory: &Path,
        progress: &dyn Fn(u64, u64),
    ) -> Result<BackupReport, StoreError>;

    /// Writes what is pending and closes the store. Called again, it does nothing.
    fn close(&self);
}
