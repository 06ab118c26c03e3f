//! Black-box tests of the protocol: one module for each behaviour, over TCP, against a broker process.
//!
//! Names are behaviours; doc comments cite the normative statements that a test shows, which `make conformance` counts.

#![allow(missing_docs, reason = "tests are documented where their name does not say everything")]
#![allow(unreachable_pub, reason = "what a test program defines reaches nobody")]

mod broker;
mod client;
mod packet;
#[path = "../support/port.rs"]
mod port;

mod access;
mod acl_mosquitto;
mod authentication;
mod client_log;
mod closing;
mod connect;
mod departure;
mod dollar;
mod filters;
mod flow;
mod keep_alive;
mod malformed;
mod mount_point;
mod ordering;
mod overflow;
mod owner;
mod publish;
mod qos;
mod reasons;
mod retained;
mod server;
mod session;
mod shared;
mod small;
mod subscribe;
mod takeover;
mod users;
mod will;
