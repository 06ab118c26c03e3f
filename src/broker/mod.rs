//! All Sessions of this node: connections, Subscriptions, Retained Messages.
//!
//! The broker only routes. It does no IO: [`connection::ClientConnection`] takes bytes and time as input and returns
//! bytes and [`Effects`]; the shell (`net::connection`) moves them.

pub mod connection;
mod ended;
pub mod limits;
pub(crate) mod load;
pub(crate) mod neighbours;
mod recipients;
pub mod registry;
pub(crate) mod retained;
pub(crate) mod route;
pub(crate) mod session_end;
pub(crate) mod subscriptions;
pub(crate) mod timers;
mod wills;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use hashbrown::HashMap;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use crate::access::{Authority, Client};
use crate::broker::connection::{PlanBudget, PlanRoom};
use crate::broker::ended::Ended;
use crate::broker::limits::Limits;
use crate::broker::neighbours::Neighbours;
use crate::broker::recipients::InternedLists;
use crate::broker::registry::Registry;
use crate::broker::route::Destination;
use crate::broker::timers::Timers;
use crate::broker::wills::LostWills;
use crate::durable::change::{Change, RetainedChange};
use crate::durable::message::{Issuer, Message, MessageHeader, MessageId, SessionId, Timestamp};
use crate::durable::{Durability, Store, Ticket};
use crate::packet::QoS;
use crate::session::access_rights::AccessRights;
use crate::session::effects::Effects;
use crate::session::group::{Group, GroupTerms};
use crate::session::inbound::Inbound;
use crate::session::outbound::Persistence;
use crate::session::publication::Publication;
use crate::session::queue::{Queue, Total};
use crate::topic::filter::TopicFilter;
use crate::topic::fingerprint::TopicHash;
use crate::topic::retained_tree::RetainedTree;
use crate::topic::subscription_tree::SubscriptionTree;

/// If a Session has more Subscriptions, a change of its rights outdates all plans.
const MAX_OUTDATED_FILTERS: usize = 64;

/// The coordinator.
pub struct Broker {
    limits: Limits,
    store: Arc<dyn Store>,
    authority: Arc<dyn Authority>,
    registry: Registry,
    tree: SubscriptionTree<Destination>,
    groups: Mutex<HashMap<Arc<str>, Arc<Group>>>,
    retained: RetainedTree<Arc<Message>>,
    timers: Timers,
    next_session: AtomicU64,
    issuer: Issuer,
    internal_messages: AtomicU64,
    is_draining: AtomicBool,
    is_over_total: AtomicBool,
    figures: Figures,
    neighbours: OnceLock<Box<dyn Neighbours>>,
    secret: OnceLock<[u8; 32]>,
    recipient_lists: Arc<InternedLists>,
    plan_budget: Arc<PlanBudget>,
    access_revision: AtomicU64,
    /// Whether the authority limits what Clients may do with topics.
    has_rules: bool,
    ended: Ended,
    /// Held while changes to Retained Messages are submitted.
    retained_order: Mutex<()>,
    lost_wills: LostWills,
}

/// Metrics of the core, in addition to the tallies of its connections.
#[derive(Debug, Default)]
pub struct Figures {
    /// Clients connected now.
    pub connected: AtomicU64,
    /// Most Clients ever connected at once.
    pub(crate) connected_max: AtomicU64,
    /// Sessions that ended because their expiry interval passed.
    pub(crate) sessions_expired: AtomicU64,
    /// Subscriptions.
    pub(crate) subscriptions: AtomicU64,
    /// Shared Subscriptions among them.
    pub(crate) shared_subscriptions: AtomicU64,
}

impl Broker {
    /// The limits.
    #[must_use]
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The authority.
    #[must_use]
    pub fn authority(&self) -> &Arc<dyn Authority> {
        &self.authority
    }

    /// All Sessions.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The Retained Messages.
    #[must_use]
    pub fn retained(&self) -> &RetainedTree<Arc<Message>> {
        &self.retained
    }

    /// The budget for cached plans beyond the few of each connection.
    pub(crate) fn plan_budget(&self) -> &Arc<PlanBudget> {
        &self.plan_budget
    }

    /// Whether one more plan may be kept.
    pub(crate) fn plan_room(&self) -> PlanRoom {
        let bytes = self.plan_budget.bytes() + self.recipient_lists.bytes();
        if bytes < self.limits.max_plan_bytes { PlanRoom::Free } else { PlanRoom::Full }
    }

    /// Its metrics.
    #[must_use]
    pub fn figures(&self) -> &Figures {
        &self.figures
    }

    /// Counts a Session that got a Network Connection; whoever removes it counts down.
    pub(crate) fn count_connected(&self) {
        let connected = self.figures.connected.fetch_add(1, Ordering::Relaxed) + 1;
        self.figures.connected_max.fetch_max(connected, Ordering::Relaxed);
    }

