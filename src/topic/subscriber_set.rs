//! The subscribers of one Topic Filter: one is stored in place, a few in a list, many with an index.

use std::hash::Hash;
use std::mem;
use std::num::NonZeroU32;
use std::sync::Arc;

use crate::packet::subscribe::SubscriptionOptions;
use crate::topic::index_table::{HashSeed, IndexTable};

/// A Subscription that matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Match<D> {
    /// The destination of messages.
    pub destination: D,
    /// Subscription Identifier.
    pub(crate) subscription_id: Option<NonZeroU32>,
    /// Subscription Options.
    pub(crate) options: SubscriptionOptions,
}

/// A part of a large set. Readers share it and release the lock; writers copy it if it is being read.
pub(super) type SharedMatches<D> = Arc<Vec<Match<D>>>;

/// A list becomes a crowd above the first and a list again below the second.
const CROWD_ABOVE: usize = 32;
const LIST_BELOW: usize = 12;

/// Matches per part of a crowd.
const PART_BITS: u32 = 6;
const PART_MATCHES: usize = 1 << PART_BITS;

/// The Subscriptions of one filter, one for each destination. It is as small as the single match that most filters
/// have.
#[derive(Debug, Default)]
pub(super) enum SubscriberSet<D> {
    #[default]
    Empty,
    One(Match<D>),
    // A boxed `Vec` rather than a `Vec`, which would make every set larger.
    #[expect(clippy::box_collection, reason = "a thin pointer keeps the set small")]
    List(Box<Vec<Match<D>>>),
    Crowd(Box<Crowd<D>>),
}

/// Many matches: removing one takes no longer than in a set of two.
#[derive(Debug)]
pub(super) struct Crowd<D> {
    parts: Vec<SharedMatches<D>>,
    len: usize,
    places: IndexTable,
}

/// Where matches are collected: small sets are copied, the parts of large ones shared.
#[derive(Debug)]
pub(super) struct Collector<'a, D> {
    pub(super) matches: &'a mut Vec<Match<D>>,
    pub(super) parts: Vec<SharedMatches<D>>,
}

impl<D: Clone + Eq + Hash> SubscriberSet<D> {
    /// Adds a Subscription; returns the one of the same destination that it replaces.
    pub(super) fn insert(&mut self, seed: &HashSeed, added: Match<D>) -> Option<Match<D>> {
        match self {
            Self::Empty => {
                *self = Self::One(added);
                None
            }
            Self::One(only) if only.destination == added.destination => {
                Some(mem::replace(only, added))
            }
            Self::One(_) => {
                let Self::One(only) = mem::take(self) else { return None };
                *self = Self::List(Box::new(vec![only, added]));
                None
            }
            Self::List(list) => {
                let same = list.iter_mut().find(|one| one.destination == added.destination);
                if let Some(same) = same {
                    return Some(mem::replace(same, added));
                }
                list.push(added);
                if list.len() > CROWD_ABOVE {
                    *self = Self::Crowd(Box::new(Crowd::new(seed, mem::take(list.as_mut()))));
                }
                None
            }
            Self::Crowd(crowd) => crowd.insert(seed, added),
        }
    }

    /// Removes the Subscription of a destination.
    pub(super) fn remove(&mut self, seed: &HashSeed, destination: &D) -> Option<Match<D>> {
        match self {
            Self::One(only) if only.destination == *destination => match mem::take(self) {
                Self::One(only) => Some(only),
                _ => None,
            },
            Self::Empty | Self::One(_) => None,
            Self::List(list) => {
                let at = list.iter().position(|one| one.destination == *destination)?;
                let removed = list.swap_remove(at);
                if list.len() == 1 {
                    *self = list.pop().map_or(Self::Empty, Self::One);
                }
                Some(removed)
            }
            Self::Crowd(crowd) => {
                let removed = crowd.remove(seed, destination)?;
                if crowd.len < LIST_BELOW {
                    let list = crowd.parts.iter().flat_map(|part| part.iter().cloned()).collect();
                    *self = Self::List(Box::new(list));
                }
                Some(removed)
            }
        }
    }

    /// The Subscription of a destination.
    pub(super) fn find(&self, seed: &HashSeed, destination: &D) -> Option<&Match<D>> {
        match self {
            Self::Empty => None,
            Self::One(only) => Some(only).filter(|only| only.destination == *destination),
            Self::List(list) => list.iter().find(|one| one.destination == *destination),
            Self::Crowd(crowd) => crowd.find(seed, destination).map(|place| crowd.at(place)),
        }
    }

    /// Appends all Subscriptions.
    pub(super) fn collect(&self, collector: &mut Collector<'_, D>) {
        match self {
            Self::Empty => {}
            Self::One(only) => collector.matches.push(only.clone()),
            Self::List(list) => collector.matches.extend_from_slice(list),
            Self::Crowd(crowd) => collector.parts.extend_from_slice(&crowd.parts),
        }
    }
}

impl<D> SubscriberSet<D> {
    /// Whether nobody subscribes.
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    /// Bytes allocated besides the set itself.
    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            Self::Empty | Self::One(_) => 0,
            Self::List(list) => size_of::<Vec<D>>() + list.capacity() * size_of::<Match<D>>(),
            Self::Crowd(crowd) => crowd.heap_bytes(),
        }
    }
}

impl<D: Clone + Eq + Hash> Crowd<D> {
    fn new(seed: &HashSeed, list: Vec<Match<D>>) -> Self {
        let mut crowd = Self { parts: Vec::new(), len: 0, places: IndexTable::default() };
        for one in list {
            crowd.append(seed, one);
        }
        crowd
    }

