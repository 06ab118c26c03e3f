//! Each text of a topic level once, named by a number: nodes hold four bytes, and matching compares
//! numbers.

use crate::topic::arena::Arena;
use crate::topic::index_table::{HashSeed, IndexTable};

/// Names a level text while something refers to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct LevelId(pub(super) u32);

/// The level texts of one branch, counted by reference.
#[derive(Debug, Default)]
pub(super) struct LevelTable {
    levels: Arena<Level>,
    table: IndexTable,
    heap_bytes: usize,
}

/// Longer texts than this are allocated apart. Chosen so that a [`Level`] takes 32 bytes.
const INLINE_BYTES: usize = 26;

#[derive(Debug)]
enum Level {
    Short { references: u32, length: u8, bytes: [u8; INLINE_BYTES] },
    Long { references: u32, text: Box<[u8]> },
}

impl LevelTable {
    /// The number of a text, if something refers to it.
    pub(super) fn find(&self, seed: &HashSeed, text: &str) -> Option<LevelId> {
        let text = text.as_bytes();
        let place = self.table.find(seed.of(text), |place| self.levels.at(place).text() == text);
        place.map(LevelId)
    }

    /// The number of a text, and one more reference to it.
    pub(super) fn acquire(&mut self, seed: &HashSeed, text: &str) -> LevelId {
        let text = text.as_bytes();
        let hash = seed.of(text);
        let Self { levels, table, heap_bytes } = self;
        if let Some(place) = table.find(hash, |place| levels.at(place).text() == text) {
            *levels.at_mut(place).references() += 1;
            return LevelId(place);
        }
        let level = Level::new(text);
        *heap_bytes += level.heap_bytes();
        let place = levels.insert(level);
        table.insert(hash, place);
        LevelId(place)
    }

    /// One reference less; forgets the text with the last one.
    pub(super) fn release(&mut self, seed: &HashSeed, LevelId(place): LevelId) {
        let references = self.levels.at_mut(place).references();
        *references -= 1;
        if *references > 0 {
            return;
        }
        let Self { levels, table, heap_bytes } = self;
        let hash = seed.of(levels.at(place).text());
        table.remove(hash, place);
        *heap_bytes -= levels.remove(place).heap_bytes();
    }

    /// How many texts there are.
    pub(super) fn len(&self) -> usize {
        self.levels.len()
    }

    /// Bytes allocated.
    pub(super) fn allocated_bytes(&self) -> usize {
        self.levels.allocated_bytes() + self.table.allocated_bytes() + self.heap_bytes
    }
}

impl Default for Level {
    fn default() -> Self {
        Self::Short { references: 0, length: 0, bytes: [0; INLINE_BYTES] }
    }
}

impl Level {
    fn new(text: &[u8]) -> Self {
        let mut bytes = [0; INLINE_BYTES];
        match (bytes.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(start), Ok(length)) => {
                start.copy_from_slice(text);
                Self::Short { references: 1, length, bytes }
            }
            _ => Self::Long { references: 1, text: Box::from(text) },
        }
    }

    fn text(&self) -> &[u8] {
        match self {
            Self::Short { length, bytes, .. } => &bytes[..usize::from(*length)],
            Self::Long { text, .. } => text,
        }
    }

    fn references(&mut self) -> &mut u32 {
        match self {
            Self::Short { references, .. } | Self::Long { references, .. } => references,
        }
    }

    fn heap_bytes(&self) -> usize {
        match self {
            Self::Short { .. } => 0,
            Self::Long { text, .. } => text.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{HashSeed, Level, LevelTable};

    #[test]
    fn texts_are_shared_and_forgotten() {
        assert_eq!(size_of::<Level>(), 32);
        let seed = HashSeed::new(1);
        let mut levels = LevelTable::default();
        let texts = ["", "a", "é", "abcdefghijklmnopqrstuvwxyz", "abcdefghijklmnopqrstuvwxyz1"];
        for text in texts {
            assert_eq!(levels.find(&seed, text), None);
            let id = levels.acquire(&seed, text);
            assert_eq!(levels.acquire(&seed, text), id);
            assert_eq!(levels.find(&seed, text), Some(id));
        }
        assert_eq!(levels.len(), texts.len());
        assert_eq!(levels.heap_bytes, 27);
        for text in texts {
            let id = levels.find(&seed, text).unwrap();
            levels.release(&seed, id);
            assert_eq!(levels.find(&seed, text), Some(id));
            levels.release(&seed, id);
            assert_eq!(levels.find(&seed, text), None);
        }
        assert_eq!((levels.len(), levels.heap_bytes), (0, 0));
    }
}
