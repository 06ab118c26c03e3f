//! SUBSCRIBE and UNSUBSCRIBE: answers, replacement, options, overlapping Subscriptions.

use crate::broker::{configured, unique};
use crate::client::Client;
use crate::packet::{
    ALL, Connect, OLD, Properties, Publish, SUBACK, SUBSCRIPTION_ID, UNSUBACK, V5, V311, frame,
    subscribe, text, unsubscribe,
};

/// No Local, Retain As Published, Retain Handling, as bits of the Subscription Options.
const NO_LOCAL: u8 = 0x04;
const AS_PUBLISHED: u8 = 0x08;
const IF_NEW: u8 = 0x10;
const NEVER: u8 = 0x20;

/// [MQTT-3.8.4-1] [MQTT-3.8.4-2] [MQTT-2.2.1-6] [MQTT-3.8.4-6] [MQTT-3.8.4-7] [MQTT-3.9.3-2]
#[test]
fn subscribe_of_5_0_is_answered() {
    let mut client = Client::new(V5);
    client.send(subscribe(V5, 0xABCD, &Properties::new(), &[(&unique("t"), 1)]));
    assert_eq!(client.expect(SUBACK).codes(V5), (0xABCD, vec![1]));
}

/// [MQTT311-3.8.4-1] [MQTT311-3.8.4-2] [MQTT311-2.3.1-7] [MQTT311-3.8.4-5] [MQTT311-3.9.3-2]
#[test]
fn subscribe_of_3_1_1_is_answered() {
    let mut client = Client::new(V311);
    for qos in 0..=2 {
        client.send(subscribe(V311, 0xABCD, &Properties::new(), &[("lit", qos)]));
        client.expect_bytes(&[0x90, 3, 0xAB, 0xCD, qos]);
    }
}

/// [MQTT-3.9.3-1] [MQTT-3.8.4-5] [MQTT311-3.9.3-1] [MQTT311-3.8.4-4]
#[test]
fn each_filter_has_its_code_in_order() {
    for version in ALL {
        let topic = unique("t");
        let mut client = Client::new(version);
        let names: Vec<String> = (0..5).map(|n| format!("{topic}/{n}")).collect();
        let filters = [
            (names[0].as_str(), 2),
            (&names[1], 0),
            (&names[2], 1),
            (&names[3], 0),
            (&names[4], 2),
        ];
        assert_eq!(client.subscribe_with(&Properties::new(), &filters), [2, 0, 1, 0, 2]);
        for name in &names {
            client.publish(name, 0, name);
            client.expect_message(name);
        }
    }
}

/// One bad filter refuses one Subscription. [MQTT-3.8.4-6] [MQTT-3.9.3-1]
#[test]
fn a_bad_filter_does_not_spoil_the_good_ones() {
    let topic = unique("t");
    for version in ALL {
        let mut client = Client::new(version);
        client.send(subscribe(
            version,
            1,
            &Properties::new(),
            &[(&topic, 1), ("a/#/b", 1), ("x/y", 0)],
        ));
        let Some(packet) = client.read() else { continue };
        if packet.kind() == SUBACK {
            let bad = if version == V5 { 0x8F } else { 0x80 };
            assert_eq!(packet.codes(version).1, [1, bad, 0]);
            client.publish(&topic, 1, "good");
            client.expect_message("good");
        } else {
            assert!([0x81, 0x82, 0x8F].contains(&packet.disconnect().0));
        }
    }
}

/// [MQTT-3.8.1-1] [MQTT-2.1.3-1] [MQTT311-3.8.1-1] Only MQTT 3.1 has a DUP flag here.
#[test]
fn subscribe_with_wrong_flags_is_refused() {
    for version in [V311, V5] {
        for first in [0x80, 0x81, 0x83, 0x8A] {
            let mut client = Client::new(version);
            let mut bytes = subscribe(version, 1, &Properties::new(), &[("a", 0)]);
            bytes[0] = first;
            client.send(bytes);
            client.expect_error(0x81);
        }
    }
}

