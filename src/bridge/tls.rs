//! TLS towards the remote broker. The configuration is built anew for each attempt, so that renewed certificates and
//! keys are used without a restart.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use crate::bridge::error::LinkError;
use crate::config::bridge::{BridgeTls, Verify};

/// Reads the files and builds a configuration. Blocks for the disk.
///
/// # Errors
/// [`LinkError::TlsSetUp`] names the file and the problem.
pub fn client_config(settings: &BridgeTls) -> Result<Arc<ClientConfig>, LinkError> {
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
    Ok(Arc::new(config))
}

fn verifier(
    settings: &BridgeTls,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, LinkError> {
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

fn roots(settings: &BridgeTls) -> Result<RootCertStore, LinkError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = &settings.ca_file {
        add(&mut roots, path)?;
    }
    if let Some(path) = &settings.ca_dir {
        let entries = std::fs::read_dir(path).map_err(|error| in_file(path, &error))?;
        for entry in entries.flatten() {
            // As mosquitto: a directory may hold other things, too.
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
        let cure = "no certificate authorities were found; set tls.ca_file";
        return Err(LinkError::TlsSetUp(cure.to_owned()));
    }
    Ok(roots)
}

fn add(roots: &mut RootCertStore, path: &Path) -> Result<(), LinkError> {
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| in_file(path, &error))?;
    }
    Ok(())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, LinkError> {
    let certificates: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let certificates = certificates.map_err(|error| in_file(path, &error))?;
    if certificates.is_empty() {
        return Err(in_file(path, &"it holds no certificate"));
    }
    Ok(certificates)
}

fn set_up(error: &dyn std::fmt::Display) -> LinkError {
    LinkError::TlsSetUp(error.to_string())
}

fn in_file(path: &Path, error: &dyn std::fmt::Display) -> LinkError {
    LinkError::TlsSetUp(format!("{}: {error}", path.display()))
}

/// What a failed handshake means, with the cure where there is one.
#[must_use]
pub fn explain(error: &std::io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    let cure = match inner {
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "the remote certificate is signed by an authority that is not trusted; check tls.ca_file"
        }
        Some(Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => {
            "the remote certificate is for another name; check the address or set tls.server_name"
        }
        Some(Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        )) => "the remote certificate has expired",
        Some(Error::AlertReceived(_)) => {
            "the remote broker refused our side; does it want a client certificate \
             (tls.certificate and tls.key)?"
        }
        Some(Error::InvalidMessage(_)) => "the answer is not TLS; does this port speak TLS?",
        _ if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            "the remote broker closed the connection; does this port speak TLS, and does it want a \
             client certificate?"
        }
        _ => return error.to_string(),
    };
    format!("{cure} ({error})")
}

/// Checks less than it should, as configured: the chain without the name, or only that the other side owns its key.
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
