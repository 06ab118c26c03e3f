//! Remote brokers that refuse optional features of a bridge, and some that never answer.

use crate::peer::{Answer, CONNECT, PINGREQ, PUBLISH, PUBREL, Packet, Peer, SUBSCRIBE};
use crate::process::{Broker, bridge, eventually, side_by_side};

/// Long enough that a test would fail on waiting for it.
const LONG_PAUSE: &str = "backoff_min = \"5m\"\nbackoff_max = \"5m\"";

fn petrel(peer: &Peer, protocol: &str, topics: &[&str], extra: &str) -> Broker {
    let toml = bridge(peer.port, protocol, topics, "");
    let toml = toml.replace("backoff_min = \"20ms\"\nbackoff_max = \"200ms\"", extra);
    Broker::petrel(&toml)
}

fn is_notification(packet: &Packet) -> bool {
    packet.kind() == PUBLISH && packet.topic().starts_with("$SYS/")
}

fn assert_crosses(broker: &Broker, peer: &Peer) {
    broker.publish(&["-t", "a", "-q", "1", "-m", "x"]);
    eventually("a message crosses", || {
        peer.seen().iter().any(|packet| packet.kind() == PUBLISH && packet.topic() == "a")
            && broker.bridge("b", "queue_messages") == 0
    });
}

/// ejabberd, aedes and amqtt end the connection on what is published below `$SYS`, some say so in a CONNACK already: the
/// link failed for ever, or came and went.
#[test]
fn notifications_that_are_refused_are_left_out() {
    type Habit = fn(&Packet) -> Answer;
    let close_on_publish: Habit = |packet| match is_notification(packet) {
        true => Answer::Close,
        false => Answer::Usual,
    };
    let disconnect_on_publish: Habit = |packet| match is_notification(packet) {
        true => Answer::Bytes(vec![0xE0, 2, 0x87, 0]),
        false => Answer::Usual,
    };
    let refuse_will_311: Habit = |packet| match packet.kind() == CONNECT && packet.has_will() {
        true => Answer::Bytes(vec![0x20, 2, 0, 5]),
        false => Answer::Usual,
    };
    let refuse_will_5: Habit = |packet| match packet.kind() == CONNECT && packet.has_will() {
        true => Answer::Bytes(vec![0x20, 3, 0, 0x87, 0]),
        false => Answer::Usual,
    };
    let close_on_will: Habit = |packet| match packet.kind() == CONNECT && packet.has_will() {
        true => Answer::Close,
        false => Answer::Usual,
    };
    let cases = [
        ("3.1.1", close_on_publish),
        ("5.0", close_on_publish),
        ("5.0", disconnect_on_publish),
        ("3.1.1", refuse_will_311),
        ("5.0", refuse_will_5),
        ("3.1.1", close_on_will),
        ("5.0", close_on_will),
    ];
    side_by_side(&cases, |(protocol, habit)| {
        let peer = Peer::new(*habit);
        let broker = petrel(&peer, protocol, &["a both 1"], LONG_PAUSE);
        broker.wait_connected("b");
        assert_crosses(&broker, &peer);
        assert_eq!(broker.bridge("b", "last_error"), "", "{protocol}");
        assert!(
            broker.log().contains("does not accept messages about the state"),
            "{}",
            broker.log()
        );
        let after = peer.seen().iter().filter(|packet| is_notification(packet)).count();
        assert!(after <= 2, "{after}");
    });
}

/// A link that the peer ends some time after the notification: it is tried without after the third time.
#[test]
fn a_link_that_comes_and_goes_is_tried_without_notifications() {
    let peer = Peer::new(|packet| match packet.kind() {
        // The end comes behind its answer to the PINGREQ, as from a broker that thinks about it elsewhere.
        PUBLISH if is_notification(packet) => Answer::Later,
        _ => Answer::Usual,
    });
    let broker =
        petrel(&peer, "5.0", &["a out 1"], "backoff_min = \"20ms\"\nbackoff_max = \"50ms\"");
    eventually("it is said", || broker.log().contains("does not accept messages about the state"));
    broker.wait_connected("b");
    assert_crosses(&broker, &peer);
}