/// [MQTT-3.8.3-2] [MQTT311-3.8.3-3]
#[test]
fn subscribe_without_filters_is_a_protocol_error() {
    for version in ALL {
        let mut client = Client::new(version);
        client.send(subscribe(version, 1, &Properties::new(), &[]));
        client.expect_error_among(&[0x82, 0x81]);
    }
}

/// [MQTT-3.8.3-5] [MQTT311-3.8.3-4]
#[test]
fn reserved_bits_in_subscription_options_are_malformed() {
    for version in ALL {
        for options in [0x40, 0x80, 0xC0] {
            let mut client = Client::new(version);
            client.send(subscribe(version, 1, &Properties::new(), &[("a", options)]));
            client.expect_error(0x81);
        }
    }
    for options in [0x04, 0x08, 0x10, 0x20] {
        let mut client = Client::new(V311);
        client.send(subscribe(V311, 1, &Properties::new(), &[("a", options)]));
        client.expect_closed();
    }
}

/// [MQTT311-3.8.3-4] Also in 5.0: QoS 3 and Retain Handling 3 are Protocol Errors.
#[test]
fn requested_qos_3_and_retain_handling_3_are_refused() {
    for version in ALL {
        let mut client = Client::new(version);
        client.send(subscribe(version, 1, &Properties::new(), &[("a", 3)]));
        client.expect_error_among(&[0x82, 0x81]);
    }
    let mut client = Client::new(V5);
    client.send(subscribe(V5, 1, &Properties::new(), &[("a", 0x30)]));
    client.expect_error_among(&[0x82, 0x81]);
}

/// [MQTT311-2.3.1-1]
#[test]
fn subscribe_with_packet_identifier_zero_is_refused() {
    for version in ALL {
        let mut client = Client::new(version);
        client.send(subscribe(version, 0, &Properties::new(), &[("a", 0)]));
        client.expect_error_among(&[0x82, 0x81]);
    }
}

/// [MQTT-3.8.3-1] [MQTT311-3.8.3-1]
#[test]
fn an_ill_formed_filter_is_refused() {
    for version in ALL {
        for filter in [&b"\xff"[..], b"a\0b", b"\xed\xa0\x80"] {
            let mut client = Client::new(version);
            let properties = if version == V5 { vec![0] } else { Vec::new() };
            client.send(frame(0x82, &[vec![0, 1], properties, text(filter), vec![0]].concat()));
            client.expect_error_among(&[0x81, 0x8F]);
        }
    }
}

/// [MQTT-3.8.4-3] [MQTT311-3.8.4-3]
#[test]
fn the_same_filter_replaces_the_subscription() {
    for version in ALL {
        let topic = unique("t");
        let mut client = Client::new(version);
        client.subscribe(&topic, 2);
        client.subscribe(&topic, 0);
        Client::new(version).publish(&topic, 2, "x");
        assert_eq!(client.expect_message("x").qos, 0);
        client.expect_nothing();
    }
}

/// [MQTT-3.8.4-4] [MQTT311-3.8.4-3]
#[test]
fn replacing_sends_retained_messages_again() {
    for version in ALL {
        let topic = unique("t");
        let mut client = Client::new(version);
        client.publish_with(Publish::new(&topic, "kept").qos(1, 1).retain());
        for _ in 0..3 {
            client.subscribe(&topic, 1);
            assert!(client.expect_message("kept").retain);
        }
        client.publish_with(Publish::new(&topic, "").retain());
    }
}

/// [MQTT-3.8.4-4] Nothing is lost or doubled while a Subscription is replaced again and again.
#[test]
fn replacing_does_not_interrupt_the_flow() {
    let topic = unique("t");
    let mut client = Client::new(V5);
    client.subscribe(&topic, 1);
    let mut sender = Client::new(V5);
    for number in 0..50 {
        sender.publish(&topic, 1, &number.to_string());
        client.subscribe(&topic, 1 + number % 2);
        sender.publish(&topic, 1, &format!("{number}b"));
    }
    for number in 0..50 {
        client.expect_message(&number.to_string());
        client.expect_message(&format!("{number}b"));
    }
    client.expect_nothing();
}

