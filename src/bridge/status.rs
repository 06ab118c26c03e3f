//! The status of a bridge: counters written by its task, and a snapshot for commands, metrics and `$SYS`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde::Serialize;

/// Why a message did not cross.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BridgeDropReason {
    /// An exclude filter held it back.
    Excluded,
    /// No rule matches it: an older configuration subscribed to it.
    NoRule,
    /// The name it would have on the other side is empty or too long.
    Topic,
    /// It has already passed this broker.
    Loop,
    /// It has passed as many brokers as allowed.
    HopLimit,
    /// It is larger than the other side accepts.
    TooLarge,
    /// Its Message Expiry Interval passed while it waited for the rate limit.
    Expired,
    /// The remote broker refused it permanently.
    RefusedRemote,
    /// The local broker refused it permanently.
    RefusedLocal,
    /// QoS 0, while too many messages waited for the rate limit and a full window.
    NoRoom,
    /// Our own message, returned by a 3.x broker that does not know that we are a bridge.
    Echo,
}

impl BridgeDropReason {
    /// All of them, in the order of the counters.
    pub(crate) const ALL: [Self; 11] = [
        Self::Excluded,
        Self::NoRule,
        Self::Topic,
        Self::Loop,
        Self::HopLimit,
        Self::TooLarge,
        Self::Expired,
        Self::RefusedRemote,
        Self::RefusedLocal,
        Self::NoRoom,
        Self::Echo,
    ];

    /// Its name in metrics and topics.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Excluded => "excluded",
            Self::NoRule => "no_rule",
            Self::Topic => "topic",
            Self::Loop => "loop",
            Self::HopLimit => "hop_limit",
            Self::TooLarge => "too_large",
            Self::Expired => "expired",
            Self::RefusedRemote => "refused_remote",
            Self::RefusedLocal => "refused_local",
            Self::NoRoom => "no_room",
            Self::Echo => "echo",
        }
    }
}

/// The counts of a link since the last query.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct BridgeTally {
    /// Messages sent to the remote broker; a message sent again after a disconnection counts again.
    pub(crate) messages_out: u64,
    /// Topic and payload of messages sent.
    pub(crate) bytes_out: u64,
    /// Messages handed to the local broker.
    pub(crate) messages_in: u64,
    /// Topic and payload of messages received.
    pub(crate) bytes_in: u64,
    /// By [`BridgeDropReason`].
    pub(crate) drops: [u64; BridgeDropReason::ALL.len()],
}

impl BridgeTally {
    /// Counts a drop.
    pub(crate) fn drop(&mut self, reason: BridgeDropReason) {
        if let Some(count) = self.drops.get_mut(reason as usize) {
            *count += 1;
        }
    }
}

/// The state of a bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BridgeState {
    /// Waits for a command, for messages (lazy), or forever (once).
    #[default]
    Idle,
    /// Paused by command.
    Paused,
    /// Connecting: name look-up, connection, handshakes.
    Connecting,
    /// Waits before the next attempt.
    Waiting,
    /// Messages cross.
    Connected,
    /// Ended.
    Stopped,
}

impl BridgeState {
    /// Its name in metrics and topics.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Paused => "paused",
            Self::Connecting => "connecting",
            Self::Waiting => "waiting",
            Self::Connected => "connected",
            Self::Stopped => "stopped",
        }
    }
}

/// Counters written by the task of a bridge and read by others.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    messages_out: AtomicU64,
    bytes_out: AtomicU64,
    messages_in: AtomicU64,
    bytes_in: AtomicU64,
    drops: [AtomicU64; BridgeDropReason::ALL.len()],
    condition: Mutex<Condition>,
}

#[derive(Debug, Default, Clone)]
struct Condition {
    state: BridgeState,
    since: Option<SystemTime>,
    address: String,
    attempts: u64,
    connects: u64,
    last_error: String,
    last_error_at: Option<SystemTime>,
    looping: usize,
    loops: u64,
    loop_topic: String,
}

