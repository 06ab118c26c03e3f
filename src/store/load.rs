//! Reads the data that must be in memory when the store is opened: the index of Sessions, without their queues, and
//! the Retained Messages.
//!
//! All families sort by Session id, so each is read once from front to back. The queues themselves are read only at
//! their start and above their last checkpoint: two seeks for each queue that is not empty, none for the others.

use std::sync::Arc;

use hashbrown::HashMap;
use rocksdb::{DB, DBRawIterator};

use crate::durable::message::{Message, Sequence, SessionId};
use crate::durable::record::{
    LoadedQueue, LoadedSession, QueueOwner, QueueRecord, SessionRecord, SubscriptionRecord,
};
use crate::packet::PacketId;
use crate::store::commit_group::handle;
use crate::store::error::StoreError;
use crate::store::family::Family;
use crate::store::index::{Indexes, QueueIndex};
use crate::store::options::scan_options;
use crate::store::value::{EncodedEntry, EntryContent};
use crate::store::{key, value};

/// Queues of at most this many messages are counted message by message, which is as cheap as a seek.
const RECOUNT_MESSAGES: u64 = 64;

/// The data read at opening.
pub(crate) struct LoadedIndex {
    /// Sessions, for the broker.
    pub(crate) sessions: Vec<LoadedSession>,
    /// Queues that belong to no Session, for the broker.
    pub(crate) queues: Vec<LoadedQueue>,
    /// Their queues, for the writer.
    pub(crate) indexes: Indexes,
    /// Values that could not be decoded, and were left unchanged.
    pub(crate) unreadable_values: u64,
    /// Messages that are in checkpoints but missing from the queues; known only if everything was counted.
    pub(crate) missing_messages: u64,
    /// Queues that hold messages but have no owner: its creation never became durable, or was lost.
    pub(crate) orphans: Vec<SessionId>,
    /// The next number for a shared body.
    pub(crate) next_body: u64,
}

/// Which queues are counted message by message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recount {
    /// Short queues, and the part after the last checkpoint of the others.
    Recent,
    /// All queues: messages were lost, so the checkpoints are not reliable.
    Everything,
}

/// Reads the index of Sessions.
///
/// # Errors
/// [`StoreError::Read`] when a family cannot be read.
pub(crate) fn load_index(db: &DB, recount: Recount) -> Result<LoadedIndex, StoreError> {
    let mut loader =
        Loader { db, recount, unreadable_values: 0, missing_messages: 0, orphans: Vec::new() };
    let sessions = loader.sessions()?;
    let mut queues: HashMap<SessionId, QueueIndex> =
        sessions.iter().map(|record| (record.id, QueueIndex::default())).collect();
    let mut records = loader.records(&mut queues)?;
    loader.queue_indexes(&mut queues)?;
    loader.released(&mut queues)?;
    loader.queues(&mut queues)?;
    let mut subscriptions = loader.subscriptions(&mut queues)?;
    let mut incoming = loader.incoming(&mut queues)?;
    let sessions = sessions.into_iter().map(|record| LoadedSession {
        subscriptions: subscriptions.remove(&record.id).unwrap_or_default(),
        incoming: incoming.remove(&record.id).unwrap_or_default(),
        queue: load_queue(
            records.remove(&record.id).unwrap_or_else(|| QueueRecord::of_session(record.id)),
            &queues,
        ),
        record,
    });
    let sessions = sessions.collect();
    let others = records.into_values().map(|record| load_queue(record, &queues)).collect();
    let mut indexes = Indexes::default();
    for (session, index) in queues {
        indexes.insert(session, index);
    }
    let next_body = loader.next_body()?;
    let Loader { unreadable_values, missing_messages, orphans, .. } = loader;
    Ok(LoadedIndex {
        sessions,
        queues: others,
        indexes,
        unreadable_values,
        missing_messages,
        orphans,
        next_body,
    })
}

fn load_queue(record: QueueRecord, queues: &HashMap<SessionId, QueueIndex>) -> LoadedQueue {
    let Some(index) = queues.get(&record.id) else { return LoadedQueue::empty(record) };
    LoadedQueue {
        record,
        start: Sequence(index.start),
        end: Sequence(index.end),
        message_count: index.message_count,
        message_bytes: index.message_bytes,
    }
}

