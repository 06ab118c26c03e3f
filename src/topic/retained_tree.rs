//! The tree of Retained Messages: which Topic Names does a Topic Filter match?
//!
//! The values know their own topic, so the tree is a few ordered sets of values and costs less than 20 bytes for
//! each. They are ordered level by level: all topics below a level are adjacent and follow the level itself. The
//! matches of a filter are returned in pages in that order, so millions are streamed without copying all of them, and
//! locks are held for microseconds only. Where the next names cannot match, the search jumps to the next one that
//! may.
//!
//! The sets are shards: a hash of the first two levels determines the shard of a name. A filter whose first two
//! levels are literal concerns one shard, any other all of them, one after the other.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering as AtomicOrdering};

use parking_lot::RwLock;

use crate::topic::filter::TopicFilter;
use crate::topic::index_table::HashSeed;

/// Few in tests, so that a few names share a shard.
const SHARD_COUNT: usize = if cfg!(test) { 2 } else { 32 };

/// Names visited under one lock. With a cache miss each, this takes some tens of microseconds.
const NAMES_PER_LOCK: usize = 128;

/// Names visited in one page, unless it is full before.
const NAMES_PER_PAGE: usize = 1_024;

/// Consecutive names without a match before the search jumps: a jump costs about as much as this many steps. Few in
/// tests, so that a few names exercise all jumps.
const STEPS_BEFORE_JUMP: usize = if cfg!(test) { 2 } else { 12 };

/// A value in the tree. It must always return the same topic.
pub trait RetainedValue {
    /// The Topic Name.
    fn topic(&self) -> &str;

    /// Bytes of memory that it takes, for the estimate.
    fn memory_bytes(&self) -> usize;
}

/// Retained values by Topic Name, see the module.
#[derive(Debug)]
pub struct RetainedTree<V> {
    seed: HashSeed,
    shards: Box<[Shard<V>]>,
    len: AtomicUsize,
    value_bytes: AtomicUsize,
}

#[derive(Debug)]
#[repr(align(128))]
struct Shard<V>(RwLock<BTreeSet<ByTopic<V>>>);

/// The result of a page.
#[derive(Debug)]
pub struct Page {
    /// Where the next page starts; `None` at the end.
    pub next: Option<Cursor>,
    /// How many names were visited.
    pub(crate) names: usize,
}

/// Where a page ended. It stays valid while values are set and removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    shard: usize,
    /// The last name visited in that shard.
    after: Option<Box<str>>,
}

impl<V: RetainedValue + Clone> RetainedTree<V> {
    /// An empty tree. `seed` is a random number, so that Clients cannot choose which topics share a
    /// lock.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let shards = (0..SHARD_COUNT).map(|_| Shard(RwLock::new(BTreeSet::new()))).collect();
        let [len, value_bytes] = [const { AtomicUsize::new(0) }; 2];
        Self { seed: HashSeed::new(seed), shards, len, value_bytes }
    }

    /// Stores a value under its topic; returns the one it replaces. [MQTT-3.3.1-5]
    pub fn set(&self, value: V) -> Option<V> {
        let added_bytes = value.memory_bytes();
        let mut shard = self.shards[self.shard_of(value.topic())].0.write();
        let replaced = shard.replace(ByTopic(value)).map(|old| old.0);
        // Counted under the lock, because a removal in between would make the count negative.
        self.value_bytes.fetch_add(added_bytes, AtomicOrdering::Relaxed);
        match &replaced {
            None => self.len.fetch_add(1, AtomicOrdering::Relaxed),
            Some(old) => self.value_bytes.fetch_sub(old.memory_bytes(), AtomicOrdering::Relaxed),
        };
        replaced
    }

    /// Removes the value of a topic. [MQTT-3.3.1-6]
    pub fn remove(&self, topic: &str) -> Option<V> {
        self.remove_if(topic, |_| true)
    }

    /// Removes the value of a topic if it satisfies the condition.
    pub(crate) fn remove_if(&self, topic: &str, condition: impl FnOnce(&V) -> bool) -> Option<V> {
        let mut shard = self.shards[self.shard_of(topic)].0.write();
        shard.get(&topic as &dyn Topic).filter(|found| condition(&found.0))?;
        let removed = shard.take(&topic as &dyn Topic)?.0;
        self.value_bytes.fetch_sub(removed.memory_bytes(), AtomicOrdering::Relaxed);
        self.len.fetch_sub(1, AtomicOrdering::Relaxed);
        Some(removed)
    }

    /// The value of a topic.
    #[must_use]
    pub fn get(&self, topic: &str) -> Option<V> {
        let shard = self.shards[self.shard_of(topic)].0.read();
        shard.get(&topic as &dyn Topic).map(|found| found.0.clone())
    }

    /// Appends the values whose names match `filter`, starting at the beginning or where the page before ended. Appends at
    /// most `max_count` values, and fewer (even none) if many names had to be skipped: a page never visits more than about a
    /// thousand names.
    ///
    /// A name that exists from the first page to the last is returned exactly once; one that is set or removed in
    /// between at most once.
    #[must_use]
    pub fn page(
        &self,
        filter: &TopicFilter,
        cursor: Option<Cursor>,
        max_count: usize,
        out: &mut Vec<V>,
    ) -> Page {
        let filter = filter.as_str();
        if memchr::memchr2(b'+', b'#', filter.as_bytes()).is_none() {
            out.extend(self.get(filter));
            return Page { next: None, names: 1 };
        }
        let only_shard = self.only_shard_of(filter);
        let start = Cursor { shard: only_shard.unwrap_or(0), after: None };
        let Cursor { mut shard, mut after } = cursor.unwrap_or(start);
        let mut room = max_count.max(1);
        let mut names = 0;
        loop {
            let limits = Limits { matches: room, names: NAMES_PER_LOCK };
            let Some(part) = self.shards.get(shard) else { return Page { next: None, names } };
            let walk = part.walk(filter, after.as_deref(), limits, out);
            room -= walk.matches;
            names += walk.names + 1;
            if walk.last.is_some() {
                after = walk.last;
            } else {
                after = None;
                shard += 1;
                if only_shard.is_some() || shard == SHARD_COUNT {
                    return Page { next: None, names };
                }
            }
            if room == 0 || names >= NAMES_PER_PAGE {
                return Page { next: Some(Cursor { shard, after }), names };
            }
        }
    }

    fn shard_of(&self, topic: &str) -> usize {
        let end = memchr::memchr_iter(b'/', topic.as_bytes()).nth(1).unwrap_or(topic.len());
        let start = topic.as_bytes().get(..end).unwrap_or_default();
        usize::try_from(self.seed.of(start) % SHARD_COUNT as u64).unwrap_or_default()
    }

    /// The one shard that a filter concerns, if its first two levels are literal.
    fn only_shard_of(&self, filter: &str) -> Option<usize> {
        let mut levels = filter.split('/');
        let literal = |level: &str| level != "+" && level != "#";
        (levels.next().is_some_and(literal) && levels.next().is_some_and(literal))
            .then(|| self.shard_of(filter))
    }
}

