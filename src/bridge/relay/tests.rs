//! The relay between two scripted brokers: bytes in, bytes out.

use std::time::Duration;

use super::*;
use crate::bridge::status::BridgeDropReason;
use crate::config::bridge::{BridgeFile, BridgeSettings};
use crate::packet::acknowledgement::{Acknowledgement, Puback, Pubcomp, Pubrec, Pubrel};
use crate::packet::decode::{DecodeContext, Decoded, Sender, decode};
use crate::packet::publish::Publish;
use crate::packet::reason_code::ReasonCode;
use crate::packet::subscribe::Suback;
use crate::packet::{PacketId, QoS};

const V5: ProtocolVersion = ProtocolVersion::V5_0;

fn granted() -> Accepted {
    Accepted {
        session_present: true,
        receive_maximum: u16::MAX,
        maximum_qos: QoS::ExactlyOnce,
        retain_available: true,
        packet_bytes_max: u32::MAX,
        topic_alias_maximum: 0,
        keep_alive: Duration::from_secs(60),
    }
}

/// A relay with its two brokers played by the test.
struct Stage {
    relay: Relay,
    now: Instant,
    version: ProtocolVersion,
}

struct Setting {
    topics: &'static [&'static str],
    remote: Accepted,
    lanes: usize,
    sweep_remote: bool,
    sweep_local: bool,
    backlog: u64,
    file: BridgeFile,
}

fn setting(topics: &'static [&'static str]) -> Setting {
    Setting {
        topics,
        remote: granted(),
        lanes: 1,
        sweep_remote: false,
        sweep_local: false,
        // No test fetches Retained Messages anew by chance.
        backlog: u64::MAX,
        file: BridgeFile { name: "b".into(), addresses: vec!["h".into()], ..BridgeFile::default() },
    }
}

impl Setting {
    fn open(self) -> Stage {
        let mut stage = self.begin();
        stage.answer_all();
        assert!(stage.relay.is_running());
        stage
    }

    fn begin(mut self) -> Stage {
        self.file.topics = self.topics.iter().map(|topic| (*topic).to_owned()).collect();
        let settings = BridgeSettings::check(&self.file, "host").unwrap();
        let plans = lane_plans(&settings.rules, self.lanes);
        let lanes = plans.into_iter().enumerate().map(|(lane, plan)| LaneOptions {
            local: (lane == 0 || !plan.subscribe.is_empty()).then(granted),
            plan,
            origin: 1,
            remote: self.remote.clone(),
            is_subscribed: false,
            is_tidy: false,
            has_bridge_bit: false,
            sweep_remote: self.sweep_remote,
            sweep_local: self.sweep_local,
        });
        let version = settings.protocol;
        let now = Instant::now();
        let options = RelayOptions {
            settings: Arc::new(settings),
            broker_id: "us".into(),
            lanes: lanes.collect(),
            stale_local_filters: Vec::new(),
            known_local_filters: Vec::new(),
            echoes: Arc::default(),
            account: None,
            backlog: self.backlog,
            unproven: Unproven::default(),
            announcement: Announcement::None,
        };
        Stage { relay: Relay::new(options, now), now, version }
    }
}

fn id(number: u16) -> PacketId {
    PacketId::try_from(number).unwrap()
}

fn ack(number: u16) -> Acknowledgement<'static> {
    Acknowledgement::new(id(number), ReasonCode::Success)
}

fn message(topic: &str, qos: QoS, number: u16) -> Publish<'_> {
    Publish {
        dup: false,
        qos,
        retain: false,
        topic,
        packet_id: (qos > QoS::AtMostOnce).then(|| id(number)),
        topic_alias: None,
        message_expiry: None,
        subscription_ids: Vec::new(),
        properties: (&[][..]).into(),
        payload: b"x",
    }
}

