//! The client side of MQTT over WebSocket as a byte stream: each write is one binary frame. [MQTT-6.0.0-1]

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use futures_util::{Sink as _, Stream as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tungstenite::Message;
use tungstenite::client::IntoClientRequest as _;
use tungstenite::http::HeaderValue;

use crate::bench::error::BenchError;

/// Bytes carried by binary frames.
pub(super) struct WebSocketBytes<S> {
    frames: WebSocketStream<S>,
    /// What is left of the frame being read.
    current: Bytes,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocketBytes<S> {
    /// Upgrades a connected stream.
    pub(super) async fn connect(stream: S, host: &str, path: &str) -> Result<Self, BenchError> {
        let boxed = |error| BenchError::WebSocket(Box::new(error));
        let mut request = format!("ws://{host}{path}").into_client_request().map_err(boxed)?;
        // [MQTT-6.0.0-3]
        request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static("mqtt"));
        let (frames, _response) =
            tokio_tungstenite::client_async(request, stream).await.map_err(boxed)?;
        Ok(Self { frames, current: Bytes::new() })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocketBytes<S> {
    /// The stream below.
    pub(super) fn stream(&self) -> &S {
        self.frames.get_ref()
    }
}

fn io_error(error: tungstenite::Error) -> io::Error {
    match error {
        tungstenite::Error::Io(error) => error,
        other => io::Error::other(other),
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocketBytes<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.current.is_empty() {
            match ready!(Pin::new(&mut this.frames).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => this.current = bytes,
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(())),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(io_error(error))),
            }
        }
        let length = this.current.len().min(buffer.remaining());
        buffer.put_slice(this.current.get(..length).unwrap_or_default());
        this.current.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocketBytes<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut frames = Pin::new(&mut self.get_mut().frames);
        ready!(frames.as_mut().poll_ready(cx)).map_err(io_error)?;
        let frame = Message::Binary(Bytes::copy_from_slice(bytes));
        frames.start_send(frame).map_err(io_error)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().frames).poll_flush(cx).map_err(io_error)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().frames).poll_close(cx).map_err(io_error)
    }
}
