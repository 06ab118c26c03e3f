//! Exact bytes of every packet in every version, in both directions, because a round trip cannot detect a symmetric
//! mistake.

use std::borrow::Cow;

use super::{VERSIONS, decode_whole, encode, id};
use crate::packet::{
    Packet, ProtocolVersion, QoS,
    acknowledgement::{
        Acknowledgement, AcknowledgementKind, Puback, Pubcomp, Pubrec, Pubrel,
        encode_acknowledgement,
    },
    auth::Auth,
    connack::{Connack, ConnackProperties},
    connect::{Connect, ConnectProperties, Will, requested_version},
    decode::Sender,
    disconnect::Disconnect,
    publish::Publish,
    reason_code::ReasonCode,
    subscribe::{RetainHandling, Suback, Subscribe, SubscriptionOptions},
    unsubscribe::{Unsuback, Unsubscribe},
};

use ProtocolVersion::{V3_1, V3_1_1, V5_0};
use Sender::{Client, Server};

/// `bytes` are `packet`, and `packet` is encoded as `bytes`.
#[track_caller]
fn equal(bytes: &[u8], version: ProtocolVersion, sender: Sender, packet: &Packet<'_>) {
    assert_eq!(decode_whole(bytes, version, sender).as_ref(), Ok(packet));
    assert_eq!(encode(packet, version), bytes, "encoded");
}

fn connect(version: ProtocolVersion) -> Connect<'static> {
    Connect {
        version,
        bridge_bit: false,
        clean_start: true,
        keep_alive_seconds: 60,
        client_id: "c",
        will: None,
        user_name: None,
        password: None,
        properties: ConnectProperties::default(),
    }
}

fn connect_packet(connect: Connect<'_>) -> Packet<'_> {
    Packet::Connect(Box::new(connect))
}

/// A CONNACK without properties.
fn refusal(reason: ReasonCode) -> Connack<'static> {
    Connack { session_present: false, reason, properties: ConnackProperties::default() }
}

/// [MQTT-3.1.2-1] [MQTT311-3.1.2-1]
#[test]
fn connect_names_its_version_whatever_was_spoken_before() {
    let v3_1 = b"\x10\x0F\0\x06MQIsdp\x03\x02\0\x3C\0\x01c";
    let v3_1_1 = b"\x10\x0D\0\x04MQTT\x04\x02\0\x3C\0\x01c";
    let v5_0 = b"\x10\x0E\0\x04MQTT\x05\x02\0\x3C\0\0\x01c";
    equal(v3_1, V3_1, Client, &connect_packet(connect(V3_1)));
    equal(v3_1_1, V3_1_1, Client, &connect_packet(connect(V3_1_1)));
    equal(v5_0, V5_0, Client, &connect_packet(connect(V5_0)));
    for spoken in VERSIONS {
        let decoded = |bytes| decode_whole(bytes, spoken, Client).expect("well-formed");
        assert_eq!(decoded(v3_1), connect_packet(connect(V3_1)));
        assert_eq!(decoded(v3_1_1), connect_packet(connect(V3_1_1)));
        assert_eq!(decoded(v5_0), connect_packet(connect(V5_0)));
    }
}

#[test]
fn connect_has_the_bridge_bit_in_its_protocol_level() {
    let with_bit = |version| connect_packet(Connect { bridge_bit: true, ..connect(version) });
    equal(b"\x10\x0F\0\x06MQIsdp\x83\x02\0\x3C\0\x01c", V3_1, Client, &with_bit(V3_1));
    equal(b"\x10\x0D\0\x04MQTT\x84\x02\0\x3C\0\x01c", V3_1_1, Client, &with_bit(V3_1_1));
}

#[test]
fn the_requested_version_shows_even_where_the_rest_is_malformed() {
    assert_eq!(requested_version(b"\x10\x0E\0\x04MQTT\x05\xFF"), Some(V5_0));
    assert_eq!(requested_version(b"\x10\x0E\0\x04MQTT\x04"), Some(V3_1_1));
    assert_eq!(requested_version(b"\x10\x0E\0\x04MQTT"), None);
    assert_eq!(requested_version(b"\x10\x0E\0\x04MQTT\x06"), None);
    assert_eq!(requested_version(b"\x30\x0E\0\x04MQTT\x05"), None);
    assert_eq!(requested_version(b""), None);
}

