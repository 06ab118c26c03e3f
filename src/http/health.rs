//! Whether the broker is ready for Clients, and if not, why.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use crate::durable::{Store, StoreState};

/// The phase of the broker. It only advances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Availability {
    /// The store is being opened.
    Starting = 0,
    /// Clients are served.
    Serving = 1,
    /// Clients are being disconnected.
    Draining = 2,
}

/// The answer of `/ready`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// Clients are served, and their messages become durable.
    Ready,
    /// Not yet.
    Starting,
    /// No more.
    Draining,
    /// The disk is full.
    StoreFull,
    /// A write or a sync failed.
    StoreFailed,
}

impl Readiness {
    /// Whether a load balancer should send Clients.
    #[must_use]
    pub(crate) const fn is_ready(self) -> bool {
        matches!(self, Self::Ready)
    }
}

impl fmt::Display for Readiness {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Ready => "ready",
            Self::Starting => "starting: the store is being opened",
            Self::Draining => "draining: the broker is stopping",
            Self::StoreFull => {
                "store full: QoS 1 and QoS 2 messages are not acknowledged until there is space"
            }
            Self::StoreFailed => {
                "store failed: QoS 1 and QoS 2 messages are not acknowledged; the log says why"
            }
        })
    }
}

/// The health of the broker: the node sets the phase, and the store is queried.
pub(crate) struct Health {
    availability: AtomicU8,
    store: OnceLock<Arc<dyn Store>>,
}

impl Health {
    /// In the starting phase, without a store.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self { availability: AtomicU8::new(Availability::Starting as u8), store: OnceLock::new() }
    }

    /// Sets the opened store. Only the first call has an effect.
    pub(crate) fn watch_store(&self, store: Arc<dyn Store>) {
        let _first_one_stays = self.store.set(store);
    }

    /// Advances to this phase; going back is ignored.
    pub(crate) fn advance(&self, availability: Availability) {
        self.availability.fetch_max(availability as u8, Ordering::Relaxed);
    }

    /// The answer at this moment.
    #[must_use]
    pub(crate) fn readiness(&self) -> Readiness {
        let availability = self.availability.load(Ordering::Relaxed);
        if availability == Availability::Draining as u8 {
            return Readiness::Draining;
        }
        match self.store.get().map(|store| store.state()) {
            Some(StoreState::Full) => Readiness::StoreFull,
            Some(StoreState::Failed) => Readiness::StoreFailed,
            Some(StoreState::Available) if availability == Availability::Serving as u8 => {
                Readiness::Ready
            }
            Some(StoreState::Available) | None => Readiness::Starting,
        }
    }
}
