//! The relay: passes messages between an MQTT connection to the local broker and one to the remote broker. A state
//! machine without IO: bytes in, bytes out.
//!
//! # Why nothing is lost, and QoS 2 arrives once
//!
//! The relay stores no message. A delivery from one broker becomes a PUBLISH to the other **with the same Packet
//! Identifier**, and every acknowledgement passes through it unchanged in meaning: PUBACK, PUBREC, PUBREL and PUBCOMP of
//! the one side are answers to those of the other. So the state of each exchange is only in the two Sessions, the
//! durable one at the local broker and the one at the remote broker, which both survive a lost connection. Afterwards
//! the sender repeats with the same identifiers, the relay repeats that, and the receiver recognises it. [MQTT-4.3.3]
//! [MQTT-4.4.0-1]
//!
//! This has two consequences. The relay connects to the local broker only while it is connected to the remote one, so
//! that the local broker repeats messages in flight. And if one of the two Sessions turns out to be new, the
//! identifiers that the other one holds for it are meaningless; they are released with a PUBREL for each ([`Sweep`]),
//! so that a new message with such an identifier is not mistaken for an old one.
//!
//! # Lanes
//!
//! A bridge may have several connections to the remote broker. Outgoing messages of one topic always use the same one.
//! Identifiers of incoming messages are chosen by the remote Session of each connection, so each lane that receives has
//! a local connection of its own; lane 0 also has the Subscriptions for outgoing messages.

mod echo_account;
mod incoming;
mod inflight;
mod loop_watch;
mod opening;
mod outgoing;
mod side;
mod unproven;
mod watch;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::bridge::error::LinkError;
use crate::bridge::loop_guard::{EchoGuard, Origin};
use crate::bridge::rate::RateLimit;
use crate::bridge::status::BridgeTally;
use crate::bridge::wire;
use crate::config::bridge::BridgeSettings;
use crate::packet::publish::OutgoingPublish;
use crate::packet::reason_code::ReasonCode;
use crate::packet::{Packet, PacketId, ProtocolVersion, QoS};
use incoming::IncomingMessage;
use outgoing::{HeldMessage, Route};
use side::{LocalSide, RemoteSide};
use watch::Watch;

pub(crate) use echo_account::EchoAccount;
pub(crate) use opening::{LanePlan, lane_plans, unsubscribe_from_leftovers};
pub(crate) use side::Accepted;
pub(crate) use unproven::Unproven;

/// An output buffer with more than this stops the input that fills it.
const OUTPUT_BYTES_MAX: usize = 256 * 1024;
/// Held messages beyond this many bytes stop the local input, if that resolves by itself; otherwise QoS 0 messages
/// are dropped.
const HELD_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most cached topic mappings.
const ROUTES_MAX: usize = 1024;

/// The phase of the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum RelayPhase {
    /// Subscribes locally, and releases stale identifiers of the local Session. Remote input waits.
    OpeningLocal,
    /// The same at the remote broker. Outgoing messages are held: a SUBSCRIBE must not take the Packet Identifier of
    /// one. [MQTT-2.2.1-3]
    OpeningRemote,
    /// Announces the bridge to the remote broker. Nothing else is sent before it has answered a PINGREQ after that, so
    /// that the reason is clear if it closes the connection.
    Announcing,
    /// Messages cross.
    Running,
}

/// The parameters of a relay with established connections.
pub(crate) struct RelayOptions {
    /// The bridge.
    pub(crate) settings: Arc<BridgeSettings>,
    /// The name of this broker in hop trails.
    pub(crate) broker_id: Arc<str>,
    /// One for each connection to the remote broker.
    pub(crate) lanes: Vec<LaneOptions>,
    /// Filters of the local Session that no rule needs any more.
    pub(crate) stale_local_filters: Vec<String>,
    /// Local filters whose Retained Messages the remote broker has already received.
    pub(crate) known_local_filters: Vec<String>,
    /// Where messages sent over 3.x links are remembered.
    pub(crate) echoes: Arc<EchoGuard>,
    /// If the remote broker treats us as an ordinary Client, or as several of them: the expected echoes.
    pub(crate) account: Option<Arc<Mutex<EchoAccount>>>,
    /// Messages queued for the remote broker. Retained Messages are synchronised after they have crossed.
    pub(crate) backlog: u64,
    /// Unproven messages of the last link.
    pub(crate) unproven: Unproven,
    /// Whether the bridge is announced to the remote broker.
    pub(crate) announcement: Announcement,
}

