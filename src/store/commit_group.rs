//! Builds a group: the changes of many batches as operations for one atomic write.
//!
//! Only the writer thread builds groups, so counting references to shared bodies needs no merge operator: the counts
//! of the group override those of the database until it is written.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use rocksdb::{ColumnFamily, DB};

use crate::durable::change::{Change, QueueChange, RetainedChange, SessionChange};
use crate::durable::entry::QueueEntry;
use crate::durable::message::{Message, Sequence, SessionId};
use crate::store::error::StoreError;
use crate::store::family::Family;
use crate::store::index::{Indexes, QueueIndex, Search, Span};
use crate::store::key;
use crate::store::operations::Operations;
use crate::store::value::{self, Body, EncodedEntry, EntryContent};

/// Messages of at least this size are stored once when several queues of a group hold them. For smaller ones, a
/// reference and its count cost about as much as the copy.
pub(crate) const SHARED_BODY_BYTES: usize = 1024;

/// If the copies of a small message would take this many bytes, it gets a shared body, too: one message to thousands
/// of queues must not take thousands of times its size.
const COPIES_BYTES: usize = 256 * 1024;

/// If a batch enqueues fewer messages than this, no small message in it can have [`COPIES_BYTES`] of copies.
pub(crate) const MANY_RECIPIENTS: usize = COPIES_BYTES / SHARED_BODY_BYTES;

/// The handle of a family in an open database.
///
/// # Errors
/// [`StoreError::Read`] when the database lacks the family, which cannot happen after opening.
pub(crate) fn handle(db: &DB, family: Family) -> Result<&ColumnFamily, StoreError> {
    db.cf_handle(family.name())
        .ok_or_else(|| StoreError::Read(format!("column family {} is missing", family.name())))
}

/// Whether the changes may have been written before, by a write that failed or seemed to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// They are new.
    First,
    /// They may have been written: an entry must not be put twice, because it is removed by a single deletion.
    Again,
}

/// A group being built.
pub(crate) struct CommitGroup<'a> {
    db: &'a DB,
    queue: &'a ColumnFamily,
    body_references: &'a ColumnFamily,
    indexes: &'a mut Indexes,
    mode: Mode,
    next_body: &'a mut u64,
    operations: Operations,
    key: Vec<u8>,
    value: Vec<u8>,
    /// By address: how many queues of this group get a message that may be shared, and its body, once it has one.
    shareable: HashMap<usize, Shareable>,
    /// Entries of this group that refer to bodies.
    added: HashMap<(SessionId, Sequence), u64>,
    /// Entries whose reference this group released.
    given_up: HashSet<(SessionId, Sequence)>,
    /// Reference counts after this group.
    references: HashMap<u64, u64>,
    searches: Vec<SessionId>,
    removals: u64,
}

#[derive(Default)]
struct Shareable {
    recipients: u32,
    body: Option<u64>,
}

/// A built group.
pub(crate) struct BuiltGroup {
    /// What to write.
    pub(crate) operations: Operations,
    /// Queues whose first message must be searched for once this is written.
    pub(crate) searches: Vec<SessionId>,
    /// Entries removed.
    pub(crate) removals: u64,
}

