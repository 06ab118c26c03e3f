//! Carries out operator commands on this node.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::bridge::manager::{BridgeManager, Queue, ReloadReport};
use crate::config::bridge::{BridgeFile, BridgeSettings};
use crate::config::difference::changed_keys;
use crate::config::mistake::ConfigError;
use crate::config::settings::Settings;
use crate::control::command::{
    Answer, BridgeDetails, BrokerStatus, ClientSummary, Command, CommandError, CommandTarget,
    PAGE_SESSIONS_MAX, ProgressSender, Reply, SessionPage, SessionQuery, SessionSummary,
};
use crate::durable::message::Timestamp;
use crate::node::handle::NodeHandle;
use crate::packet::ProtocolVersion;
use crate::session::Session;

/// Rereads the configuration from its source.
pub type ReadAgain = Box<dyn Fn() -> Result<Settings, ConfigError> + Send + Sync>;

/// The target of operator commands.
pub(crate) struct NodeCommands {
    handle: NodeHandle,
    bridges: Arc<BridgeManager>,
    settings: Settings,
    read_again: ReadAgain,
    started: Instant,
}

impl NodeCommands {
    pub(super) fn new(
        handle: NodeHandle,
        bridges: Arc<BridgeManager>,
        settings: Settings,
        read_again: ReadAgain,
    ) -> Self {
        Self { handle, bridges, settings, read_again, started: Instant::now() }
    }

    fn status(&self) -> BrokerStatus {
        let sample = self.handle.metrics().sample();
        let gauges = &sample.gauges;
        let bridges = self.bridges.status();
        BrokerStatus {
            version: env!("CARGO_PKG_VERSION"),
            process: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
            clients_connected: gauges.clients_connected,
            sessions: gauges.clients_connected + gauges.clients_disconnected,
            subscriptions: gauges.subscriptions,
            retained_messages: gauges.retained_messages,
            queued_messages: gauges.queued_messages,
            queued_bytes: gauges.queued_bytes,
            inflight_messages: gauges.inflight_messages,
            publishes_received: sample.publishes.received,
            publishes_sent: sample.publishes.sent,
            dropped: sample.dropped,
            bridges: bridges.len(),
            bridges_connected: bridges.iter().filter(|bridge| bridge.connected).count(),
        }
    }

    /// A page of Sessions. It visits many Sessions, so it does not run on a thread that serves Clients.
    async fn sessions(&self, query: SessionQuery) -> Result<SessionPage, CommandError> {
        let broker = Arc::clone(self.handle.broker());
        let now = self.handle.clock().now();
        let page = spawn_blocking(move || {
            let limit = query.limit.clamp(1, PAGE_SESSIONS_MAX);
            let after = query.after.as_deref();
            let (sessions, next) = broker.registry().page(&query.prefix, after, limit);
            let sessions = sessions.iter().map(|session| summary(session, now)).collect();
            SessionPage { sessions, next: next.map(|next| next.to_string()) }
        });
        page.await.map_err(|bug| CommandError::Bug(bug.to_string()))
    }

    async fn backup(
        &self,
        directory: PathBuf,
        progress: ProgressSender,
    ) -> Result<Reply, CommandError> {
        let Some(store) = self.handle.upkeep().cloned() else {
            return Err(CommandError::StoreInMemory);
        };
        let copied = spawn_blocking(move || {
            store.back_up(&directory, &|done, total| {
                // If the caller is slower than the disk, it misses this report; the next one has more.
                let _late = progress.try_send((done, total));
            })
        });
        let copied = copied.await.map_err(|bug| CommandError::Bug(bug.to_string()))?;
        Ok(Reply::BackedUp(copied?))
    }