/// How the state of the bridge is announced to the remote broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Announcement {
    /// As present, on the notification topic.
    Present,
    /// Not at all.
    None,
}

/// One connection to the remote broker and, if needed, its local partner.
pub(crate) struct LaneOptions {
    /// What this lane subscribes to at the remote broker.
    pub(crate) plan: LanePlan,
    /// What the remote broker granted.
    pub(crate) remote: Accepted,
    /// What the local broker granted; `None` for a lane that receives nothing.
    pub(crate) local: Option<Accepted>,
    /// The local Session, as the publisher of incoming messages of this lane.
    pub(crate) origin: Origin,
    /// The remote Session still has the Subscriptions of this plan.
    pub(crate) is_subscribed: bool,
    /// And no others.
    pub(crate) is_tidy: bool,
    /// Whether the remote broker knows that this connection is a bridge and returns nothing to it.
    pub(crate) has_bridge_bit: bool,
    /// The remote Session may hold identifiers of another local Session.
    pub(crate) sweep_remote: bool,
    /// The local Session may hold identifiers of another remote Session.
    pub(crate) sweep_local: bool,
}

/// The state machine. See the module.
pub(crate) struct Relay {
    settings: Arc<BridgeSettings>,
    broker_id: Arc<str>,
    phase: RelayPhase,
    remotes: Vec<RemoteSide>,
    locals: Vec<Option<LocalSide>>,
    routes: HashMap<Box<str>, Route>,
    /// QoS 2 messages sent with QoS 1, because the remote broker accepts no more.
    downgraded: hashbrown::HashSet<u16>,
    held: Vec<VecDeque<HeldMessage>>,
    held_bytes: usize,
    held_qos0: usize,
    /// PUBREL packets received during the opening.
    held_releases: Vec<(PacketId, ReasonCode)>,
    rate: RateLimit,
    echoes: Arc<EchoGuard>,
    account: Option<Arc<Mutex<EchoAccount>>>,
    /// Whether messages repeated on this link were not accounted for before.
    is_account_new: bool,
    announcement: Announcement,
    /// Messages to send before requesting the remote broker's Retained Messages; `None` once requested.
    backlog: Option<u64>,
    /// From the last link.
    unproven: Unproven,
    /// Watches for circling messages, on 3.x links only, because messages on other links carry a trail.
    watch_out: Option<Watch<(usize, HeldMessage)>>,
    watch_in: Option<Watch<IncomingMessage>>,
    stale_local_filters: Vec<String>,
    known_local_filters: Vec<String>,
    tally: BridgeTally,
    warnings: Vec<String>,
    name: String,
    properties: Vec<u8>,
}

impl Relay {
    /// Starts the opening: the first packets are in the output buffers afterwards.
    #[must_use]
    pub(crate) fn new(options: RelayOptions, now: Instant) -> Self {
        let settings = options.settings;
        let lanes = options.lanes.len();
        let mut remotes = Vec::with_capacity(lanes);
        let mut locals = Vec::with_capacity(lanes);
        for lane in options.lanes {
            let accepted = lane.local.as_ref();
            locals.push(accepted.map(|accepted| LocalSide::new(accepted, &lane, now)));
            remotes.push(RemoteSide::new(lane, &settings, now));
        }
        let is_account_new = remotes.iter().any(|remote| !remote.session_present);
        let mut relay = Self {
            broker_id: options.broker_id,
            phase: RelayPhase::OpeningLocal,
            remotes,
            locals,
            routes: HashMap::new(),
            downgraded: hashbrown::HashSet::new(),
            held: (0..lanes).map(|_| VecDeque::new()).collect(),
            held_bytes: 0,
            held_qos0: 0,
            held_releases: Vec::new(),
            rate: RateLimit::new(settings.rate_messages, settings.rate_bytes, now),
            echoes: options.echoes,
            is_account_new,
            account: options.account,
            announcement: options.announcement,
            backlog: Some(options.backlog),
            unproven: options.unproven,
            watch_out: watches_loops(&settings).then(|| Watch::new(now)),
            watch_in: watches_loops(&settings).then(|| Watch::new(now)),
            stale_local_filters: options.stale_local_filters,
            known_local_filters: options.known_local_filters,
            tally: BridgeTally::default(),
            warnings: Vec::new(),
            name: String::new(),
            properties: Vec::new(),
            settings,
        };
        relay.open_local();
        relay.advance(now);
        relay
    }

