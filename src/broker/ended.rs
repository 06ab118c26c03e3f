//! Cleans up after ended Sessions: Subscriptions in the tree, memberships in groups, pending Retained Messages. A Session
//! may have a hundred thousand of each; they are removed in pieces, within the budget of a turn. Messages no longer reach
//! such a Session, and its Client may be back with a new one, so entries that are still in the tree have no effect.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::broker::Broker;
use crate::broker::route::Destination;
use crate::session::Session;
use crate::session::effects::Effects;
use crate::session::inbound::Inbound;
use crate::session::memberships::Memberships;
use crate::session::retained_delivery::RetainedDeliveries;
use crate::session::subscriptions::Subscriptions;
use crate::session::work::SUBSCRIPTION_STEPS;

/// Everything that waits to be cleaned up, oldest first.
#[derive(Default)]
pub(super) struct Ended {
    /// Read without the lock, because mostly there is nothing.
    count: AtomicUsize,
    waiting: Mutex<VecDeque<Leavings>>,
}

/// What one Session has left.
pub(super) struct Leavings {
    session: Arc<Session>,
    subscriptions: Subscriptions,
    groups: Memberships,
    retained: RetainedDeliveries,
}

impl Leavings {
    /// Takes everything from a Session that has ended.
    pub(super) fn of(session: &Arc<Session>, inbound: &mut Inbound) -> Self {
        inbound.subscription_bytes = 0;
        Self {
            session: Arc::clone(session),
            subscriptions: std::mem::take(&mut inbound.subscriptions),
            groups: std::mem::take(&mut inbound.groups),
            retained: inbound.retained.take(),
        }
    }
}

impl Broker {
    /// Continues the clean-up as far as the budget goes; true if there is more. The shell calls it about once a second,
    /// and at once while there is more.
    pub(crate) fn take_ended_apart(&self, effects: &mut Effects) -> bool {
        while self.ended.count.load(Ordering::Relaxed) > 0 && !effects.budget.is_spent() {
            // The lock is not held while one is cleaned up.
            let Some(mut leavings) = self.ended.waiting.lock().pop_front() else { break };
            if self.take_apart(&mut leavings, effects) {
                self.ended.count.fetch_sub(1, Ordering::Relaxed);
            } else {
                self.ended.waiting.lock().push_front(leavings);
            }
        }
        self.ended.count.load(Ordering::Relaxed) > 0
    }

    /// Cleans up small leavings at once; the rest waits.
    pub(super) fn leave_behind(&self, mut leavings: Leavings, effects: &mut Effects) {
        if !self.take_apart(&mut leavings, effects) {
            self.ended.waiting.lock().push_back(leavings);
            self.ended.count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// False if the budget was spent before everything was done.
    fn take_apart(&self, leavings: &mut Leavings, effects: &mut Effects) -> bool {
        let Leavings { session, subscriptions, groups, retained } = leavings;
        let destination = Destination::Session(Arc::clone(session));
        while !effects.budget.is_spent() {
            if let Some(places) = subscriptions.take_some() {
                for place in places {
                    let levels = self.tree.unsubscribe_at(place, &destination);
                    effects.budget.spend(SUBSCRIPTION_STEPS + 2 * levels);
                }
            } else if let Some(group) = groups.pop() {
                effects.budget.spend(2 * SUBSCRIPTION_STEPS + group.member_count() / 16);
                self.leave_group(&group, session, effects);
            } else if retained.pop().is_some() {
                effects.budget.spend(2);
            } else {
                return true;
            }
        }
        false
    }
}
