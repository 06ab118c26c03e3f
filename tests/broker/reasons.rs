//! Reason Strings: what is refused is explained in words, to those who want to read it.

use crate::broker::{configured, eventually, unique};
use crate::client::Client;
use crate::packet::{
    CONNACK, Connect, DISCONNECT, MAXIMUM_PACKET_SIZE, PINGREQ, PUBACK, PUBREC, Properties,
    Publish, REASON_STRING, REQUEST_PROBLEM_INFORMATION, Received, SUBACK, V5, Will, subscribe,
};

/// The words of a Reason String; there must be some.
fn words(properties: &Received) -> String {
    let words = properties.text(REASON_STRING).expect("a Reason String");
    assert!(words.len() > 10, "{words:?} explains nothing");
    words.to_owned()
}

fn connected(properties: Properties) -> Client {
    Client::connect(&Connect::new(V5, unique("c")).properties(properties))
}

/// [MQTT-3.4.2-2] [MQTT-3.5.2-2]
#[test]
fn a_refused_publish_is_explained() {
    let mut client = connected(Properties::new());
    for (qos, kind) in [(1, PUBACK), (2, PUBREC)] {
        client.send(Publish::new("$SYS/forged", "x").qos(qos, 1).encode(V5));
        let refusal = client.expect_acknowledgement(kind);
        assert!(refusal.reason >= 0x80);
        assert!(words(&refusal.properties).contains("topic"));
    }
}

/// It was called a lack of rights, and whoever wrote the Client looked for those in vain.
/// [MQTT-3.4.2-2] [MQTT-3.5.2-2]
#[test]
fn a_topic_that_is_too_long_or_too_deep_is_called_so() {
    let limits = "[limits]\nmax_topic_levels = 3\nmax_topic_bytes = 20\n";
    let Some(broker) = configured(limits) else { return };
    let mut client = Client::connect_to(&broker.address, &Connect::new(V5, unique("c")));
    for (number, topic) in (1..).zip(["a/b/c/d", "twenty-one-characters"]) {
        for (qos, kind) in [(1, PUBACK), (2, PUBREC)] {
            client.send(Publish::new(topic, "x").qos(qos, number).encode(V5));
            let refusal = client.expect_acknowledgement(kind);
            assert_eq!(refusal.reason, 0x90, "{topic}");
            assert!(words(&refusal.properties).contains("too long or has too many levels"));
        }
        eventually("the log names it", || broker.log().contains(topic));
    }
    let mut client = Client::open_to(&broker.address, V5);
    let will = Will::new("a/b/c/d", "x");
    client.send(Connect::new(V5, unique("c")).will(will).encode());
    let connack = client.expect(CONNACK).connack(V5);
    assert_eq!(connack.reason, 0x90);
    assert!(words(&connack.properties).contains("too many levels"));
}

/// [MQTT-3.9.2-1]
#[test]
fn a_refused_subscription_is_explained() {
    let mut client = connected(Properties::new());
    let deep = "a/".repeat(1000);
    client.send(subscribe(V5, 7, &Properties::new(), &[("fine", 0), (&deep, 1)]));
    let packet = client.expect(SUBACK);
    let words = words(&packet.suback_properties());
    assert!(words.contains("1 of 2") && words.contains("number 2"), "{words}");
    let (_, codes) = packet.codes(V5);
    assert!(codes[0] == 0 && codes[1] >= 0x80);
}

/// [MQTT-3.2.2-19]
#[test]
fn a_refused_connect_is_explained() {
    let mut client = Client::open(V5);
    client.send(Connect::new(V5, "$bridge/forged").encode());
    let connack = client.expect(CONNACK).connack(V5);
    assert_eq!(connack.reason, 0x85);
    assert!(words(&connack.properties).contains("client identifier"));
}

/// [MQTT-3.14.2-3]
#[test]
fn a_disconnect_is_explained() {
    let mut client = connected(Properties::new());
    client.send(Connect::new(V5, "again").encode());
    let (reason, properties) = client.expect(DISCONNECT).disconnect();
    assert_eq!(reason, 0x82);
    assert!(words(&properties).contains("CONNECT"));
    client.expect_closed();
}

/// [MQTT-3.1.2-29]
#[test]
fn whoever_wants_no_reasons_gets_none() {
    let mut client = connected(Properties::new().byte(REQUEST_PROBLEM_INFORMATION, 0));
    client.send(Publish::new("$SYS/forged", "x").qos(1, 1).encode(V5));
    assert!(!client.expect_acknowledgement(PUBACK).properties.has(REASON_STRING));
    client.send(subscribe(V5, 7, &Properties::new(), &[(&"a/".repeat(1000), 1)]));
    assert!(!client.expect(SUBACK).suback_properties().has(REASON_STRING));
    client.send(Connect::new(V5, "again").encode());
    assert!(!client.expect(DISCONNECT).disconnect().1.has(REASON_STRING));
}

/// [MQTT-3.4.2-2] [MQTT-3.14.2-3] Where there is no room for it, the reason is left out, and the packet is not.
#[test]
fn reasons_fit_into_what_the_client_takes() {
    let mut client = connected(Properties::new().four(MAXIMUM_PACKET_SIZE, 20));
    client.send(Publish::new("$SYS/forged", "x").qos(1, 1).encode(V5));
    let refusal = client.expect_acknowledgement(PUBACK);
    assert!(refusal.reason >= 0x80 && !refusal.properties.has(REASON_STRING));
    client.send(Connect::new(V5, "again").encode());
    let (reason, properties) = client.expect(DISCONNECT).disconnect();
    assert!(reason == 0x82 && !properties.has(REASON_STRING));
}

/// [MQTT-3.14.4-1] Nothing follows our DISCONNECT, whatever was accepted before the Client broke a rule.
#[test]
fn nothing_follows_a_disconnect() {
    for topic in ["plain", "$SYS/forged"] {
        for qos in [0, 1, 2] {
            let mut client = connected(Properties::new());
            let topic = unique(topic);
            let mut keeper = Client::connect(&Connect::durable(V5, unique("k")));
            keeper.subscribe(&topic, 2);
            let publish = |id| Publish::new(&topic, "x").qos(qos, id).encode(V5);
            let wrong = Connect::new(V5, "again").encode();
            let bytes = [&publish(1)[..], &publish(2), &PINGREQ, &publish(3), &wrong, &publish(4)];
            client.send(bytes.concat());
            while client.read().expect("DISCONNECT").kind() != DISCONNECT {}
            client.expect_closed();
        }
    }
}
