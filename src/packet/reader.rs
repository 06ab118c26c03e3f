//! A bounds-checked cursor over the bytes of one packet, and the data types of MQTT. [MQTT-1.5]

use crate::packet::{PacketId, error::DecodeError};

/// The largest value of a Variable Byte Integer. [MQTT-1.5.5]
pub(crate) const MAX_VARIABLE_BYTE_INTEGER: u32 = 268_435_455;

/// Reads fields from the front of a slice.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the front of `bytes`.
    #[must_use]
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Whether nothing is left.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// How many bytes are left.
    #[must_use]
    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Takes the remaining bytes.
    pub(crate) fn take_rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Takes `count` bytes.
    #[inline]
    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// One byte.
    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        let (first, rest) = self.rest.split_first().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*first)
    }

    /// Two Byte Integer.
    #[inline]
    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(u16::from_be_bytes(*bytes))
    }

    /// Four Byte Integer.
    #[inline]
    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(u32::from_be_bytes(*bytes))
    }

    /// Variable Byte Integer in its shortest form. [MQTT-1.5.5-1]
    #[inline]
    pub(crate) fn variable_byte_integer(&mut self) -> Result<u32, DecodeError> {
        match variable_byte_integer(self.rest)? {
            VariableByteInteger::Whole { is_minimal: false, .. } => {
                Err(DecodeError::IntegerNotMinimal)
            }
            VariableByteInteger::Whole { value, length, .. } => {
                self.take(length)?;
                Ok(value)
            }
            VariableByteInteger::Incomplete => Err(DecodeError::Truncated),
        }
    }

    /// Binary Data with its length in front. [MQTT-1.5.6]
    #[inline]
    pub(crate) fn binary(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    /// UTF-8 Encoded String without U+0000. [MQTT-1.5.4]
    #[inline]
    pub(crate) fn string(&mut self) -> Result<&'a str, DecodeError> {
        let text = self.unchecked_string()?;
        if memchr::memchr(0, text.as_bytes()).is_some() {
            return Err(DecodeError::StringContainsNul);
        }
        Ok(text)
    }

    /// A string that is a Topic Name: returns `error` if it contains wildcards. It may be empty.
    #[inline]
    pub(crate) fn topic_name(&mut self, error: DecodeError) -> Result<&'a str, DecodeError> {
        let text = self.unchecked_string()?;
        if memchr::memchr3(b'+', b'#', 0, text.as_bytes()).is_some() {
            return Err(if text.contains('\0') { DecodeError::StringContainsNul } else { error });
        }
        Ok(text)
    }

    /// User Property or any other pair of strings. [MQTT-1.5.7]
    pub(crate) fn string_pair(&mut self) -> Result<(&'a str, &'a str), DecodeError> {
        Ok((self.string()?, self.string()?))
    }

    /// Packet Identifier, never zero. [MQTT-2.2.1-3]
    #[inline]
    pub(crate) fn packet_id(&mut self) -> Result<PacketId, DecodeError> {
        PacketId::try_from(self.u16()?).map_err(|_| DecodeError::PacketIdZero)
    }

    /// Checks that nothing is left.
    #[inline]
    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::TrailingBytes) }
    }

    /// A string that has not been checked for U+0000 yet.
    #[inline]
    fn unchecked_string(&mut self) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.binary()?).map_err(|_| DecodeError::StringNotUtf8)
    }
}

/// The result of reading a Variable Byte Integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VariableByteInteger {
    /// A complete integer.
    Whole {
        /// Its value.
        value: u32,
        /// How many bytes it took.
        length: usize,
        /// Whether this is the shortest encoding of the value. Only 5.0 requires that. [MQTT-1.5.5-1]
        is_minimal: bool,
    },
    /// More bytes are needed.
    Incomplete,
}

/// Reads the Variable Byte Integer at the front of `bytes`. [MQTT-1.5.5]
#[inline]
pub(crate) fn variable_byte_integer(bytes: &[u8]) -> Result<VariableByteInteger, DecodeError> {
    // Nearly always one byte long.
    if let Some(first @ 0..=0x7F) = bytes.first() {
        let value = u32::from(*first);
        return Ok(VariableByteInteger::Whole { value, length: 1, is_minimal: true });
    }
    let mut value = 0;
    for (byte, (shift, length)) in bytes.iter().zip([(0, 1), (7, 2), (14, 3), (21, 4)]) {
        value |= u32::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            let is_minimal = *byte != 0 || length == 1;
            return Ok(VariableByteInteger::Whole { value, length, is_minimal });
        }
    }
    if bytes.len() < 4 {
        Ok(VariableByteInteger::Incomplete)
    } else {
        Err(DecodeError::IntegerTooLong)
    }
}
