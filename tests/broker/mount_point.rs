//! Listeners with a mount point: their Clients live below it and see nothing else, under no other name.

use crate::broker::{Broker, configured};
use crate::client::Client;
use crate::packet::{
    CONNACK, Connect, PUBACK, Properties, Publish, RESPONSE_TOPIC, TOPIC_ALIAS,
    TOPIC_ALIAS_MAXIMUM, V5, V311, Version, Will,
};
use crate::port::free_port;

/// A broker with a listener for everybody and one below `mount_point`.
struct Site {
    broker: Broker,
    inside: String,
}

impl Site {
    fn start(mount_point: &str) -> Option<Self> {
        let inside = format!("127.0.0.1:{}", free_port());
        let extra = format!(
            "[[listener]]\nname = \"mounted\"\nlisten = \"{inside}\"\nallow_anonymous = true\nmount_point = \"{mount_point}\"\n"
        );
        Some(Self { broker: configured(&extra)?, inside })
    }

    fn outside(&self, connect: &Connect) -> Client {
        Client::connect_to(&self.broker.address, connect)
    }

    fn inside(&self, connect: &Connect) -> Client {
        Client::connect_to(&self.inside, connect)
    }

    fn pair(&self, version: Version) -> (Client, Client) {
        (self.inside(&Connect::new(version, "in")), self.outside(&Connect::new(version, "out")))
    }
}

/// Once `#` inside `site-1/` was given what went to `site-1`, under that name, and what went to `site-1/` without any.
#[test]
fn what_has_no_name_inside_does_not_arrive_there() {
    let Some(site) = Site::start("site-1/") else { return };
    for version in [V311, V5] {
        let (mut inside, mut outside) = site.pair(version);
        inside.subscribe("#", 1);
        inside.subscribe("+/+", 0);
        for qos in 0..=2 {
            for topic in ["site-1", "site-1/", "site-10/a", "site-10", "a", "/site-1/a"] {
                outside.publish(topic, qos, "not for you");
            }
        }
        outside.publish("site-1/a", 1, "for you");
        outside.publish("site-1//a", 1, "for you, too");
        assert_eq!(inside.expect_message("for you").name(), "a");
        assert_eq!(inside.expect_message("for you, too").name(), "/a");
        inside.expect_nothing();
    }
}

/// Once `mount_point = "site-1"` reached into `site-10`.
#[test]
fn a_mount_point_without_its_slash_is_a_whole_level_all_the_same() {
    let Some(site) = Site::start("site-1") else { return };
    let (mut inside, mut outside) = site.pair(V5);
    inside.subscribe("#", 1);
    inside.subscribe("0/#", 1);
    outside.publish("site-10/a", 1, "not for you");
    outside.publish("site-1/a", 1, "for you");
    assert_eq!(inside.expect_message("for you").name(), "a");
    outside.subscribe("#", 1);
    inside.publish("0/a", 1, "from inside");
    assert_eq!(outside.expect_message("from inside").name(), "site-1/0/a");
}

#[test]
fn retained_messages_keep_to_their_side() {
    let Some(site) = Site::start("site-1/") else { return };
    let mut outside = site.outside(&Connect::new(V5, "out"));
    for topic in ["site-1", "site-1/", "site-1/a", "site-10/a", "a"] {
        outside.publish_with(Publish::new(topic, topic).qos(1, 0).retain());
    }
    let mut inside = site.inside(&Connect::new(V5, "in"));
    inside.subscribe("#", 1);
    assert_eq!(inside.expect_message("site-1/a").name(), "a");
    inside.expect_nothing();
    inside.publish_with(Publish::new("b", "b").qos(1, 0).retain());
    outside.subscribe("site-1/b", 1);
    assert_eq!(outside.expect_message("b").name(), "site-1/b");
}

/// Also what was queued while the Client was away, and for groups.
#[test]
fn queues_and_groups_keep_to_their_side() {
    let Some(site) = Site::start("site-1/") else { return };
    let durable = Connect::durable(V5, "in").clean(false);
    let mut inside = site.inside(&durable);
    inside.subscribe("#", 1);
    inside.disconnect();
    let mut outside = site.outside(&Connect::new(V5, "out"));
    for topic in ["site-1", "site-1/", "site-1/a"] {
        outside.publish(topic, 1, topic);
    }
    let mut inside = site.inside(&durable);
    assert!(inside.session_present());
    assert_eq!(inside.expect_message("site-1/a").name(), "a");
    inside.expect_nothing();
    assert_eq!(inside.unsubscribe(&["#"]), [0]);
    inside.subscribe("$share/g/#", 1);
    for topic in ["site-1", "site-1/", "site-1/b"] {
        outside.publish(topic, 1, topic);
    }
    assert_eq!(inside.expect_message("site-1/b").name(), "b");
    inside.expect_nothing();
}

