//! Routing: finds the recipients of a Topic Name and delivers messages to them.

use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;
use tracing::debug;

use crate::broker::Broker;
use crate::broker::recipients::Recipients;
use crate::durable::Durability;
use crate::durable::message::{SessionId, Timestamp};
use crate::durable::record::OverflowPolicy;
use crate::packet::QoS;
use crate::session::Session;
use crate::session::effects::{Effects, Tally};
use crate::session::encoded_run::{ArrivedPackets, EncodedRun};
use crate::session::group::{Group, GroupTerms};
use crate::session::outbound::{DeliveryOutcome, Persistence, RunTerms, Terms};
use crate::session::policies::Trail;
use crate::session::publication::Publication;
use crate::session::queue::QueueLimits;
use crate::session::work::DELIVERIES_PER_STEP;
use crate::topic::fingerprint::{Fingerprint, TopicHash};
use crate::topic::subscription_tree::Match;

/// Steps of adding one match to a plan, and of a delivery to a group.
const STEPS_PER_MATCH: usize = 3;

/// The number of messages from which even a single recipient gets them together; fewer cost less one by one.
const TOGETHER_FROM: usize = 4;

/// A destination of messages, as stored in the tree of Subscriptions.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Destination {
    /// A Session.
    Session(Arc<Session>),
    /// A group of Shared Subscriptions.
    Group(Arc<Group>),
}

/// A Session that receives a message once, however many of its Subscriptions match: with their highest QoS and all
/// their Subscription Identifiers. [MQTT-3.3.4-2] [MQTT-3.3.4-3]
#[derive(PartialEq, Eq, Hash)]
pub(super) struct Recipient {
    session: Arc<Session>,
    qos: QoS,
    retain_as_published: bool,
    subscription_ids: SmallVec<[u32; 2]>,
}

/// The recipients of one Topic Name from one publisher, and how to treat its messages. Valid as long as the tree's
/// fingerprint for the topic does not change.
pub(crate) struct Plan {
    fingerprint: Fingerprint,
    recipients: Recipients,
    /// Steps spent on making it.
    pub(super) steps: usize,
    /// What its messages do without, for the counts.
    left_out: Option<Box<LeftOut>>,
    /// The durability that its messages need before they are acknowledged.
    pub(crate) durability: Durability,
    limits: QueueLimits,
}

/// What each message of a topic does without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct LeftOut {
    /// Subscription Identifiers that a message to all recipients does not carry.
    subscription_ids: usize,
    /// Sessions that subscribe to the topic and may not receive it.
    denied: usize,
}

/// The result of routing a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Routed {
    /// At least one Subscription matches.
    Matched,
    /// There is no matching Subscription. [MQTT-3.4.2-1]
    NoMatchingSubscribers,
    /// A queue is full, and its policy is to tell the publisher.
    Refused,
}

impl Broker {
    /// Makes the plan for a topic. `publisher` is left out where its Subscription has No Local. [MQTT-3.8.3-3]
    #[must_use]
    pub(crate) fn plan(&self, topic: &str, hash: &TopicHash, publisher: Option<SessionId>) -> Plan {
        // Taken before matching, so that a change in between makes the plan stale, not wrong.
        let fingerprint = self.tree.fingerprint(hash);
        let mut matches = Vec::new();
        let visited = self.tree.matches(topic, &mut matches);
        let steps = visited + matches.len() * STEPS_PER_MATCH;
        let mut recipients: Vec<Recipient> = Vec::new();
        let mut groups = Vec::new();
        let mut left_out = LeftOut::default();
        for found in matches {
            match &found.destination {
                Destination::Group(group) => groups.push(Arc::clone(group)),
                Destination::Session(session) => {
                    let is_own = Some(session.id()) == publisher;
                    if is_own && found.options.no_local {
                        continue;
                    }
                    if self.has_rules && !session.outbound().may_receive(topic) {
                        left_out.denied += 1;
                    } else {
                        recipients.push(Recipient::new(Arc::clone(session), &found));
                    }
                }
            }
        }
        recipients.sort_by_key(|recipient| recipient.session.id());
        recipients.dedup_by(|later, first| first.absorb(later));
        let limit_ids = |recipient: &mut Recipient| {
            recipient.limit_ids(self.limits.max_subscription_ids, topic)
        };
        left_out.subscription_ids = recipients.iter_mut().map(limit_ids).sum();
        let left_out = (left_out != LeftOut::default()).then(|| Box::new(left_out));
        let durability = self.limits.durability_of(topic);
        let limits = self.limits.queue_of(topic);
        let recipients = self.recipient_lists.list(recipients, groups);
        Plan { fingerprint, recipients, steps, left_out, durability, limits }
    }

