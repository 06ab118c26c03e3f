//! One running broker: store, core, listeners, HTTP and timers put together from the settings, and
//! taken apart again in order.

pub mod bridges;
pub mod control;
pub mod figures;

use std::sync::Arc;
use std::time::Duration;

use rand::random;
use tokio::io::DuplexStream;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{error, info};

use crate::access::{ListenerRules, Peer};
use crate::auth::authority::DefaultAuthority;
use crate::auth::users::{UsersError, UsersFile};
use crate::broker::{Broker, Retain};
use crate::config::choice::StoreKind;
use crate::config::settings::{ListenAddress, Settings};
use crate::durable::Store;
use crate::durable::record::Loaded;
use crate::http::health::{Health, Phase};
use crate::http::{Exposure, HttpError, HttpListener};
use crate::metrics::Metrics;
use crate::metrics::sys::SysTopics;
use crate::net::accept::{Certificates, Handler, Listeners};
use crate::net::connection::MqttHandler;
use crate::net::listener::ListenError;
use crate::net::shutdown::{Shutdown, ShutdownTrigger, Stage};
use crate::net::tally;
use crate::node::figures::{BrokerFigures, StoreFigures};
use crate::session::effects::Effects;
use crate::store::clock::BrokerClock;
use crate::store::error::StoreError;
use crate::store::memory::MemoryStore;
use crate::store::rocks::RocksStore;

/// How often expiry, wills and limits of the whole broker are looked at.
const TICK: Duration = Duration::from_millis(500);
/// Bytes in each direction of a connection within the process.
const INTERNAL_BYTES: usize = 256 * 1024;

/// Why a broker could not be started.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The store could not be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A listener could not be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The HTTP listener could not be opened.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The users file could not be read.
    #[error(transparent)]
    Users(#[from] UsersError),
}

/// A broker, open and bound, not yet serving.
pub struct Node {
    broker: Arc<Broker>,
    clock: BrokerClock,
    rocks: Option<Arc<RocksStore>>,
    metrics: Metrics,
    health: Arc<Health>,
    users: Option<Arc<UsersFile>>,
    listeners: Listeners,
    certificates: Certificates,
    http: Option<JoinHandle<()>>,
    sys_interval: Option<Duration>,
    total_queue_bytes: u64,
    shutdown_grace: Duration,
    durability: &'static str,
    handler: MqttHandler,
    shutdown: Shutdown,
    trigger: Arc<ShutdownTrigger>,
}

/// What others may do with a running broker. Cheap to clone.
#[derive(Clone)]
pub struct NodeHandle {
    broker: Arc<Broker>,
    clock: BrokerClock,
    rocks: Option<Arc<RocksStore>>,
    metrics: Metrics,
    users: Option<Arc<UsersFile>>,
    certificates: Certificates,
    handler: MqttHandler,
    trigger: Arc<ShutdownTrigger>,
}

impl Node {
    /// Opens the store, loads the broker and binds every listener. Blocks while the store opens.
    ///
    /// # Errors
    /// [`NodeError`] says which part and what to do.
    pub async fn open(settings: &Settings) -> Result<Self, NodeError> {
        let users = match &settings.users_file {
            Some(path) => Some(Arc::new(UsersFile::open(path)?)),
            None => None,
        };
        let authority = Arc::new(DefaultAuthority::new(users.clone()));
        let metrics = Metrics::new();
        let health = Arc::new(Health::new());
        let listeners = Listeners::bind(&settings.listeners, settings.accept, &metrics)?;
        let (trigger, shutdown) = Shutdown::new();
        let http = match settings.http_listen {
            Some(address) => {
                let exposure = if settings.file.http.allow_remote {
                    Exposure::Remote
                } else {
                    Exposure::Loopback
                };
                let listener = HttpListener::bind(address, exposure).await?;
                let health = Arc::clone(&health);
                // Before the store is open: while that takes its time, `/ready` says so.
                Some(tokio::spawn(listener.run(metrics.clone(), health, shutdown.clone())))
            }
            None => None,
        };
        let OpenedStore { store, loaded, clock, rocks } = open_store(settings)?;
        let broker =
            Broker::new(settings.limits.clone(), Arc::clone(&store), authority, loaded, random());
        let broker = Arc::new(broker);
        metrics.register(Arc::new(BrokerFigures::new(Arc::clone(&broker))));
        metrics.register(Arc::new(StoreFigures::new(
            Arc::clone(&store),
            rocks.clone(),
            settings.limits.durability,
        )));
        health.watch_store(store);
        let handler = MqttHandler::new(
            Arc::clone(&broker),
            clock,
            metrics.counters().clone(),
            shutdown.clone(),
        );
        Ok(Self {
            broker,
            clock,
            rocks,
            metrics,
            health,
            users,
            certificates: listeners.certificates(),
            listeners,
            http,
            sys_interval: settings.sys_interval,
            total_queue_bytes: settings.limits.total_queue_bytes,
            shutdown_grace: settings.shutdown_grace,
            durability: settings.limits.durability.name(),
            handler,
            shutdown,
            trigger: Arc::new(trigger),
        })
    }

