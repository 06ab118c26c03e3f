//! MQTT packets as bytes, because a hostile Client does not use a library.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// For what must come: far longer than anything takes, only to end at all.
const PATIENCE: Duration = Duration::from_secs(900);

/// A Network Connection of MQTT 5.0 that has been let in.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
}

impl Client {
    /// Connects with a clean start and the default Session Expiry Interval, which ends the Session with the connection.
    pub(crate) fn connect(address: SocketAddr, client_id: &str) -> Self {
        Self::connect_with(address, client_id, 0)
    }

    /// Connects with a clean start and this Session Expiry Interval in seconds. Wants no Reason Strings: the answers are
    /// compared byte by byte.
    pub(crate) fn connect_with(address: SocketAddr, client_id: &str, expiry: u32) -> Self {
        let mut body = b"\x00\x04MQTT\x05\x02\x00\x00\x07\x17\x00\x11".to_vec();
        body.extend(expiry.to_be_bytes());
        body.extend(text(client_id));
        let mut client = Self::open(address);
        client.send(&packet(0x10, &body));
        let (first, body) = client.receive();
        assert_eq!((first, body[1]), (0x20, 0), "CONNACK");
        client
    }

    /// A Network Connection that has said nothing yet.
    pub(crate) fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next packet: its first byte, and what follows its length.
    pub(crate) fn receive(&mut self) -> (u8, Vec<u8>) {
        let mut first = [0];
        self.stream.read_exact(&mut first).unwrap();
        let mut length = 0;
        for shift in [0, 7, 14, 21] {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).unwrap();
            length |= usize::from(byte[0] & 0x7F) << shift;
            if byte[0] & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).unwrap();
        (first[0], body)
    }

    /// Passes over packets until one of this type comes.
    pub(crate) fn receive_until(&mut self, packet_type: u8) -> Vec<u8> {
        loop {
            let (first, body) = self.receive();
            if first >> 4 == packet_type {
                return body;
            }
            assert_ne!(first >> 4, 14, "DISCONNECT: {body:02x?}");
        }
    }

    /// Waits until everything sent so far has been handled.
    pub(crate) fn ping(&mut self) {
        self.send(b"\xC0\x00");
        self.receive_until(13);
    }
}

/// A packet with this first byte.
pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut length = body.len();
    loop {
        let low = u8::try_from(length & 0x7F).unwrap();
        length >>= 7;
        if length == 0 {
            out.push(low);
            break;
        }
        out.push(low | 0x80);
    }
    out.extend(body);
    out
}

/// A string with its length before it.
pub(crate) fn text(text: &str) -> Vec<u8> {
    let mut out = u16::try_from(text.len()).unwrap().to_be_bytes().to_vec();
    out.extend(text.as_bytes());
    out
}

/// SUBSCRIBE to all of these filters with these options.
pub(crate) fn subscribe<F: AsRef<str>>(filters: &[F], options: u8) -> Vec<u8> {
    let mut body = vec![0, 1, 0];
    for filter in filters {
        body.extend(text(filter.as_ref()));
        body.push(options);
    }
    packet(0x82, &body)
}

/// UNSUBSCRIBE from all of these filters.
pub(crate) fn unsubscribe<F: AsRef<str>>(filters: &[F]) -> Vec<u8> {
    let mut body = vec![0, 2, 0];
    for filter in filters {
        body.extend(text(filter.as_ref()));
    }
    packet(0xA2, &body)
}

/// PUBLISH of QoS 0; `first` is 0x30, or 0x31 to retain it.
pub(crate) fn publish(first: u8, topic: &str, payload: &[u8]) -> Vec<u8> {
    packet(first, &[text(topic), vec![0], payload.to_vec()].concat())
}

/// PUBLISH of QoS 1.
pub(crate) fn publish_qos1(topic: &str, packet_id: u16, payload: &[u8]) -> Vec<u8> {
    packet(
        0x32,
        &[text(topic), packet_id.to_be_bytes().to_vec(), vec![0], payload.to_vec()].concat(),
    )
}
