//! `petrel bench subscriptions`: many Topic Filters of mixed shapes, the cost of publishing among them, and publishing
//! while subscriptions come and go.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;

use crate::bench::client::{Client, Introduction, in_time, refused_code};
use crate::bench::engine::Engine;
use crate::bench::error::BenchError;
use crate::bench::meter::{as_f64, per_second, ratio};
use crate::bench::report::{Report, Unit};
use crate::bench::throughput::topic_prefix;
use crate::bench::traffic::{Shape, Traffic, TrafficPlan};
use crate::bench::wire::{self, kind};
use crate::packet::QoS;

/// Options of `subscriptions`.
#[derive(Debug, Args)]
pub(super) struct SubscriptionsOptions {
    /// Topic filters in total
    #[arg(long, default_value_t = 100_000, value_name = "N")]
    count: usize,
    /// Clients that own them
    #[arg(long, default_value_t = 10, value_name = "N")]
    clients: usize,
    /// Topic filters in one SUBSCRIBE
    #[arg(long, default_value_t = 200, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    batch: u16,
    /// Topics published in turn, spread over the filters; many topics show the cost of matching without caches
    #[arg(long, default_value_t = 1_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    topics: u32,
    /// How long to publish; each message matches one filter
    #[arg(long, default_value = "3s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Then publish while this many subscriptions per second come and go
    #[arg(long, value_name = "PER_SECOND")]
    churn: Option<u64>,
}

/// SUBSCRIBE packets of one client without SUBACK.
const SUBSCRIBE_WINDOW: usize = 8;
const WARM_UP: Duration = Duration::from_millis(500);

impl SubscriptionsOptions {
    /// Runs the scenario.
    pub(super) async fn run(self, engine: &Engine) -> Result<Report, BenchError> {
        if self.count == 0 || self.clients == 0 {
            let text = "--count and --clients must be at least 1";
            return Err(BenchError::Options(text.to_owned()));
        }
        let mut report = Report::new("subscriptions");
        report.setting("transport", engine.target.transport_name());
        report.setting("count", self.count);
        report.setting("clients", self.clients);
        report.setting("batch", self.batch);
        let prefix: Arc<str> = topic_prefix().into();
        let clients = self.subscribe_all(engine, &prefix, &mut report).await?;
        let plan = self.plan(&prefix);
        report.setting("topics", plan.topics);
        let mut traffic = Traffic::with_clients(engine, plan, clients).await?;
        traffic.start(engine);
        traffic.run_for(engine, "warming up", WARM_UP).await;
        let calm = self.publish(engine, &mut traffic, &mut report, "").await?;
        if let Some(rate) = self.churn {
            let churn = Churn::start(engine, &prefix, rate).await?;
            traffic.run_for(engine, "warming up", WARM_UP).await;
            let began = Instant::now();
            let changes = churn.changes.load(Ordering::Acquire);
            let busy = self.publish(engine, &mut traffic, &mut report, "_during_churn").await?;
            let changed = churn.changes.load(Ordering::Acquire) - changes;
            let reached = per_second(changed, began.elapsed()) / 2.0;
            report.figure("churn_per_second", reached, Unit::PerSecond);
            report.figure("churn_throughput_ratio", busy / calm.max(1e-9), Unit::Ratio);
            churn.task.abort();
        }
        traffic.stop(engine).await?;
        traffic.describe_faults(&mut report);
        Ok(report)
    }

    async fn subscribe_all(
        &self,
        engine: &Engine,
        prefix: &Arc<str>,
        report: &mut Report,
    ) -> Result<Vec<Client>, BenchError> {
        let connect = |index| {
            let target = Arc::clone(&engine.target);
            async move { Client::connect(&target, &Introduction::clean("many", index)).await }
        };
        let clients = engine.set_up("connecting", self.clients, 64, connect).await?;
        let before = engine.process_figures()?;
        let bar = engine.progress("subscribing", self.count as u64);
        let began = Instant::now();
        let mut handles = Vec::new();
        for (index, client) in clients.into_iter().enumerate() {
            let (count, clients, batch) = (self.count, self.clients, usize::from(self.batch));
            let (prefix, bar) = (Arc::clone(prefix), bar.clone());
            handles.push(engine.spawn(index, async move {
                let numbers: Vec<usize> = (index..count).step_by(clients).collect();
                subscribe_many(client, &numbers, batch, &prefix, &bar).await
            }));
        }
        let mut clients = Vec::new();
        for handle in handles {
            clients.push(handle.await??);
        }
        let took = began.elapsed();
        bar.finish_and_clear();
        let count = self.count as u64;
        report.figure("subscribed_per_second", per_second(count, took), Unit::PerSecond);
        if let (Some(before), Some(after)) = (before, engine.process_figures()?) {
            let cpu = as_f64(after.cpu_nanos_since(&before)) / 1_000.0;
            report.figure("broker_cpu_per_subscription_us", ratio(cpu, count), Unit::Microseconds);
            tokio::time::sleep(Duration::from_millis(500)).await;
            let after = engine.process_figures()?.unwrap_or(after);
            let grown = as_f64(after.anonymous_bytes.saturating_sub(before.anonymous_bytes));
            report.figure("broker_bytes_per_subscription", ratio(grown, count), Unit::Bytes);
            report.figure("broker_resident_bytes", as_f64(after.resident_bytes), Unit::Bytes);
        }
        Ok(clients)
    }

