//! A long absence of the remote broker, and draining the backlog.

use std::time::{Duration, Instant};

use crate::port::free_port;
use crate::probe::Probe;
use crate::process::{Broker, Subscriber, bridge, eventually, eventually_waiting, has_mosquitto};

#[test]
fn a_hundred_thousand_messages_wait_and_arrive_in_order() {
    if !has_mosquitto() {
        return;
    }
    const COUNT: usize = 100_000;
    let port = free_port();
    let mut local = Broker::petrel(&bridge(port, "5.0", &["q/# out 1"], ""));
    local.publish_lines("q/x", 1, (0..COUNT).map(|number| number.to_string()));
    eventually_waiting(&local, COUNT);
    local.kill();
    local.restart();
    eventually_waiting(&local, COUNT);
    // Not before somebody listens at the other end.
    local.ctl(&["bridge", "pause", "b"]).unwrap();
    let remote = Broker::mosquitto_on(port, "");
    let far = Subscriber::new(&remote, &["-t", "q/#", "-q", "1", "-F", "%p"]);
    let mut probe = Probe::new(local.port);
    local.ctl(&["bridge", "resume", "b"]).unwrap();
    far.wait_for(1);
    // Local clients do not wait for the drain: a hundred exchanges, one after the other, end long before it.
    // `scripts/bench_bridge.py --drain` says how long they take.
    for _ in 0..100 {
        probe.exchange();
    }
    assert!(far.lines().len() < COUNT, "a local client waited for the drain");
    let lines = far.wait_for(COUNT);
    let numbers: Vec<usize> = lines.iter().map(|line| line.parse().unwrap()).collect();
    assert_eq!(numbers, (0..COUNT).collect::<Vec<_>>());
    eventually_waiting(&local, 0);
}

#[test]
fn a_remote_that_is_killed_again_and_again_gets_everything() {
    if !has_mosquitto() {
        return;
    }
    const COUNT: usize = 400;
    let mut remote = Broker::petrel("");
    let local = Broker::petrel(&bridge(remote.port, "5.0", &["q out 1"], "rate_messages = 200"));
    local.wait_connected("b");
    // The remote Petrel keeps what it acknowledged for a session that reads later.
    drop(Subscriber::new(&remote, &["-t", "q", "-q", "1", "-i", "reader", "-c", "-F", "%p"]));
    local.publish_lines("q", 1, (0..COUNT).map(|number| number.to_string()));
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(400));
        remote.kill();
        std::thread::sleep(Duration::from_millis(300));
        remote.restart();
    }
    eventually_waiting(&local, 0);
    let reader =
        Subscriber::new(&remote, &["-t", "q", "-q", "1", "-i", "reader", "-c", "-F", "%p"]);
    reader.wait_for(COUNT);
    let numbers: Vec<usize> = reader.settle().iter().map(|line| line.parse().unwrap()).collect();
    let mut seen = std::collections::HashSet::new();
    let firsts: Vec<usize> = numbers.into_iter().filter(|number| seen.insert(*number)).collect();
    assert_eq!(firsts, (0..COUNT).collect::<Vec<_>>());
}

/// mosquitto keeps what it acknowledged over an orderly stop only.
#[test]
fn a_mosquitto_that_is_restarted_again_and_again_gets_everything() {
    if !has_mosquitto() {
        return;
    }
    const COUNT: usize = 400;
    let data = tempfile::tempdir().unwrap();
    let kept = format!("persistence true\npersistence_location {}/", data.path().display());
    let mut remote = Broker::mosquitto(&kept);
    let reads = ["-t", "q", "-q", "1", "-i", "reader", "-c", "-F", "%p"];
    drop(Subscriber::new(&remote, &reads));
    let local = Broker::petrel(&bridge(remote.port, "3.1.1", &["q out 1"], "rate_messages = 200"));
    local.wait_connected("b");
    local.publish_lines("q", 1, (0..COUNT).map(|number| number.to_string()));
    for sent in [100, 200, 300] {
        eventually("some have crossed", || {
            local.bridge("b", "messages_out").as_u64().is_some_and(|count| count >= sent)
        });
        remote.stop();
        eventually("the loss is noticed", || local.bridge("b", "state") != "connected");
        remote.restart();
    }
    eventually_waiting(&local, 0);
    let reader = Subscriber::new(&remote, &reads);
    reader.wait_for(COUNT);
    let numbers: Vec<usize> = reader.settle().iter().map(|line| line.parse().unwrap()).collect();
    let mut seen = std::collections::HashSet::new();
    let firsts: Vec<usize> = numbers.into_iter().filter(|number| seen.insert(*number)).collect();
    assert_eq!(firsts, (0..COUNT).collect::<Vec<_>>());
}

