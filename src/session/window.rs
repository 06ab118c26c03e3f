//! The inflight window of one Client: deliveries sent but not completely acknowledged, found by Packet Identifier in
//! constant time.

use std::collections::VecDeque;
use std::num::NonZeroU16;
use std::sync::Arc;

use crate::durable::entry::QueueEntry;
use crate::durable::message::{Sequence, Timestamp};
use crate::packet::{PacketId, QoS};
use crate::session::kept_run::KeptRun;
use crate::session::rare::Rare;

/// Number of Packet Identifiers; the identifier of a delivery is its sequence modulo this, plus 1.
const IDENTIFIERS: u64 = 65_535;
/// Bytes of messages kept for sending again from which on no more are sent: a Client that never acknowledges must not hold
/// a full window of the largest messages in memory.
const KEPT_BYTES: usize = 8 * 1024 * 1024;

/// What a delivery waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeliveryState {
    /// Nothing: done, or never existed. Removed once everything before it is done.
    Done,
    /// QoS 1: PUBACK.
    AwaitsPuback,
    /// QoS 2: PUBREC.
    AwaitsPubrec,
    /// QoS 2: the durability of "PUBREC received", before PUBREL may be sent.
    AwaitsCommit,
    /// QoS 2: PUBCOMP.
    AwaitsPubcomp,
}

impl DeliveryState {
    /// The state of a message that was just sent.
    #[inline]
    pub(crate) const fn sent(qos: QoS) -> Self {
        match qos {
            QoS::AtMostOnce => Self::Done,
            QoS::AtLeastOnce => Self::AwaitsPuback,
            QoS::ExactlyOnce => Self::AwaitsPubrec,
        }
    }
}

/// One delivery in flight.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    /// What it waits for.
    pub(crate) state: DeliveryState,
    /// The message, if it may be needed again: for durable Sessions and Shared Subscriptions. Runs are kept beside.
    pub(crate) entry: Option<Arc<QueueEntry>>,
}

impl Delivery {
    /// Takes the message, if it may still be needed.
    fn keep(&mut self, entry: Arc<QueueEntry>) {
        match self.state {
            DeliveryState::AwaitsPuback | DeliveryState::AwaitsPubrec => self.entry = Some(entry),
            DeliveryState::Done | DeliveryState::AwaitsCommit | DeliveryState::AwaitsPubcomp => {}
        }
    }
}

/// Deliveries in flight, in order of sequence without gaps.
#[derive(Debug)]
pub(crate) struct Window {
    base: u64,
    deliveries: VecDeque<Delivery>,
    /// Messages that may be needed again, of deliveries without an entry; in order.
    kept_runs: Rare<VecDeque<KeptRun>>,
    unacknowledged: u32,
    /// Bytes of the entries and of kept runs.
    kept_bytes: usize,
}

impl Window {
    /// An empty window whose first delivery will be `next`.
    #[must_use]
    pub(crate) fn new(next: Sequence) -> Self {
        Self {
            base: next.0,
            deliveries: VecDeque::new(),
            kept_runs: Rare::default(),
            unacknowledged: 0,
            kept_bytes: 0,
        }
    }

    /// Unacknowledged deliveries, which the Client's Receive Maximum limits. [MQTT-3.3.4-9]
    #[must_use]
    pub(crate) fn unacknowledged(&self) -> u32 {
        self.unacknowledged
    }

