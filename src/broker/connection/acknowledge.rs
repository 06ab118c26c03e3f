//! Acknowledgements from a Client, for what it received and for what it sent.

use std::sync::Arc;

use crate::broker::Broker;
use crate::broker::connection::ClientConnection;
use crate::broker::connection::pending::{PendingPacket, Wait};
use crate::durable::message::Timestamp;
use crate::packet::PacketId;
use crate::packet::acknowledgement::{Acknowledgement, AcknowledgementKind};
use crate::packet::reason_code::ReasonCode;
use crate::session::Session;
use crate::session::effects::Effects;
use crate::session::group::{Group, GroupTerms};
use crate::session::inbound::Inbound;
use crate::session::outbound::PubrecOutcome;

impl ClientConnection {
    /// The run of plain PUBACK packets at the front of `input`, under one lock; returns the bytes they
    /// take.
    pub(super) fn handle_pubacks(
        &mut self,
        session: &Arc<Session>,
        input: &[u8],
        effects: &mut Effects,
    ) -> usize {
        let mut rest = input;
        let mut outbound = None;
        while let [0x40, 0x02, high, low, after @ ..] = rest
            && let Ok(packet_id) = PacketId::try_from(u16::from_be_bytes([*high, *low]))
        {
            let outbound = outbound.get_or_insert_with(|| session.outbound());
            outbound.handle_puback(packet_id, effects);
            effects.tally.packets_received += 1;
            rest = after;
        }
        input.len() - rest.len()
    }

    /// PUBACK, also one that refuses: the message is done either way. [MQTT-4.8.2-6]
    pub(super) fn handle_puback(
        &mut self,
        session: &Arc<Session>,
        puback: &Acknowledgement<'_>,
        effects: &mut Effects,
    ) {
        session.outbound().handle_puback(puback.packet_id, effects);
    }

    pub(super) fn handle_pubrec(
        &mut self,
        session: &Arc<Session>,
        pubrec: &Acknowledgement<'_>,
        effects: &mut Effects,
    ) {
        let durability = self.broker.session_durability();
        let packet_id = pubrec.packet_id;
        let outcome =
            session.outbound().handle_pubrec(packet_id, pubrec.reason, durability, effects);
        let (reason, wait) = match outcome {
            PubrecOutcome::Release => (ReasonCode::Success, Wait::InTurn),
            PubrecOutcome::ReleaseAfterCommit => {
                // A repeated PUBREC has no change of its own to wait for.
                effects.barrier = true;
                (ReasonCode::Success, Wait::ForCommit)
            }
            PubrecOutcome::Unknown => (ReasonCode::PacketIdentifierNotFound, Wait::InTurn),
            PubrecOutcome::Finished => return,
        };
        let kind = AcknowledgementKind::Pubrel;
        self.answer(PendingPacket::Acknowledgement(kind, packet_id, reason), wait, effects);
    }

    pub(super) fn handle_pubrel(
        &mut self,
        inbound: &mut Inbound,
        pubrel: &Acknowledgement<'_>,
        effects: &mut Effects,
    ) {
        self.release_incoming(inbound, pubrel.packet_id, effects);
    }

    pub(super) fn handle_pubcomp(
        &mut self,
        session: &Arc<Session>,
        pubcomp: &Acknowledgement<'_>,
        effects: &mut Effects,
    ) {
        session.outbound().handle_pubcomp(pubcomp.packet_id, effects);
    }
}

impl Broker {
    /// Gives a member what waits in its group.
    pub(super) fn drain_group(
        &self,
        group: &Group,
        session: &Arc<Session>,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let topic = group.filter().as_str();
        let limits = self.limits().queue;
        let durability = self.limits().durability_of(topic);
        group.drain_to(session, &GroupTerms { durability, limits: &limits }, now, effects);
    }
}
