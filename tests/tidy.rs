//! The style rules of the project as a test, so that reviewers need not check them again and again.

#![allow(missing_docs, reason = "tests are named by what they check")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Folders and files of the core: no input or output, no clock, no runtime.
const CORE: [&str; 7] = [
    "src/packet",
    "src/topic",
    "src/durable",
    "src/session",
    "src/access",
    "src/broker",
    "src/error.rs",
];

/// What the core must not mention.
const BANNED_IN_CORE: [&str; 9] = [
    "tokio",
    "rocksdb",
    "std::net",
    "std::fs",
    "std::env",
    "Instant::now",
    "SystemTime::now",
    "rand::rng",
    "thread::sleep",
];

/// Features of the shell that are no words of the core: it has named policies instead, which the next feature can use.
const FEATURES: [&str; 1] = ["bridge"];

/// Words of the core that a feature is part of, all the same: in which folder, and why.
const EXCUSED: [(&str, &str, &str); 1] = [(
    "src/packet/",
    "bridge bit",
    "what brokers call the highest bit of the protocol level in 3.x",
)];

/// Every room of `src/` with the rooms that it may use, from the ground up: a room uses only rooms above it in this list, so
/// there is no circle. The first seven are the core, which knows nothing of the shell below it.
const ROOMS: [(&str, &[&str]); 20] = [
    ("packet", &[]),
    ("topic", &["packet"]),
    ("durable", &["packet", "topic"]),
    ("session", &["packet", "topic", "durable"]),
    ("access", &["packet", "topic", "session"]),
    ("error", &["packet", "session"]),
    ("broker", &["packet", "topic", "durable", "session", "access", "error"]),
    ("metrics", &["durable"]),
    ("auth", &["packet", "access"]),
    ("store", &["packet", "durable"]),
    ("websocket", &[]),
    ("dial", &["packet", "websocket"]),
    ("config", &["packet", "topic", "durable", "session", "access", "broker", "store", "dial"]),
    (
        "net",
        &[
            "packet",
            "durable",
            "session",
            "access",
            "error",
            "broker",
            "metrics",
            "store",
            "websocket",
            "config",
        ],
    ),
    ("bridge", &["packet", "topic", "session", "broker", "dial", "config"]),
    ("control", &["config", "store", "bridge"]),
    ("http", &["durable", "metrics", "net", "control"]),
    ("client", &["packet", "topic", "dial"]),
    ("bench", &["packet", "dial"]),
    (
        "node",
        &[
            "packet", "topic", "durable", "session", "access", "broker", "metrics", "auth",
            "store", "config", "net", "bridge", "control", "http",
        ],
    ),
];

/// Rooms of the core: the first so many of [`ROOMS`].
const CORE_ROOMS: usize = 7;

/// Arrows that [`ROOMS`] forbids and that are there all the same: from, to, and why. The list may shrink, never grow.
const FORBIDDEN_ARROWS: [(&str, &str, &str); 0] = [];

/// Longest file, without its tests, in lines.
const MAX_LINES: usize = 600;

/// Files that are longer, with the length they may have: they may shrink, never grow.
const LONG_FILES: [(&str, usize); 0] = [];

/// Words that would tell of the workplace instead of the project, in pieces so that this file does not hold them.
const FORBIDDEN: [(&str, &str); 3] = [("/work", "/"), ("../sha", "red"), ("issues sh", "ow")];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every tracked file (and every new one that is not ignored), relative to the root. Without git, nothing is checked.
fn tracked() -> Vec<String> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output();
    let Ok(output) = output else { return Vec::new() };
    let list = String::from_utf8_lossy(&output.stdout).into_owned();
    list.lines().filter(|file| root().join(file).is_file()).map(str::to_owned).collect()
}

/// The tracked Rust files with their text.
fn rust_files() -> Vec<(String, String)> {
    let is_rust =
        |file: &String| Path::new(file).extension().is_some_and(|extension| extension == "rs");
    let read = |file: String| {
        let text = fs::read_to_string(root().join(&file)).unwrap();
        (file, text)
    };
    tracked().into_iter().filter(is_rust).map(read).collect()
}

