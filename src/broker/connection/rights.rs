//! The rights of a Client on a topic: first reserved topics, then access rules.

use std::sync::Arc;

use crate::access::Client;
use crate::broker::connection::authenticate::OwnedWill;
use crate::broker::connection::publish::Refusal;
use crate::broker::connection::{ClientConnection, Identity};
use crate::packet::QoS;
use crate::packet::reason_code::ReasonCode;
use crate::session::access_rights::PublishRights;
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
        if self.identity.policies.rights == Rights::All {
            return None;
        }
        if !self.is_open(client_id, topic) {
            return Some(Refusal::NotAuthorized);
        }
        match self.identity.rights.as_ref()?.publish(topic) {
            PublishRights::ALL => None,
            PublishRights::NONE => Some(Refusal::NotAuthorized),
            rights => Some(Refusal::Limited(rights)),
        }
    }

    /// Why this Client may not have this Will Message, if so.
    pub(super) fn will_refusal(&self, client_id: &str, will: &OwnedWill) -> Option<Refusal> {
        match self.publish_refusal(client_id, &will.topic)? {
            Refusal::Limited(rights) if rights.contains(will.qos, will.retain) => None,
            refusal => Some(refusal),
        }
    }

    /// The QoS that a Subscription to `filter` (its outside name, without `$share/…/`) gets.
    ///
    /// # Errors
    /// The Reason Code if this Client may not subscribe.
    pub(super) fn allowed_qos(&self, filter: &str, requested: QoS) -> Result<QoS, ReasonCode> {
        let Identity { peer, policies, .. } = &self.identity;
        if policies.rights == Rights::All {
            return Ok(requested);
        }
        let seen = self.as_seen(filter);
        let is_open = match reserved_root(seen) {
            // It describes all Clients, so it is not visible inside a mount point.
            Some("SYS") => peer.listener.mount_point.is_none(),
            Some(_) => return Err(ReasonCode::TopicFilterInvalid),
            None => !seen.starts_with('$') || self.broker.limits().dollar_topics,
        };
        let allowed = match &self.identity.rights {
            Some(rights) => rights.subscribe(filter, requested),
            None => Some(requested),
        };
        allowed.filter(|_| is_open).ok_or(ReasonCode::NotAuthorized)
    }

    /// Whether this Client may end its Subscription to `filter`.
    pub(super) fn may_unsubscribe(&self, filter: &str) -> bool {
        let rights = self.identity.rights.as_ref();
        rights.is_none_or(|rights| rights.unsubscribe(filter))
    }

    /// Finds out the rights of this Client, which was authenticated.
    pub(super) fn find_rights(&mut self, client_id: &Arc<str>) {
        let Identity { peer, principal, policies, .. } = &self.identity;
        let client = Client { principal, client_id, peer: Some(peer) };
        self.identity.rights = match policies.rights {
            Rights::All => None,
            Rights::Granted => self.broker.rights(&client),
        };
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
