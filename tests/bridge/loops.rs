//! Circling messages stop, whatever the shape of the ring: over 5.0 because of their trail, over 3.x if `echo_window`
//! is set.

use crate::port::free_port;
use crate::process::{Broker, Subscriber, eventually, has_mosquitto, side_by_side};

fn ring(ports: &[u16], direction: &str, protocol: &str) -> Vec<Broker> {
    let count = ports.len();
    let start = |index: usize| {
        let next = ports[(index + 1) % count];
        Broker::petrel_on(
            ports[index],
            &format!(
                "[[bridge]]\nname = \"next\"\naddresses = [\"127.0.0.1:{next}\"]\n\
                 client_id = \"from{index}\"\nprotocol = \"{protocol}\"\ntopics = [\"# {direction} 1\"]\n\
                 echo_window = \"5s\"\nbackoff_min = \"20ms\"\nbackoff_max = \"200ms\"\n"
            ),
        )
    };
    let brokers: Vec<Broker> = std::thread::scope(|scope| {
        let starting: Vec<_> = (0..count).map(|index| scope.spawn(move || start(index))).collect();
        starting.into_iter().map(|starting| starting.join().unwrap()).collect()
    });
    brokers.iter().for_each(|broker| broker.wait_connected("next"));
    brokers
}

fn ports(count: usize) -> Vec<u16> {
    (0..count).map(|_| free_port()).collect()
}

/// Every broker gets the message at least once and, when all is quiet, no more than there are ways to it.
fn assert_it_ends(brokers: &[Broker], most: usize) {
    let subscribers: Vec<Subscriber> = brokers
        .iter()
        .map(|broker| Subscriber::new(broker, &["-t", "loop/#", "-q", "1", "-F", "%t %p"]))
        .collect();
    for (index, broker) in brokers.iter().enumerate() {
        broker.publish(&["-t", &format!("loop/{index}"), "-q", "1", "-m", "round"]);
    }
    subscribers.iter().for_each(|subscriber| {
        subscriber.wait_for(brokers.len());
    });
    let all: Vec<&Subscriber> = subscribers.iter().collect();
    for (index, lines) in Subscriber::settle_all(&all).iter().enumerate() {
        for source in 0..brokers.len() {
            let wanted = format!("loop/{source} round");
            let found = lines.iter().filter(|line| **line == wanted).count();
            assert!((1..=most).contains(&found), "broker {index}: {found} of {wanted}");
        }
    }
    eventually("nothing waits any more", || {
        brokers.iter().all(|broker| broker.bridge("next", "queue_messages") == 0)
    });
}

#[test]
fn a_one_way_ring_of_three_and_five_delivers_once() {
    if !has_mosquitto() {
        return;
    }
    for count in [3, 5] {
        side_by_side(&["5.0", "3.1.1"], |protocol| {
            assert_it_ends(&ring(&ports(count), "out", protocol), 1);
        });
    }
}

#[test]
fn a_two_way_ring_of_three_and_five_comes_to_rest() {
    if !has_mosquitto() {
        return;
    }
    // Both ways around: twice at most.
    for protocol in ["5.0", "3.1.1"] {
        side_by_side(&[3, 5], |count| assert_it_ends(&ring(&ports(*count), "both", protocol), 2));
    }
}

#[test]
fn two_way_bridges_on_both_ends_of_a_pair_come_to_rest() {
    if !has_mosquitto() {
        return;
    }
    // A ring of two: each has a bridge to the other, which makes two parallel bridges.
    assert_it_ends(&ring(&ports(2), "both", "5.0"), 2);
    assert_it_ends(&ring(&ports(2), "both", "3.1.1"), 2);
}

