//! Enhanced authentication with AUTH packets: SCRAM-SHA-256, from the client's side.

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

use crate::broker::{Broker, unique};
use crate::client::Client;
use crate::packet::{
    AUTH, AUTH_DATA, AUTH_METHOD, CONNACK, Connect, DISCONNECT, MAXIMUM_PACKET_SIZE, Packet,
    Properties, V5, frame,
};
use crate::server::{open_with_users, with_users};

const METHOD: &str = "SCRAM-SHA-256";

/// One exchange as a client computes it.
struct Scram {
    password: &'static str,
    first_bare: String,
}

impl Scram {
    fn new(user: &str, password: &'static str) -> Self {
        Self { password, first_bare: format!("n={user},r={}", unique("nonce")) }
    }

    fn first(&self) -> Properties {
        Self::properties(format!("n,,{}", self.first_bare))
    }

    /// The answer to the challenge, and the signature that the broker has to show.
    fn answer(&self, challenge: &str) -> (Properties, String) {
        let field =
            |name: &str| challenge.split(',').find_map(|part| part.strip_prefix(name)).unwrap();
        let (nonce, salt) = (field("r="), STANDARD.decode(field("s=")).unwrap());
        let rounds = field("i=").parse().unwrap();
        let salted: [u8; 32] =
            pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(self.password.as_bytes(), &salt, rounds);
        let without_proof = format!("c=biws,r={nonce}");
        let message = format!("{},{challenge},{without_proof}", self.first_bare);
        let client_key = sign(&salted, b"Client Key");
        let signature = sign(&Sha256::digest(&client_key), message.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(signature).map(|(key, bit)| key ^ bit).collect();
        let server = sign(&sign(&salted, b"Server Key"), message.as_bytes());
        let last = format!("{without_proof},p={}", STANDARD.encode(proof));
        (Self::properties(last), format!("v={}", STANDARD.encode(server)))
    }

    fn properties(data: String) -> Properties {
        Properties::new().text(AUTH_METHOD, METHOD).text(AUTH_DATA, data)
    }
}

fn sign(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

fn auth(reason: u8, properties: &Properties) -> Vec<u8> {
    frame(0xF0, &[vec![reason], properties.encode()].concat())
}

/// The challenge in an AUTH packet.
fn challenge(packet: &Packet) -> String {
    let (reason, properties) = Packet { first: 0xE0, body: packet.body.clone() }.disconnect();
    assert_eq!((packet.first, reason), (0xF0, 0x18));
    assert_eq!(properties.text(AUTH_METHOD), Some(METHOD));
    properties.text(AUTH_DATA).unwrap().to_owned()
}

/// A client authenticated as alice.
fn alice(broker: &Broker) -> Client {
    let mut client = Client::open_to(&broker.address, V5);
    let scram = Scram::new("alice", "secret");
    client.send(Connect::new(V5, unique("c")).properties(scram.first()).encode());
    let (answer, signature) = scram.answer(&challenge(&client.expect(AUTH)));
    client.send(auth(0x18, &answer));
    let connack = client.expect_connack();
    assert_eq!(connack.reason, 0);
    assert_eq!(connack.properties.text(AUTH_METHOD), Some(METHOD));
    assert_eq!(connack.properties.text(AUTH_DATA), Some(signature.as_str()));
    client
}

/// [MQTT-4.12.0-2] [MQTT-4.12.0-5] [MQTT-3.15.2-1]
#[test]
fn scram_authenticates() {
    let Some(broker) = with_users() else { return };
    let mut client = alice(&broker);
    client.subscribe("t", 1);
    client.publish("t", 1, "x");
    client.expect_message("x");
}

/// [MQTT-4.12.0-4]
#[test]
fn a_wrong_proof_is_rejected() {
    let Some(broker) = with_users() else { return };
    for (user, password) in [("alice", "wrong"), ("nobody", "secret")] {
        let mut client = Client::open_to(&broker.address, V5);
        let scram = Scram::new(user, password);
        client.send(Connect::new(V5, unique("c")).properties(scram.first()).encode());
        let mut packet = client.read().expect("an answer");
        if packet.kind() == AUTH {
            client.send(auth(0x18, &scram.answer(&challenge(&packet)).0));
            packet = client.expect(CONNACK);
        }
        let reason = packet.connack(V5).reason;
        assert!([0x86, 0x87].contains(&reason), "{user}: {reason:#04x}");
        client.expect_closed();
    }
}

/// Re-authentication succeeds while messages flow. [MQTT-4.12.0-5]
#[test]
fn a_client_can_authenticate_again() {
    let Some(broker) = with_users() else { return };
    let mut client = alice(&broker);
    client.subscribe("t", 0);
    let scram = Scram::new("alice", "secret");
    client.send(auth(0x19, &scram.first()));
    let challenge = challenge(&client.expect(AUTH));
    client.publish("t", 0, "meanwhile");
    client.expect_message("meanwhile");
    let (answer, signature) = scram.answer(&challenge);
    client.send(auth(0x18, &answer));
    let packet = client.expect(AUTH);
    let (reason, properties) = Packet { first: 0xE0, body: packet.body }.disconnect();
    assert_eq!(reason, 0);
    assert_eq!(properties.text(AUTH_DATA), Some(signature.as_str()));
    client.expect_nothing();
}

/// The user of a Network Connection is the one who opened it, and so is the owner of its Session: whoever authenticates
/// anew as somebody else is sent away.
#[test]
fn re_authentication_does_not_change_the_user() {
    let Some((broker, _)) = open_with_users(&["alice", "bob"], "") else { return };
    let mut client = alice(&broker);
    let scram = Scram::new("bob", "secret");
    client.send(auth(0x19, &scram.first()));
    let challenge = challenge(&client.expect(AUTH));
    client.send(auth(0x18, &scram.answer(&challenge).0));
    client.expect_error(0x87);
}

/// AUTH after AUTH without a pause: one exchange is under way at a time, and the rest waits in the socket. Once each was
/// kept, which took 3 GB in ten seconds. All of them are answered in the end.
#[test]
fn one_exchange_at_a_time() {
    let Some(broker) = with_users() else { return };
    let mut client = alice(&broker);
    let scram = Scram::new("alice", "secret");
    let count = 200;
    client.send(auth(0x19, &scram.first()).repeat(count));
    for _ in 0..count {
        challenge(&client.expect(AUTH));
    }
    client.expect_nothing();
}

/// [MQTT-4.12.1-2]
#[test]
fn a_failed_re_authentication_closes() {
    let Some(broker) = with_users() else { return };
    let mut client = alice(&broker);
    let scram = Scram::new("alice", "wrong");
    client.send(auth(0x19, &scram.first()));
    let challenge = challenge(&client.expect(AUTH));
    client.send(auth(0x18, &scram.answer(&challenge).0));
    let (reason, _) = client.expect(DISCONNECT).disconnect();
    assert!(reason >= 0x80);
    client.expect_closed();
}

/// Another method for re-authentication is a Protocol Error. [MQTT-4.12.1-2]
#[test]
fn the_method_cannot_be_changed() {
    let Some(broker) = with_users() else { return };
    let mut client = alice(&broker);
    client.send(auth(0x19, &Properties::new().text(AUTH_METHOD, "OTHER").text(AUTH_DATA, "x")));
    let (reason, _) = client.expect(DISCONNECT).disconnect();
    assert!(reason >= 0x80);
    client.expect_closed();
}

/// Other packets before the CONNACK are a Protocol Error. [MQTT-3.2.0-1]
#[test]
fn nothing_but_auth_is_taken_during_the_exchange() {
    let Some(broker) = with_users() else { return };
    let mut client = Client::open_to(&broker.address, V5);
    let scram = Scram::new("alice", "secret");
    client.send(Connect::new(V5, unique("c")).properties(scram.first()).encode());
    challenge(&client.expect(AUTH));
    client.send(crate::packet::Publish::new("t", "early").encode(V5));
    client.expect_any_error();
}

/// AUTH carries what it must, no more than the client takes. [MQTT-3.15.2-2] [MQTT-3.15.2-3]
#[test]
fn auth_has_neither_reason_nor_user_property() {
    let Some(broker) = with_users() else { return };
    let mut client = Client::open_to(&broker.address, V5);
    let properties = Scram::new("alice", "secret").first().four(MAXIMUM_PACKET_SIZE, 250);
    client.send(Connect::new(V5, unique("c")).properties(properties).encode());
    let packet = client.expect(AUTH);
    assert!(packet.body.len() <= 248);
    challenge(&packet);
}
