//! An Application Message being routed, still in the read buffer in which it arrived.

use std::sync::Arc;

use crate::durable::message::{Message, MessageHeader, MessageId, Timestamp};
use crate::packet::QoS;

/// A message being routed. It is copied into a [`Message`] only if a recipient needs it longer than the read buffer,
/// and then once for all recipients.
pub(crate) struct Publication<'a> {
    /// Topic Name, with the mount point.
    pub(crate) topic: &'a str,
    /// Forwarded properties, wire-encoded.
    pub(crate) properties: &'a [u8],
    /// Payload.
    pub(crate) payload: &'a [u8],
    /// QoS it was published with.
    pub(crate) qos: QoS,
    /// RETAIN as published.
    pub(crate) retain: bool,
    /// Unique name.
    pub(crate) id: MessageId,
    /// When it arrived.
    pub(crate) arrived: Timestamp,
    /// When it expires.
    pub(crate) expires: Option<Timestamp>,
    message: Option<Arc<Message>>,
}

impl<'a> Publication<'a> {
    /// Creates a publication from parts in a read buffer.
    #[must_use]
    pub(crate) fn new(
        header: MessageHeader,
        topic: &'a str,
        properties: &'a [u8],
        payload: &'a [u8],
    ) -> Self {
        let MessageHeader { id, qos, retain, arrived, expires } = header;
        Self { topic, properties, payload, qos, retain, id, arrived, expires, message: None }
    }

    /// Creates a publication from an existing message: a will, or one that moves to another queue.
    #[must_use]
    pub(crate) fn from_message(message: &'a Arc<Message>) -> Self {
        Self {
            topic: message.topic(),
            properties: message.properties(),
            payload: message.payload(),
            qos: message.qos,
            retain: message.retain,
            id: message.id,
            arrived: message.arrived,
            expires: message.expires,
            message: Some(Arc::clone(message)),
        }
    }

    /// The message as a copy of the read buffer, made at the first call. `None` if it is larger than any packet can
    /// be.
    pub(crate) fn message(&mut self) -> Option<&Arc<Message>> {
        if self.message.is_none() {
            let Self { id, qos, retain, arrived, expires, .. } = *self;
            let header = MessageHeader { id, qos, retain, arrived, expires };
            let message = Message::new(header, self.topic, self.properties, self.payload)?;
            self.message = Some(Arc::new(message));
        }
        self.message.as_ref()
    }

    /// Bytes that count towards limits.
    #[must_use]
    pub(crate) fn size_bytes(&self) -> usize {
        self.topic.len() + self.properties.len() + self.payload.len()
    }
}
