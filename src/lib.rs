//! Petrel: an MQTT broker that acknowledges only what is safe.
//!
//! `packet`, `topic`, `durable`, `session`, `access`, `error` and `broker` are the core: it does no input or output, takes
//! the time as an argument and returns its effects as values. Everything else is the shell around it. `ARCHITECTURE.md`
//! shows how a message travels through them.

pub mod access;
pub mod auth;
pub mod bench;
pub(crate) mod bridge;
pub mod broker;
pub mod client;
pub mod config;
pub mod control;
pub mod dial;
pub mod durable;
pub(crate) mod error;
pub(crate) mod http;
pub mod metrics;
pub mod net;
pub mod node;
pub mod packet;
pub mod session;
pub mod store;
pub mod topic;
pub mod websocket;
