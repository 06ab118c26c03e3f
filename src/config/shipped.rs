//! Checks `config/petrel.toml` against the code: it must show every key with its explanation and actual default.

use std::collections::BTreeSet;

use crate::config::bridge::BridgeFile;
use crate::config::choice::ClientCertificate;
use crate::config::description::annotated;
use crate::config::documentation::{BEGIN, END, documented};
use crate::config::settings::{ListenAddress, Settings, Transport};
use crate::config::source::Source;
use crate::config::table::{
    DEFAULT_PATHS, File, Listener, Overflow, Tls, TopicDurability, sections,
};

const SHIPPED: &str = include_str!("../../config/petrel.toml");
const DOCUMENTATION: &str = include_str!("../../docs/configuration.md");

/// Reads the file after applying `change` to each line.
fn read(change: impl FnMut(&str) -> String) -> File {
    let text = SHIPPED.lines().map(change).collect::<Vec<_>>().join("\n");
    let source = Source { file: Some("petrel.toml".into()), text, overrides: Vec::new() };
    let reading = source.parse();
    assert_eq!(reading.mistakes, []);
    reading.file
}

/// A line that shows a default: `#key = value`.
fn uncomment_default(line: &str) -> Option<String> {
    let rest = line.strip_prefix('#')?;
    let key = rest.split(" = ").next()?;
    let plain =
        !key.is_empty() && key.chars().all(|c| c.is_ascii_lowercase() || "_0123456789".contains(c));
    (plain && key.len() < rest.len()).then(|| rest.to_owned())
}

/// A line of an example section: `# [[overflow]]` and the `# key = value` below it.
fn uncomment_examples() -> impl FnMut(&str) -> String {
    let mut inside = false;
    move |line| {
        let rest = line.strip_prefix("# ").unwrap_or_default();
        inside = rest.starts_with("[[") || inside && rest.contains(" = ");
        if inside { rest.to_owned() } else { line.to_owned() }
    }
}

/// Checks that a file equals what the table generates, or rewrites it when `make settings` asks for that.
fn hold(path: &str, is: &str, wanted: &str) {
    if std::env::var_os("PETREL_WRITE_SETTINGS").is_some() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        return std::fs::write(path, wanted).unwrap();
    }
    let difference = is.lines().zip(wanted.lines()).find(|(is, wanted)| is != wanted);
    assert!(is == wanted, "{path} is not what the table says, run `make settings`: {difference:?}");
}

#[test]
fn the_shipped_file_says_what_the_table_says() {
    hold("config/petrel.toml", SHIPPED, &annotated());
}

#[test]
fn the_documentation_says_what_the_table_says() {
    let (before, rest) = DOCUMENTATION.split_once(BEGIN).expect("where it begins");
    let (_, after) = rest.split_once(END).expect("where it ends");
    let wanted = format!("{before}{BEGIN}{}\n{END}{after}", documented());
    hold("docs/configuration.md", DOCUMENTATION, &wanted);
}

#[test]
fn every_key_has_a_text_and_a_place() {
    let mut seen = BTreeSet::new();
    for section in sections() {
        for setting in &section.settings {
            assert!(!setting.text.is_empty(), "{} {}", section.header, setting.key);
            assert!(seen.insert((section.header, setting.key)));
        }
    }
    assert!(seen.len() > 60);
}

fn keys<T: serde::Serialize>(value: &T) -> BTreeSet<String> {
    toml::Table::try_from(value).unwrap().keys().cloned().collect()
}

#[test]
fn the_defaults_shown_are_the_defaults_in_force() {
    let shown = read(|line| uncomment_default(line).unwrap_or_else(|| line.to_owned()));
    let first = Listener { name: "mqtt".into(), ..Listener::default() };
    assert_eq!(shown.listener[0], first);
    let tls = shown.listener[1].tls.clone().unwrap();
    let shown_tls = Tls {
        certificate: "./certs/server.crt".into(),
        key: "./certs/server.key".into(),
        client_ca: "./certs/ca.crt".into(),
        client_certificate: ClientCertificate::Optional,
        ..Tls::default()
    };
    assert_eq!(tls, shown_tls);
    assert_eq!(File { listener: Vec::new(), ..shown }, File::default());
}

