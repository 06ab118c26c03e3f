//! Clients that take only small packets: explanations are left out, answers are not.

use crate::broker::unique;
use crate::client::Client;
use crate::packet::{
    Connect, DISCONNECT, MAXIMUM_PACKET_SIZE, PUBACK, PUBCOMP, PUBREC, PUBREL, Packet, Properties,
    Publish, SUBACK, UNSUBACK, V5, acknowledge, frame, subscribe, unsubscribe,
};

/// A client that takes packets of 20 bytes: an answer with a code fits, an explanation does not.
fn client() -> Client {
    let limit = Properties::new().four(MAXIMUM_PACKET_SIZE, 20);
    let mut client = Client::open(V5);
    client.send(Connect::new(V5, unique("c")).properties(limit).encode());
    client.expect_connack();
    client
}

fn assert_small(packet: &Packet) {
    assert!(packet.body.len() <= 18, "{} bytes: {packet:02x?}", packet.body.len() + 2);
}

/// [MQTT-3.4.2-2] [MQTT-3.4.2-3] [MQTT-3.5.2-2] [MQTT-3.5.2-3] [MQTT-3.6.2-2] [MQTT-3.6.2-3] [MQTT-3.7.2-2]
/// [MQTT-3.7.2-3] [MQTT-3.1.2-24]
#[test]
fn acknowledgements_stay_small() {
    let mut client = client();
    let cases = [
        (Publish::new(unique("t"), "x").qos(1, 1).encode(V5), PUBACK),
        (Publish::new(unique("t"), "x").qos(2, 2).encode(V5), PUBREC),
        (Publish::new("$SYS/forged", "x").qos(1, 3).encode(V5), PUBACK),
        (Publish::new("$SYS/forged", "x").qos(2, 4).encode(V5), PUBREC),
        (acknowledge(PUBREC, 999), PUBREL),
        (acknowledge(PUBREL, 999), PUBCOMP),
    ];
    for (bytes, kind) in cases {
        client.send(bytes);
        assert_small(&client.expect(kind));
    }
}

/// [MQTT-3.9.2-1] [MQTT-3.9.2-2] [MQTT-3.11.2-1] [MQTT-3.11.2-2]
#[test]
fn suback_and_unsuback_stay_small() {
    let mut client = client();
    client.send(subscribe(V5, 1, &Properties::new(), &[("a", 0), ("b/#/c", 0), ("$share/g", 0)]));
    let packet = client.read().expect("an answer");
    assert_small(&packet);
    if packet.kind() == SUBACK {
        client.send(unsubscribe(V5, 2, &["a", "nothing"]));
        assert_small(&client.expect(UNSUBACK));
    }
}

/// [MQTT-3.14.2-3] [MQTT-3.14.2-4]
#[test]
fn disconnect_stays_small() {
    let mut client = client();
    client.send(frame(0x00, &[]));
    let packet = client.expect(DISCONNECT);
    assert_small(&packet);
    assert_eq!(packet.disconnect().0, 0x81);
    client.expect_closed();
}

/// What a CONNACK must say stays; an explanation does not make it too large. [MQTT-3.2.2-19] [MQTT-3.2.2-20]
#[test]
fn a_refusing_connack_stays_small() {
    let limit =
        Properties::new().four(MAXIMUM_PACKET_SIZE, 20).text(crate::packet::AUTH_METHOD, "NONE");
    let mut client = Client::open(V5);
    client.send(Connect::new(V5, unique("c")).properties(limit).encode());
    let packet = client.expect(crate::packet::CONNACK);
    assert_small(&packet);
    assert_ne!(packet.connack(V5).reason, 0);
    client.expect_closed();
}
