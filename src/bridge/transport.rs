//! From an address to a stream of bytes: look-up, TCP, TLS, WebSocket. Runs on the bridge's own task, where no local
//! client waits for it; the resolver and the reading of files run on blocking threads.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use crate::bridge::error::LinkError;
use crate::bridge::tls;
use crate::config::bridge::BridgeSettings;
use crate::dial::address::{Address, Carrier};
use crate::dial::websocket;

/// A stream of bytes, whatever carries it.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// Any [`ByteStream`].
pub type BoxStream = Box<dyn ByteStream>;

/// How far an attempt came, for the message when its time is over.
#[derive(Debug, Default)]
pub struct Stage(AtomicU8);

const STAGES: [&str; 5] = [
    "the name look-up",
    "the TCP connection",
    "the TLS handshake",
    "the WebSocket handshake",
    "CONNACK",
];

impl Stage {
    fn reached(&self, stage: u8) {
        self.0.store(stage, Ordering::Relaxed);
    }

    /// The remote broker's CONNACK is awaited.
    pub fn awaits_connack(&self) {
        self.reached(4);
    }

    /// What is under way.
    #[must_use]
    pub fn name(&self) -> &'static str {
        STAGES.get(usize::from(self.0.load(Ordering::Relaxed))).copied().unwrap_or_default()
    }
}

/// Connects to one address, up to where MQTT begins.
///
/// # Errors
/// [`LinkError`] says which step failed and why. The caller limits the time.
pub async fn connect(
    address: &Address,
    settings: &BridgeSettings,
    stage: &Stage,
) -> Result<BoxStream, LinkError> {
    stage.reached(0);
    let candidates = look_up(address, settings.bind_address).await?;
    stage.reached(1);
    let stream = connect_any(&candidates, settings).await?;
    if !address.tls {
        return carry(stream, address, stage).await;
    }
    stage.reached(2);
    let tls_settings = settings.tls.clone();
    let config = tokio::task::spawn_blocking(move || tls::client_config(&tls_settings)).await;
    let config = config.map_err(|error| LinkError::TlsSetUp(error.to_string()))??;
    let name = settings.tls.server_name.as_deref().unwrap_or(&address.host);
    let name = ServerName::try_from(name.to_owned()).map_err(|_| {
        LinkError::TlsSetUp(format!("\"{name}\" is no name for TLS; set tls.server_name"))
    })?;
    let connected = TlsConnector::from(config).connect(name, stream).await;
    let stream = connected.map_err(|error| LinkError::Tls(tls::explain(&error)))?;
    carry(stream, address, stage).await
}

async fn carry<S: ByteStream + 'static>(
    stream: S,
    address: &Address,
    stage: &Stage,
) -> Result<BoxStream, LinkError> {
    match &address.carrier {
        Carrier::Stream => Ok(Box::new(stream)),
        Carrier::WebSocket { path } => {
            stage.reached(3);
            let host = match address.host.contains(':') {
                true => format!("[{}]:{}", address.host, address.port),
                false => format!("{}:{}", address.host, address.port),
            };
            let connected = websocket::upgrade(stream, &host, path).await;
            let stream = connected.map_err(|error| LinkError::WebSocket(error.to_string()))?;
            Ok(Box::new(stream))
        }
    }
}

async fn look_up(
    address: &Address,
    bind_address: Option<IpAddr>,
) -> Result<Vec<SocketAddr>, LinkError> {
    let host = &address.host;
    let found = tokio::net::lookup_host((host.as_str(), address.port)).await;
    let found = found.map_err(|source| LinkError::LookUp { host: host.clone(), source })?;
    let usable: Vec<SocketAddr> = found
        .filter(|candidate| bind_address.is_none_or(|own| own.is_ipv4() == candidate.is_ipv4()))
        .collect();
    if usable.is_empty() {
        let family = if bind_address.is_some() { " of the family of bind_address" } else { "" };
        return Err(LinkError::NoAddress { host: host.clone(), family });
    }
    Ok(usable)
}

async fn connect_any(
    candidates: &[SocketAddr],
    settings: &BridgeSettings,
) -> Result<TcpStream, LinkError> {
    // One address that swallows packets must not use up the time of the others.
    let share = u32::try_from(candidates.len()).unwrap_or(u32::MAX).max(1);
    let patience = (settings.connect_timeout / share).max(Duration::from_millis(100));
    let mut last = None;
    for candidate in candidates {
        let error = match tokio::time::timeout(patience, connect_one(*candidate, settings)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => error,
            Err(_) => LinkError::Connect {
                address: candidate.to_string(),
                source: std::io::ErrorKind::TimedOut.into(),
            },
        };
        last = Some(error);
    }
    Err(last.unwrap_or(LinkError::TimedOut { stage: "the TCP connection" }))
}

async fn connect_one(
    address: SocketAddr,
    settings: &BridgeSettings,
) -> Result<TcpStream, LinkError> {
    let failed = |source| LinkError::Connect { address: address.to_string(), source };
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    let socket = socket.map_err(failed)?;
    if let Some(own) = settings.bind_address {
        let bound = socket.bind(SocketAddr::new(own, 0));
        bound.map_err(|source| LinkError::Bind { address: own.to_string(), source })?;
    }
    let stream = socket.connect(address).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    // A cable that was pulled is noticed by bytes that nobody acknowledges, even when we only send.
    let patience = settings.keep_alive / 2 + settings.response_timeout;
    socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(patience)).map_err(failed)?;
    Ok(stream)
}
