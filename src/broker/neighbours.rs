//! The brokers around this one, as far as the core needs to know: some Clients hand messages on to them or bring theirs.
//! Who does, and how a message is known again that has gone round, is the business of the shell.

use crate::broker::Broker;
use crate::packet::connect::Connect;
use crate::session::policies::{Policies, Recognition};
use crate::session::publication::Publication;

/// What the shell knows of the ways between brokers.
pub trait Neighbours: Send + Sync {
    /// The policies of the Session that this CONNECT asks for, where those of its listener are `given`.
    fn policies(&self, connect: &Connect<'_>, given: Policies) -> Policies;

    /// Whether only parts of the broker itself may use this Client Identifier.
    fn is_reserved(&self, client_id: &str) -> bool;

    /// A message is about to be given to a Session with [`crate::session::policies::Trail::Lost`]. Nothing is locked that
    /// others wait for.
    fn note_leaving(&self, publication: &Publication<'_>);

    /// Whether a message from a Client has been here before.
    fn has_returned(&self, publication: &Publication<'_>, recognition: Recognition) -> bool;
}

impl Broker {
    /// Sets who knows the brokers around this one; once, before anybody connects.
    pub fn set_neighbours(&self, neighbours: Box<dyn Neighbours>) {
        // A second one would be a bug without consequences: the first stays.
        let _second = self.neighbours.set(neighbours);
    }

    /// Who knows the brokers around this one, if there may be any.
    #[must_use]
    pub(crate) fn neighbours(&self) -> Option<&dyn Neighbours> {
        self.neighbours.get().map(AsRef::as_ref)
    }
}
