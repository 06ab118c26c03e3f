//! What a Client may do with topics, as far as rules limit it. `access` implements it.

use crate::packet::QoS;

/// The rights of one Client, by the rules in force at the time of the question.
pub(crate) trait AccessRights: Send + Sync {
    /// With which QoS and RETAIN flags it may publish to a topic.
    fn publish(&self, topic: &str) -> PublishRights;

    /// The QoS that a Subscription gets: the requested one, or a lower one; `None`: it is denied. `filter` is without
    /// `$share/…/`.
    fn subscribe(&self, filter: &str, requested: QoS) -> Option<QoS>;

    /// Whether it may end a Subscription.
    fn unsubscribe(&self, filter: &str) -> bool;

    /// Whether it may receive messages of a topic.
    fn receive(&self, topic: &str) -> bool;

    /// Equal for Clients that rules cannot distinguish.
    fn identity(&self) -> u64;
}

/// With which QoS and RETAIN flags a Client may publish to a topic: one bit for each combination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PublishRights(u8);

impl PublishRights {
    /// It may not publish.
    pub(crate) const NONE: Self = Self(0);
    /// It may publish everything.
    pub(crate) const ALL: Self = Self(0b11_1111);

    /// With one more combination, by its number: twice the QoS, and one more with RETAIN.
    #[must_use]
    pub(crate) fn with(self, combination: usize) -> Self {
        Self(self.0 | (1 << combination))
    }

    /// Whether a message may be published.
    #[must_use]
    pub(crate) fn contains(self, qos: QoS, retain: bool) -> bool {
        self.0 & (1 << (qos as usize * 2 + usize::from(retain))) != 0
    }
}
