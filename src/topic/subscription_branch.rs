//! One shard of the tree of Subscriptions: a trie of topic levels without its own lock.
//!
//! Nodes take 40 bytes, including the text of their level, and are stored in an arena. Literal children are found in
//! one hash table for the whole branch, keyed by parent and level; the child for `+` and the Subscriptions of `…/#`
//! are fields. A node exists while it has a child or a Subscription, so an empty branch has none.

use std::hash::Hash;

use smallvec::SmallVec;

use crate::topic::arena::Arena;
use crate::topic::index_table::{HashSeed, IndexTable};
use crate::topic::level_text::{LevelText, LongTexts};
use crate::topic::subscriber_set::{Collector, Match, SubscriberSet};
use crate::topic::subscription_place::Ending;

/// No node, no set.
const NONE: u32 = u32::MAX;

/// The nodes that a Topic Name reaches at one depth.
type Frontier = SmallVec<[u32; 16]>;

/// See the module.
#[derive(Debug)]
pub(super) struct SubscriptionBranch<D> {
    root: u32,
    nodes: Arena<Node>,
    children: IndexTable,
    long_texts: LongTexts,
    sets: Arena<SubscriberSet<D>>,
    set_heap_bytes: usize,
    len: usize,
}

#[derive(Debug)]
struct Node {
    parent: u32,
    level: LevelText,
    /// The child for `+`.
    plus: u32,
    /// How many literal children there are.
    literal_count: u32,
    /// Subscriptions of the filter that ends here.
    exact: u32,
    /// Subscriptions of that filter followed by `/#`.
    multi: u32,
}

/// A filter within a branch: the node that its last level is, and how it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BranchPlace {
    pub(super) node: u32,
    pub(super) ending: Ending,
}

impl<D> Default for SubscriptionBranch<D> {
    fn default() -> Self {
        Self {
            root: NONE,
            nodes: Arena::default(),
            children: IndexTable::default(),
            long_texts: LongTexts::default(),
            sets: Arena::default(),
            set_heap_bytes: 0,
            len: 0,
        }
    }
}

impl Default for Node {
    fn default() -> Self {
        let [parent, plus, exact, multi] = [NONE; 4];
        Self { parent, level: LevelText::Root, plus, literal_count: 0, exact, multi }
    }
}

impl<D: Clone + Eq + Hash> SubscriptionBranch<D> {
    /// Adds a Subscription; returns the place of its filter, and the Subscription of the same destination that it
    /// replaces.
    pub(super) fn subscribe(
        &mut self,
        seed: &HashSeed,
        filter: &str,
        added: Match<D>,
    ) -> (BranchPlace, Option<Match<D>>) {
        let (path, ending) = split_ending(filter);
        let mut node = self.root;
        if node == NONE {
            node = self.nodes.insert(Node::default());
            self.root = node;
        }
        for level in path.into_iter().flat_map(|path| path.split('/')) {
            node = self.child_or_new(seed, node, level);
        }
        let mut set = self.nodes.at(node).set(ending);
        if set == NONE {
            set = self.sets.insert(SubscriberSet::Empty);
            *self.nodes.at_mut(node).set_mut(ending) = set;
        }
        let replaced = self.change_set(set, |set| set.insert(seed, added));
        self.len += usize::from(replaced.is_none());
        (BranchPlace { node, ending }, replaced)
    }

    /// Removes a Subscription from the place of its filter, and the nodes that only it needed.
    pub(super) fn unsubscribe(
        &mut self,
        seed: &HashSeed,
        BranchPlace { node, ending }: BranchPlace,
        destination: &D,
    ) -> Option<Match<D>> {
        let set = self.nodes.at(node).set(ending);
        if set == NONE {
            return None;
        }
        let removed = self.change_set(set, |set| set.remove(seed, destination))?;
        self.len -= 1;
        if self.sets.at(set).is_empty() {
            self.sets.remove(set);
            *self.nodes.at_mut(node).set_mut(ending) = NONE;
            self.prune(seed, node);
        }
        Some(removed)
    }

