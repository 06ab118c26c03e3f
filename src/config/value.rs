//! The types of single values in the configuration: sizes, durations, file modes, and switches.
//!
//! Each type parses its text form, explains what it expects if the text is wrong, and writes the same form for
//! `petrel check --print`.

use std::fmt;
use std::time::Duration;

use serde::de::{Error, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of bytes, written `"64KiB"`, `"1.5GiB"`, `"10MB"` or as a plain number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Size(pub(crate) u64);

/// A span of time, written `"30s"`, `"5m"`, `"1h 30m"`, `"7days"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Period(pub(crate) Duration);

/// A span of time in whole seconds, as in MQTT, written as a [`Period`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Seconds(pub(crate) u64);

/// The mode of a Unix socket, written in octal as text: `"660"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileMode(pub(crate) u32);

/// Strings, written as a list, or as a single string.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TextList(pub(crate) Vec<String>);

/// `true`, `false`, or `"auto"`: decided by the rest of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Switch {
    /// Decided by the rest of the configuration.
    #[default]
    Auto,
    /// `true`
    On,
    /// `false`
    Off,
}

const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

impl Size {
    /// Reads the text form; `None` if it is not a size or does not fit 64 bits.
    #[must_use]
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_');
        let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
        let unit = unit.trim();
        let factor = match unit {
            "" => 1,
            _ => UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?.1,
        };
        let number = number.replace('_', "");
        let (whole, fraction) = number.split_once('.').unwrap_or((&number, ""));
        let bytes = whole.parse::<u64>().ok()?.checked_mul(factor)?;
        bytes.checked_add(fraction_bytes(fraction, factor)?).map(Self)
    }
}

/// The part after the decimal point, in bytes, rounded down. Nine digits are more than any unit needs in practice,
/// and keep the sum within 128 bits.
fn fraction_bytes(fraction: &str, factor: u64) -> Option<u64> {
    if fraction.is_empty() {
        return Some(0);
    }
    let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok().filter(|n| *n <= 9)?)?;
    let digits = fraction.parse::<u128>().ok()?;
    u64::try_from(digits * u128::from(factor) / scale).ok()
}

impl fmt::Display for Size {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = UNITS
            .iter()
            .take(4)
            .find(|(_, factor)| self.0 >= *factor && self.0.checked_rem(*factor) == Some(0));
        match binary {
            Some((unit, factor)) => write!(out, "{}{unit}", self.0 / factor),
            None => write!(out, "{}B", self.0),
        }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(out)
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        Period(Duration::from_secs(self.0)).fmt(out)
    }
}

impl fmt::Display for FileMode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:o}", self.0)
    }
}

struct SizeVisitor;

impl Visitor<'_> for SizeVisitor {
    type Value = Size;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a size such as \"64KiB\", \"16MiB\" or \"1GiB\"")
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Size, E> {
        let bytes = u64::try_from(value);
        bytes.map(Size).map_err(|_| E::invalid_value(Unexpected::Signed(value), &self))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Size, E> {
        Ok(Size(value))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Size, E> {
        Size::parse(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SizeVisitor)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

struct PeriodVisitor;

impl Visitor<'_> for PeriodVisitor {
    type Value = Period;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a duration such as \"500ms\", \"30s\", \"5m\", \"1h 30m\" or \"7days\"")
    }

    // A bare number does not say whether it means seconds or milliseconds; only zero is the same in both.
    fn visit_i64<E: Error>(self, value: i64) -> Result<Period, E> {
        match value {
            0 => Ok(Period(Duration::ZERO)),
            _ => Err(E::invalid_value(Unexpected::Signed(value), &self)),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Period, E> {
        let duration = humantime::parse_duration(text);
        duration.map(Period).map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PeriodVisitor)
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

struct SecondsVisitor;

impl Visitor<'_> for SecondsVisitor {
    type Value = Seconds;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(
            "a duration in whole seconds, which is how MQTT counts this, such as \"60s\" or \"5m\"",
        )
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Seconds, E> {
        match value {
            0 => Ok(Seconds(0)),
            _ => Err(E::invalid_value(Unexpected::Signed(value), &self)),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Seconds, E> {
        let duration = humantime::parse_duration(text).ok();
        let whole = duration.filter(|duration| duration.subsec_nanos() == 0);
        let seconds = whole.map(|duration| Seconds(duration.as_secs()));
        seconds.ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SecondsVisitor)
    }
}

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

struct FileModeVisitor;

impl Visitor<'_> for FileModeVisitor {
    type Value = FileMode;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a file mode in octal, as a string, such as \"660\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<FileMode, E> {
        let digits = text.strip_prefix("0o").unwrap_or(text);
        let mode = u32::from_str_radix(digits, 8).ok().filter(|mode| *mode <= 0o777);
        mode.map(FileMode).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

impl<'de> Deserialize<'de> for FileMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FileModeVisitor)
    }
}

