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
mod pending;
mod plans;
mod publish;
mod run;
mod subscribe;
mod throttle;

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use crate::access::{Credentials, Exchange, ExchangeStep, Peer, Principal};
use crate::broker::Broker;
use crate::broker::connection::authenticate::PendingConnect;
pub use crate::broker::connection::close::CloseReason;
use crate::broker::connection::pending::Pending;
pub use crate::broker::connection::plans::PlanBudget;
use crate::broker::connection::plans::PlanCache;
use crate::broker::connection::run::Run;
use crate::broker::connection::throttle::Throttle;
use crate::durable::Ticket;
use crate::durable::entry::StoredEntry;
use crate::durable::message::Timestamp;
use crate::packet::decode::{DecodeContext, Decoded, Sender, decode};
use crate::packet::{Packet, ProtocolVersion};
use crate::session::Session;
use crate::session::aliases::IncomingAliases;
use crate::session::effects::Effects;
use crate::session::inbound::Inbound;
use crate::session::outbox::Outbox;
use crate::session::queue::PageRequest;
use crate::session::rare::Rare;
use crate::session::retained_delivery::RetainedDelivery;
use crate::session::violation::Violation;

/// Acknowledgements that may wait for the store before the Client is not read for a while.
const MAX_PENDING: usize = 16 * 1024;
/// Bytes of the connection's own packets that may wait before the Client is not read for a while.
const MAX_OWN_BYTES: usize = 256 * 1024;

/// What the shell must do because it may block.
pub enum Request {
    /// Check a name and a password; answer with [`ClientConnection::handle_authenticated`].
    Authenticate(Box<Credentials>),
    /// Take a step of enhanced authentication; answer with [`ClientConnection::handle_exchange`].
    Exchange(Box<dyn Exchange>, Vec<u8>),
    /// Read a page of a queue; answer with [`ClientConnection::handle_page`].
    Page(PageRequest),
}

/// One Network Connection.
pub struct ClientConnection {
    broker: Arc<Broker>,
    peer: Peer,
    phase: Phase,
    version: ProtocolVersion,
    max_packet_bytes: u32,
    last_received: Timestamp,
    /// One and a half Keep Alive periods; zero is off.
    patience: Duration,
    session: Option<Arc<Session>>,
    epoch: u64,
    principal: Principal,
    enhanced: Option<Box<EnhancedAuthentication>>,
    own: Outbox,
    pending: VecDeque<Pending>,
    pending_pubacks: u16,
    new_retained: Rare<Vec<RetainedDelivery>>,
    /// Whether something outside its own queue may wait for the Client: groups, Retained Messages.
    watches_others: bool,
    aliases: Option<Box<IncomingAliases>>,
    sends_problem_information: bool,
    plans: Option<Box<PlanCache>>,
    throttle: Option<Box<Throttle>>,
    requests: Rare<VecDeque<Request>>,
    discards_will: bool,
    /// The store has more to write than it should: the Client is not read until it has caught up.
    is_store_behind: bool,
    /// A bridge of 3.x by the bit in its protocol level: it gets no echo, and RETAIN as published.
    is_bridge: bool,
    /// The broker is full: it may take over the Network Connection of its own Session, and nothing else.
    is_guest: bool,
    closing: Option<CloseReason>,
}

/// What a Client that authenticates with challenges has said so far. [MQTT-4.12.0-1]
struct EnhancedAuthentication {
    method: Box<str>,
    /// Waiting for the Client's next AUTH.
    exchange: Option<Box<dyn Exchange>>,
}

/// How far the connection has come.
enum Phase {
    /// Nothing but CONNECT may come. [MQTT-3.1.0-1]
    AwaitsConnect,
    /// Enhanced authentication: AUTH may come, or DISCONNECT.
    AwaitsAuth(Box<PendingConnect>),
    /// The shell is checking; nothing is read meanwhile.
    Authenticating(Box<PendingConnect>),
    /// CONNACK waits for the store; nothing is read meanwhile.
    Opening,
    /// Everything may come.
    Connected,
    /// The Session has been let go.
    Closed,
}

