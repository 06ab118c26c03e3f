//! Accepts Network Connections.
//!
//! One task per listener does nothing but accept: every Network Connection is a task of its own from the first byte,
//! so a slow handshake delays no one else. The loop survives every error of `accept`. If there are no file
//! descriptors left, it uses a spare one to turn Clients away rather than let them wait for an answer that does not
//! come.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tracing::{debug, error, info, warn};

use crate::access::Peer;
use crate::config::settings::{AcceptLimits, ListenAddress, ListenerSettings, Transport};
use crate::metrics::counter::{Counter, Counters};
use crate::metrics::exposition::{Exposition, Kind};
use crate::metrics::{Gauges, Metrics, Source};
use crate::net::entrance::{Entrance, House, Place, Watch};
use crate::net::establish::{Establishment, serve_established};
use crate::net::line_budget::LineBudget;
use crate::net::listener::{BoundListener, ListenAddressText, ListenError, ListeningSocket};
use crate::net::shutdown::{Shutdown, Stage};
use crate::net::stream::ClientStream;
use crate::net::tls::{TlsAcceptor, TlsError};

/// Serves MQTT on byte streams.
pub trait Handler: Clone + Send + Sync + 'static {
    /// Serves one Network Connection until it ends. It observes the shutdown itself; at [`Stage::Stop`] the future is
    /// dropped at any point. The size of the future is the cost of an idle connection. The connection settles in its
    /// place once its Client is known; until then its future may also be dropped to make room for another. A guest,
    /// which has no place, settles only if it replaces a connection that has one. Connections within the process need no
    /// place.
    fn handle<S: ClientStream>(
        self,
        stream: S,
        peer: Peer,
        place: Option<Place>,
    ) -> impl Future<Output = ()> + Send + 'static;
}

/// All listeners of the broker, bound.
pub struct Listeners {
    bound: Vec<(BoundListener, Entrance)>,
    limits: AcceptLimits,
    counters: Counters,
}

impl Listeners {
    /// Binds all of them; if one fails, the others are released. Must be called in a Tokio runtime.
    pub fn bind(
        settings: &[ListenerSettings],
        limits: AcceptLimits,
        metrics: &Metrics,
    ) -> Result<Self, ListenError> {
        let counters = metrics.counters().clone();
        let AcceptLimits { max_connections, max_connections_per_address, .. } = limits;
        let house = House::new(max_connections, max_connections_per_address, counters.clone());
        let mut bound = Vec::new();
        for one in settings {
            bound.push((BoundListener::bind(one)?, house.open(one.max_connections)));
        }
        let names = bound
            .iter()
            .map(|(listener, entrance)| (listener.settings.rules.name.clone(), entrance.clone()));
        metrics.register(Arc::new(Rooms { house: Arc::clone(&house), each: names.collect() }));
        Ok(Self { bound, limits, counters })
    }

    /// The addresses, in the order of the settings.
    #[must_use]
    pub fn addresses(&self) -> Vec<ListenAddress> {
        self.bound.iter().map(|(listener, _)| listener.address.clone()).collect()
    }

    /// Name, address and transport of each listener, for people.
    #[must_use]
    pub fn descriptions(&self) -> Vec<String> {
        self.bound.iter().map(|(listener, _)| describe(listener)).collect()
    }

    /// A handle to reload certificates while the listeners run.
    #[must_use]
    pub fn certificates(&self) -> Certificates {
        let with_tls = self.bound.iter().filter_map(|(listener, _)| {
            let tls = listener.tls.clone()?;
            Some((listener.settings.rules.name.clone(), tls))
        });
        Certificates { acceptors: with_tls.collect() }
    }

    /// Accepts until draining begins, then closes the listening sockets and waits until the last Network Connection
    /// has ended, or [`Stage::Stop`] ends them.
    pub async fn run<H: Handler>(self, handler: H, shutdown: Shutdown) {
        let mut loops = JoinSet::new();
        for (listener, entrance) in self.bound {
            info!(
                listener = listener.settings.rules.name,
                address = %ListenAddressText(listener.address.clone()),
                "listening"
            );
            let establishment = Establishment {
                tls: listener.tls,
                transport: listener.settings.transport,
                proxy_protocol: listener.settings.proxy_protocol,
                timeout: self.limits.connect_timeout,
                counters: self.counters.clone(),
                lines: LineBudget::new(self.counters.clone()),
            };
            let intake = Intake {
                peer: Peer {
                    address: None,
                    listener: Arc::clone(&listener.settings.rules),
                    certificate_name: None,
                },
                establishment: Arc::new(establishment),
                entrance,
                counters: self.counters.clone(),
                handler: handler.clone(),
                connections: JoinSet::new(),
                full: Throttle::default(),
                failed: Throttle::default(),
                spare: File::open("/dev/null").ok(),
            };
            loops.spawn(intake.run(listener.socket, shutdown.clone()));
        }
        while let Some(ended) = loops.join_next().await {
            if let Err(bug) = ended {
                error!(error = %bug, "an accept loop failed because of a bug");
            }
        }
    }
}

