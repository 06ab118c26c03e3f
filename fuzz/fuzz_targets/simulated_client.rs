//! One Client of `session_operations` and what it demands of the broker: every byte decodes,
//! CONNACK comes first, no packet is larger than it allowed, no more deliveries are in flight than
//! it allowed, no Packet Identifier is used twice, no Topic Alias is unknown, every request is
//! answered as often as it has parts.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io::IoSlice;
use std::sync::Arc;
use std::task::Waker;

use arbitrary::Arbitrary;
use petrel::access::Peer;
use petrel::broker::Broker;
use petrel::broker::connection::{ClientConnection, Request};
use petrel::durable::message::Timestamp;
use petrel::packet::acknowledgement::{Acknowledgement, Puback, Pubcomp, Pubrec, Pubrel};
use petrel::packet::connect::{Connect, ConnectProperties, Will};
use petrel::packet::decode::{DecodeContext, Decoded, Sender, decode};
use petrel::packet::disconnect::Disconnect;
use petrel::packet::publish::Publish;
use petrel::packet::reason_code::ReasonCode;
use petrel::packet::subscribe::{RetainHandling, Subscribe, SubscriptionOptions};
use petrel::packet::unsubscribe::Unsubscribe;
use petrel::packet::{Packet, PacketId, ProtocolVersion, QoS};
use petrel::session::effects::Effects;
use petrel::session::outbox::Outbox;
use petrel::session::queue::Page;

const TOPICS: [&str; 6] = ["a", "a/b", "a/b/c", "$x", "", "b"];
const FILTERS: [&str; 10] =
    ["a", "a/b", "+", "#", "a/#", "+/b", "$share/g/a/#", "$share/g/+", "$share/h/a", "a/+/#"];

/// What a Client can do.
#[derive(Debug, Arbitrary)]
pub(crate) enum Action {
    Connect {
        version: u8,
        client_id: u8,
        flags: u8,
        expiry: u8,
        receive: u8,
        packet: u8,
        alias: u8,
    },
    Publish {
        topic: u8,
        flags: u8,
        id: u8,
        alias: Option<u8>,
        expiry: Option<u8>,
        bytes: u16,
    },
    Subscribe {
        filters: Vec<u8>,
        options: u8,
        id: u8,
        subscription: u8,
    },
    Unsubscribe {
        filters: Vec<u8>,
        id: u8,
    },
    /// Answers the oldest delivery in flight as it should be.
    Acknowledge {
        refuses: bool,
    },
    /// Answers whatever it likes.
    Answer {
        kind: u8,
        id: u8,
        reason: bool,
    },
    Release {
        id: u8,
    },
    Ping,
    Disconnect {
        reason: u8,
        expiry: Option<u8>,
    },
    Raw(Vec<u8>),
}

/// How far a delivery to the Client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Delivery {
    AtLeastOnce,
    ExactlyOnce,
    Released,
}

/// One Client with its Network Connection.
pub(crate) struct SimulatedClient {
    connection: ClientConnection,
    version: ProtocolVersion,
    input: Vec<u8>,
    output: Vec<u8>,
    has_connected: bool,
    is_accepted: bool,
    /// It broke a rule of the exchange itself: what it counts means nothing any more.
    is_lawless: bool,
    receive_maximum: u16,
    max_packet_bytes: Option<u32>,
    alias_maximum: u16,
    aliases: BTreeMap<u16, String>,
    deliveries: BTreeMap<PacketId, Delivery>,
    order: Vec<PacketId>,
    requests: BTreeMap<PacketId, usize>,
    used: BTreeSet<PacketId>,
}

fn packet_id(number: u8) -> PacketId {
    PacketId::try_from(u16::from(number % 6) + 1).expect("one to six")
}

fn qos(bits: u8) -> QoS {
    QoS::try_from(bits % 3).expect("zero to two")
}

impl SimulatedClient {
    pub(crate) fn new(broker: &Arc<Broker>, peer: Peer, now: Timestamp) -> Self {
        Self {
            connection: ClientConnection::new(Arc::clone(broker), peer, now),
            version: ProtocolVersion::V5_0,
            input: Vec::new(),
            output: Vec::new(),
            has_connected: false,
            is_accepted: false,
            is_lawless: false,
            receive_maximum: u16::MAX,
            max_packet_bytes: None,
            alias_maximum: 0,
            aliases: BTreeMap::new(),
            deliveries: BTreeMap::new(),
            order: Vec::new(),
            requests: BTreeMap::new(),
            used: BTreeSet::new(),
        }
    }

    fn send(&mut self, packet: &Packet<'_>) {
        packet.encode(&mut self.input, self.version);
    }

