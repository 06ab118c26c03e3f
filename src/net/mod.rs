//! The shell: everything between a socket and the core.
//!
//! [`listener`] binds, [`accept`] takes Network Connections in, [`entrance`] says which of them have a place, [`establish`] speaks what lies between the socket and
//! MQTT (PROXY protocol, TLS, WebSocket) and hands the byte stream to the [`accept::Handler`]. [`shutdown`] goes down
//! through all of it as a value.

pub mod accept;
pub mod connection;
pub mod deadlines;
pub mod entrance;
pub mod establish;
pub mod lingering;
pub mod listener;
pub mod proxy_protocol;
pub mod shutdown;
pub mod stream;
pub(crate) mod tally;
pub mod tls;
