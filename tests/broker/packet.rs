//! Packets as the tests write and read them: an encoder that can also say what is forbidden, and a decoder that checks
//! what the broker sent a second time with `mqttbytes`.

use bytes::BytesMut;

/// Protocol versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    V31,
    V311,
    V5,
}

pub use Version::{V5, V31, V311};

/// Every version, for tests of what they have in common.
pub const ALL: [Version; 3] = [V31, V311, V5];
/// The versions that refuse silently.
pub const OLD: [Version; 2] = [V31, V311];

pub const CONNACK: u8 = 2;
pub const PUBLISH: u8 = 3;
pub const PUBACK: u8 = 4;
pub const PUBREC: u8 = 5;
pub const PUBREL: u8 = 6;
pub const PUBCOMP: u8 = 7;
pub const SUBACK: u8 = 9;
pub const UNSUBACK: u8 = 11;
pub const PINGRESP: u8 = 13;
pub const DISCONNECT: u8 = 14;
pub const AUTH: u8 = 15;

pub const PAYLOAD_FORMAT: u8 = 0x01;
pub const MESSAGE_EXPIRY: u8 = 0x02;
pub const CONTENT_TYPE: u8 = 0x03;
pub const RESPONSE_TOPIC: u8 = 0x08;
pub const CORRELATION_DATA: u8 = 0x09;
pub const SUBSCRIPTION_ID: u8 = 0x0B;
pub const SESSION_EXPIRY: u8 = 0x11;
pub const ASSIGNED_CLIENT_ID: u8 = 0x12;
pub const SERVER_KEEP_ALIVE: u8 = 0x13;
pub const AUTH_METHOD: u8 = 0x15;
pub const AUTH_DATA: u8 = 0x16;
pub const REQUEST_PROBLEM_INFORMATION: u8 = 0x17;
pub const WILL_DELAY: u8 = 0x18;
pub const REQUEST_RESPONSE_INFORMATION: u8 = 0x19;
pub const RESPONSE_INFORMATION: u8 = 0x1A;
pub const REASON_STRING: u8 = 0x1F;
pub const RECEIVE_MAXIMUM: u8 = 0x21;
pub const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
pub const TOPIC_ALIAS: u8 = 0x23;
pub const MAXIMUM_QOS: u8 = 0x24;
pub const RETAIN_AVAILABLE: u8 = 0x25;
pub const USER_PROPERTY: u8 = 0x26;
pub const MAXIMUM_PACKET_SIZE: u8 = 0x27;
pub const SHARED_AVAILABLE: u8 = 0x2A;

/// A whole packet from its first byte and what follows the Remaining Length.
pub fn frame(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    bytes.extend(variable(u32::try_from(body.len()).unwrap()));
    bytes.extend_from_slice(body);
    bytes
}

/// A Variable Byte Integer.
pub fn variable(mut value: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(value & 0x7F).unwrap();
        value >>= 7;
        bytes.push(if value > 0 { low | 0x80 } else { low });
        if value == 0 {
            return bytes;
        }
    }
}

/// A string or Binary Data with its length in front.
pub fn text(value: impl AsRef<[u8]>) -> Vec<u8> {
    let value = value.as_ref();
    let mut bytes = u16::try_from(value.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend_from_slice(value);
    bytes
}

/// Properties to send, in the order of the calls.
#[derive(Debug, Clone, Default)]
pub struct Properties(pub Vec<u8>);

impl Properties {
    pub fn new() -> Self {
        Self::default()
    }

    fn with(mut self, id: u8, value: &[u8]) -> Self {
        self.0.push(id);
        self.0.extend_from_slice(value);
        self
    }

    pub fn byte(self, id: u8, value: u8) -> Self {
        self.with(id, &[value])
    }

    pub fn two(self, id: u8, value: u16) -> Self {
        self.with(id, &value.to_be_bytes())
    }

    pub fn four(self, id: u8, value: u32) -> Self {
        self.with(id, &value.to_be_bytes())
    }

    pub fn variable(self, id: u8, value: u32) -> Self {
        self.with(id, &variable(value))
    }

    pub fn text(self, id: u8, value: impl AsRef<[u8]>) -> Self {
        self.with(id, &text(value))
    }

    pub fn pair(self, name: &str, value: &str) -> Self {
        self.with(USER_PROPERTY, &[text(name), text(value)].concat())
    }

    /// With the Property Length in front.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = variable(u32::try_from(self.0.len()).unwrap());
        bytes.extend_from_slice(&self.0);
        bytes
    }
}

