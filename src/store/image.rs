//! The contents of a store as plain values: the durable and the live image of [`crate::store::faulty`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use smallvec::SmallVec;

use crate::durable::change::{Change, QueueChange, RetainedChange, SessionChange};
use crate::durable::entry::{QueueEntry, SUBSCRIPTION_ID_BYTES, StoredEntry};
use crate::durable::message::{Issuer, Message, Sequence, SessionId, Timestamp};
use crate::durable::record::{
    Loaded, LoadedQueue, LoadedSession, QueueOwner, QueueRecord, SessionRecord, SubscriptionRecord,
};
use crate::packet::{PacketId, QoS};

/// Everything that is stored. For tests: it is cheap to clone only while it is small.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Image {
    records: BTreeMap<SessionId, QueueRecord>,
    sessions: BTreeMap<SessionId, SessionRecord>,
    subscriptions: BTreeMap<(SessionId, Arc<str>), SubscriptionRecord>,
    queues: BTreeMap<SessionId, BTreeMap<u64, ImagePlace>>,
    incoming: BTreeMap<SessionId, BTreeSet<PacketId>>,
    retained: BTreeMap<String, Arc<Message>>,
    ended: BTreeSet<SessionId>,
    epoch: u32,
}

/// A position in a queue.
#[derive(Debug, Clone, PartialEq)]
enum ImagePlace {
    Message(Box<Delivery>),
    Released,
}

/// A queue entry without its state.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Delivery {
    sequence: Sequence,
    message: Arc<Message>,
    qos: QoS,
    retain: bool,
    subscription_ids: SmallVec<[u32; 2]>,
    group: Option<SessionId>,
}

/// A change taken for writing: any race with an acknowledgement is decided.
#[derive(Debug, Clone)]
pub(crate) struct TakenChange(Taken);

#[derive(Debug, Clone)]
enum Taken {
    Queue(TakenQueueChange),
    Session(TakenSessionChange),
    PutRetained(Arc<Message>),
    DeleteRetained(Arc<str>),
}

#[derive(Debug, Clone)]
enum TakenQueueChange {
    Put(Box<QueueRecord>),
    Delete(SessionId),
    Enqueue(SessionId, Box<Delivery>),
    Dequeue(SessionId, Sequence),
    Release(SessionId, Sequence),
}

#[derive(Debug, Clone)]
enum TakenSessionChange {
    Put(Box<SessionRecord>),
    Delete(SessionId),
    PutSubscription(Box<SubscriptionRecord>),
    DeleteSubscription(SessionId, Arc<str>),
    PutIncoming(SessionId, PacketId),
    DeleteIncoming(SessionId, PacketId),
}

impl TakenChange {
    /// Takes a change for writing; `None` for an entry that is already acknowledged.
    #[must_use]
    pub(crate) fn take(change: &Change) -> Option<Self> {
        Some(Self(match change {
            Change::Queue(change) => Taken::Queue(TakenQueueChange::take(change)?),
            Change::Session(change) => Taken::Session(TakenSessionChange::take(change)),
            Change::Retained(RetainedChange::Put(message)) => {
                Taken::PutRetained(Arc::clone(message))
            }
            Change::Retained(RetainedChange::Delete(topic)) => {
                Taken::DeleteRetained(Arc::clone(topic))
            }
        }))
    }
}

impl TakenQueueChange {
    fn take(change: &QueueChange) -> Option<Self> {
        Some(match change {
            QueueChange::Put(record) => Self::Put(record.clone()),
            QueueChange::Delete(queue) => Self::Delete(*queue),
            QueueChange::Enqueue { queue, entry } => {
                if !entry.begin_write() {
                    return None;
                }
                Self::Enqueue(*queue, Box::new(Delivery::of(entry)))
            }
            QueueChange::Dequeue { queue, sequence } => Self::Dequeue(*queue, *sequence),
            QueueChange::Release { queue, sequence } => Self::Release(*queue, *sequence),
        })
    }
}

impl TakenSessionChange {
    fn take(change: &SessionChange) -> Self {
        match change {
            SessionChange::Put(record) => Self::Put(record.clone()),
            SessionChange::Delete(session) => Self::Delete(*session),
            SessionChange::PutSubscription(record) => Self::PutSubscription(record.clone()),
            SessionChange::DeleteSubscription { session, filter } => {
                Self::DeleteSubscription(*session, Arc::clone(filter))
            }
            SessionChange::PutIncoming { session, packet_id } => {
                Self::PutIncoming(*session, *packet_id)
            }
            SessionChange::DeleteIncoming { session, packet_id } => {
                Self::DeleteIncoming(*session, *packet_id)
            }
        }
    }
}

impl Delivery {
    /// See [`QueueEntry::size_bytes`].
    fn size_bytes(&self) -> usize {
        self.message.size_bytes() + self.subscription_ids.len() * SUBSCRIPTION_ID_BYTES
    }

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
        let mut entry = QueueEntry::new(self.sequence, message, self.qos);
        entry.retain = self.retain;
        entry.subscription_ids.clone_from(&self.subscription_ids);
        entry.group = self.group;
        StoredEntry::Message(Arc::new(entry.into_committed()))
    }
}

