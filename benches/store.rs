//! Measures the store alone: what an acknowledged message costs, how fast queues drain, what opening takes.
//!
//! `cargo bench --bench store -- [enqueue|present|drain|churn|open|retained]... [--messages N] [--sessions N] [--dir D]`

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use petrel::durable::change::{Change, QueueChange, RetainedChange, SessionChange};
use petrel::durable::entry::{QueueEntry, StoredEntry};
use petrel::durable::message::{Message, MessageHeader, MessageId, Sequence, SessionId, Timestamp};
use petrel::durable::record::SessionRecord;
use petrel::durable::{Batch, CommitListener, Durability, Store, Ticket};
use petrel::packet::QoS;
use petrel::store::rocks::RocksStore;
use petrel::store::settings::StoreSettings;

struct Arguments {
    scenarios: Vec<String>,
    messages: u64,
    sessions: u64,
    payload_bytes: usize,
    directory: Option<PathBuf>,
}

fn main() {
    let arguments = arguments();
    for scenario in &arguments.scenarios {
        let temporary = tempfile::tempdir().unwrap();
        let directory = arguments.directory.as_deref().unwrap_or(temporary.path());
        match scenario.as_str() {
            "enqueue" => enqueue(directory, &arguments),
            "present" => present(directory, &arguments),
            "drain" => drain(directory, &arguments),
            "churn" => churn(directory, &arguments),
            "open" => open_large(directory, &arguments),
            "retained" => retained(directory, &arguments),
            other => println!("unknown scenario {other}"),
        }
    }
}

fn arguments() -> Arguments {
    let mut arguments = Arguments {
        scenarios: Vec::new(),
        messages: 1_000_000,
        sessions: 1_000,
        payload_bytes: 100,
        directory: None,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || words.next().and_then(|word| word.parse().ok()).expect("a number");
        match word.as_str() {
            "--messages" => arguments.messages = number(),
            "--sessions" => arguments.sessions = number(),
            "--payload" => arguments.payload_bytes = usize::try_from(number()).unwrap(),
            "--dir" => arguments.directory = words.next().map(PathBuf::from),
            "--bench" => {}
            _ => arguments.scenarios.push(word),
        }
    }
    if arguments.scenarios.is_empty() {
        arguments.scenarios = ["enqueue", "present", "drain"].map(String::from).to_vec();
    }
    arguments
}

/// Publishers hand in batches of a few sizes; a new one leaves when an old one is acknowledged.
fn enqueue(directory: &Path, arguments: &Arguments) {
    println!(
        "enqueue: {} messages of {} bytes to {} queues, fsync",
        arguments.messages, arguments.payload_bytes, arguments.sessions
    );
    println!(
        "{:>6} {:>8} {:>10} {:>12} {:>12} {:>11} {:>9} {:>9}",
        "batch", "window", "acked/s", "writer µs", "process µs", "syncs/msg", "p50 µs", "p99 µs"
    );
    for (batch, window) in [(1, 20), (1, 100), (10, 100), (100, 10), (100, 50), (1000, 10)] {
        let directory = directory.join(format!("{batch}-{window}"));
        let (store, _) = open(&directory);
        put_sessions(&store, arguments.sessions);
        let mut load = Load::new(arguments, Durability::Fsync);
        let before = Usage::now();
        let started = Instant::now();
        load.run(&store, batch, window, arguments.messages);
        let took = started.elapsed();
        let used = Usage::now().since(&before);
        let statistics = store.statistics();
        let latency = &statistics.latency_microseconds;
        println!(
            "{batch:>6} {window:>8} {:>10.0} {:>12.2} {:>12.2} {:>11.5} {:>9} {:>9}",
            load.sent as f64 / took.as_secs_f64(),
            used.writer.as_secs_f64() * 1e6 / load.sent as f64,
            used.process.as_secs_f64() * 1e6 / load.sent as f64,
            statistics.syncs as f64 / load.sent as f64,
            latency.value_at_quantile(0.5),
            latency.value_at_quantile(0.99),
        );
        store.close();
        drop(std::fs::remove_dir_all(&directory));
    }
}

