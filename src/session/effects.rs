//! The effects of handling input: changes for the store, Clients to wake, counts. They are collected, and carried out
//! once after a whole read buffer was handled.

use std::sync::Arc;
use std::task::Waker;

use smallvec::SmallVec;

use crate::durable::change::{Change, RetainedChange};
use crate::durable::{Batch, CommitListener, Durability};
use crate::session::Session;
use crate::session::queue::PageRequest;
use crate::session::work::Budget;

/// Effects not yet carried out.
#[derive(Default)]
pub struct Effects {
    /// Changes for one atomic batch.
    pub(crate) changes: Vec<Change>,
    /// The strongest durability that any of them requires.
    pub(crate) durability: Durability,
    /// Whether there are changes of Retained Messages among them.
    pub(crate) changes_retained: bool,
    /// Listeners to notify when the batch is durable.
    pub(crate) listeners: SmallVec<[Arc<dyn CommitListener>; 1]>,
    /// Tasks of Clients that have something to write now.
    pub wakers: Vec<Waker>,
    /// Submit even without changes, because something waits for earlier batches.
    pub(crate) barrier: bool,
    /// Whether the overflow policy "backpressure" applies to one of the messages.
    pub(crate) backpressure: bool,
    /// Recipients that lag behind: their publisher waits briefly.
    pub(crate) crowded: SmallVec<[Arc<Session>; 1]>,
    /// Pages to read from the store.
    pub(crate) pages: SmallVec<[PageRequest; 1]>,
    /// Counts.
    pub tally: Tally,
    /// The remaining work budget of this turn.
    pub budget: Budget,
}

impl Effects {
    /// Creates empty effects.
    #[must_use]
    pub fn new() -> Self {
        Self { durability: Durability::Memory, ..Self::default() }
    }

    /// Adds a change that requires `durability`.
    #[inline]
    pub(crate) fn persist(&mut self, change: impl Into<Change>, durability: Durability) {
        self.changes.push(change.into());
        self.durability = self.durability.max(durability);
    }

    /// Adds a change of a Retained Message that requires `durability`.
    pub(crate) fn persist_retained(&mut self, change: RetainedChange, durability: Durability) {
        self.changes_retained = true;
        self.persist(change, durability);
    }

    /// The changes as a batch, if there are any.
    #[must_use]
    pub(crate) fn take_batch(&mut self) -> Option<Batch> {
        let has_barrier = std::mem::take(&mut self.barrier);
        let durability = std::mem::replace(&mut self.durability, Durability::Memory);
        if self.changes.is_empty() && !has_barrier {
            self.listeners.clear();
            return None;
        }
        let batch = Batch {
            changes: std::mem::take(&mut self.changes),
            durability,
            listeners: std::mem::take(&mut self.listeners),
        };
        Some(batch)
    }

    /// Whether only wake-ups of Clients are left.
    #[inline]
    #[must_use]
    pub(crate) fn is_nothing_but_wakers(&self) -> bool {
        self.changes.is_empty()
            && !self.barrier
            && self.listeners.is_empty()
            && self.pages.is_empty()
    }

    /// Drops the recipients that lag behind, because there is no publisher to slow down.
    pub(crate) fn slow_nobody(&mut self) {
        self.crowded.clear();
        self.backpressure = false;
    }

    /// Whether all effects were carried out: only counts may be left, which belong to no Client.
    #[inline]
    #[must_use]
    pub(crate) fn is_carried_out(&self) -> bool {
        self.is_nothing_but_wakers()
            && self.wakers.is_empty()
            && self.crowded.is_empty()
            && !self.backpressure
            && self.durability == Durability::Memory
    }

    /// Wakes all tasks that have something to write.
    #[inline]
    pub fn wake(&mut self) {
        for waker in self.wakers.drain(..) {
            waker.wake();
        }
    }
}

/// Why a message did not reach a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum DropReason {
    /// QoS 0, and the outbox of a slow reader is full.
    OutboxFull = 0,
    /// The queue is at its limit.
    QueueFull = 1,
    /// The oldest message was dropped for a new one.
    Oldest = 2,
    /// The Message Expiry Interval passed.
    Expired = 3,
    /// Larger than the Client's Maximum Packet Size. [MQTT-3.1.2-25]
    PacketTooLarge = 4,
    /// The store is not available.
    StoreUnavailable = 5,
    /// The Session ended with queued messages.
    SessionEnded = 6,
    /// The Client refused it in PUBACK or PUBREC.
    Refused = 7,
    /// It was here before and came back through other brokers.
    Loop = 8,
    /// It has no name below the recipient's mount point.
    OutsideMountPoint = 9,
    /// Access rules do not let the recipient receive it.
    AccessDenied = 10,
}

impl DropReason {
    /// All reasons, in order of their number.
    pub(crate) const ALL: [Self; 11] = [
        Self::OutboxFull,
        Self::QueueFull,
        Self::Oldest,
        Self::Expired,
        Self::PacketTooLarge,
        Self::StoreUnavailable,
        Self::SessionEnded,
        Self::Refused,
        Self::Loop,
        Self::OutsideMountPoint,
        Self::AccessDenied,
    ];
}

/// Counts of one read buffer, added to the shared counters once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Packets received.
    pub(crate) packets_received: u64,
    /// Bytes received.
    pub(crate) bytes_received: u64,
    /// PUBLISH packets received.
    pub(crate) publish_received: u64,
    /// Payload bytes of PUBLISH packets received.
    pub(crate) publish_bytes_received: u64,
    /// Packets sent.
    pub(crate) packets_sent: u64,
    /// PUBLISH packets sent.
    pub publish_sent: u64,
    /// Payload bytes of PUBLISH packets sent.
    pub(crate) publish_bytes_sent: u64,
    /// PUBLISH packets that their publisher may not send.
    pub(crate) publish_denied: u64,
    /// PUBLISH packets refused for another reason.
    pub(crate) publish_refused: u64,
    /// SUBSCRIBE filters denied by access rules.
    pub(crate) subscribe_denied: u64,
    /// UNSUBSCRIBE filters denied by access rules.
    pub(crate) unsubscribe_denied: u64,
    /// Messages that Clients subscribe to and may not receive.
    pub(crate) receive_denied: u64,
    /// Will Messages denied by access rules, at CONNECT or when they were due.
    pub(crate) wills_denied: u64,
    /// Subscriptions refused because of a limit.
    pub(crate) subscribe_over_limit: u64,
    /// Subscription Identifiers left out of messages, because they carry only so many.
    pub(crate) subscription_ids_left_out: u64,
    /// CONNECT packets answered with success, without stored state.
    pub(crate) connects_new: u64,
    /// CONNECT packets answered with success, with Session Present.
    pub(crate) connects_resumed: u64,
    /// Sessions that expired.
    pub(crate) sessions_expired: u64,
    /// Will Messages published.
    pub wills_published: u64,
    /// Messages dropped, by [`DropReason`].
    pub dropped: [u64; DropReason::ALL.len()],
}

impl Tally {
    /// Counts a dropped message.
    #[inline]
    pub(crate) fn drop_one(&mut self, reason: DropReason) {
        self.dropped[reason as usize] += 1;
    }

    /// Messages dropped, for any reason.
    #[must_use]
    pub fn dropped_count(&self) -> u64 {
        self.dropped.iter().sum()
    }
}
