//! Lengths: Remaining Length, Variable Byte Integers, packets in part or too large.

use super::{VERSIONS, context, decode_whole, encode, id};
use crate::packet::{
    Packet, ProtocolVersion,
    acknowledgement::{Acknowledgement, Puback},
    decode::{DecodeContext, Decoded, Sender, decode},
    error::{DecodeError, DecodeErrorKind},
    publish::OutgoingPublish,
    reader::{Reader, VariableByteInteger, variable_byte_integer},
    reason_code::ReasonCode,
    writer,
};

/// [MQTT-1.5.5-1]
#[test]
fn variable_byte_integers_at_their_boundaries() {
    for (value, bytes) in [
        (0, b"\0".as_slice()),
        (127, b"\x7F"),
        (128, b"\x80\x01"),
        (16_383, b"\xFF\x7F"),
        (16_384, b"\x80\x80\x01"),
        (2_097_151, b"\xFF\xFF\x7F"),
        (2_097_152, b"\x80\x80\x80\x01"),
        (268_435_455, b"\xFF\xFF\xFF\x7F"),
    ] {
        let mut out = Vec::new();
        writer::variable_byte_integer(&mut out, value as usize);
        assert_eq!(out, bytes);
        assert_eq!(writer::variable_byte_integer_length(value as usize), bytes.len());
        assert_eq!(Reader::new(bytes).variable_byte_integer(), Ok(value));
        let whole = VariableByteInteger::Whole { value, length: bytes.len(), is_minimal: true };
        assert_eq!(variable_byte_integer(bytes), Ok(whole));
        for length in 0..bytes.len() {
            let part = &bytes[..length];
            assert_eq!(variable_byte_integer(part), Ok(VariableByteInteger::Incomplete));
            assert_eq!(Reader::new(part).variable_byte_integer(), Err(DecodeError::Truncated));
        }
    }
    for bytes in [b"\x80\0".as_slice(), b"\xFF\0", b"\x80\x80\0", b"\x80\x80\x80\0"] {
        let error = Err(DecodeError::IntegerNotMinimal);
        assert_eq!(Reader::new(bytes).variable_byte_integer(), error);
    }
    for bytes in [b"\x80\x80\x80\x80".as_slice(), b"\xFF\xFF\xFF\xFF\x7F"] {
        let error = Err(DecodeError::IntegerTooLong);
        assert_eq!(Reader::new(bytes).variable_byte_integer(), error);
    }
}

/// 5.0 demands the shortest form of the Remaining Length, its predecessors do not. [MQTT-1.5.5-1]
#[test]
fn remaining_length_in_a_longer_form_than_needed() {
    for version in [ProtocolVersion::V3_1, ProtocolVersion::V3_1_1] {
        assert_eq!(decode_whole(b"\xC0\x80\0", version, Sender::Client), Ok(Packet::Pingreq));
        let connect = b"\x10\x8D\0\0\x04MQTT\x04\x02\0\x3C\0\x01c";
        assert!(matches!(decode_whole(connect, version, Sender::Client), Ok(Packet::Connect(_))));
    }
    let v5_0 = ProtocolVersion::V5_0;
    let error = Err(DecodeError::IntegerNotMinimal);
    assert_eq!(decode_whole(b"\xC0\x80\0", v5_0, Sender::Client), error);
    // CONNECT says itself which version it is, whatever the context says.
    for context in VERSIONS {
        let connect = b"\x10\x8E\0\0\x04MQTT\x05\x02\0\x3C\0\0\x01c";
        assert_eq!(decode_whole(connect, context, Sender::Client), error);
        let connect = b"\x10\x8D\0\0\x04MQTT\x04\x02\0\x3C\0\x01c";
        assert!(decode_whole(connect, context, Sender::Client).is_ok());
    }
}

/// [MQTT-1.5.5]
#[test]
fn remaining_length_of_five_bytes_is_refused_before_the_rest_is_there() {
    for version in VERSIONS {
        let decoded = decode(b"\x30\xFF\xFF\xFF\xFF", &context(version, Sender::Client));
        assert_eq!(decoded, Err(DecodeError::IntegerTooLong));
    }
}

#[test]
fn incomplete_input_says_how_much_is_needed() {
    let client = context(ProtocolVersion::V3_1_1, Sender::Client);
    for (bytes, needed) in [
        (b"".as_slice(), 2),
        (b"\x30", 2),
        (b"\x30\x80", 3),
        (b"\x30\x80\x80", 4),
        (b"\x30\x80\x80\x80", 5),
        (b"\x30\xFF\xFF\xFF\x7F", 268_435_460),
        (b"\x30\x03\0", 5),
        (b"\x30\x03\0\x01", 5),
    ] {
        assert_eq!(decode(bytes, &client), Ok(Decoded::Incomplete { needed }), "{bytes:02X?}");
    }
}

