//! Retained Messages that are set, changed and cleared while there is no link: afterwards both ends have what the source
//! has.

use std::collections::BTreeMap;

use crate::port::free_port;
use crate::process::{Broker, Subscriber, bridge, eventually, has_mosquitto, side_by_side};

type Retained = BTreeMap<String, String>;

/// What a broker retains.
fn retained(broker: &Broker) -> Retained {
    let last = Subscriber::new(broker, &["-t", "r/#", "-t", "here", "-F", "%t %r %p"]);
    broker.publish(&["-t", "here", "-m", "end"]);
    let lines = last.wait_for_end("here 0 end");
    let words = lines.iter().map(|line| line.splitn(3, ' ').collect::<Vec<_>>());
    words.filter(|words| words[1] == "1").map(|words| (words[0].into(), words[2].into())).collect()
}

fn of(all: &[(&str, &str)]) -> Retained {
    all.iter().map(|(topic, payload)| ((*topic).to_owned(), (*payload).to_owned())).collect()
}

fn wait_for(broker: &Broker, expected: &Retained, context: &str) {
    let mut found = Retained::new();
    let started = std::time::Instant::now();
    while found != *expected {
        assert!(
            started.elapsed() < crate::process::PATIENCE,
            "{context}: {found:?}, not {expected:?}"
        );
        found = retained(broker);
    }
}

fn set(broker: &Broker, qos: &str, topic: &str, payload: &str) {
    match payload {
        "" => broker.publish(&["-t", topic, "-r", "-q", qos, "-n"]),
        payload => broker.publish(&["-t", topic, "-r", "-q", qos, "-m", payload]),
    }
}

/// What happens while there is no link.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outage {
    Paused,
    LocalRestarts,
    LocalIsKilled,
    RemoteIsAway,
    /// It is changed after its restart, before the link is there again.
    RemoteRestarts,
    /// The same while the link comes back.
    RemoteComesBack,
}

struct Case {
    protocol: &'static str,
    rule: &'static str,
    /// QoS of what is published.
    qos: &'static str,
    outage: Outage,
}

