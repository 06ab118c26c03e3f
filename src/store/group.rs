//! One group: the changes of many batches as one atomic write of RocksDB.
//!
//! Built by the writer thread only, so counting references to shared bodies needs no merge operator: the counts of the
//! group lie over those of the database until it is written.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use rocksdb::{ColumnFamily, DB, WriteBatch};

use crate::durable::StoreError;
use crate::durable::change::Change;
use crate::durable::entry::QueueEntry;
use crate::durable::message::{Message, Sequence, SessionId};
use crate::store::family::Family;
use crate::store::index::{Indexes, QueueIndex, Search, Span};
use crate::store::key;
use crate::store::value::{self, Body, EncodedEntry, EntryContent};

/// Messages of at least this size are stored once when several queues of a group hold them. Below, a reference and
/// its count cost about as much as the copy.
pub const SHARED_BODY_BYTES: usize = 1024;

/// Handles of the families that changes go to.
struct Families<'a> {
    sessions: &'a ColumnFamily,
    subscriptions: &'a ColumnFamily,
    queue: &'a ColumnFamily,
    queue_index: &'a ColumnFamily,
    released: &'a ColumnFamily,
    incoming: &'a ColumnFamily,
    bodies: &'a ColumnFamily,
    body_references: &'a ColumnFamily,
    retained: &'a ColumnFamily,
}

impl<'a> Families<'a> {
    fn of(db: &'a DB) -> Result<Self, StoreError> {
        Ok(Self {
            sessions: handle(db, Family::Sessions)?,
            subscriptions: handle(db, Family::Subscriptions)?,
            queue: handle(db, Family::Queue)?,
            queue_index: handle(db, Family::QueueIndex)?,
            released: handle(db, Family::Released)?,
            incoming: handle(db, Family::Incoming)?,
            bodies: handle(db, Family::Bodies)?,
            body_references: handle(db, Family::BodyReferences)?,
            retained: handle(db, Family::Retained)?,
        })
    }
}

/// The handle of a family in an open database.
///
/// # Errors
/// [`StoreError::Read`] when the database lacks the family, which opening rules out.
pub fn handle(db: &DB, family: Family) -> Result<&ColumnFamily, StoreError> {
    db.cf_handle(family.name())
        .ok_or_else(|| StoreError::Read(format!("column family {} is missing", family.name())))
}

/// Whether the changes may have been written before, by a write that failed or seemed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// They are new.
    First,
    /// They may be there: an entry must not be put twice, since it is removed by a single deletion.
    Again,
}

/// A group being built.
pub struct Group<'a> {
    db: &'a DB,
    families: Families<'a>,
    indexes: &'a mut Indexes,
    mode: Mode,
    next_body: &'a mut u64,
    batch: WriteBatch,
    key: Vec<u8>,
    value: Vec<u8>,
    /// By address: how many queues of this group get a large message, and its body once it has one.
    large: HashMap<usize, Large>,
    /// Entries of this group that refer to bodies.
    added: HashMap<(SessionId, Sequence), u64>,
    /// Entries whose reference this group gave up.
    given_up: HashSet<(SessionId, Sequence)>,
    /// Counts of references as they will be after this group.
    references: HashMap<u64, u64>,
    searches: Vec<SessionId>,
    removals: u64,
}

#[derive(Default)]
struct Large {
    recipients: u32,
    body: Option<u64>,
}

/// A built group.
pub struct BuiltGroup {
    /// What to write.
    pub batch: WriteBatch,
    /// Queues whose first message must be looked for once this is written.
    pub searches: Vec<SessionId>,
    /// Entries removed.
    pub removals: u64,
}