impl<V> RetainedTree<V> {
    /// How many values there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len.load(AtomicOrdering::Relaxed)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// About how many bytes the tree takes, values included.
    #[must_use]
    pub fn allocated_bytes(&self) -> usize {
        // Nodes of a B-tree hold eleven values and are two thirds full, with about a tenth on top
        // for the inner nodes.
        let handle_bytes = size_of::<V>() * 2 + 2;
        size_of_val(&*self.shards)
            + self.value_bytes.load(AtomicOrdering::Relaxed)
            + self.len() * handle_bytes
    }
}

/// The limits of a walk.
#[derive(Debug, Clone, Copy)]
struct Limits {
    matches: usize,
    names: usize,
}

#[derive(Debug)]
struct Walk {
    matches: usize,
    names: usize,
    /// The last name visited; `None` at the end of the shard.
    last: Option<Box<str>>,
}

impl<V: RetainedValue + Clone> Shard<V> {
    /// Walks part of a shard under one read lock.
    fn walk(&self, filter: &str, after: Option<&str>, limits: Limits, out: &mut Vec<V>) -> Walk {
        let set = self.0.read();
        let prefix = literal_prefix(filter);
        let mut range = match &after {
            Some(after) => set.range::<dyn Topic, _>(behind(after)),
            None => set.range::<dyn Topic, _>(at_or_behind(&prefix)),
        };
        let mut walk = Walk { matches: 0, names: 0, last: None };
        let mut misses = 0;
        while let Some(ByTopic(value)) = range.next() {
            let topic = value.topic();
            walk.names += 1;
            let jump = match judge(topic, filter) {
                Verdict::Matches => {
                    out.push(value.clone());
                    walk.matches += 1;
                    misses = 0;
                    None
                }
                Verdict::Passes => {
                    misses += 1;
                    None
                }
                Verdict::PassesUntil(jump) => {
                    misses += 1;
                    Some(jump)
                }
                Verdict::Ends => return walk,
            };
            if walk.matches == limits.matches || walk.names >= limits.names {
                walk.last = Some(Box::from(topic));
                return walk;
            }
            if let Some(jump) = jump
                && misses >= STEPS_BEFORE_JUMP
            {
                let target = jump.target(topic);
                range = set.range::<dyn Topic, _>(at_or_behind(&target.as_str()));
                misses = 0;
            }
        }
        walk
    }
}

/// What a name tells about itself and the names after it.
#[derive(Debug, PartialEq, Eq)]
enum Verdict<'a> {
    Matches,
    /// It does not match, but the next one may.
    Passes,
    /// Neither it nor any before the target match.
    PassesUntil(Jump<'a>),
    /// No name after it matches.
    Ends,
}

/// A jump to the first name that may match again, after `kept_bytes` of the current name.
#[derive(Debug, PartialEq, Eq)]
struct Jump<'a> {
    kept_bytes: usize,
    to: Target<'a>,
}

