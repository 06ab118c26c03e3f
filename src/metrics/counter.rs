//! Every counter of the broker, in cells that are cheap to increment.
//!
//! A counter exists once per shard, and each thread increments the cells of its own shard, so cores do not contend for
//! a cache line. Reading sums the shards, which is for `/metrics` and `$SYS`, not for the message path. Counters start
//! at zero with the process and never decrease, as Prometheus requires.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::available_parallelism;

/// How a counter appears in `/metrics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Description {
    /// Name of the family, with its unit and `_total`.
    pub(crate) family: &'static str,
    /// The label that distinguishes the members of one family.
    pub(crate) label: Option<(&'static str, &'static str)>,
    /// What is counted; the same for the whole family.
    pub(crate) help: &'static str,
}

macro_rules! counters {
    ($($(#[$doc:meta])+ $variant:ident = $family:literal $({$key:literal: $value:literal})? $help:ident,)+) => {
        /// Everything that is counted, except drops of messages (see [`DropCounter`]).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(usize)]
        pub enum Counter {
            $($(#[$doc])+ $variant,)+
        }

        impl Counter {
            /// All of them; members of one family stand next to each other.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Name, label and help for Prometheus.
            #[must_use]
            pub(crate) const fn description(self) -> Description {
                match self {
                    $(Self::$variant => Description {
                        family: $family,
                        label: counters!(@label $($key: $value)?),
                        help: $help,
                    },)+
                }
            }
        }
    };
    (@label) => { None };
    (@label $key:literal: $value:literal) => { Some(($key, $value)) };
}

const ACCEPTED: &str = "Network Connections accepted by a listener.";
const TURNED_AWAY: &str = "Network Connections closed before their first MQTT packet, by reason.";
const ACCEPT_ERRORS: &str = "Failed attempts to accept a Network Connection.";
const CONNECTED: &str = "CONNECT packets answered with success, by whether a Session was resumed.";
const REFUSED: &str = "CONNECT packets refused, by reason.";
const DISCONNECTED: &str = "Network Connections of connected Clients that ended, by cause.";
const SESSIONS_EXPIRED: &str = "Sessions removed because their Session Expiry Interval passed.";
const BYTES: &str = "Bytes of MQTT packets, by direction.";
const PACKETS: &str = "MQTT Control Packets, by direction.";
const PUBLISHES: &str = "PUBLISH packets, by direction.";
const PUBLISH_BYTES: &str = "Payload bytes of PUBLISH packets, by direction.";
const DENIED: &str = "Operations that access rules denied.";
const PUBLISH_REFUSED: &str =
    "Messages refused to their publisher for another reason than access rules.";
const OVER_LIMIT: &str = "Subscriptions refused because of a limit.";
const IDS_LEFT_OUT: &str =
    "Subscription identifiers left out of messages that match more than a message carries.";
const RELOAD_PROBLEMS: &str = "Parts of a reload, such as certificates, users or rules, whose old state stays because of a mistake.";
const WILLS: &str = "Will Messages published.";
const LEFT_OUT: &str =
    "Log lines about Clients that were left out because there were too many at once.";
const PANICS: &str = "Tasks that failed because of a bug in the broker.";

counters! {
    /// A listener accepted a Network Connection.
    ConnectionsAccepted = "petrel_connections_accepted_total" ACCEPTED,
    /// The listener had its maximum of Network Connections.
    TurnedAwayListenerFull = "petrel_connections_turned_away_total" {"reason": "listener-full"} TURNED_AWAY,
    /// The broker had its maximum of Network Connections.
    TurnedAwayBrokerFull = "petrel_connections_turned_away_total" {"reason": "broker-full"} TURNED_AWAY,
    /// Its address had its maximum of Network Connections.
    TurnedAwayAddressFull = "petrel_connections_turned_away_total" {"reason": "address-full"} TURNED_AWAY,
    /// It had not finished CONNECT, and was closed to make room for another.
    TurnedAwaySilent = "petrel_connections_turned_away_total" {"reason": "silent"} TURNED_AWAY,
    /// The process had no file descriptor or memory left for it.
    TurnedAwayNoDescriptor = "petrel_connections_turned_away_total" {"reason": "no-descriptor"} TURNED_AWAY,
    /// The PROXY protocol header was missing or malformed.
    TurnedAwayProxyHeader = "petrel_connections_turned_away_total" {"reason": "proxy-header"} TURNED_AWAY,
    /// The TLS handshake failed.
    TurnedAwayTls = "petrel_connections_turned_away_total" {"reason": "tls-handshake"} TURNED_AWAY,
    /// The WebSocket handshake failed.
    TurnedAwayWebSocket = "petrel_connections_turned_away_total" {"reason": "websocket-handshake"} TURNED_AWAY,
    /// The time to connect passed during these handshakes.
    TurnedAwayTimeout = "petrel_connections_turned_away_total" {"reason": "timeout"} TURNED_AWAY,
    /// `accept` failed.
    AcceptErrors = "petrel_accept_errors_total" ACCEPT_ERRORS,

    /// A CONNECT was answered with success, and found no stored state.
    ConnectsNew = "petrel_connects_accepted_total" {"session": "new"} CONNECTED,
    /// A CONNECT was answered with success, and resumed its Session.
    ConnectsResumed = "petrel_connects_accepted_total" {"session": "resumed"} CONNECTED,
    /// The Client went away before its CONNECT was answered.
    ConnectsAbandoned = "petrel_connects_refused_total" {"reason": "abandoned"} REFUSED,
    /// No complete CONNECT arrived in time.
    ConnectsRefusedTimeout = "petrel_connects_refused_total" {"reason": "timeout"} REFUSED,
    /// The first packet was malformed or not a CONNECT.
    ConnectsRefusedProtocol = "petrel_connects_refused_total" {"reason": "protocol"} REFUSED,
    /// Wrong or missing credentials, or not allowed to connect.
    ConnectsRefusedAuthentication = "petrel_connects_refused_total" {"reason": "authentication"} REFUSED,
    /// The broker had no room, was stopping, or its store was not available.
    ConnectsRefusedUnavailable = "petrel_connects_refused_total" {"reason": "unavailable"} REFUSED,

    /// The Client sent DISCONNECT.
    DisconnectsByClient = "petrel_disconnects_total" {"cause": "client"} DISCONNECTED,
    /// The Network Connection ended without DISCONNECT.
    DisconnectsByNetwork = "petrel_disconnects_total" {"cause": "network"} DISCONNECTED,
    /// One and a half Keep Alive periods without a packet.
    DisconnectsKeepAlive = "petrel_disconnects_total" {"cause": "keep-alive"} DISCONNECTED,
    /// The Client sent something malformed or broke a rule.
    DisconnectsProtocol = "petrel_disconnects_total" {"cause": "protocol"} DISCONNECTED,
    /// Another Network Connection took over the Session.
    DisconnectsTakeOver = "petrel_disconnects_total" {"cause": "take-over"} DISCONNECTED,
    /// An operator asked for it.
    DisconnectsAdministrative = "petrel_disconnects_total" {"cause": "administrative"} DISCONNECTED,
    /// The broker stopped.
    DisconnectsShutdown = "petrel_disconnects_total" {"cause": "shutdown"} DISCONNECTED,
    /// Every other cause, such as a store that cannot acknowledge.
    DisconnectsOther = "petrel_disconnects_total" {"cause": "other"} DISCONNECTED,

    /// A Session expired.
    SessionsExpired = "petrel_sessions_expired_total" SESSIONS_EXPIRED,

    /// Bytes read from Clients.
    BytesReceived = "petrel_mqtt_bytes_total" {"direction": "received"} BYTES,
    /// Bytes written to Clients.
    BytesSent = "petrel_mqtt_bytes_total" {"direction": "sent"} BYTES,
    /// Control Packets read from Clients.
    PacketsReceived = "petrel_mqtt_packets_total" {"direction": "received"} PACKETS,
    /// Control Packets written to Clients.
    PacketsSent = "petrel_mqtt_packets_total" {"direction": "sent"} PACKETS,
    /// PUBLISH packets read from Clients.
    PublishReceived = "petrel_publishes_total" {"direction": "received"} PUBLISHES,
    /// PUBLISH packets written to Clients.
    PublishSent = "petrel_publishes_total" {"direction": "sent"} PUBLISHES,
    /// Payload bytes of PUBLISH packets read from Clients.
    PublishBytesReceived = "petrel_publish_payload_bytes_total" {"direction": "received"} PUBLISH_BYTES,
    /// Payload bytes of PUBLISH packets written to Clients.
    PublishBytesSent = "petrel_publish_payload_bytes_total" {"direction": "sent"} PUBLISH_BYTES,

    /// Access rules denied a PUBLISH.
    PublishDenied = "petrel_access_denied_total" {"operation": "publish"} DENIED,
    /// Access rules denied a Subscription.
    SubscribeDenied = "petrel_access_denied_total" {"operation": "subscribe"} DENIED,
    /// Access rules denied to end a Subscription.
    UnsubscribeDenied = "petrel_access_denied_total" {"operation": "unsubscribe"} DENIED,
    /// A Client subscribes to a message and may not receive it.
    ReceiveDenied = "petrel_access_denied_total" {"operation": "receive"} DENIED,
    /// Access rules denied a Will Message, at CONNECT or when it was due.
    WillDenied = "petrel_access_denied_total" {"operation": "will"} DENIED,
    /// A PUBLISH was refused for another reason.
    PublishRefused = "petrel_publish_refused_total" PUBLISH_REFUSED,
    /// A Subscription was refused because of a limit.
    SubscribeOverLimit = "petrel_subscriptions_over_limit_total" OVER_LIMIT,
    /// A Subscription Identifier was left out of a message, which carries only so many.
    SubscriptionIdsLeftOut = "petrel_subscription_ids_left_out_total" IDS_LEFT_OUT,
    /// A Will Message was published.
    WillsPublished = "petrel_wills_published_total" WILLS,
    /// A part could not be reloaded; its old state stays.
    ReloadProblems = "petrel_reload_problems_total" RELOAD_PROBLEMS,
    /// Log lines about Clients that exceeded the budget.
    LogLinesLeftOut = "petrel_log_lines_left_out_total" LEFT_OUT,
    /// A task panicked; its connection was closed, the broker continued.
    TaskPanics = "petrel_task_panics_total" PANICS,
}

macro_rules! drop_reasons {
    ($($(#[$doc:meta])+ $variant:ident = $name:literal,)+) => {
        /// Why a message did not reach a recipient. Nothing is dropped without being counted here.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(usize)]
        pub(crate) enum DropCounter {
            $($(#[$doc])+ $variant,)+
        }

        impl DropCounter {
            /// All of them.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Its name in `/metrics` and in logs.
            #[must_use]
            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

drop_reasons! {
    /// The recipient's queue was at its limit of messages or bytes.
    QueueFull = "queue-full",
    /// The oldest message of a full queue was dropped for a new one.
    QueueFullOldest = "queue-full-oldest",
    /// A QoS 0 message for a Client that does not read as fast as it is sent to.
    OutboxFull = "outbox-full",
    /// The Message Expiry Interval passed before delivery. [MQTT-3.3.2-5]
    Expired = "expired",
    /// Larger than the recipient's Maximum Packet Size. [MQTT-3.1.2-25]
    PacketTooLarge = "packet-too-large",
    /// The Session ended (Clean Start, expiry, or removal) with messages in its queue.
    SessionEnded = "session-ended",
    /// The recipient answered with a Reason Code of failure.
    RejectedByClient = "rejected-by-client",
    /// The store failed or was full.
    StoreUnavailable = "store-unavailable",
    /// It came back over bridges to the broker it started from.
    BridgeLoop = "bridge-loop",
    /// It has no name below the mount point of the recipient.
    OutsideMountPoint = "outside-mount-point",
    /// It waited in a queue, and access rules do not let the recipient receive it.
    AccessDenied = "access-denied",
}

const COUNTER_COUNT: usize = Counter::ALL.len();
const CELL_COUNT: usize = COUNTER_COUNT + DropCounter::ALL.len();
const MAX_SHARDS: usize = 64;

/// The cells of one shard. Aligned so that no two shards share a cache line, nor a pair that is fetched together.
#[derive(Debug)]
#[repr(align(128))]
struct Shard([AtomicU64; CELL_COUNT]);

/// The counters of one broker; clones count into the same cells.
#[derive(Debug, Clone)]
pub struct Counters {
    shards: Arc<[Shard]>,
}

static NEXT_THREAD: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static THREAD: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// A number for the calling thread, assigned in order of first use so that shards fill evenly.
fn thread_number() -> usize {
    THREAD.with(|cell| {
        let mut number = cell.get();
        if number == usize::MAX {
            number = NEXT_THREAD.fetch_add(1, Ordering::Relaxed);
            cell.set(number);
        }
        number
    })
}

impl Default for Counters {
    fn default() -> Self {
        Self::new()
    }
}

impl Counters {
    /// All zero; as many shards as the machine has cores.
    #[must_use]
    pub(crate) fn new() -> Self {
        let cores = available_parallelism().map_or(1, std::num::NonZero::get);
        let count = cores.next_power_of_two().min(MAX_SHARDS);
        let shards = (0..count).map(|_| Shard(std::array::from_fn(|_| AtomicU64::new(0))));
        Self { shards: shards.collect() }
    }

    /// Counts `count` more. For several counters at once take [`Self::local`] first.
    pub(crate) fn add(&self, counter: Counter, count: u64) {
        self.local().add(counter, count);
    }

    /// The calling thread's cells. Must not be kept across an await, where the thread may change.
    #[must_use]
    pub(crate) fn local(&self) -> LocalCounters<'_> {
        // The number of shards is a power of two.
        let index = thread_number() & (self.shards.len() - 1);
        LocalCounters { shard: &self.shards[index] }
    }

    /// The sum so far.
    #[must_use]
    pub fn read(&self, counter: Counter) -> u64 {
        self.sum(counter as usize)
    }

    /// Messages dropped so far for this reason.
    #[must_use]
    pub(crate) fn read_dropped(&self, reason: DropCounter) -> u64 {
        self.sum(COUNTER_COUNT + reason as usize)
    }

    /// Messages dropped so far for any reason.
    #[must_use]
    pub(crate) fn read_all_dropped(&self) -> u64 {
        DropCounter::ALL.iter().map(|reason| self.read_dropped(*reason)).sum()
    }

    fn sum(&self, cell: usize) -> u64 {
        let add = |sum: u64, shard: &Shard| sum.wrapping_add(shard.0[cell].load(Ordering::Relaxed));
        self.shards.iter().fold(0, add)
    }
}

/// The calling thread's cells of [`Counters`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct LocalCounters<'a> {
    shard: &'a Shard,
}

impl LocalCounters<'_> {
    /// Counts `count` more.
    pub(crate) fn add(self, counter: Counter, count: u64) {
        self.shard.0[counter as usize].fetch_add(count, Ordering::Relaxed);
    }

    /// Counts messages that were dropped.
    pub(crate) fn add_dropped(self, reason: DropCounter, count: u64) {
        self.shard.0[COUNTER_COUNT + reason as usize].fetch_add(count, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    #[test]
    fn threads_count_into_one_sum() {
        let counters = Counters::new();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        counters.add(Counter::PublishReceived, 2);
                        counters.local().add_dropped(DropCounter::Expired, 1);
                    }
                });
            }
        });
        assert_eq!(counters.read(Counter::PublishReceived), 8000);
        assert_eq!(counters.read_dropped(DropCounter::Expired), 4000);
        assert_eq!(counters.read_all_dropped(), 4000);
        assert_eq!(counters.read(Counter::PublishSent), 0);
        assert_eq!(counters.read_dropped(DropCounter::QueueFull), 0);
    }

    #[test]
    fn first_and_last_cells_do_not_overlap() {
        let counters = Counters::new();
        counters.add(Counter::TaskPanics, 1);
        counters.local().add_dropped(DropCounter::QueueFull, 10);
        counters.local().add_dropped(DropCounter::RejectedByClient, 100);
        assert_eq!(counters.read(Counter::TaskPanics), 1);
        assert_eq!(counters.read_dropped(DropCounter::QueueFull), 10);
        assert_eq!(counters.read_dropped(DropCounter::RejectedByClient), 100);
    }

    #[test]
    fn families_are_contiguous_and_labels_unique() {
        let mut seen: HashSet<&str> = HashSet::new();
        let mut previous = "";
        let mut labels: HashMap<&str, HashSet<Option<(&str, &str)>>> = HashMap::new();
        for counter in Counter::ALL {
            let Description { family, label, help } = counter.description();
            assert!(family.starts_with("petrel_") && family.ends_with("_total"), "{family}");
            assert!(help.ends_with('.'), "{help}");
            assert!(family == previous || seen.insert(family), "{family} appears twice");
            assert!(labels.entry(family).or_default().insert(label), "{family} {label:?}");
            previous = family;
        }
        let names: HashSet<_> = DropCounter::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), DropCounter::ALL.len());
    }

    #[test]
    fn shards_do_not_share_cache_lines() {
        assert_eq!(align_of::<Shard>(), 128);
        assert_eq!(size_of::<Shard>() % 128, 0);
    }
}
