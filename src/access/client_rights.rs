//! What one Client may do, by the rules in force.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use crate::access::Client;
use crate::access::rule::{Circumstances, Effect, Operation, Rule};
use crate::access::rule_set::{ClientRules, RuleSet};
use crate::access::template::Values;
use crate::packet::QoS;
use crate::session::access_rights::{AccessRights, PublishRights};

/// The rules in force, which can be replaced at any time.
#[derive(Debug)]
pub struct Rules {
    set: RwLock<Arc<RuleSet>>,
    /// Rises with each replacement.
    revision: AtomicU64,
    hasher: foldhash::quality::RandomState,
}

/// The rights of one Client. They follow the rules in force.
#[derive(Debug)]
pub struct ClientRights {
    rules: Arc<Rules>,
    values: Values,
    identity: u64,
    current: Mutex<(u64, Arc<ClientRules>)>,
}

/// Why something is allowed or denied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Whether it is allowed.
    pub is_allowed: bool,
    /// The rule that decides, if one applies.
    pub rule: Option<Rule>,
    /// Why, in plain words.
    pub reason: String,
}

impl Rules {
    /// Puts rules in force.
    #[must_use]
    pub fn new(set: RuleSet) -> Self {
        Self {
            set: RwLock::new(Arc::new(set)),
            revision: AtomicU64::new(0),
            hasher: foldhash::quality::RandomState::default(),
        }
    }

    /// Replaces all rules. From now on no decision is made by the old ones.
    pub fn replace(&self, set: RuleSet) {
        let old = std::mem::replace(&mut *self.set.write(), Arc::new(set));
        self.revision.fetch_add(1, Ordering::Release);
        drop(old);
    }

    /// The rules in force.
    #[must_use]
    pub fn current(&self) -> Arc<RuleSet> {
        Arc::clone(&self.set.read())
    }

    /// Rises with each replacement.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }
}

impl ClientRights {
    /// The rights of a Client.
    #[must_use]
    pub fn new(rules: &Arc<Rules>, client: &Client<'_>) -> Self {
        let values = Values {
            user_name: client.principal.user_name.clone(),
            client_id: Arc::clone(client.client_id),
            groups: Vec::new(),
            certificate: client.peer.and_then(|peer| peer.certificate_name.clone()),
            listener: client.peer.map(|peer| peer.listener.name.as_str().into()),
        };
        let revision = rules.revision();
        let current = Arc::new(rules.current().for_client(values.clone()));
        Self {
            rules: Arc::clone(rules),
            identity: rules.hasher.hash_one(&values),
            values,
            current: Mutex::new((revision, current)),
        }
    }

    /// The rules for this Client that are in force.
    fn current(&self) -> Arc<ClientRules> {
        // Before the rules, so that rules that change meanwhile are looked up again.
        let revision = self.rules.revision();
        let mut current = self.current.lock();
        if current.0 != revision {
            *current = (revision, Arc::new(self.rules.current().for_client(self.values.clone())));
        }
        Arc::clone(&current.1)
    }

    /// Which rule decides, and why.
    #[must_use]
    pub fn explain(
        &self,
        operation: Operation,
        topic: &str,
        qos: QoS,
        retain: bool,
    ) -> Explanation {
        let rules = self.current();
        let rank = rules.first(operation, topic).0[Circumstances::index(qos, retain)];
        let is_allowed = rules.effect(operation, rank) == Effect::Allow;
        let rule = rules.rule(rank).cloned();
        let operation_name = operation.name();
        let reason = match (&rule, &rules.default_access(operation).origin) {
            (Some(rule), _) => format!("{}: {rule}", rule.origin),
            (None, Some(origin)) => {
                format!("{origin}: no rule applies, and this is the default for {operation_name}")
            }
            (None, None) => {
                let default = if is_allowed { "allowed" } else { "denied" };
                format!("no rule applies, and {operation_name} is {default} by default")
            }
        };
        Explanation { is_allowed, rule, reason }
    }
}

impl AccessRights for ClientRights {
    fn publish(&self, topic: &str) -> PublishRights {
        let rules = self.current();
        let first = rules.first(Operation::Publish, topic);
        let mut rights = PublishRights::NONE;
        for (index, &rank) in first.0.iter().enumerate() {
            if rules.effect(Operation::Publish, rank) == Effect::Allow {
                rights = rights.with(index);
            }
        }
        rights
    }

    fn subscribe(&self, filter: &str, requested: QoS) -> Option<QoS> {
        let rules = self.current();
        let first = rules.first(Operation::Subscribe, filter);
        let is_allowed = |qos: &QoS| {
            let rank = first.0[Circumstances::index(*qos, false)];
            *qos <= requested && rules.effect(Operation::Subscribe, rank) == Effect::Allow
        };
        [QoS::ExactlyOnce, QoS::AtLeastOnce, QoS::AtMostOnce].into_iter().find(is_allowed)
    }

    fn unsubscribe(&self, filter: &str) -> bool {
        let rules = self.current();
        let rank = rules.first(Operation::Unsubscribe, filter).0[0];
        rules.effect(Operation::Unsubscribe, rank) == Effect::Allow
    }

    fn receive(&self, topic: &str) -> bool {
        self.current().may_receive(topic)
    }

    fn identity(&self) -> u64 {
        self.identity
    }
}
