//! Reason Strings: what was refused and why, for the reader of the Client's log. They contain no secrets and nothing
//! that the Client does not know. They are left out if the Client requested none [MQTT-3.1.2-29], or if the packet would
//! be too large for it. [MQTT-3.2.2-19] [MQTT-3.4.2-2] [MQTT-3.9.2-1] [MQTT-3.14.2-3]

use crate::broker::connection::ClientConnection;
use crate::error::CloseReason;
use crate::packet::PacketId;
use crate::packet::ProtocolVersion;
use crate::packet::acknowledgement::{
    Acknowledgement, AcknowledgementKind, Puback, Pubrec, encode_acknowledgement,
};
use crate::packet::disconnect::Disconnect;
use crate::packet::reason_code::ReasonCode;
use crate::packet::subscribe::Suback;

/// Reasons for refusing a CONNECT that its Reason Code does not express.
pub(super) mod refusal {
    pub(in crate::broker::connection) const SOMEBODY_ELSES: &str =
        "the session of this client identifier belongs to another user or mount point";
    pub(in crate::broker::connection) const TOO_MANY_SESSIONS: &str =
        "the limit of sessions has been reached";
    pub(in crate::broker::connection) const TOO_MANY_CONNECTIONS: &str =
        "too many network connections: no room for another client";
    pub(in crate::broker::connection) const WILL_TOPIC: &str =
        "not authorized to publish to the will topic";
    pub(in crate::broker::connection) const WILL_TOPIC_TOO_LONG: &str =
        "the will topic or its response topic is too long or has too many levels";
    pub(in crate::broker::connection) const WILL_QOS: &str =
        "the will has a QoS above the maximum QoS";
    pub(in crate::broker::connection) const WILL_RETAIN: &str =
        "the will is retained, but retained messages are not available";
    pub(in crate::broker::connection) const STORE: &str =
        "durable sessions cannot be stored at present";
    pub(in crate::broker::connection) const CLIENT_ID_MISSING: &str =
        "an empty client identifier is not accepted";
    pub(in crate::broker::connection) const CLIENT_ID_TOO_LONG: &str =
        "the client identifier is too long";
    pub(in crate::broker::connection) const CLIENT_ID_RESERVED: &str =
        "the client identifier is reserved for the broker itself";
}

/// The text for a failure Reason Code in an answer to CONNECT, PUBLISH or SUBSCRIBE.
pub(super) const fn words(reason: ReasonCode) -> Option<&'static str> {
    Some(match reason {
        ReasonCode::BadUserNameOrPassword => "user name or password is missing or wrong",
        ReasonCode::NotAuthorized => "not authorized",
        ReasonCode::Banned => "this client is banned",
        ReasonCode::BadAuthenticationMethod => "this authentication method is not supported",
        ReasonCode::ServerUnavailable => "the server is not available at present",
        ReasonCode::ServerBusy => "the server is busy, try again later",
        ReasonCode::ServerShuttingDown => "the server is shutting down",
        ReasonCode::QuotaExceeded => "a limit of the server has been reached",
        ReasonCode::ConnectionRateExceeded => "too many connections in too short a time",
        ReasonCode::TopicNameInvalid => "this topic cannot be published to",
        ReasonCode::TopicFilterInvalid => {
            "this topic filter is malformed, too long, has too many levels, or is the server's own"
        }
        ReasonCode::PayloadFormatInvalid => {
            "the payload is not UTF-8, although its format indicator says so"
        }
        ReasonCode::PacketTooLarge => "the packet is larger than the server accepts",
        ReasonCode::SharedSubscriptionsNotSupported => "shared subscriptions are not available",
        ReasonCode::WildcardSubscriptionsNotSupported => "wildcard subscriptions are not available",
        ReasonCode::SubscriptionIdentifiersNotSupported => {
            "subscription identifiers are not available"
        }
        _ => return None,
    })
}

/// The same for an answer to PUBLISH, which can be more specific.
const fn words_of_publish(reason: ReasonCode) -> Option<&'static str> {
    match reason {
        ReasonCode::NotAuthorized => Some("not authorized to publish to this topic"),
        ReasonCode::TopicNameInvalid => {
            Some("the topic or the response topic is too long or has too many levels")
        }
        ReasonCode::QuotaExceeded => Some(
            "the message cannot be stored: a queue, the retained messages or the store is full",
        ),
        _ => words(reason),
    }
}

impl ClientConnection {
    /// Whether the Client wants Reason Strings.
    pub(super) fn takes_reasons(&self) -> bool {
        self.identity.version == ProtocolVersion::V5_0 && self.identity.takes_problem_information
    }

    /// Appends a packet with the reason, or without it if the packet would be too large.
    pub(super) fn append_explained(
        &mut self,
        reason: Option<&str>,
        encode: impl Fn(Option<&str>, &mut Vec<u8>),
    ) {
        let reason = reason.filter(|_| self.takes_reasons());
        let max_bytes = self.identity.client_max_packet_bytes as usize;
        self.output.own.append(|out| {
            let start = out.len();
            encode(reason, out);
            if reason.is_some() && out.len() - start > max_bytes {
                out.truncate(start);
                encode(None, out);
            }
        });
    }

    /// Sends a PUBACK or PUBREC that refuses a message, or a PUBCOMP for an unknown identifier.
    pub(super) fn send_refusing(
        &mut self,
        kind: AcknowledgementKind,
        packet_id: PacketId,
        reason: ReasonCode,
    ) {
        let version = self.identity.version;
        self.append_explained(words_of_publish(reason), |reason_string, out| {
            let user_properties = Vec::new();
            let content = Acknowledgement { packet_id, reason, reason_string, user_properties };
            match kind {
                AcknowledgementKind::Puback => Puback(content).encode(out, version),
                AcknowledgementKind::Pubrec => Pubrec(content).encode(out, version),
                AcknowledgementKind::Pubrel | AcknowledgementKind::Pubcomp => {
                    encode_acknowledgement(out, kind, packet_id, reason, version);
                }
            }
        });
    }

    /// Sends SUBACK, which says how many filters were refused and why the first one was.
    pub(super) fn send_suback(&mut self, packet_id: PacketId, reasons: Vec<ReasonCode>) {
        let first = reasons.iter().position(|reason| reason.is_failure());
        let why = first.filter(|_| self.takes_reasons()).map(|first| {
            let refused = reasons.iter().filter(|reason| reason.is_failure()).count();
            let words = reasons.get(first).copied().and_then(words).unwrap_or("refused");
            format!("{refused} of {} refused; number {}: {words}", reasons.len(), first + 1)
        });
        let version = self.identity.version;
        self.append_explained(why.as_deref(), |reason_string, out| {
            let reasons = reasons.clone();
            let user_properties = Vec::new();
            Suback { packet_id, reason_string, user_properties, reasons }.encode(out, version);
        });
    }

    /// Sends DISCONNECT with a Reason String if the code alone is not clear.
    pub(super) fn send_disconnect(&mut self, code: ReasonCode, reason: &CloseReason) {
        let why = match reason {
            CloseReason::ShuttingDown => None,
            _ => Some(reason.to_string()),
        };
        let version = self.identity.version;
        self.append_explained(why.as_deref(), |reason_string, out| {
            let disconnect = Disconnect {
                reason: code,
                session_expiry_seconds: None,
                reason_string,
                user_properties: Vec::new(),
                server_reference: None,
            };
            disconnect.encode(out, version);
        });
    }
}
