//! The deadlines of connections: Keep Alive and the connect timeout. One table for all of them instead of a timer
//! each takes a fifth of the memory and costs nothing per poll; in return a deadline is noticed up to a [`TICK`]
//! late.

use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval};

use crate::durable::message::Timestamp;
use crate::store::clock::BrokerClock;

/// How often the table is checked.
pub(crate) const TICK: Duration = Duration::from_millis(250);
/// Independent parts, so that connecting Clients rarely contend.
const SHARDS: u32 = 16;
/// The time of a place without deadline.
const NEVER: Timestamp = Timestamp(u64::MAX);

/// The deadlines of all connections.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    shards: [Mutex<Shard>; SHARDS as usize],
}

/// Times and wakers are separate, because a tick reads all times but very few wakers.
#[derive(Debug, Default)]
struct Shard {
    due: Vec<Timestamp>,
    wakers: Vec<Option<Waker>>,
    free: Vec<u32>,
}

/// A connection's place in the table. It must be given back to [`Deadlines::remove`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeadlineSlot(u32);

impl Deadlines {
    /// Takes a place: `waker` is woken when `due` has come.
    pub(crate) fn add(&self, due: Timestamp, waker: &Waker) -> DeadlineSlot {
        // Tasks are distributed by their address, without the lowest bits, which are the same for all.
        let shard_index = u32::try_from(waker.data().addr() >> 7 & 0xFFFF).unwrap_or(0) % SHARDS;
        let mut shard = self.shards[shard_index as usize].lock();
        let index = shard.free.pop().unwrap_or_else(|| {
            shard.due.push(NEVER);
            shard.wakers.push(None);
            // There are fewer open files than this.
            u32::try_from(shard.due.len() - 1).unwrap_or(u32::MAX)
        });
        shard.due[index as usize] = due;
        shard.wakers[index as usize] = Some(waker.clone());
        DeadlineSlot(index * SHARDS + shard_index)
    }

    /// Sets another time for a place.
    pub(crate) fn set(&self, place: DeadlineSlot, due: Timestamp) {
        let (shard, index) = self.locate(place);
        shard.lock().due[index] = due;
    }

    /// Gives a place back.
    pub(crate) fn remove(&self, place: DeadlineSlot) {
        let (shard, index) = self.locate(place);
        let mut shard = shard.lock();
        shard.due[index] = NEVER;
        shard.free.push(place.0 / SHARDS);
        let waker = shard.wakers[index].take();
        // This may drop the last reference to a task, so release the lock first.
        drop(shard);
        drop(waker);
    }

    /// Wakes every connection whose deadline has passed, once.
    pub(crate) fn wake_due(&self, now: Timestamp) {
        let mut woken = Vec::new();
        for shard in &self.shards {
            let mut shard = shard.lock();
            let Shard { due, wakers, .. } = &mut *shard;
            for (due, waker) in due.iter_mut().zip(wakers) {
                if *due <= now {
                    *due = NEVER;
                    woken.extend(waker.clone());
                }
            }
        }
        woken.into_iter().for_each(Waker::wake);
    }

    /// Checks the table for as long as the future lives.
    pub(crate) async fn run(&self, clock: BrokerClock) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.wake_due(clock.now());
        }
    }

    fn locate(&self, place: DeadlineSlot) -> (&Mutex<Shard>, usize) {
        (&self.shards[(place.0 % SHARDS) as usize], (place.0 / SHARDS) as usize)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_deadline_wakes_once_and_a_place_is_used_again() {
        let deadlines = Deadlines::default();
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let count = || woken.0.load(Ordering::Relaxed);
        let first = deadlines.add(Timestamp(10), &waker);
        let second = deadlines.add(Timestamp(20), &waker);
        deadlines.wake_due(Timestamp(9));
        assert_eq!(count(), 0);
        deadlines.wake_due(Timestamp(15));
        deadlines.wake_due(Timestamp(15));
        assert_eq!(count(), 1);
        deadlines.set(first, Timestamp(30));
        deadlines.remove(second);
        deadlines.wake_due(Timestamp(25));
        assert_eq!(count(), 1, "a place given back wakes nobody");
        assert_eq!(deadlines.add(Timestamp(26), &waker), second);
        deadlines.wake_due(Timestamp(30));
        assert_eq!(count(), 3);
        deadlines.remove(first);
        deadlines.remove(second);
        drop(waker);
        assert_eq!(Arc::strong_count(&woken), 1, "no waker is kept");
    }
}
