//! What was committed is there after the store was closed and opened again.

use std::num::NonZeroU16;
use std::time::Duration;

use petrel::durable::change::Change;
use petrel::durable::message::{Sequence, SessionId};
use petrel::durable::record::SubscriptionRecord;
use petrel::durable::{Store, StoreError};
use petrel::packet::PacketId;
use petrel::packet::subscribe::SubscriptionOptions;
use petrel::store::rocks::RocksStore;

use crate::harness::*;

fn subscription(session: u64, filter: &str) -> Change {
    Change::PutSubscription(Box::new(SubscriptionRecord {
        session: SessionId(session),
        filter: filter.into(),
        options: SubscriptionOptions::default(),
        subscription_id: Some(5),
    }))
}

fn packet_id(number: u16) -> PacketId {
    PacketId(NonZeroU16::new(number).unwrap())
}

#[test]
fn everything_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let (store, loaded) = open(directory.path());
    assert_eq!(loaded.incarnation, 1);
    assert!(loaded.sessions.is_empty());
    commit(&store, vec![put_session(1), subscription(1, "a/#"), subscription(1, "$share/g/b")]);
    let incoming = Change::PutIncoming { session: SessionId(1), packet_id: packet_id(9) };
    commit(&store, vec![enqueue(1, 0), enqueue(1, 1), enqueue(1, 2), incoming]);
    commit(&store, vec![Change::PutRetained(message(1, b"on"))]);
    let gone = Change::DeleteSubscription { session: SessionId(1), filter: "a/#".into() };
    commit(&store, vec![dequeue(1, 0), release(1, 1), gone]);
    store.close();

    let (store, loaded) = open(directory.path());
    assert_eq!(loaded.incarnation, 2);
    let session = find(&loaded, 1);
    assert_eq!(session.subscriptions.len(), 1);
    assert_eq!(&*session.subscriptions[0].filter, "$share/g/b");
    assert_eq!(session.subscriptions[0].subscription_id, Some(5));
    assert_eq!(session.incoming, [packet_id(9)]);
    assert_eq!((session.queue_start, session.queue_end), (Sequence(1), Sequence(3)));
    assert_eq!(session.message_count, 1);
    assert_eq!(loaded.retained.len(), 1);
    assert_eq!(loaded.retained[0].payload(), b"on");
    assert_eq!(places(&store, 1), [-1, 2]);

    let done = Change::DeleteIncoming { session: SessionId(1), packet_id: packet_id(9) };
    let cleared = Change::DeleteRetained("plant/1/temperature".into());
    commit(&store, vec![dequeue(1, 1), dequeue(1, 2), done, cleared]);
    store.close();

    let (store, loaded) = open(directory.path());
    let session = find(&loaded, 1);
    assert!(session.incoming.is_empty());
    assert_eq!((session.queue_start, session.queue_end), (Sequence(3), Sequence(3)));
    assert_eq!((session.message_count, session.message_bytes), (0, 0));
    assert!(loaded.retained.is_empty());
    assert!(places(&store, 1).is_empty());
}

#[test]
fn a_deleted_session_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(directory.path());
    let incoming = Change::PutIncoming { session: SessionId(1), packet_id: packet_id(9) };
    commit(&store, vec![put_session(1), put_session(2), subscription(1, "a"), incoming]);
    commit(&store, vec![enqueue(1, 0), enqueue(1, 1), enqueue(2, 0), release(1, 1)]);
    commit(&store, vec![Change::DeleteSession(SessionId(1))]);
    // A message that was on its way to it leaves no orphan behind.
    commit(&store, vec![enqueue(1, 2)]);
    assert!(places(&store, 1).is_empty());
    store.close();
    let (store, loaded) = open(directory.path());
    assert_eq!(loaded.sessions.len(), 1);
    assert_eq!(store.report().orphaned_queues, 0);
    assert_eq!(places(&store, 2), [0]);
}

#[test]
fn a_message_for_a_session_whose_record_comes_later_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(directory.path());
    commit(&store, vec![enqueue(1, 0)]);
    commit(&store, vec![put_session(1)]);
    store.close();
    let (store, loaded) = open(directory.path());
    assert_eq!(find(&loaded, 1).message_count, 1);
    assert_eq!(places(&store, 1), [0]);
}

#[test]
fn a_second_broker_is_refused_and_told_who_holds_the_directory() {
    let directory = tempfile::tempdir().unwrap();
    let (_store, _) = open(directory.path());
    let refused = RocksStore::open(settings(directory.path())).err().unwrap();
    assert!(matches!(refused, StoreError::InUse { process: Some(_), .. }), "{refused}");
}

#[test]
fn broker_time_goes_on_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let (store, first) = open(directory.path());
    let stopped = store.clock().now();
    store.close();
    let (store, second) = open(directory.path());
    assert!(first.now <= stopped && stopped <= second.now);
    assert!(second.now.since(stopped) < Duration::from_secs(60));
    assert!(store.durable().0 == 0);
}
