//! Which WebSocket requests are accepted: by path, and for browsers by the page that sends them.
//!
//! A browser opens a WebSocket to any address for any page, and names the page's origin. Without a list of origins, pages
//! of this machine (`localhost`) and pages served from the same host and port are accepted. The latter only if the owner
//! of a foreign page cannot own the name in `Host`: an address, a name without a domain, or one below a domain that is
//! not in the public DNS. Any other name could point here for a page that it also serves (DNS rebinding). Programs that
//! are not browsers send no Origin, and this check could not stop them anyway.

use std::net::IpAddr;

use tungstenite::http::{HeaderMap, HeaderName, StatusCode, Uri, header};

/// Domains that are not in the public DNS.
const PRIVATE_DOMAINS: [&str; 4] = ["localhost", "local", "internal", "home.arpa"];

/// The rules of one listener.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Door<'a> {
    /// Accepted paths.
    pub(crate) paths: &'a [String],
    /// Accepted values of Origin; `*` accepts any. Empty: those of this machine and of the same host.
    pub(crate) origins: &'a [String],
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another path.
    #[error("MQTT is not available at this path")]
    Path,
    /// A page that is not allowed.
    #[error("this origin is not allowed: see `origins` of the listener")]
    Origin,
    /// A page of the same host, with a name that others could make point here.
    #[error("a page may not use this name for the host: see `origins` of the listener")]
    Host,
}

impl Refusal {
    /// The status of the answer.
    pub(crate) const fn status(self) -> StatusCode {
        match self {
            Self::Path => StatusCode::NOT_FOUND,
            Self::Origin | Self::Host => StatusCode::FORBIDDEN,
        }
    }
}

impl Door<'_> {
    /// Checks a request.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        if !self.paths.iter().any(|path| path == uri.path()) {
            return Err(Refusal::Path);
        }
        let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
        // A value that is not text is on no list.
        let origin = origin.to_str().unwrap_or_default();
        if !self.origins.is_empty() {
            let is_listed =
                |allowed: &String| allowed == "*" || origin.eq_ignore_ascii_case(allowed);
            return if self.origins.iter().any(is_listed) { Ok(()) } else { Err(Refusal::Origin) };
        }
        let host = text(headers, &header::HOST);
        let Some((_, page)) = origin.split_once("://") else { return Err(Refusal::Origin) };
        let is_same = page.eq_ignore_ascii_case(host) && !page.is_empty();
        if !is_same && !is_this_machine(name_of(page)) {
            return Err(Refusal::Origin);
        }
        if !is_unforgeable(name_of(host)) {
            return Err(Refusal::Host);
        }
        Ok(())
    }
}

/// A header as text; empty if there is none.
pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// `host:port` without the port; an IPv6 address without its brackets.
fn name_of(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split_once(']').map_or("", |(address, _)| address);
    }
    authority.rsplit_once(':').map_or(authority, |(name, _)| name)
}

fn is_this_machine(name: &str) -> bool {
    match name.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => is_below(name, "localhost"),
    }
}

/// Whether nobody could register this name and make it point here.
fn is_unforgeable(name: &str) -> bool {
    name.parse::<IpAddr>().is_ok()
        || (!name.is_empty() && !name.contains('.'))
        || PRIVATE_DOMAINS.iter().any(|domain| is_below(name, domain))
}

fn is_below(name: &str, domain: &str) -> bool {
    let Some(at) = name.len().checked_sub(domain.len()) else { return false };
    let is_end = name.get(at..).is_some_and(|end| end.eq_ignore_ascii_case(domain));
    is_end && (at == 0 || name.get(..at).is_some_and(|front| front.ends_with('.')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(list: &[&str]) -> Vec<String> {
        list.iter().map(|&text| text.to_owned()).collect()
    }

    fn check(
        origins: &[&str],
        path: &str,
        host: &str,
        origin: Option<&str>,
    ) -> Result<(), Refusal> {
        let [paths, origins] = [&["/", "/mqtt", "/ws"][..], origins].map(owned);
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        Door { paths: &paths, origins: &origins }.check(&path.parse().unwrap(), &headers)
    }

    #[test]
    fn the_usual_paths_are_let_in_and_no_others() {
        for path in ["/", "/mqtt", "/ws", "/mqtt?token=a"] {
            assert_eq!(check(&[], path, "h:1", None), Ok(()), "{path}");
        }
        for path in ["/mqtt/", "/MQTT", "/other", "//"] {
            assert_eq!(check(&[], path, "h:1", None), Err(Refusal::Path), "{path}");
        }
    }

    #[test]
    fn pages_of_this_machine_and_of_the_same_host_are_let_in() {
        for (host, origin) in [
            ("localhost:8083", "http://localhost:3000"),
            ("127.0.0.1:8083", "http://localhost:8083"),
            ("127.0.0.1:8083", "http://127.0.0.1:5500"),
            ("[::1]:8083", "https://[::1]"),
            ("localhost:8083", "http://app.localhost"),
            ("192.168.1.5:8083", "http://192.168.1.5:8083"),
            ("broker:8083", "http://broker:8083"),
            ("Home.local:8083", "http://home.local:8083"),
        ] {
            assert_eq!(check(&[], "/", host, Some(origin)), Ok(()), "{host} {origin}");
        }
    }

    #[test]
    fn pages_from_elsewhere_are_not() {
        for (host, origin) in [
            ("127.0.0.1:8083", "https://example.com"),
            ("localhost:8083", "https://localhost.example.com"),
            ("localhost:8083", "https://notlocalhost"),
            ("localhost:8083", "null"),
            ("localhost:8083", ""),
            ("localhost:8083", "http://127.0.0.1.example.com"),
            ("localhost:8083", "http://localhost@example.com"),
            ("192.168.1.5:8083", "http://192.168.1.5:80"),
            ("", "http://"),
        ] {
            assert_eq!(
                check(&[], "/", host, Some(origin)),
                Err(Refusal::Origin),
                "{host} {origin}"
            );
        }
    }

    #[test]
    fn a_name_that_was_made_to_point_here_is_not_believed() {
        for (host, origin) in [
            ("rebound.example.com:8083", "http://rebound.example.com:8083"),
            ("rebound.example.com:8083", "http://localhost:3000"),
            ("example.com.", "http://example.com."),
            ("notlocal.x", "http://notlocal.x"),
        ] {
            assert_eq!(check(&[], "/", host, Some(origin)), Err(Refusal::Host), "{host} {origin}");
        }
    }

    #[test]
    fn a_list_of_origins_decides_alone() {
        let origins = ["https://shop.example.com", "null"];
        let host = "mqtt.example.com";
        assert_eq!(check(&origins, "/", host, Some("https://SHOP.example.com")), Ok(()));
        assert_eq!(check(&origins, "/", host, Some("null")), Ok(()));
        assert_eq!(check(&origins, "/", host, None), Ok(()));
        let foreign =
            ["https://shop.example.com.evil.net", "http://localhost", "https://mqtt.example.com"];
        for origin in foreign {
            assert_eq!(check(&origins, "/", host, Some(origin)), Err(Refusal::Origin), "{origin}");
        }
        assert_eq!(check(&["*"], "/", host, Some("https://example.net")), Ok(()));
    }
}
