//! One turn of a Client: its input is handled under the lock of its Session's inbound half, and all effects are carried
//! out before the lock is released. So a take-over, which needs that lock, finds everything submitted that the old
//! connection did, and no effects of one Client are left for the next.
//!
//! A turn without input (`handle_wake`) only moves messages on, and submits without that lock: changes to queues need no
//! order among threads. Every publisher makes such changes, too. [`QueueEntry`] decides between an acknowledgement and a
//! write, so a removal is submitted only after the writer has taken the entry; an earlier position may come later; and the
//! store takes in nothing for a queue that has ended. Changes to Sessions (records, Subscriptions, QoS 2 identifiers) are
//! made and submitted under the lock.
//!
//! [`QueueEntry`]: crate::durable::entry::QueueEntry

use std::sync::Arc;

use crate::broker::connection::pending::PendingAnswer;
use crate::broker::connection::{ClientConnection, Request};
use crate::durable::Ticket;
use crate::durable::message::Timestamp;
use crate::session::Session;
use crate::session::effects::Effects;
use crate::session::inbound::Inbound;

/// The context for handling packets of a connected Client.
pub(super) struct Turn<'a> {
    /// The Session of the Client.
    pub(super) session: &'a Arc<Session>,
    /// Its inbound half, locked until the turn is finished.
    pub(super) inbound: &'a mut Inbound,
    /// The current time.
    pub(super) now: Timestamp,
    /// The effects of the turn.
    pub(super) effects: &'a mut Effects,
}

impl ClientConnection {
    /// Ends a turn: submits changes, waits for recipients that lag behind, requests pages, wakes tasks. Only counts may
    /// be left, because the effects belong to the thread and the next Client would get them.
    pub(super) fn finish_turn(
        &mut self,
        session: &Arc<Session>,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        if !effects.crowded.is_empty() {
            self.throttle(now, effects);
        }
        self.submit_turn(session, effects);
        assert!(effects.is_carried_out(), "a turn leaves effects to the next Client");
    }

    /// Submits the collected changes and records which acknowledgements wait for them.
    fn submit_turn(&mut self, session: &Arc<Session>, effects: &mut Effects) {
        if !effects.pages.is_empty() {
            self.output.requests.fill().extend(effects.pages.drain(..).map(Request::Page));
        }
        let has_unsubmitted = self.output.pending.back().is_some_and(PendingAnswer::is_unsubmitted);
        if !has_unsubmitted && effects.is_nothing_but_wakers() {
            effects.wake();
            return;
        }
        if has_unsubmitted {
            effects.listeners.push(Arc::clone(session) as Arc<_>);
        }
        let has_changes = !effects.changes.is_empty();
        let ticket = self.broker.submit_changes(effects).unwrap_or(Ticket::NOTHING);
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

    /// Sends acknowledgements that have become durable, and ends a wait that is over.
    pub(super) fn resume_waiting(&mut self, now: Timestamp, effects: &mut Effects) {
        self.flush_pending(effects);
        self.end_throttle(now);
        if std::mem::take(&mut self.input.is_store_behind)
            && let Some(session) = self.opening.session.clone()
        {
            self.watch_store(&session, effects);
        }
    }

    /// Stops reading while the store lags behind, and requests a notification when it has caught up.
    fn watch_store(&mut self, session: &Arc<Session>, effects: &mut Effects) {
        let store = self.broker.store();
        if store.pending_bytes() < self.broker.limits().max_pending_bytes {
            return;
        }
        self.input.is_store_behind = true;
        effects.barrier = true;
        effects.listeners.push(Arc::clone(session) as Arc<_>);
        self.broker.submit_changes(effects);
    }
}
