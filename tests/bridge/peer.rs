//! A scripted remote broker: it answers as told, with one line of code for each packet.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::spawn;

/// One packet of a client.
#[derive(Debug, Clone)]
pub struct Packet {
    pub first: u8,
    pub body: Vec<u8>,
}

pub const CONNECT: u8 = 1;
pub const PUBLISH: u8 = 3;
pub const PUBREL: u8 = 6;
pub const SUBSCRIBE: u8 = 8;
pub const PINGREQ: u8 = 12;

impl Packet {
    pub fn kind(&self) -> u8 {
        self.first >> 4
    }

    /// Protocol level of a CONNECT with the bridge bit, and its flags.
    pub fn level(&self) -> u8 {
        let name = usize::from(u16::from_be_bytes([self.body[0], self.body[1]]));
        self.body[2 + name]
    }

    pub fn has_will(&self) -> bool {
        let name = usize::from(u16::from_be_bytes([self.body[0], self.body[1]]));
        self.body[3 + name] & 4 != 0
    }

    /// Topic Name of a PUBLISH.
    pub fn topic(&self) -> String {
        let length = usize::from(u16::from_be_bytes([self.body[0], self.body[1]]));
        String::from_utf8_lossy(&self.body[2..2 + length]).into_owned()
    }

    fn id(&self) -> [u8; 2] {
        match self.kind() {
            PUBLISH if self.first & 6 == 0 => [0, 0],
            PUBLISH => {
                let length = usize::from(u16::from_be_bytes([self.body[0], self.body[1]]));
                [self.body[2 + length], self.body[3 + length]]
            }
            _ => [self.body[0], self.body[1]],
        }
    }

    /// What a broker of 3.1.1 or 5.0 that likes everything says to it.
    pub fn usual_answer(&self, is_latest: bool) -> Vec<u8> {
        let [high, low] = self.id();
        match (self.kind(), (self.first >> 1) & 3) {
            (CONNECT, _) if is_latest => vec![0x20, 3, 0, 0, 0],
            (CONNECT, _) => vec![0x20, 2, 0, 0],
            (PUBLISH, 1) => vec![0x40, 2, high, low],
            (PUBLISH, 2) => vec![0x50, 2, high, low],
            (PUBREL, _) => vec![0x70, 2, high, low],
            (SUBSCRIBE, _) if is_latest => vec![0x90, 4, high, low, 0, 1],
            (SUBSCRIBE, _) => vec![0x90, 3, high, low, 1],
            (10, _) if is_latest => vec![0xB0, 4, high, low, 0, 0],
            (10, _) => vec![0xB0, 2, high, low],
            (PINGREQ, _) => vec![0xD0, 0],
            _ => Vec::new(),
        }
    }
}

/// What it does about a packet.
pub enum Answer {
    /// What every broker does.
    Usual,
    /// These bytes.
    Bytes(Vec<u8>),
    /// Nothing.
    Silence,
    /// It closes the connection.
    Close,
    /// It closes the connection when it has answered the next packet.
    Later,
}

/// The broker. It ends with the process.
pub struct Peer {
    pub port: u16,
    seen: Arc<Mutex<Vec<Packet>>>,
}

impl Peer {
    pub fn new(habit: impl Fn(&Packet) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let habit = Arc::new(habit);
        let all = Arc::clone(&seen);
        spawn(move || {
            for stream in listener.incoming().flatten() {
                let (habit, all) = (Arc::clone(&habit), Arc::clone(&all));
                spawn(move || serve(stream, &*habit, &all));
            }
        });
        Self { port, seen }
    }

    /// What clients have sent so far.
    pub fn seen(&self) -> Vec<Packet> {
        self.seen.lock().unwrap().clone()
    }

    /// How often they connected.
    pub fn connects(&self) -> usize {
        self.seen().iter().filter(|packet| packet.kind() == CONNECT).count()
    }
}

fn serve(mut stream: TcpStream, habit: &dyn Fn(&Packet) -> Answer, all: &Mutex<Vec<Packet>>) {
    let (mut is_latest, mut closes) = (false, false);
    while let Some(packet) = read(&mut stream) {
        if packet.kind() == CONNECT {
            is_latest = packet.level() == 5;
        }
        let answer = habit(&packet);
        all.lock().unwrap().push(packet.clone());
        let bytes = match answer {
            Answer::Usual => packet.usual_answer(is_latest),
            Answer::Bytes(bytes) => bytes,
            Answer::Silence => Vec::new(),
            Answer::Close => return,
            Answer::Later => {
                closes = true;
                continue;
            }
        };
        if stream.write_all(&bytes).is_err() || closes {
            return;
        }
    }
}

fn read(stream: &mut TcpStream) -> Option<Packet> {
    let mut first = [0];
    stream.read_exact(&mut first).ok()?;
    let (mut length, mut shift) = (0_usize, 0);
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        length |= usize::from(byte[0] & 0x7F) << shift;
        shift += 7;
        if byte[0] & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    body.resize(length.max(2), 0);
    Some(Packet { first: first[0], body })
}
