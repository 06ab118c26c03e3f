//! The compiled rules against a reference that goes through all rules in order, and each corner case by name.

use proptest::prelude::*;

use super::*;
use crate::access::rule::{CIRCUMSTANCES, Circumstances, Operations};
use crate::access::template::{Level, Placeholders, Safety, Template};
use crate::topic::filter::TopicFilter;
use crate::topic::name::TopicName;

fn rule(who: Who, effect: Effect, operations: Operations, filter: &str) -> Rule {
    Rule {
        who,
        effect,
        operations,
        filter: Template::parse(filter, Placeholders::All).unwrap(),
        comparison: Comparison::Covers,
        circumstances: Circumstances::ALL,
        priority: 0,
        origin: Origin { file: "test".into(), line: 1 },
    }
}

fn values(user: Option<&str>, client_id: &str) -> Values {
    let user_name = user.map(Into::into);
    let listener = Some("plain".into());
    Values { user_name, client_id: client_id.into(), listener, ..Values::default() }
}

/// The filters that a template stands for, for one Client, each with whether its values are safe.
fn expand(template: &Template, values: &Values) -> Vec<(String, Safety)> {
    let groups: Vec<_> = values.groups.iter().map(|group| Some(&**group)).chain([None]).collect();
    let one = |group: Option<&str>| {
        let mut all_safe = Safety::Safe;
        let mut levels = Vec::new();
        for (index, level) in template.levels.iter().enumerate() {
            levels.push(match level {
                Level::Text(text) => text.to_string(),
                Level::Single => "+".into(),
                Level::Multi => "#".into(),
                Level::Composed(parts) => {
                    let (text, safety) = values.substitute(parts, group, index == 0)?;
                    if safety == Safety::Unsafe {
                        all_safe = Safety::Unsafe;
                    }
                    text
                }
            });
        }
        Some((levels.join("/"), all_safe))
    };
    let mut filters: Vec<_> = groups.into_iter().filter_map(one).collect();
    filters.dedup();
    filters
}

/// Whether a filter covers another, level by level.
fn covers(filter: &str, requested: &str) -> bool {
    if requested.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut requested = requested.split('/');
    for level in filter.split('/') {
        match (level, requested.next()) {
            ("#", _) => return true,
            ("+", Some(asked)) if asked != "#" => {}
            (level, Some(asked)) if level == asked => {}
            _ => return false,
        }
    }
    requested.next().is_none()
}

impl ClientRules {
    /// What the first rule that applies does, found without the tree.
    fn reference(&self, draft: &RuleDraft, operation: Operation, topic: &str) -> [Effect; 6] {
        let mut rules: Vec<_> = draft.rules.iter().collect();
        rules.sort_by_key(|rule| Reverse(rule.priority));
        std::array::from_fn(|circumstance| {
            let first = rules.iter().find(|rule| {
                rule.operations.contains(operation)
                    && rule.circumstances.0 & (1 << circumstance) != 0
                    && self.is_for(draft, &rule.who)
                    && expand(&rule.filter, &self.values).iter().any(|(filter, safety)| {
                        let may_apply = *safety == Safety::Safe || rule.effect == Effect::Deny;
                        may_apply
                            && match rule.comparison {
                                Comparison::Covers => covers(filter, topic),
                                Comparison::SameText => filter == topic,
                            }
                    })
            });
            let default = draft.defaults.iter().rfind(|(of, ..)| *of == operation);
            match (first, default) {
                (Some(rule), _) => rule.effect,
                (None, Some((_, effect, _))) => *effect,
                (None, None) => DefaultAccess::of(operation).effect,
            }
        })
    }

    fn is_for(&self, draft: &RuleDraft, who: &Who) -> bool {
        let Values { user_name, client_id, listener, groups, .. } = &self.values;
        match who {
            Who::Everyone => true,
            Who::Anonymous => user_name.is_none(),
            Who::Authenticated => user_name.is_some(),
            Who::PlainNames => {
                let names = format!("{}{client_id}", user_name.as_deref().unwrap_or_default());
                !names.contains(['+', '#'])
            }
            Who::User(name) => user_name.as_ref() == Some(name),
            Who::Client(id) => client_id == id,
            Who::Group(group) => groups.contains(group),
            Who::Listener(name) => listener.as_ref() == Some(name),
            Who::Role(role) => {
                let given = draft.roles.iter().filter(|(_, given)| given == role);
                given.into_iter().any(|(who, _)| self.is_for(draft, who))
            }
        }
    }
}

