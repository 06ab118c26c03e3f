//! Messages that several Clients receive as the same bytes: encoded once for each protocol, then copied for each
//! Client. At QoS 0 a packet is identical for all recipients; at QoS 1 only the Packet Identifier differs, and it is
//! overwritten in the copy.

use std::num::NonZeroU16;

use smallvec::SmallVec;

use crate::durable::message::Sequence;
use crate::packet::publish::OutgoingPublish;
use crate::packet::{PacketId, ProtocolVersion, QoS};
use crate::session::outbox::{Outbox, SHARED_PAYLOAD_BYTES};
use crate::session::publication::Publication;

/// A run of messages of one topic for more than one Client.
pub(crate) struct SharedRun {
    /// The QoS that all of them were published with.
    qos: QoS,
    messages: usize,
    payload_bytes: u64,
    /// By QoS, and then for 3.x and for 5.0; empty until needed.
    encoded: [[SharedPackets; 2]; 2],
}

/// Packets that several Clients receive.
#[derive(Default)]
pub(super) struct SharedPackets {
    packets: Outbox,
    /// Where their Packet Identifiers are.
    identifiers: SmallVec<[u32; 32]>,
}

impl SharedRun {
    /// Creates a run if its packets are simple, as most are: one QoS, no properties, no RETAIN, small payloads that
    /// are copied anyway.
    #[must_use]
    pub(crate) fn of(publications: &[Publication<'_>]) -> Option<Self> {
        let qos = publications.first()?.qos;
        let mut payload_bytes = 0;
        for publication in publications {
            let is_simple = publication.qos == qos
                && !publication.retain
                && publication.properties.is_empty()
                && publication.expires.is_none()
                && publication.payload.len() < SHARED_PAYLOAD_BYTES;
            if !is_simple {
                return None;
            }
            payload_bytes += publication.payload.len() as u64;
        }
        let messages = publications.len();
        Some(Self { qos, messages, payload_bytes, encoded: Default::default() })
    }

    /// The QoS of the deliveries to a Subscription of this QoS.
    #[inline]
    pub(super) fn qos(&self, granted: QoS) -> QoS {
        self.qos.min(granted)
    }

    /// The number of messages.
    #[inline]
    pub(super) fn messages(&self) -> usize {
        self.messages
    }

    /// Bytes of all payloads.
    #[inline]
    pub(super) fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }

    /// The packets; `publications` are those of the run. `None` at QoS 2.
    #[inline]
    pub(super) fn packets(
        &mut self,
        qos: QoS,
        version: ProtocolVersion,
        publications: &[Publication<'_>],
    ) -> Option<&SharedPackets> {
        let by_qos = self.encoded.get_mut(usize::from(qos as u8))?;
        let shared = &mut by_qos[usize::from(version == ProtocolVersion::V5_0)];
        if shared.packets.is_empty() {
            shared.encode(qos, version, publications);
        }
        Some(shared)
    }
}

impl SharedPackets {
    fn encode(&mut self, qos: QoS, version: ProtocolVersion, publications: &[Publication<'_>]) {
        let packet_id = (qos > QoS::AtMostOnce).then_some(PacketId(NonZeroU16::MIN));
        for publication in publications {
            let publish = OutgoingPublish {
                dup: false,
                qos,
                retain: false,
                topic: publication.topic,
                packet_id,
                topic_alias: None,
                message_expiry: None,
                subscription_ids: &[],
                properties: &[],
                payload_bytes: publication.payload.len(),
            };
            self.packets.append_publish(&publish, version, publication.payload);
            // After the identifier come the payload, and in 5.0 a zero property length.
            let behind = publication.payload.len() + usize::from(version == ProtocolVersion::V5_0);
            let place = self.packets.bytes() - behind - 2;
            self.identifiers.extend(packet_id.and_then(|_| u32::try_from(place).ok()));
        }
    }

    /// Bytes of all packets.
    #[inline]
    pub(super) fn bytes(&self) -> usize {
        self.packets.bytes()
    }

    /// Appends a copy for one Client, whose first delivery is `first`.
    #[inline]
    pub(super) fn append_to(&self, outbox: &mut Outbox, first: Sequence) {
        match self.identifiers.is_empty() {
            true => outbox.append_copy(&self.packets),
            false => {
                outbox.append_numbered(&self.packets, &self.identifiers, first.packet_id());
            }
        }
    }
}

impl Drop for SharedRun {
    fn drop(&mut self) {
        self.encoded.iter_mut().flatten().for_each(|shared| shared.packets.discard());
    }
}
