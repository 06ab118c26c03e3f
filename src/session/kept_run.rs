//! Messages sent to a member of a group at QoS 1. Another member gets them if this one leaves before it acknowledges
//! them. They are kept as the packets that were sent, in one piece, because hardly any of them is ever needed.

use std::sync::Arc;

use crate::durable::entry::QueueEntry;
use crate::durable::message::{Message, MessageHeader, MessageId, Sequence, SessionId, Timestamp};
use crate::packet::decode::{DecodeContext, Decoded, Sender, decode};
use crate::packet::{Packet, ProtocolVersion, QoS};
use crate::session::publication::Publication;

/// Consecutive deliveries to one member.
#[derive(Debug)]
pub(super) struct KeptRun {
    /// The first delivery.
    pub(super) first: Sequence,
    count: usize,
    group: SessionId,
    /// The QoS they were published with.
    published: QoS,
    /// Identifies the first message; the counters of the others follow.
    first_id: MessageId,
    /// When they arrived.
    pub(super) arrived: Timestamp,
    /// The protocol of the packets.
    version: ProtocolVersion,
    /// PUBLISH packets without RETAIN and properties, one after another. Their Packet Identifiers mean nothing.
    packets: Box<[u8]>,
}

impl KeptRun {
    /// Keeps messages of a run, whose ids follow each other, as the packets of this protocol that were sent.
    #[inline(never)]
    pub(super) fn of(
        messages: &[Publication<'_>],
        (version, packets): (ProtocolVersion, &[u8]),
        first: Sequence,
        group: SessionId,
    ) -> Option<Self> {
        let Publication { qos: published, id: first_id, arrived, .. } = *messages.first()?;
        let (count, packets) = (messages.len(), packets.into());
        Some(Self { first, count, group, published, first_id, arrived, version, packets })
    }

    /// One past the last delivery.
    #[inline]
    pub(super) fn end(&self) -> Sequence {
        Sequence(self.first.0 + self.count as u64)
    }

    /// Bytes that it counts towards limits.
    #[inline]
    pub(super) fn size_bytes(&self) -> usize {
        self.packets.len()
    }

    /// All of its deliveries as entries of a queue.
    pub(super) fn entries(&self) -> impl Iterator<Item = Arc<QueueEntry>> {
        let (version, max_packet_bytes) = (self.version, u32::MAX);
        let context = DecodeContext { version, max_packet_bytes, sender: Sender::Server };
        let mut rest = &*self.packets;
        (0..self.count as u64).map_while(move |offset| {
            let Ok(Decoded::Packet { packet: Packet::Publish(publish), length }) =
                decode(rest, &context)
            else {
                return None;
            };
            rest = rest.get(length..)?;
            let counter = self.first_id.counter + offset;
            let header = MessageHeader {
                id: MessageId { counter, ..self.first_id },
                qos: self.published,
                retain: false,
                arrived: self.arrived,
                expires: None,
            };
            let message = Message::new(header, publish.topic, &[], publish.payload)?;
            let sequence = Sequence(self.first.0 + offset);
            let mut entry = QueueEntry::new(sequence, Arc::new(message), QoS::AtLeastOnce);
            entry.group = Some(self.group);
            Some(Arc::new(entry))
        })
    }
}
