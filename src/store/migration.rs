//! Format versions of the database: checked at every opening, older ones brought up to date step by step.
//!
//! A step is added with each format: it reads format `n` and leaves format `n + 1`, in one atomic write or in a way
//! that may be begun again. The version is written by the same write as the last change of a step.

use rocksdb::{DB, WriteBatch};

use crate::durable::StoreError;
use crate::store::family::Family;
use crate::store::group::{handle, read_error};
use crate::store::options::{WriteSync, write_options};
use crate::store::value::{self, meta};

/// The format that this version writes.
pub const FORMAT: u64 = 1;

type Step = fn(&DB, &mut WriteBatch) -> Result<(), StoreError>;

/// Step `n` leads from format `n` to `n + 1`; format 0 is a new, empty database.
const STEPS: [Step; 1] = [create];

/// Brings a database to [`FORMAT`].
///
/// # Errors
/// [`StoreError::NewerFormat`], or [`StoreError::Read`] when a step fails.
pub fn migrate(db: &DB) -> Result<(), StoreError> {
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
        db.write_opt(batch, &write_options(WriteSync::Yes)).map_err(read_error)?;
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
pub fn read_format(db: &DB) -> Result<u64, StoreError> {
    let value = db.get(meta::FORMAT).map_err(read_error)?;
    Ok(value.and_then(|value| value::decode_numbers::<1>(&value)).map_or(0, |[version]| version))
}

/// Marks each family by an empty key and writes it to a file: RocksDB's repair knows only families that have a file,
/// and would lose the log records of the others.
fn create(db: &DB, _: &mut WriteBatch) -> Result<(), StoreError> {
    for family in Family::ALL {
        let handle = handle(db, family)?;
        db.put_cf(handle, b"", value::PRESENT).map_err(read_error)?;
        db.flush_cf(handle).map_err(read_error)?;
    }
    Ok(())
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
        assert!(message.contains("format 7") && message.contains("up to 1"), "{message}");
    }

    #[test]
    fn an_older_format_takes_only_the_steps_it_lacks() {
        let directory = tempfile::tempdir().unwrap();
        let db = database(directory.path());
        migrate(&db).unwrap();
        let second: Step = |_, batch| {
            batch.put(b"second", b"done");
            Ok(())
        };
        let never: Step = |_, _| Err(StoreError::Read("format 1 was there already".into()));
        migrate_by(&db, &[never, second]).unwrap();
        assert_eq!(read_format(&db).unwrap(), 2);
        assert_eq!(db.get(b"second").unwrap().as_deref(), Some(&b"done"[..]));
    }
}
