//! How to encode packets for the Network Connection of one Client.

use core::net::SocketAddr;
use std::sync::Arc;

use crate::durable::message::Timestamp;
use crate::packet::publish::OutgoingPublish;
use crate::packet::{PacketId, ProtocolVersion, QoS};
use crate::session::aliases::{OutgoingAliases, TopicNaming};
use crate::session::effects::DropReason;
use crate::session::outbox::{Outbox, REFERENCED_PAYLOAD_BYTES, ReferencedPart};
use crate::session::publication::Publication;
use crate::topic::mount_point::MountPoint;

/// The parameters of a Network Connection for outgoing packets.
pub(crate) struct LinkParameters {
    /// Protocol version.
    pub(crate) version: ProtocolVersion,
    /// The Client's Maximum Packet Size in bytes. [MQTT-3.1.2-24]
    pub(crate) max_packet_bytes: u32,
    /// The smaller of the Client's Receive Maximum and the broker's own limit. [MQTT-3.3.4-9]
    pub(crate) receive_maximum: u16,
    /// How topics are named, unless as they are.
    pub(crate) naming: Option<Box<Naming>>,
    /// Most bytes in the outbox for QoS 0 messages.
    pub(crate) outbox_bytes: usize,
    /// Where the Client comes from.
    pub(crate) origin: Arc<dyn ClientOrigin>,
    /// When it connected.
    pub(crate) since: Timestamp,
}

/// How topics are named for a Client that does not simply get their full names.
pub(crate) struct Naming {
    /// Topic Aliases, if the Client accepts any.
    pub(crate) aliases: Option<OutgoingAliases>,
    /// The Client's mount point, which is removed from topics.
    pub(crate) mount_point: Option<MountPoint>,
}

/// Where a connected Client comes from, for operators.
pub(crate) trait ClientOrigin: Send + Sync {
    /// Its address; `None`: a Unix socket, or a part of the broker itself.
    fn address(&self) -> Option<SocketAddr>;

    /// Name of its listener.
    fn listener(&self) -> &str;
}

/// The flags of one PUBLISH.
pub(super) struct Outgoing<'a> {
    pub(super) qos: QoS,
    pub(super) dup: bool,
    pub(super) retain: bool,
    pub(super) packet_id: Option<PacketId>,
    pub(super) subscription_ids: &'a [u32],
    pub(super) now: Timestamp,
}

impl LinkParameters {
    /// The Client's mount point.
    #[inline]
    fn mount_point(&self) -> Option<&MountPoint> {
        self.naming.as_ref()?.mount_point.as_ref()
    }

    /// Whether packets encoded for others suit this Client: full topics, of any size.
    #[inline]
    pub(super) fn takes_any_packet(&self) -> bool {
        self.naming.is_none() && self.max_packet_bytes == u32::MAX
    }

    /// Appends a PUBLISH to the outbox, or returns why this Client cannot get the message.
    #[inline]
    pub(super) fn encode(
        &mut self,
        outbox: &mut Outbox,
        publication: &mut Publication<'_>,
        outgoing: &Outgoing<'_>,
    ) -> Result<(), DropReason> {
        if self.mount_point().is_some() {
            return self.encode_inside(outbox, publication, outgoing);
        }
        let (topic, properties) = (publication.topic, publication.properties);
        self.encode_as(topic, properties, outbox, publication, outgoing)
    }

    /// The same for a Client with a mount point, which gets different bytes than others.
    #[cold]
    fn encode_inside(
        &mut self,
        outbox: &mut Outbox,
        publication: &mut Publication<'_>,
        outgoing: &Outgoing<'_>,
    ) -> Result<(), DropReason> {
        let (topic, properties) = (publication.topic, publication.properties);
        let mount = self.mount_point().cloned();
        let inside = mount
            .as_ref()
            .and_then(|mount| Some((mount.inside(topic)?, mount.properties_inside(properties))));
        let (topic, properties) = inside.ok_or(DropReason::OutsideMountPoint)?;
        self.encode_as(topic, &properties, outbox, publication, outgoing)
    }

    #[expect(clippy::inline_always, reason = "it is all that is done for a message to one Client")]
    #[inline(always)]
    fn encode_as(
        &mut self,
        topic: &str,
        properties: &[u8],
        outbox: &mut Outbox,
        publication: &mut Publication<'_>,
        outgoing: &Outgoing<'_>,
    ) -> Result<(), DropReason> {
        let mut publish = OutgoingPublish {
            dup: outgoing.dup,
            qos: outgoing.qos,
            retain: outgoing.retain,
            topic,
            packet_id: outgoing.packet_id,
            topic_alias: None,
            message_expiry: publication.expires.map(|at| seconds_left(at, outgoing.now)),
            subscription_ids: outgoing.subscription_ids,
            properties,
            payload_bytes: publication.payload.len(),
        };
        if self.max_packet_bytes < u32::MAX
            && publish.encoded_bytes(self.version) > self.max_packet_bytes as usize
        {
            return Err(DropReason::PacketTooLarge);
        }
        let aliases = self.naming.as_mut().and_then(|naming| naming.aliases.as_mut());
        match aliases.map(|aliases| aliases.name(topic)) {
            Some(TopicNaming::Introduce(alias)) => publish.topic_alias = Some(alias),
            Some(TopicNaming::Alias(alias)) => {
                publish.topic_alias = Some(alias);
                publish.topic = "";
            }
            Some(TopicNaming::Full) | None => {}
        }
        if properties.len() + publication.payload.len() < REFERENCED_PAYLOAD_BYTES {
            outbox.append_publish(&publish, self.version, publication.payload);
            return Ok(());
        }
        self.append_large(outbox, publication, &publish)
    }

    /// Appends a large message by reference, as for other recipients. A Client with a mount point has its own properties.
    #[cold]
    fn append_large(
        &self,
        outbox: &mut Outbox,
        publication: &mut Publication<'_>,
        publish: &OutgoingPublish<'_>,
    ) -> Result<(), DropReason> {
        let end = match (self.version, self.mount_point()) {
            (ProtocolVersion::V5_0, None) => ReferencedPart::PropertiesAndPayload,
            (ProtocolVersion::V5_0, Some(_)) => ReferencedPart::Payload,
            (ProtocolVersion::V3_1 | ProtocolVersion::V3_1_1, _) => ReferencedPart::Payload,
        };
        let forwarded = match end {
            ReferencedPart::PropertiesAndPayload => publish.properties.len(),
            ReferencedPart::Payload => 0,
        };
        if forwarded + publication.payload.len() < REFERENCED_PAYLOAD_BYTES {
            outbox.append_publish(publish, self.version, publication.payload);
            return Ok(());
        }
        let message = publication.message().ok_or(DropReason::PacketTooLarge)?;
        outbox.append_referenced(publish, self.version, message, end);
        Ok(())
    }
}

/// The rest of a Message Expiry Interval, in whole seconds, rounded up. [MQTT-3.3.2-6]
fn seconds_left(expires: Timestamp, now: Timestamp) -> u32 {
    let left = expires.0.saturating_sub(now.0).div_ceil(1000);
    u32::try_from(left).unwrap_or(u32::MAX)
}
