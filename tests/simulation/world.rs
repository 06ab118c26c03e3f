//! The core, a faulty store and a faulty network under one random number: everything that happens follows from the seed.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

use petrel::access::{ListenerRules, Peer};
use petrel::auth::authority::DefaultAuthority;
use petrel::broker::Broker;
use petrel::broker::connection::{ClientConnection, Request};
use petrel::broker::limits::Limits;
use petrel::durable::message::Timestamp;
use petrel::durable::{Store, StoreState};
use petrel::packet::decode::{DecodeContext, Decoded, Sender, decode};
use petrel::session::effects::Effects;
use petrel::session::outbox::Outbox;
use petrel::session::queue::{Page, PageRequest};
use petrel::session::work::Budget;
use petrel::store::faulty::{Crash, FaultyStore, Honesty};
use petrel::store::image::Image;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::client::Client;
use crate::promises::{Promises, make_client};

const CLIENTS: usize = 6;
const STEPS: usize = 400;
/// Rounds without faults after which everything must have arrived.
const HEALING_ROUNDS: usize = 2_000;

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A Network Connection with bytes under way in both directions.
struct Link {
    connection: ClientConnection,
    writing: Outbox,
    unhandled: Vec<u8>,
    to_broker: VecDeque<u8>,
    to_client: VecDeque<u8>,
    received: Vec<u8>,
    /// Pages that are being read from the store.
    reads: VecDeque<PageRequest>,
    flag: Arc<Flag>,
    is_closed: bool,
}

pub(crate) struct World {
    rng: SmallRng,
    now: Timestamp,
    honesty: Honesty,
    store: Arc<FaultyStore>,
    broker: Arc<Broker>,
    clients: Vec<Client>,
    links: Vec<Option<Link>>,
    promises: Promises,
    effects: Effects,
    is_traced: bool,
}