/// [MQTT-3.8.4-3] A new identifier replaces the old one, and its absence removes it.
#[test]
fn replacing_changes_the_subscription_identifier() {
    let topic = unique("t");
    let mut client = Client::new(V5);
    for (properties, expected) in [
        (Properties::new().variable(SUBSCRIPTION_ID, 5), vec![5]),
        (Properties::new().variable(SUBSCRIPTION_ID, 268_435_455), vec![268_435_455]),
        (Properties::new(), vec![]),
    ] {
        client.subscribe_with(&properties, &[(&topic, 0)]);
        client.publish(&topic, 0, "x");
        assert_eq!(client.expect_message("x").received.numbers(SUBSCRIPTION_ID), expected);
    }
}

/// A Subscription Identifier of zero is a Protocol Error.
#[test]
fn subscription_identifier_zero_is_refused() {
    let mut client = Client::new(V5);
    client.send(subscribe(V5, 1, &Properties::new().variable(SUBSCRIPTION_ID, 0), &[("a", 0)]));
    client.expect_error_among(&[0x82, 0x81]);
}

/// Subscription Identifier twice in one SUBSCRIBE is a Protocol Error.
#[test]
fn two_subscription_identifiers_in_one_subscribe_are_refused() {
    let properties = Properties::new().variable(SUBSCRIPTION_ID, 1).variable(SUBSCRIPTION_ID, 2);
    let mut client = Client::new(V5);
    client.send(subscribe(V5, 1, &properties, &[("a", 0)]));
    client.expect_error(0x82);
}

/// [MQTT-3.8.3-3]
#[test]
fn no_local_keeps_own_messages_away() {
    let topic = unique("t");
    let mut client = Client::new(V5);
    client.subscribe_with(&Properties::new(), &[(&topic, 1 | NO_LOCAL)]);
    client.publish(&topic, 1, "own");
    client.expect_nothing();
    Client::new(V5).publish(&topic, 1, "foreign");
    client.expect_message("foreign");
}

/// [MQTT-3.8.3-3] The Client Identifier is compared, not the Network Connection.
#[test]
fn no_local_outlives_the_network_connection() {
    let topic = unique("t");
    let connect = Connect::durable(V5, unique("c"));
    let mut client = Client::connect(&connect);
    client.subscribe_with(&Properties::new(), &[(&topic, 1 | NO_LOCAL)]);
    client.disconnect();
    let mut client = Client::connect(&connect);
    client.publish(&topic, 1, "own");
    client.expect_nothing();
}

/// [MQTT-3.8.3-4]
#[test]
fn no_local_on_a_shared_subscription_is_a_protocol_error() {
    let mut client = Client::new(V5);
    client.send(subscribe(V5, 1, &Properties::new(), &[("$share/g/a", 1 | NO_LOCAL)]));
    client.expect_error(0x82);
}

/// [MQTT-3.3.1-12] [MQTT311-3.3.1-9]
#[test]
fn retain_is_cleared_for_established_subscriptions() {
    for version in ALL {
        let topic = unique("t");
        let mut client = Client::new(version);
        client.subscribe(&topic, 1);
        Client::new(version).publish_with(Publish::new(&topic, "x").qos(1, 1).retain());
        assert!(!client.expect_message("x").retain);
        Client::new(version).publish_with(Publish::new(&topic, "").retain());
    }
}

/// [MQTT-3.3.1-13]
#[test]
fn retain_as_published_keeps_the_flag() {
    let topic = unique("t");
    let mut client = Client::new(V5);
    client.subscribe_with(&Properties::new(), &[(&topic, 1 | AS_PUBLISHED)]);
    let mut sender = Client::new(V5);
    sender.publish_with(Publish::new(&topic, "retained").qos(1, 1).retain());
    assert!(client.expect_message("retained").retain);
    sender.publish(&topic, 1, "plain");
    assert!(!client.expect_message("plain").retain);
    sender.publish_with(Publish::new(&topic, "").retain());
    assert!(client.expect_message("").retain);
}