/// The lines of a file up to its test module, numbered from one.
fn lines_without_tests(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .take_while(|line| !line.starts_with("mod tests"))
        .enumerate()
        .map(|(index, line)| (index + 1, line))
}

fn is_core(file: &str) -> bool {
    CORE.iter().any(|folder| file.starts_with(folder))
        && !file.ends_with("tests.rs")
        && !file.contains("/tests/")
}

fn assert_none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

#[test]
fn every_file_says_what_it_is() {
    let silent: Vec<String> = rust_files()
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//!") && !text.starts_with("#!["))
        .map(|(file, _)| file)
        .collect();
    assert_none("files that do not begin with //!", &silent);
}

#[test]
fn the_core_does_no_io() {
    let mut found = Vec::new();
    for (file, text) in rust_files().iter().filter(|(file, _)| is_core(file)) {
        for (number, line) in lines_without_tests(text) {
            let code = line.split("//").next().unwrap_or_default();
            if let Some(word) = BANNED_IN_CORE.iter().find(|word| code.contains(*word)) {
                found.push(format!("{file}:{number}: {word}"));
            }
        }
    }
    assert_none("the core takes bytes, time and randomness as arguments", &found);
}

/// Lines of the core that mention a feature of the shell, in code, comment or test. A name of several words is found
/// however it is written.
fn features_in_core(file: &str, text: &str) -> Vec<String> {
    let is_core = CORE.iter().any(|folder| file.starts_with(folder));
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|_| is_core) {
        let mut words = line.to_lowercase().replace('_', " ");
        for (folder, excused, _) in EXCUSED {
            if file.starts_with(folder) {
                words = words.replace(excused, "");
            }
        }
        if let Some(word) = FEATURES.iter().find(|word| words.contains(*word)) {
            found.push(format!("{file}:{}: {word}", index + 1));
        }
    }
    found
}

#[test]
fn the_core_knows_no_feature_of_the_shell() {
    let files = rust_files();
    let found: Vec<String> =
        files.iter().flat_map(|(file, text)| features_in_core(file, text)).collect();
    assert_none("name a policy of a Session instead", &found);
    for (folder, excused, why) in EXCUSED {
        let is_used = files.iter().any(|(file, text)| {
            file.starts_with(folder) && text.to_lowercase().replace('_', " ").contains(excused)
        });
        assert!(is_used, "{folder} does not speak of the {excused} any more ({why})");
    }
}

/// The test of the test: a feature is found in every form that its name can have.
#[test]
fn a_feature_in_the_core_is_found() {
    for text in ["is_bridge: bool,\n", "DropReason::BridgeLoop\n", "// For bridges.\n", "BRIDGE\n"]
    {
        let file = "src/session/made_up.rs";
        assert_eq!(features_in_core(file, text), [format!("{file}:1: bridge")], "{text}");
    }
    let excused = "const BRIDGE_BIT: u8 = 0x80; // the bridge bit\n";
    assert_eq!(features_in_core("src/packet/connect.rs", excused), [""; 0]);
    assert_eq!(features_in_core("src/broker/connect.rs", excused).len(), 1);
    assert_eq!(features_in_core("src/bridge/made_up.rs", "is_bridge: bool,\n"), [""; 0]);
    assert_eq!(features_in_core("src/packet/tests/made_up.rs", "the bridge\n").len(), 1);
}

/// The room of a file: the first folder below `src/`. The command line and the crates' roots may use everything.
fn room(file: &str) -> Option<&str> {
    let inside = file.strip_prefix("src/")?;
    let room = inside.split('/').next().unwrap_or(inside).trim_end_matches(".rs");
    (!["cli", "lib", "main"].contains(&room)).then_some(room)
}

/// What lines of code use of other rooms: from, to, place. Text in quotes is no code.
fn arrows(files: &[(String, String)]) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    for (file, text) in files {
        let Some(from) = room(file) else { continue };
        if file.ends_with("tests.rs") || file.contains("/tests/") {
            continue;
        }
        for (number, line) in lines_without_tests(text) {
            let code = line.split("//").next().unwrap_or_default();
            for (index, part) in code.split("crate::").enumerate().skip(1) {
                let before = code.split("crate::").take(index).collect::<String>();
                let is_word = before.ends_with(|c: char| c.is_alphanumeric() || c == '_');
                let to: String =
                    part.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                if !is_word && to != from && before.matches('"').count().is_multiple_of(2) {
                    found.push((from.to_owned(), to, format!("{file}:{number}")));
                }
            }
        }
    }
    found
}

