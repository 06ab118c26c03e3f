//! A group of publishers and subscribers: sets them up, starts and stops them, adds up their results.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use crate::bench::client::{Client, Introduction};
use crate::bench::engine::Engine;
use crate::bench::error::BenchError;
use crate::bench::meter::{Histograms, as_f64, per_second, ratio};
use crate::bench::process::ProcessFigures;
use crate::bench::publisher::{Pace, Publisher, PublisherPlan, PublisherStatus};
use crate::bench::report::{Promise, Report, Unit};
use crate::bench::subscriber::{Subscriber, SubscriberPlan, SubscriberStatus};
use crate::bench::tracker::{Faults, SetTracker};
use crate::bench::wire::{PublishTemplate, Retain};
use crate::packet::QoS;

/// Who receives from whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Shape {
    /// Each publisher has its own subscriber
    Pairs,
    /// Many publishers, few subscribers that receive everything
    FanIn,
    /// Few publishers, many subscribers that receive everything
    FanOut,
    /// Subscribers share one subscription
    Shared,
}

impl Shape {
    fn name(self) -> &'static str {
        match self {
            Self::Pairs => "pairs",
            Self::FanIn => "fan-in",
            Self::FanOut => "fan-out",
            Self::Shared => "shared",
        }
    }
}

/// The traffic to generate.
#[derive(Debug, Clone)]
pub(super) struct TrafficPlan {
    /// Who receives from whom.
    pub(super) shape: Shape,
    /// Number of publishers.
    pub(super) publishers: usize,
    /// Number of subscribers.
    pub(super) subscribers: usize,
    /// QoS of messages and subscriptions.
    pub(super) qos: QoS,
    /// Unacknowledged messages of a publisher.
    pub(super) window: u16,
    /// Undelivered messages of a publisher; zero is no bound.
    pub(super) backlog: u64,
    /// Length of each payload.
    pub(super) payload_bytes: usize,
    /// Topics of a publisher.
    pub(super) topics: u32,
    /// Messages a second of all publishers together; `None` is as many as go through.
    pub(super) rate: Option<f64>,
    /// Messages of all publishers together.
    pub(super) messages: Option<u64>,
    /// Opens all topics.
    pub(super) prefix: String,
    /// One message in so many is timed (a power of two).
    pub(super) timed_one_in: u64,
    /// The topics, when they are not to be made from the prefix; as many as `topics`, for one publisher.
    pub(super) topic_names: Option<Arc<[String]>>,
}

/// Connected clients that wait for [`Traffic::start`], or run.
pub(super) struct Traffic {
    plan: TrafficPlan,
    publishers: Arc<[Arc<PublisherStatus>]>,
    subscribers: Vec<Arc<SubscriberStatus>>,
    group: Option<Arc<Mutex<Vec<SetTracker>>>>,
    waiting: Vec<Client>,
    running: Vec<JoinHandle<()>>,
    /// From the (intended) moment of sending to the arrival at the subscriber.
    pub(super) deliveries: Histograms,
    /// From the (intended) moment of sending to the acknowledgement.
    pub(super) acknowledgements: Histograms,
}

/// Sums at one moment.
#[derive(Debug, Clone)]
pub(super) struct Totals {
    at: Instant,
    /// Messages sent.
    pub(super) sent: u64,
    /// Messages acknowledged.
    pub(super) acknowledged: u64,
    /// Messages refused.
    pub(super) refused: u64,
    /// Messages received.
    pub(super) received: u64,
    process: Option<ProcessFigures>,
    /// The generator itself, which may be what limits the throughput.
    generator: Option<ProcessFigures>,
}

const SET_UP_CONCURRENCY: usize = 64;

/// A limited run with nothing received for so long is over. A kernel that runs out of memory for TCP drops packets, and
/// sends them again after pauses that double.
const LOST_AFTER: Duration = Duration::from_secs(30);

