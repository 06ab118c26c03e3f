//! The `$SYS` topics, with mosquitto's names and meanings, because dashboards and scripts use them.
//!
//! [`SysTopics`] turns a [`Sample`] into topics and values; the broker publishes them as Retained Messages at its
//! interval. It returns only values that have changed since the last time, as mosquitto does, so an idle broker sends
//! nothing to subscribers of `$SYS/#`.

use std::collections::HashMap;
use std::time::Duration;

use crate::metrics::{Sample, store_state_name};

/// Periods of the moving averages, as they end the topics, and in seconds.
const PERIODS: [(&str, f64); 3] = [("1min", 60.0), ("5min", 300.0), ("15min", 900.0)];

/// Keeps what changes from one interval to the next.
#[derive(Debug, Default)]
pub(crate) struct SysTopics {
    previous: Option<Counted>,
    loads: [[f64; PERIODS.len()]; LOAD_COUNT],
    published: HashMap<String, String>,
}

const LOAD_COUNT: usize = 9;

/// The counters of which there are moving averages.
type Counted = [(&'static str, u64); LOAD_COUNT];

impl SysTopics {
    /// Nothing published yet: the next call returns every topic.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Topics and values that have changed. `elapsed` is the time since the last call, `uptime` since the start.
    pub(crate) fn update(
        &mut self,
        sample: &Sample,
        elapsed: Duration,
        uptime: Duration,
    ) -> Vec<(String, String)> {
        let mut topics = figures(sample, uptime);
        self.update_loads(sample, elapsed);
        for ((name, _), averages) in counted(sample).iter().zip(&self.loads) {
            for ((period, _), average) in PERIODS.iter().zip(averages) {
                topics.push((format!("load/{name}/{period}"), format!("{average:.2}")));
            }
        }
        topics.retain(|(topic, value)| self.published.get(topic) != Some(value));
        for (topic, value) in &topics {
            self.published.insert(topic.clone(), value.clone());
        }
        topics.into_iter().map(|(topic, value)| (format!("$SYS/broker/{topic}"), value)).collect()
    }

    /// Exponentially weighted averages per minute: `load = now + e^(-elapsed / period) * (load - now)`.
    fn update_loads(&mut self, sample: &Sample, elapsed: Duration) {
        let current = counted(sample);
        let seconds = elapsed.as_secs_f64();
        if let Some(previous) = self.previous
            && seconds > 0.0
        {
            for (index, (averages, (_, count))) in self.loads.iter_mut().zip(current).enumerate() {
                let difference = count.saturating_sub(previous[index].1);
                let per_minute = as_float(difference) * 60.0 / seconds;
                for ((_, period), average) in PERIODS.iter().zip(averages) {
                    *average = per_minute + (-seconds / period).exp() * (*average - per_minute);
                }
            }
        }
        self.previous = Some(current);
    }
}

fn counted(sample: &Sample) -> Counted {
    [
        ("messages/received", sample.packets.received),
        ("messages/sent", sample.packets.sent),
        ("publish/dropped", sample.dropped),
        ("publish/received", sample.publishes.received),
        ("publish/sent", sample.publishes.sent),
        ("bytes/received", sample.bytes.received),
        ("bytes/sent", sample.bytes.sent),
        ("sockets", sample.sockets),
        ("connections", sample.connects),
    ]
}

fn figures(sample: &Sample, uptime: Duration) -> Vec<(String, String)> {
    let gauges = &sample.gauges;
    let total = gauges.clients_connected.saturating_add(gauges.clients_disconnected);
    let stored = gauges.queued_messages.saturating_add(gauges.retained_messages);
    let stored_bytes = gauges.queued_bytes.saturating_add(gauges.retained_bytes);
    let rows = [
        ("clients/total", total),
        ("clients/maximum", gauges.clients_maximum),
        ("clients/connected", gauges.clients_connected),
        ("clients/active", gauges.clients_connected),
        ("clients/disconnected", gauges.clients_disconnected),
        ("clients/inactive", gauges.clients_disconnected),
        ("clients/expired", sample.sessions_expired),
        ("messages/received", sample.packets.received),
        ("messages/sent", sample.packets.sent),
        ("messages/stored", stored),
        ("messages/inflight", gauges.inflight_messages),
        ("store/messages/count", stored),
        ("store/messages/bytes", stored_bytes),
        ("subscriptions/count", gauges.subscriptions),
        ("shared_subscriptions/count", gauges.shared_subscriptions),
        ("retained messages/count", gauges.retained_messages),
        ("publish/messages/received", sample.publishes.received),
        ("publish/messages/sent", sample.publishes.sent),
        ("publish/messages/dropped", sample.dropped),
        ("publish/bytes/received", sample.publish_bytes.received),
        ("publish/bytes/sent", sample.publish_bytes.sent),
        ("bytes/received", sample.bytes.received),
        ("bytes/sent", sample.bytes.sent),
    ];
    let mut topics = vec![
        ("version".to_owned(), concat!("petrel version ", env!("CARGO_PKG_VERSION")).to_owned()),
        ("uptime".to_owned(), format!("{} seconds", uptime.as_secs())),
    ];
    let mut push = |topic: &str, value: String| topics.push((topic.to_owned(), value));
    for (topic, value) in rows {
        push(topic, value.to_string());
    }
    // mosquitto counts its own allocations; what the system counts is nearer to what people want to know.
    if let Some(bytes) = sample.process.resident_bytes {
        push("heap/current", bytes.to_string());
    }
    if let Some(bytes) = sample.process.resident_peak_bytes {
        push("heap/maximum", bytes.to_string());
    }
    if let Some(store) = &gauges.store {
        push("petrel/durability", store.durability.name().to_owned());
        push("petrel/store", store_state_name(store.state).to_owned());
    }
    topics
}

#[expect(clippy::cast_precision_loss, reason = "a load average needs no 53 bits")]
fn as_float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::durable::{Durability, StoreState};
    use crate::metrics::{Directions, Gauges, StoreGauges};

    fn value<'a>(topics: &'a [(String, String)], topic: &str) -> Option<&'a str> {
        topics.iter().find(|(name, _)| name == topic).map(|(_, value)| value.as_str())
    }

    fn sample(received: u64) -> Sample {
        let gauges = Gauges {
            clients_connected: 2,
            clients_disconnected: 3,
            queued_messages: 10,
            retained_messages: 5,
            store: Some(StoreGauges {
                state: StoreState::Available,
                durability: Durability::Fsync,
                commits: 0,
                syncs: 0,
                unreadable_values: 0,
                pending_bytes: 0,
                disk_bytes: None,
                sync_seconds: crate::metrics::histogram::HistogramSample::default(),
            }),
            ..Gauges::default()
        };
        let packets = Directions { received, sent: 0 };
        Sample { gauges, packets, ..Sample::default() }
    }

    #[test]
    fn first_update_has_everything_and_the_next_what_changed() {
        let mut sys = SysTopics::new();
        let ten = Duration::from_secs(10);
        let topics = sys.update(&sample(0), Duration::ZERO, ten);
        assert_eq!(value(&topics, "$SYS/broker/clients/total"), Some("5"));
        assert_eq!(value(&topics, "$SYS/broker/messages/stored"), Some("15"));
        assert_eq!(value(&topics, "$SYS/broker/uptime"), Some("10 seconds"));
        assert_eq!(value(&topics, "$SYS/broker/petrel/durability"), Some("fsync"));
        assert_eq!(value(&topics, "$SYS/broker/load/messages/received/1min"), Some("0.00"));
        assert!(value(&topics, "$SYS/broker/version").unwrap().starts_with("petrel version "));

        assert_eq!(sys.update(&sample(0), ten, ten), Vec::new());

        let topics = sys.update(&sample(7), ten, ten * 2);
        assert_eq!(value(&topics, "$SYS/broker/messages/received"), Some("7"));
        assert_eq!(value(&topics, "$SYS/broker/clients/total"), None);
        assert_eq!(value(&topics, "$SYS/broker/load/bytes/sent/1min"), None);
    }

    /// 100 packets in ten seconds are 600 a minute; the averages approach that at their own pace.
    #[test]
    fn loads_are_moving_averages_per_minute() {
        let mut sys = SysTopics::new();
        let ten = Duration::from_secs(10);
        sys.update(&sample(0), ten, ten);
        let topics = sys.update(&sample(100), ten, ten);
        let load = |topics: &[(String, String)], period: &str| {
            let topic = format!("$SYS/broker/load/messages/received/{period}");
            value(topics, &topic).map(|text| text.parse::<f64>().unwrap())
        };
        // 600 * (1 - e^(-10/60)) = 92.11, and likewise for 300 and 900 seconds.
        assert_eq!(load(&topics, "1min"), Some(92.11));
        assert_eq!(load(&topics, "5min"), Some(19.67));
        assert_eq!(load(&topics, "15min"), Some(6.63));
        let mut last = Vec::new();
        for round in 2..200 {
            let changed = sys.update(&sample(round * 100), ten, ten);
            last = if load(&changed, "1min").is_some() { changed } else { last };
        }
        assert_eq!(load(&last, "1min"), Some(600.0));
    }

    #[test]
    fn no_time_elapsed_is_no_division_by_zero() {
        let mut sys = SysTopics::new();
        sys.update(&sample(0), Duration::ZERO, Duration::ZERO);
        let topics = sys.update(&sample(5), Duration::ZERO, Duration::ZERO);
        assert_eq!(topics.len(), 1, "{topics:?}");
    }
}
