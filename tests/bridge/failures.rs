//! Remote brokers that are unreachable, do not answer or refuse us: clear messages, no busy loop, and a connection as
//! soon as possible.

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::port::free_port;
use crate::process::{Broker, Subscriber, bridge, eventually, has_mosquitto};
use crate::proxy::Proxy;

fn last_error(broker: &Broker) -> String {
    broker.bridge("b", "last_error").as_str().unwrap_or_default().to_owned()
}

fn wait_for_error(broker: &Broker, words: &str) {
    eventually(&format!("the error says: {words}"), || {
        let error = last_error(broker);
        error.contains(words) || {
            if !error.is_empty() {
                eprintln!("so far: {error}");
            }
            false
        }
    });
}

/// Attempts of the bridge in a second and a half: few, though nothing keeps it from trying.
fn assert_no_busy_loop(broker: &Broker) {
    let attempts = || broker.bridge("b", "attempts").as_u64().unwrap();
    let before = attempts();
    std::thread::sleep(Duration::from_millis(1500));
    let made = attempts() - before;
    assert!(made <= 30, "{made} attempts in 1.5 s");
}

#[test]
fn a_remote_that_accepts_and_never_answers_is_given_up_in_time() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let broker = Broker::petrel(&bridge(port, "5.0", &["a out"], "connect_timeout = \"500ms\""));
    wait_for_error(&broker, "CONNACK did not finish");
    assert_no_busy_loop(&broker);
}

#[test]
fn a_remote_that_hangs_up_is_named() {
    let rude = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = rude.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in rude.incoming().flatten() {
            let _read = stream.read(&mut [0; 1024]);
        }
    });
    let broker = Broker::petrel(&bridge(port, "5.0", &["a out"], ""));
    wait_for_error(&broker, "closed the connection");
    assert_no_busy_loop(&broker);
}

#[test]
fn a_name_that_does_not_resolve_is_named_and_another_address_serves() {
    if !has_mosquitto() {
        return;
    }
    let remote = Broker::mosquitto("");
    let toml = bridge(remote.port, "5.0", &["a out 1"], "primary_retry = \"1s\"")
        .replace("addresses = [", "addresses = [\"nowhere.invalid:1883\", ");
    let broker = Broker::petrel(&toml);
    broker.wait_connected("b");
    assert!(
        last_error(&broker).contains("cannot look up \"nowhere.invalid\""),
        "{}",
        last_error(&broker)
    );
}

/// The name is looked up again at each attempt, and queued messages arrive.
#[test]
fn a_name_that_resolves_only_later_is_connected_to_then() {
    if !has_mosquitto() {
        return;
    }
    let remote = Broker::mosquitto("");
    let toml = bridge(remote.port, "5.0", &["a out 1"], "").replace("127.0.0.1", "later.invalid");
    let Some((broker, hosts)) = Broker::petrel_with_hosts(&toml) else { return };
    wait_for_error(&broker, "cannot look up \"later.invalid\"");
    let far = Subscriber::new(&remote, &["-t", "a", "-q", "1", "-F", "%p"]);
    broker.publish(&["-t", "a", "-q", "1", "-m", "waited"]);
    fs::write(hosts, "127.0.0.1 localhost later.invalid\n").unwrap();
    broker.wait_connected("b");
    assert_eq!(far.wait_for(1), ["waited"]);
}

#[test]
fn the_bridge_returns_to_its_first_address() {
    if !has_mosquitto() {
        return;
    }
    let first = free_port();
    let second = Broker::mosquitto("");
    let toml = bridge(second.port, "5.0", &["a out 1"], "primary_retry = \"1s\"")
        .replace("addresses = [", &format!("addresses = [\"127.0.0.1:{first}\", "));
    let broker = Broker::petrel(&toml);
    broker.wait_connected("b");
    assert!(broker.bridge("b", "address").as_str().unwrap().ends_with(&second.port.to_string()));
    let primary = Broker::mosquitto_on(first, "");
    eventually("it returned", || {
        let address = broker.bridge("b", "address").as_str().unwrap_or_default().to_owned();
        address.ends_with(&primary.port.to_string()) && broker.bridge("b", "state") == "connected"
    });
}