impl Traffic {
    /// Connects all clients; the subscribers begin to listen.
    pub(super) async fn set_up(engine: &Engine, plan: TrafficPlan) -> Result<Self, BenchError> {
        plan.check()?;
        let connect = |index| {
            let target = Arc::clone(&engine.target);
            let filters = plan.filters_of_subscriber(index);
            let qos = plan.qos;
            async move {
                let mut client =
                    Client::connect(&target, &Introduction::clean("sub", index)).await?;
                client.subscribe(&filters, qos).await?;
                Ok(client)
            }
        };
        let count = plan.subscribers;
        let clients =
            engine.set_up("connecting subscribers", count, SET_UP_CONCURRENCY, connect).await?;
        Self::with_clients(engine, plan, clients).await
    }

    /// The same with subscribers that are connected and subscribed already.
    pub(super) async fn with_clients(
        engine: &Engine,
        plan: TrafficPlan,
        subscribers: Vec<Client>,
    ) -> Result<Self, BenchError> {
        plan.check()?;
        let trackers = || vec![SetTracker::default(); plan.stream_count() as usize];
        let group = (plan.shape == Shape::Shared).then(|| Arc::new(Mutex::new(trackers())));
        let mut traffic = Self {
            subscribers: (0..plan.subscribers).map(|_| Arc::default()).collect(),
            publishers: (0..plan.publishers).map(|_| Arc::default()).collect(),
            group,
            waiting: Vec::new(),
            running: Vec::new(),
            deliveries: engine.histograms()?,
            acknowledgements: engine.histograms()?,
            plan,
        };
        traffic.listen(engine, subscribers);
        let connect = |index| {
            let target = Arc::clone(&engine.target);
            async move { Client::connect(&target, &Introduction::clean("pub", index)).await }
        };
        let count = traffic.plan.publishers;
        traffic.waiting =
            engine.set_up("connecting publishers", count, SET_UP_CONCURRENCY, connect).await?;
        Ok(traffic)
    }

    fn listen(&mut self, engine: &Engine, clients: Vec<Client>) {
        for (index, client) in clients.into_iter().enumerate() {
            let subscriber = Subscriber::new(
                client,
                SubscriberPlan {
                    publishers: Arc::clone(&self.publishers),
                    streams_per_publisher: self.plan.topics,
                    streams: self.plan.streams_of_subscriber(index),
                    group: self.group.clone(),
                    timed_one_in: self.plan.timed_one_in,
                },
                Arc::clone(&self.subscribers[index]),
                self.deliveries.of_client(index),
                engine.clock,
            );
            self.running.push(engine.spawn(index, async move {
                // The status says that it failed; why does not matter to the figures.
                let _lost = subscriber.run().await;
            }));
        }
    }

    /// Lets the publishers begin.
    pub(super) fn start(&mut self, engine: &Engine) {
        let begin = engine.clock.now() + 10_000_000;
        for (index, client) in std::mem::take(&mut self.waiting).into_iter().enumerate() {
            let plan = self.plan.of_publisher(engine, index, begin);
            let status = Arc::clone(&self.publishers[index]);
            let latencies = self.acknowledgements.of_client(index);
            let clock = engine.clock;
            self.running.push(engine.spawn(index, async move {
                if let Ok(publisher) =
                    Publisher::new(client, plan, Arc::clone(&status), latencies, clock)
                    && let Ok(client) = publisher.run().await
                {
                    // Kept open until the run is over: closing would disturb what is measured.
                    std::future::pending::<()>().await;
                    drop(client);
                } else {
                    status.failed.store(true, Ordering::Release);
                }
            }));
        }
    }

    /// The sums now.
    pub(super) fn totals(&self, engine: &Engine) -> Result<Totals, BenchError> {
        let sum = |counter: fn(&PublisherStatus) -> u64| -> u64 {
            self.publishers.iter().map(|status| counter(status)).sum()
        };
        Ok(Totals {
            at: Instant::now(),
            sent: sum(|status| status.sent.load(Ordering::Acquire)),
            acknowledged: sum(|status| status.acknowledged.load(Ordering::Acquire)),
            refused: sum(|status| status.refused.load(Ordering::Acquire)),
            received: self.received(),
            process: engine.process_figures()?,
            generator: Engine::generator_figures(),
        })
    }

    fn received(&self) -> u64 {
        self.subscribers.iter().map(|status| status.received.load(Ordering::Acquire)).sum()
    }

    fn reads(&self) -> u64 {
        self.subscribers.iter().map(|status| status.reads.load(Ordering::Relaxed)).sum()
    }

