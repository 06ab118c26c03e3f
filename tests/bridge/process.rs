//! Brokers and clients as processes. Whatever a test starts ends with it.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::port::free_port;

/// How long anything may take: generous, since machines are slow and tests run side by side.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// A broker process of either kind.
pub struct Broker {
    child: Child,
    pub port: u16,
    /// Where a Petrel tells its metrics.
    pub http_port: u16,
    directory: TempDir,
    restart: Vec<String>,
}

/// Waits until `holds`, or fails with `what`.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "{what}");
        sleep(Duration::from_millis(20));
    }
}

/// Waits until the bridge `b` of a broker has so many messages waiting, or fails with all that it says of the bridge.
pub fn eventually_waiting(broker: &Broker, count: usize) {
    let started = Instant::now();
    loop {
        let shown = broker.ctl(&["bridge", "show", "b"]);
        let waiting = shown.as_ref().ok().and_then(|shown| shown["queue_messages"].as_u64());
        if waiting == Some(count as u64) {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "{count} messages do not wait: {shown:?}");
        sleep(Duration::from_millis(20));
    }
}

/// Runs a test for each of these at the same time: most of what they do is wait.
pub fn side_by_side<T: Sync>(cases: &[T], test: impl Fn(&T) + Sync) {
    let test = &test;
    std::thread::scope(|scope| {
        for case in cases {
            scope.spawn(move || test(case));
        }
    });
}

/// Whether mosquitto and its clients are installed.
pub fn has_mosquitto() -> bool {
    let found = Command::new("mosquitto_pub").arg("--help").stdout(Stdio::null()).status();
    let is_there = found.is_ok() && Path::new(MOSQUITTO).exists();
    if !is_there {
        eprintln!("mosquitto is not installed: skipped");
    }
    is_there
}

const MOSQUITTO: &str = "/usr/sbin/mosquitto";

impl Broker {
    /// A mosquitto with `extra` lines of configuration.
    pub fn mosquitto(extra: &str) -> Self {
        Self::mosquitto_on(free_port(), extra)
    }

