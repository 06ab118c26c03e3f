//! What was committed is there after the store was closed and opened again.

use std::num::NonZeroU16;
use std::path::Path;
use std::time::Duration;

use petrel::durable::change::{Change, RetainedChange, SessionChange};
use petrel::durable::message::{Sequence, SessionId, Timestamp};
use petrel::durable::record::{QueueRecord, SubscriptionRecord};
use petrel::packet::PacketId;
use petrel::packet::subscribe::SubscriptionOptions;
use petrel::store::error::StoreError;
use petrel::store::rocks::RocksStore;
use rocksdb::{DB, IteratorMode, Options};

use crate::harness::*;

fn subscription(session: u64, filter: &str) -> Change {
    Change::Session(SessionChange::PutSubscription(Box::new(SubscriptionRecord {
        session: SessionId(session),
        filter: filter.into(),
        options: SubscriptionOptions::default(),
        subscription_id: Some(5),
    })))
}

fn packet_id(number: u16) -> PacketId {
    PacketId(NonZeroU16::new(number).unwrap())
}

#[test]
fn everything_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let (store, loaded) = open(directory.path());
    assert_eq!(loaded.issuer.epoch(), 1);
    assert!(loaded.sessions.is_empty());
    commit(&store, vec![put_session(1), subscription(1, "a/#"), subscription(1, "$share/g/b")]);
    let incoming = SessionChange::PutIncoming { session: SessionId(1), packet_id: packet_id(9) };
    commit(&store, vec![enqueue(1, 0), enqueue(1, 1), enqueue(1, 2), incoming.into()]);
    commit(&store, vec![RetainedChange::Put(message(1, b"on"))]);
    let gone = SessionChange::DeleteSubscription { session: SessionId(1), filter: "a/#".into() };
    commit(&store, vec![dequeue(1, 0), release(1, 1), gone.into()]);
    store.close();

    let (store, loaded) = open(directory.path());
    assert_eq!(loaded.issuer.epoch(), 2);
    let session = find(&loaded, 1);
    assert_eq!(session.subscriptions.len(), 1);
    assert_eq!(&*session.subscriptions[0].filter, "$share/g/b");
    assert_eq!(session.subscriptions[0].subscription_id, Some(5));
    assert_eq!(session.incoming, [packet_id(9)]);
    assert_eq!((session.queue.start, session.queue.end), (Sequence(1), Sequence(3)));
    assert_eq!(session.queue.message_count, 1);
    assert_eq!(loaded.retained.len(), 1);
    assert_eq!(loaded.retained[0].payload(), b"on");
    assert_eq!(places(&store, 1), [-1, 2]);

    let done = SessionChange::DeleteIncoming { session: SessionId(1), packet_id: packet_id(9) };
    let cleared = RetainedChange::Delete("plant/1/temperature".into());
    commit(&store, vec![dequeue(1, 1), dequeue(1, 2), done.into(), cleared.into()]);
    store.close();

    let (store, loaded) = open(directory.path());
    let session = find(&loaded, 1);
    assert!(session.incoming.is_empty());
    assert_eq!((session.queue.start, session.queue.end), (Sequence(3), Sequence(3)));
    assert_eq!((session.queue.message_count, session.queue.message_bytes), (0, 0));
    assert!(loaded.retained.is_empty());
    assert!(places(&store, 1).is_empty());
}

#[test]
fn a_deleted_session_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(directory.path());
    let incoming = SessionChange::PutIncoming { session: SessionId(1), packet_id: packet_id(9) };
    commit(&store, vec![put_session(1), put_session(2), subscription(1, "a"), incoming.into()]);
    commit(&store, vec![enqueue(1, 0), enqueue(1, 1), enqueue(2, 0), release(1, 1)]);
    commit(&store, vec![SessionChange::Delete(SessionId(1))]);
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
    assert_eq!(find(&loaded, 1).queue.message_count, 1);
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
    let (_store, second) = open(directory.path());
    assert!(first.now <= stopped && stopped <= second.now);
    assert!(second.now.since(stopped) < Duration::from_secs(60));
}

/// A family that is not known is not taken for damage, and nothing of the store is touched.
#[test]
fn a_store_of_a_newer_petrel_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(directory.path());
    commit(&store, vec![put_session(1), enqueue(1, 0)]);
    store.close();
    let options = Options::default();
    let database = directory.path().join("store");
    let families = DB::list_cf(&options, &database).unwrap();
    let mut db = DB::open_cf(&options, &database, families).unwrap();
    db.create_cf("logs", &options).unwrap();
    drop(db);
    let refused = RocksStore::open(settings(directory.path())).err().unwrap().to_string();
    assert!(refused.contains("newer petrel"), "{refused}");
    let families = DB::list_cf(&options, &database).unwrap();
    let mut db = DB::open_cf(&options, &database, families).unwrap();
    db.drop_cf("logs").unwrap();
    drop(db);
    let (store, _) = open(directory.path());
    assert!(!store.report().has_losses());
    assert_eq!(places(&store, 1), [0]);
}

