//! Why a measurement cannot be made.

use std::io;
use std::path::PathBuf;

/// Why a measurement cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// Options that contradict each other, or a value out of range.
    #[error("{0}")]
    Options(String),
    /// A runtime or thread cannot be started.
    #[error("cannot start the generator")]
    Runtime(#[source] io::Error),
    /// The scenario panicked.
    #[error("the scenario ended in a panic, which is a bug of the generator")]
    ControlPanicked,
    /// A client panicked or was cancelled.
    #[error("a client of the generator ended early")]
    ClientEnded(#[from] tokio::task::JoinError),
    /// The name of the broker does not resolve.
    #[error("cannot resolve {host}")]
    Resolve {
        /// As given.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// No TCP connection.
    #[error("cannot connect to {address}")]
    Connect {
        /// The broker.
        address: std::net::SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A file with certificates or a key cannot be used.
    #[error("cannot use {path}: {reason}", path = path.display())]
    TlsFile {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// TLS cannot be configured.
    #[error("cannot set TLS up")]
    Tls(#[from] rustls::Error),
    /// The TLS handshake failed.
    #[error("TLS handshake failed")]
    TlsHandshake(#[source] io::Error),
    /// The WebSocket handshake failed.
    #[error("WebSocket handshake failed")]
    WebSocket(#[from] Box<tungstenite::Error>),
    /// The broker closed a connection, or it broke.
    #[error("connection lost while {during}")]
    Lost {
        /// What was going on.
        during: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The broker did not answer in time.
    #[error("no answer from the broker within {seconds} s while {during}")]
    Timeout {
        /// What was going on.
        during: &'static str,
        /// How long.
        seconds: u64,
    },
    /// The broker refused a CONNECT.
    #[error("the broker refused the connection with code {code:#04x}")]
    Refused {
        /// Connect Return code or Reason Code.
        code: u8,
    },
    /// The broker refused a Topic Filter.
    #[error("the broker refused a subscription with code {code:#04x}")]
    SubscriptionRefused {
        /// Return code or Reason Code.
        code: u8,
    },
    /// The broker sent what MQTT does not allow here.
    #[error("unexpected answer from the broker: {0}")]
    Protocol(&'static str),
    /// `/proc/PID` cannot be read.
    #[error("cannot read figures of process {pid}")]
    Process {
        /// Which.
        pid: u32,
        /// Why.
        source: io::Error,
    },
    /// The histogram refused its bounds or a value.
    #[error("histogram: {0}")]
    Histogram(String),
    /// The report cannot be serialised.
    #[error("cannot write the report")]
    Json(#[from] serde_json::Error),
    /// Standard output is closed.
    #[error("cannot write the report")]
    Output(#[source] io::Error),
}
