//! `petrel store`: checks, repairs, inspects, backs up and restores the store of a stopped broker.

use std::cmp::Reverse;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indicatif::{ProgressBar, ProgressStyle};
use rocksdb::{DB, WriteBatch};

use crate::durable::record::QueueOwner;
use crate::store::backup::{self, BackupReport};
use crate::store::clock::wall_milliseconds;
use crate::store::commit_group::handle;
use crate::store::directory_lock::DirectoryLock;
use crate::store::error::StoreError;
use crate::store::family::Family;
use crate::store::load::{Recount, load_index};
use crate::store::log_check::{self, LogDamage};
use crate::store::migration;
use crate::store::migration::{FORMAT, read_format, read_incarnation};
use crate::store::open::read_heartbeat;
use crate::store::options::{WriteSync, database_options, family_descriptors, write_options};
use crate::store::repair::{self, RepairReport};
use crate::store::salvage::{self, Salvage};
use crate::store::settings::{StoreSettings, database};
use crate::store::survey::{Faults, Survey, survey};
use crate::store::value::{self, meta};

/// Incarnations skipped by a restore, because Session ids used since the backup must not be used again.
const RESTORED_INCARNATIONS: u32 = 1024;

/// Queues listed by `stats`.
const LONGEST_QUEUES: usize = 10;

/// A command on the store of a stopped broker.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum StoreCommand {
    /// Read everything and report damage; changes nothing
    Check,
    /// Set unreadable data aside, repair the rest, and report what was lost
    Repair,
    /// Show the contents of the store and the longest queues
    Stats,
    /// Copy the store to an empty directory, with checksums
    Backup {
        /// The backup directory
        directory: PathBuf,
    },
    /// Restore a backup
    Restore {
        /// The backup directory
        directory: PathBuf,
        /// Replace an existing store, which is kept as `replaced-…`
        #[arg(long)]
        force: bool,
    },
}

/// The result of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// There is no damage, or it was repaired.
    Sound,
    /// There is damage, which the exit code reports.
    Damaged,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum MaintenanceError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no store where one was expected.
    #[error("there is no store in {}", .0.display())]
    Missing(PathBuf),
    /// There is a store, which would be overwritten.
    #[error("there already is a store in {}: add --force to replace it", .0.display())]
    Occupied(PathBuf),
    /// The output cannot be written.
    #[error("output: {0}")]
    Output(#[from] std::io::Error),
}

/// Runs a command on the store of a data directory. The result is written to `output`, progress to the terminal.
///
/// # Errors
/// [`MaintenanceError`], for example if a broker is running on the directory.
pub fn run(
    command: &StoreCommand,
    data_dir: &Path,
    output: &mut dyn Write,
) -> Result<Health, MaintenanceError> {
    let settings = StoreSettings::new(data_dir);
    let is_restore = matches!(command, StoreCommand::Restore { .. });
    if !is_restore && !database(data_dir).is_dir() {
        return Err(MaintenanceError::Missing(data_dir.to_path_buf()));
    }
    let _lock = DirectoryLock::acquire(data_dir)?;
    match command {
        StoreCommand::Check => check(&settings, output),
        StoreCommand::Repair => mend(&settings, output),
        StoreCommand::Stats => stats(&settings, output),
        StoreCommand::Backup { directory } => {
            let db = Arc::new(open_read_write(&settings)?);
            let bar = bytes_bar("backing up");
            let report = backup::back_up(db, data_dir, directory, &|done, total| {
                bar.set_length(total);
                bar.set_position(done);
            })?;
            bar.finish_and_clear();
            say_copied(output, "backed up", report, directory)?;
            Ok(Health::Sound)
        }
        StoreCommand::Restore { directory, force } => {
            let existing = if *force { Existing::SetAside } else { Existing::Refuse };
            restore(&settings, directory, existing, output)
        }
    }
}

fn check(settings: &StoreSettings, output: &mut dyn Write) -> Result<Health, MaintenanceError> {
    let db = open_read_only(settings)?;
    let format = read_format(&db)?;
    writeln!(output, "format {format}, this petrel supports up to {FORMAT}")?;
    if format < FORMAT {
        writeln!(
            output,
            "an older format cannot be checked: start the broker, or run `petrel store repair`, to migrate it"
        )?;
        return Ok(Health::Sound);
    }
    let bar = values_bar("checking", &db);
    let result = survey(&db, Faults::Count, &|read| bar.set_position(read));
    bar.finish_and_clear();
    let is_log_damaged = log_check::is_damaged(&log_check::logs(&settings.database()))?;
    if is_log_damaged {
        writeln!(output, "the log is damaged in the middle; the rest is not counted here")?;
    }
    match result {
        Ok(found) => {
            say_survey(output, &found)?;
            if !found.has_faults() && !is_log_damaged {
                writeln!(output, "no damage found")?;
                return Ok(Health::Sound);
            }
        }
        Err(StoreError::Read(reason) | StoreError::Damaged(reason)) => {
            writeln!(output, "a file cannot be read: {reason}")?;
        }
        Err(error) => return Err(error.into()),
    }
    writeln!(output, "`petrel store repair` sets unreadable data aside and repairs the rest")?;
    Ok(Health::Damaged)
}

