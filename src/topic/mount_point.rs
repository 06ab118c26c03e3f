//! Mount points: the topic prefix of the Clients of a listener.
//!
//! Inside, a Client sees Topic Names without the mount point; outside, and in the state of the broker, they have it as a
//! prefix. Both directions are implemented here, so that they agree. A Topic Name without a counterpart inside is not
//! visible there: `site-1` is not below `site-1/`, and `site-1/` itself would be empty inside. [MQTT-4.7.3-1]
//!
//! Topics that begin with `$` keep that property on both sides, because no wildcard at the first level may match them
//! [MQTT-4.7.2-1]: `$aws/x` inside `site-1/` is `$site-1/$aws/x` outside, and neither `#` inside nor `#` outside sees it.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::packet::property::{Property, iterate};
use crate::topic::name::MAX_TOPIC_BYTES;
use crate::topic::reserved::reserved_root;

/// The longest mount point, in bytes.
const MAX_MOUNT_POINT_BYTES: usize = 1024;

/// A prefix of Topic Names: whole levels, with a `/` at the end. Cloning shares the text.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct MountPoint(Arc<str>);

/// Why a string is not a mount point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MountPointError {
    /// It is longer than [`MAX_MOUNT_POINT_BYTES`].
    #[error("it is longer than {MAX_MOUNT_POINT_BYTES} bytes")]
    TooLong,
    /// It contains `+`, `#` or U+0000.
    #[error("it contains a wildcard or NUL character")]
    Wildcard,
    /// It begins with `$`.
    #[error("it begins with $")]
    Dollar,
    /// With `$` before it, its first level is reserved for the broker.
    #[error("topics below ${0} are reserved for the broker")]
    Reserved(&'static str),
}

impl MountPoint {
    /// Checks a mount point; `None` if the text is empty. A missing `/` at the end is added: without it `site-1`
    /// would include `site-10/`.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub(crate) fn parse(text: &str) -> Result<Option<Self>, MountPointError> {
        if text.is_empty() {
            return Ok(None);
        }
        if text.len() > MAX_MOUNT_POINT_BYTES {
            return Err(MountPointError::TooLong);
        }
        if text.contains(['+', '#', '\0']) {
            return Err(MountPointError::Wildcard);
        }
        if text.starts_with('$') {
            return Err(MountPointError::Dollar);
        }
        if let Some(root) = reserved_root(&format!("${text}")) {
            return Err(MountPointError::Reserved(root));
        }
        let slash = if text.ends_with('/') { "" } else { "/" };
        Ok(Some(Self(format!("{text}{slash}").into())))
    }

    /// The text, which ends with `/`.
    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The outside name of a Topic Name, or of a Topic Filter without `$share/…/`.
    #[must_use]
    pub(crate) fn outside(&self, inside: &str) -> String {
        let dollar = if inside.starts_with('$') { "$" } else { "" };
        let mount = &self.0;
        format!("{dollar}{mount}{inside}")
    }

    /// The same for a Topic Filter as in SUBSCRIBE: the group of a Shared Subscription stays in front.
    #[must_use]
    pub(crate) fn filter_outside(&self, inside: &str) -> String {
        match inside.strip_prefix("$share/").and_then(|rest| rest.split_once('/')) {
            Some((share, rest)) => format!("$share/{share}/{}", self.outside(rest)),
            None => self.outside(inside),
        }
    }

    /// The inside name of a Topic Name; `None` if it is not visible there.
    #[must_use]
    pub(crate) fn inside<'a>(&self, outside: &'a str) -> Option<&'a str> {
        match outside.strip_prefix('$') {
            Some(rest) => rest.strip_prefix(&*self.0).filter(|inside| inside.starts_with('$')),
            None => outside
                .strip_prefix(&*self.0)
                .filter(|inside| !inside.is_empty() && !inside.starts_with('$')),
        }
    }

    /// Properties of a PUBLISH or a Will from inside, with the outside name of their Response Topic. `None` if that
    /// would be too long for a Topic Name.
    #[must_use]
    pub(crate) fn properties_outside<'a>(&self, properties: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        let Some(topic) = response_topic(properties) else { return Some(properties.into()) };
        let outside = self.outside(topic);
        if outside.len() > MAX_TOPIC_BYTES {
            return None;
        }
        Some(with_response_topic(properties, Some(&outside)).into())
    }

    /// Properties of a message for a Client inside, with the inside name of their Response Topic. A Response Topic that
    /// is not visible inside is removed: nobody there could send the response, but the message is still delivered.
    #[must_use]
    pub(crate) fn properties_inside<'a>(&self, properties: &'a [u8]) -> Cow<'a, [u8]> {
        match response_topic(properties) {
            Some(topic) => with_response_topic(properties, self.inside(topic)).into(),
            None => properties.into(),
        }
    }
}

