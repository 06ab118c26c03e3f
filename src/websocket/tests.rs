//! Both sides of the handshake and the stream, also against `tokio-tungstenite` as an opinion that is not ours.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{DuplexStream, duplex};
use tokio_tungstenite::WebSocketStream as Foreign;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::protocol::frame::{Frame, Utf8Bytes};
use tungstenite::{Message, client::IntoClientRequest as _};

use super::*;
use crate::dial::websocket::upgrade;
use crate::net::lingering::{Lingered, close_gracefully};

/// What `accept` answers to these bytes, and how it ends.
async fn handshake(request: &str, origins: &[&str]) -> (String, Result<(), HandshakeError>) {
    let (mut client, server) = duplex(32 * 1024);
    client.write_all(request.as_bytes()).await.unwrap();
    let origins: Vec<String> = origins.iter().map(|&origin| origin.to_owned()).collect();
    let paths = ["/mqtt".to_owned()];
    let result = accept(server, Door { paths: &paths, origins: &origins }).await;
    let ended = result.map(drop);
    let mut response = String::new();
    client.read_to_string(&mut response).await.unwrap();
    (response, ended)
}

/// `accept` for requests to `/mqtt`.
async fn accept_usual<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
) -> Result<WebSocketStream<S>, HandshakeError> {
    accept(stream, Door { paths: &["/mqtt".to_owned()], origins: &[] }).await
}

fn request(path: &str, extra: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: broker\r\nConnection: keep-alive, Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{extra}\r\n"
    )
}

const MQTT: &str = "Sec-WebSocket-Protocol: mqtt\r\n";

#[tokio::test]
async fn handshake_is_answered_with_the_key_and_the_protocol() {
    let (response, ended) = handshake(&request("/mqtt?token=1", MQTT), &[]).await;
    ended.unwrap();
    let response = response.to_ascii_lowercase();
    assert!(response.starts_with("http/1.1 101 "), "{response}");
    assert!(
        response.contains(
            "\r\nsec-websocket-accept: s3ppLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
                .to_ascii_lowercase()
                .as_str()
        ),
        "{response}"
    );
    assert!(response.contains("\r\nsec-websocket-protocol: mqtt\r\n"), "{response}");
}

/// [MQTT-6.0.0-4] [MQTT311-6.0.0-4]
#[tokio::test]
async fn the_better_protocol_is_chosen_from_any_list() {
    for (offer, chosen) in [
        ("Sec-WebSocket-Protocol: mqttv3.1\r\n", "mqttv3.1"),
        ("Sec-WebSocket-Protocol: mqttv3.1, mqtt\r\n", "mqtt"),
        ("Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: mqtt,x\r\n", "mqtt"),
    ] {
        let (response, ended) = handshake(&request("/mqtt", offer), &[]).await;
        ended.unwrap();
        let line = format!("\r\nsec-websocket-protocol: {chosen}\r\n");
        assert!(response.to_ascii_lowercase().contains(&line), "{response}");
    }
}

