//! `petrel bench throughput`: messages per second, and the broker's cost of each.

use std::time::Duration;

use clap::Args;

use crate::bench::engine::Engine;
use crate::bench::error::BenchError;
use crate::bench::report::Report;
use crate::bench::traffic::{Shape, Traffic, TrafficPlan};
use crate::packet::QoS;

/// Options of `throughput`.
#[derive(Debug, Args)]
pub(super) struct ThroughputOptions {
    /// Who receives from whom
    #[arg(value_enum, default_value = "pairs")]
    shape: Shape,
    /// Publishers [default: 10; fan-out 1]
    #[arg(long, value_name = "N")]
    publishers: Option<usize>,
    /// Subscribers [default: pairs as many as publishers; fan-in 1; fan-out 50; shared 10]
    #[arg(long, value_name = "N")]
    subscribers: Option<usize>,
    #[command(flatten)]
    message: MessageOptions,
    /// Topics of each publisher, used in turn
    #[arg(long, default_value_t = 1, value_name = "N")]
    topics: u32,
    /// Most undelivered messages of each publisher, so that a slow broker is not flooded; 0: no limit
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    backlog: u64,
    /// How long to measure
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// How long to warm up
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    warm_up: Duration,
    /// Send this many messages in total instead of measuring for a time
    #[arg(long, value_name = "N", conflicts_with_all = ["duration", "warm_up"])]
    messages: Option<u64>,
}

/// The form of messages, and how they are sent.
#[derive(Debug, Clone, Args)]
pub(super) struct MessageOptions {
    /// QoS of messages and subscriptions
    #[arg(long, short = 'q', default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    qos: u8,
    /// Most unacknowledged messages of each publisher (QoS 1 and 2)
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) window: u16,
    /// Length of the payload; with at least 20 bytes, losses, order and latencies are measured
    #[arg(long, default_value_t = 64, value_name = "BYTES")]
    pub(super) payload: usize,
}

impl MessageOptions {
    /// Sets the Quality of Service, where a scenario makes no sense with another.
    pub(super) fn set_qos(&mut self, qos: QoS) {
        self.qos = qos as u8;
    }

    /// The Quality of Service.
    pub(super) fn qos(&self) -> QoS {
        match self.qos {
            0 => QoS::AtMostOnce,
            1 => QoS::AtLeastOnce,
            _ => QoS::ExactlyOnce,
        }
    }
}

/// Opens the topics of this run, so that runs side by side do not meet.
pub(super) fn topic_prefix() -> String {
    format!("bench/{:x}", std::process::id())
}

impl ThroughputOptions {
    /// Runs the scenario.
    pub(super) async fn run(self, engine: &Engine) -> Result<Report, BenchError> {
        let (duration, warm_up) = (self.duration, self.warm_up);
        let plan = self.into_plan();
        let is_limited = plan.messages.is_some();
        let mut traffic = Traffic::set_up(engine, plan).await?;
        let mut report = Report::new("throughput");
        report.setting("transport", engine.target.transport_name());
        let mut from = traffic.totals(engine)?;
        traffic.start(engine);
        if is_limited {
            if !traffic.run_to_end(engine).await {
                report.note("Messages stopped arriving before all of them were received.");
            }
        } else {
            traffic.run_for(engine, "warming up", warm_up).await;
            traffic.reset_latencies();
            from = traffic.totals(engine)?;
            traffic.run_for(engine, "measuring", duration).await;
        }
        let to = traffic.totals(engine)?;
        traffic.describe(&mut report, &from, &to);
        let deliveries = traffic.deliveries.merged()?;
        let acknowledgements = traffic.acknowledgements.merged()?;
        if !deliveries.is_empty() {
            report.latency("delivery", &deliveries);
        }
        if !acknowledgements.is_empty() {
            report.latency("acknowledgement", &acknowledgements);
        }
        traffic.stop(engine).await?;
        traffic.describe_faults(&mut report);
        Ok(report)
    }

    fn into_plan(self) -> TrafficPlan {
        let publishers = self.publishers.unwrap_or(match self.shape {
            Shape::FanOut => 1,
            Shape::Pairs | Shape::FanIn | Shape::Shared => 10,
        });
        let subscribers = self.subscribers.unwrap_or(match self.shape {
            Shape::Pairs => publishers,
            Shape::FanIn => 1,
            Shape::FanOut => 50,
            Shape::Shared => 10,
        });
        TrafficPlan {
            shape: self.shape,
            publishers,
            subscribers,
            qos: self.message.qos(),
            window: self.message.window,
            backlog: self.backlog,
            payload_bytes: self.message.payload,
            topics: self.topics,
            rate: None,
            messages: self.messages,
            prefix: topic_prefix(),
            timed_one_in: 64,
            topic_names: None,
        }
    }
}
