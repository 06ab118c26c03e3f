//! Cross-checks with the independent codec `mqttbytes`: it reads our encoding, and we decode its encoding to the same
//! packet. Packets that it cannot express are left out, with the reason.

use bytes::BytesMut;
use mqttbytes::{v4, v5};
use proptest::prelude::*;

use super::{VERSIONS, decode_whole, encode, strategies::packet};
use crate::packet::{
    Packet, ProtocolVersion,
    property::{Property, iterate},
};

const MAX_BYTES: usize = 1 << 20;

fn read_v4(bytes: &[u8]) -> v4::Packet {
    v4::read(&mut BytesMut::from(bytes), MAX_BYTES).expect("we encoded it")
}

fn read_v5(bytes: &[u8]) -> v5::Packet {
    v5::read(&mut BytesMut::from(bytes), MAX_BYTES).expect("we encoded it")
}

fn write_v4(packet: &v4::Packet) -> BytesMut {
    let out = &mut BytesMut::new();
    match packet {
        v4::Packet::Connect(packet) => packet.write(out),
        v4::Packet::ConnAck(packet) => packet.write(out),
        v4::Packet::Publish(packet) => packet.write(out),
        v4::Packet::PubAck(packet) => packet.write(out),
        v4::Packet::PubRec(packet) => packet.write(out),
        v4::Packet::PubRel(packet) => packet.write(out),
        v4::Packet::PubComp(packet) => packet.write(out),
        v4::Packet::Subscribe(packet) => packet.write(out),
        v4::Packet::SubAck(packet) => packet.write(out),
        v4::Packet::Unsubscribe(packet) => packet.write(out),
        v4::Packet::UnsubAck(packet) => packet.write(out),
        v4::Packet::PingReq => v4::PingReq.write(out),
        v4::Packet::PingResp => v4::PingResp.write(out),
        v4::Packet::Disconnect => v4::Disconnect.write(out),
    }
    .expect("it read it");
    std::mem::take(out)
}

fn write_v5(packet: &v5::Packet) -> BytesMut {
    let out = &mut BytesMut::new();
    match packet {
        v5::Packet::Connect(packet) => packet.write(out),
        v5::Packet::ConnAck(packet) => packet.write(out),
        v5::Packet::Publish(packet) => packet.write(out),
        v5::Packet::PubAck(packet) => packet.write(out),
        v5::Packet::PubRec(packet) => packet.write(out),
        v5::Packet::PubRel(packet) => packet.write(out),
        v5::Packet::PubComp(packet) => packet.write(out),
        v5::Packet::Subscribe(packet) => packet.write(out),
        v5::Packet::SubAck(packet) => packet.write(out),
        v5::Packet::Unsubscribe(packet) => packet.write(out),
        v5::Packet::UnsubAck(packet) => packet.write(out),
        v5::Packet::PingReq => v5::PingReq.write(out),
        v5::Packet::PingResp => v5::PingResp.write(out),
        v5::Packet::Disconnect(packet) => packet.write(out),
    }
    .expect("it read it");
    std::mem::take(out)
}

/// What `mqttbytes` cannot express in any version: a password that is not UTF-8, a login of one
/// part, the bridge bit.
fn is_within_its_reach(packet: &Packet<'_>) -> bool {
    match packet {
        Packet::Connect(connect) => {
            let user_name = connect.user_name.unwrap_or_default();
            let password = std::str::from_utf8(connect.password.unwrap_or_default());
            let has_both = !user_name.is_empty() && password.is_ok_and(|text| !text.is_empty());
            let has_none = connect.user_name.is_none() && connect.password.is_none();
            !connect.bridge_bit && (has_both || has_none)
        }
        _ => true,
    }
}

/// Beyond that, in 5.0: AUTH, DISCONNECT without a Property Length, and PUBLISH with properties
/// behind a Subscription Identifier, which it counts one byte too long.
fn is_within_its_reach_5_0(packet: &Packet<'_>) -> bool {
    is_within_its_reach(packet)
        && match packet {
            Packet::Auth(_) => false,
            Packet::Publish(publish) => match publish.subscription_ids[..] {
                [] => true,
                [_] => publish.properties.is_empty(),
                _ => false,
            },
            Packet::Disconnect(disconnect) => {
                disconnect.session_expiry_seconds.is_some()
                    || disconnect.reason_string.is_some()
                    || disconnect.server_reference.is_some()
            }
            _ => true,
        }
}

