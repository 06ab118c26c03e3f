//! A publisher's messages that are not acknowledged yet, by Packet Identifier.

use std::collections::VecDeque;

use crate::bench::wire::kind;

/// The window of one publisher. Identifiers are used in turn, so that a late answer meets an unused one and is noticed.
#[derive(Debug)]
pub(super) struct Inflight {
    free: VecDeque<u16>,
    slots: Vec<Slot>,
    window: usize,
    used: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Free,
    /// Waits for PUBACK or PUBREC.
    Sent {
        time: u64,
    },
    /// Waits for PUBCOMP.
    Released {
        time: u64,
    },
}

/// What an acknowledgement did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Acknowledged {
    /// The exchange is over; it began at this time.
    Complete { since: u64 },
    /// The broker refused the message; the exchange is over.
    Refused,
    /// PUBREL must follow.
    Release,
    /// It belongs to no exchange.
    Unknown,
}

impl Inflight {
    /// Room for `window` messages.
    pub(super) fn new(window: u16) -> Self {
        let count = window.saturating_mul(2).max(16);
        Self {
            free: (1..=count).collect(),
            slots: vec![Slot::Free; usize::from(count) + 1],
            window: usize::from(window),
            used: 0,
        }
    }

    /// How many more messages may be sent.
    pub(super) fn room(&self) -> usize {
        self.window - self.used
    }

    /// Messages without a final acknowledgement.
    pub(super) fn used(&self) -> usize {
        self.used
    }

    /// Takes an identifier for a message sent at `time`. Call only with room.
    pub(super) fn begin(&mut self, time: u64) -> u16 {
        let packet_id = self.free.pop_front().unwrap_or(1);
        if let Some(slot) = self.slots.get_mut(usize::from(packet_id)) {
            *slot = Slot::Sent { time };
        }
        self.used += 1;
        packet_id
    }

    /// Takes note of PUBACK, PUBREC or PUBCOMP.
    pub(super) fn acknowledge(&mut self, first: u8, packet_id: u16, code: u8) -> Acknowledged {
        let Some(slot) = self.slots.get_mut(usize::from(packet_id)) else {
            return Acknowledged::Unknown;
        };
        let done = match (first, *slot) {
            (kind::PUBACK | kind::PUBREC, Slot::Sent { .. }) if code >= 0x80 => {
                Acknowledged::Refused
            }
            (kind::PUBACK, Slot::Sent { time }) | (kind::PUBCOMP, Slot::Released { time }) => {
                Acknowledged::Complete { since: time }
            }
            (kind::PUBREC, Slot::Sent { time }) => {
                *slot = Slot::Released { time };
                return Acknowledged::Release;
            }
            _ => return Acknowledged::Unknown,
        };
        *slot = Slot::Free;
        self.free.push_back(packet_id);
        self.used -= 1;
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qos1_completes_once() {
        let mut inflight = Inflight::new(2);
        let first = inflight.begin(10);
        let second = inflight.begin(20);
        assert_eq!((inflight.room(), inflight.used()), (0, 2));
        let done = Acknowledged::Complete { since: 20 };
        assert_eq!(inflight.acknowledge(kind::PUBACK, second, 0), done);
        assert_eq!(inflight.acknowledge(kind::PUBACK, second, 0), Acknowledged::Unknown);
        assert_eq!(inflight.acknowledge(kind::PUBACK, first, 0x97), Acknowledged::Refused);
        assert_eq!(inflight.room(), 2);
    }

    #[test]
    fn qos2_takes_both_steps() {
        let mut inflight = Inflight::new(1);
        let id = inflight.begin(5);
        assert_eq!(inflight.acknowledge(kind::PUBCOMP, id, 0), Acknowledged::Unknown);
        assert_eq!(inflight.acknowledge(kind::PUBREC, id, 0), Acknowledged::Release);
        assert_eq!(inflight.room(), 0);
        let done = Acknowledged::Complete { since: 5 };
        assert_eq!(inflight.acknowledge(kind::PUBCOMP, id, 0), done);
        assert_eq!(inflight.room(), 1);
    }

    #[test]
    fn the_whole_range_of_identifiers_can_be_in_flight() {
        let mut inflight = Inflight::new(u16::MAX);
        let ids: std::collections::HashSet<u16> = (0..65_535).map(|_| inflight.begin(0)).collect();
        assert_eq!((ids.len(), ids.contains(&0), inflight.room()), (65_535, false, 0));
        assert_eq!(inflight.acknowledge(kind::PUBACK, 0, 0), Acknowledged::Unknown);
    }
}
