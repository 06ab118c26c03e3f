//! Manages all bridges of a broker: starts, changes and stops them while the broker runs, without affecting each
//! other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::bridge::local::local_client_id;
use crate::bridge::memory::MemoryFile;
use crate::bridge::prepare::purge_sessions;
use crate::bridge::status::{BridgeStatus, Counters};
use crate::bridge::worker::{BridgeContext, Order, Worker};
use crate::config::bridge::BridgeSettings;

/// Where a bridge comes from: a reload of the configuration does not affect bridges added by command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Origin {
    /// `[[bridge]]` in the configuration.
    Configuration,
    /// `petrel ctl bridge add`; gone after a restart, though its queue is not.
    Command,
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    /// No such bridge.
    #[error("there is no bridge \"{0}\"")]
    Unknown(String),
    /// The name is taken.
    #[error("a bridge \"{0}\" already exists; use --replace to replace it")]
    Exists(String),
    /// The queue could not be removed.
    #[error("the bridge was removed, but its queue was not: {0}")]
    Purge(String),
}

/// What a reload did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ReloadReport {
    /// New bridges.
    pub(crate) added: Vec<String>,
    /// Restarted with other settings; their queues are kept.
    pub(crate) changed: Vec<String>,
    /// Removed; their queues stay until they are purged or the bridge comes back.
    pub(crate) removed: Vec<String>,
    /// Not affected.
    pub(crate) unchanged: Vec<String>,
}

/// What happens to the queue of a removed bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Queue {
    /// It stays and keeps filling.
    Keep,
    /// It is removed.
    Purge,
}

struct Entry {
    settings: Arc<BridgeSettings>,
    origin: Origin,
    counters: Arc<Counters>,
    orders: watch::Sender<Order>,
    task: JoinHandle<()>,
}

/// The bridges. Must be used within a tokio runtime.
pub(crate) struct BridgeManager {
    context: BridgeContext,
    bridges: Mutex<BTreeMap<String, Entry>>,
    /// Serialises changes.
    changes: tokio::sync::Mutex<()>,
}

/// How long a bridge may take to stop before it is aborted.
const STOP_PATIENCE: Duration = Duration::from_secs(6);

impl BridgeManager {
    /// Starts the bridges of a configuration.
    #[must_use]
    pub(crate) fn start(context: BridgeContext, all: Vec<BridgeSettings>) -> Arc<Self> {
        let manager = Self {
            context,
            bridges: Mutex::new(BTreeMap::new()),
            changes: tokio::sync::Mutex::new(()),
        };
        for settings in all {
            manager.spawn(settings, Origin::Configuration, Order::Automatic);
        }
        manager.judge_echoes();
        Arc::new(manager)
    }

    /// All bridges, by name.
    #[must_use]
    pub(crate) fn status(&self) -> Vec<BridgeStatus> {
        // Not under the lock: it asks the broker.
        let bridges = self.bridges.lock();
        let all: Vec<_> = bridges
            .iter()
            .map(|(name, entry)| (name.clone(), Arc::clone(&entry.counters)))
            .collect();
        drop(bridges);
        all.iter().map(|(name, counters)| self.status_of(name, counters)).collect()
    }

    /// One bridge: its status, its settings and where it comes from.
    ///
    /// # Errors
    /// [`ManagerError::Unknown`]
    pub(crate) fn show(
        &self,
        name: &str,
    ) -> Result<(BridgeStatus, Arc<BridgeSettings>, Origin), ManagerError> {
        let bridges = self.bridges.lock();
        let entry = bridges.get(name).ok_or_else(|| ManagerError::Unknown(name.to_owned()))?;
        let (counters, settings) = (Arc::clone(&entry.counters), Arc::clone(&entry.settings));
        let origin = entry.origin;
        drop(bridges);
        Ok((self.status_of(name, &counters), settings, origin))
    }

    /// The `$SYS` topics of all bridges.
    #[must_use]
    pub(crate) fn sys_topics(&self) -> Vec<(String, String)> {
        self.status().iter().flat_map(BridgeStatus::sys_topics).collect()
    }

    /// Adds a bridge by command.
    ///
    /// # Errors
    /// [`ManagerError::Exists`]
    pub(crate) async fn add(&self, settings: BridgeSettings) -> Result<(), ManagerError> {
        let _turn = self.changes.lock().await;
        if self.bridges.lock().contains_key(&settings.name) {
            return Err(ManagerError::Exists(settings.name));
        }
        self.replace(settings, Origin::Command).await;
        self.judge_echoes();
        Ok(())
    }

    /// Adds a bridge by command, or changes one and keeps its queue.
    pub(crate) async fn add_or_change(&self, settings: BridgeSettings) {
        let _turn = self.changes.lock().await;
        self.replace(settings, Origin::Command).await;
        self.judge_echoes();
    }

    /// Disconnects a bridge; its messages are queued.
    ///
    /// # Errors
    /// [`ManagerError::Unknown`]
    pub(crate) fn pause(&self, name: &str) -> Result<(), ManagerError> {
        self.order(name, Order::Pause)
    }

    /// Lets a paused bridge connect again, or a waiting one connect now.
    ///
    /// # Errors
    /// [`ManagerError::Unknown`]
    pub(crate) fn resume(&self, name: &str) -> Result<(), ManagerError> {
        self.order(name, Order::Start)
    }

