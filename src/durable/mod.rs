//! State that outlives the process: the port that a store implements.
//!
//! [`Store`] works on batches. The core submits [`Batch`]es of [`Change`]s. Batches become durable in the order of
//! submission, each atomically, one or many per write. An acknowledgement is sent only when [`Store::is_durable`]
//! returns true for the ticket of its batch. A ticket that does not become durable stays so: a failed write makes the
//! store unavailable, and nothing that waits for it is acknowledged.

pub mod change;
pub mod entry;
pub mod message;
pub mod record;

use std::sync::Arc;

use smallvec::SmallVec;

use crate::durable::change::Change;
use crate::durable::entry::StoredEntry;
use crate::durable::message::{Sequence, SessionId};

/// Identifies a submitted batch. Its value is opaque; only [`Store::is_durable`] interprets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket(pub u64);

impl Ticket {
    /// The ticket of an empty batch: durable from the start, in every store.
    pub const NOTHING: Self = Self(0);
}

/// When a batch counts as durable, weakest first.
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
    /// At once: lost when the process ends.
    Memory,
    /// Written to the operating system: survives `kill -9`, not a power cut.
    Os,
    /// On disk: survives a power cut.
    #[default]
    Fsync,
}

impl Durability {
    /// Its name in the configuration.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Os => "os",
            Self::Fsync => "fsync",
        }
    }
}

/// Notified when a batch has become durable. Called from the store's writer thread, so it must be quick and must not
/// call the store.
pub trait CommitListener: Send + Sync {
    /// Called when a batch submitted with this listener is durable.
    fn handle_commit(&self);
}

/// Changes that become durable together or not at all.
#[derive(Default)]
pub struct Batch {
    /// The changes, in order.
    pub changes: Vec<Change>,
    /// When this batch counts as durable: the strongest mode among its messages.
    pub durability: Durability,
    /// Notified when the batch is durable.
    pub listeners: SmallVec<[Arc<dyn CommitListener>; 1]>,
}

/// Whether the store can make batches durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum StoreState {
    /// Batches become durable.
    Available = 0,
    /// The disk is full: nothing becomes durable until there is space.
    Full = 1,
    /// A write or a sync failed: nothing becomes durable until the store is reopened or the broker restarted.
    Failed = 2,
}

/// The durable state of the broker. The core does not know which implementation it uses.
pub trait Store: Send + Sync {
    /// Submits a batch. Never waits for the disk.
    fn submit(&self, batch: Batch) -> Ticket;

    /// Whether the batch of this ticket is durable in the mode it requested. Once true, it stays true.
    fn is_durable(&self, ticket: Ticket) -> bool;

    /// Whether batches currently become durable.
    fn state(&self) -> StoreState;

    /// Bytes of submitted batches that are not durable yet, used for back-pressure.
    fn pending_bytes(&self) -> usize;

    /// Entries of a queue in `from..to`, in order. The page is full at `max_count` entries, or with the entry that brings
    /// the sum of [`QueueEntry::size_bytes`] to `max_bytes`; a page that is not full has reached `to`. Blocks on the disk,
    /// so the shell calls it on a blocking thread. It returns entries that were durable before the call; positions of
    /// dropped entries are missing.
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

/// Why a queue could not be read. The caller may try again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The data is damaged or unreadable.
    #[error("cannot read the store: {0}")]
    Failed(String),
    /// The store is being reopened after a failed write.
    #[error("the store is not available: it is being reopened after a failed write")]
    Unavailable,
}