    /// Reloads everything that can change without a restart. Each part is separate: a mistake in one leaves only that
    /// one unchanged.
    async fn reload(&self) -> Result<ReloadReport, CommandError> {
        info!("reloading certificates, users, access rules and bridges");
        let handle = self.handle.clone();
        let mut problems = match spawn_blocking(move || handle.reload()).await {
            Ok(problems) => problems,
            Err(bug) => vec![bug.to_string()],
        };
        let mut report = ReloadReport::default();
        match (self.read_again)() {
            Ok(new) => {
                let keys = changed_keys(&self.settings.file, &new.file);
                if !keys.is_empty() {
                    warn!(
                        keys = keys.join(", "),
                        "the configuration has other changes, which need a restart"
                    );
                }
                report = self.bridges.reload(new.bridges).await;
                info!(?report, "bridges are up to date");
            }
            Err(error) => problems.push(error.to_string()),
        }
        if problems.is_empty() { Ok(report) } else { Err(CommandError::Reload(problems)) }
    }

    fn bridge(&self, name: &str) -> Result<BridgeDetails, CommandError> {
        let (status, settings, origin) = self.bridges.show(name)?;
        let rules = settings.rules.rules.iter().map(|rule| {
            format!(
                "{} <-> {} ({:?}, QoS {})",
                rule.local_filter, rule.remote_filter, rule.direction, rule.qos as u8
            )
        });
        Ok(BridgeDetails {
            status,
            origin,
            addresses: settings.addresses.iter().map(ToString::to_string).collect(),
            client_id: settings.client_id.clone(),
            topics: rules.collect(),
        })
    }
}

/// Reads the settings of a bridge as in the configuration file.
fn bridge_settings(text: &str) -> Result<BridgeSettings, CommandError> {
    let file: BridgeFile = toml::from_str(text)?;
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    Ok(BridgeSettings::check(&file, &host)?)
}

fn summary(session: &Session, now: Timestamp) -> SessionSummary {
    let outbound = session.outbound();
    let client = outbound.link().map(|link| ClientSummary {
        connected_seconds: now.since(link.since).as_secs(),
        address: link.origin.address(),
        listener: link.origin.listener().into(),
        protocol: match link.version {
            ProtocolVersion::V3_1 => "3.1",
            ProtocolVersion::V3_1_1 => "3.1.1",
            ProtocolVersion::V5_0 => "5.0",
        },
    });
    SessionSummary {
        client_id: session.client_id().to_string(),
        connected: client.is_some(),
        client,
        queue_messages: outbound.queue().message_count(),
        queue_bytes: outbound.queue().message_bytes(),
        inflight: outbound.inflight_count(),
        dropped: outbound.dropped_count(),
    }
}

impl CommandTarget for NodeCommands {
    fn handle(&self, command: Command, progress: ProgressSender) -> Answer<'_> {
        Box::pin(async move {
            Ok(match command {
                Command::Status => Reply::Status(Box::new(self.status())),
                Command::Sessions(query) => Reply::Sessions(self.sessions(query).await?),
                Command::Explain(query) => Reply::Explained(self.handle.explain(&query)?),
                Command::Reload => Reply::Reloaded(self.reload().await?),
                Command::Backup { directory } => self.backup(directory, progress).await?,
                Command::BridgeList => Reply::Bridges(self.bridges.status()),
                Command::BridgeShow { name } => Reply::Bridge(Box::new(self.bridge(&name)?)),
                Command::BridgeAdd { settings, replace: false } => {
                    self.bridges.add(bridge_settings(&settings)?).await?;
                    Reply::Done
                }
                Command::BridgeAdd { settings, replace: true } => {
                    self.bridges.add_or_change(bridge_settings(&settings)?).await;
                    Reply::Done
                }
                Command::BridgePause { name } => {
                    self.bridges.pause(&name)?;
                    Reply::Done
                }
                Command::BridgeResume { name } => {
                    self.bridges.resume(&name)?;
                    Reply::Done
                }
                Command::BridgeRemove { name, purge } => {
                    let queue = if purge { Queue::Purge } else { Queue::Keep };
                    self.bridges.remove(&name, queue).await?;
                    Reply::Done
                }
            })
        })
    }
}
