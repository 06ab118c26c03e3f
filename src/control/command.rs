//! Commands to a running broker and their replies: one typed interface for the control socket, HTTP and tests.
//!
//! The node implements [`CommandTarget`]. Callers hold a [`CommandPort`], which exists before the broker is open:
//! commands that arrive too early are refused with [`CommandError::Starting`].

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::bridge::manager::{ManagerError, Origin, ReloadReport};
use crate::bridge::status::BridgeStatus;
use crate::config::bridge::BridgeError;
use crate::store::backup::BackupReport;
use crate::store::error::StoreError;

/// A command.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// The state of the broker.
    Status,
    /// A page of its Sessions.
    Sessions(SessionQuery),
    /// Whether a Client may do something, and which access rule says so.
    Explain(ExplainQuery),
    /// Reload certificates, users, access rules and bridges, as SIGHUP does.
    Reload,
    /// Back up the store of the running broker.
    Backup {
        /// The backup directory, as the broker sees it.
        directory: PathBuf,
    },
    /// All bridges.
    BridgeList,
    /// One bridge.
    BridgeShow {
        /// Its name.
        name: String,
    },
    /// Add or replace a bridge.
    BridgeAdd {
        /// The TOML of one `[[bridge]]`, without the header line.
        settings: String,
        /// Whether to replace an existing bridge.
        #[serde(default)]
        replace: bool,
    },
    /// Disconnect a bridge.
    BridgePause {
        /// Its name.
        name: String,
    },
    /// Connect a bridge.
    BridgeResume {
        /// Its name.
        name: String,
    },
    /// Remove a bridge.
    BridgeRemove {
        /// Its name.
        name: String,
        /// Whether to drop its queue.
        #[serde(default)]
        purge: bool,
    },
}

/// Which Sessions to return.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionQuery {
    /// Only those whose Client Identifier begins with this.
    pub prefix: String,
    /// Only those after this position: [`SessionPage::next`] of the previous page.
    pub after: Option<String>,
    /// At most this many, and never more than [`PAGE_SESSIONS_MAX`].
    pub limit: usize,
}

/// What to explain.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainQuery {
    /// The user; none: an anonymous Client.
    #[serde(default)]
    pub user_name: Option<String>,
    /// The Client Identifier.
    pub client_id: String,
    /// What the Client wants to do.
    pub operation: AskedOperation,
    /// With which topic or filter.
    pub topic: String,
    /// The QoS of the message or of the Subscription.
    #[serde(default)]
    pub qos: u8,
    /// Whether the message is retained.
    #[serde(default)]
    pub retain: bool,
}

/// An operation that is explained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AskedOperation {
    /// Publish to a topic.
    Publish,
    /// Receive messages of a topic.
    Receive,
    /// Subscribe to a filter.
    Subscribe,
    /// Unsubscribe from a filter.
    Unsubscribe,
}

/// The most Sessions in one page.
pub const PAGE_SESSIONS_MAX: usize = 1000;

impl Default for SessionQuery {
    fn default() -> Self {
        Self { prefix: String::new(), after: None, limit: PAGE_SESSIONS_MAX }
    }
}

/// The reply to a command.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Reply {
    /// The command succeeded and has no result.
    Done,
    /// The state of the broker.
    Status(Box<BrokerStatus>),
    /// Sessions.
    Sessions(SessionPage),
    /// What a Client may do.
    Explained(ExplainedAccess),
    /// What a reload changed.
    Reloaded(ReloadReport),
    /// The size of the backup.
    BackedUp(BackupReport),
    /// All bridges.
    Bridges(Vec<BridgeStatus>),
    /// One bridge.
    Bridge(Box<BridgeDetails>),
}

/// The state of the broker.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BrokerStatus {
    pub(crate) version: &'static str,
    pub(crate) process: u32,
    pub(crate) uptime_seconds: u64,
    pub(crate) clients_connected: u64,
    pub(crate) sessions: u64,
    pub(crate) subscriptions: u64,
    pub(crate) retained_messages: u64,
    pub(crate) queued_messages: u64,
    pub(crate) queued_bytes: u64,
    pub(crate) inflight_messages: u64,
    pub(crate) publishes_received: u64,
    pub(crate) publishes_sent: u64,
    pub(crate) dropped: u64,
    pub(crate) bridges: usize,
    pub(crate) bridges_connected: usize,
}

/// A page of Sessions, in the order of the registry: a Session that exists during the whole listing is on exactly one
/// page.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct SessionPage {
    /// The Sessions.
    pub sessions: Vec<SessionSummary>,
    /// Where the next page begins; `None` for the last page.
    pub next: Option<String>,
}

