//! Tests of the module above: cases by hand, and properties against a naive matcher.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use proptest::prelude::*;

use super::{Match, SubscriptionPlace, SubscriptionTree};
use crate::packet::QoS;
use crate::packet::subscribe::SubscriptionOptions;
use crate::topic::filter::TopicFilter;
use crate::topic::fingerprint::TopicHash;
use crate::topic::name::TopicName;

fn filter(text: &str) -> TopicFilter {
    TopicFilter::parse(text).expect(text).filter
}

fn options(qos: QoS) -> SubscriptionOptions {
    SubscriptionOptions { qos, ..SubscriptionOptions::default() }
}

fn destinations(tree: &SubscriptionTree<u32>, topic: &str) -> Vec<u32> {
    let mut matches = Vec::new();
    tree.matches(topic, &mut matches);
    let mut destinations: Vec<u32> = matches.into_iter().map(|one| one.destination).collect();
    destinations.sort_unstable();
    destinations
}

#[test]
fn overlapping_filters_all_match() {
    let tree = SubscriptionTree::new(1);
    let filters = ["sport/#", "sport/tennis/+", "+/tennis/#", "#", "sport/tennis/player1", "+/+/+"];
    for (destination, text) in (0..).zip(filters) {
        tree.subscribe(&filter(text), destination, SubscriptionOptions::default(), None);
    }
    assert_eq!(destinations(&tree, "sport/tennis/player1"), [0, 1, 2, 3, 4, 5]);
    assert_eq!(destinations(&tree, "sport"), [0, 3]);
    assert_eq!(destinations(&tree, "sport/tennis"), [0, 2, 3]);
    assert_eq!(destinations(&tree, "a/b/c"), [3, 5]);
    assert_eq!(destinations(&tree, "$SYS/tennis/x"), [0_u32; 0]);
}

/// [MQTT-4.7.2-1]
#[test]
fn leading_wildcards_do_not_match_dollar_topics() {
    let tree = SubscriptionTree::new(1);
    for (destination, text) in (0..).zip(["#", "+/uptime", "$SYS/#", "$SYS/+", "+/+", "$SYS"]) {
        tree.subscribe(&filter(text), destination, SubscriptionOptions::default(), None);
    }
    assert_eq!(destinations(&tree, "$SYS/uptime"), [2, 3]);
    assert_eq!(destinations(&tree, "$SYS"), [2, 5]);
    assert_eq!(destinations(&tree, "SYS/uptime"), [0, 1, 4]);
}

/// Deep filters made of `a` and `+` would make one message visit as many nodes as there are filters.
#[test]
fn nearly_matching_filters_are_bounded() {
    let tree = SubscriptionTree::new(1);
    let (levels, max) = (14, 20);
    let mut refused = 0;
    for number in 0..1_u32 << levels {
        let level = |bit: u32| if number >> bit & 1 == 0 { "a" } else { "+" };
        let filter = filter(&(0..levels).map(level).collect::<Vec<_>>().join("/"));
        if tree.admits(&filter, max) {
            tree.subscribe(&filter, number, SubscriptionOptions::default(), None);
        } else {
            refused += 1;
        }
    }
    assert_eq!((tree.len(), refused), (256 + max, (1 << levels) - 256 - max));
    let mut matches = Vec::new();
    let visited = tree.matches(&"a/".repeat(13), &mut matches);
    assert!(visited <= levels as usize * (256 + max), "{visited}");
    // Shapes that are there, and those of the first levels, are always taken.
    assert!(tree.admits(&filter("b/b/b/b/b/b/b/+/b"), max));
    assert!(tree.admits(&filter("b/b/b/b/b/b/b/b/+/b"), max));
    assert!(!tree.admits(&filter(&["b/".repeat(20), "+".to_owned()].concat()), max));
}

/// [MQTT-3.8.4-3]
#[test]
fn subscribing_again_replaces() {
    let tree = SubscriptionTree::new(1);
    let news = filter("news/+");
    assert_eq!(tree.options(&news, &7), None);
    let first = tree.subscribe(&news, 7, options(QoS::AtMostOnce), None);
    assert_eq!(first.replaced, None);
    let id = NonZeroU32::new(5);
    let second = tree.subscribe(&news, 7, options(QoS::ExactlyOnce), id);
    assert_eq!(second.replaced, Some(options(QoS::AtMostOnce)));
    assert_eq!(second.place, first.place);
    assert_eq!(tree.options(&news, &7), Some(options(QoS::ExactlyOnce)));
    assert_eq!(tree.options(&news, &8), None);
    assert_eq!(tree.len(), 1);
    let mut matches = Vec::new();
    tree.matches("news/today", &mut matches);
    let expected =
        Match { destination: 7, subscription_id: id, options: options(QoS::ExactlyOnce) };
    assert_eq!(matches, [expected]);
}

