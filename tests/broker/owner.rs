//! A Session belongs to the user who created it, and to the mount point: nobody else may resume it, read its queue,
//! disconnect its owner or end it.

use crate::broker::{Broker, configured, unique};
use crate::client::Client;
use crate::packet::{ASSIGNED_CLIENT_ID, Connect, V5, V311, Version};
use crate::port::free_port;
use crate::server::open_with_users;

fn of(user: Option<&str>, connect: Connect) -> Connect {
    match user {
        Some(user) => connect.user(user).password("secret"),
        None => connect,
    }
}

/// Whoever tries is told 0x85, or code 2; the owner stays connected and gets what waits for it, before and after a restart.
#[test]
fn nobody_else_gets_the_session_of_a_user() {
    let Some((mut broker, extra)) = open_with_users(&["alice", "bob"], "") else { return };
    for owner in [None, Some("alice")] {
        let (id, topic) = (unique("c"), unique("t"));
        let mine = of(owner, Connect::durable(V5, &id));
        let mut client = Client::connect_to(&broker.address, &mine);
        client.subscribe(&topic, 1);
        for is_there in [true, false] {
            if !is_there {
                client.disconnect();
                Client::connect_to(&broker.address, &Connect::new(V311, unique("s"))).publish(
                    &topic,
                    1,
                    "secret message",
                );
                broker.crash_and_restart(&extra);
                client = Client::connect_to(&broker.address, &Connect::new(V5, unique("x")));
            }
            for other in [None, Some("alice"), Some("bob")].iter().filter(|&&user| user != owner) {
                for version in [V311, V5] {
                    for connect in [Connect::durable(version, &id), Connect::new(version, &id)] {
                        refused(&broker, &of(*other, connect), version);
                    }
                }
            }
            client.expect_nothing();
        }
        let mut client = Client::connect_to(&broker.address, &mine);
        assert!(client.session_present());
        client.expect_message("secret message");
        client.disconnect();
    }
}

fn refused(broker: &Broker, connect: &Connect, version: Version) {
    let mut client = Client::open_to(&broker.address, version);
    client.send(connect.encode());
    client.expect_refusal(if version == V5 { 0x85 } else { 2 });
}

/// The same topics mean something else under another mount point.
#[test]
fn a_session_stays_with_its_mount_point() {
    let ports = [free_port(), free_port(), free_port()];
    let listener = |number: usize, mount: &str| {
        let port = ports[number];
        format!(
            "[[listener]]\nname = \"{number}\"\nlisten = \"127.0.0.1:{port}\"\nallow_anonymous = true\n{mount}\n"
        )
    };
    let extra = [
        listener(0, "mount_point = \"site/1/\""),
        listener(1, "mount_point = \"site/2/\""),
        listener(2, ""),
    ];
    let Some(broker) = configured(&extra.concat()) else { return };
    let connect = Connect::durable(V5, "device");
    Client::connect_to(&format!("127.0.0.1:{}", ports[0]), &connect).disconnect();
    for other in [&format!("127.0.0.1:{}", ports[1]), &broker.address] {
        let mut client = Client::open_to(other, V5);
        client.send(connect.encode());
        client.expect_refusal(0x85);
    }
    let again = Client::connect_to(&format!("127.0.0.1:{}", ports[0]), &connect);
    assert!(again.session_present());
    // Another listener without a mount point is as good as the first.
    let connect = Connect::durable(V5, "laptop");
    Client::connect_to(&broker.address, &connect).disconnect();
    assert!(Client::connect_to(&format!("127.0.0.1:{}", ports[2]), &connect).session_present());
}

/// Whoever wants it as it was says so.
#[test]
fn sessions_can_be_shared_by_all_users() {
    let extra = "[protocol]\nshare_sessions = true\n";
    let Some((broker, _)) = open_with_users(&["alice", "bob"], extra) else { return };
    let connect = |user| of(Some(user), Connect::durable(V5, "shared"));
    let mut alice = Client::connect_to(&broker.address, &connect("alice"));
    let bob = Client::connect_to(&broker.address, &connect("bob"));
    assert!(bob.session_present());
    alice.expect_error(0x8E);
}

/// An assigned Client Identifier is a secret of its Client's as long as nobody can guess it.
#[test]
fn assigned_client_identifiers_cannot_be_guessed() {
    let mut all: Vec<String> = (0..20)
        .map(|_| {
            let client = Client::connect(&Connect::new(V5, ""));
            let properties = client.connack.as_ref().unwrap().properties.clone();
            properties.text(ASSIGNED_CLIENT_ID).unwrap().to_owned()
        })
        .collect();
    all.sort();
    for pair in all.windows(2) {
        let common = pair[0].bytes().zip(pair[1].bytes()).take_while(|(a, b)| a == b).count();
        // Of 128 bits, neighbours among 20 share a few at the front, and nothing counts up.
        assert!(pair[0].len() - common >= 24, "{pair:?}");
    }
}
