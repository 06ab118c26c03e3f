//! Turns an authenticated CONNECT into an open Session: take-over, clean start or resumption, CONNACK.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::broker::connection::authenticate::{OwnedWill, PendingConnect};
use crate::broker::connection::explain::refusal;
use crate::broker::connection::pending::{PendingPacket, Promise};
use crate::broker::connection::progress::Patience;
use crate::broker::connection::publish::Refusal;
use crate::broker::connection::take_over::TakeOver;
use crate::broker::connection::{ClientConnection, Phase};
use crate::durable::StoreState;
use crate::durable::message::{Message, MessageHeader, SessionId, Timestamp};
use crate::packet::connack::{Connack, ConnackProperties};
use crate::packet::reason_code::ReasonCode;
use crate::packet::{ProtocolVersion, QoS};
use crate::session::Session;
use crate::session::aliases::OutgoingAliases;
use crate::session::effects::Effects;
use crate::session::inbound::{Inbound, Will};
use crate::session::link::{ClientOrigin, LinkParameters, Naming};
use crate::session::outbound::Outbound;
use crate::session::owner::SessionOwner;
use crate::session::policies::LimitPolicy;
use crate::session::queue::Queue;

/// The contents of CONNACK, and the terms for the messages after it.
pub(super) struct Greeting {
    session_present: bool,
    assigned_client_id: Option<Arc<str>>,
    session_expiry_seconds: Option<u32>,
    server_keep_alive_seconds: Option<u16>,
    response_information: bool,
    authentication_data: Option<Vec<u8>>,
    link: LinkParameters,
}

impl Greeting {
    /// Whether stored state was found.
    pub(super) fn is_resumed(&self) -> bool {
        self.session_present
    }
}

impl ClientConnection {
    /// Resumes or creates the Session of an authenticated Client, and sends CONNACK when that is durable.
    pub(super) fn begin_session(
        &mut self,
        connect: Box<PendingConnect>,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        self.find_rights(&connect.client_id);
        let will = connect.will.as_ref();
        if let Some(refused) = will.and_then(|will| self.will_refusal(&connect.client_id, will)) {
            if refused.reason_code() == ReasonCode::NotAuthorized {
                effects.tally.wills_denied += 1;
            }
            let why = match refused {
                Refusal::TopicTooLong => refusal::WILL_TOPIC_TOO_LONG,
                _ => refusal::WILL_TOPIC,
            };
            self.refuse_because(refused.reason_code(), why);
            return;
        }
        let expiry_seconds = connect.session_expiry_seconds.unwrap_or(u32::MAX);
        if expiry_seconds > 0 && self.broker.store().state() != StoreState::Available {
            // CONNACK would have to wait for the store, so tell the Client to try again.
            self.refuse_because(ReasonCode::ServerUnavailable, refusal::STORE);
            return;
        }
        self.opening.phase = Phase::Opening;
        let keep_alive = self.keep_alive(connect.keep_alive_seconds);
        let limits = self.broker.limits();
        let requested = connect.session_expiry_seconds.unwrap_or(u32::MAX);
        let expiry_seconds = match self.identity.policies.limits {
            LimitPolicy::Exempt => requested,
            LimitPolicy::Applied => requested.min(limits.max_session_expiry_seconds),
        };
        let greeting = Greeting {
            session_present: false,
            assigned_client_id: connect.is_id_assigned.then(|| Arc::clone(&connect.client_id)),
            session_expiry_seconds: (expiry_seconds != requested).then_some(expiry_seconds),
            server_keep_alive_seconds: (keep_alive != connect.keep_alive_seconds)
                .then_some(keep_alive),
            response_information: connect.requests_response_information,
            authentication_data: connect.authentication_data.clone(),
            link: self.link(&connect),
        };
        self.input.patience = Patience::of_keep_alive(keep_alive);
        self.attach(connect, expiry_seconds, greeting, now, effects);
    }

    /// Answers CONNACK when everything that it acknowledges is durable. The caller holds the Session's inbound half: if
    /// the record were submitted later, that of a connection that takes over meanwhile could be written first and then be
    /// replaced by this one.
    fn confirm(
        &mut self,
        session: &Arc<Session>,
        greeting: Greeting,
        promise: Promise,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        self.broker.count_connected();
        self.opening.session = Some(Arc::clone(session));
        let wait = promise.wait(effects);
        self.answer(PendingPacket::Connack(Box::new(greeting)), wait, effects);
        // A Will is not a stream that could be slowed down, and its publisher has disconnected.
        effects.slow_nobody();
        self.finish_turn(session, now, effects);
    }