/// What was written, in short: `PUBLISH topic qos id`, `PUBACK id`, …
fn words(output: &mut Vec<u8>, version: ProtocolVersion) -> Vec<String> {
    let bytes = std::mem::take(output);
    let context = DecodeContext { version, max_packet_bytes: u32::MAX, sender: Sender::Client };
    let (mut place, mut found) = (0, Vec::new());
    while let Ok(Decoded::Packet { packet, length }) = decode(&bytes[place..], &context) {
        place += length;
        found.push(match packet {
            Packet::Publish(p) => {
                let number = p.packet_id.map_or(0, PacketId::get);
                let alias =
                    p.topic_alias.map(|alias| format!(" alias {alias}")).unwrap_or_default();
                format!("PUBLISH {} {} {number}{alias}", p.topic, p.qos as u8)
            }
            Packet::Puback(a) => format!("PUBACK {}", a.0.packet_id.get()),
            Packet::Pubrec(a) if a.0.reason.is_failure() => {
                format!("PUBREC- {}", a.0.packet_id.get())
            }
            Packet::Pubrec(a) => format!("PUBREC {}", a.0.packet_id.get()),
            Packet::Pubrel(a) => format!("PUBREL {}", a.0.packet_id.get()),
            Packet::Pubcomp(a) => format!("PUBCOMP {}", a.0.packet_id.get()),
            Packet::Subscribe(s) => format!("SUBSCRIBE {}", s.packet_id.get()),
            Packet::Unsubscribe(u) => format!("UNSUBSCRIBE {}", u.packet_id.get()),
            Packet::Pingreq => "PINGREQ".to_owned(),
            other => format!("{other:?}"),
        });
    }
    assert_eq!(place, bytes.len(), "all that was written is whole");
    found
}

impl Stage {
    fn from_local(&mut self, packet: Packet<'_>) {
        let mut bytes = Vec::new();
        packet.encode(&mut bytes, V5);
        assert_eq!(self.relay.handle_local(0, &bytes, self.now).unwrap(), bytes.len());
    }

    fn from_remote(&mut self, lane: usize, packet: Packet<'_>) -> Result<usize, LinkError> {
        let mut bytes = Vec::new();
        packet.encode(&mut bytes, self.version);
        self.relay.handle_remote(lane, &bytes, self.now)
    }

    fn to_local(&mut self) -> Vec<String> {
        words(self.relay.local_output(0).unwrap(), V5)
    }

    fn to_remote(&mut self, lane: usize) -> Vec<String> {
        let version = self.version;
        words(self.relay.remote_output(lane).unwrap(), version)
    }

    /// Answers every SUBSCRIBE and sweep until nothing is asked any more.
    fn answer_all(&mut self) {
        for _ in 0..200 {
            let asked = self.to_local();
            for word in &asked {
                if let Some(answer) = answer(word) {
                    self.from_local(answer);
                }
            }
            for lane in 0..self.relay.remotes.len() {
                for word in self.to_remote(lane) {
                    if let Some(answer) = answer(&word) {
                        self.from_remote(lane, answer).unwrap();
                    }
                }
            }
        }
    }
}

fn answer(word: &str) -> Option<Packet<'static>> {
    let (name, number) = word.split_once(' ')?;
    let number = number.parse().ok()?;
    match name {
        "SUBSCRIBE" => Some(Packet::Suback(Suback {
            packet_id: id(number),
            reason_string: None,
            user_properties: Vec::new(),
            reasons: vec![ReasonCode::Success],
        })),
        "PUBREL" => Some(Packet::Pubcomp(Pubcomp(ack(number)))),
        _ => None,
    }
}

#[test]
fn acknowledgements_pass_through_with_their_identifiers() {
    let mut stage = setting(&["t out 2", "u in 2"]).open();
    stage.from_local(Packet::Publish(message("t", QoS::AtLeastOnce, 7)));
    assert_eq!(stage.to_remote(0), ["PUBLISH t 1 7"]);
    assert!(stage.to_local().is_empty(), "nothing is acknowledged before the remote broker did");
    stage.from_remote(0, Packet::Puback(Puback(ack(7)))).unwrap();
    assert_eq!(stage.to_local(), ["PUBACK 7"]);
    stage.from_local(Packet::Publish(message("t", QoS::ExactlyOnce, 8)));
    stage.from_remote(0, Packet::Pubrec(Pubrec(ack(8)))).unwrap();
    assert_eq!(stage.to_local(), ["PUBREC 8"]);
    stage.from_local(Packet::Pubrel(Pubrel(ack(8))));
    assert_eq!(stage.to_remote(0), ["PUBLISH t 2 8", "PUBREL 8"]);
    stage.from_remote(0, Packet::Pubcomp(Pubcomp(ack(8)))).unwrap();
    assert_eq!(stage.to_local(), ["PUBCOMP 8"]);
    stage.from_remote(0, Packet::Publish(message("u", QoS::ExactlyOnce, 9))).unwrap();
    assert_eq!(stage.to_local(), ["PUBLISH u 2 9"]);
    assert!(stage.to_remote(0).is_empty(), "nothing is acknowledged before the local broker did");
    stage.from_local(Packet::Pubrec(Pubrec(ack(9))));
    stage.from_remote(0, Packet::Pubrel(Pubrel(ack(9)))).unwrap();
    stage.from_local(Packet::Pubcomp(Pubcomp(ack(9))));
    assert_eq!(stage.to_remote(0), ["PUBREC 9", "PUBCOMP 9"]);
    assert_eq!(stage.to_local(), ["PUBREL 9"]);
}

