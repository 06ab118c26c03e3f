//! `petrel bench retained`: sets Retained Messages, then receives them all through a wildcard.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Args;

use crate::bench::client::{Client, Introduction};
use crate::bench::engine::Engine;
use crate::bench::error::BenchError;
use crate::bench::meter::{as_f64, per_second, ratio};
use crate::bench::publisher::{Pace, Publisher, PublisherPlan, PublisherStatus};
use crate::bench::report::{Report, Unit};
use crate::bench::subscriber::{Subscriber, SubscriberPlan, SubscriberStatus};
use crate::bench::throughput::{MessageOptions, topic_prefix};
use crate::bench::tracker::Faults;
use crate::bench::traffic::promise;
use crate::bench::wire::{self, PublishTemplate, Retain, STAMP_BYTES};
use crate::packet::QoS;

/// Options of `retained`.
#[derive(Debug, Args)]
pub(super) struct RetainedOptions {
    /// Number of retained messages
    #[arg(long, default_value_t = 100_000, value_name = "N")]
    count: u32,
    /// Publishers that set them
    #[arg(long, default_value_t = 4, value_name = "N")]
    publishers: u32,
    /// Subscribers that request all of them at the same time
    #[arg(long, default_value_t = 1, value_name = "N")]
    subscribers: usize,
    #[command(flatten)]
    message: MessageOptions,
    /// Do not remove the messages afterwards
    #[arg(long)]
    keep: bool,
}

/// If nothing arrives for this long, the rest will not arrive either.
const PATIENCE: Duration = Duration::from_secs(10);

impl RetainedOptions {
    /// Runs the scenario.
    pub(super) async fn run(self, engine: &Engine) -> Result<Report, BenchError> {
        if self.count == 0 || self.publishers == 0 || self.message.payload < STAMP_BYTES {
            let text =
                format!("--count and --publishers must be at least 1, --payload {STAMP_BYTES}");
            return Err(BenchError::Options(text));
        }
        let mut report = Report::new("retained");
        report.setting("transport", engine.target.transport_name());
        report.setting("count", self.count);
        report.setting("payload", self.message.payload);
        report.setting("qos", self.message.qos() as u8);
        let prefix = topic_prefix();
        let before = engine.process_figures()?;
        let began = Instant::now();
        let payload_bytes = self.message.payload;
        let refused = self.publish_all(engine, &prefix, payload_bytes, "setting").await?;
        let count = u64::from(self.count);
        report.figure("set_per_second", per_second(count, began.elapsed()), Unit::PerSecond);
        if refused > 0 {
            report.fail(format!("{refused} messages were refused"));
        }
        // At QoS 0 the broker may still be reading.
        tokio::time::sleep(Duration::from_secs(1)).await;
        if let (Some(before), Some(after)) = (&before, engine.process_figures()?) {
            let grown = as_f64(after.anonymous_bytes.saturating_sub(before.anonymous_bytes));
            report.figure("broker_bytes_per_message", ratio(grown, count), Unit::Bytes);
            let cpu = as_f64(after.cpu_nanos_since(before)) / 1_000.0;
            report.figure("broker_cpu_per_set_us", ratio(cpu, count), Unit::Microseconds);
            report.figure("broker_resident_bytes", as_f64(after.resident_bytes), Unit::Bytes);
        }
        self.receive_all(engine, &prefix, &mut report).await?;
        if !self.keep {
            self.publish_all(engine, &prefix, 0, "clearing").await?;
        }
        Ok(report)
    }

    /// Publishes one message to each topic; with an empty payload that clears it. Returns how many were refused.
    async fn publish_all(
        &self,
        engine: &Engine,
        prefix: &str,
        payload_bytes: usize,
        what: &'static str,
    ) -> Result<u64, BenchError> {
        let bar = engine.progress(what, u64::from(self.count));
        // Clearing needs an answer, or the connection might be closed before the broker has read everything.
        let qos = if payload_bytes == 0 { QoS::AtLeastOnce } else { self.message.qos() };
        let latencies = engine.histograms()?;
        let mut handles = Vec::new();
        let mut statuses = Vec::new();
        for (index, numbers) in (0..).zip(self.shares()) {
            let version = engine.target.version;
            let template = |number| {
                let topic = topic(prefix, number);
                PublishTemplate::new(version, &topic, qos, Retain::Yes, payload_bytes)
            };
            let plan = PublisherPlan {
                templates: numbers.clone().map(template).collect(),
                first_stream: numbers.start,
                qos,
                window: self.message.window,
                backlog: 0,
                recipients: 1,
                pace: Pace::Saturate,
                limit: u64::from(numbers.end - numbers.start),
            };
            let status = Arc::<PublisherStatus>::default();
            statuses.push(Arc::clone(&status));
            let (target, clock) = (Arc::clone(&engine.target), engine.clock);
            let latencies = latencies.of_client(index);
            handles.push(engine.spawn(index, async move {
                let lost = |source| BenchError::Lost { during: "publishing", source };
                let client = Client::connect(&target, &Introduction::clean("set", index)).await?;
                let publisher =
                    Publisher::new(client, plan, status, latencies, clock).map_err(lost)?;
                publisher.run().await.map_err(lost)?.disconnect().await
            }));
        }
        for handle in handles {
            handle.await??;
        }
        bar.finish_and_clear();
        Ok(statuses.iter().map(|status| status.refused.load(Ordering::Acquire)).sum())
    }

