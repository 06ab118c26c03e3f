//! Any packet that a version can express, for property tests. Strings and bytes are leaked: packets
//! borrow.

use std::borrow::Cow;

use proptest::{collection::vec, option, prelude::*, sample::select};

use crate::packet::{
    Packet, PacketId, ProtocolVersion, QoS,
    acknowledgement::{Acknowledgement, Puback, Pubcomp, Pubrec, Pubrel},
    auth::Auth,
    connack::{Connack, ConnackProperties},
    connect::{Connect, ConnectProperties, Will},
    decode::Sender,
    disconnect::Disconnect,
    property::Property,
    publish::Publish,
    reason_code::ReasonCode,
    subscribe::{RetainHandling, Suback, Subscribe, SubscriptionOptions},
    unsubscribe::{Unsuback, Unsubscribe},
};

use ProtocolVersion::{V3_1, V3_1_1, V5_0};

pub(super) fn version() -> impl Strategy<Value = ProtocolVersion> {
    select(&[V3_1, V3_1_1, V5_0][..])
}

/// A packet of `version` and who sends it.
pub(super) fn packet(version: ProtocolVersion) -> BoxedStrategy<(Sender, Packet<'static>)> {
    let client =
        |packets: BoxedStrategy<Packet<'static>>| packets.prop_map(|p| (Sender::Client, p));
    let server =
        |packets: BoxedStrategy<Packet<'static>>| packets.prop_map(|p| (Sender::Server, p));
    let common = prop_oneof![
        client(connect(version).boxed()),
        server(connack(version).boxed()),
        client(publish(version, Sender::Client).boxed()),
        server(publish(version, Sender::Server).boxed()),
        client(acknowledgement(version).boxed()),
        client(subscribe(version).boxed()),
        server(suback(version).boxed()),
        client(unsubscribe(version).boxed()),
        server(unsuback(version).boxed()),
        client(Just(Packet::Pingreq).boxed()),
        server(Just(Packet::Pingresp).boxed()),
        client(disconnect(version, Sender::Client).boxed()),
        server(disconnect(version, Sender::Server).boxed()),
    ];
    if version == V5_0 {
        prop_oneof![13 => common, 1 => client(auth().boxed())].boxed()
    } else {
        common.boxed()
    }
}

fn leak(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

fn text() -> impl Strategy<Value = &'static str> {
    prop_oneof![9 => "[^\\x00]{0,12}", 1 => "[^\\x00]{120,140}"].prop_map(leak)
}

fn topic() -> impl Strategy<Value = &'static str> {
    "[^\\x00+#]{1,12}".prop_map(leak)
}

fn bytes() -> impl Strategy<Value = &'static [u8]> {
    prop_oneof![9 => vec(any::<u8>(), 0..20), 1 => vec(any::<u8>(), 100..300)]
        .prop_map(|bytes| &*Box::leak(bytes.into_boxed_slice()))
}

fn pairs() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    vec((text(), text()), 0..3)
}

fn packet_id() -> impl Strategy<Value = PacketId> {
    (1..=u16::MAX).prop_map(|number| PacketId::try_from(number).expect("not zero"))
}

fn qos() -> impl Strategy<Value = QoS> {
    select(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][..])
}

/// The value in 5.0, its default before.
fn only_5_0<T: Default + std::fmt::Debug + Clone + 'static>(
    version: ProtocolVersion,
    strategy: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<T> {
    if version == V5_0 { strategy.boxed() } else { Just(T::default()).boxed() }
}

fn reasons(codes: &'static [u8]) -> impl Strategy<Value = ReasonCode> {
    select(codes).prop_map(|code| ReasonCode::from_u8(code).expect("defined"))
}

/// `mqttbytes` writes the properties of a PUBLISH and of a Will in two different orders.
#[derive(Debug, Clone, Copy)]
enum ContentTypeIs {
    Early,
    Last,
}

/// Wire-encoded, in the order in which `mqttbytes` writes them.
fn forwarded(
    version: ProtocolVersion,
    content_type_is: ContentTypeIs,
) -> BoxedStrategy<Cow<'static, [u8]>> {
    let values = (
        option::of(any::<bool>()),
        option::of(topic()),
        option::of(bytes()),
        pairs(),
        option::of(text()),
    );
    let encoded = values.prop_map(move |(format, response_topic, correlation, user, text)| {
        let (early, last) = match content_type_is {
            ContentTypeIs::Early => (text, None),
            ContentTypeIs::Last => (None, text),
        };
        let mut out = Vec::new();
        let properties = format
            .map(Property::PayloadFormatIndicator)
            .into_iter()
            .chain(early.map(Property::ContentType))
            .chain(response_topic.map(Property::ResponseTopic))
            .chain(correlation.map(Property::CorrelationData))
            .chain(user.iter().map(|(name, value)| Property::UserProperty(name, value)))
            .chain(last.map(Property::ContentType));
        properties.for_each(|property| property.encode(&mut out));
        out
    });
    only_5_0(version, encoded).prop_map(Cow::Owned).boxed()
}

