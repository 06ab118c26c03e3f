//! Limits in both directions: Receive Maximum, Maximum Packet Size, Topic Alias, Message Expiry.

use std::time::Duration;

use crate::broker::{configured, pass, unique};
use crate::client::Client;
use crate::packet::{
    Connect, DISCONNECT, MAXIMUM_PACKET_SIZE, MESSAGE_EXPIRY, PUBACK, PUBCOMP, PUBREC, PUBREL,
    Properties, Publish, RECEIVE_MAXIMUM, SESSION_EXPIRY, TOPIC_ALIAS, TOPIC_ALIAS_MAXIMUM, V5,
    V311, acknowledge, acknowledge_with,
};

/// A client of 5.0 with these CONNECT properties, subscribed to a topic of its own.
fn subscriber(properties: Properties) -> (Client, String) {
    let topic = unique("t");
    let mut client = Client::connect(&Connect::new(V5, unique("c")).properties(properties));
    client.subscribe(&topic, 2);
    (client, topic)
}

/// [MQTT-3.3.4-9] [MQTT-4.9.0-1] [MQTT-4.9.0-2]
#[test]
fn the_receive_maximum_of_the_client_is_respected() {
    let (mut client, topic) = subscriber(Properties::new().two(RECEIVE_MAXIMUM, 3));
    let mut sender = Client::new(V5);
    for number in 0..9 {
        sender.publish(&topic, 1 + number % 2, &number.to_string());
    }
    let mut open: Vec<Publish> = (0..3).map(|_| client.expect_publish()).collect();
    client.expect_nothing();
    for number in 3..9 {
        let oldest = open.remove(0);
        client.complete(&oldest);
        let publish = client.expect_publish();
        assert_eq!(publish.text(), number.to_string());
        open.push(publish);
        client.expect_nothing();
    }
}

/// [MQTT-3.3.4-9] PUBREC does not free a place, PUBCOMP does; a negative PUBREC does, too.
#[test]
fn the_quota_is_freed_by_pubcomp_or_a_negative_pubrec() {
    let (mut client, topic) = subscriber(Properties::new().two(RECEIVE_MAXIMUM, 1));
    let mut sender = Client::new(V5);
    for number in 0..3 {
        sender.publish(&topic, 2, &number.to_string());
    }
    let first = client.expect_publish();
    client.send(acknowledge(PUBREC, first.id));
    client.expect_acknowledged(PUBREL, first.id, 0);
    client.expect_nothing();
    client.send(acknowledge(PUBCOMP, first.id));
    let second = client.expect_publish();
    assert_eq!(second.text(), "1");
    client.send(acknowledge_with(PUBREC, second.id, 0x80));
    assert_eq!(client.expect_publish().text(), "2");
}

/// [MQTT-3.3.4-10] [MQTT-4.9.0-3] QoS 0 and everything else passes a full window.
#[test]
fn a_full_window_delays_only_qos_1_and_2() {
    let (mut client, topic) = subscriber(Properties::new().two(RECEIVE_MAXIMUM, 1));
    let other = unique("t");
    let mut sender = Client::new(V5);
    sender.publish(&topic, 1, "in flight");
    sender.publish(&topic, 1, "waits");
    let first = client.expect_publish();
    client.subscribe(&other, 0);
    sender.publish(&other, 0, "passes");
    assert_eq!(client.expect_publish().text(), "passes");
    client.publish(&unique("t"), 2, "own");
    client.unsubscribe(&[&other]);
    client.expect_nothing();
    client.complete(&first);
    client.expect_message("waits");
}

/// The default window of 3.1.1 clients holds several messages. [MQTT-4.9.0-1]
#[test]
fn a_client_without_receive_maximum_has_a_window() {
    let topic = unique("t");
    let mut client = Client::new(V311);
    client.subscribe(&topic, 1);
    let mut sender = Client::new(V311);
    for number in 0..10 {
        sender.publish(&topic, 1, &number.to_string());
    }
    for number in 0..10 {
        assert_eq!(client.expect_publish().text(), number.to_string());
    }
}