impl ClientConnection {
    /// A Network Connection that has just been opened.
    #[must_use]
    pub fn new(broker: Arc<Broker>, peer: Peer, now: Timestamp) -> Self {
        let limits = broker.limits();
        let rules = &peer.listener;
        let max_packet_bytes =
            rules.max_packet_bytes.unwrap_or(u32::MAX).min(limits.max_packet_bytes);
        Self {
            patience: limits.connect_timeout,
            broker,
            peer,
            phase: Phase::AwaitsConnect,
            version: ProtocolVersion::V5_0,
            max_packet_bytes,
            last_received: now,
            session: None,
            epoch: 0,
            principal: Principal::default(),
            enhanced: None,
            own: Outbox::default(),
            pending: VecDeque::new(),
            pending_pubacks: 0,
            new_retained: Rare::default(),
            watches_others: false,
            aliases: None,
            sends_problem_information: true,
            plans: None,
            throttle: None,
            requests: Rare::default(),
            discards_will: false,
            is_store_behind: false,
            is_bridge: false,
            is_guest: false,
            closing: None,
        }
    }

    /// Where it comes from, as the listener found it.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// There is no room for it: its CONNECT is refused unless it takes over another Network Connection, whose room it
    /// gets.
    pub fn set_guest(&mut self) {
        self.is_guest = true;
    }

    /// The Session, once there is one.
    #[must_use]
    pub fn session(&self) -> Option<&Arc<Session>> {
        self.session.as_ref()
    }

    /// The protocol version, once CONNECT has come.
    #[must_use]
    pub fn version(&self) -> ProtocolVersion {
        self.version
    }

    /// Whether CONNECT has been answered with success.
    #[must_use]
    #[inline]
    pub fn is_connected(&self) -> bool {
        matches!(self.phase, Phase::Connected)
    }

    /// Why the connection is to be closed after its output was written.
    #[must_use]
    #[inline]
    pub fn closing(&self) -> Option<&CloseReason> {
        self.closing.as_ref()
    }

    /// Whether more bytes may be handed in now. If not, some event will change it.
    #[must_use]
    #[inline]
    pub fn is_reading(&self) -> bool {
        self.closing.is_none()
            && self.throttle.is_none()
            && matches!(self.phase, Phase::AwaitsConnect | Phase::AwaitsAuth(_) | Phase::Connected)
            && self.pending.len() < MAX_PENDING
            && self.own.bytes() < MAX_OWN_BYTES
            && !self.is_store_behind
    }

    /// Handles the packets at the front of `input`; returns how many bytes they took. The rest must
    /// be handed in again, with more behind it or when [`Self::is_reading`] says so.
    pub fn handle_bytes(&mut self, input: &[u8], now: Timestamp, effects: &mut Effects) -> usize {
        let mut consumed = 0;
        loop {
            let taken =
                self.handle_some_bytes(input.get(consumed..).unwrap_or_default(), now, effects);
            consumed += taken;
            if consumed > 0 {
                self.last_received = now;
            }
            let was_stopped = !self.is_reading();
            self.settle(now, effects);
            // What stopped it may be over by now (a recipient caught up on another core). Whoever
            // returns with packets left must not be reading: they would lie until more came.
            if !was_stopped || !self.is_reading() || consumed >= input.len() {
                break;
            }
        }
        effects.tally.bytes_received += consumed as u64;
        consumed
    }

