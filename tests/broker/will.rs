//! Will Messages: published on every cause that the specification names, and on no other.

use std::time::{Duration, Instant};

use crate::broker::{configured, pass, unique};
use crate::client::Client;
use crate::packet::{
    ALL, CONTENT_TYPE, CORRELATION_DATA, Connect, MESSAGE_EXPIRY, OLD, PAYLOAD_FORMAT, Properties,
    Publish, RESPONSE_TOPIC, SESSION_EXPIRY, V5, V311, Version, WILL_DELAY, Will, frame,
};

/// A client that watches a topic of its own.
fn watcher(version: Version) -> (Client, String) {
    let topic = unique("will/");
    let mut watcher = Client::new(version);
    watcher.subscribe(&topic, 2);
    (watcher, topic)
}

/// A Will Topic longer than other topics may be was accepted: what PUBLISH may not do, a Will may not either.
#[test]
fn a_will_topic_is_held_to_the_limits_of_topics() {
    let limits = "[limits]\nmax_topic_levels = 3\nmax_topic_bytes = 20\n";
    let Some(broker) = configured(limits) else { return };
    for version in ALL {
        for (topic, is_within) in
            [("a/b/c", true), ("a/b/c/d", false), ("twenty-one-characters", false)]
        {
            let mut client = Client::open_to(&broker.address, version);
            let will = Will::new(topic, "x");
            client.send(Connect::new(version, unique("c")).will(will).encode());
            match is_within {
                true => assert_eq!(client.expect_connack().reason, 0),
                false => client.expect_refusal(if version == V5 { 0x90 } else { 5 }),
            }
        }
    }
}

/// [MQTT-3.1.2-7] [MQTT-3.1.2-8] [MQTT311-3.1.2-8]
#[test]
fn a_cut_publishes_the_will() {
    for version in ALL {
        let (mut watcher, topic) = watcher(version);
        Client::connect(&Connect::new(version, unique("c")).will(Will::new(&topic, "cut"))).cut();
        let publish = watcher.expect_message("cut");
        assert_eq!((publish.qos, publish.retain), (0, false));
    }
}

/// [MQTT-3.1.2-10] [MQTT-3.14.4-3] [MQTT311-3.1.2-10] [MQTT311-3.14.4-3]
#[test]
fn a_normal_disconnect_discards_the_will() {
    for version in ALL {
        let (mut watcher, topic) = watcher(version);
        Client::connect(&Connect::new(version, unique("c")).will(Will::new(&topic, "no")))
            .disconnect();
        watcher.expect_nothing();
    }
}

/// [MQTT-3.14.4-3] Reason Code 0x00 spelt out.
#[test]
fn a_disconnect_with_reason_0_discards_the_will() {
    let (mut watcher, topic) = watcher(V5);
    let client = Client::connect(&Connect::new(V5, unique("c")).will(Will::new(&topic, "no")));
    client.disconnect_with(0, &Properties::new());
    watcher.expect_nothing();
}

/// Disconnect with Will Message. [MQTT-3.1.2-8]
#[test]
fn a_disconnect_with_reason_4_publishes_the_will() {
    let (mut watcher, topic) = watcher(V5);
    let client =
        Client::connect(&Connect::new(V5, unique("c")).will(Will::new(&topic, "asked for")));
    client.disconnect_with(4, &Properties::new());
    watcher.expect_message("asked for");
}

/// Every Reason Code but 0x00 leaves the will standing. [MQTT-3.1.2-8]
#[test]
fn a_disconnect_with_an_error_publishes_the_will() {
    for reason in [0x80, 0x81, 0x83, 0x97] {
        let (mut watcher, topic) = watcher(V5);
        let client =
            Client::connect(&Connect::new(V5, unique("c")).will(Will::new(&topic, "error")));
        client.disconnect_with(reason, &Properties::new());
        watcher.expect_message("error");
    }
}