/// Arrows that the table does not allow.
fn forbidden_arrows(files: &[(String, String)]) -> Vec<(String, String, String)> {
    let table: BTreeMap<&str, &[&str]> = ROOMS.into_iter().collect();
    let mut found = arrows(files);
    found.retain(|(from, to, _)| {
        let allowed = table.get(&**from).is_some_and(|allowed| allowed.contains(&&**to));
        let listed = FORBIDDEN_ARROWS.iter().any(|(f, t, _)| f == from && t == to);
        !allowed && !listed
    });
    found
}

#[test]
fn rooms_use_only_what_the_table_allows() {
    let found = forbidden_arrows(&rust_files());
    let found: Vec<String> =
        found.iter().map(|(from, to, place)| format!("{place}: {from} uses {to}")).collect();
    assert_none("see the table of rooms", &found);
}

/// A room that uses only rooms above it cannot be part of a circle, and the core cannot lead into the shell.
#[test]
fn the_table_of_rooms_has_no_circle() {
    let names: Vec<&str> = ROOMS.iter().map(|(name, _)| *name).collect();
    for (index, (name, allowed)) in ROOMS.iter().enumerate() {
        for other in *allowed {
            let above = names.iter().position(|known| known == other);
            assert!(above.is_some_and(|above| above < index), "{name} may not use {other}");
            assert!(index >= CORE_ROOMS || above < Some(CORE_ROOMS), "{name} is core");
        }
    }
    let rooms: BTreeSet<String> =
        rust_files().iter().filter_map(|(file, _)| room(file).map(str::to_owned)).collect();
    let known: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(rooms, known, "a room is missing in the table, or is gone");
}

/// Whatever the table allows is used, so that it does not allow more and more.
#[test]
fn the_table_of_rooms_allows_no_more_than_is_used() {
    let used: BTreeSet<(String, String)> =
        arrows(&rust_files()).into_iter().map(|(from, to, _)| (from, to)).collect();
    let mut unused = Vec::new();
    for (from, allowed) in ROOMS {
        for to in allowed {
            // The core stands in its order, whether or not each step is taken.
            let is_core = ROOMS.iter().take(CORE_ROOMS).any(|(name, _)| name == to);
            if !is_core && !used.contains(&(from.to_owned(), (*to).to_owned())) {
                unused.push(format!("{from} -> {to}"));
            }
        }
    }
    assert_none("arrows that nobody needs any more", &unused);
    for (from, to, why) in FORBIDDEN_ARROWS {
        assert!(used.contains(&(from.into(), to.into())), "{from} -> {to} ({why}) is mended");
    }
}

/// The test of the test: an arrow from the core into the shell is found, in every form it can have.
#[test]
fn a_forbidden_arrow_is_found() {
    let file = |name: &str, text: &str| vec![(name.to_owned(), text.to_owned())];
    for text in [
        "use crate::store::rocks::RocksStore;\n",
        "pub(crate) use crate::store::key;\n",
        "fn open() { crate::store::open::open(); }\n",
        "use crate::{store, packet};\n",
    ] {
        let found = forbidden_arrows(&file("src/session/made_up.rs", text));
        assert_eq!(found.len(), 1, "{text}");
        assert_eq!(found[0].2, "src/session/made_up.rs:1");
    }
    // From one shell room into one below it, and from a room that the table does not know.
    assert_eq!(forbidden_arrows(&file("src/net/a.rs", "use crate::node::Node;\n")).len(), 1);
    assert_eq!(forbidden_arrows(&file("src/new/a.rs", "use crate::packet::QoS;\n")).len(), 1);
    for allowed in [
        "use crate::durable::Store;\n",
        "use crate::session::queue::Queue;\n",
        "// use crate::store::rocks;\n",
        "let text = \"crate::store\";\n",
        "#[cfg(test)]\nmod tests {\n    use crate::store::memory;\n",
    ] {
        assert_eq!(forbidden_arrows(&file("src/session/made_up.rs", allowed)), [], "{allowed}");
    }
}

