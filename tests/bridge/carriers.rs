//! The transports of a bridge: WebSocket, TLS with client certificates, and what the other end sees of them.

use std::io::Read;
use std::net::{IpAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use crate::port::free_port;
use crate::process::{Broker, PATIENCE, Subscriber, bridge, eventually, has_mosquitto};

/// A development CA with certificates of `localhost` and of a client.
pub fn certificates(directory: &Path) -> PathBuf {
    let path = directory.join("certs");
    let made = std::process::Command::new(env!("CARGO_BIN_EXE_petrel"))
        .args(["certs", "--host", "localhost", "--out"])
        .arg(&path)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    path
}

fn tls_listener(certs: &Path) -> String {
    let certs = certs.display();
    format!(
        "tls = {{ certificate = \"{certs}/server.crt\", key = \"{certs}/server.key\", client_ca = \"{certs}/ca.crt\", \
         client_certificate = \"required\" }}\n"
    )
}

fn bridge_tls(certs: &Path) -> String {
    let certs = certs.display();
    format!(
        "[bridge.tls]\nca_file = \"{certs}/ca.crt\"\ncertificate = \"{certs}/client.crt\"\nkey = \"{certs}/client.key\"\n"
    )
}

/// Messages of every QoS and of more than one WebSocket frame both ways, and again after the remote was killed.
fn crosses(scheme: &str) {
    let directory = tempfile::tempdir().unwrap();
    let certs = certificates(directory.path());
    let port = free_port();
    let is_secure = scheme.ends_with('s') && scheme != "ws";
    let is_websocket = scheme.starts_with("ws");
    let mut remote = Broker::petrel(&format!(
        "[[listener]]\nname = \"second\"\nlisten = \"127.0.0.1:{port}\"\nallow_anonymous = true\n{}{}",
        if is_websocket { "transport = \"websocket\"\npath = \"/broker\"\n" } else { "" },
        if is_secure { tls_listener(&certs) } else { String::new() },
    ));
    let path = if is_websocket { "/broker" } else { "" };
    let tls = if is_secure { bridge_tls(&certs) } else { String::new() };
    let toml = bridge(port, "5.0", &["up/# out 2", "down/# in 2"], &tls)
        .replace(&format!("127.0.0.1:{port}"), &format!("{scheme}://localhost:{port}{path}"));
    let local = Broker::petrel(&toml);
    local.wait_connected("b");
    let large = directory.path().join("large");
    std::fs::write(&large, "0123456789".repeat(60_000)).unwrap();
    let large = large.display().to_string();
    for round in ["first", "second"] {
        let far = Subscriber::new(&remote, &["-t", "up/#", "-q", "2", "-F", "%t %q %l %P"]);
        let near = Subscriber::new(&local, &["-t", "down/#", "-q", "2", "-F", "%t %q %l %P"]);
        for (broker, subscriber, name) in [(&local, &far, "up"), (&remote, &near, "down")] {
            let mut expected = Vec::new();
            for qos in ["0", "1", "2"] {
                broker.publish(&["-t", &format!("{name}/{qos}"), "-q", qos, "-m", round]);
                expected.push(format!("{name}/{qos} {qos} {} ", round.len()));
            }
            broker.publish(&["-t", &format!("{name}/large"), "-q", "1", "-f", &large]);
            expected.push(format!("{name}/large 1 600000 "));
            let mut lines = subscriber.wait_for(4);
            lines.sort();
            let found = lines
                .iter()
                .zip(&expected)
                .all(|(line, wanted)| line.starts_with(wanted.trim_end()));
            assert!(found && lines.len() == 4, "{scheme} {round}: {lines:?}");
        }
        remote.kill();
        eventually("the loss is noticed", || local.bridge("b", "state") != "connected");
        remote.restart();
        local.wait_connected("b");
    }
}

#[test]
fn a_bridge_over_websocket_carries_everything() {
    if has_mosquitto() {
        crosses("ws");
    }
}

#[test]
fn a_bridge_over_secure_websocket_carries_everything() {
    if has_mosquitto() {
        crosses("wss");
    }
}

#[test]
fn a_bridge_over_tls_with_a_client_certificate_carries_everything() {
    if has_mosquitto() {
        crosses("mqtts");
    }
}

/// A port that takes one connection and gives back who came and what it said first.
fn witness() -> (u16, mpsc::Receiver<(IpAddr, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        while let Ok((mut stream, peer)) = listener.accept() {
            let mut buffer = vec![0; 4096];
            let count = stream.read(&mut buffer).unwrap_or(0);
            buffer.truncate(count);
            if sender.send((peer.ip(), buffer)).is_err() {
                return;
            }
        }
    });
    (port, receiver)
}

fn holds(bytes: &[u8], wanted: &str) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted.as_bytes())
}

#[test]
fn alpn_and_server_name_are_in_the_client_hello() {
    let (port, seen) = witness();
    let tls = "[bridge.tls]\nverify = \"none\"\nalpn = [\"x-amzn-mqtt-ca\", \"mqtt\"]\nserver_name = \"shown.example\"";
    let toml = bridge(port, "5.0", &["a out"], tls).replace("127.0.0.1:", "mqtts://127.0.0.1:");
    let _broker = Broker::petrel(&toml);
    let (_, hello) = seen.recv_timeout(PATIENCE).unwrap();
    assert_eq!(hello[0], 22, "a TLS handshake");
    for wanted in ["x-amzn-mqtt-ca", "mqtt", "shown.example"] {
        assert!(holds(&hello, wanted), "{wanted}");
    }
}

#[test]
fn the_bind_address_and_the_rotating_credentials_are_what_the_remote_sees() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (user, password) = (file("user", "first-user\n"), file("password", "first-password\n"));
    let (port, seen) = witness();
    let extra = format!(
        "bind_address = \"127.0.0.9\"\nusername_file = \"{user}\"\npassword_file = \"{password}\"\nclient_id = \"me\""
    );
    let _broker = Broker::petrel(&bridge(port, "3.1.1", &["a out"], &extra));
    let (peer, connect) = seen.recv_timeout(PATIENCE).unwrap();
    assert_eq!(peer.to_string(), "127.0.0.9");
    for wanted in ["me", "first-user", "first-password"] {
        assert!(holds(&connect, wanted), "{wanted}");
    }
    file("user", "second-user\n");
    file("password", "second-password\n");
    let started = std::time::Instant::now();
    loop {
        let (_, connect) = seen.recv_timeout(PATIENCE).unwrap();
        if holds(&connect, "second-user") && holds(&connect, "second-password") {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "the old credentials are sent still");
    }
}
