//! CONNECT and CONNACK in every version: names, levels, flags, order, identifiers, return codes.

use crate::broker::{configured, pass, unique};
use crate::client::Client;
use crate::packet::{
    ALL, ASSIGNED_CLIENT_ID, Connect, OLD, PUBACK, Properties, Publish, RECEIVE_MAXIMUM,
    SESSION_EXPIRY, V5, V31, V311, Will, acknowledge, frame, subscribe, text,
};

use std::time::Duration;

/// [MQTT-3.1.4-5] [MQTT-3.2.0-1] [MQTT-3.2.2-1] [MQTT-3.1.0-1]
#[test]
fn connect_of_5_0_is_accepted() {
    let mut client = Client::open(V5);
    client.send(Connect::new(V5, unique("c")).encode());
    let connack = client.expect_connack();
    assert_eq!((connack.reason, connack.session_present), (0, false));
    client.expect_nothing();
}

/// [MQTT311-3.1.4-4] [MQTT311-3.2.0-1] [MQTT311-3.2.2-1] [MQTT311-3.1.0-1]
#[test]
fn connect_of_3_1_1_is_accepted() {
    let mut client = Client::open(V311);
    client.send(Connect::new(V311, unique("c")).encode());
    client.expect_bytes(&[0x20, 2, 0, 0]);
    client.expect_nothing();
}

/// MQTT 3.1 speaks of `MQIsdp` and level 3.
#[test]
fn connect_of_3_1_is_accepted() {
    let mut client = Client::open(V31);
    client.send(Connect::new(V31, unique("c")).encode());
    client.expect_bytes(&[0x20, 2, 0, 0]);
    client.expect_nothing();
}

/// The byte-literal case: a round trip cannot see a mistake that both sides share.
#[test]
fn connect_as_literal_bytes_is_accepted() {
    let mut client = Client::open(V311);
    client.send([
        0x10, 0x10, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, 4, b'l', b'i', b't', b'1',
    ]);
    client.expect_bytes(&[0x20, 2, 0, 0]);
}

/// [MQTT-3.1.0-2] [MQTT-4.13.1-1]
#[test]
fn second_connect_of_5_0_closes_the_network_connection() {
    let connect = Connect::new(V5, unique("c"));
    let mut client = Client::connect(&connect);
    client.send(connect.encode());
    client.expect_error(0x82);
}

/// [MQTT311-3.1.0-2] [MQTT311-4.8.0-1]
#[test]
fn second_connect_of_3_x_closes_the_network_connection() {
    for version in OLD {
        let connect = Connect::new(version, unique("c"));
        let mut client = Client::connect(&connect);
        client.send(connect.encode());
        client.expect_closed();
    }
}

/// The will of the first CONNECT is published: a Protocol Error is no normal end. [MQTT-3.1.0-2] [MQTT-3.1.2-8]
#[test]
fn second_connect_publishes_the_will_of_the_first() {
    let topic = unique("t");
    let mut watcher = Client::new(V5);
    watcher.subscribe(&topic, 0);
    let connect = Connect::new(V5, unique("c")).will(Will::new(&topic, "gone"));
    let mut client = Client::connect(&connect);
    client.send(connect.encode());
    watcher.expect_message("gone");
}

/// [MQTT-3.1.0-1] [MQTT311-3.1.0-1] [MQTT-3.14.0-1]
#[test]
fn publish_before_connect_closes_the_network_connection() {
    for version in ALL {
        let mut client = Client::open(version);
        client.send(Publish::new(unique("t"), "early").encode(version));
        client.expect_closed();
    }
}

/// [MQTT-3.1.0-1] [MQTT-3.14.0-1]
#[test]
fn every_packet_before_connect_closes_silently() {
    for first in [0x20u8, 0x40, 0x50, 0x62, 0x70, 0x82, 0x90, 0xA2, 0xB0, 0xC0, 0xD0, 0xE0, 0xF0] {
        let mut client = Client::open(V5);
        client.send(frame(first, if first >= 0xC0 { &[] } else { &[0, 1] }));
        client.expect_closed();
    }
}

