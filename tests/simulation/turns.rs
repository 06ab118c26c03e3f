//! What one Client causes does not reach another, and no reader slows everybody: turns of single connections, by hand.

use std::sync::Arc;

use petrel::broker::limits::Limits;
use petrel::broker::registry::Registry;
use petrel::durable::record::OverflowPolicy;
use petrel::durable::{Durability, Store};
use petrel::session::effects::DropReason;
use petrel::session::queue::{Page, QueueLimits};
use petrel::topic::filter::TopicFilter;

use crate::hand::{
    Hand, Hands, connect, connect_v5, connect_with_will, packet, publish, string, subscribe,
    subscribe_v5,
};
use crate::watched::Watched;

fn filter(filter: &str) -> TopicFilter {
    TopicFilter::parse(filter).unwrap().filter
}

/// Subscribes and does not read until more waits than publishers are to ignore.
fn crowded_reader(hands: &mut Hands, topic: &str) -> Hand {
    let mut reader = hands.connect(&connect("reader", true));
    reader.send(hands, &subscribe(topic, 0));
    reader.take();
    let mut publisher = hands.connect(&connect("filler", true));
    publisher.send(hands, &publish(topic, 0, &[b'x'; 130 * 1024]));
    publisher.cut(hands);
    reader
}

/// A publisher that was its own slow recipient left "back-pressure" behind in its thread, and the next Client that met a
/// slow recipient of an ordinary topic was not read for 10 s instead of 100 ms.
#[test]
fn back_pressure_ends_with_the_turn_that_met_it() {
    let policy = OverflowPolicy::Backpressure;
    let held = QueueLimits { policy, ..Limits::default().queue };
    let topic_queue = vec![(filter("own"), held)];
    let mut hands = Hands::new(Limits { topic_queue, ..Limits::default() });
    let _reader = crowded_reader(&mut hands, "slow");
    let mut own = hands.connect(&connect("own", true));
    own.send(&mut hands, &subscribe("own", 0));
    own.send(&mut hands, &publish("own", 0, &[b'x'; 130 * 1024]));
    assert_eq!(own.connection.waits_until(), None, "it can never catch up while it waits");
    let mut other = hands.connect(&connect("other", true));
    other.send(&mut hands, &publish("slow", 0, b"x"));
    let until = other.connection.waits_until().expect("it waits for the reader");
    assert_eq!(until.since(hands.now), Limits::default().crowded_wait);
}

/// The Will of a connection that was taken over met a slow recipient; the next Client of the thread waited for it, though
/// it had published nothing to it.
#[test]
fn a_will_at_take_over_slows_nobody_else() {
    let mut hands = Hands::new(Limits::default());
    let _reader = crowded_reader(&mut hands, "will");
    let _first = hands.connect(&connect_with_will("twice", "will", false));
    let second = hands.connect(&connect_with_will("twice", "will", false));
    assert_eq!(hands.effects.tally.wills_published, 1);
    assert_eq!(second.connection.waits_until(), None);
    let mut stranger = hands.connect(&connect("stranger", true));
    stranger.send(&mut hands, &publish("elsewhere", 0, b"x"));
    assert_eq!(stranger.connection.waits_until(), None);
}

/// A reader that takes so many bytes in each millisecond, and pauses as it is told to.
struct Reader {
    hand: Hand,
    left: usize,
}

impl Reader {
    fn read(&mut self, hands: &mut Hands, bytes: usize) {
        let mut bytes = bytes;
        while bytes >= self.left {
            bytes -= self.left;
            self.hand.take();
            self.hand.wake(hands);
            self.left = self.hand.writing.bytes();
            if self.left == 0 {
                return;
            }
        }
        self.left -= bytes;
    }
}

/// Bursts of so many messages, one in each millisecond in which the publisher is read; how many there were.
fn bursts_read(
    hands: &mut Hands,
    messages: usize,
    milliseconds: u64,
    taken: impl Fn(u64) -> usize,
) -> u64 {
    let mut hand = hands.connect(&connect("reader", true));
    hand.send(hands, &subscribe("#", 0));
    let mut reader = Reader { hand, left: 0 };
    let mut publisher = hands.connect(&connect("publisher", true));
    let burst = publish("sensors/17/temperature", 0, &[b'x'; 64]).repeat(messages);
    let (mut bursts, mut handled) = (0, 0);
    for at in 0..milliseconds {
        hands.pass(1);
        reader.read(hands, taken(at));
        publisher.wake(hands);
        handled += publisher.send(hands, &burst[handled..]);
        if handled == burst.len() {
            (bursts, handled) = (bursts + 1, 0);
        }
    }
    bursts
}

