//! Explains what a Client may do, and which access rule says so.

use std::sync::Arc;

use crate::access::client_rights::{ClientRights, Explanation};
use crate::access::rule::Operation;
use crate::access::{Client, ListenerRules, Peer, Principal};
use crate::control::command::{AskedOperation, CommandError, ExplainQuery, ExplainedAccess};
use crate::node::handle::NodeHandle;
use crate::packet::QoS;
use crate::topic::filter::TopicFilter;
use crate::topic::name::TopicName;
use crate::topic::reserved::reserved_root;

impl NodeHandle {
    /// Whether the Client may do that, and why.
    ///
    /// # Errors
    /// [`CommandError::Topic`] if it is no Topic Name or Topic Filter.
    pub(super) fn explain(&self, query: &ExplainQuery) -> Result<ExplainedAccess, CommandError> {
        let operation = match query.operation {
            AskedOperation::Publish => Operation::Publish,
            AskedOperation::Receive => Operation::Receive,
            AskedOperation::Subscribe => Operation::Subscribe,
            AskedOperation::Unsubscribe => Operation::Unsubscribe,
        };
        let topic = checked_topic(operation, &query.topic)?;
        if let Some(explained) = self.explain_reserved(operation, &topic) {
            return Ok(explained);
        }
        let Some(rules) = &self.rules else {
            let reason = "no access rules are configured: everything is allowed".to_owned();
            return Ok(ExplainedAccess { allowed: true, reason, rule: None });
        };
        let qos = match query.qos {
            0 => QoS::AtMostOnce,
            1 => QoS::AtLeastOnce,
            _ => QoS::ExactlyOnce,
        };
        let principal = Principal { user_name: query.user_name.as_deref().map(Into::into) };
        let peer = self.peer_of(&query.client_id);
        let client_id = query.client_id.as_str().into();
        let client = Client { principal: &principal, client_id: &client_id, peer: peer.as_ref() };
        let rights = ClientRights::new(rules.rules(), &client);
        let Explanation { is_allowed: allowed, rule, reason } =
            rights.explain(operation, &topic, qos, query.retain);
        Ok(ExplainedAccess { allowed, reason, rule: rule.map(|rule| rule.origin.to_string()) })
    }

    /// What the broker decides without rules.
    fn explain_reserved(&self, operation: Operation, topic: &str) -> Option<ExplainedAccess> {
        let root = reserved_root(topic);
        let reason = match (operation, root) {
            (Operation::Publish, Some(root)) => {
                format!("topics below ${root} are the broker's own: clients do not publish there")
            }
            (Operation::Subscribe, Some(root)) if root != "SYS" => {
                format!("topics below ${root} are reserved")
            }
            (Operation::Publish | Operation::Subscribe, None)
                if topic.starts_with('$') && !self.broker.limits().dollar_topics =>
            {
                "topics that begin with $ are closed by [protocol] dollar_topics".to_owned()
            }
            _ => return None,
        };
        Some(ExplainedAccess { allowed: false, reason, rule: None })
    }

    /// Where this Client comes from, as far as that is known: its listener, if it is connected.
    fn peer_of(&self, client_id: &str) -> Option<Peer> {
        let session = self.broker.registry().find(client_id)?;
        let outbound = session.outbound();
        let origin = &outbound.link()?.origin;
        let rules = ListenerRules { name: origin.listener().into(), ..ListenerRules::default() };
        let address = origin.address();
        Some(Peer { address, listener: Arc::new(rules), certificate_name: None })
    }
}

/// The topic, without `$share/…/`.
fn checked_topic(operation: Operation, topic: &str) -> Result<String, CommandError> {
    let wrong = |problem: String| CommandError::Topic { topic: topic.to_owned(), problem };
    match operation {
        Operation::Publish | Operation::Receive => {
            TopicName::parse(topic).map_err(|error| wrong(error.to_string()))?;
            Ok(topic.to_owned())
        }
        Operation::Subscribe | Operation::Unsubscribe => {
            let parsed = TopicFilter::parse(topic).map_err(|error| wrong(error.to_string()))?;
            Ok(parsed.filter.to_string())
        }
    }
}
