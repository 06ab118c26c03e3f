//! Deterministic simulation: the real core under a network that cuts and delays and a store that fails, loses what was
//! not synced, and crashes. Nothing acknowledged may be lost, QoS 2 arrives exactly once, order holds, nobody gets stuck.
//!
//! `SEED=n` replays one seed, `SEEDS=n` runs that many.

#[allow(dead_code, reason = "wills and short Sessions belong to the crash test")]
mod client;
mod goodbye;
mod hand;
#[allow(dead_code, reason = "wills belong to the crash test")]
mod promises;
mod turns;
mod watched;
mod world;

use petrel::store::faulty::Honesty;

use crate::world::World;

/// Seeds of an ordinary run.
const SEEDS: u64 = 20_000;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn complaints(seed: u64, honesty: Honesty) -> Vec<String> {
    let world = std::panic::catch_unwind(move || World::new(seed, honesty).run());
    world.unwrap_or_else(|_| vec!["a panic".to_owned()])
}

/// [MQTT-4.3.2-2] [MQTT-4.3.3-2] [MQTT-4.4.0-1] [MQTT-4.6.0-6] and what `docs/durability.md` promises.
#[test]
fn nothing_acknowledged_is_lost_under_any_seed() {
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(SEEDS),
    };
    for seed in seeds {
        let complaints = complaints(seed, Honesty::Honest);
        assert!(complaints.is_empty(), "SEED={seed} make sim\n{}", complaints.join("\n"));
    }
}

/// The simulation would be worth nothing if it let a moved acknowledgement pass: with a store that says "durable" before
/// it is, some seed must show a loss.
#[test]
fn an_acknowledgement_before_its_sync_is_caught() {
    let caught = (0..300).find(|seed| {
        let complaints = complaints(*seed, Honesty::AcknowledgesEarly);
        complaints.iter().any(|complaint| complaint.contains("lost"))
    });
    assert!(caught.is_some(), "no seed has noticed that acknowledgements come too early");
}
