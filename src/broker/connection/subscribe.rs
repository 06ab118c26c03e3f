//! Handles SUBSCRIBE and UNSUBSCRIBE.

use std::num::NonZeroU32;
use std::sync::Arc;

use crate::broker::connection::filter_work::FilterWork;
use crate::broker::connection::turn::Turn;
use crate::broker::connection::{ClientConnection, CloseReason};
use crate::broker::subscriptions::Added;
use crate::durable::StoreState;
use crate::durable::change::SessionChange;
use crate::durable::record::SubscriptionRecord;
use crate::packet::QoS;
use crate::packet::reason_code::ReasonCode;
use crate::packet::subscribe::{RetainHandling, Subscribe, SubscriptionOptions};
use crate::packet::unsubscribe::Unsubscribe;
use crate::session::retained_delivery::RetainedDelivery;
use crate::session::subscriptions::SubscriptionState;
use crate::session::violation::Violation;
use crate::topic::filter::{ParsedFilter, TopicFilter};

impl ClientConnection {
    pub(super) fn handle_subscribe(&mut self, turn: &mut Turn<'_>, subscribe: &Subscribe<'_>) {
        let has_violation = subscribe
            .filters
            .iter()
            .any(|(filter, options)| options.no_local && filter.starts_with("$share/"));
        if has_violation {
            self.close(CloseReason::Violation(Violation::NoLocalOnShared));
            return;
        }
        self.work_through(turn, FilterWork::subscribe(subscribe));
    }

    /// Subscribes to one filter; returns the Reason Code.
    pub(super) fn subscribe(
        &self,
        turn: &mut Turn<'_>,
        filter: &str,
        asked: SubscriptionOptions,
        subscription_id: u32,
    ) -> ReasonCode {
        let mut options = self.identity.policies.subscription_options(asked);
        options.qos = options.qos.min(self.broker.limits().maximum_qos);
        let mut state = SubscriptionState { options, subscription_id };
        let (parsed, qos) = match self.check_subscription(turn, filter, state) {
            Ok(checked) => checked,
            Err(reason) => return reason,
        };
        options.qos = qos;
        state.options = options;
        let Turn { session, inbound, effects, .. } = turn;
        let added = self.broker.add_subscription(session, inbound, &parsed, state, effects);
        if inbound.is_durable() {
            let record = SubscriptionRecord {
                session: session.id(),
                filter: Arc::clone(&parsed.full),
                options,
                subscription_id: NonZeroU32::new(subscription_id).map(NonZeroU32::get),
            };
            let change = SessionChange::PutSubscription(Box::new(record));
            effects.persist(change, self.broker.session_durability());
        }
        if wants_retained(&parsed, options, added) {
            let (qos, filter) = (options.qos, parsed.filter);
            let delivery = RetainedDelivery { filter, qos, subscription_id, cursor: None };
            inbound.retained.fill().push(delivery);
        }
        granted_code(options.qos)
    }

    /// The Topic Filter and the QoS of a Subscription that is not refused.
    fn check_subscription(
        &self,
        turn: &mut Turn<'_>,
        filter: &str,
        state: SubscriptionState,
    ) -> Result<(ParsedFilter, QoS), ReasonCode> {
        let Turn { session, inbound, effects, .. } = turn;
        let limits = self.broker.limits();
        let parsed = self.parse(filter)?;
        if inbound.is_durable() && self.broker.store().state() != StoreState::Available {
            return Err(ReasonCode::QuotaExceeded);
        }
        if parsed.share.is_some() && !limits.shared_available {
            return Err(ReasonCode::SharedSubscriptionsNotSupported);
        }
        if parsed.filter.has_wildcard() && !limits.wildcard_available {
            return Err(ReasonCode::WildcardSubscriptionsNotSupported);
        }
        if state.subscription_id != 0 && !limits.subscription_ids_available {
            return Err(ReasonCode::SubscriptionIdentifiersNotSupported);
        }
        if parsed.filter.level_count() > limits.max_topic_levels
            || parsed.full.len() > limits.max_topic_bytes
        {
            return Err(ReasonCode::TopicFilterInvalid);
        }
        let qos = self
            .allowed_qos(parsed.filter.as_str(), state.options.qos)
            .inspect_err(|_| effects.tally.subscribe_denied += 1)?;
        if !self.broker.has_room_for(session, inbound, &parsed) {
            effects.tally.subscribe_over_limit += 1;
            return Err(ReasonCode::QuotaExceeded);
        }
        Ok((parsed, qos))
    }

    /// Parses a Topic Filter and adds the listener's mount point.
    fn parse(&self, filter: &str) -> Result<ParsedFilter, ReasonCode> {
        let invalid = |_| ReasonCode::TopicFilterInvalid;
        let parsed = TopicFilter::parse(filter).map_err(invalid)?;
        let Some(mount) = &self.identity.peer.listener.mount_point else { return Ok(parsed) };
        TopicFilter::parse(&mount.filter_outside(filter)).map_err(invalid)
    }

    pub(super) fn handle_unsubscribe(
        &mut self,
        turn: &mut Turn<'_>,
        unsubscribe: &Unsubscribe<'_>,
    ) {
        self.work_through(turn, FilterWork::unsubscribe(unsubscribe));
    }

    /// Unsubscribes from one filter; returns the Reason Code.
    pub(super) fn unsubscribe(&self, turn: &mut Turn<'_>, filter: &str) -> ReasonCode {
        let Turn { session, inbound, effects, .. } = turn;
        let parsed = match self.parse(filter) {
            Ok(parsed) => parsed,
            Err(reason) => return reason,
        };
        if !self.may_unsubscribe(parsed.filter.as_str()) {
            effects.tally.unsubscribe_denied += 1;
            return ReasonCode::NotAuthorized;
        }
        if !self.broker.remove_subscription(session, inbound, &parsed, effects) {
            return ReasonCode::NoSubscriptionExisted;
        }
        if let Some(retained) = inbound.retained.as_mut() {
            retained.remove(&parsed.filter);
        }
        if inbound.is_durable() {
            let change =
                SessionChange::DeleteSubscription { session: session.id(), filter: parsed.full };
            effects.persist(change, self.broker.session_durability());
        }
        ReasonCode::Success
    }
}

/// Retained Messages are sent as Retain Handling says, and never for Shared Subscriptions.
/// [MQTT-3.8.4-4] [MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11]
fn wants_retained(parsed: &ParsedFilter, options: SubscriptionOptions, added: Added) -> bool {
    parsed.share.is_none()
        && match options.retain_handling {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => added == Added::New,
            RetainHandling::DoNotSend => false,
        }
}

fn granted_code(qos: QoS) -> ReasonCode {
    match qos {
        QoS::AtMostOnce => ReasonCode::Success,
        QoS::AtLeastOnce => ReasonCode::GrantedQoS1,
        QoS::ExactlyOnce => ReasonCode::GrantedQoS2,
    }
}
