//! The last call: before a Network Connection is closed for a reason that its Client does not know (take-over, shutdown,
//! silence), everything it has sent by then is handled, including DISCONNECT. So the order in which our threads run does
//! not matter.
//!
//! The shell reads what the system has received until then, and no more: the call is limited in time and bytes, and a
//! Client that keeps sending does not prolong it.

use std::time::Duration;

use crate::broker::connection::{ClientConnection, CloseReason};
use crate::durable::message::Timestamp;
use crate::session::effects::Effects;

/// The longest time of a last call.
const LAST_CALL_TIME: Duration = Duration::from_millis(750);
/// This many bytes are handled even if recipients or the store lag behind: they are already here, so refusing them
/// would save nothing.
const LAST_CALL_BYTES: usize = 1024 * 1024;

/// A last call in progress.
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
    /// The broker is shutting down.
    ShuttingDown,
    /// Nothing was received for too long, as far as we know.
    Silence,
    /// Nothing can be written any more.
    Lost,
}

/// The state of a last call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastCallEnd {
    /// It is over: the connection closes, or continues.
    Over,
    /// Handled changes are not durable yet, and their acknowledgement is worth a short wait.
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
    pub(crate) fn begin_last_call(&mut self, reason: LastCallReason, now: Timestamp) {
        if self.closing.reason.is_some() || self.closing.last_call.is_some() {
            return;
        }
        let deadline = now.plus(LAST_CALL_TIME);
        let call = LastCall { reason, begun: now, deadline, handled_bytes: 0 };
        self.closing.last_call = Some(Box::new(call));
    }

    /// Whether to handle everything that has arrived and then call [`Self::end_last_call`].
    #[inline]
    #[must_use]
    pub fn is_last_call(&self) -> bool {
        self.closing.last_call.is_some()
    }

    /// Whether the time for it is over.
    #[must_use]
    pub(crate) fn is_last_call_overdue(&self, now: Timestamp) -> bool {
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