#[tokio::test]
async fn unacceptable_requests_are_told_why() {
    let no_upgrade = "GET /mqtt HTTP/1.1\r\nHost: broker\r\n\r\n".to_owned();
    let version = request("/mqtt", MQTT).replace("Version: 13", "Version: 8");
    let long = request("/mqtt", &format!("{MQTT}X: {}\r\n", "x".repeat(10_000)));
    let early = request("/mqtt", MQTT) + "\u{2}\u{0}";
    for (request, status) in [
        (request("/other", MQTT), "404 Not Found"),
        (request("/mqtt/", MQTT), "404 Not Found"),
        (no_upgrade, "426 Upgrade Required"),
        (version, "426 Upgrade Required"),
        (request("/mqtt", ""), "400 Bad Request"),
        (request("/mqtt", "Sec-WebSocket-Protocol: MQTT, amqp\r\n"), "400 Bad Request"),
        (request("/mqtt", "Sec-WebSocket-Protocol: amqp\r\n"), "400 Bad Request"),
        ("POST /mqtt HTTP/1.1\r\n\r\n".to_owned(), "400 Bad Request"),
        ("\u{10}\u{c}\u{0}\u{4}MQTT".to_owned(), "400 Bad Request"),
        (long, "431 Request Header Fields Too Large"),
        (early, "400 Bad Request"),
    ] {
        let (response, ended) = handshake(&request, &[]).await;
        assert!(ended.is_err());
        assert!(response.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{request}\n{response}");
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{response}");
    }
}

#[tokio::test]
async fn foreign_origins_are_refused() {
    let listed = ["https://panel.example", "http://localhost:3000"];
    for (origin, status) in [
        ("Origin: https://panel.example\r\n", 101),
        ("Origin: HTTPS://Panel.Example\r\n", 101),
        ("Origin: http://localhost:3000\r\n", 101),
        ("Origin: https://panel.example.evil.example\r\n", 403),
        ("Origin: http://localhost\r\n", 403),
        ("Origin: null\r\n", 403),
        ("", 101),
    ] {
        let request = request("/mqtt", &format!("{MQTT}{origin}"));
        let (response, _) = handshake(&request, &listed).await;
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{origin} {response}");
        let (response, _) = handshake(&request, &["*"]).await;
        assert!(response.starts_with("HTTP/1.1 101 "), "{origin} {response}");
    }
}

/// Once every page could open the listener of a broker on the visitor's machine, whatever its origin.
#[tokio::test]
async fn without_a_list_only_pages_of_this_machine_and_this_host_come_in() {
    for (origin, status) in [
        ("https://evil.example", 403),
        ("null", 403),
        ("http://localhost:3000", 101),
        ("http://broker", 101),
    ] {
        let request = request("/mqtt", &format!("{MQTT}Origin: {origin}\r\n"));
        let (response, ended) = handshake(&request, &[]).await;
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{origin} {response}");
        match ended {
            Err(HandshakeError::NotLetIn { asked, .. }) => assert_eq!(asked.origin, origin),
            other => assert!(status == 101 && other.is_ok(), "{other:?}"),
        }
    }
    let rebound = request("/mqtt", &format!("{MQTT}Origin: http://rebound.example:8083\r\n"))
        .replace("Host: broker", "Host: rebound.example:8083");
    let (response, _) = handshake(&rebound, &[]).await;
    assert!(response.starts_with("HTTP/1.1 403 "), "{response}");
}

#[tokio::test]
async fn a_client_that_leaves_within_the_handshake_is_an_error() {
    let (mut client, server) = duplex(1024);
    client.write_all(b"GET /mqtt HT").await.unwrap();
    drop(client);
    assert!(matches!(accept_usual(server).await, Err(HandshakeError::Io(_))));
}

/// A foreign Client and our server, connected.
async fn with_foreign_client() -> (Foreign<DuplexStream>, WebSocketStream<DuplexStream>) {
    let (client, server) = duplex(16 * 1024);
    let mut request = "ws://broker/mqtt".into_client_request().unwrap();
    let headers = request.headers_mut();
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("mqtt"));
    let connecting = tokio_tungstenite::client_async(request, client);
    let (client, server) = tokio::join!(connecting, accept_usual(server));
    (client.unwrap().0, server.unwrap())
}

/// [MQTT-6.0.0-2] [MQTT311-6.0.0-2]
#[tokio::test]
async fn packets_are_split_and_joined_across_frames() {
    let (mut client, mut server) = with_foreign_client().await;
    client.send(Message::binary(b"on".to_vec())).await.unwrap();
    client.send(Message::Ping("are you there".into())).await.unwrap();
    client.send(Message::binary(Vec::new())).await.unwrap();
    let half = Frame::message(b"e t".to_vec(), OpCode::Data(Data::Binary), false);
    client.send(Message::Frame(half)).await.unwrap();
    let other = Frame::message(b"wo".to_vec(), OpCode::Data(Data::Continue), true);
    client.send(Message::Frame(other)).await.unwrap();
    let mut received = [0; 7];
    server.read_exact(&mut received).await.unwrap();
    assert_eq!(&received, b"one two");
    assert_eq!(client.next().await.unwrap().unwrap(), Message::Pong("are you there".into()));
}

#[tokio::test]
async fn one_write_is_one_frame_even_if_it_is_vectored() {
    let (mut client, mut server) = with_foreign_client().await;
    let slices = [io::IoSlice::new(b""), io::IoSlice::new(b"first "), io::IoSlice::new(b"second")];
    assert!(server.is_write_vectored());
    assert_eq!(server.write_vectored(&slices).await.unwrap(), 12);
    server.write_all(&vec![3; 5000]).await.unwrap();
    server.flush().await.unwrap();
    assert_eq!(client.next().await.unwrap().unwrap(), Message::binary(b"first second".to_vec()));
    assert_eq!(client.next().await.unwrap().unwrap(), Message::binary(vec![3; 5000]));
}