    /// Publishes to topics spread over the filters, each matched by one.
    fn plan(&self, prefix: &str) -> TrafficPlan {
        let topics = topic_numbers(self.count, self.topics as usize);
        let topics: Vec<String> = topics.map(|number| topic(prefix, number)).collect();
        TrafficPlan {
            shape: Shape::Shared,
            publishers: 1,
            subscribers: self.clients,
            qos: QoS::AtMostOnce,
            window: 1,
            backlog: 1_000,
            payload_bytes: 64,
            topics: u32::try_from(topics.len()).unwrap_or(u32::MAX),
            rate: None,
            messages: None,
            prefix: prefix.to_owned(),
            timed_one_in: 64,
            topic_names: Some(topics.into()),
        }
    }

    async fn publish(
        &self,
        engine: &Engine,
        traffic: &mut Traffic,
        report: &mut Report,
        suffix: &str,
    ) -> Result<f64, BenchError> {
        let from = traffic.totals(engine)?;
        traffic.run_for(engine, "publishing", self.duration).await;
        let to = traffic.totals(engine)?;
        let rate = to.delivered_per_second_since(&from);
        report.figure(format!("delivered{suffix}_per_second"), rate, Unit::PerSecond);
        if let Some(cost) = to.cpu_per_delivered_since(&from) {
            let name = format!("broker_cpu_per_delivered{suffix}_us");
            report.figure(name, cost, Unit::Microseconds);
        }
        Ok(rate)
    }
}

/// A filter among many: half are exact, the others have wildcards at the end, in the middle, or match nothing that is
/// published here.
fn filter(prefix: &str, number: usize) -> String {
    let site = number % 997;
    match number % 8 {
        4 => format!("{prefix}/site{site}/device{number}/+"),
        5 => format!("{prefix}/site{site}/device{number}/#"),
        6 => format!("{prefix}/+/device{number}/temperature"),
        7 => format!("{prefix}/site{site}/+/alarm{number}/+/state"),
        _ => topic(prefix, number),
    }
}

/// The topic that filter `number` matches and no other.
fn topic(prefix: &str, number: usize) -> String {
    format!("{prefix}/site{}/device{number}/temperature", number % 997)
}

/// The nearest number whose filter is matched by its topic.
fn matching_number(number: usize) -> usize {
    if number % 8 == 7 { number - 1 } else { number }
}

/// The numbers of at most so many different topics, each matched by one of `count` filters, spread over all of them.
fn topic_numbers(count: usize, max_topics: usize) -> impl Iterator<Item = usize> {
    // Odd, so that filters of every shape are met; down, so that they are as many as wished where there are.
    let step = (count / max_topics).saturating_sub(1) | 1;
    // Where no number is left out, the filter that matches nothing would give its neighbour's number again.
    let is_new = move |number: &usize| step > 1 || *number % 8 != 7;
    (0..count).step_by(step).filter(is_new).map(matching_number).take(max_topics)
}

async fn subscribe_many(
    mut client: Client,
    numbers: &[usize],
    batch: usize,
    prefix: &str,
    bar: &indicatif::ProgressBar,
) -> Result<Client, BenchError> {
    let mut answered = std::collections::VecDeque::new();
    let mut batches = numbers.chunks(batch).zip((1..=u16::MAX).cycle());
    loop {
        while answered.len() < SUBSCRIBE_WINDOW
            && let Some((numbers, packet_id)) = batches.next()
        {
            let filters: Vec<String> =
                numbers.iter().map(|number| filter(prefix, *number)).collect();
            let filters = filters.iter().map(String::as_str);
            let packet = wire::subscribe(client.version, packet_id, filters, QoS::AtMostOnce);
            client.send(&packet, "subscribing").await?;
            answered.push_back(numbers.len());
        }
        let Some(count) = answered.pop_front() else { return Ok(client) };
        let (first, body) = in_time("subscribing", client.read_packet("subscribing")).await?;
        if first != kind::SUBACK {
            return Err(BenchError::Protocol("the answer to SUBSCRIBE is not a SUBACK"));
        }
        if let Some(code) = refused_code(client.version, &body) {
            return Err(BenchError::SubscriptionRefused { code });
        }
        bar.inc(count as u64);
    }
}

