//! The store on disk: RocksDB with one writer thread.
//!
//! [`RocksStore::submit`] puts a batch into an inbox. The writer takes everything in it as one group, writes it in one
//! write, syncs at most once, and releases the tickets. The next group fills up while a sync is running, so there is
//! no timer. Readers get the start of a queue from the writer's index.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, RwLock};
use rocksdb::DB;

use crate::durable::change::Change;
use crate::durable::entry::StoredEntry;
use crate::durable::message::{Sequence, SessionId};
use crate::durable::record::Loaded;
use crate::durable::{Batch, Durability, ReadError, Store, StoreState, Ticket};
use crate::store::backup::{BackupReport, back_up};
use crate::store::clock::BrokerClock;
use crate::store::commit_group::{MANY_RECIPIENTS, SHARED_BODY_BYTES, handle};
use crate::store::directory_lock::DirectoryLock;
use crate::store::disk::{Disk, RealDisk};
use crate::store::error::StoreError;
use crate::store::index::Indexes;
use crate::store::open::{Opened, open};
use crate::store::queue_page::{self, BodyCache, PageRange};
use crate::store::repair::RepairReport;
use crate::store::settings::StoreSettings;
use crate::store::statistics::{Statistics, StatisticsSnapshot, read};
use crate::store::upkeep::Upkeep;
use crate::store::writer::Writer;

/// Implements [`Store`] with RocksDB.
pub struct RocksStore {
    engine: Arc<Engine>,
    clock: BrokerClock,
    report: RepairReport,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// The open database and its bookkeeping, used by the store and by its writer thread.
pub(crate) struct Engine {
    /// The settings.
    pub(crate) settings: StoreSettings,
    /// Batches submitted to the writer.
    pub(crate) inbox: Mutex<Inbox>,
    /// Wakes the writer.
    pub(crate) wake: Condvar,
    /// The last durable ticket.
    pub(crate) durable_ticket: AtomicU64,
    /// [`StoreState`].
    pub(crate) state: AtomicU8,
    /// Bytes submitted but not durable.
    pub(crate) pending_bytes: AtomicUsize,
    /// Counters.
    pub(crate) statistics: Statistics,
    /// The database; `None` while it is reopened after a failure.
    pub(crate) db: RwLock<Option<Arc<DB>>>,
    /// The index of queues. The writer locks it while it builds a group.
    pub(crate) indexes: Mutex<Indexes>,
    /// A damaged file found by a reader.
    pub(crate) damaged: Mutex<Option<PathBuf>>,
    bodies: BodyCache,
    lock: Mutex<Option<DirectoryLock>>,
}

/// Batches submitted to the writer.
#[derive(Default)]
pub(crate) struct Inbox {
    /// In order of their tickets.
    pub(crate) batches: Vec<PendingBatch>,
    /// The last ticket given out.
    pub(crate) last_ticket: u64,
    /// Whether the writer is asleep.
    pub(crate) writer_waits: bool,
    /// Whether the store is being closed.
    pub(crate) closing: bool,
}

/// A submitted batch.
pub(crate) struct PendingBatch {
    /// Its ticket.
    pub(crate) ticket: u64,
    /// Its changes.
    pub(crate) batch: Batch,
    /// Its approximate memory.
    pub(crate) bytes: usize,
    /// Whether it has messages whose bodies may be shared, because they are large or go to many queues.
    pub(crate) may_share: bool,
}

impl RocksStore {
    /// Opens the database of a data directory; creates it if it is missing, and repairs it if necessary.
    ///
    /// # Errors
    /// [`StoreError`] when the directory is in use, its format is newer than supported, or nothing can be read.
    pub fn open(settings: StoreSettings) -> Result<(Self, Loaded), StoreError> {
        Self::open_with_disk(settings, Box::new(RealDisk))
    }