/// A Server should close a Network Connection without CONNECT after a reasonable time. [MQTT-3.1.4-1]
#[test]
fn silence_instead_of_connect_is_closed_after_the_timeout() {
    let Some(broker) = configured("[limits]\nconnect_timeout = \"1s\"\n") else { return };
    let mut client = Client::open_to(&broker.address, V5);
    client.expect_closed();
}

/// Half a CONNECT is no CONNECT either.
#[test]
fn half_a_connect_is_closed_after_the_timeout() {
    let Some(broker) = configured("[limits]\nconnect_timeout = \"1s\"\n") else { return };
    let mut client = Client::open_to(&broker.address, V311);
    let connect = Connect::new(V311, unique("c")).encode();
    client.send(&connect[..connect.len() - 1]);
    client.expect_closed();
}

/// The timeout is over with the CONNECT.
#[test]
fn the_connect_timeout_does_not_hit_a_connected_client() {
    let Some(broker) = configured("[limits]\nconnect_timeout = \"1s\"\n") else { return };
    let mut client = Client::connect_to(&broker.address, &Connect::new(V311, unique("c")));
    pass(Duration::from_millis(1500));
    client.expect_nothing();
}

/// [MQTT-3.1.2-1] [MQTT311-3.1.2-1]
#[test]
fn a_wrong_protocol_name_closes_the_network_connection() {
    for name in ["MQTTX", "mqtt", "", "MQIsdq", "HTTP"] {
        let connect = Connect::new(V311, unique("c"));
        let mut client = Client::open(V5);
        client.send(connect.encode_as(name, 4, connect.flags()));
        client.expect_any_error();
    }
}

/// [MQTT-3.1.2-1] The levels belong to their names.
#[test]
fn name_and_level_must_fit_each_other() {
    let connect = Connect::new(V311, unique("c"));
    for (name, level) in [("MQIsdp", 4), ("MQIsdp", 5), ("MQTT", 3)] {
        let mut client = Client::open(V311);
        client.send(connect.encode_as(name, level, connect.flags()));
        client.expect_any_error();
    }
}

/// [MQTT311-3.1.2-2] [MQTT311-3.2.2-4] [MQTT311-3.2.2-5]
#[test]
fn an_unsupported_level_below_5_is_refused_with_return_code_1() {
    let connect = Connect::new(V311, unique("c"));
    let mut client = Client::open(V311);
    client.send(connect.encode_as("MQTT", 2, connect.flags()));
    client.expect_bytes(&[0x20, 2, 0, 1]);
    client.expect_closed();
}

/// A client of a version that does not exist yet must find out. [MQTT-3.1.2-2] [MQTT-4.13.2-1]
#[test]
fn an_unsupported_level_above_5_is_refused() {
    let connect = Connect::new(V5, unique("c"));
    let mut client = Client::open(V311);
    client.send(connect.encode_as("MQTT", 6, connect.flags()));
    if let Some(packet) = client.read() {
        assert_eq!(packet.first, 0x20);
        assert!([0x01, 0x84].contains(&packet.body[1]), "{packet:02x?}");
        client.expect_closed();
    }
}

/// [MQTT-3.1.2-3] [MQTT-2.1.3-1]
#[test]
fn the_reserved_connect_flag_of_5_0_must_be_zero() {
    let connect = Connect::new(V5, unique("c"));
    let mut client = Client::open(V5);
    client.send(connect.encode_as("MQTT", 5, connect.flags() | 1));
    client.expect_refusal(0x81);
}

/// [MQTT311-3.1.2-3] [MQTT311-3.1.4-1]
#[test]
fn the_reserved_connect_flag_of_3_1_1_must_be_zero() {
    let connect = Connect::new(V311, unique("c"));
    let mut client = Client::open(V311);
    client.send(connect.encode_as("MQTT", 4, connect.flags() | 1));
    client.expect_closed();
}

/// [MQTT-2.1.3-1] [MQTT311-2.2.2-1] [MQTT311-2.2.2-2]
#[test]
fn reserved_bits_in_the_fixed_header_of_connect_are_refused() {
    for version in ALL {
        let mut bytes = Connect::new(version, unique("c")).encode();
        bytes[0] = 0x11;
        let mut client = Client::open(version);
        client.send(bytes);
        client.expect_any_error();
    }
}

