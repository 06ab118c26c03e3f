//! The time of a message, for the formats of `petrel sub`. Always UTC, so that the output does not depend on the time
//! zone.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment, in the Gregorian calendar.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timestamp {
    since_epoch: Duration,
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
}

/// The supported conversions of `@`, with the names of `strftime`.
pub(super) const CONVERSIONS: &str = "YmdHMSNjFTsyezZ";

const DAY_SECONDS: u64 = 86_400;

impl Timestamp {
    /// This moment.
    pub(super) fn now() -> Self {
        Self::at(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
    }

    /// A moment since 1970.
    pub(super) fn at(since_epoch: Duration) -> Self {
        let seconds = since_epoch.as_secs();
        let (year, month, day) = date(seconds / DAY_SECONDS);
        let rest = seconds % DAY_SECONDS;
        let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
        Self { since_epoch, year, month, day, hour, minute, second }
    }

    /// `2016-08-10T09:47:38+0000`
    pub(super) fn iso(self) -> String {
        format!("{}T{}+0000", self.date(), self.time())
    }

    /// The same with microseconds, as in JSON.
    pub(super) fn iso_micros(self) -> String {
        let micros = self.since_epoch.subsec_micros();
        format!("{}T{}.{micros:06}+0000", self.date(), self.time())
    }

    /// Seconds since 1970 with nanoseconds.
    pub(super) fn unix(self) -> String {
        format!("{}.{:09}", self.since_epoch.as_secs(), self.since_epoch.subsec_nanos())
    }

    /// Appends what one of [`CONVERSIONS`] stands for.
    pub(super) fn convert(self, conversion: char, output: &mut String) {
        let written = match conversion {
            'Y' => write!(output, "{}", self.year),
            'y' => write!(output, "{:02}", self.year % 100),
            'm' => write!(output, "{:02}", self.month),
            'd' => write!(output, "{:02}", self.day),
            'e' => write!(output, "{:2}", self.day),
            'H' => write!(output, "{:02}", self.hour),
            'M' => write!(output, "{:02}", self.minute),
            'S' => write!(output, "{:02}", self.second),
            'N' => write!(output, "{:09}", self.since_epoch.subsec_nanos()),
            'j' => write!(output, "{:03}", self.day_of_year()),
            'F' => write!(output, "{}", self.date()),
            'T' => write!(output, "{}", self.time()),
            's' => write!(output, "{}", self.since_epoch.as_secs()),
            'z' => write!(output, "+0000"),
            'Z' => write!(output, "UTC"),
            other => write!(output, "@{other}"),
        };
        debug_assert!(written.is_ok(), "a String takes everything");
    }

    fn date(self) -> String {
        format!("{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }

    fn time(self) -> String {
        format!("{:02}:{:02}:{:02}", self.hour, self.minute, self.second)
    }

    fn day_of_year(self) -> u64 {
        let months = (1..self.month).map(|month| days_of(month, self.year)).sum::<u64>();
        months + self.day
    }
}

fn date(mut days: u64) -> (u64, u64, u64) {
    // Four centuries have always the same number of days.
    const FOUR_CENTURIES: u64 = 146_097;
    let mut year = 1970 + days / FOUR_CENTURIES * 400;
    days %= FOUR_CENTURIES;
    loop {
        let length = if is_leap(year) { 366 } else { 365 };
        if days < length {
            break;
        }
        days -= length;
        year += 1;
    }
    let mut month = 1;
    while days >= days_of(month, year) {
        days -= days_of(month, year);
        month += 1;
    }
    (year, month, days + 1)
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_of(month: u64, year: u64) -> u64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap(year) => 29,
        2 => 28,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn iso(seconds: u64) -> String {
        Timestamp::at(Duration::from_secs(seconds)).iso()
    }

    #[test]
    fn dates_agree_with_the_calendar() {
        assert_eq!(iso(0), "1970-01-01T00:00:00+0000");
        assert_eq!(iso(951_782_399), "2000-02-28T23:59:59+0000");
        assert_eq!(iso(951_782_400), "2000-02-29T00:00:00+0000");
        assert_eq!(iso(1_709_251_199), "2024-02-29T23:59:59+0000");
        assert_eq!(iso(1_767_225_599), "2025-12-31T23:59:59+0000");
        assert_eq!(iso(4_107_542_400), "2100-03-01T00:00:00+0000");
        assert_eq!(iso(13_574_563_200), "2400-02-29T00:00:00+0000");
    }

    #[test]
    fn fractions_keep_their_zeros() {
        let moment = Timestamp::at(Duration::new(1_470_818_943, 7_086_368));
        assert_eq!(moment.iso_micros(), "2016-08-10T08:49:03.007086+0000");
        assert_eq!(moment.unix(), "1470818943.007086368");
        let mut text = String::new();
        for conversion in CONVERSIONS.chars() {
            moment.convert(conversion, &mut text);
            text.push(' ');
        }
        assert_eq!(
            text,
            "2016 08 10 08 49 03 007086368 223 2016-08-10 08:49:03 1470818943 16 10 +0000 UTC "
        );
    }
}