    /// Finds or creates the Session. [MQTT-3.1.2-4] [MQTT-3.1.2-5]
    fn attach(
        &mut self,
        mut connect: Box<PendingConnect>,
        expiry_seconds: u32,
        greeting: Greeting,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let broker = Arc::clone(&self.broker);
        let promise = Promise::begin(effects);
        loop {
            let Some(session) = broker.registry().find(&connect.client_id) else {
                if !self.has_place(&connect) || !self.may_begin_session() {
                    return;
                }
                let session = self.new_session(&connect, expiry_seconds);
                if !broker.registry().insert(&session) {
                    // Another connection of this Client was faster: take over from it.
                    continue;
                }
                let mut inbound = session.inbound();
                if inbound.ended || inbound.epoch != self.opening.epoch {
                    continue;
                }
                broker.persist_new(&session, &mut inbound, effects);
                self.confirm(&session, greeting, promise, now, effects);
                return;
            };
            let mut inbound = session.inbound();
            if inbound.ended {
                broker.registry().remove(&session);
                continue;
            }
            if !self.is_owner(&inbound) {
                drop(inbound);
                self.refuse_because(ReasonCode::ClientIdentifierNotValid, refusal::SOMEBODY_ELSES);
                return;
            }
            let resumes = !connect.clean_start && inbound.is_durable();
            let was_connected = inbound.disconnected.is_none();
            if was_connected && !connect.has_waited_enough(now) {
                connect.take_over =
                    Some(TakeOver::begin(connect.take_over.as_ref(), &session, now));
                self.opening.phase = Phase::TakingOver(connect);
                return;
            }
            if !was_connected && !self.has_place(&connect) {
                return;
            }
            // One that is due waits for the timer at most; after a crash, no timer has run yet. A Will left by an
            // earlier run of the broker is not published if its Client is back.
            if let Some(will) = inbound.will.take()
                && !will.is_left_behind
                && (!resumes || inbound.is_overdue(&will, now))
            {
                broker.publish_will(&session, &inbound, &will, now, effects);
            }
            if was_connected {
                broker.figures().connected.fetch_sub(1, Ordering::Relaxed);
            }
            if resumes {
                self.resume(&session, &mut inbound, &connect, expiry_seconds, effects);
                let greeting = Greeting { session_present: true, ..greeting };
                self.confirm(&session, greeting, promise, now, effects);
                return;
            }
            broker.discard_session(&session, &mut inbound, now, effects);
        }
    }

    /// Whether there is room for this Client; if not, it is refused. With a take-over it gets the place of the old
    /// connection.
    fn has_place(&mut self, connect: &PendingConnect) -> bool {
        let has_place = !self.opening.is_guest || connect.take_over.is_some();
        if !has_place {
            self.refuse_because(ReasonCode::QuotaExceeded, refusal::TOO_MANY_CONNECTIONS);
        }
        has_place
    }

    /// Whether there is room for a new Session; if not, the Client is refused.
    fn may_begin_session(&mut self) -> bool {
        let is_exempt = self.identity.policies.limits == LimitPolicy::Exempt;
        let may_begin = is_exempt || self.broker.has_room_for_session();
        if !may_begin {
            self.refuse_because(ReasonCode::QuotaExceeded, refusal::TOO_MANY_SESSIONS);
        }
        may_begin
    }

    /// Whether the Session belongs to this Client's user. Anonymous counts as a user.
    fn is_owner(&self, inbound: &Inbound) -> bool {
        self.broker.limits().shares_sessions || inbound.owner.admits(&self.owner())
    }

    fn owner(&self) -> SessionOwner {
        let mount_point = self.mount_point().map(|mount| Arc::from(mount.as_str()));
        SessionOwner::new(self.identity.principal.user_name.clone(), mount_point)
    }

    fn new_session(&mut self, connect: &PendingConnect, expiry_seconds: u32) -> Arc<Session> {
        let id = self.broker.next_session_id();
        let mut inbound = Inbound::new(self.broker.first_message());
        inbound.epoch = 1;
        inbound.expiry_seconds = expiry_seconds;
        inbound.owner = self.owner();
        inbound.will = make_will(connect.will.as_ref(), id, &mut inbound);
        let persistence = inbound.persistence();
        let mut outbound = Outbound::new(persistence, Queue::new(id));
        let _nobody = outbound.take_over(1, persistence);
        let _no_plans = outbound.set_rights(self.identity.rights.clone());
        self.opening.epoch = 1;
        Arc::new(Session::new(Arc::clone(&connect.client_id), inbound, outbound))
    }

    fn resume(
        &mut self,
        session: &Arc<Session>,
        inbound: &mut Inbound,
        connect: &PendingConnect,
        expiry_seconds: u32,
        effects: &mut Effects,
    ) {
        inbound.epoch += 1;
        inbound.incoming.begin_quota();
        inbound.expiry_seconds = expiry_seconds;
        inbound.disconnected = None;
        inbound.owner = self.owner();
        inbound.will = make_will(connect.will.as_ref(), session.id(), inbound);
        self.opening.epoch = inbound.epoch;
        self.output.watches_others = true;
        let mut outbound = session.outbound();
        effects.wakers.extend(outbound.take_over(self.opening.epoch, inbound.persistence()));
        let has_other_rights = outbound.set_rights(self.identity.rights.clone());
        drop(outbound);
        if has_other_rights {
            self.broker.outdate_plans_of(inbound);
        }
        for group in inbound.groups.iter() {
            group.handle_absence(session.id(), effects);
        }
        self.broker.persist_session(session, inbound, effects);
    }

