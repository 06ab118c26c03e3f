//! CONNACK: the Server's answer to CONNECT.

use crate::packet::{
    ProtocolVersion, QoS,
    error::DecodeError,
    fixed_header::PacketType,
    property::{Property, PropertyReader, PropertySet, encode_option, encode_user_properties},
    reader::Reader,
    reason_code::ReasonCode,
    writer,
};

/// CONNACK. [MQTT-3.2] In 3.x the reason is mapped to a Connect Return code when encoded.
#[derive(Debug, Clone, PartialEq)]
pub struct Connack<'a> {
    /// Session Present; false when the reason is a failure. [MQTT-3.2.2-6]
    pub session_present: bool,
    /// Connect Reason Code.
    pub reason: ReasonCode,
    /// 5.0 properties.
    pub(crate) properties: ConnackProperties<'a>,
}

/// The properties of CONNACK. [MQTT-3.2.2.3] `None` means absent.
#[derive(Debug, Clone, PartialEq, Default)]
// The names are those of the specification.
pub(crate) struct ConnackProperties<'a> {
    pub(crate) session_expiry_seconds: Option<u32>,
    pub(crate) receive_maximum: Option<u16>,
    pub(crate) maximum_qos: Option<QoS>,
    pub(crate) retain_available: Option<bool>,
    pub(crate) maximum_packet_bytes: Option<u32>,
    pub(crate) assigned_client_id: Option<&'a str>,
    pub(crate) topic_alias_maximum: Option<u16>,
    pub(crate) reason_string: Option<&'a str>,
    pub(crate) user_properties: Vec<(&'a str, &'a str)>,
    pub(crate) wildcard_subscription_available: Option<bool>,
    pub(crate) subscription_identifiers_available: Option<bool>,
    pub(crate) shared_subscription_available: Option<bool>,
    pub(crate) server_keep_alive_seconds: Option<u16>,
    pub(crate) response_information: Option<&'a str>,
    pub(crate) server_reference: Option<&'a str>,
    pub(crate) authentication_method: Option<&'a str>,
    pub(crate) authentication_data: Option<&'a [u8]>,
}

impl<'a> Connack<'a> {
    pub(super) fn decode(
        mut body: Reader<'a>,
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        // MQTT 3.1 has no Session Present: the byte is reserved and not used.
        let session_present = match (body.u8()?, version) {
            (_, ProtocolVersion::V3_1) | (0, _) => false,
            (1, _) => true,
            _ => return Err(DecodeError::ReservedConnackFlags),
        };
        let code = body.u8()?;
        let reason = match version {
            ProtocolVersion::V3_1 | ProtocolVersion::V3_1_1 => reason_from_return_code(code),
            ProtocolVersion::V5_0 => ReasonCode::from_u8(code).filter(|r| is_connack_reason(*r)),
        }
        .ok_or(DecodeError::ReasonCode(code))?;
        if session_present && reason != ReasonCode::Success {
            return Err(DecodeError::SessionPresentInRefusal);
        }
        let properties = match version {
            ProtocolVersion::V3_1 | ProtocolVersion::V3_1_1 => ConnackProperties::default(),
            ProtocolVersion::V5_0 => ConnackProperties::decode(&mut body)?,
        };
        body.finish()?;
        Ok(Self { session_present, reason, properties })
    }

    /// Appends the packet.
    pub(crate) fn encode(&self, out: &mut Vec<u8>, version: ProtocolVersion) {
        writer::packet(out, PacketType::Connack.first_byte(), |out| {
            let session_present = self.session_present && version > ProtocolVersion::V3_1;
            out.push(u8::from(session_present));
            if version < ProtocolVersion::V5_0 {
                out.push(return_code(self.reason));
            } else {
                out.push(self.reason as u8);
                writer::properties(out, |out| self.properties.encode(out));
            }
        });
    }
}

impl<'a> ConnackProperties<'a> {
    fn decode(body: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let mut decoded = Self::default();
        let mut properties = PropertyReader::take(body, PropertySet::CONNACK)?;
        while let Some(property) = properties.next()? {
            decoded.set(property)?;
        }
        if decoded.authentication_data.is_some() && decoded.authentication_method.is_none() {
            return Err(DecodeError::AuthenticationDataWithoutMethod);
        }
        Ok(decoded)
    }

    fn set(&mut self, property: Property<'a>) -> Result<(), DecodeError> {
        match property {
            Property::SessionExpiryInterval(value) => self.session_expiry_seconds = Some(value),
            Property::ReceiveMaximum(value) => self.receive_maximum = Some(value),
            Property::MaximumQoS(value) => self.maximum_qos = Some(value),
            Property::RetainAvailable(value) => self.retain_available = Some(value),
            Property::MaximumPacketSize(value) => self.maximum_packet_bytes = Some(value),
            Property::AssignedClientIdentifier(value) => self.assigned_client_id = Some(value),
            Property::TopicAliasMaximum(value) => self.topic_alias_maximum = Some(value),
            Property::ReasonString(value) => self.reason_string = Some(value),
            Property::UserProperty(name, value) => self.user_properties.push((name, value)),
            Property::WildcardSubscriptionAvailable(value) => {
                self.wildcard_subscription_available = Some(value);
            }
            Property::SubscriptionIdentifierAvailable(value) => {
                self.subscription_identifiers_available = Some(value);
            }
            Property::SharedSubscriptionAvailable(value) => {
                self.shared_subscription_available = Some(value);
            }
            Property::ServerKeepAlive(value) => self.server_keep_alive_seconds = Some(value),
            Property::ResponseInformation(value) => self.response_information = Some(value),
            Property::ServerReference(value) => self.server_reference = Some(value),
            Property::AuthenticationMethod(value) => self.authentication_method = Some(value),
            Property::AuthenticationData(value) => self.authentication_data = Some(value),
            other => return Err(DecodeError::PropertyNotAllowed(other.identifier())),
        }
        Ok(())
    }

