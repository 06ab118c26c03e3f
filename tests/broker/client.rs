//! A client that sends exact bytes and expects exact packets or a close, with deadlines.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Instant;

use crate::broker::{DEADLINE, shared, unique};
use crate::packet::{
    Acknowledgement, CONNACK, Connack, Connect, DISCONNECT, PINGREQ, PINGRESP, PUBACK, PUBCOMP,
    PUBLISH, PUBREC, PUBREL, Packet, Properties, Publish, SUBACK, UNSUBACK, V5, Version,
    acknowledge, disconnect, subscribe, unsubscribe,
};

/// One Network Connection.
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Messages that came while an answer was awaited, to be read next.
    waiting: VecDeque<Packet>,
    version: Version,
    next_id: u16,
    /// The CONNACK that accepted it.
    pub connack: Option<Connack>,
}

impl Client {
    /// A Network Connection to the shared broker on which nothing was sent yet.
    pub fn open(version: Version) -> Self {
        Self::open_to(shared(), version)
    }

    /// The same to another broker.
    pub fn open_to(address: &str, version: Version) -> Self {
        let stream = TcpStream::connect(address).expect("the broker accepts");
        stream.set_nodelay(true).unwrap();
        let (buffer, waiting) = (Vec::new(), VecDeque::new());
        Self { stream, buffer, waiting, version, next_id: 1, connack: None }
    }

    /// Connected to the shared broker with a Client Identifier of its own and a Session that ends with it.
    pub fn new(version: Version) -> Self {
        Self::connect(&Connect::new(version, unique("c")))
    }

    /// Connected to the shared broker; the broker must accept.
    pub fn connect(connect: &Connect) -> Self {
        Self::connect_to(shared(), connect)
    }

    /// The same to another broker.
    pub fn connect_to(address: &str, connect: &Connect) -> Self {
        let mut client = Self::open_to(address, connect.version);
        client.send(connect.encode());
        let connack = client.expect_connack();
        assert_eq!(connack.reason, 0, "the broker refuses {connect:?}");
        client.connack = Some(connack);
        client
    }

    /// Whether the CONNACK said Session Present.
    pub fn session_present(&self) -> bool {
        self.connack.as_ref().is_some_and(|connack| connack.session_present)
    }

