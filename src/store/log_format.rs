//! The format of RocksDB's log: fragments with a checksum, in blocks of 32 KiB, form records; a record is a batch of
//! operations with the sequence number of its first operation.
//!
//! Contains only what [`crate::store::log_check`] needs to distinguish damage from a torn end, and to rewrite a log
//! without it.

/// Size of a block. Fragments never cross block boundaries.
pub(crate) const BLOCK_BYTES: usize = 32 * 1024;

/// Checksum, length, type, and the number of the log, which distinguishes new content from old because log files are
/// reused.
const HEADER_BYTES: usize = 11;
/// Sequence number and count before the operations of a batch.
pub(crate) const BATCH_HEADER_BYTES: usize = 12;

/// Which part of a record a fragment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// All of it.
    Whole,
    /// The first of several.
    First,
    /// Neither the first nor the last.
    Middle,
    /// The last of several.
    Last,
    /// Not part of a record: a note of RocksDB about the log.
    Note,
}

/// A fragment with a correct checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fragment<'a> {
    /// Which part of a record it is.
    pub(crate) part: Part,
    /// Its content.
    pub(crate) content: &'a [u8],
    /// Where the next one starts, unless the rest of the block is too short.
    pub(crate) end: usize,
}

/// Reads the fragment at a place of log `number`; `None` when there is none, or its checksum is wrong.
#[must_use]
pub(crate) fn fragment_at(log: &[u8], at: usize, number: u64) -> Option<Fragment<'_>> {
    let (start, end) = extent(log, at, number)?;
    let header = log.get(at..)?;
    let (&stored, _) = header.split_first_chunk::<4>()?;
    if mask(crc32c(log.get(at + 6..end)?)) != u32::from_le_bytes(stored) {
        return None;
    }
    let part = match header.get(6)? {
        5 => Part::Whole,
        6 => Part::First,
        7 => Part::Middle,
        8 => Part::Last,
        _ => Part::Note,
    };
    Some(Fragment { part, content: log.get(start..end)?, end })
}

/// Start and end of the content according to the header, without checking the checksum.
fn extent(log: &[u8], at: usize, number: u64) -> Option<(usize, usize)> {
    let header = log.get(at..)?.split_first_chunk::<HEADER_BYTES>()?.0;
    let length = usize::from(u16::from_le_bytes([header[4], header[5]]));
    let stored = u32::from_le_bytes([header[7], header[8], header[9], header[10]]);
    // RocksDB keeps the lower half of the number.
    let is_current = u64::from(stored) == number & u64::from(u32::MAX);
    if !is_current || !matches!(header[6], 5..=8 | 11 | 131) {
        return None;
    }
    let start = at + HEADER_BYTES;
    let end = start + length;
    let block_end = (at / BLOCK_BYTES + 1) * BLOCK_BYTES;
    (end <= block_end && end <= log.len()).then_some((start, end))
}

/// Where a fragment with a wrong checksum ends, if its header is plausible.
#[must_use]
pub(crate) fn announced_end(log: &[u8], at: usize, number: u64) -> Option<usize> {
    extent(log, at, number).map(|(_, end)| end)
}

/// Where the next fragment starts: blocks end in a few zeros where no header fits.
#[must_use]
pub(crate) fn next_start(end: usize) -> usize {
    let left = BLOCK_BYTES - end % BLOCK_BYTES;
    if left < HEADER_BYTES { end + left } else { end }
}

/// Sequence number and count of operations of a record.
#[must_use]
pub(crate) fn batch_header(record: &[u8]) -> Option<(u64, u32)> {
    let (sequence, rest) = record.split_first_chunk::<8>()?;
    let (count, _) = rest.split_first_chunk::<4>()?;
    Some((u64::from_le_bytes(*sequence), u32::from_le_bytes(*count)))
}

/// Adds the header of a record before operations.
#[must_use]
pub(crate) fn batch(sequence: u64, count: u32, operations: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(BATCH_HEADER_BYTES + operations.len());
    record.extend_from_slice(&sequence.to_le_bytes());
    record.extend_from_slice(&count.to_le_bytes());
    record.extend_from_slice(operations);
    record
}

/// Counts the complete operations at the start of a piece of a batch; returns the count and where the last one ends.
#[must_use]
pub(crate) fn whole_operations(piece: &[u8]) -> (u32, usize) {
    let (mut count, mut end) = (0, 0);
    while let Some(next) =
        piece.get(end..).filter(|rest| !rest.is_empty()).and_then(operation_bytes)
    {
        count += 1;
        end += next;
    }
    (count, end)
}

/// The length of the operation at the start; `None` if it is invalid or incomplete.
#[must_use]
pub(crate) fn operation_bytes(bytes: &[u8]) -> Option<usize> {
    let (tag, mut rest) = bytes.split_first()?;
    let (has_family, strings) = match tag {
        // Deletion, single deletion; a value, a range; the same with a family in front.
        0x00 | 0x07 => (false, 1),
        0x01 | 0x0F => (false, 2),
        0x04 | 0x08 => (true, 1),
        0x05 | 0x0E => (true, 2),
        _ => return None,
    };
    if has_family {
        varint(&mut rest)?;
    }
    for _ in 0..strings {
        let length = varint(&mut rest)?;
        rest = rest.get(length..)?;
    }
    Some(bytes.len() - rest.len())
}

