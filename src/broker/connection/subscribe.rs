//! SUBSCRIBE and UNSUBSCRIBE.

use std::num::NonZeroU32;
use std::sync::Arc;

use crate::broker::connection::pending::{PendingPacket, Promise};
use crate::broker::connection::remark::Remark;
use crate::broker::connection::turn::Turn;
use crate::broker::connection::{ClientConnection, CloseReason};
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

/// A granted Subscription.
struct Granted {
    qos: QoS,
    retained: Option<RetainedDelivery>,
}

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
        let promise = Promise::begin(turn.effects);
        let mut reasons = Vec::with_capacity(subscribe.filters.len());
        let mut retained = Vec::new();
        for (filter, options) in &subscribe.filters {
            let mut options = *options;
            options.no_local |= self.identity.is_bridge;
            options.retain_as_published |= self.identity.is_bridge;
            let state = SubscriptionState {
                options,
                subscription_id: subscribe.subscription_id.unwrap_or(0),
            };
            match self.subscribe(turn, filter, state) {
                Ok(granted) => {
                    reasons.push(granted_code(granted.qos));
                    retained.extend(granted.retained);
                }
                Err(reason) => {
                    self.note(|| Remark::subscribe_refused(filter, reason));
                    reasons.push(reason);
                }
            }
        }
        let wait = promise.wait(turn.effects);
        self.output.watches_others = true;
        let answer = Box::new((reasons, retained));
        self.answer(PendingPacket::Suback(subscribe.packet_id, answer), wait, turn.effects);
    }

    fn subscribe(
        &self,
        turn: &mut Turn<'_>,
        filter: &str,
        mut state: SubscriptionState,
    ) -> Result<Granted, ReasonCode> {
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
        let client_id = session.client_id();
        if let Some(reason) = self.subscription_refusal(client_id, parsed.filter.as_str()) {
            effects.tally.subscribe_denied += 1;
            return Err(reason);
        }
        if inbound.subscription_count() >= limits.max_subscriptions
            && !self.broker.has_subscription(session, inbound, &parsed)
        {
            return Err(ReasonCode::QuotaExceeded);
        }
        state.options.qos = state.options.qos.min(limits.maximum_qos);
        let is_new = self.broker.add_subscription(session, inbound, &parsed, state, effects);
        if inbound.is_durable() {
            let record = SubscriptionRecord {
                session: session.id(),
                filter: Arc::clone(&parsed.full),
                options: state.options,
                subscription_id: NonZeroU32::new(state.subscription_id).map(NonZeroU32::get),
            };
            let change = SessionChange::PutSubscription(Box::new(record));
            effects.persist(change, self.broker.session_durability());
        }
        let retained = wants_retained(&parsed, state.options, is_new).then_some(RetainedDelivery {
            filter: parsed.filter,
            qos: state.options.qos,
            subscription_id: state.subscription_id,
            cursor: None,
        });
        Ok(Granted { qos: state.options.qos, retained })
    }

    /// A Topic Filter with the listener's mount point before it.
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
        let promise = Promise::begin(turn.effects);
        let reasons: Vec<_> =
            unsubscribe.filters.iter().map(|filter| self.unsubscribe(turn, filter)).collect();
        let wait = promise.wait(turn.effects);
        let packet = PendingPacket::Unsuback(unsubscribe.packet_id, reasons.into_boxed_slice());
        self.answer(packet, wait, turn.effects);
    }

    fn unsubscribe(&self, turn: &mut Turn<'_>, filter: &str) -> ReasonCode {
        let Turn { session, inbound, effects, .. } = turn;
        let parsed = match self.parse(filter) {
            Ok(parsed) => parsed,
            Err(reason) => return reason,
        };
        if !self.broker.remove_subscription(session, inbound, &parsed, effects) {
            return ReasonCode::NoSubscriptionExisted;
        }
        if let Some(retained) = inbound.retained.as_mut() {
            retained.retain(|delivery| delivery.filter.as_str() != parsed.filter.as_str());
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
fn wants_retained(parsed: &ParsedFilter, options: SubscriptionOptions, is_new: bool) -> bool {
    parsed.share.is_none()
        && match options.retain_handling {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => is_new,
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