/// A request from inside is answered at a topic inside, and one from outside can be answered from inside only if its
/// Response Topic is there: otherwise it arrives without one.
#[test]
fn response_topics_are_mapped_both_ways() {
    let Some(site) = Site::start("site-1/") else { return };
    let (mut inside, mut outside) = site.pair(V5);
    outside.subscribe("site-1/#", 1);
    let request = |topic: &str, answer: &str| {
        let properties = Properties::new().pair("a", "b").text(RESPONSE_TOPIC, answer);
        Publish::new(topic, "ask").qos(1, 0).properties(properties.pair("c", "d"))
    };
    inside.publish_with(request("requests", "answers"));
    let asked = outside.expect_message("ask");
    assert_eq!(asked.received.text(RESPONSE_TOPIC), Some("site-1/answers"));
    assert_eq!(asked.received.pairs(), [("a", "b"), ("c", "d")]);

    // Large messages and large properties are sent from where they lie, where nothing in them changes.
    for (payload_bytes, property_bytes) in [(10_000, 1), (10, 10_000), (10_000, 10_000)] {
        let (payload, value) = ("p".repeat(payload_bytes), "v".repeat(property_bytes));
        let properties = Properties::new().pair("a", &value).text(RESPONSE_TOPIC, "answers");
        let request = Publish::new("requests", &payload).qos(1, 0).properties(properties);
        inside.publish_with(request);
        let asked = outside.expect_message(&payload);
        assert_eq!(asked.received.text(RESPONSE_TOPIC), Some("site-1/answers"));
        inside.subscribe("echo", 1);
        let properties = Properties::new().pair("a", &value).text(RESPONSE_TOPIC, "site-1/x");
        let request = Publish::new("site-1/echo", &payload).qos(1, 0).properties(properties);
        outside.publish_with(request);
        outside.expect_message(&payload);
        let asked = inside.expect_message(&payload);
        assert_eq!((asked.name(), asked.received.text(RESPONSE_TOPIC)), ("echo", Some("x")));
        assert_eq!(asked.received.pairs(), [("a", &*value)]);
    }

    assert_eq!(outside.unsubscribe(&["site-1/#"]), [0]);
    inside.subscribe("#", 1);
    for (answer, expected) in [
        ("site-1/answers", Some("answers")),
        ("answers", None),
        ("site-10/answers", None),
        ("site-1", None),
        ("site-1/", None),
    ] {
        outside.publish_with(request("site-1/requests", answer));
        let asked = inside.expect_message("ask");
        assert_eq!(asked.name(), "requests");
        assert_eq!(asked.received.text(RESPONSE_TOPIC), expected, "{answer}");
        assert_eq!(asked.received.pairs(), [("a", "b"), ("c", "d")]);
    }
}

#[test]
fn wills_and_their_response_topics_are_mapped() {
    let Some(site) = Site::start("site-1/") else { return };
    let mut outside = site.outside(&Connect::new(V5, "out"));
    outside.subscribe("#", 1);
    let properties = Properties::new().text(RESPONSE_TOPIC, "back");
    let will = Will::new("gone", "gone").qos(1).properties(properties);
    site.inside(&Connect::new(V5, "in").will(will)).cut();
    let gone = outside.expect_message("gone");
    assert_eq!(gone.name(), "site-1/gone");
    assert_eq!(gone.received.text(RESPONSE_TOPIC), Some("site-1/back"));
}

/// A topic that has room for no mount point before it has no name outside.
#[test]
fn topics_that_would_be_too_long_are_refused() {
    let Some(site) = Site::start("site-1/") else { return };
    let mut inside = site.inside(&Connect::new(V5, "in"));
    let long = "a".repeat(65_530);
    inside.send(Publish::new(&long, "x").qos(1, 1).encode(V5));
    assert!(inside.expect_acknowledgement(PUBACK).reason >= 0x80);
    let properties = Properties::new().text(RESPONSE_TOPIC, &long);
    inside.send(Publish::new("a", "x").qos(1, 2).properties(properties.clone()).encode(V5));
    inside.expect_acknowledged(PUBACK, 2, 0x90);
    for will in [Will::new(&long, "x"), Will::new("a", "x").properties(properties)] {
        let mut refused = Client::open_to(&site.inside, V5);
        refused.send(Connect::new(V5, "will").will(will).encode());
        assert!(refused.expect(CONNACK).connack(V5).reason >= 0x80);
        refused.expect_closed();
    }
}

#[test]
fn topic_aliases_stand_for_names_inside() {
    let Some(site) = Site::start("site-1/") else { return };
    let aliases = Properties::new().two(TOPIC_ALIAS_MAXIMUM, 5);
    let mut inside = site.inside(&Connect::new(V5, "in").properties(aliases));
    let mut outside = site.outside(&Connect::new(V5, "out"));
    outside.subscribe("site-1/#", 1);
    let alias = || Properties::new().two(TOPIC_ALIAS, 1);
    inside.publish_with(Publish::new("a", "1").qos(1, 0).properties(alias()));
    inside.publish_with(Publish::new("", "2").qos(1, 0).properties(alias()));
    for payload in ["1", "2"] {
        assert_eq!(outside.expect_message(payload).name(), "site-1/a");
    }
    inside.subscribe("#", 1);
    // The broker introduces an alias when a topic comes again; from then on it stands for the name inside.
    let received: Vec<_> = (3..=6)
        .map(|number| {
            outside.publish("site-1/a/topic/long/enough", 1, &number.to_string());
            let publish = inside.expect_message(&number.to_string());
            (publish.name().to_owned(), publish.received.number(TOPIC_ALIAS))
        })
        .collect();
    let (first, last) = (received.first().unwrap(), received.last().unwrap());
    assert_eq!((&*first.0, &*last.0, last.1), ("a/topic/long/enough", "", Some(1)));
    assert!(received.contains(&("a/topic/long/enough".to_owned(), Some(1))), "{received:?}");
}

/// [MQTT-4.7.2-1] holds on both sides.
#[test]
fn wildcards_at_the_first_level_do_not_see_topics_below_dollar() {
    let Some(site) = Site::start("site-1/") else { return };
    let (mut inside, mut outside) = site.pair(V5);
    inside.subscribe("#", 1);
    inside.subscribe("+/a", 1);
    outside.subscribe("#", 1);
    outside.publish("site-1/$own/a", 1, "looks like one inside");
    outside.expect_message("looks like one inside");
    inside.expect_nothing();
    assert_eq!(inside.subscribe_with(&Properties::new(), &[("$SYS/#", 1)]).len(), 1);
    inside.expect_nothing();
}
