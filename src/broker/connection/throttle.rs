//! Throttling: a publisher waits briefly while a recipient lags behind, so that short congestion costs neither
//! messages nor memory. A recipient that does not catch up in that time is stalled: publishers do not wait for it
//! again until it has, and its queue and outbox limits apply.

use std::sync::Arc;
use std::task::Waker;

use smallvec::SmallVec;

use crate::broker::connection::ClientConnection;
use crate::durable::message::Timestamp;
use crate::session::Session;
use crate::session::effects::Effects;

/// A wait in progress.
pub(super) struct Throttle {
    recipients: SmallVec<[Arc<Session>; 1]>,
    since: Timestamp,
    deadline: Timestamp,
    policy: Policy,
}

/// Why the publisher waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Policy {
    /// The congestion may be over in a moment.
    Courtesy,
    /// The overflow policy of the topic is back-pressure.
    Backpressure,
}

impl Throttle {
    pub(super) fn deadline(&self) -> Timestamp {
        self.deadline
    }
}

impl ClientConnection {
    /// Starts to wait for the recipients that lag behind, except for the publisher itself, which could never catch up
    /// while it waits.
    pub(super) fn throttle(&mut self, now: Timestamp, effects: &mut Effects) {
        let mut recipients = std::mem::take(&mut effects.crowded);
        let policy = match std::mem::take(&mut effects.backpressure) {
            true => Policy::Backpressure,
            false => Policy::Courtesy,
        };
        let own = self.opening.session.as_ref().map(|session| session.id());
        recipients.retain(|recipient| Some(recipient.id()) != own);
        if recipients.is_empty() {
            return;
        }
        let limits = self.broker.limits();
        let wait = match policy {
            Policy::Backpressure => limits.backpressure_wait,
            Policy::Courtesy => limits.crowded_wait,
        };
        let (since, deadline) = (now, now.plus(wait));
        self.input.throttle = Some(Box::new(Throttle { recipients, since, deadline, policy }));
    }

    /// Ends the wait if all recipients have caught up, or if it has lasted too long.
    #[inline]
    pub(super) fn end_throttle(&mut self, now: Timestamp) {
        if self.input.throttle.is_some() {
            self.end_wait(now);
        }
    }

    fn end_wait(&mut self, now: Timestamp) {
        let Some(throttle) = &mut self.input.throttle else { return };
        let Throttle { recipients, since, deadline, policy } = &mut **throttle;
        let is_over = now >= *deadline;
        recipients.retain(|recipient| {
            let mut outbound = recipient.outbound();
            let makes_wait = outbound.makes_wait(now);
            if *policy == Policy::Courtesy && (is_over || !makes_wait) {
                outbound.note_wait(*since, now);
            }
            if is_over && makes_wait {
                outbound.set_stalled();
            }
            makes_wait && !is_over
        });
        if throttle.recipients.is_empty() {
            self.input.throttle = None;
        }
    }

    /// Registers `waker` for the end of the wait; true if it is already over.
    pub(super) fn watch_throttle(&mut self, now: Timestamp, waker: &Waker) -> bool {
        let Some(throttle) = &self.input.throttle else { return false };
        for recipient in &throttle.recipients {
            let mut outbound = recipient.outbound();
            if outbound.makes_wait(now) {
                outbound.wait_for_room(waker);
            }
        }
        self.end_throttle(now);
        self.input.throttle.is_none()
    }
}