/// [MQTT-3.3.4-7] QoS 2 exchanges left open beyond the broker's Receive Maximum: 0x93.
#[test]
fn exceeding_the_receive_maximum_of_the_broker_is_refused() {
    let Some(broker) = configured("[limits]\nreceive_maximum = 5\n") else { return };
    let mut client = Client::connect_to(&broker.address, &Connect::new(V5, unique("c")));
    let announced = client.connack.as_ref().unwrap().properties.number(RECEIVE_MAXIMUM);
    assert_eq!(announced, Some(5));
    for id in 1..=5 {
        client.send(Publish::new("t", "x").qos(2, id).encode(V5));
        assert_eq!(client.expect_acknowledgement(PUBREC).id, id);
    }
    client.send(Publish::new("t", "x").qos(2, 6).encode(V5));
    client.expect_error(0x93);
}

/// Exchanges of QoS 2 that an earlier Network Connection left open are no part of the quota of the next: after a cut, three
/// PUBLISH before the owed PUBREL were answered with 0x93. [MQTT-4.9.0-1] [MQTT-3.3.4-7]
#[test]
fn the_receive_maximum_counts_anew_after_a_reconnect() {
    let Some(broker) = configured("[limits]\nreceive_maximum = 3\n") else { return };
    let connect = Connect::durable(V5, unique("c"));
    let mut client = Client::connect_to(&broker.address, &connect);
    for id in 1..=3 {
        client.send(Publish::new("t", "x").qos(2, id).encode(V5));
        assert_eq!(client.expect_acknowledgement(PUBREC).id, id);
    }
    client.cut();
    let mut client = Client::connect_to(&broker.address, &connect);
    for id in 11..=13 {
        client.send(Publish::new("t", "y").qos(2, id).encode(V5));
        assert_eq!(client.expect_acknowledgement(PUBREC).id, id);
    }
    for id in [1, 2, 3, 11] {
        client.send(acknowledge(PUBREL, id));
        client.expect_acknowledged(PUBCOMP, id, 0);
    }
    client.send(Publish::new("t", "x").qos(2, 14).encode(V5));
    assert_eq!(client.expect_acknowledgement(PUBREC).id, 14);
    client.send(Publish::new("t", "x").qos(2, 15).encode(V5));
    client.expect_error(0x93);
}

/// The same number again and again is allowed, as long as each exchange is finished. [MQTT-3.3.4-7]
#[test]
fn finished_exchanges_do_not_count_against_the_receive_maximum() {
    let Some(broker) = configured("[limits]\nreceive_maximum = 2\n") else { return };
    let mut client = Client::connect_to(&broker.address, &Connect::new(V5, unique("c")));
    for _ in 0..20 {
        client.publish("t", 2, "x");
        client.publish("t", 1, "x");
    }
    client.expect_nothing();
}

/// [MQTT-3.1.2-24] [MQTT-3.1.2-25]
#[test]
fn messages_too_large_for_the_client_are_dropped() {
    let (mut client, topic) = subscriber(Properties::new().four(MAXIMUM_PACKET_SIZE, 100));
    let mut sender = Client::new(V5);
    for qos in 0..=2 {
        sender.publish(&topic, qos, &"x".repeat(200));
        sender.publish(&topic, qos, "small");
        client.expect_message("small");
        client.expect_nothing();
    }
}

/// [MQTT-3.1.2-24] To the byte.
#[test]
fn a_message_of_exactly_the_maximum_packet_size_is_delivered() {
    let (mut client, topic) = subscriber(Properties::new().four(MAXIMUM_PACKET_SIZE, 100));
    // Fixed header, topic with its length, Property Length; QoS 0 has no identifier.
    let room = 100 - 2 - 2 - topic.len() - 1;
    let mut sender = Client::new(V5);
    sender.publish(&topic, 0, &"y".repeat(room + 1));
    sender.publish(&topic, 0, &"x".repeat(room));
    client.expect_message(&"x".repeat(room));
    client.expect_nothing();
}

