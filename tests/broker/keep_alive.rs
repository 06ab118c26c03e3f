//! Keep Alive and PINGREQ.

use std::time::{Duration, Instant};

use crate::broker::{configured, pass, unique};
use crate::client::Client;
use crate::packet::{ALL, Connect, OLD, PINGREQ, Publish, SERVER_KEEP_ALIVE, V5, V311, Will};

/// [MQTT-3.12.4-1] [MQTT311-3.12.4-1]
#[test]
fn pingreq_is_answered() {
    for version in ALL {
        let mut client = Client::new(version);
        for _ in 0..3 {
            client.send(PINGREQ);
            client.expect_bytes(&[0xD0, 0]);
        }
    }
}

/// [MQTT-3.12.4-1] Each one, also when many arrive at once.
#[test]
fn every_pingreq_of_a_burst_is_answered() {
    let mut client = Client::new(V311);
    client.send(PINGREQ.repeat(500));
    for _ in 0..500 {
        client.expect_bytes(&[0xD0, 0]);
    }
}

/// [MQTT-3.1.2-22] [MQTT-3.2.2-22]
#[test]
fn silence_of_a_5_0_client_is_closed_with_its_reason() {
    let mut client = Client::connect(&Connect::new(V5, unique("c")).keep_alive(1));
    let started = Instant::now();
    client.expect_error(0x8D);
    assert!(
        started.elapsed() >= Duration::from_millis(1400),
        "closed after {:?}",
        started.elapsed()
    );
}

/// [MQTT311-3.1.2-24]
#[test]
fn silence_of_a_3_x_client_is_closed() {
    for version in OLD {
        let mut client = Client::connect(&Connect::new(version, unique("c")).keep_alive(1));
        client.expect_closed();
    }
}

/// [MQTT-3.1.2-22] [MQTT-3.1.2-8] [MQTT311-3.1.2-8] The end is as if the network had failed: the will is published.
#[test]
fn silence_publishes_the_will() {
    for version in ALL {
        let topic = unique("t");
        let mut watcher = Client::new(version);
        watcher.subscribe(&topic, 0);
        let will = Will::new(&topic, "silent");
        let _client = Client::connect(&Connect::new(version, unique("c")).keep_alive(1).will(will));
        watcher.expect_message("silent");
    }
}

/// [MQTT-3.1.2-22] Any packet counts, not only PINGREQ.
#[test]
fn any_packet_keeps_the_network_connection_alive() {
    let topic = unique("t");
    let mut client = Client::connect(&Connect::new(V311, unique("c")).keep_alive(1));
    for _ in 0..6 {
        pass(Duration::from_millis(500));
        client.send(Publish::new(&topic, "alive").encode(V311));
    }
    client.expect_nothing();
}

/// What the broker sends does not count. [MQTT-3.1.2-22]
#[test]
fn packets_from_the_broker_do_not_keep_it_alive() {
    let topic = unique("t");
    let mut client = Client::connect(&Connect::new(V311, unique("c")).keep_alive(1));
    client.subscribe(&topic, 0);
    let mut sender = Client::new(V311);
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(4) {
        sender.publish(&topic, 0, "tick");
        pass(Duration::from_millis(200));
    }
    while let Some(packet) = client.read() {
        assert_eq!(packet.kind(), crate::packet::PUBLISH);
    }
}

/// Zero turns it off.
#[test]
fn without_keep_alive_silence_is_allowed() {
    let mut client = Client::connect(&Connect::new(V311, unique("c")).keep_alive(0));
    pass(Duration::from_secs(2));
    client.expect_nothing();
}

/// A part of a packet is no packet. [MQTT-3.1.2-22]
#[test]
fn single_bytes_do_not_keep_it_alive() {
    let mut client = Client::connect(&Connect::new(V311, unique("c")).keep_alive(1));
    // A PUBLISH of 100 bytes that never becomes whole.
    client.send([0x30, 100, 0, 1, b't']);
    for _ in 0..8 {
        pass(Duration::from_millis(400));
        client.send([b'x']);
    }
    client.expect_closed();
}