impl World {
    pub(crate) fn new(seed: u64, honesty: Honesty) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let now = Timestamp(1_000_000);
        let (store, broker) = start(Image::default(), honesty, now, rng.random());
        let clients = (0..CLIENTS).map(|index| make_client(index, &mut rng)).collect();
        let links = (0..CLIENTS).map(|_| None).collect();
        let effects = Effects::new();
        let promises = Promises::default();
        let is_traced = std::env::var_os("TRACE").is_some();
        Self { rng, now, honesty, store, broker, clients, links, promises, effects, is_traced }
    }

    /// Lives through faults, heals, and returns what was wrong in the end.
    pub(crate) fn run(mut self) -> Vec<String> {
        for _ in 0..STEPS {
            self.step();
        }
        self.heal();
        self.complaints()
    }

    fn step(&mut self) {
        self.now = Timestamp(self.now.0 + self.rng.random_range(0..50));
        let index = self.rng.random_range(0..CLIENTS);
        match self.rng.random_range(0..1000) {
            0..400 => self.act(index),
            400..700 => self.move_bytes(index),
            700..880 => {
                let count = self.rng.random_range(1..4);
                self.trace(|| format!("commit {count} of {}", self.store.pending_batches()));
                self.store.step_batches(count);
            }
            880..930 => self.cut(index),
            930..940 => self.store.set_state(StoreState::Full),
            940..970 => self.store.set_state(StoreState::Available),
            970..985 => self.crash(),
            _ => {
                // A second connection of the same Client: the first is taken over.
                self.links[index].take().into_iter().for_each(|link| self.forget(link));
                self.clients[index].handle_cut();
                self.connect(index);
            }
        }
        if self.store.state() != StoreState::Available {
            self.promises.expect_refusals(&self.clients);
        }
        self.poll_all();
    }

    /// Something that a Client does of itself.
    fn act(&mut self, index: usize) {
        if self.links[index].is_none() {
            self.connect(index);
            return;
        }
        let mut out = Vec::new();
        let count = self.rng.random_range(0..4);
        self.clients[index].acknowledge(count, &mut out);
        if self.rng.random_bool(0.6) {
            self.promises.publish(&mut self.clients, index, &mut out);
        }
        self.send(index, &out);
    }

    fn connect(&mut self, index: usize) {
        let rules = ListenerRules { allow_anonymous: true, ..ListenerRules::default() };
        let peer = Peer { address: None, listener: Arc::new(rules), certificate_name: None };
        self.links[index] = Some(Link {
            connection: ClientConnection::new(Arc::clone(&self.broker), peer, self.now),
            writing: Outbox::default(),
            unhandled: Vec::new(),
            to_broker: VecDeque::new(),
            to_client: VecDeque::new(),
            received: Vec::new(),
            reads: VecDeque::new(),
            flag: Arc::new(Flag(AtomicBool::new(true))),
            is_closed: false,
        });
        self.trace(|| format!("{index} connects"));
        let mut out = Vec::new();
        self.clients[index].connect(&mut out);
        self.send(index, &out);
    }

    fn send(&mut self, index: usize, bytes: &[u8]) {
        if let Some(link) = &mut self.links[index] {
            link.to_broker.extend(bytes);
        }
    }

    /// The network carries some bytes, in both directions.
    fn move_bytes(&mut self, index: usize) {
        let most = if self.rng.random_bool(0.5) { 8 } else { 4096 };
        let (there, back) = (self.rng.random_range(0..most), self.rng.random_range(0..most));
        self.carry(index, there, back);
    }

    /// The shell has read the pages that a connection asked for, some time ago.
    fn read_pages(&mut self, index: usize) {
        let (now, effects) = (self.now, &mut self.effects);
        let Some(link) = &mut self.links[index] else { return };
        for request in std::mem::take(&mut link.reads) {
            let count = self.rng.random_range(1..6);
            let read =
                self.store.read_queue(request.session, request.from, request.to, count, 1 << 20);
            let page = read.ok().map(|entries| Page::new(entries, count, 1 << 20));
            link.connection.handle_page(request, page, now, effects);
            link.flag.0.store(true, Ordering::SeqCst);
        }
    }

    fn carry(&mut self, index: usize, there: usize, back: usize) {
        self.read_pages(index);
        let Some(link) = &mut self.links[index] else { return };
        let there = there.min(link.to_broker.len());
        if there > 0 {
            link.unhandled.extend(link.to_broker.drain(..there));
            link.flag.0.store(true, Ordering::SeqCst);
        }
        let back = back.min(link.to_client.len());
        let bytes: Vec<u8> = link.to_client.drain(..back).collect();
        link.received.extend(bytes);
        let client = &mut self.clients[index];
        let context = DecodeContext {
            version: client.version,
            max_packet_bytes: u32::MAX,
            sender: Sender::Server,
        };
        let mut out = Vec::new();
        let mut taken = 0;
        loop {
            match decode(&link.received[taken..], &context) {
                Ok(Decoded::Packet { packet, length }) => {
                    if self.is_traced {
                        println!("{:>8} {index} gets {packet:?}", self.now.0);
                    }
                    client.handle(&packet, &mut out);
                    taken += length;
                }
                Ok(Decoded::Incomplete { .. }) => break,
                Err(error) => panic!("the broker sent something malformed: {error}"),
            }
        }
        link.received.drain(..taken);
        let is_over = link.is_closed && link.to_client.is_empty();
        self.send(index, &out);
        if is_over {
            self.links[index] = None;
            self.clients[index].handle_cut();
        }
    }

    fn cut(&mut self, index: usize) {
        if let Some(link) = self.links[index].take() {
            self.trace(|| format!("{index} is cut"));
            self.clients[index].handle_cut();
            self.forget(link);
        }
    }

    /// The broker notices that a Network Connection is gone.
    fn forget(&mut self, mut link: Link) {
        link.connection.handle_closed(self.now, &mut self.effects);
    }

    /// What happens, for whoever replays a seed with TRACE=1.
    fn trace(&self, text: impl FnOnce() -> String) {
        if self.is_traced {
            println!("{:>8} {}", self.now.0, text());
        }
    }

    fn crash(&mut self) {
        let kind = if self.rng.random_bool(0.5) { Crash::Kill } else { Crash::PowerCut };
        self.trace(|| format!("crash: {kind:?}"));
        let image = self.store.crash(kind, self.rng.random_range(0..4));
        for index in 0..CLIENTS {
            if self.links[index].take().is_some() {
                self.clients[index].handle_cut();
            }
        }
        self.effects = Effects::new();
        self.now = Timestamp(self.now.0 + 1000);
        let seed = self.rng.random();
        (self.store, self.broker) = start(image, self.honesty, self.now, seed);
    }

    /// Does for each connection what the shell does when it is woken.
    fn poll_all(&mut self) {
        for index in 0..CLIENTS {
            let Some(mut link) = self.links[index].take() else { continue };
            let is_due = link.connection.next_timeout().is_some_and(|at| at <= self.now);
            for _ in 0..100 {
                if !link.flag.0.swap(false, Ordering::SeqCst) && !is_due {
                    break;
                }
                self.poll(&mut link);
            }
            if link.connection.closing().is_some() && !link.is_closed {
                link.connection.handle_closed(self.now, &mut self.effects);
                link.is_closed = true;
            }
            self.links[index] = Some(link);
        }
    }

    fn poll(&mut self, link: &mut Link) {
        if link.is_closed {
            return;
        }
        let (now, effects) = (self.now, &mut self.effects);
        // Turns of all lengths, most of them so short that they end in the middle of something.
        effects.budget = Budget::of(1 + u32::try_from(now.0 % 61).unwrap());
        let waker = Waker::from(Arc::clone(&link.flag));
        link.connection.handle_wake(now, effects);
        link.connection.handle_timeout(now);
        while let Some(request) = link.connection.poll_request() {
            let Request::Page(request) = request else { panic!("nobody authenticates here") };
            link.reads.push_back(request);
        }
        if link.connection.take_output(&mut link.writing, &waker) {
            link.flag.0.store(true, Ordering::SeqCst);
        }
        let mut position = 0;
        while position < link.writing.bytes() {
            let mut slices = [IoSlice::new(&[]); 4];
            let filled = link.writing.slices(position, &mut slices);
            for slice in &slices[..filled] {
                link.to_client.extend(slice.iter());
                position += slice.len();
            }
        }
        link.writing.discard();
        if link.connection.watch_others(now, &waker) {
            link.flag.0.store(true, Ordering::SeqCst);
        }
        if link.connection.is_reading() && !link.unhandled.is_empty() {
            let consumed = link.connection.handle_bytes(&link.unhandled, now, effects);
            if self.is_traced && consumed > 0 {
                let session = link.connection.session().map(|session| session.client_id());
                println!(
                    "{:>8} broker took {:?} from {session:?}",
                    now.0,
                    &link.unhandled[..consumed]
                );
            }
            link.unhandled.drain(..consumed);
            link.flag.0.store(consumed > 0, Ordering::SeqCst);
        } else if link.connection.is_last_call() {
            let _over_or_waits = link.connection.end_last_call(now, effects);
        }
        if effects.budget.is_spent() {
            link.flag.0.store(true, Ordering::SeqCst);
        }
        effects.budget = Budget::default();
    }

    /// No more faults: everybody connects, acknowledges, and gets what is due.
    fn heal(&mut self) {
        self.store.set_state(StoreState::Available);
        for _ in 0..HEALING_ROUNDS {
            self.now = Timestamp(self.now.0 + 20);
            self.store.step();
            for index in 0..CLIENTS {
                if self.links[index].is_none() {
                    self.connect(index);
                }
                let mut out = Vec::new();
                self.clients[index].acknowledge(usize::MAX, &mut out);
                self.send(index, &out);
                self.carry(index, usize::MAX, usize::MAX);
            }
            self.poll_all();
            let is_quiet = self.clients.iter().all(|client| client.is_open() && client.is_quiet());
            let is_delivered = self.promises.losses(&self.clients).is_empty();
            if is_quiet && is_delivered && self.waiting().is_empty() {
                return;
            }
        }
    }

    /// What still waits at the broker although everybody is there to take it.
    fn waiting(&self) -> Vec<String> {
        let mut waiting = Vec::new();
        for link in self.links.iter().flatten() {
            let Some(session) = link.connection.session() else { continue };
            let outbound = session.outbound();
            let counts = (outbound.queue().message_count(), outbound.inflight_count());
            if counts != (0, 0) {
                waiting
                    .push(format!("{} has waiting and in flight {counts:?}", session.client_id()));
            }
            let inbound = session.inbound();
            let groups = inbound.groups.iter().filter(|group| group.queued().0 > 0);
            waiting.extend(groups.map(|group| format!("{group:?} has {:?}", group.queued())));
        }
        waiting
    }

    fn complaints(&self) -> Vec<String> {
        let mut complaints = self.promises.complaints(&self.clients, |topic| {
            let found = self.broker.retained().get(topic);
            found.map(|found| String::from_utf8_lossy(found.payload()).into_owned())
        });
        complaints.extend(self.waiting());
        complaints
    }
}

fn start(
    image: Image,
    honesty: Honesty,
    now: Timestamp,
    seed: u64,
) -> (Arc<FaultyStore>, Arc<Broker>) {
    let (store, loaded) = FaultyStore::open(image, honesty, now);
    let limits = Limits { receive_maximum: 20, max_inflight: 10, ..Limits::default() };
    let authority = Arc::new(DefaultAuthority::new(None));
    let shared = Arc::clone(&store) as Arc<dyn Store>;
    let broker = Broker::new(limits, shared, authority, loaded, seed);
    (store, Arc::new(broker))
}
