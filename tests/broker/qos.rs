//! The state behind QoS 1 and 2 in both directions: Packet Identifiers, repetition, resumption in the original order.

use std::collections::HashSet;

use crate::broker::unique;
use crate::client::Client;
use crate::packet::{
    ALL, Connect, PUBACK, PUBCOMP, PUBREC, PUBREL, Publish, V5, V31, V311, Version, acknowledge,
    acknowledge_with,
};

/// A durable subscriber that is connected, how it connects, and its topic.
fn subscriber(version: Version) -> (Client, Connect, String) {
    let (topic, connect) = (unique("t"), Connect::durable(version, unique("c")));
    let mut client = Client::connect(&connect);
    client.subscribe(&topic, 2);
    (client, connect, topic)
}

/// [MQTT-4.3.3-10] [MQTT311-4.3.3-2]
#[test]
fn a_repeated_qos_2_publish_is_delivered_once() {
    for version in ALL {
        let (mut client, _, topic) = subscriber(version);
        let mut sender = Client::new(version);
        let publish = Publish::new(&topic, "once").qos(2, 5);
        sender.send(publish.encode(version));
        sender.expect_acknowledgement(PUBREC);
        for _ in 0..3 {
            sender.send(publish.clone().dup().encode(version));
            assert_eq!(sender.expect_acknowledgement(PUBREC).id, 5);
        }
        sender.send(acknowledge(PUBREL, 5));
        sender.expect_acknowledged(PUBCOMP, 5, 0);
        client.expect_message("once");
        client.expect_nothing();
    }
}

/// [MQTT-4.3.3-12] [MQTT311-4.3.3-2]
#[test]
fn after_pubcomp_the_identifier_is_a_new_message() {
    for version in ALL {
        let (mut client, _, topic) = subscriber(version);
        let mut sender = Client::new(version);
        for payload in ["first", "second"] {
            sender.send(Publish::new(&topic, payload).qos(2, 5).dup().encode(version));
            sender.expect_acknowledged(PUBREC, 5, 0);
            sender.send(acknowledge(PUBREL, 5));
            sender.expect_acknowledged(PUBCOMP, 5, 0);
            client.expect_message(payload);
        }
    }
}

/// [MQTT-4.3.2-5] [MQTT311-4.3.2-2]
#[test]
fn after_puback_the_identifier_is_a_new_message_even_with_dup() {
    for version in ALL {
        let (mut client, _, topic) = subscriber(version);
        let mut sender = Client::new(version);
        for payload in ["first", "second"] {
            sender.send(Publish::new(&topic, payload).qos(1, 5).dup().encode(version));
            sender.expect_acknowledged(PUBACK, 5, 0);
            client.expect_message(payload);
        }
    }
}

/// An identifier of a finished exchange is not found, and that is not fatal. [MQTT-3.7.2-1] [MQTT-4.3.3-11]
#[test]
fn pubrel_of_an_unknown_identifier_is_answered() {
    let mut client = Client::new(V5);
    client.send(acknowledge(PUBREL, 999));
    client.expect_acknowledged(PUBCOMP, 999, 0x92);
    client.expect_nothing();
}

/// [MQTT311-4.3.3-2] 3.x has no code for it: PUBCOMP.
#[test]
fn pubrel_of_an_unknown_identifier_is_answered_in_3_x() {
    for version in [V31, V311] {
        let mut client = Client::new(version);
        client.send(acknowledge(PUBREL, 999));
        client.expect_bytes(&[0x70, 2, 0x03, 0xE7]);
    }
}

/// A PUBREL repeated because PUBCOMP was lost. [MQTT-4.3.3-11]
#[test]
fn a_repeated_pubrel_is_answered_again() {
    for version in ALL {
        let mut client = Client::new(version);
        client.publish(&unique("t"), 2, "x");
        client.send(acknowledge(PUBREL, 1));
        assert_eq!(client.expect_acknowledgement(PUBCOMP).id, 1);
    }
}

/// [MQTT-4.3.3-8] Several exchanges at once do not disturb each other.
#[test]
fn many_qos_2_exchanges_run_side_by_side() {
    let (mut client, _, topic) = subscriber(V311);
    let mut sender = Client::new(V311);
    for id in 1..=20 {
        sender.send(Publish::new(&topic, format!("{id}")).qos(2, id).encode(V311));
    }
    for id in 1..=20 {
        sender.expect_acknowledged(PUBREC, id, 0);
    }
    for id in (1..=20).rev() {
        sender.send(acknowledge(PUBREL, id));
        sender.expect_acknowledged(PUBCOMP, id, 0);
    }
    for id in 1..=20 {
        client.expect_message(&id.to_string());
    }
}

