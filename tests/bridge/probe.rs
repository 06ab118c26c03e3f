//! A local client that publishes to itself at QoS 1, over one connection.

use std::io::{Read, Write};
use std::net::TcpStream;

/// The client.
pub struct Probe {
    stream: TcpStream,
}

impl Probe {
    /// Connects and subscribes to `probe`.
    pub fn new(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(crate::process::PATIENCE)).unwrap();
        let mut probe = Self { stream };
        probe.stream.write_all(b"\x10\x11\0\x04MQTT\x04\x02\0\0\0\x05probe").unwrap();
        probe.expect(4);
        probe.stream.write_all(b"\x82\x0a\0\x01\0\x05probe\x01").unwrap();
        probe.expect(5);
        probe
    }

    fn expect(&mut self, count: usize) {
        self.stream.read_exact(&mut vec![0; count]).unwrap();
    }

    /// Publishes one message and waits for its PUBACK and for the message itself.
    pub fn exchange(&mut self) {
        self.stream.write_all(b"\x32\x0a\0\x05probe\0\x07x").unwrap();
        let mut head = [0; 2];
        let mut missing = 2;
        while missing > 0 {
            self.stream.read_exact(&mut head).unwrap();
            let mut body = vec![0; usize::from(head[1])];
            self.stream.read_exact(&mut body).unwrap();
            match head[0] >> 4 {
                3 => {
                    let id = &body[7..9];
                    self.stream.write_all(&[0x40, 2, id[0], id[1]]).unwrap();
                    missing -= 1;
                }
                4 => missing -= 1,
                other => panic!("packet type {other}"),
            }
        }
    }
}
