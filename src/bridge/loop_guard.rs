//! Two ways to notice that a message comes back.
//!
//! On 5.0 links a User Property names the brokers that a message has passed ([`crate::bridge::properties::HOPS`]): a
//! broker that finds itself there drops the message. 3.x packets have no room for that, so [`EchoMemory`] remembers for
//! a short time what went out over 3.x links, and takes one incoming message of equal topic and payload for each as its
//! echo: one that comes in by a bridge of ours, or from the bridge of another broker.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use parking_lot::Mutex;

/// Whether `broker_id` is in a trail.
#[must_use]
pub fn trail_contains(trail: &str, broker_id: &str) -> bool {
    trail.split(',').any(|hop| hop == broker_id)
}

/// How many brokers a trail names.
#[must_use]
pub fn trail_length(trail: &str) -> usize {
    match trail {
        "" => 0,
        _ => memchr::memchr_iter(b',', trail.as_bytes()).count() + 1,
    }
}

/// Most messages remembered at a time; beyond it the oldest are forgotten. About 40 bytes each.
pub const MAX_REMEMBERED: usize = 100_000;

/// The echo memory that all bridges of a broker share, since an echo may come in by another bridge than the message went
/// out by. It works only while the rules of the bridges together make an echo possible.
#[derive(Debug, Default)]
pub struct EchoGuard {
    is_needed: AtomicBool,
    memory: Mutex<EchoMemory>,
}

impl EchoGuard {
    /// Turns it on or off.
    pub fn set_needed(&self, is_needed: bool) {
        self.is_needed.store(is_needed, Ordering::Relaxed);
    }

    /// A message goes out over a 3.x link.
    pub fn remember(&self, topic: &str, payload: &[u8], now: Instant, window: Duration) {
        if self.is_needed.load(Ordering::Relaxed) && !window.is_zero() {
            self.memory.lock().remember(topic, payload, now, window);
        }
    }

    /// Whether an incoming message is the echo of one that went out.
    #[must_use]
    pub fn is_echo(&self, topic: &str, payload: &[u8], now: Instant) -> bool {
        self.is_needed.load(Ordering::Relaxed) && self.memory.lock().is_echo(topic, payload, now)
    }
}

/// The messages that went out over 3.x links a short time ago, by the fingerprint of their local topic and payload.
#[derive(Debug, Default)]
pub struct EchoMemory {
    counts: HashMap<u64, u32>,
    order: VecDeque<(Instant, u64)>,
    hasher: foldhash::quality::RandomState,
}

impl EchoMemory {
    /// A message goes out; its echo is expected within `window`.
    pub fn remember(&mut self, topic: &str, payload: &[u8], now: Instant, window: Duration) {
        self.forget(now);
        while self.order.len() >= MAX_REMEMBERED {
            self.pop();
        }
        let fingerprint = self.fingerprint(topic, payload);
        *self.counts.entry(fingerprint).or_insert(0) += 1;
        // Bridges may have different windows: a longer one in front only keeps a shorter one a little longer.
        self.order.push_back((now + window, fingerprint));
    }

    /// Whether an incoming message is the echo of a remembered one, which is then forgotten.
    pub fn is_echo(&mut self, topic: &str, payload: &[u8], now: Instant) -> bool {
        self.forget(now);
        let fingerprint = self.fingerprint(topic, payload);
        match self.counts.get_mut(&fingerprint) {
            Some(count) if *count > 0 => {
                *count -= 1;
                true
            }
            _ => false,
        }
    }

    fn fingerprint(&self, topic: &str, payload: &[u8]) -> u64 {
        self.hasher.hash_one((topic, payload))
    }

    fn forget(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(until, _)| *until <= now) {
            self.pop();
        }
    }

    /// Each remembered message has one entry in `order`. One that met its echo has none left in `counts`; which of
    /// several equal messages that was does not matter, so the count is never taken below what `order` still holds.
    fn pop(&mut self) {
        let Some((_, fingerprint)) = self.order.pop_front() else { return };
        if let Some(count) = self.counts.get_mut(&fingerprint) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.counts.remove(&fingerprint);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(5);

    #[test]
    fn trails_are_searched_by_whole_names() {
        assert!(trail_contains("a,b,c", "b"));
        assert!(!trail_contains("ab,c", "b"));
        assert!(!trail_contains("", "b"));
        assert_eq!((trail_length(""), trail_length("a"), trail_length("a,b")), (0, 1, 2));
    }

    #[test]
    fn each_message_accounts_for_one_echo() {
        let now = Instant::now();
        let mut memory = EchoMemory::default();
        memory.remember("t", b"1", now, WINDOW);
        memory.remember("t", b"1", now, WINDOW);
        assert!(!memory.is_echo("t", b"2", now));
        assert!(!memory.is_echo("u", b"1", now));
        assert!(memory.is_echo("t", b"1", now));
        assert!(memory.is_echo("t", b"1", now));
        assert!(!memory.is_echo("t", b"1", now));
    }

    #[test]
    fn an_echo_after_the_window_is_a_message() {
        let now = Instant::now();
        let mut memory = EchoMemory::default();
        memory.remember("t", b"1", now, WINDOW);
        assert!(!memory.is_echo("t", b"1", now + WINDOW));
        assert_eq!((memory.counts.len(), memory.order.len()), (0, 0));
    }

    #[test]
    fn memory_is_bounded() {
        let now = Instant::now();
        let mut memory = EchoMemory::default();
        for number in 0..MAX_REMEMBERED + 10 {
            memory.remember("t", &number.to_be_bytes(), now, WINDOW);
        }
        assert_eq!(memory.order.len(), MAX_REMEMBERED);
        assert_eq!(memory.counts.len(), MAX_REMEMBERED);
        assert!(!memory.is_echo("t", &0_usize.to_be_bytes(), now));
        assert!(memory.is_echo("t", &20_usize.to_be_bytes(), now));
    }
}