/// [MQTT-3.1.2-25] Dropped permanently, not queued forever.
#[test]
fn a_message_too_large_does_not_block_a_durable_session() {
    let topic = unique("t");
    let properties = Properties::new().four(SESSION_EXPIRY, 600).four(MAXIMUM_PACKET_SIZE, 100);
    let connect = Connect::new(V5, unique("c")).clean(false).properties(properties);
    let mut client = Client::connect(&connect);
    client.subscribe(&topic, 1);
    client.disconnect();
    let mut sender = Client::new(V5);
    sender.publish(&topic, 1, &"x".repeat(500));
    sender.publish(&topic, 1, "small");
    let mut client = Client::connect(&connect);
    client.expect_message("small");
    client.expect_nothing();
}

/// A packet above the broker's own maximum: 0x95, before it is read to its end.
#[test]
fn a_packet_above_the_maximum_of_the_broker_is_refused() {
    let Some(broker) = configured("[limits]\nmax_packet_size = \"1KiB\"\n") else { return };
    let mut client = Client::connect_to(&broker.address, &Connect::new(V5, unique("c")));
    let announced = client.connack.as_ref().unwrap().properties.number(MAXIMUM_PACKET_SIZE);
    assert_eq!(announced, Some(1024));
    client.publish("t", 1, &"x".repeat(900));
    client.send([0x30, 0xFF, 0xFF, 0xFF, 0x7F, 0, 1, b't']);
    client.expect_error(0x95);
}

/// [MQTT-3.3.2-12]
#[test]
fn the_client_can_use_topic_aliases_up_to_the_maximum() {
    let (first, second) = (unique("t"), unique("t"));
    let mut client = Client::new(V5);
    client.subscribe(&first, 0);
    client.subscribe(&second, 0);
    let maximum =
        client.connack.as_ref().unwrap().properties.number(TOPIC_ALIAS_MAXIMUM).unwrap_or(0);
    assert!(maximum >= 2, "the broker allows {maximum} aliases");
    let maximum = u16::try_from(maximum).unwrap();
    for (alias, topic) in [(1, &first), (maximum, &second)] {
        let properties = Properties::new().two(TOPIC_ALIAS, alias);
        client.publish_with(Publish::new(topic, "named").properties(properties.clone()));
        client.publish_with(Publish::new("", "alias").properties(properties));
        for payload in ["named", "alias"] {
            assert_eq!(client.expect_message(payload).name(), topic);
        }
    }
}

/// An alias can be given to another topic.
#[test]
fn a_topic_alias_can_be_changed() {
    let (first, second) = (unique("t"), unique("t"));
    let mut client = Client::new(V5);
    client.subscribe(&first, 0);
    client.subscribe(&second, 0);
    let alias = Properties::new().two(TOPIC_ALIAS, 1);
    for topic in [&first, &second, &first] {
        client.publish_with(Publish::new(topic, "named").properties(alias.clone()));
        client.publish_with(Publish::new("", "alias").properties(alias.clone()));
        for _ in 0..2 {
            assert_eq!(client.expect_publish().name(), topic);
        }
    }
}

/// The alias of the publisher is not forwarded. [MQTT-3.1.2-27] [MQTT-3.3.2-11]
#[test]
fn a_client_without_topic_alias_maximum_receives_none() {
    let (mut client, topic) = subscriber(Properties::new());
    let alias = Properties::new().two(TOPIC_ALIAS, 1);
    let mut sender = Client::new(V5);
    sender.publish_with(Publish::new(&topic, "x").properties(alias.clone()));
    sender.publish_with(Publish::new("", "x").properties(alias));
    for _ in 0..2 {
        let publish = client.expect_message("x");
        assert_eq!(publish.name(), topic);
        assert!(!publish.received.has(TOPIC_ALIAS));
    }
}

/// [MQTT-3.3.2-8]
#[test]
fn topic_alias_zero_is_refused() {
    let mut client = Client::new(V5);
    let properties = Properties::new().two(TOPIC_ALIAS, 0);
    client.send(Publish::new(unique("t"), "x").properties(properties).encode(V5));
    client.expect_error(0x94);
}

