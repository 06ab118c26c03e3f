//! Messages that several Clients receive as the same bytes: encoded once for each protocol, or copied from the packets
//! that arrived. At QoS 0 a packet is identical for all recipients; at QoS 1 and 2 only the Packet Identifier differs,
//! and it is overwritten in the copy.

use std::num::NonZeroU16;
use std::ops::Range;

use smallvec::SmallVec;

use crate::durable::message::Sequence;
use crate::packet::publish::OutgoingPublish;
use crate::packet::{PacketId, ProtocolVersion, QoS};
use crate::session::outbox::{Outbox, REFERENCED_PAYLOAD_BYTES};
use crate::session::publication::Publication;

/// The packets of a run as they arrived, one after another: plain PUBLISH packets, without DUP, RETAIN and properties,
/// and with the topic that recipients see. A recipient with the same protocol and QoS gets the same bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ArrivedPackets<'a> {
    /// All of them, from the first byte to the last.
    pub(crate) bytes: &'a [u8],
    /// The protocol that they are encoded for.
    pub(crate) version: ProtocolVersion,
}

/// A run of messages of one topic that several Clients may receive as the same bytes.
pub(crate) struct EncodedRun<'a> {
    /// The QoS that all of them were published with.
    qos: QoS,
    messages: usize,
    payload_bytes: u64,
    arrived: Option<ArrivedPackets<'a>>,
    /// By QoS, and then for 3.x and for 5.0; empty until needed.
    encoded: [[EncodedPackets; 2]; 3],
}

/// Packets that several Clients receive.
#[derive(Default)]
pub(super) struct EncodedPackets {
    packets: Outbox,
    /// Where their Packet Identifiers are.
    identifiers: SmallVec<[u32; 32]>,
}

/// Consecutive packets of a run.
#[derive(Clone, Copy)]
pub(super) struct PacketsPart<'p> {
    /// The packets.
    pub(super) bytes: &'p [u8],
    /// Where their Packet Identifiers are, counted from the beginning of the run.
    identifiers: &'p [u32],
    /// Bytes of the run before them.
    before: usize,
}

