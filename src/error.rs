//! Why Network Connections end, and the only mapping from errors to the Reason Codes that Clients get.

use crate::packet::error::DecodeError;
use crate::packet::reason_code::ReasonCode;
use crate::session::violation::Violation;

/// Why a Network Connection ends.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CloseReason {
    /// The Client sent DISCONNECT.
    #[error("disconnected by the client")]
    ClientDisconnected,
    /// The Client's bytes are malformed.
    #[error("malformed: {0}")]
    Malformed(DecodeError),
    /// The Client broke a rule.
    #[error("violation: {0}")]
    Violation(Violation),
    /// Another Network Connection has taken over the Session. [MQTT-3.1.4-3]
    #[error("session taken over")]
    TakenOver,
    /// Nothing was received for one and a half Keep Alive periods. [MQTT-3.1.2-22]
    #[error("keep alive timeout")]
    KeepAliveTimeout,
    /// The Client does not read: nothing could be written for too long.
    #[error("the client did not read for too long")]
    WriteTimeout,
    /// A packet was begun but arrived too slowly, although the Keep Alive has not passed.
    #[error("a packet was not completed in time")]
    PacketTimeout,
    /// No CONNECT was received in time.
    #[error("no CONNECT in time")]
    ConnectTimeout,
    /// The broker is shutting down.
    #[error("the broker is shutting down")]
    ShuttingDown,
    /// CONNECT was refused.
    #[error("refused: {0:?}")]
    Refused(ReasonCode),
    /// Re-authentication failed.
    #[error("re-authentication failed: {0:?}")]
    AuthenticationFailed(ReasonCode),
    /// The store is not available for what the Client sent.
    #[error("the store is not available")]
    Unavailable,
    /// The user was removed, or has a new password.
    #[error("the credentials have changed")]
    CredentialsChanged,
    /// The Client published where it may not, its version has no way to say so, and a setting requires this.
    #[error("not authorized to publish to this topic")]
    PublishDenied,
}

/// The Reason Code of the DISCONNECT (or refusing CONNACK) for the end of a Network Connection; `None` if nothing is
/// sent.
#[must_use]
pub(crate) fn reason_code(reason: &CloseReason) -> Option<ReasonCode> {
    match reason {
        CloseReason::ClientDisconnected | CloseReason::ConnectTimeout => None,
        CloseReason::Malformed(error) => Some(decode_reason_code(error)),
        CloseReason::Violation(violation) => Some(violation_reason_code(*violation)),
        CloseReason::TakenOver => Some(ReasonCode::SessionTakenOver),
        CloseReason::KeepAliveTimeout | CloseReason::WriteTimeout => {
            Some(ReasonCode::KeepAliveTimeout)
        }
        CloseReason::PacketTimeout => Some(ReasonCode::ImplementationSpecificError),
        CloseReason::ShuttingDown => Some(ReasonCode::ServerShuttingDown),
        CloseReason::Refused(code) | CloseReason::AuthenticationFailed(code) => Some(*code),
        CloseReason::Unavailable => Some(ReasonCode::ImplementationSpecificError),
        CloseReason::CredentialsChanged | CloseReason::PublishDenied => {
            Some(ReasonCode::NotAuthorized)
        }
    }
}

/// The Reason Code for malformed bytes.
#[must_use]
pub(crate) fn decode_reason_code(error: &DecodeError) -> ReasonCode {
    error.kind().reason()
}

/// The Reason Code for a violation.
#[must_use]
pub(crate) fn violation_reason_code(violation: Violation) -> ReasonCode {
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
    }
}
