//! QoS 0 messages with RETAIN whose arrival is not proven: when a link is lost, the last of them for each topic is sent
//! again over the next link, so that both brokers retain the same values. They are not acknowledged, but messages sent
//! before a PINGREQ have arrived when its PINGRESP does.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use hashbrown::HashMap;

/// Most messages kept; beyond that all Retained Messages are sent again.
const KEPT_MAX: usize = 10_000;
/// The same in bytes.
const KEPT_BYTES_MAX: usize = 1024 * 1024;
/// A PINGREQ is due this long after a message, to prove that it has arrived.
const PROVEN_WITHIN: Duration = Duration::from_secs(1);
/// A PINGREQ is due when this many bytes are kept.
const PING_AT_BYTES: usize = 128 * 1024;
/// The same in messages.
const PING_AT: usize = 1_000;

/// A message under its remote name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UnprovenMessage {
    /// Remote name.
    pub(crate) topic: String,
    /// As they were sent.
    pub(crate) properties: Vec<u8>,
    /// Empty where the Retained Message was cleared.
    pub(crate) payload: Vec<u8>,
}

impl UnprovenMessage {
    fn bytes(&self) -> usize {
        self.topic.len() + self.properties.len() + self.payload.len()
    }
}

/// The unproven messages that a link leaves to the next one.
#[derive(Debug, Default)]
pub(crate) struct Unproven {
    messages: VecDeque<UnprovenMessage>,
    bytes: usize,
    /// How many of them were sent before the pending PINGREQ.
    before_ping: usize,
    is_incomplete: bool,
    /// When the first message after the last PINGREQ was sent.
    since: Option<Instant>,
}

impl Unproven {
    pub(super) fn push(&mut self, message: UnprovenMessage, now: Instant) {
        self.since = self.since.or(Some(now));
        if self.messages.len() >= KEPT_MAX || self.bytes >= KEPT_BYTES_MAX {
            self.is_incomplete = true;
            return;
        }
        self.bytes += message.bytes();
        self.messages.push_back(message);
    }

    /// Whether enough is kept to send a PINGREQ.
    pub(super) fn wants_ping(&self) -> bool {
        self.messages.len() >= PING_AT || self.bytes >= PING_AT_BYTES
    }

    /// When a PINGREQ is due.
    pub(super) fn ping_due(&self) -> Option<Instant> {
        self.since.map(|since| since + PROVEN_WITHIN)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(super) fn note_ping(&mut self) {
        self.since = None;
        self.before_ping = self.messages.len();
    }

    pub(super) fn note_answer(&mut self) {
        for message in self.messages.drain(..self.before_ping.min(self.messages.len())) {
            self.bytes = self.bytes.saturating_sub(message.bytes());
        }
        self.before_ping = 0;
    }

    /// Appends the messages of another one.
    pub(crate) fn append(&mut self, other: Self, now: Instant) {
        self.is_incomplete |= other.is_incomplete;
        other.messages.into_iter().for_each(|message| self.push(message, now));
    }

    /// Whether messages were left out; resets the flag.
    pub(crate) fn take_incomplete(&mut self) -> bool {
        std::mem::take(&mut self.is_incomplete)
    }

    /// The last message of each topic, in the order in which they were sent.
    pub(super) fn take_last(&mut self) -> Vec<UnprovenMessage> {
        let mut last: HashMap<&str, usize> = HashMap::new();
        for (place, message) in self.messages.iter().enumerate() {
            last.insert(&message.topic, place);
        }
        let mut places: Vec<usize> = last.into_values().collect();
        places.sort_unstable();
        let kept = places.into_iter().filter_map(|place| self.messages.get(place).cloned());
        let kept = kept.collect();
        self.messages.clear();
        (self.bytes, self.before_ping, self.since) = (0, 0, None);
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(topic: &str, payload: &[u8]) -> UnprovenMessage {
        UnprovenMessage { topic: topic.into(), properties: Vec::new(), payload: payload.into() }
    }

    #[test]
    fn what_a_ping_has_proven_is_forgotten() {
        let mut unproven = Unproven::default();
        unproven.push(message("a", b"1"), Instant::now());
        unproven.push(message("b", b"1"), Instant::now());
        unproven.note_ping();
        unproven.push(message("c", b"1"), Instant::now());
        unproven.push(message("c", b""), Instant::now());
        unproven.note_answer();
        unproven.note_answer();
        assert_eq!(unproven.take_last(), [message("c", b"")]);
        assert!(unproven.take_last().is_empty() && unproven.bytes == 0);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut unproven = Unproven::default();
        let now = Instant::now();
        (0..=KEPT_MAX).for_each(|number| unproven.push(message(&number.to_string(), b""), now));
        assert!(unproven.wants_ping());
        assert!(unproven.take_incomplete() && !unproven.take_incomplete());
        let mut next = Unproven::default();
        next.append(unproven, now);
        assert_eq!(next.take_last().len(), KEPT_MAX);
    }
}