/// A will to send.
#[derive(Debug, Clone)]
pub struct Will {
    pub topic: Vec<u8>,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub retain: bool,
    pub properties: Properties,
}

impl Will {
    pub fn new(topic: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> Self {
        let (topic, payload) = (topic.as_ref().to_vec(), payload.as_ref().to_vec());
        Self { topic, payload, qos: 0, retain: false, properties: Properties::new() }
    }

    pub fn qos(mut self, qos: u8) -> Self {
        self.qos = qos;
        self
    }

    pub fn retain(mut self) -> Self {
        self.retain = true;
        self
    }

    pub fn properties(mut self, properties: Properties) -> Self {
        self.properties = properties;
        self
    }
}

/// A CONNECT to send.
#[derive(Debug, Clone)]
pub struct Connect {
    pub version: Version,
    pub clean: bool,
    pub keep_alive: u16,
    pub client_id: Vec<u8>,
    pub properties: Properties,
    pub will: Option<Will>,
    pub user_name: Option<Vec<u8>>,
    pub password: Option<Vec<u8>>,
}

impl Connect {
    /// Clean Start, no Keep Alive, nothing optional.
    pub fn new(version: Version, client_id: impl AsRef<[u8]>) -> Self {
        Self {
            version,
            clean: true,
            keep_alive: 0,
            client_id: client_id.as_ref().to_vec(),
            properties: Properties::new(),
            will: None,
            user_name: None,
            password: None,
        }
    }

    /// A Session that outlives the Network Connection, and is resumed if there is one.
    pub fn durable(version: Version, client_id: impl AsRef<[u8]>) -> Self {
        let mut connect = Self::new(version, client_id);
        connect.clean = false;
        if version == V5 {
            connect.properties = Properties::new().four(SESSION_EXPIRY, 600);
        }
        connect
    }

    pub fn clean(mut self, clean: bool) -> Self {
        self.clean = clean;
        self
    }

    pub fn keep_alive(mut self, seconds: u16) -> Self {
        self.keep_alive = seconds;
        self
    }

    pub fn properties(mut self, properties: Properties) -> Self {
        self.properties = properties;
        self
    }

    pub fn will(mut self, will: Will) -> Self {
        self.will = Some(will);
        self
    }

    pub fn user(mut self, name: impl AsRef<[u8]>) -> Self {
        self.user_name = Some(name.as_ref().to_vec());
        self
    }

    pub fn password(mut self, password: impl AsRef<[u8]>) -> Self {
        self.password = Some(password.as_ref().to_vec());
        self
    }

    pub fn flags(&self) -> u8 {
        let mut flags = u8::from(self.clean) << 1;
        if let Some(will) = &self.will {
            flags |= 0x04 | will.qos << 3 | u8::from(will.retain) << 5;
        }
        flags | u8::from(self.password.is_some()) << 6 | u8::from(self.user_name.is_some()) << 7
    }

    pub fn encode(&self) -> Vec<u8> {
        let (name, level) = match self.version {
            V31 => ("MQIsdp", 3),
            V311 => ("MQTT", 4),
            V5 => ("MQTT", 5),
        };
        self.encode_as(name, level, self.flags())
    }

