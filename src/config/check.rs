//! Checks the values as written and converts them to [`Settings`]: ranges, addresses, and rules between keys.
//!
//! Every check reports its mistake and continues with a harmless value, so that all mistakes are known at the end.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::broker::limits::Limits;
use crate::config::bounds::{Bounded, Bounds};
use crate::config::bridge::{BridgeError, BridgeSettings};
use crate::config::check::listener::listeners;
use crate::config::choice::StoreKind;
use crate::config::conversion::IntoLimit;
use crate::config::document::Document;
use crate::config::mistake::{Location, Mistake};
use crate::config::setting::Bound;
use crate::config::settings::{ComposedLimits, Settings};
use crate::config::source::Reading;
use crate::config::table::{Auth, File, Overflow, Persistence};
use crate::durable::Durability;
use crate::durable::record::OverflowPolicy;
use crate::session::queue::QueueLimits;
use crate::topic::filter::TopicFilter;

pub(crate) mod listener;

/// Checks a reading.
///
/// # Errors
/// Every mistake, including those of reading, in the order of the file.
pub(crate) fn check(reading: Reading<'_>) -> Result<Settings, Vec<Mistake>> {
    let Reading { file, document, mistakes } = reading;
    let mut checker = Checker { document: &document, unread: mistakes.len(), mistakes };
    let settings = checker.settings(file);
    let mut mistakes = checker.mistakes;
    mistakes.sort_by_key(|mistake| match mistake.place {
        Location::Line { line, column, .. } => (line, column),
        _ => (usize::MAX, 0),
    });
    if mistakes.is_empty() { Ok(settings) } else { Err(mistakes) }
}

/// Collects mistakes.
pub(crate) struct Checker<'a> {
    document: &'a Document<'a>,
    /// The number of mistakes about values that could not be read, which come first.
    unread: usize,
    mistakes: Vec<Mistake>,
}

