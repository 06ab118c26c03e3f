//! Connects to an address: name look-up, TCP, TLS, WebSocket. Resolving and reading files run on blocking threads. The
//! caller limits the total time, including the MQTT handshake; [`DialStage`] tells how far the attempt got.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use crate::dial::address::{Address, Carrier};
use crate::dial::error::{DialError, TlsFailure};
use crate::dial::stream::{BoxStream, ByteStream};
use crate::dial::tls::{RemoteTls, client_config};
use crate::dial::websocket::upgrade;

/// How far an attempt got, for the error message on a timeout.
#[derive(Debug, Default)]
pub(crate) struct DialStage(AtomicU8);

const STAGES: [&str; 5] = [
    "the name look-up",
    "the TCP connection",
    "the TLS handshake",
    "the WebSocket handshake",
    "CONNACK",
];

impl DialStage {
    fn reached(&self, stage: u8) {
        self.0.store(stage, Ordering::Relaxed);
    }

    /// Enters the last stage: waiting for the remote broker's CONNACK.
    pub(crate) fn awaits_connack(&self) {
        self.reached(4);
    }

    /// The current stage.
    #[must_use]
    pub(crate) fn name(&self) -> &'static str {
        STAGES.get(usize::from(self.0.load(Ordering::Relaxed))).copied().unwrap_or_default()
    }
}

/// Where to connect to, and how.
#[derive(Debug)]
pub(crate) struct Route<'a> {
    /// Where the broker is.
    pub(crate) address: &'a Address,
    /// The addresses its name resolved to, if known.
    pub(crate) resolved: Option<SocketAddr>,
    /// How TLS is spoken, if it is.
    pub(crate) tls: Option<Tls<'a>>,
    /// How the socket is made.
    pub(crate) socket: SocketOptions,
}

/// How TLS is spoken.
#[derive(Debug)]
pub(crate) enum Tls<'a> {
    /// The files are reread, so that renewed certificates and keys are used without a restart.
    Settings(&'a RemoteTls),
    /// The files have been read. The certificate is for the host of the address.
    Ready(Arc<ClientConfig>),
}

/// How the socket is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SocketOptions {
    /// Where to connect from.
    pub(crate) local_address: Option<IpAddr>,
    /// The longest that TCP may take to connect, all addresses of a name together.
    pub(crate) connect_timeout: Duration,
    /// How long bytes may stay unacknowledged, when not as long as the system says. So a cable that was pulled is
    /// noticed even by those who only send.
    pub(crate) user_timeout: Option<Duration>,
    /// Size of the receive buffer, when not the default.
    pub(crate) receive_buffer_bytes: Option<u32>,
}

/// A connection up to where MQTT begins.
pub(crate) struct Dialed {
    /// The bytes.
    pub(crate) stream: BoxStream,
    /// Whether TLS resumed a session; `None` without TLS.
    pub(crate) is_resumed: Option<bool>,
}

/// Connects.
///
/// # Errors
/// [`DialError`] says which step failed and why.
pub(crate) async fn connect(route: &Route<'_>, stage: &DialStage) -> Result<Dialed, DialError> {
    let Route { address, resolved, tls, socket } = route;
    stage.reached(0);
    let candidates = match resolved {
        Some(resolved) => vec![*resolved],
        None => look_up(address, socket.local_address).await?,
    };
    stage.reached(1);
    let stream = connect_any(&address.host, &candidates, socket).await?;
    let Some(tls) = tls else {
        return Ok(Dialed { stream: carry(stream, address, stage).await?, is_resumed: None });
    };
    stage.reached(2);
    let (config, name) = match tls {
        Tls::Ready(config) => (Arc::clone(config), None),
        Tls::Settings(settings) => (read_files(settings).await?, settings.server_name.as_ref()),
    };
    let name = name.unwrap_or(&address.host);
    let server_name =
        ServerName::try_from(name.clone()).map_err(|_| DialError::ServerName(name.clone()))?;
    let connected = TlsConnector::from(config).connect(server_name, stream).await;
    let stream = connected.map_err(|error| DialError::Tls(TlsFailure::from(&error)))?;
    let is_resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
    Ok(Dialed { stream: carry(stream, address, stage).await?, is_resumed: Some(is_resumed) })
}

async fn read_files(settings: &RemoteTls) -> Result<Arc<ClientConfig>, DialError> {
    let settings = settings.clone();
    let read = tokio::task::spawn_blocking(move || client_config(&settings)).await;
    read.map_err(|error| DialError::TlsSetUp(error.to_string()))?.map(Arc::new)
}

async fn carry<S: ByteStream + 'static>(
    stream: S,
    address: &Address,
    stage: &DialStage,
) -> Result<BoxStream, DialError> {
    let Carrier::WebSocket { path } = &address.carrier else { return Ok(Box::new(stream)) };
    stage.reached(3);
    let upgraded = upgrade(stream, &address.authority(), path).await;
    Ok(Box::new(upgraded.map_err(DialError::WebSocket)?))
}

async fn look_up(
    address: &Address,
    local_address: Option<IpAddr>,
) -> Result<Vec<SocketAddr>, DialError> {
    let host = &address.host;
    let found = tokio::net::lookup_host((host.as_str(), address.port)).await;
    let found = found.map_err(|source| DialError::LookUp { host: host.clone(), source })?;
    let is_usable =
        |found: &SocketAddr| local_address.is_none_or(|own| own.is_ipv4() == found.is_ipv4());
    Ok(found.filter(is_usable).collect())
}

async fn connect_any(
    host: &str,
    candidates: &[SocketAddr],
    options: &SocketOptions,
) -> Result<TcpStream, DialError> {
    // One address that swallows packets must not use up the time of the others.
    let share = u32::try_from(candidates.len()).unwrap_or(u32::MAX).max(1);
    let patience = (options.connect_timeout / share).max(Duration::from_millis(100));
    let mut last = None;
    for candidate in candidates {
        let error = match tokio::time::timeout(patience, connect_one(*candidate, options)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => error,
            Err(_) => {
                DialError::Connect { address: *candidate, source: io::ErrorKind::TimedOut.into() }
            }
        };
        last = Some(error);
    }
    let local_address = options.local_address;
    Err(last.unwrap_or_else(|| DialError::NoAddress { host: host.to_owned(), local_address }))
}

async fn connect_one(address: SocketAddr, options: &SocketOptions) -> Result<TcpStream, DialError> {
    let failed = |source| DialError::Connect { address, source };
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    let socket = socket.map_err(failed)?;
    if let Some(bytes) = options.receive_buffer_bytes {
        socket.set_recv_buffer_size(bytes).map_err(failed)?;
    }
    if let Some(own) = options.local_address {
        let bound = socket.bind(SocketAddr::new(own, 0));
        bound.map_err(|source| DialError::Bind { address: own, source })?;
    }
    let stream = socket.connect(address).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    if let Some(patience) = options.user_timeout {
        socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(patience)).map_err(failed)?;
    }
    Ok(stream)
}
