//! mosquitto's ACL file, unchanged. What its lines mean here is in [`crate::access::rule_set`].
//!
//! ```text
//! topic read public/#             # clients without a user name
//! user ann
//! topic readwrite ann/#
//! topic deny ann/secret
//! pattern write sensors/%u/%c     # everyone
//! ```
//!
//! There are no comments behind a line, as in mosquitto: these are for the reader of this page.

use std::sync::Arc;

use crate::access::rule::{
    Circumstances, Comparison, Effect, Operation, Operations, Origin, Rule, Who,
};
use crate::access::rule_set::RuleDraft;
use crate::access::template::{Placeholders, Template};
use crate::auth::rules::{Mistake, RulesError};

/// Denials before permissions, and the lines of a user before patterns.
#[derive(Debug, Clone, Copy)]
#[repr(i32)]
enum Place {
    UserDenies = 3,
    UserAllows = 2,
    PatternDenies = 1,
    PatternAllows = 0,
}

/// Reads an ACL file. `file` is for messages.
///
/// # Errors
/// [`RulesError::Mistakes`]
pub fn parse(text: &str, file: &str) -> Result<RuleDraft, RulesError> {
    let mut reader = Reader { file: file.into(), line: 0, who: Who::Anonymous, draft: draft(file) };
    let mut mistakes = Vec::new();
    // Editors may add a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (index, line) in text.lines().enumerate() {
        reader.line = index + 1;
        if let Err(mistake) = reader.read(line.trim_end()) {
            mistakes.push(mistake);
        }
    }
    if mistakes.is_empty() { Ok(reader.draft) } else { Err(RulesError::Mistakes(mistakes)) }
}

/// Every filter may be subscribed to.
fn draft(file: &str) -> RuleDraft {
    let origin = Origin { file: file.into(), line: 0 };
    let open = |operation| (operation, Effect::Allow, origin.clone());
    let defaults = vec![open(Operation::Subscribe), open(Operation::Unsubscribe)];
    RuleDraft { defaults, ..RuleDraft::default() }
}

struct Reader {
    file: Arc<str>,
    line: usize,
    who: Who,
    draft: RuleDraft,
}

impl Reader {
    fn read(&mut self, line: &str) -> Result<(), Mistake> {
        if line.trim_start().is_empty() || line.starts_with('#') {
            return Ok(());
        }
        let (keyword, rest) = split(line.trim_start_matches(' '));
        match keyword {
            "user" if rest.trim().is_empty() => {
                Err(self.mistake(keyword, "no user name follows", "write user NAME"))
            }
            "user" => {
                self.who = Who::User(rest.trim().into());
                Ok(())
            }
            "topic" => self.rule(rest, false),
            "pattern" => self.rule(rest, true),
            _ => {
                let cure = "a line begins with user, topic, pattern or #";
                Err(self.mistake(keyword, "unknown keyword", cure))
            }
        }
    }

    fn rule(&mut self, rest: &str, is_pattern: bool) -> Result<(), Mistake> {
        let read_and_write = Operations::from([Operation::Publish, Operation::Receive]);
        // As in mosquitto, a topic that contains a space needs the word before it.
        let (access, filter) = match split(rest) {
            (filter, "") => ("readwrite", filter),
            parts => parts,
        };
        let (effect, operations) = match access {
            "read" => (Effect::Allow, Operations::from([Operation::Receive])),
            "write" => (Effect::Allow, Operations::from([Operation::Publish])),
            "readwrite" => (Effect::Allow, read_and_write),
            "deny" => (Effect::Deny, read_and_write),
            _ => {
                let cure = "write read, write, readwrite or deny, and then the topic";
                return Err(self.mistake(access, "unknown access", cure));
            }
        };
        let (who, placeholders, place) = match (is_pattern, effect) {
            (false, Effect::Deny) => (self.who.clone(), Placeholders::None, Place::UserDenies),
            (false, Effect::Allow) => (self.who.clone(), Placeholders::None, Place::UserAllows),
            (true, Effect::Deny) => {
                (Who::PlainNames, Placeholders::Mosquitto, Place::PatternDenies)
            }
            (true, Effect::Allow) => {
                (Who::PlainNames, Placeholders::Mosquitto, Place::PatternAllows)
            }
        };
        let filter = Template::parse(filter, placeholders).map_err(|error| {
            let cure = "write a topic, in which + stands for a level, and # for all below it";
            self.mistake(filter, &error.to_string(), cure)
        })?;
        self.draft.rules.push(Rule {
            who,
            effect,
            operations,
            filter,
            comparison: Comparison::Covers,
            circumstances: Circumstances::ALL,
            priority: place as i32,
            origin: Origin { file: Arc::clone(&self.file), line: self.line },
        });
        Ok(())
    }

    fn mistake(&self, word: &str, problem: &str, cure: &str) -> Mistake {
        Mistake {
            file: Arc::clone(&self.file),
            line: self.line,
            word: word.to_owned(),
            problem: problem.to_owned(),
            cure: cure.to_owned(),
        }
    }
}

/// The first word, and what follows the spaces behind it.
fn split(text: &str) -> (&str, &str) {
    match text.split_once(' ') {
        Some((word, rest)) => (word, rest.trim_start_matches(' ')),
        None => (text, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_rules() {
        let text = "# comment\n\ntopic read a/#\nuser ann lee \ntopic b c\n".to_owned()
            + "topic deny  x y\npattern write %u/%c/%z\n  topic readwrite  z\n";
        assert!(parse(&text, "acl").is_err(), "b is no access");
        let draft = parse(&text.replace("topic b c", "topic b"), "acl").unwrap();
        let lines: Vec<_> = draft.rules.iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "clients without a user name may receive a/# (priority 2)",
                "user \"ann lee\" may publish, receive b (priority 2)",
                "user \"ann lee\" must not publish, receive x y (priority 3)",
                "everyone without + or # in the name may publish %u/%c/%z",
                "user \"ann lee\" may publish, receive z (priority 2)",
            ]
        );
        assert_eq!(draft.rules[2].origin, Origin { file: "acl".into(), line: 6 });
    }

    #[test]
    fn mistakes_have_place_word_and_cure() {
        let text = "user\ntopic\ntopic grant a\ntopic read a/#/b\nusr ann\n";
        let error = parse(text, "acl").unwrap_err().to_string();
        let lines: Vec<_> = error.lines().collect();
        assert_eq!(lines.len(), 5, "{error}");
        for (line, word) in lines.iter().zip(["user", "", "grant", "a/#/b", "usr"]) {
            assert!(line.contains(&format!("\"{word}\"")), "{line}");
        }
        assert!(lines[2].starts_with("acl:3: "));
    }
}
