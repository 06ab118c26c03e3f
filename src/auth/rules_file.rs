//! Petrel's file of access rules.
//!
//! ```text
//! # A line that begins with # is a comment. The first rule that applies decides; if none applies, it is denied.
//! role sensor
//!   allow publish   sensors/%c/#
//!   allow read      commands/%c/#
//!
//! group plant-1
//!   members ann bob
//!   roles   sensor
//!   deny    publish alarms/# retain
//!
//! user carol
//!   allow all #
//!   allow all $SYS/#
//!
//! everyone
//!   allow receive,unsubscribe public/#
//!   allow subscribe public/# max-qos 1
//! ```
//!
//! A section says for whom the rules after it are: `everyone`, `anonymous`, `authenticated`, `user NAME`, `client ID`, `group
//! NAME`, `role NAME` or `listener NAME`. A rule is `allow` or `deny`, operations separated by commas, and a filter; then
//! `max-qos N`, `retain`, `no-retain` and `priority N` may follow. `members` names the users of a group, `roles` gives roles
//! to whoever the section is for. `default allow|deny OPERATIONS` says what holds if no rule applies. A word with spaces
//! stands in double quotes; in quotes, `\"` and `\\` are a quote and a backslash.

use std::sync::Arc;

use crate::access::rule::{
    Circumstances, Comparison, Effect, Operation, Operations, Origin, Rule, Who,
};
use crate::access::rule_set::RuleDraft;
use crate::access::template::{Placeholders, Template};
use crate::auth::rules::{Mistake, RulesError};
use crate::packet::QoS;

/// The words for operations. Subscribing alone shows nothing, so `read` has everything that a reader needs.
const OPERATIONS: [(&str, &[Operation], Comparison); 9] = {
    use Comparison::{Covers, SameText};
    use Operation::{Publish, Receive, Subscribe, Unsubscribe};
    [
        ("publish", &[Publish], Covers),
        ("receive", &[Receive], Covers),
        ("subscribe", &[Subscribe], Covers),
        ("unsubscribe", &[Unsubscribe], Covers),
        ("subscribe-exactly", &[Subscribe], SameText),
        ("unsubscribe-exactly", &[Unsubscribe], SameText),
        ("read", &[Receive, Subscribe, Unsubscribe], Covers),
        ("write", &[Publish], Covers),
        ("all", &Operation::ALL, Covers),
    ]
};

/// The words that begin a line.
const KEYWORDS: [&str; 13] = [
    "everyone",
    "anonymous",
    "authenticated",
    "user",
    "client",
    "group",
    "role",
    "listener",
    "members",
    "roles",
    "allow",
    "deny",
    "default",
];

/// Reads a file of rules. `file` is for messages.
///
/// # Errors
/// [`RulesError::Mistakes`]
pub fn parse(text: &str, file: &str) -> Result<RuleDraft, RulesError> {
    let mut reader = Reader::new(file);
    let mut mistakes = Vec::new();
    // Editors may add a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (index, line) in text.lines().enumerate() {
        reader.line = index + 1;
        let read = words(line.trim()).map_err(|problem| reader.mistake(line.trim(), problem));
        if let Err(mistake) = read.and_then(|words| reader.read(&words)) {
            mistakes.push(mistake);
        }
    }
    mistakes.extend(reader.unknown_roles());
    mistakes.sort_by_key(|mistake| mistake.line);
    if mistakes.is_empty() { Ok(reader.draft) } else { Err(RulesError::Mistakes(mistakes)) }
}

/// What is wrong, and what to write instead.
type Problem = (String, String);

struct Reader {
    file: Arc<str>,
    line: usize,
    /// For whom the current section is.
    who: Option<Who>,
    draft: RuleDraft,
    defined_roles: Vec<Arc<str>>,
    given_roles: Vec<(Arc<str>, usize)>,
}

impl Reader {
    fn new(file: &str) -> Self {
        Self {
            file: file.into(),
            line: 0,
            who: None,
            draft: RuleDraft::default(),
            defined_roles: Vec::new(),
            given_roles: Vec::new(),
        }
    }

    fn read(&mut self, words: &[String]) -> Result<(), Mistake> {
        let Some((keyword, rest)) = words.split_first() else { return Ok(()) };
        let result = match &**keyword {
            "allow" => self.rule(Effect::Allow, rest),
            "deny" => self.rule(Effect::Deny, rest),
            "default" => self.default_access(rest),
            "members" => self.members(rest),
            "roles" => self.roles(rest),
            _ => self.section(keyword, rest),
        };
        result.map_err(|(word, problem)| self.mistake(&word, problem))
    }

