//! The real program on a data directory of its own, with one worker thread, killed when dropped.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::watch::get;

/// Far longer than the grace: only to end at all.
const DEADLINE: Duration = Duration::from_secs(60);

/// Kills the broker when its own standard input ends, which happens when the tests die.
const GUARD: &str = r#"read -r _; kill -9 "$0""#;

/// A broker in a process of its own.
pub(crate) struct Broker {
    process: Child,
    guard: Child,
    /// Where it speaks MQTT.
    pub(crate) address: SocketAddr,
    /// Where it answers `/live`.
    pub(crate) http: SocketAddr,
    log: Arc<Mutex<String>>,
    _directory: TempDir,
}

impl Broker {
    /// Starts it on the defaults, changed by `variables`, and waits until it is ready.
    pub(crate) fn start(variables: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        // To see how another build stands up to it.
        let program = std::env::var_os("HOSTILE_PROGRAM");
        let mut command =
            Command::new(program.unwrap_or_else(|| env!("CARGO_BIN_EXE_petrel").into()));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PETREL_") {
                command.env_remove(name);
            }
        }
        let mut process = command
            .arg("serve")
            .current_dir(&directory)
            .env("NO_COLOR", "1")
            .env("PETREL_DATA_DIR", directory.path().join("data"))
            .env("PETREL_LISTENER__0__LISTEN", "127.0.0.1:0")
            .env("PETREL_HTTP__LISTEN", "127.0.0.1:0")
            .env("PETREL_RUNTIME__WORKER_THREADS", "1")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let guard = Command::new("sh")
            .args(["-c", GUARD, &process.id().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("sh can be run");
        let (log, http) = read_log(process.stderr.take().unwrap());
        let mut said = BufReader::new(process.stdout.take().unwrap()).lines();
        let address = said.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, rest) = line.split_once("mqtt://")?;
            rest.split_whitespace().next()?.parse().ok()
        });
        let complaint = || format!("the broker does not start:\n{}", log.lock().unwrap());
        let address = address.unwrap_or_else(|| panic!("{}", complaint()));
        let http = http.recv_timeout(DEADLINE).unwrap_or_else(|_| panic!("{}", complaint()));
        Self { process, guard, address, http, log, _directory: directory }
    }

    /// Asks it to stop, as an operator does. It must be gone within its own grace.
    pub(crate) fn stop(mut self) {
        self.request_stop();
        self.expect_end();
    }

    /// Sends SIGTERM and does not wait.
    pub(crate) fn request_stop(&self) {
        let id = i32::try_from(self.process.id()).unwrap();
        kill_process(Pid::from_raw(id).unwrap(), Signal::TERM).unwrap();
    }

    /// Waits for the end that was asked for: within the grace, and with success.
    pub(crate) fn expect_end(&mut self) {
        let started = Instant::now();
        let status = loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                break status;
            }
            assert!(started.elapsed() < DEADLINE, "SIGTERM does not end it:\n{}", self.log());
            std::thread::yield_now();
        };
        let log = self.log();
        assert!(status.success(), "{status}:\n{log}");
        assert!(!log.contains("the grace period is over"), "not within the grace:\n{log}");
    }

    /// What it logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// A figure from `/metrics`, if there is one of this name.
    pub(crate) fn metric(&self, name: &str) -> Option<u64> {
        let page = get(self.http, "/metrics");
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        value.parse::<f64>().ok().map(|value| value as u64)
    }

    /// Resident memory in MiB now and at most so far.
    pub(crate) fn memory_mib(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()));
        let status = status.unwrap_or_default();
        let value = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
        };
        (value("VmRSS:") / 1024, value("VmHWM:") / 1024)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // The guard first, lest it kill a stranger who has got the number of the process.
        for child in [&mut self.guard, &mut self.process] {
            // Fails where it has ended already.
            let _ended = child.kill();
            let _ended = child.wait();
        }
    }
}

/// Keeps what the broker logs; tells where its HTTP listener is.
fn read_log(stderr: ChildStderr) -> (Arc<Mutex<String>>, mpsc::Receiver<SocketAddr>) {
    let log = Arc::new(Mutex::new(String::new()));
    let kept = Arc::clone(&log);
    let (sender, http) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            tell_http(&line, &sender);
            let mut log = kept.lock().unwrap();
            log.push_str(&line);
            log.push('\n');
        }
    });
    (log, http)
}

fn tell_http(line: &str, sender: &Sender<SocketAddr>) {
    let Some((_, rest)) = line.split_once("http listening") else { return };
    let address = rest.split_once("address=").map_or("", |(_, address)| address);
    if let Some(Ok(address)) = address.split_whitespace().next().map(str::parse) {
        // Nobody listens any more once the broker has started.
        let _started = sender.send(address);
    }
}
