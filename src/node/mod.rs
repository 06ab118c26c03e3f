//! One running broker: starts store, core, listeners, bridges, HTTP, control socket and timers from the settings, and stops
//! them in order.

pub(crate) mod bridges;
pub mod commands;
mod explain;
pub(crate) mod figures;
pub mod handle;
mod periodic;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rand::random;
use tokio::task::{JoinHandle, JoinSet};
use tracing::{error, info};

use crate::auth::authority::DefaultAuthority;
use crate::auth::rules::{RuleFormat, RulesError, RulesFile};
use crate::auth::users::{UsersError, UsersFile, UsersFormat};
use crate::bridge::manager::BridgeManager;
use crate::broker::Broker;
use crate::config::choice::StoreKind;
use crate::config::settings::{ListenAddress, Settings};
use crate::control::command::{CommandPort, CommandTarget};
use crate::control::server::{ControlError, ControlListener};
use crate::durable::Store;
use crate::durable::record::Loaded;
use crate::http::health::{Availability, Health};
use crate::http::{Exposure, HttpError, HttpListener};
use crate::metrics::Metrics;
use crate::net::accept::Listeners;
use crate::net::connection::MqttHandler;
use crate::net::listener::ListenError;
use crate::net::shutdown::{Shutdown, ShutdownTrigger, Stage};
use crate::node::bridges::{publish_bridges, start_bridges};
use crate::node::commands::{NodeCommands, ReadAgain};
use crate::node::figures::{BrokerFigures, StoreFigures};
use crate::node::handle::NodeHandle;
use crate::node::periodic::{keep_time, publish_sys};
use crate::store::clock::BrokerClock;
use crate::store::error::StoreError;
use crate::store::memory::MemoryStore;
use crate::store::rocks::RocksStore;
use crate::store::upkeep::Upkeep;

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
    /// The access rules could not be read, or have mistakes.
    #[error(transparent)]
    Rules(#[from] RulesError),
    /// The control socket could not be created.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The directory of the control socket could not be created.
    #[error("cannot create {path}: {source}", path = path.display())]
    ControlDirectory {
        /// The directory.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The bridges cannot save their state.
    #[error("cannot keep the state of the bridges in the data directory: {0}")]
    Bridges(io::Error),
}

/// A broker that is open and bound but does not serve yet.
pub struct Node {
    handle: NodeHandle,
    settings: Settings,
    health: Arc<Health>,
    listeners: Listeners,
    http: Option<JoinHandle<()>>,
    control: Option<ControlListener>,
    bridges: Arc<BridgeManager>,
    commands: Arc<CommandPort>,
    shutdown: Shutdown,
}

impl Node {
    /// Opens the store, loads the broker, binds every listener, and starts the bridges. Blocks while the store opens. A reload
    /// calls `read_again` for the configuration.
    ///
    /// # Errors
    /// [`NodeError`] names the part and the fix.
    pub async fn open(settings: Settings, read_again: ReadAgain) -> Result<Self, NodeError> {
        let users = open_users(&settings)?.map(Arc::new);
        let rules = open_rules(&settings)?.map(Arc::new);
        let metrics = Metrics::new();
        let health = Arc::new(Health::new());
        let commands = Arc::new(CommandPort::default());
        let listeners = Listeners::bind(&settings.listeners, settings.accept, &metrics)?;
        let (trigger, shutdown) = Shutdown::new();
        // Before the store is opened, so that `/ready` can report that it is starting.
        let http = match bind_http(&settings).await? {
            Some(listener) => {
                let (health, commands) = (Arc::clone(&health), Arc::clone(&commands));
                let run = listener.run(metrics.clone(), health, commands, shutdown.clone());
                Some(tokio::spawn(run))
            }
            None => None,
        };
        let OpenedStore { store, loaded, clock, upkeep } = open_store(&settings)?;
        let in_force = rules.as_ref().map(|file| Arc::clone(file.rules()));
        let authority = Arc::new(DefaultAuthority::new(users.clone()).with_rules(in_force));
        let limits = settings.limits.clone();
        let broker = Broker::new(limits, Arc::clone(&store), authority, loaded, random());
        broker.set_secret(random());
        let broker = Arc::new(broker);
        metrics.register(Arc::new(BrokerFigures::new(Arc::clone(&broker))));
        let durability = settings.limits.durability;
        metrics.register(Arc::new(StoreFigures::new(
            Arc::clone(&store),
            upkeep.clone(),
            durability,
        )));
        health.watch_store(store);
        let counters = metrics.counters().clone();
        let handler = MqttHandler::new(Arc::clone(&broker), clock, counters, shutdown.clone());
        let control = settings.control_socket.as_deref().map(bind_control).transpose()?;
        let handle = NodeHandle {
            broker,
            clock,
            upkeep,
            metrics,
            users,
            rules,
            certificates: listeners.certificates(),
            handler,
            trigger: Arc::new(trigger),
        };
        let is_kept = settings.file.persistence.store != StoreKind::Memory;
        let directory = is_kept.then_some(settings.data_dir.as_path());
        let bridges = start_bridges(&handle, directory, settings.bridges.clone())
            .map_err(NodeError::Bridges)?;
        let target =
            NodeCommands::new(handle.clone(), Arc::clone(&bridges), settings.clone(), read_again);
        commands.open(Arc::new(target));
        Ok(Self { handle, settings, health, listeners, http, control, bridges, commands, shutdown })
    }

    /// Where the listeners actually listen.
    #[must_use]
    pub fn addresses(&self) -> Vec<ListenAddress> {
        self.listeners.addresses()
    }

    /// A handle to this broker.
    #[must_use]
    pub fn handle(&self) -> NodeHandle {
        self.handle.clone()
    }

    /// The port for commands.
    #[must_use]
    pub fn commands(&self) -> Arc<CommandPort> {
        Arc::clone(&self.commands)
    }

    /// Serves until shutdown, drains for at most the configured grace period, and closes the store.
    pub async fn run(self) {
        let NodeHandle { broker, clock, metrics, handler, trigger, upkeep, .. } =
            self.handle.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(handler.clone().keep_time());
        let total = self.settings.limits.total_queue_bytes;
        tasks.spawn(keep_time(Arc::clone(&broker), clock, metrics.clone(), total));
        if let Some(period) = self.settings.sys_interval {
            let durability = self.settings.limits.durability.name();
            tasks.spawn(publish_sys(Arc::clone(&broker), clock, metrics, period, durability));
            let bridges = Arc::clone(&self.bridges);
            tasks.spawn(publish_bridges(self.handle.clone(), bridges, period));
        }
        if let Some(control) = self.control {
            tasks.spawn(control.run(self.commands as Arc<dyn CommandTarget>));
        }
        let leaving = Leaving {
            broker,
            bridges: self.bridges,
            health: Arc::clone(&self.health),
            shutdown: self.shutdown.clone(),
            trigger: Arc::clone(&trigger),
            grace: self.settings.shutdown_grace,
        };
        let leaving = tokio::spawn(leaving.run());
        self.health.advance(Availability::Serving);
        self.listeners.run(handler, self.shutdown.clone()).await;
        trigger.advance(Stage::Stop);
        tasks.shutdown().await;
        for task in [Some(leaving), self.http].into_iter().flatten() {
            if let Err(bug) = task.await {
                error!(error = %bug, "a task failed because of a bug");
            }
        }
        if let Some(store) = upkeep {
            info!("writing pending changes and closing the store");
            let closing = tokio::task::spawn_blocking(move || store.close());
            if let Err(bug) = closing.await {
                error!(error = %bug, "cannot close the store");
            }
        }
    }
}

async fn bind_http(settings: &Settings) -> Result<Option<HttpListener>, HttpError> {
    let Some(address) = settings.http_listen else { return Ok(None) };
    let exposure = match settings.file.http.allow_remote {
        true => Exposure::Remote,
        false => Exposure::Loopback,
    };
    HttpListener::bind(address, exposure).await.map(Some)
}

fn bind_control(path: &Path) -> Result<ControlListener, NodeError> {
    // A store in memory creates no data directory.
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)
            .map_err(|source| NodeError::ControlDirectory { path: directory.to_owned(), source })?;
    }
    Ok(ControlListener::bind(path)?)
}

