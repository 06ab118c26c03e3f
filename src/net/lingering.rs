//! Closes a connection so that the last packet arrives.
//!
//! Closing a socket with unread input sends a reset, and a reset discards data that the Client has not read yet, such
//! as the DISCONNECT or CONNACK with the reason. So the sending side is shut down first, and input is read and
//! discarded until the Client closes, within limits of time and size.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

/// How a lingering close ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lingered {
    /// The Client closed its side (or the connection was lost): everything that could arrive has arrived.
    Closed,
    /// The Client went on sending beyond the limit.
    TooMuch,
    /// The Client did not close in time.
    TimedOut,
}

/// Input is discarded in portions of this size.
const PORTION_BYTES: usize = 1024;

/// Shuts down the sending side, and reads until the Client closes. Everything written before must have been flushed
/// to the stream. The caller drops the stream afterwards.
pub async fn close_gracefully<S>(stream: &mut S, max_time: Duration, max_bytes: usize) -> Lingered
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let linger = async {
        if stream.shutdown().await.is_err() {
            return Lingered::Closed;
        }
        let mut portion = vec![0; PORTION_BYTES];
        let mut read_bytes = 0_usize;
        while read_bytes <= max_bytes {
            match stream.read(&mut portion).await {
                Ok(0) | Err(_) => return Lingered::Closed,
                Ok(count) => read_bytes = read_bytes.saturating_add(count),
            }
        }
        Lingered::TooMuch
    };
    timeout(max_time, linger).await.unwrap_or(Lingered::TimedOut)
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn waits_for_the_client_to_close() {
        let (mut ours, mut theirs) = duplex(4096);
        ours.write_all(b"reason").await.unwrap();
        let client = tokio::spawn(async move {
            theirs.write_all(&[0; 3000]).await.unwrap();
            let mut received = Vec::new();
            theirs.read_to_end(&mut received).await.unwrap();
            received
        });
        assert_eq!(close_gracefully(&mut ours, SECOND, 4096).await, Lingered::Closed);
        assert_eq!(client.await.unwrap(), b"reason");
    }

    #[tokio::test]
    async fn a_client_that_never_stops_sending_is_cut() {
        let (mut ours, mut theirs) = duplex(4096);
        let client =
            tokio::spawn(async move { while theirs.write_all(&[0; 512]).await.is_ok() {} });
        assert_eq!(close_gracefully(&mut ours, SECOND * 10, 10_000).await, Lingered::TooMuch);
        drop(ours);
        client.await.unwrap();
    }

    #[tokio::test]
    async fn a_silent_client_costs_bounded_time() {
        let (mut ours, _theirs) = duplex(64);
        let moment = Duration::from_millis(20);
        assert_eq!(close_gracefully(&mut ours, moment, 10_000).await, Lingered::TimedOut);
    }
}
