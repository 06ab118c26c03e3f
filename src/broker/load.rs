//! Loads a broker from its store: Sessions, their Subscriptions and groups, Retained Messages. Queues stay in the
//! store.

use std::cmp::Reverse;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};

use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::access::Authority;
use crate::broker::ended::Ended;
use crate::broker::limits::Limits;
use crate::broker::registry::Registry;
use crate::broker::route::Destination;
use crate::broker::timers::Timers;
use crate::broker::wills::LostWills;
use crate::broker::{Broker, Figures};
use crate::durable::change::{QueueChange, SessionChange};
use crate::durable::message::{Sequence, Timestamp};
use crate::durable::record::{Loaded, LoadedQueue, LoadedSession, QueueOwner, SessionRecord};
use crate::durable::{Durability, Store};
use crate::session::Session;
use crate::session::effects::Effects;
use crate::session::group::Group;
use crate::session::inbound::{Inbound, Will};
use crate::session::outbound::{Outbound, Persistence};
use crate::session::owner::SessionOwner;
use crate::session::queue::Queue;
use crate::session::subscriptions::SubscriptionState;
use crate::topic::filter::TopicFilter;
use crate::topic::retained_tree::RetainedTree;
use crate::topic::subscription_tree::SubscriptionTree;

impl Broker {
    /// Creates a broker that continues from the state of its store. `seed` is a random number.
    #[must_use]
    pub fn new(
        limits: Limits,
        store: Arc<dyn Store>,
        authority: Arc<dyn Authority>,
        loaded: Loaded,
        seed: u64,
    ) -> Self {
        let has_rules = authority.has_rules();
        let broker = Self {
            limits,
            store,
            authority,
            registry: Registry::new(),
            tree: SubscriptionTree::new(seed),
            groups: Mutex::new(HashMap::new()),
            retained: RetainedTree::new(seed.rotate_left(32)),
            timers: Timers::default(),
            // Zero is the broker itself.
            next_session: AtomicU64::new(1),
            issuer: loaded.issuer,
            internal_messages: AtomicU64::new(loaded.issuer.first_message()),
            is_draining: AtomicBool::new(false),
            is_over_total: AtomicBool::new(false),
            figures: Figures::default(),
            neighbours: OnceLock::new(),
            secret: OnceLock::new(),
            recipient_lists: Arc::default(),
            plan_budget: Arc::default(),
            access_revision: AtomicU64::new(0),
            has_rules,
            ended: Ended::default(),
            retained_order: Mutex::default(),
            lost_wills: LostWills::default(),
        };
        for message in loaded.retained {
            let _replaced = broker.retained.set(message);
        }
        let mut effects = Effects::new();
        for found in loaded.queues {
            broker.load_queue(&found, &mut effects);
        }
        // A crash between the record of a new Session and the removal of the old one leaves both: the newest applies.
        let mut clients = loaded.sessions;
        clients.sort_by_key(|found| Reverse(found.record.id));
        for found in clients {
            broker.load_session(found, loaded.now, &mut effects);
        }
        broker.end_empty_groups(&mut effects);
        broker.submit_changes(&mut effects);
        broker
    }

    /// A queue that belongs to no Session.
    fn load_queue(&self, found: &LoadedQueue, effects: &mut Effects) {
        let record = &found.record;
        let parsed = match &record.owner {
            QueueOwner::Group { filter } => TopicFilter::parse(filter).ok().map(|it| (filter, it)),
            QueueOwner::Session => None,
        };
        let Some((filter, parsed)) = parsed else {
            effects.persist(QueueChange::Delete(record.id), Durability::Memory);
            return;
        };
        let queue = restore_queue(found);
        let group =
            Group::new(Arc::clone(filter), parsed.filter.clone(), queue, Persistence::Durable);
        let group = Arc::new(group.with_record(record));
        self.groups.lock().insert(Arc::clone(filter), Arc::clone(&group));
        self.tree.subscribe(&parsed.filter, Destination::Group(group), Default::default(), None);
    }