    fn handle_some_bytes(&mut self, input: &[u8], now: Timestamp, effects: &mut Effects) -> usize {
        let mut consumed = 0;
        while self.is_reading() && consumed < input.len() {
            let rest = input.get(consumed..).unwrap_or_default();
            let taken = match self.phase {
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

    /// Packets of a connected Client, under the lock of its Session's inbound half: a take-over
    /// waits until they are handled and their changes are with the store.
    fn handle_session_bytes(
        &mut self,
        input: &[u8],
        now: Timestamp,
        effects: &mut Effects,
    ) -> usize {
        let Some(session) = self.session.clone() else { return 0 };
        let mut inbound = session.inbound();
        if inbound.ended || inbound.epoch != self.epoch {
            self.close(CloseReason::TakenOver);
            return 0;
        }
        let context = self.decode_context();
        let mut run = Run::new();
        let mut consumed = 0;
        while self.is_reading() && consumed < input.len() {
            let rest = input.get(consumed..).unwrap_or_default();
            let taken = self.extend_run(&session, &mut inbound, &mut run, rest, now, effects);
            if let Some(length) = taken {
                consumed += length;
            } else {
                self.flush_run(&session, &mut inbound, &mut run, effects);
                let acknowledged = self.handle_pubacks(&session, rest, effects);
                if acknowledged > 0 {
                    consumed += acknowledged;
                    continue;
                }
                match decode(rest, &context) {
                    Ok(Decoded::Packet { packet, length }) => {
                        consumed += length;
                        effects.tally.packets_received += 1;
                        self.handle_packet(&session, &mut inbound, packet, now, effects);
                    }
                    Ok(Decoded::Incomplete { .. }) => break,
                    Err(error) => self.close(CloseReason::Malformed(error)),
                }
            }
            if !effects.crowded.is_empty() {
                self.throttle(now, effects);
            }
        }
        self.flush_run(&session, &mut inbound, &mut run, effects);
        if !effects.crowded.is_empty() {
            self.throttle(now, effects);
        }
        self.submit(&session, effects);
        drop(inbound);
        consumed
    }

    fn handle_packet(
        &mut self,
        session: &Arc<Session>,
        inbound: &mut Inbound,
        packet: Packet<'_>,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        match packet {
            Packet::Publish(publish) => {
                self.handle_publish(session, inbound, &publish, now, effects);
            }
            Packet::Puback(puback) => self.handle_puback(session, &puback.0, effects),
            Packet::Pubrec(pubrec) => self.handle_pubrec(session, &pubrec.0, effects),
            Packet::Pubrel(pubrel) => self.handle_pubrel(inbound, &pubrel.0, effects),
            Packet::Pubcomp(pubcomp) => self.handle_pubcomp(session, &pubcomp.0, effects),
            Packet::Subscribe(subscribe) => {
                self.handle_subscribe(session, inbound, &subscribe, effects);
            }
            Packet::Unsubscribe(unsubscribe) => {
                self.handle_unsubscribe(session, inbound, &unsubscribe, effects);
            }
            Packet::Pingreq => {
                effects.tally.packets_sent += 1;
                self.own.extend(&[0xD0, 0x00]);
            }
            Packet::Disconnect(disconnect) => self.handle_disconnect(inbound, &disconnect),
            Packet::Auth(auth) => self.handle_auth_again(&auth),
            Packet::Connect(_) => self.close(CloseReason::Violation(Violation::SecondConnect)),
            Packet::Connack(_) | Packet::Suback(_) | Packet::Unsuback(_) | Packet::Pingresp => {
                self.close(CloseReason::Violation(Violation::ServerPacket));
            }
        }
    }

    fn decode_context(&self) -> DecodeContext {
        DecodeContext {
            version: self.version,
            max_packet_bytes: self.max_packet_bytes,
            sender: Sender::Client,
        }
    }

    /// Looks at everything that may have changed elsewhere: take-over, commits, room.
    pub fn handle_wake(&mut self, now: Timestamp, effects: &mut Effects) {
        let Some(session) = self.session.clone() else { return };
        if matches!(self.phase, Phase::Closed) || self.closing.is_some() {
            return;
        }
        if self.broker.is_draining() {
            self.close(CloseReason::ShuttingDown);
            return;
        }
        self.settle(now, effects);
        let mut outbound = session.outbound();
        if outbound.is_taken_over(self.epoch) {
            drop(outbound);
            self.close(CloseReason::TakenOver);
            return;
        }
        if matches!(self.phase, Phase::Connected) {
            outbound.pump(now, effects);
            drop(outbound);
            if self.watches_others {
                self.drain_to_client(&session, now, effects);
            }
            self.submit(&session, effects);
            self.take_requests(effects);
        }
    }

    /// What time brings: Keep Alive and the connect timeout.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        if self.patience.is_zero() || self.closing.is_some() {
            return;
        }
        if now < self.last_received.plus(self.patience) {
            return;
        }
        match self.phase {
            // What the Client sent may lie unread because of us.
            Phase::Authenticating(_) | Phase::Opening | Phase::Closed => {}
            Phase::Connected if self.is_reading() => self.close(CloseReason::KeepAliveTimeout),
            Phase::Connected => self.last_received = now,
            Phase::AwaitsConnect | Phase::AwaitsAuth(_) => {
                self.close(CloseReason::ConnectTimeout);
            }
        }
    }

    /// When [`Self::handle_timeout`] is to be called next.
    #[inline]
    #[must_use]
    pub fn next_timeout(&self) -> Option<Timestamp> {
        (!self.patience.is_zero()).then(|| self.last_received.plus(self.patience))
    }

    /// When a wait for recipients that lag behind ends at the latest, if there is one:
    /// [`Self::handle_wake`] is to be called then.
    #[inline]
    #[must_use]
    pub fn throttled_until(&self) -> Option<Timestamp> {
        self.throttle.as_ref().map(|throttle| throttle.deadline())
    }

    /// What must be done elsewhere.
    pub fn poll_request(&mut self) -> Option<Request> {
        let request = self.requests.as_mut()?.pop_front();
        if self.requests.is_empty() {
            self.requests = Rare::default();
        }
        request
    }

