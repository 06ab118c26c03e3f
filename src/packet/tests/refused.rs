//! Exact bytes that no receiver may take, one case at least for each variant of [`DecodeError`].

use super::{VERSIONS, decode_whole, with_header};
use crate::packet::{
    ProtocolVersion,
    decode::Sender,
    error::{DecodeError, DecodeErrorKind},
};

use ProtocolVersion::{V3_1, V3_1_1, V5_0};
use Sender::{Client, Server};

/// `body` behind the first byte `first` is refused with `error`.
#[track_caller]
fn refused(
    first: u8,
    body: &[u8],
    versions: &[ProtocolVersion],
    sender: Sender,
    error: DecodeError,
) {
    let bytes = with_header(first, body);
    for version in versions {
        assert_eq!(decode_whole(&bytes, *version, sender), Err(error), "in {version}");
    }
}

const BEFORE_5_0: &[ProtocolVersion] = &[V3_1, V3_1_1];
const ONLY_5_0: &[ProtocolVersion] = &[V5_0];

/// [MQTT-2.1.2] [MQTT311-2.2.1]
#[test]
fn reserved_packet_types() {
    refused(0x00, b"", &VERSIONS, Client, DecodeError::ReservedPacketType(0));
    refused(0x0F, b"\0", &VERSIONS, Client, DecodeError::ReservedPacketType(0));
    refused(0xF0, b"", BEFORE_5_0, Client, DecodeError::ReservedPacketType(15));
}

/// [MQTT-2.1.3-1] [MQTT311-2.2.2-2]
#[test]
fn reserved_flags_of_every_packet_type() {
    for packet_type in [1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15] {
        let required = if matches!(packet_type, 6 | 8 | 10) { 0b0010 } else { 0 };
        for flags in (0..16).filter(|flags| *flags != required) {
            let first = packet_type << 4 | flags;
            let error = DecodeError::ReservedFlags(flags);
            refused(first, b"", ONLY_5_0, Client, error);
            if packet_type < 15 {
                refused(first, b"", &[V3_1_1], Client, error);
                let is_duplicate = required != 0 && flags == 0b1010;
                if !is_duplicate {
                    refused(first, b"", &[V3_1], Client, error);
                }
            }
        }
    }
}

fn connect_5_0(flags: u8, properties: &[u8], rest: &[u8]) -> Vec<u8> {
    let length = u8::try_from(properties.len()).expect("short");
    [b"\0\x04MQTT\x05", &[flags, 0, 60, length][..], properties, rest].concat()
}

/// [MQTT-3.1.2-1] [MQTT-3.1.2-2] [MQTT311-3.1.2-1] [MQTT311-3.1.2-2]
#[test]
fn connect_with_a_foreign_name_or_level() {
    for name in [&b"\0\x04MQTt"[..], b"\0\x03MQT", b"\0\0", b"\0\x06MQISDP", b"\0\x05MQTT\0"] {
        let body = [name, b"\x04\x02\0\0\0\x01c"].concat();
        refused(0x10, &body, &VERSIONS, Client, DecodeError::ProtocolName);
    }
    let levels = (0..=255).map(|level| (&b"\0\x04MQTT"[..], level));
    let levels = levels.filter(|(_, level)| ![4, 5, 0x84].contains(level));
    let first = (0..=255).map(|level| (&b"\0\x06MQIsdp"[..], level));
    let first = first.filter(|(_, level)| ![3, 0x83].contains(level));
    for (name, level) in levels.chain(first) {
        let body = [name, &[level], b"\x02\0\0\0\x01c"].concat();
        let error = DecodeError::UnsupportedProtocolVersion { level };
        refused(0x10, &body, &VERSIONS, Client, error);
        assert_eq!(error.kind(), DecodeErrorKind::UnsupportedProtocolVersion);
    }
}

