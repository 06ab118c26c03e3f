//! MQTT itself through each transport: the connection's loop must work with streams that hold bytes back, cut writes
//! short, and wake it at odd times, as TLS and WebSocket do.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use mqttbytes::QoS;
use mqttbytes::v4::{Connect, ConnectReturnCode, Packet, Publish, Subscribe, read as read_packet};
use petrel::access::Peer;
use petrel::config::choice::{ClientCertificate, StoreKind};
use petrel::config::settings::{ListenAddress, ListenerSettings, Settings, Transport};
use petrel::control::command::{Command, CommandPort, Reply, SessionQuery};
use petrel::dial::websocket;
use petrel::metrics::counter::Counter;
use petrel::net::accept::Handler as _;
use petrel::net::connection::MqttHandler;
use petrel::node::Node;
use petrel::node::handle::NodeHandle;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::echo::{PATIENCE, listener, loopback};
use crate::tls::Authority;

/// A broker in this process, without a disk.
struct Broker {
    addresses: Vec<ListenAddress>,
    handle: NodeHandle,
    commands: Arc<CommandPort>,
    ended: JoinHandle<()>,
    _data: tempfile::TempDir,
}

async fn serve(listeners: Vec<ListenerSettings>) -> Broker {
    serve_with(listeners, |_usual| {}).await
}

async fn serve_with(
    listeners: Vec<ListenerSettings>,
    change: impl FnOnce(&mut Settings),
) -> Broker {
    let data = tempfile::tempdir().unwrap();
    let data_dir = data.path().to_owned();
    let mut settings = Settings { data_dir, ..Settings::default() };
    settings.file.persistence.store = StoreKind::Memory;
    settings.limits.max_inflight = 1000;
    settings.http_listen = None;
    settings.control_socket = None;
    settings.shutdown_grace = Duration::from_secs(5);
    settings.listeners = listeners
        .into_iter()
        .map(|mut listener| {
            let mut rules = (*listener.rules).clone();
            rules.allow_anonymous = !rules.certificate_as_user_name;
            listener.rules = rules.into();
            listener
        })
        .collect();
    change(&mut settings);
    let again = settings.clone();
    let node = Node::open(settings, Box::new(move || Ok(again.clone()))).await.unwrap();
    let (addresses, handle, commands) = (node.addresses(), node.handle(), node.commands());
    Broker { addresses, handle, commands, ended: tokio::spawn(node.run()), _data: data }
}

impl Broker {
    async fn tcp(&self, index: usize) -> TcpStream {
        let ListenAddress::Tcp(address) = self.addresses[index] else { panic!("not TCP") };
        TcpStream::connect(address).await.unwrap()
    }
}

fn in_websocket(settings: ListenerSettings) -> ListenerSettings {
    let transport = Transport::WebSocket { paths: vec!["/mqtt".to_owned()], origins: Vec::new() };
    ListenerSettings { transport, ..settings }
}

/// A Client that sends and expects packets.
struct Client<S> {
    stream: S,
    received: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    async fn connect(stream: S, client_id: &str) -> Self {
        let mut client = Self { stream, received: BytesMut::new() };
        let mut packet = BytesMut::new();
        Connect::new(client_id).write(&mut packet).unwrap();
        client.send(&packet).await;
        let Packet::ConnAck(answer) = client.next().await else { panic!("no CONNACK") };
        assert_eq!(answer.code, ConnectReturnCode::Success);
        client
    }

    async fn send(&mut self, bytes: &[u8]) {
        let sending = async {
            self.stream.write_all(bytes).await.unwrap();
            self.stream.flush().await.unwrap();
        };
        timeout(PATIENCE, sending).await.expect("sent in time");
    }

    async fn next(&mut self) -> Packet {
        loop {
            match read_packet(&mut self.received, 16 << 20) {
                Ok(packet) => return packet,
                Err(mqttbytes::Error::InsufficientBytes(_)) => {}
                Err(error) => panic!("{error}"),
            }
            let reading = self.stream.read_buf(&mut self.received);
            let count = timeout(PATIENCE, reading).await.expect("an answer in time").unwrap();
            assert!(count > 0, "the broker closed");
        }
    }

    async fn subscribe(&mut self, topic: &str) {
        let mut subscribe = Subscribe::new(topic, QoS::AtLeastOnce);
        subscribe.pkid = 1;
        let mut packet = BytesMut::new();
        subscribe.write(&mut packet).unwrap();
        self.send(&packet).await;
        assert!(matches!(self.next().await, Packet::SubAck(_)));
    }
}

