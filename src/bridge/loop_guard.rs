//! Two ways to detect messages that come back.
//!
//! On 5.0 links a User Property lists the brokers that a message has passed ([`crate::bridge::properties::HOPS`]): a
//! broker that finds itself there drops the message. 3.x packets have no room for that, so [`EchoMemory`] remembers
//! messages that leave over 3.x links for a short time. For each of them it treats one incoming message with the same
//! topic and payload as its echo, whether it comes over our bridge or another broker's.
//!
//! Each way out accounts for one way back, and is remembered before the message can return: when it is routed to the
//! Session of a bridge, ours or another broker's, and for ours again when it is sent, perhaps days later. So if two
//! brokers each have a bridge to the other, each recognises every copy that comes back, whichever way was faster.
//!
//! A message that comes again from the same broker may also be a new one: a sensor repeats its value, and a chain of
//! bridges forwards each repetition. So such a message is an echo only within [`MAX_LAP`] of the previous one.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use parking_lot::Mutex;

/// Whether `broker_id` is in a trail.
#[must_use]
pub(crate) fn trail_contains(trail: &str, broker_id: &str) -> bool {
    trail.split(',').any(|hop| hop == broker_id)
}

/// The number of brokers in a trail.
#[must_use]
pub(crate) fn trail_length(trail: &str) -> usize {
    match trail {
        "" => 0,
        _ => memchr::memchr_iter(b',', trail.as_bytes()).count() + 1,
    }
}

/// Most ways out remembered; beyond that the oldest are forgotten. About 40 bytes each.
pub(crate) const MAX_REMEMBERED: usize = 200_000;

/// The longest lap for a message that comes again the way it came: a lap around a ring takes milliseconds, and devices
/// rarely repeat themselves faster than this.
pub(crate) const MAX_LAP: Duration = Duration::from_millis(300);

/// The publisher of a message here, by Session id.
pub(crate) type Origin = u64;

/// The echo memory shared by all bridges of a broker, because an echo may arrive over another bridge than the message
/// left by. It is active only while the rules of the bridges together make an echo possible.
#[derive(Debug, Default)]
pub(crate) struct EchoGuard {
    window_millis: AtomicU64,
    memory: Mutex<EchoMemory>,
}

impl EchoGuard {
    /// How long an echo may take; zero turns the memory off.
    pub(crate) fn set_window(&self, window: Duration) {
        let millis = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
        self.window_millis.store(millis, Ordering::Relaxed);
    }

    /// Records that a message was routed to a Session whose Client forwards it over a 3.x link.
    pub(crate) fn note_routed(&self, topic: &str, payload: &[u8], origin: Origin, now: Instant) {
        let window = self.window();
        if !window.is_zero() {
            self.memory.lock().note_routed(topic, payload, origin, now, window);
        }
    }

    /// Records that one of our bridges sends a message over a 3.x link. `window` is that of the bridge.
    pub(crate) fn note_sent(&self, topic: &str, payload: &[u8], now: Instant, window: Duration) {
        if !self.window().is_zero() && !window.is_zero() {
            self.memory.lock().note_sent(topic, payload, now, window);
        }
    }

    /// Whether an incoming message is the echo of an outgoing one. `from` is its publisher here.
    #[must_use]
    pub(crate) fn is_echo(&self, topic: &str, payload: &[u8], from: Origin, now: Instant) -> bool {
        !self.window().is_zero() && self.memory.lock().is_echo(topic, payload, from, now)
    }

    fn window(&self) -> Duration {
        Duration::from_millis(self.window_millis.load(Ordering::Relaxed))
    }
}

/// Messages that left over 3.x links recently, by the fingerprint of their local topic and payload.
#[derive(Debug, Default)]
pub(crate) struct EchoMemory {
    expected: HashMap<u64, Expected>,
    order: VecDeque<(Instant, u64)>,
    hasher: foldhash::quality::RandomState,
}

/// The state of equal messages. `echoes` and `void` together are their entries in `order`.
#[derive(Debug)]
struct Expected {
    /// Expected echoes.
    echoes: u32,
    /// Entries in `order` that no longer count, the oldest first.
    void: u32,
    /// Messages routed but not sent yet.
    unsent: u32,
    /// Their publisher, if it is known and the same for all.
    origin: Option<Origin>,
    /// When the last of them was routed or sent.
    latest: Instant,
}

