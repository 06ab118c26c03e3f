//! Writes that fail: nothing of them is released, and everything is once the disk works again.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use petrel::durable::change::{Change, QueueChange};
use petrel::durable::message::SessionId;
use petrel::durable::{Batch, Durability, Store, StoreState, Ticket};
use petrel::store::disk::{Disk, RealDisk, WriteError};
use petrel::store::operations::Operations;
use petrel::store::options::WriteSync;
use petrel::store::rocks::RocksStore;
use rocksdb::DB;

use crate::harness::*;

const WORKS: u8 = 0;
const FAILS: u8 = 1;
const FULL: u8 = 2;
/// Reaches the operating system, and says that it did not.
const LIES: u8 = 3;
/// Each write waits until it is let through.
const WAITS: u8 = 4;

#[derive(Clone, Default)]
struct Fault {
    kind: Arc<AtomicU8>,
    free_bytes: Arc<AtomicU64>,
    writes_begun: Arc<AtomicU64>,
    writes_let_through: Arc<AtomicU64>,
}

struct FaultyDisk(Fault);

impl Disk for FaultyDisk {
    fn write(
        &mut self,
        db: &DB,
        operations: &Operations,
        sync: WriteSync,
    ) -> Result<(), WriteError> {
        let writes = self.0.writes_begun.fetch_add(1, Ordering::SeqCst) + 1;
        match self.0.kind.load(Ordering::SeqCst) {
            WAITS => {
                let let_through = &self.0.writes_let_through;
                wait_until("let through", || let_through.load(Ordering::SeqCst) >= writes);
                RealDisk.write(db, operations, sync)
            }
            WORKS => RealDisk.write(db, operations, sync),
            FAILS => Err(WriteError::Failed("Input/output error".into())),
            FULL => Err(WriteError::NoSpace("No space left on device".into())),
            _ => {
                RealDisk.write(db, operations, sync)?;
                Err(WriteError::Failed("sync failed".into()))
            }
        }
    }

    fn free_bytes(&mut self, _: &Path) -> Option<u64> {
        Some(self.0.free_bytes.load(Ordering::SeqCst))
    }
}

fn open_faulty(directory: &Path) -> (RocksStore, Fault) {
    let fault = Fault::default();
    fault.free_bytes.store(1 << 40, Ordering::SeqCst);
    let disk = Box::new(FaultyDisk(fault.clone()));
    let mut settings = settings(directory);
    settings.min_free_bytes = 1000;
    let (store, _) = RocksStore::open_with_disk(settings, disk).unwrap();
    (store, fault)
}

/// What is submitted while a large backlog is written in several groups must not make the rest of it count as durable.
#[test]
fn the_rest_of_a_backlog_is_not_durable_before_it_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let (store, fault) = open_faulty(directory.path());
    commit(&store, vec![put_session(1)]);
    let written = fault.writes_begun.load(Ordering::SeqCst);
    let begun = |count| {
        wait_until("the next write", || {
            fault.writes_begun.load(Ordering::SeqCst) == written + count
        });
    };
    let let_through = |count| fault.writes_let_through.store(written + count, Ordering::SeqCst);
    let_through(0);
    fault.kind.store(WAITS, Ordering::SeqCst);
    let first = store.submit(batch(vec![enqueue(1, 0)]));
    begun(1);
    let large = QueueChange::Enqueue { queue: SessionId(1), entry: entry(1, &vec![0; 9 << 20]) };
    let large = store.submit(batch(vec![large]));
    let rest = store.submit(batch(vec![enqueue(1, 2)]));
    let_through(1);
    begun(2);
    assert!(store.is_durable(first) && !store.is_durable(large));
    let weak = Batch { durability: Durability::Memory, ..batch(vec![dequeue(1, 0)]) };
    let weak = store.submit(weak);
    let_through(2);
    begun(3);
    assert!(store.is_durable(large));
    assert!(!store.is_durable(rest), "it is only being written");
    let_through(9);
    wait_durable(&store, weak);
    assert!(store.is_durable(rest));
    store.close();
}