/// [MQTT-3.1.2-12] [MQTT-3.1.4-1]
#[test]
fn will_qos_3_of_5_0_is_malformed() {
    let connect = Connect::new(V5, unique("c")).will(Will::new("w", "w").qos(3));
    let mut client = Client::open(V5);
    client.send(connect.encode());
    client.expect_refusal(0x81);
}

/// [MQTT311-3.1.2-14]
#[test]
fn will_qos_3_of_3_x_closes_the_network_connection() {
    for version in OLD {
        let mut client = Client::open(version);
        client.send(Connect::new(version, unique("c")).will(Will::new("w", "w").qos(3)).encode());
        client.expect_closed();
    }
}

/// [MQTT-3.1.2-11] [MQTT311-3.1.2-11] [MQTT311-3.1.2-13]
#[test]
fn will_qos_without_the_will_flag_is_refused() {
    for (version, level) in [(V311, 4), (V5, 5)] {
        let connect = Connect::new(version, unique("c"));
        let mut client = Client::open(version);
        client.send(connect.encode_as("MQTT", level, connect.flags() | 0x08));
        client.expect_any_error();
    }
}

/// [MQTT-3.1.2-13] [MQTT311-3.1.2-11] [MQTT311-3.1.2-15]
#[test]
fn will_retain_without_the_will_flag_is_refused() {
    for (version, level) in [(V311, 4), (V5, 5)] {
        let connect = Connect::new(version, unique("c"));
        let mut client = Client::open(version);
        client.send(connect.encode_as("MQTT", level, connect.flags() | 0x20));
        client.expect_any_error();
    }
}

/// [MQTT-3.1.2-9] [MQTT311-3.1.2-9]
#[test]
fn the_will_flag_without_a_will_is_refused() {
    for (version, level) in [(V311, 4), (V5, 5)] {
        let connect = Connect::new(version, unique("c"));
        let mut client = Client::open(version);
        client.send(connect.encode_as("MQTT", level, connect.flags() | 0x04));
        client.expect_any_error();
    }
}

/// [MQTT311-3.1.2-22] 5.0 dropped the rule.
#[test]
fn a_password_without_a_user_name_is_refused_in_3_1_1() {
    let mut client = Client::open(V311);
    client.send(Connect::new(V311, unique("c")).password("p").encode());
    client.expect_closed();
}

/// [MQTT-3.1.2-17] [MQTT311-3.1.2-19]
#[test]
fn the_user_name_flag_without_a_user_name_is_refused() {
    for (version, level) in [(V311, 4), (V5, 5)] {
        let connect = Connect::new(version, unique("c"));
        let mut client = Client::open(version);
        client.send(connect.encode_as("MQTT", level, connect.flags() | 0x80));
        client.expect_any_error();
    }
}

/// [MQTT-3.1.2-19] [MQTT311-3.1.2-21]
#[test]
fn the_password_flag_without_a_password_is_refused() {
    for (version, level) in [(V311, 4), (V5, 5)] {
        let connect = Connect::new(version, unique("c")).user("u");
        let mut client = Client::open(version);
        client.send(connect.encode_as("MQTT", level, connect.flags() | 0x40));
        client.expect_any_error();
    }
}

/// Fields whose flags are not set are bytes too many. [MQTT-3.1.2-16] [MQTT-3.1.2-18] [MQTT311-3.1.2-18]
/// [MQTT311-3.1.2-20]
#[test]
fn a_user_name_or_password_without_its_flag_is_refused() {
    for (version, level) in [(V311, 4), (V5, 5)] {
        let connect = Connect::new(version, unique("c")).user("u").password("p");
        for flags in [0x02, 0x82] {
            let mut client = Client::open(version);
            client.send(connect.encode_as("MQTT", level, flags));
            client.expect_any_error();
        }
    }
}

/// [MQTT-3.1.3-1] [MQTT-3.1.3-3] [MQTT311-3.1.3-1] [MQTT311-3.1.3-3] [MQTT-3.1.2-9] [MQTT311-3.1.2-9]
#[test]
fn all_payload_fields_in_their_order_are_accepted() {
    for version in ALL {
        let topic = unique("t");
        let mut watcher = Client::new(version);
        watcher.subscribe(&topic, 0);
        let will = Will::new(&topic, "the will");
        let connect = Connect::new(version, unique("c")).will(will).user("user").password("secret");
        Client::connect(&connect).cut();
        watcher.expect_message("the will");
    }
}

