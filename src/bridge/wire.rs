//! The codec as a client sees it: packets of a Server come in, packets of a Client go out.

use crate::packet::acknowledgement::{AcknowledgementKind, encode_acknowledgement};
use crate::packet::connect::Connect;
use crate::packet::decode::{DecodeContext, Decoded, Sender, decode};
use crate::packet::disconnect::Disconnect;
use crate::packet::publish::OutgoingPublish;
use crate::packet::reason_code::ReasonCode;
use crate::packet::subscribe::{Subscribe, SubscriptionOptions};
use crate::packet::unsubscribe::Unsubscribe;
use crate::packet::{Packet, PacketId, ProtocolVersion, QoS, encode_pingreq};

/// The packet at the front of what a Server sent, and its length; `None` if more is needed.
///
/// # Errors
/// What is wrong with the bytes, in words.
pub fn next(
    bytes: &[u8],
    version: ProtocolVersion,
    max_packet_bytes: u32,
) -> Result<Option<(Packet<'_>, usize)>, String> {
    let context = DecodeContext { version, max_packet_bytes, sender: Sender::Server };
    match decode(bytes, &context) {
        Ok(Decoded::Packet { packet, length }) => Ok(Some((packet, length))),
        Ok(Decoded::Incomplete { .. }) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// A Packet Identifier; `None` for zero.
#[must_use]
pub fn packet_id(number: u16) -> Option<PacketId> {
    PacketId::try_from(number).ok()
}

/// Appends a CONNECT.
pub fn connect(output: &mut Vec<u8>, connect: &Connect<'_>) {
    connect.encode(output, connect.version);
}

/// Appends a PUBLISH with its payload.
pub fn publish(
    output: &mut Vec<u8>,
    version: ProtocolVersion,
    packet: &OutgoingPublish<'_>,
    payload: &[u8],
) {
    packet.encode_head(output, version);
    output.extend_from_slice(payload);
}

/// Appends a PUBLISH of the bridge itself: QoS 0, no properties.
pub fn publish_own(
    output: &mut Vec<u8>,
    version: ProtocolVersion,
    topic: &str,
    payload: &[u8],
    retain: bool,
) {
    let packet = OutgoingPublish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain,
        topic,
        packet_id: None,
        topic_alias: None,
        message_expiry: None,
        subscription_ids: &[],
        properties: &[],
        payload_bytes: payload.len(),
    };
    publish(output, version, &packet, payload);
}

/// Appends a PUBACK.
pub fn puback(output: &mut Vec<u8>, version: ProtocolVersion, id: PacketId, reason: ReasonCode) {
    encode_acknowledgement(output, AcknowledgementKind::Puback, id, reason, version);
}

/// Appends a PUBREC.
pub fn pubrec(output: &mut Vec<u8>, version: ProtocolVersion, id: PacketId, reason: ReasonCode) {
    encode_acknowledgement(output, AcknowledgementKind::Pubrec, id, reason, version);
}

/// Appends a PUBREL.
pub fn pubrel(output: &mut Vec<u8>, version: ProtocolVersion, id: PacketId, reason: ReasonCode) {
    encode_acknowledgement(output, AcknowledgementKind::Pubrel, id, reason, version);
}

/// Appends a PUBCOMP.
pub fn pubcomp(output: &mut Vec<u8>, version: ProtocolVersion, id: PacketId) {
    let kind = AcknowledgementKind::Pubcomp;
    encode_acknowledgement(output, kind, id, ReasonCode::Success, version);
}

/// Appends a SUBSCRIBE.
pub fn subscribe(
    output: &mut Vec<u8>,
    version: ProtocolVersion,
    packet_id: PacketId,
    filters: &[(String, SubscriptionOptions)],
) {
    let packet = Subscribe {
        packet_id,
        subscription_id: None,
        user_properties: Vec::new(),
        filters: filters.iter().map(|(filter, options)| (filter.as_str(), *options)).collect(),
    };
    packet.encode(output, version);
}

/// Appends an UNSUBSCRIBE.
pub fn unsubscribe(
    output: &mut Vec<u8>,
    version: ProtocolVersion,
    packet_id: PacketId,
    filters: &[String],
) {
    let packet = Unsubscribe {
        packet_id,
        user_properties: Vec::new(),
        filters: filters.iter().map(String::as_str).collect(),
    };
    packet.encode(output, version);
}

/// Appends a PINGREQ.
pub fn pingreq(output: &mut Vec<u8>) {
    encode_pingreq(output);
}

/// Appends a DISCONNECT: a normal one, after which no Will Message is published. [MQTT-3.14.4-3]
pub fn disconnect(output: &mut Vec<u8>, version: ProtocolVersion) {
    Disconnect::new(ReasonCode::Success).encode(output, version);
}
