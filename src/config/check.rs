//! From the values as written to [`Settings`]: ranges, addresses, and rules between keys.
//!
//! Every check reports and goes on with a harmless value, so that all mistakes are known at the end.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::bridge::{BridgeError, BridgeSettings};
use crate::config::check::listener::listeners;
use crate::config::document::Document;
use crate::config::file::{File, Limits, Overflow, Persistence, StoreKind};
use crate::config::mistake::{Mistake, Place};
use crate::config::settings::{
    LimitSettings, LogSettings, OverflowSettings, PersistenceSettings, Settings,
};
use crate::config::source::Reading;
use crate::config::value::{Period, Size};
use crate::durable::Durability;
use crate::packet::QoS;
use crate::topic::filter::TopicFilter;

pub mod listener;

/// Checks what was read.
///
/// # Errors
/// Every mistake, those of reading included, in the order of the file.
pub fn check(reading: Reading<'_>) -> Result<Settings, Vec<Mistake>> {
    let Reading { file, document, mistakes } = reading;
    let mut checker = Checker { document: &document, unread: mistakes.len(), mistakes };
    let settings = checker.settings(file);
    let mut mistakes = checker.mistakes;
    mistakes.sort_by_key(|mistake| match mistake.place {
        Place::Line { line, column, .. } => (line, column),
        _ => (usize::MAX, 0),
    });
    if mistakes.is_empty() { Ok(settings) } else { Err(mistakes) }
}

/// Collects mistakes.
pub struct Checker<'a> {
    document: &'a Document<'a>,
    /// The first so many are about values that could not be read.
    unread: usize,
    mistakes: Vec<Mistake>,
}

