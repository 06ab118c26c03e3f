//! The broker as a process: users, shutdown, restart and crash, mount points, safe defaults.

use std::process::Command;

use crate::broker::{Broker, configured, eventually, unique};
use crate::client::Client;
use crate::packet::{
    ALL, Connect, DISCONNECT, MESSAGE_EXPIRY, PUBACK, PUBCOMP, PUBREC, PUBREL, Properties, Publish,
    V5, V311, WILL_DELAY, Will, acknowledge,
};
use crate::port::free_port;

/// SIGTERM: 5.0 clients are told 0x8B, the others closed, and the process ends with success.
#[test]
fn sigterm_says_goodbye() {
    for signal in ["-TERM", "-INT"] {
        let Some(broker) = configured("") else { return };
        let mut five = Client::connect_to(&broker.address, &Connect::new(V5, "five"));
        let mut old = Client::connect_to(&broker.address, &Connect::new(V311, "old"));
        broker.signal(signal);
        five.expect_error(0x8B);
        old.expect_closed();
        eventually("the broker ends", || !broker.is_running());
        assert!(broker.log().contains("stop") || broker.log().contains("shut"), "{}", broker.log());
    }
}

/// What was acknowledged survives `kill -9`: Sessions, Subscriptions, queues, Retained Messages.
/// [MQTT-4.3.2-4] [MQTT-4.5.0-1] [MQTT311-4.1.0-1]
#[test]
fn acknowledged_messages_survive_a_crash() {
    for version in ALL {
        let Some(mut broker) = configured("") else { return };
        let connect = Connect::durable(version, "absent");
        let mut client = Client::connect_to(&broker.address, &connect);
        client.subscribe("queue/#", 2);
        client.disconnect();
        let mut sender = Client::connect_to(&broker.address, &Connect::new(version, "sender"));
        sender.publish_with(Publish::new("kept", "retained").qos(1, 1).retain());
        for number in 0..50 {
            sender.publish("queue/a", 1 + number % 2, &number.to_string());
        }
        broker.crash_and_restart("");
        let mut client = Client::connect_to(&broker.address, &connect);
        for number in 0..50 {
            client.expect_message(&number.to_string());
        }
        client.expect_nothing();
        client.subscribe("kept", 1);
        assert!(client.expect_message("retained").retain);
    }
}

/// [MQTT-4.3.3-10] QoS 2 is exactly once across a crash, in both directions.
#[test]
fn qos_2_survives_a_crash() {
    let Some(mut broker) = configured("") else { return };
    let (sender, receiver) = (Connect::durable(V5, "sender"), Connect::durable(V5, "receiver"));
    let mut to = Client::connect_to(&broker.address, &receiver);
    to.subscribe("t", 2);
    let mut from = Client::connect_to(&broker.address, &sender);
    from.send(Publish::new("t", "once").qos(2, 7).encode(V5));
    from.expect_acknowledged(PUBREC, 7, 0);
    let publish = to.expect_publish();
    to.send(acknowledge(PUBREC, publish.id));
    to.expect_acknowledged(PUBREL, publish.id, 0);
    broker.crash_and_restart("");
    let mut from = Client::connect_to(&broker.address, &sender);
    from.send(Publish::new("t", "once").qos(2, 7).dup().encode(V5));
    assert_eq!(from.expect_acknowledgement(PUBREC).id, 7);
    from.send(acknowledge(PUBREL, 7));
    from.expect_acknowledged(PUBCOMP, 7, 0);
    let mut to = Client::connect_to(&broker.address, &receiver);
    to.expect_acknowledged(PUBREL, publish.id, 0);
    to.send(acknowledge(PUBCOMP, publish.id));
    to.expect_nothing();
}

/// A delayed will survives a crash and is published afterwards. [MQTT-3.1.2-7] [MQTT-3.1.2-8]
#[test]
fn a_delayed_will_survives_a_crash() {
    let Some(mut broker) = configured("") else { return };
    let watcher = Connect::durable(V5, "watcher");
    let mut client = Client::connect_to(&broker.address, &watcher);
    client.subscribe("will", 1);
    client.disconnect();
    let will = Will::new("will", "late").qos(1).properties(Properties::new().four(WILL_DELAY, 3));
    let dying = Connect::durable(V5, "dying").will(will);
    let mut client = Client::connect_to(&broker.address, &dying);
    client.settle();
    client.cut();
    broker.crash_and_restart("");
    let mut client = Client::connect_to(&broker.address, &watcher);
    client.expect_message("late");
}

