//! Keys on disk: big endian, so that they sort by (Session id, sequence).

use crate::durable::message::{Sequence, SessionId};
use crate::packet::PacketId;

/// Key of a Session and its queue index.
#[must_use]
pub(crate) fn session(id: SessionId) -> [u8; 8] {
    id.0.to_be_bytes()
}

/// First key after everything that belongs to a Session; `None` after the last possible one.
#[must_use]
pub(crate) fn after_session(id: SessionId) -> Option<[u8; 8]> {
    id.0.checked_add(1).map(u64::to_be_bytes)
}

/// Key of a place in a queue.
#[must_use]
pub(crate) fn place(id: SessionId, sequence: Sequence) -> [u8; 16] {
    let joined = u128::from(id.0) << 64 | u128::from(sequence.0);
    joined.to_be_bytes()
}

/// Key of a received QoS 2 Packet Identifier.
#[must_use]
pub(crate) fn incoming(id: SessionId, packet_id: PacketId) -> [u8; 10] {
    let mut key = [0; 10];
    key[..8].copy_from_slice(&id.0.to_be_bytes());
    key[8..].copy_from_slice(&packet_id.0.get().to_be_bytes());
    key
}

/// Key of a Subscription, written into a reused buffer.
pub(crate) fn subscription(id: SessionId, filter: &str, key: &mut Vec<u8>) {
    key.clear();
    key.extend_from_slice(&id.0.to_be_bytes());
    key.extend_from_slice(filter.as_bytes());
}

/// Splits a key into the Session it belongs to and the rest.
#[must_use]
pub(crate) fn split(key: &[u8]) -> Option<(SessionId, &[u8])> {
    let (id, rest) = key.split_first_chunk::<8>()?;
    Some((SessionId(u64::from_be_bytes(*id)), rest))
}

/// Reads the key of a place.
#[must_use]
pub(crate) fn split_place(key: &[u8]) -> Option<(SessionId, Sequence)> {
    let (id, rest) = split(key)?;
    let sequence = rest.try_into().ok()?;
    Some((id, Sequence(u64::from_be_bytes(sequence))))
}

/// Reads the number of a body.
#[must_use]
pub(crate) fn body(key: &[u8]) -> Option<u64> {
    key.try_into().ok().map(u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_big_endian_session_then_sequence() {
        let key = place(SessionId(0x0102), Sequence(0x0304));
        assert_eq!(key, [0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 3, 4]);
        assert_eq!(split_place(&key), Some((SessionId(0x0102), Sequence(0x0304))));
    }

    #[test]
    fn places_sort_by_session_then_sequence() {
        let last = place(SessionId(1), Sequence(u64::MAX));
        assert!(last < place(SessionId(2), Sequence(0)));
        assert!(place(SessionId(2), Sequence(255)) < place(SessionId(2), Sequence(256)));
        assert!(last.as_slice() < after_session(SessionId(1)).unwrap().as_slice());
        assert_eq!(after_session(SessionId(u64::MAX)), None);
    }

    #[test]
    fn the_marker_and_short_keys_are_no_places() {
        assert_eq!(split_place(b""), None);
        assert_eq!(split_place(&[0; 15]), None);
        assert_eq!(split(&[0; 7]), None);
        assert_eq!(body(&[0; 9]), None);
    }
}
