//! What is refused or granted to a Client by authority and policies, in packets.

use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;

use parking_lot::Mutex;

use super::*;
use crate::access::client_rights::{ClientRights, Rules};
use crate::access::rule::{
    Circumstances, Comparison, Effect, Operation, Operations, Origin, Rule, Who,
};
use crate::access::rule_set::{RuleDraft, RuleSet};
use crate::access::template::{Placeholders, Template};
use crate::access::{Authority, Client, ListenerRules};
use crate::broker::limits::{DeniedPublish, Limits};
use crate::broker::neighbours::Neighbours;
use crate::packet::QoS;
use crate::packet::connect::Connect;
use crate::packet::reason_code::ReasonCode;
use crate::session::effects::DropReason;
use crate::session::policies::{
    LimitPolicy, OwnMessages, Recognition, RetainFlag, Rights, States, Trail,
};
use crate::session::publication::Publication;
use crate::store::memory::MemoryStore;

/// Rules, which are in force for others once the revision rises as well.
struct Guard {
    rules: Arc<Rules>,
    revision: AtomicU64,
}

impl Guard {
    /// Puts rules in force.
    fn change(&self, rules: &[Rule]) {
        self.rules.replace(rule_set(rules));
        self.revision.fetch_add(1, Ordering::Relaxed);
    }
}

fn rule_set(rules: &[Rule]) -> RuleSet {
    RuleSet::compile(RuleDraft { rules: rules.to_vec(), ..RuleDraft::default() })
}

fn rule(effect: Effect, operations: Operations, filter: &str) -> Rule {
    Rule {
        who: Who::User("ann".into()),
        effect,
        operations,
        filter: Template::parse(filter, Placeholders::All).unwrap(),
        comparison: Comparison::Covers,
        circumstances: Circumstances::ALL,
        priority: 0,
        origin: Origin { file: "test".into(), line: 1 },
    }
}

fn allow(filter: &str) -> Rule {
    rule(Effect::Allow, Operations::ALL, filter)
}

fn deny(filter: &str) -> Rule {
    rule(Effect::Deny, Operations::ALL, filter)
}

impl Authority for Guard {
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
        self.revision.load(Ordering::Relaxed)
    }

    fn has_rules(&self) -> bool {
        true
    }

    fn rights(&self, client: &Client<'_>) -> Option<Arc<ClientRights>> {
        assert_eq!(client.principal.user_name.as_deref(), Some("ann"));
        assert!(["c", "d"].contains(&&**client.client_id));
        Some(Arc::new(ClientRights::new(&self.rules, client)))
    }
}

/// A broker whose rules deny what lies below `closed`.
fn broker() -> (Arc<Guard>, Arc<Broker>) {
    broker_with(Limits::default())
}

fn broker_with(limits: Limits) -> (Arc<Guard>, Arc<Broker>) {
    let (store, loaded, _clock) = MemoryStore::open();
    let own = [allow("$SYS/#"), deny("closed/#"), allow("#")];
    let rules = Arc::new(Rules::new(rule_set(&own)));
    let guard = Arc::new(Guard { rules, revision: AtomicU64::new(0) });
    let authority = Arc::clone(&guard) as Arc<dyn Authority>;
    (guard, Arc::new(Broker::new(limits, Arc::new(store), authority, loaded, 7)))
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
    let (_guard, broker) = broker();
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
    let (guard, broker) = broker();
    let mut client = connection(&broker, Policies::default());
    answer(&mut client, CONNECT);
    assert_eq!(answer(&mut client, PUBLISH).get(4), Some(&0x87));
    guard.change(&[allow("#")]);
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
        let (_guard, broker) = broker();
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
    let (_guard, broker) = broker_with(Limits { max_sessions: 0, ..Limits::default() });
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
        let (_guard, broker) = broker();
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
        let (_guard, broker) = broker();
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
    let (_guard, broker) = broker();
    broker.set_neighbours(Box::new(Arc::<Witness>::default()));
    let connect = b"\x10\x17\0\x04MQTT\x05\x02\0\0\x02\x17\0\0\x08reserved";
    let refused = answer(&mut connection(&broker, Policies::default()), connect);
    assert_eq!((refused.first(), refused.get(3)), (Some(&0x20), Some(&0x85)));
}

/// A second Client, with this CONNECT's Client Identifier.
fn other(broker: &Arc<Broker>) -> ClientConnection {
    let mut other = connection(broker, Policies::default());
    let connect = b"\x10\x10\0\x04MQTT\x05\x02\0\0\x02\x17\0\0\x01d";
    assert_eq!(answer(&mut other, connect).first(), Some(&0x20));
    other
}

