//! Jobs that a connection cannot wait for: they run elsewhere, one at a time, and return a result.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::access::Credentials;
use crate::broker::connection::{Authenticated, Exchanged, Request};
use crate::net::connection::Service;
use crate::packet::reason_code::ReasonCode;
use crate::session::queue::{Page, PageRequest};

/// Messages of one page of a queue.
const PAGE_MESSAGES: usize = 1024;
/// Bytes of one page of a queue.
const PAGE_BYTES: usize = 256 * 1024;
/// Pause before reading a page is tried again.
const PAGE_RETRY: Duration = Duration::from_secs(1);

/// The result of a job.
pub(super) enum JobResult {
    Authenticated(Authenticated),
    Exchanged(Exchanged),
    Page(PageRequest, Option<Page>),
}

/// Starts the requested job.
pub(super) fn start(service: Arc<Service>, request: Request) -> JoinHandle<JobResult> {
    match request {
        Request::Authenticate(credentials) => tokio::spawn(authenticate(service, credentials)),
        Request::Exchange(mut exchange, data) => tokio::task::spawn_blocking(move || {
            let step = exchange.step(&data);
            JobResult::Exchanged((exchange, step))
        }),
        Request::Page(request) => tokio::spawn(read_page(service, request)),
    }
}

/// Checks a password when it is this Client's turn.
async fn authenticate(service: Arc<Service>, credentials: Box<Credentials>) -> JobResult {
    let address = credentials.peer.address.map(|address| address.ip());
    let user_name = credentials.user_name.clone().unwrap_or_default();
    let broker = Arc::clone(&service.broker);
    let check = move || broker.authority().authenticate(&credentials);
    let checked = service.passwords.run(address, &user_name, check).await;
    JobResult::Authenticated(checked.unwrap_or(Err(ReasonCode::ServerBusy)))
}

async fn read_page(service: Arc<Service>, request: PageRequest) -> JobResult {
    let store = Arc::clone(service.broker.store());
    let PageRequest { session, from, to } = request;
    let read = move || store.read_queue(session, from, to, PAGE_MESSAGES, PAGE_BYTES);
    match tokio::task::spawn_blocking(read).await {
        Ok(Ok(entries)) => {
            let page = Page::new(entries, PAGE_MESSAGES, PAGE_BYTES);
            JobResult::Page(request, Some(page))
        }
        Ok(Err(error)) => {
            tracing::error!(session = session.0, %error, "cannot read a queue; retrying");
            tokio::time::sleep(PAGE_RETRY).await;
            JobResult::Page(request, None)
        }
        Err(_stopped) => JobResult::Page(request, None),
    }
}