/// [MQTT-3.3.1-9] [MQTT311-3.3.1-6] [MQTT311-3.3.1-8]
#[test]
fn retain_handling_0_sends_at_every_subscribe() {
    let topic = unique("t");
    let mut client = Client::new(V5);
    client.publish_with(Publish::new(&topic, "kept").qos(1, 1).retain());
    for _ in 0..2 {
        client.subscribe_with(&Properties::new(), &[(&topic, 1)]);
        assert!(client.expect_message("kept").retain);
    }
    client.publish_with(Publish::new(&topic, "").retain());
}

/// [MQTT-3.3.1-10]
#[test]
fn retain_handling_1_sends_for_new_subscriptions_only() {
    let topic = unique("t");
    let mut client = Client::new(V5);
    client.publish_with(Publish::new(&topic, "kept").qos(1, 1).retain());
    client.subscribe_with(&Properties::new(), &[(&topic, 1 | IF_NEW)]);
    client.expect_message("kept");
    client.subscribe_with(&Properties::new(), &[(&topic, 1 | IF_NEW)]);
    client.expect_nothing();
    client.unsubscribe(&[&topic]);
    client.subscribe_with(&Properties::new(), &[(&topic, 1 | IF_NEW)]);
    client.expect_message("kept");
    client.publish_with(Publish::new(&topic, "").retain());
}

/// [MQTT-3.3.1-10] A Subscription that was resumed with its Session is not new.
#[test]
fn retain_handling_1_sees_resumed_subscriptions() {
    let topic = unique("t");
    let connect = Connect::durable(V5, unique("c"));
    let mut client = Client::connect(&connect);
    client.subscribe_with(&Properties::new(), &[(&topic, 1 | IF_NEW)]);
    client.publish_with(Publish::new(&topic, "kept").qos(1, 1).retain());
    client.expect_message("kept");
    client.disconnect();
    let mut client = Client::connect(&connect);
    client.subscribe_with(&Properties::new(), &[(&topic, 1 | IF_NEW)]);
    client.expect_nothing();
    client.publish_with(Publish::new(&topic, "").retain());
}

/// [MQTT-3.3.1-11]
#[test]
fn retain_handling_2_sends_nothing() {
    let topic = unique("t");
    let mut client = Client::new(V5);
    client.publish_with(Publish::new(&topic, "kept").qos(1, 1).retain());
    client.subscribe_with(&Properties::new(), &[(&topic, 1 | NEVER)]);
    client.expect_nothing();
    client.publish_with(Publish::new(&topic, "").retain());
}

/// [MQTT-3.3.4-2] [MQTT311-3.3.5-1] One copy, the highest QoS: the choice of this broker.
#[test]
fn overlapping_subscriptions_deliver_one_copy_with_the_highest_qos() {
    for version in ALL {
        let topic = unique("t");
        let mut client = Client::new(version);
        client.subscribe(&format!("{topic}/#"), 0);
        client.subscribe(&format!("{topic}/+"), 2);
        client.subscribe(&format!("{topic}/x"), 1);
        Client::new(version).publish(&format!("{topic}/x"), 2, "x");
        assert_eq!(client.expect_message("x").qos, 2);
        client.expect_nothing();
    }
}

/// [MQTT-3.3.4-3] [MQTT-3.3.4-4] [MQTT-3.3.4-5]
#[test]
fn the_single_copy_carries_all_subscription_identifiers() {
    let topic = unique("t");
    let mut client = Client::new(V5);
    for (id, filter) in
        [(1, format!("{topic}/#")), (300, format!("{topic}/+")), (70_000, format!("{topic}/x"))]
    {
        client.subscribe_with(&Properties::new().variable(SUBSCRIPTION_ID, id), &[(&filter, 1)]);
    }
    client.subscribe(&format!("+/x{}", unique("no")), 1);
    client.publish(&format!("{topic}/x"), 1, "x");
    let mut ids = client.expect_message("x").received.numbers(SUBSCRIPTION_ID);
    ids.sort_unstable();
    assert_eq!(ids, [1, 300, 70_000]);
    client.expect_nothing();
}

