//! The program as people run it: exit codes, messages, signals, and the files it makes and reads.

#![allow(missing_docs, reason = "tests are documented where their name does not say everything")]

mod access;
mod bench;
mod clock;
mod control;
mod logs;
#[path = "../support/port.rs"]
mod port;
mod restart;
mod welcome;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use petrel::auth::scram::{ClientStep, ScramClient};

use crate::port::free_port;

const DEADLINE: Duration = Duration::from_secs(30);

fn petrel(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_petrel"));
    command.args(arguments).current_dir(directory).stdin(Stdio::null());
    // Variables of whoever runs the tests are not part of them.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PETREL_") {
            command.env_remove(name);
        }
    }
    command
}

fn run(directory: &Path, arguments: &[&str]) -> Output {
    petrel(directory, arguments).output().unwrap()
}

fn run_with_input(directory: &Path, arguments: &[&str], input: &str) -> Output {
    let mut command = petrel(directory, arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn set_password(directory: &Path, name: &str, password: &str) {
    let cheap = ["passwd", "users.txt", name, "--memory", "64", "--passes", "1"];
    let output = run_with_input(directory, &cheap, &format!("{password}\n"));
    assert!(output.status.success(), "{}", errors(&output));
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A broker in a process of its own, killed when dropped.
struct Broker {
    child: Child,
    port: u16,
    /// What it said at the start.
    welcome: String,
}

impl Broker {
    /// Starts on the defaults, changed by `variables`, and waits until it says that it is ready.
    fn start(directory: &Path, variables: &[(&str, &str)]) -> Self {
        Self::start_by(petrel(directory, &["serve"]), directory, variables)
    }

    fn start_by(mut command: Command, directory: &Path, variables: &[(&str, &str)]) -> Self {
        let port = free_port();
        command
            .env("PETREL_LISTENER__0__LISTEN", format!("127.0.0.1:{port}"))
            .env("PETREL_HTTP__LISTEN", "")
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(directory.join("log")).unwrap());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut welcome = String::new();
        // The durability is said before the commands to try, and both before anything else.
        while let Some(Ok(line)) = lines.next() {
            welcome += &format!("{line}\n");
            if line.contains("mosquitto_sub") {
                break;
            }
        }
        let log = fs::read_to_string(directory.join("log")).unwrap();
        assert!(welcome.contains("is ready"), "{welcome}{log}");
        Self { child, port, welcome }
    }

    fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    /// Waits for the end; returns the exit code.
    fn wait(&mut self) -> Option<i32> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(started.elapsed() < DEADLINE, "the broker does not end");
            std::thread::yield_now();
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    /// The return code of CONNACK for MQTT 3.1.1 with this user name and password.
    fn log_in(&self, credentials: Option<(&str, &str)>) -> u8 {
        let mut stream = self.connect();
        let flags = if credentials.is_some() { 0xC2 } else { 0x02 };
        let mut body = b"\x00\x04MQTT\x04".to_vec();
        body.extend([flags, 0, 60, 0, 1, b'c']);
        for field in credentials.into_iter().flat_map(|(name, password)| [name, password]) {
            body.extend(u16::try_from(field.len()).unwrap().to_be_bytes());
            body.extend(field.as_bytes());
        }
        send(&mut stream, 0x10, &body);
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer[0], 0x20);
        answer[3]
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Fails where it has ended already.
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

fn send(stream: &mut TcpStream, first: u8, body: &[u8]) {
    stream.write_all(&[vec![first], variable(body.len()), body.to_vec()].concat()).unwrap();
}

/// A Variable Byte Integer of at most two bytes.
fn variable(value: usize) -> Vec<u8> {
    let low = u8::try_from(value & 0x7F).unwrap();
    match value >> 7 {
        0 => vec![low],
        high => vec![low | 0x80, u8::try_from(high).unwrap()],
    }
}

/// The next packet, of less than 16 KiB.
fn receive(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut byte = [0];
    stream.read_exact(&mut byte).unwrap();
    let first = byte[0];
    stream.read_exact(&mut byte).unwrap();
    let mut length = usize::from(byte[0] & 0x7F);
    if byte[0] & 0x80 != 0 {
        stream.read_exact(&mut byte).unwrap();
        length |= usize::from(byte[0]) << 7;
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    (first, body)
}

#[test]
fn without_a_command_the_help_is_shown() {
    let directory = tempfile::tempdir().unwrap();
    let output = run(directory.path(), &[]);
    assert_eq!(output.status.code(), Some(2));
    for command in ["serve", "check", "passwd", "certs", "completions"] {
        assert!(errors(&output).contains(command), "{}", errors(&output));
    }
    let output = run(directory.path(), &["serve", "--help"]);
    assert!(output.status.success());
    assert!(text(&output).contains("SIGHUP"), "{}", text(&output));
}

#[test]
fn completions_exist_for_every_shell() {
    let directory = tempfile::tempdir().unwrap();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = run(directory.path(), &["completions", shell]);
        assert!(output.status.success() && text(&output).contains("passwd"), "{shell}");
    }
}

#[test]
fn check_says_file_line_key_and_cure_of_every_mistake() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("petrel.toml");
    fs::write(&file, "[limits]\nmax_inflite = 3\n[log]\nlevel = \"loud\"\n").unwrap();
    let output = run(directory.path(), &["check", "--config", "petrel.toml"]);
    assert_eq!(output.status.code(), Some(1));
    let said = errors(&output);
    assert!(said.contains("petrel.toml:2:1: limits.max_inflite: unknown key"), "{said}");
    assert!(said.contains("did you mean `max_inflight`?"), "{said}");
    assert!(said.contains("petrel.toml:4:9: log.level"), "{said}");

    fs::write(&file, "[limits]\nmax_inflight = 3\n").unwrap();
    let output = run(directory.path(), &["check", "--config", "petrel.toml", "--print"]);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    assert!(text(&output).contains("max_inflight = 3"), "{}", text(&output));
    assert!(text(&output).contains("# Durability: fsync"), "{}", text(&output));
}

/// The shipped configuration is complete once `petrel certs` has run, and says what is missing before.
#[test]
fn the_shipped_configuration_needs_certificates_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/config/petrel.toml");
    let output = run(directory.path(), &["check", "--config", shipped]);
    assert_eq!(output.status.code(), Some(1));
    assert!(errors(&output).contains("petrel certs"), "{}", errors(&output));
    assert!(run(directory.path(), &["certs"]).status.success());
    let output = run(directory.path(), &["check", "--config", shipped]);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    assert!(text(&output).contains("mqtts://127.0.0.1:8883"), "{}", text(&output));
}

/// Whoever installs the program alone has the shipped configuration all the same.
#[test]
fn check_prints_a_configuration_to_start_from() {
    let directory = tempfile::tempdir().unwrap();
    let template = text(&run(directory.path(), &["check", "--template"]));
    assert_eq!(template, include_str!("../../config/petrel.toml"));
}

#[test]
fn a_door_to_the_network_without_authentication_does_not_open() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = petrel(directory.path(), &["serve"]);
    let output = command.env("PETREL_LISTENER__0__LISTEN", "0.0.0.0:0").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(errors(&output).contains("allow_anonymous = true"), "{}", errors(&output));
    assert!(!directory.path().join("data").exists(), "nothing was opened");
}