#[derive(Debug, PartialEq, Eq)]
enum Target<'a> {
    /// To this level, after the kept part (which ends with its separator).
    Level(&'a str),
    /// After everything below the kept part.
    BehindSubtree,
    /// After all names that start with `$`.
    BehindDollar,
}

impl Jump<'_> {
    fn target(&self, topic: &str) -> String {
        let kept = topic.get(..self.kept_bytes).unwrap_or(topic);
        match self.to {
            Target::Level(level) => [kept, level].concat(),
            // U+0001 is what follows the separator in the order of topics.
            Target::BehindSubtree => [kept, "\u{1}"].concat(),
            Target::BehindDollar => "%".to_owned(),
        }
    }
}

/// Compares a name with a filter, level by level.
fn judge<'a>(topic: &str, filter: &'a str) -> Verdict<'a> {
    // A leading wildcard does not match a name that starts with `$`. [MQTT-4.7.2-1]
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return Verdict::PassesUntil(Jump { kept_bytes: 0, to: Target::BehindDollar });
    }
    let mut levels = topic.split('/');
    let mut literal_so_far = true;
    // Where the next level of the name starts.
    let mut start = 0;
    for pattern in filter.split('/') {
        if pattern == "#" {
            return Verdict::Matches;
        }
        let Some(level) = levels.next() else { return Verdict::Passes };
        if pattern == "+" {
            literal_so_far = false;
        } else {
            match compare(level, pattern) {
                Ordering::Equal => {}
                Ordering::Less => {
                    let to = Target::Level(pattern);
                    return Verdict::PassesUntil(Jump { kept_bytes: start, to });
                }
                Ordering::Greater if literal_so_far => return Verdict::Ends,
                Ordering::Greater => {
                    let to = Target::BehindSubtree;
                    return Verdict::PassesUntil(Jump { kept_bytes: start.saturating_sub(1), to });
                }
            }
        }
        start += level.len() + 1;
    }
    if levels.next().is_none() {
        return Verdict::Matches;
    }
    // Deeper than the filter, like all below the levels that were compared.
    let to = Target::BehindSubtree;
    Verdict::PassesUntil(Jump { kept_bytes: start.saturating_sub(1), to })
}

/// The levels before the first wildcard: no name before them matches.
fn literal_prefix(filter: &str) -> &str {
    let wildcard = memchr::memchr2(b'+', b'#', filter.as_bytes()).unwrap_or(filter.len());
    filter.get(..wildcard.saturating_sub(1)).unwrap_or_default()
}

fn behind<'a>(topic: &'a &str) -> (Bound<&'a dyn Topic>, Bound<&'a dyn Topic>) {
    (Bound::Excluded(topic as &dyn Topic), Bound::Unbounded)
}

fn at_or_behind<'a>(topic: &'a &str) -> (Bound<&'a dyn Topic>, Bound<&'a dyn Topic>) {
    (Bound::Included(topic as &dyn Topic), Bound::Unbounded)
}

/// The order of topics: level by level, so that `a`, `a/b` and `a!` follow each other. A separator
/// sorts before every other character; U+0000 is in no topic.
fn compare(left: &str, right: &str) -> Ordering {
    let [left, right] = [left.as_bytes(), right.as_bytes()];
    let shared = left.len().min(right.len());
    let (left_words, _) = left[..shared].as_chunks::<8>();
    let (right_words, _) = right[..shared].as_chunks::<8>();
    let words = left_words.iter().zip(right_words).take_while(|(left, right)| left == right);
    let same = words.count() * 8;
    let rank = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    left[same..].iter().map(rank).cmp(right[same..].iter().map(rank))
}

/// A value in the order of its topic.
#[derive(Debug, Clone)]
struct ByTopic<V>(V);

/// Lets the sets be searched by a text or by a value, without a copy.
trait Topic {
    fn topic(&self) -> &str;
}

impl<V: RetainedValue> Topic for ByTopic<V> {
    fn topic(&self) -> &str {
        self.0.topic()
    }
}

impl Topic for &str {
    fn topic(&self) -> &str {
        self
    }
}

impl<'a, V: RetainedValue + 'a> Borrow<dyn Topic + 'a> for ByTopic<V> {
    fn borrow(&self) -> &(dyn Topic + 'a) {
        self
    }
}

impl Ord for dyn Topic + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(self.topic(), other.topic())
    }
}

impl PartialOrd for dyn Topic + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for dyn Topic + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.topic() == other.topic()
    }
}

impl Eq for dyn Topic + '_ {}

impl<V: RetainedValue> Ord for ByTopic<V> {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(self.0.topic(), other.0.topic())
    }
}

impl<V: RetainedValue> PartialOrd for ByTopic<V> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<V: RetainedValue> PartialEq for ByTopic<V> {
    fn eq(&self, other: &Self) -> bool {
        self.0.topic() == other.0.topic()
    }
}

impl<V: RetainedValue> Eq for ByTopic<V> {}

#[cfg(test)]
mod tests;
