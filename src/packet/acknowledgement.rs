//! PUBACK, PUBREC, PUBREL and PUBCOMP: four packets of one shape.

use crate::packet::{
    PacketId, ProtocolVersion,
    error::DecodeError,
    fixed_header::PacketType,
    property::{Property, PropertyReader, PropertySet, encode_option, encode_user_properties},
    reader::Reader,
    reason_code::ReasonCode,
    writer,
};

/// First byte of PUBACK.
const PUBACK: u8 = PacketType::Puback.first_byte();

/// The contents of the four packets. In 3.x there is only the Packet Identifier.
#[derive(Debug, Clone, PartialEq)]
pub struct Acknowledgement<'a> {
    /// Which exchange this belongs to.
    pub packet_id: PacketId,
    /// `Success` when left out. [MQTT-3.4.2.1]
    pub reason: ReasonCode,
    /// Reason String.
    pub(crate) reason_string: Option<&'a str>,
    /// User Properties, in order.
    pub(crate) user_properties: Vec<(&'a str, &'a str)>,
}

/// QoS 1 acknowledgement. [MQTT-3.4]
#[derive(Debug, Clone, PartialEq)]
pub struct Puback<'a>(pub Acknowledgement<'a>);
/// QoS 2, part 1. [MQTT-3.5]
#[derive(Debug, Clone, PartialEq)]
pub struct Pubrec<'a>(pub Acknowledgement<'a>);
/// QoS 2, part 2. [MQTT-3.6]
#[derive(Debug, Clone, PartialEq)]
pub struct Pubrel<'a>(pub Acknowledgement<'a>);
/// QoS 2, part 3. [MQTT-3.7]
#[derive(Debug, Clone, PartialEq)]
pub struct Pubcomp<'a>(pub Acknowledgement<'a>);

/// Which of the four packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are those of the specification")]
pub enum AcknowledgementKind {
    Puback,
    Pubrec,
    Pubrel,
    Pubcomp,
}

impl AcknowledgementKind {
    const fn packet_type(self) -> PacketType {
        match self {
            Self::Puback => PacketType::Puback,
            Self::Pubrec => PacketType::Pubrec,
            Self::Pubrel => PacketType::Pubrel,
            Self::Pubcomp => PacketType::Pubcomp,
        }
    }

    /// [MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.6.2-1] [MQTT-3.7.2-1]
    fn allows(self, reason: ReasonCode) -> bool {
        match self {
            Self::Puback | Self::Pubrec => matches!(
                reason,
                ReasonCode::Success
                    | ReasonCode::NoMatchingSubscribers
                    | ReasonCode::UnspecifiedError
                    | ReasonCode::ImplementationSpecificError
                    | ReasonCode::NotAuthorized
                    | ReasonCode::TopicNameInvalid
                    | ReasonCode::PacketIdentifierInUse
                    | ReasonCode::QuotaExceeded
                    | ReasonCode::PayloadFormatInvalid
            ),
            Self::Pubrel | Self::Pubcomp => {
                matches!(reason, ReasonCode::Success | ReasonCode::PacketIdentifierNotFound)
            }
        }
    }
}

/// Appends an acknowledgement without properties, in the shortest form that carries `reason`. Before 5.0 the reason
/// is not sent. [MQTT-3.4.2.1]
#[inline]
pub fn encode_acknowledgement(
    out: &mut Vec<u8>,
    kind: AcknowledgementKind,
    packet_id: PacketId,
    reason: ReasonCode,
    version: ProtocolVersion,
) {
    let first = kind.packet_type().first_byte();
    let [high, low] = packet_id.get().to_be_bytes();
    if reason == ReasonCode::Success || version < ProtocolVersion::V5_0 {
        out.extend_from_slice(&[first, 2, high, low]);
    } else {
        out.extend_from_slice(&[first, 3, high, low, reason as u8]);
    }
}

