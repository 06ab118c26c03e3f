//! Changes to the durable state, in three enums: changes to queues, to Sessions and to Retained Messages.
//!
//! Every match over them is exhaustive and has no wildcard, so that code that writes, counts or copies changes cannot
//! overlook a new kind of data.

use std::sync::Arc;

use crate::durable::entry::QueueEntry;
use crate::durable::message::{Message, Sequence, SessionId};
use crate::durable::record::{QueueRecord, SessionRecord, SubscriptionRecord};
use crate::packet::PacketId;

/// One change to the durable state. Changes are idempotent: applying a batch twice has the same effect as once.
pub enum Change {
    /// A change to a queue, whoever owns it.
    Queue(QueueChange),
    /// A change to a Session, except its queue.
    Session(SessionChange),
    /// A change to the Retained Messages.
    Retained(RetainedChange),
}

/// A change of a queue.
pub enum QueueChange {
    /// Creates or replaces the record of a queue.
    Put(Box<QueueRecord>),
    /// Removes a queue with its contents.
    Delete(SessionId),
    /// Appends to a queue, unless the entry is acknowledged before the writer gets to it.
    Enqueue {
        /// The queue.
        queue: SessionId,
        /// The entry.
        entry: Arc<QueueEntry>,
    },
    /// Removes an acknowledged or dropped message from a queue.
    Dequeue {
        /// The queue.
        queue: SessionId,
        /// The entry.
        sequence: Sequence,
    },
    /// Records that the recipient sent PUBREC: the message is no longer needed, but its Packet Identifier is, until
    /// PUBCOMP.
    Release {
        /// The queue.
        queue: SessionId,
        /// The entry.
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
    /// Removes a Subscription, named by its full filter with `$share/…/`.
    DeleteSubscription {
        /// The Session.
        session: SessionId,
        /// The filter.
        filter: Arc<str>,
    },
    /// A QoS 2 Packet Identifier was received from the Client.
    PutIncoming {
        /// The Session.
        session: SessionId,
        /// The identifier.
        packet_id: PacketId,
    },
    /// The Client released a QoS 2 Packet Identifier.
    DeleteIncoming {
        /// The Session.
        session: SessionId,
        /// The identifier.
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

impl RetainedChange {
    /// The topic.
    #[must_use]
    pub(crate) fn topic(&self) -> &str {
        match self {
            Self::Put(message) => message.topic(),
            Self::Delete(topic) => topic,
        }
    }
}

impl Change {
    /// The message in this change, if any; it determines the size.
    #[must_use]
    pub(crate) fn message(&self) -> Option<&Arc<Message>> {
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

    /// The queue entry that this change writes, if any. The store must tell the entry when it is durable.
    #[must_use]
    pub(crate) fn entry(&self) -> Option<&Arc<QueueEntry>> {
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