#[test]
fn outgoing_messages_wait_for_the_end_of_the_opening() {
    let mut stage = setting(&["t both 1"]).begin();
    let subscribe = stage.to_local();
    assert_eq!(subscribe, ["SUBSCRIBE 1"]);
    assert!(!stage.relay.wants_remote(0), "the remote broker waits for the local one");
    stage.from_local(answer("SUBSCRIBE 1").unwrap());
    stage.from_local(Packet::Publish(message("t", QoS::AtLeastOnce, 65_535)));
    // The identifier of the message is that of the SUBSCRIBE on its way: the message must wait.
    assert_eq!(stage.to_remote(0), ["SUBSCRIBE 65535"]);
    stage.from_remote(0, answer("SUBSCRIBE 65535").unwrap()).unwrap();
    assert_eq!(stage.to_remote(0), ["PUBLISH t 1 65535"]);
}

#[test]
fn identifiers_without_meaning_are_released_before_anything_else() {
    let mut setting = setting(&["t out 2", "u in 2"]);
    (setting.sweep_local, setting.sweep_remote) = (true, true);
    let mut stage = setting.begin();
    let first = stage.to_local();
    assert!(first.contains(&"PUBREL 1".to_owned()));
    for word in &first {
        stage.from_local(answer(word).unwrap());
    }
    stage.from_local(Packet::Publish(message("t", QoS::ExactlyOnce, 5)));
    let held = stage.to_remote(0);
    assert!(!held.iter().any(|word| word.starts_with("PUBLISH")), "{held:?}");
    let mut released = first.iter().filter(|word| word.starts_with("PUBREL")).count();
    loop {
        let words = stage.to_local();
        if words.is_empty() {
            break;
        }
        released += words.len();
        for word in words {
            stage.from_local(answer(&word).unwrap());
        }
    }
    assert_eq!(released, 65_535);
    let mut seen = Vec::new();
    for _ in 0..200 {
        for word in stage.to_remote(0) {
            if let Some(answer) = answer(&word) {
                stage.from_remote(0, answer).unwrap();
            }
            seen.push(word);
        }
    }
    assert_eq!(seen.iter().filter(|word| word.starts_with("PUBREL")).count(), 65_535);
    assert_eq!(seen.last().unwrap(), "PUBLISH t 2 5");
    assert!(stage.to_local().is_empty(), "answers to the release are not answers to anybody else");
}

#[test]
fn a_remote_without_qos_2_or_1_gets_what_it_takes() {
    let mut one = setting(&["t out 2"]);
    one.remote.maximum_qos = QoS::AtLeastOnce;
    let mut stage = one.open();
    stage.from_local(Packet::Publish(message("t", QoS::ExactlyOnce, 3)));
    assert_eq!(stage.to_remote(0), ["PUBLISH t 1 3"]);
    stage.from_remote(0, Packet::Puback(Puback(ack(3)))).unwrap();
    assert_eq!(stage.to_local(), ["PUBREC 3"]);
    stage.from_local(Packet::Pubrel(Pubrel(ack(3))));
    assert_eq!(stage.to_local(), ["PUBCOMP 3"]);
    assert!(stage.to_remote(0).is_empty());
    let mut none = setting(&["t out 2"]);
    none.remote.maximum_qos = QoS::AtMostOnce;
    let mut stage = none.open();
    stage.from_local(Packet::Publish(message("t", QoS::AtLeastOnce, 3)));
    assert_eq!(stage.to_remote(0), ["PUBLISH t 0 0"]);
    assert_eq!(stage.to_local(), ["PUBACK 3"]);
}

#[test]
fn the_receive_maximum_of_the_remote_is_respected() {
    let mut setting = setting(&["t out 1"]);
    setting.remote.receive_maximum = 2;
    let mut stage = setting.open();
    for number in 1..=4 {
        stage.from_local(Packet::Publish(message("t", QoS::AtLeastOnce, number)));
    }
    assert_eq!(stage.to_remote(0), ["PUBLISH t 1 1", "PUBLISH t 1 2"]);
    stage.from_remote(0, Packet::Puback(Puback(ack(1)))).unwrap();
    assert_eq!(stage.to_remote(0), ["PUBLISH t 1 3"]);
}

