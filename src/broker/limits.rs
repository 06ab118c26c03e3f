//! All limits of the core, as checked.

use std::time::Duration;

use crate::durable::Durability;
use crate::packet::QoS;
use crate::session::queue::QueueLimits;
use crate::topic::filter::TopicFilter;
use crate::topic::name::TopicName;

/// The longest time that a publisher waits for a recipient that lags behind. Short enough that a dead reader hardly matters.
pub(crate) const CROWDED_WAIT: Duration = Duration::from_millis(100);

/// Limits and options of the broker. The shell defines the defaults, together with the names that operators use.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Maximum Packet Size from Clients, in bytes. [MQTT-3.2.2-15]
    pub max_packet_bytes: u32,
    /// Receive Maximum of the broker. [MQTT-3.3.4-7]
    pub receive_maximum: u16,
    /// Most deliveries in flight towards one Client, if its Receive Maximum allows.
    pub max_inflight: u16,
    /// Longest Keep Alive in seconds; zero sets no bound. [MQTT-3.1.2-21]
    pub max_keep_alive_seconds: u16,
    /// Keep Alive for every Client of 5.0, whatever it asks for. [MQTT-3.2.2-21]
    pub server_keep_alive_seconds: Option<u16>,
    /// Topic Alias Maximum for aliases that Clients set.
    pub topic_alias_maximum: u16,
    /// Most aliases the broker assigns towards one Client.
    pub outgoing_alias_maximum: u16,
    /// Longest Session Expiry Interval in seconds.
    pub max_session_expiry_seconds: u32,
    /// How long after a start the Will Messages of Clients are held back that were connected when an earlier run of
    /// the broker ended, and whose Sessions ended with it.
    pub will_after_restart: Duration,
    /// Maximum QoS. [MQTT-3.2.2-9]
    pub maximum_qos: QoS,
    /// Whether Retained Messages are kept.
    pub retain_available: bool,
    /// Whether wildcards may be subscribed to.
    pub wildcard_available: bool,
    /// Whether Shared Subscriptions are available.
    pub shared_available: bool,
    /// Whether Subscription Identifiers are available.
    pub subscription_ids_available: bool,
    /// Most Sessions, absent Clients included.
    pub max_sessions: usize,
    /// Most Subscriptions of one Session.
    pub max_subscriptions: usize,
    /// Most Subscription Identifiers in one delivery: if more of a Client's Subscriptions match, the smallest are sent.
    pub max_subscription_ids: usize,
    /// Most bytes that the Subscriptions of one Session may take in the tree, estimated from their texts and levels.
    pub max_subscription_bytes: usize,
    /// Most groups of Shared Subscriptions that one Session may be a member of.
    pub max_session_groups: usize,
    /// Most groups of Shared Subscriptions.
    pub max_groups: usize,
    /// Most different placements of `+` that reach beyond the eighth level of Topic Filters.
    pub max_wildcard_placements: usize,
    /// Most levels of a Topic Name or Topic Filter.
    pub max_topic_levels: usize,
    /// Whether topics that begin with `$` are ordinary topics, unless they are reserved.
    pub dollar_topics: bool,
    /// Most bytes of a Topic Name or Topic Filter.
    pub max_topic_bytes: usize,
    /// Most bytes of a Client Identifier.
    pub max_client_id_bytes: usize,
    /// Whether the broker assigns an identifier to Clients with an empty one.
    pub allow_empty_client_id: bool,
    /// Prefix of assigned Client Identifiers.
    pub client_id_prefix: String,
    /// Most Retained Messages.
    pub max_retained: usize,
    /// Most bytes of Retained Messages.
    pub max_retained_bytes: usize,
    /// Bytes of QoS 0 messages that may wait for one Client.
    pub outbox_bytes: usize,
    /// Whether a Client may resume, take over and end the Session of another user or mount point.
    pub shares_sessions: bool,
    /// Most bytes of a packet before CONNACK.
    pub max_connect_bytes: u32,
    /// The lowest rate at which a packet that takes longer than the Keep Alive counts as activity.
    pub min_bytes_per_second: u32,
    /// How long a packet may take at a lower rate, if the Keep Alive is longer or off.
    pub packet_timeout: Duration,
    /// How long a Client may read nothing of what is sent to it, if the Keep Alive is longer or off.
    pub write_timeout: Duration,
    /// Bytes of cached routing plans, beyond the few that every connection may keep.
    pub max_plan_bytes: usize,
    /// How long a CONNECT may take from the opening of the Network Connection.
    pub connect_timeout: Duration,
    /// Whether a Payload Format Indicator of 1 is checked. [MQTT-3.3.2-4]
    pub check_payload_format: bool,
    /// Longest time a publisher waits for a recipient that lags behind.
    pub crowded_wait: Duration,
    /// The same if the overflow policy is back-pressure.
    pub backpressure_wait: Duration,
    /// Bytes in all queues together.
    pub total_queue_bytes: u64,
    /// Bytes not yet written to the store beyond which reading from publishers stops.
    pub max_pending_bytes: usize,
    /// What happens to a PUBLISH that access rules deny, if the Client's version has no code for that.
    pub denied_publish: DeniedPublish,
    /// Response Information for Clients that ask for it.
    pub response_information: Option<String>,
    /// How safe state is before it is acknowledged.
    pub durability: Durability,
    /// Exceptions from `durability`, by Topic Filter; the first match applies.
    pub topic_durability: Vec<(TopicFilter, Durability)>,
    /// Limits of each queue.
    pub queue: QueueLimits,
    /// Exceptions from `queue`, by Topic Filter; the first match applies.
    pub topic_queue: Vec<(TopicFilter, QueueLimits)>,
}

/// What happens to a PUBLISH of 3.1 or 3.1.1 that access rules deny. [MQTT311-3.3.5-2]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DeniedPublish {
    /// It is acknowledged and dropped.
    #[default]
    Drop,
    /// The Network Connection is closed.
    Disconnect,
}

impl Limits {
    /// How safe messages of this topic are before they are acknowledged.
    #[must_use]
    pub(crate) fn durability_of(&self, topic: &str) -> Durability {
        find(&self.topic_durability, topic).copied().unwrap_or(self.durability)
    }

    /// Limits of queues for messages of this topic.
    #[must_use]
    pub(crate) fn queue_of(&self, topic: &str) -> QueueLimits {
        find(&self.topic_queue, topic).copied().unwrap_or(self.queue)
    }
}

fn find<'a, T>(exceptions: &'a [(TopicFilter, T)], topic: &str) -> Option<&'a T> {
    if exceptions.is_empty() {
        return None;
    }
    let name = TopicName::parse(topic).ok()?;
    let found = exceptions.iter().find(|(filter, _)| filter.matches(&name));
    found.map(|(_, value)| value)
}
