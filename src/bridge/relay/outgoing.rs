//! Passes messages from the local to the remote broker, and their acknowledgements back.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::bridge::error::LinkError;
use crate::bridge::loop_guard::{trail_contains, trail_length};
use crate::bridge::properties::{Changes, hop_trail, response_topic, rewrite};
use crate::bridge::relay::unproven::UnprovenMessage;
use crate::bridge::relay::watch::Turn;
use crate::bridge::relay::{HELD_BYTES_MAX, ROUTES_MAX, Relay, RelayPhase};
use crate::bridge::status::BridgeDropReason;
use crate::bridge::wire;
use crate::config::bridge::rule::{Mapping, filter_matches};
use crate::packet::acknowledgement::Acknowledgement;
use crate::packet::publish::{OutgoingPublish, Publish};
use crate::packet::reason_code::ReasonCode;
use crate::packet::{PacketId, ProtocolVersion, QoS};

/// The route of a local topic; cached, because devices repeat their topics.
#[derive(Debug, Clone)]
pub(super) struct Route {
    outcome: Result<Arc<str>, BridgeDropReason>,
    lane: usize,
    /// The highest QoS with which the remote broker returns it, if it does.
    echo: Option<QoS>,
}

/// A message that waits for the rate limit, for the end of the opening, or for room at its connection.
pub(super) struct HeldMessage {
    message: Outgoing<String, Vec<u8>>,
    since: Instant,
}

/// A message under its remote name.
#[derive(Clone, Copy)]
struct Outgoing<T, B> {
    topic: T,
    properties: B,
    payload: B,
    dup: bool,
    qos: QoS,
    retain: bool,
    packet_id: Option<PacketId>,
    message_expiry: Option<u32>,
    /// See [`Route::echo`].
    echo: Option<QoS>,
}

/// What the local broker's exchange of a message is: how it must be ended if the message is dropped.
#[derive(Debug, Clone, Copy)]
struct Exchange {
    qos: QoS,
    packet_id: Option<PacketId>,
    dup: bool,
}

impl HeldMessage {
    /// Converts it when the link has ended, because QoS 0 Retained Messages are nowhere else.
    pub(super) fn into_unproven(self) -> Option<UnprovenMessage> {
        let Outgoing { topic, properties, payload, qos, retain, .. } = self.message;
        let is_lost = retain && qos == QoS::AtMostOnce;
        is_lost.then_some(UnprovenMessage { topic, properties, payload })
    }
}

impl<T: AsRef<str>, B: AsRef<[u8]>> Outgoing<T, B> {
    fn size(&self) -> usize {
        self.topic.as_ref().len() + self.properties.as_ref().len() + self.payload.as_ref().len()
    }

    fn exchange(&self) -> Exchange {
        Exchange { qos: self.qos, packet_id: self.packet_id, dup: self.dup }
    }

    fn as_borrowed(&self) -> Outgoing<&str, &[u8]> {
        Outgoing {
            topic: self.topic.as_ref(),
            properties: self.properties.as_ref(),
            payload: self.payload.as_ref(),
            dup: self.dup,
            qos: self.qos,
            retain: self.retain,
            packet_id: self.packet_id,
            message_expiry: self.message_expiry,
            echo: self.echo,
        }
    }
}

impl Outgoing<&str, &[u8]> {
    fn to_held(self, since: Instant) -> HeldMessage {
        let message = Outgoing {
            topic: self.topic.to_owned(),
            properties: self.properties.to_vec(),
            payload: self.payload.to_vec(),
            dup: self.dup,
            qos: self.qos,
            retain: self.retain,
            packet_id: self.packet_id,
            message_expiry: self.message_expiry,
            echo: self.echo,
        };
        HeldMessage { message, since }
    }
}

