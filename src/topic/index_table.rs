//! A hash table of places in an arena, with ten bytes per entry: the place and half of its hash. Reading hashes from
//! the items would cost a cache miss for each item that is moved or compared.

use std::hash::{Hash, Hasher};

use foldhash::SharedSeed;
use foldhash::fast::FoldHasher;

use crate::topic::bucket_table::{BucketTable, Hashed, ShortHash};

/// Places of items, found by hash and a comparison with the item itself.
#[derive(Debug, Default)]
pub(super) struct IndexTable(BucketTable<Slot>);

#[derive(Debug, Clone, Copy)]
struct Slot {
    hash: ShortHash,
    place: u32,
}

impl Hashed for Slot {
    fn hash(&self) -> ShortHash {
        self.hash
    }
}

impl IndexTable {
    /// The place whose item has this hash and satisfies `is_it`.
    pub(super) fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let hash = ShortHash::of(hash);
        self.0.find(hash, |slot| is_it(slot.place)).map(|slot| slot.place)
    }

    /// Adds a place that is not there yet.
    pub(super) fn insert(&mut self, hash: u64, place: u32) {
        self.0.insert(Slot { hash: ShortHash::of(hash), place });
    }

    /// Removes a place.
    pub(super) fn remove(&mut self, hash: u64, place: u32) {
        self.0.remove(ShortHash::of(hash), |slot| slot.place == place);
    }

    /// Replaces the place `from` by `to`, an item of the same hash.
    pub(super) fn replace(&mut self, hash: u64, from: u32, to: u32) {
        if let Some(slot) = self.0.find_mut(ShortHash::of(hash), |slot| slot.place == from) {
            slot.place = to;
        }
    }

    /// Bytes allocated.
    pub(super) fn allocated_bytes(&self) -> usize {
        self.0.allocated_bytes()
    }
}

/// The secret seed of all hashes in one tree, so that Clients, who choose the names, cannot choose collisions.
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
    use super::IndexTable;

    #[test]
    fn items_of_one_hash_are_told_apart() {
        let mut table = IndexTable::default();
        (0..100).for_each(|place| table.insert(7, place));
        assert!((0..100).all(|place| table.find(7, |found| found == place) == Some(place)));
        assert_eq!(table.find(8, |_| true), None);
        table.remove(7, 50);
        assert_eq!(table.find(7, |found| found == 50), None);
        (0..100).for_each(|place| table.remove(7, place));
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
