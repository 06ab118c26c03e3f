//! PUBLISH: answers by QoS, flags, properties forwarded, topics refused, Reason Codes of what is not delivered.

use crate::broker::{configured, unique};
use crate::client::Client;
use crate::packet::{
    ALL, CONTENT_TYPE, CORRELATION_DATA, Connect, MAXIMUM_PACKET_SIZE, OLD, PAYLOAD_FORMAT, PUBACK,
    PUBCOMP, PUBREC, PUBREL, Properties, Publish, RESPONSE_TOPIC, SUBSCRIPTION_ID,
    TOPIC_ALIAS_MAXIMUM, V5, V311, acknowledge, frame, text,
};

/// [MQTT-3.3.4-1] [MQTT-4.3.1-1] [MQTT-3.3.1-2] [MQTT311-3.3.4-1] [MQTT311-4.3.1-1] [MQTT311-3.3.1-2]
#[test]
fn qos_0_is_delivered_without_an_answer() {
    for version in ALL {
        let topic = unique("t");
        let mut client = Client::new(version);
        client.subscribe(&topic, 2);
        let mut sender = Client::new(version);
        sender.send(Publish::new(&topic, "zero").encode(version));
        sender.expect_nothing();
        let publish = client.expect_publish();
        assert_eq!((publish.qos, publish.dup, publish.retain, publish.id), (0, false, false, 0));
        assert_eq!((publish.name(), publish.text()), (topic.as_str(), "zero"));
    }
}

/// [MQTT-3.3.4-1] [MQTT-2.2.1-5] [MQTT-4.3.2-4] [MQTT311-4.3.2-2] [MQTT311-2.3.1-6]
#[test]
fn qos_1_is_answered_with_puback() {
    for version in ALL {
        let topic = unique("t");
        let mut client = Client::new(version);
        client.subscribe(&topic, 1);
        let mut sender = Client::new(version);
        sender.send(Publish::new(&topic, "one").qos(1, 1234).encode(version));
        sender.expect_acknowledged(PUBACK, 1234, 0);
        let publish = client.expect_message("one");
        assert_eq!((publish.qos, publish.dup), (1, false));
        assert_ne!(publish.id, 0);
    }
}

/// [MQTT-3.3.4-1] [MQTT-4.3.3-8] [MQTT-4.3.3-11] [MQTT311-4.3.3-2]
#[test]
fn qos_2_is_answered_with_pubrec_and_pubcomp() {
    for version in ALL {
        let topic = unique("t");
        let mut client = Client::new(version);
        client.subscribe(&topic, 2);
        let mut sender = Client::new(version);
        sender.send(Publish::new(&topic, "two").qos(2, 77).encode(version));
        sender.expect_acknowledged(PUBREC, 77, 0);
        sender.send(acknowledge(PUBREL, 77));
        sender.expect_acknowledged(PUBCOMP, 77, 0);
        assert_eq!(client.expect_message("two").qos, 2);
    }
}

/// Answers of 3.1.1, to the byte. [MQTT311-2.3.1-6]
#[test]
fn answers_of_3_1_1_carry_the_packet_identifier_only() {
    let topic = unique("t");
    let mut client = Client::new(V311);
    client.send(Publish::new(&topic, "x").qos(1, 0x1234).encode(V311));
    client.expect_bytes(&[0x40, 2, 0x12, 0x34]);
    client.send(Publish::new(&topic, "x").qos(2, 0x4321).encode(V311));
    client.expect_bytes(&[0x50, 2, 0x43, 0x21]);
    client.send([0x62, 2, 0x43, 0x21]);
    client.expect_bytes(&[0x70, 2, 0x43, 0x21]);
}

/// [MQTT-3.8.4-8] [MQTT311-3.8.4-6]
#[test]
fn delivery_uses_the_lower_qos() {
    for version in ALL {
        for granted in 0..=2 {
            let topic = unique("t");
            let mut client = Client::new(version);
            client.subscribe(&topic, granted);
            for published in 0..=2 {
                Client::new(version).publish(&topic, published, "x");
                assert_eq!(client.receive().qos, published.min(granted));
            }
        }
    }
}

/// [MQTT-3.3.1-3] [MQTT311-3.3.1-3]
#[test]
fn dup_of_the_publisher_is_not_forwarded() {
    for version in ALL {
        let topic = unique("t");
        let mut client = Client::new(version);
        client.subscribe(&topic, 2);
        for qos in 1..=2 {
            Client::new(version).publish_with(Publish::new(&topic, "x").qos(qos, 1).dup());
            assert!(!client.receive().dup);
        }
    }
}

