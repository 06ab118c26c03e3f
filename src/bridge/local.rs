//! What a bridge needs of the broker it belongs to. The broker implements it; tests put another broker in its place.

use std::future::Future;
use std::io;
use std::pin::Pin;

use crate::bridge::loop_guard::Origin;
use crate::bridge::status::QueueStats;
use crate::config::bridge::QueueLimits;
use crate::dial::stream::BoxStream;
use crate::packet::subscribe::SubscriptionOptions;
use crate::session::policies::Policies;

/// A connection that is being made.
pub(crate) type Connecting<'a> = Pin<Box<dyn Future<Output = io::Result<BoxStream>> + Send + 'a>>;

/// Client ids of bridges begin with this; the broker lets no other Client use it.
pub(crate) const CLIENT_ID_PREFIX: &str = "$bridge/";

/// Client id of a bridge at its own broker. Lane 0 has the queue; further lanes only hand in messages.
#[must_use]
pub(crate) fn local_client_id(bridge: &str, lane: usize) -> String {
    match lane {
        0 => format!("{CLIENT_ID_PREFIX}{bridge}"),
        lane => format!("{CLIENT_ID_PREFIX}{bridge}/{lane}"),
    }
}

/// The local broker as a bridge sees it.
///
/// Beyond what MQTT says, a bridge relies on this: the Session of a bridge sends a message again with the Packet
/// Identifier it had before, also after a restart; and a message that was sent once with QoS 2 is not dropped before
/// its exchange has ended.
pub(crate) trait LocalBroker: Send + Sync {
    /// Opens a connection that needs no authentication, for a Session with these policies.
    fn connect(&self, policies: Policies) -> Connecting<'_>;

    /// The queue of a Session; `None` if there is none. Never waits for the disk: the age of a message that only the store
    /// knows is what was read of it before, if anything was.
    fn queue_stats(&self, client_id: &str) -> Option<QueueStats>;

    /// Limits of the queue of a Session that is there.
    fn set_queue_limits(&self, client_id: &str, limits: QueueLimits);

    /// Whether Retained Messages changed that the queue of a Session did not take, since the last call.
    fn take_missed_retained(&self, client_id: &str) -> bool;

    /// The name of a Session as a publisher; 0, which nobody has, if it is not known.
    fn origin(&self, client_id: &str) -> Origin;

    /// Topic Filters of a Session; `None` if it is not known.
    fn subscriptions(&self, client_id: &str) -> Option<Vec<String>>;

    /// Gives a Session that is there and durable exactly these Subscriptions; false if it is not. Unlike a connection,
    /// this sends nothing: QoS 0 messages of the queue stay in it.
    fn replace_subscriptions(
        &self,
        client_id: &str,
        wanted: &[(String, SubscriptionOptions)],
    ) -> bool;

    /// Publishes a Retained Message of the broker itself.
    fn publish_retained(&self, topic: &str, payload: &[u8]);
}
