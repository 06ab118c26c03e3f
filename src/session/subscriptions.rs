//! The Subscriptions of one Session that are not shared, as places in the tree, which stores their Topic Filters and
//! options. Most Clients have one or two, some a hundred thousand: a short list, or a table if there are more.

use crate::packet::subscribe::SubscriptionOptions;
use crate::topic::bucket_table::{BucketTable, Hashed};
use crate::topic::subscription_place::SubscriptionPlace;

/// More Subscriptions than this are in a table.
const MAX_LISTED: usize = 8;

/// A set of Subscriptions. A short list takes eight bytes for each, a table about ten.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions(Kept);

#[derive(Debug)]
enum Kept {
    /// Exactly as long as its contents, because most never have a second item.
    Listed(Box<[SubscriptionPlace]>),
    Indexed(Box<BucketTable<SubscriptionPlace>>),
}

impl Default for Kept {
    fn default() -> Self {
        Self::Listed(Box::default())
    }
}

/// The state of a Subscription besides its Topic Filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SubscriptionState {
    /// Its options.
    pub(crate) options: SubscriptionOptions,
    /// Its Subscription Identifier, 0 for none.
    pub(crate) subscription_id: u32,
}

impl Subscriptions {
    /// The number of Subscriptions.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        match &self.0 {
            Kept::Listed(list) => list.len(),
            Kept::Indexed(table) => table.len(),
        }
    }

    /// Adds a Subscription that is not there yet.
    pub(crate) fn insert(&mut self, place: SubscriptionPlace) {
        match &mut self.0 {
            Kept::Indexed(table) => table.insert(place),
            Kept::Listed(list) if list.len() < MAX_LISTED => {
                let mut longer = std::mem::take(list).into_vec();
                longer.reserve_exact(1);
                longer.push(place);
                *list = longer.into_boxed_slice();
            }
            Kept::Listed(list) => {
                let mut table = BucketTable::default();
                list.iter().chain([&place]).for_each(|place| table.insert(*place));
                self.0 = Kept::Indexed(Box::new(table));
            }
        }
    }

    /// Removes a Subscription.
    pub(crate) fn remove(&mut self, place: SubscriptionPlace) {
        match &mut self.0 {
            Kept::Indexed(table) => {
                table.remove(place.hash(), |known| *known == place);
                if table.len() == 0 {
                    self.0 = Kept::default();
                }
            }
            Kept::Listed(list) => {
                *list = list.iter().copied().filter(|known| *known != place).collect();
            }
        }
    }

    /// Removes some of them, in no particular order, to end them piece by piece: afterwards only this may be called.
    pub(crate) fn take_some(&mut self) -> Option<Box<[SubscriptionPlace]>> {
        match &mut self.0 {
            Kept::Indexed(table) => table.take_some(),
            Kept::Listed(list) => Some(std::mem::take(list)).filter(|list| !list.is_empty()),
        }
    }

    /// All places, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = SubscriptionPlace> {
        let (list, table) = match &self.0 {
            Kept::Listed(list) => (Some(list), None),
            Kept::Indexed(table) => (None, Some(table)),
        };
        let listed = list.into_iter().flat_map(|list| list.iter());
        listed.chain(table.into_iter().flat_map(|table| table.iter())).copied()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::num::NonZeroU32;

    use super::{MAX_LISTED, Subscriptions};
    use crate::packet::subscribe::SubscriptionOptions;
    use crate::topic::filter::TopicFilter;
    use crate::topic::subscription_place::SubscriptionPlace;
    use crate::topic::subscription_tree::SubscriptionTree;

    fn places(count: usize) -> Vec<SubscriptionPlace> {
        let tree = SubscriptionTree::new(1);
        let place = |number: usize| {
            let parsed = TopicFilter::parse(&format!("a/{}/#", number)).unwrap();
            let id = NonZeroU32::new(7);
            tree.subscribe(&parsed.filter, 1_u32, SubscriptionOptions::default(), id).place
        };
        (0..count).map(place).collect()
    }

    #[test]
    fn an_idle_session_pays_little() {
        assert_eq!(size_of::<Subscriptions>(), 16);
        assert_eq!(size_of::<SubscriptionPlace>(), 8);
    }

    /// Subscriptions are there and removed, on both sides of the step from list to table.
    #[test]
    fn a_list_and_a_table_behave_alike() {
        for count in [1, MAX_LISTED, MAX_LISTED + 1, 1_000] {
            let mut subscriptions = Subscriptions::default();
            let mut left: HashSet<_> = HashSet::new();
            let places = places(count);
            for place in &places {
                subscriptions.insert(*place);
                assert!(left.insert(*place));
                assert_eq!(subscriptions.len(), left.len());
            }
            for place in &places {
                assert_eq!(subscriptions.iter().collect::<HashSet<_>>(), left);
                subscriptions.remove(*place);
                assert!(left.remove(place));
                assert_eq!(subscriptions.len(), left.len());
            }
            assert!(subscriptions.len() == 0 && subscriptions.iter().next().is_none());
            places.iter().for_each(|place| subscriptions.insert(*place));
            let pieces = std::iter::from_fn(|| subscriptions.take_some());
            let taken: HashSet<_> = pieces.flatten().collect();
            assert_eq!(taken, places.into_iter().collect::<HashSet<_>>());
            assert_eq!(subscriptions.len(), 0);
        }
    }
}
