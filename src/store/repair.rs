//! Opens a database that may be damaged: readable data stays, unreadable data is set aside and reported in numbers.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rocksdb::{DB, ErrorKind, Options};

use crate::store::clock::wall_milliseconds;
use crate::store::error::StoreError;
use crate::store::log_check::{self, LogDamage};
use crate::store::options::{database_options, family_descriptors};
use crate::store::salvage::{self, Salvage};
use crate::store::settings::StoreSettings;

/// Damaged files that are set aside before opening fails.
pub(crate) const MAX_DAMAGED_FILES: usize = 64;

/// The damage found at opening, and the losses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RepairReport {
    /// Incomplete bytes at the end of the log, left by a power cut or kill during a write that was never
    /// acknowledged.
    pub(crate) dropped_log_bytes: u64,
    /// Damage in the middle of the log, which no crash explains.
    pub log_damage: LogDamage,
    /// Files moved aside, and where to.
    pub(crate) files_set_aside: Vec<PathBuf>,
    /// Their bytes.
    pub(crate) bytes_set_aside: u64,
    /// Data salvaged from damaged files.
    pub salvage: Salvage,
    /// Messages missing from queues, as far as known from their last checkpoints.
    pub(crate) missing_messages: u64,
    /// Copies of logs that were cut or repaired.
    pub logs_kept: Vec<PathBuf>,
    /// Whether the list of files was rebuilt from the files.
    pub rebuilt: bool,
    /// Values that could not be decoded.
    pub(crate) unreadable_values: u64,
    /// Queues without a Session, removed.
    pub orphaned_queues: u64,
}

impl RepairReport {
    /// Whether anything that may have been acknowledged is missing.
    #[must_use]
    pub fn has_losses(&self) -> bool {
        self.rebuilt
            || !self.files_set_aside.is_empty()
            || self.unreadable_values > 0
            || self.log_damage.holes > 0
    }

    /// Adds the report of another opening.
    pub(crate) fn absorb(&mut self, other: Self) {
        self.dropped_log_bytes += other.dropped_log_bytes;
        self.log_damage.absorb(other.log_damage);
        self.salvage.absorb(other.salvage);
        self.missing_messages += other.missing_messages;
        self.files_set_aside.extend(other.files_set_aside);
        self.bytes_set_aside += other.bytes_set_aside;
        self.logs_kept.extend(other.logs_kept);
        self.rebuilt |= other.rebuilt;
        self.unreadable_values += other.unreadable_values;
        self.orphaned_queues += other.orphaned_queues;
    }

    /// Logs the report.
    pub(crate) fn log(&self) {
        if self.has_losses() {
            tracing::error!(
                files_set_aside = self.files_set_aside.len(),
                bytes_set_aside = self.bytes_set_aside,
                unreadable_values = self.unreadable_values,
                values_salvaged = self.salvage.values,
                unreadable_places = self.salvage.holes,
                log_holes = self.log_damage.holes,
                log_bytes_lost = self.log_damage.bytes,
                log_changes_lost = self.log_damage.operations,
                messages_missing = self.missing_messages,
                queues_without_session = self.orphaned_queues,
                rebuilt = self.rebuilt,
                first_file = ?self.files_set_aside.first(),
                "the store was damaged: readable data was kept, acknowledged messages may be lost"
            );
        }
        if self.dropped_log_bytes > 0 {
            tracing::warn!(
                bytes = self.dropped_log_bytes,
                copies = ?self.logs_kept,
                "the end of the store's log was torn and has been cut off: it contained nothing acknowledged, unless the disk is faulty"
            );
        }
        if self.orphaned_queues > 0 {
            tracing::info!(queues = self.orphaned_queues, "removed queues without a session");
        }
    }
}

/// Opens the database, setting unreadable files aside.
///
/// # Errors
/// [`StoreError::Open`] when it cannot be opened even so.
pub(crate) fn open_or_repair(settings: &StoreSettings) -> Result<(DB, RepairReport), StoreError> {
    let mut report = RepairReport::default();
    mend_logs(settings, &mut report);
    let logs = LogLinks::take(settings);
    if lacks_current(&settings.database()) {
        // RocksDB would treat the directory as new and remove the files that it does not know.
        tracing::error!("the store has files but no CURRENT: rebuilding the list of files");
        rebuild(settings, &mut report)?;
    }
    for _ in 0..MAX_DAMAGED_FILES {
        let dropped = Arc::new(AtomicU64::new(0));
        let error = match open(settings, &dropped) {
            Ok(db) => {
                report.dropped_log_bytes += dropped.load(Ordering::Relaxed);
                if report.dropped_log_bytes > 0 {
                    logs.keep(settings, &mut report);
                }
                return Ok((db, report));
            }
            Err(error) => error,
        };
        if !is_damage(&error) {
            return Err(cannot_open(settings, error.into_string()));
        }
        tracing::error!(error = error.to_string(), "the store is damaged: repairing it");
        if let Some(path) = damaged_file(error.as_ref()).filter(|path| path.exists()) {
            set_aside(settings, &path, &mut report);
        }
        rebuild(settings, &mut report)?;
    }
    Err(cannot_open(settings, "too many of its files are damaged".into()))
}

