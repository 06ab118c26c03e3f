//! A message in a queue, and how the race between its acknowledgement and its write is resolved.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use smallvec::SmallVec;

use crate::durable::message::{Message, Sequence, SessionId};
use crate::packet::QoS;

/// A message in one queue. Its state decides who has to act when the acknowledgement and the write of the entry race.
pub struct QueueEntry {
    /// Its position in the queue.
    pub sequence: Sequence,
    /// The message.
    pub message: Arc<Message>,
    /// QoS of this delivery, after all limits.
    pub(crate) qos: QoS,
    /// RETAIN flag of this delivery.
    pub(crate) retain: bool,
    /// Subscription Identifiers of this delivery.
    pub(crate) subscription_ids: SmallVec<[u32; 2]>,
    /// The group it came from, for members of a Shared Subscription. When a member's Session ends, QoS 1 messages that
    /// are in memory go to another member; those in the store are dropped.
    pub(crate) group: Option<SessionId>,
    state: AtomicU8,
}

/// Bytes that a Subscription Identifier counts towards limits: about its size on the wire and in the store.
pub(crate) const SUBSCRIPTION_ID_BYTES: usize = 4;

/// The writer has not reached it.
const PENDING: u8 = 0;
/// The writer has taken it, and it may be on disk at any moment.
const WRITING: u8 = 1;
/// It is durable.
const COMMITTED: u8 = 2;
/// The recipient has it, or it was dropped: final, whatever the writer does.
const ACKNOWLEDGED: u8 = 3;

/// The result of [`QueueEntry::acknowledge`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcknowledgedEntry {
    /// The writer has not reached the entry and will skip it: there is nothing to remove.
    NeverWritten,
    /// The entry is in the store, or about to be: a Dequeue must follow.
    Stored,
}

impl QueueEntry {
    /// Creates an entry that has not been written, without RETAIN, Subscription Identifiers and group.
    #[must_use]
    pub fn new(sequence: Sequence, message: Arc<Message>, qos: QoS) -> Self {
        Self {
            sequence,
            message,
            qos,
            retain: false,
            subscription_ids: SmallVec::new(),
            group: None,
            state: AtomicU8::new(PENDING),
        }
    }

    /// Bytes that it counts towards limits: its message and its Subscription Identifiers.
    #[inline]
    #[must_use]
    pub(crate) fn size_bytes(&self) -> usize {
        self.message.size_bytes() + self.subscription_ids.len() * SUBSCRIPTION_ID_BYTES
    }

    /// The same entry as read back from the store: committed.
    #[must_use]
    pub(crate) fn into_committed(self) -> Self {
        self.state.store(COMMITTED, Ordering::Release);
        self
    }

    /// Called by the writer before it writes the entry. False if the entry was already acknowledged and must be
    /// skipped.
    pub(crate) fn begin_write(&self) -> bool {
        let taken =
            self.state.compare_exchange(PENDING, WRITING, Ordering::AcqRel, Ordering::Acquire);
        taken.is_ok() || taken != Err(ACKNOWLEDGED)
    }

    /// Called by the writer when the entry is durable.
    pub(crate) fn end_write(&self) {
        // Fails if the entry was acknowledged meanwhile, which is fine: its Dequeue will follow.
        let _raced =
            self.state.compare_exchange(WRITING, COMMITTED, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Whether the entry is durable (or acknowledged) and can be read back from the store.
    #[must_use]
    pub fn is_committed(&self) -> bool {
        self.state.load(Ordering::Acquire) >= COMMITTED
    }

    /// Marks the entry as acknowledged by the recipient, or dropped.
    pub fn acknowledge(&self) -> AcknowledgedEntry {
        match self.state.swap(ACKNOWLEDGED, Ordering::AcqRel) {
            PENDING => AcknowledgedEntry::NeverWritten,
            _ => AcknowledgedEntry::Stored,
        }
    }
}

impl std::fmt::Debug for QueueEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueueEntry").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

/// An entry read back from a queue.
pub enum StoredEntry {
    /// A message to deliver (committed).
    Message(Arc<QueueEntry>),
    /// A message whose recipient sent PUBREC: only its PUBREL is repeated.
    Released(Sequence),
}

impl StoredEntry {
    /// Its position in the queue.
    #[must_use]
    pub(crate) fn sequence(&self) -> Sequence {
        match self {
            Self::Message(entry) => entry.sequence,
            Self::Released(sequence) => *sequence,
        }
    }
}
