//! First levels with `$` that are reserved for the broker: Clients cannot exchange messages there.
//!
//! Every other topic that begins with `$` (`$aws/…`, `$iothub/…`) is an ordinary topic, which no wildcard at the first
//! level matches. [MQTT-4.7.2-1]

/// The reserved first levels, without their `$`. A `;` ends a level as `/` does: options of an address will follow
/// it.
const ROOTS: [&str; 11] = [
    // Metrics of the broker; Shared Subscriptions.
    "SYS",
    "share",
    // For future queues, streams, delayed messages, transactions, requests and exclusive Subscriptions.
    "queue",
    "stream",
    "with",
    "delayed",
    "tx",
    "request",
    "serve",
    "inbox",
    "exclusive",
];

/// Where Clients that stand between brokers say whether they are connected.
const CONNECTION_STATE: (&str, &str) = ("$SYS/broker/connection/", "/state");

/// The reserved first level of a Topic Name or Topic Filter, if it has one.
#[must_use]
pub(crate) fn reserved_root(topic: &str) -> Option<&'static str> {
    let rest = topic.strip_prefix('$')?;
    let root = rest.split(['/', ';']).next()?;
    ROOTS.into_iter().find(|owned| *owned == root)
}

/// The name of the connection whose state is published to this topic: `$SYS/broker/connection/{name}/state`.
#[must_use]
pub(crate) fn connection_state(topic: &str) -> Option<&str> {
    let name = topic.strip_prefix(CONNECTION_STATE.0)?.strip_suffix(CONNECTION_STATE.1)?;
    (!name.is_empty() && !name.contains('/')).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::{connection_state, reserved_root};

    #[test]
    fn only_whole_first_levels_are_owned() {
        for topic in
            ["$SYS", "$SYS/a", "$share/g/a", "$queue/jobs", "$with;delay=30s/a", "$inbox/#"]
        {
            assert!(reserved_root(topic).is_some(), "{topic}");
        }
        for topic in
            ["$aws/things", "$iothub/a", "$", "$/a", "$SYSTEM/a", "$sys/a", "a/$SYS", "SYS", "$tx1"]
        {
            assert_eq!(reserved_root(topic), None, "{topic}");
        }
    }

    #[test]
    fn the_state_of_a_connection_has_its_name_in_one_level() {
        assert_eq!(connection_state("$SYS/broker/connection/far/state"), Some("far"));
        for topic in [
            "$SYS/broker/connection//state",
            "$SYS/broker/connection/state",
            "$SYS/broker/connection/a/b/state",
            "$SYS/broker/connection/a/states",
            "SYS/broker/connection/a/state",
        ] {
            assert_eq!(connection_state(topic), None, "{topic}");
        }
    }
}
