//! The last call: before a Network Connection is closed for a reason that its Client cannot know of (another has come,
//! the broker stops, silence), what it has sent by then is handled, its DISCONNECT included. So what a Client sent counts,
//! whatever the order in which our threads come to look at it.
//!
//! The shell reads what the system has received until then, and no more: the call is bounded in time and bytes, and
//! whoever goes on sending does not make it longer.

use std::time::Duration;

use crate::broker::connection::{ClientConnection, CloseReason};
use crate::durable::message::Timestamp;
use crate::session::effects::Effects;

/// How long a last call takes at most.
const LAST_CALL_TIME: Duration = Duration::from_millis(750);
/// So many bytes are handled whatever waits for recipients or for the store: they are here already, and nobody is
/// spared anything by refusing them.
const LAST_CALL_BYTES: usize = 1024 * 1024;

/// One under way.
#[derive(Debug)]
pub(super) struct LastCall {
    reason: LastCallReason,
    begun: Timestamp,
    deadline: Timestamp,
    handled_bytes: usize,
}

/// Why the connection is about to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastCallReason {
    /// Another Network Connection of the Client waits for the Session.
    TakenOver,
    /// The broker stops.
    ShuttingDown,
    /// Nothing has come for too long, as far as we have looked.
    Silence,
    /// Nothing can be written any more.
    Lost,
}

/// What a last call has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastCallEnd {
    /// The connection is to be closed, or goes on.
    Over,
    /// What was handled is not safe yet, and its acknowledgement is worth a moment.
    Waits,
}

impl LastCall {
    pub(super) fn deadline(&self) -> Timestamp {
        self.deadline
    }

    pub(super) fn note_handled(&mut self, bytes: usize) {
        self.handled_bytes = self.handled_bytes.saturating_add(bytes);
    }
}

impl ClientConnection {
    /// Begins a last call, unless there is one.
    pub fn begin_last_call(&mut self, reason: LastCallReason, now: Timestamp) {
        if self.closing.reason.is_some() || self.closing.last_call.is_some() {
            return;
        }
        let deadline = now.plus(LAST_CALL_TIME);
        let call = LastCall { reason, begun: now, deadline, handled_bytes: 0 };
        self.closing.last_call = Some(Box::new(call));
    }

    /// Whether what has arrived is to be handled and the call then to be ended by [`Self::end_last_call`].
    #[inline]
    #[must_use]
    pub fn is_last_call(&self) -> bool {
        self.closing.last_call.is_some()
    }

    /// Whether the time for it is over.
    #[must_use]
    pub fn is_last_call_overdue(&self, now: Timestamp) -> bool {
        self.closing.last_call.as_ref().is_some_and(|call| call.deadline <= now)
    }

    /// Whether packets are handled although recipients lag behind or acknowledgements wait.
    #[inline]
    pub(super) fn ignores_flow_control(&self) -> bool {
        self.closing.last_call.as_ref().is_some_and(|call| call.handled_bytes < LAST_CALL_BYTES)
    }

    /// What had arrived has been handled, or the time is over.
    pub fn end_last_call(&mut self, now: Timestamp, effects: &mut Effects) -> LastCallEnd {
        let Some(call) = self.closing.last_call.take() else { return LastCallEnd::Over };
        self.flush_pending(effects);
        match call.reason {
            LastCallReason::TakenOver => self.close(CloseReason::TakenOver),
            LastCallReason::ShuttingDown => {
                if !self.output.pending.is_empty() && now < call.deadline {
                    self.closing.last_call = Some(call);
                    return LastCallEnd::Waits;
                }
                self.close(CloseReason::ShuttingDown);
            }
            LastCallReason::Silence => {
                let has_come = call.handled_bytes > 0 || self.has_progress(now);
                if !has_come && self.is_within_keep_alive(call.begun) {
                    self.close(CloseReason::PacketTimeout);
                } else if !has_come {
                    self.close(CloseReason::KeepAliveTimeout);
                }
            }
            LastCallReason::Lost => {}
        }
        LastCallEnd::Over
    }
}
