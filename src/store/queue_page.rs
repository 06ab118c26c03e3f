//! Reads a page of a queue.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};

use hashbrown::HashMap;
use parking_lot::Mutex;
use rocksdb::{DB, ReadOptions};

use crate::durable::entry::StoredEntry;
use crate::durable::message::{Message, Sequence, SessionId};
use crate::store::commit_group::handle;
use crate::store::error::StoreError;
use crate::store::family::Family;
use crate::store::key;
use crate::store::value::{self, EncodedEntry, EntryContent};

/// Pages of at least this many bytes are read ahead.
const READAHEAD_BYTES: usize = 64 * 1024;

/// Weak references kept before dead ones are removed.
const BODY_CACHE_ENTRIES: usize = 4096;

/// What to read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageRange {
    /// The Session of the queue.
    pub(crate) session: SessionId,
    /// First position.
    pub(crate) from: Sequence,
    /// One past the last position.
    pub(crate) to: Sequence,
    /// Entries at most.
    pub(crate) max_count: usize,
    /// The page ends with the entry whose [`QueueEntry::size_bytes`] brings the sum here.
    pub(crate) max_bytes: usize,
}

/// A page.
pub(crate) struct Page {
    /// Its entries, in order.
    pub(crate) entries: Vec<StoredEntry>,
    /// Entries left out because they could not be decoded.
    pub(crate) unreadable_values: u64,
}

/// Shared bodies that are already in memory, so that a large message to many Sessions is there only once.
#[derive(Default)]
pub(crate) struct BodyCache {
    messages: Mutex<HashMap<u64, Weak<Message>>>,
}

impl BodyCache {
    fn message(&self, db: &DB, number: u64) -> Result<Option<Arc<Message>>, StoreError> {
        if let Some(message) = self.messages.lock().get(&number).and_then(Weak::upgrade) {
            return Ok(Some(message));
        }
        let bodies = handle(db, Family::Bodies)?;
        let value = db.get_pinned_cf(bodies, number.to_be_bytes())?;
        let message = value.and_then(|value| value::decode_message(&value)).map(Arc::new);
        if let Some(message) = &message {
            let mut messages = self.messages.lock();
            if messages.len() >= BODY_CACHE_ENTRIES {
                messages.retain(|_, message| message.strong_count() > 0);
            }
            messages.insert(number, Arc::downgrade(message));
        }
        Ok(message)
    }
}

/// Reads a page: messages from the database, merged with the released positions.
///
/// # Errors
/// [`StoreError::Read`] when the database cannot be read.
pub(crate) fn read(
    db: &DB,
    range: &PageRange,
    released: BTreeSet<u64>,
    bodies: &BodyCache,
) -> Result<Page, StoreError> {
    let mut page = Page { entries: Vec::new(), unreadable_values: 0 };
    if range.from >= range.to {
        return Ok(page);
    }
    let mut released = released.into_iter().peekable();
    let mut bytes = 0;
    let mut options = ReadOptions::default();
    options.set_iterate_upper_bound(key::place(range.session, range.to));
    if range.max_bytes >= READAHEAD_BYTES {
        options.set_auto_readahead_size(true);
    }
    let mut entries = db.raw_iterator_cf_opt(handle(db, Family::Queue)?, options);
    entries.seek(key::place(range.session, range.from));
    while page.entries.len() < range.max_count && bytes < range.max_bytes {
        let Some((key, value)) = entries.item() else { break };
        let Some((_, sequence)) = key::split_place(key) else { break };
        while let Some(place) = released.next_if(|place| *place < sequence.0) {
            page.entries.push(StoredEntry::Released(Sequence(place)));
        }
        if released.peek() != Some(&sequence.0) {
            match decode(db, sequence, value, bodies)? {
                Some((entry, size)) => {
                    bytes += size;
                    page.entries.push(entry);
                }
                None => page.unreadable_values += 1,
            }
        }
        entries.next();
    }
    if !entries.valid() {
        entries.status()?;
        page.entries.extend(released.map(|place| StoredEntry::Released(Sequence(place))));
    }
    page.entries.truncate(range.max_count);
    Ok(page)
}

fn decode(
    db: &DB,
    sequence: Sequence,
    value: &[u8],
    bodies: &BodyCache,
) -> Result<Option<(StoredEntry, usize)>, StoreError> {
    let Some(entry) = EncodedEntry::decode(value) else { return Ok(None) };
    let message = match entry.content {
        EntryContent::Inline(message) => value::decode_message(message).map(Arc::new),
        EntryContent::Shared { number, .. } => bodies.message(db, number)?,
    };
    let Some(message) = message else { return Ok(None) };
    let entry = entry.into_entry(sequence, message);
    let size = entry.size_bytes();
    Ok(Some((StoredEntry::Message(Arc::new(entry)), size)))
}
