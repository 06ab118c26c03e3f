//! `-D COMMAND NAME VALUE`: MQTT 5.0 properties in the syntax of the mosquitto tools.

use std::str::FromStr;

use bytes::Bytes;
use rumqttc::v5::mqttbytes::v5::{
    ConnectProperties, LastWillProperties, PublishProperties, SubscribeProperties,
    UnsubscribeProperties,
};

/// The properties of each packet that may carry some.
#[derive(Debug, Clone)]
pub(super) struct PropertySet {
    pub(super) connect: ConnectProperties,
    pub(super) publish: Option<PublishProperties>,
    pub(super) subscribe: Option<SubscribeProperties>,
    pub(super) unsubscribe: Option<UnsubscribeProperties>,
    pub(super) will: LastWillProperties,
    /// Whether there are any for the Will Message.
    pub(super) has_will: bool,
}

impl Default for PropertySet {
    fn default() -> Self {
        Self {
            connect: ConnectProperties::new(),
            publish: None,
            subscribe: None,
            unsubscribe: None,
            will: LastWillProperties {
                delay_interval: None,
                payload_format_indicator: None,
                message_expiry_interval: None,
                content_type: None,
                response_topic: None,
                correlation_data: None,
                user_properties: Vec::new(),
            },
            has_will: false,
        }
    }
}

impl PropertySet {
    /// Reads the words of all `-D` options, one after the other.
    ///
    /// # Errors
    /// What is wrong, naming the property.
    pub(super) fn parse(words: &[String]) -> Result<Self, String> {
        let mut set = Self::default();
        let mut words = words.iter().map(String::as_str);
        while let Some(command) = words.next() {
            let name = words.next().ok_or_else(|| usage(command))?;
            let value = words.next().ok_or_else(|| usage(command))?;
            let pair = match name {
                "user-property" => {
                    let second = words.next().ok_or("user-property takes a name and a value")?;
                    Some((value.to_owned(), second.to_owned()))
                }
                _ => None,
            };
            let property = Property { name, value, pair };
            property
                .apply(command, &mut set)
                .map_err(|error| format!("-D {command} {name}: {error}"))?;
        }
        Ok(set)
    }
}

fn usage(command: &str) -> String {
    format!("-D {command}: write the command, the name of the property and its value")
}

/// One property as written.
struct Property<'a> {
    name: &'a str,
    value: &'a str,
    pair: Option<(String, String)>,
}

