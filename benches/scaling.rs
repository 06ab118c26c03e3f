//! Whether a second thread is worth a second core: threads that drive the core by function calls, without sockets and
//! without a generator in the way. `cargo bench --bench scaling`, about ten seconds.
//!
//! Rounds with one thread, two, and as many as there are cores follow each other in turn, so that other work on the machine
//! disturbs all of them, and ratios are those of neighbouring rounds. They are short and many, because a busy machine gives
//! all cores to one process for some milliseconds, not for long. The CPU time of a message is what such work affects
//! least: where it grows with the number of threads in `own topics` and not in `own brokers`, in `one tree` and not in
//! `own trees`, the threads contend for something of the broker. What grows with a broker each is the machine's: cores that
//! share caches, memory or a clock rate.

#![expect(
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark reports to its reader and has nobody to recover for"
)]

#[path = "message_path/harness.rs"]
#[allow(dead_code, reason = "other shapes belong to other benchmarks")]
mod harness;

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use harness::{BURST, Path, TOPIC, broker};
use petrel::broker::Broker;
use rustix::time::{ClockId, clock_gettime};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Pairs of clients of each thread, where each pair has one topic.
const PAIRS: usize = 10;
/// Topics of the one pair of each thread in `own trees` and `one tree`.
const TOPICS: usize = 1_000;

/// What the threads have in common.
#[derive(Debug, Clone, Copy)]
enum Sharing {
    /// Nothing: a broker each. What the machine allows.
    OwnBrokers,
    /// The broker; each pair has one topic, far from those of others.
    OwnTopics,
    /// Nothing: a broker each, with a tree of topics.
    OwnTrees,
    /// The broker, and one tree of topics whose leaves are dealt to the threads.
    OneTree,
}

impl Sharing {
    fn name(self) -> &'static str {
        match self {
            Self::OwnBrokers => "own brokers",
            Self::OwnTopics => "own topics",
            Self::OwnTrees => "own trees",
            Self::OneTree => "one tree",
        }
    }
}

/// How long to measure.
#[derive(Debug, Clone, Copy)]
struct Plan {
    rounds: usize,
    round: Duration,
}

/// What one thread did in one round.
struct Work {
    messages: u64,
    time: Duration,
    cpu: Duration,
}

/// What all threads did in one round.
#[derive(Debug, Clone, Copy)]
struct Figures {
    messages_per_second: f64,
    cpu_nanos: f64,
}

fn main() {
    // Without `--bench`, this is a test run of all targets: that it works, not how fast.
    let plan = if std::env::args().any(|argument| argument == "--bench") {
        Plan { rounds: 101, round: Duration::from_millis(5) }
    } else {
        Plan { rounds: 1, round: Duration::from_millis(1) }
    };
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get());
    let mut counts = vec![1, 2];
    counts.extend((cores > 2).then_some(cores));
    println!(
        "{cores} cores; medians of {} rounds of {:?}; ratios to 1 thread",
        plan.rounds, plan.round
    );
    println!(
        "{:<18}{:>8}{:>14}{:>8}{:>14}{:>8}",
        "", "threads", "messages/s", "ratio", "CPU/message", "ratio"
    );
    let all = [Sharing::OwnBrokers, Sharing::OwnTopics, Sharing::OwnTrees, Sharing::OneTree];
    for sharing in all {
        for qos in 0..=2 {
            report(sharing, qos, &counts, &measure(sharing, qos, &counts, plan));
        }
    }
}

/// The figures of each round, in the order of `counts`.
fn measure(sharing: Sharing, qos: u8, counts: &[usize], plan: Plan) -> Vec<Vec<Figures>> {
    let threads = counts.iter().copied().max().unwrap_or(1);
    let shared = broker();
    thread::scope(|scope| {
        // They live as long as those of a broker, because buffers belong to threads. Those that are not wanted wait.
        let start = |index| {
            let shared = Arc::clone(&shared);
            let (begin, begun) = mpsc::channel();
            let (done, works) = mpsc::channel();
            scope.spawn(move || {
                let mut paths = paths(sharing, &shared, index, qos);
                while begun.recv().is_ok() {
                    done.send(work(&mut paths, plan.round)).expect("somebody listens");
                }
            });
            (begin, works)
        };
        let workers: Vec<_> = (0..threads).map(start).collect();
        let round = |count: usize| {
            for (begin, _) in &workers[..count] {
                begin.send(()).expect("the thread lives");
            }
            sum(workers[..count].iter().map(|(_, works)| works.recv().expect("the thread lives")))
        };
        // The first warms up.
        let rounds = (0..=plan.rounds).map(|_| counts.iter().copied().map(round).collect());
        rounds.skip(1).collect()
    })
}

/// The clients of one thread.
fn paths(sharing: Sharing, shared: &Arc<Broker>, thread: usize, qos: u8) -> Vec<Path> {
    let broker = match sharing {
        Sharing::OwnBrokers | Sharing::OwnTrees => &broker(),
        Sharing::OwnTopics | Sharing::OneTree => shared,
    };
    match sharing {
        Sharing::OwnBrokers | Sharing::OwnTopics => {
            let topic = |pair| format!("{thread:03}-{pair:03}/{TOPIC}");
            (0..PAIRS).map(|pair| Path::new(broker, &[topic(pair)], qos, 1)).collect()
        }
        Sharing::OwnTrees | Sharing::OneTree => {
            let topics = (0..TOPICS).map(|topic| format!("plant/sensor-{topic:03}/{thread:03}"));
            vec![Path::new(broker, &topics.collect::<Vec<_>>(), qos, 1)]
        }
    }
}

fn work(paths: &mut [Path], time: Duration) -> Work {
    let (began, cpu) = (Instant::now(), thread_cpu());
    let mut messages = 0;
    while began.elapsed() < time {
        for path in &mut *paths {
            path.run_burst();
        }
        messages += (paths.len() * BURST) as u64;
    }
    let work = Work { messages, time: began.elapsed(), cpu: thread_cpu() - cpu };
    // At QoS 1 and 2 each burst is counted as it arrives.
    assert!(paths.iter().all(Path::has_delivered), "nothing was delivered");
    work
}

/// CPU time of this thread, of the user and of the kernel.
fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("it begins at zero")
}

fn sum(works: impl Iterator<Item = Work>) -> Figures {
    let (mut messages, mut rate, mut cpu) = (0, 0.0, Duration::ZERO);
    for work in works {
        messages += work.messages;
        rate += work.messages as f64 / work.time.as_secs_f64();
        cpu += work.cpu;
    }
    Figures { messages_per_second: rate, cpu_nanos: cpu.as_nanos() as f64 / messages as f64 }
}

fn report(sharing: Sharing, qos: u8, counts: &[usize], rounds: &[Vec<Figures>]) {
    let of_rounds = |figure: &dyn Fn(&[Figures]) -> f64| {
        median(rounds.iter().map(|round| figure(round)).collect())
    };
    for (at, count) in counts.iter().enumerate() {
        let rate = of_rounds(&|round| round[at].messages_per_second);
        let rate_ratio =
            of_rounds(&|round| round[at].messages_per_second / round[0].messages_per_second);
        let cpu = of_rounds(&|round| round[at].cpu_nanos);
        let cpu_ratio = of_rounds(&|round| round[at].cpu_nanos / round[0].cpu_nanos);
        let label = if at == 0 { format!("{}, QoS {qos}", sharing.name()) } else { String::new() };
        println!(
            "{label:<18}{count:>8}{rate:>14.0}{rate_ratio:>8.2}{cpu:>11.0} ns{cpu_ratio:>8.2}"
        );
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
