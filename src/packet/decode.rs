//! The one entry to decoding: the first packet in a buffer.

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

/// What is at the front of a buffer.
#[derive(Debug, Clone, PartialEq)]
pub enum Decoded<'a> {
    /// A whole packet and the number of bytes it took.
    Packet {
        /// The packet.
        packet: Packet<'a>,
        /// Its length with the fixed header, in bytes.
        length: usize,
    },
    /// More input is needed.
    Incomplete {
        /// Bytes that the whole packet takes, as far as known yet; always more than are there.
        needed: usize,
    },
}

/// Who sent the bytes. Packets decode in both directions (that a Server receives no CONNACK is for
/// the session to say); properties of the wrong direction are refused here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sender {
    /// Client to Server.
    Client,
    /// Server to Client.
    Server,
}

/// What decoding has to know about the Network Connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeContext {
    /// The version spoken. CONNECT carries its own; before it, anything.
    pub version: ProtocolVersion,
    /// The largest packet taken, with its fixed header. [MQTT-3.1.2-24]
    pub max_packet_bytes: u32,
    /// The direction.
    pub sender: Sender,
}

/// Decodes the packet at the front of `input`. What shows in the fixed header, as a packet that is
/// too large, is reported before the rest of the packet is there.
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
    // PUBLISH and its acknowledgements, nearly all packets there are, are put together where the
    // caller wants them: to build a packet here and move it out costs more than to decode it.
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
