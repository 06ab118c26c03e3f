//! Application Messages that outlive their read buffer, their identifiers, and broker time.

use std::sync::Arc;
use std::time::Duration;

use crate::packet::QoS;
use crate::topic::retained_tree::RetainedValue;

/// A point in broker time: milliseconds since the Unix epoch. While the broker runs, this time advances with the
/// monotonic clock; for the time the broker was down, it advances by the wall clock, within bounds. So a jump of the
/// wall clock expires nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// This time plus `duration`; saturates.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }

    /// The time since `earlier`; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// The issuer of Session and message ids: a shard (0 on a single node) and its epoch, which rises each time its store
/// is opened. Two issuers never give out the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Issuer(u32);

impl Issuer {
    /// Bits of the epoch.
    pub(crate) const EPOCH_BITS: u32 = 20;
    /// Bits of the shard.
    pub(crate) const SHARD_BITS: u32 = 10;

    /// Excess bits are cut off.
    #[must_use]
    pub const fn new(shard: u16, epoch: u32) -> Self {
        let shard = shard as u32 & ((1 << Self::SHARD_BITS) - 1);
        Self(shard << Self::EPOCH_BITS | epoch & ((1 << Self::EPOCH_BITS) - 1))
    }

    /// Its epoch.
    #[must_use]
    pub const fn epoch(self) -> u32 {
        self.0 & ((1 << Self::EPOCH_BITS) - 1)
    }

    /// The Session id with this number. Number 0 is the issuer itself.
    #[must_use]
    pub const fn session_id(self, number: u64) -> SessionId {
        let number = number & ((1 << SessionId::NUMBER_BITS) - 1);
        SessionId((self.0 as u64) << SessionId::NUMBER_BITS | number)
    }

    /// The number of the first message of a Session.
    #[must_use]
    pub(crate) const fn first_message(self) -> u64 {
        (self.epoch() as u64) << MessageId::NUMBER_BITS
    }
}

/// Identifies a Session permanently: new at every clean start, never reused, independent of the Client Identifier. Unique
/// across nodes and restarts: it consists of its [`Issuer`] and a 34-bit number. Groups of Shared Subscriptions use the
/// same id space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

impl SessionId {
    const NUMBER_BITS: u32 = 64 - Issuer::SHARD_BITS - Issuer::EPOCH_BITS;

    /// The issuer of this id.
    #[must_use]
    pub(crate) const fn issuer(self) -> Issuer {
        Issuer((self.0 >> Self::NUMBER_BITS) as u32)
    }
}

/// The position of a queued message in its Session: strictly rising, never reused, opaque outside the session and the
/// store. The Packet Identifier of a delivery is computed from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub u64);

/// Identifies a stored Application Message, unique across nodes and restarts: the publisher, and a counter that
/// restarts at a higher value with each epoch of the shard that owns the publisher's Session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId {
    /// The publisher's Session.
    pub publisher: SessionId,
    /// The epoch, and 44 bits that count the messages of that Session.
    pub counter: u64,
}

impl MessageId {
    const NUMBER_BITS: u32 = 64 - Issuer::EPOCH_BITS;
}

/// An Application Message with everything needed to deliver it. Reference-counted, shared by its recipients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Unique id; No Local compares its publisher.
    pub(crate) id: MessageId,
    /// QoS it was published with.
    pub(crate) qos: QoS,
    /// RETAIN as published.
    pub(crate) retain: bool,
    /// When it arrived.
    pub(crate) arrived: Timestamp,
    /// When it expires, from its Message Expiry Interval.
    pub(crate) expires: Option<Timestamp>,
    topic_bytes: u16,
    properties_bytes: u32,
    /// Topic Name, forwarded properties (wire-encoded), payload, in one piece.
    bytes: Box<[u8]>,
}

/// The fields of a [`Message`], without its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageHeader {
    /// Unique name.
    pub id: MessageId,
    /// QoS it was published with.
    pub qos: QoS,
    /// RETAIN as published.
    pub retain: bool,
    /// When it arrived.
    pub arrived: Timestamp,
    /// When it expires.
    pub expires: Option<Timestamp>,
}

impl Message {
    /// Creates a message from copies of its parts. `properties` are those a Server forwards unaltered, wire-encoded
    /// as in [`crate::packet::publish::Publish::properties`]. `None` if the topic is longer than 65,535 bytes or the
    /// properties are longer than 4 GiB, which no packet can contain.
    #[must_use]
    pub fn new(
        header: MessageHeader,
        topic: &str,
        properties: &[u8],
        payload: &[u8],
    ) -> Option<Self> {
        let topic_bytes = u16::try_from(topic.len()).ok()?;
        let properties_bytes = u32::try_from(properties.len()).ok()?;
        let mut bytes = Vec::with_capacity(topic.len() + properties.len() + payload.len());
        bytes.extend_from_slice(topic.as_bytes());
        bytes.extend_from_slice(properties);
        bytes.extend_from_slice(payload);
        let MessageHeader { id, qos, retain, arrived, expires } = header;
        let bytes = bytes.into_boxed_slice();
        Some(Self { id, qos, retain, arrived, expires, topic_bytes, properties_bytes, bytes })
    }

    /// The Topic Name.
    #[must_use]
    pub fn topic(&self) -> &str {
        let bytes = self.bytes.get(..usize::from(self.topic_bytes)).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default()
    }

    /// The forwarded properties, wire-encoded.
    #[must_use]
    pub(crate) fn properties(&self) -> &[u8] {
        let start = usize::from(self.topic_bytes);
        self.bytes.get(start..start + self.properties_bytes as usize).unwrap_or_default()
    }

    /// Forwarded properties and payload in one slice, as at the end of a 5.0 PUBLISH.
    #[must_use]
    pub(crate) fn properties_and_payload(&self) -> &[u8] {
        self.bytes.get(usize::from(self.topic_bytes)..).unwrap_or_default()
    }

    /// The payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        let start = usize::from(self.topic_bytes) + self.properties_bytes as usize;
        self.bytes.get(start..).unwrap_or_default()
    }

    /// Bytes of topic, properties and payload together, which count towards queue limits.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Whether its Message Expiry Interval has passed.
    #[must_use]
    pub(crate) fn is_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

impl RetainedValue for Arc<Message> {
    fn topic(&self) -> &str {
        Message::topic(self)
    }

    fn memory_bytes(&self) -> usize {
        size_of::<Message>() + size_of::<[usize; 2]>() + self.size_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issuers_share_no_names() {
        let issuer = Issuer::new(5, 77);
        let id = issuer.session_id(9);
        assert_eq!(id.0, 5 << 54 | 77 << 34 | 9);
        assert_eq!((id.issuer(), issuer.epoch()), (issuer, 77));
        let others = [Issuer::new(5, 78), Issuer::new(6, 77), Issuer::new(1023, (1 << 20) - 1)];
        for other in others {
            assert_ne!(other.session_id(9), id);
            assert_ne!(other.session_id(9).issuer(), issuer);
        }
        let counters = [issuer.first_message(), Issuer::new(5, 78).first_message()];
        assert_eq!(counters, [77 << 44, 78 << 44]);
    }
}
