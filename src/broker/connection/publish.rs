//! PUBLISH from a Client: checks, QoS state, Retained Messages, routing, acknowledgement.

use std::num::NonZeroU16;
use std::sync::Arc;

use crate::broker::LoopSender;
use crate::broker::connection::pending::{PendingPacket, Wait};
use crate::broker::connection::plans::Cached;
use crate::broker::connection::{ClientConnection, CloseReason};
use crate::broker::route::Routed;
use crate::durable::change::SessionChange;
use crate::durable::message::{MessageHeader, SessionId, Timestamp};
use crate::durable::{Durability, StoreState};
use crate::packet::acknowledgement::AcknowledgementKind;
use crate::packet::property::{Property, iterate};
use crate::packet::publish::Publish;
use crate::packet::reason_code::ReasonCode;
use crate::packet::{PacketId, ProtocolVersion, QoS};
use crate::session::Session;
use crate::session::aliases::IncomingAliases;
use crate::session::effects::{DropReason, Effects};
use crate::session::inbound::Inbound;
use crate::session::outbound::{Delivered, Terms};
use crate::session::publication::Publication;
use crate::session::retained_delivery::RetainedDelivery;
use crate::session::violation::Violation;

/// Retained Messages delivered under one lock.
const RETAINED_PAGE: usize = 64;

/// Whether a message has to go to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Storing {
    /// It does not.
    Never,
    /// It does if a recipient is durable.
    IfDurable,
    /// It does.
    Always,
}

impl ClientConnection {
    pub(super) fn handle_publish(
        &mut self,
        session: &Arc<Session>,
        inbound: &mut Inbound,
        publish: &Publish<'_>,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        effects.tally.publish_received += 1;
        effects.tally.publish_bytes_received += publish.payload.len() as u64;
        if let Err(violation) = self.check_publish(inbound, publish) {
            self.close(CloseReason::Violation(violation));
            return;
        }
        if let (QoS::ExactlyOnce, Some(packet_id)) = (publish.qos, publish.packet_id)
            && inbound.incoming.contains(packet_id)
        {
            // Sent again: it was routed the first time, and is safe once what was submitted before
            // is. [MQTT-4.3.3-10]
            effects.barrier |= inbound.is_durable();
            let (success, wait) = (ReasonCode::Success, Wait::ForCommit);
            self.acknowledge_publish(publish.qos, publish.packet_id, success, wait, effects);
            return;
        }
        let aliases = self.aliases.take();
        let alias = publish.topic_alias.and_then(NonZeroU16::new);
        let known = alias.and_then(|alias| aliases.as_ref()?.topic(alias));
        let topic = if publish.topic.is_empty() { known } else { Some(publish.topic) };
        match (topic, self.peer.listener.mount_point.clone()) {
            (None, _) => self.close(CloseReason::Violation(Violation::TopicAliasUnknown)),
            (Some(topic), None) => {
                self.publish(session, inbound, publish, topic, now, effects);
            }
            (Some(topic), Some(mount)) => {
                let topic = format!("{mount}{topic}");
                self.publish(session, inbound, publish, &topic, now, effects);
            }
        }
        self.aliases = aliases;
        if let Some(alias) = alias
            && !publish.topic.is_empty()
        {
            let aliases = self.aliases.get_or_insert_with(Box::<IncomingAliases>::default);
            aliases.set(alias, publish.topic);
        }
    }

    /// What can be wrong with a well-formed PUBLISH.
    fn check_publish(&self, inbound: &Inbound, publish: &Publish<'_>) -> Result<(), Violation> {
        let limits = self.broker.limits();
        if publish.qos > limits.maximum_qos {
            return Err(Violation::QosNotSupported);
        }
        if publish.retain && !limits.retain_available {
            return Err(Violation::RetainNotSupported);
        }
        if !publish.subscription_ids.is_empty() {
            return Err(Violation::SubscriptionIdFromClient);
        }
        if publish.topic_alias.is_some_and(|alias| alias == 0 || alias > limits.topic_alias_maximum)
        {
            return Err(Violation::TopicAliasInvalid);
        }
        let inflight = usize::from(self.pending_pubacks) + inbound.incoming.len();
        if self.version == ProtocolVersion::V5_0
            && publish.qos > QoS::AtMostOnce
            && inflight >= usize::from(limits.receive_maximum)
            && !publish.packet_id.is_some_and(|known| inbound.incoming.contains(known))
        {
            return Err(Violation::ReceiveMaximumExceeded);
        }
        Ok(())
    }

    fn publish(
        &mut self,
        session: &Arc<Session>,
        inbound: &mut Inbound,
        publish: &Publish<'_>,
        topic: &str,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let mut plans = self.plans.take().unwrap_or_default();
        let cached =
            plans.plan(&self.broker, topic, session.id(), |topic| self.may_publish(session, topic));
        self.publish_by_plan(session, inbound, publish, (topic, cached), now, effects);
        self.plans = Some(plans);
    }

