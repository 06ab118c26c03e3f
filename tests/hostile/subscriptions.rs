//! What one Client can make of Subscriptions: many in one packet, many that match nothing, many that nearly match,
//! many levels, all gone at once.

use crate::broker::Broker;
use crate::size;
use crate::watch::Watch;
use crate::wire::{Client, packet, publish, subscribe, text, unsubscribe};

/// Retained Messages, sent in large writes.
fn retain(client: &mut Client, count: usize) {
    let mut bytes = Vec::new();
    for number in 0..count {
        bytes.extend(publish(0x31, &format!("device{number}/state"), b"on"));
        if bytes.len() > 60_000 {
            client.send(&bytes);
            bytes.clear();
        }
    }
    client.send(&bytes);
    client.ping();
}

/// Each filter is compared with every Retained Message, in vain.
#[test]
fn filters_that_match_no_retained_message() {
    let name = "filters over retained messages";
    let broker = Broker::start(&[]);
    let mut hostile = Client::connect(broker.address, "hostile");
    retain(&mut hostile, size(30_000, 100_000));
    let watch = Watch::start(&broker);
    let filters: Vec<String> = (0..size(250, 1_000)).map(|number| format!("+/x{number}")).collect();
    watch.during(name, 20, || {
        hostile.send(&subscribe(&filters, 0));
        assert_eq!(hostile.receive_until(9).len(), filters.len() + 3);
        // Answered when what it brings about is done: the one Retained Message comes behind all the others' search.
        hostile.send(&subscribe(&["device7/state"], 0));
        hostile.receive_until(3);
    });
    watch.expect_more(20);
    watch.end(name);
    // In the middle of it, the end of the broker does not wait either.
    hostile.send(&subscribe(&filters, 0));
    broker.stop();
}

/// A Client with a thousand groups is nothing special; one with tens of thousands must not be dearer by their square.
#[test]
fn very_many_shared_subscriptions_in_one_packet() {
    let name = "shared subscriptions";
    let broker = Broker::start(&[
        ("PETREL_LIMITS__MAX_GROUPS_PER_SESSION", "1000000"),
        ("PETREL_LIMITS__MAX_GROUPS", "1000000"),
    ]);
    let mut hostile = Client::connect(broker.address, "hostile");
    let watch = Watch::start(&broker);
    let filters = shared_filters(size(20_000, 60_000));
    watch.during(name, 10, || {
        hostile.send(&subscribe(&filters, 1));
        let suback = hostile.receive_until(9);
        assert_eq!(&suback[3..], vec![1; filters.len()]);
    });
    watch.during(name, 5, || {
        hostile.send(&unsubscribe(&filters));
        let unsuback = hostile.receive_until(11);
        assert_eq!(&unsuback[3..], vec![0; filters.len()]);
    });
    watch.end(name);
    broker.stop();
}

/// By default a Client is a member of a thousand groups at most; all Clients together have ten thousand.
#[test]
fn groups_have_a_limit() {
    let broker = Broker::start(&[]);
    let mut first = Client::connect(broker.address, "first");
    first.send(&subscribe(&shared_filters(1_500), 1));
    let suback = first.receive_until(9);
    assert_eq!(&suback[3..], [vec![1; 1_000], vec![0x97; 500]].concat());
    let filters = shared_filters(20_000);
    let mut others: Vec<Client> = Vec::new();
    let mut granted = 0;
    for some in filters[1_000..].chunks(1_000) {
        let mut other = Client::connect(broker.address, &some[0]);
        other.send(&subscribe(some, 1));
        granted += other.receive_until(9)[3..].iter().filter(|reason| **reason == 1).count();
        others.push(other);
    }
    assert_eq!(granted, 9_000);
    // Members of groups that exist may be any number.
    let mut last = Client::connect(broker.address, "last");
    last.send(&subscribe(&[&filters[7]], 1));
    assert_eq!(last.receive_until(9)[3], 1);
    broker.stop();
}

fn shared_filters(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("$share/g{number}/a")).collect()
}

/// Each of the filters has Retained Messages on their way, which are called off.
#[test]
fn unsubscribe_while_retained_messages_wait() {
    let name = "unsubscribe";
    let broker = Broker::start(&[]);
    let mut hostile = Client::connect(broker.address, "hostile");
    retain(&mut hostile, 5_000);
    let watch = Watch::start(&broker);
    let filters: Vec<String> =
        (0..size(20_000, 60_000)).map(|number| format!("device{number}/#")).collect();
    watch.during(name, 20, || {
        // Nothing is read meanwhile: the messages wait.
        hostile.send(&subscribe(&["#"], 0));
        hostile.send(&subscribe(&filters, 0));
        hostile.send(&unsubscribe(&filters));
        assert_eq!(hostile.receive_until(11).len(), filters.len() + 3);
    });
    watch.end(name);
    broker.stop();
}