fn cases(rules: &[&'static str], outages: &[Outage]) -> Vec<Case> {
    let mut cases = Vec::new();
    for protocol in ["5.0", "3.1.1"] {
        for rule in rules {
            for qos in ["0", "1"] {
                for outage in outages {
                    cases.push(Case { protocol, rule, qos, outage: *outage });
                }
            }
        }
    }
    cases
}

/// Lets `change` happen while there is no link.
fn without_link(
    local: &mut Broker,
    remote: &mut Broker,
    outage: Outage,
    change: impl Fn(&Broker, &Broker),
) {
    match outage {
        Outage::Paused => {
            local.ctl(&["bridge", "pause", "b"]).unwrap();
            change(local, remote);
            local.ctl(&["bridge", "resume", "b"]).unwrap();
        }
        Outage::LocalRestarts | Outage::LocalIsKilled => {
            local.ctl(&["bridge", "pause", "b"]).unwrap();
            change(local, remote);
            match outage {
                Outage::LocalRestarts => local.stop(),
                _ => local.kill(),
            }
            local.restart();
        }
        Outage::RemoteIsAway => {
            remote.stop();
            eventually("the loss is noticed", || local.bridge("b", "state") != "connected");
            change(local, remote);
            remote.restart();
        }
        Outage::RemoteRestarts => {
            local.ctl(&["bridge", "pause", "b"]).unwrap();
            remote.stop();
            remote.restart();
            change(local, remote);
            local.ctl(&["bridge", "resume", "b"]).unwrap();
        }
        Outage::RemoteComesBack => {
            remote.stop();
            eventually("the loss is noticed", || local.bridge("b", "state") != "connected");
            remote.restart();
            change(local, remote);
        }
    }
    local.wait_connected("b");
}

#[test]
fn what_is_set_changed_and_cleared_here_is_so_there() {
    if !has_mosquitto() {
        return;
    }
    let outages =
        [Outage::Paused, Outage::LocalRestarts, Outage::LocalIsKilled, Outage::RemoteIsAway];
    for rules in [["r/# out 0", "r/# both 0"], ["r/# out 1", "r/# both 1"]] {
        side_by_side(&cases(&rules, &outages), |case| {
            let context = format!("{} {} {} {:?}", case.protocol, case.rule, case.qos, case.outage);
            let data = tempfile::tempdir().unwrap();
            let kept = format!("persistence true\npersistence_location {}/", data.path().display());
            let mut remote = Broker::mosquitto_on(free_port(), &kept);
            let toml = bridge(remote.port, case.protocol, &[case.rule], "");
            let mut local = Broker::petrel(&toml);
            local.wait_connected("b");
            let before = [("r/old", "1"), ("r/changed", "1"), ("r/gone", "1"), ("r/back", "1")];
            before.iter().for_each(|(topic, payload)| set(&local, case.qos, topic, payload));
            wait_for(&remote, &of(&before), &context);
            let after = of(&[("r/old", "1"), ("r/changed", "3"), ("r/new", "1"), ("r/back", "2")]);
            without_link(&mut local, &mut remote, case.outage, |local, _| {
                for (topic, payload) in [
                    ("r/changed", "2"),
                    ("r/changed", "3"),
                    ("r/gone", ""),
                    ("r/new", "1"),
                    ("r/back", ""),
                    ("r/back", "2"),
                    ("r/short", "1"),
                    ("r/short", ""),
                ] {
                    set(local, case.qos, topic, payload);
                }
                // QoS 0 is promised by nobody; what stands before a message that is, is on disk with it.
                wait_for(local, &after, &context);
                local.publish(&["-t", "sync", "-r", "-q", "1", "-m", "x"]);
            });
            wait_for(&remote, &after, &context);
            wait_for(&local, &after, &context);
        });
    }
}

#[test]
fn what_is_set_and_changed_there_is_so_here() {
    if !has_mosquitto() {
        return;
    }
    let outages = [Outage::Paused, Outage::LocalRestarts];
    side_by_side(&cases(&["r/# in 0", "r/# both 0", "r/# in 1", "r/# both 1"], &outages), |case| {
        let context = format!("{} {} {} {:?}", case.protocol, case.rule, case.qos, case.outage);
        let mut remote = Broker::mosquitto("");
        let toml = bridge(remote.port, case.protocol, &[case.rule], "");
        let mut local = Broker::petrel(&toml);
        local.wait_connected("b");
        let before = [("r/old", "1"), ("r/changed", "1"), ("r/gone", "1")];
        before.iter().for_each(|(topic, payload)| set(&remote, case.qos, topic, payload));
        wait_for(&local, &of(&before), &context);
        let is_queued = case.qos == "1" && case.rule.ends_with('1');
        without_link(&mut local, &mut remote, case.outage, |_, remote| {
            for (topic, payload) in [("r/changed", "2"), ("r/changed", "3"), ("r/new", "1")] {
                set(remote, case.qos, topic, payload);
            }
            if is_queued {
                set(remote, case.qos, "r/gone", "");
            }
        });
        let mut after = of(&[("r/old", "1"), ("r/changed", "3"), ("r/new", "1"), ("r/gone", "1")]);
        if is_queued {
            after.remove("r/gone");
        }
        wait_for(&local, &after, &context);
        wait_for(&remote, &after, &context);
    });
}

/// The remote broker itself was restarted and has other values by the time of the link: with its old ones on disk, or
/// without them, and then others set them again.
#[test]
fn what_a_remote_broker_has_after_its_restart_is_so_here() {
    if !has_mosquitto() {
        return;
    }
    let outages = [Outage::RemoteRestarts, Outage::RemoteComesBack];
    for remembers in [true, false] {
        side_by_side(&cases(&["r/# in 0", "r/# in 1"], &outages), |case| {
            let context = format!(
                "{} {} {} {:?} {remembers}",
                case.protocol, case.rule, case.qos, case.outage
            );
            let data = tempfile::tempdir().unwrap();
            let kept = format!("persistence true\npersistence_location {}/", data.path().display());
            let kept = if remembers { kept.as_str() } else { "" };
            let mut remote = Broker::mosquitto_on(free_port(), kept);
            let toml = bridge(remote.port, case.protocol, &[case.rule], "");
            let mut local = Broker::petrel(&toml);
            local.wait_connected("b");
            let before = [("r/old", "1"), ("r/changed", "1"), ("r/other", "1")];
            before.iter().for_each(|(topic, payload)| set(&remote, case.qos, topic, payload));
            wait_for(&local, &of(&before), &context);
            let after = [("r/old", "1"), ("r/changed", "3"), ("r/new", "1"), ("r/other", "2")];
            without_link(&mut local, &mut remote, case.outage, |_, remote| {
                set(remote, case.qos, "r/changed", "2");
                let missing = after.iter().filter(|(topic, _)| !remembers || *topic != "r/old");
                missing.for_each(|(topic, payload)| set(remote, case.qos, topic, payload));
            });
            wait_for(&local, &of(&after), &context);
            wait_for(&remote, &of(&after), &context);
        });
    }
}

/// Both sides change something: what is newer here must not be replaced by what is older there.
#[test]
fn what_both_sides_changed_is_the_same_afterwards() {
    if !has_mosquitto() {
        return;
    }
    side_by_side(
        &cases(&["r/# both 0", "r/# both 1"], &[Outage::Paused, Outage::LocalRestarts]),
        |case| {
            let context = format!("{} {} {} {:?}", case.protocol, case.rule, case.qos, case.outage);
            let mut remote = Broker::mosquitto("");
            let mut local = Broker::petrel(&bridge(remote.port, case.protocol, &[case.rule], ""));
            local.wait_connected("b");
            let before = [("r/here", "1"), ("r/there", "1"), ("r/cleared", "1")];
            before.iter().for_each(|(topic, payload)| set(&local, case.qos, topic, payload));
            wait_for(&remote, &of(&before), &context);
            without_link(&mut local, &mut remote, case.outage, |local, remote| {
                set(local, case.qos, "r/here", "2");
                set(local, case.qos, "r/cleared", "");
                set(remote, case.qos, "r/there", "2");
            });
            let after = of(&[("r/here", "2"), ("r/there", "2")]);
            wait_for(&local, &after, &context);
            wait_for(&remote, &after, &context);
        },
    );
}