/// [MQTT-3.1.2-3] [MQTT-3.1.2-11] [MQTT-3.1.2-12] [MQTT311-3.1.2-3] [MQTT311-3.1.2-13]
/// [MQTT311-3.1.2-22]
#[test]
fn connect_with_flags_that_contradict() {
    let v3_1_1 = |flags: u8| [b"\0\x04MQTT\x04", &[flags, 0, 60][..], b"\0\x01c"].concat();
    let v5_0 = |flags| connect_5_0(flags, b"", b"\0\x01c");
    let both = |flags, error| {
        refused(0x10, &v3_1_1(flags), &VERSIONS, Client, error);
        refused(0x10, &v5_0(flags), &VERSIONS, Client, error);
    };
    both(0b0000_0011, DecodeError::ReservedConnectFlag);
    both(0b0000_1010, DecodeError::WillFlagsWithoutWill);
    both(0b0001_0010, DecodeError::WillFlagsWithoutWill);
    both(0b0010_0010, DecodeError::WillFlagsWithoutWill);
    both(0b0001_1110, DecodeError::WillQoS);
    refused(0x10, &v3_1_1(0b0100_0010), &VERSIONS, Client, DecodeError::PasswordWithoutUserName);
    let v3_1 = b"\0\x06MQIsdp\x03\x42\0\x3C\0\x01c";
    refused(0x10, v3_1, &VERSIONS, Client, DecodeError::PasswordWithoutUserName);
    // 5.0 allows it.
    let bytes = with_header(0x10, &connect_5_0(0b0100_0010, b"", b"\0\x01c\0\x01p"));
    assert!(decode_whole(&bytes, V5_0, Client).is_ok());
}

/// [MQTT-3.1.3-1] [MQTT-4.7.1-1] [MQTT-4.7.3-1]
#[test]
fn connect_with_parts_missing_left_over_or_invalid() {
    let v3_1_1 = |flags: u8, rest: &[u8]| [b"\0\x04MQTT\x04", &[flags, 0, 60][..], rest].concat();
    let case = |flags, rest: &[u8], error| {
        refused(0x10, &v3_1_1(flags, rest), &VERSIONS, Client, error);
    };
    case(0x02, b"", DecodeError::Truncated);
    case(0x02, b"\0\x02c", DecodeError::Truncated);
    case(0x02, b"\0\x01c\0", DecodeError::TrailingBytes);
    case(0x82, b"\0\x01c", DecodeError::Truncated);
    case(0xC2, b"\0\x01c\0\x01u", DecodeError::Truncated);
    case(0xC2, b"\0\x01c\0\x01u\0\x01pp", DecodeError::TrailingBytes);
    case(0x06, b"\0\x01c\0\x01w", DecodeError::Truncated);
    case(0x06, b"\0\x01c\0\x01#\0\0", DecodeError::WillTopicInvalid);
    case(0x06, b"\0\x01c\0\x03a/+\0\0", DecodeError::WillTopicInvalid);
    case(0x06, b"\0\x01c\0\0\0\0", DecodeError::WillTopicInvalid);
    case(0x06, b"\0\x01c\0\x01\0\0\0", DecodeError::StringContainsNul);
    case(0x02, b"\0\x01\0", DecodeError::StringContainsNul);
    case(0x02, b"\0\x01\xFF", DecodeError::StringNotUtf8);
    // U+D800, which ill-formed encoders write. [MQTT-1.5.4-1]
    case(0x02, b"\0\x03\xED\xA0\x80", DecodeError::StringNotUtf8);
    case(0x82, b"\0\x01c\0\x01\0", DecodeError::StringContainsNul);
    refused(0x10, b"\0\x04MQTT\x04\x02\0", &VERSIONS, Client, DecodeError::Truncated);
    refused(0x10, b"\0\x04MQTT\x04", &VERSIONS, Client, DecodeError::Truncated);
    refused(0x10, b"\0\x04MQTT", &VERSIONS, Client, DecodeError::Truncated);
    refused(0x10, b"", &VERSIONS, Client, DecodeError::Truncated);
    refused(0x10, b"\0\x04MQTT\x05\x02\0\x3C", ONLY_5_0, Client, DecodeError::Truncated);
}

