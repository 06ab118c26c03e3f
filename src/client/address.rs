//! The URL of `-L`: `mqtt://user:password@host:port/topic` and its relatives.

/// What a URL says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BrokerUrl {
    pub(super) host: String,
    pub(super) port: Option<u16>,
    pub(super) tls: bool,
    /// The path of a WebSocket.
    pub(super) websocket: Option<String>,
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
    pub(super) topic: Option<String>,
}

/// Reads a URL. User name, password and topic may be percent-encoded.
///
/// # Errors
/// What is wrong with it.
pub(super) fn parse_url(text: &str) -> Result<BrokerUrl, String> {
    let (scheme, rest) = text.split_once("://").ok_or("a URL starts with mqtt:// or mqtts://")?;
    let (tls, is_websocket) = match scheme {
        "mqtt" => (false, false),
        "mqtts" => (true, false),
        "ws" => (false, true),
        "wss" => (true, true),
        other => return Err(format!("{other}:// is unknown; use mqtt, mqtts, ws or wss")),
    };
    let (authority, path) = match rest.split_once('/') {
        Some((authority, path)) => (authority, Some(path)),
        None => (rest, None),
    };
    let (user, address) = match authority.rsplit_once('@') {
        Some((user, address)) => (Some(user), address),
        None => (None, authority),
    };
    let (username, password) = match user.map(|user| user.split_once(':').unwrap_or((user, ""))) {
        None => (None, None),
        Some((name, "")) => (Some(decode(name)?), None),
        Some((name, password)) => (Some(decode(name)?), Some(decode(password)?)),
    };
    let (host, port) = split_port(address)?;
    let path = path.filter(|path| !path.is_empty());
    let (websocket, topic) = match (is_websocket, path) {
        (true, path) => (Some(format!("/{}", path.unwrap_or("mqtt"))), None),
        (false, path) => (None, path.map(decode).transpose()?),
    };
    Ok(BrokerUrl { host, port, tls, websocket, username, password, topic })
}

fn split_port(address: &str) -> Result<(String, Option<u16>), String> {
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) =
                rest.split_once(']').ok_or("the bracket of the host is not closed")?;
            match rest {
                "" => (host, None),
                _ => (host, Some(rest.strip_prefix(':').ok_or("only a port may follow ]")?)),
            }
        }
        None => match address.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        },
    };
    if host.is_empty() {
        return Err("the host is missing".to_owned());
    }
    let parse = |port: &str| match port.parse() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("\"{port}\" is no port; an IPv6 address stands in brackets")),
    };
    Ok((host.to_owned(), port.map(parse).transpose()?))
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
        assert_eq!(url.websocket, None);
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
        assert_eq!((url.websocket.as_deref(), url.topic), (Some("/mqtt"), None));
        let url = parse_url("wss://[::1]/broker/x").unwrap();
        assert_eq!((url.host.as_str(), url.port, url.tls), ("::1", None, true));
        assert_eq!(url.websocket.as_deref(), Some("/broker/x"));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, reason) in [
            ("localhost", "starts with"),
            ("http://localhost", "unknown"),
            ("mqtt://", "host is missing"),
            ("mqtt://:1883", "host is missing"),
            ("mqtt://h:0", "no port"),
            ("mqtt://h:70000", "no port"),
            ("mqtt://::1", "host is missing"),
            ("mqtt://fe80::1", "brackets"),
            ("mqtt://[::1", "not closed"),
            ("mqtt://[::1]x", "port"),
            ("mqtt://h/%4", "hexadecimal"),
            ("mqtt://h/%ff", "UTF-8"),
        ] {
            let error = parse_url(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
