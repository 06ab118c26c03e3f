//! The queue of one recipient: the oldest messages are in memory, the newest are in memory until they are committed,
//! and everything between is only in the store. So memory does not grow with the backlog.
//!
//! ```text
//!  window (sent) | head (memory) | disk (store only) | tail (memory, on the way to the store)
//! ```
//!
//! While nothing is on disk, head and tail are one. Positions in the disk range may be missing.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use crate::durable::change::{Change, QueueChange};
use crate::durable::entry::{AcknowledgedEntry, QueueEntry, StoredEntry};
use crate::durable::message::{Sequence, SessionId, Timestamp};
use crate::durable::record::{OverflowPolicy, QueueRules};
use crate::session::effects::{DropReason, Effects};
use crate::session::rare::Rare;
use crate::session::window::{DeliveryState, Window};

/// Messages kept in memory at the head of a queue.
pub(crate) const HEAD_MESSAGES: usize = 1024;
/// Bytes kept in memory at the head of a queue (one message may exceed it).
pub(crate) const HEAD_BYTES: u32 = 256 * 1024;

/// Most old messages dropped for a new one, in addition to one for each [`GIVE_WAY_BYTES`] of it: more would hold the
/// lock too long. A queue far beyond its limit shrinks step by step with each following message.
const GIVE_WAY_STEPS: usize = 32;
/// See [`GIVE_WAY_STEPS`].
const GIVE_WAY_BYTES: usize = 32;

/// The queue of one Session or group.
pub struct Queue {
    owner: SessionId,
    head: VecDeque<Queued>,
    /// Not far above [`HEAD_BYTES`]: by one message at most.
    head_bytes: u32,
    /// Positions that are only in the store.
    disk: Range<u64>,
    tail: Rare<VecDeque<Arc<QueueEntry>>>,
    /// Changes to the disk range that the store may not have yet.
    overrides: Rare<BTreeMap<u64, Override>>,
    next: u64,
    message_count: u64,
    message_bytes: u64,
    loading: bool,
}

/// How to find out when the oldest message arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Oldest {
    /// Nothing waits.
    None,
    /// It arrived then.
    Arrived(Timestamp),
    /// It is the first message in the store in this range.
    Stored(Sequence, Sequence),
}

/// An entry at the head.
#[derive(Clone)]
pub(crate) enum Queued {
    /// A message to send.
    Message(Arc<QueueEntry>),
    /// A QoS 2 delivery whose PUBREL must be repeated.
    Released(Sequence),
}

/// A change that is newer than a page from the store may be.
enum Override {
    /// Acknowledged: its removal may still be pending.
    Done,
    /// PUBREC received.
    Released,
    /// Not committed when it left memory.
    Entry(Arc<QueueEntry>),
}

/// A page that the shell must read from the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRequest {
    /// The owner of the queue.
    pub session: SessionId,
    /// First position.
    pub from: Sequence,
    /// One past the last position.
    pub to: Sequence,
}

/// A page that was read.
pub struct Page {
    entries: Vec<StoredEntry>,
    end: PageEnd,
}

/// Where a page ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PageEnd {
    /// At the limit of a page: more may follow.
    AtLimit,
    /// Where the request ended.
    AtRequest,
}

impl Page {
    /// What [`Store::read_queue`] returned for these limits.
    ///
    /// [`Store::read_queue`]: crate::durable::Store::read_queue
    #[must_use]
    pub fn new(entries: Vec<StoredEntry>, max_count: usize, max_bytes: usize) -> Self {
        let bytes = entries.iter().map(|entry| match entry {
            StoredEntry::Message(entry) => entry.size_bytes(),
            StoredEntry::Released(_) => 0,
        });
        let is_full = entries.len() >= max_count || bytes.sum::<usize>() >= max_bytes;
        let end = if is_full { PageEnd::AtLimit } else { PageEnd::AtRequest };
        Self { entries, end }
    }
}

