//! What the log says about Clients.

use crate::broker::{configured, eventually};
use crate::client::Client;
use crate::packet::{ALL, Connect, Publish, V5, V311};

/// The line of the log with all of these in it, without colours.
fn line(log: &str, parts: &[&str]) -> Option<String> {
    let found = log.lines().find(|line| parts.iter().all(|part| line.contains(part)));
    found.map(str::to_owned)
}

/// Once nothing at any level told of a successful CONNECT, and a refused one had neither name nor address.
#[test]
fn clients_come_and_go_in_one_line_each() {
    let Some(broker) = configured("") else { return };
    for version in ALL {
        let id = format!("visitor-{version:?}");
        let connect = Connect::new(version, &id).keep_alive(77).user("ann\u{1b}[31m");
        Client::connect_to(&broker.address, &connect).disconnect();
        Client::connect_to(&broker.address, &connect).cut();
        let quoted = format!("\"{id}\"");
        eventually("both ends are in the log", || {
            let log = broker.log();
            let connected =
                [&quoted, " connected", "listener=\"tests\"", "127.0.0.1:", "keep_alive=77"];
            line(&log, &connected).is_some()
                && line(&log, &[&quoted, "disconnected", "by the client"]).is_some()
                && line(&log, &[&quoted, "disconnected", "without DISCONNECT"]).is_some()
        });
    }
    assert!(!broker.log().contains("ann\u{1b}"), "{}", broker.log());
}

#[test]
fn a_refused_client_is_named() {
    let Some(broker) = configured(
        "[protocol]\nallow_empty_client_id = false\n[limits]\nmax_client_id_bytes = 23\n",
    ) else {
        return;
    };
    for version in [V311, V5] {
        let id = "x".repeat(300);
        let mut client = Client::open_to(&broker.address, version);
        client.send(Connect::new(version, &id).user("ann").encode());
        assert_ne!(client.expect_connack().reason, 0);
    }
    eventually("it is in the log", || {
        let log = broker.log();
        ["3.1.1", "5.0"].iter().all(|version| {
            let parts = [
                "not connected",
                "xxx... (172 bytes more)",
                "\"ann\"",
                "listener=\"tests\"",
                version,
                "refused",
            ];
            line(&log, &parts).is_some()
        })
    });
}

/// `trace` promises every packet.
#[test]
fn trace_has_every_packet_and_no_secret() {
    let Some(broker) = configured("[log]\nmodules = { \"petrel::packet\" = \"trace\" }\n") else {
        return;
    };
    let connect = Connect::new(V5, "traced").user("ann").password("pass-word");
    let mut client = Client::connect_to(&broker.address, &connect);
    client.subscribe("t/#", 2);
    client.publish_with(Publish::new("t/a", "pay-load").qos(2, 0));
    client.expect_message("pay-load");
    client.settle();
    client.disconnect();
    eventually("all of it is in the log", || {
        let log = broker.log();
        let packets = [
            ("received", "SUBSCRIBE"),
            ("sent", "SUBACK"),
            ("received", "PUBLISH"),
            ("sent", "PUBREC"),
            ("received", "PUBREL"),
            ("sent", "PUBCOMP"),
            ("sent", "PUBLISH"),
            ("received", "PINGREQ"),
            ("sent", "PINGRESP"),
            ("received", "DISCONNECT"),
        ];
        packets.iter().all(|(direction, packet)| {
            line(&log, &["TRACE", direction, packet, "\"traced\""]).is_some()
        })
    });
    let log = broker.log();
    assert!(line(&log, &["PUBLISH", "\"t/a\"", "qos=2"]).is_some(), "{log}");
    assert!(line(&log, &["CONNECT"]).is_some() && line(&log, &["CONNACK"]).is_some(), "{log}");
    assert!(!log.contains("pass-word") && !log.contains("pay-load"), "{log}");
}

/// Lines that clients bring about are bounded, and counted.
#[test]
fn a_thousand_clients_a_second_do_not_fill_the_log() {
    let Some(broker) = configured("") else { return };
    let (count, burst) = (1300, 1000);
    for _ in 0..count {
        Client::connect_to(&broker.address, &Connect::new(V311, "again")).disconnect();
    }
    let written = broker.log().lines().filter(|line| line.contains("petrel::client")).count();
    assert!(written >= burst, "{written}");
    assert!(written < 2 * count, "{written} lines for {count} clients");
}
