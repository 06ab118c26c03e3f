//! `petrel bench queue`: messages to durable Sessions whose clients are away, then the clients come back. The first
//! part measures how fast the broker acknowledges; the second checks that it has kept everything.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Args;

use crate::bench::client::{Client, Introduction};
use crate::bench::engine::Engine;
use crate::bench::error::BenchError;
use crate::bench::meter::{Histograms, as_f64, per_second, ratio};
use crate::bench::publisher::{Pace, Publisher, PublisherPlan, PublisherStatus};
use crate::bench::report::{Report, Unit};
use crate::bench::resumption::TlsSession;
use crate::bench::subscriber::{Subscriber, SubscriberPlan, SubscriberStatus};
use crate::bench::throughput::{MessageOptions, topic_prefix};
use crate::bench::tracker::Faults;
use crate::bench::traffic::promise;
use crate::bench::wire::{PublishTemplate, Retain, SessionKind};
use crate::packet::QoS;

/// Options of `queue`.
#[derive(Debug, Args)]
pub(super) struct QueueOptions {
    /// Durable sessions
    #[arg(long, default_value_t = 10, value_name = "N")]
    sessions: u32,
    /// Publishers
    #[arg(long, default_value_t = 10, value_name = "N")]
    publishers: u32,
    /// Messages in total
    #[arg(long, default_value_t = 200_000, value_name = "N")]
    messages: u64,
    #[command(flatten)]
    message: MessageOptions,
    /// Keep the clients of the sessions connected
    #[arg(long)]
    present: bool,
}

/// If nothing arrives for this long, the rest will not arrive either.
const PATIENCE: Duration = Duration::from_secs(15);

impl QueueOptions {
    /// Runs the scenario.
    pub(super) async fn run(mut self, engine: &Engine) -> Result<Report, BenchError> {
        if self.sessions == 0 || self.publishers == 0 {
            let text = "--sessions and --publishers must be at least 1";
            return Err(BenchError::Options(text.to_owned()));
        }
        if self.message.qos() == QoS::AtMostOnce {
            self.message.set_qos(QoS::AtLeastOnce);
        }
        let mut report = Report::new("queue");
        report.setting("transport", engine.target.transport_name());
        report.setting("sessions", self.sessions);
        report.setting("publishers", self.publishers);
        report.setting("messages", self.messages);
        report.setting("qos", self.message.qos() as u8);
        report.setting("window", self.message.window);
        report.setting("payload", self.message.payload);
        report.setting("present", self.present);
        let run = Run::new(&self, engine)?;
        let clients = run.connect(engine, First::Yes).await?;
        let mut drain = None;
        if self.present {
            drain = Some(run.receive(engine, Instant::now(), clients));
        } else {
            for client in clients {
                client.disconnect().await?;
            }
        }
        run.fill(engine, &mut report).await?;
        let drain = if let Some(drain) = drain {
            drain
        } else {
            // From here on, because the broker may send as soon as the first client is back.
            let began = Instant::now();
            let clients = run.connect(engine, First::No).await?;
            run.receive(engine, began, clients)
        };
        run.drain(engine, drain, &mut report).await?;
        run.clean_up(engine).await?;
        Ok(report)
    }
}

/// Whether a Session is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    Yes,
    No,
}

/// Streams are publishers times topics, dealt to the sessions in contiguous ranges.
struct Run<'a> {
    options: &'a QueueOptions,
    prefix: String,
    topics: u32,
    publishers: Arc<[Arc<PublisherStatus>]>,
    subscribers: Vec<Arc<SubscriberStatus>>,
    tls_sessions: Vec<TlsSession>,
    acknowledgements: Histograms,
    deliveries: Histograms,
}

type Receiving = (Instant, Vec<tokio::task::JoinHandle<std::io::Result<Client>>>);

impl<'a> Run<'a> {
    fn new(options: &'a QueueOptions, engine: &Engine) -> Result<Self, BenchError> {
        Ok(Self {
            prefix: topic_prefix(),
            topics: options.sessions.div_ceil(options.publishers),
            publishers: (0..options.publishers).map(|_| Arc::default()).collect(),
            subscribers: (0..options.sessions).map(|_| Arc::default()).collect(),
            tls_sessions: (0..options.sessions).map(|_| TlsSession::default()).collect(),
            acknowledgements: engine.histograms()?,
            deliveries: engine.histograms()?,
            options,
        })
    }

