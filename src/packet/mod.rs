//! The wire format of MQTT 3.1, 3.1.1 and 5.0: converts bytes to [`Packet`] and back.
//!
//! One model serves all versions (5.0 is the superset); the version is an argument of decode and encode. Decoding
//! borrows from the input and is strict: what the specification calls malformed is refused. Nothing here knows about
//! connections or sessions, performs IO, or panics on any input.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

pub mod acknowledgement;
pub(crate) mod auth;
pub(crate) mod connack;
pub mod connect;
pub mod decode;
pub mod disconnect;
pub(crate) mod error;
pub(crate) mod fixed_header;
pub(crate) mod plain_publish;
pub mod property;
pub mod publish;
pub(crate) mod reader;
pub mod reason_code;
pub mod subscribe;
pub mod unsubscribe;
pub(crate) mod writer;

use std::{fmt, num::NonZeroU16};

use acknowledgement::{Puback, Pubcomp, Pubrec, Pubrel};
use auth::Auth;
use connack::Connack;
use connect::Connect;
use disconnect::Disconnect;
use fixed_header::PacketType;
use publish::Publish;
use subscribe::{Suback, Subscribe};
use unsubscribe::{Unsuback, Unsubscribe};

/// The protocol version of a Network Connection, ordered from oldest to newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProtocolVersion {
    /// MQTT 3.1: protocol name `MQIsdp`, level 3.
    V3_1,
    /// MQTT 3.1.1: protocol name `MQTT`, level 4.
    V3_1_1,
    /// MQTT 5.0: protocol name `MQTT`, level 5.
    V5_0,
}

impl ProtocolVersion {
    /// Whether its packets have properties: since 5.0.
    #[inline]
    #[must_use]
    pub(crate) const fn has_properties(self) -> bool {
        matches!(self, Self::V5_0)
    }
}

impl fmt::Display for ProtocolVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::V3_1 => "3.1",
            Self::V3_1_1 => "3.1.1",
            Self::V5_0 => "5.0",
        })
    }
}

/// Quality of Service. [MQTT-4.3]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum QoS {
    /// QoS 0.
    #[default]
    AtMostOnce = 0,
    /// QoS 1.
    AtLeastOnce = 1,
    /// QoS 2.
    ExactlyOnce = 2,
}

/// Error for a QoS of 3 or above. [MQTT-3.3.1-4]
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a QoS")]
pub struct QoSOutOfRange(pub(crate) u8);

impl TryFrom<u8> for QoS {
    type Error = QoSOutOfRange;

    #[inline]
    fn try_from(value: u8) -> Result<Self, QoSOutOfRange> {
        match value {
            0 => Ok(Self::AtMostOnce),
            1 => Ok(Self::AtLeastOnce),
            2 => Ok(Self::ExactlyOnce),
            other => Err(QoSOutOfRange(other)),
        }
    }
}

/// A Packet Identifier: never zero. [MQTT-2.2.1-3]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketId(pub NonZeroU16);

/// Error for a Packet Identifier of zero. [MQTT-2.2.1-3]
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("zero is not a packet identifier")]
pub struct PacketIdZero;

impl PacketId {
    /// The number.
    #[inline]
    #[must_use]
    pub(crate) fn get(self) -> u16 {
        self.0.get()
    }

    /// The next identifier; 1 follows the largest.
    #[inline]
    #[must_use]
    pub(crate) fn next(self) -> Self {
        Self(self.0.checked_add(1).unwrap_or(NonZeroU16::MIN))
    }
}

impl TryFrom<u16> for PacketId {
    type Error = PacketIdZero;

    #[inline]
    fn try_from(value: u16) -> Result<Self, PacketIdZero> {
        NonZeroU16::new(value).map(Self).ok_or(PacketIdZero)
    }
}

/// One Control Packet, borrowing from the bytes it was decoded from.
#[derive(Debug, Clone, PartialEq)]
pub enum Packet<'a> {
    /// Connection request, Client to Server.
    Connect(Box<Connect<'a>>),
    /// Connection acknowledgement, Server to Client.
    Connack(Box<Connack<'a>>),
    /// An Application Message, both directions.
    Publish(Publish<'a>),
    /// QoS 1 acknowledgement.
    Puback(Puback<'a>),
    /// QoS 2, part 1.
    Pubrec(Pubrec<'a>),
    /// QoS 2, part 2.
    Pubrel(Pubrel<'a>),
    /// QoS 2, part 3.
    Pubcomp(Pubcomp<'a>),
    /// Subscribe request.
    Subscribe(Subscribe<'a>),
    /// Subscribe acknowledgement.
    Suback(Suback<'a>),
    /// Unsubscribe request.
    Unsubscribe(Unsubscribe<'a>),
    /// Unsubscribe acknowledgement.
    Unsuback(Unsuback<'a>),
    /// Keep Alive request.
    Pingreq,
    /// Keep Alive response.
    Pingresp,
    /// The sender is about to close the Network Connection.
    Disconnect(Disconnect<'a>),
    /// Enhanced authentication exchange, 5.0 only.
    Auth(Auth<'a>),
}

impl Packet<'_> {
    /// Appends the packet with its fixed header. Parts that do not exist in `version` are left out.
    ///
    /// To respect the receiver's Maximum Packet Size, check how much `out` grew; if it grew too much, truncate `out`,
    /// clear Reason String and User Properties, and encode again. [MQTT-3.1.2-24] [MQTT-3.2.2-19]
    pub fn encode(&self, out: &mut Vec<u8>, version: ProtocolVersion) {
        match self {
            Self::Connect(connect) => connect.encode(out, version),
            Self::Connack(connack) => connack.encode(out, version),
            Self::Publish(publish) => publish.encode(out, version),
            Self::Puback(puback) => puback.encode(out, version),
            Self::Pubrec(pubrec) => pubrec.encode(out, version),
            Self::Pubrel(pubrel) => pubrel.encode(out, version),
            Self::Pubcomp(pubcomp) => pubcomp.encode(out, version),
            Self::Subscribe(subscribe) => subscribe.encode(out, version),
            Self::Suback(suback) => suback.encode(out, version),
            Self::Unsubscribe(unsubscribe) => unsubscribe.encode(out, version),
            Self::Unsuback(unsuback) => unsuback.encode(out, version),
            Self::Pingreq => encode_pingreq(out),
            Self::Pingresp => encode_pingresp(out),
            Self::Disconnect(disconnect) => disconnect.encode(out, version),
            Self::Auth(auth) => auth.encode(out, version),
        }
    }
}

/// Appends PINGREQ. [MQTT-3.12]
pub(crate) fn encode_pingreq(out: &mut Vec<u8>) {
    out.extend_from_slice(&[PacketType::Pingreq.first_byte(), 0]);
}

/// Appends PINGRESP. [MQTT-3.13]
pub(crate) fn encode_pingresp(out: &mut Vec<u8>) {
    out.extend_from_slice(&[PacketType::Pingresp.first_byte(), 0]);
}

#[cfg(test)]
mod tests;
