//! The HTTP listener for operators: `/metrics`, `/live`, `/ready`, `/status`.
//!
//! It has no authentication, so it accepts only loopback addresses unless the configuration allows others. The size
//! and duration of requests and the number of connections are limited, so that a misbehaving monitoring system does
//! not affect the Clients of the broker.

pub(crate) mod bounded;
pub(crate) mod health;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use tokio::net::TcpListener;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::control::command::{Command, CommandPort};
use crate::http::bounded::BoundedListener;
use crate::http::health::Health;
use crate::metrics::{Metrics, exposition};
use crate::net::shutdown::Shutdown;

/// How long responses in progress may take when the broker stops.
const GRACE: Duration = Duration::from_secs(1);

/// Who may reach the listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Exposure {
    /// This machine only.
    #[default]
    Loopback,
    /// Everybody who can reach the address: metrics and health are not secret there.
    Remote,
}

/// Why the listener could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// It would be reachable from other machines.
    #[error(
        "http: {0} can be reached from other machines, and there is no authentication; listen on \
         127.0.0.1 or [::1], and let a reverse proxy with authentication stand in front"
    )]
    Exposed(SocketAddr),
    /// Something listens there already.
    #[error(
        "http: {0} is in use; stop what listens there (`ss -lntp` shows it) or choose another \
         address"
    )]
    InUse(SocketAddr),
    /// Any other error of the operating system.
    #[error("http: cannot listen on {address}: {source}")]
    System {
        /// Where.
        address: SocketAddr,
        /// The error of the operating system.
        source: io::Error,
    },
}

/// The listener, bound.
pub(crate) struct HttpListener {
    listener: TcpListener,
    address: SocketAddr,
}

/// The data that the pages show.
#[derive(Clone)]
struct Pages {
    metrics: Metrics,
    health: Arc<Health>,
    commands: Arc<CommandPort>,
}

impl HttpListener {
    /// Binds the listener.
    pub(crate) async fn bind(address: SocketAddr, exposure: Exposure) -> Result<Self, HttpError> {
        if exposure == Exposure::Loopback && !address.ip().to_canonical().is_loopback() {
            return Err(HttpError::Exposed(address));
        }
        let listener = TcpListener::bind(address).await.map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => HttpError::InUse(address),
            _ => HttpError::System { address, source },
        })?;
        let address =
            listener.local_addr().map_err(|source| HttpError::System { address, source })?;
        Ok(Self { listener, address })
    }

    /// Where it actually listens.
    #[cfg(test)]
    #[must_use]
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the end of the shutdown, so that `/ready` can report that the broker is draining.
    pub(crate) async fn run(
        self,
        metrics: Metrics,
        health: Arc<Health>,
        commands: Arc<CommandPort>,
        shutdown: Shutdown,
    ) {
        info!(address = %self.address, "http listening");
        let router = router(Pages { metrics, health, commands });
        let mut stop = shutdown.clone();
        let server = axum::serve(BoundedListener::new(self.listener), router)
            .with_graceful_shutdown(async move { stop.stopped().await });
        let mut stop = shutdown;
        let too_late = async move {
            stop.stopped().await;
            sleep(GRACE).await;
        };
        tokio::select! {
            served = server => if let Err(error) = served {
                warn!(%error, "http listener stopped");
            },
            () = too_late => {}
        }
    }
}

fn router(pages: Pages) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/metrics", get(metrics))
        .route("/live", get(live))
        .route("/ready", get(ready))
        .route("/status", get(status))
        .with_state(pages)
}

const TEXT: (HeaderName, &str) = (header::CONTENT_TYPE, "text/plain; charset=utf-8");
const NOT_CACHED: (HeaderName, &str) = (header::CACHE_CONTROL, "no-store");

async fn index() -> impl IntoResponse {
    let text = concat!(
        "petrel ",
        env!("CARGO_PKG_VERSION"),
        "\n\n/metrics  figures for Prometheus\n/live     200 while the process runs\n\
         /ready    200 while Clients are served, else 503 and why not\n\
         /status   what `petrel ctl --json status` prints\n"
    );
    ([TEXT, NOT_CACHED], text)
}

/// Collecting metrics takes locks and reads `/proc`, so it does not run on a thread that serves Clients.
async fn metrics(State(pages): State<Pages>) -> Response {
    match tokio::task::spawn_blocking(move || pages.metrics.exposition()).await {
        Ok(text) => {
            let kind = (header::CONTENT_TYPE, exposition::CONTENT_TYPE);
            ([kind, NOT_CACHED], text).into_response()
        }
        Err(bug) => {
            warn!(error = %bug, "metrics could not be collected");
            (StatusCode::INTERNAL_SERVER_ERROR, [TEXT], "metrics could not be collected\n")
                .into_response()
        }
    }
}

async fn live() -> impl IntoResponse {
    ([TEXT, NOT_CACHED], "alive\n")
}

async fn ready(State(pages): State<Pages>) -> impl IntoResponse {
    let readiness = pages.health.readiness();
    let status =
        if readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [TEXT, NOT_CACHED], format!("{readiness}\n"))
}

/// The output of `petrel ctl --json status`.
async fn status(State(pages): State<Pages>) -> Response {
    match pages.commands.ask(Command::Status).await {
        Ok(reply) => ([NOT_CACHED], Json(reply)).into_response(),
        Err(error) => {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            (status, [TEXT, NOT_CACHED], format!("{error}\n")).into_response()
        }
    }
}

#[cfg(test)]
mod tests;
