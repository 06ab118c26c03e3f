//! The interface of a bridge to its local broker. The broker implements it; tests substitute another broker.

use std::future::Future;
use std::io;
use std::pin::Pin;

use crate::bridge::loop_guard::Origin;
use crate::bridge::status::QueueStats;
use crate::config::bridge::QueueLimits;
use crate::dial::stream::BoxStream;
use crate::packet::subscribe::SubscriptionOptions;
use crate::session::policies::Policies;

/// A connection being established.
pub(crate) type Connecting<'a> = Pin<Box<dyn Future<Output = io::Result<BoxStream>> + Send + 'a>>;

/// Prefix of the client ids of bridges, reserved for them.
pub(crate) const CLIENT_ID_PREFIX: &str = "$bridge/";

/// Client id of a bridge at its local broker. Lane 0 has the queue; other lanes only publish messages.
#[must_use]
pub(crate) fn local_client_id(bridge: &str, lane: usize) -> String {
    match lane {
        0 => format!("{CLIENT_ID_PREFIX}{bridge}"),
        lane => format!("{CLIENT_ID_PREFIX}{bridge}/{lane}"),
    }
}

/// The local broker as a bridge sees it.
///
/// Beyond MQTT, a bridge relies on two guarantees: its Session sends a message again with the same Packet Identifier,
/// even after a restart; and a QoS 2 message that was sent once is not dropped before its exchange has ended.
pub(crate) trait LocalBroker: Send + Sync {
    /// Opens a connection that needs no authentication, for a Session with these policies.
    fn connect(&self, policies: Policies) -> Connecting<'_>;

    /// The queue of a Session; `None` if there is none. Never waits for the disk: the age of a message that is only in the
    /// store is known only if it was read before.
    fn queue_stats(&self, client_id: &str) -> Option<QueueStats>;

    /// Sets the limits of the queue of an existing Session.
    fn set_queue_limits(&self, client_id: &str, limits: QueueLimits);

    /// Whether the queue of a Session has missed changes of Retained Messages since the last call.
    fn take_missed_retained(&self, client_id: &str) -> bool;

    /// The id of a Session as a publisher; 0, which no Session has, if it is unknown.
    fn origin(&self, client_id: &str) -> Origin;

    /// Topic Filters of a Session; `None` if it is not known.
    fn subscriptions(&self, client_id: &str) -> Option<Vec<String>>;

    /// Gives an existing durable Session exactly these Subscriptions; false if there is none. Unlike a connection,
    /// this sends nothing: QoS 0 messages stay in the queue.
    fn replace_subscriptions(
        &self,
        client_id: &str,
        wanted: &[(String, SubscriptionOptions)],
    ) -> bool;

    /// Publishes a Retained Message of the broker itself.
    fn publish_retained(&self, topic: &str, payload: &[u8]);
}
