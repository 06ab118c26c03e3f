//! The placements of `+` in Topic Filters, which determine how many filters a Topic Name can nearly match at once.
//!
//! Matching follows all nodes whose path matches the levels seen so far. Two such nodes of one depth differ in the
//! positions of their `+`: if these are equal, the levels of the name leave one choice. So there are never more nodes
//! at one depth than *placements* of `+` in all filters. Within the first [`FREE_LEVELS`] levels there can only be a
//! few placements. Those beyond are counted here and limited: 2^17 filters made of `a` and `+` would make every
//! message to a topic that nearly matches them visit 2^17 nodes, and no cache helps against publishing to a new topic
//! each time.

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use parking_lot::Mutex;

/// Levels in which `+` may stand anywhere: 256 placements at most.
const FREE_LEVELS: usize = 8;

/// The placements in use that reach beyond the free levels, each with the number of its Subscriptions.
#[derive(Debug, Default)]
pub(super) struct WildcardPlacements(Mutex<HashMap<Placement, u64, RandomState>>);

/// The levels, from 0, that are `+`.
type Placement = Box<[u16]>;

impl WildcardPlacements {
    /// Whether the placement of this filter exists already or is not limited, or there is room for one more.
    pub(super) fn admits(&self, filter: &str, max_placements: usize) -> bool {
        let Some(placement) = deep_placement(filter) else { return true };
        let known = self.0.lock();
        known.len() < max_placements || known.contains_key(&placement)
    }

    /// A Subscription was added.
    pub(super) fn add(&self, filter: &str) {
        if let Some(placement) = deep_placement(filter) {
            *self.0.lock().entry(placement).or_default() += 1;
        }
    }

    /// A Subscription was removed.
    pub(super) fn remove(&self, filter: &str) {
        let Some(placement) = deep_placement(filter) else { return };
        if let Entry::Occupied(mut known) = self.0.lock().entry(placement) {
            *known.get_mut() -= 1;
            if *known.get() == 0 {
                known.remove();
            }
        }
    }
}

/// The placement of a filter, if its last `+` is beyond the free levels.
fn deep_placement(filter: &str) -> Option<Placement> {
    let last = memchr::memrchr(b'+', filter.as_bytes())?;
    let before = filter.as_bytes().get(..last)?;
    memchr::memchr_iter(b'/', before).nth(FREE_LEVELS - 1)?;
    let levels = filter.split('/').enumerate();
    let plus = levels.filter(|(_, level)| *level == "+");
    Some(plus.map(|(number, _)| u16::try_from(number).unwrap_or(u16::MAX)).collect())
}

#[cfg(test)]
mod tests {
    use super::{WildcardPlacements, deep_placement};

    #[test]
    fn only_what_reaches_beyond_the_free_levels_is_counted() {
        for filter in ["#", "+", "a/+/b/+/#", "+/+/+/+/+/+/+/+/a/b/c", "1/2/3/4/5/6/7/+/9"] {
            assert_eq!(deep_placement(filter), None, "{filter}");
        }
        assert_eq!(deep_placement("1/2/3/4/5/6/7/8/+").as_deref(), Some(&[8][..]));
        assert_eq!(deep_placement("+/2/3/4/5/6/7/8/9/+/#").as_deref(), Some(&[0, 9][..]));
    }

    #[test]
    fn there_is_room_for_so_many() {
        let placements = WildcardPlacements::default();
        let filter = |number: usize| format!("{}+", "a/".repeat(8 + number));
        for number in 0..3 {
            assert!(placements.admits(&filter(number), 3));
            placements.add(&filter(number));
            placements.add(&filter(number));
        }
        assert!(!placements.admits(&filter(3), 3));
        assert!(placements.admits(&filter(2), 3) && placements.admits("+/a", 3));
        placements.remove(&filter(1));
        assert!(!placements.admits(&filter(3), 3));
        placements.remove(&filter(1));
        assert!(placements.admits(&filter(3), 3));
        assert_eq!(placements.0.lock().len(), 2);
    }
}