#[test]
fn unsubscribing_leaves_nothing_behind() {
    let tree = SubscriptionTree::new(1);
    let empty_bytes = tree.allocated_bytes();
    let texts = ["a/b/c/d", "a/b", "a/b/#", "a/+/c", "+", "#", "/", "a//b", "x", "x/#"];
    for (destination, text) in (0..).zip(texts) {
        tree.subscribe(&filter(text), destination, SubscriptionOptions::default(), None);
        tree.subscribe(&filter(text), destination + 100, SubscriptionOptions::default(), None);
    }
    assert!(tree.unsubscribe(&filter("a/b/c"), &0).is_none(), "a node without a Subscription");
    assert!(tree.unsubscribe(&filter("a/b/c/d"), &1).is_none(), "another destination");
    assert!(tree.unsubscribe(&filter("never/seen"), &0).is_none());
    assert!(tree.unsubscribe(&filter("a/+/+"), &0).is_none());
    let mut left = texts.len() * 2;
    for (destination, text) in (0..).zip(texts) {
        assert!(tree.unsubscribe(&filter(text), &destination).is_some());
        assert!(tree.unsubscribe(&filter(text), &destination).is_none());
        left -= 1;
        assert_eq!(tree.len(), left);
    }
    for (destination, text) in (100..).zip(texts) {
        assert!(tree.unsubscribe(&filter(text), &destination).is_some());
    }
    assert!(tree.is_empty());
    assert_eq!(tree.item_counts(), [0; 3]);
    assert_eq!(tree.allocated_bytes(), empty_bytes);
}

/// Ten thousand levels must not end in recursion, nor in a walk of ten thousand lookups for a short
/// name.
#[test]
fn deep_filters_are_matched() {
    let tree = SubscriptionTree::new(1);
    let deep = "a/".repeat(10_000) + "+";
    tree.subscribe(&filter(&deep), 1, SubscriptionOptions::default(), None);
    assert_eq!(destinations(&tree, &("a/".repeat(10_000) + "x")), [1]);
    assert_eq!(destinations(&tree, &"a/".repeat(9_999)), [0_u32; 0]);
    assert!(tree.unsubscribe(&filter(&deep), &1).is_some());
    assert_eq!(tree.item_counts(), [0; 3]);
}

#[test]
fn a_crowd_subscribes_and_leaves() {
    let tree = SubscriptionTree::new(1);
    let all = filter("fleet/all");
    for destination in 0..20_000_u32 {
        tree.subscribe(&all, destination, SubscriptionOptions::default(), None);
    }
    let expected: Vec<u32> = (0..20_000).collect();
    assert_eq!(destinations(&tree, "fleet/all"), expected);
    for destination in (0..20_000).filter(|destination| destination % 100 != 7) {
        assert!(tree.unsubscribe(&all, &destination).is_some());
    }
    let expected: Vec<u32> = (0..20_000).filter(|destination| destination % 100 == 7).collect();
    assert_eq!(destinations(&tree, "fleet/all"), expected);
}

fn levels(wildcard: &'static str, max: usize) -> impl Strategy<Value = String> {
    let level = prop_oneof![
        6 => prop::sample::select(vec!["a", "b", "c", "", "$x", "long-level-name-beyond-18-bytes"]),
        2 => Just(wildcard),
    ];
    prop::collection::vec(level, 1..max).prop_map(|levels| levels.join("/"))
}

fn filters() -> impl Strategy<Value = String> {
    let filter = (levels("+", 6), prop::sample::select(vec!["", "/#"]));
    let filter = filter.prop_map(|(levels, end)| levels + end);
    prop_oneof![20 => filter, 1 => Just("#".to_owned())].prop_filter("empty", |f| !f.is_empty())
}

