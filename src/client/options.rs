//! The options that all clients share, as given and as checked.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use rand::RngCore as _;
use rumqttc::v5::mqttbytes::v5::LastWillProperties;

use crate::client::address::{BrokerUrl, parse_url};
use crate::client::error::ClientError;
use crate::client::property::PropertySet;
use crate::client::runtime::Failures;
use crate::dial::address::{Address, Carrier};
use crate::dial::tls::{RemoteTls, Verify};
use crate::packet::QoS;

/// Largest payload and Remaining Length in MQTT.
pub(super) const PACKET_BYTES_MAX: u32 = 268_435_455;
/// A session that never expires. [MQTT-3.1.2-23]
const NEVER: u32 = u32::MAX;

/// Version of MQTT, as `-V` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum VersionName {
    /// MQTT 3.1.1
    #[value(name = "311", aliases = ["mqttv311", "3.1.1"])]
    V311,
    /// MQTT 5.0
    #[value(name = "5", aliases = ["mqttv5", "5.0"])]
    V5,
    /// MQTT 3.1: refused, with the reason
    #[value(name = "31", aliases = ["mqttv31", "3.1"], hide = true)]
    V31,
}

/// Version of MQTT in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// 3.1.1
    V311,
    /// 5.0
    V5,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TlsVersion {
    /// TLS 1.2 or later
    #[value(name = "tlsv1.2", aliases = ["1.2"])]
    V12,
    /// TLS 1.3
    #[value(name = "tlsv1.3", aliases = ["1.3"])]
    V13,
}

/// The broker, and the identity of the client.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connection")]
pub(super) struct ConnectionOptions {
    /// Name or address of the broker [default: localhost]
    #[arg(short = 'h', long)]
    host: Option<String>,
    /// Port of the broker [default: 1883; with TLS 8883; with --ws 8083; with both 8084]
    #[arg(short, long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// All in one: mqtt(s)://[user[:password]@]host[:port][/topic], or ws(s)://host[:port][/path]
    #[arg(short = 'L', long, conflicts_with_all = ["host", "port", "unix", "ws"])]
    url: Option<String>,
    /// Connect to a Unix socket
    #[arg(long, value_name = "SOCKET", conflicts_with_all = ["host", "port", "ws"])]
    unix: Option<PathBuf>,
    /// Use MQTT over WebSocket, with this path
    #[arg(long, alias = "websocket", value_name = "PATH", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "/mqtt")]
    ws: Option<String>,
    /// Version of MQTT: 311 or 5 (mqttv311 and mqttv5 do as well)
    #[arg(short = 'V', long, value_name = "VERSION")]
    protocol_version: Option<VersionName>,
    /// Client identifier [default: petrel- and a random number]
    #[arg(short, long)]
    id: Option<String>,
    /// Use this prefix and the process id as client identifier, for brokers that check prefixes
    #[arg(short = 'I', long, value_name = "PREFIX", conflicts_with = "id")]
    id_prefix: Option<String>,
    /// User name
    #[arg(short, long)]
    username: Option<String>,
    /// Password; use `PETREL_PASSWORD` to keep it out of the process list
    #[arg(short = 'P', long = "pw", alias = "password", value_name = "PASSWORD")]
    #[arg(env = "PETREL_PASSWORD", hide_env_values = true)]
    password: Option<String>,
    /// Keep alive: seconds without packets after which the connection is checked
    #[arg(short, long, value_name = "SECONDS", default_value_t = 60)]
    #[arg(value_parser = clap::value_parser!(u16).range(5..))]
    keepalive: u16,
    /// Resume the session of this client identifier, and keep it after disconnecting
    #[arg(short = 'c', long, requires = "id")]
    disable_clean_session: bool,
    /// Seconds to keep the session after disconnecting (5.0); 4294967295 or -1: forever, the default with -c
    #[arg(short = 'x', long, value_name = "SECONDS", allow_negative_numbers = true)]
    #[arg(value_parser = parse_expiry)]
    session_expiry_interval: Option<u32>,
    /// Timeout for connecting in seconds, including handshakes
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3600))]
    connect_timeout: u64,
    /// Property of a packet (5.0): `-D publish content-type text/plain`, `-D connect user-property KEY VALUE`;
    /// connect, publish, subscribe, unsubscribe, will
    #[arg(short = 'D', long, num_args = 3..=4, value_names = ["PACKET", "NAME", "VALUE"])]
    #[arg(allow_negative_numbers = true)]
    property: Vec<String>,
    /// Print what happens to standard error
    #[arg(short, long)]
    debug: bool,
    /// Print nothing to standard error, not even errors
    #[arg(long)]
    quiet: bool,
    #[command(flatten)]
    tls: TlsOptions,
    #[command(flatten)]
    will: WillOptions,
}

