//! A cache of routing plans for the Topic Names that a Client published to recently: devices repeat their topics,
//! gateways those of all their devices, and a cached topic costs a few atomic loads instead of a walk through the
//! tree.

use std::cell::Cell;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hashbrown::HashTable;

use crate::broker::Broker;
use crate::broker::connection::publish::Refusal;
use crate::broker::route::Plan;
use crate::durable::message::SessionId;
use crate::topic::fingerprint::TopicHash;

/// Plans that every Client may cache; most need one or two.
const OWN_PLANS: usize = 8;
/// Most plans of one Client.
const MAX_PLANS: usize = 8_192;

/// Plans by topic. When the cache is full, a new topic clears it: frequent topics are added again at once, and rare
/// ones are gone.
#[derive(Default)]
pub(super) struct PlanCache {
    plans: HashTable<Box<Cached>>,
    hasher: foldhash::fast::RandomState,
    loan: Option<Loan>,
    /// Steps spent on making plans since the last query.
    steps: usize,
}

/// The cached entry of one topic.
pub(super) struct Cached {
    topic: Box<str>,
    hash: TopicHash,
    /// Why this Client may not publish to it, if so.
    pub(super) refusal: Option<Refusal>,
    /// The access revision at which that was decided. When it rises, all plans end.
    access_revision: u64,
    /// Whether its denial was already reported.
    pub(super) is_denial_noted: Cell<bool>,
    /// The plan for its messages.
    pub(super) plan: Plan,
}

/// Bytes of all plans that Clients cache beyond their own few. Parts shared by several plans are counted once,
/// elsewhere.
#[derive(Debug, Default)]
pub struct PlanBudget(AtomicUsize);

/// Whether the plans of all Clients together leave room for one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PlanRoom {
    Free,
    Full,
}

/// The share of one Client, released on drop.
struct Loan {
    budget: Arc<PlanBudget>,
    bytes: usize,
}

impl PlanCache {
    /// The plan for `topic`, made or refreshed if necessary. `refusal` is called once for a topic, and again when
    /// rules have changed.
    #[inline]
    pub(super) fn plan(
        &mut self,
        broker: &Broker,
        topic: &str,
        publisher: SessionId,
        refusal: impl FnOnce(&str) -> Option<Refusal>,
    ) -> &Cached {
        let Self { plans, hasher, loan, steps } = self;
        let hash = hasher.hash_one(topic);
        match plans.find_entry(hash, |cached| *cached.topic == *topic) {
            Ok(known) => {
                let cached = known.into_mut();
                if !broker.is_current(&cached.plan, &cached.hash) {
                    let plan = broker.plan(topic, &cached.hash, Some(publisher));
                    if let Some(loan) = loan {
                        loan.change(cached.plan.own_bytes(), plan.own_bytes());
                    }
                    *steps += plan.steps;
                    cached.plan = plan;
                    let access_revision = broker.access_revision();
                    if cached.access_revision != access_revision {
                        cached.access_revision = access_revision;
                        cached.refusal = refusal(topic);
                        cached.is_denial_noted.set(false);
                    }
                }
                cached
            }
            Err(absent) => {
                let plans = absent.into_table();
                if plans.len() >= OWN_PLANS {
                    make_room(plans, loan, broker.plan_room());
                }
                let topic_hash = TopicHash::of(topic);
                let plan = broker.plan(topic, &topic_hash, Some(publisher));
                *steps += plan.steps;
                if plans.len() >= OWN_PLANS {
                    let loan = loan.get_or_insert_with(|| Loan::new(broker.plan_budget()));
                    loan.change(0, plan.own_bytes() + topic.len() + CACHED_BYTES);
                }
                let access_revision = broker.access_revision();
                let refusal = refusal(topic);
                let cached = Cached {
                    topic: topic.into(),
                    hash: topic_hash,
                    refusal,
                    access_revision,
                    is_denial_noted: Cell::new(false),
                    plan,
                };
                plans
                    .insert_unique(hash, Box::new(cached), |known| hasher.hash_one(&*known.topic))
                    .into_mut()
            }
        }
    }

    /// Steps spent on making plans since the last call.
    #[inline]
    pub(super) fn take_steps(&mut self) -> usize {
        std::mem::take(&mut self.steps)
    }
}

/// The overhead of a plan in the table, besides itself and its topic.
const CACHED_BYTES: usize = size_of::<Cached>() - size_of::<Plan>() + 2 * size_of::<usize>();

/// Makes room for one more plan, by clearing the cache if it is full.
#[cold]
fn make_room<T>(plans: &mut HashTable<T>, loan: &mut Option<Loan>, room: PlanRoom) {
    if plans.len() >= MAX_PLANS || room == PlanRoom::Full {
        plans.clear();
        *loan = None;
    }
}

impl PlanBudget {
    /// Bytes in use.
    pub(crate) fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Loan {
    fn new(budget: &Arc<PlanBudget>) -> Self {
        Self { budget: Arc::clone(budget), bytes: 0 }
    }

    /// Changes the share from `old` to `new` bytes. One of the first plans may have grown, so only the total is
    /// exact, and as much is released as was taken.
    fn change(&mut self, old: usize, new: usize) {
        let before = self.bytes;
        self.bytes = (before + new).saturating_sub(old);
        match self.bytes.checked_sub(before) {
            Some(more) => self.budget.0.fetch_add(more, Ordering::Relaxed),
            None => self.budget.0.fetch_sub(before - self.bytes, Ordering::Relaxed),
        };
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.budget.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_is_given_back() {
        let budget = Arc::new(PlanBudget::default());
        let mut loans: Vec<_> = (0..3).map(|_| Loan::new(&budget)).collect();
        loans[0].change(0, 1_000);
        loans[1].change(0, 500);
        loans[1].change(500, 700);
        loans[2].change(300, 200);
        assert_eq!(budget.bytes(), 1_700);
        loans[1].change(900, 100);
        assert_eq!(budget.bytes(), 1_000);
        drop(loans);
        assert_eq!(budget.bytes(), 0);
    }

    #[test]
    fn a_cache_that_may_not_grow_forgets_everything() {
        let budget = Arc::new(PlanBudget::default());
        let mut loan = Some(Loan::new(&budget));
        loan.as_mut().unwrap().change(0, 100);
        let mut plans: HashTable<usize> = HashTable::new();
        for number in 0..MAX_PLANS {
            plans.insert_unique(number as u64, number, |number| *number as u64);
        }
        make_room(&mut plans, &mut loan, PlanRoom::Free);
        assert_eq!((plans.len(), budget.bytes()), (0, 0));
        plans.insert_unique(1, 1, |number| *number as u64);
        make_room(&mut plans, &mut loan, PlanRoom::Free);
        assert_eq!(plans.len(), 1);
        make_room(&mut plans, &mut loan, PlanRoom::Full);
        assert!(plans.is_empty());
    }
}
