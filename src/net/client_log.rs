//! Log lines about Clients: connected, refused, disconnected and why, denied requests.
//!
//! One line each, at `info`, with the target `petrel::client`, so that `modules = { "petrel::client" = "warn" }` turns
//! them off. Their number is limited ([`LineBudget`]); text from Clients is escaped and truncated ([`shown`]).

use std::borrow::Cow;
use std::fmt;

use tracing::{Level, enabled, info};

use crate::broker::connection::ClientConnection;
use crate::broker::connection::remark::{Introduction, Remark};
use crate::metrics::counter::Counters;
use crate::net::client_text::shown;
use crate::net::line_budget::LineBudget;
use crate::packet::ProtocolVersion;

/// The target of the lines.
const TARGET: &str = "petrel::client";

/// Writes lines about the Clients of one broker.
#[derive(Debug)]
pub(crate) struct ClientLog {
    lines: LineBudget,
}

impl ClientLog {
    pub(crate) fn new(counters: Counters) -> Self {
        Self { lines: LineBudget::new(counters) }
    }

    /// Logs that a Client has connected.
    #[cold]
    pub(crate) fn connected(&self, connection: &ClientConnection, introduction: &Introduction) {
        if !self.writes(connection) {
            return;
        }
        info!(
            target: TARGET,
            client_id = &*client_id(connection),
            user = user(connection).as_deref(),
            address = connection.peer().address.map(tracing::field::display),
            listener = connection.peer().listener.name,
            version = version(connection.version()),
            keep_alive = introduction.keep_alive_seconds,
            clean_start = introduction.clean_start,
            session = if introduction.is_resumed { "resumed" } else { "new" },
            "connected"
        );
    }

    /// Logs that the Network Connection of a connected Client has ended.
    #[cold]
    pub(crate) fn disconnected(&self, connection: &ClientConnection, reason: &dyn fmt::Display) {
        if !self.writes(connection) {
            return;
        }
        info!(
            target: TARGET,
            client_id = &*client_id(connection),
            user = user(connection).as_deref(),
            address = connection.peer().address.map(tracing::field::display),
            listener = connection.peer().listener.name,
            reason = %reason,
            "disconnected"
        );
    }

    /// Logs that a CONNECT was refused, or that its Client disconnected before the answer.
    #[cold]
    pub(crate) fn refused(
        &self,
        connection: &ClientConnection,
        introduction: &Introduction,
        reason: &dyn fmt::Display,
    ) {
        if !self.writes(connection) {
            return;
        }
        info!(
            target: TARGET,
            client_id = &*shown(&introduction.client_id),
            user = introduction.user_name.as_deref().map(shown).as_deref(),
            address = connection.peer().address.map(tracing::field::display),
            listener = connection.peer().listener.name,
            version = version(connection.version()),
            reason = %reason,
            "not connected"
        );
    }

    /// Logs a Client that was closed before its CONNECT was understood.
    #[cold]
    pub(crate) fn stranger(&self, connection: &ClientConnection, reason: &dyn fmt::Display) {
        if !self.writes(connection) {
            return;
        }
        info!(
            target: TARGET,
            address = connection.peer().address.map(tracing::field::display),
            listener = connection.peer().listener.name,
            reason = %reason,
            "not connected"
        );
    }

    /// Logs what a connected Client was denied.
    #[cold]
    pub(crate) fn denied(&self, connection: &ClientConnection, remarks: Vec<Remark>) {
        for remark in remarks {
            if !self.writes(connection) {
                continue;
            }
            let (what, topic, reason) = match &remark {
                Remark::PublishDenied { topic, reason } => ("PUBLISH denied", topic, reason),
                Remark::SubscribeRefused { filter, reason } => {
                    ("SUBSCRIBE refused", filter, reason)
                }
            };
            info!(
                target: TARGET,
                client_id = &*client_id(connection),
                user = user(connection).as_deref(),
                topic = &*shown(topic),
                reason = ?reason,
                "{what}"
            );
        }
    }

    /// Whether to write a line: the target is enabled, the Client is not a part of the broker, and the budget is not
    /// spent.
    fn writes(&self, connection: &ClientConnection) -> bool {
        enabled!(target: TARGET, Level::INFO)
            && !connection.peer().listener.internal
            && self.lines.permit()
    }
}

fn client_id(connection: &ClientConnection) -> Cow<'_, str> {
    shown(connection.session().map_or("", |session| &**session.client_id()))
}

fn user(connection: &ClientConnection) -> Option<Cow<'_, str>> {
    connection.principal().user_name.as_deref().map(shown)
}

const fn version(version: ProtocolVersion) -> &'static str {
    match version {
        ProtocolVersion::V3_1 => "3.1",
        ProtocolVersion::V3_1_1 => "3.1.1",
        ProtocolVersion::V5_0 => "5.0",
    }
}
