//! The Subscriptions of Sessions: in the tree, in Shared Subscription groups, and as places and groups in the
//! Session. Changes require the Inbound lock of the Session, so that the three always agree.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::broker::Broker;
use crate::broker::route::Destination;
use crate::durable::change::{QueueChange, SessionChange};
use crate::durable::record::SubscriptionRecord;
use crate::packet::subscribe::SubscriptionOptions;
use crate::session::Session;
use crate::session::effects::Effects;
use crate::session::group::JoinResult;
use crate::session::inbound::Inbound;
use crate::session::outbound::Persistence;
use crate::session::subscriptions::SubscriptionState;
use crate::topic::filter::{ParsedFilter, TopicFilter};
use crate::topic::name::level_count;

/// What [`Broker::add_subscription`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Added {
    /// There was none with this filter.
    New,
    /// It replaced one with the same filter.
    Replaced,
}

impl Broker {
    /// Whether a Session subscribes to this filter.
    pub(crate) fn has_subscription(
        &self,
        session: &Arc<Session>,
        inbound: &Inbound,
        parsed: &ParsedFilter,
    ) -> bool {
        if parsed.share.is_some() {
            return inbound.groups.find(&parsed.full).is_some();
        }
        let destination = Destination::Session(Arc::clone(session));
        self.tree.options(&parsed.filter, &destination).is_some()
    }

    /// The full filters of a Session's Subscriptions, including `$share/…/`, in no particular order.
    pub(crate) fn subscription_filters(&self, inbound: &Inbound) -> Vec<String> {
        let unshared = inbound.subscriptions.iter().map(|place| self.tree.filter(place));
        let shared = inbound.groups.iter().map(|group| group.full().to_string());
        unshared.chain(shared).collect()
    }

    /// Adds or replaces a Subscription. [MQTT-3.8.4-3]
    pub(crate) fn add_subscription(
        &self,
        session: &Arc<Session>,
        inbound: &mut Inbound,
        parsed: &ParsedFilter,
        state: SubscriptionState,
        effects: &mut Effects,
    ) -> Added {
        let is_new = if parsed.share.is_some() {
            self.join_group(session, inbound, parsed, state, effects)
        } else {
            let destination = Destination::Session(Arc::clone(session));
            let subscription_id = NonZeroU32::new(state.subscription_id);
            let filter = &parsed.filter;
            let added = self.tree.subscribe(filter, destination, state.options, subscription_id);
            if added.replaced.is_none() {
                inbound.subscriptions.insert(added.place);
            }
            added.replaced.is_none()
        };
        effects.budget.spend(level_count(parsed.filter.as_str()));
        if is_new {
            inbound.subscription_bytes += subscription_bytes(parsed);
            self.figures.subscriptions.fetch_add(1, Ordering::Relaxed);
            return Added::New;
        }
        Added::Replaced
    }

    /// Makes a Session a member of a Shared Subscription group, or changes its membership; returns whether it is new.
    fn join_group(
        &self,
        session: &Arc<Session>,
        inbound: &mut Inbound,
        parsed: &ParsedFilter,
        state: SubscriptionState,
        effects: &mut Effects,
    ) -> bool {
        let persistence = inbound.persistence();
        loop {
            let group = self.group(&parsed.full, &parsed.filter, Persistence::Transient);
            match group.join(session, state.options, state.subscription_id, persistence) {
                JoinResult::Member => {}
                JoinResult::MadeDurable => {
                    let change = QueueChange::Put(Box::new(group.record()));
                    effects.persist(change, self.session_durability());
                }
                JoinResult::Ended => {
                    // The last member left between finding the group and joining it.
                    self.forget_group(&group);
                    continue;
                }
            }
            let destination = Destination::Group(Arc::clone(&group));
            self.tree.subscribe(&parsed.filter, destination, SubscriptionOptions::default(), None);
            let is_new = inbound.groups.insert(group);
            if is_new {
                self.figures.shared_subscriptions.fetch_add(1, Ordering::Relaxed);
            }
            return is_new;
        }
    }

    /// Removes a Subscription; returns whether there was one. [MQTT-3.10.4-1]
    pub(crate) fn remove_subscription(
        &self,
        session: &Arc<Session>,
        inbound: &mut Inbound,
        parsed: &ParsedFilter,
        effects: &mut Effects,
    ) -> bool {
        if parsed.share.is_some() {
            let Some(group) = inbound.groups.remove(&parsed.full) else { return false };
            effects.budget.spend(group.member_count() / 16);
            self.leave_group(&group, session, effects);
            self.figures.shared_subscriptions.fetch_sub(1, Ordering::Relaxed);
        } else {
            let destination = Destination::Session(Arc::clone(session));
            let Some(place) = self.tree.unsubscribe(&parsed.filter, &destination) else {
                return false;
            };
            inbound.subscriptions.remove(place);
        }
        effects.budget.spend(level_count(parsed.filter.as_str()));
        inbound.subscription_bytes =
            inbound.subscription_bytes.saturating_sub(subscription_bytes(parsed));
        self.figures.subscriptions.fetch_sub(1, Ordering::Relaxed);
        true
    }

