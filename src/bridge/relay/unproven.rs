//! Messages of QoS 0 with RETAIN that nothing shows to have arrived: when a link breaks, the last of them for each topic is
//! sent again over the next one, so that what the remote broker retains is what this one does. Nobody acknowledges them;
//! but what was sent before a PINGREQ has arrived when its PINGRESP comes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use hashbrown::HashMap;

/// Messages kept; beyond them all Retained Messages are sent anew.
const KEPT_MAX: usize = 10_000;
/// The same in bytes.
const KEPT_BYTES_MAX: usize = 1024 * 1024;
/// A PINGREQ is due so long after a message: of what was sent before, nothing has to be sent again.
const PROVEN_WITHIN: Duration = Duration::from_secs(1);
/// A PINGREQ is due when so much is kept.
const PING_AT_BYTES: usize = 128 * 1024;
/// The same in messages.
const PING_AT: usize = 1_000;

/// A message under its remote name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UnprovenMessage {
    /// Remote name.
    pub topic: String,
    /// As they were sent.
    pub properties: Vec<u8>,
    /// Empty where the Retained Message was cleared.
    pub payload: Vec<u8>,
}

impl UnprovenMessage {
    fn bytes(&self) -> usize {
        self.topic.len() + self.properties.len() + self.payload.len()
    }
}

/// What a link leaves to the next one.
#[derive(Debug, Default)]
pub(crate) struct Unproven {
    messages: VecDeque<UnprovenMessage>,
    bytes: usize,
    /// So many of them went before the PINGREQ on its way.
    before_ping: usize,
    is_incomplete: bool,
    /// When the first of those was sent that no PINGREQ went behind.
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

    /// Whether so much is kept that the remote broker should be asked.
    pub(super) fn wants_ping(&self) -> bool {
        self.messages.len() >= PING_AT || self.bytes >= PING_AT_BYTES
    }

    /// When the remote broker is to be asked.
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

    /// Takes over what another one has behind what is here.
    pub(crate) fn append(&mut self, other: Self, now: Instant) {
        self.is_incomplete |= other.is_incomplete;
        other.messages.into_iter().for_each(|message| self.push(message, now));
    }

    /// Whether there was more than is kept; asked once.
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
