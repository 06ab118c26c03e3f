//! Values on disk: literal bytes, round trips and damage.

use proptest::prelude::*;

use super::*;

fn message(payload: &[u8], properties: &[u8], expires: Option<u64>) -> Message {
    let header = MessageHeader {
        id: MessageId { publisher: SessionId(0x0102), counter: 3 },
        qos: QoS::AtLeastOnce,
        retain: true,
        arrived: Timestamp(4),
        expires: expires.map(Timestamp),
    };
    Message::new(header, "a/b", properties, payload).unwrap()
}

#[test]
fn a_message_has_these_bytes() {
    let mut value = Vec::new();
    encode_message(&message(b"xy", b"", None), &mut value);
    let mut expected = vec![1, 0b0000_0101];
    expected.extend_from_slice(&[2, 1, 0, 0, 0, 0, 0, 0]);
    expected.extend_from_slice(&[3, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend_from_slice(&[4, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend_from_slice(&[3, 0]);
    expected.extend_from_slice(b"a/bxy");
    assert_eq!(value, expected);
}

#[test]
fn an_entry_with_a_shared_body_has_these_bytes() {
    let message = Arc::new(message(b"xy", b"", None));
    let mut entry = QueueEntry::new(Sequence(9), message, QoS::ExactlyOnce);
    entry.subscription_ids.push(7);
    let mut value = Vec::new();
    encode_entry(&entry, Body::Shared(5), &mut value);
    let expected =
        [1, 0b0010_1010, 1, 0, 7, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(value, expected);
    let read = EncodedEntry::decode(&value).unwrap();
    assert_eq!(read.content, EntryContent::Shared { number: 5, size_bytes: 5 });
}

#[test]
fn an_unknown_version_is_not_understood() {
    let mut value = Vec::new();
    encode_message(&message(b"xy", b"", None), &mut value);
    value[0] = 2;
    assert_eq!(decode_message(&value), None);
}

#[test]
fn a_session_survives_its_encoding() {
    let mut record = SessionRecord {
        id: SessionId(1),
        client_id: "c".into(),
        epoch: 2,
        expiry_seconds: u32::MAX,
        disconnected: Some(Timestamp(3)),
        sent_until: Sequence(4),
        will: Some(WillRecord {
            message: Arc::new(message(b"gone", b"\x01\x01", Some(8))),
            delay_seconds: 5,
        }),
        user_name: Some("u".into()),
    };
    let mut value = Vec::new();
    encode_session(&record, &mut value);
    assert_eq!(decode_session(record.id, &value).as_ref(), Some(&record));
    (record.disconnected, record.will, record.user_name) = (None, None, None);
    encode_session(&record, &mut value);
    assert_eq!(decode_session(record.id, &value), Some(record));
}

#[test]
fn a_queue_has_these_bytes() {
    let mut value = Vec::new();
    let mut record = QueueRecord::of_session(SessionId(1));
    encode_queue(&record, &mut value);
    assert_eq!(value, [1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(decode_queue(record.id, &value).as_ref(), Some(&record));
    record.owner = QueueOwner::Group { filter: "f".into() };
    record.lifetime = QueueLifetime::UntilRemoved;
    let policy = Some(OverflowPolicy::DropOldest);
    record.rules =
        QueueRules { max_messages: Some(7), max_bytes: None, policy, qos0: StoresQoS0::Always };
    encode_queue(&record, &mut value);
    assert_eq!(value, [1, 2, 4, 1, 1, 7, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, b'f']);
    assert_eq!(decode_queue(record.id, &value).as_ref(), Some(&record));
    record.rules.qos0 = StoresQoS0::Retained;
    encode_queue(&record, &mut value);
    assert_eq!(value[3], 2);
    assert_eq!(decode_queue(record.id, &value), Some(record));
}

/// Format 1 as literal bytes, because its encoder no longer exists.
#[test]
fn a_former_session_and_a_former_group_are_understood() {
    let mut value = vec![1, 0, 1, 0, 0, 0, b'c', 2, 0, 0, 0, 0, 0, 0, 0, 60, 0, 0, 0];
    value.extend([1, 3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let expected = SessionRecord {
        id: SessionId(9),
        client_id: "c".into(),
        epoch: 2,
        expiry_seconds: 60,
        disconnected: Some(Timestamp(3)),
        sent_until: Sequence(4),
        will: None,
        user_name: None,
    };
    let read = decode_former_session(SessionId(9), &value);
    assert_eq!(read, Some(FormerSession::Session(expected)));
    value[1] = 1;
    let read = decode_former_session(SessionId(9), &value);
    assert_eq!(read, Some(FormerSession::Group("c".into())));
    assert_eq!(decode_session(SessionId(9), &value), None);
}

proptest! {
    #[test]
    fn a_message_survives_its_encoding(
        payload: Vec<u8>, properties: Vec<u8>, expires: Option<u64>,
    ) {
        let message = message(&payload, &properties, expires);
        let mut value = Vec::new();
        encode_message(&message, &mut value);
        prop_assert_eq!(message_size(&value), Some(message.size_bytes()));
        prop_assert_eq!(decode_message(&value), Some(message));
    }

    #[test]
    fn an_entry_survives_its_encoding(
        ids: Vec<u32>, group: Option<u64>, retain: bool, qos in 0u8..3, payload: Vec<u8>,
    ) {
        let message = Arc::new(message(&payload, b"p", None));
        let qos = super::qos(qos).unwrap();
        let mut entry = QueueEntry::new(Sequence(1), Arc::clone(&message), qos);
        entry.retain = retain;
        entry.subscription_ids = ids.iter().copied().collect();
        entry.group = group.map(SessionId);
        let mut value = Vec::new();
        encode_entry(&entry, Body::Inline, &mut value);
        let read = EncodedEntry::decode(&value).unwrap();
        prop_assert_eq!(read.size_bytes(), entry.size_bytes() as u64);
        prop_assert_eq!(entry.size_bytes(), message.size_bytes() + 4 * ids.len());
        let EntryContent::Inline(body) = read.content else { panic!("inline") };
        prop_assert_eq!(decode_message(body), Some((*message).clone()));
        let read = read.into_entry(Sequence(1), message);
        prop_assert_eq!(
            (read.qos, read.retain, &read.subscription_ids, read.group),
            (entry.qos, entry.retain, &entry.subscription_ids, entry.group)
        );
        prop_assert!(read.is_committed());
    }

    #[test]
    fn a_subscription_survives_its_encoding(
        id: Option<u32>, qos in 0u8..3, no_local: bool, retain_as_published: bool, handling in 0u8..3,
    ) {
        let retain_handling =
            [RetainHandling::Send, RetainHandling::SendIfNew, RetainHandling::DoNotSend]
                [usize::from(handling)];
        let qos = super::qos(qos).unwrap();
        let options = SubscriptionOptions { qos, no_local, retain_as_published, retain_handling };
        let record = SubscriptionRecord {
            session: SessionId(1), filter: "a/+".into(), options, subscription_id: id,
        };
        let mut value = Vec::new();
        encode_subscription(&record, &mut value);
        prop_assert_eq!(decode_subscription(SessionId(1), b"a/+", &value), Some(record));
    }

    #[test]
    fn any_bytes_are_read_or_refused(value: Vec<u8>) {
        let _read = decode_message(&value);
        let _read = message_size(&value);
        let _read = EncodedEntry::decode(&value).map(|entry| entry.size_bytes());
        let _read = decode_session(SessionId(1), &value);
        let _read = decode_subscription(SessionId(1), &value, &value);
        let _read = decode_packet_id(&value);
        let _read = decode_numbers::<6>(&value);
    }
}
