//! Handles CONNECT until the Client is authenticated: by name and password, by enhanced authentication, or
//! anonymously. Operations that may block are left to the shell.

use std::borrow::Cow;
use std::sync::Arc;

use crate::access::{Credentials, Exchange, ExchangeStep};
use crate::broker::connection::explain::refusal;
use crate::broker::connection::remark::Introduction;
use crate::broker::connection::take_over::TakeOver;
use crate::broker::connection::{
    Authenticated, ClientConnection, CloseReason, EnhancedAuthentication, Exchanged, Phase, Request,
};
use crate::durable::message::Timestamp;
use crate::packet::auth::Auth;
use crate::packet::connect::{self, Connect, Will};
use crate::packet::decode::{Decoded, decode};
use crate::packet::reason_code::ReasonCode;
use crate::packet::{Packet, ProtocolVersion, QoS};
use crate::session::effects::Effects;
use crate::session::policies::{LimitPolicy, Recognition};
use crate::session::violation::Violation;
use crate::topic::mount_point::MountPoint;
use crate::topic::name::MAX_TOPIC_BYTES;

/// The contents of a CONNECT, kept while its Client is being authenticated.
pub(super) struct PendingConnect {
    pub(super) client_id: Arc<str>,
    pub(super) is_id_assigned: bool,
    pub(super) clean_start: bool,
    pub(super) keep_alive_seconds: u16,
    pub(super) session_expiry_seconds: Option<u32>,
    pub(super) receive_maximum: u16,
    pub(super) maximum_packet_bytes: Option<u32>,
    pub(super) topic_alias_maximum: u16,
    pub(super) requests_response_information: bool,
    pub(super) will: Option<OwnedWill>,
    /// Authentication Data for CONNACK.
    pub(super) authentication_data: Option<Vec<u8>>,
    /// The wait for another Network Connection that holds the Session.
    pub(super) take_over: Option<TakeOver>,
}

/// A Will Message that outlives the read buffer.
pub(super) struct OwnedWill {
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
    pub(super) properties: Vec<u8>,
    pub(super) delay_seconds: u32,
    pub(super) message_expiry: Option<u32>,
}

impl ClientConnection {
    /// Handles bytes before the Session is open: CONNECT, then AUTH if enhanced authentication was started.
    pub(super) fn handle_early_bytes(
        &mut self,
        input: &[u8],
        now: Timestamp,
        effects: &mut Effects,
    ) -> usize {
        // The Client is not authenticated yet, so the limit is small until CONNACK.
        let mut context = self.decode_context();
        context.max_packet_bytes =
            context.max_packet_bytes.min(self.broker.limits().max_connect_bytes);
        match decode(input, &context) {
            Ok(Decoded::Packet { packet, length }) => {
                effects.tally.packets_received += 1;
                self.handle_early_packet(packet, now, effects);
                length
            }
            Ok(Decoded::Incomplete { .. }) => {
                if !connect::may_begin(input) && matches!(self.opening.phase, Phase::AwaitsConnect)
                {
                    self.close(CloseReason::Violation(Violation::NotConnect));
                }
                0
            }
            Err(error) => {
                if matches!(self.opening.phase, Phase::AwaitsConnect) {
                    self.answer_malformed_connect(input, &error);
                }
                self.close(CloseReason::Malformed(error));
                0
            }
        }
    }

    fn handle_early_packet(&mut self, packet: Packet<'_>, now: Timestamp, effects: &mut Effects) {
        match (&self.opening.phase, packet) {
            (Phase::AwaitsConnect, Packet::Connect(connect)) => {
                self.handle_connect(&connect, now, effects);
            }
            (Phase::AwaitsConnect, _) => {
                self.close(CloseReason::Violation(Violation::NotConnect));
            }
            (Phase::AwaitsAuth(_), Packet::Auth(auth)) => self.handle_auth(&auth),
            (Phase::AwaitsAuth(_), Packet::Disconnect(_)) => {
                self.close(CloseReason::ClientDisconnected);
            }
            (_, _) => {
                self.close(CloseReason::Violation(Violation::PacketDuringAuthentication));
            }
        }
    }

