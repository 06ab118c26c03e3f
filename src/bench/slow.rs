//! `petrel bench slow`: readers that stop reading while others go on. The others should not notice.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use hdrhistogram::Histogram;

use crate::bench::connections::allow_files;
use crate::bench::engine::Engine;
use crate::bench::error::BenchError;
use crate::bench::link::{Introduction, Link};
use crate::bench::meter::as_f64;
use crate::bench::publisher::{Pace, Publisher, PublisherPlan, PublisherStatus};
use crate::bench::report::{Report, Unit};
use crate::bench::throughput::{MessageOptions, topic_prefix};
use crate::bench::traffic::{Shape, Traffic, TrafficPlan};
use crate::bench::transport::SocketOptions;
use crate::bench::wire::{PublishTemplate, Retain};

/// Options of `slow`.
#[derive(Debug, Args)]
pub(super) struct SlowOptions {
    /// Readers that stop reading
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    slow: usize,
    /// Messages a second that each of them should receive
    #[arg(long, default_value_t = 10.0, value_name = "PER_SECOND")]
    slow_rate: f64,
    /// Payload of these messages
    #[arg(long, default_value_t = 1_024, value_name = "BYTES")]
    slow_payload: usize,
    /// Pairs of clients that go on
    #[arg(long, default_value_t = 10, value_name = "N")]
    pairs: usize,
    /// Messages a second of all pairs together; left out, as many as go through
    #[arg(long, value_name = "PER_SECOND")]
    rate: Option<f64>,
    #[command(flatten)]
    message: MessageOptions,
    /// How long to let the readers' buffers fill before measuring again
    #[arg(long, default_value = "3s", value_parser = humantime::parse_duration)]
    fill: Duration,
    /// How long to measure, before and again while the readers stand still
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    duration: Duration,
}

const WARM_UP: Duration = Duration::from_secs(1);

impl SlowOptions {
    /// Measures.
    pub(super) async fn run(self, engine: &Engine) -> Result<Report, BenchError> {
        if !(0.001..=1e7).contains(&self.slow_rate) || self.rate.is_some_and(|rate| rate < 0.001) {
            return Err(BenchError::Options("a rate is out of range".to_owned()));
        }
        allow_files(self.slow as u64 + 2 * self.pairs as u64 + 64)?;
        let mut report = Report::new("slow");
        report.setting("transport", engine.target.transport_name());
        report.setting("slow", self.slow);
        report.setting("slow_rate", self.slow_rate);
        report.setting("slow_payload", self.slow_payload);
        let prefix = topic_prefix();
        let mut traffic = Traffic::set_up(engine, self.plan(&prefix)).await?;
        traffic.start(engine);
        traffic.run_for(engine, "warming up", WARM_UP).await;
        let before = self.measure(engine, &traffic).await?;
        let memory = engine.process_figures()?;
        let readers = self.stopped_readers(engine, &prefix).await?;
        let flood = self.flood(engine, &prefix)?;
        // What fits into the buffers of the kernel and the broker is filled meanwhile.
        traffic.run_for(engine, "filling buffers", self.fill).await;
        let during = self.measure(engine, &traffic).await?;
        describe(&before, &during, &mut report);
        if let (Some(memory), Some(now)) = (memory, engine.process_figures()?) {
            let grown = now.resident_bytes.saturating_sub(memory.resident_bytes);
            report.figure("broker_bytes_grown", as_f64(grown), Unit::Bytes);
            report.figure("broker_resident_bytes", as_f64(now.resident_bytes), Unit::Bytes);
        }
        flood.abort();
        drop(readers);
        traffic.stop(engine).await?;
        traffic.describe_faults(&mut report);
        Ok(report)
    }

    fn plan(&self, prefix: &str) -> TrafficPlan {
        TrafficPlan {
            shape: Shape::Pairs,
            publishers: self.pairs,
            subscribers: self.pairs,
            qos: self.message.qos(),
            window: self.message.window,
            backlog: if self.rate.is_some() { 0 } else { 1_000 },
            payload_bytes: self.message.payload,
            topics: 1,
            rate: self.rate,
            messages: None,
            prefix: format!("{prefix}/pairs"),
            timed_one_in: if self.rate.is_some() { 1 } else { 64 },
            topic_names: None,
        }
    }

    async fn measure(&self, engine: &Engine, traffic: &Traffic) -> Result<Phase, BenchError> {
        traffic.reset_latencies();
        let from = traffic.totals(engine)?;
        traffic.run_for(engine, "measuring", self.duration).await;
        let to = traffic.totals(engine)?;
        let rate = to.delivered_per_second_since(&from);
        Ok(Phase { rate, deliveries: traffic.deliveries.merged()? })
    }

    /// Connected, subscribed, and never read again.
    async fn stopped_readers(
        &self,
        engine: &Engine,
        prefix: &str,
    ) -> Result<Vec<Link>, BenchError> {
        const RECEIVE_BUFFER_BYTES: u32 = 4_096;
        let connect = |index| {
            let target = Arc::clone(&engine.target);
            let filters = vec![format!("{prefix}/slow")];
            let qos = self.message.qos();
            async move {
                let mut introduction = Introduction::clean("slow", index);
                let receive_buffer_bytes = Some(RECEIVE_BUFFER_BYTES);
                introduction.socket = SocketOptions { receive_buffer_bytes };
                let mut link = Link::connect(&target, &introduction).await?;
                link.subscribe(&filters, qos).await?;
                Ok(link)
            }
        };
        engine.set_up("connecting slow readers", self.slow, 200, connect).await
    }

    /// Publishes to the readers that stand still.
    fn flood(
        &self,
        engine: &Engine,
        prefix: &str,
    ) -> Result<tokio::task::JoinHandle<()>, BenchError> {
        let topic = format!("{prefix}/slow");
        let qos = self.message.qos();
        let version = engine.target.version;
        let interval = Duration::from_secs_f64(1.0 / self.slow_rate).as_nanos();
        let plan = PublisherPlan {
            templates: vec![PublishTemplate::new(
                version,
                &topic,
                qos,
                Retain::No,
                self.slow_payload,
            )],
            first_stream: 0,
            qos,
            window: self.message.window,
            backlog: 0,
            recipients: 1,
            pace: Pace::Schedule {
                first: engine.clock.now(),
                interval: u64::try_from(interval).unwrap_or(u64::MAX).max(1),
            },
            limit: u64::MAX,
        };
        let (target, clock) = (Arc::clone(&engine.target), engine.clock);
        let latencies = engine.histograms()?.of_client(0);
        Ok(engine.spawn(0, async move {
            let status = Arc::<PublisherStatus>::default();
            let Ok(link) = Link::connect(&target, &Introduction::clean("flood", 0)).await else {
                return;
            };
            if let Ok(publisher) = Publisher::new(link, plan, status, latencies, clock) {
                // A broker may close it, too: that protects the others.
                let _ended = publisher.run().await;
            }
        }))
    }
}

/// What the others saw.
struct Phase {
    rate: f64,
    deliveries: Histogram<u64>,
}

fn describe(before: &Phase, during: &Phase, report: &mut Report) {
    report.figure("delivered_before_per_second", before.rate, Unit::PerSecond);
    report.figure("delivered_during_per_second", during.rate, Unit::PerSecond);
    let ratio = during.rate / before.rate.max(1e-9);
    report.figure("throughput_ratio", ratio, Unit::Ratio);
    report.latency("before", &before.deliveries);
    report.latency("during", &during.deliveries);
}
