//! `petrel bench connections`: idle clients and what they cost, connection storms, connects and handshakes per second.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::task::JoinHandle;

use crate::bench::client::{Client, Introduction};
use crate::bench::engine::Engine;
use crate::bench::error::BenchError;
use crate::bench::meter::{Histograms, SharedHistogram, as_f64, per_second, ratio};
use crate::bench::report::{Report, Unit};
use crate::bench::resumption::TlsSession;
use crate::bench::throughput::topic_prefix;
use crate::bench::wire;
use crate::packet::QoS;

/// Options of `connections`.
#[derive(Debug, Args)]
pub(super) struct ConnectionsOptions {
    /// Number of idle clients
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    clients: usize,
    /// Let each client subscribe to its own topic
    #[arg(long)]
    subscribe: bool,
    /// Clients that connect at the same time
    #[arg(long, default_value_t = 200, value_name = "N")]
    concurrency: usize,
    /// How long to hold the connections, to check that none is lost
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    hold: Duration,
    /// Close all connections, then reconnect all clients at once
    #[arg(long)]
    storm: bool,
    /// As --storm, but wait until the broker is restarted instead of closing the connections
    #[arg(long, conflicts_with = "storm")]
    storm_after_restart: bool,
    /// Connect and disconnect repeatedly for this time, instead of holding connections
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration,
          conflicts_with_all = ["storm", "storm_after_restart", "subscribe"])]
    cycle: Option<Duration>,
}

/// Descriptors that are not connections of clients.
const OTHER_FILES: u64 = 64;

impl ConnectionsOptions {
    /// Runs the scenario.
    pub(super) async fn run(self, engine: &Engine) -> Result<Report, BenchError> {
        let mut report = Report::new("connections");
        report.setting("transport", engine.target.transport_name());
        report.setting("concurrency", self.concurrency);
        match self.cycle {
            Some(time) => self.cycle(engine, time, &mut report).await?,
            None => self.hold(engine, &mut report).await?,
        }
        Ok(report)
    }

    async fn hold(&self, engine: &Engine, report: &mut Report) -> Result<(), BenchError> {
        allow_files(self.clients as u64 + OTHER_FILES)?;
        report.setting("clients", self.clients);
        report.setting("subscribe", self.subscribe);
        let crowd = Crowd { subscribe: self.subscribe, ..Crowd::new(engine, self.clients)? };
        let before = engine.process_figures()?;
        let began = Instant::now();
        let clients = crowd.connect(engine, self.clients, self.concurrency, Patience::None).await?;
        let rate = per_second(self.clients as u64, began.elapsed());
        report.figure("connects_per_second", rate, Unit::PerSecond);
        report.latency("connect", &crowd.latencies.merged()?);
        let handles = crowd.idle(engine, clients);
        // Buffers of the handshake are given back meanwhile.
        engine.wait("holding", self.hold.max(Duration::from_secs(1))).await;
        if let (Some(before), Some(after)) = (before, engine.process_figures()?) {
            let clients = self.clients as u64;
            let grown = after.anonymous_bytes.saturating_sub(before.anonymous_bytes);
            report.figure(
                "broker_bytes_per_connection",
                ratio(as_f64(grown), clients),
                Unit::Bytes,
            );
            let cpu = as_f64(after.cpu_nanos_since(&before)) / 1_000.0;
            report.figure("broker_cpu_per_connect_us", ratio(cpu, clients), Unit::Microseconds);
            report.figure("broker_resident_bytes", as_f64(after.resident_bytes), Unit::Bytes);
        }
        let lost = crowd.lost.load(Ordering::Acquire);
        report.count("lost_while_idle", lost);
        if lost > 0 {
            report.fail(format!("{lost} idle clients lost their connection"));
        }
        if self.storm || self.storm_after_restart {
            self.storm(engine, crowd, handles, report).await?;
        }
        Ok(())
    }