/// [MQTT-3.3.1-2] [MQTT311-3.3.1-2] [MQTT-4.13.1-1] [MQTT311-4.8.0-1]
#[test]
fn dup_at_qos_0_is_refused() {
    for version in ALL {
        let mut client = Client::new(version);
        client.send(Publish::new(unique("t"), "x").dup().encode(version));
        client.expect_error(0x81);
    }
}

/// [MQTT-3.3.1-4] [MQTT311-3.3.1-4]
#[test]
fn qos_3_is_refused() {
    for version in ALL {
        let mut client = Client::new(version);
        client.send(Publish::new(unique("t"), "x").qos(3, 1).encode(version));
        client.expect_error(0x81);
    }
}

/// [MQTT311-2.3.1-1] [MQTT-2.2.1-2] [MQTT311-2.3.1-5]
#[test]
fn packet_identifier_zero_is_refused() {
    for version in ALL {
        for qos in 1..=2 {
            let mut client = Client::new(version);
            client.send(Publish::new(unique("t"), "x").qos(qos, 0).encode(version));
            client.expect_error_among(&[0x81, 0x82]);
        }
    }
}

/// [MQTT-2.2.1-2] What follows the topic at QoS 0 is payload, not an identifier.
#[test]
fn qos_0_has_no_packet_identifier() {
    let topic = unique("t");
    let mut client = Client::new(V311);
    client.subscribe(&topic, 0);
    client.send(frame(0x30, &[text(&topic), vec![0, 7]].concat()));
    assert_eq!(client.expect_publish().payload, [0, 7]);
}

/// [MQTT-3.3.2-2] [MQTT-4.7.0-1]
#[test]
fn a_topic_with_wildcards_is_refused_in_5_0() {
    for topic in ["a/+", "#", "a/#", "+", "a+b", "x#"] {
        let mut client = Client::new(V5);
        client.send(Publish::new(topic, "x").encode(V5));
        client.expect_error_among(&[0x81, 0x82, 0x90]);
    }
}

/// [MQTT311-3.3.2-2] [MQTT311-4.7.1-1]
#[test]
fn a_topic_with_wildcards_is_refused_in_3_x() {
    for version in OLD {
        for topic in ["a/+", "#", "a+b"] {
            let mut client = Client::new(version);
            client.send(Publish::new(topic, "x").encode(version));
            client.expect_closed();
        }
    }
}

/// [MQTT311-4.7.3-1] [MQTT-4.7.3-1]
#[test]
fn an_empty_topic_is_refused() {
    for version in ALL {
        let mut client = Client::new(version);
        client.send(Publish::new("", "x").encode(version));
        client.expect_error(0x82);
    }
}

/// [MQTT-3.3.2-1] [MQTT-1.5.4-1] [MQTT-1.5.4-2] [MQTT-4.7.3-2]
#[test]
fn an_ill_formed_topic_is_malformed_in_5_0() {
    for topic in [&b"a\0b"[..], b"\xff", b"\xed\xa0\x80", b"\xc0\xaf"] {
        let mut client = Client::new(V5);
        client.send(Publish::new(topic, "x").encode(V5));
        client.expect_error(0x81);
    }
}

/// [MQTT311-3.3.2-1] [MQTT311-1.5.3-1] [MQTT311-1.5.3-2] [MQTT311-4.7.3-2]
#[test]
fn an_ill_formed_topic_closes_in_3_x() {
    for version in OLD {
        for topic in [&b"a\0b"[..], b"\xff", b"\xed\xa0\x80"] {
            let mut client = Client::new(version);
            client.send(Publish::new(topic, "x").encode(version));
            client.expect_closed();
        }
    }
}

/// [MQTT-1.5.4-3] [MQTT311-1.5.3-3] [MQTT-4.7.3-4] [MQTT311-4.7.3-4]
#[test]
fn topics_are_forwarded_to_the_byte() {
    for topic in
        ["\u{FEFF}bom", "bom\u{FEFF}", "e\u{301}", "\u{e9}", "Größe/日本/😀", "/", "//", " ", "a b"]
    {
        let topic = format!("{}{topic}", unique("t"));
        let mut client = Client::new(V311);
        client.subscribe(&topic, 0);
        client.publish(&topic, 0, "x");
        assert_eq!(client.expect_publish().name(), topic);
    }
}