/// TLS options; any of these enables TLS.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "TLS (any of these switches it on)")]
struct TlsOptions {
    /// Certificates of trusted authorities, PEM
    #[arg(long, value_name = "FILE")]
    cafile: Option<PathBuf>,
    /// Directory with such files
    #[arg(long, value_name = "DIR")]
    capath: Option<PathBuf>,
    /// Trust the authorities of this system
    #[arg(long)]
    tls_use_os_certs: bool,
    /// Certificate of this client, PEM
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Its private key, PEM, not encrypted
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Do not check the name in the broker's certificate; its signature is still verified
    #[arg(long)]
    insecure: bool,
    /// Oldest version of TLS: tlsv1.2 or tlsv1.3
    #[arg(long, value_name = "VERSION")]
    tls_version: Option<TlsVersion>,
    /// Protocol to offer (ALPN)
    #[arg(long, value_name = "PROTOCOL")]
    tls_alpn: Option<String>,
}

/// The Will Message.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Will: published by the broker if this client disappears")]
struct WillOptions {
    /// Its topic
    #[arg(long, value_name = "TOPIC")]
    will_topic: Option<String>,
    /// Its payload
    #[arg(long, value_name = "TEXT", requires = "will_topic", allow_hyphen_values = true)]
    will_payload: Option<String>,
    /// Its QoS
    #[arg(long, value_name = "QOS", requires = "will_topic", default_value = "0")]
    #[arg(value_parser = parse_qos)]
    will_qos: QoS,
    /// Retain it
    #[arg(long, requires = "will_topic")]
    will_retain: bool,
}

/// The address of the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Remote {
    Network(Address),
    Unix(PathBuf),
}

/// A checked Will Message.
#[derive(Debug, Clone)]
pub(super) struct Will {
    pub(super) topic: String,
    pub(super) payload: Bytes,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) properties: Option<LastWillProperties>,
}

/// The options, checked and ready to use.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) version: Version,
    pub(super) remote: Remote,
    pub(super) tls: Option<RemoteTls>,
    pub(super) client_id: String,
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
    pub(super) keep_alive: Duration,
    pub(super) clean_start: bool,
    pub(super) connect_timeout: Duration,
    pub(super) properties: PropertySet,
    pub(super) will: Option<Will>,
    pub(super) is_chatty: bool,
}

/// Reads a QoS.
///
/// # Errors
/// There are three of them.
pub(super) fn parse_qos(text: &str) -> Result<QoS, String> {
    let number: Result<u8, _> = text.parse();
    number
        .ok()
        .and_then(|number| QoS::try_from(number).ok())
        .ok_or_else(|| "a QoS is 0, 1 or 2".to_owned())
}

/// Reads seconds with a fraction.
///
/// # Errors
/// The number is negative, infinite or malformed.
pub(super) fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "write a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|duration| duration.as_secs() <= 10 * 365 * 86_400)
        .ok_or_else(|| "no such number of seconds".to_owned())
}

fn parse_expiry(text: &str) -> Result<u32, String> {
    match text {
        "-1" | "∞" => Ok(NEVER),
        text => text.parse().map_err(|_| "write seconds, at most 4294967295, or -1".to_owned()),
    }
}

impl ConnectionOptions {
    pub(super) fn failures(&self) -> Failures {
        if self.quiet { Failures::Silent } else { Failures::Told }
    }

    /// Checks the options and fills in defaults. Also returns the topic of the URL.
    ///
    /// # Errors
    /// [`ClientError::Usage`] names the option.
    pub(super) fn settings(
        &self,
        default: Version,
    ) -> Result<(Settings, Option<String>), ClientError> {
        let properties = PropertySet::parse(&self.property).map_err(ClientError::Usage)?;
        let version = self.version(default)?;
        let url = self.url.as_deref().map(parse_url).transpose();
        let url = url.map_err(|error| ClientError::Usage(format!("-L: {error}")))?;
        let tls = self.tls(url.as_ref());
        let remote = self.remote(url.as_ref(), tls.as_ref())?;
        let mut settings = Settings {
            version,
            remote,
            tls,
            client_id: self.client_id(),
            username: self.username.clone(),
            password: self.password.clone(),
            keep_alive: Duration::from_secs(self.keepalive.into()),
            clean_start: !self.disable_clean_session,
            connect_timeout: Duration::from_secs(self.connect_timeout),
            will: None,
            properties,
            is_chatty: self.debug,
        };
        let topic = self.take_url(url, &mut settings);
        self.check_session(&mut settings)?;
        self.check_credentials(&settings)?;
        settings.will = self.will(&settings.properties)?;
        Ok((settings, topic))
    }

