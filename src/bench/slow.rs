//! `petrel bench slow`: readers that stop reading while other clients continue. The others should not be affected.
//!
//! Four phases, all with the same traffic between the others: `alone`, without the readers; `reading`, with a flood for the
//! readers that they read; `filling`, the same flood from the moment they stop; `stalled`, after that. So the cost of
//! active readers is measured separately from the cost of stopped ones.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Args;
use hdrhistogram::Histogram;
use tokio::task::JoinHandle;

use crate::bench::client::{Client, Introduction};
use crate::bench::connections::allow_files;
use crate::bench::engine::Engine;
use crate::bench::error::BenchError;
use crate::bench::meter::{as_f64, per_second};
use crate::bench::publisher::{Pace, Publisher, PublisherPlan, PublisherStatus};
use crate::bench::report::{Report, Unit};
use crate::bench::subscriber::{Subscriber, SubscriberPlan, SubscriberStatus};
use crate::bench::throughput::{MessageOptions, topic_prefix};
use crate::bench::traffic::{Shape, Traffic, TrafficPlan};
use crate::bench::wire::{PublishTemplate, Retain};

/// Options of `slow`.
#[derive(Debug, Args)]
pub(super) struct SlowOptions {
    /// Readers that read at first and then stop
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    slow: usize,
    /// Messages per second that each of them should receive
    #[arg(long, default_value_t = 50.0, value_name = "PER_SECOND")]
    slow_rate: f64,
    /// Payload of these messages
    #[arg(long, default_value_t = 1_024, value_name = "BYTES")]
    slow_payload: usize,
    /// Pairs of clients that continue
    #[arg(long, default_value_t = 10, value_name = "N")]
    pairs: usize,
    /// Messages per second of all pairs together [default: as many as possible]
    #[arg(long, value_name = "PER_SECOND")]
    rate: Option<f64>,
    #[command(flatten)]
    message: MessageOptions,
    /// How long to measure while the buffers of the stopped readers fill
    #[arg(long, default_value = "8s", value_parser = humantime::parse_duration)]
    fill: Duration,
    /// How long to measure each of the other phases
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    duration: Duration,
}

const WARM_UP: Duration = Duration::from_secs(1);

impl SlowOptions {
    /// Runs the scenario.
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
        let nobody = Readers::default();
        traffic.start(engine);
        traffic.run_for(engine, "warming up", WARM_UP).await;
        let alone = Observation::measure(engine, &traffic, &nobody, "alone", self.duration).await?;

        let readers = self.readers(engine, &prefix).await?;
        let (flood, flooded) = self.flood(engine, &prefix)?;
        traffic.run_for(engine, "warming up", WARM_UP).await;
        let reading =
            Observation::measure(engine, &traffic, &readers, "reading", self.duration).await?;
        readers.check(&mut report);
        let memory = engine.process_figures()?;

        let sent = flooded.sent.load(Ordering::Acquire);
        readers.stop();
        let filling =
            Observation::measure(engine, &traffic, &readers, "filling", self.fill).await?;
        let sent = flooded.sent.load(Ordering::Acquire) - sent;
        let stalled =
            Observation::measure(engine, &traffic, &readers, "stalled", self.duration).await?;

        describe(&[alone, reading, filling, stalled], &mut report);
        let unread = as_f64(sent * self.slow_payload as u64);
        report.figure("unread_when_stalled_bytes", unread, Unit::Bytes);
        if let (Some(memory), Some(now)) = (memory, engine.process_figures()?) {
            let grown = now.resident_bytes.saturating_sub(memory.resident_bytes);
            report.figure("broker_bytes_grown", as_f64(grown), Unit::Bytes);
            report.figure("broker_resident_bytes", as_f64(now.resident_bytes), Unit::Bytes);
        }
        flood.abort();
        readers.cut();
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

    /// Connected, subscribed and reading.
    async fn readers(&self, engine: &Engine, prefix: &str) -> Result<Readers, BenchError> {
        const RECEIVE_BUFFER_BYTES: u32 = 4_096;
        let connect = |index| {
            let target = Arc::clone(&engine.target);
            let filters = vec![format!("{prefix}/slow")];
            let qos = self.message.qos();
            async move {
                let mut introduction = Introduction::clean("slow", index);
                introduction.receive_buffer_bytes = Some(RECEIVE_BUFFER_BYTES);
                let mut client = Client::connect(&target, &introduction).await?;
                client.subscribe(&filters, qos).await?;
                Ok(client)
            }
        };
        let clients = engine.set_up("connecting slow readers", self.slow, 200, connect).await?;
        Readers::start(engine, clients)
    }