/// [MQTT-3.1.3-1] [MQTT311-3.1.3-1]
#[test]
fn connect_carries_will_user_name_and_password_in_this_order() {
    let will = Will {
        qos: QoS::ExactlyOnce,
        retain: true,
        topic: "w/t",
        payload: b"\0\xFF",
        delay_seconds: None,
        message_expiry: None,
        properties: Cow::Borrowed(&[]),
    };
    let full = |version| {
        connect_packet(Connect {
            clean_start: false,
            client_id: "",
            will: Some(will.clone()),
            user_name: Some("u"),
            password: Some(b"\0p"),
            ..connect(version)
        })
    };
    let tail = b"\0\0\0\x03w/t\0\x02\0\xFF\0\x01u\0\x02\0p";
    let v3_1 = [b"\x10\x1E\0\x06MQIsdp\x03\xF4\0\x3C".as_slice(), tail].concat();
    equal(&v3_1, V3_1, Client, &full(V3_1));
    let v3_1_1 = [b"\x10\x1C\0\x04MQTT\x04\xF4\0\x3C".as_slice(), tail].concat();
    equal(&v3_1_1, V3_1_1, Client, &full(V3_1_1));
    let v5_0 = b"\x10\x1E\0\x04MQTT\x05\xF4\0\x3C\0\0\0\0\0\x03w/t\0\x02\0\xFF\0\x01u\0\x02\0p";
    equal(v5_0, V5_0, Client, &full(V5_0));
}

/// In 3.1 the Remaining Length takes precedence over the flags of User Name and Password.
#[test]
fn connect_of_3_1_may_lack_what_its_flags_announce() {
    let bytes = b"\x10\x0F\0\x06MQIsdp\x03\xC2\0\x3C\0\x01c";
    let decoded = decode_whole(bytes, V3_1, Client);
    assert_eq!(decoded, Ok(connect_packet(connect(V3_1))));
    let bytes = b"\x10\x12\0\x06MQIsdp\x03\xC2\0\x3C\0\x01c\0\x01u";
    let decoded = decode_whole(bytes, V3_1, Client);
    assert_eq!(decoded, Ok(connect_packet(Connect { user_name: Some("u"), ..connect(V3_1) })));
    // Bit 0 of the flags is not used in 3.1, while 3.1.1 reserves it.
    let bytes = b"\x10\x0F\0\x06MQIsdp\x03\x03\0\x3C\0\x01c";
    assert_eq!(decode_whole(bytes, V3_1, Client), Ok(connect_packet(connect(V3_1))));
}

/// [MQTT-3.1.2.11]
#[test]
fn connect_carries_every_property_of_5_0() {
    let bytes = [
        b"\x10\x38\0\x04MQTT\x05\x02\0\x3C\x2A".as_slice(),
        b"\x11\0\0\0\x0A\x21\0\x14\x27\0\0\x01\0\x22\0\x05\x19\x01\x17\0",
        b"\x26\0\x01a\0\x01b\x26\0\x01a\0\0\x15\0\x01m\x16\0\x02\0\x01\0\x01c",
    ]
    .concat();
    let properties = ConnectProperties {
        session_expiry_seconds: Some(10),
        receive_maximum: Some(20),
        maximum_packet_bytes: Some(256),
        topic_alias_maximum: Some(5),
        request_response_information: Some(true),
        request_problem_information: Some(false),
        user_properties: vec![("a", "b"), ("a", "")],
        authentication_method: Some("m"),
        authentication_data: Some(b"\0\x01"),
    };
    equal(&bytes, V5_0, Client, &connect_packet(Connect { properties, ..connect(V5_0) }));
}