    /// With another protocol name, level or Connect Flags.
    pub fn encode_as(&self, name: &str, level: u8, flags: u8) -> Vec<u8> {
        let mut body = text(name);
        body.push(level);
        body.push(flags);
        body.extend(self.keep_alive.to_be_bytes());
        if self.version == V5 {
            body.extend(self.properties.encode());
        }
        body.extend(text(&self.client_id));
        if let Some(will) = &self.will {
            if self.version == V5 {
                body.extend(will.properties.encode());
            }
            body.extend(text(&will.topic));
            body.extend(text(&will.payload));
        }
        for field in [&self.user_name, &self.password].into_iter().flatten() {
            body.extend(text(field));
        }
        frame(0x10, &body)
    }
}

/// A PUBLISH to send, or one received.
#[derive(Debug, Clone, Default)]
pub struct Publish {
    pub topic: Vec<u8>,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub retain: bool,
    pub dup: bool,
    pub id: u16,
    pub properties: Properties,
    /// The properties of a received one.
    pub received: Received,
}

impl Publish {
    pub fn new(topic: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> Self {
        let (topic, payload) = (topic.as_ref().to_vec(), payload.as_ref().to_vec());
        Self { topic, payload, ..Self::default() }
    }

    pub fn qos(mut self, qos: u8, id: u16) -> Self {
        (self.qos, self.id) = (qos, id);
        self
    }

    pub fn retain(mut self) -> Self {
        self.retain = true;
        self
    }

    pub fn dup(mut self) -> Self {
        self.dup = true;
        self
    }

    pub fn properties(mut self, properties: Properties) -> Self {
        self.properties = properties;
        self
    }

    pub fn encode(&self, version: Version) -> Vec<u8> {
        let mut body = text(&self.topic);
        if self.qos > 0 {
            body.extend(self.id.to_be_bytes());
        }
        if version == V5 {
            body.extend(self.properties.encode());
        }
        body.extend_from_slice(&self.payload);
        let first = 0x30 | u8::from(self.dup) << 3 | self.qos << 1 | u8::from(self.retain);
        frame(first, &body)
    }

    /// The payload as text, for comparisons that read well.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).expect("the payload is text")
    }

    /// The Topic Name as text.
    pub fn name(&self) -> &str {
        std::str::from_utf8(&self.topic).expect("the topic is text")
    }
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP without a Reason Code.
pub fn acknowledge(kind: u8, id: u16) -> Vec<u8> {
    let flags = if kind == PUBREL { 2 } else { 0 };
    frame(kind << 4 | flags, &id.to_be_bytes())
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP with a Reason Code.
pub fn acknowledge_with(kind: u8, id: u16, reason: u8) -> Vec<u8> {
    let flags = if kind == PUBREL { 2 } else { 0 };
    let [high, low] = id.to_be_bytes();
    frame(kind << 4 | flags, &[high, low, reason])
}

/// SUBSCRIBE with raw Subscription Options.
pub fn subscribe(
    version: Version,
    id: u16,
    properties: &Properties,
    filters: &[(&str, u8)],
) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if version == V5 {
        body.extend(properties.encode());
    }
    for (filter, options) in filters {
        body.extend(text(filter));
        body.push(*options);
    }
    frame(0x82, &body)
}

/// UNSUBSCRIBE.
pub fn unsubscribe(version: Version, id: u16, filters: &[&str]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if version == V5 {
        body.push(0);
    }
    for filter in filters {
        body.extend(text(filter));
    }
    frame(0xA2, &body)
}

/// DISCONNECT with a Reason Code and properties.
pub fn disconnect(reason: u8, properties: &Properties) -> Vec<u8> {
    frame(0xE0, &[vec![reason], properties.encode()].concat())
}

pub const PINGREQ: [u8; 2] = [0xC0, 0];

/// One received packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    pub first: u8,
    pub body: Vec<u8>,
}

impl Packet {
    pub fn kind(&self) -> u8 {
        self.first >> 4
    }

    /// The packet at the front of `buffer`, taken out of it, if it is whole.
    pub fn take(buffer: &mut Vec<u8>, version: Version) -> Option<Self> {
        let mut length = 0;
        for index in 0..4 {
            let byte = usize::from(*buffer.get(1 + index)?);
            length |= (byte & 0x7F) << (7 * index);
            if byte & 0x80 == 0 {
                let start = 2 + index;
                if buffer.len() < start + length {
                    return None;
                }
                let rest = buffer.split_off(start + length);
                let whole = std::mem::replace(buffer, rest);
                let packet = Self { first: whole[0], body: whole[start..].to_vec() };
                packet.second_opinion(&whole, version);
                return Some(packet);
            }
        }
        panic!("a Remaining Length of more than four bytes: {buffer:02x?}");
    }

