//! Metrics: counters, gauges, `/metrics` and the `$SYS` topics.
//!
//! [`Counters`] are incremented where things happen. Gauges belong to the part that owns the value: it registers a
//! [`Source`], which is queried on demand, so nothing is stored twice. The HTTP listener serves
//! [`Metrics::exposition`], and the broker publishes the topics that [`sys::SysTopics`] derives from a [`Sample`].

pub mod counter;
pub(crate) mod exposition;
pub(crate) mod histogram;
pub(crate) mod process;
pub(crate) mod sys;

use std::sync::Arc;

use parking_lot::RwLock;

use crate::durable::{Durability, StoreState};
use crate::metrics::counter::{Counter, Counters, DropCounter};
use crate::metrics::exposition::{Exposition, Kind};
use crate::metrics::histogram::HistogramSample;
use crate::metrics::process::ProcessSample;

/// A part of the broker that provides metrics.
pub(crate) trait Source: Send + Sync {
    /// Adds its share to the gauges of the whole broker. Several sources may add to one gauge.
    fn fill(&self, gauges: &mut Gauges);

    /// Writes its own families, such as one value per bridge. The family names must be unique.
    #[expect(unused_variables, reason = "most sources have nothing of their own")]
    fn write(&self, exposition: &mut Exposition) {}
}

/// Values that rise and fall.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Gauges {
    /// Network Connections that listeners hold, also those without a CONNECT yet.
    pub connections: u64,
    /// Clients that are connected.
    pub clients_connected: u64,
    /// Sessions without Network Connection.
    pub(crate) clients_disconnected: u64,
    /// Most Clients that were connected at one time.
    pub(crate) clients_maximum: u64,
    /// Subscriptions, Shared Subscriptions included.
    pub(crate) subscriptions: u64,
    /// Shared Subscriptions.
    pub(crate) shared_subscriptions: u64,
    /// Retained Messages.
    pub(crate) retained_messages: u64,
    /// Bytes of Retained Messages.
    pub(crate) retained_bytes: u64,
    /// Bytes that all Subscriptions take.
    pub(crate) subscription_bytes: u64,
    /// Messages in the queues of all Sessions and groups, in memory and in the store.
    pub(crate) queued_messages: u64,
    /// Bytes of these messages.
    pub(crate) queued_bytes: u64,
    /// Messages sent to Clients and not yet acknowledged by them.
    pub(crate) inflight_messages: u64,
    /// The store; `None` until it is open.
    pub(crate) store: Option<StoreGauges>,
}

/// Figures of the store.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StoreGauges {
    /// Whether batches become durable.
    pub(crate) state: StoreState,
    /// The mode in force for messages without a rule of their own.
    pub(crate) durability: Durability,
    /// Batches made durable.
    pub(crate) commits: u64,
    /// Write-and-sync rounds that made them so: one round commits many batches.
    pub(crate) syncs: u64,
    /// Values that could not be understood and were passed over.
    pub(crate) unreadable_values: u64,
    /// Bytes of batches that wait for their round.
    pub(crate) pending_bytes: u64,
    /// Bytes of its files; `None` where they are not known.
    pub(crate) disk_bytes: Option<u64>,
    /// Duration of these rounds.
    pub(crate) sync_seconds: HistogramSample,
}

/// All figures at one moment.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sample {
    /// What rises and falls.
    pub gauges: Gauges,
    /// What the operating system knows.
    pub(crate) process: ProcessSample,
    /// Control Packets received and sent.
    pub(crate) packets: Directions,
    /// PUBLISH packets received and sent.
    pub(crate) publishes: Directions,
    /// Payload bytes of PUBLISH packets received and sent.
    pub(crate) publish_bytes: Directions,
    /// Bytes of MQTT packets received and sent.
    pub(crate) bytes: Directions,
    /// Messages dropped, for all reasons.
    pub(crate) dropped: u64,
    /// Sessions expired.
    pub(crate) sessions_expired: u64,
    /// Network Connections accepted.
    pub(crate) sockets: u64,
    /// CONNECT packets answered with success.
    pub(crate) connects: u64,
}

/// A figure for each direction, seen from the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Directions {
    /// From Clients.
    pub(crate) received: u64,
    /// To Clients.
    pub(crate) sent: u64,
}

/// Counters and sources of one broker; clones are the same.
#[derive(Clone, Default)]
pub struct Metrics {
    counters: Counters,
    sources: Arc<RwLock<Vec<Arc<dyn Source>>>>,
}

impl Metrics {
    /// Creates metrics with zero counters and no sources.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The counters.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Registers a source.
    pub(crate) fn register(&self, source: Arc<dyn Source>) {
        self.sources.write().push(source);
    }

    /// Reads everything.
    #[must_use]
    pub fn sample(&self) -> Sample {
        let directions = |received, sent| Directions {
            received: self.counters.read(received),
            sent: self.counters.read(sent),
        };
        Sample {
            gauges: self.gauges(),
            process: ProcessSample::read(),
            packets: directions(Counter::PacketsReceived, Counter::PacketsSent),
            publishes: directions(Counter::PublishReceived, Counter::PublishSent),
            publish_bytes: directions(Counter::PublishBytesReceived, Counter::PublishBytesSent),
            bytes: directions(Counter::BytesReceived, Counter::BytesSent),
            dropped: self.counters.read_all_dropped(),
            sessions_expired: self.counters.read(Counter::SessionsExpired),
            sockets: self.counters.read(Counter::ConnectionsAccepted),
            connects: self.counters.read(Counter::ConnectsNew)
                + self.counters.read(Counter::ConnectsResumed),
        }
    }

