//! The state of one connection: granted limits, expected answers, and the last activity of the other side.

use std::time::{Duration, Instant};

use hashbrown::HashMap;

use crate::bridge::error::LinkError;
use crate::bridge::loop_guard::Origin;
use crate::bridge::relay::inflight::Inflight;
use crate::bridge::relay::opening::LanePlan;
use crate::bridge::relay::unproven::{Unproven, UnprovenMessage};
use crate::bridge::relay::{LaneOptions, OUTPUT_BYTES_MAX, Progress};
use crate::bridge::wire;
use crate::config::bridge::BridgeSettings;
use crate::packet::connack::Connack;
use crate::packet::publish::OutgoingPublish;
use crate::packet::reason_code::ReasonCode;
use crate::packet::{PacketId, ProtocolVersion, QoS};

/// The limits granted in CONNACK, with the defaults of the specification. [MQTT-3.2.2.3]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// Whether the Session existed.
    pub(crate) session_present: bool,
    /// PUBLISH packets of QoS 1 and 2 that may be unacknowledged.
    pub(crate) receive_maximum: u16,
    /// Highest QoS accepted.
    pub(crate) maximum_qos: QoS,
    /// Whether RETAIN may be set.
    pub(crate) retain_available: bool,
    /// Largest packet accepted.
    pub(crate) packet_bytes_max: u32,
    /// Topic Aliases accepted.
    pub(crate) topic_alias_maximum: u16,
    /// Keep Alive in force; zero: none.
    pub(crate) keep_alive: Duration,
}

impl Accepted {
    /// Reads a CONNACK; `keep_alive` is the requested one. The Server's own value prevails. [MQTT-3.1.2-21]
    #[must_use]
    pub(crate) fn from_connack(connack: &Connack<'_>, keep_alive: Duration) -> Self {
        let properties = &connack.properties;
        let server_keep_alive = properties.server_keep_alive_seconds.map(u64::from);
        Self {
            session_present: connack.session_present,
            receive_maximum: properties.receive_maximum.unwrap_or(u16::MAX),
            maximum_qos: properties.maximum_qos.unwrap_or(QoS::ExactlyOnce),
            retain_available: properties.retain_available.unwrap_or(true),
            packet_bytes_max: properties.maximum_packet_bytes.unwrap_or(u32::MAX),
            topic_alias_maximum: properties.topic_alias_maximum.unwrap_or(0),
            keep_alive: server_keep_alive.map_or(keep_alive, Duration::from_secs),
        }
    }

    /// Most QoS 1 and 2 exchanges in flight to this broker, at most `configured`.
    #[must_use]
    pub(crate) fn window(&self, configured: u16) -> u16 {
        self.receive_maximum.min(configured)
    }
}

/// Releases every Packet Identifier that a Session may still hold for forgotten exchanges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sweep {
    next: u32,
    outstanding: u32,
}

/// PUBREL packets sent ahead of their PUBCOMP while sweeping.
const SWEEP_AHEAD: u32 = 2048;

impl Sweep {
    fn new() -> Self {
        Self { next: 1, outstanding: 0 }
    }

    fn fill(&mut self, output: &mut Vec<u8>, version: ProtocolVersion) {
        while self.outstanding < SWEEP_AHEAD {
            let Some(id) = u16::try_from(self.next).ok().and_then(wire::packet_id) else { break };
            wire::pubrel(output, version, id, ReasonCode::Success);
            self.next += 1;
            self.outstanding += 1;
        }
    }

    /// Counts an answer; true when it was the last.
    fn answer(&mut self) -> bool {
        self.outstanding = self.outstanding.saturating_sub(1);
        self.outstanding == 0 && self.next > u32::from(u16::MAX)
    }
}

/// Continues a sweep, if there is one; used by both sides.
pub(super) fn fill_sweep(
    sweep: &mut Option<Sweep>,
    output: &mut Vec<u8>,
    version: ProtocolVersion,
) {
    if let Some(sweep) = sweep {
        sweep.fill(output, version);
    }
}

/// A PUBCOMP came: true if it belongs to a sweep.
pub(super) fn answer_sweep(
    sweep: &mut Option<Sweep>,
    output: &mut Vec<u8>,
    version: ProtocolVersion,
) -> bool {
    let Some(running) = sweep else { return false };
    if running.answer() {
        *sweep = None;
    } else if running.outstanding < SWEEP_AHEAD / 2 {
        running.fill(output, version);
    }
    true
}

/// Least time for the local broker to answer.
const LOCAL_PATIENCE_MIN: Duration = Duration::from_secs(30);
/// Incoming bytes extend the time for an answer by at most this factor.
const STRETCH_MAX: u32 = 6;

/// The connection to the local broker.
pub(super) struct LocalSide {
    pub(super) output: Vec<u8>,
    /// Messages handed over and not yet acknowledged.
    pub(super) inflight: usize,
    receive_maximum: usize,
    pub(super) sweep: Option<Sweep>,
    /// SUBSCRIBE and UNSUBSCRIBE packets without answer, with their filters.
    pub(super) awaited: HashMap<PacketId, Vec<String>>,
    pub(super) session_present: bool,
    /// The local publisher of messages from the remote broker.
    pub(super) origin: Origin,
    /// When the opening last progressed.
    pub(super) opening_since: Instant,
}

