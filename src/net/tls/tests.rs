//! Files that are wrong, and names in certificates. Handshakes are in `tests/transport`.

use rcgen::{CertificateParams, DnType, KeyPair, SanType};
use tempfile::TempDir;

use super::*;

struct Files {
    directory: TempDir,
}

impl Files {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

fn self_signed() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap();
    (certificate.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn settings(certificate: PathBuf, key: PathBuf) -> TlsSettings {
    TlsSettings {
        certificate,
        key,
        client_authority: None,
        client_certificate: ClientCertificate::None,
        certificate_name: CertificateName::CommonName,
        min_version: TlsVersion::V1_2,
    }
}

fn error(settings: TlsSettings) -> String {
    TlsAcceptor::load(settings, &Transport::Mqtt).expect_err("must be refused").to_string()
}

#[test]
fn errors_name_the_file_and_what_is_wrong() {
    let files = Files::new();
    let (certificate, key) = self_signed();
    let (_, other_key) = self_signed();
    let certificate = files.write("server.crt", &certificate);
    let key = files.write("server.key", &key);
    let missing = files.directory.path().join("missing.crt");
    let text = error(settings(missing, key.clone()));
    assert!(text.contains("cannot read certificate") && text.contains("missing.crt"), "{text}");
    let text = error(settings(key.clone(), key.clone()));
    assert!(text.contains("no certificate in") && text.contains("server.key"), "{text}");
    let text = error(settings(certificate.clone(), certificate.clone()));
    assert!(text.contains("no private key in") && text.contains("server.crt"), "{text}");
    let other = files.write("other.key", &other_key);
    let text = error(settings(certificate.clone(), other));
    assert!(text.contains("other.key does not belong to the certificate"), "{text}");
    let broken = "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n";
    let broken = files.write("broken.crt", broken);
    let text = error(settings(broken, key.clone()));
    assert!(text.contains("malformed certificate") && text.contains("broken.crt"), "{text}");
    let mut required = settings(certificate, key);
    required.client_certificate = ClientCertificate::Required;
    assert!(error(required.clone()).contains("there is no client authority"));
    required.client_authority = Some(files.write("ca.crt", "nothing"));
    let text = error(required);
    assert!(text.contains("no client authority in") && text.contains("ca.crt"), "{text}");
}

#[test]
fn a_failed_reload_keeps_what_was_there() {
    let files = Files::new();
    let (certificate, key) = self_signed();
    let certificate = files.write("server.crt", &certificate);
    let key = files.write("server.key", &key);
    let acceptor =
        TlsAcceptor::load(settings(certificate.clone(), key.clone()), &Transport::Mqtt).unwrap();
    let before = Arc::clone(&acceptor.reloadable.current.read());
    files.write("server.crt", "half written");
    assert!(matches!(acceptor.reload(), Err(TlsError::Empty { .. })));
    assert!(Arc::ptr_eq(&before, &acceptor.reloadable.current.read()));
    let (fresh, fresh_key) = self_signed();
    files.write("server.crt", &fresh);
    files.write("server.key", &fresh_key);
    acceptor.reload().unwrap();
    assert!(!Arc::ptr_eq(&before, &acceptor.reloadable.current.read()));
}

#[test]
fn names_are_taken_from_subject_or_alternative_names() {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Gerät 7");
    params.subject_alt_names = vec![
        SanType::IpAddress([192, 0, 2, 1].into()),
        SanType::Rfc822Name("device7@example.org".try_into().unwrap()),
        SanType::DnsName("device7.example.org".try_into().unwrap()),
    ];
    let certificate = params.self_signed(&key).unwrap();
    let name = |kind| name_of(certificate.der(), kind);
    assert_eq!(name(CertificateName::CommonName).as_deref(), Some("Gerät 7"));
    let alternative = name(CertificateName::SubjectAlternativeName);
    assert_eq!(alternative.as_deref(), Some("device7@example.org"));
    let mut nameless = CertificateParams::default();
    nameless.distinguished_name = rcgen::DistinguishedName::new();
    let nameless = nameless.self_signed(&key).unwrap();
    assert_eq!(name_of(nameless.der(), CertificateName::CommonName), None);
    assert_eq!(name_of(nameless.der(), CertificateName::SubjectAlternativeName), None);
    assert_eq!(name_of(&CertificateDer::from(vec![1, 2, 3]), CertificateName::CommonName), None);
}