/// [MQTT-3.1.3.2]
#[test]
fn will_properties_of_the_will_and_of_its_message_are_told_apart() {
    let forwarded = b"\x01\x01\x03\0\x01t\x08\0\x01r\x09\0\x01d\x26\0\x01k\0\x01v";
    let own = b"\x18\0\0\0\x07\x02\0\0\0\x08";
    let bytes = [
        b"\x10\x35\0\x04MQTT\x05\x06\0\x3C\0\0\x01c\x1F".as_slice(),
        own,
        forwarded,
        b"\0\x01w\0\x02hi",
    ]
    .concat();
    let will = Will {
        qos: QoS::AtMostOnce,
        retain: false,
        topic: "w",
        payload: b"hi",
        delay_seconds: Some(7),
        message_expiry: Some(8),
        properties: Cow::Borrowed(forwarded),
    };
    let packet = connect_packet(Connect { will: Some(will), ..connect(V5_0) });
    equal(&bytes, V5_0, Client, &packet);
}

/// [MQTT-3.2] [MQTT311-3.2]
#[test]
fn connack_says_session_present_and_reason() {
    let accepted = |session_present| {
        Packet::Connack(Box::new(Connack { session_present, ..refusal(ReasonCode::Success) }))
    };
    equal(b"\x20\x02\0\0", V3_1, Server, &accepted(false));
    equal(b"\x20\x02\0\0", V3_1_1, Server, &accepted(false));
    equal(b"\x20\x02\x01\0", V3_1_1, Server, &accepted(true));
    equal(b"\x20\x03\x01\0\0", V5_0, Server, &accepted(true));
    // MQTT 3.1 has no Session Present.
    assert_eq!(encode(&accepted(true), V3_1), b"\x20\x02\0\0");
}

/// [MQTT311-3.2.2-6]
#[test]
fn connack_maps_reasons_to_return_codes() {
    for (reason, code) in [
        (ReasonCode::UnsupportedProtocolVersion, 1),
        (ReasonCode::ClientIdentifierNotValid, 2),
        (ReasonCode::ServerUnavailable, 3),
        (ReasonCode::BadUserNameOrPassword, 4),
        (ReasonCode::NotAuthorized, 5),
    ] {
        let refusal = Packet::Connack(Box::new(refusal(reason)));
        equal(&[0x20, 2, 0, code], V3_1, Server, &refusal);
        equal(&[0x20, 2, 0, code], V3_1_1, Server, &refusal);
        equal(&[0x20, 3, 0, reason as u8, 0], V5_0, Server, &refusal);
    }
    // Many reasons share a return code; none of them may look like acceptance, and all exist.
    for reason in (0x80..=0xFF).filter_map(ReasonCode::from_u8) {
        let bytes = encode(&Packet::Connack(Box::new(refusal(reason))), V3_1_1);
        assert!(matches!(bytes[..], [0x20, 2, 0, 1..=5]), "{reason:?}");
    }
}

/// [MQTT-3.2.2.3]
#[test]
fn connack_carries_every_property() {
    let bytes = [
        b"\x11\0\0\0\x01\x21\0\x02\x24\x01\x25\0\x27\0\0\0\x03\x12\0\x01i".as_slice(),
        b"\x22\0\x04\x1F\0\x01r\x26\0\x01k\0\x01v\x28\0\x29\x01\x2A\0\x13\0\x05\x1A\0\x01n",
        b"\x1C\0\x01s\x15\0\x01m\x16\0\x01d",
    ]
    .concat();
    let length = u8::try_from(bytes.len()).expect("short");
    let bytes = [&[0x20, length + 3, 0, 0, length], bytes.as_slice()].concat();
    let properties = ConnackProperties {
        session_expiry_seconds: Some(1),
        receive_maximum: Some(2),
        maximum_qos: Some(QoS::AtLeastOnce),
        retain_available: Some(false),
        maximum_packet_bytes: Some(3),
        assigned_client_id: Some("i"),
        topic_alias_maximum: Some(4),
        reason_string: Some("r"),
        user_properties: vec![("k", "v")],
        wildcard_subscription_available: Some(false),
        subscription_identifiers_available: Some(true),
        shared_subscription_available: Some(false),
        server_keep_alive_seconds: Some(5),
        response_information: Some("n"),
        server_reference: Some("s"),
        authentication_method: Some("m"),
        authentication_data: Some(b"d"),
    };
    let connack = Connack { properties, ..refusal(ReasonCode::Success) };
    equal(&bytes, V5_0, Server, &Packet::Connack(Box::new(connack)));
}

