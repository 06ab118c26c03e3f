//! Access rules: what one rule says, for whom, and where it was written.

use core::fmt;
use std::sync::Arc;

use crate::access::template::Template;
use crate::packet::QoS;

/// What a rule does with the requests to which it applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// It allows them.
    Allow,
    /// It denies them.
    Deny,
}

/// Something that rules allow or deny.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Operation {
    /// Publish to a topic, also by a Will Message.
    Publish = 0,
    /// Receive a message of a topic, new or retained.
    Receive = 1,
    /// Subscribe to a Topic Filter.
    Subscribe = 2,
    /// Unsubscribe from a Topic Filter.
    Unsubscribe = 3,
}

/// A set of operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Operations(u8);

/// The messages and Subscriptions to which a rule applies, by QoS and RETAIN: one bit for each combination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Circumstances(pub(super) u8);

/// How many combinations of QoS and RETAIN there are.
pub(super) const CIRCUMSTANCES: usize = 6;

/// How the filter of a rule is compared with a requested Topic Filter. Topic Names are always matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Comparison {
    /// The rule applies if its filter covers the requested one: it matches every topic that the requested one matches.
    Covers,
    /// The rule applies if the requested filter has the same text. For SUBSCRIBE and UNSUBSCRIBE.
    SameText,
}

/// For whom a rule is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Who {
    /// All Clients.
    Everyone,
    /// Clients without a verified user name.
    Anonymous,
    /// Clients with a verified user name.
    Authenticated,
    /// Clients whose user name and Client Identifier contain neither `+` nor `#`: mosquitto applies its `pattern` lines
    /// only to them.
    PlainNames,
    /// The Clients of one user.
    User(Arc<str>),
    /// The Client with this Client Identifier.
    Client(Arc<str>),
    /// The Clients of all users of a group.
    Group(Arc<str>),
    /// The Clients to which a role was given.
    Role(Arc<str>),
    /// The Clients of a listener.
    Listener(Arc<str>),
}

/// Where a rule was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The file.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: usize,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// For whom it is.
    pub who: Who,
    /// What it does.
    pub effect: Effect,
    /// With what.
    pub operations: Operations,
    /// On which topics.
    pub filter: Template,
    /// How the filter is compared with a requested one.
    pub comparison: Comparison,
    /// In which circumstances.
    pub circumstances: Circumstances,
    /// Rules with a higher priority come first; of the same priority, in order.
    pub priority: i32,
    /// Where it was written.
    pub origin: Origin,
}

impl Operation {
    /// All of them, in order of their number.
    pub const ALL: [Self; 4] = [Self::Publish, Self::Receive, Self::Subscribe, Self::Unsubscribe];

    /// Its name in rules.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Receive => "receive",
            Self::Subscribe => "subscribe",
            Self::Unsubscribe => "unsubscribe",
        }
    }
}

impl Operations {
    /// All operations.
    pub const ALL: Self = Self(0b1111);

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether it contains this operation.
    #[must_use]
    pub fn contains(self, operation: Operation) -> bool {
        self.0 & (1 << operation as usize) != 0
    }

    /// The operations of both sets.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The operations of this set that `other` has as well.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl<const N: usize> From<[Operation; N]> for Operations {
    fn from(operations: [Operation; N]) -> Self {
        Self(operations.iter().fold(0, |bits, operation| bits | (1 << *operation as usize)))
    }
}

impl Circumstances {
    /// All circumstances.
    pub const ALL: Self = Self(0b11_1111);

    /// The combination of one QoS and one RETAIN flag.
    pub(super) fn index(qos: QoS, retain: bool) -> usize {
        qos as usize * 2 + usize::from(retain)
    }

    /// Only up to this QoS.
    #[must_use]
    pub fn up_to(self, max: QoS) -> Self {
        Self(self.0 & ((1 << (max as usize * 2 + 2)) - 1))
    }

    /// Only messages with this RETAIN flag.
    #[must_use]
    pub fn with_retain(self, retain: bool) -> Self {
        Self(self.0 & if retain { 0b10_1010 } else { 0b01_0101 })
    }

    /// Whether it contains this combination.
    #[must_use]
    pub fn contains(self, qos: QoS, retain: bool) -> bool {
        self.0 & (1 << Self::index(qos, retain)) != 0
    }
}

impl fmt::Display for Operations {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for operation in Operation::ALL {
            if self.contains(operation) {
                write!(formatter, "{separator}{}", operation.name())?;
                separator = ", ";
            }
        }
        Ok(())
    }
}

impl fmt::Display for Who {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everyone => formatter.write_str("everyone"),
            Self::Anonymous => formatter.write_str("clients without a user name"),
            Self::Authenticated => formatter.write_str("clients with a user name"),
            Self::PlainNames => formatter.write_str("everyone without + or # in the name"),
            Self::User(name) => write!(formatter, "user {name:?}"),
            Self::Client(id) => write!(formatter, "the client with id {id:?}"),
            Self::Group(name) => write!(formatter, "users of group {name:?}"),
            Self::Role(name) => write!(formatter, "whoever has role {name:?}"),
            Self::Listener(name) => write!(formatter, "clients of listener {name:?}"),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.file, self.line)
    }
}

/// A rule in plain words.
impl fmt::Display for Rule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let may = match self.effect {
            Effect::Allow => "may",
            Effect::Deny => "must not",
        };
        write!(formatter, "{} {may} {} ", self.who, self.operations)?;
        match self.comparison {
            Comparison::Covers => write!(formatter, "{}", self.filter)?,
            Comparison::SameText => write!(formatter, "exactly the filter {}", self.filter)?,
        }
        let Circumstances(bits) = self.circumstances;
        match (bits & 0b10_1010 != 0, bits & 0b01_0101 != 0) {
            (true, false) => formatter.write_str(", with RETAIN")?,
            (false, true) => formatter.write_str(", without RETAIN")?,
            _ => {}
        }
        match (bits & 0b11_0000 != 0, bits & 0b1100 != 0) {
            (true, _) => {}
            (false, true) => formatter.write_str(", with QoS 0 or 1")?,
            (false, false) => formatter.write_str(", with QoS 0")?,
        }
        if self.priority != 0 {
            write!(formatter, " (priority {})", self.priority)?;
        }
        Ok(())
    }
}