    /// Handles packets from the local broker and returns how many bytes it consumed. The rest is either incomplete,
    /// or waits until [`Relay::wants_local`].
    ///
    /// # Errors
    /// The link has ended.
    pub(crate) fn handle_local(
        &mut self,
        lane: usize,
        bytes: &[u8],
        now: Instant,
    ) -> Result<usize, LinkError> {
        let mut taken = 0;
        while self.wants_local(lane) {
            let rest = bytes.get(taken..).unwrap_or_default();
            let next = wire::next(rest, ProtocolVersion::V5_0, u32::MAX);
            let Some((packet, length)) = next.map_err(LinkError::Local)? else { break };
            self.handle_local_packet(lane, packet, now)?;
            taken += length;
        }
        Ok(taken)
    }

    /// Handles packets from the remote broker; see [`Relay::handle_local`].
    ///
    /// # Errors
    /// The link has ended.
    pub(crate) fn handle_remote(
        &mut self,
        lane: usize,
        bytes: &[u8],
        now: Instant,
    ) -> Result<usize, LinkError> {
        let version = self.settings.protocol;
        let max_bytes = self.packet_bytes_max();
        let mut taken = 0;
        while self.wants_remote(lane) {
            let rest = bytes.get(taken..).unwrap_or_default();
            let next = wire::next(rest, version, max_bytes);
            let Some((packet, length)) = next.map_err(LinkError::RemoteMalformed)? else { break };
            self.handle_remote_packet(lane, packet, now)?;
            taken += length;
        }
        Ok(taken)
    }

