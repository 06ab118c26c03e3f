//! Why a bridge sends at most twenty messages at a time over 3.x links: beyond `max_inflight_messages` mosquitto drops
//! messages of QoS 2 and acknowledges them all the same, since a PUBREC of 3.x has no room for a reason.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::process::{Broker, PATIENCE, Subscriber, has_mosquitto};

const WINDOW: u8 = 3;
const COUNT: u8 = 5;

fn publisher(port: u16) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"\x10\x0f\0\x04MQTT\x04\x02\0\0\0\x03raw").unwrap();
    stream.read_exact(&mut [0; 4]).unwrap();
    stream
}

#[test]
fn mosquitto_acknowledges_qos_2_beyond_its_window_and_drops_it() {
    if !has_mosquitto() {
        return;
    }
    let limits = format!("max_inflight_messages {WINDOW}\nmax_queued_messages 100\n");
    let broker = Broker::mosquitto(&limits);
    let subscriber = Subscriber::new(&broker, &["-t", "t", "-q", "2", "-F", "%p"]);
    let mut stream = publisher(broker.port);
    for id in 1..=COUNT {
        stream.write_all(&[0x34, 6, 0, 1, b't', 0, id, b'0' + id]).unwrap();
    }
    for id in 1..=COUNT {
        let mut pubrec = [0; 4];
        stream.read_exact(&mut pubrec).unwrap();
        assert_eq!(pubrec, [0x50, 2, 0, id], "every message is acknowledged");
    }
    for id in 1..=COUNT {
        stream.write_all(&[0x62, 2, 0, id]).unwrap();
        let mut pubcomp = [0; 4];
        stream.read_exact(&mut pubcomp).unwrap();
        assert_eq!(pubcomp, [0x70, 2, 0, id], "and completed");
    }
    subscriber.wait_for(usize::from(WINDOW));
    assert_eq!(subscriber.settle(), ["1", "2", "3"], "and two of them are gone");
}
