//! Handles PUBLISH packets from the ordinary decoder: rules that plain ones cannot violate, the topic, and the
//! answer.

use std::num::NonZeroU16;
use std::time::Duration;

use crate::broker::connection::pending::{PendingPacket, Wait};
use crate::broker::connection::run::{Arrival, Arriving, Run, count_received};
use crate::broker::connection::turn::Turn;
use crate::broker::connection::{ClientConnection, CloseReason};
use crate::broker::limits::DeniedPublish;
use crate::packet::acknowledgement::{AcknowledgementKind, encode_acknowledgement};
use crate::packet::property::{Property, iterate};
use crate::packet::publish::Publish;
use crate::packet::reason_code::ReasonCode;
use crate::packet::{PacketId, ProtocolVersion, QoS};
use crate::session::access_rights::PublishRights;
use crate::session::aliases::IncomingAliases;
use crate::session::effects::{DropReason, Effects};
use crate::session::policies::Recognition;
use crate::session::violation::Violation;
use crate::topic::mount_point::MountPoint;

/// Why a message is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// This Client may not publish to the topic.
    NotAuthorized,
    /// This Client may publish to the topic with some QoS and RETAIN flags only.
    Limited(PublishRights),
    /// The topic has more levels or bytes than topics may have.
    TopicTooLong,
    /// The payload contradicts its Payload Format Indicator. [MQTT-3.3.2-4]
    PayloadFormatInvalid,
    /// With the mount point, its Response Topic is too long.
    ResponseTopicTooLong,
    /// It must be stored, but the store is not available.
    StoreUnavailable,
    /// There are too many Retained Messages.
    TooManyRetained,
}

impl ClientConnection {
    pub(super) fn handle_publish(&mut self, turn: &mut Turn<'_>, publish: &Publish<'_>) {
        let arrival = self
            .check_publish(publish)
            .and_then(|()| self.admit(turn.inbound, 0, publish.qos, publish.packet_id));
        let aliases = self.input.aliases.take();
        let alias = publish.topic_alias.and_then(NonZeroU16::new);
        let known = alias.and_then(|alias| aliases.as_ref()?.topic(alias));
        let topic = if publish.topic.is_empty() { known } else { Some(publish.topic) };
        match (arrival, topic) {
            (Ok(Arrival::New), Some(topic)) => self.publish(turn, publish, topic),
            (Ok(Arrival::New), None) => self.violate(turn, publish, Violation::TopicAliasUnknown),
            (Ok(Arrival::Repeated), _) => self.publish_again(turn, publish),
            (Err(violation), _) => self.violate(turn, publish, violation),
        }
        self.input.aliases = aliases;
        if let Some(alias) = alias
            && !publish.topic.is_empty()
        {
            let aliases = self.input.aliases.get_or_insert_with(Box::<IncomingAliases>::default);
            aliases.set(alias, publish.topic);
        }
    }

    /// Checks a well-formed PUBLISH, in addition to [`Self::admit`].
    fn check_publish(&self, publish: &Publish<'_>) -> Result<(), Violation> {
        let limits = self.broker.limits();
        let is_alias = |alias| (1..=limits.topic_alias_maximum).contains(&alias);
        if publish.retain && !limits.retain_available {
            return Err(Violation::RetainNotSupported);
        }
        if !publish.subscription_ids.is_empty() {
            return Err(Violation::SubscriptionIdFromClient);
        }
        if publish.topic_alias.is_some_and(|alias| !is_alias(alias)) {
            return Err(Violation::TopicAliasInvalid);
        }
        Ok(())
    }

    fn violate(&mut self, turn: &mut Turn<'_>, publish: &Publish<'_>, violation: Violation) {
        count_received(&mut turn.effects.tally, 1, publish.payload.len() as u64);
        self.close(CloseReason::Violation(violation));
    }

    /// Handles a retransmission: the message was routed the first time, and is durable once all earlier batches are.
    /// [MQTT-4.3.3-10]
    fn publish_again(&mut self, turn: &mut Turn<'_>, publish: &Publish<'_>) {
        count_received(&mut turn.effects.tally, 1, publish.payload.len() as u64);
        let wait = match turn.inbound.is_durable() {
            true => Wait::for_earlier(turn.effects),
            false => Wait::InTurn,
        };
        let (qos, packet_id) = (publish.qos, publish.packet_id);
        self.acknowledge_publish(qos, packet_id, ReasonCode::Success, wait, turn.effects);
    }

    fn publish(&mut self, turn: &mut Turn<'_>, publish: &Publish<'_>, topic: &str) {
        if self.broker.limits().check_payload_format && !is_payload_as_said(publish) {
            count_received(&mut turn.effects.tally, 1, publish.payload.len() as u64);
            let (qos, packet_id) = (publish.qos, publish.packet_id);
            self.refuse_publish(qos, packet_id, Refusal::PayloadFormatInvalid, turn.effects);
            return;
        }
        let mounted = self
            .mount_point()
            .map(|mount| (mount.outside(topic), mount.properties_outside(&publish.properties)));
        let (topic, properties) = match &mounted {
            None => (topic, &publish.properties),
            Some((topic, Some(properties))) => (&**topic, properties),
            Some((_, None)) => {
                count_received(&mut turn.effects.tally, 1, publish.payload.len() as u64);
                let (qos, packet_id) = (publish.qos, publish.packet_id);
                self.refuse_publish(qos, packet_id, Refusal::ResponseTopicTooLong, turn.effects);
                return;
            }
        };
        let expiry = publish.message_expiry.map(|seconds| Duration::from_secs(seconds.into()));
        let arriving = Arriving {
            qos: publish.qos,
            packet_id: publish.packet_id,
            retain: publish.retain,
            topic,
            properties,
            payload: publish.payload,
            expires: expiry.map(|expiry| turn.now.plus(expiry)),
        };
        let mut run = Run::of(&arriving, turn.session.id(), turn.now, turn.inbound);
        self.flush_run(turn, &mut run);
    }

