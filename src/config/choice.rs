//! Settings with a fixed set of values.

use serde::{Deserialize, Serialize};

use crate::broker::limits::DeniedPublish;
use crate::config::bridge::BridgeFile;
use crate::config::check::Checker;
use crate::config::setting::{Bound, Written, written};
use crate::durable::Durability;
use crate::durable::record::OverflowPolicy;

written! {
    Level: "choice",
    LogFormat: "choice",
    StoreKind: "choice",
    Durability: "choice",
    OverflowPolicy: "choice",
    DeniedPublish: "choice",
    ListenerTransport: "choice",
    ClientCertificate: "choice",
    UserNameFrom: "choice",
    TlsVersion: "choice",
}

/// Log levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nothing at all.
    Off,
    /// An operator must act.
    Error,
    /// Unexpected, but the broker went on.
    Warn,
    /// Start, stop, reload.
    #[default]
    Info,
    /// Client errors.
    Debug,
    /// Every packet.
    Trace,
}

/// Log formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One line of text for each event.
    #[default]
    Human,
    /// One JSON object for each event.
    Json,
}

/// Where the state is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// `RocksDB` in `data_dir`.
    #[default]
    RocksDb,
    /// Memory only: lost when the process ends.
    Memory,
}

/// What carries the MQTT bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ListenerTransport {
    /// MQTT directly.
    #[default]
    Mqtt,
    /// Over WebSocket.
    WebSocket,
}

/// Whether Clients present certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificate {
    /// Not requested.
    #[default]
    None,
    /// Requested, verified if presented.
    Optional,
    /// Required.
    Required,
}

/// Which name in a client certificate is the user name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum UserNameFrom {
    /// None: the user name in CONNECT applies.
    None,
    /// Common Name of the subject.
    #[default]
    Cn,
    /// First Subject Alternative Name.
    San,
}

/// Oldest TLS version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Deserialize, Serialize)]
pub enum TlsVersion {
    /// TLS 1.2
    #[default]
    #[serde(rename = "1.2")]
    V1_2,
    /// TLS 1.3
    #[serde(rename = "1.3")]
    V1_3,
}

/// Bridges check their own bounds.
impl Bound for BridgeFile {
    fn check_bounds(&self, _path: &str, _checker: &mut Checker<'_>) {}
}
