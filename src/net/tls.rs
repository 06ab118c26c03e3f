//! TLS of a listener: loads certificates from files into a `rustls` configuration, and does the handshake.
//!
//! [`TlsAcceptor::reload`] replaces the whole configuration; existing connections keep the one they started with. A
//! new configuration has new session tickets, so that no old session outlives a change of the client authority:
//! resumption does not verify a certificate again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ServerSessionMemoryCache, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::config::choice::{ClientCertificate, TlsVersion};
use crate::config::settings::{CertificateName, TlsSettings, Transport};

/// Sessions of TLS 1.2 Clients that may be resumed without tickets; about 1 KiB each when used.
const SESSION_CACHE_SIZE: usize = 4096;

/// An error in the TLS files of a listener.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {what} {path}: {source}")]
    Read {
        /// The expected content.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file does not contain it.
    #[error("no {what} in {path}: a PEM file with `-----BEGIN` lines is expected")]
    Empty {
        /// The expected content.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// A file is not well-formed.
    #[error("malformed {what} in {path}: {reason}")]
    Malformed {
        /// The expected content.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The message of the parser.
        reason: String,
    },
    /// The private key is for another certificate.
    #[error("the key in {key} does not belong to the certificate in {certificate}")]
    KeyMismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// Client certificates are requested, but there is no authority to verify them.
    #[error(
        "client certificates are requested, but there is no client authority: name the file with the certificates of the authorities that sign them"
    )]
    NoClientAuthority,
    /// The certificate or key is of a kind that cannot be used.
    #[error("the certificate in {certificate} cannot be used: {source}")]
    Unusable {
        /// The certificate's file.
        certificate: PathBuf,
        /// The error of the library.
        source: rustls::Error,
    },
}

/// Accepts TLS connections with the configuration in force; clones use the same.
#[derive(Clone)]
pub struct TlsAcceptor {
    reloadable: Arc<Reloadable>,
}

/// The configuration in force, and what it is read from.
struct Reloadable {
    settings: TlsSettings,
    protocol: &'static [u8],
    current: RwLock<Arc<Configurations>>,
}

/// The same configuration with and without ALPN: `rustls` refuses a Client whose ALPN protocols are all unknown, but
/// such Clients use MQTT all the same.
struct Configurations {
    with_protocol: Arc<ServerConfig>,
    without_protocol: Arc<ServerConfig>,
}

impl std::fmt::Debug for TlsAcceptor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("TlsAcceptor").field("settings", &self.reloadable.settings).finish()
    }
}

impl TlsAcceptor {
    /// Reads the files.
    pub fn load(settings: TlsSettings, transport: &Transport) -> Result<Self, TlsError> {
        let protocol: &[u8] = match transport {
            Transport::Mqtt => b"mqtt",
            Transport::WebSocket { .. } => b"http/1.1",
        };
        let current = RwLock::new(Arc::new(configure(&settings, protocol)?));
        Ok(Self { reloadable: Arc::new(Reloadable { settings, protocol, current }) })
    }

    /// Rereads the files. If they are invalid, nothing changes.
    pub(crate) fn reload(&self) -> Result<(), TlsError> {
        let fresh = configure(&self.reloadable.settings, self.reloadable.protocol)?;
        *self.reloadable.current.write() = Arc::new(fresh);
        Ok(())
    }

    /// Does the handshake. The caller limits its time.
    pub(crate) async fn accept<S>(&self, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream);
        let start = acceptor.await?;
        let current = Arc::clone(&self.reloadable.current.read());
        let offers = start.client_hello().alpn().is_some_and(|mut offered| {
            offered.any(|protocol| protocol == self.reloadable.protocol)
        });
        let chosen = if offers { &current.with_protocol } else { &current.without_protocol };
        start.into_stream(Arc::clone(chosen)).await
    }

    /// The name in the Client's certificate, if it presented one. It was verified in the handshake.
    pub(crate) fn client_name<S>(&self, stream: &TlsStream<S>) -> Option<Arc<str>> {
        let (_, connection) = stream.get_ref();
        let certificate = connection.peer_certificates()?.first()?;
        name_of(certificate, self.reloadable.settings.certificate_name)
    }
}

fn configure(settings: &TlsSettings, protocol: &[u8]) -> Result<Configurations, TlsError> {
    let chain = read_certificates("certificate", &settings.certificate)?;
    let key = read_key(&settings.key)?;
    let versions: &[&SupportedProtocolVersion] = match settings.min_version {
        TlsVersion::V1_2 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        TlsVersion::V1_3 => &[&rustls::version::TLS13],
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let unusable = |source: rustls::Error| match source {
        rustls::Error::InconsistentKeys(_) => TlsError::KeyMismatch {
            certificate: settings.certificate.clone(),
            key: settings.key.clone(),
        },
        source => TlsError::Unusable { certificate: settings.certificate.clone(), source },
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .map_err(unusable)?;
    let builder = match client_verifier(settings, &provider)? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(unusable)?;
    config.session_storage = ServerSessionMemoryCache::new(SESSION_CACHE_SIZE);
    config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(unusable)?;
    // A Client opens one connection, so one ticket suffices and saves a write per handshake.
    config.send_tls13_tickets = 1;
    let without_protocol = Arc::new(config.clone());
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(Configurations { with_protocol: Arc::new(config), without_protocol })
}

fn client_verifier(
    settings: &TlsSettings,
    provider: &Arc<rustls::crypto::CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    if settings.client_certificate == ClientCertificate::None {
        return Ok(None);
    }
    let path = settings.client_authority.as_ref().ok_or(TlsError::NoClientAuthority)?;
    let what = "client authority";
    let malformed = |reason: String| TlsError::Malformed { what, path: path.clone(), reason };
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(what, path)? {
        roots.add(certificate).map_err(|error| malformed(error.to_string()))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let builder = match settings.client_certificate {
        ClientCertificate::Optional => builder.allow_unauthenticated(),
        ClientCertificate::Required | ClientCertificate::None => builder,
    };
    let verifier =
        builder.build().map_err(|error: VerifierBuilderError| malformed(error.to_string()))?;
    Ok(Some(verifier))
}

fn read_certificates(
    what: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let explain = |error| explain_pem(what, path, error);
    let found: Vec<_> =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(explain)?;
    if found.is_empty() {
        return Err(TlsError::Empty { what, path: path.to_owned() });
    }
    Ok(found)
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| explain_pem("private key", path, error))
}

fn explain_pem(what: &'static str, path: &Path, error: pem::Error) -> TlsError {
    let path = path.to_owned();
    match error {
        pem::Error::Io(source) => TlsError::Read { what, path, source },
        pem::Error::NoItemsFound => TlsError::Empty { what, path },
        other => TlsError::Malformed { what, path, reason: other.to_string() },
    }
}

fn name_of(certificate: &CertificateDer<'_>, kind: CertificateName) -> Option<Arc<str>> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    match kind {
        CertificateName::CommonName => {
            let name = parsed.subject().iter_common_name().next()?;
            name.as_str().ok().map(Arc::from)
        }
        CertificateName::SubjectAlternativeName => {
            let names = parsed.subject_alternative_name().ok()??;
            names.value.general_names.iter().find_map(|name| match name {
                GeneralName::DNSName(text)
                | GeneralName::RFC822Name(text)
                | GeneralName::URI(text) => Some(Arc::from(*text)),
                _ => None,
            })
        }
    }
}

#[cfg(test)]
mod tests;
