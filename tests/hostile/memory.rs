//! Memory: how much one Client can make the broker take, and what is left after a storm.

use std::time::{Duration, Instant};

use crate::broker::Broker;
use crate::size;
use crate::wire::{Client, packet, publish, publish_qos1, subscribe, text};

/// How long it may take. Not a race: the broker notices within twenty seconds that nothing is written any more, and then
/// the allocator takes ten.
const PATIENCE: Duration = Duration::from_secs(60);

/// Each of these storms left memory at its peak, or near it, until somebody came who needed it: pages of threads that had
/// nothing to do any more, buffers, and what was written to the store but not sorted into files yet.
#[test]
fn memory_is_given_back_within_a_minute() {
    let broker = Broker::start(&[]);
    let (before, _) = broker.memory_mib();
    let mut hostile = Client::connect(broker.address, "hostile");
    let storms: [(&str, fn(&Broker, &mut Client)); 3] = [
        ("readers that do not read", leave_unread),
        ("retained messages, set and cleared", retain_and_clear),
        ("a queue, filled and thrown away", fill_and_discard),
    ];
    for (name, storm) in storms {
        storm(&broker, &mut hostile);
        if crate::is_full() {
            let (now, most) = broker.memory_mib();
            println!("memory: {now} MiB after {name}, {most} at most");
        }
    }
    let (_, most) = broker.memory_mib();
    // Parts of the program that were not needed before are resident now, and each thread keeps a few buffers.
    let allowed = before + before * 3 / 10 + 8;
    assert!(most > 2 * allowed, "{most} MiB is no storm");
    drop(hostile);
    let started = Instant::now();
    let mut now = most;
    while now > allowed {
        assert!(started.elapsed() < PATIENCE, "{before} MiB before, {most} at most, {now} now");
        std::thread::sleep(Duration::from_millis(100));
        (now, _) = broker.memory_mib();
    }
    if crate::is_full() {
        println!(
            "memory: {before} MiB before, {most} at most, {now} after {:.0?}",
            started.elapsed()
        );
    }
    broker.stop();
}

/// Readers with QoS 1 that do not read, while large and small messages are published to all of them.
fn leave_unread(broker: &Broker, hostile: &mut Client) {
    let mut readers: Vec<Client> = (0..size(100, 300))
        .map(|number| Client::connect(broker.address, &format!("reader{number}")))
        .collect();
    for reader in &mut readers {
        reader.send(&subscribe(&["flood/#"], 1));
        reader.receive_until(9);
    }
    for number in 1..=3_000_u16 {
        let payload = vec![b'x'; if number <= 40 { 500_000 } else { 600 }];
        hostile.send(&publish_qos1(&format!("flood/{number}"), number, &payload));
    }
    for _ in 1..=3_000 {
        hostile.receive_until(4);
    }
}

/// Many Retained Messages, each of which is removed again.
fn retain_and_clear(_: &Broker, hostile: &mut Client) {
    for payload in [&[b'x'; 200][..], &[]] {
        for number in 0..size(20_000, 200_000) {
            hostile.send(&publish(
                0x31,
                &format!("site/{}/device/{number}", number / 100),
                payload,
            ));
        }
        hostile.ping();
    }
}

/// A long queue of an absent Client, whose Session ends when it comes back.
fn fill_and_discard(broker: &Broker, hostile: &mut Client) {
    let mut absent = Client::connect_with(broker.address, "absent", 3_600);
    absent.send(&subscribe(&["queue"], 1));
    absent.receive_until(9);
    drop(absent);
    let message = publish_qos1("queue", 1, &[b'x'; 1_000]);
    let burst = message.repeat(100);
    for _ in 0..size(300, 3_000) {
        hostile.send(&burst);
        for _ in 0..100 {
            hostile.receive_until(4);
        }
    }
    let _present = Client::connect(broker.address, "absent");
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
