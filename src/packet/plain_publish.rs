//! A fast path for the PUBLISH that nearly every device sends: complete, small, without DUP, RETAIN and properties.
//! It gives the same answer as [`crate::packet::decode`] or none at all; without an answer the caller uses the
//! ordinary decoder, which also reports errors.

use std::num::NonZeroU16;

use crate::packet::{PacketId, ProtocolVersion, QoS};

/// A PUBLISH without DUP, RETAIN and properties.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PlainPublish<'a> {
    /// Quality of Service.
    pub(crate) qos: QoS,
    /// Present exactly at QoS 1 and 2.
    pub(crate) packet_id: Option<PacketId>,
    /// The Topic Name, not empty.
    pub(crate) topic: &'a str,
    /// The Application Message.
    pub(crate) payload: &'a [u8],
    /// Length of the packet with its fixed header, in bytes.
    pub(crate) length: usize,
}

/// The plain PUBLISH at the front of `input`, if there is one. A topic equal to `known_topic` (a valid
/// Topic Name, or empty) is not checked again.
#[inline]
#[must_use]
pub(crate) fn plain_publish<'a>(
    input: &'a [u8],
    version: ProtocolVersion,
    max_packet_bytes: u32,
    known_topic: &'a str,
) -> Option<PlainPublish<'a>> {
    let (qos, has_id) = match *input.first()? {
        0x30 => (QoS::AtMostOnce, false),
        0x32 => (QoS::AtLeastOnce, true),
        0x34 => (QoS::ExactlyOnce, true),
        _ => return None,
    };
    let (header_bytes, remaining_bytes) = short_remaining_length(input)?;
    let length = header_bytes.checked_add(remaining_bytes)?;
    if length > max_packet_bytes as usize {
        return None;
    }
    let body = input.get(header_bytes..length)?;
    let (topic_length, rest) = body.split_first_chunk::<2>()?;
    let (topic, mut rest) = rest.split_at_checked(u16::from_be_bytes(*topic_length).into())?;
    let topic = if topic == known_topic.as_bytes() { known_topic } else { topic_name(topic)? };
    if topic.is_empty() {
        return None;
    }
    let mut packet_id = None;
    if has_id {
        let (identifier, after) = rest.split_first_chunk::<2>()?;
        packet_id = Some(PacketId(NonZeroU16::new(u16::from_be_bytes(*identifier))?));
        rest = after;
    }
    if version == ProtocolVersion::V5_0 {
        let (0, after) = rest.split_first()? else { return None };
        rest = after;
    }
    Some(PlainPublish { qos, packet_id, topic, payload: rest, length })
}

/// Length of the fixed header and Remaining Length, for packets below 16 KiB.
#[inline]
fn short_remaining_length(input: &[u8]) -> Option<(usize, usize)> {
    let low = *input.get(1)?;
    if low & 0x80 == 0 {
        return Some((2, low.into()));
    }
    let high = *input.get(2)?;
    let is_short = high & 0x80 == 0 && high != 0;
    is_short.then(|| (3, usize::from(low & 0x7F) | usize::from(high) << 7))
}

#[inline]
fn topic_name(bytes: &[u8]) -> Option<&str> {
    if memchr::memchr3(0, b'+', b'#', bytes).is_some() {
        return None;
    }
    std::str::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::Packet;
    use crate::packet::decode::{DecodeContext, Decoded, Sender, decode};

    fn agrees(input: &[u8], version: ProtocolVersion, known_topic: &str) {
        let Some(plain) = plain_publish(input, version, 1000, known_topic) else { return };
        let context = DecodeContext { version, max_packet_bytes: 1000, sender: Sender::Client };
        let decoded = decode(input, &context);
        let Ok(Decoded::Packet { packet: Packet::Publish(publish), length }) = decoded else {
            panic!("{input:?} is plain, and yet {decoded:?}");
        };
        assert_eq!(length, plain.length);
        assert_eq!((publish.dup, publish.retain), (false, false));
        assert_eq!((publish.qos, publish.packet_id), (plain.qos, plain.packet_id));
        assert_eq!((publish.topic, publish.payload), (plain.topic, plain.payload));
        assert!(publish.properties.is_empty() && publish.topic_alias.is_none());
    }

    #[test]
    fn a_plain_publish_is_recognised() {
        let input = b"\x32\x08\x00\x01a\x00\x07abcand more";
        let plain = plain_publish(input, ProtocolVersion::V3_1_1, 1000, "").unwrap();
        assert_eq!((plain.topic, plain.payload, plain.length), ("a", b"abc".as_slice(), 10));
        assert_eq!(plain_publish(input, ProtocolVersion::V3_1_1, 9, ""), None);
        assert_eq!(plain_publish(&input[..9], ProtocolVersion::V3_1_1, 1000, ""), None);
    }

    proptest! {
        #[test]
        fn it_says_what_the_decoder_says(
            first in prop_oneof![Just(0x30_u8), Just(0x32), Just(0x34), any::<u8>()],
            topic in prop_oneof![Just("a/b".to_owned()), "[a#+/\u{0}é]{0,6}"],
            rest in proptest::collection::vec(any::<u8>(), 0..20),
            is_v5: bool,
        ) {
            let version = if is_v5 { ProtocolVersion::V5_0 } else { ProtocolVersion::V3_1_1 };
            let length = u8::try_from(2 + topic.len() + rest.len()).unwrap();
            let topic_length = u8::try_from(topic.len()).unwrap();
            let mut input = vec![first, length, 0, topic_length];
            input.extend_from_slice(topic.as_bytes());
            input.extend_from_slice(&rest);
            agrees(&input, version, "a/b");
            agrees(&input, version, "");
        }

        #[test]
        fn any_bytes_are_answered_alike(input in proptest::collection::vec(any::<u8>(), 0..300)) {
            agrees(&input, ProtocolVersion::V5_0, "");
            agrees(&input, ProtocolVersion::V3_1, "");
        }
    }
}
