//! Bridges: topics shared with other brokers, without loss, loops or stalls.
//!
//! On the local side a bridge is an ordinary durable Session of our own broker, reached through a stream in memory
//! ([`local::LocalBroker`]); on the remote side it is an MQTT client. Between them is the [`relay`], which passes
//! messages and acknowledgements on and stores none: all durable state is in the two Sessions. The [`worker`] decides
//! when and where to connect, and the [`manager`] starts, changes and stops workers.
//!
//! In reading order: [`crate::config::bridge`] (what was configured), [`relay`] with [`properties`],
//! [`loop_guard`] and [`rate`] (what happens to a message), [`policies`] (what the broker does for bridges), [`remote`], [`handshake`] and [`link`] (the
//! connections), [`worker`] with [`prepare`], [`memory`] and [`backoff`], [`manager`], [`status`].

pub(crate) mod backoff;
pub(crate) mod error;
pub(crate) mod handshake;
pub(crate) mod link;
pub(crate) mod local;
pub(crate) mod loop_guard;
pub(crate) mod manager;
pub(crate) mod memory;
pub(crate) mod policies;
pub(crate) mod prepare;
pub(crate) mod properties;
pub(crate) mod rate;
pub(crate) mod relay;
pub(crate) mod remote;
pub(crate) mod status;
pub(crate) mod wire;
pub(crate) mod worker;