impl Queue {
    /// An empty queue.
    #[must_use]
    pub(crate) fn new(owner: SessionId) -> Self {
        Self {
            owner,
            head: VecDeque::new(),
            head_bytes: 0,
            disk: 0..0,
            tail: Rare::default(),
            overrides: Rare::default(),
            next: 0,
            message_count: 0,
            message_bytes: 0,
            loading: false,
        }
    }

    /// Creates a queue from the store's index, with nothing in memory.
    #[must_use]
    pub(crate) fn from_store(
        owner: SessionId,
        start: Sequence,
        end: Sequence,
        count: u64,
        bytes: u64,
    ) -> Self {
        let mut queue = Self::new(owner);
        queue.next = end.0;
        if count > 0 || start < end {
            queue.disk = start.0..end.0;
            queue.message_count = count;
            queue.message_bytes = bytes;
        }
        queue
    }

    /// The owner of the queue.
    #[must_use]
    pub(crate) fn owner(&self) -> SessionId {
        self.owner
    }

    /// The next position.
    #[must_use]
    pub(crate) fn next(&self) -> Sequence {
        Sequence(self.next)
    }

    /// Takes the next position for a message that is sent at once.
    #[inline]
    pub(crate) fn take_place(&mut self) -> Sequence {
        let place = self.next;
        self.next += 1;
        Sequence(place)
    }

    /// Takes several of them.
    #[inline]
    pub(crate) fn take_places(&mut self, count: usize) {
        self.next += count as u64;
    }

