//! The built-in authority: a users file, client certificates, and anonymous access where a listener allows it; and access
//! rules by topic, if a file has some. Without, everyone who was let in may use every topic that the broker leaves to
//! Clients.

use std::sync::Arc;

use crate::access::client_rights::{ClientRights, Rules};
use crate::access::{Authority, Client, Credentials, Exchange, Peer, Principal};
use crate::auth::scram::{self, ScramServer};
use crate::auth::users::UsersFile;
use crate::packet::reason_code::ReasonCode;

/// The built-in authority.
#[derive(Debug, Default)]
pub struct DefaultAuthority {
    users: Option<Arc<UsersFile>>,
    rules: Option<Arc<Rules>>,
}

/// Bits of the revision that count changes of rules; those above count changes of users.
const RULES_BITS: u32 = 32;

impl DefaultAuthority {
    /// Creates an authority with the users of a file, or without users.
    #[must_use]
    pub fn new(users: Option<Arc<UsersFile>>) -> Self {
        Self { users, rules: None }
    }

    /// Adds access rules, if there are any.
    #[must_use]
    pub fn with_rules(self, rules: Option<Arc<Rules>>) -> Self {
        Self { rules, ..self }
    }

    /// The Client's identity if no password needs to be checked; `None` if one must be.
    fn without_password(credentials: &Credentials) -> Option<Principal> {
        let peer = &credentials.peer;
        if peer.listener.internal {
            return Some(Principal::default());
        }
        match &peer.certificate_name {
            Some(name) if peer.listener.certificate_as_user_name => {
                Some(Principal { user_name: Some(Arc::clone(name)) })
            }
            _ => None,
        }
    }

    fn anonymous(peer: &Peer) -> Result<Principal, ReasonCode> {
        if peer.listener.allow_anonymous {
            Ok(Principal::default())
        } else {
            Err(ReasonCode::NotAuthorized)
        }
    }
}

impl Authority for DefaultAuthority {
    fn authenticate(&self, credentials: &Credentials) -> Result<Principal, ReasonCode> {
        if let Some(principal) = Self::without_password(credentials) {
            return Ok(principal);
        }
        // Without users, a name is only a claim: the Client counts as anonymous.
        let Some(users) = &self.users else { return Self::anonymous(&credentials.peer) };
        let password = credentials.password.as_deref().unwrap_or_default();
        match said_name(credentials) {
            Some(name) if users.verify(name, password) => {
                Ok(Principal { user_name: Some(name.into()) })
            }
            None if password.is_empty() => Self::anonymous(&credentials.peer),
            // A password without a user name is a mistake, not a request for anonymous access.
            Some(_) | None => Err(ReasonCode::BadUserNameOrPassword),
        }
    }

    fn may_block(&self, credentials: &Credentials) -> bool {
        let (Some(name), Some(users)) = (said_name(credentials), &self.users) else {
            return false;
        };
        let password = credentials.password.as_deref().unwrap_or_default();
        Self::without_password(credentials).is_none() && users.is_slow(name, password)
    }

    fn begin_exchange(&self, method: &str, _peer: &Peer) -> Option<Box<dyn Exchange>> {
        let users = self.users.as_ref();
        let users = users.filter(|users| method == scram::METHOD && users.offers_scram())?;
        Some(Box::new(ScramServer::new(Arc::clone(users))))
    }

    fn revision(&self) -> u64 {
        let users = self.users.as_ref().map_or(0, |users| users.revision());
        let rules = self.rules.as_ref().map_or(0, |rules| rules.revision());
        (users << RULES_BITS) | (rules % (1 << RULES_BITS))
    }

    fn is_revoked(&self, principal: &Principal, peer: &Peer, revision: u64) -> bool {
        let by_certificate =
            peer.listener.certificate_as_user_name && peer.certificate_name == principal.user_name;
        match (&self.users, &principal.user_name) {
            (Some(users), Some(name)) if !by_certificate => {
                users.is_changed_since(name, revision >> RULES_BITS)
            }
            _ => false,
        }
    }

    fn has_rules(&self) -> bool {
        self.rules.is_some()
    }

    fn rights(&self, client: &Client<'_>) -> Option<Arc<ClientRights>> {
        let is_internal = client.peer.is_some_and(|peer| peer.listener.internal);
        let rules = self.rules.as_ref().filter(|_| !is_internal)?;
        Some(Arc::new(ClientRights::new(rules, client)))
    }
}

