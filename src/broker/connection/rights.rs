//! The rights of a Client on a topic: first reserved topics, then the authority.

use crate::access::{Access, Action, Decision};
use crate::broker::connection::publish::Refusal;
use crate::broker::connection::{ClientConnection, Identity};
use crate::packet::reason_code::ReasonCode;
use crate::session::policies::{Rights, States};
use crate::topic::reserved::{connection_state, reserved_root};

impl ClientConnection {
    /// Why this Client may not publish to `topic` (its outside name), if so; called once for each topic.
    pub(super) fn publish_refusal(&self, client_id: &str, topic: &str) -> Option<Refusal> {
        let limits = self.broker.limits();
        if topic.split('/').count() > limits.max_topic_levels
            || topic.len() > limits.max_topic_bytes
        {
            return Some(Refusal::TopicTooLong);
        }
        let is_allowed = self.identity.policies.rights == Rights::All
            || (self.is_open(client_id, topic)
                && self.is_allowed(client_id, Action::Publish(topic)));
        (!is_allowed).then_some(Refusal::NotAuthorized)
    }

    /// Why this Client may not subscribe to `filter` (its outside name, without `$share/…/`), if so.
    pub(super) fn subscription_refusal(&self, client_id: &str, filter: &str) -> Option<ReasonCode> {
        let Identity { peer, policies, .. } = &self.identity;
        if policies.rights == Rights::All {
            return None;
        }
        let seen = self.as_seen(filter);
        let is_open = match reserved_root(seen) {
            // It describes all Clients, so it is not visible inside a mount point.
            Some("SYS") => peer.listener.mount_point.is_none(),
            Some(_) => return Some(ReasonCode::TopicFilterInvalid),
            None => !seen.starts_with('$') || self.broker.limits().dollar_topics,
        };
        let is_allowed = is_open && self.is_allowed(client_id, Action::Subscribe(filter));
        (!is_allowed).then_some(ReasonCode::NotAuthorized)
    }

    /// The decision of the authority.
    fn is_allowed(&self, client_id: &str, action: Action<'_>) -> bool {
        let Identity { peer, principal, .. } = &self.identity;
        let access = Access { principal, client_id, peer, action };
        self.broker.authority().authorize(&access) == Decision::Allowed
    }

    /// Whether Clients may publish to this topic. Reserved topics are closed, so that nobody forges the broker's metrics;
    /// but Clients that connect other brokers publish there whether they are connected, also with a Will Message.
    fn is_open(&self, client_id: &str, topic: &str) -> bool {
        let seen = self.as_seen(topic);
        if !seen.starts_with('$') {
            return true;
        }
        let Identity { peer, policies, .. } = &self.identity;
        match (reserved_root(seen), connection_state(seen)) {
            (None, _) => self.broker.limits().dollar_topics,
            (Some(_), Some(name)) if peer.listener.mount_point.is_none() => match policies.states {
                States::None => false,
                States::Own => name == client_id,
                States::All => true,
            },
            (Some(_), _) => false,
        }
    }

    /// The inside name of a topic, as the Client sees it.
    fn as_seen<'a>(&self, topic: &'a str) -> &'a str {
        let mount_point = self.identity.peer.listener.mount_point.as_ref();
        mount_point.and_then(|mount| mount.inside(topic)).unwrap_or(topic)
    }
}