/// A machine without a clock wrote the last heartbeat fifty years in the past; now its clock is right. What has an hour to
/// live must not expire, and after a start in between without a clock neither.
#[test]
fn a_heartbeat_of_a_machine_without_a_clock_expires_nothing() {
    const HOUR: u64 = 3_600_000;
    let directory = tempfile::tempdir().unwrap();
    open(directory.path()).0.close();
    let now = open(directory.path()).1.now.0;
    let wrong = 5 * 365 * 24 * HOUR;
    // As earlier versions wrote it, and as it is written now: what was believed, if anything, is the last number.
    for heartbeat in [vec![wrong, wrong], vec![wrong, wrong, 0], vec![wrong, wrong, now]] {
        let mut value = vec![1];
        value.extend(heartbeat.iter().flat_map(|number| number.to_le_bytes()));
        let options = Options::default();
        let database = directory.path().join("store");
        let families = DB::list_cf(&options, &database).unwrap();
        let db = DB::open_cf(&options, &database, families).unwrap();
        db.put(b"clock", value).unwrap();
        drop(db);
        let (store, loaded) = open(directory.path());
        let passed = loaded.now.since(Timestamp(wrong));
        assert!(passed < Duration::from_secs(600), "{passed:?} passed after {heartbeat:?}");
        store.close();
    }
}

/// Everything about one Session or group as format 1 had it, byte for byte: there is no encoder for it any more.
fn former_record(kind: u8, name: &[u8]) -> Vec<u8> {
    let mut value = vec![1, kind];
    value.extend_from_slice(&u32::try_from(name.len()).unwrap().to_le_bytes());
    value.extend_from_slice(name);
    value.extend_from_slice(&7_u64.to_le_bytes());
    value.extend_from_slice(&3600_u32.to_le_bytes());
    value.push(1);
    value.extend_from_slice(&99_u64.to_le_bytes());
    value.extend_from_slice(&2_u64.to_le_bytes());
    // No user name, no Will Message.
    value.extend_from_slice(&[0, 0]);
    value
}

/// Turns a store at rest into what a petrel of format 1 would have left: groups among the Sessions, and no records of
/// queues.
fn turn_back(directory: &Path) {
    let database = directory.join("store");
    let options = Options::default();
    let families = DB::list_cf(&options, &database).unwrap();
    let mut db = DB::open_cf(&options, &database, &families).unwrap();
    db.drop_cf("queues").unwrap();
    let sessions = db.cf_handle("sessions").unwrap();
    let incarnation = 3_u64 << 40;
    for (id, kind, name) in [(1, 0, &b"client-1"[..]), (2, 1, b"$share/g/a/+")] {
        let (new, old) = (u64::to_be_bytes(id), u64::to_be_bytes(incarnation | id));
        for family in ["queue", "queue_index"] {
            let handle = db.cf_handle(family).unwrap();
            let of_queue = |entry: &(Box<[u8]>, Box<[u8]>)| entry.0.starts_with(&new);
            let found: Vec<_> =
                db.iterator_cf(handle, IteratorMode::Start).flatten().filter(of_queue).collect();
            for (key, value) in found {
                db.delete_cf(handle, &key).unwrap();
                db.put_cf(handle, [&old, &key[8..]].concat(), value).unwrap();
            }
        }
        db.delete_cf(sessions, new).unwrap();
        db.put_cf(sessions, old, former_record(kind, name)).unwrap();
    }
    let numbers = |number: u64| [&[1][..], &number.to_le_bytes()].concat();
    db.put(b"incarnation", numbers(3)).unwrap();
    db.put(b"format", numbers(1)).unwrap();
}

#[test]
fn a_store_of_format_1_is_brought_up_to_date_with_all_that_it_holds() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(directory.path());
    let changes = |id| [vec![put_session(id)], (0..100).map(|at| enqueue(id, at)).collect()];
    commit(&store, [1, 2].into_iter().flat_map(changes).flatten().collect::<Vec<_>>());
    store.close();
    turn_back(directory.path());

    let (session, group) = (3 << 40 | 1, 3 << 40 | 2);
    for round in 0..2 {
        let (store, loaded) = open(directory.path());
        assert!(!store.report().has_losses(), "round {round}");
        let [found] = &loaded.sessions[..] else { panic!("one session, round {round}") };
        let record = &found.record;
        assert_eq!((record.id.0, &*record.client_id, record.epoch), (session, "client-1", 7));
        assert_eq!((record.disconnected, record.sent_until), (Some(Timestamp(99)), Sequence(2)));
        assert_eq!(found.queue.record, QueueRecord::of_session(SessionId(session)));
        assert_eq!(found.queue.message_count, 100);
        let [queue] = &loaded.queues[..] else { panic!("one group, round {round}") };
        assert_eq!(queue.record, QueueRecord::of_group(SessionId(group), "$share/g/a/+".into()));
        assert_eq!(queue.message_count, 100);
        assert_eq!((read_all(&store, session).len(), read_all(&store, group).len()), (100, 100));
        // Every name to come is above those that were given out with other bits.
        assert!(loaded.issuer.session_id(0).0 > 4 << 40, "{:?}", loaded.issuer);
        store.close();
    }
}
