//! Opens a database: repairs what is damaged, checks and migrates the format, raises the incarnation, reads the index.

use std::sync::Arc;

use rocksdb::{DB, WriteBatch};

use crate::durable::StoreError;
use crate::durable::message::{Message, Timestamp};
use crate::durable::record::Loaded;
use crate::store::clock::{BrokerClock, Heartbeat, broker_time_at_opening, wall_milliseconds};
use crate::store::family::Family;
use crate::store::group::{handle, read_error};
use crate::store::index::Indexes;
use crate::store::load::{LoadedIndex, load_index, load_retained};
use crate::store::options::{WriteSync, write_options};
use crate::store::repair::{
    MAX_DAMAGED_FILES, RepairReport, damaged_file, open_or_repair, set_aside_and_rebuild,
};
use crate::store::settings::StoreSettings;
use crate::store::value::{self, meta};
use crate::store::{key, migration};

/// An open database and what it holds.
pub struct Opened {
    /// The database.
    pub db: DB,
    /// For the broker.
    pub loaded: Loaded,
    /// For the writer.
    pub indexes: Indexes,
    /// The next number of a shared body.
    pub next_body: u64,
    /// Running since this opening.
    pub clock: BrokerClock,
    /// What was repaired and lost.
    pub report: RepairReport,
}

/// Opens the database that the settings name.
///
/// # Errors
/// [`StoreError`] when its format is unknown or nothing can be read.
pub fn open(settings: &StoreSettings) -> Result<Opened, StoreError> {
    let (db, contents, report) = open_and_read(settings)?;
    let Contents { index, retained } = contents;
    let LoadedIndex { sessions, indexes, orphans, next_body, .. } = index;
    let last = read_heartbeat(&db)?;
    let clock = BrokerClock::start(broker_time_at_opening(
        last,
        wall_milliseconds(),
        settings.max_downtime,
    ));
    let incarnation = read_incarnation(&db)?.saturating_add(1);
    let mut batch = WriteBatch::default();
    batch.put(meta::INCARNATION, value::encode_numbers([u64::from(incarnation)]));
    batch.put(meta::CLOCK, encode_heartbeat(clock.heartbeat()));
    for session in orphans {
        let after = key::after_session(session).map_or_else(|| vec![0xFF; 17], |key| key.to_vec());
        let queue = handle(&db, Family::Queue)?;
        batch.delete_range_cf(queue, &key::session(session)[..], &after);
    }
    // The incarnation is part of every Session id given out from here on: it must not be given out twice.
    db.write_opt(batch, &write_options(WriteSync::Yes)).map_err(read_error)?;
    report.log();
    let loaded = Loaded { sessions, retained, incarnation, now: clock.now() };
    Ok(Opened { db, loaded, indexes, next_body, clock, report })
}

/// What is in memory of a database.
pub struct Contents {
    /// Sessions and queues.
    pub index: LoadedIndex,
    /// Retained Messages.
    pub retained: Vec<Arc<Message>>,
}

/// Opens a database and reads what must be in memory, setting aside every file that turns out to be damaged.
///
/// # Errors
/// As [`open`].
pub fn open_and_read(settings: &StoreSettings) -> Result<(DB, Contents, RepairReport), StoreError> {
    let mut report = RepairReport::default();
    for _ in 0..MAX_DAMAGED_FILES {
        let (db, opened) = open_or_repair(settings)?;
        report.absorb(opened);
        let reason = match read(&db) {
            Ok((contents, unreadable_values)) => {
                report.unreadable_values += unreadable_values;
                report.orphaned_queues += contents.index.orphans.len() as u64;
                return Ok((db, contents, report));
            }
            Err(StoreError::Read(reason)) => reason,
            Err(error) => return Err(error),
        };
        let Some(path) = damaged_file(&reason).filter(|path| path.exists()) else {
            return Err(StoreError::Read(reason));
        };
        drop(db);
        tracing::error!(reason, "a file of the store is damaged: setting it aside");
        report.absorb(set_aside_and_rebuild(settings, &path)?);
    }
    Err(StoreError::Open {
        path: settings.database(),
        reason: "too many of its files are damaged".into(),
    })
}

fn read(db: &DB) -> Result<(Contents, u64), StoreError> {
    migration::migrate(db)?;
    let index = load_index(db)?;
    let (retained, unreadable) = load_retained(db)?;
    let unreadable = unreadable + index.unreadable_values;
    Ok((Contents { index, retained }, unreadable))
}

/// The value of [`meta::CLOCK`].
#[must_use]
pub fn encode_heartbeat(heartbeat: Heartbeat) -> Vec<u8> {
    value::encode_numbers([heartbeat.broker.0, heartbeat.wall_milliseconds])
}

/// The last heartbeat.
///
/// # Errors
/// [`StoreError::Read`] when it cannot be read.
pub fn read_heartbeat(db: &DB) -> Result<Option<Heartbeat>, StoreError> {
    let value = db.get(meta::CLOCK).map_err(read_error)?;
    let numbers = value.and_then(|value| value::decode_numbers::<2>(&value));
    Ok(numbers.map(|[broker, wall_milliseconds]| Heartbeat {
        broker: Timestamp(broker),
        wall_milliseconds,
    }))
}

/// The incarnation of the last opening; 0 in a new database.
///
/// # Errors
/// [`StoreError::Read`] when it cannot be read.
pub fn read_incarnation(db: &DB) -> Result<u32, StoreError> {
    let value = db.get(meta::INCARNATION).map_err(read_error)?;
    let number = value.and_then(|value| value::decode_numbers::<1>(&value));
    Ok(number.and_then(|[number]| u32::try_from(number).ok()).unwrap_or(0))
}
