//! The few packets a load generator needs, laid out for speed: PUBLISH from a template, acknowledgements of four bytes,
//! and an iterator over the packets in a read buffer that looks only at what is counted.
//!
//! Every payload of at least [`STAMP_BYTES`] opens with a stamp: stream, sequence number and time.

use crate::bench::target::Target;
use crate::packet::{ProtocolVersion, QoS};

/// Bytes of the stamp that opens a payload: stream (4), sequence number (8), nanoseconds since the start (8).
pub(super) const STAMP_BYTES: usize = 20;

/// Which message this is and when it was (to be) sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    /// One publisher and topic.
    pub(super) stream: u32,
    /// Counts the messages of the stream from zero.
    pub(super) sequence: u64,
    /// Nanoseconds since the generator started.
    pub(super) time: u64,
}

impl Stamp {
    fn write(self, payload: &mut [u8]) {
        if let Some((stream, rest)) = payload.split_first_chunk_mut::<4>()
            && let Some((sequence, rest)) = rest.split_first_chunk_mut::<8>()
            && let Some((time, _)) = rest.split_first_chunk_mut::<8>()
        {
            *stream = self.stream.to_be_bytes();
            *sequence = self.sequence.to_be_bytes();
            *time = self.time.to_be_bytes();
        }
    }

    /// The stamp of a payload; `None` when the payload is too short for one.
    pub(super) fn read(payload: &[u8]) -> Option<Self> {
        let (stream, rest) = payload.split_first_chunk::<4>()?;
        let (sequence, rest) = rest.split_first_chunk::<8>()?;
        let (time, _) = rest.split_first_chunk::<8>()?;
        Some(Self {
            stream: u32::from_be_bytes(*stream),
            sequence: u64::from_be_bytes(*sequence),
            time: u64::from_be_bytes(*time),
        })
    }
}

/// A PUBLISH that is ready but for its Packet Identifier and stamp.
#[derive(Debug, Clone)]
pub(super) struct PublishTemplate {
    bytes: Vec<u8>,
    packet_id_at: Option<usize>,
    payload_at: usize,
}

impl PublishTemplate {
    /// Lays out the packet once.
    pub(super) fn new(
        version: ProtocolVersion,
        topic: &str,
        qos: QoS,
        retain: Retain,
        payload_bytes: usize,
    ) -> Self {
        let mut body = Vec::new();
        push_string(&mut body, topic);
        let packet_id_at = (qos > QoS::AtMostOnce).then_some(body.len());
        if packet_id_at.is_some() {
            body.extend_from_slice(&[0, 0]);
        }
        if version == ProtocolVersion::V5_0 {
            body.push(0);
        }
        let payload_at = body.len();
        body.extend((0..payload_bytes).map(|i| b'a' + u8::try_from(i % 26).unwrap_or(0)));
        let first = 0x30 | (qos as u8) << 1 | retain as u8;
        let bytes = packet(first, &body);
        let header_bytes = bytes.len() - body.len();
        Self {
            bytes,
            packet_id_at: packet_id_at.map(|at| at + header_bytes),
            payload_at: payload_at + header_bytes,
        }
    }

    /// Appends the packet to `output`.
    pub(super) fn append(&self, output: &mut Vec<u8>, packet_id: u16, stamp: Stamp) {
        let start = output.len();
        output.extend_from_slice(&self.bytes);
        let Some(packet) = output.get_mut(start..) else { return };
        if let Some(at) = self.packet_id_at
            && let Some(place) = packet.get_mut(at..at + 2)
        {
            place.copy_from_slice(&packet_id.to_be_bytes());
        }
        if let Some(payload) = packet.get_mut(self.payload_at..) {
            stamp.write(payload);
        }
    }
}

/// The RETAIN flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Retain {
    /// An ordinary message.
    No = 0,
    /// A Retained Message.
    Yes = 1,
}

/// What happens to the Session when the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SessionKind {
    /// Starts clean and ends with the connection.
    Clean,
    /// Continues for an hour, or forever in 3.x.
    Durable,
}

