//! The last Topic Names that a Client published to, with where their messages go: devices repeat
//! their topics, and a repeated topic costs a few atomic loads instead of a walk of the tree.

use std::hash::BuildHasher;

use crate::broker::Broker;
use crate::broker::route::Plan;
use crate::session::message::SessionId;
use crate::topic::fingerprint::TopicHash;

/// Places of a new cache; most devices have a topic or two.
const MIN_PLACES: usize = 4;
/// Places at most. A Client with more topics has the older ones looked up anew.
const MAX_PLACES: usize = 256;

/// Plans by topic. Two topics that want one place make the cache grow, and replace each other once it
/// is as large as it gets.
#[derive(Default)]
pub(super) struct PlanCache {
    places: Vec<Option<Box<Cached>>>,
    hasher: foldhash::fast::FixedState,
}

/// What is known of one topic.
pub(super) struct Cached {
    topic: Box<str>,
    hash: TopicHash,
    /// Whether this Client may publish to it.
    pub(super) is_allowed: bool,
    /// Where its messages go.
    pub(super) plan: Plan,
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
        let place = self.make_place(topic);
        let slot = &mut self.places[place];
        if let Some(cached) = slot.as_mut().filter(|cached| *cached.topic == *topic) {
            if !broker.is_current(&cached.plan, &cached.hash) {
                cached.plan = broker.plan(topic, &cached.hash, Some(publisher));
            }
        } else {
            *slot = None;
        }
        slot.get_or_insert_with(|| {
            let hash = TopicHash::of(topic);
            let plan = broker.plan(topic, &hash, Some(publisher));
            Box::new(Cached { topic: topic.into(), hash, is_allowed: is_allowed(topic), plan })
        })
    }

    /// The place of `topic`, after making room for it if another topic is there.
    #[inline]
    fn make_place(&mut self, topic: &str) -> usize {
        let hash = self.hasher.hash_one(topic);
        loop {
            let place = place_of(hash, self.places.len());
            let is_usable = match self.places.get(place) {
                Some(Some(cached)) => *cached.topic == *topic || self.places.len() >= MAX_PLACES,
                Some(None) => true,
                None => false,
            };
            if is_usable {
                return place;
            }
            self.grow();
        }
    }

    fn grow(&mut self) {
        let count = (self.places.len() * 2).clamp(MIN_PLACES, MAX_PLACES);
        let mut places: Vec<Option<Box<Cached>>> = Vec::new();
        places.resize_with(count, || None);
        for cached in self.places.drain(..).flatten() {
            let place = place_of(self.hasher.hash_one(&*cached.topic), count);
            places[place] = Some(cached);
        }
        self.places = places;
    }
}

/// `count` is a power of two, or zero.
fn place_of(hash: u64, count: usize) -> usize {
    usize::try_from(hash & (count as u64).wrapping_sub(1)).unwrap_or(usize::MAX)
}