/// [MQTT-3.1.2-8] [MQTT311-3.1.2-8] A Protocol Error is no normal end.
#[test]
fn a_malformed_packet_publishes_the_will() {
    for version in ALL {
        let (mut watcher, topic) = watcher(version);
        let mut client =
            Client::connect(&Connect::new(version, unique("c")).will(Will::new(&topic, "broken")));
        client.send(frame(0x00, &[]));
        client.expect_any_error();
        watcher.expect_message("broken");
    }
}

/// [MQTT-3.1.2-8] A client that closes its side without a DISCONNECT.
#[test]
fn a_half_close_publishes_the_will() {
    let (mut watcher, topic) = watcher(V311);
    let mut client =
        Client::connect(&Connect::new(V311, unique("c")).will(Will::new(&topic, "half")));
    client.half_close();
    watcher.expect_message("half");
}

/// [MQTT311-3.1.2-12] [MQTT311-3.1.2-11]
#[test]
fn without_the_will_flag_nothing_is_published() {
    let (mut watcher, topic) = watcher(V311);
    let mut client = Client::new(V311);
    client.subscribe(&topic, 0);
    client.cut();
    watcher.expect_nothing();
}

/// [MQTT-3.1.2-12] [MQTT311-3.1.2-14]
#[test]
fn the_will_has_its_qos() {
    for version in ALL {
        for qos in 0..=2 {
            let (mut watcher, topic) = watcher(version);
            let will = Will::new(&topic, "will").qos(qos);
            Client::connect(&Connect::new(version, unique("c")).will(will)).cut();
            assert_eq!(watcher.expect_message("will").qos, qos);
        }
    }
}

/// [MQTT-3.1.2-15] [MQTT311-3.1.2-17]
#[test]
fn a_retained_will_is_retained() {
    for version in ALL {
        let (mut watcher, topic) = watcher(version);
        let will = Will::new(&topic, "stays").qos(1).retain();
        Client::connect(&Connect::new(version, unique("c")).will(will)).cut();
        assert!(!watcher.expect_message("stays").retain);
        let mut late = Client::new(version);
        late.subscribe(&topic, 1);
        assert!(late.expect_message("stays").retain);
        late.publish_with(Publish::new(&topic, "").retain());
    }
}

/// [MQTT-3.1.2-14] [MQTT311-3.1.2-16]
#[test]
fn a_will_without_retain_is_not_retained() {
    for version in ALL {
        let (mut watcher, topic) = watcher(version);
        Client::connect(&Connect::new(version, unique("c")).will(Will::new(&topic, "goes"))).cut();
        watcher.expect_message("goes");
        let mut late = Client::new(version);
        late.subscribe(&topic, 1);
        late.expect_nothing();
    }
}

/// A will with an empty payload is a message like any other; retained, it clears.
#[test]
fn an_empty_retained_will_clears_the_retained_message() {
    let (mut watcher, topic) = watcher(V311);
    watcher.publish_with(Publish::new(&topic, "old").qos(1, 1).retain());
    watcher.expect_message("old");
    let will = Will::new(&topic, "").qos(1).retain();
    Client::connect(&Connect::new(V311, unique("c")).will(will)).cut();
    watcher.expect_message("");
    let mut late = Client::new(V311);
    late.subscribe(&topic, 1);
    late.expect_nothing();
}

/// [MQTT-3.1.2-10] Once published it is gone: the next end of the Session publishes nothing.
#[test]
fn a_published_will_is_not_published_again() {
    for version in ALL {
        let (mut watcher, topic) = watcher(version);
        let connect = Connect::durable(version, unique("c"));
        Client::connect(&connect.clone().will(Will::new(&topic, "once"))).cut();
        watcher.expect_message("once");
        Client::connect(&connect).cut();
        let mut next = Client::connect(&connect);
        next.settle();
        watcher.expect_nothing();
    }
}

