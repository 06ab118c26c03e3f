//! Short names for what every test of the store needs.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use petrel::durable::change::{Change, QueueChange, SessionChange};
use petrel::durable::entry::{QueueEntry, StoredEntry};
use petrel::durable::message::{Message, MessageHeader, MessageId, Sequence, SessionId, Timestamp};
use petrel::durable::record::{Loaded, LoadedSession, SessionRecord};
use petrel::durable::{Batch, CommitListener, Durability, Store, Ticket};
use petrel::packet::QoS;
use petrel::store::rocks::RocksStore;
use petrel::store::settings::StoreSettings;

pub(crate) fn settings(directory: &Path) -> StoreSettings {
    let mut settings = StoreSettings::new(directory);
    settings.min_free_bytes = 0;
    settings
}

pub(crate) fn open(directory: &Path) -> (RocksStore, Loaded) {
    RocksStore::open(settings(directory)).unwrap()
}

pub(crate) fn message(counter: u64, payload: &[u8]) -> Arc<Message> {
    let header = MessageHeader {
        id: MessageId { publisher: SessionId(77), counter },
        qos: QoS::AtLeastOnce,
        retain: false,
        arrived: Timestamp(1),
        expires: None,
    };
    Arc::new(Message::new(header, "plant/1/temperature", b"", payload).unwrap())
}

pub(crate) fn entry(sequence: u64, payload: &[u8]) -> Arc<QueueEntry> {
    shared_entry(sequence, &message(sequence, payload))
}

pub(crate) fn shared_entry(sequence: u64, message: &Arc<Message>) -> Arc<QueueEntry> {
    let message = Arc::clone(message);
    Arc::new(QueueEntry::new(Sequence(sequence), message, QoS::AtLeastOnce))
}

pub(crate) fn enqueue(session: u64, sequence: u64) -> Change {
    let entry = entry(sequence, format!("{session}/{sequence}").as_bytes());
    QueueChange::Enqueue { queue: SessionId(session), entry }.into()
}

pub(crate) fn dequeue(session: u64, sequence: u64) -> Change {
    QueueChange::Dequeue { queue: SessionId(session), sequence: Sequence(sequence) }.into()
}

pub(crate) fn release(session: u64, sequence: u64) -> Change {
    QueueChange::Release { queue: SessionId(session), sequence: Sequence(sequence) }.into()
}

pub(crate) fn put_session(session: u64) -> Change {
    Change::Session(SessionChange::Put(Box::new(SessionRecord {
        id: SessionId(session),
        client_id: format!("client-{session}").into(),
        epoch: 1,
        expiry_seconds: 3600,
        disconnected: None,
        sent_until: Sequence(0),
        will: None,
        user_name: None,
    })))
}

pub(crate) fn batch<C: Into<Change>>(changes: Vec<C>) -> Batch {
    let changes = changes.into_iter().map(Into::into).collect();
    Batch { changes, durability: Durability::Fsync, ..Batch::default() }
}

pub(crate) fn commit<C: Into<Change>>(store: &RocksStore, changes: Vec<C>) -> Ticket {
    let ticket = store.submit(batch(changes));
    wait_durable(store, ticket);
    ticket
}

pub(crate) fn wait_durable(store: &dyn Store, ticket: Ticket) {
    wait_until("the ticket is durable", || store.is_durable(ticket));
}

/// Polls a condition that another thread brings about.
pub(crate) fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::yield_now();
    }
}

/// Tells a channel of each commit.
pub(crate) struct Notifier(pub(crate) Sender<()>);

impl CommitListener for Notifier {
    fn handle_commit(&self) {
        self.0.send(()).unwrap();
    }
}

pub(crate) fn notifier() -> (Arc<dyn CommitListener>, std::sync::mpsc::Receiver<()>) {
    let (sender, receiver) = channel();
    (Arc::new(Notifier(sender)), receiver)
}

pub(crate) fn read_all(store: &dyn Store, session: u64) -> Vec<StoredEntry> {
    store
        .read_queue(SessionId(session), Sequence(0), Sequence(u64::MAX), usize::MAX, usize::MAX)
        .unwrap()
}

/// Places of a queue: messages as they are, released ones negative.
pub(crate) fn places(store: &dyn Store, session: u64) -> Vec<i64> {
    let place = |entry: &StoredEntry| match entry {
        StoredEntry::Message(entry) => {
            let expected = format!("{session}/{}", entry.sequence.0);
            assert_eq!(entry.message.payload(), expected.as_bytes());
            i64::try_from(entry.sequence.0).unwrap()
        }
        StoredEntry::Released(sequence) => -i64::try_from(sequence.0).unwrap(),
    };
    read_all(store, session).iter().map(place).collect()
}

pub(crate) fn find(loaded: &Loaded, session: u64) -> &LoadedSession {
    let found = loaded.sessions.iter().find(|loaded| loaded.record.id == SessionId(session));
    found.expect("the session was loaded")
}

/// What a kill leaves behind: the files as the operating system has them now.
pub(crate) fn crash_image(directory: &Path) -> tempfile::TempDir {
    let image = tempfile::tempdir().unwrap();
    copy(directory, image.path());
    image
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap().flatten() {
        let target = to.join(file.file_name());
        if file.file_type().unwrap().is_dir() {
            copy(&file.path(), &target);
        } else {
            // A file may be deleted by a compaction meanwhile: then nothing refers to it.
            drop(std::fs::copy(file.path(), target));
        }
    }
}
