//! A listener whose connections are bounded in number, in time and in what they may send.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};

/// Connections at a time; more wait to be accepted.
const MAX_CONNECTIONS: usize = 32;

/// A connection is closed after this time, whatever it does. Those who ask more rarely connect again.
const LIFETIME: Duration = Duration::from_secs(30);

/// Bytes that a connection may send in this time: some hundred requests.
const MAX_RECEIVED_BYTES: usize = 64 * 1024;

/// After a failed accept.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts for `axum`.
pub struct BoundedListener {
    listener: TcpListener,
    places: Arc<Semaphore>,
}

impl BoundedListener {
    /// Around a bound listener.
    #[must_use]
    pub fn new(listener: TcpListener) -> Self {
        Self { listener, places: Arc::new(Semaphore::new(MAX_CONNECTIONS)) }
    }
}

impl Listener for BoundedListener {
    type Io = BoundedStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let place = Arc::clone(&self.places).acquire_owned().await.ok();
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    let lifetime = Box::pin(sleep(LIFETIME));
                    let left = MAX_RECEIVED_BYTES;
                    return (BoundedStream { stream, lifetime, left, _place: place }, address);
                }
                Err(error) => {
                    tracing::debug!(%error, "http connection not accepted");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// One connection with its bounds.
pub struct BoundedStream {
    stream: TcpStream,
    lifetime: Pin<Box<Sleep>>,
    left: usize,
    _place: Option<OwnedSemaphorePermit>,
}

impl BoundedStream {
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        self.lifetime.as_mut().poll(cx).is_ready()
    }
}

impl AsyncRead for BoundedStream {
    /// Beyond the bounds the connection has ended, as far as the server can see.
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == 0 || self.is_over(cx) {
            return Poll::Ready(Ok(()));
        }
        let room = buffer.remaining().min(self.left);
        let mut bounded = ReadBuf::new(buffer.initialize_unfilled_to(room));
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut bounded))?;
        let count = bounded.filled().len();
        buffer.advance(count);
        self.left -= count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for BoundedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_over(cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
