//! PUBLISH: carries an Application Message.

use std::borrow::Cow;

use crate::packet::{
    Packet, PacketId, ProtocolVersion, QoS,
    decode::{Decoded, Sender},
    error::DecodeError,
    fixed_header::PacketType,
    property::{Property, PropertyReader, PropertySet},
    reader::Reader,
    writer,
};

/// A decoded PUBLISH. [MQTT-3.3]
#[derive(Debug, Clone, PartialEq)]
pub struct Publish<'a> {
    /// DUP: the message may have been sent before. Always false at QoS 0. [MQTT-3.3.1-2]
    pub dup: bool,
    /// Quality of Service of this delivery.
    pub qos: QoS,
    /// The RETAIN flag.
    pub retain: bool,
    /// The Topic Name as sent: valid UTF-8 without NUL or wildcards; empty only in 5.0 together
    /// with a Topic Alias.
    pub topic: &'a str,
    /// Present exactly at QoS 1 and 2.
    pub packet_id: Option<PacketId>,
    /// Topic Alias, as sent (the session refuses zero with 0x94).
    pub topic_alias: Option<u16>,
    /// Message Expiry Interval in seconds.
    pub message_expiry: Option<u32>,
    /// Subscription Identifiers (only ever sent by a Server; the session refuses them from a
    /// Client).
    pub subscription_ids: Vec<u32>,
    /// The remaining properties, exactly those that a Server forwards unaltered (Payload Format
    /// Indicator, Content Type, Response Topic, Correlation Data, User Properties in order),
    /// validated and still wire-encoded, without a length prefix. Borrowed whenever they lie side
    /// by side in the packet. Empty in 3.x.
    pub properties: Cow<'a, [u8]>,
    /// The Application Message itself.
    pub payload: &'a [u8],
}

/// A PUBLISH to be encoded. The caller appends the payload, so that a large one can be sent without a copy; only its
/// length is needed here.
#[derive(Debug, Clone, Copy)]
pub struct OutgoingPublish<'a> {
    /// DUP: the message may have been sent before.
    pub dup: bool,
    /// Quality of Service of this delivery.
    pub qos: QoS,
    /// The RETAIN flag.
    pub retain: bool,
    /// The Topic Name, empty when `topic_alias` replaces it.
    pub topic: &'a str,
    /// Present exactly at QoS 1 and 2.
    pub packet_id: Option<PacketId>,
    /// Topic Alias (5.0).
    pub topic_alias: Option<u16>,
    /// The remaining Message Expiry Interval, in seconds (5.0).
    pub message_expiry: Option<u32>,
    /// All matching Subscription Identifiers (5.0).
    pub subscription_ids: &'a [u32],
    /// Forwarded properties, wire-encoded as in [`Publish::properties`] (left out for 3.x).
    pub properties: &'a [u8],
    /// Length of the payload in bytes.
    pub payload_bytes: usize,
}

const DUP: u8 = 0b1000;
const RETAIN: u8 = 0b0001;

/// Decodes everything after the fixed header. The result is built directly in the place of
/// [`crate::packet::decode::decode`]'s result, because building a [`Publish`] and moving it costs as much as reading
/// it.
pub(super) fn decode_publish(
    flags: u8,
    mut body: Reader<'_>,
    version: ProtocolVersion,
    sender: Sender,
    length: usize,
) -> Result<Decoded<'_>, DecodeError> {
    let head = Head::decode(flags, &mut body)?;
    if version == ProtocolVersion::V5_0 {
        let properties = PropertyReader::take(&mut body, PropertySet::PUBLISH)?;
        if !properties.as_bytes().is_empty() {
            let mut publish = head.into_publish(body.take_rest());
            publish.decode_properties(properties, sender)?;
            return Ok(Decoded::Packet { packet: Packet::Publish(publish), length });
        }
    }
    if head.topic.is_empty() {
        return Err(DecodeError::TopicNameEmpty);
    }
    let publish = head.into_publish(body.take_rest());
    Ok(Decoded::Packet { packet: Packet::Publish(publish), length })
}

