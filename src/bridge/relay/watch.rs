//! The [`LoopWatch`] of one direction of a link, with the messages that it holds.

use std::time::Instant;

use hashbrown::HashSet;

use crate::bridge::relay::loop_watch::{Fingerprint, LoopWatch, Passage};

/// Most messages held in each direction. Beyond that no more are held, and messages pass in order.
const HELD_MAX: usize = 1024;
/// The same in bytes.
const HELD_BYTES_MAX: usize = 1024 * 1024;

/// The watch, and the messages it holds. Messages of one topic pass in order.
pub(super) struct Watch<M> {
    loops: LoopWatch,
    held: Vec<Held<M>>,
    held_bytes: usize,
}

struct Held<M> {
    fingerprint: Fingerprint,
    until: Instant,
    topic: Box<str>,
    bytes: usize,
    message: M,
}

/// What to do with an arriving message.
pub(super) enum Turn {
    /// It passes.
    Passes,
    /// It waits, and must be passed to [`Watch::hold`].
    Waits(Fingerprint, Instant),
}

impl<M> Watch<M> {
    pub(super) fn new(now: Instant) -> Self {
        Self { loops: LoopWatch::new(now), held: Vec::new(), held_bytes: 0 }
    }

    /// Handles an arriving message.
    pub(super) fn note(&mut self, topic: &str, payload: &[u8], now: Instant) -> Turn {
        let (fingerprint, passage) = self.loops.note(topic, payload, now);
        match passage {
            Passage::Held(until) if self.has_room() => Turn::Waits(fingerprint, until),
            // After held messages of its topic.
            _ if self.held.iter().any(|held| &*held.topic == topic) => {
                Turn::Waits(fingerprint, now)
            }
            Passage::Free | Passage::Held(_) => Turn::Passes,
        }
    }

    fn has_room(&self) -> bool {
        self.held.len() < HELD_MAX && self.held_bytes < HELD_BYTES_MAX
    }

    /// Keeps a message until its time has come.
    pub(super) fn hold(
        &mut self,
        (fingerprint, until): (Fingerprint, Instant),
        topic: &str,
        bytes: usize,
        message: M,
    ) {
        if !self.has_room() {
            // It is due now, and so are those before it.
            self.held.iter_mut().for_each(|held| held.until = held.until.min(until));
        }
        self.held_bytes += bytes;
        self.held.push(Held { fingerprint, until, topic: topic.into(), bytes, message });
    }

    /// The messages that need not wait any longer, in order.
    pub(super) fn take_released(&mut self, now: Instant) -> Vec<M> {
        if self.held.is_empty() {
            return Vec::new();
        }
        let mut waiting: HashSet<Box<str>> = HashSet::new();
        let (mut released, mut kept) = (Vec::new(), Vec::new());
        for held in std::mem::take(&mut self.held) {
            let may_pass = held.until <= now || self.loops.is_released(held.fingerprint, now);
            if may_pass && !waiting.contains(&held.topic) {
                self.held_bytes = self.held_bytes.saturating_sub(held.bytes);
                released.push(held.message);
            } else {
                waiting.insert(held.topic.clone());
                kept.push(held);
            }
        }
        self.held = kept;
        released
    }

    /// When [`Watch::release`] has something to do.
    pub(super) fn next_release(&self) -> Option<Instant> {
        self.held.iter().map(|held| held.until).min()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// The held messages, when the link has ended.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = M> + '_ {
        self.held_bytes = 0;
        self.held.drain(..).map(|held| held.message)
    }

    /// The number of circling messages.
    pub(super) fn looping(&self) -> usize {
        self.loops.looping()
    }

    /// Topics of messages found circling since the last call.
    pub(super) fn take_found(&mut self) -> Vec<String> {
        self.loops.take_found()
    }
}
