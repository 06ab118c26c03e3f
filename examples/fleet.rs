//! A fleet of vehicles on a broker, with every message accounted for.
//!
//! Some hundred devices report positions (QoS 0), events (QoS 1) and finished trips (QoS 2) as JSON, keep their status
//! retained, have a will, lose their network at random and come back, and take commands that reach them also after an
//! absence. A backend receives everything and keeps the books: QoS 1 arrives at least once, QoS 2 exactly once, every
//! topic in order, each command at its device, one will for each lost connection, one retained status for each device.
//! Ends with a summary, and with a failure when a message is missing.
//!
//! `cargo run --release --example fleet -- --broker localhost:1883 --devices 300 --seconds 30`

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this program talks to the person who runs it"
)]

use std::collections::{BTreeMap, HashMap};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::Parser;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{LastWill, Packet, Publish};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// Generates the telemetry of a vehicle fleet and accounts for every message.
#[derive(Debug, Clone, Parser)]
struct Arguments {
    /// The broker, host:port
    #[arg(long, default_value = "localhost:1883")]
    broker: String,
    /// Devices
    #[arg(long, default_value_t = 300)]
    devices: usize,
    /// How long the devices report, in seconds
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Mean time between two reports of one device, in milliseconds
    #[arg(long, default_value_t = 500)]
    interval_ms: u64,
    /// Seed of everything random
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// How long messages may still be under way when the devices have stopped reporting.
const PATIENCE: Duration = Duration::from_secs(60);

/// What events and trips are about.
const KINDS: [&str; 4] = ["door", "harsh braking", "geofence", "maintenance"];

/// What was sent and received, by all tasks.
#[derive(Default)]
struct Books {
    positions_sent: AtomicU64,
    positions_received: AtomicU64,
    cuts: AtomicU64,
    wills: AtomicU64,
    duplicates: AtomicU64,
    /// Topic of QoS 1 and 2 to how many messages were sent on it.
    sent: Mutex<HashMap<String, u64>>,
    /// The same for what arrived, each number once.
    received: Mutex<HashMap<String, u64>>,
    /// What must never happen, in words.
    violations: Mutex<Vec<String>>,
    /// Devices that have subscribed once: their Session takes commands from then on.
    reachable: Mutex<Vec<String>>,
    stopping: AtomicBool,
}

impl Books {
    /// The next number on a topic.
    fn next(&self, topic: &str) -> u64 {
        let mut sent = self.sent.lock().expect("no task panics");
        let count = sent.entry(topic.to_owned()).or_default();
        *count += 1;
        *count
    }

    /// Enters message `number` of a topic: in order, QoS 2 never twice, QoS 1 only repetitions of what was there.
    fn enter(&self, topic: &str, number: u64, exactly_once: bool) {
        let mut received = self.received.lock().expect("no task panics");
        let count = received.entry(topic.to_owned()).or_default();
        if number == *count + 1 {
            *count += 1;
        } else if number <= *count && !exactly_once {
            self.duplicates.fetch_add(1, Ordering::Relaxed);
        } else {
            let expected = *count + 1;
            self.violation(format!("{topic}: message {number} where {expected} was expected"));
        }
    }

    fn violation(&self, text: String) {
        self.violations.lock().expect("no task panics").push(text);
    }

    /// Messages sent and received above QoS 0.
    fn totals(&self) -> (u64, u64) {
        let sum =
            |map: &Mutex<HashMap<String, u64>>| map.lock().expect("no task panics").values().sum();
        (sum(&self.sent), sum(&self.received))
    }

