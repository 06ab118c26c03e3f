//! Removes Retained Messages that have expired.

use std::sync::Arc;

use crate::broker::Broker;
use crate::durable::Durability;
use crate::durable::change::RetainedChange;
use crate::durable::message::Timestamp;
use crate::session::effects::Effects;
use crate::topic::filter::TopicFilter;
use crate::topic::retained_tree::Cursor;

/// Retained Messages visited in one step of the sweep.
const SWEEP_COUNT: usize = 1000;

impl Broker {
    /// Removes Retained Messages whose Message Expiry Interval has passed, a step at a time: the next step continues
    /// where this one ended. [MQTT-3.3.2-5]
    pub(crate) fn sweep_retained(
        &self,
        cursor: Option<Cursor>,
        now: Timestamp,
        effects: &mut Effects,
    ) -> Option<Cursor> {
        let Ok(everything) = TopicFilter::parse("#") else { return None };
        let mut page = Vec::new();
        let next = self.retained().page(&everything.filter, cursor, SWEEP_COUNT, &mut page).next;
        for message in page.iter().filter(|message| message.is_expired(now)) {
            let Some(removed) = self.retained().remove(message.topic()) else { continue };
            if !removed.is_expired(now) {
                // It was replaced between the check and the removal.
                let _newer = self.retained().set(removed);
                continue;
            }
            let change = RetainedChange::Delete(Arc::from(message.topic()));
            effects.persist(change, Durability::Memory);
        }
        self.finish(effects);
        next
    }
}
