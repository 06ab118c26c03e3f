//! The baseline for benchmarks: the minimum that a broker can do with sockets. One thread and one epoll loop parse
//! packets, look up exact Topic Names in a table and copy messages. There are no wildcards, Sessions, limits,
//! retransmissions or storage, and no checks beyond lengths, so it is not a usable broker. What a real one costs is
//! given as a multiple of it in `docs/performance.md`.
//!
//!     cargo run --release --example bare_loop -- 18830
//!
//! MQTT 3.1.1 only.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

/// One read takes up to this: a saturated publisher then costs one system call for some thousand messages.
const READ_BYTES: usize = 256 * 1024;
/// A reader this far behind is closed, or a stopped one would exhaust the memory.
const MAX_OUTPUT_BYTES: usize = 64 * 1024 * 1024;
const LISTENER: Token = Token(usize::MAX);

struct Connection {
    stream: TcpStream,
    /// Start of a packet whose rest has not arrived.
    partial: Vec<u8>,
    output: Vec<u8>,
    sent_bytes: usize,
    last_packet_id: u16,
    is_dirty: bool,
    is_over: bool,
}

#[derive(Clone, Copy)]
struct Subscription {
    slot: usize,
    qos: u8,
}

type Topics = HashMap<Box<[u8]>, Vec<Subscription>, foldhash::fast::RandomState>;

struct BareLoop {
    listener: TcpListener,
    poll: Poll,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    topics: Topics,
    dirty: Vec<usize>,
    scratch: Vec<u8>,
}

fn main() -> io::Result<()> {
    let port = std::env::args().nth(1).and_then(|port| port.parse().ok()).unwrap_or(18_830);
    BareLoop::bind(port)?.run()
}