impl<'a> CommitGroup<'a> {
    /// Creates an empty group; `capacity_bytes` is its approximate size.
    ///
    /// # Errors
    /// [`StoreError`] when the database lacks a family.
    pub(crate) fn new(
        db: &'a DB,
        indexes: &'a mut Indexes,
        next_body: &'a mut u64,
        mode: Mode,
        capacity_bytes: usize,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            db,
            queue: handle(db, Family::Queue)?,
            body_references: handle(db, Family::BodyReferences)?,
            indexes,
            mode,
            next_body,
            operations: Operations::with_capacity(capacity_bytes),
            key: Vec::with_capacity(256),
            value: Vec::with_capacity(1024),
            shareable: HashMap::new(),
            added: HashMap::new(),
            given_up: HashSet::new(),
            references: HashMap::new(),
            searches: Vec::new(),
            removals: 0,
        })
    }

    /// Operations so far.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.operations.len()
    }

    /// Counts the recipients of a message that may be shared, before the changes are applied.
    pub(crate) fn note_shareable(&mut self, message: &Arc<Message>) {
        self.shareable.entry(Arc::as_ptr(message).addr()).or_default().recipients += 1;
    }

    /// Adds a change.
    ///
    /// # Errors
    /// [`StoreError`] when data that the change depends on cannot be read.
    pub(crate) fn apply(&mut self, change: &Change) -> Result<(), StoreError> {
        match change {
            Change::Queue(change) => self.apply_to_queue(change),
            Change::Session(change) => self.apply_to_session(change),
            Change::Retained(RetainedChange::Put(message)) => {
                self.value.clear();
                value::encode_message(message, &mut self.value);
                self.operations.put(Family::Retained, message.topic(), &self.value);
                Ok(())
            }
            Change::Retained(RetainedChange::Delete(topic)) => {
                self.operations.delete(Family::Retained, topic.as_bytes());
                Ok(())
            }
        }
    }

    fn apply_to_queue(&mut self, change: &QueueChange) -> Result<(), StoreError> {
        match change {
            QueueChange::Enqueue { queue, entry } => self.enqueue(*queue, entry),
            QueueChange::Dequeue { queue, sequence } => self.dequeue(*queue, *sequence),
            QueueChange::Release { queue, sequence } => self.release(*queue, *sequence),
            QueueChange::Delete(queue) => self.delete_queue(*queue),
            QueueChange::Put(record) => {
                if self.indexes.open_queue(record.id).is_some() {
                    value::encode_queue(record, &mut self.value);
                    self.operations.put(Family::Queues, key::session(record.id), &self.value);
                }
                Ok(())
            }
        }
    }

    fn apply_to_session(&mut self, change: &SessionChange) -> Result<(), StoreError> {
        match change {
            SessionChange::Put(record) => {
                value::encode_session(record, &mut self.value);
                self.operations.put(Family::Sessions, key::session(record.id), &self.value);
            }
            SessionChange::Delete(session) => {
                self.operations.delete(Family::Sessions, key::session(*session));
                return self.delete_queue(*session);
            }
            SessionChange::PutSubscription(record) => {
                let Some(index) = self.indexes.open_queue(record.session) else { return Ok(()) };
                index.has_subscriptions = true;
                key::subscription(record.session, &record.filter, &mut self.key);
                value::encode_subscription(record, &mut self.value);
                self.operations.put(Family::Subscriptions, &self.key, &self.value);
            }
            SessionChange::DeleteSubscription { session, filter } => {
                key::subscription(*session, filter, &mut self.key);
                self.operations.delete(Family::Subscriptions, &self.key);
            }
            SessionChange::PutIncoming { session, packet_id } => {
                let Some(index) = self.indexes.open_queue(*session) else { return Ok(()) };
                index.has_incoming = true;
                let key = key::incoming(*session, *packet_id);
                self.operations.put(Family::Incoming, key, value::PRESENT);
            }
            SessionChange::DeleteIncoming { session, packet_id } => {
                let key = key::incoming(*session, *packet_id);
                self.operations.delete(Family::Incoming, key);
            }
        }
        Ok(())
    }

    fn enqueue(&mut self, session: SessionId, entry: &QueueEntry) -> Result<(), StoreError> {
        if !entry.begin_write() {
            return Ok(());
        }
        let key = key::place(session, entry.sequence);
        if self.mode == Mode::Again && self.is_stored(session, entry.sequence)? {
            return Ok(());
        }
        let size_bytes = entry.size_bytes();
        if !self.indexes.add(session, entry.sequence, size_bytes as u64) {
            return Ok(());
        }
        let body = self.body_of(&entry.message);
        if let Body::Shared(number) = body {
            self.added.insert((session, entry.sequence), number);
            if let Some(index) = self.indexes.queue_mut(session) {
                index.shared.include(entry.sequence.0);
            }
        }
        value::encode_entry(entry, body, &mut self.value);
        self.operations.put(Family::Queue, key, &self.value);
        Ok(())
    }

    fn is_stored(&self, session: SessionId, sequence: Sequence) -> Result<bool, StoreError> {
        let key = key::place(session, sequence);
        let stored = self.db.get_pinned_cf(self.queue, key)?;
        let index = self.indexes.queue(session);
        let released = index.and_then(|index| index.released.as_ref());
        Ok(stored.is_some() || released.is_some_and(|places| places.contains(&sequence.0)))
    }

    /// Gives a message with several recipients a shared body, if copies would cost more.
    fn body_of(&mut self, message: &Arc<Message>) -> Body {
        let Some(shareable) = self.shareable.get_mut(&Arc::as_ptr(message).addr()) else {
            return Body::Inline;
        };
        let (recipients, size) = (shareable.recipients as usize, message.size_bytes());
        let is_worth_it =
            size >= SHARED_BODY_BYTES || size.saturating_mul(recipients) >= COPIES_BYTES;
        if recipients < 2 || !is_worth_it {
            return Body::Inline;
        }
        let number = if let Some(number) = shareable.body {
            number
        } else {
            let number = *self.next_body;
            *self.next_body += 1;
            shareable.body = Some(number);
            self.value.clear();
            value::encode_message(message, &mut self.value);
            self.operations.put(Family::Bodies, number.to_be_bytes(), &self.value);
            number
        };
        *self.references.entry(number).or_default() += 1;
        Body::Shared(number)
    }

    fn dequeue(&mut self, session: SessionId, sequence: Sequence) -> Result<(), StoreError> {
        let Some(index) = self.indexes.queue_mut(session) else { return Ok(()) };
        let key = key::place(session, sequence);
        let released = index.released.as_mut().is_some_and(|places| places.remove(&sequence.0));
        if released {
            self.operations.delete(Family::Released, key);
        } else {
            index.remove_message();
            let shared = index.shared.contains(sequence.0);
            if shared {
                self.give_up_body(session, sequence)?;
            }
            self.operations.delete_once(Family::Queue, key);
        }
        self.removals += 1;
        self.indexes.touch(session, sequence);
        let Some(index) = self.indexes.queue_mut(session) else { return Ok(()) };
        if index.remove_place(sequence.0) == Search::Due {
            self.searches.push(session);
        }
        Ok(())
    }

    fn release(&mut self, session: SessionId, sequence: Sequence) -> Result<(), StoreError> {
        let Some(index) = self.indexes.queue_mut(session) else { return Ok(()) };
        let key = key::place(session, sequence);
        if !index.released.get_or_insert_default().insert(sequence.0) {
            return Ok(());
        }
        // The position stays in use until PUBCOMP, even if its message was never written.
        index.start = index.start.min(sequence.0);
        index.end = index.end.max(sequence.0.saturating_add(1));
        index.remove_message();
        if index.shared.contains(sequence.0) {
            self.give_up_body(session, sequence)?;
        }
        self.operations.delete_once(Family::Queue, key);
        self.operations.put(Family::Released, key, value::PRESENT);
        self.removals += 1;
        self.indexes.touch(session, sequence);
        Ok(())
    }

    /// Releases the body that an entry may refer to, when the entry is removed.
    fn give_up_body(&mut self, session: SessionId, sequence: Sequence) -> Result<(), StoreError> {
        if let Some(number) = self.added.remove(&(session, sequence)) {
            return self.give_up_reference(number);
        }
        let key = key::place(session, sequence);
        let Some(value) = self.db.get_pinned_cf(self.queue, key)? else {
            return Ok(());
        };
        let Some(entry) = EncodedEntry::decode(&value) else { return Ok(()) };
        if let EntryContent::Shared { number, .. } = entry.content
            && self.given_up.insert((session, sequence))
        {
            return self.give_up_reference(number);
        }
        Ok(())
    }

    fn give_up_reference(&mut self, number: u64) -> Result<(), StoreError> {
        let count = match self.references.get(&number) {
            Some(count) => *count,
            None => stored_references(self.db, self.body_references, number)?,
        };
        self.references.insert(number, count.saturating_sub(1));
        Ok(())
    }

    /// Removes a queue, and everything else stored under its id.
    fn delete_queue(&mut self, session: SessionId) -> Result<(), StoreError> {
        let key = key::session(session);
        let Some(index) = self.indexes.end_queue(session) else { return Ok(()) };
        self.operations.delete(Family::Queues, key);
        self.operations.delete(Family::QueueIndex, key);
        let after = key::after_session(session).map_or_else(|| vec![0xFF; 17], |key| key.to_vec());
        if index.has_subscriptions {
            self.operations.delete_range(Family::Subscriptions, &key[..], &after);
        }
        if index.has_incoming {
            self.operations.delete_range(Family::Incoming, &key[..], &after);
        }
        for place in index.released.iter().flat_map(|places| places.iter()) {
            let key = key::place(session, Sequence(*place));
            self.operations.delete(Family::Released, key);
        }
        if index.start < index.end {
            self.give_up_bodies(session, &index)?;
            let from = key::place(session, Sequence(index.start));
            self.operations.delete_range(Family::Queue, &from[..], &after);
            self.removals += index.message_count;
        }
        Ok(())
    }

    /// Releases the bodies that the entries of a Session refer to, when they are removed.
    fn give_up_bodies(&mut self, session: SessionId, index: &QueueIndex) -> Result<(), StoreError> {
        let Span { low, high } = index.shared;
        if index.shared.is_empty() {
            return Ok(());
        }
        let added: Vec<_> = self.added.iter().filter(|((id, _), _)| *id == session).collect();
        let numbers: Vec<u64> = added.iter().map(|(_, number)| **number).collect();
        let places: Vec<_> = added.iter().map(|(place, _)| **place).collect();
        for place in places {
            self.added.remove(&place);
        }
        for number in numbers {
            self.give_up_reference(number)?;
        }
        let mut entries = self.db.raw_iterator_cf(self.queue);
        entries.seek(key::place(session, Sequence(low)));
        while let Some((key, value)) = entries.item() {
            let Some((id, sequence)) = key::split_place(key) else { break };
            if id != session || sequence.0 > high {
                break;
            }
            let content = EncodedEntry::decode(value).map(|entry| entry.content);
            if let Some(EntryContent::Shared { number, .. }) = content
                && self.given_up.insert((session, sequence))
            {
                self.give_up_reference(number)?;
            }
            entries.next();
        }
        Ok(entries.status()?)
    }

    /// Adds the records of all queues whose record on disk is out of date.
    pub(crate) fn save_dirty(&mut self) {
        for session in self.indexes.take_dirty() {
            if let Some(record) = self.indexes.save_dirty(session) {
                self.operations.put(Family::QueueIndex, key::session(session), record);
            }
        }
    }

    /// Adds a value of [`Family::Meta`].
    pub(crate) fn put_meta(&mut self, name: &[u8], value: &[u8]) {
        self.operations.put(Family::Meta, name, value);
    }

    /// Finishes the group: adds the records that must be written with its changes.
    pub(crate) fn finish(mut self) -> BuiltGroup {
        for session in self.indexes.take_due() {
            if let Some(record) = self.indexes.save(session) {
                self.operations.put(Family::QueueIndex, key::session(session), record);
            }
        }
        for (number, count) in &self.references {
            let key = number.to_be_bytes();
            if *count == 0 {
                self.operations.delete(Family::Bodies, key);
                self.operations.delete(Family::BodyReferences, key);
            } else {
                let count = value::encode_numbers([*count]);
                self.operations.put(Family::BodyReferences, key, count);
            }
        }
        BuiltGroup { operations: self.operations, searches: self.searches, removals: self.removals }
    }
}

/// The reference count of a body in the database.
///
/// # Errors
/// [`StoreError::Read`] when they cannot be read.
fn stored_references(db: &DB, family: &ColumnFamily, number: u64) -> Result<u64, StoreError> {
    let value = db.get_pinned_cf(family, number.to_be_bytes())?;
    let count = value.and_then(|value| value::decode_numbers::<1>(&value));
    Ok(count.map_or(0, |[count]| count))
}
