//! The configuration file as it is written: one struct for each section, one field for each key, and every default.
//!
//! Nothing is checked here beyond the type of each value; `check` turns a [`File`] into
//! [`Settings`](crate::config::settings::Settings). An empty text stands for "none". `config/petrel.toml` explains every
//! key; a test keeps it equal to the defaults below.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::bridge::BridgeFile;
use crate::config::value::{FileMode, Period, Size, Switch};
use crate::durable::Durability;

/// The whole file.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct File {
    /// Directory of the store.
    pub data_dir: String,
    /// `[log]`
    pub log: Log,
    /// `[runtime]`
    pub runtime: Runtime,
    /// `[persistence]`
    pub persistence: Persistence,
    /// `[protocol]`
    pub protocol: Protocol,
    /// `[limits]`
    pub limits: Limits,
    /// `[shutdown]`
    pub shutdown: Shutdown,
    /// `[http]`
    pub http: Http,
    /// `[sys]`
    pub sys: Sys,
    /// `[control]`
    pub control: Control,
    /// `[auth]`
    pub auth: Auth,
    /// `[[listener]]`
    pub listener: Vec<Listener>,
    /// `[[overflow]]`
    pub overflow: Vec<Overflow>,
    /// `[[bridge]]`
    pub bridge: Vec<BridgeFile>,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Level of everything not named in `modules`.
    pub level: Level,
    /// For people or for machines.
    pub format: LogFormat,
    /// Levels of single modules.
    pub modules: BTreeMap<String, Level>,
}

/// Log levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nothing at all.
    Off,
    /// An operator must act.
    Error,
    /// Unexpected, the broker went on.
    Warn,
    /// Start, stop, reload.
    #[default]
    Info,
    /// What Clients do wrong.
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

/// `[runtime]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Runtime {
    /// Worker threads; 0: one for each core.
    pub worker_threads: u64,
}

/// `[persistence]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Persistence {
    /// What keeps the state.
    pub store: StoreKind,
    /// When a message counts as safe.
    pub durability: Durability,
    /// RAM for what is read from disk.
    pub block_cache: Size,
    /// RAM for what was written and is not yet in a file of its own.
    pub write_buffer: Size,
    /// Free disk space that the store leaves alone.
    pub min_free_disk: Size,
    /// The longest time that a stop of the broker may count for.
    pub max_downtime: Period,
    /// `[[persistence.topic]]`
    pub topic: Vec<TopicDurability>,
}

/// What keeps the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// `RocksDB` in `data_dir`.
    #[default]
    RocksDb,
    /// Memory only: lost with the process.
    Memory,
}

/// `[[persistence.topic]]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TopicDurability {
    /// Topic Filter of the messages meant.
    pub filter: String,
    /// Their durability.
    pub durability: Durability,
}

/// `[protocol]`: what the broker offers to Clients.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Protocol {
    /// Highest QoS that Clients may publish with.
    pub max_qos: u64,
    /// Retained Messages are kept.
    pub retain_available: bool,
    /// Filters with wildcards are accepted.
    pub wildcard_subscriptions: bool,
    /// Shared Subscriptions are accepted.
    pub shared_subscriptions: bool,
    /// Subscription Identifiers are accepted.
    pub subscription_identifiers: bool,
    /// Payloads marked as UTF-8 are checked.
    pub check_payload_format: bool,
    /// An empty Client Identifier is replaced by an assigned one.
    pub allow_empty_client_id: bool,
    /// Beginning of assigned Client Identifiers.
    pub client_id_prefix: String,
    /// Response Information for Clients that ask for it; empty: none.
    pub response_information: String,
    /// Keep Alive imposed on Clients of MQTT 5.0; `0s`: the Client's own.
    pub server_keep_alive: Period,
    /// Longest Keep Alive; `0s`: no limit.
    pub max_keep_alive: Period,
    /// Longest Session Expiry Interval; `0s`: no limit.
    pub session_expiry_max: Period,
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Network Connections at a time; 0: as many as the system allows.
    pub max_connections: u64,
    /// From accepting a Network Connection to the end of its CONNECT.
    pub connect_timeout: Period,
    /// Maximum Packet Size that the broker takes.
    pub max_packet_size: Size,
    /// Receive Maximum that the broker announces.
    pub receive_maximum: u64,
    /// QoS 1 and 2 messages in flight towards one Client.
    pub max_inflight: u64,
    /// Topic Aliases that Clients may use.
    pub topic_alias_maximum: u64,
    /// Topic Aliases that the broker uses towards one Client.
    pub topic_alias_maximum_out: u64,
    /// Longest Client Identifier.
    pub max_client_id_bytes: u64,
    /// Longest Topic Name and Topic Filter.
    pub max_topic_bytes: u64,
    /// Most levels of a Topic Name and Topic Filter.
    pub max_topic_levels: u64,
    /// Subscriptions of one Session.
    pub max_subscriptions_per_session: u64,
    /// Bytes waiting to be written to one Client; QoS 0 beyond them is dropped.
    pub outbox_size: Size,
    /// Queued messages of one Session.
    pub queue_messages: u64,
    /// Queued bytes of one Session.
    pub queue_size: Size,
    /// How long a publisher waits for room under the policy `backpressure`.
    pub backpressure_wait: Period,
    /// Queued bytes of all Sessions together.
    pub total_queue_size: Size,
    /// Bytes on their way to the disk beyond which publishers wait.
    pub max_pending_size: Size,
    /// Retained Messages.
    pub retained_messages: u64,
    /// Bytes of Retained Messages.
    pub retained_size: Size,
}

