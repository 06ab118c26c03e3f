//! Tests of the module above: cases by hand, and properties against a naive matcher.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use proptest::prelude::*;

use super::{NAMES_PER_PAGE, RetainedTree, RetainedValue, compare};
use crate::topic::filter::TopicFilter;
use crate::topic::name::TopicName;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Value(String, u32);

impl RetainedValue for Value {
    fn topic(&self) -> &str {
        &self.0
    }

    fn memory_bytes(&self) -> usize {
        self.0.len()
    }
}

fn filter(text: &str) -> TopicFilter {
    TopicFilter::parse(text).expect(text).filter
}

fn tree_of<'a>(topics: impl IntoIterator<Item = &'a str>) -> RetainedTree<Value> {
    let tree = RetainedTree::new(5);
    for topic in topics {
        tree.set(Value(topic.to_owned(), 0));
    }
    tree
}

/// All pages, and how many there were.
fn pages(tree: &RetainedTree<Value>, text: &str, max_count: usize) -> (Vec<String>, usize) {
    let filter = filter(text);
    let mut topics = Vec::new();
    let mut cursor = None;
    for page in 1.. {
        let mut values = Vec::new();
        cursor = tree.page(&filter, cursor, max_count, &mut values).next;
        assert!(values.len() <= max_count);
        topics.extend(values.into_iter().map(|value| value.0));
        if cursor.is_none() {
            return (topics, page);
        }
    }
    unreachable!()
}

fn found(tree: &RetainedTree<Value>, text: &str) -> Vec<String> {
    let (mut topics, _) = pages(tree, text, 3);
    topics.sort_unstable();
    topics
}

#[test]
fn wildcards_find_names() {
    let tree = tree_of([
        "sport",
        "sport/tennis",
        "sport/tennis/player1",
        "sport!",
        "sports",
        "/finance",
        "$SYS/up",
        "$SYS",
        "a//b",
    ]);
    assert_eq!(found(&tree, "sport/#"), ["sport", "sport/tennis", "sport/tennis/player1"]);
    assert_eq!(found(&tree, "+"), ["sport", "sport!", "sports"]);
    assert_eq!(found(&tree, "+/+"), ["/finance", "sport/tennis"]);
    assert_eq!(found(&tree, "#").len(), 7);
    assert_eq!(found(&tree, "+/up"), [""; 0]);
    assert_eq!(found(&tree, "$SYS/#"), ["$SYS", "$SYS/up"]);
    assert_eq!(found(&tree, "$SYS/+"), ["$SYS/up"]);
    assert_eq!(found(&tree, "a/+/b"), ["a//b"]);
    assert_eq!(found(&tree, "sport/tennis"), ["sport/tennis"]);
    assert_eq!(found(&tree, "nothing"), [""; 0]);
}

/// [MQTT-3.3.1-5] [MQTT-3.3.1-6]
#[test]
fn a_name_has_one_value() {
    let tree = RetainedTree::new(5);
    assert_eq!(tree.set(Value("a/b".to_owned(), 1)), None);
    assert_eq!(tree.set(Value("a/b".to_owned(), 2)), Some(Value("a/b".to_owned(), 1)));
    assert_eq!(tree.get("a/b"), Some(Value("a/b".to_owned(), 2)));
    assert_eq!(tree.get("a"), None);
    assert_eq!(tree.len(), 1);
    assert_eq!(tree.remove("a/b"), Some(Value("a/b".to_owned(), 2)));
    assert_eq!(tree.remove("a/b"), None);
    assert!(tree.is_empty());
    assert_eq!(tree.value_bytes.load(Ordering::Relaxed), 0);
}

#[test]
fn levels_order_the_names() {
    let ordered = ["", "/", "/a", "a", "a/", "a/b", "a/b/c", "a\u{1}", "a!", "aa", "é", "é/a"];
    for (left, one) in ordered.iter().enumerate() {
        for (right, other) in ordered.iter().enumerate() {
            assert_eq!(compare(one, other), left.cmp(&right), "{one} and {other}");
        }
    }
    assert_eq!(compare("12345678/b", "12345678!a"), std::cmp::Ordering::Less);
}

