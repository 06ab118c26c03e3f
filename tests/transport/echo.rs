//! Listeners that echo their input, and record their connections.

use std::any::Any;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use petrel::access::{ListenerRules, Peer};
use petrel::config::settings::{AcceptLimits, ListenAddress, ListenerSettings, Transport};
use petrel::metrics::Metrics;
use petrel::metrics::counter::Counter;
use petrel::net::accept::{Certificates, Handler, Listeners};
use petrel::net::entrance::Place;
use petrel::net::lingering::close_gracefully;
use petrel::net::listener::ListenError;
use petrel::net::shutdown::{Shutdown, ShutdownTrigger};
use petrel::net::stream::ClientStream;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// No test waits longer than this for something that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Who came, and through what.
#[derive(Debug, Clone)]
pub(crate) struct Visit {
    pub(crate) peer: Peer,
    pub(crate) stream_type: &'static str,
    /// Of a bare TCP connection.
    pub(crate) nodelay_and_keepalive: Option<(bool, bool)>,
}

#[derive(Clone, Default)]
pub(crate) struct Echo {
    visits: Arc<Mutex<Vec<Visit>>>,
}

impl Handler for Echo {
    async fn handle<S: ClientStream>(self, mut stream: S, peer: Peer, place: Option<Place>) {
        let Some(mut place) = place.filter(|place| place.full().is_none()) else { return };
        place.settle();
        let tcp = (&stream as &dyn Any).downcast_ref::<TcpStream>();
        let options = tcp.map(|stream| {
            let keepalive = socket2::SockRef::from(stream).keepalive().unwrap();
            (stream.nodelay().unwrap(), keepalive)
        });
        self.visits.lock().unwrap().push(Visit {
            peer,
            stream_type: std::any::type_name::<S>(),
            nodelay_and_keepalive: options,
        });
        let mut buffer = vec![0; 4096];
        loop {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(count) => {
                    assert!(!buffer[..count].starts_with(b"panic"), "as the test asked for");
                    if stream.write_all(&buffer[..count]).await.is_err()
                        || stream.flush().await.is_err()
                    {
                        break;
                    }
                }
            }
        }
        let _how = close_gracefully(&mut stream, PATIENCE, 1 << 20).await;
    }
}

/// Running listeners.
pub(crate) struct Running {
    pub(crate) addresses: Vec<ListenAddress>,
    pub(crate) descriptions: Vec<String>,
    pub(crate) certificates: Certificates,
    pub(crate) metrics: Metrics,
    pub(crate) trigger: ShutdownTrigger,
    pub(crate) ended: JoinHandle<()>,
    echo: Echo,
}

pub(crate) fn listener(address: ListenAddress) -> ListenerSettings {
    ListenerSettings {
        rules: Arc::new(ListenerRules { name: "test".to_owned(), ..ListenerRules::default() }),
        address,
        transport: Transport::Mqtt,
        tls: None,
        proxy_protocol: false,
        max_connections: None,
    }
}

/// A listener on a free port of loopback.
pub(crate) fn loopback() -> ListenerSettings {
    listener(ListenAddress::Tcp(([127, 0, 0, 1], 0).into()))
}

pub(crate) const LIMITS: AcceptLimits = AcceptLimits {
    max_connections: None,
    max_connections_per_address: None,
    connect_timeout: PATIENCE,
};

pub(crate) fn start(settings: &[ListenerSettings]) -> Running {
    start_with(settings, LIMITS).unwrap()
}

pub(crate) fn start_with(
    settings: &[ListenerSettings],
    limits: AcceptLimits,
) -> Result<Running, ListenError> {
    let metrics = Metrics::new();
    let listeners = Listeners::bind(settings, limits, &metrics)?;
    let (trigger, shutdown) = Shutdown::new();
    let echo = Echo::default();
    Ok(Running {
        addresses: listeners.addresses(),
        descriptions: listeners.descriptions(),
        certificates: listeners.certificates(),
        metrics,
        trigger,
        ended: tokio::spawn(listeners.run(echo.clone(), shutdown)),
        echo,
    })
}

impl Running {
    pub(crate) fn address(&self) -> std::net::SocketAddr {
        match &self.addresses[0] {
            ListenAddress::Tcp(address) => *address,
            ListenAddress::Unix { path, .. } => panic!("{} is no TCP address", path.display()),
        }
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address()).await.unwrap()
    }

    pub(crate) fn visits(&self) -> Vec<Visit> {
        self.echo.visits.lock().unwrap().clone()
    }

    pub(crate) fn last_visit(&self) -> Visit {
        self.visits().pop().unwrap()
    }

    /// Waits until this counter has this value.
    pub(crate) async fn counted(&self, counter: Counter, value: u64) {
        let reached = async {
            while self.metrics.counters().read(counter) < value {
                tokio::task::yield_now().await;
            }
        };
        assert!(timeout(PATIENCE, reached).await.is_ok(), "{counter:?} did not reach {value}");
        assert_eq!(self.metrics.counters().read(counter), value);
    }

    /// Waits until so many Network Connections are open.
    pub(crate) async fn connections(&self, count: u64) {
        let reached = async {
            while self.metrics.sample().gauges.connections != count {
                tokio::task::yield_now().await;
            }
        };
        assert!(timeout(PATIENCE, reached).await.is_ok(), "there are not {count} connections");
    }
}

/// Sends this and expects it back.
pub(crate) async fn echoes<S>(stream: &mut S, bytes: &[u8])
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let exchange = async {
        stream.write_all(bytes).await?;
        stream.flush().await?;
        let mut back = vec![0; bytes.len()];
        stream.read_exact(&mut back).await?;
        Ok::<_, std::io::Error>(back)
    };
    let back = timeout(PATIENCE, exchange).await.expect("an answer in time").unwrap();
    assert_eq!(back, bytes);
}

/// Expects that the other side closes (or resets) without a word.
pub(crate) async fn closed<S>(stream: &mut S)
where
    S: AsyncRead + Unpin,
{
    let mut byte = [0];
    match timeout(PATIENCE, stream.read(&mut byte)).await.expect("closed in time") {
        Ok(0) | Err(_) => {}
        Ok(_) => panic!("{byte:?} instead of the end"),
    }
}
