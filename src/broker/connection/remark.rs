//! Remarks about a Client for the log, as values: the shell writes them if the level is enabled.

use crate::packet::connect::Connect;
use crate::packet::reason_code::ReasonCode;

/// Most remarks kept until the shell takes them; more at once would add no information.
pub(super) const MAX_REMARKS: usize = 32;

/// Most bytes of a Client's text kept for the log.
const MAX_TEXT_BYTES: usize = 1024;

/// How a Client introduced itself. Kept until it is connected or refused.
#[derive(Debug)]
pub struct Introduction {
    /// Client Identifier, as it was sent.
    pub(crate) client_id: Box<str>,
    /// User Name, as it was claimed.
    pub(crate) user_name: Option<Box<str>>,
    /// Keep Alive, as requested.
    pub(crate) keep_alive_seconds: u16,
    /// Clean Start.
    pub(crate) clean_start: bool,
    /// Whether its Session was resumed.
    pub(crate) is_resumed: bool,
}

/// A request that was denied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remark {
    /// It may not publish there. Reported once per topic, as long as the connection remembers it.
    PublishDenied {
        /// The Topic Name, with the mount point.
        topic: Box<str>,
        /// The Reason Code it got.
        reason: ReasonCode,
    },
    /// A Subscription was refused.
    SubscribeRefused {
        /// The Topic Filter, as it was sent.
        filter: Box<str>,
        /// The Reason Code it got.
        reason: ReasonCode,
    },
}

impl Introduction {
    pub(super) fn new(connect: &Connect<'_>) -> Self {
        Self {
            client_id: cut(connect.client_id),
            user_name: connect.user_name.map(cut),
            keep_alive_seconds: connect.keep_alive_seconds,
            clean_start: connect.clean_start,
            is_resumed: false,
        }
    }
}

impl Remark {
    pub(super) fn publish_denied(topic: &str, reason: ReasonCode) -> Self {
        Self::PublishDenied { topic: cut(topic), reason }
    }

    pub(super) fn subscribe_refused(filter: &str, reason: ReasonCode) -> Self {
        Self::SubscribeRefused { filter: cut(filter), reason }
    }
}

/// The text, or as much of its beginning as is logged.
pub(in crate::broker) fn cut(text: &str) -> Box<str> {
    let mut end = text.len().min(MAX_TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().into()
}