/// The PUBACK at the front of `input` and the bytes that follow it, if it contains only its Packet Identifier, as nearly
/// all do.
#[inline]
#[must_use]
pub(crate) fn plain_puback(input: &[u8]) -> Option<(PacketId, &[u8])> {
    let [PUBACK, 2, high, low, rest @ ..] = input else { return None };
    let packet_id = PacketId::try_from(u16::from_be_bytes([*high, *low])).ok()?;
    Some((packet_id, rest))
}

impl<'a> Acknowledgement<'a> {
    /// An acknowledgement with only an identifier and a reason.
    #[inline]
    #[must_use]
    pub fn new(packet_id: PacketId, reason: ReasonCode) -> Self {
        Self { packet_id, reason, reason_string: None, user_properties: Vec::new() }
    }

    #[inline]
    pub(super) fn decode(
        kind: AcknowledgementKind,
        mut body: Reader<'a>,
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        let packet_id = body.packet_id()?;
        if body.is_empty() {
            return Ok(Self::new(packet_id, ReasonCode::Success));
        }
        if version < ProtocolVersion::V5_0 {
            return Err(DecodeError::TrailingBytes);
        }
        Self::decode_long(kind, packet_id, body)
    }

    /// Decodes an acknowledgement with a reason, and perhaps properties.
    #[inline(never)]
    fn decode_long(
        kind: AcknowledgementKind,
        packet_id: PacketId,
        mut body: Reader<'a>,
    ) -> Result<Self, DecodeError> {
        let mut decoded = Self::new(packet_id, ReasonCode::Success);
        let reason = body.u8()?;
        decoded.reason = ReasonCode::from_u8(reason)
            .filter(|reason| kind.allows(*reason))
            .ok_or(DecodeError::ReasonCode(reason))?;
        if body.is_empty() {
            return Ok(decoded);
        }
        let mut properties = PropertyReader::take(&mut body, PropertySet::ACKNOWLEDGEMENT)?;
        while let Some(property) = properties.next()? {
            match property {
                Property::ReasonString(text) => decoded.reason_string = Some(text),
                Property::UserProperty(name, value) => decoded.user_properties.push((name, value)),
                other => return Err(DecodeError::PropertyNotAllowed(other.identifier())),
            }
        }
        body.finish().map(|()| decoded)
    }

    fn encode(&self, out: &mut Vec<u8>, kind: AcknowledgementKind, version: ProtocolVersion) {
        let has_properties = self.reason_string.is_some() || !self.user_properties.is_empty();
        if !has_properties || version < ProtocolVersion::V5_0 {
            encode_acknowledgement(out, kind, self.packet_id, self.reason, version);
            return;
        }
        writer::packet(out, kind.packet_type().first_byte(), |out| {
            writer::u16(out, self.packet_id.get());
            out.push(self.reason as u8);
            writer::properties(out, |out| {
                encode_option(out, self.reason_string, Property::ReasonString);
                encode_user_properties(out, &self.user_properties);
            });
        });
    }
}

impl Puback<'_> {
    /// Appends the packet.
    pub(crate) fn encode(&self, out: &mut Vec<u8>, version: ProtocolVersion) {
        self.0.encode(out, AcknowledgementKind::Puback, version);
    }
}

impl Pubrec<'_> {
    /// Appends the packet.
    pub(crate) fn encode(&self, out: &mut Vec<u8>, version: ProtocolVersion) {
        self.0.encode(out, AcknowledgementKind::Pubrec, version);
    }
}

impl Pubrel<'_> {
    /// Appends the packet.
    pub(crate) fn encode(&self, out: &mut Vec<u8>, version: ProtocolVersion) {
        self.0.encode(out, AcknowledgementKind::Pubrel, version);
    }
}

impl Pubcomp<'_> {
    /// Appends the packet.
    pub(crate) fn encode(&self, out: &mut Vec<u8>, version: ProtocolVersion) {
        self.0.encode(out, AcknowledgementKind::Pubcomp, version);
    }
}