fn connect(version: ProtocolVersion) -> impl Strategy<Value = Packet<'static>> {
    let head = (any::<bool>(), any::<bool>(), any::<u16>(), text());
    let rest = (option::of(will(version)), option::of(text()), option::of(bytes()));
    (head, rest, only_5_0(version, connect_properties())).prop_map(
        move |((bridge_bit, clean_start, keep_alive_seconds, client_id), rest, properties)| {
            let (will, user_name, password) = rest;
            Packet::Connect(Box::new(Connect {
                version,
                bridge_bit: bridge_bit && version < V5_0,
                clean_start,
                keep_alive_seconds,
                client_id,
                will,
                user_name,
                password: password.filter(|_| version == V5_0 || user_name.is_some()),
                properties,
            }))
        },
    )
}

fn connect_properties() -> impl Strategy<Value = ConnectProperties<'static>> {
    let numbers = (
        option::of(any::<u32>()),
        option::of(1..=u16::MAX),
        option::of(1..=u32::MAX),
        option::of(any::<u16>()),
        option::of(any::<bool>()),
        option::of(any::<bool>()),
    );
    (numbers, pairs(), option::of((text(), option::of(bytes())))).prop_map(
        |(numbers, user_properties, authentication)| ConnectProperties {
            session_expiry_seconds: numbers.0,
            receive_maximum: numbers.1,
            maximum_packet_bytes: numbers.2,
            topic_alias_maximum: numbers.3,
            request_response_information: numbers.4,
            request_problem_information: numbers.5,
            user_properties,
            authentication_method: authentication.map(|(method, _)| method),
            authentication_data: authentication.and_then(|(_, data)| data),
        },
    )
}

fn will(version: ProtocolVersion) -> impl Strategy<Value = Will<'static>> {
    let intervals = (option::of(any::<u32>()), option::of(any::<u32>()));
    let intervals = only_5_0(version, intervals);
    let forwarded = forwarded(version, ContentTypeIs::Early);
    (qos(), any::<bool>(), topic(), bytes(), intervals, forwarded).prop_map(
        |(qos, retain, topic, payload, (delay_seconds, message_expiry), properties)| Will {
            qos,
            retain,
            topic,
            payload,
            delay_seconds,
            message_expiry,
            properties,
        },
    )
}

fn connack(version: ProtocolVersion) -> impl Strategy<Value = Packet<'static>> {
    let codes: &[u8] = if version == V5_0 {
        &[0, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95]
    } else {
        &[0, 0x84, 0x85, 0x86, 0x87, 0x88]
    };
    (any::<bool>(), reasons(codes), only_5_0(version, connack_properties())).prop_map(
        move |(session_present, reason, properties)| {
            let may_be_present = reason == ReasonCode::Success && version > V3_1;
            let session_present = session_present && may_be_present;
            Packet::Connack(Box::new(Connack { session_present, reason, properties }))
        },
    )
}

fn connack_properties() -> impl Strategy<Value = ConnackProperties<'static>> {
    let numbers = (
        option::of(any::<u32>()),
        option::of(1..=u16::MAX),
        option::of(1..=u32::MAX),
        option::of(any::<u16>()),
        option::of(any::<u16>()),
        option::of(select(&[QoS::AtMostOnce, QoS::AtLeastOnce][..])),
    );
    let flags = [(); 4].map(|()| option::of(any::<bool>()));
    let texts = [(); 5].map(|()| option::of(text()));
    (numbers, flags, texts, pairs(), option::of(bytes())).prop_map(
        |(numbers, flags, texts, user_properties, data)| ConnackProperties {
            session_expiry_seconds: numbers.0,
            receive_maximum: numbers.1,
            maximum_packet_bytes: numbers.2,
            topic_alias_maximum: numbers.3,
            server_keep_alive_seconds: numbers.4,
            maximum_qos: numbers.5,
            retain_available: flags[0],
            wildcard_subscription_available: flags[1],
            subscription_identifiers_available: flags[2],
            shared_subscription_available: flags[3],
            assigned_client_id: texts[0],
            reason_string: texts[1],
            response_information: texts[2],
            server_reference: texts[3],
            authentication_method: texts[4],
            authentication_data: data.filter(|_| texts[4].is_some()),
            user_properties,
        },
    )
}

fn publish(version: ProtocolVersion, sender: Sender) -> impl Strategy<Value = Packet<'static>> {
    let ids = if sender == Sender::Server { 0..4 } else { 0..1 };
    let own = (
        option::of(any::<u16>()),
        option::of(any::<u32>()),
        vec(1..=268_435_455_u32, ids),
        any::<bool>(),
    );
    let own = only_5_0(version, own);
    let flags = (any::<bool>(), qos(), any::<bool>(), packet_id());
    (flags, topic(), own, forwarded(version, ContentTypeIs::Last), bytes()).prop_map(
        |((dup, qos, retain, packet_id), topic, own, properties, payload)| {
            let (topic_alias, message_expiry, subscription_ids, without_topic) = own;
            let has_id = qos > QoS::AtMostOnce;
            Packet::Publish(Publish {
                dup: dup && has_id,
                qos,
                retain,
                topic: if without_topic && topic_alias.is_some() { "" } else { topic },
                packet_id: Some(packet_id).filter(|_| has_id),
                topic_alias,
                message_expiry,
                subscription_ids,
                properties,
                payload,
            })
        },
    )
}