    fn insert(&mut self, seed: &HashSeed, added: Match<D>) -> Option<Match<D>> {
        if let Some(place) = self.find(seed, &added.destination) {
            return Some(mem::replace(self.at_mut(place), added));
        }
        self.append(seed, added);
        None
    }

    fn remove(&mut self, seed: &HashSeed, destination: &D) -> Option<Match<D>> {
        let place = self.find(seed, destination)?;
        self.places.remove(seed.of(destination), place);
        let last = self.pop()?;
        let last_place = u32::try_from(self.len).ok()?;
        if place == last_place {
            return Some(last);
        }
        self.places.replace(seed.of(&last.destination), last_place, place);
        Some(mem::replace(self.at_mut(place), last))
    }

    fn find(&self, seed: &HashSeed, destination: &D) -> Option<u32> {
        let hash = seed.of(destination);
        self.places.find(hash, |place| self.at(place).destination == *destination)
    }

    fn append(&mut self, seed: &HashSeed, added: Match<D>) {
        let place = u32::try_from(self.len).expect("fewer destinations than fit into memory");
        self.places.insert(seed.of(&added.destination), place);
        if self.len == self.parts.len() * PART_MATCHES {
            self.parts.push(Arc::new(Vec::with_capacity(PART_MATCHES)));
        }
        if let Some(part) = self.parts.last_mut() {
            Arc::make_mut(part).push(added);
            self.len += 1;
        }
    }

    fn pop(&mut self) -> Option<Match<D>> {
        let part = Arc::make_mut(self.parts.last_mut()?);
        let last = part.pop()?;
        if part.is_empty() {
            self.parts.pop();
        }
        self.len -= 1;
        Some(last)
    }

    fn at(&self, place: u32) -> &Match<D> {
        let place = place as usize;
        &self.parts[place >> PART_BITS][place & (PART_MATCHES - 1)]
    }

    fn at_mut(&mut self, place: u32) -> &mut Match<D> {
        let place = place as usize;
        &mut Arc::make_mut(&mut self.parts[place >> PART_BITS])[place & (PART_MATCHES - 1)]
    }
}

impl<D> Crowd<D> {
    fn heap_bytes(&self) -> usize {
        let part_bytes = PART_MATCHES * size_of::<Match<D>>() + size_of::<[usize; 5]>();
        size_of::<Self>()
            + self.parts.len() * part_bytes
            + self.parts.capacity() * size_of::<SharedMatches<D>>()
            + self.places.allocated_bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::{Collector, HashSeed, Match, SubscriberSet};
    use crate::packet::subscribe::SubscriptionOptions;

    fn one(destination: u32, id: u32) -> Match<u32> {
        let subscription_id = std::num::NonZeroU32::new(id);
        Match { destination, subscription_id, options: SubscriptionOptions::default() }
    }

    fn all(set: &SubscriberSet<u32>) -> HashMap<u32, Match<u32>> {
        let mut matches = Vec::new();
        let mut collector = Collector { matches: &mut matches, parts: Vec::new() };
        set.collect(&mut collector);
        let parts = collector.parts;
        matches.extend(parts.iter().flat_map(|part| part.iter().copied()));
        let count = matches.len();
        let all: HashMap<_, _> = matches.into_iter().map(|one| (one.destination, one)).collect();
        assert_eq!(all.len(), count, "a destination was there twice");
        all
    }

    #[test]
    fn a_set_is_as_small_as_one_match() {
        assert_eq!(size_of::<Match<Arc<u8>>>(), 16);
        assert_eq!(size_of::<SubscriberSet<Arc<u8>>>(), 16);
        assert_eq!(size_of::<SubscriberSet<Result<Arc<u8>, Arc<u8>>>>(), 24);
    }

    #[test]
    fn a_part_that_is_read_is_not_changed() {
        let seed = HashSeed::new(3);
        let mut set = SubscriberSet::Empty;
        for destination in 0..100 {
            set.insert(&seed, one(destination, 1));
        }
        let mut matches = Vec::new();
        let mut collector = Collector { matches: &mut matches, parts: Vec::new() };
        set.collect(&mut collector);
        let read = collector.parts;
        for destination in 0..100 {
            set.insert(&seed, one(destination, 2));
        }
        assert!(read.iter().all(|part| part.iter().all(|m| *m == one(m.destination, 1))));
        assert!(all(&set).values().all(|m| *m == one(m.destination, 2)));
    }

    proptest! {
        /// Long enough to go from one to a crowd and back.
        #[test]
        fn equals_a_map(
            grow in prop::collection::vec((0_u32..300, 0_u32..5), 0..400),
            shrink in prop::collection::vec(0_u32..300, 0..600),
        ) {
            let seed = HashSeed::new(7);
            let mut set = SubscriberSet::Empty;
            let mut model = HashMap::new();
            for (destination, id) in grow {
                let added = one(destination, id);
                prop_assert_eq!(set.insert(&seed, added), model.insert(destination, added));
                prop_assert_eq!(set.find(&seed, &destination), Some(&added));
            }
            prop_assert_eq!(all(&set), model.clone());
            for destination in shrink {
                prop_assert_eq!(set.find(&seed, &destination), model.get(&destination));
                prop_assert_eq!(set.remove(&seed, &destination), model.remove(&destination));
                prop_assert_eq!(set.is_empty(), model.is_empty());
            }
            prop_assert_eq!(all(&set), model.clone());
            for destination in model.into_keys() {
                set.remove(&seed, &destination).unwrap();
            }
            prop_assert!(set.is_empty());
            prop_assert_eq!(set.heap_bytes(), 0);
        }
    }
}
