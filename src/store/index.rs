//! The index of queues: what the writer knows about each queue without reading it, that is its start, end and
//! approximate size.
//!
//! Reading starts from the index and not from the first key, which may come after a million removals. The record on
//! disk is a checkpoint: it is exact for positions below its `end`, because a group that changes such a position
//! rewrites the record. Entries above it are found by reading from there, at most a few seconds' worth. So the index
//! adds no cost to a queue whose messages come and go quickly.
//!
//! `message_count` and `message_bytes` are exact as long as removals name positions that hold messages; removed
//! messages count with the average size in the queue. Both are exact again whenever a queue is empty.

use std::collections::{BTreeSet, VecDeque};

use hashbrown::{HashMap, HashSet};

use crate::durable::message::{Sequence, SessionId};
use crate::store::value;

/// Removals after which the first message is searched for again: positions may be missing, so it is not simply the
/// next one.
const REMOVALS_PER_SEARCH: u32 = 1024;

/// Ended Sessions remembered, so that a message in progress to one of them does not leave an orphan.
const REMEMBERED_ENDS: usize = 65_536;

/// One queue.
#[derive(Debug, Clone, Default)]
pub(crate) struct QueueIndex {
    /// The first position that may hold an entry.
    pub(crate) start: u64,
    /// The first position that was never used.
    pub(crate) end: u64,
    /// Messages, not counting released ones.
    pub(crate) message_count: u64,
    /// Their bytes.
    pub(crate) message_bytes: u64,
    /// Messages with a shared body are only at these positions.
    pub(crate) shared: Span,
    /// `end` of the record on disk.
    pub(crate) saved_end: u64,
    /// Positions whose PUBREC was received.
    #[expect(clippy::box_collection, reason = "seldom there, and a pointer is smaller than a set")]
    pub(crate) released: Option<Box<BTreeSet<u64>>>,
    /// Whether there may be Subscriptions.
    pub(crate) has_subscriptions: bool,
    /// Whether there may be received Packet Identifiers.
    pub(crate) has_incoming: bool,
    removals: u32,
    dirty: bool,
    due: bool,
}

/// Places from `low` up to `high`, both included; empty by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// First.
    pub(crate) low: u64,
    /// Last.
    pub(crate) high: u64,
}

impl Default for Span {
    fn default() -> Self {
        Self { low: u64::MAX, high: 0 }
    }
}

impl Span {
    /// Whether the place is inside.
    #[must_use]
    pub(crate) fn contains(self, place: u64) -> bool {
        self.low <= place && place <= self.high
    }

    /// Whether nothing is inside.
    #[must_use]
    pub(crate) fn is_empty(self) -> bool {
        self.low > self.high
    }

    /// Grows to hold the place.
    pub(crate) fn include(&mut self, place: u64) {
        self.low = self.low.min(place);
        self.high = self.high.max(place);
    }
}

impl QueueIndex {
    /// Reads a checkpoint.
    #[must_use]
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let [start, end, message_count, message_bytes, low, high] = value::decode_numbers(bytes)?;
        let shared = Span { low, high };
        let saved_end = end;
        Some(Self {
            start,
            end,
            message_count,
            message_bytes,
            shared,
            saved_end,
            ..Self::default()
        })
    }

    /// Writes a checkpoint.
    #[must_use]
    pub(crate) fn encode(&self) -> Vec<u8> {
        let Span { low, high } = self.shared;
        value::encode_numbers([
            self.start,
            self.end,
            self.message_count,
            self.message_bytes,
            low,
            high,
        ])
    }

    /// A message was put.
    pub(crate) fn add(&mut self, place: u64, bytes: u64) {
        self.start =
            if self.start == self.end && place >= self.end { place } else { self.start.min(place) };
        self.end = self.end.max(place.saturating_add(1));
        self.message_count += 1;
        self.message_bytes += bytes;
    }

    /// A message was removed; its place may still be needed.
    pub(crate) fn remove_message(&mut self) {
        let average = self.message_bytes / self.message_count.max(1);
        self.message_count = self.message_count.saturating_sub(1);
        self.message_bytes = self.message_bytes.saturating_sub(average);
    }

    /// A place was removed. Says whether the first message must be looked for.
    pub(crate) fn remove_place(&mut self, place: u64) -> Search {
        if place == self.start {
            self.move_start(place.saturating_add(1));
            return Search::NotNow;
        }
        self.removals += 1;
        if self.removals < REMOVALS_PER_SEARCH || self.start == self.end {
            return Search::NotNow;
        }
        self.removals = 0;
        Search::Due
    }

    /// Moves the start: there is nothing before this position.
    pub(crate) fn move_start(&mut self, start: u64) {
        self.start = start.min(self.end);
        if self.start == self.end {
            self.message_count = 0;
            self.message_bytes = 0;
        }
        if self.shared.low < self.start {
            self.shared.low = self.start;
        }
        if self.shared.is_empty() || self.start == self.end {
            self.shared = Span::default();
        }
    }

    /// The first released place.
    #[must_use]
    pub(crate) fn first_released(&self) -> Option<u64> {
        self.released.as_ref()?.first().copied()
    }
}

