//! Topic Filters: what Clients subscribe to, with wildcards and as Shared Subscriptions.

use std::fmt;
use std::sync::Arc;

use crate::topic::name::{MAX_TOPIC_BYTES, TopicName, level_count};

/// The prefix of every Shared Subscription. [MQTT-4.8.2-1]
const SHARE_PREFIX: &str = "$share/";

/// A valid Topic Filter without `$share/…/`. Cloning shares the text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicFilter(Arc<str>);

/// The name of a group of Shared Subscriptions: not empty, without `/`, `+` and `#`. [MQTT-4.8.2-1]
/// [MQTT-4.8.2-2]
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShareName(Arc<str>);

/// The parts of a Topic Filter in SUBSCRIBE or UNSUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ParsedFilter {
    /// The group, if this is a Shared Subscription.
    pub(crate) share: Option<ShareName>,
    /// The part that is matched with Topic Names.
    pub filter: TopicFilter,
    /// The whole text; shares its memory with `filter` unless this is a Shared Subscription.
    pub(crate) full: Arc<str>,
}

/// Why a string is not a Topic Filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopicFilterError {
    /// It is empty. [MQTT-4.7.3-1]
    #[error("the topic filter is empty")]
    Empty,
    /// It is longer than 65,535 bytes. [MQTT-4.7.3-3]
    #[error("the topic filter is longer than 65,535 bytes")]
    TooLong,
    /// It contains U+0000. [MQTT-4.7.3-2]
    #[error("the topic filter contains a NUL character")]
    Nul,
    /// `#` is not the last level, or not alone in it. [MQTT-4.7.1-1] [MQTT311-4.7.1-2]
    #[error("'#' must stand alone in the last level of the topic filter")]
    MultiLevelWildcard,
    /// `+` is not alone in its level. [MQTT-4.7.1-2] [MQTT311-4.7.1-3]
    #[error("'+' must stand alone in its level of the topic filter")]
    SingleLevelWildcard,
    /// The `ShareName` is empty or contains a wildcard character. [MQTT-4.8.2-1] [MQTT-4.8.2-2]
    #[error("the name of the shared subscription is empty or contains a wildcard character")]
    ShareName,
    /// No Topic Filter follows the `ShareName`. [MQTT-4.8.2-2]
    #[error("the shared subscription has no topic filter")]
    ShareWithoutFilter,
}

impl TopicFilter {
    /// Checks a Topic Filter and parses a Shared Subscription. Only MQTT 5.0 reserves `$share/`, but it works the
    /// same for Clients of older versions.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn parse(text: &str) -> Result<ParsedFilter, TopicFilterError> {
        if text.is_empty() {
            return Err(TopicFilterError::Empty);
        }
        if text.len() > MAX_TOPIC_BYTES {
            return Err(TopicFilterError::TooLong);
        }
        if memchr::memchr(0, text.as_bytes()).is_some() {
            return Err(TopicFilterError::Nul);
        }
        let Some(shared) = text.strip_prefix(SHARE_PREFIX) else {
            check_wildcards(text)?;
            let full: Arc<str> = Arc::from(text);
            return Ok(ParsedFilter { share: None, filter: Self(full.clone()), full });
        };
        let (name, filter) = match shared.split_once('/') {
            Some((_, "")) => return Err(TopicFilterError::ShareWithoutFilter),
            Some(parts) => parts,
            None if shared.is_empty() => return Err(TopicFilterError::ShareName),
            None => return Err(TopicFilterError::ShareWithoutFilter),
        };
        if name.is_empty() || memchr::memchr2(b'+', b'#', name.as_bytes()).is_some() {
            return Err(TopicFilterError::ShareName);
        }
        check_wildcards(filter)?;
        Ok(ParsedFilter {
            share: Some(ShareName(Arc::from(name))),
            filter: Self(Arc::from(filter)),
            full: Arc::from(text),
        })
    }

    /// The filter as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its levels, at least one; each may be empty.
    pub(crate) fn levels(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// How many levels it has, `#` included.
    #[must_use]
    pub(crate) fn level_count(&self) -> usize {
        level_count(&self.0)
    }

    /// Whether it contains `+` or `#`.
    #[must_use]
    pub(crate) fn has_wildcard(&self) -> bool {
        memchr::memchr2(b'+', b'#', self.0.as_bytes()).is_some()
    }

    /// Whether it matches this Topic Name. The reference for the trees, and fast enough for a few filters.
    /// [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.7.2-1] [MQTT-4.7.3-4]
    #[must_use]
    pub fn matches(&self, name: &TopicName<'_>) -> bool {
        if name.is_dollar() && self.0.starts_with(['+', '#']) {
            return false;
        }
        let mut levels = name.levels();
        for pattern in self.levels() {
            // Before the next level of the name is read, because `sport/#` also matches `sport`.
            if pattern == "#" {
                return true;
            }
            match levels.next() {
                Some(level) if pattern == "+" || pattern == level => {}
                _ => return false,
            }
        }
        levels.next().is_none()
    }
}

impl AsRef<str> for TopicFilter {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TopicFilter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl From<TopicFilter> for Arc<str> {
    fn from(filter: TopicFilter) -> Self {
        filter.0
    }
}

impl fmt::Display for ShareName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// `#` last and alone, `+` alone. [MQTT-4.7.1-1] [MQTT-4.7.1-2]
fn check_wildcards(filter: &str) -> Result<(), TopicFilterError> {
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        match memchr::memchr2(b'+', b'#', level.as_bytes()) {
            None => {}
            Some(_) if level == "+" => {}
            Some(_) if level == "#" && levels.peek().is_none() => {}
            Some(_) if level.contains('#') => return Err(TopicFilterError::MultiLevelWildcard),
            Some(_) => return Err(TopicFilterError::SingleLevelWildcard),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