/// [MQTT-2.2.1-4] [MQTT-4.3.2-1] [MQTT-4.3.3-1] [MQTT311-4.3.2-1]
#[test]
fn packet_identifiers_in_flight_differ() {
    let (mut client, _, topic) = subscriber(V5);
    let mut sender = Client::new(V5);
    for number in 0..15 {
        sender.publish(&topic, 1 + number % 2, &number.to_string());
    }
    let ids: HashSet<u16> = (0..15).map(|_| client.expect_publish().id).collect();
    assert_eq!(ids.len(), 15);
    assert!(!ids.contains(&0));
}

/// [MQTT-4.3.2-2] [MQTT-4.3.3-2] [MQTT311-4.3.2-1] [MQTT311-4.3.3-1]
#[test]
fn the_first_delivery_has_no_dup() {
    for version in ALL {
        let (mut client, _, topic) = subscriber(version);
        for qos in 1..=2 {
            Client::new(version).publish(&topic, qos, "x");
            assert!(!client.receive().dup);
        }
    }
}

/// [MQTT-4.4.0-1] [MQTT-4.3.2-3] [MQTT-3.3.1-1] [MQTT311-4.4.0-1] [MQTT311-3.3.1-1] [MQTT311-2.3.1-4]
#[test]
fn unacknowledged_qos_1_is_sent_again_after_resumption() {
    for version in ALL {
        let (mut client, connect, topic) = subscriber(version);
        Client::new(version).publish(&topic, 1, "again");
        let first = client.expect_publish();
        client.cut();
        let mut client = Client::connect(&connect);
        let again = client.expect_publish();
        assert_eq!((again.id, again.dup, again.qos, again.text()), (first.id, true, 1, "again"));
        client.complete(&again);
        client.disconnect();
        Client::connect(&connect).expect_nothing();
    }
}

/// [MQTT-4.3.3-3] [MQTT-4.4.0-1] [MQTT311-4.3.3-1]
#[test]
fn unacknowledged_qos_2_is_sent_again_after_resumption() {
    for version in ALL {
        let (mut client, connect, topic) = subscriber(version);
        Client::new(version).publish(&topic, 2, "again");
        let first = client.expect_publish();
        client.cut();
        let mut client = Client::connect(&connect);
        let again = client.expect_publish();
        assert_eq!((again.id, again.dup, again.qos, again.text()), (first.id, true, 2, "again"));
        client.complete(&again);
    }
}

/// [MQTT-4.3.3-4] [MQTT-4.3.3-5] [MQTT-4.3.3-6] [MQTT-4.4.0-1] [MQTT-2.2.1-5] [MQTT311-4.3.3-1]
#[test]
fn after_pubrec_only_pubrel_is_sent_again() {
    for version in ALL {
        let (mut client, connect, topic) = subscriber(version);
        Client::new(version).publish(&topic, 2, "x");
        let publish = client.expect_publish();
        client.send(acknowledge(PUBREC, publish.id));
        client.expect_acknowledged(PUBREL, publish.id, 0);
        client.cut();
        let mut client = Client::connect(&connect);
        client.expect_acknowledged(PUBREL, publish.id, 0);
        client.send(acknowledge(PUBCOMP, publish.id));
        client.expect_nothing();
        client.disconnect();
        Client::connect(&connect).expect_nothing();
    }
}

/// [MQTT-4.4.0-1] Only after resumption: nothing is repeated while the Network Connection stands.
#[test]
fn nothing_is_sent_again_on_the_same_network_connection() {
    let (mut client, _, topic) = subscriber(V311);
    Client::new(V311).publish(&topic, 1, "x");
    client.expect_publish();
    crate::broker::pass(std::time::Duration::from_secs(2));
    client.expect_nothing();
}

/// [MQTT-4.4.0-1] [MQTT-4.6.0-5] [MQTT311-4.6.0-6]
#[test]
fn unacknowledged_messages_are_sent_again_in_order() {
    for version in ALL {
        let (mut client, connect, topic) = subscriber(version);
        let mut sender = Client::new(version);
        for number in 0..10 {
            sender.publish(&topic, 1, &number.to_string());
        }
        let first: Vec<_> = (0..10).map(|_| client.expect_publish()).collect();
        // One in the middle is acknowledged; the others keep their places.
        client.send(acknowledge(PUBACK, first[4].id));
        client.settle();
        client.cut();
        let mut client = Client::connect(&connect);
        for publish in first.iter().filter(|publish| publish.text() != "4") {
            let again = client.expect_publish();
            assert_eq!((again.text(), again.id, again.dup), (publish.text(), publish.id, true));
        }
        client.expect_nothing();
    }
}

/// [MQTT-4.6.0-5] Old ones first, then what came meanwhile.
#[test]
fn repeated_messages_come_before_new_ones() {
    let (mut client, connect, topic) = subscriber(V5);
    let mut sender = Client::new(V5);
    for number in 0..5 {
        sender.publish(&topic, 1, &number.to_string());
    }
    for _ in 0..5 {
        client.expect_publish();
    }
    client.cut();
    for number in 5..10 {
        sender.publish(&topic, 1, &number.to_string());
    }
    let mut client = Client::connect(&connect);
    for number in 0..10 {
        client.expect_message(&number.to_string());
    }
}

