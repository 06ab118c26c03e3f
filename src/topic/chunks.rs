//! A growing array that never moves more than its first few items, so that no insertion holds a lock while it copies
//! megabytes.

/// Items per chunk, as a power of two.
const CHUNK_BITS: u32 = 9;
/// Items per chunk.
pub(super) const CHUNK_ITEMS: usize = 1 << CHUNK_BITS;

/// Items by number, from 0.
#[derive(Debug)]
pub(super) struct Chunks<T>(Vec<Vec<T>>);

impl<T> Default for Chunks<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Chunks<T> {
    /// The number of items.
    pub(super) fn len(&self) -> usize {
        self.0.len().saturating_sub(1) * CHUNK_ITEMS + self.0.last().map_or(0, Vec::len)
    }

    /// The item with this number, which must be below `len`.
    pub(super) fn at(&self, number: usize) -> &T {
        &self.0[number >> CHUNK_BITS][number & (CHUNK_ITEMS - 1)]
    }

    /// The item with this number, which must be below `len`.
    pub(super) fn at_mut(&mut self, number: usize) -> &mut T {
        &mut self.0[number >> CHUNK_BITS][number & (CHUNK_ITEMS - 1)]
    }

    /// Adds an item at the end.
    pub(super) fn push(&mut self, item: T) {
        if self.0.last().is_none_or(|chunk| chunk.len() == CHUNK_ITEMS) {
            // The first chunk grows by doubling, because most arrays of a small broker hold a few
            // items.
            let capacity = if self.0.is_empty() { 4 } else { CHUNK_ITEMS };
            self.0.push(Vec::with_capacity(capacity));
        }
        if let Some(chunk) = self.0.last_mut() {
            chunk.push(item);
        }
    }

    /// Removes the item at the end.
    pub(super) fn pop(&mut self) -> Option<T> {
        let chunk = self.0.last_mut()?;
        let item = chunk.pop();
        if chunk.is_empty() {
            self.0.pop();
        }
        item
    }

    /// All items in their order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().flatten()
    }

    /// Bytes allocated for items.
    pub(super) fn allocated_bytes(&self) -> usize {
        let items: usize = match self.0.as_slice() {
            [] => 0,
            [first, rest @ ..] => first.capacity() + rest.len() * CHUNK_ITEMS,
        };
        items * size_of::<T>() + self.0.capacity() * size_of::<Vec<T>>()
    }
}

#[cfg(test)]
mod tests {
    use super::{CHUNK_ITEMS, Chunks};

    #[test]
    fn items_are_added_and_taken_away_at_the_end() {
        let mut chunks = Chunks::default();
        let count = 3 * CHUNK_ITEMS;
        for item in 0..count {
            assert_eq!(chunks.len(), item);
            chunks.push(item);
        }
        assert_eq!((*chunks.at(0), *chunks.at(count - 1)), (0, count - 1));
        *chunks.at_mut(CHUNK_ITEMS) = 7;
        assert_eq!(chunks.iter().nth(CHUNK_ITEMS), Some(&7));
        assert_eq!(chunks.allocated_bytes(), count * size_of::<usize>() + 4 * size_of::<Vec<u8>>());
        for item in (0..count).rev() {
            let expected = if item == CHUNK_ITEMS { 7 } else { item };
            assert_eq!(chunks.pop(), Some(expected));
            assert_eq!(chunks.len(), item);
        }
        assert_eq!(chunks.pop(), None);
    }
}