/// mosquitto acknowledged what exceeded its window over 3.1.1, and dropped it. The window was exceeded because the
/// PUBCOMP of an exchange that had begun before a cut was taken for the end of one that had begun after it.
#[test]
fn an_exchange_that_went_on_after_a_cut_makes_room_only_for_itself() {
    let mut setting = setting(&["t out 2"]);
    setting.remote.receive_maximum = 3;
    let mut stage = setting.open();
    stage.from_local(Packet::Pubrel(Pubrel(ack(1))));
    for number in 2..=5 {
        stage.from_local(Packet::Publish(message("t", QoS::ExactlyOnce, number)));
    }
    assert_eq!(stage.to_remote(0), ["PUBREL 1", "PUBLISH t 2 2", "PUBLISH t 2 3"]);
    stage.from_remote(0, Packet::Pubcomp(Pubcomp(ack(1)))).unwrap();
    assert_eq!(stage.to_remote(0), ["PUBLISH t 2 4"]);
    stage.from_remote(0, Packet::Pubcomp(Pubcomp(ack(1)))).unwrap();
    assert!(stage.to_remote(0).is_empty(), "an answer to nothing makes no room");
    assert_eq!(stage.to_local(), ["PUBCOMP 1"]);
}

/// With several connections more may come from the local broker than one of them takes. The release of what it has
/// waited behind what it had no room for, and that waited for the release: the link stood still for ever.
#[test]
fn a_release_overtakes_messages_that_wait_for_room() {
    let mut setting = setting(&["t out 2"]);
    setting.remote.receive_maximum = 1;
    let mut stage = setting.open();
    for number in 1..=2 {
        stage.from_local(Packet::Publish(message("t", QoS::ExactlyOnce, number)));
    }
    assert_eq!(stage.to_remote(0), ["PUBLISH t 2 1"]);
    stage.from_remote(0, Packet::Pubrec(Pubrec(ack(1)))).unwrap();
    // An answer to a message that was not sent yet belongs to something older.
    stage.from_remote(0, Packet::Pubrec(Pubrec(ack(2)))).unwrap();
    assert_eq!(stage.to_local(), ["PUBREC 1"]);
    stage.from_local(Packet::Pubrel(Pubrel(ack(1))));
    assert_eq!(stage.to_remote(0), ["PUBREL 1"]);
    stage.from_remote(0, Packet::Pubcomp(Pubcomp(ack(1)))).unwrap();
    assert_eq!(stage.to_remote(0), ["PUBLISH t 2 2"]);
}

/// The local broker repeats what was in flight before it answers the SUBSCRIBE. Refusing more than a few MiB of that
/// left the link in its opening for ever.
#[test]
fn the_opening_takes_everything_that_was_in_flight() {
    let mut stage = setting(&["t out 1"]).begin();
    assert_eq!(stage.to_local(), ["SUBSCRIBE 1"]);
    let payload = vec![b'x'; HELD_BYTES_MAX];
    for number in 1..=2 {
        let large = message("t", QoS::AtLeastOnce, number);
        stage.from_local(Packet::Publish(Publish { dup: true, payload: &payload, ..large }));
    }
    stage.from_local(Packet::Publish(message("t", QoS::AtMostOnce, 0)));
    stage.from_local(answer("SUBSCRIBE 1").unwrap());
    assert!(stage.relay.is_running());
    let mut sent = Vec::new();
    for _ in 0..3 {
        sent.extend(stage.to_remote(0));
        stage.relay.handle_timeout(stage.now).unwrap();
    }
    assert_eq!(sent, ["PUBLISH t 1 1", "PUBLISH t 1 2", "PUBLISH t 0 0"]);
}

/// 3.x brokers cannot say how many messages they take at a time; mosquitto's limit is 20.
#[test]
fn a_3x_link_has_a_small_window_unless_configured() {
    for (protocol, configured, expected) in
        [("3.1.1", 0, 20), ("3.1.1", 50, 50), ("5.0", 0, 1000), ("5.0", 7, 7)]
    {
        let mut setting = setting(&["t out 1"]);
        setting.file.protocol = protocol.into();
        setting.file.max_inflight = configured;
        let mut stage = setting.open();
        for number in 1..=1001 {
            stage.from_local(Packet::Publish(message("t", QoS::AtLeastOnce, number)));
        }
        assert_eq!(stage.to_remote(0).len(), expected, "{protocol} {configured}");
    }
}