    /// What the broker sends must be readable by a decoder that somebody else wrote.
    fn second_opinion(&self, whole: &[u8], version: Version) {
        let mut stream = BytesMut::from(whole);
        let (maximum, result) = (usize::MAX, ());
        let readable = match version {
            // mqttbytes knows neither AUTH nor a DISCONNECT without properties.
            V5 if self.kind() == AUTH || (self.kind() == DISCONNECT && self.body.len() < 2) => {
                Ok(result)
            }
            V5 => mqttbytes::v5::read(&mut stream, maximum).map(drop),
            // A refusal of an unknown level may speak the newest version.
            V31 | V311 if self.kind() == CONNACK && self.body.len() > 2 => {
                mqttbytes::v5::read(&mut stream, maximum).map(drop)
            }
            V31 | V311 => mqttbytes::v4::read(&mut stream, maximum).map(drop),
        };
        assert_eq!(readable, Ok(()), "mqttbytes cannot read {whole:02x?}");
    }

    /// Reads on in the body.
    fn reader(&self) -> Reader<'_> {
        Reader { bytes: &self.body }
    }

    pub fn connack(&self, version: Version) -> Connack {
        assert_eq!(self.first, 0x20, "not a CONNACK: {self:02x?}");
        let mut reader = self.reader();
        let flags = reader.byte();
        assert_eq!(flags & 0xFE, 0, "reserved bits are set in {self:02x?}");
        let reason = reader.byte();
        let five = version == V5 || !reader.bytes.is_empty();
        let properties = if five { reader.properties() } else { Received::default() };
        reader.end();
        Connack { session_present: flags == 1, reason, properties }
    }

    pub fn publish(&self, version: Version) -> Publish {
        assert_eq!(self.kind(), PUBLISH, "not a PUBLISH: {self:02x?}");
        let mut reader = self.reader();
        let qos = self.first >> 1 & 3;
        let topic = reader.text().to_vec();
        let id = if qos > 0 { reader.two() } else { 0 };
        let received = if version == V5 { reader.properties() } else { Received::default() };
        let (dup, retain) = (self.first & 8 != 0, self.first & 1 != 0);
        let payload = reader.bytes.to_vec();
        Publish { topic, payload, qos, retain, dup, id, properties: Properties::new(), received }
    }

    /// PUBACK, PUBREC, PUBREL, PUBCOMP.
    pub fn acknowledgement(&self, version: Version) -> Acknowledgement {
        let mut reader = self.reader();
        let id = reader.two();
        let mut acknowledgement =
            Acknowledgement { id, reason: 0, properties: Received::default() };
        if version == V5 && !reader.bytes.is_empty() {
            acknowledgement.reason = reader.byte();
            if !reader.bytes.is_empty() {
                acknowledgement.properties = reader.properties();
            }
        }
        reader.end();
        acknowledgement
    }

    /// SUBACK, UNSUBACK: the Packet Identifier and the codes.
    pub fn codes(&self, version: Version) -> (u16, Vec<u8>) {
        let mut reader = self.reader();
        let id = reader.two();
        if version == V5 {
            reader.properties();
        }
        (id, reader.bytes.to_vec())
    }

    /// The properties of a SUBACK of 5.0.
    pub fn suback_properties(&self) -> Received {
        let mut reader = self.reader();
        reader.two();
        reader.properties()
    }

    /// DISCONNECT: its Reason Code and properties.
    pub fn disconnect(&self) -> (u8, Received) {
        assert_eq!(self.first, 0xE0, "not a DISCONNECT: {self:02x?}");
        let mut reader = self.reader();
        let reason = if reader.bytes.is_empty() { 0 } else { reader.byte() };
        let properties =
            if reader.bytes.is_empty() { Received::default() } else { reader.properties() };
        reader.end();
        (reason, properties)
    }
}

/// A received CONNACK.
#[derive(Debug, Clone)]
pub struct Connack {
    pub session_present: bool,
    pub reason: u8,
    pub properties: Received,
}

