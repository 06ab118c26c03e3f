//! Recipients that lag behind, and publishers that wait for them.

use std::task::Waker;
use std::time::Duration;

use crate::durable::message::Timestamp;
use crate::session::outbound::Outbound;
use crate::session::slowness::Slowness;

/// An outbox with more bytes than this makes publishers wait briefly.
const CROWDED_BYTES: usize = 128 * 1024;
/// A recipient that needs longer than this to get below [`CROWDED_BYTES`] is slower than any healthy one.
const SHORT_WAIT: Duration = Duration::from_millis(10);
/// The same if it has to acknowledge messages.
const SHORT_ACKNOWLEDGED_WAIT: Duration = Duration::from_millis(50);

/// What matters only for a recipient that has lagged behind or lost messages.
#[derive(Default)]
pub(super) struct Congestion {
    /// Publishers that wait for room.
    waiting: Vec<Waker>,
    /// How long publishers have waited so far.
    slowness: Slowness,
    /// Messages dropped so far.
    pub(super) dropped_count: u64,
}

impl Congestion {
    /// Lets all go on.
    pub(super) fn release(&mut self) {
        std::mem::take(&mut self.waiting).into_iter().for_each(Waker::wake);
    }
}

impl Outbound {
    /// Whether the recipient lags so far behind that its publishers should wait briefly. A recipient for which they
    /// waited in vain is stalled: they do not wait for it again until it has caught up.
    #[inline]
    #[must_use]
    pub(crate) fn is_crowded(&self) -> bool {
        self.outbox.bytes() + self.writing_bytes > CROWDED_BYTES || self.queue.is_crowded()
    }

    /// Like [`Self::is_crowded`], and worth waiting for.
    #[inline]
    #[must_use]
    pub(crate) fn makes_wait(&self, now: Timestamp) -> bool {
        self.is_crowded() && self.is_worth_waiting(now)
    }

    fn is_worth_waiting(&self, now: Timestamp) -> bool {
        let congestion = self.congestion.as_ref();
        let is_ignored = congestion.is_some_and(|congestion| congestion.slowness.is_ignored(now));
        !self.is_stalled && !is_ignored && self.is_open()
    }

    /// Records that a publisher waited for this recipient from `since` on. A fast recipient never counts as slow,
    /// however often publishers wait for it.
    pub(crate) fn note_wait(&mut self, since: Timestamp, now: Timestamp) {
        // Acknowledgements take a round trip, which does not count as slowness.
        let is_unacknowledged = self.window.is_empty() && self.queue.is_empty();
        let short = if is_unacknowledged { SHORT_WAIT } else { SHORT_ACKNOWLEDGED_WAIT };
        if now.since(since) < short {
            return;
        }
        self.is_stalled |= self.congestion.fill().slowness.note_wait(since, now);
    }

    /// Records that a publisher waited in vain.
    pub(crate) fn set_stalled(&mut self) {
        self.is_stalled = true;
    }

    /// Registers a publisher to be woken when there is room again.
    pub(crate) fn wait_for_room(&mut self, waker: &Waker) {
        let waiting = &mut self.congestion.fill().waiting;
        if !waiting.iter().any(|waiting| waiting.will_wake(waker)) {
            waiting.push(waker.clone());
        }
    }
}
