//! The task of one bridge: decides when and where to connect, and handles failures. [`crate::bridge::relay`] handles
//! the messages.

mod concessions;
mod connect;
mod schedule;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::bridge::backoff::Backoff;
use crate::bridge::error::LinkError;
use crate::bridge::link::Link;
use crate::bridge::local::{LocalBroker, local_client_id};
use crate::bridge::loop_guard::EchoGuard;
use crate::bridge::memory::{BridgeMemory, MemoryFile, RememberedBit};
use crate::bridge::prepare::prepare_session;
use crate::bridge::relay::{EchoAccount, LanePlan, Unproven};
use crate::bridge::status::{BridgeState, Counters};
use crate::config::bridge::{BridgeSettings, StartType};
use crate::dial::address::Address;
use crate::dial::connect::DialStage;
use crate::packet::ProtocolVersion;
use concessions::{Asked, Concessions};
use schedule::{AddressCursor, Reached};

/// The context shared by all bridges of a broker.
#[derive(Clone)]
pub(crate) struct BridgeContext {
    /// The broker they belong to.
    pub(crate) broker: Arc<dyn LocalBroker>,
    /// Its name in hop trails: unique, and the same after a restart.
    pub(crate) broker_id: Arc<str>,
    /// Where bridges save their state; `None` in tests.
    pub(crate) directory: Option<PathBuf>,
    /// Recognises echoes on 3.x links.
    pub(crate) echoes: Arc<EchoGuard>,
}

/// An order to the bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Follow the start type.
    Automatic,
    /// Connect now, whatever the start type.
    Start,
    /// Disconnect and stay disconnected; messages are queued.
    Pause,
    /// End the task.
    Stop,
}

/// How long messages in flight get to be acknowledged when a link is closed on purpose.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// The task.
pub(crate) struct Worker {
    settings: Arc<BridgeSettings>,
    context: BridgeContext,
    counters: Arc<Counters>,
    orders: watch::Receiver<Order>,
    file: MemoryFile,
    memory: BridgeMemory,
    backoff: Backoff,
    cursor: AddressCursor,
    concessions: Concessions,
    /// Expected echoes from the remote broker.
    account: Arc<Mutex<EchoAccount>>,
    /// Messages of the last link that may not have arrived.
    unproven: Unproven,
    /// Whether there was a link in this process: then all changes of Retained Messages since are known.
    had_link: bool,
    /// When the current link was opened.
    opened_at: Option<Instant>,
    /// The Subscriptions of the remote Sessions in this process, and the address.
    subscribed: Option<(String, Vec<LanePlan>)>,
    /// Whether a bridge of start type `once` has had its turn.
    had_its_turn: bool,
    last_warning: String,
    name: Arc<str>,
}

/// Why an attempt or a link ended.
enum Ended {
    /// It failed.
    Failed(LinkError),
    /// There was another order.
    Ordered,
    /// A lazy bridge had nothing to do.
    WasIdle,
    /// The first address answers again.
    PrimaryIsBack,
    /// The remote broker refused an optional feature; retry at once without it.
    Conceded,
}

impl Worker {
    /// Creates a bridge that has not started.
    #[must_use]
    pub(crate) fn new(
        settings: Arc<BridgeSettings>,
        context: BridgeContext,
        counters: Arc<Counters>,
        orders: watch::Receiver<Order>,
    ) -> Self {
        Self {
            file: MemoryFile::new(context.directory.as_deref(), &settings.name),
            memory: BridgeMemory::default(),
            backoff: Backoff::new(settings.backoff_min, settings.backoff_max),
            cursor: AddressCursor::new(&settings, Instant::now()),
            concessions: Concessions::new(Asked {
                bridge_bit: settings.private && settings.protocol < ProtocolVersion::V5_0,
                notifications: settings.notifications && !settings.notifications_local_only,
            }),
            account: Arc::default(),
            unproven: Unproven::default(),
            had_link: false,
            opened_at: None,
            subscribed: None,
            had_its_turn: false,
            last_warning: String::new(),
            name: settings.name.as_str().into(),
            settings,
            context,
            counters,
            orders,
        }
    }

    /// Runs until [`Order::Stop`].
    pub(crate) async fn run(mut self) {
        self.memory = self.file.read().await;
        self.notify_locally(b"0");
        while !self.prepare().await {
            if !self.pause().await {
                return self.counters.set_state(BridgeState::Stopped, SystemTime::now());
            }
        }
        self.backoff.reset();
        while self.wait_until_due().await {
            let started = Instant::now();
            let ended = self.attempt().await;
            self.had_its_turn = true;
            self.handle_end(ended, started).await;
        }
        self.counters.set_state(BridgeState::Stopped, SystemTime::now());
    }