fn open_users(settings: &Settings) -> Result<Option<UsersFile>, UsersError> {
    let own = settings.users_file.as_deref().map(|path| (path, UsersFormat::Petrel));
    let mosquitto = settings.password_file.as_deref().map(|path| (path, UsersFormat::Mosquitto));
    own.or(mosquitto).map(|(path, format)| UsersFile::open_as(format, path)).transpose()
}

fn open_rules(settings: &Settings) -> Result<Option<RulesFile>, RulesError> {
    let own = settings.rules_file.as_deref().map(|path| (path, RuleFormat::Petrel));
    let mosquitto = settings.acl_file.as_deref().map(|path| (path, RuleFormat::Mosquitto));
    own.or(mosquitto).map(|(path, format)| RulesFile::open(path, format)).transpose()
}

struct OpenedStore {
    store: Arc<dyn Store>,
    loaded: Loaded,
    clock: BrokerClock,
    upkeep: Option<Arc<dyn Upkeep>>,
}

fn open_store(settings: &Settings) -> Result<OpenedStore, NodeError> {
    if settings.file.persistence.store == StoreKind::Memory {
        let (store, loaded, clock) = MemoryStore::open();
        return Ok(OpenedStore { store: Arc::new(store), loaded, clock, upkeep: None });
    }
    let (rocks, loaded) = RocksStore::open(settings.store.clone())?;
    let rocks = Arc::new(rocks);
    let store = Arc::clone(&rocks) as Arc<dyn Store>;
    Ok(OpenedStore { store, loaded, clock: rocks.clock(), upkeep: Some(rocks) })
}

/// The shutdown of a running broker.
struct Leaving {
    broker: Arc<Broker>,
    bridges: Arc<BridgeManager>,
    health: Arc<Health>,
    shutdown: Shutdown,
    trigger: Arc<ShutdownTrigger>,
    grace: Duration,
}

impl Leaving {
    /// Runs the shutdown: stops bridges, disconnects Clients, and waits for them for a limited time.
    async fn run(mut self) {
        self.shutdown.reached(Stage::Leaving).await;
        // Bridges first, while their Sessions can still take the last acknowledgements.
        let goodbye = tokio::time::timeout(self.grace / 2, self.bridges.shut_down());
        tokio::select! {
            _in_time = goodbye => {}
            () = self.shutdown.stopped() => {}
        }
        self.trigger.advance(Stage::Draining);
        self.health.advance(Availability::Draining);
        self.broker.begin_draining();
        self.broker.registry().for_each(|session| {
            let waker = session.outbound().signal();
            if let Some(waker) = waker {
                waker.wake();
            }
        });
        let in_time = tokio::time::timeout(self.grace, self.shutdown.stopped()).await;
        if in_time.is_err() {
            info!("the grace period is over: closing the remaining connections");
            self.trigger.advance(Stage::Stop);
        }
    }
}