    /// Whether it is empty (messages in flight do not count).
    #[inline]
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.head.is_empty() && self.disk.is_empty() && self.tail.is_empty()
    }

    /// Messages waiting.
    #[must_use]
    pub fn message_count(&self) -> u64 {
        self.message_count
    }

    /// Bytes waiting.
    #[must_use]
    pub fn message_bytes(&self) -> u64 {
        self.message_bytes
    }

    /// Whether the part in memory is more than half full, which means that the recipient lags behind.
    #[must_use]
    pub(crate) fn is_crowded(&self) -> bool {
        !self.disk.is_empty()
            || self.head.len() > HEAD_MESSAGES / 2
            || self.head_bytes > HEAD_BYTES / 2
    }

    /// Applies the overflow policy to a message of `size_bytes`.
    pub(crate) fn admit(
        &mut self,
        size_bytes: usize,
        limits: &QueueLimits,
        total: Total,
        effects: &mut Effects,
    ) -> Admission {
        if total == Total::HasRoom && self.has_room_for(size_bytes, limits) {
            return Admission::Admitted;
        }
        match limits.policy {
            OverflowPolicy::Spill | OverflowPolicy::Backpressure | OverflowPolicy::Reject => {
                effects.tally.drop_one(DropReason::QueueFull);
                Admission::Refused
            }
            OverflowPolicy::DropOldest if self.give_way(size_bytes, limits, total, effects) => {
                Admission::Admitted
            }
            OverflowPolicy::DropNewest | OverflowPolicy::DropOldest => {
                effects.tally.drop_one(DropReason::QueueFull);
                Admission::Dropped
            }
        }
    }

    fn has_room_for(&self, size_bytes: usize, limits: &QueueLimits) -> bool {
        self.message_count < limits.max_messages
            && self.message_bytes.saturating_add(size_bytes as u64) <= limits.max_bytes
    }

    /// Drops old messages until a new one fits, or at least enough that the queue does not grow, if it is far beyond a
    /// lowered limit or all queues together are full. False if there are not enough, or if the message is too large for
    /// the queue.
    #[cold]
    fn give_way(
        &mut self,
        size_bytes: usize,
        limits: &QueueLimits,
        total: Total,
        effects: &mut Effects,
    ) -> bool {
        let size = size_bytes as u64;
        if size > limits.max_bytes || limits.max_messages == 0 {
            return false;
        }
        let (count_before, bytes_before) = (self.message_count, self.message_bytes);
        let mut steps = GIVE_WAY_STEPS + size_bytes / GIVE_WAY_BYTES;
        loop {
            let gave_way = self.message_count < count_before
                && bytes_before.saturating_sub(self.message_bytes) >= size;
            let fits = self.has_room_for(size_bytes, limits);
            if (fits && (gave_way || total == Total::HasRoom)) || (gave_way && steps == 0) {
                return true;
            }
            if steps == 0 || self.is_empty() {
                return false;
            }
            steps -= 1;
            effects.changes.extend(self.drop_oldest());
            effects.tally.drop_one(DropReason::Oldest);
        }
    }

    /// Appends an entry whose position was taken from this queue. `keep` says whether the recipient is connected and
    /// will need it soon. Returns whether it must be written to the store even if its Session is not durable, because
    /// there is no room in memory.
    pub(crate) fn push(&mut self, entry: Arc<QueueEntry>, keep: Keep) -> Spilled {
        self.count(&entry);
        let has_room = self.head.len() < HEAD_MESSAGES && self.head_bytes < HEAD_BYTES;
        let contiguous = self.disk.is_empty() && self.tail.is_empty();
        if contiguous && has_room && keep == Keep::InMemory {
            self.head_bytes += entry_bytes(&entry);
            self.head.push_back(Queued::Message(entry));
            return Spilled::No;
        }
        self.tail.fill().push_back(entry);
        self.trim_tail();
        Spilled::Yes
    }

    /// The oldest message, without taking it.
    #[must_use]
    pub(crate) fn front(&self) -> Option<&Queued> {
        self.head.front()
    }

    /// When the oldest message arrived: known, or to be read from the store.
    #[must_use]
    pub(crate) fn oldest(&self) -> Oldest {
        match (self.head.front(), self.disk.is_empty(), self.tail.iter().next()) {
            (Some(Queued::Message(entry)), _, _) | (None, true, Some(entry)) => {
                Oldest::Arrived(entry.message.arrived)
            }
            (_, false, _) => Oldest::Stored(Sequence(self.disk.start), Sequence(self.disk.end)),
            (_, true, _) => Oldest::None,
        }
    }

    /// Takes the oldest message.
    pub(crate) fn pop(&mut self) -> Option<Queued> {
        let queued = self.head.pop_front()?;
        if let Queued::Message(entry) = &queued {
            self.head_bytes = self.head_bytes.saturating_sub(entry_bytes(entry));
            self.uncount(entry.size_bytes());
        }
        if self.head.is_empty() && self.head.capacity() > 64 {
            self.head = VecDeque::new();
        }
        Some(queued)
    }

    /// Refills the head: from the tail at once, or by a page that the caller must read.
    pub(crate) fn refill(&mut self) -> Option<PageRequest> {
        if self.head.len() > HEAD_MESSAGES / 4 {
            return None;
        }
        let Range { start: from, end: to } = self.disk;
        if from < to {
            if self.loading {
                return None;
            }
            self.loading = true;
            return Some(PageRequest {
                session: self.owner,
                from: Sequence(from),
                to: Sequence(to),
            });
        }
        while self.head.len() < HEAD_MESSAGES && self.head_bytes < HEAD_BYTES {
            let Some(entry) = self.pop_tail() else { break };
            self.head_bytes += entry_bytes(&entry);
            self.head.push_back(Queued::Message(entry));
        }
        None
    }

    /// Handles a page read for `request`; `None` if it could not be read, and will be requested again. Late pages of a
    /// queue that was taken over are ignored.
    pub(crate) fn handle_page(&mut self, request: PageRequest, page: Option<Page>) {
        self.loading = false;
        let Range { start: from, end: to } = self.disk;
        let Some(page) = page.filter(|_| from < to && from == request.from.0) else { return };
        let end = match page.end {
            PageEnd::AtLimit => page.entries.last().map_or(from, |entry| entry.sequence().0 + 1),
            PageEnd::AtRequest => request.to.0.min(to),
        };
        let mut found: BTreeMap<u64, Queued> = page
            .entries
            .into_iter()
            .map(|entry| (entry.sequence().0, Queued::from(entry)))
            .collect();
        if let Some(overrides) = self.overrides.as_mut() {
            let newer: Vec<u64> = overrides.range(from..end).map(|(&at, _)| at).collect();
            for at in newer {
                match overrides.remove(&at) {
                    Some(Override::Done) => drop(found.remove(&at)),
                    Some(Override::Released) => {
                        found.insert(at, Queued::Released(Sequence(at)));
                    }
                    Some(Override::Entry(entry)) => {
                        found.insert(at, Queued::Message(entry));
                    }
                    None => {}
                }
            }
        }
        for queued in found.into_values() {
            if let Queued::Message(entry) = &queued {
                self.head_bytes += entry_bytes(entry);
            }
            self.head.push_back(queued);
        }
        self.disk = end..to;
        if self.disk.is_empty() && self.tail.is_empty() && self.head.is_empty() {
            // The index counted messages that no longer exist: now the number is exact.
            self.message_count = 0;
            self.message_bytes = 0;
        }
    }

    /// Called when nobody reads the requested page any more: it will be requested again.
    pub(crate) fn give_up_page(&mut self) {
        self.loading = false;
    }

    /// Called when the recipient has disconnected: durable messages leave memory. Messages in flight come first
    /// again.
    pub(crate) fn leave_memory(&mut self, window: &mut Window) {
        self.loading = false;
        let first_waiting = match self.head.front() {
            Some(Queued::Message(entry)) => Some(entry.sequence.0),
            Some(Queued::Released(sequence)) => Some(sequence.0),
            None => Some(self.disk.start).filter(|_| !self.disk.is_empty()),
        };
        let end = self.tail.iter().next().map_or(self.next, |entry| entry.sequence.0);
        let start = match window.is_empty() {
            true => first_waiting.unwrap_or(end),
            false => window.base().0,
        };
        for (Sequence(at), delivery) in window.drain() {
            match delivery.state {
                DeliveryState::Done => {
                    self.overrides.fill().insert(at, Override::Done);
                }
                DeliveryState::AwaitsCommit | DeliveryState::AwaitsPubcomp => {
                    self.overrides.fill().insert(at, Override::Released);
                }
                DeliveryState::AwaitsPuback | DeliveryState::AwaitsPubrec => {
                    if let Some(entry) = delivery.entry {
                        self.count(&entry);
                        self.keep_uncommitted(entry);
                    }
                }
            }
        }
        for queued in std::mem::take(&mut self.head) {
            match queued {
                Queued::Message(entry) => self.keep_uncommitted(entry),
                Queued::Released(Sequence(at)) => {
                    self.overrides.fill().insert(at, Override::Released);
                }
            }
        }
        self.head_bytes = 0;
        self.disk = start..end;
        self.trim_tail();
    }

    /// Drops the oldest queued message; returns the change for the store.
    pub(crate) fn drop_oldest(&mut self) -> Option<Change> {
        if let Some(Queued::Message(_)) = self.head.front() {
            let Some(Queued::Message(entry)) = self.pop() else { return None };
            return dequeue(self.owner, &entry);
        }
        if !self.disk.is_empty() {
            let from = self.disk.start;
            let average = self.message_bytes / self.message_count.max(1);
            self.uncount(usize::try_from(average).unwrap_or(usize::MAX));
            self.disk.start += 1;
            if let Some(overrides) = self.overrides.as_mut() {
                overrides.remove(&from);
            }
            let (queue, sequence) = (self.owner, Sequence(from));
            return Some(QueueChange::Dequeue { queue, sequence }.into());
        }
        let entry = self.pop_tail()?;
        self.uncount(entry.size_bytes());
        dequeue(self.owner, &entry)
    }

    /// Takes all messages in memory, oldest first, when the Session ends.
    pub(crate) fn take_messages(&mut self) -> Vec<Arc<QueueEntry>> {
        let head = std::mem::take(&mut self.head).into_iter().filter_map(|queued| match queued {
            Queued::Message(entry) => Some(entry),
            Queued::Released(_) => None,
        });
        head.chain(self.tail.take()).collect()
    }

    fn pop_tail(&mut self) -> Option<Arc<QueueEntry>> {
        self.tail.as_mut()?.pop_front()
    }

    fn keep_uncommitted(&mut self, entry: Arc<QueueEntry>) {
        if !entry.is_committed() {
            self.overrides.fill().insert(entry.sequence.0, Override::Entry(entry));
        }
    }

    /// Removes committed messages from the front of the tail, because the store has them.
    fn trim_tail(&mut self) {
        while self.tail.iter().next().is_some_and(|entry| entry.is_committed()) {
            let Some(entry) = self.pop_tail() else { break };
            let at = entry.sequence.0;
            let start = if self.disk.is_empty() { at } else { self.disk.start };
            self.disk = start..at + 1;
        }
        if self.tail.as_ref().is_some_and(|tail| tail.is_empty() && tail.capacity() > 64) {
            self.tail = Rare::default();
        }
    }

    fn count(&mut self, entry: &QueueEntry) {
        self.message_count += 1;
        self.message_bytes += entry.size_bytes() as u64;
    }

    fn uncount(&mut self, bytes: usize) {
        self.message_count = self.message_count.saturating_sub(1);
        self.message_bytes = self.message_bytes.saturating_sub(bytes as u64);
    }
}

