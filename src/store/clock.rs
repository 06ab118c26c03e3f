//! Broker time: what [`Timestamp`] means.
//!
//! While the broker runs, its time advances with the monotonic clock, so nobody who sets the wall clock expires a
//! message. While it is down, only the wall clock knows what passed; its answer is believed within bounds: never
//! backward, and at most the longest downtime that the operator allows for. Both clocks are persisted together as a
//! heartbeat, so an older heartbeat (after a crash) yields the same time as a newer one.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::durable::message::Timestamp;

/// How often the pair of clocks is persisted.
pub const HEARTBEAT: Duration = Duration::from_secs(10);

/// Broker time and wall clock, read at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    /// Broker time.
    pub broker: Timestamp,
    /// Wall clock, in milliseconds since the Unix epoch.
    pub wall_milliseconds: u64,
}

/// Broker time at an opening: the last heartbeat's and what the wall clock says passed since, at least nothing and at
/// most `max_downtime`. Without a heartbeat, broker time starts as the wall clock.
#[must_use]
pub fn broker_time_at_opening(
    last: Option<Heartbeat>,
    wall_milliseconds: u64,
    max_downtime: Duration,
) -> Timestamp {
    let Some(last) = last else {
        return Timestamp(wall_milliseconds);
    };
    let passed = wall_milliseconds.saturating_sub(last.wall_milliseconds);
    last.broker.plus(Duration::from_millis(passed).min(max_downtime))
}

/// The running clock of a broker. Cheap to read and to copy.
#[derive(Debug, Clone, Copy)]
pub struct BrokerClock {
    base: Timestamp,
    started: Instant,
}

impl BrokerClock {
    /// Starts at the given broker time.
    #[must_use]
    pub fn start(base: Timestamp) -> Self {
        Self { base, started: Instant::now() }
    }

    /// Broker time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.base.plus(self.started.elapsed())
    }

    /// Both clocks, to be persisted.
    #[must_use]
    pub fn heartbeat(&self) -> Heartbeat {
        Heartbeat { broker: self.now(), wall_milliseconds: wall_milliseconds() }
    }
}

/// The wall clock, in milliseconds since the Unix epoch; zero before it.
#[must_use]
pub fn wall_milliseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);
    const LAST: Heartbeat =
        Heartbeat { broker: Timestamp(1_000_000), wall_milliseconds: 50_000_000_000 };

    #[test]
    fn a_first_start_takes_the_wall_clock() {
        assert_eq!(broker_time_at_opening(None, 7_000, DAY), Timestamp(7_000));
    }

    #[test]
    fn an_ordinary_downtime_counts() {
        let opened = broker_time_at_opening(Some(LAST), 50_000_060_000, DAY);
        assert_eq!(opened, Timestamp(1_060_000));
    }

    #[test]
    fn a_wall_clock_set_back_lets_no_time_pass() {
        assert_eq!(broker_time_at_opening(Some(LAST), 0, DAY), LAST.broker);
        assert_eq!(broker_time_at_opening(Some(LAST), 49_999_999_999, DAY), LAST.broker);
    }

    #[test]
    fn a_wall_clock_fifty_years_ahead_counts_the_longest_downtime() {
        let fifty_years = 50 * 365 * 86_400_000;
        let opened = broker_time_at_opening(Some(LAST), LAST.wall_milliseconds + fifty_years, DAY);
        assert_eq!(opened, LAST.broker.plus(DAY));
    }

    #[test]
    fn a_late_heartbeat_and_an_early_one_agree() {
        let earlier = Heartbeat {
            broker: Timestamp(LAST.broker.0 - 10_000),
            wall_milliseconds: LAST.wall_milliseconds - 10_000,
        };
        let wall = LAST.wall_milliseconds + 5_000;
        let late = broker_time_at_opening(Some(LAST), wall, DAY);
        assert_eq!(broker_time_at_opening(Some(earlier), wall, DAY), late);
    }

    #[test]
    fn extreme_clocks_saturate() {
        let last = Heartbeat { broker: Timestamp(u64::MAX - 1), wall_milliseconds: 0 };
        let opened = broker_time_at_opening(Some(last), u64::MAX, Duration::MAX);
        assert_eq!(opened, Timestamp(u64::MAX));
    }
}