/// Reads the Retained Messages, and counts the values that could not be decoded.
///
/// # Errors
/// [`StoreError::Read`] when the family cannot be read.
pub(crate) fn load_retained(db: &DB) -> Result<(Vec<Arc<Message>>, u64), StoreError> {
    let mut messages = Vec::new();
    let mut unreadable = 0;
    let mut values = scan(db, Family::Retained)?;
    while let Some((key, value)) = values.item() {
        match value::decode_message(value) {
            Some(message) => messages.push(Arc::new(message)),
            None if key.is_empty() => {}
            None => unreadable += 1,
        }
        values.next();
    }
    values.status()?;
    Ok((messages, unreadable))
}

/// An iterator at the first key of a family.
///
/// # Errors
/// [`StoreError::Read`] when the family is missing.
pub(crate) fn scan(db: &DB, family: Family) -> Result<DBRawIterator<'_>, StoreError> {
    let mut iterator = db.raw_iterator_cf_opt(handle(db, family)?, scan_options());
    iterator.seek_to_first();
    Ok(iterator)
}

struct Loader<'a> {
    db: &'a DB,
    recount: Recount,
    unreadable_values: u64,
    missing_messages: u64,
    orphans: Vec<SessionId>,
}

impl Loader<'_> {
    /// Calls `read` for each key and value; `read` returns `None` if it cannot decode them.
    fn each(
        &mut self,
        family: Family,
        mut read: impl FnMut(&[u8], &[u8]) -> Option<()>,
    ) -> Result<(), StoreError> {
        let mut values = scan(self.db, family)?;
        while let Some((key, value)) = values.item() {
            // The empty key marks the family for `repair`.
            if !key.is_empty() && read(key, value).is_none() {
                self.unreadable_values += 1;
            }
            values.next();
        }
        Ok(values.status()?)
    }

    fn sessions(&mut self) -> Result<Vec<SessionRecord>, StoreError> {
        let mut sessions = Vec::new();
        self.each(Family::Sessions, |key, value| {
            let (id, _) = key::split(key)?;
            sessions.push(value::decode_session(id, value)?);
            Some(())
        })?;
        Ok(sessions)
    }

    /// The records of queues; those without a Session are left out.
    fn records(
        &mut self,
        queues: &mut HashMap<SessionId, QueueIndex>,
    ) -> Result<HashMap<SessionId, QueueRecord>, StoreError> {
        let mut records = HashMap::new();
        let mut orphans = Vec::new();
        self.each(Family::Queues, |key, value| {
            let (id, _) = key::split(key)?;
            let record = value::decode_queue(id, value)?;
            if record.owner == QueueOwner::Session && !queues.contains_key(&id) {
                orphans.push(id);
            } else {
                queues.entry(id).or_default();
                records.insert(id, record);
            }
            Some(())
        })?;
        self.orphans.append(&mut orphans);
        Ok(records)
    }

    fn queue_indexes(
        &mut self,
        queues: &mut HashMap<SessionId, QueueIndex>,
    ) -> Result<(), StoreError> {
        self.each(Family::QueueIndex, |key, value| {
            let (id, _) = key::split(key)?;
            let index = QueueIndex::decode(value)?;
            if let Some(queue) = queues.get_mut(&id) {
                *queue = index;
            }
            Some(())
        })
    }

    fn released(&mut self, queues: &mut HashMap<SessionId, QueueIndex>) -> Result<(), StoreError> {
        self.each(Family::Released, |key, _| {
            let (id, sequence) = key::split_place(key)?;
            if let Some(queue) = queues.get_mut(&id) {
                queue.released.get_or_insert_default().insert(sequence.0);
            }
            Some(())
        })
    }

    fn subscriptions(
        &mut self,
        queues: &mut HashMap<SessionId, QueueIndex>,
    ) -> Result<HashMap<SessionId, Vec<SubscriptionRecord>>, StoreError> {
        let mut found: HashMap<SessionId, Vec<SubscriptionRecord>> = HashMap::new();
        self.each(Family::Subscriptions, |key, value| {
            let (id, filter) = key::split(key)?;
            let record = value::decode_subscription(id, filter, value)?;
            if let Some(queue) = queues.get_mut(&id) {
                queue.has_subscriptions = true;
                found.entry(id).or_default().push(record);
            }
            Some(())
        })?;
        Ok(found)
    }

    fn incoming(
        &mut self,
        queues: &mut HashMap<SessionId, QueueIndex>,
    ) -> Result<HashMap<SessionId, Vec<PacketId>>, StoreError> {
        let mut found: HashMap<SessionId, Vec<PacketId>> = HashMap::new();
        self.each(Family::Incoming, |key, _| {
            let (id, packet_id) = key::split(key)?;
            let packet_id = value::decode_packet_id(packet_id)?;
            if let Some(queue) = queues.get_mut(&id) {
                queue.has_incoming = true;
                found.entry(id).or_default().push(packet_id);
            }
            Some(())
        })?;
        Ok(found)
    }

    /// Completes each index from its queue: the first message, and everything after the checkpoint.
    fn queues(&mut self, queues: &mut HashMap<SessionId, QueueIndex>) -> Result<(), StoreError> {
        let mut found: HashMap<SessionId, Found> = HashMap::new();
        let recount = self.recount;
        let mut entries = scan(self.db, Family::Queue)?;
        while let Some((key, value)) = entries.item() {
            let Some((id, sequence)) = key::split_place(key) else {
                entries.next();
                continue;
            };
            let Some(index) = queues.get(&id) else {
                if self.orphans.last() != Some(&id) {
                    self.orphans.push(id);
                }
                let Some(after) = key::after_session(id) else { break };
                entries.seek(after);
                continue;
            };
            if sequence.0 < index.start {
                entries.seek(key::place(id, Sequence(index.start)));
                continue;
            }
            let found =
                found.entry(id).or_insert_with(|| Found::starting(sequence, index, recount));
            if sequence.0 < found.count_from {
                entries.seek(key::place(id, Sequence(found.count_from)));
                continue;
            }
            match EncodedEntry::decode(value) {
                Some(entry) => found.count(sequence, &entry),
                None => self.unreadable_values += 1,
            }
            entries.next();
        }
        entries.status()?;
        for (id, index) in queues {
            let found = found.remove(id).unwrap_or_default();
            if recount == Recount::Everything {
                let missing = index.message_count.saturating_sub(found.below_checkpoint);
                self.missing_messages += missing;
            }
            found.complete(index);
        }
        Ok(())
    }

    fn next_body(&mut self) -> Result<u64, StoreError> {
        let mut bodies = self.db.raw_iterator_cf(handle(self.db, Family::Bodies)?);
        bodies.seek_to_last();
        let last = bodies.key().and_then(key::body);
        bodies.status()?;
        Ok(last.map_or(0, |last| last + 1))
    }
}

