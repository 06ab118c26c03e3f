//! Shared Subscriptions: one member of a group receives each message.

use crate::broker::unique;
use crate::client::Client;
use crate::packet::{
    ALL, Connect, DISCONNECT, PUBACK, PUBREC, PUBREL, Properties, Publish, SUBACK, SUBSCRIPTION_ID,
    V5, V311, Version, acknowledge, acknowledge_with, subscribe,
};

/// A topic and a shared filter for it.
fn group() -> (String, String) {
    let topic = unique("t");
    let filter = format!("$share/{}/{topic}", unique("g"));
    (topic, filter)
}

/// Reads what has arrived at a member by now, acknowledging it.
fn drain(client: &mut Client, version: Version) -> Vec<String> {
    client.send(crate::packet::PINGREQ);
    let mut payloads = Vec::new();
    loop {
        let packet = client.read().expect("open");
        if packet.kind() != crate::packet::PUBLISH {
            return payloads;
        }
        let publish = packet.publish(version);
        payloads.push(publish.text().to_owned());
        if publish.qos == 1 {
            client.send(acknowledge(PUBACK, publish.id));
        }
    }
}

/// [MQTT-4.8.2-1] Also for clients of 3.1 and 3.1.1.
#[test]
fn each_message_goes_to_one_member() {
    for version in ALL {
        let (topic, filter) = group();
        let mut members: Vec<Client> = (0..3).map(|_| Client::new(version)).collect();
        for member in &mut members {
            member.subscribe(&filter, 1);
        }
        let mut sender = Client::new(version);
        for number in 0..60 {
            sender.publish(&topic, 1, &number.to_string());
        }
        let shares: Vec<Vec<String>> =
            members.iter_mut().map(|member| drain(member, version)).collect();
        let mut all: Vec<u32> =
            shares.iter().flatten().map(|payload| payload.parse().unwrap()).collect();
        all.sort_unstable();
        assert_eq!(all, (0..60).collect::<Vec<_>>());
        assert!(shares.iter().all(|share| !share.is_empty()), "{shares:?}");
    }
}

/// Groups do not share with each other, nor with ordinary Subscriptions.
#[test]
fn every_group_and_every_other_subscriber_receives_each_message() {
    let topic = unique("t");
    let mut first = Client::new(V5);
    first.subscribe(&format!("$share/{}/{topic}", unique("g")), 1);
    let mut second = Client::new(V5);
    second.subscribe(&format!("$share/{}/{topic}", unique("g")), 1);
    let mut plain = Client::new(V311);
    plain.subscribe(&topic, 1);
    Client::new(V5).publish(&topic, 1, "x");
    for client in [&mut first, &mut second, &mut plain] {
        client.expect_message("x");
        client.expect_nothing();
    }
}

/// The same client, shared and not: one copy for each.
#[test]
fn a_member_with_an_ordinary_subscription_receives_both() {
    let (topic, filter) = group();
    let mut client = Client::new(V5);
    client.subscribe(&filter, 1);
    client.subscribe(&topic, 1);
    Client::new(V5).publish(&topic, 1, "x");
    client.expect_message("x");
    client.expect_message("x");
    client.expect_nothing();
}

/// A group is its ShareName and its filter: another filter is another group.
#[test]
fn the_same_name_with_another_filter_is_another_group() {
    let (topic, name) = (unique("t"), unique("g"));
    let mut exact = Client::new(V5);
    exact.subscribe(&format!("$share/{name}/{topic}/a"), 0);
    let mut wild = Client::new(V5);
    wild.subscribe(&format!("$share/{name}/{topic}/+"), 0);
    Client::new(V5).publish(&format!("{topic}/a"), 0, "x");
    exact.expect_message("x");
    wild.expect_message("x");
}

/// [MQTT-4.8.2-3] [MQTT-3.8.4-8]
#[test]
fn members_receive_with_their_own_qos() {
    for granted in 0..=2 {
        let (topic, filter) = group();
        let mut member = Client::new(V5);
        member.subscribe(&filter, granted);
        Client::new(V5).publish(&topic, 2, "x");
        assert_eq!(member.expect_message("x").qos, granted);
    }
}

/// Retained Messages are not sent for Shared Subscriptions.
#[test]
fn retained_messages_are_not_sent_to_groups() {
    let (topic, filter) = group();
    let mut sender = Client::new(V5);
    sender.publish_with(Publish::new(&topic, "kept").qos(1, 1).retain());
    let mut member = Client::new(V5);
    member.subscribe(&filter, 1);
    member.expect_nothing();
    sender.publish_with(Publish::new(&topic, "").retain());
}

/// Subscription Identifiers belong to the member.
#[test]
fn a_member_receives_its_own_subscription_identifier() {
    let (topic, filter) = group();
    let mut member = Client::new(V5);
    member.subscribe_with(&Properties::new().variable(SUBSCRIPTION_ID, 42), &[(&filter, 0)]);
    Client::new(V5).publish(&topic, 0, "x");
    assert_eq!(member.expect_message("x").received.numbers(SUBSCRIPTION_ID), [42]);
}

