//! The inbound half of a Session: the state of what the Client sends, used only by its own Network Connection.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use hashbrown::HashSet;

use crate::durable::message::{Message, MessageId, SessionId, Timestamp};
use crate::packet::PacketId;
use crate::session::memberships::Memberships;
use crate::session::outbound::Persistence;
use crate::session::owner::SessionOwner;
use crate::session::rare::Rare;
use crate::session::retained_delivery::RetainedDeliveries;
use crate::session::subscriptions::Subscriptions;

/// The inbound half of a Session.
pub struct Inbound {
    /// Raised by every take-over; a connection with an older epoch must not change anything.
    pub(crate) epoch: u64,
    /// QoS 2 Packet Identifiers received and not released. [MQTT-4.3.3-10]
    pub(crate) incoming: IncomingIds,
    /// Its Subscriptions that are not shared.
    pub(crate) subscriptions: Subscriptions,
    /// Groups of Shared Subscriptions it is a member of, one for each of its Shared Subscriptions.
    pub groups: Memberships,
    /// Retained Messages still to be delivered for new Subscriptions. They outlive the Network Connection, so that a
    /// disconnection loses none.
    pub(crate) retained: Rare<RetainedDeliveries>,
    /// Bytes counted for its Subscriptions, see `broker::subscriptions`.
    pub(crate) subscription_bytes: usize,
    /// The Will Message of the current Network Connection, or one whose delay runs.
    pub(crate) will: Option<Will>,
    /// Session Expiry Interval in seconds.
    pub(crate) expiry_seconds: u32,
    /// The owner of the Session.
    pub(crate) owner: SessionOwner,
    /// The Session has ended: whoever still holds it must look up another.
    pub(crate) ended: bool,
    /// The store has, or may have, a record of it, which must be deleted with it.
    pub(crate) has_record: bool,
    /// When its Network Connection ended; `None` while it is open.
    pub(crate) disconnected: Option<Timestamp>,
    /// Network Connections that wait for the current one to release the Session.
    pub(crate) successors: Rare<Vec<Waker>>,
    /// Numbers the messages published.
    next_message: u64,
}

/// A set of Packet Identifiers of messages with QoS 2.
#[derive(Debug, Default)]
pub(crate) struct IncomingIds(Rare<PacketIdsByAge>);

#[derive(Debug, Default)]
struct PacketIdsByAge {
    /// Received over the current Network Connection.
    current: PacketIds,
    /// Received over earlier ones: known, but not part of the current quota. [MQTT-4.9.0-1]
    earlier: PacketIds,
}

type PacketIds = HashSet<PacketId, foldhash::fast::RandomState>;

/// A Will Message and its delay.
#[derive(Debug, Clone)]
pub(crate) struct Will {
    /// The message to publish.
    pub(crate) message: Arc<Message>,
    /// Will Delay Interval in seconds.
    pub delay_seconds: u32,
    /// Whether its Client was connected when an earlier run of the broker ended, which also ended its Session: the Client
    /// has some time to come back before the Will Message is published.
    pub(crate) is_left_behind: bool,
}

impl Inbound {
    /// The state of a new Session. `first_message` numbers its messages.
    #[must_use]
    pub(crate) fn new(first_message: u64) -> Self {
        Self {
            epoch: 0,
            incoming: IncomingIds::default(),
            subscriptions: Subscriptions::default(),
            groups: Memberships::default(),
            retained: Rare::default(),
            subscription_bytes: 0,
            will: None,
            expiry_seconds: 0,
            owner: SessionOwner::default(),
            ended: false,
            has_record: false,
            disconnected: None,
            successors: Rare::default(),
            next_message: first_message,
        }
    }

    /// The id for the next message published by this Session, whose id is `publisher`.
    #[inline]
    pub(crate) fn take_message_id(&mut self, publisher: SessionId) -> MessageId {
        let id = MessageId { publisher, counter: self.next_message };
        self.next_message += 1;
        id
    }

    /// How many Subscriptions it has, shared ones included.
    #[must_use]
    pub(crate) fn subscription_count(&self) -> usize {
        self.subscriptions.len() + self.groups.len()
    }

    /// Whether the Session outlives its Network Connection.
    #[must_use]
    pub(crate) fn is_durable(&self) -> bool {
        self.expiry_seconds > 0
    }

    /// Whether messages for its Client must survive the process.
    #[must_use]
    pub(crate) fn persistence(&self) -> Persistence {
        if self.is_durable() { Persistence::Durable } else { Persistence::Transient }
    }

    /// Whether a Client that connects now is too late to stop this Will Message, because the delay has passed since the
    /// Network Connection ended (now, if it is still open). [MQTT-3.1.3-9]
    #[must_use]
    pub(crate) fn is_overdue(&self, will: &Will, now: Timestamp) -> bool {
        let delay = Duration::from_secs(u64::from(will.delay_seconds));
        self.disconnected.unwrap_or(now).plus(delay) <= now
    }
}

impl IncomingIds {
    /// How many count towards the Receive Maximum of the current Network Connection.
    #[inline]
    #[must_use]
    pub(crate) fn in_quota(&self) -> usize {
        self.0.as_ref().map_or(0, |known| known.current.len())
    }

    /// Starts the quota of a new Network Connection.
    pub(crate) fn begin_quota(&mut self) {
        let PacketIdsByAge { current, mut earlier } = self.0.take();
        earlier.extend(current);
        if !earlier.is_empty() {
            self.0.fill().earlier = earlier;
        }
    }

    /// Whether a message with this identifier was received and not released.
    #[inline]
    #[must_use]
    pub(crate) fn contains(&self, packet_id: PacketId) -> bool {
        let known = self.0.as_ref();
        known.is_some_and(|PacketIdsByAge { current, earlier }| {
            current.contains(&packet_id) || earlier.contains(&packet_id)
        })
    }

    /// Adds the identifier of a received message.
    #[inline]
    pub(crate) fn insert(&mut self, packet_id: PacketId) {
        self.0.fill().current.insert(packet_id);
    }

    /// Releases an identifier; returns whether it was known.
    #[inline]
    pub(crate) fn remove(&mut self, packet_id: PacketId) -> bool {
        let known = self.0.as_mut();
        known.is_some_and(|PacketIdsByAge { current, earlier }| {
            current.remove(&packet_id) || earlier.remove(&packet_id)
        })
    }
}

impl Extend<PacketId> for IncomingIds {
    fn extend<I: IntoIterator<Item = PacketId>>(&mut self, packet_ids: I) {
        packet_ids.into_iter().for_each(|packet_id| self.insert(packet_id));
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;

    /// Clients choose their Packet Identifiers: a hash that they know would let them choose those that collide.
    #[test]
    fn each_client_s_identifiers_are_hashed_in_their_own_way() {
        let order = || {
            let mut ids = PacketIds::default();
            ids.extend((1..=50).filter_map(NonZeroU16::new).map(PacketId));
            ids.into_iter().collect::<Vec<_>>()
        };
        let first = order();
        assert!((0..20).any(|_| order() != first));
    }
}
