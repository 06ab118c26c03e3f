//! Bytes from anywhere are a packet, an error or the beginning of a packet, never a panic; and what
//! is a packet means the same when it is encoded and decoded again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use petrel::packet::connect::requested_version;
use petrel::packet::decode::{DecodeContext, Decoded, Sender, decode};
use petrel::packet::property::iterate;
use petrel::packet::{Packet, ProtocolVersion};

fuzz_target!(|input: &[u8]| {
    let Some((choice, bytes)) = input.split_first() else { return };
    let version = match choice % 3 {
        0 => ProtocolVersion::V3_1,
        1 => ProtocolVersion::V3_1_1,
        _ => ProtocolVersion::V5_0,
    };
    let sender = if choice & 0x80 == 0 { Sender::Client } else { Sender::Server };
    let context = DecodeContext { version, max_packet_bytes: 1 << 20, sender };
    let _version = requested_version(bytes);
    iterate(bytes).for_each(drop);
    match decode(bytes, &context) {
        Ok(Decoded::Packet { packet, length }) => {
            assert!(2 <= length && length <= bytes.len());
            check_round_trip(packet, context);
            check_prefixes(&bytes[..length], &context);
        }
        Ok(Decoded::Incomplete { needed }) => assert!(needed > bytes.len()),
        Err(error) => assert!(error.kind().reason().is_failure()),
    }
});

fn check_round_trip(packet: Packet<'_>, context: DecodeContext) {
    let version = match &packet {
        Packet::Connect(connect) => connect.version,
        _ => context.version,
    };
    let mut encoded = Vec::new();
    packet.encode(&mut encoded, version);
    let length = encoded.len();
    let decoded = decode(&encoded, &DecodeContext { version, ..context });
    assert_eq!(decoded, Ok(Decoded::Packet { packet, length }));
}

fn check_prefixes(packet: &[u8], context: &DecodeContext) {
    for length in (0..packet.len()).take(64) {
        match decode(&packet[..length], context) {
            Ok(Decoded::Incomplete { needed }) => {
                assert!(length < needed && needed <= packet.len())
            }
            other => panic!("{length} bytes of a packet: {other:?}"),
        }
    }
}