/// A reader of everything that took 2 MB/s caught up within each wait of a tenth of a second, and was waited for again at
/// once: publishers fell to its speed for good.
#[test]
fn a_steadily_slow_reader_does_not_slow_its_publishers() {
    for bytes in [0, 500, 2_000, 5_000] {
        let mut hands = Hands::new(Limits::default());
        let bursts = bursts_read(&mut hands, 500, 4_000, |_at| bytes);
        assert!(bursts > 3_600, "{bursts} of 4,000 bursts with a reader of {bytes} kB/s");
        assert!(hands.effects.tally.dropped[DropReason::OutboxFull as usize] > 0);
    }
}

/// What waiting is for: a reader that is fast on the whole loses nothing by a pause.
#[test]
fn a_short_pause_of_a_fast_reader_costs_no_message() {
    let mut hands = Hands::new(Limits::default());
    let pauses = |at: u64| if at % 5_000 < 50 { 0 } else { 50_000 };
    let bursts = bursts_read(&mut hands, 100, 20_000, pauses);
    assert_eq!(hands.effects.tally.dropped_count(), 0);
    assert!(bursts > 19_000, "{bursts}");
}

/// With all queues together over their limit, `drop-oldest` emptied the queue of the next recipient and dropped the new
/// message as well.
#[test]
fn a_full_total_does_not_empty_a_queue() {
    let queue = QueueLimits { policy: OverflowPolicy::DropOldest, ..Limits::default().queue };
    let mut hands = Hands::new(Limits { queue, ..Limits::default() });
    let mut reader = hands.connect(&connect("absent", false));
    reader.send(&mut hands, &subscribe("t", 1));
    reader.cut(&mut hands);
    let mut publisher = hands.connect(&connect("publisher", true));
    for _ in 0..100 {
        publisher.send(&mut hands, &publish("t", 1, b"twelve bytes"));
    }
    let parts = (0..Registry::PARTS).map(|part| hands.broker.queue_bytes_of_part(part));
    let bytes = parts.sum();
    hands.broker.check_total_queue_bytes(bytes, 10);
    for _ in 0..5 {
        publisher.send(&mut hands, &publish("t", 1, b"twelve bytes"));
    }
    let session = hands.broker.registry().find("absent").expect("it stays");
    assert_eq!(session.outbound().queue().message_count(), 100);
    assert_eq!(hands.effects.tally.dropped[DropReason::Oldest as usize], 5);
    assert_eq!(hands.effects.tally.dropped_count(), 5);
}

/// A retained Will for which there was no room was lost without a trace.
#[test]
fn a_retained_will_without_room_is_counted() {
    let mut hands = Hands::new(Limits { max_retained: 0, ..Limits::default() });
    let client = hands.connect(&connect_with_will("dying", "status", true));
    client.cut(&mut hands);
    assert_eq!(hands.effects.tally.wills_published, 1);
    assert_eq!(hands.effects.tally.dropped[DropReason::QueueFull as usize], 1);
}

/// Messages of a topic that is to be safer than others lost that when they came from the queue of a group: the group's
/// Topic Filter was looked up as if it were the topic.
#[test]
fn a_group_hands_messages_on_as_safe_as_their_topic_says() {
    let (store, loaded) = Watched::open();
    let topic_durability = vec![(filter("safe/+/now"), Durability::Fsync)];
    let durability = Durability::Memory;
    let limits = Limits { durability, topic_durability, ..Limits::default() };
    let mut hands = Hands::on(Arc::clone(&store) as Arc<dyn Store>, loaded, limits);
    let mut member = hands.connect(&connect("member", false));
    member.send(&mut hands, &subscribe("$share/g/safe/#", 1));
    member.cut(&mut hands);
    let mut publisher = hands.connect(&connect("publisher", true));
    publisher.send(&mut hands, &publish("safe/1/now", 1, b"x"));
    let before = store.durabilities.lock().unwrap().len();
    let mut member = hands.connect(&connect("member", false));
    for _ in 0..10 {
        let waiting = std::iter::from_fn(|| member.connection.poll_request()).collect::<Vec<_>>();
        for request in waiting {
            let petrel::broker::connection::Request::Page(request) = request else { continue };
            let page = store.read_queue(request.session, request.from, request.to, 100, 100_000);
            let page = page.ok().map(|entries| Page::new(entries, 100, 100_000));
            let now = hands.now;
            member.connection.handle_page(request, page, now, &mut hands.effects);
        }
        member.wake(&mut hands);
    }
    assert_eq!(hands.effects.tally.publish_sent, 1, "the member has received it");
    let after = store.durabilities.lock().unwrap().split_off(before);
    assert!(after.contains(&Durability::Fsync), "{after:?}");
}

