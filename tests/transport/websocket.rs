//! WebSocket over TCP, TLS and Unix sockets.

use futures_util::{SinkExt as _, StreamExt as _};
use petrel::config::settings::{ListenAddress, ListenerSettings, Transport};
use petrel::dial::websocket;
use petrel::metrics::counter::Counter;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::echo::{Running, closed, echoes, listener, loopback, start};
use crate::tls::Authority;

fn in_websocket(settings: ListenerSettings) -> ListenerSettings {
    let origins = vec!["https://panel.example".to_owned()];
    let transport = Transport::WebSocket { paths: vec!["/mqtt".to_owned()], origins };
    ListenerSettings { transport, ..settings }
}

/// What a browser would send.
async fn browse(
    running: &Running,
    path: &str,
    headers: &[(&'static str, &str)],
) -> Result<tokio_tungstenite::WebSocketStream<tokio::net::TcpStream>, Error> {
    let mut request = format!("ws://localhost{path}").into_client_request()?;
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    let connecting = tokio_tungstenite::client_async(request, running.connect().await);
    connecting.await.map(|(stream, _)| stream)
}

const MQTT: (&str, &str) = ("Sec-WebSocket-Protocol", "mqtt");

#[tokio::test]
async fn bytes_go_both_ways_over_every_socket() {
    let authority = Authority::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mqtt.sock");
    let secure = ListenerSettings { tls: Some(authority.server_settings()), ..loopback() };
    let unix = listener(ListenAddress::Unix { path: path.clone(), mode: 0o600 });
    let running = start(&[in_websocket(secure), in_websocket(unix)]);
    let payload: Vec<u8> = (0..300_000_u32).map(|number| number.to_le_bytes()[0]).collect();

    let tls = authority.client().connect_over(running.connect().await).await.unwrap();
    let mut stream = websocket::upgrade(tls, "localhost", "/mqtt").await.unwrap();
    for portion in payload.chunks(30_000) {
        echoes(&mut stream, portion).await;
    }
    let unix = UnixStream::connect(&path).await.unwrap();
    let mut stream = websocket::upgrade(unix, "localhost", "/mqtt").await.unwrap();
    for portion in payload.chunks(30_000) {
        echoes(&mut stream, portion).await;
    }
    let [first, second] = &running.descriptions[..] else { panic!("two listeners") };
    assert!(first.contains("MQTT over WebSocket over TLS") && first.ends_with("/mqtt"), "{first}");
    assert!(second.contains("MQTT over WebSocket on"), "{second}");
}

#[tokio::test]
async fn text_frame_closes_the_connection() {
    let running = start(&[in_websocket(loopback())]);
    let mut stream = browse(&running, "/mqtt", &[MQTT]).await.unwrap();
    stream.send(Message::binary(b"fine".to_vec())).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap(), Message::binary(b"fine".to_vec()));
    stream.send(Message::text("not fine")).await.unwrap();
    let close = stream.next().await.unwrap().unwrap();
    let Message::Close(Some(frame)) = close else { panic!("{close:?}") };
    assert_eq!(u16::from(frame.code), 1003);
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn refused_handshakes_are_answered_and_counted() {
    let running = start(&[in_websocket(loopback())]);
    let foreign = ("Origin", "https://evil.example");
    let known = ("Origin", "https://panel.example");
    browse(&running, "/mqtt", &[MQTT, known]).await.unwrap();
    for (count, (path, headers, status)) in (1..).zip([
        ("/", &[MQTT][..], 404),
        ("/mqtt", &[][..], 400),
        ("/mqtt", &[MQTT, foreign][..], 403),
    ]) {
        let refused = browse(&running, path, headers).await.err();
        let Some(Error::Http(response)) = refused else { panic!("{refused:?}") };
        assert_eq!(response.status(), status);
        running.counted(Counter::TurnedAwayWebSocket, count).await;
    }
    let mut mqtt = running.connect().await;
    mqtt.write_all(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00").await.unwrap();
    let mut answer = [0; 12];
    tokio::io::AsyncReadExt::read_exact(&mut mqtt, &mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 400");
    running.counted(Counter::TurnedAwayWebSocket, 4).await;
    assert_eq!(running.visits().len(), 1);
}

#[tokio::test]
async fn tls_speaks_http_to_browsers() {
    let authority = Authority::new();
    let secure = ListenerSettings { tls: Some(authority.server_settings()), ..loopback() };
    let running = start(&[in_websocket(secure)]);
    let client = authority.client().offering(&["h2", "http/1.1"]);
    let tls = client.connect_over(running.connect().await).await.unwrap();
    assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let mut stream = websocket::upgrade(tls, "localhost", "/mqtt").await.unwrap();
    echoes(&mut stream, b"hello").await;
    drop(stream);
    let mut plain = running.connect().await;
    plain.write_all(b"GET /mqtt HTTP/1.1\r\n\r\n").await.unwrap();
    let mut alert = Vec::new();
    let _end_or_reset = tokio::io::AsyncReadExt::read_to_end(&mut plain, &mut alert).await;
    assert!(!alert.starts_with(b"HTTP"));
    closed(&mut plain).await;
}
