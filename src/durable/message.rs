//! An Application Message that outlives the read buffer it came in, and the time it is measured by.

use std::sync::Arc;
use std::time::Duration;

use crate::packet::QoS;
use crate::topic::retained_tree::RetainedValue;

/// A point in broker time: milliseconds since the Unix epoch as the broker counts them. While it runs, it advances with
/// the monotonic clock; while it was down, by what the wall clock says passed, within bounds. So a jump of the wall
/// clock expires nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// This time and `duration` more; saturates.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }

    /// What passed from `earlier` to here; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Who gives out names of Sessions and messages: a shard (0 on a single node) and its epoch, which every opening of its
/// store raises. Two issuers never give out the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Issuer(u32);

impl Issuer {
    /// Bits of the epoch.
    pub const EPOCH_BITS: u32 = 20;
    /// Bits of the shard.
    pub const SHARD_BITS: u32 = 10;

    /// What does not fit is cut off.
    #[must_use]
    pub const fn new(shard: u16, epoch: u32) -> Self {
        let shard = shard as u32 & ((1 << Self::SHARD_BITS) - 1);
        Self(shard << Self::EPOCH_BITS | epoch & ((1 << Self::EPOCH_BITS) - 1))
    }

    /// Its shard.
    #[must_use]
    pub const fn shard(self) -> u16 {
        (self.0 >> Self::EPOCH_BITS) as u16
    }

    /// Its epoch.
    #[must_use]
    pub const fn epoch(self) -> u32 {
        self.0 & ((1 << Self::EPOCH_BITS) - 1)
    }

    /// The name with this number. Number 0 is the issuer itself.
    #[must_use]
    pub const fn session_id(self, number: u64) -> SessionId {
        let number = number & ((1 << SessionId::NUMBER_BITS) - 1);
        SessionId((self.0 as u64) << SessionId::NUMBER_BITS | number)
    }

    /// Where a Session starts to count its messages.
    #[must_use]
    pub const fn first_message(self) -> u64 {
        (self.epoch() as u64) << MessageId::NUMBER_BITS
    }
}

/// Names a Session for ever: new at every clean start, never reused, never the Client Identifier. Unique across nodes
/// and restarts: its [`Issuer`], and a number of 34 bits. Groups of Shared Subscriptions take theirs from the same space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

impl SessionId {
    const NUMBER_BITS: u32 = 64 - Issuer::SHARD_BITS - Issuer::EPOCH_BITS;

    /// Who gave it out.
    #[must_use]
    pub const fn issuer(self) -> Issuer {
        Issuer((self.0 >> Self::NUMBER_BITS) as u32)
    }
}

/// The place of a queued message in its Session: strictly rising, never reused. Opaque outside the session and the
/// store. The Packet Identifier of a delivery follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub u64);

/// Names a stored Application Message, unique across nodes and restarts: who published it, and a counter that starts
/// anew, higher, with each epoch of the shard that has the publisher's Session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId {
    /// The publisher's Session.
    pub publisher: SessionId,
    /// Epoch in which it was counted, and 44 bits that count the messages of that Session.
    pub counter: u64,
}

impl MessageId {
    const NUMBER_BITS: u32 = 64 - Issuer::EPOCH_BITS;
}

/// An Application Message with all that delivery needs. Shared by reference count between its recipients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Unique name; its publisher is what No Local compares.
    pub id: MessageId,
    /// QoS it was published with.
    pub qos: QoS,
    /// RETAIN as published.
    pub retain: bool,
    /// When it arrived.
    pub arrived: Timestamp,
    /// When it expires, from its Message Expiry Interval.
    pub expires: Option<Timestamp>,
    topic_bytes: u16,
    properties_bytes: u32,
    /// Topic Name, forwarded properties (wire-encoded), payload, in one piece.
    bytes: Box<[u8]>,
}

/// What a [`Message`] is made of, besides its bytes.
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
    /// Copies the parts into one piece. `properties` are those a Server forwards unaltered, wire-encoded, in the form
    /// of [`crate::packet::publish::Publish::properties`]. `None` if the topic is longer than 65,535 bytes or the
    /// properties than 4 GiB, which no packet can carry.
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
    pub fn properties(&self) -> &[u8] {
        let start = usize::from(self.topic_bytes);
        self.bytes.get(start..start + self.properties_bytes as usize).unwrap_or_default()
    }

    /// Forwarded properties and payload in one piece, as they end a PUBLISH of 5.0.
    #[must_use]
    pub fn properties_and_payload(&self) -> &[u8] {
        self.bytes.get(usize::from(self.topic_bytes)..).unwrap_or_default()
    }

    /// The payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        let start = usize::from(self.topic_bytes) + self.properties_bytes as usize;
        self.bytes.get(start..).unwrap_or_default()
    }

    /// Bytes of topic, properties and payload together: what queues count against their limits.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Whether its Message Expiry Interval has passed.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
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
        assert_eq!((id.issuer(), issuer.shard(), issuer.epoch()), (issuer, 5, 77));
        let others = [Issuer::new(5, 78), Issuer::new(6, 77), Issuer::new(1023, (1 << 20) - 1)];
        for other in others {
            assert_ne!(other.session_id(9), id);
            assert_ne!(other.session_id(9).issuer(), issuer);
        }
        let counters = [issuer.first_message(), Issuer::new(5, 78).first_message()];
        assert_eq!(counters, [77 << 44, 78 << 44]);
    }
}