fn describe(listener: &BoundListener) -> String {
    let settings = &listener.settings;
    let tls = if listener.tls.is_some() { " over TLS" } else { "" };
    let (transport, path) = match &settings.transport {
        Transport::Mqtt => ("MQTT", ""),
        Transport::WebSocket { .. } => ("MQTT over WebSocket", settings.transport.usual_path()),
    };
    let proxy = if settings.proxy_protocol { ", PROXY protocol" } else { "" };
    let address = ListenAddressText(listener.address.clone());
    format!("{}: {transport}{tls} on {address}{path}{proxy}", settings.rules.name)
}

/// Reloads the certificates of running listeners.
#[derive(Clone)]
pub struct Certificates {
    acceptors: Vec<(String, TlsAcceptor)>,
}

impl Certificates {
    /// Rereads every file. A listener with invalid files keeps its certificates. Connections are not affected. Blocks
    /// on the disk. Returns the listeners that failed.
    #[must_use]
    pub fn reload(&self) -> Vec<(String, TlsError)> {
        let failed = self.acceptors.iter().filter_map(|(name, acceptor)| {
            acceptor.reload().err().map(|error| (name.clone(), error))
        });
        failed.collect()
    }
}

struct Rooms {
    house: Arc<House>,
    each: Vec<(String, Entrance)>,
}

impl Source for Rooms {
    fn fill(&self, gauges: &mut Gauges) {
        gauges.connections += self.house.room().used() as u64;
    }

    fn write(&self, exposition: &mut Exposition) {
        let name = "petrel_listener_connections";
        exposition.family(name, Kind::Gauge, "Network Connections of each listener.");
        for (listener, entrance) in &self.each {
            let used = entrance.room().used() as u64;
            exposition.value(name, &[("listener", listener)], used);
        }
    }
}

/// An accepted socket.
pub(crate) enum Accepted {
    /// TCP.
    Tcp(TcpStream, SocketAddr),
    /// Unix.
    Unix(UnixStream),
}

impl ListeningSocket {
    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => {
                listener.accept().await.map(|(stream, address)| Accepted::Tcp(stream, address))
            }
            Self::Unix(listener, _file) => {
                listener.accept().await.map(|(stream, _unnamed)| Accepted::Unix(stream))
            }
        }
    }
}

/// The accept loop of one listener, and its connections.
struct Intake<H> {
    /// What is known about a connection before anything is read from it.
    peer: Peer,
    establishment: Arc<Establishment>,
    entrance: Entrance,
    counters: Counters,
    handler: H,
    connections: JoinSet<()>,
    full: Throttle,
    failed: Throttle,
    /// A spare file descriptor, released when there is no other.
    spare: Option<File>,
}

impl<H: Handler> Intake<H> {
    async fn run(mut self, socket: ListeningSocket, mut shutdown: Shutdown) {
        loop {
            tokio::select! {
                biased;
                () = shutdown.draining() => break,
                Some(ended) = self.connections.join_next() => self.handle_end(ended),
                accepted = socket.accept() => match accepted {
                    Ok(accepted) => self.admit(accepted),
                    Err(error) => self.handle_error(&error, &socket).await,
                },
            }
        }
        // New Clients are refused from now on, so that they try another broker.
        drop(socket);
        loop {
            tokio::select! {
                biased;
                ended = self.connections.join_next() => match ended {
                    Some(ended) => self.handle_end(ended),
                    None => return,
                },
                () = shutdown.reached(Stage::Stop) => break,
            }
        }
        let count = self.connections.len();
        warn!(listener = self.peer.listener.name, count, "connections dropped at shutdown");
        self.connections.shutdown().await;
    }