    /// Creates the local Session before the remote broker is reached.
    async fn prepare(&mut self) -> bool {
        if self.settings.local_clean_start {
            return true;
        }
        match prepare_session(&*self.context.broker, &self.settings).await {
            Ok(true) => {}
            Ok(false) => {
                self.memory = BridgeMemory { is_fresh: true, ..BridgeMemory::default() };
                self.remember().await;
            }
            Err(error) => {
                self.report(&error);
                return false;
            }
        }
        true
    }

    /// Local filters of earlier configurations.
    fn stale_filters(&self) -> Vec<String> {
        let client_id = local_client_id(&self.settings.name, 0);
        let known = self.context.broker.subscriptions(&client_id);
        let known = known.unwrap_or_else(|| self.memory.local_filters.clone());
        let wanted = self.settings.rules.local_filters();
        known.into_iter().filter(|filter| wanted.iter().all(|(other, _)| other != filter)).collect()
    }

    /// One attempt and, if it succeeds, the link until it ends.
    async fn attempt(&mut self) -> Ended {
        let address = self.cursor.current(&self.settings).clone();
        self.counters.set_address(address.to_string());
        self.counters.set_state(BridgeState::Connecting, SystemTime::now());
        let mut orders = self.orders.clone();
        let mut link = match self.connect(&address, &mut orders).await {
            Ok(link) => link,
            Err(ended) => return ended,
        };
        if let Err(ended) = self.open(&mut link, &mut orders).await {
            return ended;
        }
        self.opened(&address.to_string()).await;
        let ended = self.serve(&mut link, &mut orders).await;
        self.notify_locally(b"0");
        self.unproven = match ended {
            Ended::Failed(_) => link.salvage(),
            _ => {
                let farewell = self.concessions.asked().notifications;
                let topic = self.settings.notification_topic.clone();
                link.close(CLOSE_PATIENCE, farewell.then_some((topic.as_str(), b"0"))).await
            }
        };
        self.counters.set_loops(0, None);
        ended
    }

    /// The connections to both brokers.
    async fn connect(
        &mut self,
        address: &Address,
        orders: &mut watch::Receiver<Order>,
    ) -> Result<Link, Ended> {
        let stage = DialStage::default();
        let limit = self.settings.connect_timeout;
        let connecting = tokio::time::timeout(limit, self.open_link(address, &stage));
        let connected = tokio::select! {
            done = connecting => done.unwrap_or(Err(LinkError::TimedOut { stage: stage.name() })),
            _ = orders.changed() => return Err(Ended::Ordered),
        };
        connected.map_err(|error| {
            let bit = self.remembered_bit(&address.to_string());
            match self.concessions.refused(&error, bit) {
                true => self.concede(&error),
                false => Ended::Failed(error),
            }
        })
    }

    /// The opening of the link: subscriptions on both sides.
    async fn open(
        &mut self,
        link: &mut Link,
        orders: &mut watch::Receiver<Order>,
    ) -> Result<(), Ended> {
        let opened = tokio::select! {
            opened = link.run() => opened,
            _ = orders.changed() => Err(LinkError::Asked("another order")),
        };
        let Err(error) = opened else { return Ok(()) };
        let is_refusal = link.relay().is_announcing() && error.is_the_remote_end();
        self.unproven = link.relay().take_unproven();
        Err(match error {
            LinkError::Asked(_) => Ended::Ordered,
            error if is_refusal && self.concessions.refused_notification() => self.concede(&error),
            error => Ended::Failed(error),
        })
    }

    /// Not logged as a failure, because the attempt is repeated at once without the feature.
    fn concede(&self, error: &LinkError) -> Ended {
        tracing::debug!(bridge = %self.name, %error, "retrying without a refused feature");
        Ended::Conceded
    }

    fn remembered_bit(&self, address: &str) -> RememberedBit {
        self.memory.bit(address, unix_seconds())
    }

    /// The opening is complete.
    async fn opened(&mut self, address: &str) {
        let plans = self.plans(address);
        address.clone_into(&mut self.memory.address);
        self.memory.is_fresh = false;
        let filters = self.settings.rules.local_filters();
        self.memory.local_filters = filters.into_iter().map(|(filter, _)| filter).collect();
        let of_lane =
            |plan: &LanePlan| plan.subscribe.iter().map(|(filter, _)| filter.clone()).collect();
        self.memory.remote_filters = plans.iter().map(of_lane).collect();
        self.subscribed = Some((address.to_owned(), plans));
        self.note_concessions(address);
        self.remember().await;
        self.last_warning.clear();
        self.had_link = true;
        self.opened_at = Some(Instant::now());
        self.counters.set_state(BridgeState::Connected, SystemTime::now());
        tracing::info!(bridge = %self.name, address, "bridge connected");
        self.notify_locally(b"1");
    }

