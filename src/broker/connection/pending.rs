//! Acknowledgements that wait for the store. They are sent in the order of their requests. [MQTT-4.6.0-2]
//! [MQTT-4.6.0-3]

use crate::broker::connection::ClientConnection;
use crate::broker::connection::connect::Greeting;
use crate::durable::{Durability, Ticket};
use crate::packet::PacketId;
use crate::packet::acknowledgement::{AcknowledgementKind, encode_acknowledgement};
use crate::packet::reason_code::ReasonCode;
use crate::packet::unsubscribe::Unsuback;
use crate::session::effects::Effects;

/// Not submitted yet.
const UNSUBMITTED: Ticket = Ticket(u64::MAX);

/// A packet that is sent when its ticket is durable.
pub(super) struct PendingAnswer {
    ticket: Ticket,
    packet: PendingPacket,
}

/// The packet to send.
pub(super) enum PendingPacket {
    /// An answer to PUBLISH, PUBREC or PUBREL.
    Acknowledgement(AcknowledgementKind, PacketId, ReasonCode),
    /// SUBACK, which is sent before the Retained Messages of its Subscriptions.
    Suback(PacketId, Vec<ReasonCode>),
    /// UNSUBACK.
    Unsuback(PacketId, Box<[ReasonCode]>),
    /// CONNACK, after which messages may follow.
    Connack(Box<Greeting>),
}

impl PendingAnswer {
    pub(super) fn is_unsubmitted(&self) -> bool {
        self.ticket == UNSUBMITTED
    }

    pub(super) fn set_ticket(&mut self, ticket: Ticket) {
        self.ticket = ticket;
    }
}

/// Whether an acknowledgement depends on a change in the next batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// It depends on a change of the next batch, and is sent once that is durable.
    ForCommit,
    /// It depends on none, but earlier acknowledgements are sent first.
    InTurn,
}

impl Wait {
    /// Waits for earlier batches: the acknowledged change was made earlier, perhaps by another connection, and is
    /// durable when the next batch is.
    pub(super) fn for_earlier(effects: &mut Effects) -> Self {
        effects.barrier = true;
        Self::ForCommit
    }
}

/// The changes that an answer to CONNECT, SUBSCRIBE, UNSUBSCRIBE, PUBLISH or PUBREL depends on: those collected after
/// the promise was created. The answer waits if there are such changes and any change of the batch, which is written as a
/// whole, must outlive the process.
#[derive(Debug, Clone, Copy)]
#[must_use]
pub(super) struct Promise {
    changes_before: usize,
}

impl Promise {
    #[inline]
    pub(super) fn begin(effects: &Effects) -> Self {
        Self { changes_before: effects.changes.len() }
    }

    /// What the acknowledgement waits for.
    #[inline]
    pub(super) fn wait(self, effects: &Effects) -> Wait {
        let is_changed = effects.changes.len() > self.changes_before;
        match is_changed && effects.durability > Durability::Memory {
            true => Wait::ForCommit,
            false => Wait::InTurn,
        }
    }
}

impl ClientConnection {
    /// Sends a packet now if nothing is pending before it, otherwise in its turn.
    pub(super) fn answer(&mut self, packet: PendingPacket, wait: Wait, effects: &mut Effects) {
        if wait == Wait::InTurn && self.output.pending.is_empty() {
            self.send(packet, effects);
            return;
        }
        if packet.is_puback() {
            self.output.pending_pubacks = self.output.pending_pubacks.saturating_add(1);
        }
        self.output.pending_reasons += packet.reason_count();
        // The ticket is set when the batch is submitted, also for packets that only wait for their turn.
        self.output.pending.push_back(PendingAnswer { ticket: UNSUBMITTED, packet });
    }

    #[inline]
    pub(super) fn flush_pending(&mut self, effects: &mut Effects) {
        if !self.output.pending.is_empty() {
            self.flush_durable(effects);
        }
    }

    fn flush_durable(&mut self, effects: &mut Effects) {
        // Many acknowledgements have the same ticket: the store is asked once for each.
        let mut durable = Ticket::NOTHING;
        while let Some(first) = self.output.pending.front() {
            if first.ticket != durable && !self.is_durable(first.ticket) {
                break;
            }
            durable = first.ticket;
            let Some(pending) = self.output.pending.pop_front() else { break };
            if pending.packet.is_puback() {
                self.output.pending_pubacks = self.output.pending_pubacks.saturating_sub(1);
            }
            self.output.pending_reasons -= pending.packet.reason_count();
            self.send(pending.packet, effects);
        }
        if self.output.pending.is_empty() && self.output.pending.capacity() > 64 {
            self.output.pending = std::collections::VecDeque::new();
        }
    }

    fn is_durable(&self, ticket: Ticket) -> bool {
        ticket != UNSUBMITTED && self.broker.store().is_durable(ticket)
    }

    fn send(&mut self, packet: PendingPacket, effects: &mut Effects) {
        if self.closing.reason.is_some() {
            // Nothing follows a DISCONNECT. [MQTT-3.14.4-1]
            return;
        }
        effects.tally.packets_sent += 1;
        let version = self.identity.version;
        match packet {
            PendingPacket::Acknowledgement(AcknowledgementKind::Pubrel, packet_id, reason) => {
                self.send_pubrel(packet_id, reason);
            }
            PendingPacket::Acknowledgement(kind, packet_id, reason) if reason.is_failure() => {
                self.send_refusing(kind, packet_id, reason);
            }
            PendingPacket::Acknowledgement(kind, packet_id, reason) => {
                self.output
                    .own
                    .append(|out| encode_acknowledgement(out, kind, packet_id, reason, version));
            }
            PendingPacket::Suback(packet_id, reasons) => {
                self.send_suback(packet_id, reasons);
                self.output.watches_others = true;
            }
            PendingPacket::Unsuback(packet_id, reasons) => {
                let unsuback = Unsuback {
                    packet_id,
                    reason_string: None,
                    user_properties: Vec::new(),
                    reasons: reasons.into_vec(),
                };
                self.output.own.append(|out| unsuback.encode(out, version));
            }
            PendingPacket::Connack(greeting) => {
                if greeting.is_resumed() {
                    effects.tally.connects_resumed += 1;
                } else {
                    effects.tally.connects_new += 1;
                }
                self.open(*greeting);
            }
        }
    }

    /// Sends PUBREL only for a delivery that still exists, and marks it.
    fn send_pubrel(&mut self, packet_id: PacketId, reason: ReasonCode) {
        let Some(session) = &self.opening.session else { return };
        let is_known = reason.is_failure() || session.outbound().begin_release(packet_id);
        if is_known {
            let version = self.identity.version;
            let kind = AcknowledgementKind::Pubrel;
            self.output
                .own
                .append(|out| encode_acknowledgement(out, kind, packet_id, reason, version));
        }
    }
}

impl PendingPacket {
    fn is_puback(&self) -> bool {
        matches!(self, Self::Acknowledgement(AcknowledgementKind::Puback, ..))
    }

    /// The number of Reason Codes in an answer to a packet of filters.
    fn reason_count(&self) -> u32 {
        let count = match self {
            Self::Suback(_, reasons) => reasons.len(),
            Self::Unsuback(_, reasons) => reasons.len(),
            Self::Acknowledgement(..) | Self::Connack(_) => 0,
        };
        u32::try_from(count).unwrap_or(u32::MAX)
    }
}