    /// Moves what is to be written into `target`, which has been written to the end. With nothing to
    /// write, `waker` will be woken when there is, and false is returned.
    pub fn take_output(&mut self, target: &mut Outbox, waker: &Waker) -> bool {
        let has_own = !self.own.is_empty();
        if has_own {
            self.own.move_into(target);
        }
        let Some(session) = &self.session else { return has_own };
        if self.closing.is_some() || matches!(self.phase, Phase::Closed) {
            return has_own;
        }
        let mut outbound = session.outbound();
        if outbound.is_taken_over(self.epoch) {
            drop(outbound);
            self.close(CloseReason::TakenOver);
            let has_farewell = !self.own.is_empty();
            self.own.move_into(target);
            return has_own || has_farewell;
        }
        outbound.take_output(target, waker) || has_own
    }

    /// Takes in a page that was read, or the failure to read it.
    pub fn handle_page(
        &mut self,
        request: PageRequest,
        page: Option<Vec<StoredEntry>>,
        full: bool,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let Some(session) = self.session.clone() else { return };
        if request.session == session.id() {
            let mut outbound = session.outbound();
            if outbound.is_taken_over(self.epoch) {
                return;
            }
            match page {
                Some(page) => outbound.queue_mut().handle_page(request, page, full),
                None => outbound.queue_mut().handle_page_failure(),
            }
        } else {
            let inbound = session.inbound();
            let group = inbound.groups.iter().find(|group| group.id() == request.session);
            if let Some(group) = group {
                group.handle_page(request, page, full);
            }
        }
        self.handle_wake(now, effects);
    }

    /// Gives the Client what waits for it outside its own queue: Retained Messages of new
    /// Subscriptions, and what its groups have.
    fn drain_to_client(&mut self, session: &Arc<Session>, now: Timestamp, effects: &mut Effects) {
        let mut inbound = session.inbound();
        if inbound.epoch != self.epoch {
            return;
        }
        self.hand_over_retained(&mut inbound);
        self.deliver_retained(session, &mut inbound, now, effects);
        self.watches_others = !inbound.retained.is_empty() || !inbound.groups.is_empty();
        for group in inbound.groups.iter() {
            if group.has_backlog() {
                self.broker.drain_group(group, session, now, effects);
            }
        }
    }

    fn hand_over_retained(&mut self, inbound: &mut Inbound) {
        if !self.new_retained.is_empty() {
            inbound.retained.fill().extend(self.new_retained.take());
        }
    }

    fn take_requests(&mut self, effects: &mut Effects) {
        if !effects.pages.is_empty() {
            self.requests.fill().extend(effects.pages.drain(..).map(Request::Page));
        }
    }

    /// Submits the collected changes and notes which acknowledgements wait for them.
    fn submit(&mut self, session: &Arc<Session>, effects: &mut Effects) {
        let has_unsubmitted = self.pending.back().is_some_and(Pending::is_unsubmitted);
        if !has_unsubmitted && effects.is_nothing_but_wakers() {
            effects.wake();
            return;
        }
        if has_unsubmitted {
            effects.listeners.push(Arc::clone(session) as Arc<_>);
        }
        let has_changes = !effects.changes.is_empty();
        let ticket = self.broker.submit(effects).unwrap_or(Ticket::NOTHING);
        for pending in self.pending.iter_mut().rev() {
            if !pending.is_unsubmitted() {
                break;
            }
            pending.set_ticket(ticket);
        }
        if has_changes {
            self.watch_store(session, effects);
        }
        self.take_requests(effects);
    }

    /// Sends what has become safe to send, and ends a wait that is over.
    fn settle(&mut self, now: Timestamp, effects: &mut Effects) {
        self.flush_pending(effects);
        self.end_throttle(now);
        if std::mem::take(&mut self.is_store_behind)
            && let Some(session) = self.session.clone()
        {
            self.watch_store(&session, effects);
        }
    }

    /// Stops reading while the store is behind, and asks it to say when it has done what it has.
    fn watch_store(&mut self, session: &Arc<Session>, effects: &mut Effects) {
        let store = self.broker.store();
        if store.pending_bytes() < self.broker.limits().max_pending_bytes {
            return;
        }
        self.is_store_behind = true;
        effects.barrier = true;
        effects.listeners.push(Arc::clone(session) as Arc<_>);
        self.broker.submit(effects);
    }
}

/// The result of an authentication that the shell carried out.
pub type Authenticated = Result<Principal, crate::packet::reason_code::ReasonCode>;

/// The result of a step of enhanced authentication, with the exchange to go on with.
pub type Exchanged = (Box<dyn Exchange>, ExchangeStep);
