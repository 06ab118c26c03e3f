//! What the broker does differently for the Session of one Client. Ordinary Clients have the default of each policy; the
//! shell sets others for those that stand between brokers, and for its own parts.

use crate::packet::subscribe::SubscriptionOptions;

/// The policies of a Session, decided at CONNECT and in force until the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policies {
    /// Whether the Client is sent what it published itself.
    pub own_messages: OwnMessages,
    /// RETAIN in the copies that the Client is sent.
    pub retain: RetainFlag,
    /// Whether messages that the Client hands on say where they have been.
    pub trail: Trail,
    /// How messages from the Client are recognised that have been here before.
    pub recognition: Recognition,
    /// Which topics the Client may use.
    pub rights: Rights,
    /// The topics of connection states that the Client may publish to, beyond its rights.
    pub states: States,
    /// Whether the limits for Clients hold.
    pub limits: LimitPolicy,
}

/// Whether a Client is sent what it published itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OwnMessages {
    /// Unless its Subscription says No Local. [MQTT-3.8.3-3]
    #[default]
    AsSubscribed,
    /// Never, as if each Subscription said No Local.
    Withheld,
}

/// RETAIN in the copies that a Client is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RetainFlag {
    /// As its Subscription says. [MQTT-3.3.1-12] [MQTT-3.3.1-13]
    #[default]
    AsSubscribed,
    /// As it was published.
    AsPublished,
}

/// Whether messages that a Client hands on to another broker say where they have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Trail {
    /// They do, or go no further.
    #[default]
    Kept,
    /// They do not: the shell is told of each before the Client can have it, to know it again.
    Lost,
}

/// How messages from a Client are recognised that have been here before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Recognition {
    /// By their properties: one without any is new.
    #[default]
    ByTrail,
    /// By their topic and payload as well: each message is looked at.
    ByContent,
    /// The Client has seen to it.
    Trusted,
}

/// Which topics a Client may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rights {
    /// Those that are not the broker's own, if the authority allows it.
    #[default]
    Granted,
    /// All, the broker's own included.
    All,
}

/// Which topics of connection states ([`crate::topic::reserved::connection_state`]) a Client may publish to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum States {
    /// None.
    #[default]
    None,
    /// The one that is named like its Client Identifier.
    Own,
    /// Any.
    All,
}

/// Whether a Client is held to the limits for Clients: how many Sessions there are, how long they live, Keep Alive, and
/// the length of a Client Identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LimitPolicy {
    /// It is.
    #[default]
    Applied,
    /// It is not, and does not count.
    Exempt,
}

impl Policies {
    /// The Subscription Options in force for those asked for.
    #[must_use]
    pub fn subscription_options(self, asked: SubscriptionOptions) -> SubscriptionOptions {
        SubscriptionOptions {
            no_local: asked.no_local || self.own_messages == OwnMessages::Withheld,
            retain_as_published: asked.retain_as_published
                || self.retain == RetainFlag::AsPublished,
            ..asked
        }
    }
}
