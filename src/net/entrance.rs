//! Who may come in: places for Network Connections, and who gives way when there are too many.
//!
//! A Network Connection takes a place when it is accepted. Until its CONNECT has been answered with success it is a
//! *newcomer*. When the listener or the broker is full, a newcomer gives way to the next Network Connection: the oldest
//! of the address that has the most of them. So nobody keeps others out with sockets that say nothing.
//!
//! With nobody left to give way, the next one is a *guest*: it has no place, but its CONNECT is read. It is told in CONNACK that
//! the broker is full, unless it takes over the Network Connection of its own Session, whose place becomes free by
//! that. Guests are few, and give way in the same manner.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::task::AbortHandle;

use crate::metrics::counter::{Counter, Counters};

/// Guests of the broker at a time.
const MAX_GUESTS: usize = 64;
/// Network Connections that may wait at a time for their Clients to notice that they were sent away.
const MAX_FAREWELLS: usize = 256;
/// How often somebody may have to give way for one that comes in.
const MAX_ROUNDS: usize = 3;

/// Where Network Connections come from, as far as places are shared out: an IPv4 address, a network of IPv6 (64 bits),
/// or this machine by a Unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Source(u64);

impl From<Option<SocketAddr>> for Source {
    fn from(address: Option<SocketAddr>) -> Self {
        match address.map(|address| address.ip().to_canonical()) {
            None => Self(0),
            // Beside all networks of IPv6 that a Network Connection can come from.
            Some(IpAddr::V4(address)) => Self(u64::MAX << 32 | u64::from(address.to_bits())),
            Some(IpAddr::V6(address)) => Self(u64::try_from(address.to_bits() >> 64).unwrap_or(0)),
        }
    }
}

/// What is full, so that a Network Connection has no place.
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
    /// What counts those who were turned away for it.
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

    // Relaxed throughout: the number guards nothing but itself.
    fn enter(&self) -> bool {
        let is_full = self.used.fetch_add(1, Ordering::Relaxed) >= self.max;
        if is_full {
            self.leave();
        }
        !is_full
    }

    /// Takes a place whether there is one or not.
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

/// Those who may have to give way, in order of their arrival.
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
    /// Ends its task; unknown for the moment between its place and its task.
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

    /// It turned out to come from elsewhere.
    fn set_source(&mut self, number: u64, source: Source) {
        let Some(newcomer) = self.all.get_mut(&number) else { return };
        let before = std::mem::replace(&mut newcomer.source, source);
        self.unlink(number, before);
        self.link(number, source);
    }

    /// How many there are of `source`, or of the source that has the most.
    fn size(&self, source: Option<Source>) -> usize {
        match source {
            Some(source) => self.by_source.get(&source).map_or(0, BTreeSet::len),
            None => self.sizes.last().map_or(0, |(size, _)| *size),
        }
    }

    /// Takes out the oldest of `source`, or of the source that has the most.
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

/// What all listeners share.
pub(crate) struct House {
    room: Room,
    doors: Mutex<Vec<Arc<Door>>>,
    guests: Mutex<Crowd>,
    /// Places taken by each source, kept only where they are limited.
    sources: Mutex<HashMap<Source, usize>>,
    max_per_source: Option<usize>,
    farewells: AtomicUsize,
    counters: Counters,
}

/// Where the Network Connections of one listener come in.
pub(crate) struct Door {
    room: Room,
    newcomers: Mutex<Crowd>,
}

impl House {
    /// With a limit for all, and one for each source.
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

    /// The limit for all, and what is used of it.
    pub(crate) fn room(&self) -> &Room {
        &self.room
    }

    /// The entrance of one more listener, with a limit of its own.
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

    /// Takes a place of this source whether there is one or not.
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

/// The entrance of one listener; clones are the same.
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

    /// Lets a Network Connection in, with a place or as a guest. The task that will serve it is to be named to the second
    /// value: it is ended when it has to give way.
    pub(crate) fn enter(&self, address: Option<SocketAddr>) -> (Place, Watch) {
        let source = Source::from(address);
        let mut full = Full::Broker;
        // Each round somebody gives way; others may be faster to take what becomes free.
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

    /// Sends a newcomer away; false if there is none whose going would help.
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

/// Where the task that serves a Network Connection is named.
pub(crate) struct Watch {
    entrance: Entrance,
    standing: Standing,
}

impl Watch {
    /// This task is to be ended when its Network Connection has to give way.
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

/// What a Network Connection has of the room of its listener and of the broker. Given back on drop.
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
    /// It has given back what it had.
    Gone,
}

impl Place {
    /// What was full, if it has no place.
    #[must_use]
    pub fn full(&self) -> Option<Full> {
        match self.standing {
            Standing::Guest(_, full) => Some(full),
            Standing::Newcomer(_) | Standing::Settled | Standing::Gone => None,
        }
    }

    /// Its real address, where a proxy stands between.
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

    /// Its Client has been accepted: it gives way to nobody any more.
    pub fn settle(&mut self) {
        let Entrance { house, door } = &self.entrance;
        self.standing = match self.standing {
            Standing::Newcomer(number) => match door.newcomers.lock().remove(number) {
                Some(_) => Standing::Settled,
                // It had to give way a moment ago: its task ends.
                None => Standing::Gone,
            },
            Standing::Guest(number, _) => {
                house.guests.lock().remove(number);
                // The one that it took over from is leaving.
                door.room.squeeze_in();
                house.room.squeeze_in();
                house.squeeze_in_source(self.source);
                house.counters.add(Counter::ConnectionsAccepted, 1);
                Standing::Settled
            }
            standing @ (Standing::Settled | Standing::Gone) => standing,
        };
    }

    /// Gives back what it has, because all that is left to do is to wait for the Client to close; `None` if too many
    /// do so already.
    #[must_use]
    pub fn into_farewell(self) -> Option<Farewell> {
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

/// One that waits for its Client to notice that it was sent away.
pub struct Farewell {
    house: Arc<House>,
}

impl Drop for Farewell {
    fn drop(&mut self) {
        self.house.farewells.fetch_sub(1, Ordering::Relaxed);
    }
}
