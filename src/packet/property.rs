//! The properties of 5.0: identifiers, values, and which packet may carry which. [MQTT-2.2.2]

use crate::packet::{QoS, error::DecodeError, reader::Reader, writer};

/// One property with its value. [MQTT-2.2.2.2]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of table 2-4 of the specification")]
pub enum Property<'a> {
    /// Whether the payload is declared to be UTF-8.
    PayloadFormatIndicator(bool),
    MessageExpiryInterval(u32),
    ContentType(&'a str),
    ResponseTopic(&'a str),
    CorrelationData(&'a [u8]),
    SubscriptionIdentifier(u32),
    SessionExpiryInterval(u32),
    AssignedClientIdentifier(&'a str),
    ServerKeepAlive(u16),
    AuthenticationMethod(&'a str),
    AuthenticationData(&'a [u8]),
    RequestProblemInformation(bool),
    WillDelayInterval(u32),
    RequestResponseInformation(bool),
    ResponseInformation(&'a str),
    ServerReference(&'a str),
    ReasonString(&'a str),
    ReceiveMaximum(u16),
    TopicAliasMaximum(u16),
    TopicAlias(u16),
    MaximumQoS(QoS),
    RetainAvailable(bool),
    UserProperty(&'a str, &'a str),
    MaximumPacketSize(u32),
    WildcardSubscriptionAvailable(bool),
    SubscriptionIdentifierAvailable(bool),
    SharedSubscriptionAvailable(bool),
}

/// Identifiers that a packet may carry, one bit each: all are below 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PropertySet(u64);

impl PropertySet {
    pub(super) const CONNECT: Self =
        Self::of(&[0x11, 0x15, 0x16, 0x17, 0x19, 0x21, 0x22, 0x26, 0x27]);
    pub(super) const WILL: Self = Self::of(&[0x01, 0x02, 0x03, 0x08, 0x09, 0x18, 0x26]);
    pub(super) const CONNACK: Self = Self::of(&[
        0x11, 0x12, 0x13, 0x15, 0x16, 0x1A, 0x1C, 0x1F, 0x21, 0x22, 0x24, 0x25, 0x26, 0x27, 0x28,
        0x29, 0x2A,
    ]);
    pub(super) const PUBLISH: Self = Self::of(&[0x01, 0x02, 0x03, 0x08, 0x09, 0x0B, 0x23, 0x26]);
    /// PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK and UNSUBACK.
    pub(super) const ACKNOWLEDGEMENT: Self = Self::of(&[0x1F, 0x26]);
    pub(super) const SUBSCRIBE: Self = Self::of(&[0x0B, 0x26]);
    pub(super) const UNSUBSCRIBE: Self = Self::of(&[0x26]);
    pub(super) const DISCONNECT: Self = Self::of(&[0x11, 0x1C, 0x1F, 0x26]);
    pub(super) const AUTH: Self = Self::of(&[0x15, 0x16, 0x1F, 0x26]);
    const ALL: Self = Self(u64::MAX);

    const fn of(mut identifiers: &[u8]) -> Self {
        let mut bits = 0;
        while let [first, rest @ ..] = identifiers {
            bits |= 1 << *first;
            identifiers = rest;
        }
        Self(bits)
    }

    fn contains(self, identifier: u8) -> bool {
        identifier < 64 && self.0 >> identifier & 1 == 1
    }

    fn insert(&mut self, identifier: u8) {
        if identifier < 64 {
            self.0 |= 1 << identifier;
        }
    }
}

/// Reads the properties of one packet: those it may carry, each once. [MQTT-2.2.2.2]
#[derive(Debug)]
pub(super) struct PropertyReader<'a> {
    all: &'a [u8],
    rest: Reader<'a>,
    allowed: PropertySet,
    repeatable: PropertySet,
    seen: PropertySet,
}

impl<'a> PropertyReader<'a> {
    /// Takes the Property Length and the properties from the front of `reader`.
    #[inline]
    pub(super) fn take(reader: &mut Reader<'a>, allowed: PropertySet) -> Result<Self, DecodeError> {
        let length = reader.variable_byte_integer()?;
        let all = reader.take(length as usize)?;
        let repeatable = PropertySet::of(&[0x26]);
        Ok(Self { all, rest: Reader::new(all), allowed, repeatable, seen: PropertySet(0) })
    }

    /// PUBLISH: one Subscription Identifier for each matching Subscription. [MQTT-3.3.4-4]
    pub(super) fn with_many_subscription_identifiers(mut self) -> Self {
        self.repeatable = PropertySet::of(&[0x0B, 0x26]);
        self
    }

    /// The next property.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<Property<'a>>, DecodeError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let identifier = self.rest.u8()?;
        // Identifiers are Variable Byte Integers, but no defined identifier takes more than one byte.
        if !self.allowed.contains(identifier) {
            return Err(if Property::is_defined(identifier) {
                DecodeError::PropertyNotAllowed(identifier)
            } else {
                DecodeError::UnknownProperty(identifier)
            });
        }
        if self.seen.contains(identifier) && !self.repeatable.contains(identifier) {
            return Err(DecodeError::PropertyDoubled(identifier));
        }
        self.seen.insert(identifier);
        Property::decode_value(identifier, &mut self.rest).map(Some)
    }

    /// How many bytes of the properties were read.
    pub(super) fn position(&self) -> usize {
        self.all.len().saturating_sub(self.rest.remaining())
    }

    /// All properties, without their length.
    pub(super) fn as_bytes(&self) -> &'a [u8] {
        self.all
    }
}

/// Iterates over properties that were validated when they were decoded, such as
/// [`crate::packet::publish::Publish::properties`]. Ends at the first invalid one.
pub fn iterate(bytes: &[u8]) -> impl Iterator<Item = Property<'_>> {
    let mut properties = PropertyReader {
        all: bytes,
        rest: Reader::new(bytes),
        allowed: PropertySet::ALL,
        repeatable: PropertySet::ALL,
        seen: PropertySet(0),
    };
    std::iter::from_fn(move || properties.next().ok().flatten()).fuse()
}

impl<'a> Property<'a> {
    fn is_defined(identifier: u8) -> bool {
        matches!(
            identifier,
            0x01..=0x03 | 0x08 | 0x09 | 0x0B | 0x11..=0x13 | 0x15..=0x1A | 0x1C | 0x1F
                | 0x21..=0x2A
        )
    }

    /// The identifier on the wire. [MQTT-2.2.2.2]
    #[must_use]
    pub(crate) fn identifier(&self) -> u8 {
        match self {
            Self::PayloadFormatIndicator(_) => 0x01,
            Self::MessageExpiryInterval(_) => 0x02,
            Self::ContentType(_) => 0x03,
            Self::ResponseTopic(_) => 0x08,
            Self::CorrelationData(_) => 0x09,
            Self::SubscriptionIdentifier(_) => 0x0B,
            Self::SessionExpiryInterval(_) => 0x11,
            Self::AssignedClientIdentifier(_) => 0x12,
            Self::ServerKeepAlive(_) => 0x13,
            Self::AuthenticationMethod(_) => 0x15,
            Self::AuthenticationData(_) => 0x16,
            Self::RequestProblemInformation(_) => 0x17,
            Self::WillDelayInterval(_) => 0x18,
            Self::RequestResponseInformation(_) => 0x19,
            Self::ResponseInformation(_) => 0x1A,
            Self::ServerReference(_) => 0x1C,
            Self::ReasonString(_) => 0x1F,
            Self::ReceiveMaximum(_) => 0x21,
            Self::TopicAliasMaximum(_) => 0x22,
            Self::TopicAlias(_) => 0x23,
            Self::MaximumQoS(_) => 0x24,
            Self::RetainAvailable(_) => 0x25,
            Self::UserProperty(..) => 0x26,
            Self::MaximumPacketSize(_) => 0x27,
            Self::WildcardSubscriptionAvailable(_) => 0x28,
            Self::SubscriptionIdentifierAvailable(_) => 0x29,
            Self::SharedSubscriptionAvailable(_) => 0x2A,
        }
    }

    fn decode_value(identifier: u8, from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let value_error = DecodeError::PropertyValue(identifier);
        let flag = |from: &mut Reader<'a>| match from.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(value_error),
        };
        Ok(match identifier {
            0x01 => Self::PayloadFormatIndicator(flag(from)?),
            0x02 => Self::MessageExpiryInterval(from.u32()?),
            0x03 => Self::ContentType(from.string()?),
            0x08 => match from.topic_name(DecodeError::ResponseTopicInvalid)? {
                "" => return Err(DecodeError::ResponseTopicInvalid),
                topic => Self::ResponseTopic(topic),
            },
            0x09 => Self::CorrelationData(from.binary()?),
            0x0B => match from.variable_byte_integer()? {
                0 => return Err(value_error),
                id => Self::SubscriptionIdentifier(id),
            },
            0x11 => Self::SessionExpiryInterval(from.u32()?),
            0x12 => Self::AssignedClientIdentifier(from.string()?),
            0x13 => Self::ServerKeepAlive(from.u16()?),
            0x15 => Self::AuthenticationMethod(from.string()?),
            0x16 => Self::AuthenticationData(from.binary()?),
            0x17 => Self::RequestProblemInformation(flag(from)?),
            0x18 => Self::WillDelayInterval(from.u32()?),
            0x19 => Self::RequestResponseInformation(flag(from)?),
            0x1A => Self::ResponseInformation(from.string()?),
            0x1C => Self::ServerReference(from.string()?),
            0x1F => Self::ReasonString(from.string()?),
            0x21 => match from.u16()? {
                0 => return Err(value_error),
                maximum => Self::ReceiveMaximum(maximum),
            },
            0x22 => Self::TopicAliasMaximum(from.u16()?),
            0x23 => Self::TopicAlias(from.u16()?),
            0x24 if flag(from)? => Self::MaximumQoS(QoS::AtLeastOnce),
            0x24 => Self::MaximumQoS(QoS::AtMostOnce),
            0x25 => Self::RetainAvailable(flag(from)?),
            0x26 => from.string_pair().map(|(name, value)| Self::UserProperty(name, value))?,
            0x27 => match from.u32()? {
                0 => return Err(value_error),
                bytes => Self::MaximumPacketSize(bytes),
            },
            0x28 => Self::WildcardSubscriptionAvailable(flag(from)?),
            0x29 => Self::SubscriptionIdentifierAvailable(flag(from)?),
            0x2A => Self::SharedSubscriptionAvailable(flag(from)?),
            other => return Err(DecodeError::UnknownProperty(other)),
        })
    }

    /// Appends identifier and value. A Maximum QoS of 2 is expressed by leaving it out. [MQTT-3.2.2.3.4]
    pub fn encode(&self, out: &mut Vec<u8>) {
        if *self == Self::MaximumQoS(QoS::ExactlyOnce) {
            return;
        }
        out.push(self.identifier());
        match *self {
            Self::PayloadFormatIndicator(flag)
            | Self::RequestProblemInformation(flag)
            | Self::RequestResponseInformation(flag)
            | Self::RetainAvailable(flag)
            | Self::WildcardSubscriptionAvailable(flag)
            | Self::SubscriptionIdentifierAvailable(flag)
            | Self::SharedSubscriptionAvailable(flag) => out.push(u8::from(flag)),
            Self::MaximumQoS(qos) => out.push(qos as u8),
            Self::ServerKeepAlive(value)
            | Self::ReceiveMaximum(value)
            | Self::TopicAliasMaximum(value)
            | Self::TopicAlias(value) => writer::u16(out, value),
            Self::MessageExpiryInterval(value)
            | Self::SessionExpiryInterval(value)
            | Self::WillDelayInterval(value)
            | Self::MaximumPacketSize(value) => writer::u32(out, value),
            Self::SubscriptionIdentifier(id) => writer::variable_byte_integer(out, id as usize),
            Self::CorrelationData(bytes) | Self::AuthenticationData(bytes) => {
                writer::binary(out, bytes);
            }
            Self::ContentType(text)
            | Self::ResponseTopic(text)
            | Self::AssignedClientIdentifier(text)
            | Self::AuthenticationMethod(text)
            | Self::ResponseInformation(text)
            | Self::ServerReference(text)
            | Self::ReasonString(text) => writer::string(out, text),
            Self::UserProperty(name, value) => {
                writer::string(out, name);
                writer::string(out, value);
            }
        }
    }
}

/// Appends `property(value)` unless the value is absent.
pub(super) fn encode_option<'a, T>(
    out: &mut Vec<u8>,
    value: Option<T>,
    property: impl FnOnce(T) -> Property<'a>,
) {
    if let Some(value) = value {
        property(value).encode(out);
    }
}

/// Appends User Properties in order. [MQTT-3.3.2-18]
pub(super) fn encode_user_properties(out: &mut Vec<u8>, user_properties: &[(&str, &str)]) {
    for (name, value) in user_properties {
        Property::UserProperty(name, value).encode(out);
    }
}