/// `[[overflow]]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Overflow {
    /// Topic Filter of the messages meant.
    pub filter: String,
    /// What happens at the limit.
    pub policy: OverflowPolicy,
    /// Messages at which it happens; 0: as `limits.queue_messages`.
    pub messages: u64,
    /// Bytes at which it happens; 0: as `limits.queue_size`.
    pub bytes: Size,
}

/// What happens when a queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OverflowPolicy {
    /// Goes on in the store until the session's own limit, then as `Reject`.
    #[default]
    Spill,
    /// The publisher is not read until there is room, for a bounded time, then as `Reject`.
    Backpressure,
    /// The publisher is told Quota exceeded (MQTT 5.0) or slowed (3.x).
    Reject,
    /// The oldest queued message is dropped and counted.
    DropOldest,
    /// The new message is dropped and counted.
    DropNewest,
}

/// `[shutdown]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shutdown {
    /// Time to say goodbye and to flush.
    pub grace: Period,
}

/// `[http]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Where `/metrics`, `/live` and `/ready` are served; empty: nowhere.
    pub listen: String,
    /// Other machines may reach it.
    pub allow_remote: bool,
}

/// `[sys]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sys {
    /// How often the `$SYS` topics are published; `0s`: never.
    pub interval: Period,
}

/// `[control]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Control {
    /// Unix socket of `petrel ctl`, relative to `data_dir`; empty: none.
    pub socket: String,
}

/// `[auth]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// File made by `petrel passwd`; empty: none.
    pub users_file: String,
}

/// `[[listener]]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listener {
    /// Its name in logs and metrics; empty: its address.
    pub name: String,
    /// `address:port` or `unix:path`.
    pub listen: String,
    /// What carries the MQTT bytes.
    pub transport: ListenerTransport,
    /// Path of the WebSocket request.
    pub path: String,
    /// Allowed Origin values of WebSocket requests; empty: every one.
    pub origins: Vec<String>,
    /// File mode of a Unix socket.
    pub unix_mode: FileMode,
    /// A PROXY protocol header is required first.
    pub proxy_protocol: bool,
    /// Network Connections at a time; 0: as `limits.max_connections`.
    pub max_connections: u64,
    /// Clients without credentials are let in.
    pub allow_anonymous: Switch,
    /// Prefix of every topic of its Clients.
    pub mount_point: String,
    /// Tighter Maximum Packet Size; 0: as `limits.max_packet_size`.
    pub max_packet_size: Size,
    /// Tighter limit of Keep Alive; `0s`: as `protocol.max_keep_alive`.
    pub max_keep_alive: Period,
    /// `[listener.tls]`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

/// What carries the MQTT bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ListenerTransport {
    /// MQTT directly.
    #[default]
    Mqtt,
    /// Inside WebSocket.
    WebSocket,
}

