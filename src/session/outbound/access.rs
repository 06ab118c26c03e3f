//! What the Client may receive. Routing asks once for each topic, when it makes a plan; messages that waited in a queue are
//! checked again when they leave it, because the rules may have changed.

use std::sync::Arc;

use crate::durable::entry::QueueEntry;
use crate::packet::acknowledgement::{AcknowledgementKind, encode_acknowledgement};
use crate::packet::reason_code::ReasonCode;
use crate::session::access_rights::AccessRights;
use crate::session::effects::{DropReason, Effects};
use crate::session::outbound::{Outbound, Presence};
use crate::session::queue::dequeue;
use crate::session::window::{Delivery, DeliveryState};

impl Outbound {
    /// Sets the rights of the Client; true if plans with this Session may no longer be right.
    pub(crate) fn set_rights(&mut self, rights: Option<Arc<dyn AccessRights>>) -> bool {
        let identity = |rights: &Option<Arc<dyn AccessRights>>| {
            rights.as_ref().map(|rights| rights.identity())
        };
        let is_other = identity(&self.rights) != identity(&rights);
        self.rights = rights;
        is_other
    }

    /// Whether the Session was loaded, and no Client has been connected since.
    #[must_use]
    pub(crate) fn is_loaded(&self) -> bool {
        self.epoch == 0
    }

    /// The rights of the Client that was connected last, if rules limit them. `None` as well for a Session that was loaded,
    /// until its Client returns.
    #[must_use]
    pub(crate) fn rights(&self) -> Option<&Arc<dyn AccessRights>> {
        self.rights.as_ref()
    }

    /// Whether the Client may receive messages of this topic.
    #[must_use]
    pub(crate) fn may_receive(&self, topic: &str) -> bool {
        self.rights.as_ref().is_none_or(|rights| rights.receive(topic))
    }

    /// Drops a queued message that the Client may not receive. If it may know the Packet Identifier of a QoS 2 message, its
    /// exchange is completed with PUBREL, because the Client would take another message with this identifier for a repetition.
    #[cold]
    pub(super) fn pump_denied(&mut self, entry: &QueueEntry, effects: &mut Effects) -> Option<()> {
        let Presence::Open(link) = &mut self.link else { return None };
        let sequence = entry.sequence;
        if entry.qos != crate::packet::QoS::ExactlyOnce || sequence >= self.sent_until {
            self.queue.pop();
            effects.changes.extend(dequeue(self.queue.owner(), entry));
            self.count_drop(DropReason::AccessDenied, effects);
            return Some(());
        }
        if !self.window.has_room(sequence, link.receive_maximum) {
            return None;
        }
        self.queue.pop();
        self.window.push(sequence, Delivery { state: DeliveryState::AwaitsPubcomp, entry: None });
        let (version, packet_id) = (link.version, sequence.packet_id());
        let (kind, reason) = (AcknowledgementKind::Pubrel, ReasonCode::Success);
        self.outbox.append(|out| encode_acknowledgement(out, kind, packet_id, reason, version));
        self.count_drop(DropReason::AccessDenied, effects);
        Some(())
    }
}
