//! A handful of Clients does anything in any order to a broker without a network: connect, publish,
//! subscribe, acknowledge rightly or wrongly, vanish, wait. Whatever the broker sends back must be
//! well-formed and within what the Client allowed; see `simulated_client`.

#![no_main]

mod simulated_client;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use petrel::auth::authority::DefaultAuthority;
use petrel::access::{ListenerRules, Peer};
use petrel::broker::Broker;
use petrel::broker::limits::Limits;
use petrel::session::effects::Effects;
use petrel::durable::message::{Issuer, Timestamp};
use petrel::session::queue::QueueLimits;
use petrel::durable::record::{Loaded, OverflowPolicy};
use petrel::store::memory::MemoryStore;
use simulated_client::{Action, SimulatedClient};

/// Clients at once; some of them share a Client Identifier.
const CLIENTS: usize = 4;
/// Operations in one run.
const MAX_OPERATIONS: usize = 300;

#[derive(Debug, Arbitrary)]
enum Operation {
    /// The Client does something; it opens a Network Connection first if it has none.
    Act(u8, Action),
    /// The Network Connection breaks.
    Vanish(u8),
    /// Time passes.
    Wait(u16),
}

fuzz_target!(|input: &[u8]| {
    let mut input = Unstructured::new(input);
    let now = Timestamp(1_000_000);
    let broker = broker(input.arbitrary().unwrap_or(0), now);
    let mut world = World { broker, now, clients: [const { None }; CLIENTS] };
    // Not a `Vec` of them, which would end with even odds after each.
    for _ in 0..MAX_OPERATIONS {
        let Ok(operation) = input.arbitrary() else { break };
        if input.is_empty() {
            break;
        }
        world.apply(&operation);
    }
    for slot in 0..CLIENTS {
        world.vanish(slot);
    }
    assert_eq!(world.broker.figures().connected.load(Ordering::Relaxed), 0);
});

fn broker(overflow: u8, now: Timestamp) -> Arc<Broker> {
    let policies = [
        OverflowPolicy::Spill,
        OverflowPolicy::Backpressure,
        OverflowPolicy::Reject,
        OverflowPolicy::DropOldest,
        OverflowPolicy::DropNewest,
    ];
    let policy = policies[usize::from(overflow) % policies.len()];
    let limits = Limits {
        max_packet_bytes: 4096,
        receive_maximum: 4,
        max_inflight: 8,
        topic_alias_maximum: 3,
        outgoing_alias_maximum: 3,
        max_subscriptions: 20,
        max_retained: 8,
        outbox_bytes: 4096,
        crowded_wait: Duration::from_millis(10),
        backpressure_wait: Duration::from_millis(50),
        queue: QueueLimits { max_messages: 10, max_bytes: 2048, policy },
        ..Limits::default()
    };
    let loaded = Loaded::empty(Issuer::new(0, 1), now);
    let store = Arc::new(MemoryStore::default());
    let authority = Arc::new(DefaultAuthority::new(None));
    Arc::new(Broker::new(limits, store, authority, loaded, 7))
}

struct World {
    broker: Arc<Broker>,
    now: Timestamp,
    clients: [Option<SimulatedClient>; CLIENTS],
}

impl World {
    fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Act(number, action) => {
                let slot = usize::from(*number) % CLIENTS;
                let (broker, now) = (&self.broker, self.now);
                let client = self.clients[slot]
                    .get_or_insert_with(|| SimulatedClient::new(broker, peer(), now));
                client.act(*number, action);
            }
            Operation::Vanish(slot) => self.vanish(usize::from(*slot) % CLIENTS),
            Operation::Wait(milliseconds) => {
                self.now = self.now.plus(Duration::from_millis(u64::from(*milliseconds) * 4));
                let mut effects = Effects::new();
                while self.broker.handle_timers(self.now, &mut effects) {}
                effects.wake();
                for client in self.clients.iter_mut().flatten() {
                    client.wait(self.now);
                }
            }
        }
        self.settle();
    }

    /// Carries out what is to be done until nothing is, within bounds: nobody may keep the others
    /// busy for ever.
    fn settle(&mut self) {
        for _ in 0..64 {
            let mut has_moved = false;
            for slot in &mut self.clients {
                let Some(client) = slot else { continue };
                has_moved |= client.exchange(&self.broker, self.now);
                if client.is_over() {
                    client.end(self.now);
                    *slot = None;
                    has_moved = true;
                }
            }
            if !has_moved {
                return;
            }
        }
        panic!("the broker does not come to rest");
    }

    fn vanish(&mut self, slot: usize) {
        if let Some(mut client) = self.clients[slot].take() {
            client.end(self.now);
        }
        self.settle();
    }
}

fn peer() -> Peer {
    let rules = ListenerRules { allow_anonymous: true, ..ListenerRules::default() };
    Peer { address: None, listener: Arc::new(rules), certificate_name: None }
}
