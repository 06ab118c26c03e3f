//! Start types, several addresses, exclusions, and what an operator sees.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::port::free_port;
use crate::process::{Broker, Subscriber, bridge, eventually, has_mosquitto};

#[test]
fn start_type_once_tries_once_and_manual_waits_for_a_command() {
    let port = free_port();
    let local = Broker::petrel(&bridge(port, "5.0", &["q out 1"], "start = \"once\""));
    eventually("its turn is over", || {
        local.bridge("b", "state") == "idle" && local.bridge("b", "attempts") == 1
    });
    let manual = Broker::petrel(&bridge(port, "5.0", &["q out 1"], "start = \"manual\""));
    eventually("it waits", || manual.bridge("b", "state") == "idle");
    let remote = Broker::petrel_on(port, "");
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(local.bridge("b", "attempts"), 1, "once");
    assert_eq!(manual.bridge("b", "attempts"), 0, "manual");
    manual.ctl(&["bridge", "resume", "b"]).unwrap();
    manual.wait_connected("b");
    drop(remote);
}

#[test]
fn round_robin_goes_on_to_the_next_address_and_stays_there() {
    if !has_mosquitto() {
        return;
    }
    let ports = [free_port(), free_port()];
    let first = Broker::mosquitto_on(ports[0], "");
    let second = Broker::mosquitto_on(ports[1], "");
    let extra = "round_robin = true\nprimary_retry = \"1s\"";
    let toml = bridge(ports[0], "5.0", &["q out 1"], extra)
        .replace("addresses = [", &format!("addresses = [\"127.0.0.1:{}\", ", ports[0]))
        .replacen(
            &format!("\"127.0.0.1:{}\"]", ports[0]),
            &format!("\"127.0.0.1:{}\"]", ports[1]),
            1,
        );
    let local = Broker::petrel(&toml);
    local.wait_connected("b");
    let serves = |port: u16| {
        let address = local.bridge("b", "address").as_str().unwrap_or_default().to_owned();
        address.ends_with(&port.to_string()) && local.bridge("b", "state") == "connected"
    };
    assert!(serves(ports[0]));
    drop(first);
    eventually("the second one serves", || serves(ports[1]));
    let _first = Broker::mosquitto_on(ports[0], "");
    std::thread::sleep(std::time::Duration::from_millis(2500));
    assert!(serves(ports[1]), "it does not return");
    assert_eq!(local.bridge("b", "connects"), 2);
    drop(second);
}

#[test]
fn what_is_excluded_does_not_cross() {
    if !has_mosquitto() {
        return;
    }
    let remote = Broker::mosquitto("");
    let extra = "exclude = [\"l/secret/#\", \"l/up/# in\"]";
    let local = Broker::petrel(&bridge(remote.port, "5.0", &["# both 1 l/ r/"], extra));
    local.wait_connected("b");
    let far = Subscriber::new(&remote, &["-t", "r/#", "-q", "1", "-F", "%t"]);
    let near = Subscriber::new(&local, &["-t", "l/#", "-q", "1", "-F", "%t"]);
    for topic in ["l/secret/a", "l/up/a", "l/end"] {
        local.publish(&["-t", topic, "-q", "1", "-m", "x"]);
    }
    assert_eq!(far.wait_for_end("r/end"), ["r/up/a"]);
    for topic in ["r/secret/b", "r/up/b", "r/down/b", "r/last"] {
        remote.publish(&["-t", topic, "-q", "1", "-m", "x"]);
    }
    assert_eq!(near.wait_for_end("l/last"), ["l/secret/a", "l/up/a", "l/end", "l/down/b"]);
    let drops = local.ctl(&["bridge", "show", "b"]).unwrap()["drops"].clone();
    assert!(drops.to_string().contains("[\"excluded\",3]"), "{drops}");
}

pub fn metrics(broker: &Broker) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", broker.http_port)).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn the_state_of_a_bridge_is_in_metrics_and_on_sys() {
    if !has_mosquitto() {
        return;
    }
    let port = free_port();
    let local = Broker::petrel(&bridge(port, "5.0", &["q out 1"], ""));
    let sys = Subscriber::new(&local, &["-t", "$SYS/broker/bridge/b/#", "-F", "%t %p"]);
    let says = |name: &str, value: &str| {
        let start = format!("$SYS/broker/bridge/b/{name} ");
        sys.lines()
            .iter()
            .rfind(|line| line.starts_with(&start))
            .is_some_and(|line| line[start.len()..].contains(value))
    };
    eventually("the error is there in words", || says("last error", "Connection refused"));
    local.publish_lines("q", 1, (0..3).map(|number| number.to_string()));
    eventually("what waits is told", || says("queue/messages", "3") && says("connected", "0"));
    let text = metrics(&local);
    for line in
        ["petrel_bridge_connected{bridge=\"b\"} 0", "petrel_bridge_queue_messages{bridge=\"b\"} 3"]
    {
        assert!(text.contains(line), "{line} in {text}");
    }
    let remote = Broker::mosquitto_on(port, "");
    local.wait_connected("b");
    eventually("it is told that they crossed", || {
        says("messages/sent", "3") && says("queue/messages", "0") && says("state", "connected")
    });
    let text = metrics(&local);
    for line in [
        "petrel_bridge_connected{bridge=\"b\"} 1",
        "petrel_bridge_messages_sent_total{bridge=\"b\"} 3",
        "petrel_bridge_connects_total{bridge=\"b\"} 1",
        "petrel_bridge_dropped_total{bridge=\"b\",reason=\"loop\"} 0",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    drop(remote);
    local.ctl(&["bridge", "remove", "b"]).unwrap();
    eventually("a bridge that was removed leaves no topics", || {
        let late =
            Subscriber::new(&local, &["-t", "$SYS/broker/bridge/#", "-t", "here", "-F", "%t"]);
        local.publish(&["-t", "here", "-m", "x"]);
        late.wait_for_end("here").is_empty()
    });
}
