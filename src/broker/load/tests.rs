//! What a broker makes of what its store held.

use std::task::Waker;
use std::time::Duration;

use super::*;
use crate::access::{ListenerRules, Peer};
use crate::auth::authority::DefaultAuthority;
use crate::broker::connection::ClientConnection;
use crate::broker::limits::Limits;
use crate::durable::message::SessionId;
use crate::durable::record::{OverflowPolicy, QueueLifetime, QueueRecord, QueueRules};
use crate::session::outbox::Outbox;
use crate::store::faulty::{Crash, FaultyStore, Honesty};
use crate::store::image::Image;
use crate::store::memory::MemoryStore;

fn session(id: u64) -> LoadedSession {
    let record = SessionRecord {
        id: SessionId(id),
        client_id: "a".into(),
        epoch: 1,
        expiry_seconds: u32::MAX,
        disconnected: Some(Timestamp(1)),
        sent_until: Sequence(0),
        will: None,
        user_name: None,
    };
    let queue = LoadedQueue::empty(QueueRecord::of_session(record.id));
    LoadedSession { record, subscriptions: Vec::new(), incoming: Vec::new(), queue }
}

/// A clean start ended Session 1, and the broker died after 2 was written and before 1 was removed.
#[test]
fn of_two_sessions_of_one_client_the_newest_counts() {
    let (store, mut loaded, _clock) = MemoryStore::open();
    loaded.sessions = vec![session(1), session(2)];
    let authority = Arc::new(DefaultAuthority::new(None));
    let broker = Broker::new(Limits::default(), Arc::new(store), authority, loaded, 0);
    let found = broker.registry().find("a").expect("loaded");
    assert_eq!(found.id(), SessionId(2));
}

const TOPIC: &str = "device/7/state";

/// A broker on what a crash left, at a time.
fn broker(image: Image, now: Timestamp) -> (Arc<FaultyStore>, Arc<Broker>) {
    let (store, loaded) = FaultyStore::open(image, Honesty::Honest, now);
    let authority = Arc::new(DefaultAuthority::new(None));
    let store_port = Arc::clone(&store) as Arc<dyn Store>;
    (store, Arc::new(Broker::new(Limits::default(), store_port, authority, loaded, 0)))
}

/// Connects with MQTT 3.1.1 and Clean Session 1, leaving a retained Will Message, and demands a CONNACK although the store
/// has written nothing yet.
fn connect(broker: &Arc<Broker>, now: Timestamp) -> ClientConnection {
    let rules = ListenerRules { allow_anonymous: true, ..ListenerRules::default() };
    let peer = Peer { address: None, listener: Arc::new(rules), certificate_name: None };
    let mut connection = ClientConnection::new(Arc::clone(broker), peer, now);
    let mut connect = b"\x10\x26\x00\x04MQTT\x04\x26\x00\x00\x00\x01d\x00\x0e".to_vec();
    connect.extend_from_slice(TOPIC.as_bytes());
    connect.extend_from_slice(b"\x00\x07offline");
    let mut effects = Effects::new();
    assert_eq!(connection.handle_bytes(&connect, now, &mut effects), connect.len());
    connection.handle_wake(now, &mut effects);
    let mut output = Outbox::default();
    connection.take_output(&mut output, Waker::noop());
    assert_eq!(output.bytes(), 4, "CONNACK");
    connection
}

fn will(broker: &Broker) -> Option<Vec<u8>> {
    broker.retained().get(TOPIC).map(|message| message.payload().to_vec())
}

fn run_timers(broker: &Broker, now: Timestamp) {
    while broker.handle_timers(now, &mut Effects::new()) {}
}

