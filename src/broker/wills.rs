//! Publishes Will Messages, and warns about those that cannot be retained.
//!
//! A lost Will is a device that seems to be alive, so the operator must hear of it. Nobody can be answered, as the Client
//! is gone.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tracing::{debug, warn};

use crate::access::{Client, Principal};
use crate::broker::Broker;
use crate::broker::connection::remark::cut;
use crate::durable::message::{Message, MessageHeader, Timestamp};
use crate::session::Session;
use crate::session::effects::{DropReason, Effects};
use crate::session::inbound::{Inbound, Will};
use crate::session::publication::Publication;
use crate::topic::fingerprint::TopicHash;
use crate::topic::reserved::reserved_root;

/// The shortest time between two warnings: whoever can fill the limit can also leave thousands of Wills.
const BETWEEN_WARNINGS: Duration = Duration::from_secs(10);

/// When the next warning may be written, and what it has to add.
#[derive(Default)]
pub(super) struct LostWills(Mutex<Spacing>);

#[derive(Default)]
struct Spacing {
    next: Timestamp,
    unsaid: u64,
}

impl LostWills {
    /// Notes a lost Will. If a warning may be written, returns how many were lost without one since the last.
    fn note(&self, now: Timestamp) -> Option<u64> {
        let mut spacing = self.0.lock();
        if now < spacing.next {
            spacing.unsaid += 1;
            return None;
        }
        spacing.next = now.plus(BETWEEN_WARNINGS);
        Some(std::mem::take(&mut spacing.unsaid))
    }
}

impl Broker {
    /// Publishes the Will Message of a Session, if its Client may still publish it. [MQTT-3.1.2-8]
    pub(crate) fn publish_will(
        &self,
        session: &Session,
        inbound: &Inbound,
        will: &Will,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let (kept, client_id) = (&will.message, session.client_id());
        if !self.may_publish(session, inbound, kept) {
            effects.tally.wills_denied += 1;
            let (topic, client_id) = (&*cut(kept.topic()), &*cut(client_id));
            debug!(client_id, topic, "a will is denied by the access rules");
            return;
        }
        let header = MessageHeader {
            id: kept.id,
            qos: kept.qos,
            retain: kept.retain,
            arrived: now,
            expires: kept.expires.map(|interval| Timestamp(now.0.saturating_add(interval.0))),
        };
        let Some(message) =
            Message::new(header, kept.topic(), kept.properties(), kept.payload()).map(Arc::new)
        else {
            return;
        };
        effects.tally.wills_published += 1;
        let mut publication = Publication::from_message(&message);
        let topic = message.topic();
        if message.retain && !self.retain(&mut publication, effects) {
            effects.tally.drop_one(DropReason::QueueFull);
            self.warn_of_lost_will(topic, client_id, now);
        }
        let plan = self.plan(topic, &TopicHash::of(topic), Some(message.id.publisher));
        self.route(&plan, &mut publication, effects);
    }

    /// Whether the Client of a Session may publish a message now. Of a Session that was loaded, only user and Client Identifier
    /// are known; the broker's own topics are left to its own parts, which no rules limit.
    fn may_publish(&self, session: &Session, inbound: &Inbound, message: &Message) -> bool {
        if !self.has_rules {
            return true;
        }
        let outbound = session.outbound();
        let (known, is_loaded) = (outbound.rights().cloned(), outbound.is_loaded());
        drop(outbound);
        let rights = match known {
            None if is_loaded && reserved_root(message.topic()).is_none() => {
                let principal = Principal { user_name: inbound.owner.user_name().cloned() };
                let client_id = session.client_id();
                self.rights(&Client { principal: &principal, client_id, peer: None })
            }
            known => known,
        };
        let rights = rights.map(|rights| rights.publish(message.topic()));
        rights.is_none_or(|rights| rights.contains(message.qos, message.retain))
    }

    /// Text of Clients is logged as a string field, so the log format escapes it.
    #[cold]
    fn warn_of_lost_will(&self, topic: &str, client_id: &str, now: Timestamp) {
        let Some(others) = self.lost_wills.note(now) else { return };
        let is_new = self.retained().get(topic).is_none();
        let limit = match is_new && self.retained().len() >= self.limits().max_retained {
            true => "limits.retained_messages",
            false => "limits.retained_size",
        };
        let (topic, client_id) = (&*cut(topic), &*cut(client_id));
        warn!(
            client_id,
            topic,
            limit,
            others,
            "a will is sent to subscribers, but not retained: the limit has been reached, so the last state stays"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_warning_in_a_while_counts_those_left_out() {
        let lost = LostWills::default();
        let noted: Vec<_> =
            [0, 1, 9_999, 10_000, 12_000, 30_000].map(|at| lost.note(Timestamp(at))).into();
        assert_eq!(noted, [Some(0), None, None, Some(2), None, Some(1)]);
    }
}
