//! One connection to a broker: `rumqttc`'s two protocols behind one set of requests and one stream of [`Event`]s.
//!
//! `rumqttc` runs in a task of its own, so that a command that waits for its standard input or output does not keep it
//! from answering the broker. A lost connection is not restored here: the command opens another one, and decides
//! itself what to send again.

use rumqttc::v5::mqttbytes::v5::{Filter, SubscribeProperties, UnsubscribeProperties};
use rumqttc::{Outgoing as Written, v5};
use tokio::sync::mpsc;

use crate::client::connect::{
    Explainer, Reached, network_options, options_v4, options_v5, qos_v4, qos_v5,
};
use crate::client::error::ClientError;
use crate::client::event::{Accepted, Event};
use crate::client::message::{Incoming, Outgoing};
use crate::client::options::{Settings, Version};
use crate::client::reason::{with_detail, words};
use crate::packet::QoS;

/// Requests under way to the task: an acknowledgement for each message that a broker may have in flight, and some more.
const REQUESTS_MAX: usize = 70_000;
/// Events under way from the task. Beyond them the broker is not read.
const EVENTS_MAX: usize = 1024;

/// A connection.
pub(super) struct Connection {
    client: Client,
    events: mpsc::Receiver<Event>,
}

enum Client {
    V311(rumqttc::AsyncClient),
    V5(v5::AsyncClient),
}

impl Connection {
    /// Starts connecting.
    ///
    /// # Errors
    /// Files of TLS that cannot be used; everything else is the event [`Event::Lost`].
    pub(super) fn open(settings: &Settings) -> Result<Self, ClientError> {
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let explainer = Explainer {
            address: settings.address(),
            reached: Reached::Connecting,
            timeout_seconds: settings.connect_timeout.as_secs(),
        };
        let client = match settings.version {
            Version::V311 => {
                let options = options_v4(settings)?;
                let (client, mut event_loop) = rumqttc::AsyncClient::new(options, REQUESTS_MAX);
                event_loop.set_network_options(network_options(settings));
                if !settings.clean_start {
                    expect_any_release_v4(&mut event_loop.state);
                }
                tokio::spawn(run_v4(event_loop, sender, explainer));
                Client::V311(client)
            }
            Version::V5 => {
                let options = options_v5(settings)?;
                let (client, mut event_loop) = v5::AsyncClient::new(options, REQUESTS_MAX);
                if !settings.clean_start {
                    expect_any_release_v5(&mut event_loop.state);
                }
                tokio::spawn(run_v5(event_loop, sender, explainer));
                Client::V5(client)
            }
        };
        Ok(Self { client, events })
    }

    /// The next event. Cancellation safe.
    pub(super) async fn event(&mut self) -> Event {
        match self.events.recv().await {
            Some(event) => event,
            // The task ends only after its last event.
            None => std::future::pending().await,
        }
    }

    /// An event that has already come.
    pub(super) fn ready_event(&mut self) -> Option<Event> {
        self.events.try_recv().ok()
    }

    /// Sends a message. Its topic has been checked.
    pub(super) fn publish(&self, message: Outgoing) {
        let Outgoing { topic, qos, retain, payload, properties } = message;
        match &self.client {
            // A request can only fail when the task is over, and then its last event says why.
            Client::V311(client) => {
                let _is_over = client.try_publish(topic, qos_v4(qos), retain, payload);
            }
            Client::V5(client) => {
                let qos = qos_v5(qos);
                let _is_over = match properties {
                    Some(properties) => {
                        client.try_publish_with_properties(topic, qos, retain, payload, properties)
                    }
                    None => client.try_publish(topic, qos, retain, payload),
                };
            }
        }
    }

    /// Subscribes. The filters have been checked.
    pub(super) fn subscribe(&self, filters: &[Filter], properties: Option<&SubscribeProperties>) {
        match &self.client {
            Client::V311(client) => {
                let filters = filters.iter().map(|filter| {
                    let qos = QoS::try_from(filter.qos as u8).unwrap_or_default();
                    rumqttc::SubscribeFilter::new(filter.path.clone(), qos_v4(qos))
                });
                let _is_over = client.try_subscribe_many(filters);
            }
            Client::V5(client) => {
                let filters = filters.iter().cloned();
                let _is_over = match properties {
                    Some(properties) => {
                        client.try_subscribe_many_with_properties(filters, properties.clone())
                    }
                    None => client.try_subscribe_many(filters),
                };
            }
        }
    }

    /// Ends a subscription.
    pub(super) fn unsubscribe(&self, filter: &str, properties: Option<&UnsubscribeProperties>) {
        match &self.client {
            Client::V311(client) => {
                let _is_over = client.try_unsubscribe(filter);
            }
            Client::V5(client) => {
                let _is_over = match properties {
                    Some(properties) => {
                        client.try_unsubscribe_with_properties(filter, properties.clone())
                    }
                    None => client.try_unsubscribe(filter),
                };
            }
        }
    }

