//! The results of a scenario, for people and for machines.

use std::fmt::Write as _;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use crate::bench::error::BenchError;
use crate::bench::meter::as_f64;
use crate::bench::tracker::Faults;

/// The result of one scenario. Figures keep the order in which they were added.
#[derive(Debug)]
pub(super) struct Report {
    scenario: &'static str,
    settings: Vec<(&'static str, Value)>,
    figures: Vec<Figure>,
    latencies: Vec<(&'static str, Latency)>,
    faults: Option<Faults>,
    /// Which faults break a promise of the broker.
    promise: Promise,
    notes: Vec<String>,
    is_failed: bool,
}

/// What the broker promised for the messages of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Promise {
    /// QoS 0: messages may be lost, but keep their order.
    #[default]
    Order,
    /// QoS 1 and 2 on connections that never broke: nothing is lost, and there was no reason to send anything twice.
    Complete,
}

#[derive(Debug)]
struct Figure {
    name: String,
    value: f64,
    unit: Unit,
}

/// Unit of a figure: how it is shown, and the end of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// A number of things.
    Count,
    /// Things per second.
    PerSecond,
    /// Seconds.
    Seconds,
    /// Microseconds.
    Microseconds,
    /// Bytes.
    Bytes,
    /// A ratio.
    Ratio,
}

#[derive(Debug)]
struct Latency {
    count: u64,
    micros: [(&'static str, f64); 7],
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| as_f64(histogram.value_at_quantile(quantile)) / 1_000.0;
        let micros = [
            ("min", as_f64(if histogram.is_empty() { 0 } else { histogram.min() }) / 1_000.0),
            ("p50", at(0.5)),
            ("p90", at(0.9)),
            ("p99", at(0.99)),
            ("p99.9", at(0.999)),
            ("max", as_f64(histogram.max()) / 1_000.0),
            ("mean", if histogram.is_empty() { 0.0 } else { histogram.mean() / 1_000.0 }),
        ];
        Self { count: histogram.len(), micros }
    }
}

impl Report {
    /// An empty report.
    pub(super) fn new(scenario: &'static str) -> Self {
        Self {
            scenario,
            settings: Vec::new(),
            figures: Vec::new(),
            latencies: Vec::new(),
            faults: None,
            promise: Promise::default(),
            notes: Vec::new(),
            is_failed: false,
        }
    }

    /// Adds how the run was set up.
    pub(super) fn setting(&mut self, name: &'static str, value: impl Into<Value>) {
        self.settings.push((name, value.into()));
    }

    /// Adds a figure. The name ends with its unit, as it does in JSON.
    pub(super) fn figure(&mut self, name: impl Into<String>, value: f64, unit: Unit) {
        self.figures.push(Figure { name: name.into(), value, unit });
    }

    /// Adds a number of things.
    pub(super) fn count(&mut self, name: impl Into<String>, value: u64) {
        self.figure(name, as_f64(value), Unit::Count);
    }

    /// Adds percentiles.
    pub(super) fn latency(&mut self, name: &'static str, histogram: &Histogram<u64>) {
        self.latencies.push((name, Latency::of(histogram)));
    }

    /// Adds losses, duplicates and order violations.
    pub(super) fn faults(&mut self, faults: Faults, promise: Promise) {
        self.faults = Some(faults);
        self.promise = promise;
    }

    /// Adds a sentence.
    pub(super) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Adds a sentence that says what went wrong.
    pub(super) fn fail(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
        self.is_failed = true;
    }

    /// Whether the broker kept its promises.
    pub(super) fn is_faultless(&self) -> bool {
        let Faults { missing, duplicates, disordered } = self.faults.unwrap_or_default();
        if self.is_failed {
            return false;
        }
        match self.promise {
            Promise::Order => disordered == 0 && duplicates == 0,
            Promise::Complete => missing == 0 && disordered == 0 && duplicates == 0,
        }
    }