    /// Whether `plan` is still valid.
    #[inline]
    #[must_use]
    pub(crate) fn is_current(&self, plan: &Plan, hash: &TopicHash) -> bool {
        self.tree.fingerprint(hash) == plan.fingerprint
    }

    /// Delivers a message to all recipients of the plan.
    pub(crate) fn route(
        &self,
        plan: &Plan,
        publication: &mut Publication<'_>,
        effects: &mut Effects,
    ) -> Routed {
        let mut routed = SmallVec::<[Routed; 1]>::new();
        self.route_run(plan, std::slice::from_mut(publication), None, &mut routed, effects);
        routed.first().copied().unwrap_or(Routed::NoMatchingSubscribers)
    }

    /// Delivers several messages of the plan's topic to all its recipients, locking each recipient once. `packets`
    /// are those that brought them, if they are plain; `routed` gets an entry for each message.
    pub(crate) fn route_run<R: smallvec::Array<Item = Routed>>(
        &self,
        plan: &Plan,
        publications: &mut [Publication<'_>],
        packets: Option<ArrivedPackets<'_>>,
        routed: &mut SmallVec<R>,
        effects: &mut Effects,
    ) {
        routed.resize(publications.len(), Routed::NoMatchingSubscribers);
        if let Some(left_out) = &plan.left_out {
            left_out.count(publications.len(), &mut effects.tally);
        }
        let (sessions, groups) = (plan.recipients.sessions(), plan.recipients.groups());
        let is_worth_sharing = publications.len() >= TOGETHER_FROM || sessions.len() > 1;
        let mut encoded =
            if is_worth_sharing { EncodedRun::of(publications, packets) } else { None };
        match sessions {
            [] => {}
            [only] if !is_worth_sharing => only.deliver(self, plan, publications, routed, effects),
            recipients => {
                let encoded = encoded.as_mut();
                self.route_together(recipients, plan, (publications, encoded), routed, effects);
            }
        }
        if !groups.is_empty() {
            self.route_to_groups(groups, plan, (publications, encoded.as_mut()), routed, effects);
        }
    }
}

impl Broker {
    /// Delivers messages to recipients, with the same bytes where possible.
    #[inline(never)]
    fn route_together(
        &self,
        recipients: &[Recipient],
        plan: &Plan,
        (publications, mut encoded): (&mut [Publication<'_>], Option<&mut EncodedRun<'_>>),
        routed: &mut [Routed],
        effects: &mut Effects,
    ) {
        effects.budget.spend(recipients.len() * publications.len() / DELIVERIES_PER_STEP);
        for recipient in recipients {
            if let Some(run) = &mut encoded
                && recipient.deliver_encoded(run, publications, effects)
            {
                for routed in &mut *routed {
                    *routed = routed.and(DeliveryOutcome::InOutbox);
                }
            } else {
                recipient.deliver(self, plan, publications, routed, effects);
            }
        }
    }

    /// Delivers messages to groups.
    #[inline(never)]
    fn route_to_groups(
        &self,
        groups: &[Arc<Group>],
        plan: &Plan,
        (publications, mut encoded): (&mut [Publication<'_>], Option<&mut EncodedRun<'_>>),
        routed: &mut [Routed],
        effects: &mut Effects,
    ) {
        effects.budget.spend(groups.len() * publications.len() * STEPS_PER_MATCH);
        for group in groups {
            let (durability, limits, total) = (plan.durability, plan.limits, self.total());
            let terms = GroupTerms { durability, limits, total };
            let mut report = |messages: Range<usize>, delivered| {
                for routed in routed.get_mut(messages).unwrap_or_default() {
                    *routed = routed.and(delivered);
                }
            };
            if let Some(run) = &mut encoded {
                group.deliver_run(publications, run, &terms, effects, report);
                continue;
            }
            for (index, publication) in publications.iter_mut().enumerate() {
                report(index..index + 1, group.deliver(publication, &terms, effects));
            }
        }
    }

    /// Reports messages that are about to leave, so that they are recognised if they come back.
    #[cold]
    fn note_leaving(&self, publications: &[Publication<'_>]) {
        let Some(neighbours) = self.neighbours() else { return };
        for publication in publications {
            neighbours.note_leaving(publication);
        }
    }
}

impl Plan {
    /// Whether any recipient's copy may have to be stored. That is so for every group.
    #[must_use]
    pub(crate) fn needs_store(&self) -> bool {
        let is_durable = |recipient: &Recipient| {
            recipient.session.outbound().persistence() == Persistence::Durable
        };
        !self.recipients.groups().is_empty() || self.recipients.sessions().iter().any(is_durable)
    }

    /// The number of Sessions.
    #[inline]
    pub(super) fn session_count(&self) -> usize {
        self.recipients.sessions().len()
    }

    /// Bytes that it takes, without interned lists.
    pub(super) fn own_bytes(&self) -> usize {
        size_of::<Self>() + self.recipients.own_bytes()
    }

    /// Whether the overflow policy is back-pressure.
    #[must_use]
    pub(crate) fn applies_backpressure(&self) -> bool {
        self.limits.policy == OverflowPolicy::Backpressure
    }
}

impl LeftOut {
    /// Counts it for so many messages.
    #[cold]
    fn count(self, messages: usize, tally: &mut Tally) {
        tally.subscription_ids_left_out += (self.subscription_ids * messages) as u64;
        tally.receive_denied += (self.denied * messages) as u64;
    }
}

impl Recipient {
    fn new(session: Arc<Session>, found: &Match<Destination>) -> Self {
        let subscription_ids = found.subscription_id.iter().map(|id| id.get()).collect();
        Self {
            session,
            qos: found.options.qos,
            retain_as_published: found.options.retain_as_published,
            subscription_ids,
        }
    }

    /// Bytes allocated for it alone.
    pub(super) fn heap_bytes(&self) -> usize {
        if self.subscription_ids.spilled() { self.subscription_ids.capacity() * 4 } else { 0 }
    }

    /// Merges another match of the same Session.
    fn absorb(&mut self, other: &Self) -> bool {
        if self.session.id() != other.session.id() {
            return false;
        }
        self.qos = self.qos.max(other.qos);
        self.retain_as_published |= other.retain_as_published;
        self.subscription_ids.extend_from_slice(&other.subscription_ids);
        true
    }

    /// Removes duplicate Subscription Identifiers and limits their number: a few bytes from a publisher must not become many
    /// thousand for each recipient with many overlapping Subscriptions. Returns how many were left out.
    fn limit_ids(&mut self, max: usize, topic: &str) -> usize {
        let ids = &mut self.subscription_ids;
        if ids.len() < 2 {
            return 0;
        }
        ids.sort_unstable();
        ids.dedup();
        let left_out = ids.len().saturating_sub(max);
        if left_out > 0 {
            let client_id = &**self.session.client_id();
            debug!(client_id, topic, left_out, "too many subscription identifiers match");
            ids.truncate(max);
            ids.shrink_to_fit();
        }
        left_out
    }

    /// Delivers a run to this recipient with the same bytes as to others; false if it needs its own.
    #[inline]
    fn deliver_encoded(
        &self,
        run: &mut EncodedRun<'_>,
        publications: &[Publication<'_>],
        effects: &mut Effects,
    ) -> bool {
        if !self.subscription_ids.is_empty() {
            return false;
        }
        if self.session.trail() == Trail::Lost {
            return false;
        }
        let mut outbound = self.session.outbound();
        let terms = RunTerms { qos: self.qos, messages: 0..publications.len(), group: None };
        if !outbound.deliver_encoded(run, publications, terms, effects) {
            return false;
        }
        let makes_wait = outbound.is_crowded() && outbound.makes_wait(arrival_time(publications));
        drop(outbound);
        if makes_wait {
            effects.crowded.push(Arc::clone(&self.session));
        }
        true
    }

    #[inline]
    fn deliver(
        &self,
        broker: &Broker,
        plan: &Plan,
        publications: &mut [Publication<'_>],
        routed: &mut [Routed],
        effects: &mut Effects,
    ) {
        let mut must_tell = false;
        // Before they can come back, and before taking a contended lock.
        if self.session.trail() == Trail::Lost {
            broker.note_leaving(publications);
        }
        let mut outbound = self.session.outbound();
        let total = broker.total();
        for (publication, routed) in publications.iter_mut().zip(routed) {
            let terms = Terms {
                qos: self.qos,
                retain: publication.retain && self.retain_as_published,
                subscription_ids: &self.subscription_ids,
                group: None,
                durability: plan.durability,
                limits: &plan.limits,
                total,
            };
            let delivered = outbound.deliver(publication, &terms, effects);
            must_tell |= delivered == DeliveryOutcome::QueuedUntilCommit;
            *routed = routed.and(delivered);
        }
        let makes_wait = outbound.is_crowded() && outbound.makes_wait(arrival_time(publications));
        drop(outbound);
        if makes_wait {
            effects.crowded.push(Arc::clone(&self.session));
        }
        if must_tell {
            effects.listeners.push(Arc::clone(&self.session) as Arc<_>);
        }
    }
}

/// When the run arrived.
#[cold]
fn arrival_time(publications: &[Publication<'_>]) -> Timestamp {
    publications.first().map_or(Timestamp(0), |publication| publication.arrived)
}

impl Routed {
    fn and(self, delivered: DeliveryOutcome) -> Self {
        match delivered {
            DeliveryOutcome::Refused => Self::Refused,
            DeliveryOutcome::InOutbox
            | DeliveryOutcome::Queued
            | DeliveryOutcome::QueuedUntilCommit
            | DeliveryOutcome::Dropped
            | DeliveryOutcome::Absent => match self {
                Self::Refused => Self::Refused,
                Self::Matched | Self::NoMatchingSubscribers => Self::Matched,
            },
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::session::inbound::Inbound;
    use crate::session::outbound::Outbound;
    use crate::session::queue::Queue;

    thread_local! {
        static SESSIONS: std::cell::RefCell<Vec<Arc<Session>>> = const { std::cell::RefCell::new(Vec::new()) };
    }

    /// So many recipients, always the same.
    pub(crate) fn recipients(count: u64) -> Vec<Recipient> {
        SESSIONS.with_borrow_mut(|sessions| {
            while (sessions.len() as u64) < count {
                let id = SessionId(sessions.len() as u64 + 1);
                let inbound = Inbound::new(0);
                let outbound = Outbound::new(Persistence::Transient, Queue::new(id));
                sessions.push(Arc::new(Session::new("a".into(), inbound, outbound)));
            }
            let count = usize::try_from(count).unwrap();
            let recipient = |session: &Arc<Session>| Recipient {
                session: Arc::clone(session),
                qos: QoS::AtMostOnce,
                retain_as_published: false,
                subscription_ids: SmallVec::new(),
            };
            sessions[..count].iter().map(recipient).collect()
        })
    }
}
