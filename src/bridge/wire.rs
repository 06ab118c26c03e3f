//! The codec for the client side: decodes packets of a Server, encodes packets of a Client.

use crate::packet::acknowledgement::{
    Acknowledgement, AcknowledgementKind, Puback, Pubcomp, Pubrec, encode_acknowledgement,
};
use crate::packet::connect::Connect;
use crate::packet::decode::{DecodeContext, Decoded, Sender, decode};
use crate::packet::disconnect::Disconnect;
use crate::packet::publish::OutgoingPublish;
use crate::packet::reason_code::ReasonCode;
use crate::packet::subscribe::{Suback, Subscribe, SubscriptionOptions};
use crate::packet::unsubscribe::Unsubscribe;
use crate::packet::{Packet, PacketId, ProtocolVersion, encode_pingreq};

/// The packet at the front of input from a Server, and its length; `None` if more is needed.
///
/// # Errors
/// What is wrong with the bytes, in words.
pub(crate) fn next(
    bytes: &[u8],
    version: ProtocolVersion,
    max_packet_bytes: u32,
) -> Result<Option<(Packet<'_>, usize)>, String> {
    let context = DecodeContext { version, max_packet_bytes, sender: Sender::Server };
    match decode(bytes, &context) {
        Ok(Decoded::Packet { packet, length }) => Ok(Some((packet, length))),
        Ok(Decoded::Incomplete { .. }) => Ok(None),
        Err(error) => lenient(bytes, version).map(Some).ok_or_else(|| error.to_string()),
    }
}

/// Decodes a 3.x answer with a Reason Code that exists only in 5.0, which some brokers send. The packet is complete:
/// its length was checked before its content.
fn lenient(bytes: &[u8], version: ProtocolVersion) -> Option<(Packet<'_>, usize)> {
    if version == ProtocolVersion::V5_0 {
        return early_refusal(bytes);
    }
    let [first, length @ 0..=0x7F, high, low, ref rest @ ..] = *bytes else { return None };
    let packet_id = packet_id(u16::from_be_bytes([high, low]))?;
    let reasons = rest.get(..usize::from(length).checked_sub(2)?)?;
    let is_failure = |reason: &u8| *reason >= ReasonCode::UnspecifiedError as u8;
    let acknowledgement = || {
        let reason = match reasons.first().is_some_and(is_failure) {
            true => ReasonCode::UnspecifiedError,
            false => ReasonCode::Success,
        };
        Acknowledgement::new(packet_id, reason)
    };
    let packet = match first {
        0x40 => Packet::Puback(Puback(acknowledgement())),
        0x50 => Packet::Pubrec(Pubrec(acknowledgement())),
        0x70 => Packet::Pubcomp(Pubcomp(acknowledgement())),
        0x90 if !reasons.is_empty() => {
            let reason = |reason: &u8| match is_failure(reason) {
                true => Some(ReasonCode::UnspecifiedError),
                false => ReasonCode::from_u8(*reason).filter(|reason| (*reason as u8) <= 2),
            };
            let reasons = reasons.iter().map(reason).collect::<Option<Vec<_>>>()?;
            Packet::Suback(Suback {
                packet_id,
                reason_string: None,
                user_properties: Vec::new(),
                reasons,
            })
        }
        _ => return None,
    };
    Some((packet, 2 + usize::from(length)))
}

/// A Packet Identifier; `None` for zero.
#[must_use]
pub(crate) fn packet_id(number: u16) -> Option<PacketId> {
    PacketId::try_from(number).ok()
}

/// Appends a CONNECT.
pub(crate) fn connect(output: &mut Vec<u8>, connect: &Connect<'_>) {
    connect.encode(output, connect.version);
}

/// Appends a PUBLISH with its payload.
pub(crate) fn publish(
    output: &mut Vec<u8>,
    version: ProtocolVersion,
    packet: &OutgoingPublish<'_>,
    payload: &[u8],
) {
    packet.encode_head(output, version);
    output.extend_from_slice(payload);
}