    fn note_concessions(&mut self, address: &str) {
        if self.concessions.lacks_bit() && self.remembered_bit(address) == RememberedBit::Unknown {
            let news = "the remote broker does not accept the bridge bit; continuing without it";
            tracing::info!(bridge = %self.name, address, "{news}");
            self.memory.note_bit(address, Some(unix_seconds()));
        } else if self.concessions.asked().bridge_bit {
            self.memory.note_bit(address, None);
        }
        for news in self.concessions.accepted() {
            tracing::warn!(bridge = %self.name, address, "{news}");
        }
    }

    /// Runs the link until it ends.
    async fn serve(&mut self, link: &mut Link, orders: &mut watch::Receiver<Order>) -> Ended {
        let mut idle = schedule::IdleWatch::new(
            &self.settings,
            *orders.borrow(),
            &self.counters,
            Instant::now(),
        );
        loop {
            let next_look = idle.next_look().min(self.cursor.next_probe(&self.settings));
            tokio::select! {
                ended = link.run() => match ended {
                    Ok(()) => {}
                    Err(error) => return Ended::Failed(error),
                },
                _ = orders.changed() => {
                    let order = *orders.borrow();
                    if matches!(order, Order::Pause | Order::Stop) {
                        return Ended::Ordered;
                    }
                }
                () = tokio::time::sleep_until(next_look.into()) => {
                    let now = Instant::now();
                    if idle.is_over(&self.settings, &self.counters, now) {
                        return Ended::WasIdle;
                    }
                    if self.cursor.next_probe(&self.settings) <= now {
                        // In parallel to the link.
                        self.cursor.start_probe(&self.settings, now);
                    }
                }
                is_back = self.cursor.probed() => {
                    if is_back {
                        return Ended::PrimaryIsBack;
                    }
                }
            }
        }
    }

    /// Handles the end of an attempt or link, and pauses if necessary.
    async fn handle_end(&mut self, ended: Ended, started: Instant) {
        let lasted = started.elapsed();
        let was_stable =
            self.counters.state() == BridgeState::Connected && lasted >= self.settings.stable_after;
        match ended {
            Ended::Ordered => self.backoff.reset(),
            Ended::WasIdle => tracing::info!(bridge = %self.name, "lazy bridge is idle"),
            Ended::PrimaryIsBack => {
                tracing::info!(bridge = %self.name, "returning to the first address");
                self.cursor.return_to_primary(Instant::now());
            }
            Ended::Conceded => {}
            Ended::Failed(error) => {
                self.report(&error);
                if let Some(opened) = self.opened_at.take()
                    && error.is_the_remote_end()
                {
                    let address = self.cursor.current(&self.settings).to_string();
                    let bit = self.remembered_bit(&address);
                    self.concessions.ended(opened.elapsed(), bit);
                }
                let was_connected = self.counters.state() == BridgeState::Connected;
                if was_stable {
                    self.backoff.reset();
                }
                let reached = match (was_connected, was_stable) {
                    (false, _) => Reached::Nothing,
                    (true, false) => Reached::Connection,
                    (true, true) => Reached::Stability,
                };
                let all_tried = self.cursor.failed(&self.settings, reached);
                let once = self.settings.start == StartType::Once;
                if once && *self.orders.borrow() == Order::Automatic {
                    tracing::warn!(bridge = %self.name, "start type once: not connecting again");
                } else if all_tried || was_connected {
                    self.pause().await;
                }
            }
        }
    }

    /// Waits before the next attempt; false if the task must end. Another order cuts it short.
    async fn pause(&mut self) -> bool {
        if *self.orders.borrow() == Order::Stop {
            return false;
        }
        self.counters.set_state(BridgeState::Waiting, SystemTime::now());
        let pause = self.backoff.next(rand::random::<f64>());
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            changed = self.orders.changed() => {
                if changed.is_err() {
                    return false;
                }
            }
        }
        *self.orders.borrow() != Order::Stop
    }

    /// Logs an error when it is new, so that a remote broker that is away for a day does not fill the log.
    fn report(&mut self, error: &LinkError) {
        let text = error.to_string();
        if text == self.last_warning {
            tracing::debug!(bridge = %self.name, error = %text, "bridge is not connected");
        } else {
            tracing::warn!(bridge = %self.name, error = %text, "bridge is not connected");
        }
        self.last_warning.clone_from(&text);
        self.counters.set_error(text, SystemTime::now());
    }

    async fn remember(&self) {
        if let Err(error) = self.file.write(&self.memory).await {
            tracing::warn!(bridge = %self.name, %error, "cannot save the state of the bridge");
        }
    }

    fn notify_locally(&self, state: &[u8]) {
        if self.settings.notifications {
            self.context.broker.publish_retained(&self.settings.notification_topic, state);
        }
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
