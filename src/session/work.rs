//! How much one turn may do before others get theirs.
//!
//! A task that does not give way holds up all others of its thread: their messages, the health page, the end of the
//! broker. So whoever works through something that a Client can make long (a packet of many filters, Retained
//! Messages that do not match, the end of a large Session) spends steps from the budget of its turn, stops where it is
//! when none are left, and goes on in its next turn. No lock is held in between.

/// Steps of one turn: some hundred microseconds, up to a millisecond.
const TURN_STEPS: u32 = 8 * 1024;

/// Steps of adding or removing one Subscription, besides one for each of its levels.
pub const SUBSCRIPTION_STEPS: usize = 12;

/// Deliveries of one message to many Sessions that make one step: most are a copy into an outbox.
pub const DELIVERIES_PER_STEP: usize = 4;

/// What is left for this turn. A step is about what it takes to look at one node of a tree that is not in the
/// processor's cache: some tens of nanoseconds. The default is without bound, for what nobody waits for: tests, the
/// start of the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget(u32);

impl Default for Budget {
    fn default() -> Self {
        Self(u32::MAX)
    }
}

impl Budget {
    /// That of one turn. The shell fills the budget at the beginning of each.
    #[must_use]
    pub const fn turn() -> Self {
        Self(TURN_STEPS)
    }

    /// A smaller one, so that tests give way often.
    #[must_use]
    pub const fn of(steps: u32) -> Self {
        Self(steps)
    }

    /// So many steps are done. What has no bound keeps none.
    #[inline]
    pub fn spend(&mut self, steps: usize) {
        if self.0 != u32::MAX {
            self.0 = self.0.saturating_sub(u32::try_from(steps).unwrap_or(u32::MAX));
        }
    }

    /// Whether it is time to give way.
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
