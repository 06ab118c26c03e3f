//! A Shared Subscription group: its members, which take turns, and the messages that wait for any of them.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

use parking_lot::{Mutex, MutexGuard};

use crate::durable::change::QueueChange;
use crate::durable::entry::QueueEntry;
use crate::durable::message::{SessionId, Timestamp};
use crate::durable::record::{QueueLifetime, QueueOwner, QueueRecord, QueueRules};
use crate::durable::{CommitListener, Durability};
use crate::packet::QoS;
use crate::packet::subscribe::SubscriptionOptions;
use crate::session::Session;
use crate::session::effects::{DropReason, Effects};
use crate::session::encoded_run::EncodedRun;
use crate::session::outbound::{DeliveryOutcome, Outbound, Persistence, RunTerms, Terms};
use crate::session::publication::Publication;
use crate::session::queue::{
    Admission, Keep, Page, PageRequest, Queue, QueueLimits, Queued, Spilled, Total, dequeue,
};
use crate::topic::filter::TopicFilter;

/// A group. A message goes to one member that is connected and has room; if there is none, it waits in the group's
/// own queue for the next member with room. [MQTT-4.8.2]
pub struct Group {
    id: SessionId,
    full: Arc<str>,
    filter: TopicFilter,
    state: Mutex<GroupState>,
    has_backlog: AtomicBool,
}

struct GroupState {
    members: Vec<Member>,
    next: usize,
    queue: Queue,
    /// The member whose Network Connection reads a page of the queue.
    page_reader: Option<SessionId>,
    persistence: Persistence,
    lifetime: QueueLifetime,
    rules: QueueRules,
    ended: bool,
}

struct Member {
    session: Arc<Session>,
    options: SubscriptionOptions,
    subscription_id: u32,
}

/// The terms on which a group accepts messages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GroupTerms {
    /// How safe a message must be before it counts as accepted.
    pub(crate) durability: Durability,
    /// Limits of queues.
    pub(crate) limits: QueueLimits,
    /// Whether all queues together have room.
    pub(crate) total: Total,
}

/// The result of [`Group::join`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JoinResult {
    /// It is a member.
    Member,
    /// It is a member, and made the group durable.
    MadeDurable,
    /// It is not: the group has ended.
    Ended,
}

impl Group {
    /// Creates a group without members.
    #[must_use]
    pub(crate) fn new(
        full: Arc<str>,
        filter: TopicFilter,
        queue: Queue,
        persistence: Persistence,
    ) -> Self {
        let id = queue.owner();
        let has_backlog = AtomicBool::new(!queue.is_empty());
        let state = GroupState {
            members: Vec::new(),
            next: 0,
            queue,
            page_reader: None,
            persistence,
            lifetime: QueueLifetime::OfMembers,
            rules: QueueRules::default(),
            ended: false,
        };
        Self { id, full, filter, state: Mutex::new(state), has_backlog }
    }

    /// Applies the record of its queue.
    #[must_use]
    pub(crate) fn with_record(mut self, record: &QueueRecord) -> Self {
        let state = self.state.get_mut();
        state.lifetime = record.lifetime;
        state.rules = record.rules;
        self
    }

    /// The record of its queue.
    #[must_use]
    pub(crate) fn record(&self) -> QueueRecord {
        let state = self.state.lock();
        QueueRecord {
            id: self.id,
            owner: QueueOwner::Group { filter: Arc::clone(&self.full) },
            lifetime: state.lifetime,
            rules: state.rules,
        }
    }

    /// Whether the group ends when it has no members. Some queues outlive their members.
    #[must_use]
    pub(crate) fn is_deserted(&self) -> bool {
        let state = self.state.lock();
        state.members.is_empty() && state.lifetime != QueueLifetime::UntilRemoved
    }

    /// Its permanent id.
    #[must_use]
    pub(crate) fn id(&self) -> SessionId {
        self.id
    }

    /// The Topic Filter in full, with `$share/…/`.
    #[must_use]
    pub(crate) fn full(&self) -> &Arc<str> {
        &self.full
    }

    /// The Topic Filter alone.
    #[must_use]
    pub(crate) fn filter(&self) -> &TopicFilter {
        &self.filter
    }