    /// Handles a timeout, at [`Relay::next_timeout`].
    ///
    /// # Errors
    /// The remote broker did not answer in time.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Result<(), LinkError> {
        let response_timeout = self.settings.response_timeout;
        for local in self.locals.iter().flatten() {
            local.handle_timeout(response_timeout, now)?;
        }
        for remote in &mut self.remotes {
            remote.handle_timeout(response_timeout, now)?;
        }
        self.release_watched(now);
        self.pump_held(now);
        Ok(())
    }

    /// When [`Relay::handle_timeout`] has something to do.
    #[must_use]
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let response_timeout = self.settings.response_timeout;
        let sides = self.remotes.iter().filter_map(|remote| remote.next_timeout(response_timeout));
        // Waiting for an acknowledgement or for room in an output has no timeout.
        let may_send = |(remote, held): (&RemoteSide, &VecDeque<HeldMessage>)| {
            !held.is_empty() && remote.has_quota() && remote.output.len() < OUTPUT_BYTES_MAX
        };
        let is_waiting =
            self.phase == RelayPhase::Running && self.remotes.iter().zip(&self.held).any(may_send);
        let held = is_waiting.then(|| self.rate.ready_at());
        let locals = self.locals.iter().flatten();
        let locals = locals.filter_map(|local| local.answer_due(response_timeout));
        let watched = [
            self.watch_out.as_ref().and_then(Watch::next_release),
            self.watch_in.as_ref().and_then(Watch::next_release),
        ];
        sides.chain(held).chain(locals).chain(watched.into_iter().flatten()).min()
    }

    /// Records activity on a remote connection.
    pub(crate) fn note_progress(&mut self, lane: usize, progress: Progress, now: Instant) {
        if let Some(remote) = self.remotes.get_mut(lane) {
            remote.note_progress(progress, now);
        }
    }

    /// Whether local input of a lane is wanted. Acknowledgements of incoming messages come the same way as outgoing
    /// messages, so input is refused only for reasons that resolve by themselves: a remote output that drains, a rate
    /// limit that passes.
    #[must_use]
    pub(crate) fn wants_local(&self, lane: usize) -> bool {
        if lane > 0 {
            return self
                .remotes
                .get(lane)
                .is_some_and(|remote| remote.output.len() < OUTPUT_BYTES_MAX);
        }
        let has_room = self.remotes.iter().all(|remote| remote.output.len() < OUTPUT_BYTES_MAX);
        has_room && (self.held_bytes < HELD_BYTES_MAX || !self.only_time_holds())
    }

    /// Whether held messages wait only for the opening or the rate limit, and not for something further back in the
    /// local input, such as an answer of the local broker or a PUBREL that makes room at a connection. If so, the
    /// window of the local Session limits them.
    fn only_time_holds(&self) -> bool {
        let has_quota = |(remote, held): (&RemoteSide, &VecDeque<HeldMessage>)| {
            held.is_empty() || remote.has_quota()
        };
        match self.phase {
            RelayPhase::OpeningLocal => false,
            RelayPhase::OpeningRemote | RelayPhase::Announcing => {
                self.locals.iter().flatten().all(LocalSide::has_room)
            }
            RelayPhase::Running => {
                self.rate.is_limited() && self.remotes.iter().zip(&self.held).all(has_quota)
            }
        }
    }

    /// Whether remote input of a lane is wanted: the local side must have room for it.
    #[must_use]
    pub(crate) fn wants_remote(&self, lane: usize) -> bool {
        let local = self.locals.get(lane).and_then(Option::as_ref);
        self.phase > RelayPhase::OpeningLocal && local.is_none_or(LocalSide::has_room)
    }

    /// Output to the local broker.
    pub(crate) fn local_output(&mut self, lane: usize) -> Option<&mut Vec<u8>> {
        self.locals.get_mut(lane).and_then(Option::as_mut).map(|local| &mut local.output)
    }

    /// Output to the remote broker.
    pub(crate) fn remote_output(&mut self, lane: usize) -> Option<&mut Vec<u8>> {
        self.remotes.get_mut(lane).map(|remote| &mut remote.output)
    }

    /// The counts since the last call.
    pub(crate) fn take_tally(&mut self) -> BridgeTally {
        std::mem::take(&mut self.tally)
    }

    /// Warnings for the operator, once each.
    pub(crate) fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// Whether messages cross.
    #[must_use]
    pub(crate) fn is_running(&self) -> bool {
        self.phase == RelayPhase::Running
    }

    /// Whether the bridge is being announced to the remote broker.
    #[must_use]
    pub(crate) fn is_announcing(&self) -> bool {
        self.phase == RelayPhase::Announcing
    }

    /// Whether everything sent to the remote broker has been acknowledged.
    #[must_use]
    pub(crate) fn is_drained(&self) -> bool {
        self.held_bytes == 0
            && self.watch_out.as_ref().is_none_or(Watch::is_empty)
            && self.remotes.iter().all(RemoteSide::is_drained)
    }

    /// Requests confirmation that everything has arrived, before the link is closed.
    pub(crate) fn drain(&mut self, now: Instant) {
        for remote in self.remotes.iter_mut().filter(|remote| !remote.is_drained()) {
            remote.ping(now);
        }
    }

    /// Handles messages that the local broker has sent to a link that has ended, because QoS 0 Retained Messages are nowhere
    /// else. Returns how many bytes it consumed.
    pub(crate) fn salvage(&mut self, bytes: &[u8], now: Instant) -> usize {
        let mut taken = 0;
        // From now on everything is held.
        self.phase = RelayPhase::OpeningRemote;
        while let Ok(Some((packet, length))) =
            wire::next(bytes.get(taken..).unwrap_or_default(), ProtocolVersion::V5_0, u32::MAX)
        {
            if let Packet::Publish(publish) = packet
                && publish.retain
                && publish.qos == QoS::AtMostOnce
            {
                self.local_publish(&publish, now);
            }
            taken += length;
        }
        taken
    }

    /// QoS 0 messages with RETAIN that may not have arrived, when the link has ended.
    pub(crate) fn take_unproven(&mut self) -> Unproven {
        let now = Instant::now();
        let mut left = std::mem::take(&mut self.unproven);
        for remote in &mut self.remotes {
            left.append(std::mem::take(&mut remote.unproven), now);
        }
        let watched =
            self.watch_out.iter_mut().flat_map(|watch| watch.drain().map(|(_, held)| held));
        let watched: Vec<_> = watched.collect();
        let held = self.held.iter_mut().flat_map(|held| held.drain(..));
        watched.into_iter().chain(held).filter_map(HeldMessage::into_unproven).for_each(
            |message| {
                left.push(message, now);
            },
        );
        left
    }

    /// The number of messages circling over this link, and topics of those found since the last call.
    pub(crate) fn take_loops(&mut self) -> (usize, Vec<String>) {
        let (mut looping, mut found) = (0, Vec::new());
        if let Some(watch) = &mut self.watch_out {
            looping += watch.looping();
            found.extend(watch.take_found());
        }
        if let Some(watch) = &mut self.watch_in {
            looping += watch.looping();
            found.extend(watch.take_found());
        }
        (looping, found)
    }

    /// Publishes a message of the bridge itself to the remote broker, with QoS 0: identifiers belong to the messages
    /// that pass through.
    pub(crate) fn publish_remote(&mut self, topic: &str, payload: &[u8], now: Instant) {
        if let Some(remote) = self.remotes.first_mut() {
            let packet = OutgoingPublish {
                dup: false,
                qos: QoS::AtMostOnce,
                retain: remote.retain_available,
                topic,
                packet_id: None,
                topic_alias: None,
                message_expiry: None,
                subscription_ids: &[],
                properties: &[],
                payload_bytes: payload.len(),
            };
            wire::publish(&mut remote.output, self.settings.protocol, &packet, payload);
            remote.note_progress(Progress::Sent, now);
        }
    }

    /// Disconnects both sides.
    pub(crate) fn disconnect(&mut self) {
        let version = self.settings.protocol;
        for remote in &mut self.remotes {
            wire::disconnect(&mut remote.output, version);
        }
        for local in self.locals.iter_mut().flatten() {
            wire::disconnect(&mut local.output, ProtocolVersion::V5_0);
        }
    }

    fn packet_bytes_max(&self) -> u32 {
        match self.settings.max_packet_bytes {
            0 => u32::MAX,
            limit => limit,
        }
    }

    fn handle_local_packet(
        &mut self,
        lane: usize,
        packet: Packet<'_>,
        now: Instant,
    ) -> Result<(), LinkError> {
        match packet {
            Packet::Publish(publish) => self.local_publish(&publish, now),
            Packet::Puback(ack) => self.local_puback(lane, &ack.0)?,
            Packet::Pubrec(ack) => self.local_pubrec(lane, &ack.0)?,
            Packet::Pubrel(ack) => self.local_pubrel(&ack.0),
            Packet::Pubcomp(ack) => self.local_pubcomp(lane, &ack.0, now),
            Packet::Suback(ack) => self.local_suback(lane, &ack, now),
            Packet::Unsuback(ack) => self.local_done(lane, ack.packet_id, now),
            Packet::Pingresp => {}
            Packet::Disconnect(disconnect) => {
                return Err(LinkError::LocalRefused(disconnect.reason));
            }
            _ => return Err(LinkError::Local("a packet that only clients send".to_owned())),
        }
        Ok(())
    }

    fn handle_remote_packet(
        &mut self,
        lane: usize,
        packet: Packet<'_>,
        now: Instant,
    ) -> Result<(), LinkError> {
        match packet {
            Packet::Publish(publish) => self.remote_publish(lane, &publish, now)?,
            Packet::Puback(ack) => self.remote_puback(lane, &ack.0, now)?,
            Packet::Pubrec(ack) => self.remote_pubrec(lane, &ack.0, now)?,
            Packet::Pubrel(ack) => self.remote_pubrel(lane, &ack.0),
            Packet::Pubcomp(ack) => self.remote_pubcomp(lane, &ack.0, now),
            Packet::Suback(ack) => self.remote_suback(lane, &ack, now),
            Packet::Unsuback(ack) => self.remote_done(lane, ack.packet_id, now),
            Packet::Pingresp => self.remote_pingresp(lane, now),
            Packet::Disconnect(disconnect) => {
                let text = disconnect.reason_string.unwrap_or_default().to_owned();
                return Err(LinkError::RemoteDisconnect { reason: disconnect.reason, text });
            }
            Packet::Connack(_) => return Err(LinkError::RemoteViolation("a second CONNACK")),
            Packet::Auth(_) => {
                return Err(LinkError::RemoteViolation("AUTH without enhanced authentication"));
            }
            _ => return Err(LinkError::RemoteViolation("a packet that only clients send")),
        }
        Ok(())
    }
}

/// A 3.x broker with a smaller window than this may hold messages back so that they seem to circle.
const WATCHED_WINDOW_MIN: u16 = 10;

fn watches_loops(settings: &BridgeSettings) -> bool {
    settings.protocol < ProtocolVersion::V5_0 && settings.max_inflight >= WATCHED_WINDOW_MIN
}

/// In which direction a remote connection moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Bytes were read.
    Received,
    /// Bytes were written.
    Sent,
}

#[cfg(test)]
mod tests;
