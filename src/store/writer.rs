//! The writer thread: takes all submitted batches as one group, writes and syncs it once, releases its tickets.
//!
//! A group whose write failed stays in memory, and none of its tickets is released. After a failed write or sync the
//! contents of the disk are unknown, and a sync must not simply be repeated: the database is reopened (which replays
//! its log and writes it to files), and the whole group is written again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rocksdb::DB;

use crate::durable::{CommitListener, Durability, StoreState};
use crate::store::clock::{BrokerClock, HEARTBEAT};
use crate::store::commit_group::{BuiltGroup, CommitGroup, Mode, handle};
use crate::store::disk::{Disk, WriteError};
use crate::store::error::StoreError;
use crate::store::family::Family;
use crate::store::load::Recount;
use crate::store::open::{encode_heartbeat, open_and_read};
use crate::store::operations::Operations;
use crate::store::options::WriteSync;
use crate::store::reclaim::Reclaimer;
use crate::store::rocks::{Engine, PendingBatch};
use crate::store::statistics::{add, read};
use crate::store::value::meta;
use crate::store::{key, repair};

/// A group ends at this many bytes, so that its memory and the time it takes are bounded.
const GROUP_BYTES: usize = 8 * 1024 * 1024;

/// Bytes written between two checks of the free disk space.
const SPACE_CHECK_BYTES: usize = 4 * 1024 * 1024;

/// Time between two checks.
const SPACE_CHECK_PERIOD: Duration = Duration::from_secs(1);

/// How often the records of changed queues are written, which bounds how much is read after a crash.
const CHECKPOINT: Duration = Duration::from_secs(4);

/// First and longest pause between recovery attempts.
const RECOVERY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(15));

/// The writer.
pub(crate) struct Writer {
    engine: Arc<Engine>,
    disk: Box<dyn Disk>,
    clock: BrokerClock,
    next_body: u64,
    group_bytes: usize,
    reclaimer: Reclaimer,
    last_space_check: Option<Instant>,
    unchecked_bytes: usize,
    closing: bool,
    last_heartbeat: Instant,
    last_checkpoint: Instant,
    changed: bool,
}

/// Why a group did not become durable, which determines what must be done before the next attempt.
enum Trouble {
    /// The disk is nearly full; nothing was written.
    LowSpace,
    /// A write failed.
    Write(WriteError),
    /// Data that the group depends on could not be read, or the database could not be opened.
    Read(StoreError),
}

impl Writer {
    /// Creates a writer for an opened store.
    #[must_use]
    pub(crate) fn new(
        engine: Arc<Engine>,
        disk: Box<dyn Disk>,
        clock: BrokerClock,
        next_body: u64,
    ) -> Self {
        let now = Instant::now();
        Self {
            engine,
            disk,
            clock,
            next_body,
            group_bytes: 64 * 1024,
            reclaimer: Reclaimer::default(),
            last_space_check: None,
            unchecked_bytes: 0,
            closing: false,
            last_heartbeat: now,
            last_checkpoint: now,
            changed: false,
        }
    }

    /// Runs until the store is closed.
    pub(crate) fn run(mut self) {
        let mut backlog = Vec::new();
        loop {
            let closing = self.collect(&mut backlog);
            self.set_aside_damage();
            let rest = split_group(&mut backlog);
            let group = std::mem::replace(&mut backlog, rest);
            let last = closing && backlog.is_empty();
            self.closing = last;
            if !self.make_durable(group, &backlog) || last {
                break;
            }
        }
    }

    /// Adds submitted batches to the backlog; waits if there are none. Returns whether the store is being closed.
    fn collect(&mut self, backlog: &mut Vec<PendingBatch>) -> bool {
        let engine = Arc::clone(&self.engine);
        let mut inbox = engine.inbox.lock();
        while backlog.is_empty() && inbox.batches.is_empty() && !inbox.closing {
            let due = self.next_duty();
            inbox.writer_waits = true;
            let timed_out = engine.wake.wait_until(&mut inbox, due).timed_out();
            inbox.writer_waits = false;
            if timed_out || engine.damaged.lock().is_some() {
                break;
            }
        }
        if backlog.is_empty() {
            std::mem::swap(backlog, &mut inbox.batches);
        } else {
            backlog.append(&mut inbox.batches);
        }
        inbox.closing
    }

