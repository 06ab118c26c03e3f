//! The durable records of queues, Sessions and Subscriptions, as written and as loaded when the store is opened.

use std::sync::Arc;

use crate::durable::message::{Issuer, Message, Sequence, SessionId, Timestamp};
use crate::packet::PacketId;
use crate::packet::subscribe::SubscriptionOptions;

/// The durable record of a queue: its owner, lifetime and rules. It is written when the queue is created and when its
/// rules change, not with each message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueRecord {
    /// Its id.
    pub(crate) id: SessionId,
    /// Its owner.
    pub(crate) owner: QueueOwner,
    /// When it ends.
    pub(crate) lifetime: QueueLifetime,
    /// Rules for this queue.
    pub(crate) rules: QueueRules,
}

/// The owner of a queue.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum QueueOwner {
    /// The Session with the same id.
    Session,
    /// A Shared Subscription group: its messages wait for any member.
    Group {
        /// The Topic Filter in full, `$share/{name}/{filter}`.
        filter: Arc<str>,
    },
}

/// How long a queue lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum QueueLifetime {
    /// As long as its Session.
    OfSession,
    /// Until its last member leaves.
    OfMembers,
    /// Until somebody removes it.
    UntilRemoved,
}

/// Rules for one queue, which override those for topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct QueueRules {
    /// Most messages in the queue.
    pub(crate) max_messages: Option<u64>,
    /// Most bytes in the queue.
    pub(crate) max_bytes: Option<u64>,
    /// What happens at the limit.
    pub(crate) policy: Option<OverflowPolicy>,
    /// Which QoS 0 messages are queued, too, while the Client is absent.
    pub(crate) qos0: StoresQoS0,
}

/// Which QoS 0 messages are queued for an absent Client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum StoresQoS0 {
    /// None.
    #[default]
    Never,
    /// Those with RETAIN: the Client mirrors our Retained Messages, so it has to learn what was set and cleared. Their
    /// number is limited; if it is exceeded, the Client must get all Retained Messages again.
    Retained,
    /// All.
    Always,
}

/// What happens when a queue is full.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Deserialize, serde::Serialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum OverflowPolicy {
    /// The queue grows in the store up to the limit, then as `Reject`.
    #[default]
    Spill,
    /// The broker stops reading from the publisher until there is room, for a bounded time, then as `Reject`.
    Backpressure,
    /// The publisher gets 0x97 Quota exceeded (5.0) or is slowed down (3.x).
    Reject,
    /// The oldest queued message is dropped.
    DropOldest,
    /// The new message is dropped.
    DropNewest,
}

/// The durable record of a Session. A Session that ends with its Network Connection has one only because of its Will
/// Message.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionRecord {
    /// Its id.
    pub id: SessionId,
    /// The Client Identifier.
    pub client_id: Arc<str>,
    /// Raised by every take-over. The store does not compare it: the Session itself refuses changes by a connection
    /// with an older epoch.
    pub epoch: u64,
    /// Session Expiry Interval in seconds; `u32::MAX` never expires.
    pub expiry_seconds: u32,
    /// When the Network Connection ended; `None` while it is open, or if it was open when the broker stopped.
    pub disconnected: Option<Timestamp>,
    /// Messages before this position may have been sent: they are sent again with DUP.
    pub sent_until: Sequence,
    /// The Will Message, if it has not been published yet.
    pub will: Option<WillRecord>,
    /// User name of the owner, if authenticated.
    pub user_name: Option<Arc<str>>,
}

/// A Will Message that has not been published yet.
#[derive(Debug, Clone, PartialEq)]
pub struct WillRecord {
    /// The message. Its expiry starts when it is published.
    pub(crate) message: Arc<Message>,
    /// Will Delay Interval in seconds.
    pub(crate) delay_seconds: u32,
}

/// The durable record of a Subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionRecord {
    /// Its Session.
    pub session: SessionId,
    /// The Topic Filter in full, with `$share/…/`.
    pub filter: Arc<str>,
    /// Its options.
    pub options: SubscriptionOptions,
    /// Its Subscription Identifier.
    pub subscription_id: Option<u32>,
}

/// A queue as loaded when the store is opened, from the index, without reading its messages.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadedQueue {
    /// Its record.
    pub record: QueueRecord,
    /// The first position that may hold an entry.
    pub start: Sequence,
    /// The first position that was never used.
    pub end: Sequence,
    /// Messages in the queue (exact, or recounted after a crash; see the implementation).
    pub message_count: u64,
    /// Bytes in the queue by [`QueueEntry::size_bytes`].
    pub message_bytes: u64,
}

impl LoadedQueue {
    /// An empty queue.
    #[must_use]
    pub(crate) fn empty(record: QueueRecord) -> Self {
        let start = Sequence(0);
        Self { record, start, end: start, message_count: 0, message_bytes: 0 }
    }
}

/// A Session as loaded when the store is opened.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadedSession {
    /// Its record.
    pub record: SessionRecord,
    /// Its Subscriptions.
    pub subscriptions: Vec<SubscriptionRecord>,
    /// Received QoS 2 identifiers.
    pub incoming: Vec<PacketId>,
    /// Its queue.
    pub queue: LoadedQueue,
}

/// Everything loaded when the store is opened.
pub struct Loaded {
    /// Sessions with their queues.
    pub sessions: Vec<LoadedSession>,
    /// Queues that belong to no Session.
    pub queues: Vec<LoadedQueue>,
    /// Retained Messages.
    pub retained: Vec<Arc<Message>>,
    /// The issuer of all ids of this run; different from that of every earlier run.
    pub issuer: Issuer,
    /// Broker time when the store was opened, see [`Timestamp`].
    pub now: Timestamp,
}

impl Loaded {
    /// The contents of a new store.
    #[must_use]
    pub fn empty(issuer: Issuer, now: Timestamp) -> Self {
        Self { sessions: Vec::new(), queues: Vec::new(), retained: Vec::new(), issuer, now }
    }
}

impl QueueRecord {
    /// The queue of a Session, without rules.
    #[must_use]
    pub fn of_session(id: SessionId) -> Self {
        let (owner, lifetime) = (QueueOwner::Session, QueueLifetime::OfSession);
        Self { id, owner, lifetime, rules: QueueRules::default() }
    }

    /// The queue of a Shared Subscription group, without rules.
    #[must_use]
    pub fn of_group(id: SessionId, filter: Arc<str>) -> Self {
        let (owner, lifetime) = (QueueOwner::Group { filter }, QueueLifetime::OfMembers);
        Self { id, owner, lifetime, rules: QueueRules::default() }
    }
}
