//! What a Client may do with which topic: the topics that the broker owns, and then what the authority says.

use crate::access::{Access, Action, Decision};
use crate::broker::connection::{ClientConnection, Identity};
use crate::packet::reason_code::ReasonCode;
use crate::session::policies::{Rights, States};
use crate::topic::reserved::{connection_state, reserved_root};

impl ClientConnection {
    /// Whether this Client may publish to `topic`, as it is called outside of mount points; asked once for each topic.
    pub(super) fn may_publish(&self, client_id: &str, topic: &str) -> bool {
        let limits = self.broker.limits();
        let within = topic.split('/').count() <= limits.max_topic_levels
            && topic.len() <= limits.max_topic_bytes;
        within
            && (self.identity.policies.rights == Rights::All
                || (self.is_open(client_id, topic)
                    && self.is_allowed(client_id, Action::Publish(topic))))
    }

    /// Why this Client may not subscribe to `filter` (as it is called outside, without `$share/…/`), if so.
    pub(super) fn subscription_refusal(&self, client_id: &str, filter: &str) -> Option<ReasonCode> {
        let Identity { peer, policies, .. } = &self.identity;
        if policies.rights == Rights::All {
            return None;
        }
        let seen = self.as_seen(filter);
        let is_open = match reserved_root(seen) {
            // It tells of everybody, so it is not shown inside of a mount point.
            Some("SYS") => peer.listener.mount_point.is_none(),
            Some(_) => return Some(ReasonCode::TopicFilterInvalid),
            None => !seen.starts_with('$') || self.broker.limits().dollar_topics,
        };
        let is_allowed = is_open && self.is_allowed(client_id, Action::Subscribe(filter));
        (!is_allowed).then_some(ReasonCode::NotAuthorized)
    }

    /// What the authority says.
    fn is_allowed(&self, client_id: &str, action: Action<'_>) -> bool {
        let Identity { peer, principal, .. } = &self.identity;
        let access = Access { principal, client_id, peer, action };
        self.broker.authority().authorize(&access) == Decision::Allowed
    }

    /// Whether Clients exchange messages through this topic. The broker's own are closed, so that nobody forges its figures;
    /// but Clients that stand between brokers say there whether they are connected, by Will Message among others.
    fn is_open(&self, client_id: &str, topic: &str) -> bool {
        let seen = self.as_seen(topic);
        if !seen.starts_with('$') {
            return true;
        }
        let Identity { peer, policies, .. } = &self.identity;
        match (reserved_root(seen), connection_state(seen)) {
            (None, _) => self.broker.limits().dollar_topics,
            (Some(_), Some(name)) if peer.listener.mount_point.is_none() => match policies.states {
                States::None => false,
                States::Own => name == client_id,
                States::All => true,
            },
            (Some(_), _) => false,
        }
    }

