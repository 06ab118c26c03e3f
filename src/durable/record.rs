//! The durable records of queues, Sessions and Subscriptions, as they are written and as they are found at opening.

use std::sync::Arc;

use crate::durable::message::{Issuer, Message, Sequence, SessionId, Timestamp};
use crate::packet::PacketId;
use crate::packet::subscribe::SubscriptionOptions;

/// The durable record of a queue: whose it is, how long it lives, and the rules of its own. Written when the queue is
/// made and when its rules change, not with what goes through it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueRecord {
    /// Its name.
    pub id: SessionId,
    /// Who owns it.
    pub owner: QueueOwner,
    /// When it ends.
    pub lifetime: QueueLifetime,
    /// Its own rules.
    pub rules: QueueRules,
}

/// Who owns a queue.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum QueueOwner {
    /// The Session of the same name.
    Session,
    /// A group of Shared Subscriptions: messages that wait for any member.
    Group {
        /// The Topic Filter in full, `$share/{name}/{filter}`.
        filter: Arc<str>,
    },
}

/// How long a queue lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QueueLifetime {
    /// As long as the Session that owns it.
    OfSession,
    /// Until its last member leaves.
    OfMembers,
    /// Until somebody removes it.
    UntilRemoved,
}

/// Rules for one queue that stand above those for topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct QueueRules {
    /// Messages waiting.
    pub max_messages: Option<u64>,
    /// Bytes waiting.
    pub max_bytes: Option<u64>,
    /// What happens at the limit.
    pub policy: Option<OverflowPolicy>,
    /// Which QoS 0 messages wait, too, while the Client is absent.
    pub qos0: StoresQoS0,
}

/// Which messages of QoS 0 wait for an absent Client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum StoresQoS0 {
    /// None.
    #[default]
    Never,
    /// Those with RETAIN: the Client keeps Retained Messages of its own in step with ours, and has to learn what was set
    /// and cleared. There is a limit to their number; if there were more, it has to be given all anew.
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
    /// Goes on in the store until the limit, then as `Reject`.
    #[default]
    Spill,
    /// The publisher is not read until there is room (bounded), then as `Reject`.
    Backpressure,
    /// The publisher is told 0x97 Quota exceeded (5.0) or slowed (3.x).
    Reject,
    /// The oldest waiting message gives way.
    DropOldest,
    /// The new message is dropped.
    DropNewest,
}

/// The durable record of a Session. One whose Session ends with its Network Connection is kept for the sake of its Will
/// Message alone.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionRecord {
    /// Its name.
    pub id: SessionId,
    /// Whose it is.
    pub client_id: Arc<str>,
    /// Raised by every take-over. Not compared by the store: a connection of an older epoch is refused by the Session
    /// before it changes anything.
    pub epoch: u64,
    /// Session Expiry Interval in seconds; `u32::MAX` never expires.
    pub expiry_seconds: u32,
    /// When the Network Connection ended; `None` while it is open (or was, when the broker stopped).
    pub disconnected: Option<Timestamp>,
    /// Messages below this place may have been sent before: DUP is set when they are sent again.
    pub sent_until: Sequence,
    /// The Will Message that is still to be published.
    pub will: Option<WillRecord>,
    /// User name the Session belongs to, when authenticated.
    pub user_name: Option<Arc<str>>,
}

/// A Will Message that is still to be published.
#[derive(Debug, Clone, PartialEq)]
pub struct WillRecord {
    /// What is published. It counts its expiry from zero until then.
    pub message: Arc<Message>,
    /// Will Delay Interval in seconds.
    pub delay_seconds: u32,
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

/// A queue as found at opening, from the index, without reading its messages.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadedQueue {
    /// Its record.
    pub record: QueueRecord,
    /// The first place that may hold an entry.
    pub start: Sequence,
    /// The first place never used.
    pub end: Sequence,
    /// Messages in the queue (exact or, after a crash, a recount; documented by the implementation).
    pub message_count: u64,
    /// Bytes in the queue by [`QueueEntry::size_bytes`].
    pub message_bytes: u64,
}

impl LoadedQueue {
    /// One that holds nothing.
    #[must_use]
    pub fn empty(record: QueueRecord) -> Self {
        let start = Sequence(0);
        Self { record, start, end: start, message_count: 0, message_bytes: 0 }
    }
}

/// A Session as found at opening.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadedSession {
    /// Its record.
    pub record: SessionRecord,
    /// Its Subscriptions.
    pub subscriptions: Vec<SubscriptionRecord>,
    /// Received QoS 2 identifiers.
    pub incoming: Vec<PacketId>,
    /// What waits for its Client.
    pub queue: LoadedQueue,
}

/// What opening found.
pub struct Loaded {
    /// Sessions with their queues.
    pub sessions: Vec<LoadedSession>,
    /// Queues that belong to no Session.
    pub queues: Vec<LoadedQueue>,
    /// Retained Messages.
    pub retained: Vec<Arc<Message>>,
    /// Of every name that this run gives out; never the same as in an earlier run.
    pub issuer: Issuer,
    /// Broker time at which this opening happened, see [`Timestamp`].
    pub now: Timestamp,
}

impl Loaded {
    /// Nothing at all: a new store.
    #[must_use]
    pub fn empty(issuer: Issuer, now: Timestamp) -> Self {
        Self { sessions: Vec::new(), queues: Vec::new(), retained: Vec::new(), issuer, now }
    }
}

impl QueueRecord {
    /// The queue of a Session, without rules of its own.
    #[must_use]
    pub fn of_session(id: SessionId) -> Self {
        let (owner, lifetime) = (QueueOwner::Session, QueueLifetime::OfSession);
        Self { id, owner, lifetime, rules: QueueRules::default() }
    }

    /// The queue of a group of Shared Subscriptions, without rules of its own.
    #[must_use]
    pub fn of_group(id: SessionId, filter: Arc<str>) -> Self {
        let (owner, lifetime) = (QueueOwner::Group { filter }, QueueLifetime::OfMembers);
        Self { id, owner, lifetime, rules: QueueRules::default() }
    }
}