    /// Subtracts the Subscriptions of an ending Session from the counts: they are removed from the tree and the
    /// groups piece by piece.
    pub(crate) fn uncount_subscriptions(&self, inbound: &Inbound) {
        let shared_count = inbound.groups.len() as u64;
        let count = inbound.subscription_count() as u64;
        self.figures.subscriptions.fetch_sub(count, Ordering::Relaxed);
        self.figures.shared_subscriptions.fetch_sub(shared_count, Ordering::Relaxed);
    }

    /// Whether a Session may subscribe to this filter within the limits; an existing Subscription may be replaced.
    pub(crate) fn has_room_for(
        &self,
        session: &Arc<Session>,
        inbound: &Inbound,
        parsed: &ParsedFilter,
    ) -> bool {
        let limits = &self.limits;
        let bytes = inbound.subscription_bytes.saturating_add(subscription_bytes(parsed));
        let is_within = inbound.subscription_count() < limits.max_subscriptions
            && bytes <= limits.max_subscription_bytes
            && self.tree.admits(&parsed.filter, limits.max_wildcard_placements)
            && (parsed.share.is_none() || self.has_room_for_group(inbound, parsed));
        is_within || self.has_subscription(session, inbound, parsed)
    }

    fn has_room_for_group(&self, inbound: &Inbound, parsed: &ParsedFilter) -> bool {
        let groups = self.groups.lock();
        inbound.groups.len() < self.limits.max_session_groups
            && (groups.len() < self.limits.max_groups || groups.contains_key(&parsed.full))
    }

    /// Gives a durable Session exactly the Subscriptions `wanted`; no Retained Messages follow. False if there is no such
    /// Session. For parts of the broker, which need not connect for this: a Network Connection would receive the queued
    /// messages, and QoS 0 messages would be lost.
    pub(crate) fn replace_subscriptions(
        &self,
        client_id: &str,
        wanted: &[(String, SubscriptionOptions)],
        effects: &mut Effects,
    ) -> bool {
        let Some(session) = self.registry.find(client_id) else { return false };
        let mut inbound = session.inbound();
        if inbound.ended || !inbound.is_durable() {
            return false;
        }
        let mut stale = self.subscription_filters(&inbound);
        stale.retain(|full| !wanted.iter().any(|(filter, _)| filter == full));
        for full in stale {
            let Ok(parsed) = TopicFilter::parse(&full) else { continue };
            if let Some(retained) = inbound.retained.as_mut() {
                retained.remove(&parsed.filter);
            }
            self.remove_subscription(&session, &mut inbound, &parsed, effects);
            let change =
                SessionChange::DeleteSubscription { session: session.id(), filter: parsed.full };
            effects.persist(change, self.session_durability());
        }
        for (filter, options) in wanted {
            let Ok(parsed) = TopicFilter::parse(filter) else { continue };
            let state = SubscriptionState { options: *options, subscription_id: 0 };
            let record = SubscriptionRecord {
                session: session.id(),
                filter: Arc::clone(&parsed.full),
                options: *options,
                subscription_id: None,
            };
            self.add_subscription(&session, &mut inbound, &parsed, state, effects);
            effects.persist(
                SessionChange::PutSubscription(Box::new(record)),
                self.session_durability(),
            );
        }
        drop(inbound);
        self.carry_out(effects);
        true
    }
}

