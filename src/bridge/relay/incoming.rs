//! Passes messages from the remote to the local broker, and their acknowledgements back.

use std::time::Instant;

use crate::bridge::error::LinkError;
use crate::bridge::loop_guard::trail_contains;
use crate::bridge::properties::{Changes, hop_trail, response_topic, rewrite};
use crate::bridge::relay::Relay;
use crate::bridge::relay::side::LocalSide;
use crate::bridge::relay::watch::Turn;
use crate::bridge::status::BridgeDropReason;
use crate::bridge::wire;
use crate::config::bridge::rule::Mapping;
use crate::packet::acknowledgement::Acknowledgement;
use crate::packet::publish::{OutgoingPublish, Publish};
use crate::packet::reason_code::ReasonCode;
use crate::packet::{PacketId, ProtocolVersion, QoS};

/// A message under its local name.
pub(super) struct IncomingMessage<T = String, B = Vec<u8>> {
    lane: usize,
    topic: T,
    properties: B,
    payload: B,
    dup: bool,
    qos: QoS,
    retain: bool,
    packet_id: Option<PacketId>,
    message_expiry: Option<u32>,
}

impl IncomingMessage<&str, &[u8]> {
    fn to_owned(&self) -> IncomingMessage {
        IncomingMessage {
            lane: self.lane,
            topic: self.topic.to_owned(),
            properties: self.properties.to_vec(),
            payload: self.payload.to_vec(),
            dup: self.dup,
            qos: self.qos,
            retain: self.retain,
            packet_id: self.packet_id,
            message_expiry: self.message_expiry,
        }
    }
}

impl LocalSide {
    fn publish<T: AsRef<str>, B: AsRef<[u8]>>(&mut self, message: &IncomingMessage<T, B>) {
        let payload = message.payload.as_ref();
        let packet = OutgoingPublish {
            dup: message.dup,
            qos: message.qos,
            retain: message.retain,
            topic: message.topic.as_ref(),
            packet_id: message.packet_id,
            topic_alias: None,
            message_expiry: message.message_expiry,
            subscription_ids: &[],
            properties: message.properties.as_ref(),
            payload_bytes: payload.len(),
        };
        wire::publish(&mut self.output, ProtocolVersion::V5_0, &packet, payload);
    }
}

impl Relay {
    /// A message of the remote broker.
    pub(super) fn remote_publish(
        &mut self,
        lane: usize,
        publish: &Publish<'_>,
        now: Instant,
    ) -> Result<(), LinkError> {
        let topic = self.resolve_alias(lane, publish)?;
        let topic = topic.as_deref().unwrap_or(publish.topic);
        match self.check_incoming(lane, topic, publish, now) {
            Ok(()) => self.take_in(lane, topic, publish, now),
            Err(reason) => self.drop_incoming(lane, publish, reason),
        }
        Ok(())
    }

    /// Passes a message to the local broker, under its local name.
    fn take_in(&mut self, lane: usize, topic: &str, publish: &Publish<'_>, now: Instant) {
        let properties = match self.rewrite_incoming(topic, publish) {
            true => &self.properties,
            false => &*publish.properties,
        };
        let message = IncomingMessage {
            lane,
            topic: &*self.name,
            properties,
            payload: publish.payload,
            dup: publish.dup,
            qos: publish.qos,
            retain: publish.retain,
            packet_id: publish.packet_id,
            message_expiry: publish.message_expiry,
        };
        let Some(Some(local)) = self.locals.get_mut(lane) else {
            // A lane without local partner subscribes to nothing: its messages come from Subscriptions of an older
            // configuration.
            return self.drop_incoming(lane, publish, BridgeDropReason::NoRule);
        };
        if publish.qos > QoS::AtMostOnce {
            local.inflight += 1;
        }
        self.tally.messages_in += 1;
        self.tally.bytes_in += (message.topic.len() + publish.payload.len()) as u64;
        if let Some(watch) = &mut self.watch_in
            && !publish.dup
            && let Turn::Waits(fingerprint, until) = watch.note(message.topic, message.payload, now)
        {
            let bytes = message.topic.len() + message.properties.len() + message.payload.len();
            watch.hold((fingerprint, until), message.topic, bytes, message.to_owned());
            if until <= now {
                self.release_incoming(now);
            }
            return;
        }
        local.publish(&message);
    }

