//! Rules for the queue of one Session, in addition to those for topics, and their state.

use crate::durable::record::{QueueRules, StoresQoS0};
use crate::session::outbound::Terms;

/// Most QoS 0 messages with RETAIN queued for an absent Client.
pub(crate) const RETAINED_WAITING_MAX: u32 = 10_000;

/// The rules and their state.
pub(super) struct OwnQueue {
    pub(super) rules: QueueRules,
    /// QoS 0 messages with RETAIN queued since the Client disconnected.
    retained_waiting: u32,
    missed_retained: bool,
}

impl OwnQueue {
    pub(super) fn new(rules: QueueRules) -> Self {
        Self { rules, retained_waiting: 0, missed_retained: false }
    }

    /// Called when the Client has connected.
    pub(super) fn note_present(&mut self) {
        self.retained_waiting = 0;
    }

    /// Called when the Client has disconnected. `lost_bytes` of output were not written, and may include Retained
    /// Messages.
    pub(super) fn note_gone(&mut self, lost_bytes: usize) {
        self.missed_retained |= self.rules.qos0 == StoresQoS0::Retained && lost_bytes > 0;
    }

    pub(super) fn take_missed_retained(&mut self) -> bool {
        std::mem::take(&mut self.missed_retained)
    }

    /// Whether a QoS 0 message may be queued on these terms.
    pub(super) fn takes_qos0(&mut self, terms: &Terms<'_>) -> bool {
        match (self.rules.qos0, terms.retain) {
            (StoresQoS0::Always, _) => true,
            (StoresQoS0::Never, _) | (StoresQoS0::Retained, false) => false,
            (StoresQoS0::Retained, true) if self.retained_waiting < RETAINED_WAITING_MAX => {
                self.retained_waiting += 1;
                true
            }
            (StoresQoS0::Retained, true) => {
                self.missed_retained = true;
                false
            }
        }
    }
}
