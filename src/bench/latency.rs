//! `petrel bench latency`: an open loop. Messages are due at fixed times whatever the broker does, and latency is
//! measured from these times, so that a broker that stops for a second is charged for every message of that second.

use std::time::Duration;

use clap::Args;

use crate::bench::engine::Engine;
use crate::bench::error::BenchError;
use crate::bench::report::Report;
use crate::bench::throughput::{MessageOptions, topic_prefix};
use crate::bench::traffic::{Shape, Traffic, TrafficPlan};

/// Options of `latency`.
#[derive(Debug, Args)]
pub(super) struct LatencyOptions {
    /// Who receives from whom
    #[arg(value_enum, default_value = "pairs")]
    shape: Shape,
    /// Publishers
    #[arg(long, default_value_t = 10, value_name = "N")]
    publishers: usize,
    /// Subscribers [default: as many as publishers]
    #[arg(long, value_name = "N")]
    subscribers: Option<usize>,
    /// Messages per second of all publishers together
    #[arg(long, default_value_t = 2_000.0, value_name = "PER_SECOND")]
    rate: f64,
    #[command(flatten)]
    message: MessageOptions,
    /// How long to measure
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// How long to warm up
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    warm_up: Duration,
}

impl LatencyOptions {
    /// Runs the scenario.
    pub(super) async fn run(self, engine: &Engine) -> Result<Report, BenchError> {
        if !(0.001..=100_000_000.0).contains(&self.rate) {
            return Err(BenchError::Options("--rate must be between 0.001 and 1e8".to_owned()));
        }
        let plan = TrafficPlan {
            shape: self.shape,
            publishers: self.publishers,
            subscribers: self.subscribers.unwrap_or(self.publishers),
            qos: self.message.qos(),
            window: self.message.window,
            backlog: 0,
            payload_bytes: self.message.payload.max(crate::bench::wire::STAMP_BYTES),
            topics: 1,
            rate: Some(self.rate),
            messages: None,
            prefix: topic_prefix(),
            timed_one_in: 1,
            topic_names: None,
        };
        let mut traffic = Traffic::set_up(engine, plan).await?;
        let mut report = Report::new("latency");
        report.setting("transport", engine.target.transport_name());
        traffic.start(engine);
        traffic.run_for(engine, "warming up", self.warm_up).await;
        traffic.reset_latencies();
        let from = traffic.totals(engine)?;
        traffic.run_for(engine, "measuring", self.duration).await;
        let to = traffic.totals(engine)?;
        traffic.describe(&mut report, &from, &to);
        report.latency("delivery", &traffic.deliveries.merged()?);
        let acknowledgements = traffic.acknowledgements.merged()?;
        if !acknowledgements.is_empty() {
            report.latency("acknowledgement", &acknowledgements);
        }
        traffic.stop(engine).await?;
        traffic.describe_faults(&mut report);
        Ok(report)
    }
}
