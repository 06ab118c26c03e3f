//! One Network Connection as the core sees it: bytes and time in, bytes and effects out.
//!
//! The shell feeds [`ClientConnection::handle_bytes`], wakes it with [`ClientConnection::handle_wake`]
//! when its Session has something for it or a commit is through, asks [`ClientConnection::take_output`]
//! what to write, carries out [`Request`]s that may block, and reports the end with
//! [`ClientConnection::handle_closed`]. An acknowledgement that stands for a change leaves only when
//! the store says that the change is durable; acknowledgements leave in order. [MQTT-4.6.0-2]

mod acknowledge;
mod authenticate;
mod close;
mod connect;
mod explain;
mod filter_work;
mod last_call;
mod pending;
mod plans;
mod progress;
mod publish;
pub(crate) mod remark;
mod retained;
mod rights;
mod run;
mod subscribe;
mod take_over;
#[cfg(test)]
mod tests;
mod throttle;
mod turn;

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use crate::access::{Credentials, Exchange, ExchangeStep, Peer, Principal};
use crate::broker::Broker;
use crate::broker::connection::authenticate::PendingConnect;
use crate::broker::connection::filter_work::FilterWork;
use crate::broker::connection::last_call::LastCall;
pub use crate::broker::connection::last_call::{LastCallEnd, LastCallReason};
use crate::broker::connection::pending::PendingAnswer;
pub use crate::broker::connection::plans::PlanBudget;
use crate::broker::connection::plans::PlanCache;
pub(crate) use crate::broker::connection::plans::PlanRoom;
use crate::broker::connection::progress::{Patience, Progress};
use crate::broker::connection::remark::{Introduction, MAX_REMARKS, Remark};
use crate::broker::connection::run::{RUN_LIMIT, Run};
use crate::broker::connection::throttle::Throttle;
use crate::broker::connection::turn::Turn;
use crate::durable::message::Timestamp;
pub use crate::error::CloseReason;
use crate::packet::decode::{DecodeContext, Decoded, Sender, decode};
use crate::packet::{Packet, ProtocolVersion, encode_pingresp};
use crate::session::Session;
use crate::session::access_rights::AccessRights;
use crate::session::aliases::IncomingAliases;
use crate::session::effects::Effects;
use crate::session::outbox::Outbox;
use crate::session::policies::Policies;
use crate::session::queue::{Page, PageRequest};
use crate::session::rare::Rare;
use crate::session::violation::Violation;

/// Pending acknowledgements beyond which reading from the Client stops.
const MAX_PENDING: usize = 16 * 1024;
/// Bytes of the connection's own packets beyond which reading from the Client stops.
const MAX_OWN_BYTES: usize = 256 * 1024;
/// Bytes of small packets per step; more expensive work spends its own steps.
const BYTES_PER_STEP: usize = 64;
/// Pending Reason Codes of SUBACK and UNSUBACK beyond which reading from the Client stops.
const MAX_PENDING_REASONS: u32 = 64 * 1024;

/// Work for the shell, because it may block.
pub enum Request {
    /// Check a name and a password; answer with [`ClientConnection::handle_authenticated`].
    Authenticate(Box<Credentials>),
    /// Take a step of enhanced authentication; answer with [`ClientConnection::handle_exchange`].
    Exchange(Box<dyn Exchange>, Vec<u8>),
    /// Read a page of a queue; answer with [`ClientConnection::handle_page`].
    Page(PageRequest),
}

/// One Network Connection. Each part belongs to the files named.
pub struct ClientConnection {
    broker: Arc<Broker>,
    /// Who the Client is: `authenticate`.
    identity: Identity,
    /// Its phase and its Session: `connect`.
    opening: Opening,
    /// Input from the Client: `run`, `publish`, `plans`, `progress`, `throttle`, `filter_work`.
    input: InputFlow,
    /// Output to the Client besides the messages of its Session: `pending`, `turn`, `acknowledge`, `explain`.
    output: OutputFlow,
    /// How it ends: `close`, `last_call`.
    closing: Closing,
}

/// Who the Client is, where it comes from, and its protocol.
struct Identity {
    /// Shared with the Session, for operators.
    peer: Arc<Peer>,
    version: ProtocolVersion,
    principal: Principal,
    /// What it may do, if rules limit it.
    rights: Option<Arc<dyn AccessRights>>,
    enhanced: Option<Box<EnhancedAuthentication>>,
    /// Whether the Client wants Reason Strings, and how large a packet may be with one. [MQTT-3.1.2-29]
    takes_problem_information: bool,
    client_max_packet_bytes: u32,
    /// The policies for this Client; until CONNECT, those of the listener.
    policies: Policies,
    /// Until it is connected or refused.
    introduction: Option<Box<Introduction>>,
    /// The access revision at which this Client was accepted.
    access_revision: u64,
}

