//! Interned recipient lists, each used by many plans. Gateways publish to thousands of topics that the same thousands of Clients
//! subscribe to, so equal lists exist once for all topics and publishers.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use hashbrown::HashTable;
use parking_lot::Mutex;

use crate::broker::route::Recipient;
use crate::session::group::Group;

/// Shorter lists are not interned: finding an equal one costs more than it saves.
const INTERNED_ABOVE: usize = 8;

/// The recipients of the messages of one topic.
pub(super) enum Recipients {
    Few(List),
    Many(Arc<InternedList>),
}

/// Sessions in order of their number, and groups.
#[derive(Default)]
pub(super) struct List {
    sessions: Vec<Recipient>,
    groups: Vec<Arc<Group>>,
}

/// An interned list. Removed with the last plan that uses it.
pub(super) struct InternedList {
    list: List,
    hash: u64,
    bytes: usize,
    home: Arc<InternedLists>,
}

/// All interned lists, and their size.
#[derive(Default)]
pub(crate) struct InternedLists {
    /// By hash, which is long and secret: two lists have the same hash only briefly, while one is being removed.
    known: Mutex<HashTable<(u64, Weak<InternedList>)>>,
    hasher: foldhash::quality::RandomState,
    bytes: AtomicUsize,
}

impl Recipients {
    /// The Sessions.
    #[inline]
    pub(super) fn sessions(&self) -> &[Recipient] {
        match self {
            Self::Few(list) => &list.sessions,
            Self::Many(interned) => &interned.list.sessions,
        }
    }

    /// The groups of Shared Subscriptions.
    #[inline]
    pub(super) fn groups(&self) -> &[Arc<Group>] {
        match self {
            Self::Few(list) => &list.groups,
            Self::Many(interned) => &interned.list.groups,
        }
    }

    /// Bytes that only this plan takes for it.
    pub(super) fn own_bytes(&self) -> usize {
        match self {
            Self::Few(list) => list.bytes(),
            Self::Many(_) => 0,
        }
    }
}

impl List {
    fn bytes(&self) -> usize {
        let ids: usize = self.sessions.iter().map(Recipient::heap_bytes).sum();
        size_of_val(&*self.sessions) + size_of_val(&*self.groups) + ids
    }

    fn is_same(&self, other: &Self) -> bool {
        self.sessions == other.sessions && self.groups == other.groups
    }
}

impl InternedLists {
    /// Bytes that all interned lists take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Recipients of one topic. `sessions` are in order.
    pub(super) fn list(
        self: &Arc<Self>,
        sessions: Vec<Recipient>,
        groups: Vec<Arc<Group>>,
    ) -> Recipients {
        let list = List { sessions, groups };
        if list.sessions.len() + list.groups.len() <= INTERNED_ABOVE {
            return Recipients::Few(list);
        }
        let hash = self.hash(&list);
        // Compared and perhaps dropped only after the lock is released, because dropping needs the lock.
        let known = self.known.lock();
        let found = known.find(hash, |(known, _)| *known == hash);
        let found = found.and_then(|(_, found)| found.upgrade());
        drop(known);
        if let Some(found) = found
            && found.list.is_same(&list)
        {
            return Recipients::Many(found);
        }
        let bytes = list.bytes() + size_of::<InternedList>();
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let interned = Arc::new(InternedList { list, hash, bytes, home: Arc::clone(self) });
        let entry = (hash, Arc::downgrade(&interned));
        self.known.lock().insert_unique(hash, entry, |(hash, _)| *hash);
        Recipients::Many(interned)
    }

    fn hash(&self, list: &List) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        list.sessions.iter().for_each(|recipient| recipient.hash(&mut hasher));
        list.groups.iter().for_each(|group| group.id().hash(&mut hasher));
        hasher.finish()
    }
}

impl Drop for InternedList {
    fn drop(&mut self) {
        self.home.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        let mut known = self.home.known.lock();
        let is_mine = |(hash, weak): &(u64, Weak<Self>)| {
            *hash == self.hash && std::ptr::eq(weak.as_ptr(), &raw const *self)
        };
        if let Ok(entry) = known.find_entry(self.hash, is_mine) {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::route::tests::recipients;

    fn many(lists: &Arc<InternedLists>, count: u64) -> Recipients {
        lists.list(recipients(count), Vec::new())
    }

    /// There is one list for all topics and publishers, and none when it is no longer used.
    #[test]
    fn equal_lists_exist_once() {
        let lists = Arc::new(InternedLists::default());
        let few = many(&lists, INTERNED_ABOVE as u64);
        assert!(matches!(few, Recipients::Few(_)));
        assert_eq!((lists.bytes(), few.sessions().len()), (0, INTERNED_ABOVE));
        let first = many(&lists, 1_000);
        let bytes = lists.bytes();
        assert!(bytes >= 1_000 * size_of::<Recipient>() && first.own_bytes() == 0);
        let others: Vec<_> = (0..100).map(|_| many(&lists, 1_000)).collect();
        assert_eq!(lists.bytes(), bytes);
        assert!(others.iter().all(|other| other.sessions().as_ptr() == first.sessions().as_ptr()));
        let other = many(&lists, 1_001);
        assert!(lists.bytes() > 2 * bytes);
        drop((first, others, other));
        assert_eq!((lists.bytes(), lists.known.lock().len()), (0, 0));
    }
}