/// [MQTT-3.1.3-5] [MQTT311-3.1.3-5]
#[test]
fn client_identifiers_of_23_letters_and_digits_are_accepted() {
    let alphabet = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    for version in ALL {
        for start in [0, 20, 39] {
            Client::connect(&Connect::new(version, &alphabet[start..start + 23])).settle();
        }
        Client::connect(&Connect::new(version, "q")).settle();
    }
}

/// A Server may allow more than it must: long identifiers and any character.
#[test]
fn long_client_identifiers_with_any_characters_are_accepted() {
    let id = format!("{}-{}/ü€😀+#", unique("long"), "x".repeat(200));
    for version in [V311, V5] {
        Client::connect(&Connect::new(version, &id)).settle();
    }
}

/// [MQTT-3.1.3-6] [MQTT-3.1.3-7] [MQTT-3.2.2-16]
#[test]
fn an_empty_client_identifier_of_5_0_is_assigned() {
    let ids: Vec<_> = (0..3)
        .map(|_| {
            let client = Client::connect(&Connect::new(V5, ""));
            let connack = client.connack.clone().unwrap();
            connack.properties.text(ASSIGNED_CLIENT_ID).expect("an assigned identifier").to_owned()
        })
        .collect();
    assert!(!ids[0].is_empty());
    assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2], "{ids:?}");
}

/// [MQTT-3.1.3-7] [MQTT-3.1.3-2]
#[test]
fn an_assigned_client_identifier_resumes_its_session() {
    let keep = Properties::new().four(SESSION_EXPIRY, 600);
    let client = Client::connect(&Connect::new(V5, "").properties(keep.clone()));
    let id =
        client.connack.as_ref().unwrap().properties.text(ASSIGNED_CLIENT_ID).unwrap().to_owned();
    client.disconnect();
    let again = Client::connect(&Connect::new(V5, &id).clean(false).properties(keep));
    assert!(again.session_present());
}

/// Only an empty identifier is answered with an assigned one.
#[test]
fn no_client_identifier_is_assigned_to_a_client_that_has_one() {
    let client = Client::new(V5);
    assert!(!client.connack.unwrap().properties.has(ASSIGNED_CLIENT_ID));
}

/// An empty identifier without Clean Start is served in 5.0: a new Session. [MQTT-3.1.3-6]
#[test]
fn an_empty_client_identifier_without_clean_start_is_assigned_in_5_0() {
    let client = Client::connect(&Connect::new(V5, "").clean(false));
    assert!(!client.session_present());
    assert!(client.connack.unwrap().properties.has(ASSIGNED_CLIENT_ID));
}

/// [MQTT311-3.1.3-6]
#[test]
fn an_empty_client_identifier_of_3_1_1_is_served_with_clean_session() {
    let mut first = Client::connect(&Connect::new(V311, ""));
    let mut second = Client::connect(&Connect::new(V311, ""));
    first.expect_nothing();
    second.expect_nothing();
}

/// [MQTT311-3.1.3-8] [MQTT311-3.1.3-9] [MQTT311-3.2.2-4] [MQTT311-3.2.2-5]
#[test]
fn an_empty_client_identifier_of_3_1_1_needs_clean_session() {
    let mut client = Client::open(V311);
    client.send(Connect::new(V311, "").clean(false).encode());
    client.expect_bytes(&[0x20, 2, 0, 2]);
    client.expect_closed();
}

/// MQTT 3.1 demands an identifier of at least one character.
#[test]
fn an_empty_client_identifier_of_3_1_is_refused() {
    let mut client = Client::open(V31);
    client.send(Connect::new(V31, "").encode());
    client.expect_bytes(&[0x20, 2, 0, 2]);
    client.expect_closed();
}

/// [MQTT-3.1.3-8] [MQTT-3.2.2-6] [MQTT-3.2.2-7] [MQTT-3.2.2-8] [MQTT-4.13.2-1]
#[test]
fn an_empty_client_identifier_can_be_forbidden() {
    let Some(broker) = configured("[protocol]\nallow_empty_client_id = false\n") else { return };
    let mut client = Client::open_to(&broker.address, V5);
    client.send(Connect::new(V5, "").encode());
    client.expect_refusal(0x85);
    let mut client = Client::open_to(&broker.address, V311);
    client.send(Connect::new(V311, "").encode());
    client.expect_bytes(&[0x20, 2, 0, 2]);
    client.expect_closed();
}

