//! Decoding errors. Each violation has a name and cites its rule; [`DecodeError::kind`] determines how a Network
//! Connection is closed, and [`crate::error`] maps it to a Reason Code.

use crate::packet::reason_code::ReasonCode;

/// The classes of [`DecodeError`], one for each kind of answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DecodeErrorKind {
    /// Cannot be parsed. [MQTT-4.13.1-1]
    Malformed,
    /// Parsed, but not allowed. [MQTT-4.13.1-1]
    ProtocolError,
    /// Longer than the receiver takes. [MQTT-3.1.2-24]
    PacketTooLarge,
    /// A protocol level that is not supported. [MQTT-3.1.2-2] [MQTT311-3.1.2-2]
    UnsupportedProtocolVersion,
    /// An invalid Topic Name. [MQTT-3.3.2-2] [MQTT-4.7.1-1]
    TopicNameInvalid,
}

/// A violation in a packet. Incomplete input is not an error, see [`crate::packet::decode::Decoded`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Type 0, or AUTH before 5.0. [MQTT-2.1.2] [MQTT311-2.2.1]
    #[error("the packet type {0} is reserved")]
    ReservedPacketType(u8),
    /// Flags of the fixed header that are not those of the packet type. [MQTT-2.1.3-1]
    /// [MQTT311-2.2.2-2]
    #[error("the flags {0:#06b} of the fixed header are reserved")]
    ReservedFlags(u8),
    /// A Variable Byte Integer of more than four bytes. [MQTT-1.5.5]
    #[error("a variable byte integer is longer than four bytes")]
    IntegerTooLong,
    /// A Variable Byte Integer with more bytes than needed. [MQTT-1.5.5-1]
    #[error("a variable byte integer is longer than needed")]
    IntegerNotMinimal,
    /// Longer than the receiver accepts. [MQTT-3.1.2-24] [MQTT-3.2.2-15]
    #[error("the packet takes {bytes} bytes, {max_bytes} are allowed")]
    PacketTooLarge {
        /// Length with the fixed header.
        bytes: u32,
        /// The limit.
        max_bytes: u32,
    },
    /// A part is missing, or a length points beyond the end of the packet. [MQTT-4.13.1-1]
    #[error("the packet ends within a field")]
    Truncated,
    /// Bytes after the last field. [MQTT-4.13.1-1]
    #[error("bytes follow the last field")]
    TrailingBytes,
    /// Ill-formed UTF-8, surrogates included. [MQTT-1.5.4-1] [MQTT311-1.5.3-1]
    #[error("a string is not UTF-8")]
    StringNotUtf8,
    /// U+0000 in a string. [MQTT-1.5.4-2] [MQTT311-1.5.3-2]
    #[error("a string contains U+0000")]
    StringContainsNul,
    /// Packet Identifier zero. [MQTT-2.2.1-3] [MQTT311-2.3.1-1]
    #[error("the packet identifier is zero")]
    PacketIdZero,

    /// A property that the specification does not define. [MQTT-2.2.2.2]
    #[error("the property {0:#04x} is not defined")]
    UnknownProperty(u8),
    /// A property that this packet cannot carry. [MQTT-2.2.2.2]
    #[error("the property {0:#04x} is not allowed in this packet")]
    PropertyNotAllowed(u8),
    /// A property that this packet can carry in the other direction only. [MQTT-3.3.4-6]
    /// [MQTT-3.14.2-2]
    #[error("the property {0:#04x} is not allowed in this direction")]
    PropertyNotForSender(u8),
    /// A property that may appear once appears twice. [MQTT-2.2.2.2]
    #[error("the property {0:#04x} is included twice")]
    PropertyDoubled(u8),
    /// A property whose value is out of range, such as Receive Maximum 0. [MQTT-3.1.2.11.3]
    #[error("the property {0:#04x} has a value that is not allowed")]
    PropertyValue(u8),
    /// Authentication Data without Authentication Method. [MQTT-3.1.2.11.10]
    #[error("authentication data without authentication method")]
    AuthenticationDataWithoutMethod,
    /// AUTH without Authentication Method. [MQTT-3.15.2.2.2]
    #[error("AUTH without authentication method")]
    AuthenticationMethodMissing,
    /// A Reason Code that is not allowed in this packet. [MQTT-3.4.2-1] [MQTT-3.14.2-1] [MQTT-3.15.2-1]
    #[error("the reason code {0:#04x} is not allowed in this packet")]
    ReasonCode(u8),

    /// A protocol name other than `MQTT` and `MQIsdp`. [MQTT-3.1.2-1] [MQTT311-3.1.2-1]
    #[error("the protocol name is not MQTT")]
    ProtocolName,
    /// The right protocol name with an unsupported protocol level. [MQTT-3.1.2-2] [MQTT311-3.1.2-2]
    #[error("the protocol level {level} is not supported")]
    UnsupportedProtocolVersion {
        /// As sent.
        level: u8,
    },
    /// The reserved bit of the Connect Flags. [MQTT-3.1.2-3] [MQTT311-3.1.2-3]
    #[error("the reserved connect flag is set")]
    ReservedConnectFlag,
    /// Will QoS 3. [MQTT-3.1.2-12] [MQTT311-3.1.2-14]
    #[error("the will QoS is 3")]
    WillQoS,
    /// Will QoS or Will Retain without Will Flag. [MQTT-3.1.2-11] [MQTT-3.1.2-13]
    /// [MQTT311-3.1.2-13]
    #[error("will QoS or will retain without will flag")]
    WillFlagsWithoutWill,
    /// A Will Topic with a wildcard, or none. [MQTT-4.7.1-1] [MQTT-4.7.3-1]
    #[error("the will topic is not a topic name")]
    WillTopicInvalid,
    /// Password without User Name, before 5.0. [MQTT311-3.1.2-22]
    #[error("password without user name")]
    PasswordWithoutUserName,

    /// Reserved bits of the Connect Acknowledge Flags. [MQTT-3.2.2-1]
    #[error("reserved bits of the connect acknowledge flags are set")]
    ReservedConnackFlags,
    /// Session Present together with a failure. [MQTT-3.2.2-6] [MQTT311-3.2.2-4]
    #[error("session present in a refusal")]
    SessionPresentInRefusal,

    /// QoS 3. [MQTT-3.3.1-4] [MQTT311-3.3.1-4]
    #[error("the QoS is 3")]
    PublishQoS,
    /// DUP at QoS 0. [MQTT-3.3.1-2] [MQTT311-3.3.1-2]
    #[error("DUP at QoS 0")]
    DupAtQoS0,
    /// A Topic Name with a wildcard. [MQTT-3.3.2-2] [MQTT311-3.3.2-2]
    #[error("the topic name contains a wildcard")]
    TopicNameWildcard,
    /// An empty Topic Name, and no Topic Alias. [MQTT-3.3.2.1] [MQTT-4.7.3-1] [MQTT311-4.7.3-1]
    #[error("the topic name is empty")]
    TopicNameEmpty,
    /// A Response Topic with a wildcard, or an empty one. [MQTT-3.3.2-14]
    #[error("the response topic is not a topic name")]
    ResponseTopicInvalid,

    /// SUBSCRIBE or UNSUBSCRIBE without a Topic Filter, or their acknowledgement without a Reason
    /// Code. [MQTT-3.8.3-2] [MQTT-3.10.3-2] [MQTT311-3.8.3-3] [MQTT311-3.10.3-2]
    #[error("the packet has no payload")]
    PayloadMissing,
    /// More Topic Filters in one packet than are accepted.
    #[error("the packet has too many topic filters")]
    TooManyFilters,
    /// Reserved bits of the Subscription Options. [MQTT-3.8.3-5] [MQTT311-3.8.3-4]
    #[error("reserved bits of the subscription options are set")]
    ReservedSubscriptionOptions,
    /// Maximum QoS 3. [MQTT-3.8.3.1] [MQTT311-3.8.3-4]
    #[error("the QoS of a subscription is 3")]
    SubscriptionQoS,
    /// Retain Handling 3. [MQTT-3.8.3.1]
    #[error("the retain handling is 3")]
    RetainHandling,
}