/// [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.3.2-20]
#[test]
fn properties_are_forwarded_unaltered_and_in_order() {
    let topic = unique("t");
    let mut client = Client::new(V5);
    client.subscribe(&topic, 2);
    let properties = Properties::new()
        .pair("z", "1")
        .text(CONTENT_TYPE, "application/json")
        .byte(PAYLOAD_FORMAT, 1)
        .pair("a", "2")
        .text(CORRELATION_DATA, b"\0\xff")
        .text(RESPONSE_TOPIC, "answer/to")
        .pair("z", "1");
    for qos in 0..=2 {
        let publish = Publish::new(&topic, "x").qos(qos, 1).properties(properties.clone());
        Client::new(V5).publish_with(publish);
        let received = client.receive().received;
        assert_eq!(received.pairs(), [("z", "1"), ("a", "2"), ("z", "1")]);
        assert_eq!(received.text(CONTENT_TYPE), Some("application/json"));
        assert_eq!(received.number(PAYLOAD_FORMAT), Some(1));
        assert_eq!(received.bytes(CORRELATION_DATA), Some(&b"\0\xff"[..]));
        assert_eq!(received.text(RESPONSE_TOPIC), Some("answer/to"));
        assert_eq!(received.0.len(), 7, "nothing is added: {received:?}");
    }
}

/// [MQTT-2.2.2-1] Nothing is added to a message without properties.
#[test]
fn a_message_without_properties_arrives_without_properties() {
    let topic = unique("t");
    let mut client = Client::new(V5);
    client.subscribe(&topic, 0);
    Client::new(V311).publish(&topic, 0, "plain");
    assert_eq!(client.expect_message("plain").received.0, []);
}

/// Between versions: 3.1.1 receives the payload only.
#[test]
fn properties_are_left_out_for_older_clients() {
    let topic = unique("t");
    for version in OLD {
        let mut client = Client::new(version);
        client.subscribe(&topic, 1);
        let properties = Properties::new().pair("a", "b").text(CONTENT_TYPE, "x");
        Client::new(V5).publish_with(Publish::new(&topic, "body").qos(1, 1).properties(properties));
        client.expect_message("body");
    }
}

/// [MQTT-3.3.2-14]
#[test]
fn a_response_topic_with_wildcards_is_a_protocol_error() {
    for response in ["a/#", "+/b"] {
        let mut client = Client::new(V5);
        let properties = Properties::new().text(RESPONSE_TOPIC, response);
        client.send(Publish::new(unique("t"), "x").properties(properties).encode(V5));
        client.expect_error_among(&[0x81, 0x82, 0x90]);
    }
}

/// [MQTT-3.3.2-13] [MQTT-3.3.2-19] [MQTT-1.5.7-1]
#[test]
fn ill_formed_strings_in_properties_are_malformed() {
    let pair = Properties(vec![0x26, 0, 1, 0xFF, 0, 1, b'x']);
    let value = Properties(vec![0x26, 0, 1, b'x', 0, 1, 0xFF]);
    let wrong = [
        Properties::new().text(RESPONSE_TOPIC, b"\xff"),
        Properties::new().text(CONTENT_TYPE, b"\xc0\x80"),
        Properties::new().text(CONTENT_TYPE, b"nul\0"),
        pair,
        value,
    ];
    for properties in wrong {
        let mut client = Client::new(V5);
        client.send(Publish::new(unique("t"), "x").properties(properties).encode(V5));
        client.expect_error(0x81);
    }
}

/// A property twice is a Protocol Error.
#[test]
fn doubled_publish_properties_are_a_protocol_error() {
    let doubled = [
        Properties::new().byte(PAYLOAD_FORMAT, 1).byte(PAYLOAD_FORMAT, 1),
        Properties::new().four(0x02, 5).four(0x02, 5),
        Properties::new().text(CONTENT_TYPE, "a").text(CONTENT_TYPE, "a"),
        Properties::new().text(RESPONSE_TOPIC, "a").text(RESPONSE_TOPIC, "a"),
        Properties::new().text(CORRELATION_DATA, "a").text(CORRELATION_DATA, "a"),
        Properties::new().two(0x23, 1).two(0x23, 1),
    ];
    for properties in doubled {
        let mut client = Client::new(V5);
        client.send(Publish::new(unique("t"), "x").properties(properties).encode(V5));
        client.expect_error(0x82);
    }
}

/// [MQTT-3.3.4-6]
#[test]
fn a_subscription_identifier_from_a_client_is_a_protocol_error() {
    let mut client = Client::new(V5);
    let properties = Properties::new().variable(SUBSCRIPTION_ID, 1);
    client.send(Publish::new(unique("t"), "x").properties(properties).encode(V5));
    client.expect_error(0x82);
}