/// QoS 0 needs no room in the window and does not wait for it.
#[test]
fn qos_0_passes_a_full_window() {
    let mut setting = setting(&["t out 1"]);
    setting.remote.receive_maximum = 1;
    let mut stage = setting.open();
    for number in 1..=2 {
        stage.from_local(Packet::Publish(message("t", QoS::AtLeastOnce, number)));
    }
    stage.from_local(Packet::Publish(message("t", QoS::AtMostOnce, 0)));
    assert_eq!(stage.to_remote(0), ["PUBLISH t 1 1", "PUBLISH t 0 0"]);
}

#[test]
fn a_refusal_that_passes_ends_the_link_and_another_is_counted() {
    let mut stage = setting(&["t out 1", "u in 1"]).open();
    let with = |reason| Packet::Puback(Puback(Acknowledgement::new(id(1), reason)));
    stage.from_local(Packet::Publish(message("t", QoS::AtLeastOnce, 1)));
    stage.from_remote(0, with(ReasonCode::NotAuthorized)).unwrap();
    assert_eq!(stage.to_local(), ["PUBACK 1"]);
    assert_eq!(stage.relay.take_tally().drops[BridgeDropReason::RefusedRemote as usize], 1);
    let error = stage.from_remote(0, with(ReasonCode::QuotaExceeded)).unwrap_err();
    assert!(matches!(error, LinkError::RemoteBusy(ReasonCode::QuotaExceeded)));
    let mut bytes = Vec::new();
    with(ReasonCode::QuotaExceeded).encode(&mut bytes, V5);
    let error = stage.relay.handle_local(0, &bytes, stage.now).unwrap_err();
    assert!(matches!(error, LinkError::LocalBusy(ReasonCode::QuotaExceeded)));
}

#[test]
fn messages_that_come_back_are_dropped_and_acknowledged() {
    let mut stage = setting(&["t both 2"]).open();
    let mut trail = Vec::new();
    let hop = crate::bridge::properties::Changes { response_topic: None, hop: Some("us") };
    crate::bridge::properties::rewrite(&[], hop, &mut trail);
    let own = Publish { properties: trail.into(), ..message("t", QoS::AtLeastOnce, 4) };
    stage.from_remote(0, Packet::Publish(own)).unwrap();
    assert_eq!(stage.to_remote(0), ["PUBACK 4"]);
    assert!(stage.to_local().is_empty());
    assert_eq!(stage.relay.take_tally().drops[BridgeDropReason::Loop as usize], 1);
}

#[test]
fn topic_aliases_shorten_what_repeats_and_are_understood() {
    let mut setting = setting(&["# both 1"]);
    setting.remote.topic_alias_maximum = 1;
    let mut stage = setting.open();
    for topic in ["a", "b", "a"] {
        stage.from_local(Packet::Publish(message(topic, QoS::AtMostOnce, 0)));
    }
    assert_eq!(
        stage.to_remote(0),
        ["PUBLISH a 0 0 alias 1", "PUBLISH b 0 0", "PUBLISH  0 0 alias 1"]
    );
    let named = Publish { topic_alias: Some(3), ..message("c", QoS::AtMostOnce, 0) };
    let short = Publish { topic: "", ..named.clone() };
    stage.from_remote(0, Packet::Publish(named)).unwrap();
    stage.from_remote(0, Packet::Publish(short)).unwrap();
    assert_eq!(stage.to_local(), ["PUBLISH c 0 0", "PUBLISH c 0 0"]);
    let unknown = Publish { topic_alias: Some(4), topic: "", ..message("", QoS::AtMostOnce, 0) };
    assert!(stage.from_remote(0, Packet::Publish(unknown)).is_err());
    let beyond = Publish { topic_alias: Some(33), ..message("c", QoS::AtMostOnce, 0) };
    assert!(stage.from_remote(0, Packet::Publish(beyond)).is_err());
}