/// Each message is acknowledged by its recipient soon after it was committed.
fn present(directory: &Path, arguments: &Arguments) {
    let (store, _) = open(directory);
    put_sessions(&store, arguments.sessions);
    let mut load = Load::new(arguments, Durability::Fsync);
    load.recipients_acknowledge = true;
    let before = Usage::now();
    let started = Instant::now();
    load.run(&store, 100, 20, arguments.messages);
    let used = Usage::now().since(&before);
    println!(
        "present: {:.0} messages/s in and out, writer {:.2} µs, process {:.2} µs each, {} MiB on disk",
        load.sent as f64 / started.elapsed().as_secs_f64(),
        used.writer.as_secs_f64() * 1e6 / load.sent as f64,
        used.process.as_secs_f64() * 1e6 / load.sent as f64,
        store.statistics().disk_bytes >> 20,
    );
}

fn drain(directory: &Path, arguments: &Arguments) {
    let (store, _) = open(directory);
    put_sessions(&store, arguments.sessions);
    Load::new(arguments, Durability::Os).run(&store, 1000, 10, arguments.messages);
    let before = Usage::now();
    let started = Instant::now();
    let (read, reading) = drain_all(&store, arguments.sessions);
    let used = Usage::now().since(&before);
    println!(
        "drain: {read} messages from {} queues, {:.0}/s; reading {:.2} µs, writer {:.2} µs, process {:.2} µs each",
        arguments.sessions,
        read as f64 / started.elapsed().as_secs_f64(),
        reading.as_secs_f64() * 1e6 / read as f64,
        used.writer.as_secs_f64() * 1e6 / read as f64,
        used.process.as_secs_f64() * 1e6 / read as f64,
    );
}

