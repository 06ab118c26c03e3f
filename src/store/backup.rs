//! Backups: a consistent copy of the database with a list of its files and their checksums.
//!
//! The copy is made from a checkpoint (hard links beside the database, created instantly), so a running broker
//! continues meanwhile. Everything that was durable at the time of the checkpoint is in the backup.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rocksdb::DB;
use rocksdb::checkpoint::Checkpoint;

use crate::store::clock::wall_milliseconds;
use crate::store::error::StoreError;

/// The list of files of a backup, written last: a directory without it is not a complete backup.
const MANIFEST: &str = "petrel-backup.json";

/// Where the files are, inside a backup.
const FILES: &str = "store";

/// The size of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct BackupReport {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Progress of copying: bytes done and total bytes.
pub(crate) type Progress<'a> = &'a dyn Fn(u64, u64);

#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Manifest {
    format: u64,
    taken_unix_milliseconds: u64,
    files: Vec<BackedUpFile>,
}

#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct BackedUpFile {
    name: String,
    bytes: u64,
    crc32: u32,
}

/// Copies a database into an empty or missing directory.
///
/// # Errors
/// [`StoreError::Backup`] when the directory is not empty, or copying fails; then it is not a backup.
pub(crate) fn back_up(
    db: Arc<DB>,
    data_dir: &Path,
    target: &Path,
    progress: Progress<'_>,
) -> Result<BackupReport, StoreError> {
    refuse_unless_empty(target)?;
    let checkpoint = data_dir.join(format!("checkpoint-{}", wall_milliseconds()));
    let made = Checkpoint::new(&*db).and_then(|maker| maker.create_checkpoint(&checkpoint));
    // Copying takes long, and the writer may have to reopen the database meanwhile.
    drop(db);
    let result = made
        .map_err(|error| failed(&checkpoint, error.into_string()))
        .and_then(|()| copy_all(&checkpoint, &target.join(FILES), progress))
        .and_then(|files| write_manifest(target, files));
    // These are only our own links, but leftovers take disk space, so a failure to remove them is logged.
    if let Err(error) = std::fs::remove_dir_all(&checkpoint) {
        tracing::warn!(%error, path = %checkpoint.display(), "cannot remove a checkpoint");
    }
    result
}

/// Copies a backup over a data directory whose store is missing; verifies every file on the way.
///
/// # Errors
/// [`StoreError::Backup`] when the backup is incomplete, a checksum differs, or copying fails; then the data directory
/// is unchanged.
pub(crate) fn restore(
    source: &Path,
    data_dir: &Path,
    progress: Progress<'_>,
) -> Result<BackupReport, StoreError> {
    let manifest = read_manifest(source)?;
    let staging = data_dir.join("store.restoring");
    remove_if_present(&staging)?;
    let copied = copy_all(&source.join(FILES), &staging, progress)?;
    for expected in &manifest.files {
        let found = copied.iter().find(|file| file.name == expected.name);
        if found.is_none_or(|found| (found.bytes, found.crc32) != (expected.bytes, expected.crc32))
        {
            remove_if_present(&staging)?;
            return Err(failed(
                source,
                format!("{} is damaged or missing: nothing was restored", expected.name),
            ));
        }
    }
    let store = data_dir.join("store");
    std::fs::rename(&staging, &store).map_err(|error| failed(&store, error.to_string()))?;
    sync_directory(data_dir)?;
    Ok(summary(&copied))
}

/// Reads every file of a backup and compares checksums.
///
/// # Errors
/// [`StoreError::Backup`] for the first difference.
pub(crate) fn verify(source: &Path) -> Result<BackupReport, StoreError> {
    let manifest = read_manifest(source)?;
    for expected in &manifest.files {
        let path = source.join(FILES).join(&expected.name);
        let mut sink = std::io::sink();
        let found = copy_file(&path, &mut sink, &mut |_| ())?;
        if (found.bytes, found.crc32) != (expected.bytes, expected.crc32) {
            return Err(failed(&path, "its checksum differs".into()));
        }
    }
    Ok(summary(&manifest.files))
}

fn summary(files: &[BackedUpFile]) -> BackupReport {
    let bytes = files.iter().map(|file| file.bytes).sum();
    BackupReport { files: files.len() as u64, bytes }
}

