//! What must outlive the process, as the core sees it: the port that a store implements.
//!
//! [`Store`] is small and batch-shaped. The core hands over [`Batch`]es of [`Change`]s; batches become durable in the
//! order in which they were handed over, one atomic write each or many at once, and an acknowledgement leaves only when
//! [`Store::is_durable`] says so of the ticket of its batch. A ticket either becomes durable or never does: a failed
//! write makes the store unavailable, it does not report success, and what waits for it is never acknowledged.

pub mod change;
pub mod entry;
pub mod message;
pub mod record;

use std::sync::Arc;

use smallvec::SmallVec;

use crate::durable::change::Change;
use crate::durable::entry::StoredEntry;
use crate::durable::message::{Sequence, SessionId};

/// Names a submitted batch. What it says is the store's own business: only [`Store::is_durable`] can tell about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket(pub u64);

impl Ticket {
    /// The ticket of no batch: durable from the start, in every store.
    pub const NOTHING: Self = Self(0);
}

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
    /// A batch of yours is durable.
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
    /// Takes over a batch. Never waits for the disk.
    fn submit(&self, batch: Batch) -> Ticket;

    /// Whether the batch of this ticket is durable in the mode that it asked for. Once it is, it stays so.
    fn is_durable(&self, ticket: Ticket) -> bool;

    /// Whether batches become durable at present.
    fn state(&self) -> StoreState;

    /// Bytes of batches that were submitted and are not yet durable: what back-pressure looks at.
    fn pending_bytes(&self) -> usize;

    /// Entries of a queue in `from..to`, in order. The page is full at `max_count` entries, or with the entry that brings
    /// the sum of [`QueueEntry::size_bytes`] to `max_bytes`; a page that is not full has reached `to`. Blocks for the disk:
    /// the shell calls it on a blocking thread. Sees what was durable before the call; places may be missing (dropped).
    ///
    /// # Errors
    /// [`ReadError`] when the store cannot be read.
    fn read_queue(
        &self,
        queue: SessionId,
        from: Sequence,
        to: Sequence,
        max_count: usize,
        max_bytes: usize,
    ) -> Result<Vec<StoredEntry>, ReadError>;
}

/// Why a queue could not be read. It may be tried again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The disk says something else than what was written, or nothing.
    #[error("the store cannot be read: {0}")]
    Failed(String),
    /// The store is being opened again after a failed write.
    #[error("the store is not available: it is being opened again after a failed write")]
    Unavailable,
}
