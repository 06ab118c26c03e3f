//! The real program on a data directory of its own: started, killed at any moment, started again.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A broker, running or killed. Dropping it kills it and removes its directory.
pub(crate) struct Broker {
    directory: TempDir,
    durability: &'static str,
    running: Option<Running>,
    /// The longest that a start has taken, until the broker said that it is ready.
    pub(crate) slowest_start: Duration,
}

struct Running {
    process: Child,
    guard: Child,
}

/// Kills the broker when its own standard input ends, which happens when the tests die: nothing is left behind.
const GUARD: &str = r#"read -r _; kill -9 "$0""#;

impl Broker {
    pub(crate) fn new(durability: &'static str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { directory, durability, running: None, slowest_start: Duration::ZERO }
    }

    /// Starts it on what its predecessor left; returns where it listens.
    pub(crate) fn start(&mut self) -> SocketAddr {
        let started = Instant::now();
        let output = self.spawn();
        let mut lines = output.lines().map_while(Result::ok);
        let address = lines.find_map(|line| {
            let (_, rest) = line.split_once("mqtt://")?;
            rest.split_whitespace().next()?.parse().ok()
        });
        self.slowest_start = self.slowest_start.max(started.elapsed());
        address.unwrap_or_else(|| panic!("the broker does not start:\n{}", self.log()))
    }

    /// Starts it and kills it before it can be ready, or a little later.
    pub(crate) fn start_in_vain(&mut self, wait: Duration) {
        let output = self.spawn();
        self.kill_after(wait).join().unwrap();
        drop(output);
        self.bury();
    }

    /// Kills it as `kill -9` does, after a while, from a thread of its own. The thread ends with it.
    pub(crate) fn kill_after(&self, wait: Duration) -> JoinHandle<()> {
        let id = self.running.as_ref().unwrap().process.id();
        let process = Pid::from_raw(i32::try_from(id).unwrap()).unwrap();
        std::thread::spawn(move || {
            // Not to wait for a condition, but to hit some moment of its work.
            std::thread::sleep(wait);
            kill_process(process, Signal::KILL).unwrap();
        })
    }

    /// Waits until nothing is left of it, which it does not survive.
    pub(crate) fn bury(&mut self) {
        if let Some(mut running) = self.running.take() {
            // The guard first, lest it kill a stranger who has got the number of the process.
            for child in [&mut running.guard, &mut running.process] {
                child.kill().unwrap();
                child.wait().unwrap();
            }
        }
    }

    /// Whether it lives, for a complaint.
    pub(crate) fn state(&mut self) -> String {
        match self.running.as_mut().map(|running| running.process.try_wait()) {
            Some(Ok(None)) => "the broker runs".to_owned(),
            other => format!("the broker has ended: {other:?}"),
        }
    }

    /// What it logged, over all its lives.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    fn spawn(&mut self) -> BufReader<ChildStdout> {
        assert!(self.running.is_none(), "one at a time");
        let directory: &Path = self.directory.path();
        let mut command = Command::new(env!("CARGO_BIN_EXE_petrel"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PETREL_") {
                command.env_remove(name);
            }
        }
        let log = OpenOptions::new().create(true).append(true).open(directory.join("log"));
        let mut process = command
            .arg("serve")
            .current_dir(directory)
            .env("PETREL_DATA_DIR", directory.join("data"))
            .env("PETREL_LISTENER__0__LISTEN", "127.0.0.1:0")
            .env("PETREL_HTTP__LISTEN", "")
            .env("PETREL_PERSISTENCE__DURABILITY", self.durability)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.unwrap())
            .spawn()
            .unwrap();
        let guard = Command::new("sh")
            .args(["-c", GUARD, &process.id().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("sh can be run");
        let output = BufReader::new(process.stdout.take().unwrap());
        self.running = Some(Running { process, guard });
        output
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.bury();
    }
}