/// [MQTT-3.1.2.11] [MQTT-2.2.2.2]
#[test]
fn connect_with_properties_out_of_range_or_place() {
    let case = |properties: &[u8], error| {
        let body = connect_5_0(0x02, properties, b"\0\x01c");
        refused(0x10, &body, ONLY_5_0, Client, error);
    };
    case(b"\x21\0\0", DecodeError::PropertyValue(0x21));
    case(b"\x27\0\0\0\0", DecodeError::PropertyValue(0x27));
    case(b"\x17\x02", DecodeError::PropertyValue(0x17));
    case(b"\x19\xFF", DecodeError::PropertyValue(0x19));
    case(b"\x16\0\0", DecodeError::AuthenticationDataWithoutMethod);
    case(b"\x21\0\x01\x21\0\x01", DecodeError::PropertyDoubled(0x21));
    case(b"\x18\0\0\0\x01", DecodeError::PropertyNotAllowed(0x18));
    case(b"\x12\0\x01i", DecodeError::PropertyNotAllowed(0x12));
    case(b"\0\0", DecodeError::UnknownProperty(0));
    case(b"\x2B\0", DecodeError::UnknownProperty(0x2B));
    case(b"\x91\0\0\0\0\x05", DecodeError::UnknownProperty(0x91));
    case(b"\xFF\0", DecodeError::UnknownProperty(0xFF));
    case(b"\x11\0\0\0", DecodeError::Truncated);
    case(b"\x11", DecodeError::Truncated);
    case(b"\x26\0\x01k", DecodeError::Truncated);
    case(b"\x26\0\x01k\0\x01\0", DecodeError::StringContainsNul);
    // The Property Length points behind the end of the packet; the properties end within a field.
    let body = b"\0\x04MQTT\x05\x02\0\x3C\x09\x21\0\x01\0\x01c";
    refused(0x10, body, ONLY_5_0, Client, DecodeError::Truncated);
    let body = b"\0\x04MQTT\x05\x02\0\x3C\x02\x21\0\x01\0\x01c";
    refused(0x10, body, ONLY_5_0, Client, DecodeError::Truncated);
    let body = b"\0\x04MQTT\x05\x02\0\x3C\x80\0\0\x01c";
    refused(0x10, body, ONLY_5_0, Client, DecodeError::IntegerNotMinimal);
    let body = b"\0\x04MQTT\x05\x02\0\x3C\x80\x80\x80\x80\0\0\x01c";
    refused(0x10, body, ONLY_5_0, Client, DecodeError::IntegerTooLong);
}

/// [MQTT-3.1.3.2]
#[test]
fn will_with_properties_out_of_range_or_place() {
    let case = |properties: &[u8], error| {
        let length = [u8::try_from(properties.len()).expect("short")];
        let rest = [b"\0\x01c", &length[..], properties, b"\0\x01w\0\0"].concat();
        refused(0x10, &connect_5_0(0x06, b"", &rest), ONLY_5_0, Client, error);
    };
    case(b"\x01\x02", DecodeError::PropertyValue(0x01));
    case(b"\x18\0\0\0\x01\x18\0\0\0\x01", DecodeError::PropertyDoubled(0x18));
    case(b"\x23\0\x01", DecodeError::PropertyNotAllowed(0x23));
    case(b"\x0B\x01", DecodeError::PropertyNotAllowed(0x0B));
    case(b"\x11\0\0\0\x01", DecodeError::PropertyNotAllowed(0x11));
    case(b"\x08\0\x01#", DecodeError::ResponseTopicInvalid);
}