/// One match among 100,000 names: no page looks at all of them, and most are jumped over.
#[test]
fn pages_are_bounded_and_jump() {
    let tree = RetainedTree::new(5);
    for device in 0..100 {
        for value in 0..1_000 {
            tree.set(Value(format!("plant/{device}/sensor/{value:03}"), 0));
        }
    }
    let (topics, page_count) = pages(&tree, "plant/+/sensor/999", 1_000);
    assert_eq!(topics.len(), 100);
    assert!(page_count < 100_000 / NAMES_PER_PAGE / 4, "{page_count}");
    let (topics, page_count) = pages(&tree, "plant/+/+/+/+", 1_000);
    assert_eq!(topics.len(), 0);
    assert!(page_count > 90, "{page_count}");
    let (topics, page_count) = pages(&tree, "#", 500);
    assert_eq!(topics.len(), 100_000);
    assert!((200..=233).contains(&page_count), "{page_count}");
}

fn levels(wildcard: &'static str, max: usize) -> impl Strategy<Value = String> {
    let level = prop_oneof![
        6 => prop::sample::select(vec!["a", "b", "c", "", "$x", "a!", "b\u{1}", "ü"]),
        2 => Just(wildcard),
    ];
    prop::collection::vec(level, 1..max).prop_map(|levels| levels.join("/"))
}

fn filters() -> impl Strategy<Value = String> {
    let filter = (levels("+", 6), prop::sample::select(vec!["", "/#"]));
    let filter = filter.prop_map(|(levels, end)| levels + end);
    prop_oneof![9 => filter, 1 => Just("#".to_owned())].prop_filter("empty", |f| !f.is_empty())
}

fn names() -> impl Strategy<Value = String> {
    levels("a", 6).prop_filter("empty", |name| !name.is_empty())
}

proptest! {
    #[test]
    fn equals_the_naive_filter(
        operations in prop::collection::vec((0_u8..4, names()), 1..200),
        texts in prop::collection::vec(filters(), 1..10),
        max_count in 1_usize..8,
        seed in any::<u64>(),
    ) {
        let tree = RetainedTree::new(seed);
        let mut model = BTreeMap::new();
        for (number, (operation, name)) in (0..).zip(operations) {
            let value = Value(name.clone(), number);
            if operation == 0 {
                prop_assert_eq!(tree.remove(&name), model.remove(&name));
            } else {
                prop_assert_eq!(tree.set(value.clone()), model.insert(name, value));
            }
            prop_assert_eq!(tree.len(), model.len());
        }
        for text in texts {
            let filter = filter(&text);
            let expected: Vec<&String> =
                model.keys().filter(|n| filter.matches(&TopicName::parse(n).unwrap())).collect();
            let (mut found, _) = pages(&tree, &text, max_count);
            found.sort_unstable();
            prop_assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{}", text);
        }
    }
}

/// Names that stay are met exactly once, names that come and go at most once.
#[test]
fn pages_survive_changes_between_them() {
    let stays: BTreeSet<String> = (0..3_000).map(|n| format!("a/{}/{n}", n % 70)).collect();
    let tree = tree_of(stays.iter().map(String::as_str));
    let finished = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0_u32;
            while !finished.load(Ordering::Relaxed) {
                number = (number + 1) % 5_000;
                let name = format!("a/{}/{number}x", number % 70);
                if tree.remove(&name).is_none() {
                    tree.set(Value(name, 0));
                }
            }
        });
        for _ in 0..20 {
            let (topics, _) = pages(&tree, "a/+/+", 10);
            let distinct: BTreeSet<String> = topics.iter().cloned().collect();
            assert_eq!(distinct.len(), topics.len(), "a name was met twice");
            assert!(distinct.is_superset(&stays), "a name that stayed was not met");
        }
        finished.store(true, Ordering::Relaxed);
    });
}