    fn admit(&mut self, accepted: Accepted) {
        match accepted {
            Accepted::Tcp(stream, address) => {
                // IPv4 Clients of a dual-stack socket have mapped addresses.
                let address = SocketAddr::new(address.ip().to_canonical(), address.port());
                self.spawn(stream, Some(address));
            }
            Accepted::Unix(stream) => self.spawn(stream, None),
        }
    }

    /// Each kind of connection is a future of its own type, so an idle plain one does not pay for the size of the
    /// others.
    fn spawn<S: ClientStream>(&mut self, stream: S, address: Option<SocketAddr>) {
        let (place, watch) = self.enter(address);
        let peer = Peer { address, ..self.peer.clone() };
        let handler = self.handler.clone();
        let task = if self.establishment.is_direct() {
            self.connections.spawn(handler.handle(stream, peer, Some(place)))
        } else {
            let establishment = Arc::clone(&self.establishment);
            let served = serve_established(establishment, handler, stream, peer, place);
            self.connections.spawn(Box::pin(served))
        };
        watch.name(task);
    }

    fn enter(&mut self, address: Option<SocketAddr>) -> (Place, Watch) {
        let entered = self.entrance.enter(address);
        if let Some(full) = entered.0.full()
            && let Some(count) = self.full.permit()
        {
            let reason = full.counter().description().label.map_or("", |(_, value)| value);
            let listener = &self.peer.listener.name;
            warn!(listener, reason, count, "too many connections: only take-overs are accepted");
        }
        entered
    }

    fn handle_end(&self, ended: Result<(), tokio::task::JoinError>) {
        if let Err(bug) = ended
            && bug.is_panic()
        {
            self.counters.add(Counter::TaskPanics, 1);
            error!(listener = self.peer.listener.name, error = %bug, "a connection failed because of a bug");
        }
    }

    async fn handle_error(&mut self, error: &io::Error, socket: &ListeningSocket) {
        self.counters.add(Counter::AcceptErrors, 1);
        let listener = &self.peer.listener.name;
        let severity = severity(error);
        if severity == Severity::OneClient {
            debug!(listener, %error, "a client disconnected before it was accepted");
            return;
        }
        if let Some(count) = self.failed.permit() {
            warn!(listener, %error, count, "cannot accept connections");
        }
        if severity == Severity::NoDescriptor {
            self.turn_away(socket);
        }
        sleep(PAUSE).await;
    }

    /// Repeatedly closes the spare descriptor, accepts with it and closes the accepted socket; then opens a spare
    /// again.
    fn turn_away(&mut self, socket: &ListeningSocket) {
        if self.spare.take().is_some() {
            for _ in 0..MAX_TURNED_AWAY {
                let Some(Ok(accepted)) = socket.accept().now_or_never() else { break };
                drop(accepted);
                self.counters.add(Counter::TurnedAwayNoDescriptor, 1);
            }
        }
        self.spare = File::open("/dev/null").ok();
    }
}

/// Pause after an error that will not go away by itself.
const PAUSE: Duration = Duration::from_millis(50);

/// Connections turned away before the loop checks the shutdown again.
const MAX_TURNED_AWAY: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Severity {
    /// One Client disconnected, or its network failed: accept the next.
    OneClient,
    /// No file descriptor is left.
    NoDescriptor,
    /// An error that lasts for a while.
    Lasting,
}

/// `accept` also reports errors that the network had for the connection accepted: see its manual page.
fn severity(error: &io::Error) -> Severity {
    use rustix::io::Errno;
    let Some(code) = error.raw_os_error() else { return Severity::Lasting };
    match Errno::from_raw_os_error(code) {
        Errno::CONNABORTED
        | Errno::INTR
        | Errno::PERM
        | Errno::PROTO
        | Errno::NOPROTOOPT
        | Errno::NETDOWN
        | Errno::NETUNREACH
        | Errno::HOSTDOWN
        | Errno::HOSTUNREACH
        | Errno::NONET => Severity::OneClient,
        Errno::MFILE | Errno::NFILE => Severity::NoDescriptor,
        _ => Severity::Lasting,
    }
}

/// Lets one message through every ten seconds, and counts the others.
#[derive(Debug, Default)]
struct Throttle {
    last: Option<Instant>,
    held_back: u64,
}

impl Throttle {
    const INTERVAL: Duration = Duration::from_secs(10);

    /// The number of events that the message covers, if it may be written now.
    fn permit(&mut self) -> Option<u64> {
        self.held_back += 1;
        let now = Instant::now();
        if self.last.is_some_and(|last| now.duration_since(last) < Self::INTERVAL) {
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.held_back))
    }
}
