//! The outbound half of a Session: outbox, inflight window and queue.
//!
//! Publishers' tasks append here while they briefly hold the Session's lock; the Client's task takes the outbox and
//! writes it. Invariants: a message is in exactly one of outbox (QoS 0), window and queue; sequences leave the queue
//! in order; a QoS 2 message of a durable Session is sent only once it is committed, so that a restarted broker
//! cannot give its Packet Identifier to another message.

mod access;
mod acknowledge;
mod crowding;
mod deliver;

use std::ops::Range;
use std::sync::Arc;
use std::task::Waker;

use smallvec::SmallVec;

use crate::durable::Durability;
use crate::durable::entry::QueueEntry;
use crate::durable::message::{Message, Sequence, SessionId, Timestamp};
use crate::durable::record::QueueRules;
use crate::packet::QoS;
use crate::packet::acknowledgement::{AcknowledgementKind, encode_acknowledgement};
use crate::packet::reason_code::ReasonCode;
use crate::session::access_rights::AccessRights;
use crate::session::effects::{DropReason, Effects};
use crate::session::link::{LinkParameters, Outgoing};
use crate::session::outbound::crowding::Congestion;
use crate::session::outbox::Outbox;
use crate::session::own_queue::OwnQueue;
use crate::session::publication::Publication;
use crate::session::queue::{Oldest, Queue, QueueLimits, Queued, Total, dequeue};
use crate::session::rare::Rare;
use crate::session::window::{Delivery, DeliveryState, Window};

/// Queued messages are encoded while the outbox holds fewer bytes than this.
const PUMP_BYTES: usize = 128 * 1024;

/// The outbound half of a Session.
pub struct Outbound {
    epoch: u64,
    link: Presence,
    outbox: Outbox,
    /// Bytes that the task has taken and may not have written yet.
    writing_bytes: usize,
    window: Window,
    queue: Queue,
    persistence: Persistence,
    sent_until: Sequence,
    /// The Client's task must look for commits and a take-over the next time, even with nothing to write.
    is_signalled: bool,
    /// Whether another Network Connection of the Client waits for this one to release the Session.
    is_asked_to_leave: bool,
    /// Whether the outbox may have been full since the task last slept.
    was_full: bool,
    is_stalled: bool,
    /// Whether the Client's task waits for something to write; then the next message wakes it.
    is_idle: bool,
    /// The Client's task. It waits here for the acknowledgements of what it published, too.
    waker: Option<Waker>,
    /// Only for recipients that have made a publisher wait, or have lost messages.
    congestion: Rare<Congestion>,
    has_spilled: bool,
    own_queue: Option<Box<OwnQueue>>,
    /// What the Client may do, if rules limit it.
    rights: Option<Arc<dyn AccessRights>>,
}

/// Whether a Client is connected.
enum Presence {
    Absent,
    Open(LinkParameters),
    Ended,
}

/// Whether queued messages must survive the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Persistence {
    /// The Session ends with its Network Connection.
    Transient,
    /// The Session outlives it.
    Durable,
}

/// The terms of one delivery.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms<'a> {
    /// QoS granted to the Subscription.
    pub(crate) qos: QoS,
    /// RETAIN flag of the delivery.
    pub(crate) retain: bool,
    /// Subscription Identifiers that match.
    pub(crate) subscription_ids: &'a [u32],
    /// The group it is delivered for.
    pub(crate) group: Option<SessionId>,
    /// How safe it must be before it counts as accepted.
    pub(crate) durability: Durability,
    /// Limits of the queue.
    pub(crate) limits: &'a QueueLimits,
    /// Whether all queues together have room.
    pub(crate) total: Total,
}

/// The terms of delivering messages with the same bytes as to other Clients.
#[derive(Debug, Clone)]
pub(crate) struct RunTerms {
    /// QoS granted to the Subscription.
    pub(crate) qos: QoS,
    /// Which messages of the run.
    pub(crate) messages: Range<usize>,
    /// The group they are delivered for.
    pub(crate) group: Option<SessionId>,
}

