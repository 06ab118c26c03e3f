//! Retained Messages on their way to new Subscriptions.

use std::collections::VecDeque;

use hashbrown::HashMap;

use crate::packet::QoS;
use crate::topic::filter::TopicFilter;
use crate::topic::retained_tree::Cursor;

/// The Retained Messages that one Subscription is still to receive: all of them, however many, a
/// page at a time as its Client takes them.
pub struct RetainedDelivery {
    /// Which.
    pub filter: TopicFilter,
    /// QoS granted.
    pub qos: QoS,
    /// Subscription Identifier, 0 for none.
    pub subscription_id: u32,
    /// Where the next page starts.
    pub cursor: Option<Cursor>,
}

/// The deliveries of one Session, in the order in which they were asked for. One for each Topic Filter: whoever
/// subscribes again begins anew, so there are never more than Subscriptions.
#[derive(Default)]
pub struct RetainedDeliveries {
    waiting: HashMap<TopicFilter, RetainedDelivery>,
    /// Those called off stay here until their turn comes, or until they are the most.
    order: VecDeque<TopicFilter>,
}

impl RetainedDeliveries {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// All of them, in no particular order.
    #[must_use]
    pub fn iter(&self) -> hashbrown::hash_map::Values<'_, TopicFilter, RetainedDelivery> {
        self.waiting.values()
    }

    /// Adds a delivery behind the others; one for the same filter begins anew where it stands.
    pub fn push(&mut self, delivery: RetainedDelivery) {
        let filter = delivery.filter.clone();
        if self.waiting.insert(filter.clone(), delivery).is_none() {
            self.order.push_back(filter);
        }
    }

    /// Takes the first out to go on with it.
    pub fn pop(&mut self) -> Option<RetainedDelivery> {
        loop {
            let first = self.order.pop_front()?;
            if let Some(delivery) = self.waiting.remove(&first) {
                return Some(delivery);
            }
        }
    }

    /// Puts the one that was taken out back to the front, unless its filter was asked for again.
    pub fn put_back(&mut self, delivery: RetainedDelivery) {
        let filter = delivery.filter.clone();
        if self.waiting.try_insert(filter.clone(), delivery).is_ok() {
            self.order.push_front(filter);
        }
    }

    /// Calls off the delivery for a filter that is not subscribed to any more.
    pub fn remove(&mut self, filter: &TopicFilter) {
        if self.waiting.remove(filter).is_some() && self.order.len() > 2 * self.waiting.len() + 16 {
            let waiting = &self.waiting;
            self.order.retain(|filter| waiting.contains_key(filter));
        }
    }
}

impl<'a> IntoIterator for &'a RetainedDeliveries {
    type Item = &'a RetainedDelivery;
    type IntoIter = hashbrown::hash_map::Values<'a, TopicFilter, RetainedDelivery>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Extend<RetainedDelivery> for RetainedDeliveries {
    fn extend<I: IntoIterator<Item = RetainedDelivery>>(&mut self, deliveries: I) {
        deliveries.into_iter().for_each(|delivery| self.push(delivery));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(number: usize, subscription_id: u32) -> RetainedDelivery {
        let filter = TopicFilter::parse(&format!("a/{number}/#")).unwrap().filter;
        RetainedDelivery { filter, qos: QoS::AtMostOnce, subscription_id, cursor: None }
    }

    fn ids(deliveries: &mut RetainedDeliveries) -> Vec<u32> {
        std::iter::from_fn(|| deliveries.pop()).map(|delivery| delivery.subscription_id).collect()
    }

    #[test]
    fn each_filter_waits_once_and_in_order() {
        let mut deliveries = RetainedDeliveries::default();
        deliveries.extend((0..4).map(|number| delivery(number, 1)));
        deliveries.push(delivery(1, 2));
        deliveries.remove(&delivery(2, 0).filter);
        deliveries.push(delivery(2, 3));
        assert_eq!(deliveries.len(), 4);
        let first = deliveries.pop().unwrap();
        deliveries.push(delivery(0, 4));
        deliveries.put_back(first);
        assert_eq!(ids(&mut deliveries), [2, 3, 1, 4]);
        let first = delivery(7, 7);
        deliveries.push(delivery(8, 8));
        deliveries.put_back(first);
        assert_eq!(ids(&mut deliveries), [7, 8]);
        assert!(deliveries.is_empty());
    }

    /// Called off as fast as they come, they leave nothing behind.
    #[test]
    fn what_is_called_off_is_forgotten() {
        let mut deliveries = RetainedDeliveries::default();
        for number in 0..10_000 {
            deliveries.push(delivery(number, 1));
            deliveries.remove(&delivery(number, 1).filter);
            assert!(deliveries.order.len() < 32);
        }
    }
}
