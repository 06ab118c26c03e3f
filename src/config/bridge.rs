//! The configuration of a bridge: as written in `[[bridge]]`, and as checked.
//!
//! [`BridgeFile`] has every key with its default; an empty text stands for "none". [`BridgeSettings::check`] turns it
//! into values in range.

pub(crate) mod check;
pub(crate) mod rule;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::bridge::rule::RuleSet;
use crate::config::value::{Period, Size};
use crate::dial::address::Address;
use crate::dial::tls::{RemoteTls, Verify};
use crate::durable::record::OverflowPolicy;
use crate::packet::ProtocolVersion;

/// One `[[bridge]]` as written.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct BridgeFile {
    /// Name of the bridge in logs, metrics and commands, and of its durable queue.
    pub(crate) name: String,
    /// Addresses of the remote broker, tried in order.
    pub(crate) addresses: Vec<String>,
    /// Topic rules in mosquitto's syntax.
    pub(crate) topics: Vec<String>,
    /// Local names that do not cross: `filter [out|in|both]`.
    pub(crate) exclude: Vec<String>,
    /// `"5.0"`, `"3.1.1"` or `"3.1"`.
    pub(crate) protocol: String,
    /// Client Identifier at the remote broker; empty: `name.hostname`.
    pub(crate) client_id: String,
    /// Start a new Session at the remote broker at each connection.
    pub(crate) clean_start: bool,
    /// Drop the messages queued for the remote broker whenever the connection to it ends.
    pub(crate) local_clean_start: bool,
    /// How long the remote broker keeps the Session (5.0): a duration or `"never"`.
    pub(crate) session_expiry: String,
    /// Keep Alive towards the remote broker.
    pub(crate) keep_alive: Period,
    /// User name.
    pub(crate) username: String,
    /// File with the user name, read at each attempt.
    pub(crate) username_file: String,
    /// Password. Better in a file.
    #[serde(serialize_with = "hide")]
    pub(crate) password: String,
    /// File with the password, read at each attempt.
    pub password_file: String,
    /// Local IP address to connect from.
    pub(crate) bind_address: String,
    /// Simultaneous connections; topics are spread over them.
    pub(crate) connections: u16,
    /// Treat all addresses as equal instead of returning to the first.
    pub(crate) round_robin: bool,
    /// How often the first address is tried while another one is in use.
    pub(crate) primary_retry: Period,
    /// `automatic`, `lazy`, `once` or `manual`.
    pub(crate) start: StartType,
    /// Messages that must be queued before a lazy bridge connects.
    pub(crate) lazy_threshold: u64,
    /// How long a lazy bridge stays connected without traffic.
    pub(crate) idle_timeout: Period,
    /// First pause after a failed attempt.
    pub(crate) backoff_min: Period,
    /// Longest pause.
    pub(crate) backoff_max: Period,
    /// How long a connection must last for the pauses to start over.
    pub(crate) stable_after: Period,
    /// Limit for name look-up, connect, TLS, WebSocket and CONNACK together.
    pub(crate) connect_timeout: Period,
    /// How long the remote broker may take to answer a packet: CONNECT, SUBSCRIBE, PUBREL, PINGREQ.
    pub(crate) response_timeout: Period,
    /// Messages in flight towards the remote broker on each connection; zero: see [`check::DEFAULT_WINDOW_3X`].
    pub(crate) max_inflight: u16,
    /// Messages in flight from the remote broker (5.0 Receive Maximum).
    pub(crate) receive_maximum: u16,
    /// Largest packet sent or accepted.
    pub(crate) max_packet: Size,
    /// Topic Aliases used in each direction (5.0).
    pub(crate) topic_alias_maximum: u16,
    /// Messages per second to the remote broker; zero: no limit.
    pub(crate) rate_messages: u64,
    /// Bytes per second to the remote broker; zero: no limit.
    pub(crate) rate_bytes: Size,
    /// Whether to publish the state of the connection.
    pub(crate) notifications: bool,
    /// Publish the state only locally.
    pub(crate) notifications_local_only: bool,
    /// Topic of the state; empty: `$SYS/broker/connection/<client id>/state`.
    pub(crate) notification_topic: String,
    /// Tell a 3.x remote that this is a bridge (mosquitto's bit in the protocol level).
    pub(crate) private: bool,
    /// Pass on the RETAIN flag to the remote broker.
    pub(crate) outgoing_retain: bool,
    /// Remove Subscriptions that an older configuration may have left at the remote broker.
    pub(crate) unsubscribe: bool,
    /// Brokers that a message may pass (5.0); zero: they are not recorded or checked.
    pub(crate) hop_limit: u16,
    /// How long outgoing messages of 3.x links are remembered, to drop identical incoming ones; zero: not at all.
    pub(crate) echo_window: Period,
    /// TLS for `mqtts` and `wss` addresses.
    pub tls: BridgeTlsFile,
    /// The queue of messages for the remote broker.
    pub(crate) queue: BridgeQueueFile,
}

