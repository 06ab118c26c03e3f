//! Which broker, how to reach it and how to introduce oneself: the options common to all scenarios.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::bench::error::BenchError;
use crate::bench::resumption::TlsSession;
use crate::packet::ProtocolVersion;

/// Where the broker is.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Broker")]
pub(super) struct TargetOptions {
    /// Name or address of the broker
    #[arg(long, global = true, default_value = "127.0.0.1")]
    host: String,
    /// Port [default: 1883, TLS 8883, WebSocket 8083]
    #[arg(long, short = 'p', global = true)]
    port: Option<u16>,
    /// Version of MQTT
    #[arg(long = "protocol-version", short = 'V', global = true, default_value = "311")]
    version: VersionOption,
    /// User name
    #[arg(long, short = 'u', global = true)]
    username: Option<String>,
    /// Password
    #[arg(long, short = 'P', global = true, env = "PETREL_BENCH_PASSWORD", hide_env_values = true)]
    password: Option<String>,
    /// Use TLS
    #[arg(long, global = true)]
    tls: bool,
    /// Certificates (PEM) that vouch for the broker [default: those of the system]
    #[arg(long, global = true, value_name = "FILE")]
    cafile: Option<PathBuf>,
    /// Certificate (PEM) to present
    #[arg(long, global = true, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, global = true, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Accept any certificate of the broker
    #[arg(long, global = true)]
    insecure: bool,
    /// Full TLS handshakes only: no session is resumed
    #[arg(long, global = true)]
    no_resumption: bool,
    /// Speak over WebSocket
    #[arg(long, global = true)]
    websocket: bool,
    /// Path of the WebSocket
    #[arg(long, global = true, default_value = "/mqtt")]
    path: String,
}

/// How users write the version.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum VersionOption {
    #[value(name = "31", alias = "3.1", alias = "mqttv31")]
    V3_1,
    #[value(name = "311", alias = "3.1.1", alias = "mqttv311")]
    V3_1_1,
    #[value(name = "5", alias = "5.0", alias = "mqttv5")]
    V5_0,
}

/// A broker that was found by name and can be connected to.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// Where.
    pub(super) address: SocketAddr,
    /// As the user named it.
    pub(super) host: String,
    /// The version spoken.
    pub(super) version: ProtocolVersion,
    /// User name, if any.
    pub(super) username: Option<String>,
    /// Password, if any.
    pub(super) password: Option<String>,
    /// TLS, if used.
    pub(super) tls: Option<TlsTarget>,
    /// Path of the WebSocket, if used.
    pub(super) websocket_path: Option<String>,
}

/// How to speak TLS with the broker.
#[derive(Debug, Clone)]
pub(super) struct TlsTarget {
    /// Of a client that resumes nothing.
    config: ClientConfig,
    /// The name the certificate must carry.
    pub(super) server_name: ServerName<'static>,
    resumes: bool,
}

impl TlsTarget {
    /// The configuration for a connection of the client whose session this is.
    pub(super) fn config_of_client(&self, session: &TlsSession) -> Arc<ClientConfig> {
        let mut config = self.config.clone();
        if self.resumes {
            config.resumption = Resumption::store(session.store());
        }
        Arc::new(config)
    }
}

impl TargetOptions {
    /// Resolves the name and reads the certificates.
    pub(super) fn into_target(self) -> Result<Target, BenchError> {
        let port = self.port.unwrap_or(match (self.tls, self.websocket) {
            (_, true) => 8083,
            (true, false) => 8883,
            (false, false) => 1883,
        });
        let resolve_error = |source| BenchError::Resolve { host: self.host.clone(), source };
        let mut addresses = (self.host.as_str(), port).to_socket_addrs().map_err(resolve_error)?;
        let not_found = || resolve_error(std::io::ErrorKind::NotFound.into());
        let address = addresses.next().ok_or_else(not_found)?;
        let tls = if self.tls { Some(self.tls_target()?) } else { None };
        Ok(Target {
            address,
            version: match self.version {
                VersionOption::V3_1 => ProtocolVersion::V3_1,
                VersionOption::V3_1_1 => ProtocolVersion::V3_1_1,
                VersionOption::V5_0 => ProtocolVersion::V5_0,
            },
            host: self.host,
            username: self.username,
            password: self.password,
            tls,
            websocket_path: self.websocket.then_some(self.path),
        })
    }

    fn tls_target(&self) -> Result<TlsTarget, BenchError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let builder = if self.insecure {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        } else {
            builder.with_root_certificates(roots(self.cafile.as_deref())?)
        };
        let mut config = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => {
                let key_der = PrivateKeyDer::from_pem_file(key).map_err(|e| file_error(key, &e))?;
                builder.with_client_auth_cert(certificates(cert)?, key_der)?
            }
            _ => builder.with_no_client_auth(),
        };
        config.resumption = Resumption::disabled();
        let server_name = ServerName::try_from(self.host.clone())
            .map_err(|_invalid| BenchError::Options(format!("not a host name: {}", self.host)))?;
        Ok(TlsTarget { config, server_name, resumes: !self.no_resumption })
    }
}

impl Target {
    /// Local address for the client with this index: many connections to 127.0.0.1 need more than one, because one
    /// address has only some 28,000 ports for outgoing connections.
    pub(super) fn source_address(&self, index: usize) -> Option<IpAddr> {
        const CLIENTS_PER_ADDRESS: usize = 5_000;
        let IpAddr::V4(address) = self.address.ip() else { return None };
        if !address.is_loopback() || index < CLIENTS_PER_ADDRESS {
            return None;
        }
        let host = u8::try_from(1 + index / CLIENTS_PER_ADDRESS).unwrap_or(u8::MAX);
        Some(IpAddr::from([127, 0, 0, host]))
    }

    /// `tcp`, `tls`, `ws` or `wss`.
    pub(super) fn transport_name(&self) -> &'static str {
        match (self.tls.is_some(), self.websocket_path.is_some()) {
            (false, false) => "tcp",
            (true, false) => "tls",
            (false, true) => "ws",
            (true, true) => "wss",
        }
    }
}

fn file_error(path: &Path, reason: &dyn std::fmt::Display) -> BenchError {
    BenchError::TlsFile { path: path.to_owned(), reason: reason.to_string() }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, BenchError> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| file_error(path, &error))
}

fn roots(cafile: Option<&Path>) -> Result<RootCertStore, BenchError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = cafile {
        for certificate in certificates(path)? {
            roots.add(certificate)?;
        }
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    Ok(roots)
}

/// Accepts any certificate, for `--insecure`. Signatures are still verified.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