/// Maximum QoS 2 is said by leaving the property out. [MQTT-3.2.2.3.4]
#[test]
fn connack_leaves_maximum_qos_2_out() {
    let mut connack = refusal(ReasonCode::Success);
    connack.properties.maximum_qos = Some(QoS::ExactlyOnce);
    assert_eq!(encode(&Packet::Connack(Box::new(connack)), V5_0), b"\x20\x03\0\0\0");
}

fn publish() -> Publish<'static> {
    Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: "a/b",
        packet_id: None,
        topic_alias: None,
        message_expiry: None,
        subscription_ids: Vec::new(),
        properties: Cow::Borrowed(&[]),
        payload: b"\0\xFFx",
    }
}

/// [MQTT-3.3.1] [MQTT311-3.3.1]
#[test]
fn publish_has_flags_topic_identifier_and_payload() {
    let at_most_once = Packet::Publish(publish());
    equal(b"\x30\x08\0\x03a/b\0\xFFx", V3_1, Client, &at_most_once);
    equal(b"\x30\x08\0\x03a/b\0\xFFx", V3_1_1, Client, &at_most_once);
    equal(b"\x30\x09\0\x03a/b\0\0\xFFx", V5_0, Client, &at_most_once);

    let packet_id = Some(id(0x0A0B));
    let qos = QoS::AtLeastOnce;
    let at_least_once =
        Packet::Publish(Publish { dup: true, qos, packet_id, payload: b"", ..publish() });
    equal(b"\x3A\x07\0\x03a/b\x0A\x0B", V3_1, Client, &at_least_once);
    equal(b"\x3A\x07\0\x03a/b\x0A\x0B", V3_1_1, Client, &at_least_once);
    equal(b"\x3A\x08\0\x03a/b\x0A\x0B\0", V5_0, Client, &at_least_once);

    let qos = QoS::ExactlyOnce;
    let exactly_once = Packet::Publish(Publish { retain: true, qos, packet_id, ..publish() });
    equal(b"\x35\x0A\0\x03a/b\x0A\x0B\0\xFFx", V3_1_1, Client, &exactly_once);
    equal(b"\x35\x0B\0\x03a/b\x0A\x0B\0\0\xFFx", V5_0, Client, &exactly_once);
}

/// [MQTT-3.3.2.3] [MQTT-3.3.2-18]
#[test]
fn publish_keeps_forwarded_properties_apart_and_in_order() {
    let forwarded =
        b"\x26\0\x01b\0\x01x\x01\x01\x03\0\x02ct\x08\0\x02rt\x09\0\x01d\x26\0\x01a\0\x01y";
    let own = b"\x23\0\x07\x02\0\0\0\x2A\x0B\x01\x0B\xFF\xFF\xFF\x7F";
    let length = u8::try_from(own.len() + forwarded.len()).expect("short");
    let head = [0x30, length + 6, 0, 2, b't', b't', length];
    let bytes = [head.as_slice(), own, forwarded, b"P"].concat();
    let packet = Publish {
        topic: "tt",
        topic_alias: Some(7),
        message_expiry: Some(42),
        subscription_ids: vec![1, 268_435_455],
        properties: Cow::Borrowed(forwarded),
        payload: b"P",
        ..publish()
    };
    equal(&bytes, V5_0, Server, &Packet::Publish(packet));
}

/// The usual orders of properties are borrowed, a mixed one is copied; both hold the same.
#[test]
fn publish_borrows_forwarded_properties_that_lie_side_by_side() {
    let properties = |bytes| match decode_whole(bytes, V5_0, Client) {
        Ok(Packet::Publish(publish)) => publish.properties,
        other => panic!("{other:?}"),
    };
    let behind = properties(b"\x30\x0C\0\x01a\x07\x02\0\0\0\x09\x01\x01x");
    assert!(matches!(behind, Cow::Borrowed(b"\x01\x01")), "{behind:?}");
    let between = properties(b"\x30\x0F\0\x01a\x0A\x23\0\x01\x01\x01\x02\0\0\0\x09x");
    assert!(matches!(between, Cow::Borrowed(b"\x01\x01")), "{between:?}");
    let around = properties(b"\x30\x12\0\x01a\x0D\x01\x01\x02\0\0\0\x09\x03\0\0\x09\0\0x");
    assert_eq!(around, Cow::<[u8]>::Owned(b"\x01\x01\x03\0\0\x09\0\0".to_vec()));
    assert!(matches!(around, Cow::Owned(_)));
}