impl Checker<'_> {
    /// Reports a mistake at `key`. Mistakes in a list entry that could not be read completely are left out, because
    /// they may be about the missing value.
    pub(crate) fn report(
        &mut self,
        key: &str,
        problem: impl Into<String>,
        cure: impl Into<String>,
    ) {
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

    /// Reports a value that is out of its bounds.
    pub(crate) fn bounds<T: Bounded>(&mut self, key: &str, value: T, bounds: &Bounds<T>) {
        if !bounds.allow(value) {
            self.report(
                key,
                format!("{} is out of range", value.shown()),
                format!("write {bounds}"),
            );
        }
    }

    fn settings(&mut self, file: File) -> Settings {
        file.check_bounds("", self);
        self.log_modules(&file);
        let data_dir = PathBuf::from(&file.data_dir);
        if file.data_dir.is_empty() {
            let cure = "write for example data_dir = \"./data\"";
            self.report("data_dir", "no directory given", cure);
        }
        self.one_of_each(&file.auth);
        let socket: Option<PathBuf> = file.control.socket.clone().into_limit();
        let worker_threads: Option<usize> = file.runtime.worker_threads.into_limit();
        Settings {
            worker_threads,
            store: file.store_settings(),
            limits: self.limits(&file),
            accept: file.accept_limits(),
            shutdown_grace: file.shutdown.grace.0,
            http_listen: self.http_listen(&file),
            sys_interval: file.sys.interval.into_limit(),
            control_socket: socket.map(|socket| data_dir.join(socket)),
            users_file: file.auth.users_file.clone().into_limit(),
            password_file: file.auth.password_file.clone().into_limit(),
            rules_file: file.auth.rules_file.clone().into_limit(),
            acl_file: file.auth.acl_file.clone().into_limit(),
            listeners: listeners(self, &file),
            bridges: self.bridges(&file),
            data_dir,
            file,
        }
    }

    /// Users and rules are in Petrel's format or in mosquitto's.
    fn one_of_each(&mut self, auth: &Auth) {
        if !auth.rules_file.is_empty() && !auth.acl_file.is_empty() {
            let cure = "keep one of rules_file and acl_file";
            self.report("auth.acl_file", "there is a rules_file as well", cure);
        }
        if !auth.users_file.is_empty() && !auth.password_file.is_empty() {
            let cure = "keep one of users_file and password_file";
            self.report("auth.password_file", "there is a users_file as well", cure);
        }
    }

    /// Each bridge checks itself; its message also contains the fix.
    fn bridges(&mut self, file: &File) -> Vec<BridgeSettings> {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let mut settings = Vec::new();
        for (index, bridge) in file.bridge.iter().enumerate() {
            match BridgeSettings::check(bridge, &host) {
                Ok(checked) => settings.push(checked),
                Err(error) => self.report_bridge(index, &error),
            }
        }
        // Only conflicts between bridges are left to find.
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
                format!("\"{text}\" can be reached from the network, but has no password");
            let cure = "listen on 127.0.0.1 behind a proxy that asks for one, or write \
                        allow_remote = true under [http]";
            self.report("http.listen", problem, cure);
        }
        Some(address)
    }

    fn limits(&mut self, file: &File) -> Limits {
        self.client_id_prefix(&file.protocol.client_id_prefix);
        let queue = QueueLimits {
            max_messages: file.limits.queue_messages,
            max_bytes: file.limits.queue_size.0,
            policy: OverflowPolicy::default(),
        };
        let session_expiry_max: Option<u32> = file.protocol.session_expiry_max.into_limit();
        let (durability, topic_durability) = self.durability(&file.persistence);
        file.core_limits(ComposedLimits {
            max_session_expiry_seconds: session_expiry_max.unwrap_or(u32::MAX),
            durability,
            topic_durability,
            topic_queue: self.overflow(&file.overflow, queue),
            queue,
        })
    }

    fn client_id_prefix(&mut self, prefix: &str) {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
        if prefix.len() > 32 || !prefix.chars().all(plain) {
            let cure = "write at most 32 of the characters A-Z a-z 0-9 - _ . :";
            self.report("protocol.client_id_prefix", "not usable in a Client Identifier", cure);
        }
    }

    fn log_modules(&mut self, file: &File) {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':');
        for name in file.log.modules.keys() {
            if name.is_empty() || !name.chars().all(plain) {
                let cure = "write for example \"petrel::net\" = \"debug\"";
                self.report(&format!("log.modules.{name}"), "not a module", cure);
            }
        }
    }

    /// The durability in force, and its exceptions. With a store in memory nothing is durable, whatever the setting.
    fn durability(&mut self, file: &Persistence) -> (Durability, Vec<(TopicFilter, Durability)>) {
        let in_force = |written| match file.store {
            StoreKind::RocksDb => written,
            StoreKind::Memory => Durability::Memory,
        };
        let mut topics = Vec::new();
        for (index, topic) in file.topic.iter().enumerate() {
            let key = format!("persistence.topic[{index}].filter");
            if let Some(filter) = self.filter(&key, &topic.filter) {
                topics.push((filter, in_force(topic.durability)));
            }
        }
        (in_force(file.durability), topics)
    }

    fn overflow(
        &mut self,
        rules: &[Overflow],
        general: QueueLimits,
    ) -> Vec<(TopicFilter, QueueLimits)> {
        let mut exceptions = Vec::new();
        for (index, rule) in rules.iter().enumerate() {
            let key = format!("overflow[{index}].filter");
            if let Some(filter) = self.filter(&key, &rule.filter) {
                exceptions.push((filter, queue_limits(rule, general)));
            }
        }
        exceptions
    }

    /// A Topic Filter without `$share`. [MQTT-4.7]
    fn filter(&mut self, key: &str, filter: &str) -> Option<TopicFilter> {
        match TopicFilter::parse(filter) {
            Ok(parsed) if parsed.share.is_none() => return Some(parsed.filter),
            Ok(_) => {
                self.report(
                    key,
                    "a shared subscription is not allowed here",
                    "leave out $share/group/",
                );
            }
            Err(error) => {
                let cure = "write a topic in which + stands for one level and # for all remaining levels, such \
             as \"sensors/+/state\" or \"sensors/#\"";
                self.report(key, format!("\"{filter}\" is not a topic filter: {error}"), cure);
            }
        }
        None
    }
}

/// The limits of a queue under a rule for a topic. With `spill`, queues grow up to the general limits: tighter numbers
/// of the rule apply to the other policies.
fn queue_limits(rule: &Overflow, general: QueueLimits) -> QueueLimits {
    let or = |value: u64, general: u64| if value == 0 { general } else { value };
    match rule.policy {
        OverflowPolicy::Spill => QueueLimits { policy: rule.policy, ..general },
        OverflowPolicy::Backpressure
        | OverflowPolicy::Reject
        | OverflowPolicy::DropOldest
        | OverflowPolicy::DropNewest => QueueLimits {
            max_messages: or(rule.messages, general.max_messages),
            max_bytes: or(rule.bytes.0, general.max_bytes),
            policy: rule.policy,
        },
    }
}

#[cfg(test)]
mod tests;