/// A Client that was back within a second of a crash took its will with it: the will was due when the crash cut its
/// connection, but the first timer of the new process found it replaced. [MQTT-3.1.2-8]
#[test]
fn a_will_is_published_after_a_crash_though_its_client_is_back_at_once() {
    let Some(mut broker) = configured("") else { return };
    let watcher = Connect::durable(V5, "watcher");
    let mut client = Client::connect_to(&broker.address, &watcher);
    client.subscribe("will", 1);
    client.disconnect();
    let dying = Connect::durable(V5, "dying").will(Will::new("will", "cut by the crash").qos(1));
    let _cut = Client::connect_to(&broker.address, &dying);
    broker.crash_and_restart("");
    let _back = Client::connect_to(&broker.address, &dying);
    let mut client = Client::connect_to(&broker.address, &watcher);
    client.expect_message("cut by the crash");
}

/// Unacknowledged deliveries are repeated after a crash with DUP and their identifiers. [MQTT-4.4.0-1]
#[test]
fn deliveries_are_repeated_after_a_crash() {
    let Some(mut broker) = configured("") else { return };
    let connect = Connect::durable(V311, "c");
    let mut client = Client::connect_to(&broker.address, &connect);
    client.subscribe("t", 1);
    client.publish("t", 1, "x");
    let first = client.expect_publish();
    broker.crash_and_restart("");
    let mut client = Client::connect_to(&broker.address, &connect);
    assert!(client.session_present());
    let again = client.expect_publish();
    assert_eq!((again.text(), again.id, again.dup), ("x", first.id, true));
}

/// Messages expire while the broker is down, too. [MQTT-3.3.2-5]
#[test]
fn messages_expire_while_the_broker_is_down() {
    let Some(mut broker) = configured("") else { return };
    let connect = Connect::durable(V5, "c");
    let mut client = Client::connect_to(&broker.address, &connect);
    client.subscribe("t", 1);
    client.disconnect();
    let mut sender = Client::connect_to(&broker.address, &Connect::new(V5, "s"));
    let short = Properties::new().four(MESSAGE_EXPIRY, 1);
    sender.publish_with(Publish::new("t", "short").qos(1, 1).properties(short));
    sender.publish("t", 1, "long");
    broker.crash();
    crate::broker::pass(std::time::Duration::from_millis(2500));
    broker.restart("");
    let mut client = Client::connect_to(&broker.address, &connect);
    client.expect_message("long");
    client.expect_nothing();
}

/// The second broker on one data directory refuses to start and says why.
#[test]
fn a_second_broker_on_the_same_data_is_refused() {
    let Some(broker) = configured("") else { return };
    let output = Command::new(env!("CARGO_BIN_EXE_petrel"))
        .args(["serve", "--config"])
        .arg(broker.directory.join("petrel.toml"))
        .env("PETREL_LISTENER__TESTS__LISTEN", format!("127.0.0.1:{}", free_port()))
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(!output.stderr.is_empty() || !output.stdout.is_empty());
    Client::connect_to(&broker.address, &Connect::new(V311, "still")).settle();
}

/// A listener on the network without authentication is refused at start. The safe default.
#[test]
fn an_open_listener_on_the_network_is_refused() {
    let directory = std::env::temp_dir().join(unique("petrel-test-"));
    std::fs::create_dir_all(&directory).unwrap();
    let config = directory.join("petrel.toml");
    let text = format!(
        "data_dir = {:?}\n[[listener]]\nlisten = \"0.0.0.0:{}\"\n",
        directory.join("data"),
        free_port()
    );
    std::fs::write(&config, text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_petrel"))
        .args(["serve", "--config"])
        .arg(&config)
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("allow_anonymous"), "{said}");
    std::fs::remove_dir_all(directory).unwrap();
}

/// `petrel check` accepts the shipped configuration.
#[test]
fn the_shipped_configuration_is_valid() {
    let root = crate::broker::root();
    let output = Command::new(env!("CARGO_BIN_EXE_petrel"))
        .args(["check", "--config", "config/petrel.toml"])
        .current_dir(root)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    // The certificates of the shipped file are made by `make certs`; without them only they may be missing.
    assert!(output.status.success() || said.contains("certs/"), "{said}");
}

/// A broker with one user: alice, whose password is "secret".
pub fn with_users() -> Option<Broker> {
    Some(Broker::start_closed(&users_file(&["alice"])?))
}

