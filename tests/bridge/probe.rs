//! A local client that measures how long its own messages take: QoS 1, over one connection, to itself.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// The client.
pub struct Probe {
    stream: TcpStream,
}

/// What it measured, shortest first.
pub struct Latencies(Vec<Duration>);

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
    fn measure(&mut self) -> Duration {
        let started = Instant::now();
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
        started.elapsed()
    }

    /// Measures until `enough`, with a short pause between, in rounds of a hundred.
    pub fn measure_until(&mut self, mut enough: impl FnMut() -> bool) -> Latencies {
        let mut all = Vec::new();
        while all.is_empty() || !enough() {
            for _ in 0..100 {
                all.push(self.measure());
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        all.sort();
        Latencies(all)
    }
}

impl Latencies {
    /// Of a thousand, so many were as fast.
    pub fn permille(&self, share: usize) -> Duration {
        self.0[(self.0.len() - 1) * share / 1000]
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }
}
