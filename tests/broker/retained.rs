//! Retained Messages: set, replaced, cleared, expired, many.

use std::time::Duration;

use crate::broker::{pass, unique};
use crate::client::Client;
use crate::packet::{
    ALL, CONTENT_TYPE, Connect, MESSAGE_EXPIRY, Properties, Publish, RECEIVE_MAXIMUM,
    SUBSCRIPTION_ID, V5, V311,
};

/// Clears the Retained Message of a topic.
fn clear(topic: &str) {
    Client::new(V311).publish_with(Publish::new(topic, "").qos(1, 1).retain());
}

/// [MQTT-3.3.1-5] [MQTT311-3.3.1-5] [MQTT311-3.3.1-6] [MQTT311-3.3.1-8]
#[test]
fn a_retained_message_is_sent_to_new_subscribers_with_its_qos() {
    for version in ALL {
        for qos in 0..=2 {
            let topic = unique("t");
            Client::new(version).publish_with(Publish::new(&topic, "kept").qos(qos, 1).retain());
            let mut client = Client::new(version);
            client.subscribe(&topic, 2);
            let publish = client.expect_message("kept");
            assert_eq!((publish.retain, publish.qos, publish.dup), (true, qos, false));
            clear(&topic);
        }
    }
}

/// [MQTT-3.8.4-8] [MQTT311-3.8.4-6]
#[test]
fn a_retained_message_is_sent_with_the_lower_qos() {
    for version in ALL {
        let topic = unique("t");
        Client::new(version).publish_with(Publish::new(&topic, "kept").qos(2, 1).retain());
        for granted in 0..=2 {
            let mut client = Client::new(version);
            client.subscribe(&topic, granted);
            assert_eq!(client.expect_message("kept").qos, granted);
        }
        clear(&topic);
    }
}

/// [MQTT-3.3.1-5] [MQTT311-3.3.1-7]
#[test]
fn the_last_retained_message_replaces_the_one_before() {
    for version in ALL {
        let topic = unique("t");
        let mut sender = Client::new(version);
        for (qos, payload) in [(1, "first"), (0, "second"), (2, "third"), (0, "last")] {
            sender.publish_with(Publish::new(&topic, payload).qos(qos, 1).retain());
        }
        let mut client = Client::new(version);
        client.subscribe(&topic, 2);
        assert_eq!(client.expect_message("last").qos, 0);
        client.expect_nothing();
        clear(&topic);
    }
}

/// [MQTT-3.3.1-6] [MQTT-3.3.1-7] [MQTT311-3.3.1-10] [MQTT311-3.3.1-11]
#[test]
fn an_empty_payload_clears_and_is_delivered() {
    for version in ALL {
        let topic = unique("t");
        let mut present = Client::new(version);
        present.subscribe(&topic, 1);
        let mut sender = Client::new(version);
        sender.publish_with(Publish::new(&topic, "kept").qos(1, 1).retain());
        sender.publish_with(Publish::new(&topic, "").qos(1, 1).retain());
        present.expect_message("kept");
        present.expect_message("");
        let mut late = Client::new(version);
        late.subscribe(&topic, 1);
        late.expect_nothing();
    }
}

/// [MQTT-3.3.1-8] [MQTT311-3.3.1-12]
#[test]
fn messages_without_retain_leave_it_alone() {
    for version in ALL {
        let topic = unique("t");
        let mut sender = Client::new(version);
        sender.publish(&topic, 1, "never kept");
        sender.publish_with(Publish::new(&topic, "kept").qos(1, 1).retain());
        sender.publish(&topic, 1, "plain");
        sender.publish(&topic, 1, "");
        let mut client = Client::new(version);
        client.subscribe(&topic, 1);
        client.expect_message("kept");
        client.expect_nothing();
        clear(&topic);
    }
}

/// [MQTT-3.3.1-9] [MQTT311-3.3.1-6]
#[test]
fn a_wildcard_receives_all_matching_retained_messages() {
    let root = unique("t");
    let mut sender = Client::new(V311);
    for name in ["a", "a/b", "a/b/c", "x"] {
        sender.publish_with(Publish::new(format!("{root}/{name}"), name).qos(1, 1).retain());
    }
    for (filter, expected) in [
        ("#", &["a", "a/b", "a/b/c", "x"][..]),
        ("+", &["a", "x"]),
        ("a/#", &["a", "a/b", "a/b/c"]),
        ("+/b", &["a/b"]),
    ] {
        let mut client = Client::new(V311);
        client.subscribe(&format!("{root}/{filter}"), 1);
        let mut found: Vec<String> =
            expected.iter().map(|_| client.receive().text().to_owned()).collect();
        client.expect_nothing();
        found.sort();
        assert_eq!(found, expected, "{filter}");
    }
    for name in ["a", "a/b", "a/b/c", "x"] {
        clear(&format!("{root}/{name}"));
    }
}