    /// Acknowledges a message: PUBACK or PUBREC.
    pub(super) fn acknowledge(&self, qos: QoS, packet_id: u16) {
        match &self.client {
            Client::V311(client) => {
                let mut publish = rumqttc::Publish::new("", qos_v4(qos), Vec::new());
                publish.pkid = packet_id;
                let _is_over = client.try_ack(&publish);
            }
            Client::V5(client) => {
                let mut publish =
                    v5::mqttbytes::v5::Publish::new("", qos_v5(qos), Vec::new(), None);
                publish.pkid = packet_id;
                let _is_over = client.try_ack(&publish);
            }
        }
    }

    /// Sends DISCONNECT after everything else.
    pub(super) fn disconnect(&self) {
        match &self.client {
            Client::V311(client) => {
                let _is_over = client.try_disconnect();
            }
            Client::V5(client) => {
                let _is_over = client.try_disconnect();
            }
        }
    }
}

/// When a connection ends, `rumqttc` forgets which QoS 2 messages wait for PUBREL, and closes the next connection when
/// the broker sends one: such a session could never be resumed. So all identifiers are treated as known from the start.
/// A PUBREL is always answered. [MQTT-4.3.3-11] [MQTT311-4.3.3-2]
fn expect_any_release_v4(state: &mut rumqttc::MqttState) {
    for packet_id in 1..=u16::MAX {
        let mut publish = rumqttc::Publish::new("", rumqttc::QoS::ExactlyOnce, Vec::new());
        publish.pkid = packet_id;
        let _nothing_to_send = state.handle_incoming_packet(rumqttc::Packet::Publish(publish));
        state.events.clear();
    }
}

/// The same for 5.0.
fn expect_any_release_v5(state: &mut v5::MqttState) {
    use v5::mqttbytes::v5::{Packet, Publish};
    for packet_id in 1..=u16::MAX {
        let qos = v5::mqttbytes::QoS::ExactlyOnce;
        let mut publish = Publish::new("", qos, Vec::new(), None);
        publish.pkid = packet_id;
        let _nothing_to_send = state.handle_incoming_packet(Packet::Publish(publish));
        state.events.clear();
    }
}