/// Everything in and everything out, ten times over: neither time nor disk may grow.
fn churn(directory: &Path, arguments: &Arguments) {
    let (store, _) = open(directory);
    put_sessions(&store, arguments.sessions);
    let mut load = Load::new(arguments, Durability::Os);
    println!("churn: {} messages through {} queues", arguments.messages, arguments.sessions);
    println!(
        "{:>6} {:>8} {:>8} {:>14} {:>10} {:>8}",
        "round", "in s", "out s", "reading µs", "disk MiB", "rss MiB"
    );
    for round in 1..=10 {
        let started = Instant::now();
        load.run(&store, 1000, 10, arguments.messages);
        let filled = started.elapsed();
        let started = Instant::now();
        let (read, reading) = drain_all(&store, arguments.sessions);
        println!(
            "{round:>6} {:>8.2} {:>8.2} {:>14.2} {:>10} {:>8}",
            filled.as_secs_f64(),
            started.elapsed().as_secs_f64(),
            reading.as_secs_f64() * 1e6 / read as f64,
            store.statistics().disk_bytes >> 20,
            resident_bytes() >> 20,
        );
        assert!(read >= arguments.messages, "{read} messages came out");
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    while store.statistics().disk_bytes > 100 << 20 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("at rest: {} MiB on disk", store.statistics().disk_bytes >> 20);
}

/// A backlog as large as asked for, closed and opened, killed and opened.
fn open_large(directory: &Path, arguments: &Arguments) {
    {
        let (store, _) = open(directory);
        put_sessions(&store, arguments.sessions);
        let started = Instant::now();
        Load::new(arguments, Durability::Fsync).run(&store, 1000, 10, arguments.messages);
        let statistics = store.statistics();
        println!(
            "open: {} messages of {} bytes written in {:.1} s; {} MiB on disk, RocksDB holds {} MiB, rss {} MiB",
            arguments.messages,
            arguments.payload_bytes,
            started.elapsed().as_secs_f64(),
            statistics.disk_bytes >> 20,
            statistics.memory_bytes >> 20,
            resident_bytes() >> 20,
        );
        let killed = directory.with_extension("killed");
        copy(directory, &killed);
        time_open(&killed, "after a kill");
        drop(std::fs::remove_dir_all(&killed));
    }
    time_open(directory, "after a close");
    let (store, loaded) = open(directory);
    let count: u64 = loaded.sessions.iter().map(|session| session.queue.message_count).sum();
    assert_eq!(count, arguments.messages);
    let started = Instant::now();
    let (read, _) = drain_all(&store, arguments.sessions);
    println!(
        "open: drained {read} at {:.0}/s, rss {} MiB",
        read as f64 / started.elapsed().as_secs_f64(),
        resident_bytes() >> 20
    );
}

fn time_open(directory: &Path, what: &str) {
    let before = Usage::now();
    let started = Instant::now();
    let (store, loaded) = open(directory);
    println!(
        "open: {what} in {:.3} s (CPU {:.2} s), {} sessions, {} retained, rss {} MiB",
        started.elapsed().as_secs_f64(),
        Usage::now().since(&before).process.as_secs_f64(),
        loaded.sessions.len(),
        loaded.retained.len(),
        resident_bytes() >> 20
    );
    store.close();
}

fn retained(directory: &Path, arguments: &Arguments) {
    {
        let (store, _) = open(directory);
        let started = Instant::now();
        let payload = vec![b'r'; arguments.payload_bytes];
        let mut last = Ticket::NOTHING;
        for counter in 0..arguments.messages {
            let message = message(
                counter,
                &format!("site/{}/device/{counter}/state", counter % 100),
                &payload,
            );
            let changes = vec![RetainedChange::Put(message).into()];
            last = store.submit(Batch { changes, durability: Durability::Os, ..Batch::default() });
            while store.pending_bytes() > 32 << 20 {
                std::thread::yield_now();
            }
        }
        while !store.is_durable(last) {
            std::thread::yield_now();
        }
        println!(
            "retained: {} written at {:.0}/s",
            arguments.messages,
            arguments.messages as f64 / started.elapsed().as_secs_f64()
        );
    }
    time_open(directory, "retained");
}

/// Writes messages and waits for their acknowledgements as publishers do.
struct Load {
    next: Vec<u64>,
    sent: u64,
    payload: Vec<u8>,
    durability: Durability,
    recipients_acknowledge: bool,
    committed: (Arc<dyn CommitListener>, Receiver<()>),
}

impl Load {
    fn new(arguments: &Arguments, durability: Durability) -> Self {
        let (sender, receiver) = channel();
        Self {
            next: vec![0; usize::try_from(arguments.sessions).unwrap()],
            sent: 0,
            payload: vec![b'x'; arguments.payload_bytes],
            durability,
            recipients_acknowledge: false,
            committed: (Arc::new(Notifier(sender)), receiver),
        }
    }

    fn run(&mut self, store: &RocksStore, batch: u64, window: usize, messages: u64) {
        let mut waiting: VecDeque<(Ticket, Vec<(SessionId, Arc<QueueEntry>)>)> = VecDeque::new();
        let until = self.sent + messages;
        while self.sent < until || !waiting.is_empty() {
            let mut removals = Vec::new();
            while waiting.front().is_some_and(|(ticket, _)| store.is_durable(*ticket)) {
                let Some((_, entries)) = waiting.pop_front() else { break };
                for (session, entry) in entries {
                    entry.acknowledge();
                    let sequence = entry.sequence;
                    removals.push(QueueChange::Dequeue { queue: session, sequence }.into());
                }
            }
            if !removals.is_empty() {
                store.submit(Batch {
                    changes: removals,
                    durability: Durability::Os,
                    ..Batch::default()
                });
            }
            if waiting.len() < window && self.sent < until {
                let (changes, entries) = self.changes(batch);
                let listeners = [Arc::clone(&self.committed.0)].into_iter().collect();
                let ticket =
                    store.submit(Batch { changes, durability: self.durability, listeners });
                waiting.push_back((ticket, entries));
            } else {
                let _woken = self.committed.1.recv_timeout(Duration::from_millis(100));
            }
        }
    }

    fn changes(&mut self, batch: u64) -> (Vec<Change>, Vec<(SessionId, Arc<QueueEntry>)>) {
        let sessions = self.next.len() as u64;
        let mut kept = Vec::new();
        let mut changes = Vec::new();
        for counter in self.sent..self.sent + batch {
            let message = message(counter, "plant/17/line/4/temperature", &self.payload);
            // A stride that is coprime to usual numbers: neighbours in time are not neighbours in the key space.
            let session = counter.wrapping_mul(7919) % sessions;
            let place = &mut self.next[usize::try_from(session).unwrap()];
            let entry = Arc::new(QueueEntry::new(Sequence(*place), message, QoS::AtLeastOnce));
            *place += 1;
            if self.recipients_acknowledge {
                kept.push((SessionId(session), Arc::clone(&entry)));
            }
            changes.push(QueueChange::Enqueue { queue: SessionId(session), entry }.into());
        }
        self.sent += batch;
        (changes, kept)
    }
}

struct Notifier(Sender<()>);

impl CommitListener for Notifier {
    fn handle_commit(&self) {
        let _unheard = self.0.send(());
    }
}

/// Reads and removes everything, by pages, one session after the other in turn. Returns how many, and the time reading took.
fn drain_all(store: &RocksStore, sessions: u64) -> (u64, Duration) {
    let mut reading = Duration::ZERO;
    let mut count = 0;
    let mut open: Vec<(u64, Sequence)> =
        (0..sessions).map(|session| (session, Sequence(0))).collect();
    let mut last = Ticket::NOTHING;
    while !open.is_empty() {
        open.retain_mut(|(session, from)| {
            let started = Instant::now();
            let session = SessionId(*session);
            let page =
                store.read_queue(session, *from, Sequence(u64::MAX), 1024, 256 * 1024).unwrap();
            reading += started.elapsed();
            count += page.len() as u64;
            let mut changes = Vec::with_capacity(page.len());
            for entry in &page {
                let StoredEntry::Message(entry) = entry else { panic!("nothing was released") };
                *from = Sequence(entry.sequence.0 + 1);
                let sequence = entry.sequence;
                changes.push(QueueChange::Dequeue { queue: session, sequence }.into());
            }
            last = store.submit(Batch { changes, durability: Durability::Os, ..Batch::default() });
            while store.pending_bytes() > 16 << 20 {
                std::thread::yield_now();
            }
            !page.is_empty()
        });
    }
    while !store.is_durable(last) {
        std::thread::yield_now();
    }
    (count, reading)
}

fn open(directory: &Path) -> (RocksStore, petrel::durable::record::Loaded) {
    RocksStore::open(StoreSettings::new(directory)).unwrap()
}

fn put_sessions(store: &RocksStore, count: u64) {
    let put = |session| {
        Change::Session(SessionChange::Put(Box::new(SessionRecord {
            id: SessionId(session),
            client_id: format!("client-{session}").into(),
            epoch: 1,
            expiry_seconds: u32::MAX,
            disconnected: None,
            sent_until: Sequence(0),
            will: None,
            user_name: None,
        })))
    };
    let changes = (0..count).map(put).collect();
    let ticket = store.submit(Batch { changes, durability: Durability::Fsync, ..Batch::default() });
    while !store.is_durable(ticket) {
        std::thread::yield_now();
    }
}

fn message(counter: u64, topic: &str, payload: &[u8]) -> Arc<Message> {
    let header = MessageHeader {
        id: MessageId { publisher: SessionId(1 << 40), counter },
        qos: QoS::AtLeastOnce,
        retain: false,
        arrived: Timestamp(1_700_000_000_000),
        expires: None,
    };
    // Not all the same, or compression has it too easy.
    let mut payload = payload.to_vec();
    let half = payload.len() / 2;
    let mut random = counter.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    for byte in &mut payload[..half] {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        *byte = random as u8;
    }
    Arc::new(Message::new(header, topic, b"", &payload).unwrap())
}

/// CPU time of the process and of the store's writer thread.
struct Usage {
    process: Duration,
    writer: Duration,
}

impl Usage {
    fn now() -> Self {
        let mut writer = Duration::ZERO;
        for task in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
            let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            if name.trim() == "petrel-store" {
                writer += cpu_time(&task.path());
            }
        }
        Self { process: cpu_time(Path::new("/proc/self")), writer }
    }

    fn since(&self, earlier: &Self) -> Self {
        Self {
            process: self.process - earlier.process,
            writer: self.writer.saturating_sub(earlier.writer),
        }
    }
}

fn cpu_time(path: &Path) -> Duration {
    let stat = std::fs::read_to_string(path.join("stat")).unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = |field: usize| -> u64 {
        fields.split_whitespace().nth(field).and_then(|ticks| ticks.parse().ok()).unwrap_or(0)
    };
    // A tick of /proc is a hundredth of a second.
    Duration::from_millis(10 * (ticks(11) + ticks(12)))
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap().flatten() {
        let target = to.join(file.file_name());
        if file.file_type().unwrap().is_dir() {
            copy(&file.path(), &target);
        } else {
            drop(std::fs::copy(file.path(), target));
        }
    }
}
