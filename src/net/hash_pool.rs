//! Separate threads for password hashes, with fair scheduling.
//!
//! A password hash uses a core for some ten milliseconds, by design, and anybody who can open a connection can request
//! one. So hashes run on separate threads (at most half of the cores, with lower priority than everything else), with a
//! fair queue: addresses take turns, and within an address user names do. A flood of wrong passwords delays the next
//! login from another address, or of another user, by the hash in progress and one for each waiting address. If there is
//! no room, or no turn in time, the answer is Server busy.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Once};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Most hashes queued for each thread: what it can do in [`MAX_WAIT`]. Beyond that, the source with the most hashes
/// loses its newest one.
const MAX_WAITING: usize = 1024;

/// How long a hash may wait for its turn. Waiting longer than the connect timeout of most Clients is useless.
const MAX_WAIT: Duration = Duration::from_secs(20);

/// The nice value of the threads.
const NICENESS: i32 = 5;

/// The pool. Its threads are started with the first hash, and end with the last clone.
#[derive(Debug, Clone)]
pub(crate) struct HashPool {
    owner: Arc<Owner>,
}

/// Stops the threads when the last handle is gone.
#[derive(Debug)]
struct Owner {
    work_queue: Arc<WorkQueue>,
    start: Once,
    threads: usize,
}

#[derive(Debug)]
/// The queue between Clients and threads.
struct WorkQueue {
    state: Mutex<Queue>,
    arrived: Condvar,
}

#[derive(Debug)]
struct Queue {
    waiting: FairQueue<Work>,
    is_closed: bool,
}

struct Work(Box<dyn FnOnce() + Send>);

impl std::fmt::Debug for Work {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Work")
    }
}

impl Default for HashPool {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = (cores / 2).max(1);
        let queue = Queue { waiting: FairQueue::new(threads * MAX_WAITING), is_closed: false };
        let work_queue = Arc::new(WorkQueue { state: Mutex::new(queue), arrived: Condvar::new() });
        Self { owner: Arc::new(Owner { work_queue, start: Once::new(), threads }) }
    }
}

impl HashPool {
    /// Runs `work` when it is the turn of `address` and `user_name`; `None` if there is no room or no turn in time.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        address: Option<IpAddr>,
        user_name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (sender, receiver) = oneshot::channel();
        let work = move || {
            // Skip it if nobody waits for it any more: the Client has disconnected, or its time is over.
            if !sender.is_closed() {
                let _left_meanwhile = sender.send(work());
            }
        };
        self.submit(address, user_name, Work(Box::new(work)));
        timeout(MAX_WAIT, receiver).await.ok()?.ok()
    }

    fn submit(&self, address: Option<IpAddr>, user_name: &str, work: Work) {
        let Owner { work_queue, start, threads } = &*self.owner;
        start.call_once(|| {
            for number in 0..*threads {
                let work_queue = Arc::clone(work_queue);
                let thread = std::thread::Builder::new().name(format!("password-{number}"));
                if let Err(error) = thread.spawn(move || work_off(&work_queue)) {
                    tracing::error!(%error, "cannot start a thread for password hashing");
                }
            }
        });
        let refused = work_queue.state.lock().waiting.push(source(address), user_name, work);
        // Dropped outside the lock, because that notifies the waiting task.
        drop(refused);
        work_queue.arrived.notify_one();
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.work_queue.state.lock().is_closed = true;
        self.work_queue.arrived.notify_all();
    }
}

fn work_off(work_queue: &WorkQueue) {
    // On Linux this affects only the calling thread.
    if let Err(error) = rustix::process::nice(NICENESS) {
        tracing::debug!(%error, "cannot lower the priority of the threads for password hashing");
    }
    let mut queue = work_queue.state.lock();
    loop {
        if let Some(Work(work)) = queue.waiting.pop() {
            drop(queue);
            if catch_unwind(AssertUnwindSafe(work)).is_err() {
                tracing::error!("checking a password failed because of a bug");
            }
            queue = work_queue.state.lock();
        } else if queue.is_closed {
            return;
        } else {
            work_queue.arrived.wait(&mut queue);
        }
    }
}