async fn run_v4(
    mut event_loop: rumqttc::EventLoop,
    events: mpsc::Sender<Event>,
    mut explainer: Explainer,
) {
    loop {
        match event_loop.poll().await {
            Ok(event) => {
                explainer.reached = Reached::Connected;
                if events.send(translate_v4(event)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                // Events that arrived together with the end.
                for event in event_loop.state.events.drain(..) {
                    let _is_over = events.send(translate_v4(event)).await;
                }
                let _is_over = events.send(Event::Lost(explainer.explain_v4(error))).await;
                return;
            }
        }
    }
}

async fn run_v5(
    mut event_loop: v5::EventLoop,
    events: mpsc::Sender<Event>,
    mut explainer: Explainer,
) {
    loop {
        match event_loop.poll().await {
            Ok(event) => {
                explainer.reached = Reached::Connected;
                if events.send(translate_v5(event)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                for event in event_loop.state.events.drain(..) {
                    let _is_over = events.send(translate_v5(event)).await;
                }
                let _is_over = events.send(Event::Lost(explainer.explain_v5(error))).await;
                return;
            }
        }
    }
}

fn translate_v4(event: rumqttc::Event) -> Event {
    use rumqttc::Packet;
    match event {
        rumqttc::Event::Outgoing(written) => translate_written(&written),
        rumqttc::Event::Incoming(packet) => match packet {
            Packet::ConnAck(connack) => Event::Connected(Accepted {
                session_present: connack.session_present,
                receive_maximum: None,
                max_qos: None,
                retains: true,
            }),
            Packet::Publish(publish) => Event::Message(Incoming {
                topic: publish.topic,
                qos: QoS::try_from(publish.qos as u8).unwrap_or_default(),
                retain: publish.retain,
                packet_id: publish.pkid,
                payload: publish.payload,
                properties: None,
            }),
            Packet::PubAck(puback) => Event::Acknowledged(puback.pkid, Ok(())),
            Packet::PubComp(pubcomp) => Event::Acknowledged(pubcomp.pkid, Ok(())),
            Packet::PubRel(pubrel) => Event::Released(pubrel.pkid),
            Packet::SubAck(suback) => Event::Subscribed(
                suback
                    .return_codes
                    .iter()
                    .map(|code| match code {
                        rumqttc::SubscribeReasonCode::Success(qos) => {
                            Ok(QoS::try_from(*qos as u8).unwrap_or_default())
                        }
                        other @ rumqttc::SubscribeReasonCode::Failure => Err(words(other)),
                    })
                    .collect(),
            ),
            Packet::UnsubAck(_) => Event::Unsubscribed(vec![Ok(())]),
            other => Event::Note(format!("received {other:?}")),
        },
    }
}

fn translate_v5(event: v5::Event) -> Event {
    use v5::mqttbytes::v5::{Packet, PubAckReason, PubCompReason, PubRecReason};
    match event {
        v5::Event::Outgoing(written) => translate_written(&written),
        v5::Event::Incoming(packet) => match packet {
            Packet::ConnAck(connack) => Event::Connected(accepted_v5(&connack)),
            Packet::Publish(publish) => Event::Message(Incoming {
                topic: String::from_utf8_lossy(&publish.topic).into_owned(),
                qos: QoS::try_from(publish.qos as u8).unwrap_or_default(),
                retain: publish.retain,
                packet_id: publish.pkid,
                payload: publish.payload,
                properties: publish.properties,
            }),
            Packet::PubAck(puback) => {
                let detail = puback.properties.as_ref().and_then(|p| p.reason_string.as_ref());
                let result = match puback.reason {
                    PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Ok(()),
                    other => Err(with_detail(words(&other), detail)),
                };
                Event::Acknowledged(puback.pkid, result)
            }
            Packet::PubRec(pubrec) => {
                let detail = pubrec.properties.as_ref().and_then(|p| p.reason_string.as_ref());
                match pubrec.reason {
                    PubRecReason::Success | PubRecReason::NoMatchingSubscribers => {
                        Event::Note(format!("received PUBREC {}", pubrec.pkid))
                    }
                    other => {
                        Event::Acknowledged(pubrec.pkid, Err(with_detail(words(&other), detail)))
                    }
                }
            }
            Packet::PubComp(pubcomp) => {
                let result = match pubcomp.reason {
                    PubCompReason::Success => Ok(()),
                    other => Err(words(&other)),
                };
                Event::Acknowledged(pubcomp.pkid, result)
            }
            Packet::PubRel(pubrel) => Event::Released(pubrel.pkid),
            Packet::SubAck(suback) => Event::Subscribed(subscribed_v5(&suback)),
            Packet::UnsubAck(unsuback) => Event::Unsubscribed(unsubscribed_v5(&unsuback)),
            other => Event::Note(format!("received {other:?}")),
        },
    }
}

fn accepted_v5(connack: &v5::mqttbytes::v5::ConnAck) -> Accepted {
    let properties = connack.properties.as_ref();
    Accepted {
        session_present: connack.session_present,
        receive_maximum: properties.and_then(|properties| properties.receive_max),
        max_qos: properties
            .and_then(|properties| properties.max_qos)
            .and_then(|qos| QoS::try_from(qos).ok()),
        retains: properties.and_then(|properties| properties.retain_available) != Some(0),
    }
}

fn subscribed_v5(suback: &v5::mqttbytes::v5::SubAck) -> Vec<Result<QoS, String>> {
    use v5::mqttbytes::v5::SubscribeReasonCode;
    let detail = suback.properties.as_ref().and_then(|p| p.reason_string.as_ref());
    let codes = suback.return_codes.iter();
    codes
        .map(|code| match code {
            SubscribeReasonCode::Success(qos) => Ok(QoS::try_from(*qos as u8).unwrap_or_default()),
            other => Err(with_detail(words(other), detail)),
        })
        .collect()
}

fn unsubscribed_v5(unsuback: &v5::mqttbytes::v5::UnsubAck) -> Vec<Result<(), String>> {
    use v5::mqttbytes::v5::UnsubAckReason;
    let detail = unsuback.properties.as_ref().and_then(|p| p.reason_string.as_ref());
    let reasons = unsuback.reasons.iter();
    reasons
        .map(|reason| match reason {
            UnsubAckReason::Success => Ok(()),
            other => Err(with_detail(words(other), detail)),
        })
        .collect()
}

fn translate_written(written: &Written) -> Event {
    match written {
        Written::Publish(packet_id) => Event::Written(*packet_id),
        Written::Disconnect => Event::Disconnected,
        other => Event::Note(format!("sent {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A session that was cut between PUBREC and PUBREL is resumed by a new process, which has never seen the PUBLISH.
    #[test]
    fn a_release_of_an_earlier_process_is_answered() {
        let mut state = rumqttc::MqttState::new(10, true);
        expect_any_release_v4(&mut state);
        let release = rumqttc::Packet::PubRel(rumqttc::PubRel::new(65_535));
        let answer = state.handle_incoming_packet(release).unwrap();
        assert_eq!(answer, Some(rumqttc::Packet::PubComp(rumqttc::PubComp::new(65_535))));

        use v5::mqttbytes::v5::{Packet, PubRel};
        let mut state = v5::MqttState::new(10, true);
        expect_any_release_v5(&mut state);
        let answer = state.handle_incoming_packet(Packet::PubRel(PubRel::new(1, None))).unwrap();
        assert!(matches!(answer, Some(Packet::PubComp(ack)) if ack.pkid == 1));
    }
}