/// Small messages in bursts and large ones, to itself and back.
async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(stream: S, client_id: &str) -> Client<S> {
    let mut client = Client::connect(stream, client_id).await;
    let topic = format!("own/{client_id}");
    client.subscribe(&topic).await;
    let large: Vec<u8> = (0..400_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    let mut payloads: Vec<Vec<u8>> =
        (0..300_u32).map(|number| number.to_le_bytes().into()).collect();
    payloads.extend([large.clone(), vec![], large]);
    let mut packets = BytesMut::new();
    for (index, payload) in (1..).zip(&payloads) {
        let mut publish = Publish::new(&topic, QoS::AtLeastOnce, payload.clone());
        publish.pkid = index;
        publish.write(&mut packets).unwrap();
    }
    // The first burst in odd pieces, the rest at once.
    let (pieces, rest) = packets.split_at(2000);
    for piece in pieces.chunks(7) {
        client.send(piece).await;
    }
    let (mut acknowledged, mut delivered) = (0, 0);
    let (mut reader, mut writer) = tokio::io::split(client.stream);
    let rest = rest.to_vec();
    let writing = async {
        writer.write_all(&rest).await.unwrap();
        writer.flush().await.unwrap();
    };
    let mut received = client.received;
    let mut pending = BytesMut::new();
    let reading = async {
        while acknowledged < payloads.len() || delivered < payloads.len() {
            match read_packet(&mut received, 16 << 20) {
                Ok(Packet::PubAck(_)) => acknowledged += 1,
                Ok(Packet::Publish(publish)) => {
                    assert!(publish.payload == payloads[delivered], "message {delivered} differs");
                    delivered += 1;
                    mqttbytes::v4::PubAck::new(publish.pkid).write(&mut pending).unwrap();
                }
                Ok(other) => panic!("{other:?}"),
                Err(mqttbytes::Error::InsufficientBytes(_)) => {
                    assert!(reader.read_buf(&mut received).await.unwrap() > 0, "closed");
                }
                Err(error) => panic!("{error}"),
            }
        }
    };
    let both = async { tokio::join!(writing, reading) };
    timeout(PATIENCE, both).await.expect("everything in time");
    let mut client = Client { stream: reader.unsplit(writer), received };
    client.send(&pending).await;
    client.send(&[0xc0, 0]).await;
    assert_eq!(client.next().await, Packet::PingResp);
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_transport_carries_mqtt() {
    let authority = Authority::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mqtt.sock");
    let secure = || ListenerSettings { tls: Some(authority.server_settings()), ..loopback() };
    let behind_proxy = ListenerSettings { proxy_protocol: true, ..loopback() };
    let broker = serve(vec![
        loopback(),
        secure(),
        in_websocket(loopback()),
        in_websocket(secure()),
        listener(ListenAddress::Unix { path: path.clone(), mode: 0o600 }),
        behind_proxy,
    ])
    .await;
    exchange(broker.tcp(0).await, "tcp").await;
    let tls = authority.client();
    exchange(tls.connect_over(broker.tcp(1).await).await.unwrap(), "tls").await;
    let stream = websocket::upgrade(broker.tcp(2).await, "localhost", "/mqtt").await.unwrap();
    exchange(stream, "websocket").await;
    let stream = tls.connect_over(broker.tcp(3).await).await.unwrap();
    let stream = websocket::upgrade(stream, "localhost", "/mqtt").await.unwrap();
    exchange(stream, "secure-websocket").await;
    exchange(UnixStream::connect(&path).await.unwrap(), "unix").await;
    let mut stream = broker.tcp(5).await;
    stream.write_all(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n").await.unwrap();
    exchange(stream, "proxy").await;
    broker.handle.stop();
    timeout(PATIENCE, broker.ended).await.unwrap().unwrap();
}

/// Once messages were left in the queue because the outbox was full, and nothing looked for them again when it had been
/// written, unless the Client happened to send something. A Client may well read everything before it acknowledges.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_beyond_a_full_outbox_follow_without_acknowledgements() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mqtt.sock");
    let unix = listener(ListenAddress::Unix { path: path.clone(), mode: 0o600 });
    let broker = serve(vec![loopback(), unix]).await;
    let stream = UnixStream::connect(&path).await.unwrap();
    let mut subscriber = Client::connect(stream, "subscriber").await;
    subscriber.subscribe("t").await;
    let mut publisher = Client::connect(broker.tcp(0).await, "publisher").await;
    let count = 900_u16;
    let payload = |number: u16| [&number.to_be_bytes()[..], &[7; 1500]].concat();
    for number in 1..=count {
        let mut publish = Publish::new("t", QoS::AtLeastOnce, payload(number));
        publish.pkid = number;
        let mut packet = BytesMut::new();
        publish.write(&mut packet).unwrap();
        publisher.send(&packet).await;
        assert!(matches!(publisher.next().await, Packet::PubAck(_)));
    }
    for number in 1..=count {
        let Packet::Publish(publish) = subscriber.next().await else { panic!("no PUBLISH") };
        assert!(publish.payload == payload(number), "message {number} differs");
    }
}

/// The last packet before the broker closes arrives, and so does the end of WebSocket and TLS behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_is_told_through_every_transport() {
    let authority = Authority::new();
    let secure = ListenerSettings { tls: Some(authority.server_settings()), ..loopback() };
    let broker = serve(vec![in_websocket(loopback()), in_websocket(secure)]).await;
    let plain = websocket::upgrade(broker.tcp(0).await, "localhost", "/mqtt").await.unwrap();
    let tls = authority.client().connect_over(broker.tcp(1).await).await.unwrap();
    let secure = websocket::upgrade(tls, "localhost", "/mqtt").await.unwrap();
    // MQTT 5.0 without properties: DISCONNECT carries a reason.
    let connect = b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x01a";
    let mut other = *connect;
    *other.last_mut().unwrap() = b'b';
    let first = tokio::spawn(goodbye(plain, connect.to_vec()));
    let second = tokio::spawn(goodbye(secure, other.to_vec()));
    while broker.handle.metrics().sample().gauges.clients_connected < 2 {
        tokio::task::yield_now().await;
    }
    broker.handle.stop();
    for received in [first.await.unwrap(), second.await.unwrap()] {
        // 0x8B Server shutting down, and nothing behind it. [MQTT-3.14.2-1]
        let disconnect = received.windows(3).position(|bytes| bytes == [0xe0, 2, 0x8b]);
        let at = disconnect.or(received.windows(3).position(|bytes| bytes == [0xe0, 1, 0x8b]));
        assert!(at.is_some(), "{received:x?}");
    }
    timeout(PATIENCE, broker.ended).await.unwrap().unwrap();
}

async fn goodbye<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, connect: Vec<u8>) -> Vec<u8> {
    stream.write_all(&connect).await.unwrap();
    stream.flush().await.unwrap();
    let mut received = Vec::new();
    // The end must be a proper one: TLS without its closing alert would be an error here.
    timeout(PATIENCE, stream.read_to_end(&mut received)).await.expect("closed").unwrap();
    received
}

