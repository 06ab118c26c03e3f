//! Delivers routed messages to a Client: into its outbox, or into its queue.

use std::sync::Arc;

use crate::durable::Durability;
use crate::durable::change::QueueChange;
use crate::durable::entry::SUBSCRIPTION_ID_BYTES;
use crate::packet::QoS;
use crate::session::effects::{DropReason, Effects};
use crate::session::encoded_run::EncodedRun;
use crate::session::kept_run::KeptRun;
use crate::session::link::Outgoing;
use crate::session::outbound::{
    DeliveryOutcome, Outbound, PUMP_BYTES, Persistence, Presence, RunTerms, Terms,
};
use crate::session::publication::Publication;
use crate::session::queue::{Admission, Keep, Spilled};
use crate::session::window::{Delivery, DeliveryState};

impl Outbound {
    /// Delivers a message to this recipient: into its outbox if nothing is queued before it, otherwise into its
    /// queue.
    #[inline]
    pub(crate) fn deliver(
        &mut self,
        publication: &mut Publication<'_>,
        terms: &Terms<'_>,
        effects: &mut Effects,
    ) -> DeliveryOutcome {
        let qos = publication.qos.min(terms.qos);
        if qos == QoS::AtMostOnce {
            return self.deliver_unacknowledged(publication, terms, effects);
        }
        self.deliver_acknowledged(publication, qos, terms, effects)
    }