/// The device died with the broker and never returns: nobody else would ever say that it is gone. Its Will Message is
/// published after a while, once, also if the broker is killed again in between. [MQTT-3.1.2-8]
#[test]
fn the_will_of_a_clean_session_survives_the_broker() {
    let start = Timestamp(1_000_000);
    let (store, first) = broker(Image::default(), start);
    let _connected = connect(&first, start);
    store.step();
    let mut image = store.crash(Crash::Kill, 0);
    for second in 1..3 {
        let again = start.plus(Duration::from_secs(second * 30));
        let (store, restarted) = broker(image, again);
        store.step();
        run_timers(&restarted, again.plus(Duration::from_secs(29)));
        assert_eq!(will(&restarted), None, "its Client may come back");
        image = store.crash(Crash::Kill, 0);
    }
    let again = start.plus(Duration::from_secs(500));
    let (store, restarted) = broker(image, again);
    run_timers(&restarted, again.plus(Duration::from_secs(60)));
    assert_eq!(will(&restarted).as_deref(), Some(&b"offline"[..]));
    store.step();
    let (_, loaded) = FaultyStore::open(store.crash(Crash::Kill, 0), Honesty::Honest, again);
    assert!(loaded.sessions.is_empty(), "nothing is left to be published again");
    assert_eq!(loaded.retained.len(), 1);
}

/// A Client that is back in time is not declared dead, and its new Will Message counts.
#[test]
fn a_client_that_returns_after_a_crash_has_no_will_published() {
    let start = Timestamp(1_000_000);
    let (store, first) = broker(Image::default(), start);
    let _connected = connect(&first, start);
    store.step();
    let (store, restarted) = broker(store.crash(Crash::Kill, 0), start);
    let mut returned = connect(&restarted, start.plus(Duration::from_secs(50)));
    store.step();
    run_timers(&restarted, start.plus(Duration::from_secs(100)));
    assert_eq!(will(&restarted), None);
    // Its connection breaks: that is a death.
    let mut effects = Effects::new();
    returned.handle_closed(start.plus(Duration::from_secs(101)), &mut effects);
    assert_eq!(will(&restarted).as_deref(), Some(&b"offline"[..]));
}

/// [MQTT-3.14.4-3]
#[test]
fn a_disconnect_takes_the_kept_will_away() {
    let start = Timestamp(1_000_000);
    let (store, first) = broker(Image::default(), start);
    let mut connected = connect(&first, start);
    store.step();
    let mut effects = Effects::new();
    connected.handle_bytes(b"\xe0\x00", start, &mut effects);
    connected.handle_closed(start, &mut effects);
    store.step();
    let (_, loaded) = FaultyStore::open(store.crash(Crash::PowerCut, 0), Honesty::Honest, start);
    assert!(loaded.sessions.is_empty());
}

/// Limits and policy that a queue has of its own hold from the start, not only when whoever set them is back.
#[test]
fn the_rules_of_a_queue_survive_the_broker() {
    let start = Timestamp(1_000_000);
    let (store, first) = broker(Image::default(), start);
    let rules = ListenerRules { allow_anonymous: true, ..ListenerRules::default() };
    let peer = Peer { address: None, listener: Arc::new(rules), certificate_name: None };
    let mut connection = ClientConnection::new(Arc::clone(&first), peer, start);
    let mut effects = Effects::new();
    connection.handle_bytes(b"\x10\x0d\x00\x04MQTT\x04\x00\x00\x00\x00\x01q", start, &mut effects);
    let rules = QueueRules {
        max_messages: Some(7),
        policy: Some(OverflowPolicy::DropOldest),
        ..QueueRules::default()
    };
    first.set_queue_rules("q", rules, &mut effects);
    store.step();
    let (_, restarted) = broker(store.crash(Crash::Kill, 0), start);
    let session = restarted.registry().find("q").expect("it lasts");
    assert_eq!(session.outbound().own_queue(), Some(&rules));
}

/// A queue lives as long as its record says: one of members ends without them, one that was declared does not.
#[test]
fn only_queues_of_members_end_without_members() {
    let (store, mut loaded, _clock) = MemoryStore::open();
    let of_members = QueueRecord::of_group(SessionId(1), "$share/members/a".into());
    let mut declared = QueueRecord::of_group(SessionId(2), "$share/declared/a".into());
    declared.lifetime = QueueLifetime::UntilRemoved;
    loaded.queues = vec![LoadedQueue::empty(of_members), LoadedQueue::empty(declared)];
    let authority = Arc::new(DefaultAuthority::new(None));
    let broker = Broker::new(Limits::default(), Arc::new(store), authority, loaded, 0);
    let left: Vec<_> = broker.groups.lock().keys().cloned().collect();
    assert_eq!(left, ["$share/declared/a".into()]);
}
