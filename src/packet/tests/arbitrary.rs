//! Arbitrary bytes: decoding returns a packet, an error or a request for more, and never panics.

use proptest::{collection::vec, prelude::*, sample::Index};

use super::{
    VERSIONS, context, encode,
    strategies::{packet, version},
};
use crate::packet::{
    ProtocolVersion,
    connect::requested_version,
    decode::{Decoded, Sender, decode},
    property::iterate,
};

/// Decodes `bytes` in every version and direction. A packet that is accepted can be encoded again,
/// and its encoding means the same.
fn survive(bytes: &[u8]) {
    drop(requested_version(bytes).map(|version| version.to_string()));
    iterate(bytes).for_each(drop);
    for version in VERSIONS {
        for sender in [Sender::Client, Sender::Server] {
            match decode(bytes, &context(version, sender)) {
                Ok(Decoded::Packet { packet, length }) => {
                    assert!(2 <= length && length <= bytes.len());
                    let again = match &packet {
                        crate::packet::Packet::Connect(connect) => connect.version,
                        _ => version,
                    };
                    let encoded = encode(&packet, again);
                    let decoded = decode(&encoded, &context(again, sender));
                    let length = encoded.len();
                    assert_eq!(decoded, Ok(Decoded::Packet { packet, length }));
                }
                Ok(Decoded::Incomplete { needed }) => assert!(needed > bytes.len()),
                Err(error) => assert!(error.kind().reason().is_failure()),
            }
        }
    }
}

proptest! {
    #[test]
    fn any_bytes(bytes in vec(any::<u8>(), 0..80)) {
        survive(&bytes);
    }

    #[test]
    fn any_body_behind_a_right_fixed_header(packet_type in 1..16_u8, body in vec(any::<u8>(), 0..60)) {
        let flags = if matches!(packet_type, 6 | 8 | 10) { 2 } else { 0 };
        let length = u8::try_from(body.len()).expect("short");
        survive(&[&[packet_type << 4 | flags, length], &body[..]].concat());
    }

    /// Small numbers look like lengths, identifiers and flags more often than random ones do.
    #[test]
    fn any_small_numbers_behind_a_right_fixed_header(
        packet_type in 1..16_u8,
        body in vec(prop_oneof![8 => 0..8_u8, 4 => 0..48_u8, 1 => any::<u8>()], 0..60),
    ) {
        let flags = if matches!(packet_type, 6 | 8 | 10) { 2 } else { 0 };
        let length = u8::try_from(body.len()).expect("short");
        survive(&[&[packet_type << 4 | flags, length], &body[..]].concat());
    }

    #[test]
    fn packets_with_bytes_changed_cut_and_inserted(
        (version, (_, packet)) in version().prop_flat_map(|v| (Just(v), packet(v))),
        changes in vec((any::<Index>(), any::<u8>(), 0..4), 1..4),
    ) {
        let mut bytes = encode(&packet, version);
        for (place, value, change) in changes {
            if bytes.is_empty() {
                break;
            }
            let place = place.index(bytes.len());
            match change {
                0 => bytes[place] = value,
                1 => bytes[place] ^= 1 << (value % 8),
                2 => bytes.insert(place, value),
                _ => drop(bytes.remove(place)),
            }
        }
        survive(&bytes);
    }

    /// A packet cut short whose Remaining Length tells so is refused, unless what was cut was
    /// optional or payload.
    #[test]
    fn packets_cut_short_with_a_right_length(
        (version, (_, packet)) in version().prop_flat_map(|v| (Just(v), packet(v))),
        cut in any::<Index>(),
    ) {
        let bytes = encode(&packet, version);
        if bytes.len() < 130 && bytes.len() > 2 {
            let length = cut.index(bytes.len() - 2);
            let remaining = u8::try_from(length).expect("short");
            survive(&[&[bytes[0], remaining], &bytes[2..2 + length]].concat());
        }
    }
}

/// Every packet of up to three bytes behind the fixed header, exhaustively in the bytes that steer
/// the decoder.
#[test]
fn every_short_packet() {
    for first in 0..=255_u8 {
        survive(&[first]);
        survive(&[first, 0]);
        for a in 0..=255_u8 {
            survive(&[first, a]);
            survive(&[first, 1, a]);
            survive(&[first, 3, 0, 1, a]);
        }
        for a in (0..0x30).chain([0x7F, 0x80, 0xFF]) {
            for b in [0, 1, 2, 0x7F, 0x80, 0xFF] {
                survive(&[first, 2, a, b]);
                survive(&[first, 4, 0, 1, a, b]);
            }
        }
    }
}

/// No count in a packet may make the decoder allocate more than the length of the packet.
#[test]
fn lengths_that_lie_cost_nothing() {
    let huge = [b"\x30\xFF\xFF\xFF\x7F\xFF\xFF".as_slice(), &[b'a'; 60]].concat();
    let decoded = decode(&huge, &context(ProtocolVersion::V5_0, Sender::Client));
    assert_eq!(decoded, Ok(Decoded::Incomplete { needed: 268_435_460 }));
    survive(&[b"\x82\x20\0\x01\xFF\xFF\xFF\x7F".as_slice(), &[b'a'; 28]].concat());
}
