//! What it costs to read and write one packet. `cargo bench --bench codec`; the bar is a few tens
//! of nanoseconds and no allocation for a PUBLISH without properties.

#![expect(clippy::expect_used, reason = "a benchmark has nobody to recover for")]

use std::borrow::Cow;

use divan::{AllocProfiler, Bencher, black_box};
use petrel::packet::acknowledgement::{AcknowledgementKind, encode_acknowledgement};
use petrel::packet::connect::{Connect, ConnectProperties};
use petrel::packet::decode::{DecodeContext, Decoded, Sender, decode};
use petrel::packet::property::Property;
use petrel::packet::publish::{OutgoingPublish, Publish};
use petrel::packet::reason_code::ReasonCode;
use petrel::packet::subscribe::{Subscribe, SubscriptionOptions};
use petrel::packet::{Packet, PacketId, ProtocolVersion, QoS};

use ProtocolVersion::{V3_1_1, V5_0};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

const TOPIC: &str = "fleet/europe/vehicle-00042/telemetry/engine";
const TOPIC_NOT_ASCII: &str = "flotte/zürich/fahrzeug-00042/übersicht/kühlung";

fn packet_id() -> PacketId {
    PacketId::try_from(1234).expect("not zero")
}

fn publish<'a>(topic: &'a str, qos: QoS, properties: Vec<u8>, payload: &'a [u8]) -> Publish<'a> {
    Publish {
        dup: false,
        qos,
        retain: false,
        topic,
        packet_id: (qos > QoS::AtMostOnce).then(packet_id),
        topic_alias: None,
        message_expiry: None,
        subscription_ids: Vec::new(),
        properties: Cow::Owned(properties),
        payload,
    }
}

/// Content Type and a User Property, as gateways add them.
fn some_properties() -> Vec<u8> {
    let mut out = Vec::new();
    Property::ContentType("application/json").encode(&mut out);
    Property::UserProperty("trace", "4bf92f3577b34da6a3ce929d0e0e4736").encode(&mut out);
    out
}

fn bench_decode(bencher: Bencher<'_, '_>, packet: &Packet<'_>, version: ProtocolVersion) {
    let mut bytes = Vec::new();
    packet.encode(&mut bytes, version);
    bench_decode_bytes(bencher, &bytes, version);
}

fn bench_decode_bytes(bencher: Bencher<'_, '_>, bytes: &[u8], version: ProtocolVersion) {
    let context = DecodeContext { version, max_packet_bytes: 1 << 20, sender: Sender::Client };
    let is_whole = |decoded| matches!(decoded, Ok(Decoded::Packet { .. }));
    assert!(is_whole(decode(bytes, &context)), "the packet is well-formed");
    bencher.bench_local(|| is_whole(black_box(decode(black_box(bytes), &context))));
}

mod decoding {
    use super::{
        Bencher, Connect, ConnectProperties, Packet, ProtocolVersion, QoS, Subscribe,
        SubscriptionOptions, TOPIC, TOPIC_NOT_ASCII, V3_1_1, V5_0, bench_decode,
        bench_decode_bytes, packet_id, publish, some_properties,
    };

    #[divan::bench(args = [V3_1_1, V5_0])]
    fn publish_qos_0_of_64_bytes(bencher: Bencher<'_, '_>, version: ProtocolVersion) {
        let packet = publish(TOPIC, QoS::AtMostOnce, Vec::new(), &[b'x'; 64]);
        bench_decode(bencher, &Packet::Publish(packet), version);
    }

    #[divan::bench(args = [V3_1_1, V5_0])]
    fn publish_qos_1_of_64_bytes(bencher: Bencher<'_, '_>, version: ProtocolVersion) {
        let packet = publish(TOPIC, QoS::AtLeastOnce, Vec::new(), &[b'x'; 64]);
        bench_decode(bencher, &Packet::Publish(packet), version);
    }

    #[divan::bench(args = [V3_1_1, V5_0])]
    fn publish_to_a_topic_that_is_not_ascii(bencher: Bencher<'_, '_>, version: ProtocolVersion) {
        let packet = publish(TOPIC_NOT_ASCII, QoS::AtMostOnce, Vec::new(), &[b'x'; 64]);
        bench_decode(bencher, &Packet::Publish(packet), version);
    }

