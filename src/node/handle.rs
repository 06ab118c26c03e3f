//! A handle to a running broker, for its parts and for whoever started it.

use std::sync::Arc;

use tokio::io::DuplexStream;
use tracing::info;

use crate::access::{ListenerRules, Peer};
use crate::auth::rules::RulesFile;
use crate::auth::users::UsersFile;
use crate::broker::Broker;
use crate::metrics::Metrics;
use crate::metrics::counter::Counter;
use crate::net::accept::{Certificates, Handler};
use crate::net::connection::MqttHandler;
use crate::net::shutdown::{Shutdown, ShutdownTrigger, Stage};
use crate::session::policies::Policies;
use crate::store::clock::BrokerClock;
use crate::store::upkeep::Upkeep;

/// Buffer size, in each direction, of a connection within the process.
const INTERNAL_BYTES: usize = 256 * 1024;

/// A handle to a running broker. Cheap to clone.
#[derive(Clone)]
pub struct NodeHandle {
    pub(super) broker: Arc<Broker>,
    pub(super) clock: BrokerClock,
    pub(super) upkeep: Option<Arc<dyn Upkeep>>,
    pub(super) metrics: Metrics,
    pub(super) users: Option<Arc<UsersFile>>,
    pub(super) rules: Option<Arc<RulesFile>>,
    pub(super) certificates: Certificates,
    pub(super) handler: MqttHandler,
    pub(super) trigger: Arc<ShutdownTrigger>,
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
        self.trigger.advance(Stage::Leaving);
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

    /// Reloads certificates, users and access rules. Parts that cannot be read stay unchanged; returns the error messages.
    #[must_use]
    pub(crate) fn reload(&self) -> Vec<String> {
        let mut problems: Vec<_> = self
            .certificates
            .reload()
            .into_iter()
            .map(|(listener, error)| format!("listener `{listener}`: {error}"))
            .collect();
        match self.users.as_ref().map(|users| users.reload()) {
            Some(Ok(0)) | None => {}
            Some(Ok(changed)) => {
                info!(changed, "users were changed or removed: disconnecting their clients");
                self.broker.handle_access_change();
            }
            Some(Err(error)) => problems.push(error.to_string()),
        }
        match self.rules.as_ref().map(|rules| rules.reload()) {
            Some(Ok(false)) | None => {}
            Some(Ok(true)) => {
                info!("access rules have changed, and are in force");
                self.broker.handle_access_change();
            }
            Some(Err(error)) => problems.push(format!("the old access rules stay: {error}")),
        }
        self.metrics.counters().local().add(Counter::ReloadProblems, problems.len() as u64);
        problems
    }

    /// Opens a connection for a part of the broker: MQTT within the process, served like any other connection,
    /// without authentication.
    #[must_use]
    pub(crate) fn connect_internal(&self, name: &str, policies: Policies) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(INTERNAL_BYTES);
        let rules = ListenerRules {
            name: name.to_owned(),
            allow_anonymous: true,
            policies,
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
    pub(crate) fn upkeep(&self) -> Option<&Arc<dyn Upkeep>> {
        self.upkeep.as_ref()
    }
}