    /// What the Client calls a topic that is called so outside.
    fn as_seen<'a>(&self, topic: &'a str) -> &'a str {
        let mount_point = self.identity.peer.listener.mount_point.as_ref();
        mount_point.and_then(|mount| mount.inside(topic)).unwrap_or(topic)
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::task::Waker;

    use super::*;
    use crate::access::{Authority, Credentials, Exchange, ListenerRules, Peer, Principal};
    use crate::broker::Broker;
    use crate::broker::limits::Limits;
    use crate::durable::message::Timestamp;
    use crate::session::effects::Effects;
    use crate::session::outbox::Outbox;
    use crate::store::memory::MemoryStore;

    /// Denies what lies below `closed`, until its revision rises.
    struct Rules(AtomicU64);

    impl Authority for Rules {
        fn authenticate(&self, _credentials: &Credentials) -> Result<Principal, ReasonCode> {
            Ok(Principal { user_name: Some("ann".into()) })
        }

        fn may_block(&self, _credentials: &Credentials) -> bool {
            false
        }

        fn begin_exchange(&self, _method: &str, _peer: &Peer) -> Option<Box<dyn Exchange>> {
            None
        }

        fn revision(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }

        fn authorize(&self, access: &Access<'_>) -> Decision {
            assert_eq!(access.principal.user_name.as_deref(), Some("ann"));
            assert_eq!(access.client_id, "c");
            let (Action::Publish(topic) | Action::Subscribe(topic)) = access.action;
            match topic.starts_with("closed/") && self.revision() == 0 {
                true => Decision::Denied,
                false => Decision::Allowed,
            }
        }
    }

    fn broker() -> (Arc<Rules>, Arc<Broker>) {
        let (store, loaded, _clock) = MemoryStore::open();
        let rules = Arc::new(Rules(AtomicU64::new(0)));
        let authority = Arc::clone(&rules) as Arc<dyn Authority>;
        let broker = Broker::new(Limits::default(), Arc::new(store), authority, loaded, 7);
        (rules, Arc::new(broker))
    }

    fn connection(broker: &Arc<Broker>) -> ClientConnection {
        let listener = Arc::new(ListenerRules::default());
        let peer = Peer { address: None, listener, certificate_name: None };
        ClientConnection::new(Arc::clone(broker), peer, Timestamp(1))
    }

    /// What is answered to some packets.
    fn answer(connection: &mut ClientConnection, packets: &[u8]) -> Vec<u8> {
        let (mut effects, mut output) = (Effects::new(), Outbox::default());
        connection.handle_bytes(packets, Timestamp(1), &mut effects);
        connection.handle_wake(Timestamp(1), &mut effects);
        connection.take_output(&mut output, Waker::noop());
        let mut slices = [IoSlice::new(&[]); 8];
        let filled = output.slices(0, &mut slices);
        slices[..filled].iter().flat_map(|slice| slice.iter().copied()).collect()
    }

    /// Without Reason Strings.
    const CONNECT: &[u8] = b"\x10\x10\0\x04MQTT\x05\x02\0\0\x02\x17\0\0\x01c";
    const PUBLISH: &[u8] = b"\x32\x0d\0\x08closed/a\0\x01\0";
    const SUBSCRIBE: &[u8] = b"\x82\x0e\0\x02\0\0\x08closed/#\0";

    /// A PUBLISH, a SUBSCRIBE and a Will Message are refused, each in its own way, and others are not.
    #[test]
    fn what_the_authority_denies_is_refused() {
        let (_rules, broker) = broker();
        let mut client = connection(&broker);
        assert_eq!(answer(&mut client, CONNECT).first(), Some(&0x20));
        assert_eq!(answer(&mut client, PUBLISH), b"\x40\x03\0\x01\x87");
        assert_eq!(answer(&mut client, SUBSCRIBE), b"\x90\x04\0\x02\0\x87");
        let open = b"\x32\x0b\0\x06open/a\0\x03\0";
        assert_eq!(answer(&mut client, open), b"\x40\x03\0\x03\x10");
        let with_will = b"\x10\x1b\0\x04MQTT\x05\x06\0\0\0\0\x01c\0\0\x08closed/w\0\0";
        let refused = answer(&mut connection(&broker), with_will);
        assert_eq!((refused.first(), refused.get(3)), (Some(&0x20), Some(&0x87)));
    }

    /// A topic that was asked about once is asked about again when the rules have changed, on a connection that stays.
    #[test]
    fn a_change_of_the_rules_reaches_those_who_are_here() {
        let (rules, broker) = broker();
        let mut client = connection(&broker);
        answer(&mut client, CONNECT);
        assert_eq!(answer(&mut client, PUBLISH).get(4), Some(&0x87));
        rules.0.store(1, Ordering::Relaxed);
        assert_eq!(answer(&mut client, PUBLISH).get(4), Some(&0x87), "nobody was told");
        broker.handle_access_change();
        answer(&mut client, b"");
        assert_eq!(answer(&mut client, PUBLISH).get(4), Some(&0x10));
    }
}
