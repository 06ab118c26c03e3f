//! The shell: everything between a socket and the core.
//!
//! [`listener`] binds, [`accept`] accepts Network Connections, [`entrance`] limits their number, [`establish`] handles the
//! layers between the socket and MQTT (PROXY protocol, TLS, WebSocket) and passes the byte stream to the
//! [`accept::Handler`]. [`hash_pool`] schedules password checks; [`client_log`] and [`packet_log`] log what Clients do.
//! [`shutdown`] is a value that is passed down to all of them.

pub mod accept;
mod client_log;
mod client_text;
pub mod connection;
pub(crate) mod deadlines;
pub mod entrance;
pub(crate) mod establish;
mod hash_pool;
mod line_budget;
pub mod lingering;
pub mod listener;
mod packet_log;
pub(crate) mod proxy_protocol;
pub mod shutdown;
pub mod stream;
pub(crate) mod tally;
pub mod tls;
