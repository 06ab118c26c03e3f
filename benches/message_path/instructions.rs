//! Runs a fixed piece of work, for `scripts/instructions.py` to count its instructions with callgrind.
//!
//!     instructions SCENARIO BURSTS

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a tool of ours, run by a script"
)]

mod harness;

use std::hint::black_box;

use harness::{BURST, Path, TOPIC, broker, publish_packet};
use petrel::packet::ProtocolVersion;
use petrel::packet::decode::{DecodeContext, Sender, decode};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let scenario = arguments.next().expect("a scenario");
    let bursts: u64 = arguments.next().and_then(|count| count.parse().ok()).expect("a number");
    let count = match scenario.as_str() {
        "decode" => decode_publish(bursts),
        "qos0" => deliver(0, 1, bursts),
        "qos1" => deliver(1, 1, bursts),
        "qos2" => deliver(2, 1, bursts),
        "fanout0" => deliver(0, 50, bursts),
        "fanout1" => deliver(1, 50, bursts),
        "fanin1" => run(Path::fan_in(&broker(), TOPIC, 1, 10), bursts),
        "shared1" => run(Path::shared(&broker(), TOPIC, 1, 10), bursts),
        _ => panic!("no such scenario: {scenario}"),
    };
    // How many messages the instructions are divided by.
    println!("{count}");
}

fn decode_publish(bursts: u64) -> u64 {
    let packet = publish_packet(TOPIC, 1, 1);
    let context = DecodeContext {
        version: ProtocolVersion::V3_1_1,
        max_packet_bytes: u32::MAX,
        sender: Sender::Client,
    };
    let count = bursts * BURST as u64;
    for _ in 0..count {
        assert!(
            black_box(decode(black_box(&packet), &context)).is_ok(),
            "the packet is well-formed"
        );
    }
    count
}

fn deliver(qos: u8, subscribers: usize, bursts: u64) -> u64 {
    run(Path::new(&broker(), &[TOPIC.to_owned()], qos, subscribers), bursts)
}

fn run(mut path: Path, bursts: u64) -> u64 {
    let mut delivered = 0;
    for _ in 0..bursts {
        delivered = path.run_burst();
    }
    // At QoS 1 and 2 the path itself counts what arrives.
    assert!(path.has_delivered(), "nothing was delivered");
    delivered
}