/// The phase of the connection, and its Session.
struct Opening {
    phase: Phase,
    session: Option<Arc<Session>>,
    /// The epoch of the Session when it was taken.
    epoch: u64,
    /// Whether the broker is full: then it may only take over the Network Connection of its own Session.
    is_guest: bool,
}

/// Input from the Client, and the reasons not to read it.
struct InputFlow {
    max_packet_bytes: u32,
    last_received: Timestamp,
    patience: Patience,
    /// The progress of an incomplete packet.
    progress: Progress,
    aliases: Option<Box<IncomingAliases>>,
    plans: Option<Box<PlanCache>>,
    throttle: Option<Box<Throttle>>,
    /// Whether the store lags behind: then reading stops until it has caught up.
    is_store_behind: bool,
    /// Whether the shell is running a step of re-authentication: reading stops until it is done, so that a Client has
    /// at most one in progress.
    is_exchanging: bool,
    /// A packet with many filters that the last turn did not finish.
    filter_work: Option<Box<FilterWork>>,
    /// Whether plain messages may be routed together: not if each one is checked, or renamed by a mount point.
    forms_runs: bool,
    /// Most messages of one topic routed together: fewer if the last one had very many recipients.
    run_limit: u16,
    /// Whether the budget of the last turn was spent: then nothing is read before the next turn.
    gave_way: bool,
}

/// Output and requests of the connection itself, and pending acknowledgements.
#[derive(Default)]
struct OutputFlow {
    /// Packets other than messages; needs no lock.
    own: Outbox,
    pending: VecDeque<PendingAnswer>,
    pending_pubacks: u16,
    /// Reason Codes in pending SUBACK and UNSUBACK packets.
    pending_reasons: u32,
    /// Whether messages outside its own queue may wait for the Client: in groups, or Retained Messages.
    watches_others: bool,
    requests: Rare<VecDeque<Request>>,
    /// Remarks for the log, until the shell takes them.
    remarks: Rare<Vec<Remark>>,
}

/// How the connection ends.
#[derive(Default)]
struct Closing {
    reason: Option<CloseReason>,
    /// Whether the Client sent a DISCONNECT that removes its Will.
    discards_will: bool,
    /// The last call before it is closed.
    last_call: Option<Box<LastCall>>,
}

/// The state of enhanced authentication. [MQTT-4.12.0-1]
struct EnhancedAuthentication {
    method: Box<str>,
    /// Waiting for the Client's next AUTH.
    exchange: Option<Box<dyn Exchange>>,
}

/// The phase of the connection.
enum Phase {
    /// Only CONNECT is allowed. [MQTT-3.1.0-1]
    AwaitsConnect,
    /// Enhanced authentication: AUTH or DISCONNECT is allowed.
    AwaitsAuth(Box<PendingConnect>),
    /// The shell is checking; nothing is read meanwhile.
    Authenticating(Box<PendingConnect>),
    /// Another Network Connection holds the Session, and handles its received input before it leaves; nothing is read
    /// meanwhile.
    TakingOver(Box<PendingConnect>),
    /// CONNACK waits for the store; nothing is read meanwhile.
    Opening,
    /// All packets are allowed.
    Connected,
    /// The Session has been released.
    Closed,
}

impl ClientConnection {
    /// Creates a Network Connection that has just been opened.
    #[must_use]
    pub fn new(broker: Arc<Broker>, peer: Peer, now: Timestamp) -> Self {
        let limits = broker.limits();
        let rules = &peer.listener;
        let max_packet_bytes =
            rules.max_packet_bytes.unwrap_or(u32::MAX).min(limits.max_packet_bytes);
        let input = InputFlow {
            max_packet_bytes,
            last_received: now,
            patience: Patience::of_timeout(limits.connect_timeout),
            progress: Progress::default(),
            aliases: None,
            plans: None,
            throttle: None,
            is_store_behind: false,
            is_exchanging: false,
            filter_work: None,
            forms_runs: rules.mount_point.is_none(),
            run_limit: RUN_LIMIT,
            gave_way: false,
        };
        let policies = rules.policies;
        let identity = Identity {
            peer: Arc::new(peer),
            version: ProtocolVersion::V5_0,
            principal: Principal::default(),
            rights: None,
            enhanced: None,
            takes_problem_information: true,
            client_max_packet_bytes: u32::MAX,
            policies,
            introduction: None,
            // Before anything is checked, so that later changes affect this connection.
            access_revision: broker.access_revision(),
        };
        let opening =
            Opening { phase: Phase::AwaitsConnect, session: None, epoch: 0, is_guest: false };
        let (output, closing) = (OutputFlow::default(), Closing::default());
        Self { broker, identity, opening, input, output, closing }
    }