    /// The mount point of this Client, if it has one.
    #[inline]
    pub(super) fn mount_point(&self) -> Option<&MountPoint> {
        self.identity.peer.listener.mount_point.as_ref()
    }

    /// Whether a message was here before. A message without a trail is not checked, unless the policy is to check every
    /// message.
    pub(super) fn has_returned(&self, run: &Run<'_>) -> bool {
        let Some(publication) = run.only() else { return false };
        let recognition = self.identity.policies.recognition;
        let is_asked = match recognition {
            Recognition::ByTrail => !publication.properties.is_empty(),
            Recognition::ByContent => true,
            Recognition::Trusted => false,
        };
        let neighbours = if is_asked { self.broker.neighbours() } else { None };
        neighbours.is_some_and(|neighbours| neighbours.has_returned(publication, recognition))
    }

    /// Refuses one message. If the version cannot express that, the message is acknowledged and dropped if the Client
    /// is at fault [MQTT311-3.3.5-2]; if we are, the Network Connection is closed, so that the Client keeps its copy.
    pub(super) fn refuse_publish(
        &mut self,
        qos: QoS,
        packet_id: Option<PacketId>,
        refusal: Refusal,
        effects: &mut Effects,
    ) {
        match refusal {
            Refusal::NotAuthorized | Refusal::Limited(_) => effects.tally.publish_denied += 1,
            Refusal::TopicTooLong
            | Refusal::PayloadFormatInvalid
            | Refusal::ResponseTopicTooLong
            | Refusal::StoreUnavailable
            | Refusal::TooManyRetained => effects.tally.publish_refused += 1,
        }
        if let Some(reason) = refusal.drop_reason() {
            effects.tally.drop_one(reason);
        }
        let mut reason = refusal.reason_code();
        if self.identity.version < ProtocolVersion::V5_0 {
            if reason == ReasonCode::QuotaExceeded && qos > QoS::AtMostOnce {
                self.close(CloseReason::Unavailable);
                return;
            }
            if refusal == Refusal::NotAuthorized
                && self.broker.limits().denied_publish == DeniedPublish::Disconnect
            {
                self.close(CloseReason::PublishDenied);
                return;
            }
            reason = ReasonCode::Success;
        }
        self.acknowledge_publish(qos, packet_id, reason, Wait::InTurn, effects);
    }

    /// Acknowledges messages in order; QoS 0 needs no acknowledgement.
    #[inline]
    pub(super) fn acknowledge_run(
        &mut self,
        answers: impl Iterator<Item = ((QoS, Option<PacketId>), ReasonCode)>,
        wait: Wait,
        effects: &mut Effects,
    ) {
        if wait == Wait::ForCommit || !self.output.pending.is_empty() {
            for ((qos, packet_id), reason) in answers {
                self.acknowledge_publish(qos, packet_id, reason, wait, effects);
            }
            return;
        }
        // Nothing is pending before them: all are sent at once.
        let (version, mut count) = (self.identity.version, 0);
        self.output.own.append(|out| {
            for ((qos, packet_id), reason) in answers {
                let Some((kind, packet_id)) = acknowledgement_of(qos).zip(packet_id) else {
                    continue;
                };
                encode_acknowledgement(out, kind, packet_id, reason, version);
                count += 1;
            }
        });
        effects.tally.packets_sent += count;
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
        let Some((kind, packet_id)) = acknowledgement_of(qos).zip(packet_id) else { return };
        self.answer(PendingPacket::Acknowledgement(kind, packet_id, reason), wait, effects);
    }
}

impl Refusal {
    pub(super) fn reason_code(self) -> ReasonCode {
        match self {
            Self::NotAuthorized | Self::Limited(_) => ReasonCode::NotAuthorized,
            Self::PayloadFormatInvalid => ReasonCode::PayloadFormatInvalid,
            Self::TopicTooLong | Self::ResponseTopicTooLong => ReasonCode::TopicNameInvalid,
            Self::StoreUnavailable | Self::TooManyRetained => ReasonCode::QuotaExceeded,
        }
    }

    /// The drop reason to count, if we are at fault.
    pub(super) fn drop_reason(self) -> Option<DropReason> {
        match self {
            Self::NotAuthorized
            | Self::Limited(_)
            | Self::TopicTooLong
            | Self::PayloadFormatInvalid
            | Self::ResponseTopicTooLong => None,
            Self::StoreUnavailable => Some(DropReason::StoreUnavailable),
            Self::TooManyRetained => Some(DropReason::QueueFull),
        }
    }
}

/// The answer to a PUBLISH, if there is one.
#[inline]
fn acknowledgement_of(qos: QoS) -> Option<AcknowledgementKind> {
    match qos {
        QoS::AtMostOnce => None,
        QoS::AtLeastOnce => Some(AcknowledgementKind::Puback),
        QoS::ExactlyOnce => Some(AcknowledgementKind::Pubrec),
    }
}

/// Whether a payload marked as UTF-8 is valid UTF-8. [MQTT-3.3.2-4]
fn is_payload_as_said(publish: &Publish<'_>) -> bool {
    let says_utf8 = iterate(&publish.properties)
        .any(|property| matches!(property, Property::PayloadFormatIndicator(true)));
    !says_utf8 || std::str::from_utf8(publish.payload).is_ok()
}
