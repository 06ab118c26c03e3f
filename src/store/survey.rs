//! Reads and checks every value of a database, for `petrel store check` and `repair`.

use hashbrown::{HashMap, HashSet};
use rocksdb::{DB, WriteBatch};

use crate::durable::message::SessionId;
use crate::durable::record::QueueOwner;
use crate::store::commit_group::handle;
use crate::store::error::StoreError;
use crate::store::family::Family;
use crate::store::index::QueueIndex;
use crate::store::key;
use crate::store::load::scan;
use crate::store::options::{WriteSync, write_options};
use crate::store::value::{self, EncodedEntry, EntryContent};

/// Values between two reports of progress.
const PROGRESS_VALUES: u64 = 10_000;

/// The contents of a database, and its faults.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Survey {
    /// Values of each family, in the order of [`Family::ALL`].
    pub(crate) values: [u64; Family::ALL.len()],
    /// Messages in queues.
    pub(crate) messages: u64,
    /// Their bytes.
    pub(crate) message_bytes: u64,
    /// Values that cannot be decoded.
    pub(crate) unreadable: u64,
    /// Values of Sessions that do not exist.
    pub(crate) orphans: u64,
    /// Queue entries before the start of their queue: removed earlier, restored by a repair.
    pub(crate) stale: u64,
    /// Queue entries whose shared body is missing.
    pub(crate) missing_bodies: u64,
    /// Bodies without references, or with a wrong reference count.
    pub(crate) wrong_references: u64,
}

impl Survey {
    /// Whether anything is wrong.
    #[must_use]
    pub(crate) fn has_faults(&self) -> bool {
        let faults =
            [self.unreadable, self.orphans, self.stale, self.missing_bodies, self.wrong_references];
        faults.iter().any(|count| *count > 0)
    }
}

/// How to handle faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Faults {
    /// Count them.
    Count,
    /// Count them, and remove or correct them.
    Mend,
}

/// Reads everything. `progress` receives the number of values read so far.
///
/// # Errors
/// [`StoreError::Read`] when a block cannot be read; its message names the file.
pub(crate) fn survey(
    db: &DB,
    faults: Faults,
    progress: &dyn Fn(u64),
) -> Result<Survey, StoreError> {
    let mut surveyor = Surveyor {
        db,
        faults,
        progress,
        read: 0,
        survey: Survey::default(),
        owners: HashSet::new(),
        starts: HashMap::new(),
        bodies: HashMap::new(),
        references: HashMap::new(),
        mending: WriteBatch::default(),
    };
    // Owners first, because the other families are checked against them.
    surveyor.family(Family::Sessions)?;
    surveyor.family(Family::Queues)?;
    for family in Family::ALL {
        if family != Family::Sessions && family != Family::Queues {
            surveyor.family(family)?;
        }
    }
    surveyor.bodies()?;
    surveyor.mend()?;
    Ok(surveyor.survey)
}

struct Surveyor<'a> {
    db: &'a DB,
    faults: Faults,
    progress: &'a dyn Fn(u64),
    read: u64,
    survey: Survey,
    owners: HashSet<SessionId>,
    starts: HashMap<SessionId, u64>,
    /// Bodies that queue entries refer to, and how often.
    bodies: HashMap<u64, u64>,
    /// Reference counts as stored.
    references: HashMap<u64, u64>,
    mending: WriteBatch,
}

/// What is wrong with a value.
enum Fault {
    Unreadable,
    Orphan,
    Stale,
}