/// [MQTT-3.3.2-8] A Topic Alias may stand for the Topic Name; whether it is a valid one is for the
/// session.
#[test]
fn publish_may_leave_the_topic_to_an_alias() {
    let aliased = |alias| {
        Packet::Publish(Publish { topic: "", topic_alias: Some(alias), payload: b"", ..publish() })
    };
    equal(b"\x30\x06\0\0\x03\x23\0\x09", V5_0, Client, &aliased(9));
    equal(b"\x30\x06\0\0\x03\x23\0\0", V5_0, Client, &aliased(0));
}

/// [MQTT-3.4] [MQTT-3.5] [MQTT-3.6] [MQTT-3.7]
#[test]
fn acknowledgements_have_their_short_and_long_forms() {
    let plain = |reason| Acknowledgement::new(id(0x1234), reason);
    let rich = |reason| Acknowledgement {
        reason_string: Some("r"),
        user_properties: vec![("k", "v")],
        ..plain(reason)
    };
    let all = |acknowledgement: Acknowledgement<'static>| {
        [
            (0x40, AcknowledgementKind::Puback, Packet::Puback(Puback(acknowledgement.clone()))),
            (0x50, AcknowledgementKind::Pubrec, Packet::Pubrec(Pubrec(acknowledgement.clone()))),
            (0x62, AcknowledgementKind::Pubrel, Packet::Pubrel(Pubrel(acknowledgement.clone()))),
            (0x70, AcknowledgementKind::Pubcomp, Packet::Pubcomp(Pubcomp(acknowledgement))),
        ]
    };
    for (first, kind, packet) in all(plain(ReasonCode::Success)) {
        for version in VERSIONS {
            equal(&[first, 2, 0x12, 0x34], version, Client, &packet);
            let mut out = Vec::new();
            encode_acknowledgement(&mut out, kind, id(0x1234), ReasonCode::Success, version);
            assert_eq!(out, [first, 2, 0x12, 0x34]);
        }
        // The long forms of the same.
        for bytes in [vec![first, 3, 0x12, 0x34, 0], vec![first, 4, 0x12, 0x34, 0, 0]] {
            assert_eq!(decode_whole(&bytes, V5_0, Client).as_ref(), Ok(&packet));
        }
    }
    for (first, kind, packet) in
        all(plain(ReasonCode::PacketIdentifierNotFound)).into_iter().skip(2)
    {
        equal(&[first, 3, 0x12, 0x34, 0x92], V5_0, Client, &packet);
        assert_eq!(encode(&packet, V3_1_1), [first, 2, 0x12, 0x34]);
        let mut out = Vec::new();
        let reason = ReasonCode::PacketIdentifierNotFound;
        encode_acknowledgement(&mut out, kind, id(0x1234), reason, V5_0);
        assert_eq!(out, [first, 3, 0x12, 0x34, 0x92]);
    }
    for (first, _, packet) in all(rich(ReasonCode::Success)) {
        let head = [first, 15, 0x12, 0x34, 0, 11];
        let bytes = [head.as_slice(), b"\x1F\0\x01r\x26\0\x01k\0\x01v"].concat();
        equal(&bytes, V5_0, Client, &packet);
        assert_eq!(encode(&packet, V3_1), [first, 2, 0x12, 0x34]);
    }
}

/// MQTT 3.1 lets DUP be set in packets that have QoS 1 themselves.
#[test]
fn packets_of_3_1_may_be_marked_as_duplicates() {
    for (bytes, plain) in [
        (b"\x6A\x02\0\x01".as_slice(), b"\x62\x02\0\x01".as_slice()),
        (b"\x8A\x06\0\x01\0\x01a\x01", b"\x82\x06\0\x01\0\x01a\x01"),
        (b"\xAA\x05\0\x01\0\x01a", b"\xA2\x05\0\x01\0\x01a"),
    ] {
        let duplicate = decode_whole(bytes, V3_1, Client).expect("tolerated");
        assert_eq!(duplicate, decode_whole(plain, V3_1, Client).expect("well-formed"));
    }
}

