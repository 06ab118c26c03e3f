//! Malformed Packets and Protocol Errors: the Network Connection ends with the Reason Code of the specification in 5.0,
//! silently before, and nobody else is disturbed.

use crate::broker::unique;
use crate::client::Client;
use crate::packet::{
    ALL, AUTH_METHOD, Connect, DISCONNECT, OLD, PUBACK, Properties, Publish, REASON_STRING,
    REQUEST_PROBLEM_INFORMATION, SESSION_EXPIRY, V5, V311, acknowledge, acknowledge_with,
    disconnect, frame, text,
};

/// Bytes, what is wrong with them, and the Reason Codes that fit.
type Case = (&'static str, Vec<u8>, &'static [u8]);

const MALFORMED: &[u8] = &[0x81];
const PROTOCOL: &[u8] = &[0x82];
const EITHER: &[u8] = &[0x81, 0x82];

/// Sends each case on a Network Connection of its own and expects its end.
fn assert_refused(cases: Vec<Case>) {
    let mut witness = Client::new(V5);
    for (name, bytes, reasons) in cases {
        let mut client = Client::new(V5);
        client.send(&bytes);
        let packet = client.read().unwrap_or_else(|| panic!("{name}: closed without a reason"));
        assert_eq!(packet.kind(), DISCONNECT, "{name}: {packet:02x?}");
        let reason = packet.disconnect().0;
        assert!(reasons.contains(&reason), "{name}: {reason:#04x}");
        client.expect_closed();
    }
    witness.expect_nothing();
}

/// [MQTT-2.1.3-1] [MQTT-4.13.1-1] [MQTT-3.6.1-1] [MQTT-3.14.1-1] [MQTT-3.15.1-1] [MQTT-4.13.2-1]
#[test]
fn reserved_flags_of_5_0_are_malformed() {
    let cases = [
        ("PUBACK", 0x41, vec![0, 1]),
        ("PUBREC", 0x52, vec![0, 1]),
        ("PUBREL 0000", 0x60, vec![0, 1]),
        ("PUBREL 0011", 0x63, vec![0, 1]),
        ("PUBCOMP", 0x78, vec![0, 1]),
        ("SUBSCRIBE", 0x80, vec![0, 1, 0, 0, 1, b'a', 0]),
        ("UNSUBSCRIBE", 0xA0, vec![0, 1, 0, 0, 1, b'a']),
        ("PINGREQ", 0xC1, vec![]),
        ("DISCONNECT", 0xE1, vec![]),
        ("AUTH", 0xF1, vec![]),
    ];
    assert_refused(
        cases
            .into_iter()
            .map(|(name, first, body)| (name, frame(first, &body), MALFORMED))
            .collect(),
    );
}

/// [MQTT311-2.2.2-1] [MQTT311-2.2.2-2] [MQTT311-3.6.1-1] [MQTT311-3.14.1-1]
#[test]
fn reserved_flags_of_3_x_close_silently() {
    for version in OLD {
        for (first, body) in [
            (0x41, &[0, 1][..]),
            (0x52, &[0, 1]),
            (0x60, &[0, 1]),
            (0x63, &[0, 1]),
            (0x78, &[0, 1]),
            (0xC1, &[]),
            (0xE1, &[]),
        ] {
            let mut client = Client::new(version);
            client.send(frame(first, body));
            client.expect_closed();
        }
    }
}

/// Types that do not exist, or that only a Server sends. [MQTT-4.13.1-1]
#[test]
fn packets_that_no_client_sends_are_refused() {
    let cases = [
        ("type 0", frame(0x00, &[])),
        ("CONNACK", frame(0x20, &[0, 0, 0])),
        ("SUBACK", frame(0x90, &[0, 1, 0, 0])),
        ("UNSUBACK", frame(0xB0, &[0, 1, 0, 0])),
        ("PINGRESP", frame(0xD0, &[])),
    ];
    assert_refused(cases.into_iter().map(|(name, bytes)| (name, bytes, EITHER)).collect());
}

/// [MQTT311-4.8.0-1]
#[test]
fn packets_that_no_client_of_3_x_sends_close_silently() {
    for version in OLD {
        for (first, body) in [
            (0x00, &[][..]),
            (0x20, &[0, 0]),
            (0x90, &[0, 1, 0]),
            (0xB0, &[0, 1]),
            (0xD0, &[]),
            (0xF0, &[]),
        ] {
            let mut client = Client::new(version);
            client.send(frame(first, body));
            client.expect_closed();
        }
    }
}

