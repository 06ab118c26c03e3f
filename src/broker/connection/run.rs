//! The single path of every PUBLISH from its decoder to its recipients: admitted, added to a run, refused or routed, and
//! acknowledged. Consecutive plain PUBLISH packets of one topic in one read buffer form one run, which needs one plan, and
//! one lock for each recipient. Devices publish in bursts, and most of the cost of a message does not depend on its
//! contents. Any other PUBLISH is a run of its own.

use smallvec::SmallVec;

use crate::broker::connection::pending::Promise;
use crate::broker::connection::plans::Cached;
use crate::broker::connection::publish::Refusal;
use crate::broker::connection::remark::Remark;
use crate::broker::connection::turn::Turn;
use crate::broker::connection::{ClientConnection, InputFlow};
use crate::broker::route::{Plan, Routed};
use crate::durable::change::SessionChange;
use crate::durable::message::{MessageHeader, SessionId, Timestamp};
use crate::durable::{Durability, StoreState};
use crate::packet::plain_publish::plain_publish;
use crate::packet::reason_code::ReasonCode;
use crate::packet::{PacketId, ProtocolVersion, QoS};
use crate::session::access_rights::PublishRights;
use crate::session::effects::{DropReason, Tally};
use crate::session::encoded_run::ArrivedPackets;
use crate::session::inbound::Inbound;
use crate::session::publication::Publication;
use crate::session::violation::Violation;

/// Most messages routed together: more would make others wait for a recipient's lock.
pub(super) const RUN_LIMIT: u16 = 32;
/// The same as a size.
const RUN_MESSAGES: usize = RUN_LIMIT as usize;
/// Most Sessions for which a run may have that many messages.
const RUN_SESSIONS: usize = 512;

/// Messages of one topic that wait to be routed together.
pub(super) struct Run<'a> {
    topic: &'a str,
    /// The packets of the run and what comes after them; empty if the ordinary decoder read them.
    input: &'a [u8],
    input_bytes: usize,
    publications: SmallVec<[Publication<'a>; RUN_MESSAGES]>,
    packet_ids: SmallVec<[Option<PacketId>; RUN_MESSAGES]>,
    payload_bytes: u64,
    storing: Storing,
}

/// A PUBLISH from either decoder, with its full topic.
pub(super) struct Arriving<'a> {
    pub(super) qos: QoS,
    pub(super) packet_id: Option<PacketId>,
    pub(super) retain: bool,
    pub(super) topic: &'a str,
    /// Forwarded properties, wire-encoded.
    pub(super) properties: &'a [u8],
    pub(super) payload: &'a [u8],
    pub(super) expires: Option<Timestamp>,
}

/// Whether a PUBLISH is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// A new message.
    New,
    /// A repeated QoS 2 message that was routed before.
    Repeated,
}

/// Whether messages must be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Storing {
    /// They do not.
    Never,
    /// If a recipient is durable.
    IfDurable,
    /// They do.
    Always,
}

impl<'a> Run<'a> {
    pub(super) fn new() -> Self {
        Self {
            topic: "",
            input: &[],
            input_bytes: 0,
            publications: SmallVec::new(),
            packet_ids: SmallVec::new(),
            payload_bytes: 0,
            storing: Storing::Never,
        }
    }

    /// A run of one message.
    #[inline(never)]
    pub(super) fn of(
        arriving: &Arriving<'a>,
        publisher: SessionId,
        now: Timestamp,
        inbound: &mut Inbound,
    ) -> Self {
        let mut run = Self::new();
        run.topic = arriving.topic;
        run.push(arriving, publisher, now, inbound);
        run
    }

    pub(super) fn is_empty(&self) -> bool {
        self.publications.is_empty()
    }