#[test]
fn the_bridge_bit_that_is_refused_costs_no_pause_and_is_remembered() {
    type Habit = fn(&Packet) -> Answer;
    let refuse: Habit = |packet| match packet.kind() == CONNECT && packet.level() & 0x80 != 0 {
        true => Answer::Bytes(vec![0x20, 2, 0, 1]),
        false => Answer::Usual,
    };
    let close: Habit = |packet| match packet.kind() == CONNECT && packet.level() & 0x80 != 0 {
        true => Answer::Close,
        false => Answer::Usual,
    };
    side_by_side(&[refuse, close], |habit| {
        let peer = Peer::new(*habit);
        let mut broker = petrel(&peer, "3.1.1", &["a both 1"], LONG_PAUSE);
        broker.wait_connected("b");
        assert_eq!((broker.bridge("b", "last_error"), peer.connects()), ("".into(), 2));
        assert_crosses(&broker, &peer);
        // With the notification, which was not the reason.
        assert!(peer.seen().iter().any(is_notification));
        broker.stop();
        broker.restart();
        broker.wait_connected("b");
        assert_eq!((broker.bridge("b", "last_error"), peer.connects()), ("".into(), 3));
    });
}

/// One that refuses everything is not asked again and again without a pause.
#[test]
fn what_is_refused_for_another_reason_is_named() {
    let peer = Peer::new(|packet| match packet.kind() {
        CONNECT if packet.level() & 0x80 != 0 => Answer::Close,
        CONNECT => Answer::Bytes(vec![0x20, 2, 0, 5]),
        _ => Answer::Usual,
    });
    let broker = petrel(&peer, "3.1.1", &["a both 1"], LONG_PAUSE);
    eventually("it waits", || broker.bridge("b", "state") == "waiting");
    assert!(peer.connects() <= 4, "{}", peer.connects());
    let error = broker.bridge("b", "last_error").to_string();
    assert!(error.contains("not authorized") || error.contains("closed"), "{error}");
    broker.ctl(&["bridge", "pause", "b"]).unwrap();
    let before = peer.connects();
    broker.ctl(&["bridge", "resume", "b"]).unwrap();
    eventually("it tries again", || {
        peer.connects() > before && broker.bridge("b", "state") == "waiting"
    });
    assert_eq!(peer.connects(), before + 1);
}

/// The link stayed in "connecting" forever, and nothing was logged.
#[test]
fn a_peer_that_never_answers_is_named_in_time() {
    let cases = [
        (CONNECT, "CONNECT", "3.1.1"),
        (SUBSCRIBE, "SUBSCRIBE", "3.1.1"),
        (SUBSCRIBE, "SUBSCRIBE", "5.0"),
        (PINGREQ, "PINGREQ", "5.0"),
        (PUBREL, "PUBREL", "3.1.1"),
        (PUBREL, "PUBREL", "5.0"),
    ];
    side_by_side(&cases, |(kind, name, protocol)| {
        let kind = *kind;
        let peer = Peer::new(move |packet| match packet.kind() {
            found if found == kind => Answer::Silence,
            // The Session is there, so that identifiers of an earlier one have to be released.
            CONNECT if packet.level() == 5 => Answer::Bytes(vec![0x20, 3, 1, 0, 0]),
            CONNECT => Answer::Bytes(vec![0x20, 2, 1, 0]),
            _ => Answer::Usual,
        });
        let topics = ["a both 1", "b out 2"];
        let toml = bridge(peer.port, protocol, &topics, "response_timeout = \"1s\"");
        let broker = Broker::petrel(&toml);
        let words = format!("did not answer {name} within response_timeout");
        eventually(&format!("{protocol}: {words}"), || {
            broker.bridge("b", "last_error").to_string().contains(&words)
        });
        assert!(broker.log().contains(&words), "{}", broker.log());
    });
}

/// A Reason Code that 3.1.1 knows in SUBACK only, and some brokers send elsewhere, is a refusal and no broken packet.
#[test]
fn a_failure_in_suback_or_puback_is_understood() {
    let in_suback: fn(&Packet) -> Answer = |packet| match packet.kind() {
        SUBSCRIBE => Answer::Bytes(vec![0x90, 3, packet.body[0], packet.body[1], 0x80]),
        _ => Answer::Usual,
    };
    let in_puback: fn(&Packet) -> Answer = |packet| match packet.kind() {
        PUBLISH if packet.topic() == "a" => {
            Answer::Bytes(vec![0x40, 3, packet.body[3], packet.body[4], 0x80])
        }
        _ => Answer::Usual,
    };
    side_by_side(&[in_suback, in_puback], |habit| {
        let peer = Peer::new(*habit);
        let broker = petrel(&peer, "3.1.1", &["a both 1"], LONG_PAUSE);
        broker.wait_connected("b");
        assert_crosses(&broker, &peer);
        assert_eq!(broker.bridge("b", "state"), "connected");
        let error = broker.bridge("b", "last_error").to_string();
        assert!(!error.contains("not one of this packet") && !error.contains("MQTT"), "{error}");
    });
}
