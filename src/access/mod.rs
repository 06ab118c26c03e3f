//! Who a Client is and what it may do: the port for authentication, which `auth` implements with users files and
//! certificates, and the rules for authorization, whose meaning is defined in [`rule_set`].

pub mod client_rights;
pub mod rule;
pub mod rule_set;
mod rule_tree;
pub mod template;

use core::net::SocketAddr;
use std::sync::Arc;

use crate::access::client_rights::ClientRights;
use crate::packet::reason_code::ReasonCode;
use crate::session::link::ClientOrigin;
use crate::session::policies::Policies;
use crate::topic::mount_point::MountPoint;

/// Where a Network Connection comes from, as determined by the listener.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Address of the Client (from the PROXY protocol header where one was required); `None` on Unix sockets.
    pub address: Option<SocketAddr>,
    /// The listener's own rules.
    pub listener: Arc<ListenerRules>,
    /// User name taken from a verified client certificate.
    pub certificate_name: Option<Arc<str>>,
}

impl ClientOrigin for Peer {
    fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    fn listener(&self) -> &str {
        &self.listener.name
    }
}

/// What a listener grants to its Clients and requires of them.
#[derive(Debug, Clone, Default)]
pub struct ListenerRules {
    /// Its name in the configuration.
    pub name: String,
    /// Whether Clients without a user name are accepted.
    pub allow_anonymous: bool,
    /// Whether the name in the certificate is the user name; then the one in CONNECT is ignored.
    pub certificate_as_user_name: bool,
    /// Prefix of every topic of its Clients.
    pub mount_point: Option<MountPoint>,
    /// Tighter Maximum Packet Size than the broker's.
    pub max_packet_bytes: Option<u32>,
    /// Tighter limit of Keep Alive, in seconds.
    pub max_keep_alive_seconds: Option<u16>,
    /// What is different for the Sessions of its Clients, whatever they say in CONNECT.
    pub policies: Policies,
    /// Connections of the broker's own parts within the process: nobody is asked who it is, and nothing is written about
    /// them.
    pub internal: bool,
}

/// The identity of an authenticated Client.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Principal {
    /// Verified user name; `None` is anonymous.
    pub(crate) user_name: Option<Arc<str>>,
}

/// The credentials of a CONNECT. `Debug` leaves out the password.
pub struct Credentials {
    /// Client Identifier (as assigned, if it was empty).
    pub client_id: Arc<str>,
    /// User Name.
    pub user_name: Option<String>,
    /// Password.
    pub password: Option<Vec<u8>>,
    /// Where it came from.
    pub peer: Peer,
}

/// One step of enhanced authentication. [MQTT-4.12]
#[derive(Debug, PartialEq, Eq)]
pub enum ExchangeStep {
    /// Send AUTH 0x18 with this Authentication Data and wait for the Client's.
    Continue(Vec<u8>),
    /// Accepted: the Principal, and data for CONNACK (or AUTH 0x00).
    Accept(Principal, Option<Vec<u8>>),
    /// Refused.
    Refuse(ReasonCode),
}

/// A running enhanced authentication of one Client. May block for as long as a hash takes.
pub trait Exchange: Send {
    /// The Client's next Authentication Data.
    fn step(&mut self, data: &[u8]) -> ExchangeStep;
}

/// A Client that was accepted, as rules see it.
#[derive(Debug, Clone, Copy)]
pub struct Client<'a> {
    /// Who it is.
    pub principal: &'a Principal,
    /// Its Client Identifier.
    pub client_id: &'a Arc<str>,
    /// Where it comes from; `None` if that is not known, because it has not been connected since the broker started.
    pub peer: Option<&'a Peer>,
}

/// Decides who may connect and what they may do.
pub trait Authority: Send + Sync {
    /// Checks a CONNECT without enhanced authentication. May block for as long as a password hash takes; called on a
    /// blocking thread. Refusals are [`ReasonCode::BadUserNameOrPassword`], [`ReasonCode::NotAuthorized`],
    /// [`ReasonCode::Banned`] or [`ReasonCode::ServerUnavailable`].
    ///
    /// # Errors
    /// The Reason Code for CONNACK.
    fn authenticate(&self, credentials: &Credentials) -> Result<Principal, ReasonCode>;

    /// Whether `authenticate` may block for these credentials; if not, it is called in place.
    fn may_block(&self, credentials: &Credentials) -> bool;

    /// Starts enhanced authentication; `None` if the method is not supported (0x8C Bad authentication method).
    fn begin_exchange(&self, method: &str, peer: &Peer) -> Option<Box<dyn Exchange>>;

    /// Rises whenever the credentials or the rights of an accepted Client may have changed.
    fn revision(&self) -> u64 {
        0
    }

    /// Whether a Client accepted at this revision would have to authenticate again, because its user was removed or has
    /// new credentials.
    fn is_revoked(&self, _principal: &Principal, _peer: &Peer, _revision: u64) -> bool {
        false
    }

    /// Whether [`Self::rights`] limits any Client.
    fn has_rules(&self) -> bool {
        false
    }

    /// What a Client may do with the topics that the broker leaves to Clients; `None`: everything. The rights follow the rules
    /// in force, and [`Self::revision`] rises when those have changed.
    fn rights(&self, _client: &Client<'_>) -> Option<Arc<ClientRights>> {
        None
    }
}