    fn is_complete(&self) -> bool {
        let (sent, received) = self.totals();
        let all_wills = self.wills.load(Ordering::Relaxed) >= self.cuts.load(Ordering::Relaxed);
        received >= sent && all_wills
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}

/// One device as its tasks see it.
#[derive(Clone)]
struct Device {
    id: String,
    root: String,
    books: Arc<Books>,
    /// QoS 1 and 2 messages that the broker has acknowledged.
    acknowledged: Arc<AtomicU64>,
}

impl Device {
    fn topic(&self, name: &str) -> String {
        format!("{}/{}/{name}", self.root, self.id)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("fleet: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the fleet; whether every message was accounted for.
async fn run(arguments: &Arguments) -> Result<bool, String> {
    let books = Arc::new(Books::default());
    let root = format!("fleet/{:08x}", rand::random::<u32>());
    println!("fleet: {} devices below {root} for {} s", arguments.devices, arguments.seconds);
    let backend = Backend::start(arguments, &root, &books).await?;
    let mut devices = Vec::new();
    for number in 0..arguments.devices {
        let device = Device {
            id: format!("vehicle-{number:04}"),
            root: root.clone(),
            books: books.clone(),
            acknowledged: Arc::default(),
        };
        let seed = arguments.seed.wrapping_mul(1_000_003).wrapping_add(number as u64);
        devices.push(tokio::spawn(drive(arguments.clone(), device, seed)));
    }
    let dispatcher = tokio::spawn(dispatch(
        arguments.clone(),
        root.clone(),
        backend.client.clone(),
        books.clone(),
    ));
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(arguments.seconds) {
        sleep(Duration::from_secs(1)).await;
        progress(&books, started, "reporting");
    }
    books.stopping.store(true, Ordering::Relaxed);
    dispatcher.await.map_err(|error| error.to_string())?;
    let mut pumps = Vec::new();
    for device in devices {
        pumps.push(device.await.map_err(|error| error.to_string())??);
    }
    let stopped = Instant::now();
    while !books.is_complete() && stopped.elapsed() < PATIENCE {
        sleep(Duration::from_millis(200)).await;
    }
    progress(&books, started, "settled");
    check_retained(arguments, &root, &books).await?;
    // The books are closed before the devices are gone, whose wills nobody lost.
    backend.pump.abort();
    // Cancelled: that is what was asked for.
    let _cancelled = backend.pump.await;
    for pump in pumps {
        pump.abort();
    }
    Ok(summary(arguments, &books, started))
}

fn progress(books: &Books, started: Instant, what: &str) {
    let (sent, received) = books.totals();
    let positions = books.positions_received.load(Ordering::Relaxed);
    let cuts = books.cuts.load(Ordering::Relaxed);
    let seconds = started.elapsed().as_secs();
    println!(
        "fleet: {seconds:3} s {what}: {received} of {sent} messages, {positions} positions, {cuts} lost connections"
    );
}

/// Options of one client of this run.
fn options(arguments: &Arguments, id: &str) -> Result<MqttOptions, String> {
    let (host, port) = arguments.broker.rsplit_once(':').unwrap_or((&arguments.broker, "1883"));
    let port = port.parse().map_err(|_| format!("{:?} is no port", port))?;
    let mut options = MqttOptions::new(id, host, port);
    options.set_keep_alive(Duration::from_secs(30));
    options.set_connection_timeout(20);
    // The client reserves room for all that may be in flight: the default, 65,535 messages, is 10 MB for each device.
    options.set_outgoing_inflight_upper_limit(100);
    options.set_clean_start(false);
    options.set_session_expiry_interval(Some(3600));
    Ok(options)
}

/// The side that receives what devices report and keeps the books.
struct Backend {
    client: AsyncClient,
    pump: tokio::task::JoinHandle<()>,
}

impl Backend {
    /// Connects and subscribes; returns when the Subscriptions stand.
    async fn start(arguments: &Arguments, root: &str, books: &Arc<Books>) -> Result<Self, String> {
        let mut options = options(arguments, &format!("{}-backend", root.replace('/', "-")))?;
        options.set_receive_maximum(Some(1000));
        let (client, mut events) = AsyncClient::new(options, 1000);
        for name in ["position", "event", "trip", "status"] {
            let filter = format!("{root}/+/{name}");
            client.try_subscribe(filter, QoS::ExactlyOnce).map_err(|error| error.to_string())?;
        }
        let mut granted = 0;
        while granted < 4 {
            let event = timeout(Duration::from_secs(20), events.poll()).await;
            match event.map_err(|_| "the broker does not answer".to_owned())? {
                Ok(Event::Incoming(Packet::SubAck(_))) => granted += 1,
                Ok(_) => {}
                Err(error) => return Err(format!("cannot reach {}: {error}", arguments.broker)),
            }
        }
        let pump = tokio::spawn(Self::pump(events, books.clone()));
        Ok(Self { client, pump })
    }

    async fn pump(mut events: EventLoop, books: Arc<Books>) {
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::Publish(publish))) => Self::receive(&books, &publish),
                Ok(_) => {}
                Err(error) => {
                    books.violation(format!("the backend lost its connection: {error}"));
                    sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }

    fn receive(books: &Books, publish: &Publish) {
        let topic = String::from_utf8_lossy(&publish.topic).into_owned();
        if publish.payload.is_empty() {
            return; // The auditor clears what was retained.
        }
        let Ok(report) = serde_json::from_slice::<Value>(&publish.payload) else {
            return books.violation(format!("{topic}: not JSON"));
        };
        let number = report["number"].as_u64().unwrap_or_default();
        match topic.rsplit('/').next().unwrap_or_default() {
            "position" => {
                books.positions_received.fetch_add(1, Ordering::Relaxed);
            }
            "status" => {
                if report["online"] == false {
                    books.wills.fetch_add(1, Ordering::Relaxed);
                }
            }
            "trip" => books.enter(&topic, number, true),
            _ => books.enter(&topic, number, false),
        }
    }
}

/// Sends commands to devices, whether they are there or not.
async fn dispatch(arguments: Arguments, root: String, client: AsyncClient, books: Arc<Books>) {
    let mut random = StdRng::seed_from_u64(arguments.seed);
    while !books.is_stopping() {
        sleep(Duration::from_millis(20)).await;
        let reachable = books.reachable.lock().expect("no task panics").clone();
        let chosen = random.random_range(0..reachable.len().max(1));
        let Some(device) = reachable.get(chosen) else { continue };
        let topic = format!("{root}/{device}/command");
        let command = json!({ "number": books.next(&topic), "action": "route", "stops": random.random_range(1..9) });
        if client.publish(&topic, QoS::AtLeastOnce, false, command.to_string()).await.is_err() {
            return books.violation("the dispatcher cannot send".to_owned());
        }
    }
}

/// One device for the whole run: reports until the end, then waits until all it reported is acknowledged. Returns the
/// task that keeps its connection.
async fn drive(
    arguments: Arguments,
    device: Device,
    seed: u64,
) -> Result<tokio::task::JoinHandle<()>, String> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut options =
        options(&arguments, &format!("{}-{}", device.root.replace('/', "-"), device.id))?;
    let status = device.topic("status");
    let gone = json!({ "online": false }).to_string();
    options.set_last_will(LastWill::new(status, gone, QoS::AtLeastOnce, true, None));
    let (client, events) = AsyncClient::new(options, 100);
    let (cut, cuts) = mpsc::channel(1);
    // Everybody at once is what happens after a power cut, not every day.
    sleep(Duration::from_millis(random.random_range(0..1000))).await;
    let pump = tokio::spawn(keep_connected(device.clone(), client.clone(), events, cuts));
    let mut sent = 0;
    while !device.books.is_stopping() {
        let pause = random.random_range(arguments.interval_ms / 2..=arguments.interval_ms * 3 / 2);
        sleep(Duration::from_millis(pause)).await;
        report(&device, &client, &mut random, &mut sent).await?;
        // Now and then the network is gone, often with something still unacknowledged.
        if random.random_ratio(1, 25) && !device.books.is_stopping() {
            let away = Duration::from_millis(if random.random() {
                0
            } else {
                random.random_range(100..2000)
            });
            let _full = cut.try_send(away);
        }
    }
    let stopped = Instant::now();
    while device.acknowledged.load(Ordering::Relaxed) < sent && stopped.elapsed() < PATIENCE {
        sleep(Duration::from_millis(50)).await;
    }
    if device.acknowledged.load(Ordering::Relaxed) < sent {
        device.books.violation(format!("{}: reports are not acknowledged", device.id));
    }
    Ok(pump)
}

/// One round of reports. `sent` counts those above QoS 0: the next one waits for the acknowledgement of the last, as
/// small devices do, which also keeps each topic in order whatever the client library repeats first.
async fn report(
    device: &Device,
    client: &AsyncClient,
    random: &mut StdRng,
    sent: &mut u64,
) -> Result<(), String> {
    let position = json!({
        "device": device.id,
        "time": std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_secs()),
        "position": { "lat": random.random_range(47.0..55.0), "lon": random.random_range(6.0..15.0) },
        "speed_kmh": random.random_range(0.0..130.0),
        "fuel_percent": random.random_range(5..100),
        "engine": { "rpm": random.random_range(700..4000), "temperature_c": random.random_range(60..110) },
    });
    let topic = device.topic("position");
    client
        .publish(topic, QoS::AtMostOnce, false, position.to_string())
        .await
        .map_err(|error| error.to_string())?;
    device.books.positions_sent.fetch_add(1, Ordering::Relaxed);
    if device.acknowledged.load(Ordering::Relaxed) < *sent {
        return Ok(());
    }
    let (name, qos) = if random.random_ratio(1, 3) {
        ("trip", QoS::ExactlyOnce)
    } else {
        ("event", QoS::AtLeastOnce)
    };
    let topic = device.topic(name);
    let message = json!({
        "device": device.id,
        "number": device.books.next(&topic),
        "kind": KINDS[random.random_range(0..KINDS.len())],
        "detail": "x".repeat(random.random_range(0..600)),
    });
    *sent += 1;
    client.publish(topic, qos, false, message.to_string()).await.map_err(|error| error.to_string())
}

/// Keeps a device connected, drops its connection when told to, counts acknowledgements and enters commands.
async fn keep_connected(
    device: Device,
    client: AsyncClient,
    mut events: EventLoop,
    mut cuts: mpsc::Receiver<Duration>,
) {
    let mut connected = false;
    loop {
        let event = tokio::select! {
            event = events.poll() => event,
            Some(away) = cuts.recv(), if connected && !device.books.is_stopping() => {
                // Only a connection that stands can be lost, and each one costs one will.
                if std::mem::take(&mut connected) {
                    device.books.cuts.fetch_add(1, Ordering::Relaxed);
                    events.clean();
                    sleep(away).await;
                }
                continue;
            }
        };
        match event {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                connected = true;
                let online = json!({ "online": true }).to_string();
                let _full =
                    client.try_publish(device.topic("status"), QoS::AtMostOnce, true, online);
                let _full = client.try_subscribe(device.topic("command"), QoS::AtLeastOnce);
            }
            Ok(Event::Incoming(Packet::SubAck(_))) => {
                let mut reachable = device.books.reachable.lock().expect("no task panics");
                if !reachable.contains(&device.id) {
                    reachable.push(device.id.clone());
                }
            }
            Ok(Event::Incoming(Packet::PubAck(_) | Packet::PubComp(_))) => {
                device.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                let topic = String::from_utf8_lossy(&publish.topic).into_owned();
                let command: Value = serde_json::from_slice(&publish.payload).unwrap_or_default();
                device.books.enter(&topic, command["number"].as_u64().unwrap_or_default(), false);
            }
            Ok(_) => {}
            Err(error) => {
                if std::mem::take(&mut connected) {
                    device.books.violation(format!("{} lost its connection: {error}", device.id));
                }
                sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

/// A newcomer must find one retained status for each device, and all of them online.
async fn check_retained(arguments: &Arguments, root: &str, books: &Books) -> Result<(), String> {
    let mut options = options(arguments, &format!("{}-auditor", root.replace('/', "-")))?;
    options.set_clean_start(true);
    options.set_session_expiry_interval(Some(0));
    let (client, mut events) = AsyncClient::new(options, arguments.devices + 10);
    client
        .try_subscribe(format!("{root}/+/status"), QoS::AtLeastOnce)
        .map_err(|error| error.to_string())?;
    let mut found = BTreeMap::new();
    let deadline = Instant::now() + Duration::from_secs(20);
    // A device that has just come back says so a moment later: what is retained is followed until all are online.
    let is_whole = |found: &BTreeMap<String, bool>| {
        found.len() == arguments.devices && found.values().all(|online| *online)
    };
    while !is_whole(&found) && Instant::now() < deadline {
        if let Ok(Ok(Event::Incoming(Packet::Publish(publish)))) =
            timeout(Duration::from_secs(5), events.poll()).await
        {
            let topic = String::from_utf8_lossy(&publish.topic).into_owned();
            let status: Value = serde_json::from_slice(&publish.payload).unwrap_or_default();
            found.insert(topic, status["online"] == true);
        }
    }
    let online = found.values().filter(|online| **online).count();
    if found.len() != arguments.devices || online != arguments.devices {
        books.violation(format!(
            "{} retained statuses, {online} of them online, of {}",
            found.len(),
            arguments.devices
        ));
    }
    for topic in found.into_keys() {
        client.try_publish(topic, QoS::AtLeastOnce, true, "").map_err(|error| error.to_string())?;
    }
    let mut cleared = 0;
    while cleared < arguments.devices && Instant::now() < deadline + PATIENCE {
        match timeout(Duration::from_secs(5), events.poll()).await {
            Ok(Ok(Event::Incoming(Packet::PubAck(_)))) => cleared += 1,
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => break,
        }
    }
    Ok(())
}

/// Prints the books and says whether they balance.
fn summary(arguments: &Arguments, books: &Books, started: Instant) -> bool {
    let kinds = ["event", "trip", "command"];
    let count = |map: &Mutex<HashMap<String, u64>>, kind: &str| -> u64 {
        let map = map.lock().expect("no task panics");
        map.iter().filter(|(topic, _)| topic.ends_with(kind)).map(|(_, count)| count).sum()
    };
    let mut lost = 0;
    println!("fleet: {} devices, {} s", arguments.devices, started.elapsed().as_secs());
    for (kind, qos) in kinds.into_iter().zip(["QoS 1", "QoS 2", "QoS 1, to devices"]) {
        let (sent, received) = (count(&books.sent, kind), count(&books.received, kind));
        lost += sent.saturating_sub(received);
        println!("fleet: {kind:9} {sent:7} sent {received:7} received  {qos}");
    }
    let positions = [&books.positions_sent, &books.positions_received]
        .map(|count| count.load(Ordering::Relaxed));
    println!(
        "fleet: position  {:7} sent {:7} received  QoS 0, may be lost with a connection",
        positions[0], positions[1]
    );
    let [cuts, wills] = [&books.cuts, &books.wills].map(|count| count.load(Ordering::Relaxed));
    let duplicates = books.duplicates.load(Ordering::Relaxed);
    println!("fleet: {cuts} lost connections, {wills} wills, {duplicates} repetitions of QoS 1");
    let violations = books.violations.lock().expect("no task panics");
    for violation in violations.iter().take(20) {
        println!("fleet: WRONG {violation}");
    }
    if cuts != wills {
        println!("fleet: WRONG {wills} wills for {cuts} lost connections");
    }
    let balanced = lost == 0 && violations.is_empty() && cuts == wills;
    println!("fleet: {}", if balanced { "every message is accounted for" } else { "FAILED" });
    balanced
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resident_mib() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
            / 1024
    }

    /// The client library reserved room for 65,535 messages in flight for each device: 500 of them took 6.7 GB.
    #[test]
    fn a_device_takes_little_memory() {
        let arguments = Arguments::parse_from(["fleet"]);
        let before = resident_mib();
        let devices: Vec<_> = (0..50)
            .map(|number| options(&arguments, &format!("device-{number}")).expect("a port"))
            .map(|options| AsyncClient::new(options, 100))
            .collect();
        let taken = resident_mib() - before;
        assert!(taken < 50, "{} devices take {taken} MiB", devices.len());
    }
}