impl Relay {
    /// A message of the local broker.
    pub(super) fn local_publish(&mut self, publish: &Publish<'_>, now: Instant) {
        let exchange =
            Exchange { qos: publish.qos, packet_id: publish.packet_id, dup: publish.dup };
        let route = self.route(publish.topic);
        let (topic, lane) = match route.outcome {
            Ok(topic) => (topic, route.lane),
            Err(reason) => return self.drop_outgoing(exchange, reason),
        };
        if let Err(reason) = self.prepare_properties(publish) {
            return self.drop_outgoing(exchange, reason);
        }
        if self.settings.protocol < ProtocolVersion::V5_0 {
            let window = self.settings.echo_window;
            self.echoes.note_sent(publish.topic, publish.payload, now, window);
        }
        let properties = std::mem::take(&mut self.properties);
        let message = Outgoing {
            topic: &*topic,
            properties: &*properties,
            payload: publish.payload,
            dup: publish.dup,
            qos: publish.qos,
            retain: publish.retain && self.settings.outgoing_retain,
            packet_id: publish.packet_id,
            message_expiry: publish.message_expiry,
            echo: route.echo,
        };
        match self.watch_outgoing(publish.topic, &message, now) {
            Turn::Passes => self.send_or_hold(lane, message, now),
            Turn::Waits(fingerprint, until) => {
                if let Some(watch) = &mut self.watch_out {
                    let held = (lane, message.to_held(now));
                    watch.hold((fingerprint, until), publish.topic, message.size(), held);
                }
                if until <= now {
                    self.release_outgoing(now);
                }
            }
        }
        self.properties = properties;
        if publish.qos == QoS::AtMostOnce {
            self.note_crossed(now);
        }
    }

    fn watch_outgoing(
        &mut self,
        topic: &str,
        message: &Outgoing<&str, &[u8]>,
        now: Instant,
    ) -> Turn {
        match &mut self.watch_out {
            // The remote broker already knows messages that were sent before, in their order.
            Some(watch) if self.phase == RelayPhase::Running && !message.dup => {
                watch.note(topic, message.payload, now)
            }
            Some(_) | None => Turn::Passes,
        }
    }

    fn send_or_hold(&mut self, lane: usize, message: Outgoing<&str, &[u8]>, now: Instant) {
        if !self.must_hold(lane, &message, now) {
            self.send(lane, message, now);
        } else if message.qos == QoS::AtMostOnce
            && self.held_bytes >= HELD_BYTES_MAX
            && self.phase > RelayPhase::OpeningLocal
        {
            self.tally.drop(BridgeDropReason::NoRoom);
        } else {
            self.hold_message(lane, message, now);
        }
    }

    /// Releases messages that were held because they seemed to circle.
    pub(super) fn release_outgoing(&mut self, now: Instant) {
        let released = self.watch_out.as_mut().map(|watch| watch.take_released(now));
        for (lane, held) in released.into_iter().flatten() {
            self.send_or_hold(lane, held.message.as_borrowed(), now);
        }
    }

    fn route(&mut self, topic: &str) -> Route {
        if let Some(route) = self.routes.get(topic) {
            return route.clone();
        }
        let outcome: Result<Arc<str>, BridgeDropReason> =
            match self.settings.rules.map_out(topic, &mut self.name) {
                Mapping::Mapped(_) => Ok(self.name.as_str().into()),
                Mapping::Excluded => Err(BridgeDropReason::Excluded),
                Mapping::NoRule => Err(BridgeDropReason::NoRule),
                Mapping::Impossible => Err(BridgeDropReason::Topic),
            };
        let lanes = self.remotes.len().max(1);
        // The same in every process, so that a message repeated after a restart uses the same connection.
        let hash = foldhash::fast::FixedState::default().hash_one(topic);
        let lane = usize::try_from(hash % lanes as u64).unwrap_or(0);
        let echo = outcome.as_ref().ok().and_then(|name| self.echo_of(lane, name));
        let route = Route { outcome, lane, echo };
        if self.routes.len() >= ROUTES_MAX {
            self.routes.clear();
        }
        self.routes.insert(topic.into(), route.clone());
        route
    }

    /// The QoS with which the remote broker returns messages sent under this name, if it does. A broker that knows the
    /// bridge bit returns nothing to the same connection, but treats other connections of the bridge as different
    /// clients.
    fn echo_of(&self, lane: usize, name: &str) -> Option<QoS> {
        self.account.as_ref()?;
        let receivers = self
            .remotes
            .iter()
            .enumerate()
            .filter(|(receiver, remote)| *receiver != lane || !remote.has_bridge_bit);
        let filters = receivers.flat_map(|(_, remote)| &remote.plan.subscribe);
        filters.filter(|(filter, _)| filter_matches(filter, name)).map(|(_, qos)| *qos).max()
    }