/// SUBSCRIBE with QoS 1.
fn subscribe(filter: &str) -> Vec<u8> {
    let length = u8::try_from(2 + 1 + 2 + filter.len() + 1).unwrap();
    let filter_length = u8::try_from(filter.len()).unwrap();
    [&[0x82, length, 0, 9, 0, 0, filter_length], filter.as_bytes(), &[1]].concat()
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// A granted filter may be wider than what is received: that is decided for each topic, when it is published, when a Retained
/// Message is sent, and at once when the rules change.
#[test]
fn what_may_not_be_received_is_not() {
    let (guard, broker) = broker();
    let reads = Operations::from([Operation::Receive]);
    let own = |denied: &str| [rule(Effect::Deny, reads, denied), allow("#")];
    guard.change(&own("open/b/#"));
    broker.handle_access_change();
    let mut writer = client(&broker, Policies::default());
    let retained = |topic: &str, text: &str| {
        let mut packet = publish(topic, text.as_bytes());
        packet[0] |= 1;
        packet
    };
    answer(&mut writer, &[retained("open/a", "kept-a"), retained("open/b", "kept-b")].concat());
    let mut reader = other(&broker);
    let granted = answer(&mut reader, &subscribe("open/#"));
    assert!(granted.starts_with(b"\x90\x04\0\x09\0\x01"), "{granted:?}");
    assert!(contains(&granted, "kept-a") && !contains(&granted, "kept-b"), "{granted:?}");
    let got = |writer: &mut ClientConnection, reader: &mut ClientConnection| {
        answer(writer, &[publish("open/a", b"new-a"), publish("open/b", b"new-b")].concat());
        let got = answer(reader, b"");
        ["new-a", "new-b"].map(|text| contains(&got, text))
    };
    assert_eq!(got(&mut writer, &mut reader), [true, false]);
    guard.change(&own("open/a"));
    broker.handle_access_change();
    assert_eq!(got(&mut writer, &mut reader), [false, true]);
    guard.change(&own("open/+"));
    broker.handle_access_change();
    assert_eq!(got(&mut writer, &mut reader), [false, false]);
}

/// Messages in a queue are checked when they leave it.
#[test]
fn what_waited_is_checked_when_it_leaves() {
    let (guard, broker) = broker();
    // Receive Maximum 1.
    let connect = b"\x10\x13\0\x04MQTT\x05\x02\0\0\x05\x17\0\x21\0\x01\0\x01d";
    let mut reader = connection(&broker, Policies::default());
    assert_eq!(answer(&mut reader, connect).first(), Some(&0x20));
    answer(&mut reader, &subscribe("open/#"));
    let mut writer = client(&broker, Policies::default());
    for (topic, text) in [("open/a", "one"), ("open/b", "two"), ("open/a", "three")] {
        answer(&mut writer, &publish(topic, text.as_bytes()));
    }
    assert!(contains(&answer(&mut reader, b""), "one"));
    guard.change(&[deny("open/b"), allow("#")]);
    broker.handle_access_change();
    let (mut effects, mut output) = (Effects::new(), Outbox::default());
    reader.handle_bytes(b"\x40\x02\0\x01", Timestamp(1), &mut effects);
    reader.handle_wake(Timestamp(1), &mut effects);
    assert_eq!(effects.tally.dropped[DropReason::AccessDenied as usize], 1);
    reader.take_output(&mut output, Waker::noop());
    let mut slices = [IoSlice::new(&[]); 8];
    let filled = output.slices(0, &mut slices);
    let got: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect();
    assert!(contains(&got, "three") && !contains(&got, "two"), "{got:?}");
}

/// A message to a group goes to a member that may receive it, and to nobody if there is none.
#[test]
fn a_group_gives_messages_to_members_that_may_receive_them() {
    let (guard, broker) = broker();
    let only_c = Rule {
        who: Who::Client("d".into()),
        ..rule(Effect::Deny, Operations::from([Operation::Receive]), "open/b")
    };
    guard.change(&[only_c, allow("#")]);
    broker.handle_access_change();
    let (mut first, mut second) = (client(&broker, Policies::default()), other(&broker));
    for member in [&mut first, &mut second] {
        assert_eq!(answer(member, &subscribe("$share/g/open/+"))[5..], [1]);
    }
    for _ in 0..4 {
        let mut writer = [publish("open/b", b"new-b")].concat();
        writer[0] = 0x30;
        writer.drain(10..12);
        writer[1] -= 2;
        assert!(contains(&answer(&mut first, &writer), "new-b"));
        assert!(!contains(&answer(&mut second, b""), "new-b"));
        // A burst is dealt out in pieces.
        assert!(contains(&answer(&mut first, &writer.repeat(16)), "new-b"));
        assert!(!contains(&answer(&mut second, b""), "new-b"));
    }
}

/// Rules can depend on QoS and RETAIN, also within one burst; the answers keep their order.
#[test]
fn a_rule_may_depend_on_qos_and_retain() {
    let (guard, broker) = broker();
    let plain = Rule {
        circumstances: Circumstances::ALL.up_to(QoS::AtLeastOnce).with_retain(false),
        ..allow("open")
    };
    guard.change(&[plain]);
    broker.handle_access_change();
    let mut client = client(&broker, Policies::default());
    let one = publish("open", b"x");
    let (mut two, mut retained) = (one.clone(), one.clone());
    two[0] = 0x34;
    retained[0] = 0x33;
    let answers = answer(&mut client, &[&*one, &one, &retained, &two, &one].concat());
    let expected: &[&[u8]] = &[
        b"\x40\x03\0\x01\x10",
        b"\x40\x03\0\x01\x10",
        b"\x40\x03\0\x01\x87",
        b"\x50\x03\0\x01\x87",
        b"\x40\x03\0\x01\x10",
    ];
    assert_eq!(answers, expected.concat());
    // A Subscription gets the highest QoS that is allowed.
    let mut wanted = subscribe("open");
    *wanted.last_mut().unwrap() = 2;
    assert_eq!(answer(&mut client, &wanted)[5..], [1]);
}

/// A Will Message is checked when it is due, too.
#[test]
fn a_will_that_is_denied_meanwhile_is_not_published() {
    for (closed, is_published) in [("open/x", true), ("open/w", false)] {
        let (guard, broker) = broker();
        let mut reader = other(&broker);
        answer(&mut reader, &subscribe("open/#"));
        let with_will = b"\x10\x1b\0\x04MQTT\x05\x06\0\0\0\0\x01c\0\0\x06open/w\0\x02hi";
        let mut client = connection(&broker, Policies::default());
        assert_eq!(answer(&mut client, with_will).first(), Some(&0x20));
        guard.change(&[
            rule(Effect::Deny, Operations::from([Operation::Publish]), closed),
            allow("#"),
        ]);
        broker.handle_access_change();
        let mut effects = Effects::new();
        client.handle_closed(Timestamp(1), &mut effects);
        assert_eq!(contains(&answer(&mut reader, b""), "hi"), is_published);
        assert_eq!(effects.tally.wills_denied, u64::from(!is_published));
    }
}

/// UNSUBSCRIBE can be denied.
#[test]
fn a_subscription_may_have_to_stay() {
    let (guard, broker) = broker();
    guard.change(&[
        rule(Effect::Deny, Operations::from([Operation::Unsubscribe]), "open"),
        allow("#"),
    ]);
    broker.handle_access_change();
    let mut client = client(&broker, Policies::default());
    assert_eq!(answer(&mut client, &subscribe("open"))[5..], [1]);
    assert_eq!(answer(&mut client, b"\xa2\x09\0\x02\0\0\x04open"), b"\xb0\x04\0\x02\0\x87");
    assert!(contains(&answer(&mut client, &publish("open", b"still")), "still"));
}

/// What a Client of 3.1.1 cannot be told is acknowledged and dropped, or ends the connection.
#[test]
fn a_denied_message_of_an_old_version_is_dropped_or_ends_the_connection() {
    const CONNECT_3: &[u8] = b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01c";
    const PUBLISH_3: &[u8] = b"\x32\x0c\0\x08closed/a\0\x01";
    for (denied_publish, is_open) in
        [(DeniedPublish::Drop, true), (DeniedPublish::Disconnect, false)]
    {
        let (_guard, broker) = broker_with(Limits { denied_publish, ..Limits::default() });
        let mut client = connection(&broker, Policies::default());
        answer(&mut client, CONNECT_3);
        let answered = answer(&mut client, PUBLISH_3);
        assert_eq!(answered, if is_open { &b"\x40\x02\0\x01"[..] } else { b"" });
        assert_eq!(client.closing().is_none(), is_open);
    }
}