/// [MQTT-3.2.2-1] [MQTT-3.2.2-6] [MQTT-3.2.2-8]
#[test]
fn connack() {
    let modern = &[V3_1_1];
    refused(0x20, b"\x02\0", modern, Server, DecodeError::ReservedConnackFlags);
    refused(0x20, b"\x80\0\0", ONLY_5_0, Server, DecodeError::ReservedConnackFlags);
    refused(0x20, b"\x01\x05", modern, Server, DecodeError::SessionPresentInRefusal);
    refused(0x20, b"\x01\x87\0", ONLY_5_0, Server, DecodeError::SessionPresentInRefusal);
    refused(0x20, b"\0\x06", BEFORE_5_0, Server, DecodeError::ReasonCode(6));
    refused(0x20, b"\0\x01\0", ONLY_5_0, Server, DecodeError::ReasonCode(1));
    refused(0x20, b"\0\x8E\0", ONLY_5_0, Server, DecodeError::ReasonCode(0x8E));
    refused(0x20, b"\0", &VERSIONS, Server, DecodeError::Truncated);
    refused(0x20, b"\0\0", ONLY_5_0, Server, DecodeError::Truncated);
    refused(0x20, b"\0\0\0", BEFORE_5_0, Server, DecodeError::TrailingBytes);
    refused(0x20, b"\0\0\0\0", ONLY_5_0, Server, DecodeError::TrailingBytes);
    refused(0x20, b"\0\0\x02\x24\x02", ONLY_5_0, Server, DecodeError::PropertyValue(0x24));
    refused(0x20, b"\0\0\x02\x25\x02", ONLY_5_0, Server, DecodeError::PropertyValue(0x25));
    refused(0x20, b"\0\0\x02\x28\x02", ONLY_5_0, Server, DecodeError::PropertyValue(0x28));
    refused(0x20, b"\0\0\x02\x29\x02", ONLY_5_0, Server, DecodeError::PropertyValue(0x29));
    refused(0x20, b"\0\0\x02\x2A\x02", ONLY_5_0, Server, DecodeError::PropertyValue(0x2A));
    refused(0x20, b"\0\0\x02\x17\x01", ONLY_5_0, Server, DecodeError::PropertyNotAllowed(0x17));
    let error = DecodeError::AuthenticationDataWithoutMethod;
    refused(0x20, b"\0\0\x03\x16\0\0", ONLY_5_0, Server, error);
}

/// [MQTT-3.3.1-2] [MQTT-3.3.1-4] [MQTT-3.3.2-2] [MQTT-2.2.1-3] [MQTT311-2.3.1-1]
#[test]
fn publish() {
    refused(0x36, b"\0\x01a\0\x01\0", &VERSIONS, Client, DecodeError::PublishQoS);
    refused(0x3F, b"\0\x01a\0\x01\0", &VERSIONS, Client, DecodeError::PublishQoS);
    refused(0x38, b"\0\x01a\0", &VERSIONS, Client, DecodeError::DupAtQoS0);
    refused(0x32, b"\0\x01a\0\0\0", &VERSIONS, Client, DecodeError::PacketIdZero);
    refused(0x32, b"\0\x01a\0", &VERSIONS, Client, DecodeError::Truncated);
    refused(0x30, b"\0\x02a", &VERSIONS, Client, DecodeError::Truncated);
    refused(0x30, b"\0", &VERSIONS, Client, DecodeError::Truncated);
    refused(0x30, b"", &VERSIONS, Client, DecodeError::Truncated);
    refused(0x30, b"\0\x01a", ONLY_5_0, Client, DecodeError::Truncated);
    refused(0x30, b"\0\x01+\0", &VERSIONS, Client, DecodeError::TopicNameWildcard);
    refused(0x30, b"\0\x03a/#\0", &VERSIONS, Client, DecodeError::TopicNameWildcard);
    refused(0x30, b"\0\x03a\0#\0", &VERSIONS, Client, DecodeError::StringContainsNul);
    refused(0x30, b"\0\x02\xC3\x28\0", &VERSIONS, Client, DecodeError::StringNotUtf8);
    refused(0x30, b"\0\0\0", &VERSIONS, Client, DecodeError::TopicNameEmpty);
    refused(0x30, b"\0\0\x02\x01\0", ONLY_5_0, Client, DecodeError::TopicNameEmpty);
}

