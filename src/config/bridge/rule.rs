//! Topic rules: which messages cross the bridge, in which direction, and under which name on the other side.
//!
//! The syntax and the meaning are those of mosquitto's `topic` option:
//!
//! ```text
//! pattern [[[out | in | both] qos-level] local-prefix remote-prefix]
//! ```
//!
//! An outgoing rule subscribes locally to `local-prefix` + `pattern`, and replaces the local prefix of each message by
//! the remote prefix. An incoming rule does the reverse. `""` stands for an empty part. Rules are parsed once, here.

use crate::packet::QoS;

/// The direction in which messages of a rule travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Direction {
    /// From the local broker to the remote one.
    Out,
    /// From the remote broker to the local one.
    In,
    /// Both ways.
    Both,
}

impl Direction {
    /// Whether messages go to the remote broker.
    #[must_use]
    pub(crate) fn is_out(self) -> bool {
        self != Self::In
    }

    /// Whether messages come from the remote broker.
    #[must_use]
    pub(crate) fn is_in(self) -> bool {
        self != Self::Out
    }

    fn parse(word: &str) -> Option<Self> {
        match word {
            "out" => Some(Self::Out),
            "in" => Some(Self::In),
            "both" => Some(Self::Both),
            _ => None,
        }
    }
}

/// One line of the `topics` of a bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TopicRule {
    /// Which way.
    pub(crate) direction: Direction,
    /// QoS of the Subscription on the sending side, and so the highest QoS that crosses.
    pub(crate) qos: QoS,
    /// Removed from local names of outgoing messages, added to incoming ones.
    pub(crate) local_prefix: String,
    /// The same on the remote side.
    pub(crate) remote_prefix: String,
    /// Topic Filter on the local broker.
    pub(crate) local_filter: String,
    /// Topic Filter on the remote broker.
    pub(crate) remote_filter: String,
}

/// Why a rule is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RuleError {
    /// Nothing there.
    #[error("the rule is empty; write: pattern [out|in|both] [qos] [local-prefix] [remote-prefix]")]
    Empty,
    /// A quotation mark without its partner.
    #[error("a quotation mark is not closed")]
    OpenQuote,
    /// More than five words.
    #[error("\"{0}\" is one word too many; quote names that contain blanks")]
    TooManyWords(String),
    /// Neither `out`, `in` nor `both`.
    #[error("\"{0}\" is not a direction; write out, in or both")]
    Direction(String),
    /// Neither 0, 1 nor 2.
    #[error("\"{0}\" is not a QoS; write 0, 1 or 2")]
    QoS(String),
    /// The pattern is not a Topic Filter. [MQTT-4.7.1-1]
    #[error("\"{0}\" is not a topic filter: '#' must be alone at the end, '+' alone in its level")]
    Pattern(String),
    /// A prefix with a wildcard.
    #[error("\"{0}\" cannot be a prefix: it must not contain '+', '#' or a NUL")]
    Prefix(String),
    /// The empty pattern maps one topic to another and needs both names.
    #[error(
        "an empty pattern needs both a local and a remote prefix: together they name the two topics"
    )]
    EmptyPattern,
    /// A filter that no packet can carry.
    #[error("prefix and pattern together are longer than 65,535 bytes")]
    TooLong,
}

