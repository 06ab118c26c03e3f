//! `petrel check` and `petrel ctl explain` say what access rules mean.

use super::{Broker, errors, petrel, text};

const RULES: &str = "\
role sensor
  allow publish sensors/%c/# max-qos 1

user ann
  roles sensor
  deny all plant/secret

everyone
  allow read plant/#
";

#[test]
fn explain_names_the_rule_that_decides() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("state");
    let (data, rules) = (data.to_str().unwrap(), home.path().join("rules.txt"));
    std::fs::write(&rules, RULES).unwrap();
    let rules = rules.to_str().unwrap();
    let variables = [("PETREL_DATA_DIR", data), ("PETREL_AUTH__RULES_FILE", rules)];
    let _broker = Broker::start(home.path(), &variables);
    let ask = |words: &str| {
        let arguments: Vec<_> = ["ctl", "explain"].into_iter().chain(words.split(' ')).collect();
        let mut command = petrel(home.path(), &arguments);
        let output = command.env("PETREL_DATA_DIR", data).output().unwrap();
        text(&output) + &errors(&output)
    };
    for (words, answer) in [
        ("ann s1 publish sensors/s1/x --qos 1", "allowed: RULES:2: "),
        ("ann s1 publish sensors/s1/x --qos 2", "denied: no rule applies, and publish is denied"),
        ("ann s1 publish sensors/s2/x", "denied: no rule applies"),
        ("bob s1 publish sensors/s1/x", "denied: no rule applies"),
        ("ann s1 receive plant/secret", "denied: RULES:6: user \"ann\" must not"),
        ("- s1 receive plant/secret", "allowed: RULES:9: everyone may"),
        ("ann s1 subscribe plant/#", "allowed: RULES:9: "),
        ("ann s1 subscribe $share/g/#", "denied: no rule applies"),
        ("ann s1 unsubscribe else", "allowed: no rule applies"),
        ("ann s1 publish $SYS/x", "denied: topics below $SYS are the broker's own"),
        ("ann s1 publish a/#", "\"a/#\" cannot be used here: "),
    ] {
        let answered = ask(words);
        let expected = answer.replace("RULES", rules);
        assert!(answered.contains(&expected), "{words}\n{answered}{expected}");
    }
}

#[test]
fn check_says_each_rule_in_plain_words() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("rules.txt");
    let file = file.to_str().unwrap();
    let check = |rules: &str, arguments: &[&str]| {
        std::fs::write(file, rules).unwrap();
        let mut command = petrel(home.path(), arguments);
        command.env("PETREL_AUTH__RULES_FILE", file).output().unwrap()
    };
    let said = text(&check(RULES, &["check", "--rules"]));
    for line in [
        "2: whoever has role \"sensor\" may publish sensors/%c/#, with QoS 0 or 1",
        "6: user \"ann\" must not publish, receive, subscribe, unsubscribe plant/secret",
        "9: everyone may receive, subscribe, unsubscribe plant/#",
    ] {
        assert!(said.contains(&format!("{file}:{line}\n")), "{said}");
    }
    assert!(said.contains("if no rule applies, publish is denied\n"), "{said}");
    assert!(said.contains("roles of user \"ann\": sensor\n"), "{said}");
    let wrong = check("everyone\n  alow publish a\n", &["check"]);
    assert_eq!(wrong.status.code(), Some(1));
    let said = errors(&wrong);
    assert!(said.contains("auth.rules_file: ") && said.contains(":2: \"alow\""), "{said}");
    let both = check(RULES, &["check"]);
    assert_eq!(both.status.code(), Some(0), "{}", errors(&both));
}