/// A packet that takes longer than the Keep Alive is not cut in the middle as long as it comes along: its Client has no
/// other way to show that it lives.
#[test]
fn a_slow_upload_keeps_it_alive() {
    for version in [V311, V5] {
        let topic = unique("t");
        let mut watcher = Client::new(version);
        watcher.subscribe(&topic, 0);
        let mut client = Client::connect(&Connect::new(version, unique("c")).keep_alive(1));
        let publish = Publish::new(&topic, vec![b'x'; 20_000]).encode(version);
        for piece in publish.chunks(1000) {
            client.send(piece);
            pass(Duration::from_millis(200));
        }
        assert_eq!(watcher.expect_publish().payload.len(), 20_000);
        client.expect_nothing();
    }
}

/// Without Keep Alive, too, a packet has to come along.
#[test]
fn an_unfinished_packet_does_not_stay_for_ever() {
    let Some(broker) = configured("[limits]\npacket_timeout = \"1s\"\n") else { return };
    for version in ALL {
        let connect = Connect::new(version, unique("c")).keep_alive(0);
        let mut client = Client::connect_to(&broker.address, &connect);
        client.send([0x30, 100, 0, 1, b't']);
        client.expect_error(0x83);
        // One that says nothing has begun nothing.
        let mut silent = Client::connect_to(&broker.address, &connect);
        pass(Duration::from_secs(2));
        silent.expect_nothing();
    }
}

/// A Client that reads nothing is disconnected, although it keeps sending. It used to stay forever.
#[test]
fn a_client_that_never_reads_is_closed() {
    let Some(broker) = configured("") else { return };
    let (topic, gone) = (unique("t"), unique("gone"));
    let mut watcher = Client::connect_to(&broker.address, &Connect::new(V5, unique("w")));
    watcher.subscribe(&gone, 0);
    let connect = Connect::new(V5, unique("c")).keep_alive(2).will(Will::new(&gone, "given up"));
    let mut client = Client::connect_to(&broker.address, &connect);
    client.subscribe(&topic, 0);
    let mut sender = Client::connect_to(&broker.address, &Connect::new(V5, unique("s")));
    let flood = Publish::new(&topic, vec![b'x'; 100_000]).encode(V5);
    for _ in 0..200 {
        sender.send(&flood);
    }
    sender.settle();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // It could say so for ever.
            while client.try_send(&PINGREQ) {
                pass(Duration::from_millis(100));
            }
        });
        watcher.expect_message("given up");
    });
}

/// [MQTT-3.2.2-22] The broker's own figure rules when it sends one.
#[test]
fn the_server_keep_alive_is_announced_and_holds() {
    let Some(broker) = configured("[protocol]\nserver_keep_alive = \"1s\"\n") else { return };
    let mut client =
        Client::connect_to(&broker.address, &Connect::new(V5, unique("c")).keep_alive(600));
    let announced = client.connack.as_ref().unwrap().properties.number(SERVER_KEEP_ALIVE);
    assert_eq!(announced, Some(1));
    client.expect_error(0x8D);
}

/// A Keep Alive above the maximum (or none at all) is replaced by the maximum.
#[test]
fn the_maximum_keep_alive_is_imposed() {
    let Some(broker) = configured("[protocol]\nmax_keep_alive = \"1s\"\n") else { return };
    for asked in [0, 60] {
        let connect = Connect::new(V5, unique("c")).keep_alive(asked);
        let mut client = Client::connect_to(&broker.address, &connect);
        let announced = client.connack.as_ref().unwrap().properties.number(SERVER_KEEP_ALIVE);
        assert_eq!(announced, Some(1));
        client.expect_error(0x8D);
    }
}

/// Without a reason to change it, the Client's Keep Alive stands and is not repeated. [MQTT-3.2.2-22]
#[test]
fn the_keep_alive_of_the_client_is_left_alone() {
    let client = Client::connect(&Connect::new(V5, unique("c")).keep_alive(60));
    assert!(!client.connack.unwrap().properties.has(SERVER_KEEP_ALIVE));
}
