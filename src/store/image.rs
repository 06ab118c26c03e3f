//! What a store holds, as plain values: the durable and the live side of [`crate::store::faulty`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use smallvec::SmallVec;

use crate::durable::change::Change;
use crate::durable::entry::{QueueEntry, StoredEntry};
use crate::durable::message::{Message, Sequence, SessionId, Timestamp};
use crate::durable::record::{Loaded, LoadedSession, SessionRecord, SubscriptionRecord};
use crate::packet::{PacketId, QoS};

/// Everything that is stored. Cheap to clone only while it is small: made for tests.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Image {
    sessions: BTreeMap<SessionId, SessionRecord>,
    subscriptions: BTreeMap<(SessionId, Arc<str>), SubscriptionRecord>,
    queues: BTreeMap<SessionId, BTreeMap<u64, Place>>,
    incoming: BTreeMap<SessionId, BTreeSet<PacketId>>,
    retained: BTreeMap<String, Arc<Message>>,
    ended: BTreeSet<SessionId>,
    incarnation: u32,
}

/// A place in a queue.
#[derive(Debug, Clone, PartialEq)]
enum Place {
    Message(Box<Delivery>),
    Released,
}

/// A queue entry without its state.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    sequence: Sequence,
    message: Arc<Message>,
    qos: QoS,
    retain: bool,
    subscription_ids: SmallVec<[u32; 2]>,
    group: Option<SessionId>,
}

/// A change that was taken for writing: what raced an acknowledgement is decided.
#[derive(Debug, Clone)]
pub struct TakenChange(Taken);

#[derive(Debug, Clone)]
enum Taken {
    PutSession(Box<SessionRecord>),
    DeleteSession(SessionId),
    PutSubscription(Box<SubscriptionRecord>),
    DeleteSubscription(SessionId, Arc<str>),
    Enqueue(SessionId, Box<Delivery>),
    Dequeue(SessionId, Sequence),
    Release(SessionId, Sequence),
    PutIncoming(SessionId, PacketId),
    DeleteIncoming(SessionId, PacketId),
    PutRetained(Arc<Message>),
    DeleteRetained(Arc<str>),
}

impl TakenChange {
    /// Takes a change for writing; none for an entry that was acknowledged before.
    #[must_use]
    pub fn take(change: &Change) -> Option<Self> {
        Some(Self(match change {
            Change::PutSession(record) => Taken::PutSession(record.clone()),
            Change::DeleteSession(session) => Taken::DeleteSession(*session),
            Change::PutSubscription(record) => Taken::PutSubscription(record.clone()),
            Change::DeleteSubscription { session, filter } => {
                Taken::DeleteSubscription(*session, Arc::clone(filter))
            }
            Change::Enqueue { session, entry } => {
                if !entry.begin_write() {
                    return None;
                }
                Taken::Enqueue(*session, Box::new(Delivery::of(entry)))
            }
            Change::Dequeue { session, sequence } => Taken::Dequeue(*session, *sequence),
            Change::Release { session, sequence } => Taken::Release(*session, *sequence),
            Change::PutIncoming { session, packet_id } => Taken::PutIncoming(*session, *packet_id),
            Change::DeleteIncoming { session, packet_id } => {
                Taken::DeleteIncoming(*session, *packet_id)
            }
            Change::PutRetained(message) => Taken::PutRetained(Arc::clone(message)),
            Change::DeleteRetained(topic) => Taken::DeleteRetained(Arc::clone(topic)),
        }))
    }
}

impl Delivery {
    fn of(entry: &QueueEntry) -> Self {
        Self {
            sequence: entry.sequence,
            message: Arc::clone(&entry.message),
            qos: entry.qos,
            retain: entry.retain,
            subscription_ids: entry.subscription_ids.clone(),
            group: entry.group,
        }
    }

    fn read(&self) -> StoredEntry {
        let message = Arc::clone(&self.message);
        let mut entry =
            QueueEntry::new(self.sequence, message, self.qos, self.retain, &self.subscription_ids);
        entry.group = self.group;
        StoredEntry::Message(Arc::new(entry.into_committed()))
    }
}

