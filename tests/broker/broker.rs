//! The broker under test: one that most tests share, and others with a configuration of their own.
//!
//! `PETREL_TEST_BROKER=host:port` runs the tests against a broker that is already there; those that need another
//! configuration are then skipped.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::port::free_port;

/// How long anything may take before a test fails: generous, because machines are slow and tests run side by side.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// A broker process. Dropping it kills the process and removes its directory.
pub struct Broker {
    /// Address of its first listener.
    pub address: String,
    /// Its process id.
    pub pid: u32,
    /// Its directory, with the configuration, the data and the log.
    pub directory: PathBuf,
    guard: Option<ChildStdin>,
    shell: Child,
}

/// Runs the broker until its own standard input ends, which also happens when the tests die: nothing is left behind.
const GUARD: &str = r#""$0" serve --config "$1" 2>"$2" >&2 & child=$!; echo $child; cat >/dev/null; kill -9 $child; wait"#;

impl Broker {
    /// Starts a broker whose configuration is the usual one and `extra`, which is TOML.
    pub fn start(extra: &str) -> Self {
        Self::start_in(&new_directory(), extra, true)
    }

    /// The same without anonymous access.
    pub fn start_closed(extra: &str) -> Self {
        Self::start_in(&new_directory(), extra, false)
    }

    fn start_in(directory: &Path, extra: &str, anonymous: bool) -> Self {
        // Two tests may have found the same port free: the one that came too late takes another.
        for attempt in 1.. {
            let mut broker = Self::spawn(directory.to_owned(), extra, anonymous);
            if broker.is_ready() {
                return broker;
            }
            let log = broker.log();
            assert!(attempt < 3, "the broker does not start: {log}");
            broker.directory = PathBuf::new();
        }
        unreachable!("the loop ends by itself")
    }

    fn spawn(directory: PathBuf, extra: &str, anonymous: bool) -> Self {
        let port = free_port();
        let address = format!("127.0.0.1:{port}");
        let (config, log) = (directory.join("petrel.toml"), directory.join("log"));
        // Keys of the top level stand first in a TOML file, so the usual ones cannot stand behind `extra`.
        let mut lines = format!("data_dir = {:?}\n", directory.join("data"));
        if !extra.contains("[http]") {
            lines += "http.listen = \"\"\n";
        }
        lines += extra;
        lines += &format!(
            "\n[[listener]]\nname = \"tests\"\nlisten = \"{address}\"\nallow_anonymous = {anonymous}\n"
        );
        fs::write(&config, lines).unwrap();
        let mut shell = Command::new("sh")
            .args(["-c", GUARD, env!("CARGO_BIN_EXE_petrel")])
            .args([&config, &log])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh can be run");
        let mut line = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let guard = shell.stdin.take();
        Self { address, pid: line.trim().parse().unwrap(), directory, guard, shell }
    }

    /// Whether it accepts Network Connections; waits for it, or for its end.
    fn is_ready(&self) -> bool {
        let started = Instant::now();
        while started.elapsed() < DEADLINE * 3 {
            if TcpStream::connect(&self.address).is_ok() {
                return true;
            }
            if !self.is_running() {
                return false;
            }
            pause();
        }
        false
    }

    /// Whether the process exists.
    pub fn is_running(&self) -> bool {
        let state = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        !state.is_empty() && !state.contains(") Z ")
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// Sends it a signal, by number.
    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.pid.to_string()]).status();
        assert!(status.expect("kill can be run").success());
    }

    /// Stops it as `kill -9` does, and starts it again on the same data and another port.
    pub fn crash_and_restart(&mut self, extra: &str) {
        self.crash();
        self.restart(extra);
    }

    /// Stops it as `kill -9` does.
    pub fn crash(&self) {
        self.signal("-9");
        eventually("the broker is gone", || !self.is_running());
    }

    /// Starts it again on the same data and another port.
    pub fn restart(&mut self, extra: &str) {
        let directory = std::mem::take(&mut self.directory);
        *self = Self::start_in(&directory, extra, true);
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.guard.take());
        let _status = self.shell.wait();
        if self.directory.starts_with(std::env::temp_dir()) && !thread::panicking() {
            let _gone = fs::remove_dir_all(&self.directory);
        }
    }
}

/// Address of the broker that tests share.
pub fn shared() -> &'static str {
    static SHARED: OnceLock<String> = OnceLock::new();
    SHARED.get_or_init(|| match std::env::var("PETREL_TEST_BROKER") {
        Ok(address) => address,
        Err(_) => {
            let broker = Broker::start("");
            let address = broker.address.clone();
            // Lives until the tests end and its guard's standard input with them.
            std::mem::forget(broker);
            address
        }
    })
}

/// A broker with its own configuration, or `None` (the test is skipped) when the tests run against a foreign broker.
pub fn configured(extra: &str) -> Option<Broker> {
    if std::env::var_os("PETREL_TEST_BROKER").is_some() {
        return None;
    }
    Some(Broker::start(extra))
}

/// A name that no other test uses, for Client Identifiers and topics.
pub fn unique(prefix: &str) -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}{}x{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed))
}

/// Waits a moment before asking again. For polling only: no test relies on how long it is.
pub fn pause() {
    thread::sleep(Duration::from_millis(20));
}

/// Lets time pass where time is what is tested (expiry, delay, Keep Alive), never to wait for something to happen.
pub fn pass(time: Duration) {
    thread::sleep(time);
}

/// Asks again until the answer is yes.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < DEADLINE, "never: {what}");
        pause();
    }
}

fn new_directory() -> PathBuf {
    let directory = std::env::temp_dir().join(unique("petrel-test-"));
    fs::create_dir_all(&directory).unwrap();
    directory
}

/// The repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