#[test]
fn files_stay_short() {
    let allowed: BTreeMap<&str, usize> = LONG_FILES.into_iter().collect();
    let mut found = Vec::new();
    for (file, text) in rust_files().iter().filter(|(file, _)| file.starts_with("src/")) {
        if file.ends_with("tests.rs") || file.contains("/tests/") {
            continue;
        }
        let lines = lines_without_tests(text).count();
        let limit = allowed.get(file.as_str()).copied().unwrap_or(MAX_LINES);
        if lines > limit {
            found.push(format!("{file}: {lines} lines, {limit} are allowed"));
        }
    }
    assert_none("find the second concern of these files", &found);
}

#[test]
fn the_list_of_long_files_holds_only_long_files() {
    for (file, limit) in LONG_FILES {
        let text = fs::read_to_string(root().join(file)).expect("a listed file exists");
        let lines = lines_without_tests(&text).count();
        assert!(
            lines > MAX_LINES && lines <= limit,
            "{file} has {lines} lines now: correct the list"
        );
    }
}

#[test]
fn imports_name_what_they_import() {
    let mut found = Vec::new();
    for (file, text) in rust_files().iter().filter(|(file, _)| file.starts_with("src/")) {
        for (number, line) in text.lines().enumerate() {
            let line = line.trim_start();
            let glob = line.starts_with("use ") || line.starts_with("pub use ");
            let allowed = line.contains("use super::*") || line.contains("prelude::*");
            if glob && line.contains("::*") && !allowed {
                found.push(format!("{file}:{}: {line}", number + 1));
            }
        }
    }
    assert_none("glob imports", &found);
}

#[test]
fn no_test_is_switched_off_or_expected_to_panic() {
    let mut found = Vec::new();
    for (file, text) in rust_files().iter().filter(|(file, _)| file != "tests/tidy.rs") {
        for (number, line) in text.lines().enumerate() {
            let line = line.trim_start();
            if line.starts_with("#[ignore") || line.starts_with("#[should_panic") {
                found.push(format!("{file}:{}: {line}", number + 1));
            }
        }
    }
    assert_none("tests that do not run as they are", &found);
}

/// Waiting for something to happen is polling or a deadline. The two helpers in `tests/broker/broker.rs` are where time
/// itself is tested.
#[test]
fn tests_do_not_sleep() {
    let mut found = Vec::new();
    for (file, text) in rust_files().iter().filter(|(file, _)| file.starts_with("tests/broker/")) {
        if file == "tests/broker/broker.rs" {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            if line.contains("thread::sleep") {
                found.push(format!("{file}:{}", number + 1));
            }
        }
    }
    assert_none("sleeps in tests", &found);
}

