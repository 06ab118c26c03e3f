//! What must outlive the process, as the core sees it: the port that a store implements.
//!
//! [`Store`] is small and batch-shaped. The core hands over [`Batch`]es of [`Change`]s; batches become durable in the
//! order of their tickets, one atomic write each or many at once, and an acknowledgement leaves only when
//! [`Store::durable`] has reached the ticket of its batch. A ticket either becomes durable or never does: a failed
//! write makes the store unavailable, it does not report success, and what waits for it is never acknowledged.

pub mod change;
pub mod entry;
pub mod message;
pub mod record;

use std::path::PathBuf;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::durable::change::Change;
use crate::durable::entry::StoredEntry;
use crate::durable::message::{Sequence, SessionId};

/// Names a submitted batch; tickets rise by submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ticket(pub u64);

/// When a batch counts as safe, weakest first.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    serde::Deserialize,
    serde::Serialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// At once: lost with the process.
    Memory,
    /// Written to the operating system: survives `kill -9`, not a power cut.
    Os,
    /// On disk: survives a power cut.
    #[default]
    Fsync,
}

impl Durability {
    /// Its name, as operators write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Os => "os",
            Self::Fsync => "fsync",
        }
    }
}

/// Told when a batch it was submitted with has become durable. Called from the store's writer thread: must be quick and
/// must not call the store.
pub trait CommitListener: Send + Sync {
    /// [`Store::durable`] has advanced past a batch of yours.
    fn handle_commit(&self);
}

/// Changes that become durable together or not at all.
#[derive(Default)]
pub struct Batch {
    /// In order.
    pub changes: Vec<Change>,
    /// What this batch waits for. The strongest wish of its messages.
    pub durability: Durability,
    /// Told afterwards.
    pub listeners: SmallVec<[Arc<dyn CommitListener>; 1]>,
}

/// Whether the store can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum StoreState {
    /// Batches become durable.
    Available = 0,
    /// No space: nothing becomes durable until there is some.
    Full = 1,
    /// A write or a sync failed: nothing becomes durable until the store was reopened or the broker restarted.
    Failed = 2,
}

/// The durable state of the broker. The core never knows which implementation runs.
pub trait Store: Send + Sync {
    /// Takes over a batch. Never waits for the disk. Batches become durable in the order of their tickets.
    fn submit(&self, batch: Batch) -> Ticket;

    /// Every batch up to this ticket is durable in the mode it asked for.
    fn durable(&self) -> Ticket;

    /// Whether batches become durable at present.
    fn state(&self) -> StoreState;

    /// Bytes of batches that were submitted and are not yet durable: what back-pressure looks at.
    fn pending_bytes(&self) -> usize;

    /// Entries of a queue in `from..to`, in order. The page is full at `max_count` entries, or with the entry that brings
    /// the sum of [`Message::size_bytes`] to `max_bytes`; a page that is not full has reached `to`. Blocks for the disk:
    /// the shell calls it on a blocking thread. Sees what was durable before the call; places may be missing (dropped).
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    fn read_queue(
        &self,
        session: SessionId,
        from: Sequence,
        to: Sequence,
        max_count: usize,
        max_bytes: usize,
    ) -> Result<Vec<StoredEntry>, StoreError>;
}

/// Why a store could not be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Reading failed.
    #[error("the store cannot be read: {0}")]
    Read(String),
    /// The database is being opened again after a failed write.
    #[error("the store is not available: it is being opened again after a failed write")]
    Unavailable,
    /// The data directory cannot be made or written.
    #[error("the data directory {} cannot be used: {source}", path.display())]
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
        "the store has format {found}, this petrel knows up to {known}: run the newer petrel that wrote it"
    )]
    NewerFormat {
        /// Its format version.
        found: u64,
        /// The newest one known here.
        known: u64,
    },
    /// The database cannot be opened and not be repaired.
    #[error("the store in {} cannot be opened: {reason}", path.display())]
    Open {
        /// Where.
        path: PathBuf,
        /// What RocksDB said.
        reason: String,
    },
    /// The backup directory holds something already, or no backup.
    #[error("{}: {reason}", path.display())]
    Backup {
        /// Which directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

fn holder(process: Option<u32>) -> String {
    process.map_or_else(|| "another process".into(), |id| format!("process {id}"))
}
