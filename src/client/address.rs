//! The URL of `-L`: `mqtt://user:password@host:port/topic` and its relatives.

use crate::dial::address::{Carrier, Parts};

/// What a URL says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BrokerUrl {
    pub(super) host: String,
    pub(super) port: Option<u16>,
    pub(super) tls: bool,
    pub(super) carrier: Carrier,
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
    pub(super) topic: Option<String>,
}

/// Reads a URL. User name, password and topic may be percent-encoded.
///
/// # Errors
/// What is wrong with it.
pub(super) fn parse_url(text: &str) -> Result<BrokerUrl, String> {
    let Parts { scheme, user_info, host, port, path } =
        Parts::split(text).map_err(|error| error.to_string())?;
    let scheme = scheme.ok_or("a URL starts with mqtt:// or mqtts://")?;
    let (username, password) =
        match user_info.map(|user| user.split_once(':').unwrap_or((user, ""))) {
            None => (None, None),
            Some((name, "")) => (Some(decode(name)?), None),
            Some((name, password)) => (Some(decode(name)?), Some(decode(password)?)),
        };
    let (carrier, topic) = match (scheme.websocket, path.strip_prefix('/').unwrap_or_default()) {
        (true, _) => (Carrier::websocket(path), None),
        (false, "") => (Carrier::Stream, None),
        (false, topic) => (Carrier::Stream, Some(decode(topic)?)),
    };
    Ok(BrokerUrl {
        host: host.to_owned(),
        port,
        tls: scheme.tls,
        carrier,
        username,
        password,
        topic,
    })
}

fn decode(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(format!("% in \"{text}\" is not followed by two hexadecimal digits"));
        };
        bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
    }
    String::from_utf8(bytes).map_err(|_| format!("\"{text}\" is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_may_hold_everything() {
        let url = parse_url("mqtts://ann:p%40ss:word@broker.example:8884/a/b%23").unwrap();
        assert_eq!(url.host, "broker.example");
        assert_eq!(url.port, Some(8884));
        assert!(url.tls);
        assert_eq!(url.username.as_deref(), Some("ann"));
        assert_eq!(url.password.as_deref(), Some("p@ss:word"));
        assert_eq!(url.topic.as_deref(), Some("a/b#"));
        assert_eq!(url.carrier, Carrier::Stream);
    }

    #[test]
    fn a_url_may_hold_little() {
        let url = parse_url("mqtt://localhost").unwrap();
        assert_eq!((url.port, url.topic, url.username, url.tls), (None, None, None, false));
        assert_eq!(parse_url("mqtt://localhost/").unwrap().topic, None);
        assert_eq!(parse_url("mqtt://ann@localhost").unwrap().password, None);
    }

    #[test]
    fn a_websocket_has_a_path_and_no_topic() {
        let url = parse_url("ws://localhost:8083").unwrap();
        assert_eq!((url.carrier, url.topic), (Carrier::WebSocket { path: "/mqtt".into() }, None));
        let url = parse_url("wss://[::1]/broker/x").unwrap();
        assert_eq!((url.host.as_str(), url.port, url.tls), ("::1", None, true));
        assert_eq!(url.carrier, Carrier::WebSocket { path: "/broker/x".into() });
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, reason) in [
            ("localhost", "starts with"),
            ("http://localhost", "unknown"),
            ("mqtt://", "host is missing"),
            ("mqtt://:1883", "host is missing"),
            ("mqtt://h:0", "not a port"),
            ("mqtt://h:70000", "not a port"),
            ("mqtt://::1", "brackets"),
            ("mqtt://fe80::1", "brackets"),
            ("mqtt://[::1", "brackets"),
            ("mqtt://[::1]x", "brackets"),
            ("mqtt://h/%4", "hexadecimal"),
            ("mqtt://h/%ff", "UTF-8"),
        ] {
            let error = parse_url(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