/// Repairs logs that are damaged in the middle, which RocksDB would treat as their end; keeps copies.
fn mend_logs(settings: &StoreSettings, report: &mut RepairReport) {
    let logs = log_check::logs(&settings.database());
    let mended = log_check::is_damaged(&logs).and_then(|is_damaged| {
        if !is_damaged {
            return Ok(LogDamage::default());
        }
        tracing::error!("the store's log is damaged in the middle: continuing after the damage");
        let target = make_aside(settings)?;
        for log in &logs {
            let Some(name) = log.path.file_name() else { continue };
            std::fs::copy(&log.path, target.join(name))?;
            report.logs_kept.push(target.join(name));
        }
        log_check::mend(&logs, &settings.data_dir.join("log-being-mended"))
    });
    match mended {
        Ok(damage) => report.log_damage.absorb(damage),
        Err(error) => tracing::error!(%error, "cannot check the store's log for damage"),
    }
}

/// Creates a directory for files that are set aside.
fn make_aside(settings: &StoreSettings) -> std::io::Result<PathBuf> {
    let path = settings.data_dir.join(format!("damaged-{}", wall_milliseconds()));
    DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
    Ok(path)
}

/// Hard links to the logs, so that a log can still be kept after opening has cut and removed it.
struct LogLinks {
    directory: PathBuf,
}

impl LogLinks {
    fn take(settings: &StoreSettings) -> Self {
        let links = Self { directory: settings.data_dir.join("logs-before-opening") };
        let _absent = std::fs::remove_dir_all(&links.directory);
        let logs = files_with_extension(&settings.database(), "log");
        if logs.is_empty() || std::fs::create_dir_all(&links.directory).is_err() {
            return links;
        }
        for log in logs {
            // Without hard links a cut log is not kept; opening is more important.
            if let Some(name) = log.file_name() {
                let _unsupported = std::fs::hard_link(&log, links.directory.join(name));
            }
        }
        links
    }

    /// Copies the logs, because a link would be overwritten when RocksDB reuses the file.
    fn keep(&self, settings: &StoreSettings, report: &mut RepairReport) {
        let logs = files_with_extension(&self.directory, "log");
        if logs.is_empty() {
            return;
        }
        let target = match make_aside(settings) {
            Ok(target) => target,
            Err(error) => {
                tracing::warn!(%error, "cannot keep a copy of a torn log");
                return;
            }
        };
        for log in logs {
            let Some(name) = log.file_name() else { continue };
            match std::fs::copy(&log, target.join(name)) {
                Ok(_) => report.logs_kept.push(target.join(name)),
                Err(error) => tracing::warn!(%error, "cannot keep a copy of a torn log"),
            }
        }
    }
}

impl Drop for LogLinks {
    fn drop(&mut self) {
        let _absent = std::fs::remove_dir_all(&self.directory);
    }
}

fn files_with_extension(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let files = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let paths = files.map(|file| file.path());
    paths.filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
}

fn lacks_current(database: &Path) -> bool {
    !database.join("CURRENT").exists()
        && ["sst", "log"].iter().any(|kind| !files_with_extension(database, kind).is_empty())
}

fn open(settings: &StoreSettings, dropped: &Arc<AtomicU64>) -> Result<DB, rocksdb::Error> {
    let dropped = Arc::clone(dropped);
    let warnings = Arc::new(move |line: &str| {
        if let Some(bytes) = dropped_bytes(line) {
            dropped.fetch_add(bytes, Ordering::Relaxed);
        }
        tracing::debug!(line, "rocksdb");
    });
    let options = database_options(settings, warnings);
    DB::open_cf_descriptors(&options, settings.database(), family_descriptors(settings))
}

fn is_damage(error: &rocksdb::Error) -> bool {
    match error.kind() {
        ErrorKind::Corruption => true,
        ErrorKind::IOError | ErrorKind::InvalidArgument | ErrorKind::NotFound => {
            tells_of_damage(error.as_ref())
        }
        _ => false,
    }
}

