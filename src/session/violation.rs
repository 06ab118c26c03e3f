//! Violations by a Client other than malformed bytes: each is a phrase and cites its rule.

/// A rule that a Client violated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The first packet is not CONNECT. [MQTT-3.1.0-1]
    #[error("the first packet is not CONNECT")]
    NotConnect,
    /// A second CONNECT on one Network Connection. [MQTT-3.1.0-2]
    #[error("second CONNECT on one Network Connection")]
    SecondConnect,
    /// A packet that only a Server may send.
    #[error("packet that only a Server may send")]
    ServerPacket,
    /// An AUTH packet without enhanced authentication under way or agreed. [MQTT-4.12.0-6]
    #[error("AUTH without enhanced authentication")]
    UnexpectedAuth,
    /// An Authentication Method other than that of CONNECT. [MQTT-4.12.0-5]
    #[error("Authentication Method differs from that in CONNECT")]
    OtherAuthenticationMethod,
    /// A packet other than AUTH and DISCONNECT during authentication. [MQTT-3.1.2-30]
    #[error("packet before authentication is complete")]
    PacketDuringAuthentication,
    /// More QoS 1 and 2 messages in flight than the Receive Maximum allows. [MQTT-3.3.4-7]
    #[error("Receive Maximum exceeded")]
    ReceiveMaximumExceeded,
    /// A Topic Alias of zero or above the Topic Alias Maximum. [MQTT-3.3.2-9]
    #[error("Topic Alias out of range")]
    TopicAliasInvalid,
    /// A Topic Alias that is not set on this Network Connection.
    #[error("Topic Alias unknown")]
    TopicAliasUnknown,
    /// A QoS above the Maximum QoS. [MQTT-3.2.2-11]
    #[error("QoS above the Maximum QoS")]
    QosNotSupported,
    /// A Retained Message although they are not available. [MQTT-3.2.2-14]
    #[error("Retained Messages are not available")]
    RetainNotSupported,
    /// A Subscription Identifier in a PUBLISH from a Client. [MQTT-3.3.4-6]
    #[error("Subscription Identifier in PUBLISH from a Client")]
    SubscriptionIdFromClient,
    /// No Local on a Shared Subscription. [MQTT-3.8.3-4]
    #[error("No Local on a Shared Subscription")]
    NoLocalOnShared,
    /// A Session Expiry Interval in DISCONNECT after zero in CONNECT. [MQTT-3.14.2-2]
    #[error("Session Expiry Interval raised from zero in DISCONNECT")]
    SessionExpiryRaised,
}
