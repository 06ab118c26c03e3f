//! The link is cut at every stage of an exchange, in both directions: nothing is lost, QoS 2 arrives once, order
//! holds.

use std::collections::HashSet;

use crate::process::{Broker, Subscriber, bridge, eventually, has_mosquitto, side_by_side};
use crate::proxy::{Cut, Proxy};

const PUBLISH: u8 = 3;
const PUBACK: u8 = 4;
const PUBREC: u8 = 5;
const PUBREL: u8 = 6;
const PUBCOMP: u8 = 7;

/// Messages in one test; several are in flight at each cut.
const COUNT: usize = 60;

fn stages(qos: u8) -> Vec<Cut> {
    let of = |packet, from_sender| {
        [false, true].map(|after| Cut { packet, from_client: from_sender, after })
    };
    match qos {
        1 => [of(PUBLISH, true), of(PUBACK, false)].concat(),
        _ => [of(PUBLISH, true), of(PUBREC, false), of(PUBREL, true), of(PUBCOMP, false)].concat(),
    }
}

fn check(lines: &[String], qos: u8, cut: Cut, protocol: &str) {
    let context = format!("{protocol} QoS {qos} {cut:?}");
    // At QoS 1 the line that ended an earlier stage may come again, if it had left before the link broke for good.
    let own = lines.iter().filter(|line| !line.starts_with("end 1 "));
    let numbers: Vec<usize> = own.map(|line| line.parse().unwrap()).collect();
    let distinct: HashSet<usize> = numbers.iter().copied().collect();
    assert_eq!(distinct.len(), COUNT, "lost: {context}");
    let mut seen = HashSet::new();
    let firsts: Vec<usize> =
        numbers.iter().copied().filter(|number| seen.insert(*number)).collect();
    assert!(firsts.is_sorted(), "out of order: {context} {firsts:?}");
    if qos == 2 {
        assert_eq!(numbers.len(), COUNT, "doubled: {context}");
    }
}

fn remote_broker(protocol: &str) -> Broker {
    if protocol == "petrel" { Broker::petrel("") } else { Broker::mosquitto("") }
}

fn outgoing(protocol: &str, remote_kind: &str) {
    let remote = remote_broker(remote_kind);
    let far = Subscriber::new(&remote, &["-t", "x", "-q", "2", "-F", "%p"]);
    let local = Broker::petrel("");
    let mut seen = 0;
    for qos in [1, 2] {
        for (stage, cut) in stages(qos).into_iter().enumerate() {
            let proxy = Proxy::start(remote.port, Some(cut), 3);
            let own_name = format!("client_id = \"b-{qos}-{stage}\"");
            local.add_bridge(&bridge(proxy.port, protocol, &[&format!("x out {qos}")], &own_name));
            local.wait_connected("b");
            local.publish_lines("x", qos, (0..COUNT).map(|number| number.to_string()));
            eventually("all cuts happened and all crossed", || {
                proxy.cuts() == 3 && local.bridge("b", "queue_messages") == 0
            });
            let end = format!("end {qos} {cut:?}");
            remote.publish(&["-t", "x", "-q", "2", "-m", &end]);
            let lines = far.wait_for_end(&end);
            check(&lines[seen..], qos, cut, protocol);
            seen = lines.len() + 1;
            local.ctl(&["bridge", "remove", "b", "--purge"]).unwrap();
        }
    }
}

fn incoming(protocol: &str, remote_kind: &str) {
    let remote = remote_broker(remote_kind);
    let local = Broker::petrel("");
    let near = Subscriber::new(&local, &["-t", "x", "-q", "2", "-F", "%p"]);
    let mut seen = 0;
    for qos in [1, 2] {
        for (stage, mut cut) in stages(qos).into_iter().enumerate() {
            cut.from_client = !cut.from_client;
            let proxy = Proxy::start(remote.port, Some(cut), 3);
            let own_name = format!("client_id = \"b-{qos}-{stage}\"");
            local.add_bridge(&bridge(proxy.port, protocol, &[&format!("x in {qos}")], &own_name));
            local.wait_connected("b");
            remote.publish_lines("x", qos, (0..COUNT).map(|number| number.to_string()));
            near.wait_for(seen + COUNT);
            eventually("all cuts happened", || proxy.cuts() == 3);
            let end = format!("end {qos} {cut:?}");
            remote.publish(&["-t", "x", "-q", "2", "-m", &end]);
            let lines = near.wait_for_end(&end);
            check(&lines[seen..], qos, cut, protocol);
            seen = lines.len() + 1;
            local.ctl(&["bridge", "remove", "b", "--purge"]).unwrap();
        }
    }
}

#[test]
fn outgoing_messages_survive_cuts_at_every_stage() {
    if has_mosquitto() {
        outgoing("5.0", "mosquitto");
    }
}

#[test]
fn outgoing_messages_survive_cuts_at_every_stage_in_311() {
    if has_mosquitto() {
        outgoing("3.1.1", "mosquitto");
    }
}

