//! What can change in the durable state: one value for each change.

use std::sync::Arc;

use crate::durable::entry::QueueEntry;
use crate::durable::message::{Message, Sequence, SessionId};
use crate::durable::record::{SessionRecord, SubscriptionRecord};
use crate::packet::PacketId;

/// One change of durable state. Changes are idempotent: applying a batch twice equals once.
pub enum Change {
    /// Creates or replaces the record of a Session.
    PutSession(Box<SessionRecord>),
    /// Removes a Session (or group) with its Subscriptions, queue and QoS 2 identifiers.
    DeleteSession(SessionId),
    /// Creates or replaces a Subscription.
    PutSubscription(Box<SubscriptionRecord>),
    /// Removes a Subscription; the filter in full, with `$share/…/`.
    DeleteSubscription {
        /// Whose.
        session: SessionId,
        /// Which.
        filter: Arc<str>,
    },
    /// Appends to a queue, unless the entry was acknowledged before the writer came to it.
    Enqueue {
        /// Whose queue.
        session: SessionId,
        /// What.
        entry: Arc<QueueEntry>,
    },
    /// Removes a delivered (or dropped) message from a queue.
    Dequeue {
        /// Whose queue.
        session: SessionId,
        /// Which entry.
        sequence: Sequence,
    },
    /// The recipient sent PUBREC: the message is no longer needed, its Packet Identifier is (until PUBCOMP).
    Release {
        /// Whose queue.
        session: SessionId,
        /// Which entry.
        sequence: Sequence,
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
    /// Sets the Retained Message of a topic.
    PutRetained(Arc<Message>),
    /// Clears the Retained Message of a topic.
    DeleteRetained(Arc<str>),
}