impl TopicRule {
    /// Reads one rule in mosquitto's syntax (with or without the leading word `topic`).
    ///
    /// # Errors
    /// [`RuleError`] says what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, RuleError> {
        let mut words = split_words(text)?.into_iter().peekable();
        // A line copied out of mosquitto.conf works as it is; a rule for the topic `topic` alone does, too.
        if words.len() > 1 && words.peek().is_some_and(|word| word == "topic") {
            let second_is_direction =
                words.clone().nth(1).is_some_and(|word| Direction::parse(&word).is_some());
            if !second_is_direction {
                words.next();
            }
        }
        let pattern = words.next().ok_or(RuleError::Empty)?;
        let direction = match words.next() {
            None => Direction::Out,
            Some(word) => Direction::parse(&word).ok_or(RuleError::Direction(word))?,
        };
        let qos = match words.next() {
            None => QoS::AtMostOnce,
            Some(word) => parse_qos(word)?,
        };
        let local_prefix = words.next().unwrap_or_default();
        let remote_prefix = words.next().unwrap_or_default();
        if let Some(word) = words.next() {
            return Err(RuleError::TooManyWords(word));
        }
        Self::new(&pattern, direction, qos, local_prefix, remote_prefix)
    }

    fn new(
        pattern: &str,
        direction: Direction,
        qos: QoS,
        local_prefix: String,
        remote_prefix: String,
    ) -> Result<Self, RuleError> {
        if pattern.is_empty() && (local_prefix.is_empty() || remote_prefix.is_empty()) {
            return Err(RuleError::EmptyPattern);
        }
        if !pattern.is_empty() && !is_filter(pattern) {
            return Err(RuleError::Pattern(pattern.to_owned()));
        }
        for prefix in [&local_prefix, &remote_prefix] {
            if prefix.contains(['+', '#', '\0']) {
                return Err(RuleError::Prefix(prefix.clone()));
            }
        }
        let local_filter = format!("{local_prefix}{pattern}");
        let remote_filter = format!("{remote_prefix}{pattern}");
        for filter in [&local_filter, &remote_filter] {
            if filter.len() > usize::from(u16::MAX) {
                return Err(RuleError::TooLong);
            }
            // A prefix without a final slash can spoil a wildcard: `a` + `#`.
            if !is_filter(filter) {
                return Err(RuleError::Pattern(filter.clone()));
            }
        }
        Ok(Self { direction, qos, local_prefix, remote_prefix, local_filter, remote_filter })
    }

    fn has_prefix(&self) -> bool {
        !self.local_prefix.is_empty() || !self.remote_prefix.is_empty()
    }
}

fn parse_qos(word: String) -> Result<QoS, RuleError> {
    match word.as_str() {
        "0" => Ok(QoS::AtMostOnce),
        "1" => Ok(QoS::AtLeastOnce),
        "2" => Ok(QoS::ExactlyOnce),
        _ => Err(RuleError::QoS(word)),
    }
}

/// Splits text at blanks; a quoted word may contain blanks, and `""` is the empty word.
fn split_words(text: &str) -> Result<Vec<String>, RuleError> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (word, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').ok_or(RuleError::OpenQuote)?,
            None => rest.split_once(char::is_whitespace).unwrap_or((rest, "")),
        };
        words.push(word.to_owned());
        rest = after.trim_start();
    }
    Ok(words)
}

/// Whether `text` is a Topic Filter: not empty, no NUL, wildcards alone in their level. [MQTT-4.7.1-1] [MQTT-4.7.1-2]
fn is_filter(text: &str) -> bool {
    let mut levels = text.split('/').peekable();
    while let Some(level) = levels.next() {
        let is_last = levels.peek().is_none();
        let valid = match level {
            "#" => is_last,
            "+" => true,
            _ => !level.contains(['+', '#', '\0']),
        };
        if !valid {
            return false;
        }
    }
    !text.is_empty()
}

