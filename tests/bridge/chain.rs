//! A bridge in the middle of a chain: every message of one broker reaches the next, however often it is repeated.

use std::time::Duration;

use crate::options::metrics;
use crate::port::free_port;
use crate::process::{Broker, Subscriber, bridge, eventually, has_mosquitto, side_by_side};

/// As a sensor that has nothing new to say: 20 times a second.
fn repeat(broker: &Broker, qos: &str, count: usize) {
    let count = count.to_string();
    broker.publish(&[
        "-t",
        "s/value",
        "-q",
        qos,
        "-m",
        "20",
        "--repeat",
        &count,
        "--repeat-delay",
        "0.05",
    ]);
}

fn count(lines: &[String]) -> usize {
    lines.iter().filter(|line| *line == "20").count()
}

struct Chain {
    version: &'static str,
    ours: &'static str,
    hands_in: &'static str,
    hands_on: &'static str,
    extra: &'static str,
}

/// mosquitto, its bridge to Petrel, Petrel's bridge to another mosquitto.
fn assert_chain(chain: &Chain) {
    let Chain { version, ours, hands_in, hands_on, extra } = chain;
    let end = Broker::mosquitto("");
    let middle = Broker::petrel(&bridge(end.port, ours, &[hands_on], extra));
    middle.wait_connected("b");
    let start = Broker::mosquitto(&format!(
        "connection m\nremote_clientid m\naddress 127.0.0.1:{}\nbridge_protocol_version {version}\n\
         restart_timeout 1\ntopic s/# {hands_in}\n",
        middle.port
    ));
    let arguments = ["-t", "s/#", "-q", "2", "-F", "%p"];
    let far = Subscriber::new(&end, &arguments);
    let near = Subscriber::new(&middle, &arguments);
    eventually("the first bridge is up", || {
        start.publish(&["-t", "s/up", "-q", "1", "-m", "up"]);
        !near.lines().is_empty()
    });
    let qos = hands_in.rsplit(' ').next().unwrap_or_default();
    repeat(&start, qos, 100);
    start.publish(&["-t", "s/end", "-q", "1", "-m", "end"]);
    eventually(&format!("100 arrive: {version} {ours} {hands_in} {hands_on}"), || {
        count(&far.lines()) >= 100 && count(&near.lines()) >= 100
    });
    for lines in Subscriber::settle_all(&[&far, &near]) {
        assert_eq!(count(&lines), 100, "{version} {ours} {hands_in} {hands_on}");
    }
    let drops = middle.ctl(&["bridge", "show", "b"]).unwrap()["drops"].to_string();
    assert!(drops.contains("[\"loop\",0]"), "{drops}");
}

/// An acknowledged message was dropped because it looked like the one before: 50 of these arrived.
#[test]
fn a_value_that_is_repeated_passes_two_bridges() {
    if !has_mosquitto() {
        return;
    }
    let chain = |version, ours, hands_in, hands_on, extra| Chain {
        version,
        ours,
        hands_in,
        hands_on,
        extra,
    };
    let chains = [
        chain("mqttv311", "3.1.1", "out 1", "# out 1", ""),
        chain("mqttv311", "3.1.1", "both 1", "# out 1", ""),
        chain("mqttv311", "3.1.1", "out 1", "# both 1", ""),
        chain("mqttv311", "3.1.1", "both 2", "# both 2", ""),
        chain("mqttv311", "3.1.1", "out 0", "# out 0", ""),
        chain("mqttv311", "3.1.1", "out 1", "# both 1", "private = false"),
        chain("mqttv50", "5.0", "out 1", "# out 1", ""),
        chain("mqttv50", "5.0", "both 2", "# both 2", ""),
        chain("mqttv50", "3.1.1", "both 0", "# both 0", ""),
    ];
    side_by_side(&chains, assert_chain);
}

/// Both bridges are mosquitto's, and Petrel stands between them.
#[test]
fn a_value_that_is_repeated_passes_between_two_bridges_of_mosquitto() {
    if !has_mosquitto() {
        return;
    }
    let cases = ["mqttv311", "mqttv50"].iter().flat_map(|version| {
        ["0", "1", "2"].into_iter().flat_map(move |qos| {
            [("out", "in"), ("both", "both")]
                .map(|(hands_in, fetches)| (*version, qos, hands_in, fetches))
        })
    });
    let cases: Vec<_> = cases.collect();
    let middle = Broker::petrel("");
    side_by_side(&cases, |(version, qos, hands_in, fetches)| {
        let topic = format!("{version}/{qos}/{hands_in}");
        let bridge = |name: &str, direction: &str| {
            Broker::mosquitto(&format!(
                "connection m\nremote_clientid {name}{version}{qos}{hands_in}\naddress 127.0.0.1:{}\n\
                 bridge_protocol_version {version}\nrestart_timeout 1\ntopic {topic}/# {direction} {qos}\n",
                middle.port
            ))
        };
        let (start, end) = (bridge("start", hands_in), bridge("end", fetches));
        let filter = format!("{topic}/#");
        let far = Subscriber::new(&end, &["-t", &filter, "-q", "2", "-F", "%p"]);
        eventually("both bridges are up", || {
            start.publish(&["-t", &format!("{topic}/up"), "-q", "1", "-m", "up"]);
            !far.lines().is_empty()
        });
        let value = format!("{topic}/value");
        let repeat = ["--repeat", "100", "--repeat-delay", "0.02"];
        start.publish(&[&["-t", &value, "-q", qos, "-m", "20"][..], &repeat[..]].concat());
        eventually(&format!("100 arrive: {topic}"), || count(&far.lines()) >= 100);
        assert_eq!(count(&far.settle()), 100, "{topic}");
    });
}