#[test]
fn a_rate_limit_holds_messages_and_not_acknowledgements() {
    let mut setting = setting(&["t out 1", "u in 1"]);
    setting.file.rate_messages = 10;
    let mut stage = setting.open();
    for number in 1..=3 {
        stage.from_local(Packet::Publish(message("t", QoS::AtLeastOnce, number)));
    }
    assert_eq!(stage.to_remote(0), ["PUBLISH t 1 1"]);
    stage.from_remote(0, Packet::Publish(message("u", QoS::AtLeastOnce, 9))).unwrap();
    stage.from_local(Packet::Puback(Puback(ack(9))));
    assert_eq!(stage.to_remote(0), ["PUBACK 9"]);
    let due = stage.relay.next_timeout().unwrap();
    assert!(due <= stage.now + Duration::from_millis(120));
    // Asked later, it is not later: otherwise the time would never come.
    stage.now += Duration::from_millis(60);
    assert_eq!(stage.relay.next_timeout(), Some(due));
    stage.now = due;
    stage.relay.handle_timeout(stage.now).unwrap();
    assert_eq!(stage.to_remote(0), ["PUBLISH t 1 2"]);
}

#[test]
fn a_message_that_expires_while_held_is_dropped_unless_it_was_sent_before() {
    let mut setting = setting(&["t out 2"]);
    setting.file.rate_messages = 1;
    let mut stage = setting.open();
    let expiring =
        |number| Publish { message_expiry: Some(2), ..message("t", QoS::ExactlyOnce, number) };
    stage.from_local(Packet::Publish(expiring(1)));
    stage.from_local(Packet::Publish(expiring(2)));
    stage.from_local(Packet::Publish(Publish { dup: true, ..expiring(3) }));
    stage.now += Duration::from_secs(3);
    stage.relay.handle_timeout(stage.now).unwrap();
    stage.now += Duration::from_secs(2);
    stage.relay.handle_timeout(stage.now).unwrap();
    assert_eq!(stage.to_remote(0), ["PUBLISH t 2 1", "PUBLISH t 2 3"]);
    assert_eq!(stage.to_local(), ["PUBREC- 2"]);
}

#[test]
fn lanes_keep_topics_together_and_release_what_nobody_remembers() {
    let mut setting = setting(&["# out 2"]);
    setting.lanes = 3;
    setting.file.connections = 3;
    let mut stage = setting.open();
    for number in 1..=30 {
        let topic = format!("t/{}", number % 5);
        stage.from_local(Packet::Publish(message(&topic, QoS::ExactlyOnce, number)));
    }
    let mut topics: Vec<Vec<String>> = Vec::new();
    for lane in 0..3 {
        let words = stage.to_remote(lane);
        let mut own: Vec<_> = words.iter().map(|word| word[8..11].to_owned()).collect();
        own.sort();
        own.dedup();
        topics.push(own);
    }
    assert_eq!(topics.concat().len(), 5, "each topic has one lane: {topics:?}");
    // Sent by an earlier process: any of them may know it.
    stage.from_local(Packet::Pubrel(Pubrel(ack(999))));
    for lane in 0..3 {
        assert_eq!(stage.to_remote(lane), ["PUBREL 999"]);
        assert!(stage.to_local().is_empty());
        stage.from_remote(lane, Packet::Pubcomp(Pubcomp(ack(999)))).unwrap();
    }
    assert_eq!(stage.to_local(), ["PUBCOMP 999"]);
}

#[test]
fn incoming_rules_that_overlap_share_a_lane() {
    let rules = |topics: &[&str]| {
        let file = BridgeFile {
            name: "b".into(),
            addresses: vec!["h".into()],
            topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
            ..BridgeFile::default()
        };
        BridgeSettings::check(&file, "h").unwrap().rules
    };
    let of = |topics: &[&str]| -> Vec<usize> {
        lane_plans(&rules(topics), 3).iter().map(|plan| plan.subscribe.len()).collect()
    };
    assert_eq!(of(&["a/# in", "b/# in", "c/# in"]), [1, 1, 1]);
    assert_eq!(of(&["a/# in", "b/# in", "+/x in"]), [3, 0, 0]);
    // What could go out again stays where No Local sees it.
    assert_eq!(of(&["z in", "a/# in", "a/x out"]), [2, 0, 0]);
}

#[test]
fn a_silent_remote_is_noticed() {
    let mut stage = setting(&["t out 0"]).open();
    stage.now += Duration::from_secs(31);
    stage.relay.handle_timeout(stage.now).unwrap();
    assert_eq!(stage.to_remote(0), ["PINGREQ"]);
    stage.now += Duration::from_secs(9);
    stage.from_local(Packet::Publish(message("t", QoS::AtMostOnce, 0)));
    stage.relay.handle_timeout(stage.now).unwrap();
    let _sent_into_the_void = stage.to_remote(0);
    stage.now += Duration::from_secs(1);
    let error = stage.relay.handle_timeout(stage.now).unwrap_err();
    assert!(matches!(error, LinkError::RemoteSilent("PINGREQ")));
}