    fn encode(&self, out: &mut Vec<u8>) {
        encode_option(out, self.session_expiry_seconds, Property::SessionExpiryInterval);
        encode_option(out, self.receive_maximum, Property::ReceiveMaximum);
        encode_option(out, self.maximum_qos, Property::MaximumQoS);
        encode_option(out, self.retain_available, Property::RetainAvailable);
        encode_option(out, self.maximum_packet_bytes, Property::MaximumPacketSize);
        encode_option(out, self.assigned_client_id, Property::AssignedClientIdentifier);
        encode_option(out, self.topic_alias_maximum, Property::TopicAliasMaximum);
        encode_option(out, self.reason_string, Property::ReasonString);
        encode_user_properties(out, &self.user_properties);
        let available = self.wildcard_subscription_available;
        encode_option(out, available, Property::WildcardSubscriptionAvailable);
        let available = self.subscription_identifiers_available;
        encode_option(out, available, Property::SubscriptionIdentifierAvailable);
        let available = self.shared_subscription_available;
        encode_option(out, available, Property::SharedSubscriptionAvailable);
        encode_option(out, self.server_keep_alive_seconds, Property::ServerKeepAlive);
        encode_option(out, self.response_information, Property::ResponseInformation);
        encode_option(out, self.server_reference, Property::ServerReference);
        encode_option(out, self.authentication_method, Property::AuthenticationMethod);
        encode_option(out, self.authentication_data, Property::AuthenticationData);
    }
}

/// The Connect Return code of 3.x that is closest to `reason`. [MQTT311-3.2.2-6]
#[must_use]
pub(crate) fn return_code(reason: ReasonCode) -> u8 {
    match reason {
        ReasonCode::Success
        | ReasonCode::GrantedQoS1
        | ReasonCode::GrantedQoS2
        | ReasonCode::DisconnectWithWillMessage
        | ReasonCode::NoMatchingSubscribers
        | ReasonCode::NoSubscriptionExisted
        | ReasonCode::ContinueAuthentication
        | ReasonCode::ReAuthenticate => 0,
        ReasonCode::UnsupportedProtocolVersion => 1,
        ReasonCode::ClientIdentifierNotValid => 2,
        ReasonCode::BadUserNameOrPassword | ReasonCode::BadAuthenticationMethod => 4,
        ReasonCode::NotAuthorized
        | ReasonCode::Banned
        | ReasonCode::MalformedPacket
        | ReasonCode::ProtocolError
        | ReasonCode::TopicFilterInvalid
        | ReasonCode::TopicNameInvalid
        | ReasonCode::PacketIdentifierInUse
        | ReasonCode::PacketIdentifierNotFound
        | ReasonCode::ReceiveMaximumExceeded
        | ReasonCode::TopicAliasInvalid
        | ReasonCode::PacketTooLarge
        | ReasonCode::PayloadFormatInvalid
        | ReasonCode::RetainNotSupported
        | ReasonCode::QoSNotSupported
        | ReasonCode::SharedSubscriptionsNotSupported
        | ReasonCode::SubscriptionIdentifiersNotSupported
        | ReasonCode::WildcardSubscriptionsNotSupported => 5,
        ReasonCode::UnspecifiedError
        | ReasonCode::ImplementationSpecificError
        | ReasonCode::ServerUnavailable
        | ReasonCode::ServerBusy
        | ReasonCode::ServerShuttingDown
        | ReasonCode::KeepAliveTimeout
        | ReasonCode::SessionTakenOver
        | ReasonCode::MessageRateTooHigh
        | ReasonCode::QuotaExceeded
        | ReasonCode::AdministrativeAction
        | ReasonCode::UseAnotherServer
        | ReasonCode::ServerMoved
        | ReasonCode::ConnectionRateExceeded
        | ReasonCode::MaximumConnectTime => 3,
    }
}

/// The Reason Code equivalent to a Connect Return code of 3.x. [MQTT311-3.2.2.3]
fn reason_from_return_code(code: u8) -> Option<ReasonCode> {
    Some(match code {
        0 => ReasonCode::Success,
        1 => ReasonCode::UnsupportedProtocolVersion,
        2 => ReasonCode::ClientIdentifierNotValid,
        3 => ReasonCode::ServerUnavailable,
        4 => ReasonCode::BadUserNameOrPassword,
        5 => ReasonCode::NotAuthorized,
        _ => return None,
    })
}

/// [MQTT-3.2.2-8]
fn is_connack_reason(reason: ReasonCode) -> bool {
    matches!(
        reason,
        ReasonCode::Success
            | ReasonCode::UnspecifiedError
            | ReasonCode::MalformedPacket
            | ReasonCode::ProtocolError
            | ReasonCode::ImplementationSpecificError
            | ReasonCode::UnsupportedProtocolVersion
            | ReasonCode::ClientIdentifierNotValid
            | ReasonCode::BadUserNameOrPassword
            | ReasonCode::NotAuthorized
            | ReasonCode::ServerUnavailable
            | ReasonCode::ServerBusy
            | ReasonCode::Banned
            | ReasonCode::ServerShuttingDown
            | ReasonCode::BadAuthenticationMethod
            | ReasonCode::TopicNameInvalid
            | ReasonCode::PacketTooLarge
            | ReasonCode::QuotaExceeded
            | ReasonCode::PayloadFormatInvalid
            | ReasonCode::RetainNotSupported
            | ReasonCode::QoSNotSupported
            | ReasonCode::UseAnotherServer
            | ReasonCode::ServerMoved
            | ReasonCode::ConnectionRateExceeded
    )
}