    /// Messages and bytes queued in Shared Subscription groups.
    #[must_use]
    pub(crate) fn group_backlog(&self) -> (u64, u64) {
        let groups: Vec<_> = self.groups.lock().values().cloned().collect();
        let queued = groups.iter().map(|group| group.queued());
        queued.fold((0, 0), |(messages, bytes), (more, more_bytes)| {
            (messages + more, bytes + more_bytes)
        })
    }

    /// The access revision, see [`Self::handle_access_change`].
    #[inline]
    #[must_use]
    pub(crate) fn access_revision(&self) -> u64 {
        self.access_revision.load(Ordering::Acquire)
    }

    /// Called when credentials or rules have changed: no plan made before is used again, and every connection checks
    /// whether its credentials are still valid.
    pub(crate) fn handle_access_change(&self) {
        let revision = self.authority.revision();
        if self.access_revision.swap(revision, Ordering::AcqRel) == revision {
            return;
        }
        self.tree.outdate("#");
        self.registry.for_each(|session| {
            let waker = session.outbound().signal();
            if let Some(waker) = waker {
                waker.wake();
            }
        });
    }

    /// The rights of a Client, if rules limit them.
    pub(crate) fn rights(&self, client: &Client<'_>) -> Option<Arc<dyn AccessRights>> {
        let rights = self.authority.rights(client)?;
        Some(rights as Arc<dyn AccessRights>)
    }

    /// Called when other rules than before apply to the Client of a Session.
    pub(crate) fn outdate_plans_of(&self, inbound: &Inbound) {
        if inbound.subscription_count() > MAX_OUTDATED_FILTERS {
            self.tree.outdate("#");
            return;
        }
        for place in inbound.subscriptions.iter() {
            self.tree.outdate(&self.tree.filter(place));
        }
    }

    /// From now on Clients are disconnected.
    pub(crate) fn begin_draining(&self) {
        self.is_draining.store(true, Ordering::Release);
    }