    /// Sends bytes as they are. A broker that has closed already is not an error here: what follows shows it.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        if let Err(error) = self.stream.write_all(bytes.as_ref()) {
            let gone = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
            assert!(gone.contains(&error.kind()), "cannot send: {error}");
        }
    }

    /// The next packet, or `None` when the broker has closed the Network Connection.
    pub fn read(&mut self) -> Option<Packet> {
        self.waiting.pop_front().or_else(|| self.read_network())
    }

    fn read_network(&mut self) -> Option<Packet> {
        let started = Instant::now();
        loop {
            if let Some(packet) = Packet::take(&mut self.buffer, self.version) {
                return Some(packet);
            }
            let left = DEADLINE.checked_sub(started.elapsed()).filter(|left| !left.is_zero());
            let left = left.unwrap_or_else(|| panic!("nothing within {DEADLINE:?}"));
            self.stream.set_read_timeout(Some(left)).unwrap();
            let mut chunk = [0; 65536];
            match self.stream.read(&mut chunk) {
                Ok(0) => {
                    assert!(self.buffer.is_empty(), "closed within a packet: {:02x?}", self.buffer);
                    return None;
                }
                Ok(count) => self.buffer.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                // A read with a timeout is also interrupted when the process is stopped and goes on. [signal(7)]
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                    ) => {}
                Err(error) => panic!("cannot read: {error}"),
            }
        }
    }

    /// The next packet, which must be of this kind.
    pub fn expect(&mut self, kind: u8) -> Packet {
        let packet =
            self.read().unwrap_or_else(|| panic!("closed, expected a packet of type {kind}"));
        assert_eq!(packet.kind(), kind, "expected a packet of type {kind}: {packet:02x?}");
        packet
    }

    /// The next packet that is not a PUBLISH, which must be of this kind: a broker may send messages in between.
    pub fn expect_answer(&mut self, kind: u8) -> Packet {
        loop {
            let packet = self.read_network();
            let packet =
                packet.unwrap_or_else(|| panic!("closed, expected a packet of type {kind}"));
            if packet.kind() == kind {
                return packet;
            }
            assert_eq!(packet.kind(), PUBLISH, "expected a packet of type {kind}: {packet:02x?}");
            self.waiting.push_back(packet);
        }
    }

    /// The next packet, to the byte.
    pub fn expect_bytes(&mut self, bytes: &[u8]) {
        let packet = self.read().unwrap_or_else(|| panic!("closed, expected {bytes:02x?}"));
        assert_eq!(crate::packet::frame(packet.first, &packet.body), bytes);
    }

    /// A CONNACK, accepting or not.
    pub fn expect_connack(&mut self) -> Connack {
        self.expect(CONNACK).connack(self.version)
    }

    /// A refusing CONNACK, then the end.
    pub fn expect_refusal(&mut self, reason: u8) {
        let connack = self.expect_connack();
        assert_eq!(connack.reason, reason, "refused with {:#04x}", connack.reason);
        assert!(!connack.session_present, "Session Present in a refusal");
        self.expect_closed();
    }

    /// The end of the Network Connection, and nothing before it.
    pub fn expect_closed(&mut self) {
        if let Some(packet) = self.read() {
            panic!("expected the end: {packet:02x?}");
        }
    }

    /// The end for breaking a rule: DISCONNECT with this Reason Code first in 5.0, silence before.
    pub fn expect_error(&mut self, reason: u8) {
        if self.version == V5 {
            let (found, _) = self.expect(DISCONNECT).disconnect();
            assert_eq!(found, reason, "DISCONNECT with {found:#04x} instead of {reason:#04x}");
        }
        self.expect_closed();
    }

    /// The same where the specification leaves the choice between Reason Codes.
    pub fn expect_error_among(&mut self, reasons: &[u8]) {
        if self.version == V5 {
            let (found, _) = self.expect(DISCONNECT).disconnect();
            assert!(
                reasons.contains(&found),
                "DISCONNECT with {found:#04x}, none of {reasons:#04x?}"
            );
        }
        self.expect_closed();
    }

    /// The end, whatever is said before it about the reason.
    pub fn expect_any_error(&mut self) {
        let packet = self.read();
        if let Some(packet) = packet {
            let refused = match packet.kind() {
                DISCONNECT if self.version == V5 => packet.disconnect().0 >= 0x80,
                CONNACK => packet.connack(self.version).reason != 0,
                _ => false,
            };
            assert!(refused, "expected the end: {packet:02x?}");
            self.expect_closed();
        }
    }

    /// Everything sent before was handled, and nothing came meanwhile.
    pub fn expect_nothing(&mut self) {
        self.send(PINGREQ);
        let packet = self.read().expect("the Network Connection is open");
        assert_eq!(packet.first, PINGRESP << 4, "expected nothing: {packet:02x?}");
    }

    /// Everything sent before was handled.
    pub fn settle(&mut self) {
        self.send(PINGREQ);
        self.expect_answer(PINGRESP);
    }

    /// Messages that came while answers were awaited.
    pub fn take_messages(&mut self) -> Vec<Publish> {
        self.waiting.drain(..).map(|packet| packet.publish(self.version)).collect()
    }

    /// A PUBLISH, which is left unacknowledged.
    pub fn expect_publish(&mut self) -> Publish {
        self.expect(PUBLISH).publish(self.version)
    }

    /// A PUBLISH with this payload, acknowledged to the end.
    pub fn expect_message(&mut self, payload: &str) -> Publish {
        let publish = self.receive();
        assert_eq!(publish.text(), payload);
        publish
    }

    /// A PUBLISH, acknowledged to the end.
    pub fn receive(&mut self) -> Publish {
        let publish = self.expect_publish();
        self.complete(&publish);
        publish
    }

    /// Acknowledges a received PUBLISH to the end.
    pub fn complete(&mut self, publish: &Publish) {
        match publish.qos {
            1 => self.send(acknowledge(PUBACK, publish.id)),
            2 => {
                self.send(acknowledge(PUBREC, publish.id));
                let pubrel = self.expect_answer(PUBREL).acknowledgement(self.version);
                assert_eq!((pubrel.id, pubrel.reason), (publish.id, 0));
                self.send(acknowledge(PUBCOMP, publish.id));
            }
            _ => {}
        }
    }

    /// PUBACK, PUBREC, PUBREL or PUBCOMP.
    pub fn expect_acknowledgement(&mut self, kind: u8) -> Acknowledgement {
        let packet = self.expect(kind);
        let flags = if kind == PUBREL { 2 } else { 0 };
        assert_eq!(packet.first, kind << 4 | flags, "wrong flags: {packet:02x?}");
        packet.acknowledgement(self.version)
    }

    /// The same for this Packet Identifier and Reason Code.
    pub fn expect_acknowledged(&mut self, kind: u8, id: u16, reason: u8) {
        let found = self.expect_acknowledgement(kind);
        assert_eq!((found.id, found.reason), (id, reason), "type {kind}: {found:02x?}");
    }

    /// A Packet Identifier not used on this Network Connection before.
    pub fn fresh_id(&mut self) -> u16 {
        self.next_id += 1;
        self.next_id - 1
    }

    /// Publishes and waits until the broker owns the message.
    pub fn publish(&mut self, topic: &str, qos: u8, payload: &str) {
        self.publish_with(Publish::new(topic, payload).qos(qos, 0));
    }

    /// Publishes with the options given (but its own Packet Identifier) and waits until the broker owns the message.
    pub fn publish_with(&mut self, mut publish: Publish) {
        publish.id = self.fresh_id();
        self.send(publish.encode(self.version));
        match publish.qos {
            0 => self.settle(),
            1 => {
                let puback = self.expect_answer(PUBACK).acknowledgement(self.version);
                assert_eq!(puback.id, publish.id);
                assert!(puback.reason < 0x80, "PUBACK {:#04x}", puback.reason);
            }
            _ => {
                let pubrec = self.expect_answer(PUBREC).acknowledgement(self.version);
                assert_eq!(pubrec.id, publish.id);
                assert!(pubrec.reason < 0x80, "PUBREC {:#04x}", pubrec.reason);
                self.send(acknowledge(PUBREL, publish.id));
                let pubcomp = self.expect_answer(PUBCOMP).acknowledgement(self.version);
                assert_eq!((pubcomp.id, pubcomp.reason), (publish.id, 0));
            }
        }
    }

    /// Subscribes; the QoS must be granted as requested.
    pub fn subscribe(&mut self, filter: &str, qos: u8) {
        assert_eq!(self.subscribe_with(&Properties::new(), &[(filter, qos)]), [qos]);
    }

    /// Subscribes with raw Subscription Options and returns the Reason Codes.
    pub fn subscribe_with(&mut self, properties: &Properties, filters: &[(&str, u8)]) -> Vec<u8> {
        let id = self.fresh_id();
        self.send(subscribe(self.version, id, properties, filters));
        let (found, codes) = self.expect_answer(SUBACK).codes(self.version);
        assert_eq!(found, id);
        codes
    }

    /// Unsubscribes and returns the Reason Codes (none before 5.0).
    pub fn unsubscribe(&mut self, filters: &[&str]) -> Vec<u8> {
        let id = self.fresh_id();
        self.send(unsubscribe(self.version, id, filters));
        let (found, codes) = self.expect_answer(UNSUBACK).codes(self.version);
        assert_eq!(found, id);
        codes
    }

    /// Whether something has come that was not read yet, or the end.
    pub fn has_input(&self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let found = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).unwrap();
        found.is_ok()
    }

    /// Sends DISCONNECT and waits until the broker has closed.
    pub fn disconnect(mut self) {
        self.send([0xE0, 0]);
        self.expect_closed();
    }

    /// Sends DISCONNECT with a Reason Code and properties (5.0) and waits until the broker has closed.
    pub fn disconnect_with(mut self, reason: u8, properties: &Properties) {
        self.send(disconnect(reason, properties));
        self.expect_closed();
    }

    /// Ends the Network Connection without a word.
    pub fn cut(self) {
        // Fails when the broker was quicker, which is as good.
        let _gone = self.stream.shutdown(Shutdown::Both);
    }

    /// Closes with a reset, whatever is left to read.
    pub fn reset(self) {
        let socket = socket2::SockRef::from(&self.stream);
        socket.set_linger(Some(std::time::Duration::ZERO)).unwrap();
    }

    /// Sends, until the broker has closed: then false.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.set_write_timeout(Some(DEADLINE)).unwrap();
        match self.stream.write_all(bytes) {
            Ok(()) => true,
            Err(error) => {
                let gone = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
                assert!(gone.contains(&error.kind()), "cannot send: {error}");
                false
            }
        }
    }

    /// Closes the sending side only.
    pub fn half_close(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }
}