/// Nobody without user is let in here: the certificate's name is the user.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificate_is_the_user_where_the_listener_says_so() {
    let authority = Authority::new();
    let tls = authority.asking_settings(ClientCertificate::Optional);
    let mut settings = ListenerSettings { tls: Some(tls), ..loopback() };
    let mut rules = (*settings.rules).clone();
    rules.certificate_as_user_name = true;
    settings.rules = rules.into();
    let broker = serve(vec![settings]).await;
    let named = authority.named_client("device7");
    exchange(named.connect_over(broker.tcp(0).await).await.unwrap(), "named").await;
    let stream = authority.client().connect_over(broker.tcp(0).await).await.unwrap();
    let mut nameless = Client { stream, received: BytesMut::new() };
    let mut packet = BytesMut::new();
    Connect::new("nameless").write(&mut packet).unwrap();
    nameless.send(&packet).await;
    let Packet::ConnAck(answer) = nameless.next().await else { panic!("no CONNACK") };
    assert_ne!(answer.code, ConnectReturnCode::Success);
}
/// Every end of a connection is counted, and what was sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ends_of_connections_are_counted() {
    let broker = serve(vec![loopback()]).await;
    let counters = broker.handle.metrics().counters().clone();
    let counted = async |counter| {
        let reached = async {
            while counters.read(counter) == 0 {
                tokio::task::yield_now().await;
            }
        };
        assert!(timeout(PATIENCE, reached).await.is_ok(), "{counter:?} was not counted");
        assert_eq!(counters.read(counter), 1, "{counter:?}");
    };
    drop(broker.tcp(0).await);
    counted(Counter::ConnectsAbandoned).await;
    broker.tcp(0).await.write_all(&[0xc0, 0]).await.unwrap();
    counted(Counter::ConnectsRefusedProtocol).await;
    let mut client = Client::connect(broker.tcp(0).await, "a").await;
    counted(Counter::ConnectsNew).await;
    client.send(&[0xe0, 0]).await;
    counted(Counter::DisconnectsByClient).await;
    drop(Client::connect(broker.tcp(0).await, "b").await);
    counted(Counter::DisconnectsByNetwork).await;
    assert_eq!(counters.read(Counter::BytesSent), 8, "two CONNACK packets");
    assert_eq!(counters.read(Counter::PacketsSent), 2);
    assert_eq!(counters.read(Counter::ConnectsResumed), 0);
}

