//! Full queues, where the size of the step matters.

use crate::broker::configured;
use crate::client::Client;
use crate::packet::{Connect, PUBACK, Publish, V5};

/// A limit was lowered below what waits already. The next message once dropped everything above it in one go, under a lock:
/// millions of messages for one. Now the queue comes down step by step, with the messages that follow.
#[test]
fn a_queue_beyond_a_lowered_limit_shrinks_step_by_step() {
    const WAITING: u16 = 1_000;
    let Some(mut broker) = configured("") else { return };
    let absent = Connect::durable(V5, "absent");
    let mut client = Client::connect_to(&broker.address, &absent);
    client.subscribe("queue", 1);
    client.disconnect();
    let mut sender = Client::connect_to(&broker.address, &Connect::new(V5, "sender"));
    for number in 1..=WAITING {
        sender.send(Publish::new("queue", number.to_string()).qos(1, number).encode(V5));
        sender.expect_acknowledged(PUBACK, number, 0);
    }
    broker.crash();
    broker.restart("[[overflow]]\nfilter = \"#\"\npolicy = \"drop-oldest\"\nmessages = 10\n");
    let mut sender = Client::connect_to(&broker.address, &Connect::new(V5, "sender"));
    sender.send(Publish::new("queue", "new").qos(1, 1).encode(V5));
    sender.expect_acknowledged(PUBACK, 1, 0);
    let mut client = Client::connect_to(&broker.address, &absent);
    let first: u16 = String::from_utf8(client.expect_publish().payload).unwrap().parse().unwrap();
    assert!((2..WAITING / 10).contains(&first), "{first} of {WAITING} is the first that is left");
}
