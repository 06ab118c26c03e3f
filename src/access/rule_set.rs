//! All rules together, compiled for quick decisions.
//!
//! # The model
//! A rule is for somebody ([`Who`]): everyone, anonymous or authenticated Clients, a user, a Client, a group, a role or a
//! listener. A group is a list of users. A role is a name under which rules are written once; it is given to any of the others. Of all
//! rules for a Client that apply to a request, the **first** decides; the order is by priority, then as written. If none
//! applies, the default of the operation decides: deny, except for UNSUBSCRIBE.
//!
//! # Where the corner cases of mosquitto go
//! **ACL file** (`acl_file`), read by `auth::acl_file`:
//! - `topic` lines before the first `user` are for Clients without a user name: [`Who::Anonymous`]. All others are for
//!   [`Who::User`].
//! - `read` is receive, `write` is publish, `deny` denies both. SUBSCRIBE and UNSUBSCRIBE are allowed by default, for every
//!   filter; what is received is decided for each topic. So a filter may be wider than what its Client receives.
//! - *Deny before allow*: within the lines of one user, and within the patterns, denials come first, whatever their place; this
//!   is [`Rule::priority`]. All lines of the user come before all patterns.
//! - `pattern` lines are for every Client whose name contains neither `+` nor `#` ([`Who::PlainNames`]). A value with `/` does not
//!   widen a line that allows; mosquitto lets it.
//! - Nothing applies: denied.
//!
//! **Dynamic security**: its operations are `publishClientSend` = publish, `publishClientReceive` = receive, `subscribePattern` =
//! subscribe with [`Comparison::Covers`], `subscribeLiteral` = subscribe with [`Comparison::SameText`], and the same for
//! unsubscribe. Its default access is the default of the operation, its anonymous group is the roles of
//! [`Who::Anonymous`]. Priorities of rules are [`Rule::priority`].
//!
//! # SUBSCRIBE
//! A rule *covers* a requested filter if it matches every topic that the requested filter matches; this is decided level by
//! level: `+` covers `+` and any text, `#` covers everything. A filter that only several rules together cover is denied. A
//! denial that covers only a part of a granted filter does not refuse it, but holds for each message: receiving is decided
//! for each topic, when the plan of the topic is made and when a message leaves a queue.

use std::cmp::Reverse;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::access::rule::{Comparison, Effect, Operation, Origin, Rule, Who};
use crate::access::rule_tree::{First, Question, RuleTree};
use crate::access::template::Values;

/// Rules as they were written.
#[derive(Debug, Clone, Default)]
pub struct RuleDraft {
    /// The rules, in order.
    pub rules: Vec<Rule>,
    /// Members of groups: group and user name.
    pub members: Vec<(Arc<str>, Arc<str>)>,
    /// Roles, and who has them.
    pub roles: Vec<(Who, Arc<str>)>,
    /// What holds if no rule applies, where that was written.
    pub defaults: Vec<(Operation, Effect, Origin)>,
}

/// Compiled rules.
#[derive(Debug)]
pub struct RuleSet {
    /// In the order in which they decide.
    rules: Vec<Rule>,
    numbers: HashMap<Who, usize>,
    trees: Vec<Trees>,
    groups: HashMap<Arc<str>, Vec<Arc<str>>>,
    roles: HashMap<Who, Vec<Arc<str>>>,
    defaults: [DefaultAccess; 4],
}

/// What holds if no rule applies.
#[derive(Debug, Clone)]
pub(super) struct DefaultAccess {
    pub(super) effect: Effect,
    /// Where that was written, if it was.
    pub(super) origin: Option<Origin>,
}

/// The rules for somebody.
#[derive(Debug)]
struct Trees {
    covering: RuleTree,
    same_text: RuleTree,
    has_same_text: bool,
    /// The first rule that denies receiving anything.
    first_receive_denial: u32,
}

/// The rules for one Client.
#[derive(Debug)]
pub(super) struct ClientRules {
    set: Arc<RuleSet>,
    trees: Box<[usize]>,
    values: Values,
    /// Whether every topic that does not begin with `$` is received.
    receives_everything: bool,
}

impl RuleSet {
    /// Compiles rules.
    #[must_use]
    pub fn compile(draft: RuleDraft) -> Self {
        let mut rules = draft.rules;
        rules.sort_by_key(|rule| Reverse(rule.priority));
        let mut set = Self {
            rules: Vec::new(),
            numbers: HashMap::new(),
            trees: Vec::new(),
            groups: HashMap::new(),
            roles: HashMap::new(),
            defaults: Operation::ALL.map(DefaultAccess::of),
        };
        for (rank, rule) in (0..u32::MAX).zip(&rules) {
            set.insert(rank, rule);
        }
        set.rules = rules;
        for (group, user) in draft.members {
            set.groups.entry(user).or_default().push(group);
        }
        for (who, role) in draft.roles {
            set.roles.entry(who).or_default().push(role);
        }
        for (operation, effect, origin) in draft.defaults {
            set.defaults[operation as usize] = DefaultAccess { effect, origin: Some(origin) };
        }
        set
    }