/// Fails if a directory is not empty.
///
/// # Errors
/// [`StoreError::Backup`].
pub(crate) fn refuse_unless_empty(path: &Path) -> Result<(), StoreError> {
    let Ok(mut entries) = std::fs::read_dir(path) else { return Ok(()) };
    match entries.next() {
        Some(_) => Err(failed(path, "the directory is not empty".into())),
        None => Ok(()),
    }
}

fn remove_if_present(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(failed(path, error.to_string()))
        }
        _ => Ok(()),
    }
}

fn copy_all(
    source: &Path,
    target: &Path,
    progress: Progress<'_>,
) -> Result<Vec<BackedUpFile>, StoreError> {
    let broken = |error: std::io::Error| failed(target, error.to_string());
    std::fs::create_dir_all(target).map_err(broken)?;
    let paths = files_of(source)?;
    let sizes = paths.iter().filter_map(|path| path.metadata().ok());
    let total: u64 = sizes.map(|metadata| metadata.len()).sum();
    let mut done = 0;
    let mut copied = Vec::new();
    for path in paths {
        let Some(name) = path.file_name() else { continue };
        let mut file = File::create(target.join(name)).map_err(broken)?;
        copied.push(copy_file(&path, &mut file, &mut |bytes| {
            done += bytes;
            progress(done, total.max(done));
        })?);
        file.sync_all().map_err(broken)?;
    }
    sync_directory(target)?;
    Ok(copied)
}

fn files_of(directory: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let entries =
        std::fs::read_dir(directory).map_err(|error| failed(directory, error.to_string()))?;
    let files =
        entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
    let mut paths: Vec<_> = files.map(|file| file.path()).collect();
    paths.sort();
    Ok(paths)
}

fn copy_file(
    source: &Path,
    target: &mut dyn Write,
    copied: &mut dyn FnMut(u64),
) -> Result<BackedUpFile, StoreError> {
    let broken = |error: std::io::Error| failed(source, error.to_string());
    let mut file = File::open(source).map_err(broken)?;
    let mut hasher = crc32fast::Hasher::new();
    let mut buffer = vec![0; 256 * 1024];
    let mut bytes = 0;
    loop {
        let count = file.read(&mut buffer).map_err(broken)?;
        let Some(chunk) = buffer.get(..count).filter(|chunk| !chunk.is_empty()) else { break };
        hasher.update(chunk);
        target.write_all(chunk).map_err(broken)?;
        bytes += count as u64;
        copied(count as u64);
    }
    let name = source.file_name().map(|name| name.to_string_lossy().into_owned());
    Ok(BackedUpFile { name: name.unwrap_or_default(), bytes, crc32: hasher.finalize() })
}

fn write_manifest(target: &Path, files: Vec<BackedUpFile>) -> Result<BackupReport, StoreError> {
    let report = summary(&files);
    let manifest = Manifest { format: 1, taken_unix_milliseconds: wall_milliseconds(), files };
    let path = target.join(MANIFEST);
    let broken = |error: std::io::Error| failed(&path, error.to_string());
    let text = serde_json::to_string_pretty(&manifest)
        .map_err(|error| failed(&path, error.to_string()))?;
    let mut file = File::create(&path).map_err(broken)?;
    file.write_all(text.as_bytes()).map_err(broken)?;
    file.sync_all().map_err(broken)?;
    sync_directory(target)?;
    Ok(report)
}

fn read_manifest(source: &Path) -> Result<Manifest, StoreError> {
    let path = source.join(MANIFEST);
    let text = std::fs::read_to_string(&path)
        .map_err(|error| failed(source, format!("not a complete backup: {MANIFEST}: {error}")))?;
    let manifest: Manifest =
        serde_json::from_str(&text).map_err(|error| failed(&path, error.to_string()))?;
    let plain = |file: &BackedUpFile| Path::new(&file.name).file_name() == Some(file.name.as_ref());
    if manifest.format != 1 || !manifest.files.iter().all(plain) {
        return Err(failed(&path, "it was written by a newer petrel, or changed".into()));
    }
    Ok(manifest)
}

/// Makes the entries of a directory durable.
///
/// # Errors
/// [`StoreError::Backup`] when the operating system refuses.
pub(crate) fn sync_directory(path: &Path) -> Result<(), StoreError> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| failed(path, error.to_string()))
}

fn failed(path: &Path, reason: String) -> StoreError {
    StoreError::Backup { path: path.to_path_buf(), reason }
}
