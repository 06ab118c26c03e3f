//! Topic Filters: what matches, what does not, what is refused.

use crate::broker::unique;
use crate::client::Client;
use crate::packet::{ALL, DISCONNECT, Properties, SUBACK, V5, V311, subscribe};

/// Subscribes to `filter` below a unique first level, publishes to `topic` below it, and says whether it arrived.
fn arrives(filter: &str, topic: &str) -> bool {
    let root = unique("f");
    let mut client = Client::new(V311);
    let (filter, topic) = (filter.replace('~', &root), topic.replace('~', &root));
    client.subscribe(&filter, 0);
    client.publish(&topic, 0, "x");
    client.send(crate::packet::PINGREQ);
    // Filters that begin with a wildcard also receive what other tests publish.
    let mut found = false;
    loop {
        let packet = client.read().expect("open");
        if packet.kind() != crate::packet::PUBLISH {
            return found;
        }
        found |= packet.publish(V311).name() == topic;
    }
}

/// [MQTT-4.7.1-1] [MQTT311-4.7.1-2] [MQTT-3.3.2-3] [MQTT311-3.3.2-3]
#[test]
fn the_multi_level_wildcard_matches_every_level_below_and_its_parent() {
    for (topic, expected) in [
        ("~", true),
        ("~/", true),
        ("~/a", true),
        ("~/a/b/c", true),
        ("~//", true),
        ("~x", false),
        ("x~/a", false),
    ] {
        assert_eq!(arrives("~/#", topic), expected, "{topic}");
    }
}

/// [MQTT-4.7.1-2] [MQTT311-4.7.1-3]
#[test]
fn the_single_level_wildcard_matches_one_level() {
    for (filter, topic, expected) in [
        ("~/+", "~/a", true),
        ("~/+", "~/", true),
        ("~/+", "~", false),
        ("~/+", "~/a/b", false),
        ("~/+/c", "~/a/c", true),
        ("~/+/c", "~//c", true),
        ("~/+/c", "~/c", false),
        ("+/~", "a/~", true),
        ("+/~", "/~", true),
        ("+/~/+", "/~/", true),
        ("+", "~", true),
        ("+", "~/a", false),
    ] {
        assert_eq!(arrives(filter, topic), expected, "{filter} {topic}");
    }
}

/// [MQTT-4.7.1-1] [MQTT-4.7.1-2]
#[test]
fn wildcards_combine() {
    for (filter, topic, expected) in [
        ("~/+/b/#", "~/a/b", true),
        ("~/+/b/#", "~/a/b/c/d", true),
        ("~/+/b/#", "~/a/c", false),
        ("+/+/#", "~/a", true),
        ("+/+/#", "~", false),
        ("~/+/+", "~//", true),
    ] {
        assert_eq!(arrives(filter, topic), expected, "{filter} {topic}");
    }
}

/// [MQTT-4.7.3-4] [MQTT311-4.7.3-4]
#[test]
fn levels_are_compared_to_the_byte() {
    for (filter, topic, expected) in [
        ("~/a", "~/a", true),
        ("~/a", "~/A", false),
        ("~/a", "/~/a", false),
        ("/~/a", "/~/a", true),
        ("~/a", "~/a/", false),
        ("~//a", "~/a", false),
        ("~//a", "~//a", true),
        ("~/e\u{301}", "~/\u{e9}", false),
        ("~/ ", "~/ ", true),
        ("~/\u{FEFF}", "~/", false),
    ] {
        assert_eq!(arrives(filter, topic), expected, "{filter} {topic}");
    }
}

/// [MQTT-4.7.2-1] [MQTT311-4.7.2-1]
#[test]
fn leading_wildcards_do_not_match_dollar_topics() {
    for version in ALL {
        let topic = format!("${}/a", unique("d"));
        let mut wild = Client::new(version);
        for filter in ["#", "+/a", "+/#"] {
            wild.subscribe(filter, 0);
        }
        let mut named = Client::new(version);
        named.subscribe(&format!("{}/#", topic.split('/').next().unwrap()), 0);
        let mut sender = Client::new(version);
        sender.send(crate::packet::Publish::new(&topic, "dollar").encode(version));
        sender.settle();
        // Brokers may refuse such topics to clients; then nobody receives anything.
        wild.send(crate::packet::PINGREQ);
        loop {
            let packet = wild.read().expect("open");
            if packet.kind() != crate::packet::PUBLISH {
                break;
            }
            assert_ne!(packet.publish(version).name(), topic);
        }
    }
}

