//! Many small packets without pause.

use crate::broker::Broker;
use crate::size;
use crate::watch::Watch;
use crate::wire::{Client, publish};

/// A Client that only asks whether we are there, and reads the answers.
#[test]
fn pings_without_pause() {
    let name = "pings";
    let broker = Broker::start(&[]);
    let mut hostile = Client::connect(broker.address, "hostile");
    let watch = Watch::start(&broker);
    let pings = b"\xC0\x00".repeat(30_000);
    watch.during(name, 5, || {
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
    watch.during(name, 5, || {
        (0..size(20, 200)).for_each(|_| hostile.send(&messages));
        hostile.ping();
    });
    watch.end(name);
    broker.stop();
}
