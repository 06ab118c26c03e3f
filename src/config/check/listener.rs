//! Checks `[[listener]]`: its address, its TLS files, and that it is not open to the network by accident.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use crate::access::ListenerRules;
use crate::config::check::Checker;
use crate::config::choice::{ClientCertificate, ListenerTransport, UserNameFrom};
use crate::config::conversion::IntoLimit;
use crate::config::settings::{
    CertificateName, ListenAddress, ListenerSettings, TlsSettings, Transport,
};
use crate::config::table::{File, Listener, Tls};
use crate::config::value::{Switch, TextList};
use crate::session::policies::Policies;
use crate::topic::mount_point::MountPoint;

/// Checks all listeners. If there are none, there is one for MQTT on loopback.
pub(crate) fn listeners(checker: &mut Checker<'_>, file: &File) -> Vec<ListenerSettings> {
    let default = [Listener::default()];
    let written = if file.listener.is_empty() { &default[..] } else { &file.listener };
    let mut names = BTreeMap::new();
    let mut addresses: Vec<ListenAddress> = Vec::new();
    let mut listeners = Vec::new();
    for (index, listener) in written.iter().enumerate() {
        let checked = one_listener(checker, file, index, listener);
        if let Some(other) = names.insert(checked.rules.name.clone(), index) {
            let problem =
                format!("\"{}\" is also the name of listener {other}", checked.rules.name);
            checker.report(&format!("listener[{index}].name"), problem, "give it a unique name");
        }
        if addresses.contains(&checked.address) && !is_any_port(&checked.address) {
            let key = format!("listener[{index}].listen");
            let problem = format!("another listener has \"{}\" already", listener.listen);
            checker.report(&key, problem, "give it another port");
        }
        addresses.push(checked.address.clone());
        listeners.push(checked);
    }
    listeners
}

fn is_any_port(address: &ListenAddress) -> bool {
    matches!(address, ListenAddress::Tcp(address) if address.port() == 0)
}

fn one_listener(
    checker: &mut Checker<'_>,
    file: &File,
    index: usize,
    written: &Listener,
) -> ListenerSettings {
    let key = |name: &str| format!("listener[{index}].{name}");
    let address = listen_address(checker, &key("listen"), written);
    let tls = written.tls.as_ref().map(|tls| tls_settings(checker, index, tls));
    let has_users = !(file.auth.users_file.is_empty() && file.auth.password_file.is_empty());
    let certificate_required =
        tls.as_ref().is_some_and(|tls| tls.client_certificate == ClientCertificate::Required);
    let certificate_as_user_name = uses_certificate_name(written.tls.as_ref());
    let reach = match address {
        ListenAddress::Tcp(address) if !is_loopback(address.ip()) => Reach::Network,
        ListenAddress::Tcp(_) | ListenAddress::Unix { .. } => Reach::ThisMachine,
    };
    let allow_anonymous = match written.allow_anonymous {
        Switch::On => true,
        Switch::Off => false,
        Switch::Auto => !has_users && !certificate_required && reach == Reach::ThisMachine,
    };
    if !allow_anonymous && !has_users && !certificate_as_user_name {
        report_closed(checker, &key("allow_anonymous"), written, reach);
    }
    let rules = ListenerRules {
        name: if written.name.is_empty() { written.listen.clone() } else { written.name.clone() },
        allow_anonymous,
        certificate_as_user_name,
        mount_point: mount_point(checker, &key("mount_point"), &written.mount_point),
        max_packet_bytes: written.max_packet_size.into_limit(),
        max_keep_alive_seconds: written.max_keep_alive.into_limit(),
        policies: Policies::default(),
        internal: false,
    };
    ListenerSettings {
        rules: Arc::new(rules),
        address,
        transport: transport(checker, index, written),
        tls,
        proxy_protocol: written.proxy_protocol,
        max_connections: written.max_connections.into_limit(),
    }
}

/// Who can reach an address.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    ThisMachine,
    Network,
}

