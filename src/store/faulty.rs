//! A test double of the store, for simulations and power-cut tests: it loses unsynced writes, fails on demand, and
//! commits only when the test says so.
//!
//! Like a real machine, it has three levels: batches in the memory of the process, batches that the operating system
//! has received (lost by a power cut, not by a kill), and the durable image. It is deterministic: no threads, no
//! clock, no randomness.
//!
//! ```
//! use petrel::durable::message::Timestamp;
//! use petrel::store::faulty::{Crash, FaultyStore, Honesty};
//! use petrel::store::image::Image;
//! use petrel::durable::{Batch, Store};
//!
//! let (store, _loaded) = FaultyStore::open(Image::default(), Honesty::Honest, Timestamp(0));
//! let ticket = store.submit(Batch::default());
//! assert!(!store.is_durable(ticket));
//! store.step();
//! assert!(store.is_durable(ticket));
//! let image = store.crash(Crash::PowerCut, 0);
//! let (_store, _loaded) = FaultyStore::open(image, Honesty::Honest, Timestamp(1));
//! ```

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::durable::change::Change;
use crate::durable::entry::StoredEntry;
use crate::durable::message::{Sequence, SessionId, Timestamp};
use crate::durable::record::Loaded;
use crate::durable::{Batch, CommitListener, Durability, ReadError, Store, StoreState, Ticket};
use crate::store::image::{Image, TakenChange};

/// Whether the store reports durability correctly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Honesty {
    /// A batch is reported as durable when it is.
    #[default]
    Honest,
    /// A batch is reported as durable as soon as it is submitted: a bug that a checker must detect.
    AcknowledgesEarly,
}

/// How the machine stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// The process ends; data that the operating system received is kept.
    Kill,
    /// The machine loses power; only synced data is kept.
    PowerCut,
}

/// The test double.
pub struct FaultyStore {
    state: Mutex<State>,
    honesty: Honesty,
}

struct State {
    durable_image: Image,
    live_image: Image,
    /// Written but not synced, oldest batch first.
    unsynced: VecDeque<Vec<TakenChange>>,
    pending: VecDeque<(u64, Batch)>,
    /// The last ticket given out.
    last_ticket: u64,
    /// The last durable one.
    durable: u64,
    availability: StoreState,
    crashed: bool,
    syncs: u64,
}

impl FaultyStore {
    /// Opens an image: an empty one, or the one left by a crash.
    #[must_use]
    pub fn open(mut image: Image, honesty: Honesty, now: Timestamp) -> (Arc<Self>, Loaded) {
        let loaded = image.load(now);
        let state = State {
            durable_image: image.clone(),
            live_image: image,
            unsynced: VecDeque::new(),
            pending: VecDeque::new(),
            last_ticket: 0,
            durable: 0,
            availability: StoreState::Available,
            crashed: false,
            syncs: 0,
        };
        (Arc::new(Self { state: Mutex::new(state), honesty }), loaded)
    }

    /// Writes and syncs everything submitted as one group, and notifies the listeners. Does nothing while the store
    /// fails.
    pub fn step(&self) {
        self.step_batches(usize::MAX);
    }

    /// As [`Self::step`], for the oldest `count` batches only.
    pub fn step_batches(&self, count: usize) {
        let mut state = self.state.lock();
        if state.crashed || state.availability != StoreState::Available || state.pending.is_empty()
        {
            return;
        }
        let count = count.min(state.pending.len());
        let group: Vec<_> = state.pending.drain(..count).collect();
        let mut durability = Durability::Memory;
        for (_, batch) in &group {
            let taken: Vec<_> = batch.changes.iter().filter_map(TakenChange::take).collect();
            for change in &taken {
                state.live_image.apply(change);
            }
            if !taken.is_empty() {
                durability = durability.max(batch.durability);
                state.unsynced.push_back(taken);
            }
        }
        if durability == Durability::Fsync {
            state.sync();
        }
        for (ticket, batch) in &group {
            state.durable = state.durable.max(*ticket);
            for change in &batch.changes {
                if let Some(entry) = change.entry() {
                    entry.end_write();
                }
            }
        }
        drop(state);
        let listeners = group.into_iter().flat_map(|(_, batch)| batch.listeners);
        notify(listeners.collect());
    }

    /// Batches submitted but not written yet.
    #[must_use]
    pub fn pending_batches(&self) -> usize {
        self.state.lock().pending.len()
    }

    /// Makes the store fail, or work again.
    pub fn set_state(&self, availability: StoreState) {
        self.state.lock().availability = availability;
    }

    /// Crashes the store, and returns the image that the next one finds: everything that survives this kind of crash,
    /// and the first `survivors` of the batches in progress, each of them complete. Afterwards the store accepts
    /// nothing.
    pub fn crash(&self, crash: Crash, survivors: usize) -> Image {
        let mut state = self.state.lock();
        state.crashed = true;
        if crash == Crash::Kill {
            state.sync();
        }
        let unsynced = std::mem::take(&mut state.unsynced);
        let pending = std::mem::take(&mut state.pending);
        let on_the_way = unsynced.into_iter().chain(pending.into_iter().map(|(_, batch)| {
            batch.changes.iter().filter_map(TakenChange::take).collect::<Vec<_>>()
        }));
        for changes in on_the_way.take(survivors) {
            for change in &changes {
                state.durable_image.apply(change);
            }
        }
        state.durable_image.clone()
    }
}

impl State {
    fn sync(&mut self) {
        self.syncs += 1;
        for changes in std::mem::take(&mut self.unsynced) {
            for change in &changes {
                self.durable_image.apply(change);
            }
        }
    }
}