/// `[listener.tls]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// Certificate chain, PEM.
    pub certificate: String,
    /// Private key, PEM.
    pub key: String,
    /// Authorities of client certificates, PEM.
    pub client_ca: String,
    /// Whether Clients present a certificate.
    pub client_certificate: TlsClientCertificate,
    /// Where the user name is taken from.
    pub user_name_from: UserNameFrom,
    /// Oldest version.
    pub min_version: TlsMinVersion,
}

/// Whether Clients present a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsClientCertificate {
    /// Not asked for.
    #[default]
    None,
    /// Checked when presented.
    Optional,
    /// Required.
    Required,
}

/// Which name in a client certificate is the user name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum UserNameFrom {
    /// None: CONNECT's user name counts.
    None,
    /// Common Name of the subject.
    #[default]
    Cn,
    /// First Subject Alternative Name.
    San,
}

/// Oldest TLS version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
pub enum TlsMinVersion {
    /// TLS 1.2
    #[default]
    #[serde(rename = "1.2")]
    V1_2,
    /// TLS 1.3
    #[serde(rename = "1.3")]
    V1_3,
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

const fn seconds(count: u64) -> Period {
    Period(Duration::from_secs(count))
}

impl Default for File {
    fn default() -> Self {
        Self {
            data_dir: "./data".into(),
            log: Log::default(),
            runtime: Runtime::default(),
            persistence: Persistence::default(),
            protocol: Protocol::default(),
            limits: Limits::default(),
            shutdown: Shutdown::default(),
            http: Http::default(),
            sys: Sys::default(),
            control: Control::default(),
            auth: Auth::default(),
            listener: Vec::new(),
            overflow: Vec::new(),
            bridge: Vec::new(),
        }
    }
}

impl Default for Persistence {
    fn default() -> Self {
        Self {
            store: StoreKind::default(),
            durability: Durability::default(),
            block_cache: Size(32 * MIB),
            write_buffer: Size(64 * MIB),
            min_free_disk: Size(16 * MIB),
            max_downtime: seconds(30 * 24 * 3600),
            topic: Vec::new(),
        }
    }
}

impl Default for Protocol {
    fn default() -> Self {
        Self {
            max_qos: 2,
            retain_available: true,
            wildcard_subscriptions: true,
            shared_subscriptions: true,
            subscription_identifiers: true,
            check_payload_format: false,
            allow_empty_client_id: true,
            client_id_prefix: "petrel-".into(),
            response_information: String::new(),
            server_keep_alive: Period::default(),
            max_keep_alive: Period::default(),
            session_expiry_max: Period::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 0,
            connect_timeout: seconds(10),
            max_packet_size: Size(16 * MIB),
            receive_maximum: 1024,
            max_inflight: 1024,
            topic_alias_maximum: 64,
            topic_alias_maximum_out: 64,
            max_client_id_bytes: 65_535,
            max_topic_bytes: 65_535,
            max_topic_levels: 256,
            max_subscriptions_per_session: 1_000_000,
            outbox_size: Size(256 * KIB),
            queue_messages: 10_000_000,
            queue_size: Size(8 * GIB),
            backpressure_wait: seconds(10),
            total_queue_size: Size(64 * GIB),
            max_pending_size: Size(64 * MIB),
            retained_messages: 10_000_000,
            retained_size: Size(2 * GIB),
        }
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { grace: seconds(10) }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self { listen: "127.0.0.1:9883".into(), allow_remote: false }
    }
}

impl Default for Sys {
    fn default() -> Self {
        Self { interval: seconds(10) }
    }
}

impl Default for Control {
    fn default() -> Self {
        Self { socket: "petrel.sock".into() }
    }
}

impl Default for Listener {
    fn default() -> Self {
        Self {
            name: String::new(),
            listen: "127.0.0.1:1883".into(),
            transport: ListenerTransport::default(),
            path: "/mqtt".into(),
            origins: Vec::new(),
            unix_mode: FileMode(0o660),
            proxy_protocol: false,
            max_connections: 0,
            allow_anonymous: Switch::Auto,
            mount_point: String::new(),
            max_packet_size: Size(0),
            max_keep_alive: Period::default(),
            tls: None,
        }
    }
}