/// First byte of a packet.
pub(super) mod kind {
    pub(crate) const CONNACK: u8 = 0x20;
    pub(crate) const PUBACK: u8 = 0x40;
    pub(crate) const PUBREC: u8 = 0x50;
    pub(crate) const PUBREL: u8 = 0x62;
    pub(crate) const PUBCOMP: u8 = 0x70;
    pub(crate) const SUBACK: u8 = 0x90;
    pub(crate) const UNSUBACK: u8 = 0xB0;
}

/// PINGREQ.
pub(super) const PINGREQ: [u8; 2] = [0xC0, 0];

/// CONNECT. [MQTT-3.1]
pub(super) fn connect(target: &Target, client_id: &str, session: SessionKind) -> Vec<u8> {
    let mut body = Vec::new();
    let (name, level) = match target.version {
        ProtocolVersion::V3_1 => ("MQIsdp", 3),
        ProtocolVersion::V3_1_1 => ("MQTT", 4),
        ProtocolVersion::V5_0 => ("MQTT", 5),
    };
    push_string(&mut body, name);
    body.push(level);
    let mut flags = 0;
    if session == SessionKind::Clean {
        flags |= 0x02;
    }
    if target.username.is_some() {
        flags |= 0x80;
    }
    if target.password.is_some() {
        flags |= 0x40;
    }
    body.push(flags);
    body.extend_from_slice(&KEEP_ALIVE_SECONDS.to_be_bytes());
    if target.version == ProtocolVersion::V5_0 {
        match session {
            SessionKind::Clean => body.push(0),
            // Session Expiry Interval: an hour.
            SessionKind::Durable => body.extend_from_slice(&[5, 0x11, 0, 0, 0x0E, 0x10]),
        }
    }
    push_string(&mut body, client_id);
    if let Some(username) = &target.username {
        push_string(&mut body, username);
    }
    if let Some(password) = &target.password {
        push_string(&mut body, password);
    }
    packet(0x10, &body)
}

/// Long, because clients of a saturated generator are late, and being closed for that is not what is measured.
const KEEP_ALIVE_SECONDS: u16 = 900;

/// SUBSCRIBE. [MQTT-3.8]
pub(super) fn subscribe<'a>(
    version: ProtocolVersion,
    packet_id: u16,
    filters: impl Iterator<Item = &'a str>,
    qos: QoS,
) -> Vec<u8> {
    let mut body = packet_id.to_be_bytes().to_vec();
    if version == ProtocolVersion::V5_0 {
        body.push(0);
    }
    for filter in filters {
        push_string(&mut body, filter);
        body.push(qos as u8);
    }
    packet(0x82, &body)
}

/// UNSUBSCRIBE. [MQTT-3.10]
pub(super) fn unsubscribe<'a>(
    version: ProtocolVersion,
    packet_id: u16,
    filters: impl Iterator<Item = &'a str>,
) -> Vec<u8> {
    let mut body = packet_id.to_be_bytes().to_vec();
    if version == ProtocolVersion::V5_0 {
        body.push(0);
    }
    for filter in filters {
        push_string(&mut body, filter);
    }
    packet(0xA2, &body)
}

/// DISCONNECT without a reason.
pub(super) const DISCONNECT: [u8; 2] = [0xE0, 0];

/// An acknowledgement without a reason.
pub(super) fn push_acknowledgement(output: &mut Vec<u8>, first: u8, packet_id: u16) {
    let [high, low] = packet_id.to_be_bytes();
    output.extend_from_slice(&[first, 2, high, low]);
}

fn push_string(output: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    output.extend_from_slice(&length.to_be_bytes());
    output.extend_from_slice(text.as_bytes().get(..usize::from(length)).unwrap_or_default());
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut output = Vec::with_capacity(body.len() + 5);
    output.push(first);
    let mut remaining = body.len();
    loop {
        let digit = u8::try_from(remaining % 128).unwrap_or(0);
        remaining /= 128;
        output.push(if remaining > 0 { digit | 0x80 } else { digit });
        if remaining == 0 {
            break;
        }
    }
    output.extend_from_slice(body);
    output
}

/// One packet at the front of a buffer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Front<'a> {
    /// A whole packet.
    Packet {
        /// Its first byte.
        first: u8,
        /// What follows the fixed header.
        body: &'a [u8],
        /// Its length with the fixed header.
        length: usize,
    },
    /// It takes so many bytes in all, as far as known.
    Incomplete(usize),
    /// The length is longer than four bytes.
    Malformed,
}

