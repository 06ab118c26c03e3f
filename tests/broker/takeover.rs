//! Take-over: a second Network Connection with the Client Identifier of the first.

use crate::broker::unique;
use crate::client::Client;
use crate::packet::{
    ALL, Connect, OLD, PUBACK, PUBREC, PUBREL, Publish, V5, V311, Will, acknowledge,
};

/// [MQTT-3.1.4-3] [MQTT-4.13.2-1]
#[test]
fn the_first_network_connection_of_5_0_is_told() {
    let connect = Connect::new(V5, unique("c"));
    let mut first = Client::connect(&connect);
    let mut second = Client::connect(&connect);
    first.expect_error(0x8E);
    second.expect_nothing();
}

/// [MQTT311-3.1.4-2]
#[test]
fn the_first_network_connection_of_3_x_is_closed() {
    for version in OLD {
        let connect = Connect::new(version, unique("c"));
        let mut first = Client::connect(&connect);
        let mut second = Client::connect(&connect);
        first.expect_closed();
        second.expect_nothing();
    }
}

/// [MQTT-3.1.4-3] Also between versions.
#[test]
fn versions_take_over_from_each_other() {
    for (from, to) in [(V311, V5), (V5, V311)] {
        let id = unique("c");
        let mut first = Client::connect(&Connect::new(from, &id));
        let mut second = Client::connect(&Connect::new(to, &id));
        first.expect_error(0x8E);
        second.expect_nothing();
    }
}

/// [MQTT-3.1.2-5] [MQTT311-3.1.2-4]
#[test]
fn the_session_goes_over_with_its_subscriptions() {
    for version in ALL {
        let topic = unique("t");
        let connect = Connect::durable(version, unique("c"));
        let mut first = Client::connect(&connect);
        first.subscribe(&topic, 1);
        let mut second = Client::connect(&connect);
        assert_eq!(second.session_present(), version != crate::packet::V31);
        first.expect_error(0x8E);
        Client::new(version).publish(&topic, 1, "for the second");
        second.expect_message("for the second");
    }
}

/// [MQTT-4.4.0-1] What the first left unacknowledged goes to the second, marked as sent before.
#[test]
fn unacknowledged_messages_go_over() {
    let topic = unique("t");
    let connect = Connect::durable(V5, unique("c"));
    let mut first = Client::connect(&connect);
    first.subscribe(&topic, 1);
    Client::new(V5).publish(&topic, 1, "open");
    let sent = first.expect_publish();
    let mut second = Client::connect(&connect);
    let again = second.expect_publish();
    assert_eq!((again.text(), again.id, again.dup), ("open", sent.id, true));
    second.complete(&again);
    second.expect_nothing();
}

/// [MQTT-4.3.3-10] An exchange begun by the first is known to the second.
#[test]
fn an_incoming_qos_2_exchange_goes_over() {
    let topic = unique("t");
    let mut watcher = Client::new(V5);
    watcher.subscribe(&topic, 2);
    let connect = Connect::durable(V5, unique("c"));
    let mut first = Client::connect(&connect);
    let publish = Publish::new(&topic, "once").qos(2, 9);
    first.send(publish.encode(V5));
    first.expect_acknowledged(PUBREC, 9, 0);
    let mut second = Client::connect(&connect);
    second.send(publish.dup().encode(V5));
    second.expect_acknowledgement(PUBREC);
    second.send(acknowledge(PUBREL, 9));
    second.expect_acknowledged(crate::packet::PUBCOMP, 9, 0);
    watcher.expect_message("once");
    watcher.expect_nothing();
}

/// [MQTT-3.1.2-4] With Clean Start the second one gets a new Session.
#[test]
fn clean_start_takes_over_the_name_only() {
    let (topic, id) = (unique("t"), unique("c"));
    let mut first = Client::connect(&Connect::durable(V5, &id));
    first.subscribe(&topic, 1);
    let mut second = Client::connect(&Connect::new(V5, &id));
    first.expect_error(0x8E);
    Client::new(V5).publish(&topic, 1, "nobody");
    second.expect_nothing();
}

/// A take-over with Clean Start ends the Session, so its will is due; resumption within the delay cancels it.
/// [MQTT-3.1.2-8] [MQTT-3.1.4-3]
#[test]
fn a_take_over_publishes_the_will() {
    for version in ALL {
        let (topic, id) = (unique("t"), unique("c"));
        let mut watcher = Client::new(version);
        watcher.subscribe(&topic, 0);
        let _first =
            Client::connect(&Connect::new(version, &id).will(Will::new(&topic, "replaced")));
        let _second = Client::connect(&Connect::new(version, &id));
        watcher.expect_message("replaced");
    }
}

/// Take-over at any moment loses nothing: twenty Network Connections race for one Session while messages arrive.
/// [MQTT-4.5.0-1] [MQTT-4.4.0-1]
#[test]
fn take_over_again_and_again_loses_nothing() {
    let topic = unique("t");
    let connect = Connect::durable(V5, unique("c"));
    let mut current = Client::connect(&connect);
    current.subscribe(&topic, 1);
    let mut sender = Client::new(V5);
    let mut received = Vec::new();
    for round in 0..20 {
        for number in 0..5 {
            sender.publish(&topic, 1, &format!("{}", round * 5 + number));
        }
        let publish = current.expect_publish();
        received.push(publish.text().to_owned());
        current.send(acknowledge(PUBACK, publish.id));
        current = Client::connect(&connect);
    }
    while !received.iter().any(|payload| payload == "99") {
        received.push(current.receive().text().to_owned());
    }
    let mut numbers: Vec<u32> = received.iter().map(|payload| payload.parse().unwrap()).collect();
    numbers.dedup();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers, (0..100).collect::<Vec<_>>());
}
