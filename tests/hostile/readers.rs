//! Readers that are slower than publishers.

use std::io::Read as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::broker::Broker;
use crate::size;
use crate::wire::{Client, publish, subscribe};

/// What a reader takes.
const BYTES_PER_SECOND: f64 = 2_000_000.0;

/// Takes so much until `is_done`; returns how much that was.
fn read_slowly(reader: &mut Client, is_done: &AtomicBool) -> usize {
    let (mut taken, mut buffer, started) = (0, vec![0; 20_000], Instant::now());
    while !is_done.load(Ordering::Relaxed) {
        if taken as f64 > started.elapsed().as_secs_f64() * BYTES_PER_SECOND {
            std::thread::sleep(Duration::from_millis(1));
        } else {
            taken += reader.stream.read(&mut buffer).unwrap();
        }
    }
    taken
}

/// A reader of everything that takes two megabytes a second was waited for again and again, so its publisher fell to its
/// speed, for good. One that lags is waited for a little, and then loses messages of QoS 0. There are some of them because
/// not each of them was waited for.
#[test]
fn steadily_slow_readers_of_everything() {
    let broker = Broker::start(&[("PETREL_RUNTIME__WORKER_THREADS", "2")]);
    let mut readers: Vec<_> =
        (0..6).map(|number| Client::connect(broker.address, &format!("reader{number}"))).collect();
    for reader in &mut readers {
        reader.send(&subscribe(&["#"], 0));
        reader.receive_until(9);
    }
    let mut publisher = Client::connect(broker.address, "publisher");
    let messages = publish(0x30, "sensors/17/state", &[b'x'; 64]).repeat(500);
    let total = size(2_000, 10_000);
    let is_done = AtomicBool::new(false);
    let taken = std::thread::scope(|scope| {
        let readers: Vec<_> = readers
            .iter_mut()
            .map(|reader| scope.spawn(|| read_slowly(reader, &is_done)))
            .collect();
        (0..total).for_each(|_| publisher.send(&messages));
        publisher.ping();
        is_done.store(true, Ordering::Relaxed);
        // So that nobody waits for bytes any more.
        publisher.send(&publish(0x30, "last", b"x"));
        readers.into_iter().map(|reader| reader.join().unwrap()).max().unwrap()
    });
    let sent = total * messages.len();
    if crate::is_full() {
        println!("slow readers: they took {taken} of {sent} bytes until all were published");
    }
    assert!(taken < sent / 3, "they took {taken} of {sent} bytes until all were published");
    drop(readers);
    broker.stop();
}
