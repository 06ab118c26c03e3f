//! How the broker closes connections: the Close frame of a WebSocket, and Clients that it does not wait for.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::broker::{Broker, DEADLINE, configured, eventually};
use crate::client::Client;
use crate::packet::{Connect, V311};
use crate::port::free_port;

/// CONNECT of 3.1.1, which has no other way to hear why.
const CONNECT: &[u8] = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01a";

/// A broker with a WebSocket listener, and a WebSocket to it.
fn browser() -> Option<(Broker, TcpStream)> {
    let web = format!("127.0.0.1:{}", free_port());
    let listener = format!(
        "[[listener]]\nname = \"web\"\nlisten = \"{web}\"\nallow_anonymous = true\ntransport = \"websocket\"\n"
    );
    let broker = configured(&listener)?;
    let mut stream = TcpStream::connect(&web).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let request = format!(
        "GET /mqtt HTTP/1.1\r\nHost: {web}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: mqtt\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    Some((broker, stream))
}

/// A binary frame of a client, whose mask of zeros leaves the bytes as they are.
fn frame(payload: &[u8]) -> Vec<u8> {
    let length = 0x80 | u8::try_from(payload.len()).unwrap();
    [&[0x82, length, 0, 0, 0, 0], payload].concat()
}

/// All that comes until the end, which is a Close frame with this code.
fn expect_close(stream: &mut TcpStream, code: u16) {
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    let close = [&[0x88, 2], &code.to_be_bytes()[..]].concat();
    assert!(received.ends_with(&close), "{received:x?}");
}

/// Once the end of a Client that had sent too much looked like one that was wished for.
#[test]
fn a_packet_that_is_too_large_is_named_in_the_close_frame() {
    let Some((_broker, mut stream)) = browser() else { return };
    stream.write_all(&frame(CONNECT)).unwrap();
    stream.write_all(&frame(b"\x30\xff\xff\xff\x7f")).unwrap();
    expect_close(&mut stream, 1009);
}

/// A frame may be longer than any packet only with bad intent.
#[test]
fn a_frame_that_is_too_large_is_named_in_the_close_frame() {
    let Some((_broker, mut stream)) = browser() else { return };
    stream.write_all(&frame(CONNECT)).unwrap();
    stream.write_all(&[0x82, 0xff, 0x3f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    expect_close(&mut stream, 1009);
}

#[test]
fn a_broker_that_stops_says_so_in_the_close_frame() {
    let Some((broker, mut stream)) = browser() else { return };
    stream.write_all(&frame(CONNECT)).unwrap();
    let mut connack = [0; 6];
    stream.read_exact(&mut connack).unwrap();
    broker.signal("-TERM");
    expect_close(&mut stream, 1001);
}

/// They held up the end for three seconds, as if they had something to read: longer than this grace.
#[test]
fn nobody_waits_for_sockets_that_said_nothing() {
    let Some(broker) = configured("[shutdown]\ngrace = \"1s\"\n") else { return };
    let silent = [(); 5].map(|()| TcpStream::connect(&broker.address).unwrap());
    let mut begun = TcpStream::connect(&broker.address).unwrap();
    begun.write_all(&CONNECT[..5]).unwrap();
    // Accepted behind all of them.
    Client::connect_to(&broker.address, &Connect::new(V311, "last")).disconnect();
    broker.signal("-TERM");
    eventually("the broker ends", || !broker.is_running());
    assert!(!broker.log().contains("is over: "), "{}", broker.log());
    drop(silent);
}
