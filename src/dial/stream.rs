//! A stream of bytes, independent of its transport.

use tokio::io::{AsyncRead, AsyncWrite};

/// A stream of bytes to a broker.
pub(crate) trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// Any [`ByteStream`].
pub(crate) type BoxStream = Box<dyn ByteStream>;
