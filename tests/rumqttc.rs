//! rumqttc, the Rust client, in both of its versions, against a broker process: every QoS both ways, retained, will,
//! persistent session, 1 MiB, wildcards, shared subscriptions; each over TCP, TLS, WebSocket and secure WebSocket.

#![allow(missing_docs, reason = "tests are named by what they check")]
#![allow(unused_qualifications, reason = "the arguments of a macro do not know what it imports")]

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use rumqttc::Transport;

use crate::port::free_port;

#[path = "support/port.rs"]
mod port;

/// What carries the packets.
#[derive(Debug, Clone, Copy)]
enum Carrier {
    Tcp,
    Tls,
    WebSocket,
    SecureWebSocket,
}

const CARRIERS: [Carrier; 4] =
    [Carrier::Tcp, Carrier::Tls, Carrier::WebSocket, Carrier::SecureWebSocket];

/// A broker of this test's own; killed and removed at the end.
struct Broker {
    child: Child,
    port: u16,
    carrier: Carrier,
    directory: tempfile::TempDir,
}

impl Broker {
    fn start(carrier: Carrier) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = free_port();
        let config = directory.path().join("petrel.toml");
        let data = directory.path().join("data");
        let mut text = format!(
            "data_dir = {data:?}\nhttp.listen = \"\"\n[[listener]]\nlisten = \"127.0.0.1:{port}\"\nallow_anonymous = true\n"
        );
        if matches!(carrier, Carrier::WebSocket | Carrier::SecureWebSocket) {
            text += "transport = \"websocket\"\n";
        }
        if matches!(carrier, Carrier::Tls | Carrier::SecureWebSocket) {
            text += &make_certificates(directory.path());
        }
        fs::write(&config, text).unwrap();
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_petrel"))
            .args(["serve", "--config"])
            .arg(&config)
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(started.elapsed() < Duration::from_secs(60), "the broker does not start");
            thread::sleep(Duration::from_millis(20));
        }
        Self { child, port, carrier, directory }
    }

    /// What a client takes for the host.
    fn host(&self) -> String {
        match self.carrier {
            Carrier::Tcp | Carrier::Tls => "127.0.0.1".to_owned(),
            Carrier::WebSocket => format!("ws://127.0.0.1:{}/mqtt", self.port),
            Carrier::SecureWebSocket => format!("wss://127.0.0.1:{}/mqtt", self.port),
        }
    }

    fn transport(&self) -> Transport {
        let authority = || fs::read(self.directory.path().join("ca.crt")).unwrap();
        match self.carrier {
            Carrier::Tcp => Transport::tcp(),
            Carrier::Tls => Transport::tls(authority(), None, None),
            Carrier::WebSocket => Transport::ws(),
            Carrier::SecureWebSocket => Transport::wss(authority(), None, None),
        }
    }
}

