//! Logs every packet at `trace`: direction, type, identifiers and sizes. No payloads, passwords or properties.
//!
//! It reads the bytes a second time, after they were handled or before they are written, and only if the level is
//! enabled; otherwise it costs one check of a flag per buffer.

use std::io::IoSlice;

use tracing::{Level, enabled, trace};

use crate::broker::connection::ClientConnection;
use crate::net::client_text::shown;
use crate::packet::fixed_header::PacketType;
use crate::session::outbox::Outbox;

/// The target of the lines: `modules = { "petrel::packet" = "trace" }` enables them.
const TARGET: &str = "petrel::packet";

/// Whether the level is enabled.
#[inline]
pub(crate) fn is_on() -> bool {
    enabled!(target: TARGET, Level::TRACE)
}

/// Logs each packet in `bytes`, which the Client sent and which were handled.
#[cold]
pub(crate) fn write_received(connection: &ClientConnection, bytes: &[u8]) {
    write(connection, "received", bytes);
}

/// Logs each packet that is about to be sent.
#[cold]
pub(crate) fn write_sent(connection: &ClientConnection, packets: &Outbox) {
    let mut bytes = Vec::with_capacity(packets.bytes());
    while bytes.len() < packets.bytes() {
        let mut slices = [IoSlice::new(&[]); 64];
        let filled = packets.slices(bytes.len(), &mut slices);
        slices.iter().take(filled).for_each(|slice| bytes.extend_from_slice(slice));
    }
    write(connection, "sent", &bytes);
}

fn write(connection: &ClientConnection, direction: &str, mut bytes: &[u8]) {
    let client_id = connection.session().map_or("", |session| &**session.client_id());
    let client_id = &*shown(client_id);
    while let Some((packet, rest)) = Packet::split(bytes) {
        bytes = rest;
        let Packet { packet_type, flags, body, size } = packet;
        let (packet, is_publish) = (name(packet_type), packet_type == PacketType::Publish);
        match Publish::read(flags, body).filter(|_| is_publish) {
            Some(Publish { topic, packet_id, rest_bytes }) => trace!(
                target: TARGET, client_id, packet, size, packet_id, topic = &*shown(topic),
                qos = qos(flags), dup = flags & 8 != 0, retain = flags & 1 != 0, rest_bytes, "{direction}"
            ),
            None => {
                let packet_id = identifier(packet_type, body);
                trace!(target: TARGET, client_id, packet, size, packet_id, "{direction}");
            }
        }
    }
}

/// One packet, not decoded.
struct Packet<'a> {
    packet_type: PacketType,
    flags: u8,
    body: &'a [u8],
    size: usize,
}

impl<'a> Packet<'a> {
    fn split(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (first, rest) = bytes.split_first()?;
        let length_bytes = rest.iter().take(4).position(|byte| byte & 0x80 == 0)? + 1;
        let (length, rest) = rest.split_at_checked(length_bytes)?;
        let fold = |sum: usize, byte: &u8| sum << 7 | usize::from(byte & 0x7F);
        let length = length.iter().rev().fold(0, fold);
        let (body, rest) = rest.split_at_checked(length)?;
        let packet_type = PacketType::from_first_byte(*first)?;
        let size = 1 + length_bytes + length;
        Some((Self { packet_type, flags: first & 0x0F, body, size }, rest))
    }
}

/// The logged fields of a PUBLISH.
struct Publish<'a> {
    topic: &'a str,
    packet_id: Option<u16>,
    /// Properties and payload.
    rest_bytes: usize,
}

impl<'a> Publish<'a> {
    fn read(flags: u8, body: &'a [u8]) -> Option<Self> {
        let (length, rest) = body.split_first_chunk::<2>()?;
        let (topic, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        let topic = std::str::from_utf8(topic).ok()?;
        if qos(flags) == 0 {
            return Some(Self { topic, packet_id: None, rest_bytes: rest.len() });
        }
        let (packet_id, rest) = rest.split_first_chunk::<2>()?;
        Some(Self {
            topic,
            packet_id: Some(u16::from_be_bytes(*packet_id)),
            rest_bytes: rest.len(),
        })
    }
}

const fn qos(flags: u8) -> u8 {
    (flags & 0b110) >> 1
}

/// The Packet Identifier, for types that begin with it.
fn identifier(packet_type: PacketType, body: &[u8]) -> Option<u16> {
    let has_none = matches!(
        packet_type,
        PacketType::Connect
            | PacketType::Connack
            | PacketType::Publish
            | PacketType::Pingreq
            | PacketType::Pingresp
            | PacketType::Disconnect
            | PacketType::Auth
    );
    let bytes = body.first_chunk::<2>().filter(|_| !has_none)?;
    Some(u16::from_be_bytes(*bytes))
}

const fn name(packet_type: PacketType) -> &'static str {
    match packet_type {
        PacketType::Connect => "CONNECT",
        PacketType::Connack => "CONNACK",
        PacketType::Publish => "PUBLISH",
        PacketType::Puback => "PUBACK",
        PacketType::Pubrec => "PUBREC",
        PacketType::Pubrel => "PUBREL",
        PacketType::Pubcomp => "PUBCOMP",
        PacketType::Subscribe => "SUBSCRIBE",
        PacketType::Suback => "SUBACK",
        PacketType::Unsubscribe => "UNSUBSCRIBE",
        PacketType::Unsuback => "UNSUBACK",
        PacketType::Pingreq => "PINGREQ",
        PacketType::Pingresp => "PINGRESP",
        PacketType::Disconnect => "DISCONNECT",
        PacketType::Auth => "AUTH",
    }
}

#[cfg(test)]
mod tests {
    use super::{Packet, Publish, identifier};
    use crate::packet::fixed_header::PacketType;

    #[test]
    fn packets_are_told_apart() {
        let bytes = b"\x32\x07\x00\x01a\x00\x07hi\x40\x02\x00\x07\xc0\x00\x30\x80";
        let (publish, rest) = Packet::split(bytes).unwrap();
        assert_eq!((publish.packet_type, publish.size), (PacketType::Publish, 9));
        let read = Publish::read(publish.flags, publish.body).unwrap();
        assert_eq!((read.topic, read.packet_id, read.rest_bytes), ("a", Some(7), 2));
        let (puback, rest) = Packet::split(rest).unwrap();
        assert_eq!(identifier(puback.packet_type, puback.body), Some(7));
        let (pingreq, rest) = Packet::split(rest).unwrap();
        assert_eq!((pingreq.packet_type, pingreq.size), (PacketType::Pingreq, 2));
        assert!(Packet::split(rest).is_none() && Packet::split(b"").is_none());
    }
}