impl EchoMemory {
    /// Records that a message will leave; its echo is expected within `window`, counted from sending if it waits.
    pub(crate) fn note_routed(
        &mut self,
        topic: &str,
        payload: &[u8],
        origin: Origin,
        now: Instant,
        window: Duration,
    ) {
        let expected = self.remember(topic, payload, Some(origin), now, window);
        if expected.origin != Some(origin) {
            expected.origin = None;
        }
        expected.echoes += 1;
        expected.unsent += 1;
    }

    /// Records that a message leaves; its echo is expected within `window`.
    pub(crate) fn note_sent(
        &mut self,
        topic: &str,
        payload: &[u8],
        now: Instant,
        window: Duration,
    ) {
        let expected = self.remember(topic, payload, None, now, window);
        if expected.unsent > 0 {
            // Replaces the entry from its routing, whose echo may even have arrived already.
            expected.unsent -= 1;
            expected.void += 1;
        } else {
            // It has waited longer than the window, and its publisher is forgotten.
            expected.origin = None;
            expected.echoes += 1;
        }
    }

    /// Whether an incoming message is the echo of a remembered one, which is then forgotten.
    pub(crate) fn is_echo(
        &mut self,
        topic: &str,
        payload: &[u8],
        from: Origin,
        now: Instant,
    ) -> bool {
        self.forget(now);
        let fingerprint = self.fingerprint(topic, payload);
        let Some(expected) = self.expected.get_mut(&fingerprint) else { return false };
        let is_from_elsewhere = expected.origin.is_some_and(|origin| origin != from);
        let is_soon = now.saturating_duration_since(expected.latest) <= MAX_LAP;
        let is_echo = expected.echoes > 0 && (is_from_elsewhere || is_soon);
        if is_echo {
            expected.echoes -= 1;
            expected.void += 1;
        }
        is_echo
    }

    /// Puts one more entry into `order`. `origin` is that of the first of equal messages.
    fn remember(
        &mut self,
        topic: &str,
        payload: &[u8],
        origin: Option<Origin>,
        now: Instant,
        window: Duration,
    ) -> &mut Expected {
        self.forget(now);
        while self.order.len() >= MAX_REMEMBERED {
            self.pop();
        }
        let fingerprint = self.fingerprint(topic, payload);
        // Bridges may have different windows: a longer one at the front only keeps a shorter one slightly longer.
        self.order.push_back((now + window, fingerprint));
        let fresh = Expected { echoes: 0, void: 0, unsent: 0, origin, latest: now };
        let expected = self.expected.entry(fingerprint).or_insert(fresh);
        expected.latest = now;
        expected
    }

    fn fingerprint(&self, topic: &str, payload: &[u8]) -> u64 {
        self.hasher.hash_one((topic, payload))
    }