/// Reports listeners to which nobody or everybody could connect: both are refused at startup.
fn report_closed(checker: &mut Checker<'_>, key: &str, written: &Listener, reach: Reach) {
    let listen = &written.listen;
    let problem = if reach == Reach::Network {
        format!("\"{listen}\" can be reached from the network, but does not authenticate clients")
    } else {
        "anonymous clients are refused, and there are no users".to_owned()
    };
    let cure = "add users (`petrel passwd users.txt NAME`, then users_file = \"users.txt\" under [auth]), \
                or require client certificates (client_certificate = \"required\" and client_ca under \
                [listener.tls]), or write allow_anonymous = true for this listener";
    let end = if reach == Reach::Network { " to let everyone in" } else { "" };
    checker.report(key, problem, format!("{cure}{end}"));
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

fn listen_address(checker: &mut Checker<'_>, key: &str, written: &Listener) -> ListenAddress {
    if let Some(path) = written.listen.strip_prefix("unix:") {
        // The longest path in the address of a Unix socket.
        if path.is_empty() || path.len() > 107 {
            checker.report(
                key,
                "the path must have 1 to 107 bytes",
                "write \"unix:/run/petrel.sock\"",
            );
        }
        return ListenAddress::Unix { path: PathBuf::from(path), mode: written.unix_mode.0 };
    }
    let fallback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    ListenAddress::Tcp(tcp_address(checker, key, &written.listen).unwrap_or(fallback))
}

/// Reads `address:port`; `localhost` stands for 127.0.0.1.
pub(crate) fn tcp_address(checker: &mut Checker<'_>, key: &str, text: &str) -> Option<SocketAddr> {
    let numeric = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    if let Ok(address) = numeric.parse() {
        return Some(address);
    }
    let port = text.rsplit(':').next().unwrap_or(text);
    let port = port.parse::<u16>().unwrap_or(1883);
    let cure = format!(
        "write address and port: \"127.0.0.1:{port}\" for this machine only, \"0.0.0.0:{port}\" or \
         \"[::]:{port}\" (with IPv4 too) for the network"
    );
    checker.report(key, format!("\"{text}\" is not an address"), cure);
    None
}

fn transport(checker: &mut Checker<'_>, index: usize, written: &Listener) -> Transport {
    match written.transport {
        ListenerTransport::Mqtt => Transport::Mqtt,
        ListenerTransport::WebSocket => {
            let key = format!("listener[{index}].path");
            let TextList(paths) = &written.path;
            if paths.is_empty() {
                checker.report(&key, "no request would be accepted", "write [\"/mqtt\"]");
            }
            if paths.iter().any(|path| !path.starts_with('/')) {
                checker.report(&key, "a path begins with /", "write \"/mqtt\"");
            }
            Transport::WebSocket { paths: paths.clone(), origins: written.origins.clone() }
        }
    }
}

fn mount_point(checker: &mut Checker<'_>, key: &str, text: &str) -> Option<MountPoint> {
    MountPoint::parse(text).unwrap_or_else(|error| {
        let cure = "write the first levels of a Topic Name without wildcards, such as \"site-1/\"";
        checker.report(key, format!("\"{text}\" cannot stand before a topic: {error}"), cure);
        None
    })
}

fn uses_certificate_name(tls: Option<&Tls>) -> bool {
    tls.is_some_and(|tls| {
        tls.client_certificate != ClientCertificate::None
            && tls.user_name_from != UserNameFrom::None
    })
}

fn tls_settings(checker: &mut Checker<'_>, index: usize, written: &Tls) -> TlsSettings {
    let key = |name: &str| format!("listener[{index}].tls.{name}");
    for (name, value) in [("certificate", &written.certificate), ("key", &written.key)] {
        if value.is_empty() {
            let cure = "give the path of a PEM file; `petrel certs` makes one for development";
            checker.report(&key(name), "required for TLS", cure);
        }
    }
    let asks = written.client_certificate != ClientCertificate::None;
    if asks && written.client_ca.is_empty() {
        let cure = "give the path of the authority's certificate, PEM";
        checker.report(&key("client_ca"), "required to verify client certificates", cure);
    }
    if !asks && !written.client_ca.is_empty() {
        let cure =
            "write client_certificate = \"optional\" or \"required\", or leave client_ca out";
        checker.report(&key("client_ca"), "client certificates are not requested", cure);
    }
    TlsSettings {
        certificate: PathBuf::from(&written.certificate),
        key: PathBuf::from(&written.key),
        client_authority: written.client_ca.clone().into_limit(),
        client_certificate: written.client_certificate,
        certificate_name: match written.user_name_from {
            UserNameFrom::San => CertificateName::SubjectAlternativeName,
            UserNameFrom::Cn | UserNameFrom::None => CertificateName::CommonName,
        },
        min_version: written.min_version,
    }
}
