//! A Client that keeps every rule of MQTT, as state without IO: it remembers its unfinished exchanges across Network
//! Connections, and writes down what it was promised and what it received.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;

use petrel::packet::acknowledgement::{AcknowledgementKind, encode_acknowledgement};
use petrel::packet::connect::{Connect, ConnectProperties, Will};
use petrel::packet::disconnect::Disconnect;
use petrel::packet::publish::Publish;
use petrel::packet::reason_code::ReasonCode;
use petrel::packet::subscribe::{Subscribe, SubscriptionOptions};
use petrel::packet::{Packet, PacketId, ProtocolVersion, QoS};

/// Unacknowledged messages a publisher has at most, and what its Receive Maximum lets the broker have.
pub(crate) const WINDOW: usize = 5;

/// What a message is known by: who published it and its number there.
pub(crate) type Name = (usize, u64);

/// The Will Messages of Client `n` are named as if `WILLS + n` had published them.
pub(crate) const WILLS: usize = 100;

/// How long a Session outlives its Network Connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Lifetime {
    /// Not at all: each Network Connection starts clean.
    Connection,
    /// One second. 5.0 only.
    Brief,
    #[default]
    Lasting,
}

/// What kind of Will Message each CONNECT carries.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WillTerms {
    pub(crate) qos: QoS,
    pub(crate) delay_seconds: u32,
}

/// A message on its way to the broker.
#[derive(Debug, Clone)]
struct Outgoing {
    packet_id: PacketId,
    name: Name,
    topic: String,
    qos: QoS,
    retain: bool,
    is_released: bool,
    was_sent: bool,
}

/// One Client, its Session and what it saw.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) index: usize,
    pub(crate) version: ProtocolVersion,
    filters: Vec<(String, QoS)>,
    outgoing: Vec<Outgoing>,
    next_packet_id: u16,
    next_number: u64,
    incoming: BTreeSet<PacketId>,
    unacknowledged: Vec<(AcknowledgementKind, PacketId)>,
    is_open: bool,
    had_session: bool,
    pub(crate) lifetime: Lifetime,
    /// Whether its Session must still be there when it comes back.
    pub(crate) is_awaited: bool,
    pub(crate) will_terms: Option<WillTerms>,
    next_will: u64,
    /// The Will Message of the present Network Connection.
    will: Option<Name>,
    pub(crate) is_subscribed: bool,
    /// Messages that the broker acknowledged.
    pub(crate) acknowledged: BTreeSet<Name>,
    /// Times each message was received, in order of first arrival with topic and QoS.
    pub(crate) received: BTreeMap<Name, usize>,
    pub(crate) arrivals: Vec<(Name, String, QoS)>,
    /// Rules that the broker broke.
    pub(crate) complaints: Vec<String>,
}