    /// Connects first unless the action has to do with that: a Client that never gets in shows
    /// little.
    pub(crate) fn act(&mut self, number: u8, action: &Action) {
        if !self.has_connected && !matches!(action, Action::Connect { .. } | Action::Raw(_)) {
            self.connect(&Action::Connect {
                version: 2,
                client_id: number,
                flags: 0,
                expiry: 100,
                receive: number,
                packet: 1,
                alias: 3,
            });
        }
        match action {
            Action::Connect { .. } => self.connect(action),
            Action::Publish { .. } => self.publish(action),
            Action::Subscribe { .. } => self.subscribe(action),
            Action::Unsubscribe { filters, id } => {
                let filters: Vec<_> = filters
                    .iter()
                    .take(5)
                    .map(|i| FILTERS[usize::from(*i) % FILTERS.len()])
                    .collect();
                self.request(packet_id(*id), filters.len());
                let unsubscribe =
                    Unsubscribe { packet_id: packet_id(*id), user_properties: Vec::new(), filters };
                self.send(&Packet::Unsubscribe(unsubscribe));
            }
            Action::Acknowledge { refuses } => self.acknowledge(*refuses),
            Action::Answer { kind, id, reason } => {
                self.is_lawless = true;
                self.answer(*kind, packet_id(*id), *reason);
            }
            Action::Release { id } => {
                let inner = Acknowledgement::new(packet_id(*id), ReasonCode::Success);
                self.send(&Packet::Pubrel(Pubrel(inner)));
            }
            Action::Ping => self.send(&Packet::Pingreq),
            Action::Disconnect { reason, expiry } => {
                let reasons = [ReasonCode::Success, ReasonCode::DisconnectWithWillMessage];
                let reason = reasons[usize::from(reason % 2)];
                let session_expiry_seconds = expiry.map(u32::from);
                let disconnect = Disconnect { session_expiry_seconds, ..Disconnect::new(reason) };
                self.send(&Packet::Disconnect(disconnect));
            }
            Action::Raw(bytes) => {
                self.is_lawless = true;
                self.input.extend_from_slice(&bytes[..bytes.len().min(200)]);
            }
        }
    }

    fn connect(&mut self, action: &Action) {
        let Action::Connect { version, client_id, flags, expiry, receive, packet, alias } = action
        else {
            return;
        };
        // A second CONNECT is one thing to try, in the version that is spoken.
        if !self.has_connected {
            let versions = [ProtocolVersion::V3_1, ProtocolVersion::V3_1_1, ProtocolVersion::V5_0];
            self.version = versions[usize::from(version % 3)];
            if self.version == ProtocolVersion::V5_0 && !self.is_lawless {
                self.receive_maximum = u16::from(receive % 4) + 1;
                self.max_packet_bytes = (packet % 4 == 0).then_some(u32::from(*packet) + 60);
                self.alias_maximum = u16::from(alias % 4);
            }
        }
        self.has_connected = true;
        let will = (flags & 2 != 0).then(|| Will {
            qos: qos(flags >> 2),
            retain: flags & 16 != 0,
            topic: "a/b",
            payload: b"gone",
            delay_seconds: Some(u32::from(flags >> 6)),
            message_expiry: None,
            properties: Cow::Borrowed(&[]),
        });
        let connect = Connect {
            version: self.version,
            bridge_bit: false,
            clean_start: flags & 1 != 0,
            keep_alive_seconds: u16::from(flags >> 5),
            client_id: ["one", "two", "three", ""][usize::from(client_id % 4)],
            will,
            user_name: None,
            password: None,
            properties: ConnectProperties {
                session_expiry_seconds: Some(u32::from(*expiry)),
                receive_maximum: Some(self.receive_maximum),
                maximum_packet_bytes: self.max_packet_bytes,
                topic_alias_maximum: Some(self.alias_maximum),
                ..ConnectProperties::default()
            },
        };
        self.send(&Packet::Connect(Box::new(connect)));
    }

    fn publish(&mut self, action: &Action) {
        let Action::Publish { topic, flags, id, alias, expiry, bytes } = action else { return };
        let qos = qos(*flags);
        let payload = vec![b'x'; usize::from(bytes % 2500)];
        let has_id = qos > QoS::AtMostOnce;
        let mut topic = TOPICS[usize::from(*topic) % TOPICS.len()];
        let topic_alias = alias.map(|alias| u16::from(alias % 5));
        let is_named = self.version == ProtocolVersion::V5_0 && topic_alias.is_some();
        if topic.is_empty() && !is_named {
            topic = "a";
        }
        let publish = Publish {
            dup: has_id && flags & 4 != 0,
            qos,
            retain: flags & 8 != 0,
            topic,
            packet_id: has_id.then(|| packet_id(*id)),
            topic_alias,
            message_expiry: expiry.map(u32::from),
            subscription_ids: Vec::new(),
            properties: Cow::Borrowed(if flags & 16 == 0 { &[] } else { b"\x26\0\x01k\0\x01v" }),
            payload: &payload,
        };
        if has_id {
            self.used.insert(packet_id(*id));
        }
        self.send(&Packet::Publish(publish));
    }

