//! Tests of reading: every mistake is found, with its location and fix.

use proptest::prelude::*;

use super::*;
use crate::config::settings::Settings;

fn source(text: &str, variables: &[(&str, &str)]) -> Source {
    let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
    let overrides = environment::overrides(variables);
    Source { file: Some("petrel.toml".into()), text: text.to_owned(), overrides }
}

fn mistakes(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
    source(text, variables).parse().mistakes.iter().map(ToString::to_string).collect()
}

fn read(text: &str, variables: &[(&str, &str)]) -> File {
    let source = source(text, variables);
    let reading = source.parse();
    assert_eq!(reading.mistakes, [], "{text}");
    reading.file
}

#[test]
fn an_empty_file_means_the_defaults() {
    assert_eq!(read("", &[]), File::default());
}

#[test]
fn an_unknown_key_says_its_place_and_the_key_that_was_meant() {
    let found = mistakes("[limits]\n  max_packet_siz = \"1MiB\"\n", &[]);
    assert_eq!(
        found,
        [
            "petrel.toml:2:3: limits.max_packet_siz: unknown key\n    did you mean `max_packet_size`?"
        ]
    );
}

#[test]
fn a_key_in_the_wrong_section_is_sent_home() {
    let found = mistakes("[log]\nreceive_maximum = 5\n", &[]);
    assert_eq!(
        found,
        ["petrel.toml:2:1: log.receive_maximum: unknown key\n    this key belongs to [limits]"]
    );
    let found = mistakes("[http]\nclient_ca = \"x\"\n", &[]);
    assert!(found[0].contains("[listener.tls]"), "{found:?}");
}

#[test]
fn all_mistakes_are_found_at_once() {
    let text = r#"
data_dirr = "x"
[log]
level = "inof"
[limits]
connect_timeout = 30
max_packet_size = "16 Mebi"
receive_maximum = "many"
[[listener]]
listen = 1883
[[listener]]
tls = { certficate = "a" }
"#;
    let found = mistakes(text, &[("PETREL_SYS__INTERVAL", "often")]);
    let expected = [
        "petrel.toml:2:1: data_dirr: unknown key\n    did you mean `data_dir`?",
        "petrel.toml:4:9: log.level: unknown value \"inof\"\n    did you mean \"info\"? \
         Known: \"off\", \"error\", \"warn\", \"info\", \"debug\", \"trace\"",
        "petrel.toml:6:19: limits.connect_timeout: wrong value: found integer `30`\n    \
         write a duration such as \"500ms\", \"30s\", \"5m\", \"1h 30m\" or \"7days\"",
        "petrel.toml:7:19: limits.max_packet_size: wrong value: found text \"16 Mebi\"\n    \
         write a size such as \"64KiB\", \"16MiB\" or \"1GiB\"",
        "petrel.toml:8:19: limits.receive_maximum: wrong type: found text \"many\"\n    \
         write a whole number from 0",
        "petrel.toml:10:10: listener[0].listen: wrong type: found integer `1883`\n    \
         write a string in quotes",
        "petrel.toml:12:9: listener[1].tls.certficate: unknown key\n    \
         did you mean `certificate`?",
        "environment variable PETREL_SYS__INTERVAL: sys.interval: wrong value: found text \
         \"often\"\n    write a duration such as \"500ms\", \"30s\", \"5m\", \"1h 30m\" or \"7days\"",
    ];
    assert_eq!(found, expected);
}

#[test]
fn broken_syntax_is_reported_with_its_place_and_without_follow_ups() {
    let found = mistakes("[log\nlevel = 3\n[limits]\nreceive_maximum = \"x\"\n", &[]);
    assert!(!found.is_empty());
    assert!(found.iter().all(|mistake| !mistake.contains("receive_maximum")), "{found:?}");
    assert!(found[0].starts_with("petrel.toml:1:5"), "{found:?}");
    let found = mistakes("data_dir = \"a\"\ndata_dir = \"b\"\n", &[]);
    assert!(found[0].starts_with("petrel.toml:2:1"), "{found:?}");
}