    fn next_duty(&self) -> Instant {
        let heartbeat = self.last_heartbeat + HEARTBEAT;
        if self.changed { heartbeat.min(self.last_checkpoint + CHECKPOINT) } else { heartbeat }
    }

    /// Writes a group, however long it takes; `rest` are the batches collected behind it. False if the store is closed
    /// first.
    fn make_durable(&mut self, group: Vec<PendingBatch>, rest: &[PendingBatch]) -> bool {
        let mut mode = Mode::First;
        let mut wait = RECOVERY.0;
        loop {
            let started = Instant::now();
            let trouble = match self.attempt(&group, mode) {
                Ok(()) => {
                    self.announce_durable(group, rest, started);
                    return true;
                }
                Err(trouble) => trouble,
            };
            self.report(&trouble);
            if let Trouble::Write(WriteError::Damaged(message)) = &trouble {
                // Merging files finds damage, too, and would do so again after every opening.
                *self.engine.damaged.lock() = repair::damaged_file(message);
                self.set_aside_damage();
            }
            let must_reopen = !matches!(trouble, Trouble::LowSpace);
            if must_reopen {
                mode = Mode::Again;
            }
            loop {
                if self.wait_or_closing(wait) {
                    return false;
                }
                wait = (wait * 2).min(RECOVERY.1);
                if self.has_space() && (!must_reopen || self.reopen(Recount::Recent)) {
                    break;
                }
            }
        }
    }

    fn attempt(&mut self, group: &[PendingBatch], mode: Mode) -> Result<(), Trouble> {
        self.check_space()?;
        let db = self.engine.database().map_err(Trouble::Read)?;
        let engine = Arc::clone(&self.engine);
        let mut indexes = engine.indexes.lock();
        let mut build = CommitGroup::new(
            &db,
            &mut indexes,
            &mut self.next_body,
            mode,
            self.group_bytes * 5 / 4,
        )
        .map_err(Trouble::Read)?;
        let durability = apply(group, &mut build).map_err(Trouble::Read)?;
        let now = Instant::now();
        let (mut heartbeat, mut checkpoint) = (false, false);
        if self.closing || now.duration_since(self.last_heartbeat) >= HEARTBEAT {
            build.put_meta(meta::CLOCK, &encode_heartbeat(self.clock.heartbeat()));
            heartbeat = true;
        }
        if heartbeat || now.duration_since(self.last_checkpoint) >= CHECKPOINT {
            build.save_dirty();
            checkpoint = true;
        }
        let BuiltGroup { operations, searches, removals } = build.finish();
        drop(indexes);
        self.write(&db, &operations, durability)?;
        self.changed = !checkpoint;
        if heartbeat {
            self.last_heartbeat = now;
            self.consider_memory(&db);
        }
        if checkpoint {
            self.last_checkpoint = now;
            self.reclaimer.consider(&db, || self.engine.indexes.lock().live_bytes());
        }
        add(&self.engine.statistics.removals, removals);
        for session in searches {
            if let Err(error) = self.search_start(&db, session) {
                tracing::warn!(%error, "cannot find the start of a queue");
            }
        }
        Ok(())
    }

    fn consider_memory(&mut self, db: &Arc<DB>) {
        if !self.closing {
            let written_bytes = read(&self.engine.statistics.written_bytes);
            self.reclaimer.consider_memory(db, &self.engine.settings, written_bytes);
        }
    }

