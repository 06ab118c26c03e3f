//! Encodes and decodes values on disk, by hand and with a reused buffer, because this runs for each queued message.
//!
//! Every value starts with its format version. Decoding checks every length and returns `None` for invalid data; bit
//! rot is detected by RocksDB's checksums on blocks and log records.

use std::num::NonZeroU16;
use std::sync::Arc;

use crate::durable::entry::{QueueEntry, SUBSCRIPTION_ID_BYTES};
use crate::durable::message::{Message, MessageHeader, MessageId, Sequence, SessionId, Timestamp};
use crate::durable::record::{
    OverflowPolicy, QueueLifetime, QueueOwner, QueueRecord, QueueRules, SessionRecord, StoresQoS0,
    SubscriptionRecord, WillRecord,
};
use crate::packet::subscribe::{RetainHandling, SubscriptionOptions};
use crate::packet::{PacketId, QoS};

/// Names in [`crate::store::family::Family::Meta`].
pub(crate) mod meta {
    /// Format version of the database, u32.
    pub(crate) const FORMAT: &[u8] = b"format";
    /// Raised by every opening, u32.
    pub(crate) const INCARNATION: &[u8] = b"incarnation";
    /// Broker time and wall clock at the last heartbeat, and the latest trusted wall clock, three u64.
    pub(crate) const CLOCK: &[u8] = b"clock";
}

const VERSION: u8 = 1;
/// Version of the record of a Session.
const SESSION_VERSION: u8 = 2;

const RETAIN: u8 = 0b0000_0100;
const HAS_EXPIRY: u8 = 0b0000_1000;
const HAS_PROPERTIES: u8 = 0b0001_0000;

const HAS_IDS: u8 = 0b0000_1000;
const HAS_GROUP: u8 = 0b0001_0000;
const SHARED_BODY: u8 = 0b0010_0000;

/// A value without content, for keys that only need to exist.
pub(crate) const PRESENT: [u8; 1] = [VERSION];

/// Where the message of a queue entry is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    /// In the entry.
    Inline,
    /// In [`crate::store::family::Family::Bodies`], under this number.
    Shared(u64),
}

/// Appends a message with its version.
pub(crate) fn encode_message(message: &Message, value: &mut Vec<u8>) {
    let properties = message.properties();
    let mut flags = message.qos as u8;
    flags |= if message.retain { RETAIN } else { 0 };
    flags |= if message.expires.is_some() { HAS_EXPIRY } else { 0 };
    flags |= if properties.is_empty() { 0 } else { HAS_PROPERTIES };
    let topic = message.topic().as_bytes();
    let mut head = [0; 28];
    head[0] = VERSION;
    head[1] = flags;
    head[2..10].copy_from_slice(&message.id.publisher.0.to_le_bytes());
    head[10..18].copy_from_slice(&message.id.counter.to_le_bytes());
    head[18..26].copy_from_slice(&message.arrived.0.to_le_bytes());
    #[expect(clippy::cast_possible_truncation, reason = "Message::new refuses longer topics")]
    head[26..].copy_from_slice(&(topic.len() as u16).to_le_bytes());
    value.extend_from_slice(&head);
    if let Some(expires) = message.expires {
        value.extend_from_slice(&expires.0.to_le_bytes());
    }
    if !properties.is_empty() {
        #[expect(clippy::cast_possible_truncation, reason = "Message::new refuses 4 GiB")]
        value.extend_from_slice(&(properties.len() as u32).to_le_bytes());
    }
    value.extend_from_slice(topic);
    value.extend_from_slice(properties);
    value.extend_from_slice(message.payload());
}

/// Reads what [`encode_message`] wrote; the value ends with the payload.
#[must_use]
pub(crate) fn decode_message(value: &[u8]) -> Option<Message> {
    let mut reader = Reader(value);
    reader.version()?;
    let flags = reader.u8()?;
    let publisher = SessionId(reader.u64()?);
    let counter = reader.u64()?;
    let arrived = Timestamp(reader.u64()?);
    let topic_bytes = usize::from(reader.u16()?);
    let expires = if flags & HAS_EXPIRY == 0 { None } else { Some(Timestamp(reader.u64()?)) };
    let properties_bytes = if flags & HAS_PROPERTIES == 0 { 0 } else { reader.u32()? as usize };
    let topic = std::str::from_utf8(reader.take(topic_bytes)?).ok()?;
    let properties = reader.take(properties_bytes)?;
    let header = MessageHeader {
        id: MessageId { publisher, counter },
        qos: qos(flags & 3)?,
        retain: flags & RETAIN != 0,
        arrived,
        expires,
    };
    Message::new(header, topic, properties, reader.0)
}