    /// Ends a bridge.
    ///
    /// # Errors
    /// [`ManagerError::Unknown`], [`ManagerError::Purge`]
    pub(crate) async fn remove(&self, name: &str, queue: Queue) -> Result<(), ManagerError> {
        let _turn = self.changes.lock().await;
        let settings =
            self.end(name).await.ok_or_else(|| ManagerError::Unknown(name.to_owned()))?;
        self.forget_topics(&settings);
        self.judge_echoes();
        if queue == Queue::Keep {
            return Ok(());
        }
        let failed = |error: &dyn std::fmt::Display| ManagerError::Purge(error.to_string());
        purge_sessions(&*self.context.broker, &settings).await.map_err(|error| failed(&error))?;
        let file = MemoryFile::new(self.context.directory.as_deref(), name);
        file.remove().await.map_err(|error| failed(&error))
    }

    /// Applies a new configuration. Unchanged bridges are not affected, changed ones keep their queues.
    pub(crate) async fn reload(&self, all: Vec<BridgeSettings>) -> ReloadReport {
        let _turn = self.changes.lock().await;
        let mut report = ReloadReport::default();
        let configured: Vec<String> = {
            let bridges = self.bridges.lock();
            let mine = bridges.iter().filter(|(_, entry)| entry.origin == Origin::Configuration);
            mine.map(|(name, _)| name.clone()).collect()
        };
        for name in configured {
            if all.iter().all(|settings| settings.name != name) {
                if let Some(settings) = self.end(&name).await {
                    self.forget_topics(&settings);
                }
                report.removed.push(name);
            }
        }
        for settings in all {
            let name = settings.name.clone();
            let known = self.bridges.lock().get(&name).map(|entry| *entry.settings == settings);
            match known {
                Some(true) => report.unchanged.push(name),
                Some(false) => {
                    self.replace(settings, Origin::Configuration).await;
                    report.changed.push(name);
                }
                None => {
                    self.spawn(settings, Origin::Configuration, Order::Automatic);
                    report.added.push(name);
                }
            }
        }
        self.judge_echoes();
        report
    }

    /// Stops all bridges; their queues stay.
    pub(crate) async fn shut_down(&self) {
        let _turn = self.changes.lock().await;
        let bridges = std::mem::take(&mut *self.bridges.lock());
        for entry in bridges.values() {
            entry.orders.send_replace(Order::Stop);
        }
        for (name, entry) in bridges {
            finish(&name, entry.task).await;
        }
    }

    fn status_of(&self, name: &str, counters: &Counters) -> BridgeStatus {
        let queue = self.context.broker.queue_stats(&local_client_id(name, 0));
        counters.status(name, queue.unwrap_or_default())
    }

    fn order(&self, name: &str, order: Order) -> Result<(), ManagerError> {
        let bridges = self.bridges.lock();
        let entry = bridges.get(name).ok_or_else(|| ManagerError::Unknown(name.to_owned()))?;
        entry.orders.send_replace(order);
        Ok(())
    }

    fn spawn(&self, settings: BridgeSettings, origin: Origin, order: Order) {
        let settings = Arc::new(settings);
        let counters = Arc::new(Counters::default());
        let (orders, receiver) = watch::channel(order);
        let worker = Worker::new(
            Arc::clone(&settings),
            self.context.clone(),
            Arc::clone(&counters),
            receiver,
        );
        let task = tokio::spawn(worker.run());
        let name = settings.name.clone();
        let entry = Entry { settings, origin, counters, orders, task };
        self.bridges.lock().insert(name, entry);
    }

    /// A changed bridge stays paused if it was.
    async fn replace(&self, settings: BridgeSettings, origin: Origin) {
        let name = settings.name.clone();
        let order = self.bridges.lock().get(&name).map(|entry| *entry.orders.borrow());
        let ended = self.end(&name).await;
        if ended.is_some_and(|old| old.notification_topic != settings.notification_topic) {
            tracing::info!(bridge = %name, "the notification topic has changed");
        }
        self.spawn(settings, origin, order.unwrap_or(Order::Automatic));
    }

    async fn end(&self, name: &str) -> Option<Arc<BridgeSettings>> {
        let entry = self.bridges.lock().remove(name)?;
        entry.orders.send_replace(Order::Stop);
        finish(name, entry.task).await;
        Some(entry.settings)
    }

    /// Clears Retained Messages, so that a removed bridge does not appear to be alive.
    fn forget_topics(&self, settings: &BridgeSettings) {
        let broker = &self.context.broker;
        if settings.notifications {
            broker.publish_retained(&settings.notification_topic, b"");
        }
        let empty = Counters::default()
            .status(&settings.name, crate::bridge::status::QueueStats::default());
        for (topic, _) in empty.sys_topics() {
            broker.publish_retained(&topic, b"");
        }
    }

    /// Enables echo detection only if messages leave over a 3.x link. Echoes may arrive over another broker's bridge,
    /// so our rules do not tell whether they can.
    fn judge_echoes(&self) {
        let bridges = self.bridges.lock();
        let windows = bridges.values().map(|entry| entry.settings.outgoing_echo_window());
        self.context.echoes.set_window(windows.max().unwrap_or_default());
    }
}

async fn finish(name: &str, mut task: JoinHandle<()>) {
    if tokio::time::timeout(STOP_PATIENCE, &mut task).await.is_err() {
        tracing::warn!(bridge = name, "the bridge did not stop in time");
        task.abort();
    }
}
