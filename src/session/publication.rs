//! An Application Message on its way through the broker, still in the read buffer it came in.

use std::sync::Arc;

use crate::durable::message::{Message, MessageHeader, MessageId, Timestamp};
use crate::packet::QoS;

/// A message being routed. It becomes a [`Message`] of its own only when a recipient needs it
/// longer than the read buffer lives, and then once for all recipients.
pub struct Publication<'a> {
    /// Topic Name, with the mount point.
    pub topic: &'a str,
    /// Forwarded properties, wire-encoded.
    pub properties: &'a [u8],
    /// Payload.
    pub payload: &'a [u8],
    /// QoS it was published with.
    pub qos: QoS,
    /// RETAIN as published.
    pub retain: bool,
    /// Unique name.
    pub id: MessageId,
    /// When it arrived.
    pub arrived: Timestamp,
    /// When it expires.
    pub expires: Option<Timestamp>,
    message: Option<Arc<Message>>,
}

impl<'a> Publication<'a> {
    /// A message with its parts in a read buffer.
    #[must_use]
    pub fn new(
        header: MessageHeader,
        topic: &'a str,
        properties: &'a [u8],
        payload: &'a [u8],
    ) -> Self {
        let MessageHeader { id, qos, retain, arrived, expires } = header;
        Self { topic, properties, payload, qos, retain, id, arrived, expires, message: None }
    }

    /// A message that exists already: a will, or one that changes its queue.
    #[must_use]
    pub fn from_message(message: &'a Arc<Message>) -> Self {
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

    /// The message to keep, copied out of the read buffer at the first call. `None` if it is larger
    /// than any packet can be.
    pub fn message(&mut self) -> Option<&Arc<Message>> {
        if self.message.is_none() {
            let Self { id, qos, retain, arrived, expires, .. } = *self;
            let header = MessageHeader { id, qos, retain, arrived, expires };
            let message = Message::new(header, self.topic, self.properties, self.payload)?;
            self.message = Some(Arc::new(message));
        }
        self.message.as_ref()
    }

    /// Bytes that count against limits.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.topic.len() + self.properties.len() + self.payload.len()
    }
}