/// Whether to search for the first message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Search {
    /// Enough messages were removed since the last search.
    Due,
    /// The start is known, or not worth a search yet.
    NotNow,
}

/// All queues.
#[derive(Debug, Default)]
pub(crate) struct Indexes {
    queues: HashMap<SessionId, QueueIndex>,
    dirty: Vec<SessionId>,
    due: Vec<SessionId>,
    ended: HashSet<SessionId>,
    ended_order: VecDeque<SessionId>,
}

impl Indexes {
    /// Adds a queue at opening.
    pub(crate) fn insert(&mut self, session: SessionId, index: QueueIndex) {
        self.queues.insert(session, index);
    }

    /// A queue.
    #[must_use]
    pub(crate) fn queue(&self, session: SessionId) -> Option<&QueueIndex> {
        self.queues.get(&session)
    }

    /// A queue, to change it.
    pub(crate) fn queue_mut(&mut self, session: SessionId) -> Option<&mut QueueIndex> {
        self.queues.get_mut(&session)
    }

    /// A queue, created if it is new; `None` if its Session has ended.
    pub(crate) fn open_queue(&mut self, session: SessionId) -> Option<&mut QueueIndex> {
        let Self { queues, ended, .. } = self;
        match queues.entry(session) {
            hashbrown::hash_map::Entry::Occupied(entry) => Some(entry.into_mut()),
            hashbrown::hash_map::Entry::Vacant(_) if ended.contains(&session) => None,
            hashbrown::hash_map::Entry::Vacant(entry) => Some(entry.insert(QueueIndex::default())),
        }
    }

    /// Forgets a queue whose Session ends.
    pub(crate) fn end_queue(&mut self, session: SessionId) -> Option<QueueIndex> {
        if self.ended.insert(session) {
            self.ended_order.push_back(session);
        }
        if self.ended_order.len() > REMEMBERED_ENDS
            && let Some(oldest) = self.ended_order.pop_front()
        {
            self.ended.remove(&oldest);
        }
        self.queues.remove(&session)
    }

    /// Records that a position changed: the record must be written with this group if it covers the position,
    /// otherwise later.
    pub(crate) fn touch(&mut self, session: SessionId, sequence: Sequence) {
        let Some(index) = self.queues.get_mut(&session) else { return };
        touch(index, session, sequence.0, &mut self.dirty, &mut self.due);
    }

    /// As [`Self::open_queue`], [`QueueIndex::add`] and [`Self::touch`] in one: this runs for each message.
    /// False when the Session has ended.
    pub(crate) fn add(&mut self, session: SessionId, sequence: Sequence, bytes: u64) -> bool {
        if self.open_queue(session).is_none() {
            return false;
        }
        let Some(index) = self.queues.get_mut(&session) else { return false };
        index.add(sequence.0, bytes);
        touch(index, session, sequence.0, &mut self.dirty, &mut self.due);
        true
    }

    /// Takes the queues whose record must be written with this group.
    pub(crate) fn take_due(&mut self) -> Vec<SessionId> {
        std::mem::take(&mut self.due)
    }