#[test]
fn what_is_wrong_in_the_fixed_header_is_refused_before_the_rest_is_there() {
    let client = context(ProtocolVersion::V3_1_1, Sender::Client);
    assert_eq!(decode(b"\0", &client), Err(DecodeError::ReservedPacketType(0)));
    assert_eq!(decode(b"\x11", &client), Err(DecodeError::ReservedFlags(1)));
    assert_eq!(decode(b"\xF0", &client), Err(DecodeError::ReservedPacketType(15)));
}

/// [MQTT-3.1.2-24]
#[test]
fn packets_over_the_limit_are_refused_from_the_fixed_header_on() {
    for version in VERSIONS {
        let limited = |max_packet_bytes| DecodeContext {
            max_packet_bytes,
            ..context(version, Sender::Client)
        };
        let too_large = |bytes, max_bytes| Err(DecodeError::PacketTooLarge { bytes, max_bytes });
        assert_eq!(decode(b"\x30\x7F", &limited(128)), too_large(129, 128));
        assert_eq!(decode(b"\x30\x7F", &limited(129)), Ok(Decoded::Incomplete { needed: 129 }));
        let largest = decode(b"\x30\xFF\xFF\xFF\x7F", &limited(1 << 20));
        assert_eq!(largest, too_large(268_435_460, 1 << 20));
        let kind = largest.expect_err("too large").kind();
        assert_eq!(kind, DecodeErrorKind::PacketTooLarge);
        let ping = decode(b"\xC0\0", &limited(2));
        assert_eq!(ping, Ok(Decoded::Packet { packet: Packet::Pingreq, length: 2 }));
        assert_eq!(decode(b"\xC0\0", &limited(1)), too_large(2, 1));
    }
}

#[test]
fn only_the_first_packet_of_a_buffer_is_decoded() {
    let client = context(ProtocolVersion::V3_1_1, Sender::Client);
    let decoded = decode(b"\x40\x02\0\x05\xC0\0\x00", &client);
    let puback = Puback(Acknowledgement::new(id(5), ReasonCode::Success));
    assert_eq!(decoded, Ok(Decoded::Packet { packet: Packet::Puback(puback), length: 4 }));
}

/// The length is computed ahead, so it must be that of the bytes written, around every boundary.
#[test]
fn outgoing_publish_counts_what_it_writes() {
    let topic = "t".repeat(120);
    let properties = b"\x26\0\x01k\0\x01v".repeat(20);
    let ids = [1, 127, 128, 16_384, 268_435_455];
    for version in VERSIONS {
        for payload_bytes in (0..140).chain(16_100..16_400).chain(2_096_900..2_097_200) {
            for flavour in 0..8_usize {
                let publish = OutgoingPublish {
                    dup: false,
                    qos: if flavour % 2 == 0 { 0.try_into() } else { 1.try_into() }.expect("QoS"),
                    retain: false,
                    topic: topic.get(..flavour * 15).unwrap_or_default(),
                    packet_id: (flavour % 2 == 1).then(|| id(1)),
                    topic_alias: (flavour % 3 == 1).then_some(1),
                    message_expiry: (flavour % 3 == 2).then_some(1),
                    subscription_ids: &ids[..flavour % 6],
                    properties: &properties[..7 * (flavour * 2)],
                    payload_bytes,
                };
                let mut head = Vec::new();
                publish.encode_head(&mut head, version);
                let counted = publish.encoded_bytes(version);
                assert_eq!(counted, head.len() + payload_bytes);
                let whole = variable_byte_integer(&head[1..]).expect("well-formed");
                let VariableByteInteger::Whole { value, length, is_minimal: true } = whole else {
                    panic!("{whole:?}")
                };
                assert_eq!(value as usize + 1 + length, counted);
            }
        }
    }
}

/// Text of our own making cannot break the packet it is put into.
#[test]
fn text_that_is_too_long_is_cut_at_a_character() {
    let text = "€".repeat(30_000);
    let mut out = Vec::new();
    writer::string(&mut out, &text);
    let mut reader = Reader::new(&out);
    assert_eq!(reader.string().map(str::len), Ok(65_535));
    assert!(reader.is_empty());
    let mut out = Vec::new();
    writer::string(&mut out, &format!("a{text}"));
    assert_eq!(Reader::new(&out).string().map(str::len), Ok(65_533));

    let reason_string = Some(text.as_str());
    let puback =
        Acknowledgement { reason_string, ..Acknowledgement::new(id(1), ReasonCode::Success) };
    let bytes = encode(&Packet::Puback(Puback(puback)), ProtocolVersion::V5_0);
    assert!(decode_whole(&bytes, ProtocolVersion::V5_0, Sender::Server).is_ok());
}
