//! Topic Aliases set by the Client, and those assigned by the broker. Both last as long as one Network Connection.
//! [MQTT-3.3.2-7]

use std::num::NonZeroU16;

use hashbrown::HashMap;

/// Aliases that the Client set, up to the broker's Topic Alias Maximum.
#[derive(Debug, Default)]
pub(crate) struct IncomingAliases {
    topics: Vec<Option<Box<str>>>,
}

impl IncomingAliases {
    /// Sets the topic of `alias`.
    pub(crate) fn set(&mut self, alias: NonZeroU16, topic: &str) {
        let index = usize::from(alias.get()) - 1;
        if self.topics.len() <= index {
            self.topics.resize(index + 1, None);
        }
        if let Some(slot) = self.topics.get_mut(index)
            && slot.as_deref() != Some(topic)
        {
            *slot = Some(topic.into());
        }
    }

    /// The topic of `alias`.
    #[must_use]
    pub(crate) fn topic(&self, alias: NonZeroU16) -> Option<&str> {
        self.topics.get(usize::from(alias.get()) - 1)?.as_deref()
    }
}

/// Aliases that the broker assigned: the first topics that are sent get one each.
#[derive(Debug)]
pub(crate) struct OutgoingAliases {
    max: u16,
    topics: HashMap<Box<str>, u16>,
}

/// How to name a topic in an outgoing PUBLISH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TopicNaming {
    /// In full, without alias.
    Full,
    /// In full, and assign this alias.
    Introduce(u16),
    /// With this alias only.
    Alias(u16),
}

impl OutgoingAliases {
    /// Creates an empty set of at most `max` aliases.
    #[must_use]
    pub(crate) fn new(max: u16) -> Self {
        Self { max, topics: HashMap::new() }
    }

    /// How to name `topic`; assigns an alias while there are some left. The caller must send the packet.
    pub(crate) fn name(&mut self, topic: &str) -> TopicNaming {
        if let Some(&alias) = self.topics.get(topic) {
            return TopicNaming::Alias(alias);
        }
        let next = u16::try_from(self.topics.len()).unwrap_or(u16::MAX).saturating_add(1);
        if next > self.max || topic.len() < 4 {
            return TopicNaming::Full;
        }
        self.topics.insert(topic.into(), next);
        TopicNaming::Introduce(next)
    }
}
