//! Addresses of remote brokers: parses addresses and URLs.

use std::fmt;

/// What carries the MQTT bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Carrier {
    /// TCP, or TLS over it.
    Stream,
    /// WebSocket with the path of its request. [MQTT-6.0.0-1]
    WebSocket {
        /// The path, for example `/mqtt`.
        path: String,
    },
}

/// One parsed address: `mqtt://host`, `mqtts://host:8883`, `ws://host/mqtt`, `wss://host`, or only `host[:port]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Address {
    /// Name or IP address, IPv6 without brackets.
    pub(crate) host: String,
    /// TCP port.
    pub(crate) port: u16,
    /// Whether TLS is used.
    pub(crate) tls: bool,
    /// What carries the MQTT bytes.
    pub(crate) carrier: Carrier,
}

/// Why an address is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AddressError {
    /// An unknown scheme.
    #[error("\"{0}://\" is unknown; use mqtt://, mqtts://, ws:// or wss://")]
    Scheme(String),
    /// Nothing between scheme and port.
    #[error("the host is missing")]
    Host,
    /// Not 1 to 65535.
    #[error("\"{0}\" is not a port; write a number from 1 to 65535")]
    Port(String),
    /// An IPv6 address is ambiguous without brackets.
    #[error("write an IPv6 address in brackets: [::1]:1883")]
    Brackets,
    /// Secrets do not belong in an address, which is printed.
    #[error("user name and password do not belong in the address")]
    UserInfo,
    /// Only WebSocket has a path.
    #[error("only ws:// and wss:// may have a path")]
    Path,
}

/// The part before `://`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scheme {
    pub(crate) tls: bool,
    pub(crate) websocket: bool,
}

/// The parts of a URL, without defaults.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parts<'a> {
    pub(crate) scheme: Option<Scheme>,
    /// The part before `@`.
    pub(crate) user_info: Option<&'a str>,
    /// Name or IP address, IPv6 without brackets.
    pub(crate) host: &'a str,
    pub(crate) port: Option<u16>,
    /// The path with its leading slash, or empty.
    pub(crate) path: &'a str,
}

impl Scheme {
    const PLAIN: Self = Self { tls: false, websocket: false };

    fn parse(name: &str) -> Result<Self, AddressError> {
        let (tls, websocket) = match name.to_ascii_lowercase().as_str() {
            "mqtt" | "tcp" => (false, false),
            "mqtts" | "ssl" | "tls" => (true, false),
            "ws" => (false, true),
            "wss" => (true, true),
            _ => return Err(AddressError::Scheme(name.to_owned())),
        };
        Ok(Self { tls, websocket })
    }

    const fn default_port(self) -> u16 {
        match (self.websocket, self.tls) {
            (false, false) => 1883,
            (false, true) => 8883,
            (true, false) => 80,
            (true, true) => 443,
        }
    }
}

impl<'a> Parts<'a> {
    /// Splits a URL into its parts; the scheme is optional.
    ///
    /// # Errors
    /// [`AddressError`] says what is wrong with it.
    pub(crate) fn split(text: &'a str) -> Result<Self, AddressError> {
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (Some(Scheme::parse(scheme)?), rest),
            None => (None, text),
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (user_info, host_and_port) = match authority.rsplit_once('@') {
            Some((user_info, host_and_port)) => (Some(user_info), host_and_port),
            None => (None, authority),
        };
        let (host, port) = split_port(host_and_port)?;
        if host.is_empty() {
            return Err(AddressError::Host);
        }
        Ok(Self { scheme, user_info, host, port, path })
    }
}

impl Carrier {
    /// WebSocket with the path of a URL, which may be empty.
    pub(crate) fn websocket(path: &str) -> Self {
        let path = if path.len() > 1 { path } else { "/mqtt" };
        Self::WebSocket { path: path.to_owned() }
    }
}

impl Address {
    /// Reads one address.
    ///
    /// # Errors
    /// [`AddressError`] says what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, AddressError> {
        let Parts { scheme, user_info, host, port, path } = Parts::split(text.trim())?;
        let scheme = scheme.unwrap_or(Scheme::PLAIN);
        let carrier = match (scheme.websocket, path) {
            _ if user_info.is_some() => return Err(AddressError::UserInfo),
            (true, path) => Carrier::websocket(path),
            (false, "" | "/") => Carrier::Stream,
            (false, _) => return Err(AddressError::Path),
        };
        let port = port.unwrap_or(scheme.default_port());
        Ok(Self { host: host.to_owned(), port, tls: scheme.tls, carrier })
    }

    /// `host:port`, with brackets around an IPv6 address.
    #[must_use]
    pub(crate) fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

fn split_port(authority: &str) -> Result<(&str, Option<u16>), AddressError> {
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
    let parse = |port: &str| match port.parse() {
        Ok(number @ 1..) => Ok(number),
        _ => Err(AddressError::Port(port.to_owned())),
    };
    Ok((host, port.map(parse).transpose()?))
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match (&self.carrier, self.tls) {
            (Carrier::Stream, false) => "mqtt",
            (Carrier::Stream, true) => "mqtts",
            (Carrier::WebSocket { .. }, false) => "ws",
            (Carrier::WebSocket { .. }, true) => "wss",
        };
        write!(out, "{scheme}://{}", self.authority())?;
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
            let parsed = Address::parse(text).unwrap();
            assert_eq!(parsed.to_string(), full);
            assert_eq!(Address::parse(full), Ok(parsed));
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
            assert_eq!(Address::parse(text), Err(error), "{text}");
        }
    }
}
