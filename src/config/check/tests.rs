//! Tests of the checks.

use super::*;
use crate::config::mistake::ConfigError;
use crate::config::settings::ListenAddress;
use crate::config::source::Source;

fn settings(text: &str) -> Result<Settings, Vec<Mistake>> {
    let file = Some("petrel.toml".into());
    let source = Source { file, text: text.to_owned(), overrides: Vec::new() };
    Settings::from_source(&source).map_err(|error| match error {
        ConfigError::Mistakes(mistakes) => mistakes,
        ConfigError::Unreadable { .. } => Vec::new(),
    })
}

fn mistakes(text: &str) -> Vec<String> {
    settings(text).err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

#[test]
fn the_defaults_are_correct_and_listen_on_loopback() {
    let settings = Settings::default();
    let [listener] = &settings.listeners[..] else { panic!("one listener") };
    assert_eq!(listener.address, ListenAddress::Tcp("127.0.0.1:1883".parse().unwrap()));
    assert!(listener.rules.allow_anonymous);
    assert_eq!(settings.limits.durability, Durability::Fsync);
    assert_eq!(settings.control_socket, Some("./data/petrel.sock".into()));
    assert!(settings.limits.max_packet_bytes > 1 << 20);
}

#[test]
fn a_door_to_the_network_needs_authentication_or_the_word() {
    for address in ["0.0.0.0:1883", "[::]:1883", "192.168.1.1:1883"] {
        let text = format!("[[listener]]\nname = \"a\"\nlisten = \"{address}\"\n");
        let found = mistakes(&text);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("petrel.toml:1:"), "{found:?}");
        assert!(found[0].contains("petrel passwd"), "{found:?}");
        assert!(found[0].contains("allow_anonymous = true"), "{found:?}");

        let open = settings(&format!("{text}allow_anonymous = true\n")).unwrap();
        assert!(open.listeners[0].rules.allow_anonymous);

        let users = settings(&format!("{text}[auth]\nusers_file = \"users.txt\"\n")).unwrap();
        assert!(!users.listeners[0].rules.allow_anonymous);

        let tls = "[listener.tls]\ncertificate = \"a\"\nkey = \"b\"\nclient_ca = \"c\"\n";
        let required = format!("{text}{tls}client_certificate = \"required\"\n");
        let required = settings(&required).unwrap();
        assert!(!required.listeners[0].rules.allow_anonymous);
        assert!(required.listeners[0].rules.certificate_as_user_name);

        // Clients without a certificate are refused, unless anonymous Clients are allowed.
        let optional = format!("{text}{tls}client_certificate = \"optional\"\n");
        assert!(!settings(&optional).unwrap().listeners[0].rules.allow_anonymous);
        let nameless = mistakes(&format!("{optional}user_name_from = \"none\"\n"));
        assert_eq!(nameless.len(), 1, "nobody could come in: {nameless:?}");
    }
}

#[test]
fn loopback_and_unix_sockets_are_open_until_there_are_users() {
    let local =
        ["127.0.0.1:1", "127.3.2.1:1", "[::1]:1", "localhost:1", "[::ffff:127.0.0.1]:1", "unix:a"];
    for address in local {
        let text = format!("[[listener]]\nlisten = \"{address}\"\n");
        let open = settings(&text).unwrap();
        assert!(open.listeners[0].rules.allow_anonymous, "{address}");
        let users = settings(&format!("{text}[auth]\nusers_file = \"users.txt\"\n")).unwrap();
        assert!(!users.listeners[0].rules.allow_anonymous, "{address}");
    }
    let closed = mistakes("[[listener]]\nallow_anonymous = false\n");
    assert!(closed[0].contains("there are no users"), "{closed:?}");
}

#[test]
fn values_out_of_range_are_all_reported() {
    let text = r#"
[limits]
receive_maximum = 0
max_inflight = 70000
max_packet_size = "1GiB"
max_client_id_bytes = 5
connect_timeout = "0s"
[protocol]
max_qos = 3
server_keep_alive = "1500ms"
client_id_prefix = "a b"
[persistence]
block_cache = "1KiB"
[[persistence.topic]]
filter = "a/#/b"
[[overflow]]
filter = "a+"
[[overflow]]
filter = ""
[http]
listen = "9883"
"#;
    let found = mistakes(text);
    let keys = [
        (7, "limits.connect_timeout"),
        (5, "limits.max_packet_size"),
        (3, "limits.receive_maximum"),
        (4, "limits.max_inflight"),
        (6, "limits.max_client_id_bytes"),
        (9, "protocol.max_qos"),
        (11, "protocol.client_id_prefix"),
        (10, "protocol.server_keep_alive"),
        (15, "persistence.topic[0].filter"),
        (13, "persistence.block_cache"),
        (17, "overflow[0].filter"),
        (19, "overflow[1].filter"),
        (21, "http.listen"),
    ];
    assert_eq!(found.len(), keys.len(), "{found:#?}");
    for (line, key) in keys {
        let start = format!("petrel.toml:{line}:");
        let hit = found.iter().any(|mistake| mistake.starts_with(&start) && mistake.contains(key));
        assert!(hit, "{line} {key} in {found:#?}");
    }
}

