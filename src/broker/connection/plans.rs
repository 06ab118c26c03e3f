//! The last Topic Names that a Client published to, with where their messages go: devices repeat
//! their topics, gateways those of all their devices, and a repeated topic costs a few atomic loads
//! instead of a walk of the tree.

use std::cell::Cell;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hashbrown::HashTable;

use crate::broker::Broker;
use crate::broker::route::Plan;
use crate::durable::message::SessionId;
use crate::topic::fingerprint::TopicHash;

/// Plans that every Client may keep; most need one or two.
const OWN_PLANS: usize = 256;
/// Plans at most for one Client: some 250 bytes each, besides the topic.
const MAX_PLANS: usize = 8_192;
/// Plans beyond [`OWN_PLANS`] that all Clients together may keep: about 100 MB. Who gets none looks up
/// anew what does not fit.
const SHARED_PLANS: usize = 1 << 18;

/// Plans by topic. Once it may not grow any more, a new topic makes it forget all others: what is
/// published often comes back at once, and what was published once is gone.
#[derive(Default)]
pub(super) struct PlanCache {
    plans: HashTable<Box<Cached>>,
    hasher: foldhash::fast::RandomState,
    loan: Option<Loan>,
}

/// What is known of one topic.
pub(super) struct Cached {
    topic: Box<str>,
    hash: TopicHash,
    /// Whether this Client may publish to it.
    pub(super) is_allowed: bool,
    /// Whether it has been remarked that it may not.
    pub(super) is_denial_noted: Cell<bool>,
    /// Where its messages go.
    pub(super) plan: Plan,
}

/// How many plans beyond their own Clients can still have.
#[derive(Debug)]
pub struct PlanBudget(AtomicUsize);

/// Plans from the common budget, given back with it.
struct Loan {
    budget: Arc<PlanBudget>,
    plans: usize,
}

impl PlanCache {
    /// The plan for `topic`, made or made anew if need be. `is_allowed` is asked once for a topic.
    #[inline]
    pub(super) fn plan(
        &mut self,
        broker: &Broker,
        topic: &str,
        publisher: SessionId,
        is_allowed: impl FnOnce(&str) -> bool,
    ) -> &Cached {
        let Self { plans, hasher, loan } = self;
        let hash = hasher.hash_one(topic);
        match plans.find_entry(hash, |cached| *cached.topic == *topic) {
            Ok(known) => {
                let cached = known.into_mut();
                if !broker.is_current(&cached.plan, &cached.hash) {
                    cached.plan = broker.plan(topic, &cached.hash, Some(publisher));
                }
                cached
            }
            Err(absent) => {
                let plans = absent.into_table();
                make_room(plans, loan, broker.plan_budget());
                let topic_hash = TopicHash::of(topic);
                let plan = broker.plan(topic, &topic_hash, Some(publisher));
                let is_allowed = is_allowed(topic);
                let cached = Cached {
                    topic: topic.into(),
                    hash: topic_hash,
                    is_allowed,
                    is_denial_noted: Cell::new(false),
                    plan,
                };
                plans
                    .insert_unique(hash, Box::new(cached), |known| hasher.hash_one(&*known.topic))
                    .into_mut()
            }
        }
    }
}

/// Makes room for one more: doubles the loan, or forgets everything.
#[cold]
fn make_room<T>(plans: &mut HashTable<T>, loan: &mut Option<Loan>, budget: &Arc<PlanBudget>) {
    let lent = loan.as_ref().map_or(0, |loan| loan.plans);
    let allowed = OWN_PLANS + lent;
    if plans.len() < allowed {
        return;
    }
    if 2 * allowed <= MAX_PLANS && budget.take(allowed) {
        match loan {
            Some(loan) => loan.plans += allowed,
            None => *loan = Some(Loan { budget: Arc::clone(budget), plans: allowed }),
        }
    } else {
        plans.clear();
    }
}

impl Default for PlanBudget {
    fn default() -> Self {
        Self(AtomicUsize::new(SHARED_PLANS))
    }
}

impl PlanBudget {
    fn take(&self, plans: usize) -> bool {
        let left = |left: usize| left.checked_sub(plans);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left).is_ok()
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.budget.0.fetch_add(self.plans, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(plans: &mut HashTable<usize>, loan: &mut Option<Loan>, budget: &Arc<PlanBudget>) {
        for number in 0..2 * MAX_PLANS {
            make_room(plans, loan, budget);
            plans.insert_unique(number as u64, number, |number| *number as u64);
            assert!(plans.len() <= MAX_PLANS);
        }
    }

    #[test]
    fn plans_beyond_the_own_are_lent_and_given_back() {
        let budget = Arc::new(PlanBudget::default());
        let (mut plans, mut loan) = (HashTable::new(), None);
        fill(&mut plans, &mut loan, &budget);
        assert_eq!(plans.len(), MAX_PLANS);
        assert_eq!(budget.0.load(Ordering::Relaxed), SHARED_PLANS - (MAX_PLANS - OWN_PLANS));
        drop(loan);
        assert_eq!(budget.0.load(Ordering::Relaxed), SHARED_PLANS);
    }

    #[test]
    fn without_a_loan_there_are_the_own_plans() {
        let budget = Arc::new(PlanBudget(AtomicUsize::new(OWN_PLANS - 1)));
        let (mut plans, mut loan) = (HashTable::new(), None);
        fill(&mut plans, &mut loan, &budget);
        assert_eq!((plans.len(), loan.is_none()), (OWN_PLANS, true));
    }
}
