//! How `petrel sub` and `petrel request` print a message: raw, with its topic, or by a format as `mosquitto_sub` knows it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::client::message::Incoming;
use crate::client::timestamp::{CONVERSIONS, Timestamp};

/// A checked format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Format {
    pieces: Vec<Piece>,
    ending: &'static [u8],
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(Vec<u8>),
    Field(Field),
    Time(char),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Field {
    token: char,
    is_left: bool,
    fill: u8,
    width: usize,
    precision: Option<usize>,
}

/// Tokens behind `%`.
const TOKENS: &str = "ACDEFIJPRSUXjlmpqrtx";
/// Widths and precisions beyond this are typing errors.
const WIDTH_MAX: usize = 10_000;

/// What ends a printed message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// A new line.
    Line,
    /// Nothing: `-N`.
    None,
}

impl Ending {
    fn bytes(self) -> &'static [u8] {
        match self {
            Self::Line => b"\n",
            Self::None => b"",
        }
    }
}

impl Format {
    /// Only the payload.
    pub(super) fn payload(ending: Ending) -> Self {
        Self { pieces: vec![Piece::Field(Field::plain('p'))], ending: ending.bytes() }
    }

    /// The topic, a space and the payload; `(null)` for an empty one.
    pub(super) fn verbose(ending: Ending) -> Self {
        let space = Piece::Literal(b" ".to_vec());
        let pieces = vec![Piece::Field(Field::plain('t')), space, Piece::Field(Field::plain('v'))];
        Self { pieces, ending: ending.bytes() }
    }

    /// Reads a format; `json` is short for `%j`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(text: &str, ending: Ending) -> Result<Self, String> {
        let text = if text == "json" { "%j" } else { text };
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text.chars().peekable();
        while let Some(next) = rest.next() {
            let piece = match next {
                '%' if rest.next_if_eq(&'%').is_some() => None,
                '@' if rest.next_if_eq(&'@').is_some() => None,
                '%' => Some(Piece::Field(field(&mut rest)?)),
                '@' => Some(Piece::Time(conversion(rest.next())?)),
                '\\' => {
                    literal.push(escape(rest.next())?);
                    continue;
                }
                _ => None,
            };
            match piece {
                None => literal.push(next),
                Some(piece) => {
                    flush(&mut literal, &mut pieces);
                    pieces.push(piece);
                }
            }
        }
        flush(&mut literal, &mut pieces);
        Ok(Self { pieces, ending: ending.bytes() })
    }

    /// Appends a message as it is to be printed.
    pub(super) fn write(&self, message: &Incoming, now: Timestamp, output: &mut Vec<u8>) {
        for piece in &self.pieces {
            match piece {
                Piece::Literal(bytes) => output.extend_from_slice(bytes),
                Piece::Field(field) => field.write(message, now, output),
                Piece::Time(conversion) => {
                    let mut text = String::new();
                    now.convert(*conversion, &mut text);
                    output.extend_from_slice(text.as_bytes());
                }
            }
        }
        output.extend_from_slice(self.ending);
    }
}

fn flush(literal: &mut String, pieces: &mut Vec<Piece>) {
    if !literal.is_empty() {
        pieces.push(Piece::Literal(std::mem::take(literal).into_bytes()));
    }
}

