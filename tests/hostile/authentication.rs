//! Clients that authenticate without end.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use petrel::auth::scram::{ClientStep, ScramClient};

use crate::broker::Broker;
use crate::size;
use crate::watch::Watch;
use crate::wire::{Client, packet, text};

const METHOD: &str = "SCRAM-SHA-256";

/// Authentication Method and Authentication Data, with their length before them.
fn properties(data: &[u8]) -> Vec<u8> {
    let data = [&u16::try_from(data.len()).unwrap().to_be_bytes()[..], data].concat();
    let all = [vec![0x15], text(METHOD), vec![0x16], data].concat();
    // Encoded as the length of a packet is.
    packet(0, &all).split_off(1)
}

/// The Authentication Data of an AUTH packet that asks to continue, whose properties begin at `from`.
fn challenge(body: &[u8]) -> Vec<u8> {
    assert_eq!(body[0], 0x18, "Continue authentication");
    let method = [vec![0x15], text(METHOD), vec![0x16]].concat();
    let at = body.windows(method.len()).position(|window| window == method).unwrap();
    body[at + method.len() + 2..].to_vec()
}

/// A Client that has authenticated as ann.
fn connect(address: SocketAddr) -> Client {
    let mut scram = ScramClient::new("ann", "secret").unwrap();
    let mut client = Client::open(address);
    let connect =
        [b"\x00\x04MQTT\x05\x02\x00\x00".to_vec(), properties(&scram.first()), text("ann")];
    client.send(&packet(0x10, &connect.concat()));
    let (first, body) = client.receive();
    assert_eq!(first, 0xF0, "AUTH");
    let Ok(ClientStep::Send(proof)) = scram.step(&challenge(&body)) else { panic!("no proof") };
    client.send(&packet(0xF0, &[vec![0x18], properties(&proof)].concat()));
    assert_eq!(client.receive().1[1], 0, "CONNACK");
    client
}

/// The first message of `count` exchanges in a row, none of which is continued. Each was kept until a thread had worked on
/// it: ten seconds of that took 3 GB. Now one exchange is under way at a time, and the rest waits in the socket.
#[test]
fn exchanges_without_pause() {
    let name = "AUTH without pause";
    let directory = tempfile::tempdir().unwrap();
    let users = directory.path().join("users");
    let mut passwd = Command::new(env!("CARGO_BIN_EXE_petrel"));
    passwd.arg("passwd").arg(&users).args(["ann", "--memory", "64", "--passes", "1"]);
    let mut passwd = passwd.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    passwd.stdin.take().unwrap().write_all(b"secret\n").unwrap();
    assert!(passwd.wait().unwrap().success());
    let broker = Broker::start(&[
        ("PETREL_AUTH__USERS_FILE", users.to_str().unwrap()),
        ("PETREL_LISTENER__0__ALLOW_ANONYMOUS", "true"),
    ]);
    let mut hostile = connect(broker.address);
    let watch = Watch::start(&broker);
    let first = properties(b"n,,n=ann,r=x");
    let exchanges = packet(0xF0, &[vec![0x19], first].concat()).repeat(1_000);
    let count = size(60, 300);
    let (before, _) = broker.memory_mib();
    watch.during(name, 1, || {
        let mut sending = hostile.stream.try_clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| (0..count).for_each(|_| sending.write_all(&exchanges).unwrap()));
            // Nobody takes the answers until the others have done much.
            watch.expect_more(size(1_000, 5_000) as u64);
            (0..count * 1_000).for_each(|_| drop(hostile.receive_until(15)));
        });
    });
    let (_, most) = broker.memory_mib();
    if crate::is_full() {
        println!("{name}: {before} MiB before, {most} at most");
    }
    assert!(most < before + 10, "{count} thousand exchanges take {} MiB", most - before);
    watch.end(name);
    broker.stop();
}
