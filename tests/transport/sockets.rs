//! TCP and Unix sockets: binding, its errors, and what is left behind.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use petrel::config::settings::ListenAddress;
use petrel::net::shutdown::Stage;
use tokio::net::{TcpStream, UnixStream};

use crate::echo::{LIMITS, Running, echoes, listener, loopback, start, start_with};

fn refusal(settings: &petrel::config::settings::ListenerSettings) -> String {
    let settings = std::slice::from_ref(settings);
    start_with(settings, LIMITS).err().expect("must not start").to_string()
}

fn unix(path: &Path) -> petrel::config::settings::ListenerSettings {
    listener(ListenAddress::Unix { path: path.to_owned(), mode: 0o620 })
}

/// The hot path: the handler gets the socket itself, with the options inherited from the listening one.
#[tokio::test]
async fn tcp_reaches_the_handler_as_a_bare_socket() {
    let running = start(&[loopback()]);
    let mut stream = running.connect().await;
    echoes(&mut stream, b"hello").await;
    let visit = running.last_visit();
    assert_eq!(visit.stream_type, "tokio::net::tcp::stream::TcpStream");
    assert_eq!(visit.nodelay_and_keepalive, Some((true, true)));
    assert_eq!(visit.peer.address, Some(stream.local_addr().unwrap()));
    assert_eq!(visit.peer.listener.name, "test");
    assert_eq!(visit.peer.certificate_name, None);
    assert_eq!(running.descriptions, [format!("test: MQTT on {}", running.address())]);
}

#[tokio::test]
async fn ipv6_alone_and_dual_stack() {
    let six = listener(ListenAddress::Tcp((Ipv6Addr::LOCALHOST, 0).into()));
    let running = start(&[six]);
    echoes(&mut running.connect().await, b"six").await;
    assert!(running.last_visit().peer.address.unwrap().is_ipv6());

    let both = listener(ListenAddress::Tcp((Ipv6Addr::UNSPECIFIED, 0).into()));
    let running = start(&[both]);
    let port = running.address().port();
    for (ip, four) in
        [(Ipv4Addr::LOCALHOST.into(), true), (std::net::IpAddr::from(Ipv6Addr::LOCALHOST), false)]
    {
        let mut stream = TcpStream::connect(SocketAddr::new(ip, port)).await.unwrap();
        echoes(&mut stream, b"both").await;
        // A mapped address would match no rule that people write for IPv4.
        assert_eq!(running.last_visit().peer.address.unwrap().is_ipv4(), four);
    }
}

#[tokio::test]
async fn listeners_run_side_by_side() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mqtt.sock");
    let running = start(&[loopback(), unix(&path), loopback()]);
    echoes(&mut UnixStream::connect(&path).await.unwrap(), b"one").await;
    let ListenAddress::Tcp(third) = running.addresses[2].clone() else { panic!("not TCP") };
    echoes(&mut TcpStream::connect(third).await.unwrap(), b"two").await;
    echoes(&mut running.connect().await, b"three").await;
}

#[tokio::test]
async fn port_in_use_names_listener_address_and_cure() {
    let running = start(&[loopback()]);
    let second = listener(running.addresses[0].clone());
    let text = refusal(&second);
    let address = running.address().to_string();
    for part in ["`test`", &address, "in use", "another address"] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    // What was bound before the mistake is free again: bind the same two, mistake last, twice.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let first = listener(ListenAddress::Tcp(free));
    for _ in 0..2 {
        let error = start_with(&[first.clone(), second.clone()], LIMITS).err().unwrap();
        assert!(error.to_string().contains(&address), "{error}");
    }
}

#[tokio::test]
async fn foreign_address_is_said() {
    let foreign = listener(ListenAddress::Tcp("192.0.2.1:1883".parse().unwrap()));
    let text = refusal(&foreign);
    assert!(text.contains("does not have the address of 192.0.2.1:1883"), "{text}");
}

#[tokio::test]
async fn unix_socket_has_its_mode_and_goes_with_the_listener() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mqtt.sock");
    let running = start(&[unix(&path)]);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o620);
    let mut stream = UnixStream::connect(&path).await.unwrap();
    echoes(&mut stream, b"local").await;
    let visit = running.last_visit();
    assert_eq!(visit.peer.address, None);
    assert_eq!(visit.stream_type, "tokio::net::unix::stream::UnixStream");
    drop(stream);
    running.trigger.advance(Stage::Draining);
    running.ended.await.unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn stale_unix_socket_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mqtt.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let running = start(&[unix(&path)]);
    echoes(&mut UnixStream::connect(&path).await.unwrap(), b"fresh").await;
    let text = refusal(&unix(&path));
    assert!(text.contains("in use") && text.contains("mqtt.sock"), "{text}");
    // The attempt has not taken the socket away from the one who runs.
    echoes(&mut UnixStream::connect(&path).await.unwrap(), b"still here").await;
    drop(running);
}

#[tokio::test]
async fn unix_socket_of_a_successor_is_not_removed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mqtt.sock");
    let running = start(&[unix(&path)]);
    std::fs::remove_file(&path).unwrap();
    let successor = std::os::unix::net::UnixListener::bind(&path).unwrap();
    running.trigger.advance(Stage::Draining);
    running.ended.await.unwrap();
    assert!(path.exists());
    drop(successor);
}

#[tokio::test]
async fn what_is_not_a_socket_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("precious.txt");
    std::fs::write(&path, "data").unwrap();
    let text = refusal(&unix(&path));
    assert!(text.contains("is not a socket") && text.contains("precious.txt"), "{text}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "data");
    let missing: PathBuf = directory.path().join("no/such/directory/mqtt.sock");
    let text = refusal(&unix(&missing));
    assert!(text.contains("no/such/directory") && text.contains("`test`"), "{text}");
}

/// Running ends when the last connection has, and the port is closed at once.
#[tokio::test]
async fn draining_closes_the_port_and_waits_for_connections() {
    let running = start(&[loopback()]);
    let address = running.address();
    let mut stream = running.connect().await;
    echoes(&mut stream, b"before").await;
    running.trigger.advance(Stage::Draining);
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    echoes(&mut stream, b"meanwhile").await;
    assert!(!running.ended.is_finished());
    drop(stream);
    tokio::time::timeout(crate::echo::PATIENCE, running.ended).await.unwrap().unwrap();
}

#[tokio::test]
async fn stop_drops_connections_that_stay() {
    let Running { trigger, ended, addresses, .. } = start(&[loopback()]);
    let ListenAddress::Tcp(address) = addresses[0] else { panic!("not TCP") };
    let mut stream = TcpStream::connect(address).await.unwrap();
    echoes(&mut stream, b"here").await;
    trigger.advance(Stage::Stop);
    tokio::time::timeout(crate::echo::PATIENCE, ended).await.unwrap().unwrap();
    crate::echo::closed(&mut stream).await;
}
