//! Petrel and Debian's `mosquitto` with the same password file and the same ACL file: random files, and the same answers to
//! each of several Clients. Where `CI` is set, mosquitto must be installed.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use crate::broker::{Broker, eventually, unique};
use crate::client::Client;
use crate::packet::{Connect, PUBACK, Properties, Publish, V5};
use crate::port::free_port;

const MOSQUITTO: &str = "/usr/sbin/mosquitto";
const ROUNDS: u64 = 40;
const PASSWORD: &str = "secret";

/// User name, if any, and Client Identifier. Patterns do not apply to those with `+` or `#`.
const CLIENTS: [(Option<&str>, &str); 5] = [
    (None, "c1"),
    (Some("ann"), "c2"),
    (Some("bob"), "ann"),
    (Some("b+"), "c3"),
    (Some("dan"), "c#"),
];

/// mosquitto, which ends with this.
struct Mosquitto {
    child: Child,
    address: String,
    log: PathBuf,
}

impl Mosquitto {
    fn start(directory: &Path, acl: &Path, passwords: &Path) -> Self {
        let (port, log) = (free_port(), directory.join("mosquitto.log"));
        let config = directory.join("mosquitto.conf");
        let (acl, passwords) = (acl.display(), passwords.display());
        let text = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nuser root\npersistence false\n\
             acl_file {acl}\npassword_file {passwords}\n"
        );
        fs::write(&config, text).unwrap();
        let output = File::create(&log).unwrap();
        let child = Command::new(MOSQUITTO).arg("-c").arg(&config).stderr(output).spawn().unwrap();
        let address = format!("127.0.0.1:{port}");
        eventually("mosquitto accepts", || TcpStream::connect(&address).is_ok());
        Self { child, address, log }
    }

    /// It handles nothing between this line and the new rules.
    fn reloads(&self) -> usize {
        fs::read_to_string(&self.log).unwrap().matches("Reloading config.").count()
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Random numbers that are the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }

    fn one_of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }

    fn levels(&mut self, choices: &[&str]) -> Vec<String> {
        (0..=self.below(3)).map(|_| self.one_of(choices).to_owned()).collect()
    }

    fn topic(&mut self) -> String {
        let mut levels = self.levels(&["a", "b", "ann", "bob", "c1", "c2"]);
        if self.below(6) == 0 {
            levels[0] = "$x".to_owned();
        }
        levels.join("/")
    }

    fn filter(&mut self, kind: &str) -> String {
        let values: &[&str] = match kind {
            "pattern" => &["a", "b", "+", "%u", "%c", "%u", "%c", "$x"],
            _ => &["a", "b", "+", "ann", "c1", "$x", "%u"],
        };
        let mut filter = self.levels(values).join("/");
        match self.below(8) {
            0 => filter = "#".to_owned(),
            1 | 2 => filter += "/#",
            _ => {}
        }
        filter
    }

    fn acl(&mut self) -> String {
        let mut text = String::new();
        for _ in 0..4 + self.below(16) {
            if self.below(4) == 0 {
                let user = self.one_of(&["ann", "bob", "b+", "dan"]);
                writeln!(text, "user {user}").unwrap();
            }
            let kind = self.one_of(&["topic", "topic", "pattern"]);
            let access = self.one_of(&["read ", "write ", "readwrite ", "deny ", ""]);
            writeln!(text, "{kind} {access}{}", self.filter(kind)).unwrap();
        }
        text + "user root\ntopic readwrite #\ntopic readwrite $x/#\n"
    }
}

fn connect(address: &str, user: Option<&str>, id: &str) -> Client {
    let mut connect = Connect::new(V5, id);
    if let Some(user) = user {
        connect = connect.user(user).password(PASSWORD);
    }
    Client::connect_to(address, &connect)
}

/// What each Client receives of these topics, and to which of them it may publish.
fn answers(address: &str, topics: &BTreeSet<String>) -> Vec<String> {
    let filters = [("#", 0), ("$x/#", 0), ("+/a", 0), ("$share/g/never", 0)];
    let mut clients: Vec<_> = CLIENTS
        .iter()
        .map(|(user, id)| {
            let mut client = connect(address, *user, id);
            let granted = client.subscribe_with(&Properties::new(), &filters);
            (client, format!("{user:?} {id} subscribed {granted:?}"))
        })
        .collect();
    let mut root = connect(address, Some("root"), "root");
    for topic in topics {
        root.publish(topic, 1, topic);
    }
    let mut found = Vec::new();
    for (client, about) in &mut clients {
        // A second answer cannot stand before messages that were there before the first.
        client.settle();
        client.settle();
        let messages = client.take_messages();
        let received: BTreeSet<_> = messages.iter().map(|publish| publish.text()).collect();
        found.push(format!("{about} receives {received:?}"));
    }
    for ((client, _), (user, id)) in clients.iter_mut().zip(CLIENTS) {
        let is_denied = |topic: &&String| {
            let packet_id = client.fresh_id();
            client.send(Publish::new(topic, "x").qos(1, packet_id).encode(V5));
            client.expect_answer(PUBACK).acknowledgement(V5).reason >= 0x80
        };
        let denied: Vec<_> = topics.iter().filter(is_denied).collect();
        found.push(format!("{user:?} {id} may not publish {denied:?}"));
    }
    found
}

#[test]
fn random_acl_files_decide_as_in_mosquitto() {
    if std::env::var_os("PETREL_TEST_BROKER").is_some() {
        return;
    }
    if !Path::new(MOSQUITTO).exists() {
        assert!(std::env::var_os("CI").is_none(), "mosquitto is not installed");
        eprintln!("mosquitto is not installed: skipped");
        return;
    }
    let directory = std::env::temp_dir().join(unique("petrel-test-acl-"));
    fs::create_dir_all(&directory).unwrap();
    let (acl, passwords) = (directory.join("acl"), directory.join("passwords"));
    fs::write(&acl, "").unwrap();
    fs::write(&passwords, "").unwrap();
    for user in CLIENTS.iter().filter_map(|(user, _)| *user).chain(["root"]) {
        let mut command = Command::new("mosquitto_passwd");
        let status = command.arg("-b").arg(&passwords).args([user, PASSWORD]).status();
        assert!(status.unwrap().success());
    }
    let mosquitto = Mosquitto::start(&directory, &acl, &passwords);
    let petrel =
        Broker::start(&format!("auth.password_file = {passwords:?}\nauth.acl_file = {acl:?}\n"));
    let in_force = || petrel.log().matches("bridges are up to date").count();
    for seed in 0..ROUNDS {
        let mut numbers = Numbers(seed);
        let rules = numbers.acl();
        let topics: BTreeSet<_> = (0..16).map(|_| numbers.topic()).collect();
        fs::write(&acl, &rules).unwrap();
        let before = (mosquitto.reloads(), in_force());
        petrel.signal("-HUP");
        let signal =
            Command::new("kill").args(["-HUP", &mosquitto.child.id().to_string()]).status();
        assert!(signal.unwrap().success());
        eventually("both have read the rules", || {
            mosquitto.reloads() > before.0 && in_force() > before.1
        });
        let theirs = answers(&mosquitto.address, &topics);
        let ours = answers(&petrel.address, &topics);
        assert_eq!(ours, theirs, "round {seed}\n{rules}");
    }
    let _gone = fs::remove_dir_all(&directory);
}