/// Bytes of topic, properties and payload of an encoded message, without decoding it.
#[must_use]
pub(crate) fn message_size(value: &[u8]) -> Option<usize> {
    let flags = *value.get(1)?;
    let mut head = 28;
    head += if flags & HAS_EXPIRY == 0 { 0 } else { 8 };
    head += if flags & HAS_PROPERTIES == 0 { 0 } else { 4 };
    value.len().checked_sub(head)
}

/// Writes a queue entry over the buffer.
pub(crate) fn encode_entry(entry: &QueueEntry, body: Body, value: &mut Vec<u8>) {
    value.clear();
    let mut flags = entry.qos as u8;
    flags |= if entry.retain { RETAIN } else { 0 };
    flags |= if entry.subscription_ids.is_empty() { 0 } else { HAS_IDS };
    flags |= if entry.group.is_some() { HAS_GROUP } else { 0 };
    flags |= if body == Body::Inline { 0 } else { SHARED_BODY };
    value.extend_from_slice(&[VERSION, flags]);
    if !entry.subscription_ids.is_empty() {
        let count = u16::try_from(entry.subscription_ids.len()).unwrap_or(u16::MAX);
        value.extend_from_slice(&count.to_le_bytes());
        for id in entry.subscription_ids.iter().take(usize::from(count)) {
            value.extend_from_slice(&id.to_le_bytes());
        }
    }
    if let Some(group) = entry.group {
        value.extend_from_slice(&group.0.to_le_bytes());
    }
    match body {
        Body::Inline => encode_message(&entry.message, value),
        Body::Shared(number) => {
            value.extend_from_slice(&number.to_le_bytes());
            value.extend_from_slice(&(entry.message.size_bytes() as u64).to_le_bytes());
        }
    }
}

/// A queue entry as stored: its message may be elsewhere.
#[derive(Debug)]
pub(crate) struct EncodedEntry<'a> {
    qos: QoS,
    retain: bool,
    subscription_ids: smallvec::SmallVec<[u32; 2]>,
    group: Option<SessionId>,
    /// Where its message is.
    pub(crate) content: EntryContent<'a>,
}

/// The message of a stored entry.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum EntryContent<'a> {
    /// Here, encoded.
    Inline(&'a [u8]),
    /// In the body of this number.
    Shared {
        /// Number of the body.
        number: u64,
        /// [`Message::size_bytes`] of it.
        size_bytes: u64,
    },
}

impl<'a> EncodedEntry<'a> {
    /// Reads what [`encode_entry`] wrote.
    #[must_use]
    pub(crate) fn decode(value: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(value);
        reader.version()?;
        let flags = reader.u8()?;
        let mut subscription_ids = smallvec::SmallVec::new();
        if flags & HAS_IDS != 0 {
            for _ in 0..reader.u16()? {
                subscription_ids.push(reader.u32()?);
            }
        }
        let group = if flags & HAS_GROUP == 0 { None } else { Some(SessionId(reader.u64()?)) };
        let content = if flags & SHARED_BODY == 0 {
            EntryContent::Inline(reader.0)
        } else {
            EntryContent::Shared { number: reader.u64()?, size_bytes: reader.u64()? }
        };
        let (qos, retain) = (qos(flags & 3)?, flags & RETAIN != 0);
        Some(Self { qos, retain, subscription_ids, group, content })
    }

    /// [`QueueEntry::size_bytes`] of the entry.
    #[must_use]
    pub(crate) fn size_bytes(&self) -> u64 {
        let message_bytes = match self.content {
            EntryContent::Inline(message) => message_size(message).unwrap_or(0) as u64,
            EntryContent::Shared { size_bytes, .. } => size_bytes,
        };
        message_bytes + (self.subscription_ids.len() * SUBSCRIPTION_ID_BYTES) as u64
    }

    /// Combines it with its message to a committed entry at this position.
    #[must_use]
    pub(crate) fn into_entry(self, sequence: Sequence, message: Arc<Message>) -> QueueEntry {
        let mut entry = QueueEntry::new(sequence, message, self.qos);
        entry.retain = self.retain;
        entry.subscription_ids = self.subscription_ids;
        entry.group = self.group;
        entry.into_committed()
    }
}

