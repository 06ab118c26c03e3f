//! What a Network Connection runs over: a stream of bytes that can also say what has arrived and was not read yet.

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

use crate::websocket::WebSocketStream;

/// A stream of bytes to a Client, whatever lies below.
pub trait ClientStream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Bytes that the system has received and nobody has read. Asked of the system, because the runtime hears of them
    /// later: a read that would wait says nothing about what is there already.
    fn unread_bytes(&self) -> usize;
}

impl ClientStream for TcpStream {
    fn unread_bytes(&self) -> usize {
        unread_in_socket(self)
    }
}

impl ClientStream for UnixStream {
    fn unread_bytes(&self) -> usize {
        unread_in_socket(self)
    }
}

/// Within the process there is nothing between the two ends: what is there can be read at once.
impl ClientStream for DuplexStream {
    fn unread_bytes(&self) -> usize {
        0
    }
}

impl<S: ClientStream> ClientStream for TlsStream<S> {
    fn unread_bytes(&self) -> usize {
        self.get_ref().0.unread_bytes()
    }
}

impl<S: ClientStream> ClientStream for WebSocketStream<S> {
    fn unread_bytes(&self) -> usize {
        self.get_ref().unread_bytes()
    }
}

impl<S: ClientStream + ?Sized> ClientStream for Box<S> {
    fn unread_bytes(&self) -> usize {
        (**self).unread_bytes()
    }
}

fn unread_in_socket(socket: impl std::os::fd::AsFd) -> usize {
    // A socket that cannot say it has failed: reading will show how.
    rustix::io::ioctl_fionread(socket).map_or(0, |bytes| usize::try_from(bytes).unwrap_or(0))
}