impl Image {
    /// Applies a change; applying it twice has the same effect as once.
    pub(crate) fn apply(&mut self, change: &TakenChange) {
        match &change.0 {
            Taken::Queue(change) => self.apply_to_queue(change),
            Taken::Session(change) => self.apply_to_session(change),
            Taken::PutRetained(message) => {
                self.retained.insert(message.topic().to_owned(), Arc::clone(message));
            }
            Taken::DeleteRetained(topic) => drop(self.retained.remove(&**topic)),
        }
    }

    fn apply_to_queue(&mut self, change: &TakenQueueChange) {
        match change {
            TakenQueueChange::Put(record) => {
                if !self.ended.contains(&record.id) {
                    self.records.insert(record.id, (**record).clone());
                }
            }
            TakenQueueChange::Delete(queue) => self.delete(*queue),
            TakenQueueChange::Enqueue(queue, delivery) if !self.ended.contains(queue) => {
                let place = ImagePlace::Message(delivery.clone());
                self.queues.entry(*queue).or_default().insert(delivery.sequence.0, place);
            }
            TakenQueueChange::Dequeue(queue, sequence) => {
                if let Some(queue) = self.queues.get_mut(queue) {
                    queue.remove(&sequence.0);
                }
            }
            TakenQueueChange::Release(queue, sequence) if !self.ended.contains(queue) => {
                self.queues.entry(*queue).or_default().insert(sequence.0, ImagePlace::Released);
            }
            // Its owner has ended.
            TakenQueueChange::Enqueue(..) | TakenQueueChange::Release(..) => {}
        }
    }

    fn apply_to_session(&mut self, change: &TakenSessionChange) {
        match change {
            TakenSessionChange::Put(record) => {
                self.sessions.insert(record.id, (**record).clone());
            }
            TakenSessionChange::Delete(session) => self.delete(*session),
            TakenSessionChange::PutSubscription(record) => {
                let key = (record.session, Arc::clone(&record.filter));
                self.subscriptions.insert(key, (**record).clone());
            }
            TakenSessionChange::DeleteSubscription(session, filter) => {
                self.subscriptions.remove(&(*session, Arc::clone(filter)));
            }
            TakenSessionChange::PutIncoming(session, packet_id) => {
                self.incoming.entry(*session).or_default().insert(*packet_id);
            }
            TakenSessionChange::DeleteIncoming(session, packet_id) => {
                if let Some(ids) = self.incoming.get_mut(session) {
                    ids.remove(packet_id);
                }
            }
        }
    }

    fn delete(&mut self, id: SessionId) {
        self.ended.insert(id);
        self.records.remove(&id);
        self.sessions.remove(&id);
        self.queues.remove(&id);
        self.incoming.remove(&id);
        self.subscriptions.retain(|(owner, _), _| *owner != id);
    }

    /// Loads this image as for a broker that opens it, which starts a new epoch.
    pub(crate) fn load(&mut self, now: Timestamp) -> Loaded {
        self.epoch += 1;
        let Self { records, sessions, queues, .. } = self;
        records
            .retain(|id, record| record.owner != QueueOwner::Session || sessions.contains_key(id));
        queues.retain(|id, _| records.contains_key(id) || sessions.contains_key(id));
        let others = self.records.values().filter(|record| record.owner != QueueOwner::Session);
        Loaded {
            sessions: self.sessions.values().map(|record| self.load_session(record)).collect(),
            queues: others.map(|record| self.load_queue(record.clone())).collect(),
            retained: self.retained.values().cloned().collect(),
            issuer: Issuer::new(0, self.epoch),
            now,
        }
    }

    fn load_session(&self, record: &SessionRecord) -> LoadedSession {
        let id = record.id;
        let owned = self.subscriptions.values().filter(|subscription| subscription.session == id);
        let queue = self.records.get(&id).cloned();
        LoadedSession {
            record: record.clone(),
            subscriptions: owned.cloned().collect(),
            incoming: self.incoming.get(&id).into_iter().flatten().copied().collect(),
            queue: self.load_queue(queue.unwrap_or_else(|| QueueRecord::of_session(id))),
        }
    }

    fn load_queue(&self, record: QueueRecord) -> LoadedQueue {
        let places = self.queues.get(&record.id).into_iter().flatten();
        let messages = places.clone().filter_map(|(_, place)| match place {
            ImagePlace::Message(delivery) => Some(delivery.size_bytes() as u64),
            ImagePlace::Released => None,
        });
        let end = places.clone().last().map_or(0, |(place, _)| place + 1);
        LoadedQueue {
            record,
            start: Sequence(places.clone().next().map_or(end, |(place, _)| *place)),
            end: Sequence(end),
            message_count: messages.clone().count() as u64,
            message_bytes: messages.sum(),
        }
    }

    /// A page of a queue, see [`crate::durable::Store::read_queue`].
    #[must_use]
    pub(crate) fn read_queue(
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
                ImagePlace::Message(delivery) => {
                    bytes += delivery.size_bytes();
                    delivery.read()
                }
                ImagePlace::Released => StoredEntry::Released(Sequence(*place)),
            });
        }
        page
    }
}
