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
use petrel::session::policies::Policies;
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
            policies: Policies::default(),
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

/// Publishers, subscribers and the bytes they send.
pub(crate) struct Path {
    /// Each has its turn.
    publishers: Vec<Client>,
    next_publisher: usize,
    subscribers: Vec<Client>,
    qos: u8,
    topic_bytes: usize,
    /// Deliveries that a burst leads to.
    burst_deliveries: usize,
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
        Self::with_filters(broker, topics, topics, qos, (1, subscribers))
    }

    /// So many publishers of one topic, and one subscriber.
    pub(crate) fn fan_in(broker: &Arc<Broker>, topic: &str, qos: u8, publishers: usize) -> Self {
        let topics = [topic.to_owned()];
        Self::with_filters(broker, &topics, &topics, qos, (publishers, 1))
    }

    /// One publisher of a topic, and so many members of one group.
    pub(crate) fn shared(broker: &Arc<Broker>, topic: &str, qos: u8, members: usize) -> Self {
        let filters = [format!("$share/group/{topic}")];
        Self::with_filters(broker, &[topic.to_owned()], &filters, qos, (1, members))
    }

    fn with_filters(
        broker: &Arc<Broker>,
        topics: &[String],
        filters: &[String],
        qos: u8,
        (publishers, subscribers): (usize, usize),
    ) -> Self {
        let name = &topics[0];
        let publish = |number| Client::connect(broker, &format!("publisher-{number}-{name}"));
        let subscribe = |number| {
            let mut client = Client::connect(broker, &format!("subscriber-{number}-{name}"));
            for filter in filters {
                client.subscribe(filter, qos);
            }
            client
        };
        let is_shared = filters.iter().any(|filter| filter.starts_with("$share/"));
        Self {
            publishers: (0..publishers).map(publish).collect(),
            next_publisher: 0,
            subscribers: (0..subscribers).map(subscribe).collect(),
            burst_deliveries: if is_shared { BURST } else { BURST * subscribers },
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
        let publisher = &mut self.publishers[self.next_publisher];
        publisher.send(&self.bursts[self.next_burst]);
        publisher.take();
        self.next_burst = (self.next_burst + 1) % self.bursts.len();
        let mut received_count = 0;
        for subscriber in &mut self.subscribers {
            if self.qos == 0 {
                subscriber.take();
            } else {
                let received = subscriber.receive();
                let identifiers = packet_identifiers(&received, self.topic_bytes);
                received_count += identifiers.len();
                acknowledge(subscriber, self.qos, &identifiers);
            }
        }
        assert!(self.qos == 0 || received_count == self.burst_deliveries, "messages are missing");
        let publisher = &mut self.publishers[self.next_publisher];
        if self.qos == 2 {
            publisher.send(&self.release);
            publisher.take();
        }
        self.next_publisher = (self.next_publisher + 1) % self.publishers.len();
        self.delivered += self.burst_deliveries as u64;
        self.delivered
    }

    /// Whether the last burst reached the first subscriber, as far as that is not checked with every burst.
    pub(crate) fn has_delivered(&self) -> bool {
        let bytes = self.subscribers.first().map_or(0, |subscriber| subscriber.output.bytes());
        self.qos > 0 || bytes > BURST * PAYLOAD_BYTES
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