/// What a connection at rest costs is above all its future: once it held a kilobyte for a farewell and its arguments
/// three times.
#[tokio::test]
async fn future_of_a_connection_is_small() {
    let broker = serve(vec![loopback()]).await;
    let handle = &broker.handle;
    let counters = handle.metrics().counters().clone();
    let handler =
        MqttHandler::new(Arc::clone(handle.broker()), handle.clock(), counters, handle.shutdown());
    let peer = Peer { address: None, listener: loopback().rules, certificate_name: None };
    let future = handler.handle(broker.tcp(0).await, peer, None);
    assert!(size_of_val(&future) <= 768, "{}", size_of_val(&future));
}

const FEW: usize = 6;

async fn with_few_places() -> Broker {
    serve_with(vec![loopback()], |settings| settings.accept.max_connections = Some(FEW)).await
}

/// Once 400 sockets that said nothing kept everybody else out of a broker with room for 300.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_sockets_give_way_to_clients_oldest_first() {
    let broker = with_few_places().await;
    let mut silent = Vec::new();
    for number in 0..FEW * 2 {
        let mut stream = broker.tcp(0).await;
        if number % 2 == 1 {
            // A CONNECT that is never finished is no better than none.
            stream.write_all(b"\x10\x40\x00\x04MQTT").await.unwrap();
        }
        silent.push(stream);
    }
    let mut clients = Vec::new();
    for number in 0..FEW {
        clients.push(Client::connect(broker.tcp(0).await, &format!("client{number}")).await);
    }
    for mut stream in silent {
        let mut byte = [0];
        let reading = timeout(PATIENCE, stream.read(&mut byte)).await.expect("it had to go");
        assert!(matches!(reading, Ok(0) | Err(_)));
    }
    for client in &mut clients {
        client.send(&[0xc0, 0]).await;
        assert_eq!(client.next().await, Packet::PingResp, "whoever is connected stays");
    }
    let counters = broker.handle.metrics().counters();
    assert_eq!(counters.read(Counter::TurnedAwaySilent), 2 * FEW as u64);
}

/// Whoever finds no room is told so, and is told nothing else: not before CONNECT, and with the code of its version.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_broker_says_so_in_connack() {
    let broker = with_few_places().await;
    let mut clients = Vec::new();
    for number in 0..FEW {
        clients.push(Client::connect(broker.tcp(0).await, &format!("client{number}")).await);
    }
    // Some more that say nothing are guests, too, and keep nobody from being told.
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(broker.tcp(0).await);
    }
    let mut old = broker.tcp(0).await;
    old.write_all(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01x").await.unwrap();
    assert_eq!(goodbye(old, Vec::new()).await, [0x20, 2, 0, 3]);
    let connect = b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x01x".to_vec();
    let refusal = goodbye(broker.tcp(0).await, connect).await;
    assert_eq!((refusal[0], refusal[2], refusal[3]), (0x20, 0, 0x97), "{refusal:x?}");
    let counters = broker.handle.metrics().counters();
    assert!(counters.read(Counter::TurnedAwayBrokerFull) >= 2);
    clients.pop();
    let text = async {
        while broker.handle.metrics().sample().gauges.connections >= FEW as u64 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, text).await.unwrap();
    Client::connect(broker.tcp(0).await, "next").await;
}

/// A Client whose old Network Connection is dead to it, but not to us, comes back although there is no room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_takes_its_own_session_over_although_the_broker_is_full() {
    let broker = with_few_places().await;
    let mut clients = Vec::new();
    for number in 0..FEW {
        clients.push(Client::connect(broker.tcp(0).await, &format!("client{number}")).await);
    }
    for _ in 0..3 {
        let again = Client::connect(broker.tcp(0).await, "client3").await;
        let before = std::mem::replace(&mut clients[3], again);
        goodbye(before.stream, Vec::new()).await;
    }
    clients[3].send(&[0xc0, 0]).await;
    assert_eq!(clients[3].next().await, Packet::PingResp);
    let gone = async {
        while broker.handle.metrics().sample().gauges.connections > FEW as u64 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, gone).await.unwrap();
}

