//! Rules of one Session for its queue, beside those of topics, and what they came to.

use crate::durable::record::{QueueRules, StoresQoS0};

/// Messages of QoS 0 with RETAIN that wait for an absent Client.
pub const RETAINED_WAITING_MAX: u32 = 10_000;

/// The rules, and what they came to.
pub(super) struct OwnQueue {
    pub(super) rules: QueueRules,
    /// Messages with RETAIN of QoS 0 taken since the Client has gone.
    retained_waiting: u32,
    missed_retained: bool,
}

impl OwnQueue {
    pub(super) fn new(rules: QueueRules) -> Self {
        Self { rules, retained_waiting: 0, missed_retained: false }
    }

    /// The Client is there.
    pub(super) fn note_present(&mut self) {
        self.retained_waiting = 0;
    }

    /// The Client has gone; so many bytes were on their way to it, and there may be Retained Messages among them.
    pub(super) fn note_gone(&mut self, lost_bytes: usize) {
        self.missed_retained |= self.rules.qos0 == StoresQoS0::Retained && lost_bytes > 0;
    }

    pub(super) fn take_missed_retained(&mut self) -> bool {
        std::mem::take(&mut self.missed_retained)
    }

    /// Whether a message of QoS 0 may wait.
    pub(super) fn takes_qos0(&mut self, is_retained: bool) -> bool {
        match (self.rules.qos0, is_retained) {
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
