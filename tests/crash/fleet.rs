//! The Clients and their behaviour: they publish, lag behind, lose their connections, take over their own connections,
//! disconnect, stay away, and come back after a crash.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};
use petrel::packet::connect::{Connect, ConnectProperties};
use petrel::packet::subscribe::{Subscribe, SubscriptionOptions};
use petrel::packet::{Packet, PacketId, ProtocolVersion, QoS};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::client::{Client, Lifetime, Name, WILLS};
use crate::link::Link;
use crate::promises::Promises;
use crate::roster::make_clients;

/// A turn ends after this long if the network is silent.
const TURN: Duration = Duration::from_millis(1);

/// Every delay of the Clients is a second; who is back before this was back in time.
const IN_TIME: Duration = Duration::from_millis(900);

pub(crate) struct Fleet {
    rng: SmallRng,
    address: SocketAddr,
    clients: Vec<Client>,
    links: Vec<Option<Link>>,
    absences: Vec<Absence>,
    promises: Promises,
    poll: Poll,
    events: Events,
    last_packet: Instant,
    /// How long the broker may be silent before what is missing counts as lost.
    patience: Duration,
}

/// How a Client is away.
#[derive(Clone, Copy)]
struct Absence {
    since: Instant,
    until: Instant,
    /// The Will Message that is due after a delay.
    will: Option<Name>,
    /// Whether it stays away until somebody has received that.
    awaits_will: bool,
}

