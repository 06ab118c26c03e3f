//! TLS: versions, protocols, client certificates, resumption, reload.

use std::path::PathBuf;
use std::sync::Arc;

use petrel::config::choice::{ClientCertificate, TlsVersion};
use petrel::config::settings::{CertificateName, ListenerSettings, TlsSettings};
use petrel::metrics::counter::Counter;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, HandshakeKind, ProtocolVersion, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::echo::{Running, closed, echoes, loopback, start};

/// An authority with a server certificate, and clients that trust it.
pub(crate) struct Authority {
    directory: TempDir,
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Test Authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let root = certificate.der().clone();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.crt"), certificate.pem()).unwrap();
        let authority = Self { directory, issuer: Issuer::new(params, key), root };
        authority.issue_server();
        authority
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a (new) server certificate.
    fn issue_server(&self) {
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let (certificate, key) = self.issue(params, ExtendedKeyUsagePurpose::ServerAuth);
        std::fs::write(self.path("server.crt"), certificate).unwrap();
        std::fs::write(self.path("server.key"), key).unwrap();
    }

    fn issue(
        &self,
        mut params: CertificateParams,
        usage: ExtendedKeyUsagePurpose,
    ) -> (String, String) {
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    pub(crate) fn server_settings(&self) -> TlsSettings {
        TlsSettings {
            certificate: self.path("server.crt"),
            key: self.path("server.key"),
            client_authority: None,
            client_certificate: ClientCertificate::None,
            certificate_name: CertificateName::CommonName,
            min_version: TlsVersion::V1_2,
        }
    }

    pub(crate) fn asking_settings(&self, client_certificate: ClientCertificate) -> TlsSettings {
        TlsSettings {
            client_authority: Some(self.path("ca.crt")),
            client_certificate,
            ..self.server_settings()
        }
    }

    /// A client without certificate.
    pub(crate) fn client(&self) -> Client {
        self.client_with(None, &[&rustls::version::TLS12, &rustls::version::TLS13])
    }

    fn client_of_version(&self, version: &'static rustls::SupportedProtocolVersion) -> Client {
        self.client_with(None, &[version])
    }

    /// A client whose certificate has this common name, and an alternative name.
    pub(crate) fn named_client(&self, name: &str) -> Client {
        let mut params = CertificateParams::new([format!("{name}.example.org")]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let pair = self.issue(params, ExtendedKeyUsagePurpose::ClientAuth);
        self.client_with(Some(pair), &[&rustls::version::TLS12, &rustls::version::TLS13])
    }

    fn client_with(
        &self,
        pair: Option<(String, String)>,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Client {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let config = match pair {
            Some((certificate, key)) => {
                let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![certificate], key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        Client { config }
    }
}

pub(crate) struct Client {
    config: ClientConfig,
}

impl Client {
    pub(crate) fn offering(mut self, protocols: &[&str]) -> Self {
        self.config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().into()).collect();
        self
    }

    pub(crate) async fn connect_over(
        &self,
        socket: TcpStream,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let connector = tokio_rustls::TlsConnector::from(Arc::new(self.config.clone()));
        connector.connect("localhost".try_into().unwrap(), socket).await
    }

    async fn connect(&self, running: &Running) -> std::io::Result<TlsStream<TcpStream>> {
        self.connect_over(running.connect().await).await
    }

    /// In TLS 1.3 a server's refusal of a client certificate arrives after the client's handshake.
    async fn is_refused(&self, running: &Running) {
        if let Ok(mut stream) = self.connect(running).await {
            let _sent = stream.write_all(b"hello").await;
            let mut byte = [0];
            assert!(!matches!(stream.read(&mut byte).await, Ok(1..)), "was served");
        }
    }
}

fn serving(tls: TlsSettings) -> Running {
    let settings = ListenerSettings { tls: Some(tls), ..loopback() };
    start(&[settings])
}

#[tokio::test]
async fn both_versions_are_spoken() {
    let authority = Authority::new();
    let running = serving(authority.server_settings());
    for (version, spoken) in [
        (&rustls::version::TLS12, ProtocolVersion::TLSv1_2),
        (&rustls::version::TLS13, ProtocolVersion::TLSv1_3),
    ] {
        let client = authority.client_of_version(version);
        let mut stream = client.connect(&running).await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(spoken));
        echoes(&mut stream, &vec![7; 100_000]).await;
    }
    assert!(running.last_visit().stream_type.contains("TlsStream<tokio::net::tcp"));
    assert!(running.descriptions[0].contains("MQTT over TLS"), "{:?}", running.descriptions);
}

#[tokio::test]
async fn oldest_version_is_enforced() {
    let authority = Authority::new();
    let mut settings = authority.server_settings();
    settings.min_version = TlsVersion::V1_3;
    let running = serving(settings);
    let old = authority.client_of_version(&rustls::version::TLS12);
    assert!(old.connect(&running).await.is_err());
    running.counted(Counter::TurnedAwayTls, 1).await;
    echoes(&mut authority.client().connect(&running).await.unwrap(), b"new").await;
}

#[tokio::test]
async fn protocol_is_agreed_on_but_not_demanded() {
    let authority = Authority::new();
    let running = serving(authority.server_settings());
    for (offered, agreed) in [
        (&["mqtt"][..], Some(&b"mqtt"[..])),
        (&["x-other", "mqtt"], Some(b"mqtt")),
        (&["x-other"], None),
        (&[], None),
    ] {
        let client = authority.client().offering(offered);
        let mut stream = client.connect(&running).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), agreed, "{offered:?}");
        echoes(&mut stream, b"hello").await;
    }
}

#[tokio::test]
async fn plain_bytes_are_no_handshake() {
    let authority = Authority::new();
    let running = serving(authority.server_settings());
    let mut stream = running.connect().await;
    stream.write_all(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00").await.unwrap();
    let mut answer = Vec::new();
    let _end_or_reset = stream.read_to_end(&mut answer).await;
    running.counted(Counter::TurnedAwayTls, 1).await;
    let mut silent = running.connect().await;
    silent.shutdown().await.unwrap();
    closed(&mut silent).await;
    running.counted(Counter::TurnedAwayTls, 2).await;
    echoes(&mut authority.client().connect(&running).await.unwrap(), b"next").await;
}

#[tokio::test]
async fn required_client_certificate() {
    let authority = Authority::new();
    let running = serving(authority.asking_settings(ClientCertificate::Required));
    let mut stream = authority.named_client("device7").connect(&running).await.unwrap();
    echoes(&mut stream, b"hello").await;
    assert_eq!(running.last_visit().peer.certificate_name.as_deref(), Some("device7"));
    authority.client().is_refused(&running).await;
    let stranger = Authority::new();
    let mut impostor = stranger.named_client("device7");
    let mut roots = RootCertStore::empty();
    roots.add(authority.root.clone()).unwrap();
    // Trusts the server, but has its certificate from somebody else.
    let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(
        Arc::new(roots),
        Arc::new(rustls::crypto::ring::default_provider()),
    );
    let verifier = verifier.build().unwrap();
    impostor.config.dangerous().set_certificate_verifier(verifier);
    impostor.is_refused(&running).await;
    running.counted(Counter::TurnedAwayTls, 2).await;
    assert_eq!(running.visits().len(), 1);
}

#[tokio::test]
async fn optional_client_certificate_and_alternative_name() {
    let authority = Authority::new();
    let mut settings = authority.asking_settings(ClientCertificate::Optional);
    settings.certificate_name = CertificateName::SubjectAlternativeName;
    let running = serving(settings);
    echoes(&mut authority.client().connect(&running).await.unwrap(), b"none").await;
    assert_eq!(running.last_visit().peer.certificate_name, None);
    let client = authority.named_client("device7");
    echoes(&mut client.connect(&running).await.unwrap(), b"one").await;
    let name = running.last_visit().peer.certificate_name;
    assert_eq!(name.as_deref(), Some("device7.example.org"));
}

/// A resumed session is still that of the Client whose certificate was checked.
#[tokio::test]
async fn sessions_are_resumed_with_their_name() {
    let authority = Authority::new();
    let running = serving(authority.asking_settings(ClientCertificate::Required));
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "resumer");
        let pair = authority.issue(params, ExtendedKeyUsagePurpose::ClientAuth);
        let client = authority.client_with(Some(pair), &[version]);
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed] {
            let mut stream = client.connect(&running).await.unwrap();
            assert_eq!(stream.get_ref().1.handshake_kind(), Some(kind), "{version:?}");
            // Reading is also what takes the ticket for the next time.
            echoes(&mut stream, b"hello").await;
            let name = running.last_visit().peer.certificate_name;
            assert_eq!(name.as_deref(), Some("resumer"));
        }
    }
}

#[tokio::test]
async fn reload_changes_certificates_without_disturbing_connections() {
    let authority = Authority::new();
    let running = serving(authority.server_settings());
    let presented =
        |stream: &TlsStream<TcpStream>| stream.get_ref().1.peer_certificates().unwrap()[0].clone();
    let client = authority.client();
    let mut old = client.connect(&running).await.unwrap();
    echoes(&mut old, b"before").await;
    let first = presented(&old);
    authority.issue_server();
    assert!(running.certificates.reload().is_empty());
    let mut fresh = client.connect(&running).await.unwrap();
    assert_ne!(presented(&fresh), first);
    // A ticket from before is worth nothing now.
    assert_eq!(fresh.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
    echoes(&mut fresh, b"after").await;
    echoes(&mut old, b"undisturbed").await;
    std::fs::write(authority.path("server.key"), "broken").unwrap();
    let failed = running.certificates.reload();
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].0, "test");
    assert!(failed[0].1.to_string().contains("server.key"), "{}", failed[0].1);
    echoes(&mut client.connect(&running).await.unwrap(), b"as before").await;
}