/// A message of some bytes carried a Subscription Identifier for each of thousands of filters that match it.
#[test]
fn overlapping_filters_with_identifiers() {
    let broker = Broker::start(&[]);
    let mut hostile = Client::connect(broker.address, "hostile");
    let count = 200_u16;
    for number in 0..count {
        let level = |bit: u16| if number >> bit & 1 == 0 { "a" } else { "+" };
        let filter = (0..8).map(level).collect::<Vec<_>>().join("/");
        // Identifiers from 1,000 on take two bytes.
        let id = 1_000 + number;
        let property = [0x0B, (id & 0x7F) as u8 | 0x80, (id >> 7) as u8];
        let body = [&[0, 1, 3][..], &property, &text(&filter), &[0]].concat();
        hostile.send(&packet(0x82, &body));
        assert_eq!(hostile.receive_until(9).last(), Some(&0));
    }
    hostile.send(&publish(0x30, &["a"; 8].join("/"), b"x"));
    let body = hostile.receive_until(3);
    // Length of the properties in two bytes, identifiers of three, one byte of payload.
    let properties = &body[2 + 15..body.len() - 1];
    let sent: Vec<u16> = properties[2..]
        .chunks(3)
        .map(|id| u16::from(id[1] & 0x7F) | u16::from(id[2]) << 7)
        .collect();
    assert_eq!(sent, (1_000..1_128).collect::<Vec<_>>());
    let left_out = || broker.metric("petrel_subscription_ids_left_out_total");
    while left_out() != Some(u64::from(count) - 128) {}
    broker.stop();
}

/// All filters out of `a` and `+` of so many levels, and topics that match none of them, but only in the last level.
#[test]
fn topics_that_nearly_match_everything() {
    let name = "nearly matching topics";
    let broker = Broker::start(&[]);
    let mut hostile = Client::connect(broker.address, "hostile");
    let levels = size(13, 17);
    let filters: Vec<String> = (0..1_usize << levels)
        .map(|number| {
            let level = |bit: usize| if number >> bit & 1 == 0 { "a" } else { "+" };
            let levels: Vec<_> = (0..levels).map(level).collect();
            levels.join("/") + "/z"
        })
        .collect();
    for some in filters.chunks(4_096) {
        hostile.send(&subscribe(some, 0));
        assert_eq!(hostile.receive_until(9).len(), some.len() + 3);
    }
    let watch = Watch::start(&broker);
    let prefix = vec!["a"; levels].join("/");
    watch.during(name, 20, || {
        let topics = 0..size(2_000, 10_000);
        let bytes: Vec<u8> =
            topics.flat_map(|number| publish(0x30, &format!("{prefix}/{number}"), b"")).collect();
        hostile.send(&bytes);
        hostile.ping();
    });
    watch.end(name);
    broker.stop();
}

/// Very many Subscriptions of very many levels are gone with their Network Connection.
#[test]
fn the_end_of_a_session_with_many_deep_filters() {
    let name = "the end of a session";
    let limit = ("PETREL_LIMITS__MAX_SUBSCRIPTION_SIZE_PER_SESSION", "2GiB");
    let broker = Broker::start(&[limit]);
    let watch = Watch::start(&broker);
    let tail = vec!["x"; 96].join("/");
    let filters: Vec<String> = (0..size(10_000, 100_000))
        .map(|number| format!("{}/{}/{number}/{tail}", number % 7, number % 11))
        .collect();
    for _round in 0..2 {
        let mut hostile = Client::connect(broker.address, "hostile");
        for some in filters.chunks(1_000) {
            hostile.send(&subscribe(some, 0));
            assert_eq!(hostile.receive_until(9)[3..], vec![0; some.len()]);
        }
        let full = broker.metric("petrel_subscription_bytes").unwrap_or(0);
        watch.during(name, 20, || {
            // Its end is seen by a connection that begins anew, and must not wait for it.
            drop(hostile);
            Client::connect(broker.address, "hostile").ping();
            let is_left = |bytes| bytes > full / 2;
            while broker.metric("petrel_subscription_bytes").is_some_and(is_left) {}
        });
    }
    if crate::is_full() {
        println!("{name}: memory {:?} MiB (at the end, at most)", broker.memory_mib());
    }
    watch.end(name);
    broker.stop();
}

/// The default limit of one Session in bytes.
#[test]
fn deep_filters_have_a_limit_in_bytes() {
    let broker = Broker::start(&[]);
    let mut hostile = Client::connect(broker.address, "hostile");
    let tail = vec!["x"; 200].join("/");
    let mut reasons = Vec::new();
    let filters: Vec<String> = (0..8_000).map(|number| format!("{number}/{tail}")).collect();
    for some in filters.chunks(1_000) {
        hostile.send(&subscribe(some, 0));
        reasons.extend_from_slice(&hostile.receive_until(9)[3..]);
    }
    let granted = reasons.iter().filter(|reason| **reason == 0).count();
    assert!((5_000..7_000).contains(&granted), "{granted}");
    assert!(reasons[granted..].iter().all(|reason| *reason == 0x97));
    // What it has it may have again.
    hostile.send(&subscribe(&filters[..1], 1));
    assert_eq!(hostile.receive_until(9)[3], 1);
    broker.stop();
}

/// One packet may name so many filters, however short they are.
#[test]
fn a_packet_of_too_many_filters_is_too_large() {
    let broker = Broker::start(&[]);
    for (packet, count) in
        [(subscribe(&vec!["a"; 65_537], 0), 65_537), (unsubscribe(&vec!["a"; 65_537]), 65_537)]
    {
        let mut hostile = Client::connect(broker.address, "hostile");
        hostile.send(&packet);
        let (first, body) = hostile.receive();
        assert_eq!((first, body[0]), (0xE0, 0x95), "{count} filters");
    }
    let mut friendly = Client::connect(broker.address, "friendly");
    friendly.send(&subscribe(&vec!["a"; 65_536], 0));
    assert_eq!(friendly.receive_until(9).len(), 65_536 + 3);
    broker.stop();
}
