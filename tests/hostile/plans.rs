//! Publishers of very many topics to very many subscribers: who receives what is remembered within a budget.

use crate::broker::Broker;
use crate::size;
use crate::wire::{Client, packet, publish, subscribe, text};

/// A subscriber of everything to whom nothing is sent, because the packets are larger than it takes: so only what is
/// remembered about it costs memory.
fn subscriber(broker: &Broker, number: usize) -> Client {
    let mut client = Client::open(broker.address);
    let connect = b"\x00\x04MQTT\x05\x02\x00\x00\x05\x27\x00\x00\x00\x64".to_vec();
    client.send(&packet(0x10, &[connect, text(&format!("subscriber{number}"))].concat()));
    assert_eq!(client.receive().1[1], 0, "CONNACK");
    client.send(&subscribe(&["#"], 0));
    client.receive_until(9);
    client
}

fn topic(number: usize) -> String {
    format!("{}/{number}", "a gateway whose packets are longer than a hundred bytes".repeat(2))
}

/// SUBSCRIBE with a Subscription Identifier.
fn subscribe_with_id(filter: &str, id: u8) -> Vec<u8> {
    packet(0x82, &[vec![0, 1, 2, 0x0B, id], text(filter), vec![0]].concat())
}

/// Publishes to all topics twice, so that what is remembered is used, and returns the memory that the broker took at most.
fn publish_all(broker: &Broker, client: &mut Client, topics: usize) -> u64 {
    for number in (0..topics).chain(0..topics) {
        client.send(&publish(0x30, &topic(number), b"on"));
    }
    client.ping();
    broker.memory_mib().1
}

/// One publisher of 8,000 topics to 5,000 subscribers of `#` took 1.5 GiB, and so did the next.
#[test]
fn plans_of_many_topics_for_many_subscribers() {
    let broker = Broker::start(&[]);
    let (topics, count) = (size(4_000, 8_000), size(1_000, 5_000));
    let _subscribers: Vec<_> = (0..count).map(|number| subscriber(&broker, number)).collect();
    let (before, _) = broker.memory_mib();
    let mut hostile = Client::connect(broker.address, "hostile");
    let first = publish_all(&broker, &mut hostile, topics);
    assert!(first < before + 60, "one publisher takes {} MiB", first - before);
    let mut others: Vec<_> = (0..3)
        .map(|number| Client::connect(broker.address, &format!("publisher{number}")))
        .collect();
    let all = others.iter_mut().map(|other| publish_all(&broker, other, topics)).max().unwrap();
    assert!(all < before + 120, "four publishers take {} MiB", all - before);
    // Now each topic has recipients of its own, so that no two plans can share them.
    let mut one_more = subscriber(&broker, count);
    for number in 0..topics {
        one_more.send(&subscribe_with_id(&topic(number), u8::try_from(number % 100 + 1).unwrap()));
    }
    (0..topics).for_each(|_| drop(one_more.receive_until(9)));
    let unlike = publish_all(&broker, &mut hostile, topics);
    assert!(unlike < before + 180, "plans that nobody shares take {} MiB", unlike - before);
    if crate::is_full() {
        println!(
            "plans: {before} MiB before, {first} with one publisher, {all} with four, {unlike} unshared"
        );
    }
    broker.stop();
}
