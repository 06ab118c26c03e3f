//! The Shared Subscription groups of one Session. Most Clients have none, some one or two: a short list, or an index
//! by name and by number if there are more.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::durable::message::SessionId;
use crate::session::group::Group;

/// More groups than this are indexed.
const MAX_LISTED: usize = 8;

/// A set of groups. Takes eight bytes if empty.
#[derive(Default)]
pub struct Memberships(Option<Box<Joined>>);

#[derive(Default)]
struct Joined {
    groups: Vec<Arc<Group>>,
    /// Positions in the list; empty while the list is short.
    by_id: HashMap<SessionId, usize>,
    by_name: HashMap<Arc<str>, usize>,
}

impl Memberships {
    /// The number of groups.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |joined| joined.groups.len())
    }

    /// Whether there is none.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// All of them, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Group>> {
        self.0.iter().flat_map(|joined| joined.groups.iter())
    }

    /// The group of this Shared Subscription, by its Topic Filter in full.
    #[must_use]
    pub(crate) fn find(&self, full: &str) -> Option<&Arc<Group>> {
        let joined = self.0.as_ref()?;
        joined.groups.get(joined.position_of(full)?)
    }

    /// The group of this number.
    #[must_use]
    pub(crate) fn find_id(&self, id: SessionId) -> Option<&Arc<Group>> {
        let joined = self.0.as_ref()?;
        match joined.is_indexed() {
            true => joined.groups.get(*joined.by_id.get(&id)?),
            false => joined.groups.iter().find(|group| group.id() == id),
        }
    }

    /// Adds a group; false if it is there already.
    pub(crate) fn insert(&mut self, group: Arc<Group>) -> bool {
        if self.find_id(group.id()).is_some() {
            return false;
        }
        let joined = self.0.get_or_insert_default();
        joined.groups.push(group);
        let first_new = match joined.groups.len() {
            ..=MAX_LISTED => return true,
            // The list has just become too long to be searched.
            len if joined.by_id.is_empty() => len - MAX_LISTED - 1,
            len => len - 1,
        };
        for position in first_new..joined.groups.len() {
            let group = &joined.groups[position];
            joined.by_id.insert(group.id(), position);
            joined.by_name.insert(Arc::clone(group.full()), position);
        }
        true
    }

    /// Removes a group, by its full Topic Filter.
    pub(crate) fn remove(&mut self, full: &str) -> Option<Arc<Group>> {
        let joined = self.0.as_mut()?;
        let position = joined.position_of(full)?;
        Some(self.take(position))
    }

    /// Removes any one of them.
    pub(crate) fn pop(&mut self) -> Option<Arc<Group>> {
        let last = self.len().checked_sub(1)?;
        Some(self.take(last))
    }

    fn take(&mut self, position: usize) -> Arc<Group> {
        let joined = self.0.get_or_insert_default();
        let removed = joined.groups.swap_remove(position);
        if joined.is_indexed() {
            joined.by_id.remove(&removed.id());
            joined.by_name.remove(removed.full());
            if let Some(moved) = joined.groups.get(position) {
                joined.by_id.insert(moved.id(), position);
                joined.by_name.insert(Arc::clone(moved.full()), position);
            }
        }
        if joined.groups.is_empty() {
            self.0 = None;
        }
        removed
    }
}

impl Joined {
    /// Once indexed, it stays so until it is empty, so changes around the limit do not rebuild the index.
    fn is_indexed(&self) -> bool {
        !self.by_id.is_empty()
    }

    fn position_of(&self, full: &str) -> Option<usize> {
        match self.is_indexed() {
            true => self.by_name.get(full).copied(),
            false => self.groups.iter().position(|group| &**group.full() == full),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::outbound::Persistence;
    use crate::session::queue::Queue;
    use crate::topic::filter::TopicFilter;

    fn group(number: u64) -> Arc<Group> {
        let full: Arc<str> = format!("$share/g{number}/a").into();
        let filter = TopicFilter::parse("a").unwrap().filter;
        let queue = Queue::new(SessionId(number));
        Arc::new(Group::new(full, filter, queue, Persistence::Transient))
    }

    /// Found by both names, once each, on both sides of the step from list to index and back.
    #[test]
    fn a_list_and_an_index_behave_alike() {
        assert_eq!(size_of::<Memberships>(), 8);
        for count in [1, MAX_LISTED as u64, MAX_LISTED as u64 + 1, 300] {
            let mut memberships = Memberships::default();
            for number in 0..count {
                assert!(memberships.insert(group(number)));
                assert!(!memberships.insert(group(number)));
            }
            for removed in 0..count {
                assert_eq!(memberships.len() as u64, count - removed);
                assert_eq!(memberships.iter().count() as u64, count - removed);
                for number in 0..count {
                    let full = format!("$share/g{number}/a");
                    let found = memberships.find(&full).map(|group| group.id().0);
                    assert_eq!(found, (number >= removed).then_some(number));
                    assert_eq!(memberships.find_id(SessionId(number)).is_some(), number >= removed);
                }
                let full = format!("$share/g{removed}/a");
                assert_eq!(memberships.remove(&full).map(|group| group.id().0), Some(removed));
                assert!(memberships.remove(&full).is_none());
            }
            assert!(memberships.is_empty() && memberships.pop().is_none());
        }
    }
}
