//! Handles acknowledgements from a Client, for messages it received and for messages it sent.

use std::sync::Arc;

use crate::broker::Broker;
use crate::broker::connection::ClientConnection;
use crate::broker::connection::pending::{PendingPacket, Promise, Wait};
use crate::broker::connection::turn::Turn;
use crate::durable::change::SessionChange;
use crate::durable::message::Timestamp;
use crate::packet::acknowledgement::{Acknowledgement, AcknowledgementKind, plain_puback};
use crate::packet::reason_code::ReasonCode;
use crate::session::Session;
use crate::session::effects::Effects;
use crate::session::group::Group;
use crate::session::outbound::PubrecOutcome;

impl ClientConnection {
    /// Handles the run of plain PUBACK packets at the front of `input` under one lock; returns their length.
    pub(super) fn handle_pubacks(&mut self, turn: &mut Turn<'_>, input: &[u8]) -> usize {
        let mut rest = input;
        let mut outbound = None;
        while let Some((packet_id, after)) = plain_puback(rest) {
            let outbound = outbound.get_or_insert_with(|| turn.session.outbound());
            outbound.handle_puback(packet_id, turn.effects);
            turn.effects.tally.packets_received += 1;
            rest = after;
        }
        input.len() - rest.len()
    }

    /// PUBACK, including one that refuses: the message is finished either way. [MQTT-4.8.2-6]
    pub(super) fn handle_puback(&mut self, turn: &mut Turn<'_>, puback: &Acknowledgement<'_>) {
        turn.session.outbound().handle_puback(puback.packet_id, turn.effects);
    }

    pub(super) fn handle_pubrec(&mut self, turn: &mut Turn<'_>, pubrec: &Acknowledgement<'_>) {
        let durability = self.broker.session_durability();
        let (packet_id, effects) = (pubrec.packet_id, &mut *turn.effects);
        let outcome =
            turn.session.outbound().handle_pubrec(packet_id, pubrec.reason, durability, effects);
        let (reason, wait) = match outcome {
            PubrecOutcome::Release => (ReasonCode::Success, Wait::InTurn),
            // A repeated PUBREC has no change of its own to wait for.
            PubrecOutcome::ReleaseAfterCommit => (ReasonCode::Success, Wait::for_earlier(effects)),
            PubrecOutcome::Unknown => (ReasonCode::PacketIdentifierNotFound, Wait::InTurn),
            PubrecOutcome::Finished => return,
        };
        let kind = AcknowledgementKind::Pubrel;
        self.answer(PendingPacket::Acknowledgement(kind, packet_id, reason), wait, effects);
    }

    /// PUBREL: the Client will not send this message again; its Packet Identifier is free once that
    /// is safe. [MQTT-4.3.3-11]
    pub(super) fn handle_pubrel(&mut self, turn: &mut Turn<'_>, pubrel: &Acknowledgement<'_>) {
        let packet_id = pubrel.packet_id;
        let promise = Promise::begin(turn.effects);
        let is_known = turn.inbound.incoming.remove(packet_id);
        let reason = match is_known {
            true => ReasonCode::Success,
            false => ReasonCode::PacketIdentifierNotFound,
        };
        let wait = match (turn.inbound.is_durable(), is_known) {
            (true, true) => {
                let change =
                    SessionChange::DeleteIncoming { session: turn.session.id(), packet_id };
                turn.effects.persist(change, self.broker.session_durability());
                promise.wait(turn.effects)
            }
            // It may have been released before a take-over: then that must be durable first.
            (true, false) => Wait::for_earlier(turn.effects),
            (false, _) => Wait::InTurn,
        };
        let kind = AcknowledgementKind::Pubcomp;
        self.answer(PendingPacket::Acknowledgement(kind, packet_id, reason), wait, turn.effects);
    }

    pub(super) fn handle_pubcomp(&mut self, turn: &mut Turn<'_>, pubcomp: &Acknowledgement<'_>) {
        turn.session.outbound().handle_pubcomp(pubcomp.packet_id, turn.effects);
    }
}

impl Broker {
    /// Gives a member the messages queued in its group.
    pub(super) fn drain_group(
        &self,
        group: &Group,
        session: &Arc<Session>,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        group.drain_to(session, |topic| self.group_terms(topic), now, effects);
    }
}
