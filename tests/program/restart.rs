//! What a broker that was killed leaves behind: files that nobody else may read, and Wills.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::{Broker, petrel, run, send, text};

/// Every file and directory below with its mode.
fn modes(directory: &Path) -> Vec<(String, bool, u32)> {
    let mut found = Vec::new();
    for file in fs::read_dir(directory).unwrap().flatten() {
        let metadata = file.metadata().unwrap();
        let mode = metadata.permissions().mode() & 0o777;
        found.push((file.path().display().to_string(), metadata.is_dir(), mode));
        if metadata.is_dir() {
            found.extend(modes(&file.path()));
        }
    }
    found
}

fn assert_private(directory: &Path) {
    let own = directory.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(own, 0o700, "{}", directory.display());
    let found = modes(directory);
    assert!(found.len() > 5, "{found:?}");
    for (path, is_directory, mode) in found {
        let expected = if is_directory { 0o700 } else { 0o600 };
        // A socket has the mode that its setting says.
        assert!(mode == expected || path.ends_with(".sock"), "{path} has mode {mode:o}");
    }
}

/// Queued messages, names of clients and backups of both are nobody else's business. They were made as the umask of
/// whoever starts the broker says, which is 0022 in most places: readable for everybody.
#[test]
fn what_the_broker_makes_is_private_whatever_the_umask() {
    let directory = tempfile::tempdir().unwrap();
    let plain = petrel(directory.path(), &["serve"]);
    let mut open = Command::new("sh");
    open.args(["-c", "umask 0; exec \"$0\" serve"]).arg(plain.get_program());
    open.current_dir(directory.path()).stdin(Stdio::null());
    let mut broker = Broker::start_by(open, directory.path(), &[]);
    broker.signal("-TERM");
    assert_eq!(broker.wait(), Some(0));
    assert_private(&directory.path().join("data"));

    let script = "umask 0; exec \"$0\" store --data-dir data backup copy";
    let backup = Command::new("sh")
        .args(["-c", script])
        .arg(plain.get_program())
        .current_dir(directory.path())
        .output()
        .unwrap();
    assert!(backup.status.success(), "{}", text(&backup));
    assert_private(&directory.path().join("copy"));
}

#[test]
fn a_data_directory_that_others_may_read_is_named_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
    let broker = Broker::start(directory.path(), &[]);
    let log = fs::read_to_string(directory.path().join("log")).unwrap();
    assert!(
        log.contains("other users can read the data directory") && log.contains("755"),
        "{log}"
    );
    drop(broker);
    assert_eq!(run(directory.path(), &["store", "check"]).status.code(), Some(0));
}

fn connect(broker: &Broker, client_id: &str, will: Option<&str>) -> TcpStream {
    let mut stream = broker.connect();
    let flags = if will.is_some() { 0x26 } else { 0x02 };
    let mut body = b"\x00\x04MQTT\x04".to_vec();
    body.extend([flags, 0, 0]);
    let fields = [Some(client_id), will, will.map(|_| "offline")];
    for field in fields.into_iter().flatten() {
        body.extend(u16::try_from(field.len()).unwrap().to_be_bytes());
        body.extend(field.as_bytes());
    }
    send(&mut stream, 0x10, &body);
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [0x20, 2, 0, 0]);
    stream
}

/// Topics of the next PUBLISH packets (QoS 0), each with its payload.
fn receive(stream: &mut TcpStream) -> (String, String) {
    let mut head = [0; 4];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(head[0] & 0xF0, 0x30, "PUBLISH");
    let mut rest = vec![0; usize::from(head[1]) - 2];
    stream.read_exact(&mut rest).unwrap();
    let (topic, payload) = rest.split_at(usize::from(head[3]));
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(topic), text(payload))
}

/// Devices of clean sessions leave Wills and die with the broker (`kill -9`). Those that are not back in time are declared
/// dead after its restart; one that is back, and one that had said goodbye, are not. [MQTT-3.1.2-8]
#[test]
fn the_wills_of_clean_sessions_survive_a_kill_of_the_broker() {
    let directory = tempfile::tempdir().unwrap();
    let settings = [("PETREL_PROTOCOL__WILL_AFTER_RESTART", "4s")];
    let mut broker = Broker::start(directory.path(), &settings);
    let topics: Vec<String> = (0..50).map(|device| format!("device/{device}")).collect();
    let mut devices: Vec<_> =
        topics.iter().map(|topic| connect(&broker, topic, Some(topic))).collect();
    let mut polite = connect(&broker, "polite", Some("device/polite"));
    polite.write_all(&[0xE0, 0]).unwrap();
    assert_eq!(polite.read(&mut [0]).unwrap(), 0, "DISCONNECT is handled");
    // One of a Session that lasts, whose CONNACK waits for the store: what came before it is written.
    let mut last = broker.connect();
    send(&mut last, 0x10, b"\x00\x04MQTT\x04\x00\x00\x00\x00\x04last");
    last.read_exact(&mut [0; 4]).unwrap();
    broker.child.kill().unwrap();
    broker.wait();
    devices.clear();

    let broker = Broker::start(directory.path(), &settings);
    let _returned = connect(&broker, &topics[7], Some(&topics[7]));
    let mut watcher = connect(&broker, "watcher", None);
    send(&mut watcher, 0x82, b"\x00\x01\x00\x08device/+\x00");
    watcher.read_exact(&mut [0; 5]).unwrap();
    let mut dead: Vec<_> = (0..49).map(|_| receive(&mut watcher)).collect();
    dead.sort();
    let mut expected: Vec<_> =
        topics.iter().map(|topic| (topic.clone(), "offline".to_owned())).collect();
    expected.remove(7);
    expected.sort();
    assert_eq!(dead, expected);
    // Nothing else comes: what is sent now is the next that arrives.
    let mut probe = connect(&broker, "probe", None);
    send(&mut probe, 0x30, b"\x00\x0cdevice/probe!");
    assert_eq!(receive(&mut watcher), ("device/probe".to_owned(), "!".to_owned()));
}