impl Property<'_> {
    fn apply(self, command: &str, set: &mut PropertySet) -> Result<(), String> {
        match command {
            "connect" => self.connect(&mut set.connect),
            "publish" => self.publish(set.publish.get_or_insert_default()),
            "subscribe" => {
                let empty = SubscribeProperties { id: None, user_properties: Vec::new() };
                self.subscribe(set.subscribe.get_or_insert(empty))
            }
            "unsubscribe" => {
                let empty = UnsubscribeProperties { user_properties: Vec::new() };
                let properties = set.unsubscribe.get_or_insert(empty);
                self.user_property(&mut properties.user_properties)
            }
            "will" => {
                set.has_will = true;
                self.will(&mut set.will)
            }
            "auth" | "disconnect" => Err(format!(
                "the MQTT library of this client (rumqttc) sends no properties in {}",
                command.to_uppercase()
            )),
            other => Err(format!(
                "\"{other}\" takes no properties; connect, publish, subscribe, unsubscribe and will do"
            )),
        }
    }

    fn connect(self, properties: &mut ConnectProperties) -> Result<(), String> {
        match self.name {
            "session-expiry-interval" => {
                single(&mut properties.session_expiry_interval, self.number()?)
            }
            "receive-maximum" => single(&mut properties.receive_maximum, self.positive()?),
            "maximum-packet-size" => single(&mut properties.max_packet_size, self.positive()?),
            "topic-alias-maximum" => single(&mut properties.topic_alias_max, self.number()?),
            "request-response-information" => {
                single(&mut properties.request_response_info, self.flag()?)
            }
            "request-problem-information" => {
                single(&mut properties.request_problem_info, self.flag()?)
            }
            "authentication-method" | "authentication-data" => {
                Err("the MQTT library of this client (rumqttc) answers no AUTH packet, so that \
                     enhanced authentication cannot succeed"
                    .to_owned())
            }
            _ => self.user_property(&mut properties.user_properties),
        }
    }

    fn publish(self, properties: &mut PublishProperties) -> Result<(), String> {
        match self.name {
            "payload-format-indicator" => {
                single(&mut properties.payload_format_indicator, self.flag()?)
            }
            "message-expiry-interval" => {
                single(&mut properties.message_expiry_interval, self.number()?)
            }
            "topic-alias" => single(&mut properties.topic_alias, self.positive()?),
            "response-topic" => single(&mut properties.response_topic, self.topic()?),
            "correlation-data" => single(&mut properties.correlation_data, self.bytes()?),
            "content-type" => single(&mut properties.content_type, self.text()?),
            _ => self.user_property(&mut properties.user_properties),
        }
    }

    fn subscribe(self, properties: &mut SubscribeProperties) -> Result<(), String> {
        if self.name != "subscription-identifier" {
            return self.user_property(&mut properties.user_properties);
        }
        match self.number()? {
            id @ 1..=268_435_455 => single(&mut properties.id, id),
            _ => Err("a subscription identifier must be between 1 and 268435455".to_owned()),
        }
    }

    fn will(self, properties: &mut LastWillProperties) -> Result<(), String> {
        match self.name {
            "will-delay-interval" => single(&mut properties.delay_interval, self.number()?),
            "payload-format-indicator" => {
                single(&mut properties.payload_format_indicator, self.flag()?)
            }
            "message-expiry-interval" => {
                single(&mut properties.message_expiry_interval, self.number()?)
            }
            "content-type" => single(&mut properties.content_type, self.text()?),
            "response-topic" => single(&mut properties.response_topic, self.topic()?),
            "correlation-data" => single(&mut properties.correlation_data, self.bytes()?),
            _ => self.user_property(&mut properties.user_properties),
        }
    }

    /// What every packet takes; anything else is unknown here.
    fn user_property(self, list: &mut Vec<(String, String)>) -> Result<(), String> {
        let Some((name, value)) = self.pair else {
            return Err("this packet has no such property".to_owned());
        };
        if name.len() > usize::from(u16::MAX) || value.len() > usize::from(u16::MAX) {
            return Err("longer than 65535 bytes".to_owned());
        }
        list.push((name, value));
        Ok(())
    }

    fn number<T: FromStr>(&self) -> Result<T, String> {
        self.value.parse().map_err(|_| format!("\"{}\" is not a number in range", self.value))
    }

    fn positive<T: FromStr + PartialEq + Default>(&self) -> Result<T, String> {
        match self.number()? {
            zero if zero == T::default() => Err("0 is not allowed".to_owned()),
            number => Ok(number),
        }
    }

    fn flag(&self) -> Result<u8, String> {
        match self.value {
            "0" => Ok(0),
            "1" => Ok(1),
            other => Err(format!("\"{other}\" is neither 0 nor 1")),
        }
    }

    fn text(&self) -> Result<String, String> {
        match self.value.len() {
            0..=0xffff => Ok(self.value.to_owned()),
            _ => Err("longer than 65535 bytes".to_owned()),
        }
    }

    fn topic(&self) -> Result<String, String> {
        match self.value {
            "" => Err("a topic must not be empty".to_owned()),
            value if value.contains(['+', '#']) => {
                Err("a topic must contain neither + nor #".to_owned())
            }
            _ => self.text(),
        }
    }

    fn bytes(&self) -> Result<Bytes, String> {
        self.text().map(Bytes::from)
    }
}

fn single<T>(place: &mut Option<T>, value: T) -> Result<(), String> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err("given twice".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<PropertySet, String> {
        let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
        PropertySet::parse(&words)
    }

    #[test]
    fn properties_reach_their_packets() {
        let set = parse(
            "publish content-type text/plain publish user-property k v connect user-property a b \
             subscribe subscription-identifier 5 will will-delay-interval 7 publish user-property k w \
             unsubscribe user-property u v connect receive-maximum 10",
        )
        .unwrap();
        let publish = set.publish.unwrap();
        assert_eq!(publish.content_type.as_deref(), Some("text/plain"));
        let pairs = [("k".to_owned(), "v".to_owned()), ("k".to_owned(), "w".to_owned())];
        assert_eq!(publish.user_properties, pairs);
        assert_eq!(set.connect.user_properties, [("a".to_owned(), "b".to_owned())]);
        assert_eq!(set.connect.receive_maximum, Some(10));
        assert_eq!(set.subscribe.unwrap().id, Some(5));
        assert_eq!(set.will.delay_interval, Some(7));
        assert!(set.has_will);
        assert_eq!(set.unsubscribe.unwrap().user_properties.len(), 1);
    }

    #[test]
    fn mistakes_name_the_property() {
        for (text, reason) in [
            ("publish", "write the command"),
            ("publish content-type", "write the command"),
            ("publish user-property k", "a name and a value"),
            ("publish content-typo x", "-D publish content-typo: this packet has no such property"),
            ("subscribe content-type x", "no such property"),
            ("publish topic-alias 0", "0 is not allowed"),
            ("publish topic-alias 65536", "not a number in range"),
            ("publish message-expiry-interval -1", "not a number in range"),
            ("publish payload-format-indicator 2", "neither 0 nor 1"),
            ("publish response-topic a/#", "neither + nor #"),
            ("subscribe subscription-identifier 0", "between 1 and"),
            ("subscribe subscription-identifier 268435456", "between 1 and"),
            ("publish content-type a publish content-type b", "given twice"),
            ("disconnect session-expiry-interval 3", "rumqttc"),
            ("connect authentication-method SCRAM-SHA-256", "AUTH"),
            ("pingreq user-property a b", "takes no properties"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