    fn take_url(&self, url: Option<BrokerUrl>, settings: &mut Settings) -> Option<String> {
        let url = url?;
        settings.username = self.username.clone().or(url.username);
        settings.password = self.password.clone().or(url.password);
        url.topic
    }

    fn version(&self, default: Version) -> Result<Version, ClientError> {
        let asks_for_5 = match (self.property.is_empty(), self.session_expiry_interval) {
            (false, _) => Some("-D"),
            (true, Some(_)) => Some("-x"),
            (true, None) => None,
        };
        match (self.protocol_version, asks_for_5) {
            (Some(VersionName::V31), _) => Err(ClientError::Usage(
                "-V mqttv31: the MQTT library of this client (rumqttc) supports only 3.1.1 and 5.0; \
                 the broker accepts 3.1 from other clients"
                    .to_owned(),
            )),
            (Some(VersionName::V311), Some(option)) => {
                Err(ClientError::Usage(format!("{option} needs MQTT 5.0; drop -V or write -V 5")))
            }
            (Some(VersionName::V311), None) => Ok(Version::V311),
            (Some(VersionName::V5), _) | (None, Some(_)) => Ok(Version::V5),
            (None, None) => Ok(default),
        }
    }

    fn remote(
        &self,
        url: Option<&BrokerUrl>,
        tls: Option<&RemoteTls>,
    ) -> Result<Remote, ClientError> {
        let usage = |reason: &str| Err(ClientError::Usage(reason.to_owned()));
        if let Some(path) = &self.unix {
            return match path.to_str() {
                None => usage("--unix: the path must be UTF-8"),
                Some(_) if tls.is_some() => {
                    usage("a Unix socket cannot use TLS; leave out the TLS options")
                }
                Some(_) => Ok(Remote::Unix(path.clone())),
            };
        }
        let carrier = match (&self.ws, url) {
            (Some(path), _) if path.starts_with('/') => Carrier::WebSocket { path: path.clone() },
            (Some(_), _) => return usage("--ws: the path starts with /"),
            (None, Some(url)) => url.carrier.clone(),
            (None, None) => Carrier::Stream,
        };
        let host = match (url, &self.host) {
            (Some(url), _) => url.host.clone(),
            (None, Some(host)) => host.trim_matches(['[', ']']).to_owned(),
            (None, None) => "localhost".to_owned(),
        };
        let default_port = match (&carrier, tls.is_some()) {
            (Carrier::WebSocket { .. }, false) => 8083,
            (Carrier::WebSocket { .. }, true) => 8084,
            (Carrier::Stream, false) => 1883,
            (Carrier::Stream, true) => 8883,
        };
        let port = url.and_then(|url| url.port).or(self.port).unwrap_or(default_port);
        Ok(Remote::Network(Address { host, port, tls: tls.is_some(), carrier }))
    }

    fn tls(&self, url: Option<&BrokerUrl>) -> Option<RemoteTls> {
        let tls = &self.tls;
        let is_wanted = url.is_some_and(|url| url.tls)
            || tls.tls_use_os_certs
            || tls.insecure
            || tls.tls_version.is_some()
            || tls.tls_alpn.is_some()
            || [&tls.cafile, &tls.capath, &tls.cert].iter().any(|path| path.is_some());
        is_wanted.then(|| RemoteTls {
            ca_file: tls.cafile.clone(),
            ca_dir: tls.capath.clone(),
            identity: tls.cert.clone().zip(tls.key.clone()),
            alpn: tls.tls_alpn.iter().cloned().collect(),
            server_name: None,
            // As in the mosquitto tools, only the name is not checked.
            verify: if tls.insecure { Verify::Chain } else { Verify::Full },
            only_tls13: tls.tls_version == Some(TlsVersion::V13),
        })
    }