/// A received PUBACK, PUBREC, PUBREL or PUBCOMP.
#[derive(Debug, Clone)]
pub struct Acknowledgement {
    pub id: u16,
    pub reason: u8,
    pub properties: Received,
}

/// Received properties, in order: identifier and value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Received(pub Vec<(u8, Value)>);

/// The value of a property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Number(u32),
    Bytes(Vec<u8>),
    Pair(String, String),
}

impl Received {
    pub fn has(&self, id: u8) -> bool {
        self.0.iter().any(|(found, _)| *found == id)
    }

    pub fn number(&self, id: u8) -> Option<u32> {
        self.numbers(id).first().copied()
    }

    pub fn numbers(&self, id: u8) -> Vec<u32> {
        let number = |(found, value): &(u8, Value)| match value {
            Value::Number(number) if *found == id => Some(*number),
            _ => None,
        };
        self.0.iter().filter_map(number).collect()
    }

    pub fn bytes(&self, id: u8) -> Option<&[u8]> {
        self.0.iter().find_map(|(found, value)| match value {
            Value::Bytes(bytes) if *found == id => Some(bytes.as_slice()),
            _ => None,
        })
    }

    pub fn text(&self, id: u8) -> Option<&str> {
        self.bytes(id).map(|bytes| std::str::from_utf8(bytes).expect("a property is UTF-8"))
    }

    pub fn pairs(&self) -> Vec<(&str, &str)> {
        let pair = |(_, value): &'_ (u8, Value)| match value {
            Value::Pair(..) => true,
            Value::Number(_) | Value::Bytes(_) => false,
        };
        self.0
            .iter()
            .filter(|property| pair(property))
            .map(|(_, value)| match value {
                Value::Pair(name, value) => (name.as_str(), value.as_str()),
                Value::Number(_) | Value::Bytes(_) => unreachable!("only pairs are left"),
            })
            .collect()
    }
}

/// Reads a body from front to back.
struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (front, rest) = self.bytes.split_at_checked(count).expect("the packet is long enough");
        self.bytes = rest;
        front
    }

    fn byte(&mut self) -> u8 {
        self.take(1)[0]
    }

    fn two(&mut self) -> u16 {
        u16::from_be_bytes(self.take(2).try_into().unwrap())
    }

    fn four(&mut self) -> u32 {
        u32::from_be_bytes(self.take(4).try_into().unwrap())
    }

    fn variable(&mut self) -> u32 {
        let mut value = 0;
        for shift in [0, 7, 14, 21] {
            let byte = u32::from(self.byte());
            value |= (byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                assert!(byte != 0 || shift == 0, "a Variable Byte Integer is too long");
                return value;
            }
        }
        panic!("a Variable Byte Integer of more than four bytes");
    }

    fn text(&mut self) -> &'a [u8] {
        let length = self.two();
        self.take(length.into())
    }

    fn string(&mut self) -> String {
        String::from_utf8(self.text().to_vec()).expect("a string is UTF-8")
    }

    fn properties(&mut self) -> Received {
        let length = self.variable() as usize;
        let mut reader = Reader { bytes: self.take(length) };
        let mut received = Vec::new();
        while !reader.bytes.is_empty() {
            let id = reader.byte();
            let value = match id {
                0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2A => {
                    Value::Number(reader.byte().into())
                }
                0x13 | 0x21 | 0x22 | 0x23 => Value::Number(reader.two().into()),
                0x02 | 0x11 | 0x18 | 0x27 => Value::Number(reader.four()),
                0x0B => Value::Number(reader.variable()),
                0x03 | 0x08 | 0x09 | 0x12 | 0x15 | 0x16 | 0x1A | 0x1C | 0x1F => {
                    Value::Bytes(reader.text().to_vec())
                }
                0x26 => Value::Pair(reader.string(), reader.string()),
                _ => panic!("unknown property {id:#04x}"),
            };
            received.push((id, value));
        }
        Received(received)
    }

    fn end(&self) {
        assert!(self.bytes.is_empty(), "bytes are left over: {:02x?}", self.bytes);
    }
}