/// No matching subscribers is worth knowing. [MQTT-3.4.2-1] [MQTT-3.5.2-1]
#[test]
fn publishing_to_nobody_is_answered_with_0x10() {
    let topic = unique("t");
    let mut client = Client::new(V5);
    client.send(Publish::new(&topic, "x").qos(1, 1).encode(V5));
    client.expect_acknowledged(PUBACK, 1, 0x10);
    client.send(Publish::new(&topic, "x").qos(2, 2).encode(V5));
    client.expect_acknowledged(PUBREC, 2, 0x10);
    client.send(acknowledge(PUBREL, 2));
    client.expect_acknowledged(PUBCOMP, 2, 0);
}

/// A subscriber that is away is a subscriber. [MQTT-3.4.2-1]
#[test]
fn publishing_to_an_absent_session_is_answered_with_0x00() {
    let topic = unique("t");
    let mut absent = Client::connect(&Connect::durable(V5, unique("c")));
    absent.subscribe(&topic, 1);
    absent.disconnect();
    let mut client = Client::new(V5);
    client.send(Publish::new(&topic, "x").qos(1, 1).encode(V5));
    client.expect_acknowledged(PUBACK, 1, 0);
}

/// [MQTT-3.2.2-9] [MQTT-3.2.2-10] Above the Maximum QoS: 0x9B.
#[test]
fn a_qos_above_the_maximum_is_refused() {
    let Some(broker) = configured("[protocol]\nmax_qos = 1\n") else { return };
    let mut client = Client::connect_to(&broker.address, &Connect::new(V5, unique("c")));
    let announced = client.connack.as_ref().unwrap().properties.number(crate::packet::MAXIMUM_QOS);
    assert_eq!(announced, Some(1));
    let codes = client.subscribe_with(&Properties::new(), &[("a", 0), ("b", 1), ("c", 2)]);
    assert!(codes[0] == 0 && codes[1] == 1 && codes[2] <= 2, "{codes:?}");
    client.send(Publish::new("t", "x").qos(2, 1).encode(V5));
    client.expect_error(0x9B);
}

/// The Maximum QoS is not sent when it is 2: a value of 2 is a Protocol Error.
#[test]
fn a_maximum_qos_of_2_is_not_announced() {
    let client = Client::new(V5);
    let properties = client.connack.unwrap().properties;
    assert!(!properties.has(crate::packet::MAXIMUM_QOS));
    assert_ne!(properties.number(crate::packet::RETAIN_AVAILABLE), Some(0));
    assert_ne!(properties.number(crate::packet::SHARED_AVAILABLE), Some(0));
}

/// Retain Available 0: RETAIN is answered with 0x9A.
#[test]
fn retain_is_refused_where_it_is_off() {
    let Some(broker) = configured("[protocol]\nretain_available = false\n") else { return };
    let mut client = Client::connect_to(&broker.address, &Connect::new(V5, unique("c")));
    let announced =
        client.connack.as_ref().unwrap().properties.number(crate::packet::RETAIN_AVAILABLE);
    assert_eq!(announced, Some(0));
    client.send(Publish::new("t", "x").retain().encode(V5));
    client.expect_error(0x9A);
}

/// Payload Format Indicator 1 promises UTF-8; the broker checks it when configured to. [MQTT-4.3.3-9]
#[test]
fn the_payload_format_is_checked_when_asked() {
    let Some(broker) = configured("[protocol]\ncheck_payload_format = true\n") else { return };
    let connect = Connect::new(V5, unique("c"));
    let mut client = Client::connect_to(&broker.address, &connect);
    client.subscribe("t", 0);
    let utf8 = Properties::new().byte(PAYLOAD_FORMAT, 1);
    client.send(Publish::new("t", b"\xff").qos(1, 1).properties(utf8.clone()).encode(V5));
    client.expect_acknowledged(PUBACK, 1, 0x99);
    client.send(Publish::new("t", b"\xff").qos(2, 2).properties(utf8.clone()).encode(V5));
    client.expect_acknowledged(PUBREC, 2, 0x99);
    client.send(Publish::new("t", "new").qos(2, 2).dup().encode(V5));
    assert_eq!(client.expect_answer(PUBREC).acknowledgement(V5).reason, 0);
    client.expect_message("new");
    client.publish_with(Publish::new("t", "fine").properties(utf8));
    client.expect_message("fine");
}

