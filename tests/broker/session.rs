//! Sessions: resumed or new, kept or removed, and messages queued for them while their Client is away.

use std::time::Duration;

use crate::broker::{configured, eventually, pass, unique};
use crate::client::Client;
use crate::packet::{ALL, Connect, OLD, Properties, Publish, SESSION_EXPIRY, V5, V31, V311};

/// [MQTT-3.1.2-6] [MQTT-3.2.2-3] [MQTT311-3.1.2-4] [MQTT311-3.2.2-3]
#[test]
fn a_first_connect_without_clean_start_finds_no_session() {
    for version in ALL {
        assert!(!Client::connect(&Connect::durable(version, unique("c"))).session_present());
    }
}

/// [MQTT-3.1.2-5] [MQTT-3.2.2-3] [MQTT-3.1.2-23] [MQTT-3.1.3-2]
#[test]
fn a_session_of_5_0_is_resumed() {
    let connect = Connect::durable(V5, unique("c"));
    Client::connect(&connect).disconnect();
    let mut client = Client::open(V5);
    client.send(connect.encode());
    let connack = client.expect_connack();
    assert_eq!((connack.reason, connack.session_present), (0, true));
}

/// [MQTT311-3.1.2-4] [MQTT311-3.2.2-2] [MQTT311-4.1.0-1] [MQTT311-3.1.3-2]
#[test]
fn a_session_of_3_1_1_is_resumed() {
    let connect = Connect::durable(V311, unique("c"));
    Client::connect(&connect).disconnect();
    let mut client = Client::open(V311);
    client.send(connect.encode());
    client.expect_bytes(&[0x20, 2, 1, 0]);
}

/// MQTT 3.1 knows no Session Present: the byte is reserved. The Session is resumed nevertheless.
#[test]
fn a_session_of_3_1_is_resumed_without_the_flag() {
    let topic = unique("t");
    let connect = Connect::durable(V31, unique("c"));
    let mut client = Client::connect(&connect);
    client.subscribe(&topic, 1);
    client.disconnect();
    Client::new(V31).publish(&topic, 1, "kept");
    let mut client = Client::open(V31);
    client.send(connect.encode());
    client.expect_bytes(&[0x20, 2, 0, 0]);
    client.expect_message("kept");
}

/// [MQTT-3.1.2-4] [MQTT-3.2.2-2] [MQTT-3.1.4-4] [MQTT311-3.1.2-6] [MQTT311-3.2.2-1] [MQTT311-3.1.4-3]
#[test]
fn clean_start_discards_the_session() {
    for version in ALL {
        let (topic, id) = (unique("t"), unique("c"));
        let mut client = Client::connect(&Connect::durable(version, &id));
        client.subscribe(&topic, 1);
        client.disconnect();
        let mut sender = Client::new(version);
        sender.publish(&topic, 1, "discarded");
        let mut client = Client::connect(&Connect::new(version, &id));
        assert!(!client.session_present());
        sender.publish(&topic, 1, "not subscribed");
        client.expect_nothing();
    }
}

/// [MQTT311-3.1.2-6] The Session of a Clean Session ends with its Network Connection.
#[test]
fn nothing_of_a_clean_session_is_reused() {
    for version in OLD {
        let (topic, id) = (unique("t"), unique("c"));
        let mut client = Client::connect(&Connect::new(version, &id));
        client.subscribe(&topic, 1);
        client.disconnect();
        let mut client = Client::connect(&Connect::durable(version, &id));
        assert!(!client.session_present());
        Client::new(version).publish(&topic, 1, "not subscribed");
        client.expect_nothing();
    }
}

/// [MQTT-4.1.0-2] An absent Session Expiry Interval is zero.
#[test]
fn a_session_of_5_0_without_expiry_ends_with_the_network_connection() {
    let id = unique("c");
    Client::connect(&Connect::new(V5, &id)).disconnect();
    assert!(!Client::connect(&Connect::durable(V5, &id)).session_present());
    let other = unique("c");
    Client::connect(&Connect::new(V5, &other)).cut();
    eventually("the Session is gone", || {
        let connect = Connect::new(V5, &other).clean(false);
        !Client::connect(&connect).session_present()
    });
}

