//! Errors of opening, reading, copying and repairing a store. The core sees only [`crate::durable::ReadError`].

use std::path::PathBuf;

use rocksdb::ErrorKind;

use crate::durable::ReadError;

/// Why a store could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Reading failed, and may succeed later.
    #[error("cannot read the store: {0}")]
    Read(String),
    /// The data is damaged permanently.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// The database is being reopened after a failed write.
    #[error("the store is not available: it is being reopened after a failed write")]
    Unavailable,
    /// The data directory cannot be created or written.
    #[error("cannot use the data directory {}: {source}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another broker holds the data directory.
    #[error("the data directory {} is in use by {}: stop it, or choose another data_dir", path.display(), holder(*process))]
    InUse {
        /// Which.
        path: PathBuf,
        /// Process id of the holder, if it left one.
        process: Option<u32>,
    },
    /// The database was written by a newer Petrel.
    #[error(
        "the store has format {found}, this petrel supports up to {known}: run the newer petrel that wrote it"
    )]
    NewerFormat {
        /// Its format version.
        found: u64,
        /// The newest supported format.
        known: u64,
    },
    /// The database can neither be opened nor repaired.
    #[error("cannot open the store in {}: {reason}", path.display())]
    Open {
        /// Where.
        path: PathBuf,
        /// What RocksDB said.
        reason: String,
    },
    /// The backup directory is not empty, or contains no backup.
    #[error("{}: {reason}", path.display())]
    Backup {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl From<rocksdb::Error> for StoreError {
    fn from(error: rocksdb::Error) -> Self {
        match error.kind() {
            ErrorKind::Corruption => Self::Damaged(error.into_string()),
            _ => Self::Read(error.into_string()),
        }
    }
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable => Self::Unavailable,
            StoreError::Read(reason) | StoreError::Damaged(reason) => Self::Failed(reason),
            StoreError::Directory { .. }
            | StoreError::InUse { .. }
            | StoreError::NewerFormat { .. }
            | StoreError::Open { .. }
            | StoreError::Backup { .. } => Self::Failed(error.to_string()),
        }
    }
}

fn holder(process: Option<u32>) -> String {
    process.map_or_else(|| "another process".into(), |id| format!("process {id}"))
}