/// [MQTT-4.8.2-6]
#[test]
fn a_refused_message_goes_to_no_other_member() {
    for (qos, answer) in [(1, PUBACK), (2, PUBREC)] {
        let (topic, filter) = group();
        let mut first = Client::new(V5);
        first.subscribe(&filter, qos);
        Client::new(V5).publish(&topic, qos, "refused");
        let publish = first.expect_publish();
        let mut second = Client::new(V5);
        second.subscribe(&filter, qos);
        first.send(acknowledge_with(answer, publish.id, 0x80));
        first.settle();
        first.disconnect();
        second.expect_nothing();
    }
}

/// A QoS 1 message in flight goes to another member when the Session of the first ends.
#[test]
fn an_unacknowledged_qos_1_message_goes_to_another_member() {
    let (topic, filter) = group();
    let mut first = Client::new(V5);
    first.subscribe(&filter, 1);
    Client::new(V5).publish(&topic, 1, "handed on");
    first.expect_publish();
    let mut second = Client::new(V5);
    second.subscribe(&filter, 1);
    first.cut();
    second.expect_message("handed on");
}

/// Messages that arrive in one piece are dealt out evenly, and those that a member has not acknowledged when it leaves
/// go to another, whatever protocol the publisher and the members speak, and whatever QoS it was published with.
#[test]
fn a_burst_is_dealt_out_evenly_and_handed_on() {
    for (publisher, member, qos) in [(V311, V5, 1), (V5, V311, 1), (V5, V5, 2), (V311, V311, 1)] {
        let (topic, filter) = group();
        let mut first = Client::new(member);
        first.subscribe(&filter, 1);
        let mut second = Client::new(member);
        second.subscribe(&filter, 1);
        let payload = |number: u16| format!("{number} {}", "x".repeat(usize::from(number)));
        let burst: Vec<u8> = (1..=60)
            .flat_map(|number| {
                Publish::new(&topic, payload(number)).qos(qos, number).encode(publisher)
            })
            .collect();
        let mut sender = Client::new(publisher);
        sender.send(burst);
        let mine: Vec<Publish> = (0..30).map(|_| first.expect_publish()).collect();
        let mut theirs: Vec<String> =
            (0..30).map(|_| second.expect_publish().text().to_owned()).collect();
        for publish in mine.iter().step_by(2) {
            first.send(acknowledge(PUBACK, publish.id));
        }
        first.settle();
        first.cut();
        for publish in mine.iter().skip(1).step_by(2) {
            let again = second.expect_publish();
            assert_eq!((again.text(), again.name(), again.dup), (publish.text(), &*topic, false));
        }
        second.expect_nothing();
        theirs.extend(mine.iter().map(|publish| publish.text().to_owned()));
        theirs.sort_unstable();
        let mut all: Vec<String> = (1..=60).map(payload).collect();
        all.sort_unstable();
        assert_eq!(theirs, all);
    }
}

/// So do those of a member that ends its Subscription first, as a worker does that stops.
#[test]
fn what_a_member_leaves_after_unsubscribing_goes_to_another_member() {
    for (version, count) in [(V311, 1), (V5, 3), (V5, 40), (V311, 40)] {
        let (topic, filter) = group();
        let mut first = Client::new(version);
        first.subscribe(&filter, 1);
        let burst = (1..=count)
            .flat_map(|id| Publish::new(&topic, id.to_string()).qos(1, id).encode(version));
        Client::new(version).send(burst.collect::<Vec<u8>>());
        let held: Vec<Publish> = (1..=count).map(|_| first.expect_publish()).collect();
        let mut second = Client::new(version);
        second.subscribe(&filter, 1);
        first.send(acknowledge(PUBACK, held[0].id));
        first.unsubscribe(&[&filter]);
        second.expect_nothing();
        first.disconnect();
        for publish in held.iter().skip(1) {
            second.expect_message(publish.text());
        }
        second.expect_nothing();
    }
}

/// [MQTT-4.8.2-4]
#[test]
fn a_qos_2_delivery_is_completed_with_its_member() {
    let (topic, filter) = group();
    let connect = Connect::durable(V5, unique("c"));
    let mut first = Client::connect(&connect);
    first.subscribe(&filter, 2);
    Client::new(V5).publish(&topic, 2, "mine");
    let publish = first.expect_publish();
    let mut second = Client::new(V5);
    second.subscribe(&filter, 2);
    first.cut();
    let mut first = Client::connect(&connect);
    let again = first.expect_publish();
    assert_eq!((again.id, again.dup, again.text()), (publish.id, true, "mine"));
    first.complete(&again);
    second.expect_nothing();
}

