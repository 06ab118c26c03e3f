//! The properties that a Server forwards unaltered, and the two that a bridge changes: the Response Topic is renamed
//! like the topic, and the hop trail (a User Property) grows by one.
//!
//! Everything else is copied byte for byte, so order and content stay. [MQTT-3.3.2-18]

/// User Property with the brokers a message has passed, oldest first, separated by commas.
pub(crate) const HOPS: &str = "petrel-hops";

const PAYLOAD_FORMAT: u8 = 0x01;
const CONTENT_TYPE: u8 = 0x03;
const RESPONSE_TOPIC: u8 = 0x08;
const CORRELATION_DATA: u8 = 0x09;
const USER_PROPERTY: u8 = 0x26;

/// One property with its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Property<'a> {
    ResponseTopic(&'a str),
    User(&'a str, &'a str),
    Other,
}

/// Iterates over encoded properties; ends early at anything unknown, which the decoder does not let through.
struct Walk<'a> {
    rest: &'a [u8],
}

impl<'a> Walk<'a> {
    fn field(bytes: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
        let (length, rest) = bytes.split_first_chunk::<2>()?;
        rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
    }

    fn text(bytes: &'a [u8]) -> Option<(&'a str, &'a [u8])> {
        let (field, rest) = Self::field(bytes)?;
        Some((std::str::from_utf8(field).ok()?, rest))
    }

    fn property(&self) -> Option<(Property<'a>, &'a [u8])> {
        let (id, rest) = self.rest.split_first()?;
        match *id {
            PAYLOAD_FORMAT => Some((Property::Other, rest.get(1..)?)),
            CONTENT_TYPE | CORRELATION_DATA => Some((Property::Other, Self::field(rest)?.1)),
            RESPONSE_TOPIC => {
                let (topic, rest) = Self::text(rest)?;
                Some((Property::ResponseTopic(topic), rest))
            }
            USER_PROPERTY => {
                let (name, rest) = Self::text(rest)?;
                let (value, rest) = Self::text(rest)?;
                Some((Property::User(name, value), rest))
            }
            _ => None,
        }
    }
}

impl<'a> Iterator for Walk<'a> {
    /// The property and its encoded bytes.
    type Item = (Property<'a>, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (property, rest) = self.property()?;
        let length = self.rest.len() - rest.len();
        let (bytes, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some((property, bytes))
    }
}

/// The Response Topic among encoded properties.
#[must_use]
pub(crate) fn response_topic(properties: &[u8]) -> Option<&str> {
    Walk { rest: properties }.find_map(|(property, _)| match property {
        Property::ResponseTopic(topic) => Some(topic),
        _ => None,
    })
}

/// The hop trail among encoded properties.
#[must_use]
pub(crate) fn hop_trail(properties: &[u8]) -> Option<&str> {
    Walk { rest: properties }.find_map(|(property, _)| match property {
        Property::User(HOPS, trail) => Some(trail),
        _ => None,
    })
}

/// The changes between the two sides.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Changes<'a> {
    /// A new name for the Response Topic.
    pub(crate) response_topic: Option<&'a str>,
    /// A broker to append to the hop trail.
    pub(crate) hop: Option<&'a str>,
}

/// Copies `properties` into `target` (which is cleared) with `changes` applied.
pub(crate) fn rewrite(properties: &[u8], changes: Changes<'_>, target: &mut Vec<u8>) {
    target.clear();
    let mut hop = changes.hop;
    for (property, bytes) in (Walk { rest: properties }) {
        match (property, changes.response_topic) {
            (Property::ResponseTopic(_), Some(name)) => {
                target.push(RESPONSE_TOPIC);
                push_text(target, &[name]);
            }
            (Property::User(HOPS, trail), _) => match hop.take() {
                Some(id) if trail.is_empty() => push_user(target, &[id]),
                Some(id) if u16::try_from(trail.len() + 1 + id.len()).is_ok() => {
                    push_user(target, &[trail, ",", id]);
                }
                _ => target.extend_from_slice(bytes),
            },
            _ => target.extend_from_slice(bytes),
        }
    }
    if let Some(id) = hop {
        push_user(target, &[id]);
    }
}

fn push_user(target: &mut Vec<u8>, value: &[&str]) {
    target.push(USER_PROPERTY);
    push_text(target, &[HOPS]);
    push_text(target, value);
}

/// Callers keep the sum below 65,536 bytes.
fn push_text(target: &mut Vec<u8>, parts: &[&str]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let length = u16::try_from(length).unwrap_or(u16::MAX);
    target.extend_from_slice(&length.to_be_bytes());
    for part in parts {
        target.extend_from_slice(part.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, value: &str) -> Vec<u8> {
        let mut bytes = vec![USER_PROPERTY];
        push_text(&mut bytes, &[name]);
        push_text(&mut bytes, &[value]);
        bytes
    }

    fn sample() -> Vec<u8> {
        let mut bytes = vec![PAYLOAD_FORMAT, 1, CONTENT_TYPE, 0, 1, b'j', RESPONSE_TOPIC, 0, 3];
        bytes.extend_from_slice(b"a/b");
        bytes.extend_from_slice(&[CORRELATION_DATA, 0, 2, 0xFF, 0x00]);
        bytes.extend(user("k", "1"));
        bytes.extend(user("k", "2"));
        bytes
    }

    #[test]
    fn nothing_changes_without_changes() {
        let mut copy = Vec::new();
        rewrite(&sample(), Changes::default(), &mut copy);
        assert_eq!(copy, sample());
    }

    #[test]
    fn the_response_topic_is_renamed_in_its_place() {
        let mut copy = Vec::new();
        let changes = Changes { response_topic: Some("remote/a/b"), hop: None };
        rewrite(&sample(), changes, &mut copy);
        assert_eq!(response_topic(&copy), Some("remote/a/b"));
        rewrite(&copy.clone(), Changes { response_topic: Some("a/b"), hop: None }, &mut copy);
        assert_eq!(copy, sample());
    }

    #[test]
    fn the_trail_begins_and_grows() {
        let (mut once, mut twice) = (Vec::new(), Vec::new());
        rewrite(&sample(), Changes { response_topic: None, hop: Some("A") }, &mut once);
        assert_eq!(hop_trail(&once), Some("A"));
        assert!(once.starts_with(&sample()));
        rewrite(&once, Changes { response_topic: None, hop: Some("B") }, &mut twice);
        assert_eq!(hop_trail(&twice), Some("A,B"));
        assert_eq!(twice.len(), once.len() + 2);
    }

    #[test]
    fn a_trail_that_cannot_grow_stays() {
        let long = user(HOPS, &"x".repeat(65_535));
        let mut copy = Vec::new();
        rewrite(&long, Changes { response_topic: None, hop: Some("B") }, &mut copy);
        assert_eq!(copy, long);
    }

    #[test]
    fn broken_properties_end_the_walk() {
        for bytes in
            [&[USER_PROPERTY, 0, 9][..], &[0x77, 1], &[PAYLOAD_FORMAT], &[RESPONSE_TOPIC, 0]]
        {
            assert_eq!(hop_trail(bytes), None);
            assert_eq!(response_topic(bytes), None);
        }
    }
}
