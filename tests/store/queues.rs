//! Pages, shared bodies, tickets and acknowledgements that race the writer.

use std::sync::Arc;

use petrel::durable::change::{Change, QueueChange, SessionChange};
use petrel::durable::entry::{AcknowledgedEntry, QueueEntry, StoredEntry};
use petrel::durable::message::{Sequence, SessionId};
use petrel::durable::{Batch, Durability, Store, Ticket};

use crate::harness::*;

#[test]
fn a_page_ends_at_its_count_its_bytes_and_its_range() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(directory.path());
    let mut changes = vec![put_session(1), put_session(2)];
    changes.extend((0..100).map(|sequence| enqueue(1, sequence)));
    changes.push(enqueue(2, 5));
    commit(&store, changes);
    let read = |from, to, max_count, max_bytes| {
        let (from, to) = (Sequence(from), Sequence(to));
        store.read_queue(SessionId(1), from, to, max_count, max_bytes).unwrap().len()
    };
    assert_eq!(read(0, 100, 10, usize::MAX), 10);
    assert_eq!(read(95, 1000, 10, usize::MAX), 5);
    assert_eq!(read(20, 25, 10, usize::MAX), 5);
    let size = message(0, b"1/0").size_bytes();
    assert_eq!(read(0, 10, 10, 3 * size), 3);
    assert_eq!(read(0, 10, 10, 3 * size + 1), 4);
    assert_eq!(read(0, 10, 10, 1), 1);
    assert_eq!(read(50, 50, 10, 1), 0);
    assert_eq!(read(60, 50, 10, 1), 0);
}

#[test]
fn what_is_acknowledged_before_the_writer_comes_is_never_written() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(directory.path());
    let before = store.statistics().written_bytes;
    let entry = entry(0, b"1/0");
    assert_eq!(entry.acknowledge(), AcknowledgedEntry::NeverWritten);
    let ticket = commit(&store, vec![QueueChange::Enqueue { queue: SessionId(1), entry }]);
    assert!(store.is_durable(ticket));
    let statistics = store.statistics();
    assert_eq!((statistics.written_bytes, statistics.syncs), (before, 0));
    assert!(places(&store, 1).is_empty());
}

#[test]
fn an_entry_is_committed_when_its_ticket_is_durable() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(directory.path());
    let entry = entry(0, b"1/0");
    let enqueue =
        Change::from(QueueChange::Enqueue { queue: SessionId(1), entry: Arc::clone(&entry) });
    assert!(!entry.is_committed());
    commit(&store, vec![put_session(1), enqueue]);
    assert!(entry.is_committed());
    assert_eq!(entry.acknowledge(), AcknowledgedEntry::Stored);
}

#[test]
fn tickets_rise_and_listeners_are_told_after_the_ticket_is_durable() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(directory.path());
    let (listener, told) = notifier();
    for place in 0..100 {
        let durability = match place % 3 {
            0 => Durability::Fsync,
            1 => Durability::Os,
            _ => Durability::Memory,
        };
        let ticket = store.submit(Batch {
            changes: vec![enqueue(1, place)],
            durability,
            listeners: [Arc::clone(&listener)].into_iter().collect(),
        });
        assert_eq!(ticket, Ticket(place + 1));
    }
    while !store.is_durable(Ticket(100)) {
        told.recv().unwrap();
    }
    wait_until("nothing is pending", || store.pending_bytes() == 0);
    assert_eq!(places(&store, 1).len(), 100);
}

#[test]
fn memory_is_durable_at_once_and_written_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(directory.path());
    let changes = vec![put_session(1), enqueue(1, 0)];
    let ticket =
        store.submit(Batch { changes, durability: Durability::Memory, ..Batch::default() });
    assert!(store.is_durable(ticket));
    store.close();
    let (store, _) = open(directory.path());
    assert_eq!(places(&store, 1), [0]);
}

#[test]
fn a_large_message_to_many_sessions_is_stored_once() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(directory.path());
    let payload: Vec<u8> = (0..200_000_u32).map(|byte| (byte * 7 % 251) as u8).collect();
    let large = message(1, &payload);
    let to = |session| {
        let entry = shared_entry(session, &large);
        Change::from(QueueChange::Enqueue { queue: SessionId(session), entry })
    };
    let before = store.statistics().written_bytes;
    let mut changes: Vec<_> = (0..50).map(put_session).collect();
    changes.extend((0..50).map(to));
    commit(&store, changes);
    let written = store.statistics().written_bytes - before;
    assert!(written < 250_000, "{written} bytes for one body of 200,000");
    let first = read_all(&store, 0);
    let second = read_all(&store, 49);
    let (StoredEntry::Message(first), StoredEntry::Message(second)) = (&first[0], &second[0])
    else {
        panic!("messages")
    };
    assert_eq!(first.message.payload(), payload);
    assert!(Arc::ptr_eq(&first.message, &second.message), "it is in memory once");

    // Acknowledged, released or gone with its Session: the last one takes the body with it.
    commit(&store, (0..48).map(|session| dequeue(session, session)).collect());
    commit(&store, vec![release(48, 48)]);
    assert_eq!(bodies(directory.path()), 1);
    commit(&store, vec![SessionChange::Delete(SessionId(49))]);
    assert_eq!(bodies(directory.path()), 0);
}