/// Whether `topic` matches `filter`. [MQTT-4.7.2-1] holds: a leading wildcard does not match `$` names.
#[must_use]
pub(crate) fn filter_matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut levels = topic.split('/');
    for wanted in filter.split('/') {
        match (wanted, levels.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (_, Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

/// Whether some Topic Name matches both filters.
#[must_use]
pub(crate) fn filters_overlap(first: &str, second: &str) -> bool {
    let is_dollar = |filter: &str| filter.starts_with('$');
    let is_wild = |filter: &str| filter.starts_with(['+', '#']);
    if is_dollar(first) && is_wild(second) || is_dollar(second) && is_wild(first) {
        return false;
    }
    let (mut first, mut second) = (first.split('/'), second.split('/'));
    loop {
        match (first.next(), second.next()) {
            (None, None) | (Some("#"), _) | (_, Some("#")) => return true,
            (None, Some(_)) | (Some(_), None) => return false,
            (Some(left), Some(right)) if left == right || left == "+" || right == "+" => {}
            _ => return false,
        }
    }
}

/// A filter on local names that takes messages away from the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExcludeRule {
    /// Local names that do not cross.
    pub(crate) filter: String,
    /// In which direction they do not.
    pub(crate) direction: Direction,
}

impl ExcludeRule {
    /// Reads `filter [out|in|both]`; both when left out.
    ///
    /// # Errors
    /// [`RuleError`] says what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, RuleError> {
        let mut words = split_words(text)?.into_iter();
        let filter = words.next().ok_or(RuleError::Empty)?;
        if !is_filter(&filter) {
            return Err(RuleError::Pattern(filter));
        }
        let direction = match words.next() {
            None => Direction::Both,
            Some(word) => Direction::parse(&word).ok_or(RuleError::Direction(word))?,
        };
        match words.next() {
            Some(word) => Err(RuleError::TooManyWords(word)),
            None => Ok(Self { filter, direction }),
        }
    }
}

/// What happens to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mapping {
    /// It crosses, under the new name that was written.
    Mapped(QoS),
    /// An exclude filter holds it back.
    Excluded,
    /// No rule matches it: it comes from a Subscription that is older than the rules.
    NoRule,
    /// Its new name would be empty or longer than 65,535 bytes.
    Impossible,
}

/// All rules of one bridge.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct RuleSet {
    /// The rules in order: the first match applies.
    pub(crate) rules: Vec<TopicRule>,
    /// Taken away from all rules.
    pub(crate) exclude: Vec<ExcludeRule>,
}

#[derive(Clone, Copy)]
enum Side {
    Local,
    Remote,
}

impl RuleSet {
    /// Writes the remote name of a local message into `name` (which is cleared first).
    pub(crate) fn map_out(&self, topic: &str, name: &mut String) -> Mapping {
        if self.is_excluded(topic, Direction::is_out) {
            return Mapping::Excluded;
        }
        self.map(topic, Side::Local, name)
    }

    /// Writes the local name of a remote message into `name` (which is cleared first).
    pub(crate) fn map_in(&self, topic: &str, name: &mut String) -> Mapping {
        match self.map(topic, Side::Remote, name) {
            Mapping::Mapped(_) if self.is_excluded(name, Direction::is_in) => Mapping::Excluded,
            mapping => mapping,
        }
    }

    /// Writes the remote name under which a response to a local Response Topic will come back. Returns false, without
    /// writing, if no rule changes the name. `own` is the local name of the message that carries it.
    pub(crate) fn map_response_out(&self, response: &str, own: &str, name: &mut String) -> bool {
        self.map_response(response, own, Side::Local, name)
    }

    /// The same for a message from the remote broker; `own` is its remote name.
    pub(crate) fn map_response_in(&self, response: &str, own: &str, name: &mut String) -> bool {
        self.map_response(response, own, Side::Remote, name)
    }

    /// Filters to subscribe to on the local broker, each once, with the highest QoS of its rules.
    #[must_use]
    pub(crate) fn local_filters(&self) -> Vec<(String, QoS)> {
        merge(self.rules.iter().filter(|rule| rule.direction.is_out()), |rule| &rule.local_filter)
    }

    /// Filters to subscribe to on the remote broker.
    #[must_use]
    pub(crate) fn remote_filters(&self) -> Vec<(String, QoS)> {
        merge(self.rules.iter().filter(|rule| rule.direction.is_in()), |rule| &rule.remote_filter)
    }

