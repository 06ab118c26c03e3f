//! The tree of all Subscriptions: which destinations does a Topic Name go to?
//!
//! Used by every connection at once through a shared reference. The broker adds and removes;
//! publishers match. The tree is cut into shards, so that writers seldom meet: a filter whose first
//! two levels are literal lies in the shard that these levels hash to, any other in the shard for
//! wildcards. A Topic Name therefore concerns two shards at most. Every write section is one
//! Subscription long, a few microseconds: no table is ever rehashed and no array moved as a whole,
//! so a publish waits for no more than that, even while ten thousand Clients subscribe.
//! `docs/decisions/2026-11-21-subscription-tree.md` says what was measured.

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
pub use crate::topic::subscriber_set::Match;
use crate::topic::subscriber_set::{Collector, SharedMatches};
use crate::topic::subscription_branch::SubscriptionBranch;

/// Shards for filters that start with two literal levels.
const SHARD_COUNT: usize = 64;

/// Some microseconds.
const TRIES_BEFORE_WAITING: usize = 128;

/// Subscriptions by Topic Filter, see the module. `D` is a cheap handle of a destination: a Session
/// or a group of a Shared Subscription.
#[derive(Debug)]
pub struct SubscriptionTree<D> {
    seed: HashSeed,
    literal: Box<[Shard<D>]>,
    wildcard: Shard<D>,
    versions: Versions,
}

/// Apart from its neighbours in memory, since the locks are written by all cores.
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
            literal: (0..SHARD_COUNT).map(|_| Shard::default()).collect(),
            wildcard: Shard::default(),
            versions: Versions::new(),
        }
    }

    /// Adds a Subscription. If this destination subscribes to this filter already, it is replaced
    /// and its options are returned. [MQTT-3.8.4-3]
    pub fn subscribe(
        &self,
        filter: &TopicFilter,
        destination: D,
        options: SubscriptionOptions,
        subscription_id: Option<NonZeroU32>,
    ) -> Option<SubscriptionOptions> {
        let added = Match { destination, subscription_id, options };
        let filter = filter.as_str();
        let replaced =
            self.shard_of(filter).change(|branch| branch.subscribe(&self.seed, filter, added));
        // After the change, see `fingerprint`.
        self.versions.raise(filter);
        replaced.map(|replaced| replaced.options)
    }

    /// Removes a Subscription; tells whether it existed. [MQTT-3.10.4-1]
    pub fn unsubscribe(&self, filter: &TopicFilter, destination: &D) -> bool {
        let filter = filter.as_str();
        let removed = self
            .shard_of(filter)
            .change(|branch| branch.unsubscribe(&self.seed, filter, destination));
        if removed.is_some() {
            self.versions.raise(filter);
        }
        // Only here, outside the lock, the destination is dropped.
        removed.is_some()
    }

    /// Appends every Subscription that matches a Topic Name, in no particular order. A destination
    /// appears once for each of its filters that match.
    pub fn matches(&self, topic: &str, out: &mut Vec<Match<D>>) {
        let mut parts = Vec::new();
        for shard in [self.literal_shard(topic), &self.wildcard] {
            if shard.len.load(Ordering::Acquire) == 0 {
                continue;
            }
            let mut collector = Collector { matches: &mut *out, parts };
            shard.read().collect(&self.seed, topic, &mut collector);
            parts = collector.parts;
        }
        // Large sets were only shared under the lock. Copying a hundred thousand handles takes
        // milliseconds.
        out.reserve(parts.iter().map(|part: &SharedMatches<D>| part.len()).sum());
        for part in parts {
            out.extend_from_slice(&part);
        }
    }

    /// The state of everything that can match this Topic Name. What [`Self::matches`] found *after*
    /// taking a fingerprint is right as long as the fingerprint stays equal; a `subscribe` or
    /// `unsubscribe` that has returned and changes the answer has changed the fingerprint.
    #[must_use]
    pub fn fingerprint(&self, hash: &TopicHash) -> Fingerprint {
        self.versions.fingerprint(hash)
    }

    /// The shard of a filter.
    fn shard_of(&self, filter: &str) -> &Shard<D> {
        let has_wildcard = |levels: &str| memchr::memchr2(b'+', b'#', levels.as_bytes()).is_some();
        if has_wildcard(first_two_levels(filter)) {
            &self.wildcard
        } else {
            self.literal_shard(filter)
        }
    }

    /// The shard of all filters with the same first two levels, which may be a filter's only level.
    fn literal_shard(&self, topic: &str) -> &Shard<D> {
        let hash = self.seed.of(first_two_levels(topic).as_bytes());
        // The tables inside use other bits.
        &self.literal[(hash >> 20) as usize % SHARD_COUNT]
    }
}

impl<D> SubscriptionTree<D> {
    /// How many Subscriptions there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards().map(|shard| shard.len.load(Ordering::Relaxed)).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes allocated for the tree, without what destinations point to.
    #[must_use]
    pub fn allocated_bytes(&self) -> usize {
        let branches: usize =
            self.shards().map(|shard| shard.branch.read().allocated_bytes()).sum();
        branches + size_of_val(&*self.literal) + size_of::<Self>() + self.versions.allocated_bytes()
    }

    /// Nodes, level texts too long for them and distinct filters in use, for tests and diagnosis.
    #[must_use]
    pub fn item_counts(&self) -> [usize; 3] {
        self.shards().map(|shard| shard.branch.read().item_counts()).fold([0; 3], |sum, counts| {
            [sum[0] + counts[0], sum[1] + counts[1], sum[2] + counts[2]]
        })
    }

    fn shards(&self) -> impl Iterator<Item = &Shard<D>> {
        self.literal.iter().chain([&self.wildcard])
    }
}

impl<D> Shard<D> {
    /// A read section. Waiting in the queue of the lock costs a switch of threads, many times what
    /// any write section takes; so try for about as long as a few of those take first.
    fn read(&self) -> RwLockReadGuard<'_, SubscriptionBranch<D>> {
        for _ in 0..TRIES_BEFORE_WAITING {
            if let Some(branch) = self.branch.try_read() {
                return branch;
            }
            hint::spin_loop();
        }
        self.branch.read()
    }

    /// One write section, as short as the change.
    fn change<R>(&self, change: impl FnOnce(&mut SubscriptionBranch<D>) -> R) -> R {
        let mut branch = self.branch.write();
        let result = change(&mut branch);
        self.len.store(branch.len(), Ordering::Release);
        // Gives back the memory of a branch that once was large, outside the lock.
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