/// [MQTT-3.1.3-10] [MQTT-3.1.2-9]
#[test]
fn will_properties_are_published() {
    let (mut watcher, topic) = watcher(V5);
    let properties = Properties::new()
        .byte(PAYLOAD_FORMAT, 1)
        .text(CONTENT_TYPE, "text/plain")
        .text(RESPONSE_TOPIC, "answer/here")
        .text(CORRELATION_DATA, b"\x00\x01\xff")
        .pair("b", "2")
        .pair("a", "1")
        .pair("b", "3");
    let will = Will::new(&topic, "rich").properties(properties);
    Client::connect(&Connect::new(V5, unique("c")).will(will)).cut();
    let received = watcher.expect_message("rich").received;
    assert_eq!(received.number(PAYLOAD_FORMAT), Some(1));
    assert_eq!(received.text(CONTENT_TYPE), Some("text/plain"));
    assert_eq!(received.text(RESPONSE_TOPIC), Some("answer/here"));
    assert_eq!(received.bytes(CORRELATION_DATA), Some(&b"\x00\x01\xff"[..]));
    assert_eq!(received.pairs(), [("b", "2"), ("a", "1"), ("b", "3")]);
    assert!(!received.has(WILL_DELAY));
}

/// [MQTT-3.1.2-8] [MQTT-3.3.2-6]
#[test]
fn the_message_expiry_of_a_will_begins_when_it_is_published() {
    let (mut watcher, topic) = watcher(V5);
    let properties = Properties::new().four(MESSAGE_EXPIRY, 100).four(WILL_DELAY, 2);
    let will = Will::new(&topic, "fresh").properties(properties);
    let keep = Properties::new().four(SESSION_EXPIRY, 60);
    Client::connect(&Connect::new(V5, unique("c")).properties(keep).will(will)).cut();
    let left = watcher.expect_message("fresh").received.number(MESSAGE_EXPIRY).unwrap();
    assert!((99..=100).contains(&left), "{left} s are left");
}

/// [MQTT-3.1.2-8]
#[test]
fn a_delayed_will_waits() {
    let (mut watcher, topic) = watcher(V5);
    let will = Will::new(&topic, "late").properties(Properties::new().four(WILL_DELAY, 2));
    let keep = Properties::new().four(SESSION_EXPIRY, 60);
    let connect = Connect::new(V5, unique("c")).properties(keep).will(will);
    let started = Instant::now();
    Client::connect(&connect).cut();
    watcher.expect_message("late");
    assert!(started.elapsed() >= Duration::from_millis(1900), "after {:?}", started.elapsed());
}

/// [MQTT-3.1.2-8] The end of the Session comes first.
#[test]
fn the_end_of_the_session_publishes_a_delayed_will() {
    let (mut watcher, topic) = watcher(V5);
    let will = Will::new(&topic, "ended").properties(Properties::new().four(WILL_DELAY, 3600));
    Client::connect(&Connect::new(V5, unique("c")).will(will)).cut();
    watcher.expect_message("ended");
}

/// [MQTT-3.1.2-8] The Session expires before the delay is over.
#[test]
fn the_expiry_of_the_session_publishes_a_delayed_will() {
    let (mut watcher, topic) = watcher(V5);
    let will = Will::new(&topic, "expired").properties(Properties::new().four(WILL_DELAY, 3600));
    let keep = Properties::new().four(SESSION_EXPIRY, 1);
    Client::connect(&Connect::new(V5, unique("c")).properties(keep).will(will)).cut();
    watcher.expect_message("expired");
}

/// [MQTT-3.1.3-9]
#[test]
fn resumption_within_the_delay_cancels_the_will() {
    let (mut watcher, topic) = watcher(V5);
    let will = Will::new(&topic, "never").properties(Properties::new().four(WILL_DELAY, 2));
    let connect = Connect::durable(V5, unique("c"));
    Client::connect(&connect.clone().will(will)).cut();
    let mut again = Client::connect(&connect);
    pass(Duration::from_secs(3));
    again.settle();
    watcher.expect_nothing();
}

