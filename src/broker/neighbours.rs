//! Other brokers connected to this one, as far as the core needs to know: some Clients forward messages to them or from
//! them. The shell knows which Clients do, and how to recognise messages that return.

use crate::broker::Broker;
use crate::packet::connect::Connect;
use crate::session::policies::{Policies, Recognition};
use crate::session::publication::Publication;

/// The port to the shell's knowledge about connections between brokers.
pub(crate) trait Neighbours: Send + Sync {
    /// The policies for the Session of this CONNECT; those of its listener are `given`.
    fn policies(&self, connect: &Connect<'_>, given: Policies) -> Policies;

    /// Whether only parts of the broker itself may use this Client Identifier.
    fn is_reserved(&self, client_id: &str) -> bool;

    /// Called before a message is delivered to a Session with [`crate::session::policies::Trail::Lost`]. No contended
    /// lock is held.
    fn note_leaving(&self, publication: &Publication<'_>);

    /// Whether a message from a Client was here before.
    fn has_returned(&self, publication: &Publication<'_>, recognition: Recognition) -> bool;
}

impl Broker {
    /// Sets the implementation; once, before any Client connects.
    pub(crate) fn set_neighbours(&self, neighbours: Box<dyn Neighbours>) {
        // A second one would be a bug without consequences: the first stays.
        let _second = self.neighbours.set(neighbours);
    }

    /// The implementation, if other brokers may be connected.
    #[must_use]
    pub(crate) fn neighbours(&self) -> Option<&dyn Neighbours> {
        self.neighbours.get().map(AsRef::as_ref)
    }
}
