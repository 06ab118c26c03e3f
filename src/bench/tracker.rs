//! Finds losses, duplicates and order violations in numbered messages.

/// What happened to the messages of one stream at one recipient.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Faults {
    /// Never arrived (so far).
    pub(super) missing: u64,
    /// Arrived more than once.
    pub(super) duplicates: u64,
    /// Arrived after a later one.
    pub(super) disordered: u64,
}

impl std::ops::AddAssign for Faults {
    fn add_assign(&mut self, other: Self) {
        self.missing += other.missing;
        self.duplicates += other.duplicates;
        self.disordered += other.disordered;
    }
}

/// Follows one stream at one recipient, which should see 0, 1, 2, …
#[derive(Debug, Clone, Default)]
pub(super) struct OrderTracker {
    /// The next number expected: all below were seen or are in `gaps`.
    next: u64,
    /// Ranges not seen, rising.
    gaps: Vec<(u64, u64)>,
    /// Missing from ranges that were forgotten since there were too many.
    forgotten: u64,
    duplicates: u64,
    disordered: u64,
}

/// Bound of [`OrderTracker::gaps`]: a broker that loses that often gets its late messages called duplicates.
const MAX_GAPS: usize = 4_096;

impl OrderTracker {
    /// Notes the arrival of a number. Returns how many more numbers are settled: arrived, or overtaken and so probably
    /// lost.
    #[inline]
    pub(super) fn arrive(&mut self, sequence: u64) -> u64 {
        if sequence == self.next {
            self.next += 1;
            return 1;
        }
        self.arrive_unexpected(sequence)
    }

    #[cold]
    fn arrive_unexpected(&mut self, sequence: u64) -> u64 {
        if sequence > self.next {
            let settled = sequence + 1 - self.next;
            if self.gaps.len() == MAX_GAPS {
                let (start, end) = self.gaps.remove(0);
                self.forgotten += end - start;
            }
            self.gaps.push((self.next, sequence));
            self.next = sequence + 1;
            return settled;
        }
        let at = self.gaps.partition_point(|&(_, end)| end <= sequence);
        match self.gaps.get(at).copied() {
            Some((start, end)) if start <= sequence => {
                let parts = [(start, sequence), (sequence + 1, end)];
                let kept = parts.into_iter().filter(|(start, end)| start < end);
                self.gaps.splice(at..=at, kept);
                self.disordered += 1;
            }
            _ => self.duplicates += 1,
        }
        0
    }

    /// Faults when `sent` messages were sent in all.
    pub(super) fn faults(&self, sent: u64) -> Faults {
        let in_gaps: u64 = self.gaps.iter().map(|(start, end)| end - start).sum();
        Faults {
            missing: self.forgotten + in_gaps + sent.saturating_sub(self.next),
            duplicates: self.duplicates,
            disordered: self.disordered,
        }
    }
}

/// Follows one stream that the members of a Shared Subscription share: each message should arrive at one of them.
#[derive(Debug, Clone, Default)]
pub(super) struct SetTracker {
    words: Vec<u64>,
    seen: u64,
    duplicates: u64,
}

impl SetTracker {
    /// Notes the arrival of a number at any member; whether it is new.
    #[inline]
    pub(super) fn arrive(&mut self, sequence: u64) -> bool {
        let at = usize::try_from(sequence / 64).unwrap_or(usize::MAX);
        // A number that no generator reaches: a payload that is not ours.
        if at >= MAX_WORDS {
            return false;
        }
        if at >= self.words.len() {
            self.words.resize((at + 1).next_power_of_two(), 0);
        }
        let bit = 1 << (sequence % 64);
        match self.words.get_mut(at) {
            Some(word) if *word & bit == 0 => {
                *word |= bit;
                self.seen += 1;
                true
            }
            _ => {
                self.duplicates += 1;
                false
            }
        }
    }

    /// Faults when `sent` messages were sent in all; order is not known here.
    pub(super) fn faults(&self, sent: u64) -> Faults {
        let missing = sent.saturating_sub(self.seen);
        Faults { missing, duplicates: self.duplicates, disordered: 0 }
    }
}

/// 512 MiB of bits: four billion messages.
const MAX_WORDS: usize = 1 << 26;

#[cfg(test)]
mod tests {
    use super::*;

    fn faults_of(arrivals: &[u64], sent: u64) -> Faults {
        let mut tracker = OrderTracker::default();
        for &sequence in arrivals {
            tracker.arrive(sequence);
        }
        tracker.faults(sent)
    }

    #[test]
    fn in_order_is_faultless() {
        assert_eq!(faults_of(&[0, 1, 2, 3], 4), Faults::default());
    }

    #[test]
    fn missing_in_the_middle_and_at_the_end_are_counted() {
        let expected = Faults { missing: 3, duplicates: 0, disordered: 0 };
        assert_eq!(faults_of(&[0, 2, 4], 6), expected);
    }

    #[test]
    fn a_late_message_is_disordered_and_not_missing() {
        let expected = Faults { missing: 0, duplicates: 0, disordered: 3 };
        assert_eq!(faults_of(&[0, 4, 2, 1, 3, 5], 6), expected);
    }

    #[test]
    fn a_second_copy_is_a_duplicate_wherever_it_comes() {
        let expected = Faults { missing: 0, duplicates: 3, disordered: 1 };
        assert_eq!(faults_of(&[0, 0, 2, 1, 1, 2, 3], 4), expected);
    }

    #[test]
    fn overtaken_numbers_are_settled_once() {
        let mut tracker = OrderTracker::default();
        assert_eq!(tracker.arrive(0), 1);
        assert_eq!(tracker.arrive(5), 5);
        assert_eq!(tracker.arrive(3), 0);
        assert_eq!(tracker.arrive(6), 1);
    }

    #[test]
    fn too_many_gaps_are_still_missing() {
        let mut tracker = OrderTracker::default();
        let gaps = u64::try_from(MAX_GAPS).unwrap() + 100;
        for i in 1..=gaps {
            tracker.arrive(i * 2);
        }
        assert_eq!(tracker.faults(gaps * 2 + 1).missing, gaps + 1);
    }

    #[test]
    fn shared_members_together_see_each_message_once() {
        let mut tracker = SetTracker::default();
        for sequence in [5, 0, 64, 5, 1_000] {
            tracker.arrive(sequence);
        }
        tracker.arrive(u64::MAX);
        let expected = Faults { missing: 997, duplicates: 1, disordered: 0 };
        assert_eq!(tracker.faults(1_001), expected);
    }
}