/// [MQTT-4.8.2-5]
#[test]
fn a_qos_2_delivery_ends_with_the_session_of_its_member() {
    let (topic, filter) = group();
    let mut first = Client::new(V5);
    first.subscribe(&filter, 2);
    Client::new(V5).publish(&topic, 2, "gone");
    let publish = first.expect_publish();
    first.send(acknowledge(PUBREC, publish.id));
    first.expect_acknowledged(PUBREL, publish.id, 0);
    let mut second = Client::new(V5);
    second.subscribe(&filter, 2);
    first.disconnect();
    Client::new(V5).publish(&topic, 2, "next");
    second.expect_message("next");
    second.expect_nothing();
}

/// With no member connected, the messages wait for the group.
#[test]
fn messages_wait_for_absent_members() {
    let (topic, filter) = group();
    let connect = Connect::durable(V5, unique("c"));
    let mut member = Client::connect(&connect);
    member.subscribe(&filter, 1);
    member.disconnect();
    let mut sender = Client::new(V5);
    for number in 0..10 {
        sender.publish(&topic, 1, &number.to_string());
    }
    let mut member = Client::connect(&connect);
    for number in 0..10 {
        member.expect_message(&number.to_string());
    }
}

/// Connected members come before absent ones.
#[test]
fn connected_members_are_preferred() {
    let (topic, filter) = group();
    let absent = Connect::durable(V5, unique("c"));
    let mut client = Client::connect(&absent);
    client.subscribe(&filter, 1);
    client.disconnect();
    let mut present = Client::new(V5);
    present.subscribe(&filter, 1);
    let mut sender = Client::new(V5);
    for number in 0..10 {
        sender.publish(&topic, 1, &number.to_string());
        present.expect_message(&number.to_string());
    }
    Client::connect(&absent).expect_nothing();
}

/// A member that unsubscribes receives nothing more; the others go on. [MQTT-3.10.4-2]
#[test]
fn a_member_can_leave() {
    let (topic, filter) = group();
    let mut first = Client::new(V5);
    first.subscribe(&filter, 1);
    let mut second = Client::new(V5);
    second.subscribe(&filter, 1);
    assert_eq!(first.unsubscribe(&[&filter]), [0]);
    let mut sender = Client::new(V5);
    for number in 0..10 {
        sender.publish(&topic, 1, &number.to_string());
        second.expect_message(&number.to_string());
    }
    first.expect_nothing();
}

/// Unsubscribing the plain filter leaves the shared one, and the reverse. [MQTT-3.10.4-1]
#[test]
fn shared_and_plain_subscriptions_are_removed_separately() {
    let (topic, filter) = group();
    let mut client = Client::new(V5);
    client.subscribe(&filter, 0);
    assert_eq!(client.unsubscribe(&[&topic]), [0x11]);
    client.publish(&topic, 0, "still");
    client.expect_message("still");
    assert_eq!(client.unsubscribe(&[&filter]), [0]);
}

/// [MQTT-4.8.2-1] [MQTT-4.8.2-2]
#[test]
fn malformed_shared_filters_are_refused() {
    for version in [V311, V5] {
        for filter in [
            "$share/",
            "$share//a",
            "$share/g",
            "$share/g/",
            "$share/g+/a",
            "$share/#/a",
            "$share/+/a",
            "$share/g/a#",
        ] {
            let mut client = Client::new(version);
            client.send(subscribe(version, 1, &Properties::new(), &[(filter, 0)]));
            let Some(packet) = client.read() else {
                assert_ne!(version, V5, "{filter}");
                continue;
            };
            match packet.kind() {
                SUBACK => assert!(packet.codes(version).1[0] >= 0x80, "{filter} is granted"),
                DISCONNECT => assert!(packet.disconnect().0 >= 0x80, "{filter}"),
                kind => panic!("{filter} is answered with type {kind}"),
            }
        }
    }
}

/// Only `$share/` with the slash, and in lower case, means sharing.
#[test]
fn filters_that_only_look_shared_are_ordinary() {
    for filter in ["$shared/g/a", "$SHARE/g/a"] {
        let mut client = Client::new(V5);
        assert_eq!(client.subscribe_with(&Properties::new(), &[(filter, 0)]), [0]);
    }
}

/// A message is shared out once although the member's window is small: what one cannot take goes to another.
#[test]
fn a_full_window_passes_the_message_on() {
    let (topic, filter) = group();
    let one = Properties::new().two(crate::packet::RECEIVE_MAXIMUM, 1);
    let mut slow = Client::connect(&Connect::new(V5, unique("c")).properties(one));
    slow.subscribe(&filter, 1);
    let mut fast = Client::new(V5);
    fast.subscribe(&filter, 1);
    let mut sender = Client::new(V5);
    for number in 0..20 {
        sender.publish(&topic, 1, &number.to_string());
    }
    let mut received = drain(&mut fast, V5);
    received.extend(drain(&mut slow, V5));
    received.extend(drain(&mut slow, V5));
    received.extend(drain(&mut fast, V5));
    let mut numbers: Vec<u32> = received.iter().map(|payload| payload.parse().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..20).collect::<Vec<_>>());
}