/// [MQTT-3.8] [MQTT311-3.8]
#[test]
fn subscribe_lists_filters_with_options() {
    let options = |qos| SubscriptionOptions { qos, ..SubscriptionOptions::default() };
    let mut subscribe = Subscribe {
        packet_id: id(10),
        subscription_id: None,
        user_properties: Vec::new(),
        filters: vec![("a/#", options(QoS::AtLeastOnce)), ("+", options(QoS::ExactlyOnce))],
    };
    let packet = Packet::Subscribe(subscribe.clone());
    equal(b"\x82\x0C\0\x0A\0\x03a/#\x01\0\x01+\x02", V3_1, Client, &packet);
    equal(b"\x82\x0C\0\x0A\0\x03a/#\x01\0\x01+\x02", V3_1_1, Client, &packet);
    equal(b"\x82\x0D\0\x0A\0\0\x03a/#\x01\0\x01+\x02", V5_0, Client, &packet);

    subscribe.subscription_id = Some(128);
    subscribe.user_properties = vec![("k", "v")];
    subscribe.filters = vec![
        ("a", SubscriptionOptions { no_local: true, ..options(QoS::AtMostOnce) }),
        ("b", SubscriptionOptions { retain_as_published: true, ..options(QoS::AtMostOnce) }),
        (
            "c",
            SubscriptionOptions {
                retain_handling: RetainHandling::SendIfNew,
                ..options(QoS::AtMostOnce)
            },
        ),
        (
            "d",
            SubscriptionOptions {
                retain_handling: RetainHandling::DoNotSend,
                ..options(QoS::ExactlyOnce)
            },
        ),
    ];
    let bytes = [
        b"\x82\x1D\0\x0A\x0A\x0B\x80\x01\x26\0\x01k\0\x01v".as_slice(),
        b"\0\x01a\x04\0\x01b\x08\0\x01c\x10\0\x01d\x22",
    ]
    .concat();
    equal(&bytes, V5_0, Client, &Packet::Subscribe(subscribe));
}

/// [MQTT-3.9] [MQTT311-3.9.3-2]
#[test]
fn suback_has_a_code_for_each_filter() {
    let reasons =
        vec![ReasonCode::GrantedQoS1, ReasonCode::UnspecifiedError, ReasonCode::GrantedQoS2];
    let mut suback =
        Suback { packet_id: id(10), reason_string: None, user_properties: Vec::new(), reasons };
    let packet = Packet::Suback(suback.clone());
    equal(b"\x90\x05\0\x0A\x01\x80\x02", V3_1, Server, &packet);
    equal(b"\x90\x05\0\x0A\x01\x80\x02", V3_1_1, Server, &packet);
    equal(b"\x90\x06\0\x0A\0\x01\x80\x02", V5_0, Server, &packet);

    suback.reasons = vec![ReasonCode::Success, ReasonCode::NotAuthorized];
    suback.reason_string = Some("r");
    suback.user_properties = vec![("k", "v")];
    let packet = Packet::Suback(suback);
    let bytes = b"\x90\x10\0\x0A\x0B\x1F\0\x01r\x26\0\x01k\0\x01v\0\x87";
    equal(bytes, V5_0, Server, &packet);
    assert_eq!(encode(&packet, V3_1_1), b"\x90\x04\0\x0A\0\x80");
}

