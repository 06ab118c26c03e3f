//! Requests that the operator sends by signal.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// A request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SignalRequest {
    /// SIGHUP: reload certificates, users and bridges.
    Reload,
    /// SIGTERM or SIGINT: stop.
    Stop,
}

/// The signals that the broker handles.
pub(crate) struct Signals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Starts listening.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// The next request. Cancellation safe.
    pub(crate) async fn next(&mut self) -> SignalRequest {
        tokio::select! {
            _ = self.hangup.recv() => SignalRequest::Reload,
            _ = self.interrupt.recv() => SignalRequest::Stop,
            _ = self.terminate.recv() => SignalRequest::Stop,
        }
    }

    /// The next request to stop; others are ignored. Cancellation safe.
    pub(crate) async fn stop_requested(&mut self) {
        while self.next().await != SignalRequest::Stop {}
    }
}
