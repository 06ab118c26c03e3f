//! Topic Filters of rules, in which attributes of the Client are substituted: `sensors/%c/#`.
//!
//! **A value never widens a rule.** A value stands for a part of one level. If it is missing or empty, or contains `/`, `+`, `#`
//! or NUL, or if it would make the first level begin with `$`, rules that allow do not apply. Rules that deny apply with the
//! text as it is, so that nobody escapes one by a `/` in a name; no topic contains `+`, `#` or NUL.

use core::fmt;
use std::sync::Arc;

use crate::topic::filter::{TopicFilter, TopicFilterError};

/// Most levels of a filter in a rule: evaluation descends level by level.
const MAX_LEVELS: usize = 128;

/// A Topic Filter with placeholders.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Template {
    text: Box<str>,
    pub(super) levels: Box<[Level]>,
}

/// One level.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Level {
    /// This text.
    Text(Box<str>),
    /// `+`
    Single,
    /// `#`
    Multi,
    /// Text and values.
    Composed(Arc<[Part]>),
}

/// A part of a level.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Part {
    Text(Box<str>),
    Value(Attribute),
}

/// An attribute of a Client that can be substituted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Attribute {
    /// `%u`
    UserName,
    /// `%c`
    ClientId,
    /// `%g`: a group of its user, the same one in all levels of a filter.
    Group,
    /// `%{certificate}`: the name in its certificate.
    Certificate,
    /// `%{listener}`: the name of its listener.
    Listener,
}

/// Which placeholders are recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placeholders {
    /// None: `%` is a character like any other.
    None,
    /// `%u` and `%c`, as in mosquitto; any other `%` is a character like any other.
    Mosquitto,
    /// All of them; `%%` is a `%`.
    All,
}

/// Why a text is not the filter of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// It is not a Topic Filter.
    #[error(transparent)]
    Filter(#[from] TopicFilterError),
    /// It begins with `$share/`.
    #[error("rules have no $share/…/: they apply to the filter behind it")]
    Shared,
    /// It has too many levels.
    #[error("the filter has more than {MAX_LEVELS} levels")]
    Levels,
    /// There is no such placeholder.
    #[error(
        "after % expected u (user name), c (client id), g (group), {{certificate}}, {{listener}} or another %"
    )]
    Placeholder,
}

/// The attributes of one Client.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Values {
    pub(super) user_name: Option<Arc<str>>,
    pub(super) client_id: Arc<str>,
    pub(super) groups: Vec<Arc<str>>,
    pub(super) certificate: Option<Arc<str>>,
    pub(super) listener: Option<Arc<str>>,
}

/// Whether a substituted level may be used in rules that allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Safety {
    /// It stands for one level.
    Safe,
    /// It may stand for more or less.
    Unsafe,
}

impl Template {
    /// Reads a filter.
    ///
    /// # Errors
    /// [`TemplateError`]
    pub fn parse(text: &str, placeholders: Placeholders) -> Result<Self, TemplateError> {
        if TopicFilter::parse(text)?.share.is_some() {
            return Err(TemplateError::Shared);
        }
        let levels = text.split('/').map(|level| Level::parse(level, placeholders));
        let levels = levels.collect::<Result<Box<[_]>, _>>()?;
        if levels.len() > MAX_LEVELS {
            return Err(TemplateError::Levels);
        }
        Ok(Self { text: text.into(), levels })
    }

    /// The filter as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it contains `+` or `#`.
    #[must_use]
    pub fn has_wildcard(&self) -> bool {
        self.levels.iter().any(|level| matches!(level, Level::Single | Level::Multi))
    }
}

impl fmt::Display for Template {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl Level {
    fn parse(text: &str, placeholders: Placeholders) -> Result<Self, TemplateError> {
        match text {
            "+" => return Ok(Self::Single),
            "#" => return Ok(Self::Multi),
            _ if placeholders == Placeholders::None => return Ok(Self::Text(text.into())),
            _ => {}
        }
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('%') {
            plain.push_str(before);
            let found = match (placeholders, after.as_bytes().first()) {
                (_, Some(b'u')) => Some((Attribute::UserName, "u")),
                (_, Some(b'c')) => Some((Attribute::ClientId, "c")),
                (Placeholders::All, _) => own_placeholder(after),
                _ => None,
            };
            match found {
                Some((attribute, name)) => {
                    if !plain.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut plain).into()));
                    }
                    parts.push(Part::Value(attribute));
                    rest = after.strip_prefix(name).unwrap_or_default();
                }
                None if placeholders == Placeholders::Mosquitto => {
                    plain.push('%');
                    rest = after;
                }
                None => {
                    rest = after.strip_prefix('%').ok_or(TemplateError::Placeholder)?;
                    plain.push('%');
                }
            }
        }
        plain.push_str(rest);
        if parts.is_empty() {
            return Ok(Self::Text(plain.into()));
        }
        if !plain.is_empty() {
            parts.push(Part::Text(plain.into()));
        }
        Ok(Self::Composed(parts.into()))
    }
}

