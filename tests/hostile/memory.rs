//! The memory left after a storm of connections.

use std::time::{Duration, Instant};

use crate::broker::Broker;
use crate::size;
use crate::wire::{Client, packet, publish_qos1, subscribe, text};

/// How long the system may wait for its memory. Not a race: it takes a few seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Readers that do not read, a publisher at full speed, and then nobody any more: memory stayed at its peak, or grew still.
/// The allocators of idle threads and of the store keep some of it for what comes next, so not all of it has to go.
#[test]
fn some_memory_is_given_back_when_nobody_is_left() {
    // What was written and is not sorted yet has a bound of its own, which would hide the rest.
    let broker = Broker::start(&[("PETREL_PERSISTENCE__WRITE_BUFFER", "1MiB")]);
    let (before, _) = broker.memory_mib();
    let mut readers: Vec<Client> = (0..size(100, 300))
        .map(|number| Client::connect(broker.address, &format!("reader{number}")))
        .collect();
    for reader in &mut readers {
        reader.send(&subscribe(&["flood/#"], 1));
        reader.receive_until(9);
    }
    let mut hostile = Client::connect(broker.address, "hostile");
    for number in 1..=3_000_u16 {
        let payload = vec![b'x'; if number <= 40 { 500_000 } else { 600 }];
        hostile.send(&publish_qos1(&format!("flood/{number}"), number, &payload));
    }
    for _ in 1..=3_000 {
        hostile.receive_until(4);
    }
    let (_, most) = broker.memory_mib();
    drop((readers, hostile));
    let allowed = before + (most - before) * 3 / 4;
    let started = Instant::now();
    let mut now = most;
    while now > allowed {
        assert!(started.elapsed() < PATIENCE, "{before} MiB before, {most} at most, {now} now");
        std::thread::sleep(Duration::from_millis(100));
        (now, _) = broker.memory_mib();
    }
    if crate::is_full() {
        println!("memory: {before} MiB before, {most} at most, {now} now");
    }
    broker.stop();
}

/// User Properties were written anew for each recipient, however large they were, and counted nowhere.
#[test]
fn large_user_properties_exist_once() {
    let broker = Broker::start(&[]);
    let count = size(100, 200);
    let mut readers: Vec<Client> = (0..count)
        .map(|number| Client::connect(broker.address, &format!("reader{number}")))
        .collect();
    for reader in &mut readers {
        reader.send(&subscribe(&["large"], 0));
        reader.receive_until(9);
    }
    let mut hostile = Client::connect(broker.address, "hostile");
    let (before, _) = broker.memory_mib();
    let property = [&[0x26][..], &text("key"), &text(&"v".repeat(65_000))].concat();
    let properties = property.repeat(30);
    // The length of the properties, in three bytes.
    let length = [7, 14].iter().fold(vec![properties.len() as u8 | 0x80], |mut bytes, shift| {
        let byte = (properties.len() >> shift) as u8;
        bytes.push(if *shift == 14 { byte & 0x7F } else { byte | 0x80 });
        bytes
    });
    hostile.send(&packet(0x30, &[text("large"), length, properties, b"x".to_vec()].concat()));
    hostile.ping();
    let (_, most) = broker.memory_mib();
    let of_each = 2 * count as u64;
    assert!(most < before + of_each / 4, "{count} copies take {} MiB", most - before);
    for reader in &mut readers {
        assert_eq!(reader.receive_until(3).last(), Some(&b'x'));
    }
    broker.stop();
}

/// A Retained Message that replaces another was taken however large it was.
#[test]
fn replacing_retained_messages_keeps_to_the_limit() {
    let broker = Broker::start(&[("PETREL_LIMITS__RETAINED_SIZE", "1MiB")]);
    let mut hostile = Client::connect(broker.address, "hostile");
    let mut retain = |kilobytes: usize| {
        let mut message = publish_qos1("topic", 1, &vec![b'x'; kilobytes * 1_000]);
        message[0] |= 1;
        hostile.send(&message);
        // Packet Identifier, and a Reason Code if there is one to tell.
        hostile.receive_until(4).get(2).copied().unwrap_or(0)
    };
    assert_eq!([100, 500, 900].map(&mut retain), [0x10; 3]);
    assert_eq!([1_200, 3_000].map(&mut retain), [0x97; 2]);
    assert_eq!(retain(800), 0x10);
    broker.stop();
}