impl Image {
    /// Applies a change; applying it twice equals once.
    pub fn apply(&mut self, change: &TakenChange) {
        match &change.0 {
            Taken::PutSession(record) => drop(self.sessions.insert(record.id, (**record).clone())),
            Taken::DeleteSession(session) => self.delete_session(*session),
            Taken::PutSubscription(record) => {
                let key = (record.session, Arc::clone(&record.filter));
                self.subscriptions.insert(key, (**record).clone());
            }
            Taken::DeleteSubscription(session, filter) => {
                self.subscriptions.remove(&(*session, Arc::clone(filter)));
            }
            Taken::Enqueue(session, delivery) if !self.ended.contains(session) => {
                let place = Place::Message(delivery.clone());
                self.queues.entry(*session).or_default().insert(delivery.sequence.0, place);
            }
            Taken::Dequeue(session, sequence) => {
                if let Some(queue) = self.queues.get_mut(session) {
                    queue.remove(&sequence.0);
                }
            }
            Taken::Release(session, sequence) if !self.ended.contains(session) => {
                self.queues.entry(*session).or_default().insert(sequence.0, Place::Released);
            }
            // Its Session has ended.
            Taken::Enqueue(..) | Taken::Release(..) => {}
            Taken::PutIncoming(session, packet_id) => {
                self.incoming.entry(*session).or_default().insert(*packet_id);
            }
            Taken::DeleteIncoming(session, packet_id) => {
                if let Some(ids) = self.incoming.get_mut(session) {
                    ids.remove(packet_id);
                }
            }
            Taken::PutRetained(message) => {
                self.retained.insert(message.topic().to_owned(), Arc::clone(message));
            }
            Taken::DeleteRetained(topic) => drop(self.retained.remove(&**topic)),
        }
    }

    fn delete_session(&mut self, session: SessionId) {
        self.ended.insert(session);
        self.sessions.remove(&session);
        self.queues.remove(&session);
        self.incoming.remove(&session);
        self.subscriptions.retain(|(owner, _), _| *owner != session);
    }

    /// What a broker finds that opens on this image, which thereby starts a new incarnation.
    pub fn load(&mut self, now: Timestamp) -> Loaded {
        self.incarnation += 1;
        let known = &self.sessions;
        self.queues.retain(|session, _| known.contains_key(session));
        Loaded {
            sessions: self.sessions.values().map(|record| self.load_session(record)).collect(),
            retained: self.retained.values().cloned().collect(),
            incarnation: self.incarnation,
            now,
        }
    }

    fn load_session(&self, record: &SessionRecord) -> LoadedSession {
        let id = record.id;
        let places = self.queues.get(&id).into_iter().flatten();
        let messages = places.clone().filter_map(|(_, place)| match place {
            Place::Message(delivery) => Some(delivery.message.size_bytes() as u64),
            Place::Released => None,
        });
        let owned = self.subscriptions.values().filter(|subscription| subscription.session == id);
        let end = places.clone().last().map_or(0, |(place, _)| place + 1);
        LoadedSession {
            record: record.clone(),
            subscriptions: owned.cloned().collect(),
            incoming: self.incoming.get(&id).into_iter().flatten().copied().collect(),
            queue_start: Sequence(places.clone().next().map_or(end, |(place, _)| *place)),
            queue_end: Sequence(end),
            message_count: messages.clone().count() as u64,
            message_bytes: messages.sum(),
        }
    }

    /// A page of a queue, see [`crate::durable::Store::read_queue`].
    #[must_use]
    pub fn read_queue(
        &self,
        session: SessionId,
        from: Sequence,
        to: Sequence,
        max_count: usize,
        max_bytes: usize,
    ) -> Vec<StoredEntry> {
        let mut page = Vec::new();
        let mut bytes = 0;
        let Some(queue) = self.queues.get(&session).filter(|_| from < to) else { return page };
        for (place, content) in queue.range(from.0..to.0) {
            if page.len() >= max_count || bytes >= max_bytes {
                break;
            }
            page.push(match content {
                Place::Message(delivery) => {
                    bytes += delivery.message.size_bytes();
                    delivery.read()
                }
                Place::Released => StoredEntry::Released(Sequence(*place)),
            });
        }
        page
    }
}