/// An alias above the broker's maximum: 0x94.
#[test]
fn a_topic_alias_above_the_maximum_is_refused() {
    let Some(broker) = configured("[limits]\ntopic_alias_maximum = 10\n") else { return };
    let mut client = Client::connect_to(&broker.address, &Connect::new(V5, unique("c")));
    let announced = client.connack.as_ref().unwrap().properties.number(TOPIC_ALIAS_MAXIMUM);
    assert_eq!(announced, Some(10));
    let properties = Properties::new().two(TOPIC_ALIAS, 11);
    client.send(Publish::new("t", "x").properties(properties).encode(V5));
    client.expect_error(0x94);
}

/// An alias that was never given: Protocol Error.
#[test]
fn an_unknown_topic_alias_is_refused() {
    let mut client = Client::new(V5);
    let properties = Properties::new().two(TOPIC_ALIAS, 1);
    client.send(Publish::new("", "x").properties(properties).encode(V5));
    client.expect_error_among(&[0x82, 0x94]);
}

/// [MQTT-3.3.2-7]
#[test]
fn topic_aliases_end_with_the_network_connection() {
    let topic = unique("t");
    let connect = Connect::durable(V5, unique("c"));
    let alias = Properties::new().two(TOPIC_ALIAS, 1);
    let mut client = Client::connect(&connect);
    client.publish_with(Publish::new(&topic, "x").properties(alias.clone()));
    client.cut();
    let mut client = Client::connect(&connect);
    client.send(Publish::new("", "x").properties(alias).encode(V5));
    client.expect_error_among(&[0x82, 0x94]);
}

/// [MQTT-3.1.2-26] [MQTT-3.3.2-11] The broker assigns aliases of its own, within the client's maximum, and they work.
#[test]
fn aliases_of_the_broker_stay_within_the_maximum_of_the_client() {
    let root = unique("t");
    let properties = Properties::new().two(TOPIC_ALIAS_MAXIMUM, 2);
    let mut client = Client::connect(&Connect::new(V5, unique("c")).properties(properties));
    client.subscribe(&format!("{root}/#"), 1);
    let mut sender = Client::new(V5);
    let mut known = std::collections::HashMap::new();
    let mut used = 0;
    for round in 0..20 {
        let topic = format!("{root}/{}", round % 4);
        sender.publish(&topic, 1, "x");
        let publish = client.receive();
        let name = match publish.received.number(TOPIC_ALIAS) {
            None => publish.name().to_owned(),
            Some(alias) => {
                assert!((1..=2).contains(&alias), "alias {alias}");
                if !publish.topic.is_empty() {
                    known.insert(alias, publish.name().to_owned());
                }
                used += usize::from(publish.topic.is_empty());
                known.get(&alias).expect("a known alias").clone()
            }
        };
        assert_eq!(name, topic);
    }
    assert!(used > 0, "the broker assigns no aliases");
}

/// [MQTT-3.3.2-7] A resumed Session begins without aliases: repeated messages carry their topic.
#[test]
fn messages_sent_again_do_not_use_old_aliases() {
    let topic = unique("t");
    let properties = Properties::new().two(TOPIC_ALIAS_MAXIMUM, 5).four(SESSION_EXPIRY, 600);
    let connect = Connect::new(V5, unique("c")).clean(false).properties(properties);
    let mut client = Client::connect(&connect);
    client.subscribe(&topic, 1);
    let mut sender = Client::new(V5);
    for _ in 0..3 {
        sender.publish(&topic, 1, "x");
        client.expect_publish();
    }
    client.cut();
    let mut client = Client::connect(&connect);
    let first = client.receive();
    assert_eq!(first.name(), topic);
}

/// [MQTT-3.3.2-5]
#[test]
fn an_expired_message_is_not_delivered() {
    let topic = unique("t");
    let connect = Connect::durable(V5, unique("c"));
    let mut client = Client::connect(&connect);
    client.subscribe(&topic, 2);
    client.disconnect();
    let mut sender = Client::new(V5);
    let short = Properties::new().four(MESSAGE_EXPIRY, 1);
    for qos in 1..=2 {
        sender.publish_with(Publish::new(&topic, "short").qos(qos, 1).properties(short.clone()));
    }
    sender.publish(&topic, 1, "long");
    pass(Duration::from_millis(2300));
    let mut client = Client::connect(&connect);
    client.expect_message("long");
    client.expect_nothing();
}

