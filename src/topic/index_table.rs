//! A hash table of places in an arena: about a dozen bytes an item, and no insertion that rehashes
//! the whole table.
//!
//! One growing hash table would move a million items while it is locked. This one is linear hashing
//! over many small tables ("segments"): it grows by splitting one segment at a time, in about a
//! microsecond, and shrinks likewise. Half of each hash is kept beside the place: asking the items
//! for it would be a cache miss for each that is moved.

use std::hash::{Hash, Hasher};

use foldhash::SharedSeed;
use foldhash::fast::FoldHasher;
use hashbrown::HashTable;

/// Average items per segment above which one segment is split, and below which two are merged.
const SPLIT_ABOVE: usize = 64;
const MERGE_BELOW: usize = 16;

/// Places of items, found by hash and a comparison with the item itself.
#[derive(Debug, Default)]
pub(super) struct IndexTable {
    segments: Vec<HashTable<Slot>>,
    len: usize,
    /// What the segments have allocated, counted along because asking them all would take long.
    segment_bytes: usize,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    hash: ShortHash,
    place: u32,
}

/// What is kept of a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ShortHash(u32);

impl IndexTable {
    /// The place whose item has this hash and satisfies `is_it`.
    pub(super) fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let hash = ShortHash::of(hash);
        let segment = self.segments.get(hash.segment(self.segments.len()))?;
        let slot = segment.find(hash.spread(), |slot| slot.hash == hash && is_it(slot.place))?;
        Some(slot.place)
    }

    /// Adds a place that is not there yet.
    pub(super) fn insert(&mut self, hash: u64, place: u32) {
        if self.len >= self.segments.len() * SPLIT_ABOVE {
            self.split();
        }
        self.insert_unique(Slot { hash: ShortHash::of(hash), place });
        self.len += 1;
    }

    /// Removes a place.
    pub(super) fn remove(&mut self, hash: u64, place: u32) {
        let hash = ShortHash::of(hash);
        let segment = hash.segment(self.segments.len());
        let Some(segment) = self.segments.get_mut(segment) else { return };
        let Ok(slot) = segment.find_entry(hash.spread(), |slot| slot.place == place) else {
            return;
        };
        slot.remove();
        self.len -= 1;
        if self.len == 0 {
            *self = Self::default();
        } else if self.segments.len() > 1 && self.len < self.segments.len() * MERGE_BELOW {
            self.merge();
        }
    }

    /// Replaces the place `from` by `to`, an item of the same hash.
    pub(super) fn replace(&mut self, hash: u64, from: u32, to: u32) {
        let hash = ShortHash::of(hash);
        let segment = hash.segment(self.segments.len());
        let segment = self.segments.get_mut(segment);
        let slot = segment.and_then(|s| s.find_mut(hash.spread(), |slot| slot.place == from));
        if let Some(slot) = slot {
            slot.place = to;
        }
    }

    /// Bytes allocated.
    pub(super) fn allocated_bytes(&self) -> usize {
        self.segment_bytes + self.segments.capacity() * size_of::<HashTable<Slot>>()
    }

    /// Into the segment that it belongs to.
    fn insert_unique(&mut self, slot: Slot) {
        let segment = slot.hash.segment(self.segments.len());
        let segment = &mut self.segments[segment];
        let before = segment.allocation_size();
        segment.insert_unique(slot.hash.spread(), slot, |slot| slot.hash.spread());
        self.segment_bytes = self.segment_bytes + segment.allocation_size() - before;
    }

    /// Adds a segment and moves to it what belongs there, all from one other segment.
    fn split(&mut self) {
        let added = self.segments.len();
        self.segments.push(HashTable::new());
        if added == 0 {
            return;
        }
        let source = buddy_of(added);
        let slots = std::mem::take(&mut self.segments[source]);
        self.segment_bytes -= slots.allocation_size();
        for segment in [source, added] {
            self.segments[segment] = HashTable::with_capacity(slots.len() / 2);
            self.segment_bytes += self.segments[segment].allocation_size();
        }
        for slot in slots {
            self.insert_unique(slot);
        }
    }

    /// Undoes one split.
    fn merge(&mut self) {
        let Some(slots) = self.segments.pop() else { return };
        self.segment_bytes -= slots.allocation_size();
        for slot in slots {
            self.insert_unique(slot);
        }
        if self.segments.capacity() > 4 * self.segments.len() {
            self.segments.shrink_to(2 * self.segments.len());
        }
    }
}