fn who() -> impl Strategy<Value = Who> {
    let name = || prop_oneof![Just("ann"), Just("a/b"), Just("b+")].prop_map(Arc::from);
    let group = || prop_oneof![Just("g1"), Just("g2")].prop_map(Arc::from);
    prop_oneof![
        Just(Who::Everyone),
        Just(Who::Anonymous),
        Just(Who::Authenticated),
        Just(Who::PlainNames),
        name().prop_map(Who::User),
        name().prop_map(Who::Client),
        group().prop_map(Who::Group),
        group().prop_map(Who::Role),
        Just(Who::Listener("plain".into())),
    ]
}

fn filter() -> impl Strategy<Value = String> {
    let level = "a|b|\\+||%u|%c|%g|x%c|%g%u|\\$a|%\\{listener\\}";
    or_everything(
        (prop::collection::vec(level, 1..5), any::<bool>())
            .prop_map(|(levels, multi)| levels.join("/") + if multi { "/#" } else { "" }),
    )
}

fn or_everything(filter: impl Strategy<Value = String> + 'static) -> impl Strategy<Value = String> {
    prop_oneof![9 => filter, 1 => Just("#".to_owned())].prop_filter("empty", |it| !it.is_empty())
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let operations = prop_oneof![
        Just(Operations::ALL),
        Just(Operations::from([Operation::Publish])),
        Just(Operations::from([Operation::Receive])),
        Just(Operations::from([Operation::Subscribe, Operation::Unsubscribe])),
    ];
    let comparison = prop_oneof![4 => Just(Comparison::Covers), 1 => Just(Comparison::SameText)];
    let circumstances = prop_oneof![4 => Just(63_u8), 1 => any::<u8>().prop_map(|bits| bits & 63)];
    let effect = prop_oneof![Just(Effect::Allow), Just(Effect::Deny)];
    let priority = prop_oneof![3 => Just(0), 1 => -1..2_i32];
    (who(), effect, operations, filter(), comparison, circumstances, priority).prop_map(
        |(who, effect, operations, filter, comparison, circumstances, priority)| Rule {
            comparison,
            circumstances: Circumstances(circumstances),
            priority,
            ..rule(who, effect, operations, &filter)
        },
    )
}

fn draft() -> impl Strategy<Value = RuleDraft> {
    let group = || prop_oneof![Just("g1"), Just("g2")].prop_map(Arc::<str>::from);
    let members = prop::collection::vec((group(), Just(Arc::<str>::from("ann"))), 0..3);
    let holder = who().prop_filter("a role has no roles", |who| !matches!(who, Who::Role(_)));
    let roles = prop::collection::vec((holder, group()), 0..3);
    (prop::collection::vec(any_rule(), 0..10), members, roles, any::<bool>()).prop_map(
        |(rules, members, roles, opens)| {
            let origin = Origin { file: "test".into(), line: 0 };
            let defaults = vec![(Operation::Receive, Effect::Allow, origin)];
            RuleDraft { rules, members, roles, defaults: if opens { defaults } else { vec![] } }
        },
    )
}

fn client() -> impl Strategy<Value = Values> {
    let name = || prop_oneof![Just("ann"), Just("a"), Just("a/b"), Just("b+"), Just("$a")];
    (prop::option::of(name()), name()).prop_map(|(user, client)| values(user, client))
}