    fn client_id(&self) -> String {
        match (&self.id, &self.id_prefix) {
            (Some(id), _) => id.clone(),
            (None, Some(prefix)) => format!("{prefix}{}", std::process::id()),
            // 3.1.1 brokers must accept 23 characters. [MQTT311-3.1.3-5]
            (None, None) => format!("petrel-{:016x}", rand::rng().next_u64()),
        }
    }

    fn check_session(&self, settings: &mut Settings) -> Result<(), ClientError> {
        if settings.client_id.is_empty() && !settings.clean_start {
            return Err(ClientError::Usage("-c needs a client identifier: -i ID".to_owned()));
        }
        let given = &mut settings.properties.connect.session_expiry_interval;
        if given.is_some() && self.session_expiry_interval.is_some() {
            let reason = "-x and -D connect session-expiry-interval mean the same; use one of them";
            return Err(ClientError::Usage(reason.to_owned()));
        }
        let default = if settings.clean_start { None } else { Some(NEVER) };
        *given = given.or(self.session_expiry_interval).or(default);
        Ok(())
    }

    fn check_credentials(&self, settings: &Settings) -> Result<(), ClientError> {
        let has_name = settings.username.as_ref().is_some_and(|name| !name.is_empty());
        let has_password = settings.password.is_some();
        if settings.username.is_some() && !has_name {
            let reason =
                "-u: the MQTT library of this client (rumqttc) cannot send an empty user name";
            return Err(ClientError::Usage(reason.to_owned()));
        }
        // [MQTT311-3.1.2-22]
        if has_password && !has_name && settings.version == Version::V311 {
            let reason = "MQTT 3.1.1 does not allow a password without a user name: -u NAME";
            return Err(ClientError::Usage(reason.to_owned()));
        }
        Ok(())
    }

    fn will(&self, properties: &PropertySet) -> Result<Option<Will>, ClientError> {
        let Some(topic) = &self.will.will_topic else {
            return match properties.has_will {
                true => Err(ClientError::Usage("-D will needs --will-topic".to_owned())),
                false => Ok(None),
            };
        };
        check_topic(topic).map_err(|error| ClientError::Usage(format!("--will-topic: {error}")))?;
        let payload = self.will.will_payload.clone().unwrap_or_default();
        if payload.len() > usize::from(u16::MAX) {
            let reason = "--will-payload: a Will Message has at most 65535 bytes";
            return Err(ClientError::Usage(reason.to_owned()));
        }
        Ok(Some(Will {
            topic: topic.clone(),
            payload: Bytes::from(payload),
            qos: self.will.will_qos,
            retain: self.will.will_retain,
            properties: properties.has_will.then(|| properties.will.clone()),
        }))
    }
}

impl Settings {
    /// The address of the broker, for people.
    pub(super) fn address(&self) -> String {
        match &self.remote {
            Remote::Unix(path) => path.display().to_string(),
            Remote::Network(address) => match address.carrier {
                Carrier::Stream => address.authority(),
                Carrier::WebSocket { .. } => address.to_string(),
            },
        }
    }
}

/// Checks a Topic Name.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check_topic(topic: &str) -> Result<(), String> {
    match topic {
        "" => Err("a topic must not be empty".to_owned()),
        _ if topic.len() > usize::from(u16::MAX) => Err("longer than 65535 bytes".to_owned()),
        _ if topic.contains(['+', '#']) => {
            Err(format!("\"{topic}\" has a wildcard (+ or #); messages go to one topic"))
        }
        _ if topic.contains('\0') => Err("a topic must not contain NUL".to_owned()),
        _ => Ok(()),
    }
}

/// Reads a whole file that is to become a payload.
///
/// # Errors
/// It cannot be read, or is too long for MQTT.
pub(super) fn read_payload(path: &Path) -> Result<Bytes, ClientError> {
    use std::io::Read as _;
    let failed = |source| ClientError::File { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut payload = Vec::new();
    file.take(u64::from(PACKET_BYTES_MAX) + 1).read_to_end(&mut payload).map_err(failed)?;
    checked_payload(payload)
}

/// Checks the length of a payload.
///
/// # Errors
/// It is too long for MQTT.
pub(super) fn checked_payload(payload: Vec<u8>) -> Result<Bytes, ClientError> {
    match payload.len() as u64 {
        bytes if bytes > u64::from(PACKET_BYTES_MAX) => Err(ClientError::PayloadTooLong { bytes }),
        _ => Ok(Bytes::from(payload)),
    }
}