/// [MQTT-3.1.3-4] [MQTT-1.5.4-1]
#[test]
fn an_ill_formed_client_identifier_of_5_0_is_malformed() {
    for id in [&b"\xff"[..], b"\xed\xa0\x80", b"\xc0\x80", b"\xf5\x80\x80\x80"] {
        let mut client = Client::open(V5);
        client.send(Connect::new(V5, id).encode());
        client.expect_refusal(0x81);
    }
}

/// [MQTT311-3.1.3-4] [MQTT311-1.5.3-1] [MQTT311-1.5.3-2]
#[test]
fn an_ill_formed_client_identifier_of_3_1_1_closes() {
    for id in [&b"\xff"[..], b"\xed\xa0\x80", b"a\0b"] {
        let mut client = Client::open(V311);
        client.send(Connect::new(V311, id).encode());
        client.expect_closed();
    }
}

/// [MQTT-3.1.3-12] [MQTT311-3.1.3-11] [MQTT-1.5.4-1] [MQTT-1.5.4-2]
#[test]
fn an_ill_formed_user_name_is_refused() {
    for version in [V311, V5] {
        for name in [&b"\xff\xfe"[..], b"a\0"] {
            let mut client = Client::open(version);
            client.send(Connect::new(version, unique("c")).user(name).encode());
            client.expect_any_error();
        }
    }
}

/// The password is Binary Data: any bytes are well-formed.
#[test]
fn a_password_may_hold_any_bytes() {
    for version in [V311, V5] {
        let connect = Connect::new(version, unique("c")).user("u").password(b"\0\xff\xfe");
        Client::connect(&connect).settle();
    }
}

/// [MQTT-3.1.3-11] [MQTT311-3.1.3-10]
#[test]
fn an_ill_formed_will_topic_is_refused() {
    for version in [V311, V5] {
        let mut client = Client::open(version);
        client.send(Connect::new(version, unique("c")).will(Will::new(b"\xff", "w")).encode());
        client.expect_any_error();
    }
}

/// [MQTT-4.7.0-1] [MQTT311-4.7.1-1] [MQTT-4.7.3-1]
#[test]
fn a_will_topic_with_wildcards_or_empty_is_refused() {
    for version in [V311, V5] {
        for topic in ["a/#", "+/b", ""] {
            let mut client = Client::open(version);
            client.send(Connect::new(version, unique("c")).will(Will::new(topic, "w")).encode());
            client.expect_any_error();
        }
    }
}

/// [MQTT-3.1.4-6] [MQTT311-3.1.4-5]
#[test]
fn packets_after_a_refused_connect_are_not_processed() {
    let topic = unique("t");
    let mut watcher = Client::new(V5);
    watcher.subscribe(&topic, 0);
    let connect = Connect::new(V311, "").clean(false);
    let mut client = Client::open(V311);
    client.send([connect.encode(), Publish::new(&topic, "no").encode(V311)].concat());
    client.expect_bytes(&[0x20, 2, 0, 2]);
    client.expect_closed();
    watcher.expect_nothing();
}

/// Clients may send before CONNACK arrives (3.1.4, non-normative); the answers keep their order. [MQTT-3.2.0-1]
#[test]
fn packets_sent_together_with_connect_are_processed() {
    let topic = unique("t");
    let mut client = Client::open(V311);
    client.send(
        [
            Connect::new(V311, unique("c")).encode(),
            subscribe(V311, 1, &Properties::new(), &[(&topic, 1)]),
            Publish::new(&topic, "hello").qos(1, 2).encode(V311),
        ]
        .concat(),
    );
    client.expect_bytes(&[0x20, 2, 0, 0]);
    client.expect_bytes(&[0x90, 3, 0, 1, 1]);
    let (mut acknowledged, mut delivered) = (false, false);
    while !(acknowledged && delivered) {
        let packet = client.read().unwrap();
        match packet.kind() {
            PUBACK => acknowledged = true,
            _ => {
                let publish = packet.publish(V311);
                client.send(acknowledge(PUBACK, publish.id));
                delivered = true;
            }
        }
    }
}