/// [MQTT-3.1.3-9] Also by take-over, without any gap.
#[test]
fn take_over_within_the_delay_cancels_the_will() {
    let (mut watcher, topic) = watcher(V5);
    let will = Will::new(&topic, "never").properties(Properties::new().four(WILL_DELAY, 1));
    let connect = Connect::durable(V5, unique("c"));
    let mut first = Client::connect(&connect.clone().will(will));
    let _second = Client::connect(&connect);
    first.expect_error(0x8E);
    pass(Duration::from_secs(2));
    watcher.expect_nothing();
}

/// Clean Start ends the old Session, so its delayed will is due at once. [MQTT-3.1.2-8]
#[test]
fn clean_start_publishes_a_delayed_will() {
    let (mut watcher, topic) = watcher(V5);
    let will =
        Will::new(&topic, "old session").properties(Properties::new().four(WILL_DELAY, 3600));
    let id = unique("c");
    Client::connect(&Connect::durable(V5, &id).will(will)).cut();
    let _new = Client::connect(&Connect::new(V5, &id));
    watcher.expect_message("old session");
}

/// The will reaches those who are away, too. [MQTT-4.5.0-1]
#[test]
fn a_will_is_queued_for_absent_sessions() {
    let topic = unique("t");
    let connect = Connect::durable(V311, unique("c"));
    let mut client = Client::connect(&connect);
    client.subscribe(&topic, 1);
    client.disconnect();
    let (mut witness, _) = watcher(V311);
    witness.subscribe(&topic, 0);
    Client::connect(&Connect::new(V311, unique("c")).will(Will::new(&topic, "kept").qos(1))).cut();
    witness.expect_message("kept");
    Client::connect(&connect).expect_message("kept");
}

/// [MQTT-3.2.2-12]
#[test]
fn a_will_above_the_maximum_qos_is_refused() {
    let Some(broker) = configured("[protocol]\nmax_qos = 1\n") else { return };
    let mut client = Client::open_to(&broker.address, V5);
    client.send(Connect::new(V5, unique("c")).will(Will::new("t", "w").qos(2)).encode());
    client.expect_refusal(0x9B);
}

/// [MQTT-3.2.2-13]
#[test]
fn a_retained_will_is_refused_where_retain_is_off() {
    let Some(broker) = configured("[protocol]\nretain_available = false\n") else { return };
    let mut client = Client::open_to(&broker.address, V5);
    client.send(Connect::new(V5, unique("c")).will(Will::new("t", "w").retain()).encode());
    client.expect_refusal(0x9A);
}

/// Nobody connected without success has a will. [MQTT-3.1.2-7] [MQTT311-3.1.2-8]
#[test]
fn a_refused_connect_has_no_will() {
    let (mut watcher, topic) = watcher(V311);
    let mut client = Client::open(V311);
    client.send(Connect::new(V311, "").clean(false).will(Will::new(&topic, "no")).encode());
    client.expect_bytes(&[0x20, 2, 0, 2]);
    client.expect_closed();
    watcher.expect_nothing();
}

/// Nothing that a client did before its end is overtaken by its will. [MQTT-4.6.0-5]
#[test]
fn the_will_comes_after_what_was_published_before() {
    for version in OLD {
        let (mut watcher, topic) = watcher(version);
        let will = Will::new(&topic, "last").qos(1);
        let mut client = Client::connect(&Connect::new(version, unique("c")).will(will));
        for number in 0..50 {
            client.send(Publish::new(&topic, format!("{number}")).encode(version));
        }
        client.settle();
        client.cut();
        for number in 0..50 {
            watcher.expect_message(&number.to_string());
        }
        watcher.expect_message("last");
    }
}

/// A pending will does not end its Session. [MQTT-3.1.2-23]
#[test]
fn a_session_with_a_pending_will_is_resumed() {
    let connect = Connect::durable(V5, unique("c"));
    let will = Will::new(unique("t"), "w").properties(Properties::new().four(WILL_DELAY, 3600));
    Client::connect(&connect.clone().will(will)).cut();
    assert!(Client::connect(&connect).session_present());
}