fn mend(settings: &StoreSettings, output: &mut dyn Write) -> Result<Health, MaintenanceError> {
    let mut report = RepairReport::default();
    let found = loop {
        let (db, opened) = repair::open_or_repair(settings)?;
        report.absorb(opened);
        let bar = values_bar("repairing", &db);
        let restored = salvage::restore(&db, &settings.data_dir);
        let result = restored.and_then(|salvage| {
            report.salvage.absorb(salvage);
            migration::migrate(&db)?;
            survey(&db, Faults::Mend, &|read| bar.set_position(read))
        });
        bar.finish_and_clear();
        match result {
            Ok(found) => break found,
            Err(error) => {
                let Some(path) = repair::damage_of(&error) else { return Err(error.into()) };
                report.absorb(repair::set_aside_and_rebuild(settings, db, &path)?);
            }
        }
    };
    say_survey(output, &found)?;
    writeln!(
        output,
        "set aside {} files of {} bytes; cut {} bytes off the log",
        report.files_set_aside.len(),
        report.bytes_set_aside,
        report.dropped_log_bytes
    )?;
    for path in &report.files_set_aside {
        writeln!(output, "  {}", path.display())?;
    }
    let Salvage { values, holes } = report.salvage;
    if holes > 0 {
        writeln!(output, "salvaged {values} values from them; {holes} places could not be read")?;
    }
    let LogDamage { holes, bytes, operations } = report.log_damage;
    if holes > 0 {
        writeln!(
            output,
            "{holes} holes in the log: {bytes} bytes, {operations} changes are missing"
        )?;
    }
    let nothing = !found.has_faults() && !report.has_losses();
    writeln!(output, "{}", if nothing { "no damage found" } else { "repaired" })?;
    Ok(Health::Sound)
}

fn stats(settings: &StoreSettings, output: &mut dyn Write) -> Result<Health, MaintenanceError> {
    let db = open_read_only(settings)?;
    let format = read_format(&db)?;
    writeln!(output, "format {format}")?;
    writeln!(output, "incarnation {}", read_incarnation(&db)?)?;
    if let Some(last) = read_heartbeat(&db)? {
        let seconds = wall_milliseconds().saturating_sub(last.wall_milliseconds) / 1000;
        writeln!(output, "last heartbeat {seconds} s ago by the wall clock")?;
    }
    writeln!(output, "{:<16} {:>12} {:>14}", "family", "about keys", "bytes in files")?;
    for family in Family::ALL {
        let Ok(handle) = handle(&db, family) else { continue };
        let keys = db.property_int_value_cf(handle, rocksdb::properties::ESTIMATE_NUM_KEYS);
        let keys = keys.ok().flatten().unwrap_or(0);
        let bytes = db.get_column_family_metadata_cf(handle).size;
        writeln!(output, "{:<16} {keys:>12} {bytes:>14}", family.name())?;
    }
    if format < FORMAT {
        writeln!(output, "an older format: start the broker to migrate it")?;
        return Ok(Health::Sound);
    }
    let index = load_index(&db, Recount::Recent)?;
    let sessions = index.sessions.iter().map(|found| (&found.record.client_id, &found.queue));
    let groups = index.queues.iter().filter_map(|queue| match &queue.record.owner {
        QueueOwner::Group { filter } => Some((filter, queue)),
        QueueOwner::Session => None,
    });
    let mut queues: Vec<_> = sessions.chain(groups).collect();
    let messages: u64 = queues.iter().map(|(_, queue)| queue.message_count).sum();
    let bytes: u64 = queues.iter().map(|(_, queue)| queue.message_bytes).sum();
    let sessions = index.sessions.len();
    writeln!(output, "{sessions} sessions, {messages} messages of {bytes} bytes queued")?;
    queues.sort_by_key(|(_, queue)| Reverse(queue.message_count));
    for (name, queue) in queues.iter().take(LONGEST_QUEUES) {
        let (messages, bytes) = (queue.message_count, queue.message_bytes);
        if messages > 0 {
            writeln!(output, "{messages:>12} messages {bytes:>14} bytes  {name}")?;
        }
    }
    Ok(Health::Sound)
}

