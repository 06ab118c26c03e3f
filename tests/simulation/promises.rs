//! The promises of the broker to its Clients, and the checks that they were kept. The simulation and the crash test share
//! it: one loses the disk and the network, the other a real process.

use std::collections::{BTreeMap, BTreeSet};

use petrel::packet::{ProtocolVersion, QoS};
use rand::Rng;
use rand::rngs::SmallRng;

use crate::client::{Client, Lifetime, Name, WILLS, payload_of, topic_of};

/// What must have happened in the end.
#[derive(Default)]
pub(crate) struct Promises {
    /// For each message, who was subscribed when it was first sent.
    expected: BTreeMap<Name, Vec<usize>>,
    qos: BTreeMap<Name, QoS>,
    shared: BTreeSet<Name>,
    /// Messages that may have been refused for now: the broker owes them no place in the order, because it may meet them
    /// for the first time when they are repeated.
    refusable: BTreeSet<Name>,
    /// Will Messages that must not be published, because their Client was back in time.
    forbidden: BTreeSet<Name>,
    /// Messages that may be repeated to a Session that has not seen them.
    repeatable: BTreeSet<Name>,
}

impl Promises {
    /// Lets a Client publish its next message, if its window has room, and notes who must have it.
    pub(crate) fn publish(&mut self, clients: &mut [Client], index: usize, out: &mut Vec<u8>) {
        let number = clients[index].next_number();
        let topic = topic_of((index, number));
        let qos = qos_of(number);
        let is_retained = topic.starts_with("retained/");
        let Some(name) = clients[index].publish(&topic, qos, is_retained, out) else { return };
        assert_eq!(name, (index, number), "names are dealt out in order");
        self.expect(clients, name, qos);
    }

    /// Notes who must have the Will Message of the CONNECT that a Client has just sent, once it is due.
    pub(crate) fn promise_will(&mut self, clients: &[Client], index: usize) {
        if let Some((name, qos)) = clients[index].will() {
            self.expect(clients, name, qos);
        }
    }

    /// Whether anybody must have this message once it is acknowledged.
    pub(crate) fn is_expected(&self, name: Name) -> bool {
        self.expected.get(&name).is_some_and(|subscribers| !subscribers.is_empty())
    }

    /// This Will Message must not be published. [MQTT-3.1.3-9]
    pub(crate) fn forbid(&mut self, will: Name) {
        self.forbidden.insert(will);
    }

    fn expect(&mut self, clients: &[Client], name: Name, qos: QoS) {
        let topic = topic_of(name);
        let kind = topic.split('/').next().unwrap_or_default();
        let is_shared = kind == "shared";
        let wanted = if is_shared { SHARED.to_owned() } else { format!("{kind}/#") };
        let subscribers = clients.iter().filter(|client| {
            client.is_subscribed
                && client.lifetime == Lifetime::Lasting
                && client.filters().iter().any(|(filter, _)| *filter == wanted)
        });
        let subscribers: Vec<_> = subscribers.map(|client| client.index).collect();
        if is_shared {
            self.shared.insert(name);
        }
        self.expected.insert(name, subscribers);
        self.qos.insert(name, qos);
    }

    /// The broker may refuse whatever comes now; its answer may not arrive.
    pub(crate) fn expect_refusals(&mut self, clients: &[Client]) {
        self.refusable.extend(clients.iter().flat_map(Client::unacknowledged));
    }

    /// The Session of this Client may have expired, and the CONNACK that would have said so was lost: at its next CONNECT
    /// it finds the Session that began meanwhile, takes it for its own, and repeats what it has not finished. MQTT has no
    /// cure for that.
    pub(crate) fn expect_repetitions(&mut self, client: &Client) {
        self.repeatable.extend(client.unacknowledged());
    }

    /// Acknowledged messages that somebody who should have them does not have.
    pub(crate) fn losses(&self, clients: &[Client]) -> Vec<String> {
        let mut losses = Vec::new();
        for (name, subscribers) in &self.expected {
            if !clients[name.0 % WILLS].acknowledged.contains(name) {
                continue;
            }
            let has = |index: &usize| clients[*index].received.contains_key(name);
            if self.shared.contains(name) {
                let is_lost =
                    !subscribers.is_empty() && !(0..clients.len()).any(|index| has(&index));
                losses.extend(is_lost.then(|| format!("{name:?} is lost to the group")));
            } else {
                let lost = subscribers.iter().filter(|index| !has(index));
                losses.extend(lost.map(|index| format!("{name:?} is lost to {index}")));
            }
        }
        losses
    }