    fn load_session(&self, found: LoadedSession, now: Timestamp, effects: &mut Effects) {
        let record = &found.record;
        if record.expiry_seconds == 0 {
            self.load_will(&found, now, effects);
            return;
        }
        let mut inbound = self.restore_inbound(record);
        inbound.incoming.extend(found.incoming.iter().copied());
        // If it was connected when the broker stopped, its Network Connection ended with the broker.
        inbound.disconnected = Some(record.disconnected.unwrap_or(now));
        let mut outbound = Outbound::new(Persistence::Durable, restore_queue(&found.queue));
        outbound.set_own_queue(found.queue.record.rules);
        outbound.set_sent_until(match record.disconnected {
            Some(_) => record.sent_until,
            // It is not recorded what was sent before a crash: at most a window from the start, and nothing beyond
            // the end.
            None => {
                let window_end = found.queue.start.0 + u64::from(self.limits.max_inflight);
                found.queue.end.min(Sequence(window_end))
            }
        });
        let session = Arc::new(Session::new(Arc::clone(&record.client_id), inbound, outbound));
        if !self.registry.insert(&session) {
            effects.persist(SessionChange::Delete(record.id), Durability::Memory);
            return;
        }
        let mut inbound = session.inbound();
        for subscription in &found.subscriptions {
            let state = SubscriptionState {
                options: subscription.options,
                subscription_id: subscription.subscription_id.unwrap_or(0),
            };
            let Ok(parsed) = TopicFilter::parse(&subscription.filter) else { continue };
            self.add_subscription(&session, &mut inbound, &parsed, state, effects);
        }
        if record.disconnected.is_none() {
            // Its expiry starts here, even if the broker stops again before its Client returns.
            self.persist_session(&session, &mut inbound, effects);
        }
        self.schedule(&session, &inbound);
    }

    /// Loads a Session that ended with its Network Connection, and so with the last run of the broker. Only its Will
    /// Message is left, which is published unless its Client comes back in time.
    fn load_will(&self, found: &LoadedSession, now: Timestamp, effects: &mut Effects) {
        let record = &found.record;
        let is_bare = found.subscriptions.is_empty()
            && found.incoming.is_empty()
            && found.queue.start == found.queue.end;
        let mut inbound = self.restore_inbound(record);
        inbound.disconnected = Some(now);
        let Some(will) = inbound.will.as_mut() else {
            effects.persist(SessionChange::Delete(record.id), Durability::Memory);
            return;
        };
        will.is_left_behind = true;
        let (id, persistence) = (record.id, Persistence::Transient);
        let outbound = Outbound::new(persistence, Queue::new(id));
        let session = Arc::new(Session::new(Arc::clone(&record.client_id), inbound, outbound));
        if !self.registry.insert(&session) {
            effects.persist(SessionChange::Delete(id), Durability::Memory);
            return;
        }
        if !is_bare {
            // It may have been durable once. Only the record stays, until the Will Message is published or dropped.
            effects.persist(SessionChange::Delete(id), Durability::Memory);
            effects.persist(SessionChange::Put(Box::new(record.clone())), Durability::Memory);
        }
        self.timers.add(now.plus(self.limits.will_after_restart), &session);
    }

    /// Restores the inbound half of a Session from its record.
    fn restore_inbound(&self, record: &SessionRecord) -> Inbound {
        let mut inbound = Inbound::new(self.first_message());
        inbound.epoch = record.epoch;
        inbound.expiry_seconds = record.expiry_seconds;
        inbound.owner = SessionOwner::from_record(record.user_name.as_ref());
        inbound.has_record = true;
        inbound.will = record.will.as_ref().map(|will| Will {
            message: Arc::clone(&will.message),
            delay_seconds: will.delay_seconds,
            is_left_behind: false,
        });
        inbound
    }

    /// Ends groups without members.
    fn end_empty_groups(&self, effects: &mut Effects) {
        let groups: Vec<_> = self.groups.lock().values().cloned().collect();
        for group in groups.iter().filter(|group| group.is_deserted()) {
            self.forget_group(group);
            effects.persist(QueueChange::Delete(group.id()), Durability::Memory);
        }
    }
}

fn restore_queue(found: &LoadedQueue) -> Queue {
    Queue::from_store(
        found.record.id,
        found.start,
        found.end,
        found.message_count,
        found.message_bytes,
    )
}

#[cfg(test)]
mod tests;