#[test]
fn variables_override_the_file() {
    let text = "[limits]\nreceive_maximum = 5\n[[listener]]\nname = \"tls-one\"\n[[listener]]\n";
    let variables = [
        ("PETREL_DATA_DIR", "/srv/petrel"),
        ("PETREL_LIMITS__RECEIVE_MAXIMUM", "7"),
        ("PETREL_LIMITS__MAX_PACKET_SIZE", "1MiB"),
        ("PETREL_PROTOCOL__RETAIN_AVAILABLE", "false"),
        ("PETREL_PROTOCOL__CLIENT_ID_PREFIX", "123"),
        ("PETREL_LISTENER__TLS_ONE__LISTEN", "127.0.0.1:1"),
        ("PETREL_LISTENER__1__TLS__KEY", "k.pem"),
        ("PETREL_LISTENER__2__ORIGINS", "[\"https://a\"]"),
        ("PETREL_OVERFLOW__0__FILTER", "a/#"),
        ("PETREL_PERSISTENCE__TOPIC__0__DURABILITY", "os"),
        ("PETREL_LOG__MODULES", "{ \"petrel::net\" = \"debug\" }"),
    ];
    let file = read(text, &variables);
    assert_eq!(file.data_dir, "/srv/petrel");
    assert_eq!(file.limits.receive_maximum, 7);
    assert_eq!(file.limits.max_packet_size.0, 1 << 20);
    assert!(!file.protocol.retain_available);
    assert_eq!(file.protocol.client_id_prefix, "123");
    assert_eq!(file.listener[0].listen, "127.0.0.1:1");
    assert_eq!(file.listener[1].tls.as_ref().unwrap().key, "k.pem");
    assert_eq!(file.listener[2].origins, ["https://a"]);
    assert_eq!(file.overflow[0].filter, "a/#");
    assert_eq!(file.persistence.topic[0].durability, crate::durable::Durability::Os);
    assert_eq!(file.log.modules["petrel::net"], crate::config::choice::Level::Debug);
}

#[test]
fn variables_that_are_no_keys_of_ours_are_left_alone() {
    let variables =
        [("PETREL_CONFIG", "x"), ("PETREL_PORT", "tcp://10.0.0.1:1883"), ("PETRELX__A", "b")];
    assert_eq!(read("", &variables), File::default());
}

#[test]
fn mistakes_in_variables_name_the_variable() {
    let cases = [
        (("PETREL_LIMIT__QUEUE_MESSAGES", "5"), "limit: unknown key\n    did you mean `limits`?"),
        (("PETREL_LISTENER__5__LISTEN", "x"), "`listener` has 1 entries; 1 appends one"),
        (("PETREL_LISTENER__NONE__LISTEN", "x"), "no entry of `listener` is called `none`"),
        (("PETREL_LISTENER__0", "x"), "an entry of `listener` has keys"),
        (("PETREL_DATA_DIR__SUB", "x"), "data_dir: wrong type"),
        (("PETREL_LOG____LEVEL", "x"), "is empty"),
        (("PETREL_LOG__LEVEL__DEEP", "x"), "`log.level` has no keys inside it"),
    ];
    for ((name, value), expected) in cases {
        let found = mistakes("[log]\nlevel = \"info\"\n[[listener]]\n", &[(name, value)]);
        assert_eq!(found.len(), 1, "{name}: {found:?}");
        let start = format!("environment variable {name}: ");
        assert!(found[0].starts_with(&start) && found[0].contains(expected), "{found:?}");
    }
}

/// Pieces that together look like a configuration, more or less.
fn piece() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "[limits]",
        "[[listener]]",
        "[listener.tls]",
        "[log]",
        "[[overflow]]",
        "[[bridge]]",
        "listen",
        "level",
        "name",
        "filter",
        "max_packet_size",
        "data_dir",
        " = ",
        "\"\"",
        "\"127.0.0.1:1\"",
        "\"info\"",
        "true",
        "0",
        "-1",
        "99999999999999999999",
        "{ a = 1 }",
        "[",
        "]",
        "{",
        "}",
        "\n",
        ".",
        "\"64KiB\"",
        "'",
        "\"\"\"",
        "# x",
        "1979-05-27",
        "\u{e4}",
        "\r\n",
        "\0",
    ]);
    prop_oneof![8 => known.prop_map(str::to_owned), 1 => any::<String>()]
}

proptest! {
    /// Reading ends for any file and variables, and its reports can be shown.
    #[test]
    fn no_text_panics(
        pieces in prop::collection::vec(piece(), 0..40),
        variables in prop::collection::vec((piece(), piece()), 0..4),
    ) {
        let variables = variables.into_iter().map(|(name, value)| {
            (format!("PETREL_{name}__X").into(), value.into())
        });
        let overrides = environment::overrides(variables);
        let source = Source { file: Some("petrel.toml".into()), text: pieces.concat(), overrides };
        if let Err(error) = Settings::from_source(&source) {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