/// [MQTT-4.3.3-10] The publisher resumes its Session in the middle of an exchange.
#[test]
fn an_incoming_exchange_survives_the_network_connection() {
    for version in ALL {
        let (mut client, _, topic) = subscriber(version);
        let connect = Connect::durable(version, unique("c"));
        let mut sender = Client::connect(&connect);
        let publish = Publish::new(&topic, "once").qos(2, 11);
        sender.send(publish.encode(version));
        sender.expect_acknowledgement(PUBREC);
        sender.cut();
        let mut sender = Client::connect(&connect);
        sender.send(publish.dup().encode(version));
        assert_eq!(sender.expect_acknowledgement(PUBREC).id, 11);
        sender.cut();
        let mut sender = Client::connect(&connect);
        sender.send(acknowledge(PUBREL, 11));
        sender.expect_acknowledged(PUBCOMP, 11, 0);
        client.expect_message("once");
        client.expect_nothing();
    }
}

/// [MQTT-4.4.0-2]
#[test]
fn a_negative_puback_ends_the_delivery() {
    let (mut client, connect, topic) = subscriber(V5);
    Client::new(V5).publish(&topic, 1, "refused");
    let publish = client.expect_publish();
    client.send(acknowledge_with(PUBACK, publish.id, 0x80));
    client.disconnect();
    Client::connect(&connect).expect_nothing();
}

/// [MQTT-4.4.0-2] [MQTT-4.3.3-4]
#[test]
fn a_negative_pubrec_ends_the_delivery_without_pubrel() {
    let (mut client, connect, topic) = subscriber(V5);
    Client::new(V5).publish(&topic, 2, "refused");
    let publish = client.expect_publish();
    client.send(acknowledge_with(PUBREC, publish.id, 0x97));
    client.expect_nothing();
    client.disconnect();
    Client::connect(&connect).expect_nothing();
}

/// PUBREC for a message that was never sent: the broker reports it. [MQTT-3.6.2-1]
#[test]
fn pubrec_of_an_unknown_identifier_is_answered_with_0x92() {
    let mut client = Client::new(V5);
    client.send(acknowledge(PUBREC, 321));
    client.expect_acknowledged(PUBREL, 321, 0x92);
    client.expect_nothing();
}

/// Acknowledgements of nothing are no reason to end: the Session may have been lost on one side.
#[test]
fn puback_and_pubcomp_of_unknown_identifiers_are_ignored() {
    for version in ALL {
        let mut client = Client::new(version);
        client.send(acknowledge(PUBACK, 321));
        client.send(acknowledge(PUBCOMP, 321));
        client.expect_nothing();
    }
}

/// Acknowledgements may come in any order from the subscriber; the window moves on.
#[test]
fn acknowledgements_out_of_order_are_accepted() {
    let (mut client, connect, topic) = subscriber(V311);
    let mut sender = Client::new(V311);
    for number in 0..10 {
        sender.publish(&topic, 1, &number.to_string());
    }
    let publishes: Vec<_> = (0..10).map(|_| client.expect_publish()).collect();
    for publish in publishes.iter().rev() {
        client.complete(publish);
    }
    client.expect_nothing();
    client.disconnect();
    Client::connect(&connect).expect_nothing();
}

/// More messages than there are Packet Identifiers: they come round. [MQTT-2.2.1-4]
#[test]
fn seventy_thousand_messages_pass_one_session() {
    let (mut client, _, topic) = subscriber(V311);
    let mut sender = Client::new(V311);
    for block in 0..140u32 {
        let burst: Vec<u8> = (0..500u32)
            .flat_map(|n| {
                let id = u16::try_from(n + 1).unwrap();
                Publish::new(&topic, (block * 500 + n).to_string()).qos(1, id).encode(V311)
            })
            .collect();
        sender.send(burst);
        for n in 0..500 {
            sender.expect_acknowledged(PUBACK, n + 1, 0);
        }
        for n in 0..500 {
            client.expect_message(&(block * 500 + n).to_string());
        }
    }
}

/// QoS 2 is whole even where every packet arrives in a write of its own, in pieces.
#[test]
fn packets_in_pieces_are_put_together() {
    let (mut client, _, topic) = subscriber(V5);
    let mut sender = Client::new(V5);
    for byte in Publish::new(&topic, "in pieces").qos(2, 3).encode(V5) {
        sender.send([byte]);
    }
    sender.expect_acknowledgement(PUBREC);
    for byte in acknowledge(PUBREL, 3) {
        sender.send([byte]);
    }
    sender.expect_acknowledged(PUBCOMP, 3, 0);
    client.expect_message("in pieces");
}
