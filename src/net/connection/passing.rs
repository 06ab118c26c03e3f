//! What a Network Connection has only at its beginning, at its end, or while something holds it up. An idle one has none of
//! it, so it stands behind one pointer: memory for a hundred thousand idle Clients is the sum of such parts.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::task::JoinHandle;
use tokio::time::Sleep;

use crate::durable::message::Timestamp;
use crate::net::connection::Driver;
use crate::net::connection::job::JobResult;
use crate::net::connection::last_input::LastInput;

/// The parts. Each is `None` most of the time.
#[derive(Default)]
pub(super) struct Passing {
    /// Watched until the Client is connected; afterwards its Session is notified.
    pub(super) draining: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// A timer for short waits (a tenth of a second).
    pub(super) timer: Option<Pin<Box<Sleep>>>,
    /// What may block runs elsewhere.
    pub(super) job: Option<JoinHandle<JobResult>>,
    /// Since when the stream has accepted nothing although there is something to write.
    pub(super) stalled_since: Option<Timestamp>,
    /// Since when the connection has been closing.
    pub(super) closing_since: Option<Timestamp>,
    /// The error, if nothing more can be written.
    pub(super) failure: Option<io::Error>,
    /// The state of the last call, while there is one.
    pub(super) last_input: Option<LastInput>,
}

impl Passing {
    /// Whether nothing of it is there any more.
    pub(super) fn is_over(&self) -> bool {
        let Self { draining, timer, job, stalled_since, closing_since, failure, last_input } = self;
        draining.is_none()
            && timer.is_none()
            && job.is_none()
            && stalled_since.is_none()
            && closing_since.is_none()
            && failure.is_none()
            && last_input.is_none()
    }

    /// Ready once, when the broker begins to drain.
    pub(super) fn poll_draining(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(draining) = &mut self.draining else { return Poll::Pending };
        ready!(draining.as_mut().poll(cx));
        self.draining = None;
        Poll::Ready(())
    }
}

impl<S> Driver<S> {
    /// Whether nothing can be written any more.
    pub(super) fn has_failed(&self) -> bool {
        self.passing.as_ref().is_some_and(|passing| passing.failure.is_some())
    }

    /// Since when the stream has accepted nothing.
    #[inline]
    pub(super) fn stalled_since(&self) -> Option<Timestamp> {
        self.passing.as_ref()?.stalled_since
    }

    /// Since when the connection has been closing.
    #[inline]
    pub(super) fn closing_since(&self) -> Option<Timestamp> {
        self.passing.as_ref()?.closing_since
    }

    /// Called when the stream has accepted something.
    #[inline]
    pub(super) fn note_progress(&mut self) {
        if let Some(passing) = self.passing.as_mut() {
            passing.stalled_since = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use crate::access::Peer;
    use crate::net::accept::Handler;
    use crate::net::connection::MqttHandler;
    use crate::net::entrance::Place;

    /// What Tokio adds to a task: its header, scheduler, number, state and trailer. It rounds the sum up to 128 bytes.
    const ADDED_BYTES: usize = 104;

    fn result_bytes<A, B, C, D, R>(_: impl Fn(A, B, C, D) -> R) -> usize {
        size_of::<R>()
    }

    /// A field that most connections do not use most of the time belongs into [`super::Passing`], or behind a pointer.
    #[test]
    fn an_idle_connection_takes_a_small_block() {
        let bytes = result_bytes(
            |handler: MqttHandler, stream: TcpStream, peer: Peer, place: Option<Place>| {
                handler.handle(stream, peer, place)
            },
        );
        assert!(bytes + ADDED_BYTES <= 640, "{bytes} bytes");
    }
}
