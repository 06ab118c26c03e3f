//! The pause before the next connection attempt of a bridge.

use std::time::Duration;

/// Pauses that grow from a minimum to a maximum with decorrelated jitter, so that a thousand bridges that lost the same
/// broker do not reconnect at the same time.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    last: Duration,
}

impl Backoff {
    /// Starts at `min`.
    #[must_use]
    pub(crate) fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, last: Duration::ZERO }
    }

    /// The next pause: between `min` and three times the last one, at most `max`. `random` is uniform in `0.0..1.0`.
    pub(crate) fn next(&mut self, random: f64) -> Duration {
        let ceiling = (self.last * 3).clamp(self.min, self.max);
        // The first pause varies, too, because all bridges of a restarted broker start at the same time.
        let floor = if self.last.is_zero() { self.min / 2 } else { self.min };
        let span = ceiling.saturating_sub(floor);
        self.last = (floor + span.mul_f64(random.clamp(0.0, 1.0))).max(self.min / 2);
        // Growth follows the ceiling, so that a row of small random numbers does not keep the pauses short.
        let pause = self.last;
        self.last = self.last.max(ceiling / 2);
        pause
    }

    /// The connection was stable: the next pause is the first again.
    pub(crate) fn reset(&mut self) {
        self.last = Duration::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_secs(1);
    const MAX: Duration = Duration::from_secs(30);

    #[test]
    fn pauses_stay_in_bounds_and_reach_the_maximum() {
        for random in [0.0, 0.3, 0.5, 0.999] {
            let mut backoff = Backoff::new(MIN, MAX);
            let pauses: Vec<_> = (0..50).map(|_| backoff.next(random)).collect();
            assert!(pauses.iter().all(|pause| *pause >= MIN / 2 && *pause <= MAX), "{pauses:?}");
            assert!(backoff.last >= MAX / 2, "{pauses:?}");
        }
    }

    #[test]
    fn a_reset_starts_again() {
        let mut backoff = Backoff::new(MIN, MAX);
        for _ in 0..10 {
            backoff.next(0.9);
        }
        backoff.reset();
        assert!(backoff.next(0.999) <= MIN);
    }

    #[test]
    fn a_constant_pause_is_constant() {
        let mut backoff = Backoff::new(MIN, MIN);
        backoff.next(0.5);
        assert_eq!(backoff.next(0.1), MIN);
        assert_eq!(backoff.next(0.9), MIN);
    }
}
