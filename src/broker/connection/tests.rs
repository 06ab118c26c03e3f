//! What is refused or granted to a Client by authority and policies, in packets.

use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;

use parking_lot::Mutex;

use super::*;
use crate::access::{Access, Action, Authority, Decision, ListenerRules};
use crate::broker::limits::Limits;
use crate::broker::neighbours::Neighbours;
use crate::packet::connect::Connect;
use crate::packet::reason_code::ReasonCode;
use crate::session::effects::DropReason;
use crate::session::policies::{
    LimitPolicy, OwnMessages, Recognition, RetainFlag, Rights, States, Trail,
};
use crate::session::publication::Publication;
use crate::store::memory::MemoryStore;

/// Denies what lies below `closed`, until its revision rises.
struct Rules(AtomicU64);

impl Authority for Rules {
    fn authenticate(&self, _credentials: &Credentials) -> Result<Principal, ReasonCode> {
        Ok(Principal { user_name: Some("ann".into()) })
    }

    fn may_block(&self, _credentials: &Credentials) -> bool {
        false
    }

    fn begin_exchange(&self, _method: &str, _peer: &Peer) -> Option<Box<dyn Exchange>> {
        None
    }

    fn revision(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn authorize(&self, access: &Access<'_>) -> Decision {
        assert_eq!(access.principal.user_name.as_deref(), Some("ann"));
        assert!(["c", "d"].contains(&access.client_id));
        let (Action::Publish(topic) | Action::Subscribe(topic)) = access.action;
        match topic.starts_with("closed/") && self.revision() == 0 {
            true => Decision::Denied,
            false => Decision::Allowed,
        }
    }
}

fn broker() -> (Arc<Rules>, Arc<Broker>) {
    let (store, loaded, _clock) = MemoryStore::open();
    let rules = Arc::new(Rules(AtomicU64::new(0)));
    let authority = Arc::clone(&rules) as Arc<dyn Authority>;
    let broker = Broker::new(Limits::default(), Arc::new(store), authority, loaded, 7);
    (rules, Arc::new(broker))
}

/// A connection through a listener with these policies.
fn connection(broker: &Arc<Broker>, policies: Policies) -> ClientConnection {
    let listener = Arc::new(ListenerRules { policies, ..ListenerRules::default() });
    let peer = Peer { address: None, listener, certificate_name: None };
    ClientConnection::new(Arc::clone(broker), peer, Timestamp(1))
}

/// What is answered to some packets.
fn answer(connection: &mut ClientConnection, packets: &[u8]) -> Vec<u8> {
    let (mut effects, mut output) = (Effects::new(), Outbox::default());
    connection.handle_bytes(packets, Timestamp(1), &mut effects);
    connection.handle_wake(Timestamp(1), &mut effects);
    connection.take_output(&mut output, Waker::noop());
    let mut slices = [IoSlice::new(&[]); 8];
    let filled = output.slices(0, &mut slices);
    slices[..filled].iter().flat_map(|slice| slice.iter().copied()).collect()
}

/// Without Reason Strings.
const CONNECT: &[u8] = b"\x10\x10\0\x04MQTT\x05\x02\0\0\x02\x17\0\0\x01c";
const PUBLISH: &[u8] = b"\x32\x0d\0\x08closed/a\0\x01\0";
const SUBSCRIBE_OPEN: &[u8] = b"\x82\x0a\0\x02\0\0\x04open\0";
const SUBSCRIBE: &[u8] = b"\x82\x0e\0\x02\0\0\x08closed/#\0";

/// A PUBLISH, a SUBSCRIBE and a Will Message are refused, each in its own way, and others are not.
#[test]
fn what_the_authority_denies_is_refused() {
    let (_rules, broker) = broker();
    let mut client = connection(&broker, Policies::default());
    assert_eq!(answer(&mut client, CONNECT).first(), Some(&0x20));
    assert_eq!(answer(&mut client, PUBLISH), b"\x40\x03\0\x01\x87");
    assert_eq!(answer(&mut client, SUBSCRIBE), b"\x90\x04\0\x02\0\x87");
    let open = b"\x32\x0b\0\x06open/a\0\x03\0";
    assert_eq!(answer(&mut client, open), b"\x40\x03\0\x03\x10");
    let with_will = b"\x10\x1b\0\x04MQTT\x05\x06\0\0\0\0\x01c\0\0\x08closed/w\0\0";
    let refused = answer(&mut connection(&broker, Policies::default()), with_will);
    assert_eq!((refused.first(), refused.get(3)), (Some(&0x20), Some(&0x87)));
}

/// A topic that was asked about once is asked about again when the rules have changed, on a connection that stays.
#[test]
fn a_change_of_the_rules_reaches_those_who_are_here() {
    let (rules, broker) = broker();
    let mut client = connection(&broker, Policies::default());
    answer(&mut client, CONNECT);
    assert_eq!(answer(&mut client, PUBLISH).get(4), Some(&0x87));
    rules.0.store(1, Ordering::Relaxed);
    assert_eq!(answer(&mut client, PUBLISH).get(4), Some(&0x87), "nobody was told");
    broker.handle_access_change();
    answer(&mut client, b"");
    assert_eq!(answer(&mut client, PUBLISH).get(4), Some(&0x10));
}

/// A Client with these policies; the others are the default ones.
fn client(broker: &Arc<Broker>, policies: Policies) -> ClientConnection {
    let mut client = connection(broker, policies);
    assert_eq!(answer(&mut client, CONNECT).first(), Some(&0x20));
    client
}

/// PUBLISH in QoS 1, without properties.
fn publish(topic: &str, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(2 + topic.len() + 3 + payload.len()).unwrap();
    let topic_length = u8::try_from(topic.len()).unwrap();
    [&[0x32, length, 0, topic_length], topic.as_bytes(), &[0, 1, 0], payload].concat()
}

/// Who may publish to topics of the broker's own: to the state of a connection by policy, to all of them by right.
#[test]
fn policies_open_topics_of_the_brokers_own() {
    const OWN: &str = "$SYS/broker/connection/c/state";
    const OTHER: &str = "$SYS/broker/connection/d/state";
    const FIGURE: &str = "$SYS/broker/clients/total";
    let states = |states| Policies { states, ..Policies::default() };
    let all = Policies { rights: Rights::All, ..Policies::default() };
    for (policies, allowed) in [
        (states(States::None), [false, false, false]),
        (states(States::Own), [true, false, false]),
        (states(States::All), [true, true, false]),
        (all, [true, true, true]),
    ] {
        let (_rules, broker) = broker();
        let mut client = client(&broker, policies);
        for (topic, is_allowed) in [OWN, OTHER, FIGURE].into_iter().zip(allowed) {
            let reason = if is_allowed { 0x10 } else { 0x87 };
            assert_eq!(answer(&mut client, &publish(topic, b"1")), [0x40, 3, 0, 1, reason]);
        }
    }
}

/// Limits hold for Clients, and not for those that are exempt.
#[test]
fn policies_exempt_from_limits() {
    let (store, loaded, _clock) = MemoryStore::open();
    let limits = Limits { max_sessions: 0, ..Limits::default() };
    let authority = Arc::new(Rules(AtomicU64::new(0)));
    let broker = Arc::new(Broker::new(limits, Arc::new(store), authority, loaded, 7));
    let refused = answer(&mut connection(&broker, Policies::default()), CONNECT);
    assert_eq!((refused.first(), refused.get(3)), (Some(&0x20), Some(&0x97)));
    let exempt = Policies { limits: LimitPolicy::Exempt, ..Policies::default() };
    let accepted = answer(&mut connection(&broker, exempt), CONNECT);
    assert_eq!((accepted.first(), accepted.get(3)), (Some(&0x20), Some(&0)));
}

/// Neighbours that write down what leaves, and find that each message `again` has been here.
#[derive(Default)]
struct Witness {
    left: Mutex<Vec<String>>,
}

impl Neighbours for Arc<Witness> {
    fn policies(&self, _connect: &Connect<'_>, given: Policies) -> Policies {
        given
    }

