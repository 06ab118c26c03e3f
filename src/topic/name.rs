//! Topic Names, to which Application Messages are published.

use std::fmt;

/// The longest Topic Name or Topic Filter, in bytes. [MQTT-4.7.3-3]
pub(crate) const MAX_TOPIC_BYTES: usize = 65_535;

/// A valid Topic Name: not empty, at most 65,535 bytes, without NUL and wildcard characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TopicName<'a>(&'a str);

/// Why a string is not a Topic Name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopicNameError {
    /// It is empty. [MQTT-4.7.3-1]
    #[error("the topic name is empty")]
    Empty,
    /// It is longer than 65,535 bytes. [MQTT-4.7.3-3]
    #[error("the topic name is longer than 65,535 bytes")]
    TooLong,
    /// It contains U+0000. [MQTT-4.7.3-2]
    #[error("the topic name contains a NUL character")]
    Nul,
    /// It contains `+` or `#`. [MQTT-4.7.0-1] [MQTT-3.3.2-2]
    #[error("the topic name contains a wildcard character")]
    Wildcard,
}

impl<'a> TopicName<'a> {
    /// Checks a Topic Name.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn parse(text: &'a str) -> Result<Self, TopicNameError> {
        if text.is_empty() {
            return Err(TopicNameError::Empty);
        }
        if text.len() > MAX_TOPIC_BYTES {
            return Err(TopicNameError::TooLong);
        }
        match memchr::memchr3(0, b'+', b'#', text.as_bytes()) {
            None => Ok(Self(text)),
            Some(at) if text.as_bytes().get(at) == Some(&0) => Err(TopicNameError::Nul),
            Some(_) => Err(TopicNameError::Wildcard),
        }
    }

    /// The name as it was published.
    #[must_use]
    pub fn as_str(self) -> &'a str {
        self.0
    }

    /// Its levels, at least one; each may be empty. [MQTT-4.7.3-4]
    pub(crate) fn levels(self) -> impl Iterator<Item = &'a str> {
        self.0.split('/')
    }

    /// Whether it starts with `$`, and so is never matched by a leading wildcard. [MQTT-4.7.2-1]
    #[must_use]
    pub(crate) fn is_dollar(self) -> bool {
        self.0.starts_with('$')
    }
}

impl fmt::Display for TopicName<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0)
    }
}

/// How many levels a Topic Name or Topic Filter has.
pub(crate) fn level_count(text: &str) -> usize {
    memchr::memchr_iter(b'/', text.as_bytes()).count() + 1
}

#[cfg(test)]
mod tests {
    use super::{TopicName, TopicNameError, level_count};

    #[test]
    fn every_other_string_is_a_topic_name() {
        for text in
            ["/", "//", "a", " ", "/finance", "finance/", "Accounts payable", "$SYS/x", "é/ü"]
        {
            let name = TopicName::parse(text).expect(text);
            assert_eq!(name.as_str(), text);
        }
    }

    /// [MQTT-4.7.0-1] [MQTT-4.7.3-1] [MQTT-4.7.3-2]
    #[test]
    fn empty_nul_and_wildcards_are_refused() {
        assert_eq!(TopicName::parse(""), Err(TopicNameError::Empty));
        assert_eq!(TopicName::parse("a\0b"), Err(TopicNameError::Nul));
        for text in ["+", "#", "a/+", "a/#", "a+", "#a", "sport+"] {
            assert_eq!(TopicName::parse(text), Err(TopicNameError::Wildcard), "{text}");
        }
    }

    /// [MQTT-4.7.3-3]
    #[test]
    fn length_is_limited_to_65535_bytes() {
        assert!(TopicName::parse(&"é".repeat(32_767)).is_ok());
        assert!(TopicName::parse(&"a".repeat(65_535)).is_ok());
        assert_eq!(TopicName::parse(&"a".repeat(65_536)), Err(TopicNameError::TooLong));
        assert_eq!(TopicName::parse(&"é".repeat(32_768)), Err(TopicNameError::TooLong));
    }

    #[test]
    fn levels_may_be_empty() {
        let levels = |text| TopicName::parse(text).unwrap().levels().collect::<Vec<_>>();
        assert_eq!(levels("/finance"), ["", "finance"]);
        assert_eq!(levels("a//b/"), ["a", "", "b", ""]);
        assert_eq!(level_count("a//b/"), 4);
        assert_eq!(level_count("a"), 1);
    }

    #[test]
    fn dollar_counts_at_the_start_only() {
        assert!(TopicName::parse("$SYS/uptime").unwrap().is_dollar());
        assert!(!TopicName::parse("/$SYS").unwrap().is_dollar());
        assert!(!TopicName::parse("a$").unwrap().is_dollar());
    }
}