/// Limits of one queue and what happens at them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLimits {
    /// Messages waiting.
    pub max_messages: u64,
    /// Bytes waiting.
    pub max_bytes: u64,
    /// What happens at the limit.
    pub policy: OverflowPolicy,
}

/// Whether all queues together are below their limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Total {
    /// Each queue has its own limits.
    #[default]
    HasRoom,
    /// Every queue is treated as full, and none is emptied because of it.
    Full,
}

impl QueueLimits {
    /// These limits, unless the queue has its own rules.
    #[must_use]
    pub(crate) fn under(self, rules: &QueueRules) -> Self {
        Self {
            max_messages: rules.max_messages.unwrap_or(self.max_messages),
            max_bytes: rules.max_bytes.unwrap_or(self.max_bytes),
            policy: rules.policy.unwrap_or(self.policy),
        }
    }
}

/// Whether a queue accepts a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Accepted.
    Admitted,
    /// Dropped and counted.
    Dropped,
    /// Dropped and counted, and the publisher must be told.
    Refused,
}

/// The size of an entry, for `head_bytes`.
fn entry_bytes(entry: &QueueEntry) -> u32 {
    u32::try_from(entry.size_bytes()).unwrap_or(u32::MAX)
}

/// The change for the store when an entry is finished.
#[must_use]
pub(crate) fn dequeue(queue: SessionId, entry: &QueueEntry) -> Option<Change> {
    match entry.acknowledge() {
        AcknowledgedEntry::NeverWritten => None,
        AcknowledgedEntry::Stored => {
            let sequence = entry.sequence;
            Some(QueueChange::Dequeue { queue, sequence }.into())
        }
    }
}

/// Whether a recipient will need a message soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// It is connected.
    InMemory,
    /// It is absent.
    InStore,
}

/// Whether a message must go to the store for lack of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spilled {
    /// It is in memory.
    No,
    /// It must be written to the store, whatever its Session.
    Yes,
}

impl From<StoredEntry> for Queued {
    fn from(entry: StoredEntry) -> Self {
        match entry {
            StoredEntry::Message(entry) => Self::Message(entry),
            StoredEntry::Released(sequence) => Self::Released(sequence),
        }
    }
}

#[cfg(test)]
mod tests;
