//! TLS for connections to a remote broker: the settings, and the `rustls` configuration built from them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use serde::{Deserialize, Serialize};

use crate::dial::error::DialError;

/// TLS settings for a remote broker.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct RemoteTls {
    /// Certificate authorities, PEM; without this and `ca_dir`, those of the system.
    pub(crate) ca_file: Option<PathBuf>,
    /// Directory of authorities, PEM.
    pub(crate) ca_dir: Option<PathBuf>,
    /// Our certificate chain and its private key, PEM.
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
    /// Protocols offered by ALPN.
    pub(crate) alpn: Vec<String>,
    /// Name expected in the certificate and sent as SNI; by default the host of the address.
    pub(crate) server_name: Option<String>,
    /// How the broker's certificate is verified.
    pub(crate) verify: Verify,
    /// Whether TLS 1.2 is disabled.
    pub(crate) only_tls13: bool,
}

/// How a remote certificate is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verify {
    /// Chain and name.
    #[default]
    Full,
    /// The chain only: anyone certified by these authorities can impersonate the remote broker.
    Chain,
    /// Nothing: anyone can impersonate it.
    None,
}

/// Reads the files and builds a configuration. Blocks on the disk.
///
/// # Errors
/// A file cannot be used, or there is no authority.
pub(crate) fn client_config(settings: &RemoteTls) -> Result<ClientConfig, DialError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions: &[&rustls::SupportedProtocolVersion] = match settings.only_tls13 {
        true => &[&rustls::version::TLS13],
        false => &[&rustls::version::TLS13, &rustls::version::TLS12],
    };
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .map_err(|error| set_up(&error))?
        .dangerous()
        .with_custom_certificate_verifier(verifier(settings, provider)?);
    let mut config = match &settings.identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates(certificate)?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| in_file(key, &error))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| in_file(certificate, &error))?
        }
    };
    config.alpn_protocols = settings.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Ok(config)
}

fn verifier(
    settings: &RemoteTls,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, DialError> {
    if settings.verify == Verify::None {
        return Ok(Arc::new(Lenient { chain: None, provider }));
    }
    let roots = Arc::new(roots(settings)?);
    let chain = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
        .build()
        .map_err(|error| set_up(&error))?;
    match settings.verify {
        Verify::Full => Ok(chain),
        Verify::Chain | Verify::None => Ok(Arc::new(Lenient { chain: Some(chain), provider })),
    }
}

fn roots(settings: &RemoteTls) -> Result<RootCertStore, DialError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = &settings.ca_file {
        add(&mut roots, path)?;
    }
    if let Some(path) = &settings.ca_dir {
        let entries = std::fs::read_dir(path).map_err(|error| in_file(path, &error))?;
        for entry in entries.flatten() {
            // As in mosquitto, the directory may contain other files, too.
            let path = entry.path();
            let is_certificate =
                path.extension().is_some_and(|extension| extension == "pem" || extension == "crt");
            if is_certificate {
                add(&mut roots, &path)?;
            }
        }
    }
    if settings.ca_file.is_none() && settings.ca_dir.is_none() {
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
    }
    if roots.is_empty() {
        return Err(DialError::NoAuthorities);
    }
    Ok(roots)
}

fn add(roots: &mut RootCertStore, path: &Path) -> Result<(), DialError> {
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| in_file(path, &error))?;
    }
    Ok(())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, DialError> {
    let certificates: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let certificates = certificates.map_err(|error| in_file(path, &error))?;
    if certificates.is_empty() {
        return Err(in_file(path, &"it contains no certificate"));
    }
    Ok(certificates)
}

fn set_up(error: &dyn std::fmt::Display) -> DialError {
    DialError::TlsSetUp(error.to_string())
}

fn in_file(path: &Path, error: &dyn std::fmt::Display) -> DialError {
    DialError::TlsFile { path: path.to_owned(), reason: error.to_string() }
}

/// A verifier that checks less, as configured: the chain without the name, or only that the other side owns its key.
#[derive(Debug)]
struct Lenient {
    chain: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        // The name is checked last, after the chain.
        match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
