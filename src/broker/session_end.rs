//! The end of Sessions: their record, their removal, and what happens to their messages.

use std::sync::Arc;

use crate::broker::Broker;
use crate::broker::ended::Leavings;
use crate::durable::change::{QueueChange, SessionChange};
use crate::durable::entry::QueueEntry;
use crate::durable::message::Timestamp;
use crate::durable::record::{QueueRecord, QueueRules, SessionRecord, WillRecord};
use crate::durable::{Durability, StoreState};
use crate::packet::QoS;
use crate::session::Session;
use crate::session::effects::{DropReason, Effects};
use crate::session::group::Group;
use crate::session::inbound::Inbound;
use crate::session::publication::Publication;

impl Broker {
    /// Ends a Session: removes its Subscriptions, queue and identifiers. Its messages of Shared Subscriptions go to
    /// other members. [MQTT-4.8.2-4]
    pub(crate) fn end_session(
        &self,
        session: &Arc<Session>,
        inbound: &mut Inbound,
        effects: &mut Effects,
    ) {
        inbound.ended = true;
        self.uncount_subscriptions(inbound);
        self.registry.remove(session);
        let mut outbound = session.outbound();
        let has_spilled = outbound.has_spilled();
        let remains = outbound.end();
        drop(outbound);
        effects.wakers.extend(remains.waker);
        effects.tally.dropped[DropReason::SessionEnded as usize] += remains.in_store;
        self.hand_on(session, inbound, remains.entries, effects);
        if inbound.has_record || has_spilled {
            effects.persist(SessionChange::Delete(session.id()), Durability::Memory);
        }
        inbound.incoming = Default::default();
        self.leave_behind(Leavings::of(session, inbound), effects);
    }

    /// Ends the Session of a Client that starts without it. CONNACK confirms that, so it must be durable. [MQTT-3.1.2-4]
    pub(crate) fn discard_session(
        &self,
        session: &Arc<Session>,
        inbound: &mut Inbound,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let was_durable = inbound.is_durable();
        // So that it is not counted again when the old connection notices.
        inbound.disconnected = Some(now);
        self.end_session(session, inbound, effects);
        if was_durable {
            effects.durability = effects.durability.max(self.session_durability());
        }
    }

    /// Removes a Session from a group, which ends with its last member.
    pub(crate) fn leave_group(&self, group: &Arc<Group>, session: &Session, effects: &mut Effects) {
        if group.leave(session, effects) {
            self.forget_group(group);
        }
    }

    /// Gives QoS 1 messages of Shared Subscriptions to other members; the rest is dropped with the Session.
    /// [MQTT-4.8.2-5]
    fn hand_on(
        &self,
        session: &Arc<Session>,
        inbound: &Inbound,
        entries: Vec<Arc<QueueEntry>>,
        effects: &mut Effects,
    ) {
        // Of groups that the Client has left before its Session ended.
        let mut others = None;
        for entry in entries {
            let id = entry.group.filter(|_| entry.qos == QoS::AtLeastOnce);
            let group = id.and_then(|id| match inbound.groups.find_id(id) {
                Some(group) => Some(Arc::clone(group)),
                None => others.get_or_insert_with(|| self.groups_by_id()).get(&id).cloned(),
            });
            entry.acknowledge();
            let Some(group) = group else {
                effects.tally.drop_one(DropReason::SessionEnded);
                continue;
            };
            let topic = entry.message.topic();
            let terms = self.group_terms(topic);
            let mut publication = Publication::from_message(&entry.message);
            let _delivered = group.deliver_again(session, &mut publication, &terms, effects);
        }
    }

    /// Writes the record of the queue of a durable Session: once, or when its rules change.
    pub(crate) fn persist_queue(&self, session: &Arc<Session>, effects: &mut Effects) {
        let rules = session.outbound().own_queue().copied().unwrap_or_default();
        let record = QueueRecord { rules, ..QueueRecord::of_session(session.id()) };
        effects.persist(QueueChange::Put(Box::new(record)), self.session_durability());
    }

    /// Sets rules for the queue of a Client's Session, which outlive the process if the Session does.
    pub(crate) fn set_queue_rules(
        &self,
        client_id: &str,
        rules: QueueRules,
        effects: &mut Effects,
    ) {
        let Some(session) = self.registry.find(client_id) else { return };
        let inbound = session.inbound();
        let is_known = session.outbound().own_queue().copied().unwrap_or_default() == rules;
        session.outbound().set_own_queue(rules);
        if !is_known && !inbound.ended && inbound.is_durable() {
            self.persist_queue(&session, effects);
        }
        self.submit_changes(effects);
        drop(inbound);
    }

    /// Writes what must be stored of a new Session.
    pub(crate) fn persist_new(
        &self,
        session: &Arc<Session>,
        inbound: &mut Inbound,
        effects: &mut Effects,
    ) {
        if inbound.is_durable() {
            self.persist_queue(session, effects);
            self.persist_session(session, inbound, effects);
        } else {
            self.persist_will(session, inbound, effects);
        }
    }

    /// Writes the record of a durable Session.
    pub(crate) fn persist_session(
        &self,
        session: &Arc<Session>,
        inbound: &mut Inbound,
        effects: &mut Effects,
    ) {
        let change = record(session, inbound);
        effects.persist(change, self.session_durability());
    }

    /// Stores the Will Message of a Session that ends with its Network Connection, in case the broker ends first.
    /// CONNACK does not wait for that, so it only costs a record in a group that is written anyway.
    fn persist_will(&self, session: &Arc<Session>, inbound: &mut Inbound, effects: &mut Effects) {
        // If the store is not available, pending changes would only pile up.
        if inbound.will.is_some() && self.store.state() == StoreState::Available {
            let change = record(session, inbound);
            effects.persist(change, Durability::Memory);
        }
    }
}

/// The record of a Session.
fn record(session: &Arc<Session>, inbound: &mut Inbound) -> SessionChange {
    inbound.has_record = true;
    SessionChange::Put(Box::new(SessionRecord {
        id: session.id(),
        client_id: Arc::clone(session.client_id()),
        epoch: inbound.epoch,
        expiry_seconds: inbound.expiry_seconds,
        disconnected: inbound.disconnected,
        sent_until: session.outbound().sent_until(),
        will: inbound.will.as_ref().map(|will| WillRecord {
            message: Arc::clone(&will.message),
            delay_seconds: will.delay_seconds,
        }),
        user_name: inbound.owner.to_record(),
    }))
}