    /// Leaves the properties under which the message goes on in `self.properties`.
    fn prepare_properties(&mut self, publish: &Publish<'_>) -> Result<(), BridgeDropReason> {
        self.properties.clear();
        let limit = usize::from(self.settings.hop_limit);
        let mut is_named = false;
        if limit > 0 && !publish.properties.is_empty() {
            let trail = hop_trail(&publish.properties).unwrap_or_default();
            // As the last one, it was named on its way in.
            is_named = trail.rsplit(',').next() == Some(&*self.broker_id);
            if !is_named && trail_contains(trail, &self.broker_id) {
                return Err(BridgeDropReason::Loop);
            }
            if trail_length(trail) >= limit {
                return Err(BridgeDropReason::HopLimit);
            }
        }
        if self.settings.protocol < ProtocolVersion::V5_0 {
            return Ok(());
        }
        let renamed = response_topic(&publish.properties).is_some_and(|response| {
            self.settings.rules.map_response_out(response, publish.topic, &mut self.name)
        });
        let changes = Changes {
            response_topic: renamed.then_some(self.name.as_str()),
            hop: (limit > 0 && !is_named).then_some(&*self.broker_id),
        };
        rewrite(&publish.properties, changes, &mut self.properties);
        Ok(())
    }

    /// Keeps the order within a lane: nothing overtakes held messages, except that QoS 0, which needs no room in the
    /// window, does not wait for messages that do.
    fn must_hold(&mut self, lane: usize, message: &Outgoing<&str, &[u8]>, now: Instant) -> bool {
        let (qos, bytes) = (message.qos, message.size());
        if self.phase < RelayPhase::Running {
            return true;
        }
        if qos == QoS::AtMostOnce && self.held_qos0 == 0 && !self.rate.is_limited() {
            return false;
        }
        let waits = self.held.get(lane).is_some_and(|held| !held.is_empty());
        let may_send =
            self.remotes.get(lane).is_some_and(|remote| remote.may_send(message.packet_id));
        waits || !may_send || !self.rate.take(bytes, now)
    }

    fn hold_message(&mut self, lane: usize, message: Outgoing<&str, &[u8]>, now: Instant) {
        self.held_bytes += message.size();
        self.held_qos0 += usize::from(message.qos == QoS::AtMostOnce);
        let Some(held) = self.held.get_mut(lane) else { return };
        held.push_back(message.to_held(now));
    }

    /// Sends held messages as far as room and rate allow.
    pub(super) fn pump_held(&mut self, now: Instant) {
        if self.phase < RelayPhase::Running {
            return;
        }
        for (packet_id, reason) in std::mem::take(&mut self.held_releases) {
            self.release_remote(packet_id, reason);
        }
        self.send_unproven(now);
        for lane in 0..self.held.len() {
            while self.pump_one(lane, now) {}
        }
    }

    /// Sends messages of the last link again that may not have arrived.
    fn send_unproven(&mut self, now: Instant) {
        for message in self.unproven.take_last() {
            let echo = self.echo_of(0, &message.topic);
            let message = Outgoing {
                topic: &*message.topic,
                properties: &*message.properties,
                payload: &*message.payload,
                dup: false,
                qos: QoS::AtMostOnce,
                retain: true,
                packet_id: None,
                message_expiry: None,
                echo,
            };
            self.send(0, message, now);
        }
    }

    fn pump_one(&mut self, lane: usize, now: Instant) -> bool {
        let Some(held) = self.held.get_mut(lane) else { return false };
        let Some(next) = held.front() else { return false };
        let may_send = self.remotes.get(lane).is_some_and(|remote| {
            remote.may_send(next.message.packet_id) && remote.output.len() < super::OUTPUT_BYTES_MAX
        });
        if !may_send || !self.rate.take(next.message.size(), now) {
            return false;
        }
        if let Some(waiting) = held.pop_front() {
            self.send_held(lane, waiting, now);
        }
        true
    }