/// A limit for each address, which is off unless it is set.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_of_one_address_can_be_limited() {
    let behind_proxy = ListenerSettings { proxy_protocol: true, ..loopback() };
    let broker = serve_with(vec![behind_proxy], |settings| {
        settings.accept.max_connections_per_address = Some(2);
    })
    .await;
    let mut clients = Vec::new();
    for (address, name) in [("192.0.2.1", "a"), ("192.0.2.1", "b"), ("192.0.2.2", "c")] {
        let mut stream = broker.tcp(0).await;
        let header = format!("PROXY TCP4 {address} 192.0.2.9 1 2\r\n");
        stream.write_all(header.as_bytes()).await.unwrap();
        clients.push(Client::connect(stream, name).await);
    }
    let refused =
        b"PROXY TCP4 192.0.2.1 192.0.2.9 1 2\r\n\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01x";
    assert_eq!(goodbye(broker.tcp(0).await, refused.to_vec()).await, [0x20, 2, 0, 3]);
    assert_eq!(broker.handle.metrics().counters().read(Counter::TurnedAwayAddressFull), 1);
}

/// Operators see who is connected, since when, from where and in which version; page by page.
#[tokio::test]
async fn sessions_are_listed_in_pages_with_their_clients() {
    let broker = serve(vec![loopback()]).await;
    let mut clients = Vec::new();
    for number in 0..5 {
        clients.push(Client::connect(broker.tcp(0).await, &format!("client-{number}")).await);
    }
    let mut query =
        SessionQuery { prefix: "client-".to_owned(), limit: 2, ..SessionQuery::default() };
    let mut seen = Vec::new();
    loop {
        let reply = broker.commands.ask(Command::Sessions(query.clone())).await.unwrap();
        let Reply::Sessions(page) = reply else { panic!("{reply:?}") };
        assert!(page.sessions.len() <= 2);
        seen.extend(page.sessions);
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    seen.sort_by(|one, other| one.client_id.cmp(&other.client_id));
    let names: Vec<&str> = seen.iter().map(|session| &*session.client_id).collect();
    assert_eq!(names, ["client-0", "client-1", "client-2", "client-3", "client-4"]);
    for (session, client) in seen.iter().zip(&clients) {
        let from = session.client.as_ref().expect("it is connected");
        assert_eq!(from.address, Some(client.stream.local_addr().unwrap()));
        assert_eq!((&*from.listener, from.protocol), ("test", "3.1.1"));
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A Client publishes, says goodbye, closes, and is back at once: nothing that it sent is lost, whatever lies between
/// its socket and MQTT.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_before_a_take_over_counts_through_every_transport() {
    let authority = Authority::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mqtt.sock");
    let secure = || ListenerSettings { tls: Some(authority.server_settings()), ..loopback() };
    let unix = listener(ListenAddress::Unix { path: path.clone(), mode: 0o600 });
    let listeners =
        vec![loopback(), secure(), in_websocket(loopback()), in_websocket(secure()), unix];
    let broker = serve(listeners).await;
    let tls = authority.client();
    let open = async |carrier: usize| -> Box<dyn Stream> {
        let stream: Box<dyn Stream> = match carrier {
            0 => Box::new(broker.tcp(0).await),
            1 => Box::new(tls.connect_over(broker.tcp(1).await).await.unwrap()),
            2 => {
                let stream = broker.tcp(2).await;
                Box::new(websocket::upgrade(stream, "localhost", "/mqtt").await.unwrap())
            }
            3 => {
                let stream = tls.connect_over(broker.tcp(3).await).await.unwrap();
                Box::new(websocket::upgrade(stream, "localhost", "/mqtt").await.unwrap())
            }
            _ => Box::new(UnixStream::connect(&path).await.unwrap()),
        };
        stream
    };
    let mut watcher = Client::connect(broker.tcp(0).await, "watcher").await;
    watcher.subscribe("data").await;
    let times = 40_u16;
    for carrier in 0..5 {
        for number in 0..times {
            let mut client = Client::connect(open(carrier).await, "comes and goes").await;
            let mut publish = Publish::new("data", QoS::AtLeastOnce, number.to_be_bytes());
            publish.pkid = 1;
            let mut packets = BytesMut::new();
            publish.write(&mut packets).unwrap();
            packets.extend_from_slice(&[0xe0, 0]);
            client.send(&packets).await;
        }
        for number in 0..times {
            let Packet::Publish(publish) = watcher.next().await else { panic!("no PUBLISH") };
            assert_eq!(publish.payload[..], number.to_be_bytes(), "carrier {carrier}");
        }
    }
}
