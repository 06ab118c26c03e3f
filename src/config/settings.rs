//! The checked configuration: every value is present, in range, and has the type that the broker needs.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::access::ListenerRules;
use crate::broker::limits::Limits;
use crate::config::bridge::BridgeSettings;
use crate::config::check;
use crate::config::choice::{ClientCertificate, TlsVersion};
use crate::config::mistake::ConfigError;
use crate::config::source::Source;
use crate::config::table::File;
use crate::durable::Durability;
use crate::session::queue::QueueLimits;
use crate::store::settings::StoreSettings;
use crate::topic::filter::TopicFilter;

/// Everything that `petrel serve` needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The values as written, as `petrel check --print` shows them. Values that need no conversion are used from here.
    pub file: File,
    /// Directory of the store.
    pub data_dir: PathBuf,
    /// Worker threads of the runtime; `None`: one for each core.
    pub worker_threads: Option<usize>,
    /// The store on disk, unless the store is in memory.
    pub store: StoreSettings,
    /// The limits of the core.
    pub limits: Limits,
    /// Limits of accepting Network Connections.
    pub accept: AcceptLimits,
    /// Time to notify Clients and to flush.
    pub shutdown_grace: Duration,
    /// Where metrics and health are served.
    pub http_listen: Option<SocketAddr>,
    /// How often the `$SYS` topics are published.
    pub sys_interval: Option<Duration>,
    /// Unix socket of `petrel ctl`.
    pub control_socket: Option<PathBuf>,
    /// Users and their passwords.
    pub users_file: Option<PathBuf>,
    /// Users and their passwords in mosquitto's format.
    pub password_file: Option<PathBuf>,
    /// Access rules.
    pub rules_file: Option<PathBuf>,
    /// Access rules in mosquitto's format.
    pub acl_file: Option<PathBuf>,
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

    /// Checks a text that was already read.
    ///
    /// # Errors
    /// [`ConfigError::Mistakes`] with every mistake found.
    pub fn from_source(source: &Source) -> Result<Self, ConfigError> {
        check::check(source.parse()).map_err(ConfigError::Mistakes)
    }
}

/// Limits that all listeners share.
#[derive(Debug, Clone, Copy)]
pub struct AcceptLimits {
    /// Simultaneous Network Connections; beyond that, connections that have not finished CONNECT give way. `None`: as
    /// many as the system allows.
    pub max_connections: Option<usize>,
    /// Simultaneous Network Connections of one address; `None`: no limit.
    pub max_connections_per_address: Option<usize>,
    /// Time from accepting a Network Connection to the end of its CONNECT, including all handshakes.
    pub connect_timeout: Duration,
}

/// Limits of the core that are derived from more than one value of the file.
pub(crate) struct ComposedLimits {
    /// Longest Session Expiry Interval in seconds.
    pub(crate) max_session_expiry_seconds: u32,
    /// The durability that state needs before it is acknowledged.
    pub(crate) durability: Durability,
    /// Exceptions by Topic Filter.
    pub(crate) topic_durability: Vec<(TopicFilter, Durability)>,
    /// Limits of each queue.
    pub(crate) queue: QueueLimits,
    /// Exceptions by Topic Filter.
    pub(crate) topic_queue: Vec<(TopicFilter, QueueLimits)>,
}

impl Default for Settings {
    fn default() -> Self {
        // The defaults pass their own checks, as a test of `check` ensures.
        Self::from_source(&Source::default()).expect("the built-in defaults are correct")
    }
}

/// The shipped limits, so that tests, benchmarks and fuzzing use the limits of users.
impl Default for Limits {
    fn default() -> Self {
        Settings::default().limits
    }
}

/// One listener.
#[derive(Debug, Clone)]
pub struct ListenerSettings {
    /// Rules for its connections (name, anonymous access, mount point, limits).
    pub rules: Arc<ListenerRules>,
    /// Where it listens.
    pub address: ListenAddress,
    /// MQTT directly, or over WebSocket.
    pub transport: Transport,
    /// TLS settings, if enabled.
    pub tls: Option<TlsSettings>,
    /// Whether a PROXY protocol header (v1 or v2) is required.
    pub proxy_protocol: bool,
    /// Simultaneous Network Connections; `None`: as many as all listeners may have.
    pub max_connections: Option<usize>,
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
    /// Over WebSocket. [MQTT-6.0.0-1]
    WebSocket {
        /// Accepted request paths, for example `/mqtt`.
        paths: Vec<String>,
        /// Accepted Origin values; empty: pages of this machine and of the same host.
        origins: Vec<String>,
    },
}

impl Transport {
    /// The path to show to people: `/mqtt` if it is accepted, otherwise the first; empty without WebSocket.
    #[must_use]
    pub fn usual_path(&self) -> &str {
        let Self::WebSocket { paths, .. } = self else { return "" };
        let usual = paths.iter().find(|path| *path == "/mqtt").or_else(|| paths.first());
        usual.map_or("", String::as_str)
    }
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

/// Which name in a client certificate is the user name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CertificateName {
    /// Common Name of the subject.
    #[default]
    CommonName,
    /// First Subject Alternative Name (DNS, e-mail or URI).
    SubjectAlternativeName,
}