#[test]
fn no_private_key_is_tracked() {
    let marker = ["PRIVATE", " KEY-----"].concat();
    let holds_key = |file: &String| {
        let text = fs::read(root().join(file)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        text.contains(&format!("-----BEGIN {marker}"))
            || text.contains(&format!("-----BEGIN EC {marker}"))
    };
    let keys: Vec<String> = tracked().into_iter().filter(holds_key).collect();
    assert_none("private keys", &keys);
}

#[test]
fn nothing_of_the_workplace_is_in_the_project() {
    let mut found = Vec::new();
    for file in tracked() {
        let text = fs::read(root().join(&file)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        for (front, back) in FORBIDDEN {
            if text.contains(&format!("{front}{back}")) {
                found.push(format!("{file}: {front}{back}"));
            }
        }
    }
    assert_none("forbidden words", &found);
}

/// The statements of `docs/conformance.toml`.
struct Conformance {
    client_only: BTreeSet<String>,
    /// Identifier to its tests and whether a reason stands there.
    statements: BTreeMap<String, (Vec<String>, bool)>,
}

fn conformance() -> Conformance {
    let text = fs::read_to_string(root().join("docs/conformance.toml")).unwrap();
    let table: toml::Table = text.parse().expect("docs/conformance.toml is TOML");
    let words = |value: &toml::Value| -> Vec<String> {
        let list = value.as_array().expect("a list");
        list.iter().map(|word| word.as_str().expect("a text").to_owned()).collect()
    };
    let mut statements = BTreeMap::new();
    for statement in table["statement"].as_array().unwrap() {
        let id = statement["id"].as_str().unwrap().to_owned();
        let tests = words(&statement["tests"]);
        let has_reason = statement.get("reason").is_some();
        assert!(
            statements.insert(id.clone(), (tests, has_reason)).is_none(),
            "{id} stands there twice"
        );
    }
    Conformance { client_only: words(&table["client_only"]).into_iter().collect(), statements }
}

/// The identifiers cited in a line: `[MQTT-3.1.2-22]`, `[MQTT311-3.1.2-24]`. Section references have no last number.
fn citations(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    for part in line.split('[').skip(1) {
        let Some((id, _)) = part.split_once(']') else { continue };
        let numbered = id.strip_prefix("MQTT-").or_else(|| id.strip_prefix("MQTT311-"));
        if numbered.is_some_and(|rest| {
            rest.contains('-') && rest.starts_with(|c: char| c.is_ascii_digit())
        }) {
            found.push(id.to_owned());
        }
    }
    found
}

#[test]
fn every_cited_statement_exists() {
    let conformance = conformance();
    let mut unknown = Vec::new();
    for (file, text) in rust_files().iter().filter(|(file, _)| !file.starts_with("tests/tidy")) {
        for (number, line) in text.lines().enumerate() {
            for id in citations(line) {
                if !conformance.statements.contains_key(&id)
                    && !conformance.client_only.contains(&id)
                {
                    unknown.push(format!("{file}:{}: {id}", number + 1));
                }
            }
        }
    }
    assert_none("statements that docs/conformance.toml does not know", &unknown);
}

#[test]
fn every_statement_has_a_test_or_a_reason() {
    let bare: Vec<String> = conformance()
        .statements
        .into_iter()
        .filter(|(_, (tests, has_reason))| tests.is_empty() && !has_reason)
        .map(|(id, _)| id)
        .collect();
    assert_none("neither tests nor reason (make conformance ARGS=--update fills in tests)", &bare);
}

/// Tests by the statements that their doc comments cite: `file::test` for `tests/`, the path of the file for `src/`.
fn cited_tests() -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (file, text) in rust_files() {
        let (mut cited, mut is_test) = (Vec::new(), false);
        for line in text.lines().map(str::trim) {
            if line.starts_with("///") {
                cited.extend(citations(line));
            } else if line.starts_with("#[") {
                is_test |= line == "#[test]" || line.starts_with("#[tokio::test");
            } else if let Some(rest) =
                line.strip_prefix("fn ").or_else(|| line.strip_prefix("async fn "))
            {
                if is_test {
                    let name = rest.split('(').next().unwrap_or_default();
                    for id in cited.drain(..) {
                        found.entry(id).or_default().insert(format!("{}::{name}", module(&file)));
                    }
                }
                (cited, is_test) = (Vec::new(), false);
            } else {
                (cited, is_test) = (Vec::new(), false);
            }
        }
    }
    found
}

/// `tests/broker/qos.rs` is `broker::qos`, `src/packet/decode.rs` is `packet::decode`.
fn module(file: &str) -> String {
    let path = PathBuf::from(file);
    let parts: Vec<String> = path
        .with_extension("")
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .filter(|part| !["src", "tests", "mod"].contains(&part.as_str()))
        .collect();
    parts.join("::")
}

#[test]
fn the_tests_of_each_statement_are_up_to_date() {
    let cited = cited_tests();
    let mut stale = Vec::new();
    for (id, (listed, _)) in conformance().statements {
        let listed: BTreeSet<String> = listed.into_iter().collect();
        let found = cited.get(&id).cloned().unwrap_or_default();
        if listed != found {
            stale.push(format!("{id}: listed {listed:?}, found {found:?}"));
        }
    }
    assert_none("docs/conformance.toml is out of date: make conformance ARGS=--update", &stale);
}