/// The User Name, unless it is empty: some programs send an empty one if none is set.
fn said_name(credentials: &Credentials) -> Option<&str> {
    credentials.user_name.as_deref().filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::access::{ExchangeStep, ListenerRules};
    use crate::auth::scram::{ClientStep, ScramClient};
    use crate::auth::users::{HashCost, Users};

    fn credentials(rules: ListenerRules, user: Option<(&str, &str)>) -> Credentials {
        Credentials {
            client_id: "c".into(),
            user_name: user.map(|(name, _)| name.to_owned()),
            password: user.map(|(_, password)| password.as_bytes().to_vec()),
            peer: Peer { address: None, listener: Arc::new(rules), certificate_name: None },
        }
    }

    fn open() -> ListenerRules {
        ListenerRules { allow_anonymous: true, ..ListenerRules::default() }
    }

    fn authority() -> (tempfile::TempDir, DefaultAuthority) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users.txt");
        let mut users = Users::parse("", Path::new("")).unwrap();
        let cost = HashCost { memory_kib: 8, passes: 1, scram_iterations: 4096 };
        users.set("ann", "secret", cost).unwrap();
        std::fs::write(&path, users.to_text()).unwrap();
        let users = Arc::new(UsersFile::open(&path).unwrap());
        (directory, DefaultAuthority::new(Some(users)))
    }

    fn named(name: &str) -> Principal {
        Principal { user_name: Some(name.into()) }
    }

    #[test]
    fn anonymous_clients_come_in_where_the_listener_lets_them() {
        let authority = DefaultAuthority::default();
        let enter = |rules, user| authority.authenticate(&credentials(rules, user));
        assert_eq!(enter(open(), None), Ok(Principal::default()));
        assert_eq!(enter(open(), Some(("ann", "x"))), Ok(Principal::default()));
        let closed = ListenerRules::default();
        assert_eq!(enter(closed.clone(), None), Err(ReasonCode::NotAuthorized));
        assert_eq!(enter(closed, Some(("ann", "x"))), Err(ReasonCode::NotAuthorized));
        let internal = ListenerRules { internal: true, ..ListenerRules::default() };
        assert_eq!(enter(internal, None), Ok(Principal::default()));
    }

    #[test]
    fn a_name_with_users_needs_its_password_even_where_anonymous_is_allowed() {
        let (_directory, authority) = authority();
        let enter = |user| authority.authenticate(&credentials(open(), user));
        assert_eq!(enter(Some(("ann", "secret"))), Ok(named("ann")));
        assert_eq!(enter(Some(("ann", "wrong"))), Err(ReasonCode::BadUserNameOrPassword));
        assert_eq!(enter(Some(("bob", "secret"))), Err(ReasonCode::BadUserNameOrPassword));
        assert_eq!(enter(None), Ok(Principal::default()));
    }

    /// MQTT-Explorer sends an empty User Name if none is set; a Client that sends a password is not anonymous.
    #[test]
    fn an_empty_name_is_none_and_a_password_without_name_is_wrong() {
        let (_directory, authority) = authority();
        let enter = |authority: &DefaultAuthority, rules, name: Option<&str>, password: &str| {
            let mut credentials = credentials(rules, Some((name.unwrap_or_default(), password)));
            credentials.user_name = name.map(str::to_owned);
            authority.authenticate(&credentials)
        };
        let wrong = Err(ReasonCode::BadUserNameOrPassword);
        assert_eq!(enter(&authority, open(), Some(""), ""), Ok(Principal::default()));
        for name in [None, Some("")] {
            assert_eq!(enter(&authority, open(), name, "secret"), wrong);
        }
        let closed = ListenerRules::default;
        assert_eq!(enter(&authority, closed(), Some(""), ""), Err(ReasonCode::NotAuthorized));
        // Without users, no password is checked.
        let nobody = DefaultAuthority::default();
        assert_eq!(enter(&nobody, open(), None, "secret"), Ok(Principal::default()));
        assert_eq!(enter(&nobody, open(), Some(""), "secret"), Ok(Principal::default()));
    }

    #[test]
    fn only_a_full_hash_may_block() {
        let (_directory, authority) = authority();
        let ann = credentials(open(), Some(("ann", "secret")));
        assert!(!authority.may_block(&credentials(open(), None)));
        assert!(authority.may_block(&ann));
        assert_eq!(authority.authenticate(&ann), Ok(named("ann")));
        assert!(!authority.may_block(&ann));
    }

    #[test]
    fn a_certificate_is_the_user_where_the_listener_says_so() {
        let (_directory, authority) = authority();
        let rules = ListenerRules { certificate_as_user_name: true, ..ListenerRules::default() };
        let mut with = credentials(rules, Some(("ann", "wrong")));
        with.peer.certificate_name = Some("device-7".into());
        assert_eq!(authority.authenticate(&with), Ok(named("device-7")));
        assert!(!authority.may_block(&with));
        with.peer.listener = Arc::default();
        assert_eq!(authority.authenticate(&with), Err(ReasonCode::BadUserNameOrPassword));
    }

    #[test]
    fn scram_is_offered_with_users_only() {
        let (_directory, authority) = authority();
        let peer = credentials(open(), None).peer;
        assert!(authority.begin_exchange("SCRAM-SHA-1", &peer).is_none());
        let without = DefaultAuthority::default();
        assert!(without.begin_exchange(scram::METHOD, &peer).is_none());

        let mut exchange = authority.begin_exchange(scram::METHOD, &peer).unwrap();
        let mut client = ScramClient::new("ann", "secret").unwrap();
        let ExchangeStep::Continue(challenge) = exchange.step(&client.first()) else { panic!() };
        let Ok(ClientStep::Send(proof)) = client.step(&challenge) else { panic!() };
        let ExchangeStep::Accept(principal, _) = exchange.step(&proof) else { panic!() };
        assert_eq!(principal, named("ann"));
    }
}
