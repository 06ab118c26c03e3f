//! From the settings to the limits of the core.

use crate::broker::limits::Limits;
use crate::config::file::{OverflowPolicy as Policy, StoreKind};
use crate::config::settings::Settings;
use crate::durable::Durability;
use crate::session::queue::{OverflowPolicy, QueueLimits};

/// The limits of the core.
#[must_use]
pub fn from_settings(settings: &Settings) -> Limits {
    let limits = &settings.limits;
    let persistence = &settings.persistence;
    let is_memory = persistence.store == StoreKind::Memory;
    let durability = if is_memory { Durability::Memory } else { persistence.durability };
    let mut topic_durability = Vec::new();
    for (filter, durability) in &persistence.topics {
        topic_durability.push((filter.clone(), *durability));
    }
    let mut topic_queue = Vec::new();
    for rule in &settings.overflow {
        let queue = QueueLimits {
            max_messages: rule.messages,
            max_bytes: rule.bytes,
            policy: policy(rule.policy),
        };
        topic_queue.push((rule.filter.clone(), queue));
    }
    let default = Limits::default();
    Limits {
        max_packet_bytes: limits.max_packet_bytes,
        receive_maximum: limits.receive_maximum,
        max_inflight: limits.max_inflight,
        max_keep_alive_seconds: limits.max_keep_alive_seconds.unwrap_or(0),
        server_keep_alive_seconds: limits.server_keep_alive_seconds,
        topic_alias_maximum: limits.topic_alias_maximum,
        outgoing_alias_maximum: limits.topic_alias_maximum_out,
        max_session_expiry_seconds: limits.session_expiry_max_seconds.unwrap_or(u32::MAX),
        maximum_qos: limits.max_qos,
        retain_available: limits.retain_available,
        wildcard_available: limits.wildcard_subscriptions,
        shared_available: limits.shared_subscriptions,
        subscription_ids_available: limits.subscription_identifiers,
        response_information: limits.response_information.clone(),
        max_pending_bytes: limits.max_pending_bytes,
        max_subscriptions: limits.max_subscriptions_per_session,
        max_topic_levels: limits.max_topic_levels,
        max_topic_bytes: limits.max_topic_bytes,
        max_client_id_bytes: limits.max_client_id_bytes,
        allow_empty_client_id: limits.allow_empty_client_id,
        client_id_prefix: limits.client_id_prefix.clone(),
        max_retained: usize::try_from(limits.retained_messages).unwrap_or(usize::MAX),
        max_retained_bytes: usize::try_from(limits.retained_bytes).unwrap_or(usize::MAX),
        outbox_bytes: limits.outbox_bytes,
        connect_timeout: limits.connect_timeout,
        check_payload_format: limits.check_payload_format,
        durability,
        topic_durability,
        queue: QueueLimits {
            max_messages: limits.queue_messages,
            max_bytes: limits.queue_bytes,
            policy: OverflowPolicy::Spill,
        },
        topic_queue,
        backpressure_wait: limits.backpressure_wait,
        ..default
    }
}

/// The durability in force for messages without a rule of their own.
#[must_use]
pub fn durability_name(settings: &Settings) -> &'static str {
    match (settings.persistence.store, settings.persistence.durability) {
        (StoreKind::Memory, _) | (_, Durability::Memory) => "memory",
        (_, Durability::Os) => "os",
        (_, Durability::Fsync) => "fsync",
    }
}

fn policy(policy: Policy) -> OverflowPolicy {
    match policy {
        Policy::Spill => OverflowPolicy::Spill,
        Policy::Backpressure => OverflowPolicy::Backpressure,
        Policy::Reject => OverflowPolicy::Reject,
        Policy::DropOldest => OverflowPolicy::DropOldest,
        Policy::DropNewest => OverflowPolicy::DropNewest,
    }
}
