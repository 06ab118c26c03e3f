//! Every form of a topic rule, and what it does to names.

use super::*;

fn rule(text: &str) -> TopicRule {
    TopicRule::parse(text).unwrap()
}

fn set(rules: &[&str], exclude: &[&str]) -> RuleSet {
    RuleSet {
        rules: rules.iter().map(|text| rule(text)).collect(),
        exclude: exclude.iter().map(|text| ExcludeRule::parse(text).unwrap()).collect(),
    }
}

fn out(rules: &RuleSet, topic: &str) -> Result<String, Mapping> {
    let mut name = String::new();
    match rules.map_out(topic, &mut name) {
        Mapping::Mapped(_) => Ok(name),
        other => Err(other),
    }
}

fn incoming(rules: &RuleSet, topic: &str) -> Result<String, Mapping> {
    let mut name = String::new();
    match rules.map_in(topic, &mut name) {
        Mapping::Mapped(_) => Ok(name),
        other => Err(other),
    }
}

#[test]
fn parts_may_be_left_out_from_the_end() {
    let parsed = rule("a/b");
    assert_eq!((parsed.direction, parsed.qos), (Direction::Out, QoS::AtMostOnce));
    assert_eq!(rule("a/b in").direction, Direction::In);
    assert_eq!(rule("a/b both 2").qos, QoS::ExactlyOnce);
    let parsed = rule("a/b out 1 local/");
    assert_eq!((&*parsed.local_filter, &*parsed.remote_filter), ("local/a/b", "a/b"));
    let parsed = rule("a/b out 1 local/ remote/");
    assert_eq!((&*parsed.local_filter, &*parsed.remote_filter), ("local/a/b", "remote/a/b"));
}

#[test]
fn quotation_marks_stand_for_nothing_or_for_names_with_blanks() {
    let parsed = rule("# both 0 \"\" remote/");
    assert_eq!((&*parsed.local_filter, &*parsed.remote_filter), ("#", "remote/#"));
    let parsed = rule("\"living room/+\" out 0 \"my house/\"");
    assert_eq!(parsed.local_filter, "my house/living room/+");
}

#[test]
fn the_empty_pattern_maps_one_topic_to_another() {
    let rules = set(&["\"\" both 1 here there"], &[]);
    assert_eq!(out(&rules, "here"), Ok("there".into()));
    assert_eq!(incoming(&rules, "there"), Ok("here".into()));
    assert_eq!(out(&rules, "there"), Err(Mapping::NoRule));
    for text in ["\"\" out 0 local \"\"", "\"\" out 0 \"\" remote", "\"\" out 0 \"\" \"\"", "\"\""]
    {
        assert_eq!(TopicRule::parse(text), Err(RuleError::EmptyPattern), "{text}");
    }
}

#[test]
fn a_line_of_mosquitto_conf_works_with_its_first_word() {
    assert_eq!(rule("topic # both 2 l/ r/"), rule("# both 2 l/ r/"));
    assert_eq!(rule("topic sensors/#"), rule("sensors/#"));
    assert_eq!(rule("topic").local_filter, "topic");
    assert_eq!(rule("topic in 1").local_filter, "topic");
}

#[test]
fn mistakes_are_named() {
    let error = |text: &str| TopicRule::parse(text).unwrap_err();
    assert_eq!(error("  "), RuleError::Empty);
    assert_eq!(error("\"a"), RuleError::OpenQuote);
    assert_eq!(error("a sideways"), RuleError::Direction("sideways".into()));
    assert_eq!(error("a Out"), RuleError::Direction("Out".into()));
    assert_eq!(error("a out 3"), RuleError::QoS("3".into()));
    assert_eq!(error("a out one"), RuleError::QoS("one".into()));
    assert_eq!(error("a/#/b"), RuleError::Pattern("a/#/b".into()));
    assert_eq!(error("a/b+"), RuleError::Pattern("a/b+".into()));
    assert_eq!(error("a out 0 l/+/"), RuleError::Prefix("l/+/".into()));
    assert_eq!(error("# out 0 l r/"), RuleError::Pattern("l#".into()));
    assert_eq!(error("a out 0 l r x"), RuleError::TooManyWords("x".into()));
    let long = "x".repeat(65_530);
    assert_eq!(error(&format!("{long} out 0 prefix/")), RuleError::TooLong);
}

#[test]
fn names_change_as_in_the_manual_of_mosquitto() {
    for (rule, local, remote) in [
        ("pattern both 0 L/ R/", "L/pattern", "R/pattern"),
        ("pattern both 0 L/ \"\"", "L/pattern", "pattern"),
        ("pattern both 0 \"\" R/", "pattern", "R/pattern"),
        ("pattern both 0 \"\" \"\"", "pattern", "pattern"),
        ("\"\" both 0 local remote", "local", "remote"),
        ("# both 2 local/topic/ remote/topic/", "local/topic/a/b", "remote/topic/a/b"),
    ] {
        let rules = set(&[rule], &[]);
        assert_eq!(out(&rules, local), Ok(remote.into()), "{rule}");
        assert_eq!(incoming(&rules, remote), Ok(local.into()), "{rule}");
    }
    let rules = set(&["clients/total in 0 test/mosquitto/org/ $SYS/broker/"], &[]);
    let name = incoming(&rules, "$SYS/broker/clients/total");
    assert_eq!(name, Ok("test/mosquitto/org/clients/total".into()));
}