/// One identifier for several filters of one SUBSCRIBE; what overlaps carries it.
#[test]
fn filters_of_one_subscribe_share_their_identifier() {
    let topic = unique("t");
    let mut client = Client::new(V5);
    let filters = [(format!("{topic}/a"), 0), (format!("{topic}/b"), 0)];
    let filters: Vec<_> = filters.iter().map(|(filter, qos)| (filter.as_str(), *qos)).collect();
    client.subscribe_with(&Properties::new().variable(SUBSCRIPTION_ID, 9), &filters);
    for name in ["a", "b"] {
        client.publish(&format!("{topic}/{name}"), 0, name);
        assert_eq!(client.expect_message(name).received.numbers(SUBSCRIPTION_ID), [9]);
    }
}

/// One of two overlapping Subscriptions has No Local: the other still delivers. [MQTT-3.8.3-3]
#[test]
fn no_local_counts_for_its_subscription_only() {
    let topic = unique("t");
    let mut client = Client::new(V5);
    client.subscribe_with(&Properties::new(), &[(&topic, 2 | NO_LOCAL)]);
    client.subscribe(&format!("{topic}/#"), 1);
    client.publish(&topic, 2, "x");
    assert_eq!(client.expect_message("x").qos, 1);
    client.expect_nothing();
}

/// [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT-3.11.3-1] [MQTT-3.11.3-2] [MQTT-2.2.1-6] [MQTT-3.10.4-6]
#[test]
fn unsubscribe_of_5_0_is_answered_filter_by_filter() {
    let topic = unique("t");
    let mut client = Client::new(V5);
    client.subscribe(&topic, 1);
    client.send(unsubscribe(V5, 0x1234, &["not/there", &topic, &topic]));
    assert_eq!(client.expect(UNSUBACK).codes(V5), (0x1234, vec![0x11, 0, 0x11]));
}

/// [MQTT311-3.10.4-4] [MQTT311-3.10.4-5] [MQTT311-2.3.1-7] [MQTT311-3.10.4-6]
#[test]
fn unsubscribe_of_3_x_is_answered() {
    for version in OLD {
        let mut client = Client::new(version);
        client.send(unsubscribe(version, 0x1234, &["not/there", "nor/there"]));
        client.expect_bytes(&[0xB0, 2, 0x12, 0x34]);
    }
}

/// [MQTT-3.10.4-2] [MQTT-3.10.4-1] [MQTT311-3.10.4-1] [MQTT311-3.10.4-2]
#[test]
fn unsubscribe_ends_the_subscription() {
    for version in ALL {
        let topic = unique("t");
        let mut client = Client::new(version);
        client.subscribe(&topic, 1);
        client.unsubscribe(&[&topic]);
        Client::new(version).publish(&topic, 1, "nobody");
        client.expect_nothing();
    }
}

/// [MQTT-3.10.4-1] [MQTT311-3.10.4-1] A filter is text here: wildcards match nothing but themselves.
#[test]
fn unsubscribe_compares_characters() {
    for version in ALL {
        let topic = unique("t");
        let mut client = Client::new(version);
        client.subscribe(&format!("{topic}/a"), 0);
        client.unsubscribe(&[
            &format!("{topic}/+"),
            &format!("{topic}/#"),
            "#",
            &format!("{topic}/A"),
        ]);
        client.publish(&format!("{topic}/a"), 0, "still");
        client.expect_message("still");
        client.subscribe(&format!("{topic}/+"), 0);
        client.unsubscribe(&[&format!("{topic}/a")]);
        client.publish(&format!("{topic}/a"), 0, "by wildcard");
        client.expect_message("by wildcard");
    }
}