/// Whether an I/O error is permanent: too many open files, for example, is not damage.
fn tells_of_damage(message: &str) -> bool {
    let phrases = ["No such file", "does not exist", "Input/output error"];
    phrases.iter().any(|phrase| message.contains(phrase))
}

/// The damaged or missing file that a read error names, if any.
#[must_use]
pub(crate) fn damage_of(error: &StoreError) -> Option<PathBuf> {
    match error {
        StoreError::Damaged(message) => damaged_file(message),
        StoreError::Read(message) => damaged_file(message).filter(|_| tells_of_damage(message)),
        StoreError::Unavailable
        | StoreError::Directory { .. }
        | StoreError::InUse { .. }
        | StoreError::NewerFormat { .. }
        | StoreError::Open { .. }
        | StoreError::Backup { .. } => None,
    }
}

fn cannot_open(settings: &StoreSettings, mut reason: String) -> StoreError {
    // An unknown family belongs to a newer format, whose version cannot be read without it.
    if reason.contains("Column families not opened") {
        reason += ": run the newer petrel that wrote it";
    }
    StoreError::Open { path: settings.database(), reason }
}

/// The file that an error of RocksDB names.
#[must_use]
pub(crate) fn damaged_file(message: &str) -> Option<PathBuf> {
    let end = message.find(".sst")? + ".sst".len();
    let head = message.get(..end)?;
    let start = head.rfind(char::is_whitespace).map_or(0, |space| space + 1);
    let path = Path::new(head.get(start..)?);
    path.is_absolute().then(|| path.to_path_buf())
}

/// Reads the number of dropped bytes from a line of RocksDB's log.
fn dropped_bytes(line: &str) -> Option<u64> {
    let rest = line.split_once("dropping ")?.1;
    rest.split_once(" bytes")?.0.trim().parse().ok()
}

/// Sets aside a damaged file that was found after opening, using the last handle of the open database; its readable data
/// is kept for the next opening.
///
/// # Errors
/// [`StoreError::Open`] when the list of files cannot be rebuilt without it.
pub(crate) fn set_aside_and_rebuild(
    settings: &StoreSettings,
    db: DB,
    path: &Path,
) -> Result<RepairReport, StoreError> {
    if let Err(error) = salvage::collect(&db, path, &settings.data_dir) {
        tracing::error!(%error, "cannot salvage anything from a damaged file");
    }
    db.cancel_all_background_work(true);
    drop(db);
    let mut report = RepairReport::default();
    // RocksDB does not open all files with the database, so a missing file may be found late.
    if path.exists() {
        set_aside(settings, path, &mut report);
    }
    rebuild(settings, &mut report)?;
    Ok(report)
}

fn set_aside(settings: &StoreSettings, path: &Path, report: &mut RepairReport) {
    let Some(name) = path.file_name() else { return };
    let bytes = path.metadata().map_or(0, |metadata| metadata.len());
    let moved = make_aside(settings).and_then(|directory| {
        let target = directory.join(name);
        std::fs::rename(path, &target).map(|()| target)
    });
    match moved {
        Ok(target) => {
            report.files_set_aside.push(target);
            report.bytes_set_aside += bytes;
        }
        Err(error) => tracing::error!(%error, file = %path.display(), "cannot set a file aside"),
    }
}

/// Lets RocksDB rebuild its list of files from the files themselves, and sets aside those it could not use.
fn rebuild(settings: &StoreSettings, report: &mut RepairReport) -> Result<(), StoreError> {
    let quiet = Arc::new(|_: &str| ());
    let options: Options = database_options(settings, quiet);
    DB::repair(&options, settings.database())
        .map_err(|error| cannot_open(settings, error.into_string()))?;
    report.rebuilt = true;
    let lost = settings.database().join("lost");
    for path in files_with_extension(&lost, "sst") {
        set_aside(settings, &path, report);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_damaged_file_is_read_from_what_rocksdb_says() {
        let message = "Corruption: block checksum mismatch: stored = 1, computed = 2, type = 4  in \
                       /data/store/000012.sst offset 0 size 4032";
        assert_eq!(damaged_file(message), Some(PathBuf::from("/data/store/000012.sst")));
        assert_eq!(damaged_file("Corruption: CURRENT file does not end with newline"), None);
    }

    #[test]
    fn dropped_bytes_are_read_from_the_log() {
        let line = "[db/db_impl_open.cc:1] /data/store/000005.log: dropping 4711 bytes; Corruption";
        assert_eq!(dropped_bytes(line), Some(4711));
        assert_eq!(dropped_bytes("all is well"), None);
    }
}
