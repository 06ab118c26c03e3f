//! The tree of all Subscriptions, which finds the destinations of a Topic Name.
//!
//! All connections use it concurrently through a shared reference. The broker adds and removes; publishers match. The
//! tree is divided into shards, so that writers rarely contend: a filter whose first two levels are literal is in the
//! shard that these levels hash to, any other in the wildcard shard. So a Topic Name concerns at most two shards. A
//! write lock is held for one Subscription, a few microseconds: no table is ever rehashed and no array moved as a
//! whole, so a publish waits no longer than that, even while ten thousand Clients subscribe.
//! `docs/decisions/2026-11-21-subscription-tree.md` has the measurements.

use std::hash::Hash;
use std::hint;
use std::mem;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{RwLock, RwLockReadGuard};

use crate::packet::subscribe::SubscriptionOptions;
use crate::topic::filter::TopicFilter;
use crate::topic::fingerprint::{Fingerprint, TopicHash, Versions};
use crate::topic::index_table::HashSeed;
use crate::topic::name::level_count;
pub use crate::topic::subscriber_set::Match;
use crate::topic::subscriber_set::{Collector, SharedMatches};
use crate::topic::subscription_branch::{BranchPlace, SubscriptionBranch};
use crate::topic::subscription_place::SubscriptionPlace;
use crate::topic::wildcard_placements::WildcardPlacements;

/// Shards for filters that start with two literal levels.
const LITERAL_SHARDS: u8 = 64;

/// The shard for all other filters, behind those.
const WILDCARD_SHARD: u8 = LITERAL_SHARDS;

/// Attempts to get a lock before waiting for it: some microseconds.
const TRIES_BEFORE_WAITING: usize = 128;

/// Subscriptions by Topic Filter, see the module. `D` is a cheap handle of a destination: a Session
/// or a group of a Shared Subscription.
#[derive(Debug)]
pub struct SubscriptionTree<D> {
    seed: HashSeed,
    shards: Box<[Shard<D>]>,
    versions: Versions,
    placements: WildcardPlacements,
}

/// The result of adding a Subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscribed {
    /// Where its filter is while it exists.
    pub place: SubscriptionPlace,
    /// The options of the Subscription that it replaces.
    pub replaced: Option<SubscriptionOptions>,
}

/// Aligned to avoid false sharing, because all cores write to the locks.
#[derive(Debug)]
#[repr(align(128))]
struct Shard<D> {
    /// Subscriptions in the branch: a publish does not lock an empty shard.
    len: AtomicUsize,
    branch: RwLock<SubscriptionBranch<D>>,
}

impl<D> Default for Shard<D> {
    fn default() -> Self {
        Self { len: AtomicUsize::new(0), branch: RwLock::default() }
    }
}