#[test]
fn sigterm_ends_with_success_and_says_goodbye() {
    let directory = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(directory.path(), &[]);
    for said in [&format!("mqtt://127.0.0.1:{}", broker.port), "durability: fsync", "data: ./data"]
    {
        assert!(broker.welcome.contains(said), "{}", broker.welcome);
    }
    let mut stream = broker.connect();
    send(&mut stream, 0x10, b"\x00\x04MQTT\x05\x02\x00\x3C\x00\x00\x01c");
    let (first, body) = receive(&mut stream);
    assert_eq!((first, body[1]), (0x20, 0));
    broker.signal("-TERM");
    let (first, body) = receive(&mut stream);
    assert_eq!((first, body[0]), (0xE0, 0x8B), "Server shutting down");
    drop(stream);
    assert_eq!(broker.wait(), Some(0));
}

#[test]
fn a_port_in_use_is_said_before_the_store_is_opened() {
    let directory = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = petrel(directory.path(), &["serve"]);
    command.env("PETREL_LISTENER__0__LISTEN", &address).env("PETREL_HTTP__LISTEN", "");
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(errors(&output).contains("is in use"), "{}", errors(&output));
    assert!(!directory.path().join("data").exists(), "nothing was opened");
}

/// Users are checked, a change of the file counts after SIGHUP, and a broken file changes nothing.
#[test]
fn the_users_file_is_read_again_on_sighup() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    set_password(path, "ann", "first");
    let broker = Broker::start(path, &[("PETREL_AUTH__USERS_FILE", "users.txt")]);
    assert_eq!(broker.log_in(Some(("ann", "first"))), 0);
    assert_eq!(broker.log_in(Some(("ann", "wrong"))), 4);
    assert_eq!(broker.log_in(Some(("bob", "first"))), 4);
    assert_eq!(broker.log_in(None), 5);

    set_password(path, "ann", "second");
    assert_eq!(broker.log_in(Some(("ann", "first"))), 0, "not read again yet");
    broker.signal("-HUP");
    let started = Instant::now();
    while broker.log_in(Some(("ann", "second"))) != 0 {
        assert!(started.elapsed() < DEADLINE, "SIGHUP changes nothing");
    }
    assert_eq!(broker.log_in(Some(("ann", "first"))), 4);

    fs::write(path.join("users.txt"), "broken").unwrap();
    broker.signal("-HUP");
    let started = Instant::now();
    while !fs::read_to_string(path.join("log")).unwrap().contains("users.txt:1") {
        assert!(started.elapsed() < DEADLINE, "the mistake is not said");
    }
    assert_eq!(broker.log_in(Some(("ann", "second"))), 0);
    assert!(
        !fs::read_to_string(path.join("log")).unwrap().contains("second"),
        "no password is logged"
    );
}

