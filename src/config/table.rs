//! Every setting, each defined once. From this table come the structs that the file is read into, the defaults, the checks of
//! bounds, the names of the environment variables, the limits of the core, `config/petrel.toml` and the tables of
//! `docs/configuration.md`.
//!
//! To add a setting:
//!
//! 1. add a field to the struct of the layer that uses it: `broker::limits::Limits` (`limits.FIELD` below),
//!    `config::settings::AcceptLimits` (`accept.FIELD`) or `store::settings::StoreSettings` (`store.FIELD`);
//! 2. add an entry here: `/// what it means` and then `key: type = default, [bounds], limits.field;`;
//! 3. run `make settings`, which writes `config/petrel.toml` and `docs/configuration.md` again.
//!
//! Bounds, field and `reload = …` may be left out; what has no field is converted by hand in `check`. Types are `u64`, `bool`,
//! `String`, `Size`, `Period`, `Seconds` (whole seconds), lists, and the words of `choice`. `zero_or(a..=b)` allows 0 besides.
//! Tests build on `Limits::default()`: it is what this table says, so they run with what ships.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::broker::limits::{CROWDED_WAIT, Limits};
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

/// Paths that common WebSocket clients of MQTT ask for.
pub const DEFAULT_PATHS: [&str; 3] = ["/", "/mqtt", "/ws"];