/// The memory counted for a Subscription: the text of its filter, a node with its share of the tables for each level
/// (as if no other filter shared it), the entry itself and its place in its Session.
fn subscription_bytes(parsed: &ParsedFilter) -> usize {
    /// The approximate size of a node and its place in the table of children.
    const LEVEL_BYTES: usize = 56;
    /// A Subscription and its place in its Session.
    const OWN_BYTES: usize = 64;
    /// A group with its queue.
    const GROUP_BYTES: usize = 512;
    let group_bytes = if parsed.share.is_some() { GROUP_BYTES } else { 0 };
    parsed.full.len() + level_count(parsed.filter.as_str()) * LEVEL_BYTES + OWN_BYTES + group_bytes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::auth::authority::DefaultAuthority;
    use crate::broker::limits::Limits;
    use crate::durable::message::{Sequence, SessionId, Timestamp};
    use crate::durable::record::{LoadedQueue, LoadedSession, QueueRecord, SessionRecord};
    use crate::store::memory::MemoryStore;

    /// A broker with one absent Session, which the store had with these Subscriptions.
    fn broker(filters: &[String]) -> (Broker, Arc<Session>) {
        let (store, mut loaded, _clock) = MemoryStore::open();
        let id = SessionId(1);
        let record = SessionRecord {
            id,
            client_id: "a".into(),
            epoch: 1,
            expiry_seconds: u32::MAX,
            disconnected: Some(Timestamp(1)),
            sent_until: Sequence(0),
            will: None,
            user_name: None,
        };
        let subscriptions = filters.iter().map(|filter| SubscriptionRecord {
            session: id,
            filter: filter.as_str().into(),
            options: SubscriptionOptions::default(),
            subscription_id: None,
        });
        loaded.sessions = vec![LoadedSession {
            record,
            subscriptions: subscriptions.collect(),
            incoming: Vec::new(),
            queue: LoadedQueue::empty(QueueRecord::of_session(id)),
        }];
        let authority = Arc::new(DefaultAuthority::new(None));
        let broker = Broker::new(Limits::default(), Arc::new(store), authority, loaded, 0);
        let session = broker.registry().find("a").expect("loaded");
        (broker, session)
    }

    fn filters() -> Vec<String> {
        let unshared = (0..100).map(|number| format!("site/{}/{number}/#", number % 3));
        let shared = (0..3).map(|number| format!("$share/group/site/{number}/+"));
        unshared.chain(shared).chain(["#", "+/a", "$share/all/#"].map(str::to_owned)).collect()
    }

    fn figures(broker: &Broker) -> [u64; 2] {
        let figures = broker.figures();
        [&figures.subscriptions, &figures.shared_subscriptions].map(|f| f.load(Ordering::Relaxed))
    }

    fn expect_filters<'a>(
        broker: &Broker,
        session: &Session,
        expected: impl IntoIterator<Item = &'a String>,
    ) {
        let expected: BTreeSet<String> = expected.into_iter().cloned().collect();
        let inbound = session.inbound();
        let shared = expected.iter().filter(|filter| filter.starts_with("$share/")).count();
        assert_eq!(inbound.subscription_count(), expected.len());
        assert_eq!(figures(broker), [expected.len(), shared].map(|count| count as u64));
        assert_eq!(
            broker.subscription_filters(&inbound).into_iter().collect::<BTreeSet<_>>(),
            expected
        );
    }

    #[test]
    fn a_loaded_session_knows_its_filters_and_ends_without_a_trace() {
        let filters = filters();
        let (broker, session) = broker(&filters);
        expect_filters(&broker, &session, &filters);
        let mut effects = Effects::new();
        broker.end_session(&session, &mut session.inbound(), &mut effects);
        expect_filters(&broker, &session, []);
        assert_eq!(broker.tree.item_counts(), [0; 3]);
        assert!(broker.groups.lock().is_empty());
    }

    #[test]
    fn subscriptions_are_new_once_and_removed_once() {
        let filters = filters();
        let (broker, session) = broker(&[]);
        let state =
            SubscriptionState { options: SubscriptionOptions::default(), subscription_id: 0 };
        let mut effects = Effects::new();
        for expected in [Added::New, Added::Replaced] {
            for filter in &filters {
                let parsed = TopicFilter::parse(filter).unwrap();
                let inbound = &mut session.inbound();
                let is_known = broker.has_subscription(&session, inbound, &parsed);
                assert_eq!(is_known, expected == Added::Replaced);
                let added =
                    broker.add_subscription(&session, inbound, &parsed, state, &mut effects);
                assert_eq!(added, expected, "{filter}");
            }
            expect_filters(&broker, &session, &filters);
        }
        for existed in [true, false] {
            for filter in &filters[50..] {
                let parsed = TopicFilter::parse(filter).unwrap();
                let inbound = &mut session.inbound();
                let removed = broker.remove_subscription(&session, inbound, &parsed, &mut effects);
                assert_eq!(removed, existed, "{filter}");
                assert!(!broker.has_subscription(&session, inbound, &parsed));
            }
            expect_filters(&broker, &session, &filters[..50]);
        }
    }

    #[test]
    fn a_session_can_be_given_exactly_these_subscriptions() {
        let filters = filters();
        let (broker, session) = broker(&filters[..60]);
        let wanted: Vec<_> =
            filters[40..].iter().map(|f| (f.clone(), SubscriptionOptions::default())).collect();
        assert!(broker.replace_subscriptions("a", &wanted, &mut Effects::new()));
        expect_filters(&broker, &session, &filters[40..]);
        assert!(!broker.replace_subscriptions("b", &wanted, &mut Effects::new()));
    }
}