    fn handle_connect(&mut self, connect: &Connect<'_>, now: Timestamp, effects: &mut Effects) {
        self.identity.version = connect.version;
        if !self.identity.peer.listener.internal {
            self.identity.introduction = Some(Box::new(Introduction::new(connect)));
        }
        let properties = &connect.properties;
        self.identity.takes_problem_information =
            properties.request_problem_information.unwrap_or(true);
        self.identity.client_max_packet_bytes = properties.maximum_packet_bytes.unwrap_or(u32::MAX);
        if self.broker.is_draining() {
            self.refuse(ReasonCode::ServerShuttingDown);
            return;
        }
        if let Some(neighbours) = self.broker.neighbours() {
            self.identity.policies = neighbours.policies(connect, self.identity.policies);
        }
        self.input.forms_runs &= self.identity.policies.recognition != Recognition::ByContent;
        let pending = match self.check_connect(connect) {
            Ok(pending) => Box::new(pending),
            Err((reason, why)) => {
                self.refuse_because(reason, why);
                return;
            }
        };
        if let Some(method) = properties.authentication_method {
            let data = properties.authentication_data.unwrap_or_default();
            self.begin_exchange(method, data, pending);
            return;
        }
        if self.identity.peer.listener.internal {
            self.opening.phase = Phase::Authenticating(pending);
            self.handle_authenticated(Ok(self.identity.principal.clone()), now, effects);
            return;
        }
        let credentials = Credentials {
            client_id: Arc::clone(&pending.client_id),
            user_name: connect.user_name.map(Into::into),
            password: connect.password.map(Into::into),
            peer: (*self.identity.peer).clone(),
        };
        self.opening.phase = Phase::Authenticating(pending);
        if self.broker.authority().may_block(&credentials) {
            self.output.requests.fill().push_back(Request::Authenticate(Box::new(credentials)));
            return;
        }
        let result = self.broker.authority().authenticate(&credentials);
        self.handle_authenticated(result, now, effects);
    }

    /// Begins enhanced authentication. [MQTT-4.12.0-1]
    fn begin_exchange(&mut self, method: &str, data: &[u8], pending: Box<PendingConnect>) {
        self.identity.enhanced =
            Some(Box::new(EnhancedAuthentication { method: method.into(), exchange: None }));
        match self.broker.authority().begin_exchange(method, &self.identity.peer) {
            Some(exchange) => {
                self.request_step(exchange, data.to_vec());
                self.opening.phase = Phase::Authenticating(pending);
            }
            None => self.refuse(ReasonCode::BadAuthenticationMethod),
        }
    }

    /// Checks that need no authentication.
    fn check_connect(
        &self,
        connect: &Connect<'_>,
    ) -> Result<PendingConnect, (ReasonCode, &'static str)> {
        if let Some(will) = &connect.will {
            let limits = self.broker.limits();
            if will.qos > limits.maximum_qos {
                return Err((ReasonCode::QoSNotSupported, refusal::WILL_QOS));
            }
            if will.retain && !limits.retain_available {
                return Err((ReasonCode::RetainNotSupported, refusal::WILL_RETAIN));
            }
        }
        let client_id = self.client_id(connect)?;
        let properties = &connect.properties;
        let session_expiry_seconds = match connect.version {
            ProtocolVersion::V5_0 => Some(properties.session_expiry_seconds.unwrap_or(0)),
            ProtocolVersion::V3_1 | ProtocolVersion::V3_1_1 if connect.clean_start => Some(0),
            ProtocolVersion::V3_1 | ProtocolVersion::V3_1_1 => None,
        };
        let mount = self.identity.peer.listener.mount_point.as_ref();
        let will = connect.will.as_ref().map(|will| OwnedWill::new(will, mount)).transpose();
        let will = will.map_err(|reason| (reason, refusal::WILL_TOPIC_TOO_LONG))?;
        Ok(PendingConnect {
            client_id,
            is_id_assigned: connect.client_id.is_empty(),
            clean_start: connect.clean_start,
            keep_alive_seconds: connect.keep_alive_seconds,
            session_expiry_seconds,
            receive_maximum: properties.receive_maximum.unwrap_or(u16::MAX),
            maximum_packet_bytes: properties.maximum_packet_bytes,
            topic_alias_maximum: properties.topic_alias_maximum.unwrap_or(0),
            requests_response_information: properties.request_response_information.unwrap_or(false),
            will,
            authentication_data: None,
            take_over: None,
        })
    }

