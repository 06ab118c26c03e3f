//! Messages that several Clients receive in the same bytes: encoded once for each protocol, then copied
//! for each Client. At QoS 0 nothing in a packet tells one recipient from another.

use crate::packet::publish::OutgoingPublish;
use crate::packet::{ProtocolVersion, QoS};
use crate::session::outbox::{Outbox, SHARED_PAYLOAD_BYTES};
use crate::session::publication::Publication;

/// A run of messages of one topic on its way to more than one Client.
pub struct SharedRun {
    /// All of them were published with QoS 0.
    is_qos0: bool,
    messages: u64,
    payload_bytes: u64,
    /// For 3.x and for 5.0, empty until somebody needs it.
    encoded: [Outbox; 2],
}

impl SharedRun {
    /// A run, if its packets are as simple as most: no properties, no RETAIN, payloads that are copied
    /// anyway.
    #[must_use]
    pub fn of(publications: &[Publication<'_>]) -> Option<Self> {
        let mut run =
            Self { is_qos0: true, messages: 0, payload_bytes: 0, encoded: Default::default() };
        for publication in publications {
            let is_simple = !publication.retain
                && publication.properties.is_empty()
                && publication.expires.is_none()
                && publication.payload.len() < SHARED_PAYLOAD_BYTES;
            if !is_simple {
                return None;
            }
            run.is_qos0 &= publication.qos == QoS::AtMostOnce;
            run.messages += 1;
            run.payload_bytes += publication.payload.len() as u64;
        }
        Some(run)
    }

    /// Whether a Subscription of this QoS receives all of them with QoS 0.
    #[inline]
    pub(crate) fn is_unacknowledged(&self, granted: QoS) -> bool {
        self.is_qos0 || granted == QoS::AtMostOnce
    }

    /// How many there are.
    #[inline]
    pub(super) fn messages(&self) -> u64 {
        self.messages
    }

    /// Bytes of all payloads.
    #[inline]
    pub(super) fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }

    /// Their packets of QoS 0; `publications` are those that the run was made of.
    #[inline]
    pub(super) fn packets(
        &mut self,
        version: ProtocolVersion,
        publications: &[Publication<'_>],
    ) -> &Outbox {
        let encoded = &mut self.encoded[usize::from(version == ProtocolVersion::V5_0)];
        if encoded.is_empty() {
            for publication in publications {
                let publish = OutgoingPublish {
                    dup: false,
                    qos: QoS::AtMostOnce,
                    retain: false,
                    topic: publication.topic,
                    packet_id: None,
                    topic_alias: None,
                    message_expiry: None,
                    subscription_ids: &[],
                    properties: &[],
                    payload_bytes: publication.payload.len(),
                };
                encoded.append_publish(&publish, version, publication.payload);
            }
        }
        encoded
    }
}

impl Drop for SharedRun {
    fn drop(&mut self) {
        self.encoded.iter_mut().for_each(Outbox::discard);
    }
}