    fn send_held(&mut self, lane: usize, waiting: HeldMessage, now: Instant) {
        let HeldMessage { mut message, since } = waiting;
        self.held_bytes = self.held_bytes.saturating_sub(message.size());
        self.held_qos0 -= usize::from(message.qos == QoS::AtMostOnce);
        if let Some(seconds) = message.message_expiry {
            let waited = now.saturating_duration_since(since);
            // A message that was sent before may have arrived, so its exchange must be completed.
            if !message.dup && waited >= Duration::from_secs(u64::from(seconds)) {
                return self.drop_outgoing(message.exchange(), BridgeDropReason::Expired);
            }
            let waited = u32::try_from(waited.as_secs()).unwrap_or(u32::MAX);
            message.message_expiry = Some(seconds.saturating_sub(waited));
        }
        self.send(lane, message.as_borrowed(), now);
    }

    fn send(&mut self, lane: usize, message: Outgoing<&str, &[u8]>, now: Instant) {
        let version = self.settings.protocol;
        let Some(remote) = self.remotes.get_mut(lane) else { return };
        let qos = message.qos.min(remote.maximum_qos);
        let packet_id = if qos == QoS::AtMostOnce { None } else { message.packet_id };
        let packet = OutgoingPublish {
            dup: message.dup && qos > QoS::AtMostOnce,
            qos,
            retain: message.retain && remote.retain_available,
            topic: message.topic,
            packet_id,
            topic_alias: None,
            message_expiry: message.message_expiry,
            subscription_ids: &[],
            properties: message.properties,
            payload_bytes: message.payload.len(),
        };
        let Some(packet) = remote.fit(packet, version) else {
            return self.drop_outgoing(message.exchange(), BridgeDropReason::TooLarge);
        };
        wire::publish(&mut remote.output, version, &packet, message.payload);
        remote.note_progress(super::Progress::Sent, now);
        self.tally.messages_out += 1;
        self.tally.bytes_out += (message.topic.len() + message.payload.len()) as u64;
        if let Some(packet_id) = packet_id {
            remote.inflight.insert(packet_id);
        }
        if packet.retain && packet_id.is_none() {
            remote.note_unproven(message.topic, message.properties, message.payload, now);
        }
        let is_first = !message.dup || self.is_account_new;
        if let (Some(most), Some(account)) = (message.echo, &self.account)
            && is_first
        {
            let echo = (message.topic, message.payload, qos.min(most));
            account.lock().note_sent(echo, now, self.settings.response_timeout);
        }
        self.note_sent(message.qos, qos, message.packet_id);
    }

    fn note_sent(&mut self, wanted: QoS, sent: QoS, packet_id: Option<PacketId>) {
        let Some(packet_id) = packet_id else { return };
        match (wanted, sent) {
            // The remote broker accepts no acknowledged messages, so writing is the end.
            (QoS::AtLeastOnce, QoS::AtMostOnce) => {
                self.puback_local(packet_id, ReasonCode::Success);
            }
            (QoS::ExactlyOnce, QoS::AtMostOnce) => {
                self.pubrec_local(packet_id, ReasonCode::Success);
            }
            (QoS::ExactlyOnce, QoS::AtLeastOnce) => {
                self.downgraded.insert(packet_id.0.get());
            }
            _ => {}
        }
    }

