//! Take-over: waits until the Network Connection that holds the Session has handled its received input and released the
//! Session. [MQTT-3.1.4-3]
//!
//! If a Client disconnects and reconnects at once, two threads may serve it: the new connection may be handled before the
//! last bytes of the old one. But these were sent first and must be handled first, above all a DISCONNECT, which removes
//! the Will. The wait is limited; an old connection that does not release the Session in time loses it as it is.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use crate::broker::connection::{ClientConnection, Phase};
use crate::durable::message::Timestamp;
use crate::session::Session;
use crate::session::effects::Effects;
use crate::session::inbound::Inbound;

/// How long a new Network Connection waits for all earlier ones. Slightly longer than the longest last call.
const TAKE_OVER_TIME: Duration = Duration::from_secs(1);

/// A wait in progress.
pub(super) struct TakeOver {
    predecessor: Arc<Session>,
    deadline: Timestamp,
}

impl TakeOver {
    /// Asks the connection that holds `session` to leave. An earlier wait counts.
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

/// Whether no Network Connection holds the Session any more.
fn is_released(inbound: &Inbound) -> bool {
    inbound.ended || inbound.disconnected.is_some()
}

impl ClientConnection {
    /// Tries again to take the Session, if it was released or the wait is over.
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

    /// Registers `waker` for the release of the Session; true if it is already released.
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