    /// Forgets the latencies so far.
    pub(super) fn reset_latencies(&self) {
        self.deliveries.reset();
        self.acknowledgements.reset();
    }

    /// Waits `time`, and makes sure that the traffic continues even if the broker drops a whole backlog.
    pub(super) async fn run_for(&self, engine: &Engine, what: &'static str, time: Duration) {
        let watch = async {
            let mut sent = vec![0; self.publishers.len()];
            loop {
                tokio::time::sleep(STALL_TIME).await;
                for (status, before) in self.publishers.iter().zip(&mut sent) {
                    let now = status.sent.load(Ordering::Acquire);
                    if now == *before && self.plan.qos == QoS::AtMostOnce {
                        status.forgive(self.plan.recipients());
                    }
                    *before = now;
                }
            }
        };
        tokio::select! {
            () = engine.wait(what, time) => {}
            () = watch => {}
        }
    }

    /// Waits until all messages of a limited run arrived. False if it got stuck before.
    pub(super) async fn run_to_end(&self, engine: &Engine) -> bool {
        let expected = self.plan.messages.unwrap_or(0) * self.plan.recipients();
        let bar = engine.progress("publishing", expected);
        let done = self.wait_for_received(|| expected, LOST_AFTER, &bar).await;
        bar.finish_and_clear();
        done
    }