/// [MQTT-3.3.2.3] [MQTT-3.3.4-6] [MQTT-3.3.2-14]
#[test]
fn publish_with_properties_out_of_range_or_place() {
    let case = |properties: &[u8], sender, error| {
        let length = [u8::try_from(properties.len()).expect("short")];
        let body = [b"\0\x01a", &length[..], properties].concat();
        refused(0x30, &body, ONLY_5_0, sender, error);
    };
    case(b"\x0B\x01", Client, DecodeError::PropertyNotForSender(0x0B));
    case(b"\x0B\0", Server, DecodeError::PropertyValue(0x0B));
    case(b"\x0B\x80\x80\x80\x80\x01", Server, DecodeError::IntegerTooLong);
    case(b"\x0B\x81\0", Server, DecodeError::IntegerNotMinimal);
    case(b"\x01\x02", Client, DecodeError::PropertyValue(0x01));
    case(b"\x01\0\x01\0", Client, DecodeError::PropertyDoubled(0x01));
    case(b"\x02\0\0\0\x01\x02\0\0\0\x01", Client, DecodeError::PropertyDoubled(0x02));
    case(b"\x03\0\0\x03\0\0", Client, DecodeError::PropertyDoubled(0x03));
    case(b"\x08\0\x01a\x08\0\x01a", Client, DecodeError::PropertyDoubled(0x08));
    case(b"\x09\0\0\x09\0\0", Client, DecodeError::PropertyDoubled(0x09));
    case(b"\x23\0\x01\x23\0\x01", Client, DecodeError::PropertyDoubled(0x23));
    case(b"\x08\0\x03a/+", Client, DecodeError::ResponseTopicInvalid);
    case(b"\x08\0\0", Client, DecodeError::ResponseTopicInvalid);
    case(b"\x08\0\x01\0", Client, DecodeError::StringContainsNul);
    case(b"\x1F\0\x01r", Client, DecodeError::PropertyNotAllowed(0x1F));
    case(b"\x18\0\0\0\x01", Client, DecodeError::PropertyNotAllowed(0x18));
    case(b"\x09\0\x05d", Client, DecodeError::Truncated);
}

/// [MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.6.2-1] [MQTT-3.7.2-1]
#[test]
fn acknowledgements() {
    for first in [0x40, 0x50, 0x62, 0x70] {
        refused(first, b"\0\0", &VERSIONS, Client, DecodeError::PacketIdZero);
        refused(first, b"\0", &VERSIONS, Client, DecodeError::Truncated);
        refused(first, b"", &VERSIONS, Client, DecodeError::Truncated);
        refused(first, b"\0\x01\0", BEFORE_5_0, Client, DecodeError::TrailingBytes);
        refused(first, b"\0\x01\0\0\0", ONLY_5_0, Client, DecodeError::TrailingBytes);
        refused(first, b"\0\x01\x01", ONLY_5_0, Client, DecodeError::ReasonCode(1));
        refused(first, b"\0\x01\x8E", ONLY_5_0, Client, DecodeError::ReasonCode(0x8E));
        refused(first, b"\0\x01\0\x02\x01\0", ONLY_5_0, Client, DecodeError::PropertyNotAllowed(1));
        refused(first, b"\0\x01\0\x01\x1F", ONLY_5_0, Client, DecodeError::Truncated);
        let doubled = b"\0\x01\0\x06\x1F\0\0\x1F\0\0";
        refused(first, doubled, ONLY_5_0, Client, DecodeError::PropertyDoubled(0x1F));
    }
    for first in [0x40, 0x50] {
        refused(first, b"\0\x01\x92", ONLY_5_0, Client, DecodeError::ReasonCode(0x92));
    }
    for first in [0x62, 0x70] {
        refused(first, b"\0\x01\x10", ONLY_5_0, Client, DecodeError::ReasonCode(0x10));
    }
}

