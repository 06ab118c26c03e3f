//! The durable records of Sessions, groups and Subscriptions, as they are written and as they are found at opening.

use std::sync::Arc;

use crate::durable::message::{Message, Sequence, SessionId, Timestamp};
use crate::packet::PacketId;
use crate::packet::subscribe::SubscriptionOptions;

/// The durable record of a Session or of a group of Shared Subscriptions.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionRecord {
    /// Its name.
    pub id: SessionId,
    /// Whether a Client or a group owns the queue.
    pub owner: QueueOwner,
    /// Raised by every take-over; late effects of older epochs are refused.
    pub epoch: u64,
    /// Session Expiry Interval in seconds; `u32::MAX` never expires.
    pub expiry_seconds: u32,
    /// When the Network Connection ended; `None` while it is open (or was, when the broker stopped).
    pub disconnected: Option<Timestamp>,
    /// Messages below this place may have been sent before: DUP is set when they are sent again.
    pub sent_until: Sequence,
    /// The Will Message that is still to be published, and its Will Delay Interval in seconds.
    pub will: Option<(Arc<Message>, u32)>,
    /// User name the Session belongs to, when authenticated.
    pub user_name: Option<Arc<str>>,
}

/// Who owns a queue.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum QueueOwner {
    /// The Session of a Client.
    Client {
        /// Its Client Identifier.
        client_id: Arc<str>,
    },
    /// A group of Shared Subscriptions: messages that wait for any member.
    Group {
        /// The Topic Filter in full, `$share/{name}/{filter}`.
        filter: Arc<str>,
    },
}

/// The durable record of a Subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionRecord {
    /// Whose.
    pub session: SessionId,
    /// The Topic Filter in full, with `$share/…/`.
    pub filter: Arc<str>,
    /// Its options.
    pub options: SubscriptionOptions,
    /// Its Subscription Identifier.
    pub subscription_id: Option<u32>,
}

/// One queue as found at opening, from the index, without reading its messages.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadedSession {
    /// Its record.
    pub record: SessionRecord,
    /// Its Subscriptions.
    pub subscriptions: Vec<SubscriptionRecord>,
    /// Received QoS 2 identifiers.
    pub incoming: Vec<PacketId>,
    /// The first place that may hold an entry.
    pub queue_start: Sequence,
    /// The first place never used.
    pub queue_end: Sequence,
    /// Messages in the queue (exact or, after a crash, a recount; documented by the implementation).
    pub message_count: u64,
    /// Bytes in the queue by [`Message::size_bytes`].
    pub message_bytes: u64,
}

/// What opening found.
pub struct Loaded {
    /// Sessions and groups.
    pub sessions: Vec<LoadedSession>,
    /// Retained Messages.
    pub retained: Vec<Arc<Message>>,
    /// Raised by every opening; part of every [`SessionId`].
    pub incarnation: u32,
    /// Broker time at which this opening happened, see [`Timestamp`].
    pub now: Timestamp,
}
