//! The texts of topic levels in the nodes of a branch: short ones are stored in the node, long ones separately.
//! Storing the text in each node takes less memory than a table of distinct texts with references, because most texts
//! are unique, and matching needs no look-up in a table.

use crate::topic::arena::Arena;

/// Longer texts are allocated separately. Chosen so that a [`LevelText`] takes 20 bytes.
const INLINE_BYTES: usize = 18;

/// The last level of the filter that a node stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LevelText {
    /// The root node, which has no level.
    Root,
    /// `+`.
    Plus,
    Short {
        length: u8,
        bytes: [u8; INLINE_BYTES],
    },
    /// Its place in [`LongTexts`].
    Long(u32),
}

/// The texts of a branch that do not fit into its nodes.
#[derive(Debug, Default)]
pub(super) struct LongTexts {
    texts: Arena<Box<[u8]>>,
    heap_bytes: usize,
}

impl LevelText {
    /// The text of a new node.
    pub(super) fn new(text: &str, long: &mut LongTexts) -> Self {
        let text = text.as_bytes();
        let mut bytes = [0; INLINE_BYTES];
        match (bytes.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(start), Ok(length)) => {
                start.copy_from_slice(text);
                Self::Short { length, bytes }
            }
            _ => {
                long.heap_bytes += text.len();
                Self::Long(long.texts.insert(Box::from(text)))
            }
        }
    }

    /// The characters.
    pub(super) fn as_bytes<'a>(&'a self, long: &'a LongTexts) -> &'a [u8] {
        match self {
            Self::Root => &[],
            Self::Plus => b"+",
            Self::Short { length, bytes } => &bytes[..usize::from(*length)],
            Self::Long(place) => long.texts.at(*place),
        }
    }

    /// Releases a separately stored text when its node is removed.
    pub(super) fn release(self, long: &mut LongTexts) {
        if let Self::Long(place) = self {
            long.heap_bytes -= long.texts.remove(place).len();
        }
    }
}

impl LongTexts {
    /// The number of texts.
    pub(super) fn len(&self) -> usize {
        self.texts.len()
    }

    /// Bytes allocated.
    pub(super) fn allocated_bytes(&self) -> usize {
        self.texts.allocated_bytes() + self.heap_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::{LevelText, LongTexts};

    #[test]
    fn texts_are_kept_and_forgotten() {
        assert_eq!(size_of::<LevelText>(), 20);
        let mut long = LongTexts::default();
        let texts =
            ["", "a", "é", "eighteen character", "nineteen characters", "nineteen characterz"];
        let kept = texts.map(|text| LevelText::new(text, &mut long));
        for (text, kept) in texts.iter().zip(&kept) {
            assert_eq!(kept.as_bytes(&long), text.as_bytes());
        }
        assert_eq!((long.len(), long.heap_bytes), (2, 38));
        for kept in kept {
            kept.release(&mut long);
        }
        assert_eq!((long.len(), long.heap_bytes), (0, 0));
    }
}
