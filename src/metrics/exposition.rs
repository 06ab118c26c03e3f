//! Writes the text format of Prometheus directly: three kinds of lines do not justify a registry of objects.

use std::fmt::{Display, Write as _};

use crate::metrics::histogram::{BOUNDS_MICROS, HistogramSample};

/// The `Content-Type` of the text that [`Exposition`] makes.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Kind of a metric family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
}

/// Collects metric families as text.
#[derive(Debug, Default)]
pub(crate) struct Exposition {
    text: String,
}

impl Exposition {
    /// Starts a family. Its values must follow, before the next family.
    pub(crate) fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        self.header(name, kind, help);
    }

    /// One value of the family begun last.
    pub(crate) fn value(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(name);
        self.labels(labels);
        self.line(value);
    }

    /// A family of one value without labels.
    pub(crate) fn single(&mut self, name: &str, kind: Kind, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.value(name, &[], value);
    }

    /// A histogram of durations, in seconds.
    pub(crate) fn histogram(&mut self, name: &str, help: &str, sample: &HistogramSample) {
        self.header(name, "histogram", help);
        let mut cumulated = 0;
        for (bound, count) in BOUNDS_MICROS.iter().zip(sample.buckets) {
            cumulated += count;
            self.text.push_str(name);
            self.text.push_str("_bucket");
            self.labels(&[("le", &seconds(*bound))]);
            self.line(cumulated);
        }
        self.text.push_str(name);
        self.text.push_str("_bucket");
        self.labels(&[("le", "+Inf")]);
        self.line(sample.count());
        self.text.push_str(name);
        self.text.push_str("_sum");
        self.line(seconds(sample.sum_micros));
        self.text.push_str(name);
        self.text.push_str("_count");
        self.line(sample.count());
    }

    /// The finished text.
    #[must_use]
    pub(crate) fn into_text(self) -> String {
        self.text
    }

    fn header(&mut self, name: &str, kind: &str, help: &str) {
        self.text.push_str("# HELP ");
        self.text.push_str(name);
        self.text.push(' ');
        for character in help.chars() {
            match character {
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                other => self.text.push(other),
            }
        }
        self.text.push_str("\n# TYPE ");
        self.text.push_str(name);
        self.text.push(' ');
        self.text.push_str(kind);
        self.text.push('\n');
    }

    fn labels(&mut self, labels: &[(&str, &str)]) {
        let mut separator = '{';
        for (name, value) in labels {
            self.text.push(separator);
            separator = ',';
            self.text.push_str(name);
            self.text.push_str("=\"");
            for character in value.chars() {
                match character {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    other => self.text.push(other),
                }
            }
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
    }

    fn line(&mut self, value: impl Display) {
        // Writing into a String cannot fail.
        let _infallible = writeln!(self.text, " {value}");
    }
}

/// Microseconds as seconds, exactly, without a detour over floating point.
fn seconds(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn escapes_help_and_label_values() {
        let mut exposition = Exposition::default();
        exposition.family("a_total", Kind::Counter, "Back\\slash\nand \"quote\".");
        exposition.value("a_total", &[("topic", "a\"b\\c\nd"), ("qos", "1")], 7);
        assert_eq!(
            exposition.into_text(),
            "# HELP a_total Back\\\\slash\\nand \"quote\".\n# TYPE a_total counter\n\
             a_total{topic=\"a\\\"b\\\\c\\nd\",qos=\"1\"} 7\n"
        );
    }

    #[test]
    fn histogram_buckets_are_cumulated() {
        let mut sample = HistogramSample::default();
        for micros in [60, 700, 20_000_000] {
            sample.observe(micros, 1);
        }
        let mut exposition = Exposition::default();
        exposition.histogram("sync_seconds", "Time of a sync.", &sample);
        let text = exposition.into_text();
        for line in [
            "# TYPE sync_seconds histogram",
            "sync_seconds_bucket{le=\"0.00005\"} 0",
            "sync_seconds_bucket{le=\"0.0001\"} 1",
            "sync_seconds_bucket{le=\"0.0005\"} 1",
            "sync_seconds_bucket{le=\"0.001\"} 2",
            "sync_seconds_bucket{le=\"10\"} 2",
            "sync_seconds_bucket{le=\"+Inf\"} 3",
            "sync_seconds_sum 20.00076",
            "sync_seconds_count 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
        }
    }

    #[test]
    fn seconds_are_exact() {
        for (micros, text) in
            [(0, "0"), (1, "0.000001"), (1_000_000, "1"), (10_000_000, "10"), (1_500_000, "1.5")]
        {
            assert_eq!(seconds(micros), text);
        }
    }
}
