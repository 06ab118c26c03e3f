//! Handles the acknowledgements of a Client for received messages.

use crate::durable::Durability;
use crate::durable::change::QueueChange;
use crate::packet::PacketId;
use crate::packet::reason_code::ReasonCode;
use crate::session::effects::{DropReason, Effects};
use crate::session::outbound::{Outbound, Persistence, PubrecOutcome};
use crate::session::window::DeliveryState;

impl Outbound {
    /// PUBACK: the delivery is done. False if there is none with this identifier.
    pub(crate) fn handle_puback(&mut self, packet_id: PacketId, effects: &mut Effects) -> bool {
        let Some((sequence, delivery)) = self.window.find(packet_id) else { return false };
        if delivery.state != DeliveryState::AwaitsPuback {
            return false;
        }
        self.finish_delivery(sequence, effects);
        true
    }

    /// PUBREC: the Client has accepted the message, or refuses it.
    pub(crate) fn handle_pubrec(
        &mut self,
        packet_id: PacketId,
        reason: ReasonCode,
        durability: Durability,
        effects: &mut Effects,
    ) -> PubrecOutcome {
        let session = self.queue.owner();
        let Some((sequence, delivery)) = self.window.find(packet_id) else {
            return PubrecOutcome::Unknown;
        };
        match delivery.state {
            DeliveryState::AwaitsPubcomp => return PubrecOutcome::Release,
            DeliveryState::AwaitsCommit => return PubrecOutcome::ReleaseAfterCommit,
            DeliveryState::Done | DeliveryState::AwaitsPuback => return PubrecOutcome::Unknown,
            DeliveryState::AwaitsPubrec => {}
        }
        if reason.is_failure() {
            self.finish_delivery(sequence, effects);
            self.count_drop(DropReason::Refused, effects);
            return PubrecOutcome::Finished;
        }
        let is_durable = self.persistence == Persistence::Durable;
        delivery.state = match is_durable {
            true => DeliveryState::AwaitsCommit,
            false => DeliveryState::AwaitsPubcomp,
        };
        self.window.forget_message(sequence);
        if !is_durable {
            return PubrecOutcome::Release;
        }
        effects.persist(QueueChange::Release { queue: session, sequence }, durability);
        PubrecOutcome::ReleaseAfterCommit
    }

    /// Sends the PUBREL of this delivery. False if the delivery no longer exists.
    pub(crate) fn begin_release(&mut self, packet_id: PacketId) -> bool {
        let Some((_, delivery)) = self.window.find(packet_id) else { return false };
        if delivery.state == DeliveryState::AwaitsCommit {
            delivery.state = DeliveryState::AwaitsPubcomp;
        }
        delivery.state == DeliveryState::AwaitsPubcomp
    }

    /// PUBCOMP: the delivery is done. False if there is none with this identifier.
    pub(crate) fn handle_pubcomp(&mut self, packet_id: PacketId, effects: &mut Effects) -> bool {
        let Some((sequence, delivery)) = self.window.find(packet_id) else { return false };
        if !matches!(delivery.state, DeliveryState::AwaitsPubcomp | DeliveryState::AwaitsCommit) {
            return false;
        }
        self.window.finish_delivery(sequence);
        if self.persistence == Persistence::Durable {
            let change = QueueChange::Dequeue { queue: self.queue.owner(), sequence };
            effects.persist(change, Durability::Memory);
        }
        true
    }
}