/// Looks at the front of a buffer.
pub(super) fn front(bytes: &[u8]) -> Front<'_> {
    let Some((&first, rest)) = bytes.split_first() else { return Front::Incomplete(2) };
    let Some((remaining, digits)) = variable_byte_integer(rest) else {
        return if rest.len() >= 4 { Front::Malformed } else { Front::Incomplete(bytes.len() + 1) };
    };
    let length = 1 + digits + remaining;
    match rest.get(digits..digits + remaining) {
        Some(body) => Front::Packet { first, body, length },
        None => Front::Incomplete(length),
    }
}

/// The value and its length.
#[inline]
fn variable_byte_integer(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0;
    for (i, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7F) << (7 * i);
        if byte & 0x80 == 0 {
            return Some((value, i + 1));
        }
    }
    None
}

/// What is counted of a PUBLISH.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Incoming<'a> {
    /// 0, 1 or 2.
    pub(super) qos: u8,
    /// Zero at QoS 0.
    pub(super) packet_id: u16,
    /// The Application Message.
    pub(super) payload: &'a [u8],
}

/// Finds identifier and payload in the body of a PUBLISH.
#[inline]
pub(super) fn incoming(version: ProtocolVersion, first: u8, body: &[u8]) -> Option<Incoming<'_>> {
    let (topic_bytes, rest) = body.split_first_chunk::<2>()?;
    let mut rest = rest.get(usize::from(u16::from_be_bytes(*topic_bytes))..)?;
    let qos = first >> 1 & 3;
    let mut packet_id = 0;
    if qos > 0 {
        let (id, after) = rest.split_first_chunk::<2>()?;
        packet_id = u16::from_be_bytes(*id);
        rest = after;
    }
    if version == ProtocolVersion::V5_0 {
        let (properties_bytes, digits) = variable_byte_integer(rest)?;
        rest = rest.get(digits + properties_bytes..)?;
    }
    Some(Incoming { qos, packet_id, payload: rest })
}

/// Identifier and code (success when left out) of an acknowledgement.
#[inline]
pub(super) fn acknowledgement(body: &[u8]) -> Option<(u16, u8)> {
    let (packet_id, rest) = body.split_first_chunk::<2>()?;
    Some((u16::from_be_bytes(*packet_id), rest.first().copied().unwrap_or(0)))
}

/// What CONNACK says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Connack {
    /// Whether the Session went on.
    pub(super) session_present: bool,
    /// Zero is success.
    pub(super) code: u8,
    /// The most messages that may be unacknowledged. [MQTT-3.2.2.3.3]
    pub(super) receive_maximum: u16,
}

/// Reads the body of a CONNACK.
pub(super) fn connack(version: ProtocolVersion, body: &[u8]) -> Option<Connack> {
    let (&[flags, code], rest) = body.split_first_chunk::<2>()?;
    let mut receive_maximum = u16::MAX;
    if version == ProtocolVersion::V5_0 && code == 0 {
        let (properties_bytes, digits) = variable_byte_integer(rest)?;
        let properties = rest.get(digits..digits + properties_bytes)?;
        receive_maximum = find_receive_maximum(properties)?;
    }
    Some(Connack { session_present: flags & 1 == 1, code, receive_maximum })
}

