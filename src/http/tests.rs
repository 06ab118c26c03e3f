//! The pages over a real socket.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;
use crate::durable::entry::StoredEntry;
use crate::durable::message::{Sequence, SessionId};
use crate::durable::{Batch, ReadError, Store, StoreState, Ticket};
use crate::http::health::Availability;
use crate::metrics::counter::Counter;
use crate::net::shutdown::{ShutdownTrigger, Stage};

struct StoreInState(std::sync::atomic::AtomicU8);

impl StoreInState {
    fn set(&self, state: StoreState) {
        self.0.store(state as u8, std::sync::atomic::Ordering::Relaxed);
    }
}

impl Store for StoreInState {
    fn submit(&self, _: Batch) -> Ticket {
        Ticket(0)
    }

    fn is_durable(&self, _: Ticket) -> bool {
        true
    }

    fn state(&self) -> StoreState {
        match self.0.load(std::sync::atomic::Ordering::Relaxed) {
            0 => StoreState::Available,
            1 => StoreState::Full,
            _ => StoreState::Failed,
        }
    }

    fn pending_bytes(&self) -> usize {
        0
    }

    fn read_queue(
        &self,
        _: SessionId,
        _: Sequence,
        _: Sequence,
        _: usize,
        _: usize,
    ) -> Result<Vec<StoredEntry>, ReadError> {
        Ok(Vec::new())
    }
}

struct Server {
    address: SocketAddr,
    metrics: Metrics,
    health: Arc<Health>,
    trigger: ShutdownTrigger,
    running: tokio::task::JoinHandle<()>,
}

async fn start() -> Server {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = HttpListener::bind(address, Exposure::Loopback).await.unwrap();
    let (trigger, shutdown) = Shutdown::new();
    let (metrics, health) = (Metrics::new(), Arc::new(Health::new()));
    let address = listener.address();
    let running =
        tokio::spawn(listener.run(metrics.clone(), Arc::clone(&health), Arc::default(), shutdown));
    Server { address, metrics, health, trigger, running }
}

/// Sends these bytes and reads until the server closes.
async fn raw(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut response = Vec::new();
    // A server that closes with unread input resets the connection; its answer before that counts.
    let _end_or_reset = stream.read_to_end(&mut response).await;
    String::from_utf8(response).unwrap()
}

async fn get_page(address: SocketAddr, path: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let response = raw(address, request.as_bytes()).await;
    let status = response.split(' ').nth(1).unwrap().parse().unwrap();
    let (_, body) = response.split_once("\r\n\r\n").unwrap();
    (status, body.to_owned())
}

#[tokio::test]
async fn metrics_are_prometheus_text() {
    let server = start().await;
    server.metrics.counters().add(Counter::PublishReceived, 3);
    let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let response = raw(server.address, request.as_bytes()).await;
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    assert!(response.contains("content-type: text/plain; version=0.0.4"), "{response}");
    assert!(response.contains("petrel_publishes_total{direction=\"received\"} 3\n"), "{response}");
}

#[tokio::test]
async fn ready_says_why_not() {
    let server = start().await;
    let store = Arc::new(StoreInState(0.into()));
    let (status, body) = get_page(server.address, "/ready").await;
    assert_eq!((status, body.starts_with("starting")), (503, true), "{body}");
    assert_eq!(get_page(server.address, "/live").await, (200, "alive\n".to_owned()));
    server.health.watch_store(Arc::clone(&store) as Arc<dyn Store>);
    server.health.advance(Availability::Serving);
    assert_eq!(get_page(server.address, "/ready").await, (200, "ready\n".to_owned()));
    store.set(StoreState::Full);
    let (status, body) = get_page(server.address, "/ready").await;
    assert_eq!((status, body.starts_with("store full")), (503, true), "{body}");
    store.set(StoreState::Failed);
    let (status, body) = get_page(server.address, "/ready").await;
    assert_eq!((status, body.starts_with("store failed")), (503, true), "{body}");
    store.set(StoreState::Available);
    assert_eq!(get_page(server.address, "/ready").await.0, 200);
    server.health.advance(Availability::Draining);
    server.health.advance(Availability::Serving);
    server.trigger.advance(Stage::Draining);
    let (status, body) = get_page(server.address, "/ready").await;
    assert_eq!((status, body.starts_with("draining")), (503, true), "{body}");
}

#[tokio::test]
async fn index_and_unknown_pages() {
    let server = start().await;
    let (status, body) = get_page(server.address, "/").await;
    assert_eq!(status, 200);
    for page in ["/metrics", "/live", "/ready"] {
        assert!(body.contains(page), "{body}");
    }
    assert_eq!(get_page(server.address, "/admin").await.0, 404);
    let post =
        "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    assert!(raw(server.address, post.as_bytes()).await.starts_with("HTTP/1.1 405 "));
}

#[tokio::test]
async fn endless_requests_are_cut() {
    let server = start().await;
    let mut endless = b"GET / HTTP/1.1\r\n".to_vec();
    for number in 0..20_000 {
        endless.extend_from_slice(format!("X-{number}: y\r\n").as_bytes());
    }
    let response = raw(server.address, &endless).await;
    assert!(!response.contains("200 OK"), "{response}");
    assert_eq!(get_page(server.address, "/live").await.0, 200);
}

/// Once, thirty-two silent connections, or connections with half a request, kept everybody out for half a minute, so the
/// broker appeared to be dead.
#[tokio::test]
async fn silent_connections_do_not_keep_out_those_who_ask() {
    let server = start().await;
    let mut silent = Vec::new();
    for number in 0..300 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        if number % 2 == 0 {
            stream.write_all(b"GET /live HTTP/1.1\r\nHost: x\r\n").await.unwrap();
        }
        silent.push(stream);
    }
    assert_eq!(get_page(server.address, "/live").await, (200, "alive\n".to_owned()));
    // The oldest were closed, the newest have not been silent for long.
    let mut rest = Vec::new();
    let _end_or_reset = silent[0].read_to_end(&mut rest).await;
    let youngest = silent.last_mut().unwrap();
    youngest
        .write_all(b"GET /live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    youngest.read_to_end(&mut rest).await.unwrap();
    assert!(rest.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&rest));
}

#[tokio::test]
async fn stopping_ends_idle_connections() {
    let server = start().await;
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    idle.write_all(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    server.trigger.advance(Stage::Stop);
    tokio::time::timeout(Duration::from_secs(5), server.running).await.unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn other_addresses_than_loopback_are_refused() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:80", "[::ffff:192.0.2.1]:80"] {
        let address: SocketAddr = address.parse().unwrap();
        let refused = HttpListener::bind(address, Exposure::Loopback).await;
        let Err(error @ HttpError::Exposed(_)) = refused else { panic!("{address} was bound") };
        assert!(error.to_string().contains("127.0.0.1"), "{error}");
    }
    let everywhere = SocketAddr::from(([0, 0, 0, 0], 0));
    assert!(HttpListener::bind(everywhere, Exposure::Remote).await.is_ok());
}

#[tokio::test]
async fn port_in_use_is_said() {
    let server = start().await;
    let second = HttpListener::bind(server.address, Exposure::Loopback).await;
    let Err(error) = second else { panic!("bound twice") };
    let text = error.to_string();
    assert!(text.contains(&server.address.to_string()) && text.contains("in use"), "{text}");
}