/// A payload is bytes: unchecked by default, whatever the indicator says.
#[test]
fn the_payload_format_is_not_checked_by_default() {
    let topic = unique("t");
    let mut client = Client::new(V5);
    client.subscribe(&topic, 0);
    let utf8 = Properties::new().byte(PAYLOAD_FORMAT, 1);
    client.publish_with(Publish::new(&topic, b"\xff").properties(utf8));
    assert_eq!(client.expect_publish().payload, b"\xff");
}

/// A Payload Format Indicator other than 0 or 1 is a Protocol Error.
#[test]
fn a_payload_format_of_2_is_a_protocol_error() {
    let mut client = Client::new(V5);
    let properties = Properties::new().byte(PAYLOAD_FORMAT, 2);
    client.send(Publish::new(unique("t"), "x").properties(properties).encode(V5));
    client.expect_error(0x82);
}

/// Any payload is forwarded as it is: empty, every byte, large.
#[test]
fn payloads_are_forwarded_to_the_byte() {
    for version in ALL {
        let topic = unique("t");
        let mut client = Client::new(version);
        client.subscribe(&topic, 1);
        let every: Vec<u8> = (0..=255).collect();
        for payload in [Vec::new(), every.clone(), every.repeat(1000), vec![0; 1 << 20]] {
            Client::new(version).publish_with(Publish::new(&topic, &payload).qos(1, 1));
            let publish = client.receive();
            assert!(publish.payload == payload, "{} bytes", publish.payload.len());
        }
    }
}

/// Remaining Length at every border of its encoding. [MQTT-1.5.5-1]
#[test]
fn packets_at_the_borders_of_the_remaining_length_are_forwarded() {
    let topic = unique("t");
    let mut client = Client::new(V311);
    client.subscribe(&topic, 0);
    for remaining in [127, 128, 16_383, 16_384, 2_097_151 - 300_000] {
        let payload = vec![b'x'; remaining - 2 - topic.len()];
        client.send(Publish::new(&topic, &payload).encode(V311));
        assert_eq!(client.expect_publish().payload.len(), payload.len());
    }
}

/// [MQTT-4.7.3-3] The longest Topic Name there is, with one level.
#[test]
fn long_topics_are_delivered() {
    let topic = format!("{}{}", unique("t"), "x".repeat(1000));
    let mut client = Client::new(V311);
    client.subscribe(&topic, 0);
    client.publish(&topic, 0, "x");
    assert_eq!(client.expect_publish().name(), topic);
}

/// A burst that arrives in one piece is delivered to each of many Clients in the way that this one asked for.
#[test]
fn a_burst_reaches_clients_of_every_kind() {
    let topic = unique("t");
    let mut plain: Vec<Client> = ALL.into_iter().map(Client::new).collect();
    plain.push(Client::new(V5));
    for client in &mut plain {
        client.subscribe(&topic, 0);
    }
    let mut acknowledging = Client::new(V311);
    acknowledging.subscribe(&topic, 1);
    let mut identified = Client::new(V5);
    identified.subscribe_with(&Properties::new().variable(SUBSCRIPTION_ID, 9), &[(&topic, 0)]);
    let limits = Properties::new().four(MAXIMUM_PACKET_SIZE, 80);
    let mut small = Client::connect(&Connect::new(V5, unique("c")).properties(limits));
    small.subscribe(&topic, 0);
    let aliases = Properties::new().two(TOPIC_ALIAS_MAXIMUM, 5);
    let mut aliasing = Client::connect(&Connect::new(V5, unique("c")).properties(aliases));
    aliasing.subscribe(&topic, 0);

    let long = "x".repeat(100);
    let payloads = ["a", "b", long.as_str(), "c", "d"];
    let mut burst = Vec::new();
    for (index, payload) in payloads.iter().enumerate() {
        // The fourth has QoS 1, which the run of the others must not swallow.
        let publish = Publish::new(&topic, payload);
        let publish = if index == 3 { publish.qos(1, 7) } else { publish };
        burst.extend(publish.encode(V311));
    }
    let mut sender = Client::new(V311);
    sender.send(burst);
    sender.expect_acknowledged(PUBACK, 7, 0);

    for client in &mut plain {
        for payload in payloads {
            let publish = client.expect_message(payload);
            assert_eq!((publish.name(), publish.qos), (topic.as_str(), 0));
        }
    }
    for payload in payloads {
        assert_eq!(acknowledging.expect_message(payload).qos, u8::from(payload == "c"));
        assert_eq!(identified.expect_message(payload).received.numbers(SUBSCRIPTION_ID), [9]);
        if payload != long {
            small.expect_message(payload);
        }
        assert_eq!(aliasing.expect_publish().text(), payload);
    }
}
