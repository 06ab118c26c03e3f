//! CONNECT: the first packet of every Network Connection.

use std::borrow::Cow;

use crate::packet::{
    ProtocolVersion, QoS,
    error::DecodeError,
    fixed_header::{FixedHeader, PacketType},
    property::{Property, PropertyReader, PropertySet, encode_option, encode_user_properties},
    publish::ForwardedProperties,
    reader::Reader,
    writer,
};

/// A decoded CONNECT. [MQTT-3.1]
#[derive(Debug, Clone, PartialEq)]
pub struct Connect<'a> {
    /// Protocol version, from protocol name and level.
    pub version: ProtocolVersion,
    /// The bridge bit (0x80) of the protocol level in 3.x: an agreement between brokers, of which the standard says nothing.
    pub bridge_bit: bool,
    /// Clean Start (5.0) or Clean Session (3.x).
    pub clean_start: bool,
    /// Keep Alive in seconds; zero turns it off.
    pub keep_alive_seconds: u16,
    /// Client Identifier, possibly empty.
    pub client_id: &'a str,
    /// The Will Message.
    pub will: Option<Will<'a>>,
    /// User Name.
    pub user_name: Option<&'a str>,
    /// Password: binary data.
    pub password: Option<&'a [u8]>,
    /// 5.0 properties; all defaults in 3.x.
    pub properties: ConnectProperties<'a>,
}

/// The properties of CONNECT. [MQTT-3.1.2.11] `None` means absent.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ConnectProperties<'a> {
    /// Session Expiry Interval in seconds; 0xFFFFFFFF never expires.
    pub session_expiry_seconds: Option<u32>,
    /// Receive Maximum; zero is refused while decoding.
    pub receive_maximum: Option<u16>,
    /// Maximum Packet Size in bytes; zero is refused while decoding.
    pub maximum_packet_bytes: Option<u32>,
    /// Topic Alias Maximum.
    pub topic_alias_maximum: Option<u16>,
    /// Request Response Information.
    pub request_response_information: Option<bool>,
    /// Request Problem Information.
    pub request_problem_information: Option<bool>,
    /// User Properties, in order.
    pub user_properties: Vec<(&'a str, &'a str)>,
    /// Authentication Method.
    pub authentication_method: Option<&'a str>,
    /// Authentication Data.
    pub authentication_data: Option<&'a [u8]>,
}

/// The Will Message in CONNECT. [MQTT-3.1.3.2]
#[derive(Debug, Clone, PartialEq)]
pub struct Will<'a> {
    /// Will QoS.
    pub qos: QoS,
    /// Will Retain.
    pub retain: bool,
    /// Will Topic, a valid Topic Name.
    pub topic: &'a str,
    /// Will Payload.
    pub payload: &'a [u8],
    /// Will Delay Interval in seconds.
    pub delay_seconds: Option<u32>,
    /// Message Expiry Interval in seconds.
    pub message_expiry: Option<u32>,
    /// Forwarded properties, in the form of [`crate::packet::publish::Publish::properties`].
    pub properties: Cow<'a, [u8]>,
}

const MQTT_3_1: &str = "MQIsdp";
const MQTT: &str = "MQTT";
/// The bridge bit of the protocol level.
const BRIDGE_BIT: u8 = 0x80;

const CLEAN_START: u8 = 0b0000_0010;
const WILL: u8 = 0b0000_0100;
const WILL_RETAIN: u8 = 0b0010_0000;
const WILL_QOS_AND_RETAIN: u8 = 0b0011_1000;
const PASSWORD: u8 = 0b0100_0000;
const USER_NAME: u8 = 0b1000_0000;
const RESERVED: u8 = 0b0000_0001;

/// The version that a CONNECT at the front of `input` requests, even if the rest of it is malformed, because the
/// answer must still be in the right version.
#[must_use]
pub fn requested_version(input: &[u8]) -> Option<ProtocolVersion> {
    let header = FixedHeader::decode(input, ProtocolVersion::V5_0).ok()??;
    let mut body = Reader::new(input.get(header.header_bytes..)?);
    (header.packet_type == PacketType::Connect).then_some(())?;
    decode_version(&mut body).ok().map(|(version, _)| version)
}

