//! Waiting for the Network Connection that has the Session to handle what it has received and to let go. [MQTT-3.1.4-3]
//!
//! A Client that leaves and comes back at once may be served by two threads: the new connection can be looked at before
//! the last bytes of the old one. They were sent first and count first, a DISCONNECT (which takes the Will back) above all.
//! The wait is bounded; an old connection that does not let go in time loses the Session as it stands.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use crate::broker::connection::{ClientConnection, Phase};
use crate::durable::message::Timestamp;
use crate::session::Session;
use crate::session::effects::Effects;
use crate::session::inbound::Inbound;

/// How long a new Network Connection waits for all before it. A little longer than a last call takes at most.
const TAKE_OVER_TIME: Duration = Duration::from_secs(1);

/// A wait under way.
pub(super) struct TakeOver {
    predecessor: Arc<Session>,
    deadline: Timestamp,
}

impl TakeOver {
    /// Asks the connection that has `session` to leave. A wait that went before counts.
    pub(super) fn begin(before: Option<&Self>, session: &Arc<Session>, now: Timestamp) -> Self {
        let deadline = before.map_or_else(|| now.plus(TAKE_OVER_TIME), Self::deadline);
        let waker = session.outbound().ask_to_leave();
        if let Some(waker) = waker {
            waker.wake();
        }
        Self { predecessor: Arc::clone(session), deadline }
    }

    pub(super) fn deadline(&self) -> Timestamp {
        self.deadline
    }
}

/// Whether no Network Connection has the Session any more.
fn is_released(inbound: &Inbound) -> bool {
    inbound.ended || inbound.disconnected.is_some()
}

impl ClientConnection {
    /// Tries again to take the Session, if it has been let go or the wait has been long enough.
    pub(super) fn retry_take_over(&mut self, now: Timestamp, effects: &mut Effects) {
        let Phase::TakingOver(connect) = &self.opening.phase else { return };
        let is_over = connect
            .take_over
            .as_ref()
            .is_none_or(|wait| wait.deadline <= now || is_released(&wait.predecessor.inbound()));
        if self.closing.reason.is_some() || !is_over {
            return;
        }
        if let Phase::TakingOver(connect) =
            std::mem::replace(&mut self.opening.phase, Phase::Opening)
        {
            self.begin_session(connect, now, effects);
        }
    }

    /// Lets `waker` be woken when the Session is let go; true if it has been already.
    pub(super) fn watch_take_over(&mut self, now: Timestamp, waker: &Waker) -> bool {
        let Phase::TakingOver(connect) = &self.opening.phase else { return false };
        let Some(wait) = &connect.take_over else { return true };
        let mut inbound = wait.predecessor.inbound();
        if wait.deadline <= now || is_released(&inbound) {
            return true;
        }
        let successors = inbound.successors.fill();
        if !successors.iter().any(|known| known.will_wake(waker)) {
            successors.push(waker.clone());
        }
        false
    }
}