impl Checker<'_> {
    /// Reports a mistake at `key`. One in a list entry that could not be read in full is left out: it may be about the
    /// very value that is missing.
    pub fn report(&mut self, key: &str, problem: impl Into<String>, cure: impl Into<String>) {
        let entry = key.find(']').map(|end| &key[..=end]);
        let mut unread = self.mistakes.iter().take(self.unread);
        if entry.is_some_and(|entry| unread.any(|known| known.key.starts_with(entry))) {
            return;
        }
        let (place, key) = (self.document.place_of(key), key.to_owned());
        let cure = Some(cure.into()).filter(|cure: &String| !cure.is_empty());
        let problem = problem.into();
        self.mistakes.push(Mistake { place, key, problem, cure });
    }

    fn settings(&mut self, file: File) -> Settings {
        let limits = self.limits(&file);
        let persistence = self.persistence(&file.persistence);
        let overflow = self.overflow(&file.overflow, &limits);
        let listeners = listeners(self, &file);
        let data_dir = PathBuf::from(&file.data_dir);
        if file.data_dir.is_empty() {
            self.report(
                "data_dir",
                "no directory given",
                "write for instance data_dir = \"./data\"",
            );
        }
        let http_listen = self.http_listen(&file);
        let worker_threads =
            self.number("runtime.worker_threads", file.runtime.worker_threads, 0, 1024);
        let control_socket =
            (!file.control.socket.is_empty()).then(|| data_dir.join(&file.control.socket));
        Settings {
            log: log_settings(self, &file),
            worker_threads: usize::try_from(worker_threads).ok().filter(|count| *count > 0),
            persistence,
            limits,
            overflow,
            shutdown_grace: self.period("shutdown.grace", file.shutdown.grace, HOUR),
            http_listen,
            sys_interval: non_zero(self.period("sys.interval", file.sys.interval, 24 * HOUR)),
            control_socket,
            users_file: (!file.auth.users_file.is_empty())
                .then(|| PathBuf::from(&file.auth.users_file)),
            listeners,
            bridges: self.bridges(&file),
            data_dir,
            file,
        }
    }

    /// Each bridge checks itself; its own message says the cure, too.
    fn bridges(&mut self, file: &File) -> Vec<BridgeSettings> {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let mut settings = Vec::new();
        for (index, bridge) in file.bridge.iter().enumerate() {
            match BridgeSettings::check(bridge, &host) {
                Ok(checked) => settings.push(checked),
                Err(error) => self.report_bridge(index, &error),
            }
        }
        // Only what lies between them is left to find.
        if settings.len() == file.bridge.len()
            && let Err(error) = BridgeSettings::check_all(&file.bridge, &host)
        {
            let named = file.bridge.iter().rposition(|bridge| bridge.name == error.bridge);
            self.report_bridge(named.unwrap_or_default(), &error);
        }
        settings
    }

    fn report_bridge(&mut self, index: usize, error: &BridgeError) {
        let key = format!("bridge[{index}].{}", error.key);
        self.report(&key, format!("bridge \"{}\": {}", error.bridge, error.problem), "");
    }

    fn http_listen(&mut self, file: &File) -> Option<SocketAddr> {
        let text = Some(&*file.http.listen).filter(|text| !text.is_empty())?;
        let address = listener::tcp_address(self, "http.listen", text)?;
        if !address.ip().to_canonical().is_loopback() && !file.http.allow_remote {
            let problem =
                format!("\"{text}\" can be reached from the network, and has no password");
            let cure = "listen on 127.0.0.1 behind a proxy that asks for one, or write \
                        allow_remote = true under [http]";
            self.report("http.listen", problem, cure);
        }
        Some(address)
    }

    #[expect(clippy::too_many_lines, reason = "a flat table of keys and their ranges")]
    fn limits(&mut self, file: &File) -> LimitSettings {
        let Limits { max_packet_size, outbox_size, queue_size, .. } = file.limits;
        let (limits, protocol) = (&file.limits, &file.protocol);
        LimitSettings {
            max_connections: match limits.max_connections {
                0 => usize::MAX,
                count => usize::try_from(count).unwrap_or(usize::MAX),
            },
            connect_timeout: self.connect_timeout(limits.connect_timeout),
            max_packet_bytes: self.size("limits.max_packet_size", max_packet_size, 128, MAX_PACKET),
            receive_maximum: self.u16("limits.receive_maximum", limits.receive_maximum, 1),
            max_inflight: self.u16("limits.max_inflight", limits.max_inflight, 1),
            topic_alias_maximum: self.u16(
                "limits.topic_alias_maximum",
                limits.topic_alias_maximum,
                0,
            ),
            topic_alias_maximum_out: self.u16(
                "limits.topic_alias_maximum_out",
                limits.topic_alias_maximum_out,
                0,
            ),
            // Every Server takes 23 bytes. [MQTT-3.1.3-5]
            max_client_id_bytes: self.count(
                "limits.max_client_id_bytes",
                limits.max_client_id_bytes,
                23..=65_535,
            ),
            max_topic_bytes: self.count(
                "limits.max_topic_bytes",
                limits.max_topic_bytes,
                1..=65_535,
            ),
            max_topic_levels: self.count(
                "limits.max_topic_levels",
                limits.max_topic_levels,
                1..=65_535,
            ),
            max_subscriptions_per_session: self.count(
                "limits.max_subscriptions_per_session",
                limits.max_subscriptions_per_session,
                1..=u64::from(u32::MAX),
            ),
            outbox_bytes: self.bytes("limits.outbox_size", outbox_size, 1024, 1 << 32),
            queue_messages: self.number(
                "limits.queue_messages",
                limits.queue_messages,
                1,
                u64::MAX,
            ),
            queue_bytes: self.number("limits.queue_size", queue_size.0, 1024, u64::MAX),
            backpressure_wait: self.period(
                "limits.backpressure_wait",
                limits.backpressure_wait,
                HOUR,
            ),
            total_queue_bytes: self.number(
                "limits.total_queue_size",
                limits.total_queue_size.0,
                1024,
                u64::MAX,
            ),
            max_pending_bytes: self.bytes(
                "limits.max_pending_size",
                limits.max_pending_size,
                1 << 20,
                1 << 36,
            ),
            retained_messages: limits.retained_messages,
            retained_bytes: limits.retained_size.0,
            max_qos: self.qos(protocol.max_qos),
            retain_available: protocol.retain_available,
            wildcard_subscriptions: protocol.wildcard_subscriptions,
            shared_subscriptions: protocol.shared_subscriptions,
            subscription_identifiers: protocol.subscription_identifiers,
            check_payload_format: protocol.check_payload_format,
            allow_empty_client_id: protocol.allow_empty_client_id,
            client_id_prefix: self.client_id_prefix(&protocol.client_id_prefix),
            response_information: (!protocol.response_information.is_empty())
                .then(|| protocol.response_information.clone()),
            server_keep_alive_seconds: self
                .keep_alive("protocol.server_keep_alive", protocol.server_keep_alive),
            max_keep_alive_seconds: self
                .keep_alive("protocol.max_keep_alive", protocol.max_keep_alive),
            session_expiry_max_seconds: self.session_expiry(protocol.session_expiry_max),
        }
    }

    fn connect_timeout(&mut self, timeout: Period) -> Duration {
        let timeout = self.period("limits.connect_timeout", timeout, HOUR);
        if timeout.is_zero() {
            let key = "limits.connect_timeout";
            self.report(key, "without a time limit, silent connections pile up", "write \"10s\"");
        }
        timeout
    }

    fn qos(&mut self, value: u64) -> QoS {
        match self.number("protocol.max_qos", value, 0, 2) {
            0 => QoS::AtMostOnce,
            1 => QoS::AtLeastOnce,
            _ => QoS::ExactlyOnce,
        }
    }

    fn client_id_prefix(&mut self, prefix: &str) -> String {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
        if prefix.len() > 32 || !prefix.chars().all(plain) {
            let cure = "write at most 32 of the characters A-Z a-z 0-9 - _ . :";
            self.report("protocol.client_id_prefix", "not usable in a Client Identifier", cure);
        }
        prefix.to_owned()
    }

    fn session_expiry(&mut self, period: Period) -> Option<u32> {
        let most = u64::from(u32::MAX - 1);
        let whole = self.whole_seconds("protocol.session_expiry_max", period, most)?;
        u32::try_from(whole).ok()
    }

    fn persistence(&mut self, written: &Persistence) -> PersistenceSettings {
        let mut durability = written.durability;
        if written.store == StoreKind::Memory {
            // Nothing that lives in memory alone is safe, whatever it is called.
            durability = Durability::Memory;
        }
        let mut topics = Vec::new();
        for (index, topic) in written.topic.iter().enumerate() {
            let key = format!("persistence.topic[{index}].filter");
            let Some(filter) = self.filter(&key, &topic.filter) else { continue };
            let in_force = match written.store {
                StoreKind::RocksDb => topic.durability,
                StoreKind::Memory => durability,
            };
            topics.push((filter, in_force));
        }
        PersistenceSettings {
            store: written.store,
            durability,
            topics,
            block_cache_bytes: self.bytes(
                "persistence.block_cache",
                written.block_cache,
                1 << 20,
                1 << 40,
            ),
            write_buffer_bytes: self.bytes(
                "persistence.write_buffer",
                written.write_buffer,
                1 << 20,
                1 << 34,
            ),
            min_free_disk_bytes: written.min_free_disk.0,
            max_downtime: written.max_downtime.0,
        }
    }

    fn overflow(&mut self, written: &[Overflow], limits: &LimitSettings) -> Vec<OverflowSettings> {
        let mut rules = Vec::new();
        for (index, rule) in written.iter().enumerate() {
            let key = |name: &str| format!("overflow[{index}].{name}");
            let Some(filter) = self.filter(&key("filter"), &rule.filter) else { continue };
            let or = |value: u64, default: u64| if value == 0 { default } else { value };
            rules.push(OverflowSettings {
                filter,
                policy: rule.policy,
                messages: or(rule.messages, limits.queue_messages),
                bytes: or(rule.bytes.0, limits.queue_bytes),
            });
        }
        rules
    }

    /// A Topic Filter without `$share`. [MQTT-4.7]
    fn filter(&mut self, key: &str, filter: &str) -> Option<TopicFilter> {
        match TopicFilter::parse(filter) {
            Ok(parsed) if parsed.share.is_none() => return Some(parsed.filter),
            Ok(_) => {
                self.report(key, "no shared subscription is meant here", "leave out $share/group/");
            }
            Err(error) => {
                let cure = "write a topic, in which + stands for a level and # for all the rest, such \
                            as \"sensors/+/state\" or \"sensors/#\"";
                self.report(key, format!("\"{filter}\" is not a topic filter: {error}"), cure);
            }
        }
        None
    }

    fn number(&mut self, key: &str, value: u64, least: u64, most: u64) -> u64 {
        if (least..=most).contains(&value) {
            return value;
        }
        let cure = match most {
            u64::MAX => format!("write a number of at least {least}"),
            _ => format!("write a number from {least} to {most}"),
        };
        self.report(key, format!("{value} is out of range"), cure);
        value.clamp(least, most)
    }

    fn u16(&mut self, key: &str, value: u64, least: u64) -> u16 {
        u16::try_from(self.number(key, value, least, 65_535)).unwrap_or(u16::MAX)
    }

    fn count(&mut self, key: &str, value: u64, range: std::ops::RangeInclusive<u64>) -> usize {
        usize::try_from(self.number(key, value, *range.start(), *range.end())).unwrap_or(usize::MAX)
    }

    fn bytes(&mut self, key: &str, value: Size, least: u64, most: u64) -> usize {
        if !(least..=most).contains(&value.0) {
            let cure = format!("write a size from \"{}\" to \"{}\"", Size(least), Size(most));
            self.report(key, format!("{value} is out of range"), cure);
        }
        usize::try_from(value.0.clamp(least, most)).unwrap_or(usize::MAX)
    }

    /// A size that a packet can have.
    pub fn size(&mut self, key: &str, value: Size, least: u64, most: u64) -> u32 {
        u32::try_from(self.bytes(key, value, least, most)).unwrap_or(u32::MAX)
    }

    fn period(&mut self, key: &str, period: Period, most_seconds: u64) -> Duration {
        let most = Duration::from_secs(most_seconds);
        if period.0 > most {
            let cure = format!("write at most \"{}\"", Period(most));
            self.report(key, format!("{period} is too long"), cure);
        }
        period.0.min(most)
    }

    fn whole_seconds(&mut self, key: &str, period: Period, most: u64) -> Option<u64> {
        let duration = self.period(key, period, most);
        if duration.subsec_nanos() != 0 {
            self.report(key, "MQTT counts this in whole seconds", "write for instance \"60s\"");
        }
        Some(duration.as_secs()).filter(|seconds| *seconds > 0)
    }

    /// A Keep Alive: whole seconds, 16 bits; `None` where it is `0s`.
    pub fn keep_alive(&mut self, key: &str, period: Period) -> Option<u16> {
        u16::try_from(self.whole_seconds(key, period, 65_535)?).ok()
    }
}

/// The largest MQTT packet: fixed header and Remaining Length. [MQTT-2.1.4]
pub const MAX_PACKET: u64 = 268_435_460;

const HOUR: u64 = 3600;

fn non_zero(duration: Duration) -> Option<Duration> {
    (!duration.is_zero()).then_some(duration)
}

fn log_settings(checker: &mut Checker<'_>, file: &File) -> LogSettings {
    let mut modules = BTreeMap::new();
    for (name, level) in &file.log.modules {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':');
        if name.is_empty() || !name.chars().all(plain) {
            let key = format!("log.modules.{name}");
            checker.report(&key, "not a module", "write for instance \"petrel::net\" = \"debug\"");
        }
        modules.insert(name.clone(), *level);
    }
    LogSettings { level: file.log.level, modules, format: file.log.format }
}

#[cfg(test)]
mod tests;
