//! The lock on a data directory, which ensures that only one broker uses it: a locked file that names its holder.
//!
//! RocksDB has its own lock, but cannot say who holds it. Our lock belongs to the open file, so it is released when
//! the process ends for any reason.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use crate::store::error::StoreError;

const NAME: &str = "petrel.pid";

/// The lock on a data directory, held until dropped.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Creates the directory if it is missing, and locks it.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another process holds the directory, [`StoreError::Directory`] when it cannot be
    /// created or written.
    pub(crate) fn acquire(data_dir: &Path) -> Result<Self, StoreError> {
        let failed = |source| StoreError::Directory { path: data_dir.to_path_buf(), source };
        // Queued messages are private.
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir).map_err(failed)?;
        warn_if_open(data_dir);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(data_dir.join(NAME))
            .map_err(failed)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut holder = String::new();
            let _unknown = file.read_to_string(&mut holder);
            return Err(StoreError::InUse {
                path: data_dir.to_path_buf(),
                process: holder.trim().parse().ok(),
            });
        }
        file.set_len(0).map_err(failed)?;
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

/// Warns if others can read the directory. It does not change the mode, which may be intended.
fn warn_if_open(directory: &Path) {
    let Ok(metadata) = directory.metadata() else { return };
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        tracing::warn!(
            directory = %directory.display(),
            mode = format!("{mode:o}"),
            "other users can read the data directory, which contains messages: `chmod 700` it"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused_and_told_who_holds_it() {
        let directory = tempfile::tempdir().unwrap();
        let first = DirectoryLock::acquire(directory.path()).unwrap();
        let refused = DirectoryLock::acquire(directory.path()).unwrap_err();
        let message = refused.to_string();
        assert!(message.contains(&directory.path().display().to_string()), "{message}");
        assert!(message.contains(&std::process::id().to_string()), "{message}");
        drop(first);
        DirectoryLock::acquire(directory.path()).unwrap();
    }
}