    fn forget(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(until, _)| *until <= now) {
            self.pop();
        }
    }

    /// Forgets the oldest entry.
    fn pop(&mut self) {
        let Some((_, fingerprint)) = self.order.pop_front() else { return };
        let Some(expected) = self.expected.get_mut(&fingerprint) else { return };
        if expected.void > 0 {
            expected.void -= 1;
        } else {
            expected.echoes = expected.echoes.saturating_sub(1);
            // It was never sent: dropped from a full queue, or it still waits there.
            expected.unsent = expected.unsent.min(expected.echoes);
        }
        if expected.echoes + expected.void == 0 {
            self.expected.remove(&fingerprint);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(5);
    /// A Client of ours, and the bridge of another broker.
    const HERE: Origin = 1;
    const THERE: Origin = 2;

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
        memory.note_sent("t", b"1", now, WINDOW);
        memory.note_sent("t", b"1", now, WINDOW);
        assert!(!memory.is_echo("t", b"2", THERE, now));
        assert!(!memory.is_echo("u", b"1", THERE, now));
        assert!(memory.is_echo("t", b"1", THERE, now));
        assert!(memory.is_echo("t", b"1", THERE, now));
        assert!(!memory.is_echo("t", b"1", THERE, now));
    }

    #[test]
    fn an_echo_after_the_window_is_a_message() {
        let now = Instant::now();
        let mut memory = EchoMemory::default();
        memory.note_sent("t", b"1", now, WINDOW);
        assert!(!memory.is_echo("t", b"1", THERE, now + WINDOW));
        assert_eq!((memory.expected.len(), memory.order.len()), (0, 0));
    }

    #[test]
    fn the_echo_that_came_is_the_one_that_is_forgotten() {
        let now = Instant::now();
        let mut memory = EchoMemory::default();
        memory.note_routed("t", b"1", HERE, now, WINDOW);
        memory.note_routed("t", b"1", HERE, now + WINDOW / 2, WINDOW);
        assert!(memory.is_echo("t", b"1", THERE, now));
        assert!(memory.is_echo("t", b"1", THERE, now + WINDOW));
    }

    #[test]
    fn a_message_is_expected_back_once_from_its_routing_on() {
        let now = Instant::now();
        let later = now + WINDOW / 2;
        // Back by another way before it was sent.
        let mut memory = EchoMemory::default();
        memory.note_routed("t", b"1", HERE, now, WINDOW);
        assert!(memory.is_echo("t", b"1", THERE, now));
        memory.note_sent("t", b"1", now, WINDOW);
        assert!(!memory.is_echo("t", b"1", THERE, now));
        // Back after it was sent: the window counts from then.
        memory.note_routed("t", b"2", HERE, now, WINDOW);
        memory.note_sent("t", b"2", later, WINDOW);
        assert!(memory.is_echo("t", b"2", THERE, now + WINDOW));
        assert!(!memory.is_echo("t", b"2", THERE, now + WINDOW));
        // By two ways.
        memory.note_routed("t", b"3", HERE, now, WINDOW);
        memory.note_routed("t", b"3", HERE, now, WINDOW);
        memory.note_sent("t", b"3", now, WINDOW);
        assert!(memory.is_echo("t", b"3", THERE, now));
        assert!(memory.is_echo("t", b"3", THERE, now));
        assert!(!memory.is_echo("t", b"3", THERE, now));
    }

    #[test]
    fn what_waits_longer_than_the_window_is_expected_when_it_is_sent() {
        let now = Instant::now();
        let mut memory = EchoMemory::default();
        memory.note_routed("t", b"1", HERE, now, WINDOW);
        assert!(!memory.is_echo("t", b"1", THERE, now + WINDOW));
        memory.note_sent("t", b"1", now + 2 * WINDOW, WINDOW);
        assert!(memory.is_echo("t", b"1", THERE, now + 2 * WINDOW));
        assert!(!memory.is_echo("t", b"1", THERE, now + 4 * WINDOW));
        assert_eq!((memory.expected.len(), memory.order.len()), (0, 0));
    }

    /// A sensor at the other end of a chain repeats its value.
    #[test]
    fn what_is_said_again_there_is_no_echo() {
        let mut now = Instant::now();
        let mut memory = EchoMemory::default();
        for _ in 0..10 {
            assert!(!memory.is_echo("t", b"1", THERE, now));
            memory.note_routed("t", b"1", THERE, now, WINDOW);
            memory.note_sent("t", b"1", now, WINDOW);
            now += Duration::from_secs(1);
        }
        // A lap around a ring is faster.
        now += WINDOW;
        memory.note_routed("t", b"1", THERE, now, WINDOW);
        assert!(memory.is_echo("t", b"1", THERE, now + MAX_LAP));
        // A message of somebody else is expected for the whole window.
        memory.note_routed("t", b"2", HERE, now, WINDOW);
        assert!(memory.is_echo("t", b"2", THERE, now + WINDOW / 2));
        // A backlog is sent at once, and its publishers are forgotten.
        memory.note_sent("t", b"3", now, WINDOW);
        memory.note_sent("t", b"3", now, WINDOW);
        assert!(!memory.is_echo("t", b"3", THERE, now + Duration::from_secs(1)));
    }

    #[test]
    fn memory_is_bounded() {
        let now = Instant::now();
        let mut memory = EchoMemory::default();
        for number in 0..MAX_REMEMBERED + 10 {
            memory.note_sent("t", &number.to_be_bytes(), now, WINDOW);
        }
        assert_eq!(memory.order.len(), MAX_REMEMBERED);
        assert_eq!(memory.expected.len(), MAX_REMEMBERED);
        assert!(!memory.is_echo("t", &0_usize.to_be_bytes(), THERE, now));
        assert!(memory.is_echo("t", &20_usize.to_be_bytes(), THERE, now));
    }
}
