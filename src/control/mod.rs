//! Commands to a running broker over a Unix socket: what `petrel ctl` says and who answers.
//!
//! One JSON object on a line asks ([`command::Command`]), lines of JSON answer ([`protocol::Line`]): any number with
//! progress, then one with the result or the error. Whoever may open the socket may do everything, so it is made with
//! mode 0600.

pub mod client;
pub mod command;
pub(crate) mod protocol;
pub(crate) mod server;