    fn section(&mut self, keyword: &str, rest: &[String]) -> Result<(), (String, Problem)> {
        let name: Arc<str> = rest.first().map(String::as_str).unwrap_or_default().into();
        let (who, count) = match keyword {
            "everyone" => (Who::Everyone, 0),
            "anonymous" => (Who::Anonymous, 0),
            "authenticated" => (Who::Authenticated, 0),
            "user" => (Who::User(name), 1),
            "client" => (Who::Client(name), 1),
            "group" => (Who::Group(name), 1),
            "role" => (Who::Role(name), 1),
            "listener" => (Who::Listener(name), 1),
            _ => return Err((keyword.to_owned(), unknown(keyword, &KEYWORDS))),
        };
        match (rest, count) {
            ([], 0) | ([_], 1) => {}
            ([], _) => {
                let cure = format!("write {keyword} NAME");
                return Err((keyword.to_owned(), ("a name must follow".to_owned(), cure)));
            }
            ([.., last], _) => {
                let cure = "put a name with spaces in double quotes".to_owned();
                return Err((last.clone(), ("one word too many".to_owned(), cure)));
            }
        }
        if let Who::Group(name) = &who
            && (name.is_empty() || name.contains(['/', '+', '#']))
        {
            let cure = "choose a name without / + and #, because it can stand in a topic for %g";
            return Err((name.to_string(), ("not a group name".to_owned(), cure.to_owned())));
        }
        if let Who::Role(name) = &who {
            self.defined_roles.push(Arc::clone(name));
        }
        self.who = Some(who);
        Ok(())
    }

    fn members(&mut self, users: &[String]) -> Result<(), (String, Problem)> {
        let Some(Who::Group(group)) = &self.who else {
            let cure = "write it below a line group NAME".to_owned();
            return Err(("members".into(), ("only groups have members".to_owned(), cure)));
        };
        let members = users.iter().map(|user| (Arc::clone(group), user.as_str().into()));
        self.draft.members.extend(members);
        Ok(())
    }

    fn roles(&mut self, roles: &[String]) -> Result<(), (String, Problem)> {
        let who = self.section_of("roles")?;
        if matches!(who, Who::Role(_)) {
            let cure = "give both roles to the user or group".to_owned();
            return Err(("roles".into(), ("a role has no roles".to_owned(), cure)));
        }
        for role in roles {
            let role: Arc<str> = role.as_str().into();
            self.given_roles.push((Arc::clone(&role), self.line));
            self.draft.roles.push((who.clone(), role));
        }
        Ok(())
    }

    fn section_of(&self, word: &str) -> Result<Who, (String, Problem)> {
        self.who.clone().ok_or_else(|| {
            let cure = "write a line everyone, user NAME, group NAME or role NAME above it";
            (word.to_owned(), ("for whom?".to_owned(), cure.to_owned()))
        })
    }

    fn default_access(&mut self, words: &[String]) -> Result<(), (String, Problem)> {
        let cure = || "write default allow or default deny, and the operations".to_owned();
        let (effect, operations) = match words {
            [effect, operations] if effect == "allow" => (Effect::Allow, operations),
            [effect, operations] if effect == "deny" => (Effect::Deny, operations),
            _ => return Err(("default".into(), ("incomplete".to_owned(), cure()))),
        };
        let (found, comparison) = parse_operations(operations)?;
        if comparison == Comparison::SameText {
            return Err((operations.clone(), ("a default has no filter".to_owned(), cure())));
        }
        let origin = self.origin();
        let defaults = Operation::ALL.into_iter().filter(|operation| found.contains(*operation));
        let defaults = defaults.map(|operation| (operation, effect, origin.clone()));
        self.draft.defaults.extend(defaults);
        Ok(())
    }

    fn rule(&mut self, effect: Effect, words: &[String]) -> Result<(), (String, Problem)> {
        let keyword = if effect == Effect::Allow { "allow" } else { "deny" };
        let who = self.section_of(keyword)?;
        let [operations, filter, conditions @ ..] = words else {
            let cure = format!("write for example {keyword} publish sensors/%c/#");
            return Err((keyword.to_owned(), ("operations and a topic must follow".into(), cure)));
        };
        let (operations, comparison) = parse_operations(operations)?;
        let filter = Template::parse(filter, Placeholders::All).map_err(|error| {
            let cure = "write a topic, in which + stands for a level, and # for all below it";
            (filter.clone(), (error.to_string(), cure.to_owned()))
        })?;
        let mut rule = Rule {
            who,
            effect,
            operations,
            filter,
            comparison,
            circumstances: Circumstances::ALL,
            priority: 0,
            origin: self.origin(),
        };
        let mut conditions = conditions.iter();
        while let Some(condition) = conditions.next() {
            restrict(&mut rule, condition, || conditions.next().map(String::as_str))?;
        }
        self.draft.rules.push(rule);
        Ok(())
    }

    fn origin(&self) -> Origin {
        Origin { file: Arc::clone(&self.file), line: self.line }
    }