    /// Whether a message has other properties here than there, which are in `self.properties` then.
    fn rewrite_incoming(&mut self, topic: &str, publish: &Publish<'_>) -> bool {
        let mut response = String::new();
        let renamed = response_topic(&publish.properties)
            .is_some_and(|name| self.settings.rules.map_response_in(name, topic, &mut response));
        // Named already on the way in: what we fetched from the remote broker has no trail from it, and other brokers
        // may fetch it from us.
        let names_hops =
            self.settings.hop_limit > 0 && self.settings.protocol == ProtocolVersion::V5_0;
        if !renamed && !names_hops {
            return false;
        }
        let changes = Changes {
            response_topic: renamed.then_some(&*response),
            hop: names_hops.then_some(&*self.broker_id),
        };
        rewrite(&publish.properties, changes, &mut self.properties);
        true
    }

    /// Acknowledges a message that is dropped.
    fn drop_incoming(&mut self, lane: usize, publish: &Publish<'_>, reason: BridgeDropReason) {
        self.tally.drop(reason);
        self.acknowledge_remote(lane, publish.qos, publish.packet_id, ReasonCode::Success);
    }

    /// Releases messages that were held because they seemed to circle.
    pub(super) fn release_incoming(&mut self, now: Instant) {
        let released = self.watch_in.as_mut().map(|watch| watch.take_released(now));
        for message in released.into_iter().flatten() {
            if let Some(Some(local)) = self.locals.get_mut(message.lane) {
                local.publish(&message);
            }
        }
    }

    /// The topic that an alias stands for; `None` where the packet names it. [MQTT-3.3.2-12]
    fn resolve_alias(
        &mut self,
        lane: usize,
        publish: &Publish<'_>,
    ) -> Result<Option<Box<str>>, LinkError> {
        let Some(alias) = publish.topic_alias else {
            return match publish.topic {
                "" => Err(LinkError::RemoteViolation("a PUBLISH without topic")),
                _ => Ok(None),
            };
        };
        let remote = self.remotes.get_mut(lane);
        let places = remote.map(|remote| &mut remote.incoming_aliases);
        let place = places.and_then(|places| places.get_mut(usize::from(alias).checked_sub(1)?));
        let Some(place) = place else {
            return Err(LinkError::RemoteViolation("a Topic Alias out of range"));
        };
        if publish.topic.is_empty() {
            let known = place.clone();
            return known.map(Some).ok_or(LinkError::RemoteViolation("an unknown Topic Alias"));
        }
        *place = Some(publish.topic.into());
        Ok(None)
    }

    /// Whether the message may come in; its local name is in `self.name` afterwards.
    fn check_incoming(
        &mut self,
        lane: usize,
        topic: &str,
        publish: &Publish<'_>,
        now: Instant,
    ) -> Result<(), BridgeDropReason> {
        if self.settings.hop_limit > 0 && !publish.properties.is_empty() {
            let trail = hop_trail(&publish.properties);
            if trail.is_some_and(|trail| trail_contains(trail, &self.broker_id)) {
                return Err(BridgeDropReason::Loop);
            }
        }
        let origin = self.locals.get(lane).and_then(|local| Some(local.as_ref()?.origin));
        match self.settings.rules.map_in(topic, &mut self.name) {
            Mapping::Mapped(_) => {}
            Mapping::Excluded => return Err(BridgeDropReason::Excluded),
            Mapping::NoRule => return Err(BridgeDropReason::NoRule),
            Mapping::Impossible => return Err(BridgeDropReason::Topic),
        }
        // What the remote broker retains has RETAIN, when it is sent for our SUBSCRIBE; an echo has not. [MQTT-3.3.1-9]
        if let Some(account) = &self.account
            && !publish.retain
            && account.lock().take_echo((topic, publish.payload, publish.qos), now)
        {
            return Err(BridgeDropReason::Echo);
        }
        let is_echo = |origin| self.echoes.is_echo(&self.name, publish.payload, origin, now);
        match origin.is_some_and(is_echo) {
            true => Err(BridgeDropReason::Loop),
            false => Ok(()),
        }
    }