impl DecodeError {
    /// The class of this error, which determines the answer.
    #[must_use]
    pub fn kind(&self) -> DecodeErrorKind {
        match self {
            Self::ReservedPacketType(_)
            | Self::ReservedFlags(_)
            | Self::IntegerTooLong
            | Self::IntegerNotMinimal
            | Self::Truncated
            | Self::TrailingBytes
            | Self::StringNotUtf8
            | Self::StringContainsNul
            | Self::UnknownProperty(_)
            | Self::PropertyNotAllowed(_)
            | Self::ReservedConnectFlag
            | Self::WillQoS
            | Self::WillFlagsWithoutWill
            | Self::PasswordWithoutUserName
            | Self::ReservedConnackFlags
            | Self::PublishQoS
            | Self::DupAtQoS0
            | Self::ReservedSubscriptionOptions => DecodeErrorKind::Malformed,
            Self::PacketIdZero
            | Self::PropertyNotForSender(_)
            | Self::PropertyDoubled(_)
            | Self::PropertyValue(_)
            | Self::AuthenticationDataWithoutMethod
            | Self::AuthenticationMethodMissing
            | Self::ReasonCode(_)
            | Self::SessionPresentInRefusal
            | Self::TopicNameEmpty
            | Self::ResponseTopicInvalid
            | Self::PayloadMissing
            | Self::SubscriptionQoS
            | Self::RetainHandling => DecodeErrorKind::ProtocolError,
            Self::PacketTooLarge { .. } | Self::TooManyFilters => DecodeErrorKind::PacketTooLarge,
            Self::ProtocolName | Self::UnsupportedProtocolVersion { .. } => {
                DecodeErrorKind::UnsupportedProtocolVersion
            }
            Self::WillTopicInvalid | Self::TopicNameWildcard => DecodeErrorKind::TopicNameInvalid,
        }
    }
}

impl DecodeErrorKind {
    /// The Reason Code of this class. [MQTT-4.13.1-1]
    #[must_use]
    pub fn reason(self) -> ReasonCode {
        match self {
            Self::Malformed => ReasonCode::MalformedPacket,
            Self::ProtocolError => ReasonCode::ProtocolError,
            Self::PacketTooLarge => ReasonCode::PacketTooLarge,
            Self::UnsupportedProtocolVersion => ReasonCode::UnsupportedProtocolVersion,
            Self::TopicNameInvalid => ReasonCode::TopicNameInvalid,
        }
    }
}
