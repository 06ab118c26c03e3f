//! What a million Subscriptions and a million Retained Messages cost: memory, changes, matching,
//! and matching while others subscribe. `cargo bench --bench matching`; the memory is reported
//! before the timings.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "a benchmark reports to its reader and has nobody to recover for"
)]

use std::hash::Hash;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use divan::Bencher;
use divan::counter::ItemsCount;
use petrel::durable::message::{Message, MessageHeader, MessageId, SessionId, Timestamp};
use petrel::packet::QoS;
use petrel::packet::subscribe::SubscriptionOptions;
use petrel::topic::filter::TopicFilter;
use petrel::topic::fingerprint::TopicHash;
use petrel::topic::retained_tree::RetainedTree;
use petrel::topic::subscription_tree::SubscriptionTree;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const SUBSCRIPTIONS: usize = 1_000_000;
const DESTINATIONS: usize = 200_000;

/// As the broker has it: compared and hashed by the identifier behind the pointer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Destination {
    Session(Arc<u64>),
    #[expect(dead_code, reason = "takes its place in memory")]
    Group(Arc<u64>),
}

static FILTERS: LazyLock<Vec<(TopicFilter, Destination)>> = LazyLock::new(|| {
    let destinations: Vec<_> =
        (0..DESTINATIONS).map(|number| Destination::Session(Arc::new(number as u64))).collect();
    let filters = (0..SUBSCRIPTIONS).map(|number| {
        let destination = destinations[(number / 5) % DESTINATIONS].clone();
        (TopicFilter::parse(&mixed_filter(number)).unwrap().filter, destination)
    });
    filters.collect()
});

/// Filled by `report_memory`.
static TREE: OnceLock<SubscriptionTree<Destination>> = OnceLock::new();

fn tree() -> &'static SubscriptionTree<Destination> {
    TREE.get_or_init(full_tree)
}

static RETAINED: LazyLock<RetainedTree<Arc<Message>>> = LazyLock::new(|| {
    let tree = RetainedTree::new(1);
    for number in 0..SUBSCRIPTIONS {
        tree.set(retained(number));
    }
    tree
});

/// Twenty shapes, as a fleet, buildings, homes and dashboards have them.
fn mixed_filter(number: usize) -> String {
    let device = number / 20;
    match number % 20 {
        0..=6 => format!("devices/dev-{number:07}/commands"),
        7 | 8 => format!("devices/dev-{number:07}/config/#"),
        9 | 10 => format!("fleet/{}/vehicle/{number}/+", device % 50),
        11 | 12 => {
            format!("home/{:08x}-89ab-cdef-0123-456789abcdef/+/state", number * 2_654_435_761)
        }
        13 | 14 => {
            let [floor, room] = [device / 10 % 100, device / 1_000];
            let value = if number.is_multiple_of(2) { "temperature" } else { "humidity" };
            format!("building/{}/floor/{floor}/room/{room}/{value}", device % 10)
        }
        15 => format!("building/{}/floor/{}/#", device % 10, device / 10),
        16 => format!("+/+/vehicle/{device}/position"),
        17 => format!("tenants/{}/alerts/+", device % 1_000),
        18 => format!("users/user{device}/inbox"),
        _ => "fleet/announcements".to_owned(),
    }
}

fn full_tree() -> SubscriptionTree<Destination> {
    let tree = SubscriptionTree::new(1);
    for (filter, destination) in FILTERS.iter() {
        tree.subscribe(filter, destination.clone(), SubscriptionOptions::default(), None);
    }
    tree
}

fn retained(number: usize) -> Arc<Message> {
    let header = MessageHeader {
        id: MessageId { publisher: SessionId(1), counter: number as u64 },
        qos: QoS::AtLeastOnce,
        retain: true,
        arrived: Timestamp(0),
        expires: None,
    };
    let topic = format!("plant/{:04}/sensor/{:02}/value-now", number / 40, number % 40);
    Arc::new(Message::new(header, &topic, &[], &[0; 64]).unwrap())
}