impl LocalSide {
    pub(super) fn new(accepted: &Accepted, lane: &LaneOptions, now: Instant) -> Self {
        Self {
            origin: lane.origin,
            opening_since: now,
            output: Vec::new(),
            inflight: 0,
            receive_maximum: usize::from(accepted.receive_maximum),
            sweep: lane.sweep_local.then(Sweep::new),
            awaited: HashMap::new(),
            session_present: accepted.session_present,
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.output.len() < OUTPUT_BYTES_MAX && self.inflight < self.receive_maximum
    }

    pub(super) fn is_open(&self) -> bool {
        self.sweep.is_none() && self.awaited.is_empty()
    }

    /// When the local broker must have answered. Its disk may be slow, and then nothing is lost by retrying later.
    pub(super) fn answer_due(&self, response_timeout: Duration) -> Option<Instant> {
        let patience = response_timeout.max(LOCAL_PATIENCE_MIN);
        (!self.is_open()).then(|| self.opening_since + patience)
    }

    pub(super) fn handle_timeout(
        &self,
        response_timeout: Duration,
        now: Instant,
    ) -> Result<(), LinkError> {
        match self.answer_due(response_timeout) {
            Some(due) if due <= now => {
                let what = "the local broker did not answer SUBSCRIBE or PUBREL in time";
                Err(LinkError::Local(what.to_owned()))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// One connection to the remote broker.
pub(super) struct RemoteSide {
    pub(super) output: Vec<u8>,
    pub(super) plan: LanePlan,
    pub(super) is_subscribed: bool,
    pub(super) is_tidy: bool,
    pub(super) has_bridge_bit: bool,
    pub(super) unproven: Unproven,
    /// Exchanges in flight, for the Receive Maximum. [MQTT-3.3.4-9] Those that only wait for PUBREL count as well,
    /// because mosquitto counts them in its window, also after a disconnection.
    pub(super) inflight: Inflight,
    window: usize,
    pub(super) maximum_qos: QoS,
    pub(super) retain_available: bool,
    pub(super) packet_bytes_max: usize,
    pub(super) sweep: Option<Sweep>,
    pub(super) awaited: HashMap<PacketId, Vec<String>>,
    /// When the oldest of what is awaited, SUBACK or the PUBCOMPs of a sweep, was asked for or last went on.
    pub(super) awaited_since: Instant,
    /// Outgoing Topic Aliases by topic.
    pub(super) aliases: HashMap<Box<str>, u16>,
    pub(super) alias_maximum: u16,
    /// Incoming Topic Aliases, by number less one.
    pub(super) incoming_aliases: Vec<Option<Box<str>>>,
    pub(super) session_present: bool,
    keep_alive: Duration,
    pub(super) ping_sent: Option<Instant>,
    pub(super) must_ping_again: bool,
    last_received: Instant,
    last_sent: Instant,
}

impl RemoteSide {
    /// The packet as sent: with a Topic Alias, if its topic has one or can get one. `None` if it is larger than the
    /// remote broker accepts.
    pub(super) fn fit<'a>(
        &mut self,
        packet: OutgoingPublish<'a>,
        version: ProtocolVersion,
    ) -> Option<OutgoingPublish<'a>> {
        let fits = |packet: &OutgoingPublish<'_>, max| packet.encoded_bytes(version) <= max;
        let max = self.packet_bytes_max;
        if let Some(alias) = self.aliases.get(packet.topic) {
            let short = OutgoingPublish { topic: "", topic_alias: Some(*alias), ..packet };
            return fits(&short, max).then_some(short);
        }
        if !fits(&packet, max) {
            return None;
        }
        // The first topics get the aliases and keep them. 3 bytes more, which may not fit any more.
        let next = u16::try_from(self.aliases.len() + 1).ok();
        let topic_alias = next.filter(|next| *next <= self.alias_maximum);
        let with_alias = OutgoingPublish { topic_alias, ..packet };
        if let Some(alias) = topic_alias
            && fits(&with_alias, max)
        {
            self.aliases.insert(packet.topic.into(), alias);
            return Some(with_alias);
        }
        Some(packet)
    }

    pub(super) fn new(lane: LaneOptions, settings: &BridgeSettings, now: Instant) -> Self {
        let accepted = lane.remote;
        let own_limit = match settings.max_packet_bytes {
            0 => u32::MAX,
            limit => limit,
        };
        let incoming_aliases = match settings.protocol {
            ProtocolVersion::V5_0 => usize::from(settings.topic_alias_maximum),
            _ => 0,
        };
        Self {
            output: Vec::new(),
            plan: lane.plan,
            is_subscribed: lane.is_subscribed,
            is_tidy: lane.is_tidy,
            has_bridge_bit: lane.has_bridge_bit,
            unproven: Unproven::default(),
            inflight: Inflight::new(),
            window: usize::from(accepted.window(settings.max_inflight)),
            maximum_qos: accepted.maximum_qos,
            retain_available: accepted.retain_available,
            packet_bytes_max: accepted.packet_bytes_max.min(own_limit) as usize,
            sweep: lane.sweep_remote.then(Sweep::new),
            awaited: HashMap::new(),
            awaited_since: now,
            aliases: HashMap::new(),
            alias_maximum: accepted.topic_alias_maximum.min(settings.topic_alias_maximum),
            incoming_aliases: vec![None; incoming_aliases],
            session_present: accepted.session_present,
            keep_alive: accepted.keep_alive,
            ping_sent: None,
            must_ping_again: false,
            last_received: now,
            last_sent: now,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.sweep.is_none() && self.awaited.is_empty()
    }

    /// Whether everything sent has arrived.
    pub(super) fn is_drained(&self) -> bool {
        self.inflight.len() == 0 && self.unproven.is_empty()
    }

    pub(super) fn has_quota(&self) -> bool {
        self.inflight.len() < self.window
    }

    /// Whether there is room for a message, and no pending SUBSCRIBE has its Packet Identifier. [MQTT-2.2.1-3]
    pub(super) fn may_send(&self, packet_id: Option<PacketId>) -> bool {
        self.has_quota() && !packet_id.is_some_and(|id| self.awaited.contains_key(&id))
    }

    /// A Retained Message of QoS 0 was sent. See [`Unproven`].
    pub(super) fn note_unproven(
        &mut self,
        topic: &str,
        properties: &[u8],
        payload: &[u8],
        now: Instant,
    ) {
        let message = UnprovenMessage {
            topic: topic.to_owned(),
            properties: properties.to_vec(),
            payload: payload.to_vec(),
        };
        self.unproven.push(message, now);
        if self.unproven.wants_ping() {
            self.ping(now);
        }
    }

    /// Records that an answer to this packet is expected.
    pub(super) fn expect_answer(
        &mut self,
        packet_id: PacketId,
        filters: Vec<String>,
        now: Instant,
    ) {
        self.awaited.insert(packet_id, filters);
        self.awaited_since = now;
    }

    pub(super) fn note_progress(&mut self, progress: Progress, now: Instant) {
        match progress {
            Progress::Received => self.last_received = now,
            Progress::Sent => self.last_sent = now,
        }
    }

    /// When to send PINGREQ: before the Keep Alive expires [MQTT-3.1.2-20], and after half of it if nothing was
    /// received, because a stream of QoS 0 messages into a dead connection proves nothing.
    fn ping_due(&self) -> Option<Instant> {
        if self.ping_sent.is_some() {
            return None;
        }
        if self.keep_alive.is_zero() {
            return self.unproven.ping_due();
        }
        let quiet = self.last_sent + self.keep_alive.mul_f64(0.75);
        let due = quiet.min(self.last_received + self.keep_alive / 2);
        Some(self.unproven.ping_due().map_or(due, |unproven| due.min(unproven)))
    }

    /// When an answer is overdue. Incoming bytes mean that an answer is only late, and so may bytes waiting to be
    /// written, because on a slow line the PINGREQ is behind them. Bytes accepted by the system mean nothing, because a
    /// dead line accepts them, too.
    fn answer_due(&self, response_timeout: Duration) -> Option<(Instant, &'static str)> {
        if let Some(sent) = self.ping_sent {
            let patience = match self.output.is_empty() {
                true => response_timeout,
                false => response_timeout.max(self.keep_alive),
            };
            return Some((sent.max(self.last_received) + patience, "PINGREQ"));
        }
        let what = match (&self.sweep, self.awaited.is_empty()) {
            (Some(_), _) => "PUBREL",
            (None, false) => "SUBSCRIBE",
            (None, true) => return None,
        };
        // Incoming messages do not mean that the answer will ever arrive.
        let latest = self.awaited_since + response_timeout * STRETCH_MAX;
        let due = self.awaited_since.max(self.last_received) + response_timeout;
        Some((due.min(latest), what))
    }

    pub(super) fn next_timeout(&self, response_timeout: Duration) -> Option<Instant> {
        let answer = self.answer_due(response_timeout).map(|(due, _)| due);
        self.ping_due().into_iter().chain(answer).min()
    }

    pub(super) fn handle_timeout(
        &mut self,
        response_timeout: Duration,
        now: Instant,
    ) -> Result<(), LinkError> {
        if let Some((due, what)) = self.answer_due(response_timeout)
            && due <= now
        {
            return Err(LinkError::RemoteSilent(what));
        }
        if self.ping_due().is_some_and(|due| due <= now) {
            self.ping(now);
        }
        Ok(())
    }

    /// Sends PINGREQ, unless one is pending.
    pub(super) fn ping(&mut self, now: Instant) {
        if self.ping_sent.is_some() {
            return;
        }
        wire::pingreq(&mut self.output);
        self.unproven.note_ping();
        self.ping_sent = Some(now);
        self.last_sent = now;
    }
}