    fn subscribe(&mut self, action: &Action) {
        let Action::Subscribe { filters, options, id, subscription } = action else { return };
        let options = SubscriptionOptions {
            qos: qos(*options),
            no_local: options & 4 != 0,
            retain_as_published: options & 8 != 0,
            retain_handling: [
                RetainHandling::Send,
                RetainHandling::SendIfNew,
                RetainHandling::DoNotSend,
            ][usize::from(options >> 4) % 3],
        };
        let filters: Vec<_> = filters
            .iter()
            .take(5)
            .map(|index| (FILTERS[usize::from(*index) % FILTERS.len()], options))
            .collect();
        self.request(packet_id(*id), filters.len());
        let subscribe = Subscribe {
            packet_id: packet_id(*id),
            subscription_id: (subscription % 3 != 0).then_some(u32::from(*subscription)),
            user_properties: Vec::new(),
            filters,
        };
        self.send(&Packet::Subscribe(subscribe));
    }

    /// Two requests of one identifier at a time are the Client's own fault.
    fn request(&mut self, id: PacketId, parts: usize) {
        if parts == 0 || self.requests.insert(id, parts).is_some() {
            self.is_lawless = true;
        }
    }

    fn acknowledge(&mut self, refuses: bool) {
        let Some(id) = self.order.first().copied() else { return };
        let reason = if refuses && self.version == ProtocolVersion::V5_0 {
            ReasonCode::UnspecifiedError
        } else {
            ReasonCode::Success
        };
        let inner = Acknowledgement::new(id, reason);
        let packet = match self.deliveries.get(&id) {
            Some(Delivery::AtLeastOnce) => Packet::Puback(Puback(inner)),
            Some(Delivery::ExactlyOnce) => Packet::Pubrec(Pubrec(inner)),
            Some(Delivery::Released) => {
                Packet::Pubcomp(Pubcomp(Acknowledgement::new(id, ReasonCode::Success)))
            }
            None => return,
        };
        self.order.remove(0);
        // A PUBREC of success keeps the identifier until PUBREL and PUBCOMP.
        if !matches!(packet, Packet::Pubrec(_)) || reason.is_failure() {
            self.deliveries.remove(&id);
        }
        self.send(&packet);
    }

    fn answer(&mut self, kind: u8, id: PacketId, refuses: bool) {
        let reason =
            if refuses { ReasonCode::PacketIdentifierNotFound } else { ReasonCode::Success };
        let plain = Acknowledgement::new(id, ReasonCode::Success);
        let packet = match kind % 4 {
            0 => Packet::Puback(Puback(plain)),
            1 => Packet::Pubrec(Pubrec(plain)),
            2 => Packet::Pubrel(Pubrel(Acknowledgement::new(id, reason))),
            _ => Packet::Pubcomp(Pubcomp(Acknowledgement::new(id, reason))),
        };
        self.send(&packet);
    }

    pub(crate) fn wait(&mut self, now: Timestamp) {
        if self.connection.next_timeout().is_some_and(|at| at <= now) {
            self.connection.handle_timeout(now);
        }
    }

    /// Hands in what was sent, carries out what is asked for, takes and checks what comes back.
    /// Whether anything happened.
    pub(crate) fn exchange(&mut self, broker: &Arc<Broker>, now: Timestamp) -> bool {
        let mut effects = Effects::new();
        let mut has_moved = false;
        self.connection.handle_wake(now, &mut effects);
        while let Some(request) = self.connection.poll_request() {
            has_moved = true;
            self.carry_out(request, broker, now, &mut effects);
        }
        self.connection.watch_others(now, Waker::noop());
        if self.connection.is_reading() && !self.input.is_empty() {
            let consumed = self.connection.handle_bytes(&self.input, now, &mut effects);
            self.input.drain(..consumed);
            has_moved |= consumed > 0;
        }
        if self.connection.is_last_call() {
            let _over_or_waits = self.connection.end_last_call(now, &mut effects);
        }
        effects.wake();
        let mut outbox = Outbox::default();
        self.connection.take_output(&mut outbox, Waker::noop());
        has_moved |= !outbox.is_empty();
        self.collect(&outbox);
        has_moved
    }

