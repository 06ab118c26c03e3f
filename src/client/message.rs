//! An Application Message on its way in or out, the same for both versions.

use bytes::Bytes;
use rumqttc::v5::mqttbytes::v5::PublishProperties;

use crate::packet::QoS;

/// A message that is to be published.
#[derive(Debug, Clone)]
pub(super) struct Outgoing {
    pub(super) topic: String,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) payload: Bytes,
    /// Used with 5.0 only; the options see to it that nobody asks for them otherwise.
    pub(super) properties: Option<PublishProperties>,
}

/// A message that came.
#[derive(Debug, Clone, Default)]
pub(super) struct Incoming {
    pub(super) topic: String,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    /// Zero with QoS 0.
    pub(super) packet_id: u16,
    pub(super) payload: Bytes,
    pub(super) properties: Option<PublishProperties>,
}

impl Incoming {
    /// The properties, empty where there are none.
    pub(super) fn properties(&self) -> &PublishProperties {
        static NONE: std::sync::OnceLock<PublishProperties> = std::sync::OnceLock::new();
        self.properties.as_ref().unwrap_or_else(|| NONE.get_or_init(PublishProperties::default))
    }
}
