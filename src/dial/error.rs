//! Why there is no connection. The texts name the cause; what users can do about it depends on where they set an
//! authority or a name, which their front end knows: it gives the [`WaysOut`].

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use rustls::{CertificateError, Error as RustlsError};

use crate::websocket::HandshakeError;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name could not be resolved.
    #[error("cannot look up \"{host}\": {source}")]
    LookUp {
        /// The name.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// The name resolves to nothing that can be used.
    #[error("\"{host}\" has no address{}", of_family(*local_address))]
    NoAddress {
        /// The name.
        host: String,
        /// Only addresses of its family can be used.
        local_address: Option<IpAddr>,
    },
    /// No TCP connection.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// The last address tried.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The local address cannot be used.
    #[error("cannot connect from {address}: {source}")]
    Bind {
        /// The address.
        address: IpAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A file with certificates or a key cannot be used.
    #[error("cannot set up TLS: {path}: {reason}", path = path.display())]
    TlsFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Nobody is known who could vouch for the broker.
    #[error("cannot set up TLS: no certificate authorities were found")]
    NoAuthorities,
    /// A name that no certificate can contain.
    #[error("cannot set up TLS: \"{0}\" is not a valid server name")]
    ServerName(String),
    /// TLS settings cannot be used.
    #[error("cannot set up TLS: {0}")]
    TlsSetUp(String),
    /// The TLS handshake failed.
    #[error("TLS handshake failed: {0}")]
    Tls(TlsFailure),
    /// The WebSocket handshake failed.
    #[error("WebSocket handshake failed: {0}")]
    WebSocket(HandshakeError),
}

fn of_family(local_address: Option<IpAddr>) -> String {
    local_address.map_or_else(String::new, |own| format!(" of the family of {own}"))
}

/// The cause of a failed TLS handshake, with the message of the library.
#[derive(Debug, thiserror::Error)]
pub enum TlsFailure {
    /// The certificate is not signed by a trusted authority.
    #[error("the certificate is signed by an authority that is not trusted ({0})")]
    Authority(String),
    /// The certificate does not contain the name that we connect to.
    #[error("the certificate is for another name ({0})")]
    Name(String),
    /// The certificate is too old.
    #[error("the certificate has expired ({0})")]
    Expired(String),
    /// The broker ended the handshake with an alert.
    #[error("the broker rejected our certificate or settings ({0})")]
    Refused(String),
    /// The broker closed the connection without an alert.
    #[error("the broker closed the connection; does this port speak TLS? ({0})")]
    Closed(String),
    /// The broker does not use TLS.
    #[error("the answer is not TLS; does this port speak TLS? ({0})")]
    NotTls(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl From<&RustlsError> for TlsFailure {
    fn from(error: &RustlsError) -> Self {
        use CertificateError as Certificate;
        let kind = match error {
            RustlsError::InvalidCertificate(Certificate::UnknownIssuer) => Self::Authority,
            RustlsError::InvalidCertificate(
                Certificate::NotValidForName | Certificate::NotValidForNameContext { .. },
            ) => Self::Name,
            RustlsError::InvalidCertificate(
                Certificate::Expired | Certificate::ExpiredContext { .. },
            ) => Self::Expired,
            RustlsError::AlertReceived(_) => Self::Refused,
            RustlsError::InvalidMessage(_) => Self::NotTls,
            _ => Self::Other,
        };
        kind(error.to_string())
    }
}

impl From<&io::Error> for TlsFailure {
    fn from(error: &io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<RustlsError>()) {
            Some(inner) => inner.into(),
            None if error.kind() == io::ErrorKind::UnexpectedEof => Self::Closed(error.to_string()),
            None => Self::Other(error.to_string()),
        }
    }
}

/// Hints on how to fix errors, as the end of a sentence; empty if there is no fix. Each front end has its own.
#[derive(Debug)]
pub(crate) struct WaysOut {
    /// The certificate of the broker is not trusted.
    pub(crate) authorities: &'static str,
    /// The certificate of the broker is for another name.
    pub(crate) name: &'static str,
    /// The broker may want a certificate of ours.
    pub(crate) certificate: &'static str,
    /// We cannot connect from the requested local address.
    pub(crate) local_address: &'static str,
}

impl TlsFailure {
    /// The error, and how to fix it.
    #[must_use]
    pub(crate) fn with(&self, ways_out: &WaysOut) -> String {
        with(self, self.way_out(ways_out))
    }

    const fn way_out(&self, ways_out: &WaysOut) -> &'static str {
        match self {
            Self::Authority(_) => ways_out.authorities,
            Self::Name(_) => ways_out.name,
            Self::Refused(_) | Self::Closed(_) => ways_out.certificate,
            Self::Expired(_) | Self::NotTls(_) | Self::Other(_) => "",
        }
    }
}

impl DialError {
    /// The error, and how to fix it.
    #[must_use]
    pub(crate) fn with(&self, ways_out: &WaysOut) -> String {
        let way_out = match self {
            Self::Tls(failure) => failure.way_out(ways_out),
            Self::NoAuthorities => ways_out.authorities,
            Self::ServerName(_) => ways_out.name,
            Self::NoAddress { local_address: Some(_), .. } | Self::Bind { .. } => {
                ways_out.local_address
            }
            Self::NoAddress { local_address: None, .. }
            | Self::LookUp { .. }
            | Self::Connect { .. }
            | Self::TlsFile { .. }
            | Self::TlsSetUp(_)
            | Self::WebSocket(_) => "",
        };
        with(self, way_out)
    }
}

fn with(error: &dyn std::fmt::Display, way_out: &str) -> String {
    match way_out {
        "" => error.to_string(),
        way_out => format!("{error}; {way_out}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAYS_OUT: WaysOut = WaysOut {
        authorities: "look at the authorities",
        name: "look at the name",
        certificate: "show a certificate",
        local_address: "look at the local address",
    };

    #[test]
    fn the_cause_comes_first_and_then_the_way_out() {
        let unknown = RustlsError::InvalidCertificate(CertificateError::UnknownIssuer);
        let wrapped = io::Error::other(unknown);
        assert_eq!(
            DialError::Tls(TlsFailure::from(&wrapped)).with(&WAYS_OUT),
            "TLS handshake failed: the certificate is signed by an authority that is not trusted \
             (invalid peer certificate: UnknownIssuer); look at the authorities"
        );
        let closed = TlsFailure::from(&io::Error::from(io::ErrorKind::UnexpectedEof));
        assert!(closed.with(&WAYS_OUT).ends_with("; show a certificate"));
        let own = DialError::NoAddress {
            host: "broker".to_owned(),
            local_address: Some(IpAddr::from([127, 0, 0, 9])),
        };
        assert_eq!(
            own.with(&WAYS_OUT),
            "\"broker\" has no address of the family of 127.0.0.9; look at the local address"
        );
    }

    #[test]
    fn where_nothing_helps_the_cause_stands_alone() {
        let refused = DialError::Connect {
            address: SocketAddr::from(([127, 0, 0, 1], 1883)),
            source: io::ErrorKind::ConnectionRefused.into(),
        };
        assert_eq!(refused.with(&WAYS_OUT), refused.to_string());
    }
}