    /// Whether this Client may publish to `topic`; asked once for each topic.
    pub(super) fn may_publish(&self, session: &Session, topic: &str) -> bool {
        let limits = self.broker.limits();
        let within = topic.split('/').count() <= limits.max_topic_levels
            && topic.len() <= limits.max_topic_bytes;
        let authority = self.broker.authority();
        within
            && (self.peer.listener.internal
                || authority.may_publish(&self.principal, session.client_id(), topic))
    }

    fn publish_by_plan(
        &mut self,
        session: &Arc<Session>,
        inbound: &mut Inbound,
        publish: &Publish<'_>,
        (topic, cached): (&str, &Cached),
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let plan = &cached.plan;
        let (qos, packet_id) = (publish.qos, publish.packet_id);
        let storing = match (publish.retain, qos) {
            (true, _) => Storing::Always,
            (false, QoS::AtMostOnce) => Storing::Never,
            (false, QoS::AtLeastOnce | QoS::ExactlyOnce) => Storing::IfDurable,
        };
        let is_as_said = !self.broker.limits().check_payload_format || is_payload_as_said(publish);
        let refusal = match is_as_said {
            true => self.refusal(cached, storing),
            false => Some(ReasonCode::PayloadFormatInvalid),
        };
        if let Some(reason) = refusal {
            effects.tally.publish_refused += 1;
            self.refuse_publish(qos, packet_id, reason, effects);
            return;
        }
        if self.is_echo(session.id(), topic, publish) {
            self.take_echo(session, inbound, publish, plan.durability, effects);
            return;
        }
        let expires = publish
            .message_expiry
            .map(|seconds| now.plus(std::time::Duration::from_secs(u64::from(seconds))));
        let header = MessageHeader {
            id: inbound.take_message_id(),
            qos: publish.qos,
            retain: publish.retain,
            arrived: now,
            expires,
        };
        let mut publication = Publication::new(header, topic, &publish.properties, publish.payload);
        let changes_before = effects.changes.len();
        if publish.retain && !self.broker.retain(&mut publication, effects) {
            effects.tally.drop_one(DropReason::QueueFull);
            self.refuse_publish(qos, packet_id, ReasonCode::QuotaExceeded, effects);
            return;
        }
        let routed = self.broker.route(plan, &mut publication, effects);
        effects.backpressure |= plan.applies_backpressure() && !effects.crowded.is_empty();
        if let (QoS::ExactlyOnce, Some(packet_id)) = (qos, packet_id) {
            inbound.incoming.insert(packet_id);
            if inbound.is_durable() {
                let change = SessionChange::PutIncoming { session: session.id(), packet_id };
                effects.persist(change, plan.durability);
            }
        }
        let is_changed = effects.changes.len() > changes_before;
        let wait = match is_changed && effects.durability > Durability::Memory {
            true => Wait::ForCommit,
            false => Wait::InTurn,
        };
        self.acknowledge_publish(qos, packet_id, reason_of(routed), wait, effects);
    }

    /// Whether a message of this broker has come back over the bridges of others. What neither has a trail nor comes
    /// from a bridge is not even asked about.
    fn is_echo(&self, publisher: SessionId, topic: &str, publish: &Publish<'_>) -> bool {
        if self.peer.listener.internal || (publish.properties.is_empty() && !self.is_bridge) {
            return false;
        }
        let sender = match self.is_bridge {
            true => LoopSender::Bridge(publisher),
            false => LoopSender::Client,
        };
        let guard = self.broker.loop_guard();
        guard
            .is_some_and(|guard| guard.is_echo(topic, &publish.properties, publish.payload, sender))
    }

    /// Acknowledges a message that goes no further.
    fn take_echo(
        &mut self,
        session: &Arc<Session>,
        inbound: &mut Inbound,
        publish: &Publish<'_>,
        durability: Durability,
        effects: &mut Effects,
    ) {
        effects.tally.drop_one(DropReason::BridgeLoop);
        let mut wait = Wait::InTurn;
        if let (QoS::ExactlyOnce, Some(packet_id)) = (publish.qos, publish.packet_id) {
            inbound.incoming.insert(packet_id);
            if inbound.is_durable() {
                let change = SessionChange::PutIncoming { session: session.id(), packet_id };
                effects.persist(change, durability);
                wait = Wait::ForCommit;
            }
        }
        let (qos, packet_id) = (publish.qos, publish.packet_id);
        self.acknowledge_publish(qos, packet_id, ReasonCode::Success, wait, effects);
    }

    /// Why a message is not taken, if so.
    pub(super) fn refusal(&self, cached: &Cached, storing: Storing) -> Option<ReasonCode> {
        if !cached.is_allowed {
            return Some(ReasonCode::NotAuthorized);
        }
        if storing == Storing::Never || self.broker.store().state() == StoreState::Available {
            return None;
        }
        (storing == Storing::Always || cached.plan.needs_store())
            .then_some(ReasonCode::QuotaExceeded)
    }