/// What an ended Session leaves.
pub(crate) struct Remains {
    /// Messages in memory that were not delivered, oldest first.
    pub(crate) entries: Vec<Arc<QueueEntry>>,
    /// Messages that only the store has.
    pub(crate) in_store: u64,
    /// The task to wake.
    pub(crate) waker: Option<Waker>,
}

/// What became of a message for one recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeliveryOutcome {
    /// In the outbox.
    InOutbox,
    /// In the queue.
    Queued,
    /// In the queue, and the recipient must be notified when it is committed.
    QueuedUntilCommit,
    /// Dropped and counted.
    Dropped,
    /// Dropped and counted, and the publisher must be told. [MQTT-3.4.2-1]
    Refused,
    /// QoS 0 for an absent Client, or a Session that has ended.
    Absent,
}

/// What to do after PUBREC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PubrecOutcome {
    /// PUBREL at once.
    Release,
    /// PUBREL once the change is durable.
    ReleaseAfterCommit,
    /// The Client refused the message: nothing more.
    Finished,
    /// No such delivery. [MQTT-4.3.3]
    Unknown,
}

impl Outbound {
    /// Creates the state of a Session without a Network Connection.
    #[must_use]
    pub(crate) fn new(persistence: Persistence, queue: Queue) -> Self {
        Self {
            epoch: 0,
            link: Presence::Absent,
            outbox: Outbox::default(),
            writing_bytes: 0,
            window: Window::new(queue.next()),
            queue,
            persistence,
            sent_until: Sequence(0),
            is_signalled: false,
            is_asked_to_leave: false,
            was_full: false,
            is_stalled: false,
            is_idle: false,
            waker: None,
            congestion: Rare::default(),
            has_spilled: false,
            own_queue: None,
            rights: None,
        }
    }

    /// Sets rules for this queue.
    pub(crate) fn set_own_queue(&mut self, rules: QueueRules) {
        match &mut self.own_queue {
            _ if rules == QueueRules::default() => self.own_queue = None,
            Some(own) => own.rules = rules,
            None => self.own_queue = Some(Box::new(OwnQueue::new(rules))),
        }
    }

    /// Rules for this queue, which override those for topics.
    #[must_use]
    pub(crate) fn own_queue(&self) -> Option<&QueueRules> {
        self.own_queue.as_ref().map(|own| &own.rules)
    }

    /// Whether the Client has missed changes of Retained Messages since the last call.
    pub(crate) fn take_missed_retained(&mut self) -> bool {
        let own = self.own_queue.as_mut();
        own.is_some_and(|own| own.take_missed_retained())
    }

    /// When the oldest unfinished message arrived: known, or to be read from the store.
    #[must_use]
    pub(crate) fn oldest(&self) -> Oldest {
        match self.window.oldest_arrival() {
            Some(arrived) => Oldest::Arrived(arrived),
            None => self.queue.oldest(),
        }
    }

    /// The Session it belongs to.
    #[must_use]
    pub(crate) fn session_id(&self) -> SessionId {
        self.queue.owner()
    }

    /// Messages before this position may have been sent.
    pub(crate) fn set_sent_until(&mut self, sent_until: Sequence) {
        self.sent_until = sent_until;
    }

    /// Messages before this position may have been sent.
    #[must_use]
    pub(crate) fn sent_until(&self) -> Sequence {
        self.sent_until
    }