    /// As [`Self::open`], with another [`Disk`], for tests of failing writes.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with_disk(
        settings: StoreSettings,
        disk: Box<dyn Disk>,
    ) -> Result<(Self, Loaded), StoreError> {
        let lock = DirectoryLock::acquire(&settings.data_dir)?;
        let Opened { db, loaded, indexes, next_body, clock, report } = open(&settings)?;
        let engine = Arc::new(Engine {
            settings,
            inbox: Mutex::default(),
            wake: Condvar::new(),
            durable_ticket: AtomicU64::new(0),
            state: AtomicU8::new(StoreState::Available as u8),
            pending_bytes: AtomicUsize::new(0),
            statistics: Statistics::default(),
            db: RwLock::new(Some(Arc::new(db))),
            indexes: Mutex::new(indexes),
            damaged: Mutex::new(None),
            bodies: BodyCache::default(),
            lock: Mutex::new(Some(lock)),
        });
        let watched = Arc::clone(&engine);
        let writer = Writer::new(Arc::clone(&engine), disk, clock, next_body);
        let thread = std::thread::Builder::new()
            .name("petrel-store".into())
            .spawn(move || {
                let _alarm = Alarm(watched);
                writer.run();
            })
            .map_err(|source| StoreError::Directory {
                path: engine.settings.data_dir.clone(),
                source,
            })?;
        Ok((Self { engine, clock, report, writer: Mutex::new(Some(thread)) }, loaded))
    }

    /// Broker time, continued from the last run.
    #[must_use]
    pub fn clock(&self) -> BrokerClock {
        self.clock
    }

    /// What was repaired at opening, and what was lost.
    #[must_use]
    pub fn report(&self) -> &RepairReport {
        &self.report
    }

    /// Writes pending batches, stops the writer and closes the database. Calling it again does nothing. Batches that
    /// cannot be written now were never acknowledged.
    pub fn close(&self) {
        let Some(thread) = self.writer.lock().take() else { return };
        self.engine.inbox.lock().closing = true;
        self.engine.wake.notify_one();
        if thread.join().is_err() {
            tracing::error!("the store's writer thread panicked");
        }
        self.engine.set_state(StoreState::Failed);
        if let Some(mut database) = self.engine.db.write().take() {
            // Sync once more for batches whose durability is weaker than `fsync`.
            if let Err(error) = database.flush_wal(true) {
                tracing::warn!(%error, "cannot sync the log while closing the store");
            }
            database.cancel_all_background_work(true);
            // Readers and the reclaimer finish shortly; the directory lock must be held until then.
            while Arc::get_mut(&mut database).is_none() {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        drop(self.engine.lock.lock().take());
    }

    /// Copies the store into an empty or missing directory while it runs; see [`crate::store::backup`]. Blocks for as
    /// long as copying takes: the shell calls it on a blocking thread. `progress` receives bytes done and total
    /// bytes.
    ///
    /// # Errors
    /// [`StoreError`] when the directory is not empty or copying fails.
    pub fn backup(
        &self,
        directory: &Path,
        progress: &dyn Fn(u64, u64),
    ) -> Result<BackupReport, StoreError> {
        let db = self.engine.database()?;
        back_up(db, &self.engine.settings.data_dir, directory, progress)
    }

    /// Counters, and the size of the database on disk and in memory. Queries the file system, so it is not for the
    /// message path.
    #[must_use]
    pub fn statistics(&self) -> StatisticsSnapshot {
        let statistics = &self.engine.statistics;
        let database = self.engine.database().ok();
        StatisticsSnapshot {
            state: self.state(),
            syncs: read(&statistics.syncs),
            batches: read(&statistics.batches),
            written_bytes: read(&statistics.written_bytes),
            failures: read(&statistics.failures),
            unreadable_values: read(&statistics.unreadable_values),
            pending_bytes: self.pending_bytes(),
            disk_bytes: directory_bytes(&self.engine.settings.database()),
            memory_bytes: database.map_or(0, |db| memory_bytes(&db)),
            latency_microseconds: statistics.latency_microseconds(),
        }
    }
}

impl Drop for RocksStore {
    fn drop(&mut self) {
        self.close();
    }
}

impl Upkeep for RocksStore {
    fn statistics(&self) -> StatisticsSnapshot {
        Self::statistics(self)
    }

    fn back_up(
        &self,
        directory: &Path,
        progress: &dyn Fn(u64, u64),
    ) -> Result<BackupReport, StoreError> {
        self.backup(directory, progress)
    }

    fn close(&self) {
        Self::close(self);
    }
}

impl Store for RocksStore {
    fn submit(&self, batch: Batch) -> Ticket {
        let (bytes, may_share) = measure(&batch);
        self.engine.pending_bytes.fetch_add(bytes, Ordering::Relaxed);
        let mut inbox = self.engine.inbox.lock();
        let ticket = inbox.last_ticket + 1;
        let at_once = batch.durability == Durability::Memory
            && self.engine.durable_ticket.load(Ordering::Acquire) == inbox.last_ticket;
        inbox.last_ticket = ticket;
        inbox.batches.push(PendingBatch { ticket, batch, bytes, may_share });
        if at_once {
            self.engine.durable_ticket.store(ticket, Ordering::Release);
        }
        if inbox.writer_waits {
            inbox.writer_waits = false;
            drop(inbox);
            self.engine.wake.notify_one();
        }
        Ticket(ticket)
    }

    fn is_durable(&self, ticket: Ticket) -> bool {
        ticket.0 <= self.engine.durable_ticket.load(Ordering::Acquire)
    }

    fn state(&self) -> StoreState {
        self.engine.state()
    }

    fn pending_bytes(&self) -> usize {
        self.engine.pending_bytes.load(Ordering::Relaxed)
    }

    fn read_queue(
        &self,
        queue: SessionId,
        from: Sequence,
        to: Sequence,
        max_count: usize,
        max_bytes: usize,
    ) -> Result<Vec<StoredEntry>, ReadError> {
        let (start, released) = {
            let indexes = self.engine.indexes.lock();
            let Some(index) = indexes.queue(queue) else { return Ok(Vec::new()) };
            let start = Sequence(index.start).max(from);
            let places = index.released.iter().filter(|_| start < to);
            let released = places.flat_map(|places| places.range(start.0..to.0).copied()).collect();
            (start, released)
        };
        let range = PageRange { session: queue, from: start, to, max_count, max_bytes };
        let db = self.engine.database()?;
        let page = queue_page::read(&db, &range, released, &self.engine.bodies)
            .inspect_err(|error| self.engine.note_damage(error))?;
        let unreadable = &self.engine.statistics.unreadable_values;
        crate::store::statistics::add(unreadable, page.unreadable_values);
        Ok(page.entries)
    }
}

impl Engine {
    /// The open database.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] while it is reopened after a failure.
    pub(crate) fn database(&self) -> Result<Arc<DB>, StoreError> {
        self.db.read().clone().ok_or(StoreError::Unavailable)
    }

    /// Whether batches currently become durable.
    pub(crate) fn state(&self) -> StoreState {
        match self.state.load(Ordering::Acquire) {
            0 => StoreState::Available,
            1 => StoreState::Full,
            _ => StoreState::Failed,
        }
    }

    /// Changes the state.
    pub(crate) fn set_state(&self, state: StoreState) {
        self.state.store(state as u8, Ordering::Release);
    }

    /// Reports a damaged file that a reader found: the writer sets it aside.
    fn note_damage(&self, error: &StoreError) {
        // A read error may be temporary; a wrong checksum is permanent.
        let StoreError::Damaged(message) = error else { return };
        let Some(path) = crate::store::repair::damaged_file(message) else { return };
        tracing::error!(file = %path.display(), "a file of the store is damaged");
        *self.damaged.lock() = Some(path);
        self.wake.notify_one();
    }
}

/// Marks the store as failed if the writer panics, so that this bug does not go unnoticed.
struct Alarm(Arc<Engine>);

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.set_state(StoreState::Failed);
            tracing::error!("the store's writer panicked: nothing becomes durable");
        }
    }
}