    pub fn mosquitto_on(port: u16, extra: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("mosquitto.conf");
        let text = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nuser root\npersistence false\n\
             max_queued_messages 0\n{extra}\n"
        );
        fs::write(&config, text).unwrap();
        let command = vec![MOSQUITTO.into(), "-c".into(), config.display().to_string()];
        Self::spawn(directory, port, 0, command)
    }

    /// A Petrel with `extra` TOML behind the usual configuration.
    pub fn petrel(extra: &str) -> Self {
        Self::petrel_on(free_port(), extra)
    }

    pub fn petrel_on(port: u16, extra: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let http_port = free_port();
        let config = Self::write_petrel(directory.path(), port, http_port, extra);
        let command = vec![
            env!("CARGO_BIN_EXE_petrel").into(),
            "serve".into(),
            "--config".into(),
            config.display().to_string(),
        ];
        Self::spawn(directory, port, http_port, command)
    }

    /// A Petrel that sees a file of names and addresses of its own in place of the machine's: also returns that file.
    /// `None` where the system does not allow that.
    pub fn petrel_with_hosts(extra: &str) -> Option<(Self, PathBuf)> {
        let trial = ["-rm", "mount", "--bind", "/etc/hosts", "/etc/hosts"];
        let tried = Command::new("unshare").args(trial).status();
        if !tried.is_ok_and(|status| status.success()) {
            eprintln!("no mounts of our own here: skipped");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let (port, http_port) = (free_port(), free_port());
        let hosts = directory.path().join("hosts");
        fs::write(&hosts, "127.0.0.1 localhost\n").unwrap();
        let config = Self::write_petrel(directory.path(), port, http_port, extra);
        let script = "mount --bind \"$1\" /etc/hosts && exec \"$2\" serve --config \"$3\"";
        let arguments =
            [hosts.as_path(), Path::new(env!("CARGO_BIN_EXE_petrel")), config.as_path()];
        let command = ["unshare", "-rm", "sh", "-c", script, "sh"].map(str::to_owned);
        let arguments = arguments.map(|path| path.display().to_string());
        let command = command.into_iter().chain(arguments).collect();
        Some((Self::spawn(directory, port, http_port, command), hosts))
    }

    fn write_petrel(directory: &Path, port: u16, http_port: u16, extra: &str) -> PathBuf {
        let config = directory.join("petrel.toml");
        let text = format!(
            "data_dir = \"{}/data\"\nhttp.listen = \"127.0.0.1:{http_port}\"\nsys.interval = \"1s\"\n\
             [persistence]\ndurability = \"os\"\n\
             [[listener]]\nname = \"tests\"\nlisten = \"127.0.0.1:{port}\"\nallow_anonymous = true\n\
             {extra}\n",
            directory.display()
        );
        fs::write(&config, text).unwrap();
        config
    }

    fn spawn(directory: TempDir, port: u16, http_port: u16, restart: Vec<String>) -> Self {
        let child = Self::run(&restart, directory.path());
        let broker = Self { child, port, http_port, directory, restart };
        broker.wait_until_ready();
        broker
    }

    fn run(command: &[String], directory: &Path) -> Child {
        let log = fs::File::options().create(true).append(true).open(directory.join("log"));
        let log = log.unwrap();
        Command::new(&command[0])
            .args(&command[1..])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    fn wait_until_ready(&self) {
        let log = || self.log();
        let started = Instant::now();
        // A Petrel is ready when its control socket is.
        let is_petrel = self.directory.path().join("petrel.toml").exists();
        let socket = self.directory.path().join("data/petrel.sock");
        let answers = || {
            TcpStream::connect(("127.0.0.1", self.port)).is_ok()
                && (!is_petrel || UnixStream::connect(&socket).is_ok())
        };
        while !answers() {
            assert!(started.elapsed() < PATIENCE, "the broker does not start: {}", log());
            sleep(Duration::from_millis(20));
        }
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(&mut self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").arg(&id).status().unwrap().success());
        self.child.wait().unwrap();
    }

    /// SIGHUP.
    pub fn hang_up(&self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-HUP", &id]).status().unwrap().success());
    }

    /// Starts it again on its data.
    pub fn restart(&mut self) {
        self.child = Self::run(&self.restart, self.directory.path());
        self.wait_until_ready();
    }

    /// Replaces the configuration of a Petrel.
    pub fn configure(&self, extra: &str) {
        Self::write_petrel(self.directory.path(), self.port, self.http_port, extra);
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// `petrel ctl` with these arguments; its JSON, or what it complains about.
    pub fn ctl(&self, arguments: &[&str]) -> Result<serde_json::Value, String> {
        let socket = self.directory.path().join("data/petrel.sock");
        let output = Command::new(env!("CARGO_BIN_EXE_petrel"))
            .args(["ctl", "--json", "--socket"])
            .arg(socket)
            .args(arguments)
            .output()
            .unwrap();
        match output.status.success() {
            true => Ok(serde_json::from_slice(&output.stdout).unwrap()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// Adds the bridge of this TOML while the broker runs.
    pub fn add_bridge(&self, toml: &str) {
        let file = self.directory.path().join("added.toml");
        fs::write(&file, toml.replace("[[bridge]]\n", "").replace("[bridge.", "[")).unwrap();
        self.ctl(&["bridge", "add", "--file", &file.display().to_string()]).unwrap();
    }

    /// A field of `petrel ctl bridge show`.
    pub fn bridge(&self, name: &str, field: &str) -> serde_json::Value {
        self.ctl(&["bridge", "show", name]).map(|shown| shown[field].clone()).unwrap_or_default()
    }

    pub fn wait_connected(&self, name: &str) {
        eventually("the bridge connects", || {
            let state = self.bridge(name, "state");
            if state == "stopped" {
                panic!("{}", self.log());
            }
            state == "connected"
        });
    }

    /// Publishes one message.
    pub fn publish(&self, arguments: &[&str]) {
        let port = self.port.to_string();
        let status = Command::new("mosquitto_pub").args(["-p", &port]).args(arguments).status();
        assert!(status.unwrap().success(), "{arguments:?}");
    }

    /// Publishes each line as a message, with one connection for every 50,000: mosquitto_pub takes the end of an earlier
    /// message for that of the last one when the Packet Identifier is the same, so it stops short after 65,535.
    pub fn publish_lines(&self, topic: &str, qos: u8, lines: impl Iterator<Item = String>) {
        let mut lines = lines.peekable();
        while lines.peek().is_some() {
            self.publish_some(topic, qos, lines.by_ref().take(50_000));
        }
    }

    fn publish_some(&self, topic: &str, qos: u8, lines: impl Iterator<Item = String>) {
        let mut child = Command::new("mosquitto_pub")
            .args(["-p", &self.port.to_string(), "-t", topic, "-q", &qos.to_string(), "-l"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = std::io::BufWriter::new(child.stdin.take().unwrap());
        for line in lines {
            writeln!(input, "{line}").unwrap();
        }
        drop(input);
        assert!(child.wait().unwrap().success());
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("--- log of the broker on port {}", self.port);
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

/// A `mosquitto_sub` that writes what it gets to a file: one line for each message.
pub struct Subscriber {
    child: Child,
    output: PathBuf,
    _directory: TempDir,
}

impl Subscriber {
    /// Subscribes; returns when the broker has acknowledged that.
    pub fn new(broker: &Broker, arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let output = directory.path().join("output");
        let errors = directory.path().join("errors");
        let child = Command::new("stdbuf")
            .args(["-oL", "mosquitto_sub", "-d", "-p", &broker.port.to_string()])
            .args(arguments)
            .stdout(fs::File::create(&output).unwrap())
            .stderr(fs::File::create(errors).unwrap())
            .spawn()
            .unwrap();
        let subscriber = Self { child, output, _directory: directory };
        eventually("the subscription is acknowledged", || {
            fs::read_to_string(&subscriber.output).unwrap_or_default().contains("Subscribed (mid")
        });
        subscriber
    }

    /// Lines of messages so far; with `-d` the client talks about packets, too.
    pub fn lines(&self) -> Vec<String> {
        let text = fs::read(&self.output).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let talk = |line: &&str| !line.starts_with("Client ") && !line.starts_with("Subscribed (");
        text.lines().filter(talk).map(str::to_owned).collect()
    }

    /// Waits for so many and returns them.
    pub fn wait_for(&self, count: usize) -> Vec<String> {
        let started = Instant::now();
        loop {
            let lines = self.lines();
            if lines.len() >= count {
                return lines;
            }
            assert!(started.elapsed() < PATIENCE * 3, "{count} wanted, there are {}", lines.len());
            sleep(Duration::from_millis(30));
        }
    }

    /// Waits for a line that says `end` and returns those before it.
    pub fn wait_for_end(&self, end: &str) -> Vec<String> {
        let mut lines = Vec::new();
        eventually(&format!("there is a line {end}"), || {
            lines = self.lines();
            lines.iter().any(|line| line == end)
        });
        let place = lines.iter().position(|line| line == end).unwrap();
        lines.truncate(place);
        lines
    }

    /// Waits until nothing more came for a while: for tests that expect nothing more.
    pub fn settle(&self) -> Vec<String> {
        Self::settle_all(&[self]).remove(0)
    }

    /// Waits until nothing more came to any of them for a while.
    pub fn settle_all(all: &[&Self]) -> Vec<Vec<String>> {
        let count = || all.iter().map(|subscriber| subscriber.lines().len()).sum::<usize>();
        let (mut before, mut since) = (count(), Instant::now());
        while since.elapsed() < Duration::from_millis(1500) {
            sleep(Duration::from_millis(50));
            let now = count();
            if now != before {
                (before, since) = (now, Instant::now());
            }
        }
        all.iter().map(|subscriber| subscriber.lines()).collect()
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// TOML of a bridge.
pub fn bridge(port: u16, protocol: &str, topics: &[&str], extra: &str) -> String {
    format!(
        "[[bridge]]\nname = \"b\"\naddresses = [\"127.0.0.1:{port}\"]\nprotocol = \"{protocol}\"\n\
         topics = {topics:?}\nbackoff_min = \"20ms\"\nbackoff_max = \"200ms\"\n{extra}\n"
    )
}
