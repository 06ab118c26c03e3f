//! Retained Messages on their way to a new Subscription.

use crate::packet::QoS;
use crate::topic::filter::TopicFilter;
use crate::topic::retained_tree::Cursor;

/// The Retained Messages that one Subscription is still to receive: all of them, however many, a
/// page at a time as its Client takes them.
pub struct RetainedDelivery {
    /// Which.
    pub filter: TopicFilter,
    /// QoS granted.
    pub qos: QoS,
    /// Subscription Identifier, 0 for none.
    pub subscription_id: u32,
    /// Where the next page starts.
    pub cursor: Option<Cursor>,
}
