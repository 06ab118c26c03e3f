//! The checked configuration: every value present, in range, and in the type its user wants.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::access::ListenerRules;
use crate::config::bridge::BridgeSettings;
use crate::config::check;
use crate::config::file::{File, Level, LogFormat, OverflowPolicy, StoreKind};
use crate::config::mistake::ConfigError;
use crate::config::source::Source;
use crate::durable::Durability;
use crate::packet::QoS;
use crate::topic::filter::TopicFilter;

/// Everything that `petrel serve` needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The values they were made from, as `petrel check --print` shows them.
    pub file: File,
    /// Directory of the store.
    pub data_dir: PathBuf,
    /// Logging.
    pub log: LogSettings,
    /// Worker threads of the runtime; `None`: one for each core.
    pub worker_threads: Option<usize>,
    /// The store.
    pub persistence: PersistenceSettings,
    /// What the core grants and bounds.
    pub limits: LimitSettings,
    /// Policies of full queues, the first matching filter counts.
    pub overflow: Vec<OverflowSettings>,
    /// Time to say goodbye and to flush.
    pub shutdown_grace: Duration,
    /// Where metrics and health are served.
    pub http_listen: Option<SocketAddr>,
    /// How often the `$SYS` topics are published.
    pub sys_interval: Option<Duration>,
    /// Unix socket of `petrel ctl`.
    pub control_socket: Option<PathBuf>,
    /// Users and their passwords.
    pub users_file: Option<PathBuf>,
    /// The listeners.
    pub listeners: Vec<ListenerSettings>,
    /// The bridges.
    pub bridges: Vec<BridgeSettings>,
}

impl Settings {
    /// Reads and checks the configuration file (`None`: the defaults) with these environment variables.
    ///
    /// # Errors
    /// [`ConfigError`] with every mistake found.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        Self::from_source(&Source::read(file, environment)?)
    }

    /// Checks a text that was read already.
    ///
    /// # Errors
    /// [`ConfigError::Mistakes`] with every mistake found.
    pub fn from_source(source: &Source) -> Result<Self, ConfigError> {
        check::check(source.parse()).map_err(ConfigError::Mistakes)
    }
}

/// Logging.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// Level of everything not named in `modules`.
    pub level: Level,
    /// Levels of single modules, by path (`petrel::net`).
    pub modules: BTreeMap<String, Level>,
    /// For people or for machines.
    pub format: LogFormat,
}

/// The store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PersistenceSettings {
    /// What keeps the state.
    pub store: StoreKind,
    /// When a message counts as safe. Always [`Durability::Memory`] with [`StoreKind::Memory`].
    pub durability: Durability,
    /// Other durabilities by Topic Filter, the first match counts.
    pub topics: Vec<(TopicFilter, Durability)>,
    /// RAM for what is read from disk.
    pub block_cache_bytes: usize,
    /// RAM for what was written and is not yet in a file of its own.
    pub write_buffer_bytes: usize,
    /// Below this free space nothing more is stored.
    pub min_free_disk_bytes: u64,
    /// A stop of the broker counts for at most this long: a wall clock that leapt must not expire everything.
    pub max_downtime: Duration,
}

