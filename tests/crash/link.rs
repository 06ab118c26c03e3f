//! A TCP connection that never blocks, with packets at its end.

use std::io::{ErrorKind, Read, Result, Write};
use std::net::SocketAddr;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use petrel::packet::decode::{DecodeContext, Decoded, Sender, decode};
use petrel::packet::{Packet, ProtocolVersion};

/// A Network Connection to the broker.
pub(crate) struct Link {
    stream: TcpStream,
    unsent: Vec<u8>,
    received: Vec<u8>,
    /// Nothing can be sent any more; what the broker sent before may still be read.
    is_deaf: bool,
    is_over: bool,
}

impl Link {
    pub(crate) fn open(address: SocketAddr, registry: &Registry, token: Token) -> Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        let (unsent, received) = (Vec::new(), Vec::new());
        Ok(Self { stream, unsent, received, is_deaf: false, is_over: false })
    }

    /// Whether the other side has ended it, and everything was read.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.unsent.extend(bytes);
        self.flush();
    }

    /// Sends what it can of what is left.
    pub(crate) fn flush(&mut self) {
        while !self.unsent.is_empty() && !self.is_deaf {
            match self.stream.write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if is_passing(error.kind()) => return,
                Err(_) => self.is_deaf = true,
            }
        }
    }

    /// Reads what is there.
    pub(crate) fn read(&mut self) {
        let mut buffer = [0; 16 * 1024];
        while !self.is_over {
            match self.stream.read(&mut buffer) {
                Ok(0) => self.is_over = true,
                Ok(count) => self.received.extend(&buffer[..count]),
                Err(error) if is_passing(error.kind()) => return,
                Err(_) => self.is_over = true,
            }
        }
    }

    /// Hands over every whole packet that was read; returns how many there were.
    pub(crate) fn packets(
        &mut self,
        version: ProtocolVersion,
        mut handle: impl FnMut(&Packet<'_>),
    ) -> usize {
        let context = DecodeContext { version, max_packet_bytes: u32::MAX, sender: Sender::Server };
        let (mut taken, mut packets) = (0, 0);
        loop {
            match decode(&self.received[taken..], &context) {
                Ok(Decoded::Packet { packet, length }) => {
                    handle(&packet);
                    taken += length;
                    packets += 1;
                }
                Ok(Decoded::Incomplete { .. }) => break,
                Err(error) => panic!("the broker sent something malformed: {error}"),
            }
        }
        self.received.drain(..taken);
        packets
    }
}

/// Whether it is worth trying again; a connection that is still being opened is not connected.
fn is_passing(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::NotConnected)
}
