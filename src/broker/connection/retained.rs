//! Delivers messages that wait for a Client outside its own queue: Retained Messages for new Subscriptions, and
//! messages of its groups.

use std::sync::Arc;

use crate::broker::connection::ClientConnection;
use crate::broker::connection::turn::Turn;
use crate::durable::message::Timestamp;
use crate::session::Session;
use crate::session::effects::Effects;
use crate::session::outbound::{DeliveryOutcome, Terms};
use crate::session::publication::Publication;
use crate::session::queue::Total;
use crate::session::retained_delivery::RetainedDelivery;

/// Retained Messages delivered under one lock.
const RETAINED_PAGE: usize = 64;
/// Steps of visiting one name: its text is compared, and may not be in the cache.
const STEPS_PER_NAME: usize = 2;

impl ClientConnection {
    /// Gives the Client messages from outside its own queue, as far as it has room.
    pub(super) fn drain_to_client(
        &mut self,
        session: &Arc<Session>,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let mut inbound = session.inbound();
        if inbound.epoch != self.opening.epoch {
            return;
        }
        let mut turn = Turn { session, inbound: &mut inbound, now, effects };
        // Retained Messages must not be sent before a pending SUBACK.
        if self.output.pending_reasons == 0 && self.input.filter_work.is_none() {
            self.deliver_retained(&mut turn);
        }
        self.output.watches_others = !inbound.retained.is_empty() || !inbound.groups.is_empty();
        for group in inbound.groups.iter() {
            if group.has_backlog() {
                self.broker.drain_group(group, session, now, effects);
            }
        }
    }

    /// Delivers Retained Messages of new Subscriptions, as many as the Client takes now.
    fn deliver_retained(&self, turn: &mut Turn<'_>) {
        // An idle Client keeps no memory for past deliveries.
        let mut waiting = turn.inbound.retained.take();
        let mut page = Vec::new();
        while let Some(mut delivery) = waiting.pop() {
            if turn.effects.budget.is_spent() || turn.session.outbound().is_crowded() {
                waiting.put_back(delivery);
                *turn.inbound.retained.fill() = waiting;
                return;
            }
            let cursor = delivery.cursor.take();
            page.clear();
            let found =
                self.broker.retained().page(&delivery.filter, cursor, RETAINED_PAGE, &mut page);
            delivery.cursor = found.next;
            turn.effects.budget.spend(found.names * STEPS_PER_NAME);
            let now = turn.now;
            for message in page.iter().filter(|message| !message.is_expired(now)) {
                let mut publication = Publication::from_message(message);
                publication.arrived = now;
                self.deliver_one_retained(turn, &delivery, &mut publication);
            }
            if delivery.cursor.is_some() {
                waiting.put_back(delivery);
            }
        }
    }

    fn deliver_one_retained(
        &self,
        turn: &mut Turn<'_>,
        delivery: &RetainedDelivery,
        publication: &mut Publication<'_>,
    ) {
        let limits = self.broker.limits();
        let ids = [delivery.subscription_id];
        let terms = Terms {
            qos: delivery.qos,
            retain: true,
            subscription_ids: if delivery.subscription_id == 0 { &[] } else { &ids },
            group: None,
            durability: limits.durability_of(publication.topic),
            limits: &limits.queue_of(publication.topic),
            // Retained Messages take no more room by being delivered: they wait in the tree until the Client has
            // room.
            total: Total::HasRoom,
        };
        let mut outbound = turn.session.outbound();
        if !outbound.may_receive(publication.topic) {
            turn.effects.tally.receive_denied += 1;
            return;
        }
        let delivered = outbound.deliver(publication, &terms, turn.effects);
        drop(outbound);
        if delivered == DeliveryOutcome::QueuedUntilCommit {
            turn.effects.listeners.push(Arc::clone(turn.session) as Arc<_>);
        }
    }
}
