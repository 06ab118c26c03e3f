//! What the commands have in common while they run: the runtime, signals, deadlines, leaving in good order.

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
/// How long the broker may take to close behind it.
const CLOSING: Duration = Duration::from_millis(300);

/// Whether a command says why it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failures {
    /// On standard error.
    Told,
    /// The exit code tells.
    Silent,
}

/// Runs a command on a runtime with one more thread, which keeps the connection alive while this one blocks.
///
/// # Errors
/// What the command says, unless it is to be quiet: then only the exit code tells.
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
    // A name look-up that hangs must not keep the process.
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
    /// From now on signals are noticed.
    ///
    /// # Errors
    /// The system has no signals for us.
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

/// Waits for a moment, or for ever.
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

/// Where a command tells what happens.
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
            // Nobody is left to tell if standard error is gone.
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
