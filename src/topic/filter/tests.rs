//! Tests of the module above: cases by hand, and properties against a naive matcher.

use std::sync::Arc;

use proptest::prelude::*;

use super::{TopicFilter, TopicFilterError};
use crate::topic::name::TopicName;

fn matches(filter: &str, name: &str) -> bool {
    let filter = TopicFilter::parse(filter).expect("a valid filter").filter;
    filter.matches(&TopicName::parse(name).expect("a valid name"))
}

/// The examples of sections 4.7.1.2, 4.7.1.3, 4.7.2 and 4.7.3.
#[test]
fn the_examples_of_the_specification_match() {
    let table = [
        ("sport/tennis/player1/#", "sport/tennis/player1", true),
        ("sport/tennis/player1/#", "sport/tennis/player1/ranking", true),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
        ("sport/tennis/player1/#", "sport/tennis/player2", false),
        ("sport/#", "sport", true),
        ("sport/#", "sports", false),
        ("#", "sport/tennis", true),
        ("#", "/", true),
        ("sport/tennis/+", "sport/tennis/player1", true),
        ("sport/tennis/+", "sport/tennis/player2", true),
        ("sport/tennis/+", "sport/tennis/player1/ranking", false),
        ("sport/+", "sport", false),
        ("sport/+", "sport/", true),
        ("+", "sport", true),
        ("+/tennis/#", "sport/tennis", true),
        ("+/tennis/#", "sport/tennis/player1", true),
        ("sport/+/player1", "sport/tennis/player1", true),
        ("sport/+/player1", "sport/player1", false),
        ("+/+", "/finance", true),
        ("/+", "/finance", true),
        ("+", "/finance", false),
        ("#", "$SYS/uptime", false),
        ("+/monitor/Clients", "$SYS/monitor/Clients", false),
        ("$SYS/#", "$SYS/uptime", true),
        ("$SYS/#", "$SYS", true),
        ("$SYS/monitor/+", "$SYS/monitor/Clients", true),
        ("+/#", "$SYS/uptime", false),
        ("+/$SYS", "a/$SYS", true),
        ("ACCOUNTS", "Accounts", false),
        ("Accounts payable", "Accounts payable", true),
        ("/finance", "finance", false),
        ("finance", "finance/", false),
        ("finance/#", "finance/", true),
        ("+/+/+", "a//b", true),
        ("a//b", "a/b", false),
    ];
    for (filter, name, expected) in table {
        assert_eq!(matches(filter, name), expected, "{filter} and {name}");
    }
}

#[test]
fn valid_filters_are_kept_unaltered() {
    let valid =
        ["#", "+", "/", "//", "+/+", "/+", "+/", "a/+/b/#", "+/tennis/#", "$SYS/#", " ", "$share"];
    for text in valid {
        let parsed = TopicFilter::parse(text).expect(text);
        assert_eq!(parsed.filter.as_str(), text);
        assert_eq!(&*parsed.full, text);
        assert!(Arc::ptr_eq(&parsed.full, &Arc::from(parsed.filter.clone())), "one allocation");
        assert_eq!(parsed.share, None);
    }
}

/// [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.7.3-1] [MQTT-4.7.3-2] [MQTT-4.7.3-3]
#[test]
fn invalid_filters_are_refused() {
    use TopicFilterError::{Empty, MultiLevelWildcard, Nul, SingleLevelWildcard, TooLong};
    let long = "a".repeat(65_536);
    let table = [
        ("", Empty),
        ("a\0", Nul),
        (long.as_str(), TooLong),
        ("sport/tennis#", MultiLevelWildcard),
        ("sport/tennis/#/ranking", MultiLevelWildcard),
        ("#/", MultiLevelWildcard),
        ("##", MultiLevelWildcard),
        ("#a", MultiLevelWildcard),
        ("+#", MultiLevelWildcard),
        ("sport+", SingleLevelWildcard),
        ("+sport", SingleLevelWildcard),
        ("a/++/b", SingleLevelWildcard),
        ("a/b+/c", SingleLevelWildcard),
    ];
    for (text, error) in table {
        assert_eq!(TopicFilter::parse(text), Err(error), "{:?}", text.get(..20).unwrap_or(text));
    }
}

/// [MQTT-4.8.2-1] [MQTT-4.8.2-2]
#[test]
fn shared_subscriptions_are_taken_apart() {
    let table = [
        ("$share/consumer1/sport/tennis/+", "consumer1", "sport/tennis/+"),
        ("$share/consumer1//finance", "consumer1", "/finance"),
        ("$share/g/#", "g", "#"),
        ("$share/g//", "g", "/"),
        ("$share/ /a", " ", "a"),
        ("$share/g/$SYS/#", "g", "$SYS/#"),
        ("$share/g/$share/h/a", "g", "$share/h/a"),
    ];
    for (text, share, filter) in table {
        let parsed = TopicFilter::parse(text).expect(text);
        assert_eq!(parsed.share.as_ref().map(|name| &*name.0), Some(share));
        assert_eq!(parsed.filter.as_str(), filter);
        assert_eq!(&*parsed.full, text);
    }
}

/// [MQTT-4.8.2-1] [MQTT-4.8.2-2]
#[test]
fn invalid_shared_subscriptions_are_refused() {
    use TopicFilterError::{
        MultiLevelWildcard, ShareName, ShareWithoutFilter, SingleLevelWildcard,
    };
    let table = [
        ("$share/", ShareName),
        ("$share//a", ShareName),
        ("$share/+/a", ShareName),
        ("$share/#/a", ShareName),
        ("$share/a+/a", ShareName),
        ("$share/g", ShareWithoutFilter),
        ("$share/g/", ShareWithoutFilter),
        ("$share/g/a#", MultiLevelWildcard),
        ("$share/g/+a", SingleLevelWildcard),
    ];
    for (text, error) in table {
        assert_eq!(TopicFilter::parse(text), Err(error), "{text}");
    }
}

#[test]
fn wildcards_and_levels_are_found() {
    let filter = |text: &str| TopicFilter::parse(text).unwrap().filter;
    assert!(filter("a/+").has_wildcard());
    assert!(filter("#").has_wildcard());
    assert!(!filter("a/b").has_wildcard());
    assert_eq!(filter("a/+/#").level_count(), 3);
    assert_eq!(filter("/").level_count(), 2);
}

proptest! {
    #[test]
    fn any_string_is_parsed_or_refused(text in ".{0,40}|[a+#/$]{0,12}|\\$share/[a+#/]{0,8}") {
        if let Ok(parsed) = TopicFilter::parse(&text) {
            prop_assert_eq!(&*parsed.full, text.as_str());
            prop_assert!(text.ends_with(parsed.filter.as_str()));
            prop_assert_eq!(parsed.share.is_some(), text.starts_with("$share/"));
        }
    }

    #[test]
    fn a_topic_name_is_a_filter_that_matches_itself_only(
        name in "[ab$/]{1,8}",
        other in "[ab$/]{1,8}",
    ) {
        prop_assume!(!name.starts_with("$share/"));
        prop_assert_eq!(matches(&name, &other), name == other);
    }
}