    /// Drops a message: the local broker may forget it.
    fn drop_outgoing(&mut self, exchange: Exchange, reason: BridgeDropReason) {
        let Exchange { qos, packet_id, dup } = exchange;
        self.tally.drop(reason);
        self.backlog = self.backlog.map(|left| left.saturating_sub(1));
        let Some(packet_id) = packet_id else { return };
        match qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => self.puback_local(packet_id, ReasonCode::Success),
            // A failure ends the exchange at once. [MQTT-4.3.3-4] One that began earlier may be known to the remote
            // broker, so it goes its whole way: the PUBREL that follows releases the identifier there.
            QoS::ExactlyOnce if dup => self.pubrec_local(packet_id, ReasonCode::Success),
            QoS::ExactlyOnce => {
                self.pubrec_local(packet_id, ReasonCode::ImplementationSpecificError);
            }
        }
    }

    /// Handles a PUBREL of the local broker. It overtakes held messages, which may wait for the room that the end of
    /// this exchange makes.
    pub(super) fn local_pubrel(&mut self, ack: &Acknowledgement<'_>) {
        match self.phase < RelayPhase::Running {
            true => self.held_releases.push((ack.packet_id, ack.reason)),
            false => self.release_remote(ack.packet_id, ack.reason),
        }
    }

    fn release_remote(&mut self, packet_id: PacketId, reason: ReasonCode) {
        let version = self.settings.protocol;
        let takes_qos2 =
            self.remotes.first().is_some_and(|remote| remote.maximum_qos == QoS::ExactlyOnce);
        if !takes_qos2 {
            return self.pubcomp_local(packet_id);
        }
        let lane = self.lane_of(packet_id);
        for (index, remote) in self.remotes.iter_mut().enumerate() {
            // Sent over an earlier link: one of them knows it, the others answer all the same.
            if lane.is_none_or(|lane| lane == index) {
                wire::pubrel(&mut remote.output, version, packet_id, reason);
                remote.inflight.insert(packet_id);
            }
        }
    }

    /// The connection of an exchange in flight.
    fn lane_of(&self, packet_id: PacketId) -> Option<usize> {
        self.remotes.iter().position(|remote| remote.inflight.contains(packet_id))
    }

    /// QoS 1 arrived. An answer to nothing is ignored: it must not end the exchange of a message that is still held.
    pub(super) fn remote_puback(
        &mut self,
        lane: usize,
        ack: &Acknowledgement<'_>,
        now: Instant,
    ) -> Result<(), LinkError> {
        self.check_refusal(ack.reason)?;
        if !self.end_exchange(lane, ack.packet_id) {
            return Ok(());
        }
        if self.downgraded.remove(&ack.packet_id.0.get()) {
            self.pubrec_local(ack.packet_id, ReasonCode::Success);
        } else {
            self.puback_local(ack.packet_id, ReasonCode::Success);
        }
        self.note_crossed(now);
        self.pump_held(now);
        Ok(())
    }

    /// QoS 2 arrived.
    pub(super) fn remote_pubrec(
        &mut self,
        lane: usize,
        ack: &Acknowledgement<'_>,
        now: Instant,
    ) -> Result<(), LinkError> {
        self.check_refusal(ack.reason)?;
        if self.lane_of(ack.packet_id).is_none() {
            return Ok(());
        }
        self.pubrec_local(ack.packet_id, ack.reason);
        if ack.reason.is_failure() {
            self.end_exchange(lane, ack.packet_id);
            self.note_crossed(now);
            self.pump_held(now);
        }
        Ok(())
    }

    /// QoS 2 is complete, where every connection has answered that was asked.
    pub(super) fn remote_pubcomp(&mut self, lane: usize, ack: &Acknowledgement<'_>, now: Instant) {
        if self.remote_swept(lane, now) {
            return;
        }
        if self.end_exchange(lane, ack.packet_id) && self.lane_of(ack.packet_id).is_none() {
            self.pubcomp_local(ack.packet_id);
            self.note_crossed(now);
        }
        self.pump_held(now);
    }

    /// Handles a refusal: a temporary one ends the link, and after a pause the message is sent again, in order; a
    /// permanent one is counted.
    fn check_refusal(&mut self, reason: ReasonCode) -> Result<(), LinkError> {
        match reason {
            ReasonCode::QuotaExceeded | ReasonCode::ServerBusy | ReasonCode::MessageRateTooHigh => {
                Err(LinkError::RemoteBusy(reason))
            }
            reason => {
                if reason.is_failure() {
                    self.tally.drop(BridgeDropReason::RefusedRemote);
                }
                Ok(())
            }
        }
    }

    fn end_exchange(&mut self, lane: usize, packet_id: PacketId) -> bool {
        self.remotes.get_mut(lane).is_some_and(|remote| remote.inflight.remove(packet_id))
    }

    fn puback_local(&mut self, packet_id: PacketId, reason: ReasonCode) {
        if let Some(Some(local)) = self.locals.first_mut() {
            wire::puback(&mut local.output, ProtocolVersion::V5_0, packet_id, reason);
        }
    }

    fn pubrec_local(&mut self, packet_id: PacketId, reason: ReasonCode) {
        if let Some(Some(local)) = self.locals.first_mut() {
            wire::pubrec(&mut local.output, ProtocolVersion::V5_0, packet_id, reason);
        }
    }

    fn pubcomp_local(&mut self, packet_id: PacketId) {
        if let Some(Some(local)) = self.locals.first_mut() {
            wire::pubcomp(&mut local.output, ProtocolVersion::V5_0, packet_id);
        }
    }
}
