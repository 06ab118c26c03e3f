//! The entry point for decoding: decodes the first packet in a buffer.

use crate::packet::{
    Packet, ProtocolVersion,
    acknowledgement::{Acknowledgement, AcknowledgementKind, Puback, Pubcomp, Pubrec, Pubrel},
    auth::Auth,
    connack::Connack,
    connect::Connect,
    disconnect::Disconnect,
    error::DecodeError,
    fixed_header::{FixedHeader, PacketType},
    publish::decode_publish,
    reader::Reader,
    reason_code::ReasonCode,
    subscribe::{Suback, Subscribe},
    unsubscribe::{Unsuback, Unsubscribe},
};

/// The result of decoding the front of a buffer.
#[derive(Debug, Clone, PartialEq)]
pub enum Decoded<'a> {
    /// A complete packet and the number of bytes it took.
    Packet {
        /// The packet.
        packet: Packet<'a>,
        /// Its length with the fixed header, in bytes.
        length: usize,
    },
    /// More input is needed.
    Incomplete {
        /// Length of the whole packet, as far as known; always more than the bytes available.
        needed: usize,
    },
}

/// Who sent the bytes. All packets can be decoded in both directions; the session refuses packets of the wrong
/// direction, such as a CONNACK from a Client. Properties of the wrong direction are refused here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sender {
    /// Client to Server.
    Client,
    /// Server to Client.
    Server,
}

/// What the decoder needs to know about the Network Connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeContext {
    /// The protocol version. CONNECT carries its own, so before it any value will do.
    pub version: ProtocolVersion,
    /// The largest packet accepted, including its fixed header. [MQTT-3.1.2-24]
    pub max_packet_bytes: u32,
    /// The direction.
    pub sender: Sender,
}

/// Decodes the packet at the front of `input`. Errors that are visible in the fixed header, such as a packet that is
/// too large, are reported before the rest of the packet arrives.
#[inline]
pub fn decode<'a>(input: &'a [u8], context: &DecodeContext) -> Result<Decoded<'a>, DecodeError> {
    let Some(header) = FixedHeader::decode(input, context.version)? else {
        return Ok(Decoded::Incomplete { needed: input.len().saturating_add(1).max(2) });
    };
    // At most 268,435,460.
    let length = header.header_bytes.saturating_add(header.remaining_bytes);
    if length > context.max_packet_bytes as usize {
        let bytes = u32::try_from(length).unwrap_or(u32::MAX);
        return Err(DecodeError::PacketTooLarge { bytes, max_bytes: context.max_packet_bytes });
    }
    let Some(body) = input.get(header.header_bytes..length) else {
        return Ok(Decoded::Incomplete { needed: length });
    };
    let DecodeContext { version, sender, .. } = *context;
    let mut body = Reader::new(body);
    let is_connect = header.packet_type == PacketType::Connect;
    if !header.is_minimal && version == ProtocolVersion::V5_0 && !is_connect {
        return Err(DecodeError::IntegerNotMinimal);
    }
    // PUBLISH and its acknowledgements, which are nearly all packets, are built in the caller's place, because
    // building a packet here and moving it costs more than decoding it.
    match header.packet_type {
        PacketType::Publish => decode_publish(header.flags, body, version, sender, length),
        PacketType::Puback if body.remaining() == 2 => {
            let inner = Acknowledgement::new(body.packet_id()?, ReasonCode::Success);
            Ok(Decoded::Packet { packet: Packet::Puback(Puback(inner)), length })
        }
        PacketType::Pubrec if body.remaining() == 2 => {
            let inner = Acknowledgement::new(body.packet_id()?, ReasonCode::Success);
            Ok(Decoded::Packet { packet: Packet::Pubrec(Pubrec(inner)), length })
        }
        PacketType::Pubrel if body.remaining() == 2 => {
            let inner = Acknowledgement::new(body.packet_id()?, ReasonCode::Success);
            Ok(Decoded::Packet { packet: Packet::Pubrel(Pubrel(inner)), length })
        }
        PacketType::Pubcomp if body.remaining() == 2 => {
            let inner = Acknowledgement::new(body.packet_id()?, ReasonCode::Success);
            Ok(Decoded::Packet { packet: Packet::Pubcomp(Pubcomp(inner)), length })
        }
        _ => {
            let packet = decode_rare(&header, body, *context)?;
            Ok(Decoded::Packet { packet, length })
        }
    }
}

#[inline(never)]
fn decode_rare<'a>(
    header: &FixedHeader,
    body: Reader<'a>,
    context: DecodeContext,
) -> Result<Packet<'a>, DecodeError> {
    let DecodeContext { version, sender, .. } = context;
    let acknowledgement = |kind| Acknowledgement::decode(kind, body, version);
    Ok(match header.packet_type {
        PacketType::Connect => {
            let connect = Connect::decode(body)?;
            if !header.is_minimal && connect.version == ProtocolVersion::V5_0 {
                return Err(DecodeError::IntegerNotMinimal);
            }
            Packet::Connect(Box::new(connect))
        }
        PacketType::Connack => Packet::Connack(Box::new(Connack::decode(body, version)?)),
        PacketType::Subscribe => Packet::Subscribe(Subscribe::decode(body, version)?),
        PacketType::Suback => Packet::Suback(Suback::decode(body, version)?),
        PacketType::Unsubscribe => Packet::Unsubscribe(Unsubscribe::decode(body, version)?),
        PacketType::Unsuback => Packet::Unsuback(Unsuback::decode(body, version)?),
        PacketType::Pingreq => body.finish().map(|()| Packet::Pingreq)?,
        PacketType::Pingresp => body.finish().map(|()| Packet::Pingresp)?,
        PacketType::Disconnect => Packet::Disconnect(Disconnect::decode(body, version, sender)?),
        PacketType::Auth => Packet::Auth(Auth::decode(body)?),
        PacketType::Puback => Packet::Puback(Puback(acknowledgement(AcknowledgementKind::Puback)?)),
        PacketType::Pubrec => Packet::Pubrec(Pubrec(acknowledgement(AcknowledgementKind::Pubrec)?)),
        PacketType::Pubrel => Packet::Pubrel(Pubrel(acknowledgement(AcknowledgementKind::Pubrel)?)),
        PacketType::Pubcomp => {
            Packet::Pubcomp(Pubcomp(acknowledgement(AcknowledgementKind::Pubcomp)?))
        }
        PacketType::Publish => return Err(DecodeError::ReservedPacketType(0)),
    })
}
