//! The runtime, signals, deadlines and orderly disconnection of the commands.

use std::future::Future;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use crate::client::connection::Connection;
use crate::client::error::ClientError;
use crate::client::event::Event;

/// How long DISCONNECT may take to be written.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long the broker may take to close after it.
const CLOSING: Duration = Duration::from_millis(300);

/// Whether a command prints why it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failures {
    /// On standard error.
    Told,
    /// Only the exit code tells.
    Silent,
}

/// Runs a command on a runtime with one more thread, which keeps the connection alive while this one blocks.
///
/// # Errors
/// The error of the command; with `--quiet` only the exit code is reported.
pub(super) fn run(
    failures: Failures,
    command: impl Future<Output = Result<(), ClientError>>,
) -> Result<ExitCode, ClientError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(ClientError::Runtime)?;
    let result = runtime.block_on(command);
    // A hanging name look-up must not keep the process alive.
    runtime.shutdown_background();
    match result {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => match failures {
            Failures::Told => Err(error),
            Failures::Silent => Ok(ExitCode::from(error.exit_code())),
        },
    }
}

/// Resolves at SIGINT and SIGTERM.
pub(super) struct Interrupt {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupt {
    /// Starts listening for signals.
    ///
    /// # Errors
    /// Signals are not available.
    pub(super) fn listen() -> Result<Self, ClientError> {
        let listen = |kind| signal(kind).map_err(ClientError::Runtime);
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// Waits for a signal. Cancellation safe.
    pub(super) async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Waits until a moment, or forever.
pub(super) async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Sends DISCONNECT and waits until the broker has closed the connection: then it has read everything.
pub(super) async fn leave(mut connection: Connection) {
    connection.disconnect();
    let written = async {
        while !matches!(connection.event().await, Event::Disconnected | Event::Lost(_)) {}
    };
    if tokio::time::timeout(FAREWELL, written).await.is_ok() {
        let closed = async { while !matches!(connection.event().await, Event::Lost(_)) {} };
        let _closed_in_time = tokio::time::timeout(CLOSING, closed).await;
    }
}

/// Messages of a command to the user.
#[derive(Debug, Clone, Copy)]
pub(super) struct Console {
    /// `--quiet` silences everything.
    pub(super) failures: Failures,
    /// `--debug` was given.
    pub(super) notes: bool,
}

impl Console {
    /// Something the user should know.
    pub(super) fn warn(self, text: &str) {
        if self.failures == Failures::Told {
            // If standard error is closed, there is nowhere to report it.
            let _is_gone = writeln!(std::io::stderr(), "petrel: {text}");
        }
    }

    /// Something for `--debug`.
    pub(super) fn note(self, text: impl FnOnce() -> String) {
        if self.notes {
            self.warn(&text());
        }
    }
}
