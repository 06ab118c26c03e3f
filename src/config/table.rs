//! The table of all settings, each defined once. It generates the structs that the file is read into, the defaults, the
//! bounds checks, the names of the environment variables, the limits of the core, `config/petrel.toml` and the tables in
//! `docs/configuration.md`.
//!
//! To add a setting:
//!
//! 1. add a field to the struct of the layer that uses it: `broker::limits::Limits` (`limits.FIELD` below),
//!    `config::settings::AcceptLimits` (`accept.FIELD`) or `store::settings::StoreSettings` (`store.FIELD`);
//! 2. add an entry here: `/// what it means` and then `key: type = default, [bounds], limits.field;`;
//! 3. run `make settings`, which regenerates `config/petrel.toml` and `docs/configuration.md`.
//!
//! Bounds, field and `reload = …` are optional; a setting without a field is converted by hand in `check`. Types are `u64`,
//! `bool`, `String`, `Size`, `Period`, `Seconds` (whole seconds), lists, and the enums in `choice`. `zero_or(a..=b)` also
//! allows 0. `Limits::default()` comes from this table, so tests run with the limits that ship.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::broker::limits::{CROWDED_WAIT, DeniedPublish, Limits};
use crate::config::bounds::{Bounds, zero_or};
use crate::config::bridge::BridgeFile;
use crate::config::check::Checker;
use crate::config::choice::{
    ClientCertificate, Level, ListenerTransport, LogFormat, StoreKind, TlsVersion, UserNameFrom,
};
use crate::config::conversion::IntoLimit;
use crate::config::setting::{Bound, Reload, Section, Setting, Written, settings};
use crate::config::settings::{AcceptLimits, ComposedLimits};
use crate::config::value::{FileMode, Period, Seconds, Size, Switch, TextList};
use crate::durable::Durability;
use crate::durable::record::OverflowPolicy;
use crate::store::settings::StoreSettings;

/// Paths that common MQTT clients request over WebSocket.
pub(crate) const DEFAULT_PATHS: [&str; 3] = ["/", "/mqtt", "/ws"];

