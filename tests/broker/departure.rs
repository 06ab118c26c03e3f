//! Packets that a Client sent before its Network Connection ended are handled, whatever ends it: the Client, a
//! take-over, the Keep Alive, or a shutdown.

use std::time::Duration;

use crate::broker::{configured, eventually, pass, unique};
use crate::client::Client;
use crate::packet::{Connect, DISCONNECT, PINGREQ, Publish, V5, V311, Version, Will};

const GOODBYE: [u8; 2] = [0xE0, 0];

/// Somebody who sees all that is published below `topic`.
fn watcher(topic: &str) -> Client {
    let mut watcher = Client::connect(&Connect::durable(V5, unique("w")));
    watcher.subscribe(&format!("{topic}/#"), 1);
    watcher
}

/// The watcher gets exactly the messages 0 to `count`, in order, and no Will.
fn expect_all(watcher: &mut Client, topic: &str, count: usize) {
    for number in 0..count {
        let publish = watcher.receive();
        let name = String::from_utf8(publish.topic.clone()).unwrap();
        assert_eq!((name, publish.text()), (format!("{topic}/data"), &*number.to_string()));
    }
    watcher.expect_nothing();
}

fn with_will(version: Version, id: &str, topic: &str) -> Connect {
    Connect::new(version, id).will(Will::new(format!("{topic}/will"), "died"))
}

fn message(version: Version, topic: &str, number: usize, qos: u8) -> Vec<u8> {
    Publish::new(format!("{topic}/data"), number.to_string()).qos(qos, 7).encode(version)
}

/// A Client publishes, says goodbye and closes, and is back at once. Between 15 and 47 of a hundred messages were lost and
/// as many Wills published: a take-over won before what the kernel had of the old connection was read.
/// [MQTT-3.14.4-3] [MQTT311-3.14.4-3]
#[test]
fn publish_and_leave_and_be_back_at_once() {
    const TIMES: usize = 100;
    for version in [V311, V5] {
        for qos in 0..=2 {
            let (topic, id) = (unique("t"), unique("c"));
            let mut watcher = watcher(&topic);
            for number in 0..TIMES {
                let mut client = Client::connect(&with_will(version, &id, &topic));
                client.send([&message(version, &topic, number, qos)[..], &GOODBYE].concat());
            }
            Client::connect(&with_will(version, &id, &topic)).disconnect();
            expect_all(&mut watcher, &topic, TIMES);
        }
    }
}

/// What a Client wrote in one piece is more than our system had room for: the rest arrives while it is read. Only what was
/// there at first was handled, and the goodbye at its end was lost: up to half of the messages, and a Will each time.
#[test]
fn a_long_goodbye_is_heard_to_its_end() {
    const TIMES: usize = 5;
    for (version, count, bytes) in [(V311, 300, 1000), (V5, 300, 1000), (V5, 1, 400_000)] {
        let (topic, id) = (unique("t"), unique("c"));
        let mut watcher = watcher(&topic);
        let publish = Publish::new(format!("{topic}/data"), vec![b'x'; bytes]).qos(1, 7);
        let burst = [&publish.encode(version).repeat(count)[..], &GOODBYE].concat();
        for _ in 0..TIMES {
            let mut client = Client::connect(&with_will(version, &id, &topic));
            client.send(&burst);
            Client::connect(&with_will(version, &id, &topic)).disconnect();
        }
        for _ in 0..TIMES * count {
            assert_eq!(watcher.receive().topic, format!("{topic}/data").into_bytes());
        }
        watcher.expect_nothing();
    }
}

/// The same by a Client that does not even wait for CONNACK, with a Session that stays.
#[test]
fn publish_and_leave_in_one_breath() {
    const TIMES: usize = 50;
    for version in [V311, V5] {
        let (topic, id) = (unique("t"), unique("c"));
        let mut watcher = watcher(&topic);
        let will = Will::new(format!("{topic}/will"), "died");
        let connect = Connect::durable(version, &id).will(will);
        for number in 0..TIMES {
            let mut client = Client::open(version);
            let publish = message(version, &topic, number, 1);
            client.send([&connect.encode()[..], &publish, &GOODBYE].concat());
            client.expect_connack();
            drop(client);
            Client::connect(&connect).disconnect();
        }
        expect_all(&mut watcher, &topic, TIMES);
    }
}

/// The old connection cannot be written to, because its Client does not read.
#[test]
fn one_that_does_not_read_is_heard_before_it_is_taken_over() {
    for version in [V311, V5] {
        let (topic, id) = (unique("t"), unique("c"));
        let mut watcher = watcher(&topic);
        let mut client = Client::connect(&with_will(version, &id, &topic));
        client.subscribe(&format!("{topic}x/#"), 0);
        let mut sender = Client::new(V5);
        let flood = Publish::new(format!("{topic}x/flood"), vec![b'x'; 60_000]).encode(V5);
        for _ in 0..200 {
            sender.send(&flood);
        }
        sender.expect_nothing();
        client.send([&message(version, &topic, 0, 1)[..], &GOODBYE].concat());
        Client::connect(&with_will(version, &id, &topic)).disconnect();
        expect_all(&mut watcher, &topic, 1);
    }
}