    /// The message, if there is only one.
    pub(super) fn only(&self) -> Option<&Publication<'a>> {
        match &*self.publications {
            [only] => Some(only),
            _ => None,
        }
    }

    #[expect(clippy::inline_always, reason = "30 instructions of each message received")]
    #[inline(always)]
    fn push(
        &mut self,
        arriving: &Arriving<'a>,
        publisher: SessionId,
        now: Timestamp,
        inbound: &mut Inbound,
    ) {
        if arriving.qos == QoS::ExactlyOnce
            && let Some(packet_id) = arriving.packet_id
        {
            inbound.incoming.insert(packet_id);
        }
        let header = MessageHeader {
            id: inbound.take_message_id(publisher),
            qos: arriving.qos,
            retain: arriving.retain,
            arrived: now,
            expires: arriving.expires,
        };
        let Arriving { topic, properties, payload, .. } = *arriving;
        self.publications.push(Publication::new(header, topic, properties, payload));
        self.packet_ids.push(arriving.packet_id);
        self.payload_bytes += payload.len() as u64;
        self.storing = self.storing.max(Storing::of(arriving.qos, arriving.retain));
    }

    /// The packets as they arrived: plain ones, one behind the other.
    fn packets(&self, version: ProtocolVersion) -> Option<ArrivedPackets<'a>> {
        let bytes = self.input.get(..self.input_bytes)?;
        (!bytes.is_empty()).then_some(ArrivedPackets { bytes, version })
    }

    fn clear(&mut self) {
        (self.input, self.input_bytes) = (&[], 0);
        self.publications.clear();
        self.packet_ids.clear();
        self.payload_bytes = 0;
        self.storing = Storing::Never;
    }
}

impl Storing {
    #[inline]
    fn of(qos: QoS, retain: bool) -> Self {
        match (retain, qos) {
            (true, _) => Self::Always,
            (false, QoS::AtMostOnce) => Self::Never,
            (false, QoS::AtLeastOnce | QoS::ExactlyOnce) => Self::IfDurable,
        }
    }
}

