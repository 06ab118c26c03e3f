//! A message in one queue, and the race between its acknowledgement and its write.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use smallvec::SmallVec;

use crate::durable::message::{Message, Sequence, SessionId};
use crate::packet::QoS;

/// A message in one queue. Its state decides who still has to do something about it when an acknowledgement and the
/// write of the entry race each other.
pub struct QueueEntry {
    /// Its place.
    pub sequence: Sequence,
    /// What is delivered.
    pub message: Arc<Message>,
    /// QoS of this delivery, after all maxima.
    pub qos: QoS,
    /// RETAIN flag of this delivery.
    pub retain: bool,
    /// Subscription Identifiers of this delivery.
    pub subscription_ids: SmallVec<[u32; 2]>,
    /// The group it came from, for members of a Shared Subscription. What a member has in memory of it at QoS 1 goes to
    /// another member when its Session ends; what waits in the store ends with the Session.
    pub group: Option<SessionId>,
    state: AtomicU8,
}

/// Bytes that a Subscription Identifier counts against limits: about what it takes on the wire and in the store.
pub const SUBSCRIPTION_ID_BYTES: usize = 4;

const PENDING: u8 = 0;
const WRITTEN: u8 = 1;
const COMMITTED: u8 = 2;
const ACKNOWLEDGED: u8 = 3;

/// What [`QueueEntry::acknowledge`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcknowledgedEntry {
    /// The writer has not come to it and will skip it: nothing to remove.
    NeverWritten,
    /// It is (about to be) in the store: a Dequeue must follow.
    Stored,
}

impl QueueEntry {
    /// An entry that no store has seen.
    #[must_use]
    pub fn new(
        sequence: Sequence,
        message: Arc<Message>,
        qos: QoS,
        retain: bool,
        ids: &[u32],
    ) -> Self {
        let subscription_ids = SmallVec::from_slice(ids);
        Self {
            sequence,
            message,
            qos,
            retain,
            subscription_ids,
            group: None,
            state: AtomicU8::new(PENDING),
        }
    }

    /// Bytes that it counts against limits: those of its message and of its Subscription Identifiers.
    #[inline]
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.message.size_bytes() + self.subscription_ids.len() * SUBSCRIPTION_ID_BYTES
    }

    /// The same as it comes back from the store: committed.
    #[must_use]
    pub fn into_committed(self) -> Self {
        self.state.store(COMMITTED, Ordering::Release);
        self
    }

    /// The writer takes the entry for writing: false if it was acknowledged already and must be skipped.
    pub fn begin_write(&self) -> bool {
        let taken =
            self.state.compare_exchange(PENDING, WRITTEN, Ordering::AcqRel, Ordering::Acquire);
        taken.is_ok() || taken != Err(ACKNOWLEDGED)
    }

    /// The writer has made it durable.
    pub fn end_write(&self) {
        // Fails when acknowledged meanwhile, which is right: its Dequeue is on the way.
        let _raced =
            self.state.compare_exchange(WRITTEN, COMMITTED, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Whether it is durable (or was acknowledged) and can be read back from the store.
    #[must_use]
    pub fn is_committed(&self) -> bool {
        self.state.load(Ordering::Acquire) >= COMMITTED
    }

    /// The recipient acknowledged it, or it was dropped.
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

/// What is in a queue, read back.
pub enum StoredEntry {
    /// A message to deliver (committed).
    Message(Arc<QueueEntry>),
    /// A message whose recipient sent PUBREC: only its PUBREL is to be repeated.
    Released(Sequence),
}

impl StoredEntry {
    /// Its place.
    #[must_use]
    pub fn sequence(&self) -> Sequence {
        match self {
            Self::Message(entry) => entry.sequence,
            Self::Released(sequence) => *sequence,
        }
    }
}
