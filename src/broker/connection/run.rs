//! Consecutive plain PUBLISH packets of one topic in one read buffer, routed together: one plan and one
//! lock for each recipient serve all of them. Devices publish in bursts, and most of what a message
//! costs is not in the message.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::broker::connection::ClientConnection;
use crate::broker::connection::pending::Wait;
use crate::broker::connection::publish::Storing;
use crate::broker::route::Routed;
use crate::durable::Durability;
use crate::durable::change::SessionChange;
use crate::durable::message::{MessageHeader, Timestamp};
use crate::packet::plain_publish::{PlainPublish, plain_publish};
use crate::packet::{PacketId, ProtocolVersion, QoS};
use crate::session::Session;
use crate::session::effects::Effects;
use crate::session::inbound::Inbound;
use crate::session::publication::Publication;

/// Messages routed together at most: more would make others wait for a recipient's lock.
const RUN_MESSAGES: usize = 32;

/// Messages that wait to be routed together.
pub(super) struct Run<'a> {
    topic: &'a str,
    publications: SmallVec<[Publication<'a>; RUN_MESSAGES]>,
    packet_ids: SmallVec<[Option<PacketId>; RUN_MESSAGES]>,
    payload_bytes: u64,
}

impl Run<'_> {
    pub(super) fn new() -> Self {
        Self {
            topic: "",
            publications: SmallVec::new(),
            packet_ids: SmallVec::new(),
            payload_bytes: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.publications.is_empty()
    }
}

impl ClientConnection {
    /// Takes the PUBLISH at the front of `input` into the run, if it is a plain one; returns its
    /// length. `None` leaves it to the ordinary way.
    #[inline]
    pub(super) fn extend_run<'a>(
        &mut self,
        session: &Arc<Session>,
        inbound: &mut Inbound,
        run: &mut Run<'a>,
        input: &'a [u8],
        now: Timestamp,
        effects: &mut Effects,
    ) -> Option<usize> {
        let plain = plain_publish(input, self.version, self.max_packet_bytes, run.topic)?;
        if !self.may_run(inbound, run, &plain) {
            return None;
        }
        let is_other_topic = plain.topic != run.topic;
        if is_other_topic || run.publications.len() == RUN_MESSAGES {
            self.flush_run(session, inbound, run, effects);
            run.topic = plain.topic;
        }
        if plain.qos == QoS::ExactlyOnce
            && let Some(packet_id) = plain.packet_id
        {
            inbound.incoming.insert(packet_id);
        }
        let header = MessageHeader {
            id: inbound.take_message_id(),
            qos: plain.qos,
            retain: false,
            arrived: now,
            expires: None,
        };
        run.publications.push(Publication::new(header, plain.topic, &[], plain.payload));
        run.packet_ids.push(plain.packet_id);
        run.payload_bytes += plain.payload.len() as u64;
        Some(plain.length)
    }

    /// Whether nothing but routing and acknowledging is to be done for this message.
    #[inline]
    fn may_run(&self, inbound: &Inbound, run: &Run<'_>, plain: &PlainPublish<'_>) -> bool {
        // What comes from a bridge may be an echo, which is looked at one by one.
        if self.peer.listener.mount_point.is_some() || self.is_bridge {
            return false;
        }
        let Some(packet_id) = plain.packet_id else { return true };
        let limits = self.broker.limits();
        let inflight =
            usize::from(self.pending_pubacks) + inbound.incoming.len() + run.publications.len();
        let within =
            self.version < ProtocolVersion::V5_0 || inflight < usize::from(limits.receive_maximum);
        let is_repeated = plain.qos == QoS::ExactlyOnce && inbound.incoming.contains(packet_id);
        within && plain.qos <= limits.maximum_qos && !is_repeated
    }

    /// Routes and acknowledges what is in the run.
    pub(super) fn flush_run(
        &mut self,
        session: &Arc<Session>,
        inbound: &mut Inbound,
        run: &mut Run<'_>,
        effects: &mut Effects,
    ) {
        if run.is_empty() {
            return;
        }
        effects.tally.packets_received += run.publications.len() as u64;
        effects.tally.publish_received += run.publications.len() as u64;
        effects.tally.publish_bytes_received += run.payload_bytes;
        let mut plans = self.plans.take().unwrap_or_default();
        let cached = plans
            .plan(&self.broker, run.topic, session.id(), |topic| self.may_publish(session, topic));
        let storing = match run.packet_ids.iter().any(Option::is_some) {
            true => Storing::IfDurable,
            false => Storing::Never,
        };
        match self.refusal(cached, storing) {
            Some(reason) => {
                for (publication, packet_id) in run.publications.iter().zip(&run.packet_ids) {
                    if let Some(packet_id) = packet_id {
                        inbound.incoming.remove(*packet_id);
                    }
                    effects.tally.publish_refused += 1;
                    self.refuse_publish(publication.qos, *packet_id, reason, effects);
                }
            }
            None => self.route_run(session, inbound, &cached.plan, run, effects),
        }
        self.plans = Some(plans);
        run.publications.clear();
        run.packet_ids.clear();
        run.payload_bytes = 0;
    }

    fn route_run(
        &mut self,
        session: &Arc<Session>,
        inbound: &Inbound,
        plan: &crate::broker::route::Plan,
        run: &mut Run<'_>,
        effects: &mut Effects,
    ) {
        let changes_before = effects.changes.len();
        let mut routed: SmallVec<[Routed; RUN_MESSAGES]> = SmallVec::new();
        self.broker.route_run(plan, &mut run.publications, &mut routed, effects);
        effects.backpressure |= plan.applies_backpressure() && !effects.crowded.is_empty();
        let is_durable = inbound.is_durable();
        for (publication, packet_id) in run.publications.iter().zip(&run.packet_ids) {
            if let (QoS::ExactlyOnce, Some(packet_id), true) =
                (publication.qos, packet_id, is_durable)
            {
                let change =
                    SessionChange::PutIncoming { session: session.id(), packet_id: *packet_id };
                effects.persist(change, plan.durability);
            }
        }
        let is_changed = effects.changes.len() > changes_before;
        let wait = match is_changed && effects.durability > Durability::Memory {
            true => Wait::ForCommit,
            false => Wait::InTurn,
        };
        let answers = run.publications.iter().zip(&run.packet_ids).zip(routed);
        for ((publication, packet_id), routed) in answers {
            let reason = super::publish::reason_of(routed);
            self.acknowledge_publish(publication.qos, *packet_id, reason, wait, effects);
        }
    }
}