settings! {
    "" File file {
        /// Where sessions, queued and retained messages are kept.
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
        /// off, error, warn, info, debug (what clients do wrong) or trace (every packet).
        level: Level = Level::default();
        /// human (text) or json (one object for each line).
        format: LogFormat = LogFormat::default();
        /// Other levels for single modules, for instance { "petrel::net" = "debug", "petrel::bridge" = "trace" }.
        /// Libraries are heard from `warn` on, unless they are named here.
        modules: BTreeMap<String, Level> = BTreeMap::new();
    }

    "[runtime]" Runtime runtime {
        /// Worker threads; 0: one for each core.
        worker_threads: u64 = 0, [0..=1024];
    }

    "[persistence]" Persistence persistence {
        /// rocksdb (in data_dir) or memory (all is lost with the process).
        store: StoreKind = StoreKind::default();
        /// What an acknowledgement stands for:
        ///   fsync   on disk: survives a power cut
        ///   os      with the operating system: survives kill -9 of the broker, not a power cut
        ///   memory  nothing is waited for: what was not written yet is lost with the process
        durability: Durability = Durability::default();
        /// Memory for what is read from disk.
        block_cache: Size = mib(32), [mib(1)..=gib(1024)], store.block_cache_bytes;
        /// Memory for what was written and is not yet sorted into files. Also bounds the log that is replayed at start.
        write_buffer: Size = mib(64), [mib(1)..=gib(16)], store.write_buffer_bytes;
        /// Free disk space that the store leaves alone. Below it QoS 1 and 2 are no longer acknowledged, until there is more.
        min_free_disk: Size = mib(16), store.min_free_bytes;
        /// The longest time that a stop of the broker counts for, when messages and sessions expire: a wall clock that leapt
        /// while the broker was down does not expire everything.
        max_downtime: Period = days(30), store.max_downtime;
    } + {
        topic: Vec<TopicDurability>,
    }

    /// Another durability for messages whose topic matches a filter; the first match counts. May be repeated.
    "[[persistence.topic]]" TopicDurability persistence_topic {
        /// Topic filter of the messages meant.
        filter: String = String::new();
        /// fsync, os or memory, as under [persistence].
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
        /// Take topics that begin with $, such as $aws/..., as ordinary ones, unless the broker owns them ($SYS and others). If
        /// false, clients may not use them.
        dollar_topics: bool = true, limits.dollar_topics;
        /// Accept subscription identifiers (MQTT 5.0).
        subscription_identifiers: bool = true, limits.subscription_ids_available;
        /// Check that payloads marked as UTF-8 are UTF-8, and refuse others with 0x99 (MQTT 5.0). Costs a pass over each of
        /// them.
        check_payload_format: bool = false, limits.check_payload_format;
        /// Give clients with an empty client id one of our making. If false, they are refused.
        allow_empty_client_id: bool = true, limits.allow_empty_client_id;
        /// How such client ids begin.
        client_id_prefix: String = "petrel-".into(), limits.client_id_prefix;
        /// Let clients resume, take over and end sessions of other users and mount points, if they know the client id.
        share_sessions: bool = false, limits.shares_sessions;
        /// Response Information for clients that ask for it (MQTT 5.0): the beginning of topics they may use for responses.
        response_information: String = String::new(), limits.response_information;
        /// Keep alive that MQTT 5.0 clients are told to use; "0s": their own.
        server_keep_alive: Seconds = Seconds(0), [Seconds(0)..=Seconds(65_535)], limits.server_keep_alive_seconds;
        /// Longest keep alive: MQTT 5.0 clients that want a longer one (or none) are told this one; "0s": no limit.
        max_keep_alive: Seconds = Seconds(0), [Seconds(0)..=Seconds(65_535)], limits.max_keep_alive_seconds;
        /// Longest life of a session without its client. Longer wishes, and those of 3.1 and 3.1.1 clients (which know no
        /// end), are cut to it; "0s": no limit.
        session_expiry_max: Seconds = Seconds(0);
        /// After a crash of the broker: how long clients that were connected may stay away before their wills are published.
        /// Those of sessions that last follow their own delay instead.
        will_after_restart: Period = seconds(60), [seconds(0)..=hours(24)], limits.will_after_restart;
    }

    "[limits]" LimitKeys limits {
        /// Connections at a time, over all listeners; 0: as many as the system allows (its limit of open files, less a
        /// reserve).
        max_connections: u64 = 0, accept.max_connections;
        /// Connections of one address at a time (of one network of 64 bits in IPv6); 0: no limit.
        max_connections_per_address: u64 = 0, accept.max_connections_per_address;
        /// From accepting a connection to the end of its CONNECT, TLS and WebSocket handshakes included.
        connect_timeout: Period = seconds(10), [millis(1)..=hours(1)],
            limits.connect_timeout, accept.connect_timeout;
        /// Largest CONNECT, and whatever else comes before its answer. Nobody knows yet who sends it.
        max_connect_size: Size = kib(64), [Size(512)..=MAX_PACKET], limits.max_connect_bytes;
        /// Largest packet that clients may send.
        max_packet_size: Size = mib(16), [Size(128)..=MAX_PACKET], limits.max_packet_bytes;
        /// QoS 1 and 2 messages that a client may have in flight towards the broker.
        receive_maximum: u64 = 1024, [1..=65_535], limits.receive_maximum;
        /// QoS 1 and 2 messages that the broker has in flight towards a client; the client's own Receive Maximum may be lower.
        max_inflight: u64 = 1024, [1..=65_535], limits.max_inflight;
        /// Topic aliases that a client may set; 0: none.
        topic_alias_maximum: u64 = 64, [0..=65_535], limits.topic_alias_maximum;
        /// Topic aliases that the broker sets towards a client, if the client allows; 0: none.
        topic_alias_maximum_out: u64 = 64, [0..=65_535], limits.outgoing_alias_maximum;
        /// Longest client id, in bytes.
        max_client_id_bytes: u64 = 65_535, [23..=65_535], limits.max_client_id_bytes;
        /// Longest topic and topic filter, in bytes.
        max_topic_bytes: u64 = 65_535, [1..=65_535], limits.max_topic_bytes;
        /// Most levels of a topic and of a topic filter.
        max_topic_levels: u64 = 256, [1..=65_535], limits.max_topic_levels;
        /// Sessions, those of absent clients included. A client that would begin one more is refused.
        max_sessions: u64 = 1_000_000, [1..=u64::from(u32::MAX)], limits.max_sessions;
        /// Subscriptions of one session.
        max_subscriptions_per_session: u64 = 1_000_000, [1..=u64::from(u32::MAX)], limits.max_subscriptions;
        /// Memory that the subscriptions of one session may take, estimated from their texts and levels.
        max_subscription_size_per_session: Size = mib(64), [kib(64)..=gib(64)], limits.max_subscription_bytes;
        /// Groups of shared subscriptions that one session may be a member of.
        max_groups_per_session: u64 = 1_000, [1..=u64::from(u32::MAX)], limits.max_session_groups;
        /// Groups of shared subscriptions.
        max_groups: u64 = 10_000, [1..=u64::from(u32::MAX)], limits.max_groups;
        /// Different places of + in topic filters, of those that have one beyond the eighth level. Each may make every message
        /// to a topic that nearly matches it dearer.
        max_wildcard_placements: u64 = 256, [0..=1_000_000], limits.max_wildcard_placements;
        /// Memory for plans (where the messages of a topic go) that connections keep, beyond a few for each.
        plan_size: Size = mib(100), [Size(0)..=gib(64)], limits.max_plan_bytes;
        /// Subscription identifiers sent with one message; one that matches more carries the smallest.
        max_subscription_ids: u64 = 128, [1..=65_535], limits.max_subscription_ids;
        /// Bytes each second that a packet must bring which takes longer to send than the keep alive, or than packet_timeout.
        min_upload_rate: Size = Size(64), [Size(0)..=mib(1)], limits.min_bytes_per_second;
        /// How long a packet may take without bringing that much, where the keep alive is longer or off.
        packet_timeout: Period = seconds(120), [seconds(1)..=hours(24)], limits.packet_timeout;
        /// How long a client may read nothing of what is sent to it, where the keep alive is longer or off; else it is one and a
        /// half keep alives.
        write_timeout: Period = seconds(600), [seconds(1)..=hours(24)], limits.write_timeout;
        /// Bytes that wait to be written to one client. QoS 0 beyond them is dropped, and counted.
        outbox_size: Size = kib(256), [kib(1)..=gib(4)], limits.outbox_bytes;
        /// Messages that wait for one session, or for one group of a shared subscription. What happens then: [[overflow]].
        queue_messages: u64 = 10_000_000, [1..=u64::MAX];
        /// The same in bytes.
        queue_size: Size = gib(8), [kib(1)..=Size(u64::MAX)];
        /// How long a publisher waits for room under the policy backpressure.
        backpressure_wait: Period = seconds(10), [seconds(0)..=hours(1)], limits.backpressure_wait;
        /// Bytes that wait for all sessions together.
        total_queue_size: Size = gib(64), [kib(1)..=Size(u64::MAX)], limits.total_queue_bytes;
        /// Bytes on their way to the disk. Beyond them publishers are not read until the disk has caught up.
        max_pending_size: Size = mib(64), [mib(1)..=gib(64)], limits.max_pending_bytes;
        /// Retained messages.
        retained_messages: u64 = 10_000_000, limits.max_retained;
        /// Bytes of retained messages.
        retained_size: Size = gib(2), limits.max_retained_bytes;
    }

    /// What happens when a queue is full, for messages whose topic matches a filter; the first match counts. May be repeated.
    "[[overflow]]" Overflow overflow {
        /// Topic filter of the messages meant.
        filter: String = String::new();
        /// What happens:
        ///   spill         the queue goes on in the store up to queue_messages and queue_size, then as reject
        ///   backpressure  the publisher is not read until there is room, at most for backpressure_wait, then as reject
        ///   reject        MQTT 5.0 publishers are told 0x97 Quota exceeded, others are slowed
        ///   drop-oldest   the oldest message of the queue is dropped, and counted
        ///   drop-newest   the new message is dropped, and counted
        policy: OverflowPolicy = OverflowPolicy::default();
        /// Messages in the queue at which it happens; 0: queue_messages. Of no effect with spill.
        messages: u64 = 0;
        /// Bytes in the queue at which it happens; 0: queue_size. Of no effect with spill.
        bytes: Size = Size(0);
    }
    example "filter = \"telemetry/#\"\npolicy = \"drop-oldest\"\nmessages = 1000\nbytes = \"1MiB\""

    "[shutdown]" Shutdown shutdown {
        /// After SIGTERM or SIGINT: time to tell clients and to write what is in hand.
        grace: Period = seconds(10), [seconds(0)..=hours(1)];
    }

    "[http]" Http http {
        /// Where /metrics (Prometheus), /live and /ready are served; empty: nowhere.
        listen: String = "127.0.0.1:9883".into();
        /// Listen on an address that other machines can reach, although nobody is asked for a password there.
        allow_remote: bool = false;
    }

    "[sys]" Sys sys {
        /// How often the $SYS topics are published; "0s": never.
        interval: Period = seconds(10), [seconds(0)..=hours(24)];
    }

    "[control]" Control control {
        /// Unix socket of `petrel ctl`, relative to data_dir; empty: none.
        socket: String = "petrel.sock".into();
    }

    "[auth]" Auth auth {
        /// Users and their hashed passwords: `petrel passwd users.txt NAME` makes and edits the file.
        users_file: String = String::new(), reload = FileAgain;
    }

    /// The listeners. One on an address that others can reach is refused at start unless it asks clients who they are (users
    /// under [auth], or required client certificates), or says allow_anonymous = true.
    "[[listener]]" Listener listener {
        /// Its name in logs and metrics; empty: its address.
        name: String = String::new(), shown = "\"mqtt\"";
        /// ADDRESS:PORT, or unix:PATH. 0.0.0.0 stands for every IPv4 address of the machine, [::] for every IPv6 and IPv4
        /// address.
        listen: String = "127.0.0.1:1883".into(), shown = "\"127.0.0.1:1883\"";
        /// mqtt or websocket.
        transport: ListenerTransport = ListenerTransport::default();
        /// WebSocket only: the paths of requests that are let in.
        path: TextList = TextList(DEFAULT_PATHS.map(str::to_owned).into());
        /// WebSocket only: the Origin values that are let in; none: pages of this machine and of the very host and port that
        /// they call. "*" stands for every one.
        origins: Vec<String> = Vec::new();
        /// Unix socket only: its file mode.
        unix_mode: FileMode = FileMode(0o660);
        /// Demand a PROXY protocol header (version 1 or 2) first, as load balancers send it. The client's address is taken
        /// from it.
        proxy_protocol: bool = false;
        /// Connections at a time; 0: as under [limits].
        max_connections: u64 = 0;
        /// true, false or "auto": let clients in that do not say who they are. "auto" does so on loopback and Unix sockets
        /// while there are no users.
        allow_anonymous: Switch = Switch::Auto;
        /// Where its clients live: stands before every topic of theirs, for instance "site-1/".
        mount_point: String = String::new();
        /// Largest packet; 0: as under [limits].
        max_packet_size: Size = Size(0), [zero_or(Size(128)..=MAX_PACKET)];
        /// Longest keep alive; "0s": as under [protocol].
        max_keep_alive: Seconds = Seconds(0), [Seconds(0)..=Seconds(65_535)];
    } + {
        #[serde(skip_serializing_if = "Option::is_none")]
        tls: Option<Tls>,
    }
    after "\
# MQTT over TLS. `petrel certs` makes these files for development.
[[listener]]
name = \"mqtts\"
listen = \"127.0.0.1:8883\"
"

    "[listener.tls]" Tls listener_tls {
        /// Certificate chain, PEM.
        certificate: String = String::new(), reload = FileAgain, shown = "\"./certs/server.crt\"";
        /// Private key, PEM.
        key: String = String::new(), reload = FileAgain, shown = "\"./certs/server.key\"";
        /// Authorities that sign client certificates, PEM.
        client_ca: String = String::new(), reload = FileAgain, shown = "\"./certs/ca.crt\"";
        /// none, optional (checked if presented) or required.
        client_certificate: ClientCertificate = ClientCertificate::default(), shown = "\"optional\"";
        /// Which name in a client's certificate is its user name: cn (common name), san (first alternative name) or none.
        user_name_from: UserNameFrom = UserNameFrom::default();
        /// 1.2 or 1.3.
        min_version: TlsVersion = TlsVersion::default();
    }
    after "\
# MQTT inside WebSocket. With [listener.tls] it is wss.
[[listener]]
name = \"websocket\"
listen = \"127.0.0.1:8083\"
transport = \"websocket\"

# Bridges: topics shared with other brokers. May be repeated; `petrel ctl bridge` adds and changes them while the broker runs.
# Each rule says `pattern [in|out|both] [qos] [local-prefix] [remote-prefix]`, as in mosquitto.
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