/// The fields before the properties.
struct Head<'a> {
    dup: bool,
    qos: QoS,
    retain: bool,
    topic: &'a str,
    packet_id: Option<PacketId>,
}

impl<'a> Head<'a> {
    #[inline]
    fn decode(flags: u8, body: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let qos = QoS::try_from(flags >> 1 & 0b11).map_err(|_| DecodeError::PublishQoS)?;
        let dup = flags & DUP != 0;
        if dup && qos == QoS::AtMostOnce {
            return Err(DecodeError::DupAtQoS0);
        }
        let topic = body.topic_name(DecodeError::TopicNameWildcard)?;
        let packet_id = match qos {
            QoS::AtMostOnce => None,
            QoS::AtLeastOnce | QoS::ExactlyOnce => Some(body.packet_id()?),
        };
        Ok(Self { dup, qos, retain: flags & RETAIN != 0, topic, packet_id })
    }

    #[inline]
    fn into_publish(self, payload: &'a [u8]) -> Publish<'a> {
        Publish {
            dup: self.dup,
            qos: self.qos,
            retain: self.retain,
            topic: self.topic,
            packet_id: self.packet_id,
            topic_alias: None,
            message_expiry: None,
            subscription_ids: Vec::new(),
            properties: Cow::Borrowed(&[]),
            payload,
        }
    }
}

impl<'a> Publish<'a> {
    #[inline(never)]
    fn decode_properties(
        &mut self,
        properties: PropertyReader<'a>,
        sender: Sender,
    ) -> Result<(), DecodeError> {
        let mut properties = properties.with_many_subscription_identifiers();
        let mut forwarded = ForwardedProperties::default();
        let mut start = 0;
        while let Some(property) = properties.next()? {
            let end = properties.position();
            match property {
                Property::TopicAlias(alias) => self.topic_alias = Some(alias),
                Property::MessageExpiryInterval(seconds) => self.message_expiry = Some(seconds),
                Property::SubscriptionIdentifier(id) if sender == Sender::Server => {
                    self.subscription_ids.push(id);
                }
                Property::SubscriptionIdentifier(_) => {
                    return Err(DecodeError::PropertyNotForSender(property.identifier()));
                }
                _ => forwarded.push(properties.as_bytes(), start, end),
            }
            start = end;
        }
        if self.topic.is_empty() && self.topic_alias.is_none() {
            return Err(DecodeError::TopicNameEmpty);
        }
        self.properties = forwarded.finish(properties.as_bytes());
        Ok(())
    }

    /// Appends the packet with its payload.
    pub fn encode(&self, out: &mut Vec<u8>, version: ProtocolVersion) {
        let head = OutgoingPublish {
            dup: self.dup,
            qos: self.qos,
            retain: self.retain,
            topic: self.topic,
            packet_id: self.packet_id,
            topic_alias: self.topic_alias,
            message_expiry: self.message_expiry,
            subscription_ids: &self.subscription_ids,
            properties: &self.properties,
            payload_bytes: self.payload.len(),
        };
        head.encode_head(out, version);
        out.extend_from_slice(self.payload);
    }
}

/// Collects the properties that a Server forwards, without copying as long as they are adjacent.
#[derive(Debug, Default)]
pub(super) struct ForwardedProperties {
    start: usize,
    end: usize,
    owned: Vec<u8>,
}

impl ForwardedProperties {
    /// Adds `all[start..end]`, which comes after everything added before.
    pub(super) fn push(&mut self, all: &[u8], start: usize, end: usize) {
        if self.end == 0 {
            (self.start, self.end) = (start, end);
        } else if self.owned.is_empty() && self.end == start {
            self.end = end;
        } else {
            if self.owned.is_empty() {
                self.owned.extend_from_slice(all.get(self.start..self.end).unwrap_or_default());
            }
            self.owned.extend_from_slice(all.get(start..end).unwrap_or_default());
        }
    }