    /// Everything that was wrong. `retained` finds the payload of the Retained Message of a topic.
    pub(crate) fn complaints(
        &self,
        clients: &[Client],
        retained: impl Fn(&str) -> Option<String>,
    ) -> Vec<String> {
        let mut complaints = self.losses(clients);
        for client in clients {
            let index = client.index;
            complaints.extend(client.complaints.iter().map(|text| format!("{index}: {text}")));
            if !client.is_quiet() {
                complaints.push(format!("{index} is stuck: {}", client.unfinished()));
            }
            for (name, count) in &client.received {
                if self.is_single(*name) && *count > 1 {
                    complaints.push(format!("{index} received {name:?} {count} times"));
                }
                if self.forbidden.contains(name) {
                    complaints.push(format!("{index} received {name:?}, a will that was revoked"));
                }
            }
            complaints.extend(self.disorder(client));
        }
        for name in &self.shared {
            let counts = clients.iter().filter_map(|client| client.received.get(name));
            let count: usize = counts.sum();
            if self.is_single(*name) && count > 1 {
                complaints.push(format!("the group received {name:?} {count} times"));
            }
        }
        complaints.extend(self.wrong_retained(clients, retained));
        complaints
    }

    /// Whether nobody may get this message twice.
    fn is_single(&self, name: Name) -> bool {
        self.qos[&name] != QoS::AtLeastOnce && !self.repeatable.contains(&name)
    }

    /// A topic holds what was acknowledged last, or something later: a message without an acknowledgement may have taken
    /// effect all the same, also one that was refused when it was repeated.
    pub(crate) fn wrong_retained(
        &self,
        clients: &[Client],
        retained: impl Fn(&str) -> Option<String>,
    ) -> Vec<String> {
        let mut complaints = Vec::new();
        for client in clients {
            let topic = format!("retained/{}", client.index);
            let mut acknowledged = client.acknowledged.range(..(WILLS, 0)).rev();
            let Some(last) = acknowledged.find(|name| topic_of(**name) == topic) else { continue };
            let found = retained(&topic);
            let sent = self.expected.range(last..=&(client.index, u64::MAX));
            let mut allowed = sent.map(|(name, _)| *name).filter(|name| topic_of(*name) == topic);
            if !allowed.any(|name| found.as_deref() == Some(&payload_of(name))) {
                complaints.push(format!("{topic} is {found:?}, acknowledged was {last:?}"));
            }
        }
        complaints
    }

    /// First arrivals of one publisher, topic and QoS must come in order. [MQTT-4.6.0-6]
    fn disorder(&self, client: &Client) -> Vec<String> {
        let mut last: BTreeMap<(usize, &str, QoS), u64> = BTreeMap::new();
        let mut complaints = Vec::new();
        for (name, topic, qos) in &client.arrivals {
            // Members of a group see what others leave, in any order. Who subscribed after a message was first sent
            // meets it first where its publisher repeats it.
            let was_subscribed = self.expected[name].contains(&client.index);
            if topic.starts_with("shared/") || !was_subscribed || self.refusable.contains(name) {
                continue;
            }
            let (publisher, number) = *name;
            let before = last.insert((publisher, topic, *qos), number);
            if before.is_some_and(|before| before > number) {
                complaints.push(format!("{}: {publisher}:{number} after {before:?}", client.index));
            }
        }
        complaints
    }
}

/// Every kind of topic has messages of several QoS, and an order for each.
fn qos_of(number: u64) -> QoS {
    match number % 8 {
        5 => QoS::AtMostOnce,
        1 | 3 | 6 | 7 => QoS::AtLeastOnce,
        _ => QoS::ExactlyOnce,
    }
}

/// The Shared Subscription.
pub(crate) const SHARED: &str = "$share/group/shared/#";

pub(crate) fn make_client(index: usize, rng: &mut SmallRng) -> Client {
    let is_v5 = rng.random_bool(0.5);
    let version = if is_v5 { ProtocolVersion::V5_0 } else { ProtocolVersion::V3_1_1 };
    let mut filters = Vec::new();
    if index.is_multiple_of(2) {
        filters.push(("plain/#".to_owned(), QoS::ExactlyOnce));
    }
    if index.is_multiple_of(3) {
        filters.push((SHARED.to_owned(), QoS::ExactlyOnce));
    }
    Client::new(index, version, filters)
}