/// [MQTT-3.3.2-6]
#[test]
fn the_message_expiry_counts_down_while_waiting() {
    let topic = unique("t");
    let connect = Connect::durable(V5, unique("c"));
    let mut client = Client::connect(&connect);
    client.subscribe(&topic, 1);
    client.disconnect();
    let expiry = Properties::new().four(MESSAGE_EXPIRY, 100);
    Client::new(V5).publish_with(Publish::new(&topic, "x").qos(1, 1).properties(expiry));
    pass(Duration::from_millis(2100));
    let mut client = Client::connect(&connect);
    let left = client.expect_message("x").received.number(MESSAGE_EXPIRY).unwrap();
    assert!((1..=98).contains(&left), "{left} s are left");
}

/// [MQTT-3.3.2-6] Delivered at once, nothing was lost.
#[test]
fn the_message_expiry_is_forwarded() {
    let (mut client, topic) = subscriber(Properties::new());
    let expiry = Properties::new().four(MESSAGE_EXPIRY, 100);
    Client::new(V5).publish_with(Publish::new(&topic, "x").properties(expiry));
    let left = client.expect_message("x").received.number(MESSAGE_EXPIRY).unwrap();
    assert!((99..=100).contains(&left), "{left} s are left");
}

/// [MQTT-4.3.3-7] What was sent once is completed although it expired meanwhile.
#[test]
fn a_qos_2_message_under_way_does_not_expire() {
    let topic = unique("t");
    let connect = Connect::durable(V5, unique("c"));
    let mut client = Client::connect(&connect);
    client.subscribe(&topic, 2);
    let expiry = Properties::new().four(MESSAGE_EXPIRY, 1);
    Client::new(V5).publish_with(Publish::new(&topic, "sent").qos(2, 1).properties(expiry));
    let sent = client.expect_publish();
    client.cut();
    pass(Duration::from_millis(2300));
    let mut client = Client::connect(&connect);
    let again = client.expect_publish();
    assert_eq!((again.id, again.text()), (sent.id, "sent"));
    client.complete(&again);
    client.expect_nothing();
}

/// [MQTT-4.3.3-13] The publisher's exchange goes on although the message expired.
#[test]
fn an_expired_message_completes_its_incoming_exchange() {
    let mut client = Client::new(V5);
    let expiry = Properties::new().four(MESSAGE_EXPIRY, 1);
    client.send(Publish::new(unique("t"), "x").qos(2, 4).properties(expiry).encode(V5));
    client.expect_acknowledgement(PUBREC);
    pass(Duration::from_millis(1500));
    client.send(acknowledge(PUBREL, 4));
    client.expect_acknowledged(PUBCOMP, 4, 0);
}

/// A window of one and a message that expires while it waits: it is skipped, the next one comes. [MQTT-3.3.2-5]
#[test]
fn a_message_can_expire_in_front_of_a_full_window() {
    let (mut client, topic) = subscriber(Properties::new().two(RECEIVE_MAXIMUM, 1));
    let mut sender = Client::new(V5);
    let expiry = Properties::new().four(MESSAGE_EXPIRY, 1);
    sender.publish(&topic, 1, "in flight");
    sender.publish_with(Publish::new(&topic, "short").qos(1, 1).properties(expiry));
    sender.publish(&topic, 1, "long");
    let first = client.expect_publish();
    pass(Duration::from_millis(2300));
    client.send(acknowledge(PUBACK, first.id));
    client.expect_message("long");
    client.expect_nothing();
}

/// A slow reader of QoS 0 does not hold up its publisher, nor does the broker end it for that.
#[test]
fn a_subscriber_that_does_not_read_does_not_stall_others() {
    let topic = unique("t");
    let mut lazy = Client::new(V311);
    lazy.subscribe(&topic, 0);
    let mut keen = Client::new(V311);
    keen.subscribe(&topic, 0);
    let mut sender = Client::new(V311);
    let payload = "x".repeat(64 * 1024);
    for _ in 0..100 {
        sender.publish(&topic, 0, &payload);
        keen.expect_message(&payload);
    }
    let packet = lazy.expect(crate::packet::PUBLISH);
    assert_ne!(packet.kind(), DISCONNECT);
}
