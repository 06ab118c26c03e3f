//! The fixed header: packet type, flags, Remaining Length. [MQTT-2.1]

use crate::packet::{
    ProtocolVersion,
    error::DecodeError,
    reader::{VariableByteInteger, variable_byte_integer},
};

/// The types of Control Packets. [MQTT-2.1.2]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
// The names are those of table 2-1 of the specification.
pub(crate) enum PacketType {
    Connect = 1,
    Connack = 2,
    Publish = 3,
    Puback = 4,
    Pubrec = 5,
    Pubrel = 6,
    Pubcomp = 7,
    Subscribe = 8,
    Suback = 9,
    Unsubscribe = 10,
    Unsuback = 11,
    Pingreq = 12,
    Pingresp = 13,
    Disconnect = 14,
    Auth = 15,
}

impl PacketType {
    /// The type in the upper half of the first byte of a packet; `None` for the reserved type 0.
    #[must_use]
    pub(crate) fn from_first_byte(byte: u8) -> Option<Self> {
        Some(match byte >> 4 {
            1 => Self::Connect,
            2 => Self::Connack,
            3 => Self::Publish,
            4 => Self::Puback,
            5 => Self::Pubrec,
            6 => Self::Pubrel,
            7 => Self::Pubcomp,
            8 => Self::Subscribe,
            9 => Self::Suback,
            10 => Self::Unsubscribe,
            11 => Self::Unsuback,
            12 => Self::Pingreq,
            13 => Self::Pingresp,
            14 => Self::Disconnect,
            15 => Self::Auth,
            _ => return None,
        })
    }

    /// The first byte of a packet of this type other than PUBLISH, with the flags it must carry.
    /// [MQTT-2.1.3-1]
    #[must_use]
    pub(crate) const fn first_byte(self) -> u8 {
        let flags = match self {
            Self::Pubrel | Self::Subscribe | Self::Unsubscribe => 0b0010,
            _ => 0,
        };
        ((self as u8) << 4) | flags
    }
}

/// A decoded fixed header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FixedHeader {
    /// The type.
    pub(crate) packet_type: PacketType,
    /// The lower half of the first byte, checked for all types but PUBLISH.
    pub(crate) flags: u8,
    /// Length of the fixed header itself, two to five bytes.
    pub(crate) header_bytes: usize,
    /// Length of what follows.
    pub(crate) remaining_bytes: usize,
    /// Whether the Remaining Length is in its shortest form, which 5.0 demands. [MQTT-1.5.5-1]
    pub(crate) is_minimal: bool,
}

impl FixedHeader {
    /// The fixed header at the front of `input`; `None` if more bytes are needed.
    #[inline]
    pub(crate) fn decode(
        input: &[u8],
        version: ProtocolVersion,
    ) -> Result<Option<Self>, DecodeError> {
        let Some((first, rest)) = input.split_first() else { return Ok(None) };
        let (first, rest) = (*first, rest);
        let packet_type = PacketType::from_first_byte(first)
            .filter(|found| *found != PacketType::Auth || version == ProtocolVersion::V5_0)
            .ok_or(DecodeError::ReservedPacketType(first >> 4))?;
        check_flags(packet_type, first, version)?;
        match variable_byte_integer(rest)? {
            VariableByteInteger::Incomplete => Ok(None),
            VariableByteInteger::Whole { value, length, is_minimal } => Ok(Some(Self {
                packet_type,
                flags: first & 0x0F,
                header_bytes: length.saturating_add(1),
                remaining_bytes: value as usize,
                is_minimal,
            })),
        }
    }
}

/// MQTT 3.1 lets a Client set DUP where the packet itself has QoS 1: PUBREL, SUBSCRIBE and
/// UNSUBSCRIBE.
#[inline]
fn check_flags(
    packet_type: PacketType,
    first: u8,
    version: ProtocolVersion,
) -> Result<(), DecodeError> {
    const DUP: u8 = 0b1000;
    let ignored = match packet_type {
        PacketType::Publish => return Ok(()),
        PacketType::Pubrel | PacketType::Subscribe | PacketType::Unsubscribe
            if version == ProtocolVersion::V3_1 =>
        {
            DUP
        }
        _ => 0,
    };
    if first & !ignored == packet_type.first_byte() {
        Ok(())
    } else {
        Err(DecodeError::ReservedFlags(first & 0x0F))
    }
}