fn measure(batch: &Batch) -> (usize, bool) {
    let mut bytes = size_of::<PendingBatch>();
    let mut has_large = false;
    let mut enqueued = 0;
    for change in &batch.changes {
        bytes += size_of::<Change>() + 64;
        let message = || change.message().map_or(0, |message| message.size_bytes());
        let size = change.entry().map_or_else(message, |entry| entry.size_bytes());
        if change.entry().is_some() {
            has_large |= size >= SHARED_BODY_BYTES;
            enqueued += 1;
        }
        bytes += size;
    }
    (bytes, has_large || enqueued >= MANY_RECIPIENTS)
}

/// Bytes of all files of a directory.
#[must_use]
pub(crate) fn directory_bytes(path: &Path) -> u64 {
    let Ok(files) = std::fs::read_dir(path) else { return 0 };
    files.flatten().filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()
}

/// Bytes of memory that RocksDB holds.
fn memory_bytes(db: &DB) -> u64 {
    use rocksdb::properties;
    let mut bytes = 0;
    let mut cache = 0;
    for family in crate::store::family::Family::ALL {
        let Ok(handle) = handle(db, family) else { continue };
        let read = |name| db.property_int_value_cf(handle, name).ok().flatten().unwrap_or(0);
        bytes += read(properties::SIZE_ALL_MEM_TABLES);
        bytes += read(properties::ESTIMATE_TABLE_READERS_MEM);
        cache = cache.max(read(properties::BLOCK_CACHE_USAGE));
    }
    bytes + cache
}