    /// Remote filters of outgoing-only rules, which an older configuration may have subscribed to.
    #[must_use]
    pub(crate) fn remote_out_filters(&self) -> Vec<String> {
        let wanted = self.remote_filters();
        let out = self.rules.iter().filter(|rule| rule.direction == Direction::Out);
        let mut filters: Vec<String> = out.map(|rule| rule.remote_filter.clone()).collect();
        filters.sort();
        filters.dedup();
        filters.retain(|filter| !wanted.iter().any(|(other, _)| other == filter));
        filters
    }

    fn is_excluded(&self, local: &str, applies: impl Fn(Direction) -> bool) -> bool {
        self.exclude
            .iter()
            .any(|rule| applies(rule.direction) && filter_matches(&rule.filter, local))
    }

    /// As in mosquitto, the first matching rule with a prefix applies; without one, the name stays as it is.
    fn map(&self, topic: &str, from: Side, name: &mut String) -> Mapping {
        let mut found: Option<&TopicRule> = None;
        for rule in &self.rules {
            let (applies, filter) = match from {
                Side::Local => (rule.direction.is_out(), &rule.local_filter),
                Side::Remote => (rule.direction.is_in(), &rule.remote_filter),
            };
            if !applies || !filter_matches(filter, topic) {
                continue;
            }
            if rule.has_prefix() {
                found = Some(rule);
                break;
            }
            found = found.or(Some(rule));
        }
        let Some(rule) = found else { return Mapping::NoRule };
        exchange_prefix(rule, topic, from, name);
        match name.len() {
            1..=65_535 => Mapping::Mapped(rule.qos),
            _ => Mapping::Impossible,
        }
    }

    /// A response travels in the opposite direction of the message, so a rule for that direction comes first, then
    /// any rule that matches, then the prefixes of the message's own rule, if the name has them.
    fn map_response(&self, response: &str, own: &str, from: Side, name: &mut String) -> bool {
        let filter_of = |rule: &TopicRule| match from {
            Side::Local => (rule.direction.is_in(), rule.local_filter.clone()),
            Side::Remote => (rule.direction.is_out(), rule.remote_filter.clone()),
        };
        let matching = |backwards_only: bool| {
            self.rules.iter().find(|rule| {
                let (backwards, filter) = filter_of(rule);
                (backwards || !backwards_only) && filter_matches(&filter, response)
            })
        };
        let rule = matching(true).or_else(|| matching(false)).or_else(|| {
            self.rules.iter().find(|rule| {
                let (filter, prefix) = match from {
                    Side::Local => (&rule.local_filter, &rule.local_prefix),
                    Side::Remote => (&rule.remote_filter, &rule.remote_prefix),
                };
                filter_matches(filter, own) && response.starts_with(prefix.as_str())
            })
        });
        let Some(rule) = rule else { return false };
        exchange_prefix(rule, response, from, name);
        (1..=65_535).contains(&name.len())
    }
}

fn exchange_prefix(rule: &TopicRule, topic: &str, from: Side, name: &mut String) {
    let (cut, add) = match from {
        Side::Local => (&rule.local_prefix, &rule.remote_prefix),
        Side::Remote => (&rule.remote_prefix, &rule.local_prefix),
    };
    name.clear();
    name.push_str(add);
    name.push_str(topic.strip_prefix(cut.as_str()).unwrap_or(topic));
}

fn merge<'a>(
    rules: impl Iterator<Item = &'a TopicRule>,
    filter: impl Fn(&'a TopicRule) -> &'a String,
) -> Vec<(String, QoS)> {
    let mut merged: Vec<(String, QoS)> = Vec::new();
    for rule in rules {
        match merged.iter_mut().find(|(known, _)| known == filter(rule)) {
            Some((_, qos)) => *qos = (*qos).max(rule.qos),
            None => merged.push((filter(rule).clone(), rule.qos)),
        }
    }
    merged
}

#[cfg(test)]
mod tests;