    /// One JSON object and a line feed.
    pub(super) fn to_json(&self) -> Result<String, BenchError> {
        let settings: Map<String, Value> =
            self.settings.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let figures: Map<String, Value> =
            self.figures.iter().map(|figure| (figure.name.clone(), json!(figure.value))).collect();
        let latencies: Map<String, Value> = self
            .latencies
            .iter()
            .map(|(name, latency)| {
                let mut values: Map<String, Value> = latency
                    .micros
                    .iter()
                    .map(|(quantile, value)| ((*quantile).to_owned(), json!(value)))
                    .collect();
                values.insert("count".to_owned(), json!(latency.count));
                ((*name).to_owned(), Value::Object(values))
            })
            .collect();
        let faults = self.faults.map(|faults| {
            json!({
                "missing": faults.missing,
                "duplicates": faults.duplicates,
                "disordered": faults.disordered,
            })
        });
        let report = json!({
            "scenario": self.scenario,
            "settings": settings,
            "figures": figures,
            "latency_us": latencies,
            "faults": faults,
            "faultless": self.is_faultless(),
            "notes": self.notes,
        });
        let mut text = serde_json::to_string(&report)?;
        text.push('\n');
        Ok(text)
    }

    /// A table.
    pub(super) fn to_text(&self) -> String {
        let mut text = self.scenario.to_owned();
        for (name, value) in &self.settings {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let name = name.replace('_', " ");
            append(&mut text, format_args!("  {name} {value}"));
        }
        text.push_str("\n\n");
        for Figure { name, value, unit } in &self.figures {
            let label = label(name);
            append(&mut text, format_args!("  {label:<38} {:>16}\n", show(*value, *unit)));
        }
        for (name, latency) in &self.latencies {
            append(
                &mut text,
                format_args!("\n  {name} latency, µs ({} samples)\n ", latency.count),
            );
            for (quantile, value) in latency.micros {
                append(&mut text, format_args!("  {quantile} {value:.1}"));
            }
            text.push('\n');
        }
        if let Some(Faults { missing, duplicates, disordered }) = self.faults {
            append(
                &mut text,
                format_args!(
                    "\n  lost {missing}  duplicates {duplicates}  out of order {disordered}\n"
                ),
            );
        }
        for note in &self.notes {
            append(&mut text, format_args!("\n  {note}\n"));
        }
        text
    }
}

fn append(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _infallible = text.write_fmt(arguments);
}

/// The name without its unit, in words.
fn label(name: &str) -> String {
    let mut name = name;
    for unit in ["_per_second", "_seconds", "_us", "_bytes"] {
        name = name.strip_suffix(unit).unwrap_or(name);
    }
    name.replace('_', " ")
}

fn show(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Count => format!("{value:.0}"),
        Unit::PerSecond if value >= 100.0 => format!("{value:.0}/s"),
        Unit::PerSecond => format!("{value:.2}/s"),
        Unit::Seconds => format!("{value:.3} s"),
        Unit::Microseconds => format!("{value:.3} µs"),
        Unit::Bytes if value >= 10_485_760.0 => format!("{:.1} MiB", value / 1_048_576.0),
        Unit::Bytes if value >= 10_240.0 => format!("{:.1} KiB", value / 1_024.0),
        Unit::Bytes => format!("{value:.1} B"),
        Unit::Ratio => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report::new("throughput");
        report.setting("qos", 1);
        report.figure("delivered_per_second", 1_234_567.8, Unit::PerSecond);
        let mut histogram = Histogram::new_with_bounds(1_000, 60_000_000_000, 3).unwrap();
        for i in 1..=1_000_u64 {
            histogram.record(i * 1_000).unwrap();
        }
        report.latency("delivery", &histogram);
        report
    }

    #[test]
    fn json_carries_figures_by_name_and_percentiles_in_microseconds() {
        let value: Value = serde_json::from_str(&report().to_json().unwrap()).unwrap();
        assert_eq!(value["figures"]["delivered_per_second"], json!(1_234_567.8));
        assert_eq!(value["settings"]["qos"], json!(1));
        let p99 = value["latency_us"]["delivery"]["p99"].as_f64().unwrap();
        assert!((985.0..=995.0).contains(&p99), "{p99}");
        assert_eq!(value["faults"], Value::Null);
    }

    #[test]
    fn text_shows_label_value_and_unit() {
        let text = report().to_text();
        assert!(text.contains("delivered"), "{text}");
        assert!(text.contains("1234568/s"), "{text}");
        assert!(text.contains("p99.9"), "{text}");
    }

    #[test]
    fn a_lost_message_is_a_fault_only_where_it_was_promised() {
        let mut report = report();
        let faults = Faults { missing: 1, ..Faults::default() };
        report.faults(faults, Promise::Order);
        assert!(report.is_faultless());
        report.faults(faults, Promise::Complete);
        assert!(!report.is_faultless());
    }
}