#[test]
fn outgoing_messages_to_petrel_survive_cuts_at_every_stage() {
    if has_mosquitto() {
        outgoing("5.0", "petrel");
    }
}

#[test]
fn incoming_messages_survive_cuts_at_every_stage() {
    if has_mosquitto() {
        incoming("5.0", "mosquitto");
    }
}

#[test]
fn incoming_messages_survive_cuts_at_every_stage_in_311() {
    if has_mosquitto() {
        incoming("3.1.1", "mosquitto");
    }
}

#[test]
fn incoming_messages_from_petrel_survive_cuts_at_every_stage() {
    if has_mosquitto() {
        incoming("5.0", "petrel");
    }
}

/// Several connections: the order per topic holds, and QoS 2 still comes once.
#[test]
fn several_connections_keep_the_order_per_topic() {
    if !has_mosquitto() {
        return;
    }
    let remote = Broker::mosquitto("");
    let cut = Cut { packet: PUBREL, from_client: true, after: true };
    let proxy = Proxy::start(remote.port, Some(cut), 3);
    let far = Subscriber::new(&remote, &["-t", "many/#", "-q", "2", "-F", "%t %p"]);
    let local = Broker::petrel(&bridge(proxy.port, "5.0", &["many/# out 2"], "connections = 4"));
    local.wait_connected("b");
    for topic in 0..8 {
        local.publish_lines(
            &format!("many/{topic}"),
            2,
            (0..COUNT).map(|number| number.to_string()),
        );
    }
    far.wait_for(8 * COUNT);
    let lines = far.settle();
    assert_eq!(lines.len(), 8 * COUNT);
    for topic in 0..8 {
        let prefix = format!("many/{topic} ");
        let own = lines.iter().filter_map(|line| line.strip_prefix(&prefix));
        let numbers: Vec<usize> = own.map(|number| number.parse().unwrap()).collect();
        assert_eq!(numbers, (0..COUNT).collect::<Vec<_>>(), "many/{topic}");
    }
    assert_eq!(proxy.cuts(), 3);
}

/// A bridge that is new here but has a Session at the remote broker, left in the middle of its exchanges: what that
/// Session still holds means nothing to the new one, whose identifiers begin again.
#[test]
fn a_new_bridge_with_the_name_of_an_old_one_loses_nothing() {
    if !has_mosquitto() {
        return;
    }
    side_by_side(&[("petrel", "5.0"), ("mosquitto", "5.0"), ("mosquitto", "3.1.1")], |case| {
        let (kind, protocol) = *case;
        let remote = remote_broker(kind);
        let far = Subscriber::new(&remote, &["-t", "x", "-q", "2", "-F", "%p"]);
        // The PUBREL that is due never arrives: the remote Session keeps what it answered with PUBREC.
        let cut = Cut { packet: PUBREL, from_client: true, after: false };
        let proxy = Proxy::start(remote.port, Some(cut), u32::MAX);
        let local = Broker::petrel(&bridge(proxy.port, protocol, &["x out 2"], ""));
        local.wait_connected("b");
        local.publish_lines("x", 2, (0..COUNT).map(|number| format!("old {number}")));
        eventually("it was cut", || proxy.cuts() > 1);
        local.ctl(&["bridge", "remove", "b", "--purge"]).unwrap();
        local.add_bridge(&bridge(remote.port, protocol, &["x out 2"], ""));
        local.wait_connected("b");
        local.publish_lines("x", 2, (0..COUNT).map(|number| format!("new {number}")));
        let last = format!("new {}", COUNT - 1);
        let lines = far.wait_for_end(&last);
        let new: Vec<&String> = lines.iter().filter(|line| line.starts_with("new")).collect();
        let expected: Vec<String> = (0..COUNT - 1).map(|number| format!("new {number}")).collect();
        assert_eq!(new, expected.iter().collect::<Vec<_>>(), "{kind} {protocol}");
    });
}

/// `kill -9` of the broker that has the bridge, again and again, while messages flow both ways.
#[test]
fn kill_of_the_bridging_broker_loses_nothing_and_doubles_no_qos_2() {
    if !has_mosquitto() {
        return;
    }
    let remote = Broker::mosquitto("");
    let far = Subscriber::new(&remote, &["-t", "up", "-q", "2", "-F", "%p"]);
    let slow = "rate_messages = 40";
    let mut local = Broker::petrel(&bridge(remote.port, "5.0", &["up out 2", "down in 2"], slow));
    local.wait_connected("b");
    local.publish_lines("up", 2, (0..COUNT).map(|number| number.to_string()));
    for _ in 0..4 {
        std::thread::sleep(std::time::Duration::from_millis(250));
        local.kill();
        local.restart();
        local.wait_connected("b");
    }
    far.wait_for(COUNT);
    let numbers: Vec<usize> = far.settle().iter().map(|line| line.parse().unwrap()).collect();
    assert_eq!(numbers, (0..COUNT).collect::<Vec<_>>());
}
