//! Checks the configuration of a bridge. Reports the first mistake with its key and how to fix it.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::bridge::rule::{ExcludeRule, RuleSet, TopicRule};
use crate::config::bridge::{
    BridgeError, BridgeFile, BridgeQueueFile, BridgeSettings, BridgeTlsFile, QueueLimits, Secret,
};
use crate::config::value::Period;
use crate::dial::address::{Address, AddressError};
use crate::dial::tls::RemoteTls;
use crate::durable::record::OverflowPolicy;
use crate::packet::ProtocolVersion;

/// Longest name of a bridge: it becomes part of client ids, topics and file names.
const MAX_NAME_BYTES: usize = 64;
/// Most connections of a bridge: more would not help, and would burden the remote broker.
const MAX_CONNECTIONS: u16 = 64;

struct Checker<'a> {
    bridge: &'a str,
}

type Checked<T> = Result<T, BridgeError>;

impl BridgeSettings {
    /// Checks one bridge. `host_name` completes the default client id.
    ///
    /// # Errors
    /// The first mistake found.
    pub(crate) fn check(file: &BridgeFile, host_name: &str) -> Checked<Self> {
        let checker = Checker { bridge: &file.name };
        checker.name()?;
        checker.ranges(file)?;
        let client_id = match file.client_id.as_str() {
            "" => format!("{}.{host_name}", file.name),
            id => id.to_owned(),
        };
        let notification_topic = match file.notification_topic.as_str() {
            "" => format!("$SYS/broker/connection/{client_id}/state"),
            topic => topic.to_owned(),
        };
        let protocol = checker.protocol(&file.protocol)?;
        let settings = Self {
            addresses: checker.addresses(file)?,
            rules: checker.rules(file)?,
            protocol,
            session_expiry_seconds: checker.session_expiry(&file.session_expiry)?,
            username: checker.secret("username", &file.username, &file.username_file)?,
            password: checker.secret("password", &file.password, &file.password_file)?,
            bind_address: checker.bind_address(&file.bind_address)?,
            tls: checker.tls(&file.tls)?,
            queue: checker.queue(&file.queue)?,
            notification_topic: checker.topic_name("notification_topic", notification_topic)?,
            name: file.name.clone(),
            client_id,
            clean_start: file.clean_start,
            local_clean_start: file.local_clean_start,
            keep_alive: file.keep_alive.0,
            connections: usize::from(file.connections),
            round_robin: file.round_robin,
            primary_retry: file.primary_retry.0,
            start: file.start,
            lazy_threshold: file.lazy_threshold,
            idle_timeout: file.idle_timeout.0,
            backoff_min: file.backoff_min.0,
            backoff_max: file.backoff_max.0,
            stable_after: file.stable_after.0,
            connect_timeout: file.connect_timeout.0,
            response_timeout: file.response_timeout.0,
            max_inflight: window(file.max_inflight, protocol),
            receive_maximum: file.receive_maximum,
            max_packet_bytes: u32::try_from(file.max_packet.0).unwrap_or(MAX_PACKET_BYTES),
            topic_alias_maximum: file.topic_alias_maximum,
            rate_messages: file.rate_messages,
            rate_bytes: file.rate_bytes.0,
            notifications: file.notifications,
            notifications_local_only: file.notifications_local_only,
            private: file.private,
            outgoing_retain: file.outgoing_retain,
            unsubscribe: file.unsubscribe,
            hop_limit: file.hop_limit,
            echo_window: file.echo_window.0,
        };
        checker.together(&settings)?;
        Ok(settings)
    }

    /// Checks all bridges of a configuration and that their names differ.
    ///
    /// # Errors
    /// The first mistake found.
    pub(crate) fn check_all(files: &[BridgeFile], host_name: &str) -> Checked<Vec<Self>> {
        let mut all: Vec<Self> = Vec::with_capacity(files.len());
        for file in files {
            let settings = Self::check(file, host_name)?;
            let checker = Checker { bridge: &file.name };
            if all.iter().any(|other| other.name == settings.name) {
                return checker.fail("name", "another bridge has this name; each needs its own");
            }
            let twin = all.iter().find(|other| {
                other.client_id == settings.client_id
                    && other.addresses.iter().any(|address| settings.addresses.contains(address))
            });
            if let Some(twin) = twin {
                let problem = format!(
                    "bridge \"{}\" uses the same client id at the same address; they would disconnect each other",
                    twin.name
                );
                return checker.fail("client_id", &problem);
            }
            all.push(settings);
        }
        Ok(all)
    }
}

/// Messages in flight on a 3.x link by default. A 3.x broker cannot announce its limit, and mosquitto, whose limit is
/// 20 by default, acknowledges and drops QoS 2 messages beyond it.
pub(crate) const DEFAULT_WINDOW_3X: u16 = 20;
/// The same on a 5.0 link, where the remote broker can announce a lower limit.
pub(crate) const DEFAULT_WINDOW_5: u16 = 1000;

