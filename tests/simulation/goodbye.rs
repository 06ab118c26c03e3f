//! What leaves at the end of a Network Connection, while the store is slow.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use petrel::broker::limits::Limits;
use petrel::durable::Store;

use crate::hand::{Hands, connect, connect_v5, packet, string, subscribe};
use crate::watched::Watched;

/// An acknowledgement that waited for the disk came behind the DISCONNECT that the broker sent meanwhile. [MQTT-3.14.4-1]
#[test]
fn what_was_waited_for_does_not_follow_a_disconnect() {
    let (store, loaded) = Watched::open();
    let mut hands = Hands::on(Arc::clone(&store) as Arc<dyn Store>, loaded, Limits::default());
    let mut absent = hands.connect(&connect("absent", false));
    absent.send(&mut hands, &subscribe("t", 1));
    absent.cut(&mut hands);
    let mut client = hands.connect(&connect_v5("client"));
    store.is_held.store(true, Ordering::Relaxed);
    let message = packet(0x32, &[string("t"), vec![0, 1, 0, b'x']].concat());
    client.send(&mut hands, &message);
    client.take();
    assert!(client.pieces().is_empty(), "not acknowledged before it is safe");
    client.send(&mut hands, &connect_v5("client"));
    client.take();
    let bytes = |pieces: Vec<(usize, Vec<u8>)>| pieces.into_iter().flat_map(|(_, bytes)| bytes);
    assert_eq!(bytes(client.pieces()).next(), Some(0xE0), "DISCONNECT");
    store.is_held.store(false, Ordering::Relaxed);
    client.wake(&mut hands);
    client.take();
    assert_eq!(bytes(client.pieces()).count(), 0, "nothing behind it");
}

/// So did the acknowledgement of a message in the same buffer as the packet that breaks a rule. [MQTT-3.14.4-1]
#[test]
fn what_came_in_one_breath_with_a_violation_is_acknowledged_before_or_not_at_all() {
    let mut hands = Hands::new(Limits::default());
    let mut absent = hands.connect(&connect("absent", false));
    absent.send(&mut hands, &subscribe("t", 1));
    absent.cut(&mut hands);
    for topic in ["t", "nobody"] {
        let mut client = hands.connect(&connect_v5("client"));
        let message = packet(0x32, &[string(topic), vec![0, 1, 0, b'x']].concat());
        client.send(&mut hands, &[message, connect_v5("client")].concat());
        let mut bytes = Vec::new();
        for _ in 0..3 {
            client.take();
            bytes.extend(client.pieces().into_iter().flat_map(|(_, bytes)| bytes));
            client.wake(&mut hands);
        }
        let puback_bytes = if bytes[0] == 0x40 { 2 + usize::from(bytes[1]) } else { 0 };
        let disconnect = &bytes[puback_bytes..];
        assert_eq!(disconnect[0], 0xE0, "{bytes:x?}");
        assert_eq!(disconnect.len(), 2 + usize::from(disconnect[1]), "nothing behind: {bytes:x?}");
    }
}
