//! Timers of Sessions: Will Delay and Session Expiry. One table for the whole broker; a Session that was resumed in
//! time is simply found connected when its timer is due.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use crate::broker::Broker;
use crate::durable::message::{SessionId, Timestamp};
use crate::session::Session;
use crate::session::effects::Effects;
use crate::session::inbound::Inbound;

/// Sessions ordered by due time.
#[derive(Default)]
pub(crate) struct Timers {
    due: Mutex<BTreeMap<(Timestamp, SessionId), Arc<Session>>>,
}

/// Steps of checking one Session (its record, its Will), in addition to those of its end.
const SESSION_STEPS: usize = 64;

impl Timers {
    /// Schedules a check of `session` at `at`, or as soon as possible after it.
    pub(crate) fn add(&self, at: Timestamp, session: &Arc<Session>) {
        self.due.lock().insert((at, session.id()), Arc::clone(session));
    }

    fn take_due(&self, now: Timestamp) -> Option<Arc<Session>> {
        let mut due = self.due.lock();
        let first = due.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }
}

impl Broker {
    /// Publishes wills and ends Sessions that are due. The shell calls it about once a second; true means that the
    /// budget is spent and there may be more to do at once.
    pub fn handle_timers(&self, now: Timestamp, effects: &mut Effects) -> bool {
        while !effects.budget.is_spent() {
            let Some(session) = self.timers.take_due(now) else { return false };
            effects.budget.spend(SESSION_STEPS);
            let mut inbound = session.inbound();
            self.handle_due(&session, &mut inbound, now, effects);
            // Before the lock is released, see `ClientConnection::handle_closed`.
            self.carry_out(effects);
        }
        true
    }

    fn handle_due(
        &self,
        session: &Arc<Session>,
        inbound: &mut Inbound,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let Some(disconnected) = inbound.disconnected else { return };
        if inbound.ended {
            return;
        }
        let ends = session_end(inbound, disconnected);
        let is_over = ends.is_some_and(|ends| ends <= now);
        let will_due = inbound.will.as_ref().is_some_and(|will| {
            let delay = std::time::Duration::from_secs(u64::from(will.delay_seconds));
            is_over || disconnected.plus(delay) <= now
        });
        if will_due && let Some(will) = inbound.will.take() {
            self.publish_will(session, inbound, &will, now, effects);
            if !is_over {
                self.persist_session(session, inbound, effects);
            }
        }
        if is_over {
            if inbound.is_durable() {
                self.figures.sessions_expired.fetch_add(1, Ordering::Relaxed);
                effects.tally.sessions_expired += 1;
            }
            self.end_session(session, inbound, effects);
            return;
        }
        self.schedule(session, inbound);
    }

    /// Adds a disconnected Session to the table for the next thing that is due.
    pub(crate) fn schedule(&self, session: &Arc<Session>, inbound: &Inbound) {
        let Some(disconnected) = inbound.disconnected else { return };
        let will = inbound.will.as_ref().map(|will| {
            disconnected.plus(std::time::Duration::from_secs(u64::from(will.delay_seconds)))
        });
        let next = [will, session_end(inbound, disconnected)].into_iter().flatten().min();
        if let Some(next) = next {
            self.timers.add(next, session);
        }
    }
}

/// When the Session ends; never for an interval of 0xFFFFFFFF. [MQTT-3.1.2-23]
fn session_end(inbound: &Inbound, disconnected: Timestamp) -> Option<Timestamp> {
    let seconds = inbound.expiry_seconds;
    let interval = std::time::Duration::from_secs(u64::from(seconds));
    (seconds != u32::MAX).then(|| disconnected.plus(interval))
}
