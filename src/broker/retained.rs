//! Removes Retained Messages that have expired.

use std::sync::Arc;

use crate::broker::Broker;
use crate::durable::Durability;
use crate::durable::change::RetainedChange;
use crate::durable::message::{Message, Timestamp};
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
            // It may have been replaced meanwhile.
            let is_expired = |current: &Arc<Message>| current.is_expired(now);
            if self.retained().remove_if(message.topic(), is_expired).is_some() {
                let change = RetainedChange::Delete(Arc::from(message.topic()));
                effects.persist_retained(change, Durability::Memory);
            }
        }
        self.carry_out(effects);
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::authority::DefaultAuthority;
    use crate::broker::limits::Limits;
    use crate::durable::message::{MessageHeader, MessageId, SessionId};
    use crate::packet::QoS;
    use crate::session::publication::Publication;
    use crate::store::faulty::{Crash, FaultyStore, Honesty};
    use crate::store::image::Image;

    fn retain(broker: &Broker, payload: &[u8], effects: &mut Effects) {
        let header = MessageHeader {
            id: MessageId { publisher: SessionId(1), counter: 0 },
            qos: QoS::AtLeastOnce,
            retain: true,
            arrived: Timestamp(1),
            expires: None,
        };
        assert!(broker.retain(&mut Publication::new(header, "t", &[], payload), effects));
    }

    /// Two publishers changed one topic at the same time, and the one whose message the broker had first submitted it
    /// last: after a restart that message was back, although Clients had seen the other replace it.
    #[test]
    fn the_store_keeps_the_message_that_the_tree_has() {
        for [first, second] in [[&b"1"[..], b"2"], [b"1", b""], [b"", b"2"]] {
            let (store, loaded) =
                FaultyStore::open(Image::default(), Honesty::Honest, Timestamp(1));
            let authority = Arc::new(DefaultAuthority::new(None));
            let broker = Broker::new(Limits::default(), store.clone(), authority, loaded, 0);
            let (mut one, mut other) = (Effects::new(), Effects::new());
            retain(&broker, b"0", &mut one);
            broker.carry_out(&mut one);
            retain(&broker, first, &mut one);
            retain(&broker, second, &mut other);
            broker.carry_out(&mut other);
            broker.carry_out(&mut one);
            store.step();
            let mut image = store.crash(Crash::PowerCut, 0);
            let kept: Vec<_> = image.load(Timestamp(2)).retained;
            let kept: Vec<_> = kept.iter().map(|message| message.payload()).collect();
            let expected: Vec<_> = [second].into_iter().filter(|it| !it.is_empty()).collect();
            assert_eq!(kept, expected, "{first:?} {second:?}");
        }
    }
}
