//! The bridges of this node: their connection to the broker, and their metrics in `/metrics` and `$SYS`.

use std::collections::HashMap;
use std::future::ready;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::random;
use tokio::time::{MissedTickBehavior, interval};

use crate::bridge::local::{Connecting, LocalBroker};
use crate::bridge::loop_guard::{EchoGuard, Origin};
use crate::bridge::manager::BridgeManager;
use crate::bridge::policies::OtherBridges;
use crate::bridge::status::{BridgeStatus, QueueStats};
use crate::bridge::worker::BridgeContext;
use crate::config::bridge::{BridgeSettings, QueueLimits};
use crate::durable::entry::StoredEntry;
use crate::durable::message::{Sequence, SessionId, Timestamp};
use crate::durable::record::{QueueRules, StoresQoS0};
use crate::metrics::Source;
use crate::metrics::exposition::{Exposition, Kind};
use crate::node::handle::NodeHandle;
use crate::packet::subscribe::SubscriptionOptions;
use crate::session::effects::Effects;
use crate::session::policies::Policies;
use crate::session::queue::Oldest;

type OldestArrivals = HashMap<SessionId, (Sequence, Option<Timestamp>)>;

/// The broker as its bridges see it.
struct NodeBroker {
    handle: NodeHandle,
    /// Arrival times of the oldest messages that are only in the store, by position, as far as they were read.
    oldest: Arc<Mutex<OldestArrivals>>,
}

impl NodeBroker {
    fn new(handle: NodeHandle) -> Self {
        Self { handle, oldest: Arc::default() }
    }

    /// When the first message of a queue in the store arrived. It is read once, on a blocking thread; the first caller gets the
    /// answer only at its next call.
    fn stored_arrival(&self, id: SessionId, from: Sequence, to: Sequence) -> Option<Timestamp> {
        if let Some((known, arrived)) = self.oldest.lock().get(&id)
            && *known == from
        {
            return *arrived;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return None };
        self.oldest.lock().insert(id, (from, None));
        let (store, oldest) = (Arc::clone(self.handle.broker().store()), Arc::clone(&self.oldest));
        drop(runtime.spawn_blocking(move || {
            let page = store.read_queue(id, from, to, 1, 1);
            let arrived = page.ok().and_then(|page| match page.first() {
                Some(StoredEntry::Message(entry)) => Some(entry.message.arrived),
                _ => None,
            });
            oldest.lock().insert(id, (from, arrived));
        }));
        None
    }
}

impl LocalBroker for NodeBroker {
    fn connect(&self, policies: Policies) -> Connecting<'_> {
        let stream = self.handle.connect_internal("bridge", policies);
        Box::pin(ready(Ok(Box::new(stream) as _)))
    }

    fn queue_stats(&self, client_id: &str) -> Option<QueueStats> {
        let session = self.handle.broker().registry().find(client_id)?;
        let (mut stats, oldest) = {
            let outbound = session.outbound();
            let stats = QueueStats {
                messages: outbound.queue().message_count() + u64::from(outbound.inflight_count()),
                bytes: outbound.queue().message_bytes(),
                oldest: None,
                drops: outbound.dropped_count(),
            };
            (stats, outbound.oldest())
        };
        let arrived = match oldest {
            Oldest::None => None,
            Oldest::Arrived(arrived) => Some(arrived),
            Oldest::Stored(from, to) => self.stored_arrival(session.id(), from, to),
        };
        stats.oldest = arrived.map(|arrived| self.handle.clock().now().since(arrived));
        Some(stats)
    }

    fn set_queue_limits(&self, client_id: &str, limits: QueueLimits) {
        self.handle.broker().set_queue_rules(client_id, limits.into(), &mut Effects::new());
    }

    fn take_missed_retained(&self, client_id: &str) -> bool {
        let session = self.handle.broker().registry().find(client_id);
        session.is_some_and(|session| session.outbound().take_missed_retained())
    }

    fn origin(&self, client_id: &str) -> Origin {
        self.handle.broker().registry().find(client_id).map_or(0, |session| session.id().0)
    }

    fn subscriptions(&self, client_id: &str) -> Option<Vec<String>> {
        let session = self.handle.broker().registry().find(client_id)?;
        let inbound = session.inbound();
        Some(self.handle.broker().subscription_filters(&inbound))
    }

    fn replace_subscriptions(
        &self,
        client_id: &str,
        wanted: &[(String, SubscriptionOptions)],
    ) -> bool {
        self.handle.broker().replace_subscriptions(client_id, wanted, &mut Effects::new())
    }

    fn publish_retained(&self, topic: &str, payload: &[u8]) {
        publish_retained(&self.handle, topic, payload);
    }
}

/// Publishes a Retained Message of the broker itself.
fn publish_retained(handle: &NodeHandle, topic: &str, payload: &[u8]) {
    let mut effects = Effects::new();
    let now = handle.clock().now();
    handle.broker().publish_internal(topic, payload, now, &mut effects);
}

impl From<QueueLimits> for QueueRules {
    fn from(limits: QueueLimits) -> Self {
        Self {
            max_messages: limits.max_messages,
            max_bytes: limits.max_bytes,
            policy: limits.overflow,
            qos0: if limits.store_qos0 { StoresQoS0::Always } else { StoresQoS0::Retained },
        }
    }
}