    /// Messages and bytes queued for a member.
    #[must_use]
    pub fn queued(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.queue.message_count(), state.queue.message_bytes())
    }

    /// Adds or replaces a member.
    pub(crate) fn join(
        &self,
        session: &Arc<Session>,
        options: SubscriptionOptions,
        subscription_id: u32,
        persistence: Persistence,
    ) -> JoinResult {
        let mut state = self.state.lock();
        if state.ended {
            return JoinResult::Ended;
        }
        let member = Member { session: Arc::clone(session), options, subscription_id };
        match state.members.iter_mut().find(|known| known.session.id() == session.id()) {
            Some(known) => *known = member,
            None => state.members.push(member),
        }
        match (persistence, state.persistence) {
            (Persistence::Durable, Persistence::Transient) => {
                state.persistence = Persistence::Durable;
                JoinResult::MadeDurable
            }
            (Persistence::Durable, Persistence::Durable) | (Persistence::Transient, _) => {
                JoinResult::Member
            }
        }
    }

    /// Removes a member; true if it was the last, and the group has ended with its queue.
    pub(crate) fn leave(&self, session: &Session, effects: &mut Effects) -> bool {
        let mut state = self.state.lock();
        state.members.retain(|member| member.session.id() != session.id());
        let stays = state.lifetime == QueueLifetime::UntilRemoved;
        if !state.members.is_empty() || stays || state.ended {
            state.give_up_page(session.id());
            effects.wakers.extend(state.signal_member());
            return false;
        }
        state.ended = true;
        let lost = state.queue.message_count();
        effects.tally.dropped[DropReason::SessionEnded as usize] += lost;
        effects.changes.push(QueueChange::Delete(self.id).into());
        true
    }

    /// Called when the Network Connection of a member has ended or was taken over: another member must do its pending
    /// work for the group.
    pub(crate) fn handle_absence(&self, session: SessionId, effects: &mut Effects) {
        let mut state = self.state.lock();
        state.give_up_page(session);
        effects.wakers.extend(state.signal_member());
    }

    /// Delivers to one member, or queues.
    pub(crate) fn deliver(
        self: &Arc<Self>,
        publication: &mut Publication<'_>,
        terms: &GroupTerms,
        effects: &mut Effects,
    ) -> DeliveryOutcome {
        let mut state = self.state.lock();
        if state.ended {
            return DeliveryOutcome::Absent;
        }
        // QoS 0 is not queued, so it need not wait for queued messages.
        if (state.queue.is_empty() || publication.qos == QoS::AtMostOnce)
            && let Some(delivered) = state.deliver_to_member(self.id, publication, terms, effects)
        {
            return delivered;
        }
        if publication.qos == QoS::AtMostOnce {
            return DeliveryOutcome::Absent;
        }
        let delivered = state.enqueue(self.id, publication, terms, effects);
        self.has_backlog.store(true, Ordering::SeqCst);
        match delivered {
            DeliveryOutcome::QueuedUntilCommit => {
                effects.listeners.push(Arc::clone(self) as Arc<_>);
            }
            // A member may have got room just before the message was queued.
            _ => effects.wakers.extend(state.signal_member()),
        }
        delivered
    }

    /// Delivers a run: in pieces to one member after the other, each about as long, as far as members take it with the
    /// same bytes; the rest message by message. Calls `report` for all messages, in order.
    pub(crate) fn deliver_run(
        self: &Arc<Self>,
        publications: &mut [Publication<'_>],
        run: &mut EncodedRun<'_>,
        terms: &GroupTerms,
        effects: &mut Effects,
        mut report: impl FnMut(Range<usize>, DeliveryOutcome),
    ) {
        let sent = self.state.lock().deliver_pieces(self.id, publications, run, effects);
        report(0..sent, DeliveryOutcome::InOutbox);
        for (index, publication) in publications.iter_mut().enumerate().skip(sent) {
            report(index..index + 1, self.deliver(publication, terms, effects));
        }
    }

    /// Delivers a message that `leaving` did not deliver, to another member or into the queue.
    pub(crate) fn deliver_again(
        self: &Arc<Self>,
        leaving: &Session,
        publication: &mut Publication<'_>,
        terms: &GroupTerms,
        effects: &mut Effects,
    ) -> DeliveryOutcome {
        let mut state = self.state.lock();
        state.members.retain(|member| member.session.id() != leaving.id());
        if state.members.is_empty() {
            effects.tally.drop_one(DropReason::SessionEnded);
            return DeliveryOutcome::Dropped;
        }
        drop(state);
        self.deliver(publication, terms, effects)
    }

    /// Whether messages wait for a member.
    #[inline]
    #[must_use]
    pub(crate) fn has_backlog(&self) -> bool {
        self.has_backlog.load(Ordering::SeqCst)
    }

    /// Gives queued messages to `session` as far as it has room, each on the terms of its own topic. A durable group hands on a
    /// message only once it is committed: otherwise, after a crash, a second member would get it when the publisher repeats it.
    pub(crate) fn drain_to(
        &self,
        session: &Arc<Session>,
        terms_of: impl Fn(&str) -> GroupTerms,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let mut state = self.state.lock();
        state.drain_to(self.id, session, terms_of, now, effects);
        self.has_backlog.store(!state.queue.is_empty(), Ordering::SeqCst);
    }

    /// Handles a page of its queue.
    pub(crate) fn handle_page(&self, request: PageRequest, page: Option<Page>) {
        let mut state = self.state.lock();
        state.queue.handle_page(request, page);
        state.page_reader = None;
        self.has_backlog.store(!state.queue.is_empty(), Ordering::SeqCst);
    }

    /// The number of members.
    #[must_use]
    pub(crate) fn member_count(&self) -> usize {
        self.state.lock().members.len()
    }
}

