//! Optional features that a remote broker may refuse: the bridge bit of 3.x, and messages about the state of the
//! connection, one of them as Will Message. Brokers refuse by closing the connection or with an ambiguous Reason Code,
//! so the bridge retries at once without the feature, and continues without it if that works.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::bridge::error::LinkError;
use crate::bridge::memory::RememberedBit;

/// If the remote broker ends a link this soon, the reason may be a notification.
const SOON: Duration = Duration::from_secs(5);
/// This many of them in a row.
const SOON_MAX: u32 = 3;

/// The features requested from the remote broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    /// The bridge bit.
    pub(super) bridge_bit: bool,
    /// Will Message and messages about the state.
    pub(super) notifications: bool,
}

/// The features to request from each address.
pub(super) struct Concessions {
    wanted: Asked,
    address: String,
    asked: Asked,
    /// Whether everything has been tried in vain at this address since the last success.
    is_explored: bool,
    soon_ended: u32,
    /// Addresses that refused notifications.
    no_notifications: BTreeSet<String>,
}

impl Concessions {
    pub(super) fn new(wanted: Asked) -> Self {
        Self {
            wanted,
            address: String::new(),
            asked: wanted,
            is_explored: false,
            soon_ended: 0,
            no_notifications: BTreeSet::new(),
        }
    }

    /// The features to request from an address; `bit` is what is remembered of it.
    pub(super) fn ask(&mut self, address: &str, bit: RememberedBit) -> Asked {
        if self.address != address {
            address.clone_into(&mut self.address);
            (self.is_explored, self.soon_ended) = (false, 0);
            self.asked = self.initial(bit);
        }
        self.asked
    }

    fn initial(&self, bit: RememberedBit) -> Asked {
        Asked {
            bridge_bit: self.wanted.bridge_bit && bit != RememberedBit::Refused,
            notifications: self.wanted.notifications
                && !self.no_notifications.contains(&self.address),
        }
    }

    /// Handles a refused connection. True to retry at once with fewer features.
    pub(super) fn refused(&mut self, error: &LinkError, bit: RememberedBit) -> bool {
        let next = match self.asked {
            _ if self.is_explored => None,
            Asked { bridge_bit: true, notifications } if error.may_be_the_bridge_bit() => {
                Some(Asked { bridge_bit: false, notifications })
            }
            Asked { notifications: true, .. } if error.may_be_the_will() => {
                // Leaving out the bit did not help.
                let bridge_bit = self.initial(bit).bridge_bit;
                Some(Asked { bridge_bit, notifications: false })
            }
            Asked { .. } => None,
        };
        self.is_explored = next.is_none() && (self.is_explored || self.asked != self.initial(bit));
        self.asked = next.unwrap_or_else(|| self.initial(bit));
        next.is_some()
    }

    /// Handles a connection that was closed because of a notification. True to retry at once with fewer features.
    pub(super) fn refused_notification(&mut self) -> bool {
        if !self.asked.notifications || self.is_explored {
            return false;
        }
        self.asked.notifications = false;
        true
    }

    /// The remote broker ended a link.
    pub(super) fn ended(&mut self, lasted: Duration, bit: RememberedBit) {
        if lasted > SOON {
            self.soon_ended = 0;
        } else if self.asked.notifications && self.soon_ended < SOON_MAX {
            self.soon_ended += 1;
            self.asked.notifications = self.soon_ended < SOON_MAX;
        } else if self.soon_ended == SOON_MAX {
            // It was something else.
            self.soon_ended += 1;
            self.no_notifications.remove(&self.address);
            self.asked = self.initial(bit);
        }
    }

