//! The shell: everything between a socket and the core.
//!
//! [`listener`] binds, [`accept`] takes Network Connections in, [`entrance`] says which of them have a place, [`establish`]
//! speaks what lies between the socket and MQTT (PROXY protocol, TLS, WebSocket) and hands the byte stream to the
//! [`accept::Handler`]. [`hash_pool`] says whose password is checked next; [`client_log`] and [`packet_log`] tell operators
//! what Clients do. [`shutdown`] goes down through all of it as a value.

pub mod accept;
mod client_log;
mod client_text;
pub mod connection;
pub mod deadlines;
pub mod entrance;
pub mod establish;
mod hash_pool;
mod line_budget;
pub mod lingering;
pub mod listener;
mod packet_log;
pub mod proxy_protocol;
pub mod shutdown;
pub mod stream;
pub(crate) mod tally;
pub mod tls;