    /// Refuses one message. Where the version has no way to say so, the message is acknowledged and
    /// dropped if the Client is at fault [MQTT311-3.3.5-2], and the Network Connection closed if we
    /// are, so that the Client keeps its copy.
    pub(super) fn refuse_publish(
        &mut self,
        qos: QoS,
        packet_id: Option<PacketId>,
        reason: ReasonCode,
        effects: &mut Effects,
    ) {
        let is_ours = reason == ReasonCode::QuotaExceeded;
        if is_ours {
            effects.tally.drop_one(DropReason::StoreUnavailable);
        }
        match self.version {
            ProtocolVersion::V5_0 => {
                self.acknowledge_publish(qos, packet_id, reason, Wait::InTurn, effects);
            }
            ProtocolVersion::V3_1 | ProtocolVersion::V3_1_1 => {
                if is_ours && qos > QoS::AtMostOnce {
                    self.close(CloseReason::Unavailable);
                    return;
                }
                let reason = ReasonCode::Success;
                self.acknowledge_publish(qos, packet_id, reason, Wait::InTurn, effects);
            }
        }
    }

    #[inline]
    pub(super) fn acknowledge_publish(
        &mut self,
        qos: QoS,
        packet_id: Option<PacketId>,
        reason: ReasonCode,
        wait: Wait,
        effects: &mut Effects,
    ) {
        let kind = match qos {
            QoS::AtMostOnce => return,
            QoS::AtLeastOnce => AcknowledgementKind::Puback,
            QoS::ExactlyOnce => AcknowledgementKind::Pubrec,
        };
        let Some(packet_id) = packet_id else { return };
        self.answer(PendingPacket::Acknowledgement(kind, packet_id, reason), wait, effects);
    }

    /// Delivers Retained Messages of new Subscriptions, as many as the Client takes now.
    pub(super) fn deliver_retained(
        &mut self,
        session: &Arc<Session>,
        inbound: &mut Inbound,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        // A Client at rest keeps no room for what it once was to receive.
        let mut waiting = inbound.retained.take();
        let mut page = Vec::new();
        while let Some(mut delivery) = waiting.pop_front() {
            if session.outbound().is_crowded() {
                waiting.push_front(delivery);
                *inbound.retained.fill() = waiting;
                return;
            }
            let cursor = delivery.cursor.take();
            page.clear();
            delivery.cursor =
                self.broker.retained().page(&delivery.filter, cursor, RETAINED_PAGE, &mut page);
            for message in page.iter().filter(|message| !message.is_expired(now)) {
                let mut publication = Publication::from_message(message);
                publication.arrived = now;
                self.deliver_one_retained(session, &delivery, &mut publication, effects);
            }
            if delivery.cursor.is_some() {
                waiting.push_front(delivery);
            }
        }
    }

    fn deliver_one_retained(
        &self,
        session: &Arc<Session>,
        delivery: &RetainedDelivery,
        publication: &mut Publication<'_>,
        effects: &mut Effects,
    ) {
        let limits = self.broker.limits();
        let ids = [delivery.subscription_id];
        let terms = Terms {
            qos: delivery.qos,
            retain: true,
            subscription_ids: if delivery.subscription_id == 0 { &[] } else { &ids },
            group: None,
            durability: limits.durability_of(publication.topic),
            limits: &limits.queue_of(publication.topic),
        };
        let mut outbound = session.outbound();
        let delivered = outbound.deliver(publication, &terms, effects);
        drop(outbound);
        if delivered == Delivered::QueuedUntilCommit {
            effects.listeners.push(Arc::clone(session) as Arc<_>);
        }
    }

    /// PUBREL: the Client will not send this message again; its Packet Identifier is free once that
    /// is safe. [MQTT-4.3.3-11]
    pub(super) fn release_incoming(
        &mut self,
        inbound: &mut Inbound,
        packet_id: PacketId,
        effects: &mut Effects,
    ) {
        let is_known = inbound.incoming.remove(packet_id);
        let reason = match is_known {
            true => ReasonCode::Success,
            false => ReasonCode::PacketIdentifierNotFound,
        };
        let mut wait = Wait::InTurn;
        if inbound.is_durable() {
            if is_known {
                let change =
                    SessionChange::DeleteIncoming { session: inbound.session_id(), packet_id };
                effects.persist(change, self.broker.session_durability());
            } else {
                // Perhaps released before a take-over: then that must be safe first.
                effects.barrier = true;
            }
            wait = Wait::ForCommit;
        }
        let kind = AcknowledgementKind::Pubcomp;
        self.answer(PendingPacket::Acknowledgement(kind, packet_id, reason), wait, effects);
    }
}

pub(super) fn reason_of(routed: Routed) -> ReasonCode {
    match routed {
        Routed::Delivered => ReasonCode::Success,
        Routed::NoMatchingSubscribers => ReasonCode::NoMatchingSubscribers,
        Routed::Refused => ReasonCode::QuotaExceeded,
    }
}

/// Whether a payload that says it is UTF-8 is. [MQTT-3.3.2-4]
fn is_payload_as_said(publish: &Publish<'_>) -> bool {
    let says_utf8 = iterate(&publish.properties)
        .any(|property| matches!(property, Property::PayloadFormatIndicator(true)));
    !says_utf8 || std::str::from_utf8(publish.payload).is_ok()
}