    fn write(
        &mut self,
        db: &DB,
        operations: &Operations,
        durability: Durability,
    ) -> Result<(), Trouble> {
        if operations.is_empty() {
            return Ok(());
        }
        let bytes = operations.size_bytes();
        let sync = if durability == Durability::Fsync { WriteSync::Yes } else { WriteSync::No };
        self.disk.write(db, operations, sync).map_err(Trouble::Write)?;
        self.unchecked_bytes += bytes;
        // Slightly larger than the last groups, so that the next one rarely has to grow while it is built.
        self.group_bytes = bytes.max(self.group_bytes - self.group_bytes / 8).max(4096);
        let statistics = &self.engine.statistics;
        add(&statistics.written_bytes, bytes as u64);
        if sync == WriteSync::Yes {
            add(&statistics.syncs, 1);
        }
        Ok(())
    }

    /// Announces the tickets of a durable group, and those of the batches directly behind it that promise nothing:
    /// they are written with the next group. `rest` comes before what was submitted meanwhile.
    fn announce_durable(
        &mut self,
        group: Vec<PendingBatch>,
        rest: &[PendingBatch],
        started: Instant,
    ) {
        // Before the tickets, so that whoever sees them released also sees the store available.
        self.recovered();
        if group.is_empty() {
            return;
        }
        let engine = Arc::clone(&self.engine);
        let mut bytes = 0;
        for pending in &group {
            bytes += pending.bytes;
            for change in &pending.batch.changes {
                if let Some(entry) = change.entry() {
                    entry.end_write();
                }
            }
        }
        let statistics = &engine.statistics;
        add(&statistics.batches, group.len() as u64);
        statistics.record_commit(started.elapsed());
        engine.pending_bytes.fetch_sub(bytes, Ordering::Relaxed);
        let last = group.last().map_or(0, |pending| pending.ticket);
        {
            let inbox = engine.inbox.lock();
            let last = (rest.iter().chain(&inbox.batches))
                .take_while(|pending| pending.batch.durability == Durability::Memory)
                .last()
                .map_or(last, |pending| pending.ticket);
            engine.durable_ticket.fetch_max(last, Ordering::AcqRel);
        }
        notify(group);
    }

    /// Searches for the first message of a queue from which many entries were removed.
    fn search_start(
        &mut self,
        db: &DB,
        session: crate::durable::message::SessionId,
    ) -> Result<(), StoreError> {
        let mut indexes = self.engine.indexes.lock();
        let Some(index) = indexes.queue_mut(session) else { return Ok(()) };
        let mut entries = db.raw_iterator_cf(handle(db, Family::Queue)?);
        entries.seek(key::place(session, crate::durable::message::Sequence(index.start)));
        let found = entries.key().and_then(key::split_place).filter(|(id, _)| *id == session);
        let first = found.map_or(index.end, |(_, sequence)| sequence.0);
        entries.status()?;
        let first = index.first_released().map_or(first, |released| released.min(first));
        index.move_start(first);
        Ok(())
    }

    /// Checks the free space occasionally, because each check costs a system call.
    fn check_space(&mut self) -> Result<(), Trouble> {
        let checked = self.last_space_check.map(|checked| checked.elapsed());
        let is_recent = checked.is_some_and(|ago| ago < SPACE_CHECK_PERIOD);
        if is_recent && self.unchecked_bytes < SPACE_CHECK_BYTES {
            return Ok(());
        }
        if !self.has_space() {
            self.last_space_check = None;
            return Err(Trouble::LowSpace);
        }
        self.last_space_check = Some(Instant::now());
        self.unchecked_bytes = 0;
        Ok(())
    }

    fn has_space(&mut self) -> bool {
        let settings = &self.engine.settings;
        let free = self.disk.free_bytes(&settings.data_dir);
        // A shortage ends above the limit plus a margin, so that the state does not flap with each group.
        let margin = match self.engine.state() {
            StoreState::Full => settings.min_free_bytes / 8,
            StoreState::Available | StoreState::Failed => 0,
        };
        free.is_none_or(|free| free >= settings.min_free_bytes + margin)
    }

