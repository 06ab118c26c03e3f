//! The clock of broker time, which [`Timestamp`] is measured in.
//!
//! While the broker runs, its time advances with the monotonic clock, so setting the wall clock expires no message.
//! While it is down, only the wall clock measures time. It is trusted within bounds: never backwards, and at most the
//! longest downtime that the operator allows. Both clocks are saved together as a heartbeat, so an older heartbeat
//! (after a crash) yields the same time as a newer one.
//!
//! A machine without a battery-backed clock starts with a time long past. So the latest trusted wall clock is saved as
//! well: a start with a wrong clock does not change it, and a later start with the right clock counts from there, not
//! from the wrong time.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::durable::message::Timestamp;

/// The start of 2026, in milliseconds since the Unix epoch. This program is newer than that, so an earlier clock is
/// wrong.
const EARLIEST_MILLISECONDS: u64 = 1_767_225_600_000;

/// How often the clocks are saved.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(10);

/// Broker time and wall clock, read at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Heartbeat {
    /// Broker time.
    pub(crate) broker: Timestamp,
    /// Wall clock, in milliseconds since the Unix epoch.
    pub(crate) wall_milliseconds: u64,
    /// The latest trusted wall clock, advanced by the time the broker has run since; zero if none was ever trusted.
    pub(crate) believed_milliseconds: u64,
}

impl Heartbeat {
    /// Converts a heartbeat that was saved without a trusted clock.
    #[must_use]
    pub(crate) fn believing_its_clock(broker: Timestamp, wall_milliseconds: u64) -> Self {
        let believed_milliseconds = believable(wall_milliseconds);
        Self { broker, wall_milliseconds, believed_milliseconds }
    }
}

/// The wall clock, or zero if it must be wrong.
fn believable(wall_milliseconds: u64) -> u64 {
    if wall_milliseconds < EARLIEST_MILLISECONDS { 0 } else { wall_milliseconds }
}

/// The clocks when the store is opened. Broker time is that of the last heartbeat plus the time since, between zero and
/// `max_downtime`. Without a heartbeat, broker time starts at the wall clock.
#[must_use]
pub(crate) fn time_at_opening(
    last: Option<Heartbeat>,
    wall_milliseconds: u64,
    max_downtime: Duration,
) -> Heartbeat {
    let Some(last) = last else {
        return Heartbeat::believing_its_clock(Timestamp(wall_milliseconds), wall_milliseconds);
    };
    let passed = passed_since(last, wall_milliseconds);
    Heartbeat {
        broker: last.broker.plus(Duration::from_millis(passed).min(max_downtime)),
        wall_milliseconds,
        believed_milliseconds: last.believed_milliseconds.max(believable(wall_milliseconds)),
    }
}

fn passed_since(last: Heartbeat, wall_milliseconds: u64) -> u64 {
    let (wall, believed) = (believable(wall_milliseconds), last.believed_milliseconds);
    if wall == 0 || believed == 0 {
        // Unknown.
        return 0;
    }
    if wall >= believed {
        return wall - believed;
    }
    // One of the two is wrong. If this run continues where the last one stopped, the trusted clock is wrong: a clock
    // that was once far ahead must not stop time forever.
    if believable(last.wall_milliseconds) == 0 {
        return 0;
    }
    wall.saturating_sub(last.wall_milliseconds)
}

/// The running clock of a broker. Cheap to read and to copy.
#[derive(Debug, Clone, Copy)]
pub struct BrokerClock {
    base: Timestamp,
    believed_milliseconds: u64,
    started: Instant,
}

impl BrokerClock {
    /// Starts at the given broker time.
    #[must_use]
    pub(crate) fn start(base: Timestamp) -> Self {
        Self { base, believed_milliseconds: 0, started: Instant::now() }
    }

    /// Starts at the clocks of an opening.
    #[must_use]
    pub(crate) fn start_at(opening: Heartbeat) -> Self {
        let Heartbeat { broker, believed_milliseconds, .. } = opening;
        Self { base: broker, believed_milliseconds, started: Instant::now() }
    }

    /// Broker time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.base.plus(self.started.elapsed())
    }

    /// The clocks, to be saved.
    #[must_use]
    pub(crate) fn heartbeat(&self) -> Heartbeat {
        self.heartbeat_at(self.started.elapsed(), wall_milliseconds())
    }

    fn heartbeat_at(&self, elapsed: Duration, wall_milliseconds: u64) -> Heartbeat {
        let advanced = match self.believed_milliseconds {
            0 => 0,
            believed => Timestamp(believed).plus(elapsed).0,
        };
        Heartbeat {
            broker: self.base.plus(elapsed),
            wall_milliseconds,
            believed_milliseconds: advanced.max(believable(wall_milliseconds)),
        }
    }
}

