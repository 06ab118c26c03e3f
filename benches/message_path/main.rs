//! Micro-benchmarks of the message path: the codec alone, then through publisher's connection, routing, session and
//! outbox. `cargo bench --bench message_path`. Figures are for each message delivered.

#![expect(clippy::expect_used, reason = "a benchmark has nobody to recover for")]

mod harness;

use std::hint::black_box;

use divan::Bencher;
use divan::counter::ItemsCount;
use harness::{BURST, Path, TOPIC, broker, publish_packet};
use petrel::packet::ProtocolVersion;
use petrel::packet::decode::{DecodeContext, Sender, decode};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    divan::main();
}

fn path(qos: u8, subscribers: usize) -> Path {
    Path::new(&broker(), &[TOPIC.to_owned()], qos, subscribers)
}

/// Decoding one PUBLISH of 64 bytes.
#[divan::bench(args = [0, 1])]
fn decode_publish(bencher: Bencher<'_, '_>, qos: u8) {
    let packet = publish_packet(TOPIC, qos, 1);
    let context = DecodeContext {
        version: ProtocolVersion::V3_1_1,
        max_packet_bytes: u32::MAX,
        sender: Sender::Client,
    };
    bencher.bench_local(|| decode(black_box(&packet), &context).is_ok());
}

/// One publisher, one subscriber.
#[divan::bench(args = [0, 1, 2])]
fn pair(bencher: Bencher<'_, '_>, qos: u8) {
    let mut path = path(qos, 1);
    bencher.counter(ItemsCount::new(BURST)).bench_local(|| path.run_burst());
}

/// One publisher, fifty subscribers.
#[divan::bench(args = [0, 1])]
fn fan_out(bencher: Bencher<'_, '_>, qos: u8) {
    let mut path = path(qos, 50);
    path.run_burst();
    assert!(path.has_delivered(), "nothing was delivered");
    bencher.counter(ItemsCount::new(50 * BURST)).bench_local(|| path.run_burst());
}

/// Ten publishers, one subscriber.
#[divan::bench]
fn fan_in(bencher: Bencher<'_, '_>) {
    let mut path = Path::fan_in(&broker(), TOPIC, 1, 10);
    bencher.counter(ItemsCount::new(BURST)).bench_local(|| path.run_burst());
}

/// One publisher, ten members of one group.
#[divan::bench]
fn shared(bencher: Bencher<'_, '_>) {
    let mut path = Path::shared(&broker(), TOPIC, 1, 10);
    bencher.counter(ItemsCount::new(BURST)).bench_local(|| path.run_burst());
}
