//! Limits the log lines that Clients can cause.
//!
//! An operator wants a line for each connection, until a thousand Clients per second come and go: then logging would cost
//! more than serving them. So such lines draw on a budget; when it is empty, lines are left out and counted.

use std::time::Instant;

use parking_lot::Mutex;

use crate::metrics::counter::{Counter, Counters};

/// Lines in a burst.
const BURST: f64 = 1000.0;

/// Lines per second after that.
const PER_SECOND: f64 = 50.0;

/// A budget of lines.
#[derive(Debug)]
pub(crate) struct LineBudget {
    purse: Mutex<Purse>,
    counters: Counters,
}

#[derive(Debug)]
struct Purse {
    lines: f64,
    filled: Instant,
    /// Left out since the last line that was written.
    left_out: u64,
}

impl LineBudget {
    /// Creates a full budget. Lines left out are counted in `counters`.
    pub(crate) fn new(counters: Counters) -> Self {
        let purse = Purse { lines: BURST, filled: Instant::now(), left_out: 0 };
        Self { purse: Mutex::new(purse), counters }
    }

    /// Whether a line may be written. The first one after a gap says how many are missing.
    pub(crate) fn permit(&self) -> bool {
        let permitted = self.purse.lock().take(Instant::now());
        let Some(left_out) = permitted else {
            self.counters.add(Counter::LogLinesLeftOut, 1);
            return false;
        };
        if left_out > 0 {
            tracing::info!(target: "petrel::client", left_out, "log lines about clients were left out here");
        }
        true
    }
}

impl Purse {
    /// Takes one line from the budget; returns how many were left out before it.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let elapsed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.lines = (self.lines + elapsed * PER_SECOND).min(BURST);
        self.filled = now;
        if self.lines < 1.0 {
            self.left_out += 1;
            return None;
        }
        self.lines -= 1.0;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_is_written_and_then_so_many_a_second() {
        let start = Instant::now();
        let mut purse = Purse { lines: BURST, filled: start, left_out: 0 };
        let written = (0..5000).filter(|_| purse.take(start).is_some()).count();
        assert_eq!(written, 1000);
        let later = start + Duration::from_secs(1);
        assert_eq!(purse.take(later), Some(4000));
        let written = (0..5000).filter(|_| purse.take(later).is_some()).count();
        assert_eq!(written, 49);
        let much_later = later + Duration::from_secs(3600);
        let written = (0..5000).filter(|_| purse.take(much_later).is_some()).count();
        assert_eq!(written, 1000);
    }
}