    /// Where the listeners really listen.
    #[must_use]
    pub fn addresses(&self) -> Vec<ListenAddress> {
        self.listeners.addresses()
    }

    /// One line for each listener.
    #[must_use]
    pub fn descriptions(&self) -> Vec<String> {
        self.listeners.descriptions()
    }

    /// What others may do with it.
    #[must_use]
    pub fn handle(&self) -> NodeHandle {
        NodeHandle {
            broker: Arc::clone(&self.broker),
            clock: self.clock,
            rocks: self.rocks.clone(),
            metrics: self.metrics.clone(),
            users: self.users.clone(),
            certificates: self.certificates.clone(),
            handler: self.handler.clone(),
            trigger: Arc::clone(&self.trigger),
        }
    }

    /// Serves until the shutdown begins, drains for the grace configured at most, and closes the
    /// store.
    pub async fn run(self) {
        let mut tasks = JoinSet::new();
        tasks.spawn(self.handler.clone().keep_time());
        tasks.spawn(keep_time(
            Arc::clone(&self.broker),
            self.clock,
            self.metrics.clone(),
            self.total_queue_bytes,
        ));
        if let Some(period) = self.sys_interval {
            let broker = Arc::clone(&self.broker);
            let metrics = self.metrics.clone();
            tasks.spawn(publish_sys(broker, self.clock, metrics, period, self.durability));
        }
        let drain = drain(
            Arc::clone(&self.broker),
            Arc::clone(&self.health),
            self.shutdown.clone(),
            Arc::clone(&self.trigger),
            self.shutdown_grace,
        );
        let drain = tokio::spawn(drain);
        self.health.advance(Phase::Serving);
        self.listeners.run(self.handler, self.shutdown.clone()).await;
        self.trigger.advance(Stage::Stop);
        tasks.shutdown().await;
        for task in [Some(drain), self.http].into_iter().flatten() {
            if let Err(bug) = task.await {
                error!(error = %bug, "a task ended in a bug");
            }
        }
        if let Some(rocks) = self.rocks {
            info!("writing what is pending and closing the store");
            let closing = tokio::task::spawn_blocking(move || rocks.close());
            if let Err(bug) = closing.await {
                error!(error = %bug, "the store could not be closed");
            }
        }
    }
}

impl NodeHandle {
    /// The broker.
    #[must_use]
    pub fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// Broker time.
    #[must_use]
    pub fn clock(&self) -> BrokerClock {
        self.clock
    }

    /// Its metrics.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Begins an orderly stop.
    pub fn stop(&self) {
        self.trigger.advance(Stage::Draining);
    }

    /// Stops at once.
    pub fn stop_now(&self) {
        self.trigger.advance(Stage::Stop);
    }

    /// Observes the shutdown.
    #[must_use]
    pub fn shutdown(&self) -> Shutdown {
        self.trigger.observe()
    }

    /// Reads certificates and users again. What can not be read stays as it was; returns what went
    /// wrong, in words.
    #[must_use]
    pub fn reload(&self) -> Vec<String> {
        let mut problems: Vec<_> = self
            .certificates
            .reload()
            .into_iter()
            .map(|(listener, error)| format!("listener `{listener}`: {error}"))
            .collect();
        if let Some(users) = &self.users
            && let Err(error) = users.reload()
        {
            problems.push(error.to_string());
        }
        problems
    }

