//! Limits on Network Connections: places, and which connection gives way when there are too many.
//!
//! A Network Connection takes a place when it is accepted. Until its CONNECT has been answered with success it is a
//! *newcomer*. When the listener or the broker is full, a newcomer gives way to the next Network Connection: the oldest
//! of the address that has the most of them. So silent sockets cannot keep others out.
//!
//! If no newcomer is left, the next connection is a *guest*: it has no place, but its CONNECT is read. Its CONNACK says that the
//! broker is full, unless it takes over the Network Connection of its own Session, whose place becomes free. Guests are few, and
//! give way in the same manner.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::task::AbortHandle;

use crate::metrics::counter::{Counter, Counters};

/// Most guests of the broker.
const MAX_GUESTS: usize = 64;
/// Most Network Connections that wait until their Clients notice that they were disconnected.
const MAX_FAREWELLS: usize = 256;
/// How many newcomers may have to give way for one new connection.
const MAX_ROUNDS: usize = 3;

/// The source of Network Connections, for sharing out places: an IPv4 address, an IPv6 /64 network, or this machine
/// through Unix sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Source(u64);

impl From<Option<SocketAddr>> for Source {
    fn from(address: Option<SocketAddr>) -> Self {
        match address.map(|address| address.ip().to_canonical()) {
            None => Self(0),
            // Outside the range of all IPv6 networks that a Network Connection can come from.
            Some(IpAddr::V4(address)) => Self(u64::MAX << 32 | u64::from(address.to_bits())),
            Some(IpAddr::V6(address)) => Self(u64::try_from(address.to_bits() >> 64).unwrap_or(0)),
        }
    }
}

/// Which limit leaves a Network Connection without a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The listener has its maximum.
    Listener,
    /// The broker has its maximum.
    Broker,
    /// The address has its maximum.
    Address,
}

impl Full {
    /// The counter for connections turned away because of it.
    #[must_use]
    pub(crate) const fn counter(self) -> Counter {
        match self {
            Self::Listener => Counter::TurnedAwayListenerFull,
            Self::Broker => Counter::TurnedAwayBrokerFull,
            Self::Address => Counter::TurnedAwayAddressFull,
        }
    }
}

/// Counts Network Connections against a limit.
#[derive(Debug)]
pub(crate) struct Room {
    used: AtomicUsize,
    max: usize,
}

impl Room {
    fn new(max: Option<usize>) -> Self {
        Self { used: AtomicUsize::new(0), max: max.unwrap_or(usize::MAX) }
    }

    // Relaxed throughout, because the number protects no other data.
    fn enter(&self) -> bool {
        let is_full = self.used.fetch_add(1, Ordering::Relaxed) >= self.max;
        if is_full {
            self.leave();
        }
        !is_full
    }

    /// Takes a place even beyond the limit.
    fn squeeze_in(&self) {
        self.used.fetch_add(1, Ordering::Relaxed);
    }