fn fails_and_recovers(kind: u8, state: StoreState) {
    let directory = tempfile::tempdir().unwrap();
    let (store, fault) = open_faulty(directory.path());
    commit(&store, vec![put_session(1), enqueue(1, 0)]);
    fault.kind.store(kind, Ordering::SeqCst);
    let (listener, told) = notifier();
    let first = entry(1, b"1/1");
    let second = entry(2, b"1/2");
    let put = |entry: &Arc<_>| {
        Change::from(QueueChange::Enqueue { queue: SessionId(1), entry: Arc::clone(entry) })
    };
    let waiting = store.submit(Batch {
        changes: vec![put(&first), put(&second), dequeue(1, 0)],
        durability: Durability::Fsync,
        listeners: [listener].into_iter().collect(),
    });
    wait_until("the store is in trouble", || store.state() == state);
    let last = store.submit(batch(vec![enqueue(1, 3)]));
    assert!(!store.is_durable(waiting), "nothing is released");
    assert!(told.try_recv().is_err(), "nobody is told");
    assert!(store.pending_bytes() > 0);
    assert!(!first.is_committed());
    // Acknowledged while nobody knows whether it was written: its removal follows.
    second.acknowledge();
    fault.kind.store(WORKS, Ordering::SeqCst);
    told.recv().unwrap();
    assert!(store.is_durable(waiting));
    wait_durable(&store, last);
    assert_eq!(store.state(), StoreState::Available);
    commit(&store, vec![dequeue(1, 2)]);
    assert!(first.is_committed());
    assert_eq!(places(&store, 1), [1, 3]);
    assert!(store.statistics().failures > 0);
    store.close();
    let (store, loaded) = open(directory.path());
    assert_eq!(places(&store, 1), [1, 3]);
    assert_eq!(find(&loaded, 1).queue.message_count, 2);
}

#[test]
fn a_failed_write_releases_nothing_until_it_is_repeated_in_a_fresh_database() {
    fails_and_recovers(FAILS, StoreState::Failed);
}

#[test]
fn a_full_disk_releases_nothing_until_there_is_space() {
    fails_and_recovers(FULL, StoreState::Full);
}

#[test]
fn a_write_that_arrived_and_said_it_failed_is_not_doubled() {
    fails_and_recovers(LIES, StoreState::Failed);
}

#[test]
fn below_the_floor_nothing_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let (store, fault) = open_faulty(directory.path());
    commit(&store, vec![put_session(1)]);
    fault.free_bytes.store(999, Ordering::SeqCst);
    // The space is looked at after some megabytes, not with each group.
    let large: Vec<u8> = vec![1; 1 << 20];
    let put = |place| QueueChange::Enqueue { queue: SessionId(1), entry: entry(place, &large) };
    let mut place = 0;
    let mut last = Ticket::NOTHING;
    while store.state() == StoreState::Available {
        last = store.submit(batch(vec![put(place)]));
        place += 1;
        assert!(place < 1000, "the floor was never noticed");
        wait_until("it is written or refused", || {
            store.is_durable(last) || store.state() != StoreState::Available
        });
    }
    assert_eq!(store.state(), StoreState::Full);
    assert!(place < 10, "{place} megabytes were written below the floor");
    fault.free_bytes.store(1 << 40, Ordering::SeqCst);
    wait_durable(&store, last);
    assert_eq!(store.state(), StoreState::Available);
    assert_eq!(read_all(&store, 1).len() as u64, place);
}

#[test]
fn closing_while_nothing_can_be_written_ends() {
    let directory = tempfile::tempdir().unwrap();
    let (store, fault) = open_faulty(directory.path());
    commit(&store, vec![put_session(1)]);
    fault.kind.store(FAILS, Ordering::SeqCst);
    let ticket = store.submit(batch(vec![enqueue(1, 0)]));
    wait_until("the store is in trouble", || store.state() == StoreState::Failed);
    store.close();
    assert!(!store.is_durable(ticket));
}