fn field(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Field, String> {
    let mut field = Field::plain(' ');
    while let Some(flag) = rest.next_if(|next| matches!(next, '-' | '0' | ' ')) {
        match flag {
            '-' => field.is_left = true,
            '0' => field.fill = b'0',
            _ => field.fill = b' ',
        }
    }
    field.width = number(rest)?.unwrap_or_default();
    if rest.next_if_eq(&'.').is_some() {
        field.precision =
            Some(number(rest)?.ok_or("a . in a format must be followed by a number")?);
    }
    match rest.next() {
        Some(token) if TOKENS.contains(token) => field.token = token,
        Some(other) => {
            let known: Vec<String> = TOKENS.chars().map(|token| format!("%{token}")).collect();
            return Err(format!("%{other} is unknown; there are {} and %%", known.join(" ")));
        }
        None => return Err("the format ends after %; write %% for a percent sign".to_owned()),
    }
    Ok(field)
}

fn number(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Option<usize>, String> {
    let mut digits = String::new();
    while let Some(digit) = rest.next_if(char::is_ascii_digit) {
        digits.push(digit);
    }
    match digits.parse() {
        Ok(number) if number <= WIDTH_MAX => Ok(Some(number)),
        _ if digits.is_empty() => Ok(None),
        _ => Err(format!("a width of {digits} is too large; at most {WIDTH_MAX}")),
    }
}

fn conversion(next: Option<char>) -> Result<char, String> {
    match next {
        Some(next) if CONVERSIONS.contains(next) => Ok(next),
        Some(other) => {
            let known: Vec<String> = CONVERSIONS.chars().map(|next| format!("@{next}")).collect();
            Err(format!("@{other} is unknown; there are {} and @@", known.join(" ")))
        }
        None => Err("the format ends after @; write @@ for an at sign".to_owned()),
    }
}

fn escape(next: Option<char>) -> Result<char, String> {
    match next {
        Some('\\') => Ok('\\'),
        Some('0') => Ok('\0'),
        Some('a') => Ok('\x07'),
        Some('e') => Ok('\x1b'),
        Some('n') => Ok('\n'),
        Some('r') => Ok('\r'),
        Some('t') => Ok('\t'),
        Some('v') => Ok('\x0b'),
        Some(other) => {
            Err(format!("\\{other} is unknown; there are \\\\ \\0 \\a \\e \\n \\r \\t \\v"))
        }
        None => Err("the format ends after \\".to_owned()),
    }
}

impl Field {
    fn plain(token: char) -> Self {
        Self { token, is_left: false, fill: b' ', width: 0, precision: None }
    }

    fn write(self, message: &Incoming, now: Timestamp, output: &mut Vec<u8>) {
        let start = output.len();
        self.write_value(message, now, output);
        if let Some(precision) = self.precision {
            output.truncate(start + precision);
        }
        let missing = self.width.saturating_sub(output.len() - start);
        if missing == 0 {
            return;
        }
        let padding = std::iter::repeat_n(if self.is_left { b' ' } else { self.fill }, missing);
        match self.is_left {
            true => output.extend(padding),
            false => drop(output.splice(start..start, padding)),
        }
    }

    fn write_value(self, message: &Incoming, now: Timestamp, output: &mut Vec<u8>) {
        let properties = message.properties();
        let text = match self.token {
            'p' => return output.extend_from_slice(&message.payload),
            'v' if message.payload.is_empty() => "(null)".to_owned(),
            'v' => return output.extend_from_slice(&message.payload),
            'D' => {
                return output
                    .extend_from_slice(properties.correlation_data.as_deref().unwrap_or_default());
            }
            'x' => hexadecimal(&message.payload),
            'X' => hexadecimal(&message.payload).to_uppercase(),
            't' => message.topic.clone(),
            'q' => (message.qos as u8).to_string(),
            'r' => u8::from(message.retain).to_string(),
            'l' => message.payload.len().to_string(),
            'm' => message.packet_id.to_string(),
            'A' => or_empty(properties.topic_alias),
            'C' => or_empty(properties.content_type.as_ref()),
            'E' => or_empty(properties.message_expiry_interval),
            'F' => or_empty(properties.payload_format_indicator),
            'R' => or_empty(properties.response_topic.as_ref()),
            'P' => {
                let pairs = properties.user_properties.iter();
                pairs.map(|(key, value)| format!("{key}:{value}")).collect::<Vec<_>>().join(" ")
            }
            'S' => {
                let ids = properties.subscription_identifiers.iter();
                ids.map(ToString::to_string).collect::<Vec<_>>().join(" ")
            }
            'I' => now.iso(),
            'U' => now.unix(),
            'j' => json(message, now, Payload::Text).to_string(),
            'J' => json(message, now, Payload::Json).to_string(),
            _ => String::new(),
        };
        output.extend_from_slice(text.as_bytes());
    }
}

fn or_empty(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

/// What a payload is, in JSON.
#[derive(Clone, Copy)]
enum Payload {
    /// Text, in quotes.
    Text,
    /// JSON itself.
    Json,
}

fn json(message: &Incoming, now: Timestamp, kind: Payload) -> Value {
    let mut object = Map::new();
    object.insert("tst".to_owned(), now.iso_micros().into());
    object.insert("topic".to_owned(), message.topic.clone().into());
    object.insert("qos".to_owned(), (message.qos as u8).into());
    object.insert("retain".to_owned(), u8::from(message.retain).into());
    object.insert("payloadlen".to_owned(), message.payload.len().into());
    if message.packet_id > 0 {
        object.insert("mid".to_owned(), message.packet_id.into());
    }
    let properties = json_properties(message);
    if !properties.is_empty() {
        object.insert("properties".to_owned(), properties.into());
    }
    let (key, payload) = match (kind, std::str::from_utf8(&message.payload)) {
        // Payloads that are not JSON are shown as text: one message must not make the output unreadable for a parser.
        (Payload::Json, Ok(text)) => {
            ("payload", serde_json::from_str(text).unwrap_or_else(|_| text.into()))
        }
        (Payload::Text, Ok(text)) => ("payload", text.into()),
        (_, Err(_)) => ("payload_base64", STANDARD.encode(&message.payload).into()),
    };
    object.insert(key.to_owned(), payload);
    Value::Object(object)
}

fn json_properties(message: &Incoming) -> Map<String, Value> {
    let properties = message.properties();
    let mut object = Map::new();
    let mut insert = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            object.insert(key.to_owned(), value);
        }
    };
    insert("payload-format-indicator", properties.payload_format_indicator.map(Value::from));
    insert("message-expiry-interval", properties.message_expiry_interval.map(Value::from));
    insert("content-type", properties.content_type.clone().map(Value::from));
    insert("response-topic", properties.response_topic.clone().map(Value::from));
    let correlation = properties.correlation_data.as_deref();
    insert(
        "correlation-data",
        correlation.and_then(|data| std::str::from_utf8(data).ok()).map(Value::from),
    );
    let binary = correlation.filter(|data| std::str::from_utf8(data).is_err());
    insert("correlation-data_base64", binary.map(|data| STANDARD.encode(data).into()));
    insert("topic-alias", properties.topic_alias.map(Value::from));
    let ids = &properties.subscription_identifiers;
    insert("subscription-identifiers", (!ids.is_empty()).then(|| json!(ids)));
    // An array, because the same key may stand there twice, and the order counts.
    let pairs: Vec<Value> =
        properties.user_properties.iter().map(|(key, value)| json!({ key: value })).collect();
    insert("user-properties", (!pairs.is_empty()).then(|| pairs.into()));
    object
}

/// Two digits for each byte.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        for digit in [byte >> 4, byte & 0xF] {
            text.push(char::from_digit(digit.into(), 16).unwrap_or('?'));
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use rumqttc::v5::mqttbytes::v5::PublishProperties;

    use super::*;
    use crate::packet::QoS;

    fn message() -> Incoming {
        Incoming {
            topic: "a/b".to_owned(),
            qos: QoS::AtLeastOnce,
            retain: true,
            packet_id: 7,
            payload: Bytes::from_static(b"{\"n\":1}"),
            properties: Some(PublishProperties {
                content_type: Some("application/json".to_owned()),
                correlation_data: Some(Bytes::from_static(b"\xff\x00")),
                response_topic: Some("r".to_owned()),
                message_expiry_interval: Some(60),
                payload_format_indicator: Some(1),
                topic_alias: None,
                subscription_identifiers: vec![3, 4],
                user_properties: vec![
                    ("k".to_owned(), "v".to_owned()),
                    ("k".to_owned(), "w".to_owned()),
                ],
            }),
        }
    }

    fn print(format: &Format, message: &Incoming) -> Vec<u8> {
        let mut output = Vec::new();
        format.write(message, Timestamp::at(Duration::new(1_470_818_943, 5)), &mut output);
        output
    }

    fn formatted(format: &str) -> String {
        let format = Format::parse(format, Ending::None).unwrap();
        String::from_utf8_lossy(&print(&format, &message())).into_owned()
    }

    #[test]
    fn tokens_stand_for_what_they_should() {
        assert_eq!(formatted("%t|%p|%q|%r|%l|%m"), "a/b|{\"n\":1}|1|1|7|7");
        assert_eq!(formatted("%A|%C|%E|%F|%P|%R|%S"), "|application/json|60|1|k:v k:w|r|3 4");
        assert_eq!(formatted("%x %X"), "7b226e223a317d 7B226E223A317D");
        assert_eq!(formatted("%I %U"), "2016-08-10T08:49:03+0000 1470818943.000000005");
        assert_eq!(formatted("@Y-@m-@d @@ %%\\t\\\\"), "2016-08-10 @ %\t\\");
        assert_eq!(print(&Format::parse("%D", Ending::None).unwrap(), &message()), b"\xff\x00");
    }

    #[test]
    fn fields_have_width_and_precision() {
        assert_eq!(formatted("[%6t][%-6t][%.1t][%03q][%-03q]"), "[   a/b][a/b   ][a][001][1  ]");
    }

    #[test]
    fn json_is_read_back() {
        let value: Value = serde_json::from_str(&formatted("json")).unwrap();
        assert_eq!(value["topic"], "a/b");
        assert_eq!(value["payload"], "{\"n\":1}");
        assert_eq!(
            (&value["qos"], &value["retain"], &value["mid"]),
            (&json!(1), &json!(1), &json!(7))
        );
        assert_eq!(value["properties"]["user-properties"], json!([{"k": "v"}, {"k": "w"}]));
        assert_eq!(value["properties"]["correlation-data_base64"], "/wA=");
        let value: Value = serde_json::from_str(&formatted("%J")).unwrap();
        assert_eq!(value["payload"], json!({"n": 1}));
    }

    #[test]
    fn json_survives_every_payload() {
        for payload in [&b"\xff\xfe"[..], b"\"\n\0", b"", b"not json"] {
            let message = Incoming { payload: Bytes::from_static(payload), ..Incoming::default() };
            for format in ["%j", "%J"] {
                let format = Format::parse(format, Ending::Line).unwrap();
                let value: Value = serde_json::from_slice(&print(&format, &message)).unwrap();
                match std::str::from_utf8(payload) {
                    Ok(text) => assert_eq!(value["payload"], text),
                    Err(_) => assert_eq!(value["payload_base64"], "//4="),
                }
            }
        }
    }

    #[test]
    fn raw_and_verbose_output_keep_every_byte() {
        let payload = Bytes::from_static(b"\x00\xff\n");
        let message = Incoming { topic: "t".to_owned(), payload, ..Incoming::default() };
        assert_eq!(print(&Format::payload(Ending::None), &message), b"\x00\xff\n");
        assert_eq!(print(&Format::payload(Ending::Line), &message), b"\x00\xff\n\n");
        assert_eq!(print(&Format::verbose(Ending::Line), &message), b"t \x00\xff\n\n");
        let empty = Incoming { payload: Bytes::new(), ..message };
        assert_eq!(print(&Format::verbose(Ending::Line), &empty), b"t (null)\n");
        assert_eq!(print(&Format::payload(Ending::Line), &empty), b"\n");
    }

    #[test]
    fn mistakes_are_named() {
        for (format, reason) in [
            ("%z", "%z is unknown"),
            ("%", "ends after %"),
            ("%5", "ends after %"),
            ("%.t", "followed by a number"),
            ("%99999t", "too large"),
            ("@Q", "@Q is unknown"),
            ("@", "ends after @"),
            ("\\q", "\\q is unknown"),
            ("\\", "ends after \\"),
        ] {
            let error = Format::parse(format, Ending::Line).unwrap_err();
            assert!(error.contains(reason), "{format}: {error}");
        }
    }
}