/// Large User Properties were copied for each recipient: 16 MB to 200 of them took 3 GB.
#[test]
fn large_properties_are_in_memory_once_for_all_recipients() {
    let mut hands = Hands::new(Limits::default());
    let mut readers: Vec<_> = (0..3)
        .map(|number| {
            let mut reader = hands.connect(&connect_v5(&format!("reader-{number}")));
            reader.send(&mut hands, &subscribe_v5("t", number % 2, 1 + number));
            reader.take();
            reader
        })
        .collect();
    let mut old = hands.connect(&connect("old", true));
    old.send(&mut hands, &subscribe("t", 0));
    old.take();
    let property = [&[38], &*string("name"), &*string(&"v".repeat(60_000))].concat();
    let length = property.len();
    let mut body = string("t");
    body.extend([0, 1]);
    body.extend(
        [length % 128 + 128, length / 128 % 128 + 128, length / 16_384]
            .map(|byte| u8::try_from(byte).unwrap()),
    );
    body.extend_from_slice(&property);
    body.extend_from_slice(b"payload");
    let mut publisher = hands.connect(&connect_v5("publisher"));
    publisher.send(&mut hands, &packet(0x32, &body));
    let tail = [&*property, b"payload"].concat();
    let mut places = Vec::new();
    for reader in &mut readers {
        reader.take();
        let pieces = reader.pieces();
        let bytes: Vec<u8> = pieces.iter().flat_map(|(_, piece)| piece).copied().collect();
        assert!(bytes.ends_with(&tail), "the packet is whole");
        let large: Vec<_> = pieces.iter().filter(|(_, piece)| piece.len() > 1_000).collect();
        assert_eq!(large.len(), 1);
        places.push(large[0].0);
    }
    places.dedup();
    assert_eq!(places.len(), 1, "in one place for all of them");
    old.take();
    let (_, packet) = &old.pieces()[0];
    assert_eq!(packet, &publish("t", 0, b"payload"));
}

/// A message for many overlapping Subscriptions with identifiers was counted as if it had none, and had no limit.
#[test]
fn subscription_identifiers_are_counted_and_limited() {
    let mut hands = Hands::new(Limits { max_subscription_ids: 20, ..Limits::default() });
    let mut reader = hands.connect(&connect_v5("reader"));
    let filters = ["a/b/c/d", "#", "+/b/c/d", "a/+/c/d", "a/b/+/d", "a/b/c/+"];
    for (filter, id) in filters.into_iter().zip(1..) {
        reader.send(&mut hands, &subscribe_v5(filter, 1, id));
    }
    // The same identifier again says nothing new.
    reader.send(&mut hands, &subscribe_v5("a/#", 1, 1));
    reader.cut(&mut hands);
    let mut publisher = hands.connect(&connect("publisher", true));
    publisher.send(&mut hands, &publish("a/b/c/d", 1, b"x"));
    let session = hands.broker.registry().find("reader").expect("it stays");
    assert_eq!(session.outbound().queue().message_bytes(), 7 + 1 + 6 * 4);
    let mut reader = hands.connect(&connect_v5("many"));
    for (index, first) in ["a", "+"].into_iter().enumerate() {
        for (place, second) in ["b", "+"].into_iter().enumerate() {
            for third in 0..8 {
                let id = u8::try_from(index * 16 + place * 8 + third + 1).unwrap();
                let levels = [["c", "d"], ["+", "d"], ["c", "+"], ["+", "+"]];
                let [c, d] = levels[third % 4];
                let last = if third < 4 { "" } else { "/#" };
                let filter = format!("{first}/{second}/{c}/{d}{last}");
                reader.send(&mut hands, &subscribe_v5(&filter, 1, id));
            }
        }
    }
    reader.cut(&mut hands);
    publisher.send(&mut hands, &publish("a/b/c/d", 1, b"x"));
    let session = hands.broker.registry().find("many").expect("it stays");
    assert_eq!(session.outbound().queue().message_bytes(), 7 + 1 + 20 * 4);
}
