//! One turn of a Client: what it sent is handled under the lock of its Session's inbound half, and all that this brings
//! about is carried out before the lock goes. So a take-over, which needs that lock, finds everything the old connection
//! did submitted, and nothing that one Client caused is left for the next.

use std::sync::Arc;

use crate::broker::connection::pending::Pending;
use crate::broker::connection::{ClientConnection, Request};
use crate::durable::Ticket;
use crate::durable::message::Timestamp;
use crate::session::Session;
use crate::session::effects::Effects;
use crate::session::inbound::Inbound;

/// What every packet of a connected Client is handled with.
pub(super) struct Turn<'a> {
    /// Whose turn it is.
    pub(super) session: &'a Arc<Session>,
    /// What the Client sends, locked until the turn has been finished.
    pub(super) inbound: &'a mut Inbound,
    /// When it is.
    pub(super) now: Timestamp,
    /// What it brings about.
    pub(super) effects: &'a mut Effects,
}

impl ClientConnection {
    /// Ends a turn: submits what was changed, waits for recipients that lag behind, asks for pages, wakes whom it
    /// concerns. Nothing is left but figures, because the effects belong to a thread and the next Client would get them.
    pub(super) fn finish(&mut self, session: &Arc<Session>, now: Timestamp, effects: &mut Effects) {
        if !effects.crowded.is_empty() {
            self.throttle(now, effects);
        }
        self.submit(session, effects);
        assert!(effects.is_settled(), "a turn leaves effects to the next Client");
    }

    /// Submits the collected changes and notes which acknowledgements wait for them.
    fn submit(&mut self, session: &Arc<Session>, effects: &mut Effects) {
        if !effects.pages.is_empty() {
            self.output.requests.fill().extend(effects.pages.drain(..).map(Request::Page));
        }
        let has_unsubmitted = self.output.pending.back().is_some_and(Pending::is_unsubmitted);
        if !has_unsubmitted && effects.is_nothing_but_wakers() {
            effects.wake();
            return;
        }
        if has_unsubmitted {
            effects.listeners.push(Arc::clone(session) as Arc<_>);
        }
        let has_changes = !effects.changes.is_empty();
        let ticket = self.broker.submit(effects).unwrap_or(Ticket::NOTHING);
        for pending in self.output.pending.iter_mut().rev() {
            if !pending.is_unsubmitted() {
                break;
            }
            pending.set_ticket(ticket);
        }
        if has_changes {
            self.watch_store(session, effects);
        }
    }

    /// Sends what has become safe to send, and ends a wait that is over.
    pub(super) fn settle(&mut self, now: Timestamp, effects: &mut Effects) {
        self.flush_pending(effects);
        self.end_throttle(now);
        if std::mem::take(&mut self.input.is_store_behind)
            && let Some(session) = self.opening.session.clone()
        {
            self.watch_store(&session, effects);
        }
    }

    /// Stops reading while the store is behind, and asks it to say when it has done what it has.
    fn watch_store(&mut self, session: &Arc<Session>, effects: &mut Effects) {
        let store = self.broker.store();
        if store.pending_bytes() < self.broker.limits().max_pending_bytes {
            return;
        }
        self.input.is_store_behind = true;
        effects.barrier = true;
        effects.listeners.push(Arc::clone(session) as Arc<_>);
        self.broker.submit(effects);
    }
}
