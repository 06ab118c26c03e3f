//! The trees find exactly what the plain comparison of one filter with one name finds, after any
//! sequence of changes.

#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use petrel::packet::QoS;
use petrel::packet::subscribe::SubscriptionOptions;
use petrel::durable::message::{Message, MessageHeader, MessageId, SessionId, Timestamp};
use petrel::topic::filter::TopicFilter;
use petrel::topic::name::TopicName;
use petrel::topic::retained_tree::RetainedTree;
use petrel::topic::subscription_tree::SubscriptionTree;

/// One change or question. Topics are built from few levels, so that they meet.
#[derive(Debug, Arbitrary)]
enum Operation {
    Subscribe(Topic, u8),
    Unsubscribe(Topic, u8),
    Match(Topic),
    Retain(Topic),
    Clear(Topic),
    Read(Topic, u8),
}

#[derive(Debug, Arbitrary)]
enum Topic {
    Levels(Vec<u8>),
    Text(String),
}

impl Topic {
    fn text(&self) -> String {
        const LEVELS: [&str; 10] = ["a", "b", "", "+", "#", "$SYS", "ab", "ä", "a b", "c"];
        match self {
            Self::Text(text) => text.clone(),
            Self::Levels(levels) => {
                let levels = levels.iter().take(12);
                let levels = levels.map(|level| LEVELS[usize::from(*level) % LEVELS.len()]);
                levels.collect::<Vec<_>>().join("/")
            }
        }
    }
}

#[derive(Default)]
struct Model {
    subscriptions: BTreeSet<(String, u8)>,
    retained: BTreeSet<String>,
}

fuzz_target!(|input: &[u8]| {
    let mut input = Unstructured::new(input);
    let subscriptions = SubscriptionTree::new(7);
    let retained = RetainedTree::new(7);
    let mut model = Model::default();
    // Not a `Vec` of them, which would end with even odds after each.
    while !input.is_empty() {
        let Ok(operation) = input.arbitrary() else { break };
        apply(&operation, &subscriptions, &retained, &mut model);
    }
    assert_eq!(subscriptions.len(), model.subscriptions.len());
    assert_eq!(retained.len(), model.retained.len());
});

fn apply(
    operation: &Operation,
    subscriptions: &SubscriptionTree<u8>,
    retained: &RetainedTree<Arc<Message>>,
    model: &mut Model,
) {
    match operation {
        Operation::Subscribe(topic, destination) => {
            let Ok(parsed) = TopicFilter::parse(&topic.text()) else { return };
            let options = SubscriptionOptions::default();
            let added = subscriptions.subscribe(&parsed.filter, *destination, options, None);
            assert_eq!(subscriptions.filter(added.place), parsed.filter.as_str());
            let key = (parsed.filter.as_str().to_owned(), *destination);
            assert_eq!(added.replaced.is_none(), model.subscriptions.insert(key));
        }
        Operation::Unsubscribe(topic, destination) => {
            let Ok(parsed) = TopicFilter::parse(&topic.text()) else { return };
            let key = (parsed.filter.as_str().to_owned(), *destination);
            let existed = subscriptions.unsubscribe(&parsed.filter, destination);
            assert_eq!(existed.is_some(), model.subscriptions.remove(&key));
        }
        Operation::Match(topic) => check_matches(&topic.text(), subscriptions, model),
        Operation::Retain(topic) => {
            let text = topic.text();
            let Ok(name) = TopicName::parse(&text) else { return };
            let replaced = retained.set(message(name.as_str()));
            assert_eq!(replaced.is_none(), model.retained.insert(text));
        }
        Operation::Clear(topic) => {
            let text = topic.text();
            assert_eq!(retained.remove(&text).is_some(), model.retained.remove(&text));
        }
        Operation::Read(topic, page) => check_retained(&topic.text(), *page, retained, model),
    }
}

fn check_matches(text: &str, tree: &SubscriptionTree<u8>, model: &Model) {
    let Ok(name) = TopicName::parse(text) else { return };
    let mut found = Vec::new();
    tree.matches(text, &mut found);
    let mut expected = BTreeMap::<u8, usize>::new();
    for (filter, destination) in &model.subscriptions {
        let parsed = TopicFilter::parse(filter).expect("it was parsed before");
        if parsed.filter.matches(&name) {
            *expected.entry(*destination).or_default() += 1;
        }
    }
    let mut counted = BTreeMap::<u8, usize>::new();
    for matched in &found {
        *counted.entry(matched.destination).or_default() += 1;
    }
    assert_eq!(counted, expected, "{text:?}");
}

fn check_retained(text: &str, page: u8, tree: &RetainedTree<Arc<Message>>, model: &Model) {
    let Ok(parsed) = TopicFilter::parse(text) else { return };
    let mut found = Vec::new();
    let mut cursor = None;
    loop {
        cursor = tree.page(&parsed.filter, cursor, usize::from(page), &mut found).next;
        if cursor.is_none() {
            break;
        }
    }
    let mut names: Vec<_> = found.iter().map(|message| message.topic().to_owned()).collect();
    names.sort_unstable();
    let matches =
        |text: &&String| TopicName::parse(text).is_ok_and(|name| parsed.filter.matches(&name));
    let expected: Vec<_> = model.retained.iter().filter(matches).cloned().collect();
    assert_eq!(names, expected, "{text:?}");
}

fn message(topic: &str) -> Arc<Message> {
    let header = MessageHeader {
        id: MessageId { publisher: SessionId(1), counter: 1 },
        qos: QoS::AtMostOnce,
        retain: true,
        arrived: Timestamp(1),
        expires: None,
    };
    Arc::new(Message::new(header, topic, &[], b"x").expect("a short topic"))
}