fn main() {
    // Without `--bench`, this is a test run of all targets, which need not build trees of a
    // million.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    report_memory();
    report_contention();
    divan::main();
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

fn report_memory() {
    LazyLock::force(&FILTERS);
    let mut times = Vec::with_capacity(SUBSCRIPTIONS);
    let before = resident_bytes();
    let tree = SubscriptionTree::new(1);
    let mut last = Instant::now();
    for (filter, destination) in FILTERS.iter() {
        tree.subscribe(filter, destination.clone(), SubscriptionOptions::default(), None);
        let now = Instant::now();
        times.push(u64::try_from((now - last).as_nanos()).unwrap());
        last = now;
    }
    let times_bytes = times.capacity() * 8;
    println!("one Subscription: {}", percentiles(&mut times));
    let [nodes, long_texts, sets] = tree.item_counts();
    println!("subscriptions: {} in {nodes} nodes, {long_texts} long, {sets} filters", tree.len());
    println!(
        "bytes each: {:.0} by the estimate, {:.0} resident",
        tree.allocated_bytes() as f64 / tree.len() as f64,
        (resident_bytes() - before - times_bytes) as f64 / tree.len() as f64
    );
    drop(times);
    drop(TREE.set(tree));
    let before = resident_bytes();
    let tree = LazyLock::force(&RETAINED);
    println!(
        "retained messages of {} and 64 bytes: {:.0} bytes each by the estimate, {:.0} resident",
        retained(0).topic().len(),
        tree.allocated_bytes() as f64 / tree.len() as f64,
        (resident_bytes() - before) as f64 / tree.len() as f64
    );
}

/// Percentiles of matching while others change the tree as fast as they can, all in the same shard
/// or all across.
fn report_contention() {
    let scenarios = [
        ("nobody", 0, true),
        ("one, same shard", 1, true),
        ("two, same shard", 2, true),
        ("two", 2, false),
    ];
    for (name, writers, same_shard) in scenarios {
        let filters: Vec<_> = (0..writers).map(|w| late_filters(w, same_shard)).collect();
        let finished = AtomicBool::new(false);
        let changes = AtomicU64::new(0);
        let mut times = thread::scope(|scope| {
            for filters in &filters {
                scope.spawn(|| change_until(&finished, &changes, filters));
            }
            let times = time_matches(Duration::from_secs(2));
            finished.store(true, Ordering::Relaxed);
            times
        });
        println!(
            "matching while {name} subscribes: {}; {} changes",
            percentiles(&mut times),
            changes.load(Ordering::Relaxed)
        );
    }
}

/// Enough that the tables of one shard grow and shrink many times over.
fn late_filters(writer: usize, same_shard: bool) -> Vec<TopicFilter> {
    let filters = (0..300_000).map(|number| {
        let first = if same_shard { 7 } else { number };
        let text = format!("devices/dev-{first:07}/late/{writer}/{number}");
        TopicFilter::parse(&text).unwrap().filter
    });
    filters.collect()
}

fn change_until(finished: &AtomicBool, changes: &AtomicU64, filters: &[TopicFilter]) {
    let destination = Destination::Session(Arc::new(0));
    let mut subscribes = true;
    loop {
        for filter in filters {
            if finished.load(Ordering::Relaxed) && subscribes {
                continue;
            }
            if subscribes {
                tree().subscribe(filter, destination.clone(), SubscriptionOptions::default(), None);
            } else {
                tree().unsubscribe(filter, &destination);
            }
            changes.fetch_add(1, Ordering::Relaxed);
        }
        if !subscribes && finished.load(Ordering::Relaxed) {
            return;
        }
        subscribes = !subscribes;
    }
}

fn percentiles(nanoseconds: &mut [u64]) -> String {
    nanoseconds.sort_unstable();
    let at = |share: usize| nanoseconds[(nanoseconds.len() - 1) * share / 10_000];
    let [p50, p99, p999, p9999, max] = [5_000, 9_900, 9_990, 9_999, 10_000].map(at);
    let count = nanoseconds.len();
    format!("{count} times, p50 {p50} ns, p99 {p99}, p99.9 {p999}, p99.99 {p9999}, max {max}")
}

/// In nanoseconds.
fn time_matches(duration: Duration) -> Vec<u64> {
    let mut matches = Vec::new();
    let mut times = Vec::with_capacity(4_000_000);
    let begun = Instant::now();
    let mut last = begun;
    while last - begun < duration && times.len() < times.capacity() {
        matches.clear();
        tree().matches("devices/dev-0000007/commands", &mut matches);
        black_box(&matches);
        let now = Instant::now();
        times.push(u64::try_from((now - last).as_nanos()).unwrap());
        last = now;
    }
    times
}

#[divan::bench(sample_count = 3, sample_size = 1)]
fn subscribe_a_million(bencher: Bencher<'_, '_>) {
    LazyLock::force(&FILTERS);
    bencher.counter(ItemsCount::new(SUBSCRIPTIONS)).bench(full_tree);
}

#[divan::bench(sample_count = 3, sample_size = 1)]
fn unsubscribe_a_million(bencher: Bencher<'_, '_>) {
    bencher.counter(ItemsCount::new(SUBSCRIPTIONS)).with_inputs(full_tree).bench_values(|tree| {
        for (filter, destination) in FILTERS.iter() {
            tree.unsubscribe(filter, destination);
        }
        tree
    });
}

#[divan::bench(sample_count = 3, sample_size = 1)]
fn a_crowd_of_100_000_comes_and_goes(bencher: Bencher<'_, '_>) {
    let filter = TopicFilter::parse("fleet/all").unwrap().filter;
    let destinations: Vec<_> =
        (0..100_000).map(|number| Destination::Session(Arc::new(number))).collect();
    bencher.counter(ItemsCount::new(destinations.len() * 2)).bench(|| {
        let tree = SubscriptionTree::new(1);
        for destination in &destinations {
            tree.subscribe(&filter, destination.clone(), SubscriptionOptions::default(), None);
        }
        for destination in &destinations {
            tree.unsubscribe(&filter, destination);
        }
        tree
    });
}

/// One topic again and again: everything is in the processor's cache.
#[divan::bench(args = [
    "devices/dev-0000001/commands",
    "devices/dev-0000001/unknown",
    "fleet/3/vehicle/9/position",
    "building/3/floor/7/room/9/temperature",
    "fleet/announcements",
    "nothing/of/this/is/known",
])]
fn match_one_topic(bencher: Bencher<'_, '_>, topic: &str) {
    let mut matches = Vec::new();
    bencher.bench_local(|| {
        matches.clear();
        tree().matches(black_box(topic), &mut matches);
        matches.len()
    });
}

