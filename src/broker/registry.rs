//! Sessions by Client Identifier.

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use parking_lot::Mutex;

use crate::session::Session;

/// Independent parts, so that connecting Clients seldom meet.
const SHARDS: usize = 64;

type Shard = HashMap<Arc<str>, Arc<Session>, foldhash::fast::FixedState>;

/// All Sessions of this node.
pub struct Registry {
    shards: Vec<Mutex<Shard>>,
    hasher: foldhash::fast::FixedState,
}

impl Registry {
    /// No Sessions.
    #[must_use]
    pub fn new() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::new(Shard::default())).collect();
        Self { shards, hasher: foldhash::fast::FixedState::default() }
    }

    /// The Session of this Client, if there is one.
    #[must_use]
    pub fn find(&self, client_id: &str) -> Option<Arc<Session>> {
        self.shard(client_id)?.lock().get(client_id).cloned()
    }

    /// Adds a Session; false if its Client has one already.
    #[must_use]
    pub fn insert(&self, session: &Arc<Session>) -> bool {
        let Some(shard) = self.shard(session.client_id()) else { return false };
        match shard.lock().entry(Arc::clone(session.client_id())) {
            Entry::Occupied(_) => false,
            Entry::Vacant(vacant) => {
                vacant.insert(Arc::clone(session));
                true
            }
        }
    }

    /// Removes this very Session; another of the same Client stays.
    pub fn remove(&self, session: &Session) {
        let Some(shard) = self.shard(session.client_id()) else { return };
        let mut shard = shard.lock();
        if shard.get(session.client_id()).is_some_and(|known| known.id() == session.id()) {
            shard.remove(session.client_id());
        }
    }

    /// Number of Sessions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls `visit` with each Session, part by part, so that no lock is held for long.
    pub fn for_each(&self, mut visit: impl FnMut(&Arc<Session>)) {
        for shard in &self.shards {
            let sessions: Vec<_> = shard.lock().values().cloned().collect();
            sessions.iter().for_each(&mut visit);
        }
    }

    fn shard(&self, client_id: &str) -> Option<&Mutex<Shard>> {
        let hash = usize::try_from(self.hasher.hash_one(client_id) >> 32).unwrap_or(0);
        self.shards.get(hash % SHARDS)
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}