    /// Whether a Client is connected.
    #[must_use]
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.link, Presence::Open(_))
    }

    /// Whether queued messages survive the process.
    #[must_use]
    pub(crate) fn persistence(&self) -> Persistence {
        self.persistence
    }

    /// Whether the store may know this Session although it is not durable, because its queue has spilled or it was
    /// durable before.
    #[must_use]
    pub(crate) fn has_spilled(&self) -> bool {
        self.has_spilled
    }

    /// The queue, for metrics.
    #[must_use]
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// The queue, for handling pages.
    pub(crate) fn queue_mut(&mut self) -> &mut Queue {
        &mut self.queue
    }

    /// Deliveries in flight.
    #[must_use]
    pub fn inflight_count(&self) -> u32 {
        self.window.unacknowledged()
    }

    /// Messages dropped so far.
    #[must_use]
    pub(crate) fn dropped_count(&self) -> u64 {
        self.congestion.as_ref().map_or(0, |congestion| congestion.dropped_count)
    }

    /// Whether another Network Connection has taken over since `epoch`, or the Session has ended.
    #[must_use]
    pub(crate) fn is_taken_over(&self, epoch: u64) -> bool {
        self.epoch != epoch || matches!(self.link, Presence::Ended)
    }

    /// Asks the Network Connection that holds the Session to handle its received input and to release the Session.
    /// Returns the waker of its task.
    pub(crate) fn ask_to_leave(&mut self) -> Option<Waker> {
        self.is_asked_to_leave = true;
        self.signal()
    }

    /// See [`Self::ask_to_leave`].
    #[inline]
    #[must_use]
    pub(crate) fn is_asked_to_leave(&self) -> bool {
        self.is_asked_to_leave
    }

    /// Gives the Session to a Network Connection; the previous one loses it. Returns the waker of the previous one.
    /// Nothing is sent before [`Self::open`].
    pub(crate) fn take_over(&mut self, epoch: u64, persistence: Persistence) -> Option<Waker> {
        self.close_link();
        self.is_asked_to_leave = false;
        self.epoch = epoch;
        // If it was durable, its messages are in the store, whatever the Session is from now on.
        self.has_spilled |= self.persistence == Persistence::Durable;
        self.persistence = persistence;
        self.is_idle = false;
        self.waker.take()
    }

    /// Called when CONNACK is in the outbox: from now on messages may follow it.
    pub(crate) fn open(&mut self, epoch: u64, link: LinkParameters) {
        if self.epoch == epoch && matches!(self.link, Presence::Absent) {
            if let Some(own) = &mut self.own_queue {
                own.note_present();
            }
            self.link = Presence::Open(link);
        }
    }

    /// How the Client is connected, if it is.
    #[must_use]
    pub(crate) fn link(&self) -> Option<&LinkParameters> {
        match &self.link {
            Presence::Open(link) => Some(link),
            Presence::Absent | Presence::Ended => None,
        }
    }

    /// Called when the Network Connection has ended: queued messages leave memory. False if it was taken over.
    pub(crate) fn close(&mut self, epoch: u64) -> bool {
        if self.is_taken_over(epoch) {
            return false;
        }
        self.close_link();
        self.waker = None;
        true
    }

    /// Ends the Session: returns undelivered messages, oldest first, including those in flight at QoS 1, which a
    /// group may give to another member. [MQTT-4.8.2-4]
    pub(crate) fn end(&mut self) -> Remains {
        let inflight = self.window.drain().filter_map(|(_, delivery)| {
            let entry = delivery.entry?;
            (delivery.state == DeliveryState::AwaitsPuback).then_some(entry)
        });
        let mut entries: Vec<_> = inflight.collect();
        let waiting = self.queue.take_messages();
        let in_store = self.queue.message_count().saturating_sub(waiting.len() as u64);
        entries.extend(waiting);
        self.link = Presence::Ended;
        self.outbox.discard();
        self.release_waiting();
        Remains { entries, in_store, waker: self.waker.take() }
    }

    /// Sets a flag that there is something to check, and returns the waker of the task.
    pub(crate) fn signal(&mut self) -> Option<Waker> {
        self.is_signalled = true;
        self.waker.clone()
    }

    /// Sends queued messages as far as window and outbox have room, and requests pages from the store.
    #[inline]
    pub(crate) fn pump(&mut self, now: Timestamp, effects: &mut Effects) {
        if !self.queue.is_empty() {
            self.pump_queue(now, effects);
        }
    }

    fn pump_queue(&mut self, now: Timestamp, effects: &mut Effects) {
        loop {
            if self.is_open() {
                effects.pages.extend(self.queue.refill());
            }
            if self.pump_one(now, effects).is_none() {
                return;
            }
        }
    }

    fn pump_one(&mut self, now: Timestamp, effects: &mut Effects) -> Option<()> {
        if !self.is_open() || self.outbox.bytes() + self.writing_bytes >= PUMP_BYTES {
            return None;
        }
        let entry = match self.queue.front()? {
            &Queued::Released(sequence) => return self.pump_release(sequence),
            Queued::Message(entry) => Arc::clone(entry),
        };
        // The Client may know a QoS 2 message that was sent: its exchange has to be completed, or the Client would
        // mistake another message with the same Packet Identifier for it.
        let is_known = entry.qos == QoS::ExactlyOnce && entry.sequence < self.sent_until;
        if entry.message.is_expired(now) && !is_known {
            self.queue.pop();
            effects.changes.extend(dequeue(self.queue.owner(), &entry));
            self.count_drop(DropReason::Expired, effects);
            return Some(());
        }
        if self.rights.is_some() && !self.may_receive(entry.message.topic()) {
            return self.pump_denied(&entry, effects);
        }
        if entry.qos == QoS::AtMostOnce {
            self.queue.pop();
            return self.pump_unacknowledged(&entry, now, effects);
        }
        self.pump_acknowledged(entry, now, effects)
    }

    /// Repeats the PUBREL of a QoS 2 delivery whose message the Client has.
    fn pump_release(&mut self, sequence: Sequence) -> Option<()> {
        let Presence::Open(link) = &mut self.link else { return None };
        if !self.window.has_room(sequence, link.receive_maximum) {
            return None;
        }
        self.queue.pop();
        let state = DeliveryState::AwaitsPubcomp;
        self.window.push(sequence, Delivery { state, entry: None });
        let version = link.version;
        let (kind, reason) = (AcknowledgementKind::Pubrel, ReasonCode::Success);
        let packet_id = sequence.packet_id();
        self.outbox.append(|out| encode_acknowledgement(out, kind, packet_id, reason, version));
        Some(())
    }

    /// Sends a queued QoS 1 or 2 message, if the window has room and it need not wait for its commit.
    #[inline]
    fn pump_acknowledged(
        &mut self,
        entry: Arc<QueueEntry>,
        now: Timestamp,
        effects: &mut Effects,
    ) -> Option<()> {
        let Presence::Open(link) = &mut self.link else { return None };
        let is_durable = self.persistence == Persistence::Durable;
        let sequence = entry.sequence;
        let waits = is_durable && entry.qos == QoS::ExactlyOnce && !entry.is_committed();
        if waits || !self.window.has_room(sequence, link.receive_maximum) {
            return None;
        }
        self.queue.pop();
        let outgoing = Outgoing {
            qos: entry.qos,
            dup: sequence < self.sent_until,
            retain: entry.retain,
            packet_id: Some(sequence.packet_id()),
            subscription_ids: &entry.subscription_ids,
            now,
        };
        let mut publication = Publication::from_message(&entry.message);
        if let Err(reason) = link.encode(&mut self.outbox, &mut publication, &outgoing) {
            effects.changes.extend(dequeue(self.queue.owner(), &entry));
            self.count_drop(reason, effects);
            return Some(());
        }
        effects.tally.publish_sent += 1;
        effects.tally.publish_bytes_sent += entry.message.payload().len() as u64;
        let state = DeliveryState::sent(entry.qos);
        self.window.push(sequence, Delivery { state, entry: Some(entry) });
        Some(())
    }

    /// Sends a queued QoS 0 message, which is finished when it is sent.
    fn pump_unacknowledged(
        &mut self,
        entry: &QueueEntry,
        now: Timestamp,
        effects: &mut Effects,
    ) -> Option<()> {
        let Presence::Open(link) = &mut self.link else { return None };
        let outgoing = Outgoing {
            qos: QoS::AtMostOnce,
            dup: false,
            retain: entry.retain,
            packet_id: None,
            subscription_ids: &entry.subscription_ids,
            now,
        };
        let mut publication = Publication::from_message(&entry.message);
        let encoded = link.encode(&mut self.outbox, &mut publication, &outgoing);
        effects.changes.extend(dequeue(self.queue.owner(), entry));
        if let Err(reason) = encoded {
            self.count_drop(reason, effects);
            return Some(());
        }
        effects.tally.publish_sent += 1;
        effects.tally.publish_bytes_sent += entry.message.payload().len() as u64;
        Some(())
    }

    /// Whether a group may hand a message to this member: connected, empty queue, room in the window.
    #[must_use]
    pub(crate) fn has_room(&self) -> bool {
        let Presence::Open(link) = &self.link else { return false };
        self.queue.is_empty()
            && self.outbox.bytes() + self.writing_bytes < PUMP_BYTES
            && self.window.has_room(self.queue.next(), link.receive_maximum)
    }

    /// Moves output to the end of `target`. From now on take-over and commits wake `waker`, and if there is nothing
    /// to do (returns false), so does the next message. The caller must have written everything taken before.
    pub(crate) fn take_output(&mut self, target: &mut Outbox, waker: &Waker) -> bool {
        match &mut self.waker {
            Some(known) => known.clone_from(waker),
            None => self.waker = Some(waker.clone()),
        }
        // Bytes only grow between two calls, so this is their maximum.
        self.was_full |= self.outbox.bytes() + self.writing_bytes >= PUMP_BYTES;
        self.writing_bytes = 0;
        let was_signalled = std::mem::take(&mut self.is_signalled);
        if !self.outbox.is_empty() {
            self.outbox.move_into(target);
            self.writing_bytes = target.bytes();
        }
        if !target.is_empty() {
            // This is called again when that is written; `was_full` must last until then.
            return true;
        }
        if !self.is_crowded() {
            self.release_waiting();
        }
        // Messages that found no room while this was written depend on this task to check again.
        let must_look = std::mem::take(&mut self.was_full) || was_signalled;
        self.is_idle = !must_look;
        must_look
    }

    /// Wakes the Client's task if it waits for something to write.
    #[inline]
    fn notify(&mut self, effects: &mut Effects) {
        if std::mem::take(&mut self.is_idle) {
            effects.wakers.extend(self.waker.clone());
        }
    }

    fn release_waiting(&mut self) {
        self.is_stalled = false;
        if let Some(congestion) = self.congestion.as_mut() {
            congestion.release();
        }
    }

    fn close_link(&mut self) {
        if matches!(self.link, Presence::Ended) {
            return;
        }
        self.link = Presence::Absent;
        if let Some(own) = &mut self.own_queue {
            own.note_gone(self.outbox.bytes() + self.writing_bytes);
        }
        self.outbox.discard();
        self.writing_bytes = 0;
        self.sent_until = self.sent_until.max(self.window.end());
        self.queue.leave_memory(&mut self.window);
        self.release_waiting();
    }

    fn finish_delivery(&mut self, sequence: Sequence, effects: &mut Effects) {
        let Some(entry) = self.window.finish_delivery(sequence) else { return };
        if let Some(change) = dequeue(self.queue.owner(), &entry) {
            effects.persist(change, Durability::Memory);
        }
    }

    fn count_drop(&mut self, reason: DropReason, effects: &mut Effects) -> DeliveryOutcome {
        self.congestion.fill().dropped_count += 1;
        effects.tally.drop_one(reason);
        DeliveryOutcome::Dropped
    }
}

impl Terms<'_> {
    fn entry(&self, sequence: Sequence, message: &Arc<Message>, qos: QoS) -> Arc<QueueEntry> {
        let message = Arc::clone(message);
        let mut entry = QueueEntry::new(sequence, message, qos);
        entry.retain = self.retain;
        entry.subscription_ids = SmallVec::from_slice(self.subscription_ids);
        entry.group = self.group;
        Arc::new(entry)
    }
}