impl Surveyor<'_> {
    fn family(&mut self, family: Family) -> Result<(), StoreError> {
        let position = Family::ALL.iter().position(|other| *other == family).unwrap_or_default();
        if family == Family::Queue {
            self.read_starts()?;
        }
        let mut values = scan(self.db, family)?;
        while let Some((key, value)) = values.item() {
            self.read += 1;
            if self.read.is_multiple_of(PROGRESS_VALUES) {
                (self.progress)(self.read);
            }
            if !key.is_empty() {
                if let Some(count) = self.survey.values.get_mut(position) {
                    *count += 1;
                }
                if let Some(fault) = self.judge(family, key, value) {
                    self.note(family, key, &fault)?;
                }
            }
            values.next();
        }
        Ok(values.status()?)
    }

    fn read_starts(&mut self) -> Result<(), StoreError> {
        let mut values = scan(self.db, Family::QueueIndex)?;
        while let Some((key, value)) = values.item() {
            if let (Some((id, _)), Some(index)) = (key::split(key), QueueIndex::decode(value)) {
                self.starts.insert(id, index.start);
            }
            values.next();
        }
        Ok(values.status()?)
    }

    fn note(&mut self, family: Family, key: &[u8], fault: &Fault) -> Result<(), StoreError> {
        match fault {
            Fault::Unreadable => self.survey.unreadable += 1,
            Fault::Orphan => self.survey.orphans += 1,
            Fault::Stale => self.survey.stale += 1,
        }
        if self.faults == Faults::Mend {
            let handle = handle(self.db, family)?;
            if family == Family::Queue {
                self.mending.single_delete_cf(handle, key);
            } else {
                self.mending.delete_cf(handle, key);
            }
        }
        Ok(())
    }

    fn judge(&mut self, family: Family, key: &[u8], value: &[u8]) -> Option<Fault> {
        let owner = key::split(key).map(|(id, _)| id);
        let orphan = match owner {
            Some(owner) if family.belongs_to_session() => !self.owners.contains(&owner),
            _ => false,
        };
        let understood = match family {
            Family::Sessions => {
                let id = owner?;
                if value::decode_session(id, value).is_none() {
                    return Some(Fault::Unreadable);
                }
                self.owners.insert(id);
                return None;
            }
            Family::Queues => {
                let id = owner?;
                let Some(record) = value::decode_queue(id, value) else {
                    return Some(Fault::Unreadable);
                };
                if record.owner == QueueOwner::Session {
                    return orphan.then_some(Fault::Orphan);
                }
                self.owners.insert(id);
                return None;
            }
            Family::Queue if orphan && key::split_place(key).is_some() => true,
            Family::Queue => return self.judge_entry(key, value),
            Family::Subscriptions => key::split(key)
                .and_then(|(id, filter)| value::decode_subscription(id, filter, value))
                .is_some(),
            Family::QueueIndex => QueueIndex::decode(value).is_some(),
            Family::Released => key::split_place(key).is_some(),
            Family::Incoming => {
                key::split(key).and_then(|(_, id)| value::decode_packet_id(id)).is_some()
            }
            Family::Bodies | Family::Retained => value::decode_message(value).is_some(),
            Family::BodyReferences => match (key::body(key), value::decode_numbers::<1>(value)) {
                (Some(number), Some([count])) => {
                    self.references.insert(number, count);
                    true
                }
                _ => false,
            },
            Family::Meta => true,
        };
        match (understood, orphan) {
            (false, _) => Some(Fault::Unreadable),
            (true, true) => Some(Fault::Orphan),
            (true, false) => None,
        }
    }

    fn judge_entry(&mut self, key: &[u8], value: &[u8]) -> Option<Fault> {
        let Some((id, sequence)) = key::split_place(key) else { return Some(Fault::Unreadable) };
        if self.starts.get(&id).is_some_and(|start| sequence.0 < *start) {
            return Some(Fault::Stale);
        }
        let Some(entry) = EncodedEntry::decode(value) else { return Some(Fault::Unreadable) };
        match entry.content {
            EntryContent::Inline(message) => {
                if value::decode_message(message).is_none() {
                    return Some(Fault::Unreadable);
                }
            }
            EntryContent::Shared { number, .. } => *self.bodies.entry(number).or_default() += 1,
        }
        self.survey.messages += 1;
        self.survey.message_bytes += entry.size_bytes();
        None
    }

    /// Compares the references of entries with the bodies and their counts.
    fn bodies(&mut self) -> Result<(), StoreError> {
        let bodies = handle(self.db, Family::Bodies)?;
        let references = handle(self.db, Family::BodyReferences)?;
        let mut stored = HashSet::new();
        let mut values = scan(self.db, Family::Bodies)?;
        while let Some(key) = values.key() {
            if let Some(number) = key::body(key) {
                stored.insert(number);
            }
            values.next();
        }
        values.status()?;
        for (number, count) in &self.bodies {
            if !stored.contains(number) {
                self.survey.missing_bodies += count;
            }
        }
        for number in stored.iter().chain(self.references.keys()) {
            let used = self.bodies.get(number).copied().unwrap_or(0);
            let counted = self.references.get(number).copied().unwrap_or(0);
            if used == counted && stored.contains(number) {
                continue;
            }
            self.survey.wrong_references += 1;
            let key = number.to_be_bytes();
            if used == 0 {
                self.mending.delete_cf(bodies, key);
                self.mending.delete_cf(references, key);
            } else {
                self.mending.put_cf(references, key, value::encode_numbers([used]));
            }
        }
        Ok(())
    }

    fn mend(&mut self) -> Result<(), StoreError> {
        if self.faults == Faults::Count || self.mending.is_empty() {
            return Ok(());
        }
        let mending = std::mem::take(&mut self.mending);
        Ok(self.db.write_opt(mending, &write_options(WriteSync::Yes))?)
    }
}
