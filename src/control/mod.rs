//! Commands to a running broker over a Unix socket, as used by `petrel ctl`.
//!
//! A command is one line with a JSON object ([`command::Command`]). The answer is lines of JSON ([`protocol::Line`]):
//! any number with progress, then one with the result or the error. Whoever can open the socket has full control, so
//! it has mode 0600.

pub mod client;
pub mod command;
pub(crate) mod protocol;
pub(crate) mod server;
