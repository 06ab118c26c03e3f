//! A hash table of small values that needs two bytes per item in addition to the values, and never rehashes the whole
//! table.
//!
//! An ordinary hash table would move a million items while it is locked. This one uses linear hashing over many
//! buckets of about 16 values: it grows by splitting one bucket at a time, in less than a microsecond, and shrinks in
//! the same way. A bucket is exactly as long as its contents and is searched linearly: two or three adjacent cache
//! lines, where the groups and slots of a larger table would cost two cache misses and be half empty.

use crate::topic::chunks::Chunks;

/// Average values per bucket above which one bucket is split, and below which two are merged.
const SPLIT_ABOVE: usize = 16;
const MERGE_BELOW: usize = 6;

/// Hashes compared at once: as many as fit into a vector register.
const GROUP: usize = 4;

/// The part of a hash that is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ShortHash(u32);

/// A value that knows its hash.
pub(crate) trait Hashed: Copy {
    /// The hash under which it is found.
    fn hash(&self) -> ShortHash;
}

/// Values by their hash, see the module.
#[derive(Debug)]
pub(crate) struct BucketTable<T> {
    buckets: Chunks<Box<[T]>>,
    len: usize,
}

impl<T> Default for BucketTable<T> {
    fn default() -> Self {
        Self { buckets: Chunks::default(), len: 0 }
    }
}

impl<T: Hashed> BucketTable<T> {
    /// The value with this hash that satisfies `is_it`.
    pub(crate) fn find(&self, hash: ShortHash, is_it: impl FnMut(&T) -> bool) -> Option<&T> {
        if self.len == 0 {
            return None;
        }
        let bucket = self.buckets.at(hash.bucket(self.buckets.len()));
        position(bucket, hash, is_it).map(|position| &bucket[position])
    }

    /// The value with this hash that satisfies `is_it`, to change it without changing its hash.
    pub(crate) fn find_mut(
        &mut self,
        hash: ShortHash,
        is_it: impl FnMut(&T) -> bool,
    ) -> Option<&mut T> {
        if self.len == 0 {
            return None;
        }
        let bucket = self.buckets.at_mut(hash.bucket(self.buckets.len()));
        position(bucket, hash, is_it).map(|position| &mut bucket[position])
    }

    /// Adds a value that is not there yet.
    pub(crate) fn insert(&mut self, value: T) {
        if self.len >= self.buckets.len() * SPLIT_ABOVE {
            self.split();
        }
        let bucket = value.hash().bucket(self.buckets.len());
        change(self.buckets.at_mut(bucket), |values| {
            values.reserve_exact(1);
            values.push(value);
        });
        self.len += 1;
    }

    /// Removes the value with this hash that satisfies `is_it`.
    pub(crate) fn remove(&mut self, hash: ShortHash, is_it: impl FnMut(&T) -> bool) -> Option<T> {
        if self.len == 0 {
            return None;
        }
        let bucket = self.buckets.at_mut(hash.bucket(self.buckets.len()));
        let position = position(bucket, hash, is_it)?;
        let removed = change(bucket, |values| values.swap_remove(position));
        self.len -= 1;
        if self.len == 0 {
            *self = Self::default();
        } else if self.len < self.buckets.len() * MERGE_BELOW {
            self.merge();
        }
        Some(removed)
    }

    /// Removes some of the values, in no particular order, to dismantle the table: afterwards nothing can be found in
    /// it.
    pub(crate) fn take_some(&mut self) -> Option<Box<[T]>> {
        loop {
            let bucket = self.buckets.pop()?;
            self.len -= bucket.len();
            if !bucket.is_empty() {
                return Some(bucket);
            }
        }
    }

    /// Adds a bucket and moves its values to it, all from one other bucket.
    fn split(&mut self) {
        let added = self.buckets.len();
        self.buckets.push(Box::default());
        if added == 0 {
            return;
        }
        let moves = |value: &&T| value.hash().bucket(added + 1) == added;
        let source = self.buckets.at_mut(buddy_of(added));
        // Both are allocated once with their exact size.
        let mut moved = Vec::with_capacity(source.iter().filter(moves).count());
        let mut kept = Vec::with_capacity(source.len() - moved.capacity());
        for value in source.iter() {
            if moves(&value) { &mut moved } else { &mut kept }.push(*value);
        }
        *source = kept.into_boxed_slice();
        *self.buckets.at_mut(added) = moved.into_boxed_slice();
    }

    /// Undoes one split, if there was any.
    fn merge(&mut self) {
        let Some(last) = self.buckets.len().checked_sub(1).filter(|last| *last > 0) else { return };
        let Some(moved) = self.buckets.pop() else { return };
        change(self.buckets.at_mut(buddy_of(last)), |values| {
            values.reserve_exact(moved.len());
            values.extend_from_slice(&moved);
        });
    }
}

impl<T> BucketTable<T> {
    /// How many values there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// All values, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.buckets.iter().flatten()
    }

    /// Bytes allocated.
    pub(crate) fn allocated_bytes(&self) -> usize {
        self.len * size_of::<T>() + self.buckets.allocated_bytes()
    }
}