impl Serialize for FileMode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

struct TextListVisitor;

impl<'de> Visitor<'de> for TextListVisitor {
    type Value = TextList;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a list of strings, or one string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<TextList, E> {
        Ok(TextList(vec![text.to_owned()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<TextList, A::Error> {
        let mut texts = Vec::new();
        while let Some(text) = list.next_element()? {
            texts.push(text);
        }
        Ok(TextList(texts))
    }
}

impl<'de> Deserialize<'de> for TextList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextListVisitor)
    }
}

impl Serialize for TextList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

struct SwitchVisitor;

impl Visitor<'_> for SwitchVisitor {
    type Value = Switch;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("true, false or \"auto\"")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Switch, E> {
        Ok(if value { Switch::On } else { Switch::Off })
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Switch, E> {
        match text {
            "auto" => Ok(Switch::Auto),
            _ => Err(E::invalid_value(Unexpected::Str(text), &self)),
        }
    }
}

impl<'de> Deserialize<'de> for Switch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SwitchVisitor)
    }
}

impl Serialize for Switch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::On => serializer.serialize_bool(true),
            Self::Off => serializer.serialize_bool(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_binary_and_decimal_units() {
        let cases = [
            ("0", 0),
            ("17", 17),
            ("64KiB", 65_536),
            ("64 kib", 65_536),
            ("1.5GiB", 1_610_612_736),
            ("10MB", 10_000_000),
            ("1_000B", 1_000),
        ];
        for (text, bytes) in cases {
            assert_eq!(Size::parse(text), Some(Size(bytes)), "{text}");
        }
    }

    #[test]
    fn nonsense_is_no_size() {
        for text in
            ["", "KiB", "-1", "1 XiB", "1.2.3MiB", "99999999TiB", "1.0000000001GiB", ".5GiB"]
        {
            assert_eq!(Size::parse(text), None, "{text}");
        }
    }

    #[test]
    fn every_size_survives_its_text_form() {
        for bytes in [0, 1, 1023, 1024, 1536, 1 << 20, (1 << 30) + 1, u64::MAX] {
            assert_eq!(Size::parse(&Size(bytes).to_string()), Some(Size(bytes)));
        }
    }

    #[test]
    fn a_bare_number_is_no_duration() {
        let read = |text: &str| toml::from_str::<std::collections::BTreeMap<String, Period>>(text);
        assert!(read("wait = 30").is_err());
        assert!(read("wait = \"soon\"").is_err());
        assert_eq!(read("wait = 0").unwrap()["wait"], Period(Duration::ZERO));
        assert_eq!(read("wait = \"1h 30m\"").unwrap()["wait"], Period(Duration::from_mins(90)));
    }

    #[test]
    fn file_modes_are_octal_text() {
        let read =
            |text: &str| toml::from_str::<std::collections::BTreeMap<String, FileMode>>(text);
        assert_eq!(read("mode = \"660\"").unwrap()["mode"], FileMode(0o660));
        assert_eq!(read("mode = \"0o600\"").unwrap()["mode"], FileMode(0o600));
        assert!(read("mode = \"888\"").is_err());
        assert!(read("mode = \"7777\"").is_err());
        assert!(read("mode = 660").is_err());
    }
}