/// A client whose subscriptions come and go at a fixed rate.
struct Churn {
    /// SUBACK and UNSUBACK packets received.
    changes: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<Result<(), BenchError>>,
}

impl Churn {
    async fn start(engine: &Engine, prefix: &Arc<str>, rate: u64) -> Result<Self, BenchError> {
        let changes = Arc::new(AtomicU64::new(0));
        let target = Arc::clone(&engine.target);
        let prefix = Arc::clone(prefix);
        let counter = Arc::clone(&changes);
        let (connected, is_connected) = tokio::sync::oneshot::channel();
        let task = engine.spawn(0, async move {
            let client = Client::connect(&target, &Introduction::clean("churn", 0)).await?;
            // The receiver waits for this and cannot be gone.
            let _received = connected.send(());
            churn(client, &prefix, rate, &counter).await
        });
        if is_connected.await.is_err() {
            task.await??;
            return Err(BenchError::Protocol("the churning client stopped"));
        }
        Ok(Self { changes, task })
    }
}

/// Every tick, subscribes to some filters and unsubscribes those of the tick before, one filter in a packet. An open
/// loop: late answers delay nothing until a second's worth of them is missing.
async fn churn(
    mut client: Client,
    prefix: &str,
    rate: u64,
    changes: &AtomicU64,
) -> Result<(), BenchError> {
    const TICK: Duration = Duration::from_millis(10);
    let per_tick = (rate / 100).max(1);
    let mut ticks = tokio::time::interval(TICK);
    let mut unanswered = 0;
    let mut number = 0_u64;
    loop {
        tokio::select! {
            answers = read_answers(&mut client) => {
                let answers = answers?;
                unanswered -= answers.min(unanswered);
                changes.fetch_add(answers, Ordering::AcqRel);
            }
            _ = ticks.tick(), if unanswered < 2 * rate.max(100) => {
                let packets = churn_packets(&client, prefix, number, per_tick);
                unanswered += per_tick + number.min(per_tick);
                number += per_tick;
                client.send(&packets, "subscribing").await?;
            }
        }
    }
}

fn churn_packets(client: &Client, prefix: &str, number: u64, per_tick: u64) -> Vec<u8> {
    /// Packet Identifiers for each of the two kinds.
    const IDENTIFIERS: u64 = 30_000;
    let filter = |number: u64| format!("{prefix}/churn{}/device{number}/+", number % 997);
    let packet_id = |number: u64| u16::try_from(1 + number % (2 * IDENTIFIERS)).unwrap_or(1);
    let mut packets = Vec::new();
    for number in number..number + per_tick {
        let filter = filter(number);
        let filters = std::iter::once(filter.as_str());
        let packet = wire::subscribe(
            client.version,
            packet_id(number % IDENTIFIERS),
            filters,
            QoS::AtMostOnce,
        );
        packets.extend(packet);
    }
    for number in number.saturating_sub(per_tick)..number {
        let filter = filter(number);
        let filters = std::iter::once(filter.as_str());
        packets.extend(wire::unsubscribe(
            client.version,
            packet_id(number % IDENTIFIERS + IDENTIFIERS),
            filters,
        ));
    }
    packets
}

/// Waits for some SUBACK and UNSUBACK packets and counts them.
async fn read_answers(client: &mut Client) -> Result<u64, BenchError> {
    let mut answers = 0;
    let received = std::future::poll_fn(|cx| {
        client.poll_receive(cx, |_output, first, _body| {
            if matches!(first, kind::SUBACK | kind::UNSUBACK) {
                answers += 1;
            }
        })
    });
    received.await.map_err(|source| BenchError::Lost { during: "subscribing", source })?;
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn topics_differ_and_are_as_many_as_wished_or_as_there_are() {
        for (count, wished, least) in
            [(100_000, 1_000, 1_000), (100_000, 20_000, 20_000), (1_000, 1_000, 875), (5, 10, 5)]
        {
            let numbers: Vec<usize> = topic_numbers(count, wished).collect();
            let different: BTreeSet<&usize> = numbers.iter().collect();
            assert_eq!(different.len(), numbers.len(), "{count} {wished}");
            assert!((least..=wished).contains(&numbers.len()), "{count} {wished}");
            assert!(numbers.iter().all(|number| *number < count && number % 8 != 7));
        }
    }
}
