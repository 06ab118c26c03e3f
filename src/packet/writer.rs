//! The data types of MQTT on their way out, the mirror of [`crate::packet::reader`]. [MQTT-1.5]
//!
//! Lengths stand in front of what they count. [`packet`] and [`properties`] write the content first
//! and then move it to make room for its length, which for the small packets they serve costs less
//! than counting ahead. PUBLISH counts.
//!
//! Encoding cannot fail: what came from a packet fits into a packet. Text of our own making that is
//! longer than 65,535 bytes is cut at a character rather than written with a wrong length.

use crate::packet::reader::MAX_VARIABLE_BYTE_INTEGER;

/// Writes a packet: its first byte, its Remaining Length, and what `body` appends.
pub(crate) fn packet(out: &mut Vec<u8>, first_byte: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(first_byte);
    length_prefixed(out, body);
}

/// Writes a Property Length and the properties that `body` appends. [MQTT-2.2.2]
pub(crate) fn properties(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    length_prefixed(out, body);
}

fn length_prefixed(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.push(0);
    body(out);
    let length = out.len().saturating_sub(start).saturating_sub(1);
    let (bytes, count) = variable_byte_integer_bytes(length);
    let bytes = bytes.get(..count).unwrap_or_default();
    // The usual case is one byte, for which room was left.
    match (bytes, out.get_mut(start)) {
        ([only], Some(place)) => *place = *only,
        _ => drop(out.splice(start..=start, bytes.iter().copied())),
    }
}

/// Writes a Variable Byte Integer. [MQTT-1.5.5-1]
#[inline]
pub(crate) fn variable_byte_integer(out: &mut Vec<u8>, value: usize) {
    let (bytes, count) = variable_byte_integer_bytes(value);
    out.extend_from_slice(bytes.get(..count).unwrap_or_default());
}

/// How many bytes a Variable Byte Integer takes.
#[inline]
#[must_use]
pub(crate) fn variable_byte_integer_length(value: usize) -> usize {
    match value {
        0..=127 => 1,
        128..=16_383 => 2,
        16_384..=2_097_151 => 3,
        _ => 4,
    }
}

#[inline]
fn variable_byte_integer_bytes(value: usize) -> ([u8; 4], usize) {
    let count = variable_byte_integer_length(value);
    let mut left = u32::try_from(value).unwrap_or(u32::MAX).min(MAX_VARIABLE_BYTE_INTEGER);
    let mut bytes = [0; 4];
    for (place, number) in bytes.iter_mut().zip(1..=count) {
        let more = if number < count { 0x80 } else { 0 };
        *place = (left & 0x7F) as u8 | more;
        left >>= 7;
    }
    (bytes, count)
}

/// Writes a Two Byte Integer.
#[inline]
pub(crate) fn u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Writes a Four Byte Integer.
#[inline]
pub(crate) fn u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Writes Binary Data; what is behind 65,535 bytes is left out.
#[inline]
pub(crate) fn binary(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    u16(out, length);
    out.extend_from_slice(bytes.get(..usize::from(length)).unwrap_or_default());
}

/// Writes a string; what is behind 65,535 bytes is left out, whole characters only.
#[inline]
pub(crate) fn string(out: &mut Vec<u8>, text: &str) {
    let end = text.floor_char_boundary(usize::from(u16::MAX));
    binary(out, text.as_bytes().get(..end).unwrap_or_default());
}