/// `$` counts only as the first character of the topic. [MQTT-4.7.2-1]
#[test]
fn a_dollar_elsewhere_is_an_ordinary_character() {
    assert!(arrives("~/+", "~/$a"));
    assert!(arrives("~/#", "~/$SYS/x"));
    assert!(arrives("~/$x/+", "~/$x/y"));
}

/// [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT311-4.7.1-2] [MQTT311-4.7.1-3]
#[test]
fn misplaced_wildcards_are_refused() {
    for version in ALL {
        for filter in ["a#", "#a", "a/#b", "a/#/b", "#/a", "##", "a+", "+a", "a/+b", "a/b+/c", "++"]
        {
            assert_refused(version, filter);
        }
    }
}

/// [MQTT-4.7.3-1] [MQTT311-4.7.3-1]
#[test]
fn an_empty_filter_is_refused() {
    for version in ALL {
        assert_refused(version, "");
    }
}

/// Refused alone with a code in SUBACK, or together with the Network Connection: the specification allows both.
fn assert_refused(version: crate::packet::Version, filter: &str) {
    let mut client = Client::new(version);
    client.send(subscribe(version, 1, &Properties::new(), &[(filter, 0)]));
    let Some(packet) = client.read() else {
        assert_ne!(version, V5, "{filter:?} closed without a reason");
        return;
    };
    match packet.kind() {
        SUBACK => {
            let expected = if version == V5 { 0x8F } else { 0x80 };
            assert_eq!(packet.codes(version).1, [expected], "{filter:?}");
        }
        DISCONNECT => assert!([0x81, 0x82, 0x8F].contains(&packet.disconnect().0), "{filter:?}"),
        kind => panic!("{filter:?} is answered with type {kind}"),
    }
}

/// Filters with empty levels are valid. [MQTT-4.7.3-1]
#[test]
fn empty_levels_are_levels() {
    for (filter, topic, expected) in [
        ("/", "/", true),
        ("+/+", "/", true),
        ("/+", "/", true),
        ("+", "/", false),
        ("//", "/", false),
    ] {
        let mut client = Client::new(V311);
        client.subscribe(filter, 0);
        client.publish(topic, 0, "slash");
        client.send(crate::packet::PINGREQ);
        let mut found = false;
        loop {
            let packet = client.read().expect("open");
            if packet.kind() != crate::packet::PUBLISH {
                break;
            }
            found |= packet.publish(V311).name() == topic;
        }
        assert_eq!(found, expected, "{filter} {topic}");
    }
}

/// [MQTT-4.7.3-3] [MQTT311-4.7.3-3] As long as a string can be, or refused in an orderly way; never a crash.
#[test]
fn the_longest_filter_is_answered() {
    for version in ALL {
        let mut client = Client::new(version);
        let filter = "x".repeat(65_535);
        client.send(subscribe(version, 1, &Properties::new(), &[(&filter, 0)]));
        match client.read() {
            Some(packet) if packet.kind() == SUBACK => client.expect_nothing(),
            Some(packet) => assert!(packet.disconnect().0 >= 0x80),
            None => assert_ne!(version, V5),
        }
    }
}

/// Thousands of levels in a filter cost the sender at most its Network Connection.
#[test]
fn many_levels_do_not_hurt() {
    let mut client = Client::new(V5);
    for filter in ["/".repeat(60_000), "+/".repeat(30_000)] {
        client.send(subscribe(V5, 1, &Properties::new(), &[(&filter, 0)]));
        match client.read() {
            Some(packet) if packet.kind() == SUBACK => client.expect_nothing(),
            _ => break,
        }
    }
    Client::new(V5).settle();
}