    async fn storm(
        &self,
        engine: &Engine,
        crowd: Crowd,
        handles: Vec<JoinHandle<()>>,
        report: &mut Report,
    ) -> Result<(), BenchError> {
        if self.storm_after_restart {
            let bar = engine.progress("restart the broker now", self.clients as u64);
            while crowd.lost.load(Ordering::Acquire) < self.clients as u64 {
                tokio::time::sleep(Duration::from_millis(5)).await;
                bar.set_position(crowd.lost.load(Ordering::Acquire));
            }
            bar.finish_and_clear();
        }
        for handle in &handles {
            handle.abort();
        }
        for handle in handles {
            // Aborted, as it should be.
            let _cancelled = handle.await;
        }
        crowd.latencies.reset();
        crowd.forget_handshakes();
        let began = Instant::now();
        let clients =
            crowd.connect(engine, self.clients, self.clients, Patience::Minute(began)).await?;
        let rate = per_second(self.clients as u64, began.elapsed());
        report.figure("storm_seconds", began.elapsed().as_secs_f64(), Unit::Seconds);
        report.figure("storm_connects_per_second", rate, Unit::PerSecond);
        report.count("storm_retries", crowd.retries.load(Ordering::Acquire));
        crowd.describe_handshakes(engine, "storm_", 0, report);
        report.latency("storm", &crowd.latencies.merged()?);
        drop(clients);
        Ok(())
    }

    async fn cycle(
        &self,
        engine: &Engine,
        time: Duration,
        report: &mut Report,
    ) -> Result<(), BenchError> {
        allow_files(self.concurrency as u64 + OTHER_FILES)?;
        let crowd = Crowd::new(engine, self.concurrency)?;
        let before = engine.process_figures()?;
        let began = Instant::now();
        let mut handles = Vec::new();
        for index in 0..self.concurrency {
            let crowd = crowd.clone();
            let latencies = crowd.latencies.of_client(index);
            let target = Arc::clone(&engine.target);
            handles.push(engine.spawn(index, async move {
                let introduction = crowd.introduction("cycle", index);
                while began.elapsed() < time {
                    let attempt = Instant::now();
                    let client = Client::connect(&target, &introduction).await?;
                    record(&latencies, attempt);
                    crowd.note_connected(&client);
                    client.disconnect().await?;
                }
                Ok::<_, BenchError>(())
            }));
        }
        engine.wait("connecting", time).await;
        for handle in handles {
            handle.await??;
        }
        let took = began.elapsed();
        let connected = crowd.connected.load(Ordering::Acquire);
        report.figure("connects_per_second", per_second(connected, took), Unit::PerSecond);
        let clients = self.concurrency as u64;
        crowd.describe_handshakes(engine, "", clients, report);
        if let (Some(before), Some(after)) = (before, engine.process_figures()?) {
            let cpu = as_f64(after.cpu_nanos_since(&before)) / 1_000.0;
            report.figure("broker_cpu_per_connect_us", ratio(cpu, connected), Unit::Microseconds);
        }
        report.latency("connect", &crowd.latencies.merged()?);
        Ok(())
    }
}

/// How long a client tries.
#[derive(Debug, Clone, Copy)]
enum Patience {
    /// The first failure counts.
    None,
    /// Tries again for a minute; latencies count from this moment.
    Minute(Instant),
}

/// Clients that do nothing, and what they met.
#[derive(Clone)]
struct Crowd {
    subscribe: bool,
    latencies: Histograms,
    /// Of each client, by its index.
    tls_sessions: Arc<[TlsSession]>,
    connected: Arc<AtomicU64>,
    resumed: Arc<AtomicU64>,
    retries: Arc<AtomicU64>,
    lost: Arc<AtomicU64>,
}

impl Crowd {
    fn new(engine: &Engine, clients: usize) -> Result<Self, BenchError> {
        Ok(Self {
            subscribe: false,
            latencies: engine.histograms()?,
            tls_sessions: (0..clients).map(|_| TlsSession::default()).collect(),
            connected: Arc::default(),
            resumed: Arc::default(),
            retries: Arc::default(),
            lost: Arc::default(),
        })
    }

