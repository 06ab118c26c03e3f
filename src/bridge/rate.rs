//! Limits messages and bytes per second, so that a backlog does not flood the remote broker.

use std::time::{Duration, Instant};

/// Two token buckets, each holding one second's worth. A message passes when both have something left; a message larger
/// than the rest goes into debt, so that no size is blocked forever.
#[derive(Debug, Clone)]
pub(crate) struct RateLimit {
    messages: Bucket,
    bytes: Bucket,
}

#[derive(Debug, Clone)]
struct Bucket {
    per_second: f64,
    tokens: f64,
    filled: Instant,
}

impl RateLimit {
    /// Zero means no limit.
    #[must_use]
    pub(crate) fn new(messages_per_second: u64, bytes_per_second: u64, now: Instant) -> Self {
        Self {
            messages: Bucket::new(messages_per_second, now),
            bytes: Bucket::new(bytes_per_second, now),
        }
    }

    /// Whether there is a limit at all.
    #[must_use]
    pub(crate) fn is_limited(&self) -> bool {
        self.messages.per_second > 0.0 || self.bytes.per_second > 0.0
    }

    /// Takes one message of this size, if it may pass now.
    pub(crate) fn take(&mut self, bytes: usize, now: Instant) -> bool {
        if !self.is_limited() {
            return true;
        }
        self.messages.fill(now);
        self.bytes.fill(now);
        if self.messages.is_empty() || self.bytes.is_empty() {
            return false;
        }
        self.messages.tokens -= 1.0;
        #[expect(clippy::cast_precision_loss, reason = "a packet has at most 2^28 bytes")]
        let bytes = bytes as f64;
        self.bytes.tokens -= bytes;
        true
    }

    /// When the next message may pass. This is the same instant at every call, because it counts from the last use of
    /// the buckets; counted from now, it would never come.
    #[must_use]
    pub(crate) fn ready_at(&self) -> Instant {
        self.messages.ready_at().max(self.bytes.ready_at())
    }
}

impl Bucket {
    fn new(per_second: u64, now: Instant) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 52 bits")]
        let per_second = per_second as f64;
        // A tenth of a second's worth at first, so that reconnecting does not circumvent the limit.
        Self { per_second, tokens: (per_second / 10.0).max(1.0), filled: now }
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + passed * self.per_second).min(self.per_second.max(1.0));
        self.filled = now;
    }

    fn is_empty(&self) -> bool {
        self.per_second > 0.0 && self.tokens < 1.0
    }

    fn ready_at(&self) -> Instant {
        if !self.is_empty() {
            return self.filled;
        }
        // At least a millisecond: finer steps only waste time.
        let wait = ((1.0 - self.tokens) / self.per_second).clamp(0.001, 3600.0);
        self.filled + Duration::from_secs_f64(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(limit: &mut RateLimit, bytes: usize, start: Instant, time: Duration) -> u32 {
        let mut now = start;
        let mut count = 0;
        while now < start + time {
            while limit.take(bytes, now) {
                count += 1;
                assert!(count < 1_000_000, "no limit");
            }
            now = limit.ready_at();
            assert_eq!(now, limit.ready_at());
        }
        count
    }

    #[test]
    fn messages_are_limited() {
        let start = Instant::now();
        let mut limit = RateLimit::new(100, 0, start);
        let count = passed(&mut limit, 10_000, start, Duration::from_secs(10));
        assert!((990..=1_012).contains(&count), "{count}");
    }

    #[test]
    fn bytes_are_limited_even_when_one_message_exceeds_a_second() {
        let start = Instant::now();
        let mut limit = RateLimit::new(0, 1_000, start);
        let count = passed(&mut limit, 5_000, start, Duration::from_secs(50));
        assert!((10..=11).contains(&count), "{count}");
    }

    #[test]
    fn no_limit_lets_everything_pass() {
        let now = Instant::now();
        let mut limit = RateLimit::new(0, 0, now);
        assert!(!limit.is_limited());
        assert!((0..1_000_000).all(|_| limit.take(100, now)));
    }

    #[test]
    fn a_pause_saves_at_most_one_second() {
        let start = Instant::now();
        let mut limit = RateLimit::new(10, 0, start);
        let later = start + Duration::from_secs(100);
        assert_eq!((0..100).filter(|_| limit.take(1, later)).count(), 10);
    }
}