/// The old connection is in the middle of a packet, and goes on sending for ever: the new one does not wait for it.
#[test]
fn one_that_never_ends_is_taken_over_all_the_same() {
    let (topic, id) = (unique("t"), unique("c"));
    let mut old = Client::connect(&Connect::new(V5, &id));
    old.send([0x30, 0xFF, 0xFF, 0x7F, 0, 1, b't']);
    let mut flooding = Client::connect(&Connect::new(V5, &id));
    old.expect_error(0x8E);
    let flood = Publish::new(&topic, vec![b'x'; 1000]).encode(V5).repeat(50);
    std::thread::scope(|scope| {
        let sender = scope.spawn(move || {
            // Until the broker closes.
            while flooding.try_send(&flood) {}
        });
        Client::connect(&Connect::new(V5, &id)).expect_nothing();
        sender.join().unwrap();
    });
}

/// A take-over without a goodbye still publishes the Will, after what was sent before. [MQTT-3.1.4-3]
#[test]
fn the_will_comes_after_what_was_sent() {
    let (topic, id) = (unique("t"), unique("c"));
    let mut watcher = watcher(&topic);
    let mut client = Client::connect(&with_will(V5, &id, &topic));
    client.send(message(V5, &topic, 0, 0));
    let _new = Client::connect(&Connect::new(V5, &id));
    assert_eq!(watcher.receive().text(), "0");
    assert_eq!(watcher.receive().text(), "died");
}

/// A Client closes with a reset while there is something for it to read: what it sent before is there all the same.
#[test]
fn what_was_sent_before_a_reset_counts() {
    for version in [V311, V5] {
        for round in 0..20 {
            let topic = unique("t");
            let mut watcher = watcher(&topic);
            let mut client = Client::connect(&with_will(version, &unique("c"), &topic));
            // Answers come while it still sends.
            client.send(PINGREQ.repeat(if round % 2 == 0 { 1 } else { 5000 }));
            client.send([&message(version, &topic, 0, 1)[..], &GOODBYE].concat());
            client.reset();
            expect_all(&mut watcher, &topic, 1);
        }
    }
}

/// The broker stops while its socket has unread messages: they are handled and acknowledged before it sends
/// DISCONNECT.
#[test]
fn what_was_sent_before_the_broker_stops_counts() {
    let Some(mut broker) = configured("") else { return };
    let (topic, id) = (unique("t"), unique("c"));
    let mut watcher = Client::connect_to(&broker.address, &Connect::durable(V5, &id));
    watcher.subscribe(&format!("{topic}/#"), 1);
    let mut client = Client::connect_to(&broker.address, &Connect::new(V5, unique("c")));
    let count = 500;
    // Nobody of the broker looks at the socket while it stands still.
    broker.signal("-STOP");
    for number in 0..count {
        let publish = Publish::new(format!("{topic}/data"), number.to_string());
        client.send(publish.qos(1, number + 1).encode(V5));
    }
    broker.signal("-TERM");
    broker.signal("-CONT");
    let mut acknowledged = 0;
    loop {
        let packet = client.read().expect("DISCONNECT comes last");
        if packet.kind() == DISCONNECT {
            assert_eq!(packet.disconnect().0, 0x8B);
            break;
        }
        acknowledged += 1;
    }
    client.expect_closed();
    assert_eq!(acknowledged, count);
    // The watcher may have been sent away before the others had been heard: what it did not acknowledge waits for it.
    while watcher.read().is_some() {}
    eventually("the broker ends", || !broker.is_running());
    broker.restart("");
    let mut watcher = Client::connect_to(&broker.address, &Connect::durable(V5, &id));
    for number in 0..count {
        watcher.expect_message(&number.to_string());
    }
    watcher.expect_nothing();
}

/// The broker stood still for longer than the Keep Alive: what has come meanwhile shows that the Client lives.
#[test]
fn what_was_sent_before_the_keep_alive_ended_counts() {
    let Some(broker) = configured("") else { return };
    let connect = Connect::new(V5, unique("c")).keep_alive(2);
    let mut client = Client::connect_to(&broker.address, &connect);
    client.expect_nothing();
    broker.signal("-STOP");
    pass(Duration::from_secs(4));
    client.send(PINGREQ);
    broker.signal("-CONT");
    client.expect_bytes(&[0xD0, 0]);
    client.expect_nothing();
}
