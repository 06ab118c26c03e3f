//! The ordinary users who must not be affected: a pair of Clients that exchange one message after the other, and a
//! monitor that keeps requesting `/live`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::broker::Broker;
use crate::is_full;
use crate::wire::{Client, publish_qos1, subscribe};

/// What the others did while an attack was under way.
pub(crate) struct Watch {
    pair: Watcher,
    live: Watcher,
}

/// One who does the same again and again, and remembers how long it took.
struct Watcher {
    done: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<Duration>>>,
}

impl Watch {
    /// Begins to watch; returns when both have succeeded once.
    pub(crate) fn start(broker: &Broker) -> Self {
        let (address, http) = (broker.address, broker.http);
        let mut pair = Pair::connect(address);
        let pair = Watcher::start(move || pair.exchange());
        let live = Watcher::start(move || ask_live(http));
        let watch = Self { pair, live };
        watch.pair.wait_for(1);
        watch.live.wait_for(1);
        watch
    }

    /// Carries out an attack, which returns when it has been answered. Before that, the pair must have exchanged
    /// `least` messages, and `/live` must have answered.
    pub(crate) fn during<R>(&self, name: &str, least: u64, attack: impl FnOnce() -> R) -> R {
        let [pair, live] = [self.pair.done(), self.live.done()];
        let started = Instant::now();
        let result = attack();
        let took = started.elapsed();
        let [pair, live] = [self.pair.done() - pair, self.live.done() - live];
        if is_full() {
            println!(
                "{name}: answered after {took:.1?}, meanwhile {pair} exchanges, {live} × /live"
            );
        }
        assert!(pair >= least, "{name}: the pair exchanged {pair} messages in {took:.1?}");
        assert!(live >= 1, "{name}: /live did not answer in {took:.1?}");
        result
    }

    /// Waits until the pair has exchanged so many more messages: whatever the attack left behind, the broker serves.
    pub(crate) fn expect_more(&self, exchanges: u64) {
        self.pair.wait_for(self.pair.done() + exchanges);
        self.live.wait_for(self.live.done() + 1);
    }

    /// Stops watching; with `HOSTILE=full`, says how long an exchange and an answer took.
    pub(crate) fn end(self, name: &str) {
        for (who, watcher) in [("pair", self.pair), ("/live", self.live)] {
            let mut times = watcher.end();
            times.sort_unstable();
            let at = |part: usize| times.get((times.len() * part / 1000).min(times.len() - 1));
            if is_full() {
                let [p50, p99, max] =
                    [500, 990, 1000].map(|part| at(part).copied().unwrap_or_default());
                println!(
                    "{name}: {who}: {} times, p50 {p50:.1?}, p99 {p99:.1?}, max {max:.1?}",
                    times.len()
                );
            }
        }
    }
}

impl Watcher {
    fn start(mut act: impl FnMut() + Send + 'static) -> Self {
        let done = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let (counted, stopped) = (Arc::clone(&done), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut times = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let started = Instant::now();
                act();
                times.push(started.elapsed());
                counted.fetch_add(1, Ordering::Relaxed);
                // As an ordinary Client does: a message now and then. Not a wait for anything.
                std::thread::sleep(Duration::from_micros(500));
            }
            times
        });
        Self { done, stop, thread: Some(thread) }
    }

    fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    fn wait_for(&self, done: u64) {
        while self.done() < done {
            let is_over = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
            assert!(!is_over, "who was watched has failed");
            std::thread::yield_now();
        }
    }

    fn end(mut self) -> Vec<Duration> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(|thread| thread.join().unwrap()).unwrap_or_default()
    }
}

/// Two Clients, of which one sends to the other.
struct Pair {
    sender: Client,
    receiver: Client,
    next: u16,
}

impl Pair {
    fn connect(address: SocketAddr) -> Self {
        let mut receiver = Client::connect(address, "ordinary-receiver");
        receiver.send(&subscribe(&["ordinary/topic"], 1));
        receiver.receive_until(9);
        Self { sender: Client::connect(address, "ordinary-sender"), receiver, next: 1 }
    }

    /// QoS 1, from one to the other, with both acknowledgements.
    fn exchange(&mut self) {
        self.sender.send(&publish_qos1("ordinary/topic", self.next, b"20"));
        let body = self.receiver.receive_until(3);
        // Behind the topic.
        let packet_id = [body[16], body[17]];
        self.receiver.send(&[0x40, 2, packet_id[0], packet_id[1]]);
        self.sender.receive_until(4);
        self.next = self.next.checked_add(1).unwrap_or(1);
    }
}

fn ask_live(http: SocketAddr) {
    let answer = get(http, "/live");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// A page of the HTTP listener, with its head.
pub(crate) fn get(http: SocketAddr, page: &str) -> String {
    let mut stream = TcpStream::connect(http).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    let request = format!("GET {page} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
