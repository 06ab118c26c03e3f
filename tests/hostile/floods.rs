//! Many small packets without pause.

use crate::broker::Broker;
use crate::size;
use crate::watch::Watch;
use crate::wire::{Client, packet, publish, text};

/// A Client that only asks whether we are there, and reads the answers.
#[test]
fn pings_without_pause() {
    let name = "pings";
    let broker = Broker::start(&[]);
    let mut hostile = Client::connect(broker.address, "hostile");
    let watch = Watch::start(&broker);
    let pings = b"\xC0\x00".repeat(30_000);
    watch.during(name, 1, || {
        for _ in 0..size(50, 500) {
            hostile.send(&pings);
            (0..30_000).for_each(|_| assert_eq!(hostile.receive().0, 0xD0));
        }
    });
    watch.end(name);
    broker.stop();
}

/// A publisher at full speed to a topic that nobody subscribes to.
#[test]
fn messages_that_nobody_wants() {
    let name = "unwanted messages";
    let broker = Broker::start(&[]);
    let mut hostile = Client::connect(broker.address, "hostile");
    let watch = Watch::start(&broker);
    let messages = publish(0x30, "nobody", b"x").repeat(50_000);
    watch.during(name, 1, || {
        (0..size(20, 200)).for_each(|_| hostile.send(&messages));
        hostile.ping();
    });
    watch.end(name);
    broker.stop();
}

/// Sessions that last have a limit, too; who has one may come back, and who ends one makes room.
#[test]
fn sessions_have_a_limit() {
    let broker = Broker::start(&[("PETREL_LIMITS__MAX_SESSIONS", "100")]);
    for number in 0..100 {
        Client::connect_with(broker.address, &format!("client{number}"), 3_600);
    }
    assert_eq!(try_to_connect(&broker, "one more"), 0x97);
    assert_eq!(try_to_connect(&broker, "client7"), 0);
    // Neither has a Session Expiry Interval any more: both are gone with their connections.
    Client::connect(broker.address, "client8").ping();
    let count = |name| broker.metric(name).unwrap();
    while count("petrel_clients_connected") + count("petrel_clients_disconnected") > 98 {}
    assert_eq!(try_to_connect(&broker, "one more"), 0);
    broker.stop();
}

/// The Reason Code of CONNACK.
fn try_to_connect(broker: &Broker, client_id: &str) -> u8 {
    let mut client = Client::open(broker.address);
    client.send(&packet(
        0x10,
        &[b"\x00\x04MQTT\x05\x00\x00\x00\x00".to_vec(), text(client_id)].concat(),
    ));
    client.receive().1[1]
}
