//! The store that keeps nothing: for `persistence = off` and for tests. Every batch is durable at once, in every mode.
//!
//! Queues lie in memory, so it has no backlog to spill to; the limits on queues bound it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::durable::change::Change;
use crate::durable::entry::{QueueEntry, StoredEntry};
use crate::durable::message::Timestamp;
use crate::durable::message::{Sequence, SessionId};
use crate::durable::record::Loaded;
use crate::durable::{Batch, Store, StoreError, StoreState, Ticket};
use crate::store::clock::{BrokerClock, wall_milliseconds};

/// Everything in memory.
#[derive(Default)]
pub struct MemoryStore {
    last_ticket: AtomicU64,
    queues: Mutex<HashMap<SessionId, BTreeMap<u64, Place>>>,
}

enum Place {
    Message(Arc<QueueEntry>),
    Released,
}

impl MemoryStore {
    /// An empty store, what a broker finds in it, and its clock.
    #[must_use]
    pub fn open() -> (Self, Loaded, BrokerClock) {
        let clock = BrokerClock::start(Timestamp(wall_milliseconds()));
        // Session ids must not repeat those of an earlier run that a bridge or a client's application remembers.
        let incarnation = u32::try_from(wall_milliseconds() / 1000).unwrap_or(u32::MAX);
        let loaded =
            Loaded { sessions: Vec::new(), retained: Vec::new(), incarnation, now: clock.now() };
        (Self::default(), loaded, clock)
    }

    fn apply(&self, change: Change) {
        match change {
            Change::Enqueue { session, entry } => {
                if entry.begin_write() {
                    entry.end_write();
                    let mut queues = self.queues.lock();
                    let queue = queues.entry(session).or_default();
                    queue.insert(entry.sequence.0, Place::Message(entry));
                }
            }
            Change::Dequeue { session, sequence } => {
                let mut queues = self.queues.lock();
                let Some(queue) = queues.get_mut(&session) else { return };
                queue.remove(&sequence.0);
                if queue.is_empty() {
                    queues.remove(&session);
                }
            }
            Change::Release { session, sequence } => {
                let mut queues = self.queues.lock();
                queues.entry(session).or_default().insert(sequence.0, Place::Released);
            }
            Change::DeleteSession(session) => drop(self.queues.lock().remove(&session)),
            // Read only at opening, and this store opens empty.
            Change::PutSession(_)
            | Change::PutSubscription(_)
            | Change::DeleteSubscription { .. }
            | Change::PutIncoming { .. }
            | Change::DeleteIncoming { .. }
            | Change::PutRetained(_)
            | Change::DeleteRetained(_) => {}
        }
    }
}

impl Store for MemoryStore {
    fn submit(&self, batch: Batch) -> Ticket {
        for change in batch.changes {
            self.apply(change);
        }
        // Listeners are not told: the caller sees that its ticket is durable already.
        Ticket(self.last_ticket.fetch_add(1, Ordering::AcqRel) + 1)
    }

    fn durable(&self) -> Ticket {
        Ticket(self.last_ticket.load(Ordering::Acquire))
    }

    fn state(&self) -> StoreState {
        StoreState::Available
    }

    fn pending_bytes(&self) -> usize {
        0
    }

    fn read_queue(
        &self,
        session: SessionId,
        from: Sequence,
        to: Sequence,
        max_count: usize,
        max_bytes: usize,
    ) -> Result<Vec<StoredEntry>, StoreError> {
        let queues = self.queues.lock();
        let mut page = Vec::new();
        let Some(queue) = queues.get(&session).filter(|_| from < to) else { return Ok(page) };
        let mut bytes = 0;
        for (&place, entry) in queue.range(from.0..to.0) {
            if page.len() >= max_count || bytes >= max_bytes {
                break;
            }
            page.push(match entry {
                Place::Message(entry) => {
                    bytes += entry.message.size_bytes();
                    StoredEntry::Message(Arc::clone(entry))
                }
                Place::Released => StoredEntry::Released(Sequence(place)),
            });
        }
        Ok(page)
    }
}