impl ShortHash {
    /// From a whole hash.
    #[expect(clippy::cast_possible_truncation, reason = "half of the hash is kept")]
    pub(crate) fn of(hash: u64) -> Self {
        Self((hash ^ (hash >> 32)) as u32)
    }

    /// The bucket among `count`.
    fn bucket(self, count: usize) -> usize {
        let mask = count.next_power_of_two() - 1;
        let bucket = self.0 as usize & mask;
        if bucket < count { bucket } else { bucket & (mask >> 1) }
    }
}

/// The bucket that shared its values with bucket `added` before that was added.
fn buddy_of(added: usize) -> usize {
    added & (((added + 1).next_power_of_two() - 1) >> 1)
}

/// The position in a bucket of the value with this hash that satisfies `is_it`. Other values are skipped a group at a
/// time, which compiles to one comparison, so a whole bucket takes a third of the time of single comparisons.
fn position<T: Hashed>(
    bucket: &[T],
    hash: ShortHash,
    mut is_it: impl FnMut(&T) -> bool,
) -> Option<usize> {
    let mut is_found = |value: &T| value.hash() == hash && is_it(value);
    let (groups, rest) = bucket.as_chunks::<GROUP>();
    for (number, group) in groups.iter().enumerate() {
        let may_be_here = group.iter().fold(false, |any, value| any | (value.hash() == hash));
        if may_be_here && let Some(position) = group.iter().position(&mut is_found) {
            return Some(number * GROUP + position);
        }
    }
    let position = rest.iter().position(is_found)?;
    Some(groups.len() * GROUP + position)
}

/// Changes a bucket and keeps it exactly as long as its contents. This rarely moves it, because most changes stay
/// within one size class of the allocator.
fn change<T, R>(bucket: &mut Box<[T]>, change: impl FnOnce(&mut Vec<T>) -> R) -> R {
    let mut values = std::mem::take(bucket).into_vec();
    let result = change(&mut values);
    *bucket = values.into_boxed_slice();
    result
}

#[cfg(test)]
mod tests {
    use super::{BucketTable, Hashed, MERGE_BELOW, SPLIT_ABOVE, ShortHash};

    impl Hashed for u32 {
        fn hash(&self) -> ShortHash {
            let spread = u64::from(*self).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            ShortHash::of(spread.rotate_left(17))
        }
    }

    fn has(table: &BucketTable<u32>, value: u32) -> bool {
        table.find(value.hash(), |found| *found == value).is_some()
    }

    fn check_shape(table: &BucketTable<u32>) {
        assert_eq!(table.iter().count(), table.len);
        assert!(table.buckets.iter().all(|bucket| bucket.len() < 6 * SPLIT_ABOVE));
        let values: usize = table.buckets.iter().map(|bucket| size_of_val(&**bucket)).sum();
        assert_eq!(table.allocated_bytes(), values + table.buckets.allocated_bytes());
    }

    #[test]
    fn grows_and_shrinks_one_bucket_at_a_time() {
        let mut table = BucketTable::default();
        assert!(!has(&table, 0));
        for value in 0..20_000 {
            let before = table.buckets.len();
            table.insert(value);
            assert!(table.buckets.len() - before <= 1);
        }
        assert_eq!(table.buckets.len(), 20_000 / SPLIT_ABOVE);
        check_shape(&table);
        assert!((0..20_000).all(|value| has(&table, value)));
        assert!(!has(&table, 20_000));
        for value in 0..19_900 {
            let before = table.buckets.len();
            assert_eq!(table.remove(value.hash(), |found| *found == value), Some(value));
            assert!(before - table.buckets.len() <= 1);
            assert!(!has(&table, value));
        }
        assert_eq!(table.buckets.len(), 100 / MERGE_BELOW);
        check_shape(&table);
        assert!((19_900..20_000).all(|value| has(&table, value)));
        for value in 19_900..20_000 {
            assert_eq!(table.remove(value.hash(), |found| *found == value), Some(value));
        }
        assert_eq!(table.remove(1_u32.hash(), |_| true), None);
        assert_eq!(table.allocated_bytes(), 0);
    }

    #[test]
    fn is_taken_apart_in_pieces() {
        let mut table = BucketTable::default();
        (0..1_000).for_each(|value: u32| table.insert(value));
        let mut taken = Vec::new();
        while let Some(some) = table.take_some() {
            assert!(some.len() < 6 * SPLIT_ABOVE);
            taken.extend(some);
            assert_eq!(table.len(), 1_000 - taken.len());
        }
        taken.sort_unstable();
        assert!(taken.into_iter().eq(0..1_000));
    }

    /// The benefit that justifies the linear search: with a million values, the table takes two bytes per value in
    /// addition to the values.
    #[test]
    fn takes_little_more_than_its_values() {
        let mut table = BucketTable::default();
        (0..100_000).for_each(|value: u32| table.insert(value));
        assert!(table.allocated_bytes() < 100_000 * (size_of::<u32>() + 2));
    }
}