fn varint(bytes: &mut &[u8]) -> Option<usize> {
    let mut value = 0_usize;
    for shift in [0, 7, 14, 21, 28] {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= usize::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Appends a record to a log that is being written.
pub(crate) fn write_record(log: &mut Vec<u8>, record: &[u8], number: u64) {
    let mut rest = record;
    let mut is_first = true;
    loop {
        let left = BLOCK_BYTES - log.len() % BLOCK_BYTES;
        if left < HEADER_BYTES {
            log.resize(log.len() + left, 0);
            continue;
        }
        let (content, after) = rest.split_at(rest.len().min(left - HEADER_BYTES));
        let kind = match (is_first, after.is_empty()) {
            (true, true) => 5,
            (true, false) => 6,
            (false, false) => 7,
            (false, true) => 8,
        };
        let start = log.len();
        let [low, high, ..] = content.len().to_le_bytes();
        log.extend_from_slice(&[0, 0, 0, 0, low, high, kind]);
        log.extend_from_slice(&number.to_le_bytes()[..4]);
        log.extend_from_slice(content);
        let checksum = mask(crc32c(&log[start + 6..]));
        log[start..start + 4].copy_from_slice(&checksum.to_le_bytes());
        if after.is_empty() {
            return;
        }
        (rest, is_first) = (after, false);
    }
}

/// RocksDB masks stored checksums, because a checksum of bytes that contain their own checksum is weak.
fn mask(checksum: u32) -> u32 {
    checksum.rotate_right(15).wrapping_add(0xA282_EAD8)
}

/// Remainders of every byte, followed by up to fifteen zeros, by Castagnoli's polynomial.
const TABLES: [[u32; 256]; 16] = tables();

const fn tables() -> [[u32; 256]; 16] {
    let mut tables = [[0; 256]; 16];
    let mut byte = 0_u32;
    while byte < 256 {
        let mut remainder = byte;
        let mut bit = 0;
        while bit < 8 {
            remainder = (remainder >> 1) ^ (0x82F6_3B78 & (remainder & 1).wrapping_neg());
            bit += 1;
        }
        tables[0][byte as usize] = remainder;
        byte += 1;
    }
    let mut table = 1;
    while table < 16 {
        let mut byte = 0;
        while byte < 256 {
            let before: u32 = tables[table - 1][byte];
            tables[table][byte] = (before >> 8) ^ tables[0][(before & 0xFF) as usize];
            byte += 1;
        }
        table += 1;
    }
    tables
}

/// CRC-32C, sixteen bytes at a time, because opening checks the whole log.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut checksum = u32::MAX;
    let (chunks, rest) = bytes.as_chunks::<16>();
    for chunk in chunks {
        let mut chunk = *chunk;
        for (byte, sum) in chunk.iter_mut().zip(checksum.to_le_bytes()) {
            *byte ^= sum;
        }
        checksum = 0;
        for (position, byte) in chunk.iter().enumerate() {
            checksum ^= TABLES[15 - position][usize::from(*byte)];
        }
    }
    for byte in rest {
        let [low, ..] = checksum.to_le_bytes();
        checksum = (checksum >> 8) ^ TABLES[0][usize::from(low ^ byte)];
    }
    !checksum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_rfc_3720() {
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(&[0xFF; 32]), 0x62A8_AB43);
        let rising: Vec<u8> = (0..32).collect();
        assert_eq!(crc32c(&rising), 0x46DD_794E);
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
    }

    #[test]
    fn a_record_is_read_back_from_its_fragments() {
        let records =
            [vec![1; 20], vec![2; 100_000], vec![], vec![3; BLOCK_BYTES - 50], vec![4; 9]];
        let mut log = Vec::new();
        for record in &records {
            write_record(&mut log, record, 5);
        }
        let (mut at, mut found, mut record) = (0, Vec::new(), Vec::new());
        while let Some(fragment) = fragment_at(&log, at, 5) {
            record.extend_from_slice(fragment.content);
            if matches!(fragment.part, Part::Whole | Part::Last) {
                found.push(std::mem::take(&mut record));
            }
            at = next_start(fragment.end);
        }
        assert_eq!(found, records);
        assert_eq!(fragment_at(&log, 0, 4), None, "another log, written over");
        log[50] ^= 1;
        assert_eq!(fragment_at(&log, 31, 5), None);
        assert_eq!(announced_end(&log, 31, 5), Some(BLOCK_BYTES));
    }

    #[test]
    fn whole_operations_end_where_one_is_cut() {
        let mut batch = rocksdb::WriteBatch::default();
        batch.put(b"key", vec![9; 300]);
        batch.single_delete(b"other");
        batch.delete_range(b"a".as_slice(), b"b".as_slice());
        let operations = &batch.data()[BATCH_HEADER_BYTES..];
        assert_eq!(whole_operations(operations), (3, operations.len()));
        let cut = &operations[..operations.len() - 1];
        assert_eq!(whole_operations(cut).0, 2);
        assert_eq!(batch_header(batch.data()), Some((0, 3)));
    }
}