fn own_placeholder(text: &str) -> Option<(Attribute, &'static str)> {
    const NAMES: [(Attribute, &str); 3] = [
        (Attribute::Group, "g"),
        (Attribute::Certificate, "{certificate}"),
        (Attribute::Listener, "{listener}"),
    ];
    NAMES.into_iter().find(|(_, name)| text.starts_with(name))
}

impl Values {
    /// A level with this Client's attributes; `None` if one is missing. `is_first`: it is the first level.
    pub(super) fn substitute(
        &self,
        parts: &[Part],
        group: Option<&str>,
        is_first: bool,
    ) -> Option<(String, Safety)> {
        let mut text = String::new();
        let mut safety = Safety::Safe;
        for part in parts {
            let value = match part {
                Part::Text(plain) => {
                    text.push_str(plain);
                    continue;
                }
                Part::Value(Attribute::UserName) => self.user_name.as_deref(),
                Part::Value(Attribute::ClientId) => Some(&*self.client_id),
                Part::Value(Attribute::Group) => group,
                Part::Value(Attribute::Certificate) => self.certificate.as_deref(),
                Part::Value(Attribute::Listener) => self.listener.as_deref(),
            };
            let value = value.filter(|value| !value.is_empty())?;
            if value.contains(['/', '+', '#', '\0'])
                || (is_first && text.is_empty() && value.starts_with('$'))
            {
                safety = Safety::Unsafe;
            }
            text.push_str(value);
        }
        Some((text, safety))
    }
}

/// Whether a level contains a group.
pub(super) fn has_group(parts: &[Part]) -> bool {
    parts.contains(&Part::Value(Attribute::Group))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(text: &str, placeholders: Placeholders) -> Vec<Level> {
        Template::parse(text, placeholders).unwrap().levels.to_vec()
    }

    fn text(text: &str) -> Level {
        Level::Text(text.into())
    }

    #[test]
    fn filters_are_read_with_the_placeholders_of_their_file() {
        let composed = |parts: &[Part]| Level::Composed(parts.into());
        let (user, client) = (Part::Value(Attribute::UserName), Part::Value(Attribute::ClientId));
        assert_eq!(
            levels("a/%u/x-%c%%/+/#", Placeholders::All),
            [
                text("a"),
                composed(std::slice::from_ref(&user)),
                composed(&[Part::Text("x-".into()), client, Part::Text("%".into())]),
                Level::Single,
                Level::Multi,
            ]
        );
        assert_eq!(levels("%g", Placeholders::Mosquitto), [text("%g")]);
        assert_eq!(levels("50%", Placeholders::Mosquitto), [text("50%")]);
        assert_eq!(
            levels("%%u", Placeholders::Mosquitto),
            [composed(&[Part::Text("%".into()), user])]
        );
        assert_eq!(levels("%u", Placeholders::None), [text("%u")]);
        assert_eq!(levels("%%u", Placeholders::All), [text("%u")]);
        for wrong in ["%x", "50%", "%{claim}", "%"] {
            assert_eq!(Template::parse(wrong, Placeholders::All), Err(TemplateError::Placeholder));
        }
        for wrong in ["", "a/#/b", "a+", "$share/g/a", "a\0"] {
            assert!(Template::parse(wrong, Placeholders::All).is_err(), "{wrong}");
        }
        let deep = "a/".repeat(MAX_LEVELS);
        assert_eq!(Template::parse(&deep, Placeholders::None), Err(TemplateError::Levels));
    }

    #[test]
    fn a_value_that_is_not_one_level_is_unsafe() {
        let Level::Composed(parts) = &levels("%u", Placeholders::All)[0] else { panic!() };
        let substitute = |user: Option<&str>, is_first| {
            let values = Values { user_name: user.map(Into::into), ..Values::default() };
            values.substitute(parts, None, is_first).map(|(_, safety)| safety)
        };
        assert_eq!(substitute(Some("ann"), true), Some(Safety::Safe));
        assert_eq!(substitute(Some("$SYS"), false), Some(Safety::Safe));
        assert_eq!(substitute(Some("$SYS"), true), Some(Safety::Unsafe));
        for value in ["a/b", "+", "#", "a#", "/", "a\0b"] {
            assert_eq!(substitute(Some(value), false), Some(Safety::Unsafe), "{value}");
        }
        assert_eq!(substitute(Some(""), false), None);
        assert_eq!(substitute(None, false), None);
    }
}