    fn streams_of_session(&self, session: u32) -> Range<u32> {
        let streams = u64::from(self.options.publishers) * u64::from(self.topics);
        let sessions = u64::from(self.options.sessions);
        let bound = |i: u64| u32::try_from(streams * i / sessions).unwrap_or(u32::MAX);
        bound(u64::from(session))..bound(u64::from(session) + 1)
    }

    fn topic(&self, stream: u32) -> String {
        format!("{}/{stream}", self.prefix)
    }

    fn introduction(&self, session: usize, kind: SessionKind) -> Introduction {
        let mut introduction = Introduction::clean("queue", session);
        introduction.session = kind;
        introduction.tls_session = self.tls_sessions[session].clone();
        introduction
    }

    /// Connects the clients of the sessions; a new one subscribes, one that comes back must find its Session.
    async fn connect(&self, engine: &Engine, first: First) -> Result<Vec<Client>, BenchError> {
        let connect = |index: usize| {
            let target = Arc::clone(&engine.target);
            let streams = self.streams_of_session(u32::try_from(index).unwrap_or(u32::MAX));
            let filters: Vec<String> = streams.map(|stream| self.topic(stream)).collect();
            let qos = self.options.message.qos();
            let introduction = self.introduction(index, SessionKind::Durable);
            async move {
                let mut client = Client::connect(&target, &introduction).await?;
                match (first, client.connack.session_present) {
                    (First::Yes, _) => client.subscribe(&filters, qos).await?,
                    (First::No, true) => {}
                    (First::No, false) => {
                        return Err(BenchError::Protocol("the broker forgot a durable session"));
                    }
                }
                Ok(client)
            }
        };
        engine.set_up("connecting sessions", self.subscribers.len(), 64, connect).await
    }

    async fn fill(&self, engine: &Engine, report: &mut Report) -> Result<(), BenchError> {
        let connect = |index| {
            let target = Arc::clone(&engine.target);
            async move { Client::connect(&target, &Introduction::clean("fill", index)).await }
        };
        let clients = engine.set_up("connecting", self.publishers.len(), 64, connect).await?;
        let bar = engine.progress("filling", self.options.messages);
        let before = engine.process_figures()?;
        let began = Instant::now();
        let mut handles = Vec::new();
        for (index, client) in clients.into_iter().enumerate() {
            let plan = self.plan_of_publisher(engine, index);
            let status = Arc::clone(&self.publishers[index]);
            let latencies = self.acknowledgements.of_client(index);
            let publisher = Publisher::new(client, plan, status, latencies, engine.clock);
            handles.push(engine.spawn(index, async move { publisher?.run().await }));
        }
        self.watch(&bar, || self.acknowledged(), self.options.messages).await;
        let took = began.elapsed();
        bar.finish_and_clear();
        for handle in handles {
            handle.abort();
            // Finished or stuck; the counters say which.
            let _result = handle.await;
        }
        let acknowledged = self.acknowledged();
        report.figure("fill_seconds", took.as_secs_f64(), Unit::Seconds);
        let rate = per_second(acknowledged, took);
        report.figure("acknowledged_per_second", rate, Unit::PerSecond);
        let refused: u64 = self.publishers.iter().map(|p| p.refused.load(Ordering::Acquire)).sum();
        report.count("refused", refused);
        if acknowledged < self.options.messages {
            let missing = self.options.messages - acknowledged;
            report.fail(format!("{missing} messages were not acknowledged"));
        }
        if let (Some(before), Some(after)) = (before, engine.process_figures()?) {
            let cpu = as_f64(after.cpu_nanos_since(&before)) / 1_000.0;
            let cost = ratio(cpu, acknowledged);
            report.figure("broker_cpu_per_acknowledged_us", cost, Unit::Microseconds);
            report.figure("broker_cores", cpu / 1e6 / took.as_secs_f64(), Unit::Ratio);
            let grown = after.anonymous_bytes.saturating_sub(before.anonymous_bytes);
            report.figure("broker_bytes_grown", as_f64(grown), Unit::Bytes);
            report.figure("broker_resident_bytes", as_f64(after.resident_bytes), Unit::Bytes);
        }
        report.latency("acknowledgement", &self.acknowledgements.merged()?);
        Ok(())
    }