impl<'a> EncodedRun<'a> {
    /// Creates a run if its packets are simple, as most are: one QoS, no properties, no RETAIN, small payloads that
    /// are copied anyway. `arrived` are the packets of all these publications.
    #[must_use]
    pub(crate) fn of(
        publications: &[Publication<'_>],
        arrived: Option<ArrivedPackets<'a>>,
    ) -> Option<Self> {
        let qos = publications.first()?.qos;
        let mut payload_bytes = 0;
        for publication in publications {
            let is_simple = publication.qos == qos
                && !publication.retain
                && publication.properties.is_empty()
                && publication.expires.is_none()
                && publication.payload.len() < REFERENCED_PAYLOAD_BYTES;
            if !is_simple {
                return None;
            }
            payload_bytes += publication.payload.len() as u64;
        }
        let messages = publications.len();
        Some(Self { qos, messages, payload_bytes, arrived, encoded: Default::default() })
    }

    /// The QoS of the deliveries to a Subscription of this QoS.
    #[inline]
    pub(super) fn qos(&self, granted: QoS) -> QoS {
        self.qos.min(granted)
    }

    /// Bytes of the payloads of some of its messages.
    #[inline]
    pub(super) fn payload_bytes(&self, messages: &[Publication<'_>]) -> u64 {
        if messages.len() == self.messages {
            return self.payload_bytes;
        }
        messages.iter().map(|publication| publication.payload.len() as u64).sum()
    }

    /// The packets; `publications` are those of the run.
    #[inline]
    pub(super) fn packets(
        &mut self,
        qos: QoS,
        version: ProtocolVersion,
        publications: &[Publication<'_>],
    ) -> &EncodedPackets {
        let [at_most_once, at_least_once, exactly_once] = &mut self.encoded;
        let by_version = match qos {
            QoS::AtMostOnce => at_most_once,
            QoS::AtLeastOnce => at_least_once,
            QoS::ExactlyOnce => exactly_once,
        };
        let encoded = &mut by_version[usize::from(version.has_properties())];
        if encoded.packets.is_empty() {
            match self.arrived {
                Some(arrived)
                    if qos == self.qos
                        && arrived.version.has_properties() == version.has_properties() =>
                {
                    encoded.take(qos, arrived, publications);
                }
                Some(_) | None => encoded.encode(qos, version, publications),
            }
        }
        encoded
    }
}

impl EncodedPackets {
    /// Takes packets as they arrived.
    fn take(&mut self, qos: QoS, arrived: ArrivedPackets<'_>, publications: &[Publication<'_>]) {
        self.packets.extend(arrived.bytes);
        if qos == QoS::AtMostOnce {
            return;
        }
        let mut end = 0;
        for publication in publications {
            let publish = outgoing(publication, qos, Some(PacketId(NonZeroU16::MIN)));
            end += publish.encoded_bytes(arrived.version);
            let place = identifier_place(end, publication, arrived.version);
            self.identifiers.extend(u32::try_from(place));
        }
    }

    fn encode(&mut self, qos: QoS, version: ProtocolVersion, publications: &[Publication<'_>]) {
        let packet_id = (qos > QoS::AtMostOnce).then_some(PacketId(NonZeroU16::MIN));
        for publication in publications {
            let publish = outgoing(publication, qos, packet_id);
            self.packets.append_publish(&publish, version, publication.payload);
            let place = identifier_place(self.packets.bytes(), publication, version);
            self.identifiers.extend(packet_id.and_then(|_| u32::try_from(place).ok()));
        }
    }

    /// Some of the packets; `None` if they have no Packet Identifiers, and are not all.
    #[inline]
    pub(super) fn part(
        &self,
        messages: Range<usize>,
        version: ProtocolVersion,
        publications: &[Publication<'_>],
    ) -> Option<PacketsPart<'_>> {
        let (bytes, identifiers) = (self.packets.copied(), &*self.identifiers);
        if messages.len() == publications.len() {
            return Some(PacketsPart { bytes, identifiers, before: 0 });
        }
        self.cut(messages, version, publications)
    }

    #[inline(never)]
    fn cut(
        &self,
        messages: Range<usize>,
        version: ProtocolVersion,
        publications: &[Publication<'_>],
    ) -> Option<PacketsPart<'_>> {
        let (bytes, identifiers) = (self.packets.copied(), &*self.identifiers);
        let end = |message: usize| {
            let place = usize::try_from(*identifiers.get(message)?).ok()?;
            Some(identifier_end(place, publications.get(message)?, version))
        };
        let before = match messages.start.checked_sub(1) {
            Some(previous) => end(previous)?,
            None => 0,
        };
        let bytes = bytes.get(before..end(messages.end.checked_sub(1)?)?)?;
        Some(PacketsPart { bytes, identifiers: identifiers.get(messages)?, before })
    }
}

impl PacketsPart<'_> {
    /// Appends a copy for one Client, whose first delivery is `first`.
    #[inline]
    pub(super) fn append_to(&self, outbox: &mut Outbox, first: Sequence) {
        match self.identifiers.is_empty() {
            true => outbox.extend(self.bytes),
            false => {
                let identifiers = (self.before, self.identifiers);
                outbox.append_numbered(self.bytes, identifiers, first.packet_id());
            }
        }
    }
}

/// The packet that everybody receives.
#[inline]
fn outgoing<'a>(
    publication: &Publication<'a>,
    qos: QoS,
    packet_id: Option<PacketId>,
) -> OutgoingPublish<'a> {
    OutgoingPublish {
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
    }
}

/// Where the Packet Identifier is of a packet that ends at `end`: after it come the payload, and in 5.0 a zero
/// property length.
#[inline]
fn identifier_place(end: usize, publication: &Publication<'_>, version: ProtocolVersion) -> usize {
    end - publication.payload.len() - usize::from(version.has_properties()) - size_of::<u16>()
}

/// Where a packet ends whose Packet Identifier is at `place`.
#[inline]
fn identifier_end(place: usize, publication: &Publication<'_>, version: ProtocolVersion) -> usize {
    place + size_of::<u16>() + usize::from(version.has_properties()) + publication.payload.len()
}

impl Drop for EncodedRun<'_> {
    fn drop(&mut self) {
        self.encoded.iter_mut().flatten().for_each(|encoded| encoded.packets.discard());
    }
}
