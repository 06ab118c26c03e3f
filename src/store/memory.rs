//! A store in memory, for `store = "memory"` and for tests. Every batch is durable at once, in every mode.
//!
//! Queues are in memory, so they cannot spill to disk; the queue limits bound them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::durable::change::{Change, QueueChange, RetainedChange, SessionChange};
use crate::durable::entry::{QueueEntry, StoredEntry};
use crate::durable::message::{Issuer, Sequence, SessionId, Timestamp};
use crate::durable::record::Loaded;
use crate::durable::{Batch, ReadError, Store, StoreState, Ticket};
use crate::store::clock::{BrokerClock, wall_milliseconds};

/// The store in memory.
#[derive(Default)]
pub struct MemoryStore {
    last_ticket: AtomicU64,
    queues: Mutex<HashMap<SessionId, BTreeMap<u64, StoredPlace>>>,
}

enum StoredPlace {
    Message(Arc<QueueEntry>),
    Released,
}

impl MemoryStore {
    /// An empty store, its loaded state, and its clock.
    #[must_use]
    pub fn open() -> (Self, Loaded, BrokerClock) {
        let clock = BrokerClock::start(Timestamp(wall_milliseconds()));
        // Ids must not repeat those of an earlier run, which a bridge or a Client may remember. This store does not
        // remember earlier runs, and a machine may not even have a clock.
        let random: u32 = rand::random();
        let issuer = Issuer::new((random >> Issuer::EPOCH_BITS) as u16, random);
        let loaded = Loaded::empty(issuer, clock.now());
        (Self::default(), loaded, clock)
    }

    fn apply(&self, change: Change) {
        match change {
            Change::Queue(change) => self.apply_to_queue(change),
            Change::Session(SessionChange::Delete(session)) => {
                drop(self.queues.lock().remove(&session));
            }
            // Read only at opening, and this store opens empty.
            Change::Session(
                SessionChange::Put(_)
                | SessionChange::PutSubscription(_)
                | SessionChange::DeleteSubscription { .. }
                | SessionChange::PutIncoming { .. }
                | SessionChange::DeleteIncoming { .. },
            )
            | Change::Retained(RetainedChange::Put(_) | RetainedChange::Delete(_)) => {}
        }
    }

    fn apply_to_queue(&self, change: QueueChange) {
        match change {
            QueueChange::Enqueue { queue, entry } => {
                if entry.begin_write() {
                    entry.end_write();
                    let mut queues = self.queues.lock();
                    let queue = queues.entry(queue).or_default();
                    queue.insert(entry.sequence.0, StoredPlace::Message(entry));
                }
            }
            QueueChange::Dequeue { queue: id, sequence } => {
                let mut queues = self.queues.lock();
                let Some(queue) = queues.get_mut(&id) else { return };
                queue.remove(&sequence.0);
                if queue.is_empty() {
                    queues.remove(&id);
                }
            }
            QueueChange::Release { queue, sequence } => {
                let mut queues = self.queues.lock();
                queues.entry(queue).or_default().insert(sequence.0, StoredPlace::Released);
            }
            QueueChange::Delete(queue) => drop(self.queues.lock().remove(&queue)),
            // Read only at opening.
            QueueChange::Put(_) => {}
        }
    }
}

impl Store for MemoryStore {
    fn submit(&self, batch: Batch) -> Ticket {
        for change in batch.changes {
            self.apply(change);
        }
        // Listeners are not notified: the caller sees that its ticket is already durable.
        Ticket(self.last_ticket.fetch_add(1, Ordering::AcqRel) + 1)
    }

    fn is_durable(&self, ticket: Ticket) -> bool {
        ticket.0 <= self.last_ticket.load(Ordering::Acquire)
    }

    fn state(&self) -> StoreState {
        StoreState::Available
    }

    fn pending_bytes(&self) -> usize {
        0
    }

    fn read_queue(
        &self,
        queue: SessionId,
        from: Sequence,
        to: Sequence,
        max_count: usize,
        max_bytes: usize,
    ) -> Result<Vec<StoredEntry>, ReadError> {
        let queues = self.queues.lock();
        let mut page = Vec::new();
        let Some(queue) = queues.get(&queue).filter(|_| from < to) else { return Ok(page) };
        let mut bytes = 0;
        for (&place, entry) in queue.range(from.0..to.0) {
            if page.len() >= max_count || bytes >= max_bytes {
                break;
            }
            page.push(match entry {
                StoredPlace::Message(entry) => {
                    bytes += entry.size_bytes();
                    StoredEntry::Message(Arc::clone(entry))
                }
                StoredPlace::Released => StoredEntry::Released(Sequence(place)),
            });
        }
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Runs were told apart by the seconds of a clock, cut to 24 bits: not two in one second, and not after 194 days.
    #[test]
    fn the_ids_of_two_runs_differ_whatever_the_clock() {
        let issuers = (0..10).map(|_| MemoryStore::open().1.issuer);
        assert_eq!(issuers.collect::<BTreeSet<_>>().len(), 10);
    }
}
