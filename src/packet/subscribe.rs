//! SUBSCRIBE and SUBACK.

use crate::packet::{
    PacketId, ProtocolVersion, QoS,
    error::DecodeError,
    fixed_header::PacketType,
    property::{Property, PropertyReader, PropertySet, encode_option, encode_user_properties},
    reader::Reader,
    reason_code::ReasonCode,
    writer,
};

/// SUBSCRIBE. [MQTT-3.8]
#[derive(Debug, Clone, PartialEq)]
pub struct Subscribe<'a> {
    /// SUBACK has the same identifier.
    pub packet_id: PacketId,
    /// Subscription Identifier, 1 to 268,435,455.
    pub subscription_id: Option<u32>,
    /// User Properties, in order.
    pub user_properties: Vec<(&'a str, &'a str)>,
    /// At least one. [MQTT-3.8.3-2] The strings are valid UTF-8; `topic` checks the filter syntax, because an invalid
    /// filter refuses one Subscription, not the packet.
    pub filters: Vec<(&'a str, SubscriptionOptions)>,
}

/// Subscription Options. [MQTT-3.8.3.1]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SubscriptionOptions {
    /// Maximum QoS.
    pub qos: QoS,
    /// Do not send back what this Client published.
    pub no_local: bool,
    /// Keep the RETAIN flag as published.
    pub retain_as_published: bool,
    /// When Retained Messages are sent.
    pub retain_handling: RetainHandling,
}

/// When Retained Messages are sent on SUBSCRIBE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum RetainHandling {
    /// 0: at every SUBSCRIBE.
    #[default]
    Send = 0,
    /// 1: only if the Subscription is new.
    SendIfNew = 1,
    /// 2: never.
    DoNotSend = 2,
}

/// SUBACK. [MQTT-3.9] In 3.x every failure is encoded as 0x80.
#[derive(Debug, Clone, PartialEq)]
pub struct Suback<'a> {
    /// That of the SUBSCRIBE.
    pub packet_id: PacketId,
    /// Reason String (5.0).
    pub(crate) reason_string: Option<&'a str>,
    /// User Properties, in order (5.0).
    pub(crate) user_properties: Vec<(&'a str, &'a str)>,
    /// One for each Topic Filter, in order. [MQTT-3.9.3-1]
    pub reasons: Vec<ReasonCode>,
}

/// Most Topic Filters in one SUBSCRIBE or UNSUBSCRIBE: a packet of 16 MiB could contain three million, which take many
/// times its size in memory.
pub(crate) const MAX_FILTERS: usize = 65_536;

