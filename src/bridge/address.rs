//! Where a remote broker is: the addresses of a bridge, as written and as parsed.

use std::fmt;

/// How the MQTT bytes travel.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Carrier {
    /// TCP, or TLS over it.
    Stream,
    /// WebSocket with the path of its request. [MQTT-6.0.0-1]
    WebSocket {
        /// For instance `/mqtt`.
        path: String,
    },
}

/// One parsed address: `mqtt://host`, `mqtts://host:8883`, `ws://host/mqtt`, `wss://host`, or only `host[:port]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RemoteAddress {
    /// Name or IP address, IPv6 without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Whether TLS is spoken.
    pub tls: bool,
    /// What the bytes travel in.
    pub carrier: Carrier,
}

/// Why an address was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not one of ours.
    #[error("\"{0}://\" is unknown; use mqtt://, mqtts://, ws:// or wss://")]
    Scheme(String),
    /// Nothing between scheme and port.
    #[error("the host name is missing")]
    Host,
    /// Not 1 to 65535.
    #[error("\"{0}\" is no port; write a number from 1 to 65535")]
    Port(String),
    /// An IPv6 address is ambiguous without brackets.
    #[error("write an IPv6 address in brackets: [::1]:1883")]
    Brackets,
    /// Secrets do not belong where they are printed.
    #[error(
        "leave user name and password out of the address; use the keys username and password_file"
    )]
    UserInfo,
    /// Only WebSocket has a path.
    #[error("only ws:// and wss:// take a path")]
    Path,
}

impl RemoteAddress {
    /// Reads one address.
    ///
    /// # Errors
    /// [`AddressError`] says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = text.trim().split_once("://").unwrap_or(("mqtt", text.trim()));
        let (tls, websocket, default_port) = match scheme.to_ascii_lowercase().as_str() {
            "mqtt" | "tcp" => (false, false, 1883),
            "mqtts" | "ssl" | "tls" => (true, false, 8883),
            "ws" => (false, true, 80),
            "wss" => (true, true, 443),
            _ => return Err(AddressError::Scheme(scheme.to_owned())),
        };
        let (authority, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        if authority.contains('@') {
            return Err(AddressError::UserInfo);
        }
        let carrier = match (websocket, path) {
            (true, "" | "/") => Carrier::WebSocket { path: "/mqtt".to_owned() },
            (true, path) => Carrier::WebSocket { path: path.to_owned() },
            (false, "" | "/") => Carrier::Stream,
            (false, _) => return Err(AddressError::Path),
        };
        let (host, port) = split_port(authority, default_port)?;
        if host.is_empty() {
            return Err(AddressError::Host);
        }
        Ok(Self { host: host.to_owned(), port, tls, carrier })
    }
}

fn split_port(authority: &str, default_port: u16) -> Result<(&str, u16), AddressError> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(bracketed) => {
            let (host, after) = bracketed.split_once(']').ok_or(AddressError::Brackets)?;
            match after.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if after.is_empty() => (host, None),
                None => return Err(AddressError::Brackets),
            }
        }
        None if authority.matches(':').count() > 1 => return Err(AddressError::Brackets),
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let Some(port) = port else { return Ok((host, default_port)) };
    match port.parse() {
        Ok(number @ 1..) => Ok((host, number)),
        _ => Err(AddressError::Port(port.to_owned())),
    }
}

impl fmt::Display for RemoteAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match (&self.carrier, self.tls) {
            (Carrier::Stream, false) => "mqtt",
            (Carrier::Stream, true) => "mqtts",
            (Carrier::WebSocket { .. }, false) => "ws",
            (Carrier::WebSocket { .. }, true) => "wss",
        };
        match self.host.contains(':') {
            true => write!(out, "{scheme}://[{}]:{}", self.host, self.port)?,
            false => write!(out, "{scheme}://{}:{}", self.host, self.port)?,
        }
        match &self.carrier {
            Carrier::Stream => Ok(()),
            Carrier::WebSocket { path } => out.write_str(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for (text, full) in [
            ("broker", "mqtt://broker:1883"),
            ("broker:1884", "mqtt://broker:1884"),
            ("mqtts://broker", "mqtts://broker:8883"),
            ("ssl://broker:1", "mqtts://broker:1"),
            ("ws://broker", "ws://broker:80/mqtt"),
            ("wss://broker/a/b?c=d", "wss://broker:443/a/b?c=d"),
            ("[::1]:1883", "mqtt://[::1]:1883"),
            ("mqtt://[fe80::1]", "mqtt://[fe80::1]:1883"),
            ("MQTT://10.0.0.1/", "mqtt://10.0.0.1:1883"),
        ] {
            let parsed = RemoteAddress::parse(text).unwrap();
            assert_eq!(parsed.to_string(), full);
            assert_eq!(RemoteAddress::parse(full), Ok(parsed));
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, error) in [
            ("http://broker", AddressError::Scheme("http".into())),
            ("mqtt://", AddressError::Host),
            (":1883", AddressError::Host),
            ("broker:0", AddressError::Port("0".into())),
            ("broker:65536", AddressError::Port("65536".into())),
            ("broker:", AddressError::Port(String::new())),
            ("::1", AddressError::Brackets),
            ("[::1", AddressError::Brackets),
            ("[::1]1883", AddressError::Brackets),
            ("mqtt://user:secret@broker", AddressError::UserInfo),
            ("mqtt://broker/path", AddressError::Path),
        ] {
            assert_eq!(RemoteAddress::parse(text), Err(error), "{text}");
        }
    }
}
