//! `petrel certs`: creates a certificate authority and certificates, for development and for small closed networks.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use petrel::auth::scram::random_bytes;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::cli::say;

/// Creates a certificate authority, a server certificate and a client certificate.
///
/// Writes ca.crt, server.crt and client.crt with their keys (ca.key, server.key, client.key; readable by their owner
/// only) as PEM. Existing files are kept, and an existing authority signs the missing certificates, so you can add
/// client certificates later with --client. Keys are ECDSA P-256. Do not keep ca.key on the broker's machine: whoever
/// has it can create certificates that your clients and your broker trust.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  petrel certs                                           for localhost, in ./certs
  petrel certs --host broker.example.com --host 10.0.0.7
  petrel certs --client device-7                         one more client: device-7.crt, device-7.key
  petrel certs --force                                   replace everything, including the authority

Then, in the configuration:
  [[listener]]
  listen = \"127.0.0.1:8883\"
  [listener.tls]
  certificate = \"./certs/server.crt\"
  key = \"./certs/server.key\"
  client_ca = \"./certs/ca.crt\"
  client_certificate = \"optional\"")]
pub(crate) struct CertsCommand {
    /// Directory for the files; created if it does not exist
    #[arg(short, long, value_name = "DIR", default_value = "./certs")]
    out: PathBuf,
    /// Name or address of the server, in addition to localhost; may be repeated
    #[arg(long, value_name = "NAME")]
    host: Vec<String>,
    /// Common name of the client certificate, also used to name its files
    #[arg(long, value_name = "NAME", default_value = "client")]
    client: String,
    /// Days until the server and client certificates expire; the authority is valid for ten years
    #[arg(long, value_name = "DAYS", default_value_t = 825)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
    /// Overwrite existing files
    #[arg(long)]
    force: bool,
}

const AUTHORITY_DAYS: u32 = 3650;
const DAY: Duration = Duration::from_hours(24);

impl CertsCommand {
    /// Runs the command.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@');
        if self.client.is_empty() || !self.client.chars().all(plain) || self.client.starts_with('.')
        {
            bail!("--client {:?} is not usable as a file name: A-Z a-z 0-9 - _ . @", self.client);
        }
        if matches!(&*self.client, "ca" | "server") {
            bail!("--client {} would overwrite the files of that name", self.client);
        }
        fs::create_dir_all(&self.out)
            .with_context(|| format!("cannot create the directory {}", self.out.display()))?;
        let authority = self.authority()?;
        let hosts = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let hosts = hosts.into_iter().chain(self.host.iter().cloned()).collect();
        self.certificate(&authority, "server", "Petrel server", hosts)?;
        self.certificate(&authority, &self.client, &self.client, vec![self.client.clone()])?;
        Ok(ExitCode::SUCCESS)
    }

    fn authority(&self) -> anyhow::Result<Issuer<'static, KeyPair>> {
        let (certificate, key) = self.files("ca");
        if !self.force && certificate.exists() {
            let read = |file: &Path| {
                fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
            };
            let pair = KeyPair::from_pem(&read(&key)?)
                .with_context(|| format!("{} is not a private key", key.display()))?;
            say(&format!("kept   {}", certificate.display()))?;
            return Issuer::from_ca_cert_pem(&read(&certificate)?, pair)
                .with_context(|| format!("{} is not a certificate", certificate.display()));
        }
        let mut params = parameters(Vec::new(), AUTHORITY_DAYS)?;
        // Clients that trust one authority would mistake another one of the same name for it.
        let unique = random_bytes::<4>().map(u32::from_be_bytes).unwrap_or_default();
        let name = format!("Petrel development CA {unique:08x}");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pair = KeyPair::generate()?;
        let signed = params.self_signed(&pair)?;
        self.write("ca", &signed.pem(), &pair)?;
        Ok(Issuer::new(params, pair))
    }

    fn certificate(
        &self,
        authority: &Issuer<'static, KeyPair>,
        file: &str,
        name: &str,
        alternatives: Vec<String>,
    ) -> anyhow::Result<()> {
        let (certificate, key) = self.files(file);
        if !self.force && (certificate.exists() || key.exists()) {
            return say(&format!("kept   {}", certificate.display()));
        }
        let mut params = parameters(alternatives, self.days)?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match file {
            "server" => vec![ExtendedKeyUsagePurpose::ServerAuth],
            _ => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        let pair = KeyPair::generate()?;
        let signed = params.signed_by(&pair, authority)?;
        self.write(file, &signed.pem(), &pair)
    }

    fn files(&self, name: &str) -> (PathBuf, PathBuf) {
        (self.out.join(format!("{name}.crt")), self.out.join(format!("{name}.key")))
    }

    fn write(&self, name: &str, certificate: &str, pair: &KeyPair) -> anyhow::Result<()> {
        let (certificate_file, key_file) = self.files(name);
        let written = write_file(&key_file, &pair.serialize_pem(), 0o600)
            .and_then(|()| write_file(&certificate_file, certificate, 0o644));
        written.with_context(|| format!("cannot write {}", certificate_file.display()))?;
        say(&format!("wrote  {} and {}", certificate_file.display(), key_file.display()))
    }
}