    /// Where it comes from, as determined by the listener.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.identity.peer
    }

    /// Marks it as a guest without a place: its CONNECT is refused unless it takes over another Network Connection,
    /// whose place it gets.
    pub fn set_guest(&mut self) {
        self.opening.is_guest = true;
    }

    /// The Session, once there is one.
    #[must_use]
    pub fn session(&self) -> Option<&Arc<Session>> {
        self.opening.session.as_ref()
    }

    /// The protocol version, once CONNECT was received.
    #[must_use]
    pub fn version(&self) -> ProtocolVersion {
        self.identity.version
    }

    /// The authenticated identity of the Client.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.identity.principal
    }

    /// How the Client introduced itself: once, after its CONNECT.
    pub fn take_introduction(&mut self) -> Option<Box<Introduction>> {
        self.identity.introduction.take()
    }

    /// Whether there is something to take with [`Self::take_remarks`].
    #[must_use]
    #[inline]
    pub fn has_remarks(&self) -> bool {
        !self.output.remarks.is_empty()
    }

    /// Remarks for the log since the last call.
    pub fn take_remarks(&mut self) -> Vec<Remark> {
        self.output.remarks.take()
    }

    /// Keeps a remark for the shell.
    #[cold]
    fn note(&mut self, remark: impl FnOnce() -> Remark) {
        let remarks = self.output.remarks.fill();
        if remarks.len() < MAX_REMARKS {
            remarks.push(remark());
        }
    }

    /// Whether CONNECT has been answered with success.
    #[must_use]
    #[inline]
    pub fn is_connected(&self) -> bool {
        matches!(self.opening.phase, Phase::Connected)
    }

    /// Why the connection will be closed after its output is written.
    #[must_use]
    #[inline]
    pub fn closing(&self) -> Option<&CloseReason> {
        self.closing.reason.as_ref()
    }

    /// Whether more bytes may be passed in now. If not, a later event will change that.
    #[must_use]
    #[inline]
    pub fn is_reading(&self) -> bool {
        let has_room = self.input.throttle.is_none()
            && self.output.pending.len() < MAX_PENDING
            && self.output.own.bytes() < MAX_OWN_BYTES
            && self.output.pending_reasons < MAX_PENDING_REASONS
            && !self.input.is_store_behind;
        self.closing.reason.is_none()
            && matches!(
                self.opening.phase,
                Phase::AwaitsConnect | Phase::AwaitsAuth(_) | Phase::Connected
            )
            && (has_room || self.ignores_flow_control())
            && !self.input.is_exchanging
            && !self.input.gave_way
    }

    /// Handles the packets at the front of `input`; returns how many bytes they took. The rest must be passed in
    /// again, with more bytes or when [`Self::is_reading`] returns true.
    pub fn handle_bytes(&mut self, input: &[u8], now: Timestamp, effects: &mut Effects) -> usize {
        let mut consumed = 0;
        loop {
            let taken =
                self.handle_some_bytes(input.get(consumed..).unwrap_or_default(), now, effects);
            consumed += taken;
            let was_stopped = !self.is_reading();
            self.resume_waiting(now, effects);
            // The reason for stopping may be over by now (a recipient caught up on another core). If packets are
            // left, this must not return in the reading state: they would stay unhandled until more bytes arrive.
            if !was_stopped || !self.is_reading() || consumed >= input.len() {
                break;
            }
        }
        self.note_input(input.len(), consumed, now);
        effects.tally.bytes_received += consumed as u64;
        consumed
    }

    fn handle_some_bytes(&mut self, input: &[u8], now: Timestamp, effects: &mut Effects) -> usize {
        let mut consumed = 0;
        while self.is_reading() && consumed < input.len() {
            let rest = input.get(consumed..).unwrap_or_default();
            let taken = match self.opening.phase {
                Phase::Connected => self.handle_session_bytes(rest, now, effects),
                _ => self.handle_early_bytes(rest, now, effects),
            };
            if taken == 0 {
                break;
            }
            consumed += taken;
        }
        consumed
    }

    /// Handles packets of a connected Client under the lock of its Session's inbound half: a take-over waits until
    /// they are handled and their changes are submitted.
    fn handle_session_bytes(
        &mut self,
        input: &[u8],
        now: Timestamp,
        effects: &mut Effects,
    ) -> usize {
        let Some(session) = self.opening.session.clone() else { return 0 };
        let mut inbound = session.inbound();
        if inbound.ended || inbound.epoch != self.opening.epoch {
            self.close(CloseReason::TakenOver);
            return 0;
        }
        let mut turn = Turn { session: &session, inbound: &mut inbound, now, effects };
        let context = self.decode_context();
        let mut run = Run::new();
        let mut consumed = 0;
        while self.is_reading() && consumed < input.len() {
            let rest = input.get(consumed..).unwrap_or_default();
            if let Some(length) = self.extend_run(&mut turn, &mut run, rest) {
                consumed += length;
            } else {
                self.flush_run(&mut turn, &mut run);
                let acknowledged = self.handle_pubacks(&mut turn, rest);
                if acknowledged > 0 {
                    consumed += acknowledged;
                    continue;
                }
                match decode(rest, &context) {
                    Ok(Decoded::Packet { packet, length }) => {
                        consumed += length;
                        self.handle_packet(&mut turn, packet);
                        self.input.gave_way |= turn.effects.budget.is_spent();
                    }
                    Ok(Decoded::Incomplete { .. }) => break,
                    Err(error) => self.close(CloseReason::Malformed(error)),
                }
            }
            if !turn.effects.crowded.is_empty() {
                self.throttle(now, turn.effects);
            }
        }
        self.flush_run(&mut turn, &mut run);
        turn.effects.budget.spend(consumed / BYTES_PER_STEP);
        self.finish_turn(&session, now, turn.effects);
        drop(inbound);
        consumed
    }

    fn handle_packet(&mut self, turn: &mut Turn<'_>, packet: Packet<'_>) {
        if !matches!(packet, Packet::Publish(_)) {
            turn.effects.tally.packets_received += 1;
        }
        // The minimum for any packet; more expensive work spends its own steps.
        turn.effects.budget.spend(1);
        match packet {
            Packet::Publish(publish) => self.handle_publish(turn, &publish),
            Packet::Puback(puback) => self.handle_puback(turn, &puback.0),
            Packet::Pubrec(pubrec) => self.handle_pubrec(turn, &pubrec.0),
            Packet::Pubrel(pubrel) => self.handle_pubrel(turn, &pubrel.0),
            Packet::Pubcomp(pubcomp) => self.handle_pubcomp(turn, &pubcomp.0),
            Packet::Subscribe(subscribe) => self.handle_subscribe(turn, &subscribe),
            Packet::Unsubscribe(unsubscribe) => self.handle_unsubscribe(turn, &unsubscribe),
            Packet::Pingreq => {
                turn.effects.tally.packets_sent += 1;
                self.output.own.append(encode_pingresp);
            }
            Packet::Disconnect(disconnect) => self.handle_disconnect(turn.inbound, &disconnect),
            Packet::Auth(auth) => self.handle_auth_again(&auth),
            Packet::Connect(_) => self.close(CloseReason::Violation(Violation::SecondConnect)),
            Packet::Connack(_) | Packet::Suback(_) | Packet::Unsuback(_) | Packet::Pingresp => {
                self.close(CloseReason::Violation(Violation::ServerPacket));
            }
        }
    }

    fn decode_context(&self) -> DecodeContext {
        DecodeContext {
            version: self.identity.version,
            max_packet_bytes: self.input.max_packet_bytes,
            sender: Sender::Client,
        }
    }

    /// Checks everything that may have changed elsewhere: take-over, commits, room.
    pub fn handle_wake(&mut self, now: Timestamp, effects: &mut Effects) {
        if matches!(self.opening.phase, Phase::TakingOver(_)) {
            self.retry_take_over(now, effects);
        }
        let Some(session) = self.opening.session.clone() else { return };
        if matches!(self.opening.phase, Phase::Closed) || self.closing.reason.is_some() {
            return;
        }
        if self.broker.is_draining() {
            self.begin_last_call(LastCallReason::ShuttingDown, now);
        }
        if self.broker.access_revision() != self.identity.access_revision && self.is_revoked() {
            self.close(CloseReason::CredentialsChanged);
            return;
        }
        self.input.gave_way &= effects.budget.is_spent();
        self.resume_waiting(now, effects);
        let mut outbound = session.outbound();
        if outbound.is_taken_over(self.opening.epoch) {
            drop(outbound);
            self.close(CloseReason::TakenOver);
            return;
        }
        if outbound.is_asked_to_leave() {
            self.begin_last_call(LastCallReason::TakenOver, now);
        }
        if matches!(self.opening.phase, Phase::Connected) {
            outbound.pump(now, effects);
            drop(outbound);
            if self.input.filter_work.is_some() && !self.input.gave_way {
                self.resume_filter_work(now, effects);
            }
            // A closing connection needs no more messages; they stay with its Session.
            if self.output.watches_others && !self.is_last_call() {
                self.drain_to_client(&session, now, effects);
            }
            self.finish_turn(&session, now, effects);
        }
    }

    /// Whether the credentials of this Client have been revoked.
    #[cold]
    fn is_revoked(&mut self) -> bool {
        let revision = self.broker.access_revision();
        let Identity { principal, peer, access_revision, .. } = &mut self.identity;
        let since = std::mem::replace(access_revision, revision);
        self.broker.authority().is_revoked(principal, peer, since)
    }

    /// The deadline of a wait, if there is one: for recipients that lag behind, for the Network Connection that holds
    /// the Session, or for the end of this one. [`Self::handle_wake`] must be called then.
    #[inline]
    #[must_use]
    pub fn waits_until(&self) -> Option<Timestamp> {
        let throttle = self.input.throttle.as_ref().map(|throttle| throttle.deadline());
        let last_call = self.closing.last_call.as_ref().map(|call| call.deadline());
        let rare = match &self.opening.phase {
            Phase::TakingOver(connect) => connect.take_over.as_ref().map(|wait| wait.deadline()),
            _ => last_call,
        };
        [throttle, rare].into_iter().flatten().min()
    }

    /// Registers `waker` for the end of a wait; true if it is already over.
    pub fn watch_others(&mut self, now: Timestamp, waker: &Waker) -> bool {
        self.watch_throttle(now, waker) || self.watch_take_over(now, waker)
    }

    /// The next request for the shell.
    pub fn poll_request(&mut self) -> Option<Request> {
        let request = self.output.requests.as_mut()?.pop_front();
        if self.output.requests.is_empty() {
            self.output.requests = Rare::default();
        }
        request
    }

    /// Moves output into `target`, whose previous contents were written completely. If there is nothing to write,
    /// registers `waker` and returns false.
    pub fn take_output(&mut self, target: &mut Outbox, waker: &Waker) -> bool {
        let has_own = !self.output.own.is_empty();
        if has_own {
            self.output.own.move_into(target);
        }
        let Some(session) = &self.opening.session else { return has_own };
        if self.closing.reason.is_some() || matches!(self.opening.phase, Phase::Closed) {
            return has_own;
        }
        let mut outbound = session.outbound();
        if outbound.is_taken_over(self.opening.epoch) {
            drop(outbound);
            self.close(CloseReason::TakenOver);
            let has_farewell = !self.output.own.is_empty();
            self.output.own.move_into(target);
            return has_own || has_farewell;
        }
        outbound.take_output(target, waker) || has_own
    }

    /// Handles a page that was read, or the failure to read it.
    pub fn handle_page(
        &mut self,
        request: PageRequest,
        page: Option<Page>,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let Some(session) = self.opening.session.clone() else { return };
        if matches!(self.opening.phase, Phase::Closed) {
            return;
        }
        if request.session == session.id() {
            let mut outbound = session.outbound();
            if outbound.is_taken_over(self.opening.epoch) {
                return;
            }
            outbound.queue_mut().handle_page(request, page);
        } else {
            let inbound = session.inbound();
            let group = inbound.groups.find_id(request.session);
            if let Some(group) = group {
                group.handle_page(request, page);
            }
        }
        self.handle_wake(now, effects);
    }
}

/// The result of an authentication that the shell carried out.
pub type Authenticated = Result<Principal, crate::packet::reason_code::ReasonCode>;

/// The result of a step of enhanced authentication, with the exchange to continue.
pub type Exchanged = (Box<dyn Exchange>, ExchangeStep);
