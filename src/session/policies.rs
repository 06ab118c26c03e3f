//! Policies: behaviour that can differ between Sessions. Ordinary Clients have the default of each policy; the shell
//! sets others for Clients that pass messages on to another broker, and for its own parts.

use crate::packet::subscribe::SubscriptionOptions;

/// The policies of a Session, decided at CONNECT and in force until the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policies {
    /// Whether the Client receives its own messages.
    pub(crate) own_messages: OwnMessages,
    /// The RETAIN flag in messages to the Client.
    pub(crate) retain: RetainFlag,
    /// Whether messages that the Client forwards carry a trail.
    pub(crate) trail: Trail,
    /// How to recognise messages from the Client that were here before.
    pub(crate) recognition: Recognition,
    /// Which topics the Client may use.
    pub(crate) rights: Rights,
    /// The connection state topics that the Client may publish to, in addition to its rights.
    pub(crate) states: States,
    /// Whether the limits for Clients apply.
    pub(crate) limits: LimitPolicy,
}

/// Whether a Client receives its own messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum OwnMessages {
    /// Unless its Subscription says No Local. [MQTT-3.8.3-3]
    #[default]
    AsSubscribed,
    /// Never, as if each Subscription said No Local.
    Withheld,
}

/// The RETAIN flag in messages to a Client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum RetainFlag {
    /// As its Subscription says. [MQTT-3.3.1-12] [MQTT-3.3.1-13]
    #[default]
    AsSubscribed,
    /// As it was published.
    AsPublished,
}

/// Whether messages that a Client forwards to another broker carry a trail of the brokers they passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Trail {
    /// They do, or are not forwarded.
    #[default]
    Kept,
    /// They do not: the shell is told about each message before the Client can get it, so that it can recognise it
    /// later.
    Lost,
}

/// How to recognise messages from a Client that were here before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Recognition {
    /// By their properties: a message without properties is new.
    #[default]
    ByTrail,
    /// By topic and payload as well: every message is checked.
    ByContent,
    /// The Client checks this itself.
    Trusted,
}

/// Which topics a Client may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Rights {
    /// Topics that are not reserved, if the authority allows them.
    #[default]
    Granted,
    /// All topics, including reserved ones.
    All,
}

/// Which connection state topics ([`crate::topic::reserved::connection_state`]) a Client may publish to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum States {
    /// None.
    #[default]
    None,
    /// The one with its Client Identifier.
    Own,
    /// Any.
    All,
}

/// Whether the limits for Clients apply: number and lifetime of Sessions, Keep Alive, and length of the Client
/// Identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum LimitPolicy {
    /// They apply.
    #[default]
    Applied,
    /// They do not apply, and the Client does not count towards them.
    Exempt,
}

impl Policies {
    /// The effective Subscription Options for the requested ones.
    #[must_use]
    pub(crate) fn subscription_options(self, asked: SubscriptionOptions) -> SubscriptionOptions {
        SubscriptionOptions {
            no_local: asked.no_local || self.own_messages == OwnMessages::Withheld,
            retain_as_published: asked.retain_as_published
                || self.retain == RetainFlag::AsPublished,
            ..asked
        }
    }
}