/// A 3.x broker that does not know that we are a bridge gives back what we send: once for each message, and what others say
/// there is no echo although it is the same.
#[test]
fn as_many_echoes_are_dropped_as_messages_were_sent() {
    if !has_mosquitto() {
        return;
    }
    let far = Broker::mosquitto("");
    let near = Broker::petrel(&bridge(far.port, "3.1.1", &["s/# both 1"], "private = false"));
    near.wait_connected("b");
    let arguments = ["-t", "s/#", "-q", "1", "-F", "%p"];
    let (here, there) = (Subscriber::new(&near, &arguments), Subscriber::new(&far, &arguments));
    std::thread::scope(|scope| {
        scope.spawn(|| repeat(&near, "1", 60));
        scope.spawn(|| repeat(&far, "1", 60));
    });
    eventually("all arrive", || count(&here.lines()) >= 120 && count(&there.lines()) >= 120);
    for lines in Subscriber::settle_all(&[&here, &there]) {
        assert_eq!(count(&lines), 120);
    }
    let drops = near.ctl(&["bridge", "show", "b"]).unwrap()["drops"].to_string();
    assert!(drops.contains("[\"echo\",60]") && drops.contains("[\"loop\",0]"), "{drops}");
}

/// Whether the metrics of a broker tell of a message that circles.
fn counts_a_loop(broker: &Broker) -> bool {
    let text = metrics(broker);
    let mut lines = text.lines();
    let found = lines.find(|line| line.starts_with("petrel_bridge_loops_found_total{"));
    found.is_some_and(|line| !line.ends_with(" 0"))
}

/// A ring of 3.x links cannot be told from a sensor by what is sent, so nothing is dropped. But it is noticed and slowed.
#[test]
fn a_ring_of_3x_links_is_noticed_and_slowed() {
    if !has_mosquitto() {
        return;
    }
    side_by_side(&["out", "both"], |direction| {
        let ports = [free_port(), free_port()];
        let start = |port: u16, next: u16, name: &str| {
            let toml = bridge(next, "3.1.1", &[&format!("loop/# {direction} 1")], name);
            Broker::petrel_on(port, &toml)
        };
        let brokers = [
            start(ports[0], ports[1], "client_id = \"one\""),
            start(ports[1], ports[0], "client_id = \"two\""),
        ];
        brokers.iter().for_each(|broker| broker.wait_connected("b"));
        brokers[0].publish(&["-t", "loop/a", "-q", "1", "-m", "round"]);
        eventually("the ring is noticed", || {
            brokers.iter().any(|broker| broker.bridge("b", "loops").as_u64() > Some(0))
        });
        let finder = brokers.iter().find(|broker| broker.bridge("b", "loops").as_u64() > Some(0));
        let finder = finder.unwrap();
        assert_eq!(finder.bridge("b", "loop_topic"), "loop/a");
        assert!(finder.log().contains("is circling"), "{}", finder.log());
        assert!(counts_a_loop(finder), "{}", metrics(finder));
        let crossed = || {
            let of = |broker: &Broker, field| broker.bridge("b", field).as_u64().unwrap();
            brokers
                .iter()
                .map(|broker| of(broker, "messages_out") + of(broker, "messages_in"))
                .sum::<u64>()
        };
        // Each lap takes a fifth of a second at least; a copy may go each way round.
        eventually("it is slow", || {
            let before = crossed();
            std::thread::sleep(Duration::from_secs(2));
            crossed() - before <= 100
        });
        assert!(finder.bridge("b", "looping").as_u64() > Some(0));
        for broker in &brokers {
            let drops = broker.ctl(&["bridge", "show", "b"]).unwrap()["drops"].to_string();
            assert!(drops.contains("[\"loop\",0]") && drops.contains("[\"echo\",0]"), "{drops}");
        }
        // Others are not slowed.
        let late =
            Subscriber::new(&brokers[1], &["-t", "loop/b", "-q", "1", "-F", "%p", "-C", "1"]);
        brokers[0].publish(&["-t", "loop/b", "-q", "1", "-m", "other"]);
        late.wait_for(1);
    });
}
