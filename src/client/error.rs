//! Errors of the clients, with an exit code for each kind.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::dial::error::{DialError, TlsFailure, WaysOut};

const WAYS_OUT: WaysOut = WaysOut {
    authorities: "check --cafile",
    name: "connect by that name (-h), or use --insecure",
    certificate: "does it want a client certificate (--cert and --key)?",
    local_address: "",
};

/// Why a client command failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The options contradict each other, or request something impossible.
    #[error("{0}")]
    Usage(String),
    /// A file cannot be read.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Standard input cannot be read.
    #[error("standard input: {0}")]
    Input(#[source] io::Error),
    /// Standard output cannot be written.
    #[error("standard output: {0}")]
    Output(#[source] io::Error),
    /// A payload that fits in no packet.
    #[error("the payload has {bytes} bytes; a packet carries at most 268435455")]
    PayloadTooLong {
        /// Its length, or how much of it was read.
        bytes: u64,
    },
    /// The runtime or its signals cannot be set up.
    #[error("the client cannot be started: {0}")]
    Runtime(#[source] io::Error),
    /// There is no connection to the broker.
    #[error("no connection to {address}: {reason}")]
    Connect {
        /// Where the broker should be.
        address: String,
        /// Why.
        reason: String,
    },
    /// The TLS handshake failed.
    #[error("no TLS connection to {address}: {}", failure.with(&WAYS_OUT))]
    Tls {
        /// Where the broker should be.
        address: String,
        /// Why.
        failure: TlsFailure,
    },
    /// A certificate or key cannot be used.
    #[error("{}", .0.with(&WAYS_OUT))]
    Dial(DialError),
    /// The broker refused the connection in CONNACK.
    #[error("{address} refused the connection: {reason}")]
    Refused {
        /// The broker.
        address: String,
        /// Its reason.
        reason: String,
    },
    /// The connection was lost.
    #[error("the connection to {address} is lost: {reason}")]
    Lost {
        /// The broker.
        address: String,
        /// Why.
        reason: String,
    },
    /// The broker rejected a message, a subscription, or said DISCONNECT.
    #[error("{0}")]
    Rejected(String),
    /// The time of `-W` is over.
    #[error("nothing more after {} s, as -W says", .0.as_secs_f64())]
    TimedOut(Duration),
    /// A signal came before all was done.
    #[error("interrupted before everything was acknowledged")]
    Interrupted,
    /// Nobody answered the request of `petrel request`.
    #[error("no response within {} s", .0.as_secs_f64())]
    NoResponse(Duration),
}

impl ClientError {
    /// The exit code of the process; `--help` lists them.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::File { .. }
            | Self::Input(_)
            | Self::Output(_)
            | Self::PayloadTooLong { .. }
            | Self::Runtime(_) => 1,
            Self::Usage(_) => 2,
            Self::Connect { .. } | Self::Lost { .. } => 3,
            Self::Tls { .. } | Self::Dial(_) => 4,
            Self::Refused { .. } => 5,
            Self::Rejected(_) => 6,
            // As shells report SIGINT.
            Self::Interrupted => 130,
            // As the mosquitto tools.
            Self::TimedOut(_) | Self::NoResponse(_) => 27,
        }
    }

    /// Whether a later retry may succeed.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::Lost { .. })
    }
}
