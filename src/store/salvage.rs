//! Salvages the readable data of a damaged file before the file is set aside.
//!
//! A file is read block by block through the open database. Blocks with a wrong checksum are skipped; everything else is
//! written to a spool file. When the damaged file is set aside, the spool is compared with the database: values lost with
//! the file are put back, and values that the file had removed or replaced, and that are visible again without it, are
//! removed again. The spool is complete before the file is moved, so a crash in between loses nothing: the next opening
//! continues with the spool.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rocksdb::{DB, DBRawIterator, WriteBatch};

use crate::store::clock::wall_milliseconds;
use crate::store::commit_group::handle;
use crate::store::error::StoreError;
use crate::store::family::Family;
use crate::store::options::{WriteSync, scan_options, write_options};

/// Prefix of the names of complete spools.
const SPOOL: &str = "salvaged-";
/// Name of a spool that is being written.
const UNFINISHED: &str = "salvaging";

const ENTRY: u8 = 1;
const HOLE: u8 = 2;
const END: u8 = 3;

/// Bytes per write while values are put back.
const WRITE_BYTES: usize = 4 * 1024 * 1024;

/// The amount of salvaged data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Salvage {
    /// Values put back.
    pub(crate) values: u64,
    /// Gaps of one or more consecutive unreadable blocks.
    pub(crate) holes: u64,
}

impl Salvage {
    /// Adds the result of another file.
    pub(crate) fn absorb(&mut self, other: Self) {
        self.values += other.values;
        self.holes += other.holes;
    }
}

/// Writes the readable data of a damaged file to a spool. Does nothing if the database does not know the file.
///
/// # Errors
/// The spool cannot be written, or the database cannot be read at all.
pub(crate) fn collect(db: &DB, damaged: &Path, data_dir: &Path) -> Result<(), StoreError> {
    let Some((family, first, last)) = key_range(db, damaged) else { return Ok(()) };
    let failed = |source| StoreError::Directory { path: data_dir.to_path_buf(), source };
    let unfinished = data_dir.join(UNFINISHED);
    let mut spool = Spool::create(&unfinished, family).map_err(failed)?;
    let mut values = iterator_at(db, family, &first)?;
    let mut at = first;
    loop {
        while let Some((key, value)) = values.item().filter(|(key, _)| *key <= &last[..]) {
            spool.entry(key, value).map_err(failed)?;
            at.clear();
            at.extend_from_slice(key);
            values.next();
        }
        if values.status().is_ok() {
            break;
        }
        let Some(next) = step_over(db, family, &at, &last)? else {
            spool.hole(&at, &last).map_err(failed)?;
            break;
        };
        spool.hole(&at, &next).map_err(failed)?;
        values = iterator_at(db, family, &next)?;
        at = next;
    }
    spool.finish(&last).map_err(failed)?;
    let finished = data_dir.join(format!("{SPOOL}{}", wall_milliseconds()));
    fs::rename(&unfinished, finished).map_err(failed)?;
    File::open(data_dir).and_then(|directory| directory.sync_all()).map_err(failed)
}

/// Family, first and last key of a file of the database.
fn key_range(db: &DB, file: &Path) -> Option<(Family, Vec<u8>, Vec<u8>)> {
    let name = file.file_name()?.to_str()?;
    let files = db.live_files().ok()?;
    let found = files.into_iter().find(|live| live.name.trim_start_matches('/') == name)?;
    let family = Family::ALL.into_iter().find(|it| it.name() == found.column_family_name)?;
    Some((family, found.start_key?, found.end_key?))
}

/// A new iterator, because one that has met damage may report its error for the next block, too.
fn iterator_at<'a>(
    db: &'a DB,
    family: Family,
    key: &[u8],
) -> Result<DBRawIterator<'a>, StoreError> {
    let mut values = db.raw_iterator_cf_opt(handle(db, family)?, scan_options());
    values.seek(key);
    Ok(values)
}

/// The first key after the unreadable blocks; `None` if there is none up to `last`.
///
/// Only the file knows where a block ends. So keys are treated as numbers, and the smallest readable one is searched for:
/// first in doubling steps, then by bisection.
fn step_over(
    db: &DB,
    family: Family,
    at: &[u8],
    last: &[u8],
) -> Result<Option<Vec<u8>>, StoreError> {
    let shared = at.iter().zip(last).take_while(|(one, other)| one == other).count();
    let number = |key: &[u8]| {
        let mut digits = [0; 16];
        for (digit, byte) in digits.iter_mut().zip(key.iter().skip(shared)) {
            *digit = *byte;
        }
        u128::from_be_bytes(digits)
    };
    let key =
        |number: u128| [last.get(..shared).unwrap_or_default(), &number.to_be_bytes()].concat();
    let can_read = |number: u128| -> Result<bool, StoreError> {
        Ok(iterator_at(db, family, &key(number))?.status().is_ok())
    };
    let (mut bad, end) = (number(at), number(last));
    let mut step = 1_u128;
    let mut good = loop {
        let next = bad.saturating_add(step).min(end);
        if can_read(next)? {
            break next;
        }
        if next == end {
            return Ok(None);
        }
        bad = next;
        step = step.saturating_mul(2);
    };
    while good - bad > 1 {
        let middle = bad + (good - bad) / 2;
        if can_read(middle)? {
            good = middle;
        } else {
            bad = middle;
        }
    }
    Ok(Some(key(good)))
}