/// Appends a PUBACK.
pub(crate) fn puback(
    output: &mut Vec<u8>,
    version: ProtocolVersion,
    id: PacketId,
    reason: ReasonCode,
) {
    encode_acknowledgement(output, AcknowledgementKind::Puback, id, reason, version);
}

/// Appends a PUBREC.
pub(crate) fn pubrec(
    output: &mut Vec<u8>,
    version: ProtocolVersion,
    id: PacketId,
    reason: ReasonCode,
) {
    encode_acknowledgement(output, AcknowledgementKind::Pubrec, id, reason, version);
}

/// Appends a PUBREL.
pub(crate) fn pubrel(
    output: &mut Vec<u8>,
    version: ProtocolVersion,
    id: PacketId,
    reason: ReasonCode,
) {
    encode_acknowledgement(output, AcknowledgementKind::Pubrel, id, reason, version);
}

/// Appends a PUBCOMP.
pub(crate) fn pubcomp(output: &mut Vec<u8>, version: ProtocolVersion, id: PacketId) {
    let kind = AcknowledgementKind::Pubcomp;
    encode_acknowledgement(output, kind, id, ReasonCode::Success, version);
}

/// Appends a SUBSCRIBE.
pub(crate) fn subscribe(
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
pub(crate) fn unsubscribe(
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
pub(crate) fn pingreq(output: &mut Vec<u8>) {
    encode_pingreq(output);
}

/// Appends a DISCONNECT: a normal one, after which no Will Message is published. [MQTT-3.14.4-3]
pub(crate) fn disconnect(output: &mut Vec<u8>, version: ProtocolVersion) {
    Disconnect::new(ReasonCode::Success).encode(output, version);
}

/// A broker that does not support 5.0 refuses with a 3.1.1 packet. [MQTT311-3.1.2-2]
fn early_refusal(bytes: &[u8]) -> Option<(Packet<'_>, usize)> {
    let [0x20, 2, _, 1..=5, ..] = *bytes else { return None };
    let version = ProtocolVersion::V3_1_1;
    let context = DecodeContext { version, max_packet_bytes: u32::MAX, sender: Sender::Server };
    match decode(bytes, &context) {
        Ok(Decoded::Packet { packet, length }) => Some((packet, length)),
        Ok(Decoded::Incomplete { .. }) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_that_3x_does_not_know_is_a_failure() {
        let read = |bytes: &'static [u8]| next(bytes, ProtocolVersion::V3_1_1, u32::MAX);
        let (suback, length) = read(&[0x90, 4, 0, 1, 1, 0x87, 9]).unwrap().unwrap();
        let Packet::Suback(suback) = suback else { panic!("{suback:?}") };
        assert_eq!(suback.reasons, [ReasonCode::GrantedQoS1, ReasonCode::UnspecifiedError]);
        assert_eq!(length, 6);
        let (puback, length) = read(&[0x40, 3, 0, 1, 0x80]).unwrap().unwrap();
        let Packet::Puback(puback) = puback else { panic!("{puback:?}") };
        assert_eq!((puback.0.reason, length), (ReasonCode::UnspecifiedError, 5));
        assert!(read(&[0x40, 3, 0, 1]).unwrap().is_none());
        assert!(read(&[0x90, 3, 0, 1, 3]).is_err());
        assert!(read(&[0x40, 3, 0, 0, 0x80]).is_err());
        assert!(next(&[0x90, 4, 0, 1, 0, 0x7F], ProtocolVersion::V5_0, u32::MAX).is_err());
    }

    #[test]
    fn a_refusal_of_a_broker_that_does_not_speak_5_is_understood() {
        let read = next(&[0x20, 2, 0, 1], ProtocolVersion::V5_0, u32::MAX);
        let (connack, length) = read.unwrap().unwrap();
        let Packet::Connack(connack) = connack else { panic!("{connack:?}") };
        assert_eq!((connack.reason, length), (ReasonCode::UnsupportedProtocolVersion, 4));
        assert!(next(&[0x20, 2, 0, 6], ProtocolVersion::V5_0, u32::MAX).is_err());
    }
}
