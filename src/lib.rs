//! Petrel: an MQTT broker that acknowledges only what is safe.
//!
//! The modules below stand in reading order. The first five are the core: they do no input or output, take the time as
//! an argument and return their effects as values; everything after them is the shell around it. `ARCHITECTURE.md`
//! shows how a message travels through them.

pub mod auth;
pub mod bench;
pub mod bridge;
pub mod broker;
pub mod client;
pub mod config;
pub mod control;
pub mod error;
pub mod http;
pub mod metrics;
pub mod net;
pub mod node;
pub mod packet;
pub mod session;
pub mod store;
pub mod topic;
