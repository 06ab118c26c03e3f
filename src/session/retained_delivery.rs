//! Delivery of Retained Messages to new Subscriptions.

use std::collections::VecDeque;

use hashbrown::HashMap;

use crate::packet::QoS;
use crate::topic::filter::TopicFilter;
use crate::topic::retained_tree::Cursor;

/// The Retained Messages that one Subscription has still to receive, a page at a time as its Client accepts them.
pub(crate) struct RetainedDelivery {
    /// The Topic Filter.
    pub(crate) filter: TopicFilter,
    /// QoS granted.
    pub(crate) qos: QoS,
    /// Subscription Identifier, 0 for none.
    pub(crate) subscription_id: u32,
    /// Where the next page starts.
    pub(crate) cursor: Option<Cursor>,
}

/// The deliveries of one Session, in order of request. There is one for each Topic Filter: a new SUBSCRIBE restarts
/// it, so there are never more deliveries than Subscriptions.
#[derive(Default)]
pub(crate) struct RetainedDeliveries {
    waiting: HashMap<TopicFilter, RetainedDelivery>,
    /// Cancelled deliveries stay here until their turn comes, or until they are the majority.
    order: VecDeque<TopicFilter>,
}

impl RetainedDeliveries {
    /// All of them, in no particular order.
    #[must_use]
    pub(crate) fn iter(&self) -> hashbrown::hash_map::Values<'_, TopicFilter, RetainedDelivery> {
        self.waiting.values()
    }

    /// Adds a delivery at the end; one for the same filter is restarted in its place.
    pub(crate) fn push(&mut self, delivery: RetainedDelivery) {
        let filter = delivery.filter.clone();
        if self.waiting.insert(filter.clone(), delivery).is_none() {
            self.order.push_back(filter);
        }
    }

    /// Takes the first delivery to continue it.
    pub(crate) fn pop(&mut self) -> Option<RetainedDelivery> {
        loop {
            let first = self.order.pop_front()?;
            if let Some(delivery) = self.waiting.remove(&first) {
                return Some(delivery);
            }
        }
    }

    /// Puts a taken delivery back at the front, unless its filter was requested again.
    pub(crate) fn put_back(&mut self, delivery: RetainedDelivery) {
        let filter = delivery.filter.clone();
        if self.waiting.try_insert(filter.clone(), delivery).is_ok() {
            self.order.push_front(filter);
        }
    }

    /// Cancels the delivery for a filter that is no longer subscribed to.
    pub(crate) fn remove(&mut self, filter: &TopicFilter) {
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
        assert_eq!(deliveries.waiting.len(), 4);
        let first = deliveries.pop().unwrap();
        deliveries.push(delivery(0, 4));
        deliveries.put_back(first);
        assert_eq!(ids(&mut deliveries), [2, 3, 1, 4]);
        let first = delivery(7, 7);
        deliveries.push(delivery(8, 8));
        deliveries.put_back(first);
        assert_eq!(ids(&mut deliveries), [7, 8]);
        assert!(deliveries.waiting.is_empty());
    }

    /// Deliveries that are cancelled as fast as they are added leave nothing behind.
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