impl BareLoop {
    fn bind(port: u16) -> io::Result<Self> {
        let mut listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
        let poll = Poll::new()?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self {
            listener,
            poll,
            connections: Vec::new(),
            free: Vec::new(),
            topics: Topics::default(),
            dirty: Vec::new(),
            scratch: vec![0; READ_BYTES],
        })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1_024);
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => result?,
            }
            for event in &events {
                if event.token() == LISTENER {
                    self.accept()?;
                    continue;
                }
                if event.is_readable() {
                    self.read(event.token().0);
                }
                if event.is_writable() {
                    self.mark_dirty(event.token().0);
                }
            }
            self.flush();
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            stream.set_nodelay(true)?;
            let slot = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut stream, Token(slot), interest)?;
            self.connections[slot] = Some(Connection {
                stream,
                partial: Vec::new(),
                output: Vec::new(),
                sent_bytes: 0,
                last_packet_id: 0,
                is_dirty: false,
                is_over: false,
            });
        }
    }

    /// Reads until the socket is empty: a short read says so without another system call.
    fn read(&mut self, slot: usize) {
        let mut scratch = std::mem::take(&mut self.scratch);
        while let Some(Some(connection)) = self.connections.get_mut(slot) {
            let carried = connection.partial.len();
            if scratch.len() < carried + READ_BYTES / 2 {
                scratch.resize(carried + READ_BYTES, 0);
            }
            scratch[..carried].copy_from_slice(&connection.partial);
            let count = match connection.stream.read(&mut scratch[carried..]) {
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => 0,
            };
            if count == 0 {
                self.end(slot);
                break;
            }
            let filled = carried + count;
            let Some(used) = self.handle_packets(slot, &scratch[..filled]) else {
                self.end(slot);
                break;
            };
            if let Some(Some(connection)) = self.connections.get_mut(slot) {
                connection.partial.clear();
                connection.partial.extend_from_slice(&scratch[used..filled]);
            }
            if filled < scratch.len() {
                break;
            }
        }
        self.scratch = scratch;
    }

    /// Handles the whole packets in `bytes` and says how many bytes they took; `None` ends the connection.
    fn handle_packets(&mut self, slot: usize, bytes: &[u8]) -> Option<usize> {
        let mut used = 0;
        while let Some((header_bytes, length)) = packet_length(&bytes[used..]) {
            let Some(packet) = bytes.get(used..used + length) else { break };
            used += length;
            let body = &packet[header_bytes..];
            match packet[0] >> 4 {
                3 => self.route(slot, packet[0], body)?,
                // PUBACK and PUBCOMP of subscribers end here: nothing is resent.
                4 | 7 => {}
                5 => self.answer(slot, &[0x62, 2, *body.first()?, *body.get(1)?]),
                6 => self.answer(slot, &[0x70, 2, *body.first()?, *body.get(1)?]),
                1 => self.answer(slot, &[0x20, 2, 0, 0]),
                8 => self.subscribe(slot, body)?,
                12 => self.answer(slot, &[0xD0, 0]),
                _ => return None,
            }
        }
        Some(used)
    }

    fn route(&mut self, slot: usize, first: u8, body: &[u8]) -> Option<()> {
        let qos = first >> 1 & 3;
        let topic_end = 2 + usize::from(u16::from_be_bytes(*body.first_chunk()?));
        let topic = body.get(2..topic_end)?;
        let payload_at = if qos > 0 { topic_end + 2 } else { topic_end };
        let payload = body.get(payload_at..)?;
        if qos > 0 {
            let kind = if qos == 1 { 0x40 } else { 0x50 };
            self.answer(slot, &[kind, 2, body[topic_end], body[topic_end + 1]]);
        }
        let Some(subscriptions) = self.topics.get(topic) else { return Some(()) };
        for subscription in subscriptions {
            let Some(Some(to)) = self.connections.get_mut(subscription.slot) else { continue };
            let qos = qos.min(subscription.qos);
            let output = &mut to.output;
            output.push(0x30 | qos << 1);
            push_length(output, topic_end + payload.len() + if qos > 0 { 2 } else { 0 });
            output.extend_from_slice(&body[..topic_end]);
            if qos > 0 {
                to.last_packet_id = to.last_packet_id.checked_add(1).unwrap_or(1);
                output.extend_from_slice(&to.last_packet_id.to_be_bytes());
            }
            output.extend_from_slice(payload);
            if !to.is_dirty {
                to.is_dirty = true;
                self.dirty.push(subscription.slot);
            }
        }
        Some(())
    }

    fn subscribe(&mut self, slot: usize, body: &[u8]) -> Option<()> {
        let mut reasons = Vec::new();
        let mut rest = body.get(2..)?;
        while !rest.is_empty() {
            let end = 2 + usize::from(u16::from_be_bytes(*rest.first_chunk()?));
            let qos = *rest.get(end)?;
            let topic = Box::from(rest.get(2..end)?);
            self.topics.entry(topic).or_default().push(Subscription { slot, qos });
            reasons.push(qos);
            rest = &rest[end + 1..];
        }
        let mut suback = vec![0x90];
        push_length(&mut suback, 2 + reasons.len());
        suback.extend_from_slice(&body[..2]);
        suback.extend_from_slice(&reasons);
        self.answer(slot, &suback);
        Some(())
    }

    fn answer(&mut self, slot: usize, bytes: &[u8]) {
        if let Some(Some(connection)) = self.connections.get_mut(slot) {
            connection.output.extend_from_slice(bytes);
            if !connection.is_dirty {
                connection.is_dirty = true;
                self.dirty.push(slot);
            }
        }
    }

    fn mark_dirty(&mut self, slot: usize) {
        self.answer(slot, &[]);
    }

    /// Writes what all connections have to say, once per round of events.
    fn flush(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for slot in dirty.drain(..) {
            let Some(Some(connection)) = self.connections.get_mut(slot) else { continue };
            connection.is_dirty = false;
            connection.flush();
            if connection.is_over {
                self.end(slot);
            }
        }
        self.dirty = dirty;
    }

    fn end(&mut self, slot: usize) {
        let Some(mut connection) = self.connections.get_mut(slot).and_then(Option::take) else {
            return;
        };
        for subscriptions in self.topics.values_mut() {
            subscriptions.retain(|subscription| subscription.slot != slot);
        }
        self.topics.retain(|_, subscriptions| !subscriptions.is_empty());
        // Closing does the same.
        let _closed_anyway = self.poll.registry().deregister(&mut connection.stream);
        self.free.push(slot);
    }
}

impl Connection {
    fn flush(&mut self) {
        while self.sent_bytes < self.output.len() {
            match self.stream.write(&self.output[self.sent_bytes..]) {
                Ok(count) => self.sent_bytes += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.is_over = self.output.len() - self.sent_bytes > MAX_OUTPUT_BYTES;
                    return;
                }
                Err(_) => {
                    self.is_over = true;
                    return;
                }
            }
        }
        self.output.clear();
        self.sent_bytes = 0;
    }
}

/// Length of the fixed header and of the whole packet, once known.
fn packet_length(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut remaining = 0;
    for (i, byte) in bytes.get(1..)?.iter().take(4).enumerate() {
        remaining |= usize::from(byte & 0x7F) << (7 * i);
        if byte & 0x80 == 0 {
            return Some((i + 2, i + 2 + remaining));
        }
    }
    None
}

#[expect(clippy::cast_possible_truncation, reason = "masked to seven bits")]
fn push_length(output: &mut Vec<u8>, mut length: usize) {
    while length >= 128 {
        output.push((length & 0x7F) as u8 | 0x80);
        length >>= 7;
    }
    output.push(length as u8);
}
