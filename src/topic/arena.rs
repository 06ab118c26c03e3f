//! Storage for many small items at stable places named by `u32`: half a pointer, and no allocation
//! per item.

/// Items per chunk, as a power of two. Growth adds a chunk and moves nothing, so that no insertion
/// ever holds a lock for the time it takes to copy megabytes.
const CHUNK_BITS: u32 = 9;
const CHUNK_ITEMS: usize = 1 << CHUNK_BITS;

/// A growing arena with a free list.
#[derive(Debug)]
pub(super) struct Arena<T> {
    chunks: Vec<Vec<T>>,
    free: Vec<u32>,
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), free: Vec::new() }
    }
}

impl<T: Default> Arena<T> {
    /// Stores an item and tells its place.
    pub(super) fn insert(&mut self, item: T) -> u32 {
        if let Some(place) = self.free.pop() {
            *self.at_mut(place) = item;
            return place;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK_ITEMS) {
            // The first chunk grows by doubling, because most arenas of a small broker hold a few
            // items.
            let capacity = if self.chunks.is_empty() { 4 } else { CHUNK_ITEMS };
            self.chunks.push(Vec::with_capacity(capacity));
        }
        let full_chunks = self.chunks.len() - 1;
        let chunk = &mut self.chunks[full_chunks];
        let place = full_chunks * CHUNK_ITEMS + chunk.len();
        chunk.push(item);
        u32::try_from(place).expect("memory ends long before four thousand million items")
    }

    /// Takes an item out; its place is used again.
    pub(super) fn remove(&mut self, place: u32) -> T {
        self.free.push(place);
        std::mem::take(self.at_mut(place))
    }

    /// The item at a place that `insert` returned.
    pub(super) fn at(&self, place: u32) -> &T {
        let place = place as usize;
        &self.chunks[place >> CHUNK_BITS][place & (CHUNK_ITEMS - 1)]
    }

    /// The item at a place that `insert` returned.
    pub(super) fn at_mut(&mut self, place: u32) -> &mut T {
        let place = place as usize;
        &mut self.chunks[place >> CHUNK_BITS][place & (CHUNK_ITEMS - 1)]
    }

    /// How many items there are.
    pub(super) fn len(&self) -> usize {
        let full = self.chunks.len().saturating_sub(1) * CHUNK_ITEMS;
        full + self.chunks.last().map_or(0, Vec::len) - self.free.len()
    }

    /// Bytes allocated for items.
    pub(super) fn allocated_bytes(&self) -> usize {
        let items: usize = match self.chunks.as_slice() {
            [] => 0,
            [first, rest @ ..] => first.capacity() + rest.len() * CHUNK_ITEMS,
        };
        items * size_of::<T>()
            + self.chunks.capacity() * size_of::<Vec<T>>()
            + self.free.capacity() * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use super::{Arena, CHUNK_ITEMS};

    #[test]
    fn places_are_stable_and_used_again() {
        let mut arena = Arena::default();
        let count = 3 * CHUNK_ITEMS + 7;
        let places: Vec<u32> = (0..count).map(|item| arena.insert(item)).collect();
        assert_eq!(arena.len(), count);
        for (item, &place) in places.iter().enumerate() {
            assert_eq!(*arena.at(place), item);
        }
        assert_eq!(arena.remove(places[CHUNK_ITEMS]), CHUNK_ITEMS);
        assert_eq!(arena.len(), count - 1);
        assert_eq!(arena.insert(99), places[CHUNK_ITEMS]);
        assert_eq!(*arena.at(places[CHUNK_ITEMS]), 99);
        assert_eq!(arena.len(), count);
    }
}