fn parameters(alternatives: Vec<String>, days: u32) -> anyhow::Result<CertificateParams> {
    let shown = alternatives.join(", ");
    let mut params = CertificateParams::new(alternatives)
        .with_context(|| format!("a certificate cannot contain one of these names: {shown}"))?;
    // Valid from an hour ago, because the clocks of small devices lag.
    let now = SystemTime::now();
    params.not_before = (now - Duration::from_hours(1)).into();
    params.not_after = (now + DAY * days).into();
    params.distinguished_name = rcgen::DistinguishedName::new();
    Ok(params)
}

/// Writes a new file rather than the old one, so that a key never has a weaker mode and links are not followed.
fn write_file(file: &Path, text: &str, mode: u32) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut out: File = OpenOptions::new().write(true).create_new(true).mode(mode).open(file)?;
    out.write_all(text.as_bytes())?;
    out.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::sync::Arc;

    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
    use rustls::server::WebPkiClientVerifier;

    use super::*;

    fn command(out: &Path) -> CertsCommand {
        CertsCommand {
            out: out.to_owned(),
            host: vec!["broker.example.com".into(), "10.0.0.7".into()],
            client: "client".into(),
            days: 30,
            force: false,
        }
    }

    fn contents(out: &Path) -> Vec<Vec<u8>> {
        ["ca.crt", "ca.key", "server.crt", "server.key", "client.crt", "client.key"]
            .map(|name| fs::read(out.join(name)).unwrap())
            .to_vec()
    }

    /// An independent verifier accepts the chain for each name and purpose, and for no other.
    #[test]
    fn the_certificates_hold_before_a_verifier() {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path();
        command(out).run().unwrap();
        let load = |name: &str| CertificateDer::from_pem_file(out.join(name)).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(load("ca.crt")).unwrap();
        let roots = Arc::new(roots);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let (server, client) = (load("server.crt"), load("client.crt"));

        let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(
            Arc::clone(&roots),
            Arc::clone(&provider),
        );
        let verifier = verifier.build().unwrap();
        let check = |certificate: &CertificateDer<'_>, name: &str| {
            use rustls::client::danger::ServerCertVerifier;
            let name = ServerName::try_from(name.to_owned()).unwrap();
            verifier.verify_server_cert(certificate, &[], &name, &[], UnixTime::now()).is_ok()
        };
        for name in ["localhost", "127.0.0.1", "::1", "broker.example.com", "10.0.0.7"] {
            assert!(check(&server, name), "{name}");
        }
        assert!(!check(&server, "example.com"));
        assert!(!check(&client, "client"), "a client's certificate is no server's");

        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
        let verifier = verifier.build().unwrap();
        assert!(verifier.verify_client_cert(&client, &[], UnixTime::now()).is_ok());
        assert!(verifier.verify_client_cert(&server, &[], UnixTime::now()).is_err());

        for name in ["ca.key", "server.key", "client.key"] {
            assert_eq!(fs::metadata(out.join(name)).unwrap().mode() & 0o777, 0o600, "{name}");
            PrivateKeyDer::from_pem_file(out.join(name)).unwrap();
        }
    }

    #[test]
    fn what_exists_is_kept_unless_forced() {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path();
        command(out).run().unwrap();
        let first = contents(out);
        command(out).run().unwrap();
        assert_eq!(contents(out), first);
        CertsCommand { client: "device-7".into(), ..command(out) }.run().unwrap();
        assert_eq!(contents(out), first);
        assert!(out.join("device-7.crt").exists());
        CertsCommand { force: true, ..command(out) }.run().unwrap();
        assert!(contents(out).iter().zip(&first).all(|(new, old)| new != old));
    }

    #[test]
    fn names_that_would_leave_the_directory_or_hit_other_files_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        for client in ["", "../x", "a/b", "ca", "server", ".x"] {
            let command = CertsCommand { client: client.into(), ..command(directory.path()) };
            assert!(command.run().is_err(), "{client}");
        }
        let command = CertsCommand { host: vec!["ä b".into()], ..command(directory.path()) };
        assert!(command.run().is_err());
    }
}