/// `[bridge.tls]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct BridgeTlsFile {
    /// Authorities, PEM; empty together with `ca_dir`: those of the system.
    pub(crate) ca_file: String,
    /// Directory of authorities, PEM.
    pub(crate) ca_dir: String,
    /// Certificate chain of this bridge, PEM.
    pub(crate) certificate: String,
    /// Its private key, PEM.
    pub key: String,
    /// Protocols offered by ALPN.
    pub(crate) alpn: Vec<String>,
    /// Name expected in the certificate and sent as SNI; empty: the host of the address.
    pub(crate) server_name: String,
    /// What is checked of the remote certificate.
    pub(crate) verify: Verify,
    /// Oldest TLS version: `"1.2"` or `"1.3"`.
    pub(crate) min_version: String,
}

/// `[bridge.queue]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct BridgeQueueFile {
    /// Messages; zero: the limit of the broker.
    pub(crate) max_messages: u64,
    /// Bytes; zero: the limit of the broker.
    pub(crate) max_bytes: Size,
    /// What happens at the limit; empty: the broker's default.
    pub(crate) overflow: String,
    /// Queue QoS 0 messages, too, while the remote broker is unreachable; those with RETAIN are always queued.
    pub(crate) store_qos0: bool,
}

/// When a bridge connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StartType {
    /// At start, and again after each failure.
    #[default]
    Automatic,
    /// When enough messages are queued; disconnects when idle.
    Lazy,
    /// At startup, never again.
    Once,
    /// Only on command.
    Manual,
}

/// A checked bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
// Each field is documented where it is written, in BridgeFile.
#[expect(clippy::struct_excessive_bools, reason = "independent switches of the configuration")]
pub struct BridgeSettings {
    pub(crate) name: String,
    pub(crate) addresses: Vec<Address>,
    pub(crate) rules: RuleSet,
    pub(crate) protocol: ProtocolVersion,
    pub(crate) client_id: String,
    pub(crate) clean_start: bool,
    pub(crate) local_clean_start: bool,
    pub(crate) session_expiry_seconds: u32,
    pub(crate) keep_alive: Duration,
    pub(crate) username: Option<Secret>,
    pub(crate) password: Option<Secret>,
    pub(crate) bind_address: Option<IpAddr>,
    pub(crate) connections: usize,
    pub(crate) round_robin: bool,
    pub(crate) primary_retry: Duration,
    pub(crate) start: StartType,
    pub(crate) lazy_threshold: u64,
    pub(crate) idle_timeout: Duration,
    pub(crate) backoff_min: Duration,
    pub(crate) backoff_max: Duration,
    pub(crate) stable_after: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) response_timeout: Duration,
    pub(crate) max_inflight: u16,
    pub(crate) receive_maximum: u16,
    pub(crate) max_packet_bytes: u32,
    pub(crate) topic_alias_maximum: u16,
    pub(crate) rate_messages: u64,
    pub(crate) rate_bytes: u64,
    pub(crate) notifications: bool,
    pub(crate) notifications_local_only: bool,
    pub(crate) notification_topic: String,
    pub(crate) private: bool,
    pub(crate) outgoing_retain: bool,
    pub(crate) unsubscribe: bool,
    pub(crate) hop_limit: u16,
    pub(crate) echo_window: Duration,
    pub(crate) tls: RemoteTls,
    pub(crate) queue: QueueLimits,
}