proptest! {
    #[test]
    fn of_3_1_1((sender, packet) in packet(ProtocolVersion::V3_1_1)) {
        if !is_within_its_reach(&packet) {
            return Ok(());
        }
        let version = ProtocolVersion::V3_1_1;
        let theirs = read_v4(&encode(&packet, version));
        let written = write_v4(&theirs);
        prop_assert_eq!(decode_whole(&written, version, sender), Ok(packet));
    }

    #[test]
    fn of_5_0((sender, packet) in packet(ProtocolVersion::V5_0)) {
        if !is_within_its_reach_5_0(&packet) {
            return Ok(());
        }
        let version = ProtocolVersion::V5_0;
        let theirs = read_v5(&encode(&packet, version));
        let written = write_v5(&theirs);
        prop_assert_eq!(decode_whole(&written, version, sender), Ok(packet));
    }

    /// Field by field, where a consistent confusion of two of one type would pass unseen.
    #[test]
    fn on_each_field_of_5_0((_, packet) in packet(ProtocolVersion::V5_0)) {
        if !is_within_its_reach_5_0(&packet) {
            return Ok(());
        }
        match (&packet, read_v5(&encode(&packet, ProtocolVersion::V5_0))) {
            (Packet::Publish(ours), v5::Packet::Publish(theirs)) => publish(ours, &theirs)?,
            (Packet::Connect(ours), v5::Packet::Connect(theirs)) => connect(ours, &theirs)?,
            (Packet::Connack(ours), v5::Packet::ConnAck(theirs)) => connack(ours, &theirs)?,
            (Packet::Subscribe(ours), v5::Packet::Subscribe(theirs)) => {
                for ((filter, options), theirs) in ours.filters.iter().zip(&theirs.filters) {
                    prop_assert_eq!(*filter, &theirs.path);
                    prop_assert_eq!(options.qos as u8, theirs.qos as u8);
                    prop_assert_eq!(options.no_local, theirs.nolocal);
                    prop_assert_eq!(options.retain_as_published, theirs.preserve_retain);
                    let rule = theirs.retain_forward_rule.clone() as u8;
                    prop_assert_eq!(options.retain_handling as u8, rule);
                }
            }
            (Packet::Disconnect(ours), v5::Packet::Disconnect(theirs)) => {
                let properties = theirs.properties.expect("there are some");
                prop_assert_eq!(ours.reason as u8, theirs.reason_code as u8);
                prop_assert_eq!(ours.session_expiry_seconds, properties.session_expiry_interval);
                prop_assert_eq!(ours.reason_string, properties.reason_string.as_deref());
                prop_assert_eq!(ours.server_reference, properties.server_reference.as_deref());
            }
            _ => {}
        }
    }
}

fn publish(
    ours: &crate::packet::publish::Publish<'_>,
    theirs: &v5::Publish,
) -> Result<(), TestCaseError> {
    prop_assert_eq!(ours.dup, theirs.dup);
    prop_assert_eq!(ours.qos as u8, theirs.qos as u8);
    prop_assert_eq!(ours.retain, theirs.retain);
    prop_assert_eq!(ours.topic, &theirs.topic);
    prop_assert_eq!(ours.packet_id.map_or(0, super::PacketId::get), theirs.pkid);
    prop_assert_eq!(ours.payload, &theirs.payload[..]);
    let Some(properties) = &theirs.properties else {
        prop_assert!(ours.properties.is_empty() && ours.subscription_ids.is_empty());
        return Ok(());
    };
    prop_assert_eq!(ours.topic_alias, properties.topic_alias);
    prop_assert_eq!(ours.message_expiry, properties.message_expiry_interval);
    let ids = properties.subscription_identifiers.iter();
    prop_assert!(ours.subscription_ids.iter().map(|id| *id as usize).eq(ids.copied()));
    forwarded(
        &ours.properties,
        &Forwarded {
            format: properties.payload_format_indicator,
            response_topic: properties.response_topic.as_deref(),
            correlation: properties.correlation_data.as_deref(),
            user: &properties.user_properties,
            content_type: properties.content_type.as_deref(),
        },
    )
}

struct Forwarded<'a> {
    format: Option<u8>,
    response_topic: Option<&'a str>,
    correlation: Option<&'a [u8]>,
    user: &'a [(String, String)],
    content_type: Option<&'a str>,
}

fn forwarded(blob: &[u8], theirs: &Forwarded<'_>) -> Result<(), TestCaseError> {
    let mut user = theirs.user.iter();
    let mut count = 0;
    for property in iterate(blob) {
        match property {
            Property::PayloadFormatIndicator(flag) => {
                prop_assert_eq!(Some(u8::from(flag)), theirs.format);
            }
            Property::ResponseTopic(topic) => prop_assert_eq!(Some(topic), theirs.response_topic),
            Property::CorrelationData(data) => prop_assert_eq!(Some(data), theirs.correlation),
            Property::ContentType(text) => prop_assert_eq!(Some(text), theirs.content_type),
            Property::UserProperty(name, value) => {
                let pair = user.next().map(|(name, value)| (name.as_str(), value.as_str()));
                prop_assert_eq!(Some((name, value)), pair);
            }
            other => prop_assert!(false, "{other:?}"),
        }
        count += 1;
    }
    let options = [
        theirs.format.is_some(),
        theirs.response_topic.is_some(),
        theirs.correlation.is_some(),
        theirs.content_type.is_some(),
    ];
    let expected = options.iter().filter(|there| **there).count() + theirs.user.len();
    prop_assert_eq!(count, expected);
    Ok(())
}