    /// Whether nothing is in flight.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.deliveries.is_empty()
    }

    /// The oldest delivery not done, or the next one if all are.
    #[must_use]
    pub(crate) fn base(&self) -> Sequence {
        Sequence(self.base)
    }

    /// When the oldest message in flight arrived, if it is still in memory.
    #[must_use]
    pub(crate) fn oldest_arrival(&self) -> Option<Timestamp> {
        if let Some(entry) = &self.deliveries.front()?.entry {
            return Some(entry.message.arrived);
        }
        let run = self.kept_runs.as_ref()?.front()?;
        (run.first <= self.base()).then_some(run.arrived)
    }

    /// One past the newest delivery.
    #[must_use]
    pub(crate) fn end(&self) -> Sequence {
        Sequence(self.base + self.deliveries.len() as u64)
    }

    /// Whether `sequence` may be sent now: fewer than `max` unacknowledged, and its Packet
    /// Identifier not in use by the oldest.
    #[inline]
    #[must_use]
    pub(crate) fn has_room(&self, sequence: Sequence, max: u16) -> bool {
        self.unacknowledged < u32::from(max)
            && self.kept_bytes < KEPT_BYTES
            && (self.deliveries.is_empty() || sequence.0 - self.base < IDENTIFIERS)
    }

    /// Adds a delivery; positions skipped since the newest count as done.
    pub(crate) fn push(&mut self, sequence: Sequence, delivery: Delivery) {
        if self.deliveries.is_empty() {
            self.base = sequence.0;
        }
        while self.end() < sequence {
            self.deliveries.push_back(Delivery { state: DeliveryState::Done, entry: None });
        }
        if delivery.state != DeliveryState::Done {
            self.unacknowledged += 1;
        }
        if let Some(entry) = &delivery.entry {
            self.kept_bytes += entry.size_bytes();
        }
        self.deliveries.push_back(delivery);
    }

    /// Adds `count` deliveries in this state without keeping messages, if there is room for all of them.
    #[inline]
    pub(crate) fn push_run(
        &mut self,
        first: Sequence,
        count: usize,
        max: u16,
        state: DeliveryState,
    ) -> bool {
        let unacknowledged = self.unacknowledged as usize + count;
        let last = Sequence(first.0 + count as u64 - 1);
        if unacknowledged > usize::from(max) || !self.has_room(last, u16::MAX) {
            return false;
        }
        if self.deliveries.is_empty() {
            self.base = first.0;
        }
        if self.end() != first {
            return false;
        }
        let delivery = Delivery { state, entry: None };
        self.deliveries.resize(self.deliveries.len() + count, delivery);
        self.unacknowledged += u32::try_from(count).unwrap_or(u32::MAX);
        true
    }

    /// Keeps the messages of deliveries that were just added.
    pub(super) fn keep(&mut self, run: KeptRun) {
        self.kept_bytes += run.size_bytes();
        self.kept_runs.fill().push_back(run);
    }

    /// The delivery in flight with this Packet Identifier, and its sequence.
    pub(crate) fn find(&mut self, packet_id: PacketId) -> Option<(Sequence, &mut Delivery)> {
        let wanted = u64::from(packet_id.0.get()) - 1;
        let offset = (wanted + IDENTIFIERS - self.base % IDENTIFIERS) % IDENTIFIERS;
        let sequence = Sequence(self.base + offset);
        let delivery = self.deliveries.get_mut(usize::try_from(offset).ok()?)?;
        (delivery.state != DeliveryState::Done).then_some((sequence, delivery))
    }

    /// The message of a delivery is not needed again: the Client has it. [MQTT-4.3.3-4]
    pub(crate) fn forget_message(&mut self, sequence: Sequence) {
        let index = sequence.0.checked_sub(self.base).and_then(|index| usize::try_from(index).ok());
        let delivery = index.and_then(|index| self.deliveries.get_mut(index));
        if let Some(entry) = delivery.and_then(|delivery| delivery.entry.take()) {
            self.kept_bytes -= entry.size_bytes();
        }
    }

    /// Marks a delivery as done and returns its entry.
    pub(crate) fn finish_delivery(&mut self, sequence: Sequence) -> Option<Arc<QueueEntry>> {
        let index = usize::try_from(sequence.0.checked_sub(self.base)?).ok()?;
        let delivery = self.deliveries.get_mut(index)?;
        if delivery.state == DeliveryState::Done {
            return None;
        }
        delivery.state = DeliveryState::Done;
        let entry = delivery.entry.take();
        if let Some(entry) = &entry {
            self.kept_bytes -= entry.size_bytes();
        }
        self.unacknowledged -= 1;
        while self.deliveries.front().is_some_and(|first| first.state == DeliveryState::Done) {
            self.deliveries.pop_front();
            self.base += 1;
        }
        if self.kept_runs.as_ref().is_some() {
            self.forget_runs();
        }
        if self.deliveries.is_empty() && self.deliveries.capacity() > 64 {
            self.deliveries = VecDeque::new();
            self.kept_runs.take();
        }
        entry
    }

    /// Frees kept runs whose deliveries are all done.
    #[inline(never)]
    fn forget_runs(&mut self) {
        let base = self.base();
        let Some(runs) = self.kept_runs.as_mut() else { return };
        while let Some(run) = runs.pop_front_if(|run| run.end() <= base) {
            self.kept_bytes -= run.size_bytes();
        }
    }

    /// Removes everything, oldest first, and leaves an empty window that continues at the same position.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = (Sequence, Delivery)> + use<> {
        let base = self.base;
        let mut deliveries = std::mem::take(&mut self.deliveries);
        for entry in self.kept_runs.take().iter().flat_map(KeptRun::entries) {
            let index = entry.sequence.0.checked_sub(base).and_then(|at| usize::try_from(at).ok());
            if let Some(delivery) = index.and_then(|index| deliveries.get_mut(index)) {
                delivery.keep(entry);
            }
        }
        self.base += deliveries.len() as u64;
        self.unacknowledged = 0;
        self.kept_bytes = 0;
        deliveries.into_iter().zip(base..).map(|(delivery, at)| (Sequence(at), delivery))
    }
}

