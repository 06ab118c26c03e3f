//! A byte stream to the broker: TCP, TLS, or either inside a WebSocket.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustls::HandshakeKind;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::bench::error::BenchError;
use crate::bench::resumption::TlsSession;
use crate::bench::target::Target;
use crate::bench::websocket::WebSocketBytes;

/// A connected stream without WebSocket.
pub(super) enum Plain {
    /// TCP.
    Tcp(TcpStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connected stream.
pub(super) enum Transport {
    /// TCP or TLS.
    Plain(Plain),
    /// Binary frames over either.
    WebSocket(Box<WebSocketBytes<Plain>>),
}

/// How the kernel is asked to treat the socket.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SocketOptions {
    /// Size of the receive buffer, when not the default.
    pub(super) receive_buffer_bytes: Option<u32>,
}

impl Transport {
    /// Connects to the broker, with what the client kept of TLS. `index` selects the local address.
    pub(super) async fn connect(
        target: &Target,
        index: usize,
        options: SocketOptions,
        tls_session: &TlsSession,
    ) -> Result<Self, BenchError> {
        let connect_error = |source| BenchError::Connect { address: target.address, source };
        let socket = open_socket(target, index, options).map_err(connect_error)?;
        let stream = socket.connect(target.address).await.map_err(connect_error)?;
        stream.set_nodelay(true).map_err(connect_error)?;
        let plain = match &target.tls {
            None => Plain::Tcp(stream),
            Some(tls) => {
                let connector = TlsConnector::from(tls.config_of_client(tls_session));
                let stream = connector.connect(tls.server_name.clone(), stream).await;
                Plain::Tls(Box::new(stream.map_err(BenchError::TlsHandshake)?))
            }
        };
        match &target.websocket_path {
            None => Ok(Self::Plain(plain)),
            Some(path) => {
                let stream = WebSocketBytes::connect(plain, &target.host, path).await?;
                Ok(Self::WebSocket(Box::new(stream)))
            }
        }
    }

    /// Whether TLS resumed a session; `None` without TLS.
    pub(super) fn is_resumed(&self) -> Option<bool> {
        let plain = match self {
            Self::Plain(plain) => plain,
            Self::WebSocket(stream) => stream.stream(),
        };
        match plain {
            Plain::Tcp(_) => None,
            Plain::Tls(stream) => {
                Some(stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed))
            }
        }
    }
}

fn open_socket(target: &Target, index: usize, options: SocketOptions) -> io::Result<TcpSocket> {
    let socket = match target.address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if let Some(bytes) = options.receive_buffer_bytes {
        socket.set_recv_buffer_size(bytes)?;
    }
    if let Some(source) = target.source_address(index) {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    Ok(socket)
}

impl AsyncRead for Plain {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Plain {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::WebSocket(stream) => Pin::new(stream.as_mut()).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::WebSocket(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::WebSocket(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::WebSocket(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}
