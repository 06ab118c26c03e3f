//! Distinguishes damage in the middle of the log from a torn end, and repairs it before RocksDB reads the log.
//!
//! RocksDB stops at the first incomplete record. That is right at the end of a log torn by a power cut, because nothing
//! after it was acknowledged. In the middle it is wrong: one flipped bit would lose everything after it. So the
//! fragments are checked first. If good ones follow a bad one, or sequence numbers are missing, the logs are rewritten
//! from everything that is good, and the missing parts are counted.

use std::fs::{File, read, rename};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::store::log_format::{
    self, BATCH_HEADER_BYTES, BLOCK_BYTES, Part, announced_end, batch, batch_header, fragment_at,
    next_start, whole_operations, write_record,
};

/// Bytes read at a time while checking: a multiple of a block.
const CHUNK_BYTES: usize = 32 * BLOCK_BYTES;

/// The first operations after a hole are not trusted, because their start is a guess.
const DOUBTFUL_OPERATIONS: u32 = 2;

/// What is missing from the middle of the logs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogDamage {
    /// Number of holes.
    pub holes: u64,
    /// Damaged bytes.
    pub(crate) bytes: u64,
    /// Missing operations (a message in, a message out, a record), by their sequence numbers.
    pub operations: u64,
}

impl LogDamage {
    /// Adds the result of another check.
    pub(crate) fn absorb(&mut self, other: Self) {
        self.holes += other.holes;
        self.bytes += other.bytes;
        self.operations += other.operations;
    }
}

/// A log of the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Log {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Its number, which gives the order.
    pub(crate) number: u64,
}

/// The logs of a database, oldest first.
#[must_use]
pub(crate) fn logs(database: &Path) -> Vec<Log> {
    let files = std::fs::read_dir(database).into_iter().flatten().flatten();
    let log = |path: PathBuf| {
        let number = path.file_stem()?.to_str()?.parse().ok()?;
        (path.extension()? == "log").then_some(Log { path, number })
    };
    let mut logs: Vec<_> = files.filter_map(|file| log(file.path())).collect();
    logs.sort_by_key(|log| log.number);
    logs
}

/// Whether anything is missing from the middle of the logs. Cheap, because it runs at every opening.
///
/// # Errors
/// A log cannot be read.
pub(crate) fn is_damaged(logs: &[Log]) -> io::Result<bool> {
    let mut next = None;
    for log in logs {
        let mut look = Look { next, number: log.number, ..Look::default() };
        let mut file = File::open(&log.path)?;
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let length = read_full(&mut file, &mut chunk)?;
            if length == 0 {
                break;
            }
            look.chunk(&chunk[..length]);
            if look.is_damaged {
                return Ok(true);
            }
        }
        next = look.next;
    }
    Ok(false)
}

fn read_full(file: &mut File, chunk: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < chunk.len() {
        match file.read(&mut chunk[filled..])? {
            0 => break,
            more => filled += more,
        }
    }
    Ok(filled)
}

/// Walks through a log from fragment to fragment.
#[derive(Default)]
struct Look {
    number: u64,
    /// The sequence number that the next record should have.
    next: Option<u64>,
    has_ended: bool,
    is_damaged: bool,
}

impl Look {
    fn chunk(&mut self, chunk: &[u8]) {
        let mut at = 0;
        while !self.has_ended && at < chunk.len() {
            let Some(fragment) = fragment_at(chunk, at, self.number) else {
                self.has_ended = true;
                self.is_damaged = resume(chunk, at, self.number).is_some();
                return;
            };
            if matches!(fragment.part, Part::Whole | Part::First) {
                self.record(fragment.content);
            }
            at = next_start(fragment.end);
        }
        // After its end a log has no valid fragments.
        let mut starts = (at.next_multiple_of(BLOCK_BYTES)..chunk.len()).step_by(BLOCK_BYTES);
        self.is_damaged |= starts.any(|start| fragment_at(chunk, start, self.number).is_some());
    }

    fn record(&mut self, record: &[u8]) {
        let Some((sequence, count)) = batch_header(record) else {
            // Cut off by the end of its block: the next fragment looks the same as one after a hole.
            self.next = None;
            return;
        };
        self.is_damaged |= self.next.is_some_and(|next| sequence > next);
        self.next = Some(sequence + u64::from(count));
    }
}

/// The next fragment after an incomplete one.
fn resume(log: &[u8], at: usize, number: u64) -> Option<usize> {
    let is_whole = |at: &usize| fragment_at(log, *at, number).is_some();
    let announced = announced_end(log, at, number).map(next_start);
    if let Some(next) = announced.filter(is_whole) {
        return Some(next);
    }
    // Each block with content starts with a fragment, so the last such block bounds the search.
    let block_end = (at / BLOCK_BYTES + 1) * BLOCK_BYTES;
    let last = (block_end..log.len()).step_by(BLOCK_BYTES).rfind(is_whole);
    (at + 1..=last.unwrap_or(block_end - 1)).find(is_whole)
}

/// Rewrites the logs without the damaged parts; each keeps its number. The caller must keep the old ones.
///
/// # Errors
/// A log cannot be read or written. Logs that were not rewritten yet are unchanged.
pub(crate) fn mend(logs: &[Log], scratch: &Path) -> io::Result<LogDamage> {
    let mut salvage = Salvage::default();
    for log in logs {
        let content = read(&log.path)?;
        let mut mended = Vec::with_capacity(content.len());
        for piece in salvage.pieces(&content, log.number) {
            write_record(&mut mended, &piece, log.number);
        }
        let mut file = File::create(scratch)?;
        file.write_all(&mended)?;
        file.sync_all()?;
        rename(scratch, &log.path)?;
    }
    if let Some(directory) = logs.first().and_then(|log| log.path.parent()) {
        File::open(directory)?.sync_all()?;
    }
    Ok(salvage.finish())
}