    /// The Client Identifier, assigned if the Client has none. [MQTT-3.1.3-6]
    fn client_id(&self, connect: &Connect<'_>) -> Result<Arc<str>, (ReasonCode, &'static str)> {
        let limits = self.broker.limits();
        let is_id_assigned = connect.client_id.is_empty();
        let may_assign = match connect.version {
            ProtocolVersion::V3_1 => false,
            // [MQTT311-3.1.3-7] [MQTT311-3.1.3-8]
            ProtocolVersion::V3_1_1 => connect.clean_start,
            ProtocolVersion::V5_0 => true,
        };
        let is_id_refused = match is_id_assigned {
            true => !may_assign || !limits.allow_empty_client_id,
            false => connect.client_id.len() > limits.max_client_id_bytes,
        };
        let is_exempt = self.identity.policies.limits == LimitPolicy::Exempt;
        let is_reserved = self.is_reserved(connect.client_id);
        if (is_id_refused && !is_exempt) || is_reserved {
            let why = match (is_id_assigned, is_reserved) {
                (true, _) => refusal::CLIENT_ID_MISSING,
                (false, true) => refusal::CLIENT_ID_RESERVED,
                (false, false) => refusal::CLIENT_ID_TOO_LONG,
            };
            return Err((ReasonCode::ClientIdentifierNotValid, why));
        }
        Ok(match is_id_assigned {
            true => {
                let prefix = &limits.client_id_prefix;
                Arc::from(format!("{prefix}{:032x}", self.broker.unguessable_number()))
            }
            false => Arc::from(connect.client_id),
        })
    }

    /// Whether this Client Identifier is reserved for parts of the broker: nobody else may take over their Sessions.
    fn is_reserved(&self, client_id: &str) -> bool {
        let neighbours = self.broker.neighbours();
        !self.identity.peer.listener.internal
            && neighbours.is_some_and(|neighbours| neighbours.is_reserved(client_id))
    }

    /// Handles the result of checking a name and a password.
    pub fn handle_authenticated(
        &mut self,
        result: Authenticated,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let Some(pending) = self.take_authenticating() else { return };
        match result {
            Ok(principal) => {
                self.identity.principal = principal;
                self.begin_session(pending, now, effects);
            }
            Err(reason) => self.refuse(reason),
        }
    }

    /// Handles the result of a step of enhanced authentication.
    pub fn handle_exchange(
        &mut self,
        (exchange, step): Exchanged,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        self.input.is_exchanging = false;
        if self.closing.reason.is_some() {
            return;
        }
        if let Some(pending) = self.take_authenticating() {
            self.handle_first_exchange(pending, exchange, step, now, effects);
        } else if self.is_connected() {
            self.handle_later_exchange(exchange, step);
        }
    }

    /// The pending CONNECT, if its Client is being authenticated.
    fn take_authenticating(&mut self) -> Option<Box<PendingConnect>> {
        if self.closing.reason.is_some() || !matches!(self.opening.phase, Phase::Authenticating(_))
        {
            return None;
        }
        match std::mem::replace(&mut self.opening.phase, Phase::Opening) {
            Phase::Authenticating(pending) => Some(pending),
            _ => None,
        }
    }

    fn handle_first_exchange(
        &mut self,
        mut pending: Box<PendingConnect>,
        exchange: Box<dyn Exchange>,
        step: ExchangeStep,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        match step {
            ExchangeStep::Continue(data) => {
                self.keep_exchange(exchange);
                self.opening.phase = Phase::AwaitsAuth(pending);
                self.send_auth(ReasonCode::ContinueAuthentication, Some(&data));
            }
            ExchangeStep::Accept(principal, data) => {
                self.identity.principal = principal;
                pending.authentication_data = data;
                self.begin_session(pending, now, effects);
            }
            ExchangeStep::Refuse(reason) => self.refuse(reason),
        }
    }

    fn handle_later_exchange(&mut self, exchange: Box<dyn Exchange>, step: ExchangeStep) {
        match step {
            ExchangeStep::Continue(data) => {
                self.keep_exchange(exchange);
                self.send_auth(ReasonCode::ContinueAuthentication, Some(&data));
            }
            // The Session, and everything this connection was allowed to do, belongs to the user who opened it.
            ExchangeStep::Accept(principal, _)
                if principal.user_name != self.identity.principal.user_name =>
            {
                self.close(CloseReason::AuthenticationFailed(ReasonCode::NotAuthorized));
            }
            ExchangeStep::Accept(principal, data) => {
                self.identity.principal = principal;
                self.send_auth(ReasonCode::Success, data.as_deref());
            }
            ExchangeStep::Refuse(reason) => self.close(CloseReason::AuthenticationFailed(reason)),
        }
    }

