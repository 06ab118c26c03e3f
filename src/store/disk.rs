//! The interface between the writer and the disk, small enough for tests to replace it and inject failures.

use std::path::Path;

use rocksdb::{DB, ErrorKind, WriteBatch};

use crate::durable::StoreState;
use crate::store::commit_group::handle;
use crate::store::error::StoreError;
use crate::store::family::Family;
use crate::store::operations::{Operation, Operations};
use crate::store::options::{WriteSync, write_options};

/// Writes groups to the disk.
pub trait Disk: Send {
    /// Writes a group, and waits for the disk if requested.
    ///
    /// # Errors
    /// [`WriteError`]: then the state of the group is unknown, and the database must be reopened.
    fn write(
        &mut self,
        db: &DB,
        operations: &Operations,
        sync: WriteSync,
    ) -> Result<(), WriteError>;

    /// Free space available to us; `None` if unknown.
    fn free_bytes(&mut self, path: &Path) -> Option<u64>;
}

/// A write or sync failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// No space (or no quota) is left.
    #[error("no space left: {0}")]
    NoSpace(String),
    /// A file that had to be read for the write (for example to be merged) is damaged.
    #[error("write failed, a file is damaged: {0}")]
    Damaged(String),
    /// Anything else.
    #[error("write failed: {0}")]
    Failed(String),
}

impl WriteError {
    /// The state of the store after this error.
    #[must_use]
    pub(crate) fn state(&self) -> StoreState {
        match self {
            Self::NoSpace(_) => StoreState::Full,
            Self::Damaged(_) | Self::Failed(_) => StoreState::Failed,
        }
    }

    /// Derives the kind of error from the message of the operating system.
    #[must_use]
    pub(crate) fn from_message(message: String) -> Self {
        let lower = message.to_ascii_lowercase();
        if lower.contains("no space") || lower.contains("quota exceeded") {
            Self::NoSpace(message)
        } else {
            Self::Failed(message)
        }
    }
}

/// The real disk.
#[derive(Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn write(
        &mut self,
        db: &DB,
        operations: &Operations,
        sync: WriteSync,
    ) -> Result<(), WriteError> {
        let failed = |error: rocksdb::Error| match error.kind() {
            ErrorKind::Corruption => WriteError::Damaged(error.into_string()),
            _ => WriteError::from_message(error.into_string()),
        };
        let batch = into_batch(db, operations).map_err(|e| WriteError::Failed(e.to_string()))?;
        db.write_opt(batch, &write_options(sync)).map_err(failed)
    }

    fn free_bytes(&mut self, path: &Path) -> Option<u64> {
        let statistics = rustix::fs::statvfs(path).ok()?;
        Some(statistics.f_bavail.saturating_mul(statistics.f_frsize))
    }
}

/// Converts operations to a RocksDB write batch.
fn into_batch(db: &DB, operations: &Operations) -> Result<WriteBatch, StoreError> {
    let mut families = [None; Family::ALL.len()];
    for family in Family::ALL {
        families[usize::from(family.code())] = Some(handle(db, family)?);
    }
    let family = |family: Family| match families[usize::from(family.code())] {
        Some(handle) => Ok(handle),
        None => handle(db, family),
    };
    let mut batch = WriteBatch::with_capacity_bytes(operations.size_bytes() + 64);
    for operation in operations {
        match operation {
            Operation::Put { family: name, key, value } => batch.put_cf(family(name)?, key, value),
            Operation::Delete { family: name, key } => batch.delete_cf(family(name)?, key),
            Operation::DeleteOnce { family: name, key } => {
                batch.single_delete_cf(family(name)?, key);
            }
            Operation::DeleteRange { family: name, from, to } => {
                batch.delete_range_cf(family(name)?, from, to);
            }
        }
    }
    Ok(batch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_a_broken_one() {
        let full = WriteError::from_message("IO error: No space left on device: x.log".into());
        assert_eq!(full.state(), StoreState::Full);
        let broken = WriteError::from_message("IO error: Input/output error: x.log".into());
        assert_eq!(broken.state(), StoreState::Failed);
    }
}