    fn report(&self, trouble: &Trouble) {
        let (state, error) = match trouble {
            Trouble::LowSpace => {
                let floor = self.engine.settings.min_free_bytes;
                (StoreState::Full, format!("less than {floor} bytes of disk space are free"))
            }
            Trouble::Write(error) => (error.state(), error.to_string()),
            Trouble::Read(error) => (StoreState::Failed, error.to_string()),
        };
        self.engine.statistics.record_failure();
        if self.engine.state() != state {
            tracing::error!(
                ?state,
                error,
                "nothing becomes durable: QoS 1 and 2 messages are not acknowledged until this ends"
            );
        }
        self.engine.set_state(state);
    }

    fn recovered(&self) {
        if self.engine.state() != StoreState::Available {
            self.engine.set_state(StoreState::Available);
            tracing::info!("the store works again");
        }
    }

    /// Waits; true when the store is being closed.
    fn wait_or_closing(&self, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        let mut inbox = self.engine.inbox.lock();
        while !inbox.closing && !self.engine.wake.wait_until(&mut inbox, until).timed_out() {}
        inbox.closing
    }

    /// Reopens the database. False if that fails; then it is tried again later.
    fn reopen(&mut self, recount: Recount) -> bool {
        drop(self.take_database());
        match open_and_read(&self.engine.settings, recount) {
            Ok((db, contents, report)) => {
                report.log();
                *self.engine.indexes.lock() = contents.index.indexes;
                self.next_body = self.next_body.max(contents.index.next_body);
                *self.engine.db.write() = Some(Arc::new(db));
                true
            }
            Err(error) => {
                self.engine.statistics.record_failure();
                tracing::debug!(%error, "the store cannot be opened again yet");
                false
            }
        }
    }

    /// Takes exclusive ownership of the database.
    fn take_database(&self) -> Option<DB> {
        let mut held = self.engine.db.write().take()?;
        held.cancel_all_background_work(false);
        // Readers hold it for one page at most.
        loop {
            match Arc::try_unwrap(held) {
                Ok(db) => return Some(db),
                Err(shared) => held = shared,
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Sets aside a damaged file that a reader found, and continues with the rest.
    fn set_aside_damage(&mut self) {
        let Some(path) = self.engine.damaged.lock().take().filter(|path| path.exists()) else {
            return;
        };
        let Some(db) = self.take_database() else { return };
        match repair::set_aside_and_rebuild(&self.engine.settings, db, &path) {
            Ok(report) => report.log(),
            Err(error) => self.report(&Trouble::Read(error)),
        }
        if !self.reopen(Recount::Everything) {
            self.report(&Trouble::Read(StoreError::Unavailable));
        }
    }
}

/// Splits a group off a backlog; returns the rest.
fn split_group(backlog: &mut Vec<PendingBatch>) -> Vec<PendingBatch> {
    let mut bytes = 0;
    let end = backlog.iter().position(|pending| {
        let full = bytes >= GROUP_BYTES;
        bytes += pending.bytes;
        full
    });
    end.map_or_else(Vec::new, |end| backlog.split_off(end))
}

/// Applies the changes of a group; returns the durability that its writes need.
fn apply(group: &[PendingBatch], build: &mut CommitGroup<'_>) -> Result<Durability, StoreError> {
    for pending in group.iter().filter(|pending| pending.may_share) {
        let entries = pending.batch.changes.iter().filter_map(|change| change.entry());
        entries.for_each(|entry| build.note_shareable(&entry.message));
    }
    let mut durability = Durability::Memory;
    for pending in group {
        let before = build.len();
        for change in &pending.batch.changes {
            build.apply(change)?;
        }
        // A batch whose messages were all acknowledged meanwhile needs no write.
        if build.len() > before {
            durability = durability.max(pending.batch.durability);
        }
    }
    Ok(durability)
}

/// Notifies each listener of the group once.
fn notify(group: Vec<PendingBatch>) {
    let mut listeners: Vec<Arc<dyn CommitListener>> = Vec::new();
    for pending in group {
        listeners.extend(pending.batch.listeners);
    }
    listeners.sort_unstable_by_key(|listener| Arc::as_ptr(listener).cast::<()>().addr());
    listeners.dedup_by_key(|listener| Arc::as_ptr(listener).cast::<()>().addr());
    for listener in listeners {
        listener.handle_commit();
    }
}