fn window(configured: u16, protocol: ProtocolVersion) -> u16 {
    match (configured, protocol) {
        (0, ProtocolVersion::V5_0) => DEFAULT_WINDOW_5,
        (0, _) => DEFAULT_WINDOW_3X,
        (window, _) => window,
    }
}

/// The largest Remaining Length, plus the fixed header. [MQTT-1.5.5]
const MAX_PACKET_BYTES: u32 = 268_435_455 + 5;

impl Checker<'_> {
    fn fail<T>(&self, key: &str, problem: &str) -> Checked<T> {
        Err(BridgeError {
            bridge: self.bridge.to_owned(),
            key: key.to_owned(),
            problem: problem.to_owned(),
        })
    }

    fn name(&self) -> Checked<()> {
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let name = self.bridge;
        if name.is_empty()
            || name.len() > MAX_NAME_BYTES
            || !name.bytes().all(valid)
            || name.starts_with('.')
        {
            return self.fail("name", "give it a name of 1 to 64 letters, digits, '-', '_' or '.'");
        }
        Ok(())
    }

    fn ranges(&self, file: &BridgeFile) -> Checked<()> {
        let hour = Duration::from_hours(1);
        for (key, value, min, max) in [
            ("keep_alive", file.keep_alive, Duration::from_secs(1), Duration::from_secs(65_535)),
            ("primary_retry", file.primary_retry, Duration::from_secs(1), 24 * hour),
            ("idle_timeout", file.idle_timeout, Duration::from_secs(1), 24 * hour),
            ("backoff_min", file.backoff_min, Duration::from_millis(10), hour),
            ("backoff_max", file.backoff_max, Duration::from_millis(10), 24 * hour),
            ("stable_after", file.stable_after, Duration::ZERO, 24 * hour),
            ("connect_timeout", file.connect_timeout, Duration::from_millis(100), hour),
            ("response_timeout", file.response_timeout, Duration::from_millis(100), hour),
            ("echo_window", file.echo_window, Duration::ZERO, hour),
        ] {
            if value.0 < min || value.0 > max {
                let problem =
                    format!("{value} is out of range: {} to {}", Period(min), Period(max));
                return self.fail(key, &problem);
            }
        }
        if file.backoff_max.0 < file.backoff_min.0 {
            return self.fail("backoff_max", "must not be shorter than backoff_min");
        }
        if !(1..=MAX_CONNECTIONS).contains(&file.connections) {
            return self.fail("connections", "must be 1 to 64");
        }
        if file.receive_maximum == 0 {
            return self.fail("receive_maximum", "must be at least 1");
        }
        if file.max_packet.0 != 0
            && !(1024..=u64::from(MAX_PACKET_BYTES)).contains(&file.max_packet.0)
        {
            return self.fail("max_packet", "must be 1KiB to 256MiB, or 0 for no limit of our own");
        }
        if file.lazy_threshold == 0 {
            return self.fail("lazy_threshold", "must be at least 1");
        }
        Ok(())
    }

    fn addresses(&self, file: &BridgeFile) -> Checked<Vec<Address>> {
        if file.addresses.is_empty() {
            return self
                .fail("addresses", "name at least one, such as [\"mqtts://broker.example.com\"]");
        }
        let parse = |(index, text): (usize, &String)| {
            Address::parse(text).or_else(|error| {
                let way_out = match error {
                    AddressError::UserInfo => "; use the keys username and password_file",
                    _ => "",
                };
                self.fail(&format!("addresses[{index}]"), &format!("{error}{way_out}"))
            })
        };
        file.addresses.iter().enumerate().map(parse).collect()
    }

    fn rules(&self, file: &BridgeFile) -> Checked<RuleSet> {
        if file.topics.is_empty() {
            return self.fail("topics", "name at least one, such as [\"sensors/# out 1\"]");
        }
        let topic = |(index, text): (usize, &String)| {
            let parsed = TopicRule::parse(text);
            parsed.or_else(|error| self.fail(&format!("topics[{index}]"), &error.to_string()))
        };
        let exclude = |(index, text): (usize, &String)| {
            let parsed = ExcludeRule::parse(text);
            parsed.or_else(|error| self.fail(&format!("exclude[{index}]"), &error.to_string()))
        };
        Ok(RuleSet {
            rules: file.topics.iter().enumerate().map(topic).collect::<Checked<_>>()?,
            exclude: file.exclude.iter().enumerate().map(exclude).collect::<Checked<_>>()?,
        })
    }

    fn protocol(&self, text: &str) -> Checked<ProtocolVersion> {
        match text {
            "5.0" | "5" | "mqttv50" => Ok(ProtocolVersion::V5_0),
            "3.1.1" | "4" | "mqttv311" => Ok(ProtocolVersion::V3_1_1),
            "3.1" | "3" | "mqttv31" => Ok(ProtocolVersion::V3_1),
            _ => self.fail("protocol", "write \"5.0\", \"3.1.1\" or \"3.1\""),
        }
    }

    fn session_expiry(&self, text: &str) -> Checked<u32> {
        if text == "never" {
            return Ok(u32::MAX);
        }
        match humantime::parse_duration(text) {
            Ok(duration) => Ok(u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)),
            Err(_) => {
                self.fail("session_expiry", "write a duration such as \"7days\", or \"never\"")
            }
        }
    }

    fn secret(&self, key: &str, text: &str, file: &str) -> Checked<Option<Secret>> {
        match (text, file) {
            ("", "") => Ok(None),
            (text, "") => Ok(Some(Secret::Text(text.to_owned()))),
            ("", file) => Ok(Some(Secret::File(PathBuf::from(file)))),
            _ => self.fail(key, &format!("give either {key} or {key}_file, not both")),
        }
    }

    fn bind_address(&self, text: &str) -> Checked<Option<IpAddr>> {
        if text.is_empty() {
            return Ok(None);
        }
        let parsed = text.parse().map(Some);
        parsed.or_else(|_| self.fail("bind_address", "must be an IP address of this machine"))
    }

    fn tls(&self, file: &BridgeTlsFile) -> Checked<RemoteTls> {
        let path = |text: &str| (!text.is_empty()).then(|| PathBuf::from(text));
        let identity = match (path(&file.certificate), path(&file.key)) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => {
                return self.fail("tls.key", "is needed together with tls.certificate");
            }
            (None, Some(_)) => {
                return self.fail("tls.certificate", "is needed together with tls.key");
            }
        };
        let only_tls13 = match file.min_version.as_str() {
            "" | "1.2" => false,
            "1.3" => true,
            _ => return self.fail("tls.min_version", "write \"1.2\" or \"1.3\""),
        };
        if file.alpn.iter().any(|name| name.is_empty() || name.len() > 255) {
            return self.fail("tls.alpn", "each name must have 1 to 255 bytes");
        }
        Ok(RemoteTls {
            ca_file: path(&file.ca_file),
            ca_dir: path(&file.ca_dir),
            identity,
            alpn: file.alpn.clone(),
            server_name: (!file.server_name.is_empty()).then(|| file.server_name.clone()),
            verify: file.verify,
            only_tls13,
        })
    }

    fn queue(&self, file: &BridgeQueueFile) -> Checked<QueueLimits> {
        let overflow = match file.overflow.as_str() {
            "" => None,
            "spill" => Some(OverflowPolicy::Spill),
            "backpressure" => Some(OverflowPolicy::Backpressure),
            "reject" => Some(OverflowPolicy::Reject),
            "drop-oldest" => Some(OverflowPolicy::DropOldest),
            "drop-newest" => Some(OverflowPolicy::DropNewest),
            _ => {
                let names = "write spill, backpressure, reject, drop-oldest or drop-newest";
                return self.fail("queue.overflow", names);
            }
        };
        Ok(QueueLimits {
            max_messages: Some(file.max_messages).filter(|limit| *limit > 0),
            max_bytes: Some(file.max_bytes.0).filter(|limit| *limit > 0),
            overflow,
            store_qos0: file.store_qos0,
        })
    }

    fn topic_name(&self, key: &str, topic: String) -> Checked<String> {
        if topic.contains(['+', '#', '\0']) || topic.len() > usize::from(u16::MAX) {
            return self.fail(key, "must be a topic name without '+' and '#'");
        }
        Ok(topic)
    }

    fn together(&self, settings: &BridgeSettings) -> Checked<()> {
        if settings.client_id.len() > usize::from(u16::MAX) - 8 || settings.client_id.contains('\0')
        {
            return self.fail("client_id", "is too long or contains a NUL");
        }
        // MQTT 3.1 allows 1 to 23 characters; brokers enforce it.
        if settings.protocol == ProtocolVersion::V3_1 && settings.client_id.len() > 23 {
            let problem = format!(
                "\"{}\" is longer than the 23 characters that MQTT 3.1 allows; set a shorter one",
                settings.client_id
            );
            return self.fail("client_id", &problem);
        }
        // 3.1.1 forbids a password without a user name. [MQTT311-3.1.2-22]
        if settings.protocol != ProtocolVersion::V5_0
            && settings.password.is_some()
            && settings.username.is_none()
        {
            return self.fail("username", "is needed with a password before MQTT 5.0");
        }
        let secure = settings.addresses.iter().any(|address| address.tls);
        if !secure && settings.tls != RemoteTls::default() {
            return self.fail("tls", "no address uses it; write mqtts:// or wss://");
        }
        Ok(())
    }
}
