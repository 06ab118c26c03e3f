//! Clients that never finish CONNECT.

use std::io::Write as _;
use std::net::TcpStream;

use crate::broker::Broker;
use crate::size;
use crate::watch::Watch;
use crate::wire::{Client, packet};

/// The beginning of a CONNECT of 10 MB, most of it User Properties of its Will. Nobody knows yet who sends it, so it costs
/// its sender more than us: once each was kept, up to the limit of all packets.
#[test]
fn unfinished_connects_of_megabytes() {
    let name = "unfinished CONNECT";
    let broker = Broker::start(&[]);
    let watch = Watch::start(&broker);
    let count = size(100, 1000);
    let mut connect = packet(0x10, &vec![0; 10 << 20]);
    let begin = b"\x00\x04MQTT\x05\x06\x00\x00\x00\x00\x01x\xff\xff\x7f";
    connect[5..5 + begin.len()].copy_from_slice(begin);
    let (before, _) = broker.memory_mib();
    let open = |_| {
        let mut stream = Client::open(broker.address).stream;
        // Whether the broker has closed already is not our concern.
        let _closed = stream.write_all(&connect[..1 << 20]);
        stream
    };
    let _all: Vec<TcpStream> = (0..count).map(open).collect();
    watch.expect_more(10);
    let (_, most) = broker.memory_mib();
    let allowed = 40 + count as u64 / 5;
    assert!(most <= before + allowed, "{count} of them took {} MiB", most - before);
    watch.end(name);
    broker.stop();
}

/// More silent sockets than there is room for: whoever has something to say gets in all the same.
#[test]
fn silent_sockets_beyond_the_limit() {
    let name = "silent sockets";
    let room = size(60, 300);
    let broker = Broker::start(&[("PETREL_LIMITS__MAX_CONNECTIONS", &room.to_string())]);
    let watch = Watch::start(&broker);
    let silent: Vec<Client> = (0..room * 4 / 3).map(|_| Client::open(broker.address)).collect();
    for number in 0..room / 2 {
        Client::connect(broker.address, &format!("client {number}")).ping();
    }
    watch.expect_more(10);
    drop(silent);
    watch.end(name);
    broker.stop();
}
