//! Machines whose wall clock is wrong: without a battery, it starts decades in the past and is set later.

use std::io::Write as _;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Broker, petrel, receive, send};

/// Puts the wall clock fifty years back and leaves the others alone. libfaketime cannot be used: it allocates memory when it
/// is first asked, and the allocator asks for the time when it is first used.
const SLOW_CLOCK: &str = r"
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, clock, now);
    if (result == 0 && clock == CLOCK_REALTIME) now->tv_sec -= 50L * 365 * 86400;
    return result;
}
";

/// Compiles [`SLOW_CLOCK`], with the compiler that RocksDB needs as well.
fn slow_clock(directory: &Path) -> PathBuf {
    let (source, library) = (directory.join("clock.c"), directory.join("clock.so"));
    std::fs::write(&source, SLOW_CLOCK).unwrap();
    let compiles = |compiler: &&str| {
        let mut command = Command::new(compiler);
        command.args(["-x", "c", "-shared", "-fPIC", "-o"]).args([&library, &source]);
        command.status().is_ok_and(|status| status.success())
    };
    assert!(["cc", "c++", "g++", "clang++"].iter().any(compiles), "no C compiler");
    library
}

#[derive(Debug, Clone, Copy)]
enum Clock {
    Right,
    FiftyYearsSlow,
}

fn start(directory: &Path, library: &Path, clock: Clock) -> Broker {
    let mut command = petrel(directory, &["serve"]);
    if let Clock::FiftyYearsSlow = clock {
        command.env("LD_PRELOAD", library);
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
    let tools = tempfile::tempdir().unwrap();
    let library = slow_clock(tools.path());
    let (right, wrong) = (Clock::Right, Clock::FiftyYearsSlow);
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