/// [MQTT-3.8.3-2] [MQTT-3.8.3-5] [MQTT311-3.8.3-3] [MQTT311-3.8.3-4]
#[test]
fn subscribe() {
    refused(0x82, b"\0\0\0\x01a\0", BEFORE_5_0, Client, DecodeError::PacketIdZero);
    refused(0x82, b"\0\0\0\0\x01a\0", ONLY_5_0, Client, DecodeError::PacketIdZero);
    refused(0x82, b"\0\x01", BEFORE_5_0, Client, DecodeError::PayloadMissing);
    refused(0x82, b"\0\x01\0", ONLY_5_0, Client, DecodeError::PayloadMissing);
    refused(0x82, b"\0\x01\0\x01a", BEFORE_5_0, Client, DecodeError::Truncated);
    refused(0x82, b"\0\x01\0\x01a\0\0", BEFORE_5_0, Client, DecodeError::Truncated);
    refused(0x82, b"\0\x01\0\x01\0\0", BEFORE_5_0, Client, DecodeError::StringContainsNul);
    refused(0x82, b"\0\x01\0\x01\xFF\0", BEFORE_5_0, Client, DecodeError::StringNotUtf8);
    refused(0x82, b"\0\x01\0\x01a\x03", BEFORE_5_0, Client, DecodeError::SubscriptionQoS);
    refused(0x82, b"\0\x01\0\0\x01a\x03", ONLY_5_0, Client, DecodeError::SubscriptionQoS);
    refused(0x82, b"\0\x01\0\0\x01a\x30", ONLY_5_0, Client, DecodeError::RetainHandling);
    for bit in 2..8 {
        let body = [b"\0\x01\0\x01a", &[1_u8 << bit][..]].concat();
        refused(0x82, &body, BEFORE_5_0, Client, DecodeError::ReservedSubscriptionOptions);
    }
    for options in [0x40, 0x80, 0xC1] {
        let body = [b"\0\x01\0\0\x01a", &[options][..]].concat();
        refused(0x82, &body, ONLY_5_0, Client, DecodeError::ReservedSubscriptionOptions);
    }
    let case = |properties: &[u8], error| {
        let length = [u8::try_from(properties.len()).expect("short")];
        let body = [b"\0\x01", &length[..], properties, b"\0\x01a\0"].concat();
        refused(0x82, &body, ONLY_5_0, Client, error);
    };
    case(b"\x0B\0", DecodeError::PropertyValue(0x0B));
    case(b"\x0B\x01\x0B\x02", DecodeError::PropertyDoubled(0x0B));
    case(b"\x1F\0\0", DecodeError::PropertyNotAllowed(0x1F));
}

/// [MQTT-3.9.3-2] [MQTT-3.11.3-2] [MQTT311-3.9.3-2]
#[test]
fn suback_and_unsuback() {
    refused(0x90, b"\0\x01", BEFORE_5_0, Server, DecodeError::PayloadMissing);
    refused(0x90, b"\0\x01\0", ONLY_5_0, Server, DecodeError::PayloadMissing);
    refused(0x90, b"\0\x01\x03", BEFORE_5_0, Server, DecodeError::ReasonCode(3));
    refused(0x90, b"\0\x01\x87", BEFORE_5_0, Server, DecodeError::ReasonCode(0x87));
    refused(0x90, b"\0\x01\0\x11", ONLY_5_0, Server, DecodeError::ReasonCode(0x11));
    refused(0x90, b"\0\0\x01", BEFORE_5_0, Server, DecodeError::PacketIdZero);
    refused(0xB0, b"\0\0", &VERSIONS, Server, DecodeError::PacketIdZero);
    refused(0xB0, b"\0\x01\0", BEFORE_5_0, Server, DecodeError::TrailingBytes);
    refused(0xB0, b"\0\x01\0", ONLY_5_0, Server, DecodeError::PayloadMissing);
    refused(0xB0, b"\0\x01\0\x01", ONLY_5_0, Server, DecodeError::ReasonCode(1));
}

/// [MQTT-3.10.3-2] [MQTT311-3.10.3-2]
#[test]
fn unsubscribe() {
    refused(0xA2, b"\0\0\0\x01a", BEFORE_5_0, Client, DecodeError::PacketIdZero);
    refused(0xA2, b"\0\x01", BEFORE_5_0, Client, DecodeError::PayloadMissing);
    refused(0xA2, b"\0\x01\0", ONLY_5_0, Client, DecodeError::PayloadMissing);
    refused(0xA2, b"\0\x01\0\x02a", BEFORE_5_0, Client, DecodeError::Truncated);
    let body = b"\0\x01\x02\x0B\x01\0\x01a";
    refused(0xA2, body, ONLY_5_0, Client, DecodeError::PropertyNotAllowed(0x0B));
}

