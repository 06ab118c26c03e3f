//! The codec as a whole: exact bytes that are accepted and refused, round trips, arbitrary input, a
//! second opinion.

mod accepted;
mod arbitrary;
mod limits;
mod refused;
mod round_trip;
mod second_opinion;
mod strategies;

use super::{
    Packet, PacketId, ProtocolVersion,
    decode::{DecodeContext, Decoded, Sender, decode},
    error::DecodeError,
};

const VERSIONS: [ProtocolVersion; 3] =
    [ProtocolVersion::V3_1, ProtocolVersion::V3_1_1, ProtocolVersion::V5_0];

fn context(version: ProtocolVersion, sender: Sender) -> DecodeContext {
    DecodeContext { version, max_packet_bytes: u32::MAX, sender }
}

fn id(number: u16) -> PacketId {
    PacketId::try_from(number).expect("tests name no zero identifier")
}

/// The one packet in `bytes`, which must be there and take all of them.
fn decode_whole(
    bytes: &[u8],
    version: ProtocolVersion,
    sender: Sender,
) -> Result<Packet<'_>, DecodeError> {
    match decode(bytes, &context(version, sender))? {
        Decoded::Packet { packet, length } => {
            assert_eq!(length, bytes.len(), "bytes left over");
            Ok(packet)
        }
        Decoded::Incomplete { needed } => panic!("{needed} bytes needed of {bytes:02X?}"),
    }
}

fn encode(packet: &Packet<'_>, version: ProtocolVersion) -> Vec<u8> {
    let mut out = Vec::new();
    packet.encode(&mut out, version);
    out
}

/// `body` with a fixed header in front; its length must fit into one byte.
fn with_header(first: u8, body: &[u8]) -> Vec<u8> {
    let length = u8::try_from(body.len()).expect("short body");
    assert!(length < 128, "short body");
    [&[first, length], body].concat()
}