    /// Handles an accepted connection. Returns the features left out, once.
    pub(super) fn accepted(&mut self) -> Vec<&'static str> {
        self.is_explored = false;
        let mut news = Vec::new();
        if self.wanted.notifications
            && !self.asked.notifications
            && self.no_notifications.insert(self.address.clone())
        {
            news.push(
                "the remote broker does not accept messages about the state of the connection; continuing without them (set notifications_local_only = true to avoid this)",
            );
        }
        news
    }

    /// The features requested last.
    pub(super) fn asked(&self) -> Asked {
        self.asked
    }

    /// Whether the bridge bit was left out.
    pub(super) fn lacks_bit(&self) -> bool {
        self.wanted.bridge_bit && !self.asked.bridge_bit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::ProtocolVersion;
    use crate::packet::reason_code::ReasonCode;

    const ALL: Asked = Asked { bridge_bit: true, notifications: true };

    fn refusal(reason: ReasonCode) -> LinkError {
        LinkError::Refused { reason, text: String::new(), protocol: ProtocolVersion::V3_1_1 }
    }

    #[test]
    fn what_is_refused_is_left_out_one_after_the_other() {
        let mut concessions = Concessions::new(ALL);
        let closed = LinkError::RemoteClosed(" instead of answering CONNECT");
        assert_eq!(concessions.ask("a", RememberedBit::Unknown), ALL);
        assert!(concessions.refused(&closed, RememberedBit::Unknown));
        assert_eq!(
            concessions.ask("a", RememberedBit::Unknown),
            Asked { bridge_bit: false, notifications: true }
        );
        assert!(concessions.refused(&closed, RememberedBit::Unknown));
        assert_eq!(
            concessions.ask("a", RememberedBit::Unknown),
            Asked { bridge_bit: true, notifications: false }
        );
        assert!(concessions.refused(&closed, RememberedBit::Unknown));
        assert_eq!(
            concessions.ask("a", RememberedBit::Unknown),
            Asked { bridge_bit: false, notifications: false }
        );
        // It was something else. It is asked once a round from now on, until it has accepted.
        assert!(!concessions.refused(&closed, RememberedBit::Unknown));
        assert_eq!(concessions.ask("a", RememberedBit::Unknown), ALL);
        assert!(!concessions.refused(&closed, RememberedBit::Unknown));
        concessions.accepted();
        assert!(concessions.refused(&closed, RememberedBit::Unknown));
        // Another address is another broker.
        assert_eq!(
            concessions.ask("b", RememberedBit::Refused),
            Asked { bridge_bit: false, notifications: true }
        );
    }

    #[test]
    fn only_what_may_be_the_reason_is_left_out() {
        let mut concessions = Concessions::new(ALL);
        let silent = LinkError::RemoteSilent("CONNECT");
        concessions.ask("a", RememberedBit::Unknown);
        assert!(!concessions.refused(&silent, RememberedBit::Unknown));
        assert!(concessions.refused(&refusal(ReasonCode::NotAuthorized), RememberedBit::Unknown));
        assert_eq!(concessions.asked(), Asked { bridge_bit: true, notifications: false });
        assert_eq!(concessions.accepted().len(), 1);
        assert!(concessions.accepted().is_empty());
        assert!(
            concessions
                .refused(&refusal(ReasonCode::UnsupportedProtocolVersion), RememberedBit::Unknown)
        );
        assert!(concessions.lacks_bit());
    }

    #[test]
    fn notifications_that_end_the_link_are_left_out() {
        let mut concessions = Concessions::new(ALL);
        concessions.ask("a", RememberedBit::Unknown);
        assert!(concessions.refused_notification());
        assert!(!concessions.refused_notification());
        let mut concessions = Concessions::new(ALL);
        concessions.ask("a", RememberedBit::Unknown);
        (0..3).for_each(|_| concessions.ended(Duration::from_secs(1), RememberedBit::Unknown));
        assert!(!concessions.asked().notifications);
        concessions.accepted();
        // It ends without them, too.
        concessions.ended(Duration::from_secs(1), RememberedBit::Unknown);
        assert!(concessions.asked().notifications);
        (0..9).for_each(|_| concessions.ended(Duration::from_secs(1), RememberedBit::Unknown));
        assert!(concessions.asked().notifications);
    }
}