    /// Everything that was added.
    pub(super) fn finish(self, all: &[u8]) -> Cow<'_, [u8]> {
        if self.owned.is_empty() {
            Cow::Borrowed(all.get(self.start..self.end).unwrap_or_default())
        } else {
            Cow::Owned(self.owned)
        }
    }
}

impl OutgoingPublish<'_> {
    /// Length of the whole packet with its payload, in bytes.
    #[inline]
    #[must_use]
    pub fn encoded_bytes(&self, version: ProtocolVersion) -> usize {
        let remaining = self.remaining_bytes(self.properties_bytes(version), version);
        remaining.saturating_add(1).saturating_add(writer::variable_byte_integer_length(remaining))
    }

    /// Appends everything but the payload.
    #[inline]
    pub fn encode_head(&self, out: &mut Vec<u8>, version: ProtocolVersion) {
        self.encode_front(out, version, self.payload_bytes, self.properties);
    }

    /// Appends everything except the forwarded properties and the payload, which end the packet.
    #[cold]
    pub(crate) fn encode_before_properties(&self, out: &mut Vec<u8>, version: ProtocolVersion) {
        let elsewhere = self.properties.len().saturating_add(self.payload_bytes);
        self.encode_front(out, version, elsewhere, &[]);
    }

    /// Appends the packet up to and including the forwarded properties in `forwarded`; the caller appends the
    /// remaining bytes.
    #[expect(clippy::inline_always, reason = "40 instructions of each message sent")]
    #[inline(always)]
    fn encode_front(
        &self,
        out: &mut Vec<u8>,
        version: ProtocolVersion,
        elsewhere: usize,
        forwarded: &[u8],
    ) {
        let properties_bytes = self.properties_bytes(version);
        let remaining = self.remaining_bytes(properties_bytes, version);
        out.reserve(remaining.saturating_sub(elsewhere).saturating_add(5));
        let dup = if self.dup { DUP } else { 0 };
        let retain = if self.retain { RETAIN } else { 0 };
        out.push(PacketType::Publish.first_byte() | dup | (self.qos as u8) << 1 | retain);
        writer::variable_byte_integer(out, remaining);
        writer::string(out, self.topic);
        if let Some(packet_id) = self.packet_id {
            writer::u16(out, packet_id.get());
        }
        if version < ProtocolVersion::V5_0 {
            return;
        }
        writer::variable_byte_integer(out, properties_bytes);
        if properties_bytes == 0 {
            return;
        }
        if let Some(alias) = self.topic_alias {
            Property::TopicAlias(alias).encode(out);
        }
        if let Some(seconds) = self.message_expiry {
            Property::MessageExpiryInterval(seconds).encode(out);
        }
        for id in self.subscription_ids {
            Property::SubscriptionIdentifier(*id).encode(out);
        }
        out.extend_from_slice(forwarded);
    }

    /// Length of the properties, without the length field itself.
    #[inline]
    fn properties_bytes(&self, version: ProtocolVersion) -> usize {
        if version < ProtocolVersion::V5_0 {
            return 0;
        }
        let alias = if self.topic_alias.is_some() { 3 } else { 0 };
        let expiry = if self.message_expiry.is_some() { 5 } else { 0 };
        let length = self.properties.len().saturating_add(alias).saturating_add(expiry);
        self.subscription_ids.iter().fold(length, |length, id| {
            length
                .saturating_add(1)
                .saturating_add(writer::variable_byte_integer_length(*id as usize))
        })
    }

    /// The Remaining Length.
    #[inline]
    fn remaining_bytes(&self, properties_bytes: usize, version: ProtocolVersion) -> usize {
        let packet_id = if self.packet_id.is_some() { 2 } else { 0 };
        let properties = if version < ProtocolVersion::V5_0 {
            0
        } else {
            writer::variable_byte_integer_length(properties_bytes).saturating_add(properties_bytes)
        };
        self.topic
            .len()
            .saturating_add(2)
            .saturating_add(packet_id)
            .saturating_add(properties)
            .saturating_add(self.payload_bytes)
    }
}
