//! The registry of Sessions by Client Identifier.

use std::collections::BinaryHeap;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use parking_lot::Mutex;

use crate::session::Session;

/// Independent parts, so that connecting Clients rarely contend.
const SHARDS: usize = 64;

/// Hashed with a random seed, because Clients choose their identifiers and could choose collisions.
type Shard = HashMap<Arc<str>, Arc<Session>, RandomState>;

/// All Sessions of this node.
pub struct Registry {
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
    count: AtomicUsize,
}

impl Registry {
    /// Creates an empty registry.
    #[must_use]
    pub(crate) fn new() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::new(Shard::default())).collect();
        Self { shards, hasher: RandomState::default(), count: AtomicUsize::new(0) }
    }

    /// The Session of this Client, if there is one.
    #[must_use]
    pub fn find(&self, client_id: &str) -> Option<Arc<Session>> {
        self.shard(client_id)?.lock().get(client_id).cloned()
    }

    /// Adds a Session; false if its Client already has one.
    #[must_use]
    pub(crate) fn insert(&self, session: &Arc<Session>) -> bool {
        let Some(shard) = self.shard(session.client_id()) else { return false };
        match shard.lock().entry(Arc::clone(session.client_id())) {
            Entry::Occupied(_) => false,
            Entry::Vacant(vacant) => {
                vacant.insert(Arc::clone(session));
                self.count.fetch_add(1, Ordering::Relaxed);
                true
            }
        }
    }

    /// Removes exactly this Session; another one of the same Client stays.
    pub(crate) fn remove(&self, session: &Session) {
        let Some(shard) = self.shard(session.client_id()) else { return };
        let mut shard = shard.lock();
        if shard.get(session.client_id()).is_some_and(|known| known.id() == session.id()) {
            shard.remove(session.client_id());
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Number of Sessions.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// At most `limit` Sessions whose Client Identifier begins with `prefix`, after that of `after`, and the start of the
    /// next page. Sessions are ordered by part, and by Client Identifier within each: a Session that exists during the whole
    /// listing is on exactly one page. Takes memory for one page, and one lock at a time.
    #[must_use]
    pub(crate) fn page(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> (Vec<Arc<Session>>, Option<Arc<str>>) {
        let mut found: Vec<Arc<Session>> = Vec::new();
        let first = after.map_or(0, |after| self.shard_index(after));
        for (index, shard) in self.shards.iter().enumerate().skip(first) {
            let behind = after.filter(|_| index == first);
            // The first ones of this part, the last of them on top.
            let mut smallest: BinaryHeap<Arc<str>> = BinaryHeap::new();
            let room = limit - found.len();
            let shard = shard.lock();
            for client_id in shard.keys() {
                if !client_id.starts_with(prefix) || behind.is_some_and(|last| **client_id <= *last)
                {
                    continue;
                }
                if smallest.len() < room {
                    smallest.push(Arc::clone(client_id));
                } else if smallest.peek().is_some_and(|last| client_id < last) {
                    smallest.pop();
                    smallest.push(Arc::clone(client_id));
                }
            }
            let wanted = smallest.into_sorted_vec();
            found.extend(wanted.iter().filter_map(|client_id| shard.get(client_id).cloned()));
            if found.len() >= limit {
                let next = found.last().map(|session| Arc::clone(session.client_id()));
                return (found, next);
            }
        }
        (found, None)
    }

    /// Calls `visit` with each Session, part by part, so that no lock is held for long. With a hundred thousand
    /// Sessions this takes many milliseconds, so a thread that serves Clients must iterate over the parts and yield
    /// in between.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(&Arc<Session>)) {
        for part in 0..Self::PARTS {
            self.part(part).iter().for_each(&mut visit);
        }
    }

    /// The number of parts.
    pub const PARTS: usize = SHARDS;

    /// The Sessions of one part: every Session is in one of them.
    #[must_use]
    pub(crate) fn part(&self, part: usize) -> Vec<Arc<Session>> {
        let shard = self.shards.get(part);
        shard.map(|shard| shard.lock().values().cloned().collect()).unwrap_or_default()
    }

    fn shard(&self, client_id: &str) -> Option<&Mutex<Shard>> {
        self.shards.get(self.shard_index(client_id))
    }

    fn shard_index(&self, client_id: &str) -> usize {
        usize::try_from(self.hasher.hash_one(client_id) >> 32).unwrap_or(0) % SHARDS
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::durable::message::SessionId;
    use crate::session::inbound::Inbound;
    use crate::session::outbound::{Outbound, Persistence};
    use crate::session::queue::Queue;

    fn session(id: u64, client_id: &str) -> Arc<Session> {
        let id = SessionId(id);
        let inbound = Inbound::new(0);
        let outbound = Outbound::new(Persistence::Durable, Queue::new(id));
        Arc::new(Session::new(Arc::from(client_id), inbound, outbound))
    }

    /// Clients choose their identifiers: if they knew the hash, they could choose ten thousand that all collide.
    #[test]
    fn each_registry_hashes_in_its_own_way() {
        let places = |registry: &Registry| -> Vec<_> {
            (0..100).map(|number| registry.shard_index(&format!("client-{number}"))).collect()
        };
        let order = || {
            let mut shard = Shard::default();
            for (id, client_id) in (0..).zip(["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"]) {
                shard.insert(Arc::from(client_id), session(id, client_id));
            }
            shard.into_keys().collect::<Vec<_>>()
        };
        assert_ne!(places(&Registry::new()), places(&Registry::new()));
        let first = order();
        assert!((0..20).any(|_| order() != first), "the order within a part");
    }

    fn read_all(registry: &Registry, prefix: &str, limit: usize) -> Vec<String> {
        let (mut all, mut after) = (Vec::new(), None::<Arc<str>>);
        loop {
            let (page, next) = registry.page(prefix, after.as_deref(), limit);
            assert!(page.len() <= limit);
            all.extend(page.iter().map(|session| session.client_id().to_string()));
            let Some(next) = next else { return all };
            after = Some(next);
        }
    }

    #[test]
    fn pages_hold_every_session_once() {
        let registry = Registry::new();
        let mut wanted: Vec<String> = (0..1000).map(|n| format!("client-{n}")).collect();
        wanted.push("another".to_owned());
        for (id, client_id) in (0..).zip(&wanted) {
            assert!(registry.insert(&session(id, client_id)));
        }
        wanted.sort();
        for limit in [1, 7, 64, 1001, 5000] {
            let mut all = read_all(&registry, "", limit);
            all.sort();
            assert_eq!(all, wanted, "{limit}");
        }
        assert_eq!(read_all(&registry, "client-", 10).len(), 1000);
        assert_eq!(read_all(&registry, "an", 10), ["another"]);
        assert_eq!(read_all(&registry, "none", 10), [""; 0]);
    }

    #[test]
    fn what_comes_and_goes_between_pages_moves_nobody_else() {
        let registry = Registry::new();
        for id in 0..200 {
            let _new = registry.insert(&session(id, &format!("stays-{id}")));
        }
        let (first, next) = registry.page("", None, 100);
        for id in 200..400 {
            let _new = registry.insert(&session(id, &format!("comes-{id}")));
        }
        registry.remove(&first[99]);
        let mut seen: Vec<_> =
            first.iter().map(|session| session.client_id().to_string()).collect();
        let (rest, end) = registry.page("", next.as_deref(), 1000);
        assert_eq!(end, None);
        seen.extend(rest.iter().map(|session| session.client_id().to_string()));
        seen.retain(|client_id| client_id.starts_with("stays-"));
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 200);
    }
}