    fn carry_out(
        &mut self,
        request: Request,
        broker: &Arc<Broker>,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        match request {
            Request::Authenticate(credentials) => {
                let result = broker.authority().authenticate(&credentials);
                self.connection.handle_authenticated(result, now, effects);
            }
            Request::Exchange(mut exchange, data) => {
                let step = exchange.step(&data);
                self.connection.handle_exchange((exchange, step), now, effects);
            }
            Request::Page(request) => {
                let (from, to) = (request.from, request.to);
                let read = broker.store().read_queue(request.session, from, to, 4, 1024);
                let page = read.ok().map(|entries| Page::new(entries, 4, 1024));
                self.connection.handle_page(request, page, now, effects);
            }
        }
    }

    fn collect(&mut self, outbox: &Outbox) {
        let mut position = 0;
        while position < outbox.bytes() {
            let mut slices = [IoSlice::new(&[]); 16];
            let filled = outbox.slices(position, &mut slices);
            for slice in &slices[..filled] {
                self.output.extend_from_slice(slice);
                position += slice.len();
            }
        }
        let output = std::mem::take(&mut self.output);
        let mut rest = &output[..];
        let version = self.connection.version();
        let context = DecodeContext { version, max_packet_bytes: u32::MAX, sender: Sender::Server };
        while !rest.is_empty() {
            match decode(rest, &context) {
                Ok(Decoded::Packet { packet, length }) => {
                    self.check(&packet, length);
                    rest = &rest[length..];
                }
                other => panic!("the broker sent {rest:02X?} in {version}: {other:?}"),
            }
        }
    }

    fn check(&mut self, packet: &Packet<'_>, length: usize) {
        if let Some(max_bytes) = self.max_packet_bytes {
            assert!(length <= max_bytes as usize, "{length} bytes: {packet:?}");
        }
        match packet {
            Packet::Connack(connack) => {
                assert!(!self.is_accepted, "two CONNACKs");
                self.is_accepted = connack.reason == ReasonCode::Success;
                return;
            }
            // A refusal before CONNACK may be said by DISCONNECT only to those who are connected.
            Packet::Auth(_) => return,
            _ => assert!(self.is_accepted || self.is_lawless, "before CONNACK: {packet:?}"),
        }
        if self.is_lawless {
            return;
        }
        match packet {
            Packet::Publish(publish) => self.check_publish(publish),
            Packet::Pubrel(pubrel) => {
                let id = pubrel.0.packet_id;
                self.deliveries.insert(id, Delivery::Released);
                self.order.retain(|waiting| *waiting != id);
                self.order.push(id);
            }
            Packet::Suback(suback) => {
                let parts = self.requests.remove(&suback.packet_id);
                assert_eq!(parts, Some(suback.reasons.len()), "{packet:?}");
            }
            Packet::Unsuback(unsuback) => {
                let parts = self.requests.remove(&unsuback.packet_id);
                let is_listed = self.version == ProtocolVersion::V5_0;
                assert!(!is_listed || parts == Some(unsuback.reasons.len()), "{packet:?}");
                assert!(parts.is_some(), "{packet:?}");
            }
            Packet::Puback(Puback(inner)) | Packet::Pubrec(Pubrec(inner)) => {
                assert!(self.used.contains(&inner.packet_id), "{packet:?}");
            }
            Packet::Pubcomp(_) | Packet::Pingresp => {}
            Packet::Disconnect(_) => assert_eq!(self.version, ProtocolVersion::V5_0),
            other => panic!("a Server does not send {other:?}"),
        }
    }

    fn check_publish(&mut self, publish: &Publish<'_>) {
        if let Some(alias) = publish.topic_alias {
            assert!((1..=self.alias_maximum).contains(&alias), "{publish:?}");
            if publish.topic.is_empty() {
                assert!(self.aliases.contains_key(&alias), "{publish:?}");
            } else {
                self.aliases.insert(alias, publish.topic.to_owned());
            }
        }
        let Some(id) = publish.packet_id else { return };
        let delivery = match publish.qos {
            QoS::ExactlyOnce => Delivery::ExactlyOnce,
            _ => Delivery::AtLeastOnce,
        };
        let before = self.deliveries.insert(id, delivery);
        assert_eq!(before, None, "an identifier in use: {publish:?}");
        self.order.push(id);
        let is_counted = |delivery: &&Delivery| **delivery != Delivery::Released;
        let in_flight = self.deliveries.values().filter(is_counted).count();
        assert!(in_flight <= usize::from(self.receive_maximum), "{in_flight}: {publish:?}");
    }

    pub(crate) fn is_over(&self) -> bool {
        self.connection.closing().is_some()
    }

    pub(crate) fn end(&mut self, now: Timestamp) {
        let mut effects = Effects::new();
        self.connection.handle_closed(now, &mut effects);
        effects.wake();
    }
}