/// Makes certificates in `directory`; returns the part of the configuration that names them.
fn make_certificates(directory: &Path) -> String {
    // The client's crate leaves the choice to its user.
    let _chosen_already = rustls::crypto::ring::default_provider().install_default();
    let made = Command::new(env!("CARGO_BIN_EXE_petrel"))
        .args(["certs", "--out"])
        .arg(directory)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let (certificate, key) = (directory.join("server.crt"), directory.join("server.key"));
    format!("[listener.tls]\ncertificate = {certificate:?}\nkey = {key:?}\n")
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

/// The same tests for both clients of the crate, whose interfaces differ in names only.
macro_rules! client_tests {
    ($version:ident, $api:path, $qos:path, $packet:path, $will:expr, $keep:expr, $text:expr) => {
        mod $version {
            use std::time::Duration;

            use $api as api;
            use $packet as Packet;
            use $qos as QoS;

            use super::{Broker, CARRIERS};

            const DEADLINE: Duration = Duration::from_secs(20);
            const LEVELS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

            struct Client {
                client: api::Client,
                connection: api::Connection,
                session_present: bool,
            }

            impl Client {
                fn options(broker: &Broker, id: &str) -> api::MqttOptions {
                    let mut options = api::MqttOptions::new(id, broker.host(), broker.port);
                    options.set_transport(broker.transport());
                    options.set_keep_alive(Duration::from_secs(60));
                    $keep(&mut options, false);
                    options
                }

                fn connect(options: api::MqttOptions) -> Self {
                    let (client, connection) = api::Client::new(options, 100);
                    let mut client = Self { client, connection, session_present: false };
                    client.session_present = client.wait(|packet| match packet {
                        Packet::ConnAck(connack) => Some(connack.session_present),
                        _ => None,
                    });
                    client
                }

                fn new(broker: &Broker, id: &str) -> Self {
                    Self::connect(Self::options(broker, id))
                }

                /// The first packet that is looked for.
                fn wait<T>(&mut self, mut look: impl FnMut(Packet) -> Option<T>) -> T {
                    loop {
                        let event = self
                            .connection
                            .recv_timeout(DEADLINE)
                            .expect("in time")
                            .expect("connected");
                        if let api::Event::Incoming(packet) = event
                            && let Some(found) = look(packet)
                        {
                            return found;
                        }
                    }
                }

                fn subscribe(&mut self, filter: &str, qos: QoS) {
                    self.client.subscribe(filter, qos).unwrap();
                    self.wait(|packet| matches!(packet, Packet::SubAck(_)).then_some(()));
                }

                fn publish(&mut self, topic: &str, qos: QoS, retain: bool, payload: &[u8]) {
                    self.client.publish(topic, qos, retain, payload.to_vec()).unwrap();
                    match qos {
                        // Nothing answers QoS 0: what comes after it does.
                        QoS::AtMostOnce => self.subscribe("settle", QoS::AtMostOnce),
                        QoS::AtLeastOnce => {
                            self.wait(|packet| matches!(packet, Packet::PubAck(_)).then_some(()))
                        }
                        QoS::ExactlyOnce => {
                            self.wait(|packet| matches!(packet, Packet::PubComp(_)).then_some(()))
                        }
                    }
                }

                /// Topic, payload, QoS and RETAIN of the next message.
                fn receive(&mut self) -> (String, Vec<u8>, QoS, bool) {
                    self.wait(|packet| match packet {
                        Packet::Publish(publish) => {
                            let topic = $text(&publish.topic);
                            Some((topic, publish.payload.to_vec(), publish.qos, publish.retain))
                        }
                        _ => None,
                    })
                }
            }

            #[test]
            fn every_qos_both_ways() {
                for broker in CARRIERS.map(Broker::start) {
                    let (mut receiver, mut sender) =
                        (Client::new(&broker, "r"), Client::new(&broker, "s"));
                    for qos in LEVELS {
                        receiver.subscribe("t", qos);
                        for number in 0..10 {
                            sender.publish("t", qos, false, format!("{number}").as_bytes());
                        }
                        for number in 0..10 {
                            let (_, payload, found, _) = receiver.receive();
                            assert_eq!((payload, found), (format!("{number}").into_bytes(), qos));
                        }
                    }
                }
            }

            #[test]
            fn retained_wildcards_and_a_mebibyte() {
                for broker in CARRIERS.map(Broker::start) {
                    let mut sender = Client::new(&broker, "s");
                    let large = vec![7; 1 << 20];
                    sender.publish("kept/a/b", QoS::AtLeastOnce, true, b"kept");
                    let mut options = Client::options(&broker, "r");
                    let size = 2 << 20;
                    super::allow_large::$version(&mut options, size);
                    let mut receiver = Client::connect(options);
                    receiver.subscribe("kept/+/#", QoS::AtLeastOnce);
                    assert_eq!(
                        receiver.receive(),
                        ("kept/a/b".into(), b"kept".to_vec(), QoS::AtLeastOnce, true)
                    );
                    let mut options = Client::options(&broker, "large");
                    super::allow_large::$version(&mut options, size);
                    Client::connect(options).publish("kept/large", QoS::AtLeastOnce, false, &large);
                    assert!(receiver.receive().1 == large);
                }
            }

            #[test]
            fn a_persistent_session_and_a_will() {
                for broker in CARRIERS.map(Broker::start) {
                    let mut options = Client::options(&broker, "durable");
                    $keep(&mut options, true);
                    let mut client = Client::connect(options.clone());
                    assert!(!client.session_present);
                    client.subscribe("queue", QoS::ExactlyOnce);
                    client.subscribe("will", QoS::AtLeastOnce);
                    drop(client);
                    let mut sender = Client::new(&broker, "s");
                    for number in 0..5 {
                        sender.publish(
                            "queue",
                            QoS::ExactlyOnce,
                            false,
                            format!("{number}").as_bytes(),
                        );
                    }
                    let mut client = Client::connect(options);
                    assert!(client.session_present);
                    for number in 0..5 {
                        assert_eq!(client.receive().1, format!("{number}").into_bytes());
                    }
                    let mut dying = Client::options(&broker, "dying");
                    dying.set_last_will($will);
                    drop(Client::connect(dying));
                    assert_eq!(client.receive().1, b"gone");
                }
            }

            #[test]
            fn shared_subscriptions() {
                for broker in CARRIERS.map(Broker::start) {
                    let mut members = [Client::new(&broker, "m1"), Client::new(&broker, "m2")];
                    for member in &mut members {
                        member.subscribe("$share/g/t", QoS::AtLeastOnce);
                    }
                    let mut sender = Client::new(&broker, "s");
                    for number in 0..10u8 {
                        sender.publish("t", QoS::AtLeastOnce, false, &[number]);
                    }
                    let mut all: Vec<u8> = Vec::new();
                    for member in &mut members {
                        for _ in 0..5 {
                            all.extend(member.receive().1);
                        }
                    }
                    all.sort_unstable();
                    assert_eq!(all, (0..10).collect::<Vec<u8>>());
                }
            }
        }
    };
}

/// How each client is told to take large packets.
mod allow_large {
    pub(super) fn v4(options: &mut rumqttc::MqttOptions, size: usize) {
        options.set_max_packet_size(size, size);
    }

    pub(super) fn v5(options: &mut rumqttc::v5::MqttOptions, size: usize) {
        options.set_max_packet_size(u32::try_from(size).ok());
    }
}

client_tests!(
    v4,
    rumqttc,
    rumqttc::QoS,
    rumqttc::Packet,
    rumqttc::LastWill::new("will", "gone", rumqttc::QoS::AtLeastOnce, false),
    |options: &mut rumqttc::MqttOptions, keep: bool| {
        options.set_clean_session(!keep);
    },
    |topic: &str| topic.to_owned()
);
client_tests!(
    v5,
    rumqttc::v5,
    rumqttc::v5::mqttbytes::QoS,
    rumqttc::v5::mqttbytes::v5::Packet,
    rumqttc::v5::mqttbytes::v5::LastWill::new(
        "will",
        "gone",
        rumqttc::v5::mqttbytes::QoS::AtLeastOnce,
        false,
        None
    ),
    |options: &mut rumqttc::v5::MqttOptions, keep: bool| {
        options.set_clean_start(!keep);
        options.set_session_expiry_interval(keep.then_some(600));
    },
    |topic: &[u8]| String::from_utf8_lossy(topic).into_owned()
);
