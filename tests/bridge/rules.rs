//! What crosses a bridge and what it looks like on the other side.

use crate::process::{Broker, Subscriber, bridge, eventually, has_mosquitto, side_by_side};

/// The remote broker of a test: another Petrel, or a mosquitto.
#[derive(Clone, Copy)]
enum Kind {
    Petrel,
    Mosquitto,
}

fn remote(kind: Kind) -> Broker {
    match kind {
        Kind::Petrel => Broker::petrel(""),
        Kind::Mosquitto => Broker::mosquitto(""),
    }
}

fn every_combination(test: impl Fn(Kind, &str) + Sync) {
    if !has_mosquitto() {
        return;
    }
    for kind in [Kind::Petrel, Kind::Mosquitto] {
        side_by_side(&["5.0", "3.1.1", "3.1"], |protocol| test(kind, protocol));
    }
}

#[test]
fn every_rule_form_in_both_directions_at_every_qos() {
    every_combination(|kind, protocol| {
        let remote = remote(kind);
        let rules = [
            "plain out",
            "exact/+ out 1 l/ r/",
            "down/# in 2 l/ r/",
            "both/# both 2 left/ right/",
            "\"\" both 1 here there",
            "cut/# out 2 pre/ \"\"",
            "add/# in 0 \"\" far/",
        ];
        let extra = if protocol == "3.1" { "client_id = \"short\"" } else { "" };
        let local = Broker::petrel(&bridge(remote.port, protocol, &rules, extra));
        local.wait_connected("b");
        let far = Subscriber::new(&remote, &["-t", "#", "-q", "2", "-F", "%t %q %p"]);
        let near = Subscriber::new(&local, &["-t", "#", "-q", "2", "-F", "%t %q %p"]);
        let mut expected_far = Vec::new();
        let mut expected_near = Vec::new();
        for qos in 0..=2_u8 {
            let q = qos.to_string();
            let payload = format!("{protocol}-{qos}");
            for (topic, there, most) in [
                ("plain", "plain", 0),
                ("l/exact/a", "r/exact/a", 1),
                ("left/both/x/y", "right/both/x/y", 2),
                ("here", "there", 1),
                ("pre/cut/z", "cut/z", 2),
            ] {
                local.publish(&["-t", topic, "-q", &q, "-m", &payload]);
                expected_near.push(format!("{topic} {qos} {payload}"));
                expected_far.push(format!("{there} {} {payload}", qos.min(most)));
            }
            for (topic, here, most) in [
                ("r/down/a", "l/down/a", 2),
                ("right/both/back", "left/both/back", 2),
                ("there", "here", 1),
                ("far/add/b", "add/b", 0),
            ] {
                let payload = format!("back-{payload}");
                remote.publish(&["-t", topic, "-q", &q, "-m", &payload]);
                expected_far.push(format!("{topic} {qos} {payload}"));
                expected_near.push(format!("{here} {} {payload}", qos.min(most)));
            }
        }
        far.wait_for(expected_far.len());
        near.wait_for(expected_near.len());
        let settled = Subscriber::settle_all(&[&far, &near]);
        for (mut lines, mut expected) in settled.into_iter().zip([expected_far, expected_near]) {
            lines.sort();
            expected.sort();
            assert_eq!(lines, expected, "{protocol}");
        }
    });
}

#[test]
fn retained_messages_cross_set_replaced_and_cleared() {
    every_combination(|kind, protocol| {
        let remote = remote(kind);
        remote.publish(&["-t", "in/old", "-r", "-q", "1", "-m", "there before"]);
        let extra = if protocol == "3.1" { "client_id = \"short\"" } else { "" };
        let topics = ["out/# out 1", "in/# in 1"];
        let local = Broker::petrel(&bridge(remote.port, protocol, &topics, extra));
        local.publish(&["-t", "out/old", "-r", "-q", "1", "-m", "here before"]);
        local.wait_connected("b");
        local.publish(&["-t", "out/new", "-r", "-q", "1", "-m", "first"]);
        local.publish(&["-t", "out/new", "-r", "-q", "1", "-m", "second"]);
        local.publish(&["-t", "out/gone", "-r", "-q", "1", "-m", "soon gone"]);
        local.publish(&["-t", "out/gone", "-r", "-q", "1", "-n"]);
        local.publish(&["-t", "out/last", "-q", "1", "-m", "end"]);
        eventually("the last message has crossed", || local.bridge("b", "queue_messages") == 0);
        eventually("retained messages are there", || {
            let late = Subscriber::new(&remote, &["-t", "out/#", "-F", "%t %r %p"]);
            let mut lines = late.settle();
            lines.sort();
            lines == ["out/new 1 second", "out/old 1 here before"]
        });
        let late = Subscriber::new(&local, &["-t", "in/#", "-F", "%t %r %p"]);
        let lines = late.wait_for(1);
        // A 3.x broker without the bridge bit delivers live messages without RETAIN; this one was sent on SUBSCRIBE.
        assert_eq!(lines, ["in/old 1 there before"], "{protocol}");
    });
}

