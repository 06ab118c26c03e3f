//! The Clients that take part: their Subscriptions, the lifetime of their Sessions, and their Wills.

use petrel::packet::{ProtocolVersion, QoS};
use rand::Rng;
use rand::rngs::SmallRng;

use crate::client::{Client, Lifetime, WillTerms};
use crate::promises::SHARED;

/// One Client.
struct Role {
    filters: &'static [&'static str],
    lifetime: Lifetime,
    will: Option<WillTerms>,
    version: Option<ProtocolVersion>,
}

const V5: Option<ProtocolVersion> = Some(ProtocolVersion::V5_0);
const PLAIN: Role = Role { filters: &[], lifetime: Lifetime::Lasting, will: None, version: None };
const AT_ONCE: Option<WillTerms> = Some(WillTerms { qos: QoS::ExactlyOnce, delay_seconds: 0 });
const AT_LEAST: Option<WillTerms> = Some(WillTerms { qos: QoS::AtLeastOnce, delay_seconds: 0 });
const DELAYED: Option<WillTerms> = Some(WillTerms { qos: QoS::ExactlyOnce, delay_seconds: 1 });
/// Later than the end of a brief Session, with which it is due.
const MUCH_LATER: Option<WillTerms> =
    Some(WillTerms { qos: QoS::ExactlyOnce, delay_seconds: 1000 });

const ROLES: [Role; 12] = [
    Role { filters: &["plain/#", "will/#"], ..PLAIN },
    Role { filters: &["plain/#", "retained/#"], will: AT_ONCE, ..PLAIN },
    Role { filters: &[SHARED], ..PLAIN },
    Role { filters: &[SHARED, "plain/#"], will: AT_LEAST, ..PLAIN },
    Role { filters: &[SHARED], will: AT_ONCE, version: V5, ..PLAIN },
    PLAIN,
    Role { will: AT_LEAST, ..PLAIN },
    Role { filters: &["will/#"], will: DELAYED, version: V5, ..PLAIN },
    Role { will: DELAYED, version: V5, ..PLAIN },
    Role { lifetime: Lifetime::Brief, will: MUCH_LATER, version: V5, ..PLAIN },
    Role { filters: &["plain/#"], lifetime: Lifetime::Connection, will: AT_ONCE, ..PLAIN },
    Role { filters: &["plain/#", "will/#"], lifetime: Lifetime::Connection, ..PLAIN },
];

/// The Clients, with versions by the dice where any will do.
pub(crate) fn make_clients(rng: &mut SmallRng) -> Vec<Client> {
    let make = |(index, role): (usize, &Role)| {
        let is_v5 = rng.random_bool(0.5);
        let other = if is_v5 { ProtocolVersion::V5_0 } else { ProtocolVersion::V3_1_1 };
        let filters = role.filters.iter();
        let filters = filters.map(|filter| ((*filter).to_owned(), QoS::ExactlyOnce)).collect();
        let mut client = Client::new(index, role.version.unwrap_or(other), filters);
        client.lifetime = role.lifetime;
        client.will_terms = role.will;
        client
    };
    ROLES.iter().enumerate().map(make).collect()
}