    /// Sends CONNACK; from now on messages may follow. [MQTT-3.2.0-1]
    pub(super) fn open(&mut self, greeting: Greeting) {
        let Some(session) = self.opening.session.clone() else { return };
        let limits = self.broker.limits();
        let is_v5 = self.identity.version == ProtocolVersion::V5_0;
        let response_information =
            limits.response_information.as_deref().filter(|_| greeting.response_information);
        let properties = ConnackProperties {
            session_expiry_seconds: greeting.session_expiry_seconds,
            receive_maximum: Some(limits.receive_maximum),
            maximum_qos: (limits.maximum_qos < QoS::ExactlyOnce).then_some(limits.maximum_qos),
            retain_available: (!limits.retain_available).then_some(false),
            maximum_packet_bytes: Some(self.input.max_packet_bytes),
            assigned_client_id: greeting.assigned_client_id.as_deref(),
            topic_alias_maximum: (limits.topic_alias_maximum > 0)
                .then_some(limits.topic_alias_maximum),
            wildcard_subscription_available: (!limits.wildcard_available).then_some(false),
            subscription_identifiers_available: (!limits.subscription_ids_available)
                .then_some(false),
            shared_subscription_available: (!limits.shared_available).then_some(false),
            server_keep_alive_seconds: greeting.server_keep_alive_seconds,
            response_information,
            authentication_method: self
                .identity
                .enhanced
                .as_deref()
                .map(|enhanced| &*enhanced.method),
            authentication_data: greeting.authentication_data.as_deref(),
            ..ConnackProperties::default()
        };
        let connack = Connack {
            // 3.1 does not have this flag.
            session_present: greeting.session_present
                && self.identity.version > ProtocolVersion::V3_1,
            reason: ReasonCode::Success,
            properties: if is_v5 { properties } else { ConnackProperties::default() },
        };
        let version = self.identity.version;
        self.output.own.append(|out| connack.encode(out, version));
        self.opening.phase = Phase::Connected;
        if let Some(introduction) = &mut self.identity.introduction {
            introduction.is_resumed = greeting.session_present;
        }
        session.set_trail(self.identity.policies.trail);
        session.outbound().open(self.opening.epoch, greeting.link);
    }

    /// The Keep Alive in force. [MQTT-3.1.2-21]
    fn keep_alive(&self, requested: u16) -> u16 {
        let is_exempt = self.identity.policies.limits == LimitPolicy::Exempt;
        if self.identity.version != ProtocolVersion::V5_0 || is_exempt {
            return requested;
        }
        if let Some(fixed) = self.broker.limits().server_keep_alive_seconds {
            return fixed;
        }
        let limits = [
            self.broker.limits().max_keep_alive_seconds,
            self.identity.peer.listener.max_keep_alive_seconds.unwrap_or(0),
        ];
        let max = limits.into_iter().filter(|&limit| limit > 0).min();
        match max {
            Some(max) if requested == 0 || requested > max => max,
            Some(_) | None => requested,
        }
    }

    fn link(&self, connect: &PendingConnect) -> LinkParameters {
        let limits = self.broker.limits();
        let max_aliases = connect.topic_alias_maximum.min(limits.outgoing_alias_maximum);
        let aliases = (max_aliases > 0).then(|| OutgoingAliases::new(max_aliases));
        let mount_point = self.identity.peer.listener.mount_point.clone();
        LinkParameters {
            version: self.identity.version,
            max_packet_bytes: connect.maximum_packet_bytes.unwrap_or(u32::MAX),
            receive_maximum: connect.receive_maximum.min(limits.max_inflight),
            naming: (aliases.is_some() || mount_point.is_some())
                .then(|| Box::new(Naming { aliases, mount_point })),
            outbox_bytes: limits.outbox_bytes,
            origin: Arc::clone(&self.identity.peer) as Arc<dyn ClientOrigin>,
            since: self.input.last_received,
        }
    }
}

/// A Will Message for the Session. Its expiry starts when it is published.
fn make_will(
    will: Option<&OwnedWill>,
    publisher: SessionId,
    inbound: &mut Inbound,
) -> Option<Will> {
    let will = will?;
    let header = MessageHeader {
        id: inbound.take_message_id(publisher),
        qos: will.qos,
        retain: will.retain,
        arrived: Timestamp(0),
        expires: will.message_expiry.map(|seconds| Timestamp(u64::from(seconds) * 1000)),
    };
    let message = Message::new(header, &will.topic, &will.properties, &will.payload)?;
    let delay_seconds = will.delay_seconds;
    Some(Will { message: Arc::new(message), delay_seconds, is_left_behind: false })
}