/// [MQTT-3.10] [MQTT-3.11] [MQTT311-3.11]
#[test]
fn unsubscribe_and_unsuback() {
    let user_properties = vec![("k", "v")];
    let unsubscribe =
        Unsubscribe { packet_id: id(11), user_properties: Vec::new(), filters: vec!["a/#", "+"] };
    let packet = Packet::Unsubscribe(unsubscribe.clone());
    equal(b"\xA2\x0A\0\x0B\0\x03a/#\0\x01+", V3_1, Client, &packet);
    equal(b"\xA2\x0A\0\x0B\0\x03a/#\0\x01+", V3_1_1, Client, &packet);
    equal(b"\xA2\x0B\0\x0B\0\0\x03a/#\0\x01+", V5_0, Client, &packet);
    let packet = Packet::Unsubscribe(Unsubscribe { user_properties, ..unsubscribe });
    equal(b"\xA2\x12\0\x0B\x07\x26\0\x01k\0\x01v\0\x03a/#\0\x01+", V5_0, Client, &packet);

    let unsuback = |reasons| Unsuback {
        packet_id: id(11),
        reason_string: None,
        user_properties: Vec::new(),
        reasons,
    };
    let packet = Packet::Unsuback(unsuback(Vec::new()));
    equal(b"\xB0\x02\0\x0B", V3_1, Server, &packet);
    equal(b"\xB0\x02\0\x0B", V3_1_1, Server, &packet);
    let reasons = vec![ReasonCode::Success, ReasonCode::NoSubscriptionExisted];
    let packet = Packet::Unsuback(unsuback(reasons));
    equal(b"\xB0\x05\0\x0B\0\0\x11", V5_0, Server, &packet);
    assert_eq!(encode(&packet, V3_1_1), b"\xB0\x02\0\x0B");
}

/// [MQTT-3.12] [MQTT-3.13]
#[test]
fn pings_are_empty() {
    for version in VERSIONS {
        equal(b"\xC0\0", version, Client, &Packet::Pingreq);
        equal(b"\xD0\0", version, Server, &Packet::Pingresp);
    }
}

/// [MQTT-3.14] [MQTT311-3.14]
#[test]
fn disconnect_has_its_short_and_long_forms() {
    let normal = Packet::Disconnect(Disconnect::new(ReasonCode::Success));
    for version in VERSIONS {
        equal(b"\xE0\0", version, Client, &normal);
    }
    assert_eq!(decode_whole(b"\xE0\x01\0", V5_0, Client).as_ref(), Ok(&normal));
    assert_eq!(decode_whole(b"\xE0\x02\0\0", V5_0, Client).as_ref(), Ok(&normal));
    let will = Packet::Disconnect(Disconnect::new(ReasonCode::DisconnectWithWillMessage));
    equal(b"\xE0\x01\x04", V5_0, Client, &will);
    assert_eq!(encode(&will, V3_1_1), b"\xE0\0");

    let client = Disconnect {
        session_expiry_seconds: Some(5),
        reason_string: Some("r"),
        user_properties: vec![("k", "v")],
        ..Disconnect::new(ReasonCode::Success)
    };
    let bytes = b"\xE0\x12\0\x10\x11\0\0\0\x05\x1F\0\x01r\x26\0\x01k\0\x01v";
    equal(bytes, V5_0, Client, &Packet::Disconnect(client));
    let server =
        Disconnect { server_reference: Some("s"), ..Disconnect::new(ReasonCode::UseAnotherServer) };
    equal(b"\xE0\x06\x9C\x04\x1C\0\x01s", V5_0, Server, &Packet::Disconnect(server));
}

/// [MQTT-3.15]
#[test]
fn auth_has_its_short_and_long_forms() {
    let auth = |reason| Auth {
        reason,
        method: None,
        data: None,
        reason_string: None,
        user_properties: Vec::new(),
    };
    equal(b"\xF0\0", V5_0, Server, &Packet::Auth(auth(ReasonCode::Success)));
    let full = Auth {
        method: Some("m"),
        data: Some(b"d"),
        reason_string: Some("r"),
        user_properties: vec![("k", "v")],
        ..auth(ReasonCode::ContinueAuthentication)
    };
    let bytes = b"\xF0\x15\x18\x13\x15\0\x01m\x16\0\x01d\x1F\0\x01r\x26\0\x01k\0\x01v";
    equal(bytes, V5_0, Client, &Packet::Auth(full.clone()));
    let again = Auth { reason: ReasonCode::ReAuthenticate, ..full };
    assert_eq!(encode(&Packet::Auth(again), V5_0)[2], 0x19);
    // There is no AUTH to be sent before 5.0.
    assert!(encode(&Packet::Auth(auth(ReasonCode::Success)), V3_1_1).is_empty());
}