    /// Stops the publishers and waits for what is on its way.
    pub(super) async fn stop(&mut self, engine: &Engine) -> Result<(), BenchError> {
        for status in self.publishers.iter() {
            status.stopped.store(true, Ordering::Release);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        let recipients = self.plan.recipients();
        let expected = || {
            let sent = self.publishers.iter().map(|status| status.sent.load(Ordering::Acquire));
            sent.sum::<u64>() * recipients
        };
        let bar = engine.progress("draining", expected());
        let patience = if self.plan.qos == QoS::AtMostOnce { 1_000 } else { 5_000 };
        self.wait_for_received(expected, Duration::from_millis(patience), &bar).await;
        bar.finish_and_clear();
        for handle in self.running.drain(..) {
            handle.abort();
            // Aborted, as it should be.
            let _cancelled = handle.await;
        }
        Ok(())
    }

    /// Waits until so many messages arrived; false if nothing at all came for as long as `patience`.
    async fn wait_for_received(
        &self,
        expected: impl Fn() -> u64,
        patience: Duration,
        bar: &indicatif::ProgressBar,
    ) -> bool {
        let mut reads = 0;
        let mut progressed = Instant::now();
        while self.received() < expected() {
            tokio::time::sleep(Duration::from_millis(2)).await;
            let now = self.reads();
            if now != reads {
                reads = now;
                progressed = Instant::now();
                bar.set_position(self.received());
            } else if progressed.elapsed() > patience {
                return false;
            }
        }
        true
    }

    /// Faults of all subscribers. Call after [`Traffic::stop`].
    pub(super) fn faults(&self) -> Faults {
        let sent = |stream: u32| {
            let topics = u64::from(self.plan.topics);
            let status = self.publishers.get((stream / self.plan.topics) as usize);
            let total = status.map_or(0, |status| status.sent.load(Ordering::Acquire));
            let refused = status.map_or(0, |status| status.refused.load(Ordering::Acquire));
            let at = u64::from(stream % self.plan.topics);
            (total / topics + u64::from(at < total % topics)).saturating_sub(refused / topics)
        };
        let mut faults = Faults::default();
        if let Some(group) = &self.group {
            for (stream, tracker) in (0..).zip(group.lock().iter()) {
                faults += tracker.faults(sent(stream));
            }
            return faults;
        }
        for (index, status) in self.subscribers.iter().enumerate() {
            faults += status.faults(self.plan.streams_of_subscriber(index).map(sent));
        }
        faults
    }

    /// Clients whose connection ended.
    pub(super) fn failed_count(&self) -> usize {
        let publishers = self.publishers.iter().filter(|s| s.failed.load(Ordering::Acquire));
        let subscribers = self.subscribers.iter().filter(|s| s.failed.load(Ordering::Acquire));
        publishers.count() + subscribers.count()
    }

    /// Puts settings and the figures between two moments into a report.
    pub(super) fn describe(&self, report: &mut Report, from: &Totals, to: &Totals) {
        self.plan.describe(report);
        to.describe_since(from, self.plan.payload_bytes, report);
    }

    /// Puts faults into a report.
    pub(super) fn describe_faults(&self, report: &mut Report) {
        report.faults(self.faults(), promise(self.plan.qos));
        let failed = self.failed_count();
        if failed > 0 {
            report.fail(format!("{failed} clients lost their connection"));
        }
        let foreign: u64 =
            self.subscribers.iter().map(|status| status.foreign.load(Ordering::Acquire)).sum();
        if foreign > 0 {
            report.fail(format!("{foreign} messages reached a subscriber they were not meant for"));
        }
        let unknown: u64 =
            self.publishers.iter().map(|status| status.unknown.load(Ordering::Acquire)).sum();
        if unknown > 0 {
            report.fail(format!("{unknown} acknowledgements belong to no message"));
        }
    }
}

/// A backlog that does not move for this long is considered lost.
const STALL_TIME: Duration = Duration::from_secs(1);

/// What a broker promises for messages of a QoS on connections that do not break.
pub(super) fn promise(qos: QoS) -> Promise {
    match qos {
        QoS::AtMostOnce => Promise::Order,
        QoS::AtLeastOnce | QoS::ExactlyOnce => Promise::Complete,
    }
}

impl Totals {
    /// Adds rates and the broker's cost since an earlier moment.
    pub(super) fn describe_since(&self, from: &Self, payload_bytes: usize, report: &mut Report) {
        let time = self.at.duration_since(from.at);
        let sent = self.sent - from.sent;
        let received = self.received - from.received;
        report.figure("measured_seconds", time.as_secs_f64(), Unit::Seconds);
        report.figure("published_per_second", per_second(sent, time), Unit::PerSecond);
        let acknowledged = self.acknowledged - from.acknowledged;
        if acknowledged > 0 {
            let rate = per_second(acknowledged, time);
            report.figure("acknowledged_per_second", rate, Unit::PerSecond);
        }
        if self.refused > from.refused {
            report.count("refused", self.refused - from.refused);
        }
        report.figure("delivered_per_second", per_second(received, time), Unit::PerSecond);
        let payload = per_second(received * payload_bytes as u64, time);
        report.figure("delivered_payload_bytes_per_second", payload, Unit::PerSecond);
        if let (Some(process), Some(earlier)) = (&self.process, &from.process) {
            let cpu_micros = as_f64(process.cpu_nanos_since(earlier)) / 1_000.0;
            let cost = ratio(cpu_micros, received);
            report.figure("broker_cpu_per_delivered_us", cost, Unit::Microseconds);
            report.figure(
                "broker_cpu_per_published_us",
                ratio(cpu_micros, sent),
                Unit::Microseconds,
            );
            let cores = cpu_micros / 1e6 / time.as_secs_f64().max(1e-9);
            report.figure("broker_cores", cores, Unit::Ratio);
            report.figure("broker_resident_bytes", as_f64(process.resident_bytes), Unit::Bytes);
        }
        if let (Some(generator), Some(earlier)) = (&self.generator, &from.generator) {
            let cpu_micros = as_f64(generator.cpu_nanos_since(earlier)) / 1_000.0;
            let cost = ratio(cpu_micros, received);
            report.figure("generator_cpu_per_delivered_us", cost, Unit::Microseconds);
            let cores = cpu_micros / 1e6 / time.as_secs_f64().max(1e-9);
            report.figure("generator_cores", cores, Unit::Ratio);
        }
    }

    /// Messages delivered a second since an earlier moment.
    pub(super) fn delivered_per_second_since(&self, from: &Self) -> f64 {
        per_second(self.received - from.received, self.at.duration_since(from.at))
    }

