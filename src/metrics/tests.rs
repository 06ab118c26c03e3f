//! Tests of the whole text for Prometheus.

use std::collections::HashSet;

use super::*;
use crate::metrics::histogram::HistogramSample;

struct Broker;

impl Source for Broker {
    fn fill(&self, gauges: &mut Gauges) {
        gauges.clients_connected += 3;
        gauges.retained_bytes += 4096;
        let mut sync_seconds = HistogramSample::default();
        sync_seconds.observe(2000, 1);
        gauges.store = Some(StoreGauges {
            state: StoreState::Full,
            durability: Durability::Os,
            commits: 100,
            syncs: 7,
            unreadable_values: 2,
            pending_bytes: 12,
            disk_bytes: Some(1 << 20),
            sync_seconds,
        });
    }
}

struct Bridge;

impl Source for Bridge {
    fn fill(&self, gauges: &mut Gauges) {
        gauges.clients_connected += 1;
    }

    fn write(&self, exposition: &mut Exposition) {
        exposition.family("petrel_bridge_connected", Kind::Gauge, "Whether the link is up.");
        exposition.value("petrel_bridge_connected", &[("bridge", "to \"north\"")], 1);
    }
}

#[test]
fn exposition_shows_counters_gauges_and_sources() {
    let metrics = Metrics::new();
    metrics.register(Arc::new(Broker));
    metrics.register(Arc::new(Bridge));
    metrics.counters().add(Counter::PublishReceived, 5);
    metrics.counters().local().add_dropped(DropCounter::OutboxFull, 2);
    let text = metrics.exposition();
    for line in [
        "petrel_publishes_total{direction=\"received\"} 5",
        "petrel_publishes_total{direction=\"sent\"} 0",
        "petrel_messages_dropped_total{reason=\"outbox-full\"} 2",
        "petrel_messages_dropped_total{reason=\"queue-full\"} 0",
        "petrel_clients_connected 4",
        "petrel_retained_bytes 4096",
        "petrel_store_state{state=\"available\"} 0",
        "petrel_store_state{state=\"full\"} 1",
        "petrel_store_durability{mode=\"os\"} 1",
        "petrel_store_syncs_total 7",
        "petrel_store_unreadable_values_total 2",
        "petrel_store_disk_bytes 1048576",
        "petrel_store_sync_seconds_bucket{le=\"0.0025\"} 1",
        "petrel_bridge_connected{bridge=\"to \\\"north\\\"\"} 1",
        "# TYPE petrel_clients_connected gauge",
        "# TYPE petrel_connections_accepted_total counter",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

/// Prometheus refuses a text in which a family begins twice, or in which a value belongs to no family or to another.
#[test]
fn every_family_is_declared_once_before_its_values() {
    let metrics = Metrics::new();
    metrics.register(Arc::new(Broker));
    metrics.register(Arc::new(Bridge));
    let text = metrics.exposition();
    let mut declared = HashSet::new();
    let mut current = "";
    let mut values = HashSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            current = rest.split(' ').next().unwrap_or_default();
            assert!(declared.insert(current), "{current} is declared twice");
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let name = series.split('{').next().unwrap();
            let suffix = name.strip_prefix(current);
            let known = matches!(suffix, Some("" | "_bucket" | "_sum" | "_count"));
            assert!(known, "{name} follows the family {current}");
            assert!(values.insert(series), "{series} appears twice");
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }
    assert!(text.ends_with('\n'));
}

#[test]
fn sample_adds_up_all_sources() {
    let metrics = Metrics::new();
    metrics.register(Arc::new(Broker));
    metrics.register(Arc::new(Bridge));
    metrics.counters().add(Counter::BytesSent, 9);
    metrics.counters().local().add_dropped(DropCounter::Expired, 1);
    metrics.counters().local().add_dropped(DropCounter::OutboxFull, 1);
    let sample = metrics.sample();
    assert_eq!(sample.gauges.clients_connected, 4);
    assert_eq!(sample.bytes, Directions { received: 0, sent: 9 });
    assert_eq!(sample.dropped, 2);
}
