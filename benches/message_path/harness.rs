//! A broker in the process with publishers and subscribers, joined by function calls: what the core costs without sockets,
//! threads and clocks. The same work every time, so that instructions can be counted.

use std::io::IoSlice;
use std::sync::Arc;
use std::task::Waker;

use petrel::access::{Authority, Credentials, Exchange, ListenerRules, Peer, Principal};
use petrel::broker::Broker;
use petrel::broker::connection::ClientConnection;
use petrel::broker::limits::Limits;
use petrel::durable::message::Timestamp;
use petrel::packet::reason_code::ReasonCode;
use petrel::session::effects::Effects;
use petrel::session::outbox::Outbox;
use petrel::store::memory::MemoryStore;

/// Packets in one read buffer.
pub(crate) const BURST: usize = 100;

/// A topic as a device has it.
pub(crate) const TOPIC: &str = "bench/device/17/temperature";
const PAYLOAD_BYTES: usize = 64;
const NOW: Timestamp = Timestamp(1_800_000_000_000);

/// Lets everybody do everything.
struct Everybody;

impl Authority for Everybody {
    fn authenticate(&self, _credentials: &Credentials) -> Result<Principal, ReasonCode> {
        Ok(Principal::default())
    }

    fn may_block(&self, _credentials: &Credentials) -> bool {
        false
    }

    fn begin_exchange(&self, _method: &str, _peer: &Peer) -> Option<Box<dyn Exchange>> {
        None
    }

    fn may_publish(&self, _principal: &Principal, _client_id: &str, _topic: &str) -> bool {
        true
    }

    fn may_subscribe(&self, _principal: &Principal, _client_id: &str, _filter: &str) -> bool {
        true
    }
}

/// A client and its connection, seen from both ends.
struct Client {
    connection: ClientConnection,
    effects: Effects,
    output: Outbox,
    waker: Waker,
}

impl Client {
    /// Connects (MQTT 3.1.1, clean session) and checks that it was let in.
    fn connect(broker: &Arc<Broker>, name: &str) -> Self {
        let rules = ListenerRules {
            name: "bench".to_owned(),
            allow_anonymous: true,
            certificate_as_user_name: false,
            mount_point: None,
            max_packet_bytes: None,
            max_keep_alive_seconds: None,
            internal: false,
        };
        let peer = Peer { address: None, listener: Arc::new(rules), certificate_name: None };
        let connection = ClientConnection::new(Arc::clone(broker), peer, NOW);
        let mut client = Self {
            connection,
            effects: Effects::new(),
            output: Outbox::default(),
            waker: Waker::noop().clone(),
        };
        let mut connect = vec![0x10, 0, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0];
        push_string(&mut connect, name);
        connect[1] = u8::try_from(connect.len() - 2).expect("a short name");
        client.send(&connect);
        assert_eq!(client.receive(), [0x20, 2, 0, 0], "the client is not let in");
        client
    }

    fn subscribe(&mut self, filter: &str, qos: u8) {
        let mut subscribe = vec![0x82, 0, 0, 1];
        push_string(&mut subscribe, filter);
        subscribe.push(qos);
        subscribe[1] = u8::try_from(subscribe.len() - 2).expect("a short filter");
        self.send(&subscribe);
        assert_eq!(self.receive(), [0x90, 3, 0, 1, qos], "the subscription is refused");
    }

    /// Hands bytes in as one read buffer.
    fn send(&mut self, bytes: &[u8]) {
        let consumed = self.connection.handle_bytes(bytes, NOW, &mut self.effects);
        assert_eq!(consumed, bytes.len(), "the connection stopped reading");
        self.effects.wakers.clear();
        self.connection.handle_wake(NOW, &mut self.effects);
    }

    /// Takes what the broker has for the client, as the task of its connection does.
    fn take(&mut self) {
        self.output.discard();
        self.connection.take_output(&mut self.output, &self.waker);
    }

    /// The same as bytes.
    fn receive(&mut self) -> Vec<u8> {
        self.take();
        let mut slices = [IoSlice::new(&[]); 64];
        let filled = self.output.slices(0, &mut slices);
        let mut bytes = Vec::with_capacity(self.output.bytes());
        for slice in &slices[..filled] {
            bytes.extend_from_slice(slice);
        }
        bytes
    }
}

/// A broker without clients that lets everybody do everything.
pub(crate) fn broker() -> Arc<Broker> {
    let (store, loaded, _clock) = MemoryStore::open();
    Arc::new(Broker::new(Limits::default(), Arc::new(store), Arc::new(Everybody), loaded, 7))
}

/// Publisher, subscribers and the bytes they send.
pub(crate) struct Path {
    publisher: Client,
    subscribers: Vec<Client>,
    qos: u8,
    topic_bytes: usize,
    /// Sent in turn.
    bursts: Vec<Vec<u8>>,
    next_burst: usize,
    release: Vec<u8>,
    delivered: u64,
}

