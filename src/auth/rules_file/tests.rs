//! Lines of rules files, and mistakes in them.

use super::*;

fn described(text: &str) -> Vec<String> {
    let draft = parse(text, "rules").unwrap();
    draft.rules.iter().map(ToString::to_string).collect()
}

#[test]
fn lines_become_rules_in_plain_words() {
    let text = "\u{feff}# comment\nrole sensor\n  allow publish sensors/%c/# max-qos 1 no-retain\n\n\
                group \"plant one\"\n  members ann \"bob \\\"b\\\"\"\n  roles sensor\n\
                everyone\n deny all #  priority -5\n allow read,write a\n\
                user carol\n  allow subscribe-exactly #\n  deny publish alarms/# retain max-qos 0\n";
    assert_eq!(
        described(text),
        [
            "whoever has role \"sensor\" may publish sensors/%c/#, without RETAIN, with QoS 0 or 1",
            "everyone must not publish, receive, subscribe, unsubscribe # (priority -5)",
            "everyone may publish, receive, subscribe, unsubscribe a",
            "user \"carol\" may subscribe exactly the filter #",
            "user \"carol\" must not publish alarms/#, with RETAIN, with QoS 0",
        ]
    );
    let draft = parse(text, "rules").unwrap();
    let group: Arc<str> = "plant one".into();
    assert_eq!(
        draft.members,
        [(Arc::clone(&group), "ann".into()), (Arc::clone(&group), "bob \"b\"".into())]
    );
    assert_eq!(draft.roles, [(Who::Group(group), "sensor".into())]);
    assert_eq!(draft.rules[4].origin.to_string(), "rules:13");
}

#[test]
fn defaults_are_for_the_operations_that_they_name() {
    let draft =
        parse("default allow subscribe,receive\ndefault deny unsubscribe", "rules").unwrap();
    let defaults: Vec<_> =
        draft.defaults.iter().map(|(operation, effect, _)| (*operation, *effect)).collect();
    assert_eq!(
        defaults,
        [
            (Operation::Receive, Effect::Allow),
            (Operation::Subscribe, Effect::Allow),
            (Operation::Unsubscribe, Effect::Deny),
        ]
    );
}

/// The examples that people copy.
#[test]
fn the_documented_rules_are_without_mistake() {
    let page = include_str!("../../../docs/access.md");
    let module = include_str!("../rules_file.rs").split("//! ```").nth(1).unwrap();
    let module: Vec<&str> =
        module.lines().skip(1).map(|line| line.trim_start_matches("//!")).collect();
    let page: Vec<&str> = page.lines().collect();
    let blocks = page.split(|line| !line.is_empty() && !line.starts_with("    "));
    let examples = blocks.chain([&*module]).map(|lines| lines.join("\n"));
    let examples = examples.filter(|example| example.contains("  allow"));
    let counts: Vec<usize> =
        examples.map(|example| parse(&example, "rules").expect(&example).rules.len()).collect();
    assert!(counts.len() >= 3 && !counts.contains(&0), "{counts:?}");
}

/// Each with the word that is wrong and a way out.
#[test]
fn mistakes_have_place_word_and_cure() {
    for (line, word, cure) in [
        ("alow publish a", "alow", "did you mean allow?"),
        ("xyzzyx", "xyzzyx", "use one of everyone"),
        ("allow publish a", "allow", "above it"),
        ("everyone\nallow publsh a", "publsh", "did you mean publish?"),
        ("everyone\nallow publish", "allow", "for example"),
        ("everyone\nallow publish a/#/b", "a/#/b", "stands for a level"),
        ("everyone\nallow publish %x", "%x", "stands for a level"),
        ("everyone\nallow publish $share/g/a", "$share/g/a", "stands for a level"),
        ("everyone\nallow publish a max-qos 3", "max-qos", "0, 1 or 2"),
        ("everyone\nallow publish a max-qos", "max-qos", "0, 1 or 2"),
        ("everyone\nallow read a max-qos 1", "max-qos", "line of its own"),
        ("everyone\nallow subscribe a retain", "retain", "line of its own"),
        ("everyone\nallow publish a priority high", "priority", "for example"),
        ("everyone\nallow publish a qos 1", "qos", "use one of max-qos"),
        (
            "everyone\nallow subscribe,subscribe-exactly a",
            "subscribe,subscribe-exactly",
            "of its own",
        ),
        ("everyone please", "please", "quotes"),
        ("user", "user", "write user NAME"),
        ("user ann lee", "lee", "quotes"),
        ("group a/b", "a/b", "without / + and #"),
        ("user \"ann", "user \\\"ann", "second"),
        ("everyone\nmembers ann", "members", "group NAME"),
        ("roles a", "roles", "above it"),
        ("role a\nroles a", "roles", "both roles"),
        ("role sensor\neveryone\nroles senser", "senser", "did you mean sensor?"),
        ("everyone\nroles sensor", "sensor", "section role sensor"),
        ("default permit all", "default", "default allow"),
        ("default allow subscribe-exactly", "subscribe-exactly", "default allow"),
    ] {
        let error = parse(line, "rules").unwrap_err().to_string();
        let place = format!("rules:{}: \"{word}\": ", line.lines().count());
        assert!(error.starts_with(&place) && error.contains(cure), "{line}\n{error}");
        assert_eq!(error.lines().count(), 1);
    }
}

#[test]
fn all_mistakes_are_reported_up_to_a_bound() {
    let error = parse(&"wrong\n".repeat(50), "rules").unwrap_err().to_string();
    assert_eq!(error.lines().count(), 21, "{error}");
    assert!(error.ends_with("and 30 more mistakes"));
}
