//! Subscriptions that the broker itself changes, without a Network Connection: those of its bridges. A connection would
//! be sent what waits in the queue, and QoS 0 is gone when it was sent.

use std::sync::Arc;

use crate::broker::Broker;
use crate::packet::subscribe::SubscriptionOptions;
use crate::session::effects::Effects;
use crate::session::subscriptions::SubscriptionState;
use crate::store::{Change, SubscriptionRecord};
use crate::topic::filter::TopicFilter;

impl Broker {
    /// Gives a durable Session exactly the Subscriptions `wanted`; no Retained Messages follow. False if there is no
    /// such Session.
    pub fn replace_subscriptions(
        &self,
        client_id: &str,
        wanted: &[(String, SubscriptionOptions)],
        effects: &mut Effects,
    ) -> bool {
        let Some(session) = self.registry.find(client_id) else { return false };
        let mut inbound = session.inbound();
        if inbound.ended || !inbound.is_durable() {
            return false;
        }
        let is_wanted = |full: &str| wanted.iter().any(|(filter, _)| filter == full);
        let stale = inbound.subscriptions.filters().filter(|full| !is_wanted(full));
        let stale: Vec<Arc<str>> = stale.map(Arc::from).collect();
        for full in stale {
            inbound.subscriptions.remove(&full);
            if let Some(retained) = inbound.retained.as_mut() {
                retained.retain(|delivery| delivery.filter.as_str() != &*full);
            }
            self.remove_from_tree(&session, &mut inbound, &full, effects);
            let change = Change::DeleteSubscription { session: session.id(), filter: full };
            effects.persist(change, self.session_durability());
        }
        for (filter, options) in wanted {
            let Ok(parsed) = TopicFilter::parse(filter) else { continue };
            let state = SubscriptionState { options: *options, subscription_id: 0 };
            let record = SubscriptionRecord {
                session: session.id(),
                filter: Arc::clone(&parsed.full),
                options: *options,
                subscription_id: None,
            };
            self.add_subscription(&session, &mut inbound, &parsed, state, effects);
            effects.persist(Change::PutSubscription(Box::new(record)), self.session_durability());
        }
        drop(inbound);
        self.submit(effects);
        true
    }
}