#[test]
fn listeners_must_differ() {
    let same = mistakes("[[listener]]\nname = \"a\"\n[[listener]]\nname = \"b\"\n");
    assert!(same[0].contains("another listener"), "{same:?}");
    let any = "[[listener]]\nname = \"a\"\nlisten = \"127.0.0.1:0\"\n";
    assert!(settings(&format!("{any}{}", any.replace("\"a\"", "\"b\""))).is_ok());
    let names = mistakes(&format!("{any}{any}"));
    assert!(names[0].contains("name"), "{names:?}");
}

#[test]
fn tls_needs_its_files() {
    let found = mistakes("[[listener]]\n[listener.tls]\nclient_certificate = \"required\"\n");
    assert_eq!(found.len(), 3, "{found:?}");
    let found = mistakes(
        "[[listener]]\n[listener.tls]\ncertificate = \"a\"\nkey = \"b\"\nclient_ca = \"c\"\n",
    );
    assert!(found[0].contains("client certificates are not requested"), "{found:?}");
}

#[test]
fn a_mistake_in_a_listener_does_not_breed_others() {
    let found = mistakes("[[listener]]\nlisten = \"0.0.0.0:1\"\nallow_anonymous = \"yes\"\n");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("true, false or \"auto\""), "{found:?}");
}

#[test]
fn a_store_in_memory_promises_no_more_than_memory() {
    let text = "[persistence]\nstore = \"memory\"\n[[persistence.topic]]\nfilter = \"a\"\n";
    let limits = settings(text).unwrap().limits;
    assert_eq!(limits.durability, Durability::Memory);
    assert_eq!(limits.topic_durability[0].0.as_str(), "a");
    assert_eq!(limits.topic_durability[0].1, Durability::Memory);
}

#[test]
fn unset_bounds_of_a_rule_follow_the_general_ones() {
    let text = "[limits]\nqueue_messages = 5\n[[overflow]]\nfilter = \"a\"\npolicy = \"reject\"\nbytes = \"1MiB\"\n";
    let limits = settings(text).unwrap().limits.queue_of("a");
    assert_eq!((limits.max_messages, limits.max_bytes), (5, 1 << 20));
}

/// `spill` and `reject` used to behave the same. A queue that spills grows up to the limits of its Session; one that
/// rejects stops at the numbers of the rule.
#[test]
fn a_rule_that_spills_does_not_make_queues_shorter() {
    let rule = |policy: &str| {
        let text = format!("[[overflow]]\nfilter = \"a/#\"\npolicy = \"{policy}\"\nmessages = 3\n");
        settings(&text).unwrap().limits.queue_of("a/b").max_messages
    };
    assert_eq!(rule("spill"), 10_000_000);
    assert_eq!(rule("reject"), 3);
    assert_eq!(rule("backpressure"), 3);
}

#[test]
fn the_core_has_by_default_what_ships() {
    let shipped = include_str!("../../../config/petrel.toml");
    let shipped = settings(shipped).unwrap().limits;
    assert_eq!(format!("{shipped:?}"), format!("{:?}", Limits::default()));
    assert_eq!((shipped.max_topic_levels, shipped.outgoing_alias_maximum), (256, 64));
    assert_eq!((shipped.queue.max_bytes, &*shipped.client_id_prefix), (8 << 30, "petrel-"));
}

#[test]
fn metrics_for_the_network_need_the_word() {
    let found = mistakes("[http]\nlisten = \"0.0.0.0:9883\"\n");
    assert!(found[0].contains("allow_remote = true"), "{found:?}");
    let open = settings("[http]\nlisten = \"0.0.0.0:9883\"\nallow_remote = true\n").unwrap();
    assert_eq!(open.http_listen, Some("0.0.0.0:9883".parse().unwrap()));
    assert_eq!(settings("[http]\nlisten = \"\"\n").unwrap().http_listen, None);
}

#[test]
fn bridges_are_checked_and_their_mistakes_have_a_place() {
    let good =
        "[[bridge]]\nname = \"b\"\naddresses = [\"mqtt://192.0.2.1\"]\ntopics = [\"a/# out 1\"]\n";
    assert_eq!(settings(good).unwrap().bridges[0].name, "b");
    let found = mistakes("[[bridge]]\nname = \"a b\"\n[[bridge]]\nnam = \"c\"\n");
    assert!(found[0].starts_with("petrel.toml:2:8: bridge[0].name: "), "{found:?}");
    assert!(found.iter().any(|mistake| mistake.contains("did you mean `name`?")), "{found:?}");
    let twice = mistakes(&format!("{good}{good}"));
    assert!(twice[0].starts_with("petrel.toml:6:8: bridge[1].name: "), "{twice:?}");
}