    /// CPU of the broker for each delivered message since an earlier moment, in microseconds.
    pub(super) fn cpu_per_delivered_since(&self, from: &Self) -> Option<f64> {
        let nanos = self.process.as_ref()?.cpu_nanos_since(from.process.as_ref()?);
        Some(ratio(as_f64(nanos) / 1_000.0, self.received - from.received))
    }
}

impl TrafficPlan {
    fn check(&self) -> Result<(), BenchError> {
        let problem = |text: &str| Err(BenchError::Options(text.to_owned()));
        if self.publishers == 0 || self.subscribers == 0 || self.topics == 0 {
            return problem("publishers, subscribers and topics must be at least 1");
        }
        if self.shape == Shape::Pairs && self.publishers != self.subscribers {
            return problem("pairs have as many subscribers as publishers");
        }
        if self.window == 0 {
            return problem("--window must be at least 1");
        }
        if self.payload_bytes > 268_000_000 {
            return problem("--payload does not fit into a packet");
        }
        if self.publishers as u64 * u64::from(self.topics) > 4_000_000 {
            return problem("more than 4,000,000 topics");
        }
        Ok(())
    }

    /// How many recipients each message has.
    pub(super) fn recipients(&self) -> u64 {
        match self.shape {
            Shape::Pairs | Shape::Shared => 1,
            Shape::FanIn | Shape::FanOut => self.subscribers as u64,
        }
    }

    fn stream_count(&self) -> u32 {
        u32::try_from(self.publishers).unwrap_or(u32::MAX).saturating_mul(self.topics)
    }

    fn streams_of_subscriber(&self, index: usize) -> std::ops::Range<u32> {
        match self.shape {
            Shape::Pairs => {
                let start = u32::try_from(index).unwrap_or(0) * self.topics;
                start..start + self.topics
            }
            Shape::FanIn | Shape::FanOut | Shape::Shared => 0..self.stream_count(),
        }
    }

    fn topic(&self, publisher: usize, topic: u32) -> String {
        if let Some(name) = self.topic_names.as_ref().and_then(|names| names.get(topic as usize)) {
            return name.clone();
        }
        match self.topics {
            1 => format!("{}/{publisher}", self.prefix),
            _ => format!("{}/{publisher}/{topic}", self.prefix),
        }
    }

    fn filters_of_subscriber(&self, index: usize) -> Vec<String> {
        /// More publishers than this are subscribed to with a wildcard.
        const MAX_EXACT: usize = 100;
        let one = |publisher: usize| match self.topics {
            1 => format!("{}/{publisher}", self.prefix),
            _ => format!("{}/{publisher}/+", self.prefix),
        };
        match self.shape {
            Shape::Pairs => vec![one(index)],
            Shape::Shared => vec![format!("$share/bench/{}/#", self.prefix)],
            Shape::FanIn | Shape::FanOut if self.publishers <= MAX_EXACT => {
                (0..self.publishers).map(one).collect()
            }
            Shape::FanIn | Shape::FanOut => vec![format!("{}/#", self.prefix)],
        }
    }

    fn of_publisher(&self, engine: &Engine, index: usize, begin: u64) -> PublisherPlan {
        let version = engine.target.version;
        let templates = (0..self.topics)
            .map(|topic| {
                let topic = self.topic(index, topic);
                PublishTemplate::new(version, &topic, self.qos, Retain::No, self.payload_bytes)
            })
            .collect();
        let publishers = self.publishers as u64;
        let pace = match self.rate {
            None => Pace::Saturate,
            Some(rate) => {
                let between = Duration::from_secs_f64(1.0 / rate);
                let interval = between * u32::try_from(publishers).unwrap_or(u32::MAX);
                let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
                let first = begin + nanos(between).saturating_mul(index as u64);
                Pace::Schedule { first, interval: nanos(interval).max(1) }
            }
        };
        let share = |messages: u64| {
            messages / publishers + u64::from((index as u64) < messages % publishers)
        };
        PublisherPlan {
            templates,
            first_stream: u32::try_from(index).unwrap_or(0) * self.topics,
            qos: self.qos,
            window: self.window,
            backlog: self.backlog,
            recipients: self.recipients(),
            pace,
            limit: self.messages.map_or(u64::MAX, share),
        }
    }

    fn describe(&self, report: &mut Report) {
        report.setting("shape", self.shape.name());
        report.setting("publishers", self.publishers);
        report.setting("subscribers", self.subscribers);
        report.setting("qos", self.qos as u8);
        report.setting("payload", self.payload_bytes);
        report.setting("topics", self.topics);
        report.setting("window", self.window);
        report.setting("backlog", self.backlog);
        if let Some(rate) = self.rate {
            report.setting("rate", rate);
        }
    }
}