    /// Acknowledges a message that is not passed on. After a PUBREC, the local broker answers the PUBREL.
    fn acknowledge_remote(
        &mut self,
        lane: usize,
        qos: QoS,
        packet_id: Option<PacketId>,
        reason: ReasonCode,
    ) {
        let version = self.settings.protocol;
        let (Some(remote), Some(packet_id)) = (self.remotes.get_mut(lane), packet_id) else {
            return;
        };
        match qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => wire::puback(&mut remote.output, version, packet_id, reason),
            QoS::ExactlyOnce => wire::pubrec(&mut remote.output, version, packet_id, reason),
        }
    }

    /// The local broker has the message of QoS 1.
    pub(super) fn local_puback(
        &mut self,
        lane: usize,
        ack: &Acknowledgement<'_>,
    ) -> Result<(), LinkError> {
        self.check_local_refusal(ack.reason)?;
        self.end_incoming(lane);
        let reason = if ack.reason.is_failure() { ack.reason } else { ReasonCode::Success };
        self.acknowledge_remote(lane, QoS::AtLeastOnce, Some(ack.packet_id), reason);
        Ok(())
    }

    /// The local broker has the message of QoS 2.
    pub(super) fn local_pubrec(
        &mut self,
        lane: usize,
        ack: &Acknowledgement<'_>,
    ) -> Result<(), LinkError> {
        self.check_local_refusal(ack.reason)?;
        if ack.reason.is_failure() {
            self.end_incoming(lane);
        }
        let reason = if ack.reason.is_failure() { ack.reason } else { ReasonCode::Success };
        self.acknowledge_remote(lane, QoS::ExactlyOnce, Some(ack.packet_id), reason);
        Ok(())
    }

    /// The remote broker goes on with a QoS 2 exchange.
    pub(super) fn remote_pubrel(&mut self, lane: usize, ack: &Acknowledgement<'_>) {
        let version = self.settings.protocol;
        match self.locals.get_mut(lane) {
            Some(Some(local)) => {
                wire::pubrel(&mut local.output, ProtocolVersion::V5_0, ack.packet_id, ack.reason);
            }
            _ => {
                if let Some(remote) = self.remotes.get_mut(lane) {
                    wire::pubcomp(&mut remote.output, version, ack.packet_id);
                }
            }
        }
    }

    /// The local broker has completed a QoS 2 exchange.
    pub(super) fn local_pubcomp(&mut self, lane: usize, ack: &Acknowledgement<'_>, now: Instant) {
        if self.local_swept(lane, now) {
            return;
        }
        self.end_incoming(lane);
        let version = self.settings.protocol;
        if let Some(remote) = self.remotes.get_mut(lane) {
            wire::pubcomp(&mut remote.output, version, ack.packet_id);
        }
    }

    fn end_incoming(&mut self, lane: usize) {
        if let Some(Some(local)) = self.locals.get_mut(lane) {
            local.inflight = local.inflight.saturating_sub(1);
        }
    }

    /// Handles a refusal: a temporary one ends the link, and the remote broker repeats the message after a pause; a
    /// permanent one is counted and passed on to the remote broker.
    fn check_local_refusal(&mut self, reason: ReasonCode) -> Result<(), LinkError> {
        match reason {
            ReasonCode::QuotaExceeded
            | ReasonCode::ServerBusy
            | ReasonCode::ServerUnavailable
            | ReasonCode::UnspecifiedError
            | ReasonCode::ImplementationSpecificError => Err(LinkError::LocalBusy(reason)),
            reason => {
                if reason.is_failure() {
                    self.tally.drop(BridgeDropReason::RefusedLocal);
                }
                Ok(())
            }
        }
    }
}