/// Clean Start only says how a Session begins. [MQTT-3.1.2-23]
#[test]
fn a_session_begun_with_clean_start_outlives_the_network_connection() {
    let (topic, connect) = (unique("t"), Connect::durable(V5, unique("c")).clean(true));
    let mut client = Client::connect(&connect);
    client.subscribe(&topic, 1);
    client.disconnect();
    Client::new(V5).publish(&topic, 1, "kept");
    let mut client = Client::connect(&connect.clean(false));
    assert!(client.session_present());
    client.expect_message("kept");
}

/// [MQTT-4.1.0-2] [MQTT-3.1.2-23]
#[test]
fn a_session_expires_after_its_interval() {
    let id = unique("c");
    let connect = |seconds| {
        Connect::new(V5, &id)
            .clean(false)
            .properties(Properties::new().four(SESSION_EXPIRY, seconds))
    };
    Client::connect(&connect(1)).disconnect();
    pass(Duration::from_millis(2500));
    assert!(!Client::connect(&connect(0)).session_present());
}

/// [MQTT-4.1.0-1] The interval runs only while the Client is away.
#[test]
fn a_session_does_not_expire_while_connected() {
    let topic = unique("t");
    let connect =
        Connect::new(V5, unique("c")).properties(Properties::new().four(SESSION_EXPIRY, 1));
    let mut client = Client::connect(&connect);
    client.subscribe(&topic, 1);
    pass(Duration::from_millis(2200));
    Client::new(V5).publish(&topic, 1, "still there");
    client.expect_message("still there");
}

/// 0xFFFFFFFF never expires.
#[test]
fn a_session_that_never_expires_is_resumed() {
    let keep = Properties::new().four(SESSION_EXPIRY, u32::MAX);
    let connect = Connect::new(V5, unique("c")).clean(false).properties(keep);
    Client::connect(&connect).disconnect();
    let client = Client::connect(&connect);
    assert!(client.session_present());
    client.disconnect_with(0, &Properties::new().four(SESSION_EXPIRY, 0));
}

/// Session Expiry Interval in DISCONNECT replaces that in CONNECT: longer.
#[test]
fn disconnect_can_lengthen_the_session() {
    let id = unique("c");
    let one = Properties::new().four(SESSION_EXPIRY, 1);
    let client = Client::connect(&Connect::new(V5, &id).properties(one));
    client.disconnect_with(0, &Properties::new().four(SESSION_EXPIRY, 600));
    pass(Duration::from_millis(2200));
    assert!(Client::connect(&Connect::new(V5, &id).clean(false)).session_present());
}

/// Session Expiry Interval in DISCONNECT replaces that in CONNECT: to the end.
#[test]
fn disconnect_can_end_the_session() {
    let connect = Connect::durable(V5, unique("c"));
    Client::connect(&connect).disconnect_with(0, &Properties::new().four(SESSION_EXPIRY, 0));
    assert!(!Client::connect(&connect).session_present());
}

/// A Session that was to end with its Network Connection cannot be made durable at the end: Protocol Error.
#[test]
fn disconnect_cannot_revive_a_session_without_expiry() {
    let mut client = Client::new(V5);
    client.send(crate::packet::disconnect(0, &Properties::new().four(SESSION_EXPIRY, 60)));
    client.expect_error(0x82);
}

/// The broker may grant less than was asked for, and says so. [MQTT-3.1.2-23]
#[test]
fn the_session_expiry_is_capped_by_configuration() {
    let Some(broker) = configured("[protocol]\nsession_expiry_max = \"1s\"\n") else { return };
    let connect = Connect::durable(V5, unique("c"));
    let client = Client::connect_to(&broker.address, &connect);
    assert_eq!(client.connack.as_ref().unwrap().properties.number(SESSION_EXPIRY), Some(1));
    client.disconnect();
    pass(Duration::from_millis(2500));
    assert!(!Client::connect_to(&broker.address, &connect).session_present());
}

/// [MQTT-4.5.0-1] [MQTT311-3.1.2-5] [MQTT311-4.5.0-1]
#[test]
fn messages_above_qos_0_are_kept_while_away() {
    for version in ALL {
        let topic = unique("t");
        let connect = Connect::durable(version, unique("c"));
        let mut client = Client::connect(&connect);
        client.subscribe(&topic, 2);
        client.disconnect();
        let mut sender = Client::new(version);
        for number in 0..20 {
            sender.publish(&topic, 1 + number % 2, &format!("{number}"));
        }
        let mut client = Client::connect(&connect);
        for number in 0..20 {
            let publish = client.expect_message(&format!("{number}"));
            assert_eq!(publish.qos, 1 + number % 2);
            assert!(!publish.dup, "never sent before");
        }
        client.expect_nothing();
    }
}

