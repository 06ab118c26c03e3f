//! The work budget of a turn: how much it may do before other tasks get theirs.
//!
//! A task that does not yield delays all others on its thread: their messages, the health page, the shutdown of the
//! broker. So all work that a Client can make long (a packet with many filters, Retained Messages that do not match,
//! the end of a large Session) spends steps from the budget of its turn, stops when none are left, and continues in
//! the next turn. No lock is held in between.

/// Steps of one turn: some hundred microseconds, up to a millisecond.
const TURN_STEPS: u32 = 8 * 1024;

/// Steps of adding or removing one Subscription, in addition to one for each of its levels.
pub(crate) const SUBSCRIPTION_STEPS: usize = 12;

/// Deliveries of one message to many Sessions that count as one step: most are a copy into an outbox.
pub(crate) const DELIVERIES_PER_STEP: usize = 4;

/// The remaining budget of a turn. A step is about the cost of visiting one tree node that is not in the processor's
/// cache: some tens of nanoseconds. The default is unlimited, for work that delays nobody: tests, the start of the
/// broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget(u32);

impl Default for Budget {
    fn default() -> Self {
        Self(u32::MAX)
    }
}

impl Budget {
    /// The budget of one turn. The shell resets it at the beginning of each.
    #[must_use]
    pub(crate) const fn turn() -> Self {
        Self(TURN_STEPS)
    }

    /// A smaller budget, so that tests yield often.
    #[must_use]
    pub const fn of(steps: u32) -> Self {
        Self(steps)
    }

    /// Spends steps. An unlimited budget stays unlimited.
    #[inline]
    pub(crate) fn spend(&mut self, steps: usize) {
        if self.0 != u32::MAX {
            self.0 = self.0.saturating_sub(u32::try_from(steps).unwrap_or(u32::MAX));
        }
    }

    /// Whether it is time to yield.
    #[inline]
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.0 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::{Budget, TURN_STEPS};

    #[test]
    fn a_turn_is_spent_and_what_has_no_bound_is_not() {
        let mut budget = Budget::turn();
        budget.spend(TURN_STEPS as usize - 1);
        assert!(!budget.is_spent());
        budget.spend(usize::MAX);
        assert!(budget.is_spent());
        let mut unbounded = Budget::default();
        unbounded.spend(usize::MAX);
        assert!(!unbounded.is_spent());
    }
}
