//! Topics that begin with `$`: ordinary topics, unless the first level is reserved.

use crate::broker::{Broker, configured, eventually, unique};
use crate::client::Client;
use crate::packet::{
    ALL, CONNACK, Connect, OLD, PUBACK, Properties, Publish, SUBACK, V5, V311, Will, subscribe,
};

/// AWS and Azure devices live below such topics. Once PUBLISH to them was refused (and acknowledged and dropped before 5.0),
/// while SUBSCRIBE was granted. [MQTT-4.7.2-1]
#[test]
fn topics_below_dollar_are_ordinary_ones() {
    for version in ALL {
        for root in ["$aws", "$iothub", "$", "$SYSTEM", "$sys", "$edge\u{e9}"] {
            let prefix = format!("{root}/{}", unique("d"));
            let mut named = Client::new(version);
            named.subscribe(&format!("{prefix}/+"), 1);
            let mut leading = Client::new(version);
            leading.subscribe("#", 0);
            leading.subscribe("+/+/a", 0);
            let mut device = Client::new(version);
            let topic = format!("{prefix}/a");
            device.publish_with(Publish::new(&topic, "state").qos(1, 0).retain());
            assert_eq!(named.expect_message("state").name(), topic);
            let mut late = Client::new(version);
            late.subscribe(&format!("{root}/#"), 1);
            while late.expect_publish().name() != topic {}
            leading.publish(&unique("end"), 0, "end");
            while leading.receive().text() != "end" {}
            device.publish_with(Publish::new(&topic, "").qos(1, 0).retain());
        }
    }
}

/// The broker's own: nobody publishes there, nobody subscribes to what does not exist yet, and it is in the log.
#[test]
fn topics_that_the_broker_owns_are_closed() {
    let Some(broker) = configured("") else { return };
    let topics = [
        "$SYS/broker/uptime",
        "$share/g/a",
        "$queue/jobs",
        "$stream/s",
        "$with;delay=30s/a",
        "$inbox/a",
    ];
    for (number, topic) in topics.into_iter().enumerate() {
        for version in ALL {
            let id = format!("denied-{number}");
            let mut client = Client::connect_to(&broker.address, &Connect::new(version, &id));
            client.send(Publish::new(topic, "x").qos(1, 1).encode(version));
            client.expect_acknowledged(PUBACK, 1, if version == V5 { 0x87 } else { 0 });
            client.send(subscribe(version, 2, &Properties::new(), &[(topic, 1)]));
            let (_, codes) = client.expect(SUBACK).codes(version);
            let is_open = topic.starts_with("$SYS") || topic.starts_with("$share");
            let refused = if version == V5 { 0x8F } else { 0x80 };
            assert_eq!(codes, [if is_open { 1 } else { refused }], "{topic}");
        }
    }
    eventually("it is in the log", || {
        let log = broker.log();
        (0..topics.len()).all(|number| {
            log.lines().any(|line| {
                line.contains("PUBLISH denied") && line.contains(&format!("denied-{number}"))
            })
        }) && log
            .lines()
            .any(|line| line.contains("SUBSCRIBE refused") && line.contains("$queue/jobs"))
    });
}

#[test]
fn a_setting_closes_all_of_them() {
    let Some(broker) = configured("[protocol]\ndollar_topics = false\n") else { return };
    let mut client = Client::connect_to(&broker.address, &Connect::new(V5, "c"));
    client.send(Publish::new("$aws/a", "x").qos(1, 1).encode(V5));
    client.expect_acknowledged(PUBACK, 1, 0x87);
    assert_eq!(
        client.subscribe_with(&Properties::new(), &[("$aws/#", 1), ("$SYS/#", 0)]),
        [0x87, 0]
    );
    assert_eq!(client.subscribe_with(&Properties::new(), &[("$share/g/$aws/#", 1)]), [0x87]);
}

/// A CONNECT of a bridge of 3.x: the highest bit of its protocol level is set.
fn bridge(broker: &Broker, id: &str, will: Option<Will>) -> Client {
    let mut connect = Connect::new(V311, id);
    connect.will = will;
    let mut client = Client::open_to(&broker.address, V311);
    client.send(connect.encode_as("MQTT", 0x84, connect.flags()));
    assert_eq!(client.expect(CONNACK).connack(V311).reason, 0);
    client
}

/// Once everybody could say, and have retained, that a bridge was connected.
#[test]
fn only_bridges_say_whether_they_are_connected() {
    let Some(broker) = configured("") else { return };
    let state = |name: &str| format!("$SYS/broker/connection/{name}/state");
    let mut watcher = Client::connect_to(&broker.address, &Connect::new(V5, "watcher"));
    watcher.subscribe("$SYS/broker/connection/+/state", 1);
    let will = |name: &str| Will::new(state(name), "0").qos(1).retain();

    let mut forger = Client::connect_to(&broker.address, &Connect::new(V5, "forger"));
    for name in ["far", "forger"] {
        forger.send(Publish::new(state(name), "1").qos(1, 1).retain().encode(V5));
        forger.expect_acknowledged(PUBACK, 1, 0x87);
    }
    for version in OLD {
        let mut forger = Client::connect_to(&broker.address, &Connect::new(version, "forger-3"));
        forger.publish_with(Publish::new(state("far"), "1").qos(1, 0).retain());
    }
    let mut forger = Client::open_to(&broker.address, V5);
    forger.send(Connect::new(V5, "forger").will(will("far")).encode());
    forger.expect_refusal(0x87);
    watcher.expect_nothing();

    let mut near = bridge(&broker, "near", Some(will("host.near")));
    near.publish_with(Publish::new(state("host.near"), "1").qos(1, 0).retain());
    assert_eq!(watcher.expect_message("1").name(), state("host.near"));
    near.cut();
    assert_eq!(watcher.expect_message("0").name(), state("host.near"));

    // mosquitto's bridges have no bit on 5.0, nor where they were refused with it. They say so with their Will, of their own.
    let connect = Connect::new(V5, "host.five").will(will("host.five"));
    let mut five = Client::connect_to(&broker.address, &connect);
    five.publish_with(Publish::new(state("host.five"), "1").qos(1, 0).retain());
    assert_eq!(watcher.expect_message("1").name(), state("host.five"));
    five.send(Publish::new(state("host.near"), "1").qos(1, 9).retain().encode(V5));
    five.expect_acknowledged(PUBACK, 9, 0x87);
    five.cut();
    assert_eq!(watcher.expect_message("0").name(), state("host.five"));
}
