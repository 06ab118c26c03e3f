//! The Subscriptions of one Session, as SUBSCRIBE and UNSUBSCRIBE see them. Most Clients have one or
//! two, some have a hundred thousand: a list up to a few, an index beyond.

use hashbrown::HashMap;

use crate::packet::subscribe::SubscriptionOptions;

/// More than these are found by an index.
const MAX_LISTED: usize = 8;

/// Subscriptions by their Topic Filter in full, `$share/…/` included.
#[derive(Debug, Default)]
pub struct Subscriptions(Kept);

#[derive(Debug)]
enum Kept {
    Listed(Vec<(Box<str>, SubscriptionState)>),
    Indexed(Box<Index>),
}

type Index = HashMap<Box<str>, SubscriptionState, foldhash::fast::FixedState>;

impl Default for Kept {
    fn default() -> Self {
        Self::Listed(Vec::new())
    }
}

/// A Subscription as its Session knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubscriptionState {
    /// Its options.
    pub options: SubscriptionOptions,
    /// Its Subscription Identifier, 0 for none.
    pub subscription_id: u32,
}

impl Subscriptions {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.0 {
            Kept::Listed(list) => list.len(),
            Kept::Indexed(index) => index.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there is one with this filter.
    #[must_use]
    pub fn contains(&self, filter: &str) -> bool {
        match &self.0 {
            Kept::Listed(list) => list.iter().any(|(known, _)| **known == *filter),
            Kept::Indexed(index) => index.contains_key(filter),
        }
    }

    /// Adds a Subscription, or replaces the one with this filter and returns what it was.
    /// [MQTT-3.8.4-3]
    pub fn insert(&mut self, filter: &str, state: SubscriptionState) -> Option<SubscriptionState> {
        match &mut self.0 {
            Kept::Indexed(index) => index.insert(filter.into(), state),
            Kept::Listed(list) => {
                if let Some((_, known)) = list.iter_mut().find(|(known, _)| **known == *filter) {
                    return Some(std::mem::replace(known, state));
                }
                if list.len() < MAX_LISTED {
                    // Room for exactly one more: most never have a second.
                    list.reserve_exact(1);
                    list.push((filter.into(), state));
                } else {
                    let mut index: Box<Index> = Box::new(list.drain(..).collect());
                    index.insert(filter.into(), state);
                    self.0 = Kept::Indexed(index);
                }
                None
            }
        }
    }

    /// Removes the Subscription with this filter; tells whether there was one.
    pub fn remove(&mut self, filter: &str) -> bool {
        match &mut self.0 {
            Kept::Indexed(index) => index.remove(filter).is_some(),
            Kept::Listed(list) => {
                let found = list.iter().position(|(known, _)| **known == *filter);
                found.map(|position| list.swap_remove(position)).is_some()
            }
        }
    }

    /// All filters, in no particular order.
    pub fn filters(&self) -> impl Iterator<Item = &str> {
        let (list, index) = match &self.0 {
            Kept::Listed(list) => (Some(list), None),
            Kept::Indexed(index) => (None, Some(index)),
        };
        let listed = list.into_iter().flatten().map(|(filter, _)| &**filter);
        listed.chain(index.into_iter().flat_map(|index| index.keys()).map(|filter| &**filter))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn state(subscription_id: u32) -> SubscriptionState {
        SubscriptionState { options: SubscriptionOptions::default(), subscription_id }
    }

    /// Filters are found, replaced and removed, on both sides of the step from list to index.
    #[test]
    fn a_list_and_an_index_behave_alike() {
        for count in [1, MAX_LISTED, MAX_LISTED + 1, 100] {
            let mut subscriptions = Subscriptions::default();
            let filters: Vec<String> = (0..count).map(|number| format!("a/{number}/#")).collect();
            for (filter, id) in filters.iter().zip(1..) {
                assert_eq!(subscriptions.insert(filter, state(id)), None);
            }
            assert_eq!(subscriptions.insert(&filters[0], state(1000)), Some(state(1)));
            assert_eq!(subscriptions.len(), count);
            let found: BTreeSet<&str> = subscriptions.filters().collect();
            assert_eq!(found, filters.iter().map(String::as_str).collect());
            assert!(!subscriptions.contains("a/+/#") && !subscriptions.remove("a/+/#"));
            for filter in &filters {
                assert!(subscriptions.contains(filter));
                assert!(subscriptions.remove(filter));
                assert!(!subscriptions.contains(filter));
            }
            assert!(subscriptions.is_empty());
        }
    }
}