    /// Takes the queues whose record on disk is out of date.
    pub(crate) fn take_dirty(&mut self) -> Vec<SessionId> {
        std::mem::take(&mut self.dirty)
    }

    /// The record to write for a queue, which is up to date afterwards; `None` if it has ended.
    pub(crate) fn save(&mut self, session: SessionId) -> Option<Vec<u8>> {
        let index = self.queues.get_mut(&session)?;
        index.due = false;
        index.saved_end = index.end;
        Some(index.encode())
    }

    /// As [`Self::save`], for a queue from [`Self::take_dirty`].
    pub(crate) fn save_dirty(&mut self, session: SessionId) -> Option<Vec<u8>> {
        self.queues.get_mut(&session)?.dirty = false;
        self.save(session)
    }

    /// The approximate bytes of all queues: messages, keys and headers.
    #[must_use]
    pub(crate) fn live_bytes(&self) -> u64 {
        const OVERHEAD: u64 = 48;
        let bytes = |index: &QueueIndex| index.message_bytes + OVERHEAD * index.message_count;
        self.queues.values().map(bytes).sum()
    }
}

fn touch(
    index: &mut QueueIndex,
    session: SessionId,
    place: u64,
    dirty: &mut Vec<SessionId>,
    due: &mut Vec<SessionId>,
) {
    if place < index.saved_end && !index.due {
        index.due = true;
        due.push(session);
    }
    if !index.dirty {
        index.dirty = true;
        dirty.push(session);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_drains_in_order_is_exactly_empty() {
        let mut index = QueueIndex::default();
        (5..10).for_each(|place| index.add(place, 10));
        assert_eq!(
            (index.start, index.end, index.message_count, index.message_bytes),
            (5, 10, 5, 50)
        );
        for place in 5..10 {
            index.remove_message();
            assert_eq!(index.remove_place(place), Search::NotNow);
        }
        assert_eq!(
            (index.start, index.end, index.message_count, index.message_bytes),
            (10, 10, 0, 0)
        );
        index.add(50, 1);
        assert_eq!((index.start, index.end), (50, 51), "the gap is not searched");
    }

    #[test]
    fn removals_of_places_that_never_held_anything_hide_nothing() {
        let mut index = QueueIndex::default();
        index.add(0, 10);
        index.add(100, 10);
        (1..50).for_each(|place| {
            index.remove_message();
            index.remove_place(place);
        });
        assert_eq!(index.start, 0);
        assert_eq!(index.end, 101);
    }

    #[test]
    fn an_earlier_place_that_comes_later_moves_the_start_back() {
        let mut index = QueueIndex::default();
        index.add(10, 1);
        index.add(7, 1);
        assert_eq!((index.start, index.end), (7, 11));
    }

    #[test]
    fn a_change_below_the_checkpoint_makes_the_record_due() {
        let session = SessionId(1);
        let mut indexes = Indexes::default();
        assert!(indexes.add(session, Sequence(0), 1));
        assert!(indexes.take_due().is_empty());
        assert_eq!(indexes.take_dirty(), [session]);
        indexes.save_dirty(session).unwrap();
        assert!(indexes.add(session, Sequence(1), 1));
        assert!(indexes.take_due().is_empty());
        indexes.touch(session, Sequence(0));
        indexes.touch(session, Sequence(0));
        assert_eq!(indexes.take_due(), [session]);
    }

    #[test]
    fn an_ended_session_takes_no_more() {
        let mut indexes = Indexes::default();
        indexes.open_queue(SessionId(1));
        assert!(indexes.end_queue(SessionId(1)).is_some());
        assert!(!indexes.add(SessionId(1), Sequence(0), 1));
    }

    #[test]
    fn a_checkpoint_survives_its_encoding() {
        let mut index = QueueIndex::default();
        index.add(3, 7);
        index.shared.include(3);
        let read = QueueIndex::decode(&index.encode()).unwrap();
        assert_eq!((read.start, read.end, read.saved_end), (3, 4, 4));
        assert_eq!((read.message_count, read.message_bytes), (1, 7));
        assert_eq!(read.shared, Span { low: 3, high: 3 });
    }
}