fn response_topic(properties: &[u8]) -> Option<&str> {
    iterate(properties).find_map(|property| match property {
        Property::ResponseTopic(topic) => Some(topic),
        _ => None,
    })
}

fn with_response_topic(properties: &[u8], topic: Option<&str>) -> Vec<u8> {
    let mut out = Vec::with_capacity(properties.len() + topic.map_or(0, str::len));
    for property in iterate(properties) {
        match (property, topic) {
            (Property::ResponseTopic(_), Some(topic)) => {
                Property::ResponseTopic(topic).encode(&mut out);
            }
            (Property::ResponseTopic(_), None) => {}
            (other, _) => other.encode(&mut out),
        }
    }
    out
}

impl fmt::Debug for MountPoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::{MountPoint, MountPointError, response_topic};
    use crate::packet::property::Property;

    fn site() -> MountPoint {
        MountPoint::parse("site-1/").unwrap().unwrap()
    }

    #[test]
    fn a_mount_point_ends_with_a_slash() {
        assert_eq!(MountPoint::parse(""), Ok(None));
        for text in ["site-1", "site-1/"] {
            assert_eq!(MountPoint::parse(text).unwrap().unwrap().as_str(), "site-1/");
        }
        for text in ["/", "/a", "a/b", "a//"] {
            assert!(MountPoint::parse(text).unwrap().unwrap().as_str().ends_with('/'), "{text}");
        }
        assert_eq!(MountPoint::parse("a/+/"), Err(MountPointError::Wildcard));
        assert_eq!(MountPoint::parse("a\0"), Err(MountPointError::Wildcard));
        assert_eq!(MountPoint::parse("$a/"), Err(MountPointError::Dollar));
        assert_eq!(MountPoint::parse("SYS/a"), Err(MountPointError::Reserved("SYS")));
        assert_eq!(MountPoint::parse(&"a".repeat(1025)), Err(MountPointError::TooLong));
    }

    /// A name mapped outside and back inside is unchanged.
    #[test]
    fn both_ways_agree() {
        for topic in ["a", "/", "/a", "a/", "$aws/x", "$", "a/$b", "site-1/a", "$site-1/a"] {
            assert_eq!(site().inside(&site().outside(topic)), Some(topic));
        }
    }

    #[test]
    fn what_lies_beside_is_not_inside() {
        for topic in [
            "site-1",
            "site-1/",
            "site-10/a",
            "site-1a",
            "a",
            "$SYS/a",
            "site-1/$aws/x",
            "$site-1/a",
            "$site-1/",
        ] {
            assert_eq!(site().inside(topic), None, "{topic}");
        }
    }

    #[test]
    fn groups_stay_in_front_of_the_mount_point() {
        assert_eq!(site().filter_outside("$share/g/#"), "$share/g/site-1/#");
        assert_eq!(site().filter_outside("$share/g/$aws/#"), "$share/g/$site-1/$aws/#");
        assert_eq!(site().filter_outside("#"), "site-1/#");
        assert_eq!(site().filter_outside("+/a"), "site-1/+/a");
    }

    #[test]
    fn response_topics_are_mapped_or_left_out_and_everything_else_stays() {
        let mut properties = Vec::new();
        for property in [
            Property::UserProperty("a", "b"),
            Property::ResponseTopic("answers"),
            Property::CorrelationData(&[0, 1]),
            Property::UserProperty("a", "b"),
        ] {
            property.encode(&mut properties);
        }
        let outside = site().properties_outside(&properties).unwrap().into_owned();
        assert_eq!(response_topic(&outside), Some("site-1/answers"));
        assert_eq!(*site().properties_inside(&outside), *properties);
        let elsewhere = site().properties_inside(&properties);
        assert_eq!(response_topic(&elsewhere), None);
        assert_eq!(elsewhere.len(), properties.len() - 3 - "answers".len());
    }

    #[test]
    fn a_response_topic_that_grows_too_long_has_no_name_outside() {
        let long = "a".repeat(65_530);
        let mut properties = Vec::new();
        Property::ResponseTopic(&long).encode(&mut properties);
        assert!(site().properties_outside(&properties).is_none());
        assert_eq!(site().properties_outside(&[]).unwrap().len(), 0);
    }
}