impl<'a> Connect<'a> {
    pub(super) fn decode(mut body: Reader<'a>) -> Result<Self, DecodeError> {
        let (version, bridge_bit) = decode_version(&mut body)?;
        let flags = body.u8()?;
        check_flags(flags, version)?;
        let keep_alive_seconds = body.u16()?;
        let properties = match version {
            ProtocolVersion::V3_1 | ProtocolVersion::V3_1_1 => ConnectProperties::default(),
            ProtocolVersion::V5_0 => ConnectProperties::decode(&mut body)?,
        };
        let client_id = body.string()?;
        let will = match flags & WILL {
            0 => None,
            _ => Some(Will::decode(flags, &mut body, version)?),
        };
        // In MQTT 3.1 the Remaining Length takes precedence over these two flags, for compatibility with its
        // predecessor.
        let is_missing = |body: &Reader| version == ProtocolVersion::V3_1 && body.is_empty();
        let user_name = match flags & USER_NAME {
            0 => None,
            _ if is_missing(&body) => None,
            _ => Some(body.string()?),
        };
        let password = match flags & PASSWORD {
            0 => None,
            _ if is_missing(&body) => None,
            _ => Some(body.binary()?),
        };
        body.finish()?;
        Ok(Self {
            version,
            bridge_bit,
            clean_start: flags & CLEAN_START != 0,
            keep_alive_seconds,
            client_id,
            will,
            user_name,
            password,
            properties,
        })
    }

    /// Appends the packet in the form of `version`, which replaces `self.version`.
    pub fn encode(&self, out: &mut Vec<u8>, version: ProtocolVersion) {
        writer::packet(out, PacketType::Connect.first_byte(), |out| {
            let (name, level) = match version {
                ProtocolVersion::V3_1 => (MQTT_3_1, 3),
                ProtocolVersion::V3_1_1 => (MQTT, 4),
                ProtocolVersion::V5_0 => (MQTT, 5),
            };
            let bridge_bit = match self.bridge_bit && version < ProtocolVersion::V5_0 {
                true => BRIDGE_BIT,
                false => 0,
            };
            writer::string(out, name);
            out.push(level | bridge_bit);
            out.push(self.flags());
            writer::u16(out, self.keep_alive_seconds);
            if version == ProtocolVersion::V5_0 {
                writer::properties(out, |out| self.properties.encode(out));
            }
            writer::string(out, self.client_id);
            if let Some(will) = &self.will {
                will.encode(out, version);
            }
            if let Some(user_name) = self.user_name {
                writer::string(out, user_name);
            }
            if let Some(password) = self.password {
                writer::binary(out, password);
            }
        });
    }

    fn flags(&self) -> u8 {
        let will = self.will.as_ref().map_or(0, |will| {
            WILL | (will.qos as u8) << 3 | if will.retain { WILL_RETAIN } else { 0 }
        });
        let clean_start = if self.clean_start { CLEAN_START } else { 0 };
        let user_name = if self.user_name.is_some() { USER_NAME } else { 0 };
        let password = if self.password.is_some() { PASSWORD } else { 0 };
        will | clean_start | user_name | password
    }
}

/// Whether these bytes can be the beginning of a CONNECT.
#[must_use]
pub(crate) fn may_begin(input: &[u8]) -> bool {
    input.first().is_none_or(|&first| first == PacketType::Connect.first_byte())
}

/// The protocol level of a CONNECT that cannot be decoded, if it can be determined.
#[must_use]
pub(crate) fn protocol_level(input: &[u8]) -> Option<u8> {
    let after_type = input.get(1..)?;
    let after_length =
        after_type.iter().take(4).position(|byte| byte & 0x80 == 0)?.checked_add(1)?;
    let body = after_type.get(after_length..)?;
    let after_name =
        body.strip_prefix(b"\x00\x04MQTT").or_else(|| body.strip_prefix(b"\x00\x06MQIsdp"))?;
    after_name.first().copied()
}

/// Reads protocol name and level; returns the version, and whether the bridge bit was set. [MQTT-3.1.2-1]
/// [MQTT-3.1.2-2]
fn decode_version(body: &mut Reader<'_>) -> Result<(ProtocolVersion, bool), DecodeError> {
    let name = body.binary()?;
    if name != MQTT.as_bytes() && name != MQTT_3_1.as_bytes() {
        return Err(DecodeError::ProtocolName);
    }
    let level = body.u8()?;
    let bridge_bit = level & BRIDGE_BIT != 0;
    let is_first = name == MQTT_3_1.as_bytes();
    match (is_first, level & !BRIDGE_BIT) {
        (true, 3) => Ok((ProtocolVersion::V3_1, bridge_bit)),
        (false, 4) => Ok((ProtocolVersion::V3_1_1, bridge_bit)),
        (false, 5) if !bridge_bit => Ok((ProtocolVersion::V5_0, false)),
        _ => Err(DecodeError::UnsupportedProtocolVersion { level }),
    }
}

