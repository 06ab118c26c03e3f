//! Machines whose wall clock is wrong: without a battery, it starts decades in the past and is set later.

use std::io::Write as _;
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use crate::{Broker, petrel, receive, send};

/// The library that gives a program another wall clock, if it is installed.
fn faketime() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?.flatten();
    let mut files = folders.map(|folder| folder.path().join("faketime/libfaketime.so.1"));
    let found = files.find(|file| file.exists());
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "libfaketime is missing: scripts/setup.sh test");
        eprintln!("libfaketime is not installed: skipped");
    }
    found
}

/// A broker whose clock is as the machine's (`None`), or so far from it.
fn start(directory: &Path, library: &Path, clock: Option<&str>) -> Broker {
    let mut command = petrel(directory, &["serve"]);
    if let Some(offset) = clock {
        command.env("LD_PRELOAD", library).env("FAKETIME", offset);
        // Only the wall clock is wrong.
        command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("DONT_FAKE_MONOTONIC", "1");
    }
    Broker::start_by(command, directory, &[])
}

/// Connects with a Session that has an hour to live; whether it was there before.
fn connect(broker: &Broker) -> (TcpStream, bool) {
    let mut stream = broker.connect();
    send(&mut stream, 0x10, b"\x00\x04MQTT\x05\x00\x00\x00\x05\x11\x00\x00\x0e\x10\x00\x05meter");
    let (first, body) = receive(&mut stream);
    assert_eq!((first, body[1]), (0x20, 0), "CONNACK");
    (stream, body[0] == 1)
}

/// Publishes with QoS 1 and an hour to live.
fn publish(stream: &mut TcpStream, first: u8, topic: &str) {
    let length = u16::try_from(topic.len()).unwrap().to_be_bytes();
    let rest = b"\x00\x01\x05\x02\x00\x00\x0e\x10value";
    send(stream, first, &[&length[..], topic.as_bytes(), rest].concat());
    assert_eq!(receive(stream).0, 0x40, "PUBACK");
}

/// Topics of the next messages.
fn topics(stream: &mut TcpStream, count: usize) -> Vec<String> {
    let mut found = Vec::new();
    while found.len() < count {
        let (first, body) = receive(stream);
        if first & 0xF0 == 0x30 {
            let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
            found.push(String::from_utf8(body[2..2 + length].to_vec()).unwrap());
        }
    }
    found.sort();
    found
}

/// What has an hour to live survives starts with a clock that is fifty years slow, and the right clock after them: the time
/// that has passed is not known, so it does not count. A message of a machine that had just got its clock expired at once.
#[test]
fn a_clock_that_was_fifty_years_slow_expires_nothing() {
    let Some(library) = faketime() else { return };
    let (right, wrong) = (None, Some("-50y"));
    for clocks in [[wrong, right, right], [right, wrong, right], [wrong, wrong, right]] {
        let directory = tempfile::tempdir().unwrap();
        let mut broker = start(directory.path(), &library, clocks[0]);
        let (mut stream, _) = connect(&broker);
        send(&mut stream, 0x82, b"\x00\x01\x00\x00\x07queue/#\x01");
        assert_eq!(receive(&mut stream).0, 0x90, "SUBACK");
        stream.write_all(&[0xE0, 0]).unwrap();
        let mut other = broker.connect();
        send(&mut other, 0x10, b"\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x05other");
        assert_eq!(receive(&mut other).0, 0x20, "CONNACK");
        publish(&mut other, 0x32, "queue/a");
        publish(&mut other, 0x33, "kept/a");
        for clock in &clocks[1..] {
            broker.signal("-KILL");
            broker.wait();
            broker = start(directory.path(), &library, *clock);
        }
        let (mut stream, is_present) = connect(&broker);
        assert!(is_present, "{clocks:?}: the Session has expired");
        send(&mut stream, 0x82, b"\x00\x02\x00\x00\x06kept/#\x01");
        assert_eq!(topics(&mut stream, 2), ["kept/a", "queue/a"], "{clocks:?}");
    }
}