/// What happens to a store that is not empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Existing {
    Refuse,
    SetAside,
}

fn restore(
    settings: &StoreSettings,
    source: &Path,
    existing: Existing,
    output: &mut dyn Write,
) -> Result<Health, MaintenanceError> {
    let store = settings.database();
    backup::verify(source)?;
    let occupied = backup::refuse_unless_empty(&store).is_err();
    if occupied && existing == Existing::Refuse {
        return Err(MaintenanceError::Occupied(settings.data_dir.clone()));
    }
    if store.exists() {
        let aside = settings.data_dir.join(format!("replaced-{}", wall_milliseconds()));
        std::fs::rename(&store, &aside)?;
        if occupied {
            writeln!(output, "the previous store is now {}", aside.display())?;
        } else {
            std::fs::remove_dir(&aside)?;
        }
    }
    let bar = bytes_bar("restoring");
    let report = backup::restore(source, &settings.data_dir, &|done, total| {
        bar.set_length(total);
        bar.set_position(done);
    })?;
    bar.finish_and_clear();
    let db = open_read_write(settings)?;
    let incarnation = read_incarnation(&db)?.saturating_add(RESTORED_INCARNATIONS);
    let mut batch = WriteBatch::default();
    batch.put(meta::INCARNATION, value::encode_numbers([u64::from(incarnation)]));
    db.write_opt(batch, &write_options(WriteSync::Yes)).map_err(StoreError::from)?;
    say_copied(output, "restored", report, source)?;
    Ok(Health::Sound)
}

fn open_read_write(settings: &StoreSettings) -> Result<DB, StoreError> {
    let options = database_options(settings, Arc::new(|_| ()));
    DB::open_cf_descriptors(&options, settings.database(), family_descriptors(settings))
        .map_err(|error| cannot_open(settings, error))
}

fn open_read_only(settings: &StoreSettings) -> Result<DB, StoreError> {
    let mut options = database_options(settings, Arc::new(|_| ()));
    options.create_if_missing(false);
    options.create_missing_column_families(false);
    // A store of an older format lacks the newer families.
    let present = DB::list_cf(&options, settings.database()).unwrap_or_default();
    let mut families = family_descriptors(settings);
    families.retain(|family| present.is_empty() || present.iter().any(|it| it == family.name()));
    DB::open_cf_descriptors_read_only(&options, settings.database(), families, false)
        .map_err(|error| cannot_open(settings, error))
}

fn cannot_open(settings: &StoreSettings, error: rocksdb::Error) -> StoreError {
    StoreError::Open { path: settings.database(), reason: error.into_string() }
}

fn say_survey(output: &mut dyn Write, found: &Survey) -> std::io::Result<()> {
    for (family, count) in Family::ALL.iter().zip(found.values) {
        writeln!(output, "{count:>12}  {}", family.name())?;
    }
    writeln!(output, "{} messages of {} bytes queued", found.messages, found.message_bytes)?;
    let faults = [
        (found.unreadable, "values cannot be decoded"),
        (found.orphans, "values belong to no session"),
        (found.stale, "entries are before the start of their queue"),
        (found.missing_bodies, "entries have no shared body"),
        (found.wrong_references, "shared bodies have a wrong count of references"),
    ];
    for (count, what) in faults.iter().filter(|(count, _)| *count > 0) {
        writeln!(output, "{count} {what}")?;
    }
    Ok(())
}

fn say_copied(
    output: &mut dyn Write,
    what: &str,
    report: BackupReport,
    directory: &Path,
) -> std::io::Result<()> {
    let BackupReport { files, bytes } = report;
    writeln!(output, "{what} {files} files of {bytes} bytes: {}", directory.display())
}

fn bytes_bar(what: &'static str) -> ProgressBar {
    bar(what, 0, "{msg} {bar:40} {bytes}/{total_bytes} {eta}")
}

fn values_bar(what: &'static str, db: &DB) -> ProgressBar {
    let keys = |family| {
        let handle = handle(db, family).ok()?;
        db.property_int_value_cf(handle, rocksdb::properties::ESTIMATE_NUM_KEYS).ok().flatten()
    };
    let total = Family::ALL.into_iter().filter_map(keys).sum();
    bar(what, total, "{msg} {bar:40} {human_pos}/{human_len} values {eta}")
}

fn bar(what: &'static str, length: u64, template: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(template);
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style).with_message(what)
}