/// A frame larger than what the socket takes at once goes on with the next write, and a Pong waits for its end.
#[tokio::test]
async fn large_frames_are_written_in_portions() {
    let (mut client, mut server) = with_foreign_client().await;
    let payload: Vec<u8> = (0..200_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    let expected = payload.clone();
    client.send(Message::Ping("now".into())).await.unwrap();
    let writing = tokio::spawn(async move {
        let mut one = [0];
        let (mut reader, mut writer) = tokio::io::split(server);
        let writing = async {
            writer.write_all(&payload).await.unwrap();
            writer.flush().await.unwrap();
        };
        let ((), read) = tokio::join!(writing, reader.read_exact(&mut one));
        read.unwrap();
        server = reader.unsplit(writer);
        server
    });
    let mut received = Vec::new();
    let mut pongs = 0;
    while received.len() < expected.len() {
        match client.next().await.unwrap().unwrap() {
            Message::Binary(part) => received.extend_from_slice(&part),
            Message::Pong(_) => pongs += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(received, expected);
    client.send(Message::binary(vec![1])).await.unwrap();
    let mut server = writing.await.unwrap();
    server.flush().await.unwrap();
    if pongs == 0 {
        assert_eq!(client.next().await.unwrap().unwrap(), Message::Pong("now".into()));
    }
}

/// [MQTT-6.0.0-1] [MQTT311-6.0.0-1]
#[tokio::test]
async fn text_frame_closes_with_1003() {
    let (mut client, mut server) = with_foreign_client().await;
    client.send(Message::binary(b"before".to_vec())).await.unwrap();
    client.send(Message::text("hello")).await.unwrap();
    let mut received = [0; 100];
    assert_eq!(server.read(&mut received).await.unwrap(), 6);
    let error = server.read(&mut received).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    let unsupported = CloseFrame { code: CloseCode::Unsupported, reason: Utf8Bytes::default() };
    let read = client.next().await.unwrap().unwrap();
    assert_eq!(read, Message::Close(Some(unsupported)));
    let closing = tokio::spawn(async move { while let Some(Ok(_)) = client.next().await {} });
    let lingered = close_gracefully(&mut server, Duration::from_secs(5), 1000).await;
    assert_eq!(lingered, Lingered::Closed);
    drop(server);
    closing.await.unwrap();
}

#[tokio::test]
async fn close_of_the_client_is_answered_and_ends_the_stream() {
    let (mut client, mut server) = with_foreign_client().await;
    let away = CloseFrame { code: CloseCode::Away, reason: "bye".into() };
    client.close(Some(away)).await.unwrap();
    let mut received = Vec::new();
    server.read_to_end(&mut received).await.unwrap();
    assert_eq!(received, b"");
    let answer = client.next().await.unwrap().unwrap();
    assert!(matches!(answer, Message::Close(Some(frame)) if frame.code == CloseCode::Away));
    assert_eq!(server.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    server.shutdown().await.unwrap();
    drop(server);
    assert!(client.next().await.is_none());
}

#[tokio::test]
async fn shutdown_sends_close_and_still_reads() {
    let (mut client, mut server) = with_foreign_client().await;
    server.write_all(b"last words").await.unwrap();
    let closing = tokio::spawn(async move {
        let lingered = close_gracefully(&mut server, Duration::from_secs(5), 1000).await;
        drop(server);
        lingered
    });
    assert_eq!(client.next().await.unwrap().unwrap(), Message::binary(b"last words".to_vec()));
    let close = client.next().await.unwrap().unwrap();
    assert!(matches!(close, Message::Close(Some(frame)) if frame.code == CloseCode::Normal));
    assert!(client.next().await.is_none());
    assert_eq!(closing.await.unwrap(), Lingered::Closed);
}

#[tokio::test]
async fn cut_connection_is_the_end_of_the_stream() {
    let (client, mut server) = with_foreign_client().await;
    drop(client);
    let mut received = Vec::new();
    assert_eq!(server.read_to_end(&mut received).await.unwrap(), 0);
}

/// A peer that only sends Pings, and never reads, is not answered without end.
#[tokio::test]
async fn pongs_are_bounded() {
    let (mut client, server) = duplex(64 * 1024);
    let mut server = WebSocketStream::new(server, Role::Server, Vec::new());
    let key = [9, 8, 7, 6];
    let ping = frame::control(frame::Opcode::Ping, &[b'p'; 125], Some(key));
    let sending = tokio::spawn(async move {
        for _ in 0..10_000 {
            client.write_all(&ping).await.unwrap();
        }
        client
    });
    let mut buffer = [0; 512];
    let reading = server.read(&mut buffer);
    let (_, client) =
        tokio::join!(tokio::time::timeout(Duration::from_millis(500), reading), sending);
    drop(client);
    assert!(server.pending_control_bytes() < 2048, "{}", server.pending_control_bytes());
}

/// Our client and a foreign server.
#[expect(clippy::result_large_err, reason = "the callback's type is that of the library")]
#[tokio::test]
async fn our_client_speaks_with_a_foreign_server() {
    let (client, server) = duplex(16 * 1024);
    let protocol = |request: &Request, mut response: server::Response| {
        assert_eq!(request.uri().path(), "/mqtt");
        assert_eq!(request.headers()[header::HOST], "broker.example:8083");
        assert_eq!(request.headers()[header::SEC_WEBSOCKET_PROTOCOL], "mqtt");
        let headers = response.headers_mut();
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("mqtt"));
        Ok(response)
    };
    let accepting = tokio_tungstenite::accept_hdr_async(server, protocol);
    let connecting = upgrade(client, "broker.example:8083", "/mqtt");
    let (client, server) = tokio::join!(connecting, accepting);
    let (mut client, mut server) = (client.unwrap(), server.unwrap());
    let payload: Vec<u8> = (0..50_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    let expected = payload.clone();
    let writing = tokio::spawn(async move {
        client.write_all(&payload).await.unwrap();
        let halves = [io::IoSlice::new(b"ab"), io::IoSlice::new(b"cd")];
        assert_eq!(client.write_vectored(&halves).await.unwrap(), 4);
        client.flush().await.unwrap();
        let mut reply = [0; 5];
        client.read_exact(&mut reply).await.unwrap();
        client.shutdown().await.unwrap();
        reply
    });
    assert_eq!(server.next().await.unwrap().unwrap(), Message::binary(expected));
    assert_eq!(server.next().await.unwrap().unwrap(), Message::binary(b"abcd".to_vec()));
    server.send(Message::binary(b"reply".to_vec())).await.unwrap();
    let close = server.next().await.unwrap().unwrap();
    assert!(matches!(close, Message::Close(Some(frame)) if frame.code == CloseCode::Normal));
    assert_eq!(&writing.await.unwrap(), b"reply");
}

/// What comes in one segment with the answer is not lost.
#[tokio::test]
async fn frames_behind_the_answer_are_kept() {
    let (client, mut server) = duplex(4096);
    let serving = tokio::spawn(async move {
        let (request, _) = read_head::<Request, _>(&mut server).await.unwrap();
        let mut answer =
            answer(&request, Door { paths: &["/mqtt".to_owned()], origins: &[] }).unwrap();
        answer.extend_from_slice(&[0x82, 3, b'n', b'o', b'w']);
        server.write_all(&answer).await.unwrap();
        server
    });
    let mut client = upgrade(client, "broker", "/mqtt").await.unwrap();
    let mut early = [0; 3];
    client.read_exact(&mut early).await.unwrap();
    assert_eq!(&early, b"now");
    drop(serving.await.unwrap());
}

#[tokio::test]
async fn our_client_refuses_what_is_no_websocket() {
    for (answer, expected) in [
        ("HTTP/1.1 404 Not Found\r\n\r\n", "the server answered 404 Not Found"),
        ("HTTP/1.1 101 Switching Protocols\r\n\r\n", "no upgrade to WebSocket"),
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\
             Sec-WebSocket-Accept: AAAA\r\n\r\n",
            "the key does not fit",
        ),
        ("SSH-2.0-OpenSSH_9.6\r\n", "malformed handshake"),
        ("", "ended within the handshake"),
    ] {
        let (client, mut server) = duplex(4096);
        server.write_all(answer.as_bytes()).await.unwrap();
        server.shutdown().await.unwrap();
        let error = upgrade(client, "broker", "/mqtt").await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