/// The wall clock, in milliseconds since the Unix epoch; zero before it.
#[must_use]
pub(crate) fn wall_milliseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);
    const HOUR: u64 = 3_600_000;
    const YEAR: u64 = 365 * 24 * HOUR;
    /// The right time, in the year of this test.
    const TODAY: u64 = EARLIEST_MILLISECONDS + 300 * 24 * HOUR;
    const LAST: Heartbeat = Heartbeat {
        broker: Timestamp(1_000_000),
        wall_milliseconds: TODAY,
        believed_milliseconds: TODAY,
    };

    fn broker_time_at_opening(last: Option<Heartbeat>, wall: u64, max: Duration) -> Timestamp {
        time_at_opening(last, wall, max).broker
    }

    /// A run of an hour with the wall clock at `wall`, after the last run's heartbeat; returns its own.
    fn run(last: Option<Heartbeat>, wall: u64) -> Heartbeat {
        let clock = BrokerClock::start_at(time_at_opening(last, wall, 30 * DAY));
        clock.heartbeat_at(Duration::from_millis(HOUR), wall + HOUR)
    }

    #[test]
    fn a_first_start_takes_the_wall_clock() {
        assert_eq!(broker_time_at_opening(None, 7_000, DAY), Timestamp(7_000));
    }

    #[test]
    fn an_ordinary_downtime_counts() {
        let opened = broker_time_at_opening(Some(LAST), TODAY + 60_000, DAY);
        assert_eq!(opened, Timestamp(1_060_000));
    }

    #[test]
    fn a_wall_clock_set_back_lets_no_time_pass() {
        assert_eq!(broker_time_at_opening(Some(LAST), 0, DAY), LAST.broker);
        assert_eq!(broker_time_at_opening(Some(LAST), TODAY - 1, DAY), LAST.broker);
    }

    #[test]
    fn a_wall_clock_fifty_years_ahead_counts_the_longest_downtime() {
        let opened = broker_time_at_opening(Some(LAST), TODAY + 50 * YEAR, DAY);
        assert_eq!(opened, LAST.broker.plus(DAY));
    }

    #[test]
    fn a_late_heartbeat_and_an_early_one_agree() {
        let earlier = Heartbeat {
            broker: Timestamp(LAST.broker.0 - 10_000),
            wall_milliseconds: TODAY - 10_000,
            believed_milliseconds: TODAY - 10_000,
        };
        let late = broker_time_at_opening(Some(LAST), TODAY + 5_000, DAY);
        assert_eq!(broker_time_at_opening(Some(earlier), TODAY + 5_000, DAY), late);
    }

    #[test]
    fn extreme_clocks_saturate() {
        let last = Heartbeat::believing_its_clock(Timestamp(u64::MAX - 1), TODAY);
        let opened = time_at_opening(Some(last), u64::MAX, Duration::MAX);
        assert_eq!(opened.broker, Timestamp(u64::MAX));
        let clock = BrokerClock::start_at(opened);
        let heartbeat = clock.heartbeat_at(DAY, u64::MAX);
        assert_eq!(heartbeat.believed_milliseconds, u64::MAX);
    }

    /// A machine without a clock: its first start is fifty years in the past, the next one has the right time. The
    /// time between is unknown, so nothing expires.
    #[test]
    fn a_first_start_without_a_clock_expires_nothing_when_the_clock_is_right() {
        for wrong in [0, TODAY - 50 * YEAR, TODAY - 20 * YEAR, EARLIEST_MILLISECONDS - 2 * HOUR] {
            let first = run(None, wrong);
            assert_eq!(first.believed_milliseconds, 0);
            let second = time_at_opening(Some(first), TODAY, 30 * DAY);
            assert_eq!(second.broker, first.broker);
            let later = broker_time_at_opening(Some(second), TODAY + HOUR, 30 * DAY);
            assert_eq!(later, second.broker.plus(Duration::from_millis(HOUR)), "now it knows");
        }
    }

    /// The same in between: time counts from the last trusted clock, plus the duration of the run without a clock.
    #[test]
    fn a_start_without_a_clock_in_between_changes_nothing() {
        let mut last = LAST;
        for wrong in [0, TODAY - 50 * YEAR, 12 * HOUR] {
            let run = run(Some(last), wrong);
            assert_eq!(run.broker.since(last.broker), Duration::from_millis(HOUR));
            assert_eq!(run.believed_milliseconds, last.believed_milliseconds + HOUR);
            last = run;
        }
        let opened = broker_time_at_opening(Some(last), TODAY + 5 * HOUR, 30 * DAY);
        assert_eq!(opened.since(LAST.broker), Duration::from_millis(5 * HOUR));
    }

    /// A clock that was once far ahead costs the longest downtime, and then time goes on.
    #[test]
    fn a_clock_that_was_once_far_ahead_does_not_stop_the_time() {
        let ahead = run(Some(LAST), TODAY + 64 * YEAR);
        assert_eq!(ahead.broker, LAST.broker.plus(30 * DAY).plus(Duration::from_millis(HOUR)));
        let back = run(Some(ahead), TODAY + 2 * HOUR);
        assert_eq!(back.broker.since(ahead.broker), Duration::from_millis(HOUR), "nobody knows");
        let later = broker_time_at_opening(Some(back), TODAY + 8 * HOUR, 30 * DAY);
        assert_eq!(later.since(back.broker), Duration::from_millis(5 * HOUR));
    }
}