/// The source of a Client: its address, or for IPv6 the part that is assigned to one site. All Unix sockets are one
/// source.
fn source(address: Option<IpAddr>) -> IpAddr {
    match address.map(|address| address.to_canonical()) {
        Some(IpAddr::V6(address)) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        Some(address) => address,
        None => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// A fair queue: sources take turns, and within a source user names do. A name without waiting items comes first in
/// its source, so many names from one address delay the next login as little as many attempts of one name.
#[derive(Debug)]
struct FairQueue<T> {
    hasher: RandomState,
    sources: HashMap<IpAddr, Source<T>>,
    turns: VecDeque<IpAddr>,
    len: usize,
    max_len: usize,
}

#[derive(Debug)]
struct Source<T> {
    names: HashMap<u64, VecDeque<T>>,
    turns: VecDeque<u64>,
    len: usize,
}

impl<T> Default for Source<T> {
    fn default() -> Self {
        Self { names: HashMap::new(), turns: VecDeque::new(), len: 0 }
    }
}

impl<T> FairQueue<T> {
    fn new(max_len: usize) -> Self {
        let (sources, turns) = (HashMap::new(), VecDeque::new());
        Self { hasher: RandomState::new(), sources, turns, len: 0, max_len }
    }

    /// Adds an item; if the queue is full, returns an item that was dropped.
    fn push(&mut self, source: IpAddr, user_name: &str, item: T) -> Option<T> {
        let name = self.hasher.hash_one(user_name);
        let entry = self.sources.entry(source).or_default();
        if entry.len == 0 {
            self.turns.push_back(source);
        }
        entry.push(name, item);
        self.len += 1;
        if self.len > self.max_len { self.drop_from_longest() } else { None }
    }

    fn pop(&mut self) -> Option<T> {
        let source = self.turns.pop_front()?;
        let entry = self.sources.get_mut(&source)?;
        let item = entry.pop();
        if entry.len > 0 {
            self.turns.push_back(source);
        } else {
            self.sources.remove(&source);
        }
        self.len -= usize::from(item.is_some());
        item
    }

    fn drop_from_longest(&mut self) -> Option<T> {
        let (source, entry) = self.sources.iter_mut().max_by_key(|(_, entry)| entry.len)?;
        let source = *source;
        let item = entry.drop_from_longest();
        if entry.len == 0 {
            self.sources.remove(&source);
            self.turns.retain(|turn| *turn != source);
        }
        self.len -= usize::from(item.is_some());
        item
    }
}

impl<T> Source<T> {
    fn push(&mut self, name: u64, item: T) {
        let waiting = self.names.entry(name).or_default();
        if waiting.is_empty() {
            self.turns.push_front(name);
        }
        waiting.push_back(item);
        self.len += 1;
    }

    fn pop(&mut self) -> Option<T> {
        let name = self.turns.pop_front()?;
        let waiting = self.names.get_mut(&name)?;
        let item = waiting.pop_front();
        if waiting.is_empty() {
            self.names.remove(&name);
        } else {
            self.turns.push_back(name);
        }
        self.len -= usize::from(item.is_some());
        item
    }

    /// Drops an item of the name with the most items; among several, the one whose turn is last.
    fn drop_from_longest(&mut self) -> Option<T> {
        let longest = |name: &&u64| self.names.get(*name).map_or(0, VecDeque::len);
        let name = *self.turns.iter().max_by_key(longest)?;
        let waiting = self.names.get_mut(&name)?;
        let item = waiting.pop_back();
        if waiting.is_empty() {
            self.names.remove(&name);
            self.turns.retain(|turn| *turn != name);
        }
        self.len -= usize::from(item.is_some());
        item
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn drain(queue: &mut FairQueue<(u8, usize)>) -> Vec<(u8, usize)> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn addresses_take_turns() {
        let mut queue = FairQueue::new(MAX_WAITING);
        for number in 0..100 {
            assert!(queue.push(address(1), "ann", (1, number)).is_none());
        }
        queue.push(address(2), "bob", (2, 0));
        queue.push(address(2), "bob", (2, 1));
        let order = drain(&mut queue);
        assert_eq!(order[..5], [(1, 0), (2, 0), (1, 1), (2, 1), (1, 2)]);
        assert_eq!(order.len(), 102);
        assert_eq!((queue.len, queue.sources.len(), queue.turns.len()), (0, 0, 0));
    }

    #[test]
    fn user_names_of_one_address_take_turns_and_a_new_one_comes_first() {
        let mut queue = FairQueue::new(MAX_WAITING);
        for number in 0..100 {
            queue.push(address(1), "ann", (1, number));
        }
        assert_eq!(queue.pop(), Some((1, 0)));
        queue.push(address(1), "bob", (2, 0));
        assert_eq!(queue.pop(), Some((2, 0)));
        for number in 0..100 {
            queue.push(address(1), &format!("nobody{number}"), (3, number));
        }
        queue.push(address(1), "bob", (2, 1));
        assert_eq!(queue.pop(), Some((2, 1)));
        assert_eq!(drain(&mut queue).len(), 199);
    }

    #[test]
    fn whoever_has_most_loses_what_finds_no_room() {
        let mut queue = FairQueue::new(MAX_WAITING);
        for number in 0..MAX_WAITING {
            assert!(queue.push(address(1), "ann", (1, number)).is_none());
        }
        assert_eq!(queue.push(address(2), "bob", (2, 0)), Some((1, MAX_WAITING - 1)));
        assert_eq!(queue.push(address(1), "cid", (3, 0)), Some((1, MAX_WAITING - 2)));
        let order = drain(&mut queue);
        assert_eq!(order.len(), MAX_WAITING);
        assert!(order[..4].contains(&(2, 0)) && order[..4].contains(&(3, 0)));
    }

    /// Endless new names from one address neither starve each other nor grow the queue without bound.
    #[test]
    fn names_without_end_are_bounded() {
        let mut queue = FairQueue::new(MAX_WAITING);
        for number in 0..3 * MAX_WAITING {
            queue.push(address(1), &format!("{number}"), (1, number));
        }
        assert_eq!(queue.len, MAX_WAITING);
        assert_eq!(drain(&mut queue).len(), MAX_WAITING);
        assert!(queue.sources.is_empty());
    }

    #[test]
    fn a_site_of_ipv6_is_one_source() {
        let address = |text: &str| source(Some(text.parse().unwrap()));
        assert_eq!(address("2001:db8:1:2::3"), address("2001:db8:1:2:ffff::4"));
        assert_ne!(address("2001:db8:1:2::3"), address("2001:db8:1:3::3"));
        assert_eq!(address("::ffff:192.0.2.1"), address("192.0.2.1"));
    }

    #[tokio::test]
    async fn work_is_done_on_threads_of_the_pool_and_a_panic_costs_one_answer() {
        let pool = HashPool::default();
        let name = || std::thread::current().name().map(str::to_owned);
        let found = pool.run(None, "ann", name).await.flatten();
        assert!(found.is_some_and(|name| name.starts_with("password-")));
        let bug = || -> u8 { std::panic::resume_unwind(Box::new(())) };
        assert_eq!(pool.run(None, "ann", bug).await, None);
        assert_eq!(pool.run(None, "ann", || 1).await, Some(1));
    }
}