/// The properties of AUTH and CONNECT: method and data.
fn authentication(data: &[u8]) -> Vec<u8> {
    let mut properties = b"\x15\x00\x0DSCRAM-SHA-256\x16".to_vec();
    properties.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
    properties.extend(data);
    [variable(properties.len()), properties].concat()
}

/// The Authentication Data (0x16) among the properties.
fn authentication_data(properties: &[u8]) -> Vec<u8> {
    let method = b"\x15\x00\x0DSCRAM-SHA-256\x16";
    let at = properties.windows(method.len()).position(|window| window == method);
    let data = &properties[at.expect("method and data, in this order") + method.len()..];
    let length = usize::from(u16::from_be_bytes([data[0], data[1]]));
    data[2..2 + length].to_vec()
}

/// Challenge, proof and the server's signature travel in AUTH and CONNACK.
#[test]
fn scram_authenticates_in_both_directions() {
    let directory = tempfile::tempdir().unwrap();
    set_password(directory.path(), "ann", "secret");
    let broker = Broker::start(directory.path(), &[("PETREL_AUTH__USERS_FILE", "users.txt")]);
    for (password, accepted) in [("secret", true), ("wrong", false)] {
        let mut client = ScramClient::new("ann", password).unwrap();
        let mut stream = broker.connect();
        let mut connect = b"\x00\x04MQTT\x05\x02\x00\x3C".to_vec();
        connect.extend(authentication(&client.first()));
        connect.extend(b"\x00\x01c");
        send(&mut stream, 0x10, &connect);
        let (first, body) = receive(&mut stream);
        assert_eq!((first, body[0]), (0xF0, 0x18), "Continue authentication");
        let Ok(ClientStep::Send(proof)) = client.step(&authentication_data(&body[1..])) else {
            panic!("no proof")
        };
        send(&mut stream, 0xF0, &[vec![0x18], authentication(&proof)].concat());
        let (first, body) = receive(&mut stream);
        assert_eq!(first, 0x20);
        if !accepted {
            assert_eq!(body[1], 0x87, "Not authorized");
            continue;
        }
        assert_eq!(body[1], 0);
        assert_eq!(client.step(&authentication_data(&body[2..])), Ok(ClientStep::Done));
    }
}

/// A Session that ends while its messages are queued on disk loses them, and counts them.
#[test]
fn messages_that_end_with_their_session_are_counted() {
    let directory = tempfile::tempdir().unwrap();
    let http = free_port();
    let listen = format!("127.0.0.1:{http}");
    let broker = Broker::start(directory.path(), &[("PETREL_HTTP__LISTEN", &listen)]);
    let port = broker.port.to_string();
    let client = |arguments: &[&str]| {
        let output = run(directory.path(), &[arguments, &["-p", &port, "-t", "x"]].concat());
        assert!(output.status.success(), "{}", errors(&output));
    };
    client(&["pub", "-q", "1", "-r", "-m", "first"]);
    client(&["sub", "-i", "a", "-c", "-x", "3600", "-q", "1", "-C", "1"]);
    for number in ["1", "2", "3"] {
        client(&["pub", "-q", "1", "-m", number]);
    }
    client(&["sub", "-i", "a", "-q", "1", "-C", "1"]);
    let mut stream = TcpStream::connect(&listen).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut metrics = String::new();
    stream.read_to_string(&mut metrics).unwrap();
    let dropped = metrics.lines().find(|line| line.contains("session-ended")).unwrap();
    assert!(dropped.ends_with(" 3"), "{dropped}");
}