/// Its value, or the default; `None` if the properties are malformed.
fn find_receive_maximum(mut properties: &[u8]) -> Option<u16> {
    while let Some((&identifier, rest)) = properties.split_first() {
        let value_bytes = match identifier {
            0x21 => return Some(u16::from_be_bytes(*rest.first_chunk::<2>()?)),
            0x24 | 0x25 | 0x28 | 0x29 | 0x2A => 1,
            0x13 | 0x22 => 2,
            0x11 | 0x27 => 4,
            0x26 => {
                let key = 2 + usize::from(u16::from_be_bytes(*rest.first_chunk::<2>()?));
                let value = rest.get(key..)?.first_chunk::<2>()?;
                key + 2 + usize::from(u16::from_be_bytes(*value))
            }
            _ => 2 + usize::from(u16::from_be_bytes(*rest.first_chunk::<2>()?)),
        };
        properties = rest.get(value_bytes..)?;
    }
    Some(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp() -> Stamp {
        Stamp { stream: 7, sequence: 1_000_000_007, time: 42 }
    }

    #[test]
    fn a_published_stamp_is_found_again_in_every_version_and_qos() {
        for version in [ProtocolVersion::V3_1, ProtocolVersion::V3_1_1, ProtocolVersion::V5_0] {
            for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                for payload_bytes in [STAMP_BYTES, 64, 100, 16_384, 3_000_000] {
                    let template =
                        PublishTemplate::new(version, "a/b", qos, Retain::Yes, payload_bytes);
                    let mut output = vec![];
                    template.append(&mut output, 300, stamp());
                    assert_eq!(output.len(), template.bytes.len());
                    let Front::Packet { first, body, length } = front(&output) else {
                        panic!("not a packet");
                    };
                    assert_eq!((first & 0x31, length), (0x31, output.len()));
                    let incoming = incoming(version, first, body).unwrap();
                    assert_eq!(incoming.qos, qos as u8);
                    assert_eq!(incoming.packet_id, if incoming.qos > 0 { 300 } else { 0 });
                    assert_eq!(incoming.payload.len(), payload_bytes);
                    assert_eq!(Stamp::read(incoming.payload), Some(stamp()));
                }
            }
        }
    }

    #[test]
    fn a_payload_too_short_for_a_stamp_stays_as_it_is() {
        let template = PublishTemplate::new(
            ProtocolVersion::V3_1_1,
            "t",
            QoS::AtMostOnce,
            Retain::No,
            STAMP_BYTES - 1,
        );
        let mut output = vec![];
        template.append(&mut output, 0, stamp());
        assert_eq!(output.get(..7), Some(&[0x30, 22, 0, 1, b't', b'a', b'b'][..]));
    }

    #[test]
    fn an_incomplete_packet_asks_for_its_whole_length() {
        assert_eq!(front(&[]), Front::Incomplete(2));
        assert_eq!(front(&[0x30]), Front::Incomplete(2));
        assert_eq!(front(&[0x30, 0x80]), Front::Incomplete(3));
        assert_eq!(front(&[0x30, 0x80, 0x01]), Front::Incomplete(131));
        assert_eq!(front(&[0x30, 0x80, 0x80, 0x80, 0x80]), Front::Malformed);
        let ping = [0xD0, 0, 0xFF];
        assert_eq!(front(&ping), Front::Packet { first: 0xD0, body: &[], length: 2 });
    }

    #[test]
    fn a_truncated_body_is_refused_without_panic() {
        for length in 0..8 {
            let body = [0, 200, 1, 2, 3, 4, 5, 6];
            assert_eq!(incoming(ProtocolVersion::V5_0, 0x32, &body[..length]), None);
        }
        assert_eq!(acknowledgement(&[1]), None);
        assert_eq!(connack(ProtocolVersion::V5_0, &[0, 0, 5]), None);
    }

    #[test]
    fn receive_maximum_is_found_among_other_properties() {
        let body = [1, 0, 17, 0x26, 0, 1, b'k', 0, 1, b'v', 0x27, 0, 1, 0, 0, 0x24, 1, 0x21, 1, 2];
        let found = connack(ProtocolVersion::V5_0, &body).unwrap();
        let expected = Connack { session_present: true, code: 0, receive_maximum: 258 };
        assert_eq!(found, expected);
        assert_eq!(connack(ProtocolVersion::V3_1_1, &[0, 5]).unwrap().code, 5);
    }

    #[test]
    fn packets_are_laid_out_as_the_specification_says() {
        let filters = ["a/+", "b"];
        assert_eq!(
            subscribe(ProtocolVersion::V3_1_1, 10, filters.into_iter(), QoS::AtLeastOnce),
            b"\x82\x0c\x00\x0a\x00\x03a/+\x01\x00\x01b\x01"
        );
        assert_eq!(
            unsubscribe(ProtocolVersion::V5_0, 10, filters.into_iter()),
            b"\xa2\x0b\x00\x0a\x00\x00\x03a/+\x00\x01b"
        );
        let mut output = vec![];
        push_acknowledgement(&mut output, kind::PUBREL, 0x0102);
        assert_eq!(output, [0x62, 2, 1, 2]);
    }
}