/// Starts the bridges of a configuration. `data_dir` contains their state, and the name of this broker in hop trails.
///
/// # Errors
/// The name cannot be saved.
pub(crate) fn start_bridges(
    handle: &NodeHandle,
    data_dir: Option<&Path>,
    bridges: Vec<BridgeSettings>,
) -> io::Result<Arc<BridgeManager>> {
    let directory = data_dir.map(|data_dir| data_dir.join("bridges"));
    let broker_id: Arc<str> = broker_id(directory.as_deref())?.into();
    let echoes = Arc::new(EchoGuard::default());
    let others = OtherBridges { broker_id: Arc::clone(&broker_id), echoes: Arc::clone(&echoes) };
    handle.broker().set_neighbours(Box::new(others));
    let context = BridgeContext {
        broker: Arc::new(NodeBroker::new(handle.clone())),
        broker_id,
        directory,
        echoes,
    };
    let manager = BridgeManager::start(context, bridges);
    handle.metrics().register(Arc::new(BridgeFigures(Arc::clone(&manager))));
    Ok(manager)
}

/// The name of this broker in hop trails: random, and saved because messages outlive the process.
fn broker_id(directory: Option<&Path>) -> io::Result<String> {
    let fresh = || format!("{:012x}", random::<u64>() & 0xFFFF_FFFF_FFFF);
    let Some(directory) = directory else { return Ok(fresh()) };
    let path: PathBuf = directory.join("broker-id");
    match std::fs::read_to_string(&path) {
        Ok(id) if is_broker_id(id.trim()) => return Ok(id.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let id = fresh();
    std::fs::create_dir_all(directory)?;
    std::fs::write(&path, &id)?;
    Ok(id)
}

fn is_broker_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Publishes the state of the bridges below `$SYS/broker/bridge/`, retained, whenever it changes.
pub(crate) async fn publish_bridges(
    handle: NodeHandle,
    manager: Arc<BridgeManager>,
    period: Duration,
) {
    let mut known: HashMap<String, String> = HashMap::new();
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let topics = manager.sys_topics();
        // The topics of removed bridges are cleared.
        known.retain(|topic, _| {
            let is_present = topics.iter().any(|(present, _)| present == topic);
            if !is_present {
                publish_retained(&handle, topic, b"");
            }
            is_present
        });
        for (topic, value) in topics {
            if known.get(&topic) != Some(&value) {
                publish_retained(&handle, &topic, value.as_bytes());
                known.insert(topic, value);
            }
        }
    }
}

/// The metrics of bridges.
struct BridgeFigures(Arc<BridgeManager>);

type Figure = (&'static str, Kind, &'static str, fn(&BridgeStatus) -> u64);

const FIGURES: [Figure; 15] = [
    ("petrel_bridge_connected", Kind::Gauge, "Whether messages cross.", |s| s.connected.into()),
    (
        "petrel_bridge_state_since_seconds",
        Kind::Gauge,
        "When the state was entered, Unix time.",
        |s| s.since_unix_seconds.unwrap_or_default(),
    ),
    ("petrel_bridge_attempts_total", Kind::Counter, "Attempts to connect.", |s| s.attempts),
    ("petrel_bridge_connects_total", Kind::Counter, "Attempts that succeeded.", |s| s.connects),
    ("petrel_bridge_queue_messages", Kind::Gauge, "Messages waiting for the remote broker.", |s| {
        s.queue_messages
    }),
    ("petrel_bridge_queue_bytes", Kind::Gauge, "Bytes waiting for the remote broker.", |s| {
        s.queue_bytes
    }),
    (
        "petrel_bridge_queue_oldest_seconds",
        Kind::Gauge,
        "Age of the oldest message waiting for the remote broker.",
        |s| s.oldest_seconds,
    ),
    ("petrel_bridge_queue_dropped_total", Kind::Counter, "Messages dropped by the queue.", |s| {
        s.queue_drops
    }),
    ("petrel_bridge_messages_sent_total", Kind::Counter, "Messages to the remote broker.", |s| {
        s.messages_out
    }),
    ("petrel_bridge_bytes_sent_total", Kind::Counter, "Bytes to the remote broker.", |s| {
        s.bytes_out
    }),
    (
        "petrel_bridge_messages_received_total",
        Kind::Counter,
        "Messages from the remote broker.",
        |s| s.messages_in,
    ),
    ("petrel_bridge_bytes_received_total", Kind::Counter, "Bytes from the remote broker.", |s| {
        s.bytes_in
    }),
    (
        "petrel_bridge_looping_messages",
        Kind::Gauge,
        "Messages that are circling in a ring of 3.x links and are slowed down.",
        |s| s.looping,
    ),
    (
        "petrel_bridge_loops_found_total",
        Kind::Counter,
        "Messages found circling in a ring of 3.x links.",
        |s| s.loops,
    ),
    ("petrel_bridge_last_error_seconds", Kind::Gauge, "Time of the last error, Unix time.", |s| {
        s.last_error_unix_seconds.unwrap_or_default()
    }),
];

impl Source for BridgeFigures {
    fn fill(&self, _gauges: &mut crate::metrics::Gauges) {}

    fn write(&self, exposition: &mut Exposition) {
        let all = self.0.status();
        if all.is_empty() {
            return;
        }
        for (name, kind, help, read) in FIGURES {
            exposition.family(name, kind, help);
            for status in &all {
                exposition.value(name, &[("bridge", &status.name)], read(status));
            }
        }
        let name = "petrel_bridge_dropped_total";
        exposition.family(name, Kind::Counter, "Messages that did not cross, by reason.");
        for status in &all {
            for (reason, count) in &status.drops {
                exposition.value(name, &[("bridge", &status.name), ("reason", reason)], count);
            }
        }
    }
}