settings! {
    "" File file {
        /// Directory for sessions, queued messages and retained messages.
        data_dir: String = "./data".into();
    } + {
        log: Log,
        runtime: Runtime,
        persistence: Persistence,
        protocol: Protocol,
        limits: LimitKeys,
        shutdown: Shutdown,
        http: Http,
        sys: Sys,
        control: Control,
        auth: Auth,
        listener: Vec<Listener>,
        overflow: Vec<Overflow>,
        bridge: Vec<BridgeFile>,
    }

    "[log]" Log log {
        /// off, error, warn, info, debug (client errors) or trace (every packet).
        level: Level = Level::default();
        /// human (text) or json (one object per line).
        format: LogFormat = LogFormat::default();
        /// Levels for single modules, for example { "petrel::net" = "debug", "petrel::bridge" = "trace" }. Libraries
        /// log at `warn` and above unless they are named here.
        modules: BTreeMap<String, Level> = BTreeMap::new();
    }

    "[runtime]" Runtime runtime {
        /// Worker threads; 0: one per core.
        worker_threads: u64 = 0, [0..=1024];
    }

    "[persistence]" Persistence persistence {
        /// rocksdb (in data_dir) or memory (everything is lost when the process ends).
        store: StoreKind = StoreKind::default();
        /// What an acknowledgement guarantees:
        ///   fsync   on disk: survives a power cut
        ///   os      handed to the operating system: survives kill -9 of the broker, not a power cut
        ///   memory  in memory only: whatever is not written yet is lost when the process ends
        durability: Durability = Durability::default();
        /// Memory for data read from disk.
        block_cache: Size = mib(32), [mib(1)..=gib(1024)], store.block_cache_bytes;
        /// Memory for recent writes that are not yet in sorted files. It also bounds the log that is replayed at start.
        write_buffer: Size = mib(64), [mib(1)..=gib(16)], store.write_buffer_bytes;
        /// Disk space that must stay free. Below it, QoS 1 and 2 messages that need the store are not acknowledged until
        /// space is available again.
        min_free_disk: Size = mib(16), store.min_free_bytes;
        /// The most downtime that counts towards the expiry of messages and sessions, so that a wall clock that jumped while
        /// the broker was down does not expire everything.
        max_downtime: Period = days(30), store.max_downtime;
    } + {
        topic: Vec<TopicDurability>,
    }

    /// Overrides the durability of messages whose topic matches a filter. The first match applies. May be repeated.
    "[[persistence.topic]]" TopicDurability persistence_topic {
        /// Topic filter of the messages this applies to.
        filter: String = String::new();
        /// fsync, os or memory, as in [persistence].
        durability: Durability = Durability::default();
    }
    example "filter = \"telemetry/#\"\ndurability = \"os\""

    "[protocol]" Protocol protocol {
        /// Highest QoS that clients may publish with: 0, 1 or 2.
        max_qos: u64 = 2, [0..=2], limits.maximum_qos;
        /// Keep retained messages.
        retain_available: bool = true, limits.retain_available;
        /// Accept subscriptions with + and #.
        wildcard_subscriptions: bool = true, limits.wildcard_available;
        /// Accept shared subscriptions, $share/group/filter.
        shared_subscriptions: bool = true, limits.shared_available;
        /// Treat topics that begin with $, such as $aws/..., as ordinary topics, except those reserved by the broker ($SYS and
        /// others). If false, clients may not use them.
        dollar_topics: bool = true, limits.dollar_topics;
        /// Accept subscription identifiers (MQTT 5.0).
        subscription_identifiers: bool = true, limits.subscription_ids_available;
        /// Check that payloads marked as UTF-8 are valid UTF-8, and refuse invalid ones with 0x99 (MQTT 5.0). This reads
        /// every marked payload once more.
        check_payload_format: bool = false, limits.check_payload_format;
        /// Assign a client id to clients that send an empty one. If false, they are refused.
        allow_empty_client_id: bool = true, limits.allow_empty_client_id;
        /// Prefix of the client ids that the broker assigns.
        client_id_prefix: String = "petrel-".into(), limits.client_id_prefix;
        /// Let clients resume, take over and end sessions of other users and mount points if they know the client id.
        share_sessions: bool = false, limits.shares_sessions;
        /// Response Information for clients that request it (MQTT 5.0): the prefix of the topics they may use for
        /// responses.
        response_information: String = String::new(), limits.response_information;
        /// Keep alive that MQTT 5.0 clients must use instead of their own; "0s": they keep their own.
        server_keep_alive: Seconds = Seconds(0), [Seconds(0)..=Seconds(65_535)], limits.server_keep_alive_seconds;
        /// Longest keep alive: MQTT 5.0 clients that ask for a longer one (or none) get this one; "0s": no limit.
        max_keep_alive: Seconds = Seconds(0), [Seconds(0)..=Seconds(65_535)], limits.max_keep_alive_seconds;
        /// Longest time that a session is kept while its client is away. Longer requests are reduced to it, and so are
        /// the sessions of 3.1 and 3.1.1 clients, which otherwise never expire; "0s": no limit.
        session_expiry_max: Seconds = Seconds(0);
        /// After a crash of the broker: how long clients that were connected have to come back before their wills are
        /// published. Wills of persistent sessions follow their own delay instead.
        will_after_restart: Period = seconds(60), [seconds(0)..=hours(24)], limits.will_after_restart;
    }

    "[limits]" LimitKeys limits {
        /// Simultaneous connections across all listeners; 0: as many as the system allows (its limit on open files,
        /// less a reserve).
        max_connections: u64 = 0, accept.max_connections;
        /// Simultaneous connections from one address (in IPv6, from one /64 network); 0: no limit.
        max_connections_per_address: u64 = 0, accept.max_connections_per_address;
        /// Time from accepting a connection to receiving its complete CONNECT, including TLS and WebSocket
        /// handshakes.
        connect_timeout: Period = seconds(10), [millis(1)..=hours(1)],
            limits.connect_timeout, accept.connect_timeout;
        /// Largest packet that a client may send before CONNACK, CONNECT included. Until then the client is not
        /// authenticated. Client id, will, user name and password share it: at the default, a client id of
        /// `max_client_id_bytes` fits only if this is larger.
        max_connect_size: Size = kib(64), [Size(512)..=MAX_PACKET], limits.max_connect_bytes;
        /// Largest packet that clients may send. MQTT has no larger ones than the upper bound.
        max_packet_size: Size = mib(16), [Size(128)..=MAX_PACKET], limits.max_packet_bytes;
        /// QoS 1 and 2 messages that a client may have in flight to the broker.
        receive_maximum: u64 = 1024, [1..=65_535], limits.receive_maximum;
        /// QoS 1 and 2 messages that the broker may have in flight to a client; the client's own Receive Maximum may be lower.
        /// No more are sent while 8 MiB of messages that may have to be sent again are in flight.
        max_inflight: u64 = 4096, [1..=65_535], limits.max_inflight;
        /// Topic aliases that a client may set; 0: none.
        topic_alias_maximum: u64 = 64, [0..=65_535], limits.topic_alias_maximum;
        /// Topic aliases that the broker sets for a client, if the client allows them; 0: none.
        topic_alias_maximum_out: u64 = 64, [0..=65_535], limits.outgoing_alias_maximum;
        /// Longest client id, in bytes. The whole CONNECT also has to fit into `max_connect_size`.
        max_client_id_bytes: u64 = 65_535, [23..=65_535], limits.max_client_id_bytes;
        /// Longest topic or topic filter, in bytes.
        max_topic_bytes: u64 = 65_535, [1..=65_535], limits.max_topic_bytes;
        /// Most levels in a topic or topic filter.
        max_topic_levels: u64 = 256, [1..=65_535], limits.max_topic_levels;
        /// Sessions, including those of absent clients. A client that needs one more is refused.
        max_sessions: u64 = 1_000_000, [1..=u64::from(u32::MAX)], limits.max_sessions;
        /// Subscriptions of one session.
        max_subscriptions_per_session: u64 = 1_000_000, [1..=u64::from(u32::MAX)], limits.max_subscriptions;
        /// Memory for the subscriptions of one session, estimated from their text and levels.
        max_subscription_size_per_session: Size = mib(64), [kib(64)..=gib(64)], limits.max_subscription_bytes;
        /// Shared subscription groups that one session may belong to.
        max_groups_per_session: u64 = 1_000, [1..=u64::from(u32::MAX)], limits.max_session_groups;
        /// Shared subscription groups in total.
        max_groups: u64 = 10_000, [1..=u64::from(u32::MAX)], limits.max_groups;
        /// Distinct positions of + among topic filters that use + beyond the eighth level. Each one can make matching slower
        /// for every message whose topic nearly matches.
        max_wildcard_placements: u64 = 256, [0..=1_000_000], limits.max_wildcard_placements;
        /// Memory for cached routing plans (the recipients of a topic), beyond the few that every connection may
        /// keep.
        plan_size: Size = mib(100), [Size(0)..=gib(64)], limits.max_plan_bytes;
        /// Subscription identifiers sent with one message; if more match, the smallest are sent,
        /// and the others are counted in `petrel_subscription_ids_left_out_total`.
        max_subscription_ids: u64 = 128, [1..=65_535], limits.max_subscription_ids;
        /// Lowest allowed rate, in bytes per second, of a packet that takes longer than the keep alive or
        /// packet_timeout.
        min_upload_rate: Size = Size(64), [Size(0)..=mib(1)], limits.min_bytes_per_second;
        /// How long a packet may take at a slower rate, if the keep alive is longer or off.
        packet_timeout: Period = seconds(120), [seconds(1)..=hours(24)], limits.packet_timeout;
        /// How long a client may read nothing of what the broker sends, if its keep alive is longer or off; otherwise the limit
        /// is one and a half keep alives.
        write_timeout: Period = seconds(600), [seconds(1)..=hours(24)], limits.write_timeout;
        /// Bytes waiting to be written to one client. QoS 0 messages beyond that are dropped and counted.
        outbox_size: Size = kib(256), [kib(1)..=gib(4)], limits.outbox_bytes;
        /// Messages queued for one session, or for one shared subscription group. [[overflow]] says what happens at the
        /// limit.
        queue_messages: u64 = 10_000_000, [1..=u64::MAX];
        /// The same in bytes.
        queue_size: Size = gib(8), [kib(1)..=Size(u64::MAX)];
        /// How long a publisher waits for room under the backpressure policy.
        backpressure_wait: Period = seconds(10), [seconds(0)..=hours(1)], limits.backpressure_wait;
        /// Bytes queued for all sessions together.
        total_queue_size: Size = gib(64), [kib(1)..=Size(u64::MAX)], limits.total_queue_bytes;
        /// Bytes not yet written to disk. Beyond that, the broker stops reading from publishers until the disk has
        /// caught up.
        max_pending_size: Size = mib(64), [mib(1)..=gib(64)], limits.max_pending_bytes;
        /// Retained messages.
        retained_messages: u64 = 10_000_000, limits.max_retained;
        /// Bytes of retained messages.
        retained_size: Size = gib(2), limits.max_retained_bytes;
    }

    /// What happens when a queue is full, for messages whose topic matches a filter. The first match applies. May be
    /// repeated.
    "[[overflow]]" Overflow overflow {
        /// Topic filter of the messages this applies to.
        filter: String = String::new();
        /// What happens:
        ///   spill         the queue grows on disk up to queue_messages and queue_size, then as reject
        ///   backpressure  the broker stops reading from the publisher for up to backpressure_wait, then as reject
        ///   reject        MQTT 5.0 publishers get 0x97 Quota exceeded, others are slowed down
        ///   drop-oldest   the oldest message in the queue is dropped and counted
        ///   drop-newest   the new message is dropped and counted
        policy: OverflowPolicy = OverflowPolicy::default();
        /// Messages in the queue at which the policy applies; 0: queue_messages. Ignored with spill.
        messages: u64 = 0;
        /// Bytes in the queue at which the policy applies; 0: queue_size. Ignored with spill.
        bytes: Size = Size(0);
    }
    example "filter = \"telemetry/#\"\npolicy = \"drop-oldest\"\nmessages = 1000\nbytes = \"1MiB\""

    "[shutdown]" Shutdown shutdown {
        /// After SIGTERM or SIGINT: time to notify clients and to finish pending writes.
        grace: Period = seconds(10), [seconds(0)..=hours(1)];
    }

    "[http]" Http http {
        /// Address that serves /metrics (Prometheus), /live, /ready and /status; empty: none.
        listen: String = "127.0.0.1:9883".into();
        /// Allow an address that other machines can reach, although these pages need no password.
        allow_remote: bool = false;
    }

    "[sys]" Sys sys {
        /// How often the $SYS topics are published; "0s": never.
        interval: Period = seconds(10), [seconds(0)..=hours(24)];
    }

    "[control]" Control control {
        /// Unix socket for `petrel ctl`, relative to data_dir; empty: none.
        socket: String = "petrel.sock".into();
    }

    "[auth]" Auth auth {
        /// Users and their hashed passwords: `petrel passwd users.txt NAME` creates and edits the file.
        users_file: String = String::new(), reload = FileAgain;
        /// The same as a password file of mosquitto ($6$, $7$ and $argon2id$ hashes), unchanged. It has nothing for SCRAM.
        password_file: String = String::new(), reload = FileAgain;
        /// Access rules: who may publish, subscribe and receive what (docs/access.md). None: whoever is let in may use every
        /// topic that is not the broker's own.
        rules_file: String = String::new(), reload = FileAgain;
        /// The same as an ACL file of mosquitto, unchanged.
        acl_file: String = String::new(), reload = FileAgain;
        /// What happens to a denied message of MQTT 3.x, which has no code for it: "drop" acknowledges and drops it,
        /// "disconnect" closes the connection. Clients of 5.0 get 0x87.
        denied_publish: DeniedPublish = DeniedPublish::default(), limits.denied_publish;
    }

    /// The listeners. A listener that other machines can reach must authenticate its clients (users in [auth], or required
    /// client certificates) or set allow_anonymous = true; otherwise the broker does not start.
    "[[listener]]" Listener listener {
        /// Its name in logs and metrics; empty: its address.
        name: String = String::new(), shown = "\"mqtt\"";
        /// ADDRESS:PORT, or unix:PATH. 0.0.0.0 is every IPv4 address of the machine, [::] every IPv6 and IPv4 address.
        listen: String = "127.0.0.1:1883".into(), shown = "\"127.0.0.1:1883\"";
        /// mqtt or websocket.
        transport: ListenerTransport = ListenerTransport::default();
        /// WebSocket only: the request paths that are accepted.
        path: TextList = TextList(DEFAULT_PATHS.map(str::to_owned).into());
        /// WebSocket only: the Origin values that are accepted; none: pages of this machine, and pages served from the same
        /// host and port. "*" accepts any.
        origins: Vec<String> = Vec::new();
        /// Unix socket only: its file mode.
        unix_mode: FileMode = FileMode(0o660);
        /// Require a PROXY protocol header (version 1 or 2), as load balancers send it. The client's address is taken from
        /// it.
        proxy_protocol: bool = false;
        /// Simultaneous connections; 0: as in [limits].
        max_connections: u64 = 0;
        /// true, false or "auto": accept clients without credentials. "auto" accepts them on loopback and Unix sockets as
        /// long as there are no users.
        allow_anonymous: Switch = Switch::Auto;
        /// Prefix added to every topic of its clients, for example "site-1/".
        mount_point: String = String::new();
        /// Largest packet; 0: as in [limits].
        max_packet_size: Size = Size(0), [zero_or(Size(128)..=MAX_PACKET)];
        /// Longest keep alive; "0s": as in [protocol].
        max_keep_alive: Seconds = Seconds(0), [Seconds(0)..=Seconds(65_535)];
    } + {
        #[serde(skip_serializing_if = "Option::is_none")]
        tls: Option<Tls>,
    }
    after "\
# MQTT over TLS. `petrel certs` creates these files for development.
[[listener]]
name = \"mqtts\"
listen = \"127.0.0.1:8883\"
"

    "[listener.tls]" Tls listener_tls {
        /// Certificate chain, PEM.
        certificate: String = String::new(), reload = FileAgain, shown = "\"./certs/server.crt\"";
        /// Private key, PEM.
        key: String = String::new(), reload = FileAgain, shown = "\"./certs/server.key\"";
        /// Certificate authorities for client certificates, PEM.
        client_ca: String = String::new(), reload = FileAgain, shown = "\"./certs/ca.crt\"";
        /// none, optional (verified if presented) or required.
        client_certificate: ClientCertificate = ClientCertificate::default(), shown = "\"optional\"";
        /// Which field of the client certificate is the user name: cn (common name), san (first alternative name) or
        /// none.
        user_name_from: UserNameFrom = UserNameFrom::default();
        /// 1.2 or 1.3.
        min_version: TlsVersion = TlsVersion::default();
    }
    after "\
# MQTT over WebSocket. With [listener.tls] it is wss.
[[listener]]
name = \"websocket\"
listen = \"127.0.0.1:8083\"
transport = \"websocket\"

# Bridges: topics shared with other brokers. May be repeated; `petrel ctl bridge` adds and changes them while the broker runs.
# Each rule is `pattern [in|out|both] [qos] [local-prefix] [remote-prefix]`, as in mosquitto.
# [[bridge]]
# name = \"headquarters\"
# addresses = [\"mqtts://broker.example.com:8883\"]
# topics = [\"telemetry/# out 1\", \"commands/# in 1\"]
# username = \"site-1\"
# password_file = \"./site-1.password\"
"
}

/// The largest MQTT packet: fixed header and Remaining Length. [MQTT-2.1.4]
const MAX_PACKET: Size = Size(268_435_460);

const fn kib(count: u64) -> Size {
    Size(count << 10)
}

const fn mib(count: u64) -> Size {
    Size(count << 20)
}

const fn gib(count: u64) -> Size {
    Size(count << 30)
}

const fn millis(count: u64) -> Period {
    Period(Duration::from_millis(count))
}

const fn seconds(count: u64) -> Period {
    Period(Duration::from_secs(count))
}

const fn hours(count: u64) -> Period {
    seconds(count * 3600)
}

const fn days(count: u64) -> Period {
    hours(count * 24)
}
