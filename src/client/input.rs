//! Sources of payloads: an option, a file, the whole of standard input, or each of its lines.

use std::io::{BufRead as _, Read as _};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::client::error::ClientError;
use crate::client::options::{PACKET_BYTES_MAX, checked_payload, read_payload};

/// Lines read ahead.
const LINES_MAX: usize = 64;

/// The payload; exactly one of these is given.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Payload (one of these)")]
#[group(id = "payload", required = true, multiple = false)]
pub(super) struct PayloadOptions {
    /// Send this text
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    message: Option<String>,
    /// Send the content of a file
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Send all of standard input as one message
    #[arg(short = 's', long)]
    stdin_file: bool,
    /// Send an empty message, which with -r clears a retained message
    #[arg(short, long)]
    null_message: bool,
}

impl PayloadOptions {
    /// Reads the payload.
    ///
    /// # Errors
    /// It cannot be read, or is too long for MQTT.
    pub(super) fn read(&self) -> Result<Bytes, ClientError> {
        match (&self.message, &self.file) {
            (Some(text), _) => checked_payload(text.clone().into_bytes()),
            (None, Some(path)) => read_payload(path),
            (None, None) if self.stdin_file => {
                let mut payload = Vec::new();
                let input = std::io::stdin().lock();
                let mut input = input.take(u64::from(PACKET_BYTES_MAX) + 1);
                input.read_to_end(&mut payload).map_err(ClientError::Input)?;
                checked_payload(payload)
            }
            (None, None) => Ok(Bytes::new()),
        }
    }
}

/// Payloads, one after the other.
pub(super) enum Source {
    /// The same payload some times.
    Repeated {
        /// What to send.
        payload: Bytes,
        /// How often it is still to be sent.
        left: u64,
        /// The pause in between.
        pause: Duration,
        /// When the next one is due.
        due: Instant,
    },
    /// Lines of standard input.
    Lines(mpsc::Receiver<Result<Bytes, ClientError>>),
}

impl Source {
    /// The same payload some times.
    pub(super) fn repeated(payload: Bytes, left: u64, pause: Duration) -> Self {
        Self::Repeated { payload, left, pause, due: Instant::now() }
    }

    /// The lines of standard input without their ends. Empty lines are left out, as the mosquitto tools do.
    ///
    /// # Errors
    /// No thread can be had.
    pub(super) fn lines() -> Result<Self, ClientError> {
        let (sender, receiver) = mpsc::channel(LINES_MAX);
        // A thread, because a blocking task that waits for input would keep the runtime from ending.
        std::thread::Builder::new()
            .name("standard-input".to_owned())
            .spawn(move || read_lines(&sender))
            .map_err(ClientError::Runtime)?;
        Ok(Self::Lines(receiver))
    }

    /// The next payload, `None` behind the last. Cancellation safe.
    ///
    /// # Errors
    /// Standard input cannot be read.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        match self {
            Self::Repeated { left: 0, .. } => Ok(None),
            Self::Repeated { payload, left, pause, due } => {
                tokio::time::sleep_until(*due).await;
                *due = Instant::now() + *pause;
                *left -= 1;
                Ok(Some(payload.clone()))
            }
            Self::Lines(lines) => lines.recv().await.transpose(),
        }
    }
}

fn read_lines(sender: &mpsc::Sender<Result<Bytes, ClientError>>) {
    let mut input = std::io::stdin().lock();
    loop {
        let mut line = Vec::new();
        // One more for the end of the line, and one to see that it is too long.
        let limit = u64::from(PACKET_BYTES_MAX) + 2;
        let read = input.by_ref().take(limit).read_until(b'\n', &mut line);
        let item = match read {
            Ok(0) => return,
            Ok(_) => {
                if line.last() == Some(&b'\n') {
                    line.pop();
                }
                if line.is_empty() {
                    continue;
                }
                checked_payload(line)
            }
            Err(error) => Err(ClientError::Input(error)),
        };
        let is_last = item.is_err();
        if sender.blocking_send(item).is_err() || is_last {
            return;
        }
    }
}