/// Writes the record of a queue over the buffer.
pub(crate) fn encode_queue(record: &QueueRecord, value: &mut Vec<u8>) {
    value.clear();
    let QueueRules { max_messages, max_bytes, policy, qos0 } = record.rules;
    let qos0 = match qos0 {
        StoresQoS0::Never => 0,
        StoresQoS0::Always => 1,
        StoresQoS0::Retained => 2,
    };
    let lifetime = match record.lifetime {
        QueueLifetime::OfSession => 0,
        QueueLifetime::OfMembers => 1,
        QueueLifetime::UntilRemoved => 2,
    };
    let policy = match policy {
        None => 0,
        Some(OverflowPolicy::Spill) => 1,
        Some(OverflowPolicy::Backpressure) => 2,
        Some(OverflowPolicy::Reject) => 3,
        Some(OverflowPolicy::DropOldest) => 4,
        Some(OverflowPolicy::DropNewest) => 5,
    };
    value.extend_from_slice(&[VERSION, lifetime, policy, qos0]);
    put_option(max_messages.map(u64::to_le_bytes), value);
    put_option(max_bytes.map(u64::to_le_bytes), value);
    match &record.owner {
        QueueOwner::Session => value.push(0),
        QueueOwner::Group { filter } => {
            value.push(1);
            put_bytes(filter.as_bytes(), value);
        }
    }
}

/// Reads what [`encode_queue`] wrote.
#[must_use]
pub(crate) fn decode_queue(id: SessionId, value: &[u8]) -> Option<QueueRecord> {
    let mut reader = Reader(value);
    reader.version()?;
    let lifetime = match reader.u8()? {
        0 => QueueLifetime::OfSession,
        1 => QueueLifetime::OfMembers,
        2 => QueueLifetime::UntilRemoved,
        _ => return None,
    };
    let policy = match reader.u8()? {
        0 => None,
        1 => Some(OverflowPolicy::Spill),
        2 => Some(OverflowPolicy::Backpressure),
        3 => Some(OverflowPolicy::Reject),
        4 => Some(OverflowPolicy::DropOldest),
        5 => Some(OverflowPolicy::DropNewest),
        _ => return None,
    };
    let qos0 = match reader.u8()? {
        0 => StoresQoS0::Never,
        2 => StoresQoS0::Retained,
        _ => StoresQoS0::Always,
    };
    let max_messages = if reader.u8()? == 0 { None } else { Some(reader.u64()?) };
    let max_bytes = if reader.u8()? == 0 { None } else { Some(reader.u64()?) };
    let owner = match reader.u8()? {
        0 => QueueOwner::Session,
        1 => QueueOwner::Group { filter: Arc::from(reader.text()?) },
        _ => return None,
    };
    let rules = QueueRules { max_messages, max_bytes, policy, qos0 };
    Some(QueueRecord { id, owner, lifetime, rules })
}

/// Writes the record of a Session over the buffer.
pub(crate) fn encode_session(record: &SessionRecord, value: &mut Vec<u8>) {
    value.clear();
    value.push(SESSION_VERSION);
    put_bytes(record.client_id.as_bytes(), value);
    value.extend_from_slice(&record.epoch.to_le_bytes());
    value.extend_from_slice(&record.expiry_seconds.to_le_bytes());
    put_option(record.disconnected.map(|time| time.0.to_le_bytes()), value);
    value.extend_from_slice(&record.sent_until.0.to_le_bytes());
    match &record.user_name {
        Some(name) => {
            value.push(1);
            put_bytes(name.as_bytes(), value);
        }
        None => value.push(0),
    }
    match &record.will {
        Some(will) => {
            value.push(1);
            value.extend_from_slice(&will.delay_seconds.to_le_bytes());
            encode_message(&will.message, value);
        }
        None => value.push(0),
    }
}

/// Reads what [`encode_session`] wrote.
#[must_use]
pub(crate) fn decode_session(id: SessionId, value: &[u8]) -> Option<SessionRecord> {
    let mut reader = Reader(value);
    (reader.u8()? == SESSION_VERSION).then_some(())?;
    reader.session(id)
}

/// A value of the Sessions family before format 2, when Shared Subscription groups were Sessions, too.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum FormerSession {
    /// A Session.
    Session(SessionRecord),
    /// A group, with its filter in full.
    Group(Arc<str>),
}

/// Reads a Session as it was written before format 2.
#[must_use]
pub(crate) fn decode_former_session(id: SessionId, value: &[u8]) -> Option<FormerSession> {
    let mut reader = Reader(value);
    reader.version()?;
    match reader.u8()? {
        0 => reader.session(id).map(FormerSession::Session),
        1 => reader.text().map(Arc::from).map(FormerSession::Group),
        _ => None,
    }
}

