//! Storage for many small items at stable positions, which are `u32`: half the size of a pointer, and no allocation
//! per item.

use crate::topic::chunks::Chunks;

/// A growing arena with a free list.
#[derive(Debug)]
pub(super) struct Arena<T> {
    items: Chunks<T>,
    /// Also in chunks: if ten million places become free at once, a single array would be moved repeatedly.
    free: Chunks<u32>,
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Self { items: Chunks::default(), free: Chunks::default() }
    }
}

impl<T: Default> Arena<T> {
    /// Stores an item and returns its place.
    pub(super) fn insert(&mut self, item: T) -> u32 {
        if let Some(place) = self.free.pop() {
            *self.at_mut(place) = item;
            return place;
        }
        let place = u32::try_from(self.items.len());
        self.items.push(item);
        place.expect("memory ends long before four thousand million items")
    }

    /// Removes an item; its place will be reused.
    pub(super) fn remove(&mut self, place: u32) -> T {
        self.free.push(place);
        std::mem::take(self.at_mut(place))
    }

    /// The item at a place that `insert` returned.
    pub(super) fn at(&self, place: u32) -> &T {
        self.items.at(place as usize)
    }

    /// The item at a place that `insert` returned.
    pub(super) fn at_mut(&mut self, place: u32) -> &mut T {
        self.items.at_mut(place as usize)
    }

    /// How many items there are.
    pub(super) fn len(&self) -> usize {
        self.items.len() - self.free.len()
    }

    /// Bytes allocated for items.
    pub(super) fn allocated_bytes(&self) -> usize {
        self.items.allocated_bytes() + self.free.allocated_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::Arena;
    use crate::topic::chunks::CHUNK_ITEMS;

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
