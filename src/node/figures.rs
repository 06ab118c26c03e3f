//! The metrics of broker and store for `/metrics` and `$SYS`, collected on demand.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::broker::Broker;
use crate::durable::{Durability, Store};
use crate::metrics::histogram::HistogramSample;
use crate::metrics::{Gauges, Source, StoreGauges};
use crate::store::upkeep::Upkeep;

/// Metrics of Sessions, Subscriptions, queues and Retained Messages.
pub(crate) struct BrokerFigures {
    broker: Arc<Broker>,
}

impl BrokerFigures {
    /// Creates the metrics of this broker.
    #[must_use]
    pub(crate) fn new(broker: Arc<Broker>) -> Self {
        Self { broker }
    }
}

impl Source for BrokerFigures {
    fn fill(&self, gauges: &mut Gauges) {
        let broker = &self.broker;
        let figures = broker.figures();
        let connected = figures.connected.load(Ordering::Relaxed);
        let sessions = broker.registry().len() as u64;
        gauges.clients_connected += connected;
        gauges.clients_disconnected += sessions.saturating_sub(connected);
        gauges.clients_maximum += figures.connected_max.load(Ordering::Relaxed);
        gauges.subscriptions += figures.subscriptions.load(Ordering::Relaxed);
        gauges.shared_subscriptions += figures.shared_subscriptions.load(Ordering::Relaxed);
        gauges.retained_messages += broker.retained().len() as u64;
        gauges.retained_bytes += broker.retained().allocated_bytes() as u64;
        gauges.subscription_bytes += broker.subscription_bytes() as u64;
        let (messages, bytes) = broker.group_backlog();
        gauges.queued_messages += messages;
        gauges.queued_bytes += bytes;
        broker.registry().for_each(|session| {
            let outbound = session.outbound();
            gauges.queued_messages += outbound.queue().message_count();
            gauges.queued_bytes += outbound.queue().message_bytes();
            gauges.inflight_messages += u64::from(outbound.inflight_count());
        });
    }
}

/// Metrics of the store.
pub(crate) struct StoreFigures {
    store: Arc<dyn Store>,
    upkeep: Option<Arc<dyn Upkeep>>,
    durability: Durability,
}

impl StoreFigures {
    /// Creates the metrics of this store; `upkeep` is present if the store is on disk.
    #[must_use]
    pub(crate) fn new(
        store: Arc<dyn Store>,
        upkeep: Option<Arc<dyn Upkeep>>,
        durability: Durability,
    ) -> Self {
        Self { store, upkeep, durability }
    }
}

impl Source for StoreFigures {
    fn fill(&self, gauges: &mut Gauges) {
        let Some(upkeep) = &self.upkeep else {
            gauges.store = Some(StoreGauges {
                state: self.store.state(),
                durability: Durability::Memory,
                commits: 0,
                syncs: 0,
                unreadable_values: 0,
                pending_bytes: self.store.pending_bytes() as u64,
                disk_bytes: None,
                sync_seconds: HistogramSample::default(),
            });
            return;
        };
        let snapshot = upkeep.statistics();
        gauges.store = Some(StoreGauges {
            state: snapshot.state,
            durability: self.durability,
            commits: snapshot.batches,
            syncs: snapshot.syncs,
            unreadable_values: snapshot.unreadable_values,
            pending_bytes: snapshot.pending_bytes as u64,
            disk_bytes: Some(snapshot.disk_bytes),
            sync_seconds: HistogramSample::from_microseconds(&snapshot.latency_microseconds),
        });
    }
}
