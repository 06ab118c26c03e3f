//! Carries out the commands of `petrel ctl` on this node.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};

use crate::bridge::manager::{BridgeManager, ManagerError, Queue};
use crate::config::bridge::{BridgeFile, BridgeSettings};
use crate::control::protocol::Request;
use crate::control::server::{Answer, ControlTarget, Progress};
use crate::node::NodeHandle;

/// Reads again what SIGHUP reads again; returns what was done or what is wrong, in words.
pub type Reload = Box<dyn Fn() -> Answer<'static> + Send + Sync>;

/// A node as the control socket sees it.
pub struct NodeControl {
    handle: NodeHandle,
    bridges: Arc<BridgeManager>,
    host_name: String,
    started: Instant,
    reload: Reload,
}

impl NodeControl {
    /// `host_name` completes the client ids of bridges.
    #[must_use]
    pub fn new(
        handle: NodeHandle,
        bridges: Arc<BridgeManager>,
        host_name: String,
        reload: Reload,
    ) -> Self {
        Self { handle, bridges, host_name, started: Instant::now(), reload }
    }

    fn status(&self) -> Value {
        let sample = self.handle.metrics().sample();
        let gauges = &sample.gauges;
        let bridges = self.bridges.status();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "process": std::process::id(),
            "uptime_seconds": self.started.elapsed().as_secs(),
            "clients_connected": gauges.clients_connected,
            "sessions": gauges.clients_connected + gauges.clients_disconnected,
            "subscriptions": gauges.subscriptions,
            "retained_messages": gauges.retained_messages,
            "queued_messages": gauges.queued_messages,
            "queued_bytes": gauges.queued_bytes,
            "inflight_messages": gauges.inflight_messages,
            "publishes_received": sample.publishes.received,
            "publishes_sent": sample.publishes.sent,
            "dropped": sample.dropped,
            "bridges": bridges.len(),
            "bridges_connected": bridges.iter().filter(|bridge| bridge.connected).count(),
        })
    }

    fn sessions(&self, prefix: &str, limit: usize) -> Value {
        let mut rows = Vec::new();
        self.handle.broker().registry().for_each(|session| {
            if !session.client_id().starts_with(prefix) {
                return;
            }
            let outbound = session.outbound();
            rows.push((
                session.client_id().to_string(),
                outbound.is_open(),
                outbound.queue().message_count(),
                outbound.queue().message_bytes(),
                outbound.inflight_count(),
                outbound.dropped_count(),
            ));
        });
        rows.sort();
        rows.truncate(limit);
        let rows =
            rows.into_iter().map(|(client_id, connected, messages, bytes, inflight, dropped)| {
                json!({
                    "client_id": client_id,
                    "connected": connected,
                    "queue_messages": messages,
                    "queue_bytes": bytes,
                    "inflight": inflight,
                    "dropped": dropped,
                })
            });
        Value::Array(rows.collect())
    }

    async fn backup(&self, directory: PathBuf, progress: Progress) -> Result<Value, String> {
        let Some(rocks) = self.handle.rocks().cloned() else {
            return Err(
                "this broker keeps its store in memory: there is nothing to copy".to_owned()
            );
        };
        let copied = tokio::task::spawn_blocking(move || {
            rocks.backup(&directory, &|done, total| {
                // Whoever asked is slower than the disk: the next step tells more.
                let _late = progress.try_send((done, total));
            })
        });
        let copied = copied.await;
        let report = copied.map_err(|bug| bug.to_string())?.map_err(|error| error.to_string())?;
        Ok(json!({ "files": report.files, "bytes": report.bytes }))
    }

    async fn add(&self, text: &str, replace: bool) -> Result<Value, String> {
        let file: BridgeFile = toml::from_str(text).map_err(|error| error.to_string())?;
        let checked = BridgeSettings::check(&file, &self.host_name);
        let settings = checked.map_err(|error| error.to_string())?;
        self.bridges.add(settings, replace).await.map_err(|error| error.to_string())?;
        Ok(Value::Null)
    }

    fn show(&self, name: &str) -> Result<Value, String> {
        let (status, settings, origin) = self.bridges.show(name).map_err(|e| e.to_string())?;
        let mut shown = json!(status);
        if let Some(fields) = shown.as_object_mut() {
            fields.insert("origin".to_owned(), json!(origin));
            let addresses = settings.addresses.iter().map(ToString::to_string);
            fields.insert("addresses".to_owned(), addresses.collect());
            fields.insert("client_id".to_owned(), json!(settings.client_id));
            let rules = settings.rules.rules.iter().map(|rule| {
                format!(
                    "{} <-> {} ({:?}, QoS {})",
                    rule.local_filter, rule.remote_filter, rule.direction, rule.qos as u8
                )
            });
            fields.insert("topics".to_owned(), rules.collect());
        }
        Ok(shown)
    }
}

impl ControlTarget for NodeControl {
    fn handle(&self, request: Request, progress: Progress) -> Answer<'_> {
        let done = |result: Result<(), ManagerError>| match result {
            Ok(()) => Ok(Value::Null),
            Err(error) => Err(error.to_string()),
        };
        Box::pin(async move {
            match request {
                Request::Status => Ok(self.status()),
                Request::Sessions { prefix, limit } => Ok(self.sessions(&prefix, limit)),
                Request::Reload => (self.reload)().await,
                Request::Backup { directory } => self.backup(directory, progress).await,
                Request::BridgeList => Ok(json!(self.bridges.status())),
                Request::BridgeShow { name } => self.show(&name),
                Request::BridgeAdd { settings, replace } => self.add(&settings, replace).await,
                Request::BridgePause { name } => done(self.bridges.pause(&name)),
                Request::BridgeResume { name } => done(self.bridges.resume(&name)),
                Request::BridgeRemove { name, purge } => {
                    let queue = if purge { Queue::Purge } else { Queue::Keep };
                    done(self.bridges.remove(&name, queue).await)
                }
            }
        })
    }
}