/// A user name or password, or the file that holds it. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Secret {
    /// As configured.
    Text(String),
    /// In a file, read at each attempt, without a trailing line break.
    File(PathBuf),
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(_) => out.write_str("Text(..)"),
            Self::File(path) => write!(out, "File({})", path.display()),
        }
    }
}

/// Limits of the queue of a bridge in the local broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct QueueLimits {
    /// Messages; `None` leaves it to the broker.
    pub(crate) max_messages: Option<u64>,
    /// Bytes; `None` leaves it to the broker.
    pub(crate) max_bytes: Option<u64>,
    /// What happens at the limit; `None` leaves it to the broker.
    pub(crate) overflow: Option<OverflowPolicy>,
    /// Keep QoS 0 messages, too.
    pub(crate) store_qos0: bool,
}

/// A mistake in `[[bridge]]`: which bridge, which key, what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bridge \"{bridge}\": {key}: {problem}")]
pub struct BridgeError {
    /// Name of the bridge, possibly empty.
    pub(crate) bridge: String,
    /// The key, for instance `topics[2]`.
    pub(crate) key: String,
    /// What is wrong, and how to fix it.
    pub(crate) problem: String,
}

impl Default for BridgeFile {
    fn default() -> Self {
        let seconds = |seconds| Period(Duration::from_secs(seconds));
        Self {
            name: String::new(),
            addresses: Vec::new(),
            topics: Vec::new(),
            exclude: Vec::new(),
            protocol: "5.0".to_owned(),
            client_id: String::new(),
            clean_start: false,
            local_clean_start: false,
            session_expiry: "never".to_owned(),
            keep_alive: seconds(60),
            username: String::new(),
            username_file: String::new(),
            password: String::new(),
            password_file: String::new(),
            bind_address: String::new(),
            connections: 1,
            round_robin: false,
            primary_retry: seconds(30),
            start: StartType::Automatic,
            lazy_threshold: 10,
            idle_timeout: seconds(60),
            backoff_min: seconds(1),
            backoff_max: seconds(30),
            stable_after: seconds(30),
            connect_timeout: seconds(20),
            response_timeout: seconds(10),
            max_inflight: 0,
            receive_maximum: 1000,
            max_packet: Size(0),
            topic_alias_maximum: 32,
            rate_messages: 0,
            rate_bytes: Size(0),
            notifications: true,
            notifications_local_only: false,
            notification_topic: String::new(),
            private: true,
            outgoing_retain: true,
            unsubscribe: true,
            hop_limit: 16,
            echo_window: seconds(0),
            tls: BridgeTlsFile::default(),
            queue: BridgeQueueFile::default(),
        }
    }
}

impl Default for BridgeQueueFile {
    fn default() -> Self {
        Self { max_messages: 0, max_bytes: Size(0), overflow: String::new(), store_qos0: false }
    }
}

/// Hides a password, because the effective configuration can be printed.
fn hide<S: serde::Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(if text.is_empty() { "" } else { "(hidden)" })
}

impl BridgeSettings {
    /// How long the echo of a message sent over this bridge may take; zero if nothing is sent, if the link carries hop
    /// trails, or if echoes are not detected.
    #[must_use]
    pub(crate) fn outgoing_echo_window(&self) -> Duration {
        let goes_out = self.rules.rules.iter().any(|rule| rule.direction.is_out());
        match self.protocol < ProtocolVersion::V5_0 && goes_out {
            true => self.echo_window,
            false => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests;