    async fn connect(
        &self,
        engine: &Engine,
        count: usize,
        concurrency: usize,
        patience: Patience,
    ) -> Result<Vec<Client>, BenchError> {
        let prefix: Arc<str> = topic_prefix().into();
        let connect = |index| {
            let crowd = self.clone();
            let target = Arc::clone(&engine.target);
            let latencies = self.latencies.of_client(index);
            let filters = vec![format!("{prefix}/idle/{index}")];
            let introduction = self.introduction("idle", index);
            async move {
                let mut began = Instant::now();
                let mut client = match patience {
                    Patience::None => Client::connect(&target, &introduction).await?,
                    Patience::Minute(since) => {
                        began = since;
                        loop {
                            match Client::connect(&target, &introduction).await {
                                Ok(client) => break client,
                                Err(error) if since.elapsed() > STORM_PATIENCE => {
                                    return Err(error);
                                }
                                Err(_) => {
                                    crowd.retries.fetch_add(1, Ordering::AcqRel);
                                    tokio::time::sleep(Duration::from_millis(100)).await;
                                }
                            }
                        }
                    }
                };
                record(&latencies, began);
                crowd.note_connected(&client);
                if crowd.subscribe {
                    client.subscribe(&filters, QoS::AtMostOnce).await?;
                }
                Ok(client)
            }
        };
        engine.set_up("connecting", count, concurrency, connect).await
    }

    fn introduction(&self, role: &str, index: usize) -> Introduction {
        let tls_session = self.tls_sessions[index].clone();
        Introduction { tls_session, ..Introduction::clean(role, index) }
    }

    fn note_connected(&self, client: &Client) {
        self.connected.fetch_add(1, Ordering::AcqRel);
        if client.is_resumed == Some(true) {
            self.resumed.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn forget_handshakes(&self) {
        self.connected.store(0, Ordering::Release);
        self.resumed.store(0, Ordering::Release);
    }

    /// How the connections since the last [`Crowd::forget_handshakes`] began, of which the `first` had nothing to resume.
    fn describe_handshakes(&self, engine: &Engine, prefix: &str, first: u64, report: &mut Report) {
        if !engine.target.is_tls() {
            return;
        }
        let resumed = self.resumed.load(Ordering::Acquire);
        let connected = self.connected.load(Ordering::Acquire);
        report.count(format!("{prefix}full_handshakes"), connected - resumed);
        report.count(format!("{prefix}resumed_handshakes"), resumed);
        let share = ratio(as_f64(resumed), connected.saturating_sub(first));
        report.figure(format!("{prefix}resumed_share_of_reconnects"), share, Unit::Ratio);
    }

    /// Reads and pings, so that lost connections are noticed and idle ones are not closed.
    fn idle(&self, engine: &Engine, clients: Vec<Client>) -> Vec<JoinHandle<()>> {
        const PING_INTERVAL: Duration = Duration::from_mins(5);
        let idle_client = |(index, mut client): (usize, Client)| {
            let lost = Arc::clone(&self.lost);
            engine.spawn(index, async move {
                loop {
                    let read = client.read_packet("idle");
                    match tokio::time::timeout(PING_INTERVAL, read).await {
                        Ok(Ok(_)) => {}
                        Ok(Err(_)) => break,
                        Err(_elapsed) => {
                            if client.send(&wire::PINGREQ, "idle").await.is_err() {
                                break;
                            }
                        }
                    }
                }
                lost.fetch_add(1, Ordering::AcqRel);
            })
        };
        clients.into_iter().enumerate().map(idle_client).collect()
    }
}

const STORM_PATIENCE: Duration = Duration::from_mins(1);

fn record(latencies: &SharedHistogram, since: Instant) {
    let nanos = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
    latencies.lock().saturating_record(nanos);
}

/// Raises the soft limit of open files as far as the hard one allows.
pub(super) fn allow_files(needed: u64) -> Result<(), BenchError> {
    let limit = getrlimit(Resource::Nofile);
    let enough = |bound: Option<u64>| bound.is_none_or(|bound| bound >= needed);
    if enough(limit.current) {
        return Ok(());
    }
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if !enough(limit.maximum) || setrlimit(Resource::Nofile, raised).is_err() {
        let allowed = limit.maximum.unwrap_or(u64::MAX);
        return Err(BenchError::Options(format!(
            "{needed} open files are needed but only {allowed} are allowed: raise `ulimit -n` or use fewer clients"
        )));
    }
    Ok(())
}