/// [MQTT-1.5.5-1] A Remaining Length of five bytes.
#[test]
fn a_remaining_length_of_five_bytes_is_malformed() {
    for version in ALL {
        let mut client = Client::new(version);
        client.send([0x30, 0x80, 0x80, 0x80, 0x80, 0x01]);
        client.expect_error(0x81);
    }
}

/// Packets that are too short for what they must hold. [MQTT-4.13.1-1]
#[test]
fn packets_that_end_too_early_are_malformed() {
    let cases: Vec<Case> = vec![
        ("PUBLISH without topic", frame(0x30, &[]), MALFORMED),
        ("PUBLISH with half a topic", frame(0x30, &[0, 5, b'a']), MALFORMED),
        ("PUBLISH without identifier", frame(0x32, &text("a")), MALFORMED),
        ("PUBLISH without properties", frame(0x32, &[text("a"), vec![0, 1]].concat()), MALFORMED),
        (
            "PUBLISH with too long properties",
            frame(0x30, &[text("a"), vec![9, 1, 1]].concat()),
            MALFORMED,
        ),
        ("PUBACK without identifier", frame(0x40, &[0]), MALFORMED),
        ("PUBREL without identifier", frame(0x62, &[]), MALFORMED),
        ("SUBSCRIBE without options", frame(0x82, &[vec![0, 1, 0], text("a")].concat()), MALFORMED),
        ("SUBSCRIBE with half a filter", frame(0x82, &[0, 1, 0, 0, 9, b'a']), MALFORMED),
        ("SUBSCRIBE without properties", frame(0x82, &[0, 1]), EITHER),
        ("UNSUBSCRIBE with half a filter", frame(0xA2, &[0, 1, 0, 0, 9, b'a']), MALFORMED),
        (
            "property with half a number",
            frame(0x30, &[text("a"), vec![3, 2, 0, 0]].concat()),
            MALFORMED,
        ),
        (
            "property with half a text",
            frame(0x30, &[text("a"), vec![4, 3, 0, 9, b'x']].concat()),
            MALFORMED,
        ),
        (
            "property length without end",
            frame(0x30, &[text("a"), vec![0x80, 0x80, 0x80, 0x80, 1]].concat()),
            MALFORMED,
        ),
    ];
    assert_refused(cases);
}

/// The same before properties existed. [MQTT311-4.8.0-1] [MQTT311-3.1.4-1]
#[test]
fn packets_of_3_x_that_end_too_early_close_silently() {
    for version in OLD {
        for (first, body) in [
            (0x30, vec![]),
            (0x30, vec![0, 5, b'a']),
            (0x32, text("a")),
            (0x40, vec![0]),
            (0x62, vec![]),
            (0x82, [vec![0, 1], text("a")].concat()),
            (0x82, vec![0, 1, 0, 9, b'a']),
            (0xA2, vec![0, 1, 0, 9, b'a']),
        ] {
            let mut client = Client::new(version);
            client.send(frame(first, &body));
            client.expect_closed();
        }
    }
}

/// Bytes left over where a packet ends. [MQTT-4.13.1-1]
#[test]
fn packets_with_bytes_left_over_are_malformed() {
    let cases: Vec<Case> = vec![
        ("PINGREQ", frame(0xC0, &[0]), MALFORMED),
        ("PUBACK", frame(0x40, &[0, 1, 0, 0, 0]), MALFORMED),
        ("DISCONNECT", frame(0xE0, &[0, 0, 0]), MALFORMED),
    ];
    assert_refused(cases);
    for version in OLD {
        for (first, body) in [(0xC0, &[0][..]), (0x40, &[0, 1, 0]), (0xE0, &[0])] {
            let mut client = Client::new(version);
            client.send(frame(first, body));
            client.expect_closed();
        }
    }
}

