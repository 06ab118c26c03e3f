//! The stream under a Network Connection: a byte stream that can also tell how many unread bytes have arrived.

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

use crate::websocket::WebSocketStream;
use crate::websocket::frame::CloseCause;

/// A stream of bytes to a Client, independent of its transport.
pub trait ClientStream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Bytes that the system has received but that were not read. This queries the system, because the runtime learns
    /// of them later: a read that would block does not mean that nothing is there.
    fn unread_bytes(&self) -> usize;

    /// Says why the stream will be shut down, to those that can tell the other side.
    fn set_close_cause(&mut self, _close_cause: CloseCause) {}
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

/// Within the process nothing is between the two ends: everything written can be read at once.
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

    fn set_close_cause(&mut self, close_cause: CloseCause) {
        Self::set_close_cause(self, close_cause);
    }
}

impl<S: ClientStream + ?Sized> ClientStream for Box<S> {
    fn unread_bytes(&self) -> usize {
        (**self).unread_bytes()
    }

    fn set_close_cause(&mut self, close_cause: CloseCause) {
        (**self).set_close_cause(close_cause);
    }
}

fn unread_in_socket(socket: impl std::os::fd::AsFd) -> usize {
    // If the socket cannot answer, it has failed, and reading will report the error.
    rustix::io::ioctl_fionread(socket).map_or(0, |bytes| usize::try_from(bytes).unwrap_or(0))
}