/// The properties are part of the Application Message. [MQTT-3.3.1-5] [MQTT-3.3.2-17]
#[test]
fn a_retained_message_keeps_its_properties() {
    let topic = unique("t");
    let properties = Properties::new().text(CONTENT_TYPE, "x/y").pair("b", "1").pair("a", "2");
    Client::new(V5)
        .publish_with(Publish::new(&topic, "kept").qos(1, 1).retain().properties(properties));
    let mut client = Client::new(V5);
    client.subscribe_with(&Properties::new().variable(SUBSCRIPTION_ID, 8), &[(&topic, 1)]);
    let received = client.expect_message("kept").received;
    assert_eq!(received.text(CONTENT_TYPE), Some("x/y"));
    assert_eq!(received.pairs(), [("b", "1"), ("a", "2")]);
    assert_eq!(received.numbers(SUBSCRIPTION_ID), [8]);
    clear(&topic);
}

/// [MQTT-3.3.2-5]
#[test]
fn a_retained_message_expires() {
    let topic = unique("t");
    let properties = Properties::new().four(MESSAGE_EXPIRY, 1);
    Client::new(V5)
        .publish_with(Publish::new(&topic, "short").qos(1, 1).retain().properties(properties));
    pass(Duration::from_millis(2300));
    let mut client = Client::new(V5);
    client.subscribe(&topic, 1);
    client.expect_nothing();
}

/// [MQTT-3.3.2-6]
#[test]
fn the_expiry_of_a_retained_message_counts_down() {
    let topic = unique("t");
    let properties = Properties::new().four(MESSAGE_EXPIRY, 100);
    Client::new(V5)
        .publish_with(Publish::new(&topic, "kept").qos(1, 1).retain().properties(properties));
    pass(Duration::from_millis(2100));
    let mut client = Client::new(V5);
    client.subscribe(&topic, 1);
    let left = client.expect_message("kept").received.number(MESSAGE_EXPIRY).unwrap();
    assert!((1..=98).contains(&left), "{left} s are left");
    clear(&topic);
}

/// Three thousand Retained Messages arrive complete, through a small window, while others are served.
#[test]
fn many_retained_messages_are_delivered_complete() {
    let root = unique("t");
    let mut sender = Client::new(V311);
    for block in 0..30u16 {
        let burst: Vec<u8> = (0..100u16)
            .flat_map(|n| {
                let number = block * 100 + n;
                Publish::new(format!("{root}/{number}"), number.to_string())
                    .qos(1, n + 1)
                    .retain()
                    .encode(V311)
            })
            .collect();
        sender.send(burst);
        for n in 0..100 {
            sender.expect_acknowledged(crate::packet::PUBACK, n + 1, 0);
        }
    }
    let window = Properties::new().two(RECEIVE_MAXIMUM, 10);
    let mut client = Client::connect(&Connect::new(V5, unique("c")).properties(window));
    client.subscribe(&format!("{root}/#"), 1);
    let mut numbers: Vec<u16> =
        (0..3000).map(|_| client.receive().text().parse().unwrap()).collect();
    client.expect_nothing();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..3000).collect::<Vec<_>>());
    let burst: Vec<u8> = (0..3000)
        .flat_map(|n| Publish::new(format!("{root}/{n}"), "").retain().encode(V311))
        .collect();
    sender.send(burst);
    sender.settle();
    let mut late = Client::new(V5);
    late.subscribe(&format!("{root}/#"), 0);
    late.expect_nothing();
}

/// The publisher of a Retained Message with a Subscription of its own sees it once, as an ordinary message.
#[test]
fn the_publisher_itself_is_an_established_subscriber() {
    let topic = unique("t");
    let mut client = Client::new(V311);
    client.subscribe(&topic, 1);
    client.publish_with(Publish::new(&topic, "own").qos(1, 1).retain());
    assert!(!client.expect_message("own").retain);
    client.expect_nothing();
    clear(&topic);
}

/// A Retained Message and live ones of the same topic arrive in order. [MQTT-4.6.0-6]
#[test]
fn retained_messages_come_before_later_ones() {
    let topic = unique("t");
    let mut sender = Client::new(V311);
    sender.publish_with(Publish::new(&topic, "0").qos(1, 1).retain());
    let mut client = Client::new(V311);
    client.subscribe(&topic, 1);
    for number in 1..20 {
        sender.publish(&topic, 1, &number.to_string());
    }
    for number in 0..20 {
        client.expect_message(&number.to_string());
    }
    clear(&topic);
}
