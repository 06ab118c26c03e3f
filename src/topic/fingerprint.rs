//! A fingerprint of the part of the subscription tree that can match one Topic Name.
//!
//! Devices repeat their topics, so a Network Connection caches the matches. The fingerprint tells in a few
//! nanoseconds, without a lock, whether they are still valid; they stay valid while others subscribe to other topics.
//!
//! # How
//! There is a fixed table of counters that only rise. A change of a filter with wildcards raises the counter of its
//! literal prefix (the levels before the first wildcard, at most four); a change of a filter without wildcards raises
//! the counter of its whole text. A filter can match a Topic Name only if its prefix is one of the name's prefixes,
//! or its text is the name. So the counters of the name's prefixes of zero to four levels, and of its whole text,
//! rise with every change that could matter. The fingerprint is their sum: none of them ever falls, so an equal sum
//! means that each of them is the same. Two names may share a counter, which only causes unnecessary matching.
//!
//! # Why an equal fingerprint proves that the matches are still right
//! A reader takes the fingerprint, then matches, then keeps both. A writer changes the tree under its lock, *then*
//! raises the counter (`Release`), then returns.
//! - Every change that has returned before a later publish takes its fingerprint (`Acquire`) has raised its counter,
//!   so that publish reads this value or a higher one: reads of one atomic never go back. If the cached fingerprint
//!   is smaller, the cache is not used and the tree is searched, whose lock makes the change visible.
//! - If the cached fingerprint contains the change already, the reader had read the raised counter before it matched.
//!   That read synchronises with the writer (each raise is a read-modify-write, so a later one by others continues
//!   its release sequence), whose change of the tree came first; so the cached matches contain the change.
//!
//! Raising before changing would be wrong: a reader could take the new fingerprint and the old matches, and keep them
//! forever.

use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::fast::FixedState;

/// Counters in the table: 128 KiB, so that ten thousand unrelated changes per second invalidate a cached result about
/// three times.
const SLOT_COUNT: usize = 1 << 14;

/// Longest literal prefix with a counter of its own.
const MAX_PREFIX_LEVELS: usize = 4;

/// Marks the counter of a whole text, as opposed to a number of levels.
const WHOLE: u8 = u8::MAX;

/// The counters that concern a Topic Name. Computed once per name and cached with its matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TopicHash {
    slots: [u16; MAX_PREFIX_LEVELS + 2],
}

/// The state of everything that can match a Topic Name, see the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(u64);

/// The table of counters.
#[derive(Debug)]
pub(super) struct Versions {
    slots: Box<[AtomicU64]>,
}

impl TopicHash {
    /// The counters of a Topic Name.
    #[must_use]
    pub fn of(topic: &str) -> Self {
        let root = slot_of(0, "");
        let mut slots = [root; MAX_PREFIX_LEVELS + 2];
        if let Some(whole) = slots.last_mut() {
            *whole = slot_of(WHOLE, topic);
        }
        let ends = memchr::memchr_iter(b'/', topic.as_bytes()).chain([topic.len()]);
        for (levels, end) in (1..=MAX_PREFIX_LEVELS).zip(ends) {
            let prefix = topic.get(..end).unwrap_or(topic);
            if let (Some(slot), Ok(levels)) = (slots.get_mut(levels), u8::try_from(levels)) {
                *slot = slot_of(levels, prefix);
            }
        }
        Self { slots }
    }
}

impl Versions {
    pub(super) fn new() -> Self {
        Self { slots: (0..SLOT_COUNT).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Bytes allocated.
    pub(super) fn allocated_bytes(&self) -> usize {
        size_of_val(&*self.slots)
    }

    /// Records that a Subscription of this filter was added, changed or removed, after readers of the tree can see
    /// it.
    pub(super) fn raise(&self, filter: &str) {
        let slot = filter_slot(filter);
        if let Some(counter) = self.slots.get(usize::from(slot)) {
            counter.fetch_add(1, Ordering::Release);
        }
    }

    /// The fingerprint of a Topic Name.
    pub(super) fn fingerprint(&self, hash: &TopicHash) -> Fingerprint {
        let counters = hash.slots.iter().filter_map(|&slot| self.slots.get(usize::from(slot)));
        let values = counters.map(|counter| counter.load(Ordering::Acquire));
        Fingerprint(values.fold(0, u64::wrapping_add))
    }
}

/// The counter that changes of this filter raise.
fn filter_slot(filter: &str) -> u16 {
    let Some(wildcard) = memchr::memchr2(b'+', b'#', filter.as_bytes()) else {
        return slot_of(WHOLE, filter);
    };
    // A wildcard is alone in its level, so a separator stands before it, or nothing.
    let Some(prefix) = wildcard.checked_sub(1).and_then(|end| filter.get(..end)) else {
        return slot_of(0, "");
    };
    let mut levels = 1_u8;
    for separator in memchr::memchr_iter(b'/', prefix.as_bytes()) {
        if usize::from(levels) == MAX_PREFIX_LEVELS {
            return slot_of(levels, prefix.get(..separator).unwrap_or(prefix));
        }
        levels += 1;
    }
    slot_of(levels, prefix)
}

/// Not secret, because a Client that causes collisions only makes others match again.
fn slot_of(kind: u8, text: &str) -> u16 {
    let mut hasher = FixedState::with_seed(u64::from(kind)).build_hasher();
    hasher.write(text.as_bytes());
    u16::try_from(hasher.finish() % SLOT_COUNT as u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{SLOT_COUNT, TopicHash, Versions, filter_slot};
    use crate::topic::filter::TopicFilter;
    use crate::topic::name::TopicName;

    fn changes(filter: &str, topic: &str) -> bool {
        let versions = Versions::new();
        let hash = TopicHash::of(topic);
        let before = versions.fingerprint(&hash);
        versions.raise(filter);
        versions.fingerprint(&hash) != before
    }

    #[test]
    fn unrelated_changes_leave_the_stamp() {
        for (filter, topic) in [
            ("sport/+", "weather/today"),
            ("sport/tennis", "sport/golf"),
            ("a/b/c/d/#", "a/b/c/e/f"),
            ("a/b/c/d/x/+", "a/b/c/e/x/y"),
            ("sport", "sport/tennis"),
            ("/+", "a/b"),
        ] {
            assert!(!changes(filter, topic), "{filter} and {topic}");
        }
    }

    #[test]
    fn the_counters_are_spread() {
        let mut used = vec![false; SLOT_COUNT];
        for device in 0..SLOT_COUNT {
            used[usize::from(filter_slot(&format!("devices/{device}/commands")))] = true;
        }
        let used = used.into_iter().filter(|used| *used).count();
        assert!(used > SLOT_COUNT * 6 / 10, "{used}");
    }

    proptest! {
        #[test]
        fn every_filter_that_matches_changes_the_stamp(
            filter in prop::collection::vec("[ab]|\\+||\\$a", 1..8),
            multi in any::<bool>(),
            levels in prop::collection::vec("[ab]||\\$a", 1..9),
        ) {
            let filter = filter.join("/") + if multi { "/#" } else { "" };
            let topic = levels.join("/");
            prop_assume!(!filter.is_empty() && !topic.is_empty());
            let parsed = TopicFilter::parse(&filter).unwrap().filter;
            if parsed.matches(&TopicName::parse(&topic).unwrap()) {
                prop_assert!(changes(&filter, &topic), "{} and {}", filter, topic);
            }
        }
    }
}