#[test]
fn a_two_way_bridge_to_mosquitto_does_not_echo() {
    if !has_mosquitto() {
        return;
    }
    side_by_side(&["5.0", "3.1.1", "3.1"], |protocol| {
        for private in ["true", "false"] {
            let mosquitto = Broker::mosquitto("");
            let petrel = Broker::petrel(&format!(
                "[[bridge]]\nname = \"next\"\naddresses = [\"127.0.0.1:{}\"]\nclient_id = \"p\"\n\
                 protocol = \"{protocol}\"\nprivate = {private}\ntopics = [\"# both 1\"]\n",
                mosquitto.port
            ));
            petrel.wait_connected("next");
            let near = Subscriber::new(&petrel, &["-t", "#", "-q", "1", "-F", "%t %p"]);
            let far = Subscriber::new(&mosquitto, &["-t", "#", "-q", "1", "-F", "%t %p"]);
            petrel.publish(&["-t", "x", "-q", "1", "-m", "here"]);
            mosquitto.publish(&["-t", "y", "-q", "1", "-m", "there"]);
            [&near, &far].iter().for_each(|side| {
                side.wait_for(2);
            });
            for mut lines in Subscriber::settle_all(&[&near, &far]) {
                lines.sort();
                assert_eq!(lines, ["x here", "y there"], "{protocol} private {private}");
            }
        }
    });
}

#[test]
fn a_triangle_with_mosquitto_comes_to_rest() {
    if !has_mosquitto() {
        return;
    }
    let all = ports(3);
    for protocol in ["mqttv50", "mqttv311"] {
        let ours = if protocol == "mqttv50" { "5.0" } else { "3.1.1" };
        let bridge = |next: u16| {
            format!(
                "[[bridge]]\nname = \"next\"\naddresses = [\"127.0.0.1:{next}\"]\nprotocol = \"{ours}\"\n\
                 client_id = \"p{next}\"\ntopics = [\"loop/# out 1\"]\necho_window = \"5s\"\nbackoff_max = \"500ms\"\nbackoff_min = \"100ms\"\n"
            )
        };
        let first = Broker::petrel_on(all[0], &bridge(all[1]));
        let second = Broker::petrel_on(all[1], &bridge(all[2]));
        let third = Broker::mosquitto_on(
            all[2],
            &format!(
                "connection m\nremote_clientid m\naddress 127.0.0.1:{}\nbridge_protocol_version {protocol}\n\
                 restart_timeout 1\ntopic loop/# out 1\n",
                all[0]
            ),
        );
        first.wait_connected("next");
        second.wait_connected("next");
        let near = Subscriber::new(&first, &["-t", "loop/#", "-q", "1", "-F", "%t %p"]);
        let far = Subscriber::new(&third, &["-t", "loop/#", "-q", "1", "-F", "%t %p"]);
        let state = Subscriber::new(&first, &["-t", "$SYS/broker/connection/m/state", "-F", "%p"]);
        eventually("mosquitto is connected", || {
            state.lines().last().is_some_and(|line| line == "1")
        });
        first.publish(&["-t", "loop/1", "-q", "1", "-m", "round"]);
        far.wait_for(1);
        // The echo that mosquitto sends back to the first is an ordinary publish there: over 5.0 its trail tells, over
        // 3.1.1 it comes round once, since it does not come through a bridge of ours.
        let lines = near.settle();
        assert!((1..=2).contains(&lines.len()), "{protocol}: {lines:?}");
    }
}

/// A chain of bridges hands on what a sensor repeats, although 3.x packets do not tell it from an echo.
#[test]
fn a_value_that_is_repeated_passes_a_chain() {
    if !has_mosquitto() {
        return;
    }
    let all = ports(3);
    let end = Broker::mosquitto_on(all[2], "");
    let middle = Broker::petrel_on(
        all[1],
        &format!(
            "[[bridge]]\nname = \"next\"\naddresses = [\"127.0.0.1:{}\"]\nclient_id = \"p\"\n\
             protocol = \"3.1.1\"\ntopics = [\"# out 1\"]\n",
            all[2]
        ),
    );
    middle.wait_connected("next");
    let near = Subscriber::new(&middle, &["-t", "value", "-q", "1", "-F", "%p"]);
    let far = Subscriber::new(&end, &["-t", "value", "-q", "1", "-F", "%p"]);
    let start = Broker::mosquitto_on(
        all[0],
        &format!(
            "connection m\nremote_clientid m\naddress 127.0.0.1:{}\nrestart_timeout 1\ntopic value out 1\n",
            all[1]
        ),
    );
    for count in 1..=4 {
        start.publish(&["-t", "value", "-q", "1", "-m", "20"]);
        near.wait_for(count);
        far.wait_for(count);
        // As a sensor does. What comes again faster is taken for a lap of a ring, see docs/bridges.md.
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
}