    /// Delivers messages of a run with the same bytes as to other Clients. Returns false, without effect, if this Client
    /// needs its own bytes, if it has no room for all of them, or if its messages must be kept as entries of its queue.
    #[inline]
    pub(crate) fn deliver_encoded(
        &mut self,
        run: &mut EncodedRun<'_>,
        publications: &[Publication<'_>],
        terms: RunTerms,
        effects: &mut Effects,
    ) -> bool {
        let Presence::Open(link) = &self.link else { return false };
        let qos = run.qos(terms.qos);
        let is_kept = qos > QoS::AtMostOnce && self.persistence == Persistence::Durable;
        if is_kept || self.own_queue.is_some() || !link.takes_any_packet() {
            return false;
        }
        let version = link.version;
        let RunTerms { messages, group, .. } = terms;
        let Some(delivered) = publications.get(messages.clone()) else { return false };
        let packets = run.packets(qos, version, publications);
        let Some(packets) = packets.part(messages, version, publications) else { return false };
        let outbox_bytes = self.outbox.bytes() + self.writing_bytes;
        let first = self.queue.next();
        let count = delivered.len();
        let has_room = match DeliveryState::sent(qos) {
            DeliveryState::Done => outbox_bytes + packets.bytes.len() <= link.outbox_bytes,
            awaited => {
                self.queue.is_empty()
                    && outbox_bytes + packets.bytes.len() < PUMP_BYTES
                    && self.window.push_run(first, count, link.receive_maximum, awaited)
            }
        };
        if !has_room {
            return false;
        }
        packets.append_to(&mut self.outbox, first);
        let packets = packets.bytes;
        if qos > QoS::AtMostOnce {
            self.queue.take_places(count);
            // QoS 2 deliveries end with their member. [MQTT-4.8.2-5]
            if let Some(group) = group
                && qos == QoS::AtLeastOnce
                && let Some(run) = KeptRun::of(delivered, (version, packets), first, group)
            {
                self.window.keep(run);
            }
        }
        effects.tally.publish_sent += count as u64;
        effects.tally.publish_bytes_sent += run.payload_bytes(delivered);
        self.notify(effects);
        true
    }

    fn deliver_unacknowledged(
        &mut self,
        publication: &mut Publication<'_>,
        terms: &Terms<'_>,
        effects: &mut Effects,
    ) -> DeliveryOutcome {
        if self.own_queue.is_some() && self.must_wait(publication, terms) {
            return match self.enqueue(publication, QoS::AtMostOnce, terms, effects) {
                // Nothing was promised for QoS 0.
                DeliveryOutcome::Refused => DeliveryOutcome::Dropped,
                delivered => delivered,
            };
        }
        let Presence::Open(link) = &mut self.link else { return DeliveryOutcome::Absent };
        let outgoing = Outgoing {
            qos: QoS::AtMostOnce,
            dup: false,
            retain: terms.retain,
            packet_id: None,
            subscription_ids: terms.subscription_ids,
            now: publication.arrived,
        };
        let large_bytes = publication.payload.len() + publication.properties.len();
        if self.outbox.bytes() + self.writing_bytes + large_bytes > link.outbox_bytes
            && self.outbox.bytes() + self.writing_bytes > 0
        {
            return self.count_drop(DropReason::OutboxFull, effects);
        }
        match link.encode(&mut self.outbox, publication, &outgoing) {
            Err(reason) => self.count_drop(reason, effects),
            Ok(()) => {
                effects.tally.publish_sent += 1;
                effects.tally.publish_bytes_sent += publication.payload.len() as u64;
                self.notify(effects);
                DeliveryOutcome::InOutbox
            }
        }
    }

    /// Whether a QoS 0 message goes to the queue: because the Client is absent, because there is no room, or because other
    /// messages are queued and a newer value must not overtake an older one.
    #[cold]
    fn must_wait(&mut self, publication: &Publication<'_>, terms: &Terms<'_>) -> bool {
        let outbox_bytes = self.outbox.bytes() + self.writing_bytes;
        let has_room = match &self.link {
            Presence::Open(link) => {
                self.queue.is_empty()
                    && (outbox_bytes == 0
                        || outbox_bytes + publication.payload.len() <= link.outbox_bytes)
            }
            Presence::Absent => false,
            Presence::Ended => return false,
        };
        !has_room && self.own_queue.as_mut().is_some_and(|own| own.takes_qos0(terms))
    }

    fn deliver_acknowledged(
        &mut self,
        publication: &mut Publication<'_>,
        qos: QoS,
        terms: &Terms<'_>,
        effects: &mut Effects,
    ) -> DeliveryOutcome {
        let is_durable = self.persistence == Persistence::Durable;
        let must_wait = is_durable && qos == QoS::ExactlyOnce;
        let sequence = self.queue.next();
        let outbox_bytes = self.outbox.bytes() + self.writing_bytes;
        let link = match &mut self.link {
            Presence::Ended => return DeliveryOutcome::Absent,
            Presence::Open(link)
                if !must_wait
                    && self.queue.is_empty()
                    && outbox_bytes < PUMP_BYTES
                    && self.window.has_room(sequence, link.receive_maximum) =>
            {
                link
            }
            Presence::Open(_) | Presence::Absent => {
                return self.enqueue(publication, qos, terms, effects);
            }
        };
        let outgoing = Outgoing {
            qos,
            dup: false,
            retain: terms.retain,
            packet_id: Some(sequence.packet_id()),
            subscription_ids: terms.subscription_ids,
            now: publication.arrived,
        };
        if let Err(reason) = link.encode(&mut self.outbox, publication, &outgoing) {
            return self.count_drop(reason, effects);
        }
        self.queue.take_place();
        let mut entry = None;
        if is_durable || terms.group.is_some() {
            entry = publication.message().map(|message| terms.entry(sequence, message, qos));
        }
        if is_durable && let Some(entry) = &entry {
            let change =
                QueueChange::Enqueue { queue: self.queue.owner(), entry: Arc::clone(entry) };
            effects.persist(change, terms.durability);
        }
        self.window.push(sequence, Delivery { state: DeliveryState::sent(qos), entry });
        effects.tally.publish_sent += 1;
        effects.tally.publish_bytes_sent += publication.payload.len() as u64;
        self.notify(effects);
        DeliveryOutcome::InOutbox
    }

    fn enqueue(
        &mut self,
        publication: &mut Publication<'_>,
        qos: QoS,
        terms: &Terms<'_>,
        effects: &mut Effects,
    ) -> DeliveryOutcome {
        let size_bytes = queued_bytes(publication, terms.subscription_ids);
        let before = effects.tally.dropped_count();
        let mut limits = *terms.limits;
        if let Some(own) = &self.own_queue {
            limits = limits.under(&own.rules);
        }
        let admission = self.queue.admit(size_bytes, &limits, terms.total, effects);
        let dropped = effects.tally.dropped_count() - before;
        if dropped > 0 {
            self.congestion.fill().dropped_count += dropped;
        }
        match admission {
            Admission::Admitted => {}
            Admission::Dropped => return DeliveryOutcome::Dropped,
            Admission::Refused => return DeliveryOutcome::Refused,
        }
        let Some(message) = publication.message() else {
            return self.count_drop(DropReason::PacketTooLarge, effects);
        };
        let is_durable = self.persistence == Persistence::Durable;
        let sequence = self.queue.take_place();
        let entry = terms.entry(sequence, message, qos);
        let keep = if self.is_open() { Keep::InMemory } else { Keep::InStore };
        let spilled = self.queue.push(Arc::clone(&entry), keep);
        self.has_spilled |= spilled == Spilled::Yes;
        if is_durable || spilled == Spilled::Yes {
            let is_promised = is_durable && qos > QoS::AtMostOnce;
            let durability = if is_promised { terms.durability } else { Durability::Memory };
            effects.persist(QueueChange::Enqueue { queue: self.queue.owner(), entry }, durability);
        }
        if is_durable && qos == QoS::ExactlyOnce {
            // Also for a Client that is just connecting: it may be there before the commit.
            return DeliveryOutcome::QueuedUntilCommit;
        }
        DeliveryOutcome::Queued
    }
}

/// Bytes of a delivery that count towards limits, like [`QueueEntry::size_bytes`].
///
/// [`QueueEntry::size_bytes`]: crate::durable::entry::QueueEntry::size_bytes
#[inline]
fn queued_bytes(publication: &Publication<'_>, subscription_ids: &[u32]) -> usize {
    publication.size_bytes() + subscription_ids.len() * SUBSCRIPTION_ID_BYTES
}
