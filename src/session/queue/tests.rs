//! The parts of a queue and what moves between them.

use super::*;
use crate::durable::message::{Message, MessageHeader, MessageId, Timestamp};
use crate::packet::QoS;

const OWNER: SessionId = SessionId(9);

fn entry(queue: &mut Queue) -> Arc<QueueEntry> {
    let header = MessageHeader {
        id: MessageId { publisher: SessionId(1), counter: 0 },
        qos: QoS::AtLeastOnce,
        retain: false,
        arrived: Timestamp(0),
        expires: None,
    };
    let message = Message::new(header, "t", &[], b"payload").unwrap();
    let place = queue.take_place();
    Arc::new(QueueEntry::new(place, Arc::new(message), QoS::AtLeastOnce))
}

fn commit(entry: &QueueEntry) {
    assert!(entry.begin_write());
    entry.end_write();
}

fn stored(entry: &QueueEntry) -> StoredEntry {
    let copy = QueueEntry::new(entry.sequence, Arc::clone(&entry.message), entry.qos);
    StoredEntry::Message(Arc::new(copy.into_committed()))
}

/// A page read from the store, at most so many entries.
fn page(entries: &[Arc<QueueEntry>], max_count: usize) -> Option<Page> {
    let entries = entries.iter().map(|entry| stored(entry)).collect();
    Some(Page::new(entries, max_count, usize::MAX))
}

fn places(queue: &mut Queue) -> Vec<u64> {
    std::iter::from_fn(|| queue.pop())
        .map(|queued| match queued {
            Queued::Message(entry) => entry.sequence.0,
            Queued::Released(sequence) => sequence.0,
        })
        .collect()
}

#[test]
fn an_absent_recipient_keeps_only_what_is_not_committed() {
    let mut queue = Queue::new(OWNER);
    let entries: Vec<_> = (0..5)
        .map(|_| {
            let entry = entry(&mut queue);
            queue.push(Arc::clone(&entry), Keep::InStore);
            entry
        })
        .collect();
    assert_eq!(queue.tail.iter().count(), 5);
    entries.iter().for_each(|entry| commit(entry));
    let last = entry(&mut queue);
    queue.push(Arc::clone(&last), Keep::InStore);
    assert_eq!(
        (queue.tail.iter().count(), queue.disk.clone(), queue.message_count()),
        (1, 0..5, 6)
    );

    let request = queue.refill().unwrap();
    assert_eq!((request.from, request.to), (Sequence(0), Sequence(5)));
    assert!(queue.refill().is_none(), "one page at a time");
    queue.handle_page(request, page(&entries, 9));
    assert!(queue.refill().is_none());
    assert_eq!(places(&mut queue), [0, 1, 2, 3, 4, 5]);
    assert!(queue.is_empty());
    assert_eq!((queue.message_count(), queue.message_bytes()), (0, 0));
}

#[test]
fn a_page_that_ended_at_its_limit_is_followed_by_another() {
    let mut queue = Queue::from_store(OWNER, Sequence(0), Sequence(3), 3, 24);
    let mut source = Queue::new(OWNER);
    let entries: Vec<_> = (0..3).map(|_| entry(&mut source)).collect();
    let request = queue.refill().unwrap();
    queue.handle_page(request, page(&entries[..2], 2));
    assert_eq!(places(&mut queue), [0, 1]);
    let request = queue.refill().unwrap();
    assert_eq!(request.from, Sequence(2));
    queue.handle_page(request, page(&entries[2..], 2));
    assert_eq!(places(&mut queue), [2]);
    assert!(queue.is_empty());
}

/// What a page shows may be older than what is known: an acknowledged message must not come back, a released one must
/// not be sent again, and one that was not committed in time must not be missed.
#[test]
fn what_is_known_better_than_the_store_is_applied_to_its_pages() {
    let mut queue = Queue::new(OWNER);
    let mut window = Window::new(Sequence(0));
    let entries: Vec<_> = (0..4).map(|_| entry(&mut queue)).collect();
    let states = [
        DeliveryState::AwaitsPuback,
        DeliveryState::AwaitsPuback,
        DeliveryState::AwaitsPubcomp,
        DeliveryState::AwaitsPuback,
    ];
    for (entry, state) in entries.iter().zip(states) {
        let delivery = crate::session::window::Delivery { state, entry: Some(Arc::clone(entry)) };
        window.push(entry.sequence, delivery);
    }
    [0, 1, 2].into_iter().for_each(|at: usize| commit(&entries[at]));
    window.finish_delivery(Sequence(1));
    queue.leave_memory(&mut window);

    let request = queue.refill().unwrap();
    queue.handle_page(request, page(&entries[..3], 9));
    let kinds: Vec<_> = std::iter::from_fn(|| queue.pop())
        .map(|queued| match queued {
            Queued::Message(entry) => (entry.sequence.0, "message"),
            Queued::Released(sequence) => (sequence.0, "released"),
        })
        .collect();
    assert_eq!(kinds, [(0, "message"), (2, "released"), (3, "message")]);
}

#[test]
fn a_late_page_of_another_holder_is_ignored() {
    let mut queue = Queue::from_store(OWNER, Sequence(0), Sequence(2), 2, 16);
    let mut source = Queue::new(OWNER);
    let entries: Vec<_> = (0..2).map(|_| entry(&mut source)).collect();
    let late = queue.refill().unwrap();
    queue.handle_page(late, page(&entries, 9));
    assert_eq!(places(&mut queue), [0, 1]);
    queue.handle_page(late, page(&entries, 9));
    assert!(places(&mut queue).is_empty());
}

#[test]
fn the_oldest_gives_way_wherever_it_lies() {
    let mut queue = Queue::new(OWNER);
    for _ in 0..2 {
        let entry = entry(&mut queue);
        commit(&entry);
        queue.push(entry, Keep::InMemory);
    }
    let dropped = queue.drop_oldest();
    assert!(is_dequeue(dropped.as_ref(), 0));
    let mut queue = Queue::from_store(OWNER, Sequence(4), Sequence(6), 2, 16);
    let dropped = queue.drop_oldest();
    assert!(is_dequeue(dropped.as_ref(), 4));
    assert_eq!((queue.message_count(), queue.message_bytes()), (1, 8));
}

fn is_dequeue(change: Option<&Change>, place: u64) -> bool {
    matches!(change, Some(Change::Queue(QueueChange::Dequeue { sequence, .. })) if sequence.0 == place)
}