fn acknowledgement(version: ProtocolVersion) -> impl Strategy<Value = Packet<'static>> {
    let v5_0 = version == V5_0;
    let publish: &[u8] =
        if v5_0 { &[0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99] } else { &[0] };
    let release: &[u8] = if v5_0 { &[0, 0x92] } else { &[0] };
    let properties = only_5_0(version, (option::of(text()), pairs()));
    (0..4, packet_id(), reasons(publish), reasons(release), properties).prop_map(
        |(kind, packet_id, publish, release, (reason_string, user_properties))| {
            let reason = if kind < 2 { publish } else { release };
            let inner = Acknowledgement { packet_id, reason, reason_string, user_properties };
            match kind {
                0 => Packet::Puback(Puback(inner)),
                1 => Packet::Pubrec(Pubrec(inner)),
                2 => Packet::Pubrel(Pubrel(inner)),
                _ => Packet::Pubcomp(Pubcomp(inner)),
            }
        },
    )
}

fn subscribe(version: ProtocolVersion) -> impl Strategy<Value = Packet<'static>> {
    let handling =
        select(&[RetainHandling::Send, RetainHandling::SendIfNew, RetainHandling::DoNotSend][..]);
    let flags = only_5_0(version, (any::<bool>(), any::<bool>(), handling));
    let options = (qos(), flags).prop_map(|(qos, flags)| SubscriptionOptions {
        qos,
        no_local: flags.0,
        retain_as_published: flags.1,
        retain_handling: flags.2,
    });
    let properties = only_5_0(version, (option::of(1..=268_435_455_u32), pairs()));
    (packet_id(), properties, vec((text(), options), 1..5)).prop_map(
        |(packet_id, (subscription_id, user_properties), filters)| {
            Packet::Subscribe(Subscribe { packet_id, subscription_id, user_properties, filters })
        },
    )
}

fn suback(version: ProtocolVersion) -> impl Strategy<Value = Packet<'static>> {
    let codes: &[u8] = if version == V5_0 {
        &[0, 1, 2, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2]
    } else {
        &[0, 1, 2, 0x80]
    };
    let properties = only_5_0(version, (option::of(text()), pairs()));
    (packet_id(), properties, vec(reasons(codes), 1..5)).prop_map(
        |(packet_id, (reason_string, user_properties), reasons)| {
            Packet::Suback(Suback { packet_id, reason_string, user_properties, reasons })
        },
    )
}

fn unsubscribe(version: ProtocolVersion) -> impl Strategy<Value = Packet<'static>> {
    (packet_id(), only_5_0(version, pairs()), vec(text(), 1..5)).prop_map(
        |(packet_id, user_properties, filters)| {
            Packet::Unsubscribe(Unsubscribe { packet_id, user_properties, filters })
        },
    )
}

fn unsuback(version: ProtocolVersion) -> impl Strategy<Value = Packet<'static>> {
    let codes = reasons(&[0, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91]);
    let rest = only_5_0(version, (option::of(text()), pairs(), vec(codes, 1..5)));
    (packet_id(), rest).prop_map(|(packet_id, (reason_string, user_properties, reasons))| {
        Packet::Unsuback(Unsuback { packet_id, reason_string, user_properties, reasons })
    })
}

fn disconnect(version: ProtocolVersion, sender: Sender) -> impl Strategy<Value = Packet<'static>> {
    let codes: &[u8] = match (version, sender) {
        (V3_1 | V3_1_1, _) => &[0],
        (V5_0, Sender::Client) => &[0, 4, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x99],
        (V5_0, Sender::Server) => &[0, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x98, 0x9D, 0xA0, 0xA2],
    };
    let rest = (option::of(any::<u32>()), option::of(text()), pairs(), option::of(text()));
    (reasons(codes), only_5_0(version, rest)).prop_map(move |(reason, rest)| {
        Packet::Disconnect(Disconnect {
            reason,
            session_expiry_seconds: rest.0.filter(|_| sender == Sender::Client),
            reason_string: rest.1,
            user_properties: rest.2,
            server_reference: rest.3.filter(|_| sender == Sender::Server),
        })
    })
}

fn auth() -> impl Strategy<Value = Packet<'static>> {
    (reasons(&[0, 0x18, 0x19]), text(), option::of(bytes()), option::of(text()), pairs()).prop_map(
        |(reason, method, data, reason_string, user_properties)| {
            Packet::Auth(Auth {
                reason,
                method: Some(method),
                data,
                reason_string,
                user_properties,
            })
        },
    )
}