impl Store for FaultyStore {
    fn submit(&self, batch: Batch) -> Ticket {
        let mut state = self.state.lock();
        let ticket = state.last_ticket + 1;
        let at_once = match self.honesty {
            Honesty::Honest => {
                batch.durability == Durability::Memory && state.durable == state.last_ticket
            }
            Honesty::AcknowledgesEarly => true,
        };
        state.last_ticket = ticket;
        if at_once && !state.crashed {
            state.durable = ticket;
        }
        if !state.crashed {
            state.pending.push_back((ticket, batch));
        }
        Ticket(ticket)
    }

    fn is_durable(&self, ticket: Ticket) -> bool {
        ticket.0 <= self.state.lock().durable
    }

    fn state(&self) -> StoreState {
        self.state.lock().availability
    }

    fn pending_bytes(&self) -> usize {
        let state = self.state.lock();
        let changes = state.pending.iter().flat_map(|(_, batch)| &batch.changes);
        let size = |change: &Change| change.message().map_or(0, |message| message.size_bytes());
        changes.map(|change| size_of::<Change>() + size(change)).sum()
    }

    fn read_queue(
        &self,
        queue: SessionId,
        from: Sequence,
        to: Sequence,
        max_count: usize,
        max_bytes: usize,
    ) -> Result<Vec<StoredEntry>, ReadError> {
        let state = self.state.lock();
        if state.crashed {
            return Err(ReadError::Unavailable);
        }
        Ok(state.live_image.read_queue(queue, from, to, max_count, max_bytes))
    }
}

/// Notifies each listener once.
fn notify(mut listeners: Vec<Arc<dyn CommitListener>>) {
    let mut told: Vec<usize> = Vec::new();
    for listener in listeners.drain(..) {
        let address = Arc::as_ptr(&listener).cast::<()>().addr();
        if !told.contains(&address) {
            told.push(address);
            listener.handle_commit();
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::durable::change::{QueueChange, SessionChange};
    use crate::durable::entry::QueueEntry;
    use crate::durable::message::{Message, MessageHeader, MessageId};
    use crate::durable::record::SessionRecord;
    use crate::packet::QoS;

    use super::*;

    const SESSION: SessionId = SessionId(1);

    fn put_session() -> Change {
        Change::Session(SessionChange::Put(Box::new(SessionRecord {
            id: SESSION,
            client_id: "c".into(),
            epoch: 0,
            expiry_seconds: 1,
            disconnected: None,
            sent_until: Sequence(0),
            will: None,
            user_name: None,
        })))
    }

    fn enqueue(place: u64, durability: Durability) -> Batch {
        let header = MessageHeader {
            id: MessageId { publisher: SESSION, counter: place },
            qos: QoS::AtLeastOnce,
            retain: false,
            arrived: Timestamp(0),
            expires: None,
        };
        let message = Arc::new(Message::new(header, "t", b"", b"p").unwrap());
        let entry = QueueEntry::new(Sequence(place), message, QoS::AtLeastOnce);
        let entry = Change::Queue(QueueChange::Enqueue { queue: SESSION, entry: Arc::new(entry) });
        Batch { changes: vec![put_session(), entry], durability, ..Batch::default() }
    }

    fn survivors(image: Image) -> u64 {
        let (_, loaded) = FaultyStore::open(image, Honesty::Honest, Timestamp(0));
        loaded.sessions.first().map_or(0, |session| session.queue.message_count)
    }

    fn open(honesty: Honesty) -> Arc<FaultyStore> {
        FaultyStore::open(Image::default(), honesty, Timestamp(0)).0
    }

    #[test]
    fn a_power_cut_forgets_what_was_not_synced_and_a_kill_does_not() {
        for (crash, left) in [(Crash::PowerCut, 1), (Crash::Kill, 2)] {
            let store = open(Honesty::Honest);
            store.submit(enqueue(0, Durability::Fsync));
            store.step();
            let written = store.submit(enqueue(1, Durability::Os));
            store.step();
            assert!(store.is_durable(written));
            store.submit(enqueue(2, Durability::Fsync));
            assert_eq!(survivors(store.crash(crash, 0)), left);
        }
    }

    #[test]
    fn batches_on_their_way_survive_whole_and_in_order() {
        let store = open(Honesty::Honest);
        for place in 0..5 {
            store.submit(enqueue(place, Durability::Fsync));
        }
        store.step_batches(1);
        assert_eq!(survivors(store.crash(Crash::PowerCut, 2)), 3);
        let late = store.submit(enqueue(9, Durability::Fsync));
        store.step();
        assert!(!store.is_durable(late), "a crashed store takes in nothing");
    }

    #[test]
    fn an_early_acknowledgement_is_lost_by_a_power_cut() {
        let store = open(Honesty::AcknowledgesEarly);
        let ticket = store.submit(enqueue(0, Durability::Fsync));
        assert!(store.is_durable(ticket), "acknowledged");
        assert_eq!(survivors(store.crash(Crash::PowerCut, 0)), 0, "and lost");
    }

    #[test]
    fn nothing_becomes_durable_while_it_fails() {
        let store = open(Honesty::Honest);
        store.set_state(StoreState::Full);
        let ticket = store.submit(enqueue(0, Durability::Fsync));
        store.step();
        assert!(!store.is_durable(ticket));
        store.set_state(StoreState::Available);
        store.step();
        assert!(store.is_durable(ticket));
        assert_eq!(survivors(store.crash(Crash::PowerCut, 0)), 1);
    }
}