impl Sequence {
    /// The Packet Identifier of this delivery. It needs no storage, and a restarted broker sends again with the
    /// original one. [MQTT-4.4.0-1]
    #[must_use]
    pub(crate) fn packet_id(self) -> PacketId {
        let identifier = u16::try_from(self.0 % IDENTIFIERS).unwrap_or(0) + 1;
        PacketId(NonZeroU16::new(identifier).unwrap_or(NonZeroU16::MIN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::durable::message::{Message, MessageHeader, MessageId, SessionId};
    use crate::packet::ProtocolVersion;
    use crate::session::publication::Publication;

    fn awaiting(state: DeliveryState) -> Delivery {
        Delivery { state, entry: None }
    }

    fn entry(place: u64, payload_bytes: usize) -> Arc<QueueEntry> {
        let header = MessageHeader {
            id: MessageId { publisher: SessionId(1), counter: place },
            qos: QoS::ExactlyOnce,
            retain: false,
            arrived: Timestamp(0),
            expires: None,
        };
        let message = Message::new(header, "t", &[], &vec![0; payload_bytes]).unwrap();
        Arc::new(QueueEntry::new(Sequence(place), Arc::new(message), QoS::ExactlyOnce))
    }

    #[test]
    fn deliveries_are_found_by_packet_identifier_across_the_wrap() {
        let start = IDENTIFIERS - 2;
        let mut window = Window::new(Sequence(start));
        for place in start..start + 5 {
            window.push(Sequence(place), awaiting(DeliveryState::AwaitsPuback));
        }
        assert_eq!(Sequence(IDENTIFIERS).packet_id(), Sequence(0).packet_id());
        for place in start..start + 5 {
            let found = window.find(Sequence(place).packet_id()).map(|(sequence, _)| sequence);
            assert_eq!(found, Some(Sequence(place)));
        }
        assert!(window.find(Sequence(start + 5).packet_id()).is_none());
        assert!(window.find(Sequence(start - 1).packet_id()).is_none());
    }

    #[test]
    fn a_run_goes_in_whole_or_not_at_all() {
        let mut window = Window::new(Sequence(3));
        assert!(window.push_run(Sequence(3), 4, 5, DeliveryState::AwaitsPuback));
        assert!(
            !window.push_run(Sequence(7), 2, 5, DeliveryState::AwaitsPuback),
            "the Receive Maximum"
        );
        assert_eq!((window.unacknowledged(), window.end()), (4, Sequence(7)));
        assert!(window.push_run(Sequence(7), 1, 5, DeliveryState::AwaitsPuback));
        for place in [4, 3, 5, 6, 7] {
            assert!(window.find(Sequence(place).packet_id()).is_some());
            window.finish_delivery(Sequence(place));
        }
        assert_eq!((window.unacknowledged(), window.base()), (0, Sequence(8)));
        window.push(Sequence(9), awaiting(DeliveryState::AwaitsPubcomp));
        assert!(
            !window.push_run(Sequence(9 + IDENTIFIERS - 1), 2, 5, DeliveryState::AwaitsPuback),
            "an identifier in use"
        );
    }

    #[test]
    fn the_window_slides_when_its_oldest_is_done() {
        let mut window = Window::new(Sequence(0));
        for place in 0..3 {
            window.push(Sequence(place), awaiting(DeliveryState::AwaitsPuback));
        }
        window.finish_delivery(Sequence(1));
        assert_eq!((window.base(), window.unacknowledged()), (Sequence(0), 2));
        window.finish_delivery(Sequence(0));
        assert_eq!((window.base(), window.unacknowledged()), (Sequence(2), 1));
        window.finish_delivery(Sequence(0));
        assert_eq!(window.unacknowledged(), 1, "done is done");
    }

    #[test]
    fn an_identifier_in_use_is_not_given_to_another_message() {
        let mut window = Window::new(Sequence(7));
        window.push(Sequence(7), awaiting(DeliveryState::AwaitsPubcomp));
        assert!(window.has_room(Sequence(7 + IDENTIFIERS - 1), 10));
        assert!(!window.has_room(Sequence(7 + IDENTIFIERS), 10));
        assert!(!window.has_room(Sequence(8), 1), "the Receive Maximum is reached");
    }

    #[test]
    fn messages_kept_for_sending_again_are_bounded_in_bytes() {
        let mut window = Window::new(Sequence(0));
        let mut place = 0;
        while window.has_room(Sequence(place), u16::MAX) {
            let state = DeliveryState::AwaitsPubrec;
            window.push(Sequence(place), Delivery { state, entry: Some(entry(place, 1 << 20)) });
            place += 1;
        }
        assert_eq!(place, 8, "so many MiB");
        window.forget_message(Sequence(0));
        assert!(window.has_room(Sequence(place), u16::MAX));
        window.push(
            Sequence(place),
            Delivery { state: DeliveryState::AwaitsPuback, entry: Some(entry(place, 1 << 20)) },
        );
        assert!(!window.has_room(Sequence(place + 1), u16::MAX));
        for sequence in 0..=place {
            window.finish_delivery(Sequence(sequence));
        }
        assert_eq!(window.kept_bytes, 0);
        window.push(
            Sequence(place + 1),
            Delivery { state: DeliveryState::AwaitsPuback, entry: Some(entry(place + 1, 9 << 20)) },
        );
        assert_eq!(window.drain().count(), 1, "a message larger than the bound is sent alone");
        assert_eq!(window.kept_bytes, 0);
    }

    /// Messages "a", "b" and "c" at QoS 1.
    const PACKETS: &[u8] = b"\x32\x06\0\x01t\0\x01a\x32\x06\0\x01t\0\x01b\x32\x06\0\x01t\0\x01c";

    fn kept_run(first: u64) -> KeptRun {
        let header = |counter| MessageHeader {
            id: MessageId { publisher: SessionId(1), counter },
            qos: QoS::ExactlyOnce,
            retain: false,
            arrived: Timestamp(first),
            expires: None,
        };
        let publication = |counter| Publication::new(header(counter), "t", &[], b"a");
        let publications = [publication(first), publication(first + 1), publication(first + 2)];
        let sent = (ProtocolVersion::V3_1_1, PACKETS);
        KeptRun::of(&publications, sent, Sequence(first), SessionId(7)).unwrap()
    }

    /// Those that are not acknowledged are there as entries when the window is drained.
    #[test]
    fn a_run_is_kept_until_all_of_it_is_acknowledged() {
        let mut window = Window::new(Sequence(0));
        for first in [0, 3, 6] {
            assert!(window.push_run(Sequence(first), 3, 100, DeliveryState::AwaitsPuback));
            window.keep(kept_run(first));
        }
        assert_eq!(window.oldest_arrival(), Some(Timestamp(0)));
        for acknowledged in [1, 4, 2, 0] {
            window.finish_delivery(Sequence(acknowledged));
        }
        assert_eq!(window.oldest_arrival(), Some(Timestamp(3)));
        assert_eq!(window.kept_bytes, 2 * PACKETS.len());
        let rest: Vec<_> = window.drain().filter_map(|(_, delivery)| delivery.entry).collect();
        let seen: Vec<_> = rest
            .iter()
            .map(|entry| (entry.sequence.0, entry.message.id.counter, entry.message.payload()))
            .collect();
        let (a, b, c): (&[u8], &[u8], &[u8]) = (b"a", b"b", b"c");
        assert_eq!(seen, [(3, 3, a), (5, 5, c), (6, 6, a), (7, 7, b), (8, 8, c)]);
        assert!(rest.iter().all(|entry| entry.group == Some(SessionId(7))));
        assert_eq!((window.kept_bytes, window.unacknowledged()), (0, 0));
    }

    #[test]
    fn places_that_were_skipped_are_done() {
        let mut window = Window::new(Sequence(0));
        window.push(Sequence(0), awaiting(DeliveryState::AwaitsPuback));
        window.push(Sequence(4), awaiting(DeliveryState::AwaitsPubrec));
        assert_eq!(window.unacknowledged(), 2);
        assert!(window.find(Sequence(2).packet_id()).is_none());
        window.finish_delivery(Sequence(0));
        assert_eq!(window.base(), Sequence(4));
    }
}