fn connect(
    ours: &crate::packet::connect::Connect<'_>,
    theirs: &v5::Connect,
) -> Result<(), TestCaseError> {
    prop_assert_eq!(ours.clean_start, theirs.clean_session);
    prop_assert_eq!(ours.keep_alive_seconds, theirs.keep_alive);
    prop_assert_eq!(ours.client_id, &theirs.client_id);
    let login = theirs.login.as_ref();
    prop_assert_eq!(ours.user_name, login.map(|login| login.username.as_str()));
    prop_assert_eq!(ours.password, login.map(|login| login.password.as_bytes()));
    if let Some(properties) = &theirs.properties {
        let own = &ours.properties;
        prop_assert_eq!(own.session_expiry_seconds, properties.session_expiry_interval);
        prop_assert_eq!(own.receive_maximum, properties.receive_maximum);
        prop_assert_eq!(own.maximum_packet_bytes, properties.max_packet_size);
        prop_assert_eq!(own.topic_alias_maximum, properties.topic_alias_max);
        let request = own.request_response_information.map(u8::from);
        prop_assert_eq!(request, properties.request_response_info);
        let request = own.request_problem_information.map(u8::from);
        prop_assert_eq!(request, properties.request_problem_info);
        prop_assert_eq!(own.authentication_method, properties.authentication_method.as_deref());
        prop_assert_eq!(own.authentication_data, properties.authentication_data.as_deref());
    }
    prop_assert_eq!(ours.will.is_some(), theirs.last_will.is_some());
    let (Some(will), Some(theirs)) = (&ours.will, &theirs.last_will) else { return Ok(()) };
    prop_assert_eq!(will.qos as u8, theirs.qos as u8);
    prop_assert_eq!(will.retain, theirs.retain);
    prop_assert_eq!(will.topic, &theirs.topic);
    prop_assert_eq!(will.payload, &theirs.message[..]);
    let Some(properties) = &theirs.properties else { return Ok(()) };
    prop_assert_eq!(will.delay_seconds, properties.delay_interval);
    prop_assert_eq!(will.message_expiry, properties.message_expiry_interval);
    forwarded(
        &will.properties,
        &Forwarded {
            format: properties.payload_format_indicator,
            response_topic: properties.response_topic.as_deref(),
            correlation: properties.correlation_data.as_deref(),
            user: &properties.user_properties,
            content_type: properties.content_type.as_deref(),
        },
    )
}

fn connack(
    ours: &crate::packet::connack::Connack<'_>,
    theirs: &v5::ConnAck,
) -> Result<(), TestCaseError> {
    prop_assert_eq!(ours.session_present, theirs.session_present);
    let own = &ours.properties;
    let Some(properties) = &theirs.properties else {
        prop_assert_eq!(own, &crate::packet::connack::ConnackProperties::default());
        return Ok(());
    };
    prop_assert_eq!(own.session_expiry_seconds, properties.session_expiry_interval);
    prop_assert_eq!(own.receive_maximum, properties.receive_max);
    prop_assert_eq!(own.maximum_qos.map(|qos| qos as u8), properties.max_qos);
    prop_assert_eq!(own.retain_available.map(u8::from), properties.retain_available);
    prop_assert_eq!(own.maximum_packet_bytes, properties.max_packet_size);
    prop_assert_eq!(own.assigned_client_id, properties.assigned_client_identifier.as_deref());
    prop_assert_eq!(own.topic_alias_maximum, properties.topic_alias_max);
    prop_assert_eq!(own.reason_string, properties.reason_string.as_deref());
    let wildcard = own.wildcard_subscription_available.map(u8::from);
    prop_assert_eq!(wildcard, properties.wildcard_subscription_available);
    let identifiers = own.subscription_identifiers_available.map(u8::from);
    prop_assert_eq!(identifiers, properties.subscription_identifiers_available);
    let shared = own.shared_subscription_available.map(u8::from);
    prop_assert_eq!(shared, properties.shared_subscription_available);
    prop_assert_eq!(own.server_keep_alive_seconds, properties.server_keep_alive);
    prop_assert_eq!(own.response_information, properties.response_information.as_deref());
    prop_assert_eq!(own.server_reference, properties.server_reference.as_deref());
    prop_assert_eq!(own.authentication_method, properties.authentication_method.as_deref());
    prop_assert_eq!(own.authentication_data, properties.authentication_data.as_deref());
    Ok(())
}

/// MQTT 3.1 has no second opinion of its own: but for CONNECT and CONNACK it is 3.1.1.
#[test]
fn mqtt_3_1_is_written_as_3_1_1() {
    use proptest::{strategy::ValueTree, test_runner::TestRunner};

    let mut runner = TestRunner::deterministic();
    let [v3_1, v3_1_1, _] = VERSIONS;
    let mut compared = 0;
    for _ in 0..500 {
        let tree = packet(v3_1).new_tree(&mut runner).expect("a packet");
        let (_, packet) = tree.current();
        if !matches!(packet, Packet::Connect(_)) {
            assert_eq!(encode(&packet, v3_1), encode(&packet, v3_1_1));
            compared += 1;
        }
    }
    assert!(compared > 100);
}