impl<'a> Group<'a> {
    /// An empty group; `capacity_bytes` is what it will take, about.
    ///
    /// # Errors
    /// [`StoreError`] when the database lacks a family.
    pub fn new(
        db: &'a DB,
        indexes: &'a mut Indexes,
        next_body: &'a mut u64,
        mode: Mode,
        capacity_bytes: usize,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            db,
            families: Families::of(db)?,
            indexes,
            mode,
            next_body,
            batch: WriteBatch::with_capacity_bytes(capacity_bytes),
            key: Vec::with_capacity(256),
            value: Vec::with_capacity(1024),
            large: HashMap::new(),
            added: HashMap::new(),
            given_up: HashSet::new(),
            references: HashMap::new(),
            searches: Vec::new(),
            removals: 0,
        })
    }

    /// Operations so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.batch.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// Counts the recipients of a large message before the changes are applied.
    pub fn note_large(&mut self, message: &Arc<Message>) {
        self.large.entry(Arc::as_ptr(message).addr()).or_default().recipients += 1;
    }

    /// Adds a change.
    ///
    /// # Errors
    /// [`StoreError`] when something that the change depends on cannot be read.
    pub fn apply(&mut self, change: &Change) -> Result<(), StoreError> {
        match change {
            Change::Enqueue { session, entry } => return self.enqueue(*session, entry),
            Change::Dequeue { session, sequence } => return self.dequeue(*session, *sequence),
            Change::Release { session, sequence } => return self.release(*session, *sequence),
            Change::DeleteSession(session) => return self.delete_session(*session),
            Change::PutSession(record) => {
                self.indexes.open_queue(record.id);
                value::encode_session(record, &mut self.value);
                self.batch.put_cf(self.families.sessions, key::session(record.id), &self.value);
            }
            Change::PutSubscription(record) => {
                let Some(index) = self.indexes.open_queue(record.session) else { return Ok(()) };
                index.has_subscriptions = true;
                key::subscription(record.session, &record.filter, &mut self.key);
                value::encode_subscription(record, &mut self.value);
                self.batch.put_cf(self.families.subscriptions, &self.key, &self.value);
            }
            Change::DeleteSubscription { session, filter } => {
                key::subscription(*session, filter, &mut self.key);
                self.batch.delete_cf(self.families.subscriptions, &self.key);
            }
            Change::PutIncoming { session, packet_id } => {
                let Some(index) = self.indexes.open_queue(*session) else { return Ok(()) };
                index.has_incoming = true;
                let key = key::incoming(*session, *packet_id);
                self.batch.put_cf(self.families.incoming, key, value::PRESENT);
            }
            Change::DeleteIncoming { session, packet_id } => {
                let key = key::incoming(*session, *packet_id);
                self.batch.delete_cf(self.families.incoming, key);
            }
            Change::PutRetained(message) => {
                self.value.clear();
                value::encode_message(message, &mut self.value);
                self.batch.put_cf(self.families.retained, message.topic(), &self.value);
            }
            Change::DeleteRetained(topic) => {
                self.batch.delete_cf(self.families.retained, topic.as_bytes());
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
        let size_bytes = entry.message.size_bytes();
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
        self.batch.put_cf(self.families.queue, key, &self.value);
        Ok(())
    }

    fn is_stored(&self, session: SessionId, sequence: Sequence) -> Result<bool, StoreError> {
        let key = key::place(session, sequence);
        let stored = self.db.get_pinned_cf(self.families.queue, key).map_err(read_error)?;
        let index = self.indexes.queue(session);
        let released = index.and_then(|index| index.released.as_ref());
        Ok(stored.is_some() || released.is_some_and(|places| places.contains(&sequence.0)))
    }

    /// Gives a large message with several recipients its body.
    fn body_of(&mut self, message: &Arc<Message>) -> Body {
        if message.size_bytes() < SHARED_BODY_BYTES {
            return Body::Inline;
        }
        let Some(large) = self.large.get_mut(&Arc::as_ptr(message).addr()) else {
            return Body::Inline;
        };
        if large.recipients < 2 {
            return Body::Inline;
        }
        let number = if let Some(number) = large.body {
            number
        } else {
            let number = *self.next_body;
            *self.next_body += 1;
            large.body = Some(number);
            self.value.clear();
            value::encode_message(message, &mut self.value);
            self.batch.put_cf(self.families.bodies, number.to_be_bytes(), &self.value);
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
            self.batch.delete_cf(self.families.released, key);
        } else {
            index.remove_message();
            let shared = index.shared.contains(sequence.0);
            if shared {
                self.give_up_body(session, sequence)?;
            }
            self.batch.single_delete_cf(self.families.queue, key);
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
        // The place stays in use until PUBCOMP, also when its message was never written.
        index.start = index.start.min(sequence.0);
        index.end = index.end.max(sequence.0.saturating_add(1));
        index.remove_message();
        if index.shared.contains(sequence.0) {
            self.give_up_body(session, sequence)?;
        }
        self.batch.single_delete_cf(self.families.queue, key);
        self.batch.put_cf(self.families.released, key, value::PRESENT);
        self.removals += 1;
        self.indexes.touch(session, sequence);
        Ok(())
    }

    /// An entry that may refer to a body goes.
    fn give_up_body(&mut self, session: SessionId, sequence: Sequence) -> Result<(), StoreError> {
        if let Some(number) = self.added.remove(&(session, sequence)) {
            return self.give_up_reference(number);
        }
        let key = key::place(session, sequence);
        let Some(value) = self.db.get_pinned_cf(self.families.queue, key).map_err(read_error)?
        else {
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
            None => stored_references(self.db, self.families.body_references, number)?,
        };
        self.references.insert(number, count.saturating_sub(1));
        Ok(())
    }

    fn delete_session(&mut self, session: SessionId) -> Result<(), StoreError> {
        let key = key::session(session);
        self.batch.delete_cf(self.families.sessions, key);
        let Some(index) = self.indexes.end_queue(session) else { return Ok(()) };
        self.batch.delete_cf(self.families.queue_index, key);
        let after = key::after_session(session).map_or_else(|| vec![0xFF; 17], |key| key.to_vec());
        if index.has_subscriptions {
            self.batch.delete_range_cf(self.families.subscriptions, &key[..], &after);
        }
        if index.has_incoming {
            self.batch.delete_range_cf(self.families.incoming, &key[..], &after);
        }
        for place in index.released.iter().flat_map(|places| places.iter()) {
            let key = key::place(session, Sequence(*place));
            self.batch.delete_cf(self.families.released, key);
        }
        if index.start < index.end {
            self.give_up_bodies(session, &index)?;
            let from = key::place(session, Sequence(index.start));
            self.batch.delete_range_cf(self.families.queue, &from[..], &after);
            self.removals += index.message_count;
        }
        Ok(())
    }

    /// All entries of a Session that refer to bodies go.
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
        let mut entries = self.db.raw_iterator_cf(self.families.queue);
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
        entries.status().map_err(read_error)
    }

    /// Adds the records of all queues whose record on disk is behind.
    pub fn save_dirty(&mut self) {
        for session in self.indexes.take_dirty() {
            if let Some(record) = self.indexes.save_dirty(session) {
                self.batch.put_cf(self.families.queue_index, key::session(session), record);
            }
        }
    }

    /// Adds a value of [`Family::Meta`].
    pub fn put_meta(&mut self, name: &[u8], value: &[u8]) {
        self.batch.put(name, value);
    }

    /// Ends the group: the records that must go with its changes.
    pub fn finish(mut self) -> BuiltGroup {
        for session in self.indexes.take_due() {
            if let Some(record) = self.indexes.save(session) {
                self.batch.put_cf(self.families.queue_index, key::session(session), record);
            }
        }
        for (number, count) in &self.references {
            let key = number.to_be_bytes();
            if *count == 0 {
                self.batch.delete_cf(self.families.bodies, key);
                self.batch.delete_cf(self.families.body_references, key);
            } else {
                let count = value::encode_numbers([*count]);
                self.batch.put_cf(self.families.body_references, key, count);
            }
        }
        BuiltGroup { batch: self.batch, searches: self.searches, removals: self.removals }
    }
}

/// References to a body as the database has them.
///
/// # Errors
/// [`StoreError::Read`] when they cannot be read.
fn stored_references(db: &DB, family: &ColumnFamily, number: u64) -> Result<u64, StoreError> {
    let value = db.get_pinned_cf(family, number.to_be_bytes()).map_err(read_error)?;
    let count = value.and_then(|value| value::decode_numbers::<1>(&value));
    Ok(count.map_or(0, |[count]| count))
}

/// Says what RocksDB said.
pub fn read_error(error: rocksdb::Error) -> StoreError {
    StoreError::Read(error.into_string())
}
