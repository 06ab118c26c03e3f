//! Access rules from files, and their change while Clients are connected.

use std::fs;
use std::path::PathBuf;

use crate::broker::{Broker, eventually, unique};
use crate::client::Client;
use crate::packet::{ALL, Connect, PUBACK, Publish, V5, V311, Version};

/// A broker with a file of rules.
struct Ruled {
    broker: Broker,
    file: PathBuf,
}

impl Ruled {
    /// `key` is the setting that names the file.
    fn start(key: &str, rules: &str) -> Option<Self> {
        if std::env::var_os("PETREL_TEST_BROKER").is_some() {
            return None;
        }
        let directory = std::env::temp_dir().join(unique("petrel-test-rules-"));
        fs::create_dir_all(&directory).unwrap();
        let file = directory.join("rules");
        fs::write(&file, rules).unwrap();
        Some(Self { broker: Broker::start(&format!("auth.{key} = {file:?}\n")), file })
    }

    fn client(&self, version: Version, id: &str) -> Client {
        Client::connect_to(&self.broker.address, &Connect::new(version, id))
    }

    /// Puts other rules in force, or finds out that they have a mistake.
    fn change(&self, rules: &str, sign: &str) {
        let before = self.broker.log().matches(sign).count();
        fs::write(&self.file, rules).unwrap();
        self.broker.signal("-HUP");
        eventually("the broker has read its rules again", || {
            self.broker.log().matches(sign).count() > before
        });
    }
}

const IN_FORCE: &str = "bridges are up to date";

/// [MQTT-3.9.3-2] [MQTT311-3.9.3-2] A SUBSCRIBE is granted, lowered or denied filter by filter; a PUBLISH is refused, or in
/// older versions acknowledged and dropped. [MQTT311-3.3.5-2]
#[test]
fn rules_decide_about_every_operation() {
    let rules = "everyone\n  deny receive plant/secret\n  allow read,publish plant/#\n  \
                 allow subscribe low max-qos 1\n  allow write own/%c/#\n";
    let Some(ruled) = Ruled::start("rules_file", rules) else { return };
    for version in ALL {
        let denied = if version == V5 { 0x87 } else { 0x80 };
        let (reader, writer) = (unique("r"), unique("w"));
        let mut reader = ruled.client(version, &reader);
        let filters = [("plant/#", 2), ("low", 2), ("#", 0), ("own/#", 0), ("$share/g/other", 1)];
        let codes = reader.subscribe_with(&Default::default(), &filters);
        assert_eq!(codes, [2, 1, denied, denied, denied]);
        let mut client = ruled.client(version, &writer);
        client.publish("plant/secret", 0, "hidden");
        client.publish("plant/open", 0, "seen");
        reader.expect_message("seen");
        for (topic, is_allowed) in [
            (format!("own/{writer}/x"), true),
            ("own/other/x".into(), false),
            ("else".into(), false),
        ] {
            let id = client.fresh_id();
            client.send(Publish::new(&topic, "x").qos(1, id).encode(version));
            let reason = match (version == V5, is_allowed) {
                (true, true) => 0x10,
                (true, false) => 0x87,
                (false, _) => 0,
            };
            client.expect_acknowledged(PUBACK, id, reason);
        }
        reader.expect_nothing();
    }
}

/// In a group, a message goes to a member that may receive it, whether it comes alone or in a burst.
#[test]
fn a_group_delivers_to_members_that_may_receive() {
    let rules = "client blind\n  deny receive plant/secret/#\n\
                 everyone\n  allow read,publish plant/#\n";
    let Some(ruled) = Ruled::start("rules_file", rules) else { return };
    let filter = format!("$share/{}/plant/#", unique("g"));
    let mut blind = ruled.client(V5, "blind");
    let mut seeing = ruled.client(V5, "seeing");
    for member in [&mut blind, &mut seeing] {
        member.subscribe(&filter, 1);
    }
    let mut sender = ruled.client(V5, "sender");
    for (topic, count) in [("plant/secret/a", 1), ("plant/secret/b", 3), ("plant/secret/c", 64)] {
        let packets =
            (1..=count).flat_map(|id| Publish::new(topic, id.to_string()).qos(1, id).encode(V5));
        sender.send(packets.collect::<Vec<u8>>());
        for id in 1..=count {
            let publish = seeing.expect_message(&id.to_string());
            assert_eq!(publish.name(), topic);
        }
    }
    blind.expect_nothing();
}

/// What a Client may no longer receive or publish stops when the reload is confirmed; the connection stays. A file with a
/// mistake changes nothing.
#[test]
fn a_reload_changes_what_connected_clients_may_do() {
    let Some(ruled) = Ruled::start("rules_file", "everyone\n  allow all #\n") else { return };
    for version in ALL {
        let mut reader = ruled.client(version, &unique("r"));
        let mut writer = ruled.client(version, &unique("w"));
        reader.subscribe("a/#", 1);
        writer.publish("a/b", 1, "first");
        reader.receive();
        ruled.change("everyone\n  deny receive a/b\n  allow all #\n", IN_FORCE);
        writer.publish("a/b", 1, "hidden");
        writer.publish("a/c", 1, "seen");
        reader.expect_message("seen");
        ruled.change("everyone\n  deny receive a/c\n  allow al #\n", "did you mean all?");
        writer.publish("a/b", 1, "hidden");
        writer.publish("a/c", 1, "still seen");
        reader.expect_message("still seen");
        ruled.change("everyone\n  deny publish a/c\n  allow all #\n", IN_FORCE);
        writer.publish("a/b", 1, "seen again");
        reader.expect_message("seen again");
        writer.publish("a/c", 0, "refused");
        writer.publish("a/b", 1, "last");
        reader.expect_message("last");
        reader.expect_nothing();
        ruled.change("everyone\n  allow all #\n", IN_FORCE);
    }
}

/// mosquitto's file: every filter is granted, what arrives is decided for each topic.
#[test]
fn an_acl_file_of_mosquitto_decides_as_there() {
    let acl = "topic read open/#\ntopic deny open/secret\npattern readwrite clients/%c/#\n";
    let Some(ruled) = Ruled::start("acl_file", acl) else { return };
    for version in [V311, V5] {
        let (id, writer) = (unique("r"), unique("w"));
        let mut reader = ruled.client(version, &id);
        reader.subscribe("#", 1);
        let mut writer = ruled.client(version, &writer);
        writer.publish("open/a", 0, "denied");
        reader.publish(&format!("clients/{id}/x"), 0, "own");
        reader.expect_message("own");
        reader.expect_nothing();
    }
}