/// What the core grants to Clients, and where it draws the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitSettings {
    /// Network Connections at a time; `usize::MAX`: as many as the system allows.
    pub max_connections: usize,
    /// From accepting a Network Connection to the end of its CONNECT.
    pub connect_timeout: Duration,
    /// Maximum Packet Size that the broker takes.
    pub max_packet_bytes: u32,
    /// Receive Maximum that the broker announces.
    pub receive_maximum: u16,
    /// QoS 1 and 2 messages in flight towards one Client; its own Receive Maximum may be lower.
    pub max_inflight: u16,
    /// Topic Aliases that Clients may use; 0: none.
    pub topic_alias_maximum: u16,
    /// Topic Aliases that the broker uses towards one Client; its own maximum may be lower.
    pub topic_alias_maximum_out: u16,
    /// Longest Client Identifier, in bytes.
    pub max_client_id_bytes: usize,
    /// Longest Topic Name and Topic Filter, in bytes.
    pub max_topic_bytes: usize,
    /// Most levels of a Topic Name and Topic Filter.
    pub max_topic_levels: usize,
    /// Subscriptions of one Session.
    pub max_subscriptions_per_session: usize,
    /// Bytes waiting to be written to one Client; QoS 0 beyond them is dropped.
    pub outbox_bytes: usize,
    /// Queued messages of one Session.
    pub queue_messages: u64,
    /// Queued bytes of one Session.
    pub queue_bytes: u64,
    /// How long [`OverflowPolicy::Backpressure`] waits before it rejects.
    pub backpressure_wait: Duration,
    /// Queued bytes of all Sessions together.
    pub total_queue_bytes: u64,
    /// Bytes on their way to the disk beyond which publishers are not read.
    pub max_pending_bytes: usize,
    /// Retained Messages.
    pub retained_messages: u64,
    /// Bytes of Retained Messages.
    pub retained_bytes: u64,
    /// Highest QoS that Clients may publish with. [MQTT-3.2.2-9]
    pub max_qos: QoS,
    /// Retained Messages are kept. [MQTT-3.2.2-14]
    pub retain_available: bool,
    /// Topic Filters with wildcards are accepted.
    pub wildcard_subscriptions: bool,
    /// Shared Subscriptions are accepted.
    pub shared_subscriptions: bool,
    /// Subscription Identifiers are accepted.
    pub subscription_identifiers: bool,
    /// Payloads marked as UTF-8 are checked; refused with 0x99.
    pub check_payload_format: bool,
    /// An empty Client Identifier is replaced by an assigned one.
    pub allow_empty_client_id: bool,
    /// Beginning of assigned Client Identifiers.
    pub client_id_prefix: String,
    /// Response Information for Clients that ask for it. [MQTT-3.1.2-28]
    pub response_information: Option<String>,
    /// Keep Alive imposed on Clients of MQTT 5.0, in seconds.
    pub server_keep_alive_seconds: Option<u16>,
    /// Longest Keep Alive, in seconds; MQTT 5.0 Clients are told, others are refused beyond it.
    pub max_keep_alive_seconds: Option<u16>,
    /// Longest Session Expiry Interval, in seconds; longer wishes are cut to it.
    pub session_expiry_max_seconds: Option<u32>,
}

/// What happens at the limit of a queue, for messages whose Topic Name matches `filter`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverflowSettings {
    /// Topic Filter.
    pub filter: TopicFilter,
    /// What happens.
    pub policy: OverflowPolicy,
    /// Messages in the queue at which it happens.
    pub messages: u64,
    /// Bytes in the queue at which it happens.
    pub bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        // The defaults pass their own checks: a test of `check` holds them to it.
        Self::from_source(&Source::default()).expect("the built-in defaults are correct")
    }
}

/// One listener.
#[derive(Debug, Clone)]
pub struct ListenerSettings {
    /// Rules its connections carry (name, anonymous access, mount point, limits).
    pub rules: Arc<ListenerRules>,
    /// Where it listens.
    pub address: ListenAddress,
    /// MQTT directly, or inside WebSocket.
    pub transport: Transport,
    /// TLS, when on.
    pub tls: Option<TlsSettings>,
    /// A PROXY protocol header (v1 or v2) is required first.
    pub proxy_protocol: bool,
    /// Network Connections at a time; more are closed at once.
    pub max_connections: usize,
}

/// Where a listener listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// A TCP address. `[::]` listens on both IPv6 and IPv4 (dual stack).
    Tcp(SocketAddr),
    /// A Unix socket with its file mode.
    Unix {
        /// Path of the socket.
        path: PathBuf,
        /// File mode, for instance 0o660.
        mode: u32,
    },
}

/// What carries the MQTT bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// MQTT directly.
    Mqtt,
    /// Inside WebSocket. [MQTT-6.0.0-1]
    WebSocket {
        /// Path of the request, for instance `/mqtt`.
        path: String,
        /// Allowed Origin values; empty allows every one.
        origins: Vec<String>,
    },
}

/// TLS of one listener.
#[derive(Debug, Clone)]
pub struct TlsSettings {
    /// Certificate chain, PEM.
    pub certificate: PathBuf,
    /// Private key, PEM.
    pub key: PathBuf,
    /// Authorities of client certificates, PEM.
    pub client_authority: Option<PathBuf>,
    /// Whether Clients may or must present a certificate.
    pub client_certificate: ClientCertificate,
    /// Where the user name is taken from.
    pub certificate_name: CertificateName,
    /// Oldest TLS version: 1.2 or 1.3.
    pub min_version: TlsVersion,
}

/// Whether Clients present certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientCertificate {
    /// Not asked for.
    #[default]
    None,
    /// Asked for, checked when presented.
    Optional,
    /// Required.
    Required,
}

/// Which name in a client certificate is the user name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CertificateName {
    /// Common Name of the subject.
    #[default]
    CommonName,
    /// First Subject Alternative Name (DNS, e-mail or URI).
    SubjectAlternativeName,
}

/// TLS versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[default]
    V1_2,
    /// TLS 1.3.
    V1_3,
}