    /// The text for Prometheus.
    #[must_use]
    pub fn exposition(&self) -> String {
        let mut exposition = Exposition::default();
        let build = "Version of the broker, always 1.";
        exposition.family("petrel_build_info", Kind::Gauge, build);
        exposition.value("petrel_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
        write_counters(&self.counters, &mut exposition);
        let gauges = self.gauges();
        write_gauges(&gauges, &mut exposition);
        if let Some(store) = &gauges.store {
            write_store(store, &mut exposition);
        }
        ProcessSample::read().write(&mut exposition);
        for source in self.sources() {
            source.write(&mut exposition);
        }
        exposition.into_text()
    }

    fn gauges(&self) -> Gauges {
        let mut gauges = Gauges::default();
        for source in self.sources() {
            source.fill(&mut gauges);
        }
        gauges
    }

    /// A copy, so that no lock is held while sources take their own.
    fn sources(&self) -> Vec<Arc<dyn Source>> {
        self.sources.read().clone()
    }
}

fn write_counters(counters: &Counters, exposition: &mut Exposition) {
    let mut previous = "";
    for counter in Counter::ALL {
        let description = counter.description();
        if description.family != previous {
            exposition.family(description.family, Kind::Counter, description.help);
            previous = description.family;
        }
        let value = counters.read(*counter);
        exposition.value(description.family, description.label.as_slice(), value);
    }
    let name = "petrel_messages_dropped_total";
    exposition.family(name, Kind::Counter, "Messages that did not reach a recipient, by reason.");
    for reason in DropCounter::ALL {
        let value = counters.read_dropped(*reason);
        exposition.value(name, &[("reason", reason.name())], value);
    }
}

fn write_gauges(gauges: &Gauges, exposition: &mut Exposition) {
    let rows = [
        ("petrel_connections", "Network Connections held by listeners.", gauges.connections),
        ("petrel_clients_connected", "Clients that are connected.", gauges.clients_connected),
        (
            "petrel_clients_disconnected",
            "Sessions without Network Connection.",
            gauges.clients_disconnected,
        ),
        (
            "petrel_clients_connected_peak",
            "Most Clients connected at the same time.",
            gauges.clients_maximum,
        ),
        ("petrel_subscriptions", "Subscriptions, shared ones included.", gauges.subscriptions),
        ("petrel_shared_subscriptions", "Shared Subscriptions.", gauges.shared_subscriptions),
        ("petrel_retained_messages", "Retained Messages.", gauges.retained_messages),
        ("petrel_retained_bytes", "Bytes of Retained Messages.", gauges.retained_bytes),
        ("petrel_subscription_bytes", "Bytes of Subscriptions.", gauges.subscription_bytes),
        (
            "petrel_queued_messages",
            "Messages queued for Sessions, in memory and in the store.",
            gauges.queued_messages,
        ),
        ("petrel_queued_bytes", "Bytes of queued messages.", gauges.queued_bytes),
        (
            "petrel_inflight_messages",
            "Messages sent but not acknowledged yet.",
            gauges.inflight_messages,
        ),
    ];
    for (name, help, value) in rows {
        exposition.single(name, Kind::Gauge, help, value);
    }
}

fn write_store(store: &StoreGauges, exposition: &mut Exposition) {
    let name = "petrel_store_state";
    exposition.family(name, Kind::Gauge, "State of the store: 1 for the current state.");
    for state in [StoreState::Available, StoreState::Full, StoreState::Failed] {
        let value = u8::from(store.state == state);
        exposition.value(name, &[("state", store_state_name(state))], value);
    }
    let name = "petrel_store_durability";
    exposition.family(name, Kind::Gauge, "Durability mode: 1 for the one in force.");
    for mode in [Durability::Memory, Durability::Os, Durability::Fsync] {
        let value = u8::from(store.durability == mode);
        exposition.value(name, &[("mode", mode.name())], value);
    }
    let commits = "Batches of changes made durable.";
    exposition.single("petrel_store_commits_total", Kind::Counter, commits, store.commits);
    let syncs = "Rounds of write and sync; one round makes many batches durable.";
    exposition.single("petrel_store_syncs_total", Kind::Counter, syncs, store.syncs);
    let unreadable = "Stored values that could not be understood and were passed over.";
    let name = "petrel_store_unreadable_values_total";
    exposition.single(name, Kind::Counter, unreadable, store.unreadable_values);
    let pending = "Bytes of changes that are not durable yet.";
    exposition.single("petrel_store_pending_bytes", Kind::Gauge, pending, store.pending_bytes);
    if let Some(bytes) = store.disk_bytes {
        let help = "Bytes of the store's files.";
        exposition.single("petrel_store_disk_bytes", Kind::Gauge, help, bytes);
    }
    let help = "Duration of a round of write and sync.";
    exposition.histogram("petrel_store_sync_seconds", help, &store.sync_seconds);
}

/// The state's name in metrics and health texts.
#[must_use]
pub(crate) const fn store_state_name(state: StoreState) -> &'static str {
    match state {
        StoreState::Available => "available",
        StoreState::Full => "full",
        StoreState::Failed => "failed",
    }
}

#[cfg(test)]
mod tests;