impl CommitListener for Group {
    fn handle_commit(&self) {
        let waker = self.state.lock().signal_member();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl GroupState {
    fn drain_to(
        &mut self,
        group: SessionId,
        session: &Arc<Session>,
        terms_of: impl Fn(&str) -> GroupTerms,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let position = self.members.iter().position(|member| member.session.id() == session.id());
        let Some(position) = position else { return };
        loop {
            if let Some(request) = self.queue.refill() {
                self.page_reader = Some(session.id());
                effects.pages.push(request);
            }
            let Some(Queued::Message(entry)) = self.queue.front() else { return };
            if self.persistence == Persistence::Durable && !entry.is_committed() {
                return;
            }
            let mut outbound = session.outbound();
            if !outbound.has_room() {
                drop(outbound);
                // One commit may release more messages than this member takes.
                effects.wakers.extend(self.signal_member());
                return;
            }
            let entry = Arc::clone(entry);
            if !outbound.may_receive(entry.message.topic()) {
                drop(outbound);
                if self.leave_to_reader(entry.message.topic(), effects) {
                    return;
                }
                self.queue.pop();
                effects.changes.extend(dequeue(group, &entry));
                effects.tally.drop_one(DropReason::AccessDenied);
                continue;
            }
            self.queue.pop();
            effects.changes.extend(dequeue(group, &entry));
            if entry.message.is_expired(now) {
                effects.tally.drop_one(DropReason::Expired);
                continue;
            }
            let mut publication = Publication::from_message(&entry.message);
            publication.qos = entry.qos;
            publication.retain = entry.retain;
            let Some(member) = self.members.get(position) else { return };
            let terms = terms_of(entry.message.topic());
            let terms = member.terms(&publication, group, &terms);
            if outbound.deliver(&mut publication, &terms, effects)
                == DeliveryOutcome::QueuedUntilCommit
            {
                effects.listeners.push(Arc::clone(session) as Arc<_>);
            }
        }
    }

    /// Leaves the first message to a member that may receive it, and signals one with room. False if no member may; otherwise
    /// the message waits, and so do those behind it.
    #[cold]
    fn leave_to_reader(&self, topic: &str, effects: &mut Effects) -> bool {
        let mut has_reader = false;
        for member in &self.members {
            let mut outbound = member.session.outbound();
            if outbound.may_receive(topic) {
                has_reader = true;
                if outbound.has_room() {
                    effects.wakers.extend(outbound.signal());
                    break;
                }
            }
        }
        has_reader
    }

    /// Signals one member with room to check the queue; returns its waker.
    fn signal_member(&self) -> Option<Waker> {
        if self.queue.is_empty() {
            return None;
        }
        self.members.iter().find_map(|member| {
            let mut outbound = member.session.outbound();
            outbound.has_room().then(|| outbound.signal()).flatten()
        })
    }

    /// Called when the page that this member was reading will not arrive.
    fn give_up_page(&mut self, session: SessionId) {
        if self.page_reader == Some(session) {
            self.page_reader = None;
            self.queue.give_up_page();
        }
    }

    /// Delivers to the next member that can take it; `None` if there is none.
    fn deliver_to_member(
        &mut self,
        group: SessionId,
        publication: &mut Publication<'_>,
        terms: &GroupTerms,
        effects: &mut Effects,
    ) -> Option<DeliveryOutcome> {
        let Self { members, next, .. } = self;
        let topic = publication.topic;
        let mut found =
            member_in_turn(members, *next, |member| member.has_room() && member.may_receive(topic));
        if found.is_none() && publication.qos == QoS::AtMostOnce {
            // Dropped and counted there, if its outbox is full.
            found = member_in_turn(members, *next, |member| {
                member.is_open() && member.may_receive(topic)
            });
        }
        let (index, member, mut outbound) = found?;
        *next = index + 1;
        let terms = member.terms(publication, group, terms);
        let delivered = outbound.deliver(publication, &terms, effects);
        if delivered == DeliveryOutcome::QueuedUntilCommit {
            effects.listeners.push(Arc::clone(&member.session) as Arc<_>);
        }
        Some(delivered)
    }

    /// Delivers a run in pieces; returns the number of messages delivered.
    fn deliver_pieces(
        &mut self,
        group: SessionId,
        publications: &[Publication<'_>],
        run: &mut EncodedRun<'_>,
        effects: &mut Effects,
    ) -> usize {
        let Self { members, next, .. } = self;
        // As many to each as if they took turns, but together.
        let piece = publications.len().div_ceil(members.len().max(1));
        if self.ended || !self.queue.is_empty() || piece < 2 {
            return 0;
        }
        let Some(topic) = publications.first().map(|first| first.topic) else { return 0 };
        let mut sent = 0;
        while sent < publications.len() {
            let found = member_in_turn(members, *next, |member| {
                member.has_room() && member.may_receive(topic)
            });
            let Some((index, member, mut outbound)) = found else { break };
            let messages = sent..publications.len().min(sent + piece);
            let end = messages.end;
            let terms = RunTerms { qos: member.options.qos, messages, group: Some(group) };
            // Packets of QoS 0 are not cut into pieces.
            let needs_own =
                member.subscription_id > 0 || run.qos(member.options.qos) == QoS::AtMostOnce;
            if needs_own || !outbound.deliver_encoded(run, publications, terms, effects) {
                break;
            }
            *next = index + 1;
            sent = end;
        }
        sent
    }

    fn enqueue(
        &mut self,
        group: SessionId,
        publication: &mut Publication<'_>,
        terms: &GroupTerms,
        effects: &mut Effects,
    ) -> DeliveryOutcome {
        let limits = terms.limits.under(&self.rules);
        match self.queue.admit(publication.size_bytes(), &limits, terms.total, effects) {
            Admission::Admitted => {}
            Admission::Dropped => return DeliveryOutcome::Dropped,
            Admission::Refused => return DeliveryOutcome::Refused,
        }
        let (qos, retain) = (publication.qos, publication.retain);
        let Some(message) = publication.message() else { return DeliveryOutcome::Dropped };
        let sequence = self.queue.take_place();
        let mut entry = QueueEntry::new(sequence, Arc::clone(message), qos);
        entry.retain = retain;
        let entry = Arc::new(entry);
        let is_open = self.members.iter().any(|member| member.session.outbound().is_open());
        let keep = if is_open { Keep::InMemory } else { Keep::InStore };
        let spilled = self.queue.push(Arc::clone(&entry), keep);
        let durability = match self.persistence {
            Persistence::Durable => terms.durability,
            Persistence::Transient if spilled == Spilled::No => return DeliveryOutcome::Queued,
            Persistence::Transient => Durability::Memory,
        };
        effects.persist(QueueChange::Enqueue { queue: group, entry }, durability);
        match self.persistence {
            Persistence::Durable => DeliveryOutcome::QueuedUntilCommit,
            Persistence::Transient => DeliveryOutcome::Queued,
        }
    }
}

/// The first member from `next` on that satisfies the condition, with its lock held.
fn member_in_turn(
    members: &[Member],
    next: usize,
    is_suitable: impl Fn(&Outbound) -> bool,
) -> Option<(usize, &Member, MutexGuard<'_, Outbound>)> {
    (0..members.len()).find_map(|offset| {
        let index = (next + offset) % members.len();
        let member = members.get(index)?;
        let outbound = member.session.outbound();
        is_suitable(&outbound).then_some((index, member, outbound))
    })
}

impl Member {
    fn terms<'a>(
        &'a self,
        publication: &Publication<'_>,
        group: SessionId,
        terms: &'a GroupTerms,
    ) -> Terms<'a> {
        let ids = std::slice::from_ref(&self.subscription_id);
        Terms {
            qos: self.options.qos,
            retain: publication.retain && self.options.retain_as_published,
            subscription_ids: if self.subscription_id == 0 { &[] } else { ids },
            group: Some(group),
            durability: terms.durability,
            limits: &terms.limits,
            total: terms.total,
        }
    }
}

impl PartialEq for Group {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Group {}

impl std::hash::Hash for Group {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group").field("id", &self.id).field("full", &self.full).finish()
    }
}
