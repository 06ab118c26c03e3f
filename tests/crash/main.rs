//! The real program under `kill -9`, again and again on one data directory, with real connections: nothing acknowledged
//! is lost, QoS 2 arrives exactly once, order holds, Sessions and Retained Messages are there, Wills are published.
//!
//! `SEED=n ROUNDS=n make crash`. A seed replays the plan: who takes part, when the kills come, what Clients do. The timing
//! of a real process is its own, so a failure may need several tries. The judge is that of the simulation, which replays
//! exactly.

mod broker;
#[path = "../simulation/client.rs"]
mod client;
mod fleet;
mod link;
#[path = "../simulation/promises.rs"]
#[allow(dead_code, reason = "the simulation has its own Clients and messages")]
mod promises;
mod roster;

use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::broker::Broker;
use crate::fleet::Fleet;

/// Kills of an ordinary run in each mode.
const ROUNDS: u64 = 4;

/// A broker that is silent for so long has nothing left to say. Delayed wills take up to two seconds.
const PATIENCE: Duration = Duration::from_secs(15);

/// Complaints that are printed: one lost batch can cost thousands.
const COMPLAINTS: usize = 40;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn seed() -> u64 {
    number("SEED").unwrap_or_else(|| rand::random_range(0..1_000_000))
}

/// Kills the broker `rounds` times; returns everything that was wrong, and stops at the first time that anything is.
fn complaints(durability: &'static str, seed: u64, rounds: u64, patience: Duration) -> Vec<String> {
    let started = Instant::now();
    let mut plan = SmallRng::seed_from_u64(seed);
    let mut broker = Broker::new(durability);
    let mut fleet = Fleet::new(plan.random(), patience);
    fleet.turn_to(broker.start());
    for round in 1..=rounds {
        let longest = if plan.random_bool(0.3) { 50 } else { 500 };
        let killer = broker.kill_after(Duration::from_micros(plan.random_range(0..longest * 1000)));
        fleet.live(|| killer.is_finished());
        killer.join().unwrap();
        fleet.handle_crash();
        broker.bury();
        if plan.random_bool(0.2) {
            broker.start_in_vain(Duration::from_micros(plan.random_range(0..60_000)));
        }
        fleet.turn_to(broker.start());
        let mut complaints = fleet.wrong_retained();
        // Mostly a crash meets what the last one has left.
        if complaints.is_empty() && (plan.random_bool(0.3) || round == rounds) {
            complaints = fleet.heal();
        }
        if !complaints.is_empty() {
            complaints.truncate(COMPLAINTS);
            let state = broker.state();
            complaints.push(format!("after kill {round}; {state}; the log:\n{}", broker.log()));
            return complaints;
        }
        if round.is_multiple_of(10) || round == rounds {
            println!(
                "durability {durability}, SEED={seed}: {round} kills, {} messages acknowledged, {} wills due, \
                 slowest start {:?}, {:.1} s",
                fleet.acknowledged(),
                fleet.wills(),
                broker.slowest_start,
                started.elapsed().as_secs_f64(),
            );
        }
    }
    Vec::new()
}

fn survives(durability: &'static str) {
    let seed = seed();
    let rounds = number("ROUNDS").unwrap_or(ROUNDS);
    let complaints = complaints(durability, seed, rounds, PATIENCE);
    let text = complaints.join("\n");
    assert!(text.is_empty(), "SEED={seed} ROUNDS={rounds} make crash ({durability})\n{text}");
}

/// [MQTT-4.3.2-2] [MQTT-4.3.3-2] [MQTT-4.4.0-1] [MQTT-4.6.0-6] [MQTT-3.1.2-8] [MQTT-3.1.3-9] and what
/// `docs/durability.md` promises.
#[test]
fn nothing_acknowledged_is_lost_by_a_kill_with_fsync() {
    survives("fsync");
}

/// The same: the operating system outlives the process.
#[test]
fn nothing_acknowledged_is_lost_by_a_kill_with_os() {
    survives("os");
}

/// The test would be worth nothing if it let a broker pass that acknowledges what is not safe: with durability `memory`
/// it does so by intention, and that must be noticed.
#[test]
fn an_acknowledgement_before_the_write_is_caught() {
    let first = seed();
    let is_caught = |seed: u64| {
        let complaints = complaints("memory", seed, 10, Duration::from_secs(4));
        complaints.iter().any(|complaint| complaint.contains("lost"))
    };
    let caught = (first..first + 10).find(|seed| is_caught(*seed));
    assert!(caught.is_some(), "nobody has noticed that acknowledgements come too early");
}
