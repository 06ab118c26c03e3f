//! The PROXY protocol in front of each transport.

use petrel::config::settings::Transport;
use petrel::metrics::counter::Counter;
use tokio::io::AsyncWriteExt as _;

use crate::echo::{closed, echoes, loopback, start};
use crate::tls::Authority;

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 4321 1883\r\n";

fn v2(command: u8) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([0x20 | command, 0x11, 0, 12]);
    header.extend([192, 0, 2, 7, 198, 51, 100, 1, 0x10, 0xe1, 7, 91]);
    header
}

#[tokio::test]
async fn both_versions_name_the_client() {
    let mut settings = loopback();
    settings.proxy_protocol = true;
    let running = start(&[settings]);
    for header in [V1.to_vec(), v2(1)] {
        let mut stream = running.connect().await;
        // In one segment with what follows: nothing of that may be lost.
        stream.write_all(&[&header[..], b"early "].concat()).await.unwrap();
        let mut early = [0; 6];
        tokio::io::AsyncReadExt::read_exact(&mut stream, &mut early).await.unwrap();
        assert_eq!(&early, b"early ");
        echoes(&mut stream, b"hello").await;
        let visit = running.last_visit();
        assert_eq!(visit.peer.address, Some("192.0.2.7:4321".parse().unwrap()));
        assert_eq!(visit.stream_type, "tokio::net::tcp::stream::TcpStream");
    }
    let mut stream = running.connect().await;
    stream.write_all(&v2(0)).await.unwrap();
    echoes(&mut stream, b"health check").await;
    assert_eq!(running.last_visit().peer.address, Some(stream.local_addr().unwrap()));
}

#[tokio::test]
async fn connections_without_a_proper_header_are_closed_and_counted() {
    let mut settings = loopback();
    settings.proxy_protocol = true;
    let running = start(&[settings]);
    let strangers: [&[u8]; 4] = [
        b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00",
        b"PROXY TCP4 nonsense\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1 1111111111111111111111111111111111111111111111111111111111111111111111111111111111111",
        b"\r\n\r\n\0\r\nQUIT\n\x41\x11\x00\x0c000000000000",
    ];
    for (count, bytes) in (1..).zip(strangers) {
        let mut stream = running.connect().await;
        stream.write_all(bytes).await.unwrap();
        closed(&mut stream).await;
        running.counted(Counter::TurnedAwayProxyHeader, count).await;
    }
    assert_eq!(running.visits().len(), 0);
}

#[tokio::test]
async fn header_stands_in_front_of_tls_and_websocket() {
    let authority = Authority::new();
    let mut settings = loopback();
    settings.proxy_protocol = true;
    settings.tls = Some(authority.server_settings());
    settings.transport =
        Transport::WebSocket { paths: vec!["/mqtt".to_owned()], origins: Vec::new() };
    let running = start(&[settings]);
    let mut socket = running.connect().await;
    socket.write_all(&v2(1)).await.unwrap();
    let tls = authority.client().connect_over(socket).await.unwrap();
    let mut stream = petrel::dial::websocket::upgrade(tls, "localhost", "/mqtt").await.unwrap();
    echoes(&mut stream, b"all of it").await;
    let visit = running.last_visit();
    assert_eq!(visit.peer.address, Some("192.0.2.7:4321".parse().unwrap()));
}

/// Where no header is demanded, one is not understood: anybody could choose an address.
#[tokio::test]
async fn header_is_data_where_it_is_not_demanded() {
    let running = start(&[loopback()]);
    let mut stream = running.connect().await;
    echoes(&mut stream, V1).await;
    assert_eq!(running.last_visit().peer.address, Some(stream.local_addr().unwrap()));
}