    fn plan_of_publisher(&self, engine: &Engine, index: usize) -> PublisherPlan {
        let first_stream = u32::try_from(index).unwrap_or(0) * self.topics;
        let MessageOptions { window, payload, .. } = self.options.message;
        let qos = self.options.message.qos();
        let version = engine.target.version;
        let template =
            |stream| PublishTemplate::new(version, &self.topic(stream), qos, Retain::No, payload);
        let publishers = self.publishers.len() as u64;
        let messages = self.options.messages;
        PublisherPlan {
            templates: (first_stream..first_stream + self.topics).map(template).collect(),
            first_stream,
            qos,
            window,
            backlog: 0,
            recipients: 1,
            pace: Pace::Saturate,
            limit: messages / publishers + u64::from((index as u64) < messages % publishers),
        }
    }

    fn receive(&self, engine: &Engine, began: Instant, clients: Vec<Client>) -> Receiving {
        let mut handles = Vec::new();
        for (index, client) in clients.into_iter().enumerate() {
            let plan = SubscriberPlan {
                publishers: Arc::clone(&self.publishers),
                streams_per_publisher: self.topics,
                streams: self.streams_of_session(u32::try_from(index).unwrap_or(u32::MAX)),
                group: None,
                timed_one_in: 64,
            };
            let status = Arc::clone(&self.subscribers[index]);
            let latencies = self.deliveries.of_client(index);
            let subscriber = Subscriber::new(client, plan, status, latencies, engine.clock);
            handles.push(engine.spawn(index, subscriber.run()));
        }
        (began, handles)
    }

    async fn drain(
        &self,
        engine: &Engine,
        receiving: Receiving,
        report: &mut Report,
    ) -> Result<(), BenchError> {
        let (began, handles) = receiving;
        let expected = self.acknowledged();
        let bar = engine.progress("draining", expected);
        let before = engine.process_figures()?;
        let last = self.watch(&bar, || self.received(), expected).await;
        bar.finish_and_clear();
        let received = self.received();
        if self.options.present {
            report.latency("delivery", &self.deliveries.merged()?);
        } else {
            let took = last.duration_since(began);
            report.figure("drain_seconds", took.as_secs_f64(), Unit::Seconds);
            report.figure("drained_per_second", per_second(received, took), Unit::PerSecond);
            if let (Some(before), Some(after)) = (before, engine.process_figures()?) {
                let cpu = as_f64(after.cpu_nanos_since(&before)) / 1_000.0;
                let cost = ratio(cpu, received);
                report.figure("broker_cpu_per_drained_us", cost, Unit::Microseconds);
            }
        }
        // A late duplicate should be seen.
        tokio::time::sleep(Duration::from_millis(200)).await;
        for handle in handles {
            handle.abort();
            // Aborted, as it should be.
            let _cancelled = handle.await;
        }
        report.faults(self.faults(), promise(self.options.message.qos()));
        Ok(())
    }

    fn faults(&self) -> Faults {
        let sent = |stream: u32| {
            let status = &self.publishers[(stream / self.topics) as usize];
            let total = status.sent.load(Ordering::Acquire);
            let topics = u64::from(self.topics);
            total / topics + u64::from(u64::from(stream % self.topics) < total % topics)
        };
        let mut faults = Faults::default();
        for (session, status) in (0..).zip(&self.subscribers) {
            faults += status.faults(self.streams_of_session(session).map(sent));
        }
        faults
    }

    /// Ends the sessions, so that they do not stay at the broker.
    async fn clean_up(&self, engine: &Engine) -> Result<(), BenchError> {
        let connect = |index| {
            let target = Arc::clone(&engine.target);
            let introduction = self.introduction(index, SessionKind::Clean);
            async move { Client::connect(&target, &introduction).await?.disconnect().await }
        };
        engine.set_up("cleaning up", self.subscribers.len(), 64, connect).await?;
        Ok(())
    }

    fn acknowledged(&self) -> u64 {
        self.publishers.iter().map(|status| status.acknowledged.load(Ordering::Acquire)).sum()
    }

    fn received(&self) -> u64 {
        self.subscribers.iter().map(|status| status.received.load(Ordering::Acquire)).sum()
    }

    /// Waits until a counter reaches its end or stops; returns when it last moved.
    async fn watch(
        &self,
        bar: &indicatif::ProgressBar,
        count: impl Fn() -> u64,
        expected: u64,
    ) -> Instant {
        let mut progressed = Instant::now();
        let mut seen = count();
        while seen < expected && progressed.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let now = count();
            if now != seen {
                seen = now;
                progressed = Instant::now();
                bar.set_position(now);
            }
        }
        progressed
    }
}