impl Client {
    pub(crate) fn new(index: usize, version: ProtocolVersion, filters: Vec<(String, QoS)>) -> Self {
        Self {
            index,
            version,
            filters,
            outgoing: Vec::new(),
            next_packet_id: 0,
            next_number: 0,
            incoming: BTreeSet::new(),
            unacknowledged: Vec::new(),
            is_open: false,
            had_session: false,
            lifetime: Lifetime::default(),
            is_awaited: true,
            will_terms: None,
            next_will: 0,
            will: None,
            is_subscribed: false,
            acknowledged: BTreeSet::new(),
            received: BTreeMap::new(),
            arrivals: Vec::new(),
            complaints: Vec::new(),
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.is_open
    }

    /// Whether every exchange is finished.
    pub(crate) fn is_quiet(&self) -> bool {
        self.outgoing.is_empty()
            && self.incoming.is_empty()
            && self.unacknowledged.is_empty()
            && self.is_subscribed
    }

    /// Messages it sent and has no acknowledgement for.
    pub(crate) fn unacknowledged(&self) -> impl Iterator<Item = Name> {
        self.outgoing.iter().filter(|known| !known.is_released).map(|known| known.name)
    }

    pub(crate) fn filters(&self) -> &[(String, QoS)] {
        &self.filters
    }

    /// What it has not finished, for a complaint.
    pub(crate) fn unfinished(&self) -> String {
        let Self { is_open, is_subscribed, outgoing, incoming, unacknowledged, .. } = self;
        format!(
            "open {is_open}, subscribed {is_subscribed}, outgoing {outgoing:?}, incoming {incoming:?}, \
             unacknowledged {unacknowledged:?}"
        )
    }

    /// The Network Connection is gone; what was received on it need not be acknowledged any more. Returns the name of
    /// its Will Message, if the broker has confirmed to keep one.
    pub(crate) fn handle_cut(&mut self) -> Option<Name> {
        let will = self.will.take().filter(|_| self.is_open);
        self.is_open = false;
        self.unacknowledged.clear();
        let is_due = self.lifetime == Lifetime::Lasting && !self.delays_will();
        self.acknowledged.extend(will.filter(|_| is_due));
        will
    }

    /// Whether its Will Message is due some time after its Network Connection has ended.
    pub(crate) fn delays_will(&self) -> bool {
        self.will_terms.is_some_and(|terms| terms.delay_seconds > 0)
    }

    /// Sends DISCONNECT: the Will Message must not be published any more. [MQTT-3.14.4-3]
    pub(crate) fn disconnect(&mut self, out: &mut Vec<u8>) {
        self.will = None;
        self.is_open = false;
        Disconnect::new(ReasonCode::Success).encode(out, self.version);
    }

    /// The name and QoS of the Will Message in the last CONNECT.
    pub(crate) fn will(&self) -> Option<(Name, QoS)> {
        Some((self.will?, self.will_terms?.qos))
    }

    pub(crate) fn connect(&mut self, out: &mut Vec<u8>) {
        let client_id = format!("client-{}", self.index);
        self.will = self.will_terms.map(|_| (WILLS + self.index, self.next_will));
        self.next_will += 1;
        let (topic, payload) = self.will.map(|name| (topic_of(name), payload_of(name))).unzip();
        let will = self.will_terms.map(|terms| Will {
            qos: terms.qos,
            retain: false,
            topic: topic.as_deref().unwrap_or_default(),
            payload: payload.as_deref().unwrap_or_default().as_bytes(),
            delay_seconds: Some(terms.delay_seconds).filter(|delay| *delay > 0),
            message_expiry: None,
            properties: std::borrow::Cow::Borrowed(&[]),
        });
        let session_expiry_seconds = match self.lifetime {
            Lifetime::Connection => None,
            Lifetime::Brief => Some(1),
            Lifetime::Lasting => Some(u32::MAX),
        };
        let connect = Connect {
            version: self.version,
            bridge_bit: false,
            clean_start: self.lifetime == Lifetime::Connection,
            keep_alive_seconds: 0,
            client_id: &client_id,
            will,
            user_name: None,
            password: None,
            properties: ConnectProperties {
                session_expiry_seconds,
                receive_maximum: u16::try_from(WINDOW).ok(),
                topic_alias_maximum: Some(3),
                ..ConnectProperties::default()
            },
        };
        connect.encode(out, self.version);
    }

    /// The number of the message that it will publish next.
    pub(crate) fn next_number(&self) -> u64 {
        self.next_number
    }

    /// Publishes a new message if its window has room; returns its name.
    pub(crate) fn publish(
        &mut self,
        topic: &str,
        qos: QoS,
        retain: bool,
        out: &mut Vec<u8>,
    ) -> Option<Name> {
        if !self.is_open || self.outgoing.len() >= WINDOW {
            return None;
        }
        let name = (self.index, self.next_number);
        if qos == QoS::AtMostOnce {
            self.next_number += 1;
            encode_publish(name, (topic, qos, retain), None, self.version, out);
            return Some(name);
        }
        let packet_id = loop {
            self.next_packet_id = self.next_packet_id % 20 + 1;
            let packet_id = PacketId(NonZeroU16::new(self.next_packet_id)?);
            if self.outgoing.iter().all(|known| known.packet_id != packet_id) {
                break packet_id;
            }
        };
        self.next_number += 1;
        let topic = topic.to_owned();
        let mut outgoing =
            Outgoing { packet_id, name, topic, qos, retain, is_released: false, was_sent: false };
        send(&mut outgoing, self.version, out);
        self.outgoing.push(outgoing);
        Some(name)
    }

    /// Sends the acknowledgements it owes, oldest first, `count` at most.
    pub(crate) fn acknowledge(&mut self, count: usize, out: &mut Vec<u8>) {
        let count = count.min(self.unacknowledged.len());
        for (kind, packet_id) in self.unacknowledged.drain(..count) {
            encode_acknowledgement(out, kind, packet_id, ReasonCode::Success, self.version);
        }
    }

    pub(crate) fn handle(&mut self, packet: &Packet<'_>, out: &mut Vec<u8>) {
        match packet {
            Packet::Connack(connack) => {
                if connack.reason != ReasonCode::Success {
                    return;
                }
                self.handle_connack(connack.session_present, out);
            }
            Packet::Suback(suback) => {
                self.is_subscribed = suback.reasons.iter().all(|reason| !reason.is_failure());
                if !self.is_subscribed {
                    // The store was full: asked again until it is not.
                    self.subscribe(out);
                }
            }
            Packet::Publish(publish) => self.handle_publish(publish),
            Packet::Puback(puback) => {
                self.finish(puback.0.packet_id, puback.0.reason);
            }
            Packet::Pubrec(pubrec) => self.handle_pubrec(pubrec.0.packet_id, pubrec.0.reason, out),
            Packet::Pubrel(pubrel) => {
                self.incoming.remove(&pubrel.0.packet_id);
                self.unacknowledged.push((AcknowledgementKind::Pubcomp, pubrel.0.packet_id));
            }
            Packet::Pubcomp(pubcomp) => {
                let packet_id = pubcomp.0.packet_id;
                self.outgoing.retain(|known| known.packet_id != packet_id || !known.is_released);
            }
            Packet::Disconnect(_) | Packet::Pingresp => {}
            other => self.complaints.push(format!("unexpected {other:?}")),
        }
    }

    fn handle_connack(&mut self, session_present: bool, out: &mut Vec<u8>) {
        if self.lifetime == Lifetime::Connection && session_present {
            self.complaints.push("a clean start found a session".to_owned());
        } else if self.lifetime != Lifetime::Connection
            && self.had_session
            && self.is_awaited
            && !session_present
        {
            self.complaints.push("the broker has lost an acknowledged session".to_owned());
        }
        if !session_present {
            self.forget_session();
        }
        self.had_session = true;
        self.is_open = true;
        if !self.is_subscribed && !self.filters.is_empty() {
            self.subscribe(out);
        } else if self.filters.is_empty() {
            self.is_subscribed = true;
        }
        for outgoing in &mut self.outgoing {
            send(outgoing, self.version, out);
        }
    }

    /// Starts over with a new Session.
    fn forget_session(&mut self) {
        self.incoming.clear();
        if self.had_session {
            self.outgoing.clear();
            self.is_subscribed = false;
            self.received.clear();
            self.arrivals.clear();
        }
    }

    fn subscribe(&self, out: &mut Vec<u8>) {
        let filters = self.filters.iter().map(|(filter, qos)| {
            let options = SubscriptionOptions { qos: *qos, ..SubscriptionOptions::default() };
            (filter.as_str(), options)
        });
        let subscribe = Subscribe {
            packet_id: PacketId(NonZeroU16::MAX),
            subscription_id: None,
            user_properties: Vec::new(),
            filters: filters.collect(),
        };
        subscribe.encode(out, self.version);
    }

    fn handle_publish(&mut self, publish: &Publish<'_>) {
        let name = parse(publish.payload);
        let kind = match (publish.qos, publish.packet_id) {
            (QoS::AtLeastOnce, Some(packet_id)) => Some((AcknowledgementKind::Puback, packet_id)),
            (QoS::ExactlyOnce, Some(packet_id)) => Some((AcknowledgementKind::Pubrec, packet_id)),
            _ => None,
        };
        let is_repeated = publish.qos == QoS::ExactlyOnce
            && publish.packet_id.is_some_and(|packet_id| !self.incoming.insert(packet_id));
        if !is_repeated {
            let count = self.received.entry(name).or_default();
            *count += 1;
            if *count == 1 {
                // Topic Aliases hide the topic; the number's parity tells it as well.
                self.arrivals.push((name, topic_of(name), publish.qos));
            }
        }
        self.unacknowledged.extend(kind);
        let publishes = self.unacknowledged.iter();
        let inflight = publishes.filter(|(kind, _)| *kind == AcknowledgementKind::Puback).count();
        if self.version == ProtocolVersion::V5_0 && inflight > WINDOW {
            self.complaints.push(format!("Receive Maximum exceeded: {inflight}"));
        }
    }

    fn handle_pubrec(&mut self, packet_id: PacketId, reason: ReasonCode, out: &mut Vec<u8>) {
        if reason.is_failure() {
            self.outgoing.retain(|known| known.packet_id != packet_id);
            return;
        }
        let known = self.outgoing.iter_mut().find(|known| known.packet_id == packet_id);
        if let Some(outgoing) = known {
            outgoing.is_released = true;
            self.acknowledged.insert(outgoing.name);
        }
        let kind = AcknowledgementKind::Pubrel;
        encode_acknowledgement(out, kind, packet_id, ReasonCode::Success, self.version);
    }

    fn finish(&mut self, packet_id: PacketId, reason: ReasonCode) {
        let position = self.outgoing.iter().position(|known| known.packet_id == packet_id);
        let Some(position) = position else { return };
        let outgoing = self.outgoing.remove(position);
        if !reason.is_failure() {
            self.acknowledged.insert(outgoing.name);
        }
    }
}

/// Each message names itself in its payload.
fn parse(payload: &[u8]) -> Name {
    let text = std::str::from_utf8(payload).unwrap();
    let (publisher, number) = text.split_once(':').unwrap();
    (publisher.parse().unwrap(), number.parse().unwrap())
}

/// The topic of a message follows from its name; that of a Will from whose it is.
pub(crate) fn topic_of((publisher, number): Name) -> String {
    match number % 4 {
        _ if publisher >= WILLS => format!("will/{}", publisher - WILLS),
        0 | 1 => format!("plain/{publisher}"),
        2 => "shared/jobs".to_owned(),
        _ => format!("retained/{publisher}"),
    }
}

fn send(outgoing: &mut Outgoing, version: ProtocolVersion, out: &mut Vec<u8>) {
    let success = ReasonCode::Success;
    if outgoing.is_released {
        let kind = AcknowledgementKind::Pubrel;
        encode_acknowledgement(out, kind, outgoing.packet_id, success, version);
        return;
    }
    let terms = (outgoing.topic.as_str(), outgoing.qos, outgoing.retain);
    let sent = Some((outgoing.packet_id, outgoing.was_sent));
    encode_publish(outgoing.name, terms, sent, version, out);
    outgoing.was_sent = true;
}

pub(crate) fn payload_of(name: Name) -> String {
    format!("{}:{}", name.0, name.1)
}

/// PUBLISH, at QoS 1 and 2 with its Packet Identifier and whether it was sent before.
fn encode_publish(
    name: Name,
    (topic, qos, retain): (&str, QoS, bool),
    sent: Option<(PacketId, bool)>,
    version: ProtocolVersion,
    out: &mut Vec<u8>,
) {
    let payload = payload_of(name);
    let publish = Publish {
        dup: sent.is_some_and(|(_, was_sent)| was_sent),
        qos,
        retain,
        topic,
        packet_id: sent.map(|(packet_id, _)| packet_id),
        topic_alias: None,
        message_expiry: None,
        subscription_ids: Vec::new(),
        properties: std::borrow::Cow::Borrowed(&[]),
        payload: payload.as_bytes(),
    };
    publish.encode(out, version);
}