/// [MQTT-3.12] [MQTT-3.13] [MQTT311-3.12] [MQTT311-3.14]
#[test]
fn packets_that_must_be_empty() {
    refused(0xC0, b"\0", &VERSIONS, Client, DecodeError::TrailingBytes);
    refused(0xD0, b"\0", &VERSIONS, Server, DecodeError::TrailingBytes);
    refused(0xE0, b"\0", BEFORE_5_0, Client, DecodeError::TrailingBytes);
}

/// [MQTT-3.14.2-1] [MQTT-3.14.2-2]
#[test]
fn disconnect() {
    refused(0xE0, b"\x01", ONLY_5_0, Client, DecodeError::ReasonCode(1));
    refused(0xE0, b"\x86", ONLY_5_0, Client, DecodeError::ReasonCode(0x86));
    refused(0xE0, b"\xFF", ONLY_5_0, Client, DecodeError::ReasonCode(0xFF));
    refused(0xE0, b"\0\0\0", ONLY_5_0, Client, DecodeError::TrailingBytes);
    let expiry = b"\0\x05\x11\0\0\0\x01";
    refused(0xE0, expiry, ONLY_5_0, Server, DecodeError::PropertyNotForSender(0x11));
    let reference = b"\0\x03\x1C\0\0";
    refused(0xE0, reference, ONLY_5_0, Client, DecodeError::PropertyNotForSender(0x1C));
    refused(0xE0, b"\0\x02\x24\0", ONLY_5_0, Client, DecodeError::PropertyNotAllowed(0x24));
    let doubled = b"\0\x0A\x11\0\0\0\x01\x11\0\0\0\x01";
    refused(0xE0, doubled, ONLY_5_0, Client, DecodeError::PropertyDoubled(0x11));
}

/// [MQTT-3.15.2-1] [MQTT-3.15.2.2.2]
#[test]
fn auth() {
    refused(0xF0, b"\x01", ONLY_5_0, Client, DecodeError::ReasonCode(1));
    refused(0xF0, b"\x18", ONLY_5_0, Client, DecodeError::Truncated);
    refused(0xF0, b"\x18\0", ONLY_5_0, Client, DecodeError::AuthenticationMethodMissing);
    let data = b"\x18\x03\x16\0\0";
    refused(0xF0, data, ONLY_5_0, Client, DecodeError::AuthenticationMethodMissing);
    let doubled = b"\x18\x06\x15\0\0\x15\0\0";
    refused(0xF0, doubled, ONLY_5_0, Client, DecodeError::PropertyDoubled(0x15));
    let foreign = b"\x18\x05\x11\0\0\0\0";
    refused(0xF0, foreign, ONLY_5_0, Client, DecodeError::PropertyNotAllowed(0x11));
    refused(0xF0, b"\x18\x03\x15\0\0\0", ONLY_5_0, Client, DecodeError::TrailingBytes);
}

/// What a Network Connection is closed with follows the words of the specification.
#[test]
fn kinds_follow_the_specification() {
    use DecodeErrorKind::{Malformed, PacketTooLarge, ProtocolError, TopicNameInvalid};
    for (error, kind) in [
        (DecodeError::PropertyNotAllowed(1), Malformed),
        (DecodeError::ReservedFlags(1), Malformed),
        (DecodeError::PublishQoS, Malformed),
        (DecodeError::WillQoS, Malformed),
        (DecodeError::ReservedSubscriptionOptions, Malformed),
        (DecodeError::PropertyDoubled(1), ProtocolError),
        (DecodeError::PropertyValue(0x21), ProtocolError),
        (DecodeError::TopicNameEmpty, ProtocolError),
        (DecodeError::PayloadMissing, ProtocolError),
        (DecodeError::RetainHandling, ProtocolError),
        (DecodeError::AuthenticationDataWithoutMethod, ProtocolError),
        (DecodeError::TopicNameWildcard, TopicNameInvalid),
        (DecodeError::WillTopicInvalid, TopicNameInvalid),
        (DecodeError::PacketTooLarge { bytes: 2, max_bytes: 1 }, PacketTooLarge),
    ] {
        assert_eq!(error.kind(), kind, "{error}");
    }
}
