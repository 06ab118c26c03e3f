//! Clients driven by hand: a broker without sockets, threads and clocks, where a test decides what happens and when.
//! All Clients share their effects, as the connections of one thread do.

use std::io::IoSlice;
use std::sync::Arc;
use std::task::Waker;

use petrel::access::{ListenerRules, Peer};
use petrel::auth::authority::DefaultAuthority;
use petrel::broker::Broker;
use petrel::broker::connection::ClientConnection;
use petrel::broker::limits::Limits;
use petrel::durable::Store;
use petrel::durable::message::Timestamp;
use petrel::session::effects::Effects;
use petrel::session::outbox::Outbox;
use petrel::store::memory::MemoryStore;

/// A broker and the time there.
pub(crate) struct Hands {
    pub(crate) broker: Arc<Broker>,
    pub(crate) effects: Effects,
    pub(crate) now: Timestamp,
}

/// One Client and its Network Connection.
pub(crate) struct Hand {
    pub(crate) connection: ClientConnection,
    /// What the broker is writing.
    pub(crate) writing: Outbox,
}

impl Hands {
    pub(crate) fn new(limits: Limits) -> Self {
        let (store, loaded, _clock) = MemoryStore::open();
        Self::on(Arc::new(store), loaded, limits)
    }

    pub(crate) fn on(
        store: Arc<dyn Store>,
        loaded: petrel::durable::record::Loaded,
        limits: Limits,
    ) -> Self {
        let authority = Arc::new(DefaultAuthority::new(None));
        let broker = Arc::new(Broker::new(limits, store, authority, loaded, 7));
        Self { broker, effects: Effects::new(), now: Timestamp(1_800_000_000_000) }
    }

    /// Connects with this CONNECT packet and checks that it is accepted.
    pub(crate) fn connect(&mut self, connect: &[u8]) -> Hand {
        let rules = ListenerRules { allow_anonymous: true, ..ListenerRules::default() };
        let peer = Peer { address: None, listener: Arc::new(rules), certificate_name: None };
        let connection = ClientConnection::new(Arc::clone(&self.broker), peer, self.now);
        let mut hand = Hand { connection, writing: Outbox::default() };
        hand.send(self, connect);
        if !hand.connection.is_connected() {
            // Another connection has the Session, and is not woken: it loses it after a second.
            self.pass(1000);
            hand.wake(self);
        }
        assert!(hand.connection.is_connected(), "the client is not let in");
        hand.take();
        hand
    }

    pub(crate) fn pass(&mut self, milliseconds: u64) {
        self.now = Timestamp(self.now.0 + milliseconds);
    }
}

impl Hand {
    /// Hands bytes in as one read buffer; how many of them were taken.
    pub(crate) fn send(&mut self, hands: &mut Hands, bytes: &[u8]) -> usize {
        let consumed = self.connection.handle_bytes(bytes, hands.now, &mut hands.effects);
        self.wake(hands);
        consumed
    }

    pub(crate) fn wake(&mut self, hands: &mut Hands) {
        self.connection.handle_wake(hands.now, &mut hands.effects);
    }

    /// Everything being written has been written; takes what is to be written next.
    pub(crate) fn take(&mut self) {
        self.writing.discard();
        self.connection.take_output(&mut self.writing, Waker::noop());
    }

    /// Ends the Network Connection without DISCONNECT.
    pub(crate) fn cut(mut self, hands: &mut Hands) {
        self.connection.handle_closed(hands.now, &mut hands.effects);
    }

    /// What is being written, in the pieces in which it lies in memory: where each begins, and its bytes.
    pub(crate) fn pieces(&self) -> Vec<(usize, Vec<u8>)> {
        let mut slices = [IoSlice::new(&[]); 64];
        let filled = self.writing.slices(0, &mut slices);
        slices.iter().take(filled).map(|slice| (slice.as_ptr().addr(), slice.to_vec())).collect()
    }
}

/// A packet from its first byte and its body.
pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut rest = body.len();
    while rest >= 0x80 {
        packet.push(u8::try_from(rest % 0x80).unwrap() | 0x80);
        rest /= 0x80;
    }
    packet.push(u8::try_from(rest).unwrap());
    packet.extend_from_slice(body);
    packet
}

pub(crate) fn string(text: &str) -> Vec<u8> {
    let mut bytes = u16::try_from(text.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// CONNECT of 3.1.1.
pub(crate) fn connect(name: &str, clean: bool) -> Vec<u8> {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, if clean { 2 } else { 0 }, 0, 0];
    body.extend(string(name));
    packet(0x10, &body)
}

/// CONNECT of 3.1.1 with a clean session and a Will of QoS 0.
pub(crate) fn connect_with_will(name: &str, topic: &str, retain: bool) -> Vec<u8> {
    let flags = 0b110 | if retain { 0b10_0000 } else { 0 };
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, flags, 0, 0];
    body.extend(string(name));
    body.extend(string(topic));
    body.extend(string("gone"));
    packet(0x10, &body)
}

/// CONNECT of 5.0 with a Session that stays.
pub(crate) fn connect_v5(name: &str) -> Vec<u8> {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 0, 5, 17, 0xFF, 0xFF, 0xFF, 0xFF];
    body.extend(string(name));
    packet(0x10, &body)
}

pub(crate) fn subscribe(filter: &str, qos: u8) -> Vec<u8> {
    let mut body = vec![0, 1];
    body.extend(string(filter));
    body.push(qos);
    packet(0x82, &body)
}

/// SUBSCRIBE of 5.0 with an identifier below 128, or none.
pub(crate) fn subscribe_v5(filter: &str, qos: u8, id: u8) -> Vec<u8> {
    let mut body = if id == 0 { vec![0, 1, 0] } else { vec![0, 1, 2, 11, id] };
    body.extend(string(filter));
    body.push(qos);
    packet(0x82, &body)
}

pub(crate) fn publish(topic: &str, qos: u8, payload: &[u8]) -> Vec<u8> {
    let mut body = string(topic);
    if qos > 0 {
        body.extend([0, 1]);
    }
    body.extend_from_slice(payload);
    packet(0x30 | qos << 1, &body)
}