#[test]
fn the_first_matching_rule_with_a_prefix_decides() {
    let rules = set(&["a/#", "# out 0 \"\" x/", "# out 0 \"\" y/"], &[]);
    assert_eq!(out(&rules, "a/b"), Ok("x/a/b".into()));
    assert_eq!(out(&rules, "c"), Ok("x/c".into()));
    let rules = set(&["a/#", "b/# out 0 \"\" x/"], &[]);
    assert_eq!(out(&rules, "a/b"), Ok("a/b".into()));
}

#[test]
fn a_rule_binds_only_its_direction() {
    let rules = set(&["up/# out 1 \"\" r/", "down/# in 1 l/"], &[]);
    assert_eq!(incoming(&rules, "r/up/1"), Err(Mapping::NoRule));
    assert_eq!(out(&rules, "l/down/1"), Err(Mapping::NoRule));
    assert_eq!(rules.local_filters(), [("up/#".to_owned(), QoS::AtLeastOnce)]);
    assert_eq!(rules.remote_filters(), [("down/#".to_owned(), QoS::AtLeastOnce)]);
    assert_eq!(rules.remote_out_filters(), ["r/up/#"]);
}

#[test]
fn excluded_names_are_local_ones() {
    let rules = set(&["# both 0 l/ r/"], &["l/secret/#", "l/up out", "l/down in"]);
    assert_eq!(out(&rules, "l/secret/key"), Err(Mapping::Excluded));
    assert_eq!(incoming(&rules, "r/secret/key"), Err(Mapping::Excluded));
    assert_eq!(out(&rules, "l/up"), Err(Mapping::Excluded));
    assert_eq!(incoming(&rules, "r/up"), Ok("l/up".into()));
    assert_eq!(out(&rules, "l/down"), Ok("r/down".into()));
    assert_eq!(incoming(&rules, "r/down"), Err(Mapping::Excluded));
}

#[test]
fn a_name_that_would_be_empty_or_too_long_is_refused() {
    let rules = set(&["# out 0 a/ \"\"", "# in 0 prefix/ \"\""], &[]);
    assert_eq!(out(&rules, "a/"), Err(Mapping::Impossible));
    assert_eq!(out(&rules, "a/b"), Ok("b".into()));
    assert_eq!(incoming(&rules, &"x".repeat(65_530)), Err(Mapping::Impossible));
    // `a/#` also matches the parent `a`, which has no `a/` to cut off: it keeps its name, as in mosquitto.
    assert_eq!(out(&rules, "a"), Ok("a".into()));
}

#[test]
fn answers_find_their_way_back() {
    let rules = set(&["ask/# out 1 here/ there/", "answer/# in 1 here/ there/"], &[]);
    let mut name = String::new();
    assert!(rules.map_response_out("here/answer/7", "here/ask/1", &mut name));
    assert_eq!(name, "there/answer/7");
    assert!(rules.map_response_in("there/ask/7", "there/answer/1", &mut name));
    assert_eq!(name, "here/ask/7");
    assert!(rules.map_response_out("here/other", "here/ask/1", &mut name));
    assert_eq!(name, "there/other");
    assert!(!rules.map_response_out("elsewhere", "here/ask/1", &mut name));
}

#[test]
fn matching_follows_the_specification() {
    for (filter, topic) in [
        ("#", "a"),
        ("a/#", "a"),
        ("a/#", "a/b/c"),
        ("+/+", "/finance"),
        ("/+", "/finance"),
        ("a/+/c", "a//c"),
        ("$SYS/#", "$SYS/x"),
    ] {
        assert!(filter_matches(filter, topic), "{filter} {topic}");
    }
    for (filter, topic) in
        [("#", "$SYS"), ("+/x", "$SYS/x"), ("a/+", "a"), ("a", "a/b"), ("a/b", "a"), ("+", "/a")]
    {
        assert!(!filter_matches(filter, topic), "{filter} {topic}");
    }
}

#[test]
fn overlap_is_symmetric_and_knows_wildcards() {
    for (first, second, expected) in [
        ("a/b", "a/b", true),
        ("a/+", "+/b", true),
        ("a/#", "a", true),
        ("#", "x/y", true),
        ("#", "$SYS/x", false),
        ("a/b", "a/c", false),
        ("a/+/c", "a/b", false),
        ("$SYS/#", "$SYS/+/x", true),
    ] {
        assert_eq!(filters_overlap(first, second), expected, "{first} {second}");
        assert_eq!(filters_overlap(second, first), expected, "{second} {first}");
    }
}
