//! Bridges between real processes: Petrel to Petrel and Petrel to Debian's `mosquitto`, in both roles.
//!
//! Messages are published and received by `mosquitto_pub` and `mosquitto_sub`, the clients that others wrote. Without
//! mosquitto installed the tests say so and pass: `make test` installs it where it may.

#![allow(unreachable_pub, reason = "what a test program defines reaches nobody")]

mod carriers;
mod chain;
mod control;
mod cuts;
mod failures;
mod loops;
mod mosquitto_window;
mod options;
mod peer;
#[path = "../support/port.rs"]
mod port;
mod probe;
mod process;
mod proxy;
mod queue;
mod refusals;
mod retained;
mod rules;
mod rumqttc_limits;
mod state;