    fn leave(&self) {
        self.used.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// The connections that may have to give way, in order of arrival.
#[derive(Debug, Default)]
struct Crowd {
    next: u64,
    all: BTreeMap<u64, Newcomer>,
    by_source: HashMap<Source, BTreeSet<u64>>,
    /// The same again, the largest last.
    sizes: BTreeSet<(usize, Source)>,
}

#[derive(Debug)]
struct Newcomer {
    source: Source,
    /// Aborts its task; unknown between taking the place and starting the task.
    abort: Option<AbortHandle>,
}

impl Crowd {
    fn add(&mut self, source: Source, abort: Option<AbortHandle>) -> u64 {
        let number = self.next;
        self.next += 1;
        self.all.insert(number, Newcomer { source, abort });
        self.link(number, source);
        number
    }

    fn remove(&mut self, number: u64) -> Option<Newcomer> {
        let newcomer = self.all.remove(&number)?;
        self.unlink(number, newcomer.source);
        Some(newcomer)
    }

    /// Changes the source of a connection, which turned out to be another one.
    fn set_source(&mut self, number: u64, source: Source) {
        let Some(newcomer) = self.all.get_mut(&number) else { return };
        let before = std::mem::replace(&mut newcomer.source, source);
        self.unlink(number, before);
        self.link(number, source);
    }

    /// The number of connections of `source`, or of the source that has the most.
    fn size(&self, source: Option<Source>) -> usize {
        match source {
            Some(source) => self.by_source.get(&source).map_or(0, BTreeSet::len),
            None => self.sizes.last().map_or(0, |(size, _)| *size),
        }
    }

    /// Removes the oldest connection of `source`, or of the source that has the most.
    fn evict(&mut self, source: Option<Source>) -> Option<(Source, AbortHandle)> {
        let source = source.or(self.sizes.last().map(|(_, source)| *source))?;
        let numbers = self.by_source.get(&source)?;
        let known = |number: &&u64| self.all.get(number).is_some_and(|found| found.abort.is_some());
        let oldest = *numbers.iter().find(known)?;
        Some((source, self.remove(oldest)?.abort?))
    }

    fn link(&mut self, number: u64, source: Source) {
        let numbers = self.by_source.entry(source).or_default();
        self.sizes.remove(&(numbers.len(), source));
        numbers.insert(number);
        self.sizes.insert((numbers.len(), source));
    }

    fn unlink(&mut self, number: u64, source: Source) {
        let Some(numbers) = self.by_source.get_mut(&source) else { return };
        self.sizes.remove(&(numbers.len(), source));
        numbers.remove(&number);
        if numbers.is_empty() {
            self.by_source.remove(&source);
        } else {
            self.sizes.insert((numbers.len(), source));
        }
    }
}

/// State shared by all listeners.
pub(crate) struct House {
    room: Room,
    doors: Mutex<Vec<Arc<Door>>>,
    guests: Mutex<Crowd>,
    /// Places taken by each source, counted only if they are limited.
    sources: Mutex<HashMap<Source, usize>>,
    max_per_source: Option<usize>,
    farewells: AtomicUsize,
    counters: Counters,
}

/// The state of one listener.
pub(crate) struct Door {
    room: Room,
    newcomers: Mutex<Crowd>,
}

impl House {
    /// Creates it with a limit for all, and one for each source.
    pub(crate) fn new(
        max: Option<usize>,
        max_per_source: Option<usize>,
        counters: Counters,
    ) -> Arc<Self> {
        Arc::new(Self {
            room: Room::new(max),
            doors: Mutex::default(),
            guests: Mutex::default(),
            sources: Mutex::default(),
            max_per_source,
            farewells: AtomicUsize::new(0),
            counters,
        })
    }

    /// The limit for all, and its use.
    pub(crate) fn room(&self) -> &Room {
        &self.room
    }

    /// Adds the entrance of a listener, with its own limit.
    pub(crate) fn open(self: &Arc<Self>, max: Option<usize>) -> Entrance {
        let door = Arc::new(Door { room: Room::new(max), newcomers: Mutex::default() });
        self.doors.lock().push(Arc::clone(&door));
        Entrance { house: Arc::clone(self), door }
    }

    fn receive_guest(&self, full: Full, source: Source, task: Option<AbortHandle>) -> Standing {
        let mut guests = self.guests.lock();
        let leaving = if guests.all.len() >= MAX_GUESTS { guests.evict(None) } else { None };
        let number = guests.add(source, task);
        drop(guests);
        if let Some((_, abort)) = leaving {
            abort.abort();
        }
        Standing::Guest(number, full)
    }

    fn enter_source(&self, source: Source) -> bool {
        let Some(max) = self.max_per_source else { return true };
        let mut sources = self.sources.lock();
        let used = sources.entry(source).or_default();
        let has_room = *used < max;
        *used += usize::from(has_room);
        has_room
    }

    /// Takes a place of this source even beyond the limit.
    fn squeeze_in_source(&self, source: Source) {
        if self.max_per_source.is_some() {
            *self.sources.lock().entry(source).or_default() += 1;
        }
    }

    fn leave_source(&self, source: Source) {
        if self.max_per_source.is_none() {
            return;
        }
        let mut sources = self.sources.lock();
        if let Some(used) = sources.get_mut(&source) {
            *used = used.saturating_sub(1);
            if *used == 0 {
                sources.remove(&source);
            }
        }
    }
}

/// The entrance of one listener; clones share it.
#[derive(Clone)]
pub(crate) struct Entrance {
    house: Arc<House>,
    door: Arc<Door>,
}

impl Entrance {
    /// Of the listener.
    pub(crate) fn room(&self) -> &Room {
        &self.door.room
    }

    /// Admits a Network Connection, with a place or as a guest. The task that serves it must be passed to the returned
    /// [`Watch`], which aborts it when it has to give way.
    pub(crate) fn enter(&self, address: Option<SocketAddr>) -> (Place, Watch) {
        let source = Source::from(address);
        let mut full = Full::Broker;
        // In each round one newcomer gives way; others may be faster to take its place.
        for _ in 0..MAX_ROUNDS {
            match self.take(source) {
                Ok(()) => {
                    self.house.counters.add(Counter::ConnectionsAccepted, 1);
                    let number = self.door.newcomers.lock().add(source, None);
                    return self.place(source, Standing::Newcomer(number));
                }
                Err(reason) => full = reason,
            }
            if !self.make_room(full, source) {
                break;
            }
        }
        self.place(source, self.house.receive_guest(full, source, None))
    }

    fn place(&self, source: Source, standing: Standing) -> (Place, Watch) {
        let place = Place { entrance: self.clone(), source, standing };
        let watch = Watch { entrance: self.clone(), standing };
        (place, watch)
    }

    fn take(&self, source: Source) -> Result<(), Full> {
        if !self.house.enter_source(source) {
            return Err(Full::Address);
        }
        if !self.door.room.enter() {
            self.house.leave_source(source);
            return Err(Full::Listener);
        }
        if !self.house.room.enter() {
            self.door.room.leave();
            self.house.leave_source(source);
            return Err(Full::Broker);
        }
        Ok(())
    }

    /// Closes a newcomer; false if that would not help.
    fn make_room(&self, full: Full, source: Source) -> bool {
        let doors = match full {
            Full::Listener => vec![Arc::clone(&self.door)],
            Full::Broker | Full::Address => self.house.doors.lock().clone(),
        };
        let only = (full == Full::Address).then_some(source);
        let fullest = doors.iter().max_by_key(|door| door.newcomers.lock().size(only));
        let Some(door) = fullest else { return false };
        let evicted = door.newcomers.lock().evict(only);
        let Some((source, abort)) = evicted else { return false };
        leave(door, &self.house, source);
        self.house.counters.add(Counter::TurnedAwaySilent, 1);
        abort.abort();
        true
    }
}

fn leave(door: &Door, house: &House, source: Source) {
    door.room.leave();
    house.room.leave();
    house.leave_source(source);
}

/// Registers the task that serves a Network Connection.
pub(crate) struct Watch {
    entrance: Entrance,
    standing: Standing,
}

impl Watch {
    /// Sets the task to abort when its Network Connection has to give way.
    pub(crate) fn name(&self, task: AbortHandle) {
        let Entrance { house, door } = &self.entrance;
        let (mut crowd, number) = match self.standing {
            Standing::Newcomer(number) => (door.newcomers.lock(), number),
            Standing::Guest(number, _) => (house.guests.lock(), number),
            Standing::Settled | Standing::Gone => return,
        };
        if let Some(newcomer) = crowd.all.get_mut(&number) {
            newcomer.abort = Some(task);
        }
    }
}

/// The place of a Network Connection at its listener and in the broker. Released on drop.
pub struct Place {
    entrance: Entrance,
    source: Source,
    standing: Standing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It has a place, and may have to give way.
    Newcomer(u64),
    /// It has none, for this reason.
    Guest(u64, Full),
    /// It has a place for as long as it wants.
    Settled,
    /// It has released its place.
    Gone,
}

impl Place {
    /// Which limit was reached, if it has no place.
    #[must_use]
    pub fn full(&self) -> Option<Full> {
        match self.standing {
            Standing::Guest(_, full) => Some(full),
            Standing::Newcomer(_) | Standing::Settled | Standing::Gone => None,
        }
    }

    /// Sets its real address, if it came through a proxy.
    pub(crate) fn set_address(&mut self, address: SocketAddr) {
        let source = Source::from(Some(address));
        let Entrance { house, door } = &self.entrance;
        match self.standing {
            Standing::Newcomer(number) if house.enter_source(source) => {
                house.leave_source(self.source);
                door.newcomers.lock().set_source(number, source);
            }
            Standing::Newcomer(number) => {
                let newcomer = door.newcomers.lock().remove(number);
                self.standing = match newcomer {
                    Some(newcomer) => {
                        leave(door, house, self.source);
                        house.receive_guest(Full::Address, source, newcomer.abort)
                    }
                    None => Standing::Gone,
                };
            }
            Standing::Guest(number, _) => house.guests.lock().set_source(number, source),
            Standing::Settled | Standing::Gone => {}
        }
        self.source = source;
    }

    /// Called when its Client has been accepted: it no longer has to give way.
    pub fn settle(&mut self) {
        let Entrance { house, door } = &self.entrance;
        self.standing = match self.standing {
            Standing::Newcomer(number) => match door.newcomers.lock().remove(number) {
                Some(_) => Standing::Settled,
                // It had to give way a moment ago: its task is being aborted.
                None => Standing::Gone,
            },
            Standing::Guest(number, _) => {
                house.guests.lock().remove(number);
                // The connection that it took over is leaving.
                door.room.squeeze_in();
                house.room.squeeze_in();
                house.squeeze_in_source(self.source);
                house.counters.add(Counter::ConnectionsAccepted, 1);
                Standing::Settled
            }
            standing @ (Standing::Settled | Standing::Gone) => standing,
        };
    }

    /// Releases its place, because it only has to wait for the Client to close; `None` if too many connections wait
    /// already.
    #[must_use]
    pub(crate) fn into_farewell(self) -> Option<Farewell> {
        let house = Arc::clone(&self.entrance.house);
        drop(self);
        let is_full = house.farewells.fetch_add(1, Ordering::Relaxed) >= MAX_FAREWELLS;
        // Counts down on drop, in either case.
        let farewell = Farewell { house };
        (!is_full).then_some(farewell)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Entrance { house, door } = &self.entrance;
        match self.standing {
            Standing::Newcomer(number) => {
                if door.newcomers.lock().remove(number).is_some() {
                    leave(door, house, self.source);
                }
            }
            Standing::Guest(number, full) => {
                house.guests.lock().remove(number);
                house.counters.add(full.counter(), 1);
            }
            Standing::Settled => leave(door, house, self.source),
            Standing::Gone => {}
        }
    }
}

/// A connection that waits until its Client notices that it was disconnected.
pub(crate) struct Farewell {
    house: Arc<House>,
}

impl Drop for Farewell {
    fn drop(&mut self) {
        self.house.farewells.fetch_sub(1, Ordering::Relaxed);
    }
}