/// Reassembles records from fragments with holes between them.
#[derive(Default)]
struct Salvage {
    damage: LogDamage,
    next: Option<u64>,
    /// The record being reassembled.
    open: Open,
    /// Operations whose sequence number follows from the next record.
    unplaced: Option<Vec<u8>>,
    /// Where a record with a hole in it should end.
    owed: Option<u64>,
    /// Unusable bytes.
    mended: Vec<Vec<u8>>,
}

#[derive(Default)]
enum Open {
    #[default]
    None,
    /// From its start on.
    Head(Vec<u8>),
    /// From somewhere after a hole.
    Behind(Vec<u8>),
}

impl Salvage {
    fn pieces(&mut self, log: &[u8], number: u64) -> Vec<Vec<u8>> {
        let mut at = 0;
        while at < log.len() {
            let Some(fragment) = fragment_at(log, at, number) else {
                let Some(next) = resume(log, at, number) else { break };
                self.damage.bytes += (next - at) as u64;
                self.damage.holes += 1;
                self.hole();
                at = next;
                continue;
            };
            self.fragment(fragment.part, fragment.content);
            at = next_start(fragment.end);
        }
        // A record without an end was torn off, or its end is missing.
        if let Open::Head(_) = self.open {
            self.cut();
        }
        self.open = Open::None;
        self.place_unplaced(None);
        std::mem::take(&mut self.mended)
    }

    /// The damage found, after everything was read.
    fn finish(self) -> LogDamage {
        let missing = self.owed.zip(self.next).map_or(0, |(owed, next)| owed.saturating_sub(next));
        LogDamage { operations: self.damage.operations + missing, ..self.damage }
    }

    fn fragment(&mut self, part: Part, content: &[u8]) {
        match part {
            Part::Note => {}
            Part::Whole => {
                self.cut();
                self.whole(content);
            }
            Part::First => {
                self.cut();
                self.open = Open::Head(content.to_vec());
            }
            Part::Middle => match &mut self.open {
                Open::Head(bytes) | Open::Behind(bytes) => bytes.extend_from_slice(content),
                Open::None => self.open = Open::Behind(content.to_vec()),
            },
            Part::Last => match std::mem::take(&mut self.open) {
                Open::Head(mut bytes) => {
                    bytes.extend_from_slice(content);
                    self.whole(&bytes);
                }
                Open::Behind(mut bytes) => {
                    bytes.extend_from_slice(content);
                    self.behind(&bytes);
                }
                Open::None => self.behind(content),
            },
        }
    }

    fn hole(&mut self) {
        let owed = match &self.open {
            Open::Head(bytes) => batch_header(bytes),
            Open::None | Open::Behind(_) => None,
        };
        self.cut();
        self.owed = owed.map(|(sequence, count)| sequence + u64::from(count)).or(self.owed);
        self.open = Open::Behind(Vec::new());
    }

    /// Handles a record without an end: its complete operations are good.
    fn cut(&mut self) {
        let Open::Head(bytes) = std::mem::take(&mut self.open) else { return };
        let Some((sequence, _)) = batch_header(&bytes) else { return };
        let operations = bytes.get(BATCH_HEADER_BYTES..).unwrap_or_default();
        let (count, end) = whole_operations(operations);
        if count > 0 {
            self.put(sequence, count, &batch(sequence, count, &operations[..end]));
        }
    }

    fn whole(&mut self, record: &[u8]) {
        let Some((sequence, count)) = batch_header(record) else { return };
        self.put(sequence, count, record);
    }

    /// Handles the end of a record whose start is missing: the operations that lead exactly to its end are good.
    fn behind(&mut self, bytes: &[u8]) {
        let chain = |start: &usize| {
            let (count, end) = whole_operations(&bytes[*start..]);
            count > DOUBTFUL_OPERATIONS && *start + end == bytes.len()
        };
        let Some(mut start) = (0..bytes.len()).find(chain) else { return };
        for _ in 0..DOUBTFUL_OPERATIONS {
            start += log_format::operation_bytes(&bytes[start..]).unwrap_or(0);
        }
        self.place_unplaced(None);
        self.unplaced = Some(bytes[start..].to_vec());
    }

    fn put(&mut self, sequence: u64, count: u32, record: &[u8]) {
        self.place_unplaced(Some(sequence));
        let next = self.next.unwrap_or(sequence);
        self.damage.operations += sequence.saturating_sub(next);
        if sequence > next && self.damage.holes == 0 {
            self.damage.holes += 1;
        }
        self.next = Some((sequence + u64::from(count)).max(next));
        self.owed = None;
        self.mended.push(record.to_vec());
    }

    /// Gives operations after a hole the last sequence numbers before the next record.
    fn place_unplaced(&mut self, before: Option<u64>) {
        let Some(operations) = self.unplaced.take() else { return };
        let (count, _) = whole_operations(&operations);
        let next = self.next.unwrap_or(0);
        let end = before.or(self.owed).unwrap_or(next + u64::from(count));
        let sequence = end.saturating_sub(u64::from(count));
        if sequence >= next {
            self.put(sequence, count, &batch(sequence, count, &operations));
        }
    }
}
