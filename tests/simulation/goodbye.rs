//! What leaves at the end of a Network Connection, while the store is slow.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use petrel::broker::limits::Limits;
use petrel::durable::entry::StoredEntry;
use petrel::durable::message::{Sequence, SessionId};
use petrel::durable::{Batch, ReadError, Store, StoreState, Ticket};
use petrel::store::memory::MemoryStore;

use crate::hand::{Hands, connect, connect_v5, packet, string, subscribe};

/// A store that has nothing safe while it is held.
struct Held {
    store: MemoryStore,
    is_held: AtomicBool,
}

impl Store for Held {
    fn submit(&self, batch: Batch) -> Ticket {
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

/// An acknowledgement that waited for the disk came behind the DISCONNECT that the broker sent meanwhile. [MQTT-3.14.4-1]
#[test]
fn what_was_waited_for_does_not_follow_a_disconnect() {
    let (store, loaded, _clock) = MemoryStore::open();
    let store = Arc::new(Held { store, is_held: AtomicBool::new(false) });
    let mut hands = Hands::on(Arc::clone(&store) as Arc<dyn Store>, loaded, Limits::default());
    let mut absent = hands.connect(&connect("absent", false));
    absent.send(&mut hands, &subscribe("t", 1));
    absent.cut(&mut hands);
    let mut client = hands.connect(&connect_v5("client"));
    store.is_held.store(true, Ordering::Relaxed);
    let message = packet(0x32, &[string("t"), vec![0, 1, 0, b'x']].concat());
    client.send(&mut hands, &message);
    client.take();
    assert!(client.pieces().is_empty(), "not acknowledged before it is safe");
    client.send(&mut hands, &connect_v5("client"));
    client.take();
    let bytes = |pieces: Vec<(usize, Vec<u8>)>| pieces.into_iter().flat_map(|(_, bytes)| bytes);
    assert_eq!(bytes(client.pieces()).next(), Some(0xE0), "DISCONNECT");
    store.is_held.store(false, Ordering::Relaxed);
    client.wake(&mut hands);
    client.take();
    assert_eq!(bytes(client.pieces()).count(), 0, "nothing behind it");
}