impl<'a> Subscribe<'a> {
    pub(super) fn decode(
        mut body: Reader<'a>,
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        let packet_id = body.packet_id()?;
        let mut subscription_id = None;
        let mut user_properties = Vec::new();
        if version == ProtocolVersion::V5_0 {
            let mut properties = PropertyReader::take(&mut body, PropertySet::SUBSCRIBE)?;
            while let Some(property) = properties.next()? {
                match property {
                    Property::SubscriptionIdentifier(id) => subscription_id = Some(id),
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
            filters.push((body.string()?, SubscriptionOptions::decode(body.u8()?, version)?));
        }
        if filters.is_empty() {
            return Err(DecodeError::PayloadMissing);
        }
        Ok(Self { packet_id, subscription_id, user_properties, filters })
    }

    /// Appends the packet. Before 5.0 only the QoS of the options is sent.
    pub fn encode(&self, out: &mut Vec<u8>, version: ProtocolVersion) {
        writer::packet(out, PacketType::Subscribe.first_byte(), |out| {
            writer::u16(out, self.packet_id.get());
            if version == ProtocolVersion::V5_0 {
                writer::properties(out, |out| {
                    encode_option(out, self.subscription_id, Property::SubscriptionIdentifier);
                    encode_user_properties(out, &self.user_properties);
                });
            }
            for (filter, options) in &self.filters {
                writer::string(out, filter);
                out.push(options.to_byte(version));
            }
        });
    }
}

impl SubscriptionOptions {
    fn decode(byte: u8, version: ProtocolVersion) -> Result<Self, DecodeError> {
        let reserved = if version == ProtocolVersion::V5_0 { 0b1100_0000 } else { 0b1111_1100 };
        if byte & reserved != 0 {
            return Err(DecodeError::ReservedSubscriptionOptions);
        }
        let retain_handling = match byte >> 4 & 0b11 {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return Err(DecodeError::RetainHandling),
        };
        Ok(Self {
            qos: QoS::try_from(byte & 0b11).map_err(|_| DecodeError::SubscriptionQoS)?,
            no_local: byte & 0b0100 != 0,
            retain_as_published: byte & 0b1000 != 0,
            retain_handling,
        })
    }

    fn to_byte(self, version: ProtocolVersion) -> u8 {
        let qos = self.qos as u8;
        if version < ProtocolVersion::V5_0 {
            return qos;
        }
        let no_local = u8::from(self.no_local) << 2;
        let retain_as_published = u8::from(self.retain_as_published) << 3;
        qos | no_local | retain_as_published | (self.retain_handling as u8) << 4
    }
}

impl<'a> Suback<'a> {
    pub(super) fn decode(
        mut body: Reader<'a>,
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        let packet_id = body.packet_id()?;
        let mut reason_string = None;
        let mut user_properties = Vec::new();
        if version == ProtocolVersion::V5_0 {
            let mut properties = PropertyReader::take(&mut body, PropertySet::ACKNOWLEDGEMENT)?;
            while let Some(property) = properties.next()? {
                match property {
                    Property::ReasonString(text) => reason_string = Some(text),
                    Property::UserProperty(name, value) => user_properties.push((name, value)),
                    other => return Err(DecodeError::PropertyNotAllowed(other.identifier())),
                }
            }
        }
        let mut reasons = Vec::new();
        for byte in body.take_rest() {
            let reason = ReasonCode::from_u8(*byte)
                .filter(|reason| is_suback_reason(*reason, version))
                .ok_or(DecodeError::ReasonCode(*byte))?;
            reasons.push(reason);
        }
        if reasons.is_empty() {
            return Err(DecodeError::PayloadMissing);
        }
        Ok(Self { packet_id, reason_string, user_properties, reasons })
    }

    /// Appends the packet. Before 5.0 every failure is 0x80. [MQTT311-3.9.3-2]
    pub(crate) fn encode(&self, out: &mut Vec<u8>, version: ProtocolVersion) {
        writer::packet(out, PacketType::Suback.first_byte(), |out| {
            writer::u16(out, self.packet_id.get());
            if version == ProtocolVersion::V5_0 {
                writer::properties(out, |out| {
                    encode_option(out, self.reason_string, Property::ReasonString);
                    encode_user_properties(out, &self.user_properties);
                });
            }
            out.extend(self.reasons.iter().map(|reason| {
                if version < ProtocolVersion::V5_0 && reason.is_failure() {
                    0x80
                } else {
                    *reason as u8
                }
            }));
        });
    }
}

/// [MQTT-3.9.3-2] [MQTT311-3.9.3-2]
fn is_suback_reason(reason: ReasonCode, version: ProtocolVersion) -> bool {
    match reason {
        ReasonCode::Success
        | ReasonCode::GrantedQoS1
        | ReasonCode::GrantedQoS2
        | ReasonCode::UnspecifiedError => true,
        ReasonCode::ImplementationSpecificError
        | ReasonCode::NotAuthorized
        | ReasonCode::TopicFilterInvalid
        | ReasonCode::PacketIdentifierInUse
        | ReasonCode::QuotaExceeded
        | ReasonCode::SharedSubscriptionsNotSupported
        | ReasonCode::SubscriptionIdentifiersNotSupported
        | ReasonCode::WildcardSubscriptionsNotSupported => version == ProtocolVersion::V5_0,
        _ => false,
    }
}