    #[divan::bench]
    fn publish_with_two_properties(bencher: Bencher<'_, '_>) {
        let packet = publish(TOPIC, QoS::AtLeastOnce, some_properties(), &[b'x'; 64]);
        bench_decode(bencher, &Packet::Publish(packet), V5_0);
    }

    /// An expiry between two forwarded properties: they are copied together.
    #[divan::bench]
    fn publish_with_scattered_properties(bencher: Bencher<'_, '_>) {
        let bytes = b"\x30\x17\0\x03a/b\x10\x01\x01\x02\0\0\0\x09\x26\0\x02kk\0\x02vvx";
        bench_decode_bytes(bencher, bytes, V5_0);
    }

    #[divan::bench]
    fn publish_of_1_mebibyte(bencher: Bencher<'_, '_>) {
        let payload = vec![b'x'; (1 << 20) - 64];
        let packet = publish(TOPIC, QoS::AtMostOnce, Vec::new(), &payload);
        bench_decode(bencher, &Packet::Publish(packet), V3_1_1);
    }

    #[divan::bench]
    fn puback(bencher: Bencher<'_, '_>) {
        bench_decode_bytes(bencher, &[0x40, 2, 4, 210], V3_1_1);
    }

    #[divan::bench]
    fn connect(bencher: Bencher<'_, '_>) {
        let packet = Packet::Connect(Box::new(Connect {
            version: V5_0,
            bridge_bit: false,
            clean_start: false,
            keep_alive_seconds: 60,
            client_id: "vehicle-00042",
            will: None,
            user_name: Some("vehicle"),
            password: Some(b"secret"),
            properties: ConnectProperties {
                session_expiry_seconds: Some(3600),
                receive_maximum: Some(100),
                ..ConnectProperties::default()
            },
        }));
        bench_decode(bencher, &packet, V5_0);
    }

    #[divan::bench]
    fn subscribe_with_10_filters(bencher: Bencher<'_, '_>) {
        let packet = Packet::Subscribe(Subscribe {
            packet_id: packet_id(),
            subscription_id: Some(7),
            user_properties: Vec::new(),
            filters: vec![("fleet/+/vehicle-00042/#", SubscriptionOptions::default()); 10],
        });
        bench_decode(bencher, &packet, V5_0);
    }
}

mod encoding {
    use super::{
        AcknowledgementKind, Bencher, OutgoingPublish, ProtocolVersion, QoS, ReasonCode, TOPIC,
        V3_1_1, V5_0, black_box, encode_acknowledgement, packet_id, some_properties,
    };

    fn outgoing(properties: &[u8]) -> OutgoingPublish<'_> {
        OutgoingPublish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: TOPIC,
            packet_id: Some(packet_id()),
            topic_alias: None,
            message_expiry: None,
            subscription_ids: &[],
            properties,
            payload_bytes: 64,
        }
    }

    fn bench_head(
        bencher: Bencher<'_, '_>,
        publish: &OutgoingPublish<'_>,
        version: ProtocolVersion,
    ) {
        let mut out = Vec::with_capacity(1024);
        bencher.bench_local(|| {
            out.clear();
            black_box(publish).encode_head(black_box(&mut out), version);
        });
    }

    #[divan::bench(args = [V3_1_1, V5_0])]
    fn publish_head(bencher: Bencher<'_, '_>, version: ProtocolVersion) {
        bench_head(bencher, &outgoing(&[]), version);
    }

    #[divan::bench]
    fn publish_head_with_properties(bencher: Bencher<'_, '_>) {
        let properties = some_properties();
        let publish = OutgoingPublish {
            message_expiry: Some(60),
            subscription_ids: &[7],
            ..outgoing(&properties)
        };
        bench_head(bencher, &publish, V5_0);
    }

    #[divan::bench]
    fn publish_length(bencher: Bencher<'_, '_>) {
        let publish = outgoing(&[]);
        bencher.bench_local(|| black_box(&publish).encoded_bytes(black_box(V5_0)));
    }

    #[divan::bench(args = [V3_1_1, V5_0])]
    fn puback(bencher: Bencher<'_, '_>, version: ProtocolVersion) {
        let mut out = Vec::with_capacity(64);
        bencher.bench_local(|| {
            out.clear();
            let reason = black_box(ReasonCode::NoMatchingSubscribers);
            let kind = AcknowledgementKind::Puback;
            encode_acknowledgement(&mut out, kind, black_box(packet_id()), reason, version);
        });
    }
}