    /// A connection of one of the broker's own parts: MQTT bytes within the process, served like
    /// any other, without authentication.
    #[must_use]
    pub fn connect_internal(&self, name: &str) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(INTERNAL_BYTES);
        let rules = ListenerRules {
            name: name.to_owned(),
            allow_anonymous: true,
            internal: true,
            ..ListenerRules::default()
        };
        let peer = Peer { address: None, listener: Arc::new(rules), certificate_name: None };
        let handler = self.handler.clone();
        tokio::spawn(handler.handle(theirs, peer, None));
        ours
    }

    /// The store on disk, unless the broker keeps everything in memory.
    #[must_use]
    pub fn rocks(&self) -> Option<&Arc<RocksStore>> {
        self.rocks.as_ref()
    }
}

struct OpenedStore {
    store: Arc<dyn Store>,
    loaded: Loaded,
    clock: BrokerClock,
    rocks: Option<Arc<RocksStore>>,
}

fn open_store(settings: &Settings) -> Result<OpenedStore, NodeError> {
    if settings.file.persistence.store == StoreKind::Memory {
        let (store, loaded, clock) = MemoryStore::open();
        return Ok(OpenedStore { store: Arc::new(store), loaded, clock, rocks: None });
    }
    let (rocks, loaded) = RocksStore::open(settings.store.clone())?;
    let rocks = Arc::new(rocks);
    let store = Arc::clone(&rocks) as Arc<dyn Store>;
    Ok(OpenedStore { store, loaded, clock: rocks.clock(), rocks: Some(rocks) })
}

/// Sessions that expire, wills that are due, and the limit of all queues together.
async fn keep_time(
    broker: Arc<Broker>,
    clock: BrokerClock,
    metrics: Metrics,
    total_queue_bytes: u64,
) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut count = 0_u64;
    let mut sweep = None;
    loop {
        ticks.tick().await;
        let mut effects = Effects::new();
        while broker.handle_timers(clock.now(), &mut effects) {
            tokio::task::yield_now().await;
        }
        sweep = broker.sweep_retained(sweep, clock.now(), &mut effects);
        tally::count(metrics.counters(), &mut effects.tally);
        count += 1;
        if count.is_multiple_of(4) {
            broker.check_total_queue_bytes(total_queue_bytes);
        }
    }
}

/// The `$SYS` topics, retained, at an interval; only what has changed.
async fn publish_sys(
    broker: Arc<Broker>,
    clock: BrokerClock,
    metrics: Metrics,
    period: Duration,
    durability: &'static str,
) {
    let started = Instant::now();
    let mut last = started;
    let mut topics = SysTopics::new();
    let mut effects = Effects::new();
    let version = concat!("petrel version ", env!("CARGO_PKG_VERSION"));
    for (topic, value) in [("version", version), ("petrel/durability", durability)] {
        let topic = format!("$SYS/broker/{topic}");
        broker.publish_internal(&topic, value.as_bytes(), Retain::Yes, clock.now(), &mut effects);
    }
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let sample = metrics.sample();
        let elapsed = last.elapsed();
        last = Instant::now();
        for (topic, value) in topics.update(&sample, elapsed, started.elapsed()) {
            let now = clock.now();
            broker.publish_internal(&topic, value.as_bytes(), Retain::Yes, now, &mut effects);
        }
        tally::count(metrics.counters(), &mut effects.tally);
    }
}

/// Sends the Clients away when the shutdown begins, and ends the wait for them in time.
async fn drain(
    broker: Arc<Broker>,
    health: Arc<Health>,
    mut shutdown: Shutdown,
    trigger: Arc<ShutdownTrigger>,
    grace: Duration,
) {
    shutdown.draining().await;
    health.advance(Phase::Draining);
    broker.begin_draining();
    broker.registry().for_each(|session| {
        let waker = session.outbound().signal();
        if let Some(waker) = waker {
            waker.wake();
        }
    });
    let in_time = tokio::time::timeout(grace, shutdown.stopped()).await;
    if in_time.is_err() {
        info!("the grace is over: what is still connected is cut");
        trigger.advance(Stage::Stop);
    }
}