impl<D: Clone + Eq + Hash> SubscriptionTree<D> {
    /// An empty tree. `seed` is a random number, so that Clients cannot choose colliding topics.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed: HashSeed::new(seed),
            shards: (0..=WILDCARD_SHARD).map(|_| Shard::default()).collect(),
            versions: Versions::new(),
            placements: WildcardPlacements::default(),
        }
    }

    /// Adds a Subscription. If this destination already subscribes to this filter, that Subscription is replaced and
    /// its options are returned. [MQTT-3.8.4-3]
    pub fn subscribe(
        &self,
        filter: &TopicFilter,
        destination: D,
        options: SubscriptionOptions,
        subscription_id: Option<NonZeroU32>,
    ) -> Subscribed {
        let added = Match { destination, subscription_id, options };
        let filter = filter.as_str();
        let shard = self.shard_of(filter);
        let (BranchPlace { node, ending }, replaced) =
            self.shard(shard).change(|branch| branch.subscribe(&self.seed, filter, added));
        // After the change, see `fingerprint`.
        self.versions.raise(filter);
        if replaced.is_none() {
            self.placements.add(filter);
        }
        let place = SubscriptionPlace { node, shard, ending };
        Subscribed { place, replaced: replaced.map(|replaced| replaced.options) }
    }

    /// Removes a Subscription; returns the place of its filter, if it existed. [MQTT-3.10.4-1]
    pub fn unsubscribe(&self, filter: &TopicFilter, destination: &D) -> Option<SubscriptionPlace> {
        let filter = filter.as_str();
        let shard = self.shard_of(filter);
        let removed = self.shard(shard).change(|branch| {
            let place = branch.find(&self.seed, filter)?;
            // Returned, because the destination must be dropped outside the lock.
            let removed = branch.unsubscribe(&self.seed, place, destination)?;
            Some((place, removed))
        });
        let (BranchPlace { node, ending }, _) = removed?;
        self.versions.raise(filter);
        self.placements.remove(filter);
        Some(SubscriptionPlace { node, shard, ending })
    }

    /// Removes the Subscription of a destination that `subscribe` has put to this place; returns how
    /// many levels its filter had.
    pub(crate) fn unsubscribe_at(&self, place: SubscriptionPlace, destination: &D) -> usize {
        let (filter, removed) = self.shard(place.shard).change(|branch| {
            let filter = branch.filter(place.in_branch());
            (filter, branch.unsubscribe(&self.seed, place.in_branch(), destination))
        });
        if removed.is_some() {
            self.versions.raise(&filter);
            self.placements.remove(&filter);
        }
        level_count(&filter)
    }

    /// Whether a filter may be added without making a topic that nearly matches everything too expensive: its `+` are
    /// at the same positions as in other filters, or within the first eight levels, or fewer than `max_placements`
    /// placements reach beyond those. [`Self::matches`] never visits more nodes at one level than `max_placements`
    /// and 256.
    #[must_use]
    pub(crate) fn admits(&self, filter: &TopicFilter, max_placements: usize) -> bool {
        self.placements.admits(filter.as_str(), max_placements)
    }

    /// The options of a Subscription, if it exists.
    #[must_use]
    pub(crate) fn options(
        &self,
        filter: &TopicFilter,
        destination: &D,
    ) -> Option<SubscriptionOptions> {
        let filter = filter.as_str();
        let branch = self.shard(self.shard_of(filter)).read();
        let place = branch.find(&self.seed, filter)?;
        Some(branch.subscription(&self.seed, place, destination)?.options)
    }

    /// Appends every Subscription that matches a Topic Name, in no particular order. A destination
    /// appears once for each of its filters that match. Returns how many nodes were visited.
    pub fn matches(&self, topic: &str, out: &mut Vec<Match<D>>) -> usize {
        let mut visited = 0;
        let mut parts = Vec::new();
        for shard in [self.literal_shard(topic), WILDCARD_SHARD].map(|number| self.shard(number)) {
            if shard.len.load(Ordering::Acquire) == 0 {
                continue;
            }
            let mut collector = Collector { matches: &mut *out, parts };
            visited += shard.read().collect(&self.seed, topic, &mut collector);
            parts = collector.parts;
        }
        // Large sets were only shared under the lock. Copying a hundred thousand handles takes
        // milliseconds.
        out.reserve(parts.iter().map(|part: &SharedMatches<D>| part.len()).sum());
        for part in parts {
            out.extend_from_slice(&part);
        }
        visited
    }

    /// The state of everything that can match this Topic Name. The result of [`Self::matches`] *after* taking a
    /// fingerprint is valid as long as the fingerprint stays equal; a `subscribe` or `unsubscribe` that has returned
    /// and changes the answer has changed the fingerprint.
    #[must_use]
    pub fn fingerprint(&self, hash: &TopicHash) -> Fingerprint {
        self.versions.fingerprint(hash)
    }

    /// Makes results of [`Self::matches`] count as outdated, as if a Subscription of this filter had changed: for `#`, all of
    /// them.
    pub(crate) fn outdate(&self, filter: &str) {
        self.versions.raise(filter);
    }

    /// The shard of a filter.
    fn shard_of(&self, filter: &str) -> u8 {
        let has_wildcard = |levels: &str| memchr::memchr2(b'+', b'#', levels.as_bytes()).is_some();
        if has_wildcard(first_two_levels(filter)) {
            WILDCARD_SHARD
        } else {
            self.literal_shard(filter)
        }
    }

    /// The shard of all filters with the same first two levels, which may be a filter's only level.
    fn literal_shard(&self, topic: &str) -> u8 {
        let hash = self.seed.of(first_two_levels(topic).as_bytes());
        #[expect(clippy::cast_possible_truncation, reason = "any bits serve")]
        let number = (hash >> 20) as u8;
        number % LITERAL_SHARDS
    }
}

impl<D> SubscriptionTree<D> {
    /// How many Subscriptions there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.len.load(Ordering::Relaxed)).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The filter of a Subscription that `subscribe` has put to this place.
    #[must_use]
    pub fn filter(&self, place: SubscriptionPlace) -> String {
        self.shard(place.shard).read().filter(place.in_branch())
    }

    /// Bytes allocated for the tree, without what destinations point to.
    #[must_use]
    pub fn allocated_bytes(&self) -> usize {
        let branches: usize =
            self.shards.iter().map(|shard| shard.branch.read().allocated_bytes()).sum();
        branches + size_of_val(&*self.shards) + size_of::<Self>() + self.versions.allocated_bytes()
    }

    /// Nodes, level texts too long for them and distinct filters in use, for tests and diagnosis.
    #[must_use]
    pub fn item_counts(&self) -> [usize; 3] {
        self.shards
            .iter()
            .map(|shard| shard.branch.read().item_counts())
            .fold([0; 3], |sum, counts| {
                [sum[0] + counts[0], sum[1] + counts[1], sum[2] + counts[2]]
            })
    }

    fn shard(&self, number: u8) -> &Shard<D> {
        &self.shards[usize::from(number)]
    }
}

impl SubscriptionPlace {
    fn in_branch(self) -> BranchPlace {
        BranchPlace { node: self.node, ending: self.ending }
    }
}

impl<D> Shard<D> {
    /// Takes the read lock. Waiting for a lock costs a thread switch, which takes many times longer than any write
    /// section; so this first tries for about as long as a few of those take.
    fn read(&self) -> RwLockReadGuard<'_, SubscriptionBranch<D>> {
        for _ in 0..TRIES_BEFORE_WAITING {
            if let Some(branch) = self.branch.try_read() {
                return branch;
            }
            hint::spin_loop();
        }
        self.branch.read()
    }

    /// Makes a change under the write lock.
    fn change<R>(&self, change: impl FnOnce(&mut SubscriptionBranch<D>) -> R) -> R {
        let mut branch = self.branch.write();
        let result = change(&mut branch);
        self.len.store(branch.len(), Ordering::Release);
        // Frees the memory of a branch that was once large, outside the lock.
        let emptied = (branch.len() == 0).then(|| mem::take(&mut *branch));
        drop(branch);
        drop(emptied);
        result
    }
}

/// The text of the first two levels, or of the only one.
fn first_two_levels(text: &str) -> &str {
    let end = memchr::memchr_iter(b'/', text.as_bytes()).nth(1);
    end.and_then(|end| text.get(..end)).unwrap_or(text)
}

#[cfg(test)]
mod tests;
