//! Periodic work of a running broker: expiry, Wills and limits of all Sessions, and the `$SYS` topics.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::broker::Broker;
use crate::broker::registry::Registry;
use crate::metrics::Metrics;
use crate::metrics::sys::SysTopics;
use crate::net::tally;
use crate::session::effects::Effects;
use crate::session::work::Budget;
use crate::store::clock::BrokerClock;

/// How often expiry, wills and limits of the whole broker are checked.
const TICK: Duration = Duration::from_millis(500);

/// Expires Sessions, publishes due wills, and enforces the limit of all queues together.
pub(super) async fn keep_time(
    broker: Arc<Broker>,
    clock: BrokerClock,
    metrics: Metrics,
    total_queue_bytes: u64,
) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut count = 0_u64;
    let mut sweep = None;
    loop {
        ticks.tick().await;
        let mut effects = Effects::new();
        loop {
            effects.budget = Budget::turn();
            let has_due = broker.handle_timers(clock.now(), &mut effects);
            let has_ended = broker.take_ended_apart(&mut effects);
            broker.carry_out(&mut effects);
            if !has_due && !has_ended {
                break;
            }
            tokio::task::yield_now().await;
        }
        effects.budget = Budget::default();
        sweep = broker.sweep_retained(sweep, clock.now(), &mut effects);
        tally::count(metrics.counters(), &mut effects.tally);
        count += 1;
        if count.is_multiple_of(4) {
            let mut bytes = 0;
            for part in 0..Registry::PARTS {
                bytes += broker.queue_bytes_of_part(part);
                tokio::task::yield_now().await;
            }
            broker.check_total_queue_bytes(bytes, total_queue_bytes);
        }
    }
}

/// Publishes the `$SYS` topics, retained, at an interval; only those that have changed.
pub(super) async fn publish_sys(
    broker: Arc<Broker>,
    clock: BrokerClock,
    metrics: Metrics,
    period: Duration,
    durability: &'static str,
) {
    let started = Instant::now();
    let mut last = started;
    let mut topics = SysTopics::new();
    let mut effects = Effects::new();
    let version = concat!("petrel version ", env!("CARGO_PKG_VERSION"));
    for (topic, value) in [("version", version), ("petrel/durability", durability)] {
        let topic = format!("$SYS/broker/{topic}");
        broker.publish_internal(&topic, value.as_bytes(), clock.now(), &mut effects);
    }
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // Visits every Session, so it does not run on a thread that serves Clients.
        let sampled = metrics.clone();
        let Ok(sample) = tokio::task::spawn_blocking(move || sampled.sample()).await else {
            continue;
        };
        let elapsed = last.elapsed();
        last = Instant::now();
        for (topic, value) in topics.update(&sample, elapsed, started.elapsed()) {
            let now = clock.now();
            broker.publish_internal(&topic, value.as_bytes(), now, &mut effects);
        }
        tally::count(metrics.counters(), &mut effects.tally);
    }
}