    /// AUTH before CONNACK. [MQTT-4.12.0-3]
    fn handle_auth(&mut self, auth: &Auth<'_>) {
        if auth.reason != ReasonCode::ContinueAuthentication {
            self.close(CloseReason::Violation(Violation::UnexpectedAuth));
            return;
        }
        self.continue_exchange(auth);
        if self.closing.reason.is_some() {
            return;
        }
        if let Phase::AwaitsAuth(pending) =
            std::mem::replace(&mut self.opening.phase, Phase::Opening)
        {
            self.opening.phase = Phase::Authenticating(pending);
        }
    }

    /// AUTH of a connected Client: re-authentication. [MQTT-4.12.1-1]
    pub(super) fn handle_auth_again(&mut self, auth: &Auth<'_>) {
        if auth.reason == ReasonCode::ContinueAuthentication {
            self.continue_exchange(auth);
            return;
        }
        let method = auth.method.unwrap_or_default();
        if self.method().is_none() || auth.reason != ReasonCode::ReAuthenticate {
            self.close(CloseReason::Violation(Violation::UnexpectedAuth));
        } else if self.method() != Some(method) {
            self.close(CloseReason::Violation(Violation::OtherAuthenticationMethod));
        } else if let Some(exchange) =
            self.broker.authority().begin_exchange(method, &self.identity.peer)
        {
            let data = auth.data.unwrap_or_default().to_vec();
            self.request_step(exchange, data);
        } else {
            self.close(CloseReason::AuthenticationFailed(ReasonCode::BadAuthenticationMethod));
        }
    }

    /// The method of enhanced authentication, if the Client chose one.
    pub(super) fn method(&self) -> Option<&str> {
        self.identity.enhanced.as_deref().map(|enhanced| &*enhanced.method)
    }

    fn keep_exchange(&mut self, exchange: Box<dyn Exchange>) {
        if let Some(enhanced) = &mut self.identity.enhanced {
            enhanced.exchange = Some(exchange);
        }
    }

    fn continue_exchange(&mut self, auth: &Auth<'_>) {
        if auth.method != self.method() {
            self.close(CloseReason::Violation(Violation::OtherAuthenticationMethod));
            return;
        }
        let Some(exchange) =
            self.identity.enhanced.as_mut().and_then(|enhanced| enhanced.exchange.take())
        else {
            self.close(CloseReason::Violation(Violation::UnexpectedAuth));
            return;
        };
        let data = auth.data.unwrap_or_default().to_vec();
        self.request_step(exchange, data);
    }

    /// Requests a step; nothing is read until it is done.
    fn request_step(&mut self, exchange: Box<dyn Exchange>, data: Vec<u8>) {
        self.input.is_exchanging = true;
        self.output.requests.fill().push_back(Request::Exchange(exchange, data));
    }

    fn send_auth(&mut self, reason: ReasonCode, data: Option<&[u8]>) {
        if self.closing.reason.is_some() {
            return;
        }
        let enhanced = self.identity.enhanced.take();
        let auth = Auth {
            reason,
            method: enhanced.as_deref().map(|enhanced| &*enhanced.method),
            data,
            reason_string: None,
            user_properties: Vec::new(),
        };
        let version = self.identity.version;
        self.output.own.append(|out| auth.encode(out, version));
        self.identity.enhanced = enhanced;
    }
}

impl PendingConnect {
    /// Whether the Network Connection that holds the Session has had enough time to leave.
    pub(super) fn has_waited_enough(&self, now: Timestamp) -> bool {
        self.take_over.as_ref().is_some_and(|wait| wait.deadline() <= now)
    }
}

impl OwnedWill {
    /// Copies a will, with the outside names of its topics; refused if one would be too long.
    fn new(will: &Will<'_>, mount: Option<&MountPoint>) -> Result<Self, ReasonCode> {
        let (topic, properties) = match mount {
            Some(mount) => (mount.outside(will.topic), mount.properties_outside(&will.properties)),
            None => (will.topic.to_owned(), Some(Cow::Borrowed(&*will.properties))),
        };
        let properties = properties.filter(|_| topic.len() <= MAX_TOPIC_BYTES);
        Ok(Self {
            qos: will.qos,
            retain: will.retain,
            topic,
            payload: will.payload.to_vec(),
            properties: properties.ok_or(ReasonCode::TopicNameInvalid)?.into_owned(),
            delay_seconds: will.delay_seconds.unwrap_or(0),
            message_expiry: will.message_expiry,
        })
    }
}