/// What was found in one queue.
#[derive(Default)]
struct Found {
    first: Option<u64>,
    /// Messages are counted from here on; below, the index is trusted.
    count_from: u64,
    message_count: u64,
    message_bytes: u64,
    /// Counted below the end of the checkpoint.
    below_checkpoint: u64,
    checkpoint_end: u64,
    end: u64,
    shared: crate::store::index::Span,
}

impl Found {
    fn starting(first: Sequence, index: &QueueIndex, recount: Recount) -> Self {
        let recount = recount == Recount::Everything
            || index.message_count <= RECOUNT_MESSAGES
            || first.0 >= index.saved_end;
        let believed = if recount { None } else { Some(index) };
        Self {
            first: Some(first.0),
            count_from: believed.map_or(first.0, |index| index.saved_end),
            message_count: believed.map_or(0, |index| index.message_count),
            message_bytes: believed.map_or(0, |index| index.message_bytes),
            below_checkpoint: 0,
            checkpoint_end: index.saved_end,
            end: index.end,
            shared: believed.map(|index| index.shared).unwrap_or_default(),
        }
    }

    fn count(&mut self, sequence: Sequence, entry: &EncodedEntry<'_>) {
        self.message_count += 1;
        self.message_bytes += entry.size_bytes();
        self.below_checkpoint += u64::from(sequence.0 < self.checkpoint_end);
        self.end = self.end.max(sequence.0.saturating_add(1));
        if let EntryContent::Shared { .. } = entry.content {
            self.shared.include(sequence.0);
        }
    }

    fn complete(self, index: &mut QueueIndex) {
        let last_released = index.released.as_ref().and_then(|places| places.last().copied());
        let end = last_released.map_or(0, |place| place.saturating_add(1));
        index.end = index.end.max(self.end).max(end);
        index.message_count = self.message_count;
        index.message_bytes = self.message_bytes;
        index.shared = self.shared;
        let first = self.first.into_iter().chain(index.first_released()).min();
        index.start = first.unwrap_or(index.end);
    }
}