    /// The Subscription of a destination at the place of its filter.
    pub(super) fn subscription(
        &self,
        seed: &HashSeed,
        BranchPlace { node, ending }: BranchPlace,
        destination: &D,
    ) -> Option<&Match<D>> {
        let set = self.nodes.at(node).set(ending);
        if set == NONE { None } else { self.sets.at(set).find(seed, destination) }
    }

    /// Collects all Subscriptions that match a Topic Name; returns how many nodes were visited.
    /// Breadth first: each level of the name is hashed once.
    pub(super) fn collect(
        &self,
        seed: &HashSeed,
        topic: &str,
        collector: &mut Collector<'_, D>,
    ) -> usize {
        let mut visited = 0;
        if self.root == NONE {
            return visited;
        }
        let mut frontier = Frontier::from_slice(&[self.root]);
        let mut next = Frontier::new();
        // A leading wildcard does not match a name that starts with `$`. [MQTT-4.7.2-1]
        let mut wildcards = !topic.starts_with('$');
        for level in topic.split('/') {
            let mut hash = None;
            visited += frontier.len();
            for &place in &frontier {
                let node = self.nodes.at(place);
                if wildcards {
                    self.collect_set(node.multi, collector);
                    if node.plus != NONE {
                        next.push(node.plus);
                    }
                }
                if node.literal_count == 0 {
                    continue;
                }
                let hash = *hash.get_or_insert_with(|| seed.of(level.as_bytes()));
                let child = self.literal_child(place, level, hash);
                if child != NONE {
                    next.push(child);
                }
            }
            std::mem::swap(&mut frontier, &mut next);
            if frontier.is_empty() {
                return visited;
            }
            next.clear();
            wildcards = true;
        }
        for &place in &frontier {
            let node = self.nodes.at(place);
            self.collect_set(node.exact, collector);
            // `sport/#` matches `sport`. [MQTT-4.7.1.2]
            self.collect_set(node.multi, collector);
        }
        visited + frontier.len()
    }

    fn collect_set(&self, place: u32, collector: &mut Collector<'_, D>) {
        if place != NONE {
            self.sets.at(place).collect(collector);
        }
    }

    fn change_set<R>(&mut self, place: u32, change: impl FnOnce(&mut SubscriberSet<D>) -> R) -> R {
        let set = self.sets.at_mut(place);
        let before = set.heap_bytes();
        let result = change(set);
        self.set_heap_bytes = self.set_heap_bytes + set.heap_bytes() - before;
        result
    }
}

impl<D> SubscriptionBranch<D> {
    /// How many Subscriptions there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The place of a filter, if it has a node.
    pub(super) fn find(&self, seed: &HashSeed, filter: &str) -> Option<BranchPlace> {
        let (path, ending) = split_ending(filter);
        let mut node = self.root;
        for level in path.into_iter().flat_map(|path| path.split('/')) {
            if node == NONE {
                return None;
            }
            node = match level {
                "+" => self.nodes.at(node).plus,
                level => self.literal_child(node, level, seed.of(level.as_bytes())),
            };
        }
        (node != NONE).then_some(BranchPlace { node, ending })
    }

    /// The filter of a place: the levels from the root to its node.
    pub(super) fn filter(&self, BranchPlace { node, ending }: BranchPlace) -> String {
        let mut path = SmallVec::<[u32; 16]>::new();
        let mut place = node;
        while place != self.root {
            path.push(place);
            place = self.nodes.at(place).parent;
        }
        let mut filter = Vec::with_capacity(path.len() * 16);
        for place in path.iter().rev() {
            filter.extend_from_slice(self.nodes.at(*place).level.as_bytes(&self.long_texts));
            filter.push(b'/');
        }
        match ending {
            Ending::Exact => drop(filter.pop()),
            Ending::Multi => filter.push(b'#'),
        }
        String::from_utf8(filter).expect("whole levels were stored, each of them text")
    }