fn check_flags(flags: u8, version: ProtocolVersion) -> Result<(), DecodeError> {
    // MQTT 3.1 leaves this bit unused instead of reserving it.
    if flags & RESERVED != 0 && version > ProtocolVersion::V3_1 {
        return Err(DecodeError::ReservedConnectFlag);
    }
    if flags & WILL == 0 && flags & WILL_QOS_AND_RETAIN != 0 {
        return Err(DecodeError::WillFlagsWithoutWill);
    }
    if flags & USER_NAME == 0 && flags & PASSWORD != 0 && version < ProtocolVersion::V5_0 {
        return Err(DecodeError::PasswordWithoutUserName);
    }
    Ok(())
}

impl<'a> ConnectProperties<'a> {
    fn decode(body: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let mut decoded = Self::default();
        let mut properties = PropertyReader::take(body, PropertySet::CONNECT)?;
        while let Some(property) = properties.next()? {
            match property {
                Property::SessionExpiryInterval(value) => {
                    decoded.session_expiry_seconds = Some(value);
                }
                Property::ReceiveMaximum(value) => decoded.receive_maximum = Some(value),
                Property::MaximumPacketSize(value) => decoded.maximum_packet_bytes = Some(value),
                Property::TopicAliasMaximum(value) => decoded.topic_alias_maximum = Some(value),
                Property::RequestResponseInformation(value) => {
                    decoded.request_response_information = Some(value);
                }
                Property::RequestProblemInformation(value) => {
                    decoded.request_problem_information = Some(value);
                }
                Property::UserProperty(name, value) => decoded.user_properties.push((name, value)),
                Property::AuthenticationMethod(value) => {
                    decoded.authentication_method = Some(value);
                }
                Property::AuthenticationData(value) => decoded.authentication_data = Some(value),
                other => return Err(DecodeError::PropertyNotAllowed(other.identifier())),
            }
        }
        if decoded.authentication_data.is_some() && decoded.authentication_method.is_none() {
            return Err(DecodeError::AuthenticationDataWithoutMethod);
        }
        Ok(decoded)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        encode_option(out, self.session_expiry_seconds, Property::SessionExpiryInterval);
        encode_option(out, self.receive_maximum, Property::ReceiveMaximum);
        encode_option(out, self.maximum_packet_bytes, Property::MaximumPacketSize);
        encode_option(out, self.topic_alias_maximum, Property::TopicAliasMaximum);
        let request = self.request_response_information;
        encode_option(out, request, Property::RequestResponseInformation);
        let request = self.request_problem_information;
        encode_option(out, request, Property::RequestProblemInformation);
        encode_user_properties(out, &self.user_properties);
        encode_option(out, self.authentication_method, Property::AuthenticationMethod);
        encode_option(out, self.authentication_data, Property::AuthenticationData);
    }
}

impl<'a> Will<'a> {
    fn decode(
        flags: u8,
        body: &mut Reader<'a>,
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        let qos = QoS::try_from(flags >> 3 & 0b11).map_err(|_| DecodeError::WillQoS)?;
        let mut will = Self {
            qos,
            retain: flags & WILL_RETAIN != 0,
            topic: "",
            payload: &[],
            delay_seconds: None,
            message_expiry: None,
            properties: Cow::Borrowed(&[]),
        };
        if version == ProtocolVersion::V5_0 {
            will.decode_properties(body)?;
        }
        will.topic = body.topic_name(DecodeError::WillTopicInvalid)?;
        if will.topic.is_empty() {
            return Err(DecodeError::WillTopicInvalid);
        }
        will.payload = body.binary()?;
        Ok(will)
    }

    fn decode_properties(&mut self, body: &mut Reader<'a>) -> Result<(), DecodeError> {
        let mut properties = PropertyReader::take(body, PropertySet::WILL)?;
        let mut forwarded = ForwardedProperties::default();
        let mut start = 0;
        while let Some(property) = properties.next()? {
            let end = properties.position();
            match property {
                Property::WillDelayInterval(seconds) => self.delay_seconds = Some(seconds),
                Property::MessageExpiryInterval(seconds) => self.message_expiry = Some(seconds),
                _ => forwarded.push(properties.as_bytes(), start, end),
            }
            start = end;
        }
        self.properties = forwarded.finish(properties.as_bytes());
        Ok(())
    }

    fn encode(&self, out: &mut Vec<u8>, version: ProtocolVersion) {
        if version == ProtocolVersion::V5_0 {
            writer::properties(out, |out| {
                encode_option(out, self.delay_seconds, Property::WillDelayInterval);
                encode_option(out, self.message_expiry, Property::MessageExpiryInterval);
                out.extend_from_slice(&self.properties);
            });
        }
        writer::string(out, self.topic);
        writer::binary(out, self.payload);
    }
}