/// [MQTT-3.2.0-2]
#[test]
fn a_connect_split_into_single_bytes_is_accepted() {
    let mut client = Client::open(V5);
    for byte in Connect::new(V5, unique("c")).encode() {
        client.send([byte]);
    }
    assert_eq!(client.expect_connack().reason, 0);
    client.expect_nothing();
}

/// [MQTT-3.1.4-1]
#[test]
fn doubled_connect_properties_are_a_protocol_error() {
    let doubled = [
        Properties::new().four(SESSION_EXPIRY, 1).four(SESSION_EXPIRY, 1),
        Properties::new().two(RECEIVE_MAXIMUM, 5).two(RECEIVE_MAXIMUM, 5),
    ];
    for properties in doubled {
        let mut client = Client::open(V5);
        client.send(Connect::new(V5, unique("c")).properties(properties).encode());
        client.expect_refusal(0x82);
    }
}

/// Values that the specification calls a Protocol Error. [MQTT-3.1.4-1]
#[test]
fn connect_properties_out_of_range_are_a_protocol_error() {
    let wrong = [
        Properties::new().two(RECEIVE_MAXIMUM, 0),
        Properties::new().four(0x27, 0),
        Properties::new().byte(0x17, 2),
        Properties::new().byte(0x19, 2),
        Properties::new().text(0x16, "data without a method"),
    ];
    for properties in wrong {
        let mut client = Client::open(V5);
        client.send(Connect::new(V5, unique("c")).properties(properties).encode());
        client.expect_refusal(0x82);
    }
}

/// Properties that do not belong into CONNECT, or exist at all. [MQTT-3.1.4-1]
#[test]
fn foreign_connect_properties_are_malformed() {
    let foreign = [
        Properties::new().two(0x23, 1),
        Properties::new().byte(0x01, 1),
        Properties::new().byte(0x7F, 0),
    ];
    for properties in foreign {
        let mut client = Client::open(V5);
        client.send(Connect::new(V5, unique("c")).properties(properties).encode());
        let connack = client.expect_connack();
        assert!([0x81, 0x82].contains(&connack.reason), "{:#04x}", connack.reason);
        client.expect_closed();
    }
}

/// User Properties may repeat, with the same name too.
#[test]
fn user_properties_in_connect_may_repeat() {
    let properties = Properties::new().pair("a", "1").pair("a", "1").pair("", "");
    Client::connect(&Connect::new(V5, unique("c")).properties(properties)).settle();
}

/// [MQTT-3.1.4-1] [MQTT311-3.1.4-1]
#[test]
fn a_connect_with_bytes_left_over_is_refused() {
    for version in ALL {
        let mut bytes = Connect::new(version, unique("c")).encode();
        bytes[1] += 1;
        bytes.push(0);
        let mut client = Client::open(version);
        client.send(bytes);
        client.expect_any_error();
    }
}

/// [MQTT-3.1.4-1] [MQTT311-3.1.4-1]
#[test]
fn a_connect_that_ends_too_early_is_refused() {
    for body in
        [&b""[..], b"\0\x04MQTT", b"\0\x04MQTT\x04\x02\0", b"\0\x04MQTT\x04\x02\0\x3c\0\x09a"]
    {
        let mut client = Client::open(V311);
        client.send(frame(0x10, body));
        client.expect_any_error();
    }
}

/// Whoever refuses must see the reason: the CONNACK is not destroyed by a reset although bytes are still unread.
#[test]
fn a_refusal_reaches_a_client_that_goes_on_sending() {
    let mut client = Client::open(V311);
    let mut bytes = Connect::new(V311, "").clean(false).encode();
    for _ in 0..64 {
        bytes.extend(Publish::new("t", "x".repeat(1000)).encode(V311));
    }
    client.send(bytes);
    client.expect_bytes(&[0x20, 2, 0, 2]);
}

/// [MQTT311-3.2.2-6] What no return code describes is refused without one.
#[test]
fn a_malformed_connect_of_3_1_1_gets_no_connack() {
    let mut client = Client::open(V311);
    client.send(frame(
        0x10,
        &[text("MQTT"), vec![4, 2, 0, 0], vec![0, 200], b"short".to_vec()].concat(),
    ));
    client.expect_closed();
}
