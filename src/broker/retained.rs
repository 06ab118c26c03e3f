//! Retained Messages on their way to a new Subscription.

use std::sync::Arc;

use crate::broker::Broker;
use crate::packet::QoS;
use crate::session::effects::Effects;
use crate::session::message::Timestamp;
use crate::store::{Change, Durability};
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

/// Retained Messages looked at in one step of the sweep.
const SWEEP_COUNT: usize = 1000;

impl Broker {
    /// Removes Retained Messages whose Message Expiry Interval has passed, a step at a time: the next
    /// goes on where this one ended. [MQTT-3.3.2-5]
    pub fn sweep_retained(
        &self,
        cursor: Option<Cursor>,
        now: Timestamp,
        effects: &mut Effects,
    ) -> Option<Cursor> {
        let Ok(everything) = TopicFilter::parse("#") else { return None };
        let mut page = Vec::new();
        let next = self.retained().page(&everything.filter, cursor, SWEEP_COUNT, &mut page);
        for message in page.iter().filter(|message| message.is_expired(now)) {
            let Some(removed) = self.retained().remove(message.topic()) else { continue };
            if !removed.is_expired(now) {
                // Replaced between the look and the removal.
                let _newer = self.retained().set(removed);
                continue;
            }
            let change = Change::DeleteRetained(Arc::from(message.topic()));
            effects.persist(change, Durability::Memory);
        }
        self.submit(effects);
        next
    }
}
