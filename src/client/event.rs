//! Events of a connection, the same for both versions.

use crate::client::error::ClientError;
use crate::client::message::Incoming;
use crate::packet::QoS;

/// The contents of CONNACK.
#[derive(Debug, Clone, Default)]
pub(super) struct Accepted {
    pub(super) session_present: bool,
    /// How many messages may be in flight to it.
    pub(super) receive_maximum: Option<u16>,
    pub(super) max_qos: Option<QoS>,
    pub(super) retains: bool,
}

/// Something that happened.
#[derive(Debug)]
pub(super) enum Event {
    /// CONNACK.
    Connected(Accepted),
    /// A PUBLISH was written; zero with QoS 0.
    Written(u16),
    /// A message has reached its end: PUBACK, PUBCOMP, or a PUBREC that refuses.
    Acknowledged(u16, Result<(), String>),
    /// PUBLISH.
    Message(Incoming),
    /// PUBREL, and with it the end of an incoming QoS 2 message.
    Released(u16),
    /// SUBACK, one result for each filter.
    Subscribed(Vec<Result<QoS, String>>),
    /// UNSUBACK.
    Unsubscribed(Vec<Result<(), String>>),
    /// DISCONNECT was written.
    Disconnected,
    /// Something for `--debug` only.
    Note(String),
    /// The connection ended, or could not be established. The last event.
    Lost(ClientError),
}