impl ClientConnection {
    /// Adds the PUBLISH at the front of `input` to the run, if it is a plain one; returns its length. `None` leaves
    /// it to the ordinary decoder.
    #[inline]
    pub(super) fn extend_run<'a>(
        &mut self,
        turn: &mut Turn<'_>,
        run: &mut Run<'a>,
        input: &'a [u8],
    ) -> Option<usize> {
        let InputFlow { max_packet_bytes, .. } = self.input;
        let plain = plain_publish(input, self.identity.version, max_packet_bytes, run.topic)?;
        let taken = run.publications.len();
        let arrival = self.admit(turn.inbound, taken, plain.qos, plain.packet_id);
        if !self.input.forms_runs || arrival != Ok(Arrival::New) {
            return None;
        }
        if plain.topic != run.topic || taken >= usize::from(self.input.run_limit) {
            self.flush_run(turn, run);
            run.topic = plain.topic;
        }
        let arriving = Arriving {
            qos: plain.qos,
            packet_id: plain.packet_id,
            retain: false,
            topic: plain.topic,
            properties: &[],
            payload: plain.payload,
            expires: None,
        };
        if run.is_empty() {
            run.input = input;
        }
        run.push(&arriving, turn.session.id(), turn.now, turn.inbound);
        run.input_bytes += plain.length;
        Some(plain.length)
    }

    /// Whether a PUBLISH is allowed now, in addition to `taken` that are being handled, and whether it is a
    /// repetition.
    #[expect(clippy::inline_always, reason = "20 instructions of each message received")]
    #[inline(always)]
    pub(super) fn admit(
        &self,
        inbound: &Inbound,
        taken: usize,
        qos: QoS,
        packet_id: Option<PacketId>,
    ) -> Result<Arrival, Violation> {
        let Some(packet_id) = packet_id else { return Ok(Arrival::New) };
        let limits = self.broker.limits();
        if qos > limits.maximum_qos {
            return Err(Violation::QosNotSupported);
        }
        if qos == QoS::ExactlyOnce && inbound.incoming.contains(packet_id) {
            return Ok(Arrival::Repeated);
        }
        let inflight =
            usize::from(self.output.pending_pubacks) + inbound.incoming.in_quota() + taken;
        if self.identity.version == ProtocolVersion::V5_0
            && inflight >= usize::from(limits.receive_maximum)
        {
            return Err(Violation::ReceiveMaximumExceeded);
        }
        Ok(Arrival::New)
    }

    /// Refuses, or routes and acknowledges, the messages of the run.
    pub(super) fn flush_run(&mut self, turn: &mut Turn<'_>, run: &mut Run<'_>) {
        if run.is_empty() {
            return;
        }
        count_received(&mut turn.effects.tally, run.publications.len(), run.payload_bytes);
        let mut plans = self.input.plans.take().unwrap_or_default();
        let (session, client_id) = (turn.session.id(), turn.session.client_id());
        let cached = plans
            .plan(&self.broker, run.topic, session, |topic| self.publish_refusal(client_id, topic));
        let sessions = cached.plan.session_count();
        match self.refusal(cached, run.storing) {
            Some(Refusal::Limited(rights)) => self.settle_one_by_one(turn, run, cached, rights),
            refusal => self.settle_run(turn, run, cached, refusal),
        }
        turn.effects.budget.spend(plans.take_steps());
        self.input.plans = Some(plans);
        self.input.run_limit = run_limit(sessions);
        self.input.gave_way |= turn.effects.budget.is_spent();
        run.clear();
    }

    /// Refuses a run, or routes it.
    #[inline]
    fn settle_run(
        &mut self,
        turn: &mut Turn<'_>,
        run: &mut Run<'_>,
        cached: &Cached,
        refusal: Option<Refusal>,
    ) {
        match refusal {
            Some(refusal) => {
                let is_ours = refusal.drop_reason().is_some();
                if !is_ours && !cached.is_denial_noted.replace(true) {
                    let reason = refusal.reason_code();
                    self.note(|| Remark::publish_denied(run.topic, reason));
                }
                self.refuse_run(turn, run, refusal);
            }
            None if self.has_returned(run) => {
                self.take_returned(turn, run, cached.plan.durability);
            }
            None => self.route_run(turn, run, &cached.plan),
        }
    }

    /// The same where a rule depends on QoS and RETAIN: each message is a run of its own.
    #[cold]
    fn settle_one_by_one(
        &mut self,
        turn: &mut Turn<'_>,
        run: &mut Run<'_>,
        cached: &Cached,
        rights: PublishRights,
    ) {
        let packet_ids = std::mem::take(&mut run.packet_ids);
        for (publication, packet_id) in run.publications.drain(..).zip(packet_ids) {
            let refusal = match rights.contains(publication.qos, publication.retain) {
                true => {
                    self.store_refusal(cached, Storing::of(publication.qos, publication.retain))
                }
                false => Some(Refusal::NotAuthorized),
            };
            let mut single = Run::new();
            single.topic = run.topic;
            single.storing = Storing::of(publication.qos, publication.retain);
            single.publications.push(publication);
            single.packet_ids.push(packet_id);
            self.settle_run(turn, &mut single, cached, refusal);
        }
    }

    /// Why messages are refused, if so.
    fn refusal(&self, cached: &Cached, storing: Storing) -> Option<Refusal> {
        if cached.refusal.is_some() {
            return cached.refusal;
        }
        self.store_refusal(cached, storing)
    }

    /// Whether messages are refused because the store is not available.
    fn store_refusal(&self, cached: &Cached, storing: Storing) -> Option<Refusal> {
        if storing == Storing::Never || self.broker.store().state() == StoreState::Available {
            return None;
        }
        (storing == Storing::Always || cached.plan.needs_store())
            .then_some(Refusal::StoreUnavailable)
    }

    fn refuse_run(&mut self, turn: &mut Turn<'_>, run: &Run<'_>, refusal: Refusal) {
        for (publication, packet_id) in run.publications.iter().zip(&run.packet_ids) {
            if publication.qos == QoS::ExactlyOnce
                && let Some(packet_id) = packet_id
            {
                turn.inbound.incoming.remove(*packet_id);
            }
            self.refuse_publish(publication.qos, *packet_id, refusal, turn.effects);
        }
    }

    fn route_run(&mut self, turn: &mut Turn<'_>, run: &mut Run<'_>, plan: &Plan) {
        let promise = Promise::begin(turn.effects);
        if run.storing == Storing::Always && !self.retain(turn, run) {
            self.refuse_run(turn, run, Refusal::TooManyRetained);
            return;
        }
        let effects = &mut *turn.effects;
        let mut routed: SmallVec<[Routed; RUN_MESSAGES]> = SmallVec::new();
        let packets = run.packets(self.identity.version);
        self.broker.route_run(plan, &mut run.publications, packets, &mut routed, effects);
        effects.backpressure |= plan.applies_backpressure() && !effects.crowded.is_empty();
        self.persist_incoming(turn, run, plan.durability);
        let wait = promise.wait(turn.effects);
        if run.storing > Storing::Never {
            let qos = run.publications.iter().map(|publication| publication.qos);
            let reasons = routed.into_iter().map(reason_of);
            self.acknowledge_run(
                qos.zip(run.packet_ids.iter().copied()).zip(reasons),
                wait,
                turn.effects,
            );
        }
    }

    /// Retains the messages of a run; false if there are too many Retained Messages.
    fn retain(&self, turn: &mut Turn<'_>, run: &mut Run<'_>) -> bool {
        let mut retained = run.publications.iter_mut().filter(|publication| publication.retain);
        retained.all(|publication| self.broker.retain(publication, turn.effects))
    }

    /// Records the identifiers of accepted messages, to recognise retransmissions.
    fn persist_incoming(&self, turn: &mut Turn<'_>, run: &Run<'_>, durability: Durability) {
        if !turn.inbound.is_durable() {
            return;
        }
        for (publication, packet_id) in run.publications.iter().zip(&run.packet_ids) {
            if let (QoS::ExactlyOnce, Some(packet_id)) = (publication.qos, *packet_id) {
                let change = SessionChange::PutIncoming { session: turn.session.id(), packet_id };
                turn.effects.persist(change, durability);
            }
        }
    }

    /// Acknowledges messages that are not routed.
    fn take_returned(&mut self, turn: &mut Turn<'_>, run: &Run<'_>, durability: Durability) {
        let promise = Promise::begin(turn.effects);
        self.persist_incoming(turn, run, durability);
        let wait = promise.wait(turn.effects);
        for (publication, packet_id) in run.publications.iter().zip(&run.packet_ids) {
            turn.effects.tally.drop_one(DropReason::Loop);
            let (qos, success) = (publication.qos, ReasonCode::Success);
            self.acknowledge_publish(qos, *packet_id, success, wait, turn.effects);
        }
    }
}

/// The most messages to route together to this many Sessions, because a run is not interrupted.
#[inline]
fn run_limit(sessions: usize) -> u16 {
    match sessions {
        0..=RUN_SESSIONS => RUN_LIMIT,
        more => u16::try_from(RUN_MESSAGES * RUN_SESSIONS / more)
            .map_or(RUN_LIMIT, |limit| limit.max(1)),
    }
}

/// Counts PUBLISH packets, whatever happens to them.
pub(super) fn count_received(tally: &mut Tally, messages: usize, payload_bytes: u64) {
    tally.packets_received += messages as u64;
    tally.publish_received += messages as u64;
    tally.publish_bytes_received += payload_bytes;
}

fn reason_of(routed: Routed) -> ReasonCode {
    match routed {
        Routed::Matched => ReasonCode::Success,
        Routed::NoMatchingSubscribers => ReasonCode::NoMatchingSubscribers,
        Routed::Refused => ReasonCode::QuotaExceeded,
    }
}
