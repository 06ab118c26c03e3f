//! What the broker writes while it runs: the log, and nothing else where machines read it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Instant;

use crate::port::free_port;
use crate::{DEADLINE, petrel, set_password};

/// A broker whose log and standard output are files; killed when dropped.
struct Logged<'a> {
    directory: &'a Path,
    child: Child,
    port: u16,
}

impl<'a> Logged<'a> {
    /// Starts, and waits until the log says `ready`.
    fn start(directory: &'a Path, variables: &[(&str, &str)], ready: &str) -> Self {
        let port = free_port();
        let file = |name: &str| fs::File::create(directory.join(name)).unwrap();
        let child = petrel(directory, &["serve"])
            .env("PETREL_LISTENER__0__LISTEN", format!("127.0.0.1:{port}"))
            .env("PETREL_HTTP__LISTEN", "")
            .envs(variables.iter().copied())
            .stdout(file("stdout"))
            .stderr(file("log"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut broker = Self { directory, child, port };
        while !broker.read("log").contains(ready) {
            assert!(broker.child.try_wait().unwrap().is_none(), "{}", broker.read("log"));
            std::thread::yield_now();
        }
        broker
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.directory.join(name)).unwrap()
    }

    /// Stops it, and returns the log.
    fn stop(&mut self) -> String {
        let id = self.child.id().to_string();
        assert!(std::process::Command::new("kill").arg(id).status().unwrap().success());
        self.child.wait().unwrap();
        self.read("log")
    }
}

impl Drop for Logged<'_> {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// Once thirteen plain lines went to standard output, and a start at `debug` logged all options of RocksDB.
#[test]
fn json_is_all_there_is_and_debug_is_readable() {
    let directory = tempfile::tempdir().unwrap();
    let variables = [("PETREL_LOG__FORMAT", "json"), ("PETREL_LOG__LEVEL", "debug")];
    let mut broker = Logged::start(directory.path(), &variables, "\"ready\"");
    // A client whose name would end a text and change colours.
    let mut client = TcpStream::connect(("127.0.0.1", broker.port)).unwrap();
    client.write_all(b"\x10\x10\x00\x04MQTT\x04\x02\x00\x00\x00\x04a\"\x1b[\xe0\x00").unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    let log = broker.stop();
    assert_eq!(broker.read("stdout"), "");
    let parse = |line: &str| -> serde_json::Value { serde_json::from_str(line).expect(line) };
    let lines: Vec<_> = log.lines().map(parse).collect();
    for line in &lines {
        assert!(line["level"].is_string() && line["message"].is_string(), "{line}");
    }
    for message in ["connected", "disconnected"] {
        let said = lines.iter().find(|line| line["message"] == message);
        assert_eq!(said.unwrap()["client_id"], "a\"\u{1b}[", "{log}");
    }
    assert!(log.lines().count() < 200, "{log}");
}

#[test]
fn secrets_that_others_can_read_are_named() {
    let directory = tempfile::tempdir().unwrap();
    set_password(directory.path(), "ann", "secret");
    let users = directory.path().join("users.txt");
    for (mode, warns) in [(0o640, false), (0o644, true)] {
        fs::set_permissions(&users, fs::Permissions::from_mode(mode)).unwrap();
        let variables = [("PETREL_AUTH__USERS_FILE", "users.txt"), ("NO_COLOR", "1")];
        let log = Logged::start(directory.path(), &variables, " listening").stop();
        let named = log.lines().any(|line| line.contains("WARN") && line.contains("users.txt"));
        assert_eq!(named, warns, "{mode:o} {log}");
    }
}

/// A device that died looked alive, and nobody heard of it: the limit of Retained Messages was full, and its Will was lost
/// with a line at `debug`.
#[test]
fn a_will_that_cannot_be_retained_is_a_warning() {
    let directory = tempfile::tempdir().unwrap();
    let variables = [("PETREL_LIMITS__RETAINED_MESSAGES", "1"), ("NO_COLOR", "1")];
    let mut broker = Logged::start(directory.path(), &variables, " listening");
    // What the broker says of itself fills the limit. A name that would be two lines, and a topic that would end its field:
    let connect =
        b"\x10\x22\x00\x04MQTT\x04\x26\x00\x00\x00\x06dy\ning\x00\x08a \" b/ d\x00\x04dead";
    let mut client = TcpStream::connect(("127.0.0.1", broker.port)).unwrap();
    client.write_all(connect).unwrap();
    client.read_exact(&mut [0; 4]).unwrap();
    drop(client);
    let started = Instant::now();
    while !broker.read("log").contains("not retained") {
        assert!(started.elapsed() < DEADLINE, "{}", broker.read("log"));
        std::thread::yield_now();
    }
    let log = broker.stop();
    let said: Vec<_> = log.lines().filter(|line| line.contains("not retained")).collect();
    assert_eq!(said.len(), 1, "{log}");
    for part in
        ["WARN", r#"topic="a \" b/ d""#, r#"client_id="dy\ning""#, "limits.retained_messages"]
    {
        assert!(said[0].contains(part), "{part}: {log}");
    }
}
