//! One Session: the state of one Client across Network Connections.
//!
//! A Session has two halves, each with its own lock. [`Inbound`] is the state of what the Client sends, used only by
//! its own Network Connection; [`Outbound`] is what the Client receives, and every publisher's task appends to it.
//! Lock order: Inbound of one Session, then a group, then the Outbound of any Session. No thread holds two locks of
//! the same kind.

pub(crate) mod access_rights;
pub(crate) mod aliases;
pub mod effects;
pub(crate) mod encoded_run;
pub(crate) mod group;
pub(crate) mod inbound;
mod kept_run;
pub(crate) mod link;
pub(crate) mod memberships;
pub(crate) mod outbound;
pub mod outbox;
pub(crate) mod own_queue;
pub(crate) mod owner;
pub mod policies;
pub(crate) mod publication;
pub mod queue;
pub(crate) mod rare;
pub(crate) mod retained_delivery;
mod slowness;
pub(crate) mod subscriptions;
pub(crate) mod violation;
pub(crate) mod window;
pub mod work;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, MutexGuard};

use crate::durable::CommitListener;
use crate::durable::message::SessionId;
use crate::session::inbound::Inbound;
use crate::session::outbound::Outbound;
use crate::session::policies::Trail;

/// A Session, shared by its Network Connection, its publishers and the timers.
pub struct Session {
    id: SessionId,
    client_id: Arc<str>,
    inbound: Mutex<Inbound>,
    outbound: Mutex<Outbound>,
    loses_trail: AtomicBool,
}

impl Session {
    /// Creates a Session from its two halves.
    #[must_use]
    pub(crate) fn new(client_id: Arc<str>, inbound: Inbound, outbound: Outbound) -> Self {
        let id = outbound.session_id();
        Self {
            id,
            client_id,
            inbound: Mutex::new(inbound),
            outbound: Mutex::new(outbound),
            loses_trail: AtomicBool::new(false),
        }
    }

    /// Its permanent id.
    #[inline]
    #[must_use]
    pub(crate) fn id(&self) -> SessionId {
        self.id
    }

    /// The Client Identifier it belongs to.
    #[must_use]
    pub fn client_id(&self) -> &Arc<str> {
        &self.client_id
    }

    /// The policy that publishers need; read before the Outbound is locked.
    #[inline]
    #[must_use]
    pub(crate) fn trail(&self) -> Trail {
        match self.loses_trail.load(Ordering::Relaxed) {
            true => Trail::Lost,
            false => Trail::Kept,
        }
    }

    /// Sets it, at CONNECT.
    pub(crate) fn set_trail(&self, trail: Trail) {
        self.loses_trail.store(trail == Trail::Lost, Ordering::Relaxed);
    }

    /// Locks what the Client sends. First in the lock order.
    pub fn inbound(&self) -> MutexGuard<'_, Inbound> {
        self.inbound.lock()
    }

    /// Locks what the Client receives. Last in the lock order.
    #[inline]
    pub fn outbound(&self) -> MutexGuard<'_, Outbound> {
        self.outbound.lock()
    }
}

impl CommitListener for Session {
    fn handle_commit(&self) {
        let waker = self.outbound().signal();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl PartialEq for Session {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Session {}

impl std::hash::Hash for Session {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("id", &self.id).field("client_id", &self.client_id).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The allocator has blocks of 512 bytes, and then of 640. A Session is behind an `Arc`, which adds two numbers. A field
    /// that most Sessions do not use belongs into a [`rare::Rare`].
    #[test]
    fn an_idle_session_takes_a_small_block() {
        let bytes = size_of::<Session>() + 2 * size_of::<usize>();
        assert!(bytes <= 512, "{bytes} bytes");
    }
}