#[test]
fn nothing_but_the_listeners_differs_from_the_defaults() {
    let file = read(str::to_owned);
    assert_eq!(file.listener.len(), 3);
    assert_eq!(File { listener: Vec::new(), ..file }, File::default());
}

/// Walks the default values, and finds each key in its section of the text, below a comment.
#[test]
fn every_key_is_shown_with_a_comment() {
    let table = toml::Table::try_from(File::default()).unwrap();
    let mut expected = BTreeSet::new();
    for (section, value) in &table {
        match value {
            toml::Value::Table(keys) => {
                let keys = keys.keys().filter(|key| *key != "topic");
                expected.extend(keys.map(|key| format!("{section}.{key}")));
            }
            toml::Value::Array(_) => {}
            _ => drop(expected.insert(section.clone())),
        }
    }
    expected.extend(keys(&Listener::default()).iter().map(|key| format!("listener.{key}")));
    expected.extend(keys(&Tls::default()).iter().map(|key| format!("listener.tls.{key}")));
    expected.extend(keys(&Overflow::default()).iter().map(|key| format!("overflow.{key}")));
    expected.extend(
        keys(&TopicDurability::default()).iter().map(|key| format!("persistence.topic.{key}")),
    );

    let mut examples = uncomment_examples();
    let mut section = String::new();
    let mut explained = false;
    let mut found = BTreeSet::new();
    for line in SHIPPED.lines() {
        let example = examples(line);
        let line = uncomment_default(&example).unwrap_or(example);
        if let Some(header) = line.strip_prefix('[') {
            section = format!("{}.", header.trim_matches(['[', ']']));
            continue;
        }
        match line.split_once(" = ") {
            Some((key, _)) if !line.starts_with('#') => {
                assert!(explained || section == "listener.", "{section}{key} has no comment");
                found.insert(format!("{section}{key}"));
            }
            _ => explained = line.starts_with("# "),
        }
    }
    // Bridges have many keys, and a page of their own: the example shows the usual ones.
    let bridge = keys(&BridgeFile::default());
    found.retain(|key| !key.strip_prefix("bridge.").is_some_and(|key| bridge.contains(key)));
    assert_eq!(expected.difference(&found).collect::<Vec<_>>(), [""; 0], "not in petrel.toml");
    assert_eq!(found.difference(&expected).collect::<Vec<_>>(), [""; 0], "unknown to the code");
}

/// The documentation names every key, and its example of listeners is correct.
#[test]
fn the_documentation_is_complete() {
    let text = DOCUMENTATION;
    for line in SHIPPED.lines() {
        let line = uncomment_default(line).unwrap_or_else(|| line.to_owned());
        if let Some((key, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            assert!(text.contains(&format!("`{key}`")), "{key} is not in docs/configuration.md");
        }
    }
    let examples: Vec<_> = text.split("```toml\n").skip(1).collect();
    assert!(!examples.is_empty());
    for example in examples {
        let text = example.split("```").next().unwrap_or_default().to_owned();
        let source = Source { text, ..Source::default() };
        if let Err(error) = Settings::from_source(&source) {
            panic!("{error}");
        }
    }
}

#[test]
fn the_examples_are_correct() {
    let file = read(uncomment_examples());
    let counts = (file.overflow.len(), file.persistence.topic.len(), file.bridge.len());
    assert_eq!(counts, (1, 1, 1));
    let text = toml::to_string(&file).unwrap();
    let source = Source { text, ..Source::default() };
    Settings::from_source(&source).unwrap();
}

#[test]
fn the_shipped_file_listens_on_loopback_only() {
    let source = Source { text: SHIPPED.to_owned(), ..Source::default() };
    let settings = Settings::from_source(&source).unwrap();
    let ports: Vec<u16> = settings
        .listeners
        .iter()
        .map(|listener| match &listener.address {
            ListenAddress::Tcp(address) if address.ip().is_loopback() => address.port(),
            address => panic!("{address:?}"),
        })
        .collect();
    assert_eq!(ports, [1883, 8883, 8083]);
    assert!(settings.listeners.iter().all(|listener| listener.rules.allow_anonymous));
    let web = Transport::WebSocket {
        paths: DEFAULT_PATHS.map(str::to_owned).into(),
        origins: Vec::new(),
    };
    assert_eq!(settings.listeners[2].transport, web);
}
