//! Expected echoes of a 3.x link: if one rule fetches messages that another one sends, and the remote broker does not
//! know that we are a bridge, it returns each message that we sent once.
//!
//! Each sent message accounts for at most one echo with the same topic, payload and QoS, without RETAIN, on that link.
//! Everything else is a new message. If it is uncertain whether a message was sent twice, it counts once: then an echo
//! treated as a message is delivered to local clients again but goes no further, because a bridge does not get back its
//! own messages (No Local).

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use crate::packet::QoS;

/// Most expected echoes; messages beyond that are not accounted for. About 40 bytes each.
const DUE_MAX: usize = 100_000;

/// The expected echoes of a link. They outlive the connection, because the remote Session keeps them.
#[derive(Debug, Default)]
pub(crate) struct EchoAccount {
    due: HashMap<u64, Due>,
    order: VecDeque<(Instant, u64)>,
    hasher: foldhash::quality::RandomState,
}

/// Equal messages. `echoes` and `void` together are their entries in `order`.
#[derive(Debug, Default)]
struct Due {
    echoes: u32,
    /// Entries in `order` whose echo has arrived, the oldest first.
    void: u32,
}

impl EchoAccount {
    /// Records that a message was sent under this remote name; its echo is expected within `patience`.
    pub(crate) fn note_sent(
        &mut self,
        (topic, payload, qos): (&str, &[u8], QoS),
        now: Instant,
        patience: Duration,
    ) {
        self.forget(now);
        if self.order.len() >= DUE_MAX {
            return;
        }
        let fingerprint = self.fingerprint(topic, payload, qos);
        self.order.push_back((now + patience, fingerprint));
        self.due.entry(fingerprint).or_default().echoes += 1;
    }

    /// Whether an incoming message is an expected echo, which is then no longer expected.
    pub(crate) fn take_echo(
        &mut self,
        (topic, payload, qos): (&str, &[u8], QoS),
        now: Instant,
    ) -> bool {
        self.forget(now);
        let fingerprint = self.fingerprint(topic, payload, qos);
        let Some(due) = self.due.get_mut(&fingerprint) else { return false };
        let is_due = due.echoes > 0;
        if is_due {
            due.echoes -= 1;
            due.void += 1;
        }
        is_due
    }

    /// Clears the account, because the remote broker has lost our Session.
    pub(crate) fn clear(&mut self) {
        self.due.clear();
        self.order.clear();
    }

    fn fingerprint(&self, topic: &str, payload: &[u8], qos: QoS) -> u64 {
        self.hasher.hash_one((topic, payload, qos as u8))
    }

    fn forget(&mut self, now: Instant) {
        while let Some((until, fingerprint)) = self.order.front().copied()
            && until <= now
        {
            self.order.pop_front();
            let Some(due) = self.due.get_mut(&fingerprint) else { continue };
            match due.void > 0 {
                true => due.void -= 1,
                false => due.echoes = due.echoes.saturating_sub(1),
            }
            if due.echoes + due.void == 0 {
                self.due.remove(&fingerprint);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn as_many_echoes_are_due_as_messages_were_sent() {
        let now = Instant::now();
        let mut account = EchoAccount::default();
        let message = ("t", &b"20"[..], QoS::AtLeastOnce);
        for _ in 0..100 {
            account.note_sent(message, now, PATIENCE);
        }
        assert!(!account.take_echo(("t", b"21", QoS::AtLeastOnce), now));
        assert!(!account.take_echo(("u", b"20", QoS::AtLeastOnce), now));
        assert!(!account.take_echo(("t", b"20", QoS::AtMostOnce), now));
        let settled = (0..150).filter(|_| account.take_echo(message, now)).count();
        assert_eq!(settled, 100);
    }

    #[test]
    fn an_echo_that_does_not_come_is_waited_for_no_longer() {
        let now = Instant::now();
        let mut account = EchoAccount::default();
        let message = ("t", &b"20"[..], QoS::AtLeastOnce);
        account.note_sent(message, now, PATIENCE);
        account.note_sent(message, now + PATIENCE / 2, PATIENCE);
        assert!(account.take_echo(message, now + PATIENCE));
        assert!(!account.take_echo(message, now + PATIENCE));
        assert!(!account.take_echo(message, now + 2 * PATIENCE));
        assert_eq!((account.due.len(), account.order.len()), (0, 0));
        account.note_sent(message, now, PATIENCE);
        account.clear();
        assert!(!account.take_echo(message, now));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let now = Instant::now();
        let mut account = EchoAccount::default();
        for number in 0..DUE_MAX + 10 {
            account.note_sent(("t", &number.to_be_bytes(), QoS::AtLeastOnce), now, PATIENCE);
        }
        assert_eq!(account.order.len(), DUE_MAX);
        assert!(!account.take_echo(("t", &(DUE_MAX + 5).to_be_bytes(), QoS::AtLeastOnce), now));
    }
}