impl ShortHash {
    #[expect(clippy::cast_possible_truncation, reason = "half of the hash is kept")]
    fn of(hash: u64) -> Self {
        Self((hash ^ (hash >> 32)) as u32)
    }

    /// The segment among `count`.
    fn segment(self, count: usize) -> usize {
        let mask = count.next_power_of_two() - 1;
        let segment = self.0 as usize & mask;
        if segment < count { segment } else { segment & (mask >> 1) }
    }

    /// A whole hash again, for the table in the segment, which uses the lowest and the highest
    /// bits: none of them may follow from the segment alone.
    fn spread(self) -> u64 {
        u64::from(self.0.rotate_left(12)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// The segment that shared its items with segment `added` before that was added.
fn buddy_of(added: usize) -> usize {
    added & (((added + 1).next_power_of_two() - 1) >> 1)
}

/// The secret of all hashes in one tree: Clients choose the names, and must not be able to choose
/// collisions.
#[derive(Debug)]
pub(super) struct HashSeed {
    shared: SharedSeed,
    own: u64,
}

impl HashSeed {
    pub(super) fn new(seed: u64) -> Self {
        Self { shared: SharedSeed::from_u64(seed), own: seed.rotate_left(32) }
    }

    /// The hash of anything.
    pub(super) fn of<T: Hash + ?Sized>(&self, item: &T) -> u64 {
        let mut hasher = FoldHasher::with_seed(self.own, &self.shared);
        item.hash(&mut hasher);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::{HashTable, IndexTable, SPLIT_ABOVE};

    fn hash_of(place: u32) -> u64 {
        u64::from(place).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17)
    }

    fn find(table: &IndexTable, place: u32) -> Option<u32> {
        table.find(hash_of(place), |found| found == place)
    }

    #[test]
    fn grows_and_shrinks_one_segment_at_a_time() {
        let mut table = IndexTable::default();
        assert_eq!(find(&table, 0), None);
        for place in 0..20_000 {
            let before = table.segments.len();
            table.insert(hash_of(place), place);
            assert!(table.segments.len() - before <= 1);
        }
        assert!(table.segments.len() >= 20_000 / SPLIT_ABOVE);
        assert!(table.segments.iter().all(|segment| segment.len() < 4 * SPLIT_ABOVE));
        assert!((0..20_000).all(|place| find(&table, place) == Some(place)));
        let segment_bytes: usize = table.segments.iter().map(HashTable::allocation_size).sum();
        assert_eq!(table.segment_bytes, segment_bytes);
        for place in 0..19_900 {
            table.remove(hash_of(place), place);
            assert_eq!(find(&table, place), None);
        }
        assert!(table.segments.len() < 8);
        let segment_bytes: usize = table.segments.iter().map(HashTable::allocation_size).sum();
        assert_eq!(table.segment_bytes, segment_bytes);
        assert!((19_900..20_000).all(|place| find(&table, place) == Some(place)));
        for place in 19_900..20_000 {
            table.remove(hash_of(place), place);
        }
        assert_eq!(table.allocated_bytes(), 0);
    }

    #[test]
    fn an_item_can_change_its_place() {
        let mut table = IndexTable::default();
        table.insert(7, 1);
        table.replace(7, 1, 2);
        assert_eq!(table.find(7, |place| place == 1), None);
        assert_eq!(table.find(7, |place| place == 2), Some(2));
    }
}