#[test]
fn a_wrong_password_is_named_and_a_corrected_file_is_read() {
    if !has_mosquitto() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let users = directory.path().join("users");
    let made = std::process::Command::new("mosquitto_passwd")
        .args(["-c", "-b"])
        .arg(&users)
        .args(["me", "right"])
        .status();
    assert!(made.unwrap().success());
    let remote =
        Broker::mosquitto(&format!("allow_anonymous false\npassword_file {}", users.display()));
    let password = directory.path().join("password");
    fs::write(&password, "wrong\n").unwrap();
    let extra = format!("username = \"me\"\npassword_file = \"{}\"", password.display());
    for protocol in ["5.0", "3.1.1"] {
        fs::write(&password, "wrong\n").unwrap();
        let broker = Broker::petrel(&bridge(remote.port, protocol, &["a out"], &extra));
        wait_for_error(&broker, "refused the connection");
        assert!(
            last_error(&broker).contains("not authorized")
                || last_error(&broker).contains("password")
        );
        assert_no_busy_loop(&broker);
        fs::write(&password, "right\n").unwrap();
        broker.wait_connected("b");
    }
}

#[test]
fn a_certificate_that_is_not_trusted_is_named_and_a_trusted_one_works() {
    if !has_mosquitto() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let certs = |name: &str| {
        let path = directory.path().join(name);
        let made = std::process::Command::new(env!("CARGO_BIN_EXE_petrel"))
            .args(["certs", "--host", "localhost", "--out"])
            .arg(&path)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        path
    };
    let (trusted, other) = (certs("one"), certs("two"));
    let file = |directory: &std::path::Path, name: &str| directory.join(name).display().to_string();
    let remote = Broker::petrel(&format!(
        "[[listener]]\nname = \"tls\"\nlisten = \"127.0.0.1:{}\"\nallow_anonymous = true\n\
         tls = {{ certificate = \"{}\", key = \"{}\" }}",
        free_port(),
        file(&trusted, "server.crt"),
        file(&trusted, "server.key"),
    ));
    let port = remote_tls_port(&remote);
    let toml = |ca: &std::path::Path, host: &str| {
        bridge(
            port,
            "5.0",
            &["a out"],
            &format!("[bridge.tls]\nca_file = \"{}\"", file(ca, "ca.crt")),
        )
        .replace("127.0.0.1:", &format!("mqtts://{host}:"))
    };
    let broker = Broker::petrel(&toml(&other, "localhost"));
    wait_for_error(&broker, "not trusted");
    assert_no_busy_loop(&broker);
    broker.configure(&toml(&trusted, "localhost"));
    broker.hang_up();
    broker.wait_connected("b");
    let plain = Broker::petrel(
        &toml(&trusted, "localhost").replace(&port.to_string(), &remote.port.to_string()),
    );
    wait_for_error(&plain, "does this port speak TLS");
}

fn remote_tls_port(remote: &Broker) -> u16 {
    let config = fs::read_to_string(remote.path().join("petrel.toml")).unwrap();
    let line = config.lines().filter(|line| line.starts_with("listen = ")).nth(1).unwrap();
    line.trim_end_matches('"').rsplit(':').next().unwrap().parse().unwrap()
}

#[test]
fn a_pulled_cable_is_noticed() {
    if !has_mosquitto() {
        return;
    }
    let remote = Broker::mosquitto("");
    let proxy = Proxy::start(remote.port, None, 0);
    let extra = "client_id = \"me\"\nkeep_alive = \"2s\"\nresponse_timeout = \"500ms\"\nconnect_timeout = \"1s\"";
    let broker = Broker::petrel(&bridge(proxy.port, "5.0", &["a out"], extra));
    let state = Subscriber::new(&broker, &["-t", "$SYS/broker/connection/me/state", "-F", "%p"]);
    broker.wait_connected("b");
    proxy.pull_the_cable();
    let started = Instant::now();
    // A stream of QoS 0 messages into the dead connection must not look like life.
    eventually("the state is 0", || {
        broker.publish(&["-t", "a", "-m", "x"]);
        state.lines().last().is_some_and(|line| line == "0")
    });
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert!(last_error(&broker).contains("did not answer"), "{}", last_error(&broker));
}
