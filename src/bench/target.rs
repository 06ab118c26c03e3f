//! The broker and how to connect to it: the options common to all scenarios.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use rustls::ClientConfig;
use rustls::client::Resumption;

use crate::bench::client::ANSWER_TIMEOUT;
use crate::bench::error::BenchError;
use crate::bench::resumption::TlsSession;
use crate::dial::address::{Address, Carrier};
use crate::dial::connect::{DialStage, Dialed, Route, SocketOptions, Tls, connect};
use crate::dial::error::DialError;
use crate::dial::tls::{RemoteTls, Verify, client_config};
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
    /// Certificates (PEM) of trusted authorities [default: those of the system]
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
    /// Full TLS handshakes only, without session resumption
    #[arg(long, global = true)]
    no_resumption: bool,
    /// Use WebSocket
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

/// A resolved broker.
#[derive(Debug, Clone)]
pub(super) struct Target {
    address: Address,
    /// The first address of that name.
    resolved: SocketAddr,
    /// The version spoken.
    pub(super) version: ProtocolVersion,
    /// User name, if any.
    pub(super) username: Option<String>,
    /// Password, if any.
    pub(super) password: Option<String>,
    /// TLS, if used, of a client that resumes nothing.
    tls: Option<ClientConfig>,
    resumes: bool,
}

impl TargetOptions {
    /// Resolves the name and reads the certificates.
    pub(super) fn into_target(self) -> Result<Target, BenchError> {
        let tls = if self.tls { Some(self.tls_config()?) } else { None };
        let port = self.port.unwrap_or(match (self.tls, self.websocket) {
            (_, true) => 8083,
            (true, false) => 8883,
            (false, false) => 1883,
        });
        let failed = |source| DialError::LookUp { host: self.host.clone(), source };
        let mut found = (self.host.as_str(), port).to_socket_addrs().map_err(failed)?;
        let resolved = found.next().ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))?;
        let carrier = match self.websocket {
            true => Carrier::WebSocket { path: self.path },
            false => Carrier::Stream,
        };
        Ok(Target {
            address: Address { host: self.host, port, tls: self.tls, carrier },
            resolved,
            version: match self.version {
                VersionOption::V3_1 => ProtocolVersion::V3_1,
                VersionOption::V3_1_1 => ProtocolVersion::V3_1_1,
                VersionOption::V5_0 => ProtocolVersion::V5_0,
            },
            username: self.username,
            password: self.password,
            tls,
            resumes: !self.no_resumption,
        })
    }

    fn tls_config(&self) -> Result<ClientConfig, DialError> {
        let mut config = client_config(&RemoteTls {
            ca_file: self.cafile.clone(),
            identity: self.cert.clone().zip(self.key.clone()),
            verify: if self.insecure { Verify::None } else { Verify::Full },
            ..RemoteTls::default()
        })?;
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

impl Target {
    /// Connects, as the client with this index and with what it kept of TLS.
    pub(super) async fn dial(
        &self,
        index: usize,
        receive_buffer_bytes: Option<u32>,
        session: &TlsSession,
    ) -> Result<Dialed, DialError> {
        let route = Route {
            address: &self.address,
            resolved: Some(self.resolved),
            tls: self.tls_of_client(session),
            socket: SocketOptions {
                local_address: self.source_address(index),
                connect_timeout: ANSWER_TIMEOUT,
                user_timeout: None,
                receive_buffer_bytes,
            },
        };
        connect(&route, &DialStage::default()).await
    }

    fn tls_of_client(&self, session: &TlsSession) -> Option<Tls<'static>> {
        let mut config = self.tls.clone()?;
        if self.resumes {
            config.resumption = Resumption::store(session.store());
        }
        Some(Tls::Ready(Arc::new(config)))
    }

    /// Local address for the client with this index: many connections to 127.0.0.1 need more than one, because one
    /// address has only some 28,000 ports for outgoing connections.
    fn source_address(&self, index: usize) -> Option<IpAddr> {
        const CLIENTS_PER_ADDRESS: usize = 5_000;
        let IpAddr::V4(address) = self.resolved.ip() else { return None };
        if !address.is_loopback() || index < CLIENTS_PER_ADDRESS {
            return None;
        }
        let host = u8::try_from(1 + index / CLIENTS_PER_ADDRESS).unwrap_or(u8::MAX);
        Some(IpAddr::from([127, 0, 0, host]))
    }

    /// `tcp`, `tls`, `ws` or `wss`.
    pub(super) fn transport_name(&self) -> &'static str {
        match (&self.address.carrier, self.address.tls) {
            (Carrier::Stream, false) => "tcp",
            (Carrier::Stream, true) => "tls",
            (Carrier::WebSocket { .. }, false) => "ws",
            (Carrier::WebSocket { .. }, true) => "wss",
        }
    }

    /// Whether TLS is used.
    pub(super) fn is_tls(&self) -> bool {
        self.address.tls
    }
}