#[test]
fn qos_0_waits_only_when_configured() {
    if !has_mosquitto() {
        return;
    }
    for (stores, expected) in [(false, 0_u64), (true, 5)] {
        let port = free_port();
        let extra = format!("[bridge.queue]\nstore_qos0 = {stores}");
        let mut local = Broker::petrel(&bridge(port, "5.0", &["q out 0"], &extra));
        eventually("it tries", || local.bridge("b", "attempts").as_u64().is_some_and(|a| a > 0));
        local.publish_lines("q", 0, (0..5).map(|number| number.to_string()));
        eventually("they wait, or not", || local.bridge("b", "queue_messages") == expected);
        if stores {
            std::thread::sleep(Duration::from_millis(300));
            local.kill();
            local.restart();
        }
        local.ctl(&["bridge", "pause", "b"]).unwrap();
        let remote = Broker::mosquitto_on(port, "");
        let far = Subscriber::new(&remote, &["-t", "q", "-F", "%q %p"]);
        local.ctl(&["bridge", "resume", "b"]).unwrap();
        local.wait_connected("b");
        local.publish_lines("q", 0, std::iter::once("last".to_owned()));
        let lines = far.wait_for(1);
        if stores {
            let lines = far.wait_for(6);
            assert_eq!(lines, ["0 0", "0 1", "0 2", "0 3", "0 4", "0 last"]);
        } else {
            assert_eq!(lines, ["0 last"]);
        }
    }
}

#[test]
fn limits_of_the_queue_are_its_own() {
    if !has_mosquitto() {
        return;
    }
    let extra = "[bridge.queue]\nmax_messages = 10\noverflow = \"drop-oldest\"";
    let port = free_port();
    let local = Broker::petrel(&bridge(port, "5.0", &["q out 1"], extra));
    eventually("it tries", || local.bridge("b", "attempts").as_u64().is_some_and(|a| a > 0));
    local.publish_lines("q", 1, (0..25).map(|number| number.to_string()));
    assert_eq!(local.bridge("b", "queue_messages"), 10);
    assert_eq!(local.bridge("b", "queue_drops"), 15);
    local.ctl(&["bridge", "pause", "b"]).unwrap();
    let remote = Broker::mosquitto_on(port, "");
    let far = Subscriber::new(&remote, &["-t", "q", "-q", "1", "-F", "%p"]);
    local.ctl(&["bridge", "resume", "b"]).unwrap();
    let lines = far.wait_for(10);
    assert_eq!(lines, (15..25).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[test]
fn a_backlog_is_drained_at_the_rate_configured() {
    if !has_mosquitto() {
        return;
    }
    let port = free_port();
    let local = Broker::petrel(&bridge(port, "5.0", &["q out 1"], "rate_messages = 100"));
    eventually("it tries", || local.bridge("b", "attempts").as_u64().is_some_and(|a| a > 0));
    local.publish_lines("q", 1, (0..300).map(|number| number.to_string()));
    local.ctl(&["bridge", "pause", "b"]).unwrap();
    let remote = Broker::mosquitto_on(port, "");
    let far = Subscriber::new(&remote, &["-t", "q", "-q", "1", "-F", "%p"]);
    local.ctl(&["bridge", "resume", "b"]).unwrap();
    far.wait_for(20);
    let started = Instant::now();
    let lines = far.wait_for(300);
    let took = started.elapsed();
    assert!(took > Duration::from_millis(2200), "{took:?}");
    assert_eq!(lines, (0..300).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[test]
fn a_lazy_bridge_connects_when_enough_waits_and_leaves_when_idle() {
    if !has_mosquitto() {
        return;
    }
    let remote = Broker::mosquitto("");
    let far = Subscriber::new(&remote, &["-t", "q", "-q", "1", "-F", "%p"]);
    let extra = "start = \"lazy\"\nlazy_threshold = 5\nidle_timeout = \"1s\"";
    let local = Broker::petrel(&bridge(remote.port, "5.0", &["q out 1"], extra));
    eventually("it is idle", || local.bridge("b", "state") == "idle");
    local.publish_lines("q", 1, (0..4).map(|number| number.to_string()));
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(local.bridge("b", "attempts"), 0);
    local.publish_lines("q", 1, (4..6).map(|number| number.to_string()));
    far.wait_for(6);
    eventually("it is idle again", || local.bridge("b", "state") == "idle");
}
