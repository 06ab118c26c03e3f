//! What is encoded decodes to the same, in every version.

use proptest::prelude::*;

use super::{
    context, decode_whole, encode,
    strategies::{packet, version},
};
use crate::packet::{
    Packet,
    decode::{Decoded, decode},
    property::iterate,
};

proptest! {
    #[test]
    fn every_packet_decodes_to_itself(
        (version, (sender, packet)) in version().prop_flat_map(|v| (Just(v), packet(v))),
    ) {
        let bytes = encode(&packet, version);
        prop_assert_eq!(decode_whole(&bytes, version, sender), Ok(packet));
    }

    #[test]
    fn every_part_of_a_packet_is_incomplete_and_says_so(
        (version, (sender, packet)) in version().prop_flat_map(|v| (Just(v), packet(v))),
    ) {
        let bytes = encode(&packet, version);
        for length in 0..bytes.len() {
            match decode(&bytes[..length], &context(version, sender)) {
                Ok(Decoded::Incomplete { needed }) => {
                    prop_assert!(length < needed && needed <= bytes.len());
                    let is_known = length > 5;
                    prop_assert!(!is_known || needed == bytes.len());
                }
                other => prop_assert!(false, "{other:?}"),
            }
        }
    }

    /// The blob that a Server stores and forwards is the properties, read one after the other.
    #[test]
    fn forwarded_properties_iterate_to_what_was_encoded(
        (_, packet) in packet(crate::packet::ProtocolVersion::V5_0),
    ) {
        let Packet::Publish(publish) = packet else { return Ok(()) };
        let mut again = Vec::new();
        for property in iterate(&publish.properties) {
            property.encode(&mut again);
        }
        prop_assert_eq!(&again[..], &*publish.properties);
    }
}

#[test]
fn iteration_ends_at_the_first_that_is_no_property() {
    let blob = b"\x01\x01\x26\0\x01k\0\x01v\xFF\x01\x01";
    assert_eq!(iterate(blob).count(), 2);
    assert_eq!(iterate(b"\x09\0\x09d").count(), 0);
    assert_eq!(iterate(b"").count(), 0);
}
