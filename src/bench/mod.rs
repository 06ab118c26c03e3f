//! `petrel bench`: a load generator for any MQTT broker.
//!
//! Connections are spread over a few single-threaded runtimes ([`engine`]); each connection is one hand-written future
//! ([`publisher`], [`subscriber`]) that reads and writes whole buffers of packets. On that path there is no allocation,
//! no task switch and no channel, because a generator that costs more than the broker measures itself. Every message
//! contains its stream, sequence number and time, so that losses, duplicates and order violations are counted exactly.
//!
//! The scenarios, one file each, set up clients, wait, measure twice and return a [`report::Report`].

mod client;
mod connections;
mod engine;
mod error;
mod inflight;
mod latency;
mod meter;
mod process;
mod publisher;
mod queue;
mod report;
mod resumption;
mod retained;
mod slow;
mod subscriber;
mod subscriptions;
mod target;
mod throughput;
mod timer;
mod tracker;
mod traffic;
mod wire;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Args, Subcommand};

pub use error::BenchError;

use engine::Engine;
use report::Report;
use target::TargetOptions;

/// Load generator for any MQTT broker: throughput, latency, connections, subscriptions, queues.
#[derive(Debug, Args)]
pub struct BenchCommand {
    #[command(flatten)]
    target: TargetOptions,
    #[command(flatten)]
    output: OutputOptions,
    #[command(subcommand)]
    scenario: Scenario,
}

/// How to run and what to show.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Measuring")]
struct OutputOptions {
    /// Threads of the generator [default: half of the cores]
    #[arg(long, global = true, value_name = "N")]
    threads: Option<usize>,
    /// Process id of the broker: also report its CPU time per message and its memory (same machine, Linux)
    #[arg(long, global = true)]
    pid: Option<u32>,
    /// Print one JSON object instead of a table
    #[arg(long, global = true)]
    json: bool,
    /// Do not show progress
    #[arg(long, global = true)]
    quiet: bool,
}

/// What to measure.
#[derive(Debug, Subcommand)]
enum Scenario {
    /// Messages per second: pairs, fan-in, fan-out or a shared subscription
    Throughput(throughput::ThroughputOptions),
    /// Latency at a fixed rate (open loop), measured from the intended moment of sending
    Latency(latency::LatencyOptions),
    /// Idle clients, connection storms and (TLS) handshakes per second
    Connections(connections::ConnectionsOptions),
    /// Up to millions of topic filters, the cost of publishing among them, and churn
    Subscriptions(subscriptions::SubscriptionsOptions),
    /// Set retained messages, then receive all of them through a wildcard
    Retained(retained::RetainedOptions),
    /// Fill durable sessions while their clients are away, then drain them
    Queue(queue::QueueOptions),
    /// Readers that stop reading while other clients continue
    Slow(slow::SlowOptions),
}

impl BenchCommand {
    /// Runs the scenario and prints its report on standard output. Fails (exit code 1) when the broker lost,
    /// duplicated or reordered something that it had promised not to.
    ///
    /// # Errors
    /// When the options contradict each other, the broker cannot be reached or refuses what the scenario needs, or
    /// standard output is closed.
    pub fn run(self) -> Result<ExitCode, BenchError> {
        let threads = self.output.threads.unwrap_or_else(default_threads);
        let json = self.output.json;
        let engine = Engine::start(threads, &self.output, self.target.into_target()?)?;
        // The scenario has a thread and a runtime of its own, so that this works from inside another runtime too.
        let scenario = self.scenario;
        let runtime = engine::single_threaded_runtime()?;
        let worker = std::thread::Builder::new()
            .name("bench-control".to_owned())
            .spawn(move || runtime.block_on(scenario.run(&engine)))
            .map_err(BenchError::Runtime)?;
        let report = worker.join().map_err(|_panic| BenchError::ControlPanicked)??;
        let mut output = std::io::stdout().lock();
        let text = if json { report.to_json()? } else { report.to_text() };
        output.write_all(text.as_bytes()).map_err(BenchError::Output)?;
        Ok(if report.is_faultless() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

impl Scenario {
    async fn run(self, engine: &Engine) -> Result<Report, BenchError> {
        match self {
            Self::Throughput(options) => options.run(engine).await,
            Self::Latency(options) => options.run(engine).await,
            Self::Connections(options) => options.run(engine).await,
            Self::Subscriptions(options) => options.run(engine).await,
            Self::Retained(options) => options.run(engine).await,
            Self::Queue(options) => options.run(engine).await,
            Self::Slow(options) => options.run(engine).await,
        }
    }
}

/// Half of the cores: the other half is for the broker.
fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1))
}
