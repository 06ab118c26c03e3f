//! Policies for bridges: the local end of our own, and those of other brokers that connect here.

use std::sync::Arc;
use std::time::Instant;

use crate::bridge::local::CLIENT_ID_PREFIX;
use crate::bridge::loop_guard::{EchoGuard, trail_contains};
use crate::bridge::properties::hop_trail;
use crate::broker::neighbours::Neighbours;
use crate::packet::connect::Connect;
use crate::session::policies::{
    LimitPolicy, OwnMessages, Policies, Recognition, RetainFlag, Rights, States, Trail,
};
use crate::session::publication::Publication;
use crate::topic::reserved::connection_state;

/// The policies of the local Session of one of our bridges. The bridge itself detects returning messages
/// ([`crate::bridge::loop_guard`]), and subscribes with the options that it needs.
#[must_use]
pub(crate) fn of_ours(trail: Trail) -> Policies {
    Policies {
        trail,
        recognition: Recognition::Trusted,
        rights: Rights::All,
        limits: LimitPolicy::Exempt,
        ..Policies::default()
    }
}

/// Recognises bridges of other brokers, and messages of this broker that come back through them: by their trail, or
/// by comparison with messages that recently left over 3.x links.
pub(crate) struct OtherBridges {
    pub(crate) broker_id: Arc<str>,
    pub(crate) echoes: Arc<EchoGuard>,
}

impl Neighbours for OtherBridges {
    fn policies(&self, connect: &Connect<'_>, given: Policies) -> Policies {
        if connect.bridge_bit {
            // It forwards messages, and 3.x has no room for a trail.
            return Policies {
                own_messages: OwnMessages::Withheld,
                retain: RetainFlag::AsPublished,
                trail: Trail::Lost,
                recognition: Recognition::ByContent,
                states: States::All,
                ..given
            };
        }
        // Bridges without the bit are recognised by their Will. Mosquitto's bridges do not connect without it.
        let stated = connect.will.as_ref().and_then(|will| connection_state(will.topic));
        match stated == Some(connect.client_id) {
            true => Policies { states: States::Own, ..given },
            false => given,
        }
    }

    fn is_reserved(&self, client_id: &str) -> bool {
        client_id.starts_with(CLIENT_ID_PREFIX)
    }

    fn note_leaving(&self, publication: &Publication<'_>) {
        let Publication { topic, payload, id, .. } = publication;
        self.echoes.note_routed(topic, payload, id.publisher.0, Instant::now());
    }

    fn has_returned(&self, publication: &Publication<'_>, recognition: Recognition) -> bool {
        let Publication { topic, properties, payload, id, .. } = publication;
        hop_trail(properties).is_some_and(|trail| trail_contains(trail, &self.broker_id))
            || (recognition == Recognition::ByContent
                && self.echoes.is_echo(topic, payload, id.publisher.0, Instant::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::connect::{ConnectProperties, Will};
    use crate::packet::{ProtocolVersion, QoS};

    fn connect(will_topic: Option<&str>) -> Connect<'_> {
        let will = will_topic.map(|topic| Will {
            qos: QoS::AtLeastOnce,
            retain: true,
            topic,
            payload: b"0",
            delay_seconds: None,
            message_expiry: None,
            properties: (&[]).into(),
        });
        Connect {
            version: ProtocolVersion::V3_1_1,
            bridge_bit: false,
            clean_start: true,
            keep_alive_seconds: 0,
            client_id: "far",
            will,
            user_name: None,
            password: None,
            properties: ConnectProperties::default(),
        }
    }

    fn policies(connect: &Connect<'_>) -> Policies {
        let others = OtherBridges { broker_id: "us".into(), echoes: Arc::default() };
        others.policies(connect, Policies::default())
    }

    /// By the bit, or by a Will Message about the Client itself, but not by one about another.
    #[test]
    fn bridges_of_others_show_what_they_are() {
        assert_eq!(policies(&connect(None)), Policies::default());
        let of_itself = Some("$SYS/broker/connection/far/state");
        let of_another = Some("$SYS/broker/connection/near/state");
        assert_eq!(policies(&connect(of_itself)).states, States::Own);
        assert_eq!(policies(&connect(of_another)), Policies::default());
        for will in [None, of_itself, of_another] {
            let found = policies(&Connect { bridge_bit: true, ..connect(will) });
            assert_eq!((found.states, found.trail), (States::All, Trail::Lost));
            assert_eq!(found.recognition, Recognition::ByContent);
            assert_eq!(found.rights, Rights::Granted, "it is a stranger all the same");
        }
    }
}