/// Topic Names and Topic Filters.
fn topics() -> impl Strategy<Value = Vec<String>> {
    let level = "a|b|\\+||ann|xann|plain|\\$a|g1|g1ann";
    let topic = (prop::collection::vec(level, 1..6), prop::bool::weighted(0.2))
        .prop_map(|(levels, multi)| levels.join("/") + if multi { "/#" } else { "" });
    prop::collection::vec(or_everything(topic), 4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn the_tree_decides_as_the_reference_does(
        draft in draft(),
        client in client(),
        topics in topics(),
    ) {
        let rules = Arc::new(RuleSet::compile(draft.clone())).for_client(client);
        for topic in &topics {
            for operation in Operation::ALL {
                let First(ranks) = rules.first(operation, topic);
                let effects = ranks.map(|rank| rules.effect(operation, rank));
                let expected = rules.reference(&draft, operation, topic);
                prop_assert_eq!(effects, expected, "{:?} {} {:?}", operation, topic, draft);
            }
            if !topic.contains(['+', '#']) {
                let expected = rules.reference(&draft, Operation::Receive, topic)[0];
                prop_assert_eq!(rules.may_receive(topic), expected == Effect::Allow);
            }
        }
    }
}

proptest! {
    /// Covering is sound: there is no topic that matches the requested filter and not the rule's.
    #[test]
    fn a_covered_filter_matches_nothing_else(
        filter in filter(),
        requested in topics(),
        topics in prop::collection::vec(topics(), 30),
    ) {
        let client = values(Some("ann"), "a");
        let all = rule(Who::Everyone, Effect::Allow, Operations::ALL, &filter);
        let draft = RuleDraft { rules: vec![all], ..RuleDraft::default() };
        let rules = Arc::new(RuleSet::compile(draft)).for_client(client);
        for requested in requested {
            let parsed = TopicFilter::parse(&requested).unwrap().filter;
            let First([rank, ..]) = rules.first(Operation::Subscribe, &requested);
            let topics = topics.iter().flatten().filter(|topic| !topic.contains(['+', '#']));
            for topic in topics.filter(|topic| parsed.matches(&TopicName::parse(topic).unwrap())) {
                let First([matching, ..]) = rules.first(Operation::Receive, topic);
                prop_assert!(rank > 0 || matching == 0, "{} {} {}", filter, requested, topic);
            }
        }
    }
}

fn decide(draft: &RuleDraft, client: Values, operation: Operation, topic: &str) -> bool {
    let rules = Arc::new(RuleSet::compile(draft.clone())).for_client(client);
    let First([rank, ..]) = rules.first(operation, topic);
    rules.effect(operation, rank) == Effect::Allow
}

#[test]
fn a_value_never_widens_a_rule() {
    for (filter, topic) in [("%u/#", "a/b/x"), ("x/%c", "x/+"), ("x/%c", "x/#"), ("%u", "$SYS")] {
        let allow = rule(Who::Everyone, Effect::Allow, Operations::ALL, filter);
        let draft = RuleDraft { rules: vec![allow], ..RuleDraft::default() };
        for name in ["a/b", "+", "#", "$SYS", "a\0"] {
            for operation in [Operation::Publish, Operation::Subscribe] {
                assert!(!decide(&draft, values(Some(name), name), operation, topic), "{name:?}");
            }
        }
    }
    // Nobody escapes a denial.
    let rules = vec![
        rule(Who::Everyone, Effect::Deny, Operations::ALL, "x/%u/#"),
        rule(Who::Everyone, Effect::Allow, Operations::ALL, "#"),
    ];
    let draft = RuleDraft { rules, ..RuleDraft::default() };
    assert!(!decide(&draft, values(Some("a/b"), "c"), Operation::Publish, "x/a/b/y"));
    assert!(decide(&draft, values(Some("a/b"), "c"), Operation::Publish, "x/a/y"));
}

/// Two groups of one user do not mix.
#[test]
fn a_group_is_the_same_in_all_levels() {
    let allow = rule(Who::Everyone, Effect::Allow, Operations::ALL, "%g/%g");
    let draft = RuleDraft {
        rules: vec![allow],
        members: vec![("g1".into(), "ann".into()), ("g2".into(), "ann".into())],
        ..RuleDraft::default()
    };
    for (topic, is_allowed) in
        [("g1/g1", true), ("g2/g2", true), ("g1/g2", false), ("g3/g3", false)]
    {
        let client = values(Some("ann"), "c");
        assert_eq!(decide(&draft, client, Operation::Publish, topic), is_allowed, "{topic}");
    }
}

/// A decision visits as many nodes as the topic has levels, however many rules there are.
#[test]
fn many_rules_of_one_kind_take_no_more_room_than_one() {
    let allow = rule(Who::Everyone, Effect::Allow, Operations::ALL, "a/+/b");
    let rules = vec![allow; 10_000];
    let set = RuleSet::compile(RuleDraft { rules, ..RuleDraft::default() });
    assert_eq!(set.rules().len(), 10_000);
    assert_eq!(set.trees.len(), 1);
    assert_eq!(set.trees[0].covering.entry_count(), 1);
    let first = Arc::new(set).for_client(values(None, "c")).first(Operation::Publish, "a/x/b");
    assert_eq!(first, First([0; CIRCUMSTANCES]));
}

/// Most Clients receive everything that they subscribe to: no rule is looked up for them.
#[test]
fn who_is_denied_nothing_is_not_checked() {
    let allow = rule(Who::Everyone, Effect::Allow, Operations::ALL, "#");
    let deny = rule(Who::User("bob".into()), Effect::Deny, Operations::ALL, "secret");
    let earlier = Rule { priority: 1, ..deny.clone() };
    for (rules, user, is_checked) in [
        (vec![], "ann", true),
        (vec![allow.clone()], "ann", false),
        (vec![allow.clone(), deny.clone()], "bob", false),
        (vec![deny, allow.clone()], "bob", true),
        (vec![allow.clone(), earlier.clone()], "bob", true),
        (vec![allow, earlier], "ann", false),
    ] {
        let set = RuleSet::compile(RuleDraft { rules, ..RuleDraft::default() });
        let rules = Arc::new(set).for_client(values(Some(user), "c"));
        assert_eq!(rules.receives_everything, !is_checked);
        assert!(!rules.may_receive("$SYS/broker/uptime"));
    }
}