impl Counters {
    /// Adds the counts of a link, once for each batch, so that the message path uses no shared memory.
    pub(crate) fn add(&self, tally: &BridgeTally) {
        for (counter, value) in [
            (&self.messages_out, tally.messages_out),
            (&self.bytes_out, tally.bytes_out),
            (&self.messages_in, tally.messages_in),
            (&self.bytes_in, tally.bytes_in),
        ] {
            if value > 0 {
                counter.fetch_add(value, Ordering::Relaxed);
            }
        }
        for (counter, value) in self.drops.iter().zip(tally.drops) {
            if value > 0 {
                counter.fetch_add(value, Ordering::Relaxed);
            }
        }
    }

    /// Notes a new state; the time of the change is kept.
    pub(crate) fn set_state(&self, state: BridgeState, now: SystemTime) {
        let mut condition = self.condition.lock();
        if condition.state != state {
            condition.state = state;
            condition.since = Some(now);
        }
        match state {
            BridgeState::Connecting => condition.attempts += 1,
            BridgeState::Connected => condition.connects += 1,
            _ => {}
        }
    }

    /// Notes which address is tried.
    pub(crate) fn set_address(&self, address: String) {
        self.condition.lock().address = address;
    }

    /// Notes why an attempt or a connection ended.
    pub(crate) fn set_error(&self, error: String, now: SystemTime) {
        let mut condition = self.condition.lock();
        condition.last_error = error;
        condition.last_error_at = Some(now);
    }

    /// Records how many messages are circling, and the topic of one that was found.
    pub(crate) fn set_loops(&self, looping: usize, found: Option<String>) {
        let mut condition = self.condition.lock();
        condition.looping = looping;
        if let Some(topic) = found {
            condition.loops += 1;
            condition.loop_topic = topic;
        }
    }

    /// The state of the bridge.
    pub(crate) fn state(&self) -> BridgeState {
        self.condition.lock().state
    }

    /// Messages that crossed in both directions, to find out whether a lazy bridge is idle.
    pub(crate) fn traffic(&self) -> u64 {
        self.messages_out.load(Ordering::Relaxed) + self.messages_in.load(Ordering::Relaxed)
    }

    /// The current status.
    pub(crate) fn status(&self, name: &str, queue: QueueStats) -> BridgeStatus {
        let condition = self.condition.lock().clone();
        let drops = BridgeDropReason::ALL.iter().zip(&self.drops);
        BridgeStatus {
            name: name.to_owned(),
            state: condition.state,
            connected: condition.state == BridgeState::Connected,
            since_unix_seconds: condition.since.map(unix_seconds),
            address: condition.address,
            attempts: condition.attempts,
            connects: condition.connects,
            last_error: condition.last_error,
            last_error_unix_seconds: condition.last_error_at.map(unix_seconds),
            looping: condition.looping as u64,
            loops: condition.loops,
            loop_topic: condition.loop_topic,
            queue_messages: queue.messages,
            queue_bytes: queue.bytes,
            queue_drops: queue.drops,
            oldest_seconds: queue.oldest.map_or(0, |age| age.as_secs()),
            messages_out: self.messages_out.load(Ordering::Relaxed),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
            messages_in: self.messages_in.load(Ordering::Relaxed),
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            drops: drops
                .map(|(reason, count)| (reason.name(), count.load(Ordering::Relaxed)))
                .collect(),
        }
    }
}

fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The queue of a bridge as the local broker sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct QueueStats {
    /// Messages waiting, those in flight included.
    pub(crate) messages: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// Age of the oldest.
    pub(crate) oldest: Option<Duration>,
    /// Messages dropped by the limits of the queue.
    pub(crate) drops: u64,
}

