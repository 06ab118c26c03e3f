//! A group of changes as plain operations on families, keys and values.
//!
//! All decisions about a group are made before it becomes operations: which entries were acknowledged meanwhile,
//! which body is shared, which index must be written. Operations are then applied in order without further checks,
//! now or later, here or elsewhere. The encoding is our own, so it does not depend on a version of RocksDB.

use crate::store::family::Family;

const PUT: u8 = 1;
const DELETE: u8 = 2;
const DELETE_ONCE: u8 = 3;
const DELETE_RANGE: u8 = 4;

/// A packed list of operations: `operation u8, family u8, key length, key, [length, value or end]`, lengths as varints.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Operations {
    bytes: Vec<u8>,
    count: usize,
}

/// One operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation<'a> {
    /// Sets a value.
    Put {
        /// Where.
        family: Family,
        /// Under which key.
        key: &'a [u8],
        /// To what.
        value: &'a [u8],
    },
    /// Removes a value.
    Delete {
        /// Where.
        family: Family,
        /// Under which key.
        key: &'a [u8],
    },
    /// Removes a value that was put exactly once.
    DeleteOnce {
        /// Where.
        family: Family,
        /// Under which key.
        key: &'a [u8],
    },
    /// Removes all values from a key up to another, which is not included.
    DeleteRange {
        /// Where.
        family: Family,
        /// The first key.
        from: &'a [u8],
        /// The first key that stays.
        to: &'a [u8],
    },
}

impl Operations {
    /// An empty list with room for this many bytes.
    #[must_use]
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), count: 0 }
    }

    /// How many.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Their encoded size.
    #[must_use]
    pub(crate) fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Adds a [`Operation::Put`].
    pub(crate) fn put(&mut self, family: Family, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.begin(PUT, family, key.as_ref());
        self.push(value.as_ref());
    }

    /// Adds a [`Operation::Delete`].
    pub(crate) fn delete(&mut self, family: Family, key: impl AsRef<[u8]>) {
        self.begin(DELETE, family, key.as_ref());
    }

    /// Adds a [`Operation::DeleteOnce`].
    pub(crate) fn delete_once(&mut self, family: Family, key: impl AsRef<[u8]>) {
        self.begin(DELETE_ONCE, family, key.as_ref());
    }

    /// Adds a [`Operation::DeleteRange`].
    pub(crate) fn delete_range(
        &mut self,
        family: Family,
        from: impl AsRef<[u8]>,
        to: impl AsRef<[u8]>,
    ) {
        self.begin(DELETE_RANGE, family, from.as_ref());
        self.push(to.as_ref());
    }

    /// All of them, in order.
    #[must_use]
    pub(crate) fn iter(&self) -> OperationsIter<'_> {
        OperationsIter { rest: &self.bytes }
    }

    fn begin(&mut self, operation: u8, family: Family, key: &[u8]) {
        self.count += 1;
        self.bytes.extend_from_slice(&[operation, family.code()]);
        self.push(key);
    }

    fn push(&mut self, bytes: &[u8]) {
        let mut length = bytes.len();
        loop {
            let [low, ..] = length.to_le_bytes();
            length >>= 7;
            if length == 0 {
                self.bytes.push(low);
                break;
            }
            self.bytes.push(low | 0x80);
        }
        self.bytes.extend_from_slice(bytes);
    }
}

impl<'a> IntoIterator for &'a Operations {
    type Item = Operation<'a>;
    type IntoIter = OperationsIter<'a>;

    fn into_iter(self) -> OperationsIter<'a> {
        self.iter()
    }
}

/// Iterates over operations; ends at the first incomplete one.
#[derive(Debug, Clone)]
pub struct OperationsIter<'a> {
    rest: &'a [u8],
}

impl<'a> OperationsIter<'a> {
    fn take(&mut self) -> Option<&'a [u8]> {
        let mut length = 0_usize;
        for shift in (0..usize::BITS).step_by(7) {
            let (byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            length |= usize::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                let (taken, rest) = self.rest.split_at_checked(length)?;
                self.rest = rest;
                return Some(taken);
            }
        }
        None
    }
}

impl<'a> Iterator for OperationsIter<'a> {
    type Item = Operation<'a>;

    fn next(&mut self) -> Option<Operation<'a>> {
        let (&[operation, family], rest) = self.rest.split_first_chunk::<2>()?;
        self.rest = rest;
        let family = Family::from_code(family)?;
        let key = self.take()?;
        match operation {
            PUT => Some(Operation::Put { family, key, value: self.take()? }),
            DELETE => Some(Operation::Delete { family, key }),
            DELETE_ONCE => Some(Operation::DeleteOnce { family, key }),
            DELETE_RANGE => Some(Operation::DeleteRange { family, from: key, to: self.take()? }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_read_back_in_order() {
        let long = vec![7; 70_000];
        let mut operations = Operations::default();
        operations.put(Family::Queue, [1, 2], &long);
        operations.delete(Family::Sessions, []);
        operations.delete_once(Family::Queue, [1; 16]);
        operations.delete_range(Family::Retained, "a", "b");
        let expected = [
            Operation::Put { family: Family::Queue, key: &[1, 2], value: &long },
            Operation::Delete { family: Family::Sessions, key: &[] },
            Operation::DeleteOnce { family: Family::Queue, key: &[1; 16] },
            Operation::DeleteRange { family: Family::Retained, from: b"a", to: b"b" },
        ];
        assert_eq!(operations.iter().collect::<Vec<_>>(), expected);
        assert_eq!(operations.len(), 4);
    }

    /// Literal bytes, so that a change of the encoding is noticed.
    #[test]
    fn the_encoding_is_fixed() {
        let mut operations = Operations::default();
        operations.put(Family::Queue, [0xAA], [0xBB, 0xCC]);
        operations.delete_range(Family::Retained, [1], [2; 130]);
        let mut expected = vec![1, 3, 1, 0xAA, 2, 0xBB, 0xCC, 4, 9, 1, 1, 0x82, 0x01];
        expected.extend([2; 130]);
        assert_eq!(operations.bytes, expected);
    }

    #[test]
    fn what_is_cut_off_ends_the_reading() {
        let mut operations = Operations::default();
        operations.put(Family::Queue, [1], [2, 3]);
        operations.bytes.pop();
        assert_eq!(operations.iter().next(), None);
    }
}