/// Puts back the contents of spools, if there are any, and removes them. The damaged files must have been set aside.
///
/// # Errors
/// A spool cannot be read, or the database cannot be written; then the spool stays.
pub(crate) fn restore(db: &DB, data_dir: &Path) -> Result<Salvage, StoreError> {
    let mut salvage = Salvage::default();
    for path in spools(data_dir) {
        match restore_from(db, &path) {
            Ok(found) => salvage.absorb(found),
            Err(StoreError::Directory { path, source }) => {
                tracing::error!(error = %source, path = %path.display(), "cannot read a spool file");
                // It must not block every start.
                let _stays = fs::rename(&path, path.with_extension("unusable"));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(salvage)
}

/// Complete spools, oldest first.
fn spools(data_dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(data_dir).into_iter().flatten().flatten();
    let is_spool = |file: &fs::DirEntry| {
        let name = file.file_name().to_string_lossy().into_owned();
        name.starts_with(SPOOL) && !name.ends_with(".unusable")
    };
    let mut spools: Vec<_> = files.filter(is_spool).map(|file| file.path()).collect();
    spools.sort();
    spools
}

fn restore_from(db: &DB, path: &Path) -> Result<Salvage, StoreError> {
    let failed = |source| StoreError::Directory { path: path.to_path_buf(), source };
    let mut spool = BufReader::new(File::open(path).map_err(failed)?);
    let [code] = read_array(&mut spool).map_err(failed)?;
    let Some(family) = Family::from_code(code) else {
        return Err(failed(io::ErrorKind::InvalidData.into()));
    };
    let mut restorer = Restorer {
        values: db.raw_iterator_cf(handle(db, family)?),
        db,
        family,
        batch: WriteBatch::default(),
        has_begun: false,
        salvage: Salvage::default(),
    };
    loop {
        let [kind] = read_array(&mut spool).map_err(failed)?;
        let key = read_bytes(&mut spool).map_err(failed)?;
        match kind {
            ENTRY => restorer.entry(&key, &read_bytes(&mut spool).map_err(failed)?)?,
            HOLE => restorer.hole(&key, &read_bytes(&mut spool).map_err(failed)?)?,
            _ => {
                restorer.remove_up_to(&key, Bound::Included)?;
                break;
            }
        }
    }
    restorer.write(WriteSync::Yes)?;
    let salvage = restorer.salvage;
    drop(restorer);
    fs::remove_file(path).map_err(failed)?;
    Ok(salvage)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Bound {
    Included,
    Excluded,
}

/// Iterates over spool and database in parallel.
struct Restorer<'a> {
    db: &'a DB,
    family: Family,
    values: DBRawIterator<'a>,
    batch: WriteBatch,
    has_begun: bool,
    salvage: Salvage,
}

impl Restorer<'_> {
    fn entry(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        if !self.has_begun {
            self.has_begun = true;
            self.values.seek(key);
        }
        self.remove_up_to(key, Bound::Excluded)?;
        let is_there = self.values.item().is_some_and(|(found, _)| found == key);
        let is_same = self.values.item().is_some_and(|item| item == (key, value));
        if is_there {
            self.values.next();
        }
        if !is_same {
            self.salvage.values += 1;
            self.batch.put_cf(handle(self.db, self.family)?, key, value);
            if self.batch.size_in_bytes() >= WRITE_BYTES {
                self.write(WriteSync::No)?;
            }
        }
        Ok(())
    }

    /// Skips a gap: nothing is known about the keys between these two, so they stay as they are in other files.
    fn hole(&mut self, after: &[u8], before: &[u8]) -> Result<(), StoreError> {
        self.salvage.holes += 1;
        if self.has_begun {
            self.remove_up_to(after, Bound::Included)?;
        }
        self.has_begun = true;
        self.values.seek(before);
        Ok(())
    }

    /// Removes values that became visible without the damaged file.
    fn remove_up_to(&mut self, key: &[u8], bound: Bound) -> Result<(), StoreError> {
        while let Some(found) = self.values.key() {
            if found > key || (bound == Bound::Excluded && found == key) {
                break;
            }
            // The empty key marks the family.
            if !found.is_empty() {
                self.batch.delete_cf(handle(self.db, self.family)?, found);
            }
            self.values.next();
        }
        Ok(self.values.status()?)
    }

    fn write(&mut self, sync: WriteSync) -> Result<(), StoreError> {
        let batch = std::mem::take(&mut self.batch);
        Ok(self.db.write_opt(batch, &write_options(sync))?)
    }
}

/// A spool being written.
struct Spool(BufWriter<File>);

impl Spool {
    fn create(path: &Path, family: Family) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = BufWriter::new(options.open(path)?);
        file.write_all(&[family.code()])?;
        Ok(Self(file))
    }

    fn entry(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.0.write_all(&[ENTRY])?;
        self.bytes(key)?;
        self.bytes(value)
    }

    fn hole(&mut self, after: &[u8], before: &[u8]) -> io::Result<()> {
        self.0.write_all(&[HOLE])?;
        self.bytes(after)?;
        self.bytes(before)
    }

    fn finish(mut self, last: &[u8]) -> io::Result<()> {
        self.0.write_all(&[END])?;
        self.bytes(last)?;
        self.0.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    }

    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(&(bytes.len() as u64).to_le_bytes())?;
        self.0.write_all(bytes)
    }
}

fn read_array<const N: usize>(spool: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    spool.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn read_bytes(spool: &mut impl Read) -> io::Result<Vec<u8>> {
    let length = u64::from_le_bytes(read_array(spool)?);
    let mut bytes = Vec::new();
    if spool.take(length).read_to_end(&mut bytes)? as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}
