//! The Packet Identifiers of the exchanges in flight on a remote connection: a bit for each, and their number.
//!
//! A number alone would not suffice. After a disconnection, the local broker continues some exchanges with a PUBREL;
//! their PUBCOMP would be mistaken for the end of others, and the window would open too far. mosquitto drops messages
//! beyond its window, and over 3.x its PUBREC cannot report that.

use crate::packet::PacketId;

/// Bits in a word.
const WORD: usize = u64::BITS as usize;
/// Words for all identifiers.
const WORDS: usize = (1 << 16) / WORD;

/// The set. 8 KiB.
pub(super) struct Inflight {
    words: Box<[u64]>,
    count: usize,
}

impl Inflight {
    pub(super) fn new() -> Self {
        Self { words: vec![0; WORDS].into_boxed_slice(), count: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn contains(&self, id: PacketId) -> bool {
        let (index, bit) = place(id);
        self.words.get(index).is_some_and(|word| word & bit != 0)
    }

    /// Adds an exchange that begins or continues after a disconnection; the same one counts once.
    pub(super) fn insert(&mut self, id: PacketId) {
        let (index, bit) = place(id);
        if let Some(word) = self.words.get_mut(index)
            && *word & bit == 0
        {
            *word |= bit;
            self.count += 1;
        }
    }

    /// An exchange ends; false if there was none.
    pub(super) fn remove(&mut self, id: PacketId) -> bool {
        let (index, bit) = place(id);
        let Some(word) = self.words.get_mut(index) else { return false };
        let was_there = *word & bit != 0;
        *word &= !bit;
        self.count -= usize::from(was_there);
        was_there
    }
}

fn place(id: PacketId) -> (usize, u64) {
    let number = usize::from(id.get());
    (number / WORD, 1 << (number % WORD))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_exchange_counts_once() {
        let id = |number: u16| PacketId::try_from(number).unwrap();
        let mut inflight = Inflight::new();
        for number in [1, 63, 64, 65_535, 64] {
            inflight.insert(id(number));
        }
        assert_eq!(inflight.len(), 4);
        assert!(inflight.contains(id(65_535)) && !inflight.contains(id(2)));
        assert!(inflight.remove(id(64)) && !inflight.remove(id(64)));
        assert_eq!(inflight.len(), 3);
    }
}
