//! Order: messages of one publisher, topic and QoS arrive as they were sent, whatever happens in between.

use crate::broker::unique;
use crate::client::Client;
use crate::packet::{
    ALL, Connect, PUBACK, PUBREC, PUBREL, Properties, Publish, RECEIVE_MAXIMUM, SESSION_EXPIRY, V5,
    V311, acknowledge,
};

/// [MQTT-4.6.0-5] [MQTT-4.6.0-6] [MQTT311-4.6.0-5] [MQTT311-4.6.0-6]
#[test]
fn messages_arrive_in_order_at_every_qos() {
    for version in ALL {
        for qos in 0..=2 {
            let topic = unique("t");
            let mut client = Client::new(version);
            client.subscribe(&topic, qos);
            let mut sender = Client::new(version);
            if qos == 2 {
                (1..=100).for_each(|number| sender.publish(&topic, 2, &number.to_string()));
            } else {
                let message = |id: u16| Publish::new(&topic, id.to_string()).qos(qos, id);
                let burst = (1..=100).flat_map(|id| message(id).encode(version));
                sender.send(burst.collect::<Vec<_>>());
            }
            for number in 1..=100 {
                client.expect_message(&number.to_string());
            }
        }
    }
}

/// A burst reaches Clients whole, whatever protocol and QoS each side has, whatever stands between its packets, and
/// whether one Client receives it or several: each has its own Packet Identifiers, and nobody has DUP or RETAIN set.
/// [MQTT-4.6.0-6] [MQTT-2.2.1-4]
#[test]
fn a_burst_arrives_whole_between_all_protocols() {
    let mut texts = Vec::new();
    for number in 0..90_usize {
        // Around the lengths at which Remaining Length takes another byte.
        let filler = [0, 1, 90, 120, 121, 122, 123, 124, 300, 2100][number % 10];
        texts.push(format!("{number}-{}", "x".repeat(filler)));
    }
    for sending in ALL {
        for (published, readers) in [(0, 1), (0, 2), (1, 1), (1, 2), (2, 1), (2, 2)] {
            let topic = unique("t");
            let mut clients = Vec::new();
            for receiving in ALL {
                for granted in 0..=2 {
                    let mut client = Client::new(receiving);
                    // One Topic Name for each, or one for all.
                    let name = if readers == 1 {
                        format!("{topic}/{}", clients.len())
                    } else {
                        topic.clone()
                    };
                    client.subscribe(&name, granted);
                    clients.push((client, name, published.min(granted)));
                }
            }
            let mut names: Vec<_> = clients.iter().map(|(_, name, _)| name.clone()).collect();
            names.dedup();
            for name in names {
                let mut burst = Vec::new();
                for (id, text) in (1..).zip(&texts) {
                    burst.extend(Publish::new(&name, text).qos(published, id).encode(sending));
                    if id % 40 == 0 {
                        burst.extend([0xC0, 0]);
                        burst.extend(
                            Publish::new("elsewhere", "x")
                                .qos(published, 1000 + id)
                                .encode(sending),
                        );
                    }
                }
                Client::new(sending).send(burst);
            }
            for (client, _, qos) in &mut clients {
                let mut ids = std::collections::HashSet::new();
                for text in &texts {
                    let publish = client.expect_publish();
                    assert_eq!((publish.text(), publish.qos), (text.as_str(), *qos));
                    assert!(!publish.dup && !publish.retain);
                    assert!(*qos == 0 || ids.insert(publish.id), "{} twice", publish.id);
                    client.complete(&publish);
                }
                client.settle();
            }
        }
    }
}

/// PUBACKs come in the order of the PUBLISHes. [MQTT-4.3.2-4]
#[test]
fn acknowledgements_come_in_order() {
    let topic = unique("t");
    let mut absent = Client::connect(&Connect::durable(V311, unique("c")));
    absent.subscribe(&topic, 2);
    absent.disconnect();
    let mut sender = Client::new(V311);
    let burst: Vec<u8> = (1..=500)
        .flat_map(|id| {
            Publish::new(if id % 3 == 0 { &topic } else { "nobody" }, "x").qos(1, id).encode(V311)
        })
        .collect();
    sender.send(burst);
    for id in 1..=500 {
        sender.expect_acknowledged(PUBACK, id, 0);
    }
}

/// PUBRECs, too. [MQTT-4.3.3-8]
#[test]
fn pubrecs_come_in_order() {
    let topic = unique("t");
    let mut client = Client::new(V311);
    client.subscribe(&topic, 2);
    let mut sender = Client::new(V311);
    for id in 1..=15 {
        sender.send(Publish::new(&topic, "x").qos(2, id).encode(V311));
    }
    for id in 1..=15 {
        sender.expect_acknowledged(PUBREC, id, 0);
    }
}

/// PUBRELs in the order of the PUBRECs. [MQTT-4.3.3-4]
#[test]
fn pubrels_come_in_the_order_of_pubrecs() {
    let topic = unique("t");
    let mut client = Client::new(V311);
    client.subscribe(&topic, 2);
    let mut sender = Client::new(V311);
    for number in 0..10 {
        sender.publish(&topic, 2, &number.to_string());
    }
    let ids: Vec<u16> = (0..10).map(|_| client.expect_publish().id).collect();
    for id in &ids {
        client.send(acknowledge(PUBREC, *id));
    }
    for id in &ids {
        client.expect_acknowledged(PUBREL, *id, 0);
    }
}

/// [MQTT-4.6.0-5] Across many reconnections with a small window, some acknowledged and some not.
#[test]
fn order_survives_reconnection() {
    let topic = unique("t");
    let properties = Properties::new().four(SESSION_EXPIRY, 600).two(RECEIVE_MAXIMUM, 4);
    let connect = Connect::new(V5, unique("c")).clean(false).properties(properties);
    let mut client = Client::connect(&connect);
    client.subscribe(&topic, 1);
    let mut sender = Client::new(V5);
    let mut expected = 0;
    for round in 0..25 {
        for number in 0..4 {
            sender.publish(&topic, 1, &format!("{}", round * 4 + number));
        }
        // Two of the window are read, one of them is acknowledged, then the Network Connection is cut.
        let first = client.expect_publish();
        let second = client.expect_publish();
        assert_eq!(first.text(), expected.to_string());
        assert_eq!(second.text(), (expected + 1).to_string());
        client.send(acknowledge(PUBACK, first.id));
        client.send(crate::packet::PINGREQ);
        while client.read().expect("open").kind() != crate::packet::PINGRESP {}
        expected += 1;
        client.cut();
        client = Client::connect(&connect);
    }
    for number in expected..100 {
        client.expect_message(&number.to_string());
    }
    client.expect_nothing();
}

/// Several publishers: each one's messages stay in its order. [MQTT-4.6.0-5]
#[test]
fn the_order_of_each_publisher_is_kept() {
    let topic = unique("t");
    let mut client = Client::new(V311);
    client.subscribe(&topic, 1);
    let mut senders: Vec<Client> = (0..5).map(|_| Client::new(V311)).collect();
    for (name, sender) in senders.iter_mut().enumerate() {
        let burst: Vec<u8> = (1..=50)
            .flat_map(|id| Publish::new(&topic, format!("{name} {id}")).qos(1, id).encode(V311))
            .collect();
        sender.send(burst);
    }
    let mut next = [1; 5];
    for _ in 0..250 {
        let publish = client.receive();
        let (name, number) = publish.text().split_once(' ').unwrap();
        let name: usize = name.parse().unwrap();
        assert_eq!(number, next[name].to_string(), "publisher {name}");
        next[name] += 1;
    }
}
