//! AUTH: enhanced authentication, 5.0 only.

use crate::packet::{
    ProtocolVersion,
    error::DecodeError,
    fixed_header::PacketType,
    property::{Property, PropertyReader, PropertySet, encode_option, encode_user_properties},
    reader::Reader,
    reason_code::ReasonCode,
    writer,
};

/// AUTH. [MQTT-3.15]
#[derive(Debug, Clone, PartialEq)]
pub struct Auth<'a> {
    /// Success, Continue authentication or Re-authenticate.
    pub(crate) reason: ReasonCode,
    /// Authentication Method.
    pub(crate) method: Option<&'a str>,
    /// Authentication Data.
    pub(crate) data: Option<&'a [u8]>,
    /// Reason String.
    pub(crate) reason_string: Option<&'a str>,
    /// User Properties, in order.
    pub(crate) user_properties: Vec<(&'a str, &'a str)>,
}

impl<'a> Auth<'a> {
    pub(super) fn decode(mut body: Reader<'a>) -> Result<Self, DecodeError> {
        let mut auth = Self {
            reason: ReasonCode::Success,
            method: None,
            data: None,
            reason_string: None,
            user_properties: Vec::new(),
        };
        // An empty packet means Success without properties. [MQTT-3.15.2.1]
        if body.is_empty() {
            return Ok(auth);
        }
        auth.reason = match body.u8()? {
            0x00 => ReasonCode::Success,
            0x18 => ReasonCode::ContinueAuthentication,
            0x19 => ReasonCode::ReAuthenticate,
            other => return Err(DecodeError::ReasonCode(other)),
        };
        let mut properties = PropertyReader::take(&mut body, PropertySet::AUTH)?;
        while let Some(property) = properties.next()? {
            match property {
                Property::AuthenticationMethod(method) => auth.method = Some(method),
                Property::AuthenticationData(data) => auth.data = Some(data),
                Property::ReasonString(text) => auth.reason_string = Some(text),
                Property::UserProperty(name, value) => auth.user_properties.push((name, value)),
                other => return Err(DecodeError::PropertyNotAllowed(other.identifier())),
            }
        }
        if auth.method.is_none() {
            return Err(DecodeError::AuthenticationMethodMissing);
        }
        body.finish().map(|()| auth)
    }

    /// Appends the packet; appends nothing before 5.0, which has no AUTH.
    pub(crate) fn encode(&self, out: &mut Vec<u8>, version: ProtocolVersion) {
        if version < ProtocolVersion::V5_0 {
            return;
        }
        writer::packet(out, PacketType::Auth.first_byte(), |out| {
            let has_properties = self.method.is_some()
                || self.data.is_some()
                || self.reason_string.is_some()
                || !self.user_properties.is_empty();
            if self.reason == ReasonCode::Success && !has_properties {
                return;
            }
            out.push(self.reason as u8);
            writer::properties(out, |out| {
                encode_option(out, self.method, Property::AuthenticationMethod);
                encode_option(out, self.data, Property::AuthenticationData);
                encode_option(out, self.reason_string, Property::ReasonString);
                encode_user_properties(out, &self.user_properties);
            });
        });
    }
}