/// One Session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SessionSummary {
    /// Client Identifier.
    pub client_id: String,
    /// Whether its Client is connected.
    pub(crate) connected: bool,
    /// The Client, if it is.
    #[serde(flatten)]
    pub client: Option<ClientSummary>,
    /// Queued messages.
    pub(crate) queue_messages: u64,
    /// Their bytes.
    pub(crate) queue_bytes: u64,
    /// Messages sent and not acknowledged.
    pub(crate) inflight: u32,
    /// Messages dropped.
    pub(crate) dropped: u64,
}

/// A connected Client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClientSummary {
    /// How long it has been connected.
    pub(crate) connected_seconds: u64,
    /// Its address; `None` for a Unix socket or a connection within the process.
    pub address: Option<SocketAddr>,
    /// The listener it connected to.
    pub listener: Arc<str>,
    /// Its protocol version: `3.1`, `3.1.1` or `5.0`.
    pub protocol: &'static str,
}

/// One bridge.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BridgeDetails {
    /// How it is.
    #[serde(flatten)]
    pub(crate) status: BridgeStatus,
    /// Where its settings come from.
    pub(crate) origin: Origin,
    /// The addresses of the remote broker.
    pub(crate) addresses: Vec<String>,
    /// Its Client Identifier there.
    pub(crate) client_id: String,
    /// Its rules.
    pub(crate) topics: Vec<String>,
}

/// Whether a Client may do something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExplainedAccess {
    /// Whether it may.
    pub(crate) allowed: bool,
    /// Why, in plain words.
    pub(crate) reason: String,
    /// File and line of the rule that decides, if there is one.
    pub(crate) rule: Option<String>,
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The store is not open yet.
    #[error("the broker is starting")]
    Starting,
    /// There is nothing to back up.
    #[error("this broker keeps its store in memory: there is nothing to back up")]
    StoreInMemory,
    /// A topic is not one.
    #[error("{topic:?} cannot be used here: {problem}")]
    Topic {
        /// The topic.
        topic: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The backup failed.
    #[error(transparent)]
    Backup(#[from] StoreError),
    /// A bridge does not exist, or exists already.
    #[error(transparent)]
    Bridge(#[from] ManagerError),
    /// The settings of a bridge are not TOML, or have unknown keys.
    #[error(transparent)]
    BridgeText(#[from] toml::de::Error),
    /// The settings of a bridge have a mistake.
    #[error(transparent)]
    BridgeSettings(#[from] BridgeError),
    /// Parts that could not be reloaded; they stay unchanged.
    #[error("{}", .0.join("; "))]
    Reload(Vec<String>),
    /// A task panicked.
    #[error("a bug: {0}")]
    Bug(String),
}

/// Reports the progress of a long command: amount done, and total.
pub(crate) type ProgressSender = mpsc::Sender<(u64, u64)>;

/// A command in progress.
pub(crate) type Answer<'a> = Pin<Box<dyn Future<Output = Result<Reply, CommandError>> + Send + 'a>>;

/// Carries out commands.
pub(crate) trait CommandTarget: Send + Sync {
    /// Carries out a command.
    fn handle(&self, command: Command, progress: ProgressSender) -> Answer<'_>;
}

/// Accepts commands. Created before the broker is open.
#[derive(Default)]
pub struct CommandPort(OnceLock<Arc<dyn CommandTarget>>);

impl CommandPort {
    /// Sets the target that carries out commands. A second target is ignored.
    pub(crate) fn open(&self, target: Arc<dyn CommandTarget>) {
        let _first_stays = self.0.set(target);
    }

    /// Carries out a command without progress reports.
    ///
    /// # Errors
    /// [`CommandError`]
    pub async fn ask(&self, command: Command) -> Result<Reply, CommandError> {
        let (progress, _nobody_watches) = mpsc::channel(1);
        self.handle(command, progress).await
    }
}

impl CommandTarget for CommandPort {
    fn handle(&self, command: Command, progress: ProgressSender) -> Answer<'_> {
        match self.0.get() {
            Some(target) => target.handle(command, progress),
            None => Box::pin(std::future::ready(Err(CommandError::Starting))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_comes_too_early_is_refused_by_name() {
        let port = CommandPort::default();
        assert!(matches!(port.ask(Command::Status).await, Err(CommandError::Starting)));
    }

    #[test]
    fn commands_are_plain_json() {
        let command: Command =
            serde_json::from_str(r#"{"command":"bridge-remove","name":"cloud"}"#).unwrap();
        assert_eq!(command, Command::BridgeRemove { name: "cloud".into(), purge: false });
        assert!(serde_json::from_str::<Command>(r#"{"command":"explode"}"#).is_err());
        assert_eq!(serde_json::to_string(&Command::Status).unwrap(), r#"{"command":"status"}"#);
        let command: Command =
            serde_json::from_str(r#"{"command":"sessions","prefix":"a"}"#).unwrap();
        let query = SessionQuery { prefix: "a".into(), ..SessionQuery::default() };
        assert_eq!(command, Command::Sessions(query));
    }
}