    /// Whether Clients are being disconnected.
    #[must_use]
    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Acquire)
    }

    /// Bytes in the queues of one part of all Sessions, see [`Registry::part`].
    #[must_use]
    pub fn queue_bytes_of_part(&self, part: usize) -> u64 {
        let sessions = self.registry.part(part);
        sessions.iter().map(|session| session.outbound().queue().message_bytes()).sum()
    }

    /// Compares the size of all queues together with its limit. The shell adds it up every few seconds, part by part:
    /// the limit protects the disk, and need not be exact.
    pub fn check_total_queue_bytes(&self, session_bytes: u64, max_bytes: u64) {
        let (_, group_bytes) = self.group_backlog();
        let bytes = session_bytes.saturating_add(group_bytes);
        self.is_over_total.store(bytes > max_bytes, Ordering::Relaxed);
    }

    /// Whether there is room for one more Session.
    #[must_use]
    pub(crate) fn has_room_for_session(&self) -> bool {
        self.registry.len() < self.limits.max_sessions
    }

    /// Bytes that all Subscriptions take.
    #[must_use]
    pub(crate) fn subscription_bytes(&self) -> usize {
        self.tree.allocated_bytes()
    }

    /// Whether all queues together are below their limit; if not, the overflow policies apply to new messages.
    #[inline]
    #[must_use]
    pub(crate) fn total(&self) -> Total {
        match self.is_over_total.load(Ordering::Relaxed) {
            true => Total::Full,
            false => Total::HasRoom,
        }
    }

    /// The terms on which groups accept messages of this topic.
    pub(crate) fn group_terms(&self, topic: &str) -> GroupTerms {
        let (durability, limits) = (self.limits.durability_of(topic), self.limits.queue_of(topic));
        GroupTerms { durability, limits, total: self.total() }
    }

    /// Publishes a message of the broker itself, such as a `$SYS` topic. It is retained, but in memory only,
    /// because it is published again after a restart.
    pub(crate) fn publish_internal(
        &self,
        topic: &str,
        payload: &[u8],
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let counter = self.internal_messages.fetch_add(1, Ordering::Relaxed);
        let header = MessageHeader {
            id: MessageId { publisher: self.issuer.session_id(0), counter },
            qos: QoS::AtMostOnce,
            retain: true,
            arrived: now,
            expires: None,
        };
        let mut publication = Publication::new(header, topic, &[], payload);
        if payload.is_empty() {
            let _removed = self.retained.remove(topic);
        } else if let Some(message) = publication.message() {
            let _replaced = self.retained.set(Arc::clone(message));
        }
        let plan = self.plan(topic, &TopicHash::of(topic), None);
        self.route(&plan, &mut publication, effects);
        self.carry_out(effects);
    }

    /// Sets, replaces or clears a Retained Message. [MQTT-3.3.1-5] [MQTT-3.3.1-6] False if there
    /// are too many.
    pub(crate) fn retain(&self, publication: &mut Publication<'_>, effects: &mut Effects) -> bool {
        let durability = self.limits.durability_of(publication.topic);
        if publication.payload.is_empty() {
            if self.retained.remove(publication.topic).is_some() {
                let change = RetainedChange::Delete(Arc::from(publication.topic));
                effects.persist_retained(change, durability);
            }
            return true;
        }
        if !self.has_room_to_retain(publication) {
            return false;
        }
        if let Some(message) = publication.message() {
            let message = Arc::clone(message);
            let _replaced = self.retained.set(Arc::clone(&message));
            effects.persist_retained(RetainedChange::Put(message), durability);
        }
        true
    }

    /// Carries out effects that no connected Client caused: submits and wakes, without throttling. Only counts are
    /// left.
    pub(crate) fn carry_out(&self, effects: &mut Effects) {
        effects.slow_nobody();
        self.submit_changes(effects);
        assert!(effects.is_carried_out(), "effects are left for somebody else");
    }

    /// Whether a message may be retained: a new one within both limits, one that replaces another
    /// unless it is larger and there is no room for the difference.
    fn has_room_to_retain(&self, publication: &Publication<'_>) -> bool {
        let limits = &self.limits;
        let bytes = self.retained.allocated_bytes();
        if bytes.saturating_add(publication.size_bytes()) <= limits.max_retained_bytes
            && self.retained.len() < limits.max_retained
        {
            return true;
        }
        let Some(replaced) = self.retained.get(publication.topic) else { return false };
        let grows_by = publication.size_bytes().saturating_sub(replaced.size_bytes());
        grows_by == 0 || bytes.saturating_add(grows_by) <= limits.max_retained_bytes
    }

    /// Submits collected changes to the store and wakes tasks. Returns the ticket of the batch, if there was one.
    pub(crate) fn submit_changes(&self, effects: &mut Effects) -> Option<Ticket> {
        let ticket = match std::mem::take(&mut effects.changes_retained) {
            true => self.submit_retained(effects),
            false => effects.take_batch().map(|batch| self.store.submit(batch)),
        };
        effects.wake();
        ticket
    }

    /// Submits changes that include Retained Messages. Of two publishers to one topic, the first may submit last, and the
    /// store would keep its message. So what is submitted is what the tree has now, by one thread at a time.
    fn submit_retained(&self, effects: &mut Effects) -> Option<Ticket> {
        let mut batch = effects.take_batch()?;
        let in_order = self.retained_order.lock();
        for change in &mut batch.changes {
            let Change::Retained(change) = change else { continue };
            *change = match self.retained.get(change.topic()) {
                Some(message) => RetainedChange::Put(message),
                None => RetainedChange::Delete(change.topic().into()),
            };
        }
        let ticket = self.store.submit(batch);
        drop(in_order);
        Some(ticket)
    }

    /// An id for a new Session or group.
    #[must_use]
    pub(crate) fn next_session_id(&self) -> SessionId {
        self.issuer.session_id(self.next_session.fetch_add(1, Ordering::Relaxed))
    }

    /// Sets the secret for assigned Client Identifiers; once, before any Client connects.
    pub(crate) fn set_secret(&self, secret: [u8; 32]) {
        // A second call would be a harmless bug: the first value stays.
        let _second = self.secret.set(secret);
    }

    /// A new number that cannot be guessed without the secret. If Sessions are not bound to users, knowing a Client
    /// Identifier is enough to interfere with a Session.
    pub(crate) fn unguessable_number(&self) -> u128 {
        let mut hash = Sha256::new();
        hash.update(self.secret.get().unwrap_or(&[0; 32]));
        hash.update(self.next_session_id().0.to_be_bytes());
        let hash: [u8; 32] = hash.finalize().into();
        let (number, _rest) = hash.split_first_chunk().unwrap_or((&[0; 16], &[]));
        u128::from_be_bytes(*number)
    }

    /// The number of the first message of a new or loaded Session.
    #[must_use]
    pub(crate) fn first_message(&self) -> u64 {
        self.issuer.first_message()
    }

    /// The group of this Shared Subscription, created if necessary.
    pub(crate) fn group(
        &self,
        full: &Arc<str>,
        filter: &TopicFilter,
        persistence: Persistence,
    ) -> Arc<Group> {
        let mut groups = self.groups.lock();
        if let Some(group) = groups.get(full) {
            return Arc::clone(group);
        }
        let queue = Queue::new(self.next_session_id());
        let group = Arc::new(Group::new(Arc::clone(full), filter.clone(), queue, persistence));
        groups.insert(Arc::clone(full), Arc::clone(&group));
        group
    }

    /// All groups by their number.
    pub(crate) fn groups_by_id(&self) -> HashMap<SessionId, Arc<Group>> {
        let groups = self.groups.lock();
        groups.values().map(|group| (group.id(), Arc::clone(group))).collect()
    }

    /// Removes a group that has ended.
    pub(crate) fn forget_group(&self, group: &Arc<Group>) {
        let mut groups = self.groups.lock();
        if groups.get(group.full()).is_some_and(|known| known.id() == group.id()) {
            groups.remove(group.full());
        }
        drop(groups);
        self.tree.unsubscribe(group.filter(), &Destination::Group(Arc::clone(group)));
    }

    /// The durability that the state of durable Sessions needs before it is acknowledged.
    #[must_use]
    pub(crate) fn session_durability(&self) -> Durability {
        self.limits.durability
    }
}
