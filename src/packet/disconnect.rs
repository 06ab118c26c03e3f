//! DISCONNECT.

use crate::packet::{
    ProtocolVersion,
    decode::Sender,
    error::DecodeError,
    fixed_header::PacketType,
    property::{Property, PropertyReader, PropertySet, encode_option, encode_user_properties},
    reader::Reader,
    reason_code::ReasonCode,
    writer,
};

/// DISCONNECT. [MQTT-3.14] In 3.x it is empty and only a Client sends it.
#[derive(Debug, Clone, PartialEq)]
pub struct Disconnect<'a> {
    /// `Success` (Normal disconnection) when left out.
    pub reason: ReasonCode,
    /// Session Expiry Interval in seconds, Client to Server only.
    pub session_expiry_seconds: Option<u32>,
    /// Reason String.
    pub reason_string: Option<&'a str>,
    /// User Properties, in order.
    pub user_properties: Vec<(&'a str, &'a str)>,
    /// Server Reference.
    pub server_reference: Option<&'a str>,
}

impl<'a> Disconnect<'a> {
    /// A DISCONNECT with only a reason.
    #[must_use]
    pub fn new(reason: ReasonCode) -> Self {
        Self {
            reason,
            session_expiry_seconds: None,
            reason_string: None,
            user_properties: Vec::new(),
            server_reference: None,
        }
    }

    pub(super) fn decode(
        mut body: Reader<'a>,
        version: ProtocolVersion,
        sender: Sender,
    ) -> Result<Self, DecodeError> {
        let mut disconnect = Self::new(ReasonCode::Success);
        if version < ProtocolVersion::V5_0 || body.is_empty() {
            return body.finish().map(|()| disconnect);
        }
        let reason = body.u8()?;
        disconnect.reason = ReasonCode::from_u8(reason)
            .filter(|reason| is_disconnect_reason(*reason))
            .ok_or(DecodeError::ReasonCode(reason))?;
        if body.is_empty() {
            return Ok(disconnect);
        }
        let mut properties = PropertyReader::take(&mut body, PropertySet::DISCONNECT)?;
        while let Some(property) = properties.next()? {
            match (property, sender) {
                (Property::SessionExpiryInterval(seconds), Sender::Client) => {
                    disconnect.session_expiry_seconds = Some(seconds);
                }
                (Property::ServerReference(server), Sender::Server) => {
                    disconnect.server_reference = Some(server);
                }
                (Property::ReasonString(text), _) => disconnect.reason_string = Some(text),
                (Property::UserProperty(name, value), _) => {
                    disconnect.user_properties.push((name, value));
                }
                (other, _) => return Err(DecodeError::PropertyNotForSender(other.identifier())),
            }
        }
        body.finish().map(|()| disconnect)
    }

    /// Appends the packet. Before 5.0 it has no content, and a Server sends none.
    pub fn encode(&self, out: &mut Vec<u8>, version: ProtocolVersion) {
        writer::packet(out, PacketType::Disconnect.first_byte(), |out| {
            let has_properties = self.session_expiry_seconds.is_some()
                || self.reason_string.is_some()
                || !self.user_properties.is_empty()
                || self.server_reference.is_some();
            let is_empty = self.reason == ReasonCode::Success && !has_properties;
            if version < ProtocolVersion::V5_0 || is_empty {
                return;
            }
            out.push(self.reason as u8);
            if !has_properties {
                return;
            }
            writer::properties(out, |out| {
                let session_expiry = self.session_expiry_seconds;
                encode_option(out, session_expiry, Property::SessionExpiryInterval);
                encode_option(out, self.reason_string, Property::ReasonString);
                encode_user_properties(out, &self.user_properties);
                encode_option(out, self.server_reference, Property::ServerReference);
            });
        });
    }
}

/// Whether either side may send this reason. Some Clients send reasons reserved for the Server, with the same
/// meaning. [MQTT-3.14.2-1]
fn is_disconnect_reason(reason: ReasonCode) -> bool {
    match reason {
        ReasonCode::Success | ReasonCode::DisconnectWithWillMessage => true,
        ReasonCode::UnsupportedProtocolVersion
        | ReasonCode::ClientIdentifierNotValid
        | ReasonCode::BadUserNameOrPassword
        | ReasonCode::ServerUnavailable
        | ReasonCode::Banned
        | ReasonCode::PacketIdentifierInUse
        | ReasonCode::PacketIdentifierNotFound => false,
        other => other.is_failure(),
    }
}