/// Writes a Subscription over the buffer; its Session and filter are the key.
pub(crate) fn encode_subscription(record: &SubscriptionRecord, value: &mut Vec<u8>) {
    value.clear();
    let options = &record.options;
    let flags = options.qos as u8
        | u8::from(options.no_local) << 2
        | u8::from(options.retain_as_published) << 3
        | (options.retain_handling as u8) << 4;
    value.extend_from_slice(&[VERSION, flags]);
    put_option(record.subscription_id.map(u32::to_le_bytes), value);
}

/// Reads what [`encode_subscription`] wrote.
#[must_use]
pub(crate) fn decode_subscription(
    session: SessionId,
    filter: &[u8],
    value: &[u8],
) -> Option<SubscriptionRecord> {
    let mut reader = Reader(value);
    reader.version()?;
    let flags = reader.u8()?;
    let subscription_id = if reader.u8()? == 0 { None } else { Some(reader.u32()?) };
    let options = SubscriptionOptions {
        qos: qos(flags & 3)?,
        no_local: flags & 0b100 != 0,
        retain_as_published: flags & 0b1000 != 0,
        retain_handling: match flags >> 4 & 3 {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return None,
        },
    };
    let filter = Arc::from(std::str::from_utf8(filter).ok()?);
    Some(SubscriptionRecord { session, filter, options, subscription_id })
}

/// Reads a Packet Identifier from the end of its key.
#[must_use]
pub(crate) fn decode_packet_id(key: &[u8]) -> Option<PacketId> {
    let bytes = key.try_into().ok()?;
    NonZeroU16::new(u16::from_be_bytes(bytes)).map(PacketId)
}

/// Encodes a version and numbers, for the queue index and the clock.
#[must_use]
pub(crate) fn encode_numbers<const N: usize>(numbers: [u64; N]) -> Vec<u8> {
    let mut value = Vec::with_capacity(1 + 8 * N);
    value.push(VERSION);
    for number in numbers {
        value.extend_from_slice(&number.to_le_bytes());
    }
    value
}

/// Reads what [`encode_numbers`] wrote.
#[must_use]
pub(crate) fn decode_numbers<const N: usize>(value: &[u8]) -> Option<[u64; N]> {
    let mut reader = Reader(value);
    reader.version()?;
    let mut numbers = [0; N];
    for number in &mut numbers {
        *number = reader.u64()?;
    }
    Some(numbers)
}

fn put_bytes(bytes: &[u8], value: &mut Vec<u8>) {
    #[expect(clippy::cast_possible_truncation, reason = "names in MQTT have at most 65,535 bytes")]
    value.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    value.extend_from_slice(bytes);
}

fn put_option<const N: usize>(bytes: Option<[u8; N]>, value: &mut Vec<u8>) {
    value.push(u8::from(bytes.is_some()));
    if let Some(bytes) = bytes {
        value.extend_from_slice(&bytes);
    }
}

fn qos(bits: u8) -> Option<QoS> {
    match bits {
        0 => Some(QoS::AtMostOnce),
        1 => Some(QoS::AtLeastOnce),
        2 => Some(QoS::ExactlyOnce),
        _ => None,
    }
}

/// The rest of a value.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn version(&mut self) -> Option<()> {
        (self.u8()? == VERSION).then_some(())
    }

    fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// Reads the part after the version (and, before format 2, the kind).
    fn session(&mut self, id: SessionId) -> Option<SessionRecord> {
        let client_id = Arc::from(self.text()?);
        let epoch = self.u64()?;
        let expiry_seconds = self.u32()?;
        let disconnected = if self.u8()? == 0 { None } else { Some(Timestamp(self.u64()?)) };
        let sent_until = Sequence(self.u64()?);
        let user_name = if self.u8()? == 0 { None } else { Some(Arc::from(self.text()?)) };
        let will = if self.u8()? == 0 {
            None
        } else {
            let delay_seconds = self.u32()?;
            Some(WillRecord { message: Arc::new(decode_message(self.0)?), delay_seconds })
        };
        Some(SessionRecord {
            id,
            client_id,
            epoch,
            expiry_seconds,
            disconnected,
            sent_until,
            will,
            user_name,
        })
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = self.u32()? as usize;
        std::str::from_utf8(self.take(length)?).ok()
    }
}

#[cfg(test)]
#[path = "value_tests.rs"]
mod tests;
