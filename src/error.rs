//! The one map from what went wrong to the Reason Code that a Client is told.

use crate::broker::connection::CloseReason;
use crate::packet::error::{DecodeError, DecodeErrorKind};
use crate::packet::reason_code::ReasonCode;
use crate::session::violation::Violation;

/// The Reason Code of the DISCONNECT (or refusing CONNACK) for the end of a Network Connection;
/// `None` where nothing is to be sent.
#[must_use]
pub fn reason_code(reason: &CloseReason) -> Option<ReasonCode> {
    match reason {
        CloseReason::ClientDisconnected | CloseReason::ConnectTimeout => None,
        CloseReason::Malformed(error) => Some(decode_reason_code(error)),
        CloseReason::Violation(violation) => Some(violation_reason_code(*violation)),
        CloseReason::TakenOver => Some(ReasonCode::SessionTakenOver),
        CloseReason::KeepAliveTimeout => Some(ReasonCode::KeepAliveTimeout),
        CloseReason::ShuttingDown => Some(ReasonCode::ServerShuttingDown),
        CloseReason::Refused(code) | CloseReason::AuthenticationFailed(code) => Some(*code),
        CloseReason::Unavailable => Some(ReasonCode::ImplementationSpecificError),
        CloseReason::Administrative => Some(ReasonCode::AdministrativeAction),
    }
}

/// The Reason Code for bytes that are not MQTT.
#[must_use]
pub fn decode_reason_code(error: &DecodeError) -> ReasonCode {
    match error.kind() {
        DecodeErrorKind::Malformed => ReasonCode::MalformedPacket,
        DecodeErrorKind::ProtocolError => ReasonCode::ProtocolError,
        DecodeErrorKind::PacketTooLarge => ReasonCode::PacketTooLarge,
        DecodeErrorKind::UnsupportedProtocolVersion => ReasonCode::UnsupportedProtocolVersion,
        DecodeErrorKind::TopicNameInvalid => ReasonCode::TopicNameInvalid,
    }
}

/// The Reason Code for a broken rule.
#[must_use]
pub fn violation_reason_code(violation: Violation) -> ReasonCode {
    match violation {
        Violation::NotConnect
        | Violation::SecondConnect
        | Violation::ServerPacket
        | Violation::UnexpectedAuth
        | Violation::OtherAuthenticationMethod
        | Violation::PacketDuringAuthentication
        | Violation::TopicAliasUnknown
        | Violation::SubscriptionIdFromClient
        | Violation::NoLocalOnShared
        | Violation::SessionExpiryRaised => ReasonCode::ProtocolError,
        Violation::ReceiveMaximumExceeded => ReasonCode::ReceiveMaximumExceeded,
        Violation::TopicAliasInvalid => ReasonCode::TopicAliasInvalid,
        Violation::QosNotSupported => ReasonCode::QoSNotSupported,
        Violation::RetainNotSupported => ReasonCode::RetainNotSupported,
        Violation::TopicNameInvalid => ReasonCode::TopicNameInvalid,
        Violation::PayloadFormatInvalid => ReasonCode::PayloadFormatInvalid,
        Violation::PacketIdInUse => ReasonCode::PacketIdentifierInUse,
    }
}