/// [MQTT-4.5.0-1] Many more than a window or a read buffer holds, in order.
#[test]
fn two_thousand_messages_are_kept_in_order() {
    let topic = unique("t");
    let connect = Connect::durable(V311, unique("c"));
    let mut client = Client::connect(&connect);
    client.subscribe(&topic, 1);
    client.disconnect();
    let mut sender = Client::new(V311);
    for block in 0..20 {
        let burst: Vec<u8> = (0..100)
            .flat_map(|n| {
                Publish::new(&topic, format!("{}", block * 100 + n)).qos(1, n + 1).encode(V311)
            })
            .collect();
        sender.send(burst);
        for n in 0..100 {
            sender.expect_acknowledged(crate::packet::PUBACK, n + 1, 0);
        }
    }
    let mut client = Client::connect(&connect);
    for number in 0..2000 {
        client.expect_message(&number.to_string());
    }
    client.expect_nothing();
}

/// [MQTT-3.1.2-5] Subscriptions are part of the Session.
#[test]
fn subscriptions_survive_with_their_options() {
    let topic = unique("t");
    let connect = Connect::durable(V5, unique("c"));
    let mut client = Client::connect(&connect);
    let id = Properties::new().variable(crate::packet::SUBSCRIPTION_ID, 77);
    client.subscribe_with(&id, &[(&topic, 1 | 0x08)]);
    client.disconnect();
    let mut client = Client::connect(&connect);
    Client::new(V5).publish_with(Publish::new(&topic, "x").qos(2, 1).retain());
    let publish = client.expect_message("x");
    assert_eq!((publish.qos, publish.retain), (1, true));
    assert_eq!(publish.received.numbers(crate::packet::SUBSCRIPTION_ID), [77]);
    Client::new(V5).publish_with(Publish::new(&topic, "").retain());
}

/// QoS 0 is not kept for absent Clients here; a Server may. Whatever it does, it must not deliver it as QoS 1.
#[test]
fn qos_0_while_away_is_never_raised() {
    let topic = unique("t");
    let connect = Connect::durable(V311, unique("c"));
    let mut client = Client::connect(&connect);
    client.subscribe(&topic, 2);
    client.disconnect();
    let mut sender = Client::new(V311);
    sender.publish(&topic, 0, "zero");
    sender.publish(&topic, 1, "one");
    let mut client = Client::connect(&connect);
    let mut publish = client.receive();
    if publish.text() == "zero" {
        assert_eq!(publish.qos, 0);
        publish = client.receive();
    }
    assert_eq!((publish.text(), publish.qos), ("one", 1));
}

/// [MQTT-3.1.3-2] Sessions are told apart by Client Identifier only, to the byte.
#[test]
fn client_identifiers_are_compared_to_the_byte() {
    let id = unique("Case");
    Client::connect(&Connect::durable(V311, &id)).disconnect();
    assert!(!Client::connect(&Connect::durable(V311, id.to_uppercase())).session_present());
    assert!(!Client::connect(&Connect::durable(V311, format!("{id} "))).session_present());
    assert!(Client::connect(&Connect::durable(V311, &id)).session_present());
}

/// [MQTT-3.1.2-5] The version is a matter of the Network Connection, not of the Session.
#[test]
fn a_session_can_be_resumed_with_another_version() {
    let (topic, id) = (unique("t"), unique("c"));
    let mut client = Client::connect(&Connect::durable(V311, &id));
    client.subscribe(&topic, 1);
    client.disconnect();
    let properties = Properties::new().pair("who", "five");
    Client::new(V5).publish_with(Publish::new(&topic, "kept").qos(1, 1).properties(properties));
    let mut client = Client::connect(&Connect::durable(V5, &id));
    assert!(client.session_present());
    let publish = client.expect_message("kept");
    assert_eq!(publish.received.pairs(), [("who", "five")]);
}

/// [MQTT311-3.1.2-7] Retained Messages are no part of any Session.
#[test]
fn retained_messages_outlive_the_session() {
    let topic = unique("t");
    let mut sender = Client::new(V311);
    sender.publish_with(Publish::new(&topic, "stays").qos(1, 1).retain());
    sender.disconnect();
    let mut client = Client::new(V311);
    client.subscribe(&topic, 1);
    assert!(client.expect_message("stays").retain);
    client.publish_with(Publish::new(&topic, "").retain());
}