    fn is_reserved(&self, client_id: &str) -> bool {
        client_id == "reserved"
    }

    fn note_leaving(&self, publication: &Publication<'_>) {
        self.left.lock().push(String::from_utf8_lossy(publication.payload).into_owned());
    }

    fn has_returned(&self, publication: &Publication<'_>, _recognition: Recognition) -> bool {
        publication.payload == b"again"
    }
}

/// What a Client hands on without a trail is told of, each message once, whoever else gets the same bytes.
#[test]
fn what_leaves_without_a_trail_is_told_of() {
    for (trail, told) in [(Trail::Kept, vec![]), (Trail::Lost, vec!["alone", "one", "two"])] {
        let (_rules, broker) = broker();
        let witness = Arc::new(Witness::default());
        broker.set_neighbours(Box::new(Arc::clone(&witness)));
        let mut client = client(&broker, Policies { trail, ..Policies::default() });
        answer(&mut client, SUBSCRIBE_OPEN);
        answer(&mut client, &publish("open", b"alone"));
        let mut other = connection(&broker, Policies::default());
        let connect = b"\x10\x10\0\x04MQTT\x05\x02\0\0\x02\x17\0\0\x01d";
        answer(&mut other, &[connect, SUBSCRIBE_OPEN].concat());
        answer(&mut other, &[publish("open", b"one"), publish("open", b"two")].concat());
        assert_eq!(*witness.left.lock(), told);
    }
}

/// A message that has been here is acknowledged, counted, and goes no further; which messages are looked at is a policy.
#[test]
fn what_comes_back_is_dropped() {
    let plain = publish("open", b"again");
    let with_property = b"\x32\x10\0\x04open\0\x01\x02\x01\0again".to_vec();
    for (recognition, message, is_seen) in [
        (Recognition::ByTrail, &plain, false),
        (Recognition::ByTrail, &with_property, true),
        (Recognition::ByContent, &plain, true),
        (Recognition::ByContent, &with_property, true),
        (Recognition::Trusted, &plain, false),
        (Recognition::Trusted, &with_property, false),
    ] {
        let (_rules, broker) = broker();
        broker.set_neighbours(Box::new(Arc::<Witness>::default()));
        let mut client = client(&broker, Policies { recognition, ..Policies::default() });
        let mut effects = Effects::new();
        let packets = [&*publish("open", b"new"), message].concat();
        client.handle_bytes(&packets, Timestamp(1), &mut effects);
        let dropped = effects.tally.dropped[DropReason::Loop as usize];
        assert_eq!(dropped, u64::from(is_seen), "{recognition:?}");
        // Nobody subscribes: who is told so has had the message routed.
        let second = if is_seen { &b"\x40\x02\0\x01"[..] } else { b"\x40\x03\0\x01\x10" };
        assert_eq!(answer(&mut client, b""), [b"\x40\x03\0\x01\x10", second].concat());
    }
}

/// A Client without options of its own gets RETAIN as published and no echo, if that is its policy.
#[test]
fn policies_stand_for_subscription_options() {
    let policies = Policies {
        own_messages: OwnMessages::Withheld,
        retain: RetainFlag::AsPublished,
        ..Policies::default()
    };
    let asked = crate::packet::subscribe::SubscriptionOptions::default();
    assert_eq!(Policies::default().subscription_options(asked), asked);
    let granted = policies.subscription_options(asked);
    assert!(granted.no_local && granted.retain_as_published);
}

/// A Client Identifier of the broker's own parts is refused to everybody else.
#[test]
fn reserved_client_identifiers_are_refused() {
    let (_rules, broker) = broker();
    broker.set_neighbours(Box::new(Arc::<Witness>::default()));
    let connect = b"\x10\x17\0\x04MQTT\x05\x02\0\0\x02\x17\0\0\x08reserved";
    let refused = answer(&mut connection(&broker, Policies::default()), connect);
    assert_eq!((refused.first(), refused.get(3)), (Some(&0x20), Some(&0x85)));
}