/// The status of one bridge at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BridgeStatus {
    /// Its name.
    pub(crate) name: String,
    /// Its state.
    pub(crate) state: BridgeState,
    /// Whether messages cross.
    pub(crate) connected: bool,
    /// When it entered this state.
    pub(crate) since_unix_seconds: Option<u64>,
    /// The address in use or tried last.
    pub(crate) address: String,
    /// Attempts to connect.
    pub(crate) attempts: u64,
    /// Attempts that succeeded.
    pub(crate) connects: u64,
    /// Why the last attempt or connection ended, in words; empty if none did.
    pub(crate) last_error: String,
    /// When that was.
    pub(crate) last_error_unix_seconds: Option<u64>,
    /// Messages that are circling in a ring of 3.x links and are slowed down.
    pub(crate) looping: u64,
    /// Messages found circling so far.
    pub(crate) loops: u64,
    /// The topic of the last of them.
    pub(crate) loop_topic: String,
    /// Messages that wait for the remote broker.
    pub(crate) queue_messages: u64,
    /// Their bytes.
    pub(crate) queue_bytes: u64,
    /// Messages that the limits of the queue dropped.
    pub(crate) queue_drops: u64,
    /// Age of the oldest waiting message.
    pub(crate) oldest_seconds: u64,
    /// Messages to the remote broker.
    pub(crate) messages_out: u64,
    /// Their bytes.
    pub(crate) bytes_out: u64,
    /// Messages from the remote broker.
    pub(crate) messages_in: u64,
    /// Their bytes.
    pub(crate) bytes_in: u64,
    /// Messages that did not cross, by reason.
    pub(crate) drops: Vec<(&'static str, u64)>,
}

impl BridgeStatus {
    /// The topics below `$SYS/broker/bridge/<name>/`.
    #[must_use]
    pub(crate) fn sys_topics(&self) -> Vec<(String, String)> {
        let topic = |tail: &str| format!("$SYS/broker/bridge/{}/{tail}", self.name);
        let mut topics = vec![
            (topic("state"), self.state.name().to_owned()),
            (topic("connected"), u8::from(self.connected).to_string()),
            (topic("since"), self.since_unix_seconds.unwrap_or_default().to_string()),
            (topic("address"), self.address.clone()),
            (topic("attempts"), self.attempts.to_string()),
            (topic("last error"), self.last_error.clone()),
            (topic("loops/now"), self.looping.to_string()),
            (topic("loops/found"), self.loops.to_string()),
            (topic("loops/topic"), self.loop_topic.clone()),
            (topic("queue/messages"), self.queue_messages.to_string()),
            (topic("queue/bytes"), self.queue_bytes.to_string()),
            (topic("queue/oldest"), self.oldest_seconds.to_string()),
            (topic("queue/drops"), self.queue_drops.to_string()),
            (topic("messages/sent"), self.messages_out.to_string()),
            (topic("messages/received"), self.messages_in.to_string()),
            (topic("bytes/sent"), self.bytes_out.to_string()),
            (topic("bytes/received"), self.bytes_in.to_string()),
        ];
        for (reason, count) in &self.drops {
            topics.push((topic(&format!("drops/{reason}")), count.to_string()));
        }
        topics
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_add_up_by_reason() {
        let counters = Counters::default();
        let mut tally = BridgeTally { messages_out: 2, bytes_out: 20, ..BridgeTally::default() };
        tally.drop(BridgeDropReason::Loop);
        tally.drop(BridgeDropReason::RefusedLocal);
        counters.add(&tally);
        counters.add(&tally);
        let status = counters.status("b", QueueStats::default());
        assert_eq!((status.messages_out, status.bytes_out), (4, 40));
        for (reason, count) in status.drops {
            assert_eq!(count, if matches!(reason, "loop" | "refused_local") { 2 } else { 0 });
        }
    }

    #[test]
    fn reasons_stand_at_their_own_place() {
        for (place, reason) in BridgeDropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, place);
        }
    }

    #[test]
    fn attempts_and_connects_are_counted() {
        let counters = Counters::default();
        let now = UNIX_EPOCH + Duration::from_secs(7);
        counters.set_state(BridgeState::Connecting, now);
        counters.set_error("no route".to_owned(), now);
        counters.set_state(BridgeState::Waiting, now);
        counters.set_state(BridgeState::Connecting, now);
        counters.set_state(BridgeState::Connected, now + Duration::from_secs(1));
        let status = counters.status("b", QueueStats::default());
        assert_eq!((status.attempts, status.connects), (2, 1));
        assert_eq!(status.since_unix_seconds, Some(8));
        assert_eq!(status.last_error, "no route");
        assert!(
            status.sys_topics().contains(&("$SYS/broker/bridge/b/connected".into(), "1".into()))
        );
    }
}
