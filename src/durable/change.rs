//! What can change in the durable state: one value for each change, in three families by what it belongs to.
//!
//! Every match over them is exhaustive and without a wildcard, so that a new kind of data cannot be overlooked by
//! whoever writes, counts or copies changes.

use std::sync::Arc;

use crate::durable::entry::QueueEntry;
use crate::durable::message::{Message, Sequence, SessionId};
use crate::durable::record::{QueueRecord, SessionRecord, SubscriptionRecord};
use crate::packet::PacketId;

/// One change of durable state. Changes are idempotent: applying a batch twice equals once.
pub enum Change {
    /// Of a queue, whoever owns it.
    Queue(QueueChange),
    /// Of a Session, apart from its queue.
    Session(SessionChange),
    /// Of the Retained Messages.
    Retained(RetainedChange),
}

/// A change of a queue.
pub enum QueueChange {
    /// Creates or replaces the record of a queue.
    Put(Box<QueueRecord>),
    /// Removes a queue with all that is in it.
    Delete(SessionId),
    /// Appends to a queue, unless the entry was acknowledged before the writer came to it.
    Enqueue {
        /// Which queue.
        queue: SessionId,
        /// What.
        entry: Arc<QueueEntry>,
    },
    /// Removes a delivered (or dropped) message from a queue.
    Dequeue {
        /// Which queue.
        queue: SessionId,
        /// Which entry.
        sequence: Sequence,
    },
    /// The recipient sent PUBREC: the message is no longer needed, its Packet Identifier is (until PUBCOMP).
    Release {
        /// Which queue.
        queue: SessionId,
        /// Which entry.
        sequence: Sequence,
    },
}

/// A change of a Session.
pub enum SessionChange {
    /// Creates or replaces the record of a Session.
    Put(Box<SessionRecord>),
    /// Removes a Session with its Subscriptions, its QoS 2 identifiers and its queue.
    Delete(SessionId),
    /// Creates or replaces a Subscription.
    PutSubscription(Box<SubscriptionRecord>),
    /// Removes a Subscription; the filter in full, with `$share/…/`.
    DeleteSubscription {
        /// Whose.
        session: SessionId,
        /// Which.
        filter: Arc<str>,
    },
    /// A QoS 2 Packet Identifier was received from the Client.
    PutIncoming {
        /// From whom.
        session: SessionId,
        /// Which identifier.
        packet_id: PacketId,
    },
    /// The Client released a QoS 2 Packet Identifier.
    DeleteIncoming {
        /// From whom.
        session: SessionId,
        /// Which identifier.
        packet_id: PacketId,
    },
}

/// A change of the Retained Messages.
pub enum RetainedChange {
    /// Sets the Retained Message of a topic.
    Put(Arc<Message>),
    /// Clears the Retained Message of a topic.
    Delete(Arc<str>),
}

impl Change {
    /// The message that it carries, if it carries one: what it weighs.
    #[must_use]
    pub fn message(&self) -> Option<&Arc<Message>> {
        match self {
            Self::Queue(QueueChange::Enqueue { entry, .. }) => Some(&entry.message),
            Self::Queue(
                QueueChange::Put(_)
                | QueueChange::Delete(_)
                | QueueChange::Dequeue { .. }
                | QueueChange::Release { .. },
            ) => None,
            Self::Session(SessionChange::Put(record)) => {
                record.will.as_ref().map(|will| &will.message)
            }
            Self::Session(
                SessionChange::Delete(_)
                | SessionChange::PutSubscription(_)
                | SessionChange::DeleteSubscription { .. }
                | SessionChange::PutIncoming { .. }
                | SessionChange::DeleteIncoming { .. },
            ) => None,
            Self::Retained(RetainedChange::Put(message)) => Some(message),
            Self::Retained(RetainedChange::Delete(_)) => None,
        }
    }

    /// The queue entry that it writes, if it writes one: whoever makes it durable must say so to the entry.
    #[must_use]
    pub fn entry(&self) -> Option<&Arc<QueueEntry>> {
        match self {
            Self::Queue(QueueChange::Enqueue { entry, .. }) => Some(entry),
            Self::Queue(
                QueueChange::Put(_)
                | QueueChange::Delete(_)
                | QueueChange::Dequeue { .. }
                | QueueChange::Release { .. },
            )
            | Self::Session(_)
            | Self::Retained(_) => None,
        }
    }
}

impl From<QueueChange> for Change {
    fn from(change: QueueChange) -> Self {
        Self::Queue(change)
    }
}

impl From<SessionChange> for Change {
    fn from(change: SessionChange) -> Self {
        Self::Session(change)
    }
}

impl From<RetainedChange> for Change {
    fn from(change: RetainedChange) -> Self {
        Self::Retained(change)
    }
}
