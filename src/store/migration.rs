//! Format versions of the database: checked at every opening; older formats are migrated step by step.
//!
//! Each format adds a step, which reads format `n` and writes format `n + 1`, in one atomic write or in a way that
//! can be restarted. The version is written together with the last change of a step.

use rocksdb::{DB, WriteBatch};

use crate::durable::record::QueueRecord;
use crate::store::commit_group::handle;
use crate::store::error::StoreError;
use crate::store::family::Family;
use crate::store::key;
use crate::store::load::scan;
use crate::store::options::{WriteSync, write_options};
use crate::store::value::{self, FormerSession, meta};

/// The format that this version writes.
pub(crate) const FORMAT: u64 = 2;

type Step = fn(&DB, &mut WriteBatch) -> Result<(), StoreError>;

/// Step `n` leads from format `n` to `n + 1`; format 0 is a new, empty database.
const STEPS: [Step; 2] = [create, separate_queues];

/// Records that a step changes in one write.
const RECORDS_PER_WRITE: usize = 10_000;

/// Migrates a database to [`FORMAT`].
///
/// # Errors
/// [`StoreError::NewerFormat`], or [`StoreError::Read`] when a step fails.
pub(crate) fn migrate(db: &DB) -> Result<(), StoreError> {
    migrate_by(db, &STEPS)
}

fn migrate_by(db: &DB, steps: &[Step]) -> Result<(), StoreError> {
    let known = steps.len() as u64;
    let found = read_format(db)?;
    if found > known {
        return Err(StoreError::NewerFormat { found, known });
    }
    for (version, step) in (1..).zip(steps).skip_while(|(version, _)| *version <= found) {
        let mut batch = WriteBatch::default();
        step(db, &mut batch)?;
        batch.put(meta::FORMAT, value::encode_numbers([version]));
        db.write_opt(batch, &write_options(WriteSync::Yes))?;
        if found > 0 {
            tracing::info!(from = version - 1, to = version, "migrated the store");
        }
    }
    Ok(())
}

/// The format of a database; 0 when it is new.
///
/// # Errors
/// [`StoreError::Read`] when it cannot be read.
pub(crate) fn read_format(db: &DB) -> Result<u64, StoreError> {
    let value = db.get(meta::FORMAT)?;
    Ok(value.and_then(|value| value::decode_numbers::<1>(&value)).map_or(0, |[version]| version))
}

/// Format 1: marks each family with an empty key and writes it to a file, because RocksDB's repair finds only families that
/// have a file, and would lose the log records of the others.
fn create(db: &DB, _: &mut WriteBatch) -> Result<(), StoreError> {
    for family in Family::ALL {
        let handle = handle(db, family)?;
        db.put_cf(handle, b"", value::PRESENT)?;
        db.flush_cf(handle)?;
    }
    Ok(())
}

/// Format 2: a queue has its own record, and a Shared Subscription group is no longer a Session. The bits of Session
/// ids are divided differently, so new ids start above all existing ones.
fn separate_queues(db: &DB, batch: &mut WriteBatch) -> Result<(), StoreError> {
    let (sessions, queues) = (handle(db, Family::Sessions)?, handle(db, Family::Queues)?);
    db.put_cf(queues, b"", value::PRESENT)?;
    db.flush_cf(queues)?;
    let mut encoded = Vec::new();
    let mut values = scan(db, Family::Sessions)?;
    while let Some((key, value)) = values.item() {
        if let Some((id, _)) = key::split(key) {
            // A record that was migrated before a crash is not in the former format, and stays.
            match value::decode_former_session(id, value) {
                Some(FormerSession::Session(record)) => {
                    value::encode_session(&record, &mut encoded);
                    batch.put_cf(sessions, key, &encoded);
                    value::encode_queue(&QueueRecord::of_session(id), &mut encoded);
                    batch.put_cf(queues, key, &encoded);
                }
                Some(FormerSession::Group(filter)) => {
                    value::encode_queue(&QueueRecord::of_group(id, filter), &mut encoded);
                    batch.put_cf(queues, key, &encoded);
                    batch.delete_cf(sessions, key);
                }
                None => {}
            }
        }
        if batch.len() >= 2 * RECORDS_PER_WRITE {
            db.write(std::mem::take(batch))?;
        }
        values.next();
    }
    values.status()?;
    let incarnation = read_incarnation(db)?;
    if incarnation > 0 {
        // The incarnation had the bits above 40 of an id; now it has those above 34.
        let above = (incarnation + 1).saturating_mul(1 << 6);
        batch.put(meta::INCARNATION, value::encode_numbers([u64::from(above)]));
    }
    Ok(())
}

/// The incarnation of the last opening; 0 in a new database.
///
/// # Errors
/// [`StoreError::Read`] when it cannot be read.
pub(crate) fn read_incarnation(db: &DB) -> Result<u32, StoreError> {
    let value = db.get(meta::INCARNATION)?;
    let number = value.and_then(|value| value::decode_numbers::<1>(&value));
    Ok(number.and_then(|[number]| u32::try_from(number).ok()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use rocksdb::Options;

    use super::*;

    fn database(directory: &std::path::Path) -> DB {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        DB::open_cf(&options, directory, Family::ALL.map(Family::name)).unwrap()
    }

    #[test]
    fn a_new_database_gets_the_format_of_today() {
        let directory = tempfile::tempdir().unwrap();
        let db = database(directory.path());
        assert_eq!(read_format(&db).unwrap(), 0);
        migrate(&db).unwrap();
        assert_eq!(read_format(&db).unwrap(), FORMAT);
        assert_eq!(FORMAT, STEPS.len() as u64);
        migrate(&db).unwrap();
    }

    #[test]
    fn a_newer_format_is_refused_with_both_versions() {
        let directory = tempfile::tempdir().unwrap();
        let db = database(directory.path());
        db.put(meta::FORMAT, value::encode_numbers([FORMAT + 6])).unwrap();
        let message = migrate(&db).unwrap_err().to_string();
        assert!(message.contains("format 8") && message.contains("up to 2"), "{message}");
    }

    #[test]
    fn an_older_format_takes_only_the_steps_it_lacks() {
        let directory = tempfile::tempdir().unwrap();
        let db = database(directory.path());
        migrate(&db).unwrap();
        let third: Step = |_, batch| {
            batch.put(b"third", b"done");
            Ok(())
        };
        let never: Step = |_, _| Err(StoreError::Read("this format was there already".into()));
        migrate_by(&db, &[never, never, third]).unwrap();
        assert_eq!(read_format(&db).unwrap(), 3);
        assert_eq!(db.get(b"third").unwrap().as_deref(), Some(&b"done"[..]));
    }
}