    fn unknown_roles(&self) -> Vec<Mistake> {
        let unknown =
            self.given_roles.iter().filter(|(role, _)| !self.defined_roles.contains(role));
        let names: Vec<&str> = self.defined_roles.iter().map(|role| &**role).collect();
        let mistakes = unknown.map(|(role, line)| {
            let (_, nearest) = unknown_word(role, &names);
            let cure = match nearest {
                Some(nearest) => format!("did you mean {nearest}?"),
                None => format!("write a section role {role}"),
            };
            let (file, word) = (Arc::clone(&self.file), role.to_string());
            Mistake { file, line: *line, word, problem: "there is no such role".into(), cure }
        });
        mistakes.collect()
    }

    fn mistake(&self, word: &str, (problem, cure): Problem) -> Mistake {
        let file = Arc::clone(&self.file);
        Mistake { file, line: self.line, word: word.to_owned(), problem, cure }
    }
}

/// The operations of a list separated by commas, and how their filter is compared.
fn parse_operations(text: &str) -> Result<(Operations, Comparison), (String, Problem)> {
    let mut operations = Operations::default();
    let mut comparisons = Vec::new();
    for word in text.split(',') {
        let found = OPERATIONS.iter().find(|(name, ..)| *name == word);
        let Some((_, found, comparison)) = found else {
            let names = OPERATIONS.map(|(name, ..)| name);
            return Err((word.to_owned(), unknown(word, &names)));
        };
        let found = found.iter().fold(Operations::default(), |all, operation| {
            all.union(Operations::from([*operation]))
        });
        operations = operations.union(found);
        comparisons.push(*comparison);
    }
    match comparisons.first() {
        Some(first) if comparisons.iter().all(|comparison| comparison == first) => {
            Ok((operations, *first))
        }
        _ => {
            let cure = "write a line of its own for operations with -exactly".to_owned();
            Err((text.to_owned(), ("these compare filters differently".to_owned(), cure)))
        }
    }
}

/// Applies a condition, whose value `value` returns.
fn restrict<'a>(
    rule: &mut Rule,
    condition: &str,
    value: impl FnOnce() -> Option<&'a str>,
) -> Result<(), (String, Problem)> {
    let only = |operations: &[Operation], what: &str| {
        let fits =
            |operation| !rule.operations.contains(operation) || operations.contains(&operation);
        match Operation::ALL.into_iter().all(fits) {
            true => Ok(()),
            false => {
                let cure = "write a line of its own for other operations".to_owned();
                Err((condition.to_owned(), (format!("{condition} is only for {what}"), cure)))
            }
        }
    };
    let wrong =
        |problem: &str, cure: &str| (condition.to_owned(), (problem.to_owned(), cure.to_owned()));
    match condition {
        "max-qos" => {
            only(&[Operation::Publish, Operation::Subscribe], "publish and subscribe")?;
            let qos = match value() {
                Some("0") => QoS::AtMostOnce,
                Some("1") => QoS::AtLeastOnce,
                Some("2") => QoS::ExactlyOnce,
                _ => return Err(wrong("a QoS must follow", "write 0, 1 or 2")),
            };
            rule.circumstances = rule.circumstances.up_to(qos);
        }
        "retain" | "no-retain" => {
            only(&[Operation::Publish], "publish")?;
            rule.circumstances = rule.circumstances.with_retain(condition == "retain");
        }
        "priority" => {
            let number = value().and_then(|value| value.parse().ok());
            let cure = "write for example priority 10; higher ones come first";
            rule.priority = number.ok_or_else(|| wrong("a number must follow", cure))?;
        }
        _ => {
            let known = ["max-qos", "retain", "no-retain", "priority"];
            return Err((condition.to_owned(), unknown(condition, &known)));
        }
    }
    Ok(())
}

fn unknown(word: &str, known: &[&str]) -> Problem {
    let (problem, nearest) = unknown_word(word, known);
    let cure = match nearest {
        Some(nearest) => format!("did you mean {nearest}?"),
        None => format!("use one of {}", known.join(", ")),
    };
    (problem, cure)
}

fn unknown_word<'a>(word: &str, known: &[&'a str]) -> (String, Option<&'a str>) {
    let nearest = known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(word, name), *name))
        .min()
        .filter(|(distance, _)| *distance <= 2);
    ("unknown word".to_owned(), nearest.map(|(_, name)| name))
}

/// The words of a line; none of a comment.
fn words(line: &str) -> Result<Vec<String>, Problem> {
    let mut words = Vec::new();
    if line.starts_with('#') {
        return Ok(words);
    }
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let Some(quoted) = rest.strip_prefix('"') else {
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            words.push(word.to_owned());
            rest = after.trim_start();
            continue;
        };
        let mut word = String::new();
        let mut characters = quoted.chars();
        loop {
            match characters.next() {
                Some('"') => break,
                Some('\\') => word.extend(characters.next()),
                Some(character) => word.push(character),
                None => {
                    let cure = "write a second \" behind the word".to_owned();
                    return Err(("a quotation does not end".to_owned(), cure));
                }
            }
        }
        words.push(word);
        rest = characters.as_str().trim_start();
    }
    Ok(words)
}

#[cfg(test)]
mod tests;