    /// The numbers of each publisher.
    fn shares(&self) -> Vec<std::ops::Range<u32>> {
        let publishers = u64::from(self.publishers.min(self.count));
        let bound = |i: u64| u32::try_from(u64::from(self.count) * i / publishers).unwrap_or(0);
        (0..publishers).map(|i| bound(i)..bound(i + 1)).collect()
    }

    async fn receive_all(
        &self,
        engine: &Engine,
        prefix: &str,
        report: &mut Report,
    ) -> Result<(), BenchError> {
        let connect = |index| {
            let target = Arc::clone(&engine.target);
            async move { Client::connect(&target, &Introduction::clean("get", index)).await }
        };
        let mut clients = engine.set_up("connecting", self.subscribers, 64, connect).await?;
        let filter = format!("{prefix}/#");
        let subscribe = |version| {
            wire::subscribe(version, 1, std::iter::once(filter.as_str()), self.message.qos())
        };
        let before = engine.process_figures()?;
        let began = Instant::now();
        for client in &mut clients {
            let packet = subscribe(client.version);
            client.send(&packet, "subscribing").await?;
        }
        let latencies = engine.histograms()?;
        let statuses: Vec<Arc<SubscriberStatus>> = clients.iter().map(|_| Arc::default()).collect();
        let mut handles = Vec::new();
        for (index, client) in clients.into_iter().enumerate() {
            let plan = SubscriberPlan {
                publishers: Arc::new([]),
                streams_per_publisher: 1,
                streams: 0..self.count,
                group: None,
                timed_one_in: 1 << 63,
            };
            let (status, latencies) = (Arc::clone(&statuses[index]), latencies.of_client(index));
            let subscriber = Subscriber::new(client, plan, status, latencies, engine.clock);
            handles.push(engine.spawn(index, subscriber.run()));
        }
        let expected = u64::from(self.count) * self.subscribers as u64;
        let last = self.wait_for(engine, &statuses, expected).await;
        let took = last.duration_since(began);
        for handle in handles {
            handle.abort();
            // Aborted, as it should be.
            let _cancelled = handle.await;
        }
        let sum = |status: &Arc<SubscriberStatus>| status.received.load(Ordering::Acquire);
        let received: u64 = statuses.iter().map(sum).sum();
        report.figure("receive_seconds", took.as_secs_f64(), Unit::Seconds);
        report.figure("received_per_second", per_second(received, took), Unit::PerSecond);
        if let (Some(before), Some(after)) = (before, engine.process_figures()?) {
            let cpu = as_f64(after.cpu_nanos_since(&before)) / 1_000.0;
            report.figure("broker_cpu_per_received_us", ratio(cpu, received), Unit::Microseconds);
        }
        report.count("received", received);
        let mut faults = Faults::default();
        for status in &statuses {
            faults += status.faults((0..self.count).map(|_| 1));
        }
        // Retained Messages are complete whatever the QoS: nothing allows to leave some out.
        report.faults(faults, promise(self.message.qos().max(QoS::AtLeastOnce)));
        Ok(())
    }

    /// Waits for all of them; returns when the last one came.
    async fn wait_for(
        &self,
        engine: &Engine,
        statuses: &[Arc<SubscriberStatus>],
        expected: u64,
    ) -> Instant {
        let bar = engine.progress("receiving", expected);
        let mut progressed = Instant::now();
        let mut received = 0;
        while received < expected && progressed.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let sum = |status: &Arc<SubscriberStatus>| status.received.load(Ordering::Acquire);
            let now = statuses.iter().map(sum).sum();
            if now != received {
                received = now;
                progressed = Instant::now();
                bar.set_position(received);
            }
        }
        bar.finish_and_clear();
        progressed
    }
}

fn topic(prefix: &str, number: u32) -> String {
    format!("{prefix}/site{}/device{number}/state", number % 997)
}