impl Path {
    /// One publisher of these topics in turn, which are of one length, and so many subscribers to all of them. The first
    /// topic tells their names from those of other paths.
    pub(crate) fn new(
        broker: &Arc<Broker>,
        topics: &[String],
        qos: u8,
        subscribers: usize,
    ) -> Self {
        let name = &topics[0];
        let publisher = Client::connect(broker, &format!("publisher-{name}"));
        let subscribe = |number| {
            let mut client = Client::connect(broker, &format!("subscriber-{number}-{name}"));
            for topic in topics {
                client.subscribe(topic, qos);
            }
            client
        };
        Self {
            publisher,
            subscribers: (0..subscribers).map(subscribe).collect(),
            qos,
            topic_bytes: name.len(),
            bursts: publish_bursts(topics, qos),
            next_burst: 0,
            release: acknowledgement_burst(0x62),
            delivered: 0,
        }
    }

    /// A burst from the publisher to all subscribers and all its acknowledgements. Returns the deliveries so far.
    pub(crate) fn run_burst(&mut self) -> u64 {
        self.publisher.send(&self.bursts[self.next_burst]);
        self.next_burst = (self.next_burst + 1) % self.bursts.len();
        self.publisher.take();
        for subscriber in &mut self.subscribers {
            if self.qos == 0 {
                subscriber.take();
            } else {
                let received = subscriber.receive();
                let identifiers = packet_identifiers(&received, self.topic_bytes);
                assert_eq!(identifiers.len(), BURST, "messages are missing");
                acknowledge(subscriber, self.qos, &identifiers);
            }
        }
        if self.qos == 2 {
            self.publisher.send(&self.release);
            self.publisher.take();
        }
        self.delivered += (BURST * self.subscribers.len()) as u64;
        self.delivered
    }

    /// Bytes that the last burst left in the output of the first subscriber.
    pub(crate) fn delivered_bytes(&self) -> usize {
        self.subscribers.first().map_or(0, |subscriber| subscriber.output.bytes())
    }
}

/// One PUBLISH, as the bursts carry it.
pub(crate) fn publish_packet(topic: &str, qos: u8, packet_id: u16) -> Vec<u8> {
    let mut packet = vec![0x30 | qos << 1, 0];
    push_string(&mut packet, topic);
    if qos > 0 {
        packet.extend(packet_id.to_be_bytes());
    }
    packet.extend(std::iter::repeat_n(b'x', PAYLOAD_BYTES));
    packet[1] = u8::try_from(packet.len() - 2).expect("a short packet");
    packet
}

/// Enough bursts that each topic has its turn.
fn publish_bursts(topics: &[String], qos: u8) -> Vec<Vec<u8>> {
    let mut topics = topics.iter().cycle().take(topics.len().next_multiple_of(BURST)).peekable();
    let mut bursts = Vec::new();
    while topics.peek().is_some() {
        let packets = burst_identifiers().zip(topics.by_ref());
        bursts.push(packets.flat_map(|(id, topic)| publish_packet(topic, qos, id)).collect());
    }
    bursts
}

fn acknowledgement_burst(first: u8) -> Vec<u8> {
    burst_identifiers().flat_map(|packet_id| acknowledgement(first, packet_id)).collect()
}

fn burst_identifiers() -> impl Iterator<Item = u16> {
    (1..).take(BURST)
}

fn acknowledgement(first: u8, packet_id: u16) -> [u8; 4] {
    let [high, low] = packet_id.to_be_bytes();
    [first, 2, high, low]
}

fn acknowledge(subscriber: &mut Client, qos: u8, identifiers: &[u16]) {
    let answers = |first| -> Vec<u8> {
        let mut answers = Vec::with_capacity(4 * identifiers.len());
        for packet_id in identifiers {
            answers.extend_from_slice(&acknowledgement(first, *packet_id));
        }
        answers
    };
    if qos == 1 {
        subscriber.send(&answers(0x40));
    } else {
        subscriber.send(&answers(0x50));
        subscriber.take();
        subscriber.send(&answers(0x70));
    }
    subscriber.take();
}

/// The identifiers of the PUBLISH packets in what a subscriber received.
fn packet_identifiers(mut bytes: &[u8], topic_bytes: usize) -> Vec<u16> {
    let mut identifiers = Vec::with_capacity(BURST);
    while let [_first, length, rest @ ..] = bytes {
        let at = 2 + topic_bytes;
        identifiers.push(u16::from_be_bytes([rest[at], rest[at + 1]]));
        bytes = &rest[usize::from(*length)..];
    }
    identifiers
}

fn push_string(packet: &mut Vec<u8>, text: &str) {
    packet.extend(u16::try_from(text.len()).expect("a short text").to_be_bytes());
    packet.extend(text.as_bytes());
}