/// A broker with these users, whose password is "secret", and with anybody else as anonymous; and its configuration.
pub fn open_with_users(names: &[&str], extra: &str) -> Option<(Broker, String)> {
    let extra = users_file(names)? + extra;
    Some((Broker::start(&extra), extra))
}

/// The line of a configuration that names a users file with these users.
fn users_file(names: &[&str]) -> Option<String> {
    if std::env::var_os("PETREL_TEST_BROKER").is_some() {
        return None;
    }
    let directory = std::env::temp_dir().join(unique("petrel-test-users-"));
    std::fs::create_dir_all(&directory).unwrap();
    let users = directory.join("users");
    for name in names {
        let mut child = Command::new(env!("CARGO_BIN_EXE_petrel"))
            .arg("passwd")
            .arg(&users)
            .args([name, "--stdin", "--memory", "64"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"secret\n").unwrap();
        assert!(child.wait().unwrap().success());
    }
    Some(format!("auth.users_file = {users:?}\n"))
}

/// [MQTT-3.1.4-2] Return code 4 in 3.1.1, 0x86 in 5.0, and nothing for those who have no name.
#[test]
fn users_need_their_password() {
    let Some(broker) = with_users() else { return };
    for version in ALL {
        let right = Connect::new(version, unique("c")).user("alice").password("secret");
        Client::connect_to(&broker.address, &right).settle();
        let wrong = [
            (Connect::new(version, unique("c")).user("alice").password("wrong"), 0x86, 4),
            (Connect::new(version, unique("c")).user("bob").password("secret"), 0x86, 4),
            (Connect::new(version, unique("c")), 0x87, 5),
        ];
        for (connect, five, old) in wrong {
            let mut client = Client::open_to(&broker.address, version);
            client.send(connect.encode());
            let reason = client.expect_connack().reason;
            let expected = if version == V5 { [five, 0x86] } else { [old, 4] };
            assert!(expected.contains(&reason), "{connect:?}: {reason:#04x}");
            client.expect_closed();
        }
    }
}

/// Topics of a listener with a mount point are those of everybody else below that prefix.
#[test]
fn a_mount_point_prefixes_topics() {
    let port = free_port();
    let extra = format!(
        "[[listener]]\nname = \"mounted\"\nlisten = \"127.0.0.1:{port}\"\nallow_anonymous = true\nmount_point = \"site/7/\"\n"
    );
    let Some(broker) = configured(&extra) else { return };
    let mut outside = Client::connect_to(&broker.address, &Connect::new(V311, "outside"));
    outside.subscribe("site/7/#", 1);
    let mut inside =
        Client::connect_to(&format!("127.0.0.1:{port}"), &Connect::new(V311, "inside"));
    inside.subscribe("a/+", 1);
    inside.publish("a/b", 1, "from inside");
    assert_eq!(outside.expect_message("from inside").name(), "site/7/a/b");
    assert_eq!(inside.expect_message("from inside").name(), "a/b");
    outside.publish("site/7/a/c", 1, "from outside");
    assert_eq!(inside.expect_message("from outside").name(), "a/c");
}

/// `$SYS` topics exist under the names that mosquitto uses, and clients cannot publish to them.
#[test]
fn sys_topics_are_published() {
    let Some(broker) = configured("[sys]\ninterval = \"1s\"\n") else { return };
    let mut client = Client::connect_to(&broker.address, &Connect::new(V311, "c"));
    client.subscribe("$SYS/broker/clients/connected", 0);
    // The first may be from before this client connected.
    while client.receive().text().trim().parse::<u32>().unwrap() < 1 {}
}

/// Clients cannot speak in the broker's name: a 5.0 client is told 0x87 or 0x90. [MQTT311-3.3.5-2]
#[test]
fn clients_cannot_publish_to_sys_topics() {
    let Some(broker) = configured("") else { return };
    let mut watcher = Client::connect_to(&broker.address, &Connect::new(V311, "w"));
    watcher.subscribe("$SYS/forged", 1);
    let mut client = Client::connect_to(&broker.address, &Connect::new(V5, "c"));
    client.send(Publish::new("$SYS/forged", "x").qos(1, 1).encode(V5));
    match client.read() {
        Some(packet) if packet.kind() == PUBACK => {
            let reason = packet.acknowledgement(V5).reason;
            assert!([0x87, 0x90].contains(&reason), "{reason:#04x}");
        }
        Some(packet) => assert_eq!(packet.kind(), DISCONNECT),
        None => panic!("closed without a reason"),
    }
    watcher.expect_nothing();
}
