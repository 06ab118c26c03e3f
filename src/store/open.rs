//! Opens a database: repairs damage, checks and migrates the format, raises the incarnation, reads the index.

use std::sync::Arc;

use hashbrown::HashSet;
use rocksdb::{DB, WriteBatch};

use crate::durable::message::{Issuer, Message, SessionId, Timestamp};
use crate::durable::record::Loaded;
use crate::store::clock::{BrokerClock, Heartbeat, time_at_opening, wall_milliseconds};
use crate::store::commit_group::handle;
use crate::store::error::StoreError;
use crate::store::family::Family;
use crate::store::index::Indexes;
use crate::store::load::{LoadedIndex, Recount, load_index, load_retained};
use crate::store::options::{WriteSync, write_options};
use crate::store::repair::{
    MAX_DAMAGED_FILES, RepairReport, damage_of, open_or_repair, set_aside_and_rebuild,
};
use crate::store::salvage;
use crate::store::settings::StoreSettings;
use crate::store::value::{self, meta};
use crate::store::{key, migration};

/// An open database and its contents.
pub(crate) struct Opened {
    /// The database.
    pub(crate) db: DB,
    /// For the broker.
    pub(crate) loaded: Loaded,
    /// For the writer.
    pub(crate) indexes: Indexes,
    /// The next number of a shared body.
    pub(crate) next_body: u64,
    /// The clock, which runs since this opening.
    pub(crate) clock: BrokerClock,
    /// What was repaired and lost.
    pub(crate) report: RepairReport,
}

/// Opens the database that the settings name.
///
/// # Errors
/// [`StoreError`] when the format is unknown or nothing can be read.
pub(crate) fn open(settings: &StoreSettings) -> Result<Opened, StoreError> {
    let (db, contents, report) = open_and_read(settings, Recount::Recent)?;
    let Contents { index, retained } = contents;
    let LoadedIndex { sessions, queues, indexes, orphans, next_body, .. } = index;
    let last = read_heartbeat(&db)?;
    let opening = time_at_opening(last, wall_milliseconds(), settings.max_downtime);
    let clock = BrokerClock::start_at(opening);
    if opening.believed_milliseconds == 0 {
        tracing::warn!(
            "the clock of this machine is years behind: downtime does not count until it is right"
        );
    }
    let in_use = sessions.iter().map(|found| found.record.id);
    let in_use = in_use.chain(queues.iter().map(|found| found.record.id));
    let (incarnation, issuer) = next_issuer(migration::read_incarnation(&db)?, in_use);
    let mut batch = WriteBatch::default();
    batch.put(meta::INCARNATION, value::encode_numbers([u64::from(incarnation)]));
    batch.put(meta::CLOCK, encode_heartbeat(clock.heartbeat()));
    for session in orphans {
        let after = key::after_session(session).map_or_else(|| vec![0xFF; 17], |key| key.to_vec());
        let queue = handle(&db, Family::Queue)?;
        batch.delete_range_cf(queue, &key::session(session)[..], &after);
        batch.delete_cf(handle(&db, Family::Queues)?, key::session(session));
    }
    // The issuer is part of every Session id given out from here on: it must not be the same twice.
    db.write_opt(batch, &write_options(WriteSync::Yes))?;
    report.log();
    let loaded = Loaded { sessions, queues, retained, issuer, now: clock.now() };
    Ok(Opened { db, loaded, indexes, next_body, clock, report })
}

/// The next incarnation, and its issuer. Epochs repeat after a million openings: those of existing Sessions are
/// skipped.
fn next_issuer(last: u32, in_use: impl Iterator<Item = SessionId>) -> (u32, Issuer) {
    let in_use: HashSet<Issuer> = in_use.map(SessionId::issuer).collect();
    let mut incarnation = last.wrapping_add(1);
    loop {
        let issuer = Issuer::new(0, incarnation);
        if issuer.epoch() > 0 && !in_use.contains(&issuer) {
            return (incarnation, issuer);
        }
        incarnation = incarnation.wrapping_add(1);
    }
}

/// The part of a database that is in memory.
pub(crate) struct Contents {
    /// Sessions and queues.
    pub(crate) index: LoadedIndex,
    /// Retained Messages.
    pub(crate) retained: Vec<Arc<Message>>,
}

/// Opens a database and reads the data that must be in memory, setting every damaged file aside.
///
/// # Errors
/// As [`open`].
pub(crate) fn open_and_read(
    settings: &StoreSettings,
    recount: Recount,
) -> Result<(DB, Contents, RepairReport), StoreError> {
    let mut report = RepairReport::default();
    for _ in 0..MAX_DAMAGED_FILES {
        let (db, opened) = open_or_repair(settings)?;
        report.absorb(opened);
        let error = match read(&db, settings, recount, &mut report) {
            Ok((contents, unreadable_values)) => {
                report.unreadable_values += unreadable_values;
                report.orphaned_queues += contents.index.orphans.len() as u64;
                report.missing_messages += contents.index.missing_messages;
                return Ok((db, contents, report));
            }
            Err(error) => error,
        };
        let Some(path) = damage_of(&error) else { return Err(error) };
        tracing::error!(%error, "a file of the store is damaged: setting it aside");
        report.absorb(set_aside_and_rebuild(settings, db, &path)?);
    }
    Err(StoreError::Open {
        path: settings.database(),
        reason: "too many of its files are damaged".into(),
    })
}

fn read(
    db: &DB,
    settings: &StoreSettings,
    recount: Recount,
    report: &mut RepairReport,
) -> Result<(Contents, u64), StoreError> {
    report.salvage.absorb(salvage::restore(db, &settings.data_dir)?);
    migration::migrate(db)?;
    let recount = if report.has_losses() { Recount::Everything } else { recount };
    let index = load_index(db, recount)?;
    let (retained, unreadable) = load_retained(db)?;
    let unreadable = unreadable + index.unreadable_values;
    Ok((Contents { index, retained }, unreadable))
}

/// The value of [`meta::CLOCK`].
#[must_use]
pub(crate) fn encode_heartbeat(heartbeat: Heartbeat) -> Vec<u8> {
    let Heartbeat { broker, wall_milliseconds, believed_milliseconds } = heartbeat;
    value::encode_numbers([broker.0, wall_milliseconds, believed_milliseconds])
}

/// The last heartbeat.
///
/// # Errors
/// [`StoreError::Read`] when it cannot be read.
pub(crate) fn read_heartbeat(db: &DB) -> Result<Option<Heartbeat>, StoreError> {
    let Some(value) = db.get(meta::CLOCK)? else { return Ok(None) };
    if let Some([broker, wall_milliseconds, believed_milliseconds]) = value::decode_numbers(&value)
    {
        let broker = Timestamp(broker);
        return Ok(Some(Heartbeat { broker, wall_milliseconds, believed_milliseconds }));
    }
    // Earlier versions kept two numbers.
    let numbers = value::decode_numbers::<2>(&value);
    Ok(numbers.map(|[broker, wall]| Heartbeat::believing_its_clock(Timestamp(broker), wall)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_that_comes_again_passes_over_sessions_that_are_still_there() {
        let old = [Issuer::new(0, 1).session_id(4), Issuer::new(0, 2).session_id(1)];
        let last = (1 << Issuer::EPOCH_BITS) - 1;
        let (incarnation, issuer) = next_issuer(last, old.into_iter());
        assert_eq!((incarnation, issuer), (last + 4, Issuer::new(0, 3)));
        assert_eq!(next_issuer(7, old.into_iter()).1, Issuer::new(0, 8));
    }
}