proptest! {
    #[test]
    fn equals_the_naive_matcher(
        operations in prop::collection::vec((any::<bool>(), filters(), 0_u32..4), 1..120),
        topics in prop::collection::vec(levels("a", 7), 1..20),
        seed in any::<u64>(),
    ) {
        let tree = SubscriptionTree::new(seed);
        let mut model: HashMap<(String, u32), SubscriptionOptions> = HashMap::new();
        let mut places: HashMap<(String, u32), SubscriptionPlace> = HashMap::new();
        for (number, (subscribes, text, destination)) in operations.into_iter().enumerate() {
            let key = (text.clone(), destination);
            if subscribes {
                let qos = if number % 2 == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
                let added = tree.subscribe(&filter(&text), destination, options(qos), None);
                prop_assert_eq!(added.replaced, model.insert(key.clone(), options(qos)));
                let before = places.insert(key, added.place);
                prop_assert_eq!(before.unwrap_or(added.place), added.place);
            } else {
                let expected = places.remove(&key);
                let existing = tree.options(&filter(&text), &destination);
                prop_assert_eq!(existing, model.remove(&key));
                match expected {
                    Some(place) if number % 4 < 2 => {
                        let levels = tree.unsubscribe_at(place, &destination);
                        prop_assert_eq!(levels, filter(&text).level_count());
                    }
                    _ => {
                        let removed = tree.unsubscribe(&filter(&text), &destination);
                        prop_assert_eq!(removed, expected);
                    }
                }
                prop_assert_eq!(tree.options(&filter(&text), &destination), None);
            }
            for ((text, _), place) in &places {
                prop_assert_eq!(&tree.filter(*place), text);
            }
            prop_assert_eq!(tree.len(), model.len());
        }
        for topic in topics.iter().filter(|topic| !topic.is_empty()) {
            let name = TopicName::parse(topic).unwrap();
            let mut expected: Vec<_> = model
                .iter()
                .filter(|((text, _), _)| filter(text).matches(&name))
                .map(|((_, destination), options)| (*destination, options.qos))
                .collect();
            let mut found = Vec::new();
            tree.matches(topic, &mut found);
            let mut found: Vec<_> =
                found.iter().map(|one| (one.destination, one.options.qos)).collect();
            expected.sort_unstable();
            found.sort_unstable();
            prop_assert_eq!(found, expected, "{}", topic);
        }
        // Nothing is left of removed Subscriptions: a tree that never had them is no smaller.
        let fresh = SubscriptionTree::new(seed);
        for ((text, destination), options) in &model {
            fresh.subscribe(&filter(text), *destination, *options, None);
        }
        prop_assert_eq!(tree.item_counts(), fresh.item_counts());
        for (text, destination) in model.into_keys() {
            prop_assert!(tree.unsubscribe(&filter(&text), &destination).is_some());
        }
        prop_assert_eq!(tree.item_counts(), [0; 3]);
    }
}

/// What a writer announces: changes that have begun, and changes that have returned. After an odd
/// number of changes it is subscribed.
#[derive(Default)]
struct Announced {
    begun: AtomicU64,
    returned: AtomicU64,
}

const CONTENDED_TOPIC: &str = "site/7/pump/state";

fn subscribe_and_unsubscribe(
    tree: &SubscriptionTree<u32>,
    filter: &TopicFilter,
    destination: u32,
    announced: &Announced,
) {
    for change in 1..=20_000 {
        announced.begun.store(change, Ordering::Release);
        if change % 2 == 1 {
            tree.subscribe(filter, destination, SubscriptionOptions::default(), None);
        } else {
            assert!(tree.unsubscribe(filter, &destination).is_some());
        }
        announced.returned.store(change, Ordering::Release);
        if change % 16 < 2 {
            thread::yield_now();
        }
    }
}

/// Uses its cache as a connection would, and checks every answer during which no change was under
/// way. Returns how many of these came from the cache.
fn publish_until(
    finished: &AtomicBool,
    tree: &SubscriptionTree<u32>,
    writers: &[Announced],
) -> usize {
    let hash = TopicHash::of(CONTENDED_TOPIC);
    let mut cached = None;
    let mut checked_hits = 0;
    while !finished.load(Ordering::Relaxed) {
        let returned: Vec<_> = writers.iter().map(|w| w.returned.load(Ordering::Acquire)).collect();
        let fingerprint = tree.fingerprint(&hash);
        let is_hit = cached.as_ref().is_some_and(|(kept, _)| *kept == fingerprint);
        if !is_hit {
            cached = Some((fingerprint, destinations(tree, CONTENDED_TOPIC)));
        }
        let answer = cached.as_ref().map(|(_, found)| found.as_slice()).unwrap_or_default();
        for ((destination, writer), returned) in (0..).zip(writers).zip(returned) {
            if writer.begun.load(Ordering::Acquire) == returned {
                assert_eq!(answer.contains(&destination), returned % 2 == 1, "{returned}");
                checked_hits += usize::from(is_hit);
            }
        }
    }
    checked_hits
}