/// Properties in packets where they do not belong, or that do not exist. [MQTT-4.13.1-1]
#[test]
fn foreign_properties_are_refused() {
    let with = |first: u8, start: &[u8], properties: Properties, rest: &[u8]| {
        frame(first, &[start, &properties.encode(), rest].concat())
    };
    let reason = || Properties::new().text(REASON_STRING, "no");
    let filter = [text("a"), vec![0]].concat();
    let cases: Vec<Case> = vec![
        ("Reason String in PUBLISH", with(0x30, &text("a"), reason(), b""), EITHER),
        (
            "Session Expiry in PUBLISH",
            with(0x30, &text("a"), Properties::new().four(SESSION_EXPIRY, 1), b""),
            EITHER,
        ),
        ("Reason String in SUBSCRIBE", with(0x82, &[0, 1], reason(), &filter), EITHER),
        (
            "Content Type in UNSUBSCRIBE",
            with(0xA2, &[0, 1], Properties::new().text(3, "x"), &text("a")),
            EITHER,
        ),
        (
            "Topic Alias in PUBACK",
            with(0x40, &[0, 1, 0], Properties::new().two(0x23, 1), b""),
            EITHER,
        ),
        ("unknown property", with(0x30, &text("a"), Properties::new().byte(0x7E, 0), b""), EITHER),
        ("property zero", with(0x30, &text("a"), Properties::new().byte(0, 0), b""), EITHER),
        (
            "Reason String twice",
            with(0x40, &[0, 1, 0], reason().text(REASON_STRING, "b"), b""),
            PROTOCOL,
        ),
        (
            "Server Reference from a client",
            with(0xE0, &[0], Properties::new().text(0x1C, "x"), b""),
            EITHER,
        ),
    ];
    assert_refused(cases);
}

/// Reason Codes that do not exist in their packet. [MQTT-3.4.2-1] [MQTT-3.14.2-1] [MQTT-3.6.2-1]
#[test]
fn foreign_reason_codes_are_refused() {
    let cases: Vec<Case> = vec![
        ("PUBACK 0x01", acknowledge_with(PUBACK, 1, 0x01), EITHER),
        ("PUBACK 0x8E", acknowledge_with(PUBACK, 1, 0x8E), EITHER),
        ("PUBREL 0x10", acknowledge_with(6, 1, 0x10), EITHER),
        ("PUBCOMP 0xFF", acknowledge_with(7, 1, 0xFF), EITHER),
        ("DISCONNECT 0x01", disconnect(0x01, &Properties::new()), EITHER),
        ("AUTH 0x01", frame(0xF0, &[1, 0]), EITHER),
    ];
    assert_refused(cases);
}

/// [MQTT311-2.3.1-1] Packet Identifier zero in any answer is malformed.
#[test]
fn packet_identifier_zero_in_answers_is_refused() {
    for version in ALL {
        for kind in [4, 5, 6, 7] {
            let mut client = Client::new(version);
            client.send(acknowledge(kind, 0));
            client.expect_error_among(EITHER);
        }
    }
}

/// AUTH without an Authentication Method in CONNECT is a Protocol Error.
#[test]
fn auth_without_a_method_is_a_protocol_error() {
    let mut client = Client::new(V5);
    client.send(frame(
        0xF0,
        &[vec![0x19], Properties::new().text(AUTH_METHOD, "SCRAM-SHA-256").encode()].concat(),
    ));
    client.expect_error_among(&[0x82, 0x8C]);
}

/// [MQTT-4.12.0-1]
#[test]
fn an_unknown_authentication_method_is_refused() {
    let mut client = Client::open(V5);
    let properties = Properties::new().text(AUTH_METHOD, "SECRET-HANDSHAKE");
    client.send(Connect::new(V5, unique("c")).properties(properties).encode());
    let connack = client.expect_connack();
    assert!([0x8C, 0x87].contains(&connack.reason), "{:#04x}", connack.reason);
    client.expect_closed();
}

/// [MQTT-4.12.0-6]
#[test]
fn no_authentication_method_is_returned_unasked() {
    let client = Client::new(V5);
    assert!(!client.connack.unwrap().properties.has(AUTH_METHOD));
}

