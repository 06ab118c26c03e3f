//! The layout on disk: every column family of the database, its key, its value, what writes it and what removes it.
//!
//! Names on disk never change their meaning. A new form of a value needs a new version byte; a new form of a key or a
//! new family needs a new format version and a step in `migration.rs`.

/// A column family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// Key: a name (see [`crate::store::value::meta`]). Value: format version, incarnation, clock, next body. Written
    /// at opening, by the heartbeat and at closing; never removed. This is RocksDB's default family.
    Meta,
    /// Key: Session id. Value: [`crate::durable::record::SessionRecord`].
    /// Written and removed by `SessionChange`.
    Sessions,
    /// Key: Session id, Topic Filter in full. Value: options and Subscription Identifier.
    /// Written by `PutSubscription`, removed by `DeleteSubscription` and with the Session.
    Subscriptions,
    /// Key: Session id, sequence. Value: a queue entry with its message, or with the number of its body.
    /// Put once by `Enqueue`, removed once by `Dequeue` or `Release` (so a single deletion suffices), or with the
    /// Session.
    Queue,
    /// Key: Session id. Value: where the queue starts and ends and what it holds. Written together with the changes
    /// that it sums up, removed with the Session.
    QueueIndex,
    /// Key: Session id, sequence. Value: only its version. The recipient sent PUBREC, PUBCOMP is expected. Written by
    /// `Release`, removed by `Dequeue` and with the Session.
    Released,
    /// Key: Session id, Packet Identifier. Value: only its version. A QoS 2 identifier received from the Client.
    /// Written by `PutIncoming`, removed by `DeleteIncoming` and with the Session.
    Incoming,
    /// Key: number of the body. Value: a message that several queue entries share.
    /// Written by the first `Enqueue` that shares it, removed with the last entry that refers to it.
    Bodies,
    /// Key: number of the body. Value: how many queue entries refer to it.
    /// Written and removed by the writer, beside the entries.
    BodyReferences,
    /// Key: Topic Name. Value: the Retained Message.
    /// Written and removed by `RetainedChange`.
    Retained,
    /// Key: Session id (or that of a group). Value: [`crate::durable::record::QueueRecord`].
    /// Written by `QueueChange::Put`, removed by `QueueChange::Delete` and with the Session.
    Queues,
}

impl Family {
    /// Every family, in the order in which they were introduced.
    pub const ALL: [Self; 11] = [
        Self::Meta,
        Self::Sessions,
        Self::Subscriptions,
        Self::Queue,
        Self::QueueIndex,
        Self::Released,
        Self::Incoming,
        Self::Bodies,
        Self::BodyReferences,
        Self::Retained,
        Self::Queues,
    ];

    /// Its number in [`crate::store::operations::Operations`]; never changes.
    #[must_use]
    pub(crate) const fn code(self) -> u8 {
        self as u8
    }

    /// The family of a number.
    #[must_use]
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }

    /// Its name on disk.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Meta => "default",
            Self::Sessions => "sessions",
            Self::Subscriptions => "subscriptions",
            Self::Queue => "queue",
            Self::QueueIndex => "queue_index",
            Self::Released => "released",
            Self::Incoming => "incoming",
            Self::Bodies => "bodies",
            Self::BodyReferences => "body_references",
            Self::Retained => "retained",
            Self::Queues => "queues",
        }
    }

    /// Whether it holds messages, which are most of the data: these families get large write buffers and compression,
    /// the others stay small.
    #[must_use]
    pub(crate) const fn holds_messages(self) -> bool {
        match self {
            Self::Queue | Self::Bodies | Self::Retained => true,
            Self::Meta
            | Self::Sessions
            | Self::Subscriptions
            | Self::QueueIndex
            | Self::Released
            | Self::Incoming
            | Self::BodyReferences
            | Self::Queues => false,
        }
    }

    /// Whether its keys start with a Session id, so that they are removed with the Session.
    #[must_use]
    pub(crate) const fn belongs_to_session(self) -> bool {
        match self {
            Self::Sessions
            | Self::Subscriptions
            | Self::Queue
            | Self::QueueIndex
            | Self::Released
            | Self::Incoming
            | Self::Queues => true,
            Self::Meta | Self::Bodies | Self::BodyReferences | Self::Retained => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Family;

    #[test]
    fn names_on_disk_are_distinct_and_do_not_change() {
        let names: Vec<_> = Family::ALL.iter().map(|family| family.name()).collect();
        let expected = [
            "default",
            "sessions",
            "subscriptions",
            "queue",
            "queue_index",
            "released",
            "incoming",
            "bodies",
            "body_references",
            "retained",
            "queues",
        ];
        assert_eq!(names, expected);
        for family in Family::ALL {
            assert_eq!(Family::from_code(family.code()), Some(family));
        }
    }
}