/// A hundred bytes for each of ten thousand groups were a megabyte on disk for every message of anybody.
#[test]
fn a_small_message_to_thousands_of_queues_is_stored_once() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(directory.path());
    let small = message(1, &[7; 200]);
    let to = |session| {
        let entry = shared_entry(0, &small);
        Change::from(QueueChange::Enqueue { queue: SessionId(session), entry })
    };
    commit(&store, (0..5000).map(put_session).collect());
    let before = store.statistics().written_bytes;
    commit(&store, (0..5000).map(to).collect());
    let written = store.statistics().written_bytes - before;
    assert!(written < 5000 * 150, "{written} bytes for a message of 200 bytes to 5,000 queues");
    let StoredEntry::Message(read) = &read_all(&store, 4999)[0] else { panic!("a message") };
    assert_eq!(read.message.payload(), [7; 200]);
    commit(&store, (0..4999).map(|session| dequeue(session, 0)).collect());
    assert_eq!(bodies(directory.path()), 1);
    commit(&store, vec![dequeue(4999, 0)]);
    assert_eq!(bodies(directory.path()), 0);
}

#[test]
fn a_body_that_comes_and_goes_within_one_group_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(directory.path());
    let large = message(1, &[7; 5000]);
    let to = |session| {
        let entry = shared_entry(0, &large);
        Change::from(QueueChange::Enqueue { queue: SessionId(session), entry })
    };
    let mut changes: Vec<_> = (0..3).map(put_session).collect();
    changes.extend((0..3).map(to));
    changes.extend([dequeue(0, 0), dequeue(0, 0), release(1, 0), dequeue(1, 0)]);
    changes.push(SessionChange::Delete(SessionId(2)).into());
    commit(&store, changes);
    assert_eq!(bodies(directory.path()), 0);
}

/// Bodies in what a kill would leave now.
fn bodies(directory: &std::path::Path) -> usize {
    let image = crash_image(directory);
    let families = petrel::store::family::Family::ALL.map(petrel::store::family::Family::name);
    let options = rocksdb::Options::default();
    let db = rocksdb::DB::open_cf(&options, image.path().join("store"), families).unwrap();
    let count = |name| {
        let values = db.iterator_cf(db.cf_handle(name).unwrap(), rocksdb::IteratorMode::Start);
        values.flatten().filter(|(key, _)| !key.is_empty()).count()
    };
    assert_eq!(count("bodies"), count("body_references"));
    count("bodies")
}

/// A Client's task hands messages on without the lock under which its input is handled, and publishers deliver without it
/// anyway. So changes to one queue come in any order, and some after its end.
#[test]
fn changes_to_a_queue_come_in_any_order_and_after_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(directory.path());
    let enqueue_entry = |entry: &Arc<QueueEntry>| QueueChange::Enqueue {
        queue: SessionId(1),
        entry: Arc::clone(entry),
    };
    let entries: Vec<_> =
        (0..5).map(|place| entry(place, format!("1/{place}").as_bytes())).collect();
    // A later position first, and its removal before the earlier ones.
    commit(&store, vec![put_session(1)]);
    commit(&store, vec![enqueue_entry(&entries[3])]);
    assert_eq!(entries[3].acknowledge(), AcknowledgedEntry::Stored);
    commit(&store, vec![dequeue(1, 3)]);
    // Acknowledged between its delivery and its submission.
    assert_eq!(entries[1].acknowledge(), AcknowledgedEntry::NeverWritten);
    commit(&store, vec![enqueue_entry(&entries[2]), enqueue_entry(&entries[1])]);
    commit(&store, vec![enqueue_entry(&entries[0])]);
    assert_eq!(places(&store, 1), [0, 2]);
    let image = crash_image(directory.path());
    let (copy, loaded) = open(image.path());
    let queue = &find(&loaded, 1).queue;
    assert_eq!((queue.start, queue.message_count), (Sequence(0), 2));
    assert_eq!(places(&copy, 1), [0, 2]);
    // The Session ends on another thread.
    commit(&store, vec![SessionChange::Delete(SessionId(1))]);
    commit(&store, vec![enqueue_entry(&entries[4])]);
    commit(&store, vec![dequeue(1, 0), release(1, 2), dequeue(1, 2)]);
    assert!(places(&store, 1).is_empty());
    let image = crash_image(directory.path());
    let (copy, loaded) = open(image.path());
    assert!(loaded.sessions.is_empty() && places(&copy, 1).is_empty());
    assert_eq!(copy.report().orphaned_queues, 0);
}