/// [MQTT-3.1.2-29] No explanations to whom asked for none.
#[test]
fn without_problem_information_answers_carry_none() {
    let properties = Properties::new().byte(REQUEST_PROBLEM_INFORMATION, 0);
    let mut client = Client::connect(&Connect::new(V5, unique("c")).properties(properties));
    client.send(Publish::new(unique("t"), "x").qos(1, 1).encode(V5));
    assert_eq!(client.expect_acknowledgement(PUBACK).properties.0, []);
    client.send(crate::packet::subscribe(V5, 2, &Properties::new(), &[("a/b", 0)]));
    let packet = client.expect(crate::packet::SUBACK);
    assert_eq!(packet.body, [0, 2, 0, 0]);
    client.send(crate::packet::unsubscribe(V5, 3, &["nothing"]));
    assert_eq!(client.expect(crate::packet::UNSUBACK).body, [0, 3, 0, 0x11]);
}

/// [MQTT-3.1.2-28]
#[test]
fn no_response_information_is_returned_unasked() {
    let client = Client::new(V5);
    assert!(!client.connack.unwrap().properties.has(crate::packet::RESPONSE_INFORMATION));
    let zero = Properties::new().byte(crate::packet::REQUEST_RESPONSE_INFORMATION, 0);
    let client = Client::connect(&Connect::new(V5, unique("c")).properties(zero));
    assert!(!client.connack.unwrap().properties.has(crate::packet::RESPONSE_INFORMATION));
}

/// [MQTT-3.14.4-1] [MQTT-3.14.4-2] [MQTT-3.14.2-2] Nothing follows a DISCONNECT but the end.
#[test]
fn nothing_follows_a_disconnect_of_the_broker() {
    let topic = unique("t");
    let mut client = Client::new(V5);
    client.subscribe(&topic, 0);
    client
        .send([frame(0x00, &[]), Publish::new(&topic, "late").encode(V5), vec![0xC0, 0]].concat());
    let (reason, properties) = client.expect(DISCONNECT).disconnect();
    assert!(reason >= 0x80);
    assert!(!properties.has(SESSION_EXPIRY));
    client.expect_closed();
}

/// What follows the client's DISCONNECT is not processed.
#[test]
fn nothing_after_a_disconnect_of_the_client_is_processed() {
    for version in ALL {
        let topic = unique("t");
        let mut watcher = Client::new(version);
        watcher.subscribe(&topic, 0);
        let mut client = Client::new(version);
        client.send([vec![0xE0, 0], Publish::new(&topic, "late").encode(version)].concat());
        client.expect_closed();
        watcher.expect_nothing();
    }
}

/// The DISCONNECT reaches a client that goes on sending: the broker reads on for a while instead of resetting.
#[test]
fn a_reason_reaches_a_client_that_goes_on_sending() {
    let mut client = Client::new(V5);
    let mut bytes = frame(0x00, &[]);
    for _ in 0..64 {
        bytes.extend(Publish::new("t", "x".repeat(1000)).encode(V5));
    }
    client.send(bytes);
    assert!(client.expect(DISCONNECT).disconnect().0 >= 0x80);
}

/// A packet broken in the middle of a burst: what came before it counts. [MQTT-4.13.1-1]
#[test]
fn packets_before_a_malformed_one_are_processed() {
    let topic = unique("t");
    let mut watcher = Client::new(V311);
    watcher.subscribe(&topic, 1);
    let mut client = Client::new(V311);
    let mut bytes: Vec<u8> = (1..=10)
        .flat_map(|id| Publish::new(&topic, id.to_string()).qos(1, id).encode(V311))
        .collect();
    bytes.extend([0x00, 0x00]);
    client.send(bytes);
    for number in 1..=10 {
        watcher.expect_message(&number.to_string());
    }
}

/// Garbage of all kinds never hurts anybody else.
#[test]
fn garbage_does_not_disturb_others() {
    let topic = unique("t");
    let mut witness = Client::new(V5);
    witness.subscribe(&topic, 1);
    let mut state = 0x1234_5678_u32;
    for length in 1..200 {
        let garbage: Vec<u8> = (0..length)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state.to_be_bytes()[0]
            })
            .collect();
        let mut client = if length % 2 == 0 { Client::open(V5) } else { Client::new(V5) };
        client.send(&garbage);
        client.cut();
    }
    witness.publish(&topic, 1, "still here");
    witness.expect_message("still here");
}

/// A TLS ClientHello or an HTTP request on the MQTT port ends at once.
#[test]
fn other_protocols_are_closed() {
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"SSH-2.0-x\r\n",
    ] {
        let mut client = Client::open(V311);
        client.send(bytes);
        client.half_close();
        client.expect_any_error();
    }
}
