//! Why the client side of a bridge is our own: what `rumqttc` cannot do, shown by doing it. When one of these fails
//! after an update, `docs/decisions/2026-11-21-bridge-client.md` should be read again.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use rumqttc::{Client, ConnectionError, Event, MqttOptions, Packet, StateError};

/// A server that reads a CONNECT and answers with these bytes; gives back what it read.
fn answer(bytes: &'static [u8]) -> (u16, thread::JoinHandle<(Vec<u8>, TcpStream)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = vec![0; 1024];
        let count = stream.read(&mut buffer).unwrap();
        buffer.truncate(count);
        stream.write_all(bytes).unwrap();
        (buffer, stream)
    });
    (port, server)
}

fn options(port: u16) -> MqttOptions {
    let mut options = MqttOptions::new("bridge", "127.0.0.1", port);
    options.set_clean_session(false).set_manual_acks(true);
    options
}

/// After a restart the remote broker goes on with an exchange that began before: it sends the PUBREL that is due. The
/// client takes it as a fault and drops the connection, each time.
#[test]
fn a_pubrel_for_an_exchange_of_an_earlier_process_ends_the_connection() {
    let (port, server) = answer(&[0x20, 2, 1, 0, 0x62, 2, 0, 7]);
    let (_client, mut connection) = Client::new(options(port), 10);
    let error = connection.iter().find_map(Result::err).unwrap();
    assert!(
        matches!(error, ConnectionError::MqttState(StateError::Unsolicited(7))),
        "rumqttc copes with it now: {error:?}"
    );
    drop(server.join());
}

/// There is no way to set the bridge bit of the protocol level.
#[test]
fn the_protocol_level_is_always_4() {
    let (port, server) = answer(&[0x20, 2, 0, 0]);
    let (_client, mut connection) = Client::new(options(port), 10);
    let connected = |event: Event| matches!(event, Event::Incoming(Packet::ConnAck(_)));
    assert!(connection.iter().any(|event| event.is_ok_and(connected)));
    let (connect, _stream) = server.join().unwrap();
    assert_eq!(&connect[2..8], b"\0\x04MQTT");
    assert_eq!(connect[8], 4);
}

/// Packet Identifiers of outgoing messages are the client's own, and begin with 1 in every process, whatever the remote
/// Session remembers of the one before.
#[test]
fn packet_identifiers_cannot_be_chosen() {
    let (port, server) = answer(&[0x20, 2, 1, 0]);
    let (client, mut connection) = Client::new(options(port), 10);
    client.publish("t", rumqttc::QoS::ExactlyOnce, false, "x").unwrap();
    let sent = |event: Event| match event {
        Event::Outgoing(rumqttc::Outgoing::Publish(id)) => Some(id),
        _ => None,
    };
    let id = connection.iter().find_map(|event| event.ok().and_then(sent));
    assert_eq!(id, Some(1));
    drop(server.join());
}