/// Another topic each time, a thousand in a sample: nearly every node comes from memory.
#[divan::bench(sample_count = 200, sample_size = 1)]
fn match_topics_at_random(bencher: Bencher<'_, '_>) {
    let mut topics = (0..).map(|number| {
        let device = number * 7_919 % (SUBSCRIPTIONS / 20) * 20;
        format!("devices/dev-{device:07}/commands")
    });
    let mut matches = Vec::new();
    bencher
        .counter(ItemsCount::new(1_000_usize))
        .with_inputs(|| topics.by_ref().take(1_000).collect::<Vec<_>>())
        .bench_local_values(|topics| {
            matches.clear();
            for topic in &topics {
                tree().matches(topic, &mut matches);
            }
            topics
        });
}

#[divan::bench]
fn hash_a_topic(bencher: Bencher<'_, '_>) {
    bencher.bench(|| TopicHash::of(black_box("building/3/floor/7/room/9/temperature")));
}

#[divan::bench]
fn fingerprint(bencher: Bencher<'_, '_>) {
    let hash = TopicHash::of("building/3/floor/7/room/9/temperature");
    bencher.bench(|| tree().fingerprint(black_box(&hash)));
}

#[divan::bench(sample_count = 3, sample_size = 1)]
fn retain_a_million(bencher: Bencher<'_, '_>) {
    let messages: Vec<_> =
        (0..SUBSCRIPTIONS).map(|n| retained(n * 611_953 % SUBSCRIPTIONS)).collect();
    bencher.counter(ItemsCount::new(SUBSCRIPTIONS)).bench(|| {
        let tree = RetainedTree::new(1);
        for message in &messages {
            tree.set(message.clone());
        }
        tree
    });
}

/// All pages of 64.
#[divan::bench(sample_count = 3, sample_size = 1, args = [
    "#",
    "plant/0007/#",
    "plant/+/sensor/39/+",
    "+/+/sensor/00/value-now",
    "+/none",
])]
fn retained_pages(bencher: Bencher<'_, '_>, filter: &str) {
    let filter = TopicFilter::parse(filter).unwrap().filter;
    let mut page = Vec::new();
    bencher.bench_local(|| {
        let mut cursor = None;
        loop {
            page.clear();
            cursor = RETAINED.page(&filter, cursor, 64, &mut page).next;
            if cursor.is_none() {
                break;
            }
        }
    });
}