/// Removal by place, as at the end of a Session, is a change like any other.
#[test]
fn removal_by_place_changes_the_fingerprint() {
    let tree = SubscriptionTree::new(1);
    let hash = TopicHash::of("a/b");
    for text in ["a/b", "a/+", "#", "+/b/#"] {
        let place = tree.subscribe(&filter(text), 1, SubscriptionOptions::default(), None).place;
        let before = tree.fingerprint(&hash);
        tree.unsubscribe_at(place, &1);
        assert_ne!(tree.fingerprint(&hash), before, "{text}");
        assert_eq!(destinations(&tree, "a/b"), [0_u32; 0]);
    }
}

/// A cached answer under an equal fingerprint contains every change that had returned when the
/// publish began.
#[test]
fn an_equal_fingerprint_hides_no_change_that_has_returned() {
    let tree = SubscriptionTree::<u32>::new(1);
    let filters = [filter("site/7/+/state"), filter(CONTENDED_TOPIC)];
    let announced = [Announced::default(), Announced::default()];
    let finished = AtomicBool::new(false);
    let checked_hits = thread::scope(|scope| {
        let readers = [(); 2].map(|()| scope.spawn(|| publish_until(&finished, &tree, &announced)));
        let (tree, filters, announced) = (&tree, &filters, &announced);
        let writers = [0, 1].map(|writer| {
            let destination = u32::try_from(writer).unwrap();
            scope.spawn(move || {
                let (filter, announced) = (&filters[writer], &announced[writer]);
                subscribe_and_unsubscribe(tree, filter, destination, announced);
            })
        });
        for writer in writers {
            writer.join().unwrap();
        }
        finished.store(true, Ordering::Relaxed);
        readers.map(|reader| reader.join().unwrap()).into_iter().sum::<usize>()
    });
    assert!(checked_hits > 0);
    assert_eq!(tree.item_counts(), [0; 3]);
}

/// Readers meet every Subscription that stays, once, whatever comes and goes around it: a crowd
/// forms and dissolves, tables split and merge, nodes appear and are pruned.
#[test]
fn what_stays_is_found_while_others_come_and_go() {
    let tree = SubscriptionTree::<u32>::new(1);
    let stays = ["city/1/#", "city/1/lamp/5", "+/1/lamp/+", "city/+/lamp/5"].map(filter);
    for (destination, filter) in (0..).zip(&stays) {
        tree.subscribe(filter, destination, SubscriptionOptions::default(), None);
    }
    let finished = AtomicBool::new(false);
    thread::scope(|scope| {
        let (tree, finished) = (&tree, &finished);
        let readers = [(); 2].map(|()| {
            scope.spawn(move || {
                while !finished.load(Ordering::Relaxed) {
                    let mut found = destinations(tree, "city/1/lamp/5");
                    found.retain(|destination| *destination < 100);
                    assert_eq!(found, [0, 1, 2, 3]);
                }
            })
        });
        let writers = [100, 200_000].map(|first| {
            scope.spawn(move || {
                let all = filter("city/1/lamp/5");
                for _ in 0..3 {
                    for number in first..first + 2_000 {
                        let own = filter(&format!("city/1/lamp/{number}/+"));
                        tree.subscribe(&own, number, SubscriptionOptions::default(), None);
                        tree.subscribe(&all, number, SubscriptionOptions::default(), None);
                    }
                    for number in first..first + 2_000 {
                        let own = filter(&format!("city/1/lamp/{number}/+"));
                        assert!(tree.unsubscribe(&own, &number).is_some());
                        assert!(tree.unsubscribe(&all, &number).is_some());
                    }
                }
            })
        });
        for writer in writers {
            writer.join().unwrap();
        }
        finished.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.join().unwrap();
        }
    });
    assert_eq!(tree.len(), stays.len());
    for (destination, filter) in (0..).zip(&stays) {
        assert!(tree.unsubscribe(filter, &destination).is_some());
    }
    assert_eq!(tree.item_counts(), [0; 3]);
}