    /// Everything in plain words: rules in the order in which they decide, then what holds if none applies, groups and roles.
    #[must_use]
    pub fn describe(&self) -> Vec<String> {
        let rules = self.rules.iter().map(|rule| format!("{}: {rule}", rule.origin));
        let defaults = Operation::ALL.into_iter().map(|operation| {
            let DefaultAccess { effect, origin } = &self.defaults[operation as usize];
            let verb = match effect {
                Effect::Allow => "allowed",
                Effect::Deny => "denied",
            };
            let origin = origin.as_ref().map(|origin| format!("{origin}: ")).unwrap_or_default();
            format!("{origin}if no rule applies, {} is {verb}", operation.name())
        });
        let groups = self
            .groups
            .iter()
            .map(|(user, groups)| format!("user {user:?} is in {}", groups.join(", ")));
        let roles = self.roles.iter().map(|(who, roles)| format!("{who}: {}", roles.join(", ")));
        let mut lists: Vec<_> = groups.collect();
        lists.extend(roles.map(|list| format!("roles of {list}")));
        lists.sort();
        rules.chain(defaults).chain(lists).collect()
    }

    /// The rules, in the order in which they decide.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    fn insert(&mut self, rank: u32, rule: &Rule) {
        let number = *self.numbers.entry(rule.who.clone()).or_insert_with(|| {
            self.trees.push(Trees::new());
            self.trees.len() - 1
        });
        let trees = &mut self.trees[number];
        match rule.comparison {
            Comparison::Covers => trees.covering.insert(rank, rule),
            Comparison::SameText => {
                trees.has_same_text = true;
                trees.same_text.insert(rank, rule);
            }
        }
        if rule.effect == Effect::Deny && rule.operations.contains(Operation::Receive) {
            trees.first_receive_denial = trees.first_receive_denial.min(rank);
        }
    }

    /// The rules for a Client with these attributes; its groups are added.
    pub(super) fn for_client(self: &Arc<Self>, mut values: Values) -> ClientRules {
        let user = values.user_name.clone();
        let groups = user.as_ref().and_then(|user| self.groups.get(user));
        values.groups.extend(groups.into_iter().flatten().cloned());
        let mut who = vec![Who::Everyone, Who::Client(Arc::clone(&values.client_id))];
        match user {
            Some(user) => who.extend([Who::Authenticated, Who::User(user)]),
            None => who.push(Who::Anonymous),
        }
        if values.has_plain_names() {
            who.push(Who::PlainNames);
        }
        who.extend(values.listener.iter().cloned().map(Who::Listener));
        who.extend(values.groups.iter().cloned().map(Who::Group));
        let roles = who.iter().filter_map(|who| self.roles.get(who)).flatten();
        let roles: Vec<_> = roles.cloned().map(Who::Role).collect();
        who.extend(roles);
        let mut trees: Vec<_> =
            who.iter().filter_map(|who| self.numbers.get(who)).copied().collect();
        trees.sort_unstable();
        trees.dedup();
        let set = Arc::clone(self);
        let mut rules =
            ClientRules { set, trees: trees.into(), values, receives_everything: false };
        rules.receives_everything = rules.is_never_denied_to_receive();
        rules
    }
}

impl DefaultAccess {
    fn of(operation: Operation) -> Self {
        let effect = match operation {
            Operation::Publish | Operation::Receive | Operation::Subscribe => Effect::Deny,
            Operation::Unsubscribe => Effect::Allow,
        };
        Self { effect, origin: None }
    }
}

impl Trees {
    fn new() -> Self {
        Self {
            covering: RuleTree::default(),
            same_text: RuleTree::default(),
            has_same_text: false,
            first_receive_denial: u32::MAX,
        }
    }
}

impl Values {
    fn has_plain_names(&self) -> bool {
        let names = self.user_name.iter().chain([&self.client_id]);
        names.into_iter().all(|name| !name.contains(['+', '#']))
    }
}

impl ClientRules {
    /// The first rule that applies, for each combination of QoS and RETAIN.
    pub(super) fn first(&self, operation: Operation, topic: &str) -> First {
        let question = Question { operation, topic, values: &self.values };
        let mut first = First::default();
        for &number in &self.trees {
            let Some(trees) = self.set.trees.get(number) else { continue };
            trees.covering.search(&question, &mut first);
            if trees.has_same_text {
                trees.same_text.search_text(&question, &mut first);
            }
        }
        first
    }

    /// A rule that was found.
    pub(super) fn rule(&self, rank: u32) -> Option<&Rule> {
        self.set.rules.get(rank as usize)
    }

    /// What holds if no rule applies.
    pub(super) fn default_access(&self, operation: Operation) -> &DefaultAccess {
        &self.set.defaults[operation as usize]
    }

    /// What the rule of this rank, or the default, does.
    pub(super) fn effect(&self, operation: Operation, rank: u32) -> Effect {
        let rule = self.rule(rank).map(|rule| rule.effect);
        rule.unwrap_or(self.default_access(operation).effect)
    }

    /// Whether a message of this topic may be received.
    pub(super) fn may_receive(&self, topic: &str) -> bool {
        if self.receives_everything && !topic.starts_with('$') {
            return true;
        }
        let First([rank, ..]) = self.first(Operation::Receive, topic);
        self.effect(Operation::Receive, rank) == Effect::Allow
    }

    fn is_never_denied_to_receive(&self) -> bool {
        let trees = self.trees.iter().filter_map(|&number| self.set.trees.get(number));
        let denial = trees.map(|trees| trees.first_receive_denial).min().unwrap_or(u32::MAX);
        let question = Question { operation: Operation::Receive, topic: "#", values: &self.values };
        let mut first = First::default();
        for &number in &self.trees {
            if let Some(trees) = self.set.trees.get(number) {
                trees.covering.search(&question, &mut first);
            }
        }
        let First([rank, ..]) = first;
        // No denial comes before what holds for everything.
        rank <= denial && self.effect(Operation::Receive, rank) == Effect::Allow
    }
}

#[cfg(test)]
mod tests;
