//! A store in memory that remembers how safe its batches were to be, and whose commits a test can hold back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use petrel::durable::entry::StoredEntry;
use petrel::durable::message::{Sequence, SessionId};
use petrel::durable::record::Loaded;
use petrel::durable::{Batch, Durability, ReadError, Store, StoreState, Ticket};
use petrel::store::memory::MemoryStore;

pub(crate) struct Watched {
    store: MemoryStore,
    /// Of each batch, in order.
    pub(crate) durabilities: Mutex<Vec<Durability>>,
    /// Whether nothing counts as durable.
    pub(crate) is_held: AtomicBool,
}

impl Watched {
    pub(crate) fn open() -> (Arc<Self>, Loaded) {
        let (store, loaded, _clock) = MemoryStore::open();
        let (durabilities, is_held) = (Mutex::default(), AtomicBool::new(false));
        (Arc::new(Self { store, durabilities, is_held }), loaded)
    }
}

impl Store for Watched {
    fn submit(&self, batch: Batch) -> Ticket {
        self.durabilities.lock().unwrap().push(batch.durability);
        self.store.submit(batch)
    }

    fn is_durable(&self, ticket: Ticket) -> bool {
        !self.is_held.load(Ordering::Relaxed) && self.store.is_durable(ticket)
    }

    fn state(&self) -> StoreState {
        self.store.state()
    }

    fn pending_bytes(&self) -> usize {
        self.store.pending_bytes()
    }

    fn read_queue(
        &self,
        session: SessionId,
        from: Sequence,
        to: Sequence,
        max_count: usize,
        max_bytes: usize,
    ) -> Result<Vec<StoredEntry>, ReadError> {
        self.store.read_queue(session, from, to, max_count, max_bytes)
    }
}
