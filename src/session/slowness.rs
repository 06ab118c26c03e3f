//! Tracks how long publishers have waited for one recipient. Waiting is worthwhile for short congestion, because it saves
//! messages and memory. But a permanently slow recipient would slow all its publishers forever: once it has used up its
//! allowance, publishers stop waiting for it for a while, and its limits apply.

use std::time::Duration;

use crate::durable::message::Timestamp;

/// Waiting time that one recipient may cause.
const GRANTED: Duration = Duration::from_millis(250);
/// One part in this many of the time without waiting is added to the allowance.
const REGRANTED_PART: u32 = 100;
/// How long publishers do not wait for it once the allowance is used up.
const RESPITE: Duration = Duration::from_secs(5);

/// Waiting time that a recipient has caused recently.
#[derive(Debug, Default)]
pub(super) struct Slowness {
    waited: Duration,
    counted_until: Timestamp,
    ignored_until: Timestamp,
}

impl Slowness {
    /// Records that a publisher waited from `since` to `now`. True if publishers should stop waiting for a while.
    pub(super) fn note_wait(&mut self, since: Timestamp, now: Timestamp) -> bool {
        // Publishers that wait at the same time count once.
        let since = since.max(self.counted_until);
        let regranted = since.since(self.counted_until) / REGRANTED_PART;
        self.waited = self.waited.saturating_sub(regranted) + now.since(since);
        self.counted_until = self.counted_until.max(now);
        if self.waited < GRANTED {
            return false;
        }
        self.ignored_until = now.plus(RESPITE);
        true
    }

    /// Whether publishers do not wait at present.
    pub(super) fn is_ignored(&self, now: Timestamp) -> bool {
        now < self.ignored_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_000_000;

    fn note(slowness: &mut Slowness, since: u64, now: u64) -> bool {
        slowness.note_wait(Timestamp(START + since), Timestamp(START + now))
    }

    #[test]
    fn one_that_is_slow_all_the_time_is_ignored_and_then_granted_little() {
        let mut slowness = Slowness::default();
        let ignored = (0..20).find(|round| note(&mut slowness, round * 70, round * 70 + 60));
        assert_eq!(ignored, Some(4), "after 250 ms");
        let at = 4 * 70 + 60;
        assert!(slowness.is_ignored(Timestamp(START + at + 4_999)));
        assert!(!slowness.is_ignored(Timestamp(START + at + 5_000)));
        assert!(note(&mut slowness, at + 5_000, at + 5_100), "50 ms were granted anew");
    }

    #[test]
    fn publishers_that_wait_at_once_are_counted_once() {
        let mut slowness = Slowness::default();
        assert!((0..100).all(|_| !note(&mut slowness, 0, 100)));
    }

    #[test]
    fn rare_jams_are_always_waited_for() {
        let mut slowness = Slowness::default();
        assert!((0..100).all(|round| !note(&mut slowness, round * 10_000, round * 10_000 + 100)));
    }
}
