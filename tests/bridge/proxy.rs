//! A TCP proxy that knows where Control Packets begin, and cuts the connection at one of them.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

/// Where to cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// The packet type, for instance 3 for PUBLISH.
    pub packet: u8,
    /// Whether the client (the bridge) or the server sends it.
    pub from_client: bool,
    /// Whether the packet still arrives.
    pub after: bool,
}

/// A running proxy. It ends with the process.
pub struct Proxy {
    pub port: u16,
    cuts: Arc<AtomicU32>,
    is_silent: Arc<AtomicBool>,
}

struct Shared {
    cut: Option<Cut>,
    left: AtomicU32,
    cuts: Arc<AtomicU32>,
    is_silent: Arc<AtomicBool>,
}

impl Proxy {
    /// Forwards to `target` and cuts `times` connections at `cut`.
    pub fn start(target: u16, cut: Option<Cut>, times: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let cuts = Arc::new(AtomicU32::new(0));
        let is_silent = Arc::new(AtomicBool::new(false));
        let shared = Arc::new(Shared {
            cut,
            left: AtomicU32::new(times),
            cuts: Arc::clone(&cuts),
            is_silent: Arc::clone(&is_silent),
        });
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else { continue };
                let back = (server.try_clone().unwrap(), client.try_clone().unwrap());
                let (there, here) = (Arc::clone(&shared), Arc::clone(&shared));
                thread::spawn(move || forward(client, server, true, &there));
                thread::spawn(move || forward(back.0, back.1, false, &here));
            }
        });
        Self { port, cuts, is_silent }
    }

    /// Connections cut so far.
    pub fn cuts(&self) -> u32 {
        self.cuts.load(Ordering::SeqCst)
    }

    /// From now on nothing passes, though the connections stay: a cable that was pulled.
    pub fn pull_the_cable(&self) {
        self.is_silent.store(true, Ordering::SeqCst);
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream, from_client: bool, shared: &Shared) {
    let mut buffer = Vec::new();
    let mut chunk = vec![0; 65_536];
    while let Ok(count @ 1..) = from.read(&mut chunk) {
        if shared.is_silent.load(Ordering::SeqCst) {
            continue;
        }
        buffer.extend_from_slice(&chunk[..count]);
        while let Some(length) = packet_length(&buffer) {
            let is_it = shared
                .cut
                .is_some_and(|cut| cut.from_client == from_client && cut.packet == buffer[0] >> 4);
            let take = |left: u32| left.checked_sub(1);
            let is_cut =
                is_it && shared.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok();
            let packet: Vec<u8> = buffer.drain(..length).collect();
            let passes = !is_cut || shared.cut.is_some_and(|cut| cut.after);
            if passes && to.write_all(&packet).is_err() {
                break;
            }
            if is_cut {
                shared.cuts.fetch_add(1, Ordering::SeqCst);
                // What was written shall arrive; nothing more does.
                thread::sleep(std::time::Duration::from_millis(50));
                let _closed = (to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both));
                return;
            }
        }
    }
    let _closed = (to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both));
}

fn packet_length(bytes: &[u8]) -> Option<usize> {
    let mut remaining = 0;
    for (index, byte) in bytes.iter().skip(1).take(4).enumerate() {
        remaining |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            let length = 2 + index + remaining;
            return (bytes.len() >= length).then_some(length);
        }
    }
    None
}
