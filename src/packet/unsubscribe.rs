//! UNSUBSCRIBE and UNSUBACK.

use crate::packet::{
    PacketId, ProtocolVersion,
    error::DecodeError,
    fixed_header::PacketType,
    property::{Property, PropertyReader, PropertySet, encode_option, encode_user_properties},
    reader::Reader,
    reason_code::ReasonCode,
    subscribe::MAX_FILTERS,
    writer,
};

/// UNSUBSCRIBE. [MQTT-3.10]
#[derive(Debug, Clone, PartialEq)]
pub struct Unsubscribe<'a> {
    /// UNSUBACK has the same identifier.
    pub packet_id: PacketId,
    /// User Properties, in order.
    pub user_properties: Vec<(&'a str, &'a str)>,
    /// At least one. [MQTT-3.10.3-2]
    pub filters: Vec<&'a str>,
}

/// UNSUBACK. [MQTT-3.11] In 3.x the Reason Codes are not sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Unsuback<'a> {
    /// That of the UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// Reason String (5.0).
    pub(crate) reason_string: Option<&'a str>,
    /// User Properties, in order (5.0).
    pub(crate) user_properties: Vec<(&'a str, &'a str)>,
    /// One for each Topic Filter, in order (5.0).
    pub reasons: Vec<ReasonCode>,
}

impl<'a> Unsubscribe<'a> {
    pub(super) fn decode(
        mut body: Reader<'a>,
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        let packet_id = body.packet_id()?;
        let mut user_properties = Vec::new();
        if version == ProtocolVersion::V5_0 {
            let mut properties = PropertyReader::take(&mut body, PropertySet::UNSUBSCRIBE)?;
            while let Some(property) = properties.next()? {
                match property {
                    Property::UserProperty(name, value) => user_properties.push((name, value)),
                    other => return Err(DecodeError::PropertyNotAllowed(other.identifier())),
                }
            }
        }
        let mut filters = Vec::new();
        while !body.is_empty() {
            if filters.len() == MAX_FILTERS {
                return Err(DecodeError::TooManyFilters);
            }
            filters.push(body.string()?);
        }
        if filters.is_empty() {
            return Err(DecodeError::PayloadMissing);
        }
        Ok(Self { packet_id, user_properties, filters })
    }

    /// Appends the packet.
    pub(crate) fn encode(&self, out: &mut Vec<u8>, version: ProtocolVersion) {
        writer::packet(out, PacketType::Unsubscribe.first_byte(), |out| {
            writer::u16(out, self.packet_id.get());
            if version == ProtocolVersion::V5_0 {
                writer::properties(out, |out| encode_user_properties(out, &self.user_properties));
            }
            for filter in &self.filters {
                writer::string(out, filter);
            }
        });
    }
}

impl<'a> Unsuback<'a> {
    pub(super) fn decode(
        mut body: Reader<'a>,
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        let packet_id = body.packet_id()?;
        let mut unsuback = Self {
            packet_id,
            reason_string: None,
            user_properties: Vec::new(),
            reasons: Vec::new(),
        };
        if version < ProtocolVersion::V5_0 {
            return body.finish().map(|()| unsuback);
        }
        let mut properties = PropertyReader::take(&mut body, PropertySet::ACKNOWLEDGEMENT)?;
        while let Some(property) = properties.next()? {
            match property {
                Property::ReasonString(text) => unsuback.reason_string = Some(text),
                Property::UserProperty(name, value) => {
                    unsuback.user_properties.push((name, value));
                }
                other => return Err(DecodeError::PropertyNotAllowed(other.identifier())),
            }
        }
        for byte in body.take_rest() {
            let reason = ReasonCode::from_u8(*byte)
                .filter(|reason| is_unsuback_reason(*reason))
                .ok_or(DecodeError::ReasonCode(*byte))?;
            unsuback.reasons.push(reason);
        }
        if unsuback.reasons.is_empty() {
            return Err(DecodeError::PayloadMissing);
        }
        Ok(unsuback)
    }

    /// Appends the packet.
    pub(crate) fn encode(&self, out: &mut Vec<u8>, version: ProtocolVersion) {
        writer::packet(out, PacketType::Unsuback.first_byte(), |out| {
            writer::u16(out, self.packet_id.get());
            if version < ProtocolVersion::V5_0 {
                return;
            }
            writer::properties(out, |out| {
                encode_option(out, self.reason_string, Property::ReasonString);
                encode_user_properties(out, &self.user_properties);
            });
            out.extend(self.reasons.iter().map(|reason| *reason as u8));
        });
    }
}

/// [MQTT-3.11.3-2]
fn is_unsuback_reason(reason: ReasonCode) -> bool {
    matches!(
        reason,
        ReasonCode::Success
            | ReasonCode::NoSubscriptionExisted
            | ReasonCode::UnspecifiedError
            | ReasonCode::ImplementationSpecificError
            | ReasonCode::NotAuthorized
            | ReasonCode::TopicFilterInvalid
            | ReasonCode::PacketIdentifierInUse
    )
}