#[test]
fn properties_cross_unchanged_but_for_names_and_expiry() {
    if !has_mosquitto() {
        return;
    }
    for kind in [Kind::Petrel, Kind::Mosquitto] {
        let remote = remote(kind);
        let topics = ["ask/# out 2 here/ there/", "answer/# in 2 here/ there/"];
        let local = Broker::petrel(&bridge(remote.port, "5.0", &topics, ""));
        local.wait_connected("b");
        let far = Subscriber::new(&remote, &["-V", "5", "-t", "there/#", "-q", "2", "-F", "%j"]);
        let near =
            Subscriber::new(&local, &["-V", "5", "-t", "here/answer/#", "-q", "2", "-F", "%j"]);
        let properties = [
            "-D",
            "publish",
            "content-type",
            "text/plain",
            "-D",
            "publish",
            "payload-format-indicator",
            "1",
            "-D",
            "publish",
            "correlation-data",
            "c0rr",
            "-D",
            "publish",
            "message-expiry-interval",
            "100",
            "-D",
            "publish",
            "user-property",
            "k",
            "1",
            "-D",
            "publish",
            "user-property",
            "a",
            "2",
            "-D",
            "publish",
            "user-property",
            "k",
            "3",
        ];
        let common = ["-V", "5", "-q", "2", "-m", "hello"];
        let ask = ["-t", "here/ask/x", "-D", "publish", "response-topic", "here/answer/7"];
        local.publish(&[&common[..], &ask, &properties].concat());
        let line = far.wait_for(1).remove(0);
        let message: serde_json::Value = serde_json::from_str(&line).unwrap();
        let found = &message["properties"];
        assert_eq!(message["topic"], "there/ask/x");
        assert_eq!(found["response-topic"], "there/answer/7", "{message}");
        assert_eq!(found["content-type"], "text/plain");
        assert_eq!(found["payload-format-indicator"], 1);
        assert_eq!(found["correlation-data"], "c0rr");
        let expiry = found["message-expiry-interval"].as_u64().unwrap();
        assert!((90..=100).contains(&expiry), "{expiry}");
        // The names repeat, so the order shows only in the text.
        let order: Vec<_> = ["\"k\":\"1\"", "\"a\":\"2\"", "\"k\":\"3\"", "petrel-hops"]
            .map(|part| line.find(part).unwrap_or_else(|| panic!("{part} is not in {line}")))
            .to_vec();
        assert!(order.is_sorted(), "{line}");
        let answer = ["-t", "there/answer/7", "-D", "publish", "response-topic", "there/ask/y"];
        remote.publish(&[&common[..], &answer, &properties].concat());
        let message: serde_json::Value = serde_json::from_str(&near.wait_for(1)[0]).unwrap();
        assert_eq!(message["properties"]["response-topic"], "here/ask/y", "{message}");
    }
}

#[test]
fn mosquitto_bridges_to_petrel() {
    if !has_mosquitto() {
        return;
    }
    side_by_side(&["mqttv50", "mqttv311", "mqttv31"], |version| {
        let petrel = Broker::petrel("");
        let mosquitto = Broker::mosquitto(&format!(
            "connection m\nremote_clientid mosq\naddress 127.0.0.1:{}\nbridge_protocol_version {version}\n\
             topic up/# out 2 l/ r/\ntopic down/# in 1 l/ r/\ntopic both/# both 2\n",
            petrel.port
        ));
        let near = Subscriber::new(&mosquitto, &["-t", "#", "-q", "2", "-F", "%t %p"]);
        let far = Subscriber::new(&petrel, &["-t", "#", "-q", "2", "-F", "%t %p"]);
        let state =
            Subscriber::new(&petrel, &["-t", "$SYS/broker/connection/mosq/state", "-F", "%p"]);
        eventually("the bridge of mosquitto is up", || {
            state.lines().last().is_some_and(|l| l == "1")
        });
        mosquitto.publish(&["-t", "l/up/1", "-q", "2", "-m", "a"]);
        mosquitto.publish(&["-t", "both/1", "-q", "2", "-m", "b"]);
        petrel.publish(&["-t", "r/down/1", "-q", "1", "-m", "c"]);
        petrel.publish(&["-t", "both/2", "-q", "2", "-m", "d"]);
        let mut lines = [far.wait_for(4), near.wait_for(4)];
        lines.iter_mut().for_each(|lines| lines.sort());
        assert_eq!(lines[0], ["both/1 b", "both/2 d", "r/down/1 c", "r/up/1 a"], "{version}");
        assert_eq!(lines[1], ["both/1 b", "both/2 d", "l/down/1 c", "l/up/1 a"], "{version}");
        let settled = Subscriber::settle_all(&[&far, &near]);
        assert_eq!((settled[0].len(), settled[1].len()), (4, 4), "{version}");
    });
}

#[test]
fn notifications_tell_the_state_on_both_sides() {
    if !has_mosquitto() {
        return;
    }
    let remote = Broker::mosquitto("");
    let mut local = Broker::petrel(&bridge(
        remote.port,
        "5.0",
        &["a out"],
        "client_id = \"me\"\nkeep_alive = \"5s\"",
    ));
    let topic = "$SYS/broker/connection/me/state";
    let far = Subscriber::new(&remote, &["-t", topic, "-F", "%p"]);
    let near = Subscriber::new(&local, &["-t", topic, "-F", "%p"]);
    eventually("both know it is up", || {
        [&far, &near].iter().all(|side| side.lines().last().is_some_and(|line| line == "1"))
    });
    local.ctl(&["bridge", "pause", "b"]).unwrap();
    eventually("both know it is down", || {
        [&far, &near].iter().all(|side| side.lines().last().is_some_and(|line| line == "0"))
    });
    local.ctl(&["bridge", "resume", "b"]).unwrap();
    eventually("up again", || far.lines().last().is_some_and(|line| line == "1"));
    local.kill();
    eventually("the will tells of the death", || {
        far.lines().last().is_some_and(|line| line == "0")
    });
}