    /// Publishes to the readers, whether they read or not.
    fn flood(
        &self,
        engine: &Engine,
        prefix: &str,
    ) -> Result<(JoinHandle<()>, Arc<PublisherStatus>), BenchError> {
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
        let status = Arc::<PublisherStatus>::default();
        let flooded = Arc::clone(&status);
        let flood = engine.spawn(0, async move {
            let Ok(client) = Client::connect(&target, &Introduction::clean("flood", 0)).await
            else {
                return;
            };
            if let Ok(publisher) = Publisher::new(client, plan, status, latencies, clock) {
                // A broker may close it, too: that protects the others.
                let _ended = publisher.run().await;
            }
        });
        Ok((flood, flooded))
    }
}

/// The readers, each a task of its own that does no more than count and acknowledge.
#[derive(Default)]
struct Readers {
    statuses: Vec<Arc<SubscriberStatus>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Readers {
    fn start(engine: &Engine, clients: Vec<Client>) -> Result<Self, BenchError> {
        /// Never: what counts is what others see.
        const TIMED_ONE_IN: u64 = 1 << 63;
        let latencies = engine.histograms()?;
        let mut readers = Self::default();
        for (index, client) in clients.into_iter().enumerate() {
            let status = Arc::<SubscriberStatus>::default();
            let plan = SubscriberPlan {
                publishers: Arc::default(),
                streams_per_publisher: 1,
                streams: 0..1,
                group: None,
                timed_one_in: TIMED_ONE_IN,
            };
            let latencies = latencies.of_client(index);
            let subscriber =
                Subscriber::new(client, plan, Arc::clone(&status), latencies, engine.clock);
            readers.statuses.push(status);
            readers.tasks.push(engine.spawn(index, async move {
                if let Ok(client) = subscriber.run().await {
                    // Stopped: the connection stays open, and what comes stays unread.
                    std::future::pending::<()>().await;
                    drop(client);
                }
            }));
        }
        Ok(readers)
    }

    /// Messages read so far.
    fn received(&self) -> u64 {
        self.statuses.iter().map(|status| status.received.load(Ordering::Acquire)).sum()
    }

    /// Notes readers that are gone before they stopped: no damage found with them.
    fn check(&self, report: &mut Report) {
        let failed = self.statuses.iter().filter(|status| status.failed.load(Ordering::Acquire));
        let failed = failed.count();
        if failed > 0 {
            report.fail(format!("{failed} readers lost their connection while reading"));
        }
    }

    /// None of them reads from here on.
    fn stop(&self) {
        for status in &self.statuses {
            status.stopped.store(true, Ordering::Release);
        }
    }

    /// Cuts their connections.
    fn cut(self) {
        for task in self.tasks {
            task.abort();
        }
    }
}

/// What the pairs saw for a while.
struct Observation {
    name: &'static str,
    /// Messages a second that the pairs delivered.
    delivered: f64,
    /// Messages a second that the readers read.
    read: f64,
    /// CPU of the broker for all there was, for each message that the pairs delivered, in microseconds.
    cpu_micros: Option<f64>,
    deliveries: Histogram<u64>,
}

impl Observation {
    async fn measure(
        engine: &Engine,
        traffic: &Traffic,
        readers: &Readers,
        name: &'static str,
        time: Duration,
    ) -> Result<Self, BenchError> {
        traffic.reset_latencies();
        let (began, read) = (Instant::now(), readers.received());
        let from = traffic.totals(engine)?;
        traffic.run_for(engine, name, time).await;
        let to = traffic.totals(engine)?;
        Ok(Self {
            name,
            delivered: to.delivered_per_second_since(&from),
            read: per_second(readers.received() - read, began.elapsed()),
            cpu_micros: to.cpu_per_delivered_since(&from),
            deliveries: traffic.deliveries.merged()?,
        })
    }

    fn p99(&self) -> f64 {
        as_f64(self.deliveries.value_at_quantile(0.99))
    }
}

/// The figures of the phases, and their ratios to the two in which nobody stands still.
fn describe(phases: &[Observation; 4], report: &mut Report) {
    for Observation { name, delivered, read, cpu_micros, deliveries } in phases {
        report.figure(format!("delivered_{name}_per_second"), *delivered, Unit::PerSecond);
        report.figure(format!("readers_received_{name}_per_second"), *read, Unit::PerSecond);
        if let Some(cost) = cpu_micros {
            report.figure(format!("broker_cpu_per_delivered_{name}_us"), *cost, Unit::Microseconds);
        }
        report.latency(name, deliveries);
    }
    let [alone, reading, filling, stalled] = phases;
    let pairs = [
        (reading, alone),
        (filling, alone),
        (stalled, alone),
        (filling, reading),
        (stalled, reading),
    ];
    for (phase, base) in pairs {
        let names = format!("{}_to_{}", phase.name, base.name);
        let throughput = phase.delivered / base.delivered.max(1e-9);
        report.figure(format!("throughput_{names}_ratio"), throughput, Unit::Ratio);
        let p99 = phase.p99() / base.p99().max(1e-9);
        report.figure(format!("p99_{names}_ratio"), p99, Unit::Ratio);
    }
}
