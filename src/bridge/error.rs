//! Errors of connection attempts and links, in words that an operator can act on.

use std::io;

use crate::dial::error::{DialError, WaysOut};
use crate::packet::ProtocolVersion;
use crate::packet::reason_code::ReasonCode;

const WAYS_OUT: WaysOut = WaysOut {
    authorities: "check tls.ca_file",
    name: "check the address or set tls.server_name",
    certificate: "does it want a client certificate (tls.certificate and tls.key)?",
    local_address: "check bind_address",
};

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    /// The connection could not be established.
    #[error("{}", .0.with(&WAYS_OUT))]
    Dial(#[from] DialError),
    /// A user name or password file cannot be read.
    #[error("cannot read {path}: {source}")]
    Credentials {
        /// The file.
        path: String,
        /// The error of the operating system.
        source: io::Error,
    },
    /// `connect_timeout` passed.
    #[error("no connection within connect_timeout: {stage} did not finish")]
    TimedOut {
        /// How far the attempt got.
        stage: &'static str,
    },
    /// The remote broker refused the connection in CONNACK.
    #[error(
        "the remote broker refused the connection: {}{}{}",
        reason_in_words(*reason),
        cure(*reason, *protocol),
        with_text(text)
    )]
    Refused {
        /// Its reason.
        reason: ReasonCode,
        /// Its Reason String.
        text: String,
        /// The protocol version.
        protocol: ProtocolVersion,
    },
    /// The remote broker closed the connection.
    #[error("the remote broker closed the connection{0}")]
    RemoteClosed(&'static str),
    /// The connection was lost.
    #[error("the connection to the remote broker was lost: {0}")]
    RemoteIo(io::Error),
    /// The remote broker sent DISCONNECT.
    #[error("the remote broker disconnected: {}{}", reason_in_words(*reason), with_text(text))]
    RemoteDisconnect {
        /// Its reason.
        reason: ReasonCode,
        /// Its Reason String.
        text: String,
    },
    /// No answer in time.
    #[error("the remote broker did not answer {0} within response_timeout")]
    RemoteSilent(&'static str),
    /// Malformed bytes.
    #[error("the remote broker sent invalid MQTT: {0}")]
    RemoteMalformed(String),
    /// A packet that is not allowed.
    #[error("the remote broker violated the protocol: {0}")]
    RemoteViolation(&'static str),
    /// The remote broker cannot accept more at present; the message stays and is sent again.
    #[error("the remote broker temporarily refused a message: {}", reason_in_words(*.0))]
    RemoteBusy(ReasonCode),
    /// The local broker ended the Session's connection.
    #[error("the local broker closed the bridge's session")]
    LocalClosed,
    /// The local broker refused the Session.
    #[error("the local broker refused the bridge's session: {}", reason_in_words(*.0))]
    LocalRefused(ReasonCode),
    /// The local broker cannot accept more at present; the message stays at the remote broker, which sends it again.
    #[error("the local broker temporarily refused a message: {}", reason_in_words(*.0))]
    LocalBusy(ReasonCode),
    /// The local side of the bridge failed.
    #[error("the local session failed: {0}")]
    Local(String),
    /// No error: the link was closed on request.
    #[error("{0}")]
    Asked(&'static str),
}

impl LinkError {
    /// Whether the remote broker may reject the bridge bit of the protocol level: it refused the version, or closed
    /// the connection instead of sending CONNACK.
    #[must_use]
    pub(crate) fn may_be_the_bridge_bit(&self) -> bool {
        match self {
            Self::Refused { reason, .. } => *reason == ReasonCode::UnsupportedProtocolVersion,
            Self::RemoteClosed(stage) => !stage.is_empty(),
            Self::RemoteIo(error) => error.kind() == io::ErrorKind::ConnectionReset,
            _ => false,
        }
    }

    /// Whether the remote broker may reject the Will Message: it refused authorization, or closed the connection
    /// instead of sending CONNACK.
    #[must_use]
    pub(crate) fn may_be_the_will(&self) -> bool {
        match self {
            Self::Refused { reason, .. } => matches!(
                reason,
                ReasonCode::NotAuthorized
                    | ReasonCode::TopicNameInvalid
                    | ReasonCode::RetainNotSupported
                    | ReasonCode::QoSNotSupported
                    | ReasonCode::ProtocolError
                    | ReasonCode::ImplementationSpecificError
                    | ReasonCode::UnspecifiedError
            ),
            Self::RemoteClosed(_) => true,
            Self::RemoteIo(error) => error.kind() == io::ErrorKind::ConnectionReset,
            _ => false,
        }
    }

    /// Whether the remote broker ended the connection.
    #[must_use]
    pub(crate) fn is_the_remote_end(&self) -> bool {
        matches!(self, Self::RemoteClosed(_) | Self::RemoteIo(_) | Self::RemoteDisconnect { .. })
    }
}

/// A Reason Code as a phrase, with a hint if there is one.
#[must_use]
pub(crate) fn reason_in_words(reason: ReasonCode) -> String {
    let words = match reason {
        ReasonCode::UnsupportedProtocolVersion => "it does not support this protocol version",
        ReasonCode::ClientIdentifierNotValid => "it does not accept the client id; set client_id",
        ReasonCode::BadUserNameOrPassword => "bad user name or password",
        ReasonCode::NotAuthorized => "not authorized",
        ReasonCode::SessionTakenOver => "another client uses the same client id",
        ReasonCode::ServerUnavailable => "server unavailable",
        ReasonCode::ServerBusy => "server busy",
        ReasonCode::ServerShuttingDown => "server shutting down",
        ReasonCode::Success => "normal disconnection",
        other => return format!("{other:?} (0x{:02X})", other as u8),
    };
    words.to_owned()
}

fn cure(reason: ReasonCode, protocol: ProtocolVersion) -> &'static str {
    match (reason, protocol) {
        (ReasonCode::UnsupportedProtocolVersion, ProtocolVersion::V5_0) => {
            "; try protocol = \"3.1.1\""
        }
        (_, _) => "",
    }
}

fn with_text(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(" (\"{}\")", text.escape_debug()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_to_do() {
        let refused = LinkError::Refused {
            reason: ReasonCode::UnsupportedProtocolVersion,
            text: "no\nthanks".to_owned(),
            protocol: ProtocolVersion::V5_0,
        };
        assert_eq!(
            refused.to_string(),
            "the remote broker refused the connection: it does not support this protocol version; \
             try protocol = \"3.1.1\" (\"no\\nthanks\")"
        );
        assert!(refused.may_be_the_bridge_bit());
        let odd = LinkError::RemoteBusy(ReasonCode::QuotaExceeded);
        assert!(odd.to_string().ends_with("QuotaExceeded (0x97)"));
    }
}