    /// `level_hash` is the hash of `level`.
    fn literal_child(&self, parent: u32, level: &str, level_hash: u64) -> u32 {
        let found = self.children.find(child_hash(parent, level_hash), |place| {
            let node = self.nodes.at(place);
            node.parent == parent && node.level.as_bytes(&self.long_texts) == level.as_bytes()
        });
        found.unwrap_or(NONE)
    }

    /// Removes a node without children and Subscriptions, then its parent if that has none now, and
    /// so on.
    fn prune(&mut self, seed: &HashSeed, mut place: u32) {
        while place != NONE && self.nodes.at(place).is_unused() {
            let Node { parent, level, .. } = *self.nodes.at(place);
            if parent == NONE {
                self.root = NONE;
            } else if level == LevelText::Plus {
                self.nodes.at_mut(parent).plus = NONE;
            } else {
                let level_hash = seed.of(level.as_bytes(&self.long_texts));
                self.children.remove(child_hash(parent, level_hash), place);
                self.nodes.at_mut(parent).literal_count -= 1;
                level.release(&mut self.long_texts);
            }
            self.nodes.remove(place);
            place = parent;
        }
    }

    fn child_or_new(&mut self, seed: &HashSeed, parent: u32, level: &str) -> u32 {
        if level == "+" {
            if self.nodes.at(parent).plus == NONE {
                let level = LevelText::Plus;
                let child = self.nodes.insert(Node { parent, level, ..Node::default() });
                self.nodes.at_mut(parent).plus = child;
            }
            return self.nodes.at(parent).plus;
        }
        let level_hash = seed.of(level.as_bytes());
        let child = self.literal_child(parent, level, level_hash);
        if child != NONE {
            return child;
        }
        let level = LevelText::new(level, &mut self.long_texts);
        let child = self.nodes.insert(Node { parent, level, ..Node::default() });
        self.nodes.at_mut(parent).literal_count += 1;
        self.children.insert(child_hash(parent, level_hash), child);
        child
    }

    /// Nodes, long level texts and sets in use.
    pub(super) fn item_counts(&self) -> [usize; 3] {
        [self.nodes.len(), self.long_texts.len(), self.sets.len()]
    }

    /// Bytes allocated.
    pub(super) fn allocated_bytes(&self) -> usize {
        self.nodes.allocated_bytes()
            + self.children.allocated_bytes()
            + self.long_texts.allocated_bytes()
            + self.sets.allocated_bytes()
            + self.set_heap_bytes
    }
}

impl Node {
    fn set(&self, ending: Ending) -> u32 {
        match ending {
            Ending::Exact => self.exact,
            Ending::Multi => self.multi,
        }
    }

    fn set_mut(&mut self, ending: Ending) -> &mut u32 {
        match ending {
            Ending::Exact => &mut self.exact,
            Ending::Multi => &mut self.multi,
        }
    }

    fn is_unused(&self) -> bool {
        self.plus == NONE && self.literal_count == 0 && self.exact == NONE && self.multi == NONE
    }
}

/// The hash of a node, from its parent and the hash of its level. The latter is already secret and well distributed,
/// so one multiplication suffices to mix the parent in.
fn child_hash(parent: u32, level_hash: u64) -> u64 {
    let key = level_hash ^ u64::from(parent).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let product = u128::from(key) * 0xa5a3_5625_6ed9_eba9_u128;
    #[expect(clippy::cast_possible_truncation, reason = "both halves are folded")]
    let folded = product as u64 ^ (product >> 64) as u64;
    folded
}

/// The levels before `#`, and how the filter ends.
fn split_ending(filter: &str) -> (Option<&str>, Ending) {
    match filter.strip_suffix('#') {
        None => (Some(filter), Ending::Exact),
        Some("") => (None, Ending::Multi),
        Some(path) => (Some(path.strip_suffix('/').unwrap_or(path)), Ending::Multi),
    }
}

#[cfg(test)]
mod tests {
    use super::Node;

    #[test]
    fn a_node_is_small() {
        assert_eq!(size_of::<Node>(), 40);
    }
}