/// [MQTT-3.10.4-3] [MQTT311-3.10.4-3]
#[test]
fn deliveries_under_way_are_completed_after_unsubscribe() {
    for version in ALL {
        let topic = unique("t");
        let mut client = Client::new(version);
        client.subscribe(&topic, 2);
        Client::new(version).publish(&topic, 2, "under way");
        let publish = client.expect_publish();
        client.unsubscribe(&[&topic]);
        client.complete(&publish);
        client.expect_nothing();
    }
}

/// [MQTT-3.10.1-1] [MQTT311-3.10.1-1]
#[test]
fn unsubscribe_with_wrong_flags_is_refused() {
    for version in [V311, V5] {
        for first in [0xA0, 0xA1, 0xA6] {
            let mut client = Client::new(version);
            let mut bytes = unsubscribe(version, 1, &["a"]);
            bytes[0] = first;
            client.send(bytes);
            client.expect_error(0x81);
        }
    }
}

/// [MQTT-3.10.3-2] [MQTT311-3.10.3-2]
#[test]
fn unsubscribe_without_filters_is_refused() {
    for version in ALL {
        let mut client = Client::new(version);
        client.send(unsubscribe(version, 1, &[]));
        client.expect_error_among(&[0x82, 0x81]);
    }
}

/// [MQTT-3.10.3-1] [MQTT311-3.10.3-1]
#[test]
fn an_ill_formed_filter_in_unsubscribe_is_refused() {
    for version in ALL {
        let mut client = Client::new(version);
        let properties = if version == V5 { vec![0] } else { Vec::new() };
        client.send(frame(0xA2, &[vec![0, 1], properties, text(b"\xff")].concat()));
        client.expect_error_among(&[0x81, 0x8F]);
    }
}

/// The limit of Subscriptions per Session, shared ones included: one more is refused with 0x97, one of them again is not.
#[test]
fn too_many_subscriptions_are_refused() {
    let Some(broker) = configured("[limits]\nmax_subscriptions_per_session = 3\n") else { return };
    let mut client = Client::connect_to(&broker.address, &Connect::new(V5, unique("c")));
    let filters = [("a", 0), ("b", 0), ("c", 0), ("d", 0), ("a", 1)];
    assert_eq!(client.subscribe_with(&Properties::new(), &filters), [0, 0, 0, 0x97, 1]);
    client.unsubscribe(&["a"]);
    assert_eq!(client.subscribe_with(&Properties::new(), &[("d", 0)]), [0]);
    let filters = [("$share/g/a", 0), ("b", 1)];
    assert_eq!(client.subscribe_with(&Properties::new(), &filters), [0x97, 1]);
    client.unsubscribe(&["b"]);
    let filters = [("$share/g/a", 0), ("$share/g/a", 1), ("$share/g/b", 0), ("a", 0)];
    assert_eq!(client.subscribe_with(&Properties::new(), &filters), [0, 1, 0x97, 0x97]);
}

/// Wildcard Subscriptions can be off: 0xA2.
#[test]
fn wildcards_can_be_off() {
    let Some(broker) = configured("[protocol]\nwildcard_subscriptions = false\n") else { return };
    let mut client = Client::connect_to(&broker.address, &Connect::new(V5, unique("c")));
    assert_eq!(client.connack.as_ref().unwrap().properties.number(0x28), Some(0));
    assert_eq!(client.subscribe_with(&Properties::new(), &[("a/#", 0), ("a", 0)]), [0xA2, 0]);
}

/// Shared Subscriptions can be off: 0x9E.
#[test]
fn shared_subscriptions_can_be_off() {
    let Some(broker) = configured("[protocol]\nshared_subscriptions = false\n") else { return };
    let mut client = Client::connect_to(&broker.address, &Connect::new(V5, unique("c")));
    assert_eq!(client.connack.as_ref().unwrap().properties.number(0x2A), Some(0));
    assert_eq!(
        client.subscribe_with(&Properties::new(), &[("$share/g/a", 0), ("a", 0)]),
        [0x9E, 0]
    );
}