impl Fleet {
    pub(crate) fn new(seed: u64, patience: Duration) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let clients = make_clients(&mut rng);
        let now = Instant::now();
        let absence = Absence { since: now, until: now, will: None, awaits_will: false };
        Self {
            rng,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            links: clients.iter().map(|_| None).collect(),
            absences: vec![absence; clients.len()],
            clients,
            promises: Promises::default(),
            poll: Poll::new().unwrap(),
            events: Events::with_capacity(64),
            last_packet: now,
            patience,
        }
    }

    /// Where the broker listens from now on.
    pub(crate) fn turn_to(&mut self, address: SocketAddr) {
        self.address = address;
    }

    /// Messages that were acknowledged so far.
    pub(crate) fn acknowledged(&self) -> usize {
        let own = |client: &Client| client.acknowledged.range(..(WILLS, 0)).count();
        self.clients.iter().map(own).sum()
    }

    /// Will Messages that were due so far.
    pub(crate) fn wills(&self) -> usize {
        self.clients.iter().map(|client| client.acknowledged.range((WILLS, 0)..).count()).sum()
    }

    /// Makes traffic until `is_over`.
    pub(crate) fn live(&mut self, is_over: impl Fn() -> bool) {
        while !is_over() {
            for index in 0..self.clients.len() {
                self.act(index);
            }
            self.turn();
        }
    }

    /// The broker was killed: what it had sent before is read to its end.
    pub(crate) fn handle_crash(&mut self) {
        let started = Instant::now();
        while self.links.iter().any(Option::is_some) {
            assert!(started.elapsed() < self.patience, "connections outlive the broker");
            self.turn();
        }
    }

    /// No more faults: everybody connects, acknowledges, and gets what is due. Returns everything that was wrong.
    pub(crate) fn heal(&mut self) -> Vec<String> {
        self.last_packet = Instant::now();
        while self.last_packet.elapsed() < self.patience {
            for index in 0..self.clients.len() {
                self.recover(index);
            }
            self.turn();
            let is_idle = self.last_packet.elapsed() > 5 * TURN;
            if is_idle && self.is_quiet() && self.promises.losses(&self.clients).is_empty() {
                break;
            }
        }
        let retained = self.retained();
        self.promises.complaints(&self.clients, |topic| retained.get(topic).cloned())
    }

    /// What is wrong with the Retained Messages, as a stranger sees them. Nobody else may be publishing.
    pub(crate) fn wrong_retained(&mut self) -> Vec<String> {
        let retained = self.retained();
        self.promises.wrong_retained(&self.clients, |topic| retained.get(topic).cloned())
    }

    fn is_quiet(&self) -> bool {
        self.clients.iter().all(|client| client.is_open() && client.is_quiet())
    }

    /// Something that a Client does of itself.
    fn act(&mut self, index: usize) {
        if self.links[index].is_none() {
            if self.may_return(index) {
                self.connect(index);
            }
            return;
        }
        let client = &self.clients[index];
        // Of two CONNECT packets on two connections the older may come later. Then its Will is the one that counts, and
        // nobody could say here which it is: only a Client without one gives up a connection before its CONNACK.
        let may_be_cut = client.is_open() || client.will_terms.is_none();
        let event = self.rng.random_range(0..3000);
        if event == 0 && may_be_cut {
            self.lose(index);
        } else if event == 1 && may_be_cut {
            // A second connection of the same Client: the first is taken over.
            self.cut(index);
            self.connect(index);
        } else if self.clients[index].is_open() {
            let mut out = Vec::new();
            if event == 2 {
                self.absences[index].since = Instant::now();
                self.clients[index].disconnect(&mut out);
            } else {
                let count = self.rng.random_range(0..4);
                self.clients[index].acknowledge(count, &mut out);
                if self.rng.random_bool(0.6) {
                    self.promises.publish(&mut self.clients, index, &mut out);
                }
            }
            self.send(index, &out);
        }
    }

    fn recover(&mut self, index: usize) {
        if self.links[index].is_none() && self.may_return(index) {
            self.connect(index);
        } else if self.clients[index].is_open() {
            let mut out = Vec::new();
            self.clients[index].acknowledge(usize::MAX, &mut out);
            self.send(index, &out);
        }
    }

    fn may_return(&self, index: usize) -> bool {
        let Absence { until, will, awaits_will, .. } = self.absences[index];
        let is_published = |will| self.clients.iter().any(|it| it.received.contains_key(&will));
        until <= Instant::now() && (!awaits_will || will.is_none_or(is_published))
    }

    fn connect(&mut self, index: usize) {
        // Refused where the broker was just killed.
        let link = Link::open(self.address, self.poll.registry(), Token(index));
        let Ok(link) = link else { return };
        self.links[index] = Some(link);
        let mut out = Vec::new();
        self.clients[index].connect(&mut out);
        self.promises.promise_will(&self.clients, index);
        self.send(index, &out);
    }

    fn send(&mut self, index: usize, bytes: &[u8]) {
        if let Some(link) = &mut self.links[index] {
            link.send(bytes);
        }
    }

    fn cut(&mut self, index: usize) {
        self.links[index] = None;
        let client = &mut self.clients[index];
        if client.is_open() {
            self.absences[index].since = Instant::now();
        } else if !client.is_awaited {
            self.promises.expect_repetitions(client);
        }
        // One that was not confirmed, or that was due at once, is not waited for.
        let will = client.handle_cut().filter(|_| client.delays_will());
        self.absences[index].will = will;
        self.absences[index].awaits_will = false;
    }

    /// A Client has lost its connection, and chooses how long it stays away.
    fn lose(&mut self, index: usize) {
        self.cut(index);
        let absence = &mut self.absences[index];
        let longest = if self.rng.random_bool(0.2) { 300 } else { 30 };
        absence.until = Instant::now() + Duration::from_millis(self.rng.random_range(0..longest));
        if let Some(will) = absence.will
            && self.promises.is_expected(will)
            && self.rng.random_bool(0.3)
        {
            absence.awaits_will = true;
            self.clients[index].acknowledged.insert(will);
        }
    }

    /// Waits for the network, a little, and takes what it brings.
    fn turn(&mut self) {
        wait(&mut self.poll, &mut self.events);
        for index in 0..self.links.len() {
            self.carry(index);
        }
    }

    fn carry(&mut self, index: usize) {
        let Some(link) = &mut self.links[index] else { return };
        let client = &mut self.clients[index];
        let absence = &mut self.absences[index];
        link.read();
        let was_open = client.is_open();
        let was_in_time = absence.since.elapsed() < IN_TIME;
        client.is_awaited = client.lifetime == Lifetime::Lasting || was_in_time;
        let mut out = Vec::new();
        if link.packets(client.version, |packet| client.handle(packet, &mut out)) > 0 {
            self.last_packet = Instant::now();
        }
        if client.is_open() && !was_open {
            let will = absence.will.take();
            will.filter(|_| was_in_time).into_iter().for_each(|will| self.promises.forbid(will));
        }
        link.send(&out);
        if link.is_over() {
            self.lose(index);
        }
    }

    /// All Retained Messages of the Clients, asked for until they are right or patience ends.
    fn retained(&mut self) -> BTreeMap<String, String> {
        let version = ProtocolVersion::V5_0;
        // The Clients stand still meanwhile: nothing may change what they will be judged by.
        let mut poll = Poll::new().unwrap();
        let mut link = Link::open(self.address, poll.registry(), Token(0)).unwrap();
        link.send(&ask_for_retained(version));
        let mut found = BTreeMap::new();
        let started = Instant::now();
        loop {
            let is_found = |topic: &str| found.get(topic).cloned();
            let is_right = self.promises.wrong_retained(&self.clients, is_found).is_empty();
            if is_right || started.elapsed() > self.patience {
                return found;
            }
            wait(&mut poll, &mut self.events);
            link.flush();
            link.read();
            link.packets(version, |packet| {
                if let Packet::Publish(publish) = packet {
                    let payload = String::from_utf8_lossy(publish.payload).into_owned();
                    found.insert(publish.topic.to_owned(), payload);
                }
            });
        }
    }
}

fn wait(poll: &mut Poll, events: &mut Events) {
    match poll.poll(events, Some(TURN)) {
        Err(error) if error.kind() != std::io::ErrorKind::Interrupted => panic!("{error}"),
        _ => {}
    }
}

/// A Client that nobody knows asks for everything that is retained.
fn ask_for_retained(version: ProtocolVersion) -> Vec<u8> {
    let mut out = Vec::new();
    let connect = Connect {
        version,
        bridge_bit: false,
        clean_start: true,
        keep_alive_seconds: 0,
        client_id: "",
        will: None,
        user_name: None,
        password: None,
        properties: ConnectProperties::default(),
    };
    connect.encode(&mut out, version);
    let options = SubscriptionOptions { qos: QoS::AtMostOnce, ..SubscriptionOptions::default() };
    let subscribe = Subscribe {
        packet_id: PacketId(NonZeroU16::MIN),
        subscription_id: None,
        user_properties: Vec::new(),
        filters: vec![("retained/#", options)],
    };
    subscribe.encode(&mut out, version);
    out
}
