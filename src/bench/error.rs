//! Why a measurement cannot be made.

use std::io;

use crate::dial::error::{DialError, WaysOut};

const WAYS_OUT: WaysOut = WaysOut {
    authorities: "check --cafile",
    name: "give the name in the certificate as --host, or use --insecure",
    certificate: "does it want a client certificate (--cert and --key)?",
    local_address: "",
};

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
    #[error("the scenario panicked, which is a bug in the generator")]
    ControlPanicked,
    /// A client panicked or was cancelled.
    #[error("a client of the generator stopped early")]
    ClientEnded(#[from] tokio::task::JoinError),
    /// The connection to the broker could not be established.
    #[error("{}", .0.with(&WAYS_OUT))]
    Dial(#[from] DialError),
    /// The broker closed a connection, or it was lost.
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
    /// The broker violated the protocol.
    #[error("unexpected answer from the broker: {0}")]
    Protocol(&'static str),
    /// `/proc/PID` cannot be read.
    #[error("cannot read the statistics of process {pid}")]
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
